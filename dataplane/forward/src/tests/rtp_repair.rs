//! What a peer misses is sent again (RFC 4585 §6.2.1, RFC 4588), from what its leg keeps, or is asked of the source once.

use base::Entropy;
use contract::{Mode, Retransmission, RtcpAgreed};
use rtp::{Feedback, Packet, RtcpWriter, RtpView, compound};

use super::rig::*;
use super::rtp_srtp::Far;
use crate::Limits;

fn with_nack(leg: contract::Leg, retransmissions: &[(u32, u32)]) -> contract::Leg {
    edit(leg, |rtp| {
        rtp.rtcp = Some(Box::new(RtcpAgreed {
            nack: true,
            retransmissions: retransmissions
                .iter()
                .map(|(payload, of)| Retransmission { payload: *payload, of: *of })
                .collect(),
            ..RtcpAgreed::default()
        }));
    })
}

fn room_of(legs: Vec<contract::Leg>, mode: Mode) -> Rig {
    let mut rig = Rig::new();
    let ids: Vec<u64> = legs.iter().map(|leg| leg.id).collect();
    rig.set(legs, vec![path(1, mode, &ids, &ids)]);
    rig
}

fn nack(media: u32, lost: &[u16]) -> Vec<u8> {
    RtcpWriter::new().receiver(9, &[]).nack(9, media, lost.iter().copied()).finish().to_vec()
}

fn to(done: &[Done], n: u64) -> Vec<Vec<u8>> {
    sent(done).into_iter().filter(|(s, _)| *s == socket(n)).map(|(_, b)| b.to_vec()).collect()
}

/// What leg `n`'s peer is asked for.
fn asked(done: &[Done], n: u64) -> Vec<(u32, Vec<u16>)> {
    let all = to(done, n).into_iter().filter(|b| rtp::kind(b) == rtp::Kind::Rtcp);
    let mut found = Vec::new();
    for bytes in all {
        for packet in compound(&bytes, false).unwrap() {
            if let Packet::Transport(f) = packet {
                assert_eq!(f.format, Feedback::NACK);
                found.push((f.media, f.lost().collect()));
            }
        }
    }
    found
}

fn voice(n: u16) -> Vec<u8> {
    packet(5, n, 160 * u32::from(n), 96, &[n as u8; 40])
}

#[test]
fn what_is_missed_comes_again_as_it_was_once_in_a_round_trip() {
    let mut rig = room_of(vec![rtp_leg(1), with_nack(rtp_leg(2), &[]), rtp_leg(3)], Mode::Distribute);
    for n in 0..10 {
        assert_eq!(sockets(&rig.hear_peer(1, &voice(n))), [socket(2), socket(3)]);
    }
    rig.pass(50);
    let done = rig.hear_peer(2, &nack(5, &[3, 4, 7]));
    assert_eq!(to(&done, 2), [voice(3), voice(4), voice(7)]);
    assert_eq!(sent(&done).len(), 3, "nobody else hears of it");
    assert!(rig.hear_peer(2, &nack(5, &[3, 4])).is_empty(), "they are on their way");
    rig.pass(50);
    assert_eq!(to(&rig.hear_peer(2, &nack(5, &[3])), 2), [voice(3)]);
    // Leg 3 has not agreed to anything, and what is too old is not there any more.
    assert!(rig.hear_peer(3, &nack(5, &[3])).is_empty());
    rig.pass(1000);
    assert!(rig.hear_peer(2, &nack(5, &[3])).is_empty());
    let (_, counters) = rig.engine.counters(rig.now, None).unwrap();
    let leg = counters.legs.iter().find(|c| c.leg == Some(key(2))).unwrap();
    assert_eq!((leg.retransmitted, leg.packets_out), (4, 14));
    rig.check_sum();
}

