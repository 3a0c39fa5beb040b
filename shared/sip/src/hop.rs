//! Where a message goes next: RFC 3261 §8.1.2 and §16.6 (requests), §18.2.2 and RFC 3581 §4 (responses),
//! RFC 3263 §4.1 as far as it needs no DNS.

use std::net::SocketAddr;

use crate::message::Request;
use crate::name::Name;
use crate::peer::{Peer, Transport};
use crate::typed::{BadHeader, NameAddr, Via};
use crate::uri::{Host, Uri};

/// The next hop of a request, before name resolution.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// The transport to use.
    pub transport: Transport,
    /// True when the URI left the transport open and its host is a name: NAPTR and SRV may choose another.
    pub transport_open: bool,
    /// The host to resolve; `maddr` if the URI has one.
    pub host: Host,
    /// The port, when one is written. Without one a name is looked up by SRV first.
    pub port: Option<u16>,
}

impl Target {
    /// The peer, when the host is an address.
    pub fn peer(&self) -> Option<Peer> {
        let port = self.port.unwrap_or(self.transport.default_port());
        Some(Peer::new(self.transport, SocketAddr::new(self.host.ip()?, port)))
    }
}

/// The next hop that a URI names; `None` for tel and other schemes, which need a route.
pub fn target_of(uri: &Uri) -> Option<Target> {
    if !uri.is_sip() {
        return None;
    }
    let host = match uri.params.get("maddr").and_then(|m| Host::parse(m.as_bytes()).ok()) {
        Some(maddr) => maddr,
        None => uri.host.clone(),
    };
    // RFC 3263 §4.1: sips means TLS, whatever `transport` says beside WebSocket.
    let named = uri.transport();
    let transport = match (named, uri.is_secure()) {
        (Some(Transport::Ws | Transport::Wss), true) => Transport::Wss,
        (_, true) => Transport::Tls,
        (Some(named), false) => named,
        (None, false) => Transport::Udp,
    };
    let transport_open = named.is_none() && uri.port.is_none() && !host.is_ip();
    Some(Target { transport, transport_open, host, port: uri.port })
}

/// The next hop of a request outside a dialog: the topmost Route if it is a loose router, else the
/// Request-URI (RFC 3261 §8.1.2). Inside a dialog ask [`crate::Dialog::next_hop`]: a strict router in front
/// leaves no trace in the request.
pub fn next_hop(request: &Request) -> Result<Option<Target>, BadHeader> {
    match request.headers.one::<NameAddr>(&Name::Route)? {
        Some(route) if route.uri.is_loose_router() => Ok(target_of(&route.uri)),
        _ => Ok(target_of(&request.uri)),
    }
}

/// What the transport notes in the topmost Via of a request: `received` when the source differs from
/// sent-by (RFC 3261 §18.2.1), and both `received` and `rport` when `rport` is there (RFC 3581 §4).
pub fn note_source(via: &mut Via, source: SocketAddr) {
    let same = via.sent_by.host.ip() == Some(source.ip());
    if via.has_rport() {
        via.params.set("received", Some(&source.ip().to_string()));
        via.params.set("rport", Some(&source.port().to_string()));
    } else if !same {
        via.params.set("received", Some(&source.ip().to_string()));
    } else if via.params.has("received") {
        // What the sender claims about itself is not to be believed.
        via.params.remove("received");
    }
}

/// Where a response goes: over the connection that the request came on, when there is one; else by `maddr`,
/// `received` and `rport`, `received` and the port of sent-by (RFC 3261 §18.2.2, RFC 3581 §4).
pub fn response_peer(via: &Via, source: Peer) -> Peer {
    if source.transport.is_reliable() {
        return source;
    }
    let port = via.sent_by.port.unwrap_or(source.transport.default_port());
    let addr = match via.maddr() {
        Some(maddr) => SocketAddr::new(maddr, port),
        None if via.has_rport() => source.addr,
        None => SocketAddr::new(source.addr.ip(), port),
    };
    Peer::new(source.transport, addr)
}

