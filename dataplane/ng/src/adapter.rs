//! The machine: requests become batches, what the data plane says of them becomes replies.
//!
//! ```text
//!   request ─► cookie known? ── yes ─► the same reply again, or nothing while it is worked on
//!                 │ no
//!                 ▼
//!   a change of its call in flight? ── yes ─► waits behind it
//!                 │ no
//!                 ▼
//!   offer, answer ─► Batch ── Applied ─► the call as changed, reply with our ports
//!                        └── Refusal, no word in time ─► the call as it was, reply with an error
//!   delete ─► Count, Batch ── Counters ─► reply      query ─► Count ── Counters ─► reply
//! ```

mod requests;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use base::{Entropy, Instant, Now, Outbox, Private};
use contract::change::Verb;
use contract::refusal::Reason;
use contract::{Batch, Change, Counters, from_dataplane, placement};
use sdp::Session;

use crate::call::Call;
use crate::config::Config;
use crate::cookies::{Cookies, Known};
use crate::flags::Flags;
use crate::frame::{Encoding, Frame};
use crate::{Value, report, rewrite};

/// How long the data plane may take for a batch.
const PATIENCE: Duration = Duration::from_secs(5);
const SWEEP: Duration = Duration::from_secs(1);
/// Requests that may wait behind a change of their call.
const WAITING_MAX: usize = 16;
/// The same over all calls: each may hold a message's octets.
pub(crate) const WAITING_SUM_MAX: usize = 256;
/// Orders to the data plane that may be without an answer.
pub(crate) const PENDING_MAX: usize = 2048;
/// What one input may put into the outbox, beside one step for each request that waited.
const ROOM: usize = 4;
/// The contexts of this adapter: control draws its own at random, and this range is one in four thousand million.
const CONTEXT_FIRST: u64 = 0xffff_ffff_0000_0001;

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Peer {
    /// By datagrams.
    Datagram(SocketAddr),
    /// By a connection, which the process numbers.
    Stream(u64),
}

/// What is handed in.
#[derive(Debug)]
pub enum Input<'a> {
    /// One message, whole.
    Request {
        /// From whom.
        from: Peer,
        /// A datagram, or what [`crate::frame::next`] took off a stream.
        octets: &'a [u8],
    },
    /// The answer to a [`Output::Batch`] or [`Output::Count`].
    Answer {
        /// Which one.
        ticket: u64,
        /// `Applied`, `Refusal` or `News` with counters.
        body: from_dataplane::Body,
    },
    /// Counters that the data plane sends by itself.
    Counters(&'a Counters),
}

/// What is to be done.
#[derive(Debug)]
pub enum Output {
    /// Goes back.
    Reply {
        /// To whom.
        to: Peer,
        /// A whole message.
        octets: Vec<u8>,
    },
    /// For the home shard of its one context. Has no generation: nobody else speaks of these contexts.
    Batch {
        /// Names the answer.
        ticket: u64,
        /// The batch.
        batch: Batch,
    },
    /// The counters of a context are wanted.
    Count {
        /// Names the answer.
        ticket: u64,
        /// Of which.
        context: u64,
    },
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Calls that are up.
    pub calls: u64,
    /// Calls ever.
    pub calls_begun: u64,
    /// Calls that were removed because nothing was heard.
    pub calls_silent: u64,
    /// Messages that parsed, retransmissions apart.
    pub requests: u64,
    /// Messages that did not parse.
    pub malformed: u64,
    /// Requests whose cookie was known.
    pub retransmissions: u64,
    /// Requests that got an error.
    pub errors: u64,
}

/// A request that is worked on.
#[derive(Clone, Debug)]
struct Work {
    from: Peer,
    cookie: Vec<u8>,
    encoding: Encoding,
    body: Value,
}

#[derive(Debug)]
struct Changing {
    work: Work,
    key: Key,
    call: Box<Call>,
    session: Box<Session>,
    flags: Box<Flags>,
    to: usize,
    is_answer: bool,
}

#[derive(Debug)]
enum Pending {
    Change(Box<Changing>),
    Count { work: Work, call: Box<Call> },
    Removal { context: u64 },
}

type Key = Private<Vec<u8>>;

#[derive(Debug)]
struct Entry {
    call: Call,
    /// Its first batch was applied.
    up: bool,
    busy: bool,
    waiting: VecDeque<Work>,
}

/// See the head of the file.
#[derive(Debug)]
pub struct Adapter {
    config: Config,
    entropy: Entropy,
    calls: BTreeMap<Key, Entry>,
    /// By context: of which call; `None` while it is being removed.
    contexts: BTreeMap<u64, Option<Key>>,
    next_context: u64,
    pending: BTreeMap<u64, (Instant, Pending)>,
    /// Requests that wait behind a change of their call, over all calls.
    waiting: usize,
    next_ticket: u64,
    cookies: Cookies,
    began: Option<Now>,
    next_sweep: Instant,
    tally: Tally,
    draining: bool,
}

