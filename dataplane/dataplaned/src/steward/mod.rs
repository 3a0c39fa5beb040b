//! The steward: speaks `contract` with control, carries batches to the shards and their words back, and keeps the sums
//! for Prometheus. One thread; it touches no packet.

mod circles;
mod door;
mod link;
mod links;
mod rounds;
mod second;
mod spread;
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use contract::from_dataplane::Body;
use contract::refusal::Reason;
use contract::to_dataplane::Body as Order;
use contract::{Audited, Batch, Capture, CaptureState, Change, Load, News, news};
use crossbeam::channel::Receiver;
use mio::net::UnixListener;
use mio::{Events, Interest, Poll, Token, Waker};
use netio::Wake;

use crate::mail::{Figures, Outgoing, ToShard, ToSteward};
use crate::metrics::Metrics;
use crate::shard::home;
use crate::spool::ToSpool;
pub(crate) use circles::Circles;
pub(crate) use door::{Door, adapter};
pub(crate) use link::End;
use link::Link;
pub(crate) use rounds::Rounds;
pub(crate) use wire::Remote;

const LISTENER: Token = Token(0);
pub(crate) const WAKER: Token = Token(1);
const REMOTE: Token = Token(2);
/// After those of the ng door.
const FIRST_LINK: usize = 5;
/// Connections at once: the owner, its successor, and some that have not said who they are.
const LINKS_MAX: usize = 8;
/// The same for those from other hosts, where anybody may call who has not shown a certificate yet.
const REMOTE_LINKS_MAX: usize = 64;
/// How long a connection may take to say Hello.
const GREETING: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(250);
/// Orders that may wait for a shard before control is not read any more.
const LATE_MAX: usize = 1024;

/// What the steward says of the process.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) instance: u64,
    pub(crate) driver: String,
    pub(crate) driver_reason: String,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) dtls_fingerprint: Vec<u8>,
    pub(crate) contexts_max: u64,
    pub(crate) legs_max: u64,
}

pub(crate) struct Steward {
    pub(crate) poll: Poll,
    pub(crate) listener: UnixListener,
    /// For controls of other hosts.
    pub(crate) remote: Option<Remote>,
    /// For a proxy that speaks the ng protocol.
    pub(crate) door: Option<Door>,
    pub(crate) identity: Identity,
    pub(crate) shards: Vec<Outgoing<ToShard, Wake>>,
    /// Where the legs of contexts on several shards are.
    pub(crate) rounds: Rounds,
    /// Legs whose peers are legs.
    pub(crate) circles: Circles,
    pub(crate) mailbox: Receiver<ToSteward>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: Arc<AtomicBool>,
}

/// The Unix socket of control; a file that a dead process left is replaced, that of a living one is not.
pub(crate) fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    if path.exists() {
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => anyhow::bail!("another data plane listens on {}", path.display()),
            Err(_) => std::fs::remove_file(path)?,
        }
    }
    let listener = UnixListener::bind(path)
        .map_err(|error| anyhow::anyhow!("the socket {} cannot be made: {error}", path.display()))?;
    // Whoever may write to it commands the data plane.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// A poll and what wakes it.
pub(crate) fn poll() -> io::Result<(Poll, Arc<Waker>)> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    Ok((poll, waker))
}

struct State {
    links: BTreeMap<usize, Link>,
    next_link: usize,
    owner: Option<usize>,
    epoch: u64,
    generation: u64,
    draining: bool,
    /// By link and audit: the shards that have not said their last part.
    audits: BTreeMap<(u64, u64), usize>,
    figures: Vec<Figures>,
    /// Links whose orders wait because a shard is behind.
    held: bool,
}

