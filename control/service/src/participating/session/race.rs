//! The race of the legs of a fork: what each answers, and who wins (RFC 3261 §13.2.2.4, §16.7, CPM-FACTS §2.8).
//! The states are `setup`'s.

use sip::typed::{Reason, SessionId};
use sip::{Dialog, Method, Name, Response};

use super::{Phase, Plan, Session, SideState, clock, late};
use crate::ClientTx;
use crate::body;
use crate::participating::leg;
use crate::participating::merge::Merge;
use crate::turn::{Owner, Turn};

/// CSeq of the INVITE that opens a leg.
pub(super) const INVITE_SEQ: u32 = 1;

/// Why the losers of a fork are CANCELled (CPM-FACTS §2.7).
fn elsewhere() -> Reason {
    Reason::sip(200, "Call completed elsewhere")
}

impl Session {
    /// An answer of a leg to our first INVITE.
    pub(super) fn leg_answered(&mut self, turn: &mut Turn<'_>, at: usize, tx: ClientTx, response: Response) {
        match response.code {
            ..200 => self.ringing(turn, at, &response),
            200..300 => self.leg_accepted(turn, at, tx, response),
            _ => self.leg_failed(turn, at, response),
        }
    }

    /// A leg that never answered counts as 408 (RFC 3261 §8.1.3.1).
    pub(super) fn leg_silent(&mut self, turn: &mut Turn<'_>, at: usize) {
        let Some(request) = self.setup.as_ref().map(|s| &s.request) else {
            if let Some(side) = self.side_mut(at) {
                side.state = SideState::Gone;
            }
            return;
        };
        let response = request.respond(408);
        self.leg_failed(turn, at, response);
    }

    /// Relays 180 and 183 once and only upwards, and an early description where it may pass (see `reliable`).
    fn ringing(&mut self, turn: &mut Turn<'_>, at: usize, response: &Response) {
        if !self.takes_provisional(turn, at, response) {
            return;
        }
        let calling = self.side(at).is_some_and(|s| s.state == SideState::Calling);
        if !calling || self.phase != Phase::Inviting {
            return;
        }
        if let Some(sdp) = self.early_answer(at, response) {
            return self.show_early(turn, at, sdp, response);
        }
        let Some(setup) = self.setup.as_mut() else { return };
        let better = match (response.code, setup.rung) {
            (180, 180) | (100, _) => false,
            (180, _) => true,
            (_, rung) => rung == 0,
        };
        if better {
            self.ring(turn, response, None);
        }
    }

    fn leg_accepted(&mut self, turn: &mut Turn<'_>, at: usize, tx: ClientTx, response: Response) {
        let Some(side) = self.side_mut(at) else { return };
        let was = side.state;
        let Some((_, invite)) = &side.invite else { return };
        let Ok(dialog) = Dialog::uac(invite, &response) else {
            // A 2xx without a usable Contact: nothing can be acknowledged or ended.
            if was == SideState::Calling {
                let mut broken = response;
                broken.code = 502;
                self.leg_failed(turn, at, broken);
            }
            return;
        };
        if was == SideState::Confirmed
            && side.dialog.as_ref().is_some_and(|d| d.id.remote_tag == dialog.id.remote_tag)
        {
            // The same 2xx again: the stack sends our ACK again.
            return;
        }
        let wanted = was == SideState::Calling
            && matches!(self.phase, Phase::Inviting | Phase::Joining | Phase::Active);
        let first = self.setup.as_ref().is_some_and(|s| s.winner.is_none()) && self.phase == Phase::Inviting;
        let dialog = self.confirmed(at, &response, dialog);
        if !wanted || !(first || self.plan == Plan::FanOut) {
            self.too_late(turn, at, tx, dialog, &response);
            return;
        }
        let mut sdp = body::sdp_in(&response.headers, &response.body).unwrap_or_default();
        let shown = self.was_shown(at, &dialog.id.remote_tag, &sdp) == Some(true);
        if !shown {
            self.change_overtaken(turn);
        }
        let Some(side) = self.side_mut(at) else { return };
        if shown {
            sdp = side.sdp_got.clone();
        }
        side.early.clear();
        let route = leg::route_of(turn.config(), &side.route, &dialog);
        if side.sdp_sent.is_empty() {
            side.unacknowledged = Some(tx);
        } else {
            let mut ack = dialog.ack(INVITE_SEQ);
            // RFC 7989 §6: ours has the name too, from the caller's side.
            if let Ok(Some(id)) = response.headers.typed::<SessionId>() {
                ack.headers.set(Name::SessionId, id.reversed().to_string());
            }
            turn.ack(tx, route.clone(), ack);
        }
        side.state = SideState::Confirmed;
        side.route = route;
        side.update = leg::allows_update(&response.headers);
        side.clock = clock::agreed(turn.now.mono, side.clock.clone(), &response);
        side.dialog = Some(dialog);
        side.sdp_got = sdp;
        if first {
            self.won(turn, at, response, shown);
        } else {
            self.joined_later(turn, at);
        }
    }

