//! MSRP: sessions on connections, and messages on their way between them. Each leg is an endpoint of its own
//! session (CPM-FACTS §3.6, B2BUA): own path, own transactions; what passes is the body, chunk by chunk.

mod across;
mod answer;
mod arrive;
pub(crate) mod chunk;
mod conn;
mod flow;
mod held;
mod loss;
mod nickname;
mod passage;
mod passages;
pub(crate) mod relay;
mod row;
mod send;
mod spill;
mod spread;
mod table;
mod tap;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use base::{Entropy, Instant, Map, Timers, map};
use slab::Slab;

pub(crate) use across::{Far, FarTaps, Letter};
pub(crate) use conn::{Conn, Mark, Reading, Transaction, Wait};
pub(crate) use held::{Estate, Held};
pub(crate) use passage::{Copy, Holds, Passage, Stage as CopyStage};
pub(crate) use passages::tag;
pub(crate) use row::{Asked, Expect, Lead, Row, Stage};
pub(crate) use spill::{Disk, Spill};
pub use spill::{SpillId, SpillOrder, SpillWord};

use crate::modes::imdn::Memory;
use crate::modes::switch::Room;
use crate::{Config, ConnId, DialId, Limits};

/// Whether each URI of a path parses.
pub(crate) fn path_is_sound(path: &[String]) -> bool {
    path.iter().all(|uri| msrp::UriRef::parse(uri).is_ok_and(|u| u.session().is_some()))
}

/// A connection that came up.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) conn: ConnId,
    pub(crate) dial: Option<DialId>,
    pub(crate) tls: bool,
    pub(crate) fingerprint: Option<[u8; 32]>,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
}

/// Something is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Due {
    /// Of a connection: arrival, responses, congestion.
    Conn(ConnId),
    /// Of a leg: unfinished messages, reports, a nickname. With its serial.
    Leg(u32, u64),
    /// Of the relay: what expires.
    Relay,
}

/// The MSRP legs of one engine.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) rows: Slab<Row>,
    /// Rows by session id.
    pub(crate) sessions: Map<Arc<str>, u32>,
    /// Apart from the table, whose places are not all taken.
    pub(crate) conns: Map<ConnId, Box<Conn>>,
    pub(crate) dials: BTreeMap<DialId, u32>,
    pub(crate) rooms: Slab<Room>,
    /// Rooms by context and path.
    pub(crate) room_of: BTreeMap<(u64, u32), u32>,
    /// Rows by context.
    pub(crate) members: BTreeMap<u64, Vec<u32>>,
    /// What IMDNs passed, by context.
    pub(crate) imdns: BTreeMap<u64, Memory>,
    pub(crate) timers: Timers<Due>,
    /// Connections with something to send.
    pub(crate) ready: VecDeque<ConnId>,
    /// Legs whose connection has room for what waits for them.
    pub(crate) drains: VecDeque<u32>,
    /// What removed legs left, until the end of the batch.
    pub(crate) estates: Vec<Estate>,
    /// What is to be handed over to other shards.
    pub(crate) letters: VecDeque<(u16, Box<crate::Handed>)>,
    /// Rows of legs of other shards that speak to members here, by their shard and their serial there.
    pub(crate) guests: BTreeMap<(u16, u64), u32>,
    /// Guests that may have nothing more to say, or go on taking.
    pub(crate) partings: Vec<u32>,
    /// Receivers that are full of the piece that is spread just now.
    pub(crate) crowd: Vec<ConnId>,
    /// Connections whose input may go on.
    pub(crate) unblocked: VecDeque<ConnId>,
    pub(crate) relay: relay::Relay,
    /// What waits on disk for slow receivers.
    pub(crate) disk: Disk,
    pub(crate) entropy: Entropy,
    pub(crate) limits: Limits,
    pub(crate) cpm: cpm::Limits,
    pub(crate) framing: msrp::Limits,
    pub(crate) shard: u16,
    pub(crate) shards: u16,
    /// The wall clock of the last input, for captures.
    pub(crate) wall: base::UnixTime,
    /// Legs, passages, dials and questions are numbered from here.
    pub(crate) serial: u64,
}

