//! What a room holds for a member who has joined and has no connection, not yet or not again, or one that is congested
//! (CPM-FACTS §3.3, §3.8 steps 8 and 13). Bounded in octets, messages and time; in the order in which it was said; what is over the bounds is
//! counted and told to control.
//!
//! ```text
//!   first piece ──► waits ── connection bound, room in its queue ──► begun ── last piece out ──► sent
//!                    │ over the bounds, or held_ms                     │ connection lost, given up
//!                    ▼                                                 ▼
//!                  dropped, Pressure                                 failed
//! ```
//!
//! As long as something waits, what is said next waits behind it. A leg that is put in the batch that removes
//! another one of the same participant is that one's heir: the repair of a chat brings a new leg (CPM-FACTS §3.3).

use std::collections::VecDeque;
use std::time::Duration;

use base::{Instant, Now};
use bytes::Bytes;
use contract::{Pressure, news::What};
use msrp::{ByteRange, FailureReport, Flag, Head, HeadWriter, Method, Status, Tid};

use super::conn::{COPY_MAX, Open};
use super::spill::{CHUNK_BYTES, Piece};
use super::spread::{Chunk, rest_of, trim};
use super::{CopyStage, Message, Passage, Row, Wait};
use crate::Drop;
use crate::media::Tx;

/// A message, or the rest of one, that waits.
#[derive(Debug)]
pub(crate) struct Held {
    source: u32,
    passage: u64,
    shown_id: String,
    head: Head,
    pub(super) total: Option<u64>,
    /// By the place of their first octet.
    pub(super) pieces: VecDeque<Piece>,
    /// Octets of all of them.
    pub(super) bytes: usize,
    /// The octet after what went out.
    next: u64,
    pub(super) begun: bool,
    /// Octets of the chunk that is open.
    chunk: usize,
    /// The last piece has come.
    pub(super) finished: bool,
    /// The octet after the last one, once it is known.
    pub(super) end: u64,
    /// The sender wants to know.
    asked: bool,
    /// It is a tap's copy (see [`super::tap`]).
    tap: bool,
    /// It is the copy to one of several who is behind the others (see [`super::spill`]).
    pub(super) spill: bool,
    /// What its far end is asked to say.
    pub(super) failure: FailureReport,
    pub(super) success: bool,
    until: Instant,
}

impl Held {
    /// A copy of a message for a tap, with its first piece.
    pub(super) fn begin(
        source: u32,
        p: &Passage,
        shown_id: String,
        (start, piece): (u64, &Bytes),
        until: Instant,
    ) -> Held {
        let mut held = Held {
            source,
            passage: p.id,
            shown_id,
            head: p.head.clone(),
            total: p.total.map(|total| p.out(total)),
            pieces: VecDeque::new(),
            bytes: 0,
            next: start,
            begun: false,
            chunk: 0,
            finished: false,
            end: 0,
            asked: false,
            tap: true,
            spill: false,
            // Of a tap it is of use to know that its far end wants no more.
            failure: FailureReport::Partial,
            success: false,
            until,
        };
        held.push(start, piece);
        held
    }

    /// What is left of a message from octet `next` on, for a receiver who is behind.
    pub(super) fn spill(source: u32, p: &Passage, next: u64, begun: bool) -> Held {
        let until = p.until;
        let held = Held::begin(source, p, p.shown_id.clone(), (next, &Bytes::new()), until);
        Held { begun, tap: false, spill: true, failure: p.failure, success: p.success, ..held }
    }

    /// The next piece that goes out, or what says that this is the end. `None`: it is on disk.
    fn take_piece(&mut self) -> Option<(u64, Bytes)> {
        let Some(piece) = self.pieces.front() else { return Some((self.end, Bytes::new())) };
        let (start, bytes) = match piece.is_end() {
            true => (piece.start, Bytes::new()),
            false => (piece.start, piece.bytes()?.clone()),
        };
        self.pieces.pop_front();
        self.bytes -= bytes.len();
        Some((start, bytes))
    }

    /// Another piece.
    pub(super) fn push(&mut self, start: u64, piece: &Bytes) {
        // A small piece must not keep the whole buffer alive in which it came.
        let piece = if piece.len() <= COPY_MAX { Bytes::copy_from_slice(piece) } else { piece.clone() };
        if !piece.is_empty() {
            self.bytes += piece.len();
            self.pieces.push_back(Piece::near(start, piece));
        }
    }

