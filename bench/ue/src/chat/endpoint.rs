//! One MSRP session as its endpoint sees it: chunks out, messages in, responses, reports (RFC 4975 §5, §7).
//! Bytes in, bytes out; the connection is in `wire`.
//!
//! ```text
//! out:  queued ──► chunk, chunk, … $ ──► every chunk answered 200 ──► accepted ──► REPORTs cover all ──► reported
//!                        │ error or 30 s without an answer: failed (a started message ends with #)
//! in:   first chunk ──► octets by their ranges ──► $ and no hole ──► message, 200, REPORT if wanted
//!                        │ #: forgotten
//! ```

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use base::Entropy;
use bytes::{Bytes, BytesMut};
use msrp::{
    ByteRange, Event as Frame, FailureReport, Flag, Framer, Head, HeadWriter, Limits, Method, Path, Start,
    Status, Tid,
};
use tokio::sync::oneshot;

use super::ranges::Ranges;

/// RFC 4975 §7.1.1: how long a response may take.
const RESPONSE: Duration = Duration::from_secs(30);
/// RFC 4975 §7.1.1: longer chunks must be interruptible.
const INTERRUPTIBLE: usize = 2048;
/// Unfinished messages of one peer.
const INCOMING_MAX: usize = 64;
/// Message-IDs remembered, to know a repeated message.
const REMEMBERED_MAX: usize = 1024;

/// What one endpoint may hold.
#[derive(Clone, Debug)]
pub struct ChatLimits {
    /// Octets of one message that is received.
    pub message_bytes_max: usize,
    /// Octets of one chunk that is sent.
    pub chunk_bytes: usize,
    /// Chunks that may wait for their response.
    pub window: usize,
    /// Messages that may wait to be sent.
    pub queue_max: usize,
}

impl Default for ChatLimits {
    fn default() -> Self {
        ChatLimits { message_bytes_max: 64 << 20, chunk_bytes: 16 << 10, window: 16, queue_max: 10_000 }
    }
}

/// A message to send.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// MIME type, usually `message/cpim`.
    pub content_type: String,
    /// Its octets.
    pub body: Bytes,
    /// Ask the far end for a REPORT when it has the whole message.
    pub success_report: bool,
    /// Which failures to tell.
    pub failure_report: FailureReport,
}

impl Outgoing {
    /// A message with a success report and failure reports.
    pub fn new(content_type: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Outgoing {
            content_type: content_type.into(),
            body: body.into(),
            success_report: true,
            failure_report: FailureReport::Yes,
        }
    }
}

/// An answer that comes later: a status.
pub type Answered = oneshot::Receiver<u16>;

/// How a sent message fared: both answers come once, or never if the session ends.
#[derive(Debug)]
pub struct Receipt {
    /// Its Message-ID.
    pub message_id: String,
    /// 200 when every chunk was taken by the next hop, or what it said; 408 for silence.
    pub accepted: Answered,
    /// The status of the REPORTs: 200 when they cover the whole message.
    pub reported: Answered,
}

/// What the endpoint tells.
#[derive(Debug)]
pub(crate) enum Told {
    /// A whole message.
    Message { content_type: String, body: Bytes },
    /// A message that came before.
    Repeated,
    /// The peer gave a message up.
    Aborted,
    /// A REPORT.
    Report { message_id: String, status: u16 },
    /// The first request of the peer came: the session is bound.
    Bound,
    /// Something that a peer should not do.
    Fault(String),
}

/// The bytes cannot be read any longer: close.
#[derive(Debug, thiserror::Error)]
#[error("MSRP framing: {0}")]
pub(crate) struct Broken(msrp::Broken);

#[derive(Debug)]
struct Sending {
    message_id: String,
    message: Outgoing,
    offset: usize,
    waiting: usize,
    covered: Ranges,
    failed: Option<u16>,
    accepted: Option<oneshot::Sender<u16>>,
    reported: Option<oneshot::Sender<u16>>,
}

