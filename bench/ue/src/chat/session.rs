//! One MSRP session of a device: `msrp`'s endpoint with a single session on a single connection, the answers that
//! its user awaits, and a clock that can be held. Bytes in, bytes out; the connection is in `wire`.
//!
//! ```text
//! a message:  sent ──► accepted ──► reported        both answers, one after the other
//!               │          └──────► forgotten       no report came: that answer never comes
//!               └─────► failed                      what is still awaited is told the status
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use base::{Entropy, Outbox};
use bytes::Bytes;
use msrp::endpoint::{CloseReason, ConnKey, Endpoint, EndpointLimits, Input, Output, Refusal, SessionKey};
use msrp::session::{Command, Config, Ended, Key, Outgoing, Output as News, Received};
use msrp::{ReassemblyLimits, Status};
use tokio::sync::oneshot;

pub use msrp::session::SessionLimits as ChatLimits;

const SESSION: SessionKey = SessionKey(0);
const CONNECTION: ConnKey = ConnKey(0);
/// What the endpoint is given at a time.
const READ_BYTES: usize = 4 << 10;
/// Room for what that may put out ([`Endpoint::handle`]).
const OUTPUTS_MAX: usize = 64 + READ_BYTES / 16;

/// What a device's session holds when nothing else is said: many messages, as a load generator wants it.
pub(crate) fn limits() -> ChatLimits {
    ChatLimits {
        queued_max: 10_000,
        queued_octets_max: 1 << 30,
        window_chunks: 16,
        reports_max: 10_000,
        reassembly: ReassemblyLimits {
            messages_max: 64,
            message_octets_max: 64 << 20,
            octets_max: 256 << 20,
            ended_max: 1024,
            ..ReassemblyLimits::default()
        },
        ..ChatLimits::default()
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

/// What the session tells its listener.
#[derive(Debug)]
pub(crate) enum Told {
    /// The peer answered, or named the session.
    Bound,
    /// A whole message.
    Message(Box<Received>),
    /// A message that came before.
    Repeated,
    /// A REPORT.
    Report { message_id: String, status: u16 },
    /// Something that a peer should not do.
    Fault(String),
}

#[derive(Debug)]
struct Awaited {
    accepted: Option<oneshot::Sender<u16>>,
    reported: Option<oneshot::Sender<u16>>,
}

/// The session's state.
#[derive(Debug)]
pub(crate) struct Session {
    endpoint: Endpoint,
    out: Outbox<Output>,
    clock: Clock,
    entropy: Entropy,
    queue_max: usize,
    next_key: u64,
    messages: BTreeMap<Key, Awaited>,
    nicknames: BTreeMap<Key, oneshot::Sender<u16>>,
    writing: VecDeque<Bytes>,
    told: VecDeque<Told>,
    over: Option<String>,
}

impl Session {
    pub(crate) fn new(config: Config, mut entropy: Entropy) -> Self {
        let endpoint = Endpoint::new(EndpointLimits::default(), entropy.child());
        let mut session = Session {
            endpoint,
            out: Outbox::with_max(OUTPUTS_MAX),
            clock: Clock::new(Instant::now()),
            entropy,
            queue_max: config.limits.queued_max,
            next_key: 0,
            messages: BTreeMap::new(),
            nicknames: BTreeMap::new(),
            writing: VecDeque::new(),
            told: VecDeque::new(),
            over: None,
        };
        session.input(Input::Open(SESSION, Box::new(config)));
        session
    }

    /// We opened the connection: the session is bound by an empty SEND (RFC 4975 §5.4).
    pub(crate) fn connected(&mut self) {
        self.input(Input::Connected(CONNECTION, SESSION));
    }

    /// The peer opened it: its first request binds the session.
    pub(crate) fn accepted(&mut self) {
        self.input(Input::Accepted(CONNECTION));
    }

    /// Takes what the connection read.
    pub(crate) fn read(&mut self, mut bytes: Bytes) {
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(READ_BYTES));
            self.input(Input::Received(CONNECTION, part));
        }
    }

    /// What to write next.
    pub(crate) fn writing(&mut self) -> &mut VecDeque<Bytes> {
        &mut self.writing
    }

    /// So many octets of it are written.
    pub(crate) fn wrote(&mut self, octets: usize) {
        self.input(Input::Drained(CONNECTION, octets as u64));
    }

    /// What there is to tell.
    pub(crate) fn told(&mut self) -> Option<Told> {
        self.told.pop_front()
    }

    /// Why the session is over, once it is.
    pub(crate) fn over(&self) -> Option<&str> {
        self.over.as_deref()
    }

    /// Whether all that was sent is written, or cannot be.
    pub(crate) fn is_all_out(&self) -> bool {
        self.writing.is_empty() && self.endpoint.is_all_out(SESSION)
    }

    /// Queues a message under a Message-ID of ours; `None` when the queue is full.
    pub(crate) fn send(&mut self, message: Outgoing) -> Option<Receipt> {
        if self.messages.len() >= self.queue_max {
            return None;
        }
        let (key, message_id) = (self.key(), self.entropy.token(100));
        let (accepted, on_accepted) = oneshot::channel();
        let (reported, on_reported) = oneshot::channel();
        self.messages.insert(
            key,
            Awaited { accepted: Some(accepted), reported: message.success_report.then_some(reported) },
        );
        let message = Outgoing { key, message_id: Some(message_id.clone()), ..message };
        self.input(Input::Command(SESSION, Command::Send(message)));
        Some(Receipt { message_id, accepted: on_accepted, reported: on_reported })
    }

    /// Asks for a nickname (RFC 7701 §7.1).
    pub(crate) fn nickname(&mut self, nickname: String, answer: oneshot::Sender<u16>) {
        let key = self.key();
        self.nicknames.insert(key, answer);
        self.input(Input::Command(SESSION, Command::Nickname { key, nickname }));
    }

    /// Holds the clock, or lets it go on: who does not read cannot say that nobody answers.
    pub(crate) fn hold(&mut self, on: bool) {
        self.clock.hold(on, Instant::now());
    }

    /// When [`Session::timeout`] wants to be called; never while the clock is held.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.clock.when(self.endpoint.next_timeout()?)
    }

    /// Gives up what was not answered in time.
    pub(crate) fn timeout(&mut self) {
        let now = self.clock.now(Instant::now());
        self.endpoint.timeout(now, &mut self.out);
        self.settle(now);
    }

    fn key(&mut self) -> Key {
        self.next_key += 1;
        Key(self.next_key)
    }

    fn input(&mut self, input: Input) {
        let now = self.clock.now(Instant::now());
        self.endpoint.handle(now, input, &mut self.out);
        self.settle(now);
    }

    /// Takes what the endpoint put out, and lets it go on where it stopped for want of room.
    fn settle(&mut self, now: base::Instant) {
        loop {
            while let Some(output) = self.out.pop() {
                self.output(output);
            }
            if self.endpoint.next_timeout().is_none_or(|at| at > now) {
                return;
            }
            self.endpoint.timeout(now, &mut self.out);
        }
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Write(_, frame) => self.writing.extend(frame),
            Output::Close(_, why) => self.end(match why {
                CloseReason::Broken(why) => format!("MSRP framing: {why}"),
                CloseReason::Unnamed => "no request named the session in time".to_owned(),
                CloseReason::Unused | CloseReason::Full => "no session".to_owned(),
            }),
            Output::Session(_, news) => self.news(news),
            Output::Refused(_, Refusal::Bad(why)) => {
                self.told.push_back(Told::Fault(format!("bad MSRP head: {why}")));
            }
            // The sender hears of it.
            Output::Refused(_, Refusal::NoSession | Refusal::OtherConnection) => {}
        }
    }

    fn news(&mut self, news: News) {
        match news {
            // The endpoint keeps these to itself.
            News::Write(_) => {}
            News::Bound => self.told.push_back(Told::Bound),
            News::Received(received) => self.told.push_back(Told::Message(received)),
            News::Repeated(_) => self.told.push_back(Told::Repeated),
            News::Dropped(_) => {}
            News::Accepted(key) => {
                if let Some(message) = self.messages.get_mut(&key) {
                    answer(&mut message.accepted, Status::OK);
                    if message.reported.is_none() {
                        self.messages.remove(&key);
                    }
                }
            }
            News::Delivered(key) => self.finish(key, Status::OK),
            News::Unreported(key) => {
                self.messages.remove(&key);
            }
            News::Failed(key, status) => self.finish(key, status),
            News::Reported { message_id, status, awaited } => {
                // A failure may be learned long after the 200 (RFC 4975 §7.1.2); a success that nobody asked for
                // is odd.
                self.told.push_back(if status.is_success() && !awaited {
                    Told::Fault("a success REPORT about a message that waits for none".to_owned())
                } else {
                    Told::Report { message_id, status: status.0 }
                });
            }
            News::Nickname(key, status) => answer(&mut self.nicknames.remove(&key), status),
            News::Ended(why) => self.end(match why {
                Ended::Closed => "closed by us".to_owned(),
                Ended::Disconnected => "the connection is gone".to_owned(),
                Ended::NotBound => "nobody bound the session in time".to_owned(),
                Ended::Silence => "no answer in time".to_owned(),
                Ended::Refused(status) => format!("the peer answered {status}"),
            }),
        }
    }

    /// Tells a status to whoever still waits for one.
    fn finish(&mut self, key: Key, status: Status) {
        if let Some(mut message) = self.messages.remove(&key) {
            answer(&mut message.accepted, status);
            answer(&mut message.reported, status);
        }
    }

    fn end(&mut self, why: String) {
        self.over.get_or_insert(why);
    }
}

fn answer(waits: &mut Option<oneshot::Sender<u16>>, status: Status) {
    if let Some(waits) = waits.take() {
        // Nobody has to listen.
        let _ = waits.send(status.0);
    }
}

/// The machine's time: it stands still while the clock is held.
#[derive(Debug)]
struct Clock {
    origin: Instant,
    held: Option<base::Instant>,
}

impl Clock {
    fn new(origin: Instant) -> Self {
        Clock { origin, held: None }
    }

    fn now(&self, wall: Instant) -> base::Instant {
        self.held.unwrap_or_else(|| base::Instant::ZERO + wall.saturating_duration_since(self.origin))
    }

    fn hold(&mut self, on: bool, wall: Instant) {
        let now = self.now(wall);
        self.held = on.then_some(now);
        if !on {
            // It goes on where it stood.
            let passed = now.since(base::Instant::ZERO);
            self.origin = wall.checked_sub(passed).unwrap_or(self.origin);
        }
    }

    fn when(&self, at: base::Instant) -> Option<Instant> {
        let passed: Duration = at.since(base::Instant::ZERO);
        if self.held.is_some() { None } else { self.origin.checked_add(passed) }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
