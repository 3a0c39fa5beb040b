//! A media line of a peer's description and the leg towards it.
//! MSRP for messages in sessions, RTP and RTCP for continuous media (REQ-IF-CONV-08).

use std::net::IpAddr;

use base::Entropy;
use bytes::Bytes;
use contract::{Direction, Learning, Leg, MsrpLeg, MsrpLocal, RtpLeg, RtpLocal, leg};
use sdp::{
    Anchor, Body, Fingerprint, Host, Limits, MediaLine, MessageAnchor, Proto, Role, RtpAnchor, Session, Setup,
};

use super::{srtp, webrtc};
use crate::Config;
use crate::config::Media;
use crate::turn::Turn;

/// Reads a description; the error is the SIP status.
pub(crate) fn read(config: &Config, octets: &Bytes) -> Result<Session, u16> {
    let limits = Limits { media_max: config.limits.media_lines_max, ..Limits::default() };
    Session::parse(octets, &limits).map_err(|fault| fault.sip_status())
}

/// Reads a description that a peer has just sent; one that does not parse is counted.
pub(crate) fn hear(turn: &mut Turn<'_>, octets: &Bytes) -> Result<Session, u16> {
    let read = read(turn.config(), octets);
    turn.desk.counters.descriptions_malformed += u64::from(read.is_err());
    read
}

/// True for lines that the data plane can take: RTP, plain or with keys that we take, and MSRP over TCP or TLS.
pub(crate) fn is_anchorable(config: &Config, line: &MediaLine) -> bool {
    let taken = match &line.body {
        Body::Rtp(_) if line.proto.is_sdes() => srtp::takes(&config.media, line),
        Body::Rtp(_) if line.proto.is_dtls() => webrtc::takes(&config.media, line),
        Body::Rtp(_) => matches!(line.proto, Proto::RtpAvp | Proto::RtpAvpf),
        Body::Message(_) => line.proto.is_msrp(),
        Body::Other(_) => false,
    };
    taken && !line.is_refused()
}

/// The contract's word for a line.
pub(crate) fn name(line: &MediaLine) -> &str {
    if line.proto.is_msrp() { "msrp" } else { line.kind.as_str() }
}

/// True for a leg over MSRP.
pub(crate) fn is_msrp(leg: &Leg) -> bool {
    matches!(leg.kind, Some(leg::Kind::Msrp(_)))
}

/// Who the peer of a leg is: its number, and what is known about it before it has said a word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) leg: u64,
    /// It is registered by WebSocket.
    pub(crate) browser: bool,
}

/// A leg for such a line, its peer not known yet.
pub(crate) fn blank_leg(
    config: &Config,
    entropy: &mut Entropy,
    line: &MediaLine,
    context: u64,
    peer: Peer,
    media: String,
) -> Leg {
    let (dtls, ice) = webrtc::wanted(&config.media, line, peer.browser, entropy).unzip();
    let kind = match &line.body {
        Body::Rtp(rtp) => leg::Kind::Rtp(RtpLeg {
            local: Some(RtpLocal::default()),
            // A browser takes nothing else; a phone need not know it because a browser does.
            rtcp_mux: dtls.is_some() || (rtp.rtcp_mux && !line.proto.is_dtls()),
            learning: Learning::from(config.media.latching).into(),
            learning_ms: config.media.learning_ms,
            clock_rate: rtp.formats.first().map_or(8000, |f| f.codec.clock),
            media_timeout_ms: config.media.rtp_timeout_ms,
            video: line.kind == sdp::Kind::Video,
            srtp: if dtls.is_some() { None } else { srtp::wanted(&config.media, line) },
            dtls: dtls.map(Box::new),
            ice: ice.map(Box::new),
            ..RtpLeg::default()
        }),
        _ => leg::Kind::Msrp(MsrpLeg {
            local: Some(MsrpLocal::default()),
            tls: line.proto == Proto::MsrpTls,
            max_size: config.media.msrp_max_bytes,
            ..MsrpLeg::default()
        }),
    };
    Leg { id: peer.leg, context, media, kind: Some(kind), ..Leg::default() }
}

/// The address of one host: where media may go. A group's or a network's is none (one datagram would be many), and 0.0.0.0
/// says that there is none yet.
pub(crate) fn one_host(host: &Host) -> Option<IpAddr> {
    let is_all = |ip: &IpAddr| matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    host.ip().filter(|ip| {
        let ip = ip.to_canonical();
        !(ip.is_unspecified() || ip.is_multicast() || is_all(&ip))
    })
}

