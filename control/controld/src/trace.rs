//! The trace bus: who follows one call hears of it here, wherever it goes (`weir trace`).
//!
//! ```text
//!   edge   each SIP message on the wire ──────┐
//!   lane   SIP between functions, decisions ──┤                 each tracer
//!   link   batches, answers, news ────────────┴─▶ Bus ─▶ is it followed? ─▶ masked ─▶ bounded queue ─▶ admin socket
//! ```
//!
//! While nobody follows anything it costs one relaxed load of a flag for each message and decision. A tracer that is slow
//! loses events, which are counted and told to it; it never holds anything up. Whoever may ask on the admin socket may
//! trace; numbers and names are masked unless he asks for them, bodies are left out unless he asks for those.
//!
//! What belongs to a followed call is learned on the way ([`follow`]): the legs that a function makes of it, the media
//! contexts that it orders, the answers of the data plane.

mod contract;
mod decision;
mod event;
mod follow;
mod mask;
mod said;
#[cfg(test)]
mod tests;
mod trail;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ::contract::{Applied, Batch, News, Refusal};
use serde::{Deserialize, Serialize};
use service::{Acted, UserId};
use sip::Peer;
use tokio::sync::mpsc;

pub(crate) use decision::Heard;
pub use event::{Event, Kind};
use follow::{Filter, Follow};
use mask::Mask;
use said::Said;
pub(crate) use trail::Trail;

use crate::clock::Clock;
use crate::metrics::{Copied, Metrics};

/// The section `[trace]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Tracers at once; 0 = nobody may trace.
    pub tracers_max: usize,
    /// Seconds after which a tracer is ended, unless it asked for less.
    pub seconds_max: u64,
    /// Events that may wait for one tracer; it loses the further ones.
    pub queue_max: usize,
    /// Call-IDs, and as many media contexts, that one tracer follows; what would be more is not followed.
    pub calls_max: usize,
    /// Octets of one body that a tracer is shown, if it asks for bodies.
    pub body_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { tracers_max: 4, seconds_max: 3600, queue_max: 4096, calls_max: 1024, body_max: 8192 }
    }
}

/// What is wanted of a trace: exactly one of the first four.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wanted {
    /// The call of this Call-ID.
    pub call_id: Option<String>,
    /// Everything of this Conversation-ID.
    pub conversation_id: Option<String>,
    /// The session or message of this Contribution-ID.
    pub contribution_id: Option<String>,
    /// Whatever this user sends and is sent (a sip or tel URI).
    pub user: Option<String>,
    /// Seconds; 0 = as long as the configuration allows.
    pub seconds: u64,
    /// Show numbers and names.
    pub unmasked: bool,
    /// Show bodies.
    pub bodies: bool,
}

/// One that follows something.
struct Tracer {
    id: u64,
    follow: Follow,
    queue: mpsc::Sender<Event>,
    lost: Arc<AtomicU64>,
}

struct Shared {
    /// Somebody follows something.
    on: AtomicBool,
    tracers: Mutex<Vec<Tracer>>,
    serial: AtomicU64,
    settings: Settings,
    /// Names in addresses that are nobody's.
    open: Vec<String>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// The bus; all clones are the same.
#[derive(Clone)]
pub(crate) struct Bus {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus").field("on", &self.is_on()).finish_non_exhaustive()
    }
}

/// A trace that is open; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Tracing {
    id: u64,
    bus: Bus,
    /// What happened.
    pub(crate) events: mpsc::Receiver<Event>,
    /// What did not fit into the queue, so far.
    pub(crate) lost: Arc<AtomicU64>,
    /// When it ends.
    pub(crate) seconds: u64,
}

impl Drop for Tracing {
    fn drop(&mut self) {
        let mut tracers = self.bus.tracers();
        tracers.retain(|tracer| tracer.id != self.id);
        self.bus.shared.on.store(!tracers.is_empty(), Ordering::Relaxed);
    }
}

impl Bus {
    /// Nobody follows anything yet. `open`: user parts of addresses that are nobody's.
    pub(crate) fn new(settings: Settings, open: Vec<String>, clock: Clock, metrics: Arc<Metrics>) -> Bus {
        Bus {
            shared: Arc::new(Shared {
                on: AtomicBool::new(false),
                tracers: Mutex::default(),
                serial: AtomicU64::new(0),
                settings,
                open,
                clock,
                metrics,
            }),
        }
    }

    /// One for tests that follow nothing.
    #[cfg(test)]
    pub(crate) fn idle(metrics: Arc<Metrics>) -> Bus {
        Bus::new(Settings::default(), Vec::new(), Clock::start(), metrics)
    }

    /// Whether anybody follows anything: what every message asks.
    pub(crate) fn is_on(&self) -> bool {
        self.shared.on.load(Ordering::Relaxed)
    }

