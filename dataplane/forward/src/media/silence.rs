//! The watch over legs that fall silent (CPM-FACTS §4.7): no RTP and no RTCP for as long as control allows is news, once.
//! Legs whose peer may not send are exempt: those on hold, and those that only receive.

use std::time::Duration;

use base::{Instant, Now};

use super::{Media, Tx, What};

/// Until then there is news of what a leg's peer sends, where the engine does not see it.
const UNTOLD: Duration = Duration::from_millis(250);
/// From here on a leg is shown as silent.
const SHOWN: Duration = Duration::from_secs(10);

impl Media {
    /// How many legs are silent whose peer may send.
    pub(crate) fn silent(&self, now: Instant) -> u64 {
        let silent = |row: &super::RtpLeg| {
            row.may_send
                && !row.unseen
                && row.away().is_none()
                && now.since(row.last_at.max(row.since)) >= SHOWN
        };
        self.legs.iter().filter(|(_, row)| silent(row)).count() as u64
    }

    pub(super) fn check_silence(&mut self, leg: u32, now: Now, tx: &mut Tx<'_>) {
        let Some(row) = self.leg_mut(leg) else { return };
        if row.silence_ms == 0 {
            row.watched = false;
            return;
        }
        let limit = Duration::from_millis(u64::from(row.silence_ms));
        let since = row.last_at.max(row.since);
        let mut next = since + limit;
        let known_at = row.known_at(now.mono);
        if now.mono >= next && known_at < next {
            // What somebody below relays is told now and then only: not silent yet, as far as is known.
            next = now.mono + UNTOLD.min(limit);
        } else if now.mono >= next {
            next = now.mono + limit;
            if row.may_send && !row.silent {
                row.silent = true;
                let (key, unseen) = (row.key, row.unseen);
                if !unseen {
                    let reason = contract::leg_lost::Reason::MediaTimeout as i32;
                    tx.news(contract::news::What::LegLost(contract::LegLost { leg: Some(key), reason }));
                }
            }
        } else {
            row.silent = false;
        }
        self.due(leg, next, What::Silence);
    }

    /// Starts the watch over a leg's silence.
    pub(crate) fn watch_silence(&mut self, leg: u32) {
        if let Some(row) = self.leg_mut(leg)
            && row.silence_ms > 0
            && !row.watched
        {
            row.watched = true;
            let at = row.last_at.max(row.since) + Duration::from_millis(u64::from(row.silence_ms));
            self.due(leg, at, What::Silence);
        }
    }
}
