//! RTCP that arrives: passed along relay routes, ended here where the mode makes us a sender (RFC 7667), and the
//! requests for key frames that we make of it (CPM-FACTS §4.3).

use std::net::SocketAddr;
use std::time::Duration;

use base::Now;
use rtp::{Feedback, Packet, RtcpWriter};

use super::arrive::{Fate, drop_of};
use super::latch::{Heard, hear};
use super::{Binding, Media, Tx, What};
use crate::Drop;

/// At most one request for a key frame per source in this time.
const KEY_FRAME_EVERY: Duration = Duration::from_millis(500);

impl Media {
    pub(super) fn rtcp(
        &mut self,
        now: Now,
        on: Binding,
        from: SocketAddr,
        bytes: &[u8],
        tx: &mut Tx<'_>,
    ) -> Result<Fate, Drop> {
        let leg = on.leg;
        let row = self.leg(leg).ok_or(Drop::NoLeg)?;
        let port = if on.rtcp { row.rtcp.as_ref().ok_or(Drop::NoLeg)? } else { &row.rtp };
        let heard = hear(port, row.learning, from, now.mono)?;
        if row.guard.is_some() {
            let heard = heard.with_key();
            return self.opened(leg, bytes, true, |media, clear| {
                media.rtcp_clear(now, on, from, (heard, true), clear, tx)
            });
        }
        self.rtcp_clear(now, on, from, (heard, false), bytes, tx)
    }

    /// RTCP in clear: the datagram, or what it held when it was protected (`opened`).
    fn rtcp_clear(
        &mut self,
        now: Now,
        on: Binding,
        from: SocketAddr,
        (heard, opened): (Heard, bool),
        bytes: &[u8],
        tx: &mut Tx<'_>,
    ) -> Result<Fate, Drop> {
        let leg = on.leg;
        let silence = self.silence;
        let row = self.leg_mut(leg).ok_or(Drop::NoLeg)?;
        let port = if on.rtcp { row.rtcp.as_mut().ok_or(Drop::NoLeg)? } else { &mut row.rtp };
        let packets = rtp::compound(bytes, true).map_err(drop_of)?;
        // A reduced packet (RFC 5506) is too easy to make to be learned from.
        let is_whole = rtp::compound(bytes, false).is_ok();
        match heard {
            Heard::Candidate if !is_whole || port.waits(from, now.mono, silence) => {
                return Err(Drop::Candidate);
            }
            Heard::Learned if !is_whole && port.told != Some(from) => return Err(Drop::Source),
            Heard::Learned | Heard::Candidate if is_whole => self.latch(leg, on.rtcp, from, tx),
            Heard::Learned | Heard::Candidate | Heard::Peer => {}
        }
        if let Some(row) = self.leg_mut(leg) {
            row.last_at = now.mono;
        }
        if self.leg(leg).is_some_and(|row| row.captured) {
            self.spool_in(now, leg, from, bytes, tx);
        }
        for packet in packets {
            self.rtcp_packet(now, leg, packet, tx);
        }
        let targets = std::mem::take(&mut self.leg_mut(leg).ok_or(Drop::NoLeg)?.relays_rtcp);
        let mut sent = 0;
        for (target, socket) in &targets {
            sent += u64::from(self.pass_rtcp(*target, *socket, bytes, opened, tx));
        }
        let row = self.leg_mut(leg).ok_or(Drop::NoLeg)?;
        row.relays_rtcp = targets;
        let row = self.leg(leg).ok_or(Drop::NoLeg)?;
        tx.totals.packets_out += sent;
        match (sent > 0, row.terminates, row.led) {
            (true, ..) => Ok(Fate::Forwarded),
            (false, true, _) => Ok(Fate::Consumed),
            (false, false, true) => Err(Drop::NoTarget),
            (false, false, false) => Err(Drop::NoPath),
        }
    }

