//! SEND: what becomes of its head, its body, its end.
//!
//! ```text
//!  head ── no content ──► Bare ── end ──► 200
//!    ├──── refused ─────► Skip                       (the answer goes out at once, the body is thrown away)
//!    ├──── waits ───────► the connection is blocked, the head looked at again when something changed
//!    └──── taken ───────► Content ── pieces ──► held until judged, or spread ── end ──► 200, chunks ended
//! ```

use std::time::Duration;

use base::Now;
use bytes::{Bytes, BytesMut};
use msrp::{FailureReport, Flag, Head, Method, Status};

use super::conn::Answers;
use super::{Lead, Message, Reading};
use crate::media::Tx;
use crate::modes::{back_to_back, switch};
use crate::{ConnId, Drop};

/// What is to be done with the head of a message with content.
pub(crate) enum Verdict {
    /// It goes on as this passage.
    Take(u64),
    /// Its targets are not there yet.
    Wait,
    /// Answered with that, its body thrown away.
    Refuse(Status, Drop),
    /// Taken and thrown away.
    Discard(Drop),
}

/// What the first octets of a message tell.
pub(crate) enum Judged {
    /// Not enough yet.
    More,
    /// This goes out first.
    Go(Bytes),
    /// All of it came, and none of it goes out.
    Swallow,
}

/// What must be kept of a head so that its request can be answered (RFC 4975 §7.2).
fn answered(head: Head) -> Answers {
    let silent = head.method() == Some(Method::Send) && head.failure_report() == FailureReport::No;
    (!silent).then(|| Box::new(head))
}

impl Message {
    /// A refused request is counted, answered if it may be, and its body thrown away.
    pub(super) fn refuse(
        &mut self,
        now: Now,
        conn: ConnId,
        head: Head,
        status: Status,
        why: Drop,
        tx: &mut Tx<'_>,
    ) -> Reading {
        tx.totals.requests_in += 1;
        tx.totals.drop(why);
        self.respond(now, conn, &head, status, tx);
        Reading::Skip
    }

    pub(super) fn send_head(
        &mut self,
        now: Now,
        conn: ConnId,
        leg: u32,
        head: Head,
        tx: &mut Tx<'_>,
    ) -> Reading {
        if !head.has_body() {
            tx.totals.requests_in += 1;
            tx.totals.requests_taken += 1;
            return Reading::Bare { leg, head: Box::new(head) };
        }
        match self.verdict(now, leg, &head, tx) {
            Verdict::Wait => {
                if let Some(row) = self.conns.get_mut(&conn) {
                    row.blocked = true;
                    row.waiting = Some(Box::new(head));
                }
                Reading::Skip
            }
            Verdict::Refuse(status, why) => {
                if let Some(row) = self.row_mut(leg) {
                    row.counts.dropped += 1;
                }
                self.refuse(now, conn, head, status, why, tx)
            }
            Verdict::Discard(why) => {
                tx.totals.requests_in += 1;
                tx.totals.drop(why);
                Reading::Discard { answers: answered(head) }
            }
            Verdict::Take(passage) => {
                tx.totals.requests_in += 1;
                tx.totals.requests_taken += 1;
                Reading::Content { leg, passage, answers: answered(head) }
            }
        }
    }

    fn verdict(&mut self, now: Now, leg: u32, head: &Head, tx: &mut Tx<'_>) -> Verdict {
        let refuse = |status| Verdict::Refuse(status, Drop::MsrpRefused);
        let until = now.mono + Duration::from_millis(self.limits.incomplete_ms);
        let tid = msrp::Tid::fresh(&mut self.entropy);
        let messages_max = self.limits.leg_messages_max;
        let Some(row) = self.row_mut(leg) else { return refuse(Status::NO_SESSION) };
        row.last_at = now.mono;
        let range = head.byte_range().unwrap_or(msrp::ByteRange::OPEN);
        let message_id = head.message_id();
        let tag = super::tag(message_id);
        let begun = row.passages.named(tag, message_id);
        let total = begun.and_then(|p| p.total).or(range.total);
        if total.is_some_and(|total| range.start - 1 > total) {
            return Verdict::Refuse(Status::BAD_REQUEST, Drop::MsrpStray);
        }
        if row.taken.iter().any(|id| id == message_id) {
            return Verdict::Discard(Drop::MsrpDuplicate);
        }
        if let Some(p) = row.passages.named_mut(tag, message_id) {
            if p.refused {
                // It was told to stop.
                return Verdict::Refuse(Status::STOP, Drop::MsrpStray);
            }
            if p.done {
                return Verdict::Discard(Drop::MsrpDuplicate);
            }
            p.go_on(head.clone(), tid, until);
            let id = p.id;
            self.hand_chunk(leg, id);
            return Verdict::Take(id);
        }
        if row.passages.unfinished() >= messages_max {
            return Verdict::Refuse(Status::STOP, Drop::MsrpLimit);
        }
        // Where it leads is nobody's business meanwhile.
        let lead = std::mem::take(&mut row.lead);
        let verdict = match &lead {
            Lead::Nowhere => Verdict::Refuse(Status::FORBIDDEN, Drop::MsrpNoTarget),
            Lead::Pass(targets) => back_to_back::begin(self, leg, targets, head, tid, until),
            Lead::Room(room) => switch::begin(self, leg, *room, head, tid, until),
        };
        if let Some(row) = self.row_mut(leg) {
            row.lead = lead;
        }
        if let Verdict::Take(passage) = verdict {
            self.sweep_at(leg, until);
            self.is_tapped(leg, passage);
        }
        let _ = tx;
        verdict
    }

