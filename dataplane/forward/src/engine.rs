//! The engine: one `handle`, one `timeout`, the tables behind them.

use std::collections::BTreeMap;

use base::{Entropy, Instant, Now, Outbox};
use contract::{Audited, Counters, from_dataplane::Body};

use crate::few::Few;
use crate::media::{Media, Tx};
use crate::message::Message;
use crate::wanted::Wanted;
use crate::{Config, Drop, Input, Listener, Output, SocketId, Totals};

/// Where a leg's row is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Seat {
    Rtp(u32),
    Msrp(u32),
}

/// One call or conference.
#[derive(Debug, Default)]
pub(crate) struct Context {
    pub(crate) wanted: Wanted,
    /// Rows by leg id.
    pub(crate) seats: Few<u64, Seat>,
    pub(crate) captured: bool,
    /// The shard where it is at home; `None`: here.
    pub(crate) home: Option<u16>,
    /// Legs that are not on the home shard, and where they are.
    pub(crate) places: BTreeMap<u64, u16>,
    /// Where it is spread.
    pub(crate) heirs: crate::outposts::Heirs,
}

/// The forwarding engine of one shard.
#[derive(Debug)]
pub struct Engine {
    pub(crate) config: Config,
    pub(crate) entropy: Entropy,
    pub(crate) totals: Totals,
    pub(crate) contexts: BTreeMap<u64, Context>,
    pub(crate) media: Media,
    pub(crate) message: Message,
    pub(crate) epoch: u64,
    pub(crate) generation: u64,
    /// What the last generation was answered.
    pub(crate) answer: Option<Body>,
    pub(crate) draining: bool,
    /// The MSRP listeners of each shard.
    pub(crate) listeners: Vec<(Listener, Option<Listener>)>,
}

impl Engine {
    /// An engine with empty tables.
    pub fn new(config: Config, mut entropy: Entropy) -> Self {
        let media = Media::new(config.shard, &config.limits, entropy.child());
        let message = Message::new(&config, entropy.child());
        Engine {
            config,
            entropy,
            totals: Totals::default(),
            contexts: BTreeMap::new(),
            media,
            message,
            epoch: 0,
            generation: 0,
            answer: None,
            draining: false,
            listeners: Vec::new(),
        }
    }

    /// Where legs of this data plane are, on any shard.
    pub fn set_own_media(&mut self, own: std::sync::Arc<crate::OwnMedia>) {
        self.media.own = Some(own);
    }

    /// Whether a socket is a leg's.
    pub fn has_socket(&self, socket: crate::SocketId) -> bool {
        self.media.binding(socket).is_some()
    }

    /// Where the shards listen for MSRP, over TCP and over TLS, in their order: legs on another one are told its address.
    pub fn set_listeners(&mut self, listeners: Vec<(Listener, Option<Listener>)>) {
        self.listeners = listeners;
    }

    /// Whether a session id is that of another leg here than this one.
    pub fn is_session_taken(&self, session: &str, by: contract::LegKey) -> bool {
        self.message.session_taken(session, by)
    }

