//! `relay`, RTP: one to one, a transport translator (RFC 7667 §3.2.1). SSRC, sequence and timestamp stay, RTCP
//! passes (see `media::feedback`); only payload types may differ between the legs.

use crate::media::{Packet, Route, Tx};

/// Sends a packet along the relay routes of its leg; how many went out.
#[inline]
pub(crate) fn rtp(routes: &mut [Route], packet: &Packet<'_>, tx: &mut Tx<'_>) -> u32 {
    super::distribute::along(routes, packet, packet.view.ssrc(), tx)
}
