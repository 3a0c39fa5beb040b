//! Our own RTCP where the mode makes us a sender and a receiver: SR or RR with SDES per leg (RFC 3550 §6), and the
//! watch over legs that fall silent.

use std::time::Duration;

use base::{Instant, Now};
use rtp::{Block, Ntp, RtcpWriter, SenderInfo};

use super::{Media, Stream, Tx, What};

/// The shortest mean interval (RFC 3550 §6.2).
const INTERVAL: Duration = Duration::from_secs(5);
/// Sender reports in one compound, so that it stays below any MTU.
const SENDERS_MAX: usize = 16;
const BLOCKS_MAX: usize = 16;

impl Media {
    /// Starts the reports of a leg that terminates RTCP.
    pub(crate) fn start_reports(&mut self, leg: u32, now: Instant) {
        if let Some(row) = self.leg_mut(leg)
            && row.terminates
            && !row.reports_run
        {
            row.reports_run = true;
            // §6.2: the first one after half the interval.
            let wait = self.interval() / 2;
            self.due(leg, now + wait, What::Report);
        }
    }

    /// §6.3.1: the interval, drawn from half to one and a half of it, over e - 3/2.
    fn interval(&mut self) -> Duration {
        let draw = 500 + self.entropy.below(1000);
        Duration::from_nanos((INTERVAL.as_nanos() as u64) * draw / 1218)
    }

    pub(super) fn report(&mut self, leg: u32, now: Now, tx: &mut Tx<'_>) {
        let wait = self.interval();
        let Some(row) = self.leg_mut(leg) else { return };
        if !row.terminates {
            row.reports_run = false;
            return;
        }
        if let Some(socket) = row.rtcp_out()
            && let Some(writer) = self.compose(leg, now)
        {
            self.send_own(leg, socket, &writer, tx);
        }
        self.due(leg, now.mono + wait, What::Report);
    }

    fn compose(&mut self, leg: u32, now: Now) -> Option<RtcpWriter> {
        let row = self.leg_mut(leg)?;
        let recent = |at: Instant| now.mono.since(at) < INTERVAL * 2;
        let blocks: Vec<Block> = row
            .sources
            .iter_mut()
            .filter(|s| recent(s.last_at))
            .take(BLOCKS_MAX)
            .map(|s| s.reception.report(now.mono))
            .collect();
        let row = self.leg(leg)?;
        let own = row.stream.ssrc;
        let ntp = Ntp::from(now.wall).0;
        let mut writer = RtcpWriter::new();
        let mut names: Vec<(u32, &str)> = vec![(own, row.cname.as_str())];
        let sends = |stream: &&Stream| stream.started && recent(stream.last_at);
        let info = |stream: &Stream| {
            let from = stream.carries.and_then(|carried| self.leg(carried.leg));
            let clock = from.map_or(row.clock, |from| from.clock);
            let passed = clock.ticks(now.mono).wrapping_sub(clock.ticks(stream.last_at));
            let timestamp = stream.last_timestamp.wrapping_add(passed);
            let (packets, octets) = (stream.packets, stream.octets);
            SenderInfo { ssrc: stream.ssrc, ntp, timestamp, packets, octets }
        };
        match Some(&row.stream).filter(sends) {
            Some(stream) => writer.sender(&info(stream), &blocks),
            None => writer.receiver(own, &blocks),
        };
        for stream in row.more.iter().filter(sends).take(SENDERS_MAX) {
            writer.sender(&info(stream), &[]);
            names.push((stream.ssrc, row.cname.as_str()));
        }
        for (from, source) in self.fed(leg).filter(|(_, s)| recent(s.last_at)).take(SENDERS_MAX) {
            let Some(route) = from.fans.iter().chain(&from.taps).find(|r| r.leg == leg) else { continue };
            let alone = from.sources.len() == 1;
            let (packets, octets) = if alone {
                (route.packets, route.octets)
            } else {
                (source.reception.received(), route.octets)
            };
            let (ntp, timestamp) = match source.reported {
                // The source's own clock, so that its audio and video stay together (CPM-FACTS §4.2).
                Some((info, at)) => {
                    let passed = now.mono.since(at);
                    let ticks = from.clock.ticks(now.mono).wrapping_sub(from.clock.ticks(at));
                    (info.ntp.wrapping_add(ntp_of(passed)), info.timestamp.wrapping_add(ticks))
                }
                None => {
                    let ticks = from.clock.ticks(now.mono).wrapping_sub(from.clock.ticks(source.last_at));
                    (ntp, source.last_timestamp.wrapping_add(ticks))
                }
            };
            writer.sender(&SenderInfo { ssrc: source.shown, ntp, timestamp, packets, octets }, &[]);
            names.push((source.shown, from.cname.as_str()));
        }
        writer.description(names.into_iter());
        Some(writer)
    }

    /// The sources whose packets are distributed to a leg.
    fn fed(&self, leg: u32) -> impl Iterator<Item = (&super::RtpLeg, &super::Source)> {
        let feeders = self.leg(leg).map(|row| row.feeders.as_slice()).unwrap_or_default();
        feeders
            .iter()
            .filter_map(|f| self.leg(*f))
            .flat_map(|from| from.sources.iter().map(move |s| (from, s)))
    }

    /// No RTP and no RTCP for as long as control allows: news, once (CPM-FACTS §4.7). Held legs are exempt.
    pub(super) fn check_silence(&mut self, leg: u32, now: Now, tx: &mut Tx<'_>) {
        let Some(row) = self.leg_mut(leg) else { return };
        if row.silence_ms == 0 {
            row.watched = false;
            return;
        }
        let limit = Duration::from_millis(u64::from(row.silence_ms));
        let since = row.last_at.max(row.since);
        let mut next = since + limit;
        if now.mono >= next {
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

fn ntp_of(d: Duration) -> u64 {
    (d.as_secs() << 32) | ((u64::from(d.subsec_nanos()) << 32) / 1_000_000_000)
}
