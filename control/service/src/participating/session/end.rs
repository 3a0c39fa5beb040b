//! How a session ends: BYE of a side, or our own decision (RFC 3261 §15).

use sip::{Method, Name, Request};

use super::{Phase, Plan, Session, SideState, UPSTREAM};
use crate::ServerTx;
use crate::b2b;
use crate::turn::{Owner, Turn};

impl Session {
    /// BYE of a side. A device of a fan-out leaves alone while others stay (CPM-FACTS §2.5).
    pub(super) fn bye(&mut self, turn: &mut Turn<'_>, at: usize, tx: ServerTx, request: &Request) {
        turn.respond(tx, request.respond(200));
        if let Some(side) = self.side_mut(at) {
            side.state = SideState::Gone;
        }
        let devices_stay = at != UPSTREAM && self.plan == Plan::FanOut && !self.others(UPSTREAM).is_empty();
        if devices_stay {
            self.sound_side_gone(turn, at);
            self.save(turn);
            return;
        }
        self.last_word = Some(request.clone());
        self.end_all(turn, Some(at), "");
    }

    /// Ends every side that talks but `without`, and with them the session.
    pub(super) fn end_all(&mut self, turn: &mut Turn<'_>, without: Option<usize>, reason: &str) {
        let reason = (!reason.is_empty()).then_some(reason);
        self.drop_exchange(turn);
        self.drop_passing(turn);
        if self.setup.is_some() {
            self.fail(turn, 480);
            return;
        }
        for at in 0..self.sides.len() {
            if Some(at) != without && self.side(at).is_some_and(|s| s.state == SideState::Confirmed) {
                self.end_side(turn, at, reason);
            }
        }
        self.cancel_calling(turn, None);
        self.sound_close(turn);
        self.forget(turn);
        self.phase = Phase::Ending;
    }

    /// BYE to one side.
    pub(super) fn end_side(&mut self, turn: &mut Turn<'_>, at: usize, reason: Option<&str>) {
        self.acknowledge_refusing(turn, at);
        let last_word = self.last_word.take();
        let Some(side) = self.side_mut(at) else { return };
        side.state = SideState::Gone;
        if let Some(dialog) = &mut side.dialog {
            let mut bye = dialog.request(Method::Bye);
            match (&last_word, reason) {
                (_, Some(reason)) => bye.headers.push(Name::Reason, reason),
                // What one side says at the end, its reasons among it (RFC 3326), is for the other one.
                (Some(word), None) => b2b::pass_within(turn.config(), &side.route, word, &mut bye),
                (None, None) => {}
            }
            turn.send(Owner::Nobody, side.route.clone(), bye);
        }
        self.last_word = last_word;
        if at != UPSTREAM {
            self.sound_side_gone(turn, at);
        }
    }
}
