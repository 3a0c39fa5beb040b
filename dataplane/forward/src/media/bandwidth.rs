//! How much receivers can take: REMB, TMMBR (RFC 5104 §4.2) and transport-wide feedback end here; a source is told the least
//! of what its receivers can take, as REMB or TMMBR, whichever its peer agreed to (CPM-FACTS §4.3).
//!
//! Transport-wide feedback says which packets came. From it follows what reached the receiver, and, where more than a
//! tenth was lost, how much less to send: the loss-based half of draft-ietf-rmcat-gcc-02 §6, once a second.

use std::time::Duration;

use base::{Instant, Now};
use rtp::{Feedback, TmmbrEntry};

use super::talk::Estimate;
use super::{Media, RtpLeg, Tx};
use crate::modes::slot::Part;
use crate::outposts::Word;

/// An estimate that was not said again for so long counts no more.
const FRESH: Duration = Duration::from_secs(15);
/// A source is told again after so long, or sooner when it must send less.
const EVERY: Duration = Duration::from_secs(1);
const SOONER: Duration = Duration::from_millis(200);
/// How often losses are judged.
const JUDGED_EVERY: Duration = Duration::from_secs(1);
/// Headers below RTP: IPv4 and UDP (RFC 5104 §4.2.1.1).
const OVERHEAD: u16 = 28;
/// Sources that one REMB or TMMBR names.
const NAMED_MAX: usize = 16;

impl Media {
    /// REMB came from a receiver.
    pub(super) fn estimate_heard(&mut self, leg: u32, feedback: &Feedback<'_>, now: Now, tx: &mut Tx<'_>) {
        let Some(estimate) = feedback.receiver_estimate() else { return };
        let Some(row) = self.leg_mut(leg) else { return };
        row.talk.asked = Some(Estimate { bits_per_second: estimate.bits_per_second, at: now.mono });
        self.tell_sources(leg, now, tx);
    }

    /// TMMBR came from a receiver: it is answered with the words that bind now, its own (RFC 5104 §4.2.2).
    pub(super) fn limits_heard(&mut self, leg: u32, feedback: &Feedback<'_>, now: Now, tx: &mut Tx<'_>) {
        let known = |media: &Media, ssrc: u32| media.source_of(leg, ssrc).is_some();
        let asked = feedback.limits().filter(|entry| known(self, entry.ssrc));
        let Some(least) = asked.min_by_key(|entry| entry.bits_per_second) else { return };
        let Some(row) = self.leg_mut(leg) else { return };
        row.talk.asked = Some(Estimate { bits_per_second: least.bits_per_second, at: now.mono });
        if let (true, Some(socket)) = (row.talk.agreed.tmmbr, row.rtcp_out()) {
            let own = row.stream.ssrc;
            let mut writer = self.feedback_to(leg);
            writer.rate_notification(own, &[TmmbrEntry { ssrc: feedback.sender, ..least }]);
            self.send_own(leg, socket, &writer, tx);
        }
        self.tell_sources(leg, now, tx);
    }

    /// Transport-wide feedback came from a receiver.
    pub(super) fn arrivals_heard(&mut self, leg: u32, feedback: &Feedback<'_>, now: Now, tx: &mut Tx<'_>) {
        let Some(arrivals) = feedback.transport_wide() else { return };
        let Some(row) = self.leg_mut(leg) else { return };
        // In sums: two octets of it may speak of 8191 packets.
        row.talk.arrivals.all += u64::from(arrivals.count);
        row.talk.arrivals.came += arrivals.arrived() as u64;
        if now.mono.since(row.talk.arrivals.judged_at) < JUDGED_EVERY {
            return;
        }
        let sent = self.octets_to(leg);
        let Some(row) = self.leg_mut(leg) else { return };
        if row.talk.arrivals.judge(sent, now.mono, &mut row.talk.by_loss) {
            self.tell_sources(leg, now, tx);
        }
    }

    /// Octets of datagrams that were sent to a leg.
    fn octets_to(&self, leg: u32) -> u64 {
        let Some(row) = self.leg(leg) else { return 0 };
        let routes =
            row.feeders.iter().filter_map(|feeder| self.leg(*feeder)?.fans.iter().find(|r| r.leg == leg));
        row.counts.bytes_out
            + row.streams().map(|stream| stream.bytes).sum::<u64>()
            + routes.map(|route| route.bytes).sum::<u64>()
    }

