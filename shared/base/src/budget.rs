//! The memory that the configured limits allow, as a sum that start-up prints.

use std::fmt;

/// Rows of "what, how many at most, bytes each".
#[derive(Clone, Debug, Default)]
pub struct Budget {
    rows: Vec<(&'static str, u64, u64)>,
}

impl Budget {
    /// Adds a row.
    pub fn row(&mut self, what: &'static str, count_max: u64, bytes_each: u64) -> &mut Self {
        self.rows.push((what, count_max, bytes_each));
        self
    }

    /// Adds another budget's rows.
    pub fn extend(&mut self, other: &Budget) -> &mut Self {
        self.rows.extend_from_slice(&other.rows);
        self
    }

    /// Bytes in all.
    pub fn total_bytes(&self) -> u64 {
        self.rows.iter().fold(0, |sum, (_, count, each)| sum.saturating_add(count.saturating_mul(*each)))
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count, each) in &self.rows {
            let mib = count.saturating_mul(*each) as f64 / 1_048_576.0;
            writeln!(f, "{what:<32} {count:>10} x {each:>8} B = {mib:>10.1} MiB")?;
        }
        write!(f, "{:<32} {:>36.1} MiB", "in all", self.total_bytes() as f64 / 1_048_576.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_printed_last() {
        let mut budget = Budget::default();
        budget.row("legs", 1024, 4096).row("dialogs", 10, 1 << 20);
        assert_eq!(budget.total_bytes(), 14 << 20);
        assert!(budget.to_string().ends_with("14.0 MiB"));
    }
}
