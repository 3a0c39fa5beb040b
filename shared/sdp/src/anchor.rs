//! The same media line with our transport in place of the peer's: what a middlebox writes into the dialog on
//! its other side. Formats, directions, types and unknown attributes pass; addresses, keys and candidates of
//! the peer do not.

use crate::{Body, Crypto, DtlsEnd, Fingerprint, Host, MediaLine, Proto, Rtcp, Session, Setup};

/// Our end of a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Anchor {
    /// For an RTP line.
    Rtp(RtpAnchor),
    /// For a message line.
    Message(MessageAnchor),
}

/// Our end of an RTP line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RtpAnchor {
    /// Our address.
    pub host: Host,
    /// Our port.
    pub port: u16,
    /// RTCP on the media port.
    pub rtcp_mux: bool,
    /// Where we receive RTCP otherwise, when that is not the next port.
    pub rtcp_port: Option<u16>,
    /// Our keys: several in an offer, one in an answer. With any the line is `RTP/SAVP` or `RTP/SAVPF`, with none it is
    /// plain, whatever the peer's is.
    pub crypto: Vec<Crypto>,
    /// With it the line's keys come of a handshake: `UDP/TLS/RTP/SAVPF`, or `SAVP` where the peer's is.
    pub dtls: Option<DtlsEnd>,
}

/// Our end of a message line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MessageAnchor {
    /// Our address.
    pub host: Host,
    /// Our port.
    pub port: u16,
    /// Our a=path.
    pub path: String,
    /// What we say about who connects.
    pub setup: Option<Setup>,
    /// Over TLS: `TCP/TLS/MSRP`.
    pub tls: bool,
    /// The certificate that we show.
    pub fingerprint: Option<Fingerprint>,
    /// a=msrp-cema
    pub cema: bool,
}

/// Attributes that speak about the peer's own transport, or about keys and groups that end at us.
const OF_THE_HOP: [&str; 14] = [
    "candidate",
    "remote-candidates",
    "end-of-candidates",
    "ice-ufrag",
    "ice-pwd",
    "ice-options",
    "ice-lite",
    "ice-pacing",
    "crypto",
    "key-mgmt",
    "rtcp-mux-only",
    "bundle-only",
    "tls-id",
    "connection",
];

impl Session {
    /// Leaves out what the session level says about its writer's own transport, and its groups.
    pub fn forget_hop(&mut self) {
        self.groups.clear();
        self.others.retain(|attribute| !OF_THE_HOP.contains(&attribute.name.as_str()));
    }
}

impl MediaLine {
    /// This line as ours. `None` when the line is refused or the anchor is of the wrong kind: refuse it there,
    /// with [`MediaLine::refused`].
    pub fn anchored(&self, anchor: &Anchor) -> Option<MediaLine> {
        if self.is_refused() {
            return None;
        }
        let mut line = self.clone();
        line.fingerprints.clear();
        line.setup = None;
        line.ice = None;
        line.others.retain(|attribute| !OF_THE_HOP.contains(&attribute.name.as_str()));
        match (&mut line.body, anchor) {
            (Body::Rtp(rtp), Anchor::Rtp(own)) => {
                line.port = own.port;
                // The old hold by address becomes a direction: the address is ours now.
                line.direction = self.effective_direction();
                line.host = Some(own.host.clone());
                line.proto = match (&own.dtls, line.proto) {
                    (Some(_), Proto::DtlsSavp) => Proto::DtlsSavp,
                    (Some(_), _) => Proto::DtlsSavpf,
                    (None, other) => other.with_sdes(!own.crypto.is_empty()),
                };
                rtp.crypto.clone_from(&own.crypto);
                rtp.rtcp_mux = own.rtcp_mux;
                rtp.rtcp = own.rtcp_port.filter(|_| !own.rtcp_mux).map(|port| Rtcp { port, host: None });
                if let Some(dtls) = &own.dtls {
                    line.secure_by_dtls(dtls);
                }
            }
            (Body::Message(message), Anchor::Message(own)) => {
                line.port = own.port;
                line.host = Some(own.host.clone());
                line.proto = if own.tls { Proto::MsrpTls } else { Proto::Msrp };
                line.setup = own.setup;
                line.fingerprints = own.fingerprint.clone().into_iter().collect();
                message.path.clone_from(&own.path);
                message.cema = own.cema;
            }
            _ => return None,
        }
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, Origin};

    fn session(lines: &str) -> Session {
        let text =
            format!("v=0\r\no=- 7 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n{lines}");
        Session::parse(text.as_bytes(), &Limits::default()).unwrap()
    }

    fn ours(line: MediaLine) -> String {
        let host = Host::Ip([198, 51, 100, 1].into());
        let session = Session::new(Origin::new(1, 1, host)).with(line);
        let text = String::from_utf8(session.to_bytes().to_vec()).unwrap().replace("\r\n", "\n");
        text.split_once("t=0 0\n").unwrap().1.to_owned()
    }

    #[test]
    fn nothing_of_the_peers_transport_passes() {
        let offer = session(
            "m=audio 9000 RTP/AVP 96 0\r\na=rtpmap:96 opus/48000/2\r\na=fmtp:96 useinbandfec=1\r\na=rtcp:9009\r\n\
             a=ice-ufrag:x\r\na=candidate:1 1 UDP 1 192.0.2.1 9000 typ host\r\na=crypto:1 X inline:abc\r\na=sendonly\r\na=x-kept:1\r\n\
             m=message 9 TCP/TLS/MSRP *\r\na=path:msrps://192.0.2.1:9/a;tcp\r\na=accept-types:message/cpim\r\na=setup:active\r\n\
             a=fingerprint:SHA-256 4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A\r\n",
        );
        let host = Host::Ip([198, 51, 100, 1].into());
        let rtp = Anchor::Rtp(RtpAnchor {
            host: host.clone(),
            port: 4000,
            rtcp_mux: false,
            rtcp_port: Some(4007),
            crypto: vec![],
            dtls: None,
        });
        assert_eq!(
            ours(offer.lines[0].anchored(&rtp).unwrap()),
            "m=audio 4000 RTP/AVP 96 0\na=rtcp:4007\na=rtpmap:96 opus/48000/2\na=fmtp:96 useinbandfec=1\n\
             a=rtpmap:0 PCMU/8000\na=sendonly\na=x-kept:1\n"
        );
        let message = Anchor::Message(MessageAnchor {
            host,
            port: 2855,
            path: "msrp://198.51.100.1:2855/z;tcp".into(),
            setup: Some(Setup::ActPass),
            tls: false,
            fingerprint: None,
            cema: true,
        });
        assert_eq!(
            ours(offer.lines[1].anchored(&message).unwrap()),
            "m=message 2855 TCP/MSRP *\na=path:msrp://198.51.100.1:2855/z;tcp\na=accept-types:message/cpim\n\
             a=msrp-cema\na=setup:actpass\na=sendrecv\n"
        );
        assert_eq!(offer.lines[0].anchored(&message), None);
        assert_eq!(offer.lines[0].refused().anchored(&rtp), None);
    }

    #[test]
    fn the_old_hold_becomes_a_direction() {
        let offer = session("m=audio 9000 RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\n");
        let own = RtpAnchor {
            host: Host::Ip([198, 51, 100, 1].into()),
            port: 4000,
            rtcp_mux: false,
            rtcp_port: None,
            crypto: vec![],
            dtls: None,
        };
        let line = offer.lines[0].anchored(&Anchor::Rtp(own)).unwrap();
        assert_eq!(line.direction, crate::Direction::SendOnly);
    }
}
