//! Session descriptions of a focus: what an offer brings into the room, our answers, our offers, and what a
//! peer's answer comes to (RFC 3264, RFC 4975 §8, RFC 6135, RFC 7701 §5, §8; REQ-CF-11, REQ-CF-16).
//!
//! ```text
//!   peer offers:  take_offer ──legs──▶ data plane ──placements──▶ answer
//!   we offer:     reserve    ──legs──▶ data plane ──placements──▶ offer ··· take_answer ──legs──▶ data plane
//! ```

use std::net::{IpAddr, Ipv4Addr};

use base::Entropy;
use contract::{Leg, leg};
use sdp::{
    Accept, AcceptBody, AcceptMessage, AcceptRtp, Bandwidth, Body, Chatroom, Choice, Crypto, Direction,
    DtlsEnd, Extension, Fingerprint, Format, Host, Kind, MediaLine, Message, Origin, Proto, Rtp, Session,
    Setup, Stamp,
};

use super::attach::{AUDIO_LEVEL, attach};
use super::config::{Controlling, Medium, Plain};
use super::room::{Chatter, Line, Room, Strand};
use crate::config::Media;
use crate::media::{Anchor, bundle, srtp, webrtc};

/// The only type that comes bare into a room (RFC 7701 §5.2).
const CPIM: &str = "message/cpim";

/// What descriptions depend on besides the room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms<'a> {
    pub(crate) controlling: &'a Controlling,
    pub(crate) media: &'a Media,
    /// SHA-256 of the certificate that the data plane shows.
    pub(crate) fingerprint: Option<[u8; 32]>,
    /// The same for DTLS handshakes.
    pub(crate) dtls_fingerprint: Option<[u8; 32]>,
    /// Media that this conference may have.
    pub(crate) allowed: &'a [Medium],
}

/// The descriptions of one session with a participant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Talk {
    /// The media lines, in order.
    pub(crate) strands: Vec<Strand>,
    /// Puts the o= line on what we send.
    pub(crate) stamp: Option<Stamp>,
    /// The peer's last description.
    pub(crate) peer: Option<Session>,
}

impl Talk {
    /// Reads a peer's offer into the room: legs for what we take. An error is a SIP status; nothing is
    /// changed then.
    pub(crate) fn take_offer(
        &mut self,
        room: &mut Room,
        terms: &Terms<'_>,
        who: &Chatter,
        own: &[String],
        offer: Session,
        keys: &mut Entropy,
    ) -> Result<(), u16> {
        if let Some(before) = &self.peer {
            sdp::check_next_offer(before, &offer).map_err(|e| e.sip_status())?;
        }
        let torn = |(at, strand): (usize, &Strand)| {
            let used = offer.lines.get(at).is_some_and(|line| !line.is_refused());
            used && strand.leg != 0 && bundle::is_torn(&room.anchor, &offer, at, strand.leg)
        };
        if self.strands.iter().enumerate().any(torn) {
            return Err(488);
        }
        let plan: Vec<Option<Medium>> = offer.lines.iter().map(|line| takes(room, terms, line)).collect();
        if plan.iter().all(Option::is_none) {
            return Err(488);
        }
        self.strands.resize_with(offer.lines.len(), Strand::default);
        let mut seen = Vec::new();
        for ((line, medium), strand) in offer.lines.iter().zip(plan).zip(&mut self.strands) {
            // One line of each medium: a second chat in one session would hear itself.
            let medium = medium.filter(|m| !seen.contains(m));
            seen.extend(medium);
            if strand.medium != medium && strand.leg != 0 {
                room.anchor.remove_leg(strand.leg);
                *strand = Strand::default();
            }
            let Some(medium) = medium else { continue };
            if room.line(medium).is_none() {
                let formats =
                    line.rtp().map(|rtp| agreed_formats(terms.controlling, medium, rtp)).unwrap_or_default();
                room.open(terms.controlling, medium, formats, own.to_vec());
            }
            strand.medium = Some(medium);
            strand.plain = is_plain(terms.controlling, &offer, line);
            let moved = strand.leg != 0 && path_changed(room, strand.leg, line);
            if moved {
                // RFC 4975 §8.4: a new path is a new session, with a leg of its own.
                room.anchor.remove_leg(strand.leg);
                strand.leg = 0;
            }
            let known = room.anchor.leg(strand.leg).cloned();
            let mut leg = known.unwrap_or_else(|| room.new_leg(medium, who));
            strand.leg = leg.id;
            srtp::offered(&mut leg, line, terms.media, keys);
            webrtc::offered(&mut leg, line, keys);
            // We wait where the peer leaves it to us (RFC 6135 §4.2.2).
            let active = Setup::answered(line.setup, true) == Some(Setup::Active);
            attach(room, terms, leg, line, active);
        }
        bundle::share(&mut room.anchor, &offer, &self.legs(), |leg, tagged| {
            if let Some(line) = offer.lines.get(tagged) {
                webrtc::offered(leg, line, keys);
            }
        });
        self.peer = Some(offer);
        Ok(())
    }

