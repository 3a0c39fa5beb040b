//! Packets sent to a leg, kept for a while so that what its peer misses (NACK, RFC 4585 §6.2.1) can be sent again: bounded in
//! packets, octets and age, one ring of octets per leg that was made when the leg was put.
//!
//! ```text
//!   NACK ── kept ────────────► sent again: as RTX (RFC 4588) where agreed, else as it was; once in a round trip
//!       └── not (any more) ──► asked of the source, once in a round trip for all receivers
//! ```
//!
//! A protected packet is kept as it left, protection included: what is sent again is the same octets under the same index,
//! so no keystream serves two plaintexts and no nonce two messages (RFC 3711 §9.1, RFC 7714 §8.1). Where it will be
//! sent again as RTX it is kept in clear: that stream has numbers of its own, and so a fresh index each time.

use std::collections::VecDeque;
use std::time::Duration;

use base::{Instant, Now};
use rtp::{Feedback, RtpView};

use super::guard::with_keys;
use super::{HELD_BYTES, Media, Tx};
use crate::outposts::Word;
use crate::{HEAD_BYTES, Limits, Output, SocketId};

/// Packets that one NACK brings at most, and those that it may ask of the source.
const ANSWERED_MAX: usize = 64;
const ASKED_MAX: usize = 64;
/// Numbers of one NACK that are looked at.
const NUMBERS_MAX: usize = 272;
/// Streams with an RTX stream of their own per leg.
const STREAMS_MAX: usize = 32;
/// Where the round trip is not known, a packet is not sent again twice within this time.
const TRIP: Duration = Duration::from_millis(20);

/// The sizes of one leg's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sizes {
    packets: usize,
    octets: usize,
    age: Duration,
}

impl Sizes {
    pub(crate) fn of(limits: &Limits) -> Self {
        Sizes {
            packets: limits.nack_packets_max.max(1),
            octets: limits.nack_bytes_max.max(HELD_BYTES),
            age: Duration::from_millis(limits.nack_ms),
        }
    }

    /// Octets that one leg's memory takes.
    pub(crate) const fn bytes(self) -> usize {
        self.octets + self.packets * size_of::<Slot>()
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    at: Instant,
    again_at: Option<Instant>,
    begin: u32,
    length: u16,
    sequence: u16,
    ssrc: u32,
    sealed: bool,
}

/// An RTX stream beside one that it repairs (RFC 4588 §4).
#[derive(Clone, Copy, Debug)]
struct Beside {
    of: u32,
    ssrc: u32,
    next: u16,
}

/// What one leg was sent lately.
#[derive(Debug)]
pub(crate) struct Repair {
    octets: Box<[u8]>,
    slots: VecDeque<Slot>,
    head: usize,
    sizes: Sizes,
    /// The peer's payload type and that of its retransmissions.
    types: Vec<(u8, u8)>,
    beside: Vec<Beside>,
    /// Sent again within this second.
    second: (Instant, usize),
}

/// What became of a number that was missed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Again {
    Sent,
    /// It was sent again just now, or too much was.
    Soon,
    Gone,
}

impl Repair {
    pub(crate) fn new(sizes: Sizes, agreed: &contract::RtcpAgreed) -> Self {
        let octet = |n: u32| u8::try_from(n).ok().filter(|n| *n < 128);
        let types = agreed.retransmissions.iter().filter_map(|r| Some((octet(r.of)?, octet(r.payload)?)));
        Repair {
            octets: vec![0; sizes.octets].into_boxed_slice(),
            slots: VecDeque::with_capacity(sizes.packets),
            head: 0,
            sizes,
            types: types.collect(),
            beside: Vec::new(),
            second: (Instant::ZERO, 0),
        }
    }

    fn is_beside(&self, payload_type: u8) -> Option<u8> {
        self.types.iter().find(|(of, _)| *of == payload_type).map(|(_, payload)| *payload)
    }

