//! Timers of a machine: bounded, ordered by deadline and then by the order of setting, so replay is exact.

use std::collections::BTreeMap;

use crate::{Full, Instant};

/// Names one set timer. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TimerId {
    at: Instant,
    serial: u64,
}

/// Deadlines with what to do then.
#[derive(Debug)]
pub struct Timers<K> {
    set: BTreeMap<TimerId, K>,
    serial: u64,
    max: usize,
}

impl<K> Timers<K> {
    /// At most `max` timers at once.
    pub fn with_max(max: usize) -> Self {
        Timers { set: BTreeMap::new(), serial: 0, max }
    }

    /// Sets a timer.
    pub fn set(&mut self, at: Instant, what: K) -> Result<TimerId, Full<K>> {
        if self.set.len() >= self.max {
            return Err(Full(what));
        }
        self.serial += 1;
        let id = TimerId { at, serial: self.serial };
        self.set.insert(id, what);
        Ok(id)
    }

    /// Takes a timer back; `None` when it fired or was taken already.
    pub fn cancel(&mut self, id: TimerId) -> Option<K> {
        self.set.remove(&id)
    }

    /// The next deadline.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.set.first_key_value().map(|(id, _)| id.at)
    }

    /// Takes one timer whose deadline is not after `now`.
    pub fn pop(&mut self, now: Instant) -> Option<K> {
        let (id, _) = self.set.first_key_value()?;
        if id.at > now {
            return None;
        }
        self.set.pop_first().map(|(_, what)| what)
    }

    /// Timers that are set.
    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// True when none is set.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_fire_in_order_of_deadline_then_of_setting() {
        let mut timers = Timers::with_max(4);
        let at = Instant::from_millis;
        timers.set(at(2), "c").unwrap();
        timers.set(at(1), "a").unwrap();
        let gone = timers.set(at(1), "x").unwrap();
        timers.set(at(1), "b").unwrap();
        assert!(timers.set(at(9), "full").is_err());
        assert_eq!(timers.cancel(gone), Some("x"));
        assert_eq!(timers.cancel(gone), None);
        assert_eq!(timers.next_timeout(), Some(at(1)));
        assert_eq!(timers.pop(at(0)), None);
        let fired: Vec<_> = std::iter::from_fn(|| timers.pop(at(5))).collect();
        assert_eq!(fired, ["a", "b", "c"]);
    }
}
