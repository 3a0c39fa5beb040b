//! What passes between the two dialogs of a B2BUA, and what belongs to one hop only (CPM-FACTS §2.5: "same
//! method, new dialog, Record-Route not used; Conversation-ID, Contribution-ID, InReplyTo-, Subject,
//! Referred-By, Accept-Contact and CPIM unmodified").
//!
//! Everything passes that is not named here: headers that we do not know are other people's business.

use sip::typed::SessionId;
use sip::{Name, NameAddr, Peer, Request, Response, Uri};

use crate::lane_key::LANE_PARAM;
use crate::supported;
use crate::{Config, LaneKey, Named, Route};

/// What lives and dies with one hop or one dialog, or is set anew by whoever forwards.
fn is_ours(name: &Name) -> bool {
    matches!(
        name,
        Name::Via
            | Name::From
            | Name::To
            | Name::CallId
            | Name::CSeq
            | Name::Contact
            | Name::Route
            | Name::RecordRoute
            | Name::MaxForwards
            | Name::ContentLength
            | Name::ContentType
            | Name::Authorization
            | Name::ProxyAuthorization
            | Name::WwwAuthenticate
            | Name::ProxyAuthenticate
            | Name::AuthenticationInfo
            | Name::ProxyAuthenticationInfo
            | Name::PAssertedIdentity
            | Name::PPreferredIdentity
            | Name::PAssertedService
            | Name::PPreferredService
            | Name::PServedUser
            | Name::PCalledPartyId
            | Name::Path
            | Name::ServiceRoute
            | Name::ProxyRequire
            | Name::Supported
            | Name::Unsupported
            | Name::Allow
            | Name::SessionExpires
            | Name::MinSe
            | Name::RAck
            | Name::RSeq
            | Name::Timestamp
            | Name::SecurityClient
            | Name::SecurityServer
            | Name::SecurityVerify
            | Name::Server
            | Name::Identity
            | Name::IdentityInfo
    )
}

/// Copies what passes end to end, body included.
pub(crate) fn pass(from: &Request, to: &mut Request) {
    // RFC 7989 §5: what is none names nothing.
    let unnamed = from.headers.typed::<SessionId>().is_err();
    for (name, value) in from.headers.named().filter(|(name, _)| !is_ours(name)) {
        if name == Name::Require || (unnamed && name == Name::SessionId) {
            continue;
        }
        to.headers.push(name, value);
    }
    // `timer` and `100rel` are between neighbours (RFC 4028 §8.1, RFC 3262 §3: a B2BUA is an end of them); the rest is for
    // the far end.
    let between = |option: &&str| ["timer", "100rel"].iter().any(|own| option.eq_ignore_ascii_case(own));
    for option in from.headers.tokens(&Name::Require).filter(|o| !between(o)) {
        to.headers.push(Name::Require, option);
    }
    pass_service(from, to);
    if !from.body.is_empty() {
        if let Some(kind) = from.headers.first(&Name::ContentType) {
            to.headers.set(Name::ContentType, kind);
        }
        to.body = from.body.clone();
    }
    let forwards = max_forwards(from).saturating_sub(1);
    to.headers.set(Name::MaxForwards, forwards.to_string());
}

/// The same within a dialog: what networks tell each other does not leave the trust domain (RFC 7315 §5).
pub(crate) fn pass_within(config: &Config, route: &Route, from: &Request, to: &mut Request) {
    pass(from, to);
    if let Route::Peer(peer) = route
        && !config.identity.trusted_peers.contains(&peer.addr.ip())
    {
        for name in [Name::PAccessNetworkInfo, Name::PChargingVector, Name::PChargingFunctionAddresses] {
            to.headers.remove(&name);
        }
    }
}

/// RFC 6050: what the client prefers is what we assert; `methods` has taken a foreign assertion away.
fn pass_service(from: &Request, to: &mut Request) {
    for name in [Name::PAssertedService, Name::PPreferredService] {
        if let Some(service) = from.headers.first(&name) {
            to.headers.push(Name::PAssertedService, service);
            return;
        }
    }
}

