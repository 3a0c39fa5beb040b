//! A room whose members are on several shards (RFC 7701; DESIGN §2, invariant 4). The sender's shard judges a message and
//! freezes who may have it, there and elsewhere; each octet that it accepts it hands over once to every shard that has such
//! members, in order; there the sender has a guest: a row without a connection, whose message is spread to the members of
//! that shard as any other one is. Nobody is a member on two shards, so each has it once, and in the order of its sender.
//!
//! ```text
//!   sender's shard                                               a member's shard
//!   first piece ══ begin: who, its head, the piece ══════════►  guest, copies of those who are still there
//!   piece, chunk, end ══════════════════════════════════════►    spread, held, congested as on one shard
//!   given up (abort, sender lost, too late) ══ abort ════════►   '#' to whom it has begun for
//!                       ◄═══════════════════ over: all is out    when the sender wants to know (settle)
//!
//!   open ── more than handed_bytes_max on its way to a shard ──► full: the sender's connection is not read
//!    ▲                                                             │
//!    └── taken: half of it or less is on its way ◄─────────────────┘
//! ```
//!
//! Nothing that was accepted is lost for want of room: what is handed over is weighed, its taker says how much it has taken,
//! and a sender with too much on its way is not read. A guest whose message fills one of its members takes no more until that
//! one has room, is congested or cut loose (see `flow`), so the sender waits as he would on one shard.
//!
//! The list is the sender's shard's: who joins later is not on it. Who left meanwhile has no copy. A guest is there as long as
//! one of its messages is on its way; every message that began ends, or is aborted, so none stays.
//!
//! What a source's shard takes of it goes to its taps on other shards too (see `tap`): the guest is tapped there. Nobody waits
//! for that, and where all of a shard's are unseen no number tells of what is handed to it.
//!
//! Shards learn one after another that a leg has taken another one's place (see `held`): a list names a leg by all the names
//! that its participant's had lately, so that whoever hears first, of the batch or of the message, nobody is left out.
//!
//! Deliberately not here: who is on which shard (the steward; all sessions of a participant are on one, so that what is said
//! once for all of them is decided there).

mod members;
mod sender;

use std::sync::Arc;

use bytes::Bytes;
use msrp::{Flag, Head};

use super::row::Row;

/// What a word weighs beside the octets that it brings.
const WORD: usize = 256;
/// Marks what stands for a guest among those whom a full member holds up: connections are numbered below it.
const GUEST: u64 = 1 << 63;

/// What a row has to do with other shards.
#[derive(Debug)]
pub(crate) enum Across {
    /// A leg of this shard whose messages go to others.
    Sender(Windows),
    /// A leg of another shard.
    Guest(Guest),
}

/// What is on its way to each shard, and whether it is so much that the sender waits.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    octets: Vec<(u16, usize)>,
    full: bool,
}

#[derive(Debug)]
pub(crate) struct Guest {
    shard: u16,
    /// Its row there.
    at: u32,
    serial: u64,
    /// Taken, and not said so yet.
    owed: usize,
    /// One of its members is full.
    blocked: bool,
    /// All that it has said is hidden.
    hidden: bool,
}

/// Who is to have a message on other shards.
#[derive(Debug)]
pub(crate) struct Far {
    inner: String,
    is_imdn: bool,
    shards: Vec<FarShard>,
}

#[derive(Debug)]
struct FarShard {
    shard: u16,
    to: Arc<[u64]>,
    taps: Arc<[u64]>,
    /// It is for nobody there whom a number may tell of.
    hidden: bool,
    begun: bool,
    over: Option<Over>,
}

/// The taps of a leg that are on another shard (see `tap`).
#[derive(Clone, Debug)]
pub(crate) struct FarTaps {
    pub(crate) shard: u16,
    pub(crate) legs: Arc<[u64]>,
    /// All of them are unseen.
    pub(crate) unseen: bool,
}

/// What became of a message on a shard.
#[derive(Clone, Copy, Debug)]
struct Over {
    /// Somebody was to have it.
    wanted: bool,
    /// Somebody has it.
    written: bool,
}

