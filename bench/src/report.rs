//! The rows of a benchmark: a table for people, JSON for machines, and the machine they were measured on.

use std::path::Path;

use serde::Serialize;

use crate::cores;
use crate::rtp::median;

/// Where the rows were measured.
#[derive(Serialize)]
pub(crate) struct Machine {
    cpu: String,
    kernel: String,
    cores: usize,
    driver: String,
}

impl Machine {
    /// This machine; `driver` is the data-plane driver that was measured.
    pub(crate) fn here(driver: &str) -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo")
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned())
            .unwrap_or_default();
        let kernel = read("/proc/sys/kernel/osrelease").trim().to_owned();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Machine { cpu, kernel, cores, driver: driver.to_owned() }
    }
}

/// One figure.
#[derive(Serialize)]
pub(crate) struct Row {
    row: String,
    value: f64,
    unit: String,
    /// What was set out to be reached, and whether it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    reach: Option<Reach>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reached: Option<bool>,
    /// Nanoseconds of a cache line from core to core just then (see `cores`).
    #[serde(skip_serializing_if = "Option::is_none")]
    core_to_core_ns: Option<f64>,
    note: String,
}

/// What a row is to reach.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reach {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Reach {
    fn met(self, value: f64) -> bool {
        match self {
            Reach::AtMost(most) => value <= most,
            Reach::AtLeast(least) => value >= least,
        }
    }
}

impl std::fmt::Display for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reach::AtMost(most) => write!(f, "<= {most}"),
            Reach::AtLeast(least) => write!(f, ">= {least}"),
        }
    }
}

/// All of a run.
#[derive(Serialize)]
pub(crate) struct Report {
    machine: Machine,
    rows: Vec<Row>,
    /// What a reader of the rows must know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

impl Report {
    /// No rows yet.
    pub(crate) fn new(machine: Machine) -> Self {
        Report { machine, rows: Vec::new(), notes: Vec::new() }
    }

    /// Whether nothing was measured.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, row: impl Into<String>, value: f64, unit: &str, note: impl Into<String>) {
        self.push(row.into(), value, unit, None, note.into());
    }

    /// Adds a row that is held to something.
    pub(crate) fn held(
        &mut self,
        row: impl Into<String>,
        value: f64,
        unit: &str,
        reach: Reach,
        note: impl Into<String>,
    ) {
        self.push(row.into(), value, unit, Some(reach), note.into());
    }

    /// Adds a row that could not be measured; the run goes on.
    pub(crate) fn failed(&mut self, row: impl Into<String>, why: &anyhow::Error) {
        self.push(row.into(), f64::NAN, "", None, format!("not measured: {why:#}"));
    }

    /// Adds the time of a cache line from core to core, of all that were taken with rows.
    pub(crate) fn cores(&mut self) {
        let times: Vec<f64> = self.rows.iter().filter_map(|row| row.core_to_core_ns).collect();
        let (least, most) =
            times.iter().fold((f64::INFINITY, 0.0), |(a, b): (f64, f64), ns| (a.min(*ns), b.max(*ns)));
        if times.is_empty() {
            return;
        }
        let note = format!(
            "a cache line from core to core, median of those taken with each row: {least:.0} to {most:.0}. Where it changes \
             within a run, the host has moved the cores: compare rows of one state"
        );
        self.row("core_to_core_ns", median(&times, |ns| *ns), "ns", note);
    }

    /// Adds something that a reader of the rows must know.
    pub(crate) fn remark(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    fn push(&mut self, row: String, value: f64, unit: &str, reach: Option<Reach>, note: String) {
        // Four significant digits: more would pretend.
        let value = rounded(value);
        let core_to_core_ns = cores::core_to_core_ns().map(rounded);
        let reached = reach.map(|reach| reach.met(value));
        // A whole run takes a quarter of an hour: each row is told when it is there.
        let lines = core_to_core_ns.map(|ns| format!(" (core to core {ns} ns)")).unwrap_or_default();
        match value.is_nan() {
            true => eprintln!("bench: {row} {note}"),
            false => eprintln!("bench: {row} {value} {unit}{lines}"),
        }
        self.rows.push(Row { row, value, unit: unit.to_owned(), reach, reached, core_to_core_ns, note });
    }

    /// The table, to standard output.
    pub(crate) fn print(&self) {
        let machine = &self.machine;
        println!(
            "{} x {} · Linux {} · driver {}",
            machine.cores, machine.cpu, machine.kernel, machine.driver
        );
        let width = self.rows.iter().map(|row| row.row.len()).max().unwrap_or(0);
        println!(
            "{:<width$}  {:>12} {:<10} {:<8} {:<5}  {:>5}  note",
            "row", "value", "unit", "reach", "", "c2c"
        );
        for Row { row, value, unit, reach, reached, core_to_core_ns, note } in &self.rows {
            let lines = core_to_core_ns.map(|ns| ns.round().to_string()).unwrap_or_default();
            let reach = reach.map(|reach| reach.to_string()).unwrap_or_default();
            let reached = match reached {
                Some(true) => "ok",
                Some(false) => "SHORT",
                None => "",
            };
            println!("{row:<width$}  {value:>12} {unit:<10} {reach:<8} {reached:<5}  {lines:>5}  {note}");
        }
        for note in &self.notes {
            println!("note: {note}");
        }
    }

    /// The same as JSON.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        std::fs::write(path, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(())
    }
}

/// With four significant digits.
fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}
