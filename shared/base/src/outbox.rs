//! The outbox: where a machine puts what it wants done. Fixed room, so a driver that checks `room` before it
//! takes input has back-pressure in one line.

use std::collections::VecDeque;

/// There was no room; the value comes back.
#[derive(Debug, PartialEq, Eq)]
pub struct Full<T>(pub T);

/// A bounded first-in first-out queue of outputs. It allocates once.
#[derive(Debug)]
pub struct Outbox<T> {
    items: VecDeque<T>,
    max: usize,
    refused: u64,
}

impl<T> Outbox<T> {
    /// An outbox with room for `max` outputs.
    pub fn with_max(max: usize) -> Self {
        Outbox { items: VecDeque::with_capacity(max), max, refused: 0 }
    }

    /// How many outputs still fit.
    pub fn room(&self) -> usize {
        self.max - self.items.len()
    }

    /// Adds an output; without room it comes back and is counted in [`Outbox::refused`].
    pub fn push(&mut self, item: T) -> Result<(), Full<T>> {
        if self.items.len() == self.max {
            self.refused += 1;
            return Err(Full(item));
        }
        self.items.push_back(item);
        Ok(())
    }

    /// Takes the oldest output.
    pub fn pop(&mut self) -> Option<T> {
        self.items.pop_front()
    }

    /// Takes every output, oldest first; the room is free again.
    pub fn drain(&mut self) -> std::collections::vec_deque::Drain<'_, T> {
        self.items.drain(..)
    }

    /// Outputs that wait.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many pushes found no room since the start. A driver that checks `room` keeps this at zero.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_outbox_gives_the_value_back_and_counts() {
        let mut out = Outbox::with_max(1);
        assert_eq!(out.push(1), Ok(()));
        assert_eq!(out.push(2), Err(Full(2)));
        assert_eq!((out.room(), out.refused(), out.pop()), (0, 1, Some(1)));
        assert_eq!(out.room(), 1);
    }
}
