//! re-INVITE and UPDATE: one change of the session at a time (RFC 3261 §14, RFC 3311, RFC 3264 §8).
//!
//! ```text
//!          from a side                                            ours (refresh, new MSRP path)
//!              │ nothing new in it: answered here ──▶ Acking             │
//!              ▼                                                         ▼
//!         Preparing ──applied──▶ Waiting ◀───────────────────────────────┘
//!              │ refused: 488, 503  │ failure: relayed, old media restored ──▶ done
//!              ▼                    │ 2xx (ACK)
//!             done                  ▼
//!                               Finishing ──applied──▶ 2xx to the asker ──INVITE──▶ Acking ──ACK──▶ done
//! ```
//!
//! Meanwhile another change from the other side is glare: 491; a second one from the same side 500.

use std::time::Duration;

use base::Instant;
use bytes::Bytes;
use contract::Refusal;
use contract::refusal::Reason;
use sip::{Method, Name, Request, Response};

use super::clock::{self, Clock};
use super::{Phase, Plan, Session, SideState, UPSTREAM};
use crate::b2b;
use crate::body;
use crate::supported;
use crate::turn::{Owner, Turn};
use crate::{ClientTx, ServerTx};

/// A device may ask its user before it answers a change.
pub(super) const OVERDUE: Duration = Duration::from_secs(180);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Preparing,
    Waiting,
    Finishing,
    Acking,
}

/// Why there is an exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// A side wants a change.
    Change,
    /// The session timer.
    Refresh,
    /// A new MSRP path.
    Repair,
}

/// A change under way.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) purpose: Purpose,
    pub(super) step: Step,
    /// Who asked; the side itself for our own.
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) server: Option<(ServerTx, Request)>,
    pub(super) client: Option<ClientTx>,
    pub(super) method: Method,
    /// The offer as it came, or as we made it.
    pub(super) offer: Bytes,
    pub(super) accepted: Option<Response>,
    /// CSeq of our request.
    pub(super) seq: u32,
    /// The asker's clock as it will be, and the asked one's as it was.
    pub(super) clocks: [Clock; 2],
    pub(super) deadline: Instant,
}

impl Exchange {
    pub(super) const fn client(&self) -> Option<ClientTx> {
        self.client
    }

    pub(super) const fn offer(&self) -> &Bytes {
        &self.offer
    }

    pub(super) fn server(&self) -> Option<ServerTx> {
        self.server.as_ref().map(|(tx, _)| *tx)
    }

    pub(super) const fn deadline(&self) -> Option<Instant> {
        Some(self.deadline)
    }

    /// The asked side has offered in its 2xx, and waits for the answer in our ACK.
    fn owes_ack(&self) -> bool {
        let late = self.method == Method::Invite && self.offer.is_empty();
        late && matches!(self.step, Step::Finishing | Step::Acking)
    }
}

impl Session {
    /// A side wants to change or refresh the session.
    pub(super) fn modify(&mut self, turn: &mut Turn<'_>, at: usize, tx: ServerTx, request: Request) {
        if let Some(busy) = &self.exchange {
            let code = if busy.server.is_some() && busy.from == at { 500 } else { 491 };
            return self.refuse_change(turn, tx, &request, code);
        }
        if self.is_early() && request.method == Method::Invite {
            // RFC 3261 §14.2: the first one has no final answer; from the side that we called it is glare.
            return self.refuse_change(turn, tx, &request, if at == UPSTREAM { 500 } else { 491 });
        }
        let offer = match body::sdp_in(&request.headers, &request.body) {
            Some(offer) if self.is_early() => match self.may_change_early(at, &request) {
                Err(code) if !offer.is_empty() => return self.refuse_change(turn, tx, &request, code),
                _ => offer,
            },
            // RFC 3264 §4: one offer at a time, and that of our 2xx has no answer yet.
            Some(offer) if self.phase == Phase::Active && self.unacknowledged().is_none() => offer,
            Some(_) => return turn.respond(tx, request.respond(491)),
            None => return turn.respond(tx, b2b::refuse(turn.config(), &request, 400)),
        };
        let Some(side) = self.side(at) else { return };
        let proposed = match clock::accept(turn, &request, &side.route) {
            Ok(_) if self.is_early() => Clock::default(),
            Ok(clock) => clock,
            Err(response) => return turn.respond(tx, *response),
        };
        let same = offer == side.sdp_got;
        let deadline = turn.now.mono + OVERDUE;
        let exchange = Exchange {
            purpose: Purpose::Change,
            step: Step::Preparing,
            from: at,
            to: at,
            method: request.method.clone(),
            server: Some((tx, request)),
            client: None,
            offer: offer.clone(),
            accepted: None,
            seq: 0,
            clocks: [proposed, Clock::default()],
            deadline,
        };
        self.exchange = Some(exchange);
        // A refresh changes nothing: it is answered from here, with what was said before (RFC 4028 §7.4). An
        // INVITE without an offer gets our last description as one.
        if same || (offer.is_empty() && self.plan != Plan::Pass) || self.is_refresh(&offer) {
            let sdp = self.side(at).map(|s| s.sdp_sent.clone());
            self.conclude(turn, sdp.filter(|_| !(offer.is_empty() && self.is_update())));
            return;
        }
        self.prepare(turn, at, &offer);
    }

