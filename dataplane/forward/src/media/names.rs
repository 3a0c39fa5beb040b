//! Under which SSRCs copies go to a tap that has keys.
//!
//! A key forgets no source, or an index would come twice under it (RFC 3711 §9.1), and its table has a maximum. Who is tapped
//! may send under ever other SSRCs: were each of them a place in that table, he could fill it and be recorded no more, and
//! were he refused the next one, he would learn that he is tapped (DESIGN §3 "taps that no statistic shows"). So the copies
//! have a bounded set of names, which are SSRCs of our own that go on in sequence and timestamp whoever feeds them
//! (RFC 7667 §3.6.2).
//!
//! ```text
//!   new source ── its leg has fewer names than it may, and there is room ──► a name of its own: its SSRC, nothing is changed
//!              ├─ its leg has all that it may have ──► the leg's name that was quiet longest
//!              └─ no room ──► the name of all that was quiet longest
//! ```

use base::Instant;
use rtp::{Clock, Patch, RtpView};

use super::guard::SEQUENCE_SKIP;
use super::{Guard, Media, Packet, RtpLeg};

/// Who is called so: a leg's serial, and the SSRC under which the context sees the source.
type Whose = (u64, u32);

#[derive(Clone, Copy, Debug)]
struct Name {
    ssrc: u32,
    of: Option<Whose>,
    sequence_offset: u16,
    timestamp_offset: u32,
    next_sequence: u16,
    last_timestamp: u32,
    last_at: Instant,
}

/// The names towards one leg.
#[derive(Debug)]
pub(crate) struct Names {
    all: Vec<Name>,
    /// Where the last search ended.
    last: usize,
    max: usize,
    /// Of one tapped leg.
    each_max: usize,
}

impl Names {
    /// For a key whose table has so many places; a quarter of them stays for what is sent to the leg otherwise.
    fn new(places: usize, each_max: usize) -> Self {
        Names { all: Vec::new(), last: 0, max: (places - places / 4).max(1), each_max: each_max.max(1) }
    }

    /// What the names towards one leg may take, in octets, with so many places in its key's table.
    pub(crate) const fn octets_max(places: usize) -> usize {
        size_of::<Names>() + places * size_of::<Name>()
    }

    /// The names that a key was used under before: whose they were is not known any more.
    fn resume(&mut self, guard: &Guard, own: impl Fn(u32) -> bool) {
        for progress in guard.sent().filter(|progress| progress.started && !own(progress.ssrc)) {
            self.all.push(Name {
                ssrc: progress.ssrc,
                of: None,
                sequence_offset: 0,
                timestamp_offset: 0,
                // What was kept may be older than what was sent.
                next_sequence: progress.sequence.wrapping_add(SEQUENCE_SKIP),
                last_timestamp: 0,
                last_at: Instant::ZERO,
            });
        }
    }

    /// What a source is called, if it has a name: its SSRC, and what is added to its timestamps.
    pub(super) fn of(&self, whose: Whose) -> Option<(u32, u32)> {
        let name = self.all.iter().find(|name| name.of == Some(whose))?;
        Some((name.ssrc, name.timestamp_offset))
    }

    /// Who is called so.
    pub(super) fn whose(&self, ssrc: u32) -> Option<Whose> {
        self.all.iter().find(|name| name.ssrc == ssrc)?.of
    }

    /// Gives a packet its place.
    fn place(
        &mut self,
        whose: Whose,
        view: &RtpView<'_>,
        (now, clock): (Instant, Clock),
        draw: impl FnOnce() -> u32,
    ) -> Option<Patch> {
        let is_last = self.all.get(self.last).is_some_and(|name| name.of == Some(whose));
        if !is_last {
            self.last = match self.all.iter().position(|name| name.of == Some(whose)) {
                Some(at) => at,
                None => self.give(whose, view, (now, clock), draw)?,
            };
        }
        let name = self.all.get_mut(self.last)?;
        let sequence = view.sequence().wrapping_add(name.sequence_offset);
        let timestamp = view.timestamp().wrapping_add(name.timestamp_offset);
        if sequence.wrapping_sub(name.next_sequence) < 1 << 15 {
            (name.next_sequence, name.last_timestamp) = (sequence.wrapping_add(1), timestamp);
        }
        name.last_at = now;
        Some(Patch { payload_type: view.payload_type(), marker: false, sequence, timestamp, ssrc: name.ssrc })
    }

