//! One lane's task.
//!
//! ```text
//!   Restoring --the last rows--> Up --a commit failed--> Restoring (a new life, after a pause if the last one was short)
//!   Up: event --decide--> outputs --commit, if there are writes--> perform, in order
//! ```
//!
//! A lane whose commit failed knows more than the store does. Where a positive answer waited for that commit, it forgets
//! everything, answers 503 to whoever waits, and is taken up from the store again as after a restart of the process: so
//! no positive answer is ever given that the store could lose. Where none did and the store only had no room, the rows
//! wait and the lane goes on ([`super::unsaved`]).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base::{Entropy, HashSeed, Map, Outbox, map};
use service::{Ask, Change, ClientTx, Input, OUTPUTS_MAX, Output, Row, ServerTx, Service};
use sip::Request;
use store::{Cursor, Part, Share, Store, StoreError};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::perform::{Serving, Way, unavailable};
use super::unsaved::{Unsaved, is_promise, promises};
use super::{Event, LaneRef, Lanes, Origin, Report};
use crate::Shutdown;
use crate::clock::Clock;
use crate::front;
use crate::link::{Link, Order};
use crate::metrics::{Discard, Metrics, Outcome};
use crate::trace::{Bus, Heard, Trail};

/// A life shorter than this is followed by a pause as long as this.
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// A lane that works for longer lets others work: the front refuses what is too much, and must come to it.
const TURN_MAX: Duration = Duration::from_millis(1);

/// What a lane is made of.
pub(crate) struct Parts {
    pub(crate) index: usize,
    pub(crate) config: service::Config,
    pub(crate) entropy: Entropy,
    pub(crate) clock: Clock,
    pub(crate) commits_max: usize,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) lanes: Lanes,
    pub(crate) front: mpsc::Sender<front::Order>,
    pub(crate) link: Link,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) trace: Bus,
    pub(crate) shutdown: Shutdown,
}

/// What the store said.
enum Return {
    Committed { life: u32, serial: u64, outcome: Result<(), StoreError> },
    Facts { life: u32, ask: Ask, outcome: Result<Vec<Row>, StoreError> },
    Restored { life: u32, outcome: Result<Part, StoreError> },
    Saved { life: u32, outcome: Result<(), StoreError> },
}

/// A decision that waits for its commit, or behind one that does.
struct Held {
    serial: u64,
    committed: bool,
    since: Instant,
    outputs: Vec<Output>,
    /// Its changes, where they may wait for a store that has no room.
    spare: Option<Vec<Change>>,
}

enum Phase {
    Restoring,
    /// Restoring begins then.
    Paused(Instant),
    Up,
}

pub(super) struct Lane {
    pub(super) parts: Parts,
    pub(super) life: u32,
    service: Service,
    out: Outbox<Output>,
    inbox: mpsc::UnboundedReceiver<Event>,
    returns: mpsc::UnboundedReceiver<Return>,
    returned: mpsc::UnboundedSender<Return>,
    held: VecDeque<Held>,
    unsaved: Unsaved,
    serial: u64,
    phase: Phase,
    born: Instant,
    dataplane: Option<contract::Welcome>,
    /// Requests that wait for their final answer.
    pub(super) servers: Map<ServerTx, Serving>,
    pub(super) of_lanes: Map<Origin, ServerTx>,
    /// Requests that we sent, until their final answer.
    pub(super) clients: Map<ClientTx, Way>,
    trail: Trail,
    ready: Option<tokio::sync::oneshot::Sender<()>>,
}

/// Starts a lane; the receiver is told when the lane has got its rows.
pub(crate) fn start(
    parts: Parts,
    inbox: mpsc::UnboundedReceiver<Event>,
) -> (tokio::task::JoinHandle<()>, tokio::sync::oneshot::Receiver<()>) {
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let (returned, returns) = mpsc::unbounded_channel();
    let mut parts = parts;
    let seed: HashSeed = parts.entropy.hash_seed();
    let service = Service::new(parts.config.clone(), parts.entropy.child());
    let lane = Lane {
        life: 0,
        service,
        out: Outbox::with_max(OUTPUTS_MAX),
        inbox,
        returns,
        returned,
        held: VecDeque::new(),
        unsaved: Unsaved::default(),
        serial: 0,
        phase: Phase::Restoring,
        born: Instant::now(),
        dataplane: None,
        servers: map(seed),
        of_lanes: map(seed),
        clients: map(seed),
        trail: Trail::default(),
        ready: Some(ready),
        parts,
    };
    (tokio::spawn(lane.run()), is_ready)
}

