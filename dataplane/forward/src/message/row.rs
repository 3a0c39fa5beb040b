//! The row of an MSRP leg.
//!
//! ```text
//!  New ── remote path known, passive ──► Listening ── first request names the session ──► Bound
//!   └──── remote path known, active ───► Dialing ──── connected, empty SEND sent ──────────┘
//!  Listening ── 30 s ──► Lost          Dialing ── failed ──► Lost      Bound ── closed ──► Lost
//! ```

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use base::Instant;
use contract::LegKey;
use cpm::UserId;
use msrp::Head;

use super::across::{Across, FarTaps};
use super::held::Held;
use super::passages::Passages;
use super::spill::Spill;
use crate::ConnId;

/// How far a leg's session has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// The peer is not known yet.
    New,
    /// The peer shall connect, until then.
    Listening(Instant),
    /// We are connecting.
    Dialing,
    /// On a connection.
    Bound(ConnId),
    /// It was, or should have been.
    Lost,
}

/// Where the messages of a leg go.
#[derive(Clone, Debug, Default)]
pub(crate) enum Lead {
    /// Nowhere.
    #[default]
    Nowhere,
    /// To these legs, as they come.
    Pass(Vec<u32>),
    /// To a room, by its row.
    Room(u32),
}

/// A message whose REPORT the far end of this leg may still send.
#[derive(Debug)]
pub(crate) struct Expect {
    /// Tells most Message-IDs apart.
    pub(crate) tag: u32,
    pub(crate) message_id: String,
    pub(crate) source: u32,
    pub(crate) passage: u64,
    pub(crate) until: Instant,
    /// It waited on disk, and its far end was asked to report success: until it does, it may not have all of it.
    pub(crate) spilled: bool,
}

impl Expect {
    /// Whether it is about the message with this Message-ID, whose tag is `tag`.
    pub(crate) fn is_of(&self, tag: u32, message_id: &str) -> bool {
        self.tag == tag && self.message_id == message_id
    }
}

/// A NICKNAME that control decides about.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) id: u64,
    pub(crate) head: Head,
    pub(crate) until: Instant,
}

/// Counters of a leg.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counts {
    pub(crate) messages_in: u64,
    pub(crate) messages_out: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) dropped: u64,
}

/// What concerns other shards of a leg.
#[derive(Debug, Default)]
pub(crate) struct Beyond {
    /// Legs of its participant whose place it has taken lately.
    pub(crate) formerly: Vec<u64>,
    /// Legs there that get a copy of what its peer says.
    pub(crate) far_taps: Vec<FarTaps>,
}

/// An MSRP leg.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) key: LegKey,
    pub(crate) serial: u64,
    pub(crate) unseen: bool,
    pub(crate) may_send: bool,
    pub(crate) may_receive: bool,
    pub(crate) muted: bool,
    /// Shared with the table of sessions.
    pub(crate) session: Arc<str>,
    /// Our own URI: From-Path of what we send.
    pub(crate) own: String,
    /// The peer's path: To-Path of what we send. Empty until it is known.
    pub(crate) peer: String,
    pub(crate) active: bool,
    /// Where it is to be connected to; only of an active one.
    pub(crate) connect: Option<Box<SocketAddr>>,
    pub(crate) tls: bool,
    pub(crate) fingerprint: Option<Box<[u8; 32]>>,
    /// Legs with the same are one participant's; empty: nobody's but its own.
    pub(crate) participant: String,
    pub(crate) addresses: Vec<String>,
    pub(crate) users: Vec<UserId>,
    pub(crate) accept: Vec<String>,
    pub(crate) max_size: u64,
    pub(crate) private: bool,
    pub(crate) nickname: String,
    pub(crate) stage: Stage,
    pub(crate) lead: Lead,
    /// Legs that get a copy of what this one's peer says.
    pub(crate) taps: Vec<u32>,
    /// It is such a one of others.
    pub(crate) is_tap: bool,
    /// The leg whose Message-IDs this one's peer sees as they are, by its serial; others' are replaced.
    pub(crate) ids_of: Option<u64>,
    /// One of its targets sees another leg's Message-IDs.
    pub(crate) renames: bool,
    /// Of the IMDNs of so many legs, of which this is one, only the first of each disposition passes; 0: all do.
    pub(crate) imdn_once: usize,
    /// Each recipient whose IMDNs come by this leg counts for himself; else they are all one's.
    pub(crate) imdn_each: bool,
    pub(crate) passages: Passages,
    /// Ids of messages that were taken whole, so that none is taken twice.
    pub(crate) taken: VecDeque<String>,
    pub(crate) expects: VecDeque<Expect>,
    pub(crate) asked: Option<Box<Asked>>,
    pub(crate) counts: Counts,
    pub(crate) last_at: Instant,
    pub(crate) captured: bool,
    /// The earliest sweep that is set.
    pub(crate) swept: Option<Instant>,
    /// Its peer is or was known: what a room says meanwhile is for him too.
    pub(crate) joined: bool,
    /// What a room holds for him until he has a connection.
    pub(crate) held: Vec<Held>,
    /// It is behind others of the same messages.
    pub(crate) spill: Option<Box<Spill>>,
    /// Control was told that more could not be held.
    pub(crate) pressed: bool,
    /// What a room on several shards knows of it besides; most legs have none of that.
    pub(crate) beyond: Option<Box<Beyond>>,
    /// Its messages go to members on other shards, or come from there.
    pub(crate) across: Option<Box<Across>>,
}

