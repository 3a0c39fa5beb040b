//! Every limit of this crate in one place. Whatever a peer sends, nothing grows beyond them.

use std::time::Duration;

use base::Budget;
use serde::{Deserialize, Serialize};

/// Limits of parsing and of the [`crate::Stack`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of start line and headers together, with the empty line.
    pub head_bytes_max: usize,
    /// Header fields in one message.
    pub headers_max: usize,
    /// Bytes of a body.
    pub body_bytes_max: usize,
    /// Via values in one message; more are answered with 400, since every hop would copy them back.
    pub vias_max: usize,
    /// Server transactions at once; a request beyond them is answered 503 without state.
    pub server_transactions_max: usize,
    /// Client transactions at once.
    pub client_transactions_max: usize,
    /// 2xx responses with different To tags that one INVITE may bring (RFC 3261 §13.2.2.4).
    pub forks_max: usize,
    /// Seconds in `Retry-After` of a 503 for lack of room.
    pub retry_after_s: u32,
    /// How long an INVITE that we serve may stay without a final response.
    #[serde(with = "millis")]
    pub invite_pending_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            head_bytes_max: 32 * 1024,
            headers_max: 128,
            body_bytes_max: 1024 * 1024,
            vias_max: 70,
            server_transactions_max: 100_000,
            client_transactions_max: 100_000,
            forks_max: 16,
            retry_after_s: 5,
            invite_pending_max: Duration::from_secs(300),
        }
    }
}

impl Limits {
    /// What the limits allow a stack to hold, at the size of usual messages (a transaction keeps the
    /// last message that it sent).
    pub fn budget(&self) -> Budget {
        let mut budget = Budget::default();
        budget.row("sip server transactions", self.server_transactions_max as u64, 4096).row(
            "sip client transactions",
            self.client_transactions_max as u64,
            4096,
        );
        budget
    }

    /// The most that one stream may have buffered.
    pub fn stream_bytes_max(&self) -> usize {
        self.head_bytes_max.saturating_add(self.body_bytes_max)
    }
}

/// Durations as milliseconds in configuration.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        u64::deserialize(d).map(Duration::from_millis)
    }
}