    /// Follows something from now on; why not, in words for people.
    pub(crate) fn open(&self, wanted: &Wanted) -> Result<Tracing, String> {
        let settings = self.shared.settings;
        let filter = filter(wanted)?;
        let seconds = match wanted.seconds {
            0 => settings.seconds_max,
            asked => asked.min(settings.seconds_max),
        };
        let mask = Mask::new(!wanted.unmasked, self.shared.open.clone());
        let body_max = if wanted.bodies { settings.body_max } else { 0 };
        let mut tracers = self.tracers();
        if tracers.len() >= settings.tracers_max {
            return Err(format!("{} tracers are there already (trace.tracers_max)", tracers.len()));
        }
        let (queue, events) = mpsc::channel(settings.queue_max.max(1));
        let lost = Arc::new(AtomicU64::new(0));
        let id = self.shared.serial.fetch_add(1, Ordering::Relaxed) + 1;
        let began = self.shared.clock.now().mono;
        let follow = Follow::new(filter, mask, settings.calls_max, body_max, began);
        tracers.push(Tracer { id, follow, queue, lost: lost.clone() });
        self.shared.on.store(true, Ordering::Relaxed);
        Ok(Tracing { id, bus: self.clone(), events, lost, seconds })
    }

    fn tracers(&self) -> std::sync::MutexGuard<'_, Vec<Tracer>> {
        self.shared.tracers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets each tracer see something; what it makes of it goes into its queue.
    fn each(&self, mut see: impl FnMut(&mut Follow, &mut Vec<Event>)) {
        let now = self.shared.clock.now();
        let mut events = Vec::new();
        for tracer in self.tracers().iter_mut() {
            see(&mut tracer.follow, &mut events);
            for mut event in events.drain(..) {
                tracer.follow.stamp(&mut event, now);
                let sent = tracer.queue.try_send(event).is_ok();
                if !sent {
                    tracer.lost.fetch_add(1, Ordering::Relaxed);
                }
                self.shared.metrics.traced.count(if sent { Copied::Sent } else { Copied::Lost });
            }
        }
    }

    /// A message is on the wire: to that peer, or from it.
    pub(crate) fn wire(&self, peer: Peer, outgoing: bool, message: &[u8]) {
        // What does not parse has no Call-ID that could be followed.
        let bytes = bytes::Bytes::copy_from_slice(message);
        let limits = sip::Limits::default();
        let Ok(Some(message)) = sip::datagram(bytes, &limits) else { return };
        let said = Said::message(&message);
        self.each(|follow, events| follow.wire(peer, outgoing, &said, events));
    }

    /// A lane has heard something and made up its mind.
    pub(crate) fn decided(&self, decision: &decision::Decision<'_>) {
        self.each(|follow, events| follow.decided(decision, events));
    }

    /// The data plane is given an order.
    pub(crate) fn ordered(&self, batch: &Batch) {
        self.each(|follow, events| follow.ordered(batch, events));
    }

    /// The data plane has carried out an order, or refuses it.
    pub(crate) fn answered(&self, generation: u64, answer: Result<&Applied, &Refusal>) {
        self.each(|follow, events| follow.answered(generation, answer, events));
    }

    /// The data plane has news.
    pub(crate) fn news(&self, news: &News) {
        self.each(|follow, events| follow.news(news, events));
    }
}

fn filter(wanted: &Wanted) -> Result<Filter, String> {
    let Wanted { call_id, conversation_id, contribution_id, user, .. } = wanted;
    let ids = [call_id, conversation_id, contribution_id, user];
    if ids.iter().filter(|id| id.is_some()).count() != 1 || ids.iter().any(|id| id.as_deref() == Some("")) {
        return Err("one of Call-ID, Conversation-ID, Contribution-ID and user is followed".to_owned());
    }
    Ok(match (call_id, conversation_id, contribution_id, user) {
        (Some(id), ..) => Filter::Call(id.clone()),
        (_, Some(id), ..) => Filter::Conversation(id.clone()),
        (_, _, Some(id), _) => Filter::Contribution(id.clone()),
        (.., Some(user)) => Filter::User(
            UserId::parse(user).map_err(|_| "the user is no sip or tel URI that names one".to_owned())?,
        ),
        _ => return Err("nothing is followed".to_owned()),
    })
}

/// The function that a lane's event was taken by, in the words of a ladder's columns.
pub(crate) fn column(acted: Acted) -> Option<&'static str> {
    use service::Function::{Controlling, Originating, Participating, Registrar, Terminating};
    acted.function.map(|function| match function {
        Originating | Terminating | Participating => event::PARTICIPATING,
        Controlling => event::CONTROLLING,
        Registrar => event::REGISTRAR,
    })
}