#[test]
fn what_is_not_kept_is_asked_of_the_source_once_for_all() {
    // CPM-FACTS §4.3.
    let legs = (1..=4).map(|n| with_nack(rtp_leg(n), &[])).collect();
    let mut rig = room_of(legs, Mode::Distribute);
    for n in [0, 1, 4, 5] {
        rig.hear_peer(1, &voice(n));
    }
    assert_eq!(asked(&rig.hear_peer(2, &nack(5, &[2, 3])), 1), [(5, vec![2, 3])]);
    for receiver in [2, 3, 4] {
        assert!(asked(&rig.hear_peer(receiver, &nack(5, &[2, 3])), 1).is_empty(), "asked for already");
    }
    assert_eq!(asked(&rig.hear_peer(3, &nack(5, &[3, 6])), 1), [(5, vec![6])]);
    rig.pass(150);
    assert_eq!(asked(&rig.hear_peer(4, &nack(5, &[2])), 1), [(5, vec![2])], "still missing");
    // When it comes, all get it, and it is kept from then on.
    assert_eq!(sockets(&rig.hear_peer(1, &voice(2))), [socket(2), socket(3), socket(4)]);
    rig.pass(50);
    assert_eq!(to(&rig.hear_peer(4, &nack(5, &[2])), 4), [voice(2)]);
    // A source that did not agree is not asked.
    let legs = vec![rtp_leg(1), with_nack(rtp_leg(2), &[])];
    let mut rig = room_of(legs, Mode::Distribute);
    rig.hear_peer(1, &voice(0));
    assert!(rig.hear_peer(2, &nack(5, &[9])).is_empty());
}

#[test]
fn retransmissions_have_a_stream_of_their_own_where_agreed() {
    // RFC 4588 §4.
    let mut rig = room_of(vec![rtp_leg(1), with_nack(rtp_leg(2), &[(97, 96)])], Mode::Distribute);
    for n in 0..5 {
        rig.hear_peer(1, &voice(n));
    }
    rig.hear_peer(1, &packet(5, 5, 0, 8, &[1]));
    let mut last = None;
    for n in [1u16, 3, 0] {
        let done = rig.hear_peer(2, &nack(5, &[n]));
        let again = to(&done, 2);
        let view = RtpView::parse(&again[0]).unwrap();
        assert_eq!((view.payload_type(), view.timestamp()), (97, 160 * u32::from(n)));
        assert_eq!(view.payload()[..2], n.to_be_bytes());
        assert_eq!(view.payload()[2..], [n as u8; 40]);
        let now = (view.ssrc(), view.sequence());
        assert_ne!(now.0, 5);
        if let Some((ssrc, sequence)) = last {
            assert_eq!(now, (ssrc, u16::wrapping_add(sequence, 1)));
        }
        last = Some(now);
    }
    let plain = to(&rig.hear_peer(2, &nack(5, &[5])), 2);
    assert_eq!(plain, [packet(5, 5, 0, 8, &[1])], "of another payload type nothing was agreed");
}

#[test]
fn a_selected_stream_is_repaired_under_its_own_numbers() {
    let legs = (1..=3).map(|n| with_nack(rtp_leg(n), &[])).collect();
    let mut rig = room_of(legs, Mode::Select);
    let mut got = Vec::new();
    for n in 1000..1010u16 {
        if n != 1005 {
            got.extend(to(&rig.hear_peer(1, &packet(5, n, 160 * u32::from(n), 0, &[0x80; 160])), 2));
        }
        rig.pass(20);
    }
    let head = |bytes: &[u8]| RtpView::parse(bytes).map(|v| (v.ssrc(), v.sequence())).unwrap();
    let (ours, first) = head(&got[0]);
    let again = to(&rig.hear_peer(2, &nack(ours, &[first.wrapping_add(2)])), 2);
    assert_eq!(again, [got[2].clone()]);
    // The one that never came is asked of the speaker by his own number.
    assert_eq!(asked(&rig.hear_peer(2, &nack(ours, &[first.wrapping_add(5)])), 1), [(5, vec![1005])]);
}

#[test]
fn a_protected_packet_comes_again_octet_by_octet_whatever_its_source_says_since() {
    // RFC 3711 §9.1, RFC 7714 §8.1: one index protects one packet only.
    let (mut near, far) = (Far::gcm(1), Far::gcm(2));
    let mut rig = room_of(vec![near.leg(1), with_nack(far.leg(2), &[])], Mode::Distribute);
    let mut wire = Vec::new();
    for n in 0..5 {
        let said = near.says(&voice(n));
        wire.extend(to(&rig.hear_peer(1, &said), 2));
    }
    assert_eq!(
        to(&rig.hear_peer(2, &protect(&far, &nack(5, &[1, 3]))), 2),
        [wire[1].clone(), wire[3].clone()]
    );
    // A plain source says something else under a number that it has used: neither sent nor kept.
    let mut rig = room_of(vec![rtp_leg(1), with_nack(far.leg(2), &[])], Mode::Distribute);
    let first = to(&rig.hear_peer(1, &packet(5, 7, 0, 0, &[1; 20])), 2);
    assert!(to(&rig.hear_peer(1, &packet(5, 7, 0, 0, &[2; 20])), 2).is_empty());
    assert_eq!(to(&rig.hear_peer(2, &protect(&far, &nack(5, &[7]))), 2), first);
}

