//! What one tracer follows, and how it comes to know more of it.
//!
//! ```text
//!   a message that the filter names ──▶ its Call-ID, its Contribution-ID
//!   a decision on a followed call ────▶ the calls of what it sends and answers, the contexts that it orders
//!   a decision that touches one ──────▶ the call that it was made on (the function was there before the trace)
//!   a followed context ───────────────▶ its orders, their answers, its news, the counters of its legs
//! ```
//!
//! Decisions on nothing in particular (timers, restored rows) join nothing: each of their outputs is judged alone.

use std::collections::{BTreeMap, BTreeSet};

use ::contract::{Applied, Batch, LegCounters, News, Refusal, news};
use base::{Instant, Now};
use service::UserId;
use sip::{Method, Peer};

use super::decision::{Decision, Subject};
use super::event::{CONTROLLING, DATAPLANE, PARTICIPATING, REGISTRAR};
use super::mask::Mask;
use super::{Event, Kind, Said, column, contract, trail};

/// What was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Filter {
    Call(String),
    Conversation(String),
    Contribution(String),
    User(UserId),
}

/// Somebody at the other end of a wire.
#[derive(Debug)]
struct Party {
    user: Option<UserId>,
    /// His devices.
    peers: Vec<Peer>,
}

/// One tracer's knowledge.
#[derive(Debug)]
pub(super) struct Follow {
    filter: Filter,
    mask: Mask,
    calls_max: usize,
    body_max: usize,
    began: Instant,
    /// Events so far.
    n: u64,
    /// Call-IDs, and which functions have had to do with each.
    calls: BTreeMap<String, Vec<&'static str>>,
    /// Contribution-IDs.
    threads: BTreeSet<String>,
    /// Media contexts, and whose each is.
    contexts: BTreeMap<u64, &'static str>,
    /// The context of each batch that is not answered yet, by its generation.
    orders: BTreeMap<u64, u64>,
    parties: Vec<Party>,
}

impl Follow {
    pub(super) fn new(filter: Filter, mask: Mask, calls_max: usize, body_max: usize, began: Instant) -> Self {
        Follow {
            filter,
            mask,
            calls_max,
            body_max,
            began,
            n: 0,
            calls: BTreeMap::new(),
            threads: BTreeSet::new(),
            contexts: BTreeMap::new(),
            orders: BTreeMap::new(),
            parties: Vec::new(),
        }
    }

    /// Writes number and time into an event.
    pub(super) fn stamp(&mut self, event: &mut Event, now: Now) {
        self.n += 1;
        event.n = self.n;
        event.at = now.wall.to_string();
        event.us = u64::try_from(now.mono.since(self.began).as_micros()).unwrap_or(u64::MAX);
    }

    /// Whether a message belongs to it.
    fn follows(&self, said: &Said) -> bool {
        let is = |id: &Option<String>, wanted: &str| id.as_deref() == Some(wanted);
        let named = match &self.filter {
            Filter::Call(call) => said.call == *call,
            Filter::Conversation(id) => is(&said.conversation, id),
            Filter::Contribution(id) => is(&said.contribution, id),
            Filter::User(user) => said.concerns(user),
        };
        named
            || self.calls.contains_key(&said.call)
            || said.contribution.as_ref().is_some_and(|id| self.threads.contains(id))
    }

    /// From now on all of its call is followed; `function` has to do with it.
    fn learn(&mut self, said: &Said, function: Option<&'static str>) {
        if let Some(id) = &said.contribution
            && self.threads.len() < self.calls_max
        {
            self.threads.insert(id.clone());
        }
        self.learn_call(&said.call, function);
    }

    fn learn_call(&mut self, call: &str, function: Option<&'static str>) {
        if !self.calls.contains_key(call) && (call.is_empty() || self.calls.len() >= self.calls_max) {
            return;
        }
        let functions = self.calls.entry(call.to_owned()).or_default();
        if let Some(function) = function.filter(|function| !functions.contains(function)) {
            functions.push(function);
        }
    }

    fn learn_context(&mut self, context: u64, function: Option<&'static str>) {
        if self.contexts.len() < self.calls_max || self.contexts.contains_key(&context) {
            let whose = self.contexts.entry(context).or_insert(PARTICIPATING);
            *whose = function.unwrap_or(whose);
        }
    }

