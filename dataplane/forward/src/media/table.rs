//! Legs put and removed, at control rate.

use std::net::SocketAddr;

use base::{Instant, Now};
use contract::{Direction, Learning};
use rtp::{Clock, VideoCodec};

use super::guard::SEQUENCE_SKIP;
use super::latch::{self, told_rtcp};
use super::leg::{Counts, Port, PortState, RtpLeg};
use super::{Binding, ExtensionIds, Media, NONE, Stream, Talk, Tx};
use crate::{Attachment, Output, SocketId};

fn address(a: Option<&contract::Address>) -> Option<SocketAddr> {
    a.and_then(contract::Address::socket).filter(|a| a.port() != 0)
}

/// Where a leg's packets come and go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    /// Where they did before.
    Kept,
    /// On sockets that the process bound for it.
    Own(&'a Attachment),
    /// On the transport of the leg in that row.
    On(u32),
}

impl Media {
    /// Puts a leg: a new one with its place, or the changes to one that is there. The leg was checked.
    pub(crate) fn put(
        &mut self,
        now: Now,
        leg: &contract::Leg,
        rtp: &contract::RtpLeg,
        old: Option<(u32, &contract::RtpLeg)>,
        place: Place<'_>,
        tx: &mut Tx<'_>,
    ) -> Option<u32> {
        let at = match (old, place) {
            (Some((at, _)), _) => at,
            (None, Place::Own(_) | Place::On(_)) => self.insert(now, leg, rtp),
            (None, Place::Kept) => return None,
        };
        self.recall(at, tx);
        match place {
            Place::Kept => {}
            Place::Own(sockets) => {
                self.close_sockets(at, tx);
                self.attach(at, sockets);
            }
            Place::On(carrier) => self.board(at, carrier, tx),
        }
        let sockets = match place {
            Place::Own(sockets) => Some(sockets),
            Place::Kept | Place::On(_) => None,
        };
        let relearn = match old {
            // Where its peer is is for its carrier to learn.
            _ if matches!(place, Place::On(_)) => false,
            // Where such a peer is is not for control to say; and what it was before is no more.
            Some((_, old)) if sockets.is_none() && rtp.ice.is_some() => old.ice.is_none(),
            Some((_, old)) if sockets.is_none() => {
                old.remote != rtp.remote
                    || old.remote_rtcp != rtp.remote_rtcp
                    || old.learning != rtp.learning
                    || old.learning_ms != rtp.learning_ms
                    || old.rtcp_mux != rtp.rtcp_mux
                    // Who was learned in clear has proved nothing.
                    || (old.srtp.is_none() && rtp.srtp.is_some())
                    || (old.dtls.is_none() && rtp.dtls.is_some())
                    || old.ice.is_some()
            }
            _ => true,
        };
        let (srtp, police) = (self.srtp, self.police);
        let cname = self.cname_of(leg, rtp);
        let known = old.filter(|_| sockets.is_none()).map(|(_, old)| old);
        let other = self.put_web(now.mono, at, rtp, known, tx);
        self.put_repair(at, rtp, old.map(|(_, old)| old));
        let row = self.leg_mut(at)?;
        row.put_guard(now, rtp, (old.is_none(), other), srtp);
        row.put_police(rtp.bandwidth_kbps, police, now.mono);
        row.talk.put(rtp);
        row.put_wide(rtp);
        row.cname = cname;
        let was_held = !row.may_send;
        row.describe(leg, rtp);
        if was_held && row.may_send {
            // Silence on hold does not count (CPM-FACTS §4.7).
            (row.since, row.silent) = (now.mono, false);
        }
        row.learning = rtp.learning();
        row.mux = rtp.rtcp_mux || row.rtcp.is_none();
        row.silence_ms = rtp.media_timeout_ms;
        if let Some(local) = rtp.local.as_ref().and_then(|l| address(l.bound.as_ref())) {
            row.local = local;
        }
        // The transport that it rides on is another leg's.
        let own = row.carrier == NONE;
        let sockets = [Some(row.rtp.socket), row.rtcp.map(|port| port.socket)];
        for socket in sockets.into_iter().flatten().filter(|_| own) {
            if let Some(binding) = self.sockets.get_mut(socket.0 as usize) {
                binding.unseen = leg.unseen;
            }
        }
        if relearn {
            self.open(at, rtp, now.mono, tx);
        }
        self.begin_handshake(at, tx);
        self.watch_silence(at);
        Some(at)
    }