impl Lane {
    async fn run(mut self) {
        let shutdown = self.parts.shutdown.clone();
        self.restore();
        let mut turn = Instant::now();
        loop {
            let up = matches!(self.phase, Phase::Up);
            if turn.elapsed() > TURN_MAX {
                tokio::task::yield_now().await;
                turn = Instant::now();
            }
            let room = self.held.len() < self.parts.commits_max;
            let deadline = match self.phase {
                Phase::Paused(until) => Some(until),
                Phase::Restoring => None,
                Phase::Up => {
                    let timeout = self.service.next_timeout().filter(|_| room);
                    timeout.map(|at| self.parts.clock.at(at)).into_iter().chain(self.unsaved.next()).min()
                }
            };
            let wake = deadline.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                biased;
                () = shutdown.triggered() => return self.finish().await,
                Some(said) = self.returns.recv() => self.hear(said).await,
                () = sleep_until(wake), if deadline.is_some() => match self.phase {
                    Phase::Up if self.unsaved.next().is_some_and(|at| at <= Instant::now()) => self.save_again(),
                    Phase::Up => self.timeout().await,
                    Phase::Paused(_) => self.restore(),
                    Phase::Restoring => {}
                },
                Some(event) = self.inbox.recv(), if room || !up => {
                    self.parts.lanes.took(self.parts.index);
                    self.take(event).await;
                }
            }
        }
    }

    pub(super) fn own(&self) -> LaneRef {
        LaneRef { lane: self.parts.index, life: self.life }
    }

    /// What was decided before the end is committed and goes out, for a moment.
    async fn finish(&mut self) {
        let patience = Instant::now() + Duration::from_secs(2);
        while !self.held.is_empty() {
            tokio::select! {
                Some(said) = self.returns.recv() => self.hear(said).await,
                () = sleep_until(patience) => return,
            }
        }
    }

    async fn take(&mut self, event: Event) {
        if let Event::Request { at, .. } = &event {
            self.parts.lanes.took_request(self.parts.index, self.parts.clock.now().mono, *at);
        }
        match &event {
            Event::DataplaneUp { welcome, .. } => self.dataplane = Some(welcome.clone()),
            Event::DataplaneDown => self.dataplane = None,
            _ => {}
        }
        if let Event::Report(answer) = event {
            let _ = answer.send(self.report());
            return;
        }
        if !matches!(self.phase, Phase::Up) {
            // Requests that slipped in before the door was shut; of the rest the next life hears anew.
            if let Event::Request { origin, request, .. } = event {
                self.answer(origin, unavailable(&request)).await;
            }
            return;
        }
        if let Event::Request { origin, request, .. } = &event
            && self.unsaved.is_starving()
            && promises(&request.method)
        {
            self.parts.metrics.discarded.count(Discard::LaneDown);
            return self.answer(*origin, unavailable(request)).await;
        }
        if let Some(input) = self.input(event) {
            self.decide(input).await;
        }
    }

    /// What the service is told of an event; nothing, if it is over for this life.
    fn input(&mut self, event: Event) -> Option<Input> {
        let life = self.life;
        Some(match event {
            Event::Request { origin, source, request, place, .. } => {
                // Its connection may send the next one.
                drop(place);
                let tx = self.server(origin, &request);
                Input::Request { tx, source, request }
            }
            Event::Ack { source, request } => Input::Ack { source, request },
            Event::Cancelled { origin, reason } => Input::Cancelled { tx: self.serving(origin)?, reason },
            Event::Disconnected { connection } => Input::Disconnected { connection },
            Event::AckMissing { server } => Input::AckMissing { tx: network_tx(server) },
            Event::Response { life: of, tx, response } if of == life => {
                if response.code >= 200 {
                    self.clients.remove(&tx);
                }
                Input::Response { tx, response }
            }
            Event::Expired { life: of, tx } if of == life => {
                self.clients.remove(&tx);
                Input::Expired { tx }
            }
            Event::Applied { life: of, ask, applied } if of == life => Input::Applied { ask, applied },
            Event::Refused { life: of, ask, refusal } if of == life => Input::Refused { ask, refusal },
            Event::News(news) => Input::News(news),
            Event::DataplaneUp { welcome, instance_changed } => {
                Input::DataplaneUp { welcome, instance_changed }
            }
            Event::DataplaneDown => Input::DataplaneDown,
            Event::Audited(contexts) => Input::Audited { contexts },
            Event::Response { .. }
            | Event::Expired { .. }
            | Event::Applied { .. }
            | Event::Refused { .. }
            | Event::Report(_) => return None,
        })
    }

    fn server(&mut self, origin: Origin, request: &Request) -> ServerTx {
        let tx = match origin {
            Origin::Network(server) => network_tx(server),
            Origin::Lane { .. } => {
                self.serial += 1;
                let tx = ServerTx((self.serial << 1) | 1);
                self.of_lanes.insert(origin, tx);
                tx
            }
        };
        self.servers.insert(tx, Serving { origin, refusal: Box::new(unavailable(request)) });
        tx
    }

    /// The transaction of a request that has no final answer yet.
    fn serving(&self, origin: Origin) -> Option<ServerTx> {
        let tx = match origin {
            Origin::Network(server) => network_tx(server),
            Origin::Lane { .. } => *self.of_lanes.get(&origin)?,
        };
        self.servers.contains_key(&tx).then_some(tx)
    }

    async fn decide(&mut self, input: Input) {
        let heard = self.parts.trace.is_on().then(|| {
            let serving = |tx| self.servers.get(&tx).map(|serving| &*serving.refusal);
            self.trail.hear(&input, serving)
        });
        self.service.handle(self.parts.clock.now(), input, &mut self.out);
        self.decided(heard).await;
    }

    async fn timeout(&mut self) {
        self.service.timeout(self.parts.clock.now(), &mut self.out);
        self.decided(self.parts.trace.is_on().then(Heard::default)).await;
    }

    /// Commits what was decided, and performs it now if nothing has to be waited for.
    async fn decided(&mut self, heard: Option<Heard>) {
        let (mut changes, mut outputs) = (Vec::new(), Vec::with_capacity(self.out.len()));
        let mut needs = Vec::new();
        for output in self.out.drain() {
            match output {
                Output::Write(more) => changes.extend(more),
                Output::Need { ask, keys } => needs.push((ask, keys)),
                other => outputs.push(other),
            }
        }
        match heard {
            Some(heard) => {
                let asks = needs.iter().map(|(ask, _)| ask.0);
                let (acted, outcome) = (self.service.acted(), (outputs.as_slice(), changes.as_slice()));
                self.trail.decided(&self.parts.trace, &heard, acted, asks, outcome);
            }
            None => self.trail.clear(),
        }
        self.serial += 1;
        let (life, serial, mut committed) = (self.life, self.serial, changes.is_empty());
        let promise = is_promise(&outputs);
        let mut spare = None;
        if self.unsaved.is_starving() && (promise || !committed) {
            // Also one without rows of its own: those that it stands for wait.
            if promise || !self.unsaved.keep(changes) {
                return self.fail(&StoreError::Unavailable { why: "no room yet".to_owned() }).await;
            }
            committed = true;
        } else if !committed {
            spare = (!promise).then(|| changes.clone());
            let returned = self.returned.clone();
            let done = move |outcome| {
                let _ = returned.send(Return::Committed { life, serial, outcome });
            };
            self.parts.store.commit(changes, Box::new(done));
        }
        // A fetch sees the commit called before it, so it need not wait for that commit's end.
        for (ask, keys) in needs {
            let returned = self.returned.clone();
            let done = move |outcome| {
                let _ = returned.send(Return::Facts { life, ask, outcome });
            };
            self.parts.store.fetch(keys, Box::new(done));
        }
        if committed && self.held.is_empty() {
            return self.perform(outputs).await;
        }
        if !committed || !outputs.is_empty() {
            self.held.push_back(Held { serial, committed, since: Instant::now(), outputs, spare });
        }
    }

    async fn hear(&mut self, said: Return) {
        let life = self.life;
        match said {
            Return::Committed { life: of, serial, outcome } if of == life => {
                self.committed(serial, outcome).await;
            }
            Return::Facts { life: of, ask, outcome } if of == life => match outcome {
                Ok(rows) => self.decide(Input::Facts { ask, rows }).await,
                Err(error) => self.fail(&error).await,
            },
            Return::Restored { life: of, outcome } if of == life => self.restored(outcome).await,
            Return::Saved { life: of, outcome } if of == life => self.saved(outcome).await,
            _ => {}
        }
    }

    async fn committed(&mut self, serial: u64, outcome: Result<(), StoreError>) {
        if let Err(error) = outcome {
            self.parts.metrics.commits.count(match error {
                StoreError::Unavailable { .. } => Outcome::Unavailable,
                _ => Outcome::Refused,
            });
            let held = self.held.iter_mut().find(|held| held.serial == serial);
            let spare = held.and_then(|held| held.spare.take());
            if !matches!(error, StoreError::Unavailable { .. }) {
                return self.fail(&error).await;
            }
            self.starve(&error);
            // What was decided behind it may stand for its rows.
            let stands = self.held.iter().any(|held| is_promise(&held.outputs));
            if stands || !spare.is_some_and(|spare| self.unsaved.keep(spare)) {
                return self.fail(&error).await;
            }
        } else {
            self.parts.metrics.commits.count(Outcome::Done);
        }
        if let Some(held) = self.held.iter_mut().find(|held| held.serial == serial) {
            held.committed = true;
            self.parts.metrics.commit_seconds.observe(held.since.elapsed().as_secs_f64());
        }
        while self.held.front().is_some_and(|held| held.committed) {
            if let Some(held) = self.held.pop_front() {
                self.perform(held.outputs).await;
            }
        }
    }

    fn starve(&mut self, error: &StoreError) {
        if !self.unsaved.is_starving() {
            tracing::error!(lane = self.parts.index, %error, "the store takes nothing: nothing new is begun");
        }
        self.unsaved.starve();
    }

    /// Offers the store what waits for it; when nothing does, a number, to feel whether it has room.
    fn save_again(&mut self) {
        let (life, returned) = (self.life, self.returned.clone());
        let changes = self.unsaved.send();
        let done = move |outcome| {
            let _ = returned.send(Return::Saved { life, outcome });
        };
        match changes.is_empty() {
            true => self.parts.store.set_number("room", self.serial, Box::new(done)),
            false => self.parts.store.commit(changes, Box::new(done)),
        }
    }

    async fn saved(&mut self, outcome: Result<(), StoreError>) {
        match outcome {
            Ok(()) if self.unsaved.sent(true) => {
                tracing::info!(lane = self.parts.index, "the store takes rows again");
            }
            Ok(()) => {}
            Err(StoreError::Unavailable { .. }) => {
                self.unsaved.sent(false);
            }
            Err(error) => self.fail(&error).await,
        }
    }

    /// Ends this life.
    async fn fail(&mut self, error: &StoreError) {
        tracing::error!(lane = self.parts.index, life = self.life, %error, "a lane is taken up again from the store");
        self.parts.metrics.lane_reloads.inc();
        self.parts.lanes.set_down(self.parts.index, true);
        self.held.clear();
        self.unsaved.forget();
        self.abandon().await;
        // The stack's names of our transactions have room for 16 bits of it.
        self.life = (self.life + 1) & 0xffff;
        self.service = Service::new(self.parts.config.clone(), self.parts.entropy.child());
        let short = self.born.elapsed() < SHORT_LIFE;
        self.phase = Phase::Paused(if short { Instant::now() + SHORT_LIFE } else { Instant::now() });
    }

    fn restore(&mut self) {
        self.phase = Phase::Restoring;
        self.born = Instant::now();
        self.restore_from(Cursor::default());
    }

    /// Asks for the next part: the one before it has been taken, so no more than one is ever held.
    fn restore_from(&self, from: Cursor) {
        let (life, returned) = (self.life, self.returned.clone());
        let share = Share { lane: self.parts.index, lanes: self.parts.lanes.count() };
        let done = move |outcome| {
            let _ = returned.send(Return::Restored { life, outcome });
        };
        self.parts.store.restore(share, from, Box::new(done));
    }

    async fn restored(&mut self, outcome: Result<Part, StoreError>) {
        match outcome {
            Err(error) => self.fail(&error).await,
            Ok(Part { mut rows, next: Some(next) }) => {
                self.unsaved.filter(&mut rows);
                self.decide(Input::Restored { rows, done: false }).await;
                self.restore_from(next);
            }
            Ok(Part { mut rows, next: None }) => {
                self.unsaved.filter(&mut rows);
                self.decide(Input::Restored { rows, done: true }).await;
                self.up().await;
            }
        }
    }

    async fn up(&mut self) {
        self.phase = Phase::Up;
        if self.life > 0
            && let Some(welcome) = self.dataplane.clone()
        {
            self.decide(Input::DataplaneUp { welcome, instance_changed: false }).await;
            // Without room the next greeting audits.
            let _ = self.parts.link.order(Order::Audit { lane: self.parts.index });
        }
        self.parts.lanes.set_down(self.parts.index, false);
        if let Some(ready) = self.ready.take() {
            let _ = ready.send(());
        }
    }

    fn report(&self) -> Report {
        Report {
            lane: self.parts.index,
            life: self.life,
            waiting: self.parts.lanes.waiting(self.parts.index),
            held: self.held.len(),
            starving: self.unsaved.is_starving(),
            unsaved: self.unsaved.len(),
            serving: self.servers.len(),
            sending: self.clients.len(),
            service: self.service.counters().into(),
        }
    }
}

/// Even numbers are the network's, odd ones the lanes'.
fn network_tx(server: u64) -> ServerTx {
    ServerTx(server << 1)
}