impl Adapter {
    /// An adapter without calls.
    pub fn new(config: Config, entropy: Entropy) -> Self {
        Adapter {
            cookies: Cookies::new(config.cookies_max, config.cookies_bytes_max, config.cookie_life),
            config,
            entropy,
            calls: BTreeMap::new(),
            contexts: BTreeMap::new(),
            next_context: CONTEXT_FIRST,
            pending: BTreeMap::new(),
            waiting: 0,
            next_ticket: 0,
            began: None,
            next_sweep: Instant::ZERO,
            tally: Tally::default(),
            draining: false,
        }
    }

    /// The room that the outbox must have before an input.
    pub const fn room_needed() -> usize {
        ROOM * (WAITING_MAX + 2)
    }

    /// Whether a context is one of this adapter's.
    pub fn owns(&self, context: u64) -> bool {
        self.contexts.contains_key(&context)
    }

    /// No new calls, or new ones again.
    pub fn drain(&mut self, on: bool) {
        self.draining = on;
    }

    /// What happened so far.
    pub fn tally(&self) -> Tally {
        Tally { calls: self.calls.len() as u64, ..self.tally }
    }

    /// One input. The outbox has [`Adapter::room_needed`].
    pub fn handle(&mut self, now: Now, input: Input<'_>, out: &mut Outbox<Output>) {
        self.began.get_or_insert(now);
        match input {
            Input::Request { from, octets } => self.request(now, from, octets, out),
            Input::Answer { ticket, body } => {
                if let Some((_, pending)) = self.pending.remove(&ticket) {
                    self.answered(now, pending, Some(body), out);
                }
            }
            Input::Counters(counters) => self.counted(counters),
        }
    }

    /// Gives up what had no answer in time, and removes calls that nothing is heard of.
    pub fn timeout(&mut self, now: Now, out: &mut Outbox<Output>) {
        while out.room() >= Adapter::room_needed() {
            let late = self.pending.iter().find(|(_, (due, _))| *due <= now.mono).map(|(ticket, _)| *ticket);
            let Some((_, pending)) = late.and_then(|ticket| self.pending.remove(&ticket)) else { break };
            self.answered(now, pending, None, out);
        }
        if now.mono < self.next_sweep {
            return;
        }
        self.next_sweep = now.mono + SWEEP;
        let room = out.room() / ROOM;
        let over: Vec<Key> = self
            .calls
            .iter()
            .filter(|(_, e)| self.is_over(now, e))
            .map(|(k, _)| k.clone())
            .take(room)
            .collect();
        for key in over {
            self.tally.calls_silent += 1;
            if let Some(entry) = self.calls.remove(&key) {
                self.remove_context(now, entry.call.context, out);
            }
        }
    }

