//! One context (REQ-PF-12, REQ-PF-24): its legs and paths as they are wanted, and where the data plane has put the legs.
//!
//! Changes gather until `commit`; the placements that come back are kept in the legs, so every later Put of a
//! leg names its ports (DESIGN §3 "Who owns what").

use std::collections::{BTreeMap, BTreeSet};

use base::Private;
use contract::{
    Applied, Batch, Change, Context, Leg, LegCounters, Path, RtpContinuity, change::Verb, leg, placement,
};
use prost::Message as _;

use super::bundle;
use crate::records::{Columns, ContextRow, Record, Row};
use crate::turn::{Orderer, Turn};
use crate::{Ask, Key, LaneKey, Table};

/// A context and its wanted state.
#[derive(Clone, Debug)]
pub(crate) struct Anchor {
    id: u64,
    owner: String,
    legs_next: u64,
    legs: BTreeMap<u64, Leg>,
    paths: BTreeMap<u32, Path>,
    changes: Vec<Change>,
    version: u64,
    /// Legs that the data plane has told us the place of.
    known: BTreeSet<u64>,
    /// The data plane has not done what the changes so far said: the next order carries everything.
    stale: bool,
    /// Differs from the row.
    unsaved: bool,
}

impl Anchor {
    /// A new context of `owner`'s (the key of the row that it belongs to).
    pub(crate) fn new(id: u64, owner: String) -> Self {
        let changes = vec![put(Verb::PutContext(Context { id }))];
        Anchor {
            id,
            owner,
            legs_next: 1,
            legs: BTreeMap::new(),
            paths: BTreeMap::new(),
            changes,
            version: 0,
            known: BTreeSet::new(),
            stale: false,
            unsaved: true,
        }
    }

    /// The context's id.
    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    /// The next free leg number.
    pub(crate) fn draw_leg(&mut self) -> u64 {
        let id = self.legs_next;
        self.legs_next += 1;
        id
    }

    /// A leg as it is wanted.
    pub(crate) fn leg(&self, id: u64) -> Option<&Leg> {
        self.legs.get(&id)
    }

    /// Every leg.
    pub(crate) fn legs(&self) -> impl Iterator<Item = &Leg> {
        self.legs.values()
    }

    /// Wants a leg so; the same as before is no change.
    pub(crate) fn put_leg(&mut self, leg: Leg) {
        if self.legs.get(&leg.id) == Some(&leg) {
            return;
        }
        // What has not been ordered yet is ordered once.
        let waits = self.changes.iter_mut().find_map(|change| match &mut change.verb {
            Some(Verb::PutLeg(waits)) if waits.id == leg.id => Some(waits),
            _ => None,
        });
        match waits {
            Some(waits) => waits.clone_from(&leg),
            None => self.changes.push(put(Verb::PutLeg(leg.clone()))),
        }
        self.legs.insert(leg.id, leg);
    }

    /// Other legs ride on the transport of this one.
    pub(crate) fn carries(&self, id: u64) -> bool {
        self.legs.values().any(|leg| bundle::rides_on(leg) == Some(id))
    }

    /// A leg as its peer sees it: on another one's transport with that one's place, ICE and certificates.
    pub(crate) fn whole_leg(&self, id: u64) -> Option<Leg> {
        let mut leg = self.leg(id)?.clone();
        let carrier = bundle::rides_on(&leg).and_then(|carrier| self.leg(carrier)).and_then(bundle::rtp);
        if let (Some(carrier), Some(leg::Kind::Rtp(own))) = (carrier, &mut leg.kind) {
            own.local.clone_from(&carrier.local);
            own.dtls.clone_from(&carrier.dtls);
            own.ice.clone_from(&carrier.ice);
        }
        Some(leg)
    }

    /// Changes a leg in place.
    pub(crate) fn change_leg(&mut self, id: u64, change: impl FnOnce(&mut Leg)) {
        if let Some(mut leg) = self.legs.get(&id).cloned() {
            change(&mut leg);
            self.put_leg(leg);
        }
    }

