//! OPTIONS to this node: a neighbour asks whether we live and what we can (RFC 3261 §11.2). OPTIONS to a user
//! goes to his devices, see `message`.

use sip::Name;

use super::Arrival;
use crate::b2b;
use crate::functions::Addressee;
use crate::supported;
use crate::turn::Turn;

/// True when we are meant, or when the request may go no further (RFC 3261 §11).
pub(super) fn is_ping(turn: &Turn<'_>, arrival: &Arrival) -> bool {
    let request = &arrival.request;
    b2b::max_forwards(request) == 0 || Addressee::of(turn.config(), request) == Addressee::Node
}

/// What we can.
pub(super) fn answer(turn: &mut Turn<'_>, arrival: &Arrival) {
    let mut response = arrival.request.respond(200);
    response.headers.push(Name::Allow, supported::ALLOW);
    response
        .headers
        .push(Name::Accept, "application/sdp, message/cpim, multipart/mixed, application/resource-lists+xml");
    response
        .headers
        .push(Name::Supported, "path, gruu, outbound, timer, 100rel, replaces, join, tdialog, norefersub");
    turn.respond(arrival.tx, response);
}
