//! One REGISTER whose sender is known: all of its bindings change, or none (RFC 3261 §10.3 step 7).

use std::time::Duration;

use base::Private;
use sip::typed::{CSeq, Contacts, Expires, Path};
use sip::{Name, NameAddr, Params, Peer, Request, Response, Transport};

use super::bindings::{Bindings, Bound, key_of};
use crate::b2b;
use crate::records::Binding;
use crate::turn::Turn;
use crate::{Config, Source, UserId};

/// Parameters of a Contact that are the registrar's own: not features of the device.
const OWN: [&str; 7] = ["expires", "q", "reg-id", "+sip.instance", "methods", "pub-gruu", "temp-gruu"];

/// What one Contact asks for.
enum Wanted {
    Put(String, Box<Binding>),
    Remove(String),
}

/// Changes the bindings of `user`, and answers.
pub(crate) fn register(
    turn: &mut Turn<'_>,
    bindings: &mut Bindings,
    user: &UserId,
    service: bool,
    source: &Source,
    request: &Request,
) -> Response {
    match plan(turn, bindings, user, service, source, request) {
        Ok(changes) => {
            let connection = if let Source::Network { connection, .. } = source { *connection } else { 0 };
            for change in changes {
                match change {
                    Wanted::Put(key, binding) => bindings.put(turn, key, *binding, connection),
                    Wanted::Remove(key) => bindings.remove(turn, user, &key, "unregistered"),
                }
            }
            registered(turn, bindings, user, source, request)
        }
        Err(response) => *response,
    }
}

fn plan(
    turn: &Turn<'_>,
    bindings: &Bindings,
    user: &UserId,
    service: bool,
    source: &Source,
    request: &Request,
) -> Result<Vec<Wanted>, Box<Response>> {
    let refuse = |code| Box::new(b2b::refuse(turn.config(), request, code));
    let cseq = request.headers.must::<CSeq>().map_err(|_| refuse(400))?.seq;
    let call_id = request.call_id().ok_or_else(|| refuse(400))?.to_owned();
    let expires = request.headers.typed::<Expires>().map_err(|_| refuse(400))?.map(|e| e.0);
    // RFC 3261 §10.3 step 6 and 7: a REGISTER that comes too late changes nothing.
    let late = |known: &Binding| known.call_id == call_id && known.cseq >= cseq;
    let contacts = match Contacts::of(&request.headers).map_err(|_| refuse(400))? {
        Contacts::All if expires == Some(0) => {
            let all = bindings.all(user);
            if all.iter().any(|b| late(&b.binding)) {
                return Err(refuse(500));
            }
            return Ok(all.iter().map(|b| Wanted::Remove(b.key.clone())).collect());
        }
        Contacts::All => return Err(refuse(400)),
        Contacts::Some(contacts) => contacts,
    };
    let path: Vec<Private<String>> = request
        .headers
        .all::<Path>()
        .map_err(|_| refuse(400))?
        .into_iter()
        .map(|p| Private::new(p.to_string()))
        .collect();
    let aor = request.to().map(|to| to.uri.address_of_record().to_string()).map_err(|_| refuse(400))?;
    let Source::Network { peer, .. } = source else { return Err(refuse(403)) };
    let mut changes = Vec::with_capacity(contacts.len());
    let mut new = 0;
    for contact in contacts {
        let instance = contact.instance();
        // RFC 5626 §4.2
        let reg_id =
            contact.reg_id().and_then(|id| u32::try_from(id).ok()).filter(|id| (1..1 << 31).contains(id));
        let key = key_of(user, &contact.uri, instance.as_deref(), reg_id);
        let known = bindings.by_key(user, &key);
        if known.is_some_and(|b| late(&b.binding)) {
            return Err(refuse(500));
        }
        let seconds = contact.expires().or(expires).unwrap_or(turn.config().registrar.expires_default_s);
        if seconds == 0 {
            changes.push(Wanted::Remove(key));
            continue;
        }
        let limits = &turn.config().registrar;
        if seconds < limits.expires_min_s {
            let mut brief = refuse(423);
            brief.headers.push(Name::MinExpires, limits.expires_min_s.to_string());
            return Err(brief);
        }
        new += usize::from(known.is_none());
        for older in superseded(bindings, user, &key, &contact, peer) {
            new = new.saturating_sub(1);
            changes.push(Wanted::Remove(older.key.clone()));
        }
        let life = Duration::from_secs(seconds.min(limits.expires_max_s).into());
        let binding = Binding {
            user: user.clone(),
            aor: Private::new(aor.clone()),
            contact: Private::new(contact.uri.to_string()),
            features: features(&contact),
            instance: instance.map(Private::new),
            reg_id,
            q: contact.q_thousandths(),
            flow: *peer,
            service,
            path: path.clone(),
            call_id: call_id.clone(),
            cseq,
            expires: turn.now.wall + life,
            registered: turn.now.wall,
        };
        changes.push(Wanted::Put(key, Box::new(binding)));
    }
    let limits = &turn.config().limits;
    if bindings.live(user, turn.now.wall).count() + new > limits.bindings_per_user_max {
        return Err(Box::new(b2b::refuse_with(turn.config(), request, 403, "Too many contacts")));
    }
    if bindings.len() + new > limits.bindings_max {
        return Err(refuse(503));
    }
    Ok(changes)
}

