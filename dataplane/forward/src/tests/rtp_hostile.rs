//! Octets of any kind on any socket: no panic, and each has its reason.

use contract::{Learning, Mode};
use proptest::prelude::*;
use rtp::RtcpWriter;

use super::rig::*;
use crate::{Drop, SocketId};

#[test]
fn each_kind_of_rubbish_has_its_reason() {
    let mut rig = Rig::new();
    rig.set(vec![rtp_leg(1), rtp_leg(2)], vec![path(1, Mode::Distribute, &[1, 2], &[1, 2])]);
    for (bytes, why) in [
        (&[][..], Drop::Empty),
        (&[0x80], Drop::Short),
        (&[0x80; 11], Drop::Short),
        (&[0x40; 12], Drop::Foreign),
        (&[0x00, 1, 0, 0], Drop::Stun),
        (&[22, 254, 253], Drop::Dtls),
        (&[16, 0], Drop::Foreign),
        (&[0x8f, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3], Drop::Header),
        (&[0x90, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0xbe, 0xde, 0xff, 0xff], Drop::Header),
        (&[0x80, 200, 0, 1, 0, 0, 0, 0], Drop::Rtcp),
        (&[0x80, 200, 0xff, 0xff, 0, 0, 0, 0], Drop::Rtcp),
    ] {
        let before = rig.engine.dropped(why);
        assert!(rig.hear_peer(1, bytes).is_empty());
        assert_eq!(rig.engine.dropped(why), before + 1, "{bytes:?}");
        rig.check_sum();
    }
    rig.datagram(SocketId(99), peer(1), &packet(1, 1, 1, 0, &[]));
    rig.datagram(SocketId(u32::MAX), peer(1), &packet(1, 1, 1, 0, &[]));
    assert_eq!(rig.engine.dropped(Drop::NoLeg), 2);
    rig.check_sum();
}

#[test]
fn a_leg_has_no_more_sources_than_its_limit() {
    let mut rig =
        Rig::with(crate::Limits { leg_sources_max: 4, sockets_max: 64, ..crate::Limits::default() });
    rig.set(vec![rtp_leg(1), rtp_leg(2)], vec![path(1, Mode::Distribute, &[1, 2], &[1, 2])]);
    let passed = (0..100).filter(|n| !rig.hear_peer(1, &packet(*n, 1, 1, 0, &[1])).is_empty()).count();
    assert_eq!((passed, rig.engine.dropped(Drop::Sources)), (4, 96));
    rig.pass(6000);
    assert!(!rig.hear_peer(1, &packet(1000, 1, 1, 0, &[1])).is_empty(), "an idle one makes room");
}

#[test]
fn who_sends_under_ever_other_ssrcs_beyond_the_limit_has_none_of_them_named() {
    // Leg 2 uses 0..1000 too, so that a name for one of leg 1's is searched for among all legs, and drawn anew.
    let run = |flood: u32| {
        let mut rig =
            Rig::with(crate::Limits { leg_sources_max: 4, sockets_max: 64, ..crate::Limits::default() });
        rig.set(vec![rtp_leg(1), rtp_leg(2)], vec![path(1, Mode::Distribute, &[1, 2], &[1, 2])]);
        (0..4).for_each(|n| drop(rig.hear_peer(2, &packet(n, 1, 1, 0, &[1]))));
        (10..14).for_each(|n| drop(rig.hear_peer(1, &packet(n, 1, 1, 0, &[1]))));
        (0..flood).for_each(|n| drop(rig.hear_peer(1, &packet(n % 4, 1, 1, 0, &[1]))));
        assert_eq!(rig.engine.dropped(Drop::Sources), u64::from(flood));
        rig.pass(6000);
        let done = rig.hear_peer(1, &packet(0, 1, 1, 0, &[1]));
        sent(&done)[0].1.to_vec()
    };
    assert_eq!(run(0), run(1000), "what was refused has drawn a name");
}

