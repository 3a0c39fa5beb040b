//! `select` with one slot: each receiver gets one stream of our own SSRC, continuous in sequence and timestamp,
//! that carries the speaker of the moment (RFC 7667 §3.6.2, media-switching mixer). The speaker himself gets who
//! spoke before him, so that two who talk at once hear each other.
//!
//! ```text
//!  none ── first packet ──► S speaks ── S inactive for hold, other active ───────────────► other speaks
//!                              └─ held for hold, other louder by 6 dB for 300 ms ─────────►
//! ```
//!
//! How loud a source is: by its RFC 6464 level where that was agreed; else, for PCMU and PCMA, by the mean of a few
//! samples' magnitudes; else any packet with more than a comfort noise's worth of payload counts as active, and a
//! speaker is only replaced after silence.

use std::time::Duration;

use base::{Instant, Now};
use rtp::{AudioLevel, Clock, Patch, RtpView};

use crate::media::{Media, Packet, RtpLeg, Stream, Tx};
use crate::{Drop, Output};

/// Loudness is 127 + dBov: 127 is the loudest, 0 is silence. From here on a source is active.
const ACTIVE: u8 = 127 - 50;
/// So much louder must another one be, in dB ...
const LOUDER_DB: u32 = 6;
/// ... for so long (CPM-FACTS §4.2).
const LOUDER_FOR: Duration = Duration::from_millis(300);
/// The hold when control names none.
const HOLD: Duration = Duration::from_millis(500);

/// One who may be selected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Talker {
    pub(crate) leg: u32,
    /// Mean loudness, scaled by 16; `None` where it cannot be known.
    mean: Option<u32>,
    active_at: Option<Instant>,
    louder_since: Option<Instant>,
}

impl Talker {
    pub(crate) const fn new(leg: u32) -> Self {
        Talker { leg, mean: None, active_at: None, louder_since: None }
    }
}

/// The state of one select path.
#[derive(Debug)]
pub(crate) struct Selection {
    pub(crate) hold: Duration,
    pub(crate) talkers: Vec<Talker>,
    /// Legs that are sent to, when they hear.
    pub(crate) targets: Vec<u32>,
    pub(crate) current: Option<u32>,
    pub(crate) previous: Option<u32>,
    since: Instant,
}

impl Selection {
    pub(crate) fn new(hold_ms: u32) -> Self {
        let mut selection = Selection {
            hold: HOLD,
            talkers: Vec::new(),
            targets: Vec::new(),
            current: None,
            previous: None,
            since: Instant::ZERO,
        };
        selection.hold(hold_ms);
        selection
    }

    pub(crate) fn hold(&mut self, hold_ms: u32) {
        self.hold = if hold_ms == 0 { HOLD } else { Duration::from_millis(u64::from(hold_ms)) };
    }

    /// Who talks now: a leg.
    fn talker(&self, leg: Option<u32>) -> Option<&Talker> {
        self.talkers.iter().find(|t| Some(t.leg) == leg)
    }

    /// A packet of the talker at `place` came. True: the speaker changed to him.
    fn judge(&mut self, place: usize, loudness: Option<u8>, active: bool, now: Instant) -> bool {
        let Some(talker) = self.talkers.get_mut(place) else { return false };
        if let Some(level) = loudness {
            let level = u32::from(level) * 16;
            // Exponential mean over about eight packets.
            talker.mean = Some(talker.mean.map_or(level, |mean| mean - mean / 8 + level / 8));
        }
        if active {
            talker.active_at = Some(now);
        }
        let me = *talker;
        let Some(current) = self.talker(self.current).copied() else {
            self.take(me.leg, now);
            return true;
        };
        if current.leg == me.leg {
            return false;
        }
        let quiet = current.active_at.is_none_or(|at| now.since(at) >= self.hold);
        let louder = match (me.mean, current.mean) {
            (Some(mine), Some(theirs)) if active => mine >= theirs + LOUDER_DB * 16,
            _ => false,
        };
        let louder_since = louder.then_some(me.louder_since.unwrap_or(now));
        if let Some(talker) = self.talkers.get_mut(place) {
            talker.louder_since = louder_since;
        }
        let beaten = now.since(self.since) >= self.hold
            && louder_since.is_some_and(|since| now.since(since) >= LOUDER_FOR);
        if active && (quiet || beaten) {
            self.take(me.leg, now);
            return true;
        }
        false
    }

