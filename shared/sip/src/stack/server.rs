//! The server side: requests that arrive, and our answers.

use std::hash::BuildHasher as _;

use base::{HashSeed, Instant, Map, Outbox, TimerId, map};
use bytes::Bytes;

use super::id::{AckId, TxId};
use super::refusal::is_refusal_tag;
use super::{Dropped, Due, Output, ServerKey, Stack, emit, set_timer, stamp, stop_timer};
use crate::hop;
use crate::malformed::stateless_tag;
use crate::message::{Request, Response, phrase};
use crate::method::Method;
use crate::name::Name;
use crate::peer::Peer;
use crate::transaction::invite_server::{self, InviteServer};
use crate::transaction::other_server::{self, OtherServer};
use crate::transaction::{Act, Acts, Class};
use crate::typed::{Reason, Via};

#[derive(Debug)]
enum Machine {
    Invite(InviteServer),
    Other(OtherServer),
}

impl Machine {
    fn retransmission(&mut self) -> Acts {
        match self {
            Machine::Invite(m) => m.retransmission(),
            Machine::Other(m) => m.retransmission(),
        }
    }

    fn respond(&mut self, class: Class) -> Acts {
        match self {
            Machine::Invite(m) => m.respond(class),
            Machine::Other(m) => m.respond(class),
        }
    }

    /// True until the user's final response.
    fn is_open(&self) -> bool {
        match self {
            Machine::Invite(m) => m.state == invite_server::State::Proceeding,
            Machine::Other(m) => m.state != other_server::State::Completed,
        }
    }
}

#[derive(Debug)]
struct ServerTx {
    id: TxId,
    merges: Option<u64>,
    machine: Machine,
    /// Where responses go, and where once that fails.
    reply: Peer,
    fallback: Option<Peer>,
    /// A response to an INVITE to be filled in: 100, or 408 when the user gives up.
    template: Option<Box<Response>>,
    /// The latest response.
    last: Bytes,
    tag: Option<String>,
    cancelled: bool,
    /// The client supports overload control.
    oc: bool,
    ack_id: Option<AckId>,
    again: Option<TimerId>,
    end: Option<TimerId>,
}

/// The server transactions.
#[derive(Debug)]
pub(super) struct Servers {
    by_key: Map<ServerKey, ServerTx>,
    by_id: Map<TxId, ServerKey>,
    by_ack: Map<AckId, ServerKey>,
    /// Requests outside dialogs that have a transaction, by what tells that another one is the same (§8.2.2.2).
    by_merge: Map<u64, ServerKey>,
    serial: u64,
}