    pub(super) fn is_of(&self, source: u32, passage: u64) -> bool {
        (self.source, self.passage) == (source, passage)
    }

    pub(super) fn whose(&self) -> (u32, u64) {
        (self.source, self.passage)
    }

    pub(super) fn is_tap(&self) -> bool {
        self.tap
    }

    /// Octets of what its chunks' heads are made of.
    pub(super) fn head_bytes(&self) -> usize {
        self.head.block().len() + self.shown_id.len()
    }

    pub(super) fn shown_id(&self) -> &str {
        &self.shown_id
    }
}

/// What a removed leg leaves to the one that takes its place.
#[derive(Debug)]
pub(crate) struct Estate {
    context: u64,
    participant: String,
    from: u32,
    unseen: bool,
    held: Vec<Held>,
}

impl Row {
    /// Whether what is said next must wait behind what waits already.
    pub(crate) fn is_backed_up(&self) -> bool {
        self.held.iter().any(|held| held.finished || !held.pieces.is_empty())
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held.iter().filter(|held| !held.spill).map(|held| held.bytes).sum()
    }
}

impl Message {
    /// A piece of a message waits for a member's connection. False: it may not.
    #[expect(clippy::too_many_arguments, reason = "one call from one loop")]
    pub(super) fn hold_back(
        &mut self,
        now: Now,
        target: u32,
        source: u32,
        p: &Passage,
        start: u64,
        piece: &Bytes,
        tx: &mut Tx<'_>,
    ) -> bool {
        let until = now.mono + Duration::from_millis(self.limits.held_ms);
        let (bytes_max, held_max) = (self.limits.held_bytes_max, self.limits.held_messages_max);
        let Some(row) = self.row_mut(target) else { return false };
        let total = p.total.map(|total| p.out(total));
        let at = row.held.iter().position(|h| (h.source, h.passage) == (source, p.id));
        let coming = total.filter(|_| at.is_none()).map_or(piece.len() as u64, |t| t.max(piece.len() as u64));
        if row.held_bytes() as u64 + coming > bytes_max as u64 || (at.is_none() && row.held.len() >= held_max)
        {
            self.not_held(target, Drop::MsrpHeldFull, tx);
            return false;
        }
        // Whose peer is not known has to be called.
        let is_first = row.held.is_empty() && row.peer.is_empty();
        match at.and_then(|at| row.held.get_mut(at)) {
            Some(held) => {
                held.total = total;
                held.push(start, piece);
            }
            None => {
                let held = Held::begin(source, p, p.shown_id.clone(), (start, piece), until);
                row.held.push(Held { asked: p.success, tap: false, failure: FailureReport::No, ..held });
            }
        }
        self.sweep_at(target, until);
        self.wants_drain(target);
        if is_first {
            self.tell_held(target, true, tx);
        }
        true
    }

    /// A message that waits has come to its end.
    pub(super) fn held_whole(&mut self, target: u32, source: u32, p: &Passage) {
        let held = self.row_mut(target).map(|row| row.held.iter_mut()).into_iter().flatten();
        if let Some(held) = held.into_iter().find(|h| (h.source, h.passage) == (source, p.id)) {
            held.finished = true;
            held.end = p.last.map_or(held.end, |last| p.out(last) + 1);
        }
        self.wants_drain(target);
    }

    pub(super) fn wants_drain(&mut self, leg: u32) {
        let waits = self.row(leg).is_some_and(|row| row.conn().is_some() && !row.held.is_empty());
        if waits && !self.drains.contains(&leg) {
            self.drains.push_back(leg);
        }
    }

    /// Sends what waited for connections that are there now.
    pub(super) fn drain_all(&mut self, now: Now, tx: &mut Tx<'_>) {
        while let Some(leg) = self.drains.pop_front() {
            self.drain(now, leg, tx);
        }
    }

