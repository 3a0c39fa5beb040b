//! SRTP and SRTCP (RFC 3711) with AES-CM and HMAC-SHA1 (RFC 3711 §4, RFC 6188) and with AES-GCM (RFC 7714).
//!
//! - [`Outbound`] protects what we send under one master key, [`Inbound`] takes off what a peer protected; both work
//!   in the caller's buffer and allocate only when a source is new.
//! - [`Progress`] is what must outlive a restart: rollover counter, highest sequence number, replay window, SRTCP
//!   index of one source.
//! - [`Crypto`] is all that is asked of a cipher library; [`AwsLc`] gives it. It opens nothing and draws nothing:
//!   same key and same octets in, same octets out.
//!
//! Not here: master key identifiers (RFC 3711 §3.1, refused by whoever reads SDP), key derivation rates other than
//! zero, encrypted header extensions (RFC 6904), and where keys come from.

mod aws;
mod context;
mod crypto;
mod derive;
mod error;
mod seal;
mod streams;
mod suite;
#[cfg(test)]
mod tests;
mod window;

pub use aws::AwsLc;
pub use context::{Inbound, Outbound, rtcp_sender};
pub use crypto::{Aead, CounterMode, Crypto, Mac};
pub use error::SrtpError;
pub use streams::{Config, Progress};
pub use suite::{KEYING_MAX, Keying, Suite};

/// The most octets that protection adds to a packet: a GCM tag and the SRTCP index.
pub const TRAILER_MAX: usize = 20;
