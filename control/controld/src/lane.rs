//! The lanes: each owns the users and conferences that hash to it, and runs one `service::Service` for them.
//!
//! Lanes wait for nobody but the store. Whoever talks to a lane puts an [`Event`] into its inbox and goes on: new
//! requests are refused when the inbox is half full, everything that ends a transaction still fits behind them.

mod perform;
mod task;
#[cfg(test)]
pub(crate) mod tests;
mod unsaved;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::Instant;
use contract::{Applied, News, Refusal, Welcome};
use serde::Serialize;
use service::{Ask, ClientTx, LaneKey, Source};
use sip::overload::{Meter, Sample};
use sip::typed::Reason;
use sip::{Request, Response};
use tokio::sync::{mpsc, oneshot};

use crate::edge::Place;
use crate::metrics::{Discard, Metrics};

pub(crate) use perform::unavailable;
pub(crate) use task::{Parts, start};

/// A lane and which of its lives: it begins a new one whenever it is taken up from the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct LaneRef {
    pub(crate) lane: usize,
    pub(crate) life: u32,
}

/// Who waits for the answer of a request that a lane serves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Origin {
    /// The stack's server transaction.
    Network(u64),
    /// Another lane's client transaction.
    Lane { from: LaneRef, tx: ClientTx },
}

/// What a lane is told.
#[derive(Debug)]
pub(crate) enum Event {
    Request { origin: Origin, source: Source, request: Request, at: Instant, place: Option<Place> },
    Ack { source: Source, request: Request },
    Cancelled { origin: Origin, reason: Option<Reason> },
    AckMissing { server: u64 },
    Disconnected { connection: u64 },
    Response { life: u32, tx: ClientTx, response: Response },
    Expired { life: u32, tx: ClientTx },
    Applied { life: u32, ask: Ask, applied: Applied },
    Refused { life: u32, ask: Ask, refusal: Refusal },
    News(News),
    DataplaneUp { welcome: Welcome, instance_changed: bool },
    DataplaneDown,
    Audited(Vec<u64>),
    Report(oneshot::Sender<Report>),
}

/// What a lane says of itself.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Which lane.
    pub(crate) lane: usize,
    /// How often it was taken up from the store.
    pub(crate) life: u32,
    /// Events that wait.
    pub(crate) waiting: usize,
    /// Decisions that wait for their commit.
    pub(crate) held: usize,
    /// The store takes nothing: requests that would need it are answered 503.
    pub(crate) starving: bool,
    /// Changes of rows that wait for it.
    pub(crate) unsaved: usize,
    /// Requests that were not answered yet.
    pub(crate) serving: usize,
    /// Requests that it sent and that were not answered yet.
    pub(crate) sending: usize,
    /// What its service has counted, and how full its tables are.
    #[serde(flatten)]
    pub(crate) service: ServiceReport,
}

/// `service::Counters` in the words of the admin socket.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct ServiceReport {
    pub(crate) requests: u64,
    pub(crate) challenges: u64,
    pub(crate) auth_failed: u64,
    pub(crate) asks_refused: u64,
    pub(crate) outputs_lost: u64,
    pub(crate) timers_refused: u64,
    pub(crate) rows_unread: u64,
    pub(crate) contacts_unread: u64,
    pub(crate) descriptions_malformed: u64,
    pub(crate) acks_stray: u64,
    pub(crate) bindings: u64,
    pub(crate) sessions: u64,
    pub(crate) messages: u64,
    pub(crate) relays: u64,
    pub(crate) conferences: u64,
    pub(crate) files: u64,
}

impl From<service::Counters> for ServiceReport {
    fn from(c: service::Counters) -> Self {
        ServiceReport {
            requests: c.requests,
            challenges: c.challenges,
            auth_failed: c.auth_failed,
            asks_refused: c.asks_refused,
            outputs_lost: c.outputs_lost,
            timers_refused: c.timers_refused,
            rows_unread: c.rows_unread,
            contacts_unread: c.contacts_unread,
            descriptions_malformed: c.descriptions_malformed,
            acks_stray: c.acks_stray,
            bindings: c.bindings,
            sessions: c.sessions,
            messages: c.messages,
            relays: c.relays,
            conferences: c.conferences,
            files: c.files,
        }
    }
}

/// Why a lane takes no new request now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Busy {
    /// Too much waits.
    Full,
    /// It is being taken up from the store.
    Down,
}

impl From<Busy> for Discard {
    fn from(busy: Busy) -> Self {
        match busy {
            Busy::Full => Discard::LaneFull,
            Busy::Down => Discard::LaneDown,
        }
    }
}

#[derive(Debug)]
struct Inbox {
    send: mpsc::UnboundedSender<Event>,
    waiting: AtomicUsize,
    down: AtomicBool,
    /// How long its requests wait. Held for a few instructions at a time.
    meter: Mutex<Meter>,
}

