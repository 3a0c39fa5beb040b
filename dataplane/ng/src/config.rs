//! What the process tells the adapter.

use std::net::IpAddr;
use std::time::Duration;

use base::Budget;

use crate::adapter::{PENDING_MAX, WAITING_SUM_MAX};
use crate::frame::MESSAGE_MAX;

/// A call with every line and every key that a description may have, its requests in work aside.
const CALL_BYTES: u64 = 32 << 10;

/// How the source of a peer's media is learned; the contract's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Learning {
    /// Only the address of the description.
    Strict,
    /// For a while, from that address's host or network.
    #[default]
    Window,
    /// For a while, from anywhere.
    Trust,
}

/// An address that legs can be on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// The word in `direction`.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
}

/// Bounds, times and addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Calls at once.
    pub calls_max: usize,
    /// Replies that are remembered for retransmissions.
    pub cookies_max: usize,
    /// Octets of them.
    pub cookies_bytes_max: usize,
    /// For so long.
    pub cookie_life: Duration,
    /// A call whose every leg is silent for so long is removed.
    pub silence: Duration,
    /// The same for one that is on hold.
    pub silence_held: Duration,
    /// An offer without an answer is removed after so long.
    pub unanswered: Duration,
    /// How sources are learned.
    pub learning: Learning,
    /// For so long after an answer.
    pub learning_window: Duration,
    /// The first one is the default.
    pub interfaces: Vec<Interface>,
}

impl Config {
    /// The memory that the bounds allow. A request in work is a few times its description.
    pub fn budget(&self) -> Budget {
        let mut budget = Budget::default();
        budget
            .row("ng calls", self.calls_max as u64, CALL_BYTES)
            .row("ng changes and queries", PENDING_MAX as u64 + 1, 2 * CALL_BYTES + 2 * MESSAGE_MAX as u64)
            .row("ng requests that wait", WAITING_SUM_MAX as u64, 2 * MESSAGE_MAX as u64)
            .row("ng replies", 1, self.cookies_bytes_max as u64);
        budget
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            calls_max: 4096,
            cookies_max: 4096,
            cookies_bytes_max: 8 << 20,
            cookie_life: Duration::from_secs(30),
            silence: Duration::from_secs(60),
            silence_held: Duration::from_secs(3600),
            unanswered: Duration::from_secs(300),
            learning: Learning::Window,
            learning_window: Duration::from_secs(5),
            interfaces: Vec::new(),
        }
    }
}
