//! How a session ends: BYE of a side, or our own decision (RFC 3261 §15). Of several devices one may be behind the others
//! (contract: Pressure, `kept`): what was sent to it and what it has not read waits on the data plane's disk. Its session ends
//! when it has it, or after `slow_max_s`, or when it hangs up itself.

use std::time::Duration;

use base::Instant;
use contract::Pressure;
use sip::{Method, Name, Request};

use super::clock::Clock;
use super::{Phase, Plan, Session, SideState, UPSTREAM};
use crate::ServerTx;
use crate::b2b;
use crate::turn::{Owner, Turn};

/// Only devices that are behind still talk.
#[derive(Debug)]
pub(super) struct Lingering {
    until: Instant,
}

impl Lingering {
    pub(super) const fn until(&self) -> Instant {
        self.until
    }
}

impl Session {
    /// BYE of a side. A device of a fan-out leaves alone while others stay (CPM-FACTS §2.5).
    pub(super) fn bye(&mut self, turn: &mut Turn<'_>, at: usize, tx: ServerTx, request: &Request) {
        turn.respond(tx, request.respond(200));
        if let Some(side) = self.side_mut(at) {
            side.state = SideState::Gone;
            // Nobody refreshes what is over.
            side.clock = Clock::default();
        }
        let devices_stay = at != UPSTREAM && self.plan == Plan::FanOut && !self.others(UPSTREAM).is_empty();
        if devices_stay {
            self.sound_side_gone(turn, at);
            self.save(turn);
            return;
        }
        self.last_word = Some(request.clone());
        if at != UPSTREAM || !self.linger(turn) {
            self.end_all(turn, Some(at), "");
        }
    }

    /// The other side has hung up: so do the devices, but those that have not read all that it has sent. False: there are none.
    fn linger(&mut self, turn: &mut Turn<'_>) -> bool {
        let longest = turn.config().participating.slow_max_s;
        let devices = self.others(UPSTREAM);
        if longest == 0 || self.phase != Phase::Active || !devices.iter().any(|at| self.is_behind(*at)) {
            return false;
        }
        self.drop_exchange(turn);
        self.drop_passing(turn);
        self.cancel_calling(turn, None);
        self.repair = None;
        for at in devices {
            if !self.is_behind(at) {
                self.end_side(turn, at, None);
            }
        }
        let until = turn.now.mono + Duration::from_secs(longest.into());
        self.lingering = Some(Lingering { until });
        self.save(turn);
        true
    }

    /// The data plane says how far a device is behind.
    pub(super) fn pressure(&mut self, turn: &mut Turn<'_>, pressure: &Pressure) {
        let Some(key) = pressure.leg.filter(|_| pressure.kept) else { return };
        if pressure.on {
            self.behind.insert(key.leg);
        } else {
            self.caught_up(turn, key.leg);
        }
    }

    /// A leg is not behind any more, or lost.
    pub(super) fn caught_up(&mut self, turn: &mut Turn<'_>, leg: u64) {
        self.behind.remove(&leg);
        if self.lingering.is_none() {
            return;
        }
        for at in self.others(UPSTREAM) {
            if !self.is_behind(at) {
                self.end_side(turn, at, None);
            }
        }
        if self.others(UPSTREAM).is_empty() {
            self.end_all(turn, None, "");
        } else {
            self.save(turn);
        }
    }

    /// Nobody waits for a device for ever.
    pub(super) fn lingered(&mut self, turn: &mut Turn<'_>) {
        if self.lingering.take().is_some() {
            self.end_all(turn, None, "");
        }
    }

    fn is_behind(&self, at: usize) -> bool {
        self.side(at).is_some_and(|side| side.legs.iter().any(|leg| self.behind.contains(leg)))
    }

    /// Ends every side that talks but `without`, and with them the session.
    pub(super) fn end_all(&mut self, turn: &mut Turn<'_>, without: Option<usize>, reason: &str) {
        let reason = (!reason.is_empty()).then_some(reason);
        self.drop_exchange(turn);
        self.drop_passing(turn);
        self.drop_referrals(turn);
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
