//! The client side: requests that we send, and their responses.

use std::time::Duration;

use base::{HashSeed, Instant, Map, Outbox, TimerId, map};
use bytes::Bytes;

use super::id::{AckId, TxId};
use super::{ClientKey, Dropped, Due, Expiry, Output, Stack, emit, set_timer, stop_timer};
use crate::headers::Headers;
use crate::message::{Request, Response};
use crate::method::Method;
use crate::name::Name;
use crate::peer::Peer;
use crate::transaction::invite_client::{self, InviteClient};
use crate::transaction::other_client::{self, OtherClient};
use crate::transaction::{Act, Acts, Class};
use crate::typed::{CSeq, Reason};

/// Our own number of a client transaction: the user's key may be used again while the transaction lingers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Serial(u64);

#[derive(Debug)]
enum Machine {
    Invite(InviteClient),
    Other(OtherClient),
}

impl Machine {
    /// True until a final response.
    fn is_open(&self) -> bool {
        match self {
            Machine::Invite(m) => {
                matches!(m.state, invite_client::State::Calling | invite_client::State::Proceeding)
            }
            Machine::Other(m) => m.state != other_client::State::Completed,
        }
    }
}

/// A dialog that an INVITE of ours made: which To tag, and the ACK that we sent.
#[derive(Debug)]
struct Fork {
    tag: String,
    ack: Option<(Peer, Bytes)>,
}

#[derive(Debug)]
struct ClientTx {
    /// `None` for a CANCEL: nobody waits for its answer.
    key: Option<ClientKey>,
    id: TxId,
    to: Peer,
    machine: Machine,
    bytes: Bytes,
    /// An INVITE without its body: ACK and CANCEL are made of it.
    invite: Option<Box<Request>>,
    /// The Reason for the CANCEL.
    reason: Option<Reason>,
    ack_id: Option<AckId>,
    forks: Vec<Fork>,
    failed: bool,
    again: Option<TimerId>,
    end: Option<TimerId>,
}

/// The client transactions.
#[derive(Debug)]
pub(super) struct Clients {
    by_serial: Map<Serial, ClientTx>,
    by_key: Map<ClientKey, Serial>,
    by_id: Map<TxId, Serial>,
    by_ack: Map<AckId, Serial>,
    serial: u64,
}

impl Clients {
    pub(super) fn new(seed: HashSeed) -> Clients {
        Clients { by_serial: map(seed), by_key: map(seed), by_id: map(seed), by_ack: map(seed), serial: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.by_serial.len()
    }

    fn open(&self, key: ClientKey) -> Option<Serial> {
        let serial = self.by_key.get(&key)?;
        self.by_serial.get(serial).filter(|tx| tx.machine.is_open()).map(|_| *serial)
    }
}

impl Stack {
    pub(super) fn send(
        &mut self,
        now: Instant,
        key: ClientKey,
        to: Peer,
        mut request: Request,
        out: &mut Outbox<Output>,
    ) {
        let full = self.clients.len() >= self.config.limits.client_transactions_max;
        let by_hand = matches!(request.method, Method::Ack | Method::Cancel);
        if full || by_hand || self.clients.open(key).is_some() {
            return emit(out, Output::Expired { key, why: Expiry::Refused });
        }
        let mut via = self.via(to.transport);
        if let Some(hops) = &self.hops {
            // RFC 7339 §4.1: in every request.
            hops.ask(to, &mut via);
        }
        let id = TxId::of_client(via.branch().unwrap_or_default(), &request.method);
        request.headers.prepend(Name::Via, via.to_string());
        if !request.headers.has(&Name::MaxForwards) {
            request.headers.push(Name::MaxForwards, "70");
        }
        self.start_client(now, Some(key), id, to, request, out);
    }

    fn start_client(
        &mut self,
        now: Instant,
        key: Option<ClientKey>,
        id: TxId,
        to: Peer,
        mut request: Request,
        out: &mut Outbox<Output>,
    ) {
        let bytes = request.to_bytes();
        let reliable = to.transport.is_reliable();
        let is_invite = request.method == Method::Invite;
        let ack_id = if is_invite { AckId::of_invite(&request.headers) } else { None };
        let (machine, acts) = if is_invite {
            let (machine, acts) = InviteClient::start(self.config.timing, reliable);
            (Machine::Invite(machine), acts)
        } else {
            let (machine, acts) = OtherClient::start(self.config.timing, reliable);
            (Machine::Other(machine), acts)
        };
        request.body = Bytes::new();
        let tx = ClientTx {
            key,
            id: id.clone(),
            to,
            machine,
            bytes,
            invite: is_invite.then(|| Box::new(request)),
            reason: None,
            ack_id: ack_id.clone(),
            forks: Vec::new(),
            failed: false,
            again: None,
            end: None,
        };
        self.clients.serial += 1;
        let serial = Serial(self.clients.serial);
        self.clients.by_serial.insert(serial, tx);
        self.clients.by_id.insert(id, serial);
        if let Some(key) = key {
            self.clients.by_key.insert(key, serial);
        }
        if let Some(ack) = ack_id {
            self.clients.by_ack.insert(ack, serial);
        }
        self.enter(to);
        self.perform_client(now, serial, acts, None, out);
    }

