//! A shard: one thread, pinned to one core, with its driver and its engine. Its loop is
//! receive → look up → rewrite → send; the middle two are the engine's.

mod attach;
mod hands;
mod kernel;
mod outposts;
mod ports;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base::{Entropy, HashSeed, Instant, Now, Outbox, UnixTime};
use contract::from_dataplane::Body;
use contract::{Audited, Batch, CaptureState, News, Refusal, news};
use crossbeam::channel::{Receiver, Sender};
use forward::{Attachment, CloseReason, ConnId, DialId, Elsewhere, Engine, Input, Output, SocketId};
use netio::kernel::KernelRelay;
use netio::{Driver, DriverConfig, Event, Gone, Kind, Tls, Wake};

use crate::config::{Config, RtpSettings};
use crate::handshakes::ToHandshakes;
use crate::mail::{Arrival, Figures, Outgoing, Remote, ToShard, ToSteward};
use crate::names::Names;
use crate::spool::{Keep, ToSpool};
use attach::Attached;
use hands::{Hands, Parts, SHARD_SHIFT};
use kernel::Below;

/// Messages from the mailbox in one turn: the packets of the next batch wait meanwhile. A packet of another shard is a
/// fraction of one.
const MAIL_TURN: usize = 32;
const HANDED_PER_MAIL: usize = 8;
/// A word about a room's message counts for so many.
const LETTER_MAILS: usize = 2;
/// Contexts whose counters are reported in one turn.
const COUNTERS_TURN: usize = 16;
/// Nanoseconds of one send, for the cap of a batch by time (DESIGN §4).
const SEND_NS: u32 = 400;
/// The longest sleep: the flag that ends a shard comes with a wake, this is only a net below it.
const NAP: Duration = Duration::from_millis(500);

/// What a shard is made of, before its thread runs.
pub(crate) struct Plan {
    pub(crate) index: u16,
    pub(crate) shards: usize,
    pub(crate) core: usize,
    pub(crate) kind: Kind,
    pub(crate) engine: forward::Config,
    /// Where legs are, on any shard.
    pub(crate) own: Arc<forward::OwnMedia>,
    pub(crate) driver: DriverConfig,
    pub(crate) rtp: RtpSettings,
    /// The kernel's table of flows, where it is used.
    pub(crate) kernel: Option<Arc<KernelRelay>>,
    pub(crate) listeners: Vec<(TcpListener, bool)>,
    pub(crate) tls: Option<Tls>,
    pub(crate) seed: [u8; 32],
    pub(crate) batch_us: u32,
    pub(crate) tick: Duration,
    pub(crate) counters_every: Duration,
    pub(crate) mailbox: Receiver<ToShard>,
    pub(crate) stop: Arc<AtomicBool>,
}

impl Plan {
    /// The driver's sizes from the configuration.
    pub(crate) fn driver_config(config: &Config, index: u16) -> DriverConfig {
        DriverConfig {
            sockets_max: config.limits.sockets_max,
            connections_max: config.limits.connections_max,
            connections_per_address_max: config.limits.connections_per_address_max,
            batch_max: config.driver.batch_max,
            buffers: config.driver.buffers,
            spin_us: config.driver.spin_us,
            gso: config.driver.gso,
            gather_us: config.driver.gather_us,
            first_connection: u64::from(index) << SHARD_SHIFT,
            ..DriverConfig::default()
        }
    }
}

/// What the thread says when its driver is there.
pub(crate) struct Ready {
    pub(crate) wake: Wake,
    pub(crate) driver: &'static str,
    pub(crate) thread: u64,
}

/// The ends of other threads' mailboxes, once all of them are there.
pub(crate) struct Ends {
    pub(crate) steward: Outgoing<ToSteward, Arc<mio::Waker>>,
    pub(crate) peers: Vec<Option<Outgoing<ToShard, Wake>>>,
    pub(crate) keep: Keep,
    pub(crate) handshakes: Outgoing<ToHandshakes, ()>,
    pub(crate) names: Names,
    /// Where each shard listens for MSRP.
    pub(crate) listeners: Vec<(forward::Listener, Option<forward::Listener>)>,
}

