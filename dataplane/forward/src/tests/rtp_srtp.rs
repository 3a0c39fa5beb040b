//! Legs with keys: opened once, protected per target, nothing learned or passed that did not authenticate.

use base::Entropy;
use contract::{Learning, Leg, Mode, RtpContinuity, Srtp, SrtpSuite, news, refusal::Reason};
use rtp::srtp::{Config, Inbound, Keying, Outbound, Suite, TRAILER_MAX};
use rtp::{RtcpWriter, RtpView};

use super::rig::*;
use crate::Drop;

const SUITES: [(SrtpSuite, Suite); 6] = [
    (SrtpSuite::AesCm128HmacSha180, Suite::AesCm128HmacSha1_80),
    (SrtpSuite::AesCm128HmacSha132, Suite::AesCm128HmacSha1_32),
    (SrtpSuite::Aes256CmHmacSha180, Suite::AesCm256HmacSha1_80),
    (SrtpSuite::Aes256CmHmacSha132, Suite::AesCm256HmacSha1_32),
    (SrtpSuite::AeadAes128Gcm, Suite::AeadAes128Gcm),
    (SrtpSuite::AeadAes256Gcm, Suite::AeadAes256Gcm),
];

/// The far end of a guarded leg.
pub(super) struct Far {
    pub(super) srtp: Srtp,
    outbound: Outbound,
    inbound: Inbound,
}

impl Far {
    fn new(seed: u64, (word, suite): (SrtpSuite, Suite)) -> Self {
        let mut entropy = Entropy::from_number(seed);
        let (ours, theirs) = (Keying::draw(suite, &mut entropy), Keying::draw(suite, &mut entropy));
        let srtp = Srtp {
            suite: word.into(),
            send_key: ours.expose().to_vec(),
            receive_key: theirs.expose().to_vec(),
        };
        Far {
            srtp,
            outbound: Outbound::new(&theirs, Config::default()).unwrap(),
            inbound: Inbound::new(&ours, Config::default()).unwrap(),
        }
    }

    pub(super) fn gcm(seed: u64) -> Self {
        Far::new(seed, SUITES[4])
    }

    pub(super) fn leg(&self, n: u64) -> Leg {
        edit(rtp_leg(n), |rtp| rtp.srtp = Some(Box::new(self.srtp.clone())))
    }

    pub(super) fn says(&mut self, clear: &[u8]) -> Vec<u8> {
        let mut wire = clear.to_vec();
        wire.resize(clear.len() + TRAILER_MAX, 0);
        let length = self.outbound.rtp(&mut wire, clear.len()).unwrap();
        wire.truncate(length);
        wire
    }

    pub(super) fn reports(&mut self, clear: &[u8]) -> Vec<u8> {
        let mut wire = clear.to_vec();
        wire.resize(clear.len() + TRAILER_MAX, 0);
        let length = self.outbound.rtcp(&mut wire, clear.len()).unwrap();
        wire.truncate(length);
        wire
    }

    pub(super) fn hears(&mut self, wire: &[u8]) -> Vec<u8> {
        let mut clear = wire.to_vec();
        let length = self.inbound.rtp(&mut clear).unwrap();
        clear.truncate(length);
        clear
    }

    fn hears_report(&mut self, wire: &[u8]) -> Vec<u8> {
        let mut clear = wire.to_vec();
        let length = self.inbound.rtcp(&mut clear).unwrap();
        clear.truncate(length);
        clear
    }
}

fn report(ssrc: u32) -> Vec<u8> {
    let mut writer = RtcpWriter::new();
    writer.receiver(ssrc, &[]).description([(ssrc, "far")].into_iter());
    writer.finish().to_vec()
}

fn relay_of(first: Leg, second: Leg) -> Rig {
    relay_later(0, first, second)
}

/// The same in an engine that was started so many milliseconds later.
fn relay_later(ms: u64, first: Leg, second: Leg) -> Rig {
    let mut rig = Rig::new();
    rig.pass(ms);
    rig.set(vec![first, second], vec![path(1, Mode::Relay, &[1], &[2]), path(2, Mode::Relay, &[2], &[1])]);
    rig
}

