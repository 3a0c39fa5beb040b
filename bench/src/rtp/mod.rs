//! RTP: what one core spends on a sent packet, beside the least that sockets can cost.
//!
//! The load runs on the first core: it sends, and drains the sinks. What is measured runs on the last one. CPU
//! is the time of the measured thread plus that of the core's ksoftirqd, from the scheduler's own nanoseconds
//! (schedstat): on loopback the kernel delivers inside the sender's time, so this is the busy time of the core
//! without what else the machine did on it meanwhile. Packets are counted where they arrive.

mod bare;
mod clock;
mod load;
mod weir;

use std::time::Duration;

use crate::report::{Machine, Report};
use load::{Load, Sample};

/// How much to measure.
pub(crate) struct Plan {
    /// Milliseconds of one measurement.
    pub(crate) slice_ms: u64,
    /// Measurements of each kind.
    pub(crate) rounds: usize,
    /// Two-way calls of the relay rows.
    pub(crate) calls: usize,
}

/// The octets of every packet: RTP header and 20 ms of G.711.
pub(crate) const PACKET_BYTES: usize = 172;
/// Targets of the distribution rows.
pub(crate) const FAN_OUT: usize = 16;

/// One thing to measure: its name in the rows and how to start it on the measured core.
struct Kind {
    name: &'static str,
    start: fn(&Load, usize) -> anyhow::Result<bare::Running>,
}

/// Rows that are not bare loops begin with this.
const WEIR: &str = "weir";

const DISTRIBUTE: &[Kind] = &[
    Kind { name: "sendto", start: bare::distribute_sendto },
    Kind { name: "bare_syscall", start: bare::distribute_connected },
    Kind { name: "bare_uring", start: bare::distribute_uring },
    Kind { name: "weir_uring", start: weir::distribute_uring },
    Kind { name: "weir_mio", start: weir::distribute_mio },
];

const RELAY: &[Kind] = &[
    Kind { name: "sendto", start: bare::relay_sendto },
    Kind { name: "bare_uring", start: bare::relay_uring },
    Kind { name: "weir_uring", start: weir::relay_uring },
    Kind { name: "weir_mio", start: weir::relay_mio },
];

/// Runs everything, interleaved.
pub(crate) fn run(plan: &Plan) -> anyhow::Result<Report> {
    let choice = netio::choose(netio::Wanted::Auto);
    let mut report = Report::new(Machine::here(&format!("{} ({})", choice.kind.label(), choice.reason)));
    let distribute = interleave(plan, DISTRIBUTE, || Load::distribute(FAN_OUT))?;
    rows(&mut report, &format!("distribute_{FAN_OUT}x{PACKET_BYTES}"), DISTRIBUTE, &distribute);
    let relay = interleave(plan, RELAY, || Load::relay(plan.calls))?;
    rows(&mut report, &format!("relay_{}x{PACKET_BYTES}", plan.calls), RELAY, &relay);
    Ok(report)
}

fn interleave(
    plan: &Plan,
    kinds: &[Kind],
    load: impl Fn() -> anyhow::Result<Load>,
) -> anyhow::Result<Vec<Vec<Sample>>> {
    let (ours, measured) = clock::cores();
    clock::pin(ours);
    let mut samples: Vec<Vec<Sample>> = kinds.iter().map(|_| Vec::new()).collect();
    for _ in 0..plan.rounds {
        for (kind, samples) in kinds.iter().zip(&mut samples) {
            let mut load = load()?;
            let running = (kind.start)(&load, measured)?;
            samples.push(load.measure(&running, measured, Duration::from_millis(plan.slice_ms))?);
            running.stop()?;
        }
    }
    Ok(samples)
}

fn rows(report: &mut Report, what: &str, kinds: &[Kind], samples: &[Vec<Sample>]) {
    let ns = |of: &[Sample]| median(of, |s| s.ns_per_packet);
    let sendto = samples.first().map_or(f64::NAN, |of| ns(of));
    let bare = kinds.iter().zip(samples).filter(|(kind, _)| !kind.name.starts_with(WEIR));
    let bare = bare.map(|(_, of)| ns(of)).fold(f64::INFINITY, f64::min);
    for (kind, of) in kinds.iter().zip(samples) {
        let own = ns(of);
        let busy = median(of, |s| s.busy) * 100.0;
        let lost: u64 = of.iter().map(|s| s.lost).sum();
        if kind.name == "weir_uring" {
            report.row(what, own / bare, "ratio", "weir_uring over the best bare loop, CPU per sent packet");
        }
        let note = format!("{:.2} x as cheap as sendto; thread busy {busy:.0} %, lost {lost}", sendto / own);
        report.row(format!("{what}.{}.ns", kind.name), own, "ns/packet", note);
        let rate = median(of, |s| s.packets_per_s);
        report.row(format!("{what}.{}.rate", kind.name), rate, "packets/s", "counted at the sinks");
    }
}

fn median(of: &[Sample], what: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = of.iter().map(what).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
