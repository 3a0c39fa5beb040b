//! Reception statistics of one source (RFC 3550 appendix A.1, A.3, A.8).

use base::Instant;

use crate::{Block, RtpView, SenderInfo};

const DROPOUT_MAX: u16 = 3000; // §A.1 MAX_DROPOUT
const MISORDER_MAX: u16 = 100; // §A.1 MAX_MISORDER

/// The clock of a payload, in Hz.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock(pub u32);

impl Clock {
    /// A moment in units of the clock, modulo 2^32.
    #[inline]
    pub fn ticks(self, at: Instant) -> u32 {
        let ns = at.as_nanos();
        let (s, rest) = (ns / 1_000_000_000, ns % 1_000_000_000);
        let rate = u64::from(self.0);
        (s.wrapping_mul(rate).wrapping_add(rest * rate / 1_000_000_000)) as u32
    }
}

/// What counting goes on from, where somebody else goes on with it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Received {
    /// The sequence number that the source began with; another one: it has begun anew.
    pub base: u32,
    /// Highest sequence number, with its cycles.
    pub highest: u32,
    /// Bit n: the packet n before the highest one came.
    pub seen: u64,
    /// Scaled by 16 (§A.8).
    pub jitter: u32,
    /// Packets that came late.
    pub reordered: u32,
    /// Packets that came again, since the source began.
    pub duplicates: u32,
}

/// What is known of one source from its packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reception {
    ssrc: u32,
    highest: u16,
    cycles: u32,
    base: u32,
    bad: Option<u16>,
    received: u32,
    expected_before: u32,
    received_before: u32,
    transit: Option<u32>,
    /// Scaled by 16 (§A.8).
    jitter: u32,
    /// Bit n: the packet n before the highest one came. 0: none has come yet.
    seen: u64,
    reordered: u32,
    duplicates: u32,
    /// Before the source began anew (§A.1): distinct packets, missing ones, duplicates.
    earlier: (u32, u32, u32),
    last_sr: u32,
    last_sr_at: Instant,
}

impl Reception {
    /// From the first packet of a source, without counting it: [`Reception::update`] does.
    pub fn new(view: &RtpView<'_>) -> Self {
        let highest = view.sequence();
        Reception {
            ssrc: view.ssrc(),
            highest,
            cycles: 0,
            base: u32::from(highest),
            bad: None,
            received: 0,
            expected_before: 0,
            received_before: 0,
            transit: None,
            jitter: 0,
            seen: 0,
            reordered: 0,
            duplicates: 0,
            earlier: (0, 0, 0),
            last_sr: 0,
            last_sr_at: Instant::ZERO,
        }
    }

    /// Counts a packet. False: it is so far out of order that it is not counted (§A.1; a second one in sequence
    /// restarts the source).
    #[inline]
    pub fn update(&mut self, view: &RtpView<'_>, at: Instant, clock: Clock) -> bool {
        let sequence = view.sequence();
        let delta = sequence.wrapping_sub(self.highest);
        if delta < DROPOUT_MAX {
            if sequence < self.highest {
                self.cycles = self.cycles.wrapping_add(1 << 16);
            }
            self.highest = sequence;
            if delta == 0 {
                self.duplicates = self.duplicates.wrapping_add((self.seen & 1) as u32);
            }
            self.seen = self.seen.checked_shl(u32::from(delta)).unwrap_or(0) | 1;
        } else if delta <= u16::MAX - MISORDER_MAX {
            if self.bad != Some(sequence) {
                self.bad = Some(sequence.wrapping_add(1));
                return false;
            }
            *self = Reception {
                last_sr: self.last_sr,
                last_sr_at: self.last_sr_at,
                reordered: self.reordered,
                earlier: (self.distinct(), self.missing(), self.duplicates()),
                seen: 1,
                ..Reception::new(view)
            };
        } else {
            self.late(u16::MAX - delta + 1);
        }
        self.received = self.received.wrapping_add(1);
        if clock.0 > 0 {
            let transit = clock.ticks(at).wrapping_sub(view.timestamp());
            if let Some(before) = self.transit {
                // §A.8: J += |D| - ((J + 8) >> 4), J scaled by 16.
                let d = (transit.wrapping_sub(before) as i32).unsigned_abs();
                self.jitter = self.jitter.saturating_add(d).saturating_sub((self.jitter + 8) >> 4);
            }
            self.transit = Some(transit);
        }
        true
    }

    /// What is known so far, for whoever counts on from here ([`Reception::take_over`]).
    pub const fn so_far(&self) -> Received {
        Received {
            base: self.base,
            highest: self.highest(),
            seen: self.seen,
            jitter: self.jitter,
            reordered: self.reordered,
            duplicates: self.duplicates,
        }
    }

