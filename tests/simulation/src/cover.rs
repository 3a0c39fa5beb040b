//! What was reached: states, events, answers, fates, reasons; and what a whole run must have reached.

use std::collections::BTreeMap;
use std::fmt;

/// How often each thing was reached, by table and row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cover(BTreeMap<(&'static str, String), u64>);

/// What a run of a few hundred seeds must reach.
const REQUIRED: &[(&str, &[&str])] = &[
    (
        "world",
        &[
            "room",
            "relay to one",
            "relay to several",
            "two contexts",
            "a room on several shards",
            "another leg takes a leg's place",
            "handed over to its home shard",
            "tapped",
            "tapped by who is unseen",
        ],
    ),
    (
        "member × event",
        &[
            "bound × message begins",
            "lost × message begins",
            "listening × message begins",
            "congested × message begins",
            "listening × bound",
            "lost × comes again",
            "bound × reset",
            "bound × leaves",
            "bound × congested",
            "congested × relieved",
            "bound × cut loose",
            "none × joins",
        ],
    ),
    (
        "message",
        &[
            "whole",
            "given up by its sender",
            "its sender was lost",
            "refused",
            "never finished",
            "in one chunk",
            "in several chunks",
            "out of order",
            "with overlaps",
            "total unknown",
            "beside another of its sender",
            "said again",
            "to one participant",
            "from another address of its sender",
        ],
    ),
    (
        "copy",
        &[
            "delivered",
            "delivered after a wait",
            "cut short by its receiver's end",
            "given up: congested",
            "ended with #",
            "refused by its receiver",
            "tapped",
        ],
    ),
    (
        "answer",
        &[
            "200",
            "400",
            "403",
            "404",
            "408",
            "413",
            "415",
            "424",
            "425",
            "428",
            "481",
            "506",
            "none to a silent SEND",
        ],
    ),
    ("report", &["200", "408", "from a receiver", "from a tap"]),
    (
        "flow",
        &[
            "paused",
            "resumed",
            "fed while paused",
            "stalled",
            "reset by what was sent",
            "reset by what was read",
        ],
    ),
    ("lost", &["Closed", "Reset", "Slow", "BindTimeout", "ConnectFailed", "Protocol"]),
    (
        "drop",
        &[
            "msrp_congested",
            "msrp_duplicate",
            "msrp_held_full",
            "msrp_held_late",
            "msrp_malformed",
            "msrp_no_session",
            "msrp_no_target",
            "msrp_other_connection",
            "msrp_refused",
            "msrp_stray",
            "msrp_spill",
            "msrp_tap",
            "msrp_unasked",
            "msrp_unfinished",
        ],
    ),
    ("across", &["handed over", "a source waits for a shard", "tapped"]),
    ("disk", &["written", "read", "failed", "behind", "caught up"]),
    ("nickname", &["granted", "refused", "decided too late"]),
];

impl Cover {
    pub(crate) fn reach(&mut self, table: &'static str, row: impl Into<String>) {
        self.add(table, row, 1);
    }

    pub(crate) fn add(&mut self, table: &'static str, row: impl Into<String>, times: u64) {
        if times > 0 {
            *self.0.entry((table, row.into())).or_default() += times;
        }
    }

    /// Counts together with another seed's.
    pub fn merge(&mut self, other: &Cover) {
        for ((table, row), times) in &other.0 {
            *self.0.entry((table, row.clone())).or_default() += times;
        }
    }

    /// How often a row was reached.
    pub fn times(&self, table: &str, row: &str) -> u64 {
        self.0.iter().filter(|((t, r), _)| *t == table && r == row).map(|(_, times)| times).sum()
    }

    /// What a whole run should have reached and has not.
    pub fn missing(&self) -> Vec<String> {
        let rows = REQUIRED.iter().flat_map(|(table, rows)| rows.iter().map(move |row| (*table, *row)));
        rows.filter(|(table, row)| self.times(table, row) == 0).map(|(t, r)| format!("{t}: {r}")).collect()
    }
}

impl fmt::Display for Cover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = "";
        for ((table, row), times) in &self.0 {
            if *table != last {
                writeln!(f, "{table}")?;
                last = table;
            }
            writeln!(f, "  {times:>10}  {row}")?;
        }
        Ok(())
    }
}
