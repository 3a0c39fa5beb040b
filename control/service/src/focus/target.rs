//! What a request outside dialogs is aimed at, and where our requests go in the dialog that it opens.

use sip::Request;

use super::AD_HOC;
use crate::methods::Arrival;
use crate::{Config, LaneKey, Route};

/// Where our requests in the dialog go: to the lane that the peer's Contact names, when it is one of ours.
pub(super) fn route_back(arrival: &Arrival) -> Route {
    let contact = arrival.request.headers.typed::<sip::typed::Contact>().ok().flatten();
    let named = contact.and_then(|c| LaneKey::parse(c.uri.params.get(crate::lane_key::LANE_PARAM)?));
    match (arrival.route(), named) {
        (Route::Lane(_), Some(lane)) => Route::Lane(lane),
        (route, _) => route,
    }
}

/// What a request is aimed at.
pub(super) enum Target {
    Factory,
    Conference(String),
}

/// `None` for what is none of a Controlling Function's business.
pub(super) fn target(config: &Config, request: &Request) -> Option<Target> {
    let uri = &request.uri;
    if !uri.is_sip() || !config.is_ours(&uri.host.to_string()) {
        return None;
    }
    let user = uri.user_decoded()?;
    if *user == *config.controlling.factory {
        return Some(Target::Factory);
    }
    let known = user.starts_with(AD_HOC) || config.controlling.group(&user).is_some();
    known.then(|| Target::Conference(user.into_owned()))
}
