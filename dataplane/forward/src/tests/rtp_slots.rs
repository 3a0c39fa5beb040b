//! `select` with several slots: who is in which, and that each slot towards each receiver is one stream whatever the
//! network does to the sources. The simulations run under seeds.

use std::collections::{BTreeMap, BTreeSet};

use base::Entropy;
use contract::{Mode, Select, path::Parameters};
use rtp::{Packet, RtpView};

use super::rig::*;
use crate::Drop;

const LOUD: [u8; 160] = [0x80; 160];
const SILENT: [u8; 160] = [0xff; 160];

fn select(slots: u32, legs: &[u64]) -> contract::Path {
    let select = Select { slots, hold_ms: 500, ..Select::default() };
    contract::Path { parameters: Some(Parameters::Select(select)), ..path(1, Mode::Select, legs, legs) }
}

fn room(slots: u32, ids: &[u64]) -> Rig {
    let mut rig = Rig::new();
    rig.set(ids.iter().map(|n| rtp_leg(*n)).collect(), vec![select(slots, ids)]);
    rig
}

fn seated(rig: &Rig) -> Vec<u64> {
    let all = rig.engine.media.seated(contract::PathKey { context: CONTEXT, path: 1 });
    all.into_iter().flatten().collect()
}

/// What went to a leg: its SSRC and whose it was, as the first octet of the payload says.
fn heard(done: &[Done], leg: u64) -> Vec<(u32, u64)> {
    let to = sent(done).into_iter().filter(|(s, b)| *s == socket(leg) && rtp::kind(b) == rtp::Kind::Rtp);
    to.map(|(_, b)| RtpView::parse(b).unwrap())
        .map(|v| (v.ssrc(), u64::from(v.payload()[0] & 0x0f)))
        .collect()
}

/// A packet that says whose it is in its first octet.
fn voice(leg: u64, n: u16, loud: bool) -> Vec<u8> {
    let mut payload = if loud { LOUD } else { SILENT };
    payload[0] = if loud { 0x80 } else { 0xf0 } | leg as u8;
    packet(100 + leg as u32, n, 160 * u32::from(n), 0, &payload)
}

#[test]
fn the_loudest_have_the_slots_and_who_has_one_hears_who_comes_next() {
    let mut rig = room(2, &[1, 2, 3, 4, 5]);
    for n in 0..60 {
        for leg in 1..=5 {
            rig.hear_peer(leg, &voice(leg, n, [2, 4].contains(&leg)));
        }
        rig.pass(20);
    }
    assert_eq!(seated(&rig)[..2].iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from([2, 4]));
    let reserve = seated(&rig)[2];
    let mut ears: BTreeMap<u64, BTreeMap<u32, u64>> = BTreeMap::new();
    for leg in 1..=5 {
        let done = rig.hear_peer(leg, &voice(leg, 60, [2, 4].contains(&leg)));
        for ear in 1..=5 {
            for (ssrc, whose) in heard(&done, ear) {
                assert!(ears.entry(ear).or_default().insert(ssrc, whose).is_none(), "one source in a stream");
            }
        }
    }
    for ear in 1..=5u64 {
        let whose: BTreeSet<u64> = ears[&ear].values().copied().collect();
        let expected = match ear {
            2 => BTreeSet::from([4, reserve]),
            4 => BTreeSet::from([2, reserve]),
            _ => BTreeSet::from([2, 4]),
        };
        assert_eq!(whose, expected, "leg {ear}");
    }
    rig.check_sum();
}

#[test]
fn a_slot_is_taken_from_who_fell_silent_and_the_other_one_goes_on() {
    let mut rig = room(2, &[1, 2, 3, 4]);
    let mut streams: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for n in 0..200u16 {
        for leg in 1..=3 {
            // 1 talks on; 2 stops after two seconds, and 3 begins.
            let done = rig.hear_peer(leg, &voice(leg, n, leg == 1 || (leg == 2) == (n < 100)));
            for (ssrc, whose) in heard(&done, 4) {
                streams.entry(ssrc).or_default().push(whose);
            }
        }
        rig.pass(20);
    }
    let mut runs: Vec<Vec<u64>> = streams.into_values().collect();
    runs.iter_mut().for_each(|run| run.dedup());
    runs.sort();
    assert_eq!(runs, [vec![1], vec![2, 3]]);
}

