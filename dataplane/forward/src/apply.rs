//! A batch that was staged becomes the state: rows made, changed and removed, then each touched context made flat.

use std::collections::{BTreeMap, BTreeSet};

use base::Now;
use contract::{
    Applied, Batch, FromDataplane, Placement, Refusal, from_dataplane::Body, leg::Kind, placement::At,
};

use crate::engine::{Context, Engine, Seat};
use crate::media::{Place, Tx};
use crate::modes::switch::Away;
use crate::wanted::{Present, Refused, Staged, Wanted, rides_on, stage};
use crate::{Attachment, Elsewhere, Output, SocketId};

/// What the process bound for a batch, here and on other shards.
type Bound<'a> = (&'a [Attachment], &'a [Elsewhere]);

impl Engine {
    /// Checks a batch whole and applies all of it or nothing; the answer goes out.
    pub(crate) fn batch(
        &mut self,
        now: Now,
        batch: &Batch,
        bound: Bound<'_>,
        out: &mut base::Outbox<Output>,
    ) {
        let answer = self.judge(now, batch, bound, out);
        // The room for it was asked for: see `room_needed`.
        let _ = out.push(Output::Answer(Box::new(FromDataplane { body: Some(answer) })));
    }

    fn judge(&mut self, now: Now, batch: &Batch, bound: Bound<'_>, out: &mut base::Outbox<Output>) -> Body {
        let generation = batch.generation;
        let refusal = |reason: contract::refusal::Reason, change: usize, detail: &str| {
            let change = u32::try_from(change).unwrap_or(u32::MAX);
            Body::Refusal(Refusal { generation, reason: reason as i32, change, detail: detail.to_owned() })
        };
        // Without a generation: of an owner within the process, who takes no part in the order of the others' batches.
        let ordered = generation != 0;
        if ordered && batch.epoch < self.epoch {
            return refusal(contract::refusal::Reason::Epoch, 0, "a later owner has spoken");
        }
        if ordered
            && generation == self.generation
            && let Some(answer) = &self.answer
        {
            // The same again: answered again, and nothing changes.
            return answer.clone();
        }
        if ordered && generation <= self.generation {
            return refusal(contract::refusal::Reason::Generation, 0, "not after the last one");
        }
        let limits = self.config.limits.clone();
        let draining = self.draining;
        if let Some(moved) = bound.1.iter().find(|e| self.is_moved(e)) {
            let puts = |change: &contract::Change| match &change.verb {
                Some(contract::change::Verb::PutLeg(leg)) => leg.key() == moved.leg,
                _ => false,
            };
            let change = batch.changes.iter().position(puts).unwrap_or(0);
            let reason = contract::refusal::Reason::Unsupported;
            return refusal(reason, change, "a leg cannot change its shard");
        }
        let staged = match stage(batch, bound, self, &limits, draining) {
            Ok(staged) => staged,
            Err(Refused { reason, change, detail }) => return refusal(reason, change, detail),
        };
        let placements = self.apply(now, batch, staged, bound, out);
        let answer = Body::Applied(Applied { generation, placements });
        if ordered {
            (self.epoch, self.generation) = (batch.epoch, generation);
            self.answer = Some(answer.clone());
        }
        answer
    }

    fn apply(
        &mut self,
        now: Now,
        batch: &Batch,
        staged: Staged,
        (attachments, elsewhere): Bound<'_>,
        out: &mut base::Outbox<Output>,
    ) -> Vec<Placement> {
        for (id, wanted) in staged {
            let of = |e: &&Elsewhere| e.leg.context == id;
            let places = elsewhere.iter().filter(of).map(|e| (e.leg.leg, e.shard));
            self.settle(now, (id, wanted), |context| context.places.extend(places), attachments, out);
        }
        self.recount();
        let put = batch.changes.iter().filter_map(|c| match &c.verb {
            Some(contract::change::Verb::PutLeg(leg)) => Some(leg.key()),
            _ => None,
        });
        put.filter_map(|key| self.placement(key)).collect()
    }

    /// Makes a context what is wanted of it; `None`: it goes. `spread` says where its legs are.
    pub(crate) fn settle(
        &mut self,
        now: Now,
        (id, wanted): (u64, Option<Wanted>),
        spread: impl FnOnce(&mut Context),
        attachments: &[Attachment],
        out: &mut base::Outbox<Output>,
    ) {
        let known = self.contexts.remove(&id);
        let begins = known.is_none() && wanted.is_some();
        let mut context = known.unwrap_or_default();
        spread(&mut context);
        self.totals.contexts_begun += u64::from(begins && context.home.is_none());
        let stays = wanted.is_some();
        let next = wanted.unwrap_or_default();
        context.places.retain(|leg, _| next.legs.contains_key(leg));
        self.remove_legs(now, &mut context, &next, out);
        self.put_legs(now, &mut context, &next, attachments, out);
        self.message.forget_estates(now, &mut Tx { out, totals: &mut self.totals });
        context.change(next);
        if stays {
            self.contexts.insert(id, context);
        } else {
            self.media.forget_context(id);
            self.message.forget_context(id);
        }
        self.flatten(now, id, out);
    }

