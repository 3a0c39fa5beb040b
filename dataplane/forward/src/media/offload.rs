//! Flows that somebody below may relay by himself (the kernel; the engine does not know by what means): what one leg's peer sends
//! under one SSRC, to one other leg, as it is. The engine offers them when nothing about them is open any more, is told from time
//! to time what they carried, and takes them back before anything changes. What is carried that way is in no [`Input::Datagram`],
//! so whatever has to see packets keeps a flow here.
//!
//! ```text
//!              Input::Settle, and the flow is settled: Output::Offload
//!   here ────────────────────────────────────────────────────────────────► offloaded ──► Input::Offloaded, now and then
//!    ▲                                                                         │
//!    └── Input::Offloaded { over } ◄── taken back ◄── about to change (Engine::offloaded tells the driver of which)
//!        (or it could not be done)                    changed all the same, or its packets come here: Output::Recall
//! ```
//!
//! [`Input::Datagram`]: crate::Input::Datagram
//! [`Input::Settle`]: crate::Input::Settle
//! [`Input::Offloaded`]: crate::Input::Offloaded

use std::net::SocketAddr;
use std::time::Duration;

use base::{Instant, Now};
use rtp::{Received, RtpView};

use super::leg::{Port, PortState, Route, RtpLeg, Source};
use super::{Media, NONE, Tx};
use crate::{Output, SocketId};

/// A source is settled that has brought so many packets.
const PACKETS_MIN: u32 = 8;
/// ... and the last of them not longer ago.
const FRESH: Duration = Duration::from_secs(2);
/// A flow whose packets come here all the same, or that nobody would take, is not offered again for so long.
const BACKOFF: Duration = Duration::from_secs(30);
/// So far from what is known a packet is none of the same run (RFC 3550 §A.1).
const DROPOUT_MAX: u16 = 3000;
/// Offers of one look at the legs.
const OFFERS_MAX: usize = 256;

/// A flow to be relayed without the engine: exactly what comes from `from` to `at` under `ssrc` goes to `to` by `by`.
#[derive(Clone, Debug)]
pub struct Settled {
    /// Its name: the socket that receives it now, and whatever of it is not relayed so.
    pub socket: SocketId,
    /// The peer that sends.
    pub from: SocketAddr,
    /// Where that socket is bound.
    pub at: SocketAddr,
    /// Where the socket is bound that sends it now.
    pub by: SocketAddr,
    /// The peer that it goes to.
    pub to: SocketAddr,
    /// The one synchronisation source. What comes under another is for the engine.
    pub ssrc: u32,
    /// Payload types that pass, one bit each; the others are for the engine.
    pub payloads: u128,
    /// Of the payload, in Hz; 0: unknown.
    pub clock: u32,
    /// What is known of the source's packets; goes on from there.
    pub received: Received,
}

/// What a flow carried since it was offloaded.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Carried {
    /// Packets, each of which was sent on.
    pub packets: u64,
    /// Octets of their datagrams.
    pub octets: u64,
    /// How long ago the last one came; `None`: none has come.
    pub idle: Option<Duration>,
    /// The RTP timestamp of the last one.
    pub timestamp: u32,
    /// What is known of the source's packets now; late and repeated ones counted from the start of the offload.
    pub received: Received,
}

/// What must stay as it is for as long as a flow is offloaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Terms {
    socket: SocketId,
    from: SocketAddr,
    at: SocketAddr,
    by: SocketAddr,
    to: SocketAddr,
    payloads: u128,
    clock: u32,
    /// The target leg, and that it is the same one still.
    target: (u32, u64),
}

/// What the engine remembers of a flow that is offloaded.
#[derive(Debug)]
pub(crate) struct Offload {
    ssrc: u32,
    shown: u32,
    terms: Terms,
    /// What was counted already.
    counted: Carried,
    /// When that was told.
    told_at: Instant,
    /// Packets of the leg since then that are not the flow's.
    strays: u32,
}

impl RtpLeg {
    /// A packet of an offloaded leg came here. One of the flow was on its way when that was offloaded, however late a busy
    /// host reads it; another is one that is not relayed below.
    #[cold]
    pub(super) fn stray(&mut self, view: &RtpView<'_>) {
        let Some(offload) = self.offload.as_mut() else { return };
        let ahead = view.sequence().wrapping_sub(offload.counted.received.highest as u16) as i16;
        // RFC 3550 §5.1: version 2, no padding, extension or contributing source.
        let is_plain = view.head()[0] == 0x80;
        if view.ssrc() != offload.ssrc || !is_plain || ahead.unsigned_abs() >= DROPOUT_MAX {
            offload.strays = offload.strays.saturating_add(1);
        }
    }