    /// Whether what is sent again goes out under that SSRC.
    pub(super) fn sends(&self, ssrc: u32) -> bool {
        self.beside.iter().any(|beside| beside.ssrc == ssrc)
    }

    /// Whether a packet is kept in clear, though it leaves protected: it will be sent again in a stream of its own.
    pub(super) fn is_kept_clear(&self, packet: &[u8]) -> bool {
        packet.get(1).is_some_and(|octet| self.is_beside(octet & 0x7f).is_some())
    }

    /// Keeps a packet. `sealed`: as it leaves, protected.
    #[inline]
    pub(super) fn keep(&mut self, now: Instant, bytes: &[u8], head: Option<&[u8; HEAD_BYTES]>, sealed: bool) {
        let Some(first) = head.or_else(|| bytes.first_chunk()) else { return };
        let [_, _, s0, s1, _, _, _, _, c0, c1, c2, c3] = *first;
        let Some(begin) = self.room(bytes.len()) else { return };
        let Some(place) = self.octets.get_mut(begin..begin + bytes.len()) else { return };
        place.copy_from_slice(bytes);
        if let (Some(head), Some(place)) = (head, place.get_mut(..HEAD_BYTES)) {
            place.copy_from_slice(head);
        }
        self.head = begin + bytes.len();
        self.slots.push_back(Slot {
            at: now,
            again_at: None,
            begin: begin as u32,
            length: bytes.len() as u16,
            sequence: u16::from_be_bytes([s0, s1]),
            ssrc: u32::from_be_bytes([c0, c1, c2, c3]),
            sealed,
        });
    }

    /// Where the next packet goes; the oldest give way. The octets are a ring that no packet wraps around.
    fn room(&mut self, length: usize) -> Option<usize> {
        if length > HELD_BYTES || length > self.octets.len() {
            return None;
        }
        let begin = if self.head + length > self.octets.len() {
            // What lies between here and the end is the oldest.
            while self.slots.front().is_some_and(|slot| slot.begin as usize >= self.head) {
                self.slots.pop_front();
            }
            0
        } else {
            self.head
        };
        let overlaps = |slot: &Slot| {
            let at = slot.begin as usize;
            at < begin + length && begin < at + usize::from(slot.length)
        };
        while self.slots.len() >= self.sizes.packets || self.slots.front().is_some_and(overlaps) {
            self.slots.pop_front();
        }
        Some(begin)
    }

    /// The place of a packet that may be sent again now.
    fn find(&mut self, ssrc: u32, sequence: u16, now: Instant, trip: Duration) -> Result<Slot, Again> {
        let age = self.sizes.age;
        let found = self.slots.iter_mut().rev().find(|s| s.sequence == sequence && s.ssrc == ssrc);
        let slot = found.filter(|s| now.since(s.at) < age).ok_or(Again::Gone)?;
        // Its first sending may still be on its way, too.
        if slot.again_at.is_some_and(|at| now.since(at) < trip) {
            return Err(Again::Soon);
        }
        if now.since(self.second.0) >= Duration::from_secs(1) {
            self.second = (now, 0);
        }
        if self.second.1 >= self.sizes.packets {
            return Err(Again::Soon);
        }
        self.second.1 += 1;
        slot.again_at = Some(now);
        Ok(*slot)
    }

    /// The RTX stream beside a stream, and its next number.
    fn beside(&mut self, of: u32, draw: impl FnOnce() -> (u32, u16)) -> Option<(u32, u16)> {
        let at = match self.beside.iter().position(|b| b.of == of) {
            Some(at) => at,
            None if self.beside.len() < STREAMS_MAX => {
                let (ssrc, next) = draw();
                self.beside.push(Beside { of, ssrc, next });
                self.beside.len() - 1
            }
            None => return None,
        };
        let beside = self.beside.get_mut(at)?;
        let next = beside.next;
        beside.next = next.wrapping_add(1);
        Some((beside.ssrc, next))
    }
}

