//! The front: owns the SIP stack, screens requests, and knows which lane an event belongs to.
//!
//! ```text
//!   edge ── Arrival ──▶ stack ── Request ──▶ screen ──▶ lane        lane ── Order ──▶ stack ──▶ edge
//! ```
//!
//! The front waits for nobody: what a lane or a connection cannot take is refused there and counted. What goes to a name
//! waits in `named` until the name is located.

mod named;
mod overload;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{Entropy, HashSeed, Instant, Map, Outbox, map};
use service::{ClientTx, Named, Source, lane_of};
use sip::screen::Rules;
use sip::tries::Tries;
use sip::typed::Reason;
use sip::{ClientKey, Input, Method, Output, Peer, Request, Response, ServerKey, Stack};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;

use crate::Shutdown;
use crate::clock::Clock;
use crate::edge::{Arrival, Edge, Place};
use crate::lane::{Event, LaneRef, Lanes, Origin, unavailable};
use crate::metrics::{Answer, Discard, MethodLabel, Metrics};
use crate::resolve::{Found, Resolver};

/// Room for what the stack wants; its own inputs while it is emptied add a few.
const OUTPUTS_ROOM: usize = 1024;

/// How long an INVITE's 2xx may still turn out to have no ACK: 64*T1 (RFC 3261 §13.3.1.4) and a little.
const ACK_PATIENCE: Duration = Duration::from_secs(40);

/// Where a request goes over the network.
#[derive(Debug)]
pub(crate) enum To {
    Peer(Peer),
    Name(Named),
}

/// What lanes and the admin socket want of the front.
#[derive(Debug)]
pub(crate) enum Order {
    Respond {
        server: u64,
        response: Response,
    },
    Send {
        key: ClientKey,
        to: To,
        request: Request,
    },
    Ack {
        to: To,
        request: Request,
    },
    Cancel {
        key: ClientKey,
        reason: Option<Reason>,
    },
    /// New sessions are refused from now on, or no longer.
    Drain(bool),
}

/// The stack's name for a lane's client transaction: 8 bits of lane, 16 of its life, 40 of its number.
pub(crate) fn client_key(from: LaneRef, tx: ClientTx) -> ClientKey {
    let (lane, life) = (from.lane as u64 & 0xff, u64::from(from.life) & 0xffff);
    ClientKey((lane << 56) | (life << 40) | (tx.0 & 0xff_ffff_ffff))
}

fn of_client_key(key: ClientKey) -> (usize, u32, ClientTx) {
    let lane = usize::try_from(key.0 >> 56).unwrap_or(0);
    let life = u32::try_from((key.0 >> 40) & 0xffff).unwrap_or(0);
    (lane, life, ClientTx(key.0 & 0xff_ffff_ffff))
}

/// What a front is made of.
pub(crate) struct Parts {
    pub(crate) stack: Stack,
    pub(crate) control: sip::overload::Server,
    pub(crate) entropy: Entropy,
    pub(crate) rules: Rules,
    /// For finding the lane of a request.
    pub(crate) config: Arc<service::Config>,
    pub(crate) edge: Edge,
    pub(crate) lanes: Lanes,
    pub(crate) resolver: Resolver,
    pub(crate) tries: Tries,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) seed: HashSeed,
    /// Thrown when the lanes have ended.
    pub(crate) shutdown: Shutdown,
}

/// How a message came.
#[derive(Clone, Copy, Debug)]
struct Way {
    connection: u64,
    local: SocketAddr,
    trusted: bool,
    /// When it came.
    at: Instant,
    /// Of a new request.
    lane: Option<usize>,
}

struct Front {
    parts: Parts,
    out: Outbox<Output>,
    /// The lane of each INVITE that may still be cancelled or miss its ACK.
    invites: Map<ServerKey, usize>,
    /// INVITEs with a 2xx, by when they are forgotten.
    answered: VecDeque<(Instant, ServerKey)>,
    draining: bool,
    waiting: named::Waiting,
    /// Of the message that is being looked at.
    place: Option<Place>,
}