    /// Counts what is at home here, and the legs that are here.
    pub(crate) fn recount(&mut self) {
        let here = self.config.shard;
        let at_home = |context: &&Context| context.home.is_none();
        self.totals.contexts = self.contexts.values().filter(at_home).count() as u64;
        let seen = |context: &Context| {
            let legs = context.wanted.legs.values();
            legs.filter(|leg| !leg.unseen && context.place_of(leg.id, here).is_none()).count() as u64
        };
        self.totals.legs = self.contexts.values().map(seen).sum();
    }

    /// Whether a leg that is there has another place than that.
    fn is_moved(&self, elsewhere: &Elsewhere) -> bool {
        let Elsewhere { leg, shard, .. } = elsewhere;
        self.contexts.get(&leg.context).is_some_and(|context| {
            context.wanted.legs.contains_key(&leg.leg)
                && context.place_of(leg.leg, self.config.shard) != Some(*shard)
        })
    }

    fn remove_legs(
        &mut self,
        now: Now,
        context: &mut Context,
        next: &Wanted,
        out: &mut base::Outbox<Output>,
    ) {
        let mut gone: Vec<u64> =
            context.seats.keys().filter(|id| !next.legs.contains_key(id)).copied().collect();
        // Who rides on another one's transport says its last words by it.
        gone.sort_by_key(|id| context.wanted.legs.get(id).and_then(|leg| rides_on(leg)).is_none());
        self.last_counters(now, context, &gone, out);
        for seat in gone.iter().filter_map(|id| context.seats.get(id)) {
            if let Seat::Rtp(at) = seat {
                self.media.going(*at);
            }
        }
        for id in gone {
            match context.seats.remove(&id) {
                Some(Seat::Rtp(at)) => self.media.remove(at, &mut Tx { out, totals: &mut self.totals }),
                Some(Seat::Msrp(at)) => {
                    self.message.remove(now, at, &mut Tx { out, totals: &mut self.totals })
                }
                None => {}
            }
        }
    }

    /// What the RTP legs that go have counted: their last news, for whoever keeps records of calls.
    fn last_counters(&mut self, now: Now, context: &Context, gone: &[u64], out: &mut base::Outbox<Output>) {
        /// Legs in one piece of news.
        const LEGS: usize = 256;
        let row = |seat: &Seat| if let Seat::Rtp(at) = seat { Some(*at) } else { None };
        let going: BTreeSet<u32> =
            gone.iter().filter_map(|id| context.seats.get(id)).filter_map(row).collect();
        if going.is_empty() {
            return;
        }
        let rows: Vec<u32> = context.seats.values().filter_map(row).collect();
        let mut legs = self.media.counters(now, &rows, |at| going.contains(&at));
        legs.iter_mut().for_each(|leg| leg.ended = true);
        let mut tx = Tx { out, totals: &mut self.totals };
        for part in legs.chunks(LEGS) {
            tx.news(contract::news::What::Counters(contract::Counters { legs: part.to_vec() }));
        }
    }

    fn put_legs(
        &mut self,
        now: Now,
        context: &mut Context,
        next: &Wanted,
        attachments: &[Attachment],
        out: &mut base::Outbox<Output>,
    ) {
        // Who rides on another one's transport comes after that one.
        let (alone, riders): (Vec<_>, Vec<_>) =
            next.legs.iter().partition(|(_, leg)| rides_on(leg).is_none());
        for (id, leg) in alone.into_iter().chain(riders) {
            let old = context.wanted.legs.get(id);
            if old.is_some_and(|old| std::sync::Arc::ptr_eq(old, leg) || old == leg) {
                continue;
            }
            if let Some(shard) = context.place_of(*id, self.config.shard) {
                self.put_stand_in(now, context, leg, shard);
                continue;
            }
            let mut tx = Tx { out, totals: &mut self.totals };
            match (&leg.kind, context.seats.get(id).copied()) {
                (Some(Kind::Rtp(rtp)), seat) => {
                    let place = match rides_on(leg).map(|carrier| context.seats.get(&carrier)) {
                        Some(Some(Seat::Rtp(carrier))) => Place::On(*carrier),
                        Some(_) => continue,
                        None => {
                            let own = attachments.iter().find(|a| a.leg == leg.key());
                            own.map_or(Place::Kept, Place::Own)
                        }
                    };
                    let old = match (seat, old.and_then(|o| o.kind.as_ref())) {
                        (Some(Seat::Rtp(at)), Some(Kind::Rtp(old))) => Some((at, old)),
                        _ => None,
                    };
                    if let Some(at) = self.media.put(now, leg, rtp, old, place, &mut tx) {
                        self.media.capture(std::iter::once(at), context.captured);
                        context.seats.insert(*id, Seat::Rtp(at));
                    }
                }
                (Some(Kind::Msrp(msrp)), seat) => {
                    let seat = match seat {
                        Some(Seat::Msrp(at)) => Some(at),
                        _ => None,
                    };
                    let at = self.message.put(now, leg, msrp, seat, &mut tx);
                    self.message.capture(at, context.captured);
                    context.seats.insert(*id, Seat::Msrp(at));
                }
                (None, _) => {}
            }
        }
    }

