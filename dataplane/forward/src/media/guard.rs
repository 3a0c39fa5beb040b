//! Legs whose packets are protected (SRTP, RFC 3711): opened once when they arrive, protected once for each target that is
//! guarded itself. What does not authenticate is dropped before anything is learned, counted as heard, or passed on.
//!
//! ```text
//!   datagram ── guarded leg: opened into `clear` ──► look up, rewrite ──┬─► plain target: held as it is
//!            └─ plain leg ────────────────────────►                     └─► guarded target: held, protected
//! ```
//!
//! What leaves is held by the engine until the driver has sent it (`held`): the datagram in the driver's buffer is not it.

use base::Now;
use contract::{RtpContinuity, SrtpProgress, SrtpSuite};
use rtp::RtcpWriter;
use rtp::srtp::{Config, Inbound, Keying, Outbound, Progress, SrtpError, Suite, TRAILER_MAX};
use slab::Slab;

use super::arrive::{Fate, Packet, Sent, drop_of};
use super::held::HELD_BYTES;
use super::latch::Heard;
use super::leg::{Route, RtpLeg};
use super::{Edit, Media, NONE, Spent, Tx};
use crate::{Drop, Output, SocketId};

/// SRTCP indices left out when a leg goes on from a state that control kept: it may be older than what was sent since.
const RTCP_SKIP: u32 = 4096;
/// The same for the sequence numbers of a stream that we number ourselves.
pub(super) const SEQUENCE_SKIP: u16 = 4096;

/// The keys of a leg. Without one of them nothing passes that way.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    keys: (Option<Keying>, Option<Keying>),
    inbound: Option<Inbound>,
    pub(super) outbound: Option<Outbound>,
    /// The keys are those of the leg in that row, on whose transport this one rides; and whether it has them.
    of: Option<u32>,
    pub(super) ready: bool,
    /// What is written into packets that leave, under which header extension id (RFC 9143 §15).
    pub(super) mid: Option<(u8, Box<[u8]>)>,
}

/// With what a leg sends: `None` of one in clear, `Some(None)` of one whose keys are not there.
pub(super) fn outbound_of(legs: &mut Slab<RtpLeg>, leg: u32) -> Option<Option<&mut Outbound>> {
    let at = legs.get(leg as usize)?.guard.as_ref()?.of.unwrap_or(leg);
    let guard = legs.get_mut(at as usize).and_then(|row| row.guard.as_mut());
    Some(guard.and_then(|guard| guard.outbound.as_mut()))
}

/// A leg's row, and with it the row whose keys it sends with, if that is another.
pub(super) fn with_keys(legs: &mut Slab<RtpLeg>, leg: u32) -> Option<(&mut RtpLeg, Option<&mut RtpLeg>)> {
    let of = legs.get(leg as usize)?.guard.as_ref().and_then(|guard| guard.of);
    match of.filter(|of| *of != leg) {
        Some(of) => legs.get2_mut(leg as usize, of as usize).map(|(row, carrier)| (row, Some(carrier))),
        None => legs.get_mut(leg as usize).map(|row| (row, None)),
    }
}

/// A key of the contract; `Err`: of no length that its suite has.
fn keying(suite: SrtpSuite, octets: &[u8]) -> Result<Option<Keying>, ()> {
    let suite = match suite {
        SrtpSuite::Unspecified => return if octets.is_empty() { Ok(None) } else { Err(()) },
        SrtpSuite::AesCm128HmacSha180 => Suite::AesCm128HmacSha1_80,
        SrtpSuite::AesCm128HmacSha132 => Suite::AesCm128HmacSha1_32,
        SrtpSuite::Aes256CmHmacSha180 => Suite::AesCm256HmacSha1_80,
        SrtpSuite::Aes256CmHmacSha132 => Suite::AesCm256HmacSha1_32,
        SrtpSuite::AeadAes128Gcm => Suite::AeadAes128Gcm,
        SrtpSuite::AeadAes256Gcm => Suite::AeadAes256Gcm,
    };
    if octets.is_empty() { Ok(None) } else { Keying::new(suite, octets).map(Some).ok_or(()) }
}

/// Whether what control put can be done.
pub(crate) fn is_sound(srtp: &contract::Srtp) -> bool {
    let known = SrtpSuite::try_from(srtp.suite);
    known.is_ok_and(|suite| [&srtp.send_key, &srtp.receive_key].iter().all(|key| keying(suite, key).is_ok()))
}

