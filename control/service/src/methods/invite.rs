//! INVITE outside a dialog: a session of the Participating Function (CPM-FACTS §2.5).

use sip::typed::Contact;

use super::{Arrival, Case, absent, devices, dialogs, ensure_ids, next};
use crate::b2b;
use crate::facts::Facts;
use crate::functions::{Addressee, Functions};
use crate::participating::{Caller, Plan, Start};
use crate::turn::Turn;

/// Opens a session towards the next function or the user's devices.
pub(super) fn decide(
    turn: &mut Turn<'_>,
    functions: &mut Functions,
    mut arrival: Arrival,
    caller: Caller,
    case: &Case,
    facts: &Facts,
) {
    // RFC 3261 §8.1.1.8: an INVITE without a usable Contact opens no dialog.
    let contact = match arrival.request.headers.must::<Contact>() {
        Ok(contact) => contact,
        Err(_) => return turn.respond(arrival.tx, b2b::refuse(turn.config(), &arrival.request, 400)),
    };
    if let Err(response) = ensure_ids(turn, &mut arrival.request) {
        return turn.respond(arrival.tx, *response);
    }
    let addressee = Addressee::of(turn.config(), &arrival.request);
    if matches!(addressee, Addressee::Conference(_)) {
        // A focus has members, and takes the place of nobody's dialog (RFC 3261 §8.2.2.3).
        let required = |option: &&str| arrival.request.headers.has_token(&sip::Name::Require, option);
        if let Some(option) = ["replaces", "join"].iter().find(|option| required(option)) {
            let mut response = b2b::refuse(turn.config(), &arrival.request, 420);
            response.headers.push(sip::Name::Unsupported, *option);
            return turn.respond(arrival.tx, response);
        }
    }
    let originating = matches!(case, Case::Originating(_));
    let device = match dialogs::translate(turn, functions, &mut arrival, &caller, originating) {
        Ok(device) => device,
        Err(response) => return turn.respond(arrival.tx, *response),
    };
    let from_focus = contact.has_feature("isfocus");
    let (user, originating, targets) = match case {
        Case::Originating(user) => match next(turn, &arrival) {
            Some(target) => (user.clone(), true, vec![target]),
            None => return turn.respond(arrival.tx, b2b::refuse(turn.config(), &arrival.request, 404)),
        },
        Case::Terminating(user) => {
            let mut targets = devices(turn, functions, &arrival, user);
            if let Some(device) = device {
                // The one that has the dialog, where we choose.
                targets.retain(|target| target.device.is_empty() || target.device == device);
            }
            if targets.is_empty() {
                return absent(turn, functions, &arrival, user, facts);
            }
            (user.clone(), false, targets)
        }
        Case::Conference | Case::Nobody(_) => return,
    };
    // One to one the terminating function anchors media; a user whom a focus invites is joined once and
    // fanned out when he has several devices (CPM-FACTS §2.8).
    let plan = match (originating, from_focus, targets.len()) {
        (true, _, _) | (false, true, 1) => Plan::Pass,
        (false, true, _) => Plan::FanOut,
        (false, false, _) => Plan::Relay,
    };
    let group = from_focus || matches!(addressee, Addressee::Conference(_));
    let route = arrival.route();
    let Arrival { tx, request, .. } = arrival;
    functions
        .participating
        .sessions
        .start(turn, Start { tx, request, route, user, originating, group, plan, caller, targets });
}
