//! The bandwidth that a leg's peer may use (`bandwidth_kbps`), as a bucket of tokens: what is over it is dropped and counted.
//! Written as a moment until which the peer has used up its share (the virtual scheduling algorithm of ITU-T I.371), which
//! needs no clock of its own.

use std::time::Duration;

use base::Instant;

use super::{Media, RtpLeg};

/// Headers below RTP, which an SDP's bandwidth counts too (RFC 8866 §5.8): IPv4 and UDP.
const HEADERS: u64 = 28;

/// What control does not say of each leg.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Limits {
    /// How far ahead of its bandwidth a leg may run for a moment.
    burst_ms: u64,
    /// So much RTCP may any leg send: who says little may have much to say of what he hears. Above it the same as the media,
    /// of which RFC 3550 §6.2 leaves it a twentieth.
    rtcp_min_kbps: u32,
}

impl Limits {
    pub(super) const fn of(limits: &crate::Limits) -> Self {
        Limits { burst_ms: limits.police_burst_ms, rtcp_min_kbps: limits.rtcp_min_kbps }
    }
}

/// The buckets of a leg.
#[derive(Debug)]
pub(crate) struct Police {
    kbps: u32,
    rtp: Bucket,
    rtcp: Bucket,
}

impl Police {
    fn new(kbps: u32, limits: Limits, now: Instant) -> Self {
        let bucket = |kbps| Bucket::new(kbps, limits.burst_ms, now);
        Police { kbps, rtp: bucket(kbps), rtcp: bucket(kbps.max(limits.rtcp_min_kbps)) }
    }

    /// That of a transport which lines share, for what of their RTCP comes together; `None`: one of them has none.
    pub(super) fn shared<'a>(
        old: Option<Box<Police>>,
        lines: impl Iterator<Item = Option<&'a Police>>,
        limits: Limits,
    ) -> Option<Box<Police>> {
        let kbps = lines.map(|line| line.map(|police| police.kbps.max(limits.rtcp_min_kbps)));
        let kbps = kbps.sum::<Option<u32>>().filter(|kbps| *kbps > 0)?;
        old.filter(|old| old.kbps == kbps)
            .or_else(|| Some(Box::new(Police::new(kbps, limits, Instant::ZERO))))
    }

    /// Whether RTCP of so many octets may pass now.
    pub(super) fn passes_rtcp(&mut self, octets: usize, now: Instant) -> bool {
        self.rtcp.passes(octets, now)
    }
}

#[derive(Debug)]
struct Bucket {
    /// Picoseconds that an octet takes.
    octet_ps: u64,
    burst: Duration,
    used_until: Instant,
}

impl Bucket {
    fn new(kbps: u32, burst_ms: u64, now: Instant) -> Self {
        let octet_ps = 8_000_000_000 / u64::from(kbps.max(1));
        Bucket { octet_ps, burst: Duration::from_millis(burst_ms), used_until: now }
    }

    /// Whether a datagram of so many octets may pass now.
    fn passes(&mut self, octets: usize, now: Instant) -> bool {
        let begin = self.used_until.max(now);
        if begin.since(now) > self.burst {
            return false;
        }
        self.used_until = begin + Duration::from_nanos((octets as u64 + HEADERS) * self.octet_ps / 1000);
        true
    }
}

impl RtpLeg {
    /// The bandwidth that control put; the same as before goes on.
    pub(super) fn put_police(&mut self, kbps: u32, limits: Limits, now: Instant) {
        if self.police.as_ref().map_or(0, |police| police.kbps) != kbps {
            self.police = (kbps > 0).then(|| Box::new(Police::new(kbps, limits, now)));
        }
        self.policed = self.police.is_some();
    }
}

impl Media {
    /// Whether a packet from a policed leg passes.
    #[cold]
    pub(super) fn passes_police(&mut self, leg: u32, rtcp: bool, octets: usize, now: Instant) -> bool {
        let Some(row) = self.leg_mut(leg) else { return false };
        let bucket = row.police.as_mut().map(|police| if rtcp { &mut police.rtcp } else { &mut police.rtp });
        let passes = bucket.is_none_or(|bucket| bucket.passes(octets, now));
        row.talk.policed += u64::from(!passes);
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_agreed_passes_for_ever_and_twice_as_much_does_not() {
        // G.711 at 20 ms: 172 + 28 octets, 80 kbit/s.
        for (packets, passed) in [(1, 1000), (2, 1050)] {
            let mut police = Bucket::new(80, 1000, Instant::ZERO);
            let mut now = Instant::from_millis(1);
            let mut count = 0;
            for _ in 0..1000 {
                for _ in 0..packets {
                    count += u32::from(police.passes(172, now));
                }
                now += Duration::from_millis(20);
            }
            assert!((passed..passed + 10).contains(&count), "{packets}: {count}");
        }
    }

    proptest! {
        // Over any stretch of time no more passes than the rate and one burst allow.
        #[test]
        fn no_more_than_the_rate_and_one_burst(
            kbps in 1..100_000u32,
            burst in 1..2000u64,
            arrivals in prop::collection::vec((0..50_000u64, 0..1500usize), 1..400),
        ) {
            let mut police = Bucket::new(kbps, burst, Instant::ZERO);
            let (mut now, mut octets) = (Instant::ZERO, 0);
            let mut largest = 0;
            for (us, length) in arrivals {
                now += Duration::from_micros(us);
                if police.passes(length, now) {
                    octets += length as u64 + HEADERS;
                    largest = largest.max(length as u64 + HEADERS);
                }
            }
            let ms = now.since(Instant::ZERO).as_millis() as u64 + burst;
            let most = ms * u64::from(kbps) / 8 + largest + largest + u64::from(kbps) / 8;
            prop_assert!(octets <= most + octets / 1000, "{octets} of {most}");
        }
    }
}
