//! The task of one device: a `sip::Stack` over the flow to the server, and what the user's commands and the
//! network's requests do to registrations, messages and sessions.
//!
//! command, arrival, timer → here → stack → octets, events. Files: `client` (our requests and their answers),
//! `registration`, `pager`, `calls` (sessions that we start), `invited` (sessions that others start), `dialogs`
//! (requests inside sessions), `conference`.

mod calls;
mod client;
mod conference;
mod dialogs;
mod invited;
mod pager;
mod registration;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::Outbox;
use bytes::Bytes;
use sip::{ClientKey, Config, Host, HostPort, Input, Message, Output, Peer, Request, Response, Stack};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::device::{Change, PagerSent, SessionView};
use crate::reading::{self, Second};
use crate::requests::Call;
use crate::shared::Shared;
use crate::transport::{Arrival, Wire};
use crate::{Answer, Draft, Letter, SessionId, UeError};

use calls::Session;
use client::Waiting;

/// Arrivals that may wait for the task.
const ARRIVALS_MAX: usize = 1024;
const OUTBOX_MAX: usize = 4096;
/// Wait between attempts to reach the server again.
const RECONNECT: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3)];

type Reply<T> = oneshot::Sender<Result<T, UeError>>;

/// What the handle asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Register { expires_s: u32, reply: Reply<u32> },
    Request { request: Box<Request>, reply: Reply<Response> },
    Message { to: String, draft: Draft, reply: Reply<PagerSent> },
    Notify { letter: Box<Letter>, answer: Answer, reply: Reply<()> },
    Call { call: Box<Call>, reply: Reply<SessionId> },
    Answer { session: SessionId, code: u16, reply: Reply<()> },
    AnswerWith { session: SessionId, description: bytes::Bytes, reply: Reply<()> },
    Cancel { session: SessionId, reply: Reply<()> },
    HangUp { session: SessionId, cause: Option<u16>, reply: Reply<()> },
    Reinvite { session: SessionId, change: Change, reply: Reply<()> },
    Subscribe { session: SessionId, expires_s: u32, reply: Reply<()> },
    Refer { session: SessionId, who: Vec<String>, method: &'static str, reply: Reply<()> },
    View { session: SessionId, reply: Reply<SessionView> },
    LoseFlow { reply: Reply<()> },
    Stop,
}

/// What a timer of ours is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Due {
    Reregister,
    Reconnect,
    RefreshSession(SessionId),
    RefreshSubscription(SessionId),
}

struct Actor {
    shared: Arc<Shared>,
    began: Instant,
    stack: Stack,
    out: Outbox<Output>,
    wire: Option<Wire>,
    local: std::net::SocketAddr,
    arrivals: mpsc::Sender<Arrival>,
    waiting: HashMap<u64, Waiting>,
    keys: u64,
    sessions: BTreeMap<SessionId, Session>,
    timers: BTreeMap<(Instant, u64), Due>,
    serial: u64,
    /// True once a registration was asked for and not taken back.
    registered: bool,
    attempts: usize,
    digest: sip::digest::Client,
}

/// Opens the flow and starts the task.
pub(crate) async fn start(
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
) -> Result<JoinHandle<()>, UeError> {
    let (arrivals, on_arrivals) = mpsc::channel(ARRIVALS_MAX);
    let wire = Wire::open(&shared, arrivals.clone()).await?;
    let local = wire.local;
    let stack = new_stack(&shared, local);
    let digest = sip::digest::Client::new(&shared.account.username, &shared.account.password);
    let actor = Actor {
        digest,
        shared,
        began: Instant::now(),
        stack,
        out: Outbox::with_max(OUTBOX_MAX),
        wire: Some(wire),
        local,
        arrivals,
        waiting: HashMap::new(),
        keys: 0,
        sessions: BTreeMap::new(),
        timers: BTreeMap::new(),
        serial: 0,
        registered: false,
        attempts: 0,
    };
    Ok(tokio::spawn(actor.run(commands, on_arrivals)))
}

fn new_stack(shared: &Shared, local: std::net::SocketAddr) -> Stack {
    let host = match local.ip() {
        std::net::IpAddr::V4(ip) => Host::V4(ip),
        std::net::IpAddr::V6(ip) => Host::V6(ip),
    };
    let sent_by = HostPort { host, port: Some(local.port()) };
    let config = Config {
        sent_by: vec![(shared.account.transport, sent_by)],
        limits: sip::Limits::default(),
        timing: sip::Timing::default(),
    };
    Stack::new(config, shared.entropy())
}

