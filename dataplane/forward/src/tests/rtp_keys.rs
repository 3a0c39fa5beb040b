//! Keys over the life of a leg: those that come back use no index twice, and taps with keys are neither filled nor seen.

use contract::{Direction, Leg, Mode};
use rtp::{RtcpWriter, RtpView};

use super::rig::*;
use super::rtp_srtp::Far;
use crate::{Drop, Limits};

fn call(first: Leg, second: Leg) -> Rig {
    let mut rig = Rig::new();
    rig.set(vec![first, second], vec![path(1, Mode::Relay, &[1], &[2]), path(2, Mode::Relay, &[2], &[1])]);
    rig
}

fn voice(n: u16) -> Vec<u8> {
    packet(5, n, 160 * u32::from(n), 0, &[n as u8; 160])
}

fn report(ssrc: u32) -> Vec<u8> {
    RtcpWriter::new().receiver(ssrc, &[]).description([(ssrc, "far")].into_iter()).finish().to_vec()
}

/// The index that stands at the end of an SRTCP packet under GCM (RFC 7714 §9.2).
fn rtcp_index(done: &[Done]) -> u32 {
    let (_, wire) = sent(done)[0];
    let word = u32::from_be_bytes(*wire.last_chunk().unwrap());
    word & !(1 << 31)
}

// RFC 3711 §9.1, §3.4: a refused re-INVITE brings back the keys before it.
#[test]
fn keys_that_come_back_go_on_where_they_were() {
    let (mut old, mut other) = (Far::gcm(1), Far::gcm(2));
    let mut rig = call(rtp_leg(1), old.leg(2));
    for n in (0..17u16).map(|n| 60_036u16.wrapping_add(500 * n)) {
        old.hears(sent(&rig.hear_peer(1, &voice(n)))[0].1);
    }
    let heard = old.says(&packet(6, 1, 0, 0, &[1; 160]));
    assert_eq!(rig.hear_peer(2, &heard).len(), 1);
    assert_eq!(rtcp_index(&rig.hear_peer(1, &report(5))), 0, "§3.4: it begins with zero");
    assert_eq!(rtcp_index(&rig.hear_peer(1, &report(5))), 1);
    let between = |rig: &mut Rig, leg: Leg| {
        rig.put(vec![put_leg(leg)]);
        rig.hear_peer(1, &voice(2900));
        rig.hear_peer(1, &report(5));
        rig.put(vec![put_leg(old.leg(2))]);
        // What went out under the key does not go out again, nor is taken again.
        assert!(rig.hear_peer(1, &voice(2500)).is_empty());
        assert!(rig.hear_peer(2, &heard).is_empty());
    };
    between(&mut rig, other.leg(2));
    between(&mut rig, rtp_leg(2));
    assert_eq!(rig.engine.dropped(Drop::SrtpReplayed), 2);
    // The rollover counter is the one that the peer has gone on with.
    assert_eq!(old.hears(sent(&rig.hear_peer(1, &voice(3000)))[0].1), voice(3000));
    assert_eq!(rtcp_index(&rig.hear_peer(1, &report(5))), 2);
    // The other key goes on too.
    rig.put(vec![put_leg(other.leg(2))]);
    assert!(rig.hear_peer(1, &voice(2900)).is_empty());
    assert_eq!(other.hears(sent(&rig.hear_peer(1, &voice(3001)))[0].1), voice(3001));
    assert_eq!(rtcp_index(&rig.hear_peer(1, &report(5))), 1);
}

#[test]
fn after_more_keys_than_are_remembered_no_srtcp_index_comes_twice() {
    let fars: Vec<Far> = (1..9).map(Far::gcm).collect();
    let mut rig = call(rtp_leg(1), fars[0].leg(2));
    let mut used = vec![Vec::new(); fars.len()];
    for round in 0..3 {
        for (far, used) in fars.iter().zip(&mut used) {
            rig.put(vec![put_leg(far.leg(2))]);
            rig.pass(1000);
            for _ in 0..5 {
                used.push(rtcp_index(&rig.hear_peer(1, &report(5))));
            }
            let sorted = used.is_sorted_by(|a, b| a < b);
            assert!(sorted, "round {round}: {used:?}");
        }
    }
}

fn recorder(leg: Leg) -> Leg {
    Leg { unseen: true, media: "tap".into(), ..directed(leg, Direction::Recvonly) }
}

fn tapped(first: Leg, recorder: Leg) -> Rig {
    let mut rig = Rig::new();
    rig.set(
        vec![first, rtp_leg(2), recorder],
        vec![
            path(1, Mode::Relay, &[1], &[2]),
            path(2, Mode::Relay, &[2], &[1]),
            path(3, Mode::Tap, &[1, 2], &[3]),
        ],
    );
    rig
}

