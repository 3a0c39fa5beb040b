//! Performing what was decided, after its commit.

use contract::Refusal;
use service::{ClientTx, LaneKey, Output, Route, ServerTx, Source};
use sip::typed::Reason;
use sip::{Name, Request, Response};

use super::task::Lane;
use super::{Event, Origin};
use crate::front::{self, To};
use crate::link::{self, Order};

/// Where a request went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    Network,
    Lane(usize),
}

/// A request that has no final answer yet.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) origin: Origin,
    /// What is answered if this life ends before the service has answered.
    pub(super) refusal: Box<Response>,
}

/// Our own side cannot now; the peer may come again soon.
pub(crate) fn unavailable(request: &Request) -> Response {
    let mut response = request.respond(503);
    response.headers.push(Name::RetryAfter, "5");
    response
}

impl Lane {
    pub(super) async fn perform(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Respond { tx, response } => self.respond(tx, response).await,
                Output::Send { tx, to: Route::Peer(peer), request } => {
                    self.send(tx, To::Peer(peer), request).await;
                }
                Output::Send { tx, to: Route::Name(named), request } => {
                    self.send(tx, To::Name(named), request).await;
                }
                Output::Send { tx, to: Route::Lane(key), request } => self.send_to_lane(tx, key, request),
                Output::Ack { to: Route::Peer(peer), request, .. } => {
                    self.order(front::Order::Ack { to: To::Peer(peer), request }).await;
                }
                Output::Ack { to: Route::Name(named), request, .. } => {
                    self.order(front::Order::Ack { to: To::Name(named), request }).await;
                }
                Output::Ack { to: Route::Lane(key), request, .. } => {
                    self.parts
                        .lanes
                        .tell(self.parts.lanes.of(key), Event::Ack { source: self.source(), request });
                }
                Output::Cancel { tx, reason } => self.cancel(tx, reason).await,
                Output::Program { ask, batch } => {
                    let order = Order::Program { from: self.own(), ask, batch };
                    if self.parts.link.order(order).is_err() {
                        let refusal = Refusal { detail: "too many orders wait".to_owned(), ..link::lost() };
                        let event = Event::Refused { life: self.life, ask, refusal };
                        self.parts.lanes.tell(self.parts.index, event);
                    }
                }
                Output::Decide(decide) => {
                    // Without room the peer's own timer ends its request.
                    let _ = self.parts.link.order(Order::Decide(decide));
                }
                // Taken out when the decision was made.
                Output::Need { .. } | Output::Write(_) => {}
            }
        }
    }

    /// The front never waits for a lane, so this ends soon.
    async fn order(&self, order: front::Order) {
        let _ = self.parts.front.send(order).await;
    }

    fn key(&self, tx: ClientTx) -> sip::ClientKey {
        front::client_key(self.own(), tx)
    }

    /// What other lanes see as the source of our requests: any bucket of ours.
    fn source(&self) -> Source {
        Source::Lane(LaneKey(u16::try_from(self.parts.index).unwrap_or(0)))
    }

    async fn respond(&mut self, tx: ServerTx, response: Response) {
        let Some(serving) = self.servers.get(&tx) else { return };
        let origin = serving.origin;
        if response.code >= 200 {
            self.servers.remove(&tx);
            self.of_lanes.remove(&origin);
        }
        self.answer(origin, response).await;
    }

    pub(super) async fn answer(&self, origin: Origin, response: Response) {
        match origin {
            Origin::Network(server) => self.order(front::Order::Respond { server, response }).await,
            // RFC 3261 §17.1.1.2: a 100 is for the hop that it came over, and this hop loses nothing.
            Origin::Lane { .. } if response.code == 100 => {}
            Origin::Lane { from, tx } => {
                self.parts.lanes.tell(from.lane, Event::Response { life: from.life, tx, response });
            }
        }
    }

    async fn send(&mut self, tx: ClientTx, to: To, request: Request) {
        self.clients.insert(tx, Way::Network);
        self.order(front::Order::Send { key: self.key(tx), to, request }).await;
    }

    fn send_to_lane(&mut self, tx: ClientTx, key: LaneKey, request: Request) {
        let lane = self.parts.lanes.of(key);
        let origin = Origin::Lane { from: self.own(), tx };
        let refusal = unavailable(&request);
        let at = self.parts.clock.now().mono;
        let event = Event::Request { origin, source: self.source(), request, at, place: None };
        match self.parts.lanes.offer(at, lane, event) {
            Ok(()) => {
                self.clients.insert(tx, Way::Lane(lane));
            }
            Err(_) => {
                let event = Event::Response { life: self.life, tx, response: refusal };
                self.parts.lanes.tell(self.parts.index, event);
            }
        }
    }

    async fn cancel(&mut self, tx: ClientTx, reason: Option<Reason>) {
        match self.clients.get(&tx) {
            Some(Way::Network) => self.order(front::Order::Cancel { key: self.key(tx), reason }).await,
            Some(Way::Lane(lane)) => {
                let origin = Origin::Lane { from: self.own(), tx };
                self.parts.lanes.tell(*lane, Event::Cancelled { origin, reason });
            }
            None => {}
        }
    }

    /// Nobody waits in vain for this life: what it served is answered 503, what it sent is taken back.
    pub(super) async fn abandon(&mut self) {
        let (servers, clients) = (self.servers_taken(), self.clients_taken());
        for serving in servers {
            self.answer(serving.origin, *serving.refusal).await;
        }
        for (tx, way) in clients {
            match way {
                Way::Network => self.order(front::Order::Cancel { key: self.key(tx), reason: None }).await,
                Way::Lane(lane) => {
                    let origin = Origin::Lane { from: self.own(), tx };
                    self.parts.lanes.tell(lane, Event::Cancelled { origin, reason: None });
                }
            }
        }
    }

    fn servers_taken(&mut self) -> Vec<Serving> {
        self.of_lanes.clear();
        self.servers.drain().map(|(_, serving)| serving).collect()
    }

    fn clients_taken(&mut self) -> Vec<(ClientTx, Way)> {
        self.clients.drain().collect()
    }
}
