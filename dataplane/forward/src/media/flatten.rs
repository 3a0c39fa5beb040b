//! Paths made flat: for each source leg the targets that may be sent to now, with all that a packet needs. Done
//! whenever something of a context changed, so that the packet loop has nothing left to check.

use std::collections::BTreeMap;

use base::Now;
use contract::Mode;

use super::leg::{Route, RtpLeg};
use super::{Media, Tx};
use crate::modes::slot::Part;
use crate::wanted::resolve;

/// What a path leads from and to, in rows.
pub(super) struct Ends {
    pub(super) sources: Vec<u32>,
    pub(super) targets: Vec<u32>,
}

/// Which of a leg's routes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Relays,
    Fans,
    Taps,
}

const KINDS: [Kind; 3] = [Kind::Relays, Kind::Fans, Kind::Taps];

impl RtpLeg {
    const fn routes(&mut self, kind: Kind) -> &mut Vec<Route> {
        match kind {
            Kind::Relays => &mut self.relays,
            Kind::Fans => &mut self.fans,
            Kind::Taps => &mut self.taps,
        }
    }
}

impl Media {
    /// Makes the routes of a context anew. `legs`: contract leg id to row; `media_of` tells a leg's media line.
    pub(crate) fn flatten(
        &mut self,
        now: Now,
        context: u64,
        legs: &BTreeMap<u64, u32>,
        wanted: &crate::wanted::Wanted,
        tx: &mut Tx<'_>,
    ) {
        self.bundle_up(legs, wanted);
        let mut old: BTreeMap<u32, [Vec<Route>; 3]> = BTreeMap::new();
        for at in legs.values() {
            let Some(row) = self.leg_mut(*at) else { continue };
            row.parts.clear();
            row.reach_nobody();
            row.feeders.clear();
            row.relays_rtcp.clear();
            (row.led, row.terminates) = (false, false);
            old.insert(*at, KINDS.map(|kind| std::mem::take(row.routes(kind))));
        }
        let (mut stages, mut begun) = (Vec::new(), Vec::new());
        for path in wanted.paths.values() {
            let rows = |set: Option<&contract::LegSet>| -> Vec<u32> {
                resolve(set, wanted).iter().filter_map(|id| legs.get(id).copied()).collect()
            };
            let ends = Ends { sources: rows(path.sources.as_ref()), targets: rows(path.targets.as_ref()) };
            match path.mode() {
                Mode::Relay => self.pair_up(&ends, Kind::Relays),
                Mode::Distribute => self.pair_up(&ends, Kind::Fans),
                Mode::Tap => self.tap(&ends),
                Mode::Select | Mode::Floor if !ends.sources.is_empty() || !ends.targets.is_empty() => {
                    stages.push(self.stage(now, path, &ends, legs, &mut begun));
                }
                _ => {}
            }
        }
        self.forget_stages(context, &stages);
        for path in wanted.paths.values() {
            if let Some(at) = self.staged.get(&(context, path.id)) {
                self.follow(*at, path, legs, wanted);
            }
        }
        self.assign_streams(now, legs, &stages, tx);
        let mut joined = Vec::new();
        for (at, old) in old {
            for (kind, old) in KINDS.into_iter().zip(old) {
                self.carry(at, old, kind, &mut joined);
            }
        }
        for at in legs.values() {
            self.start_reports(*at, now.mono);
            self.mark_ways(*at);
        }
        let makes_own = |row: &RtpLeg| row.guard.is_some() || row.extensions.is_some();
        if legs.values().filter_map(|at| self.leg(*at)).any(makes_own)
            || stages.iter().filter_map(|at| self.stages.get(*at as usize)).any(|stage| stage.contributors)
        {
            self.make_room(legs.len());
        }
        self.recall_changed(legs.values().copied(), tx);
        for leg in begun {
            self.want_newest_key_frame(leg, now, tx);
        }
        // A new receiver needs a key frame (CPM-FACTS §4.3).
        joined.sort_unstable();
        joined.dedup();
        for source in joined {
            self.want_newest_key_frame(source, now, tx);
        }
    }

    /// Asks a leg's peer for a key frame of what it sends now, if that is video.
    pub(crate) fn want_newest_key_frame(&mut self, leg: u32, now: Now, tx: &mut Tx<'_>) {
        let newest = |row: &RtpLeg| row.sources.iter().max_by_key(|s| s.last_at).map(|s| s.ssrc);
        if let Some(ssrc) = self.leg(leg).filter(|row| row.video).and_then(newest) {
            self.want_key_frame(leg, ssrc, now, tx);
        }
    }