    pub(super) fn on_response(
        &mut self,
        now: Instant,
        peer: Peer,
        response: Response,
        out: &mut Outbox<Output>,
    ) {
        let serial = TxId::of_response(&response).and_then(|id| self.clients.by_id.get(&id).copied());
        let Some(serial) = serial else { return self.count(Dropped::StrayResponse) };
        // RFC 3261 §8.1.3.3: our own Via and no other.
        if response.headers.values(&Name::Via).count() != 1 {
            return self.count(Dropped::ForeignVia);
        }
        let Some(tx) = self.clients.by_serial.get_mut(&serial) else { return };
        if let Some(hops) = self.hops.as_mut().filter(|hops| hops.asks(tx.to))
            && let Ok(via) = response.top_via()
        {
            // RFC 7339 §5.4: in our own Via, whatever the response is.
            hops.heard(now, tx.to, &via);
        }
        let class = Class::of(response.code);
        let acts = match &mut tx.machine {
            Machine::Invite(machine) => machine.response(class),
            Machine::Other(machine) => machine.response(class),
        };
        let told = acts.contains(&Act::Tell);
        let (key, is_invite) = (tx.key, matches!(tx.machine, Machine::Invite(_)));
        if told && is_invite && class == Class::Success && !self.is_new_fork(serial, &response, out) {
            return;
        }
        self.perform_client(now, serial, acts, Some(&response), out);
        match key {
            Some(key) if told => emit(out, Output::Response { key, response, peer }),
            Some(_) => self.count(Dropped::RepeatedResponse),
            None => {}
        }
    }

    /// A 2xx of a dialog that is known already is answered with its ACK again (RFC 3261 §13.2.2.4).
    fn is_new_fork(&mut self, serial: Serial, response: &Response, out: &mut Outbox<Output>) -> bool {
        let Some(tx) = self.clients.by_serial.get_mut(&serial) else { return false };
        let tag = response.to_tag().unwrap_or_default();
        if let Some(fork) = tx.forks.iter().find(|fork| fork.tag == tag) {
            if let Some((peer, bytes)) = &fork.ack {
                emit(out, Output::Transmit { peer: *peer, bytes: bytes.clone() });
            }
            self.count(Dropped::RepeatedResponse);
            return false;
        }
        if tx.forks.len() >= self.config.limits.forks_max {
            self.count(Dropped::TooManyForks);
            return false;
        }
        tx.forks.push(Fork { tag, ack: None });
        true
    }

    pub(super) fn send_ack(&mut self, to: Peer, mut request: Request, out: &mut Outbox<Output>) {
        let via = self.via(to.transport);
        request.headers.prepend(Name::Via, via.to_string());
        if !request.headers.has(&Name::MaxForwards) {
            request.headers.push(Name::MaxForwards, "70");
        }
        let bytes = request.to_bytes();
        let serial =
            AckId::of_invite(&request.headers).and_then(|ack| self.clients.by_ack.get(&ack).copied());
        if let Some(tag) = request.to_tag()
            && let Some(tx) = serial.and_then(|serial| self.clients.by_serial.get_mut(&serial))
            && let Some(fork) = tx.forks.iter_mut().find(|fork| fork.tag == tag)
        {
            fork.ack = Some((to, bytes.clone()));
        }
        emit(out, Output::Transmit { peer: to, bytes });
    }

    pub(super) fn cancel(
        &mut self,
        now: Instant,
        key: ClientKey,
        reason: Option<Reason>,
        out: &mut Outbox<Output>,
    ) {
        let Some(serial) = self.clients.open(key) else { return };
        let Some(tx) = self.clients.by_serial.get_mut(&serial) else { return };
        let Machine::Invite(machine) = &mut tx.machine else { return };
        let acts = machine.cancel();
        tx.reason = reason;
        self.perform_client(now, serial, acts, None, out);
    }

    pub(super) fn client_again(&mut self, now: Instant, serial: Serial, out: &mut Outbox<Output>) {
        let Some(tx) = self.clients.by_serial.get_mut(&serial) else { return };
        tx.again = None;
        let acts = match &mut tx.machine {
            Machine::Invite(machine) => machine.again(),
            Machine::Other(machine) => machine.again(),
        };
        self.perform_client(now, serial, acts, None, out);
    }

    pub(super) fn client_end(&mut self, now: Instant, serial: Serial, out: &mut Outbox<Output>) {
        let Some(tx) = self.clients.by_serial.get_mut(&serial) else { return };
        tx.end = None;
        if tx.failed && tx.machine.is_open() {
            if let Some(key) = tx.key {
                emit(out, Output::Expired { key, why: Expiry::Transport });
            }
            return self.end_client(serial);
        }
        let acts = match &mut tx.machine {
            Machine::Invite(machine) => machine.end(),
            Machine::Other(machine) => machine.end(),
        };
        self.perform_client(now, serial, acts, None, out);
    }

