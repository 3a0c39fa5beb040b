//! The wall to the kernel: io_uring and mio drivers, connections with TLS, buffers, pinning. The only crate
//! with `unsafe`; each block says why it is sound.
#![expect(unsafe_code, reason = "the one crate that talks to the kernel by address")]

mod map;
mod ring;
mod sys;
mod wake;

pub use ring::{Completion, NAMED_HEAD, Named, Ring, RingConfig, named};
pub use sys::{descriptor_limit, discard, dissolve, probe_mtu};
pub use wake::Wake;