// DESIGN §3: taps that no statistic shows.
#[test]
fn an_unseen_recorder_with_keys_refuses_nobody_a_source_and_misses_none() {
    let run = |guarded: bool| {
        let mut far = Far::gcm(3);
        let leg = if guarded { far.leg(3) } else { rtp_leg(3) };
        let mut rig = tapped(rtp_leg(1), recorder(leg));
        let (mut passed, mut copies) = (0, Vec::new());
        for n in 0..600u32 {
            // The other side speaks on and is recorded under its own name.
            let reply = packet(6, n as u16, 160 * n, 0, &[6; 160]);
            let done = rig.hear_peer(2, &reply);
            let copy = sent(&done).into_iter().find(|(to, _)| *to == socket(3)).unwrap().1;
            assert_eq!(if guarded { far.hears(copy) } else { copy.to_vec() }, reply);
            // Its peer changes its SSRC with each packet.
            let done = rig.hear_peer(1, &packet(1000 + n, 1, 1, 0, &[n as u8; 160]));
            passed += sockets(&done).into_iter().filter(|s| *s == socket(2)).count();
            let copy = sent(&done).into_iter().find(|(to, _)| *to == socket(3));
            copies.extend(copy.map(|(_, wire)| if guarded { far.hears(wire) } else { wire.to_vec() }));
            rig.pass(6000);
        }
        let mut payloads: Vec<_> =
            copies.iter().map(|c| RtpView::parse(c).unwrap().payload().to_vec()).collect();
        let mut names: Vec<u32> = copies.iter().map(|c| RtpView::parse(c).unwrap().ssrc()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(payloads.len(), 600);
        assert!(payloads.drain(..).enumerate().all(|(n, payload)| payload == [n as u8; 160]));
        assert_eq!(names.len(), if guarded { Limits::default().leg_sources_max } else { 600 });
        (passed, rig.engine.dropped(Drop::Sources))
    };
    assert_eq!(run(true), (600, 0));
    assert_eq!(run(false), (600, 0));
}

#[test]
fn a_recorder_with_keys_that_is_there_again_goes_on_under_the_same_names() {
    let mut far = Far::gcm(3);
    let mut rig = tapped(rtp_leg(1), Leg { unseen: false, ..recorder(far.leg(3)) });
    let speak = |rig: &mut Rig, far: &mut Far, n: u16| {
        let done = rig.hear_peer(1, &voice(n));
        let copy = sent(&done).into_iter().find(|(to, _)| *to == socket(3)).unwrap().1;
        let clear = far.hears(copy);
        let view = RtpView::parse(&clear).unwrap();
        (view.ssrc(), view.sequence())
    };
    assert_eq!(speak(&mut rig, &mut far, 100), (5, 100));
    let (_, counters) = rig.engine.counters(rig.now, None).unwrap();
    let kept = counters.legs.into_iter().find(|l| l.leg == Some(key(3))).and_then(|l| l.continuity);
    for n in 101..200 {
        speak(&mut rig, &mut far, n);
    }
    let again = edit(far.leg(3), |rtp| rtp.continuity = kept.map(Box::new));
    let mut rig = tapped(rtp_leg(1), Leg { unseen: false, ..recorder(again) });
    let (name, sequence) = speak(&mut rig, &mut far, 200);
    assert_eq!(name, 5, "of a bounded set, each is used again");
    assert!(sequence > 200, "what control knew is older than what was sent: numbers are left out");
}

#[test]
fn no_sum_of_the_shard_tells_of_an_unseen_leg() {
    let run = |there: bool| {
        let mut far = Far::gcm(3);
        let mut rig = tapped(rtp_leg(1), recorder(far.leg(3)));
        if !there {
            rig.put(vec![contract::change::Verb::RemoveLeg(key(3))]);
        }
        for n in 0..1000u16 {
            rig.hear_peer(1, &voice(n));
            if there {
                // It reports, asks, speaks, and sends what is nothing.
                rig.hear_peer(3, &far.reports(&report(7)));
                rig.hear_peer(3, &far.says(&packet(7, n, 0, 0, &[1; 160])));
                rig.hear_peer(3, &voice(n));
                rig.hear_peer(3, b"noise");
                rig.hear_peer(3, b"");
            }
            rig.run(20);
        }
        rig.check_sum();
        format!("{:?}", rig.engine.totals())
    };
    assert_eq!(run(true), run(false));
}

// RFC 3550 §6.3.4: who has said BYE lingers. Each new source is a search for a name over the shard.
#[test]
fn who_says_bye_after_each_packet_is_one_source() {
    let mut rig = Rig::new();
    rig.set(vec![rtp_leg(1), rtp_leg(2)], vec![path(1, Mode::Distribute, &[1, 2], &[1, 2])]);
    // Under another leg's SSRC: it is called otherwise, and keeps that name.
    rig.hear_peer(2, &packet(5, 1, 0, 0, &[1; 160]));
    let mut names = std::collections::BTreeSet::new();
    for n in 0..200u16 {
        let done = rig.hear_peer(1, &voice(n));
        names.insert(RtpView::parse(sent(&done)[0].1).unwrap().ssrc());
        let bye = RtcpWriter::new().receiver(5, &[]).bye(&[5]).finish();
        rig.pass(1);
        assert_eq!(sockets(&rig.hear_peer(1, &bye)), [socket(2)]);
        assert!(rig.hear_peer(1, &bye).is_empty(), "once");
        rig.pass(1);
    }
    assert_eq!(names.len(), 1);
    // Under ever other SSRCs: no more of them than the leg may have at once.
    let mut passed = 0;
    for n in 0..200u32 {
        passed += rig.hear_peer(1, &packet(1000 + n, 1, 0, 0, &[1; 160])).len();
        rig.hear_peer(1, &RtcpWriter::new().receiver(1000 + n, &[]).bye(&[1000 + n]).finish());
        rig.pass(1);
    }
    assert_eq!(passed, Limits::default().leg_sources_max - 1);
    rig.check_sum();
}
