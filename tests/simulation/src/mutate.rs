//! Rules broken on purpose, between the engine and its peers: each must be noticed.

use std::collections::BTreeMap;

use bytes::Bytes;
use msrp::{Event, Flag, Framer, Method, Status};

use crate::dice::Dice;
use crate::link::Chunk;

/// A broken rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutation {
    /// A chunk that ends a message says that more will follow.
    LostEndFlag,
    /// A chunk comes twice.
    DoubledChunk,
    /// Who joined after a message had begun is served its tail.
    LateTail,
    /// Two messages of one sender change places.
    SwappedMessages,
    /// One receiver has none of a message, and nobody is told.
    SilentDrop,
    /// What its sender gave up ends as if it were whole.
    EndAfterAbort,
    /// A chunk also comes to a session of another context.
    OtherSession,
    /// An octet is another one.
    AlteredOctet,
    /// A private message also comes to somebody else.
    PrivateToAll,
    /// The driver says that octets are with the kernel which are not.
    EarlySent,
    /// A success REPORT that no receiver sent, or for which nothing was delivered.
    InventedReport,
    /// A REPORT is not passed on.
    LostReport,
    /// A response is not passed on.
    LostAnswer,
    /// A response comes twice.
    DoubledAnswer,
    /// A message that was refused is answered 200.
    FriendlyAnswer,
    /// `#` is not passed on.
    LostAbort,
    /// A source waits for a tap that is slow.
    TapHoldsBack,
    /// What a tap reports is passed on.
    TapReports,
    /// Octets are handed over to another shard twice.
    HandedTwice,
    /// The end of a message does not come to another shard.
    LostHandedEnd,
    /// What another shard has taken is not taken off what is on its way to it.
    LostTaken,
    /// Octets come to another shard before those that were handed over before them.
    HandedOutOfOrder,
    /// Who joined on another shard after a message had begun is served its tail.
    LateTailElsewhere,
    /// The disk says that it has written what it has not.
    LostWrite,
    /// What is to come back from disk never does.
    LostFetch,
    /// Control is told that who was behind has all of it when he has not.
    EarlyOver,
}

impl Mutation {
    /// All of them.
    pub const ALL: &'static [Mutation] = &[
        Mutation::LostEndFlag,
        Mutation::DoubledChunk,
        Mutation::LateTail,
        Mutation::SwappedMessages,
        Mutation::SilentDrop,
        Mutation::EndAfterAbort,
        Mutation::OtherSession,
        Mutation::AlteredOctet,
        Mutation::PrivateToAll,
        Mutation::EarlySent,
        Mutation::InventedReport,
        Mutation::LostReport,
        Mutation::LostAnswer,
        Mutation::DoubledAnswer,
        Mutation::FriendlyAnswer,
        Mutation::LostAbort,
        Mutation::TapHoldsBack,
        Mutation::TapReports,
        Mutation::HandedTwice,
        Mutation::LostHandedEnd,
        Mutation::LostTaken,
        Mutation::HandedOutOfOrder,
        Mutation::LateTailElsewhere,
        Mutation::LostWrite,
        Mutation::LostFetch,
        Mutation::EarlyOver,
    ];
}

/// What a broken rule remembers.
pub(crate) struct Mutator {
    pub(crate) kind: Option<Mutation>,
    dice: Dice,
    /// Whole messages that wait to come after the next one.
    waiting: BTreeMap<u64, Chunk>,
    /// By connection and Message-ID: whether it is dropped.
    dropped: BTreeMap<(u64, String), bool>,
}

impl Mutator {
    pub(crate) fn new(kind: Option<Mutation>, seed: u64) -> Self {
        Mutator { kind, dice: Dice::new(seed ^ 0x5eed), waiting: BTreeMap::new(), dropped: BTreeMap::new() }
    }