    /// Our answer to the offer taken last; `None` while the data plane has not said where the legs are.
    pub(crate) fn answer(&mut self, room: &Room, terms: &Terms<'_>, fresh: Origin) -> Option<Session> {
        let offer = self.peer.as_ref()?;
        let strands = &self.strands;
        let mut placed = true;
        let host = self.stamp.as_ref().map_or_else(|| own_host(room, strands), |s| s.host().clone());
        let mut answer = sdp::answer(offer, fresh.clone(), host, |at, line| {
            let Some((strand, medium)) = strands.get(at).and_then(|s| Some((s, s.medium?))) else {
                return Choice::Refuse;
            };
            let accept = accepted(room, terms, strand, medium, line);
            placed &= accept.is_some();
            accept.map_or(Choice::Refuse, Choice::accept)
        });
        if !placed {
            return None;
        }
        bundle::write(&room.anchor, &mut answer, &self.legs(), Some(offer));
        Some(self.stamped(answer, fresh))
    }

    /// The legs by line, 0 for none.
    fn legs(&self) -> Vec<u64> {
        self.strands.iter().map(|strand| strand.leg).collect()
    }

    /// Its legs, with those on whose transports they ride.
    pub(crate) fn all_legs(&self, anchor: &Anchor) -> Vec<u64> {
        let mut all: Vec<u64> = self.legs().into_iter().filter(|id| *id != 0).collect();
        let carriers = all.iter().filter_map(|id| anchor.leg(*id).and_then(bundle::rides_on));
        let carriers: Vec<u64> = carriers.filter(|id| !all.contains(id)).collect();
        all.extend(carriers);
        all
    }

    /// Legs for the lines of our own offer, where there are none yet.
    pub(crate) fn prepare_offer(&mut self, room: &mut Room, who: &Chatter) {
        if self.strands.is_empty() {
            self.strands =
                room.lines.iter().map(|l| Strand { medium: Some(l.medium), ..Strand::default() }).collect();
        }
        for strand in &mut self.strands {
            if let Some(medium) = strand.medium.filter(|_| strand.leg == 0) {
                let leg = room.new_leg(medium, who);
                strand.leg = leg.id;
                room.anchor.put_leg(leg);
            }
        }
    }

    /// Legs for every line of the room; for its chat the one that waits for the member, if there is one.
    pub(crate) fn prepare_invitation(&mut self, room: &mut Room, who: &Chatter, waiting: Option<u64>) {
        let strand = |line: &Line| {
            let leg = waiting.filter(|_| line.medium == Medium::Message).unwrap_or(0);
            Strand { medium: Some(line.medium), leg, ..Strand::default() }
        };
        self.strands = room.lines.iter().map(strand).collect();
        self.prepare_offer(room, who);
    }

