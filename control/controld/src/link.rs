//! The link to the data plane: one connection, frames of `contract`, orders in, answers and news out.
//!
//! ```text
//!   Down --connected--> Greeting --Welcome--> Auditing --last Audited--> Up
//!   any --closed, bad frame, no answer in time--> Down (orders that wait are refused, lanes are told)
//! ```
//!
//! The link gives each batch its generation and epoch and remembers who ordered it. What is wanted is the lanes'
//! knowledge (rows of `Table::Context`): after a restart of the data plane they put it again, after every greeting
//! they hear which contexts it holds, put those that are missing, and remove what nobody claims.

mod greeting;
mod remote;
mod session;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contract::refusal::Reason;
use contract::{Batch, CaptureState, Decide, Load, Refusal, Welcome};
use serde::{Deserialize, Serialize};
use service::Ask;
use store::Store;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::clock::Clock;
use crate::lane::{Event, LaneRef, Lanes};
use crate::metrics::{Label, Metrics, Outcome};
use crate::trace::Bus;
use crate::{Shutdown, ended};
pub(crate) use remote::Remote;

/// The section `[dataplane]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Path of the data plane's Unix socket; without one, `dataplane.sock` in the folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// Address of a data plane on another host, by TCP with mutual TLS; it takes the place of the socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// Name in the data plane's certificate; without one, the address stands there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// PEM file of the certificate chain that is shown to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// PEM file of its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// PEM file of the authorities that the data plane's certificate must chain to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<PathBuf>,
    /// Milliseconds within which the data plane must answer a batch, and say anything at all, or the link is made anew.
    pub answer_ms: u64,
    /// Milliseconds between attempts to connect.
    pub retry_ms: u64,
    /// Orders that may wait for the link; further ones are refused.
    pub orders_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            socket: None,
            address: None,
            name: None,
            certificate: None,
            key: None,
            trust: None,
            answer_ms: 10_000,
            retry_ms: 200,
            orders_max: 16_384,
        }
    }
}

/// How long a connection may take, TLS included.
const CONNECTING: Duration = Duration::from_secs(10);

/// The name under which the store remembers the instance that has everything that is wanted.
pub(crate) const INSTANCE: &str = "dataplane_instance";

/// What is asked of the link.
#[derive(Debug)]
pub(crate) enum Order {
    /// From a lane.
    Program { from: LaneRef, ask: Ask, batch: Batch },
    /// From a lane.
    Decide(Decide),
    /// A lane that was taken up anew wants to hear the contexts.
    Audit { lane: usize },
    /// From the admin socket.
    Capture(contract::Capture, oneshot::Sender<CaptureState>),
    /// From the admin socket.
    Drain(bool),
}

/// What is known of the data plane.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    /// Its greeting, while it is linked.
    pub(crate) welcome: Option<Welcome>,
    /// Its last word about its load.
    pub(crate) load: Option<Load>,
    /// The last generation that was given out.
    pub(crate) generation: u64,
    /// Batches that were not answered yet.
    pub(crate) unanswered: usize,
}

/// The way to the link; all clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    orders: mpsc::Sender<Order>,
    state: Arc<Mutex<State>>,
}

impl Link {
    /// Gives an order; never waits. It comes back when too many wait already.
    pub(crate) fn order(&self, order: Order) -> Result<(), Order> {
        self.orders.try_send(order).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(order) | mpsc::error::TrySendError::Closed(order) => order,
        })
    }

    pub(crate) fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Where the data plane is.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// On this host.
    Socket(PathBuf),
    /// On another one.
    Remote(Remote),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Socket(path) => path.display().fmt(f),
            Target::Remote(remote) => remote.address.fmt(f),
        }
    }
}

/// What a link is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) settings: Settings,
    pub(crate) target: Target,
    pub(crate) owner: String,
    pub(crate) epoch: u64,
    /// The instance whose tables the rows describe.
    pub(crate) instance: Option<u64>,
    pub(crate) store: Arc<dyn Store>,
    /// What is kept of legs that have ended.
    pub(crate) ended: ended::Settings,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) trace: Bus,
    pub(crate) shutdown: Shutdown,
}

/// An order's way in before its link runs: lanes need it, and the link needs the lanes.
#[derive(Debug)]
pub(crate) struct Unstarted {
    link: Link,
    orders: mpsc::Receiver<Order>,
}

impl Unstarted {
    pub(crate) fn new(settings: &Settings) -> Self {
        let (send, orders) = mpsc::channel(settings.orders_max.max(1));
        Unstarted { link: Link { orders: send, state: Arc::default() }, orders }
    }

    pub(crate) fn link(&self) -> Link {
        self.link.clone()
    }

    /// Starts connecting. Every lane must have got its rows before.
    pub(crate) fn start(self, parts: Parts, lanes: Lanes) -> tokio::task::JoinHandle<()> {
        let runner = Runner {
            parts,
            lanes,
            orders: self.orders,
            state: self.link.state,
            begun: None,
            announced: false,
            draining: false,
        };
        tokio::spawn(runner.run())
    }
}

