//! What a session sends: messages in chunks, their answers and reports.

use std::time::Duration;

use base::{Instant, Outbox};
use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::tables::{Message, Transaction, What};
use super::{Due, Ended, Key, OUTPUTS_KEPT_FREE, Outgoing, Output, Session, State, tell};
use crate::chunk::{Chunk, Chunker};
use crate::{ByteRange, Flag, Head, HeadWriter, Method, Ranges, Status, Tid};

/// Types that the peer answered 415 to, at most so many.
const REFUSED_TYPES_MAX: usize = 16;
/// Holes in the acknowledged octets of one message.
const ACKNOWLEDGED_PIECES_MAX: usize = 64;

impl Session {
    /// Takes a message into the queue, or says at once why not.
    pub(super) fn queue(&mut self, message: Outgoing, out: &mut Outbox<Output>) {
        let (key, octets) = (message.key, message.body.len() as u64);
        if let Err(status) = self.may_queue(&message) {
            return tell(out, Output::Failed(key, status));
        }
        let limits = self.config.limits;
        self.sending.queued_octets += octets;
        self.sending.turns.push_back(key);
        let id = message.message_id.unwrap_or_else(|| self.entropy.token(100));
        self.sending.ids.insert(id.clone(), key);
        self.sending.messages.insert(
            key,
            Message {
                id,
                content_type: message.content_type,
                chunker: Chunker::new(message.body, limits.chunk_octets),
                success_report: message.success_report,
                failure_report: message.failure_report,
                headers: message.headers,
                unanswered: 0,
                open: 0,
                accepted: false,
                acknowledged: Ranges::with_max(ACKNOWLEDGED_PIECES_MAX),
                report_timer: None,
            },
        );
    }

    fn may_queue(&self, message: &Outgoing) -> Result<(), Status> {
        let limits = self.config.limits;
        let octets = message.body.len() as u64;
        let malformed = message.message_id.as_ref().is_some_and(|id| Tid::parse(id.as_bytes()).is_err());
        if malformed || self.sending.messages.contains_key(&message.key) {
            return Err(Status::BAD_REQUEST);
        }
        // RFC 4975 §8.6: more than the peer's max-size would be answered 413.
        let too_large = self.config.peer_octets_max.is_some_and(|max| octets > max);
        let full = self.sending.turns.len() >= limits.queued_max
            || self.sending.queued_octets.saturating_add(octets) > limits.queued_octets_max;
        if too_large || full {
            return Err(Status::STOP);
        }
        // RFC 4975 §10.7: after a 415 that type is not sent again in this session.
        if self.sending.refused_types.contains(&bare_type(&message.content_type)) {
            return Err(Status::UNSUPPORTED_TYPE);
        }
        Ok(())
    }

    /// Makes chunks, each message in turn, while the windows and the outbox have room.
    pub(super) fn send_chunks(&mut self, now: Instant, out: &mut Outbox<Output>) {
        self.sending.stalled = false;
        let limits = self.config.limits;
        while self.state != State::New
            && self.sending.under_way < limits.window_octets
            && self.sending.waiting < limits.window_chunks
        {
            let Some(key) = self.sending.turns.front().copied() else { break };
            if out.room() < OUTPUTS_KEPT_FREE {
                self.sending.stalled = true;
                break;
            }
            self.sending.turns.pop_front();
            self.send_chunk(now, key, out);
        }
    }

    fn send_chunk(&mut self, now: Instant, key: Key, out: &mut Outbox<Output>) {
        let others = self.sending.others();
        let Some(message) = self.sending.messages.get_mut(&key) else { return };
        let Some(chunk) = message.chunker.next_chunk() else { return };
        let (waits, reports) = (message.failure_report.waits(), message.failure_report.reports());
        let listens = waits || (reports && others < self.config.limits.transactions_max / 2);
        message.unanswered += usize::from(waits);
        message.open += usize::from(listens);
        let tid = Tid::fresh_for(&mut self.entropy, &chunk.data);
        let frame = frame(&tid, &self.config.remote, self.config.local.as_str(), message, chunk);
        if message.chunker.is_done() {
            self.sending.queued_octets = self.sending.queued_octets.saturating_sub(message.chunker.total());
        } else {
            self.sending.turns.push_back(key);
        }
        self.write(frame, out);
        if listens {
            self.await_answer(now, tid, What::Message(key), waits);
        }
        self.settle(now, key, out);
    }

