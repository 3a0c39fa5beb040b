//! Slots: towards each target of a path as many streams as it has slots, each of one SSRC, continuous in sequence and timestamp
//! whoever holds the slot (RFC 7667 §3.6.2, media-switching mixer). Who holds one is chosen by `select` or named by control
//! (`floor`); here is what both do then. How a source follows another within a stream: `media::stream`.
//!
//! Beside the slots a selection has a reserve: who sits in a slot himself hears the reserve there.
//!
//! ```text
//!   seats     0    1    2  | reserve           slots of A      D    B    C
//!             A    B    C  |    D              slots of X      A    B    C
//! ```

use base::{Instant, Now};
use rtp::Patch;

use super::select::Selection;
use crate::Drop;
use crate::media::{Edit, Entry, Media, Packet, Tx};

/// Slots of one path.
pub(crate) const SLOTS_MAX: usize = 16;

/// Who holds a slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    pub(crate) leg: Option<u32>,
    /// The leg's place among the talkers of a selection.
    pub(crate) place: u32,
    /// The holder's tenure; it keeps it between the slots and the reserve.
    turn: u32,
    /// Who held it before, and goes on until the holder's key frame.
    before: Option<u32>,
    /// A packet of the holder was sent.
    entered: bool,
    pub(crate) since: Instant,
}

const EMPTY: Seat = Seat { leg: None, place: 0, turn: 0, before: None, entered: false, since: Instant::ZERO };

/// A leg that is sent to, when it hears.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    pub(crate) leg: u32,
    /// Which of the leg's streams each slot feeds.
    pub(crate) streams: [u8; SLOTS_MAX],
}

/// The state of one path with slots.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    pub(crate) path: u32,
    pub(crate) slots: usize,
    /// One for each slot, and the reserve where there is one.
    pub(crate) seats: Vec<Seat>,
    pub(crate) targets: Vec<Target>,
    /// Name the source as CSRC.
    pub(crate) contributors: bool,
    /// Who chooses; `None`: control.
    pub(crate) choice: Option<Box<Selection>>,
    turn: u32,
}

/// How a leg takes part in a path beyond relaying and distributing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// It may be selected: stage, and its place among the talkers.
    Talker(u32, u32),
    /// Its loudness is that of the talker of another stage.
    Voice(u32, u32),
    /// It may hold the floor.
    Speaker(u32),
    /// It is tapped.
    Tapped,
    /// Other shards have receivers of it.
    Spread,
}

impl Stage {
    /// Gives the stage its slots; who sits stays.
    pub(crate) fn shape(&mut self, slots: usize, reserve: bool) {
        self.slots = slots.clamp(1, SLOTS_MAX);
        self.seats.resize(self.slots + usize::from(reserve), EMPTY);
    }

    /// Where a leg sits.
    pub(crate) fn seat_of(&self, leg: u32) -> Option<usize> {
        self.seats.iter().position(|seat| seat.leg == Some(leg))
    }

    /// An empty slot.
    pub(crate) fn vacant(&self) -> Option<usize> {
        self.seats.iter().take(self.slots).position(|seat| seat.leg.is_none())
    }

    /// Lets a leg, at that place among the talkers, have a seat. Whose slot it was gets the reserve, if there is one.
    pub(crate) fn sit(&mut self, at: usize, (leg, place): (u32, u32), now: Instant) {
        let from = self.seat_of(leg);
        let turn = match from.and_then(|from| self.seats.get_mut(from)) {
            Some(seat) => std::mem::replace(seat, EMPTY).turn,
            None => {
                self.turn = self.turn.wrapping_add(1);
                self.turn
            }
        };
        let Some(seat) = self.seats.get_mut(at) else { return };
        let old = *seat;
        let before = if old.entered { old.leg } else { old.before };
        *seat = Seat { leg: Some(leg), place, turn, before, entered: false, since: now };
        if at < self.slots
            && old.leg.is_some()
            && let Some(reserve) = self.seats.get_mut(self.slots)
        {
            let before = reserve.leg.or(reserve.before);
            *reserve = Seat { before, since: now, ..old };
        }
    }

    /// Empties the seats of those who may not sit.
    pub(crate) fn keep(&mut self, may: impl Fn(u32) -> bool) {
        for seat in &mut self.seats {
            if seat.leg.is_some_and(|leg| !may(leg)) {
                *seat = EMPTY;
            }
            seat.before = seat.before.filter(|leg| may(*leg));
        }
    }

    /// Whether a leg that sits nowhere may still be heard somewhere.
    fn lingers(&self, leg: u32) -> bool {
        self.choice.is_some() && self.seats.iter().any(|seat| seat.before == Some(leg))
    }

    /// In which of the target's slots the one who sits at `seat` is heard.
    fn slot_for(&self, target: u32, seat: usize) -> Option<usize> {
        if seat < self.slots {
            return Some(seat);
        }
        self.seats.iter().take(self.slots).position(|seat| seat.leg == Some(target))
    }
}

/// A packet and what is known of its source.
struct Source<'a> {
    entry: Entry<'a>,
    packet: &'a Packet<'a>,
    bytes: &'a [u8],
    /// The context's payload type.
    payload_type: u8,
}

