//! The entry points: one file per SIP method, each with what it needs to know (`needs`) and what it then does
//! (`decide`). Here: what is the same for all of them.

mod dialogs;
mod invite;
mod message;
mod options;
mod refer;
mod register;
mod subscribe;
pub(crate) mod within;

use sip::typed::Contact;
use sip::{Method, Name, Request, Response};

use crate::b2b;
use crate::facts::Facts;
use crate::functions::{Addressee, Functions};
use crate::identity;
use crate::isc::{self, Trigger};
use crate::lane_key::{is_originating, lane_in, user_of};
use crate::participating::{Caller, Target, choose};
use crate::supported;
use crate::turn::Turn;
use crate::{Function, Key, Route, ServerTx, Source, Table, UserId};

/// A request that opens something.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) tx: ServerTx,
    pub(crate) source: Source,
    pub(crate) request: Request,
}

impl Arrival {
    /// Where later requests of ours go.
    pub(crate) fn route(&self) -> Route {
        match &self.source {
            Source::Network { peer, .. } => Route::Peer(*peer),
            // The bucket that its Contact names; the driver only knows which lane it is.
            Source::Lane(lane) => {
                let contact = self.request.headers.typed::<Contact>().ok().flatten();
                Route::Lane(contact.and_then(|c| lane_in(&c.uri)).unwrap_or(*lane))
            }
        }
    }
}

/// For whom the Participating Function acts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Case {
    /// For the sender.
    Originating(UserId),
    /// For the addressee.
    Terminating(UserId),
    /// For a conference: the Controlling Function.
    Conference,
    /// For nobody.
    Nobody(u16),
}

/// What is refused before anything is looked up; also takes away what a stranger must not say.
pub(crate) fn screen(turn: &Turn<'_>, arrival: &mut Arrival) -> Result<(), Box<Response>> {
    let config = turn.config();
    if !identity::is_trusted(config, &arrival.source) {
        identity::strip(&mut arrival.request);
    }
    let request = &arrival.request;
    let refuse = |code| Err(Box::new(b2b::refuse(config, request, code)));
    if request.method != Method::Register && !request.uri.is_sip() && request.uri.scheme != sip::Scheme::Tel {
        // RFC 3261 §8.2.2.1
        return refuse(416);
    }
    // RFC 3261 §16.3 step 3: a REGISTER and an OPTIONS for this hop are answered here.
    if b2b::max_forwards(request) == 0 && !matches!(request.method, Method::Register | Method::Options) {
        return refuse(483);
    }
    let unsupported = supported::unsupported(request);
    if !unsupported.is_empty() {
        let mut response = b2b::refuse(config, request, 420);
        response.headers.push(Name::Unsupported, unsupported.join(", "));
        return Err(Box::new(response));
    }
    match request.method {
        Method::Invite
        | Method::Message
        | Method::Options
        | Method::Register
        | Method::Subscribe
        | Method::Publish
        | Method::Refer => Ok(()),
        // Those exist inside dialogs only.
        Method::Bye | Method::Update | Method::Info | Method::Notify | Method::Prack => refuse(481),
        _ => refuse(405),
    }
}

/// Makes up the ids that a peer from before CPM does not send (CPM-FACTS §2.5 step 4).
fn ensure_ids(turn: &mut Turn<'_>, request: &mut Request) -> Result<(), Box<Response>> {
    for name in [Name::ConversationId, Name::ContributionId] {
        if request.headers.text(&name).is_some_and(|id| !id.trim().is_empty()) {
            continue;
        }
        if !turn.config().participating.lenient_ids {
            return Err(Box::new(b2b::refuse(turn.config(), request, 400)));
        }
        let id = cpm::ConversationId::draw(&mut turn.desk.entropy);
        request.headers.set(name, id.as_str());
    }
    Ok(())
}

/// For whom a request is, once its sender is known.
fn case(turn: &Turn<'_>, arrival: &Arrival, caller: &Caller) -> Case {
    let config = turn.config();
    let request = &arrival.request;
    let addressee = Addressee::of(config, request);
    if let Some(trigger) = Trigger::of(config, &arrival.source, request) {
        // What filter criteria have brought goes back to them, whomever it is for.
        let named = match (&addressee, trigger.originating) {
            (_, true) => caller.user.clone(),
            (Addressee::User(user), false) => Some(user.clone()),
            (_, false) => None,
        };
        return match trigger.served.or(named) {
            Some(user) if trigger.originating => Case::Originating(user),
            Some(user) => Case::Terminating(user),
            None => Case::Nobody(404),
        };
    }
    let top = request.headers.typed().ok().flatten();
    let originating = match arrival.source {
        Source::Lane(_) => false,
        _ => !identity::is_trusted(config, &arrival.source) || is_originating(request, top.as_ref()),
    };
    // RFC 5502: whom a trusted neighbour names is served, and the request is in his lane (`lane_of`).
    let from_core =
        matches!(arrival.source, Source::Network { .. }) && identity::is_trusted(config, &arrival.source);
    let served = if from_core { isc::served(config, request) } else { None };
    match (originating, &caller.user, addressee) {
        (true, Some(user), _) => Case::Originating(served.unwrap_or_else(|| user.clone())),
        (true, None, _) => Case::Nobody(403),
        (false, _, Addressee::Conference(_)) if matches!(arrival.source, Source::Lane(_)) => Case::Conference,
        // A trusted neighbour sends for one of our conferences: the sender's own function stands between.
        (false, Some(user), Addressee::Conference(_)) => {
            Case::Originating(served.unwrap_or_else(|| user.clone()))
        }
        (false, None, Addressee::Conference(_)) => Case::Nobody(403),
        (false, _, Addressee::User(user)) => Case::Terminating(served.unwrap_or(user)),
        (false, _, Addressee::Node | Addressee::Elsewhere) => Case::Nobody(404),
    }
}