#[derive(Debug)]
struct Incoming {
    content_type: String,
    data: Vec<u8>,
    have: Ranges,
    total: Option<u64>,
}

#[derive(Debug)]
struct Current {
    head: Head,
    at: u64,
    /// What the chunk is answered with; its body is thrown away unless this is 200.
    status: Status,
}

enum Transaction {
    Chunk { message_id: String, deadline: Instant },
    Nickname { answer: oneshot::Sender<u16>, deadline: Instant },
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Transaction")
    }
}

/// The endpoint's state.
#[derive(Debug)]
pub(crate) struct Endpoint {
    limits: ChatLimits,
    entropy: Entropy,
    local: Path,
    remote: Path,
    framer: Framer,
    current: Option<Current>,
    bound: bool,
    incoming: HashMap<String, Incoming>,
    remembered: VecDeque<String>,
    /// Responses, reports and requests without a body: they go before chunks.
    urgent: VecDeque<Bytes>,
    sending: VecDeque<Sending>,
    /// Messages whose chunks are all out, by Message-ID.
    sent: HashMap<String, Sending>,
    transactions: HashMap<Tid, Transaction>,
    told: VecDeque<Told>,
}

impl Endpoint {
    pub(crate) fn new(local: Path, remote: Path, limits: ChatLimits, entropy: Entropy) -> Self {
        Endpoint {
            limits,
            entropy,
            local,
            remote,
            framer: Framer::new(Limits::default()),
            current: None,
            bound: false,
            incoming: HashMap::new(),
            remembered: VecDeque::new(),
            urgent: VecDeque::new(),
            sending: VecDeque::new(),
            sent: HashMap::new(),
            transactions: HashMap::new(),
            told: VecDeque::new(),
        }
    }

    /// What there is to tell.
    pub(crate) fn told(&mut self) -> Option<Told> {
        self.told.pop_front()
    }

    /// The SEND without a body that binds a fresh connection to the session (RFC 4975 §5.4; the active side).
    pub(crate) fn bind(&mut self) {
        let tid = Tid::fresh(&mut self.entropy);
        let message_id = self.entropy.token(80);
        let mut buffer = BytesMut::new();
        HeadWriter::request(&mut buffer, &tid, "SEND", self.remote.as_bytes(), self.local.as_bytes())
            .message_id(&message_id)
            .byte_range(ByteRange::EMPTY)
            .end(Flag::Last);
        self.urgent.push_back(buffer.freeze());
    }

    /// Queues a message; `None` when the queue is full.
    pub(crate) fn send(&mut self, message: Outgoing) -> Option<Receipt> {
        if self.unfinished() >= self.limits.queue_max {
            return None;
        }
        let message_id = self.entropy.token(100);
        let (accepted, on_accepted) = oneshot::channel();
        let (reported, on_reported) = oneshot::channel();
        self.sending.push_back(Sending {
            message_id: message_id.clone(),
            message,
            offset: 0,
            waiting: 0,
            covered: Ranges::default(),
            failed: None,
            accepted: Some(accepted),
            reported: Some(reported),
        });
        Some(Receipt { message_id, accepted: on_accepted, reported: on_reported })
    }

    /// Asks for a nickname (RFC 7701 §7.1).
    pub(crate) fn nickname(&mut self, nickname: &str, now: Instant, answer: oneshot::Sender<u16>) {
        let tid = Tid::fresh(&mut self.entropy);
        let mut buffer = BytesMut::new();
        HeadWriter::request(&mut buffer, &tid, "NICKNAME", self.remote.as_bytes(), self.local.as_bytes())
            .use_nickname(nickname)
            .end(Flag::Last);
        self.urgent.push_back(buffer.freeze());
        self.transactions.insert(tid, Transaction::Nickname { answer, deadline: now + RESPONSE });
    }

