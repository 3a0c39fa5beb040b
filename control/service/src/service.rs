//! The machine of one lane: takes each input to the function that it is for, and no more.

use base::{Entropy, HashSeed, Instant, Map, Now, Outbox, map};
use sip::{Method, Request};

use crate::facts::Facts;
use crate::functions::Functions;
use crate::media::Anchor;
use crate::methods::{self, Arrival};
use crate::records::{Record, Row};
use crate::turn::{Desk, Orderer, Owner, Turn, Wake};
use crate::{Acted, Ask, Config, Counters, Function, Input, Key, Output, Source, b2b};

/// Timers that one call works off; the driver calls again at once when more are due.
const TIMERS_STEP: usize = 32;

/// A request that waits for facts, and which.
#[derive(Debug)]
struct Waiting {
    arrival: Arrival,
    keys: Vec<Key>,
}

/// Every decision for the users and conferences of one lane.
#[derive(Debug)]
pub struct Service {
    desk: Desk,
    functions: Functions,
    /// Requests that wait for facts.
    waiting: Map<Ask, Waiting>,
}

impl Service {
    /// A lane's machine. It draws all its randomness from `entropy`.
    pub fn new(config: Config, entropy: Entropy) -> Self {
        let desk = Desk::new(config, entropy);
        let seed: HashSeed = desk.seed;
        Service { functions: Functions::new(&desk), waiting: map(seed), desk }
    }

    /// Takes one event.
    pub fn handle(&mut self, now: Now, input: Input, out: &mut Outbox<Output>) {
        let Service { desk, functions, waiting } = self;
        desk.acted = Acted::default();
        let mut turn = Turn::new(now, desk, out);
        take(&mut turn, functions, waiting, input);
        functions.notifier.changed(&mut turn, &mut functions.bindings);
        turn.finish();
    }

    /// Does what is due. Call it again while [`Service::next_timeout`] is not in the future.
    pub fn timeout(&mut self, now: Now, out: &mut Outbox<Output>) {
        let Service { desk, functions, .. } = self;
        desk.acted = Acted::default();
        let mut turn = Turn::new(now, desk, out);
        let sessions = &mut functions.participating.sessions;
        if sessions.has_backlog() {
            sessions.work_off(&mut turn);
        } else if functions.focus.has_backlog() {
            functions.focus.work_off(&mut turn);
        } else if !functions.strays.is_empty() {
            functions.remove_strays(&mut turn);
        } else {
            for _ in 0..TIMERS_STEP {
                let Some(due) = turn.due() else { break };
                wake(&mut turn, functions, due);
            }
        }
        functions.notifier.changed(&mut turn, &mut functions.bindings);
        turn.finish();
    }

    /// When [`Service::timeout`] is wanted next.
    pub fn next_timeout(&self) -> Option<Instant> {
        let functions = &self.functions;
        if functions.participating.sessions.has_backlog()
            || functions.focus.has_backlog()
            || !functions.strays.is_empty()
        {
            return Some(Instant::ZERO);
        }
        self.desk.next_timeout()
    }

    /// Which function took the last event: for a trace.
    pub fn acted(&self) -> Acted {
        self.desk.acted
    }

    /// What the lane has counted, and how full its tables are.
    pub fn counters(&self) -> Counters {
        let part = &self.functions.participating;
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        Counters {
            bindings: count(self.functions.bindings.len()),
            sessions: count(part.sessions.len()),
            messages: count(part.messages.len()),
            relays: count(part.relays.len()),
            conferences: count(self.functions.focus.len()),
            files: count(self.functions.focus.files()),
            publications: count(self.functions.notifier.publications()),
            ..self.desk.counters
        }
    }
}