/// Puts what a peer's line says into the leg towards it; `role` is ours on a message line.
pub(crate) fn meet(leg: &mut Leg, line: &MediaLine, role: Role) {
    leg.direction = direction(line.effective_direction()).into();
    let ip = line.host.as_ref().and_then(one_host);
    let socket = ip.map(|ip| std::net::SocketAddr::new(ip, line.port));
    match (&mut leg.kind, &line.body) {
        (Some(leg::Kind::Rtp(own)), Body::Rtp(rtp)) => {
            own.remote = socket.map(Into::into);
            own.rtcp_mux = rtp.rtcp_mux && own.rtcp_mux;
            own.remote_rtcp = socket.map(|mut addr| {
                // RFC 5761 §5.1.1: on one port only where both sides said so.
                let port = match (&rtp.rtcp, own.rtcp_mux) {
                    (_, true) => line.port,
                    (Some(rtcp), _) => rtcp.port,
                    (None, false) => line.port.saturating_add(1),
                };
                addr.set_port(port);
                Box::new(addr.into())
            });
            if let Some(format) = rtp.formats.first() {
                own.clock_rate = format.codec.clock;
                own.rtcp.get_or_insert_default().codec.clone_from(&format.codec.name);
            }
        }
        (Some(leg::Kind::Msrp(own)), Body::Message(message)) => {
            own.remote_path = message.path.split_ascii_whitespace().map(str::to_owned).collect();
            own.connect = socket.map(Into::into);
            own.setup = match role {
                Role::Active => contract::Setup::Active,
                Role::Passive => contract::Setup::Passive,
            }
            .into();
            own.tls = line.proto == Proto::MsrpTls;
            own.fingerprint = line
                .fingerprints
                .iter()
                .find(|f| f.hash == "SHA-256")
                .map(|f| f.octets.clone())
                .unwrap_or_default();
            own.accept_types.clone_from(&message.accept_types);
            own.accept_wrapped_types.clone_from(&message.accept_wrapped_types);
            own.max_size = message.max_size.unwrap_or(own.max_size);
        }
        _ => {}
    }
}

/// Holds what the peer of a leg sends to what it was told that it may (b=AS, b=TIAS in a line that it was sent), with the
/// configured headroom.
pub(crate) fn grant(leg: &mut Leg, told: &MediaLine, config: &Media) {
    if let Some(leg::Kind::Rtp(rtp)) = &mut leg.kind {
        rtp.bandwidth_kbps = told.bandwidth_kbps().map_or(0, |kbps| config.policed_kbps(kbps));
    }
}

/// A message leg whose connection is gone: another session, nobody at the other end yet.
pub(crate) fn disconnected(mut leg: Leg) -> Leg {
    if let Some(leg::Kind::Msrp(msrp)) = &mut leg.kind {
        msrp.local = Some(MsrpLocal::default());
        msrp.remote_path.clear();
        msrp.connect = None;
        msrp.setup = contract::Setup::Passive.into();
    }
    leg
}

/// True for a message leg whose other end is not known.
pub(crate) fn is_unmet(leg: &Leg) -> bool {
    matches!(&leg.kind, Some(leg::Kind::Msrp(msrp)) if msrp.remote_path.is_empty())
}

/// The peer's direction in the contract's words.
pub(crate) const fn direction(direction: sdp::Direction) -> Direction {
    match direction {
        sdp::Direction::SendRecv => Direction::Sendrecv,
        sdp::Direction::SendOnly => Direction::Sendonly,
        sdp::Direction::RecvOnly => Direction::Recvonly,
        sdp::Direction::Inactive => Direction::Inactive,
    }
}

/// What we say about connecting when we answer that line: passive whenever the peer can be active, because
/// we are reachable (RFC 6135 §4.2.2).
pub(crate) fn setup_answering(offer: &MediaLine) -> Option<Setup> {
    match offer.setup {
        Some(Setup::Passive) => Some(Setup::Active),
        Some(_) => Some(Setup::Passive),
        // RFC 4975 alone: the offerer is active, and knows no a=setup.
        None => None,
    }
}

/// Our role when we answer that line.
pub(crate) fn answering(offer: &MediaLine) -> Role {
    if setup_answering(offer) == Some(Setup::Active) { Role::Active } else { Role::Passive }
}

/// Our role in a leg as it stands.
pub(crate) fn role(leg: &Leg) -> Role {
    match &leg.kind {
        Some(leg::Kind::Msrp(msrp)) if msrp.setup() == contract::Setup::Active => Role::Active,
        _ => Role::Passive,
    }
}

