#![forbid(unsafe_code)]
//! What every floor stands on: time as a number, bounded containers, seeded randomness, privacy, faults.
//!
//! Nothing here knows a protocol, and nothing here reads a clock or opens anything.

mod budget;
mod entropy;
mod fault;
mod map;
mod outbox;
mod private;
mod time;
mod timers;

pub use budget::Budget;
pub use entropy::Entropy;
pub use fault::Fault;
pub use map::{HashSeed, Map, Set, map, set};
pub use outbox::{Full, Outbox};
pub use private::Private;
pub use time::{Instant, Now, UnixTime};
pub use timers::{TimerId, Timers};
