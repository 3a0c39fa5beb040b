//! The row of an RTP leg.

use std::net::SocketAddr;

use base::Instant;
use contract::{Learning, LegKey};
use rtp::{Clock, Reception, RtpView, VideoCodec};

use super::offload::Offload;
use super::police::Police;
use super::{ExtensionIds, Guard, Names, Repair, Spent, Spread, Stream, Talk, Web, Wide};
use crate::SocketId;
use crate::modes::slot::Part;

/// One of a leg's ports and what it has learned.
///
/// ```text
///   Put: STRICT                          Put: WINDOW, TRUST
///        │                                      │
///        ▼     the SDP's address speaks         ▼        window over, nothing known
///  ┌─ Fixed ◄─────────────────────────────── Learning ───────────────────────────► Closed
///  │     ▲ ▲                                    │ TRUST: another speaks
///  │     │ │ the SDP's address speaks           │ WINDOW: another of its network speaks, while it stays silent
///  │     │ └───────────────────────────────── Lent
///  │     └── window over (with the SDP's address, or with who was learned) ── Learning, Lent
///  └──── Put with another remote ──► as above
/// ```
#[derive(Clone, Copy, Debug)]
pub(crate) struct Port {
    pub(crate) socket: SocketId,
    /// What the peer's SDP says.
    pub(crate) told: Option<SocketAddr>,
    /// Where we send, and in `Fixed` whom alone we hear.
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) state: PortState,
    /// Who may be learned if the SDP's address stays silent.
    pub(crate) candidate: Option<Candidate>,
}

/// A source near the address of the SDP, which speaks while that one does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Candidate {
    pub(crate) from: SocketAddr,
    pub(crate) since: Instant,
    pub(crate) last_at: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PortState {
    /// Hears `peer` only.
    Fixed,
    /// Hears whom the learning mode admits, until then.
    Learning { until: Instant },
    /// Hears `peer`, who was learned in place of the SDP's address; that one takes it back until then.
    Lent { until: Instant },
    /// Hears nobody.
    Closed,
}

/// Where the packets of a leg go: one target, ready to be sent to.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) leg: u32,
    pub(crate) socket: SocketId,
    /// Packets of the source `of` sent by this route.
    pub(crate) packets: u32,
    /// Payload octets of them.
    pub(crate) octets: u32,
    /// Octets of datagrams sent by this route, whoever's.
    pub(crate) bytes: u64,
    /// The target's payload type for each of the source's; `None`: the same. 255: not agreed.
    pub(crate) payloads: Option<Box<[u8; 128]>>,
    /// The SSRC, as the target sees it, that was sent last.
    pub(crate) of: u32,
    /// What was sent under others.
    pub(crate) others: Option<Box<Shares>>,
}

/// What a route has sent under one SSRC (RFC 3550 §6.4.1: a sender's counts begin anew with another SSRC).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    ssrc: u32,
    packets: u32,
    octets: u32,
}

/// The shares of a route whose source changes; most have none.
#[derive(Clone, Default, Debug)]
pub(crate) struct Shares(Vec<Share>);

impl Route {
    /// SSRCs counted apart; beyond them the oldest is counted with what nobody asks for any more.
    const SHARES_MAX: usize = 32;

    /// Another source's packet is sent than before.
    #[cold]
    pub(crate) fn turn_to(&mut self, ssrc: u32) {
        let others = self.others.as_mut().map(|parts| &mut parts.0);
        let known = others.and_then(|parts| {
            let at = parts.iter().position(|p| p.ssrc == ssrc)?;
            Some(parts.swap_remove(at))
        });
        if self.packets > 0 {
            let left = Share { ssrc: self.of, packets: self.packets, octets: self.octets };
            let parts = &mut self.others.get_or_insert_with(Box::default).0;
            if parts.len() >= Self::SHARES_MAX {
                let oldest = parts.remove(1);
                if let Some(rest) = parts.first_mut() {
                    // The first one holds the rest: nobody's SSRC.
                    (rest.ssrc, rest.packets) = (0, rest.packets.wrapping_add(oldest.packets));
                }
            }
            parts.push(left);
        }
        let part = known.unwrap_or(Share { ssrc, packets: 0, octets: 0 });
        (self.of, self.packets, self.octets) = (ssrc, part.packets, part.octets);
    }

