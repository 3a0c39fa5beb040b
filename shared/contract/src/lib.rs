#![forbid(unsafe_code)]
//! What control and the data plane say to each other. The words are in `proto/contract.proto`; here are the
//! generated types, their framing on a stream, and what the types mean in Rust (addresses, keys).
//!
//! Deliberately not here: who applies a batch (`forward`) and who writes one (`service`).

mod address;
mod frame;
mod key;
mod srtp;

/// The generated types, as the .proto documents them.
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/weir.contract.v1.rs"));
}

pub use frame::{FRAME_MAX_BYTES, FrameError, decode_frame, encode_frame};
pub use v1::*;

/// The newest version of the contract that this build speaks. 2: keys (SDES), ICE, DTLS, slots, floors, header extensions,
/// RTCP and quality of legs, bundles. A data plane of version 1 does not know them: control asks it for no keys.
pub const VERSION: u32 = 2;
/// The oldest one that it understands.
pub const VERSION_MIN: u32 = 1;
