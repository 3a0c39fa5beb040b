//! Two owners of one data plane: control, and the ng door. Each speaks of contexts of its own; neither sees the other's.
//!
//! The door's batches have generation 0: it lives and dies with this process, so there is nothing to repeat and nothing to
//! audit, and control's order of generations is left alone. Its answers find back by the link, whose highest bit is set.

use contract::from_dataplane::Body;
use contract::refusal::Reason;
use contract::{Audited, News, Refusal, news};
use ng::{Input, Output};

use super::{LATE_MAX, State, Steward};
use crate::mail::ToShard;
use crate::shard::home;

/// Links with this bit are the door's tickets.
const DOOR: u64 = 1 << 63;

impl Steward {
    /// Whether a context is the door's.
    pub(super) fn is_second(&self, context: u64) -> bool {
        self.door.as_ref().is_some_and(|door| door.owns(context))
    }

    /// Whether something at the door is left to be read.
    pub(super) fn has_more(&self) -> bool {
        self.door.as_ref().is_some_and(super::Door::has_more)
    }

    /// Reads, writes and lets time pass there. Nothing is read while a shard is behind, as with control.
    pub(super) fn at_the_door(&mut self, state: &mut State) {
        let Some(door) = &mut self.door else { return };
        let mut orders = door.tick();
        if !self.rounds.is_busy() && self.shards.iter().all(|shard| shard.late() <= LATE_MAX) {
            orders.extend(door.read(self.poll.registry(), &mut state.next_link));
        } else {
            state.held = true;
        }
        door.write(self.poll.registry());
        self.order_second(orders);
    }

    fn order_second(&mut self, orders: Vec<Output>) {
        let shards = self.shards.len();
        let mut round = Vec::new();
        for order in orders {
            let (context, message) = match order {
                Output::Batch { ticket, batch } => {
                    let context = batch.changes.iter().find_map(contract::Change::context).unwrap_or(0);
                    if let Err(change) = self.circles.send(DOOR | ticket, &batch) {
                        round.push((ticket, batch.generation, change));
                        continue;
                    }
                    (context, ToShard::Batch { link: DOOR | ticket, batch: Box::new(batch) })
                }
                Output::Count { ticket, context } => {
                    (context, ToShard::Count { link: DOOR | ticket, context })
                }
                Output::Reply { .. } => continue,
            };
            if let Some(shard) = self.shards.get_mut(home(context, shards)) {
                shard.send(message);
            }
        }
        for (ticket, generation, change) in round {
            let refusal = Refusal {
                generation,
                reason: Reason::BadLeg.into(),
                change: u32::try_from(change).unwrap_or(u32::MAX),
                detail: "media would go round for ever between legs of this data plane".to_owned(),
            };
            self.metrics.refused(Reason::BadLeg);
            let Some(door) = &mut self.door else { return };
            let orders = door.take(Input::Answer { ticket, body: Body::Refusal(refusal) });
            self.order_second(orders);
        }
    }

    /// What of a shard's words is for control; the door is given the rest.
    pub(super) fn for_control(&mut self, link: Option<u64>, body: Body) -> Option<Body> {
        let Some(door) = &mut self.door else { return Some(body) };
        let input = match (link, body) {
            (Some(link), body) if link & DOOR != 0 => {
                match &body {
                    Body::Applied(_) => self.metrics.applied(),
                    Body::Refusal(refusal) => self.metrics.refused(refusal.reason()),
                    _ => {}
                }
                Input::Answer { ticket: link & !DOOR, body }
            }
            (None, Body::News(News { what: Some(what) }))
                if context(&what).is_some_and(|id| door.owns(id)) =>
            {
                // Whatever else there is to know, the door asks for.
                if let news::What::Counters(counters) = &what {
                    let orders = door.take(Input::Counters(counters));
                    self.order_second(orders);
                }
                return None;
            }
            (_, body) => return Some(body),
        };
        let orders = door.take(input);
        self.order_second(orders);
        None
    }

    /// A part of the state without what is the door's.
    pub(super) fn without_second(&self, mut part: Audited) -> Audited {
        if self.door.is_some() {
            part.contexts.retain(|context| !self.is_second(context.id));
            part.legs.retain(|leg| !self.is_second(leg.context));
            part.paths.retain(|path| !self.is_second(path.context));
            part.placements.retain(|placement| !self.is_second(placement.context));
        }
        part
    }
}

/// Which context news is about.
fn context(what: &news::What) -> Option<u64> {
    let leg = match what {
        news::What::LegUp(up) => up.leg.as_ref(),
        news::What::LegLost(lost) => lost.leg.as_ref(),
        news::What::Latched(latched) => latched.leg.as_ref(),
        news::What::Report(report) => report.leg.as_ref(),
        news::What::Message(message) => message.leg.as_ref(),
        news::What::Pressure(pressure) => pressure.leg.as_ref(),
        news::What::Counters(counters) => counters.legs.first().and_then(|leg| leg.leg.as_ref()),
        news::What::Load(_) => None,
    };
    leg.map(|leg| leg.context)
}
