//! A change that both sides have agreed to: the asker's 2xx, and the ACK that ends it (RFC 3261 §13.2.2.4, §14.2).
//! The states are `exchange`'s.

use std::time::Duration;

use bytes::Bytes;
use sip::{Method, Name, Request};

use super::exchange::Step;
use super::{Plan, Session, clock, late};
use crate::ClientTx;
use crate::b2b;
use crate::body;
use crate::supported;
use crate::turn::Turn;

/// An ACK comes within 64*T1, or the stack says that it is missing.
const ACK_WAIT: Duration = Duration::from_secs(40);

impl Session {
    /// The asker gets his 2xx.
    pub(super) fn finish(&mut self, turn: &mut Turn<'_>) {
        let Some(exchange) = &self.exchange else { return };
        let (from, to) = (exchange.from, exchange.to);
        let got = self.side(to).map(|s| s.sdp_got.clone()).unwrap_or_default();
        let sdp = match self.plan {
            Plan::Pass => Some(got),
            Plan::Relay | Plan::FanOut => self.sound_reanswer(turn, from, &got),
        };
        let offer = self.exchange.as_ref().map(|e| e.offer.clone()).unwrap_or_default();
        if let Some(side) = self.side_mut(from)
            && !offer.is_empty()
        {
            side.sdp_got = offer;
        }
        self.conclude(turn, sdp);
    }

    /// 2xx to the asker; after an INVITE his ACK is awaited.
    pub(super) fn conclude(&mut self, turn: &mut Turn<'_>, sdp: Option<Bytes>) {
        let Some(exchange) = &mut self.exchange else { return };
        let Some((tx, request)) = exchange.server.clone() else { return };
        let from = exchange.from;
        exchange.step = Step::Acking;
        exchange.deadline = turn.now.mono + ACK_WAIT;
        let mut answer = match &exchange.accepted {
            Some(accepted) => b2b::relay(&request, accepted),
            None => request.respond(200),
        };
        let invite = request.method == Method::Invite;
        let contact = self.contact_of(turn, from);
        let (now, early) = (turn.now.mono, self.is_early());
        if let Some(setup) = self.setup.as_mut().filter(|_| sdp.is_some()) {
            setup.reliable.change();
        }
        let proposed = self.exchange.as_ref().map(|e| e.clocks[0].clone()).unwrap_or_default();
        let Some(side) = self.side_mut(from) else { return };
        if request.method != Method::Prack {
            answer.headers.set(Name::Contact, contact);
        }
        answer.headers.set(Name::Allow, supported::ALLOW);
        if !early {
            side.clock = proposed;
            clock::answer(now, &mut side.clock, &request, &mut answer);
        }
        if let Some(sdp) = sdp.filter(|s| !s.is_empty()) {
            body::replace_sdp_in(&mut answer, sdp.clone());
            side.sdp_sent = sdp;
        }
        turn.respond(tx, answer);
        if !invite {
            self.exchange = None;
        }
        self.save(turn);
        self.change_over(turn);
    }

    /// The ACK of a 2xx of ours: of the first INVITE, or of a change.
    pub(super) fn acknowledged(&mut self, turn: &mut Turn<'_>, at: usize, ack: &Request) {
        if !self.exchange.as_ref().is_some_and(|e| e.step == Step::Acking && e.from == at) {
            self.answered_late(turn, at, ack);
            return;
        }
        let sdp = body::sdp_in(&ack.headers, &ack.body).unwrap_or_default();
        // The INVITE offered, or our 2xx had nothing to offer: the ACK brings no answer.
        let offered = self.side(at).is_some_and(|s| !s.sdp_sent.is_empty());
        if self.exchange.as_ref().is_some_and(|e| !e.offer.is_empty()) || !offered {
            self.exchange = None;
            return;
        }
        if sdp.is_empty() {
            // RFC 3261 §13.2.2.4: an offer in a 2xx has its answer in the ACK. Without it nothing is agreed.
            self.end_all(turn, None, "SIP;cause=488");
            return;
        }
        let Some(exchange) = self.exchange.take() else { return };
        // The answer to an offer that went out in our 2xx.
        if let Some(side) = self.side_mut(at) {
            side.sdp_got = sdp.clone();
        }
        if self.plan != Plan::Pass {
            if self.sound_reanswered(turn, at).is_err() {
                self.end_all(turn, None, "SIP;cause=488");
            }
        } else if let Some(client) = exchange.client {
            self.ack_with(turn, exchange.to, client, exchange.seq, &sdp);
        }
        self.save(turn);
    }

    /// An offer of a 2xx to ours that nobody answers any more.
    pub(super) fn refuse_late(&mut self, turn: &mut Turn<'_>, to: usize, client: ClientTx, seq: u32) {
        let offer = self.side(to).map(|s| s.sdp_got.clone()).unwrap_or_default();
        let refusal = late::refusal_of(turn, &offer);
        self.ack_with(turn, to, client, seq, &refusal);
    }

    fn ack_with(&mut self, turn: &mut Turn<'_>, to: usize, client: ClientTx, seq: u32, sdp: &Bytes) {
        let Some(side) = self.side_mut(to) else { return };
        let Some(dialog) = &mut side.dialog else { return };
        let mut ack = dialog.ack(seq);
        if !sdp.is_empty() {
            ack.set_body("application/sdp", sdp.clone());
        }
        side.sdp_sent = sdp.clone();
        turn.ack(client, side.route.clone(), ack);
    }
}
