//! Hosts and ports: names, IPv4, bracketed IPv6 (RFC 3261 §25.1, RFC 5118).

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::BadUri;
use crate::scan::digits;

/// A host in a URI or a Via.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub enum Host {
    /// None: tel URIs and schemes that are carried whole.
    #[default]
    None,
    /// A domain name as written. Compared without regard to case.
    Name(String),
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address, bracketed on the wire.
    V6(Ipv6Addr),
}

impl PartialEq for Host {
    fn eq(&self, other: &Host) -> bool {
        match (self, other) {
            (Host::None, Host::None) => true,
            (Host::Name(a), Host::Name(b)) => a.eq_ignore_ascii_case(b),
            (Host::V4(a), Host::V4(b)) => a == b,
            (Host::V6(a), Host::V6(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Host {}

impl Hash for Host {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Host::None => state.write_u8(0),
            Host::Name(name) => name.bytes().for_each(|b| state.write_u8(b.to_ascii_lowercase())),
            Host::V4(v4) => v4.hash(state),
            Host::V6(v6) => v6.hash(state),
        }
    }
}

impl Host {
    /// Reads a host: a name, an IPv4 address or a bracketed IPv6 address.
    pub fn parse(bytes: &[u8]) -> Result<Host, BadUri> {
        if let [b'[', inner @ .., b']'] = bytes {
            return Host::v6(inner).map(Host::V6);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| BadUri("host is not ASCII"))?;
        if text.is_empty() {
            return Err(BadUri("no host"));
        }
        if let Ok(v4) = text.parse() {
            return Ok(Host::V4(v4));
        }
        // RFC 3261 §25.1 `hostname`; the underscore is not in it but in real names.
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')) {
            return Err(BadUri("host has a character that no host has"));
        }
        if text.starts_with(['.', '-']) || text.contains("..") {
            return Err(BadUri("host has an empty label"));
        }
        Ok(Host::Name(text.to_owned()))
    }

    /// An IPv6 address without brackets. Three colons before an embedded IPv4 address, which RFC 3261's
    /// grammar produces by mistake, are read as two and never written (RFC 5118 §4.10).
    pub(crate) fn v6(bytes: &[u8]) -> Result<Ipv6Addr, BadUri> {
        let text = std::str::from_utf8(bytes).map_err(|_| BadUri("address is not ASCII"))?;
        text.parse()
            .or_else(|e| match text.split_once(":::") {
                Some((head, tail)) if tail.parse::<Ipv4Addr>().is_ok() => format!("{head}::{tail}").parse(),
                _ => Err(e),
            })
            .map_err(|_| BadUri("not an IPv6 address"))
    }

    /// The address, when the host is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Host::V4(v4) => Some(IpAddr::V4(*v4)),
            Host::V6(v6) => Some(IpAddr::V6(*v6)),
            Host::Name(_) | Host::None => None,
        }
    }

    /// True for an address literal.
    pub fn is_ip(&self) -> bool {
        self.ip().is_some()
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Host {
        match ip {
            IpAddr::V4(v4) => Host::V4(v4),
            IpAddr::V6(v6) => Host::V6(v6),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::None => Ok(()),
            Host::Name(name) => {
                super::parse::write_escaped(f, name, |b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
            }
            Host::V4(v4) => write!(f, "{v4}"),
            Host::V6(v6) => write!(f, "[{v6}]"),
        }
    }
}

/// `host[:port]`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct HostPort {
    /// The host.
    pub host: Host,
    /// The port, when one is written.
    pub port: Option<u16>,
}

impl HostPort {
    /// Reads `host[:port]`. An IPv6 address must be bracketed (RFC 5118 §4.2); what stands inside the
    /// brackets belongs to the address (§4.3).
    pub fn parse(bytes: &[u8]) -> Result<HostPort, BadUri> {
        let host_end = if bytes.first() == Some(&b'[') {
            memchr::memchr(b']', bytes).ok_or(BadUri("address bracket is not closed"))? + 1
        } else {
            memchr::memchr(b':', bytes).unwrap_or(bytes.len())
        };
        let (host, port) = bytes.split_at_checked(host_end).ok_or(BadUri("no host"))?;
        let port = match port {
            [] => None,
            [b':', port @ ..] => {
                let port = digits(port).and_then(|n| u16::try_from(n).ok());
                Some(port.ok_or(BadUri("port is no number below 65536"))?)
            }
            _ => return Err(BadUri("text after the host")),
        };
        Ok(HostPort { host: Host::parse(host)?, port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.host)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}
