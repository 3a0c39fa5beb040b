//! The rows of the store, and the changes to them.
//!
//! A row is a key, the columns that a store indexes, and a body that only this crate (and whoever reads one
//! record) understands. The store keeps the body as postcard bytes ([`Record::to_bytes`]) and assigns `uid` and
//! `modseq` itself when it commits: the first per conversation, the second node-wide and rising.

mod bodies;

use base::{Private, UnixTime};
use serde::{Deserialize, Serialize};

pub use bodies::{
    AcceptedMessage, Binding, ContextRow, DialogRow, EndedLeg, FileRow, Group, ImdnState, ReferralRow,
    ReferralsRow, RelayEnd, RelayRow, RosterRow, SessionRow, Side, Subscriber, SubscriptionRow,
};

use crate::LaneKey;

/// The tables.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Table {
    /// Who may register: key = user.
    Subscriber,
    /// Registered contacts: key = `user/instance/reg-id` or `user/contact`.
    Binding,
    /// Pre-defined groups: key = group address.
    Group,
    /// 1-1 sessions of a Participating Function: key = session id.
    Session,
    /// Dialogs and participants of a Controlling Function: key = conference/participant.
    Dialog,
    /// Media contexts with their ports: key = context id in hex.
    Context,
    /// Conferences with their rosters: key = focus; files on their way to groups: key = `file-` and the context in hex.
    Roster,
    /// Event subscriptions: key = focus/dialog.
    Subscription,
    /// Subscriptions that pass through a Participating Function: key = our tag; those that REFERs inside a session imply:
    /// key = `refer-` and the session id.
    Relay,
    /// Pager messages that were accepted and not yet delivered: key = message.
    Message,
    /// IMDN de-duplication states: key = digest of (Message-ID, originator, recipient).
    Imdn,
    /// RTP legs that have ended: key = `time/context/leg` in hex, the newest first.
    Ended,
}

impl Table {
    /// Every table.
    pub const ALL: [Table; 12] = [
        Table::Subscriber,
        Table::Binding,
        Table::Group,
        Table::Session,
        Table::Dialog,
        Table::Context,
        Table::Roster,
        Table::Subscription,
        Table::Relay,
        Table::Message,
        Table::Imdn,
        Table::Ended,
    ];

    /// The name in the store and in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Table::Subscriber => "subscriber",
            Table::Binding => "binding",
            Table::Group => "group",
            Table::Session => "session",
            Table::Dialog => "dialog",
            Table::Context => "context",
            Table::Roster => "roster",
            Table::Subscription => "subscription",
            Table::Relay => "relay",
            Table::Message => "message",
            Table::Imdn => "imdn",
            Table::Ended => "ended",
        }
    }

    /// Whether a lane is given its rows at start (`Input::Restored`); the others are fetched by `Need`.
    pub const fn restored(self) -> bool {
        !matches!(self, Table::Subscriber | Table::Group | Table::Imdn | Table::Ended)
    }
}

/// Names a row.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Key {
    /// The table.
    pub table: Table,
    /// The key within it. May hold an address: private.
    pub id: Private<String>,
}

impl Key {
    /// The row `id` of `table`.
    pub fn new(table: Table, id: impl Into<String>) -> Self {
        Key { table, id: Private::new(id.into()) }
    }
}

/// Which way a conversation's item went, seen by the served user.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Direction {
    /// Not of a conversation.
    #[default]
    None,
    /// The served user sent it.
    Sent,
    /// The served user was sent it.
    Received,
}

/// What a store keeps in columns of their own.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Columns {
    /// The served user, or the focus; empty where there is none.
    pub owner: Private<String>,
    /// Conversation-ID.
    pub conversation: String,
    /// Contribution-ID.
    pub contribution: String,
    /// Which way.
    pub direction: Direction,
    /// When the store may delete the row by itself; zero = never. Only rows that their lane reads again after
    /// it (Imdn), and those that no lane reads (Ended), have one: what a lane holds in memory it removes itself, or its versions would not fit.
    pub expires: UnixTime,
}

/// One row.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// Its name.
    pub key: Key,
    /// The bucket that owns it: rows go to that lane at start.
    pub lane: LaneKey,
    /// 1 for a new row, one more with each change.
    pub version: u64,
    /// What the store indexes.
    pub columns: Columns,
    /// The body.
    pub record: Record,
}

/// One change; a list of them is committed whole or not at all.
#[derive(Clone, PartialEq, Debug)]
pub enum Change {
    /// Put a row whose version is n: the store must hold n-1 (no row at all when n is 1).
    Put(Box<Row>),
    /// Remove a row, whatever its version; no fault when there is none.
    Remove(Key),
}

/// The bodies.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Record {
    /// See [`Table::Subscriber`].
    Subscriber(Subscriber),
    /// See [`Table::Binding`].
    Binding(Binding),
    /// See [`Table::Group`].
    Group(Group),
    /// See [`Table::Session`].
    Session(Box<SessionRow>),
    /// See [`Table::Dialog`].
    Dialog(Box<DialogRow>),
    /// See [`Table::Context`].
    Context(ContextRow),
    /// See [`Table::Roster`].
    Roster(RosterRow),
    /// See [`Table::Subscription`].
    Subscription(Box<SubscriptionRow>),
    /// See [`Table::Relay`].
    Relay(Box<RelayRow>),
    /// See [`Table::Message`].
    Message(Box<AcceptedMessage>),
    /// See [`Table::Imdn`].
    Imdn(ImdnState),
    /// See [`Table::Ended`].
    Ended(Box<EndedLeg>),
    /// See [`Table::Roster`].
    File(FileRow),
    /// See [`Table::Relay`].
    Referrals(Box<ReferralsRow>),
}

impl Record {
    /// The body for the store.
    pub fn to_bytes(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_stdvec(self)
    }

    /// Back from the store.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, postcard::Error> {
        postcard::from_bytes(bytes)
    }
}