/// RTCP of a guarded leg's peer, in a context of its own each time (its indices are drawn far apart).
fn protect(far: &Far, clear: &[u8]) -> Vec<u8> {
    let keying =
        rtp::srtp::Keying::new(rtp::srtp::Suite::AeadAes128Gcm, &far.srtp.receive_key).expect("its length");
    let mut outbound: rtp::srtp::Outbound =
        rtp::srtp::Outbound::new(&keying, rtp::srtp::Config::default()).expect("a context");
    outbound.begin_rtcp_at(Entropy::from_number(clear.len() as u64).u32() >> 2);
    let mut wire = clear.to_vec();
    wire.resize(clear.len() + rtp::srtp::TRAILER_MAX, 0);
    let length = outbound.rtcp(&mut wire, clear.len()).expect("protected");
    wire.truncate(length);
    wire
}

#[test]
fn retransmissions_under_keys_open_and_have_fresh_numbers() {
    let mut far = Far::gcm(3);
    let mut rig = room_of(vec![rtp_leg(1), with_nack(far.leg(2), &[(97, 96)])], Mode::Distribute);
    let mut wire = Vec::new();
    for n in 0..5 {
        wire.extend(to(&rig.hear_peer(1, &voice(n)), 2));
    }
    wire.iter().for_each(|bytes| drop(far.hears(bytes)));
    let asks = far.reports(&nack(5, &[2]));
    let first = to(&rig.hear_peer(2, &asks), 2);
    rig.pass(50);
    let asks = far.reports(&nack(5, &[2]));
    let second = to(&rig.hear_peer(2, &asks), 2);
    assert_ne!(first, second);
    for again in [first, second] {
        let clear = far.hears(&again[0]);
        let view = RtpView::parse(&clear).unwrap();
        assert_eq!((view.payload_type(), &view.payload()[..2]), (97, &2u16.to_be_bytes()[..]));
    }
}

#[test]
fn a_nack_that_asks_for_everything_brings_a_bounded_answer() {
    let limits = Limits { sockets_max: 64, nack_packets_max: 200, ..Limits::default() };
    let mut rig = Rig::with(limits);
    rig.set(
        vec![with_nack(rtp_leg(1), &[]), with_nack(rtp_leg(2), &[])],
        vec![path(1, Mode::Distribute, &[1, 2], &[1, 2])],
    );
    (0..300).for_each(|n| drop(rig.hear_peer(1, &voice(n))));
    let all: Vec<u16> = (0..1000).collect();
    let mut again = 0;
    for _ in 0..100 {
        let done = rig.hear_peer(2, &nack(5, &all));
        let count = to(&done, 2).len();
        assert!(count <= 64, "{count}");
        assert!(asked(&done, 1).iter().map(|(_, lost)| lost.len()).sum::<usize>() <= 64);
        again += count;
        rig.pass(1);
    }
    assert!((100..=200).contains(&again), "at most what is kept, in a second: {again}");
    rig.check_sum();
}

#[test]
fn only_so_many_legs_keep_what_they_are_sent_and_the_others_ask() {
    let mut rig = Rig::with(Limits { sockets_max: 64, nack_legs_max: 1, ..Limits::default() });
    let all = [1, 2, 3];
    rig.set(
        vec![rtp_leg(1), with_nack(rtp_leg(2), &[]), with_nack(rtp_leg(3), &[])],
        vec![path(1, Mode::Distribute, &all, &all)],
    );
    let again = |rig: &mut Rig, leg| {
        rig.hear_peer(1, &voice(7));
        rig.pass(50);
        to(&rig.hear_peer(leg, &nack(5, &[7])), leg).len()
    };
    assert_eq!((again(&mut rig, 2), again(&mut rig, 3)), (1, 0));
    // The place is free again when its leg goes, or agrees to nothing any more.
    rig.put(vec![contract::change::Verb::RemoveLeg(key(2))]);
    rig.put(vec![put_leg(with_nack(rtp_leg(3), &[(97, 96)]))]);
    assert_eq!(again(&mut rig, 3), 1);
    rig.put(vec![put_leg(rtp_leg(3))]);
    assert_eq!(again(&mut rig, 3), 0);
    rig.put(vec![put_leg(with_nack(rtp_leg(3), &[]))]);
    assert_eq!(again(&mut rig, 3), 1);
}