    /// Our offer; `None` while the data plane has not said where the legs are.
    pub(crate) fn offer(&mut self, room: &Room, terms: &Terms<'_>, fresh: Origin) -> Option<Session> {
        let mut offer = Session::new(fresh.clone());
        let host = self.stamp.as_ref().map_or_else(|| own_host(room, &self.strands), |s| s.host().clone());
        offer.host = Some(host);
        for (at, strand) in self.strands.iter().enumerate() {
            let line = match strand.medium {
                Some(medium) => {
                    let mut line = offered(room, terms, strand.leg, medium)?;
                    // Whoever answers with the mid knows more than one stream (RFC 5888 §9); a mid stays.
                    line.mid = match self.peer.as_ref().and_then(|p| p.lines.get(at)) {
                        Some(before) => before.mid.clone(),
                        None => Some(label(medium).to_owned()),
                    };
                    line
                }
                // A place once used is never taken away (RFC 3264 §8).
                None => self.peer.as_ref().and_then(|p| p.lines.get(at)).map(MediaLine::refused)?,
            };
            offer = offer.with(line);
        }
        bundle::write(&room.anchor, &mut offer, &self.legs(), None);
        Some(self.stamped(offer, fresh))
    }

    /// What the peer's answer to our last offer comes to. An error is the status that a refused session
    /// would have.
    pub(crate) fn take_answer(
        &mut self,
        room: &mut Room,
        terms: &Terms<'_>,
        answer: Session,
    ) -> Result<(), u16> {
        let mut offer = self.stamp.as_ref().and_then(Stamp::last).ok_or(488_u16)?.clone();
        offer.resolve_bundle();
        sdp::check_answer(&offer, &answer).map_err(|e| e.sip_status())?;
        if answer.lines.iter().all(MediaLine::is_refused) {
            return Err(488);
        }
        let lines = answer.lines.iter().zip(&offer.lines);
        for ((line, ours), strand) in lines.zip(&mut self.strands) {
            if line.is_refused() || !speaks_cpim(line) {
                if strand.leg != 0 {
                    room.anchor.remove_leg(strand.leg);
                }
                *strand = Strand::default();
                continue;
            }
            let Some(mut leg) = room.anchor.leg(strand.leg).cloned() else { continue };
            srtp::answered(&mut leg, ours, line);
            webrtc::answered(&mut leg, ours, line);
            strand.plain = is_plain(terms.controlling, &answer, line);
            let active = line.message().is_some() && sdp::message_role(ours, line) == sdp::Role::Active;
            attach(room, terms, leg, line, active);
        }
        if self.strands.iter().all(|s| s.leg == 0) {
            return Err(488);
        }
        bundle::share(&mut room.anchor, &answer, &self.legs(), |leg, tagged| {
            if let (Some(ours), Some(line)) = (offer.lines.get(tagged), answer.lines.get(tagged)) {
                webrtc::answered(leg, ours, line);
            }
        });
        self.peer = Some(answer);
        Ok(())
    }

    /// Every leg of the session goes.
    pub(crate) fn close(&mut self, room: &mut Room) {
        for strand in &mut self.strands {
            if strand.leg != 0 {
                room.anchor.remove_leg(strand.leg);
            }
            strand.leg = 0;
        }
    }

    /// The strand that a leg belongs to.
    pub(crate) fn strand_of(&mut self, leg: u64) -> Option<&mut Strand> {
        self.strands.iter_mut().find(|s| s.leg == leg && leg != 0)
    }

    /// The media with their directions, as a conference document shows them.
    pub(crate) fn shown(&self) -> impl Iterator<Item = (Medium, Direction)> {
        let peer = self.peer.as_ref();
        self.strands.iter().enumerate().filter_map(move |(at, s)| {
            let direction = peer?.lines.get(at)?.effective_direction();
            Some((s.medium.filter(|_| s.leg != 0)?, direction))
        })
    }

    /// The peer has put everything on hold.
    pub(crate) fn is_held(&self) -> bool {
        self.peer.as_ref().is_some_and(Session::is_held)
    }

    fn stamped(&mut self, session: Session, fresh: Origin) -> Session {
        let host = session.host.clone().unwrap_or_else(|| fresh.host.clone());
        let stamp = self.stamp.get_or_insert_with(|| Stamp::new(Origin { host, ..fresh }));
        stamp.stamp(session)
    }
}