    fn await_answer(&mut self, now: Instant, tid: Tid, what: What, waits: bool) {
        let at = now + Duration::from_millis(self.config.limits.answer_ms);
        let timer = self.timers.set(at, Due::Answer(tid)).ok();
        let transaction = Transaction { what, timer, waits };
        self.sending.waiting += usize::from(transaction.is_waiting_chunk());
        self.sending.transactions.insert(tid, transaction);
    }

    /// Tells what a message has come to.
    fn settle(&mut self, now: Instant, key: Key, out: &mut Outbox<Output>) {
        let Some(message) = self.sending.messages.get_mut(&key) else { return };
        if !message.chunker.is_done() || message.unanswered > 0 {
            return;
        }
        let newly = !std::mem::replace(&mut message.accepted, true);
        // A message without octets needs a report as well: a first octet stands for it.
        let last = message.chunker.total().max(1);
        let delivered = message.success_report && message.acknowledged.covers(1, last);
        if newly {
            tell(out, Output::Accepted(key));
        }
        if delivered {
            tell(out, Output::Delivered(key));
            self.remove(key);
        } else if message.is_finished() {
            self.remove(key);
        } else if newly && message.success_report {
            self.await_report(now, key, out);
        }
    }

    fn await_report(&mut self, now: Instant, key: Key, out: &mut Outbox<Output>) {
        let limits = self.config.limits;
        if self.sending.awaited_reports.len() >= limits.reports_max
            && let Some(oldest) = self.sending.awaited_reports.front().copied()
        {
            self.forget_report(oldest, out);
        }
        self.sending.awaited_reports.push_back(key);
        let timer = self.timers.set(now + Duration::from_millis(limits.report_ms), Due::Report(key)).ok();
        if let Some(message) = self.sending.messages.get_mut(&key) {
            message.report_timer = timer;
        }
    }

    /// Waits for no success REPORT any longer.
    pub(super) fn forget_report(&mut self, key: Key, out: &mut Outbox<Output>) {
        self.sending.awaits_no_report(key);
        let Some(message) = self.sending.messages.get_mut(&key) else { return };
        message.success_report = false;
        if let Some(timer) = message.report_timer.take() {
            self.timers.cancel(timer);
        }
        if message.is_finished() {
            self.remove(key);
        }
        tell(out, Output::Unreported(key));
    }

    /// Removes a message with its timers.
    fn remove(&mut self, key: Key) -> Option<Message> {
        let (message, timers) = self.sending.remove(key)?;
        for timer in timers {
            self.timers.cancel(timer);
        }
        Some(message)
    }

    /// Gives a message up: by the user, by an answer or by a REPORT. A begun one ends with `#` (RFC 4975 §7.1,
    /// §10.6).
    pub(super) fn abort(&mut self, key: Key, status: Status, out: &mut Outbox<Output>) {
        let Some(mut message) = self.remove(key) else { return };
        if let Some(chunk) = message.chunker.abort() {
            let tid = Tid::fresh(&mut self.entropy);
            let frame = frame(&tid, &self.config.remote, self.config.local.as_str(), &message, chunk);
            self.write(frame, out);
        }
        tell(out, Output::Failed(key, status));
    }

    /// A response. One that nobody waits for is ignored, as are the answers to REPORTs that some peers send.
    pub(super) fn answer(&mut self, now: Instant, head: &Head, out: &mut Outbox<Output>) {
        let crate::Start::Response(status) = head.start() else { return };
        let Some(transaction) = self.sending.take_transaction(head.tid()) else { return };
        if let Some(timer) = transaction.timer {
            self.timers.cancel(timer);
        }
        if !status.breaks_session() {
            self.bound(out);
        }
        match transaction.what {
            What::Probe => {}
            What::Nickname(key) => tell(out, Output::Nickname(key, status)),
            What::Message(key) if status.is_success() => {
                if let Some(message) = self.sending.messages.get_mut(&key) {
                    message.unanswered = message.unanswered.saturating_sub(usize::from(transaction.waits));
                    message.open = message.open.saturating_sub(1);
                }
                self.settle(now, key, out);
            }
            What::Message(key) => {
                if status == Status::UNSUPPORTED_TYPE {
                    self.refuse_type(key);
                }
                self.abort(key, status, out);
            }
        }
        if status.breaks_session() {
            self.end(Ended::Refused(status));
        }
    }

    fn refuse_type(&mut self, key: Key) {
        let Some(message) = self.sending.messages.get(&key) else { return };
        let refused = bare_type(&message.content_type);
        if self.sending.refused_types.len() < REFUSED_TYPES_MAX {
            self.sending.refused_types.push(refused);
        }
    }