    fn perform_client(
        &mut self,
        now: Instant,
        serial: Serial,
        acts: Acts,
        response: Option<&Response>,
        out: &mut Outbox<Output>,
    ) {
        for act in acts {
            let Some(tx) = self.clients.by_serial.get_mut(&serial) else { return };
            match act {
                Act::Send => emit(out, Output::Transmit { peer: tx.to, bytes: tx.bytes.clone() }),
                Act::Ack => {
                    let ack = tx.invite.as_ref().zip(response).map(|(invite, r)| ack_of_failure(invite, r));
                    let Some(ack) = ack else { continue };
                    emit(out, Output::Transmit { peer: tx.to, bytes: ack.to_bytes() });
                }
                Act::Cancel => self.send_cancel(now, serial, out),
                Act::Again(after) => {
                    set_timer(&mut self.timers, &mut tx.again, now + after, Due::ClientAgain(serial));
                }
                Act::StopAgain => stop_timer(&mut self.timers, &mut tx.again),
                Act::End(after) => {
                    // A failed transport ends it now, whatever the machine had in mind.
                    let after = if tx.failed { Duration::ZERO } else { after };
                    set_timer(&mut self.timers, &mut tx.end, now + after, Due::ClientEnd(serial));
                }
                Act::TimedOut => {
                    if let Some(key) = tx.key {
                        emit(out, Output::Expired { key, why: Expiry::Timeout });
                    }
                }
                Act::Gone => self.end_client(serial),
                // Told by the caller, or of the server machines.
                Act::Tell | Act::Trying | Act::GiveUp | Act::AckMissing => {}
            }
        }
    }

    fn send_cancel(&mut self, now: Instant, serial: Serial, out: &mut Outbox<Output>) {
        let Some(tx) = self.clients.by_serial.get(&serial) else { return };
        let Some(invite) = &tx.invite else { return };
        let cancel = cancel_of(invite, tx.reason.as_ref());
        let branch =
            invite.top_via().ok().and_then(|via| via.branch().map(str::to_owned)).unwrap_or_default();
        let to = tx.to;
        let id = TxId::of_client(&branch, &Method::Cancel);
        self.start_client(now, None, id, to, cancel, out);
    }

    fn end_client(&mut self, serial: Serial) {
        let Some(mut tx) = self.clients.by_serial.remove(&serial) else { return };
        stop_timer(&mut self.timers, &mut tx.again);
        stop_timer(&mut self.timers, &mut tx.end);
        self.clients.by_id.remove(&tx.id);
        if let Some(key) = tx.key
            && self.clients.by_key.get(&key) == Some(&serial)
        {
            self.clients.by_key.remove(&key);
        }
        if let Some(ack) = &tx.ack_id
            && self.clients.by_ack.get(ack) == Some(&serial)
        {
            self.clients.by_ack.remove(ack);
        }
        self.leave(tx.to);
    }

    /// The transport failed: what waits for a response ends at the next [`Stack::timeout`], which minds the
    /// room of the outbox.
    pub(super) fn fail_clients(&mut self, now: Instant, peer: Peer) {
        let timers = &mut self.timers;
        for (serial, tx) in self.clients.by_serial.iter_mut().filter(|(_, tx)| tx.to == peer) {
            if tx.machine.is_open() {
                tx.failed = true;
                set_timer(timers, &mut tx.end, now, Due::ClientEnd(*serial));
            }
        }
    }
}

/// What an ACK or CANCEL takes from its INVITE: topmost Via, Route, From, Call-ID, the CSeq number.
fn follow_up(invite: &Request, method: Method) -> Request {
    let mut headers = Headers::new();
    if let Ok(via) = invite.top_via() {
        headers.push(Name::Via, via.to_string());
    }
    for name in [Name::Route, Name::From, Name::CallId] {
        headers.copy(&invite.headers, &name);
    }
    let seq = invite.cseq().map(|c| c.seq).unwrap_or_default();
    headers.add(&CSeq::new(seq, method.clone()));
    headers.push(Name::MaxForwards, "70");
    Request { method, uri: invite.uri.clone(), headers, body: Bytes::new() }
}

/// RFC 3261 §17.1.1.3: To with the tag of the response.
fn ack_of_failure(invite: &Request, response: &Response) -> Request {
    let mut ack = follow_up(invite, Method::Ack);
    ack.headers.copy(&response.headers, &Name::To);
    ack
}

/// RFC 3261 §9.1: To as in the INVITE.
fn cancel_of(invite: &Request, reason: Option<&Reason>) -> Request {
    let mut cancel = follow_up(invite, Method::Cancel);
    cancel.headers.copy(&invite.headers, &Name::To);
    // RFC 7989 §6: the session has its name in every request.
    cancel.headers.copy(&invite.headers, &Name::SessionId);
    if let Some(reason) = reason {
        cancel.headers.add(reason);
    }
    cancel
}