    /// The room that the outbox must have before an input is handed in: what one datagram, one piece of a stream or
    /// one batch can cause at most. (A batch touches each of its legs' sockets.)
    pub fn room_needed(&self) -> usize {
        let limits = &self.config.limits;
        limits.targets_max * 2
            + limits.batch_changes_max.min(limits.legs_max) * 4
            + usize::from(self.config.shards)
            + 64
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Now, input: Input<'_>, out: &mut Outbox<Output>) {
        self.message.wall = now.wall;
        let mut tx = Tx { out, totals: &mut self.totals };
        match input {
            Input::Datagram { socket, from, bytes } => self.media.datagram(now, socket, from, bytes, &mut tx),
            Input::Unreachable { .. } => self.totals.unreachable += 1,
            Input::Opened { conn, dial, tls, fingerprint, peer, local } => {
                let opened = crate::message::Opened { conn, dial, tls, fingerprint, peer, local };
                self.message.opened(now, opened, &mut tx);
            }
            Input::DialFailed { dial, why } => self.message.dial_failed(now, dial, why, &mut tx),
            Input::LookedUp { dial, found } => self.message.looked_up(now, dial, found, &mut tx),
            Input::Received { conn, bytes } => self.message.received(now, conn, bytes, &mut tx),
            Input::Sent { conn, bytes } => self.message.sent(now, conn, bytes, &mut tx),
            Input::Closed { conn, why } => self.message.closed(now, conn, why, &mut tx),
            Input::Batch { batch, attachments } => self.batch(now, batch, (attachments, &[]), out),
            Input::SpreadBatch { batch, attachments, elsewhere } => {
                self.batch(now, batch, (attachments, elsewhere), out)
            }
            Input::Follow { standing, attachments } => self.follow(now, standing, attachments, out),
            Input::Handed(handed) => self.handed(now, handed, out),
            Input::Dtls { id, word } => self.media.dtls_word(id, word, &mut tx),
            Input::Decide(decide) => self.message.decide(now, decide, &mut tx),
            Input::Capture { context, leg: None, on } => self.capture(context, on),
            Input::Capture { context, leg: Some(leg), on } => self.record(context, leg, on),
            // A host that is to be emptied settles nothing new.
            Input::Settle if self.draining => {}
            Input::Settle => self.media.settle_flows(now, &mut tx),
            Input::Offloaded { socket, carried, over } => {
                self.media.carried(now, socket, carried, over, &mut tx);
            }
            Input::Spilled(word) => self.message.spilled(now, word, &mut tx),
            Input::Drain(on) => self.draining = on,
        }
        if let Some(context) = self.media.dirty.take() {
            self.flatten(now, context, out);
        }
    }

    /// Does what is due.
    pub fn timeout(&mut self, now: Now, out: &mut Outbox<Output>) {
        let mut tx = Tx { out, totals: &mut self.totals };
        self.media.timeout(now, &mut tx);
        self.message.timeout(now, &mut tx);
        self.flush(out);
    }

    /// When [`Engine::timeout`] is due next; in the past when [`Engine::flush`] has something.
    pub fn next_timeout(&self) -> Option<Instant> {
        [self.media.next_timeout(), self.message.next_timeout()].into_iter().flatten().min()
    }

    /// Puts out what waits for connections, as far as the outbox has room and the connections have credit; call it
    /// at the end of each batch of inputs. True: there is more, call again after performing.
    pub fn flush(&mut self, out: &mut Outbox<Output>) -> bool {
        self.message.flush(&mut Tx { out, totals: &mut self.totals })
    }

    fn capture(&mut self, id: u64, on: bool) {
        let Some(context) = self.contexts.get_mut(&id) else { return };
        context.captured = on;
        for seat in context.seats.values() {
            match seat {
                Seat::Rtp(at) => self.media.capture(std::iter::once(*at), on),
                Seat::Msrp(at) => self.message.capture(*at, on),
            }
        }
    }

    fn record(&mut self, id: u64, leg: u64, on: bool) {
        let seat = self.contexts.get(&id).and_then(|context| context.seats.get(&leg));
        if let Some(Seat::Rtp(at)) = seat.filter(|_| self.is_recordable(id, leg)) {
            self.media.record(*at, on);
        }
    }

    /// The sockets of flows that are offloaded and belong to these contexts (`None`: to any). The driver takes them back, and
    /// says so by [`Input::Offloaded`], before it hands in what changes the contexts.
    pub fn offloaded(&self, contexts: Option<&[u64]>) -> Vec<SocketId> {
        let mut sockets = Vec::new();
        if self.totals.flows_offloaded == 0 {
            return sockets;
        }
        let rows = |context: &Context| {
            let rows = context
                .seats
                .values()
                .filter_map(|seat| if let Seat::Rtp(at) = seat { Some(*at) } else { None });
            rows.collect::<Vec<u32>>()
        };
        match contexts {
            None => {
                self.contexts.values().for_each(|c| self.media.offloaded(rows(c).into_iter(), &mut sockets))
            }
            Some(ids) => ids
                .iter()
                .filter_map(|id| self.contexts.get(id))
                .for_each(|c| self.media.offloaded(rows(c).into_iter(), &mut sockets)),
        }
        sockets
    }