impl Message {
    pub(crate) fn new(config: &Config, mut entropy: Entropy) -> Self {
        let limits = config.limits.clone();
        let seed = entropy.hash_seed();
        Message {
            rows: Slab::new(),
            sessions: map(seed),
            conns: map(seed),
            dials: BTreeMap::new(),
            rooms: Slab::new(),
            room_of: BTreeMap::new(),
            members: BTreeMap::new(),
            imdns: BTreeMap::new(),
            timers: Timers::with_max((limits.connections_max + limits.legs_max).saturating_mul(4)),
            ready: VecDeque::new(),
            drains: VecDeque::new(),
            estates: Vec::new(),
            letters: VecDeque::new(),
            guests: BTreeMap::new(),
            partings: Vec::new(),
            crowd: Vec::new(),
            unblocked: VecDeque::new(),
            relay: relay::Relay::new(config, seed),
            disk: Disk::default(),
            entropy,
            cpm: cpm::Limits { cpim_head_octets_max: limits.cpim_bytes_max, ..cpm::Limits::default() },
            framing: msrp::Limits { head_max: limits.head_bytes_max, ..msrp::Limits::default() },
            shard: config.shard,
            shards: config.shards,
            wall: base::UnixTime::default(),
            limits,
            serial: 0,
        }
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(crate) fn row(&self, leg: u32) -> Option<&Row> {
        self.rows.get(leg as usize)
    }

    pub(crate) fn row_mut(&mut self, leg: u32) -> Option<&mut Row> {
        self.rows.get_mut(leg as usize)
    }

    /// The connection of a leg.
    pub(crate) fn conn_of(&mut self, leg: u32) -> Option<&mut Conn> {
        let conn = self.row(leg)?.conn()?;
        self.conns.get_mut(&conn).map(|row| &mut **row)
    }

    /// Sets a connection's timer, unless an earlier one is set.
    pub(crate) fn arm(&mut self, conn: ConnId, at: Instant) {
        if let Some(row) = self.conns.get_mut(&conn)
            && row.armed.is_none_or(|set| at < set)
            && self.timers.set(at, Due::Conn(conn)).is_ok()
        {
            row.armed = Some(at);
        }
    }

    /// Sets a leg's sweep, unless an earlier one is set.
    pub(crate) fn sweep_at(&mut self, leg: u32, at: Instant) {
        if let Some(row) = self.rows.get_mut(leg as usize)
            && row.swept.is_none_or(|set| at < set)
            && self.timers.set(at, Due::Leg(leg, row.serial)).is_ok()
        {
            row.swept = Some(at);
        }
    }

    /// Lists a connection among those that have something to send.
    pub(crate) fn list(&mut self, conn: ConnId) {
        if let Some(row) = self.conns.get_mut(&conn)
            && !row.listed
        {
            row.listed = true;
            self.ready.push_back(conn);
        }
    }

    /// How full each table is, for whoever looks in from outside.
    pub(crate) fn tables(&self) -> Vec<(&'static str, usize)> {
        let rows = |size: fn(&Row) -> usize| self.rows.iter().map(|(_, row)| size(row)).sum();
        let conns = |size: fn(&Conn) -> usize| self.conns.values().map(|conn| size(conn)).sum();
        let mut tables = vec![
            ("legs", self.rows.len()),
            ("sessions", self.sessions.len()),
            ("connections", self.conns.len()),
            ("dials", self.dials.len()),
            ("rooms", self.rooms.len() + self.room_of.len()),
            ("contexts", self.members.len()),
            ("imdn memories", self.imdns.len()),
            ("estates", self.estates.len()),
            ("timers", self.timers.len()),
            ("messages", rows(|row| row.passages.iter().count())),
            ("held messages", rows(|row| row.held.len())),
            ("pieces held", rows(|row| row.held.iter().map(|held| held.pieces.len()).sum())),
            ("reports expected", rows(|row| row.expects.len())),
            ("questions", rows(|row| usize::from(row.asked.is_some()))),
            ("transactions", conns(|conn| conn.transactions.len())),
            ("octets", conns(Conn::load)),
            ("input held", conns(|conn| conn.held.iter().map(bytes::Bytes::len).sum())),
            ("guests", self.guests.len()),
            ("letters", self.letters.len()),
            ("sources blocked", conns(|conn| conn.blocks.len())),
        ];
        tables.extend(self.disk.sizes());
        tables
    }

    /// Octets that wait for connections, those that the driver has included.
    pub(crate) fn queued(&self) -> u64 {
        self.conns.values().filter(|row| !row.hidden).map(|row| row.load() as u64).sum()
    }

    /// Connections all of whose legs are unseen.
    pub(crate) fn hidden(&self) -> u64 {
        self.conns.values().filter(|row| row.hidden).count() as u64
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let is_idle = self.ready.is_empty()
            && self.unblocked.is_empty()
            && self.drains.is_empty()
            && self.letters.is_empty()
            && self.partings.is_empty()
            && self.disk.orders.is_empty()
            && !self.disk.freed;
        if is_idle && !self.relay.has_lost() { self.timers.next_timeout() } else { Some(Instant::ZERO) }
    }
}
