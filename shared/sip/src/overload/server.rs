//! The server's end: how much each queue takes, which requests are refused, and what clients are told (RFC 7339 §5.3).
//!
//! ```text
//!            least wait of an interval > target
//!   Rest ────────────────────────────────────────▶ Limited(budget)
//!     ▲                                              │  least wait > target:  budget = what was taken, less what must drain
//!     └── for REST_INTERVALS no more was wanted ◀────┤  else:                 budget + 1/10, at least what was taken
//!
//!   budget - (in dialogs, emergency, priority) - (from inside) - (rate clients) = room for those that begin something
//!   share refused = 1 - room / what is wanted        loss told = the same of all requests        rate told = room / clients
//! ```
//!
//! The least wait of an interval is what CoDel (RFC 8289 §3.2) calls a standing queue: a burst that is gone within an
//! interval changes nothing. A queue whose next request would wait beyond all use takes none, whatever the budget.
//!
//! Clients that obey are not refused their share a second time: what they want is what comes, over what they let through.
//! Only who is believed counts as one: `oc` costs nothing to write.

use std::time::Duration;

use base::{Entropy, HashSeed, Instant, Map, UnixTime, map};

use super::{Advice, Class, Sample, Seq, Settings};
use crate::peer::Peer;

/// Intervals without need after which a limit is taken off.
const REST_INTERVALS: u32 = 20;
/// Of what a queue gives out, so much goes on being taken while it drains.
const DRAIN_SHARE_MAX: f64 = 0.9;
/// How a budget grows while there is no standing queue.
const GROWTH: f64 = 1.1;
/// Requests of an interval that are taken to see whether more can be.
const PROBES: f64 = 1.0;
/// Clients are taken to let through at least this: what they want is not known beyond.
const LET_THROUGH_MIN: f64 = 0.02;
/// Of what rate clients were told: whoever uses more than this may want more than he was told.
const PRESSED: f64 = 0.6;
/// How long a rate client is one after its last request.
const CLIENT_LASTS: Duration = Duration::from_secs(2);

/// Why a request is refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Shed {
    /// It is in the share that is refused.
    Share,
    /// It would wait beyond all use.
    Late,
}

/// What the sender of a request does about what we tell it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Obeys {
    /// Nothing, or it is not believed: we refuse for it.
    Nothing,
    /// It keeps back the percentage that it was told.
    Loss,
    /// It keeps to the rate that it was told.
    Rate(Peer),
}

/// What came of an interval.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Tick {
    /// What our responses say from now on.
    pub advice: Advice,
    /// Queues that are limited.
    pub limited: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    /// Requests in a second.
    budget: Option<f64>,
    /// What it gave out in a second when it had a standing queue.
    capacity: f64,
    /// Of the requests that begin something and whose sender does not obey.
    share: f64,
    /// Intervals without need.
    rest: u32,
    /// What loss clients want in a second, smoothed.
    wanted: f64,
    // Arrivals of this interval.
    plain: u32,
    loss: u32,
    rate: u32,
    kept: u32,
}

/// The control of every queue of a node.
#[derive(Debug)]
pub struct Server {
    settings: Settings,
    lines: Vec<Line>,
    looked: Instant,
    said: u64,
    /// What loss clients let through of what begins something.
    through: f64,
    /// What rate clients were told.
    rate: Option<u32>,
    clients: Map<Peer, Instant>,
}

impl Server {
    /// For so many queues.
    pub fn new(settings: Settings, queues: usize, seed: HashSeed) -> Server {
        let lines = vec![Line::default(); queues.max(1)];
        Server {
            settings,
            lines,
            looked: Instant::ZERO,
            said: 0,
            through: 1.0,
            rate: None,
            clients: map(seed),
        }
    }

    /// As it was made.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// When [`Server::tick`] wants to be called.
    pub fn next_tick(&self) -> Instant {
        self.looked + Duration::from_millis(self.settings.interval_ms)
    }

    /// True while any queue is limited: only then does it matter who obeys.
    pub fn is_limiting(&self) -> bool {
        self.lines.iter().any(|line| line.budget.is_some())
    }

    /// Whether a new request is taken into a queue, in which it would wait for so long from its arrival on.
    pub fn admit(
        &mut self,
        now: Instant,
        queue: usize,
        class: Class,
        obeys: Obeys,
        waits: Duration,
        entropy: &mut Entropy,
    ) -> Result<(), Shed> {
        let Some(line) = self.lines.get_mut(queue).filter(|_| self.settings.on) else { return Ok(()) };
        // RFC 7339 §5.10.1: these are never refused for overload.
        if !class.may_be_shed() {
            line.kept += 1;
            return Ok(());
        }
        match obeys {
            Obeys::Nothing => line.plain += 1,
            Obeys::Loss => line.loss += 1,
            Obeys::Rate(peer) => {
                line.rate += 1;
                if self.clients.len() < self.settings.rate_peers_max || self.clients.contains_key(&peer) {
                    self.clients.insert(peer, now);
                }
            }
        }
        if waits > Duration::from_millis(self.settings.wait_max_ms) {
            return Err(Shed::Late);
        }
        // §5.10.2: who knows nothing of this control has no advantage of it.
        if obeys == Obeys::Nothing && line.share > 0.0 && draw(entropy) < line.share {
            return Err(Shed::Share);
        }
        Ok(())
    }

