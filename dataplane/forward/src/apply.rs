//! A batch that was staged becomes the state: rows made, changed and removed, then each touched context made flat.

use std::collections::{BTreeMap, BTreeSet};

use base::Now;
use contract::{
    Applied, Batch, FromDataplane, Placement, Refusal, from_dataplane::Body, leg::Kind, placement::At,
};

use crate::engine::{Context, Engine, Seat};
use crate::media::Tx;
use crate::wanted::{Present, Refused, Staged, Wanted, stage};
use crate::{Attachment, Output, SocketId};

impl Engine {
    /// Checks a batch whole and applies all of it or nothing; the answer goes out.
    pub(crate) fn batch(
        &mut self,
        now: Now,
        batch: &Batch,
        attachments: &[Attachment],
        out: &mut base::Outbox<Output>,
    ) {
        let answer = self.judge(now, batch, attachments, out);
        // The room for it was asked for: see `room_needed`.
        let _ = out.push(Output::Answer(Box::new(FromDataplane { body: Some(answer) })));
    }

    fn judge(
        &mut self,
        now: Now,
        batch: &Batch,
        attachments: &[Attachment],
        out: &mut base::Outbox<Output>,
    ) -> Body {
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
        let staged = match stage(batch, attachments, self, &limits, draining) {
            Ok(staged) => staged,
            Err(Refused { reason, change, detail }) => return refusal(reason, change, detail),
        };
        let placements = self.apply(now, batch, staged, attachments, out);
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
        attachments: &[Attachment],
        out: &mut base::Outbox<Output>,
    ) -> Vec<Placement> {
        for (id, wanted) in staged {
            let known = self.contexts.remove(&id);
            self.totals.contexts_begun += u64::from(known.is_none() && wanted.is_some());
            let mut context = known.unwrap_or_default();
            let next = wanted.as_ref().cloned().unwrap_or_default();
            self.remove_legs(now, &mut context, &next, out);
            self.put_legs(now, &mut context, &next, attachments, out);
            self.message.forget_estates(now, &mut Tx { out, totals: &mut self.totals });
            context.wanted = next;
            if wanted.is_some() {
                self.contexts.insert(id, context);
            } else {
                self.media.forget_context(id);
                self.message.forget_context(id);
            }
            self.flatten(now, id, out);
        }
        self.totals.contexts = self.contexts.len() as u64;
        let seen = |context: &Context| context.wanted.legs.values().filter(|leg| !leg.unseen).count() as u64;
        self.totals.legs = self.contexts.values().map(seen).sum();
        let put = batch.changes.iter().filter_map(|c| match &c.verb {
            Some(contract::change::Verb::PutLeg(leg)) => Some(leg.key()),
            _ => None,
        });
        put.filter_map(|key| self.placement(key)).collect()
    }

    fn remove_legs(
        &mut self,
        now: Now,
        context: &mut Context,
        next: &Wanted,
        out: &mut base::Outbox<Output>,
    ) {
        let gone: Vec<u64> = context.seats.keys().filter(|id| !next.legs.contains_key(id)).copied().collect();
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
        for (id, leg) in &next.legs {
            let old = context.wanted.legs.get(id);
            if old == Some(leg) {
                continue;
            }
            let mut tx = Tx { out, totals: &mut self.totals };
            match (&leg.kind, context.seats.get(id).copied()) {
                (Some(Kind::Rtp(rtp)), seat) => {
                    let sockets = attachments.iter().find(|a| a.leg == leg.key());
                    let old = match (seat, old.and_then(|o| o.kind.as_ref())) {
                        (Some(Seat::Rtp(at)), Some(Kind::Rtp(old))) => Some((at, old)),
                        _ => None,
                    };
                    if let Some(at) = self.media.put(now, leg, rtp, old, sockets, &mut tx) {
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
        self.message.flatten(now, id, &msrp, &context.wanted, &mut tx);
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

    fn draw_session(&mut self, tls: bool) -> Option<contract::MsrpLocal> {
        let listener = if tls { self.config.msrps.as_ref()? } else { &self.config.msrp };
        // Three digits name the shard, so that each shard knows whose a session is.
        let session = format!("{:03x}{}", self.config.shard, self.entropy.token(130));
        let scheme = if tls { "msrps" } else { "msrp" };
        let path = format!("{scheme}://{}/{session};tcp", listener.authority);
        let advertised = listener.authority.parse().ok().map(|at: std::net::SocketAddr| at.into());
        Some(contract::MsrpLocal { session, path, advertised })
    }
}