#[test]
fn feedback_that_claims_to_speak_of_very_many_packets_is_summed_up() {
    // draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1.3: eight runs of 8191 that have not arrived, and one of 7.
    let mut feedback = vec![0x8f, 205, 0, 9, 0, 0, 0, 9, 0, 0, 0, 5, 0, 0, 0xff, 0xff, 0, 0, 0, 0];
    (0..8).for_each(|_| feedback.extend([0x1f, 0xff]));
    feedback.extend([0, 7, 0, 0]);
    let mut compound = RtcpWriter::new().receiver(9, &[]).finish().to_vec();
    (0..30).for_each(|_| compound.extend(&feedback));
    let mut rig = Rig::new();
    rig.set(vec![rtp_leg(1), rtp_leg(2)], vec![path(1, Mode::Distribute, &[1, 2], &[1, 2])]);
    // More than 32 bits hold within the second after which it is judged.
    for _ in 0..3 {
        for _ in 0..2300 {
            rig.hear_peer(2, &compound);
        }
        rig.hear_peer(1, &packet(5, 1, 1, 0, &[1; 160]));
        rig.pass(1000);
    }
    rig.hear_peer(2, &compound);
    let (_, counters) = rig.engine.counters(rig.now, None).unwrap();
    assert_eq!(counters.legs[1].dropped, 0);
    rig.check_sum();
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..100)).prop_map(|(fix, mut bytes)| {
        if fix && let Some(first) = bytes.first_mut() {
            *first = 0x80 | (*first & 0x3f);
        }
        bytes
    })
}

proptest! {
    #[test]
    fn nothing_panics_and_the_sum_holds(
        datagrams in proptest::collection::vec((0..10u32, 0..6u64, bytes(), 0..3000u64), 0..60),
    ) {
        let mut rig = Rig::new();
        let trust = |n| edit(rtp_leg(n), |rtp| {
            rtp.learning = Learning::Trust as i32;
            rtp.rtcp_mux = n % 2 == 0;
            rtp.audio_level_id = 3;
            rtp.video = true;
            rtp.media_timeout_ms = 500;
        });
        rig.set((1..5).map(trust).collect(), vec![
            path(1, Mode::Distribute, &[1, 2, 3], &[1, 2, 3]),
            path(2, Mode::Select, &[1, 2, 3, 4], &[1, 2, 3, 4]),
            path(3, Mode::Relay, &[4], &[1]),
        ]);
        rig.input(crate::Input::Capture { context: CONTEXT, leg: None, on: true });
        for (on, from, bytes, wait) in datagrams {
            rig.datagram(SocketId(on), peer(from), &bytes);
            rig.run(wait / 10 * 10);
        }
        rig.check_sum();
    }
}

#[test]
fn rtcp_under_ever_other_ssrcs_leaves_room_for_media() {
    // A key's table has 256 places and forgets nobody: reports alone took them all.
    let mut rig = Rig::new();
    let guarded = edit(rtp_leg(2), |rtp| {
        rtp.srtp = Some(Box::new(contract::Srtp {
            suite: contract::SrtpSuite::AeadAes128Gcm.into(),
            send_key: vec![1; 28],
            receive_key: vec![2; 28],
        }));
    });
    rig.set(
        vec![rtp_leg(1), guarded, rtp_leg(3)],
        vec![path(1, Mode::Relay, &[1], &[2]), path(2, Mode::Distribute, &[3], &[2])],
    );
    let mut passed = 0;
    for n in 0..300 {
        passed += rig.hear_peer(1, &RtcpWriter::new().receiver(5000 + n, &[]).finish()).len();
    }
    let max = crate::Limits::default().leg_sources_ever_max;
    assert_eq!((passed, rig.engine.dropped(Drop::Sources)), (max, 300 - max as u64));
    assert_eq!(
        rig.hear_peer(1, &RtcpWriter::new().receiver(5000, &[]).finish()).len(),
        1,
        "who was heard goes on"
    );
    assert_eq!(rig.hear_peer(3, &packet(7, 1, 1, 0, &[1; 160])).len(), 1, "another leg's media");
    rig.check_sum();
}