    /// Packets and payload octets sent under an SSRC.
    pub(crate) fn of_source(&self, ssrc: u32) -> (u32, u32) {
        if self.of == ssrc {
            return (self.packets, self.octets);
        }
        let mut parts = self.others.iter().flat_map(|parts| parts.0.iter());
        parts.find(|p| p.ssrc == ssrc).map_or((0, 0), |p| (p.packets, p.octets))
    }

    /// Packets sent, whoever's.
    pub(crate) fn packets_all(&self) -> u64 {
        let others = self.others.iter().flat_map(|parts| parts.0.iter()).map(|p| u64::from(p.packets));
        u64::from(self.packets) + others.sum::<u64>()
    }
}

/// What a leg's peer sends under one SSRC.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    pub(crate) ssrc: u32,
    /// Under which SSRC the context's other legs see it.
    pub(crate) shown: u32,
    pub(crate) reception: Reception,
    pub(crate) last_at: Instant,
    pub(crate) last_timestamp: u32,
    /// The peer's last sender report, and when it came.
    pub(crate) reported: Option<(rtp::SenderInfo, Instant)>,
    /// Of its first packet.
    pub(crate) payload_type: u8,
    /// When a key frame was asked for last, whether another is to be, and the number of the last FIR.
    pub(crate) key_frame_at: Option<Instant>,
    pub(crate) key_frame_waits: bool,
    pub(crate) fir: u8,
    /// When it said BYE last. It lingers (RFC 3550 §6.3.4): its place and its name stay its own for a while.
    pub(crate) left_at: Instant,
}

impl Source {
    /// It said BYE and nothing since.
    pub(crate) fn has_left(&self) -> bool {
        self.left_at >= self.last_at
    }
}

/// Counters of a leg that outlive its routes.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counts {
    pub(crate) packets_in: u64,
    pub(crate) bytes_in: u64,
    /// Sent by routes that are no more, RTCP of our own included.
    pub(crate) packets_out: u64,
    pub(crate) bytes_out: u64,
    pub(crate) dropped: u64,
}

/// An RTP leg. In the order in which it stands here, so that what each packet needs lies in few cache lines side by side:
/// with a thousand calls none of them is in the cache when a packet comes.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct RtpLeg {
    // What the packet loop reads.
    pub(crate) rtp: Port,
    pub(crate) learning: Learning,
    pub(crate) clock: Clock,
    pub(crate) may_send: bool,
    pub(crate) captured: bool,
    /// Each target is sent to by itself: the leg or one that its routes lead to has keys, or keeps what it is sent.
    pub(crate) guarded: bool,
    /// The leg or one that its routes lead to has ids of its own for header extensions.
    pub(crate) renames: bool,
    /// RTCP ends here; else it passes along the relay routes.
    pub(crate) terminates: bool,
    /// Some path has the leg as a source.
    pub(crate) led: bool,
    pub(crate) level_id: u8,
    /// Over its bandwidth nothing passes.
    pub(crate) policed: bool,
    /// What it is sent is kept for a while (`repair`).
    pub(crate) kept: bool,
    /// Its peer is told when its packets came (`wide`).
    pub(crate) timed: bool,
    /// Other legs may ride on its transport (`bundle`).
    pub(crate) bundled: bool,
    /// Somebody below relays what its peer sends (`offload`).
    pub(crate) offloaded: bool,
    /// Keys: nothing passes in clear.
    pub(crate) guard: Option<Box<Guard>>,
    pub(crate) sources: Vec<Source>,
    /// Targets by mode.
    pub(crate) relays: Vec<Route>,
    pub(crate) fans: Vec<Route>,
    /// What else becomes of its packets.
    pub(crate) parts: Vec<Part>,
    pub(crate) last_at: Instant,
    pub(crate) counts: Counts,
    /// Payload types that the peer may send; `None`: all.
    pub(crate) accepts: Option<u128>,
    /// What we send to it as ourselves; feeds the first slot that leads here, if there is one.
    pub(crate) stream: Stream,

    // What only some modes, RTCP and control read.
    /// Streams of further slots that lead here.
    pub(crate) more: Vec<Stream>,
    /// Legs that get a copy of all.
    pub(crate) taps: Vec<Route>,
    /// What its peer calls header extensions; `None`: as the context does.
    pub(crate) extensions: Option<Box<ExtensionIds>>,
    /// Peer's payload types whose key frames can be told from others.
    pub(crate) codecs: Vec<(u8, VideoCodec)>,
    pub(crate) key: LegKey,
    pub(crate) serial: u64,
    pub(crate) unseen: bool,
    pub(crate) mux: bool,
    pub(crate) rtcp: Option<Port>,
    /// Legs whose fans lead here.
    pub(crate) feeders: Vec<u32>,
    /// Sockets of relay targets for RTCP.
    pub(crate) relays_rtcp: Vec<(u32, SocketId)>,
    pub(crate) may_receive: bool,
    pub(crate) local: SocketAddr,
    pub(crate) video: bool,
    pub(crate) cname: String,
    pub(crate) silence_ms: u32,
    /// Peer's payload type to the context's.
    pub(crate) payloads: Vec<(u8, u8)>,
    pub(crate) talk: Box<Talk>,
    pub(crate) repair: Option<Box<Repair>>,
    pub(crate) police: Option<Box<Police>>,
    /// Copies of what its peer sends go to the spool by themselves.
    pub(crate) recorded: bool,
    /// Its whole context is captured.
    pub(crate) traced: bool,
    pub(crate) reports_run: bool,
    pub(crate) silent: bool,
    pub(crate) since: Instant,
    /// When it was put first.
    pub(crate) begun: Instant,
    pub(crate) watched: bool,
    /// Sources that its peer has ever sent under.
    pub(crate) sources_ever: usize,
    /// It is being removed.
    pub(crate) going: bool,
    /// The row on whose transport it rides; its own: [`super::NONE`].
    pub(crate) carrier: u32,
    /// ICE and DTLS of a WebRTC peer.
    pub(crate) web: Option<Box<Web>>,
    /// Keys that it had before.
    pub(crate) spent: Option<Box<Spent>>,
    /// Packets of its peer that it was not told of yet.
    pub(crate) wide: Option<Box<Wide>>,
    /// What copies to it are called, where it is a tap with keys.
    pub(crate) names: Option<Box<Names>>,
    /// Its context is on several shards.
    pub(crate) spread: Option<Box<Spread>>,
    /// What is known of the flow that somebody below relays.
    pub(crate) offload: Option<Box<Offload>>,
    pub(crate) not_offered_until: Instant,
}

