//! Ten times what it carries: `goodput_10x`, the curve from a tenth to ten times, and how soon it is over afterwards.
//!
//! The node has a part of a core ([`super::quota`]), so that one core of load can offer ten times as much.

use std::fmt::Write as _;
use std::time::Duration;

use super::Arguments;
use super::calls::{begin, largest};
use super::open::{Fate, Figures};
use super::quota::Quota;
use super::scripts::{Call, Media};
use super::servers::{self, Setup};
use super::wires::Wire;
use crate::msrp::progress::Progress;
use crate::report::{Reach, Report};
use crate::rtp::clock;

/// The node's part of a core.
const SHARE: f64 = 0.1;
/// What is offered, over what is carried.
const FACTORS: [f64; 11] = [0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0];
/// One point of the curve, of which the first part is not counted.
const POINT: Duration = Duration::from_secs(3);
const SETTLE: Duration = Duration::from_secs(1);
/// What is carried is answered so soon: with a part of a core, everything waits for its turn.
const CARRIED_MAX_US: f64 = 500_000.0;
/// A call is good when it was answered so soon, and ended.
const GOOD: Duration = Duration::from_secs(2);
/// The burst, and what is watched after it, at half of what is carried.
const BURST: Duration = Duration::from_secs(5);
const AFTER: Duration = Duration::from_secs(15);
/// The steps in which recovery is told.
const COHORT: Duration = Duration::from_millis(250);

/// Adds the rows; the curve goes beside the JSON.
pub(super) fn run(plan: &Arguments, report: &mut Report) {
    plan.each("goodput_10x", report, |report| goodput(plan, report));
}

fn goodput(plan: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    let (ours, measured) = clock::cores();
    clock::pin(ours);
    let mut progress = Progress::new("goodput_10x", 0);
    let server = servers::weir(measured, Setup::PLAIN)?;
    let mut script = Call::new(Media::Audio);
    let (mut open, closed) = begin(&server, Wire::Udp, &mut script)?;
    let _quota = Quota::of(server.id(), SHARE)?;
    let carried = largest(&mut open, &mut script, closed * SHARE, CARRIED_MAX_US, &server, &mut progress)?;
    let mut curve = Vec::new();
    for factor in FACTORS {
        let figures = open.run(&mut script, factor * carried, POINT, &server.who)?;
        let good = count(&figures, SETTLE, POINT) / (POINT - SETTLE).as_secs_f64();
        progress.say(&format!(
            "{factor} times {carried:.0}/s: {good:.0}/s good, {} of {} refused, p99 {:.0} ms, the load {:.0} % busy, {:.0} ms late",
            figures.refused(),
            figures.fates.len(),
            figures.answer_us(0.99) / 1000.0,
            figures.own_busy * 100.0,
            figures.late.as_secs_f64() * 1000.0
        ));
        curve.push((factor, good, figures.refused() as f64 / POINT.as_secs_f64()));
        std::thread::sleep(Duration::from_millis(500));
    }
    let steps = [(10.0 * carried, BURST), (0.5 * carried, AFTER)];
    let figures = open.run_steps(&mut script, &steps, &server.who)?;
    let recovered = recovered(&figures);
    progress.end();
    let peak = curve.iter().map(|(_, good, _)| *good).fold(0.0, f64::max);
    let last = curve.last().map_or(f64::NAN, |(_, good, _)| *good);
    let note = format!(
        "calls answered within {} s and ended, at ten times the {carried:.0}/s that are carried by {:.0} % of a core, over \
         the {peak:.0}/s of the best point; phones that are refused do not come again",
        GOOD.as_secs(),
        SHARE * 100.0
    );
    report.held("goodput_10x", last / peak, "ratio", Reach::AtLeast(0.9), note);
    for (factor, good, refused) in &curve {
        let note = format!("goodput at {factor} times; {refused:.0} a second refused");
        report.row(format!("goodput_10x.{factor}"), *good, "calls/s", note);
    }
    let note = format!(
        "after {} s of ten times, at half of what is carried: until of the calls of each quarter of a second 95 of 100 are \
         good again; NaN: not within {} s",
        BURST.as_secs(),
        AFTER.as_secs()
    );
    report.row("goodput_10x.recover_s", recovered, "s", note);
    if let Some(json) = &plan.json {
        let file = json.with_extension("svg");
        std::fs::write(&file, plot(carried, &curve))?;
        report.remark(format!(
            "the curve of goodput_10x: {}",
            file.file_name().unwrap_or_default().to_string_lossy()
        ));
    }
    Ok(())
}