#[test]
fn reports_name_each_stream_and_a_slot_that_is_no_more_says_bye() {
    let mut rig = room(2, &[1, 2, 3]);
    let mut done = Vec::new();
    for n in 0..400u16 {
        for leg in 1..=2 {
            done.extend(rig.hear_peer(leg, &voice(leg, n, true)));
        }
        done.extend(rig.run(20));
    }
    let streams: BTreeSet<u32> = heard(&done, 3).into_iter().map(|(ssrc, _)| ssrc).collect();
    assert_eq!(streams.len(), 2);
    let rtcp = |done: &[Done]| -> Vec<Vec<u8>> {
        let to = sent(done).into_iter().filter(|(s, b)| *s == socket(3) && rtp::kind(b) == rtp::Kind::Rtcp);
        to.map(|(_, b)| b.to_vec()).collect()
    };
    let mut reported = BTreeMap::new();
    for bytes in rtcp(&done) {
        for one in rtp::compound(&bytes, false).unwrap() {
            if let Packet::Sender(info, _) = one {
                reported.insert(info.ssrc, info.packets);
            }
        }
    }
    assert_eq!(reported.keys().copied().collect::<BTreeSet<_>>(), streams);
    assert!(reported.values().all(|packets| (100..=400).contains(packets)), "{reported:?}");
    // RFC 3550 §6.6
    let done = rig.put(vec![put_path(select(1, &[1, 2, 3]))]);
    let byes: Vec<u32> = rtcp(&done)
        .iter()
        .flat_map(|bytes| rtp::compound(bytes, false).unwrap())
        .filter_map(|p| if let Packet::Bye(gone) = p { Some(gone.collect::<Vec<_>>()) } else { None })
        .flatten()
        .collect();
    assert_eq!(byes.len(), 1);
    let left: BTreeSet<u32> = heard(&rig.hear_peer(1, &voice(1, 400, true)), 3).iter().map(|h| h.0).collect();
    assert!(left.is_subset(&streams) && !left.contains(&byes[0]));
    // What was sent is counted still.
    let (_, counters) = rig.engine.counters(rig.now, None).unwrap();
    let of_3 = counters.legs.iter().find(|l| l.leg == Some(key(3))).unwrap();
    assert!(of_3.packets_out >= 790, "{of_3:?}");
}

#[test]
fn each_slot_goes_on_where_control_says_it_was() {
    // DESIGN §3: export and import of SSRC, sequence and timestamp.
    let streams = |rig: &mut Rig, n| -> BTreeMap<u64, (u32, u16)> {
        let mut found = BTreeMap::new();
        for leg in 1..=2 {
            let done = rig.hear_peer(leg, &voice(leg, n, true));
            for (_, bytes) in sent(&done).iter().filter(|(s, _)| *s == socket(3)) {
                let view = RtpView::parse(bytes).unwrap();
                found.insert(leg, (view.ssrc(), view.sequence()));
            }
        }
        found
    };
    let mut rig = room(2, &[1, 2, 3]);
    let before = streams(&mut rig, 1);
    let (_, counters) = rig.engine.counters(rig.now, None).unwrap();
    let kept = counters.legs.iter().find(|l| l.leg == Some(key(3))).unwrap().continuity.clone().unwrap();
    assert_eq!(kept.slots.len(), 2);
    let mut other = Rig::new();
    let third = edit(rtp_leg(3), |rtp| rtp.continuity = Some(Box::new(kept)));
    other.set(vec![rtp_leg(1), rtp_leg(2), third], vec![select(2, &[1, 2, 3])]);
    other.pass(20);
    let after = streams(&mut other, 2);
    for leg in 1..=2 {
        assert_eq!(after[&leg], (before[&leg].0, before[&leg].1.wrapping_add(1)));
    }
}

