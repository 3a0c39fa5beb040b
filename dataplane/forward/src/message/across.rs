//! A room whose members are on several shards (RFC 7701; DESIGN §2, invariant 4). The sender's shard judges a message and
//! freezes who may have it, there and elsewhere; each octet that it accepts it hands over once to every shard that has such
//! members, in order; there the sender has a guest: a row without a connection, whose message is spread to the members of
//! that shard as any other one is. Nobody is a member on two shards, so each has it once, and in the order of its sender.
//!
//! ```text
//!   sender's shard                                               a member's shard
//!   first piece ══ begin: who, and its head; piece ═══════════►  guest, copies of those who are still there
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
//! Deliberately not here: who is on which shard (the steward; all sessions of a participant are on one, so that what is said
//! once for all of them is decided there).

use std::sync::Arc;
use std::time::Duration;

use base::Now;
use bytes::Bytes;
use contract::LegKey;
use msrp::{Flag, Head, Tid};

use super::conn::COPY_MAX;
use super::row::Row;
use super::{CopyStage, Message, Passage};
use crate::media::Tx;
use crate::modes::switch;
use crate::outposts::{Handed, Word};
use crate::{ConnId, Output};

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
    begun: bool,
    over: Option<Over>,
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
    pub(crate) fn new(inner: &str, is_imdn: bool, shards: Vec<(u16, Arc<[u64]>)>) -> Option<Box<Self>> {
        let shards = shards.into_iter().map(|(shard, to)| FarShard { shard, to, begun: false, over: None });
        let shards: Vec<FarShard> = shards.collect();
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
    to: Arc<[u64]>,
}

impl Said {
    /// What it takes of the window of its sender; what goes back to him takes nothing.
    fn weight(&self) -> usize {
        match self {
            Said::Begin(begin) => 2 * WORD + begin.head.block().len(),
            Said::Chunk { head, .. } => WORD + head.block().len(),
            Said::Piece { bytes, .. } => WORD + bytes.len(),
            Said::End { .. } | Said::Abort { .. } => WORD,
            Said::Taken(_) | Said::Over { .. } => 0,
        }
    }
}

impl Letter {
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

// On the sender's shard.
impl Message {
    fn post(&mut self, shard: u16, leg: LegKey, letter: Letter) {
        let handed = Handed { from: self.shard, leg, word: Word::Message(letter) };
        self.letters.push_back((shard, Box::new(handed)));
    }

    /// Hands a word about a message over to a shard that has members who are to have it.
    fn tell(&mut self, source: u32, shard: u16, said: Said) {
        let weight = said.weight();
        let max = self.limits.handed_bytes_max;
        let Some(row) = self.rows.get_mut(source as usize) else { return };
        let across = row.across.get_or_insert_with(|| Box::new(Across::Sender(Windows::default())));
        if let Across::Sender(windows) = &mut **across {
            let octets = match windows.octets.iter_mut().find(|(of, _)| *of == shard) {
                Some((_, octets)) => {
                    *octets += weight;
                    *octets
                }
                None => {
                    windows.octets.push((shard, weight));
                    weight
                }
            };
            windows.full |= octets > max;
        }
        let (leg, serial) = (row.key, row.serial);
        self.post(shard, leg, Letter { at: source, serial, said });
    }

    /// Octets that were accepted go to the shards that have members who are to have them. True: their source must wait.
    pub(super) fn hand_piece(&mut self, source: u32, p: &mut Passage, piece: &Bytes) -> bool {
        let Some(mut far) = p.far.take() else { return false };
        // A small piece must not keep the whole read alive that brought it.
        let bytes = if piece.len() <= COPY_MAX { Bytes::copy_from_slice(piece) } else { piece.clone() };
        for at in &mut far.shards {
            if !std::mem::replace(&mut at.begun, true) {
                let begin = Begin {
                    passage: p.id,
                    head: p.head.clone(),
                    shown_id: p.shown_id.clone(),
                    chunk_start: p.chunk_start,
                    shift: p.shift,
                    total: p.total,
                    inner: far.inner.clone(),
                    is_imdn: far.is_imdn,
                    to: Arc::clone(&at.to),
                };
                self.tell(source, at.shard, Said::Begin(Box::new(begin)));
            }
            let bytes = bytes.clone();
            self.tell(source, at.shard, Said::Piece { passage: p.id, next: p.next, bytes });
        }
        p.far = Some(far);
        self.row(source).is_some_and(Row::is_far_full)
    }

