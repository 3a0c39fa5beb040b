//! One SIP transport-to-user machine, sans-IO: transactions, stateless answers, retransmission of 2xx and of
//! their ACKs.
//!
//! ```text
//!   octets -> datagram / StreamFramer -> Input::Received -> Stack -> Output::Request | Response | ... -> user
//!   user -> Input::Send | Respond | Ack | Cancel -> Stack -> Output::Transmit -> sockets
//! ```
//!
//! One call of `handle` puts out at most [`OUTPUTS_MAX`] outputs: check the outbox's room before it.

mod client;
mod id;
mod refusal;
mod server;
mod types;

use std::collections::BTreeMap;

use base::{Entropy, Instant, Map, Outbox, TimerId, Timers, map};

use crate::hop;
use crate::malformed::Malformed;
use crate::message::{Message, Request, Response};
use crate::overload;
use crate::peer::{Peer, Transport};
use crate::screen::wellformed;
use crate::typed::Via;
use crate::uri::HostPort;

use client::{Clients, Serial};
use server::Servers;
pub use types::{ClientKey, Config, Dropped, Expiry, Input, Output, ServerKey};

/// The most outputs that one call of [`Stack::handle`] makes.
pub const OUTPUTS_MAX: usize = 4;

/// What a timer belongs to.
#[derive(Clone, Copy, Debug)]
enum Due {
    ServerAgain(ServerKey),
    ServerEnd(ServerKey),
    ClientAgain(Serial),
    ClientEnd(Serial),
}

/// The transaction layer with what belongs to it.
#[derive(Debug)]
pub struct Stack {
    config: Config,
    entropy: Entropy,
    timers: Timers<Due>,
    servers: Servers,
    clients: Clients,
    /// Transactions per reliable peer: a closed connection without any costs no search.
    towards: Map<Peer, usize>,
    dropped: BTreeMap<Dropped, u64>,
    /// What next hops have asked of us, and what we ask of clients (RFC 7339).
    hops: Option<overload::Client>,
    advice: Option<overload::Advice>,
}

impl Stack {
    /// A stack without transactions.
    pub fn new(config: Config, mut entropy: Entropy) -> Stack {
        let seed = entropy.hash_seed();
        // Two timers each, and each INVITE may have a CANCEL beside it.
        let transactions =
            config.limits.server_transactions_max + config.limits.client_transactions_max.saturating_mul(2);
        Stack {
            timers: Timers::with_max(transactions.saturating_mul(2)),
            servers: Servers::new(seed),
            clients: Clients::new(seed),
            towards: map(seed),
            dropped: BTreeMap::new(),
            hops: None,
            advice: None,
            config,
            entropy,
        }
    }

    /// Asks next hops to say when they have too much, and obeys them (RFC 7339).
    pub fn with_overload(mut self, hops: overload::Client) -> Stack {
        self.hops = Some(hops);
        self
    }

    /// What responses to clients that support overload control say from now on.
    pub fn advise(&mut self, advice: overload::Advice) {
        self.advice = Some(advice);
    }

    /// True where the next hop has asked us not to send such a request now (RFC 7339 §5.5): it is answered 503 by whoever
    /// would have sent it. Asked once for each request; one that is sent nevertheless goes.
    pub fn withholds(&mut self, now: Instant, to: Peer, request: &Request) -> bool {
        let Some(hops) = &mut self.hops else { return false };
        !hops.admits(now, to, overload::class_of(request, true), &mut self.entropy)
    }

    /// Next hops that keep us back now.
    pub fn holding(&self, now: Instant) -> usize {
        self.hops.as_ref().map_or(0, |hops| hops.holding(now))
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Instant, input: Input, out: &mut Outbox<Output>) {
        match input {
            Input::Received { peer, message } => match wellformed(&message, &self.config.limits) {
                Ok(()) => match message {
                    Message::Request(request) => self.on_request(now, peer, request, out),
                    Message::Response(response) => self.on_response(now, peer, response, out),
                },
                Err(malformed) => self.on_malformed(peer, malformed, out),
            },
            Input::Shed { peer, request, why, retry_after_s } => {
                let message = Message::Request(request);
                match (wellformed(&message, &self.config.limits), message) {
                    (Ok(()), Message::Request(request)) => {
                        self.on_shed(now, peer, request, (why, retry_after_s), out);
                    }
                    (Ok(()), Message::Response(_)) => {}
                    (Err(malformed), _) => self.on_malformed(peer, malformed, out),
                }
            }
            Input::Malformed { peer, malformed } => self.on_malformed(peer, malformed, out),
            Input::Send { key, to, request } => self.send(now, key, to, request, out),
            Input::Ack { to, request } => self.send_ack(to, request, out),
            Input::Cancel { key, reason } => self.cancel(now, key, reason, out),
            Input::Respond { server, response } => self.respond(now, server, response, out),
            Input::Failed { peer } => self.on_failed(now, peer),
        }
    }

