//! A peer's media line as a leg of the room.

use std::net::SocketAddr;

use contract::{
    Address, ExtensionMap, Extensions, Leg, MsrpLeg, PayloadMap, RtcpAgreed, RtpLeg, Setup as Role,
    VideoCodec, leg,
};
use sdp::{Direction, Format, Host, MediaLine, Message, Proto, Rtp};

use super::config::Medium;
use super::offer::{FEEDBACK, REPORTS, Terms, numbers};
use super::room::Room;
use crate::media::one_host;

/// The loudness of a source, by which a speaker is selected (RFC 6464). The only header extension that we take; it passes
/// to those who agreed to it, under the number that each has for it.
pub(super) const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
/// The context's number for it.
const AUDIO_LEVEL_ID: u32 = 1;

/// Writes a peer's line into its leg, and orders the leg.
pub(super) fn attach(room: &mut Room, terms: &Terms<'_>, mut leg: Leg, line: &MediaLine, active: bool) {
    leg.direction = direction(line.effective_direction()).into();
    match &mut leg.kind {
        Some(leg::Kind::Msrp(msrp)) => attach_msrp(msrp, line, active),
        Some(leg::Kind::Rtp(rtp)) => {
            let medium = if rtp.video { Medium::Video } else { Medium::Audio };
            attach_rtp(rtp, terms, line, room.line(medium).map(|l| l.formats.as_slice()).unwrap_or_default());
        }
        None => {}
    }
    room.anchor.put_leg(leg);
}

pub(super) fn attach_msrp(msrp: &mut MsrpLeg, line: &MediaLine, active: bool) {
    let Some(message) = line.message() else { return };
    msrp.away = false;
    msrp.remote_path = message.path.split_whitespace().map(str::to_owned).collect();
    msrp.setup = if active { Role::Active } else { Role::Passive }.into();
    msrp.connect = active.then(|| connect_to(line, message)).flatten();
    msrp.tls = line.proto == Proto::MsrpTls;
    msrp.fingerprint = sha256(line).unwrap_or_default();
    msrp.accept_types.clone_from(&message.accept_types);
    msrp.accept_wrapped_types.clone_from(&message.accept_wrapped_types);
    msrp.max_size = message.max_size.unwrap_or(0);
    msrp.private_messages = message.chatroom.as_ref().is_some_and(|c| c.private_messages);
}

/// RFC 6714 §4.2: with CEMA the connection goes to c= and m=, else to the first URI of the path, which says the
/// same for a peer without relays.
fn connect_to(line: &MediaLine, message: &Message) -> Option<Address> {
    let named = message.path.split_whitespace().next().and_then(|uri| {
        let authority = uri.split_once("://")?.1.split(['/', ';']).next()?;
        authority.rsplit('@').next()?.parse::<SocketAddr>().ok()
    });
    let by_lines = line.host.as_ref().and_then(Host::ip).map(|ip| SocketAddr::new(ip, line.port));
    let chosen = if message.cema { by_lines.or(named) } else { named.or(by_lines) };
    chosen.map(Address::from)
}

fn sha256(line: &MediaLine) -> Option<Vec<u8>> {
    line.fingerprints.iter().find(|f| f.hash == "SHA-256").map(|f| f.octets.clone())
}

fn attach_rtp(leg: &mut RtpLeg, terms: &Terms<'_>, line: &MediaLine, formats: &[Format]) {
    let Some(rtp) = line.rtp() else { return };
    let ip = line.host.as_ref().and_then(one_host);
    if let Some(ip) = ip {
        leg.remote = Some(SocketAddr::new(ip, line.port).into());
        leg.rtcp_mux = rtp.rtcp_mux;
        let rtcp = rtp.rtcp.as_ref();
        let port = rtcp.map_or(line.port.saturating_add(1), |r| r.port);
        let host = rtcp.and_then(|r| r.host.as_ref()).and_then(one_host).unwrap_or(ip);
        leg.remote_rtcp = (!rtp.rtcp_mux).then(|| Box::new(SocketAddr::new(host, port).into()));
    }
    leg.learning = contract::Learning::from(terms.media.latching).into();
    leg.learning_ms = terms.media.learning_ms;
    leg.media_timeout_ms = terms.media.rtp_timeout_ms;
    let medium = if leg.video { Medium::Video } else { Medium::Audio };
    leg.bandwidth_kbps = terms.controlling.kbps(medium).map_or(0, |kbps| terms.media.policed_kbps(kbps));
    leg.payloads = formats
        .iter()
        .filter_map(|ours| {
            let theirs = rtp.formats.iter().find(|f| f.codec.matches(&ours.codec))?;
            let codec = video_codec(&ours.codec.name).into();
            Some(PayloadMap { peer: theirs.payload.into(), context: ours.payload.into(), codec })
        })
        .collect();
    let level = rtp.extensions.iter().find(|e| e.uri == AUDIO_LEVEL && !leg.video);
    leg.audio_level_id = level.map_or(0, |e| u32::from(e.id)).min(255);
    let peer = leg.audio_level_id;
    let ids = (peer != 0).then_some(ExtensionMap { peer, context: AUDIO_LEVEL_ID }).into_iter().collect();
    leg.extensions = Some(Box::new(Extensions { ids }));
    let main = leg.payloads.first().and_then(|p| formats.iter().find(|f| u32::from(f.payload) == p.context));
    leg.clock_rate = main.map_or(8000, |f| f.codec.clock);
    let mut agreed = rtcp_agreed(rtp, main.map_or("", |f| f.codec.name.as_str()));
    if let Some(id) = numbers(rtp).filter(|id| leg.video && (1..=255).contains(id)) {
        (agreed.transport_wide, agreed.transport_wide_id) = (true, id.into());
    }
    leg.rtcp = Some(Box::new(agreed));
}

/// What is agreed of RTCP: what the peer named and we take. (What it answers of an offer of ours is a part of that.)
fn rtcp_agreed(rtp: &Rtp, codec: &str) -> RtcpAgreed {
    let takes = |what: &str| FEEDBACK.contains(&what) && rtp.feedback.iter().any(|fb| fb.value == what);
    RtcpAgreed {
        nack: takes("nack"),
        pli: takes("nack pli"),
        fir: takes("ccm fir"),
        tmmbr: takes("ccm tmmbr"),
        remb: takes("goog-remb"),
        // Both ways alike: it has offered it and we answer so, or it answers so to an offer of ours.
        reduced: rtp.rtcp_rsize,
        extended: REPORTS.iter().any(|name| rtp.reports(name)),
        codec: codec.to_owned(),
        ..RtcpAgreed::default()
    }
}

/// Whose key frames the data plane can tell from others.
fn video_codec(name: &str) -> VideoCodec {
    let known = [
        ("VP8", VideoCodec::Vp8),
        ("H264", VideoCodec::H264),
        ("VP9", VideoCodec::Vp9),
        ("H265", VideoCodec::H265),
    ];
    let found = known.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map_or(VideoCodec::Unspecified, |(_, codec)| codec)
}

const fn direction(of_peer: Direction) -> contract::Direction {
    match of_peer {
        Direction::SendRecv => contract::Direction::Sendrecv,
        Direction::SendOnly => contract::Direction::Sendonly,
        Direction::RecvOnly => contract::Direction::Recvonly,
        Direction::Inactive => contract::Direction::Inactive,
    }
}
