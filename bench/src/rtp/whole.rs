//! What a relay costs the whole machine, wherever the work is done: in a process, or in the kernel in the time of whoever sends.
//!
//! The load sleeps between its bursts, so that its own CPU is its work and nothing else. Counted is the time of the load, of
//! what is measured and of every core's ksoftirqd, less the same load between two ends without a relay, at the same rate, in the
//! same turn: what is left is the relay's, its packets' second way through loopback included.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use netio::kernel::{Flow, FlowKey, KernelRelay, Seen};

use super::bare::Running;
use super::clock::{self, Who};
use super::pace::Pace;
use super::{PACKET_BYTES, Plan, load, median, rtpengine, weir};
use crate::report::{Reach, Report};

const CALLS: usize = 300;
/// Both ways, 50 packets a second.
const PACED: f64 = CALLS as f64 * 2.0 * 50.0;
/// Between two bursts of the load.
const BURST_EVERY: Duration = Duration::from_millis(1);
const DRAIN_EVERY: Duration = Duration::from_millis(10);
const QUIET: Duration = Duration::from_millis(50);
/// A shard looks for settled flows every half second, and puts 256 at a look.
const LEAD: Duration = Duration::from_millis(2600);
/// As in `versus`.
const LOSS_MAX: f64 = 0.001;
const BEHIND_MAX: f64 = 0.05;
const LATE_S: f64 = 0.005;
const STEP: f64 = 1.2;
const RATE_MAX: f64 = 2e6;

/// Whoever relays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Relay {
    /// The table and the program alone, its flows put by hand: what is left to be gained.
    Bare,
    /// Weir whose settled calls the kernel relays.
    Kernel,
    /// Weir with its sockets.
    Sockets,
    Rtpengine,
}

impl Relay {
    fn start(self, ends: &[SocketAddr], core: usize) -> anyhow::Result<Running> {
        match self {
            Relay::Bare => bare(ends, core),
            Relay::Kernel => {
                weir::relay(&weir::Setup { kernel: true, ..weir::Setup::new("uring", core) }, ends)
            }
            Relay::Sockets => weir::relay(&weir::Setup::new("uring", core), ends),
            Relay::Rtpengine => rtpengine::relay(ends, core),
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Relay::Bare => "the kernel's table alone, filled by hand",
            Relay::Kernel => "weir in the kernel (driver.kernel_relay)",
            Relay::Sockets => "weir without its kernel relay",
            Relay::Rtpengine => "rtpengine",
        }
    }

    /// Weir is held to the row's reach, the others are printed beside it.
    fn say(self, report: &mut Report, row: String, ratio: f64, reach: f64, note: String) {
        match self {
            Relay::Kernel => report.held(row, ratio, "ratio", Reach::AtMost(reach), note),
            _ => report.row(row, ratio, "ratio", note),
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Relay::Bare => ".kernel_bare",
            Relay::Kernel => ".kernel",
            Relay::Sockets => ".sockets_whole",
            Relay::Rtpengine => "",
        }
    }
}

/// What one run gave.
#[derive(Clone, Copy, Debug)]
struct Passage {
    rate: f64,
    loss: f64,
    behind: f64,
    /// CPU of the whole machine for a packet that arrived.
    ns: f64,
}

impl Passage {
    fn passed(&self) -> bool {
        self.loss <= LOSS_MAX && self.behind <= BEHIND_MAX
    }
}

#[derive(Default)]
struct Figures {
    paced: Vec<f64>,
    /// 99th percentile of the delay at the same load, in microseconds, by a load that spins.
    delay: Vec<f64>,
    full: Vec<(f64, f64)>,
}

pub(super) fn run(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let (paced, full) = ("relay_vs_rtpengine_paced.kernel", "relay_vs_rtpengine_full.kernel");
    let Some(version) = rtpengine::version().filter(|_| plan.peers) else { return Ok(()) };
    if !plan.wants(paced) && !plan.wants(full) {
        return Ok(());
    }
    if let Err(error) = KernelRelay::new(1) {
        report.remark(format!("the rows of the kernel relay are not measured: bpf(2) says {error}"));
        return Ok(());
    }
    let (ours, core) = clock::cores();
    clock::pin(ours);
    let time = Duration::from_millis(plan.slice_ms.max(300));
    let mut relays = [Relay::Kernel, Relay::Bare, Relay::Sockets, Relay::Rtpengine]
        .map(|relay| (relay, Figures::default()));
    for _ in 0..plan.rounds {
        for (relay, figures) in &mut relays {
            let load = Load::new()?;
            let running = relay.start(&load.addresses()?, core)?;
            let direct = Load::new()?;
            let mut across = direct.addresses()?;
            across.chunks_exact_mut(2).for_each(|pair| pair.reverse());
            direct.connect(&across)?;
            load.connect(&running.entries)?;
            let mut both = Both { load, direct, time, who: running.who };
            // Until sources are known, and flows are in the kernel where they go there.
            both.load.run(PACED, LEAD, None)?;
            figures.paced.push(both.cost(PACED)?.1);
            if plan.wants(full) {
                figures.full.push(both.climb()?);
            }
            running.stop()?;
            if matches!(relay, Relay::Kernel | Relay::Rtpengine) {
                figures.delay.push(delay(*relay, core, time)?);
            }
        }
    }
    rows(plan, report, &relays, &version);
    Ok(())
}