    /// A name for a source that has none.
    #[cold]
    fn give(
        &mut self,
        whose: Whose,
        view: &RtpView<'_>,
        (now, clock): (Instant, Clock),
        draw: impl FnOnce() -> u32,
    ) -> Option<usize> {
        let (leg, shown) = whose;
        let is_own = |name: &Name| name.of.is_some_and(|(of, _)| of == leg);
        let quietest = |own: bool| {
            let those = self.all.iter().enumerate().filter(|(_, name)| !own || is_own(name));
            those.min_by_key(|(_, name)| name.last_at).map(|(at, _)| at)
        };
        let called = self.all.iter().position(|name| name.ssrc == shown);
        let free = called.filter(|at| self.all.get(*at).is_some_and(|name| name.of.is_none()));
        let taken = if free.is_some() {
            free
        } else if self.all.iter().filter(|name| is_own(name)).count() >= self.each_max {
            quietest(true)
        } else if self.all.len() < self.max {
            None
        } else {
            quietest(false)
        };
        let Some(at) = taken else {
            let ssrc = if called.is_some() { draw() } else { shown };
            self.all.push(Name {
                ssrc,
                of: Some(whose),
                sequence_offset: 0,
                timestamp_offset: 0,
                next_sequence: view.sequence(),
                last_timestamp: view.timestamp(),
                last_at: now,
            });
            return Some(self.all.len() - 1);
        };
        let name = self.all.get_mut(at)?;
        // One clock for all whom it was given to, as far as the recorder can tell.
        let passed = clock.ticks(now).wrapping_sub(clock.ticks(name.last_at)).max(1);
        name.of = Some(whose);
        name.sequence_offset = name.next_sequence.wrapping_sub(view.sequence());
        name.timestamp_offset = name.last_timestamp.wrapping_add(passed).wrapping_sub(view.timestamp());
        Some(at)
    }
}

impl Media {
    /// Gives a tap with keys its names, and takes them where there are no keys.
    pub(super) fn name_taps(&mut self, tap: u32) {
        let (places, each_max) = (self.srtp.sources_max, self.sources_max);
        let Some(row) = self.leg_mut(tap) else { return };
        if row.names.is_some() && row.guard.is_some() {
            return;
        }
        row.names = row.guard.as_ref().map(|guard| {
            let mut names = Names::new(places, each_max);
            names.resume(guard, |ssrc| row.streams().any(|stream| stream.ssrc == ssrc));
            Box::new(names)
        });
    }

    /// What a packet of a leg becomes towards a tap that has names.
    pub(crate) fn named(&mut self, from: u32, tap: u32, packet: &Packet<'_>) -> Option<Patch> {
        let Media { legs, entropy, now, .. } = self;
        legs.get(tap as usize)?.names.as_ref()?;
        let (serial, clock) = legs.get(from as usize).map(|row: &RtpLeg| (row.serial, row.clock))?;
        let names = legs.get_mut(tap as usize)?.names.as_mut()?;
        names.place((serial, packet.shown), &packet.view, (*now, clock), || entropy.u32().max(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(sequence: u16, timestamp: u32) -> Vec<u8> {
        let mut bytes = vec![0x80, 0];
        bytes.extend_from_slice(&sequence.to_be_bytes());
        bytes.extend_from_slice(&timestamp.to_be_bytes());
        bytes.extend_from_slice(&[0, 0, 0, 5, 1]);
        bytes
    }

    #[test]
    fn a_name_that_another_source_gets_goes_on_where_it_was() {
        let mut names = Names::new(4, 1);
        let mut at = |whose, sequence, timestamp, ms| {
            let bytes = packet(sequence, timestamp);
            let view = RtpView::parse(&bytes).unwrap();
            let now = (Instant::from_millis(ms), Clock(8000));
            let patch = names.place(whose, &view, now, || 77).unwrap();
            (patch.ssrc, patch.sequence, patch.timestamp)
        };
        assert_eq!(at((1, 5), 9, 160, 1000), (5, 9, 160), "as it came");
        assert_eq!(at((1, 5), 11, 480, 1040), (5, 11, 480));
        assert_eq!(at((1, 6), 40_000, 7, 1060), (5, 12, 640), "20 ms after the other one's last");
        assert_eq!(at((1, 6), 40_001, 167, 1080), (5, 13, 800));
        assert_eq!(at((2, 5), 1, 1, 1080), (77, 1, 1), "another leg, and the SSRC is a name already");
    }

    proptest! {
        // Whoever sends under ever so many SSRCs: the names are bounded, and nobody who spoke lately loses his to another leg.
        #[test]
        fn names_are_bounded_and_nobody_takes_anothers(
            sources in prop::collection::vec((0..4u64, 0..200u32), 1..400),
        ) {
            let mut names = Names::new(16, 3);
            for (n, (leg, ssrc)) in sources.into_iter().enumerate() {
                let bytes = packet(n as u16, 160 * n as u32);
                let view = RtpView::parse(&bytes).unwrap();
                let now = (Instant::from_millis(20 * n as u64), Clock(8000));
                prop_assert!(names.place((leg, 1000 * leg as u32 + ssrc), &view, now, || 1 << 30 | n as u32).is_some());
                prop_assert!(names.all.len() <= 12);
                for leg in 0..4 {
                    let own = names.all.iter().filter(|name| name.of.is_some_and(|(of, _)| of == leg));
                    prop_assert!(own.count() <= 3);
                }
                let mut ssrcs: Vec<u32> = names.all.iter().map(|name| name.ssrc).collect();
                ssrcs.sort_unstable();
                ssrcs.dedup();
                prop_assert_eq!(ssrcs.len(), names.all.len());
            }
        }
    }
}
