//! What one queue measures: how long requests wait in it, how long they would, and how many it gives out.
//!
//! ```text
//!   Empty --put--> Backlogged --took the last one--> Empty
//!   Backlogged: the time between two takes is what one request costs, where the second one waited already
//! ```

use std::time::Duration;

use base::Instant;

/// How much of a new cost is believed: 1/8, as RFC 6298 does with round trips.
const GAIN: u32 = 8;

/// The measure of one queue. Whoever fills the queue and whoever empties it tell it.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    waiting: usize,
    /// When the last one was taken, or the first one put into an empty queue: since then nothing has moved.
    moved: Instant,
    cost: Duration,
    taken: u64,
    inner: u64,
    least: Option<Duration>,
}

/// What happened since the last look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sample {
    /// Requests that were taken.
    pub taken: u64,
    /// Requests that came from inside, each the consequence of one that was let in.
    pub inner: u64,
    /// The least time that a request waited, from its arrival until it was taken; zero where the queue was empty at any
    /// time since. Where none was taken although some waited: for how long nothing has moved.
    pub least: Duration,
}

impl Meter {
    /// A request joined the queue; `inner` when it came from another queue of ours.
    pub fn put(&mut self, now: Instant, inner: bool) {
        if self.waiting == 0 {
            self.moved = now;
        }
        self.waiting += 1;
        self.inner += u64::from(inner);
    }

    /// A request that reached us at `arrived` was taken; says how long it waited.
    pub fn took(&mut self, now: Instant, arrived: Instant) -> Duration {
        // Whoever came after the last take was not held up by it.
        if arrived <= self.moved {
            let gap = now.since(self.moved);
            self.cost =
                if self.cost.is_zero() { gap } else { (self.cost * (GAIN - 1)).saturating_add(gap) / GAIN };
        }
        let waited = now.since(arrived);
        self.moved = now;
        self.waiting = self.waiting.saturating_sub(1);
        self.taken += 1;
        // A queue that was empty for a moment stands for nothing, however late its last one was taken: one request that a
        // busy machine let wait is no overload.
        let stood = if self.waiting == 0 { Duration::ZERO } else { waited };
        self.least = Some(self.least.map_or(stood, |least| least.min(stood)));
        waited
    }

    /// How long a request would wait that joined now.
    pub fn expected(&self, now: Instant) -> Duration {
        if self.waiting == 0 {
            return Duration::ZERO;
        }
        let ahead = u32::try_from(self.waiting).unwrap_or(u32::MAX);
        self.cost.saturating_mul(ahead).max(now.since(self.moved))
    }

    /// What happened since the last look.
    pub fn look(&mut self, now: Instant) -> Sample {
        let stalled = if self.waiting == 0 { Duration::ZERO } else { now.since(self.moved) };
        let sample = Sample { taken: self.taken, inner: self.inner, least: self.least.unwrap_or(stalled) };
        (self.taken, self.inner, self.least) = (0, 0, None);
        sample
    }
}