    /// The legs whose packets a leg is sent now.
    fn tell_sources(&mut self, receiver: u32, now: Now, tx: &mut Tx<'_>) {
        // What a leg that is unseen can take, its source would see.
        let Some(row) = self.leg(receiver).filter(|row| !row.unseen) else { return };
        let mut sources = row.feeders.clone();
        sources.extend(row.streams().filter_map(|stream| Some(stream.carries?.leg)));
        for source in sources {
            self.tell_source(source, now, tx);
        }
    }

    pub(super) fn tell_source(&mut self, source: u32, now: Now, tx: &mut Tx<'_>) {
        let Some(row) = self.leg_mut(source) else { return };
        let agreed = row.talk.agreed;
        let (socket, away) = (row.rtcp_out(), row.away().is_some());
        if !(agreed.remb || agreed.tmmbr) || (socket.is_none() && !away) {
            return;
        }
        // The sum is over all receivers and all that they are sent: made no oftener than it may be told, whatever they say.
        if row.talk.summed_at.is_some_and(|at| now.mono.since(at) < SOONER) {
            return;
        }
        row.talk.summed_at = Some(now.mono);
        // One receiver that says 0 must not silence the source for all.
        let floor = self.estimate_min;
        let Some(bits_per_second) = self.least(source, now.mono).map(|bits| bits.max(floor)) else { return };
        let told = self.leg(source).and_then(|row| row.talk.told);
        if !told.is_none_or(|told| {
            let since = now.mono.since(told.at);
            let less = u128::from(bits_per_second) * 100 < u128::from(told.bits_per_second) * 97;
            since >= EVERY || (less && since >= SOONER)
        }) {
            return;
        }
        let Some(row) = self.leg(source) else { return };
        let own = row.stream.ssrc;
        let recent = row.present().filter(|s| now.mono.since(s.last_at) < FRESH);
        let ssrcs: Vec<u32> = recent.map(|s| s.ssrc).take(NAMED_MAX).collect();
        if ssrcs.is_empty() {
            return;
        }
        if let Some(row) = self.leg_mut(source) {
            row.talk.told = Some(Estimate { bits_per_second, at: now.mono });
        }
        if away {
            self.tell_leg(source, Word::Rate(bits_per_second), tx);
            return;
        }
        let Some(socket) = socket else { return };
        let mut writer = self.feedback_to(source);
        if agreed.remb {
            writer.receiver_estimate(own, bits_per_second, &ssrcs);
        } else {
            let each = (bits_per_second / ssrcs.len() as u64).max(floor);
            let entry = |ssrc| TmmbrEntry { ssrc, bits_per_second: each, overhead: OVERHEAD };
            let entries: Vec<TmmbrEntry> = ssrcs.into_iter().map(entry).collect();
            writer.rate_request(own, &entries);
        }
        self.send_own(source, socket, &writer, tx);
    }

    /// What all receivers of a source can take of it.
    fn least(&self, source: u32, now: Instant) -> Option<u64> {
        let row = self.leg(source)?;
        let fans = row.fans.iter().map(|route| route.leg);
        let stages = row.parts.iter().filter_map(|part| match part {
            Part::Talker(stage, _) | Part::Speaker(stage) => self.stages.get(*stage as usize),
            Part::Voice(..) | Part::Tapped | Part::Spread => None,
        });
        let carries = |leg: &u32| {
            let mut streams = self.leg(*leg).into_iter().flat_map(RtpLeg::streams);
            streams.any(|stream| stream.carries.is_some_and(|carried| carried.leg == source))
        };
        let chosen = stages.flat_map(|stage| stage.targets.iter().map(|target| target.leg)).filter(carries);
        let far = row.spread.iter().flat_map(|spread| &spread.rates);
        let far = far.map(|(_, rate)| rate).filter(|rate| now.since(rate.at) < FRESH);
        let here = fans.chain(chosen).filter_map(|target| self.share(target, now));
        here.chain(far.map(|rate| rate.bits_per_second)).min()
    }