    pub(super) fn body(&mut self, now: Now, conn: ConnId, piece: &Bytes, tx: &mut Tx<'_>) {
        let (leg, passage) = match self.conns.get(&conn).map(|c| &c.reading) {
            Some(Reading::Content { leg, passage, .. }) => (*leg, *passage),
            Some(Reading::Relay { pass }) => return self.pass_body(now, *pass, piece, tx),
            _ => return,
        };
        let Some(mut p) = self.take(leg, passage) else { return };
        if let Some(row) = self.row_mut(leg) {
            row.counts.bytes_in += piece.len() as u64;
        }
        if !p.refused {
            // A chunk may be as long as its message: what still comes is not given up.
            p.until = p.until.max(now.mono + Duration::from_millis(self.limits.incomplete_ms));
            let passed = match p.advance(piece) {
                Err(status) => Err(status),
                Ok(()) if p.holds == super::Holds::Nothing => Ok(self.spread(now, leg, &mut p, piece, tx)),
                Ok(()) => self.hold(now, leg, &mut p, piece, tx),
            };
            match passed {
                Ok(true) => self.block(conn),
                Ok(false) => {}
                Err(status) => self.stop(now, conn, leg, &mut p, status, tx),
            }
        }
        self.keep(leg, p);
    }

    /// The first octets are held back until it is known who may have them.
    fn hold(
        &mut self,
        now: Now,
        leg: u32,
        p: &mut super::Passage,
        piece: &Bytes,
        tx: &mut Tx<'_>,
    ) -> Result<bool, Status> {
        // RFC 3862 headers stand at the beginning: a message that begins elsewhere cannot be judged.
        if p.next - piece.len() as u64 != p.held.len() as u64 + 1 {
            if p.must_be_judged() {
                return Err(Status::BAD_REQUEST);
            }
            // In another order than it was written in: it is passed on as content.
            let (held, next) = (p.held.split().freeze(), p.next);
            p.holds = super::Holds::Nothing;
            p.next = held.len() as u64 + 1;
            let full = !held.is_empty() && self.spread(now, leg, p, &held, tx);
            self.end_chunks(now, leg, p, Flag::More, tx);
            p.next = next;
            return Ok(self.spread(now, leg, p, piece, tx) || full);
        }
        p.held.extend_from_slice(piece);
        let judged = if p.room {
            switch::decide(self, leg, p, false)?
        } else {
            back_to_back::decide(self, leg, p, false)?
        };
        match judged {
            Judged::Go(first) => Ok(self.spread_held(now, leg, p, &first, tx)),
            Judged::More | Judged::Swallow => Ok(false),
        }
    }

    /// What was held goes out.
    pub(crate) fn spread_held(
        &mut self,
        now: Now,
        leg: u32,
        p: &mut super::Passage,
        first: &Bytes,
        tx: &mut Tx<'_>,
    ) -> bool {
        p.holds = super::Holds::Nothing;
        // A rewritten head may be longer or shorter; ranges then speak of what goes out.
        p.shift = first.len() as i64 - p.held.len() as i64;
        p.held = BytesMut::new();
        self.spread(now, leg, p, first, tx)
    }

    /// A message cannot go on: the sender is told to stop, the targets that nothing more comes.
    fn stop(
        &mut self,
        now: Now,
        conn: ConnId,
        leg: u32,
        p: &mut super::Passage,
        status: Status,
        tx: &mut Tx<'_>,
    ) {
        tx.totals.drop(Drop::MsrpRefused);
        tx.totals.requests_taken = tx.totals.requests_taken.saturating_sub(1);
        self.abort(now, leg, p, tx);
        if let Some(row) = self.row_mut(leg) {
            row.counts.dropped += 1;
        }
        let Some(row) = self.conns.get_mut(&conn) else { return };
        if let Reading::Content { answers: Some(head), .. } =
            std::mem::replace(&mut row.reading, Reading::Skip)
        {
            self.respond(now, conn, &head, status, tx);
        }
    }