fn rows(plan: &Plan, report: &mut Report, relays: &[(Relay, Figures)], version: &str) {
    let Some((_, theirs)) = relays.iter().find(|(relay, _)| *relay == Relay::Rtpengine) else { return };
    let apart = "the whole machine's CPU, less that of the same load without a relay";
    for (relay, figures) in relays.iter().filter(|(relay, _)| *relay != Relay::Rtpengine) {
        let (own, other) = (median(&figures.paced, |ns| *ns), median(&theirs.paced, |ns| *ns));
        let note = format!(
            "{} over rtpengine in user space, {CALLS} calls of 50 packets/s each way, {apart}: {own:.0} and {other:.0} \
             ns/packet; {version}",
            relay.describe()
        );
        let row = format!("relay_vs_rtpengine_paced{}", relay.suffix());
        relay.say(report, row, own / other, 0.25, note);
        if *relay == Relay::Kernel {
            let p99 = |figures: &Figures| median(&figures.delay, |us| *us);
            let reach = Reach::AtMost(p99(theirs).round());
            let note = "at that load, held to rtpengine's";
            let row = "relay_vs_rtpengine_paced.kernel_p99_us";
            report.held(row, p99(figures), "us", reach, note);
        }
        if !plan.wants("relay_vs_rtpengine_full.kernel") {
            continue;
        }
        let rate = |of: &Figures| median(&of.full, |full| full.0) / 1000.0;
        let ns = |of: &Figures| median(&of.full, |full| full.1);
        let note = format!(
            "{} over rtpengine in user space at {:.0} and {:.0} thousand packets/s, {apart}: {:.0} and {:.0} ns/packet",
            relay.describe(),
            rate(figures),
            rate(theirs),
            ns(figures),
            ns(theirs),
        );
        let row = format!("relay_vs_rtpengine_full{}", relay.suffix());
        relay.say(report, row, ns(figures) / ns(theirs), 0.17, note);
    }
}

/// How long packets are on their way at the usual load.
fn delay(relay: Relay, core: usize, time: Duration) -> anyhow::Result<f64> {
    let mut pace = Pace::new(CALLS)?;
    let running = relay.start(&pace.addresses()?, core)?;
    pace.connect(&running.entries)?;
    pace.run(PACED, LEAD, None)?;
    let passage = pace.run(PACED, time, None)?;
    running.stop()?;
    Ok(passage.delay_us(0.99))
}

/// The load through the relay, and without it.
struct Both {
    load: Load,
    direct: Load,
    time: Duration,
    who: Who,
}

impl Both {
    /// What the relay costs for a packet at a rate, and how its run went.
    fn cost(&mut self, rate: f64) -> anyhow::Result<(Passage, f64)> {
        let passage = self.load.run(rate, self.time, Some(self.who))?;
        let direct = self.direct.run(rate, self.time, None)?;
        Ok((passage, passage.ns - direct.ns))
    }

    /// The largest rate that passes, and the cost there.
    fn climb(&mut self) -> anyhow::Result<(f64, f64)> {
        let (mut rate, mut best, mut failures, mut last) = (PACED, None, 0, None);
        while failures < 3 && rate < RATE_MAX {
            let (passage, ns) = self.cost(rate)?;
            last = Some((passage.rate, ns));
            if passage.passed() {
                (best, failures) = (Some((passage.rate, ns)), 0);
                rate *= STEP;
            } else {
                failures += 1;
            }
        }
        // On a machine that has other work not even the usual load may pass: then that is what was measured.
        best.or(last).context("nothing was measured")
    }
}

/// Ends of two-way calls.
struct Load {
    ends: Vec<UdpSocket>,
    sequence: u16,
    next: usize,
}

