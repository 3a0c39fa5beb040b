//! One MSRP session at an endpoint, sans-IO (RFC 4975 §5, §7).
//!
//! ```text
//!  the session                                   one message that is sent
//!
//!   New ── Connected, active: empty SEND ─┐       Queued ──► Sending ──► Waiting ──► Accepted
//!    │                                    ▼          │  chunks out │  answers out │      │ Success-Report
//!    └── first request, passive ───────► Bound       │             │              │      ▼
//!                                         │          └─────────────┴── Failed ◄───┤   Reported ──► Delivered
//!   any ── 481, 506, 408, silence, lost ─►Ended            (# if begun)           └───────┘
//! ```
//!
//! The session sees only what is its own: [`crate::endpoint::Endpoint`] keeps connections, cuts bytes into
//! events and finds the session. Bytes to write come as [`Output::Write`], one message each; the driver says
//! [`Input::Drained`] when they are gone, and chunks are only made while less than the window is under way, so
//! that answers and other messages are never behind more than that (RFC 4975 §7.1.1 on interrupting chunks).

mod receiving;
mod sending;

use std::time::Duration;

use base::{Budget, Entropy, Instant, Outbox, TimerId, Timers};
use bytes::Bytes;
use smallvec::SmallVec;

use crate::reassembly::{Reassembly, ReassemblyLimits, Whole};
use crate::{ByteRange, Event, FailureReport, Head, MsrpUri, Path, Status};
use receiving::Arriving;
use sending::{Sending, What};

/// The name that the user of a session gave to a message or other request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key(pub u64);

/// Which end opens the connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// This one. It sends a SEND at once, so that the other end can bind (RFC 4975 §5.4).
    Active,
    /// The other one.
    Passive,
}

/// What a session holds and waits for at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionLimits {
    /// Messages that wait or are being sent.
    pub queued_max: usize,
    /// Octets of their bodies.
    pub queued_octets_max: u64,
    /// Requests that wait for an answer.
    pub transactions_max: usize,
    /// Messages that wait for a success REPORT after they were accepted; the oldest is forgotten.
    pub reports_max: usize,
    /// Octets given to the driver and not yet drained, above which no chunk is made.
    pub window_octets: u64,
    /// Octets of one chunk.
    pub chunk_octets: usize,
    /// How long an answer may take (RFC 4975 §7.1.1), milliseconds.
    pub answer_ms: u64,
    /// How long the binding may take, milliseconds.
    pub bind_ms: u64,
    /// How long a success REPORT is waited for, milliseconds.
    pub report_ms: u64,
    /// How long a message may pause between chunks, milliseconds (RFC 7701 §6.1 speaks of 540 s).
    pub pause_ms: u64,
    /// What may arrive.
    pub reassembly: ReassemblyLimits,
}

impl Default for SessionLimits {
    fn default() -> Self {
        SessionLimits {
            queued_max: 256,
            queued_octets_max: 256 << 20,
            transactions_max: 256,
            reports_max: 256,
            window_octets: 64 << 10,
            chunk_octets: 16 << 10,
            answer_ms: 30_000,
            bind_ms: 30_000,
            report_ms: 600_000,
            pause_ms: 540_000,
            reassembly: ReassemblyLimits::default(),
        }
    }
}

impl SessionLimits {
    /// Memory that sessions may hold, as rows.
    pub fn budget(&self, sessions_max: u64) -> Budget {
        let mut budget = self.reassembly.budget(sessions_max);
        budget.row("msrp messages to send", sessions_max, self.queued_octets_max);
        budget
    }
}

/// What SDP settled.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our a=path.
    pub local: MsrpUri,
    /// The peer's a=path.
    pub remote: Path,
    /// Who connects.
    pub role: Role,
    /// Types that we take: `type/subtype`, `type/*` or `*`. A container that is none of them is taken when it
    /// is multipart/mixed or multipart/alternative (RFC 4975 §8.6); what is in it is the user's business.
    pub accept_types: Vec<String>,
    /// The peer's a=max-size, octets.
    pub peer_octets_max: Option<u64>,
    /// Answer `Success-Report: yes` by ourselves when a message is whole; otherwise by [`Command::Report`].
    pub report_success: bool,
    /// Limits.
    pub limits: SessionLimits,
}

impl Config {
    /// With the usual limits; every type is taken.
    pub fn new(local: MsrpUri, remote: Path, role: Role) -> Self {
        Config {
            local,
            remote,
            role,
            accept_types: vec!["*".to_owned()],
            peer_octets_max: None,
            report_success: true,
            limits: SessionLimits::default(),
        }
    }
}

/// A message to send.
#[derive(Clone)]
pub struct Outgoing {
    /// The user's name for it.
    pub key: Key,
    /// Content-Type with its parameters.
    pub content_type: String,
    /// The content.
    pub body: Bytes,
    /// Message-ID; drawn when absent. A repetition after a failure keeps it (RFC 4975 §7.1.2).
    pub message_id: Option<String>,
    /// Ask for a success REPORT.
    pub success_report: bool,
    /// Failure-Report.
    pub failure_report: FailureReport,
    /// Lines besides.
    pub headers: Vec<(String, String)>,
}

