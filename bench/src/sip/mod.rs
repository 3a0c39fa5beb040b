//! SIP: what a message, a registration and a call cost, beside other parsers and beside Kamailio.

mod parse;

use std::path::PathBuf;

use crate::report::{Machine, Report};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Writes the rows as JSON too.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Measurements of each kind, interleaved; the table shows medians.
    #[arg(long, default_value_t = 7)]
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
}

/// Runs everything that was asked for.
pub(crate) fn run(plan: &Arguments) -> anyhow::Result<Report> {
    let mut report = Report::new(Machine::here("none"));
    parse::run(plan, &mut report)?;
    anyhow::ensure!(!report.is_empty(), "no row is called so");
    Ok(report)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
