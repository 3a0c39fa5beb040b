//! Taps of MSRP legs: a copy of each message that was taken from a source, for history, deferral or interception
//! (DESIGN §3: a store leg is an ordinary MSRP session). Of one leg's message what goes out to its targets, of a room's
//! what the room delivers; once per message, chunk by chunk as it comes, without a second parse. Which taps have a message
//! is frozen at its first octet that goes out.
//!
//! ```text
//!   first piece ──► waits (held) ── room in the tap's connection ──► begun ── last piece out ──► over
//!                    │ over its bounds, or held_ms                    │ refused, lost, over its bounds: '#'
//!                    ▼                                                ▼
//!                  dropped: counted, control told                   dropped: the same
//! ```
//!
//! A tap may be on another shard than its source: what is taken there is handed to it (see `across`).
//!
//! A tap is never waited for: its pieces wait in its own bounded place and go out as its connection has room. What becomes
//! of them is never the sender's, nor of the other receivers; and where the leg is unseen no number tells of it.

use base::Now;
use bytes::Bytes;
use msrp::{Head, Status};

use super::held::Held;
use super::{Message, Passage};
use crate::media::Tx;
use crate::{ConnId, Drop};

/// A tap that has a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tap {
    pub(super) leg: u32,
    pub(super) serial: u64,
    /// Something of it waits, or went out.
    begun: bool,
}

/// The taps of a message.
#[derive(Debug, Default)]
pub(crate) enum Taps {
    /// There are none.
    #[default]
    Nobody,
    /// Its source has taps; nothing went out yet.
    Due,
    /// These.
    Begun(Vec<Tap>),
}

impl Taps {
    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Tap> {
        match self {
            Taps::Begun(taps) => taps.iter_mut(),
            Taps::Nobody | Taps::Due => [].iter_mut(),
        }
    }
}

impl Message {
    /// A message was taken from a leg.
    pub(super) fn is_tapped(&mut self, source: u32, passage: u64) {
        if let Some(row) = self.row_mut(source).filter(|row| !row.taps.is_empty())
            && let Some(p) = row.passages.of_mut(passage)
        {
            p.taps = Taps::Due;
        }
    }

    /// Those of these legs that have a message as taps: who is one of its receivers has it already.
    pub(super) fn taps_among(&self, p: &Passage, legs: impl Iterator<Item = u32>) -> Taps {
        let is_free = |leg: &u32| p.copies.iter().all(|copy| copy.leg != *leg);
        let tap = |leg: u32| Some(Tap { leg, serial: self.row(leg)?.serial, begun: false });
        let taps: Vec<Tap> = legs.filter(is_free).filter_map(tap).collect();
        if taps.is_empty() { Taps::Nobody } else { Taps::Begun(taps) }
    }

    /// A piece goes to the taps of its source, from octet `start` of what goes out.
    pub(super) fn tap(
        &mut self,
        now: Now,
        source: u32,
        p: &mut Passage,
        start: u64,
        piece: &Bytes,
        tx: &mut Tx<'_>,
    ) {
        if matches!(p.taps, Taps::Due) {
            let legs = self.row(source).map(|row| row.taps.clone()).unwrap_or_default();
            p.taps = self.taps_among(p, legs.into_iter());
        }
        let Taps::Begun(mut taps) = std::mem::take(&mut p.taps) else { return };
        taps.retain_mut(|tap| self.tap_piece(now, source, p, tap, (start, piece), tx));
        p.taps = if taps.is_empty() { Taps::Nobody } else { Taps::Begun(taps) };
    }