    /// What a peer reads instead of a chunk.
    pub(crate) fn on(&mut self, conn: u64, mut chunk: Chunk) -> Vec<Chunk> {
        let Some(kind) = self.kind else { return vec![chunk] };
        let is_send = chunk.head.method() == Some(Method::Send);
        let is_content = is_send && (chunk.head.has_body() || chunk.flag == Flag::Abort);
        let is_report = chunk.head.method() == Some(Method::Report);
        let is_answer = chunk.head.method().is_none();
        match kind {
            Mutation::LostEndFlag if is_content && chunk.flag == Flag::Last && self.dice.percent(20) => {
                chunk.flag = Flag::More;
            }
            Mutation::DoubledChunk if is_content && !chunk.body.is_empty() && self.dice.percent(20) => {
                return vec![chunk.clone(), chunk];
            }
            Mutation::SwappedMessages if is_content => {
                let whole = chunk.flag == Flag::Last && chunk.head.byte_range().is_some_and(|r| r.start == 1);
                if let Some(waited) = self.waiting.remove(&conn) {
                    return vec![chunk, waited];
                }
                if whole && self.dice.percent(30) {
                    self.waiting.insert(conn, chunk);
                    return Vec::new();
                }
            }
            Mutation::SilentDrop if is_content => {
                let key = (conn, chunk.head.message_id().to_owned());
                let dice = &mut self.dice;
                if *self.dropped.entry(key).or_insert_with(|| dice.percent(10)) {
                    return Vec::new();
                }
            }
            Mutation::EndAfterAbort if is_content && chunk.flag == Flag::Abort => chunk.flag = Flag::Last,
            Mutation::LostAbort if is_content && chunk.flag == Flag::Abort => return Vec::new(),
            Mutation::AlteredOctet if is_content && !chunk.body.is_empty() && self.dice.percent(10) => {
                let mut body = chunk.body.to_vec();
                let at = self.dice.below(body.len() as u64) as usize;
                body[at] ^= 0x20;
                chunk.body = body.into();
            }
            Mutation::LostReport if is_report && self.dice.percent(30) => return Vec::new(),
            Mutation::LostAnswer if is_answer && self.dice.percent(10) => return Vec::new(),
            Mutation::DoubledAnswer if is_answer && self.dice.percent(10) => {
                return vec![chunk.clone(), chunk];
            }
            Mutation::FriendlyAnswer if is_answer => {
                if let Some(friendly) = edited(&chunk, |text| text.replacen("40", "20", 1)) {
                    return vec![friendly];
                }
            }
            Mutation::InventedReport if is_report && chunk.head.status() != Some(Status::OK) => {
                let change =
                    |text: &str| text.replace("Status: 000 408 Request Timeout", "Status: 000 200 OK");
                return edited(&chunk, change).into_iter().collect();
            }
            _ => {}
        }
        vec![chunk]
    }

    /// Whether a rule is broken this time.
    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.dice.percent(chance)
    }

    /// Whether a chunk comes to another seat as well.
    pub(crate) fn strays(&mut self) -> bool {
        let kinds =
            [Mutation::LateTail, Mutation::LateTailElsewhere, Mutation::OtherSession, Mutation::PrivateToAll];
        self.kind.is_some_and(|kind| kinds.contains(&kind)) && self.dice.percent(30)
    }
}

/// A head without a body with its text changed.
fn edited(chunk: &Chunk, change: impl Fn(&str) -> String) -> Option<Chunk> {
    let text = std::str::from_utf8(chunk.head.block()).ok()?;
    let mut bytes = Bytes::from(format!("{}-------{}$\r\n", change(text), chunk.head.tid()));
    let mut framer = Framer::new(msrp::Limits::default());
    let mut head = None;
    while let Ok(Some(event)) = framer.next(&mut bytes) {
        if let Event::Head(read) = event {
            head = Some(read);
        }
    }
    Some(Chunk { head: head?, body: Bytes::new(), flag: Flag::Last })
}