    /// Wants a leg gone. Paths that name it lose it. One on whose transport others ride stays as that, without a line, and
    /// goes with the last of them.
    pub(crate) fn remove_leg(&mut self, id: u64) {
        if self.carries(id) {
            self.change_leg(id, |leg| {
                leg.direction = contract::Direction::Inactive.into();
                leg.media = "transport".to_owned();
                if let Some(leg::Kind::Rtp(rtp)) = &mut leg.kind {
                    rtp.media_timeout_ms = 0;
                    if let Some(bundle) = &mut rtp.bundle {
                        **bundle = contract::Bundle { mid_id: bundle.mid_id, ..contract::Bundle::default() };
                    }
                }
            });
            for path in self.unname(id) {
                let path = self.paths.get(&path).cloned();
                self.changes.extend(path.map(|path| put(Verb::PutPath(path))));
            }
            return;
        }
        if let Some(leg) = self.legs.remove(&id) {
            self.changes.push(put(Verb::RemoveLeg(leg.key())));
            self.unname(id);
            let carrier = bundle::rides_on(&leg);
            if let Some(bare) = carrier.filter(|id| self.leg(*id).is_some_and(bundle::is_bare)) {
                self.remove_leg(bare);
            }
        }
    }

    /// Takes a leg out of the paths that name it; those that are left of them.
    fn unname(&mut self, id: u64) -> Vec<u32> {
        let mut left = Vec::new();
        for path in self.paths.values_mut() {
            let mut named = false;
            for set in [&mut path.sources, &mut path.targets].into_iter().flatten() {
                named |= set.legs.contains(&id);
                set.legs.retain(|l| *l != id);
            }
            left.extend(named.then_some(path.id));
        }
        let named = |set: &Option<contract::LegSet>| {
            set.as_ref().is_some_and(|s| !s.legs.is_empty() || !s.media.is_empty())
        };
        let bare = self.paths.values().filter(|p| !(named(&p.sources) && named(&p.targets)));
        let bare: Vec<u32> = bare.map(|p| p.id).collect();
        left.retain(|path| !bare.contains(path));
        bare.into_iter().for_each(|path| self.remove_path(path));
        left
    }

    /// Wants a path so.
    pub(crate) fn put_path(&mut self, path: Path) {
        if self.paths.get(&path.id) == Some(&path) {
            return;
        }
        self.changes.push(put(Verb::PutPath(path.clone())));
        self.paths.insert(path.id, path);
    }

    /// Wants a path gone.
    pub(crate) fn remove_path(&mut self, id: u32) {
        if let Some(path) = self.paths.remove(&id) {
            self.changes.push(put(Verb::RemovePath(path.key())));
        }
    }

    /// A path as it is wanted.
    pub(crate) fn path(&self, id: u32) -> Option<&Path> {
        self.paths.get(&id)
    }

    /// An order was refused: what it held is not in the data plane, and the next one carries everything.
    pub(crate) fn mark_stale(&mut self) {
        self.stale = true;
    }

    /// True once after each difference from the row.
    pub(crate) fn take_unsaved(&mut self) -> bool {
        std::mem::take(&mut self.unsaved)
    }

    /// Orders what has changed since the last commit; `None` when nothing has.
    pub(crate) fn commit(&mut self, turn: &mut Turn<'_>, orderer: Orderer) -> Option<Ask> {
        if self.changes.is_empty() {
            return None;
        }
        self.unsaved = true;
        let mut changes = std::mem::take(&mut self.changes);
        if std::mem::take(&mut self.stale) {
            changes = self.whole();
            let gone: Vec<u64> =
                self.known.iter().copied().filter(|leg| !self.legs.contains_key(leg)).collect();
            changes.extend(
                gone.into_iter().map(|leg| put(Verb::RemoveLeg(contract::LegKey::new(self.id, leg)))),
            );
        }
        self.known.retain(|leg| self.legs.contains_key(leg));
        Some(turn.program(orderer, &self.trace(), changes))
    }

    /// Orders the whole wanted state: for a data plane that has lost it.
    pub(crate) fn put_again(&mut self, turn: &mut Turn<'_>, orderer: Orderer) -> Ask {
        // Keys that were in use before: the contract's word for it, even where nobody has told how far.
        for leg in self.legs.values_mut() {
            if let Some(leg::Kind::Rtp(rtp)) = &mut leg.kind
                && rtp.srtp.is_some()
            {
                rtp.continuity.get_or_insert_default();
            }
        }
        self.changes.clear();
        let changes = self.whole();
        turn.program(orderer, &self.trace(), changes)
    }

    /// Orders the context gone.
    pub(crate) fn remove(&mut self, turn: &mut Turn<'_>) {
        let gone = vec![put(Verb::RemoveContext(self.id))];
        turn.program(Orderer::Nobody, &self.trace(), gone);
        if self.version > 0 {
            turn.remove_row(self.key());
        }
    }

