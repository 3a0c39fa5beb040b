//! ISC: what an S-CSCF says when it brings us a request, and how it goes back to it (TS 24.229 §5.7, RFC 5502,
//! CPM-FACTS §2.26).
//!
//! ```text
//!   S-CSCF ── Route: <us;lr[;orig]>, <S-CSCF;lr;odi> ; P-Served-User ──▶ Participating Function
//!   S-CSCF ◀── Route: <S-CSCF;lr;odi>, the same Request-URI ──────────── its B2BUA
//! ```
//!
//! The Route behind ours is the original dialog identifier: it goes back as it came, whatever it says, and the S-CSCF goes
//! on with its filter criteria where it was. Only a trusted peer is an S-CSCF. Without a Route behind ours the request is
//! for us alone (a conference, a node without a core).

use sip::typed::{PServedUser, Route as RouteHeader};
use sip::{Name, Request};

use crate::identity;
use crate::lane_key::{is_originating, user_of};
use crate::participating::Target;
use crate::{Config, Route, Source, UserId};

/// A request that an S-CSCF has brought.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Trigger {
    /// For the sender.
    pub(crate) originating: bool,
    /// Whom P-Served-User names.
    pub(crate) served: Option<UserId>,
    /// The served user has registered, as far as the S-CSCF says.
    pub(crate) registered: bool,
    /// The way back.
    route: Route,
    routes: Vec<String>,
}

/// Whom P-Served-User names (RFC 5502 §4.1).
pub(crate) fn served(config: &Config, request: &Request) -> Option<UserId> {
    let served = request.headers.typed::<PServedUser>().ok().flatten()?;
    user_of(config, &served.uri)
}

impl Trigger {
    /// What the Route says; `None` for a request that ends here.
    pub(crate) fn of(config: &Config, source: &Source, request: &Request) -> Option<Trigger> {
        let Source::Network { peer, .. } = source else { return None };
        if !identity::is_trusted(config, source) {
            return None;
        }
        let mut routes = request.headers.all::<RouteHeader>().ok()?.into_iter();
        let own = routes.next().filter(|own| config.is_ours(&own.uri.host.to_string()))?;
        let rest: Vec<RouteHeader> = routes.collect();
        let next = rest.first()?;
        // A name that only the core's DNS knows: it is whoever brought the request.
        let peer = sip::hop::target_of(&next.uri).and_then(|target| target.peer()).unwrap_or(*peer);
        let unregistered = request.headers.typed::<PServedUser>().ok().flatten().is_some_and(|served| {
            served.params.get("regstate").is_some_and(|state| state.eq_ignore_ascii_case("unreg"))
        });
        Some(Trigger {
            originating: is_originating(request, Some(&own)),
            served: served(config, request),
            registered: !unregistered,
            route: Route::Peer(peer),
            routes: rest.iter().map(ToString::to_string).collect(),
        })
    }

    /// Back to the S-CSCF, for the same address.
    pub(crate) fn target(self, uri: sip::Uri) -> Target {
        Target {
            route: self.route,
            uri,
            device: String::new(),
            instance: None,
            path: self.routes,
            core: true,
            branch: 1,
            away: false,
        }
    }
}

/// What a request of ours to the core has to have besides (RFC 7315 §4.6, §4.5): charging, where it is ours to begin.
pub(crate) fn charge(config: &Config, request: &mut Request, icid: &str) {
    let ims = &config.ims;
    if ims.charging_vector && !request.headers.has(&Name::PChargingVector) {
        let at = config.domain();
        let vector = format!("icid-value=\"{icid}\";icid-generated-at={at};orig-ioi={at}");
        request.headers.push(Name::PChargingVector, vector);
    }
    if !ims.charging_functions.is_empty() && !request.headers.has(&Name::PChargingFunctionAddresses) {
        request.headers.push(Name::PChargingFunctionAddresses, &ims.charging_functions);
    }
}

#[cfg(test)]
mod tests;