    /// What a receiver can take of each source that it is sent: equal shares of its estimate.
    fn share(&self, target: u32, now: Instant) -> Option<u64> {
        let row = self.leg(target).filter(|row| !row.unseen)?;
        let estimate = row.talk.estimate(now)?;
        let sending = |leg: &u32| {
            self.leg(*leg).is_some_and(|from| from.present().any(|s| now.since(s.last_at) < FRESH))
        };
        let sources = row.feeders.iter().filter(|leg| sending(leg)).count().max(1);
        Some(estimate / sources as u64)
    }
}

/// What transport-wide feedback has said since it was last judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrivals {
    all: u64,
    came: u64,
    judged_at: Instant,
    /// Octets sent until then.
    sent: u64,
    /// What reached the receiver, bit/s.
    pub(crate) delivered: u64,
}

impl Arrivals {
    pub(crate) const fn new() -> Self {
        Arrivals { all: 0, came: 0, judged_at: Instant::ZERO, sent: 0, delivered: 0 }
    }

    /// Judges the time since the last time; true when there is an estimate by it.
    fn judge(&mut self, sent: u64, now: Instant, estimate: &mut Option<Estimate>) -> bool {
        let ms = u64::try_from(now.since(self.judged_at).as_millis()).unwrap_or(u64::MAX).max(1);
        let octets = sent.saturating_sub(self.sent);
        let (all, came) = (self.all, self.came);
        let began = self.judged_at != Instant::ZERO && all > 0;
        *self = Arrivals { all: 0, came: 0, judged_at: now, sent, delivered: self.delivered };
        if !began {
            return false;
        }
        let rate = octets.saturating_mul(8000) / ms;
        let lost_permille = (all - came) * 1000 / all;
        self.delivered = u64::try_from(u128::from(rate) * u128::from(came) / u128::from(all)).unwrap_or(rate);
        let before = estimate.map(|e| e.bits_per_second);
        let bits_per_second = match (lost_permille, before) {
            // Half the lost share less.
            (101.., before) => Some(before.unwrap_or(rate).min(rate) * (2000 - lost_permille) / 2000),
            (..20, Some(before)) => Some(before + before / 20 + 1000),
            (_, before) => before,
        };
        // Far above what is sent it binds nobody.
        let binding = bits_per_second.filter(|bits| *bits < rate.saturating_mul(2).max(100_000));
        *estimate = binding.map(|bits_per_second| Estimate { bits_per_second, at: now });
        estimate.is_some()
    }
}

impl super::talk::Talk {
    /// What the peer can take, if it has said so lately.
    pub(crate) fn estimate(&self, now: Instant) -> Option<u64> {
        let fresh = |e: &Estimate| now.since(e.at) < FRESH;
        let said = [self.asked, self.by_loss].into_iter().flatten();
        said.filter(fresh).map(|e| e.bits_per_second).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_lower_what_may_be_sent_and_their_end_raises_it() {
        let mut arrivals = Arrivals::new();
        let mut estimate = None;
        let mut now = Instant::from_millis(1000);
        let mut sent = 0;
        let mut second = |arrivals: &mut Arrivals, estimate: &mut Option<Estimate>, came: u64| {
            now += Duration::from_secs(1);
            sent += 125_000; // 1 Mbit/s
            (arrivals.all, arrivals.came) = (100, came);
            arrivals.judge(sent, now, estimate);
            estimate.map(|e| e.bits_per_second)
        };
        assert_eq!(second(&mut arrivals, &mut estimate, 50), None, "nothing is known of the first stretch");
        assert_eq!(second(&mut arrivals, &mut estimate, 100), None);
        assert_eq!(arrivals.delivered, 1_000_000);
        assert_eq!(second(&mut arrivals, &mut estimate, 80), Some(900_000), "a fifth lost, a tenth less");
        assert_eq!(second(&mut arrivals, &mut estimate, 95), Some(900_000), "a little loss changes nothing");
        assert_eq!(second(&mut arrivals, &mut estimate, 100), Some(946_000));
        for _ in 0..100 {
            second(&mut arrivals, &mut estimate, 100);
        }
        assert_eq!(estimate.map(|e| e.bits_per_second), None, "what binds nobody is no estimate");
    }
}