    /// The other side is asked, once the data plane has what the asker offers.
    pub(super) fn prepare(&mut self, turn: &mut Turn<'_>, at: usize, offer: &Bytes) {
        match self.plan {
            Plan::Pass => self.hand_over(turn),
            Plan::FanOut => self.answer_here(turn, at, offer),
            Plan::Relay => match self.sound_offered(turn, at, offer) {
                Ok(()) if self.ask.is_none() => self.hand_over(turn),
                Ok(()) => {}
                Err(code) => self.refuse_exchange(turn, code),
            },
        }
    }

    fn is_update(&self) -> bool {
        self.exchange.as_ref().is_some_and(|e| e.method == Method::Update)
    }

    fn is_refresh(&self, offer: &Bytes) -> bool {
        offer.is_empty() && self.is_update()
    }

    /// A fan-out answers for itself: the peers of its legs are not each other's.
    fn answer_here(&mut self, turn: &mut Turn<'_>, at: usize, offer: &Bytes) {
        match self.sound_answered_here(turn, at, offer) {
            Ok(sdp) => {
                if let Some(side) = self.side_mut(at) {
                    side.sdp_got = offer.clone();
                }
                self.conclude(turn, Some(sdp));
            }
            Err(code) => self.refuse_exchange(turn, code),
        }
    }

    /// The data plane has the asker's new media: the other side is asked.
    pub(super) fn exchange_ready(&mut self, turn: &mut Turn<'_>) {
        match self.exchange.as_ref().map(|e| e.step) {
            Some(Step::Preparing) => self.hand_over(turn),
            Some(Step::Finishing) => self.finish(turn),
            _ => {}
        }
    }

    pub(super) fn exchange_refused(&mut self, turn: &mut Turn<'_>, refusal: &Refusal) {
        match self.exchange.as_ref().map(|e| e.step) {
            // What cannot be a leg came from the asker's description.
            Some(Step::Preparing) if refusal.reason() == Reason::BadLeg => self.refuse_exchange(turn, 488),
            Some(Step::Preparing) => self.refuse_exchange(turn, 503),
            // Both sides have agreed on media that the data plane does not take.
            Some(Step::Finishing) => self.end_all(turn, None, "SIP;cause=503"),
            // So have they by an ACK.
            None if self.plan == Plan::Relay => self.end_all(turn, None, "SIP;cause=503"),
            _ => {}
        }
    }

    fn hand_over(&mut self, turn: &mut Turn<'_>) {
        let Some(from) = self.exchange.as_ref().map(|e| e.from) else { return };
        let Some(to) = self.opposite(from) else {
            self.refuse_exchange(turn, 480);
            return;
        };
        let offer = self.exchange.as_ref().map(|e| e.offer.clone()).unwrap_or_default();
        let sdp = match self.plan {
            Plan::Pass => Some(offer.clone()),
            Plan::Relay | Plan::FanOut => self.sound_reoffer(turn, to, &offer),
        };
        let contact = self.contact_of(turn, to);
        let id = self.id;
        let (early, Some(exchange)) = (self.is_early(), &self.exchange) else { return };
        let Some((_, original)) = exchange.server.clone() else { return };
        let method = exchange.method.clone();
        let (Some(route), Some(dialog)) = (self.route_with(turn, to), self.dialog_with(to)) else {
            return self.refuse_exchange(turn, 481);
        };
        let mut next = dialog.request(method);
        let seq = dialog.local_seq.unwrap_or(1);
        b2b::pass_within(turn.config(), &route, &original, &mut next);
        next.headers.set(Name::Contact, contact);
        next.headers.set(Name::Allow, supported::ALLOW);
        let Some(side) = self.sides.get_mut(to) else { return };
        let before = side.clock.clone();
        if !early {
            side.clock = clock::propose(turn, &mut next, &side.route);
        }
        if let Some(sdp) = sdp.filter(|s| !s.is_empty()) {
            body::replace_sdp(&mut next, sdp.clone());
            side.sdp_sent = sdp;
        }
        let tx = turn.send(Owner::Session(id), route, next);
        if let Some(exchange) = &mut self.exchange {
            exchange.to = to;
            exchange.seq = seq;
            exchange.clocks[1] = before;
            exchange.client = Some(tx);
            exchange.step = Step::Waiting;
        }
        self.save(turn);
    }