impl Guard {
    /// From what control put; contexts whose key is the same go on, and so do those whose key was here before.
    fn put(
        old: Option<Guard>,
        srtp: &contract::Srtp,
        (now, config): (Now, Config),
        spent: &mut Option<Box<Spent>>,
    ) -> Guard {
        let key = |octets: &[u8]| keying(srtp.suite(), octets).unwrap_or_default();
        let keys = (key(&srtp.send_key), key(&srtp.receive_key));
        let mut old = old.unwrap_or_default();
        let outbound = if keys.0 == old.keys.0 { old.outbound.take() } else { None };
        let inbound = if keys.1 == old.keys.1 { old.inbound.take() } else { None };
        old.lay_aside(spent);
        let outbound = outbound.or_else(|| {
            let key = keys.0.as_ref()?;
            let mut outbound = Outbound::new(key, config).ok()?;
            if let Some(spent) = spent {
                if spent.has_forgotten {
                    outbound.begin_rtcp_at(rtcp_clock(now));
                }
                // In its own table it finds room again.
                for progress in &spent.take_sent(key) {
                    let _ = outbound.resume(progress, 0);
                }
            }
            Some(outbound)
        });
        let inbound = inbound.or_else(|| {
            let key = keys.1.as_ref()?;
            let mut inbound = Inbound::new(key, config).ok()?;
            if let Some(spent) = spent {
                for progress in &spent.take_received(key) {
                    let _ = inbound.resume(progress);
                }
            }
            Some(inbound)
        });
        Guard { keys, inbound, outbound, ..Guard::default() }
    }

    /// Of a leg that rides on the transport of another.
    pub(super) fn lent(of: u32) -> Guard {
        Guard { of: Some(of), ..Guard::default() }
    }

    /// Keeps how far its contexts have come, for the case that their keys come again (RFC 3711 §9.1).
    fn lay_aside(&self, spent: &mut Option<Box<Spent>>) {
        if let (Some(key), Some(outbound)) = (&self.keys.0, &self.outbound) {
            spent.get_or_insert_default().keep_sent(*key, outbound.progress().collect());
        }
        if let (Some(key), Some(inbound)) = (&self.keys.1, &self.inbound) {
            spent.get_or_insert_default().keep_received(*key, inbound.progress().collect());
        }
    }

    /// How far the sources have come that we protect.
    pub(super) fn sent(&self) -> impl Iterator<Item = Progress> {
        self.outbound.iter().flat_map(Outbound::progress)
    }

    /// Goes on with keys that were in use before, from what control kept of them. Of sources that it has not heard of
    /// the SRTCP index is not known: it begins where the clock says, which no earlier life can have reached.
    fn resume(&mut self, continuity: &RtpContinuity, now: Now) {
        if let Some(outbound) = &mut self.outbound {
            outbound.begin_rtcp_at(rtcp_clock(now));
        }
        for progress in &continuity.sent {
            // A table that is full has room for no more: those sources are refused later.
            let _ = self.outbound.as_mut().map(|o| o.resume(&of_contract(progress), RTCP_SKIP));
        }
        for progress in &continuity.received {
            let _ = self.inbound.as_mut().map(|i| i.resume(&of_contract(progress)));
        }
    }

    /// With the keys of a handshake.
    pub(super) fn agreed(send: &Keying, receive: &Keying, config: Config) -> Guard {
        Guard {
            keys: (Some(*send), Some(*receive)),
            inbound: Inbound::new(receive, config).ok(),
            outbound: Outbound::new(send, config).ok(),
            ..Guard::default()
        }
    }

    /// Whether what comes can be opened.
    pub(super) const fn opens(&self) -> bool {
        self.inbound.is_some()
    }

    /// Whether something may be sent.
    pub(crate) const fn sends(&self) -> bool {
        self.outbound.is_some() || self.ready
    }
}

/// An SRTCP index that nobody can have reached before now.
fn rtcp_clock(now: Now) -> u32 {
    /// Faster than reports are sent: sixteen a second.
    const TICK_MS: u64 = 64;
    (now.wall.as_millis() / TICK_MS % (1 << 30)) as u32
}

fn of_contract(progress: &SrtpProgress) -> Progress {
    Progress {
        ssrc: progress.ssrc,
        started: progress.started,
        rollover: progress.rollover,
        sequence: progress.sequence as u16,
        seen: progress.seen,
        rtcp_index: progress.rtcp_index,
        rtcp_seen: progress.rtcp_seen,
    }
}

fn to_contract(progress: Progress) -> SrtpProgress {
    SrtpProgress {
        ssrc: progress.ssrc,
        started: progress.started,
        rollover: progress.rollover,
        sequence: u32::from(progress.sequence),
        seen: progress.seen,
        rtcp_index: progress.rtcp_index,
        rtcp_seen: progress.rtcp_seen,
    }
}