#[test]
fn a_guarded_leg_and_a_plain_one_hear_each_other_with_every_suite() {
    for suite in SUITES {
        let mut far = Far::new(1, suite);
        let mut rig = relay_of(far.leg(1), rtp_leg(2));
        for n in 0..300u16 {
            let clear = packet(5, 65_400u16.wrapping_add(n), 160 * u32::from(n), 0, &[n as u8; 160]);
            let done = rig.hear_peer(1, &far.says(&clear));
            assert_eq!(sent(&done), [(socket(2), &clear[..])], "{suite:?}");
            let clear = packet(6, 65_300u16.wrapping_add(n), 160 * u32::from(n), 0, &[!n as u8; 160]);
            let done = rig.hear_peer(2, &clear);
            let [(to, wire)] = sent(&done)[..] else { panic!("{suite:?}") };
            assert_ne!(wire[12..20], clear[12..20]);
            assert_eq!((to, far.hears(wire)), (socket(1), clear));
        }
        let clear = report(5);
        assert_eq!(sent(&rig.hear_peer(1, &far.reports(&clear))), [(socket(2), &clear[..])]);
        let clear = report(6);
        let done = rig.hear_peer(2, &clear);
        assert_eq!(far.hears_report(sent(&done)[0].1), clear);
        rig.check_sum();
    }
}

#[test]
fn one_packet_goes_to_guarded_and_plain_targets_each_in_its_own_way() {
    let (mut a, mut b, mut c) = (Far::gcm(1), Far::gcm(2), Far::new(3, SUITES[0]));
    let renamed = edit(c.leg(3), |rtp| {
        rtp.payloads = vec![contract::PayloadMap { peer: 96, ..contract::PayloadMap::default() }];
    });
    let mut rig = Rig::new();
    let all = [1, 2, 3, 4, 5];
    rig.set(
        vec![a.leg(1), b.leg(2), renamed, rtp_leg(4), rtp_leg(5)],
        vec![path(1, Mode::Distribute, &all, &all)],
    );
    for n in 0..50u16 {
        let clear = packet(7, n, 160 * u32::from(n), 0, &[n as u8; 160]);
        for wire in [a.says(&clear), clear.clone()] {
            let from = if wire == clear { 5 } else { 1 };
            let done = rig.hear_peer(from, &wire);
            let sent = sent(&done);
            assert_eq!(sent.len(), 4);
            for (to, bytes) in sent {
                let heard = match to.0 / 2 {
                    1 => a.hears(bytes),
                    2 => b.hears(bytes),
                    3 => c.hears(bytes),
                    _ => bytes.to_vec(),
                };
                let view = RtpView::parse(&heard).unwrap();
                assert_eq!(view.payload_type(), if to == socket(3) { 96 } else { 0 });
                assert_eq!((view.payload(), view.sequence()), (&clear[12..], n));
                // Both send under the same SSRC: the receivers hear two.
                assert_eq!(view.ssrc() == 7, from == 1);
            }
        }
    }
    rig.check_sum();
}

#[test]
fn who_is_selected_is_heard_in_one_stream_under_the_listeners_key() {
    let (mut a, mut b) = (Far::gcm(1), Far::gcm(2));
    let mut rig = Rig::new();
    rig.set(vec![a.leg(1), b.leg(2), rtp_leg(3)], vec![path(1, Mode::Select, &[1, 2, 3], &[1, 2, 3])]);
    let mut heard = Vec::new();
    for n in 0..60u16 {
        rig.pass(20);
        let clear = packet(50, n, 160 * u32::from(n), 0, &[0x80; 160]);
        let done = if n < 30 { rig.hear_peer(1, &a.says(&clear)) } else { rig.hear_peer(3, &clear) };
        for (to, bytes) in sent(&done).into_iter().filter(|(to, _)| *to == socket(2)) {
            assert_eq!(to, socket(2));
            let clear = b.hears(bytes);
            let view = RtpView::parse(&clear).unwrap();
            heard.push((view.ssrc(), view.sequence()));
        }
    }
    assert!(heard.len() > 30, "{}", heard.len());
    assert!(heard.windows(2).all(|w| w[0].0 == w[1].0 && w[1].1 == w[0].1.wrapping_add(1)), "{heard:?}");
    rig.check_sum();
}