    /// The function that a call's messages on the wire come from and go to. Members of a conference and their phones reach
    /// it through a Participating Function, so one that is not known yet is that.
    fn at_wire(&self, said: &Said) -> &'static str {
        if said.method == Method::Register.as_str() {
            return REGISTRAR;
        }
        match self.calls.get(&said.call).map(Vec::as_slice) {
            None | Some([]) => PARTICIPATING,
            Some(known) if known.contains(&PARTICIPATING) => PARTICIPATING,
            Some([first, ..]) => first,
        }
    }

    /// The other function of a call between two of them.
    fn other(&self, call: &str, own: &'static str) -> &'static str {
        let known = self.calls.get(call).map(Vec::as_slice).unwrap_or_default();
        known.iter().find(|function| **function != own).copied().unwrap_or(own)
    }

    /// What the one at the other end of a wire is called.
    fn party(&mut self, user: Option<&UserId>, peer: Peer) -> String {
        let at = match self.parties.iter().position(|party| party.user.as_ref() == user) {
            Some(at) => at,
            None if self.parties.len() < self.calls_max => {
                self.parties.push(Party { user: user.cloned(), peers: Vec::new() });
                self.parties.len() - 1
            }
            None => return format!("? {}", peer.addr),
        };
        let letter = letter(at);
        let Some(party) = self.parties.get_mut(at) else { return letter };
        let device = match party.peers.iter().position(|known| *known == peer) {
            Some(device) => device,
            None if party.peers.len() < self.calls_max => {
                party.peers.push(peer);
                party.peers.len() - 1
            }
            None => party.peers.len(),
        };
        let number = if device == 0 { String::new() } else { format!("/{}", device + 1) };
        let name = match user {
            Some(user) => {
                let uri = sip::Uri::parse(user.as_str().as_bytes()).ok();
                let name = uri.and_then(|uri| uri.user).unwrap_or_default();
                self.mask.user(&name)
            }
            None => peer.addr.to_string(),
        };
        format!("{letter}{number} {name}")
    }

    fn sip(&self, said: &Said, from: String, to: String) -> Event {
        Event {
            kind: Kind::Sip,
            from,
            to,
            summary: said.summary(&self.mask),
            call_id: Some(said.call.clone()),
            conversation_id: said.conversation.clone(),
            contribution_id: said.contribution.clone(),
            cseq: Some(said.cseq.clone()),
            octets: Some(said.body.len() as u64),
            body: said.shown(&self.mask, self.body_max),
            ..Event::default()
        }
    }

    /// A message is on the wire.
    pub(super) fn wire(&mut self, peer: Peer, outgoing: bool, said: &Said, events: &mut Vec<Event>) {
        if !self.follows(said) {
            return;
        }
        self.learn(said, None);
        // A request comes from its From and goes to its To; an answer the other way round.
        let user = if outgoing == said.is_request() { &said.to } else { &said.from };
        let (party, own) = (self.party(user.as_ref(), peer), self.at_wire(said).to_owned());
        let (from, to) = if outgoing { (own, party) } else { (party, own) };
        let mut event = self.sip(said, from, to);
        event.transport = Some(peer.transport.label().to_owned());
        event.peer = Some(peer.addr.to_string());
        events.push(event);
    }

    fn knows(&self, subject: &Subject) -> bool {
        subject.said.as_ref().is_some_and(|said| self.follows(said))
            || subject.contexts.iter().any(|context| self.contexts.contains_key(context))
    }

    fn take(&mut self, subject: &Subject, function: Option<&'static str>) {
        if let Some(said) = &subject.said {
            self.learn(said, function);
        }
        for context in &subject.contexts {
            self.learn_context(*context, function);
        }
    }

    /// A lane has made up its mind.
    pub(super) fn decided(&mut self, decision: &Decision<'_>, events: &mut Vec<Event>) {
        let heard = decision.heard;
        let function = column(decision.acted);
        if !heard.single {
            let known: Vec<bool> = decision.subjects.iter().map(|subject| self.knows(subject)).collect();
            for (subject, _) in decision.subjects.iter().zip(&known).filter(|(_, known)| **known) {
                self.take(subject, None);
            }
            let wanted = |at: usize| known.get(at).copied().unwrap_or(false);
            let whose = decision.subjects.iter().zip(&known).find(|(_, known)| **known);
            let whose = whose.map_or(PARTICIPATING, |(subject, _)| self.whose(subject));
            return self.tell(decision, whose, wanted, events);
        }
        let heard_known = heard.said.as_ref().is_some_and(|said| self.follows(said))
            || heard.call.as_ref().is_some_and(|call| self.calls.contains_key(call))
            || heard.context.is_some_and(|context| self.contexts.contains_key(&context));
        if !heard_known && !decision.subjects.iter().any(|subject| self.knows(subject)) {
            return;
        }
        if let Some(said) = &heard.said {
            self.learn(said, function);
            if heard.inner {
                let to = function.unwrap_or(PARTICIPATING);
                let from = self.other(&said.call, to);
                events.push(self.sip(said, from.to_owned(), to.to_owned()));
            }
        }
        if let Some(call) = &heard.call {
            self.learn_call(call, function);
        }
        if let Some(context) = heard.context {
            self.learn_context(context, None);
        }
        for subject in &decision.subjects {
            self.take(subject, function);
        }
        self.tell(decision, function.unwrap_or(PARTICIPATING), |_| true, events);
    }

    /// The function that an output of nobody in particular is of.
    fn whose(&self, subject: &Subject) -> &'static str {
        let context = subject.contexts.first().and_then(|context| self.contexts.get(context)).copied();
        let call = subject.said.as_ref().and_then(|said| self.calls.get(&said.call));
        let call = call.and_then(|known| match known.as_slice() {
            [one] => Some(*one),
            _ => known.iter().find(|function| **function == CONTROLLING).copied(),
        });
        context.or(call).unwrap_or(PARTICIPATING)
    }

    fn tell(
        &self,
        decision: &Decision<'_>,
        whose: &'static str,
        wanted: impl Fn(usize) -> bool,
        events: &mut Vec<Event>,
    ) {
        if let Some(summary) = decision.summary(&self.mask, wanted) {
            let (from, to) = (whose.to_owned(), whose.to_owned());
            let heard = decision.heard;
            let call_id = heard.said.as_ref().map(|said| said.call.clone()).or_else(|| heard.call.clone());
            events.push(Event { kind: Kind::Decision, from, to, summary, call_id, ..Event::default() });
        }
    }

    fn contract(&self, kind: Kind, context: u64, to_dataplane: bool, summary: String) -> Event {
        let own = self.contexts.get(&context).copied().unwrap_or(PARTICIPATING).to_owned();
        let plane = DATAPLANE.to_owned();
        let (from, to) = if to_dataplane { (own, plane) } else { (plane, own) };
        Event { kind, from, to, summary, context: Some(format!("{context:016x}")), ..Event::default() }
    }

    /// The data plane is given an order.
    pub(super) fn ordered(&mut self, batch: &Batch, events: &mut Vec<Event>) {
        let of = contract::contexts(batch).into_iter().find(|context| self.contexts.contains_key(context));
        let Some(context) = of else { return };
        if self.orders.len() >= self.calls_max {
            self.orders.pop_first();
        }
        self.orders.insert(batch.generation, context);
        events.push(self.contract(Kind::Contract, context, true, contract::batch(batch)));
    }

    /// It was answered.
    pub(super) fn answered(
        &mut self,
        generation: u64,
        answer: Result<&Applied, &Refusal>,
        events: &mut Vec<Event>,
    ) {
        let Some(context) = self.orders.remove(&generation) else { return };
        let summary = match answer {
            Ok(applied) => contract::applied(applied),
            Err(refusal) => contract::refused(refusal),
        };
        events.push(self.contract(Kind::Contract, context, false, summary));
    }

    fn ended(&self, context: u64, leg: &LegCounters, events: &mut Vec<Event>) {
        let (summary, numbers) = contract::counted(leg);
        let mut event = self.contract(Kind::Media, context, false, summary);
        event.numbers = numbers;
        events.push(event);
    }

    /// The data plane has news.
    pub(super) fn news(&mut self, news: &News, events: &mut Vec<Event>) {
        if let Some(news::What::Counters(counters)) = &news.what {
            for leg in &counters.legs {
                let Some(key) = leg.leg.filter(|key| self.contexts.contains_key(&key.context)) else {
                    continue;
                };
                if leg.ended {
                    self.ended(key.context, leg, events);
                }
            }
            return;
        }
        let Some((leg, _)) = trail::leg_of(news) else { return };
        if self.contexts.contains_key(&leg.context) {
            events.push(self.contract(Kind::Contract, leg.context, false, contract::told(news, leg)));
        }
    }
}

/// A to Z, and then numbers.
fn letter(at: usize) -> String {
    match u8::try_from(at).ok().filter(|at| *at < 26) {
        Some(at) => char::from(b'A' + at).to_string(),
        None => format!("P{}", at + 1),
    }
}