    /// Keeps the placements of an answer: each leg's local end as the data plane has it.
    pub(crate) fn placed(&mut self, applied: &Applied) {
        for placement in applied.placements.iter().filter(|p| p.context == self.id) {
            self.known.insert(placement.leg);
            self.unsaved = true;
            let Some(leg) = self.legs.get_mut(&placement.leg) else { continue };
            match (&mut leg.kind, &placement.at) {
                (Some(leg::Kind::Rtp(rtp)), Some(placement::At::Rtp(local))) => {
                    rtp.local = Some(local.clone())
                }
                (Some(leg::Kind::Msrp(msrp)), Some(placement::At::Msrp(local))) => {
                    msrp.local = Some(local.clone());
                }
                _ => {}
            }
        }
    }

    /// Keeps how far the keys of its legs have come: a data plane that starts again is told, because a rollover counter
    /// is nowhere on the wire (RFC 3711 §3.3.1). True when the row is behind by so much that it must be written: a guess
    /// is good for 2^15 packets, the row is at most 2^13 old.
    pub(crate) fn keep(&mut self, counters: &[LegCounters]) -> bool {
        let mut behind = false;
        for told in counters.iter().filter(|c| c.leg.is_some_and(|key| key.context == self.id)) {
            let leg = told.leg.and_then(|key| self.legs.get_mut(&key.leg));
            let (Some(leg::Kind::Rtp(rtp)), Some(new)) =
                (leg.and_then(|leg| leg.kind.as_mut()), &told.continuity)
            else {
                continue;
            };
            if rtp.srtp.is_none() || (new.sent.is_empty() && new.received.is_empty()) {
                continue;
            }
            let marks = |c: &RtpContinuity| -> Vec<(u32, u32, u32)> {
                c.sent.iter().chain(&c.received).map(|p| (p.ssrc, p.rollover, p.sequence >> 13)).collect()
            };
            behind |= rtp.continuity.as_deref().map(marks) != Some(marks(new));
            rtp.continuity = Some(Box::new(new.clone()));
        }
        self.unsaved |= behind;
        behind
    }

    /// Writes the context's row.
    pub(crate) fn save(&mut self, turn: &mut Turn<'_>) {
        self.version += 1;
        let wanted = Batch { changes: self.whole(), ..Batch::default() }.encode_to_vec();
        turn.put_row(Row {
            key: self.key(),
            lane: LaneKey::of_context(self.id),
            version: self.version,
            columns: Columns { owner: Private::new(self.owner.clone()), ..Columns::default() },
            record: Record::Context(ContextRow {
                context: self.id,
                owner: self.owner.clone(),
                wanted: Private::new(wanted),
                legs_next: self.legs_next,
            }),
        });
    }

    /// Back from its row; `None` when the row holds no batch.
    pub(crate) fn restore(row: &ContextRow, version: u64) -> Option<Self> {
        let batch = Batch::decode(row.wanted.expose().as_slice()).ok()?;
        let mut anchor = Anchor::new(row.context, row.owner.clone());
        anchor.changes.clear();
        anchor.legs_next = row.legs_next;
        anchor.version = version;
        anchor.unsaved = false;
        for change in batch.changes {
            match change.verb {
                Some(Verb::PutLeg(leg)) => {
                    anchor.known.insert(leg.id);
                    anchor.legs.insert(leg.id, leg);
                }
                Some(Verb::PutPath(path)) => drop(anchor.paths.insert(path.id, path)),
                _ => {}
            }
        }
        Some(anchor)
    }

    /// The row that it belongs to.
    pub(crate) fn owner(&self) -> &str {
        &self.owner
    }

    fn whole(&self) -> Vec<Change> {
        let context = std::iter::once(put(Verb::PutContext(Context { id: self.id })));
        let legs = self.legs.values().map(|l| put(Verb::PutLeg(l.clone())));
        let paths = self.paths.values().map(|p| put(Verb::PutPath(p.clone())));
        context.chain(legs).chain(paths).collect()
    }

    fn key(&self) -> Key {
        Key::new(Table::Context, format!("{:016x}", self.id))
    }

    fn trace(&self) -> String {
        format!("{:016x}", self.id)
    }
}

fn put(verb: Verb) -> Change {
    Change { verb: Some(verb) }
}

