//! Responses and REPORTs that come back: matched to what we sent, and mapped to the message's sender. Only the far
//! end's own success REPORT becomes one towards the sender: nothing is reported delivered that was not (DESIGN §2,
//! invariant 9).

use base::Now;
use contract::leg_lost::Reason;
use msrp::{ByteRange, FailureReport, Head, Status};

use super::{CopyStage, Message};
use crate::media::Tx;
use crate::{ConnId, Drop};

impl Message {
    /// A response: to a chunk, or to the empty SEND that binds.
    pub(crate) fn response(&mut self, now: Now, conn: ConnId, head: &Head, status: Status, tx: &mut Tx<'_>) {
        let Some(row) = self.conns.get_mut(&conn) else { return };
        let at = row.transactions.iter().position(|t| t.tid == *head.tid());
        let open = row.open.filter(|open| open.tid == *head.tid());
        let (target, carries, asks) = match (at.and_then(|at| row.transactions.remove(at)), open) {
            (Some(done), _) => (done.target, done.carries, done.asks),
            // An error may come before the chunk has ended (RFC 4975 §7.2).
            (None, Some(open)) if !status.is_success() => {
                (open.target, Some((open.source, open.passage)), None)
            }
            _ if self.brings_back(now, conn, head, tx) => return,
            _ => {
                // Stacks that answer REPORTs are known (CPM-FACTS §3.7).
                tx.totals.drop(Drop::MsrpUnasked);
                return;
            }
        };
        tx.totals.requests_taken += 1;
        if let (super::relay::SEAT, Some((_, pass))) = (target, carries) {
            return self.pass_answered(now, pass, status, tx);
        }
        if let Some(asks) = asks {
            self.nickname_answered(now, asks, status, tx);
        }
        if status.is_success() {
            return self.spill_over(target, tx);
        }
        if let Some((source, passage)) = carries
            && !self.tap_refused(now, conn, target, (source, passage), tx)
        {
            self.copy_failed(now, source, passage, target, status, tx);
            // Of what its sender does not wait for any more, something may still wait here.
            self.forget_held(now, target, source, passage, tx);
            self.expects_no_report(target, source, passage);
        }
        self.spill_over(target, tx);
        // RFC 4975 §10.5, §10.9, §10.11: the session is no more.
        if matches!(status, Status::NO_SESSION | Status::OTHER_CONNECTION) {
            self.unbind(now, target, tx);
            self.lose(target, Reason::Protocol, tx);
            self.shut_if_unused(now, conn, tx);
        }
    }

    /// A REPORT from the far end of a leg.
    pub(crate) fn report_in(&mut self, now: Now, leg: u32, head: &Head, tx: &mut Tx<'_>) {
        let tag = super::tag(head.message_id());
        let expected = self.row(leg).and_then(|row| {
            let found = row.expects.iter().find(|e| e.is_of(tag, head.message_id()));
            found.map(|e| (e.source, e.passage))
        });
        // A failure may come before the last chunk went out.
        let open = || {
            self.copies_to(leg).into_iter().find(|(source, passage)| {
                let row = self.row(*source);
                row.and_then(|r| r.passages.of(*passage)).is_some_and(|p| p.shown_id == head.message_id())
            })
        };
        let (Some(status), Some((source, passage))) = (head.status(), expected.or_else(open)) else {
            if head.status().is_some_and(|status| self.tap_reported(now, leg, head, status, tx)) {
                tx.totals.requests_taken += 1;
                return;
            }
            tx.totals.drop(Drop::MsrpUnasked);
            return;
        };
        tx.totals.requests_taken += 1;
        if status.is_success() {
            self.succeeded(now, leg, source, passage, head, tx);
        } else {
            self.copy_failed(now, source, passage, leg, status, tx);
            self.forget_expect(leg, head.message_id());
        }
        self.spill_over(leg, tx);
    }

    /// The far end has it: the sender hears of it, from the first of several targets only.
    fn succeeded(&mut self, now: Now, leg: u32, source: u32, passage: u64, head: &Head, tx: &mut Tx<'_>) {
        let Some(mut p) = self.take(source, passage) else {
            // Nobody waits for this one: another has reported it before.
            let range = head.byte_range();
            if range.is_none_or(|range| ends_whole(range, range.total)) {
                self.forget_expect(leg, head.message_id());
            }
            return;
        };
        if p.room {
            // Recipients' reports end here (CPM-FACTS §3.8 step 7).
            return self.keep(source, p);
        }
        let range = head.byte_range().unwrap_or_else(|| p.range());
        // Only what went out can be there: a part of a rest, or all octets before the chunk that ends them.
        let last = p.last.or(p.total);
        let went = range.end.is_some_and(|end| {
            (p.is_rest() || last.is_some_and(|last| end >= last)) && p.has(range.start, end)
        });
        let is_sent = p
            .copy_mut(leg)
            .is_some_and(|c| !c.own && (c.stage == CopyStage::Sent || (went && c.stage == CopyStage::Live)));
        let whole = ends_whole(range, last);
        if p.success && !p.reported && is_sent {
            // Success REPORTs may be incremental (RFC 4975 §7.1.3): the last one ends it.
            self.report(now, source, &p, range, Status::OK, tx);
            p.reported = whole;
        }
        if whole {
            self.forget_expect(leg, head.message_id());
            if p.failure == FailureReport::No {
                p.reported |= !p.success;
            }
        }
        self.keep(source, p);
    }

    fn forget_expect(&mut self, leg: u32, message_id: &str) {
        if let Some(row) = self.row_mut(leg) {
            row.expects.retain(|e| e.message_id != message_id);
        }
    }
}

fn ends_whole(range: ByteRange, last: Option<u64>) -> bool {
    range.start <= 1 && range.end.is_some_and(|end| last.is_none_or(|last| end >= last))
}
