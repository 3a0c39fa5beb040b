//! The four transaction machines of RFC 3261 §17 with RFC 6026. Each is pure: an event gives [`Act`]s, which
//! the stack performs. None holds a message or knows an address.

pub(crate) mod invite_client;
pub(crate) mod invite_server;
pub(crate) mod other_client;
pub(crate) mod other_server;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// The constants of RFC 3261 §17 and what follows from them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timing {
    /// T1, the round trip estimate, in milliseconds.
    pub t1_ms: u64,
    /// T2, the longest interval between retransmissions of non-INVITE requests and INVITE responses.
    pub t2_ms: u64,
    /// T4, the longest time that a message stays in the network.
    pub t4_ms: u64,
    /// How long the user may think before the stack sends 100 to an INVITE (§17.2.1).
    pub trying_after_ms: u64,
    /// Timer C (§16.6 step 11): an INVITE of ours without a final response is cancelled after it.
    pub c_ms: u64,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing { t1_ms: 500, t2_ms: 4000, t4_ms: 5000, trying_after_ms: 200, c_ms: 185_000 }
    }
}

impl Timing {
    pub(crate) const fn t1(&self) -> Duration {
        Duration::from_millis(self.t1_ms)
    }

    pub(crate) const fn t2(&self) -> Duration {
        Duration::from_millis(self.t2_ms)
    }

    pub(crate) const fn t4(&self) -> Duration {
        Duration::from_millis(self.t4_ms)
    }

    /// Timers B, D, F, H, J, L and M.
    pub(crate) const fn all(&self) -> Duration {
        Duration::from_millis(self.t1_ms.saturating_mul(64))
    }

    pub(crate) const fn c(&self) -> Duration {
        Duration::from_millis(self.c_ms)
    }

    pub(crate) const fn trying_after(&self) -> Duration {
        Duration::from_millis(self.trying_after_ms)
    }
}

/// What a machine wants done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Act {
    /// Send the message that the transaction keeps: the request, or the latest response.
    Send,
    /// Send 100 Trying.
    Trying,
    /// Send the ACK for a final response other than 2xx.
    Ack,
    /// Send a CANCEL.
    Cancel,
    /// Hand what came to the user.
    Tell,
    /// Set the retransmission timer.
    Again(Duration),
    /// Stop the retransmission timer.
    StopAgain,
    /// Set the timer that ends the state.
    End(Duration),
    /// Answer 408 for the user, who gave no final response in all the time there is.
    GiveUp,
    /// Tell the user that no ACK came for its 2xx.
    AckMissing,
    /// Tell the user that no final response came.
    TimedOut,
    /// The transaction is over.
    Gone,
}

pub(crate) type Acts = SmallVec<[Act; 4]>;

/// Acts of one event.
pub(crate) use smallvec::smallvec as acts;

/// A response as the machines see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    /// 100
    Trying,
    /// 101 to 199
    Provisional,
    /// 200 to 299
    Success,
    /// 300 to 699
    Failure,
}

impl Class {
    pub(crate) const fn of(code: u16) -> Class {
        match code {
            0..=100 => Class::Trying,
            101..=199 => Class::Provisional,
            200..=299 => Class::Success,
            _ => Class::Failure,
        }
    }
}
