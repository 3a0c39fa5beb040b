//! What control is told of the legs' traffic, and copies for the spool.

use std::net::SocketAddr;

use base::Now;
use bytes::{Bytes, BytesMut};
use contract::{LegCounters, RtpContinuity, SlotContinuity};
use rtp::Passage;

use super::arrive::Packet;
use super::{Media, RtpLeg, Source, Stream, Tx};
use crate::{HEAD_BYTES, Output, Transport};

impl Media {
    /// The counters of the legs in `rows` (one context's) that `wanted` names.
    pub(crate) fn counters(&self, now: Now, rows: &[u32], wanted: impl Fn(u32) -> bool) -> Vec<LegCounters> {
        let seen = rows.iter().filter(|leg| wanted(**leg)).filter_map(|leg| Some((*leg, self.leg(*leg)?)));
        // The rows of stand-ins are there for what they send to these.
        let own = seen.filter(|(_, row)| !row.unseen && row.away().is_none());
        own.map(|(leg, row)| self.counters_of(now, leg, row, rows)).collect()
    }

    fn counters_of(&self, now: Now, leg: u32, row: &RtpLeg, rows: &[u32]) -> LegCounters {
        let own = row.streams().map(|stream| u64::from(stream.packets)).sum::<u64>();
        let mut packets_out = row.counts.packets_out + own;
        let mut bytes_out = row.counts.bytes_out + row.streams().map(|stream| stream.bytes).sum::<u64>();
        let mut sent_by = row.streams().find_map(|stream| self.leg(stream.carries?.leg));
        for from in rows.iter().filter_map(|r| self.leg(*r)) {
            let routes = from.relays.iter().chain(&from.fans).chain(&from.taps);
            for route in routes.filter(|route| route.leg == leg) {
                packets_out += route.packets_all();
                bytes_out += route.bytes;
                sent_by = sent_by.or(Some(from));
            }
        }
        let talk = &row.talk;
        let mut reached = talk.heard;
        row.sources.iter().for_each(|s| reached.add(&s.reception));
        let newest = newest_of(row);
        let us = |ticks: u32| {
            let rate = u64::from(row.clock.0.max(1));
            u32::try_from(u64::from(ticks) * 1_000_000 / rate).unwrap_or(u32::MAX)
        };
        let jitter_us = us(newest.map_or(0, |s| s.reception.jitter()));
        let (lost_out, far_jitter) = talk.far();
        let jitter_out_us = us(far_jitter);
        // Where control named no codec, a static payload type says it.
        let by_type = |source: Option<&Source>| source.map(|s| rtp::Impairment::of_payload(s.payload_type));
        let codec = talk.codec.or_else(|| by_type(newest));
        let codec_out = talk.codec.or_else(|| by_type(sent_by.and_then(newest_of)));
        let trip = talk.round_trip.unwrap_or_default();
        let score = |codec: Option<rtp::Impairment>, lost: u64, all: u64, jitter_us: u32| match codec {
            Some(codec) if !row.video && all > 0 => {
                // A jitter buffer of twice the jitter, 20 ms of speech in a packet and as much for everything else.
                let delay_ms = trip.as_secs_f32() * 500.0 + jitter_us as f32 / 500.0 + 40.0;
                Passage { codec, loss: (lost as f32 / all as f32).min(1.0), delay_ms }.score_centi()
            }
            _ => 0,
        };
        LegCounters {
            leg: Some(row.key),
            packets_in: row.counts.packets_in,
            packets_out,
            bytes_in: row.counts.bytes_in,
            bytes_out,
            dropped: row.counts.dropped,
            lost: reached.missing,
            jitter_us,
            idle_ms: now.mono.since(row.last_at.max(row.since)).as_millis() as u64,
            continuity: Some(self.continuity(leg)),
            video: row.video,
            reordered: reached.reordered,
            duplicates: reached.duplicates,
            round_trip_us: u32::try_from(trip.as_micros()).unwrap_or(u32::MAX),
            mos_centi: score(codec, reached.missing, reached.missing + reached.distinct, jitter_us),
            lost_out,
            jitter_out_us,
            mos_out_centi: score(codec_out, lost_out, packets_out, jitter_out_us),
            bandwidth_bps: talk.estimate(now.mono).unwrap_or(talk.arrivals.delivered),
            retransmitted: talk.retransmitted,
            policed: talk.policed,
            up_ms: now.mono.since(row.begun).as_millis() as u64,
            ended: false,
        }
    }