/// Writes a packet anew as a retransmission (RFC 4588 §4): the header with its extension, the original's sequence number, the
/// payload without padding.
fn rewrap(packet: &[u8], payload_type: u8, ssrc: u32, sequence: u16, into: &mut [u8]) -> Option<usize> {
    let view = RtpView::parse(packet).ok()?;
    let [first, ..] = *view.head();
    let padding = if first & 0x20 == 0 { 0 } else { usize::from(*packet.last()?) };
    let head = packet.len().checked_sub(padding + view.payload().len())?;
    let length = head + 2 + view.payload().len();
    into.get_mut(..head)?.copy_from_slice(packet.get(..head)?);
    into.get_mut(head..head + 2)?.copy_from_slice(&view.sequence().to_be_bytes());
    into.get_mut(head + 2..length)?.copy_from_slice(view.payload());
    let patch = rtp::Patch { payload_type, marker: false, sequence, timestamp: view.timestamp(), ssrc };
    let new = patch.apply(view.head());
    into.get_mut(..HEAD_BYTES)?.copy_from_slice(&new);
    *into.first_mut()? &= !0x20;
    Some(length)
}

impl Media {
    /// A leg's memory, as control put it: made, kept or dropped. Whatever changes how its packets look empties it.
    pub(super) fn put_repair(&mut self, at: u32, rtp: &contract::RtpLeg, old: Option<&contract::RtpLeg>) {
        let wanted = rtp.rtcp.as_deref().filter(|agreed| agreed.nack);
        let (sizes, repairs, max) = (self.repair_sizes, self.repairs, self.repairs_max);
        let Some(row) = self.leg_mut(at) else { return };
        let had = row.repair.is_some();
        let same = old.is_some_and(|old| {
            (&old.rtcp, &old.srtp, &old.dtls, &old.payloads, &old.extensions)
                == (&rtp.rtcp, &rtp.srtp, &rtp.dtls, &rtp.payloads, &rtp.extensions)
        });
        if had && same {
            return;
        }
        row.repair =
            wanted.filter(|_| had || repairs < max).map(|agreed| Box::new(Repair::new(sizes, agreed)));
        let has = row.repair.is_some();
        row.kept = has;
        self.repairs = self.repairs + usize::from(has) - usize::from(had);
    }

    /// A leg misses packets.
    pub(super) fn nack_heard(&mut self, leg: u32, feedback: &Feedback<'_>, now: Now, tx: &mut Tx<'_>) {
        if !self.leg(leg).is_some_and(|row| row.talk.agreed.nack) {
            return;
        }
        let (mut answered, mut gone) = (0, Vec::new());
        for sequence in feedback.lost().take(NUMBERS_MAX) {
            match self.send_again(leg, feedback.media, sequence, now.mono, tx) {
                Again::Sent => answered += 1,
                Again::Soon => {}
                Again::Gone if gone.len() < ASKED_MAX => gone.push(sequence),
                Again::Gone => {}
            }
            if answered >= ANSWERED_MAX {
                break;
            }
        }
        if !gone.is_empty() {
            self.ask_source(leg, feedback.media, &gone, now, tx);
        }
    }

