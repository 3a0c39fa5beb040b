//! SEND through the relay, chunk by chunk as the octets come (RFC 4976 §6.4.1). Each chunk is answered to its previous
//! hop here; what the next hop says of it, or does not, becomes a REPORT to the sender where he wants one.
//!
//! ```text
//!  head ──► Pass ── pieces ──► chunk on the next hop (perhaps in several: others' requests go between)
//!            │ end ──► 200 to the previous hop (Failure-Report: yes)
//!            ├── 200 of the next hop ──► forgotten
//!            ├── error, none in 30 s, or the connection is lost ──► REPORT to the sender (not with Failure-Report: no)
//!            └── the source is lost ──► '#' to the next hop
//! ```

use base::{Instant, Now};
use bytes::{Bytes, BytesMut};
use msrp::{ByteRange, FailureReport, Flag, Head, HeadWriter, Method, Status, Tid};

use super::super::conn::Open;
use super::super::flow::STALL;
use super::super::spread::{Chunk, WHOLE_MAX, rest_of};
use super::super::{Conn, Message, Reading, Wait};
use super::SEAT;
use crate::media::Tx;
use crate::{ConnId, Drop};

/// A chunk on its way, or another request that is read whole first.
#[derive(Debug)]
pub(super) struct Pass {
    source: ConnId,
    target: ConnId,
    to: String,
    from: String,
    /// As it came.
    head: Head,
    start: u64,
    next: u64,
    /// Chunks on the next hop whose answers may come.
    pending: u32,
    /// Its end has not come yet.
    reading: bool,
    /// What went wrong; the rest is thrown away.
    failed: Option<Status>,
    reported: bool,
    /// The body of a request other than SEND.
    body: BytesMut,
    until: Instant,
}

impl Pass {
    pub(super) fn is_on(&self, conn: ConnId) -> bool {
        self.source == conn || self.target == conn
    }

    pub(super) fn is_over(&self, at: Instant) -> bool {
        !self.reading && self.until <= at
    }

    fn wait(&self) -> Wait {
        match self.head.failure_report() {
            FailureReport::Yes => Wait::Answer,
            FailureReport::Partial => Wait::Error,
            FailureReport::No => Wait::Nothing,
        }
    }

    /// What follows the paths in the head of a chunk that begins at `next`.
    fn rest(&self, tid: &Tid) -> Bytes {
        let range = self.head.byte_range().unwrap_or(ByteRange::OPEN);
        let end =
            range.end.filter(|end| self.next == self.start && end.saturating_sub(self.start) < WHOLE_MAX);
        let range = ByteRange { start: self.next, end, total: range.total };
        let chunk = Chunk { tid, id: self.head.message_id(), range, success: self.head.success_report() };
        rest_of(&self.head, &chunk, self.head.failure_report())
    }

    /// Begins a chunk on the next hop; `more` octets follow at once.
    fn open(&mut self, id: u64, to: &mut Conn, tid: Tid, until: Instant, more: usize) {
        to.close_chunk(Flag::More, until);
        to.begin_chunk(&tid, &self.to, &self.from, &self.rest(&tid), more);
        let wait = self.wait();
        to.open = Some(Open { source: SEAT, passage: id, target: SEAT, tid, wait });
        self.pending += u32::from(wait != Wait::Nothing);
    }

    /// Ends the chunk that is open there.
    fn close(&mut self, to: &mut Conn, flag: Flag, until: Instant) {
        to.close_chunk(flag, until);
        // What is aborted is not answered.
        if flag == Flag::Abort && self.wait() != Wait::Nothing {
            self.pending = self.pending.saturating_sub(1);
        }
    }

    /// The octets that it carried, with a computed end (RFC 4975 §7.1.2).
    fn range(&self) -> ByteRange {
        let total = self.head.byte_range().and_then(|range| range.total);
        ByteRange { start: self.start, end: Some(self.next - 1), total }
    }
}

impl Message {
    pub(super) fn pass_begins(
        &mut self,
        now: Now,
        source: ConnId,
        target: ConnId,
        head: &Head,
        (to, from): (String, String),
    ) -> Reading {
        let id = self.number();
        let start = head.byte_range().map_or(1, |range| range.start);
        let pass = Pass {
            source,
            target,
            to,
            from,
            head: head.clone(),
            start,
            next: start,
            pending: 0,
            reading: true,
            failed: None,
            reported: false,
            body: BytesMut::new(),
            until: now.mono,
        };
        self.relay.passes.insert(id, pass);
        Reading::Relay { pass: id }
    }