    /// Whether a leg is up whose packets can be recorded.
    pub fn is_recordable(&self, context: u64, leg: u64) -> bool {
        let seat = self.contexts.get(&context).and_then(|context| context.seats.get(&leg));
        matches!(seat, Some(Seat::Rtp(at)) if !self.media.is_away(*at))
    }

    /// A part of the state, in the order of context ids, starting after the context `after`; `None` at the end.
    /// Whole contexts, at least one; of those that are at home elsewhere (see [`Engine::is_outpost`]) only the legs that are
    /// here. The caller fills in `id` and `more`.
    pub fn audit(&self, after: Option<u64>) -> Option<Audited> {
        /// Nouns in one part, so that its frame stays small.
        const PART_MAX: usize = 512;
        let mut part = Audited { generation: self.generation, ..Audited::default() };
        for (id, context) in self.contexts_after(after) {
            let nouns = part.contexts.len() + part.legs.len() + part.paths.len();
            if nouns > 0 && nouns + context.wanted.legs.len() > PART_MAX {
                break;
            }
            part.contexts.push(contract::Context { id: *id });
            let here = |id: u64| context.place_of(id, self.config.shard).is_none();
            for leg in context.wanted.legs.values().filter(|leg| here(leg.id)) {
                let mut leg = contract::Leg::clone(leg);
                if let (Some(contract::leg::Kind::Rtp(rtp)), Some(Seat::Rtp(at))) =
                    (&mut leg.kind, context.seats.get(&leg.id))
                {
                    rtp.continuity = Some(Box::new(self.media.continuity(*at)));
                }
                part.placements.extend(self.placement(leg.key()));
                part.legs.push(leg);
            }
            let paths = context.wanted.paths.values().filter(|_| context.home.is_none());
            part.paths.extend(paths.map(|p| contract::Path::clone(p)));
        }
        (!part.contexts.is_empty()).then_some(part)
    }

    /// Counters of the legs (those not hidden) of one context after `after`, and which it is.
    pub fn counters(&self, now: Now, after: Option<u64>) -> Option<(u64, Counters)> {
        let (id, context) = self.contexts_after(after).next()?;
        let rtp: Vec<u32> = context
            .seats
            .values()
            .filter_map(|s| if let Seat::Rtp(at) = s { Some(*at) } else { None })
            .collect();
        let msrp =
            context.seats.values().filter_map(|s| if let Seat::Msrp(at) = s { Some(*at) } else { None });
        let mut legs = self.media.counters(now, &rtp, |_| true);
        legs.extend(msrp.filter_map(|at| self.message.counters(now, at)));
        Some((*id, Counters { legs }))
    }

    /// Legs whose peer may send, has had ten seconds to, and has been silent for as long.
    pub fn legs_silent(&self, now: Now) -> u64 {
        self.media.silent(now.mono)
    }

    fn contexts_after(&self, after: Option<u64>) -> impl Iterator<Item = (&u64, &Context)> {
        let from = match after {
            Some(after) => std::ops::Bound::Excluded(after),
            None => std::ops::Bound::Unbounded,
        };
        self.contexts.range((from, std::ops::Bound::Unbounded))
    }

    /// What an [`Output::SendHeld`] of the last input names; gone with the next datagram.
    pub fn held(&self, at: u32, length: u32) -> &[u8] {
        self.media.held.get(at, length)
    }

    /// The last generation that was applied; 0 if none.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How full the MSRP tables are, by name: what is at rest holds no messages, what is over holds nothing.
    pub fn msrp_tables(&self) -> Vec<(&'static str, usize)> {
        self.message.tables()
    }

    /// The sums.
    pub fn totals(&self) -> Totals {
        let mut totals = self.totals;
        totals.queued_bytes = self.message.queued();
        (totals.spill_bytes, totals.spill_files, totals.spilled_bytes) = self.message.on_disk();
        totals.connections = totals.connections.saturating_sub(self.message.hidden());
        totals
    }

    /// How often something was dropped for a reason.
    pub fn dropped(&self, why: Drop) -> u64 {
        self.totals.dropped(why)
    }
}
