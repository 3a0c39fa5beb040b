//! SUBSCRIBE and REFER outside a dialog: between a user and a focus (CPM-FACTS §2.6 "Add", REQ-IF-CONV-02,
//! -03), and to one's own registrations (RFC 3680; REQ-PF-32) and presence, with its PUBLISH (RFC 3903); REFER between users is `refer`'s. Other event packages and other targets are not served here.

use sip::Method;
use sip::typed::Event;

use super::{Arrival, Case};
use crate::b2b;
use crate::facts::Facts;
use crate::functions::{Addressee, Functions};
use crate::participating::{Caller, Opening};
use crate::registrar::notifier::{Asking, Package};
use crate::turn::Turn;

/// Passes it on to the focus.
pub(super) fn decide(
    turn: &mut Turn<'_>,
    functions: &mut Functions,
    arrival: Arrival,
    caller: Caller,
    case: &Case,
    facts: &Facts,
) {
    let request = &arrival.request;
    let refuse = |turn: &mut Turn<'_>, code| {
        let response = b2b::refuse(turn.config(), request, code);
        turn.respond(arrival.tx, response);
    };
    let subscribe = request.method == Method::Subscribe;
    let package = request.headers.typed::<Event>().ok().flatten().map(|e| e.package);
    if let Some(package) = package.as_deref().filter(|_| subscribe).and_then(Package::of) {
        return own_state(turn, functions, arrival, case, package);
    }
    if subscribe && package.as_deref() != Some("conference") {
        // RFC 6665 §4.2.1.1
        let mut response = b2b::refuse(turn.config(), request, 489);
        response.headers.set(sip::Name::AllowEvents, "conference, reg, presence");
        return turn.respond(arrival.tx, response);
    }
    let addressee = Addressee::of(turn.config(), request);
    if !subscribe && matches!(addressee, Addressee::User(_) | Addressee::Elsewhere) {
        return super::refer::decide(turn, functions, arrival, caller, case, facts);
    }
    let (Case::Originating(user), Addressee::Conference(_)) = (case, &addressee) else {
        return refuse(turn, if subscribe { 404 } else { 403 });
    };
    // RFC 6665 §4.1.3, RFC 3515 §2.4.1: both open a dialog.
    if !request.headers.has(&sip::Name::Contact) {
        return refuse(turn, 400);
    }
    let Some(target) = addressee.target(turn.config(), &request.uri) else { return refuse(turn, 404) };
    let route = arrival.route();
    let user = user.clone();
    let Arrival { tx, request, .. } = arrival;
    functions.participating.relays.open(turn, Opening { tx, request, route, user, caller, target });
}

/// The devices of a user, and what they publish: for himself, and for neighbours whom we trust (RFC 3680 §4.5).
fn own_state(
    turn: &mut Turn<'_>,
    functions: &mut Functions,
    arrival: Arrival,
    case: &Case,
    package: Package,
) {
    let refuse = |turn: &mut Turn<'_>, code| {
        let response = b2b::refuse(turn.config(), &arrival.request, code);
        turn.respond(arrival.tx, response);
    };
    let addressee = Addressee::of(turn.config(), &arrival.request);
    let (user, subscriber) = match (case, addressee) {
        (Case::Originating(own), Addressee::User(user)) if *own == user => (user.clone(), Some(user)),
        (Case::Originating(_), Addressee::User(_)) => return refuse(turn, 403),
        (Case::Terminating(user), _) => (user.clone(), None),
        _ => return refuse(turn, 404),
    };
    let route = arrival.route();
    let Arrival { tx, request, .. } = arrival;
    let asking = Asking { tx, request, route, user, subscriber, package };
    functions.notifier.subscribe(turn, &functions.bindings, asking);
}

/// What a user publishes is his own (RFC 3903 §6 step 1, §14.1).
pub(super) fn publish(turn: &mut Turn<'_>, functions: &mut Functions, arrival: &Arrival, case: &Case) {
    let user = match (case, Addressee::of(turn.config(), &arrival.request)) {
        (Case::Originating(own), Addressee::User(user)) if *own == user => user,
        (Case::Terminating(user), Addressee::User(_)) => user.clone(),
        (_, addressee) => {
            let code = if matches!(addressee, Addressee::User(_)) { 403 } else { 404 };
            return turn.respond(arrival.tx, b2b::refuse(turn.config(), &arrival.request, code));
        }
    };
    functions.notifier.publish(turn, &functions.bindings, &user, arrival.tx, &arrival.request);
}
