//! Via: where a request was (RFC 3261 §20.42), with `rport` (RFC 3581).

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use super::{BadHeader, Value, own_header};
use crate::params::Params;
use crate::peer::Transport;
use crate::scan::{Scan, is_blank};
use crate::uri::{Host, HostPort};

/// What every branch of RFC 3261 begins with (§8.1.1.7).
pub(crate) const MAGIC: &str = "z9hG4bK";

/// Name and version of the protocol.
const PROTOCOL: &str = "SIP/2.0";

/// One hop of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Via {
    /// Protocol name and version: `SIP/2.0`.
    pub protocol: Cow<'static, str>,
    /// The transport as written; [`Via::known_transport`] knows some.
    pub transport: Cow<'static, str>,
    /// `sent-by`.
    pub sent_by: HostPort,
    /// `branch`, `received`, `rport`, `maddr`, `ttl` and others.
    pub params: Params,
}

const fn bad(what: &'static str) -> BadHeader {
    BadHeader { header: "Via", what }
}

impl Via {
    /// A Via of our own.
    pub fn new(transport: Transport, sent_by: HostPort, branch: &str) -> Via {
        let params = Params::default().with("branch", Some(branch));
        Via { protocol: PROTOCOL.into(), transport: transport.as_str().into(), sent_by, params }
    }

    /// The `branch` parameter.
    pub fn branch(&self) -> Option<&str> {
        self.params.get("branch")
    }

    /// The branch when it can be trusted to be unique: it has the magic cookie and something behind it
    /// (RFC 3261 §8.1.1.7, RFC 4475 §3.2.1). The cookie is compared without regard to case.
    pub fn unique_branch(&self) -> Option<&str> {
        self.branch().filter(|b| {
            b.len() > MAGIC.len() && b.get(..MAGIC.len()).is_some_and(|m| m.eq_ignore_ascii_case(MAGIC))
        })
    }

    /// The transport, when it is known.
    pub fn known_transport(&self) -> Option<Transport> {
        Transport::parse(&self.transport)
    }

    /// The `received` parameter, with or without brackets around IPv6 (RFC 5118 §4.5).
    pub fn received(&self) -> Option<IpAddr> {
        address(self.params.get("received")?)
    }

    /// The `maddr` parameter, when it is an address.
    pub fn maddr(&self) -> Option<IpAddr> {
        address(self.params.get("maddr")?)
    }

    /// True when `rport` is there, filled or not (RFC 3581 §3).
    pub fn has_rport(&self) -> bool {
        self.params.has("rport")
    }

    /// The port in `rport`.
    pub fn rport(&self) -> Option<u16> {
        self.params.number("rport").and_then(|n| u16::try_from(n).ok())
    }
}

fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| Host::v6(bare.as_bytes()).ok().map(IpAddr::V6))
}

impl Value for Via {
    fn parse(bytes: &[u8]) -> Result<Via, BadHeader> {
        let mut scan = Scan::new(bytes);
        scan.blanks();
        let name = scan.token().ok_or(bad("no protocol"))?;
        if !scan.eat_spaced(b'/') {
            return Err(bad("no version"));
        }
        let version = scan.token().ok_or(bad("no version"))?;
        if !scan.eat_spaced(b'/') {
            return Err(bad("no transport"));
        }
        let protocol = match (name, version) {
            ("SIP", "2.0") => PROTOCOL.into(),
            _ => format!("{name}/{version}").into(),
        };
        let transport = transport(scan.token().ok_or(bad("no transport"))?);
        if !scan.blanks() {
            return Err(bad("no sent-by"));
        }
        let sent_by = sent_by(&mut scan)?;
        let params = Params::parse(&mut scan, "Via")?;
        // RFC 3261 §18.1.1: a branch or port that is there must be readable.
        if params
            .get("rport")
            .is_some_and(|p| !p.is_empty() && params.number("rport").is_none_or(|n| n > 65_535))
        {
            return Err(bad("rport is no port"));
        }
        Ok(Via { protocol, transport, sent_by, params })
    }
}

/// As written; what is written as it should be takes no room.
fn transport(text: &str) -> Cow<'static, str> {
    match Transport::parse(text) {
        Some(known) if known.as_str() == text => known.as_str().into(),
        _ => text.to_owned().into(),
    }
}

/// `host [ COLON port ]`, where COLON may have blanks around it.
fn sent_by(scan: &mut Scan<'_>) -> Result<HostPort, BadHeader> {
    let mut ahead = *scan;
    let plain = ahead.take_while(|b| !is_blank(b) && b != b';').unwrap_or_default();
    if ahead.is_done() || ahead.peek() == Some(b';') {
        *scan = ahead;
        return HostPort::parse(plain).map_err(|e| bad(e.0));
    }
    let mut text = Vec::new();
    if scan.peek() == Some(b'[') {
        text.extend_from_slice(scan.take_while(|b| b != b']').unwrap_or_default());
    }
    text.extend_from_slice(scan.take_while(|b| !is_blank(b) && b != b';' && b != b':').unwrap_or_default());
    if scan.eat_spaced(b':') {
        text.push(b':');
        text.extend_from_slice(scan.take_while(|b| !is_blank(b) && b != b';').unwrap_or_default());
    }
    HostPort::parse(&text).map_err(|e| bad(e.0))
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} {}{}", self.protocol, self.transport, self.sent_by, self.params)
    }
}

own_header!(Via = Via, "Via");