    /// Somebody else counted `packets` more in the same way, from `before` to `now`, the last one of which came at a moment with
    /// a timestamp. Packets may have been counted here meanwhile.
    pub fn take_over(
        &mut self,
        packets: u32,
        before: Received,
        now: Received,
        (at, timestamp): (Instant, u32),
        clock: Clock,
    ) {
        let reordered = now.reordered.wrapping_sub(before.reordered);
        let duplicates = now.duplicates.wrapping_sub(before.duplicates);
        self.reordered = self.reordered.wrapping_add(reordered);
        if before.base != self.base {
            // The source has begun anew here since.
            self.earlier.0 = self.earlier.0.wrapping_add(packets.saturating_sub(duplicates));
            self.earlier.2 = self.earlier.2.wrapping_add(duplicates);
            return;
        }
        let ahead = now.highest.wrapping_sub(self.highest()) as i32;
        let shift = |bits: u64, by: i32| bits.checked_shl(by.unsigned_abs()).unwrap_or(0);
        if ahead >= 0 {
            self.seen = shift(self.seen, ahead) | now.seen;
            (self.highest, self.cycles) = (now.highest as u16, now.highest & 0xffff_0000);
        } else {
            self.seen |= shift(now.seen, ahead);
        }
        self.received = self.received.wrapping_add(packets);
        self.duplicates = self.duplicates.wrapping_add(duplicates);
        if clock.0 > 0 {
            self.jitter = now.jitter;
            self.transit = Some(clock.ticks(at).wrapping_sub(timestamp));
        }
    }

    /// A packet came that is `back` before the highest one: late, or there already.
    #[cold]
    fn late(&mut self, back: u16) {
        let bit = 1u64.checked_shl(u32::from(back)).unwrap_or(0);
        if self.seen & bit != 0 {
            self.duplicates = self.duplicates.wrapping_add(1);
        } else {
            self.reordered = self.reordered.wrapping_add(1);
            self.seen |= bit;
        }
    }

    /// A sender report of this source came.
    pub fn sender_report(&mut self, info: &SenderInfo, at: Instant) {
        self.last_sr = info.ntp_middle();
        self.last_sr_at = at;
    }

    /// The source.
    pub const fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Highest sequence number with its cycles.
    pub const fn highest(&self) -> u32 {
        self.cycles.wrapping_add(self.highest as u32)
    }

    /// Packets that should have come.
    pub const fn expected(&self) -> u32 {
        self.highest().wrapping_sub(self.base).wrapping_add(1)
    }

    /// Packets that came.
    pub const fn received(&self) -> u32 {
        self.received
    }

    /// Lost so far; negative with duplicates (§A.3).
    pub const fn lost(&self) -> i32 {
        self.expected().wrapping_sub(self.received) as i32
    }

    /// Packets that came after one with a higher number.
    pub const fn reordered(&self) -> u32 {
        self.reordered
    }

    /// Packets that came again (of those that were more than 63 late nobody knows).
    pub const fn duplicates(&self) -> u32 {
        self.earlier.2.wrapping_add(self.duplicates)
    }

    /// Packets that came, each counted once, over all that the source has begun anew.
    pub const fn distinct(&self) -> u32 {
        self.earlier.0.wrapping_add(self.received.wrapping_sub(self.duplicates))
    }

    /// Packets that never came, over all that the source has begun anew.
    pub const fn missing(&self) -> u32 {
        let distinct = self.received.wrapping_sub(self.duplicates);
        let expected = if self.seen == 0 { 0 } else { self.expected() };
        self.earlier.1.wrapping_add(expected.saturating_sub(distinct))
    }

    /// Jitter in units of the clock.
    pub const fn jitter(&self) -> u32 {
        self.jitter >> 4
    }