    /// Opens a leg's ports to learning, as control's new word says.
    fn open(&mut self, at: u32, rtp: &contract::RtpLeg, now: Instant, tx: &mut Tx<'_>) {
        let Some(row) = self.leg_mut(at) else { return };
        let until = latch::until(now, rtp.learning_ms);
        let told = address(rtp.remote.as_ref());
        let learning = row.learning;
        if rtp.ice.is_some() {
            // Its checks will say where it is.
            latch::open(&mut row.rtp, None, Learning::Strict, until, tx);
            return;
        }
        latch::open(&mut row.rtp, told, learning, until, tx);
        if let Some(port) = row.rtcp.as_mut().filter(|_| !rtp.rtcp_mux) {
            latch::open(port, told_rtcp(address(rtp.remote_rtcp.as_deref()), told), learning, until, tx);
        }
        if learning != Learning::Strict {
            self.window_opens(at, until);
        }
    }

    pub(super) fn insert(&mut self, now: Now, leg: &contract::Leg, rtp: &contract::RtpLeg) -> u32 {
        self.serial += 1;
        let continuity = rtp.continuity.as_deref().cloned().unwrap_or_default();
        let ssrc = if continuity.ssrc == 0 { self.fresh_ssrc() } else { continuity.ssrc };
        let fresh = continuity.ssrc == 0;
        let skip = if rtp.srtp.is_some() {
            // No number may come twice under a key, and what control kept may be older than what was sent.
            SEQUENCE_SKIP
        } else {
            0
        };
        let mut stream = if fresh {
            // Below 2^15, so that a receiver's first guess of a rollover is right (CPM-FACTS §4.4).
            let sequence = self.entropy.below(1 << 15) as u16;
            Stream::new(ssrc, sequence, self.entropy.u32(), now.mono)
        } else {
            let sequence = (continuity.sequence as u16).wrapping_add(skip);
            Stream::new(ssrc, sequence, continuity.timestamp, now.mono)
        };
        let mut more = Vec::new();
        for slot in &continuity.slots {
            let of = (slot.path, slot.slot);
            if slot.ssrc == ssrc {
                stream.of = Some(of);
            } else {
                let sequence = (slot.sequence as u16).wrapping_add(skip);
                more.push(Stream::new(slot.ssrc, sequence, slot.timestamp, now.mono).for_slot(of));
            }
        }
        let row = RtpLeg {
            rtp: port(NO_SOCKET),
            rtcp: None,
            may_send: false,
            may_receive: false,
            captured: false,
            guarded: false,
            renames: false,
            guard: None,
            terminates: false,
            level_id: 0,
            policed: false,
            kept: false,
            timed: false,
            bundled: false,
            offloaded: false,
            clock: Clock(rtp.clock_rate),
            last_at: now.mono,
            counts: Counts::default(),
            accepts: None,
            sources: Vec::with_capacity(4),
            relays: Vec::new(),
            fans: Vec::new(),
            parts: Vec::new(),
            stream,
            more,
            taps: Vec::new(),
            extensions: None,
            codecs: Vec::new(),
            key: leg.key(),
            serial: self.serial,
            unseen: leg.unseen,
            mux: true,
            led: false,
            feeders: Vec::new(),
            relays_rtcp: Vec::new(),
            learning: rtp.learning(),
            local: SocketAddr::from(([0, 0, 0, 0], 0)),
            video: false,
            cname: String::new(),
            silence_ms: 0,
            payloads: Vec::new(),
            talk: Box::new(Talk::new()),
            repair: None,
            police: None,
            recorded: false,
            traced: false,
            reports_run: false,
            silent: false,
            since: now.mono,
            begun: now.mono,
            watched: false,
            sources_ever: 0,
            going: false,
            carrier: NONE,
            web: None,
            spent: None,
            wide: None,
            names: None,
            spread: None,
            offload: None,
            not_offered_until: Instant::ZERO,
        };
        self.legs.insert(row) as u32
    }

