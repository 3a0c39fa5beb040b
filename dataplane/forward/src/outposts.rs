//! Contexts larger than one core (DESIGN §2, invariant 4): a home shard, and outposts on others. Each leg is on one shard, with
//! its sockets, keys, latch, NACK memory, reports and counters; only messages and the release of shared buffers cross.
//!
//! ```text
//!   control ── batch ──► steward: which leg is where (by weight when it is put; a named port's shard)
//!                           │ 1 bind ──────────────► outpost B: binds ports, looks for room; nothing else changes
//!                           │ ◄─ bound / refused ──┘
//!                           │ 2 batch, with the ports bound elsewhere ──► home A: checks the whole, applies it or refuses
//!                           │ ◄─ applied / refused ────────────────────┘ │ 3 standing: all that control wants of the context
//!                           │ ◄─ followed ──────── outpost B ◄───────────┘    (cannot fail: bound and looked at in 1)
//!                           └─► applied; after a refusal in 1 or 2 instead: unbind to each who has bound
//! ```
//!
//! The home decides last and alone, so a batch is applied on all shards or on none, and the answer goes out when all have
//! followed. A standing is the whole wanted state: to follow twice changes nothing. While a round runs the steward hands
//! out no other batch.
//!
//! On every shard of the context the legs of the others have a stand-in: a row without a socket that is told what its leg is
//! told, and fans out to the legs here as if its packets had arrived here.
//!
//! ```text
//!   shard A                                                shard B
//!   peer ─► leg 1 ─┬─► fans on A: leg 2                    stand-in of 1 ─┬─► leg 3 ─► peer   (rewritten, sealed, kept
//!                  └─► one copy, in clear, shared ═ mailbox ═►            └─► leg 4 ─► peer    for NACK: all on B)
//!   leg 1 ◄═ mailbox ═ key frame wanted, packets missed, rate ◄═ stand-in of 1 ◄── RTCP of legs 3 and 4
//!   leg 1 ═ mailbox ═► sender report, BYE ═► stand-in of 1: for the reports and BYEs that 3 and 4 hear
//! ```
//!
//! Packets come in the order in which they were handed over, from each shard. A mailbox that is full takes none
//! ([`crate::Drop::OutpostFull`]); one for a leg that is not known here yet, or not any more, is dropped too, and both are
//! repaired as loss on the way is: by NACK and the next key frame. Two sources that began on two shards at once under one
//! SSRC are told apart by each shard for its own receivers (RFC 3550 §8.2): RTCP ends at each leg, so nobody sees more.
//!
//! Of RTP only `distribute` is spread. What chooses (`select`, `floor`) has one stage that hears all voices, `relay` passes
//! RTCP through, and `tap` must not be seen: contexts with such paths stay at home whole, and one that is spread already is
//! refused them. Of MSRP only the legs of a room (`switch`) and its taps are spread: what crosses of them may not be lost, and has an order
//! of its own (see `message::across`). They have no stand-in. Whoever is relayed (`relay`, `distribute`) is at home.
//!
//! Deliberately not here: which leg goes where (the steward), mailboxes (the process).

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Now, Outbox};
use bytes::Bytes;
use contract::LegKey;

use crate::engine::{Context, Engine, Seat};
use crate::media::Tx;
use crate::wanted::Wanted;
use crate::{Attachment, Drop, Output};

/// A leg of a batch that is on another shard than its context's home.
#[derive(Clone, PartialEq, Debug)]
pub struct Elsewhere {
    /// The leg.
    pub leg: LegKey,
    /// Its shard.
    pub shard: u16,
    /// What was bound for it there; `None`: what it has already.
    pub local: Option<contract::RtpLocal>,
}

/// A context as its home has it, for those who follow.
#[derive(Clone, Debug)]
pub struct Standing {
    context: u64,
    home: u16,
    /// `None`: the context is no more.
    wanted: Option<Wanted>,
    /// Legs that are not at home, and where they are.
    places: BTreeMap<u64, u16>,
    captured: bool,
    /// Of which its names for RTCP are drawn: a participant has one name on all shards.
    names: [u8; 32],
}

