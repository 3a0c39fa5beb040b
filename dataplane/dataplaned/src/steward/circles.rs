//! Media that would go round for ever: legs whose peers are other legs of this data plane, so that what one of them is sent
//! comes back to it. Any two subscribers could make such a circle with the addresses that their calls were given.
//!
//! ```text
//!   leg ── its remote is the address of ──► leg ── paths of its context ──► legs ── their remotes ──► ...
//!                                            ▲                                                         │
//!                                            └──────────── a batch that closes this is refused ────────┘
//! ```
//!
//! That a call or a conference has a leg here too is no circle: conferences meet the sessions of their members so, and a proxy
//! may send a call by here twice. Addresses that are learned close none: a leg does not learn the address of another one (see
//! `forward`'s `own`). A batch counts from when it is sent to its shard; a refusal takes it back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use contract::change::Verb;
use contract::leg::Kind;
use contract::placement::At;
use contract::{Applied, Batch, LegSet, RtpLocal};
use forward::OwnMedia;

/// Of which context, and which there.
type Key = (u64, u64);

/// A port of an interface of ours, by number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Place {
    interface: u16,
    port: u16,
}

/// An RTP leg. There are many: nothing in it has room to spare.
#[derive(Clone, Default, Debug)]
struct End {
    media: Box<str>,
    /// Of its remotes those that are at our interfaces: none, for nearly all.
    remotes: Box<[Place]>,
    locals: Box<[Place]>,
}

/// The legs that a path names.
#[derive(Clone, Debug)]
enum Named {
    One(u64),
    Set(Box<LegSet>),
}

impl Named {
    fn new(set: Option<&LegSet>) -> Self {
        let set = set.cloned().unwrap_or_default();
        match set.legs.as_slice() {
            [leg] if set.media.is_empty() => Named::One(*leg),
            _ => Named::Set(Box::new(set)),
        }
    }
}

#[derive(Clone, Default, Debug)]
struct Shape {
    legs: Few<u64, End>,
    paths: Few<u32, (Named, Named)>,
}

/// A map of few things, in the order of their keys: two or three for nearly all contexts.
#[derive(Clone, Debug)]
struct Few<K, V>(Vec<(K, V)>);

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Few(Vec::new())
    }
}

impl<K: Ord + Copy, V> Few<K, V> {
    fn get(&self, key: K) -> Option<&V> {
        let at = self.0.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let at = self.0.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        self.0.get_mut(at).map(|(_, value)| value)
    }

    fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.0.binary_search_by_key(&key, |(key, _)| *key) {
            Ok(at) => self.0.get_mut(at).map(|(_, old)| std::mem::replace(old, value)),
            Err(at) => {
                if self.0.len() < 8 {
                    self.0.reserve_exact(1);
                }
                self.0.insert(at, (key, value));
                None
            }
        }
    }

    fn remove(&mut self, key: K) -> Option<V> {
        let at = self.0.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        Some(self.0.remove(at).1)
    }
}

/// What was before a change.
#[derive(Debug)]
enum Undo {
    Context(u64, Option<Shape>),
    Leg(Key, Option<End>),
    Path(u64, u32, Option<(Named, Named)>),
}

/// All contexts of the data plane, as far as this is concerned.
#[derive(Debug)]
pub(crate) struct Circles {
    /// Which addresses are ours.
    own: Arc<OwnMedia>,
    contexts: BTreeMap<u64, Shape>,
    /// Which legs are at an address.
    places: BTreeSet<(Place, Key)>,
    /// Batches that their shard has not answered yet, by link and generation.
    sent: BTreeMap<(u64, u64), Vec<Undo>>,
}

fn socket(address: Option<&contract::Address>) -> Option<SocketAddr> {
    let socket = address?.socket()?;
    Some(SocketAddr::new(socket.ip().to_canonical(), socket.port()))
}

impl Shape {
    fn names(&self, named: &Named, leg: u64) -> bool {
        let of_media = |media: &str| self.legs.get(leg).is_some_and(|end| *end.media == *media);
        match named {
            Named::One(one) => *one == leg,
            Named::Set(set) => set.legs.contains(&leg) || !set.media.is_empty() && of_media(&set.media),
        }
    }

