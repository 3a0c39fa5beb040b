//! A race: the bare loops and Weir take turns under one load, on the same core.

use std::time::Duration;

use super::load::{Load, Place, Sample, Shape};
use super::progress::Progress;
use crate::report::{Reach, Report};
use crate::rtp::bare::Running;
use crate::rtp::{clock, median};

/// One thing to measure: its name in the rows, and how to start it on the measured core.
pub(super) struct Kind<'a> {
    pub(super) name: &'static str,
    #[expect(clippy::type_complexity, reason = "what is started, and where its clients go")]
    pub(super) start: Box<dyn Fn(usize) -> anyhow::Result<(Running, Place)> + 'a>,
}

/// The one that is judged; all others are bare.
pub(super) const JUDGED: &str = "weir";

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
    pub(super) fn run(
        &self,
        slice_ms: u64,
        rounds: usize,
        reach: Reach,
        report: &mut Report,
    ) -> anyhow::Result<f64> {
        let (ours, measured) = clock::cores();
        clock::pin(ours);
        let mut progress = Progress::new(self.row, rounds * self.kinds.len());
        let mut samples: Vec<Vec<Sample>> = self.kinds.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds {
            for (kind, samples) in self.kinds.iter().zip(&mut samples) {
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
        let ns = |of: &Vec<Sample>| median(of, |s| s.ns);
        let all = || self.kinds.iter().zip(&samples);
        let bare = all().filter(|(kind, _)| kind.name != JUDGED).map(|(_, of)| ns(of));
        let bare = bare.fold(f64::INFINITY, f64::min);
        let judged = all().find(|(kind, _)| kind.name == JUDGED).map_or(f64::NAN, |(_, of)| ns(of));
        let note = format!("{JUDGED} over the best of the bare loops, CPU {}", self.what);
        report.held(self.row, judged / bare, "ratio", reach, note);
        for (kind, of) in all() {
            let (busy, rate) = (median(of, |s| s.busy) * 100.0, median(of, |s| s.per_s) / 1000.0);
            let octets = median(of, |s| s.octets);
            let note = format!("busy {busy:.0} % of the core, {rate:.1} thousand/s, {octets:.0} octets each");
            report.row(format!("{}.{}_ns", self.row, kind.name), ns(of), self.unit, note);
        }
        Ok(judged)
    }
}