/// Why an arriving packet is dropped.
const fn arriving(error: SrtpError) -> Drop {
    match error {
        SrtpError::Malformed(why) => drop_of(why),
        SrtpError::Replayed | SrtpError::Old => Drop::SrtpReplayed,
        SrtpError::Sources => Drop::Sources,
        SrtpError::Unauthentic | SrtpError::UsedUp | SrtpError::Room | SrtpError::Cipher => {
            Drop::SrtpUnauthentic
        }
    }
}

impl RtpLeg {
    /// Puts, changes or takes away the leg's keys. `fresh`: the leg is new here, and goes on from what control kept.
    /// `other`: keys that a handshake gave it are worth nothing any more.
    pub(super) fn put_guard(
        &mut self,
        now: Now,
        rtp: &contract::RtpLeg,
        (fresh, other): (bool, bool),
        config: Config,
    ) {
        if self.carrier != NONE {
            if self.guard.as_ref().is_none_or(|guard| guard.of != Some(self.carrier)) {
                self.guard = Some(Box::new(Guard::lent(self.carrier)));
            }
            return;
        }
        if rtp.dtls.is_some() {
            // Nothing passes before the handshake is done.
            if other || self.guard.is_none() {
                self.lay_keys_aside();
                self.guard = Some(Box::default());
            }
            return;
        }
        let Some(srtp) = &rtp.srtp else {
            self.lay_keys_aside();
            return;
        };
        let old = self.guard.take().map(|guard| *guard);
        let mut guard = Guard::put(old, srtp, (now, config), &mut self.spent);
        if let (true, Some(continuity)) = (fresh, &rtp.continuity) {
            guard.resume(continuity, now);
        }
        self.guard = Some(Box::new(guard));
    }

    /// Its keys are taken back.
    fn lay_keys_aside(&mut self) {
        if let Some(guard) = self.guard.take() {
            guard.lay_aside(&mut self.spent);
        }
    }

    /// Adds what the keys have done to what the leg must go on with elsewhere.
    pub(super) fn guard_continuity(&self, continuity: &mut RtpContinuity) {
        let Some(guard) = &self.guard else { return };
        continuity.sent = guard.outbound.iter().flat_map(Outbound::progress).map(to_contract).collect();
        continuity.received = guard.inbound.iter().flat_map(Inbound::progress).map(to_contract).collect();
        if let Some(own) = continuity.sent.iter().find(|p| p.ssrc == continuity.ssrc) {
            (continuity.rollover, continuity.srtcp_index) = (own.rollover, u64::from(own.rtcp_index));
        }
    }
}

impl Media {
    /// Makes room for a packet to each of so many legs, so that the packet loop need not.
    pub(super) fn make_room(&mut self, legs: usize) {
        self.held.reserve(legs.min(self.targets_max) * HELD_BYTES);
        self.clear.reserve(HELD_BYTES);
    }

    /// Opens a packet of a guarded leg into `clear`; where it is not one, nothing of it counts.
    pub(super) fn opened(
        &mut self,
        leg: u32,
        bytes: &[u8],
        rtcp: bool,
        then: impl FnOnce(&mut Self, &[u8]) -> Result<Fate, Drop>,
    ) -> Result<Fate, Drop> {
        let mut clear = std::mem::take(&mut self.clear);
        clear.clear();
        clear.extend_from_slice(bytes);
        let guard = self.leg_mut(leg).and_then(|row| row.guard.as_mut());
        let opened = match guard.and_then(|guard| guard.inbound.as_mut()) {
            Some(inbound) if rtcp => inbound.rtcp(&mut clear).map_err(arriving),
            Some(inbound) => inbound.rtp(&mut clear).map_err(arriving),
            // The peer's key is not known yet: nobody's packet can be told from his.
            None => Err(Drop::SrtpUnauthentic),
        };
        let fate = opened.and_then(|length| {
            clear.truncate(length);
            then(self, &clear)
        });
        self.clear = clear;
        fate
    }

    /// Leads a packet along the routes of its leg, where the leg or a target is guarded, calls header extensions otherwise or
    /// keeps what it is sent; how many went out.
    pub(super) fn lead_copies(
        &mut self,
        leg: u32,
        packet: &Packet<'_>,
        bytes: &[u8],
        tx: &mut Tx<'_>,
    ) -> (u32, Option<Drop>) {
        let (mut sent, mut why) = (0, None);
        for relay in [true, false] {
            let of = |row: &mut RtpLeg| std::mem::take(if relay { &mut row.relays } else { &mut row.fans });
            let Some(mut routes) = self.leg_mut(leg).map(of) else { continue };
            let ssrc = if relay { packet.view.ssrc() } else { packet.shown };
            for route in &mut routes {
                match self.send_along(leg, route, packet, ssrc, bytes, tx) {
                    Ok(Sent::Yes) => sent += 1,
                    Ok(_) => {}
                    Err(error) => why = Some(error),
                }
            }
            if let Some(row) = self.leg_mut(leg) {
                *(if relay { &mut row.relays } else { &mut row.fans }) = routes;
            }
        }
        (sent, why)
    }

