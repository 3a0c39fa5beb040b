//! `tap`, RTP (MSRP: `message::tap`): a copy of all that a leg's peer sends, whatever other paths make of it, to recorder, history or interception
//! legs. As with `distribute` each source is seen under one SSRC with its own sequence and timestamp, so that loss can be told
//! from silence (where the tap has keys, under a bounded set of them: `media::names`); what was protected is opened, and
//! protected with the tap leg's keys. Nothing that a tap leg sends reaches
//! anybody, and of one that is unseen no number tells: neither its copies nor those that could not be made.

use crate::Drop;
use crate::media::arrive::Sent;
use crate::media::{Media, Packet, RtpLeg, Tx};

/// Copies a packet of a leg to its taps; how many went to those that may be seen.
pub(crate) fn rtp(
    media: &mut Media,
    leg: u32,
    packet: &Packet<'_>,
    bytes: &[u8],
    tx: &mut Tx<'_>,
) -> Result<u32, Drop> {
    let Some(mut taps) = media.leg_mut(leg).map(|row| std::mem::take(&mut row.taps)) else { return Ok(0) };
    let mut result = Ok(0);
    for tap in &mut taps {
        let sent = match media.named(leg, tap.leg, packet) {
            Some(name) => media.send_named(leg, tap, (packet, name), bytes, tx),
            None => media.send_along(leg, tap, packet, packet.shown, bytes, tx),
        };
        if media.leg(tap.leg).is_none_or(|row: &RtpLeg| row.unseen) {
            continue;
        }
        result = match (result, sent) {
            (Ok(count), Ok(Sent::Yes)) => Ok(count + 1),
            (Ok(0), Err(why)) => Err(why),
            (Err(_), Ok(Sent::Yes)) => Ok(1),
            (result, _) => result,
        };
    }
    if let Some(row) = media.leg_mut(leg) {
        row.taps = taps;
    }
    result
}
