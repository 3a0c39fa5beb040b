//! Which leg is on which shard, and how a batch of contexts on several shards is all or nothing (see `forward`'s `outposts`
//! for the whole). No mailbox here: what is to be sent comes out, what was answered goes in.
//!
//! ```text
//!                    all at home: sent there, its answer settles the rosters
//!   batch ── plan ──┤
//!                    some elsewhere ─► Binding ── all have bound ──► Judging ── applied ──► Following ── all follow ──► applied
//!                                         │ one refuses; all answered     │ refused
//!                                         └──────────── unbind ───────────┴──────────────────────────────────────────► refused
//! ```
//!
//! While a round runs no other batch is handed out, so that what an outpost found room for is still true when it follows, and
//! generations rise on each shard. Batches of other contexts that stay at home go on beside each other as ever.
//!
//! A leg keeps its shard as long as it lives. A new one is at home until its context is over the weight, then where the context
//! weighs least; one with a port that control names is where that port's pair belongs, which is where the leg got it: so
//! after a restart each is found where it was. Legs that share a transport (RFC 9143) are at home: what one of them hears, the
//! others open. An MSRP leg is where its session says that control names; all of a participant's are where his first one is or
//! was, so that what is said once for all his devices, and what waits for his next one, are in one place.

mod roster;

use std::collections::{BTreeMap, BTreeSet};

use contract::change::Verb;
use contract::from_dataplane::Body;
use contract::leg::Kind;
use contract::refusal::Reason;
use contract::{Batch, Change, Leg, LegKey, Refusal, RtpLeg, RtpLocal};
use forward::Elsewhere;

use crate::config::Config;
use crate::mail::{Bound, SpreadBatch, ToShard};
use roster::{Place, Roster, asked_port, asked_session, is_spread, weight};

/// A batch that cannot be: why, which change, and a detail for logs.
pub(super) type Refused = (Reason, usize, &'static str);

/// The contexts that a batch touches, as they will be; `None`: removed.
type Staged = BTreeMap<u64, Option<Roster>>;

/// What places the MSRP legs of one context while a batch is planned: looked up for the first of them, and kept.
#[derive(Debug)]
struct ContextChats {
    is_room: bool,
    weights: Vec<usize>,
    /// By participant.
    homes: BTreeMap<String, u16>,
}

type Chats = BTreeMap<u64, ContextChats>;

impl ContextChats {
    fn put(&mut self, leg: &Leg, shard: u16) {
        if let Some(sum) = self.weights.get_mut(usize::from(shard)) {
            *sum += weight(leg);
        }
        if !leg.participant.is_empty() {
            self.homes.insert(leg.participant.clone(), shard);
        }
    }
}

/// Where the legs of a batch are to be.
#[derive(Debug)]
pub(super) struct Plan {
    home: u16,
    staged: Staged,
    /// Legs that it puts on other shards, by the change that does.
    elsewhere: Vec<(usize, LegKey, u16)>,
    /// The outposts of each context, those that it loses included.
    outposts: BTreeMap<u64, BTreeSet<u16>>,
}

impl Plan {
    /// Whether it concerns the home alone.
    pub(super) fn is_at_home(&self) -> bool {
        self.outposts.is_empty()
    }
}

#[derive(Debug)]
struct Round {
    number: u64,
    link: u64,
    batch: Batch,
    plan: Plan,
    /// By outpost: the changes that it was sent.
    changes: BTreeMap<u16, Vec<usize>>,
    /// Who has not answered yet: to Bind, then to Follow.
    unbound: BTreeSet<u16>,
    behind: BTreeSet<u16>,
    locals: BTreeMap<(u64, u64), RtpLocal>,
    refused: Option<Refused>,
    applied: Option<Body>,
}

/// What comes of a word.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) send: Vec<(u16, ToShard)>,
    /// The answer to a batch, and on which link it came.
    pub(super) answer: Option<(u64, Body)>,
}

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Rounds {
    shards: usize,
    weight_max: usize,
    ports: (u16, u16),
    rosters: BTreeMap<u64, Roster>,
    /// Batches that their home has not answered yet, by link and generation.
    sent: Vec<((u64, u64), Staged)>,
    round: Option<Round>,
    next: u64,
    /// A batch that cannot go out yet, and the link on which it came.
    waiting: Option<(usize, Batch)>,
}

impl Rounds {
    pub(crate) fn new(config: &Config, shards: usize) -> Self {
        Rounds {
            shards,
            weight_max: config.shards.context_weight_max,
            ports: (config.rtp.port_first, config.rtp.port_last),
            rosters: BTreeMap::new(),
            sent: Vec::new(),
            round: None,
            next: 1,
            waiting: None,
        }
    }