impl Outgoing {
    /// With the defaults of RFC 4975: failures are reported, success is not.
    pub fn new(key: Key, content_type: &str, body: Bytes) -> Self {
        Outgoing {
            key,
            content_type: content_type.to_owned(),
            body,
            message_id: None,
            success_report: false,
            failure_report: FailureReport::Yes,
            headers: Vec::new(),
        }
    }
}

/// Content stays out of logs.
impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outgoing({:?}, {} octets)", self.key, self.body.len())
    }
}

/// What the user of a session wants.
#[derive(Clone, Debug)]
pub enum Command {
    /// Send a message.
    Send(Outgoing),
    /// Give a message up; `#` goes out if it was begun.
    Abort(Key),
    /// Ask for a nickname; the empty one gives it up (RFC 7701 §7).
    Nickname {
        /// The user's name for the request.
        key: Key,
        /// The nickname.
        nickname: String,
    },
    /// An empty SEND that keeps the path open (CPM-FACTS §3.3).
    KeepAlive,
    /// Report what became of a message that arrived. Nothing is sent when its sender does not want to know.
    Report(Box<Received>, Status),
    /// Fail everything and forget.
    End,
}

/// What happens to a session.
#[derive(Clone, Debug)]
pub enum Input {
    /// There is a connection: ours for an active session, the one that named a passive session in its first
    /// request.
    Connected,
    /// A part of a message that is the session's own.
    Event(Event),
    /// The driver wrote so many octets of what it was given.
    Drained(u64),
    /// The connection is gone.
    Disconnected,
    /// The user speaks.
    Command(Command),
}

/// One MSRP message in pieces, to be written in order.
pub type Frame = SmallVec<[Bytes; 3]>;

/// A message that arrived whole.
#[derive(Clone, Debug)]
pub struct Received {
    /// What it is.
    pub message: Whole,
    /// The head of its last chunk: where reports go, and which are wanted.
    pub head: Head,
}

/// Why a session ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Ended {
    /// The user ended it.
    Closed,
    /// The connection is gone.
    Disconnected,
    /// Nobody bound it in time.
    NotBound,
    /// An answer did not come in time (RFC 4975 §7.1.1).
    Silence,
    /// The peer answered 408, 481 or 506.
    Refused(Status),
}

/// What a session wants done, and what it tells.
#[derive(Clone, Debug)]
pub enum Output {
    /// Write this.
    Write(Frame),
    /// The peer answered, or named the session: it is up.
    Bound,
    /// A message is here.
    Received(Box<Received>),
    /// A message that was arriving will not be whole: given up by its sender, or paused too long.
    Dropped(String),
    /// Every chunk went out and got its 200, where one is due.
    Accepted(Key),
    /// Success REPORTs cover the message.
    Delivered(Key),
    /// A message failed: an answer, a REPORT, or our own limits.
    Failed(Key, Status),
    /// The answer to a nickname.
    Nickname(Key, Status),
    /// It is over. Everything that waited has failed before.
    Ended(Ended),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    New,
    Connected,
    Bound,
    Ended,
}

/// What a timer is for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Due {
    Bind,
    Answer(crate::Tid),
    Report(Key),
    Pause,
}

/// Outputs that one input may cause besides chunks: an answer, a report, an event, and the end.
const OUTPUTS_KEPT_FREE: usize = 8;

/// One MSRP session.
#[derive(Debug)]
pub struct Session {
    config: Config,
    state: State,
    entropy: Entropy,
    timers: Timers<Due>,
    bind_timer: Option<TimerId>,
    pause_timer: Option<TimerId>,
    sending: Sending,
    arriving: Arriving,
    /// Why it ends; what waited is told to have failed before.
    ending: Option<Ended>,
}

impl Session {
    /// A session that waits for its connection. Call [`Session::start`] next.
    pub fn new(config: Config, entropy: Entropy) -> Self {
        let limits = config.limits;
        // One timer each: transactions, reports awaited, binding, pause.
        let timers = Timers::with_max(limits.transactions_max + limits.reports_max + 2);
        Session {
            sending: Sending::new(),
            arriving: Arriving::new(Reassembly::new(limits.reassembly)),
            config,
            state: State::New,
            entropy,
            timers,
            bind_timer: None,
            pause_timer: None,
            ending: None,
        }
    }

    /// Starts the clock for the binding.
    pub fn start(&mut self, now: Instant) {
        let at = now + Duration::from_millis(self.config.limits.bind_ms);
        self.bind_timer = self.timers.set(at, Due::Bind).ok();
    }

    /// What SDP settled.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// True until it ended.
    pub fn is_alive(&self) -> bool {
        self.state != State::Ended
    }

    fn is_ending(&self) -> bool {
        self.ending.is_some() || self.state == State::Ended
    }

    /// Makes what there is room for: the rest of the end, or chunks.
    fn pump(&mut self, now: Instant, out: &mut Outbox<Output>) {
        match self.ending {
            Some(_) if self.state == State::Ended => {}
            Some(why) => self.finish(why, out),
            None => self.send_chunks(now, out),
        }
    }