    pub(super) fn end(&mut self, now: Now, conn: ConnId, flag: Flag, tx: &mut Tx<'_>) {
        let Some(row) = self.conns.get_mut(&conn) else { return };
        match std::mem::replace(&mut row.reading, Reading::Skip) {
            Reading::Skip => {}
            Reading::Relay { pass } => self.pass_ends(now, pass, flag, tx),
            Reading::Discard { answers } => {
                if let Some(head) = answers {
                    self.respond(now, conn, &head, Status::OK, tx);
                }
            }
            Reading::Bare { leg, head } => {
                // It keeps a session alive, binds it, or ends a message that was begun.
                let tag = super::tag(head.message_id());
                let begun = self.row(leg).and_then(|row| row.passages.named(tag, head.message_id()));
                let begun = begun.filter(|p| !p.done).map(|p| p.id);
                if let Some(passage) = begun.filter(|_| flag == Flag::Abort) {
                    self.aborted(now, leg, passage, tx);
                }
                self.respond(now, conn, &head, Status::OK, tx);
            }
            Reading::Content { leg, passage, answers } => {
                let status = if flag == Flag::Abort {
                    self.aborted(now, leg, passage, tx);
                    Status::OK
                } else {
                    self.chunk_done(now, leg, passage, flag, tx)
                };
                if !status.is_success() {
                    // It was taken by its head, and what came after it cannot be used.
                    tx.totals.drop(Drop::MsrpRefused);
                    tx.totals.requests_taken = tx.totals.requests_taken.saturating_sub(1);
                    if let Some(row) = self.row_mut(leg) {
                        row.counts.dropped += 1;
                    }
                }
                if let Some(head) = answers {
                    self.respond(now, conn, &head, status, tx);
                }
            }
        }
    }

    /// The sender gave up: so do the targets.
    fn aborted(&mut self, now: Now, leg: u32, passage: u64, tx: &mut Tx<'_>) {
        if let Some(mut p) = self.take(leg, passage) {
            self.abort(now, leg, &mut p, tx);
        }
    }

    /// A chunk ended, and perhaps its message.
    fn chunk_done(&mut self, now: Now, leg: u32, passage: u64, flag: Flag, tx: &mut Tx<'_>) -> Status {
        let Some(mut p) = self.take(leg, passage) else { return Status::OK };
        if p.refused {
            if flag == Flag::More {
                self.keep(leg, p);
            }
            return Status::OK;
        }
        let whole = match p.chunk_ended(flag == Flag::Last) {
            Ok(whole) => whole,
            Err(status) => {
                self.abort(now, leg, &mut p, tx);
                return status;
            }
        };
        if whole && p.holds != super::Holds::Nothing {
            // All of it came and it is still held: an IMDN, or headers without an end.
            let judged = if p.room {
                switch::decide(self, leg, &mut p, true)
            } else {
                back_to_back::decide(self, leg, &mut p, true)
            };
            match judged {
                Ok(Judged::Go(first)) => drop(self.spread_held(now, leg, &mut p, &first, tx)),
                Ok(_) => self.swallow(now, leg, &mut p, tx),
                Err(status) => return status,
            }
        }
        if p.holds == super::Holds::Nothing {
            self.end_chunks(now, leg, &mut p, flag, tx);
        }
        if whole {
            self.message_done(now, leg, &mut p, tx);
            let until = now.mono + Duration::from_millis(self.limits.report_ms);
            p.until = until;
        }
        self.keep(leg, p);
        Status::OK
    }

    /// Another device of the same recipient has said this already: this one gets its 200, and nobody else hears of it
    /// (CPM-FACTS §2.11).
    fn swallow(&mut self, now: Now, leg: u32, p: &mut super::Passage, tx: &mut Tx<'_>) {
        tx.totals.drop(Drop::MsrpImdnAgain);
        if !p.room {
            // Its sender has said it all the same.
            let all = p.held.split().freeze();
            self.tap(now, leg, p, 1, &all, tx);
            self.tap_ends(now, leg, p, tx);
        }
        tx.totals.requests_taken = tx.totals.requests_taken.saturating_sub(1);
        if p.success {
            let range = p.range();
            self.report(now, leg, p, range, Status::OK, tx);
        }
        p.reported = true;
    }

    fn message_done(&mut self, now: Now, leg: u32, p: &mut super::Passage, tx: &mut Tx<'_>) {
        /// Ids of whole messages that are remembered per leg.
        const TAKEN_MAX: usize = 16;
        self.settle(now, leg, p, tx);
        let forget = self.limits.leg_reports_max;
        let Some(row) = self.row_mut(leg) else { return };
        row.counts.messages_in += 1;
        if p.room {
            row.taken.push_back(p.message_id.clone());
            if row.taken.len() > TAKEN_MAX {
                row.taken.pop_front();
            }
        }
        row.passages.make_room_for_done(forget);
    }
}