    /// A piece waits for a tap's connection. False: it has this message no longer.
    fn tap_piece(
        &mut self,
        now: Now,
        source: u32,
        p: &Passage,
        tap: &mut Tap,
        (start, piece): (u64, &Bytes),
        tx: &mut Tx<'_>,
    ) -> bool {
        let until = now.mono + std::time::Duration::from_millis(self.limits.held_ms);
        let (bytes_max, messages_max) = (self.limits.tap_bytes_max, self.limits.tap_messages_max);
        let leg = tap.leg;
        let shown_id = if tap.begun { String::new() } else { self.entropy.token(100) };
        let Some(row) = self.row_mut(leg).filter(|row| row.serial == tap.serial) else { return false };
        let at = row.held.iter().position(|held| held.is_of(source, p.id));
        if tap.begun && at.is_none() {
            // It was given up, of which was told when it was.
            return false;
        }
        let end = start + piece.len() as u64 - 1;
        let known = p.total.map_or(end, |total| p.out(total));
        let fits = row.max_size == 0 || known.max(end) <= row.max_size;
        let is_full =
            row.held_bytes() + piece.len() > bytes_max || row.held.len() >= messages_max + tap.begun as usize;
        if !fits || is_full {
            self.not_held(leg, Drop::MsrpTap, tx);
            self.forget_held(now, leg, source, p.id, tx);
            return false;
        }
        tap.begun = true;
        match at.and_then(|at| row.held.get_mut(at)) {
            Some(held) => held.push(start, piece),
            None => row.held.push(Held::begin(source, p, shown_id, (start, piece), until)),
        }
        self.sweep_at(leg, until);
        self.wants_drain(leg);
        true
    }

    /// A message is whole, or the rest of one that nobody will make whole: so are its taps' copies.
    pub(super) fn tap_ends(&mut self, now: Now, source: u32, p: &mut Passage, tx: &mut Tx<'_>) {
        if matches!(p.taps, Taps::Due) {
            // It has no octets.
            self.tap(now, source, p, 1, &Bytes::new(), tx);
        }
        if let Taps::Begun(taps) = std::mem::take(&mut p.taps) {
            taps.iter().for_each(|tap| self.held_whole(tap.leg, source, p));
        }
    }

    /// A message is given up.
    pub(super) fn tap_aborted(&mut self, now: Now, source: u32, p: &mut Passage, tx: &mut Tx<'_>) {
        if let Taps::Begun(taps) = std::mem::take(&mut p.taps) {
            taps.iter().for_each(|tap| self.forget_held(now, tap.leg, source, p.id, tx));
        }
    }

    /// The far end of a tap answered a chunk with an error: it gets no more of that message. Whether it was a tap's.
    pub(super) fn tap_refused(
        &mut self,
        now: Now,
        conn: ConnId,
        leg: u32,
        (source, passage): (u32, u64),
        tx: &mut Tx<'_>,
    ) -> bool {
        let p = self.row(source).and_then(|row| row.passages.of(passage));
        let is_copy = p.is_some_and(|p| p.copies.iter().any(|copy| copy.leg == leg));
        if is_copy || self.row(leg).is_none_or(|row| !row.is_tap) {
            return false;
        }
        // One message is dropped once, whatever is answered to its other chunks.
        let others = self.conns.get_mut(&conn).map(|row| row.transactions.iter_mut());
        for other in others.into_iter().flatten() {
            if other.target == leg && other.carries == Some((source, passage)) {
                other.carries = None;
            }
        }
        self.not_held(leg, Drop::MsrpTap, tx);
        self.forget_held(now, leg, source, passage, tx);
        self.relieve_held(leg, tx);
        true
    }

    /// The far end of a tap reports that something failed: the same. Whether it was a tap's.
    pub(super) fn tap_reported(
        &mut self,
        now: Now,
        leg: u32,
        head: &Head,
        status: Status,
        tx: &mut Tx<'_>,
    ) -> bool {
        let named = |held: &&Held| held.is_tap() && held.shown_id() == head.message_id();
        let found = self.row(leg).and_then(|row| row.held.iter().find(named)).map(Held::whose);
        let Some((source, passage)) = found.filter(|_| !status.is_success()) else { return false };
        self.not_held(leg, Drop::MsrpTap, tx);
        self.forget_held(now, leg, source, passage, tx);
        self.relieve_held(leg, tx);
        true
    }
}