/// The thread of a shard.
pub(crate) fn run(
    plan: Plan,
    ready: &Sender<anyhow::Result<Ready>>,
    ends: &Receiver<Ends>,
) -> anyhow::Result<()> {
    if !netio::pin(plan.core) {
        tracing::warn!(shard = plan.index, core = plan.core, "the core cannot be pinned to");
    }
    let driver = match make_driver(&plan) {
        Ok(driver) => driver,
        Err(error) => {
            let _ = ready.send(Err(error));
            return Ok(());
        }
    };
    let told = Ready { wake: driver.wake(), driver: driver.name(), thread: own_thread() };
    let (Ok(()), Ok(ends)) = (ready.send(Ok(told)), ends.recv()) else { return Ok(()) };
    Shard::new(plan, driver, ends).run()
}

fn make_driver(plan: &Plan) -> anyhow::Result<Box<dyn Driver>> {
    let mut driver = match plan.kind.make(&plan.driver) {
        Ok(driver) => driver,
        Err(error) if plan.kind == Kind::Uring => {
            tracing::warn!(shard = plan.index, %error, "the ring of this size is not to be had: mio instead");
            Kind::Mio.make(&plan.driver)?
        }
        Err(error) => return Err(error.into()),
    };
    for (listener, tls) in &plan.listeners {
        let tls = if *tls { plan.tls.clone() } else { None };
        driver.listen(listener.try_clone()?, tls)?;
    }
    Ok(driver)
}

struct Shard {
    engine: Engine,
    outbox: Outbox<Output>,
    hands: Hands,
    mailbox: Receiver<ToShard>,
    stop: Arc<AtomicBool>,
    origin: std::time::Instant,
    tick: Duration,
    next_tick: Instant,
    counters_every: Duration,
    next_counters: Instant,
    /// The context after which the present round of counters goes on.
    counting: Option<Option<u64>>,
    cpu_ns: u64,
    ticked: Instant,
    /// At the last round of counters.
    legs_silent: u64,
    /// What is bound here for a round that is not decided yet.
    bound: Option<(u64, Vec<Attachment>)>,
    /// A packet of another shard with a head of its own.
    patched: Vec<u8>,
}

impl Shard {
    fn new(plan: Plan, driver: Box<dyn Driver>, ends: Ends) -> Self {
        let mut entropy = Entropy::from_seed(plan.seed);
        let seed: HashSeed = entropy.hash_seed();
        let mut engine = Engine::new(plan.engine, entropy);
        engine.set_own_media(Arc::clone(&plan.own));
        engine.set_listeners(ends.listeners);
        let attached = Attached::new(&plan.rtp, usize::from(plan.index), plan.shards, (seed, plan.own));
        let hands = Hands::new(Parts {
            index: plan.index,
            driver,
            attached,
            below: plan.kernel.map(|relay| Below::new(relay, plan.rtp.dscp)),
            tls: plan.tls,
            steward: ends.steward,
            peers: ends.peers,
            keep: ends.keep,
            handshakes: ends.handshakes,
            names: ends.names,
            sends_max: (plan.batch_us.saturating_mul(1000) / SEND_NS).max(16) as usize,
            seed,
        });
        Shard {
            outbox: Outbox::with_max(engine.room_needed() + 64),
            engine,
            hands,
            mailbox: plan.mailbox,
            stop: plan.stop,
            origin: std::time::Instant::now(),
            tick: plan.tick,
            next_tick: Instant::ZERO,
            counters_every: plan.counters_every,
            next_counters: Instant::ZERO,
            counting: None,
            cpu_ns: 0,
            ticked: Instant::ZERO,
            legs_silent: 0,
            bound: None,
            patched: Vec::new(),
        }
    }