/// Bindings of the same address that the new one replaces (RFC 3261 §10.3 step 7). Devices with names of their own
/// behind different NATs may say the same private address, and several flows of one device do (RFC 5626 §4.2).
fn superseded<'a>(
    bindings: &'a Bindings,
    user: &UserId,
    key: &str,
    contact: &NameAddr,
    peer: &Peer,
) -> impl Iterator<Item = &'a Bound> {
    let instance = contact.instance();
    bindings.all(user).iter().filter(move |b| {
        let same_place = b.binding.flow == *peer || b.binding.instance.is_none() || instance.is_none();
        b.key != key
            && same_place
            && !b.is_of(instance.as_deref())
            && b.contact().is_some_and(|uri| uri.equivalent(&contact.uri))
    })
}

/// The way to us that the user agent has taken, which a browser has no other than (RFC 3608 §6.3, RFC 7118 §6).
fn service_route(config: &Config, by: Transport) -> Option<String> {
    match config.listeners.of(by) {
        Some(addr) if by == Transport::Udp => Some(format!("<sip:{addr};lr>")),
        Some(addr) => Some(format!("<sip:{addr};transport={};lr>", by.label())),
        None => config.listeners.udp.or(config.listeners.tcp).map(|addr| format!("<sip:{addr};lr>")),
    }
}

pub(super) fn features(contact: &NameAddr) -> String {
    let mut params: Params = contact.params.clone();
    params.retain(|name| !OWN.iter().any(|own| name.eq_ignore_ascii_case(own)));
    params.to_string()
}

/// 200 with every binding that there is (RFC 3261 §10.3 step 8).
fn registered(
    turn: &Turn<'_>,
    bindings: &Bindings,
    user: &UserId,
    source: &Source,
    request: &Request,
) -> Response {
    let config = turn.config();
    let now = turn.now.wall;
    let mut response = request.respond(200);
    let mut aor = None;
    for bound in bindings.live(user, now).filter(|bound| !bound.is_of_core()) {
        let binding = &bound.binding;
        let left = binding.expires.since(now).as_secs();
        let mut value = format!("<{}>{};expires={left}", binding.contact.expose(), binding.features);
        if let Some(instance) = &binding.instance {
            value.push_str(&format!(";+sip.instance=\"{}\"", instance.expose()));
            if config.registrar.gruu
                && let Some(gruu) = bound.gruu()
            {
                value.push_str(&format!(";pub-gruu=\"{gruu}\""));
            }
        }
        if let Some(reg_id) = binding.reg_id {
            value.push_str(&format!(";reg-id={reg_id}"));
        }
        response.headers.push(Name::Contact, value);
        aor = Some(binding.aor.expose().clone());
    }
    // RFC 3327 §5.3, RFC 3608 §6.3
    response.headers.copy(&request.headers, &Name::Path);
    if config.registrar.service_route
        && let Source::Network { peer, .. } = source
        && let Some(route) = service_route(config, peer.transport)
    {
        response.headers.push(Name::ServiceRoute, route);
    }
    if let Some(aor) = aor {
        response.headers.push(Name::PAssociatedUri, format!("<{aor}>"));
    }
    response.headers.push(Name::Supported, "path, gruu, outbound");
    if request.headers.has_token(&Name::Supported, "outbound")
        && bindings.live(user, now).any(|b| b.binding.reg_id.is_some() && b.binding.instance.is_some())
    {
        // RFC 5626 §6: the registrar has done outbound.
        response.headers.push(Name::Require, "outbound");
    }
    response
}
