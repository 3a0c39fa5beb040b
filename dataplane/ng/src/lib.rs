#![forbid(unsafe_code)]
//! rtpengine's control protocol ("ng") as another way into the contract: an existing Kamailio or OpenSIPS programs the
//! data plane with the configuration that it has. Sans-IO.
//!
//! ```text
//!   datagram or stream ─► frame ─► value ─► Adapter ── Batch, Count ─► steward ─► shard
//!   COOKIE SP {…}           ▲      bencode,    │  ▲                                │
//!                           └── reply ─────────┘  └── Applied, Refusal, Counters ──┘
//! ```
//!
//! - [`Adapter`]: calls by Call-ID and tags, one context each; each m= line over RTP is two legs and two relays;
//! - [`Value`], [`frame`]: bencode and JSON, both with bounds, both in the order that they came;
//! - what is understood of the flags stands in `flags`.
//!
//! Deliberately not here: transcoding, playing, recording, ICE and DTLS (`offer` with DTLS keys is refused), branches by
//! `via-branch`. What names them is ignored or answered as unknown, as rtpengine does with words that it does not know.

mod adapter;
mod bencode;
mod call;
mod config;
mod cookies;
mod flags;
pub mod frame;
mod json;
mod report;
mod rewrite;
mod value;

pub use adapter::{Adapter, Input, Output, Peer, Tally};
pub use config::{Config, Interface, Learning};
pub use value::{Malformed, Value};

#[cfg(test)]
mod tests;
