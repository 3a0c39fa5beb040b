//! The rows of a benchmark: a table for people, JSON for machines, and the machine they were measured on.

use std::path::Path;

use serde::Serialize;

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
    note: String,
}

/// All of a run.
#[derive(Serialize)]
pub(crate) struct Report {
    machine: Machine,
    rows: Vec<Row>,
}

impl Report {
    /// No rows yet.
    pub(crate) fn new(machine: Machine) -> Self {
        Report { machine, rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, row: impl Into<String>, value: f64, unit: &str, note: impl Into<String>) {
        // Four significant digits: more would pretend.
        let value = format!("{value:.3e}").parse().unwrap_or(value);
        self.rows.push(Row { row: row.into(), value, unit: unit.to_owned(), note: note.into() });
    }

    /// The table, to standard output.
    pub(crate) fn print(&self) {
        let machine = &self.machine;
        println!(
            "{} x {} · Linux {} · driver {}",
            machine.cores, machine.cpu, machine.kernel, machine.driver
        );
        let width = self.rows.iter().map(|row| row.row.len()).max().unwrap_or(0);
        for Row { row, value, unit, note } in &self.rows {
            println!("{row:<width$}  {value:>12} {unit:<10}  {note}");
        }
    }

    /// The same as JSON.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        std::fs::write(path, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(())
    }
}