impl Steward {
    pub(crate) fn run(mut self) -> anyhow::Result<()> {
        self.poll.registry().register(&mut self.listener, LISTENER, Interest::READABLE)?;
        if let Some(remote) = &mut self.remote {
            self.poll.registry().register(&mut remote.listener, REMOTE, Interest::READABLE)?;
        }
        if let Some(door) = &mut self.door {
            door.register(self.poll.registry())?;
        }
        let mut state = State {
            links: BTreeMap::new(),
            next_link: FIRST_LINK,
            owner: None,
            epoch: 0,
            generation: 0,
            draining: false,
            audits: BTreeMap::new(),
            figures: vec![Figures::default(); self.shards.len()],
            held: false,
        };
        let mut events = Events::with_capacity(64);
        let mut next_tick = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            let wait = match state.held {
                true => Duration::from_millis(1),
                false if self.has_more() => Duration::from_millis(0),
                false => next_tick.saturating_duration_since(Instant::now()),
            };
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            let tokens: Vec<Token> = events.iter().map(mio::event::Event::token).collect();
            if tokens.contains(&LISTENER) {
                self.accept(&mut state);
            }
            if tokens.contains(&REMOTE) {
                self.accept_remote(&mut state);
            }
            self.mail(&mut state);
            self.go_on(&mut state);
            let ready: Vec<usize> = match state.held {
                true => state.links.keys().copied().collect(),
                false => tokens.iter().map(|token| token.0).filter(|token| *token >= FIRST_LINK).collect(),
            };
            for token in ready {
                self.read(&mut state, token);
            }
            self.at_the_door(&mut state);
            if Instant::now() >= next_tick {
                next_tick = Instant::now() + TICK;
                self.tick(&mut state);
            }
            self.shards.iter_mut().for_each(Outgoing::flush);
            self.write(&mut state);
        }
        Ok(())
    }

    fn order(&mut self, state: &mut State, token: usize, order: Order) {
        let link = token as u64;
        match order {
            Order::Batch(batch) => self.batch(state, token, batch),
            Order::Decide(decide) => {
                match &decide.leg {
                    Some(leg) => {
                        let at = self.shard_of(leg.context, Some(leg.leg));
                        if let Some(shard) = self.shards.get_mut(at) {
                            shard.send(ToShard::Decide(Box::new(decide)));
                        }
                    }
                    // Of no leg: the question's number says which shard has asked.
                    None => {
                        let asker = usize::try_from(decide.id >> forward::SHARD_SHIFT).unwrap_or(usize::MAX);
                        if let Some(shard) = self.shards.get_mut(asker) {
                            shard.send(ToShard::Decide(Box::new(decide)));
                        }
                    }
                }
            }
            Order::Audit(audit) => {
                state.audits.insert((link, audit.id), self.shards.len());
                for shard in &mut self.shards {
                    shard.send(ToShard::Audit { link, id: audit.id });
                }
            }
            Order::Capture(capture) => self.capture(state, token, capture),
            Order::Drain(drain) => {
                state.draining = drain.on;
                self.door.iter_mut().for_each(|door| door.drain(drain.on));
                for shard in &mut self.shards {
                    shard.send(ToShard::Drain(drain.on));
                }
            }
            Order::Hello(_) => {}
        }
    }

    /// A batch goes to the home shard of its contexts, whole: all or nothing holds within a shard (see `Batch` in the
    /// contract). Control, which does not know the homes, sends one batch per context.
    fn batch(&mut self, state: &mut State, token: usize, batch: Batch) {
        let generation = batch.generation;
        if batch.epoch < state.epoch {
            self.metrics.refused(Reason::Epoch);
            return self.refuse(state, token, generation, Reason::Epoch, 0, "a later owner has spoken");
        }
        // Generation 0 is no order at all: the door's own (see `second`), who does not take part in control's.
        if generation == 0 {
            self.metrics.refused(Reason::Generation);
            return self.refuse(state, token, generation, Reason::Generation, 0, "not after the last one");
        }
        let foreign = |change: &Change| change.context().is_some_and(|context| self.is_second(context));
        if let Some(change) = batch.changes.iter().position(foreign) {
            self.metrics.refused(Reason::Unsupported);
            let detail = "a context of another owner";
            return self.refuse(state, token, generation, Reason::Unsupported, change, detail);
        }
        let shards = self.shards.len();
        let homes: Vec<usize> =
            batch.changes.iter().filter_map(Change::context).map(|context| home(context, shards)).collect();
        let first = homes.first().copied().unwrap_or(0);
        if let Some(change) = homes.iter().position(|home| *home != first) {
            // All or nothing holds within a shard: the batch has to be split by its sender.
            self.metrics.refused(Reason::Unsupported);
            let detail = "contexts of several shards in one batch";
            return self.refuse(state, token, generation, Reason::Unsupported, change, detail);
        }
        if self.rounds.is_on() {
            return self.spread(state, token, first, batch);
        }
        if self.goes_round(state, token, &batch) {
            return;
        }
        if let Some(shard) = self.shards.get_mut(first) {
            shard.send(ToShard::Batch { link: token as u64, batch: Box::new(batch) });
        }
    }

    /// Refuses a batch that would let media go round for ever; otherwise it counts from now on.
    fn goes_round(&mut self, state: &mut State, token: usize, batch: &Batch) -> bool {
        let Err(change) = self.circles.send(token as u64, batch) else { return false };
        self.metrics.refused(Reason::BadLeg);
        let detail = "media would go round for ever between legs of this data plane";
        self.refuse(state, token, batch.generation, Reason::BadLeg, change, detail);
        true
    }

    fn capture(&mut self, state: &mut State, token: usize, capture: Capture) {
        let Capture { context, file, on, max_bytes, leg } = capture;
        let leg = (leg != 0).then_some(leg);
        let mut error = "";
        if on && !is_file_name(&file, leg.is_some()) {
            error = "the file name is no plain name that ends in .pcap (or .rtpdump, for one leg)";
        }
        if error.is_empty() {
            // By way of the shard, so that the file has each packet from its opening to its end.
            let order = match on {
                true => ToSpool::Open { context, leg, file, max_bytes },
                false => ToSpool::Close { context, leg },
            };
            let at = self.shard_of(context, leg);
            if let Some(shard) = self.shards.get_mut(at) {
                shard.send(ToShard::Capture { context, leg, order });
            }
            if leg.is_none() {
                self.trace(context, on);
            }
            return;
        }
        if let Some(link) = state.links.get_mut(&token) {
            let refused = CaptureState {
                context,
                file,
                leg: leg.unwrap_or(0),
                error: error.to_owned(),
                ..CaptureState::default()
            };
            link.say(Body::CaptureState(refused));
        }
    }

    fn mail(&mut self, state: &mut State) {
        // No more than what was there: a shard that talks without end does not keep control waiting.
        for _ in 0..self.mailbox.len() {
            let Ok(message) = self.mailbox.try_recv() else { break };
            match message {
                ToSteward::Say { link, body } => {
                    match (link, &body) {
                        (Some(link), Body::Applied(a)) => self.rounds.answered(link, a.generation, true),
                        (Some(link), Body::Refusal(r)) => self.rounds.answered(link, r.generation, false),
                        _ => {}
                    }
                    self.say(state, link, body);
                }
                ToSteward::Bound { round, shard, bound } => self.bound(state, round, shard, bound),
                ToSteward::Decided { round, body } => self.decided(state, round, body),
                ToSteward::Followed { round, shard } => self.followed(state, round, shard),
                ToSteward::Audited { link, id, part, last } => {
                    audited(state, link, id, self.without_second(part), last);
                }
                ToSteward::Figures(figures) => {
                    self.metrics.take(&figures);
                    let at = usize::from(figures.shard);
                    if let Some(place) = state.figures.get_mut(at) {
                        *place = *figures;
                    }
                }
                ToSteward::Captured { state: capture, over } => {
                    if over {
                        let (context, leg) = (capture.context, (capture.leg != 0).then_some(capture.leg));
                        let at = self.shard_of(context, leg);
                        if let Some(shard) = self.shards.get_mut(at) {
                            shard.send(ToShard::CaptureOver { context, leg });
                        }
                        if leg.is_none() {
                            self.trace(context, false);
                        }
                        self.metrics.capture_missed(capture.missed);
                    }
                    if let Some(owner) = state.owner.and_then(|owner| state.links.get_mut(&owner)) {
                        owner.say(Body::CaptureState(capture));
                    }
                }
            }
        }
    }

    /// A shard's words for control: an answer to the link that asked, news to whoever is linked.
    fn say(&mut self, state: &mut State, link: Option<u64>, body: Body) {
        match (link, &body) {
            (Some(link), Body::Applied(applied)) => {
                self.circles.answered(link, applied.generation, Some(applied));
            }
            (Some(link), Body::Refusal(refusal)) => self.circles.answered(link, refusal.generation, None),
            _ => {}
        }
        if let Body::News(News { what: Some(news::What::Counters(counters)) }) = &body {
            self.metrics.legs(&counters.legs);
        }
        let Some(body) = self.for_control(link, body) else { return };
        match &body {
            Body::Applied(applied) => {
                state.generation = state.generation.max(applied.generation);
                self.metrics.applied();
            }
            Body::Refusal(refusal) => self.metrics.refused(refusal.reason()),
            _ => {}
        }
        let owner = state.owner.and_then(|owner| state.links.get_mut(&owner));
        if let Some(owner) = owner.filter(|owner| link.is_none_or(|link| link == owner.id)) {
            owner.say(body);
        }
    }

    fn tick(&mut self, state: &mut State) {
        let load = self.load(state);
        self.metrics.load(&load, state.owner.is_some());
        if let Some(door) = &self.door {
            self.metrics.ng(&door.tally());
        }
        if let Some(owner) = state.owner.and_then(|owner| state.links.get_mut(&owner)) {
            owner.say(Body::News(News { what: Some(news::What::Load(load)) }));
        }
        let late: Vec<usize> = state
            .links
            .iter()
            .filter(|(_, link)| !link.greeted && link.since.elapsed() > GREETING)
            .map(|(token, _)| *token)
            .collect();
        for token in late {
            self.end(state, token, &End::Silent);
        }
    }

    fn load(&self, state: &State) -> Load {
        let sum = |of: fn(&Figures) -> u64| state.figures.iter().map(of).sum();
        Load {
            shards: u32::try_from(self.shards.len()).unwrap_or(u32::MAX),
            contexts: sum(|figures| figures.totals.contexts),
            contexts_max: self.identity.contexts_max,
            legs: sum(|figures| figures.totals.legs),
            legs_max: self.identity.legs_max,
            busy_permille: state.figures.iter().map(|figures| figures.busy_permille).max().unwrap_or(0),
            draining: state.draining,
            relay_sessions: sum(|figures| figures.totals.relay_sessions),
            spill_bytes: sum(|figures| figures.totals.spill_bytes),
            spill_files: sum(|figures| figures.totals.spill_files),
        }
    }
}

