//! The section `[sip]`: where SIP is spoken and what a stranger may cost.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use base::Private;
use serde::{Deserialize, Serialize};

use crate::ConfigError;

/// The section `[sip]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where SIP is spoken. Empty: UDP and TCP on 5060 and TLS on the port above it, on `default_ip`; if 5060 is
    /// taken, the next free pair of ports, which start-up names.
    pub listeners: Vec<Listener>,
    /// The address of the default listeners.
    pub default_ip: IpAddr,
    /// Certificates and the key log.
    pub tls: Tls,
    /// Copies of all messages for a collector.
    pub hep: Hep,
    /// What a stranger may cost.
    pub limits: Limits,
    /// What is done when more comes than can be served.
    pub overload: sip::overload::Settings,
    /// Limits of messages and transactions.
    pub stack: sip::Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            listeners: Vec::new(),
            default_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            tls: Tls::default(),
            hep: Hep::default(),
            limits: Limits::default(),
            overload: sip::overload::Settings::default(),
            stack: sip::Limits::default(),
        }
    }
}

/// One listening socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// What is spoken below SIP.
    pub transport: Transport,
    /// Where to bind; port 0 takes any free one.
    pub address: SocketAddr,
    /// What Via and Contact say when it is not the bound address, e.g. behind a NAT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertised: Option<SocketAddr>,
}

/// What SIP runs over here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// RFC 3261 §18 over datagrams.
    Udp,
    /// Over a stream.
    Tcp,
    /// Over TLS on a stream.
    Tls,
    /// Over WebSocket (RFC 7118), for clients that open it: browsers.
    Ws,
    /// Over WebSocket under TLS.
    Wss,
}

impl Transport {
    /// Every one, for metric labels.
    pub const ALL: [Transport; 5] =
        [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss];

    /// The label in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
            Transport::Ws => "ws",
            Transport::Wss => "wss",
        }
    }

    /// Whether it is under TLS.
    pub(super) const fn is_secure(self) -> bool {
        matches!(self, Transport::Tls | Transport::Wss)
    }
}

impl From<Transport> for sip::Transport {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Udp => sip::Transport::Udp,
            Transport::Tcp => sip::Transport::Tcp,
            Transport::Tls => sip::Transport::Tls,
            Transport::Ws => sip::Transport::Ws,
            Transport::Wss => sip::Transport::Wss,
        }
    }
}

/// The section `[sip.tls]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// The certificate chain, PEM. Without one, a self-signed certificate is drawn at each start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Names and addresses in the self-signed certificate.
    pub names: Vec<String>,
    /// Certificates, PEM, that a peer to whom we connect must chain to. Without them we open no TLS connections and
    /// speak TLS only on connections that peers opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<PathBuf>,
    /// Peers that prove by their own certificate who they are (trunks, other networks, the core before us). Where there are
    /// any, whoever connects by TLS is asked for one; who has none is a stranger as before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<TlsPeer>,
    /// Appends every session's secrets to this file in the format of SSLKEYLOGFILE, so that a capture can be read.
    /// Whoever reads the file reads the traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_log: Option<PathBuf>,
}

/// A peer that is known by its certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsPeer {
    /// SIP domains, one of which its certificate is for (RFC 5922 §7.1).
    pub names: Vec<String>,
    /// Certificates, PEM, that its own must chain to.
    pub trust: PathBuf,
    /// What it says is believed as if it came from `service.identity.trusted_peers`, whatever its address.
    #[serde(default = "yes")]
    pub trusted: bool,
}

const fn yes() -> bool {
    true
}

/// The section `[sip.hep]`: a copy of each message for a collector (Homer's HEP3 over UDP).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hep {
    /// Where copies go; nowhere without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collector: Option<SocketAddr>,
    /// The number by which the collector knows this node.
    pub capture_id: u32,
    /// What the collector wants to see before it believes.
    pub key: Private<String>,
    /// With the bodies, in which is what people say to each other. Without, a copy ends with the header section.
    pub bodies: bool,
}

/// The section `[sip.limits]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections at once, accepted and opened.
    pub connections_max: usize,
    /// Accepted connections at once from one address.
    pub connections_per_address_max: usize,
    /// Octets that wait to be written to one connection; it is closed when there would be more.
    pub write_queue_max: usize,
    /// Octets of all connections: parts of messages that came, and what waits to be written. A connection that
    /// would need more is closed.
    pub buffered_max: usize,
    /// Milliseconds from the first octet of a message to its last, and from a connection's start to the end of its
    /// first message and of its TLS handshake.
    pub message_ms: u64,
    /// Milliseconds without any octet from the peer after which a connection is closed.
    pub idle_ms: u64,
    /// Milliseconds for connecting to a peer, TLS handshake included.
    pub connect_ms: u64,
    /// Messages of one connection that may wait for their decision; its further ones are read later.
    pub connection_pending_max: usize,
    /// Messages that may wait for the front. Datagrams beyond are discarded, connections wait.
    pub front_queue_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: 8192,
            connections_per_address_max: 4096,
            write_queue_max: 1 << 20,
            buffered_max: 256 << 20,
            message_ms: 10_000,
            idle_ms: 3_600_000,
            connect_ms: 5_000,
            connection_pending_max: 64,
            front_queue_max: 16_384,
        }
    }
}

impl Settings {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let refuse = |key, why: &str| Err(ConfigError::Value { key, why: why.to_owned() });
        if self.tls.certificate.is_some() != self.tls.key.is_some() {
            return refuse("sip.tls", "certificate and key go together");
        }
        if self.tls.peers.iter().any(|peer| peer.names.iter().all(String::is_empty)) {
            return refuse("sip.tls.peers", "each needs a name");
        }
        if self.listeners.len() > 64 {
            return refuse("sip.listeners", "at most 64");
        }
        if let Err((_, why)) = self.overload.check() {
            return refuse("sip.overload", why);
        }
        let limits = &self.limits;
        if limits.connections_max == 0
            || limits.front_queue_max == 0
            || limits.message_ms == 0
            || limits.connection_pending_max == 0
        {
            return refuse(
                "sip.limits",
                "connections_max, *_queue_max, *_pending_max and message_ms must be above 0",
            );
        }
        Ok(())
    }
}
