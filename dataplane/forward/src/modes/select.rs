//! `select`: the loudest speakers have the slots of a path (see [`super::slot`]); who speaks in one hears the reserve there,
//! so that two who talk at once hear each other, and nobody hears himself.
//!
//! ```text
//!  slot:  empty ── any packet ──► S speaks ── S inactive for hold, other active ──────────────────► other speaks
//!                                   └─ held for hold, other louder by 6 dB for 300 ms than S, ────►
//!                                      who is the quietest of the slots
//! ```
//!
//! How loud a source is: by its RFC 6464 level where that was agreed; else, for PCMU and PCMA, by the mean of a few
//! samples' magnitudes; else any packet with more than a comfort noise's worth of payload counts as active, and a
//! speaker is only replaced after silence. A selection that follows a path is judged by the loudness of the legs there, each
//! for the source of the same participant (video by the participants' audio).

use std::time::Duration;

use base::{Instant, Now};
use rtp::{AudioLevel, RtpView};

use super::slot::{self, Seat, Stage};
use crate::Drop;
use crate::media::{Media, Packet, RtpLeg, Tx};

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

    /// Louder than another by as much as it takes.
    fn beats(&self, other: &Talker) -> bool {
        matches!((self.mean, other.mean), (Some(mine), Some(theirs)) if mine >= theirs + LOUDER_DB * 16)
    }
}

/// By what a stage chooses.
#[derive(Debug)]
pub(crate) struct Selection {
    hold: Duration,
    pub(crate) talkers: Vec<Talker>,
    /// Others' loudness decides.
    pub(crate) follows: bool,
}

impl Selection {
    pub(crate) const fn new() -> Self {
        Selection { hold: HOLD, talkers: Vec::new(), follows: false }
    }

    pub(crate) const fn hold(&mut self, hold_ms: u32) {
        self.hold = if hold_ms == 0 { HOLD } else { Duration::from_millis(hold_ms as u64) };
    }

    /// Who sits there.
    fn holder(&self, seat: &Seat) -> Option<&Talker> {
        self.talkers.get(seat.place as usize).filter(|talker| Some(talker.leg) == seat.leg)
    }

    fn is_quiet(&self, seat: &Seat, now: Instant) -> bool {
        self.holder(seat).and_then(|t| t.active_at).is_none_or(|at| now.since(at) >= self.hold)
    }
}

impl Stage {
    /// The talker at `place` was heard. Some: that leg has a seat now.
    fn judge(&mut self, place: usize, loudness: Option<u8>, active: bool, now: Instant) -> Option<u32> {
        let choice = self.choice.as_mut()?;
        let talker = choice.talkers.get_mut(place)?;
        if let Some(level) = loudness {
            let level = u32::from(level) * 16;
            // Exponential mean over about eight packets.
            talker.mean = Some(talker.mean.map_or(level, |mean| mean - mean / 8 + level / 8));
        }
        if active {
            talker.active_at = Some(now);
        }
        let leg = talker.leg;
        let seat = self.seat_of(leg);
        if seat.is_some_and(|seat| seat < self.slots) {
            return None;
        }
        let slot = self.vacant().or_else(|| self.slot_to_take(place, active, now));
        if let Some(at) = slot {
            self.sit(at, (leg, place as u32), now);
            self.choice.as_mut()?.talkers.iter_mut().for_each(|t| t.louder_since = None);
            return Some(leg);
        }
        // The reserve needs no patience: only those who speak themselves hear it.
        let reserve = self.seats.get(self.slots).filter(|_| seat.is_none())?;
        let choice = self.choice.as_ref()?;
        let holder = choice.holder(reserve);
        let free = holder.is_none_or(|holder| {
            let beaten = now.since(reserve.since) >= choice.hold
                && choice.talkers.get(place).is_some_and(|me| me.beats(holder));
            active && (choice.is_quiet(reserve, now) || beaten)
        });
        free.then(|| self.sit(self.slots, (leg, place as u32), now)).map(|()| leg)
    }

    /// The slot that the talker at `place` takes from another.
    fn slot_to_take(&mut self, place: usize, active: bool, now: Instant) -> Option<usize> {
        let Stage { seats, choice, slots, .. } = self;
        let (choice, seats) = (choice.as_mut()?, seats.get(..*slots)?);
        let me = *choice.talkers.get(place)?;
        // The quietest of those who sit.
        let holders =
            seats.iter().enumerate().filter_map(|(at, seat)| Some((at, seat, choice.holder(seat)?)));
        let weakest =
            holders.filter(|(.., talker)| talker.mean.is_some()).min_by_key(|(.., talker)| talker.mean);
        let weakest =
            weakest.filter(|(.., talker)| active && me.beats(talker)).map(|(at, seat, _)| (at, seat.since));
        let louder_since = weakest.map(|_| me.louder_since.unwrap_or(now));
        choice.talkers.get_mut(place)?.louder_since = louder_since;
        if !active {
            return None;
        }
        let quiet = seats.iter().enumerate().filter(|(_, seat)| choice.is_quiet(seat, now));
        let quiet =
            quiet.min_by_key(|(_, seat)| choice.holder(seat).and_then(|t| t.active_at)).map(|(at, _)| at);
        let beaten = weakest.filter(|(_, since)| {
            now.since(*since) >= choice.hold
                && louder_since.is_some_and(|louder| now.since(louder) >= LOUDER_FOR)
        });
        quiet.or(beaten.map(|(at, _)| at))
    }

    /// The talker at `place` was seen, who is chosen by another's loudness: he takes no more than what is empty.
    fn admit(&mut self, place: usize, now: Instant) -> Option<u32> {
        let leg = self.choice.as_ref()?.talkers.get(place)?.leg;
        if self.seat_of(leg).is_some() {
            return None;
        }
        let empty = self.seats.iter().position(|seat| seat.leg.is_none())?;
        self.sit(empty, (leg, place as u32), now);
        Some(leg)
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

/// Takes a packet of a leg that may be selected; how many went out.
pub(crate) fn rtp(
    media: &mut Media,
    now: Now,
    leg: u32,
    (at, place): (u32, u32),
    packet: &Packet<'_>,
    bytes: &[u8],
    tx: &mut Tx<'_>,
) -> Result<u32, Drop> {
    let row = media.legs.get(leg as usize).ok_or(Drop::NoLeg)?;
    let stage = media.stages.get_mut(at as usize).ok_or(Drop::NoPath)?;
    if stage.choice.as_ref().is_some_and(|choice| choice.follows) {
        stage.admit(place as usize, now.mono);
    } else {
        let (loud, active) = loudness(row, &packet.view);
        stage.judge(place as usize, loud, active, now.mono);
    }
    slot::rtp(media, now, leg, at, packet, bytes, tx)
}

/// Takes a packet of a leg whose loudness decides about another one.
pub(crate) fn voice(
    media: &mut Media,
    now: Now,
    leg: u32,
    (at, place): (u32, u32),
    packet: &Packet<'_>,
    tx: &mut Tx<'_>,
) {
    let Some(row) = media.legs.get(leg as usize) else { return };
    let (loud, active) = loudness(row, &packet.view);
    let Some(stage) = media.stages.get_mut(at as usize) else { return };
    let Some(chosen) = stage.judge(place as usize, loud, active, now.mono) else { return };
    media.want_newest_key_frame(chosen, now, tx);
}
