//! Flows of this shard that the kernel relays (`netio::kernel`): put there when the engine offers them, looked at at each tick,
//! taken back when it says so and before anything reaches it that changes their context.

use std::sync::Arc;

use base::Now;
use contract::Batch;
use forward::{Carried, Input, Settled, SocketId};
use netio::kernel::{Flow, FlowKey, KernelRelay, Seen};

use super::Shard;

/// Flows that are read in one turn: packets wait meanwhile, half a microsecond for each.
const READ_TURN: usize = 64;

/// What was learned of a flow and is to be told to the engine.
type Told = (SocketId, Option<Carried>, bool);

/// The kernel's table, as one shard uses it.
#[derive(Debug)]
pub(crate) struct Below {
    relay: Arc<KernelRelay>,
    dscp: u8,
    /// By socket.
    flows: Vec<Option<Known>>,
    /// The socket at which the present round of reading goes on.
    reading: Option<usize>,
    told: Vec<Told>,
    /// Flows that the kernel would not take.
    pub(crate) refused: u64,
}

/// A flow of ours in the table, and the sequence number of the engine's that it began with.
#[derive(Clone, Copy, Debug)]
struct Known {
    key: FlowKey,
    base: u32,
}

impl Below {
    pub(crate) fn new(relay: Arc<KernelRelay>, dscp: u8) -> Self {
        Below { relay, dscp, flows: Vec::new(), reading: None, told: Vec::new(), refused: 0 }
    }

    /// Puts a flow; says so at once when that cannot be.
    pub(crate) fn put(&mut self, settled: &Settled) {
        let socket = settled.socket;
        if let Some(known) = self.try_put(settled) {
            let index = socket.0 as usize;
            if self.flows.len() <= index {
                self.flows.resize(index + 1, None);
            }
            if let Some(place) = self.flows.get_mut(index) {
                *place = Some(known);
            }
        } else {
            self.refused += 1;
            self.told.push((socket, None, true));
        }
    }

    fn try_put(&self, settled: &Settled) -> Option<Known> {
        let key = FlowKey { from: settled.from, to: settled.at };
        let received = settled.received;
        let flow = Flow {
            key,
            by: settled.by,
            to: settled.to,
            ssrc: settled.ssrc,
            payloads: settled.payloads,
            clock: settled.clock,
            dscp: self.dscp,
            seen: Seen {
                highest: received.highest,
                before: received.seen,
                jitter: received.jitter,
                ..Seen::default()
            },
        };
        match self.relay.put(&flow) {
            Ok(true) => Some(Known { key, base: received.base }),
            Ok(false) => None,
            Err(error) => {
                tracing::debug!(%error, "the kernel takes no further flow");
                None
            }
        }
    }

    /// Takes a flow back; its last counts are told.
    pub(crate) fn take(&mut self, socket: SocketId) {
        let known = self.flows.get_mut(socket.0 as usize).and_then(Option::take);
        let taken = known.and_then(|known| match self.relay.take(known.key) {
            Ok(taken) => taken.map(|taken| carried(taken, known.base)),
            Err(error) => {
                tracing::warn!(%error, "a flow cannot be taken back");
                None
            }
        });
        self.told.push((socket, taken, true));
    }

    /// A tick: all flows are read, some in a turn.
    pub(crate) fn tick(&mut self) {
        self.reading.get_or_insert(0);
    }

    /// Whether some are still to be read.
    pub(crate) const fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    fn read(&mut self) {
        let Some(from) = self.reading else { return };
        let mut read = 0;
        let mut at = from;
        while read < READ_TURN {
            let Some(place) = self.flows.get(at) else {
                self.reading = None;
                return;
            };
            if let Some(known) = *place {
                read += 1;
                let socket = SocketId(at as u32);
                match self.relay.read(known.key) {
                    Ok(Some(seen)) => self.told.push((socket, Some(carried(seen, known.base)), false)),
                    // Who cannot be counted is not relayed there.
                    Ok(None) | Err(_) => self.take(socket),
                }
            }
            at += 1;
        }
        self.reading = Some(at);
    }
}

impl Drop for Below {
    /// The shard ends; the other ones' flows stay until they do.
    fn drop(&mut self) {
        for known in self.flows.iter().flatten() {
            let _ = self.relay.take(known.key);
        }
    }
}

fn carried(seen: netio::kernel::Carried, base: u32) -> Carried {
    Carried {
        packets: seen.packets,
        octets: seen.octets,
        idle: seen.idle,
        timestamp: seen.timestamp,
        received: rtp::Received {
            base,
            highest: seen.seen.highest,
            seen: seen.seen.before,
            jitter: seen.seen.jitter,
            reordered: seen.seen.reordered,
            duplicates: seen.seen.duplicates,
        },
    }
}

/// The contexts that a batch names.
fn contexts(batch: &Batch) -> Vec<u64> {
    let mut contexts: Vec<u64> = batch.changes.iter().filter_map(contract::Change::context).collect();
    contexts.sort_unstable();
    contexts.dedup();
    contexts
}

impl Shard {
    /// Before a batch is handed to the engine: from here on it sees each packet of the contexts that the batch names.
    pub(super) fn take_back_for(&mut self, batch: &Batch, now: Now) {
        if self.hands.below.is_some() {
            self.take_back(Some(&contexts(batch)), now);
        }
    }

    /// Takes back the flows of these contexts (`None`: all).
    pub(super) fn take_back(&mut self, contexts: Option<&[u64]>, now: Now) {
        let Some(below) = self.hands.below.as_mut() else { return };
        self.engine.offloaded(contexts).into_iter().for_each(|socket| below.take(socket));
        self.tell_carried(now);
    }

    /// Each turn: what was learned of flows is the engine's to count.
    pub(super) fn read_flows(&mut self, now: Now) {
        if let Some(below) = self.hands.below.as_mut() {
            below.read();
            self.tell_carried(now);
        }
    }

    fn tell_carried(&mut self, now: Now) {
        while let Some((socket, carried, over)) = self.hands.below.as_mut().and_then(|below| below.told.pop())
        {
            self.input(now, Input::Offloaded { socket, carried, over });
        }
    }
}