#[test]
fn our_own_reports_are_protected() {
    let (mut a, mut b) = (Far::gcm(1), Far::new(2, SUITES[1]));
    let mut rig = Rig::new();
    rig.set(vec![a.leg(1), b.leg(2)], vec![path(1, Mode::Distribute, &[1, 2], &[1, 2])]);
    let mut reports = 0;
    for n in 0..1000u16 {
        rig.hear_peer(1, &a.says(&packet(7, n, 160 * u32::from(n), 0, &[1; 160])));
        for (to, bytes) in sent(&rig.run(20)) {
            let far = if to == socket(1) { &mut a } else { &mut b };
            assert!(rtp::compound(&far.hears_report(bytes), false).unwrap().is_full());
            reports += 1;
        }
    }
    assert!(reports > 4, "{reports}");
}

/// Each way to come without the key, and what it is called.
#[test]
fn the_matrix_of_injection() {
    let voice = packet(5, 1, 160, 0, &[1; 160]);
    let (told, near, far_away) = (peer(1), addr("198.51.100.99:9"), addr("203.0.113.5:4000"));
    for learning in [Learning::Strict, Learning::Window, Learning::Trust] {
        for from in [told, near, far_away] {
            for wait in [0, 1100] {
                let mut far = Far::gcm(1);
                let leg = edit(far.leg(1), |rtp| {
                    rtp.learning = learning.into();
                    rtp.learning_ms = 1000;
                });
                let mut rig = relay_of(leg, rtp_leg(2));
                rig.run(wait);
                let other = Far::gcm(9).says(&voice);
                let mut broken = Far::gcm(1).says(&voice);
                *broken.last_mut().unwrap() ^= 1;
                for attack in [
                    &voice[..],
                    &other,
                    &broken,
                    &broken[..20],
                    &voice[..12],
                    &report(5),
                    &Far::gcm(9).reports(&report(5)),
                ] {
                    let done = rig.datagram(socket(1), from, attack);
                    assert!(done.is_empty(), "{learning:?} {from} {wait}: {done:?}");
                }
                let heard = rig.engine.dropped(Drop::SrtpUnauthentic) + rig.engine.dropped(Drop::Short);
                let refused = rig.engine.dropped(Drop::Source) + rig.engine.dropped(Drop::Window);
                assert_eq!(heard + refused, 7);
                // The owner of the key is heard from where he may be, and only then anything is learned.
                let done = rig.datagram(socket(1), from, &far.says(&voice));
                let admitted = match (learning, wait) {
                    (Learning::Trust, 0) => true,
                    (Learning::Window, 0) => from != far_away,
                    _ => from == told,
                };
                assert_eq!(sockets(&done).len(), usize::from(admitted), "{learning:?} {from} {wait}");
                let learned = news(&done).iter().any(|n| matches!(n, news::What::Latched(_)));
                assert_eq!(learned, admitted && learning != Learning::Strict && wait == 0);
                rig.check_sum();
            }
        }
    }
}