    /// No answer within the time (RFC 4975 §7.1.1).
    pub(super) fn unanswered(&mut self, now: Instant, tid: &Tid, out: &mut Outbox<Output>) {
        let Some(transaction) = self.sending.take_transaction(tid) else { return };
        match transaction.what {
            What::Message(key) if transaction.waits => {
                self.remove(key);
                tell(out, Output::Failed(key, Status::TIMEOUT));
            }
            // Failure-Report `partial`: silence is consent.
            What::Message(key) => {
                if let Some(message) = self.sending.messages.get_mut(&key) {
                    message.open = message.open.saturating_sub(1);
                }
                return self.settle(now, key, out);
            }
            What::Nickname(key) => tell(out, Output::Nickname(key, Status::TIMEOUT)),
            What::Probe => {}
        }
        self.end(Ended::Silence);
    }

    /// A REPORT about a message of ours (RFC 4975 §7.1.2).
    pub(super) fn reported(&mut self, now: Instant, head: &Head, out: &mut Outbox<Output>) {
        let Some(status) = head.status() else { return };
        let message_id = head.message_id().to_owned();
        let key = self.sending.ids.get(&message_id).copied();
        tell(out, Output::Reported { message_id, status, awaited: key.is_some() });
        let Some(key) = key else { return };
        if !status.is_success() {
            return self.abort(key, status, out);
        }
        let Some(message) = self.sending.messages.get_mut(&key) else { return };
        let total = message.chunker.total();
        let range = head.byte_range().unwrap_or(ByteRange { start: 1, end: Some(total), total: Some(total) });
        // What was not sent cannot have arrived.
        let last = range.end.unwrap_or(total).min(message.chunker.sent());
        let last = if total == 0 { 1 } else { last };
        // Too many holes: what is beyond them is as if it was not reported.
        let _ = message.acknowledged.insert(range.start, last);
        self.settle(now, key, out);
    }

    /// A SEND without a body: binds, and keeps the path open.
    pub(super) fn keep_alive(&mut self, now: Instant, out: &mut Outbox<Output>) {
        if self.state == State::New || self.sending.others() >= self.config.limits.transactions_max {
            return;
        }
        let (tid, id) = (Tid::fresh(&mut self.entropy), self.entropy.token(100));
        let mut buffer = BytesMut::new();
        self.head(&mut buffer, &tid, Method::Send)
            .message_id(&id)
            .byte_range(ByteRange::EMPTY)
            .end(Flag::Last);
        self.write(SmallVec::from_iter([buffer.freeze()]), out);
        self.await_answer(now, tid, What::Probe, true);
    }

    /// RFC 7701 §7: NICKNAME has no body, and no report headers.
    pub(super) fn ask_nickname(&mut self, now: Instant, key: Key, nickname: &str, out: &mut Outbox<Output>) {
        if self.state == State::New || self.sending.others() >= self.config.limits.transactions_max {
            return tell(out, Output::Nickname(key, Status::TIMEOUT));
        }
        let tid = Tid::fresh(&mut self.entropy);
        let mut buffer = BytesMut::new();
        self.head(&mut buffer, &tid, Method::Nickname).use_nickname(nickname).end(Flag::Last);
        self.write(SmallVec::from_iter([buffer.freeze()]), out);
        self.await_answer(now, tid, What::Nickname(key), true);
    }

    fn head<'b>(&self, buffer: &'b mut BytesMut, tid: &Tid, method: Method) -> HeadWriter<'b> {
        let (to, from) = (self.config.remote.as_bytes(), self.config.local.as_str().as_bytes());
        HeadWriter::request(buffer, tid, method.as_str(), to, from)
    }
}

/// One chunk as head, body and end-line. Every chunk of a message has the same Message-ID and report values
/// (RFC 4975 §7.1.1).
fn frame(tid: &Tid, remote: &crate::Path, local: &str, message: &Message, chunk: Chunk) -> super::Frame {
    let mut buffer = BytesMut::new();
    let mut head =
        HeadWriter::request(&mut buffer, tid, Method::Send.as_str(), remote.as_bytes(), local.as_bytes())
            .message_id(&message.id)
            .success_report(message.success_report)
            .failure_report(message.failure_report)
            .byte_range(chunk.range);
    for (name, value) in &message.headers {
        head = head.header(name.as_bytes(), value.as_bytes());
    }
    if chunk.flag == Flag::Abort {
        head.end(Flag::Abort);
        return SmallVec::from_iter([buffer.freeze()]);
    }
    head.body(message.content_type.as_bytes());
    let head: Bytes = buffer.freeze();
    SmallVec::from_iter([head, chunk.data, crate::end_line(tid, chunk.flag)])
}

/// The type without parameters, without case.
fn bare_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}