fn is_good(fate: &Fate) -> bool {
    fate.done.is_some() && fate.answered.is_some_and(|time| time <= GOOD)
}

/// Good calls of those that were due in a time.
fn count(figures: &Figures, from: Duration, to: Duration) -> f64 {
    figures.fates.iter().filter(|fate| fate.due >= from && fate.due < to && is_good(fate)).count() as f64
}

/// Seconds from the burst's end to the first cohort from which on all are well.
fn recovered(figures: &Figures) -> f64 {
    let cohorts = (AFTER.as_millis() / COHORT.as_millis()) as u32;
    let well = |cohort: u32| {
        let (from, to) = (BURST + COHORT * cohort, BURST + COHORT * (cohort + 1));
        let all = figures.fates.iter().filter(|fate| fate.due >= from && fate.due < to).count();
        count(figures, from, to) >= 0.95 * all as f64
    };
    match (0..cohorts).rev().find(|cohort| !well(*cohort)) {
        None => 0.0,
        Some(last) if last + 1 == cohorts => f64::NAN,
        Some(last) => (COHORT * (last + 1)).as_secs_f64(),
    }
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const MARGIN: f64 = 60.0;

/// What was offered, by its logarithm, and what of it was good.
fn plot(carried: f64, curve: &[(f64, f64, f64)]) -> String {
    let high = curve.iter().map(|(_, good, _)| *good).fold(carried, f64::max) * 1.1;
    let place = |factor: f64, rate: f64| {
        format!(
            "{:.1},{:.1}",
            MARGIN + (factor.log10() + 1.0) / 2.0 * WIDTH,
            MARGIN + HEIGHT - rate / high * HEIGHT
        )
    };
    let line = |of: &dyn Fn(&(f64, f64, f64)) -> f64| {
        curve.iter().map(|point| place(point.0, of(point))).collect::<Vec<_>>().join(" ")
    };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <rect x=\"{MARGIN}\" y=\"{MARGIN}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"none\" stroke=\"#999\"/>\n\
         <text x=\"{MARGIN}\" y=\"30\">good calls a second (blue) over what is offered; grey: everything offered</text>\n\
         <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{high:.0}</text>\n",
        WIDTH + 2.0 * MARGIN,
        HEIGHT + 2.0 * MARGIN,
        MARGIN - 6.0,
        MARGIN + 12.0
    );
    for factor in [0.1_f64, 1.0, 10.0] {
        let x = MARGIN + (factor.log10() + 1.0) / 2.0 * WIDTH;
        let _ = writeln!(
            svg,
            "<text x=\"{x:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{factor} x {carried:.0}/s</text>",
            MARGIN + HEIGHT + 18.0
        );
    }
    let offered = line(&|point| (point.0 * carried).min(high));
    let _ = writeln!(svg, "<polyline fill=\"none\" stroke=\"#bbb\" points=\"{offered}\"/>");
    let _ = writeln!(
        svg,
        "<polyline fill=\"none\" stroke=\"#1f77b4\" stroke-width=\"2\" points=\"{}\"/>",
        line(&|point| point.1)
    );
    svg += "</svg>\n";
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(good: impl Fn(Duration) -> bool) -> Figures {
        let fates = (0..2000)
            .map(|n| {
                let due = Duration::from_millis(10 * n);
                let answered = good(due).then_some(Duration::from_millis(1));
                Fate {
                    due,
                    answered,
                    done: answered.map(|time| due + time),
                    refused: answered.is_none().then_some(503),
                }
            })
            .collect();
        Figures { fates, busy_ns: 0, own_busy: 0.0, late: Duration::ZERO }
    }

    #[test]
    fn recovery_is_told_from_the_end_of_the_burst_to_the_last_bad_cohort() {
        assert_eq!(recovered(&figures(|_| true)), 0.0);
        assert_eq!(recovered(&figures(|due| due > BURST + Duration::from_millis(990))), 1.0);
        assert!(recovered(&figures(|_| false)).is_nan());
    }

    #[test]
    fn a_plot_has_the_curve() {
        let svg = plot(100.0, &[(0.1, 10.0, 0.0), (1.0, 100.0, 0.0), (10.0, 95.0, 900.0)]);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && !svg.contains("NaN"));
        assert!(svg.contains("420.0,87.3"), "{svg}");
    }
}
