//! How many calls a core carries, in an open loop, and how soon they are answered at four fifths of that:
//! `calls_per_core`, `answer_80_p99_ms`.
//!
//! The rate that is carried is looked for from 1.2 times a closed loop's downwards by tenths: of all calls that are due in a
//! second at most one in a thousand fails, and 99 of 100 are answered within [`ANSWER_MAX_US`].

use std::time::Duration;

use super::load::{Load, Script};
use super::open::{Figures, Open};
use super::race::{UNDER_WAY, register_all};
use super::scripts::{Call, Media, USERS};
use super::servers::{self, Beside, Server, Setup};
use super::wires::{Wire, Wires};
use super::{Arguments, median};
use crate::msrp::progress::Progress;
use crate::msrp::tls::Both;
use crate::report::{Reach, Report};
use crate::rtp::clock;

/// 99 of 100 calls are answered in so many microseconds, or the load is too large.
pub(super) const ANSWER_MAX_US: f64 = 100_000.0;
/// A look at one rate.
const LOOK: Duration = Duration::from_millis(1000);
/// The look at four fifths.
const AT_80: Duration = Duration::from_millis(2000);
/// Between two looks, so that what waits is done.
const PAUSE: Duration = Duration::from_millis(300);
/// Rounds of these rows at most: each looks several times.
const ROUNDS_MAX: usize = 3;

/// What one round has found.
struct Found {
    rate: f64,
    /// CPU of a call at four fifths.
    ns: f64,
    at_80: Figures,
}

/// Adds the rows.
pub(super) fn run(plan: &Arguments, report: &mut Report) {
    if plan.wants("calls_per_core") || plan.wants("answer_80") {
        for wire in [Wire::Udp, Wire::Tcp, Wire::Tls] {
            let row = match wire {
                Wire::Udp => "calls_per_core".to_owned(),
                wire => format!("calls_per_core_{}", wire.name()),
            };
            if let Err(why) = of_wire(plan, &row, wire, report) {
                report.failed(row, &why);
            }
        }
    }
}

fn of_wire(plan: &Arguments, row: &str, wire: Wire, report: &mut Report) -> anyhow::Result<()> {
    let beside = plan.peers && wire == Wire::Udp;
    let rounds = plan.rounds.min(ROUNDS_MAX);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut progress = Progress::new(row, rounds * (1 + usize::from(beside)));
    for _ in 0..rounds {
        if plan.races("weir") {
            let found =
                round(|core| servers::weir(core, Setup { wire, ..Setup::PLAIN }), wire, &mut progress)?;
            progress.step("weir", found.ns);
            ours.push(found);
        }
        if beside && plan.races("kamailio_rtpengine") {
            let found = round(|core| servers::kamailio(core, Beside::Media), wire, &mut progress)?;
            progress.step("kamailio_rtpengine", found.ns);
            theirs.push(found);
        }
    }
    progress.end();
    let rate = |of: &[Found]| median(of.iter().map(|found| found.rate));
    let note = format!(
        "INVITE, 200, ACK, BYE, 200 with audio anchored, {} on one core, an open loop; by the CPU of a call at four fifths \
         of it {:.0}; the load itself ran {:.0} % of its core",
        wire.name().to_uppercase(),
        1e9 / median(ours.iter().map(|found| found.ns)),
        100.0 * median(ours.iter().map(|found| found.at_80.own_busy))
    );
    match wire {
        Wire::Udp => report.held(row, rate(&ours), "calls/s", Reach::AtLeast(5000.0), note),
        _ => report.row(row, rate(&ours), "calls/s", note),
    }
    let name = match wire {
        Wire::Udp => "answer_80_p99_ms".to_owned(),
        wire => format!("answer_80_p99_ms_{}", wire.name()),
    };
    answers(&name, &ours, report);
    if beside && !theirs.is_empty() {
        let note = "the same through Kamailio and rtpengine, both on that core";
        report.row(format!("{row}.kamailio_rtpengine"), rate(&theirs), "calls/s", note);
        answers(&format!("{name}.kamailio_rtpengine"), &theirs, report);
    }
    Ok(())
}

fn answers(row: &str, of: &[Found], report: &mut Report) {
    let ms = |quantile| median(of.iter().map(|found| found.at_80.answer_us(quantile))) / 1000.0;
    let lost: usize = of.iter().map(|found| found.at_80.fates.len() - found.at_80.done()).sum();
    let all: usize = of.iter().map(|found| found.at_80.fates.len()).sum();
    let note = format!(
        "INVITE to its 200 at four fifths of that; the median {:.2} ms; {lost} of {all} calls failed",
        ms(0.5)
    );
    report.row(row, ms(0.99), "ms", note);
}

fn round(
    start: impl Fn(usize) -> anyhow::Result<Server>,
    wire: Wire,
    progress: &mut Progress,
) -> anyhow::Result<Found> {
    let (ours, measured) = clock::cores();
    clock::pin(ours);
    let server = start(measured)?;
    let mut script = Call::new(Media::Audio);
    let (mut open, closed) = begin(&server, wire, &mut script)?;
    let rate = largest(&mut open, &mut script, closed, ANSWER_MAX_US, &server, progress)?;
    std::thread::sleep(PAUSE);
    let at_80 = open.run(&mut script, 0.8 * rate, AT_80, &server.who)?;
    let ns = at_80.busy_ns as f64 / at_80.fates.len().max(1) as f64;
    Ok(Found { rate, ns, at_80 })
}

/// Everybody is registered; and what a closed loop gets done in a second.
pub(super) fn begin(server: &Server, wire: Wire, script: &mut dyn Script) -> anyhow::Result<(Open, f64)> {
    let wires = match wire {
        Wire::Udp => Wires::udp(server.at)?,
        Wire::Tcp => Wires::streams(server.at, USERS as usize, None)?,
        Wire::Tls => Wires::streams(server.at, USERS as usize, Some(&Both::make()?.client))?,
    };
    let mut load = Load::new(wires);
    register_all(&mut load)?;
    let sample = load.measure(script, UNDER_WAY, LOOK / 2, &server.who)?;
    Ok((Open::new(load.into_wires(), 1 << 32), sample.per_s))
}

/// The largest rate that is carried.
pub(super) fn largest(
    open: &mut Open,
    script: &mut dyn Script,
    closed: f64,
    most_us: f64,
    server: &Server,
    progress: &mut Progress,
) -> anyhow::Result<f64> {
    let mut rate = 1.2 * closed;
    for _ in 0..20 {
        let look = open.run(script, rate, LOOK, &server.who)?;
        let p99 = look.answer_us(0.99);
        progress.say(&format!(
            "{rate:.0}/s: {} of {} done, p99 {:.1} ms",
            look.done(),
            look.fates.len(),
            p99 / 1000.0
        ));
        if look.holds(most_us) {
            return Ok(rate);
        }
        rate *= 0.9;
        std::thread::sleep(PAUSE);
    }
    anyhow::bail!("no rate is carried")
}
