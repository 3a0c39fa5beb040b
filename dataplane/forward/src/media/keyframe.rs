//! Requests for key frames (CPM-FACTS §4.3): what receivers ask for by PLI or FIR, and what a new receiver or another
//! speaker needs, is asked of the source at most once in 500 ms, in the words that its peer agreed to.
//!
//! ```text
//!   asked ── 500 ms since the last one ──► PLI or FIR to the source
//!        └─ sooner ──► waits, once for all who ask ── 500 ms over ──►
//! ```

use std::time::Duration;

use base::Now;
use rtp::{Feedback, RtcpWriter};

use super::{Media, Tx, What};
use crate::outposts::Word;

/// At most one request for a key frame per source in this time.
const EVERY: Duration = Duration::from_millis(500);

impl Media {
    /// A receiver asks for a key frame by PLI (RFC 4585 §6.3.1) or FIR (RFC 5104 §4.3.1).
    pub(super) fn key_frames_asked(&mut self, by: u32, feedback: &Feedback<'_>, now: Now, tx: &mut Tx<'_>) {
        if feedback.format == Feedback::PLI {
            return self.key_frame_asked(by, feedback.media, now, tx);
        }
        for (media, number) in feedback.full_intra() {
            let Some(row) = self.leg_mut(by) else { return };
            // RFC 5104 §4.3.1.2: a number that was heard is a retransmission of the same request.
            if row.talk.is_new_fir(feedback.sender, media, number) {
                self.key_frame_asked(by, media, now, tx);
            }
        }
    }

    /// A receiver asks for a key frame of what it knows as `media`.
    fn key_frame_asked(&mut self, by: u32, media: u32, now: Now, tx: &mut Tx<'_>) {
        if let Some((leg, ssrc)) = self.source_of(by, media) {
            self.want_key_frame(leg, ssrc, now, tx);
        }
    }

    /// Whose packets a receiver gets under an SSRC: the leg, and what its peer calls the source.
    pub(super) fn source_of(&self, receiver: u32, media: u32) -> Option<(u32, u32)> {
        // What a leg that is unseen asks for, its source would see.
        let row = self.leg(receiver).filter(|row| !row.unseen)?;
        if let Some(own) = row.streams().find(|stream| stream.ssrc == media) {
            return own.carries.map(|carried| (carried.leg, carried.ssrc));
        }
        if let Some(names) = &row.names {
            let (serial, shown) = names.whose(media)?;
            let feeder =
                row.feeders.iter().find(|at| self.leg(**at).is_some_and(|from| from.serial == serial))?;
            let source = self.leg(*feeder)?.sources.iter().find(|s| s.shown == shown)?;
            return Some((*feeder, source.ssrc));
        }
        row.feeders.iter().find_map(|feeder| {
            let source = self.leg(*feeder)?.sources.iter().find(|s| s.shown == media)?;
            Some((*feeder, source.ssrc))
        })
    }

    /// Asks a leg's peer for a key frame, now or when 500 ms have passed since the last time.
    pub(crate) fn want_key_frame(&mut self, leg: u32, ssrc: u32, now: Now, tx: &mut Tx<'_>) {
        let Some(row) = self.leg_mut(leg) else { return };
        let waits = row.sources.iter().any(|s| s.key_frame_waits);
        let Some(source) = row.sources.iter_mut().find(|s| s.ssrc == ssrc) else { return };
        match source.key_frame_at {
            Some(last) if now.mono.since(last) < EVERY => {
                source.key_frame_waits = true;
                if !waits {
                    self.due(leg, last + EVERY, What::KeyFrame);
                }
            }
            _ => self.ask_key_frame(leg, ssrc, now, tx),
        }
    }

    fn ask_key_frame(&mut self, leg: u32, ssrc: u32, now: Now, tx: &mut Tx<'_>) {
        let Some(row) = self.leg_mut(leg) else { return };
        let (socket, away) = (row.rtcp_out(), row.away().is_some());
        if socket.is_none() && !away {
            return;
        }
        let agreed = row.talk.agreed;
        let Some(source) = row.sources.iter_mut().find(|s| s.ssrc == ssrc) else { return };
        source.key_frame_at = Some(now.mono);
        source.key_frame_waits = false;
        if away {
            self.tell_leg(leg, Word::KeyFrame(ssrc), tx);
            return;
        }
        let Some(socket) = socket else { return };
        let by_fir = agreed.fir && !agreed.pli;
        // RFC 5104 §4.3.1.1: each new request has the next number.
        source.fir = source.fir.wrapping_add(u8::from(by_fir));
        let number = source.fir;
        let mut writer = self.feedback_to(leg);
        let own = self.leg(leg).map_or(0, |row| row.stream.ssrc);
        if by_fir {
            writer.full_intra(own, ssrc, number);
        } else {
            writer.picture_loss(own, ssrc);
        }
        self.send_own(leg, socket, &writer, tx);
    }

    /// What feedback to a leg's peer begins with: a report and our name (RFC 3550 §6.1), or nothing where reduced size was
    /// agreed (RFC 5506).
    pub(super) fn feedback_to(&self, leg: u32) -> RtcpWriter {
        let mut writer = RtcpWriter::new();
        if let Some(row) = self.leg(leg).filter(|row| !row.talk.agreed.reduced) {
            let own = row.stream.ssrc;
            writer.receiver(own, &[]).description([(own, row.cname.as_str())].into_iter());
        }
        writer
    }

    /// What waited is asked for.
    pub(super) fn key_frame_due(&mut self, leg: u32, now: Now, tx: &mut Tx<'_>) {
        let due = |media: &Media| {
            let sources = media.leg(leg).map(|row| row.sources.as_slice()).unwrap_or_default();
            let old = |at: Option<base::Instant>| at.is_none_or(|at| now.mono.since(at) >= EVERY);
            sources.iter().find(|s| s.key_frame_waits && old(s.key_frame_at)).map(|s| s.ssrc)
        };
        while let Some(ssrc) = due(self) {
            if let Some(source) =
                self.leg_mut(leg).and_then(|row| row.sources.iter_mut().find(|s| s.ssrc == ssrc))
            {
                source.key_frame_waits = false;
            }
            self.ask_key_frame(leg, ssrc, now, tx);
        }
        let next = self.leg(leg).and_then(|row| {
            row.sources.iter().filter(|s| s.key_frame_waits).filter_map(|s| s.key_frame_at).min()
        });
        if let Some(last) = next {
            self.due(leg, last + EVERY, What::KeyFrame);
        }
    }
}
