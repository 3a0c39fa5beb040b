//! Weir beside rtpengine under the load with a clock: the cost of a packet at a usual load and at each one's own
//! largest, and the delay at four fifths of that.

use std::net::SocketAddr;
use std::time::Duration;

use super::bare::Running;
use super::pace::{Pace, Passage};
use super::weir::{self, Setup};
use super::{Plan, bare, clock, median, rtpengine};
use crate::report::{Reach, Report};

const CALLS: usize = 300;
/// Both ways, 50 packets a second.
const PACED: f64 = CALLS as f64 * 2.0 * 50.0;
/// Without loss, but for what a machine does that has other work: one packet in a thousand.
const LOSS_MAX: f64 = 0.001;
/// With more than this of delay in the middle a queue grows: the sockets' buffers only hide the loss that follows.
const QUEUED_US: f64 = 10_000.0;
/// The load keeps its pace, but for as many.
const BEHIND_MAX: f64 = 0.05;
const STEP: f64 = 1.2;
const RATE_MAX: f64 = 2e6;
/// The default of the configuration.
const SPIN_US: u32 = 20;

/// Weir as an operator sets it up who pays for CPU: a fifth of a millisecond of a voice packet's way for less of it.
const GATHERING: Relay = Relay::Weir { spin_us: 0, gather_us: 200 };

/// Whoever relays.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Relay {
    Weir {
        spin_us: u32,
        gather_us: u32,
    },
    Rtpengine,
    /// The loop that only moves octets: what is left to be gained.
    Bare,
}

impl Relay {
    fn start(self, ends: &[SocketAddr], core: usize) -> anyhow::Result<Running> {
        match self {
            Relay::Weir { spin_us, gather_us } => {
                weir::relay(&Setup { spin_us, gather_us, ..Setup::new("uring", core) }, ends)
            }
            Relay::Rtpengine => rtpengine::relay(ends, core),
            Relay::Bare => bare::relay_between(ends, core),
        }
    }

    fn describe(self) -> String {
        match self {
            Relay::Weir { spin_us, gather_us } => {
                format!("weir (driver.spin_us {spin_us}, driver.gather_us {gather_us})")
            }
            Relay::Rtpengine => "rtpengine".to_owned(),
            Relay::Bare => "a bare io_uring loop on the same sockets".to_owned(),
        }
    }

    fn label(self) -> &'static str {
        match self {
            Relay::Weir { gather_us: 1.., .. } => "weir_gather",
            Relay::Weir { spin_us: 1.., .. } => "weir_spin",
            Relay::Weir { .. } => "weir",
            Relay::Rtpengine => "rtpengine",
            Relay::Bare => "bare",
        }
    }
}

/// Figures of one relay.
#[derive(Default)]
struct Figures {
    paced: Vec<Passage>,
    full: Vec<Passage>,
    /// The load, not the relay, ended the climb.
    limited: usize,
    eighty: Vec<Passage>,
}

pub(super) fn run(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let names = ["relay_vs_rtpengine_paced", "relay_vs_rtpengine_full", "delay_80"];
    // A row of the kernel relay by itself is another's to measure (`whole`).
    let whole = plan.only.as_ref().is_some_and(|only| only.contains(".kernel"));
    if whole || !names.iter().any(|name| plan.wants(name)) {
        return Ok(());
    }
    let version = rtpengine::version().filter(|_| plan.peers);
    let (ours, core) = clock::cores();
    clock::pin(ours);
    let time = Duration::from_millis(plan.slice_ms.max(300));
    let mut relays = vec![
        (GATHERING, Figures::default()),
        (Relay::Weir { spin_us: 0, gather_us: 0 }, Figures::default()),
        (Relay::Weir { spin_us: SPIN_US, gather_us: 0 }, Figures::default()),
    ];
    if version.is_some() {
        relays.push((Relay::Bare, Figures::default()));
        relays.push((Relay::Rtpengine, Figures::default()));
    }
    let mut direct = Vec::new();
    for _ in 0..plan.rounds {
        direct.push(straight(time)?);
        for (relay, figures) in &mut relays {
            let mut pace = Pace::new(CALLS)?;
            let running = relay.start(&pace.addresses()?, core)?;
            pace.connect(&running.entries)?;
            let who = Some((running.who, core));
            figures.paced.push(pace.run(PACED, time, who)?);
            if !plan.wants("relay_vs_rtpengine_full") && !plan.wants("delay_80") {
                running.stop()?;
                continue;
            }
            let (full, limited) = climb(&mut pace, time, &running, core)?;
            figures.limited += usize::from(limited);
            figures.eighty.push(pace.run(full.rate * 0.8, 3 * time, who)?);
            figures.full.push(full);
            running.stop()?;
        }
    }
    rows(plan, report, &relays, &direct, version.as_deref());
    Ok(())
}

/// The delay between two ends without a relay.
fn straight(time: Duration) -> anyhow::Result<Passage> {
    let mut pace = Pace::new(CALLS)?;
    let mut entries = pace.addresses()?;
    entries.chunks_exact_mut(2).for_each(|pair| pair.reverse());
    pace.connect(&entries)?;
    pace.run(PACED, time, None)
}