/// Our end of a leg as the data plane has placed it, with our keys where it has any.
pub(crate) fn local(
    leg: &Leg,
    setup: Option<Setup>,
    fingerprint: &[u8],
    keys: impl FnOnce(&RtpLeg) -> Option<(Vec<sdp::Crypto>, Option<sdp::DtlsEnd>)>,
) -> Option<Anchor> {
    match leg.kind.as_ref()? {
        leg::Kind::Rtp(rtp) => {
            let local = rtp.local.as_ref()?;
            let addr = local.advertised.as_ref().or(local.bound.as_ref())?.socket()?;
            let rtcp_port = u16::try_from(local.rtcp_port).ok().filter(|p| *p != 0 && *p != addr.port() + 1);
            let (crypto, dtls) = keys(rtp)?;
            Some(Anchor::Rtp(RtpAnchor {
                host: addr.ip().into(),
                port: addr.port(),
                rtcp_mux: rtp.rtcp_mux,
                rtcp_port,
                crypto,
                dtls,
            }))
        }
        leg::Kind::Msrp(msrp) => {
            let local = msrp.local.as_ref()?;
            let addr = local.advertised.as_ref()?.socket()?;
            let digest = <[u8; 32]>::try_from(fingerprint).ok().filter(|_| msrp.tls);
            (!local.path.is_empty()).then(|| {
                Anchor::Message(MessageAnchor {
                    host: addr.ip().into(),
                    port: addr.port(),
                    path: local.path.clone(),
                    setup,
                    tls: msrp.tls,
                    fingerprint: digest.map(Fingerprint::sha256),
                    cema: false,
                })
            })
        }
    }
}

/// The address for the o= line.
pub(crate) fn host_of(description: &Session) -> Host {
    let first = description.lines.iter().find_map(|l| l.host.clone());
    first.or_else(|| description.host.clone()).unwrap_or(Host::Ip(std::net::Ipv4Addr::LOCALHOST.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Hostile reading 4, finding 8.
    #[test]
    fn media_goes_to_one_host() {
        for (host, goes) in [
            ("IN IP4 192.0.2.1", true),
            ("IN IP6 2001:db8::1", true),
            ("IN IP4 0.0.0.0", false),
            ("IN IP4 239.1.2.3", false),
            ("IN IP4 255.255.255.255", false),
            ("IN IP6 ff02::1", false),
            ("IN IP6 ::ffff:239.1.2.3", false),
        ] {
            let text = format!(
                "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc={host}\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
            );
            let said = Session::parse(text.as_bytes(), &Limits::default()).unwrap();
            let kind = Some(leg::Kind::Rtp(RtpLeg::default()));
            let mut leg = Leg { kind, ..Leg::default() };
            meet(&mut leg, said.lines.first().unwrap(), Role::Passive);
            let Some(leg::Kind::Rtp(own)) = leg.kind else { panic!("an RTP leg stays one") };
            assert_eq!((own.remote.is_some(), own.remote_rtcp.is_some()), (goes, goes), "{host}");
        }
    }

    #[test]
    fn rtcp_goes_to_the_media_port_only_where_both_sides_said_mux() {
        // RFC 5761 §5.1.1, RFC 3605 §2.1.
        for (ours, lines, port) in [
            (true, "a=rtcp-mux\r\n", 4000),
            (true, "a=rtcp-mux\r\na=rtcp:4010\r\n", 4000),
            (false, "a=rtcp-mux\r\n", 4001),
            (false, "a=rtcp-mux\r\na=rtcp:4010\r\n", 4010),
            (true, "", 4001),
            (true, "a=rtcp:4010\r\n", 4010),
        ] {
            let text = format!(
                "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n{lines}"
            );
            let said = Session::parse(text.as_bytes(), &Limits::default()).unwrap();
            let own = RtpLeg { rtcp_mux: ours, ..RtpLeg::default() };
            let mut leg = Leg { kind: Some(leg::Kind::Rtp(own)), ..Leg::default() };
            meet(&mut leg, said.lines.first().unwrap(), Role::Passive);
            let Some(leg::Kind::Rtp(own)) = leg.kind else { panic!("an RTP leg stays one") };
            assert_eq!(own.remote_rtcp.map(|at| at.port), Some(port), "{ours} {lines}");
            assert_eq!(own.rtcp_mux, ours && lines.starts_with("a=rtcp-mux"));
        }
    }
}
