//! MSRP legs put and removed, rooms made, at control rate.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::Now;
use contract::{Direction, Mode, Setup, path::Parameters};
use cpm::UserId;

use super::row::{Beyond, Lead, Row, Stage};
use super::{FarTaps, Message};
use crate::media::Tx;
use crate::modes::imdn::Memory;
use crate::modes::switch::{Away, Room, by_shard};
use crate::outposts::Heirs;
use crate::wanted::{Wanted, resolve};
use crate::{DialId, Output};

impl Message {
    /// Puts a leg that was checked.
    pub(crate) fn put(
        &mut self,
        now: Now,
        leg: &contract::Leg,
        msrp: &contract::MsrpLeg,
        seat: Option<u32>,
        tx: &mut Tx<'_>,
    ) -> u32 {
        let at = seat.unwrap_or_else(|| self.insert(now, leg, msrp));
        let Some(row) = self.row_mut(at) else { return at };
        let direction = leg.direction();
        row.may_send = matches!(direction, Direction::Sendrecv | Direction::Sendonly);
        row.may_receive = matches!(direction, Direction::Sendrecv | Direction::Recvonly);
        row.unseen = leg.unseen;
        row.muted = msrp.muted;
        row.active = msrp.setup() == Setup::Active;
        row.tls = msrp.tls;
        row.fingerprint = <[u8; 32]>::try_from(msrp.fingerprint.as_slice()).ok().map(Box::new);
        row.participant.clone_from(&leg.participant);
        // Most have one: no room for the four that a vector would begin with.
        row.addresses = msrp.addresses.clone();
        row.users = Vec::with_capacity(msrp.addresses.len());
        row.users.extend(msrp.addresses.iter().filter_map(|a| UserId::parse(a).ok()));
        row.accept = msrp.accept_types.iter().chain(&msrp.accept_wrapped_types).cloned().collect();
        row.max_size = msrp.max_size;
        row.private = msrp.private_messages;
        row.nickname.clone_from(&msrp.nickname);
        let peer = msrp.remote_path.join(" ");
        // As long as control does not know it, the path is what the peer itself said when it bound.
        let peer = if peer.is_empty() { row.peer.clone() } else { peer };
        let moved = !row.peer.is_empty() && row.peer != peer;
        let connect = msrp.connect.as_ref().filter(|_| row.active).and_then(contract::Address::socket);
        let connect = connect.or_else(|| host_of(&msrp.remote_path).filter(|_| row.active));
        row.connect = connect.map(Box::new);
        if moved {
            // A new path is a new session (RFC 4975 §5.4).
            let conn = self.conn_id(at);
            self.unbind(now, at, tx);
            if let Some(row) = self.row_mut(at) {
                row.stage = Stage::New;
            }
            if let Some(conn) = conn {
                self.shut_if_unused(now, conn, tx);
            }
        }
        if let Some(row) = self.row_mut(at) {
            row.joined |= !peer.is_empty() || msrp.away;
            row.peer = peer;
        }
        if seat.is_none() {
            self.inherit(at, &leg.participant, tx);
        }
        self.start(now, at, tx);
        at
    }

    /// The peer became known: connect, or wait for its connection.
    fn start(&mut self, now: Now, at: u32, tx: &mut Tx<'_>) {
        let until = now.mono + Duration::from_millis(self.limits.arrival_ms);
        let number = self.number();
        let Some(row) = self.row_mut(at).filter(|r| r.stage == Stage::New && !r.peer.is_empty()) else {
            return;
        };
        if !row.active {
            row.stage = Stage::Listening(until);
            self.sweep_at(at, until);
        } else if let Some(to) = row.connect.as_deref().copied() {
            row.stage = Stage::Dialing;
            let tls = row.tls;
            self.dials.insert(DialId(number), at);
            tx.push(Output::Dial { dial: DialId(number), to, tls });
        }
    }

    fn insert(&mut self, now: Now, leg: &contract::Leg, msrp: &contract::MsrpLeg) -> u32 {
        let local = msrp.local.clone().unwrap_or_default();
        let mut row = Row::new(leg.key(), self.number(), now.mono);
        row.unseen = leg.unseen;
        row.session = local.session.into();
        let session = Arc::clone(&row.session);
        row.own = local.path;
        let at = self.rows.insert(row) as u32;
        self.sessions.insert(session, at);
        at
    }

