//! The packet loop: receive, look up, rewrite, send.

use std::net::SocketAddr;

use base::{Instant, Now};
use rtp::{Kind, Malformed, Reception, RtpView};

use super::latch::{Heard, hear};
use super::leg::{Route, Source};
use super::{Binding, Media, Tx};
use crate::modes::slot::Part;
use crate::modes::{distribute, floor, relay, select, tap};
use crate::{Drop, Output, SocketId, Totals};

/// An RTP packet on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) view: RtpView<'a>,
    /// Octets of the datagram.
    pub(crate) bytes: usize,
    /// The SSRC under which the context sees its source.
    pub(crate) shown: u32,
    /// It was protected: the driver's datagram is not what is sent on.
    pub(crate) opened: bool,
}

/// What became of a datagram that was not dropped.
pub(crate) enum Fate {
    Forwarded,
    Consumed,
}

/// What a route did.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    Yes,
    /// The target has not agreed to the payload type.
    NotAgreed,
    NoRoom,
}

pub(crate) const fn drop_of(why: Malformed) -> Drop {
    match why {
        Malformed::Short => Drop::Short,
        Malformed::Version => Drop::Version,
        Malformed::Header => Drop::Header,
        Malformed::Rtcp => Drop::Rtcp,
    }
}

impl Route {
    /// Sends a packet to the target under an SSRC; without a copy where nothing changes.
    #[inline]
    pub(crate) fn send(&mut self, packet: &Packet<'_>, ssrc: u32, tx: &mut Tx<'_>) -> Sent {
        let Some(output) = self.output(packet, ssrc) else { return Sent::NotAgreed };
        if !tx.push(output) {
            return Sent::NoRoom;
        }
        self.sent(packet);
        Sent::Yes
    }

    /// Counts a packet that was sent.
    #[inline]
    pub(crate) fn sent(&mut self, packet: &Packet<'_>) {
        if self.of != packet.shown {
            self.turn_to(packet.shown);
        }
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(packet.view.payload().len() as u32);
        self.bytes += packet.bytes as u64;
    }

    /// What the target calls a payload type; `None`: not agreed.
    #[inline]
    pub(crate) fn payload_type(&self, had: u8) -> Option<u8> {
        match &self.payloads {
            None => Some(had),
            Some(table) => table.get(usize::from(had)).copied().filter(|p| *p != 255),
        }
    }

    #[inline]
    pub(crate) fn output(&self, packet: &Packet<'_>, ssrc: u32) -> Option<Output> {
        let view = &packet.view;
        let had = view.payload_type();
        let payload_type = self.payload_type(had)?;
        if payload_type == had && ssrc == view.ssrc() {
            return Some(Output::Forward { socket: self.socket });
        }
        let patch = rtp::Patch {
            payload_type,
            marker: false,
            sequence: view.sequence(),
            timestamp: view.timestamp(),
            ssrc,
        };
        Some(Output::ForwardPatched { socket: self.socket, head: patch.apply(view.head()) })
    }
}

impl Media {
    /// Takes a datagram.
    pub(crate) fn datagram(
        &mut self,
        now: Now,
        socket: SocketId,
        from: SocketAddr,
        bytes: &[u8],
        tx: &mut Tx<'_>,
    ) {
        self.held.clear();
        self.now = now.mono;
        match self.binding(socket) {
            Some(binding) if binding.unseen => self.take_unseen(now, binding, from, bytes, tx),
            Some(binding) => self.take(now, binding, from, bytes, tx),
            None => {
                tx.totals.packets_in += 1;
                tx.totals.drop(Drop::NoLeg);
            }
        }
    }

    /// A datagram from the peer of a leg that is unseen: no sum of the shard tells of it (DESIGN §3), what the leg itself counts
    /// does.
    #[cold]
    fn take_unseen(&mut self, now: Now, binding: Binding, from: SocketAddr, bytes: &[u8], tx: &mut Tx<'_>) {
        let mut nowhere = Totals::default();
        self.take(now, binding, from, bytes, &mut tx.telling(true, &mut nowhere));
    }