    /// Another chunk of a message begins.
    pub(super) fn hand_chunk(&mut self, source: u32, passage: u64) {
        let p = self.row(source).and_then(|row| row.passages.of(passage));
        let Some((far, head)) = p.and_then(|p| Some((p.far.as_ref()?, &p.head))) else { return };
        let head = head.clone();
        let begun: Vec<u16> = far.shards.iter().filter(|at| at.begun).map(|at| at.shard).collect();
        for shard in begun {
            self.tell(source, shard, Said::Chunk { passage, head: head.clone() });
        }
    }

    /// The source's chunk ended, and with `done` the message.
    pub(super) fn hand_end(&mut self, source: u32, p: &Passage, flag: Flag) {
        let Some(far) = &p.far else { return };
        for at in far.shards.iter().filter(|at| at.begun) {
            let (passage, next, last, done) = (p.id, p.next, p.last, p.done);
            self.tell(source, at.shard, Said::End { passage, flag, next, last, done });
        }
    }

    /// The message is given up.
    pub(super) fn hand_abort(&mut self, source: u32, p: &mut Passage) {
        let Some(far) = p.far.take() else { return };
        for at in far.shards.iter().filter(|at| at.begun) {
            self.tell(source, at.shard, Said::Abort { passage: p.id });
        }
    }

    /// A shard has taken so much.
    fn taken(&mut self, from: u16, at: u32, octets: usize) {
        let max = self.limits.handed_bytes_max;
        let Some(row) = self.row_mut(at) else { return };
        let Some(Across::Sender(windows)) = row.across.as_deref_mut() else { return };
        if let Some((_, on_way)) = windows.octets.iter_mut().find(|(of, _)| *of == from) {
            *on_way = on_way.saturating_sub(octets);
        }
        windows.octets.retain(|(_, on_way)| *on_way > 0);
        if windows.full && windows.octets.iter().all(|(_, on_way)| *on_way <= max / 2) {
            windows.full = false;
            let conn = row.conn();
            self.unblock(conn.as_slice());
        }
    }

    /// All that a shard can do for a message is done.
    fn over(&mut self, now: Now, from: u16, (at, passage): (u32, u64), over: Over, tx: &mut Tx<'_>) {
        let Some(mut p) = self.take(at, passage) else { return };
        if let Some(far) = p.far.as_mut().and_then(|far| far.shards.iter_mut().find(|far| far.shard == from))
        {
            far.over = Some(over);
        }
        self.settle(now, at, &mut p, tx);
        self.keep(at, p);
    }
}

// On the members' shards, and on both.
impl Message {
    /// Takes what another shard hands over.
    pub(crate) fn handed(&mut self, now: Now, handed: &Handed, letter: &Letter, tx: &mut Tx<'_>) {
        let Letter { at, serial, said } = letter;
        match said {
            // Of a row that is gone meanwhile nothing is owed.
            Said::Taken(_) | Said::Over { .. } if self.row(*at).is_none_or(|row| row.serial != *serial) => {}
            Said::Taken(octets) => self.taken(handed.from, *at, *octets),
            Said::Over { passage, over } => self.over(now, handed.from, (*at, *passage), *over, tx),
            said => self.guest_hears(now, handed, letter, said, tx),
        }
        self.work(now, tx);
    }

