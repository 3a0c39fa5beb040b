//! Requests inside a dialog: who may speak in it (RFC 3261 §22, §12.2.2). The ids of a dialog are no secret,
//! everybody on the way reads them; so its requests come from whoever it is held with, or they prove it.
//!
//! ```text
//!   side towards a lane ──────── from a lane ──────────────────────────▶ served
//!                                from the network ─────────────────────▶ 481
//!   side towards the network ─── trusted peer ─────────────────────────▶ served
//!                                its datagram address, a flow of its user ▶ served
//!                                good credentials of its user ─────────▶ served     of another user: 403
//!                                anything else ────────────────────────▶ 407
//! ```

use sip::Name;
use sip::digest::Kind;

use super::Arrival;
use crate::b2b;
use crate::config::FlowTrust;
use crate::facts::Facts;
use crate::functions::Functions;
use crate::identity;
use crate::lane_key::credentials_user;
use crate::turn::Turn;
use crate::{Key, Route, Source, UserId};

/// With whom a dialog is held.
#[derive(Debug)]
pub(crate) struct Peer<'a> {
    /// The served user, where there is one.
    pub(crate) user: Option<&'a UserId>,
    pub(crate) route: &'a Route,
}

/// What the source of a request is to a dialog.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    /// It is the dialog's peer.
    Peer,
    /// It may prove that it is.
    Stranger,
    /// This dialog is not held with anybody there.
    Misplaced,
}

/// The facts that knowing the sender needs.
pub(crate) fn needs(turn: &Turn<'_>, functions: &Functions, tag: &str, arrival: &Arrival) -> Option<Key> {
    if standing(turn, functions, tag, &arrival.source) != Standing::Stranger {
        return None;
    }
    arrival.request.headers.first(&Name::ProxyAuthorization)?;
    functions.directory.need(&credentials_user(turn.config(), &arrival.request)?)
}

/// Does what the request asks, or refuses it.
pub(crate) fn decide(
    turn: &mut Turn<'_>,
    functions: &mut Functions,
    tag: &str,
    mut arrival: Arrival,
    facts: &Facts,
) {
    let refusal = match standing(turn, functions, tag, &arrival.source) {
        Standing::Peer => None,
        Standing::Misplaced => Some(Box::new(b2b::refuse(turn.config(), &arrival.request, 481))),
        Standing::Stranger => {
            let known =
                identity::authenticate(turn, &functions.directory, facts, &arrival.request, Kind::Proxy);
            match known.map(|subscriber| subscriber.user.clone()) {
                Ok(user) if functions.peer(tag).is_some_and(|p| p.user == Some(&user)) => None,
                Ok(_) => Some(Box::new(b2b::refuse(turn.config(), &arrival.request, 403))),
                Err(response) => Some(response),
            }
        }
    };
    if let Some(response) = refusal {
        return turn.respond(arrival.tx, *response);
    }
    if !identity::is_trusted(turn.config(), &arrival.source) {
        identity::strip(&mut arrival.request);
    }
    // Credentials end here (RFC 3261 §22.3).
    arrival.request.headers.remove(&Name::ProxyAuthorization);
    functions.in_dialog(turn, tag, arrival.tx, arrival.request);
}

/// An ACK cannot be challenged (RFC 3261 §22.1). One that brings an answer must come from the dialog's peer;
/// one without may come from anywhere, it only ends retransmissions.
pub(crate) fn takes_ack(
    turn: &Turn<'_>,
    functions: &Functions,
    tag: &str,
    source: &Source,
    request: &sip::Request,
) -> bool {
    request.body.is_empty() || standing(turn, functions, tag, source) == Standing::Peer
}

fn standing(turn: &Turn<'_>, functions: &Functions, tag: &str, source: &Source) -> Standing {
    // An unknown dialog is answered by the function that would have it.
    let Some(dialog) = functions.peer(tag) else { return Standing::Peer };
    match (dialog.route, source) {
        (Route::Lane(_), Source::Lane(_)) => Standing::Peer,
        (Route::Lane(_), Source::Network { .. }) | (Route::Peer(_) | Route::Name(_), Source::Lane(_)) => {
            Standing::Misplaced
        }
        (Route::Peer(_) | Route::Name(_), Source::Network { peer, .. }) => {
            let flow = match dialog.route {
                Route::Peer(own) => Some(own),
                Route::Name(named) => named.flow.as_ref(),
                Route::Lane(_) => None,
            };
            // A datagram's address and the ids together are what RFC 3261 knows; an address from which there
            // was a connection once says nothing about who comes from there now.
            let own = flow == Some(peer)
                && !peer.transport.is_reliable()
                && turn.config().identity.registered_flow_suffices != FlowTrust::Never;
            let bound = |user: &UserId| functions.bindings.by_flow(turn, user, source).is_some();
            if identity::is_trusted(turn.config(), source) || own || dialog.user.is_some_and(bound) {
                Standing::Peer
            } else {
                Standing::Stranger
            }
        }
    }
}