#[test]
fn replays_are_dropped_and_counted_and_a_flood_of_forgeries_ends_nothing() {
    let mut far = Far::gcm(1);
    let mut rig = relay_of(far.leg(1), rtp_leg(2));
    let wires: Vec<_> = (0..100).map(|n| far.says(&packet(5, n, 0, 0, &[1; 160]))).collect();
    let sealed = far.reports(&report(5));
    assert!(wires.iter().all(|wire| rig.hear_peer(1, wire).len() == 1));
    assert_eq!(rig.hear_peer(1, &sealed).len(), 1);
    assert!(wires.iter().all(|wire| rig.hear_peer(1, wire).is_empty()));
    assert!(rig.hear_peer(1, &sealed).is_empty());
    assert_eq!(rig.engine.dropped(Drop::SrtpReplayed), 101);
    let mut forged = far.says(&packet(5, 100, 0, 0, &[1; 160]));
    for n in 0..20_000u32 {
        forged[20..24].copy_from_slice(&n.to_be_bytes());
        // Other sources, too: none of them takes a place.
        forged[8..12].copy_from_slice(&(n % 300).to_be_bytes());
        rig.hear_peer(1, &forged);
    }
    assert_eq!(rig.engine.dropped(Drop::SrtpUnauthentic), 20_000);
    assert_eq!(rig.hear_peer(1, &far.says(&packet(5, 101, 0, 0, &[1; 160]))).len(), 1);
    let (_, counters) = rig.engine.counters(rig.now, None).unwrap();
    assert_eq!((counters.legs[0].packets_in, counters.legs[0].dropped), (101, 20_101));
    rig.check_sum();
}

// A key forgets no source, so nobody may use its table up.
#[test]
fn who_changes_his_source_for_ever_does_not_take_the_places_of_others() {
    let limits = crate::Limits {
        sockets_max: 64,
        leg_sources_max: 4,
        leg_sources_ever_max: 8,
        srtp_sources_max: 16,
        ..crate::Limits::default()
    };
    let mut far = Far::gcm(1);
    let mut rig = Rig::with(limits);
    rig.set(
        vec![far.leg(1), rtp_leg(2), rtp_leg(3)],
        vec![path(1, Mode::Distribute, &[1, 2, 3], &[1, 2, 3])],
    );
    let mut passed = 0;
    for ssrc in 0..40 {
        rig.pass(6000);
        passed += usize::from(!rig.hear_peer(2, &packet(ssrc, 1, 0, 0, &[1; 160])).is_empty());
    }
    assert_eq!((passed, rig.engine.dropped(Drop::Sources)), (8, 32));
    let voice = packet(99, 1, 0, 0, &[1; 160]);
    let done = rig.hear_peer(3, &voice);
    assert!(sent(&done).iter().any(|(to, wire)| *to == socket(1) && far.hears(wire) == voice));
    rig.check_sum();
}

#[test]
fn without_a_key_nothing_passes_that_way() {
    let mut far = Far::gcm(1);
    let half = |send: bool, receive: bool| {
        edit(Far::gcm(1).leg(1), |rtp| {
            let srtp = rtp.srtp.as_mut().unwrap();
            if !send {
                srtp.send_key.clear();
            }
            if !receive {
                srtp.receive_key.clear();
            }
        })
    };
    let mut rig = relay_of(half(false, false), rtp_leg(2));
    let voice = |n| packet(5, n, 0, 0, &[1; 160]);
    assert!(rig.hear_peer(1, &far.says(&voice(1))).is_empty());
    assert!(rig.hear_peer(1, &voice(1)).is_empty());
    assert!(rig.hear_peer(2, &voice(1)).is_empty());
    assert!(rig.hear_peer(2, &report(6)).is_empty());
    rig.put(vec![put_leg(half(true, false))]);
    assert!(rig.hear_peer(1, &far.says(&voice(2))).is_empty());
    assert_eq!(far.hears(sent(&rig.hear_peer(2, &voice(2)))[0].1), voice(2));
    rig.put(vec![put_leg(half(true, true))]);
    assert_eq!(sockets(&rig.hear_peer(1, &far.says(&voice(3)))), [socket(2)]);
    // The key that was there has gone on: its index does not come twice.
    assert!(rig.hear_peer(2, &voice(2)).is_empty());
    assert_eq!(rig.engine.dropped(Drop::SrtpUnsent), 1);
    rig.check_sum();
}