/// What a line of an offer is to the room; `None` refuses it.
fn takes(room: &Room, terms: &Terms<'_>, line: &MediaLine) -> Option<Medium> {
    let medium = match line.kind {
        Kind::Message => Medium::Message,
        Kind::Audio => Medium::Audio,
        Kind::Video => Medium::Video,
        Kind::Other(_) => return None,
    };
    if line.is_refused() || !terms.allowed.contains(&medium) || !terms.controlling.media.contains(&medium) {
        return None;
    }
    let fits = match (&line.body, medium) {
        (Body::Message(message), Medium::Message) => {
            line.proto.is_msrp() && speaks_cpim(line) && message.file.is_none()
        }
        // Keys by a=crypto or by DTLS, or none.
        (Body::Rtp(rtp), Medium::Audio | Medium::Video) => {
            (!line.proto.is_secure() || srtp::takes(terms.media, line) || takes_dtls(terms, line))
                && matches!(line.host, Some(Host::Ip(_)))
                && codecs_fit(room, terms, medium, rtp)
        }
        _ => false,
    };
    fits.then_some(medium)
}

fn takes_dtls(terms: &Terms<'_>, line: &MediaLine) -> bool {
    terms.dtls_fingerprint.is_some() && webrtc::takes(terms.media, line)
}

/// RFC 7701 §5.2: who cannot take message/cpim cannot be in a room.
fn speaks_cpim(line: &MediaLine) -> bool {
    line.message().is_none_or(|m| m.accepts(CPIM))
}

fn codecs_fit(room: &Room, terms: &Terms<'_>, medium: Medium, rtp: &Rtp) -> bool {
    match room.line(medium) {
        Some(Line { formats, .. }) => {
            formats.first().is_some_and(|main| rtp.formats.iter().any(|f| f.codec.matches(&main.codec)))
        }
        None => !agreed_formats(terms.controlling, medium, rtp).is_empty(),
    }
}

/// The codec that the conference speaks: the most preferred of those offered; then its telephone events.
fn agreed_formats(config: &Controlling, medium: Medium, rtp: &Rtp) -> Vec<Format> {
    let preferred = if medium == Medium::Audio { &config.audio_codecs } else { &config.video_codecs };
    let main = preferred
        .iter()
        .find_map(|name| rtp.formats.iter().find(|f| f.codec.name.eq_ignore_ascii_case(name)));
    let Some(main) = main else { return Vec::new() };
    let events = rtp
        .formats
        .iter()
        .find(|f| f.codec.name.eq_ignore_ascii_case("telephone-event") && f.codec.clock == main.codec.clock);
    std::iter::once(main).chain(events).cloned().collect()
}

/// No sign in the description that its writer can play several sources at once.
fn is_plain(config: &Controlling, session: &Session, line: &MediaLine) -> bool {
    match config.plain_phones {
        Plain::Never => false,
        Plain::Always => line.rtp().is_some(),
        Plain::Detect => line.rtp().is_some_and(|rtp| {
            let bundled = session.groups.iter().any(|g| g.semantics.eq_ignore_ascii_case("BUNDLE"));
            line.mid.is_none() && !bundled && rtp.extensions.is_empty() && !line.has("ssrc-group")
        }),
    }
}

fn path_changed(room: &Room, leg: u64, line: &MediaLine) -> bool {
    match (room.anchor.leg(leg).and_then(|l| l.kind.as_ref()), line.message()) {
        (Some(leg::Kind::Msrp(old)), Some(new)) => {
            !old.remote_path.is_empty()
                && !old.remote_path.iter().map(String::as_str).eq(new.path.split_whitespace())
        }
        _ => false,
    }
}