impl Far {
    pub(crate) fn new(
        inner: &str,
        is_imdn: bool,
        shards: Vec<(u16, Arc<[u64]>)>,
        taps: &[FarTaps],
    ) -> Option<Box<Self>> {
        let nobody: Arc<[u64]> = Arc::new([]);
        let members = shards.into_iter().map(|(shard, to)| FarShard {
            shard,
            to,
            taps: Arc::clone(&nobody),
            hidden: false,
            begun: false,
            over: None,
        });
        let mut shards: Vec<FarShard> = members.collect();
        for FarTaps { shard, legs, unseen } in taps {
            let taps = Arc::clone(legs);
            match shards.iter_mut().find(|far| far.shard == *shard) {
                Some(far) => far.taps = taps,
                None => shards.push(FarShard {
                    shard: *shard,
                    to: Arc::clone(&nobody),
                    taps,
                    hidden: *unseen,
                    begun: false,
                    // Nobody waits for a tap.
                    over: Some(Over { wanted: false, written: false }),
                }),
            }
        }
        (!shards.is_empty()).then(|| Box::new(Far { inner: inner.to_owned(), is_imdn, shards }))
    }

    /// Whether all shards are done with it.
    pub(crate) fn is_over(&self) -> bool {
        self.shards.iter().all(|shard| shard.over.is_some())
    }

    /// Whether somebody was to have it, and whether somebody has.
    pub(crate) fn came_to(&self) -> (bool, bool) {
        let overs = || self.shards.iter().filter_map(|shard| shard.over);
        (overs().any(|over| over.wanted), overs().any(|over| over.written))
    }
}

/// A word about the messages of one leg; `at` and `serial` name its row on its own shard.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    at: u32,
    serial: u64,
    /// No number tells of it.
    hidden: bool,
    said: Said,
}

/// See the head of the file. Passages are numbered by the sender's shard.
#[derive(Clone, Debug)]
enum Said {
    Begin(Box<Begin>),
    /// Another chunk of it begins.
    Chunk {
        passage: u64,
        head: Head,
    },
    /// These octets end before octet `next`.
    Piece {
        passage: u64,
        next: u64,
        bytes: Bytes,
    },
    End {
        passage: u64,
        flag: Flag,
        next: u64,
        last: Option<u64>,
        done: bool,
    },
    Abort {
        passage: u64,
    },
    Taken(usize),
    Over {
        passage: u64,
        over: Over,
    },
}

#[derive(Clone, Debug)]
struct Begin {
    passage: u64,
    head: Head,
    shown_id: String,
    chunk_start: u64,
    shift: i64,
    total: Option<u64>,
    inner: String,
    is_imdn: bool,
    success: bool,
    to: Arc<[u64]>,
    taps: Arc<[u64]>,
    /// Its first octets, which end before octet `next`: so that there is no moment in which a copy is there and nothing of it
    /// waits for whoever takes its leg's place.
    next: u64,
    bytes: Bytes,
}

impl Said {
    /// What it takes of the window of its sender; what goes back to him takes nothing.
    fn weight(&self) -> usize {
        match self {
            Said::Begin(begin) => 2 * WORD + begin.head.block().len() + begin.bytes.len(),
            Said::Chunk { head, .. } => WORD + head.block().len(),
            Said::Piece { bytes, .. } => WORD + bytes.len(),
            Said::End { .. } | Said::Abort { .. } => WORD,
            Said::Taken(_) | Said::Over { .. } => 0,
        }
    }
}

impl Letter {
    /// Whether it is counted.
    pub(crate) const fn is_seen(&self) -> bool {
        !self.hidden
    }

    /// It goes from the sender's shard to others.
    pub(crate) const fn goes_out(&self) -> bool {
        !matches!(self.said, Said::Taken(_) | Said::Over { .. })
    }
}

impl Row {
    fn guest(&mut self) -> Option<&mut Guest> {
        match self.across.as_deref_mut() {
            Some(Across::Guest(guest)) => Some(guest),
            _ => None,
        }
    }

    /// Whether so much of its messages is on its way to other shards that no more is read.
    pub(super) fn is_far_full(&self) -> bool {
        matches!(self.across.as_deref(), Some(Across::Sender(windows)) if windows.full)
    }

    pub(super) fn is_guest(&self) -> bool {
        matches!(self.across.as_deref(), Some(Across::Guest(_)))
    }
}
