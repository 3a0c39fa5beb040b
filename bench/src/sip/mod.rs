//! SIP: what a message, a registration and a call cost, beside other parsers and beside Kamailio; how many calls a core
//! carries, what a contact and a connection take of memory, what is left of a node under ten times its load, and how many
//! users a core serves.
//!
//! The load runs on the first core, what is measured on the last one: all of its processes, whose CPU counts by the
//! scheduler's own nanoseconds (schedstat). Kinds that are compared take turns; of each the median of all turns counts.

mod calls;
mod load;
mod memory;
mod mixed;
mod open;
mod overload;
mod parse;
mod quota;
mod race;
mod scripts;
pub(crate) mod servers;
mod wires;

use std::path::PathBuf;

use crate::report::{Machine, Report};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Writes the rows as JSON too, and beside it the curve of `goodput_10x` as SVG.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Milliseconds of one measurement.
    #[arg(long, default_value_t = 1000)]
    slice_ms: u64,
    /// Beside Kamailio (and rtpengine), when it is installed.
    #[arg(long)]
    peers: bool,
    /// Measurements of each kind, interleaved; the table shows medians.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only rows whose name begins so.
    #[arg(long)]
    only: Option<String>,
    /// Only this one of those who race for a row (for a profiler).
    #[arg(long)]
    kind: Option<String>,
}

impl Arguments {
    fn races(&self, kind: &str) -> bool {
        self.kind.as_deref().is_none_or(|only| only == kind)
    }

    fn wants(&self, row: &str) -> bool {
        self.only.as_deref().is_none_or(|only| row.starts_with(only))
    }

    /// A row, if it is asked for. One that cannot be measured says why, and the others go on.
    fn each(&self, row: &str, report: &mut Report, measure: impl FnOnce(&mut Report) -> anyhow::Result<()>) {
        if self.wants(row)
            && let Err(why) = measure(report)
        {
            report.failed(row, &why);
        }
    }
}

const NOT_COMPARABLE: &str = "Kamailio's proxy passes on what it gets, Weir is a back-to-back user agent with policy, states of \
     notifications and a row in its store for what it has accepted";
const NOTES: [&str; 2] = [
    "CPU is that of all threads of all processes of what is measured, on one core; the load is on another one. Compare \
     ratios: nanoseconds are this machine's, this minute.",
    "The phones check what they are told: a REGISTER's 200 lists the binding, both sides of a call are told the server's \
     port and not each other's.",
];

/// Runs everything that was asked for.
pub(crate) fn run(plan: &Arguments) -> anyhow::Result<Report> {
    let choice = netio::choose(netio::Wanted::Uring);
    let mut report = Report::new(Machine::here(choice.kind.label()));
    parse::run(plan, &mut report)?;
    if plan.peers {
        match servers::kamailio_version() {
            Some(version) => {
                report.remark(format!("beside {version}, one worker, users in memory; {NOT_COMPARABLE}"))
            }
            None => anyhow::bail!("--peers: kamailio is not installed"),
        }
        race::run(plan, &mut report);
    }
    calls::run(plan, &mut report);
    memory::run(plan, &mut report);
    overload::run(plan, &mut report);
    plan.each("capacity_mixed", &mut report, |report| mixed::run(plan.rounds, report));
    anyhow::ensure!(!report.is_empty(), "no row is called so");
    report.cores();
    NOTES.iter().for_each(|note| report.remark(*note));
    Ok(report)
}

/// What operators run on their own hardware: the users that one core serves.
pub(crate) fn capacity(rounds: usize) -> anyhow::Result<Report> {
    let choice = netio::choose(netio::Wanted::Auto);
    let mut report = Report::new(Machine::here(choice.kind.label()));
    mixed::run(rounds, &mut report)?;
    report.cores();
    report.remark(mixed::PROPORTIONS);
    Ok(report)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    crate::rtp::median(&values, |value| *value)
}