fn take(turn: &mut Turn<'_>, functions: &mut Functions, waiting: &mut Map<Ask, Waiting>, input: Input) {
    match input {
        Input::Request { tx, source, request } => {
            turn.desk.counters.requests += 1;
            match request.to_tag() {
                Some(tag) if request.method != Method::Register => {
                    arrive_within(turn, functions, waiting, &tag, Arrival { tx, source, request });
                }
                _ => arrive(turn, functions, waiting, Arrival { tx, source, request }),
            }
        }
        Input::Disconnected { connection } => functions.bindings.disconnected(connection),
        Input::Ack { source, request } => acknowledged(turn, functions, &source, &request),
        Input::Cancelled { tx, reason } => {
            turn.acts(Function::Participating);
            if !functions.participating.sessions.cancelled(turn, tx, reason.as_ref()) {
                turn.acts(Function::Controlling);
                waiting.retain(|_, w| w.arrival.tx != tx || !take_back(turn, &w.arrival));
                functions.focus.cancelled(turn, tx, reason.as_ref());
            }
        }
        Input::AckMissing { tx } => {
            turn.acts(Function::Participating);
            if !functions.participating.sessions.ack_missing(turn, tx) {
                turn.acts(Function::Controlling);
                functions.focus.ack_missing(turn, tx);
            }
        }
        Input::Response { tx, response } => answered(turn, functions, tx, response),
        Input::Expired { tx } => expired(turn, functions, tx),
        Input::Facts { ask, rows } => {
            if let Some(Waiting { arrival, keys }) = waiting.remove(&ask) {
                decide(turn, functions, arrival, &Facts::new(keys, rows));
            } else {
                functions.auths.facts(turn, &functions.directory, ask, rows);
            }
        }
        Input::Applied { ask, applied } => match ordered(turn, ask) {
            Some(Orderer::Session(id)) => functions.participating.sessions.applied(turn, id, ask, &applied),
            Some(Orderer::Focus(number)) => functions.focus.applied(turn, number, ask, &applied),
            Some(Orderer::Nobody) | None => {}
        },
        Input::Refused { ask, refusal } => match ordered(turn, ask) {
            Some(Orderer::Session(id)) => functions.participating.sessions.refused(turn, id, ask, &refusal),
            Some(Orderer::Focus(number)) => functions.focus.refused(turn, number, ask, &refusal),
            Some(Orderer::Nobody) | None => {}
        },
        Input::News(news) => told(turn, functions, &news),
        Input::DataplaneUp { welcome, instance_changed } => {
            turn.desk.link(&welcome);
            if instance_changed {
                functions.participating.sessions.put_again();
                functions.focus.put_again();
            }
        }
        // Media goes on, and orders are refused by the driver until the link is back.
        Input::DataplaneDown => {}
        Input::Audited { contexts } => functions.audited(&contexts),
        Input::Restored { rows, done } => {
            for row in rows {
                restore(turn, functions, row);
            }
            if done {
                functions.offer_restored(turn);
                functions.participating.sessions.restored(turn);
                functions.focus.restored(turn);
            }
        }
    }
}

/// Who ordered the data plane, and is told now.
fn ordered(turn: &mut Turn<'_>, ask: Ask) -> Option<Orderer> {
    let orderer = turn.desk.take_orderer(ask);
    match orderer {
        Some(Orderer::Session(_)) => turn.acts(Function::Participating),
        Some(Orderer::Focus(_)) => turn.acts(Function::Controlling),
        Some(Orderer::Nobody) | None => {}
    }
    orderer
}

/// Which function a request belongs to.
fn function_of(owner: Owner) -> Option<Function> {
    match owner {
        Owner::Message(..) | Owner::Session(_) | Owner::Relay(_) => Some(Function::Participating),
        Owner::Focus(_) => Some(Function::Controlling),
        Owner::Watch(_) | Owner::Notifier(_) => Some(Function::Registrar),
        Owner::Nobody => None,
    }
}

/// receive → prefetch → decide (DESIGN §1).
fn arrive(
    turn: &mut Turn<'_>,
    functions: &mut Functions,
    waiting: &mut Map<Ask, Waiting>,
    mut arrival: Arrival,
) {
    if let Err(response) = methods::screen(turn, &mut arrival) {
        turn.respond(arrival.tx, *response);
        return;
    }
    let keys = methods::needs(turn, functions, &arrival);
    prefetch(turn, functions, waiting, arrival, keys);
}