/// Runs the front until shutdown. What arrives waits until `open` is told that every lane has its rows.
pub(crate) async fn run(
    parts: Parts,
    mut arrivals: mpsc::Receiver<Arrival>,
    mut orders: mpsc::Receiver<Order>,
    mut found: mpsc::UnboundedReceiver<Found>,
    mut open: oneshot::Receiver<()>,
) {
    let mut is_open = false;
    let shutdown = parts.shutdown.clone();
    let mut front = Front {
        out: Outbox::with_max(OUTPUTS_ROOM.max(4 * sip::OUTPUTS_MAX)),
        invites: map(parts.seed),
        answered: VecDeque::new(),
        draining: false,
        waiting: named::Waiting::new(parts.seed),
        place: None,
        parts,
    };
    loop {
        let deadline = front.parts.stack.next_timeout().map(|at| front.parts.clock.at(at));
        let wake = deadline.unwrap_or_else(|| tokio::time::Instant::now() + Duration::from_secs(3600));
        let tick = front.parts.clock.at(front.parts.control.next_tick());
        tokio::select! {
            biased;
            Some(order) = orders.recv() => front.carry_out(order),
            () = shutdown.triggered() => return,
            () = sleep_until(wake), if deadline.is_some() => front.timeout(),
            () = sleep_until(tick), if front.parts.control.settings().on => front.tick(),
            Some(found) = found.recv() => front.found(found),
            _ = &mut open, if !is_open => is_open = true,
            Some(arrival) = arrivals.recv(), if is_open => front.take(arrival),
        }
    }
}

impl Front {
    fn now(&self) -> Instant {
        self.parts.clock.now().mono
    }