/// Sends a packet of a leg to the targets that hear it in a slot; how many went out.
pub(crate) fn rtp(
    media: &mut Media,
    now: Now,
    leg: u32,
    at: u32,
    packet: &Packet<'_>,
    bytes: &[u8],
    tx: &mut Tx<'_>,
) -> Result<u32, Drop> {
    let row = media.legs.get(leg as usize).ok_or(Drop::NoLeg)?;
    let stage = media.stages.get_mut(at as usize).ok_or(Drop::NoPath)?;
    let seat = stage.seat_of(leg);
    let lingers = row.video && stage.lingers(leg);
    if seat.is_none() && !lingers {
        return Err(Drop::NotSelected);
    }
    let mut stage = std::mem::take(stage);
    let result = send_all(media, now, leg, (&stage, seat, lingers), packet, bytes, tx);
    if let Some(seat) = seat.and_then(|seat| stage.seats.get_mut(seat)) {
        seat.entered |= matches!(result, Ok(sent) if sent > 0);
    }
    if let Some(place) = media.stages.get_mut(at as usize) {
        *place = stage;
    }
    result
}

fn send_all(
    media: &mut Media,
    now: Now,
    leg: u32,
    (stage, seat, lingers): (&Stage, Option<usize>, bool),
    packet: &Packet<'_>,
    bytes: &[u8],
    tx: &mut Tx<'_>,
) -> Result<u32, Drop> {
    let row = media.leg(leg).ok_or(Drop::NoLeg)?;
    let view = &packet.view;
    let source = Source {
        entry: Entry {
            view,
            leg,
            turn: None,
            now: now.mono,
            clock: row.clock,
            video: row.video,
            key_frame: row.begins_key_frame(view),
            lingers: row.video && stage.choice.is_some(),
        },
        packet,
        bytes,
        payload_type: row.to_context(view.payload_type()).ok_or(Drop::Payload)?,
    };
    let turn = seat.and_then(|seat| stage.seats.get(seat)).map(|seat| seat.turn);
    let mut why =
        if seat.is_some_and(|seat| seat < stage.slots) { Drop::NoTarget } else { Drop::NotSelected };
    let (mut sent, mut wants_key_frame) = (0, false);
    for target in stage.targets.iter().filter(|target| target.leg != leg) {
        let (slots, turn) = match seat.and_then(|seat| stage.slot_for(target.leg, seat)) {
            Some(slot) => (slot..slot + 1, turn),
            None if lingers => (0..stage.slots, None),
            None => continue,
        };
        for slot in slots {
            let stream = target.streams.get(slot).copied().unwrap_or(0);
            let entry = Entry { turn, ..source.entry };
            match send(media, now, (target.leg, stream), &Source { entry, ..source }, stage.contributors, tx)
            {
                Ok(begins) => {
                    sent += 1;
                    // A source whose key frames cannot be told has begun in the midst of something.
                    wants_key_frame |= begins && entry.video && entry.key_frame.is_none();
                }
                // Who lingers is not everywhere.
                Err(Drop::NotSelected) if turn.is_none() => {}
                Err(other) => {
                    wants_key_frame |= other == Drop::KeyFrame;
                    why = other;
                }
            }
        }
    }
    if wants_key_frame {
        media.want_key_frame(leg, view.ssrc(), now, tx);
    }
    if sent > 0 { Ok(sent) } else { Err(why) }
}

/// Sends a packet by a stream of a target; whether the stream's source changed with it.
fn send(
    media: &mut Media,
    now: Now,
    (target, stream): (u32, u8),
    source: &Source<'_>,
    contributors: bool,
    tx: &mut Tx<'_>,
) -> Result<bool, Drop> {
    let Source { entry, packet, bytes, payload_type } = source;
    let row = media.leg_mut(target).ok_or(Drop::NoTarget)?;
    let (hears, payload_type) = (row.hears(), row.to_peer(*payload_type));
    let (socket, captured) = (row.rtp.socket, row.captured);
    let own = row.stream_mut(stream).ok_or(Drop::NoTarget)?;
    if !hears {
        own.carries = None; // When it hears again, it has not missed anything.
        return Err(Drop::NoTarget);
    }
    let Some(payload_type) = payload_type else {
        own.carries = own.carries.filter(|carried| carried.leg == entry.leg);
        return Err(Drop::Payload);
    };
    let placed = own.place(entry)?;
    let view = entry.view;
    let head = Patch {
        payload_type,
        marker: placed.spurt,
        sequence: placed.sequence,
        timestamp: placed.timestamp,
        ssrc: own.ssrc,
    }
    .apply(view.head());
    // RFC 3550 §7.1: a mixer names its sources as CSRCs; that it need not is said there too, and costs a loop's detection.
    let edit = Edit { head: Some(head), contributor: contributors.then_some(packet.shown) };
    media.send_copy((entry.leg, target, socket), (packet, bytes), &edit, tx)?;
    if let Some(own) = media.leg_mut(target).and_then(|row| row.stream_mut(stream)) {
        own.sent(view, bytes.len());
    }
    if captured {
        media.spool_copy(now, target, Some(head), bytes, tx);
    }
    Ok(placed.taken)
}