    /// Whether contexts are spread at all.
    pub(super) const fn is_on(&self) -> bool {
        self.weight_max > 0 && self.shards > 1
    }

    /// Whether nothing more may be taken from control.
    pub(super) const fn is_busy(&self) -> bool {
        self.round.is_some() || self.waiting.is_some()
    }

    /// Whether a batch has to wait for the answer to another one.
    pub(super) fn blocks(&self, batch: &Batch) -> bool {
        let pending = |context| self.sent.iter().any(|(_, staged)| staged.contains_key(&context));
        self.round.is_some() || batch.changes.iter().filter_map(Change::context).any(pending)
    }

    /// Keeps a batch until it can go out.
    pub(super) fn wait(&mut self, token: usize, batch: Batch) {
        self.waiting = Some((token, batch));
    }

    /// The batch that waited, if it can go out now.
    pub(super) fn go_on(&mut self) -> Option<(usize, Batch)> {
        let blocked = self.waiting.as_ref().is_some_and(|(_, batch)| self.blocks(batch));
        if blocked { None } else { self.waiting.take() }
    }

    /// The shards beside its home that have legs of a context.
    pub(super) fn outposts(&self, context: u64, home: usize) -> BTreeSet<u16> {
        self.rosters.get(&context).map(|roster| roster.outposts(home as u16)).unwrap_or_default()
    }

    /// The shard of a leg, where it is known.
    pub(super) fn shard_of(&self, context: u64, leg: u64) -> Option<usize> {
        self.rosters.get(&context)?.legs.get(&leg).map(|place| usize::from(place.shard))
    }

    /// Says where the legs of a batch are to be.
    pub(super) fn plan(&self, home: usize, batch: &Batch) -> Result<Plan, Refused> {
        let home = home as u16;
        let mut staged = Staged::new();
        // Where a leg is removed last, or its whole context (leg 0).
        let mut removed: BTreeMap<(u64, u64), usize> = BTreeMap::new();
        for (at, change) in batch.changes.iter().enumerate() {
            let (Some(context), Some(verb)) = (change.context(), &change.verb) else { continue };
            match verb {
                Verb::RemoveLeg(key) => removed.insert((context, key.leg), at),
                Verb::RemoveContext(_) => removed.insert((context, 0), at),
                _ => None,
            };
            let place = staged.entry(context).or_insert_with(|| self.rosters.get(&context).cloned());
            match verb {
                Verb::PutContext(_) => *place = Some(place.take().unwrap_or_default()),
                Verb::RemoveContext(_) => *place = None,
                verb => {
                    if let Some(roster) = place {
                        roster.change(verb);
                    }
                }
            }
        }
        // Places when all paths are known: they say whether the context can be spread.
        let mut elsewhere = Vec::new();
        let mut chats = Chats::new();
        for (change, verb) in batch.changes.iter().enumerate() {
            let Some(Verb::PutLeg(leg)) = &verb.verb else { continue };
            let Some(Some(roster)) = staged.get_mut(&leg.context) else { continue };
            let known = self.rosters.get(&leg.context).and_then(|roster| roster.legs.get(&leg.id));
            let known = known.or_else(|| roster.legs.get(&leg.id)).map(|place| place.shard);
            let shard = match &leg.kind {
                Some(Kind::Rtp(rtp)) => {
                    let shard = known.unwrap_or_else(|| self.place(home, roster, leg, rtp));
                    if shard != home && rtp.bundle.is_some() {
                        return Err((
                            Reason::Unsupported,
                            change,
                            "lines that share a transport are at home",
                        ));
                    }
                    shard
                }
                Some(Kind::Msrp(msrp)) => {
                    let asked = asked_session(msrp).filter(|shard| usize::from(*shard) < self.shards);
                    let chats =
                        chats.entry(leg.context).or_insert_with(|| self.chats(leg.context, roster, batch));
                    let place = || self.place_chat(home, chats, leg, asked);
                    let shard = known.unwrap_or_else(place);
                    chats.put(leg, shard);
                    shard
                }
                None => continue,
            };
            let ends = [leg.id, 0].map(|leg_or_all| removed.get(&(leg.context, leg_or_all)));
            if ends.into_iter().flatten().all(|end| *end < change) {
                roster.legs.insert(leg.id, Place::new(shard, leg));
            }
            if shard != home {
                elsewhere.push((change, leg.key(), shard));
            }
        }
        let mut outposts = BTreeMap::new();
        for (context, after) in &staged {
            let mut shards = self.outposts(*context, usize::from(home));
            if let Some(after) = after {
                let own = after.outposts(home);
                let puts = |wanted: &dyn Fn(&contract::Path) -> bool| {
                    let puts = |change: &Change| match &change.verb {
                        Some(Verb::PutPath(path)) => path.context == *context && wanted(path),
                        _ => false,
                    };
                    batch.changes.iter().position(puts).unwrap_or(0)
                };
                let is_chosen = after.paths.values().any(|way| !is_spread(way.mode));
                if is_chosen && after.is_away(home, false) {
                    let change = puts(&|path| !is_spread(path.mode()));
                    return Err((Reason::Unsupported, change, "only distribute is spread over shards"));
                }
                if let Some(relays) = after.relays_messages(&[]).filter(|_| after.is_away(home, true)) {
                    let change = puts(&|path| path.id == relays);
                    return Err((
                        Reason::Unsupported,
                        change,
                        "of messages only rooms are spread over shards",
                    ));
                }
                shards.extend(own);
            }
            if !shards.is_empty() {
                outposts.insert(*context, shards);
            }
        }
        Ok(Plan { home, staged, elsewhere, outposts })
    }