#[test]
fn other_keys_are_other_contexts_and_the_same_ones_go_on() {
    let (mut old, mut new) = (Far::gcm(1), Far::gcm(2));
    let mut rig = relay_of(old.leg(1), rtp_leg(2));
    let voice = |n| packet(5, n, 0, 0, &[1; 160]);
    let wire = old.says(&voice(1));
    assert_eq!(rig.hear_peer(1, &wire).len(), 1);
    rig.put(vec![put_leg(edit(old.leg(1), |rtp| rtp.bandwidth_kbps = 64))]);
    assert!(rig.hear_peer(1, &wire).is_empty(), "the window is still there");
    assert_eq!(rig.engine.dropped(Drop::SrtpReplayed), 1);
    rig.put(vec![put_leg(new.leg(1))]);
    assert!(rig.hear_peer(1, &old.says(&voice(2))).is_empty());
    assert_eq!(sockets(&rig.hear_peer(1, &new.says(&voice(3)))), [socket(2)]);
    assert_eq!(new.hears(sent(&rig.hear_peer(2, &voice(9)))[0].1), voice(9));
    // In clear again, by control's word.
    rig.put(vec![put_leg(rtp_leg(1))]);
    assert_eq!(sent(&rig.hear_peer(1, &voice(4))), [(socket(2), &voice(4)[..])]);
}

#[test]
fn what_was_learned_in_clear_is_not_trusted_with_keys() {
    let far = Far::gcm(1);
    let near = addr("198.51.100.99:9");
    let window = |leg| edit(leg, |rtp: &mut contract::RtpLeg| rtp.learning = Learning::Window.into());
    let mut rig = relay_of(window(rtp_leg(1)), rtp_leg(2));
    rig.datagram(socket(1), near, &packet(5, 1, 0, 0, &[1; 160]));
    let done = rig.put(vec![put_leg(window(far.leg(1)))]);
    assert!(done.iter().any(|d| matches!(d, Done::Aimed(_, to, false) if *to == Some(peer(1)))), "{done:?}");
}

#[test]
fn the_packet_that_is_learned_from_is_sent_on_too() {
    let mut far = Far::gcm(1);
    let leg = edit(far.leg(1), |rtp| {
        rtp.remote = None;
        rtp.learning = Learning::Trust.into();
    });
    let mut rig = relay_of(leg, rtp_leg(2));
    let voice = packet(5, 1, 0, 0, &[1; 160]);
    assert!(rig.hear_peer(2, &voice).is_empty());
    let done = rig.datagram(socket(1), addr("203.0.113.5:4000"), &far.says(&voice));
    assert_eq!(sent(&done), [(socket(2), &voice[..])]);
    assert_eq!(far.hears(sent(&rig.hear_peer(2, &voice))[0].1), voice);
}

#[test]
fn keys_that_fit_no_suite_are_refused() {
    for change in [
        |srtp: &mut Srtp| srtp.send_key.truncate(27),
        |srtp: &mut Srtp| srtp.receive_key.push(0),
        |srtp: &mut Srtp| srtp.suite = SrtpSuite::AeadAes256Gcm.into(),
        |srtp: &mut Srtp| srtp.suite = 0,
        |srtp: &mut Srtp| srtp.suite = 99,
    ] {
        let mut rig = Rig::new();
        rig.set(vec![], vec![]);
        let leg = edit(Far::gcm(1).leg(1), |rtp| change(rtp.srtp.as_mut().unwrap()));
        let (answer, _) = rig.batch(vec![put_leg(leg)]);
        let contract::from_dataplane::Body::Refusal(refusal) = answer else { panic!("{answer:?}") };
        assert_eq!(refusal.reason(), Reason::BadLeg);
    }
}

fn kept(rig: &Rig, leg: u64) -> Option<RtpContinuity> {
    let (_, counters) = rig.engine.counters(rig.now, None).unwrap();
    counters.legs.into_iter().find(|l| l.leg == Some(key(leg)))?.continuity
}