impl Standing {
    /// Of which context.
    pub const fn context(&self) -> u64 {
        self.context
    }
}

/// What one shard hands to another for a leg.
#[derive(Clone, Debug)]
pub struct Handed {
    /// The shard that hands it over.
    pub(crate) from: u16,
    /// Whose packet it is, or for whom the word is.
    pub(crate) leg: LegKey,
    pub(crate) word: Word,
}

/// See [`Handed`]. SSRCs are those that the leg's peer uses.
#[derive(Clone, Debug)]
pub(crate) enum Word {
    /// A packet of the leg's peer, in clear.
    Packet {
        /// Under which SSRC its own shard shows the source.
        shown: u32,
        bytes: Bytes,
    },
    /// The peer's sender report.
    Sender(rtp::SenderInfo),
    /// The peer said BYE for a source.
    Bye(u32),
    /// Receivers there need a key frame.
    KeyFrame(u32),
    /// Receivers there miss packets.
    Missing { ssrc: u32, numbers: Arc<[u16]> },
    /// What the receivers there can take of the leg, bit/s.
    Rate(u64),
    /// Of the leg's messages to a room (see `message::across`).
    Message(crate::message::Letter),
}

impl Word {
    /// It goes from the leg to its stand-ins; the others go back.
    pub(crate) const fn goes_out(&self) -> bool {
        match self {
            Word::Packet { .. } | Word::Sender(_) | Word::Bye(_) => true,
            Word::Message(letter) => letter.goes_out(),
            Word::KeyFrame(_) | Word::Missing { .. } | Word::Rate(_) => false,
        }
    }
}

impl Handed {
    /// The datagram of which [`Output::Forward`] and [`Output::ForwardPatched`] speak after this was handed in; shared by all
    /// shards that got it. Empty for other words.
    pub fn datagram(&self) -> &[u8] {
        match &self.word {
            Word::Packet { bytes, .. } => bytes,
            _ => &[],
        }
    }

    /// Whether it is counted: what is for an unseen tap alone is not.
    pub(crate) const fn is_seen(&self) -> bool {
        match &self.word {
            Word::Message(letter) => letter.is_seen(),
            _ => true,
        }
    }

    /// It may not be lost: where there is no room for it, it waits. How much there can be its sender sees to.
    pub const fn must_arrive(&self) -> bool {
        matches!(self.word, Word::Message(_))
    }
}

/// Which legs have taken the place of others of their participants: put in the batch that removed those (`message::held`).
#[derive(Debug, Default)]
pub(crate) struct Heirs(BTreeMap<u64, Vec<u64>>);

impl Heirs {
    /// So many repairs of one session can be on their way from shard to shard.
    const NAMES_MAX: usize = 4;

    /// The legs whose place a leg has taken lately.
    pub(crate) fn of(&self, leg: u64) -> &[u64] {
        self.0.get(&leg).map(Vec::as_slice).unwrap_or_default()
    }

    /// A context changes.
    fn note(&mut self, old: &Wanted, new: &Wanted) {
        let is_msrp = |leg: &contract::Leg| {
            !leg.participant.is_empty() && matches!(leg.kind, Some(contract::leg::Kind::Msrp(_)))
        };
        let mut fresh: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for leg in new.legs.values().filter(|leg| is_msrp(leg) && !old.legs.contains_key(&leg.id)) {
            fresh.entry(&leg.participant).or_default().push(leg.id);
        }
        let gone = old.legs.values().filter(|leg| is_msrp(leg) && !new.legs.contains_key(&leg.id));
        for leg in gone {
            let heirs = fresh.get_mut(leg.participant.as_str()).filter(|heirs| !heirs.is_empty());
            let mut names = self.0.remove(&leg.id).unwrap_or_default();
            let Some(heir) = heirs.map(|heirs| heirs.remove(0)) else { continue };
            names.push(leg.id);
            names.drain(..names.len().saturating_sub(Heirs::NAMES_MAX));
            self.0.insert(heir, names);
        }
        self.0.retain(|leg, _| new.legs.contains_key(leg));
    }
}

