//! `floor`: only the holders' streams pass, each in a slot of the path (see [`super::slot`]); control names the holders. The gate
//! opens and closes between two packets: nothing of a source passes once its leg holds the floor no more, whatever it has
//! begun. RTCP of all legs ends here, so that those without the floor hear our reports and are heard by nobody.
//!
//! ```text
//!   shut ── control names the leg, a slot is free ──► open ── control names it no more ──► shut
//!                                                      └─ video: from the next key frame on, which is asked for
//! ```

use base::{Instant, Now};

use super::slot::{self, Stage};
use crate::Drop;
use crate::media::{Media, Packet, Tx};

impl Stage {
    /// Control names the holders, the first ones first; those who get a slot now.
    pub(crate) fn hold(&mut self, holders: &[u32], now: Instant) -> Vec<u32> {
        let holders = holders.get(..self.slots).unwrap_or(holders);
        self.keep(|leg| holders.contains(&leg));
        let mut begun = Vec::new();
        for leg in holders {
            if self.seat_of(*leg).is_none()
                && let Some(at) = self.vacant()
            {
                self.sit(at, (*leg, 0), now);
                begun.push(*leg);
            }
        }
        begun
    }
}

/// Takes a packet of a leg that may hold the floor; how many went out.
pub(crate) fn rtp(
    media: &mut Media,
    now: Now,
    leg: u32,
    at: u32,
    packet: &Packet<'_>,
    bytes: &[u8],
    tx: &mut Tx<'_>,
) -> Result<u32, Drop> {
    slot::rtp(media, now, leg, at, packet, bytes, tx)
}