    /// A leg that is on another shard. MSRP legs have no stand-in: what crosses of them brings its own (`message::across`).
    fn put_stand_in(&mut self, now: Now, context: &mut Context, leg: &contract::Leg, shard: u16) {
        let Some(Kind::Rtp(rtp)) = &leg.kind else { return };
        let old = match context.seats.get(&leg.id) {
            Some(Seat::Rtp(at)) => Some(*at),
            _ => None,
        };
        let at = self.media.put_away(now, leg, rtp, (shard, old));
        self.media.capture(std::iter::once(at), context.captured);
        context.seats.insert(leg.id, Seat::Rtp(at));
    }

    /// Makes a context's routes anew.
    pub(crate) fn flatten(&mut self, now: Now, id: u64, out: &mut base::Outbox<Output>) {
        let Some(context) = self.contexts.get(&id) else { return };
        let mut tx = Tx { out, totals: &mut self.totals };
        let rtp: BTreeMap<u64, u32> = context
            .seats
            .iter()
            .filter_map(|(id, seat)| if let Seat::Rtp(at) = seat { Some((*id, *at)) } else { None })
            .collect();
        if !rtp.is_empty() || self.media.has_stages(id) {
            self.media.flatten(now, id, &rtp, &context.wanted, &mut tx);
        }
        let msrp: BTreeMap<u64, u32> = context
            .seats
            .iter()
            .filter_map(|(id, seat)| if let Seat::Msrp(at) = seat { Some((*id, *at)) } else { None })
            .collect();
        let here = self.config.shard;
        let is_spread = context.home.is_some() || !context.places.is_empty();
        let away =
            context.wanted.legs.values().filter(|leg| is_spread && matches!(leg.kind, Some(Kind::Msrp(_))));
        let away = away.filter_map(|leg| {
            let shard = context.place_of(leg.id, here)?;
            let formerly = context.heirs.of(leg.id).to_vec();
            Some((leg.id, Away { shard, leg: std::sync::Arc::clone(leg), formerly }))
        });
        let legs = (&msrp, &away.collect(), &context.heirs);
        self.message.flatten(now, id, legs, &context.wanted, &mut tx);
    }

    pub(crate) fn placement(&self, key: contract::LegKey) -> Option<Placement> {
        let leg = self.contexts.get(&key.context)?.wanted.legs.get(&key.leg)?;
        let at = match leg.kind.as_ref()? {
            Kind::Rtp(rtp) => At::Rtp(rtp.local.clone()?),
            Kind::Msrp(msrp) => At::Msrp(msrp.local.clone()?),
        };
        Some(Placement { context: key.context, leg: key.leg, at: Some(at) })
    }
}

impl Present for Engine {
    fn wanted(&self, context: u64) -> Option<&Wanted> {
        self.contexts.get(&context).map(|c| &c.wanted)
    }

    fn counts(&self) -> (usize, usize) {
        (self.contexts.len(), self.contexts.values().map(|c| c.wanted.legs.len()).sum())
    }

    fn is_free(&self, socket: SocketId) -> bool {
        self.media.is_free(socket)
    }

    fn session_taken(&self, session: &str, by: contract::LegKey) -> bool {
        self.message.session_taken(session, by)
    }

    fn draw_session(&mut self, tls: bool, shard: Option<u16>) -> Option<contract::MsrpLocal> {
        let shard = shard.unwrap_or(self.config.shard);
        let listener = match self.listeners.get(usize::from(shard)) {
            _ if shard == self.config.shard && tls => self.config.msrps.as_ref()?,
            _ if shard == self.config.shard => &self.config.msrp,
            Some((_, secure)) if tls => secure.as_ref()?,
            Some((plain, _)) => plain,
            None => return None,
        };
        // Three digits name the shard, so that each shard knows whose a session is.
        let session = format!("{shard:03x}{}", self.entropy.token(130));
        let scheme = if tls { "msrps" } else { "msrp" };
        let mut path = format!("{scheme}://{}/{session};tcp", listener.authority);
        path.shrink_to_fit();
        let advertised = listener.authority.parse().ok().map(|at: std::net::SocketAddr| at.into());
        Some(contract::MsrpLocal { session, path, advertised })
    }
}