    /// What a leg is called in RTCP.
    pub(super) fn cname_of(&self, leg: &contract::Leg, rtp: &contract::RtpLeg) -> String {
        if rtp.cname.is_empty() { self.name_of(leg) } else { rtp.cname.clone() }
    }

    /// The CNAME of a leg that control gave none (RFC 7022 §4.2): drawn, the same for all legs of one participant, so that a
    /// receiver keeps his audio and video together and learns nothing else of him.
    fn name_of(&self, leg: &contract::Leg) -> String {
        // FNV-1a over who it is, mixed into a seed of our own.
        let fold = |hash: u64, octet: &u8| (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3);
        let alone = leg.id.to_be_bytes();
        let who = if leg.participant.is_empty() { &alone[..] } else { leg.participant.as_bytes() };
        let hash = who.iter().chain(&leg.context.to_be_bytes()).fold(0xcbf2_9ce4_8422_2325, fold);
        let mut seed = self.foreign_names.get(&leg.context).copied().unwrap_or(self.names);
        seed.iter_mut().zip(hash.to_be_bytes()).for_each(|(octet, mixed)| *octet ^= mixed);
        base::Entropy::from_seed(seed).token(96)
    }

    pub(super) fn fresh_ssrc(&mut self) -> u32 {
        // 0 means "draw one" in the contract.
        self.entropy.u32().max(1)
    }

    /// A leg rides on another one's transport from now on; what it had of its own goes.
    fn board(&mut self, at: u32, carrier: u32, tx: &mut Tx<'_>) {
        let Some(port) = self.leg(carrier).map(|row| row.rtp) else { return };
        if self.leg(at).is_some_and(|row| row.carrier == NONE) {
            self.close_sockets(at, tx);
        }
        if let Some(row) = self.leg_mut(at) {
            (row.carrier, row.rtp, row.rtcp) = (carrier, port, None);
        }
    }

    fn attach(&mut self, at: u32, sockets: &Attachment) {
        if let Some(row) = self.leg_mut(at) {
            row.rtp = port(sockets.rtp);
            row.rtcp = sockets.rtcp.map(port);
            row.carrier = NONE;
        }
        self.bind_all(at, sockets);
    }

    fn bind_all(&mut self, leg: u32, sockets: &Attachment) {
        self.bind(sockets.rtp, Binding { leg, ..Binding::FREE });
        if let Some(socket) = sockets.rtcp {
            self.bind(socket, Binding { leg, rtcp: true, ..Binding::FREE });
        }
    }

    fn bind(&mut self, socket: SocketId, binding: Binding) {
        if let Some(place) = self.sockets.get_mut(socket.0 as usize) {
            *place = binding;
        }
    }

    fn close_sockets(&mut self, at: u32, tx: &mut Tx<'_>) {
        // A carrier's are not its rider's to close.
        let Some(row) = self.leg(at).filter(|row| row.carrier == NONE) else { return };
        let sockets = [Some(row.rtp.socket), row.rtcp.map(|p| p.socket)];
        for socket in sockets.into_iter().flatten().filter(|socket| *socket != NO_SOCKET) {
            self.bind(socket, Binding::FREE);
            tx.push(Output::CloseSocket { socket });
        }
    }

    /// A leg is about to be removed, perhaps with others: none of them needs to hear of the others.
    pub(crate) fn going(&mut self, at: u32) {
        if let Some(row) = self.leg_mut(at) {
            row.going = true;
        }
    }