    /// The first 2xx: it wins, and the others hear that the call was completed elsewhere.
    fn won(&mut self, turn: &mut Turn<'_>, at: usize, response: Response, shown: bool) {
        if let Some(setup) = self.setup.as_mut() {
            setup.winner = Some((at, response));
        }
        if self.plan != Plan::FanOut {
            self.cancel_calling(turn, Some(&elsewhere()));
        }
        if self.plan == Plan::Pass {
            self.answer_upstream(turn);
            return;
        }
        let met = match self.unacknowledged() {
            // Its media is met, or about to be.
            _ if shown => Ok(()),
            Some(_) => self.sound_offered_late(turn, at),
            None => self.sound_joined(turn, at),
        };
        if met.is_err() {
            // The device's answer fits no offer of ours, or its offer holds nothing to anchor (RFC 3261 §13.2.2.4: acknowledged, then ended).
            self.end_side(turn, at, Some("SIP;cause=488"));
            self.fail(turn, 488);
            return;
        }
        self.phase = Phase::Joining;
        if self.ask.is_none() {
            self.answer_upstream(turn);
        }
    }

    /// Another device of a fan-out answers after the first one.
    fn joined_later(&mut self, turn: &mut Turn<'_>, at: usize) {
        if self.sound_joined(turn, at).is_err() {
            self.end_side(turn, at, Some("SIP;cause=488"));
        }
        if self.phase == Phase::Active {
            self.save(turn);
        }
    }

    /// A 2xx that nobody wants any more: ACK and BYE (RFC 3261 §13.2.2.4, §9.1).
    fn too_late(
        &mut self,
        turn: &mut Turn<'_>,
        at: usize,
        tx: ClientTx,
        mut dialog: Dialog,
        response: &Response,
    ) {
        let Some(side) = self.side_mut(at) else { return };
        let route = leg::route_of(turn.config(), &side.route, &dialog);
        let mut ack = dialog.ack(INVITE_SEQ);
        if side.sdp_sent.is_empty() {
            // Its offer has to have an answer.
            let offer = body::sdp_in(&response.headers, &response.body).unwrap_or_default();
            ack.set_body("application/sdp", late::refusal_of(turn, &offer));
        }
        turn.ack(tx, route.clone(), ack);
        let mut bye = dialog.request(Method::Bye);
        bye.headers.add(&elsewhere());
        turn.send(Owner::Nobody, route, bye);
        if side.state != SideState::Confirmed {
            side.state = SideState::Gone;
        }
    }

    fn leg_failed(&mut self, turn: &mut Turn<'_>, at: usize, response: Response) {
        let Some(side) = self.side_mut(at) else { return };
        let was = side.state;
        side.state = SideState::Gone;
        self.sound_side_gone(turn, at);
        let decline_all = turn.config().participating.decline_all;
        let Some(setup) = self.setup.as_mut() else { return };
        if was != SideState::Calling || self.phase != Phase::Inviting {
            return;
        }
        let declined = response.code >= 600 && decline_all;
        setup.merge.take(response);
        if declined {
            // One device speaks for its user: 603 and other 6xx (RFC 3261 §21.6).
            self.cancel_calling(turn, None);
        } else if self.sides.iter().skip(1).any(|s| s.state == SideState::Calling) {
            return;
        }
        let best = self.setup.as_mut().map(|s| std::mem::take(&mut s.merge)).and_then(Merge::best);
        self.fail_with(turn, best);
    }
}