/// The same for a request inside a dialog.
fn arrive_within(
    turn: &mut Turn<'_>,
    functions: &mut Functions,
    waiting: &mut Map<Ask, Waiting>,
    tag: &str,
    arrival: Arrival,
) {
    let keys = methods::within::needs(turn, functions, tag, &arrival).into_iter().collect();
    prefetch(turn, functions, waiting, arrival, keys);
}

fn prefetch(
    turn: &mut Turn<'_>,
    functions: &mut Functions,
    waiting: &mut Map<Ask, Waiting>,
    arrival: Arrival,
    keys: Vec<Key>,
) {
    if keys.is_empty() {
        decide(turn, functions, arrival, &Facts::default());
        return;
    }
    if waiting.len() >= turn.config().limits.asks_max {
        turn.desk.counters.asks_refused += 1;
        let response = b2b::refuse(turn.config(), &arrival.request, 503);
        turn.respond(arrival.tx, response);
        return;
    }
    let ask = turn.need(keys.clone());
    waiting.insert(ask, Waiting { arrival, keys });
}

fn decide(turn: &mut Turn<'_>, functions: &mut Functions, arrival: Arrival, facts: &Facts) {
    match arrival.request.to_tag() {
        Some(tag) if arrival.request.method != Method::Register => {
            methods::within::decide(turn, functions, &tag, arrival, facts);
        }
        _ => methods::decide(turn, functions, arrival, facts),
    }
}

/// The INVITE still waited for facts; true when it was answered.
fn take_back(turn: &mut Turn<'_>, arrival: &Arrival) -> bool {
    turn.respond(arrival.tx, arrival.request.respond(487));
    true
}

fn acknowledged(turn: &mut Turn<'_>, functions: &mut Functions, source: &Source, request: &Request) {
    let tag = request.to_tag().unwrap_or_default();
    let takes = methods::within::takes_ack(turn, functions, &tag, source, request);
    if takes && functions.participating.sessions.has(&tag) {
        turn.acts(Function::Participating);
        functions.participating.sessions.ack(turn, &tag, request);
    } else if takes && functions.focus.has(&tag) {
        turn.acts(Function::Controlling);
        functions.focus.ack(turn, &tag, request);
    } else {
        turn.desk.counters.acks_stray += 1;
    }
}

fn answered(turn: &mut Turn<'_>, functions: &mut Functions, tx: crate::ClientTx, response: sip::Response) {
    let Some(owner) = turn.desk.owner(tx) else { return };
    turn.desk.acted.function = function_of(owner);
    let part = &mut functions.participating;
    if response.code >= 200 {
        turn.desk.answered(tx, &response);
    }
    match owner {
        Owner::Message(id, leg) => part.messages.answered(turn, &mut part.states, id, leg, response),
        Owner::Session(id) => part.sessions.response(turn, id, tx, response),
        Owner::Relay(id) => part.relays.answered(turn, id, tx, response),
        Owner::Focus(number) => functions.focus.response(turn, number, tx, response),
        Owner::Watch(id) => functions.watches.answered(turn, id, tx, &response),
        Owner::Notifier(id) => functions.notifier.answered(turn, &functions.bindings, id, tx, &response),
        Owner::Nobody => {}
    }
}

fn expired(turn: &mut Turn<'_>, functions: &mut Functions, tx: crate::ClientTx) {
    let Some(owner) = turn.desk.owner(tx) else { return };
    turn.desk.forget(tx);
    turn.desk.acted.function = function_of(owner);
    let part = &mut functions.participating;
    match owner {
        Owner::Message(id, leg) => part.messages.silent(turn, &mut part.states, id, leg),
        Owner::Session(id) => part.sessions.expired(turn, id, tx),
        Owner::Relay(id) => part.relays.silent(turn, id, tx),
        Owner::Focus(number) => functions.focus.expired(turn, number, tx),
        Owner::Watch(id) => functions.watches.silent(turn, id),
        Owner::Notifier(id) => functions.notifier.silent(turn, id),
        Owner::Nobody => {}
    }
}