    fn guest_hears(&mut self, now: Now, handed: &Handed, letter: &Letter, said: &Said, tx: &mut Tx<'_>) {
        let known = self.guests.get(&(handed.from, letter.serial)).copied();
        let guest = match (known, said) {
            (Some(guest), _) => guest,
            (None, Said::Begin(_)) => self.receive_guest(now, handed, letter),
            // The message was given up here before.
            (None, said) => {
                let &Letter { at, serial, .. } = letter;
                let taken = Said::Taken(said.weight());
                return self.post(handed.from, handed.leg, Letter { at, serial, said: taken });
            }
        };
        if let Some(here) = self.row_mut(guest).and_then(Row::guest) {
            here.owed += said.weight();
        }
        let own = |passage: u64| {
            self.row(guest).and_then(|row| row.passages.iter().find(|p| p.origin == passage)).map(|p| p.id)
        };
        let until = now.mono + Duration::from_millis(self.limits.incomplete_ms);
        match said {
            Said::Begin(begin) => self.guest_begins(now, guest, begin),
            Said::Chunk { passage, head } => {
                if let Some(mut p) = own(*passage).and_then(|id| self.take(guest, id)) {
                    p.go_on(head.clone(), Tid::fresh(&mut self.entropy), until);
                    self.keep(guest, p);
                }
            }
            Said::Piece { passage, next, bytes } => {
                if let Some(mut p) = own(*passage).and_then(|id| self.take(guest, id)) {
                    p.next = *next;
                    let full = !p.refused && self.spread(now, guest, &mut p, bytes, tx);
                    self.keep(guest, p);
                    if let Some(here) = self.row_mut(guest).and_then(Row::guest) {
                        here.blocked |= full;
                    }
                }
            }
            Said::End { passage, flag, next, last, done } => {
                if let Some(mut p) = own(*passage).and_then(|id| self.take(guest, id)) {
                    (p.next, p.last, p.done) = (*next, *last, *done);
                    self.end_chunks(now, guest, &mut p, *flag, tx);
                    if p.done {
                        self.settle(now, guest, &mut p, tx);
                        p.until = now.mono + Duration::from_millis(self.limits.report_ms);
                        let remembered = self.limits.leg_reports_max;
                        if let Some(row) = self.row_mut(guest) {
                            row.passages.make_room_for_done(remembered);
                        }
                    }
                    self.keep(guest, p);
                }
            }
            Said::Abort { passage } => {
                if let Some(mut p) = own(*passage).and_then(|id| self.take(guest, id)) {
                    self.abort(now, guest, &mut p, tx);
                }
            }
            Said::Taken(_) | Said::Over { .. } => {}
        }
        self.look_after(guest);
    }

    /// A leg of another shard says something to members here.
    fn receive_guest(&mut self, now: Now, handed: &Handed, letter: &Letter) -> u32 {
        let &Letter { at, serial, .. } = letter;
        let mut row = Row::new(handed.leg, self.number(), now.mono);
        let guest = Guest { shard: handed.from, at, serial, owed: 0, blocked: false };
        row.across = Some(Box::new(Across::Guest(guest)));
        let guest = self.rows.insert(row) as u32;
        self.guests.insert((handed.from, serial), guest);
        if let Some(members) = self.members.get_mut(&handed.leg.context) {
            members.push(guest);
        }
        guest
    }

    fn guest_begins(&mut self, now: Now, guest: u32, begin: &Begin) {
        let until = now.mono + Duration::from_millis(self.limits.incomplete_ms);
        let Some(context) = self.row(guest).map(|row| row.key.context) else { return };
        let id = self.number();
        let mut p = Box::new(Passage::new(id, begin.head.clone(), Tid::fresh(&mut self.entropy), until));
        (p.origin, p.room) = (begin.passage, true);
        p.show_as(begin.shown_id.clone());
        (p.next, p.chunk_start) = (begin.chunk_start, begin.chunk_start);
        (p.shift, p.total) = (begin.shift, begin.total);
        let members = self.members.get(&context).map(Vec::as_slice).unwrap_or_default();
        let is_named = |leg: &&u32| self.row(**leg).is_some_and(|row| begin.to.contains_sorted(row.key.leg));
        let kind = switch::Kind { inner: &begin.inner, is_imdn: begin.is_imdn, total: begin.total };
        p.copies =
            members.iter().filter(is_named).filter_map(|leg| switch::copy_for(self, *leg, &kind)).collect();
        if let Some(row) = self.row_mut(guest) {
            row.passages.push(p);
        }
        self.sweep_at(guest, until);
    }

