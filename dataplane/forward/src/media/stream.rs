//! A stream of our own towards a leg: one SSRC, sequence and timestamp that go on whoever feeds it (RFC 7667 §3.6.2).
//!
//! ```text
//!            first packet ─► carries A ── A's slot is given to B ─┐
//!                               ▲                                 ▼
//!                               │        audio: B's next packet that falls where the next one of A would have
//!                               └─ B ◄── video: B's next key frame, when what A began is complete: A goes on meanwhile
//! ```

use std::time::Duration;

use base::Instant;
use rtp::{Clock, RtpView};

use crate::Drop;

/// So many sequence numbers away a packet belongs to a source that has begun anew.
const JUMP_MAX: u16 = 3000;
/// A leg's other SSRC is heard when the one that is carried was quiet for so long.
const OTHER_AFTER: Duration = Duration::from_millis(200);
/// After so long the rest of a frame does not come any more.
const FRAME: Duration = Duration::from_millis(100);
/// The longest packet of audio by which the stream's step is known; what is longer is a pause.
const STEP_MS: u32 = 60;
/// The step before one is known.
const FIRST_STEP_MS: u32 = 20;

/// Whose packets a stream carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Carried {
    pub(crate) leg: u32,
    pub(crate) ssrc: u32,
    /// The leg's tenure: it may have lost its slot and got it again, while the stream heard nobody.
    pub(crate) turn: u32,
}

/// A stream of our own towards a leg.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    pub(crate) ssrc: u32,
    pub(crate) next_sequence: u16,
    pub(crate) last_timestamp: u32,
    pub(crate) last_at: Instant,
    pub(crate) started: bool,
    pub(crate) carries: Option<Carried>,
    /// The path and its slot that feed it.
    pub(crate) of: Option<(u32, u32)>,
    /// Its packets name their source as CSRC.
    pub(crate) named: bool,
    /// First sequence number of the source that belongs to it.
    first: u16,
    sequence_offset: u16,
    timestamp_offset: u32,
    /// Units of the clock between two packets of audio.
    step: u32,
    /// So many units the stream is ahead of the clock since it was taken over: the next takeover makes up for it.
    ahead: i32,
    /// The last packet did not end its frame.
    within_frame: bool,
    /// The frame that was begun is the last one: another source waits.
    closing: bool,
    pub(crate) packets: u32,
    pub(crate) octets: u32,
    pub(crate) bytes: u64,
}

/// A packet for a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) view: &'a RtpView<'a>,
    pub(crate) leg: u32,
    /// The leg's tenure of the slot; `None`: it has it no more.
    pub(crate) turn: Option<u32>,
    pub(crate) now: Instant,
    pub(crate) clock: Clock,
    pub(crate) video: bool,
    /// Whether it begins a key frame, where that can be known.
    pub(crate) key_frame: Option<bool>,
    /// Who has lost a slot goes on until the next one can begin.
    pub(crate) lingers: bool,
}

/// Where a packet stands in a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Placed {
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    /// A talk spurt begins (RFC 3551 §4.1). With video the marker means something else and stays as it is.
    pub(crate) spurt: bool,
    /// The source of the stream changed with it.
    pub(crate) taken: bool,
}

impl Stream {
    pub(crate) const fn new(ssrc: u32, sequence: u16, timestamp: u32, now: Instant) -> Self {
        Stream {
            ssrc,
            next_sequence: sequence,
            last_timestamp: timestamp,
            last_at: now,
            started: false,
            carries: None,
            of: None,
            named: false,
            first: 0,
            sequence_offset: 0,
            timestamp_offset: 0,
            step: 0,
            ahead: 0,
            within_frame: false,
            closing: false,
            packets: 0,
            octets: 0,
            bytes: 0,
        }
    }

    /// The same, fed by a slot of a path.
    pub(crate) const fn for_slot(self, slot: (u32, u32)) -> Self {
        Stream { of: Some(slot), ..self }
    }

    /// What the source that is carried calls a packet of the stream.
    pub(crate) const fn original(&self, sequence: u16) -> u16 {
        sequence.wrapping_sub(self.sequence_offset)
    }