impl Actor {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>, mut arrivals: mpsc::Receiver<Arrival>) {
        loop {
            let stack_due =
                self.stack.next_timeout().map(|at| self.began + Duration::from_nanos(at.as_nanos()));
            let own_due = self.timers.first_key_value().map(|((at, _), _)| *at);
            let due = [stack_due, own_due].into_iter().flatten().min();
            tokio::select! {
                command = commands.recv() => match command {
                    None | Some(Command::Stop) => return,
                    Some(command) => self.command(command).await,
                },
                Some(arrival) = arrivals.recv() => self.arrival(arrival).await,
                () = async { tokio::time::sleep_until(due.unwrap_or(self.began).into()).await }, if due.is_some() => {
                    self.timeout().await;
                }
            }
        }
    }

    fn now(&self) -> base::Instant {
        base::Instant::from_nanos(u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn peer(&self) -> Peer {
        Peer::new(self.shared.account.transport, self.shared.account.server)
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Register { expires_s, reply } => self.register(expires_s, Some(reply)).await,
            Command::Request { request, reply } => self.plain(*request, reply).await,
            Command::Message { to, draft, reply } => self.send_pager(&to, &draft, reply).await,
            Command::Notify { letter, answer, reply } => {
                self.notify(&letter, answer).await;
                let _ = reply.send(Ok(()));
            }
            Command::Call { call, reply } => self.call(*call, reply).await,
            Command::Answer { session, code, reply } => self.answer(session, code, reply).await,
            Command::AnswerWith { session, description, reply } => {
                self.answer_with(session, description, reply).await;
            }
            Command::Cancel { session, reply } => self.cancel(session, reply).await,
            Command::HangUp { session, cause, reply } => self.hang_up(session, cause, Some(reply)).await,
            Command::Reinvite { session, change, reply } => self.reinvite(session, change, Some(reply)).await,
            Command::Subscribe { session, expires_s, reply } => {
                self.subscribe(session, expires_s, Some(reply)).await
            }
            Command::Refer { session, who, method, reply } => self.refer(session, &who, method, reply).await,
            Command::View { session, reply } => {
                let view = self.sessions.get(&session).map(Session::view).ok_or(UeError::Gone);
                let _ = reply.send(view);
            }
            Command::LoseFlow { reply } => {
                self.lost().await;
                let _ = reply.send(Ok(()));
            }
            Command::Stop => {}
        }
    }

    /// Hands the stack an input and does what it wants done.
    async fn feed(&mut self, input: Input) {
        let now = self.now();
        self.stack.handle(now, input, &mut self.out);
        self.perform().await;
    }

    async fn perform(&mut self) {
        while let Some(output) = self.out.pop() {
            match output {
                Output::Transmit { bytes, .. } => {
                    if let Some(wire) = &self.wire {
                        wire.send(bytes).await;
                    }
                }
                Output::Request { server, request, .. } => {
                    self.shared.counters.sip_requests_received.one();
                    Box::pin(self.request(server, request)).await;
                }
                Output::Ack { request, .. } => self.acknowledged(&request).await,
                Output::Cancelled { server, reason } => Box::pin(self.cancelled(server, reason)).await,
                Output::Response { key, response, .. } => {
                    self.shared.counters.sip_responses_received.one();
                    Box::pin(self.response(key, response)).await;
                }
                Output::Expired { key, why } => Box::pin(self.expired(key, why)).await,
                Output::AckMissing { server } => Box::pin(self.ack_missing(server)).await,
            }
        }
    }

    async fn arrival(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Message(message, bytes) => {
                self.read_again(&message, &bytes);
                let peer = self.peer();
                self.feed(Input::Received { peer, message: *message }).await;
            }
            Arrival::Malformed(what) => {
                self.shared.counters.sip_malformed.one();
                self.shared.fault(format!("malformed SIP: {what}"));
            }
            Arrival::Lost => self.lost().await,
        }
    }

    fn read_again(&self, message: &Message, bytes: &Bytes) {
        if !self.shared.account.second_reading {
            return;
        }
        match reading::compare(bytes, message) {
            Second::Same => self.shared.counters.rsip_read.one(),
            Second::Excused(_) => self.shared.counters.rsip_excused.one(),
            Second::Differs(how) => self.shared.fault(format!("two readings differ: {how}")),
        }
    }

    async fn timeout(&mut self) {
        let now = self.now();
        self.stack.timeout(now, &mut self.out);
        self.perform().await;
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > Instant::now() {
                return;
            }
            match entry.remove() {
                Due::Reregister if self.registered => {
                    self.register(self.shared.account.expires_s, None).await
                }
                Due::Reregister => {}
                Due::Reconnect => self.reconnect().await,
                Due::RefreshSession(session) => self.reinvite(session, Change::default(), None).await,
                Due::RefreshSubscription(session) => self.subscribe(session, 3600, None).await,
            }
        }
    }

    fn set_timer(&mut self, after: Duration, due: Due) {
        self.timers.retain(|_, d| *d != due);
        self.serial += 1;
        self.timers.insert((Instant::now() + after, self.serial), due);
    }

    /// The flow is gone: transactions over it fail, and the device comes back.
    async fn lost(&mut self) {
        if self.wire.take().is_some() {
            let peer = self.peer();
            self.feed(Input::Failed { peer }).await;
        }
        self.attempts = 0;
        self.set_timer(Duration::ZERO, Due::Reconnect);
    }

    async fn reconnect(&mut self) {
        // The old flow's channel ends with its tasks; what it still had to say belongs to no transaction now.
        match Wire::open(&self.shared, self.arrivals.clone()).await {
            Ok(wire) => {
                self.local = wire.local;
                self.stack = new_stack(&self.shared, wire.local);
                self.wire = Some(wire);
                if self.registered {
                    self.register(self.shared.account.expires_s, None).await;
                }
            }
            Err(_) => {
                let wait = RECONNECT.get(self.attempts).or(RECONNECT.last()).copied().unwrap_or_default();
                self.attempts += 1;
                self.set_timer(wait, Due::Reconnect);
            }
        }
    }

    fn key(&mut self) -> ClientKey {
        self.keys += 1;
        ClientKey(self.keys)
    }
}
