//! A piece of a message to each of its targets: chunks opened, interrupted, ended, aborted.

use base::{Entropy, Instant, Now};
use bytes::{Bytes, BytesMut};
use msrp::{ByteRange, FailureReport, Flag, Head, HeadWriter, Method, Status, Tid};

use super::conn::{COPY_MAX, Open, SHARE_MIN};
use super::row::Expect;
use super::tap::Taps;
use super::{Conn, CopyStage, Message, Passage, Row, Transaction, Wait};
use crate::ConnId;
use crate::media::Tx;

/// A chunk that is announced no longer than this need not be interruptible (RFC 4975 §7.1.1).
pub(super) const WHOLE_MAX: u64 = 2048;
/// A message to so many is one for which sharing its octets may be worth while.
const WIDE: usize = 8;

impl Message {
    /// Sends a piece that ends before octet `p.next` to all live copies. True: a target is full, and the source must
    /// wait for it.
    pub(crate) fn spread(
        &mut self,
        now: Now,
        source: u32,
        p: &mut Passage,
        piece: &Bytes,
        tx: &mut Tx<'_>,
    ) -> bool {
        let next = p.out(p.next);
        let start = next.saturating_sub(piece.len() as u64);
        let alone = p.copies.iter().filter(|c| !c.own).count() == 1 && !p.room;
        let until = self.answer_until(now);
        let most = if p.room { self.limits.queue_bytes_max / 5 * 4 } else { self.limits.queue_bytes_max };
        let mut block = self.hand_piece(source, p, piece);
        // Receivers, and those of them for whom much waits.
        let (mut live, mut busy) = (0_usize, 0_usize);
        let (spills, mut full) = (!p.room && p.copies.len() > 1 && self.limits.spill_bytes_max > 0, false);
        // Its own octets and no more: shared, it must not hold the read that brought it.
        let wide = p.copies.len() >= WIDE && (SHARE_MIN..=COPY_MAX).contains(&piece.len());
        let exact = wide.then(|| Bytes::copy_from_slice(piece));
        let piece = exact.as_ref().unwrap_or(piece);
        for at in 0..p.copies.len() {
            let Some(copy) = p.copies.get(at).copied() else { continue };
            let (target, serial, own) = (copy.leg, copy.serial, copy.own);
            if copy.stage == CopyStage::Held && !p.room {
                let row = self.row(target).filter(|row| row.serial == serial);
                if row.is_none_or(|row| row.max_size > 0 && next - 1 > row.max_size) {
                    self.fail_copy(now, source, p, target, Status::STOP, tx);
                    continue;
                }
                // Somebody else paces the sender, or nobody does.
                let paces = |c: &super::Copy| {
                    let keeps_up =
                        c.stage == CopyStage::Live || c.stage == CopyStage::Held && !self.is_behind(c.leg);
                    c.leg != target && !c.own && keeps_up
                };
                let unpaced = !own && !p.copies.iter().any(paces);
                block |= self.spill_piece(target, source, p, start, piece, unpaced, tx);
                continue;
            }
            if copy.stage == CopyStage::Held {
                let row = self.row(target).filter(|row| row.serial == serial);
                let fits = row.is_some_and(|row| row.max_size == 0 || next - 1 <= row.max_size);
                if !fits || !self.hold_back(now, target, source, p, start, piece, tx) {
                    self.fail_copy(now, source, p, target, Status::STOP, tx);
                }
                continue;
            }
            if copy.stage != CopyStage::Live {
                continue;
            }
            let row = self.rows.get_mut(target as usize).filter(|row| row.serial == serial);
            let conn = row.as_ref().and_then(|row| row.conn());
            let to = conn.and_then(|conn| self.conns.get_mut(&conn));
            let (Some(row), Some(conn), Some(to)) = (row, conn, to) else {
                self.fail_copy(now, source, p, target, Status::TIMEOUT, tx);
                continue;
            };
            if row.max_size > 0 && next - 1 > row.max_size {
                self.fail_copy(now, source, p, target, Status::STOP, tx);
                continue;
            }
            if (own || !alone) && to.congested.is_some() {
                tx.totals.drop(crate::Drop::MsrpCongested);
                self.fail_copy(now, source, p, target, Status::TIMEOUT, tx);
                continue;
            }
            if let Some(copy) = p.copies.get_mut(at) {
                copy.begun = true;
            }
            if !to.carries(source, p.id, target) {
                open_chunk(to, row, p, source, target, start, until, piece.len(), &mut self.entropy);
                tx.totals.requests_out += 1;
            }
            to.queue.push(piece, wide);
            row.counts.bytes_out += piece.len() as u64;
            if !to.listed {
                to.listed = true;
                self.ready.push_back(conn);
            }
            let load = to.load();
            live += 1;
            busy += usize::from(load > most / 2);
            if load > most && spills {
                full = true;
            } else if load > most {
                block |= self.mind_the_load(now, conn, source, p.room || own, p.next, tx);
            }
        }
        if full {
            block |= self.part(now, source, p, tx);
        }
        if !self.crowd.is_empty() {
            block |= self.judge_crowd(now, source, p.room && busy * 2 > live, tx);
        }
        if !matches!(p.taps, Taps::Nobody) {
            self.tap(now, source, p, start, piece, tx);
        }
        block
    }

