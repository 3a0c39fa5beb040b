//! The address of an o= or c= line.

use std::fmt;
use std::net::IpAddr;

/// An address literal, or a name that a resolver has to look up.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A literal.
    Ip(IpAddr),
    /// A name, of the family that the line says.
    Name {
        /// The name.
        name: String,
        /// True for `IP6`.
        v6: bool,
    },
}

impl Host {
    /// The literal, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Host::Ip(ip) => Some(*ip),
            Host::Name { .. } => None,
        }
    }

    /// True for 0.0.0.0 and ::, the old way to say hold (RFC 3264 §8.4).
    pub fn is_unspecified(&self) -> bool {
        self.ip().is_some_and(|ip| ip.is_unspecified())
    }

    /// As the host part of a URI: IPv6 in brackets.
    pub fn in_uri(&self) -> String {
        match self {
            Host::Ip(IpAddr::V6(ip)) => format!("[{ip}]"),
            other => other.to_string(),
        }
    }

    pub(crate) fn family(&self) -> &'static str {
        match self {
            Host::Ip(IpAddr::V6(_)) | Host::Name { v6: true, .. } => "IP6",
            Host::Ip(IpAddr::V4(_)) | Host::Name { v6: false, .. } => "IP4",
        }
    }

    /// From the fields of a c= or o= line. A multicast tail (`/127`) is cut.
    pub(crate) fn from_fields(family: &str, address: &str) -> Option<Host> {
        let v6 = match family {
            "IP4" => false,
            "IP6" => true,
            _ => return None,
        };
        let bare = address.split('/').next().unwrap_or_default();
        match bare.parse::<IpAddr>() {
            Ok(ip) if ip.is_ipv6() == v6 => Some(Host::Ip(ip)),
            Ok(_) => None,
            Err(_) => {
                let is_name = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
                let named = !bare.is_empty() && bare.len() <= 253 && bare.bytes().all(is_name);
                named.then(|| Host::Name { name: bare.to_owned(), v6 })
            }
        }
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Host::Ip(ip)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Ip(ip) => ip.fmt(f),
            Host::Name { name, .. } => f.write_str(name),
        }
    }
}

/// Where a subscriber is stays out of logs.
impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