/// The largest load that passes; true when the load itself could do no more.
fn climb(pace: &mut Pace, time: Duration, running: &Running, core: usize) -> anyhow::Result<(Passage, bool)> {
    let (mut rate, mut best, mut failures) = (PACED, None, 0);
    loop {
        let passage = pace.run(rate, time, Some((running.who, core)))?;
        let behind = passage.behind > BEHIND_MAX;
        let passed = passage.loss <= LOSS_MAX && passage.delay_us(0.5) < QUEUED_US;
        if passed && !behind && rate < RATE_MAX {
            (best, failures) = (Some(passage), 0);
            rate *= STEP;
            continue;
        }
        // Once more, or twice: other work on the machine disturbs a step, too much load each.
        failures += 1;
        if failures == 3 {
            let limited = behind && passed;
            return Ok((best.unwrap_or(passage), limited));
        }
    }
}

fn rows(
    plan: &Plan,
    report: &mut Report,
    relays: &[(Relay, Figures)],
    direct: &[Passage],
    version: Option<&str>,
) {
    let of = |relay: Relay| relays.iter().find(|(other, _)| *other == relay).map(|(_, figures)| figures);
    let theirs = of(Relay::Rtpengine);
    if let (Some(theirs), Some(version)) = (theirs, version) {
        let beside = Beside { plan, theirs, version };
        for (relay, weir) in relays.iter().filter(|(relay, _)| *relay != Relay::Rtpengine) {
            // The row itself is of the first one, the others are printed beside it.
            let suffix = if *relay == GATHERING { String::new() } else { format!(".{}", relay.label()) };
            beside.paced(report, &suffix, *relay, weir);
            beside.full(report, &suffix, *relay, weir);
        }
    }
    if !plan.wants("delay_80") {
        return;
    }
    let between = format!("less {:.0} us, the median between two ends without a relay", us(direct, 0.5));
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
        for (relay, figures) in relays {
            let added = us(&figures.eighty, share) - us(direct, 0.5);
            let row = format!("delay_80_{name}_us.{}", relay.label());
            let note = format!(
                "at {:.0} thousand packets/s, {between}",
                median(&figures.eighty, |p| p.rate) / 1000.0
            );
            match (theirs, relay, name) {
                (Some(theirs), Relay::Weir { .. }, "p99") => {
                    let reach = Reach::AtMost((us(&theirs.eighty, share) - us(direct, 0.5)).round());
                    report.held(row, added, "us", reach, note);
                }
                _ => report.row(row, added, "us", note),
            }
        }
    }
}

fn ns(of: &[Passage]) -> f64 {
    median(of, |p| p.ns_per_packet)
}

fn us(of: &[Passage], share: f64) -> f64 {
    median(of, |p| p.delay_us(share))
}

/// The ratios to rtpengine.
struct Beside<'a> {
    plan: &'a Plan,
    theirs: &'a Figures,
    version: &'a str,
}

impl Beside<'_> {
    fn paced(&self, report: &mut Report, suffix: &str, relay: Relay, weir: &Figures) {
        let (ours, theirs) = (&weir.paced, &self.theirs.paced);
        let note = format!(
            "{} over rtpengine, {CALLS} calls of 50 packets/s each way: {:.0} and {:.0} ns/packet, delay p50 {:.0} and \
             {:.0} us, p99 {:.0} and {:.0} us; {}, in user space with one media thread (its kernel module is not \
             measured here)",
            relay.describe(),
            ns(ours),
            ns(theirs),
            us(ours, 0.5),
            us(theirs, 0.5),
            us(ours, 0.99),
            us(theirs, 0.99),
            self.version
        );
        let row = format!("relay_vs_rtpengine_paced{suffix}");
        if relay == Relay::Bare {
            return report.row(row, ns(ours) / ns(theirs), "ratio", note);
        }
        report.held(row.clone(), ns(ours) / ns(theirs), "ratio", Reach::AtMost(0.25), note);
        let reach = Reach::AtMost(us(theirs, 0.99).round());
        report.held(
            format!("{row}_p99_us"),
            us(ours, 0.99),
            "us",
            reach,
            "at that load, held to rtpengine's",
        );
    }

    fn full(&self, report: &mut Report, suffix: &str, relay: Relay, weir: &Figures) {
        if !self.plan.wants("relay_vs_rtpengine_full") {
            return;
        }
        let limit = |figures: &Figures| match figures.limited {
            0 => "its own limit".to_owned(),
            n => format!("in {n} of {} turns the load's limit", figures.full.len()),
        };
        let (ours, theirs) = (&weir.full, &self.theirs.full);
        let rate = |of: &[Passage]| median(of, |p| p.rate) / 1000.0;
        let note = format!(
            "{} over rtpengine at {:.0} ({}) and {:.0} ({}) thousand packets/s: {:.0} and {:.0} ns/packet",
            relay.describe(),
            rate(ours),
            limit(weir),
            rate(theirs),
            limit(self.theirs),
            ns(ours),
            ns(theirs),
        );
        let row = format!("relay_vs_rtpengine_full{suffix}");
        if relay == Relay::Bare {
            return report.row(row, ns(ours) / ns(theirs), "ratio", note);
        }
        report.held(row, ns(ours) / ns(theirs), "ratio", Reach::AtMost(0.17), note);
    }
}