impl Servers {
    pub(super) fn new(seed: HashSeed) -> Servers {
        Servers { by_key: map(seed), by_id: map(seed), by_ack: map(seed), by_merge: map(seed), serial: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// What two requests have in common that reached us by two ways, of one that begins something. Where they are for two
    /// addresses, or for two of our functions, they are two: a proxy may send them by us twice.
    fn merge(&self, request: &Request) -> Option<u64> {
        if request.to_tag().is_some() {
            return None;
        }
        let (from, seq) = (request.from_tag()?, request.cseq().ok()?.seq);
        let route = request.headers.text(&Name::Route).unwrap_or_default();
        let uri = request.uri.to_string();
        let parts = (from, request.call_id()?, seq, request.method.as_str(), uri, route);
        Some(self.by_merge.hasher().hash_one(parts))
    }
}

impl Stack {
    pub(super) fn on_request(
        &mut self,
        now: Instant,
        peer: Peer,
        request: Request,
        out: &mut Outbox<Output>,
    ) {
        let Ok(via) = request.top_via() else { return };
        let id = TxId::of_request(&request, &via);
        match request.method {
            Method::Ack => return self.on_ack(now, peer, id, request, out),
            Method::Cancel => {
                let invite = TxId::of_cancelled(&request, &via);
                return self.on_cancel(peer, invite, request, out);
            }
            _ => {}
        }
        if !self.again(now, &id, out) {
            self.begin(now, peer, (id, via), request, out);
        }
    }

    /// True where the request has come before: its transaction answers as it did.
    pub(super) fn again(&mut self, now: Instant, id: &TxId, out: &mut Outbox<Output>) -> bool {
        let Some(key) = self.servers.by_id.get(id).copied() else { return false };
        self.count(Dropped::Retransmission);
        if let Some(tx) = self.servers.by_key.get_mut(&key) {
            let acts = tx.machine.retransmission();
            self.perform_server(now, key, acts, out);
        }
        true
    }

    fn begin(
        &mut self,
        now: Instant,
        peer: Peer,
        (id, mut via): (TxId, Via),
        mut request: Request,
        out: &mut Outbox<Output>,
    ) {
        let fallback = hop::fallback_peer(&via, peer);
        hop::note_source(&mut via, peer.addr);
        request.headers.replace_first_value(&Name::Via, &via.to_string());
        let reply = hop::response_peer(&via, peer);
        if self.servers.len() >= self.config.limits.server_transactions_max {
            self.count(Dropped::NoRoom);
            let retry_after_s = self.config.limits.retry_after_s;
            return self.refuse(503, Some(retry_after_s), &request, reply, out);
        }
        let merges = self.servers.merge(&request);
        if merges.is_some_and(|merges| self.servers.by_merge.contains_key(&merges)) {
            // RFC 3261 §8.2.2.2: it came by another way before.
            self.count(Dropped::Merged);
            return self.refuse(482, None, &request, reply, out);
        }
        let reliable = peer.transport.is_reliable();
        let (machine, acts, template) = if request.method == Method::Invite {
            let pending_max = self.config.limits.invite_pending_max;
            let (machine, acts) = InviteServer::start(self.config.timing, reliable, pending_max);
            (Machine::Invite(machine), acts, Some(Box::new(request.respond(100))))
        } else {
            let (machine, acts) = OtherServer::start(self.config.timing, reliable);
            (Machine::Other(machine), acts, None)
        };
        self.servers.serial += 1;
        let key = ServerKey(self.servers.serial);
        let tx = ServerTx {
            id: id.clone(),
            merges,
            machine,
            reply,
            fallback,
            template,
            last: Bytes::new(),
            tag: None,
            cancelled: false,
            oc: via.params.has("oc"),
            ack_id: None,
            again: None,
            end: None,
        };
        self.servers.by_id.insert(id, key);
        if let Some(merges) = merges {
            self.servers.by_merge.insert(merges, key);
        }
        self.servers.by_key.insert(key, tx);
        self.enter(reply);
        self.perform_server(now, key, acts, out);
        emit(out, Output::Request { server: key, peer, request });
    }

    /// An ACK is never answered. That of a failure ends in its transaction; that of a 2xx goes up.
    fn on_ack(&mut self, now: Instant, peer: Peer, id: TxId, request: Request, out: &mut Outbox<Output>) {
        if let Some(key) = self.servers.by_id.get(&id).copied()
            && let Some(tx) = self.servers.by_key.get_mut(&key)
            && let Machine::Invite(machine) = &mut tx.machine
            && machine.state != invite_server::State::Accepted
        {
            let acts = machine.ack();
            return self.perform_server(now, key, acts, out);
        }
        let key = AckId::of(&request.headers).and_then(|ack| self.servers.by_ack.get(&ack).copied());
        if let Some(key) = key
            && let Some(tx) = self.servers.by_key.get_mut(&key)
            && let Machine::Invite(machine) = &mut tx.machine
        {
            let acts = machine.ack_of_success();
            if !acts.contains(&Act::Tell) {
                return self.count(Dropped::Retransmission);
            }
            self.perform_server(now, key, acts, out);
        }
        // RFC 3261 §8.2.7: what was answered without a transaction leaves nothing for its ACK to end.
        if key.is_none() && request.to_tag().is_some_and(|tag| is_refusal_tag(&tag, &request)) {
            return self.count(Dropped::RefusedAck);
        }
        // Also when no transaction is left: the dialog may still wait for it.
        emit(out, Output::Ack { peer, request });
    }

    /// RFC 3261 §9.2. A CANCEL needs no state: it is answered the same way again.
    fn on_cancel(&mut self, peer: Peer, invite: TxId, mut request: Request, out: &mut Outbox<Output>) {
        let Ok(mut via) = request.top_via() else { return };
        hop::note_source(&mut via, peer.addr);
        request.headers.replace_first_value(&Name::Via, &via.to_string());
        let reply = hop::response_peer(&via, peer);
        let key = self.servers.by_id.get(&invite).copied();
        let found = key.and_then(|key| Some((key, self.servers.by_key.get_mut(&key)?)));
        let Some((key, tx)) = found else {
            self.count(Dropped::StrayCancel);
            let mut response = request.respond(481);
            response.set_to_tag(&stateless_tag(&request.headers));
            stamp(self.advice.as_ref(), &mut response);
            return emit(out, Output::Transmit { peer: reply, bytes: response.to_bytes() });
        };
        let mut response = request.respond(200);
        // §9.2: the To tag of the answer is that of the answers to the INVITE.
        response.set_to_tag(tx.tag.get_or_insert_with(|| self.entropy.token(64)));
        stamp(self.advice.as_ref(), &mut response);
        let news = !tx.cancelled && tx.machine.is_open();
        tx.cancelled = true;
        emit(out, Output::Transmit { peer: reply, bytes: response.to_bytes() });
        if news {
            let reason = request.headers.typed::<Reason>().ok().flatten();
            emit(out, Output::Cancelled { server: key, reason });
        }
    }

    pub(super) fn respond(
        &mut self,
        now: Instant,
        key: ServerKey,
        mut response: Response,
        out: &mut Outbox<Output>,
    ) {
        let tx = self.servers.by_key.get_mut(&key).filter(|tx| tx.machine.is_open());
        let Some(tx) = tx else { return self.count(Dropped::LateAnswer) };
        let class = Class::of(response.code);
        if class != Class::Trying {
            match response.to_tag() {
                // The user's own tag; a CANCEL is answered with it too.
                Some(tag) => tx.tag = Some(tag),
                None => response.set_to_tag(tx.tag.get_or_insert_with(|| self.entropy.token(64))),
            }
        }
        if tx.oc {
            stamp(self.advice.as_ref(), &mut response);
        }
        tx.last = response.to_bytes();
        let acts = tx.machine.respond(class);
        if !tx.machine.is_open() {
            tx.template = None;
        }
        if class == Class::Success && matches!(tx.machine, Machine::Invite(_)) {
            tx.ack_id = AckId::of(&response.headers);
            if let Some(ack) = tx.ack_id.clone() {
                self.servers.by_ack.insert(ack, key);
            }
        }
        self.perform_server(now, key, acts, out);
    }

    pub(super) fn server_again(&mut self, now: Instant, key: ServerKey, out: &mut Outbox<Output>) {
        let Some(tx) = self.servers.by_key.get_mut(&key) else { return };
        tx.again = None;
        if let Machine::Invite(machine) = &mut tx.machine {
            let acts = machine.again();
            self.perform_server(now, key, acts, out);
        }
    }

    pub(super) fn server_end(&mut self, now: Instant, key: ServerKey, out: &mut Outbox<Output>) {
        let Some(tx) = self.servers.by_key.get_mut(&key) else { return };
        tx.end = None;
        let acts = match &mut tx.machine {
            Machine::Invite(machine) => machine.end(),
            Machine::Other(machine) => machine.end(),
        };
        self.perform_server(now, key, acts, out);
    }

    fn perform_server(&mut self, now: Instant, key: ServerKey, acts: Acts, out: &mut Outbox<Output>) {
        for act in acts {
            let Some(tx) = self.servers.by_key.get_mut(&key) else { return };
            match act {
                Act::Send => emit(out, Output::Transmit { peer: tx.reply, bytes: tx.last.clone() }),
                Act::Trying => {
                    let Some(template) = &mut tx.template else { continue };
                    if tx.oc {
                        stamp(self.advice.as_ref(), template);
                    }
                    tx.last = template.to_bytes();
                    emit(out, Output::Transmit { peer: tx.reply, bytes: tx.last.clone() });
                }
                Act::Again(after) => {
                    set_timer(&mut self.timers, &mut tx.again, now + after, Due::ServerAgain(key));
                }
                Act::StopAgain => stop_timer(&mut self.timers, &mut tx.again),
                Act::End(after) => set_timer(&mut self.timers, &mut tx.end, now + after, Due::ServerEnd(key)),
                Act::GiveUp => {
                    let Some(mut response) = tx.template.take() else { continue };
                    (response.code, response.reason) = (408, phrase(408).to_owned());
                    emit(out, Output::Cancelled { server: key, reason: None });
                    self.respond(now, key, *response, out);
                }
                Act::AckMissing => emit(out, Output::AckMissing { server: key }),
                Act::Gone => self.end_server(key),
                // Told by the caller, or of the client machines.
                Act::Tell | Act::Ack | Act::Cancel | Act::TimedOut => {}
            }
        }
    }

    fn end_server(&mut self, key: ServerKey) {
        let Some(mut tx) = self.servers.by_key.remove(&key) else { return };
        stop_timer(&mut self.timers, &mut tx.again);
        stop_timer(&mut self.timers, &mut tx.end);
        self.servers.by_id.remove(&tx.id);
        if let Some(merges) = tx.merges {
            self.servers.by_merge.remove(&merges);
        }
        if let Some(ack) = &tx.ack_id {
            // Another INVITE with the same Call-ID, tags and CSeq may have taken its place.
            if self.servers.by_ack.get(ack) == Some(&key) {
                self.servers.by_ack.remove(ack);
            }
        }
        self.leave(tx.reply);
    }

    /// RFC 3261 §18.2.2: the connection is gone, so responses go over a new one to the port of sent-by. A
    /// failure that waits for its ACK is sent there at once; a 2xx is when its timer fires.
    pub(super) fn fall_back_servers(&mut self, now: Instant, peer: Peer) {
        let affected: Vec<ServerKey> = self
            .servers
            .by_key
            .iter()
            .filter(|(_, tx)| tx.reply == peer && tx.fallback.is_some())
            .map(|(key, _)| *key)
            .collect();
        for key in affected {
            let Some(tx) = self.servers.by_key.get_mut(&key) else { continue };
            let Some(fallback) = tx.fallback.take() else { continue };
            tx.reply = fallback;
            if let Machine::Invite(machine) = &tx.machine
                && machine.state == invite_server::State::Completed
            {
                set_timer(&mut self.timers, &mut tx.again, now, Due::ServerAgain(key));
            }
            self.leave(peer);
            self.enter(fallback);
        }
    }
}