    fn now(&self) -> Now {
        let mono = Instant::from_nanos(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX));
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono, wall: UnixTime::from_millis(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)) }
    }

    fn run(mut self) -> anyhow::Result<()> {
        let mut now = self.now();
        while !self.stop.load(Ordering::Relaxed) {
            let events = self.hands.driver.poll(Some(self.nap(now.mono)))?;
            now = self.now();
            for index in 0..events {
                self.event(index, now);
            }
            self.mail(now);
            if self.engine.next_timeout().is_some_and(|due| due <= now.mono) {
                self.engine.timeout(now, &mut self.outbox);
                self.perform(0);
            }
            while self.engine.flush(&mut self.outbox) {
                self.perform(0);
            }
            self.perform(0);
            self.count(now);
            self.read_flows(now);
            self.hands.flush_mail();
        }
        Ok(())
    }

    /// How long there is nothing to do unless something happens.
    fn nap(&self, now: Instant) -> Duration {
        let reading = self.hands.below.as_ref().is_some_and(Below::is_reading);
        if reading || !self.mailbox.is_empty() || self.counting.is_some() {
            return Duration::ZERO;
        }
        let due = [self.engine.next_timeout(), Some(self.next_tick)].into_iter().flatten().min();
        let nap = due.map_or(NAP, |due| due.since(now).min(NAP));
        // Another's full mailbox wakes nobody when it has room again.
        if self.hands.has_late_mail() { nap.min(Duration::from_millis(1)) } else { nap }
    }

    fn event(&mut self, index: usize, now: Now) {
        let input = match self.hands.driver.event(index) {
            Event::Datagram { socket, from, bytes } => {
                // The packet path: nothing is copied and nothing looked up before the engine does.
                let input = Input::Datagram { socket: SocketId(socket), from, bytes };
                self.engine.handle(now, input, &mut self.outbox);
                return self.perform(index);
            }
            Event::Unreachable { socket } => Input::Unreachable { socket: SocketId(socket) },
            Event::Opened { conn, dial, tls, fingerprint, peer, local } => {
                self.hands.arrived(conn, Arrival { tls, fingerprint, peer, local });
                let dial = dial.map(DialId);
                Input::Opened { conn: ConnId(conn), dial, tls, fingerprint, peer, local }
            }
            Event::DialFailed { dial, why } => Input::DialFailed { dial: DialId(dial), why: reason(why) },
            Event::Received { conn, bytes } => {
                let bytes = bytes.clone();
                return self.on_connection(conn, Remote::Received(bytes), index, now);
            }
            Event::Sent { conn, bytes } => return self.on_connection(conn, Remote::Sent(bytes), index, now),
            Event::Closed { conn, why } => {
                return self.on_connection(conn, Remote::Closed(reason(why)), index, now);
            }
            Event::Woken => return,
        };
        self.engine.handle(now, input, &mut self.outbox);
        self.perform(index);
    }

    fn on_connection(&mut self, conn: u64, what: Remote, index: usize, now: Now) {
        if let Some(what) = self.hands.elsewhere(conn, what) {
            self.engine.handle(now, remote(conn, what), &mut self.outbox);
            self.perform(index);
        }
    }

    fn perform(&mut self, at: usize) {
        for output in self.outbox.drain() {
            match output {
                Output::SendHeld { socket, at, length } => {
                    self.hands.send(socket.0, self.engine.held(at, length));
                }
                Output::Hand { shard, handed } => {
                    if !self.hands.hand(shard, handed) {
                        self.engine.not_handed();
                    }
                }
                other => self.hands.perform(at, other),
            }
        }
    }

    fn mail(&mut self, now: Now) {
        let mut done = 0;
        while done < MAIL_TURN * HANDED_PER_MAIL {
            let Ok(message) = self.mailbox.try_recv() else { break };
            done += match &message {
                // It may go to all the members of a room here.
                ToShard::Handed(handed) if handed.must_arrive() => HANDED_PER_MAIL * LETTER_MAILS,
                ToShard::Handed(_) => 1,
                _ => HANDED_PER_MAIL,
            };
            match message {
                ToShard::Handed(handed) => self.handed(&handed, now),
                ToShard::Batch { link, batch } => {
                    self.hands.link = Some(link);
                    self.batch(&batch, &[], now);
                    self.hands.link = None;
                }
                ToShard::SpreadBatch(spread) => self.spread_batch(*spread, now),
                ToShard::Bind { round, batch, sizes } => self.bind(round, &batch, &sizes),
                ToShard::Unbind { round } => self.unbind(round),
                ToShard::Follow { round, standings } => self.follow(round, &standings, now),
                ToShard::Trace { context } => {
                    self.take_back(Some(&[context]), now);
                    self.input(now, Input::Capture { context, leg: None, on: true });
                }
                ToShard::Decide(decide) => self.input(now, Input::Decide(&decide)),
                ToShard::Capture { context, leg, order } => self.capture(context, leg, order, now),
                ToShard::CaptureOver { context, leg } => {
                    self.input(now, Input::Capture { context, leg, on: false });
                }
                ToShard::Drain(on) => {
                    self.take_back(None, now);
                    self.input(now, Input::Drain(on));
                }
                ToShard::Audit { link, id } => self.audit(link, id),
                ToShard::Count { link, context } => {
                    let found = self.engine.counters(now, context.checked_sub(1));
                    let counters = found.filter(|(id, _)| *id == context).map(|(_, counters)| counters);
                    let what = Some(news::What::Counters(counters.unwrap_or_default()));
                    let body = Body::News(News { what });
                    self.hands.steward.send(ToSteward::Say { link: Some(link), body });
                }
                ToShard::Adopt { conn, arrival, bytes } => {
                    let Arrival { tls, fingerprint, peer, local } = arrival;
                    let (conn, dial) = (ConnId(conn), None);
                    self.input(now, Input::Opened { conn, dial, tls, fingerprint, peer, local });
                    self.input(now, Input::Received { conn, bytes });
                }
                ToShard::Remote { conn, what } => self.input(now, remote(conn, what)),
                ToShard::Act { conn, what } => self.hands.act(conn, what),
                ToShard::LookedUp { dial, found } => {
                    self.input(now, Input::LookedUp { dial, found: &found });
                }
                ToShard::Spilled(word) => self.input(now, Input::Spilled(word)),
                ToShard::Dtls { id, word } => self.input(now, Input::Dtls { id, word }),
                ToShard::HandshakesMissed(count) => self.hands.handshakes_missed += count,
            }
        }
    }

    fn capture(&mut self, context: u64, leg: Option<u64>, order: ToSpool, now: Now) {
        let on = matches!(order, ToSpool::Open { .. });
        if let Some(missing) = leg.filter(|leg| on && !self.engine.is_recordable(context, *leg)) {
            let error = "there is no such RTP leg".to_owned();
            let state = CaptureState { context, leg: missing, error, ..CaptureState::default() };
            return self.hands.steward.send(ToSteward::Captured { state, over: false });
        }
        self.take_back(Some(&[context]), now);
        self.input(now, Input::Capture { context, leg, on });
        self.hands.keep.order(order);
    }

    fn input(&mut self, now: Now, input: Input<'_>) {
        self.engine.handle(now, input, &mut self.outbox);
        self.perform(0);
    }

    /// All or nothing, ports included; whether it was applied. Whose answer it is was noted.
    fn batch(&mut self, batch: &Batch, elsewhere: &[Elsewhere], now: Now) -> bool {
        // The same again is answered from memory, and what it asks for is bound already.
        let again = batch.generation != 0 && batch.generation <= self.engine.generation();
        let prepared = match again {
            true => Ok(Vec::new()),
            false => self.hands.attached.prepare(batch, elsewhere, &mut *self.hands.driver),
        };
        match prepared {
            Ok(attachments) => {
                self.take_back_for(batch, now);
                self.hands.refused = false;
                let attached = &attachments;
                let input = match elsewhere {
                    [] => Input::Batch { batch, attachments: attached },
                    _ => Input::SpreadBatch { batch, attachments: attached, elsewhere },
                };
                self.input(now, input);
                if self.hands.refused {
                    self.hands.attached.give_back(&attachments, &mut *self.hands.driver);
                } else {
                    let has = |socket| self.engine.has_socket(socket);
                    self.hands.attached.keep(&attachments, has, &mut *self.hands.driver);
                }
                !self.hands.refused
            }
            Err((change, reason, detail)) => {
                let refusal = Refusal {
                    generation: batch.generation,
                    reason: reason as i32,
                    change: u32::try_from(change).unwrap_or(u32::MAX),
                    detail: detail.to_owned(),
                };
                self.hands.answer(Some(Body::Refusal(refusal)));
                false
            }
        }
    }

    fn audit(&mut self, link: u64, id: u64) {
        let mut after = None;
        while let Some(mut part) = self.engine.audit(after) {
            after = part.contexts.last().map(|context| context.id);
            // The home speaks for the context.
            part.contexts.retain(|context| !self.engine.is_outpost(context.id));
            self.hands.steward.send(ToSteward::Audited { link, id, part, last: false });
            if after.is_none() {
                break;
            }
        }
        let part = Audited { generation: self.engine.generation(), ..Audited::default() };
        self.hands.steward.send(ToSteward::Audited { link, id, part, last: true });
    }

    /// Sums at each tick, and each leg's counters from time to time, some contexts in a turn.
    fn count(&mut self, now: Now) {
        if now.mono >= self.next_tick {
            self.next_tick = now.mono + self.tick;
            self.hands.release();
            if let Some(below) = self.hands.below.as_mut() {
                below.tick();
                self.input(now, Input::Settle);
            }
            let figures = self.figures(now);
            self.hands.steward.send(ToSteward::Figures(Box::new(figures)));
        }
        if now.mono >= self.next_counters && self.counting.is_none() {
            self.next_counters = now.mono + self.counters_every;
            self.legs_silent = self.engine.legs_silent(now);
            self.counting = Some(None);
        }
        let Some(mut after) = self.counting else { return };
        for _ in 0..COUNTERS_TURN {
            let Some((context, counters)) = self.engine.counters(now, after) else {
                self.counting = None;
                return;
            };
            after = Some(context);
            if self.hands.steward.late() > 0 {
                self.hands.news_missed += 1;
            } else if !counters.legs.is_empty() {
                let body = Body::News(News { what: Some(news::What::Counters(counters)) });
                self.hands.steward.send(ToSteward::Say { link: None, body });
            }
        }
        self.counting = Some(after);
    }

    fn figures(&mut self, now: Now) -> Figures {
        let cpu_ns = cpu_time();
        let wall = u64::try_from(now.mono.since(self.ticked).as_nanos()).unwrap_or(u64::MAX).max(1);
        let busy = cpu_ns.saturating_sub(self.cpu_ns).saturating_mul(1000) / wall;
        (self.cpu_ns, self.ticked) = (cpu_ns, now.mono);
        Figures {
            shard: self.hands.index,
            totals: self.engine.totals(),
            drops: forward::Drop::ALL.iter().map(|why| self.engine.dropped(*why)).collect(),
            tally: self.hands.driver.tally(),
            cpu_ns,
            busy_permille: u32::try_from(busy).unwrap_or(0).min(1000),
            legs_silent: self.legs_silent,
            spool_missed: self.hands.spool_missed,
            news_missed: self.hands.news_missed,
            handshakes_missed: self.hands.handshakes_missed,
            flows_refused: self.hands.below.as_ref().map_or(0, |below| below.refused),
        }
    }
}

