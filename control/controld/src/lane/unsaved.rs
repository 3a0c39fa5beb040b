//! What a lane could not write because its store takes nothing now (a full disk, say), and what goes on meanwhile.
//!
//! ```text
//!   Saving --a commit found no room--> Starving --the store takes what waited--> Saving
//!   Starving: requests whose 2xx would promise something: 503, not even looked at
//!             all else (BYE, ACK, CANCEL, answers, news, timers): decided and performed, its rows wait here, in order
//!             a promise that was on its way: the lane is taken up again from the store, without what has ended
//! ```
//!
//! The end of a call needs nothing durable first: a caller whose phone is gone must not be kept in it by a disk. A
//! positive answer that stands for a row is never given (DESIGN §2, invariant 9).

use std::time::Duration;

use service::{Change, Output, Row};
use sip::Method;
use tokio::time::Instant;

/// How often it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Changes that wait at most; with more the lane is taken up again from what the store has.
const CHANGES_MAX: usize = 10_000;

/// What waits for the store.
#[derive(Debug, Default)]
pub(super) struct Unsaved {
    changes: Vec<Change>,
    /// The store takes nothing: when it is asked again.
    again: Option<Instant>,
    /// So many of the changes are on their way.
    sent: Option<usize>,
}

impl Unsaved {
    /// True while the store takes nothing.
    pub(super) const fn is_starving(&self) -> bool {
        self.again.is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// When the store is asked again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.again.filter(|_| self.sent.is_none())
    }

    /// The store has no room.
    pub(super) fn starve(&mut self) {
        self.again.get_or_insert_with(|| Instant::now() + AGAIN);
    }

    /// Keeps what could not be written; false when it is too much.
    pub(super) fn keep(&mut self, changes: Vec<Change>) -> bool {
        self.starve();
        self.changes.extend(changes);
        self.changes.len() <= CHANGES_MAX
    }

    /// What the store is asked to take now; empty when only its room is to be felt.
    pub(super) fn send(&mut self) -> Vec<Change> {
        self.sent = Some(self.changes.len());
        self.changes.clone()
    }

    /// It took them, or did not; true when nothing waits any more.
    pub(super) fn sent(&mut self, taken: bool) -> bool {
        let sent = self.sent.take().unwrap_or(0);
        if taken {
            self.changes.drain(..sent.min(self.changes.len()));
        }
        let over = taken && self.changes.is_empty();
        let again = if taken { Instant::now() } else { Instant::now() + AGAIN };
        self.again = (!over).then_some(again);
        over
    }

    /// The lane forgets what it was: what it wrote goes with that, what it ended stays ended.
    pub(super) fn forget(&mut self) {
        self.sent = None;
        self.changes.retain(|change| matches!(change, Change::Remove(_)));
    }

    /// Takes out what has ended and is in the store still.
    pub(super) fn filter(&self, rows: &mut Vec<Row>) {
        let ended =
            |row: &Row| self.changes.iter().any(|c| matches!(c, Change::Remove(key) if *key == row.key));
        if !self.changes.is_empty() {
            rows.retain(|row| !ended(row));
        }
    }
}

/// A 2xx to it stands for something that must outlive us.
pub(super) const fn promises(method: &Method) -> bool {
    matches!(
        method,
        Method::Register
            | Method::Invite
            | Method::Message
            | Method::Subscribe
            | Method::Refer
            | Method::Publish
    )
}

/// One of these outputs may be seen by nobody before its rows are written: a 2xx that stands for them, or a message
/// that goes on (its sender would hear 503, and send it again).
pub(super) fn is_promise(outputs: &[Output]) -> bool {
    outputs.iter().any(|output| match output {
        Output::Send { request, .. } => request.method == Method::Message,
        Output::Respond { response, .. } => {
            response.is_success() && response.cseq().map_or(true, |cseq| promises(&cseq.method))
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use service::{Key, Table};

    use super::*;

    fn gone(id: &str) -> Change {
        Change::Remove(Key::new(Table::Session, id))
    }

    #[test]
    fn what_came_while_the_store_was_asked_is_asked_next() {
        let mut unsaved = Unsaved::default();
        assert!(!unsaved.is_starving() && unsaved.next().is_none());
        assert!(unsaved.keep(vec![gone("a")]));
        assert_eq!(unsaved.send(), [gone("a")]);
        assert!(unsaved.next().is_none(), "one question at a time");
        unsaved.keep(vec![gone("b")]);
        assert!(!unsaved.sent(true), "b waits");
        assert_eq!(unsaved.send(), [gone("b")]);
        assert!(!unsaved.sent(false));
        assert_eq!(unsaved.send(), [gone("b")]);
        assert!(unsaved.sent(true) && !unsaved.is_starving() && unsaved.len() == 0);
    }

    #[test]
    fn too_much_is_not_kept() {
        let mut unsaved = Unsaved::default();
        assert!(unsaved.keep((0..CHANGES_MAX).map(|n| gone(&n.to_string())).collect()));
        assert!(!unsaved.keep(vec![gone("x")]));
    }
}