#[test]
fn the_source_of_the_moment_may_be_named_as_contributor() {
    // RFC 3550 §7.1
    let mut rig = Rig::new();
    let named = Select { slots: 1, contributors: true, ..Select::default() };
    let path = contract::Path {
        parameters: Some(Parameters::Select(named)),
        ..path(1, Mode::Select, &[1, 2], &[1, 2])
    };
    rig.set(vec![rtp_leg(1), rtp_leg(2)], vec![path]);
    let mut packet = voice(1, 7, true);
    packet[0] |= 1; // It names one of its own, and pads.
    packet[0] |= 0x20;
    packet.splice(12..12, [0, 0, 0, 9]);
    packet.extend([0, 0, 3]);
    let done = rig.hear_peer(1, &packet);
    let (to, bytes) = sent(&done)[0];
    let view = RtpView::parse(bytes).unwrap();
    assert_eq!((to, view.csrcs().collect::<Vec<_>>()), (socket(2), vec![101, 9]));
    assert_eq!(view.payload(), &voice(1, 7, true)[12..]);
    assert_eq!(bytes[bytes.len() - 1], 3, "padding is kept");
    // RFC 3550 §7.3: and by its name in our reports.
    let done = rig.run(8000);
    let is_named = sent(&done).iter().filter(|(to, _)| *to == socket(2)).any(|(_, bytes)| {
        let find = |octets: &[u8]| bytes.windows(octets.len()).any(|window| window == octets);
        find(&101u32.to_be_bytes()) && find(b"leg1")
    });
    assert!(is_named);
}

/// One packet on its way to us.
struct Flight {
    at_ms: u64,
    leg: u64,
    bytes: Vec<u8>,
}

/// What sources send for a while: talk spurts, own clocks and phases, sequence numbers about to wrap; what the network
/// makes of it.
fn flights(entropy: &mut Entropy, legs: u64, harsh: bool) -> Vec<Flight> {
    let mut flights = Vec::new();
    for leg in 1..=legs {
        let (mut n, phase) = (65_400u16.wrapping_add(entropy.below(200) as u16), entropy.below(20));
        let mut timestamp = entropy.u32();
        let (mut loud, mut spurt) = (entropy.below(2) == 0, 0);
        for tick in 0..500u64 {
            if spurt == 0 {
                (loud, spurt) = (!loud, 20 + entropy.below(120));
            }
            spurt -= 1;
            let mut payload = if loud { LOUD } else { SILENT };
            payload[..2].copy_from_slice(&n.to_be_bytes());
            payload[2] = if loud { 0x80 } else { 0xf0 } | leg as u8;
            let lost = harsh && entropy.below(20) == 0;
            let late = if harsh && entropy.below(10) == 0 { entropy.below(70) } else { entropy.below(4) };
            let bytes = packet(100 + leg as u32, n, timestamp, 0, &payload);
            let at_ms = 20 * tick + phase + late;
            if !lost {
                flights.push(Flight { at_ms, leg, bytes });
            }
            n = n.wrapping_add(1);
            timestamp = timestamp.wrapping_add(160);
        }
    }
    flights.sort_by_key(|flight| flight.at_ms);
    flights
}

/// Extended sequence number, timestamp, whose, which of his, when: of one stream towards one leg.
type Heard = (i64, u32, u64, u16, u64);

