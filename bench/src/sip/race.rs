//! Weir and Kamailio take turns under the same load, on the same core.

use std::time::Duration;

use super::load::{Load, Sample, Script};
use super::scripts::{Call, Media, Pager, Register, USERS};
use super::servers::{self, Beside, Server, Setup};
use super::wires::Wires;
use super::{Arguments, median};
use crate::msrp::progress::Progress;
use crate::report::{Reach, Report};
use crate::rtp::clock;

/// Units under way at once.
pub(super) const UNDER_WAY: usize = 32;

/// How a server is started on a core.
type Start = fn(usize) -> anyhow::Result<Server>;

/// A row: what is done, and by whom; the first is held against the second.
struct Row {
    name: &'static str,
    what: &'static str,
    most: Option<f64>,
    script: fn() -> Box<dyn Script>,
    kinds: &'static [(&'static str, Start)],
}

const REGISTER: &str = "REGISTER, 401, REGISTER with digest, 200";

const ROWS: [Row; 4] = [
    Row {
        name: "register_vs_kamailio",
        what: REGISTER,
        most: Some(1.0),
        script: || Box::new(Register::new()),
        kinds: &[WEIR, KAMAILIO],
    },
    Row {
        name: "register_durable_vs_kamailio",
        what: "the same, on the disk before it is answered (Kamailio: SQLite, db_mode 1)",
        most: None,
        script: || Box::new(Register::new()),
        kinds: &[DURABLE, ("kamailio_database", |core| servers::kamailio(core, Beside::Database))],
    },
    Row {
        name: "message_vs_kamailio",
        what: "a pager MESSAGE to a registered user and its 200, CPIM inside with a delivery notification wanted",
        most: Some(1.0),
        script: || Box::new(Pager),
        kinds: &[WEIR, KAMAILIO, DURABLE],
    },
    Row {
        name: "call_vs_kamailio",
        what: "INVITE, 200, ACK, BYE, 200 to a registered user, audio anchored (Kamailio: by rtpengine)",
        most: Some(1.0),
        script: || Box::new(Call::new(Media::Audio)),
        kinds: &[WEIR, ("kamailio_rtpengine", |core| servers::kamailio(core, Beside::Media)), DURABLE],
    },
];

const KAMAILIO: (&str, Start) = ("kamailio", |core| servers::kamailio(core, Beside::Nothing));
const WEIR: (&str, Start) = ("weir", |core| servers::weir(core, Setup::PLAIN));
const DURABLE: (&str, Start) =
    ("weir_durable", |core| servers::weir(core, Setup { durable: true, ..Setup::PLAIN }));

/// Measures the rows that are wanted.
pub(super) fn run(plan: &Arguments, report: &mut Report) {
    for row in &ROWS {
        plan.each(row.name, report, |report| row.run(plan, report));
    }
}

impl Row {
    fn run(&self, plan: &Arguments, report: &mut Report) -> anyhow::Result<()> {
        let mut samples: Vec<Vec<Sample>> = self.kinds.iter().map(|_| Vec::new()).collect();
        let mut progress = Progress::new(self.name, plan.rounds * self.kinds.len());
        for _ in 0..plan.rounds {
            for ((name, start), samples) in self.kinds.iter().zip(&mut samples) {
                if !plan.races(name) {
                    continue;
                }
                let sample = self.measure(*start, plan)?;
                progress.step(name, sample.ns);
                samples.push(sample);
            }
        }
        progress.end();
        let ns: Vec<f64> = samples.iter().map(|of| median(of.iter().map(|s| s.ns))).collect();
        let note = format!("CPU each, {} over {}: {}", self.kinds[0].0, self.kinds[1].0, self.what);
        match self.most {
            Some(most) => report.held(self.name, ns[0] / ns[1], "ratio", Reach::AtMost(most), note),
            None => report.row(self.name, ns[0] / ns[1], "ratio", note),
        }
        for (((name, _), samples), ns) in self.kinds.iter().zip(&samples).zip(ns) {
            let rate = median(samples.iter().map(|s| s.per_s));
            let (done, failed) = samples.iter().fold((0, 0), |(d, f), s| (d + s.done, f + s.failed));
            let note = format!("{rate:.0} a second with {UNDER_WAY} under way, {done} done, {failed} failed");
            report.row(format!("{}.{name}_us", self.name), ns / 1000.0, "us", note);
        }
        Ok(())
    }

    fn measure(&self, start: Start, plan: &Arguments) -> anyhow::Result<Sample> {
        let (ours, measured) = clock::cores();
        clock::pin(ours);
        let server = start(measured)?;
        let mut load = Load::new(Wires::udp(server.at)?);
        register_all(&mut load)?;
        let mut script = (self.script)();
        let time = Duration::from_millis(plan.slice_ms);
        let sample = load.measure(script.as_mut(), UNDER_WAY, time, &server.who)?;
        // What is refused or lost is no work.
        anyhow::ensure!(sample.failed * 100 <= sample.done, "{} of {} failed", sample.failed, sample.done);
        Ok(sample)
    }
}

/// Every user registers; there may be no failure.
pub(super) fn register_all(load: &mut Load) -> anyhow::Result<()> {
    let failed = load.finish(&mut Register::new(), UNDER_WAY, 0..USERS)?;
    anyhow::ensure!(failed == 0, "{failed} users could not register");
    Ok(())
}