impl Row {
    /// A leg of which nothing is known but its name.
    pub(crate) fn new(key: LegKey, serial: u64, now: Instant) -> Self {
        Row {
            key,
            serial,
            unseen: false,
            may_send: false,
            may_receive: false,
            muted: false,
            session: Arc::default(),
            own: String::new(),
            peer: String::new(),
            active: false,
            connect: None,
            tls: false,
            fingerprint: None,
            participant: String::new(),
            addresses: Vec::new(),
            users: Vec::new(),
            accept: Vec::new(),
            max_size: 0,
            private: false,
            nickname: String::new(),
            stage: Stage::New,
            lead: Lead::Nowhere,
            taps: Vec::new(),
            is_tap: false,
            ids_of: None,
            renames: false,
            imdn_once: 0,
            imdn_each: false,
            passages: Passages::default(),
            taken: VecDeque::new(),
            expects: VecDeque::new(),
            asked: None,
            counts: Counts::default(),
            last_at: now,
            captured: false,
            swept: None,
            joined: false,
            held: Vec::new(),
            spill: None,
            pressed: false,
            beyond: None,
            across: None,
        }
    }

    pub(crate) fn conn(&self) -> Option<ConnId> {
        if let Stage::Bound(conn) = self.stage { Some(conn) } else { None }
    }

    /// What other shards may call it.
    pub(crate) fn names(&self) -> impl Iterator<Item = u64> {
        let formerly = self.beyond.as_ref().map(|beyond| beyond.formerly.as_slice()).unwrap_or_default();
        formerly.iter().copied().chain([self.key.leg])
    }

    /// Its taps on other shards.
    pub(crate) fn far_taps(&self) -> &[FarTaps] {
        self.beyond.as_ref().map(|beyond| beyond.far_taps.as_slice()).unwrap_or_default()
    }

    /// Whether both legs are one participant's.
    pub(crate) fn is_sibling(&self, other: &Row) -> bool {
        !self.participant.is_empty() && self.participant == other.participant
    }

    /// Whether an address is one of this participant's own.
    pub(crate) fn is_user(&self, uri: &str) -> bool {
        self.is_one(uri, UserId::parse(uri).ok().as_ref())
    }

    /// The same where it is asked of many: who it is, if it names a user.
    pub(crate) fn is_one(&self, uri: &str, user: Option<&UserId>) -> bool {
        match user {
            Some(user) => self.users.contains(user),
            None => self.addresses.iter().any(|a| cpm::address::uri_of(a) == uri),
        }
    }

    /// Whether the peer takes a type, alone or inside a container (RFC 4975 §8.6). No list: it takes all.
    pub(crate) fn accepts(&self, content_type: &str) -> bool {
        self.accept.is_empty() || cpm::media_type::accepted(&self.accept, content_type)
    }
}