/// Where a response goes when its connection is gone: a new connection to the source address and the port
/// of sent-by (RFC 3261 §18.2.2).
pub fn fallback_peer(via: &Via, source: Peer) -> Option<Peer> {
    if !source.transport.is_reliable() {
        return None;
    }
    let port = via.sent_by.port.unwrap_or(source.transport.default_port());
    Some(Peer::new(source.transport, SocketAddr::new(source.addr.ip(), port)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::Method;
    use crate::typed::Value;

    fn target(uri: &str) -> (Transport, String, Option<u16>, bool) {
        let t = target_of(&uri.parse().unwrap()).unwrap();
        (t.transport, t.host.to_string(), t.port, t.transport_open)
    }

    /// RFC 3263 §4.1.
    #[test]
    fn uris_name_their_hop() {
        use Transport::*;
        assert_eq!(target("sip:a@h"), (Udp, "h".into(), None, true));
        assert_eq!(target("sip:a@192.0.2.1"), (Udp, "192.0.2.1".into(), None, false));
        assert_eq!(target("sip:a@h:5070;transport=tcp"), (Tcp, "h".into(), Some(5070), false));
        assert_eq!(target("sips:a@h;transport=tcp"), (Tls, "h".into(), None, false));
        assert_eq!(target("sips:a@h;transport=ws"), (Wss, "h".into(), None, false));
        assert_eq!(target("sip:a@h;maddr=[2001:db8::1]"), (Udp, "[2001:db8::1]".into(), None, false));
        assert!(target_of(&"tel:+1555".parse().unwrap()).is_none());
        let peer = target_of(&"sips:[2001:db8::1]".parse().unwrap()).unwrap().peer().unwrap();
        assert_eq!(peer, Peer::new(Tls, "[2001:db8::1]:5061".parse().unwrap()));
    }

    #[test]
    fn the_topmost_loose_route_goes_first() {
        let mut request = Request::new(Method::Bye, "sip:a@far".parse().unwrap());
        assert_eq!(next_hop(&request).unwrap().unwrap().host.to_string(), "far");
        request.headers.push(Name::Route, "<sip:near;lr>, <sip:mid;lr>");
        assert_eq!(next_hop(&request).unwrap().unwrap().host.to_string(), "near");
        request.headers.set(Name::Route, "<sip:strict>");
        assert_eq!(next_hop(&request).unwrap().unwrap().host.to_string(), "far");
    }

    /// RFC 3261 §18.2.2, RFC 3581 §4.
    #[test]
    fn responses_go_back() {
        let source = Peer::new(Transport::Udp, "192.0.2.9:4040".parse().unwrap());
        let back = |via: &str, source: Peer| {
            let mut via = Via::parse(via.as_bytes()).unwrap();
            note_source(&mut via, source.addr);
            (via.params.to_string(), response_peer(&via, source).addr.to_string())
        };
        let udp = |via: &str| back(via, source);
        assert_eq!(udp("SIP/2.0/UDP 192.0.2.9:5070"), (String::new(), "192.0.2.9:5070".into()));
        assert_eq!(udp("SIP/2.0/UDP h"), (";received=192.0.2.9".into(), "192.0.2.9:5060".into()));
        assert_eq!(
            udp("SIP/2.0/UDP h;rport"),
            (";rport=4040;received=192.0.2.9".into(), "192.0.2.9:4040".into())
        );
        assert_eq!(udp("SIP/2.0/UDP 192.0.2.9;received=10.0.0.1"), (String::new(), "192.0.2.9:5060".into()));
        assert_eq!(udp("SIP/2.0/UDP h;maddr=224.0.1.75").1, "224.0.1.75:5060");
        let tcp = Peer::new(Transport::Tcp, source.addr);
        assert_eq!(back("SIP/2.0/TCP h:5080", tcp).1, "192.0.2.9:4040");
        let via = Via::parse(b"SIP/2.0/TCP h:5080").unwrap();
        assert_eq!(fallback_peer(&via, tcp).unwrap().addr.to_string(), "192.0.2.9:5080");
    }
}