/// Max-Forwards, 70 when there is none (RFC 3261 §16.6 step 3).
pub(crate) fn max_forwards(request: &Request) -> u32 {
    request.headers.text(&Name::MaxForwards).and_then(|t| t.trim().parse().ok()).unwrap_or(70)
}

/// The answer to `request` that says what `response`, got on the other side, says.
pub(crate) fn relay(request: &Request, response: &Response) -> Response {
    let mut answer = request.respond(response.code);
    response.reason.clone_into(&mut answer.reason);
    // RFC 7315 §4.6, §5.6: charging goes back to whoever has begun it, and not out of the trust domain: `identity` has
    // taken it away from requests that came from there.
    let charged = request.headers.has(&Name::PChargingVector);
    let inner = |name: &Name| {
        let charging = [Name::PChargingVector, Name::PChargingFunctionAddresses, Name::PAccessNetworkInfo];
        charging.contains(name) && !charged
    };
    for (name, value) in response.headers.named().filter(|(name, _)| !is_ours(name) && !inner(name)) {
        if name != Name::Require {
            answer.headers.push(name, value);
        }
    }
    answer.headers.copy(&response.headers, &Name::Unsupported);
    if !response.body.is_empty() {
        if let Some(kind) = response.headers.first(&Name::ContentType) {
            answer.headers.set(Name::ContentType, kind);
        }
        answer.body = response.body.clone();
    }
    answer
}

/// The parameters of the other side's Contact that say what it is (feature tags, `isfocus`), not which
/// device it is.
pub(crate) fn contact_features(contact: &NameAddr) -> String {
    let mut params = contact.params.clone();
    params.retain(|name| {
        !["expires", "q", "reg-id", "+sip.instance", "methods", "pub-gruu", "temp-gruu", "tag"]
            .iter()
            .any(|own| name.eq_ignore_ascii_case(own))
    });
    params.to_string()
}

/// Our Contact towards `route`: it reaches this lane again, whatever the number of lanes is then.
pub(crate) fn contact(config: &Config, lane: LaneKey, route: &Route, user: &str, features: &str) -> String {
    format!("<{}>{features}", contact_uri(config, lane, route, user))
}

/// The URI of [`contact`].
pub(crate) fn contact_uri(config: &Config, lane: LaneKey, route: &Route, user: &str) -> Uri {
    let mut uri = match route {
        Route::Peer(Peer { transport, .. }) | Route::Name(Named { transport, .. }) => {
            let host = config
                .listeners
                .of(*transport)
                .map_or_else(|| config.domain().to_owned(), |addr| addr.to_string());
            let mut uri = Uri::sip(user, &host);
            // UDP is what a URI without the parameter means (RFC 3263 §4.1).
            if *transport != sip::Transport::Udp {
                uri.params.set("transport", Some(transport.label()));
            }
            uri
        }
        Route::Lane(_) => Uri::sip(user, config.domain()),
    };
    uri.params.set(LANE_PARAM, Some(&lane.to_string()));
    uri
}

/// A failure of our own making.
pub(crate) fn refuse(config: &Config, request: &Request, code: u16) -> Response {
    let mut response = request.respond(code);
    match code {
        // RFC 3261 §21.4.6
        405 => response.headers.push(Name::Allow, supported::ALLOW),
        // RFC 3261 §21.5.4
        503 => response.headers.push(Name::RetryAfter, "5"),
        415 => {
            response.headers.push(Name::Accept, "message/cpim, text/plain, application/sdp, multipart/mixed")
        }
        _ => {}
    }
    // RFC 7989 §7: an answer from here has the name that the session has, seen from the other side.
    if let Ok(Some(id)) = request.headers.typed::<SessionId>() {
        response.headers.set(Name::SessionId, id.reversed().to_string());
    }
    if !config.node.product.is_empty() {
        response.headers.push(Name::Server, &config.node.product);
    }
    response
}

/// A refusal with one of the OMA texts (CPM-FACTS §2.7).
pub(crate) fn refuse_with(config: &Config, request: &Request, code: u16, text: &str) -> Response {
    refuse(config, request, code).warn(config.domain(), text)
}