    /// Sends what waits for a leg, as far as its connection has room: all in order, and no faster than it reads.
    fn drain(&mut self, now: Now, leg: u32, tx: &mut Tx<'_>) {
        let most = self.limits.queue_bytes_max / 2;
        let slow = now.mono + Duration::from_millis(self.limits.slow_ms);
        let until = self.answer_until(now);
        let (mut sent, mut is_full, mut answered, mut spills) = (Vec::new(), false, false, false);
        let (mut spilled, mut caught_up) = (Vec::new(), Vec::new());
        let Some(row) = self.rows.get_mut(leg as usize) else { return };
        let Some(conn) = row.conn() else { return };
        let Some(to) = self.conns.get_mut(&conn).filter(|to| to.congested.is_none() && to.closing.is_none())
        else {
            return;
        };
        let mut at = 0;
        'all: while let Some(held) = row.held.get_mut(at) {
            let mut carries = to.carries(held.source, held.passage, leg);
            answered |= held.failure != FailureReport::No;
            spills |= held.spill;
            // What ends with `$` ends with the last octet (RFC 4975 §7.3.1): where others were said after it, an empty
            // chunk says that this is the end.
            let ends = |held: &Held, carries: bool| {
                held.finished && !held.spill && (!carries || held.next != held.end)
            };
            while !held.pieces.is_empty() || ends(held, carries) {
                if to.load() >= most {
                    to.full.get_or_insert(now.mono);
                    is_full = true;
                    break 'all;
                }
                let is_end = held.pieces.front().is_some_and(Piece::is_end);
                let Some((start, piece)) = held.take_piece() else { break 'all };
                if !carries || held.next != start {
                    to.close_chunk(Flag::More, until);
                    let tid = Tid::fresh(&mut self.entropy);
                    let range = ByteRange { start, end: None, total: held.total };
                    let chunk = Chunk { tid: &tid, id: &held.shown_id, range, success: held.success };
                    let wait = match held.failure {
                        FailureReport::Yes => Wait::Answer,
                        FailureReport::Partial => Wait::Error,
                        FailureReport::No => Wait::Nothing,
                    };
                    let rest = rest_of(&held.head, &chunk, held.failure);
                    to.begin_chunk(&tid, &row.peer, &row.own, &rest, piece.len());
                    let (source, passage) = (held.source, held.passage);
                    to.open = Some(Open { source, passage, target: leg, tid, wait });
                    tx.totals.requests_out += u64::from(!row.unseen);
                    carries = true;
                    held.chunk = 0;
                }
                to.queue.push(&piece, false);
                row.counts.bytes_out += piece.len() as u64;
                held.next = start + piece.len() as u64;
                held.begun = true;
                held.chunk += piece.len();
                let is_last = held.pieces.front().is_some_and(Piece::is_end);
                if is_end || (held.spill && held.chunk >= CHUNK_BYTES && !is_last) {
                    to.close_chunk(if is_end { Flag::Last } else { Flag::More }, until);
                    carries = false;
                }
            }
            if !held.finished {
                // Its sender is slower than we are: others go on meanwhile.
                if held.spill {
                    if carries {
                        to.close_chunk(Flag::More, until);
                    }
                    caught_up.push(row.held.remove(at));
                    continue;
                }
                at += 1;
                continue;
            }
            if carries {
                to.close_chunk(if held.spill { Flag::More } else { Flag::Last }, until);
            }
            if held.asked {
                to.mark(now.mono, held.source, held.passage, leg);
            }
            row.counts.messages_out += 1;
            if !held.tap && !held.spill {
                sent.push((held.source, held.passage));
            }
            let held = row.held.remove(at);
            if held.spill {
                // Somebody waits for what is on its way: where nothing moves, it is cut loose.
                to.mark(now.mono, held.source, 0, leg);
                spilled.push(held);
            }
        }
        // What is not answered any more says nothing against a tap; others' chunks may share its connection.
        let forgotten = if answered { trim(to, self.limits.connection_transactions_max) } else { Vec::new() };
        self.list(conn);
        if answered {
            self.arm(conn, until);
        }
        for transaction in forgotten {
            if let Some((source, passage)) = transaction.carries {
                self.copy_of(source, passage, transaction.target, |copy| copy.unsure = true);
            }
        }
        for (source, passage) in sent {
            self.copy_of(source, passage, leg, |copy| copy.stage = CopyStage::Sent);
        }
        if spills {
            spilled.iter().for_each(|held| self.spill_sent(now, leg, held));
            caught_up.iter().for_each(|held| self.spill_caught_up(leg, held));
            self.fetch(leg);
            self.spill_settles(leg);
        }
        if is_full {
            self.arm(conn, now.mono + super::flow::STALL);
        }
        self.arm(conn, slow);
        self.relieve_held(leg, tx);
    }

