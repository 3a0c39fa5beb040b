//! A plain table for terminals.

use std::fmt;

/// Rows of text under a head; numbers to the right, words to the left.
#[derive(Debug, Default)]
pub(crate) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new(head: &[&str]) -> Self {
        Table { head: head.iter().map(|s| (*s).to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = || std::iter::once(&self.head).chain(&self.rows);
        let width = |column: usize| {
            all().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let is_number = |text: &str| text.starts_with(|c: char| c.is_ascii_digit() || c == '-');
        let numeric: Vec<bool> = (0..self.head.len())
            .map(|column| self.rows.iter().filter_map(|row| row.get(column)).all(|c| is_number(c)))
            .collect();
        for (n, row) in all().enumerate() {
            let cells: Vec<String> = row
                .iter()
                .zip(widths.iter().zip(&numeric))
                .map(
                    |(cell, (width, right))| {
                        if *right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
                    },
                )
                .collect();
            writeln!(f, "{}", cells.join("  ").trim_end())?;
            if n == 0 {
                let rules: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
                writeln!(f, "{}", rules.join("  "))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_right_and_words_left() {
        let mut table = Table::new(&["device", "sent"]);
        table.row(vec!["ann".into(), "5".into()]);
        table.row(vec!["bob/tablet".into(), "-".into()]);
        table.row(vec!["b".into(), "1234".into()]);
        assert_eq!(
            table.to_string(),
            "device      sent\n──────────  ────\nann            5\nbob/tablet     -\nb           1234\n"
        );
    }
}
