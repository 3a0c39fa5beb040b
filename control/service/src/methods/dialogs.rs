//! Headers of an INVITE that name another dialog: Replaces (RFC 3891), Join (RFC 3911), Target-Dialog (RFC 4538). The sender
//! names the dialog as it knows it, which is one with us; the other end knows another one. We stand between, so we name
//! that one.
//!
//! ```text
//!   phone 1 ── dialog A ── here ── dialog B ── far end
//!   phone 2 ── INVITE, Replaces: A ──▶ here ── INVITE, Replaces: B ──▶ far end, which ends B; then A ends too
//! ```
//!
//! Who takes a dialog over is the one whom it is with (RFC 3891 §8: only he is known to be allowed); another one gets 403.
//! The terminating function answers for its user: a dialog that nobody has here gets 481. The originating one passes on
//! what it does not know: it may be the far end's.

use sip::typed::{Join, Replaces, TargetDialog};
use sip::{Name, Params, Request, Response};

use super::Arrival;
use crate::b2b;
use crate::functions::Functions;
use crate::lane_key::user_of;
use crate::participating::Caller;
use crate::turn::Turn;

/// A dialog by its ids, as the receiver of a request knows it.
struct Named {
    header: Name,
    call_id: String,
    local_tag: String,
    remote_tag: String,
    params: Params,
}

/// Writes what the next hop knows into the request. The device that has the named dialog, where one does.
pub(super) fn translate(
    turn: &Turn<'_>,
    functions: &Functions,
    arrival: &mut Arrival,
    caller: &Caller,
    originating: bool,
) -> Result<Option<String>, Box<Response>> {
    let named = match named(&arrival.request) {
        Ok(Some(named)) => named,
        Ok(None) => return Ok(None),
        Err(code) => return Err(refuse(turn, &arrival.request, code)),
    };
    let sessions = &functions.participating.sessions;
    let Some(found) = sessions.across(&named.local_tag, &named.call_id, &named.remote_tag) else {
        return match originating {
            true => Ok(None),
            // RFC 3891 §3, RFC 3911 §4; RFC 4538 §4 asks for no more than this either where it is all the authorisation.
            false if named.header != Name::TargetDialog => Err(refuse(turn, &arrival.request, 481)),
            false => {
                arrival.request.headers.remove(&Name::TargetDialog);
                Ok(None)
            }
        };
    };
    if caller.user.is_none() || user_of(turn.config(), found.remote) != caller.user {
        return Err(refuse(turn, &arrival.request, 403));
    }
    // RFC 3891 §3: what is wanted only while it is early is confirmed.
    if named.header == Name::Replaces && named.params.has("early-only") {
        return Err(refuse(turn, &arrival.request, 486));
    }
    let id = found.dialog;
    let (to, from) = match named.header {
        Name::TargetDialog => ("local-tag", "remote-tag"),
        _ => ("to-tag", "from-tag"),
    };
    let value = format!("{};{to}={};{from}={}{}", id.call_id, id.remote_tag, id.local_tag, named.params);
    arrival.request.headers.set(named.header, value);
    Ok(Some(found.device.to_owned()).filter(|device| !device.is_empty()))
}

fn refuse(turn: &Turn<'_>, request: &Request, code: u16) -> Box<Response> {
    Box::new(b2b::refuse(turn.config(), request, code))
}

/// The one header of these that the request has; the error is the SIP status.
fn named(request: &Request) -> Result<Option<Named>, u16> {
    let h = &request.headers;
    let kinds = [Name::Replaces, Name::Join, Name::TargetDialog];
    let mut there = kinds.into_iter().filter(|name| h.has(name));
    let Some(header) = there.next() else { return Ok(None) };
    // RFC 3911 §4: never two of them, and never twice.
    if there.next().is_some() || h.fields(&header).count() > 1 {
        return Err(400);
    }
    macro_rules! read {
        ($kind:ty) => {{
            let it = h.must::<$kind>().map_err(|_| 400_u16)?;
            (it.call_id, it.local_tag, it.remote_tag, it.params)
        }};
    }
    let (call_id, local_tag, remote_tag, params) = match header {
        Name::Replaces => read!(Replaces),
        Name::Join => read!(Join),
        _ => read!(TargetDialog),
    };
    Ok(Some(Named { header, call_id, local_tag, remote_tag, params }))
}