#[cfg(test)]
mod tests {
    use contract::{LegSet, Mode, MsrpLeg, MsrpLocal, Placement};

    use super::*;
    use crate::testing::Bench;

    fn msrp(anchor: &mut Anchor) -> u64 {
        let id = anchor.draw_leg();
        let kind = Some(leg::Kind::Msrp(MsrpLeg::default()));
        anchor.put_leg(Leg { id, context: anchor.id(), kind, ..Leg::default() });
        id
    }

    #[test]
    fn what_is_restored_is_what_was_wanted_with_its_ports() {
        let mut bench = Bench::new();
        let mut turn = bench.turn();
        let mut anchor = Anchor::new(LaneKey(7).context(9), "s1".to_owned());
        let (a, b) = (msrp(&mut anchor), msrp(&mut anchor));
        let set = |id| Some(LegSet { legs: vec![id], media: String::new() });
        anchor.put_path(Path {
            id: 1,
            context: anchor.id(),
            mode: Mode::Relay.into(),
            sources: set(a),
            targets: set(b),
            parameters: None,
        });
        assert!(anchor.commit(&mut turn, Orderer::Session(1)).is_some());
        assert!(anchor.commit(&mut turn, Orderer::Session(1)).is_none(), "nothing has changed since");
        let local = MsrpLocal { session: "abc".to_owned(), ..MsrpLocal::default() };
        anchor.placed(&Applied {
            generation: 1,
            placements: vec![Placement {
                context: anchor.id(),
                leg: a,
                at: Some(placement::At::Msrp(local.clone())),
            }],
        });
        anchor.save(&mut turn);
        turn.finish();
        let row = bench.rows().pop().unwrap();
        assert_eq!(row.lane, LaneKey(7));
        let Record::Context(body) = &row.record else { panic!("a context row") };
        let back = Anchor::restore(body, row.version).unwrap();
        assert_eq!((&back.legs, &back.paths, back.legs_next), (&anchor.legs, &anchor.paths, 3));
        let Some(leg::Kind::Msrp(leg)) = &back.legs[&a].kind else { panic!("an msrp leg") };
        assert_eq!(leg.local, Some(local));
    }

    #[test]
    fn a_leg_that_goes_takes_its_paths_along() {
        let mut anchor = Anchor::new(1, String::new());
        let (a, b) = (msrp(&mut anchor), msrp(&mut anchor));
        let set = |id| Some(LegSet { legs: vec![id], media: String::new() });
        anchor.put_path(Path { id: 1, sources: set(a), targets: set(b), ..Path::default() });
        anchor.remove_leg(b);
        assert!(anchor.paths.is_empty());
        assert_eq!(anchor.legs().map(|l| l.id).collect::<Vec<_>>(), [a]);
    }

    // RFC 9143 §7.5: the line ends, the transport does not.
    #[test]
    fn a_transport_that_others_ride_on_stays_without_its_line_and_goes_with_the_last() {
        let mut anchor = Anchor::new(1, String::new());
        let rtp = |anchor: &mut Anchor, carrier| {
            let id = anchor.draw_leg();
            let shared = contract::Bundle { carrier, mid: format!("m{id}"), ..contract::Bundle::default() };
            let kind = leg::Kind::Rtp(contract::RtpLeg {
                bundle: Some(Box::new(shared)),
                ..contract::RtpLeg::default()
            });
            anchor.put_leg(Leg { id, context: 1, kind: Some(kind), ..Leg::default() });
            id
        };
        let a = rtp(&mut anchor, 0);
        let (b, c) = (rtp(&mut anchor, a), rtp(&mut anchor, a));
        let set = |legs: &[u64]| Some(LegSet { legs: legs.to_vec(), media: String::new() });
        anchor.put_path(Path { id: 1, sources: set(&[a, b]), targets: set(&[c]), ..Path::default() });
        anchor.remove_leg(a);
        assert!(anchor.leg(a).is_some_and(bundle::is_bare) && anchor.carries(a));
        assert_eq!(anchor.path(1).map(|path| path.sources.clone()), Some(set(&[b])));
        anchor.remove_leg(b);
        assert!(anchor.leg(a).is_some());
        anchor.remove_leg(c);
        assert_eq!(anchor.legs().count(), 0);
        let gone = anchor.changes.iter().filter(|c| matches!(c.verb, Some(Verb::RemoveLeg(_)))).count();
        assert_eq!(gone, 3);
    }
}
