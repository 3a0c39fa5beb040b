//! The process's one reading of both clocks.

use std::time::{Duration, Instant as Reading, SystemTime, UNIX_EPOCH};

use base::{Instant, Now, UnixTime};

/// The clock of one run: monotonic time counts from its making.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Reading,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Clock { origin: Reading::now() }
    }

    /// Both clocks, read together.
    pub(crate) fn now(&self) -> Now {
        let mono = u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            mono: Instant::from_nanos(mono),
            wall: UnixTime::from_millis(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// When a machine's deadline comes, for the runtime's timers.
    pub(crate) fn at(&self, deadline: Instant) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.origin + Duration::from_nanos(deadline.as_nanos()))
    }
}
