//! Third-party REGISTER: an S-CSCF tells its application server who has registered (TS 24.229 §5.4.1.7, §5.7.1.1;
//! RFC 3261 §10.2 "third-party registration"). In its body may be the user's REGISTER and the 200 that it got, each as
//! `message/sip`.
//!
//! ```text
//!   Expires > 0   the 200 inside      the user's devices are those that it lists, no others
//!                 a REGISTER only     its Contacts are added or refreshed
//!                 nothing             the user is there, with one device that nothing is known of
//!   Expires = 0                       the user is gone
//! ```
//!
//! Each device is a binding whose address is its public GRUU, else the user's own address, and whose Path is the S-CSCF:
//! what is sent to it goes there, with the device's instance in Accept-Contact (RFC 3841), and never around it.

use std::time::Duration;

use base::{Private, UnixTime};
use sip::typed::{CSeq, Contact, Contacts, ContentType, Expires, To};
use sip::{Headers, Limits, Message, Name, NameAddr, Peer, Request, Response, Uri};

use super::bindings::{Bindings, Bound, OF_CORE, key_of};
use super::register::features;
use crate::b2b;
use crate::lane_key::user_of;
use crate::records::Binding;
use crate::turn::Turn;
use crate::{Config, Route, Source, UserId};

/// A REGISTER for somebody else than its sender, from whom we take that.
pub(crate) fn is_third_party(config: &Config, request: &Request, user: &UserId) -> bool {
    request.from().is_ok_and(|from| user_of(config, &from.uri).as_ref() != Some(user))
}

/// An S-CSCF and the way to it.
#[derive(Clone, Debug)]
pub(crate) struct Scscf {
    /// Where its requests go.
    pub(crate) route: Route,
    peer: Peer,
    /// The Route through it.
    pub(crate) path: String,
}

impl Scscf {
    /// Whoever sends a third-party REGISTER: the address that its Contact names, else where it spoke from.
    pub(crate) fn of(source: &Source, request: &Request) -> Option<Scscf> {
        let Source::Network { peer, .. } = source else { return None };
        let mut uri = request.headers.must::<Contact>().ok()?.uri.clone();
        uri.headers.clear();
        if !uri.is_loose_router() {
            uri.params.set("lr", None);
        }
        let peer = sip::hop::target_of(&uri).and_then(|target| target.peer()).unwrap_or(*peer);
        Some(Scscf { route: Route::Peer(peer), peer, path: NameAddr::new(uri).to_string() })
    }
}

/// A device of the user's by an S-CSCF's word: the key of its binding, and that.
#[expect(clippy::too_many_arguments, reason = "a binding has as many columns")]
pub(crate) fn device(
    now: UnixTime,
    user: &UserId,
    aor: &Uri,
    contact: &NameAddr,
    life_s: u32,
    scscf: &Scscf,
    service: bool,
    (call_id, cseq): (&str, u32),
) -> (String, Binding) {
    let address = gruu(contact).unwrap_or_else(|| aor.clone());
    let instance = contact.instance();
    let key = key_of(user, &address, instance.as_deref(), Some(OF_CORE));
    let binding = Binding {
        user: user.clone(),
        aor: Private::new(aor.to_string()),
        contact: Private::new(address.to_string()),
        features: features(contact),
        instance: instance.map(Private::new),
        reg_id: Some(OF_CORE),
        q: contact.q_thousandths(),
        flow: scscf.peer,
        service,
        path: vec![Private::new(scscf.path.clone())],
        call_id: call_id.to_owned(),
        cseq,
        expires: now + Duration::from_secs(life_s.into()),
        registered: now,
    };
    (key, binding)
}

/// What is inside.
enum Told {
    /// All of the user's contacts.
    All(Vec<NameAddr>),
    /// Some of them.
    Some(Vec<NameAddr>),
    Nothing,
}

/// Takes the news, and answers.
pub(crate) fn register(
    turn: &mut Turn<'_>,
    bindings: &mut Bindings,
    user: &UserId,
    service: bool,
    source: &Source,
    request: &Request,
) -> Response {
    match plan(turn, bindings, user, service, source, request) {
        Ok((gone, put, expires_s)) => {
            for key in gone {
                bindings.remove(turn, user, &key, "unregistered");
            }
            for (key, binding) in put {
                bindings.put(turn, key, binding, 0);
            }
            let mut response = request.respond(200);
            response.headers.set(Name::Expires, expires_s.to_string());
            response
        }
        Err(code) => b2b::refuse(turn.config(), request, code),
    }
}

type Plan = (Vec<String>, Vec<(String, Binding)>, u32);

