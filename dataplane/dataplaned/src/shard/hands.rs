//! What an engine wants done, done: everything of a shard but its engine.

use base::Map;
use contract::from_dataplane::Body;
use forward::{DtlsId, DtlsOrder, Handed, Output};
use netio::{Driver, Tls};

use super::attach::Attached;
use super::kernel::Below;
use crate::handshakes::ToHandshakes;
use crate::mail::{Act, Arrival, Outgoing, Remote, ToShard, ToSteward};
use crate::names::Names;
use crate::spool::{Keep, ToSpool};

/// Messages that may wait for another shard before the connection that causes them is held.
const LATE_MAX: usize = 256;
/// News that may wait for the steward before further ones are missed. (Answers are never missed.)
const NEWS_MAX: usize = 4096;

/// A connection's number tells its shard: the first 16 bits.
pub(crate) const SHARD_SHIFT: u32 = 48;

/// A connection of this shard.
#[derive(Debug)]
struct Held {
    arrival: Arrival,
    /// The shard that has its sessions, when it is not this one.
    home: Option<u16>,
    /// Its home (or our engine) wants no more of it for now.
    paused: bool,
    /// We want no more of it for now: its home is behind.
    full: bool,
}

/// Everything of a shard but its engine.
#[derive(Debug)]
pub(crate) struct Hands {
    pub(crate) index: u16,
    pub(crate) driver: Box<dyn Driver>,
    pub(crate) attached: Attached,
    /// The kernel's table, where it relays.
    pub(crate) below: Option<Below>,
    pub(crate) tls: Option<Tls>,
    pub(crate) steward: Outgoing<ToSteward, std::sync::Arc<mio::Waker>>,
    pub(crate) peers: Vec<Option<Outgoing<ToShard, netio::Wake>>>,
    pub(crate) keep: Keep,
    pub(crate) handshakes: Outgoing<ToHandshakes, ()>,
    pub(crate) names: Names,
    /// Connections of this shard's driver.
    conns: Map<u64, Held>,
    /// Whose answer an `Applied` or `Refusal` is.
    pub(crate) link: Option<u64>,
    /// The same when the batch is one of contexts on several shards.
    pub(crate) round: Option<u64>,
    /// The batch that is being applied was refused.
    pub(crate) refused: bool,
    /// Sends that wait in the driver and make a flush due.
    pub(crate) sends_max: usize,
    pub(crate) spool_missed: u64,
    pub(crate) news_missed: u64,
    pub(crate) handshakes_missed: u64,
}

/// What a [`Hands`] is made of.
pub(crate) struct Parts {
    pub(crate) index: u16,
    pub(crate) driver: Box<dyn Driver>,
    pub(crate) attached: Attached,
    pub(crate) below: Option<Below>,
    pub(crate) tls: Option<Tls>,
    pub(crate) steward: Outgoing<ToSteward, std::sync::Arc<mio::Waker>>,
    pub(crate) peers: Vec<Option<Outgoing<ToShard, netio::Wake>>>,
    pub(crate) keep: Keep,
    pub(crate) handshakes: Outgoing<ToHandshakes, ()>,
    pub(crate) names: Names,
    pub(crate) sends_max: usize,
    pub(crate) seed: base::HashSeed,
}

impl Hands {
    pub(crate) fn new(parts: Parts) -> Self {
        Hands {
            index: parts.index,
            driver: parts.driver,
            attached: parts.attached,
            below: parts.below,
            tls: parts.tls,
            steward: parts.steward,
            peers: parts.peers,
            keep: parts.keep,
            handshakes: parts.handshakes,
            names: parts.names,
            conns: base::map(parts.seed),
            link: None,
            round: None,
            refused: false,
            sends_max: parts.sends_max,
            spool_missed: 0,
            news_missed: 0,
            handshakes_missed: 0,
        }
    }

    /// Does one thing. `at` is the event of the driver's batch that the engine has just handled.
    pub(crate) fn perform(&mut self, at: usize, output: Output) {
        match output {
            Output::Forward { socket } => self.driver.forward(at, socket.0),
            Output::ForwardPatched { socket, head } => self.driver.forward_patched(at, socket.0, &head),
            Output::SendBytes { socket, bytes } => self.driver.send(socket.0, &bytes),
            // The shard takes these out: their octets are the engine's, and so is their loss.
            Output::SendHeld { .. } | Output::Hand { .. } => {}
            Output::Aim { socket, to, exclusive } => {
                if let Err(error) = self.driver.aim(socket.0, to, exclusive) {
                    tracing::warn!(%error, "a socket cannot be aimed");
                }
            }
            Output::Offload(flow) => {
                if let Some(below) = self.below.as_mut() {
                    below.put(&flow);
                }
            }
            Output::Recall { socket } => {
                if let Some(below) = self.below.as_mut() {
                    below.take(socket);
                }
            }
            Output::CloseSocket { socket } => self.attached.close(socket.0, &mut *self.driver),
            Output::Dial { dial, to, tls } => {
                let tls = if tls { self.tls.clone() } else { None };
                self.driver.dial(dial.0, to, tls);
            }
            Output::LookUp { dial, host, port } => self.names.ask(self.index, dial, host, port),
            Output::Write { conn, bytes } => self.act(conn.0, Act::Write(bytes)),
            Output::WriteAll { conn, pieces } => self.act(conn.0, Act::WriteAll(pieces)),
            Output::Pause { conn } => self.act(conn.0, Act::Pause),
            Output::Resume { conn } => self.act(conn.0, Act::Resume),
            Output::Shut { conn, abort } => self.act(conn.0, Act::Shut { abort }),
            Output::HandOver { conn, shard, bytes } => self.hand_over(conn.0, shard, bytes),
            Output::Answer(answer) => self.answer(answer.body),
            Output::Dtls { id, order } => self.handshake(id, order),
            Output::Spool(packet) => {
                self.spool_missed += u64::from(!self.keep.packet(packet));
            }
            Output::Spill(order) => self.keep.order(ToSpool::Spill { shard: self.index, order }),
        }
        self.flush_sends();
    }