    /// Takes an input. `out` should have room for 8 outputs; chunks use what is beyond that.
    pub fn handle(&mut self, now: Instant, input: Input, out: &mut Outbox<Output>) {
        match input {
            _ if self.is_ending() => {}
            Input::Connected => self.connected(now, out),
            Input::Event(event) => self.event(now, event, out),
            Input::Drained(octets) => self.sending.drained(octets),
            Input::Disconnected => self.end(Ended::Disconnected),
            Input::Command(command) => self.command(now, command, out),
        }
        self.pump(now, out);
    }

    /// Fires what is due.
    pub fn timeout(&mut self, now: Instant, out: &mut Outbox<Output>) {
        while !self.is_ending() && out.room() >= OUTPUTS_KEPT_FREE {
            let Some(due) = self.timers.pop(now) else { break };
            match due {
                Due::Bind => {
                    if self.state != State::Bound {
                        self.end(Ended::NotBound);
                    }
                }
                Due::Answer(tid) => self.unanswered(now, &tid, out),
                Due::Report(key) => self.sending.forget_report(key),
                Due::Pause => self.sweep(now, out),
            }
        }
        self.pump(now, out);
    }

    /// When to call [`Session::timeout`] at the latest.
    pub fn next_timeout(&self) -> Option<Instant> {
        let telling = self.ending.is_some() && self.state != State::Ended;
        // A full outbox stopped us: as soon as possible.
        if telling || self.sending.is_stalled() { Some(Instant::ZERO) } else { self.timers.next_timeout() }
    }

    fn connected(&mut self, now: Instant, out: &mut Outbox<Output>) {
        if self.state != State::New {
            return;
        }
        self.state = State::Connected;
        match self.config.role {
            // RFC 4975 §5.4: at once, even with nothing to say.
            Role::Active => self.keep_alive(now, out),
            // The request that named the session is the binding.
            Role::Passive => self.bound(out),
        }
    }

    fn bound(&mut self, out: &mut Outbox<Output>) {
        if matches!(self.state, State::New | State::Connected) {
            self.state = State::Bound;
            if let Some(timer) = self.bind_timer.take() {
                self.timers.cancel(timer);
            }
            tell(out, Output::Bound);
        }
    }

    fn command(&mut self, now: Instant, command: Command, out: &mut Outbox<Output>) {
        match command {
            Command::Send(message) => self.queue(message, out),
            Command::Abort(key) => self.abort(key, Status::STOP, out),
            Command::Nickname { key, nickname } => self.ask_nickname(now, key, &nickname, out),
            Command::KeepAlive => self.keep_alive(now, out),
            Command::Report(received, status) => self.report(&received, status, out),
            Command::End => self.end(Ended::Closed),
        }
    }

    fn event(&mut self, now: Instant, event: Event, out: &mut Outbox<Output>) {
        match event {
            Event::Head(head) => match head.method() {
                Some(_) => {
                    self.bound(out);
                    self.request(now, head, out);
                }
                None => self.answer(now, &head, out),
            },
            Event::Body(span) => self.body(&span, out),
            Event::End(flag) => self.end_line(now, flag, out),
            Event::Bad(bad) => {
                if let Some(answer) = bad.answer() {
                    self.write(SmallVec::from_iter([answer]), out);
                }
            }
        }
    }

    fn end(&mut self, why: Ended) {
        self.ending.get_or_insert(why);
        self.timers = Timers::with_max(0);
    }

    /// Tells what failed with the session, as far as there is room, and then the end.
    fn finish(&mut self, why: Ended, out: &mut Outbox<Output>) {
        let status = match why {
            Ended::Refused(status) => status,
            Ended::Closed | Ended::Disconnected | Ended::NotBound | Ended::Silence => Status::TIMEOUT,
        };
        while out.room() > 1 {
            match self.sending.take_one() {
                Some(What::Message(key)) => tell(out, Output::Failed(key, status)),
                Some(What::Nickname(key)) => tell(out, Output::Nickname(key, status)),
                Some(What::Probe) => {}
                None => {
                    self.state = State::Ended;
                    tell(out, Output::Ended(why));
                    return;
                }
            }
        }
    }

    fn write(&mut self, frame: Frame, out: &mut Outbox<Output>) {
        self.sending.under_way(frame.iter().map(|piece| piece.len() as u64).sum());
        tell(out, Output::Write(frame));
    }

    /// A REPORT along the way back (RFC 4975 §7.1.2).
    fn send_report(&mut self, head: &Head, range: ByteRange, status: Status, out: &mut Outbox<Output>) {
        let tid = crate::Tid::fresh(&mut self.entropy);
        self.write(SmallVec::from_iter([crate::report(&tid, head, range, status)]), out);
    }
}

/// Puts an output. A caller that keeps the outbox's room as asked never loses one; the outbox counts those
/// that are lost.
fn tell(out: &mut Outbox<Output>, output: Output) {
    let _ = out.push(output);
}