/// How we take a line; `None` while the leg has no place.
fn accepted(
    room: &Room,
    terms: &Terms<'_>,
    strand: &Strand,
    medium: Medium,
    line: &MediaLine,
) -> Option<Accept> {
    let (addr, body) = match medium {
        Medium::Message => {
            let local = room.msrp_local(strand.leg)?;
            let message = our_message(terms, &local.path);
            let body = AcceptMessage {
                path: message.path,
                reachable: true,
                accept_types: message.accept_types,
                accept_wrapped_types: message.accept_wrapped_types,
                max_size: message.max_size,
                cema: message.cema,
                chatroom: message.chatroom,
            };
            (local.advertised.as_ref(), AcceptBody::Message(body))
        }
        Medium::Audio | Medium::Video => {
            let local = room.rtp_local(strand.leg)?;
            let codecs = room.line(medium)?.formats.iter().map(|f| (f.codec.clone(), None)).collect();
            let leg = room.anchor.whole_leg(strand.leg)?;
            let crypto = agreed(&leg, Some(line))?.pop();
            let dtls = dtls_end(&leg, terms, true)?;
            let bandwidth_kbps = terms.controlling.kbps(medium);
            let mut own = our_rtp(&leg, local.rtcp_port);
            if medium == Medium::Video && line.rtp().and_then(numbers).is_some() {
                own.feedback.push(TRANSPORT_CC.to_owned());
                own.extensions.push(TRANSPORT_WIDE.to_owned());
            }
            let body = AcceptRtp { codecs, codecs_max: 1, crypto, dtls, bandwidth_kbps, ..own };
            (local.advertised.as_ref(), AcceptBody::Rtp(body))
        }
    };
    let addr = addr?.socket()?;
    Some(Accept {
        host: Some(Host::Ip(addr.ip())),
        port: addr.port(),
        direction: Direction::SendRecv,
        fingerprints: fingerprints(terms, line.proto == Proto::MsrpTls),
        label: Some(label(medium).to_owned()),
        body,
    })
}

fn agreed(leg: &Leg, answering: Option<&MediaLine>) -> Option<Vec<Crypto>> {
    match &leg.kind {
        Some(leg::Kind::Rtp(rtp)) => srtp::agreed(rtp, answering),
        _ => Some(Vec::new()),
    }
}

fn dtls_end(leg: &Leg, terms: &Terms<'_>, answering: bool) -> Option<Option<DtlsEnd>> {
    match &leg.kind {
        Some(leg::Kind::Rtp(rtp)) => webrtc::end(rtp, answering, terms.dtls_fingerprint),
        _ => Some(None),
    }
}

/// What a conference's end says and hears by RTCP beside reports, where a peer offers it.
pub(super) const FEEDBACK: [&str; 5] = ["nack", "nack pli", "ccm fir", "ccm tmmbr", "goog-remb"];

/// The same for who numbers his packets (draft-holmer-rmcat-transport-wide-cc-extensions-01 §2). Of one line only, video: the
/// numbers count over all lines that have them.
pub(super) const TRANSPORT_CC: &str = "transport-cc";
pub(super) const TRANSPORT_WIDE: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

/// The id under which a peer numbers his packets, and wants to be told when they came.
pub(super) fn numbers(rtp: &Rtp) -> Option<u16> {
    let asks = rtp.feedback.iter().any(|fb| fb.value == TRANSPORT_CC);
    rtp.extensions.iter().find(|e| e.uri == TRANSPORT_WIDE && asks).map(|e| e.id)
}

/// Extended reports that it takes part in (RFC 3611 §5.1): who sends nothing learns its round trip by them.
pub(super) const REPORTS: [&str; 1] = ["rcvr-rtt"];

fn our_rtp(leg: &Leg, rtcp_port: u32) -> AcceptRtp {
    let mux = matches!(&leg.kind, Some(leg::Kind::Rtp(rtp)) if rtp.rtcp_mux);
    // Who shares a transport names his lines in packets (RFC 9143 §15).
    let mid = bundle::of(leg).map(|_| sdp::MID_URI);
    AcceptRtp {
        rtcp_mux: mux,
        rtcp_port: u16::try_from(rtcp_port).ok().filter(|p| !mux && *p != 0),
        extensions: std::iter::once(AUDIO_LEVEL).chain(mid).map(str::to_owned).collect(),
        feedback: FEEDBACK.map(str::to_owned).to_vec(),
        rtcp_rsize: true,
        reports: REPORTS.map(str::to_owned).to_vec(),
        ..AcceptRtp::default()
    }
}

