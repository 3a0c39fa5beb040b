//! Where the active side connects to (RFC 4975 §5.4, §6.2; RFC 6714 §4, §5).

use crate::{PathRef, UriRef};

/// What to dial.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// A name, or a literal without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// TLS, because the path says `msrps`.
    pub tls: bool,
}

/// Where a peer is stays out of logs.
impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Target(tls {})", self.tls)
    }
}

/// From the peer's `a=path`, its c= address and m= port. With `a=msrp-cema` on both sides the connection goes
/// to c= and m=, which a middlebox may have rewritten; To-Path still holds the path (RFC 6714 §4.2). A path of
/// several URIs goes through relays, and then CEMA is not used (RFC 6714 §4.2): the first URI counts.
///
/// `None` when the first URI is no URI, or has no port: such are found by SRV, among relays only.
pub fn connect_to(path: PathRef<'_>, host: &str, port: u16, cema: bool) -> Option<Target> {
    let first = path.first()?;
    let tls = first.is_secure();
    if cema && path.uris().count() == 1 {
        return Some(Target { host: host.to_owned(), port, tls });
    }
    Some(Target { host: bare(&first), port: first.port()?, tls })
}

/// Whether c= and m= say another place than the endpoint's URI: something on the way anchors the media. Without
/// CEMA on both sides such a line cannot work (RFC 6714 §4.3): refuse it, or offer anew.
pub fn is_anchored(path: PathRef<'_>, host: &str, port: u16) -> bool {
    // RFC 6714 §4.2: compared with the only URI; with relays there is nothing to compare.
    let Some(only) = path.first().filter(|_| path.uris().count() == 1) else { return false };
    let same_host = match (only.ip(), host.parse::<std::net::IpAddr>()) {
        (Some(own), Ok(ip)) => own == ip,
        _ => bare(&only).eq_ignore_ascii_case(host),
    };
    !same_host || only.port() != Some(port)
}

fn bare(uri: &UriRef<'_>) -> String {
    uri.host().trim_start_matches('[').trim_end_matches(']').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Path;

    fn path(text: &str) -> Path {
        Path::parse(text, 8).unwrap()
    }

    #[test]
    fn rfc6714_s4_2_where_to_connect() {
        let own = path("msrps://[2001:db8::1]:7394/s;tcp");
        let target = |path: &Path, cema| {
            connect_to(path.view(), "192.0.2.9", 9000, cema).map(|t| (t.host, t.port, t.tls))
        };
        assert_eq!(target(&own, false), Some(("2001:db8::1".into(), 7394, true)));
        assert_eq!(target(&own, true), Some(("192.0.2.9".into(), 9000, true)));
        let relayed = path("msrp://relay.example.com:2855/r;tcp msrp://192.0.2.1:7394/s;tcp");
        assert_eq!(target(&relayed, true), Some(("relay.example.com".into(), 2855, false)));
        assert_eq!(target(&path("msrp://relay.example.com/r;tcp"), false), None);
    }

    #[test]
    fn rfc6714_s4_3_a_middlebox_shows() {
        let own = path("msrp://192.0.2.1:7394/s;tcp");
        assert!(!is_anchored(own.view(), "192.0.2.1", 7394));
        assert!(is_anchored(own.view(), "192.0.2.1", 7395));
        assert!(is_anchored(own.view(), "192.0.2.2", 7394));
        assert!(!is_anchored(path("msrp://Host.example:1/s;tcp").view(), "host.EXAMPLE", 1));
    }
}
