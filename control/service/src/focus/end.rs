//! When a conference is alive, asleep, over (CPM-FACTS §2.6 "End", §2.27).

use std::time::Duration;

use contract::{LegCounters, leg};

use super::call::{Call, CallId};
use super::conference::{Conference, Kind, Phase};
use super::leave::Why;
use super::say;
use crate::records::{Key, Table};
use crate::turn::Turn;

/// How long BYEs may take (64*T1).
const ENDING: Duration = Duration::from_secs(32);

impl Conference {
    /// After every event: has the group become too small, are the last ones out?
    pub(crate) fn review(&mut self, turn: &mut Turn<'_>) {
        match self.phase {
            Phase::Forming | Phase::Active => self.review_running(turn),
            Phase::Ending if self.calls.is_empty() => self.finish(turn),
            Phase::Ending | Phase::Dormant | Phase::Gone => {}
        }
    }

    fn review_running(&mut self, turn: &mut Turn<'_>) {
        let min = turn.config().controlling.members_min;
        if self.calls.is_empty() {
            self.to_invite.clear();
            // Nobody but its initiator, who may not even have acknowledged, has ever been in: there is no group to
            // come back to. He founds it anew with the same ids (CPM-FACTS §2.6 "Restart").
            if !self.lived {
                return self.finish(turn);
            }
        }
        // CPM-FACTS §2.27, Forming: where all decline, a long-lived group keeps its initiator alone; who is still to
        // come may be added.
        let forming = self.phase == Phase::Forming && self.calls.values().any(Call::is_up);
        let alone = forming && turn.config().controlling.long_lived;
        match self.kind {
            Kind::AdHoc if self.roster.len() < min && !alone => self.end(turn),
            // A chat room lives as long as anybody is in it; its document outlives it.
            Kind::PreDefined if self.calls.is_empty() => self.end(turn),
            // Nobody is in, and nobody is called: members may come back.
            Kind::AdHoc if self.calls.is_empty() => self.sleep(turn),
            _ => {}
        }
    }

    /// Ends the group for good: 410 tells clients not to restart it.
    pub(crate) fn end(&mut self, turn: &mut Turn<'_>) {
        if matches!(self.phase, Phase::Ending | Phase::Gone) {
            return;
        }
        self.phase = Phase::Ending;
        self.to_invite.clear();
        self.until = Some(turn.now.mono + ENDING);
        self.end_subscriptions(turn, true);
        let calls: Vec<CallId> = self.calls.keys().copied().collect();
        for id in calls {
            self.hang_up(turn, id, Some(say::GONE), Why::Over);
        }
        self.referrals.clear();
        if self.calls.is_empty() {
            self.finish(turn);
        }
    }

    /// Nobody has said anything for long, or nobody is left: the record stays, the room goes.
    pub(crate) fn sleep(&mut self, turn: &mut Turn<'_>) {
        self.end_subscriptions(turn, false);
        let calls: Vec<CallId> = self.calls.keys().copied().collect();
        self.phase = Phase::Dormant;
        for id in calls {
            self.hang_up(turn, id, Some(say::INACTIVE), Why::Over);
        }
        self.close_room(turn);
        self.until = Some(turn.now.mono + Duration::from_secs(turn.config().controlling.retention_s.into()));
    }

    /// BYEs have taken too long, or the record is old enough.
    pub(crate) fn time_over(&mut self, turn: &mut Turn<'_>) {
        if matches!(self.phase, Phase::Ending | Phase::Dormant) {
            self.finish(turn);
        }
    }

    /// Nothing is left of it.
    fn finish(&mut self, turn: &mut Turn<'_>) {
        self.close_room(turn);
        let calls: Vec<CallId> = self.calls.keys().copied().collect();
        for id in calls {
            self.drop_call(turn, id, Why::Over);
        }
        if self.version > 0 {
            self.rows_gone.push(Key::new(Table::Roster, self.id.clone()));
        }
        self.phase = Phase::Gone;
    }

    fn close_room(&mut self, turn: &mut Turn<'_>) {
        self.asks.clear();
        if let Some(mut room) = self.room.take() {
            room.anchor.remove(turn);
        }
    }

    /// Traffic of the legs: a chat in which nobody says anything goes to sleep; calls do not.
    pub(crate) fn counters(&mut self, turn: &mut Turn<'_>, counters: &[LegCounters]) {
        if self.room.as_mut().is_some_and(|room| room.anchor.keep(counters)) {
            self.save(turn);
        }
        self.legs_heard(counters);
        let idle_ms = u64::from(turn.config().controlling.idle_s) * 1000;
        let Some(room) = &self.room else { return };
        if idle_ms == 0 || !matches!(self.phase, Phase::Forming | Phase::Active) {
            return;
        }
        let context = room.anchor.id();
        let mine = || counters.iter().filter(|c| c.leg.as_ref().is_some_and(|k| k.context == context));
        let chat_only = room.anchor.legs().all(|l| matches!(l.kind, Some(leg::Kind::Msrp(_))));
        let complete = room.anchor.legs().count() == mine().count();
        if chat_only && complete && mine().count() > 0 && mine().all(|c| c.idle_ms >= idle_ms) {
            self.sleep(turn);
        }
    }
}