/// A line of our own offer; `None` while the leg has no place.
fn offered(room: &Room, terms: &Terms<'_>, leg: u64, medium: Medium) -> Option<MediaLine> {
    let mut dtls = None;
    let (addr, mut line) = match medium {
        Medium::Message => {
            let local = room.msrp_local(leg)?;
            let tls = matches!(&room.anchor.leg(leg)?.kind, Some(leg::Kind::Msrp(m)) if m.tls);
            let proto = if tls { Proto::MsrpTls } else { Proto::Msrp };
            let body = Body::Message(our_message(terms, &local.path));
            let mut line = MediaLine::new(Kind::Message, 0, proto, body);
            // Never passive in an offer (RFC 6135 §4.2).
            line.setup = Some(Setup::ActPass);
            line.fingerprints = fingerprints(terms, tls);
            (local.advertised.as_ref()?.socket()?, line)
        }
        Medium::Audio | Medium::Video => {
            let local = room.rtp_local(leg)?;
            let leg = room.anchor.whole_leg(leg)?;
            let own = our_rtp(&leg, local.rtcp_port);
            // A conference offers keys only to who has offered some.
            let crypto = agreed(&leg, None)?;
            dtls = dtls_end(&leg, terms, false)?;
            let proto = match &dtls {
                Some(_) => Proto::DtlsSavpf,
                None => Proto::RtpAvp.with_sdes(!crypto.is_empty()),
            };
            let kind = if medium == Medium::Audio { Kind::Audio } else { Kind::Video };
            let body = Body::Rtp(Rtp {
                formats: room.line(medium)?.formats.clone(),
                rtcp_mux: own.rtcp_mux,
                // RFC 5506 §5: with a profile that has feedback.
                rtcp_rsize: dtls.is_some(),
                rtcp: own.rtcp_port.map(|port| sdp::Rtcp { port, host: None }),
                extensions: audio_level(medium).into_iter().collect(),
                crypto,
                ..Rtp::default()
            });
            (local.advertised.as_ref()?.socket()?, MediaLine::new(kind, 0, proto, body))
        }
    };
    line.host = Some(Host::Ip(addr.ip()));
    line.port = addr.port();
    line.label = Some(label(medium).to_owned());
    line.bandwidths.extend(terms.controlling.kbps(medium).map(Bandwidth::kbps));
    if let Some(dtls) = &dtls {
        line.secure_by_dtls(dtls);
    }
    Some(line)
}

fn audio_level(medium: Medium) -> Option<Extension> {
    let extension = || Extension { id: 1, direction: None, uri: AUDIO_LEVEL.to_owned(), parameters: None };
    (medium == Medium::Audio).then(extension)
}

/// RFC 7701 §5.2, §8: message/cpim alone, everything else within; what the room can.
fn our_message(terms: &Terms<'_>, path: &str) -> Message {
    let config = terms.controlling;
    Message {
        path: path.to_owned(),
        accept_types: vec![CPIM.to_owned()],
        accept_wrapped_types: vec!["*".to_owned()],
        max_size: Some(config.message_max_bytes).filter(|n| *n > 0),
        cema: true,
        chatroom: Some(Chatroom {
            nickname: config.nicknames,
            private_messages: config.private_messages,
            ..Chatroom::default()
        }),
        file: None,
    }
}

fn fingerprints(terms: &Terms<'_>, tls: bool) -> Vec<Fingerprint> {
    terms.fingerprint.filter(|_| tls).map(Fingerprint::sha256).into_iter().collect()
}

/// The labels (RFC 4574) that tie SDP lines to the conference document's media.
pub(crate) const fn label(medium: Medium) -> &'static str {
    match medium {
        Medium::Message => "1",
        Medium::Audio => "2",
        Medium::Video => "3",
    }
}

fn own_host(room: &Room, strands: &[Strand]) -> Host {
    let address = strands.iter().find_map(|s| {
        let rtp = room.rtp_local(s.leg).and_then(|l| l.advertised.as_ref());
        rtp.or_else(|| room.msrp_local(s.leg).and_then(|l| l.advertised.as_ref()))?.socket()
    });
    Host::Ip(address.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |a| a.ip()))
}