    /// Where what comes to a leg goes.
    fn targets(&self, from: u64) -> impl Iterator<Item = (u64, &End)> {
        let paths = self.paths.0.iter().filter(move |(_, (sources, _))| self.names(sources, from));
        paths.flat_map(move |(_, (_, targets))| {
            self.legs
                .0
                .iter()
                .filter(move |(id, _)| *id != from && self.names(targets, *id))
                .map(|(id, end)| (*id, end))
        })
    }
}

impl Circles {
    pub(crate) fn new(own: Arc<OwnMedia>) -> Self {
        Circles { own, contexts: BTreeMap::new(), places: BTreeSet::new(), sent: BTreeMap::new() }
    }

    /// What of these addresses is ours.
    fn ours(&self, addresses: impl Iterator<Item = SocketAddr>) -> Box<[Place]> {
        let place = |interface, port| Some(Place { interface: u16::try_from(interface).ok()?, port });
        let at = |at: SocketAddr| self.own.interfaces(at.ip()).filter_map(move |i| place(i, at.port()));
        let mut all: Vec<Place> = addresses.filter(|at| at.port() != 0).flat_map(at).collect();
        all.sort_unstable();
        all.dedup();
        all.into_boxed_slice()
    }

    /// Where a leg is: RTP and RTCP, as bound and as others are told.
    fn locals(&self, local: &RtpLocal) -> Box<[Place]> {
        let rtcp = u16::try_from(local.rtcp_port).unwrap_or(0);
        let both = [local.bound.as_ref(), local.advertised.as_ref()].into_iter().filter_map(socket);
        let both = both.filter(|at| at.port() != 0);
        self.ours(both.flat_map(|at| [at, SocketAddr::new(at.ip(), rtcp)]))
    }

    /// Takes a batch that is about to be sent. `Err`: which change closes a circle; nothing is changed then.
    pub(super) fn send(&mut self, link: u64, batch: &Batch) -> Result<(), usize> {
        let mut undo = Vec::new();
        for change in &batch.changes {
            self.change(change.verb.as_ref(), &mut undo);
        }
        for (at, change) in batch.changes.iter().enumerate() {
            if self.closes(change.verb.as_ref()) {
                self.take_back(undo);
                return Err(at);
            }
        }
        self.sent.insert((link, batch.generation), undo);
        Ok(())
    }

    /// Its shard has answered; `None`: refused.
    pub(super) fn answered(&mut self, link: u64, generation: u64, applied: Option<&Applied>) {
        let Some(undo) = self.sent.remove(&(link, generation)) else { return };
        let Some(applied) = applied else { return self.take_back(undo) };
        for placement in &applied.placements {
            let key = (placement.context, placement.leg);
            let Some(At::Rtp(local)) = &placement.at else { continue };
            let new = self.locals(local);
            let Some(end) = self.contexts.get_mut(&key.0).and_then(|shape| shape.legs.get_mut(key.1)) else {
                continue;
            };
            let old = std::mem::replace(&mut end.locals, new.clone());
            self.leave(key, &old);
            self.places.extend(new.iter().map(|at| (*at, key)));
        }
        for was in undo {
            match was {
                Undo::Context(context, Some(shape)) => {
                    shape.legs.0.into_iter().for_each(|(leg, end)| self.moved((context, leg), &end.locals));
                }
                Undo::Leg(key, Some(end)) => self.moved(key, &end.locals),
                _ => {}
            }
        }
    }

    /// What a leg was before is over: it is gone, or was put again somewhere else.
    fn moved(&mut self, key: Key, old: &[Place]) {
        let now = self.end(key).map(|end| end.locals.clone()).unwrap_or_default();
        let over: Vec<Place> = old.iter().filter(|at| !now.contains(at)).copied().collect();
        self.leave(key, &over);
    }

    fn leave(&mut self, key: Key, locals: &[Place]) {
        for at in locals {
            self.places.remove(&(*at, key));
        }
    }

    fn end(&self, (context, leg): Key) -> Option<&End> {
        self.contexts.get(&context)?.legs.get(leg)
    }