    /// The block for the next report; loss is counted from the last call on.
    pub fn report(&mut self, now: Instant) -> Block {
        let (expected, received) = (self.expected(), self.received);
        let interval = expected.wrapping_sub(self.expected_before);
        let lost = i64::from(interval) - i64::from(received.wrapping_sub(self.received_before));
        (self.expected_before, self.received_before) = (expected, received);
        let fraction =
            if interval == 0 || lost <= 0 { 0 } else { ((lost << 8) / i64::from(interval)).min(255) };
        let since = now.since(self.last_sr_at).as_nanos() * 65_536 / 1_000_000_000;
        Block {
            ssrc: self.ssrc,
            fraction_lost: fraction as u8,
            cumulative_lost: self.lost().clamp(-0x80_0000, 0x7f_ffff),
            highest: self.highest(),
            jitter: self.jitter(),
            last_sr: self.last_sr,
            delay: if self.last_sr == 0 { 0 } else { u32::try_from(since).unwrap_or(u32::MAX) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sequence: u16, timestamp: u32) -> [u8; 12] {
        let [a, b] = sequence.to_be_bytes();
        let [t0, t1, t2, t3] = timestamp.to_be_bytes();
        [0x80, 0, a, b, t0, t1, t2, t3, 0, 0, 0, 7]
    }

    fn feed(sequences: &[u16]) -> Reception {
        let first = packet(sequences[0], 0);
        let mut reception = Reception::new(&RtpView::parse(&first).unwrap());
        for (i, s) in sequences.iter().enumerate() {
            let ms = 20 * i as u64;
            let p = packet(*s, 160 * i as u32);
            reception.update(&RtpView::parse(&p).unwrap(), Instant::from_millis(ms), Clock(8000));
        }
        reception
    }

    #[test]
    fn loss_reorder_duplicates_and_wraps() {
        for (sequences, expected, lost) in [
            (&[5u16, 6, 7][..], 3, 0),
            (&[0, 1, 2], 3, 0),
            (&[65_534, 65_535, 0, 1], 4, 0),
            (&[5, 7, 8], 4, 1),
            (&[5, 7, 6, 8], 4, 0),
            (&[5, 6, 6, 7], 3, -1),
            (&[65_535, 1, 0], 3, 0),
            (&[5, 40_000, 6], 2, 0),
            (&[5, 40_000, 40_001, 40_002], 2, 0),
        ] {
            let r = feed(sequences);
            assert_eq!((r.expected(), r.lost()), (expected, lost), "{sequences:?}");
        }
    }

    /// Whoever counts a part of the packets elsewhere comes to the same.
    #[test]
    fn what_another_counted_is_as_if_it_was_counted_here() {
        let clock = Clock(8000);
        for sequences in [
            &[5u16, 6, 7, 8, 9, 10, 11, 12][..],
            &[5, 7, 6, 9, 9, 8, 14, 13],
            &[65_530, 65_531, 65_535, 65_534, 0, 2, 1, 3],
            &[1, 200, 201, 150, 400, 401, 401, 310],
        ] {
            let came = |n: usize| (packet(sequences[n], 160 * n as u32), Instant::from_millis(21 * n as u64));
            let count = |r: &mut Reception, range: std::ops::Range<usize>| {
                for n in range {
                    let (packet, at) = came(n);
                    r.update(&RtpView::parse(&packet).unwrap(), at, clock);
                }
            };
            let fresh = || Reception::new(&RtpView::parse(&came(0).0).unwrap());
            let mut whole = fresh();
            count(&mut whole, 0..8);
            for (from, to) in [(1, 4), (3, 8), (2, 6)] {
                let mut here = fresh();
                count(&mut here, 0..from);
                let (mut there, before) = (here, here.so_far());
                count(&mut there, from..to);
                let (packet, at) = came(to - 1);
                let last = (at, RtpView::parse(&packet).unwrap().timestamp());
                here.take_over((to - from) as u32, before, there.so_far(), last, clock);
                count(&mut here, to..8);
                assert_eq!(here, whole, "{sequences:?} {from}..{to}");
            }
        }
        // The source has begun anew meanwhile: what was counted before that counts on, once.
        let mut here = feed(&[5, 6, 7]);
        let before = here.so_far();
        for (n, sequence) in [40_000u16, 40_001, 40_002].into_iter().enumerate() {
            let packet = packet(sequence, 0);
            here.update(&RtpView::parse(&packet).unwrap(), Instant::from_millis(100 + n as u64), clock);
        }
        let there = Received { highest: 9, ..before };
        here.take_over(2, before, there, (Instant::from_millis(90), 0), clock);
        assert_eq!((here.distinct(), here.missing(), here.highest()), (7, 0, 40_002));
    }

    #[test]
    fn late_packets_and_those_that_come_again_are_told_apart() {
        // (sequence numbers, distinct, missing, reordered, duplicates)
        for (sequences, distinct, missing, reordered, duplicates) in [
            (&[5u16, 6, 7][..], 3, 0, 0, 0),
            (&[5, 5, 6, 6, 6], 2, 0, 0, 3),
            (&[5, 7, 6, 6, 8], 4, 0, 1, 1),
            (&[5, 8], 2, 2, 0, 0),
            (&[65_534, 0, 65_535, 65_535], 3, 0, 1, 1),
            // 70 late: nobody knows any more whether it was there.
            (&[100, 170, 100], 3, 68, 1, 0),
            // The source begins anew: what was before counts on.
            (&[5, 7, 7, 40_000, 40_001, 40_003], 4, 2, 0, 1),
        ] {
            let r = feed(sequences);
            let told = (r.distinct(), r.missing(), r.reordered(), r.duplicates());
            assert_eq!(told, (distinct, missing, reordered, duplicates), "{sequences:?}");
        }
    }

    #[test]
    fn regular_packets_have_no_jitter_and_a_late_one_has() {
        let mut r = feed(&[1, 2, 3]);
        assert_eq!(r.jitter(), 0);
        let late = packet(4, 480);
        r.update(&RtpView::parse(&late).unwrap(), Instant::from_millis(60 + 16), Clock(8000));
        assert_eq!(r.jitter(), 8, "16 ms = 128 ticks, a sixteenth of it");
    }

    #[test]
    fn a_report_counts_loss_since_the_last_one() {
        let mut r = feed(&[1, 2, 4, 5]);
        r.sender_report(
            &SenderInfo { ssrc: 7, ntp: 0x1234_5678_9abc_def0, timestamp: 0, packets: 0, octets: 0 },
            Instant::from_millis(100),
        );
        let first = r.report(Instant::from_millis(1100));
        assert_eq!((first.fraction_lost, first.cumulative_lost), (51, 1));
        assert_eq!((first.last_sr, first.delay), (0x5678_9abc, 65_536));
        assert_eq!(r.report(Instant::from_millis(1200)).fraction_lost, 0);
    }
}
