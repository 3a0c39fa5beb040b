//! What was expected, and whether it came.

use std::time::Instant;

/// The list of expectations of one run, told aloud as they are decided.
#[derive(Debug)]
pub(crate) struct Checks {
    began: Instant,
    all: Vec<Check>,
}

#[derive(Debug)]
struct Check {
    what: String,
    held: bool,
}

impl Checks {
    pub(crate) fn new() -> Self {
        Checks { began: Instant::now(), all: Vec::new() }
    }

    /// Says what happens now.
    pub(crate) fn step(&self, what: &str) {
        println!("[{:6.2} s] {what}", self.began.elapsed().as_secs_f64());
    }

    /// Decides one expectation. What was seen instead is said only when it did not hold.
    pub(crate) fn expect(
        &mut self,
        what: impl Into<String>,
        held: bool,
        seen: impl std::fmt::Display,
    ) -> bool {
        let what = what.into();
        if held {
            println!("[{:6.2} s]     ok  {what}", self.began.elapsed().as_secs_f64());
        } else {
            println!("[{:6.2} s] FAILED  {what}: {seen}", self.began.elapsed().as_secs_f64());
        }
        self.all.push(Check { what, held });
        held
    }

    /// Decides that something worked, and gives what came of it.
    pub(crate) fn worked<T, E: std::fmt::Display>(
        &mut self,
        what: impl Into<String>,
        outcome: Result<T, E>,
    ) -> Option<T> {
        match outcome {
            Ok(value) => {
                self.expect(what, true, "");
                Some(value)
            }
            Err(e) => {
                self.expect(what, false, e);
                None
            }
        }
    }

    /// How many held, of how many.
    pub(crate) fn score(&self) -> (usize, usize) {
        (self.all.iter().filter(|c| c.held).count(), self.all.len())
    }

    /// What did not hold.
    pub(crate) fn failures(&self) -> impl Iterator<Item = &str> {
        self.all.iter().filter(|c| !c.held).map(|c| c.what.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_is_remembered_by_its_name() {
        let mut checks = Checks::new();
        checks.expect("water is wet", true, "");
        assert_eq!(checks.worked::<(), _>("pigs fly", Err("gravity")), None);
        assert_eq!(checks.score(), (1, 2));
        assert_eq!(checks.failures().collect::<Vec<_>>(), ["pigs fly"]);
    }
}
