#![forbid(unsafe_code)]
//! One core's engine, sans-IO: contexts, legs and paths as tables, the modes that move media between legs,
//! latching, queues, counters. The process (`dataplaned`) drives it; `netio` owns the sockets.
//!
//! How a driver runs an engine (one per shard, one thread each):
//!
//! ```text
//! loop {
//!     for event in driver.poll(engine.next_timeout()) {       // a batch
//!         while outbox.room() < engine.room_needed() { perform(outbox) }
//!         engine.handle(now, event, &mut outbox);
//!         perform(outbox)          // Forward* speak of the datagram just handled: before its buffer goes back
//!     }
//!     engine.timeout(now, &mut outbox)                         // when next_timeout() <= now
//!     while engine.flush(&mut outbox) { perform(outbox) }      // MSRP writes of the whole batch, per connection
//! }
//! ```
//!
//! Deliberately not here: sockets, TLS, clocks, threads; users, SIP, SDP and policy (`service` knows them).

mod apply;
mod config;
mod drops;
mod engine;
mod few;
mod input;
mod media;
mod message;
mod modes;
mod outposts;
mod output;
mod totals;
mod wanted;

pub use config::{Config, Limits, Listener};
pub use drops::Drop;
pub use engine::Engine;
pub use input::{Attachment, CloseReason, ConnId, DialId, DtlsId, DtlsKeys, DtlsWord, Input, SocketId};
pub use media::{Carried, OwnMedia, Settled};
pub use message::relay::{RelayConfig, SHARD_SHIFT};
pub use message::{SpillId, SpillOrder, SpillWord};
pub use outposts::{Elsewhere, Handed, Standing};
pub use output::{DtlsOrder, HEAD_BYTES, Output, Packet, Transport};
pub use totals::Totals;

#[cfg(test)]
mod tests;