fn audited(state: &mut State, link: u64, id: u64, mut part: Audited, last: bool) {
    let Some(left) = state.audits.get_mut(&(link, id)) else { return };
    *left -= usize::from(last);
    let over = *left == 0;
    if over {
        state.audits.remove(&(link, id));
    }
    part.id = id;
    part.more = !over;
    part.generation = part.generation.max(state.generation);
    let owner = state.owner.and_then(|owner| state.links.get_mut(&owner));
    if let Some(owner) = owner.filter(|owner| owner.id == link) {
        owner.say(Body::Audited(part));
    }
}

/// A name within the spool's folder: no separators, nothing hidden, ends in `.pcap`, or for one leg in `.rtpdump`.
fn is_file_name(name: &str, leg: bool) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let ends = name.ends_with(".pcap") || (leg && name.ends_with(".rtpdump"));
    name.len() <= 128 && ends && !name.starts_with('.') && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_capture_stays_in_its_folder() {
        for (name, good) in [
            ("call-1.pcap", true),
            ("../call.pcap", false),
            ("/tmp/call.pcap", false),
            (".pcap", false),
            ("call", false),
            ("a\0.pcap", false),
        ] {
            assert_eq!(super::is_file_name(name, false), good, "{name:?}");
        }
        assert!(super::is_file_name("leg.rtpdump", true) && !super::is_file_name("leg.rtpdump", false));
    }
}
