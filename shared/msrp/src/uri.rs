//! MSRP URIs, and when two are the same (RFC 4975 §6, §6.1, §9).
//!
//! Not done here: resolving a host. Userinfo and parameters after the transport are kept and never compared.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use thiserror::Error;

use crate::octets::{HOST, PARAMETER, SESSION, are, is_unreserved};

/// Why a text is no MSRP URI or path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum UriError {
    /// Neither `msrp://` nor `msrps://`.
    #[error("not an msrp URI")]
    Scheme,
    /// No host, or a character that no host has.
    #[error("no host")]
    Host,
    /// The port is no number below 65536.
    #[error("no port number")]
    Port,
    /// An empty session id, or a character that none has.
    #[error("no session id")]
    Session,
    /// No transport after the semicolon.
    #[error("no transport")]
    Transport,
    /// More URIs than the limit.
    #[error("path too long")]
    TooMany,
}

/// A URI as a view of text that somebody else holds.
#[derive(Clone, Copy)]
pub struct UriRef<'a> {
    text: &'a str,
    secure: bool,
    host: &'a str,
    port: Option<u16>,
    session: Option<&'a str>,
    transport: &'a str,
}

impl<'a> UriRef<'a> {
    /// Reads one URI: all of `text`.
    pub fn parse(text: &'a str) -> Result<Self, UriError> {
        let (secure, rest) = scheme(text).ok_or(UriError::Scheme)?;
        let (address, parameters) = cut(rest, b';').ok_or(UriError::Transport)?;
        let transport = cut(parameters, b';').map_or(parameters, |(transport, _)| transport);
        if transport.is_empty() || !are(parameters.as_bytes(), PARAMETER) {
            return Err(UriError::Transport);
        }
        let (authority, session) = match cut(address, b'/') {
            Some((authority, session)) => (authority, Some(session)),
            None => (address, None),
        };
        if session.is_some_and(|s| s.is_empty() || !are(s.as_bytes(), SESSION)) {
            return Err(UriError::Session);
        }
        let (host, port) = split_authority(authority)?;
        Ok(UriRef { text, secure, host, port, session, transport })
    }

    /// The text as it came.
    pub fn as_str(&self) -> &'a str {
        self.text
    }

    /// True for `msrps`.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Host as written, an IPv6 literal with its brackets.
    pub fn host(&self) -> &'a str {
        self.host
    }

    /// The host's address when it is a literal.
    pub fn ip(&self) -> Option<IpAddr> {
        let bare = self.host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        bare.unwrap_or(self.host).parse().ok()
    }

    /// The explicit port. There is no default: 2855 is a recommendation to listeners (RFC 4975 §6.1).
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The session id: what a To-Path must name for a message to reach a session.
    pub fn session(&self) -> Option<&'a str> {
        self.session
    }

    /// The transport, `tcp` as a rule.
    pub fn transport(&self) -> &'a str {
        self.transport
    }

    /// Equal by RFC 4975 §6.1: scheme and host without case, literals by value, ports equal or both absent,
    /// session ids exactly, transports without case; userinfo and parameters do not count.
    pub fn matches(&self, other: &UriRef<'_>) -> bool {
        self.secure == other.secure
            && self.port == other.port
            && self.session == other.session
            && self.transport.eq_ignore_ascii_case(other.transport)
            && same_host(self, other)
    }

    /// Equal by session id alone: what RFC 6714 leaves when a middlebox rewrites addresses. Never true for
    /// URIs without one. Every character is looked at, so that the time does not tell how many were right.
    pub fn matches_session(&self, other: &UriRef<'_>) -> bool {
        match (self.session, other.session) {
            (Some(a), Some(b)) => {
                a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |diff, (x, y)| diff | (x ^ y)) == 0
            }
            _ => false,
        }
    }
}

impl fmt::Display for UriRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

/// Session ids are keys to sessions: never printed.
impl fmt::Debug for UriRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "msrp{}://***;{}", if self.secure { "s" } else { "" }, self.transport)
    }
}

/// Whether it is `msrps`, and what follows the scheme.
fn scheme(text: &str) -> Option<(bool, &str)> {
    [("msrp://", false), ("msrps://", true)].into_iter().find_map(|(scheme, secure)| {
        let (start, rest) = text.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some((secure, rest))
    })
}