/// The facts that the decision about a request needs.
pub(crate) fn needs(turn: &Turn<'_>, functions: &Functions, arrival: &Arrival) -> Vec<Key> {
    let request = &arrival.request;
    let mut keys: Vec<Key> = Vec::new();
    keys.extend(identity::needs(turn, &functions.bindings, &functions.directory, &arrival.source, request));
    if request.method == Method::Register {
        keys.extend(register::needs(turn, functions, arrival));
        return keys;
    }
    let trusted = identity::is_trusted(turn.config(), &arrival.source);
    let addressee = Addressee::of(turn.config(), request);
    match &addressee {
        // 404 or 480: a user without a device may still be a subscriber.
        Addressee::User(user) if trusted && functions.bindings.all(user).is_empty() => {
            keys.extend(functions.directory.need(user));
        }
        Addressee::Conference(_) if matches!(arrival.source, Source::Lane(_)) => {
            keys.extend(functions.focus.needs(turn, request));
        }
        _ => {}
    }
    if request.method == Method::Message {
        keys.extend(message::needs(turn, functions, arrival));
    }
    keys
}

/// Does what the request asks, or refuses it.
pub(crate) fn decide(turn: &mut Turn<'_>, functions: &mut Functions, mut arrival: Arrival, facts: &Facts) {
    if arrival.request.method == Method::Register {
        turn.acts(Function::Registrar);
        register::decide(turn, functions, &arrival, facts);
        return;
    }
    if arrival.request.method == Method::Options && options::is_ping(turn, &arrival) {
        options::answer(turn, &arrival);
        return;
    }
    let caller = identity::identify(
        turn,
        &functions.bindings,
        &functions.directory,
        facts,
        &arrival.source,
        &arrival.request,
    );
    let caller = match caller {
        Ok(caller) => caller,
        Err(response) => return turn.respond(arrival.tx, *response),
    };
    // Credentials end here (RFC 3261 §22.3).
    arrival.request.headers.remove(&Name::ProxyAuthorization);
    let case = case(turn, &arrival, &caller);
    match case {
        Case::Originating(_) => turn.acts(Function::Originating),
        Case::Terminating(_) => turn.acts(Function::Terminating),
        Case::Conference => turn.acts(Function::Controlling),
        Case::Nobody(_) => {}
    }
    match case {
        Case::Nobody(code) => {
            let response = b2b::refuse(turn.config(), &arrival.request, code);
            turn.respond(arrival.tx, response);
        }
        Case::Conference => functions.focus.request(turn, arrival, caller, facts),
        case => match arrival.request.method {
            Method::Invite => invite::decide(turn, functions, arrival, caller, &case, facts),
            Method::Message | Method::Options => {
                message::decide(turn, functions, arrival, caller, &case, facts);
            }
            Method::Publish => subscribe::publish(turn, functions, &arrival, &case),
            _ => subscribe::decide(turn, functions, arrival, caller, &case, facts),
        },
    }
}

/// Where an originating request goes: back to whoever brought it, else to the next function of this node.
fn next(turn: &Turn<'_>, arrival: &Arrival) -> Option<Target> {
    let uri = &arrival.request.uri;
    match Trigger::of(turn.config(), &arrival.source, &arrival.request) {
        Some(trigger) => Some(trigger.target(uri.clone())),
        None => Addressee::of(turn.config(), &arrival.request).target(turn.config(), uri),
    }
}

/// Where a terminating request goes: back to whoever brought it, who knows the user's devices; else to those that are
/// registered here. Nowhere, when none is.
fn devices(turn: &mut Turn<'_>, functions: &Functions, arrival: &Arrival, user: &UserId) -> Vec<Target> {
    match Trigger::of(turn.config(), &arrival.source, &arrival.request) {
        Some(trigger) if trigger.registered => vec![trigger.target(arrival.request.uri.clone())],
        Some(_) => Vec::new(),
        None => {
            let max = turn.config().limits.fork_max;
            let mut contacts = 0;
            let live = functions.bindings.live(user, turn.now.wall).inspect(|_| contacts += 1);
            let chosen = choose(&arrival.request, live, max);
            turn.desk.acted.devices = Some((chosen.len(), contacts));
            chosen
        }
    }
}

/// 404 for a stranger, 480 for a subscriber who is not there (CPM-FACTS §2.7).
fn absent(turn: &mut Turn<'_>, functions: &Functions, arrival: &Arrival, user: &UserId, facts: &Facts) {
    // Whom an S-CSCF brings a request for is its subscriber.
    let brought = || Trigger::of(turn.config(), &arrival.source, &arrival.request).is_some();
    let known = functions.directory.find(user, facts).is_some() || brought();
    let response = b2b::refuse(turn.config(), &arrival.request, if known { 480 } else { 404 });
    turn.respond(arrival.tx, response);
}

/// The key of an IMDN state, for `needs`.
fn imdn_key(id: &str, originator: &UserId, recipient: &UserId) -> Key {
    Key::new(Table::Imdn, crate::participating::imdn_key(id, originator, recipient))
}

/// The subscriber whom the Request-URI means.
fn addressed(turn: &Turn<'_>, request: &Request) -> Option<UserId> {
    user_of(turn.config(), &request.uri)
}