    pub(crate) fn send_along(
        &mut self,
        from: u32,
        route: &mut Route,
        packet: &Packet<'_>,
        ssrc: u32,
        bytes: &[u8],
        tx: &mut Tx<'_>,
    ) -> Result<Sent, Drop> {
        let head = match route.output(packet, ssrc) {
            None => return Ok(Sent::NotAgreed),
            Some(Output::ForwardPatched { head, .. }) => Some(head),
            Some(_) => None,
        };
        let edit = Edit { head, contributor: None };
        self.send_copy((from, route.leg, route.socket), (packet, bytes), &edit, tx)?;
        route.sent(packet);
        Ok(Sent::Yes)
    }

    /// The same towards a tap that has names for what it is sent.
    pub(crate) fn send_named(
        &mut self,
        from: u32,
        route: &mut Route,
        (packet, name): (&Packet<'_>, rtp::Patch),
        bytes: &[u8],
        tx: &mut Tx<'_>,
    ) -> Result<Sent, Drop> {
        let Some(payload_type) = route.payload_type(name.payload_type) else { return Ok(Sent::NotAgreed) };
        let head = rtp::Patch { payload_type, ..name }.apply(packet.view.head());
        let edit = Edit { head: Some(head), contributor: None };
        self.send_copy((from, route.leg, route.socket), (packet, bytes), &edit, tx)?;
        route.sent(packet);
        Ok(Sent::Yes)
    }

    /// Passes RTCP on to a relay's target; `bytes` are in clear.
    pub(super) fn pass_rtcp(
        &mut self,
        target: u32,
        socket: SocketId,
        bytes: &[u8],
        opened: bool,
        tx: &mut Tx<'_>,
    ) -> bool {
        let Media { legs, held, .. } = self;
        let output = match outbound_of(legs, target) {
            None if !opened => Output::Forward { socket },
            None => {
                let (at, length) = held.copy(bytes, &Edit::default(), 0);
                Output::SendHeld { socket, at, length }
            }
            Some(None) => return false,
            Some(Some(outbound)) => {
                match held.protect(bytes, &Edit::default(), |room, n| outbound.rtcp(room, n)) {
                    Ok((at, length)) => Output::SendHeld { socket, at, length },
                    Err(_) => return false,
                }
            }
        };
        tx.push(output)
    }

    /// Sends RTCP of our own to a leg, protected where it is guarded.
    pub(crate) fn send_own(
        &mut self,
        leg: u32,
        socket: SocketId,
        writer: &RtcpWriter,
        tx: &mut Tx<'_>,
    ) -> bool {
        let bytes = match outbound_of(&mut self.legs, leg) {
            None => writer.finish(),
            Some(None) => return false,
            Some(Some(outbound)) => {
                let clear = writer.octets();
                let mut room = bytes::BytesMut::with_capacity(clear.len() + TRAILER_MAX);
                room.extend_from_slice(clear);
                room.resize(clear.len() + TRAILER_MAX, 0);
                let Ok(length) = outbound.rtcp(&mut room, clear.len()) else { return false };
                room.truncate(length);
                room.freeze()
            }
        };
        let sent = tx.push(Output::SendBytes { socket, bytes });
        // Of a leg that is unseen no number tells.
        let is_seen = self.leg(leg).is_some_and(|row| !row.unseen);
        tx.totals.packets_out += u64::from(sent && is_seen);
        sent
    }

    /// A datagram of a guarded leg's RTP port.
    pub(super) fn rtp_guarded(
        &mut self,
        now: Now,
        leg: u32,
        from: std::net::SocketAddr,
        heard: Heard,
        bytes: &[u8],
        tx: &mut Tx<'_>,
    ) -> Result<Fate, Drop> {
        let heard = heard.with_key();
        self.opened(leg, bytes, false, |media, clear| {
            let heard = media.settled(leg, from, heard, tx);
            let (leg, heard) = media.line_of(leg, from, heard, clear, tx)?;
            media.rtp_clear(now, leg, from, (heard, true), clear, tx)
        })
    }
}