    /// When it was last known what its peer has sent: of an offloaded leg not now.
    pub(super) fn known_at(&self, now: Instant) -> Instant {
        self.offload.as_ref().map_or(now, |offload| offload.told_at)
    }

    fn peer_fixed(port: &Port) -> Option<SocketAddr> {
        port.peer.filter(|_| port.state == PortState::Fixed)
    }

    /// Nothing but its one port is the leg's way to its peer, and nothing has to be done to its packets.
    fn is_plain(&self) -> bool {
        self.guard.is_none()
            && self.web.is_none()
            && self.spread.is_none()
            && self.repair.is_none()
            && self.extensions.is_none()
            && self.carrier == NONE
            && !self.bundled
            && !self.unseen
            && !self.going
            && !self.captured
            && !self.terminates
            && !self.local.ip().is_unspecified()
    }

    /// Its one target, if its packets need nothing but to go there.
    fn only_route(&self) -> Option<&Route> {
        let alone = self.fans.is_empty() && self.taps.is_empty() && self.parts.is_empty();
        let unseen_by_any = !self.guarded && !self.renames && !self.policed && !self.timed;
        match self.relays.as_slice() {
            [route] if alone && unseen_by_any && self.may_send && self.is_plain() => Some(route),
            _ => None,
        }
    }
}

impl Media {
    /// Where a leg's packets go, if somebody below may relay them.
    fn terms(&self, leg: u32) -> Option<Terms> {
        let row = self.leg(leg)?;
        let route = row.only_route()?;
        let target = self.leg(route.leg).filter(|target| target.is_plain() && target.may_receive)?;
        let accepted = row.accepts.unwrap_or(u128::MAX);
        let payloads = (0..128u8)
            .filter(|payload| accepted >> payload & 1 == 1 && route.payload_type(*payload) == Some(*payload))
            .fold(0u128, |set, payload| set | 1 << payload);
        Some(Terms {
            socket: row.rtp.socket,
            from: RtpLeg::peer_fixed(&row.rtp)?,
            at: row.local,
            by: target.local,
            to: RtpLeg::peer_fixed(&target.rtp)?,
            payloads,
            clock: row.clock.0,
            target: (route.leg, target.serial),
        })
    }

    /// Looks for flows that are settled and offers them; the rest at the next look.
    pub(crate) fn settle_flows(&mut self, now: Now, tx: &mut Tx<'_>) {
        let room = tx.out.room().saturating_sub(self.targets_max.min(64)).min(OFFERS_MAX);
        let due = |row: &RtpLeg| !row.offloaded && row.not_offered_until <= now.mono;
        let rows = self.legs.iter().filter(|(_, row)| due(row)).map(|(at, _)| at as u32);
        let offers: Vec<u32> = rows.filter(|at| self.flow_of(*at, now).is_some()).take(room).collect();
        for at in offers {
            let Some((flow, offload)) = self.flow_of(at, now) else { continue };
            if let Some(row) = self.leg_mut(at)
                && tx.push(Output::Offload(Box::new(flow)))
            {
                (row.offloaded, row.offload) = (true, Some(Box::new(offload)));
                tx.totals.flows_offloaded += 1;
            }
        }
    }

    fn flow_of(&self, leg: u32, now: Now) -> Option<(Settled, Offload)> {
        let (row, terms) = (self.leg(leg)?, self.terms(leg)?);
        let fresh = |source: &&Source| now.mono.since(source.last_at) <= FRESH;
        let mut speaking = row.present().filter(fresh);
        // One of them, and no other at the same time.
        let source = speaking.next().filter(|_| speaking.next().is_none())?;
        if source.reception.received() < PACKETS_MIN {
            return None;
        }
        let received = source.reception.so_far();
        let Terms { socket, from, at, by, to, payloads, clock, .. } = terms;
        let flow = Settled { socket, from, at, by, to, ssrc: source.ssrc, payloads, clock, received };
        let counted =
            Carried { received: Received { reordered: 0, duplicates: 0, ..received }, ..Carried::default() };
        let offload =
            Offload { ssrc: source.ssrc, shown: source.shown, terms, counted, told_at: now.mono, strays: 0 };
        Some((flow, offload))
    }