fn plan(
    turn: &Turn<'_>,
    bindings: &Bindings,
    user: &UserId,
    service: bool,
    source: &Source,
    request: &Request,
) -> Result<Plan, u16> {
    let way = Scscf::of(source, request).ok_or(400_u16)?;
    let cseq = request.headers.must::<CSeq>().map_err(|_| 400_u16)?.seq;
    let call_id = request.call_id().ok_or(400_u16)?.to_owned();
    let scscf = request.headers.must::<Contact>().map_err(|_| 400_u16)?;
    let limits = &turn.config().registrar;
    let asked = request.headers.typed::<Expires>().map_err(|_| 400_u16)?.map(|e| e.0);
    let expires_s = scscf.expires().or(asked).unwrap_or(limits.expires_default_s).min(limits.expires_max_s);
    let known: Vec<&Bound> = bindings.all(user).iter().filter(|bound| bound.is_of_core()).collect();
    // RFC 3261 §10.3 step 7: what comes too late changes nothing.
    if known.iter().any(|b| b.binding.call_id == call_id && b.binding.cseq >= cseq) {
        return Err(500);
    }
    if expires_s == 0 {
        return Ok((known.iter().map(|b| b.key.clone()).collect(), Vec::new(), 0));
    }
    let aor = request.to().map(|to| to.uri.address_of_record()).map_err(|_| 400_u16)?;
    let (contacts, all) = match inside(turn.config(), user, request)? {
        Told::All(contacts) => (contacts, true),
        Told::Some(contacts) => (contacts, false),
        Told::Nothing => (vec![NameAddr::new(aor.clone())], false),
    };
    let mut put = Vec::with_capacity(contacts.len());
    for contact in &contacts {
        let left = contact.expires().unwrap_or(expires_s).min(expires_s);
        let (key, binding) =
            device(turn.now.wall, user, &aor, contact, left, &way, service, (&call_id, cseq));
        if left == 0 || put.iter().any(|(other, _)| *other == key) {
            continue;
        }
        put.push((key, binding));
    }
    let is_new = |key: &String| bindings.by_key(user, key).is_none();
    let new = put.iter().filter(|(key, _)| is_new(key)).count();
    let gone: Vec<String> = known
        .iter()
        .map(|b| &b.key)
        .filter(|key| all && !put.iter().any(|(kept, _)| kept == *key))
        .cloned()
        .collect();
    let limits = &turn.config().limits;
    if bindings.live(user, turn.now.wall).count() + new - gone.len().min(new) > limits.bindings_per_user_max {
        return Err(403);
    }
    if bindings.len() + new > limits.bindings_max {
        return Err(503);
    }
    Ok((gone, put, expires_s))
}

/// RFC 5627 §3.2: the registrar's name for the device, quoted in the Contact of its 200.
fn gruu(contact: &NameAddr) -> Option<Uri> {
    contact.params.text("pub-gruu")?.parse().ok()
}

/// What the body tells; it must be about the same user (TS 24.229 §5.7.1.1).
fn inside(config: &Config, user: &UserId, request: &Request) -> Result<Told, u16> {
    if request.body.is_empty() {
        return Ok(Told::Nothing);
    }
    let kind = request.headers.typed::<ContentType>().ok().flatten().ok_or(400_u16)?.0;
    let limits = Limits::default();
    let mut messages = Vec::new();
    if kind.is("message/sip") {
        messages.push(request.body.clone());
    } else if kind.kind.eq_ignore_ascii_case("multipart") {
        let parts = sip::multipart::parse(&kind, &request.body, &limits).map_err(|_| 400_u16)?;
        messages.extend(parts.iter().filter(|p| p.media_type().is("message/sip")).map(|p| p.body.clone()));
    } else {
        // Service information of the filter criteria, or whatever else: not for us.
        return Ok(Told::Nothing);
    }
    let mut told = Told::Nothing;
    for bytes in messages {
        let message = sip::datagram(bytes, &limits).map_err(|_| 400_u16)?.ok_or(400_u16)?;
        if !is_about(config, user, message.headers()) {
            return Err(400);
        }
        let contacts = |headers: &Headers| match Contacts::of(headers) {
            Ok(Contacts::Some(contacts)) => Ok(contacts),
            Ok(Contacts::All) => Ok(Vec::new()),
            Err(_) => Err(400_u16),
        };
        told = match (message, told) {
            (Message::Response(ok), _) if ok.is_success() => Told::All(contacts(&ok.headers)?),
            (Message::Request(register), Told::Nothing) => Told::Some(contacts(&register.headers)?),
            (_, told) => told,
        };
    }
    Ok(told)
}

fn is_about(config: &Config, user: &UserId, headers: &Headers) -> bool {
    let to = headers.must::<To>().ok().and_then(|to| user_of(config, &to.uri));
    let register = headers.typed::<CSeq>().ok().flatten().is_some_and(|c| c.method == sip::Method::Register);
    register && to.as_ref() == Some(user)
}