    /// The session timer rang: we refresh (RFC 4028 §7.4).
    pub(super) fn refresh(&mut self, turn: &mut Turn<'_>, at: usize) {
        let Some(side) = self.side(at) else { return };
        let (method, sdp) = if side.update {
            (Method::Update, Bytes::new())
        } else {
            (Method::Invite, side.sdp_sent.clone())
        };
        self.ask_side(turn, at, Purpose::Refresh, method, sdp);
    }

    /// Our own request for a change.
    pub(super) fn ask_side(
        &mut self,
        turn: &mut Turn<'_>,
        at: usize,
        purpose: Purpose,
        method: Method,
        sdp: Bytes,
    ) {
        let contact = self.contact_of(turn, at);
        let id = self.id;
        let Some(side) = self.side_mut(at) else { return };
        let Some(dialog) = side.dialog.as_mut() else { return };
        let mut request = dialog.request(method.clone());
        let seq = dialog.local_seq.unwrap_or(1);
        request.headers.set(Name::Contact, contact);
        request.headers.set(Name::Allow, supported::ALLOW);
        let before = side.clock.clone();
        let next = clock::propose(turn, &mut request, &side.route);
        if before.interval_s() != 0 {
            side.clock = next;
        }
        if !sdp.is_empty() {
            request.set_body("application/sdp", sdp.clone());
            side.sdp_sent = sdp.clone();
        }
        let tx = turn.send(Owner::Session(id), side.route.clone(), request);
        self.exchange = Some(Exchange {
            purpose,
            step: Step::Waiting,
            from: at,
            to: at,
            server: None,
            client: Some(tx),
            method,
            offer: sdp,
            accepted: None,
            seq,
            clocks: [before.clone(), before],
            deadline: turn.now.mono + OVERDUE,
        });
        self.save(turn);
    }

    /// The asked side answers.
    pub(super) fn exchange_answered(&mut self, turn: &mut Turn<'_>, response: Response) {
        match response.code {
            ..200 => {}
            200..300 => self.exchange_accepted(turn, response),
            _ => self.exchange_failed(turn, &response),
        }
    }

    fn exchange_accepted(&mut self, turn: &mut Turn<'_>, response: Response) {
        let Some(exchange) = &self.exchange else { return };
        let (to, method, purpose, had_offer) =
            (exchange.to, exchange.method.clone(), exchange.purpose, !exchange.offer.is_empty());
        let (client, seq) = (exchange.client, exchange.seq);
        if exchange.step != Step::Waiting {
            return;
        }
        let sdp = body::sdp_in(&response.headers, &response.body).unwrap_or_default();
        let (now, early) = (turn.now.mono, self.is_early());
        let Some(dialog) = self.dialog_with(to) else { return };
        // Its target only: an early dialog is confirmed by the INVITE's 2xx, not by this one.
        let phase = std::mem::replace(&mut dialog.phase, sip::Phase::Confirmed);
        let read = dialog.update(&response);
        dialog.phase = phase;
        let ack = dialog.ack(seq);
        if read.is_err() {
            // A Contact that does not parse: the old target stays (RFC 3261 §12.2.1.2).
            turn.desk.counters.contacts_unread += 1;
        }
        let Some(side) = self.side_mut(to) else { return };
        if !early {
            side.clock = clock::agreed(now, side.clock.clone(), &response);
        }
        let late_offer = method == Method::Invite && !had_offer;
        if let (Method::Invite, false, Some(client)) = (&method, late_offer, client) {
            turn.ack(client, side.route.clone(), ack);
        }
        if !sdp.is_empty() {
            side.sdp_got = sdp.clone();
        }
        let relayed = purpose == Purpose::Change && self.plan == Plan::Relay && !sdp.is_empty();
        if relayed && self.sound_reanswered(turn, to).is_err() {
            self.end_all(turn, None, "SIP;cause=488");
            return;
        }
        if let Some(exchange) = &mut self.exchange {
            exchange.accepted = Some(response);
            exchange.step = Step::Finishing;
        }
        match purpose {
            Purpose::Repair => {
                self.exchange = None;
                self.repair_answered(turn, to);
            }
            Purpose::Refresh => self.exchange = None,
            Purpose::Change if self.ask.is_none() => self.finish(turn),
            Purpose::Change => {}
        }
        self.save(turn);
    }