    /// Something is not held, or no longer: counted and told.
    pub(super) fn not_held(&mut self, leg: u32, why: Drop, tx: &mut Tx<'_>) {
        if why != Drop::MsrpTap || self.row(leg).is_some_and(|row| !row.unseen) {
            tx.totals.drop(why);
        }
        // Of a congested connection control knows already.
        let congested = self.conn_of(leg).is_some_and(|conn| conn.congested.is_some());
        let Some(row) = self.row_mut(leg) else { return };
        row.counts.dropped += 1;
        if congested {
            return;
        }
        let pressed = std::mem::replace(&mut row.pressed, true);
        if !pressed || why == Drop::MsrpHeldLate {
            self.tell_held(leg, true, tx);
        }
    }

    fn tell_held(&self, leg: u32, on: bool, tx: &mut Tx<'_>) {
        let Some(row) = self.row(leg).filter(|row| !row.unseen) else { return };
        let waiting_bytes = row.held_bytes() as u64;
        tx.news(What::Pressure(Pressure { leg: Some(row.key), on, waiting_bytes, kept: false }));
    }

    /// What has waited for too long is given up. What has begun is the connection's: it goes out, or that one is cut
    /// loose.
    pub(super) fn held_due(&mut self, now: Now, leg: u32, tx: &mut Tx<'_>) {
        let Some(row) = self.row_mut(leg) else { return };
        let is_over = |held: &mut Held| !held.begun && !held.spill && held.until <= now.mono;
        let over: Vec<Held> = row.held.extract_if(.., is_over).collect();
        for held in over {
            self.not_held(leg, if held.tap { Drop::MsrpTap } else { Drop::MsrpHeldLate }, tx);
            self.held_failed(now, leg, &held, tx);
        }
        self.relieve_held(leg, tx);
    }

    /// Nothing waits any more: what is said next is not lost for want of room here. That the connection is congested is
    /// another reason to miss it, of which control hears on its own.
    pub(super) fn relieve_held(&mut self, leg: u32, tx: &mut Tx<'_>) {
        let takes_part = self.conn_of(leg).is_some_and(|conn| conn.congested.is_none());
        let Some(row) = self.row_mut(leg).filter(|row| row.held.is_empty()) else { return };
        if std::mem::take(&mut row.pressed) && takes_part {
            self.tell_held(leg, false, tx);
        }
    }

    /// When the oldest that waits is given up.
    pub(super) fn held_until(&self, leg: u32) -> Option<Instant> {
        self.row(leg)?.held.iter().filter(|held| !held.begun && !held.spill).map(|held| held.until).min()
    }

    pub(super) fn held_failed(&mut self, now: Now, leg: u32, held: &Held, tx: &mut Tx<'_>) {
        // It is not among those that wait any more, so that nothing is aborted twice. Of a tap nobody hears.
        if held.tap {
            return;
        }
        self.copy_failed(now, held.source, held.passage, leg, Status::TIMEOUT, tx);
    }

    /// What has begun on a connection that will not end it; what has not waits on.
    pub(super) fn fail_begun(&mut self, now: Now, leg: u32, tx: &mut Tx<'_>) {
        let Some(row) = self.row_mut(leg) else { return };
        let begun: Vec<Held> = row.held.extract_if(.., |held| held.begun || held.spill).collect();
        for held in begun {
            self.abort_held(now, leg, &held, tx);
            if held.tap {
                self.not_held(leg, Drop::MsrpTap, tx);
            }
            self.held_failed(now, leg, &held, tx);
        }
        self.spill_settles(leg);
    }

    /// Whether a copy waits for a leg's next connection, whatever becomes of this one.
    pub(super) fn waits_on(&self, leg: u32, source: u32, passage: u64) -> bool {
        self.row(leg).is_some_and(|row| {
            row.held.iter().any(|h| (h.source, h.passage) == (source, passage) && !h.begun && !h.spill)
        })
    }

    /// A copy is given up by its sender or for good: it waits no more.
    pub(super) fn forget_held(&mut self, now: Now, leg: u32, source: u32, passage: u64, tx: &mut Tx<'_>) {
        let Some(row) = self.row_mut(leg) else { return };
        let at = row.held.iter().position(|held| held.is_of(source, passage));
        if let Some(held) = at.map(|at| row.held.remove(at)) {
            self.abort_held(now, leg, &held, tx);
            self.relieve_held(leg, tx);
            if held.spill {
                self.spill_settles(leg);
                self.wants_drain(leg);
                self.spill_over(leg, tx);
            }
        }
    }