    /// The MSRP legs of a context, with those that this batch may remove.
    fn chats(&self, context: u64, roster: &Roster, batch: &Batch) -> ContextChats {
        let mut chats =
            ContextChats { is_room: false, weights: self.weights(roster), homes: BTreeMap::new() };
        let before = self.rosters.get(&context);
        for place in before.into_iter().chain([roster]).flat_map(|roster| roster.legs.values()) {
            if let Some(chat) = place.chat.as_ref().filter(|chat| !chat.participant.is_empty()) {
                chats.homes.insert(chat.participant.clone(), place.shard);
            }
        }
        chats.is_room = roster.is_room(&coming(context, batch));
        chats
    }

    fn place_chat(&self, home: u16, chats: &ContextChats, leg: &Leg, asked: Option<u16>) -> u16 {
        if !chats.is_room {
            return home;
        }
        let his = chats.homes.get(&leg.participant).copied();
        asked.or(his).unwrap_or_else(|| self.least(home, &chats.weights, weight(leg)))
    }

    fn weights(&self, roster: &Roster) -> Vec<usize> {
        let mut weights = vec![0; self.shards];
        for place in roster.legs.values() {
            if let Some(sum) = weights.get_mut(usize::from(place.shard)) {
                *sum += place.weight;
            }
        }
        weights
    }

    /// At home until the context is over the weight, then where it weighs least.
    fn least(&self, home: u16, weights: &[usize], more: usize) -> u16 {
        if weights.iter().sum::<usize>() + more <= self.weight_max {
            return home;
        }
        let away = |shard: usize| (shard + self.shards - usize::from(home)) % self.shards;
        let least = (0..self.shards).min_by_key(|shard| (weights.get(*shard).copied(), away(*shard)));
        least.and_then(|shard| u16::try_from(shard).ok()).unwrap_or(home)
    }

    fn place(&self, home: u16, roster: &Roster, leg: &Leg, rtp: &RtpLeg) -> u16 {
        if !roster.is_spreadable() || rtp.bundle.is_some() {
            return home;
        }
        if let Some(shard) = self.shard_of_port(asked_port(rtp)) {
            return shard;
        }
        self.least(home, &self.weights(roster), weight(leg))
    }

    /// The shard that gives out a port (see `shard::ports`).
    fn shard_of_port(&self, port: u16) -> Option<u16> {
        let (first, last) = self.ports;
        if port < first || port > last {
            return None;
        }
        u16::try_from(usize::from((port - first) / 2) % self.shards).ok()
    }

    /// A batch goes to its home alone.
    pub(super) fn sent(&mut self, link: u64, generation: u64, plan: Plan) {
        self.sent.push(((link, generation), plan.staged));
    }

    /// Its home has answered.
    pub(super) fn answered(&mut self, link: u64, generation: u64, applied: bool) {
        let Some(at) = self.sent.iter().position(|(of, _)| *of == (link, generation)) else { return };
        let (_, staged) = self.sent.remove(at);
        if applied {
            self.settle(staged);
        }
    }

    fn settle(&mut self, staged: Staged) {
        for (context, roster) in staged {
            match roster {
                Some(roster) => self.rosters.insert(context, roster),
                None => self.rosters.remove(&context),
            };
        }
    }

