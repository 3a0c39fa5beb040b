//! SUBSCRIBE and REFER outside a dialog: between a user and a focus (CPM-FACTS §2.6 "Add", REQ-IF-CONV-02,
//! -03). Other event packages and other targets are not served here.

use sip::Method;
use sip::typed::Event;

use super::{Arrival, Case};
use crate::b2b;
use crate::functions::{Addressee, Functions};
use crate::participating::{Caller, Opening};
use crate::turn::Turn;

/// Passes it on to the focus.
pub(super) fn decide(
    turn: &mut Turn<'_>,
    functions: &mut Functions,
    arrival: Arrival,
    caller: Caller,
    case: &Case,
) {
    let request = &arrival.request;
    let refuse = |turn: &mut Turn<'_>, code| {
        let response = b2b::refuse(turn.config(), request, code);
        turn.respond(arrival.tx, response);
    };
    let subscribe = request.method == Method::Subscribe;
    let package = request.headers.typed::<Event>().ok().flatten().map(|e| e.package);
    if subscribe && package.as_deref() != Some("conference") {
        return refuse(turn, 489);
    }
    let addressee = Addressee::of(turn.config(), request);
    let (Case::Originating(user), Addressee::Conference(_)) = (case, &addressee) else {
        return refuse(turn, if subscribe { 404 } else { 403 });
    };
    // RFC 6665 §4.1.3, RFC 3515 §2.4.1: both open a dialog.
    if !request.headers.has(&sip::Name::Contact) {
        return refuse(turn, 400);
    }
    let Some(target) = addressee.target(&request.uri) else { return refuse(turn, 404) };
    let route = arrival.route();
    let user = user.clone();
    let Arrival { tx, request, .. } = arrival;
    functions.participating.relays.open(turn, Opening { tx, request, route, user, caller, target });
}
