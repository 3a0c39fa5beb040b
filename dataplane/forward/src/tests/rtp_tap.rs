//! `tap`: a copy of all that a leg's peer sends, and what of it may be seen.

use contract::{Direction, Leg, Mode, change::Verb, leg::Kind};
use rtp::{Packet, RtcpWriter, RtpView};

use super::rig::*;

fn recorder(n: u64, unseen: bool) -> Leg {
    Leg { unseen, media: "tap".into(), ..directed(rtp_leg(n), Direction::Recvonly) }
}

/// A call of 1 and 2, tapped by 3.
fn call(recorder: Leg) -> Rig {
    let mut rig = Rig::new();
    let id = recorder.id;
    rig.set(
        vec![rtp_leg(1), rtp_leg(2), recorder],
        vec![
            path(1, Mode::Relay, &[1], &[2]),
            path(2, Mode::Relay, &[2], &[1]),
            path(3, Mode::Tap, &[1, 2], &[id]),
        ],
    );
    rig
}

#[test]
fn the_recorder_gets_a_copy_of_both_sides_and_the_call_is_as_it_was() {
    let mut rig = call(recorder(3, false));
    for (from, to) in [(1, 2), (2, 1)] {
        let bytes = packet(from as u32, 9, 160, 0, &[from as u8; 160]);
        let done = rig.hear_peer(from, &bytes);
        assert_eq!(sent(&done), [(socket(to), &bytes[..]), (socket(3), &bytes[..])]);
        // RTCP passes between the two as before.
        let mut writer = RtcpWriter::new();
        writer.receiver(from as u32, &[]);
        assert_eq!(sockets(&rig.hear_peer(from, &writer.finish())), [socket(to)]);
    }
    // What the recorder says reaches nobody.
    assert!(rig.hear_peer(3, &packet(7, 1, 0, 0, &[1; 160])).is_empty());
    let mut writer = RtcpWriter::new();
    writer.receiver(7, &[]).bye(&[7]);
    assert!(rig.hear_peer(3, &writer.finish()).is_empty());
    let (_, counters) = rig.engine.counters(rig.now, None).unwrap();
    let out: Vec<u64> = counters.legs.iter().map(|leg| leg.packets_out).collect();
    assert_eq!(out, [1, 1, 2]);
    assert_eq!(rig.engine.totals().packets_out, 6);
    rig.check_sum();
}

#[test]
fn what_is_not_passed_on_is_recorded_all_the_same() {
    let mut rig = Rig::new();
    let floor = path(1, Mode::Floor, &[1, 2], &[1, 2]);
    rig.set(vec![rtp_leg(1), rtp_leg(2), recorder(3, false)], vec![floor, path(3, Mode::Tap, &[1, 2], &[3])]);
    let bytes = packet(5, 9, 160, 0, &[1; 160]);
    assert_eq!(sent(&rig.hear_peer(1, &bytes)), [(socket(3), &bytes[..])]);
    // Two of one SSRC are told apart, as everywhere in the context (RFC 3550 §8.2).
    let done = rig.hear_peer(2, &bytes);
    assert_ne!(RtpView::parse(sent(&done)[0].1).unwrap().ssrc(), 5);
    rig.check_sum();
}

