//! A race: several ways to do the same work take turns under one load, on the same core.

use std::time::Duration;

use super::bare::Running;
use super::load::{Load, Sample};
use super::{Plan, clock, median};
use crate::report::{Reach, Report};

/// One thing to measure: its name in the rows and how to start it on the measured core.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) start: fn(&Load, usize) -> anyhow::Result<Running>,
}

/// What is not held against begins with this.
const WEIR: &str = "weir";
/// The one whose ratio to the best bare loop is the row's value.
const JUDGED: &str = "weir_uring";

/// What the bare loops are compared with, so that nobody doubts them: unconnected sockets, as most relays have them.
const SENDTO: &str = "sendto";

/// The same, each packet sent by itself: where several are under way the judged one gains by sending them together, and
/// a packet that comes alone costs this.
const APART: &str = "weir_apart";

/// A row with those who race for it.
pub(super) struct Race<'a> {
    pub(super) row: String,
    pub(super) kinds: &'a [Kind],
    pub(super) load: &'a dyn Fn() -> anyhow::Result<Load>,
}

impl Race<'_> {
    /// Measures and adds the rows; the judged one's nanoseconds, unless the plan leaves the row out.
    pub(super) fn run(&self, plan: &Plan, reach: Reach, report: &mut Report) -> anyhow::Result<Option<f64>> {
        if !plan.wants(&self.row) {
            return Ok(None);
        }
        let samples = self.measure(plan)?;
        let ns = |of: &[Sample]| median(of, |s| s.ns_per_packet);
        let whole = |of: &[Sample]| median(of, |s| s.core_ns_per_packet);
        let bare = self.best_bare(&samples, ns);
        let judged = self.of(JUDGED, &samples).map_or(f64::NAN, ns);
        let by_core = self.of(JUDGED, &samples).map_or(f64::NAN, whole) / self.best_bare(&samples, whole);
        let note = format!(
            "{JUDGED} over the best of the others, CPU per sent packet; by all that ran on the core {by_core:.3}"
        );
        report.held(self.row.clone(), judged / bare, "ratio", reach, note);
        if let Some(of) = self.of(APART, &samples) {
            let note =
                "the same when nothing leaves together (driver.gso off): what one packet at a time costs";
            report.held(format!("{}.apart", self.row), ns(of) / bare, "ratio", reach, note);
        }
        let sendto = self.of(SENDTO, &samples).map(ns);
        for (kind, of) in self.kinds.iter().zip(&samples) {
            let lost: u64 = of.iter().map(|s| s.lost).sum();
            let (busy, rate) = (median(of, |s| s.busy) * 100.0, median(of, |s| s.packets_per_s) / 1000.0);
            let mut note = format!("busy {busy:.0} % of the core, {rate:.0} thousand packets/s, lost {lost}");
            if let Some(sendto) = sendto.filter(|_| kind.name != SENDTO) {
                note += &format!(", {:.2} of {SENDTO}", ns(of) / sendto);
            }
            note += &format!(", all that ran on the core {:.0} ns", whole(of));
            report.row(format!("{}.{}_ns", self.row, kind.name), ns(of), "ns/packet", note);
        }
        Ok(Some(judged))
    }

    /// The samples of one kind.
    fn of<'a>(&self, name: &str, samples: &'a [Vec<Sample>]) -> Option<&'a [Sample]> {
        let all = self.kinds.iter().zip(samples);
        all.filter(|(kind, _)| kind.name == name).map(|(_, of)| of.as_slice()).next()
    }

    /// The least figure among those that are not Weir.
    fn best_bare(&self, samples: &[Vec<Sample>], figure: impl Fn(&[Sample]) -> f64) -> f64 {
        let all = self.kinds.iter().zip(samples);
        let bare = all.filter(|(kind, _)| !kind.name.starts_with(WEIR)).map(|(_, of)| figure(of));
        bare.fold(f64::INFINITY, f64::min)
    }

    /// The samples of each kind, taken in turns.
    pub(super) fn measure(&self, plan: &Plan) -> anyhow::Result<Vec<Vec<Sample>>> {
        let (ours, measured) = clock::cores();
        clock::pin(ours);
        let mut samples: Vec<Vec<Sample>> = self.kinds.iter().map(|_| Vec::new()).collect();
        for _ in 0..plan.rounds {
            for (kind, samples) in self.kinds.iter().zip(&mut samples) {
                let mut load = (self.load)()?;
                let running = (kind.start)(&load, measured)?;
                samples.push(load.measure(&running, measured, Duration::from_millis(plan.slice_ms))?);
                running.stop()?;
            }
        }
        Ok(samples)
    }
}