fn told(turn: &mut Turn<'_>, functions: &mut Functions, news: &contract::News) {
    use contract::{MessageNews, message_news, news::What};
    if let Some(What::Message(MessageNews { id, what: Some(message_news::What::Auth(auth)), .. })) =
        &news.what
    {
        return functions.auths.asked(turn, &functions.directory, *id, auth);
    }
    let key = match &news.what {
        Some(What::LegUp(n)) => n.leg,
        Some(What::LegLost(n)) => n.leg,
        Some(What::Latched(n)) => n.leg,
        Some(What::Report(n)) => n.leg,
        Some(What::Message(n)) => n.leg,
        Some(What::Pressure(n)) => n.leg,
        // Counters may be of several contexts: each is told of all and takes its own.
        Some(What::Counters(counters)) => {
            let mut contexts: Vec<u64> =
                counters.legs.iter().filter_map(|l| l.leg.as_ref().map(|k| k.context)).collect();
            contexts.sort_unstable();
            contexts.dedup();
            for context in contexts {
                tell(turn, functions, context, news);
            }
            return;
        }
        Some(What::Load(_)) | None => None,
    };
    if let Some(key) = key {
        tell(turn, functions, key.context, news);
    }
}

fn tell(turn: &mut Turn<'_>, functions: &mut Functions, context: u64, news: &contract::News) {
    if functions.participating.sessions.owns_context(context) {
        turn.acts(Function::Participating);
        functions.participating.sessions.news(turn, context, news);
    } else {
        if functions.focus.owns_context(context) {
            turn.acts(Function::Controlling);
        }
        functions.focus.news(turn, context, news);
    }
}

fn wake(turn: &mut Turn<'_>, functions: &mut Functions, due: Wake) {
    let part = &mut functions.participating;
    match due {
        Wake::Binding(user, key) => functions.bindings.wake(turn, &user, &key),
        Wake::Message(id) => part.messages.wake(turn, &mut part.states, id),
        Wake::Session(id) => part.sessions.wake(turn, id),
        Wake::Relay(id) => part.relays.wake(turn, id),
        Wake::Focus(number) => functions.focus.wake(turn, number),
        Wake::Watch(id) => functions.watches.wake(turn, id),
        Wake::Notifier(id) => functions.notifier.wake(turn, &functions.bindings, id),
        Wake::Publication(user) => functions.notifier.wake_publication(turn, &functions.bindings, &user),
    }
}

fn restore(turn: &mut Turn<'_>, functions: &mut Functions, row: Row) {
    let part = &mut functions.participating;
    let key = row.key.id.expose().clone();
    match row.record {
        Record::Binding(binding) => functions.bindings.restore(turn, key, row.version, binding),
        Record::Session(session) => part.sessions.restore(turn, &key, row.version, *session),
        Record::Relay(relay) => part.relays.restore(turn, row.version, *relay),
        Record::Referrals(open) => part.sessions.restore_referrals(row.version, *open),
        // Its devices may be in a later part.
        Record::Message(message) => functions.restored.push((key, row.version, *message)),
        Record::Context(context) => match Anchor::restore(&context, row.version) {
            Some(anchor) => match part.sessions.id_of_row(anchor.owner()) {
                Some(id) => part.sessions.restore_anchor(id, anchor),
                None => functions.focus.restore_anchor(anchor),
            },
            None => turn.desk.counters.rows_unread += 1,
        },
        Record::Dialog(_) | Record::Roster(_) | Record::File(_) | Record::Subscription(_) => {
            functions.focus.restore(turn, row)
        }
        Record::Subscriber(_) | Record::Group(_) | Record::Imdn(_) | Record::Ended(_) => {}
    }
}