    /// Places a packet; the reason when it has no place.
    #[inline]
    pub(crate) fn place(&mut self, entry: &Entry<'_>) -> Result<Placed, Drop> {
        let view = entry.view;
        let (sequence, timestamp) = (view.sequence(), view.timestamp());
        let same = self.carries.is_some_and(|c| {
            c.leg == entry.leg && c.ssrc == view.ssrc() && entry.turn.is_none_or(|turn| turn == c.turn)
        });
        let ahead = sequence.wrapping_add(self.sequence_offset).wrapping_sub(self.next_sequence);
        let jumped = same && ahead > JUMP_MAX && ahead < u16::MAX - JUMP_MAX;
        let taken = !same || jumped;
        if taken {
            self.take_over(entry, jumped)?;
        } else if sequence.wrapping_sub(self.first) > u16::MAX - JUMP_MAX {
            return Err(Drop::Late);
        }
        self.closing &= entry.turn.is_none();
        let placed = sequence.wrapping_add(self.sequence_offset);
        let placed_timestamp = timestamp.wrapping_add(self.timestamp_offset);
        if placed.wrapping_sub(self.next_sequence) <= JUMP_MAX {
            let step = placed_timestamp.wrapping_sub(self.last_timestamp);
            if placed == self.next_sequence && !taken && (1..=entry.clock.0 / 1000 * STEP_MS).contains(&step)
            {
                self.step = step;
            }
            self.next_sequence = placed.wrapping_add(1);
            self.last_timestamp = placed_timestamp;
            self.last_at = entry.now;
            self.within_frame = entry.video && !view.marker();
            // The takeover's border moves on, so that it stays comparable after half a cycle.
            if sequence.wrapping_sub(self.first) > JUMP_MAX {
                self.first = sequence.wrapping_sub(JUMP_MAX / 2);
            }
            if self.closing && !self.within_frame {
                self.carries = None;
            }
        }
        Ok(Placed { sequence: placed, timestamp: placed_timestamp, spurt: taken && !entry.video, taken })
    }

    /// Another source, or the same anew, goes on where the one before was.
    #[cold]
    fn take_over(&mut self, entry: &Entry<'_>, jumped: bool) -> Result<(), Drop> {
        let turn = match (entry.turn, self.carries) {
            (Some(turn), _) => turn,
            (None, Some(carried)) if jumped => carried.turn,
            (None, _) => return Err(Drop::NotSelected),
        };
        let quiet = entry.now.since(self.last_at);
        let (view, carried) = (entry.view, self.carries);
        if !jumped
            && carried.is_some_and(|c| c.leg == entry.leg && c.turn == turn && c.ssrc != view.ssrc())
            && quiet < OTHER_AFTER
        {
            return Err(Drop::NotSelected);
        }
        if entry.key_frame == Some(false) {
            return Err(Drop::KeyFrame);
        }
        if entry.video && entry.lingers && !jumped && carried.is_some() && self.within_frame && quiet < FRAME
        {
            self.closing = true;
            return Err(Drop::KeyFrame);
        }
        let next = self.next_timestamp(entry, jumped)?;
        self.timestamp_offset = next.wrapping_sub(view.timestamp());
        self.sequence_offset = self.next_sequence.wrapping_sub(view.sequence());
        self.first = view.sequence();
        self.carries = Some(Carried { leg: entry.leg, ssrc: view.ssrc(), turn });
        (self.started, self.closing) = (true, false);
        Ok(())
    }

    /// The timestamp at which another source begins: by the clock, in whole packets of audio, so that neither a gap nor an
    /// overlap is heard.
    fn next_timestamp(&mut self, entry: &Entry<'_>, jumped: bool) -> Result<u32, Drop> {
        if !self.started {
            return Ok(self.last_timestamp);
        }
        let clock = entry.clock;
        let passed = clock.ticks(entry.now).wrapping_sub(clock.ticks(self.last_at));
        let step = if self.step == 0 { clock.0 / 1000 * FIRST_STEP_MS } else { self.step };
        if entry.video || step == 0 {
            return Ok(self.last_timestamp.wrapping_add(passed.max(1)));
        }
        let wanted = i64::from(passed) - i64::from(self.ahead);
        let steps = (wanted + i64::from(step / 2)).div_euclid(i64::from(step));
        // The source before has filled this moment already: the new one begins with its next packet.
        if steps < 1 && !jumped {
            return Err(Drop::Late);
        }
        let next = steps.max(1) * i64::from(step);
        self.ahead = i32::try_from(next - wanted).unwrap_or(0);
        Ok(self.last_timestamp.wrapping_add(next as u32))
    }

    /// Counts a packet that was sent.
    pub(crate) fn sent(&mut self, view: &RtpView<'_>, bytes: usize) {
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(view.payload().len() as u32);
        self.bytes += bytes as u64;
    }
}
