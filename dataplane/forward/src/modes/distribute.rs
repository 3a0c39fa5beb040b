//! `distribute`, RTP: one to many and N to N, a selective forwarding middlebox (RFC 7667 §3.7). Each source is seen
//! by all receivers under one SSRC, its own unless another leg of the context uses that too; sequence and timestamp
//! stay, so a packet goes out as it came. RTCP ends at each leg (see `media::report`, `media::feedback`).

use crate::media::arrive::Sent;
use crate::media::{Packet, Route, Tx};

/// Sends a packet along the distribution routes of its leg; how many went out.
#[inline]
pub(crate) fn rtp(routes: &mut [Route], packet: &Packet<'_>, tx: &mut Tx<'_>) -> u32 {
    along(routes, packet, packet.shown, tx)
}

/// Sends a packet along routes under an SSRC.
#[inline]
pub(crate) fn along(routes: &mut [Route], packet: &Packet<'_>, ssrc: u32, tx: &mut Tx<'_>) -> u32 {
    let mut sent = 0;
    for route in routes {
        sent += u32::from(route.send(packet, ssrc, tx) == Sent::Yes);
    }
    sent
}