    /// Begins a round.
    pub(super) fn begin(&mut self, link: u64, batch: Batch, plan: Plan) -> Step {
        let number = self.next;
        self.next += 1;
        let shards: BTreeSet<u16> = plan.outposts.values().flatten().copied().collect();
        let mut changes: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
        for (change, _, shard) in &plan.elsewhere {
            changes.entry(*shard).or_default().push(*change);
        }
        let size = |context: &u64| match plan.staged.get(context) {
            Some(Some(roster)) => Some((*context, roster.legs.len())),
            _ => None,
        };
        let send = shards.iter().map(|shard| {
            let own = changes.get(shard).map(Vec::as_slice).unwrap_or_default();
            let own = own.iter().filter_map(|at| batch.changes.get(*at).cloned()).collect();
            let contexts = plan.outposts.iter().filter(|(_, shards)| shards.contains(shard));
            let sizes = contexts.filter_map(|(context, _)| size(context)).collect();
            let batch = Box::new(Batch { changes: own, ..Batch::default() });
            (*shard, ToShard::Bind { round: number, batch, sizes })
        });
        let send = send.collect();
        self.round = Some(Round {
            number,
            link,
            batch,
            plan,
            changes,
            unbound: shards.clone(),
            behind: shards,
            locals: BTreeMap::new(),
            refused: None,
            applied: None,
        });
        Step { send, answer: None }
    }

    fn running(&mut self, number: u64) -> Option<&mut Round> {
        self.round.as_mut().filter(|round| round.number == number)
    }

    /// An outpost has bound what it was sent, or cannot.
    pub(super) fn bound(&mut self, number: u64, shard: u16, bound: Bound) -> Step {
        let Some(round) = self.running(number) else { return Step::default() };
        round.unbound.remove(&shard);
        match bound {
            Ok(locals) => {
                round.locals.extend(locals.into_iter().map(|(leg, local)| ((leg.context, leg.leg), local)));
            }
            Err((change, reason, detail)) => {
                let change = round.changes.get(&shard).and_then(|changes| changes.get(change));
                let refused = (reason, change.copied().unwrap_or(0), detail);
                // The first one that stands in the batch, whoever was faster.
                let first = round.refused.is_none_or(|(_, at, _)| refused.1 < at);
                if first {
                    round.refused = Some(refused);
                }
            }
        }
        if !round.unbound.is_empty() {
            return Step::default();
        }
        if let Some((reason, change, detail)) = round.refused {
            let refusal = Refusal {
                generation: round.batch.generation,
                reason: reason as i32,
                change: u32::try_from(change).unwrap_or(u32::MAX),
                detail: detail.to_owned(),
            };
            return self.undo(Body::Refusal(refusal));
        }
        let elsewhere = round.plan.elsewhere.iter().map(|(_, leg, shard)| Elsewhere {
            leg: *leg,
            shard: *shard,
            local: round.locals.get(&(leg.context, leg.leg)).cloned(),
        });
        let contexts_of = |shard: &u16| {
            let of = round.plan.outposts.iter().filter(|(_, shards)| shards.contains(shard));
            (*shard, of.map(|(context, _)| *context).collect())
        };
        let spread = SpreadBatch {
            round: number,
            elsewhere: elsewhere.collect(),
            outposts: round.behind.iter().map(contexts_of).collect(),
            batch: std::mem::take(&mut round.batch),
        };
        Step { send: vec![(round.plan.home, ToShard::SpreadBatch(Box::new(spread)))], answer: None }
    }

    /// The home has decided.
    pub(super) fn decided(&mut self, number: u64, body: Body) -> Step {
        let Some(round) = self.running(number) else { return Step::default() };
        if !matches!(body, Body::Applied(_)) {
            return self.undo(body);
        }
        round.applied = Some(body);
        self.finish()
    }

    /// An outpost follows. It may be heard before the home is.
    pub(super) fn followed(&mut self, number: u64, shard: u16) -> Step {
        let Some(round) = self.running(number) else { return Step::default() };
        round.behind.remove(&shard);
        self.finish()
    }

    fn finish(&mut self) -> Step {
        let done = |round: &mut Round| round.behind.is_empty() && round.applied.is_some();
        let Some(round) = self.round.take_if(done) else { return Step::default() };
        self.settle(round.plan.staged);
        Step { send: Vec::new(), answer: round.applied.map(|body| (round.link, body)) }
    }

    /// What was bound is given back, and control hears why.
    fn undo(&mut self, body: Body) -> Step {
        let Some(round) = self.round.take() else { return Step::default() };
        // All of them: who could not bind has nothing to give back, which is no harm. Its mailbox keeps the order, so
        // that the next round finds it undone.
        let send = round.behind.iter().map(|shard| (*shard, ToShard::Unbind { round: round.number }));
        Step { send: send.collect(), answer: Some((round.link, body)) }
    }
}

/// The MSRP legs of a context that a batch puts.
fn coming(context: u64, batch: &Batch) -> Vec<&Leg> {
    let put = batch.changes.iter().filter_map(|change| match &change.verb {
        Some(Verb::PutLeg(leg)) if leg.context == context => Some(leg),
        _ => None,
    });
    put.filter(|leg| matches!(leg.kind, Some(Kind::Msrp(_)))).collect()
}

#[cfg(test)]
mod tests;