// The rollover counter is nowhere on the wire: a data plane that starts again has it from control.
#[test]
fn a_data_plane_that_starts_again_goes_on_with_the_rollover_counter() {
    for suite in SUITES {
        let mut far = Far::new(1, suite);
        let mut rig = relay_of(far.leg(1), rtp_leg(2));
        let voice = |n: u32| packet(5, n as u16, 160 * n, 0, &[1; 160]);
        let mut last = Vec::new();
        for n in (20_000..90_000u32).step_by(500) {
            last = far.says(&voice(n));
            assert_eq!(rig.hear_peer(1, &last).len(), 1);
            far.hears(sent(&rig.hear_peer(2, &voice(n)))[0].1);
        }
        let first_report = rig.hear_peer(2, &report(5));
        far.hears_report(sent(&first_report)[0].1);
        let continuity = kept(&rig, 1);
        assert_eq!(continuity.as_ref().unwrap().received[0].rollover, 1);
        assert!(kept(&rig, 2).is_some_and(|c| c.sent.is_empty() && c.received.is_empty()));

        // Some more than control was told of.
        for n in 90_000..90_020u32 {
            far.says(&voice(n));
            far.hears(sent(&rig.hear_peer(2, &voice(n)))[0].1);
        }
        let mut rig = relay_of(edit(far.leg(1), |rtp| rtp.continuity = continuity.map(Box::new)), rtp_leg(2));
        assert!(rig.hear_peer(1, &last).is_empty(), "taken before");
        assert_eq!(rig.engine.dropped(Drop::SrtpReplayed), 1);
        for n in 90_020..90_100u32 {
            let done = rig.hear_peer(1, &far.says(&voice(n)));
            assert_eq!(sent(&done), [(socket(2), &voice(n)[..])], "{suite:?}");
            assert_eq!(far.hears(sent(&rig.hear_peer(2, &voice(n)))[0].1), voice(n));
        }
        assert_eq!(far.hears_report(sent(&rig.hear_peer(2, &report(5)))[0].1), report(5));

        // Reports go on even when control knows no more than that the keys were in use.
        let nothing = Some(Box::new(RtpContinuity::default()));
        let mut rig = relay_later(1000, edit(far.leg(1), |rtp| rtp.continuity = nothing), rtp_leg(2));
        assert_eq!(far.hears_report(sent(&rig.hear_peer(2, &report(5)))[0].1), report(5));

        // Without it the call is dead: that is what is kept for.
        let mut rig = relay_of(far.leg(1), rtp_leg(2));
        assert!(rig.hear_peer(1, &far.says(&voice(90_200))).is_empty());
    }
}

// A number of our own stream never comes twice under a key, even if control's state is a little old.
#[test]
fn our_own_stream_leaves_numbers_out_after_a_restart() {
    let (mut a, mut b) = (Far::gcm(1), Far::gcm(2));
    let room = |a: Leg, b: Leg| {
        let mut rig = Rig::new();
        rig.set(vec![a, b], vec![path(1, Mode::Select, &[1, 2], &[1, 2])]);
        rig
    };
    let mut rig = room(a.leg(1), b.leg(2));
    let speak = |rig: &mut Rig, a: &mut Far, b: &mut Far, n: u16| {
        rig.pass(20);
        let done = rig.hear_peer(1, &a.says(&packet(5, n, 160 * u32::from(n), 0, &[0x80; 160])));
        let clear = b.hears(sent(&done)[0].1);
        let view = RtpView::parse(&clear).unwrap();
        (view.ssrc(), view.sequence())
    };
    let (ssrc, first) = speak(&mut rig, &mut a, &mut b, 1);
    let (one, two) = (kept(&rig, 1), kept(&rig, 2));
    assert_eq!(two.as_ref().map(|c| c.ssrc), Some(ssrc));
    for n in 2..100 {
        speak(&mut rig, &mut a, &mut b, n);
    }
    let mut rig = room(
        edit(a.leg(1), |rtp| rtp.continuity = one.map(Box::new)),
        edit(b.leg(2), |rtp| rtp.continuity = two.map(Box::new)),
    );
    let (again, sequence) = speak(&mut rig, &mut a, &mut b, 100);
    assert_eq!(again, ssrc);
    assert!(
        sequence.wrapping_sub(first) > 99 && sequence.wrapping_sub(first) < 1 << 15,
        "{first} {sequence}"
    );
    rig.check_sum();
}