/// The task of the link.
struct Runner {
    parts: Parts,
    lanes: Lanes,
    orders: mpsc::Receiver<Order>,
    state: Arc<Mutex<State>>,
    /// The instance that was linked last: the lanes have been told of it, and have ordered what it lacks.
    begun: Option<u64>,
    /// The last fault was said aloud.
    announced: bool,
    draining: bool,
}

impl Runner {
    async fn run(mut self) {
        let shutdown = self.parts.shutdown.clone();
        loop {
            tokio::select! {
                () = shutdown.triggered() => return,
                why = self.once() => self.down(&why),
            }
            let retry = tokio::time::sleep(Duration::from_millis(self.parts.settings.retry_ms.max(1)));
            tokio::pin!(retry);
            loop {
                tokio::select! {
                    () = shutdown.triggered() => return,
                    () = &mut retry => break,
                    Some(order) = self.orders.recv() => self.refuse(order),
                }
            }
        }
    }

    /// One connection from its beginning to its end.
    async fn once(&mut self) -> session::End {
        let mut session = match timeout(CONNECTING, self.connect()).await {
            Ok(Ok(session)) => session,
            Ok(Err(error)) => return session::End::new(format!("cannot connect: {error}")),
            Err(_) => return session::End::new("no connection in time"),
        };
        let greeted = match self.greet(&mut session).await {
            Ok(greeted) => greeted,
            Err(end) => return end,
        };
        self.announced = false;
        self.up(&greeted);
        self.serve(session, greeted).await
    }

    async fn connect(&self) -> std::io::Result<session::Session> {
        Ok(match &self.parts.target {
            Target::Socket(path) => session::Session::new(UnixStream::connect(path).await?),
            Target::Remote(remote) => session::Session::new(remote.connect().await?),
        })
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn up(&mut self, greeted: &greeting::Greeted) {
        let welcome = &greeted.welcome;
        // A link that breaks before everything was put loses no tables: its lanes go on with what was refused meanwhile, and
        // the audit names what is missing.
        let known = [self.parts.instance, self.begun];
        let instance_changed = !known.contains(&Some(welcome.instance));
        self.begun = Some(welcome.instance);
        tracing::info!(
            driver = %welcome.driver,
            reason = %welcome.driver_reason,
            instance = format_args!("{:016x}", welcome.instance),
            instance_changed,
            contexts = greeted.contexts.len(),
            "data plane linked"
        );
        self.parts.metrics.dataplane_up.set(1);
        self.parts.metrics.dataplane_links.inc();
        self.set(|state| {
            state.welcome = Some(welcome.clone());
            state.load.clone_from(&welcome.load);
            state.generation = greeted.generation;
        });
        for lane in 0..self.lanes.count() {
            self.lanes.tell(lane, Event::DataplaneUp { welcome: welcome.clone(), instance_changed });
        }
        self.audited(&greeted.contexts, None);
    }

    /// Tells the lanes which of their contexts the data plane holds.
    fn audited(&self, contexts: &[u64], only: Option<usize>) {
        let mut of_lane = vec![Vec::new(); self.lanes.count()];
        for context in contexts {
            let lane = self.lanes.of_context(*context);
            if let Some(list) = of_lane.get_mut(lane) {
                list.push(*context);
            }
        }
        for (lane, contexts) in of_lane.into_iter().enumerate() {
            if only.is_none_or(|only| only == lane) {
                self.lanes.tell(lane, Event::Audited(contexts));
            }
        }
    }

    fn down(&mut self, end: &session::End) {
        if !self.announced {
            tracing::warn!(why = %end, "no link to the data plane");
            self.announced = true;
        }
        let was_up = self.parts.metrics.dataplane_up.get() == 1;
        self.parts.metrics.dataplane_up.set(0);
        self.set(|state| {
            state.welcome = None;
            state.unanswered = 0;
        });
        if was_up {
            (0..self.lanes.count()).for_each(|lane| self.lanes.tell(lane, Event::DataplaneDown));
        }
    }

    /// An order that nobody can carry out now.
    fn refuse(&mut self, order: Order) {
        match order {
            Order::Program { from, ask, .. } => self.refused(from, ask, lost()),
            Order::Capture(capture, answer) => {
                let error = "no data plane is linked".to_owned();
                let state = CaptureState {
                    context: capture.context,
                    leg: capture.leg,
                    file: capture.file,
                    error,
                    ..Default::default()
                };
                let _ = answer.send(state);
            }
            Order::Drain(on) => self.draining = on,
            // A decision of a leg that is gone, an audit that the next greeting makes anyway.
            Order::Decide(_) | Order::Audit { .. } => {}
        }
    }

    fn refused(&self, from: LaneRef, ask: Ask, refusal: Refusal) {
        let reason = refusal.reason();
        self.parts.metrics.refusals.count(reason);
        self.parts.metrics.batches.count(match reason {
            Reason::Unspecified => Outcome::Unavailable,
            _ => Outcome::Refused,
        });
        let detail = &refusal.detail;
        tracing::debug!(reason = reason.label(), change = refusal.change, detail, "a batch was refused");
        self.lanes.tell(from.lane, Event::Refused { life: from.life, ask, refusal });
    }
}

/// What a lane hears of a batch that the data plane never answered.
pub(crate) fn lost() -> Refusal {
    Refusal { detail: "the data plane is not linked".to_owned(), ..Refusal::default() }
}
