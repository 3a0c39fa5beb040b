//! The machine of one lane.

use base::{Entropy, Instant, Now, Outbox};

use crate::{Config, Input, LaneKey, Output};

/// Every decision for the users and conferences of one lane.
#[derive(Debug)]
pub struct Service {
    config: Config,
    entropy: Entropy,
}

impl Service {
    /// A lane's machine. It draws all its randomness from `entropy`.
    pub fn new(config: Config, entropy: Entropy) -> Self {
        Service { config, entropy }
    }

    /// Takes one event.
    pub fn handle(&mut self, now: Now, input: Input, out: &mut Outbox<Output>) {
        let _ = (now, input, out, &self.config, &mut self.entropy);
    }

    /// Does what is due.
    pub fn timeout(&mut self, now: Now, out: &mut Outbox<Output>) {
        let _ = (now, out);
    }

    /// When [`Service::timeout`] is wanted next.
    pub fn next_timeout(&self) -> Option<Instant> {
        None
    }
}
