//! Batches and captures of contexts that may be on several shards: what [`super::rounds`] decides, carried out.

use contract::Batch;
use contract::from_dataplane::Body;

use super::rounds::Step;
use super::{State, Steward};
use crate::mail::{Bound, ToShard};
use crate::shard::home;

impl Steward {
    /// A batch for the home `first`, and for outposts where it has legs there.
    pub(super) fn spread(&mut self, state: &mut State, token: usize, first: usize, batch: Batch) {
        if self.rounds.blocks(&batch) {
            return self.rounds.wait(token, batch);
        }
        let (link, generation) = (token as u64, batch.generation);
        match self.rounds.plan(first, &batch) {
            Err((reason, change, detail)) => {
                self.metrics.refused(reason);
                self.refuse(state, token, generation, reason, change, detail);
            }
            Ok(_) if self.goes_round(state, token, &batch) => {}
            Ok(plan) if plan.is_at_home() => {
                self.rounds.sent(link, generation, plan);
                if let Some(shard) = self.shards.get_mut(first) {
                    shard.send(ToShard::Batch { link, batch: Box::new(batch) });
                }
            }
            Ok(plan) => {
                let step = self.rounds.begin(link, batch, plan);
                self.take_step(state, step);
            }
        }
    }

    /// An outpost has bound its part, or cannot.
    pub(super) fn bound(&mut self, state: &mut State, round: u64, shard: u16, bound: Bound) {
        let step = self.rounds.bound(round, shard, bound);
        self.take_step(state, step);
    }

    /// The home has decided.
    pub(super) fn decided(&mut self, state: &mut State, round: u64, body: Body) {
        let step = self.rounds.decided(round, body);
        self.take_step(state, step);
    }

    /// An outpost follows.
    pub(super) fn followed(&mut self, state: &mut State, round: u64, shard: u16) {
        let step = self.rounds.followed(round, shard);
        self.take_step(state, step);
    }

    fn take_step(&mut self, state: &mut State, step: Step) {
        for (shard, message) in step.send {
            if let Some(shard) = self.shards.get_mut(usize::from(shard)) {
                shard.send(message);
            }
        }
        if let Some((link, body)) = step.answer {
            self.say(state, Some(link), body);
        }
    }

    /// What waited for an answer goes out.
    pub(super) fn go_on(&mut self, state: &mut State) {
        if let Some((token, batch)) = self.rounds.go_on() {
            self.batch(state, token, batch);
        }
    }

    /// The shard that has a leg.
    pub(super) fn shard_of(&self, context: u64, leg: Option<u64>) -> usize {
        let known = leg.and_then(|leg| self.rounds.shard_of(context, leg));
        known.unwrap_or_else(|| home(context, self.shards.len()))
    }

    /// Lets the outposts of a context capture it too, or no more. Its file is the home's to open and to close.
    pub(super) fn trace(&mut self, context: u64, on: bool) {
        for shard in self.rounds.outposts(context, home(context, self.shards.len())) {
            let message = match on {
                true => ToShard::Trace { context },
                false => ToShard::CaptureOver { context, leg: None },
            };
            if let Some(shard) = self.shards.get_mut(usize::from(shard)) {
                shard.send(message);
            }
        }
    }
}
