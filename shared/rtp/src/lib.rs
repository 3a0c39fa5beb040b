#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]
//! RTP and RTCP as views over the octets that arrived, what kind of datagram shares a port (RFC 7983), the
//! rewriting of fixed headers, the statistics of RFC 3550 appendix A, and SRTP ([`srtp`]).
//!
//! Nothing is copied or allocated by a view. Deliberately not here: sockets, and which
//! packet goes where (`forward`).

mod demux;
mod extension;
mod rewrite;
mod rtcp;
pub mod srtp;
mod stats;
mod view;
mod write;

pub use demux::{Kind, kind};
pub use extension::{AudioLevel, Elements};
pub use rewrite::{HEAD_BYTES, Patch};
pub use rtcp::{Block, Compound, Feedback, Packet, SenderInfo, Ssrcs, compound};
pub use stats::{Clock, Reception};
pub use view::{Malformed, RtpView};
pub use write::{Ntp, RtcpWriter};