    fn send_again(&mut self, leg: u32, ssrc: u32, sequence: u16, now: Instant, tx: &mut Tx<'_>) -> Again {
        let Media { legs, held, entropy, .. } = self;
        let Some((row, carrier)) = with_keys(legs, leg).filter(|(row, _)| row.hears()) else {
            return Again::Gone;
        };
        let socket: SocketId = row.rtp.socket;
        let trip = row.talk.round_trip.unwrap_or(TRIP).max(TRIP);
        let Some(repair) = &mut row.repair else { return Again::Gone };
        let slot = match repair.find(ssrc, sequence, now, trip) {
            Ok(slot) => slot,
            Err(why) => return why,
        };
        let begin = slot.begin as usize;
        let range = begin..begin + usize::from(slot.length);
        let payload_type = repair.octets.get(begin + 1).map_or(0, |octet| octet & 0x7f);
        let mut room = [0; HELD_BYTES];
        let length = match repair.is_beside(payload_type).filter(|_| !slot.sealed) {
            Some(payload_type) => {
                // Below 2^15, as every stream of ours begins (CPM-FACTS §4.4).
                let draw = || (entropy.u32().max(1), entropy.below(1 << 15) as u16);
                let Some((ssrc, next)) = repair.beside(ssrc, draw) else { return Again::Soon };
                let packet = repair.octets.get(range).unwrap_or_default();
                let Some(length) = rewrap(packet, payload_type, ssrc, next, &mut room) else {
                    return Again::Soon;
                };
                length
            }
            None => {
                let packet = repair.octets.get(range).unwrap_or_default();
                let Some(place) = room.get_mut(..packet.len()) else { return Again::Soon };
                place.copy_from_slice(packet);
                packet.len()
            }
        };
        let packet = room.get(..length).unwrap_or_default();
        let guard = carrier.map_or(row.guard.as_mut(), |carrier| carrier.guard.as_mut());
        let outbound = guard.filter(|_| !slot.sealed).and_then(|guard| guard.outbound.as_mut());
        let Ok((at, length)) = held.again(packet, outbound) else { return Again::Soon };
        if !tx.push(Output::SendHeld { socket, at, length }) {
            return Again::Soon;
        }
        row.talk.retransmitted += 1;
        row.counts.packets_out += 1;
        row.counts.bytes_out += u64::from(length);
        tx.totals.packets_out += u64::from(!row.unseen);
        Again::Sent
    }

    /// What is not kept is asked of its source, if that one agreed to be asked.
    fn ask_source(&mut self, leg: u32, media: u32, gone: &[u16], now: Now, tx: &mut Tx<'_>) {
        let Some((source, ssrc)) = self.source_of(leg, media) else { return };
        let own = self.leg(leg).and_then(|row| row.streams().find(|stream| stream.ssrc == media)).copied();
        let original = |sequence: &u16| own.map_or(*sequence, |stream| stream.original(*sequence));
        self.ask_for(source, ssrc, gone.iter().map(original), now, tx);
    }