    fn take(&mut self, leg: u32, now: Instant) {
        self.previous = self.current.filter(|old| *old != leg);
        self.current = Some(leg);
        self.since = now;
        self.talkers.iter_mut().for_each(|t| t.louder_since = None);
    }

    /// Forgets who is no source any more.
    pub(crate) fn prune(&mut self) {
        let is_talker = |leg: &u32| self.talkers.iter().any(|t| t.leg == *leg);
        self.current = self.current.filter(is_talker);
        self.previous = self.previous.filter(is_talker);
    }
}

impl Stream {
    /// The header fields of a source's packet within this stream: sequence, timestamp, and whether a spurt begins.
    /// `None`: it is older than what the stream took over, or than the takeover.
    #[inline]
    pub(crate) fn place(
        &mut self,
        from: (u32, u32),
        view: &RtpView<'_>,
        now: Instant,
        clock: Clock,
    ) -> Option<(u16, u32, bool)> {
        const JUMP_MAX: u16 = 3000;
        let (sequence, timestamp) = (view.sequence(), view.timestamp());
        let ahead = sequence.wrapping_add(self.sequence_offset).wrapping_sub(self.next_sequence);
        let jumped = ahead > JUMP_MAX && ahead < u16::MAX - JUMP_MAX;
        let spurt = self.carries != Some(from) || jumped;
        if spurt {
            let passed = clock.ticks(now).wrapping_sub(clock.ticks(self.last_at)).max(1);
            // The speaker before has filled this moment already: the new one begins with his next packet.
            if !jumped && self.started && passed < clock.0 / 100 {
                return None;
            }
            let next =
                if self.started { self.last_timestamp.wrapping_add(passed) } else { self.last_timestamp };
            self.timestamp_offset = next.wrapping_sub(timestamp);
            self.sequence_offset = self.next_sequence.wrapping_sub(sequence);
            self.first = sequence;
            (self.carries, self.started) = (Some(from), true);
        } else if sequence.wrapping_sub(self.first) > u16::MAX - JUMP_MAX {
            return None;
        }
        let placed = sequence.wrapping_add(self.sequence_offset);
        if placed.wrapping_sub(self.next_sequence) <= JUMP_MAX {
            self.next_sequence = placed.wrapping_add(1);
            self.last_timestamp = timestamp.wrapping_add(self.timestamp_offset);
            self.last_at = now;
            // The takeover's border moves on, so that it stays comparable after half a cycle.
            if sequence.wrapping_sub(self.first) > JUMP_MAX {
                self.first = sequence.wrapping_sub(JUMP_MAX / 2);
            }
        }
        Some((placed, timestamp.wrapping_add(self.timestamp_offset), spurt))
    }
}

/// 127 + dBov of a packet, where it can be known, and whether its source is active by it.
fn loudness(row: &RtpLeg, view: &RtpView<'_>) -> (Option<u8>, bool) {
    if row.level_id != 0
        && let Some(level) = view.elements().element(row.level_id).and_then(AudioLevel::parse)
    {
        let loud = 127 - level.level;
        return (Some(loud), loud >= ACTIVE);
    }
    let payload = view.payload();
    // RFC 3551 §6: 0 is PCMU, 8 is PCMA, 13 is comfort noise.
    let flip = match view.payload_type() {
        0 => 0xff,
        8 => 0x55,
        13 => return (Some(0), false),
        _ => return (None, payload.len() > 8),
    };
    let (mut sum, mut count) = (0u32, 0u32);
    for octet in payload.iter().step_by(7) {
        sum += u32::from((octet ^ flip) & 0x7f);
        count += 1;
    }
    // The code is logarithmic: 16 steps are a segment, 6 dB.
    let code = sum.checked_div(count).unwrap_or(0).min(127);
    let loud = if code < 8 { 0 } else { 127 - (127 - code) * 6 / 16 };
    (Some(loud as u8), code >= 16)
}