    /// `#` for what has begun (RFC 4975 §7.1).
    pub(super) fn abort_held(&mut self, now: Now, leg: u32, held: &Held, tx: &mut Tx<'_>) {
        let until = self.answer_until(now);
        let tid = Tid::fresh(&mut self.entropy);
        let Some(row) = self.rows.get(leg as usize).filter(|_| held.begun) else { return };
        let Some(conn) = row.conn() else { return };
        let Some(to) = self.conns.get_mut(&conn) else { return };
        let answered = held.failure != FailureReport::No;
        if to.carries(held.source, held.passage, leg) {
            to.close_chunk(Flag::Abort, until);
        } else {
            to.close_chunk(Flag::More, until);
            let range = ByteRange { start: held.next, end: Some(held.next - 1), total: None };
            to.queue.write(|buffer| {
                let method = Method::Send.as_str();
                HeadWriter::request(buffer, &tid, method, row.peer.as_bytes(), row.own.as_bytes())
                    .message_id(&held.shown_id)
                    .byte_range(range)
                    .failure_report(FailureReport::No)
                    .end(Flag::Abort);
            });
            tx.totals.requests_out += u64::from(!row.unseen);
        }
        if answered {
            // Of its chunks before this one errors are awaited.
            self.arm(conn, until);
        }
        self.list(conn);
    }

    /// A leg is removed; perhaps the same batch puts another one in its place.
    pub(super) fn bequeath(&mut self, at: u32, row: &mut Row) {
        let held = std::mem::take(&mut row.held);
        if row.joined || !held.is_empty() {
            let (context, participant) = (row.key.context, std::mem::take(&mut row.participant));
            let unseen = row.unseen;
            self.estates.push(Estate { context, participant, from: at, unseen, held });
        }
    }

    /// A leg is new: what was said while its participant had no other is its own.
    pub(super) fn inherit(&mut self, at: u32, participant: &str, tx: &mut Tx<'_>) {
        let Some(row) = self.row(at) else { return };
        let (context, serial) = (row.key.context, row.serial);
        let is_ours = |e: &Estate| e.context == context && e.participant == participant;
        let found = self.estates.iter().position(is_ours).filter(|_| !participant.is_empty());
        let Some(estate) = found.map(|found| self.estates.swap_remove(found)) else { return };
        for held in &estate.held {
            self.copy_of(held.source, held.passage, estate.from, |copy| {
                (copy.leg, copy.serial) = (at, serial);
            });
            let p = self.row_mut(held.source).and_then(|row| row.passages.of_mut(held.passage));
            for tap in p.into_iter().flat_map(|p| p.taps.iter_mut()).filter(|tap| tap.leg == estate.from) {
                (tap.leg, tap.serial) = (at, serial);
            }
        }
        let until = estate.held.iter().map(|held| held.until).min();
        let calls = estate.held.iter().any(|held| !held.tap);
        if let Some(row) = self.row_mut(at) {
            row.joined = true;
            row.held = estate.held;
        }
        if let Some(until) = until {
            self.sweep_at(at, until);
            if calls && self.row(at).is_some_and(|row| row.peer.is_empty()) {
                self.tell_held(at, true, tx);
            }
        }
    }

    /// Nobody has taken the place of a removed leg: its participant is gone.
    pub(crate) fn forget_estates(&mut self, now: Now, tx: &mut Tx<'_>) {
        for estate in std::mem::take(&mut self.estates) {
            for held in &estate.held {
                if held.tap && !estate.unseen {
                    tx.totals.drop(Drop::MsrpTap);
                }
                self.held_failed(now, estate.from, held, tx);
            }
        }
    }

    /// Changes the copy of a message to a leg, if somebody still waits for it.
    pub(super) fn copy_of(
        &mut self,
        source: u32,
        passage: u64,
        leg: u32,
        change: impl FnOnce(&mut super::Copy),
    ) {
        let p = self.row_mut(source).and_then(|row| row.passages.of_mut(passage));
        if let Some(copy) = p.and_then(|p| p.copies.iter_mut().find(|c| c.leg == leg && !c.stage.is_over())) {
            change(copy);
        }
    }
}
