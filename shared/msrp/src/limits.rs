//! What a peer may ask of the framer.

use base::Budget;

/// Limits of one connection's framing. The numbers are CPM-FACTS §3.10 unless an RFC is named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Octets of a head: start line and header lines. At most 65535, more is cut to that.
    pub head_max: usize,
    /// URIs in one To-Path or From-Path.
    pub path_uris_max: usize,
    /// Octets of the body of a request other than SEND (RFC 4975 §7.1: 10240).
    pub other_body_max: u64,
}

impl Limits {
    /// Memory that one framer may hold, as rows.
    pub fn budget(&self, framers_max: u64) -> Budget {
        let mut budget = Budget::default();
        budget.row("msrp heads in assembly", framers_max, self.head_max as u64);
        budget
    }

    pub(crate) fn head_octets(&self) -> usize {
        self.head_max.min(usize::from(u16::MAX))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits { head_max: 8192, path_uris_max: 8, other_body_max: 10_240 }
    }
}