#[test]
fn of_an_unseen_leg_nothing_tells() {
    let run = |tapped: bool| {
        let mut rig = call(recorder(3, true));
        if !tapped {
            rig.put(vec![Verb::RemoveLeg(key(3))]);
        }
        let mut told = Vec::new();
        for n in 0..500u16 {
            for leg in 1..=2 {
                let done = rig.hear_peer(leg, &packet(leg as u32, n, 160 * u32::from(n), 0, &[1; 160]));
                assert_eq!(sockets(&done).contains(&socket(3)), tapped);
                told.extend(done);
            }
            if tapped && n == 200 {
                // It asks for a picture, and leaves.
                let mut writer = RtcpWriter::new();
                writer.receiver(7, &[]).picture_loss(7, 1).bye(&[7]);
                told.extend(rig.hear_peer(3, &writer.finish()));
            }
            told.extend(rig.run(20));
        }
        let of_others = |done: &Done| matches!(done, Done::Sent(to, _) if *to != socket(3));
        let what: Vec<String> = told.iter().filter(|d| of_others(d)).map(|d| format!("{d:?}")).collect();
        assert!(news(&told).is_empty());
        let (_, counters) = rig.engine.counters(rig.now, None).unwrap();
        assert_eq!(counters.legs.len(), 2);
        let totals = rig.engine.totals();
        (what, format!("{:?}", counters.legs), totals.legs, totals.packets_forwarded)
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn a_recorder_that_joins_needs_a_key_frame_and_an_unseen_one_asks_for_none() {
    for (unseen, asks) in [(false, 1), (true, 0)] {
        let video = |leg| edit(leg, |rtp| rtp.video = true);
        let mut rig = Rig::new();
        rig.set(vec![video(rtp_leg(1)), video(rtp_leg(2))], vec![path(1, Mode::Relay, &[1], &[2])]);
        rig.hear_peer(1, &packet(5, 1, 0, 96, &[1]));
        let tap = path(3, Mode::Tap, &[1], &[3]);
        let done = rig.put(vec![put_leg(video(recorder(3, unseen))), put_path(tap)]);
        assert_eq!(sockets(&done).iter().filter(|to| **to == socket(1)).count(), asks);
    }
}

#[test]
fn an_unseen_leg_is_on_no_path_but_those_that_name_it() {
    let mut rig = Rig::new();
    let all = Some(contract::LegSet { legs: vec![], media: "audio".into() });
    let room =
        contract::Path { sources: all.clone(), targets: all.clone(), ..path(1, Mode::Distribute, &[], &[]) };
    let tap = contract::Path { sources: all, ..path(2, Mode::Tap, &[], &[3]) };
    let hidden = Leg { media: "audio".into(), ..recorder(3, true) };
    rig.set(vec![rtp_leg(1), rtp_leg(2), hidden], vec![room, tap]);
    assert_eq!(sockets(&rig.hear_peer(1, &packet(5, 1, 0, 0, &[1]))), [socket(2), socket(3)]);
    assert!(rig.hear_peer(3, &packet(6, 1, 0, 0, &[1])).is_empty());
}

#[test]
fn what_was_protected_is_opened_and_protected_with_the_recorders_keys() {
    use rtp::srtp::{Config, Inbound, Keying, Outbound, Suite, TRAILER_MAX};
    let guarded = |leg: Leg, send: u8, receive: u8| {
        edit(leg, |rtp| {
            rtp.srtp = Some(Box::new(contract::Srtp {
                suite: contract::SrtpSuite::AeadAes128Gcm.into(),
                send_key: vec![send; 28],
                receive_key: vec![receive; 28],
            }));
        })
    };
    let key_of = |octet: u8| Keying::new(Suite::AeadAes128Gcm, &[octet; 28]).unwrap();
    let clear = packet(5, 9, 160, 0, &[1; 160]);
    for recorder in [recorder(3, true), guarded(recorder(3, true), 33, 34)] {
        let is_guarded = matches!(&recorder.kind, Some(Kind::Rtp(rtp)) if rtp.srtp.is_some());
        let mut rig = call(recorder);
        rig.put(vec![put_leg(guarded(rtp_leg(1), 11, 12)), put_leg(guarded(rtp_leg(2), 21, 22))]);
        let mut far: Outbound = Outbound::new(&key_of(12), Config::default()).unwrap();
        let mut wire = clear.clone();
        wire.resize(clear.len() + TRAILER_MAX, 0);
        let length = far.rtp(&mut wire, clear.len()).unwrap();
        let done = rig.hear_peer(1, &wire[..length]);
        let mut copy = sent(&done).into_iter().find(|(to, _)| *to == socket(3)).unwrap().1.to_vec();
        if is_guarded {
            let mut inbound: Inbound = Inbound::new(&key_of(33), Config::default()).unwrap();
            let length = inbound.rtp(&mut copy).unwrap();
            copy.truncate(length);
        }
        assert_eq!(copy, clear);
        assert_eq!(sockets(&done).len(), 2);
    }
}

#[test]
fn a_recorder_is_told_by_reports_whose_what_is() {
    let mut rig = call(recorder(3, false));
    let mut told = Vec::new();
    for n in 0..500u16 {
        rig.hear_peer(1, &packet(5, n, 160 * u32::from(n), 0, &[1; 160]));
        told.extend(rig.run(20));
    }
    let to_recorder: Vec<_> =
        sent(&told).into_iter().filter(|(to, _)| *to == socket(3)).map(|(_, b)| b.to_vec()).collect();
    let named = to_recorder.iter().flat_map(|b| rtp::compound(b, false).unwrap());
    assert!(
        named
            .into_iter()
            .any(|p| matches!(p, Packet::Sender(info, _) if info.ssrc == 5 && info.packets > 100))
    );
    assert!(sockets(&told).iter().all(|to| *to == socket(3)), "the two of the call report to each other");
}