impl Load {
    fn new() -> anyhow::Result<Self> {
        let ends = (0..2 * CALLS).map(|_| load::socket()).collect::<anyhow::Result<_>>()?;
        Ok(Load { ends, sequence: 0, next: 0 })
    }

    fn addresses(&self) -> anyhow::Result<Vec<SocketAddr>> {
        self.ends.iter().map(|end| Ok(end.local_addr()?)).collect()
    }

    fn connect(&self, entries: &[SocketAddr]) -> anyhow::Result<()> {
        self.ends.iter().zip(entries).try_for_each(|(end, entry)| Ok(end.connect(entry)?))
    }

    fn drain(&self) -> u64 {
        let drain = |end: &UdpSocket| {
            let mut all = 0;
            loop {
                let n = netio::discard(end);
                all += n as u64;
                if n < 64 {
                    return all;
                }
            }
        };
        self.ends.iter().map(drain).sum()
    }

    fn send(&mut self, packet: &mut [u8; PACKET_BYTES]) {
        if self.next == 0 {
            self.sequence = self.sequence.wrapping_add(1);
        }
        let header = load::rtp_header(self.sequence, self.next as u32);
        packet.iter_mut().zip(header).for_each(|(to, from)| *to = from);
        // A full socket's packet counts as lost.
        let _ = self.ends.get(self.next).map(|end| end.send(packet));
        self.next = (self.next + 1) % self.ends.len();
    }

    /// Sends so many packets a second, a moment before the measurement and during it.
    fn run(&mut self, rate: f64, time: Duration, who: Option<Who>) -> anyhow::Result<Passage> {
        let mut packet = [0; PACKET_BYTES];
        let own = clock::own_thread();
        let (mut arrived, mut counted, mut late) = (0u64, 0u64, 0u64);
        let mut spent = 0;
        for (time, measured) in [(time / 4, false), (time, true)] {
            self.drain();
            let before = clock::whole_ns(own, who);
            let (start, mut sent, mut drained) = (Instant::now(), 0u64, Instant::now());
            (arrived, late) = (0, 0);
            while start.elapsed() < time {
                let due = ((start.elapsed().as_secs_f64() * rate) as u64).saturating_sub(sent);
                late += if due as f64 / rate > LATE_S { due } else { 0 };
                for _ in 0..due.min(2048) {
                    self.send(&mut packet);
                }
                sent += due.min(2048);
                if drained.elapsed() >= DRAIN_EVERY {
                    arrived += self.drain();
                    drained = Instant::now();
                }
                if due < 1024 {
                    std::thread::sleep(BURST_EVERY);
                }
            }
            // What is under way belongs to it, and so does its cost.
            std::thread::sleep(QUIET);
            arrived += self.drain();
            if measured {
                (counted, spent) = (sent, clock::whole_ns(own, who).saturating_sub(before));
            }
        }
        anyhow::ensure!(arrived > 0, "nothing arrived");
        Ok(Passage {
            rate: counted as f64 / time.as_secs_f64(),
            loss: counted.saturating_sub(arrived) as f64 / counted.max(1) as f64,
            behind: (late as f64 / counted.max(1) as f64).min(1.0),
            ns: spent as f64 / arrived as f64,
        })
    }
}

/// Two sockets for each call, and a flow each way between its ends.
fn bare(ends: &[SocketAddr], core: usize) -> anyhow::Result<Running> {
    let mut kernel = KernelRelay::new(2048)?;
    kernel.attach("lo")?;
    let sockets: Vec<UdpSocket> =
        ends.iter().map(|_| Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?)).collect::<anyhow::Result<_>>()?;
    let entries: Vec<SocketAddr> =
        sockets.iter().map(|s| Ok(s.local_addr()?)).collect::<anyhow::Result<_>>()?;
    for (at, (end, entry)) in ends.iter().zip(&entries).enumerate() {
        let other = at ^ 1;
        let flow = Flow {
            key: FlowKey { from: *end, to: *entry },
            by: *entries.get(other).context("pairs")?,
            to: *ends.get(other).context("pairs")?,
            ssrc: u32::from_be_bytes(load::rtp_header(0, at as u32)[8..12].try_into()?),
            payloads: 1,
            clock: 8000,
            dscp: 46,
            seen: Seen::default(),
        };
        anyhow::ensure!(kernel.put(&flow)?, "no interface has the address");
    }
    Running::start(core, entries, move |stop| {
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
        drop((kernel, sockets));
        Ok(())
    })
}