/// Takes a packet of a leg that competes; how many went out.
pub(crate) fn rtp(
    media: &mut Media,
    now: Now,
    leg: u32,
    at: usize,
    packet: &Packet<'_>,
    bytes: &[u8],
    tx: &mut Tx<'_>,
) -> Result<u32, Drop> {
    let row = media.leg(leg).ok_or(Drop::NoLeg)?;
    let (selection, place) = *row.selects.get(at).ok_or(Drop::NoPath)?;
    let (loud, active) = loudness(row, &packet.view);
    let (clock, video) = (row.clock, row.video);
    let chosen = media.selections.get_mut(selection as usize).ok_or(Drop::NoPath)?;
    let changed = chosen.judge(place as usize, loud, active, now.mono);
    let (is_current, is_previous) = (chosen.current == Some(leg), chosen.previous == Some(leg));
    if !is_current && !is_previous {
        return Err(Drop::NotSelected);
    }
    let current = chosen.current;
    let mut why = if is_current { Drop::NoTarget } else { Drop::NotSelected };
    let targets = std::mem::take(&mut chosen.targets);
    let mut sent = 0;
    for target in &targets {
        // Everybody gets the speaker; the speaker gets the one before him; nobody gets himself.
        let gets = if is_current { *target != leg } else { Some(*target) == current && *target != leg };
        if gets {
            match send(media, now, leg, *target, clock, packet, bytes, tx) {
                Ok(()) => sent += 1,
                Err(other) => why = other,
            }
        }
    }
    if let Some(chosen) = media.selections.get_mut(selection as usize) {
        chosen.targets = targets;
    }
    if changed && video {
        media.want_key_frame(leg, packet.view.ssrc(), now, tx);
    }
    if sent > 0 { Ok(sent) } else { Err(why) }
}

#[expect(clippy::too_many_arguments, reason = "one call from one loop")]
fn send(
    media: &mut Media,
    now: Now,
    leg: u32,
    target: u32,
    clock: Clock,
    packet: &Packet<'_>,
    bytes: &[u8],
    tx: &mut Tx<'_>,
) -> Result<(), Drop> {
    let view = &packet.view;
    let context_type =
        media.leg(leg).and_then(|row| row.to_context(view.payload_type())).ok_or(Drop::Payload)?;
    let row = media.leg_mut(target).ok_or(Drop::NoTarget)?;
    if !row.hears() {
        return Err(Drop::NoTarget);
    }
    let payload_type = row.to_peer(context_type).ok_or(Drop::Payload)?;
    let (sequence, timestamp, marker) =
        row.stream.place((leg, view.ssrc()), view, now.mono, clock).ok_or(Drop::Late)?;
    let patch = Patch { payload_type, marker, sequence, timestamp, ssrc: row.stream.ssrc };
    let head = patch.apply(view.head());
    let socket = row.rtp.socket;
    if packet.opened || row.guard.is_some() {
        media.send_held(target, socket, bytes, Some(head), packet.opened, tx)?;
    } else if !tx.push(Output::ForwardPatched { socket, head }) {
        return Err(Drop::Outbox);
    }
    let row = media.leg_mut(target).ok_or(Drop::NoTarget)?;
    row.stream.packets = row.stream.packets.wrapping_add(1);
    row.stream.octets = row.stream.octets.wrapping_add(view.payload().len() as u32);
    row.stream.bytes += bytes.len() as u64;
    if row.captured {
        media.spool_copy(now, target, Some(head), bytes, tx);
    }
    Ok(())
}
