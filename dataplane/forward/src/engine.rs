//! The engine: one `handle`, one `timeout`, the tables behind them.

use base::{Entropy, Instant, Now, Outbox};

use crate::{Config, Input, Output, Totals};

/// The forwarding engine of one shard.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    entropy: Entropy,
    totals: Totals,
}

impl Engine {
    /// An engine with empty tables.
    pub fn new(config: Config, entropy: Entropy) -> Self {
        Engine { config, entropy, totals: Totals::default() }
    }

    /// The room that the outbox must have before an input is handed in.
    pub fn room_needed(&self) -> usize {
        self.config.limits.targets_max * 2 + 64
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Now, input: Input<'_>, out: &mut Outbox<Output>) {
        let _ = (now, out, &mut self.entropy);
        if let Input::Datagram { .. } = input {
            self.totals.packets_in += 1;
            self.totals.drop(crate::Drop::NoLeg);
        }
    }

    /// Does what is due.
    pub fn timeout(&mut self, now: Now, out: &mut Outbox<Output>) {
        let _ = (now, out);
    }

    /// When [`Engine::timeout`] is due next; in the past when [`Engine::flush`] has something.
    pub fn next_timeout(&self) -> Option<Instant> {
        None
    }

    /// Puts out what waits for connections, as far as the outbox has room and the connections have credit; call it
    /// at the end of each batch of inputs. True: there is more, call again after performing.
    pub fn flush(&mut self, out: &mut Outbox<Output>) -> bool {
        let _ = out;
        false
    }

    /// A part of the state, in the order of context ids, starting after the context `after`; `None` at the end.
    /// The caller fills in `id` and `more`.
    pub fn audit(&self, after: Option<u64>) -> Option<contract::Audited> {
        let _ = after;
        None
    }

    /// Counters of the legs (those not hidden) of the contexts after `after`, and the last context they cover.
    pub fn counters(&self, now: Now, after: Option<u64>) -> Option<(u64, contract::Counters)> {
        let _ = (now, after);
        None
    }

    /// The sums.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }
}