    /// What a leg's own stream must go on with elsewhere.
    pub(crate) fn continuity(&self, leg: u32) -> RtpContinuity {
        self.leg(leg).map_or_else(RtpContinuity::default, |row| {
            let mut continuity = RtpContinuity {
                ssrc: row.stream.ssrc,
                sequence: u32::from(row.stream.next_sequence),
                timestamp: row.stream.last_timestamp,
                slots: row.streams().filter_map(slot_continuity).collect(),
                ..RtpContinuity::default()
            };
            row.guard_continuity(&mut continuity);
            continuity
        })
    }

    /// A copy of what a captured leg received.
    #[cold]
    pub(super) fn spool_in(&self, now: Now, leg: u32, from: SocketAddr, bytes: &[u8], tx: &mut Tx<'_>) {
        let Some(row) = self.leg(leg) else { return };
        let copy = Bytes::copy_from_slice(bytes);
        // One file is the context's, another the leg's own.
        let files = [row.traced.then_some(None), row.recorded.then_some(Some(row.key.leg))];
        for file in files.into_iter().flatten() {
            let packet = crate::Packet {
                context: row.key.context,
                leg: file,
                at: now.wall,
                from,
                to: row.local,
                transport: Transport::Udp,
                bytes: copy.clone(),
            };
            tx.push(Output::Spool(Box::new(packet)));
        }
    }

    /// Copies of what went along the routes of a captured leg.
    #[cold]
    pub(super) fn spool_out(&self, now: Now, leg: u32, packet: &Packet<'_>, bytes: &[u8], tx: &mut Tx<'_>) {
        let Some(row) = self.leg(leg).filter(|row| row.traced) else { return };
        let relays = row.relays.iter().map(|r| (r, packet.view.ssrc()));
        let taps = row.taps.iter().filter(|tap| self.leg(tap.leg).is_some_and(|row| !row.unseen));
        for (route, ssrc) in relays.chain(row.fans.iter().chain(taps).map(|r| (r, packet.shown))) {
            match route.output(packet, ssrc) {
                Some(Output::ForwardPatched { head, .. }) => {
                    self.spool_copy(now, route.leg, Some(head), bytes, tx)
                }
                Some(_) => self.spool_copy(now, route.leg, None, bytes, tx),
                None => {}
            }
        }
    }

    /// A copy of what a captured leg was sent.
    #[cold]
    pub(crate) fn spool_copy(
        &self,
        now: Now,
        leg: u32,
        head: Option<[u8; HEAD_BYTES]>,
        bytes: &[u8],
        tx: &mut Tx<'_>,
    ) {
        let traced = self.leg(leg).filter(|row| row.traced);
        let Some((row, to)) = traced.and_then(|row| Some((row, row.rtp.peer?))) else { return };
        let mut copy = BytesMut::from(bytes);
        if let (Some(head), Some(place)) = (head, copy.get_mut(..HEAD_BYTES)) {
            place.copy_from_slice(&head);
        }
        let packet = crate::Packet {
            context: row.key.context,
            leg: None,
            at: now.wall,
            from: row.local,
            to,
            transport: Transport::Udp,
            bytes: copy.freeze(),
        };
        tx.push(Output::Spool(Box::new(packet)));
    }
}

fn slot_continuity(stream: &Stream) -> Option<SlotContinuity> {
    let (path, slot) = stream.of?;
    Some(SlotContinuity {
        path,
        slot,
        ssrc: stream.ssrc,
        sequence: u32::from(stream.next_sequence),
        timestamp: stream.last_timestamp,
    })
}

/// The source of a leg that spoke last.
fn newest_of(row: &RtpLeg) -> Option<&Source> {
    row.sources.iter().max_by_key(|s| s.last_at)
}