/// What stands before and after the first `octet`.
fn cut(text: &str, octet: u8) -> Option<(&str, &str)> {
    let at = memchr::memchr(octet, text.as_bytes())?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

fn split_authority(authority: &str) -> Result<(&str, Option<u16>), UriError> {
    let hostport = match authority.rsplit_once('@') {
        Some((user, rest)) if user.split(':').all(|part| are(part.as_bytes(), HOST)) => rest,
        Some(_) => return Err(UriError::Host),
        None => authority,
    };
    let (host, port) = if hostport.starts_with('[') {
        let end = hostport.find(']').ok_or(UriError::Host)?;
        let (host, rest) = hostport.split_at_checked(end + 1).ok_or(UriError::Host)?;
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        literal.parse::<std::net::Ipv6Addr>().map_err(|_| UriError::Host)?;
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err(UriError::Host),
        }
    } else {
        match cut(hostport, b':') {
            Some((host, port)) => (host, Some(port)),
            None => (hostport, None),
        }
    };
    if host.is_empty() || !(host.starts_with('[') || are(host.as_bytes(), HOST)) {
        return Err(UriError::Host);
    }
    let port = match port {
        Some(digits) if digits.bytes().all(|c| c.is_ascii_digit()) => {
            Some(digits.parse().map_err(|_| UriError::Port)?)
        }
        Some(_) => return Err(UriError::Port),
        None => None,
    };
    Ok((host, port))
}

fn same_host(a: &UriRef<'_>, b: &UriRef<'_>) -> bool {
    match (a.ip(), b.ip()) {
        (Some(a), Some(b)) => a == b,
        (None, None) => decode_unreserved(a.host).eq_ignore_ascii_case(&decode_unreserved(b.host)),
        _ => false,
    }
}

/// Percent-encoded unreserved characters of the authority are decoded before comparing (RFC 4975 §6.1).
fn decode_unreserved(host: &str) -> Cow<'_, str> {
    if !host.contains('%') {
        return Cow::Borrowed(host);
    }
    let mut decoded = String::with_capacity(host.len());
    let mut rest = host;
    while let Some((before, after)) = rest.split_once('%') {
        decoded.push_str(before);
        let octet = after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (octet, after.get(2..)) {
            (Some(c), Some(tail)) if is_unreserved(c) => {
                decoded.push(char::from(c));
                rest = tail;
            }
            _ => {
                decoded.push('%');
                rest = after;
            }
        }
    }
    decoded.push_str(rest);
    Cow::Owned(decoded)
}

/// A URI with its own text.
#[derive(Clone)]
pub struct MsrpUri {
    text: String,
}

impl MsrpUri {
    /// Reads one URI: all of `text`.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        UriRef::parse(text)?;
        Ok(MsrpUri { text: text.to_owned() })
    }

    /// One of our own. `host` is a name, an IPv4 literal, or an IPv6 literal in brackets.
    pub fn build(secure: bool, host: &str, port: u16, session: &str) -> Result<Self, UriError> {
        let scheme = if secure { "msrps" } else { "msrp" };
        MsrpUri::parse(&format!("{scheme}://{host}:{port}/{session};tcp"))
    }

    /// The same as a view.
    pub fn view(&self) -> UriRef<'_> {
        // The text was read once already; should that ever fail, the view is of a URI that equals nothing.
        UriRef::parse(&self.text).unwrap_or(UriRef {
            text: &self.text,
            secure: false,
            host: "",
            port: None,
            session: None,
            transport: "",
        })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The session id.
    pub fn session(&self) -> Option<&str> {
        self.view().session()
    }
}

/// By RFC 4975 §6.1.
impl PartialEq for MsrpUri {
    fn eq(&self, other: &Self) -> bool {
        self.view().matches(&other.view())
    }
}

impl fmt::Display for MsrpUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for MsrpUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt_debug(f)
    }
}