    /// When [`Adapter::timeout`] is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        let first = self.pending.values().next().map(|(due, _)| *due);
        let sweep = (!self.calls.is_empty()).then_some(self.next_sweep);
        first.into_iter().chain(sweep).min()
    }

    fn is_over(&self, now: Now, entry: &Entry) -> bool {
        let age = now.mono.since(entry.call.signalled.mono);
        if entry.busy {
            return false;
        }
        if !entry.call.answered {
            return age > self.config.unanswered;
        }
        let limit = if entry.call.is_held() { self.config.silence_held } else { self.config.silence };
        let idle = entry.call.counters.values().map(|leg| leg.idle_ms).min();
        age > limit && idle.is_none_or(|idle| Duration::from_millis(idle) > limit)
    }

    fn request(&mut self, now: Now, from: Peer, octets: &[u8], out: &mut Outbox<Output>) {
        let Ok((frame, _)) = Frame::read(octets) else {
            self.tally.malformed += 1;
            return;
        };
        let Frame { cookie, encoding, body } = frame;
        match self.cookies.meet(now.mono, from, &cookie) {
            Known::Answered(octets) => {
                self.tally.retransmissions += 1;
                let _ = out.push(Output::Reply { to: from, octets });
            }
            Known::Working => self.tally.retransmissions += 1,
            Known::New => {
                self.tally.requests += 1;
                self.start(now, Work { from, cookie, encoding, body }, out);
            }
        }
    }

    fn reply(&mut self, work: Work, body: Value, out: &mut Outbox<Output>) {
        let Work { from, cookie, encoding, .. } = work;
        if body.has("result", "error") {
            self.tally.errors += 1;
        }
        let octets = Frame { cookie: cookie.clone(), encoding, body }.to_octets();
        self.cookies.answered(from, &cookie, &octets);
        let _ = out.push(Output::Reply { to: from, octets });
    }

    fn error(&mut self, work: Work, reason: &str, out: &mut Outbox<Output>) {
        let body = Value::dictionary().with("result", "error").with("error-reason", reason);
        self.reply(work, body, out);
    }

    /// There is no room: Kamailio goes to its next node when it knows this word.
    fn full(&mut self, work: Work, out: &mut Outbox<Output>) {
        if work.body.has("supports", "load limit") {
            self.reply(work, Value::dictionary().with("result", "load limit"), out);
        } else {
            self.error(work, "Load limit", out);
        }
    }

    fn ticket(&mut self, now: Now, pending: Pending) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.pending.insert(ticket, (now.mono + PATIENCE, pending));
        ticket
    }

    fn order(&mut self, now: Now, pending: Pending, changes: Vec<Change>, out: &mut Outbox<Output>) {
        let ticket = self.ticket(now, pending);
        let batch = Batch { generation: 0, epoch: 0, trace: "ng".to_owned(), changes };
        let _ = out.push(Output::Batch { ticket, batch });
    }

    fn remove_context(&mut self, now: Now, context: u64, out: &mut Outbox<Output>) {
        self.contexts.insert(context, None);
        let change = Change { verb: Some(Verb::RemoveContext(context)) };
        self.order(now, Pending::Removal { context }, vec![change], out);
    }

    /// The data plane's word on something, or none in time.
    fn answered(
        &mut self,
        now: Now,
        pending: Pending,
        body: Option<from_dataplane::Body>,
        out: &mut Outbox<Output>,
    ) {
        match pending {
            Pending::Removal { context } => {
                self.contexts.remove(&context);
            }
            Pending::Count { work, mut call } => {
                if let Some(from_dataplane::Body::News(news)) = body
                    && let Some(contract::news::What::Counters(counters)) = news.what
                {
                    note(&mut call, counters);
                }
                self.reply(work, report::report(&call), out);
            }
            Pending::Change(change) => self.changed(now, *change, body, out),
        }
    }

    fn changed(
        &mut self,
        now: Now,
        change: Changing,
        body: Option<from_dataplane::Body>,
        out: &mut Outbox<Output>,
    ) {
        let Changing { work, key, mut call, session, flags, to, is_answer } = change;
        let context = call.context;
        let Some(entry) = self.calls.get_mut(&key).filter(|entry| entry.call.context == context) else {
            return self.error(work, "Unknown call-id", out);
        };
        entry.busy = false;
        match body {
            Some(from_dataplane::Body::Applied(applied)) => {
                for placed in applied.placements {
                    if let Some(placement::At::Rtp(local)) = placed.at {
                        call.place(placed.leg, local);
                    }
                }
                entry.up = true;
                call.counters.clone_from(&entry.call.counters);
                entry.call = *call;
                match rewrite::towards(to, &session, &entry.call, &flags, is_answer) {
                    Ok(sdp) => {
                        self.reply(work, Value::dictionary().with("sdp", sdp).with("result", "ok"), out)
                    }
                    Err(reason) => self.error(work, reason, out),
                }
            }
            other => {
                let waiting = std::mem::take(&mut entry.waiting);
                if entry.up {
                    entry.waiting = waiting;
                } else {
                    self.calls.remove(&key);
                    self.waiting -= waiting.len();
                    match &other {
                        // Nothing of it was applied.
                        Some(_) => {
                            self.contexts.remove(&context);
                        }
                        // It may be yet.
                        None => self.remove_context(now, context, out),
                    }
                    waiting.into_iter().for_each(|work| self.error(work, "Unknown call-id", out));
                }
                match other {
                    Some(from_dataplane::Body::Refusal(refusal)) => match refusal.reason() {
                        Reason::Limit | Reason::NoPort | Reason::Draining => self.full(work, out),
                        _ => self.error(work, &refusal.detail, out),
                    },
                    _ => self.error(work, "The data plane does not answer", out),
                }
            }
        }
        self.go_on(now, &key, out);
    }

    /// What waited behind a change.
    fn go_on(&mut self, now: Now, key: &Key, out: &mut Outbox<Output>) {
        while let Some(entry) = self.calls.get_mut(key).filter(|entry| !entry.busy) {
            let Some(work) = entry.waiting.pop_front() else { return };
            self.waiting -= 1;
            self.start(now, work, out);
        }
    }

    fn counted(&mut self, counters: &Counters) {
        let context = counters.legs.iter().find_map(|leg| leg.leg.as_ref()).map(|leg| leg.context);
        let key = context.and_then(|context| self.contexts.get(&context)?.clone());
        if let Some(entry) = key.and_then(|key| self.calls.get_mut(&key)) {
            note(&mut entry.call, counters.clone());
        }
    }
}

fn note(call: &mut Call, counters: Counters) {
    for mut leg in counters.legs {
        // What another host would need is not kept here.
        leg.continuity = None;
        if let Some(key) = leg.leg.as_ref().filter(|key| key.context == call.context) {
            call.counters.insert(key.leg, leg);
        }
    }
}
