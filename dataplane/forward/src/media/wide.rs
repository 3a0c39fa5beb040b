//! Transport-wide feedback of our own (draft-holmer-rmcat-transport-wide-cc-extensions-01): a peer that agreed to it numbers
//! its packets in a header extension and is told, ten times a second, when each of them came. It finds out by itself how much
//! may be sent to us; what our receivers can take it is told beside (`bandwidth`).
//!
//! ```text
//!   packet ── first since the last feedback: a timer is set ──► noted ── 100 ms, or more numbers than one feedback holds ──► told
//! ```

use std::time::Duration;

use base::{Instant, Now};
use rtp::{Arrivals, RtpView};

use super::{Media, RtpLeg, Tx, What};

/// From the first packet that is noted to the feedback.
const EVERY: Duration = Duration::from_millis(100);
/// Numbers that one feedback speaks of: they fit a datagram even when each needs a large delta.
const NUMBERS_MAX: usize = 256;
/// So many numbers in a row that are behind: the peer counts anew.
const BEHIND_MAX: u8 = 64;
const REFERENCE_NS: u64 = 64_000_000;
const UNIT_NS: u64 = 250_000;

/// What of a leg's packets was not told yet.
#[derive(Debug)]
pub(crate) struct Wide {
    /// The peer's id for the extension element.
    id: u8,
    /// The number of the first packet that is spoken of next; `None`: none has come yet.
    first: Option<u16>,
    came: Box<[Option<Instant>; NUMBERS_MAX]>,
    /// How many numbers `came` speaks of.
    count: usize,
    /// Counts the feedback.
    number: u8,
    /// Of the last packet.
    ssrc: u32,
    /// The timer is set.
    waits: bool,
    /// Numbers in a row that were behind.
    behind: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Noted {
    Yes,
    /// It was told of before: as missing, or it comes again.
    Old,
    /// It is too far ahead: what is there must be told first.
    Full,
}

impl Wide {
    fn new(id: u8) -> Self {
        let came = Box::new([None; NUMBERS_MAX]);
        Wide { id, first: None, came, count: 0, number: 0, ssrc: 0, waits: false, behind: 0 }
    }

    fn note(&mut self, number: u16, now: Instant) -> Noted {
        let mut ahead = number.wrapping_sub(*self.first.get_or_insert(number));
        if ahead >= 1 << 15 {
            self.behind += 1;
            if self.behind < BEHIND_MAX {
                return Noted::Old;
            }
            self.begin_anew();
            (self.first, ahead) = (Some(number), 0);
        }
        self.behind = 0;
        match self.came.get_mut(usize::from(ahead)) {
            Some(place) => {
                place.get_or_insert(now);
                self.count = self.count.max(usize::from(ahead) + 1);
                Noted::Yes
            }
            None => Noted::Full,
        }
    }

    /// What is to be told now: the first number, the reference and each moment; the next one begins after it.
    fn tell(&mut self) -> Option<(u16, u32, u8, Vec<Option<i32>>)> {
        let told = self.came.get_mut(..self.count)?;
        let first = self.first?;
        let begin = told.iter().flatten().min()?.as_nanos() / REFERENCE_NS;
        let moment = |at: Instant| i32::try_from((at.as_nanos() - begin * REFERENCE_NS) / UNIT_NS).ok();
        let moments = told.iter_mut().map(|place| place.take().and_then(moment)).collect();
        let number = self.number;
        self.first = Some(first.wrapping_add(self.count as u16));
        (self.number, self.count) = (number.wrapping_add(1), 0);
        Some((first, begin as u32, number, moments))
    }

    /// The numbers jump: it begins anew with the next packet.
    fn begin_anew(&mut self) {
        (self.first, self.count) = (None, 0);
        self.came.fill(None);
    }
}

impl RtpLeg {
    /// What control put; the same as before goes on.
    pub(super) fn put_wide(&mut self, rtp: &contract::RtpLeg) {
        let agreed = rtp.rtcp.as_deref().filter(|agreed| agreed.transport_wide);
        let id = agreed.and_then(|agreed| u8::try_from(agreed.transport_wide_id).ok()).unwrap_or(0);
        if self.wide.as_ref().map_or(0, |wide| wide.id) != id {
            self.wide = (id != 0).then(|| Box::new(Wide::new(id)));
        }
        self.timed = self.wide.is_some();
    }
}

impl Media {
    /// Notes when a packet of a leg came, if its peer has numbered it.
    pub(super) fn note_arrival(&mut self, leg: u32, view: &RtpView<'_>, now: Now, tx: &mut Tx<'_>) {
        let noted = |media: &mut Media| {
            let wide = media.leg_mut(leg)?.wide.as_mut()?;
            let [high, low] = *view.elements().element(wide.id)?.first_chunk()?;
            wide.ssrc = view.ssrc();
            Some(wide.note(u16::from_be_bytes([high, low]), now.mono))
        };
        let mut outcome = noted(self);
        if outcome == Some(Noted::Full) {
            self.tell_arrivals(leg, tx);
            outcome = noted(self);
            if outcome == Some(Noted::Full)
                && let Some(wide) = self.leg_mut(leg).and_then(|row| row.wide.as_mut())
            {
                wide.begin_anew();
                outcome = noted(self);
            }
        }
        let waits =
            |row: &mut RtpLeg| row.wide.as_mut().is_some_and(|w| std::mem::replace(&mut w.waits, true));
        if outcome == Some(Noted::Yes) && !self.leg_mut(leg).is_none_or(waits) {
            self.due(leg, now.mono + EVERY, What::Arrivals);
        }
    }