    fn exchange_failed(&mut self, turn: &mut Turn<'_>, response: &Response) {
        let Some(exchange) = self.exchange.take() else { return };
        let [_, before] = exchange.clocks;
        if let Some(side) = self.side_mut(exchange.to) {
            // What was proposed was not agreed: the old clock runs on; a refresh of ours is tried again.
            let postponed = exchange.purpose == Purpose::Refresh;
            side.clock = before;
            if postponed {
                side.clock.postpone(turn.now.mono);
            }
        }
        // RFC 3261 §12.2.1.2: the dialog is over, or as good as.
        let over = matches!(response.code, 408 | 481) && !self.is_early();
        if let Some((tx, request)) = &exchange.server {
            self.sound_rollback(turn, exchange.from);
            turn.respond(*tx, b2b::relay(request, response));
        }
        self.change_over(turn);
        if over {
            if let Some(side) = self.side_mut(exchange.to) {
                side.state = SideState::Gone;
            }
            self.end_all(turn, Some(exchange.to), "SIP;cause=408");
            return;
        }
        match exchange.purpose {
            Purpose::Repair => self.repair_failed(turn, response.code),
            Purpose::Refresh if response.code == 422 => {
                // RFC 4028 §7.3: their Min-SE is above our interval; theirs it is.
                let least = response.headers.text(&Name::MinSe).and_then(|t| t.trim().parse().ok());
                if let (Some(side), Some(seconds)) = (self.side_mut(exchange.to), least) {
                    side.clock = clock::Clock::new(turn.now.mono, seconds, true);
                }
            }
            Purpose::Refresh => {
                if let Some(side) = self.side_mut(exchange.to) {
                    // No UPDATE there after all; the postponed clock tries INVITE.
                    side.update = side.update && !matches!(response.code, 405 | 501);
                }
            }
            Purpose::Change => {}
        }
    }

    pub(super) fn exchange_silent(&mut self, turn: &mut Turn<'_>) {
        if self.is_early() {
            // The INVITE goes on: whoever called may take it back.
            return self.refuse_exchange(turn, 408);
        }
        if let Some((tx, request)) = self.exchange.take().and_then(|e| e.server) {
            turn.respond(tx, request.respond(408));
        }
        // RFC 3261 §12.2.1.2: no answer inside a dialog ends it.
        self.end_all(turn, None, "SIP;cause=408");
    }

    /// The asker takes his change back.
    pub(super) fn exchange_cancelled(&mut self, turn: &mut Turn<'_>) {
        match self.exchange.as_ref().map(|e| (e.step, e.client)) {
            Some((Step::Waiting, Some(client))) => turn.cancel(client, None),
            Some((Step::Preparing, _)) => self.refuse_exchange(turn, 487),
            _ => {}
        }
    }

    pub(super) fn exchange_overdue(&mut self, turn: &mut Turn<'_>) {
        match self.exchange.as_ref().map(|e| (e.step, e.client)) {
            Some((Step::Waiting, Some(client))) => {
                turn.cancel(client, None);
                self.refuse_exchange(turn, 408);
            }
            Some((Step::Acking, _)) => self.exchange = None,
            _ => self.refuse_exchange(turn, 500),
        }
    }

    pub(super) fn refuse_exchange(&mut self, turn: &mut Turn<'_>, code: u16) {
        let Some(exchange) = self.exchange.take() else { return };
        if let Some((tx, request)) = &exchange.server {
            self.sound_rollback(turn, exchange.from);
            turn.respond(*tx, b2b::refuse(turn.config(), request, code));
        }
        self.change_over(turn);
    }

    /// The session ends: whoever waits for an answer gets one.
    pub(super) fn drop_exchange(&mut self, turn: &mut Turn<'_>) {
        let Some(exchange) = self.exchange.take() else { return };
        if let Some(client) = exchange.client {
            turn.desk.forget(client);
            if exchange.owes_ack() {
                self.refuse_late(turn, exchange.to, client, exchange.seq);
            }
        }
        if let Some((tx, request)) = exchange.server
            && exchange.step != Step::Acking
        {
            turn.respond(tx, request.respond(487));
        }
    }
}
