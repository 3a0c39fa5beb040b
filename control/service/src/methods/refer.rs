//! REFER of one user to another outside of their dialog (RFC 3515): a device of his is asked to call somebody, so it is
//! taken only with the name of a dialog that it has with the asker (RFC 4538 §1, Target-Dialog), and goes to the device
//! that has it. Inside a dialog it is the session's business.

use sip::Name;
use sip::typed::ReferTo;

use super::{Arrival, Case, absent, devices, dialogs, next};
use crate::UserId;
use crate::b2b;
use crate::facts::Facts;
use crate::functions::Functions;
use crate::participating::{Caller, Opening, Target, vouch};
use crate::turn::Turn;

/// Passes it on to the device, or refuses it.
pub(super) fn decide(
    turn: &mut Turn<'_>,
    functions: &mut Functions,
    mut arrival: Arrival,
    caller: Caller,
    case: &Case,
    facts: &Facts,
) {
    let (user, target) = match target(turn, functions, &mut arrival, &caller, case, facts) {
        Ok(Some(found)) => found,
        // Answered.
        Ok(None) => return,
        Err(code) => {
            return turn.respond(arrival.tx, b2b::refuse(turn.config(), &arrival.request, code));
        }
    };
    let route = arrival.route();
    let Arrival { tx, request, .. } = arrival;
    functions.participating.relays.open(turn, Opening { tx, request, route, user, caller, target });
}

fn target(
    turn: &mut Turn<'_>,
    functions: &mut Functions,
    arrival: &mut Arrival,
    caller: &Caller,
    case: &Case,
    facts: &Facts,
) -> Result<Option<(UserId, Target)>, u16> {
    // RFC 3515 §2.4.2: exactly one; §2.4.1: it opens a dialog.
    let headers = &arrival.request.headers;
    if headers.must::<ReferTo>().is_err() || !headers.has(&Name::Contact) {
        return Err(400);
    }
    if !headers.has(&Name::TargetDialog) {
        return Err(403);
    }
    let originating = matches!(case, Case::Originating(_));
    let device = match dialogs::translate(turn, functions, arrival, caller, originating) {
        Ok(device) => device,
        Err(response) => {
            turn.respond(arrival.tx, *response);
            return Ok(None);
        }
    };
    match case {
        Case::Originating(user) => {
            vouch(turn.config(), user, &mut arrival.request)?;
            let target = next(turn, arrival).ok_or(404_u16)?;
            Ok(Some((user.clone(), target)))
        }
        Case::Terminating(user) => {
            // What is not ours has been taken away.
            if !arrival.request.headers.has(&Name::TargetDialog) {
                return Err(403);
            }
            let mut targets = devices(turn, functions, arrival, user);
            if let Some(device) = device {
                targets.retain(|target| target.device.is_empty() || target.device == device);
            }
            match targets.into_iter().next() {
                Some(target) => Ok(Some((user.clone(), target))),
                None => {
                    absent(turn, functions, arrival, user, facts);
                    Ok(None)
                }
            }
        }
        Case::Conference | Case::Nobody(_) => Err(403),
    }
}
