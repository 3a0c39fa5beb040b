//! A race: the bare loops and Weir take turns under one load, on the same core.

use std::time::Duration;

use super::Arguments;
use super::load::{Load, Place, Sample, Shape};
use super::progress::Progress;
use crate::report::{Reach, Report};
use crate::rtp::bare::Running;
use crate::rtp::{clock, median};

/// One thing to measure: its name in the rows, and how to start it on the measured core.
pub(super) struct Kind<'a> {
    pub(super) name: &'static str,
    pub(super) start: Box<dyn Fn(usize) -> anyhow::Result<(Running, Place)> + 'a>,
}

/// The one that is judged; all others are bare.
pub(super) const JUDGED: &str = "weir";

/// One that is held against the others as well, in a row of its own.
pub(super) const BESIDE: &str = "b2b";

/// A row with those who race for it.
pub(super) struct Race<'a> {
    pub(super) row: &'a str,
    pub(super) what: &'a str,
    pub(super) unit: &'a str,
    pub(super) shape: Shape,
    pub(super) kinds: Vec<Kind<'a>>,
}

impl Race<'_> {
    /// Measures all in turns and adds the rows; nanoseconds of the judged one.
    pub(super) fn run(&self, plan: &Arguments, reach: Reach, report: &mut Report) -> anyhow::Result<f64> {
        let samples = self.measure(plan)?;
        let all = || self.kinds.iter().zip(&samples);
        let bare = all().filter(|(kind, _)| kind.name != JUDGED).map(|(_, of)| ns(of));
        let bare = bare.fold(f64::INFINITY, f64::min);
        let judged = all().find(|(kind, _)| kind.name == JUDGED).map_or(f64::NAN, |(_, of)| ns(of));
        let note = format!("{JUDGED} over the best of the bare loops, CPU {}", self.what);
        report.held(self.row, judged / bare, "ratio", reach, note);
        self.list(&samples, report);
        Ok(judged)
    }

    /// The same held the other way round: how many times as much the other one takes.
    pub(super) fn run_against(
        &self,
        plan: &Arguments,
        reach: Reach,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let samples = self.measure(plan)?;
        let all = || self.kinds.iter().zip(&samples);
        let of = |name| all().find(|(kind, _)| kind.name == name).map_or(f64::NAN, |(_, of)| ns(of));
        let other = all().find(|(kind, _)| ![JUDGED, BESIDE].contains(&kind.name));
        let other = other.map_or(f64::NAN, |(_, of)| ns(of));
        let note =
            format!("messages per CPU-second, {JUDGED} as the same relay over the other, {}", self.what);
        report.held(self.row, other / of(JUDGED), "ratio", reach, note);
        if self.kinds.iter().any(|kind| kind.name == BESIDE) {
            let note = "the same, a session with each client instead (B2BUA)";
            report.row(format!("{}.{BESIDE}", self.row), other / of(BESIDE), "ratio", note);
        }
        self.list(&samples, report);
        Ok(())
    }

    fn list(&self, samples: &[Vec<Sample>], report: &mut Report) {
        for (kind, of) in self.kinds.iter().zip(samples) {
            let (busy, rate) = (median(of, |s| s.busy) * 100.0, median(of, |s| s.per_s) / 1000.0);
            let octets = median(of, |s| s.octets);
            let note = format!("busy {busy:.0} % of the core, {rate:.1} thousand/s, {octets:.0} octets each");
            report.row(format!("{}.{}_ns", self.row, kind.name), ns(of), self.unit, note);
        }
    }

    fn measure(&self, plan: &Arguments) -> anyhow::Result<Vec<Vec<Sample>>> {
        let (slice_ms, rounds) = (plan.slice_ms, plan.rounds);
        let (ours, measured) = clock::cores();
        clock::pin(ours);
        let mut progress = Progress::new(self.row, rounds * self.kinds.len());
        let mut samples: Vec<Vec<Sample>> = self.kinds.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds {
            for (kind, samples) in self.kinds.iter().zip(&mut samples) {
                if plan.kind.as_deref().is_some_and(|only| only != kind.name) {
                    continue;
                }
                let (running, place) = (kind.start)(measured)?;
                let mut load = Load::connect(place, self.shape)?;
                let sample = load.measure(running.who, measured, Duration::from_millis(slice_ms))?;
                progress.step(kind.name, sample.ns);
                samples.push(sample);
                drop(load);
                running.stop()?;
            }
        }
        progress.end();
        Ok(samples)
    }
}

fn ns(of: &[Sample]) -> f64 {
    median(of, |s| s.ns)
}