impl RtpLeg {
    /// A source is gone; what it counted stays.
    pub(crate) fn forget_source(&mut self, at: usize) {
        let gone = self.sources.swap_remove(at);
        self.talk.heard.add(&gone.reception);
    }

    /// The sources that have not said BYE.
    pub(crate) fn present(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter().filter(|source| !source.has_left())
    }

    /// Where RTCP for this leg goes out, once its peer is known.
    pub(crate) fn rtcp_out(&self) -> Option<SocketId> {
        match &self.rtcp {
            Some(port) if !self.mux => port.peer.map(|_| port.socket),
            _ => self.rtp.peer.map(|_| self.rtp.socket),
        }
    }

    /// Whether RTP may go out to this leg.
    pub(crate) fn hears(&self) -> bool {
        self.may_receive && self.rtp.peer.is_some() && self.guard.as_ref().is_none_or(|g| g.sends())
    }

    /// The streams that we send to it as ourselves.
    pub(crate) fn streams(&self) -> impl Iterator<Item = &Stream> {
        std::iter::once(&self.stream).chain(&self.more)
    }

    /// One of them by its number.
    #[inline]
    pub(crate) fn stream_mut(&mut self, number: u8) -> Option<&mut Stream> {
        match number.checked_sub(1) {
            None => Some(&mut self.stream),
            Some(more) => self.more.get_mut(usize::from(more)),
        }
    }

    /// Whether a packet of its peer begins a key frame; `None`: that cannot be told.
    pub(crate) fn begins_key_frame(&self, view: &RtpView<'_>) -> Option<bool> {
        let of = |codec: &&(u8, VideoCodec)| codec.0 == view.payload_type();
        self.codecs.iter().find(of).map(|(_, codec)| codec.begins_key_frame(view.payload()))
    }

    /// The context's payload type for what the peer calls `payload`; `None`: not agreed.
    #[inline]
    pub(crate) fn to_context(&self, payload: u8) -> Option<u8> {
        if self.payloads.is_empty() {
            return Some(payload);
        }
        self.payloads.iter().find(|(peer, _)| *peer == payload).map(|(_, context)| *context)
    }

    /// What the peer calls the context's payload type; `None`: not agreed.
    #[inline]
    pub(crate) fn to_peer(&self, payload: u8) -> Option<u8> {
        if self.payloads.is_empty() {
            return Some(payload);
        }
        self.payloads.iter().find(|(_, context)| *context == payload).map(|(peer, _)| *peer)
    }
}