    /// Asks a leg's peer for packets again, if it agreed to be asked: what was asked just now is not asked twice.
    pub(super) fn ask_for(
        &mut self,
        source: u32,
        ssrc: u32,
        numbers: impl Iterator<Item = u16>,
        now: Now,
        tx: &mut Tx<'_>,
    ) {
        let Some(row) = self.leg_mut(source).filter(|row| row.talk.agreed.nack) else { return };
        let (socket, away) = (row.rtcp_out(), row.away().is_some());
        if socket.is_none() && !away {
            return;
        }
        let sender = row.stream.ssrc;
        let asked: Vec<u16> = numbers.filter(|n| row.talk.ask_again(ssrc, *n, now.mono)).collect();
        if asked.is_empty() {
            return;
        }
        if away {
            self.tell_leg(source, Word::Missing { ssrc, numbers: asked.into() }, tx);
            return;
        }
        let Some(socket) = socket else { return };
        let mut writer = self.feedback_to(source);
        writer.nack(sender, ssrc, asked.into_iter());
        self.send_own(source, socket, &writer, tx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sizes(packets: usize, octets: usize) -> Sizes {
        Sizes { packets, octets, age: Duration::from_secs(1) }
    }

    fn packet(ssrc: u32, sequence: u16, length: usize) -> Vec<u8> {
        let mut packet = vec![0x80, 96];
        packet.extend_from_slice(&sequence.to_be_bytes());
        packet.extend_from_slice(&[0; 4]);
        packet.extend_from_slice(&ssrc.to_be_bytes());
        packet.extend((0..length).map(|n| (n as u16 ^ sequence) as u8));
        packet
    }

    proptest! {
        // Whatever is found is what was kept under that name, the newest packets are found, and no bound is crossed.
        #[test]
        fn the_ring_gives_back_what_was_kept(
            packets in prop::collection::vec((0..3u32, 0..1400usize), 1..300),
            octets in HELD_BYTES..20_000usize,
            count in 1..50usize,
        ) {
            let mut repair = Repair::new(sizes(count, octets), &contract::RtcpAgreed::default());
            let now = Instant::from_millis(5);
            let mut kept = Vec::new();
            for (n, (ssrc, length)) in packets.iter().enumerate() {
                let bytes = packet(*ssrc, n as u16, *length);
                repair.keep(now, &bytes, None, false);
                kept.push((*ssrc, n as u16, bytes));
                prop_assert!(repair.slots.len() <= count);
                let sum: usize = repair.slots.iter().map(|s| usize::from(s.length)).sum();
                prop_assert!(sum <= octets);
            }
            for (place, (ssrc, sequence, bytes)) in kept.iter().rev().enumerate() {
                match repair.find(*ssrc, *sequence, now, TRIP) {
                    Ok(slot) => {
                        let at = slot.begin as usize;
                        prop_assert_eq!(&repair.octets[at..at + usize::from(slot.length)], &bytes[..]);
                    }
                    Err(why) => prop_assert!(place > 0 || why == Again::Soon, "the last one is there"),
                }
            }
        }
    }

    #[test]
    fn a_packet_is_sent_again_once_in_a_round_trip_and_not_for_ever() {
        let at = Instant::from_millis;
        let mut repair = Repair::new(sizes(10, 4096), &contract::RtcpAgreed::default());
        repair.keep(at(0), &packet(1, 7, 10), None, false);
        assert!(repair.find(1, 7, at(1), TRIP).is_ok());
        assert_eq!(repair.find(1, 7, at(20), TRIP).unwrap_err(), Again::Soon);
        assert!(repair.find(1, 7, at(21), TRIP).is_ok());
        assert_eq!(repair.find(2, 7, at(21), TRIP).unwrap_err(), Again::Gone);
        assert_eq!(repair.find(1, 7, at(1000), TRIP).unwrap_err(), Again::Gone, "too old");
    }

    #[test]
    fn a_second_has_so_many_repeats() {
        let mut repair = Repair::new(sizes(4, 4096), &contract::RtcpAgreed::default());
        (0..4).for_each(|n| repair.keep(Instant::from_millis(0), &packet(1, n, 10), None, false));
        let mut found = 0;
        for ms in 0..900 {
            let at = Instant::from_millis(1000 + ms);
            repair.slots.iter_mut().for_each(|s| s.at = at);
            found += usize::from(repair.find(1, (ms % 4) as u16, at, TRIP).is_ok());
        }
        assert_eq!(found, 4);
    }

    #[test]
    fn a_retransmission_carries_the_original_number_and_no_padding() {
        // RFC 4588 §4.
        let mut original =
            vec![0xb0, 0xe0, 0x12, 0x34, 0, 0, 0, 9, 0, 0, 0, 1, 0xbe, 0xde, 0, 1, 0x10, 7, 0, 0];
        original.extend_from_slice(&[1, 2, 3, 0, 0, 3]);
        let mut room = [0; 64];
        let length = rewrap(&original, 97, 77, 5, &mut room).unwrap();
        let view = RtpView::parse(&room[..length]).unwrap();
        assert_eq!((view.payload_type(), view.sequence(), view.ssrc(), view.timestamp()), (97, 5, 77, 9));
        assert!(view.marker());
        assert_eq!(view.payload(), [0x12, 0x34, 1, 2, 3]);
        assert_eq!(view.elements().element(1), Some(&[7][..]));
        assert!(rewrap(&original[..8], 97, 77, 5, &mut room).is_none());
        assert!(rewrap(&original, 97, 77, 5, &mut [0; 16]).is_none(), "no room");
    }
}