    /// A piece of what is passed on. The source waits when the next hop is full.
    pub(in super::super) fn pass_body(&mut self, now: Now, id: u64, piece: &Bytes, tx: &mut Tx<'_>) {
        let until = self.answer_until(now);
        let Some(p) = self.relay.passes.get_mut(&id).filter(|p| p.failed.is_none()) else { return };
        if p.head.method() != Some(Method::Send) {
            // The framer keeps these short.
            return p.body.extend_from_slice(piece);
        }
        let Some(next) = p.next.checked_add(piece.len() as u64) else {
            return p.failed = Some(Status::BAD_REQUEST);
        };
        let (source, target) = (p.source, p.target);
        let Some(to) = self.conns.get_mut(&target) else { return p.failed = Some(Status::TIMEOUT) };
        if !to.carries(SEAT, id, SEAT) {
            p.open(id, to, Tid::fresh(&mut self.entropy), until, piece.len());
            tx.totals.requests_out += 1;
        }
        to.queue.push(piece, false);
        p.next = next;
        let full = to.load() > self.limits.queue_bytes_max;
        if full {
            let since = *to.full.get_or_insert(now.mono);
            self.hold_up(target, Some(source), false);
            self.arm(target, since + STALL);
            self.block(source);
        }
        self.list(target);
    }

    /// Its end has come.
    pub(in super::super) fn pass_ends(&mut self, now: Now, id: u64, flag: Flag, tx: &mut Tx<'_>) {
        let Some(mut p) = self.relay.passes.remove(&id) else { return };
        p.reading = false;
        if p.head.method() != Some(Method::Send) {
            return self.whole(now, p.source, p.target, &p.head, (&p.to, &p.from), &p.body, tx);
        }
        if p.failed.is_none() && p.head.has_body() {
            self.pass_closes(now, id, &mut p, flag, tx);
        } else if p.failed.is_none() {
            self.pass_bare(now, id, &mut p, flag, tx);
        }
        // RFC 4976 §6.4.1: each hop answers the one before it. What failed by a REPORT was told already.
        let status = p.failed.filter(|_| !p.reported).unwrap_or(Status::OK);
        self.respond(now, p.source, &p.head, status, tx);
        if p.pending > 0 && p.failed.is_none() {
            p.until = self.answer_until(now) + std::time::Duration::from_secs(5);
            self.relay.passes.insert(id, p);
            self.relay_arms(now);
        }
    }

    fn pass_closes(&mut self, now: Now, id: u64, p: &mut Pass, flag: Flag, tx: &mut Tx<'_>) {
        let until = self.answer_until(now);
        let target = p.target;
        let Some(to) = self.conns.get_mut(&target) else { return p.failed = Some(Status::TIMEOUT) };
        let begun = to.carries(SEAT, id, SEAT);
        if !begun && (flag != Flag::More || p.next == p.start) {
            // It was interrupted after its last octet, or has none: an empty chunk says how it ends.
            p.open(id, to, Tid::fresh(&mut self.entropy), until, 0);
            tx.totals.requests_out += 1;
        }
        if to.carries(SEAT, id, SEAT) {
            p.close(to, flag, until);
        }
        self.pass_sent(target, until);
    }

    /// A SEND without content.
    fn pass_bare(&mut self, now: Now, id: u64, p: &mut Pass, flag: Flag, tx: &mut Tx<'_>) {
        let until = self.answer_until(now);
        let tid = Tid::fresh(&mut self.entropy);
        let target = p.target;
        let Some(to) = self.conns.get_mut(&target) else { return p.failed = Some(Status::TIMEOUT) };
        to.close_chunk(Flag::More, until);
        let (paths, head, wait) = ((&p.to, &p.from), &p.head, p.wait());
        to.queue.write(|buffer| {
            let (to, from) = (paths.0.as_bytes(), paths.1.as_bytes());
            let writer = HeadWriter::request(buffer, &tid, Method::Send.as_str(), to, from)
                .message_id(head.message_id())
                .success_report(head.success_report())
                .failure_report(head.failure_report());
            let writer = match head.byte_range() {
                Some(range) => writer.byte_range(range),
                None => writer,
            };
            writer.others_of(head).end(flag);
        });
        tx.totals.requests_out += 1;
        if wait != Wait::Nothing {
            p.pending += 1;
            let transaction = super::super::Transaction {
                tid,
                target: SEAT,
                carries: Some((SEAT, id)),
                asks: None,
                until,
                wait,
            };
            to.transactions.push_back(transaction);
        }
        self.pass_sent(target, until);
    }

