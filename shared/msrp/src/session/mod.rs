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
mod tables;
mod words;

use std::time::Duration;

use base::{Entropy, Instant, Outbox, TimerId, Timers};
use smallvec::SmallVec;

use crate::{ByteRange, Event, Head, Reassembly, Status};
use receiving::Arriving;
use tables::{Sending, What};
pub use words::{Command, Config, Ended, Frame, Input, Key, Outgoing, Output, Received, Role, SessionLimits};

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
        // One timer each: chunks, other transactions, reports awaited, binding, pause.
        let most = limits.window_chunks + limits.transactions_max + limits.reports_max + 2;
        let timers = Timers::with_max(most);
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

    /// Nothing that the user gave waits to go out, or it cannot.
    pub fn is_all_out(&self) -> bool {
        self.state == State::New || self.is_ending() || self.sending.is_all_out()
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
                Due::Report(key) => self.forget_report(key, out),
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
            Event::Body(span) => self.body(now, &span, out),
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