impl Context {
    /// What was wanted changes to that.
    pub(crate) fn change(&mut self, next: Wanted) {
        if self.home.is_some() || !self.places.is_empty() {
            self.heirs.note(&self.wanted, &next);
        }
        self.wanted = next;
    }

    /// The shard that has a leg; `None`: this one, which is `here`.
    pub(crate) fn place_of(&self, leg: u64, here: u16) -> Option<u16> {
        self.places.get(&leg).copied().or(self.home).filter(|at| *at != here)
    }
}

impl Engine {
    /// What outposts must follow: the context as it stands here, at its home.
    pub fn standing(&self, id: u64) -> Standing {
        let context = self.contexts.get(&id);
        Standing {
            context: id,
            home: self.config.shard,
            wanted: context.map(|context| context.wanted.clone()),
            places: context.map(|context| context.places.clone()).unwrap_or_default(),
            captured: context.is_some_and(|context| context.captured),
            names: self.media.names,
        }
    }

    /// Whether a context with so many legs, those of other shards included, can be followed here.
    pub fn has_room(&self, context: u64, legs: usize) -> bool {
        let old = self.contexts.get(&context);
        let contexts = self.contexts.len() + usize::from(old.is_none());
        let all: usize = self.contexts.values().map(|context| context.wanted.legs.len()).sum();
        let others = all - old.map_or(0, |context| context.wanted.legs.len());
        contexts <= self.config.limits.contexts_max && others + legs <= self.config.limits.legs_max
    }

    /// Whether a context that is known here is at home on another shard.
    pub fn is_outpost(&self, context: u64) -> bool {
        self.contexts.get(&context).is_some_and(|context| context.home.is_some())
    }

    /// The process had no room for something that was to be handed over.
    pub fn not_handed(&mut self) {
        self.totals.drop(Drop::OutpostFull);
    }

    /// Becomes what the home says.
    pub(crate) fn follow(
        &mut self,
        now: Now,
        standing: &Standing,
        attachments: &[Attachment],
        out: &mut Outbox<Output>,
    ) {
        let here = self.config.shard;
        let id = standing.context;
        // Without a leg here there is nothing to follow any more.
        let wanted = standing.wanted.clone().filter(|_| standing.places.values().any(|at| *at == here));
        if wanted.is_some() {
            self.media.foreign_names.insert(id, standing.names);
        } else {
            self.media.foreign_names.remove(&id);
        }
        let fresh = !self.contexts.contains_key(&id);
        if fresh && wanted.is_none() {
            return;
        }
        let spread = |context: &mut Context| {
            context.home = Some(standing.home);
            context.places.clone_from(&standing.places);
            context.captured = if fresh { standing.captured } else { context.captured };
        };
        self.settle(now, (id, wanted), spread, attachments, out);
        self.recount();
    }

    /// Something from another shard.
    pub(crate) fn handed(&mut self, now: Now, handed: &Handed, out: &mut Outbox<Output>) {
        let context = self.contexts.get(&handed.leg.context);
        let seat = context.and_then(|context| context.seats.get(&handed.leg.leg)).copied();
        let mut tx = Tx { out, totals: &mut self.totals };
        let seen = u64::from(handed.is_seen());
        tx.totals.handed_in += seen;
        if let Word::Message(letter) = &handed.word {
            tx.totals.handed_taken += seen;
            return self.message.handed(now, handed, letter, &mut tx);
        }
        let taken = match seat {
            Some(Seat::Rtp(at)) => self.media.handed(now, at, handed, &mut tx),
            _ => Err(Drop::OutpostUnknown),
        };
        match taken {
            Ok(()) => tx.totals.handed_taken += 1,
            Err(why) => tx.totals.drop(why),
        }
    }
}
