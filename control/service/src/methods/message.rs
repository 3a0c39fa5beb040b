//! MESSAGE outside a dialog, and OPTIONS to a user: one request to one or many, one answer (CPM-FACTS §2.3,
//! §2.5, §2.11).

use sip::{Method, Request, Response};

use super::{Arrival, Case, absent, addressed, devices, ensure_ids, imdn_key, next};
use crate::b2b;
use crate::facts::Facts;
use crate::functions::Functions;
use crate::lane_key::{sender, user_of};
use crate::participating::{About, Caller, Job, MessageId, Undo, Verdict, about, names};
use crate::turn::Turn;
use crate::{Key, UserId};

/// The notification state that the MESSAGE touches: of the sender of a notification, or of the recipient of a
/// message that wants notifications.
pub(super) fn needs(turn: &Turn<'_>, functions: &Functions, arrival: &Arrival) -> Option<Key> {
    let request = &arrival.request;
    let key = match about(&request.headers, &request.body).ok()? {
        About::Nothing => return None,
        About::Notification { id, originator, .. } => {
            imdn_key(&id, &originator, &sender(turn.config(), request)?)
        }
        About::Message { id, originator, .. } => imdn_key(&id, &originator, &addressed(turn, request)?),
    };
    (!functions.participating.states.has(key.id.expose(), turn.now.wall)).then_some(key)
}

/// Sends it on.
pub(super) fn decide(
    turn: &mut Turn<'_>,
    functions: &mut Functions,
    mut arrival: Arrival,
    caller: Caller,
    case: &Case,
    facts: &Facts,
) {
    let about = match screen(turn, &mut arrival.request) {
        Ok(about) => about,
        Err(response) => return turn.respond(arrival.tx, *response),
    };
    match case {
        Case::Originating(user) => originate(turn, functions, arrival, caller, user, &about, facts),
        Case::Terminating(user) => terminate(turn, functions, arrival, caller, user, about, facts),
        Case::Conference | Case::Nobody(_) => {}
    }
}

fn screen(turn: &mut Turn<'_>, request: &mut Request) -> Result<About, Box<Response>> {
    if request.method == Method::Options {
        return Ok(About::Nothing);
    }
    let max = usize::try_from(turn.config().participating.pager_max_bytes).unwrap_or(usize::MAX);
    let refuse = |code| Err(Box::new(b2b::refuse(turn.config(), request, code)));
    if request.body.len() > max {
        return refuse(413);
    }
    if !request.body.is_empty() && request.headers.typed::<sip::typed::ContentType>().ok().flatten().is_none()
    {
        return refuse(415);
    }
    let about = match about(&request.headers, &request.body) {
        Ok(about) => about,
        Err(_) => return refuse(400),
    };
    ensure_ids(turn, request)?;
    Ok(about)
}

/// The sender's own function. A notification of one of his devices is also where the recipient's
/// de-duplication stands: he is the recipient of what it is about.
fn originate(
    turn: &mut Turn<'_>,
    functions: &mut Functions,
    arrival: Arrival,
    caller: Caller,
    user: &UserId,
    about: &About,
    facts: &Facts,
) {
    let Some(target) = next(turn, &arrival) else {
        return turn.respond(arrival.tx, b2b::refuse(turn.config(), &arrival.request, 404));
    };
    let own = |name: &String| {
        let uri = cpm::address::uri_of(name).parse::<sip::Uri>();
        uri.is_ok_and(|uri| user_of(turn.config(), &uri).as_ref() == Some(user))
    };
    if !names(&arrival.request.headers, &arrival.request.body).iter().all(own) {
        return turn.respond(arrival.tx, b2b::refuse(turn.config(), &arrival.request, 403));
    }
    let id = MessageId::of_request(user, &arrival.request);
    if functions.participating.messages.joins(turn, id, arrival.tx, &arrival.request) {
        return;
    }
    let mut undo = None;
    if let About::Notification { id, originator, notification } = about {
        let key = imdn_key(id, originator, user);
        let states = &mut functions.participating.states;
        if states.learn(turn.now.wall, &key, facts) {
            let (verdict, before) = states.report(turn, key.id.expose(), user, *notification);
            if verdict == Verdict::Swallow {
                // The device has done its duty; the sender hears of it once.
                return turn.respond(arrival.tx, arrival.request.respond(200));
            }
            undo = Some(Undo { key: key.id.into_inner(), owner: user.clone(), before });
        }
    }
    let user = user.clone();
    let Arrival { tx, request, .. } = arrival;
    let job = Job { id, tx, request, user, caller, targets: vec![target], undo, durable: false };
    functions.participating.messages.send(turn, job);
}

/// The recipient's function: every device gets it.
fn terminate(
    turn: &mut Turn<'_>,
    functions: &mut Functions,
    arrival: Arrival,
    caller: Caller,
    user: &UserId,
    about: About,
    facts: &Facts,
) {
    let message = match &about {
        About::Message { id, originator, .. } => MessageId::of_imdn(user, id, originator, &arrival.request),
        _ => MessageId::of_request(user, &arrival.request),
    };
    if functions.participating.messages.joins(turn, message, arrival.tx, &arrival.request) {
        return;
    }
    let targets = devices(turn, functions, &arrival, user);
    if targets.is_empty() {
        return absent(turn, functions, &arrival, user, facts);
    }
    if let About::Message { id, originator, recipient } = about {
        let key = imdn_key(&id, &originator, user);
        let states = &mut functions.participating.states;
        if states.learn(turn.now.wall, &key, facts) {
            states.expect(turn, key.id.expose(), user, targets.len(), recipient);
        }
    }
    let durable = arrival.request.method == Method::Message;
    let user = user.clone();
    let Arrival { tx, request, .. } = arrival;
    let job = Job { id: message, tx, request, user, caller, targets, undo: None, durable };
    functions.participating.messages.send(turn, job);
}
