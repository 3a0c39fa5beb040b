//! Keys that were taken back from a leg, and how far they had come: a re-INVITE that is refused brings back those before it
//! (RFC 3261 §14.1), and no index may come twice under one key (RFC 3711 §9.1), neither ours nor the peer's.
//!
//! ```text
//!   keys A ── put with B ──► A's progress is kept ── put with A ──► A goes on from there, B's progress is kept
//! ```

use rtp::srtp::{Keying, Progress};

/// Keys that are remembered per leg and way; whoever offers keys makes new ones each time, and only the last ones come back.
const KEYS_MAX: usize = 4;

/// The keys of one way.
#[derive(Debug, Default)]
struct Way(Vec<(Keying, Vec<Progress>)>);

impl Way {
    /// True when another key had to be forgotten.
    fn keep(&mut self, key: Keying, progress: Vec<Progress>) -> bool {
        self.0.retain(|(known, _)| *known != key);
        let full = self.0.len() >= KEYS_MAX;
        if full {
            self.0.remove(0);
        }
        self.0.push((key, progress));
        full
    }

    fn take(&mut self, key: &Keying) -> Option<Vec<Progress>> {
        let at = self.0.iter().position(|(known, _)| known == key)?;
        Some(self.0.remove(at).1)
    }
}

/// See above.
#[derive(Debug, Default)]
pub(crate) struct Spent {
    sent: Way,
    received: Way,
    /// There was a key with which we sent that is not remembered any more: what comes may be that one.
    pub(super) has_forgotten: bool,
}

impl Spent {
    /// What one leg may keep, in octets, with so many sources under a key.
    pub(crate) const fn octets_max(sources: usize) -> usize {
        2 * KEYS_MAX * (size_of::<(Keying, Vec<Progress>)>() + sources * size_of::<Progress>())
    }

    /// Keeps how far a key had come with which we sent; one that was never used needs no memory.
    pub(super) fn keep_sent(&mut self, key: Keying, progress: Vec<Progress>) {
        if !progress.is_empty() {
            self.has_forgotten |= self.sent.keep(key, progress);
        }
    }

    /// The same for a key with which the peer sent.
    pub(super) fn keep_received(&mut self, key: Keying, progress: Vec<Progress>) {
        if !progress.is_empty() {
            self.received.keep(key, progress);
        }
    }

    /// How far a key had come with which we sent.
    pub(super) fn take_sent(&mut self, key: &Keying) -> Vec<Progress> {
        self.sent.take(key).unwrap_or_default()
    }

    /// The same for a key with which the peer sent.
    pub(super) fn take_received(&mut self, key: &Keying) -> Vec<Progress> {
        self.received.take(key).unwrap_or_default()
    }
}