    /// Removes a leg. Its context's routes must be made anew after.
    pub(crate) fn remove(&mut self, at: u32, tx: &mut Tx<'_>) {
        let shown: Vec<u32> =
            self.leg(at).map(|row| row.present().map(|s| s.shown).collect()).unwrap_or_default();
        self.recall_last(at, tx);
        self.bye(at, &shown, tx);
        self.say_bye(at, tx);
        if let Some(web) = self.leg(at).and_then(|row| row.web.as_ref()) {
            super::web::end(web, at, tx);
        }
        self.close_sockets(at, tx);
        if self.legs.contains(at as usize) {
            let row = self.legs.remove(at as usize);
            self.repairs -= usize::from(row.repair.is_some());
            // What it sent to others stays theirs.
            for route in row.relays.iter().chain(&row.fans).chain(&row.taps) {
                if let Some(target) = self.leg_mut(route.leg) {
                    target.counts.packets_out += route.packets_all();
                    target.counts.bytes_out += route.bytes;
                }
            }
        }
    }

    /// Whether a socket is free to be attached.
    pub(crate) fn is_free(&self, socket: SocketId) -> bool {
        self.sockets.get(socket.0 as usize).is_some_and(|b| b.leg == NONE)
    }

    /// How long until the next thing is due.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.timers.next_timeout()
    }

    /// Captures the legs of a context, or no more.
    pub(crate) fn capture(&mut self, legs: impl Iterator<Item = u32>, on: bool) {
        for leg in legs {
            if let Some(row) = self.leg_mut(leg) {
                // Nothing shows a leg that is unseen, a file of the context neither.
                row.traced = on && !row.unseen;
                row.captured = row.traced || row.recorded;
            }
        }
    }

    /// Records what a leg's peer sends, or no more.
    pub(crate) fn record(&mut self, leg: u32, on: bool) {
        if let Some(row) = self.leg_mut(leg) {
            row.recorded = on;
            row.captured = row.traced || row.recorded;
        }
    }
}

/// Of a row that has not got its own yet.
const NO_SOCKET: SocketId = SocketId(u32::MAX);

/// A port that hears nobody.
const fn port(socket: SocketId) -> Port {
    Port { socket, told: None, peer: None, state: PortState::Closed, candidate: None }
}

impl RtpLeg {
    /// What control says of the leg apart from its ports and keys: the same on each shard of its context.
    pub(super) fn describe(&mut self, leg: &contract::Leg, rtp: &contract::RtpLeg) {
        let direction = leg.direction();
        self.may_send = matches!(direction, Direction::Sendrecv | Direction::Sendonly);
        self.may_receive = matches!(direction, Direction::Sendrecv | Direction::Recvonly);
        self.unseen = leg.unseen;
        self.level_id = u8::try_from(rtp.audio_level_id).unwrap_or(0);
        self.clock = Clock(rtp.clock_rate);
        self.video = rtp.video;
        self.payloads =
            rtp.payloads.iter().filter_map(|p| Some((octet(p.peer)?, octet(p.context)?))).collect();
        self.codecs = rtp.payloads.iter().filter_map(|p| Some((octet(p.peer)?, codec(p.codec())?))).collect();
        self.extensions = rtp.extensions.as_ref().map(|put| Box::new(ExtensionIds::new(put)));
        self.accepts = (!self.payloads.is_empty())
            .then(|| self.payloads.iter().fold(0u128, |set, (peer, _)| set | 1 << (peer & 0x7f)));
    }
}

fn octet(n: u32) -> Option<u8> {
    u8::try_from(n).ok().filter(|n| *n < 128)
}

const fn codec(put: contract::VideoCodec) -> Option<VideoCodec> {
    match put {
        contract::VideoCodec::Unspecified => None,
        contract::VideoCodec::Vp8 => Some(VideoCodec::Vp8),
        contract::VideoCodec::H264 => Some(VideoCodec::H264),
        contract::VideoCodec::Vp9 => Some(VideoCodec::Vp9),
        contract::VideoCodec::H265 => Some(VideoCodec::H265),
    }
}