    /// The source's chunk ended, and with `Flag::Last` the message.
    pub(crate) fn end_chunks(&mut self, now: Now, source: u32, p: &mut Passage, flag: Flag, tx: &mut Tx<'_>) {
        let until = self.answer_until(now);
        let remembered = now.mono + std::time::Duration::from_millis(self.limits.report_ms);
        self.hand_end(source, p, flag);
        let mut block = false;
        let (max, room) = (self.limits.queue_bytes_max, p.room);
        for at in 0..p.copies.len() {
            let Some(copy) = p.copies.get(at).copied() else { continue };
            if copy.stage == CopyStage::Held && p.room && p.done {
                self.held_whole(copy.leg, source, p);
            } else if copy.stage == CopyStage::Held && (p.done || flag == Flag::Last) && !p.room {
                block |= self.spill_ends(copy.leg, source, p, flag, tx);
            }
            if copy.stage != CopyStage::Live {
                continue;
            }
            let Some(conn) = self.row(copy.leg).filter(|r| r.serial == copy.serial).and_then(|r| r.conn())
            else {
                self.fail_copy(now, source, p, copy.leg, Status::TIMEOUT, tx);
                continue;
            };
            let (Some(row), Some(to)) = (self.rows.get(copy.leg as usize), self.conns.get_mut(&conn)) else {
                continue;
            };
            let mut is_full = false;
            if !to.carries(source, p.id, copy.leg) && flag == Flag::Last {
                // It was interrupted after its last octet: an empty chunk says that this is the end.
                let start = p.out(p.next);
                open_chunk(to, row, p, source, copy.leg, start, until, 0, &mut self.entropy);
                tx.totals.requests_out += 1;
                is_full = to.load() > if room { max / 5 * 4 } else { max };
            }
            if to.carries(source, p.id, copy.leg) {
                to.close_chunk(flag, until);
            }
            let mut marked = false;
            if p.done && p.room && p.success {
                to.mark(now.mono, source, p.id, copy.leg);
                marked = true;
            }
            let forgotten = trim(to, self.limits.connection_transactions_max);
            let awaits = !to.transactions.is_empty();
            if !to.listed {
                to.listed = true;
                self.ready.push_back(conn);
            }
            if awaits {
                self.arm(conn, until);
            }
            if marked {
                self.arm(conn, now.mono + std::time::Duration::from_millis(self.limits.slow_ms));
            }
            for transaction in forgotten {
                self.copy_unsure(source, p, transaction);
            }
            if p.done {
                self.copy_sent(source, p, copy.leg, at, remembered);
            }
            if is_full {
                // What has no octets takes room all the same. It is no chatter of many: its source waits.
                let octets = if room { u64::MAX } else { p.next };
                block |= self.mind_the_load(now, conn, source, room, octets, tx);
            }
        }
        if block {
            self.block_source(source);
        }
        if p.done {
            self.tap_ends(now, source, p, tx);
        }
    }

    /// The answer to a chunk will not be known: its copy cannot be called taken any more. `p` is out of its leg.
    fn copy_unsure(&mut self, source: u32, p: &mut Passage, forgotten: Transaction) {
        let Some((from, passage)) = forgotten.carries else { return };
        let copy = if (from, passage) == (source, p.id) {
            p.copy_mut(forgotten.target)
        } else {
            let p = self.row_mut(from).and_then(|row| row.passages.of_mut(passage));
            p.and_then(|p| p.copy_mut(forgotten.target))
        };
        if let Some(copy) = copy {
            copy.unsure = true;
        }
    }

