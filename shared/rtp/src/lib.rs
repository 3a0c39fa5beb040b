#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]
//! RTP and RTCP as views over the octets that arrived, what kind of datagram shares a port (RFC 7983), the
//! rewriting of fixed headers, the statistics of RFC 3550 appendix A, SRTP ([`srtp`]), and the checks of ICE ([`stun`]).
//!
//! Nothing is copied or allocated by a view. Deliberately not here: sockets, and which
//! packet goes where (`forward`).

mod demux;
mod extension;
mod key_frame;
mod quality;
mod rewrite;
mod rtcp;
pub mod srtp;
mod stats;
pub mod stun;
mod view;

pub use demux::{Kind, kind};
pub use extension::{AudioLevel, Elements, add_element, map_extensions};
pub use key_frame::VideoCodec;
pub use quality::{Impairment, Passage};
pub use rewrite::{HEAD_BYTES, Patch};
pub use rtcp::{
    Arrivals, Block, Blocks, Chunk, Chunks, Compound, Dlrr, DlrrList, Extended, ExtendedBlocks, Feedback,
    Item, Items, Ntp, Packet, RTCP_MAX, ReceiverEstimate, RtcpWriter, SenderInfo, Ssrcs, TmmbrEntry,
    TransportWide, VoipMetrics, WriteExtended, compound,
};
pub use stats::{Clock, Received, Reception};
pub use view::{Malformed, RtpView};