    /// Something went out whose answer is awaited; of too many, the oldest is not awaited any more.
    fn pass_sent(&mut self, target: ConnId, until: Instant) {
        let max = self.relay.config.as_ref().map_or(0, |config| config.transactions_max);
        // Those of all connections together: what is read now comes on top, one a connection.
        let full = self.relay.passes.len() >= max;
        let mut forgotten = None;
        if let Some(to) = self.conns.get_mut(&target)
            && full
            && let Some(at) = to.transactions.iter().position(|t| t.target == SEAT)
        {
            forgotten = to.transactions.remove(at).and_then(|t| t.carries);
        }
        if let Some((_, id)) = forgotten {
            self.pass_settled(id);
        }
        self.arm(target, until);
        self.list(target);
    }

    /// One of its chunks is done with.
    fn pass_settled(&mut self, id: u64) {
        let Some(p) = self.relay.passes.get_mut(&id) else { return };
        p.pending = p.pending.saturating_sub(1);
        if p.pending == 0 && !p.reading {
            self.relay.passes.remove(&id);
        }
    }

    /// The next hop has answered a chunk, or has not in time.
    pub(in super::super) fn pass_answered(&mut self, now: Now, id: u64, status: Status, tx: &mut Tx<'_>) {
        if !status.is_success() {
            self.pass_fails(now, id, status, tx);
        }
        self.pass_settled(id);
    }

    /// What was taken will not arrive: its sender hears of it, once (RFC 4976 §6.4.3).
    fn pass_fails(&mut self, now: Now, id: u64, status: Status, tx: &mut Tx<'_>) {
        let until = self.answer_until(now);
        let tid = Tid::fresh(&mut self.entropy);
        let Some(p) = self.relay.passes.get_mut(&id) else { return };
        if p.reading {
            p.failed = Some(status);
            if let Some(to) = self.conns.get_mut(&p.target)
                && to.carries(SEAT, id, SEAT)
            {
                p.close(to, Flag::Abort, until);
                self.ready_again(id);
            }
        }
        let Some(p) = self.relay.passes.get_mut(&id) else { return };
        // Where nothing was answered yet, the answer itself says it.
        let answers = p.reading && p.head.failure_report().answers(status);
        if p.reported || answers || p.head.failure_report() == FailureReport::No {
            return;
        }
        p.reported = true;
        let (source, bytes) = (p.source, msrp::report(&tid, &p.head, p.range(), status));
        self.send(now, source, &bytes, tx);
    }

    fn ready_again(&mut self, id: u64) {
        if let Some(target) = self.relay.passes.get(&id).map(|p| p.target) {
            self.list(target);
        }
    }

    /// A connection is gone: what came by it is aborted, what should go by it has failed.
    pub(super) fn passes_lost(&mut self, now: Now, conn: ConnId, tx: &mut Tx<'_>) {
        let mut lost: Vec<u64> =
            self.relay.passes.iter().filter(|(_, p)| p.is_on(conn)).map(|(id, _)| *id).collect();
        // The order of a map is not that of the requests.
        lost.sort_unstable();
        for id in lost {
            let Some(p) = self.relay.passes.get(&id) else { continue };
            if p.source == conn {
                let Some(mut p) = self.relay.passes.remove(&id) else { continue };
                self.pass_aborts(now, id, &mut p, tx);
                continue;
            }
            let reading = p.reading;
            self.pass_fails(now, id, Status::TIMEOUT, tx);
            if !reading {
                self.relay.passes.remove(&id);
            }
        }
    }

    /// Nobody will end it: `#` (RFC 4975 §7.1).
    fn pass_aborts(&mut self, now: Now, id: u64, p: &mut Pass, tx: &mut Tx<'_>) {
        let until = self.answer_until(now);
        let is_begun = p.reading && p.next > p.start && p.failed.is_none();
        let Some(to) = self.conns.get_mut(&p.target).filter(|_| is_begun) else { return };
        tx.totals.drop(Drop::MsrpRelayLost);
        tx.totals.requests_taken = tx.totals.requests_taken.saturating_sub(1);
        if !to.carries(SEAT, id, SEAT) {
            p.open(id, to, Tid::fresh(&mut self.entropy), until, 0);
            tx.totals.requests_out += 1;
        }
        p.close(to, Flag::Abort, until);
        let target = p.target;
        self.list(target);
    }
}
