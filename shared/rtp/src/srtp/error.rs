//! Why a packet was not protected or not taken.

use base::Fault;

use crate::Malformed;

/// What stopped a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SrtpError {
    /// The header does not parse, or the packet is shorter than its own trailer.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// The tag does not fit: another key, or somebody else's packet (RFC 3711 §3.3 step 5).
    #[error("not authentic")]
    Unauthentic,
    /// That index came already (RFC 3711 §3.3.2).
    #[error("replayed")]
    Replayed,
    /// Older than the replay window reaches.
    #[error("older than the replay window")]
    Old,
    /// More sources than the context may have.
    #[error("too many sources")]
    Sources,
    /// The key has protected all that it may: 2^48 packets, or 2^31 of SRTCP (RFC 3711 §9.2).
    #[error("key used up")]
    UsedUp,
    /// The caller's buffer has no room for the trailer.
    #[error("no room for the tag")]
    Room,
    /// The cipher library refused the key or the data.
    #[error("cipher failure")]
    Cipher,
}

impl SrtpError {
    /// Whose fault it is.
    pub const fn fault(self) -> Fault {
        match self {
            SrtpError::Malformed(_) => Fault::Malformed,
            SrtpError::Unauthentic | SrtpError::Replayed | SrtpError::Old => Fault::Misbehaved,
            SrtpError::Sources => Fault::Refused,
            SrtpError::UsedUp | SrtpError::Room | SrtpError::Cipher => Fault::Unavailable,
        }
    }
}