    /// Members of a context that are not its legs here: who speaks from elsewhere.
    pub(super) fn guests_of(&self, context: u64) -> impl Iterator<Item = u32> {
        self.guests
            .values()
            .copied()
            .filter(move |at| self.row(*at).is_some_and(|r| r.key.context == context))
    }

    /// What a source is held up by: its connection; or of a guest its name in place of one.
    pub(super) fn gate_of(&self, source: u32) -> Option<ConnId> {
        let row = self.row(source)?;
        if row.is_guest() { Some(ConnId(GUEST | u64::from(source))) } else { row.conn() }
    }

    /// A full member has room again. True: it held up a guest.
    pub(super) fn unblock_guest(&mut self, gate: ConnId) -> bool {
        let is_guest = gate.0 & GUEST != 0;
        if is_guest
            && let Ok(at) = u32::try_from(gate.0 & !GUEST)
            && let Some(guest) = self.row_mut(at).and_then(Row::guest)
        {
            guest.blocked = false;
            self.look_after(at);
        }
        is_guest
    }

    /// A guest's message is done: its sender hears of it. False: it is no guest's.
    pub(super) fn guest_settled(&mut self, guest: u32, p: &Passage) -> bool {
        let Some(row) = self.rows.get_mut(guest as usize) else { return false };
        let key = row.key;
        let Some(&mut Guest { shard, at, serial, .. }) = row.guest() else { return false };
        let written = p.copies.iter().any(|copy| copy.stage == CopyStage::Written);
        let over = Over { wanted: !p.copies.is_empty(), written };
        self.post(shard, key, Letter { at, serial, said: Said::Over { passage: p.origin, over } });
        self.partings.push(guest);
        true
    }

    /// Says what a guest has taken, once that is much or it goes.
    fn look_after(&mut self, at: u32) {
        let max = self.limits.handed_bytes_max;
        let Some(row) = self.rows.get_mut(at as usize) else { return };
        let key = row.key;
        let goes = row.passages.iter().next().is_none();
        let Some(guest) = row.guest().filter(|guest| !guest.blocked) else { return };
        if !goes && guest.owed < max / 4 {
            return;
        }
        let &mut Guest { shard, at: there, serial, owed, .. } = guest;
        guest.owed = 0;
        if goes {
            self.rows.remove(at as usize);
            self.guests.remove(&(shard, serial));
            if let Some(members) = self.members.get_mut(&key.context) {
                members.retain(|member| *member != at);
            }
        }
        if owed > 0 {
            self.post(shard, key, Letter { at: there, serial, said: Said::Taken(owed) });
        }
    }

    /// Guests whose last message is over go.
    pub(super) fn see_guests_off(&mut self) {
        for at in std::mem::take(&mut self.partings) {
            self.look_after(at);
        }
    }

    /// Puts out what is to be handed over, as far as the outbox has room. True: there is more.
    pub(super) fn flush_letters(&mut self, tx: &mut Tx<'_>) -> bool {
        while !self.letters.is_empty() {
            if tx.out.room() < 2 {
                return true;
            }
            let Some((shard, handed)) = self.letters.pop_front() else { break };
            tx.totals.handed_out += 1;
            tx.push(Output::Hand { shard, handed });
        }
        false
    }
}

/// Legs in the order of their ids.
trait Sorted {
    fn contains_sorted(&self, leg: u64) -> bool;
}

impl Sorted for Arc<[u64]> {
    fn contains_sorted(&self, leg: u64) -> bool {
        self.binary_search(&leg).is_ok()
    }
}