    /// The time for feedback has come.
    pub(super) fn arrivals_due(&mut self, leg: u32, tx: &mut Tx<'_>) {
        if let Some(wide) = self.leg_mut(leg).and_then(|row| row.wide.as_mut()) {
            wide.waits = false;
            self.tell_arrivals(leg, tx);
        }
    }

    fn tell_arrivals(&mut self, leg: u32, tx: &mut Tx<'_>) {
        let Some(row) = self.leg_mut(leg) else { return };
        let (own, socket) = (row.stream.ssrc, row.rtcp_out());
        let Some(wide) = &mut row.wide else { return };
        let media = wide.ssrc;
        let Some((first, reference, number, moments)) = wide.tell() else { return };
        let Some(socket) = socket else { return };
        let mut writer = self.feedback_to(leg);
        writer.transport_wide(own, media, &Arrivals { first, reference, number, moments: &moments });
        self.send_own(leg, socket, &writer, tx);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        // Whatever comes in whatever order: each number that is told of follows the one before, and what came is told once, at
        // the moment at which it came.
        #[test]
        fn each_packet_is_told_of_once(
            steps in prop::collection::vec((0..40u64, 0..6u16, any::<bool>()), 1..300), begin in any::<u16>(),
        ) {
            let mut wide = Wide::new(3);
            let (mut now, mut number) = (Instant::from_millis(1000), begin);
            let (mut noted, mut told) = (Vec::new(), Vec::new());
            let mut next = None;
            for (ms, skip, tells) in steps {
                now += Duration::from_millis(ms);
                number = number.wrapping_add(skip);
                if wide.note(number, now) == Noted::Full {
                    continue;
                }
                if skip > 0 || noted.is_empty() {
                    noted.push((number, now));
                }
                if tells && let Some((first, reference, _, moments)) = wide.tell() {
                    prop_assert_eq!(first, next.unwrap_or(first));
                    next = Some(first.wrapping_add(moments.len() as u16));
                    let begin = u64::from(reference) * REFERENCE_NS;
                    for (n, moment) in moments.iter().enumerate() {
                        if let Some(moment) = moment {
                            told.push((first.wrapping_add(n as u16), begin + *moment as u64 * UNIT_NS));
                        }
                    }
                }
            }
            for ((number, at), (told, moment)) in noted.iter().zip(&told) {
                prop_assert_eq!(number, told);
                prop_assert!(at.as_nanos() - moment < UNIT_NS);
            }
            prop_assert!(told.len() <= noted.len());
        }
    }

    #[test]
    fn numbers_that_jump_begin_anew() {
        let mut wide = Wide::new(3);
        let at = Instant::from_millis;
        assert_eq!(wide.note(65_530, at(1)), Noted::Yes);
        assert_eq!(wide.note(4, at(2)), Noted::Yes, "past the end of the numbers");
        assert_eq!(wide.note(65_529, at(2)), Noted::Old);
        assert_eq!(wide.note(5000, at(3)), Noted::Full);
        let (first, _, number, moments) = wide.tell().unwrap();
        assert_eq!((first, number, moments.len(), moments.iter().flatten().count()), (65_530, 0, 11, 2));
        assert_eq!(wide.note(5000, at(3)), Noted::Full);
        wide.begin_anew();
        assert_eq!(wide.note(5000, at(3)), Noted::Yes);
        assert_eq!(wide.tell().map(|(first, _, number, _)| (first, number)), Some((5000, 1)));
        assert!(wide.tell().is_none(), "nothing has come");
        // Back, as after a handshake of a page that was loaded again: half of all numbers are behind any.
        for number in 60_000..60_000 + u16::from(BEHIND_MAX) - 1 {
            assert_eq!(wide.note(number, at(4)), Noted::Old);
        }
        assert_eq!(wide.note(60_063, at(5)), Noted::Yes);
        assert_eq!(wide.tell().map(|(first, _, number, _)| (first, number)), Some((60_063, 2)));
    }
}