    fn take(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Message { peer, connection, local, trusted, message, at, place } => {
                self.place = place;
                let way = Way { connection, local, trusted, at, lane: None };
                let (input, way) = self.admit(peer, way, message);
                self.input(input, Some(way));
                self.place = None;
            }
            Arrival::Malformed { peer, malformed } => self.input(Input::Malformed { peer, malformed }, None),
            Arrival::Failed { peer, connection, last } => {
                self.parts.lanes.disconnected(connection);
                if last {
                    self.input(Input::Failed { peer }, None);
                }
            }
        }
    }

    fn timeout(&mut self) {
        let now = self.now();
        self.parts.stack.timeout(now, &mut self.out);
        self.outputs(None);
        while let Some((_, server)) = self.answered.pop_front_if(|(by, _)| *by <= now) {
            self.invites.remove(&server);
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Respond { server, response } => self.respond(ServerKey(server), response),
            Order::Send { key, to: To::Peer(to), request } => self.send(key, to, request),
            Order::Send { key, to: To::Name(named), request } => self.send_by_name(key, &named, request),
            Order::Ack { to: To::Peer(to), request } => self.input(Input::Ack { to, request }, None),
            Order::Ack { to: To::Name(named), request } => self.ack_by_name(&named, request),
            Order::Cancel { key, reason } => {
                self.cancel_by_name(key);
                self.input(Input::Cancel { key, reason }, None);
            }
            Order::Drain(on) => self.draining = on,
        }
    }

    fn respond(&mut self, server: ServerKey, response: Response) {
        if let Some(class) = Answer::of(response.code) {
            self.parts.metrics.responses.count(class);
            if !response.is_success() {
                self.invites.remove(&server);
            } else if self.invites.contains_key(&server) {
                self.answered.push_back((self.now() + ACK_PATIENCE, server));
            }
        }
        self.input(Input::Respond { server, response }, None);
    }

    fn input(&mut self, input: Input, way: Option<Way>) {
        let now = self.now();
        self.parts.stack.handle(now, input, &mut self.out);
        self.outputs(way);
        self.count();
    }

    /// What the stack counts, where Prometheus sees it.
    fn count(&self) {
        let (stack, metrics) = (&self.parts.stack, &self.parts.metrics);
        for (reason, count) in stack.dropped() {
            metrics.discarded.raise(Discard::Stack(reason), count);
        }
        let open = stack.server_transactions() + stack.client_transactions();
        metrics.transactions.set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    /// Performs what the stack wants; what it is told meanwhile may make it want more.
    fn outputs(&mut self, way: Option<Way>) {
        while let Some(output) = self.out.pop() {
            match output {
                Output::Transmit { peer, bytes } => {
                    if self.parts.edge.send(peer, bytes).is_err() {
                        let now = self.now();
                        self.parts.stack.handle(now, Input::Failed { peer }, &mut self.out);
                    }
                }
                Output::Request { server, peer, request } => self.request(server, peer, way, request),
                Output::Ack { peer, request } => {
                    let source = self.source(peer, way);
                    let lane = self.lane(&source, &request);
                    self.parts.lanes.tell(lane, Event::Ack { source, request });
                }
                Output::Cancelled { server, reason } => {
                    if let Some(lane) = self.invites.get(&server) {
                        self.parts
                            .lanes
                            .tell(*lane, Event::Cancelled { origin: Origin::Network(server.0), reason });
                    }
                }
                Output::AckMissing { server } => {
                    if let Some(lane) = self.invites.remove(&server) {
                        self.parts.lanes.tell(lane, Event::AckMissing { server: server.0 });
                    }
                }
                Output::Response { key, response, .. } => {
                    if !self.goes_on_after(key, &response) {
                        self.tell_response(key, response);
                    }
                }
                Output::Expired { key, why } => {
                    if !self.goes_on_without(key, why) {
                        self.tell_expired(key);
                    }
                }
            }
        }
    }

    fn tell_response(&self, key: ClientKey, response: Response) {
        let (lane, life, tx) = of_client_key(key);
        self.parts.lanes.tell(lane, Event::Response { life, tx, response });
    }

    fn tell_expired(&self, key: ClientKey) {
        let (lane, life, tx) = of_client_key(key);
        self.parts.lanes.tell(lane, Event::Expired { life, tx });
    }

    fn source(&self, peer: Peer, way: Option<Way>) -> Source {
        match way {
            Some(Way { connection, local, trusted, .. }) => {
                Source::Network { peer, connection, local, trusted }
            }
            None => Source::Network { peer, connection: 0, local: peer.addr, trusted: false },
        }
    }

    fn lane(&self, source: &Source, request: &Request) -> usize {
        self.parts.lanes.of(lane_of(&self.parts.config, request, self.believes(source)))
    }

    fn believes(&self, source: &Source) -> bool {
        match source {
            Source::Network { peer, trusted, .. } => {
                *trusted || self.parts.config.identity.trusted_peers.contains(&peer.addr.ip())
            }
            Source::Lane(_) => true,
        }
    }

    fn request(&mut self, server: ServerKey, peer: Peer, way: Option<Way>, request: Request) {
        if let Err(refusal) = self.parts.rules.screen(&request) {
            return self.refuse(server, Discard::Screened, *refusal);
        }
        let begins = request.method == Method::Invite && request.to_tag().is_none();
        if begins && self.draining {
            return self.refuse(server, Discard::Draining, unavailable(&request));
        }
        let (source, invite) = (self.source(peer, way), request.method == Method::Invite);
        let method = MethodLabel::of(&request.method);
        let lane = way.and_then(|way| way.lane).unwrap_or_else(|| self.lane(&source, &request));
        let (refusal, now) = (unavailable(&request), self.now());
        let (origin, at) = (Origin::Network(server.0), way.map_or(now, |way| way.at));
        let event = Event::Request { origin, source, request, at, place: self.place.take() };
        match self.parts.lanes.offer(now, lane, event) {
            Ok(()) => {
                self.parts.metrics.requests.count(method);
                if invite {
                    self.invites.insert(server, lane);
                }
            }
            Err(busy) => self.refuse(server, busy.into(), refusal),
        }
    }

    fn refuse(&mut self, server: ServerKey, why: Discard, response: Response) {
        self.parts.metrics.discarded.count(why);
        if let Some(class) = Answer::of(response.code) {
            self.parts.metrics.responses.count(class);
        }
        let now = self.now();
        self.parts.stack.handle(now, Input::Respond { server, response }, &mut self.out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_key_names_lane_life_and_number() {
        for (lane, life, tx) in [(0, 0, 1), (255, 65_535, 0xff_ffff_ffff), (3, 7, 1 << 39)] {
            let key = client_key(LaneRef { lane, life }, ClientTx(tx));
            assert_eq!(of_client_key(key), (lane, life, ClientTx(tx)));
        }
    }
}