impl UriRef<'_> {
    fn fmt_debug(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::str::FromStr for MsrpUri {
    type Err = UriError;
    fn from_str(text: &str) -> Result<Self, UriError> {
        MsrpUri::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> UriRef<'_> {
        UriRef::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn the_parts_of_a_uri() {
        let u = uri("msrps://alice@[2001:db8::1]:7394/s9Xk/2p+Q=7;tcp;x=y");
        assert!(u.is_secure());
        assert_eq!(u.host(), "[2001:db8::1]");
        assert_eq!(u.ip(), Some("2001:db8::1".parse().unwrap()));
        assert_eq!((u.port(), u.session(), u.transport()), (Some(7394), Some("s9Xk/2p+Q=7"), "tcp"));
        let u = uri("MSRP://relay.example.com;tcp");
        assert_eq!((u.port(), u.session(), u.ip(), u.is_secure()), (None, None, None, false));
    }

    #[test]
    fn what_is_no_uri() {
        for (text, why) in [
            ("", UriError::Scheme),
            ("sip:a@b", UriError::Scheme),
            ("http://a/b;tcp", UriError::Scheme),
            ("msrp://a/b", UriError::Transport),
            ("msrp://a/b;", UriError::Transport),
            ("msrp://a/b;t cp", UriError::Transport),
            ("msrp://;tcp", UriError::Host),
            ("msrp:///b;tcp", UriError::Host),
            ("msrp://a b/c;tcp", UriError::Host),
            ("msrp://[::1/c;tcp", UriError::Host),
            ("msrp://[::1]x/c;tcp", UriError::Host),
            ("msrp://[nothex]:1/c;tcp", UriError::Host),
            ("msrp://a:/b;tcp", UriError::Port),
            ("msrp://a:65536/b;tcp", UriError::Port),
            ("msrp://a:-1/b;tcp", UriError::Port),
            ("msrp://a:1/;tcp", UriError::Session),
            ("msrp://a:1/b c;tcp", UriError::Session),
            ("msrp://a:1/b%20;tcp", UriError::Session),
        ] {
            assert_eq!(UriRef::parse(text).map(|u| u.to_string()), Err(why), "{text}");
        }
    }

    #[test]
    fn rfc4975_s6_1_equal_uris() {
        for (a, b) in [
            ("msrp://host.example.com:8493/asfd34;tcp", "MSRP://HOST.example.COM:8493/asfd34;TCP"),
            ("msrp://h:1/a;tcp", "msrp://alice@h:1/a;tcp"),
            ("msrp://h:1/a;tcp", "msrp://h:1/a;tcp;other=1"),
            ("msrp://ex%61mple.com:1/a;tcp", "msrp://example.com:1/a;tcp"),
            ("msrp://[2001:db8::1]:1/a;tcp", "msrp://[2001:DB8:0:0:0:0:0:1]:1/a;tcp"),
        ] {
            assert!(uri(a).matches(&uri(b)), "{a} {b}");
            assert!(uri(b).matches(&uri(a)), "{b} {a}");
        }
    }

    #[test]
    fn rfc4975_s6_1_different_uris() {
        for (a, b) in [
            ("msrp://h:1/a;tcp", "msrps://h:1/a;tcp"),
            ("msrp://h:1/a;tcp", "msrp://g:1/a;tcp"),
            ("msrp://h:1/a;tcp", "msrp://h:2/a;tcp"),
            ("msrp://h:2855/a;tcp", "msrp://h/a;tcp"),
            ("msrp://h:1/a;tcp", "msrp://h:1/A;tcp"),
            ("msrp://h:1/a;tcp", "msrp://h:1;tcp"),
            ("msrp://h:1/a;tcp", "msrp://h:1/a;dc"),
            ("msrp://127.0.0.1:1/a;tcp", "msrp://localhost:1/a;tcp"),
            ("msrp://h%2F:1/a;tcp", "msrp://h:1/a;tcp"),
        ] {
            assert!(!uri(a).matches(&uri(b)), "{a} {b}");
        }
    }

    #[test]
    fn rfc6714_session_ids_alone() {
        let (a, b) = (uri("msrp://192.0.2.1:1/s9Xk2pQ7;tcp"), uri("msrp://sbc.example.com:9/s9Xk2pQ7;tcp"));
        assert!(a.matches_session(&b));
        assert!(!a.matches_session(&uri("msrp://192.0.2.1:1/s9Xk2pQ8;tcp")));
        assert!(!uri("msrp://a:1;tcp").matches_session(&uri("msrp://a:1;tcp")));
    }

    #[test]
    fn nothing_of_a_session_is_printed_by_debug() {
        let text = format!("{:?}", MsrpUri::build(true, "192.0.2.1", 9, "secret").unwrap());
        assert_eq!(text, "msrps://***;tcp");
    }
}