    /// The next bytes for the connection; `None` when there is nothing to send now.
    pub(crate) fn next_write(&mut self, now: Instant) -> Option<Vec<Bytes>> {
        if let Some(urgent) = self.urgent.pop_front() {
            return Some(vec![urgent]);
        }
        if self.transactions.len() >= self.limits.window {
            return None;
        }
        let sending = self.sending.front_mut()?;
        let (head, body, end, done) =
            chunk(sending, &self.limits, &mut self.entropy, &self.remote, &self.local);
        if sending.message.failure_report.waits() && sending.failed.is_none() {
            sending.waiting += 1;
            let transaction =
                Transaction::Chunk { message_id: sending.message_id.clone(), deadline: now + RESPONSE };
            self.transactions.insert(head.1, transaction);
        }
        if done && let Some(sending) = self.sending.pop_front() {
            self.all_out(sending);
        }
        Some(vec![head.0, body, end])
    }

    fn all_out(&mut self, mut sending: Sending) {
        if sending.waiting == 0 {
            sending.tell_accepted();
        }
        let wants_more = sending.waiting > 0 || (sending.message.success_report && sending.failed.is_none());
        if wants_more {
            self.sent.insert(sending.message_id.clone(), sending);
        }
    }

    /// When [`Endpoint::timeout`] wants to be called.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.transactions.values().map(Transaction::deadline).min()
    }

    /// Gives up what was not answered in time.
    pub(crate) fn timeout(&mut self, now: Instant) {
        let late: Vec<Tid> =
            self.transactions.iter().filter(|(_, t)| t.deadline() <= now).map(|(tid, _)| *tid).collect();
        for tid in late {
            self.answered(&tid, Status::TIMEOUT);
        }
    }

    /// Messages that are queued or not yet answered.
    fn unfinished(&self) -> usize {
        self.sending.len() + self.sent.len()
    }

    fn message(&mut self, message_id: &str) -> Option<&mut Sending> {
        match self.sent.get_mut(message_id) {
            Some(sending) => Some(sending),
            None => self.sending.iter_mut().find(|s| s.message_id == message_id),
        }
    }

    fn answered(&mut self, tid: &Tid, status: Status) {
        match self.transactions.remove(tid) {
            Some(Transaction::Nickname { answer, .. }) => {
                let _ = answer.send(status.0);
            }
            Some(Transaction::Chunk { message_id, .. }) => {
                let Some(sending) = self.message(&message_id) else { return };
                sending.waiting = sending.waiting.saturating_sub(1);
                if !status.is_success() {
                    sending.failed = sending.failed.or(Some(status.0));
                }
                let over = sending.waiting == 0 && sending.offset >= sending.message.body.len();
                if over || sending.failed.is_some() {
                    sending.tell_accepted();
                }
                let finished = over
                    && (!sending.message.success_report
                        || sending.reported.is_none()
                        || sending.failed.is_some());
                if finished {
                    self.sent.remove(&message_id);
                }
            }
            // Responses to an empty SEND, to a message without a timer, or late ones.
            None => {}
        }
    }

    /// Takes what the connection read.
    pub(crate) fn read(&mut self, mut bytes: Bytes) -> Result<(), Broken> {
        while let Some(frame) = self.framer.next(&mut bytes).map_err(Broken)? {
            match frame {
                Frame::Head(head) => self.head(head),
                Frame::Body(span) => self.body(&span),
                Frame::End(flag) => self.end(flag),
                Frame::Bad(bad) => {
                    self.told.push_back(Told::Fault(format!("bad MSRP head: {}", bad.reason)));
                    self.urgent.extend(bad.answer());
                }
            }
        }
        Ok(())
    }

    fn head(&mut self, head: Head) {
        let status = match head.start() {
            Start::Response(_) => Status::OK,
            Start::Request(_) if !self.is_for_us(&head) => Status::NO_SESSION,
            Start::Request(Method::Send) if head.has_body() => self.admit(&head),
            Start::Request(Method::Send | Method::Report) => Status::OK,
            Start::Request(_) => Status::UNKNOWN_METHOD,
        };
        let at = head.byte_range().map_or(1, |range| range.start);
        self.current = Some(Current { head, at, status });
    }

    fn is_for_us(&self, head: &Head) -> bool {
        match (head.to_path().first(), self.local.view().first()) {
            (Some(to), Some(own)) => to.matches(&own),
            _ => false,
        }
    }

    fn admit(&mut self, head: &Head) -> Status {
        let id = head.message_id();
        if self.remembered.iter().any(|r| r == id) {
            return Status::OK;
        }
        let total = head.byte_range().and_then(|range| range.total);
        if total.is_some_and(|total| total > self.limits.message_bytes_max as u64) {
            return Status::STOP;
        }
        if !self.incoming.contains_key(id) {
            if self.incoming.len() >= INCOMING_MAX {
                return Status::STOP;
            }
            let content_type = head.content_type().unwrap_or_default().to_owned();
            let incoming = Incoming { content_type, data: Vec::new(), have: Ranges::default(), total };
            self.incoming.insert(id.to_owned(), incoming);
        }
        Status::OK
    }

    fn body(&mut self, span: &[u8]) {
        let Some(current) = &mut self.current else { return };
        let from = current.at;
        current.at = current.at.saturating_add(span.len() as u64);
        if current.status != Status::OK {
            return;
        }
        if current.at > self.limits.message_bytes_max as u64 + 1 {
            current.status = Status::STOP;
            self.incoming.remove(current.head.message_id());
            return;
        }
        if let Some(incoming) = self.incoming.get_mut(current.head.message_id()) {
            // Overlapping ranges are legal: the last received octets count (RFC 4975 §7.3.1).
            let (start, end) = (from.saturating_sub(1) as usize, current.at.saturating_sub(1) as usize);
            if incoming.data.len() < end {
                incoming.data.resize(end, 0);
            }
            if let Some(place) = incoming.data.get_mut(start..end) {
                place.copy_from_slice(span);
            }
            incoming.have.add(from, current.at.saturating_sub(1));
        }
    }

    fn end(&mut self, flag: Flag) {
        let Some(current) = self.current.take() else { return };
        match current.head.start() {
            Start::Response(status) => self.answered(&current.head.tid().to_owned(), status),
            Start::Request(Method::Report) => self.report(&current.head),
            Start::Request(Method::Send) => {
                if !self.bound && current.status == Status::OK {
                    self.bound = true;
                    self.told.push_back(Told::Bound);
                }
                self.urgent.extend(msrp::response(&current.head, current.status));
                if current.head.has_body() && current.status == Status::OK {
                    self.chunk_in(&current, flag);
                }
            }
            Start::Request(_) => self.urgent.extend(msrp::response(&current.head, current.status)),
        }
    }

    fn chunk_in(&mut self, current: &Current, flag: Flag) {
        let id = current.head.message_id();
        if flag == Flag::Abort {
            if self.incoming.remove(id).is_some() {
                self.told.push_back(Told::Aborted);
            }
            return;
        }
        let last = current.at.saturating_sub(1);
        let Some(incoming) = self.incoming.get_mut(id) else {
            if flag == Flag::Last {
                self.told.push_back(Told::Repeated);
                // A repeated message is answered and reported like the first (RFC 4975 §7.3.1).
                self.report_success(&current.head, last);
            }
            return;
        };
        if flag == Flag::Last {
            // The chunk with `$` holds the final octet: it defines the length (RFC 4975 §7.1.1).
            incoming.total = Some(last);
        }
        let whole = flag == Flag::Last && incoming.have.covers(last) || {
            incoming.total.is_some_and(|total| total > 0 && incoming.have.covers(total))
        };
        if !whole {
            return;
        }
        let Some(mut incoming) = self.incoming.remove(id) else { return };
        let total = incoming.total.unwrap_or(last);
        incoming.data.truncate(usize::try_from(total).unwrap_or(usize::MAX));
        if self.remembered.len() >= REMEMBERED_MAX {
            self.remembered.pop_front();
        }
        self.remembered.push_back(id.to_owned());
        self.report_success(&current.head, total);
        self.told.push_back(Told::Message {
            content_type: incoming.content_type,
            body: Bytes::from(incoming.data),
        });
    }

    fn report_success(&mut self, head: &Head, total: u64) {
        if head.success_report() {
            let tid = Tid::fresh(&mut self.entropy);
            self.urgent.push_back(msrp::report(&tid, head, ByteRange::new(1, total, total), Status::OK));
        }
    }

    fn report(&mut self, head: &Head) {
        let (Some(status), Some(range)) = (head.status(), head.byte_range()) else {
            self.told.push_back(Told::Fault("REPORT without Status or Byte-Range".to_owned()));
            return;
        };
        let id = head.message_id().to_owned();
        let Some(sending) = self.message(&id) else {
            // A failure may be learned long after the 200 (RFC 4975 §7.1.2); a success that nobody asked for is odd.
            self.told.push_back(if status.is_success() {
                Told::Fault("a success REPORT about a message that waits for none".to_owned())
            } else {
                Told::Report { message_id: id, status: status.0 }
            });
            return;
        };
        let total = sending.message.body.len() as u64;
        let end = range.end.unwrap_or(total).min(total);
        if status.is_success() {
            sending.covered.add(range.start, end);
        }
        let covered = sending.covered.length();
        if (!status.is_success() || covered >= total)
            && let Some(reported) = sending.reported.take()
        {
            let _ = reported.send(status.0);
        }
        if sending.reported.is_none() && sending.waiting == 0 && sending.offset >= sending.message.body.len()
        {
            self.sent.remove(&id);
        }
        self.told.push_back(Told::Report { message_id: id, status: status.0 });
    }
}