    /// Removes a leg: its messages are aborted, those to it failed, its connection closed when it was the last.
    pub(crate) fn remove(&mut self, now: Now, at: u32, tx: &mut Tx<'_>) {
        let conn = self.conn_id(at);
        self.unbind(now, at, tx);
        if let Some(conn) = conn {
            self.shut_if_unused(now, conn, tx);
        }
        self.dials.retain(|_, leg| *leg != at);
        if self.rows.contains(at as usize) {
            let mut row = self.rows.remove(at as usize);
            self.bequeath(at, &mut row);
            self.sessions.remove(&row.session);
            if let Some(members) = self.members.get_mut(&row.key.context) {
                members.retain(|m| *m != at);
            }
        }
    }

    /// Makes the leads of a context's legs anew.
    pub(crate) fn flatten(
        &mut self,
        now: Now,
        context: u64,
        (legs, away, heirs): (&BTreeMap<u64, u32>, &BTreeMap<u64, Away>, &Heirs),
        wanted: &Wanted,
        tx: &mut Tx<'_>,
    ) {
        if legs.is_empty() && !self.members.contains_key(&context) {
            return;
        }
        let members = legs.values().copied().chain(self.guests_of(context)).collect();
        self.members.insert(context, members);
        for (leg, at) in legs {
            if let Some(row) = self.row_mut(*at) {
                row.lead = Lead::Nowhere;
                row.taps.clear();
                row.is_tap = false;
                row.imdn_once = 0;
                let formerly = heirs.of(*leg);
                let beyond = || Box::new(Beyond { formerly: formerly.to_vec(), far_taps: Vec::new() });
                row.beyond = (!formerly.is_empty()).then(beyond);
            }
        }
        let mut rooms = Vec::new();
        for path in wanted.paths.values() {
            let rows = |set: &BTreeSet<u64>| -> Vec<u32> {
                set.iter().filter_map(|id| legs.get(id).copied()).collect()
            };
            let receivers = resolve(path.targets.as_ref(), wanted);
            let (sources, targets) = (rows(&resolve(path.sources.as_ref(), wanted)), rows(&receivers));
            match (path.mode(), &path.parameters) {
                (Mode::Switch, Some(Parameters::Switch(switch))) => {
                    let away = receivers.iter().filter_map(|id| away.get(id).cloned()).collect();
                    rooms.push(self.make_room(path.key(), switch, sources, (targets, away)));
                }
                (Mode::Relay | Mode::Distribute, parameters) => {
                    let once = matches!(parameters, Some(Parameters::Distribute(d)) if d.imdn_once);
                    self.lead_through(&sources, &targets, once, path.mode() == Mode::Relay);
                }
                (Mode::Tap, _) => {
                    self.put_taps(&sources, &targets);
                    let away: Vec<&Away> = receivers.iter().filter_map(|id| away.get(id)).collect();
                    self.put_far_taps(&sources, &away);
                }
                _ => {}
            }
        }
        self.forget_rooms(context, &rooms);
        if wanted.paths.is_empty() && legs.is_empty() {
            self.members.remove(&context);
        }
        self.wake(context);
        self.work(now, tx);
    }

    fn lead_through(&mut self, sources: &[u32], targets: &[u32], once: bool, each: bool) {
        for source in sources {
            let Some(row) = self.row_mut(*source) else { continue };
            let serial = row.serial;
            row.imdn_once = row.imdn_once.max(if once { sources.len() } else { 0 });
            row.imdn_each = once && each;
            let mut to = if let Lead::Pass(to) = std::mem::take(&mut row.lead) { to } else { Vec::new() };
            for target in targets.iter().filter(|t| *t != source) {
                if !to.contains(target) {
                    to.push(*target);
                }
            }
            // RFC 4975 §7.1: a Message-ID is not repeated in a session, which to each target is ours. Two senders know
            // nothing of each other: only one's stay as they are, for as long as the target's session lasts.
            let mut renames = false;
            for target in &to {
                let target = self.rows.get_mut(*target as usize);
                renames |= target.is_some_and(|target| *target.ids_of.get_or_insert(serial) != serial);
            }
            if let Some(row) = self.row_mut(*source) {
                row.renames |= renames;
                row.lead = Lead::Pass(to);
            }
        }
    }

