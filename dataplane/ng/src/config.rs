//! What the process tells the adapter.

use std::net::IpAddr;
use std::time::Duration;

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
