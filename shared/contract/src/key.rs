//! Keys as values: order and copies for tables.

use crate::change::Verb;
use crate::{Change, Leg, LegKey, Path, PathKey};

impl LegKey {
    /// The leg `leg` of the context `context`.
    pub const fn new(context: u64, leg: u64) -> Self {
        LegKey { context, leg }
    }
}

impl PartialOrd for LegKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for LegKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.context, self.leg).cmp(&(other.context, other.leg))
    }
}

impl Change {
    /// Which context it speaks of; `None` when it says nothing.
    pub fn context(&self) -> Option<u64> {
        Some(match self.verb.as_ref()? {
            Verb::PutContext(context) => context.id,
            Verb::RemoveContext(context) => *context,
            Verb::PutLeg(leg) => leg.context,
            Verb::RemoveLeg(key) => key.context,
            Verb::PutPath(path) => path.context,
            Verb::RemovePath(key) => key.context,
        })
    }
}

impl Leg {
    /// The leg's key.
    pub const fn key(&self) -> LegKey {
        LegKey::new(self.context, self.id)
    }
}

impl Path {
    /// The path's key.
    pub const fn key(&self) -> PathKey {
        PathKey { context: self.context, path: self.id }
    }
}
