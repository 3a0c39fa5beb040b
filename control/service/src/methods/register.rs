//! REGISTER (RFC 3261 §10.3).

use sip::digest::Kind;

use super::Arrival;
use crate::Key;
use crate::b2b;
use crate::facts::Facts;
use crate::functions::Functions;
use crate::identity;
use crate::lane_key::user_of;
use crate::registrar;
use crate::turn::Turn;

/// The subscriber of the address of record.
pub(super) fn needs(turn: &Turn<'_>, functions: &Functions, arrival: &Arrival) -> Option<Key> {
    let user = user_of(turn.config(), &arrival.request.to().ok()?.uri)?;
    functions.directory.need(&user)
}

/// Knows who registers, then has it done.
pub(super) fn decide(turn: &mut Turn<'_>, functions: &mut Functions, arrival: &Arrival, facts: &Facts) {
    let request = &arrival.request;
    let refuse = |turn: &mut Turn<'_>, code| {
        let response = b2b::refuse(turn.config(), request, code);
        turn.respond(arrival.tx, response);
    };
    // RFC 3261 §10.3 step 1, 5
    if !turn.config().is_ours(&request.uri.host.to_string()) {
        return refuse(turn, 404);
    }
    let Some(user) = request.to().ok().and_then(|to| user_of(turn.config(), &to.uri)) else {
        return refuse(turn, 400);
    };
    let service = if identity::is_trusted(turn.config(), &arrival.source) {
        // RFC 3261 §10.3 step 3 is the neighbour's affair; the subscriber must be known all the same, unless
        // nobody is.
        functions.directory.find(&user, facts).is_none_or(|s| s.service)
    } else {
        let known = &functions.directory;
        match identity::authenticate(turn, known, facts, request, Kind::User) {
            // Step 4: nobody registers for another one.
            Ok(subscriber) if subscriber.user != user => return refuse(turn, 403),
            Ok(subscriber) => subscriber.service,
            Err(response) => return turn.respond(arrival.tx, *response),
        }
    };
    if identity::is_trusted(turn.config(), &arrival.source)
        && registrar::third_party::is_third_party(turn.config(), request, &user)
    {
        let bindings = &mut functions.bindings;
        let response =
            registrar::third_party::register(turn, bindings, &user, service, &arrival.source, request);
        let there = functions.bindings.live(&user, turn.now.wall).any(|b| b.is_of_core());
        match registrar::third_party::Scscf::of(&arrival.source, request) {
            Some(scscf) if there && turn.config().ims.reg_event => {
                functions.watches.begin(turn, &user, scscf, service);
            }
            _ if !there => functions.watches.end(turn, &user),
            _ => {}
        }
        return turn.respond(arrival.tx, response);
    }
    let response =
        registrar::register(turn, &mut functions.bindings, &user, service, &arrival.source, request);
    turn.respond(arrival.tx, response);
}