    /// Ends an interval: what each queue measured in it makes the next one's budget.
    pub fn tick(&mut self, now: Instant, wall: UnixTime, samples: &[Sample]) -> Tick {
        let seconds = now.since(self.looked).as_secs_f64().max(0.001);
        self.looked = now;
        self.clients.retain(|_, heard| now.since(*heard) < CLIENT_LASTS);
        let (mut wanted, mut refused, mut kept, mut rated) = (0.0, 0.0, 0.0, 0.0);
        let mut limited = 0;
        // Rate clients that use most of what they were told would send more: how much is not known.
        let rates: f64 = self.lines.iter().map(|line| f64::from(line.rate)).sum();
        let told = self.rate.map_or(f64::INFINITY, f64::from) * self.clients.len() as f64;
        let pressed = rates / seconds > told * PRESSED;
        for (line, sample) in self.lines.iter_mut().zip(samples) {
            let fixed = (f64::from(line.kept) + sample.inner as f64) / seconds;
            line.wanted = (line.wanted + f64::from(line.loss) / seconds / self.through) / 2.0;
            let wants = f64::from(line.plain) / seconds + line.wanted;
            let rate = f64::from(line.rate) / seconds;
            let comes = if pressed && line.rate > 0 { f64::INFINITY } else { wants + fixed + rate };
            line.learn(&self.settings, sample, seconds, comes);
            let room = match line.budget {
                None => (sample.taken as f64 / seconds * 2.0 - fixed).max(1.0),
                Some(budget) => (budget - fixed).max(0.0),
            };
            line.share = match line.budget {
                Some(_) if wants > (room - rate).max(0.0) => 1.0 - (room - rate).max(0.0) / wants,
                _ => 0.0,
            };
            limited += usize::from(line.budget.is_some());
            wanted += wants;
            refused += wants * line.share;
            kept += f64::from(line.kept) / seconds;
            // RFC 7415 §3.5.2: a rate is of all requests, also of those that go first.
            rated += room + f64::from(line.kept) / seconds;
            (line.plain, line.loss, line.rate, line.kept) = (0, 0, 0, 0);
        }
        let of_all = if wanted > 0.0 { refused / (wanted + kept) } else { 0.0 };
        let loss = (of_all * 100.0).round().clamp(0.0, 100.0) as u8;
        // What that means for those requests that may be kept back: the clients hold all of it against them.
        let of_wanted = if wanted > 0.0 { f64::from(loss) / 100.0 * (wanted + kept) / wanted } else { 0.0 };
        self.through = (1.0 - of_wanted).max(LET_THROUGH_MIN);
        let sharers = self.clients.len() + usize::from(wanted > 0.0);
        self.rate = (limited > 0).then(|| (rated / sharers.max(1) as f64).round() as u32);
        // RFC 7339 §4.4: it grows, whatever the clock does.
        self.said = wall.as_millis().max(self.said + 1);
        let advice = Advice {
            loss,
            rate: self.rate,
            validity: Duration::from_millis(self.settings.validity_ms),
            seq: Seq::of_millis(self.said),
            prefer: self.settings.prefer,
        };
        Tick { advice, limited }
    }
}

impl Line {
    /// What the queue has shown in an interval.
    fn learn(&mut self, settings: &Settings, sample: &Sample, seconds: f64, comes: f64) {
        let target = Duration::from_millis(settings.target_ms);
        let taken = sample.taken as f64 / seconds;
        if sample.least > target {
            if sample.taken > 0 {
                self.capacity = if self.capacity > 0.0 { (self.capacity + taken) / 2.0 } else { taken };
            }
            let drain = Duration::from_millis(settings.drain_ms).as_secs_f64();
            let excess = (sample.least - target).as_secs_f64() / drain;
            self.budget = Some(taken * (1.0 - excess.min(DRAIN_SHARE_MAX)));
            self.rest = 0;
        } else if let Some(budget) = self.budget {
            // No further ahead of what was shown than the next interval can tell, but some in any case: of nothing, nothing
            // would be learnt. An interval in which little came says nothing against what was there before.
            let shown = self.capacity.max(taken);
            let ahead = shown * GROWTH + PROBES / seconds;
            let grown = (budget * GROWTH + PROBES / seconds).min(ahead);
            let budget = budget.max(grown).max(shown * 0.95);
            self.rest = if comes < budget { self.rest + 1 } else { 0 };
            self.budget = (self.rest < REST_INTERVALS).then_some(budget);
        }
    }
}

/// From 0 to below 1.
fn draw(entropy: &mut Entropy) -> f64 {
    f64::from(entropy.u32()) / (f64::from(u32::MAX) + 1.0)
}