    /// Runs the timers that are due, as far as the outbox has room.
    pub fn timeout(&mut self, now: Instant, out: &mut Outbox<Output>) {
        while out.room() >= OUTPUTS_MAX {
            match self.timers.pop(now) {
                Some(Due::ServerAgain(key)) => self.server_again(now, key, out),
                Some(Due::ServerEnd(key)) => self.server_end(now, key, out),
                Some(Due::ClientAgain(serial)) => self.client_again(now, serial, out),
                Some(Due::ClientEnd(serial)) => self.client_end(now, serial, out),
                None => return,
            }
        }
    }

    /// When [`Stack::timeout`] wants to be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.next_timeout()
    }

    /// Server transactions now.
    pub fn server_transactions(&self) -> usize {
        self.servers.len()
    }

    /// Client transactions now, CANCELs among them.
    pub fn client_transactions(&self) -> usize {
        self.clients.len()
    }

    /// What arrived and went nowhere, by reason, since the start.
    pub fn dropped(&self) -> impl Iterator<Item = (Dropped, u64)> {
        self.dropped.iter().map(|(reason, count)| (*reason, *count))
    }

    fn count(&mut self, reason: Dropped) {
        *self.dropped.entry(reason).or_default() += 1;
    }

    fn on_malformed(&mut self, peer: Peer, malformed: Malformed, out: &mut Outbox<Output>) {
        self.count(Dropped::Malformed(malformed.why));
        let Some(mut answer) = malformed.answer else { return };
        // A topmost Via that cannot be read says nothing about the way back: the source does.
        let to = match answer.top_via() {
            Ok(mut via) => {
                hop::note_source(&mut via, peer.addr);
                answer.headers.replace_first_value(&crate::Name::Via, &via.to_string());
                hop::response_peer(&via, peer)
            }
            Err(_) => peer,
        };
        emit(out, Output::Transmit { peer: to, bytes: answer.to_bytes() });
    }

    fn on_failed(&mut self, now: Instant, peer: Peer) {
        if peer.transport.is_reliable() && !self.towards.contains_key(&peer) {
            return;
        }
        self.fail_clients(now, peer);
        self.fall_back_servers(now, peer);
    }

    fn sent_by(&self, transport: Transport) -> HostPort {
        let entries = &self.config.sent_by;
        let entry = entries.iter().find(|(t, _)| *t == transport).or(entries.first());
        entry
            .map(|(_, host)| host.clone())
            .unwrap_or(HostPort { host: crate::Host::Name("invalid".into()), port: None })
    }

    /// A Via of ours with a fresh branch (RFC 3261 §8.1.1.7) and, over UDP, `rport` (RFC 3581 §3).
    fn via(&mut self, transport: Transport) -> Via {
        let branch = format!("{}{}", crate::typed::MAGIC, self.entropy.token(80));
        let mut via = Via::new(transport, self.sent_by(transport), &branch);
        if !transport.is_reliable() {
            via.params.set("rport", None);
        }
        via
    }

    fn enter(&mut self, peer: Peer) {
        if peer.transport.is_reliable() {
            *self.towards.entry(peer).or_default() += 1;
        }
    }

    fn leave(&mut self, peer: Peer) {
        if let Some(count) = self.towards.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.towards.remove(&peer);
            }
        }
    }
}

/// Puts an output; the driver has checked the room (see [`OUTPUTS_MAX`]), and what finds none is counted by
/// the outbox.
fn emit(out: &mut Outbox<Output>, output: Output) {
    let _ = out.push(output);
}

/// Says what there is to say about our load, where the client asked (RFC 7339 §5.2): in any response, a 100 too (§5.11).
fn stamp(advice: Option<&overload::Advice>, response: &mut Response) {
    let Some(advice) = advice else { return };
    if let Ok(mut via) = response.top_via()
        && via.params.has("oc")
    {
        advice.stamp(&mut via);
        response.headers.replace_first_value(&crate::Name::Via, &via.to_string());
    }
}

/// Sets a timer in a slot, taking the old one back. Room is reserved for two per transaction.
fn set_timer(timers: &mut Timers<Due>, slot: &mut Option<TimerId>, at: Instant, due: Due) {
    stop_timer(timers, slot);
    *slot = timers.set(at, due).ok();
}

fn stop_timer(timers: &mut Timers<Due>, slot: &mut Option<TimerId>) {
    if let Some(id) = slot.take() {
        timers.cancel(id);
    }
}

#[cfg(test)]
mod lossy;
#[cfg(test)]
mod overloaded;
#[cfg(test)]
mod tests;