    #[inline]
    fn take(&mut self, now: Now, binding: Binding, from: SocketAddr, bytes: &[u8], tx: &mut Tx<'_>) {
        tx.totals.packets_in += 1;
        let fate = match rtp::kind(bytes) {
            Kind::Rtp if !binding.rtcp => self.rtp(now, binding.leg, from, bytes, tx),
            Kind::Rtcp => self.rtcp(now, binding, from, bytes, tx),
            Kind::Empty => Err(Drop::Empty),
            Kind::Stun => self.stun(now, binding.leg, from, bytes, tx),
            Kind::Dtls => self.dtls(now, binding.leg, from, bytes, tx),
            Kind::Rtp | Kind::Zrtp | Kind::Turn | Kind::Foreign => Err(Drop::Foreign),
        };
        match fate {
            Ok(Fate::Forwarded) => tx.totals.packets_forwarded += 1,
            Ok(Fate::Consumed) => tx.totals.packets_consumed += 1,
            Err(why) => {
                tx.totals.drop(why);
                if let Some(row) = self.leg_mut(binding.leg) {
                    row.counts.dropped += 1;
                }
            }
        }
    }

    #[inline]
    fn rtp(
        &mut self,
        now: Now,
        leg: u32,
        from: SocketAddr,
        bytes: &[u8],
        tx: &mut Tx<'_>,
    ) -> Result<Fate, Drop> {
        let row = self.legs.get_mut(leg as usize).ok_or(Drop::NoLeg)?;
        let heard = hear(&row.rtp, row.learning, from, now.mono)
            .or_else(|why| row.hear_nominated(from, now.mono, why))?;
        let guarded = row.guard.is_some();
        if heard != Heard::Peer && self.is_strange(leg, false, from) {
            return Err(Drop::Source);
        }
        if guarded {
            return self.rtp_guarded(now, leg, from, heard, bytes, tx);
        }
        self.rtp_clear(now, leg, from, (heard, false), bytes, tx)
    }

    /// An RTP packet in clear: the datagram, or what it held when it was protected (`opened`). `heard`: whether its
    /// source is learned when it proves to be valid.
    #[inline]
    pub(super) fn rtp_clear(
        &mut self,
        now: Now,
        leg: u32,
        from: SocketAddr,
        (heard, opened): (Heard, bool),
        bytes: &[u8],
        tx: &mut Tx<'_>,
    ) -> Result<Fate, Drop> {
        let row = self.legs.get_mut(leg as usize).ok_or(Drop::NoLeg)?;
        let view = RtpView::parse(bytes).map_err(drop_of)?;
        if row.accepts.is_some_and(|set| set >> view.payload_type() & 1 == 0) {
            return Err(Drop::Payload);
        }
        if heard == Heard::Candidate && row.rtp.waits(from, now.mono, self.silence) {
            return Err(Drop::Candidate);
        }
        let known = row.sources.iter().position(|s| s.ssrc == view.ssrc());
        let place = match known {
            Some(place) => place,
            None => self.new_source(now, leg, &view, view.ssrc())?,
        };
        let row = self.legs.get_mut(leg as usize).ok_or(Drop::NoLeg)?;
        let source = row.sources.get_mut(place).ok_or(Drop::Sources)?;
        source.last_at = now.mono;
        source.last_timestamp = view.timestamp();
        source.reception.update(&view, now.mono, row.clock);
        let shown = source.shown;
        row.last_at = now.mono;
        row.counts.packets_in += 1;
        row.counts.bytes_in += bytes.len() as u64;
        let (may_send, captured, policed) = (row.may_send, row.captured, row.policed);
        let timed = row.timed && view.is_extended();
        if row.offloaded {
            row.stray(&view);
        }
        if heard != Heard::Peer {
            self.latch(leg, false, from, tx);
        }
        if timed {
            self.note_arrival(leg, &view, now, tx);
        }
        if captured {
            self.spool_in(now, leg, from, bytes, tx);
        }
        if !may_send {
            return Err(Drop::Direction);
        }
        if policed && !self.passes_police(leg, false, bytes.len(), now.mono) {
            return Err(Drop::Bandwidth);
        }
        self.lead(now, leg, &Packet { view, bytes: bytes.len(), shown, opened }, bytes, tx)
    }

