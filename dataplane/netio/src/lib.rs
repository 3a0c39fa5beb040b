//! The wall to the kernel: io_uring and mio drivers behind one trait, connections with TLS, buffers, pinning. The
//! only crate with `unsafe`; each block says why it is sound.
//!
//! Deliberately not here: what a packet or a message means, and where it goes (`forward`).
#![expect(unsafe_code, reason = "the one crate that talks to the kernel by address")]

mod batch;
mod driver;
mod gathered;
mod host;
pub mod kernel;
mod map;
mod measure;
mod memory;
mod pin;
mod poll;
mod ring;
mod signals;
mod stream;
mod sys;
mod tls;
pub mod udp;
mod uring;
mod wake;

pub use driver::{Driver, DriverConfig, Event, Gone, Tally};
pub use host::addresses;
pub use measure::{Choice, Kind, Wanted, choose};
pub use memory::keep_free;
pub use pin::pin;
pub use poll::Polled;
pub use ring::{Completion, NAMED_HEAD, Named, Place, Ring, RingConfig, named};
pub use signals::Signals;
pub use sys::{descriptor_limit, discard, dissolve, probe_mtu};
pub use tls::Tls;
pub use uring::Uring;
pub use wake::Wake;
