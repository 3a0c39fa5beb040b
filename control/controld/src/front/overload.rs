//! Overload at the front (RFC 7339): a request is refused before anything is made for it, and what next hops ask of us is
//! obeyed. [`sip::overload`] has the rules.

use std::net::SocketAddr;

use service::Source;
use sip::overload::{Algorithm, Class, Obeys, class_of};
use sip::{ClientKey, Input, Message, Method, Peer, Request};

use super::{Front, Way};

impl Front {
    /// Whether a message is too much. That is known by which lane it is for and how long it would wait there, before it has
    /// a transaction and long before anyone asks who sent it.
    pub(super) fn admit(&mut self, peer: Peer, mut way: Way, message: Message) -> (Input, Way) {
        let request = match message {
            Message::Request(request) if !matches!(request.method, Method::Ack | Method::Cancel) => request,
            message => return (Input::Received { peer, message }, way),
        };
        let source =
            Source::Network { peer, connection: way.connection, local: way.local, trusted: way.trusted };
        let (believed, lane, now) = (self.believes(&source), self.lane(&source, &request), self.now());
        way.lane = Some(lane);
        let class = class_of(&request, believed);
        let obeys = if class == Class::Ordinary && believed && self.parts.control.is_limiting() {
            self.obeys(peer, &request)
        } else {
            Obeys::Nothing
        };
        let waits = now.since(way.at) + self.parts.lanes.expected(lane, now);
        let parts = &mut self.parts;
        let input = match parts.control.admit(now, lane, class, obeys, waits, &mut parts.entropy) {
            Ok(()) => Input::Received { peer, message: Message::Request(request) },
            Err(why) => {
                let seconds = parts.control.settings().retry_after_s;
                // RFC 3261 §21.5.4: whoever obeys it sends nothing at all for so long. A peer that is believed speaks for many,
                // and would send all of it at once to nobody or to another one. The others come again at different times.
                let drawn = parts.entropy.below(u64::from(seconds) + 1);
                let drawn = seconds.saturating_add(u32::try_from(drawn).unwrap_or(0));
                Input::Shed { peer, request, why, retry_after_s: if believed { 0 } else { drawn } }
            }
        };
        (input, way)
    }

    /// What a peer whose word is believed says that it does about what we tell it.
    fn obeys(&self, peer: Peer, request: &Request) -> Obeys {
        let via = request.top_via().ok();
        let prefer = self.parts.control.settings().prefer;
        match via.and_then(|via| sip::overload::algorithm(&via, prefer)) {
            None => Obeys::Nothing,
            Some(Algorithm::Loss) => Obeys::Loss,
            // One client, however many connections it has.
            Some(Algorithm::Rate) => {
                Obeys::Rate(Peer::new(peer.transport, SocketAddr::new(peer.addr.ip(), 0)))
            }
        }
    }

    /// The end of an interval.
    pub(super) fn tick(&mut self) {
        let now = self.parts.clock.now();
        let samples = self.parts.lanes.samples(now.mono);
        let was = self.parts.control.is_limiting();
        let tick = self.parts.control.tick(now.mono, now.wall, &samples);
        self.parts.stack.advise(tick.advice);
        let metrics = &self.parts.metrics;
        metrics.overload_loss.set(i64::from(tick.advice.loss));
        metrics.overload_lanes.set(i64::try_from(tick.limited).unwrap_or(i64::MAX));
        let holding = self.parts.stack.holding(now.mono);
        metrics.overload_hops.set(i64::try_from(holding).unwrap_or(i64::MAX));
        match (was, self.parts.control.is_limiting()) {
            (false, true) => tracing::warn!(lanes = tick.limited, "requests wait too long: some are refused"),
            (true, false) => tracing::info!("requests wait no longer: all are taken"),
            _ => {}
        }
    }

    /// True where the next hop wants no such request now.
    pub(super) fn withheld(&mut self, to: Peer, request: &Request) -> bool {
        let now = self.now();
        let withheld = self.parts.stack.withholds(now, to, request);
        if withheld {
            self.parts.metrics.withheld.inc();
        }
        withheld
    }

    pub(super) fn send(&mut self, key: ClientKey, to: Peer, request: Request) {
        match self.withheld(to, &request) {
            true => self.tell_withheld(key, &request),
            false => self.input(Input::Send { key, to, request }, None),
        }
    }

    /// RFC 7339 §5.10.1: what would not be taken there is answered 503 here.
    pub(super) fn tell_withheld(&self, key: ClientKey, request: &Request) {
        self.tell_response(key, request.respond(503));
    }
}