    fn copy_sent(&mut self, source: u32, p: &mut Passage, target: u32, at: usize, until: Instant) {
        if let Some(copy) = p.copies.get_mut(at) {
            copy.stage = CopyStage::Sent;
        }
        let reports_max = self.limits.leg_reports_max;
        let awaited = p.is_awaited() && p.copies.get(at).is_some_and(|copy| !copy.own);
        if let Some(row) = self.row_mut(target) {
            row.counts.messages_out += 1;
            if awaited {
                if row.expects.len() >= reports_max {
                    row.expects.pop_front();
                }
                let message_id = p.shown_id.clone();
                let tag = p.tags.shown;
                row.expects.push_back(Expect {
                    tag,
                    message_id,
                    source,
                    passage: p.id,
                    until,
                    spilled: false,
                });
            }
        }
    }

    /// Gives up the copy to one leg. When none is left, the sender hears of it: once, by REPORT (CPM-FACTS §3.6).
    pub(crate) fn fail_copy(
        &mut self,
        now: Now,
        source: u32,
        p: &mut Passage,
        target: u32,
        status: Status,
        tx: &mut Tx<'_>,
    ) {
        let Some(copy) = p.copy_mut(target).filter(|c| !c.stage.is_over()) else { return };
        let (was, begun, own) = (copy.stage, copy.begun, copy.own);
        copy.stage = CopyStage::Failed;
        match was {
            CopyStage::Live if begun => self.abort_copy(now, source, p, target, tx),
            CopyStage::Held => self.forget_held(now, target, source, p.id, tx),
            _ => {}
        }
        self.settle(now, source, p, tx);
        if !p.room && !own && p.is_hopeless() && !p.refused {
            // What his own other devices have of it is of no use either.
            if p.done {
                p.refused = true
            } else {
                self.abort(now, source, p, tx)
            }
            if p.failure != FailureReport::No && !p.reported {
                p.reported = true;
                let range = p.range();
                self.report(now, source, p, range, status, tx);
            }
        }
    }

    /// A room reports success when the message is whole and out of its hands towards everybody: written to the
    /// connection of each recipient, or he was cut loose or lost, of which control was told (DESIGN §2, invariant 9;
    /// CPM-FACTS §3.8 step 7: the switch is the endpoint that accepts, and what only waits here may yet be lost).
    pub(crate) fn settle(&mut self, now: Now, source: u32, p: &mut Passage, tx: &mut Tx<'_>) {
        if p.success && !p.reported && !p.refused && p.is_spread() {
            p.reported = true;
            if self.guest_settled(source, p) {
                return;
            }
            let range = p.range();
            let (wanted, written) = p.far.as_ref().map_or((false, false), |far| far.came_to());
            let written = written || p.copies.iter().any(|c| c.stage == CopyStage::Written);
            // Of several one may miss it, but what nobody has is not called delivered.
            let status = match written || (p.copies.is_empty() && !wanted) {
                true => Status::OK,
                false if p.failure == FailureReport::No => return,
                false => Status::TIMEOUT,
            };
            self.report(now, source, p, range, status, tx);
        }
    }

    /// Tells a target that nothing more comes: `#` (RFC 4975 §7.1).
    fn abort_copy(&mut self, now: Now, source: u32, p: &Passage, target: u32, tx: &mut Tx<'_>) {
        let until = self.answer_until(now);
        let tid = Tid::fresh(&mut self.entropy);
        let Some(row) = self.rows.get(target as usize) else { return };
        let Some(conn) = row.conn() else { return };
        let Some(to) = self.conns.get_mut(&conn) else { return };
        if to.carries(source, p.id, target) {
            to.close_chunk(Flag::Abort, until);
        } else {
            to.close_chunk(Flag::More, until);
            to.queue.write(|buffer| {
                HeadWriter::request(
                    buffer,
                    &tid,
                    Method::Send.as_str(),
                    row.peer.as_bytes(),
                    row.own.as_bytes(),
                )
                .message_id(&p.shown_id)
                .byte_range(ByteRange { start: p.out(p.next), end: Some(p.out(p.next) - 1), total: None })
                .failure_report(FailureReport::No)
                .end(Flag::Abort);
            });
            tx.totals.requests_out += 1;
        }
        self.list(conn);
    }

    /// The whole message is given up: `#` to each target that has seen something of it.
    pub(crate) fn abort(&mut self, now: Now, source: u32, p: &mut Passage, tx: &mut Tx<'_>) {
        for at in 0..p.copies.len() {
            let is_open = |stage| matches!(stage, CopyStage::Live | CopyStage::Held);
            let Some(copy) = p.copies.get_mut(at).filter(|c| is_open(c.stage)) else { continue };
            let (target, begun, was) = (copy.leg, copy.begun, copy.stage);
            copy.stage = CopyStage::Failed;
            match was {
                CopyStage::Held => self.forget_held(now, target, source, p.id, tx),
                _ if begun => self.abort_copy(now, source, p, target, tx),
                _ => {}
            }
        }
        self.tap_aborted(now, source, p, tx);
        self.hand_abort(source, p);
        p.refused = true;
    }