    fn handshake(&mut self, id: DtlsId, order: DtlsOrder) {
        // What a peer sends is lost where there is no room, as on its way; what the engine says is not.
        if self.handshakes.late() > 0 && matches!(order, DtlsOrder::Datagram { .. }) {
            self.handshakes_missed += 1;
            return;
        }
        self.handshakes.send(ToHandshakes::Order { shard: self.index, id, order });
    }

    /// Sends a datagram.
    pub(crate) fn send(&mut self, socket: u32, bytes: &[u8]) {
        self.driver.send(socket, bytes);
        self.flush_sends();
    }

    fn flush_sends(&mut self) {
        if self.driver.queued() >= self.sends_max {
            // An error here comes again at the next poll, where it ends the shard.
            let _ = self.driver.flush();
        }
    }

    /// Hands something over to another shard; false when there is no room.
    pub(crate) fn hand(&mut self, shard: u16, handed: Box<Handed>) -> bool {
        let Some(Some(peer)) = self.peers.get_mut(usize::from(shard)) else { return false };
        if handed.must_arrive() {
            peer.send(ToShard::Handed(handed));
            return true;
        }
        peer.offer(ToShard::Handed(handed))
    }

    /// Says something to control: an answer, or news.
    pub(crate) fn answer(&mut self, body: Option<Body>) {
        let Some(body) = body else { return };
        let link = match &body {
            Body::News(_) => {
                if self.steward.late() >= NEWS_MAX {
                    self.news_missed += 1;
                    return;
                }
                None
            }
            Body::Refusal(_) => {
                self.refused = true;
                self.link
            }
            _ => self.link,
        };
        let is_answer = matches!(body, Body::Applied(_) | Body::Refusal(_));
        let message = match self.round.filter(|_| is_answer) {
            Some(round) => ToSteward::Decided { round, body },
            None => ToSteward::Say { link, body },
        };
        self.steward.send(message);
    }

    /// Does something with a connection, here or through the shard that has it.
    pub(crate) fn act(&mut self, conn: u64, what: Act) {
        let owner = (conn >> SHARD_SHIFT) as u16;
        if owner != self.index {
            if let Some(Some(peer)) = self.peers.get_mut(usize::from(owner)) {
                peer.send(ToShard::Act { conn, what });
            }
            return;
        }
        let Some(held) = self.conns.get_mut(&conn) else { return };
        match what {
            Act::Write(bytes) => self.driver.write(conn, bytes),
            Act::WriteAll(pieces) => self.driver.write_all(conn, pieces),
            Act::Pause => {
                held.paused = true;
                self.driver.pause(conn);
            }
            Act::Resume => {
                held.paused = false;
                if !held.full {
                    self.driver.resume(conn);
                }
            }
            Act::Shut { abort } => {
                self.conns.remove(&conn);
                self.driver.shut(conn, abort);
            }
        }
    }

    /// A connection is up.
    pub(crate) fn arrived(&mut self, conn: u64, arrival: Arrival) {
        self.conns.insert(conn, Held { arrival, home: None, paused: false, full: false });
    }

    /// Passes on what happened on a connection whose home is elsewhere; gives it back when its home is here.
    pub(crate) fn elsewhere(&mut self, conn: u64, what: Remote) -> Option<Remote> {
        let Some(held) = self.conns.get_mut(&conn) else { return Some(what) };
        let home = held.home;
        let over = matches!(what, Remote::Closed(_));
        let what = match home.and_then(|home| self.peers.get_mut(usize::from(home))) {
            Some(Some(peer)) => {
                peer.send(ToShard::Remote { conn, what });
                if peer.late() > LATE_MAX && !held.full {
                    held.full = true;
                    self.driver.pause(conn);
                }
                None
            }
            _ => Some(what),
        };
        if over {
            self.conns.remove(&conn);
        }
        what
    }

    fn hand_over(&mut self, conn: u64, shard: u16, bytes: bytes::Bytes) {
        let known = self.conns.get_mut(&conn);
        let peer = self.peers.get_mut(usize::from(shard));
        let (Some(held), Some(Some(peer))) = (known, peer) else {
            return self.act(conn, Act::Shut { abort: true });
        };
        held.home = Some(shard);
        peer.send(ToShard::Adopt { conn, arrival: held.arrival, bytes });
    }

    /// At the end of each turn: mail leaves, and connections that were held for want of room go on.
    pub(crate) fn flush_mail(&mut self) {
        self.keep.flush();
        self.steward.flush();
        self.handshakes.flush();
        self.peers.iter_mut().flatten().for_each(Outgoing::flush);
    }

    /// Lets connections go on whose home has caught up. At a tick: this is rare.
    pub(crate) fn release(&mut self) {
        for (conn, held) in &mut self.conns {
            let Some(home) = held.home.filter(|_| held.full) else { continue };
            let Some(Some(peer)) = self.peers.get(usize::from(home)) else { continue };
            if peer.late() == 0 {
                held.full = false;
                if !held.paused {
                    self.driver.resume(*conn);
                }
            }
        }
    }

    /// True while something waits that did not fit into another's mailbox.
    pub(crate) fn has_late_mail(&self) -> bool {
        self.steward.late() > 0
            || self.keep.is_late()
            || self.handshakes.late() > 0
            || self.peers.iter().flatten().any(|peer| peer.late() > 0)
    }
}
