//! The request that goes out on one leg of a fork or to the next function (CPM-FACTS §2.5 step 11, §2.8).

use cpm::feature::{AcceptContact, FeatureSet, RejectContact};
use sip::typed::{From, To};
use sip::{Dialog, Headers, Method, Name, Peer, Request, Transport, Uri};

use super::history;
use crate::b2b;
use crate::config::Away;
use crate::isc;
use crate::registrar::Bound;
use crate::supported;
use crate::turn::Turn;
use crate::{Config, LaneKey, Named, Route, UserId};

/// Who sends, as far as we vouch for it (RFC 3325).
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The user behind the identity; `None` when the caller is anonymous to us.
    pub(crate) user: Option<UserId>,
    /// Values for P-Asserted-Identity.
    pub(crate) identity: Vec<String>,
}

/// Where one leg goes.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) route: Route,
    pub(crate) uri: Uri,
    /// The binding's key; empty when the leg does not go to a device.
    pub(crate) device: String,
    /// The device's own `+sip.instance`.
    pub(crate) instance: Option<String>,
    /// Its Path (RFC 3327 §5.3: becomes the Route).
    pub(crate) path: Vec<String>,
    /// The next hop is a trusted network's.
    pub(crate) core: bool,
    /// Which of a fork it is, from 1.
    pub(crate) branch: usize,
    /// It is another network's.
    pub(crate) away: bool,
}

impl Target {
    /// It is registered by WebSocket (RFC 7118 §5.2): a browser, which speaks nothing but WebRTC.
    pub(crate) fn is_browser(&self) -> bool {
        matches!(self.uri.transport(), Some(sip::Transport::Ws | sip::Transport::Wss))
    }

    /// A registered device.
    pub(crate) fn device(bound: &Bound) -> Option<Target> {
        let binding = &bound.binding;
        Some(Target {
            route: Route::Peer(bound.peer()?),
            core: bound.is_of_core(),
            branch: 1,
            uri: bound.contact()?,
            device: bound.key.clone(),
            instance: binding.instance.as_ref().map(|i| i.expose().clone()),
            path: binding.path.iter().map(|p| p.expose().clone()).collect(),
            away: false,
        })
    }

    /// The next function of this node: the request keeps its target.
    pub(crate) fn lane(lane: LaneKey, uri: Uri) -> Target {
        Target {
            route: Route::Lane(lane),
            uri,
            device: String::new(),
            instance: None,
            path: Vec::new(),
            core: false,
            branch: 1,
            away: false,
        }
    }

    /// Another domain, by the way that is configured for it.
    pub(crate) fn away(away: &Away, uri: Uri) -> Option<Target> {
        let next: Uri = away.next.parse().ok()?;
        let hop = sip::hop::target_of(&next)?;
        let route = match hop.peer() {
            Some(peer) => Route::Peer(peer),
            None => Route::Name(Named::new(&hop, None)),
        };
        // RFC 3261 §8.1.2: a next hop that is not the Request-URI's own is a pre-loaded route.
        let path = vec![format!("<{next};lr>")];
        Some(Target {
            route,
            uri,
            device: String::new(),
            instance: None,
            path,
            core: away.trusted,
            branch: 1,
            away: true,
        })
    }

    fn is_device(&self) -> bool {
        !self.device.is_empty()
    }

    /// What it is told stays with us and those whom we trust.
    pub(super) fn is_outside(&self) -> bool {
        (self.is_device() || self.away) && !self.core
    }
}

/// The devices that a request is for: RFC 3841 on the registered feature tags. Where no device has what a
/// mere preference asks for, all get it (plain SIP phones register no tags at all).
pub(crate) fn choose<'a>(
    request: &Request,
    devices: impl Iterator<Item = &'a Bound>,
    max: usize,
) -> Vec<Target> {
    let devices = one_flow_each(devices);
    let sets: Vec<FeatureSet> = devices.iter().map(|b| b.features()).collect();
    let accept: Vec<AcceptContact> = request
        .headers
        .fields(&Name::AcceptContact)
        .filter_map(|v| std::str::from_utf8(v).ok())
        .flat_map(AcceptContact::parse)
        .collect();
    let reject: Vec<RejectContact> = request
        .headers
        .fields(&Name::RejectContact)
        .filter_map(|v| std::str::from_utf8(v).ok())
        .flat_map(RejectContact::parse)
        .collect();
    let gr = request.uri.gr().filter(|gr| !gr.is_empty());
    let mut chosen = cpm::feature::select(&sets, &accept, &reject);
    // The best first; equals in the order of registration, the newest last.
    chosen.truncate(max);
    chosen
        .into_iter()
        .filter_map(|at| devices.get(at).copied())
        .filter(|bound| gr.is_none_or(|gr| bound.is_instance(gr)))
        .filter_map(Target::device)
        .zip(1..)
        .map(|(target, branch)| Target { branch, ..target })
        .collect()
}