fn remote(conn: u64, what: Remote) -> Input<'static> {
    let conn = ConnId(conn);
    match what {
        Remote::Received(bytes) => Input::Received { conn, bytes },
        Remote::Sent(bytes) => Input::Sent { conn, bytes },
        Remote::Closed(why) => Input::Closed { conn, why },
    }
}

fn reason(gone: Gone) -> CloseReason {
    match gone {
        Gone::Closed => CloseReason::Closed,
        Gone::Reset => CloseReason::Reset,
        Gone::ConnectFailed => CloseReason::ConnectFailed,
        Gone::TlsFailed => CloseReason::TlsFailed,
    }
}

/// The scheduler's nanoseconds of the calling thread.
fn cpu_time() -> u64 {
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .unwrap_or(0)
}

fn own_thread() -> u64 {
    std::fs::read_link("/proc/thread-self")
        .ok()
        .and_then(|path| path.file_name()?.to_str()?.parse().ok())
        .unwrap_or(0)
}

/// The home shard of a context: the same for the same number of shards, so that ports that control remembers are
/// found on the shard that has them.
pub(crate) fn home(context: u64, shards: usize) -> usize {
    let spread = context.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    usize::try_from(spread % shards.max(1) as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn contexts_are_spread_over_all_shards() {
        let mut counts = [0; 3];
        (0..3000).for_each(|context| counts[super::home(context, 3)] += 1);
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
        assert_eq!(super::home(42, 1), 0);
    }
}
