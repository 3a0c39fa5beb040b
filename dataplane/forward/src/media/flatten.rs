//! Paths made flat: for each source leg the targets that may be sent to now, with all that a packet needs. Done
//! whenever something of a context changed, so that the packet loop has nothing left to check.

use std::collections::BTreeMap;

use base::Now;
use contract::{Mode, Path, path};

use super::leg::Route;
use super::{Media, Tx};
use crate::modes::select::{Selection, Talker};
use crate::wanted::resolve;

/// What a path leads from and to, in rows.
struct Ends {
    sources: Vec<u32>,
    targets: Vec<u32>,
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
        let mut old: BTreeMap<u32, (Vec<Route>, Vec<Route>)> = BTreeMap::new();
        for at in legs.values() {
            let Some(row) = self.leg_mut(*at) else { continue };
            row.selects.clear();
            row.feeders.clear();
            row.relays_rtcp.clear();
            (row.led, row.terminates) = (false, false);
            old.insert(*at, (std::mem::take(&mut row.relays), std::mem::take(&mut row.fans)));
        }
        let mut kept = Vec::new();
        for path in wanted.paths.values() {
            let rows = |set: Option<&contract::LegSet>| -> Vec<u32> {
                resolve(set, wanted).iter().filter_map(|id| legs.get(id).copied()).collect()
            };
            let ends = Ends { sources: rows(path.sources.as_ref()), targets: rows(path.targets.as_ref()) };
            match path.mode() {
                Mode::Relay => self.pair_up(&ends, true),
                Mode::Distribute => self.pair_up(&ends, false),
                Mode::Select if !ends.sources.is_empty() || !ends.targets.is_empty() => {
                    kept.push(self.select(path, ends));
                }
                _ => {}
            }
        }
        self.forget_selections(context, &kept);
        let mut joined = Vec::new();
        for (at, (relays, fans)) in old {
            self.carry(at, relays, true, &mut joined);
            self.carry(at, fans, false, &mut joined);
        }
        for at in legs.values() {
            self.start_reports(*at, now.mono);
            self.mark_guarded(*at);
        }
        if legs.values().filter_map(|at| self.leg(*at)).any(|row| row.guard.is_some()) {
            self.make_room(legs.len());
        }
        // A new receiver needs a key frame (CPM-FACTS §4.3).
        joined.sort_unstable();
        joined.dedup();
        for source in joined {
            let ssrc =
                self.leg(source).filter(|row| row.video).and_then(|row| row.sources.first()).map(|s| s.ssrc);
            if let Some(ssrc) = ssrc {
                self.want_key_frame(source, ssrc, now, tx);
            }
        }
    }

    /// Leads each source to each target but itself.
    fn pair_up(&mut self, ends: &Ends, relay: bool) {
        for from in &ends.sources {
            let mut routes = Vec::with_capacity(ends.targets.len());
            let mut rtcp = Vec::new();
            for to in ends.targets.iter().filter(|to| *to != from) {
                if relay {
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
            if relay {
                add(&mut row.relays, routes);
                row.relays_rtcp.extend(rtcp);
            } else {
                row.terminates = true;
                add(&mut row.fans, routes);
            }
        }
    }

    /// Whether a packet of the leg meets keys on its way.
    fn mark_guarded(&mut self, at: u32) {
        let Some(row) = self.leg(at) else { return };
        let mut targets = row.relays.iter().chain(&row.fans).filter_map(|route| self.leg(route.leg));
        let guarded = row.guard.is_some() || targets.any(|target| target.guard.is_some());
        if let Some(row) = self.leg_mut(at) {
            row.guarded = guarded;
        }
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
        Some(Route { leg: to, socket: target.rtp.socket, packets: 0, octets: 0, bytes: 0, payloads })
    }

    /// Carries the counts of old routes on; those of routes that are no more go to their targets.
    fn carry(&mut self, at: u32, old: Vec<Route>, relay: bool, joined: &mut Vec<u32>) {
        let Some(row) = self.leg_mut(at) else { return };
        let routes = if relay { &mut row.relays } else { &mut row.fans };
        let mut before: BTreeMap<u32, Route> = old.into_iter().map(|r| (r.leg, r)).collect();
        for route in routes {
            match before.remove(&route.leg) {
                Some(was) => {
                    (route.packets, route.octets, route.bytes) = (was.packets, was.octets, was.bytes)
                }
                None => joined.push(at),
            }
        }
        for (target, was) in before {
            if let Some(target) = self.leg_mut(target) {
                target.counts.packets_out += u64::from(was.packets);
                target.counts.bytes_out += was.bytes;
            }
        }
    }

    /// Puts a selection's sources and targets; who speaks goes on speaking.
    fn select(&mut self, path: &Path, ends: Ends) -> u32 {
        let hold_ms = match path.parameters {
            Some(path::Parameters::Select(select)) => select.hold_ms,
            _ => 0,
        };
        let key = path.key();
        let at = match self.selected.get(&(key.context, key.path)) {
            Some(at) => *at,
            None => {
                let at = self.selections.insert(Selection::new(hold_ms)) as u32;
                self.selected.insert((key.context, key.path), at);
                at
            }
        };
        let Some(selection) = self.selections.get_mut(at as usize) else { return at };
        selection.hold(hold_ms);
        selection.talkers.retain(|t| ends.sources.contains(&t.leg));
        for leg in &ends.sources {
            if !selection.talkers.iter().any(|t| t.leg == *leg) {
                selection.talkers.push(Talker::new(*leg));
            }
        }
        selection.targets.clone_from(&ends.targets);
        selection.prune();
        let places: Vec<u32> = selection.talkers.iter().map(|t| t.leg).collect();
        for (place, leg) in places.into_iter().enumerate() {
            if let Some(row) = self.leg_mut(leg) {
                (row.led, row.terminates) = (true, true);
                row.selects.push((at, place as u32));
            }
        }
        for leg in ends.targets {
            if let Some(row) = self.leg_mut(leg) {
                row.terminates = true;
            }
        }
        at
    }

    fn forget_selections(&mut self, context: u64, kept: &[u32]) {
        let gone: Vec<(u64, u32)> = self
            .selected
            .range((context, 0)..=(context, u32::MAX))
            .filter(|(_, at)| !kept.contains(at))
            .map(|(key, _)| *key)
            .collect();
        for key in gone {
            if let Some(at) = self.selected.remove(&key)
                && self.selections.contains(at as usize)
            {
                self.selections.remove(at as usize);
            }
        }
    }

    /// The context is gone.
    pub(crate) fn forget_context(&mut self, context: u64) {
        self.forget_selections(context, &[]);
    }

    /// Who a selection lets speak, for tests and counters: the leg's id.
    #[cfg(test)]
    pub(crate) fn speaker(&self, key: contract::PathKey) -> Option<u64> {
        let at = self.selected.get(&(key.context, key.path))?;
        let leg = self.selections.get(*at as usize)?.current?;
        self.leg(leg).map(|row| row.key.leg)
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