impl Transaction {
    fn deadline(&self) -> Instant {
        match self {
            Transaction::Chunk { deadline, .. } | Transaction::Nickname { deadline, .. } => *deadline,
        }
    }
}

impl Sending {
    fn tell_accepted(&mut self) {
        if let Some(accepted) = self.accepted.take() {
            let _ = accepted.send(self.failed.unwrap_or(200));
        }
    }
}

type Chunk = ((Bytes, Tid), Bytes, Bytes, bool);

/// The next chunk of a message: head, body, end-line, and whether it is the last.
fn chunk(sending: &mut Sending, limits: &ChatLimits, entropy: &mut Entropy, to: &Path, from: &Path) -> Chunk {
    let body = &sending.message.body;
    let total = body.len();
    // A failed message that has begun is taken back with an empty last chunk and `#`.
    let take =
        if sending.failed.is_some() { 0 } else { limits.chunk_bytes.max(1).min(total - sending.offset) };
    let start = sending.offset;
    let end = start + take;
    let part = body.slice(start..end);
    // RFC 4975 §7.1: no body may hold its own end-line.
    let mut tid = Tid::fresh(entropy);
    while memchr_end_line(&part, &tid) {
        tid = Tid::fresh(entropy);
    }
    let range = ByteRange {
        start: start as u64 + 1,
        end: (take <= INTERRUPTIBLE).then_some(end as u64),
        total: Some(total as u64),
    };
    let mut head = BytesMut::new();
    HeadWriter::request(&mut head, &tid, "SEND", to.as_bytes(), from.as_bytes())
        .message_id(&sending.message_id)
        .success_report(sending.message.success_report)
        .failure_report(sending.message.failure_report)
        .byte_range(range)
        .body(sending.message.content_type.as_bytes());
    let flag = match (sending.failed, end == total) {
        (Some(_), _) => Flag::Abort,
        (None, true) => Flag::Last,
        (None, false) => Flag::More,
    };
    sending.offset = if flag == Flag::More { end } else { total };
    ((head.freeze(), tid), part, msrp::end_line(&tid, flag), flag != Flag::More)
}

fn memchr_end_line(part: &[u8], tid: &Tid) -> bool {
    part.windows(7 + tid.as_bytes().len()).any(|w| w.starts_with(b"-------") && w.ends_with(tid.as_bytes()))
}

#[cfg(test)]
#[path = "endpoint_tests.rs"]
mod tests;
