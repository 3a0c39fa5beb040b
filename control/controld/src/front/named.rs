//! Requests that go to a name (RFC 3263): they wait here until it is located, and go on to the next peer of the name when
//! one fails. [`sip::tries`] has the rules.

use base::{HashSeed, Map, map};
use service::Named;
use sip::tries::{Failed, Next};
use sip::{ClientKey, Expiry, Input, Peer, Request, Response};

use super::Front;
use crate::metrics::{Discard, FailOver};
use crate::resolve::Found;

/// ACKs that wait for their name.
const ACKS_MAX: usize = 4096;
/// Where the keys of ACKs begin, which have no transaction: no lane has these numbers.
const ACK_KEYS: u64 = 0xff_ffff << 40;

/// What waits for a name beside the requests in `Tries`.
pub(super) struct Waiting {
    /// ACKs of 2xx.
    acks: Map<ClientKey, Request>,
    /// The flows to which requests fall back.
    flows: Map<ClientKey, Peer>,
    serial: u64,
}

impl Waiting {
    pub(super) fn new(seed: HashSeed) -> Self {
        Waiting { acks: map(seed), flows: map(seed), serial: 0 }
    }
}

impl Front {
    /// The connection on which the peer spoke to us, while it stands: it is the peer's own choice of a server, and
    /// whatever is in its way lets it pass (RFC 5626 §4.2).
    fn standing(&self, named: &Named) -> Option<Peer> {
        named.flow.filter(|flow| flow.transport.is_reliable() && self.parts.edge.has(*flow))
    }

    pub(super) fn send_by_name(&mut self, key: ClientKey, named: &Named, request: Request) {
        if let Some(to) = self.standing(named) {
            return self.send(key, to, request);
        }
        let Some(target) = named.target() else { return self.tell_expired(key) };
        if !self.parts.tries.wait(key, &named.host, request) {
            self.parts.metrics.discarded.count(Discard::Unsendable);
            return self.tell_expired(key);
        }
        if let Some(flow) = named.flow {
            self.waiting.flows.insert(key, flow);
        }
        self.parts.resolver.locate(key, &target);
    }

    /// An ACK is no transaction: it goes to the best peer, and when it is lost the 2xx comes again.
    pub(super) fn ack_by_name(&mut self, named: &Named, request: Request) {
        if let Some(to) = self.standing(named) {
            return self.input(Input::Ack { to, request }, None);
        }
        let Some(target) = named.target().filter(|_| self.waiting.acks.len() < ACKS_MAX) else {
            return self.parts.metrics.discarded.count(Discard::Unsendable);
        };
        self.waiting.serial = (self.waiting.serial + 1) & 0xff_ffff_ffff;
        let key = ClientKey(ACK_KEYS | self.waiting.serial);
        self.waiting.acks.insert(key, request);
        if let Some(flow) = named.flow {
            self.waiting.flows.insert(key, flow);
        }
        self.parts.resolver.locate(key, &target);
    }

    /// RFC 3261 §9.1: what was sent nowhere needs no CANCEL; its sender still wants its 487.
    pub(super) fn cancel_by_name(&mut self, key: ClientKey) {
        if let Some(request) = self.parts.tries.cancel(key) {
            self.waiting.flows.remove(&key);
            self.tell_response(key, request.respond(487));
        }
    }

    /// A name was located, or not.
    pub(super) fn found(&mut self, found: Found) {
        let Found { key, mut peers } = found;
        let flow = self.waiting.flows.remove(&key);
        if peers.is_empty() {
            peers.extend(flow);
        }
        if let Some(request) = self.waiting.acks.remove(&key) {
            match peers.first() {
                Some(to) => self.input(Input::Ack { to: *to, request }, None),
                None => self.parts.metrics.discarded.count(Discard::Unsendable),
            }
            return;
        }
        let now = self.now();
        match self.parts.tries.found(now, key, peers) {
            Failed::Next(next) => {
                self.send_next(key, next);
                self.outputs(None);
                self.count();
            }
            Failed::Over => {
                tracing::info!("a next hop was not found by its name");
                self.tell_expired(key);
            }
            // It was cancelled.
            Failed::Foreign => {}
        }
    }

    /// True when the request goes to another peer, and its sender needs to hear nothing.
    pub(super) fn goes_on_after(&mut self, key: ClientKey, response: &Response) -> bool {
        let now = self.now();
        match self.parts.tries.answered(now, key, response) {
            Failed::Next(next) => {
                self.parts.metrics.fail_over.count(FailOver::Unavailable);
                let transport = next.peer.transport.label();
                tracing::info!(transport, "503: the next peer of the name is tried");
                self.send_next(key, next);
                true
            }
            Failed::Over if response.code == 503 => {
                self.parts.metrics.fail_over.count(FailOver::Exhausted);
                false
            }
            Failed::Over | Failed::Foreign => false,
        }
    }

    /// The same after timer B or F, or a transport error.
    pub(super) fn goes_on_without(&mut self, key: ClientKey, why: Expiry) -> bool {
        let now = self.now();
        match self.parts.tries.expired(now, key) {
            Failed::Next(next) => {
                self.parts.metrics.fail_over.count(FailOver::Silent);
                let transport = next.peer.transport.label();
                tracing::info!(transport, reason = ?why, "no answer: the next peer of the name is tried");
                self.send_next(key, next);
                true
            }
            Failed::Over => {
                self.parts.metrics.fail_over.count(FailOver::Exhausted);
                false
            }
            Failed::Foreign => false,
        }
    }

    /// Sends a try; the outputs of the stack are performed by whoever calls.
    fn send_next(&mut self, key: ClientKey, mut next: Box<Next>) {
        loop {
            // RFC 5922 §7.3: the certificate must be for the name that was looked for, whatever the DNS says.
            if next.peer.transport.is_secure() && !self.parts.edge.expect(next.peer, &next.host) {
                self.parts.metrics.fail_over.count(FailOver::Certificate);
                let now = self.now();
                match self.parts.tries.expired(now, key) {
                    Failed::Next(other) => next = other,
                    Failed::Over | Failed::Foreign => return self.tell_expired(key),
                }
            } else if self.withheld(next.peer, &next.request) {
                match self.parts.tries.withheld(key) {
                    Failed::Next(other) => next = other,
                    Failed::Over | Failed::Foreign => return self.tell_withheld(key, &next.request),
                }
            } else {
                break;
            }
        }
        let (now, Next { peer: to, request, .. }) = (self.now(), *next);
        self.parts.stack.handle(now, Input::Send { key, to, request }, &mut self.out);
    }
}