fn run(seed: u64, slots: u32, harsh: bool) -> BTreeMap<(u64, u32), Vec<Heard>> {
    let mut entropy = Entropy::from_number(seed);
    let legs = u64::from(slots) + 2 + entropy.below(3);
    let ids: Vec<u64> = (1..=legs + 1).collect();
    let mut rig = room(slots, &ids); // the last one only listens
    let mut streams: BTreeMap<(u64, u32), Vec<Heard>> = BTreeMap::new();
    let mut now_ms = 0;
    for flight in flights(&mut entropy, legs, harsh) {
        rig.pass(flight.at_ms - now_ms);
        now_ms = flight.at_ms;
        for (to, bytes) in sent(&rig.hear_peer(flight.leg, &flight.bytes)) {
            let view = RtpView::parse(bytes).unwrap();
            let ear = u64::from(to.0 / 2);
            assert_ne!(ear, flight.leg, "nobody hears himself");
            let stream = streams.entry((ear, view.ssrc())).or_default();
            let step =
                stream.last().map_or(0, |last| i64::from(view.sequence().wrapping_sub(last.0 as u16) as i16));
            let extended = stream.last().map_or(i64::from(view.sequence()), |last| last.0 + step);
            let number = u16::from_be_bytes([view.payload()[0], view.payload()[1]]);
            stream.push((extended, view.timestamp(), flight.leg, number, now_ms));
        }
    }
    rig.check_sum();
    assert_eq!(rig.engine.dropped(Drop::SrtpUnsent), 0);
    let listens = streams.keys().filter(|(ear, _)| *ear == legs + 1).count();
    assert!(listens <= slots as usize && listens > 0, "{listens} streams in {slots} slots");
    streams
}

#[test]
fn over_changes_of_source_no_number_is_left_out_and_no_time_jumps() {
    for seed in 0..40 {
        let slots = 1 + (seed % 3) as u32;
        let mut changes = 0;
        for ((ear, _), stream) in run(seed, slots, false) {
            for pair in stream.windows(2) {
                let [(n, ts, whose, ..), (n2, ts2, whose2, ..)] = pair else { panic!() };
                assert_eq!(n + 1, *n2, "seed {seed}, leg {ear}");
                let step = ts2.wrapping_sub(*ts);
                assert_eq!(step % 160, 0, "seed {seed}: whole packets");
                changes += u32::from(whose != whose2);
                // Nothing is left out while the slot's holder speaks without a pause.
                assert!(step == 160 || whose != whose2, "seed {seed}, leg {ear}: {step}");
                assert!((160..160 * 8).contains(&step), "seed {seed}, leg {ear}: {step}");
            }
            // The stream runs neither ahead of the clock nor behind it.
            let (first, last) = (stream[0], stream[stream.len() - 1]);
            let (passed, told) = (8 * (last.4 - first.4), u64::from(last.1.wrapping_sub(first.1)));
            assert!(passed.abs_diff(told) <= 8 * 40, "seed {seed}: {passed} and {told}");
        }
        assert!(changes > 0, "seed {seed}: nobody was heard but one");
    }
}

#[test]
fn with_loss_and_reordering_a_stream_has_each_number_once_and_in_the_order_of_its_time() {
    for seed in 0..40 {
        let slots = 1 + (seed % 3) as u32;
        for ((ear, _), mut stream) in run(1000 + seed, slots, true) {
            stream.sort_by_key(|heard| heard.0);
            for pair in stream.windows(2) {
                let [(n, ts, whose, number, _), (n2, ts2, whose2, number2, _)] = pair else { panic!() };
                assert!(n < n2, "seed {seed}, leg {ear}: {n} twice");
                let step = ts2.wrapping_sub(*ts);
                assert!(step.cast_signed() > 0, "seed {seed}, leg {ear}: back by {}", step.cast_signed());
                if whose == whose2 && number2.wrapping_sub(*number) < 10 && n2 - n < 10 {
                    // What the network took out is missing; nothing else is.
                    let lost = i64::from(number2.wrapping_sub(*number));
                    assert!(n2 - n == lost || n2 - n == 1, "seed {seed}, leg {ear}: {} for {lost}", n2 - n);
                }
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_streams() {
    assert_eq!(run(7, 2, true), run(7, 2, true));
}