    /// Takes a passage out of its leg, to work on it; put it back with [`Message::keep`].
    pub(crate) fn take(&mut self, source: u32, passage: u64) -> Option<Box<Passage>> {
        self.row_mut(source)?.passages.take(passage)
    }

    /// Puts a passage back, unless nothing more can come of it.
    pub(crate) fn keep(&mut self, source: u32, p: Box<Passage>) {
        if p.done && (p.refused || !p.is_awaited()) {
            return;
        }
        let max = self.limits.leg_messages_max;
        let Some(row) = self.row_mut(source) else { return };
        row.passages.push(p);
        // A refused message is remembered until its sender ends it; of such there are no more than of others.
        row.passages.trim_refused(max);
    }

    /// The copy to one leg failed, by response, report or loss.
    pub(crate) fn copy_failed(
        &mut self,
        now: Now,
        source: u32,
        passage: u64,
        target: u32,
        status: Status,
        tx: &mut Tx<'_>,
    ) {
        if let Some(mut p) = self.take(source, passage) {
            self.fail_copy(now, source, &mut p, target, status, tx);
            self.keep(source, p);
        }
    }

    /// The connection of a leg, by id.
    pub(crate) fn conn_id(&self, leg: u32) -> Option<ConnId> {
        self.row(leg)?.conn()
    }
}

/// Writes the head of a chunk that begins with octet `start` and is followed by `more` octets at once. All but the paths is the same for all targets.
#[expect(clippy::too_many_arguments, reason = "three tables are borrowed apart")]
fn open_chunk(
    to: &mut Conn,
    row: &Row,
    p: &mut Passage,
    source: u32,
    target: u32,
    start: u64,
    until: Instant,
    more: usize,
    entropy: &mut Entropy,
) {
    to.close_chunk(Flag::More, until);
    // One transaction id serves all targets of a chunk; a second chunk on one connection needs its own.
    let first = start == p.out(p.chunk_start) && to.legs.len() == 1;
    let tid = if first { p.tid } else { Tid::fresh(entropy) };
    if p.rest_of != start {
        (p.rest, p.rest_of) = (rest_of_head(p, start), start);
    }
    to.begin_chunk(&tid, &row.peer, &row.own, &p.rest, more);
    let wait = match p.failure {
        _ if p.room => Wait::Nothing,
        FailureReport::Yes => Wait::Answer,
        FailureReport::Partial => Wait::Error,
        FailureReport::No => Wait::Nothing,
    };
    to.open = Some(Open { source, passage: p.id, target, tid, wait });
}

/// The head of a chunk after its paths, the empty line included.
fn rest_of_head(p: &Passage, start: u64) -> Bytes {
    let announced =
        p.head.byte_range().and_then(|r| r.end).filter(|_| start == p.chunk_start && p.shift == 0);
    let end = announced.filter(|end| end.saturating_sub(start) < WHOLE_MAX);
    let range = ByteRange { start, end, total: p.total.map(|total| p.out(total)) };
    let failure = if p.room { FailureReport::No } else { p.failure };
    let chunk = Chunk { tid: &p.tid, id: &p.shown_id, range, success: p.success && !p.room };
    rest_of(&p.head, &chunk, failure)
}

/// A chunk that shall be begun.
pub(super) struct Chunk<'a> {
    pub(super) tid: &'a Tid,
    pub(super) id: &'a str,
    pub(super) range: ByteRange,
    pub(super) success: bool,
}

/// The head of a chunk after its paths, with what `head` says besides.
pub(super) fn rest_of(head: &Head, chunk: &Chunk<'_>, failure: FailureReport) -> Bytes {
    let content_type = head.content_type().unwrap_or("application/octet-stream");
    let mut rest = BytesMut::new();
    HeadWriter::rest(&mut rest, chunk.tid)
        .message_id(chunk.id)
        .byte_range(chunk.range)
        .success_report(chunk.success)
        .failure_report(failure)
        .others_of(head)
        .body(content_type.as_bytes());
    rest.freeze()
}

/// Keeps the transactions of a connection within their limit; the oldest are forgotten, and given.
pub(super) fn trim(conn: &mut Conn, max: usize) -> Vec<Transaction> {
    let excess = conn.transactions.len().saturating_sub(max);
    if excess == 0 {
        return Vec::new();
    }
    conn.transactions.drain(..excess).collect()
}