impl Inbox {
    fn meter(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to every lane; all clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Lanes {
    inboxes: Arc<[Inbox]>,
    queue_max: usize,
    metrics: Arc<Metrics>,
}

impl Lanes {
    /// `count` lanes, and the end of the inbox that each lane's task reads.
    pub(crate) fn new(
        count: usize,
        queue_max: usize,
        metrics: Arc<Metrics>,
    ) -> (Lanes, Vec<mpsc::UnboundedReceiver<Event>>) {
        let (inboxes, receivers): (Vec<_>, Vec<_>) = (0..count.max(1))
            .map(|_| {
                let (send, receive) = mpsc::unbounded_channel();
                let (waiting, down) = (AtomicUsize::new(0), AtomicBool::new(true));
                (Inbox { send, waiting, down, meter: Mutex::default() }, receive)
            })
            .unzip();
        (Lanes { inboxes: inboxes.into(), queue_max, metrics }, receivers)
    }

    pub(crate) fn count(&self) -> usize {
        self.inboxes.len()
    }

    pub(crate) fn of(&self, key: LaneKey) -> usize {
        key.lane(self.count())
    }

    pub(crate) fn of_context(&self, context: u64) -> usize {
        self.of(LaneKey::of_context(context))
    }

    /// Gives a lane a new request, if it takes one.
    pub(crate) fn offer(&self, now: Instant, lane: usize, event: Event) -> Result<(), Busy> {
        let Some(inbox) = self.inboxes.get(lane) else { return Err(Busy::Down) };
        if inbox.down.load(Ordering::Relaxed) {
            return Err(Busy::Down);
        }
        if inbox.waiting.load(Ordering::Relaxed) >= self.queue_max / 2 {
            return Err(Busy::Full);
        }
        if let Event::Request { origin, .. } = &event {
            inbox.meter().put(now, matches!(origin, Origin::Lane { .. }));
        }
        self.put(inbox, event);
        Ok(())
    }

    /// Tells a lane what ends or changes something that it has already. There are few of these for each request that
    /// was taken; beyond the last limit they are dropped and counted.
    pub(crate) fn tell(&self, lane: usize, event: Event) {
        let Some(inbox) = self.inboxes.get(lane) else { return };
        if inbox.waiting.load(Ordering::Relaxed) >= self.queue_max.saturating_mul(4) {
            self.metrics.discarded.count(Discard::LaneOverflow);
            return;
        }
        self.put(inbox, event);
    }

    /// Tells every lane that a connection is over.
    pub(crate) fn disconnected(&self, connection: u64) {
        for lane in 0..self.inboxes.len() {
            self.tell(lane, Event::Disconnected { connection });
        }
    }

    fn put(&self, inbox: &Inbox, event: Event) {
        inbox.waiting.fetch_add(1, Ordering::Relaxed);
        // A lane that has ended needs to hear nothing.
        let _ = inbox.send.send(event);
    }

    fn took(&self, lane: usize) {
        if let Some(inbox) = self.inboxes.get(lane) {
            inbox.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A request left the inbox, which came to us at `at`.
    fn took_request(&self, lane: usize, now: Instant, at: Instant) {
        if let Some(inbox) = self.inboxes.get(lane) {
            let waited = inbox.meter().took(now, at);
            self.metrics.waits.observe(waited.as_secs_f64());
        }
    }

    /// How long a request would wait in a lane's inbox.
    pub(crate) fn expected(&self, lane: usize, now: Instant) -> Duration {
        self.inboxes.get(lane).map_or(Duration::ZERO, |inbox| inbox.meter().expected(now))
    }

    /// What each lane has measured since it was asked last.
    pub(crate) fn samples(&self, now: Instant) -> Vec<Sample> {
        self.inboxes.iter().map(|inbox| inbox.meter().look(now)).collect()
    }

    fn set_down(&self, lane: usize, down: bool) {
        if let Some(inbox) = self.inboxes.get(lane) {
            inbox.down.store(down, Ordering::Relaxed);
        }
    }

    /// Events that wait in one inbox.
    pub(crate) fn waiting(&self, lane: usize) -> usize {
        self.inboxes.get(lane).map_or(0, |inbox| inbox.waiting.load(Ordering::Relaxed))
    }

    /// Events that wait, over all lanes.
    pub(crate) fn waiting_in_all(&self) -> usize {
        (0..self.count()).map(|lane| self.waiting(lane)).sum()
    }

    /// What each lane says of itself; lanes that do not answer in time are left out.
    pub(crate) async fn reports(&self) -> Vec<Report> {
        let mut answers = Vec::new();
        for lane in 0..self.count() {
            let (send, receive) = oneshot::channel();
            self.tell(lane, Event::Report(send));
            answers.push(receive);
        }
        let mut reports = Vec::new();
        for answer in answers {
            let patience = std::time::Duration::from_secs(2);
            if let Ok(Ok(report)) = tokio::time::timeout(patience, answer).await {
                reports.push(report);
            }
        }
        reports
    }
}