    /// Leads a packet along all its leg's paths.
    #[inline]
    pub(super) fn lead(
        &mut self,
        now: Now,
        leg: u32,
        packet: &Packet<'_>,
        bytes: &[u8],
        tx: &mut Tx<'_>,
    ) -> Result<Fate, Drop> {
        let row = self.legs.get_mut(leg as usize).ok_or(Drop::NoLeg)?;
        let led = row.led;
        let captured = row.captured;
        let mut why = if led { Drop::NoTarget } else { Drop::NoPath };
        let mut sent = if row.guarded || (row.renames && packet.view.is_extended()) {
            let (sent, error) = self.lead_copies(leg, packet, bytes, tx);
            why = error.unwrap_or(why);
            sent
        } else {
            relay::rtp(&mut row.relays, packet, tx) + distribute::rtp(&mut row.fans, packet, tx)
        };
        if captured {
            self.spool_out(now, leg, packet, bytes, tx);
        }
        let mut handed = false;
        let parts = self.legs.get(leg as usize).map_or(0, |row| row.parts.len());
        for at in 0..parts {
            let Some(part) = self.legs.get(leg as usize).and_then(|row| row.parts.get(at)) else { break };
            let result = match *part {
                Part::Talker(stage, place) => select::rtp(self, now, leg, (stage, place), packet, bytes, tx),
                Part::Speaker(stage) => floor::rtp(self, now, leg, stage, packet, bytes, tx),
                Part::Tapped => tap::rtp(self, leg, packet, bytes, tx),
                Part::Spread => {
                    handed |= self.hand(leg, packet, bytes, tx);
                    continue;
                }
                Part::Voice(stage, place) => {
                    select::voice(self, now, leg, (stage, place), packet, tx);
                    continue;
                }
            };
            match result {
                Ok(count) => sent += count,
                Err(other) => why = other,
            }
        }
        tx.totals.packets_out += u64::from(sent);
        if sent > 0 || handed { Ok(Fate::Forwarded) } else { Err(why) }
    }

    /// A source that the leg has not sent under yet. It is shown as `shown`, unless that is another's.
    #[cold]
    pub(super) fn new_source(
        &mut self,
        now: Now,
        leg: u32,
        view: &RtpView<'_>,
        mut shown: u32,
    ) -> Result<usize, Drop> {
        /// A source that was quiet for this long makes room for a new one.
        const IDLE: std::time::Duration = std::time::Duration::from_secs(5);
        let (sources_max, ever_max) = (self.sources_max, self.sources_ever_max);
        let keyed = self.meets_keys(leg);
        let row = self.legs.get_mut(leg as usize).ok_or(Drop::NoLeg)?;
        // A key forgets no source (see `rtp::srtp`): one leg must not fill the tables of those that hear it.
        if keyed && row.sources_ever >= ever_max {
            return Err(Drop::Sources);
        }
        // Looked at before the search for a name, which is long: who sends under ever other SSRCs shall not cause it.
        if row.sources.len() >= sources_max {
            let oldest =
                row.sources.iter().enumerate().min_by_key(|(_, s)| s.last_at).map(|(at, s)| (at, s.last_at));
            match oldest {
                Some((at, last)) if now.mono.since(last) >= IDLE => row.forget_source(at),
                _ => return Err(Drop::Sources),
            }
        }
        let ssrc = view.ssrc();
        let context = self.leg(leg).map(|row| row.key.context);
        // RFC 3550 §8.2: what two legs use alike is told apart for the others of the context.
        let taken = |media: &Media, ssrc: u32| {
            media.legs.iter().any(|(at, row)| {
                Some(row.key.context) == context
                    && (row.streams().any(|stream| stream.ssrc == ssrc)
                        || (at as u32 != leg && row.sources.iter().any(|s| s.shown == ssrc)))
            })
        };
        for _ in 0..8 {
            if !taken(self, shown) {
                break;
            }
            shown = self.entropy.u32();
        }
        let row = self.legs.get_mut(leg as usize).ok_or(Drop::NoLeg)?;
        row.sources_ever += 1;
        row.sources.push(Source {
            ssrc,
            shown,
            reception: Reception::new(view),
            last_at: now.mono,
            last_timestamp: view.timestamp(),
            reported: None,
            payload_type: view.payload_type(),
            key_frame_at: None,
            key_frame_waits: false,
            fir: 0,
            left_at: Instant::ZERO,
        });
        Ok(row.sources.len() - 1)
    }
}