    fn change(&mut self, verb: Option<&Verb>, undo: &mut Vec<Undo>) {
        match verb {
            Some(Verb::PutContext(put)) if !self.contexts.contains_key(&put.id) => {
                self.contexts.insert(put.id, Shape::default());
                undo.push(Undo::Context(put.id, None));
            }
            Some(Verb::RemoveContext(context)) => {
                undo.push(Undo::Context(*context, self.contexts.remove(context)));
            }
            Some(Verb::PutLeg(leg)) => {
                let Some(Kind::Rtp(rtp)) = &leg.kind else { return };
                // After a restart control names the place that a leg had, before the answer does.
                let named = rtp.local.as_ref().map(|at| self.locals(at)).filter(|all| !all.is_empty());
                let remotes = [rtp.remote.as_ref(), rtp.remote_rtcp.as_deref()];
                let remotes = self.ours(remotes.into_iter().filter_map(socket));
                let Some(shape) = self.contexts.get_mut(&leg.context) else { return };
                let old = shape.legs.get(leg.id).cloned();
                let known = old.as_ref().map(|end| end.locals.clone());
                let locals = known.or_else(|| named.clone()).unwrap_or_default();
                let key = (leg.context, leg.id);
                shape.legs.insert(leg.id, End { media: leg.media.as_str().into(), remotes, locals });
                if old.is_none() {
                    self.places.extend(named.iter().flat_map(|all| all.iter()).map(|at| (*at, key)));
                }
                undo.push(Undo::Leg(key, old));
            }
            Some(Verb::RemoveLeg(key)) => {
                let Some(shape) = self.contexts.get_mut(&key.context) else { return };
                undo.push(Undo::Leg((key.context, key.leg), shape.legs.remove(key.leg)));
            }
            Some(Verb::PutPath(path)) => {
                let Some(shape) = self.contexts.get_mut(&path.context) else { return };
                let named = (Named::new(path.sources.as_ref()), Named::new(path.targets.as_ref()));
                undo.push(Undo::Path(path.context, path.id, shape.paths.insert(path.id, named)));
            }
            Some(Verb::RemovePath(key)) => {
                let Some(shape) = self.contexts.get_mut(&key.context) else { return };
                undo.push(Undo::Path(key.context, key.path, shape.paths.remove(key.path)));
            }
            _ => {}
        }
    }

    fn take_back(&mut self, undo: Vec<Undo>) {
        for was in undo.into_iter().rev() {
            match was {
                Undo::Context(context, Some(shape)) => drop(self.contexts.insert(context, shape)),
                Undo::Context(context, None) => drop(self.contexts.remove(&context)),
                Undo::Leg(key, old) => {
                    let Some(shape) = self.contexts.get_mut(&key.0) else { continue };
                    let new = match old {
                        Some(end) => shape.legs.insert(key.1, end).filter(|_| false),
                        None => shape.legs.remove(key.1),
                    };
                    new.into_iter().for_each(|end| self.leave(key, &end.locals));
                }
                Undo::Path(context, path, old) => {
                    let Some(shape) = self.contexts.get_mut(&context) else { continue };
                    match old {
                        Some(sets) => drop(shape.paths.insert(path, sets)),
                        None => drop(shape.paths.remove(path)),
                    }
                }
            }
        }
    }

    /// Whether what a change put is a part of a circle.
    fn closes(&self, verb: Option<&Verb>) -> bool {
        match verb {
            Some(Verb::PutLeg(leg)) => self.comes_back((leg.context, leg.id)),
            Some(Verb::PutPath(path)) => {
                let legs =
                    self.contexts.get(&path.context).map(|shape| shape.legs.0.iter().map(|(leg, _)| *leg));
                legs.into_iter().flatten().any(|leg| self.comes_back((path.context, leg)))
            }
            _ => false,
        }
    }

    /// Whether what a leg sends to its peer comes to be sent to it again.
    fn comes_back(&self, leg: Key) -> bool {
        let Some(end) = self.end(leg) else { return false };
        let mut seen: BTreeSet<Key> = BTreeSet::new();
        let mut next: Vec<Key> = Vec::new();
        self.meet(end, &mut seen, &mut next);
        while let Some((context, at)) = next.pop() {
            let Some(shape) = self.contexts.get(&context) else { continue };
            for (target, end) in shape.targets(at) {
                if (context, target) == leg {
                    return true;
                }
                self.meet(end, &mut seen, &mut next);
            }
        }
        false
    }

    /// The legs at the addresses that a leg sends to.
    fn meet(&self, end: &End, seen: &mut BTreeSet<Key>, next: &mut Vec<Key>) {
        for remote in end.remotes.iter() {
            for (_, key) in self.places.range((*remote, (0, 0))..=(*remote, (u64::MAX, u64::MAX))) {
                if seen.insert(*key) {
                    next.push(*key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
