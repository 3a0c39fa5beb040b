//! Our own RTCP where the mode makes us a sender and a receiver (RFC 3550 §6, RFC 7667): per leg SR or RR with a block for
//! each source of its peer, an SR for each source that is distributed to it under the SSRC that it sees, SDES with each
//! source's CNAME, and XR where that was agreed (RFC 3611).
//!
//! An SR about a distributed source speaks of what this leg was sent, on the source's own clock: the pair of NTP time and
//! RTP timestamp lies on the line of the source's own reports, so that its audio and video stay together.

use std::time::Duration;

use base::{Instant, Now};
use rtp::{Block, Ntp, RTCP_MAX, RtcpWriter, SenderInfo, WriteExtended};

use super::{Media, Route, RtpLeg, Source, Stream, Tx, What};

/// The shortest mean interval (RFC 3550 §6.2).
const INTERVAL: Duration = Duration::from_secs(5);
/// The same with AVPF, where none is asked for (RFC 4585 §3.4: T_rr_interval is ours to choose).
const INTERVAL_EARLY: Duration = Duration::from_secs(1);
/// Who was quiet for so long is no sender any more (§6.3.8: since the report before the last).
const RECENT: Duration = Duration::from_secs(10);
const BLOCKS_MAX: usize = 16;
/// Compounds of one leg at one time; each speaks of a dozen sources or more.
const COMPOUNDS_MAX: usize = 32;
/// A session's bandwidth where control names none, kbit/s.
const AUDIO_KBPS: u32 = 64;
const VIDEO_KBPS: u32 = 1000;

/// Octets of a CNAME's chunk (§6.5).
fn chunk_octets(cname: &str) -> usize {
    (4 + 2 + cname.len().min(255) + 1).next_multiple_of(4)
}

impl Media {
    /// Starts the reports of a leg that terminates RTCP.
    pub(crate) fn start_reports(&mut self, leg: u32, now: Instant) {
        if let Some(row) = self.leg_mut(leg)
            && row.terminates
            && !row.reports_run
            && row.away().is_none()
        {
            row.reports_run = true;
            // §6.2: the first one after half the interval.
            let wait = self.interval(leg) / 2;
            self.due(leg, now + wait, What::Report);
        }
    }

    /// §6.3.1: five per cent of the session's bandwidth for its two members' RTCP, never more often than the least interval,
    /// drawn from half to one and a half of that, over e - 3/2.
    fn interval(&mut self, leg: u32) -> Duration {
        let mean = self.leg(leg).map_or(INTERVAL, |row| {
            let least = if row.talk.agreed.is_early() { INTERVAL_EARLY } else { INTERVAL };
            let kbps = match (row.talk.kbps, row.video) {
                (0, true) => VIDEO_KBPS,
                (0, false) => AUDIO_KBPS,
                (kbps, _) => kbps,
            };
            // Octets of both members' compounds, with the headers below, at kbps * 1000 / 8 / 20 octets a second.
            let octets = u64::from(row.talk.size + 28) * 2;
            least.max(Duration::from_micros(octets * 160_000 / u64::from(kbps)))
        });
        let draw = 500 + self.entropy.below(1000);
        Duration::from_nanos(u64::try_from(mean.as_nanos()).unwrap_or(u64::MAX).saturating_mul(draw) / 1218)
    }

    pub(super) fn report(&mut self, leg: u32, now: Now, tx: &mut Tx<'_>) {
        let Some(row) = self.leg_mut(leg) else { return };
        if !row.terminates {
            row.reports_run = false;
            return;
        }
        if let Some(socket) = row.rtcp_out() {
            let mut from = Some(0);
            for _ in 0..COMPOUNDS_MAX {
                let Some(begin) = from else { break };
                let Some((writer, next)) = self.compose(leg, now, begin) else { break };
                self.send_own(leg, socket, &writer, tx);
                from = next;
            }
        }
        let wait = self.interval(leg);
        self.due(leg, now.mono + wait, What::Report);
    }