/// Of several flows of a device the newest that leads somewhere (RFC 5626 §5.3: never more than one at once).
fn one_flow_each<'a>(devices: impl Iterator<Item = &'a Bound>) -> Vec<&'a Bound> {
    let mut chosen: Vec<&Bound> = Vec::new();
    for bound in devices.filter(|b| b.peer().is_some()) {
        let instance = bound.binding.instance.as_ref().map(|i| i.expose().as_str());
        match chosen.iter_mut().find(|known| known.is_of(instance)) {
            Some(known) if known.binding.registered <= bound.binding.registered => *known = bound,
            Some(_) => {}
            None => chosen.push(bound),
        }
    }
    chosen
}

/// The request for one leg, and the tag that names our end of it.
pub(crate) fn request(
    turn: &mut Turn<'_>,
    lane: LaneKey,
    method: Method,
    origin: &Request,
    caller: &Caller,
    target: &Target,
) -> (Request, String) {
    let tag = turn.token();
    let call_id = turn.token();
    let mut next = Request::new(method.clone(), target.uri.clone());
    next.headers.push(Name::MaxForwards, "70");
    for hop in &target.path {
        next.headers.push(Name::Route, hop);
    }
    if let Ok(from) = origin.from() {
        let mut from = from.0;
        from.params = sip::Params::default();
        next.headers.add(&From(from.with_tag(&tag)));
    }
    if let Ok(to) = origin.to() {
        let mut to = to.0;
        to.params.remove("tag");
        next.headers.add(&To(to));
    }
    next.headers.push(Name::CallId, format!("{call_id}@{}", turn.config().domain()));
    next.headers.push(Name::CSeq, format!("1 {method}"));
    if method != Method::Message {
        let (user, features) = shown_contact(origin, &tag);
        next.headers.push(Name::Contact, b2b::contact(turn.config(), lane, &target.route, &user, &features));
        next.headers.push(Name::Allow, supported::ALLOW);
    }
    b2b::pass(origin, &mut next);
    history::extend(&mut next, origin, target);
    assert_identity(&mut next.headers, origin, caller, target);
    if target.is_device() {
        aim(&mut next.headers, target);
    }
    if target.core {
        // RFC 5502 §4: it stays with the session, within the core.
        next.headers.copy(&origin.headers, &Name::PServedUser);
        let icid = turn.token();
        isc::charge(turn.config(), &mut next, &icid);
    }
    if target.is_outside() {
        next.headers.push(Name::PCalledPartyId, format!("<{}>", origin.uri.address_of_record()));
    }
    (next, tag)
}

/// The user and the parameters of our Contact: those of a focus behind us show through.
pub(crate) fn shown_contact(origin: &Request, tag: &str) -> (String, String) {
    let shown = origin.headers.typed::<sip::typed::Contact>().ok().flatten();
    let features = shown.as_ref().map(|c| b2b::contact_features(c)).unwrap_or_default();
    let focus = shown.filter(|c| c.has_feature("isfocus")).and_then(|c| c.0.uri.user);
    (focus.unwrap_or_else(|| tag.to_owned()), features)
}

/// P-Asserted-Identity inside the trust domain; towards a device not when its owner asked for privacy
/// (RFC 3325 §7, §9.3).
fn assert_identity(headers: &mut Headers, origin: &Request, caller: &Caller, target: &Target) {
    let private = origin
        .headers
        .values(&Name::Privacy)
        .flat_map(|v| v.split(|b| *b == b';'))
        .any(|v| v.trim_ascii().eq_ignore_ascii_case(b"id"));
    if target.is_outside() {
        // What networks tell each other is not for devices (RFC 7315 §5, RFC 3325 §5).
        for name in [Name::PAccessNetworkInfo, Name::PChargingVector, Name::PChargingFunctionAddresses] {
            headers.remove(&name);
        }
        if private {
            return;
        }
    }
    for identity in &caller.identity {
        headers.push(Name::PAssertedIdentity, identity);
    }
}

/// REQ-PF-22: the leg's own `+sip.instance`, in place of any that was there: a device answers 486 to a foreign one
/// (CPM-FACTS §2.8 "Targeting one device").
fn aim(headers: &mut Headers, target: &Target) {
    let kept: Vec<String> = headers
        .values(&Name::AcceptContact)
        .map(|v| String::from_utf8_lossy(v).into_owned())
        .filter(|v| !v.to_ascii_lowercase().contains("+sip.instance"))
        .collect();
    headers.remove(&Name::AcceptContact);
    for value in kept {
        headers.push(Name::AcceptContact, value);
    }
    if let Some(instance) = &target.instance {
        headers.push(Name::AcceptContact, AcceptContact::instance(instance.trim_matches(['<', '>'])));
    }
}

