//! The same media line with our transport in place of the peer's: what a middlebox writes into the dialog on
//! its other side. Formats, directions, types and unknown attributes pass; addresses, keys and candidates of
//! the peer do not.

use crate::{Body, Fingerprint, Host, MediaLine, Proto, Rtcp, Setup};

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
        line.others.retain(|attribute| !OF_THE_HOP.contains(&attribute.name.as_str()));
        match (&mut line.body, anchor) {
            (Body::Rtp(rtp), Anchor::Rtp(own)) => {
                line.port = own.port;
                // The old hold by address becomes a direction: the address is ours now.
                line.direction = self.effective_direction();
                line.host = Some(own.host.clone());
                rtp.rtcp_mux = own.rtcp_mux;
                rtp.rtcp = own.rtcp_port.filter(|_| !own.rtcp_mux).map(|port| Rtcp { port, host: None });
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