    fn rtcp_packet(&mut self, now: Now, leg: u32, packet: Packet<'_>, tx: &mut Tx<'_>) {
        let Some(row) = self.leg_mut(leg) else { return };
        let terminates = row.terminates;
        match packet {
            Packet::Sender(info, _) => {
                if let Some(source) = row.sources.iter_mut().find(|s| s.ssrc == info.ssrc) {
                    source.reception.sender_report(&info, now.mono);
                    source.reported = Some((info, now.mono));
                }
            }
            Packet::Bye(gone) => {
                for ssrc in gone {
                    self.source_left(leg, ssrc, tx);
                }
            }
            Packet::Payload(feedback) if terminates => match feedback.format {
                Feedback::PLI => self.key_frame_asked(leg, feedback.media, now, tx),
                Feedback::FIR => {
                    for media in feedback.fir_targets() {
                        self.key_frame_asked(leg, media, now, tx);
                    }
                }
                _ => {}
            },
            // Receiver reports and other feedback end here: each leg has its own loss (CPM-FACTS §4.3).
            _ => {}
        }
    }

    /// A source said BYE: its receivers hear it too, once (RFC 3550 §6.6).
    fn source_left(&mut self, leg: u32, ssrc: u32, tx: &mut Tx<'_>) {
        let Some(row) = self.leg_mut(leg) else { return };
        let Some(at) = row.sources.iter().position(|s| s.ssrc == ssrc) else { return };
        let shown = row.sources.swap_remove(at).shown;
        self.bye(leg, &[shown], tx);
    }

    /// Tells the receivers of a leg's distribution that sources are gone.
    pub(crate) fn bye(&mut self, leg: u32, shown: &[u32], tx: &mut Tx<'_>) {
        let Some(row) = self.leg(leg) else { return };
        if shown.is_empty() {
            return;
        }
        let targets: Vec<u32> = row.fans.iter().chain(&row.taps).map(|route| route.leg).collect();
        for target in targets {
            let Some((row, socket)) =
                self.leg(target).filter(|t| !t.going).and_then(|t| Some((t, t.rtcp_out()?)))
            else {
                continue;
            };
            let mut writer = RtcpWriter::new();
            writer.receiver(row.stream.ssrc, &[]);
            writer.description([(row.stream.ssrc, row.cname.as_str())].into_iter()).bye(shown);
            self.send_own(target, socket, &writer, tx);
        }
    }

    /// A receiver asks for a key frame of what it knows as `media`.
    fn key_frame_asked(&mut self, by: u32, media: u32, now: Now, tx: &mut Tx<'_>) {
        // What a leg that is unseen asks for, its source would see.
        let Some(row) = self.leg(by).filter(|row| !row.unseen) else { return };
        let asked = if let Some(own) = row.streams().find(|stream| stream.ssrc == media) {
            own.carries.map(|carried| (carried.leg, carried.ssrc))
        } else {
            row.feeders.iter().find_map(|feeder| {
                let source = self.leg(*feeder)?.sources.iter().find(|s| s.shown == media)?;
                Some((*feeder, source.ssrc))
            })
        };
        if let Some((leg, ssrc)) = asked {
            self.want_key_frame(leg, ssrc, now, tx);
        }
    }

    /// Asks a leg's peer for a key frame, now or when 500 ms have passed since the last time.
    pub(crate) fn want_key_frame(&mut self, leg: u32, ssrc: u32, now: Now, tx: &mut Tx<'_>) {
        let Some(row) = self.leg_mut(leg) else { return };
        match row.last_key_frame {
            Some(last) if now.mono.since(last) < KEY_FRAME_EVERY => {
                let set = row.key_frame_waits.replace(ssrc).is_none();
                if set {
                    self.due(leg, last + KEY_FRAME_EVERY, What::KeyFrame);
                }
            }
            _ => self.ask_key_frame(leg, ssrc, now, tx),
        }
    }

    fn ask_key_frame(&mut self, leg: u32, ssrc: u32, now: Now, tx: &mut Tx<'_>) {
        let Some(row) = self.leg_mut(leg) else { return };
        let Some(socket) = row.rtcp_out() else { return };
        row.last_key_frame = Some(now.mono);
        let own = row.stream.ssrc;
        let mut writer = RtcpWriter::new();
        writer
            .receiver(own, &[])
            .description([(own, row.cname.as_str())].into_iter())
            .picture_loss(own, ssrc);
        self.send_own(leg, socket, &writer, tx);
    }

    pub(super) fn key_frame_due(&mut self, leg: u32, now: Now, tx: &mut Tx<'_>) {
        if let Some(ssrc) = self.leg_mut(leg).and_then(|row| row.key_frame_waits.take()) {
            self.ask_key_frame(leg, ssrc, now, tx);
        }
    }
}
