//! What a run is doing just now, on standard error.

use std::io::{IsTerminal as _, Write as _};

/// One row's line.
pub(crate) struct Progress {
    row: String,
    steps: usize,
    done: usize,
    lives: bool,
}

impl Progress {
    pub(crate) fn new(row: &str, steps: usize) -> Self {
        Progress { row: row.to_owned(), steps, done: 0, lives: std::io::stderr().is_terminal() }
    }

    /// One more measurement.
    pub(crate) fn step(&mut self, what: &str, ns: f64) {
        self.done += 1;
        let (row, done, steps) = (&self.row, self.done, self.steps);
        self.line(&format!("{row}: {done}/{steps} {what} {ns:.1} ns"));
    }

    /// Anything else.
    pub(crate) fn say(&mut self, what: &str) {
        self.line(&format!("{}: {what}", self.row));
    }

    fn line(&self, text: &str) {
        let mut out = std::io::stderr();
        // A terminal shows one line that changes, a file all of them.
        let _ = if self.lives { write!(out, "\r\x1b[K{text}") } else { writeln!(out, "{text}") };
        let _ = out.flush();
    }

    /// The line is done with.
    pub(crate) fn end(&self) {
        if self.lives {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
