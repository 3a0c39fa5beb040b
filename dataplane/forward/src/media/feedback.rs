//! RTCP that arrives: passed along relay routes, ended here where the mode makes us a sender (RFC 7667). What it says of
//! the way to the peer is heard in both cases; feedback is acted upon only where it ends (see `keyframe`, `repair`,
//! `bandwidth`).

use std::net::SocketAddr;

use base::Now;
use rtp::{Extended, Feedback, Packet, RtcpWriter};

use super::arrive::{Fate, drop_of};
use super::latch::{Heard, hear};
use super::{Binding, Media, Tx};
use crate::Drop;
use crate::outposts::Word;

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
        let heard = hear(port, row.learning, from, now.mono)
            .or_else(|why| row.hear_nominated(from, now.mono, why))?;
        if heard != Heard::Peer && self.is_strange(leg, on.rtcp, from) {
            return Err(Drop::Source);
        }
        if row.guard.is_some() {
            let heard = heard.with_key();
            return self.opened(leg, bytes, true, |media, clear| {
                let heard = media.settled(leg, from, heard, tx);
                if media.leg(leg).is_some_and(|row| row.bundled) {
                    return media.rtcp_bundled(now, leg, from, heard, clear, tx);
                }
                media.rtcp_clear(now, on, from, (heard, true), clear, tx)
            });
        }
        self.rtcp_clear(now, on, from, (heard, false), bytes, tx)
    }

    /// RTCP in clear: the datagram, or what it held when it was protected (`opened`).
    pub(super) fn rtcp_clear(
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
            Heard::Learned | Heard::Candidate | Heard::Peer | Heard::Nominated => {}
        }
        let row = self.leg_mut(leg).ok_or(Drop::NoLeg)?;
        row.last_at = now.mono;
        let (captured, policed) = (row.captured, row.policed);
        if captured {
            self.spool_in(now, leg, from, bytes, tx);
        }
        if policed && !self.passes_police(leg, true, bytes.len(), now.mono) {
            return Err(Drop::Bandwidth);
        }
        if !self.may_report(leg, bytes) {
            return Err(Drop::Sources);
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

    /// A key forgets no source (see `rtp::srtp`), and who sends reports need not send media: one leg must not fill the tables
    /// of those that it reports to.
    fn may_report(&mut self, leg: u32, bytes: &[u8]) -> bool {
        let max = self.sources_ever_max;
        let Some(row) = self.leg(leg) else { return false };
        let mut targets = row.relays_rtcp.iter().filter_map(|(target, _)| self.leg(*target));
        if !targets.any(|target| target.guard.is_some()) {
            return true;
        }
        let Ok(ssrc) = rtp::srtp::rtcp_sender(bytes) else { return false };
        self.leg_mut(leg).is_some_and(|row| row.talk.may_report_as(ssrc, max))
    }

    fn rtcp_packet(&mut self, now: Now, leg: u32, packet: Packet<'_>, tx: &mut Tx<'_>) {
        let Some(row) = self.leg_mut(leg) else { return };
        let terminates = row.terminates;
        match packet {
            Packet::Sender(info, blocks) => {
                if let Some(source) = row.sources.iter_mut().find(|s| s.ssrc == info.ssrc) {
                    source.reception.sender_report(&info, now.mono);
                    source.reported = Some((info, now.mono));
                }
                blocks.for_each(|block| row.talk.block(&block, now.mono));
                self.passes_on(leg, &info, now);
                self.tell_outposts(leg, &Word::Sender(info), tx);
            }
            Packet::Receiver(_, blocks) => blocks.for_each(|block| row.talk.block(&block, now.mono)),
            Packet::Extended(ssrc, blocks) if terminates && row.talk.agreed.extended => {
                for block in blocks {
                    match block {
                        Extended::ReceiverReference(ntp) => row.talk.clock(ssrc, ntp, now.mono),
                        Extended::Dlrr(list) => list.for_each(|entry| row.talk.dlrr(&entry, now.mono)),
                        Extended::Voip(_) | Extended::Other(_) => {}
                    }
                }
            }
            Packet::Bye(gone) => {
                for ssrc in gone {
                    self.source_left(leg, ssrc, now, tx);
                }
            }
            Packet::Payload(feedback) if terminates => match feedback.format {
                Feedback::PLI | Feedback::FIR => self.key_frames_asked(leg, &feedback, now, tx),
                Feedback::APPLICATION => self.estimate_heard(leg, &feedback, now, tx),
                _ => {}
            },
            Packet::Transport(feedback) if terminates => match feedback.format {
                Feedback::NACK => self.nack_heard(leg, &feedback, now, tx),
                Feedback::TMMBR => self.limits_heard(leg, &feedback, now, tx),
                Feedback::TRANSPORT_WIDE => self.arrivals_heard(leg, &feedback, now, tx),
                _ => {}
            },
            // Other feedback ends here: each leg has its own loss (CPM-FACTS §4.3).
            _ => {}
        }
    }

    /// A sender report goes on to the targets of a relay: their echo of it tells the round trip to them.
    fn passes_on(&mut self, leg: u32, info: &rtp::SenderInfo, now: Now) {
        let targets = self.leg(leg).map_or(0, |row| row.relays_rtcp.len());
        for at in 0..targets {
            let target = self.leg(leg).and_then(|row| row.relays_rtcp.get(at)).map(|(target, _)| *target);
            if let Some(target) = target.and_then(|target| self.leg_mut(target)) {
                target.talk.sent(info.ssrc, info.ntp_middle(), now.mono);
            }
        }
    }

    /// A source said BYE: its receivers hear it too, once (RFC 3550 §6.6). It lingers as if it had fallen silent (§6.3.4): its
    /// late packets find it, and who says BYE after each packet is no new source each time, whose name must be looked for.
    pub(super) fn source_left(&mut self, leg: u32, ssrc: u32, now: Now, tx: &mut Tx<'_>) {
        let Some(row) = self.leg_mut(leg) else { return };
        let Some(source) = row.sources.iter_mut().find(|s| s.ssrc == ssrc && !s.has_left()) else { return };
        source.left_at = now.mono;
        let shown = source.shown;
        self.bye(leg, &[shown], tx);
        self.tell_outposts(leg, &Word::Bye(ssrc), tx);
    }

    /// Tells the receivers of a leg's distribution that sources are gone.
    pub(crate) fn bye(&mut self, leg: u32, shown: &[u32], tx: &mut Tx<'_>) {
        let Some(row) = self.leg(leg) else { return };
        if shown.is_empty() {
            return;
        }
        let serial = row.serial;
        let targets: Vec<u32> = row.fans.iter().chain(&row.taps).map(|route| route.leg).collect();
        for target in targets {
            let Some((row, socket)) =
                self.leg(target).filter(|t| !t.going).and_then(|t| Some((t, t.rtcp_out()?)))
            else {
                continue;
            };
            let called = |shown: &u32| match &row.names {
                Some(names) => names.of((serial, *shown)).map_or(*shown, |(ssrc, _)| ssrc),
                None => *shown,
            };
            let gone: Vec<u32> = shown.iter().map(called).collect();
            let mut writer = RtcpWriter::new();
            writer.receiver(row.stream.ssrc, &[]);
            writer.description([(row.stream.ssrc, row.cname.as_str())].into_iter()).bye(&gone);
            self.send_own(target, socket, &writer, tx);
        }
    }

    /// Tells the peer of a leg that goes that our own streams to it end (RFC 3550 §6.3.7).
    pub(super) fn say_bye(&mut self, leg: u32, tx: &mut Tx<'_>) {
        let Some(row) = self.leg(leg).filter(|row| row.terminates) else { return };
        let own: Vec<u32> = row.streams().filter(|stream| stream.started).map(|stream| stream.ssrc).collect();
        let Some(socket) = row.rtcp_out().filter(|_| !own.is_empty()) else { return };
        let first = row.stream.ssrc;
        let mut writer = RtcpWriter::new();
        writer.receiver(first, &[]).description([(first, row.cname.as_str())].into_iter()).bye(&own);
        self.send_own(leg, socket, &writer, tx);
    }
}