    fn put_taps(&mut self, sources: &[u32], taps: &[u32]) {
        for source in sources {
            let Some(row) = self.row_mut(*source) else { continue };
            for tap in taps {
                if tap != source && !row.taps.contains(tap) {
                    row.taps.push(*tap);
                }
            }
        }
        for tap in taps {
            if let Some(row) = self.row_mut(*tap) {
                row.is_tap = true;
            }
        }
    }

    /// The same for taps on other shards.
    fn put_far_taps(&mut self, sources: &[u32], taps: &[&Away]) {
        let shards = by_shard(taps.iter().copied());
        let unseen = |shard: u16| taps.iter().filter(|tap| tap.shard == shard).all(|tap| tap.leg.unseen);
        for source in sources {
            let Some(row) = self.row_mut(*source).filter(|_| !shards.is_empty()) else { continue };
            let far_taps = &mut row.beyond.get_or_insert_default().far_taps;
            for (shard, legs) in &shards {
                let (shard, unseen) = (*shard, unseen(*shard));
                match far_taps.iter_mut().find(|taps| taps.shard == shard) {
                    // Another path's.
                    Some(taps) => {
                        let both: BTreeSet<u64> = taps.legs.iter().chain(legs.iter()).copied().collect();
                        (taps.legs, taps.unseen) = (both.into_iter().collect(), taps.unseen && unseen);
                    }
                    None => far_taps.push(FarTaps { shard, legs: legs.clone(), unseen }),
                }
            }
        }
    }

    fn make_room(
        &mut self,
        key: contract::PathKey,
        switch: &contract::Switch,
        sources: Vec<u32>,
        (targets, away): (Vec<u32>, Vec<Away>),
    ) -> u32 {
        let at = match self.room_of.get(&(key.context, key.path)) {
            Some(at) => *at,
            None => {
                let at = self.rooms.insert(Room::default()) as u32;
                self.room_of.insert((key.context, key.path), at);
                at
            }
        };
        if let Some(room) = self.rooms.get_mut(at as usize) {
            room.set(switch, targets, away);
        }
        for source in sources {
            if let Some(row) = self.row_mut(source) {
                row.lead = Lead::Room(at);
            }
        }
        at
    }

    fn forget_rooms(&mut self, context: u64, kept: &[u32]) {
        let range = (context, 0)..=(context, u32::MAX);
        let gone: Vec<_> =
            self.room_of.range(range).filter(|(_, at)| !kept.contains(at)).map(|(k, _)| *k).collect();
        for key in gone {
            if let Some(at) = self.room_of.remove(&key)
                && self.rooms.contains(at as usize)
            {
                self.rooms.remove(at as usize);
            }
        }
    }

    pub(crate) fn forget_context(&mut self, context: u64) {
        self.forget_rooms(context, &[]);
        self.members.remove(&context);
        self.imdns.remove(&context);
    }

    /// What the IMDNs of a context said so far.
    pub(crate) fn memory(&mut self, context: u64) -> &mut Memory {
        let max = self.limits.imdn_keys_max;
        self.imdns.entry(context).or_insert_with(|| Memory::with_max(max))
    }

    pub(crate) fn session_taken(&self, session: &str, by: contract::LegKey) -> bool {
        self.sessions.get(session).and_then(|at| self.row(*at)).is_some_and(|row| row.key != by)
    }

    pub(crate) fn capture(&mut self, at: u32, on: bool) {
        if let Some(row) = self.row_mut(at) {
            row.captured = on;
        }
        if let Some(conn) = self.conn_of(at) {
            conn.captured = on;
        }
    }

    pub(crate) fn counters(&self, now: Now, at: u32) -> Option<contract::LegCounters> {
        let row = self.row(at).filter(|row| !row.unseen)?;
        Some(contract::LegCounters {
            leg: Some(row.key),
            packets_in: row.counts.messages_in,
            packets_out: row.counts.messages_out,
            bytes_in: row.counts.bytes_in,
            bytes_out: row.counts.bytes_out,
            dropped: row.counts.dropped,
            idle_ms: now.mono.since(row.last_at).as_millis() as u64,
            ..contract::LegCounters::default()
        })
    }
}

/// The address of the first hop, when its URI holds a literal one.
fn host_of(path: &[String]) -> Option<SocketAddr> {
    let uri = msrp::UriRef::parse(path.first()?).ok()?;
    Some(SocketAddr::new(uri.ip()?, uri.port()?))
}
