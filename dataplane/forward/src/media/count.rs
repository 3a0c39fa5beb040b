//! What control is told of the legs' traffic, and copies for the spool.

use std::net::SocketAddr;

use base::Now;
use bytes::{Bytes, BytesMut};
use contract::{LegCounters, RtpContinuity, SlotContinuity};

use super::arrive::Packet;
use super::{Media, Stream, Tx};
use crate::{HEAD_BYTES, Output, Transport};

impl Media {
    /// The counters of the legs in `rows` (one context's).
    pub(crate) fn counters(&self, now: Now, rows: &[u32]) -> Vec<LegCounters> {
        let seen = rows.iter().filter_map(|leg| Some((*leg, self.leg(*leg)?))).filter(|(_, row)| !row.unseen);
        seen.map(|(leg, row)| {
            let own = row.streams().map(|stream| u64::from(stream.packets)).sum::<u64>();
            let mut packets_out = row.counts.packets_out + own;
            let mut bytes_out = row.counts.bytes_out + row.streams().map(|stream| stream.bytes).sum::<u64>();
            let routes =
                |from| self.leg(from).into_iter().flat_map(|r| r.relays.iter().chain(&r.fans).chain(&r.taps));
            for route in rows.iter().flat_map(|from| routes(*from)) {
                if route.leg == leg {
                    packets_out += u64::from(route.packets);
                    bytes_out += route.bytes;
                }
            }
            let jitter = row.sources.iter().max_by_key(|s| s.last_at).map_or(0, |s| s.reception.jitter());
            let rate = u64::from(row.clock.0.max(1));
            LegCounters {
                leg: Some(row.key),
                packets_in: row.counts.packets_in,
                packets_out,
                bytes_in: row.counts.bytes_in,
                bytes_out,
                dropped: row.counts.dropped,
                lost: row.sources.iter().map(|s| s.reception.lost().max(0) as u64).sum(),
                jitter_us: u32::try_from(u64::from(jitter) * 1_000_000 / rate).unwrap_or(u32::MAX),
                idle_ms: now.mono.since(row.last_at.max(row.since)).as_millis() as u64,
                continuity: Some(self.continuity(leg)),
            }
        })
        .collect()
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
        if let Some(row) = self.leg(leg) {
            let packet = crate::Packet {
                context: row.key.context,
                at: now.wall,
                from,
                to: row.local,
                transport: Transport::Udp,
                bytes: Bytes::copy_from_slice(bytes),
            };
            tx.push(Output::Spool(Box::new(packet)));
        }
    }

    /// Copies of what went along the routes of a captured leg.
    #[cold]
    pub(super) fn spool_out(&self, now: Now, leg: u32, packet: &Packet<'_>, bytes: &[u8], tx: &mut Tx<'_>) {
        let Some(row) = self.leg(leg) else { return };
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
        let Some((row, to)) = self.leg(leg).and_then(|row| Some((row, row.rtp.peer?))) else { return };
        let mut copy = BytesMut::from(bytes);
        if let (Some(head), Some(place)) = (head, copy.get_mut(..HEAD_BYTES)) {
            place.copy_from_slice(&head);
        }
        let packet = crate::Packet {
            context: row.key.context,
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