    /// The compound about the distributed sources from the `from`th on, and where the next one goes on. What is said of the
    /// leg itself stands in the first.
    fn compose(&mut self, leg: u32, now: Now, from: usize) -> Option<(RtcpWriter, Option<usize>)> {
        let first = from == 0;
        let recent = |at: Instant| now.mono.since(at) < RECENT;
        let row = self.leg_mut(leg)?;
        let blocks: Vec<Block> = row
            .sources
            .iter_mut()
            .filter(|s| first && recent(s.last_at) && !s.has_left())
            .take(BLOCKS_MAX)
            .map(|s| s.reception.report(now.mono))
            .collect();
        let row = self.leg(leg)?;
        let own = row.stream.ssrc;
        let clock = Ntp::from(now.wall).0;
        let mut writer = RtcpWriter::new();
        let mut said: Vec<(u32, u32)> = Vec::new();
        let sends = |stream: &Stream| stream.started && recent(stream.last_at);
        let is_sender = sends(&row.stream);
        if first && is_sender {
            let info = self.own_sender(row, &row.stream, clock, now.mono);
            writer.sender(&info, &blocks);
            said.push((own, info.ntp_middle()));
        } else {
            writer.receiver(own, &blocks);
        }
        let mut names: Vec<(u32, &str)> = vec![(own, row.cname.as_str())];
        // The SDES and, in the first, the XR must still find room after the reports.
        let mut room = RTCP_MAX - 8 - chunk_octets(&row.cname) - if first { 24 + 12 * 4 } else { 0 };
        room = room.saturating_sub(writer.octets().len());
        let mut next = None;
        let more = row.more.iter().filter(|stream| sends(stream));
        let ours = more.map(|stream| (self.own_sender(row, stream, clock, now.mono), row.cname.as_str()));
        let speaks = |s: &Source| recent(s.last_at) && !s.has_left();
        let fed = self.fed(leg).filter(|(_, s)| speaks(s)).filter_map(|(feeder, source)| {
            let to_leg = |r: &&Route| r.leg == leg;
            let (route, name) = match feeder.fans.iter().find(to_leg) {
                Some(route) => (route, None),
                None => {
                    let name = row.names.as_ref().and_then(|names| names.of((feeder.serial, source.shown)));
                    (feeder.taps.iter().find(to_leg)?, name)
                }
            };
            let (packets, octets) = route.of_source(source.shown);
            let (ntp, timestamp) = source.clock_at(feeder, clock, now.mono);
            let (ssrc, offset) = name.unwrap_or((source.shown, 0));
            let timestamp = timestamp.wrapping_add(offset);
            let info = SenderInfo { ssrc, ntp, timestamp, packets, octets };
            (packets > 0).then_some((info, feeder.cname.as_str()))
        });
        // RFC 3550 §7.3: a mixer forwards the CNAMEs of its contributing sources.
        for (ssrc, name) in self.contributors(row).filter(|_| first) {
            let needed = chunk_octets(name);
            if needed <= room && names.len() < 31 {
                room -= needed;
                names.push((ssrc, name));
            }
        }
        for (place, (info, name)) in ours.chain(fed).enumerate().skip(from) {
            let needed = 28 + chunk_octets(name);
            if needed > room || names.len() >= 31 {
                next = Some(place);
                break;
            }
            room -= needed;
            writer.sender(&info, &[]);
            said.push((info.ssrc, info.ntp_middle()));
            names.push((info.ssrc, name));
        }
        writer.description(names.into_iter());
        if first && row.talk.agreed.extended {
            self.extend(row, is_sender, clock, now.mono, &mut writer);
            if !is_sender {
                said.push((own, (clock >> 16) as u32));
            }
        }
        let size = writer.octets().len() as u32;
        let talk = &mut self.leg_mut(leg)?.talk;
        // §6.3.3: one sixteenth of the new one.
        talk.size = talk.size - talk.size / 16 + size / 16;
        said.into_iter().for_each(|(ssrc, middle)| talk.sent(ssrc, middle, now.mono));
        Some((writer, next))
    }

    /// Whom the packets of the leg's streams name as contributing, and how he is called.
    fn contributors<'a>(&'a self, row: &'a RtpLeg) -> impl Iterator<Item = (u32, &'a str)> {
        row.streams().filter(|stream| stream.named).filter_map(|stream| stream.carries).filter_map(
            |carried| {
                let from = self.leg(carried.leg)?;
                let source = from.sources.iter().find(|source| source.ssrc == carried.ssrc)?;
                Some((source.shown, from.cname.as_str()))
            },
        )
    }

    /// What an SR says of a stream that we number ourselves.
    fn own_sender(&self, row: &RtpLeg, stream: &Stream, ntp: u64, now: Instant) -> SenderInfo {
        let carried = stream.carries.and_then(|carried| self.leg(carried.leg));
        let clock = carried.map_or(row.clock, |from| from.clock);
        let passed = clock.ticks(now).wrapping_sub(clock.ticks(stream.last_at));
        SenderInfo {
            ssrc: stream.ssrc,
            ntp,
            timestamp: stream.last_timestamp.wrapping_add(passed),
            packets: stream.packets,
            octets: stream.octets,
        }
    }

    /// RFC 3611 §4.4, §4.5: our clock where no SR carries it, and when the peer's clocks were heard.
    fn extend(&self, row: &RtpLeg, sends: bool, clock: u64, now: Instant, writer: &mut RtcpWriter) {
        let heard = row.talk.clocks(now);
        let mut blocks = Vec::with_capacity(2);
        if !sends {
            blocks.push(WriteExtended::ReceiverReference(Ntp(clock)));
        }
        if !heard.is_empty() {
            blocks.push(WriteExtended::Dlrr(&heard));
        }
        if !blocks.is_empty() {
            writer.extended(row.stream.ssrc, &blocks);
        }
    }

    /// The sources whose packets are distributed to a leg.
    fn fed(&self, leg: u32) -> impl Iterator<Item = (&RtpLeg, &Source)> {
        let feeders = self.leg(leg).map(|row| row.feeders.as_slice()).unwrap_or_default();
        feeders
            .iter()
            .filter_map(|f| self.leg(*f))
            .flat_map(|from| from.sources.iter().map(move |s| (from, s)))
    }
}

impl Source {
    /// NTP time and RTP timestamp of the moment `now`: by the source's own last report, else by our clock.
    fn clock_at(&self, from: &RtpLeg, wall: u64, now: Instant) -> (u64, u32) {
        let ticks_since = |at: Instant| from.clock.ticks(now).wrapping_sub(from.clock.ticks(at));
        match self.reported {
            Some((info, at)) => {
                (info.ntp.wrapping_add(ntp_of(now.since(at))), info.timestamp.wrapping_add(ticks_since(at)))
            }
            None => (wall, self.last_timestamp.wrapping_add(ticks_since(self.last_at))),
        }
    }
}

fn ntp_of(d: Duration) -> u64 {
    (d.as_secs() << 32) | ((u64::from(d.subsec_nanos()) << 32) / 1_000_000_000)
}