    /// Copies each source to each target but itself. The source does not notice: how its RTCP is taken stays with its
    /// other paths, and targets that are unseen change nothing at all.
    fn tap(&mut self, ends: &Ends) {
        ends.targets.iter().for_each(|to| self.name_taps(*to));
        for from in &ends.sources {
            let mut routes = Vec::with_capacity(ends.targets.len());
            let mut is_seen = false;
            for to in ends.targets.iter().filter(|to| *to != from) {
                let Some(row) = self.leg_mut(*to) else { continue };
                row.terminates = true;
                is_seen |= !row.unseen;
                if !row.feeders.contains(from) {
                    row.feeders.push(*from);
                }
                routes.extend(self.route(*from, *to));
            }
            let Some(row) = self.leg_mut(*from) else { continue };
            row.led |= is_seen;
            if !routes.is_empty() && !row.parts.contains(&Part::Tapped) {
                row.parts.push(Part::Tapped);
            }
            add(&mut row.taps, routes);
        }
    }

    /// Leads each source to each target but itself.
    fn pair_up(&mut self, ends: &Ends, kind: Kind) {
        let outposts = if kind == Kind::Fans { self.shards_of(&ends.targets) } else { Vec::new() };
        for from in &ends.sources {
            let mut routes = Vec::with_capacity(ends.targets.len());
            let mut rtcp = Vec::new();
            for to in ends.targets.iter().filter(|to| *to != from) {
                if kind == Kind::Relays {
                    rtcp.extend(self.leg(*to).and_then(|row| Some((*to, row.rtcp_out()?))));
                } else if let Some(row) = self.leg_mut(*to) {
                    row.terminates = true;
                    if !row.feeders.contains(from) {
                        row.feeders.push(*from);
                    }
                }
                routes.extend(self.route(*from, *to));
            }
            let Some(row) = self.leg_mut(*from) else { continue };
            row.led = true;
            row.relays_rtcp.extend(rtcp);
            row.terminates |= kind == Kind::Fans;
            row.reach(&outposts);
            add(row.routes(kind), routes);
        }
    }

    /// Whether each target of the leg is sent to by itself, or by other names of header extensions.
    fn mark_ways(&mut self, at: u32) {
        let Some(row) = self.leg(at) else { return };
        let apart = |route: &Route| {
            self.leg(route.leg).is_some_and(|target| target.guard.is_some() || target.repair.is_some())
        };
        let names = |route: &Route| self.leg(route.leg).is_some_and(|target| target.extensions.is_some());
        let routes = || row.relays.iter().chain(&row.fans);
        let renames = row.extensions.is_some() || routes().any(names);
        let guarded = row.guard.is_some() || routes().chain(&row.taps).any(apart);
        if let Some(row) = self.leg_mut(at) {
            (row.renames, row.guarded) = (renames, guarded);
        }
    }

    /// Whether a packet of the leg meets keys on its way whose table its sources could fill. Those of taps do not count: their
    /// copies have names of their own (see `names`), and a source that is refused would show that there is one.
    pub(super) fn meets_keys(&self, at: u32) -> bool {
        let Some(row) = self.leg(at) else { return false };
        let routes = row.relays.iter().chain(&row.fans);
        let mut targets = routes.filter_map(|route| self.leg(route.leg));
        row.guard.is_some() || targets.any(|target| target.guard.is_some())
    }

    /// A route, if its target may be sent to now.
    fn route(&self, from: u32, to: u32) -> Option<Route> {
        let (from, target) = (self.leg(from)?, self.leg(to)?);
        if !target.hears() {
            return None;
        }
        let map = |payload: u8| from.to_context(payload).and_then(|c| target.to_peer(c)).unwrap_or(255);
        let alike = (0..128).all(|p| map(p) == p);
        let payloads = (!alike).then(|| Box::new(std::array::from_fn(|p| map(p as u8))));
        Some(Route {
            leg: to,
            socket: target.rtp.socket,
            packets: 0,
            octets: 0,
            bytes: 0,
            payloads,
            of: 0,
            others: None,
        })
    }

    /// Carries the counts of old routes on; those of routes that are no more go to their targets.
    fn carry(&mut self, at: u32, old: Vec<Route>, kind: Kind, joined: &mut Vec<u32>) {
        let Some(mut routes) = self.leg_mut(at).map(|row| std::mem::take(row.routes(kind))) else { return };
        let mut before: BTreeMap<u32, Route> = old.into_iter().map(|r| (r.leg, r)).collect();
        for route in &mut routes {
            match before.remove(&route.leg) {
                Some(was) => {
                    (route.packets, route.octets, route.bytes) = (was.packets, was.octets, was.bytes);
                    (route.of, route.others) = (was.of, was.others);
                }
                // A key frame for a leg that is unseen would tell of it.
                None if self.leg(route.leg).is_some_and(|target| target.unseen) => {}
                None => joined.push(at),
            }
        }
        if let Some(row) = self.leg_mut(at) {
            *row.routes(kind) = routes;
        }
        for (target, was) in before {
            if let Some(target) = self.leg_mut(target) {
                target.counts.packets_out += was.packets_all();
                target.counts.bytes_out += was.bytes;
            }
        }
    }
}

/// Adds routes to targets that are not there yet.
fn add(routes: &mut Vec<Route>, more: Vec<Route>) {
    if routes.is_empty() {
        *routes = more;
        return;
    }
    for route in more {
        if !routes.iter().any(|r| r.leg == route.leg) {
            routes.push(route);
        }
    }
}