    /// A flow has carried something, as counted from its start; `over`: it is relayed here again from now on.
    pub(crate) fn carried(
        &mut self,
        now: Now,
        socket: SocketId,
        carried: Option<Carried>,
        over: bool,
        tx: &mut Tx<'_>,
    ) {
        let Some(binding) = self.binding(socket) else { return };
        let at = binding.leg;
        let Some(mut offload) = self.leg_mut(at).and_then(|row| row.offload.take()) else { return };
        if let Some(carried) = carried {
            self.count_carried(now, at, &mut offload, carried, tx);
        }
        let strays = std::mem::take(&mut offload.strays) > 0;
        offload.told_at = now.mono;
        let Some(row) = self.leg_mut(at) else { return };
        if over {
            row.offloaded = false;
            tx.totals.flows_offloaded = tx.totals.flows_offloaded.saturating_sub(1);
            if carried.is_none() {
                row.not_offered_until = now.mono + BACKOFF;
            }
            return;
        }
        row.offload = Some(offload);
        if strays {
            row.not_offered_until = now.mono + BACKOFF;
            tx.push(Output::Recall { socket });
        }
    }

    fn count_carried(&mut self, now: Now, at: u32, offload: &mut Offload, carried: Carried, tx: &mut Tx<'_>) {
        let packets = carried.packets.saturating_sub(offload.counted.packets);
        let octets = carried.octets.saturating_sub(offload.counted.octets);
        let before = offload.counted.received;
        offload.counted = carried;
        let Some(row) = self.leg_mut(at) else { return };
        if let Some(idle) = carried.idle.filter(|_| packets > 0) {
            let came_at = Instant::from_nanos(now.mono.as_nanos().saturating_sub(idle.as_nanos() as u64));
            let clock = row.clock;
            if let Some(source) = row.sources.iter_mut().find(|s| s.ssrc == offload.ssrc) {
                source.last_at = source.last_at.max(came_at);
                source.last_timestamp = carried.timestamp;
                let last = (came_at, carried.timestamp);
                source.reception.take_over(packets as u32, before, carried.received, last, clock);
            }
            row.last_at = row.last_at.max(came_at);
        }
        row.counts.packets_in += packets;
        row.counts.bytes_in += octets;
        tx.totals.packets_in += packets;
        tx.totals.packets_forwarded += packets;
        tx.totals.packets_out += packets;
        tx.totals.packets_offloaded += packets;
        let (target, serial) = offload.terms.target;
        match row.relays.iter_mut().find(|route| route.leg == target) {
            Some(route) => {
                if route.of != offload.shown {
                    route.turn_to(offload.shown);
                }
                // What is offloaded has a fixed header and nothing else (see `netio::kernel`).
                let payload = octets.saturating_sub(packets * crate::HEAD_BYTES as u64);
                route.packets = route.packets.wrapping_add(packets as u32);
                route.octets = route.octets.wrapping_add(payload as u32);
                route.bytes += octets;
            }
            // The route went before the flow was taken back.
            None => {
                if let Some(row) = self.leg_mut(target).filter(|row| row.serial == serial) {
                    row.counts.packets_out += packets;
                    row.counts.bytes_out += octets;
                }
            }
        }
    }

    /// Takes back what of these legs is no more what was offered.
    pub(super) fn recall_changed(&mut self, legs: impl Iterator<Item = u32>, tx: &mut Tx<'_>) {
        for at in legs {
            let Some(row) = self.leg(at).filter(|row| row.offloaded) else { continue };
            let socket = row.rtp.socket;
            let same = row.offload.as_ref().is_some_and(|offload| self.terms(at) == Some(offload.terms));
            if !same {
                tx.push(Output::Recall { socket });
            }
        }
    }

    /// Takes back a leg's flow: the leg changes, and whoever drives the engine has not taken it back before
    /// ([`crate::Engine::offloaded`]).
    pub(super) fn recall(&mut self, at: u32, tx: &mut Tx<'_>) {
        if let Some(row) = self.leg(at).filter(|row| row.offloaded) {
            tx.push(Output::Recall { socket: row.rtp.socket });
        }
    }

    /// The same of one that goes; what its flow carried last is lost.
    pub(super) fn recall_last(&mut self, at: u32, tx: &mut Tx<'_>) {
        self.recall(at, tx);
        if self.leg_mut(at).is_some_and(|row| std::mem::take(&mut row.offloaded)) {
            tx.totals.flows_offloaded = tx.totals.flows_offloaded.saturating_sub(1);
        }
    }

    /// The sockets of those of these legs that are offloaded.
    pub(crate) fn offloaded(&self, legs: impl Iterator<Item = u32>, sockets: &mut Vec<SocketId>) {
        let rows = legs.filter_map(|at| self.leg(at));
        sockets.extend(rows.filter(|row| row.offloaded).map(|row| row.rtp.socket));
    }
}