/// Where the requests of a dialog go. A stream is a flow: requests go back on it. Datagrams go where the route
/// set or the remote target says (RFC 3261 §12.2.1.1), as far as that is the host that spoke to us or one
/// that we trust: behind a NAT only the source is right, and nobody may send us at third parties. Whom we trust may give a
/// name (RFC 3263); a stream is taken while it stands.
pub(crate) fn route_of(config: &Config, route: &Route, dialog: &Dialog) -> Route {
    let Some(flow) = (match route {
        Route::Peer(peer) => Some(*peer),
        Route::Name(named) => named.flow,
        Route::Lane(_) => None,
    }) else {
        return route.clone();
    };
    let Some(hop) = dialog.next_hop() else { return route.clone() };
    let trusts = |peer: &Peer| config.identity.trusted_peers.contains(&peer.addr.ip());
    match hop.peer() {
        Some(next)
            if flow.transport == Transport::Udp
                && next.transport == Transport::Udp
                && (next.addr.ip() == flow.addr.ip() || trusts(&next)) =>
        {
            Route::Peer(next)
        }
        // Browsers and whoever is behind a NAT write names that mean nobody.
        None if trusts(&flow) && is_name(&hop) => Route::Name(Named::new(&hop, Some(flow))),
        _ => route.clone(),
    }
}

/// A name that may be in the DNS, and a transport that we open (RFC 7118 §5.4: `.invalid` in the Contacts of browsers).
fn is_name(hop: &sip::hop::Target) -> bool {
    let host = hop.host.to_string();
    !matches!(hop.transport, Transport::Ws | Transport::Wss)
        && host.rsplit('.').next().is_some_and(|last| !last.eq_ignore_ascii_case("invalid"))
}

/// The peer says that it takes UPDATE.
pub(crate) fn allows_update(headers: &Headers) -> bool {
    headers.has_token(&Name::Allow, "UPDATE")
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn routed(transport: Transport, contact: &str, trusted: bool) -> Route {
        let from: SocketAddr = ([192, 0, 2, 1], 40_000).into();
        let mut config = Config::default();
        if trusted {
            config.identity.trusted_peers.push(from.ip());
        }
        let mut request = Request::new(Method::Invite, "sip:bob@weir.example".parse().unwrap());
        request.headers.push(Name::From, "<sip:ann@partner.example>;tag=f");
        request.headers.push(Name::To, "<sip:bob@weir.example>");
        request.headers.push(Name::CallId, "c");
        request.headers.push(Name::CSeq, "1 INVITE");
        request.headers.push(Name::Contact, contact);
        let mut response = request.respond(200);
        response.set_to_tag("t");
        let dialog = Dialog::uas(&request, &response).unwrap();
        route_of(&config, &Route::Peer(Peer::new(transport, from)), &dialog)
    }

    // RFC 3261 §12.2.1.1, RFC 3263 §4: the remote target may be a name; who is not trusted sends us nowhere by one.
    #[test]
    fn a_name_in_a_dialog_is_located_for_whom_we_trust() {
        let flow = Peer::new(Transport::Udp, ([192, 0, 2, 1], 40_000).into());
        let Route::Name(named) = routed(Transport::Udp, "<sip:ann@as.partner.example;transport=tcp>", true)
        else {
            panic!("no name");
        };
        assert_eq!((named.host.as_str(), named.port, named.flow), ("as.partner.example", None, Some(flow)));
        assert_eq!((named.transport, named.transport_open), (Transport::Tcp, false));
        assert_eq!(named.target().unwrap().host.to_string(), "as.partner.example");
        for contact in ["<sip:ann@as.partner.example>", "<sip:ann@198.51.100.1>"] {
            assert_eq!(routed(Transport::Udp, contact, false), Route::Peer(flow), "{contact}");
        }
        // RFC 7118 §5: what browsers write, and transports that only clients open.
        for contact in ["<sip:ann@df7jal23ls0d.invalid>", "<sip:ann@as.partner.example;transport=ws>"] {
            assert_eq!(routed(Transport::Udp, contact, true), Route::Peer(flow), "{contact}");
        }
        let near = routed(Transport::Udp, "<sip:ann@192.0.2.1:5070>", false);
        assert_eq!(near, Route::Peer(Peer::new(Transport::Udp, ([192, 0, 2, 1], 5070).into())));
    }
}
