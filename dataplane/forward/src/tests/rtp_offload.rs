//! Flows that somebody below relays: offered when nothing about them is open, counted as if they came here, taken back before
//! anything about them changes.

use std::time::Duration;

use contract::{Direction, Learning, Mode, change::Verb};
use rtp::Received;

use super::rig::*;
use crate::{Carried, Input, Output, Settled, SocketId};

fn relay(legs: Vec<contract::Leg>) -> Rig {
    let mut rig = Rig::new();
    rig.set(legs, vec![path(1, Mode::Relay, &[1], &[2]), path(2, Mode::Relay, &[2], &[1])]);
    rig
}

fn both() -> Rig {
    relay(vec![rtp_leg(1), rtp_leg(2)])
}

/// Leg `n`'s peer speaks for 200 ms under the SSRC n, up to and without the sequence number `to`.
fn speak(rig: &mut Rig, n: u64, to: u16) {
    for sequence in to - 10..to {
        rig.pass(20);
        rig.hear_peer(n, &packet(n as u32, sequence, 160 * u32::from(sequence), 0, &[1; 160]));
    }
}

fn offers(done: &[Done]) -> Vec<&Settled> {
    done.iter()
        .filter_map(|d| if let Done::Stream(Output::Offload(flow)) = d { Some(&**flow) } else { None })
        .collect()
}

fn recalls(done: &[Done]) -> Vec<SocketId> {
    done.iter()
        .filter_map(|d| if let Done::Stream(Output::Recall { socket }) = d { Some(*socket) } else { None })
        .collect()
}

/// The sockets whose flows are offered at the next look.
fn settle(rig: &mut Rig) -> Vec<SocketId> {
    offers(&rig.input(Input::Settle)).iter().map(|flow| flow.socket).collect()
}

/// What a flow says that has carried `packets` in order since it was offered with `from`.
fn carried(from: Received, packets: u32) -> Carried {
    Carried {
        packets: u64::from(packets),
        octets: u64::from(packets) * 172,
        idle: Some(Duration::from_millis(5)),
        timestamp: 160 * (from.highest + packets),
        received: Received { highest: from.highest + packets, seen: u64::MAX, reordered: 0, ..from },
    }
}

fn tell(rig: &mut Rig, leg: u64, carried: Option<Carried>, over: bool) -> Vec<Done> {
    rig.input(Input::Offloaded { socket: socket(leg), carried, over })
}

fn of(rig: &Rig, leg: u64) -> contract::LegCounters {
    let (_, counters) = rig.engine.counters(rig.now, None).unwrap();
    counters.legs.into_iter().find(|l| l.leg == Some(key(leg))).unwrap()
}

#[test]
fn a_settled_flow_is_offered_once_with_all_that_is_known_of_it() {
    let mut rig = both();
    assert!(settle(&mut rig).is_empty(), "nobody has spoken");
    speak(&mut rig, 1, 20);
    let done = rig.input(Input::Settle);
    let [flow] = offers(&done)[..] else { panic!("{done:?}") };
    let local = |n: u16| addr(&format!("192.0.2.1:{}", 10_000 + 2 * n));
    assert_eq!((flow.socket, flow.from, flow.at), (socket(1), peer(1), local(1)));
    assert_eq!((flow.by, flow.to, flow.ssrc, flow.clock), (local(2), peer(2), 1, 8000));
    assert_eq!((flow.payloads, flow.received.highest, flow.received.base), (u128::MAX, 19, 10));
    assert_eq!(flow.received.seen, 0b11_1111_1111);
    assert!(settle(&mut rig).is_empty(), "it is offloaded already");
    assert_eq!(rig.engine.totals().flows_offloaded, 1);
    // The other way is a flow of its own.
    speak(&mut rig, 2, 20);
    assert_eq!(settle(&mut rig), [socket(2)]);
    assert_eq!(rig.engine.offloaded(Some(&[CONTEXT])).len(), 2);
    assert!(rig.engine.offloaded(Some(&[CONTEXT + 1])).is_empty());
}

#[test]
fn what_it_carries_is_counted_as_if_it_came_here() {
    let (mut here, mut below) = (both(), both());
    for rig in [&mut here, &mut below] {
        speak(rig, 1, 20);
    }
    let done = below.input(Input::Settle);
    let from = offers(&done)[0].received;
    drop(done);
    // 10 more, told in two parts.
    speak(&mut here, 1, 30);
    for packets in [4, 10] {
        below.pass(if packets == 4 { 80 } else { 120 });
        let came = Carried { idle: Some(Duration::ZERO), ..carried(from, packets) };
        assert!(tell(&mut below, 1, Some(came), packets == 10).is_empty());
    }
    for leg in [1, 2] {
        assert_eq!(of(&below, leg), of(&here, leg));
    }
    let (a, b) = (below.engine.totals(), here.engine.totals());
    assert_eq!(
        (a.packets_in, a.packets_forwarded, a.packets_out),
        (b.packets_in, b.packets_forwarded, b.packets_out)
    );
    assert_eq!((a.packets_offloaded, a.flows_offloaded), (10, 0));
    // From here on it goes on here, without a gap or a repetition in the statistics.
    for rig in [&mut here, &mut below] {
        speak(rig, 1, 40);
        rig.check_sum();
    }
    assert_eq!(of(&below, 1), of(&here, 1));
    assert_eq!(of(&below, 1).packets_in, 30);
}

#[test]
fn a_loss_below_is_a_loss_of_the_leg() {
    let mut rig = both();
    speak(&mut rig, 1, 20);
    let done = rig.input(Input::Settle);
    let from = offers(&done)[0].received;
    let lossy = Carried {
        received: Received { reordered: 2, duplicates: 1, ..carried(from, 13).received },
        ..carried(from, 10)
    };
    tell(&mut rig, 1, Some(lossy), true);
    let leg = of(&rig, 1);
    // 13 numbers, 10 packets, of which one came twice.
    assert_eq!((leg.packets_in, leg.lost, leg.reordered, leg.duplicates), (20, 4, 2, 1));
}

#[test]
fn what_has_to_be_seen_stays_here() {
    let trust = |n| edit(rtp_leg(n), |rtp| rtp.learning = Learning::Trust as i32);
    let cases: Vec<(&str, Vec<contract::Leg>, Vec<contract::Path>)> = vec![
        ("a source that may still be learned", vec![rtp_leg(1), trust(2)], vec![]),
        ("a policed leg", vec![edit(rtp_leg(1), |rtp| rtp.bandwidth_kbps = 100), rtp_leg(2)], vec![]),
        ("a tap", vec![rtp_leg(1), rtp_leg(2), rtp_leg(3)], vec![path(3, Mode::Tap, &[1], &[3])]),
        (
            "a tap that nobody may know of",
            vec![rtp_leg(1), rtp_leg(2), contract::Leg { unseen: true, ..rtp_leg(3) }],
            vec![path(3, Mode::Tap, &[1], &[3])],
        ),
        (
            "a second receiver",
            vec![rtp_leg(1), rtp_leg(2), rtp_leg(3)],
            vec![path(3, Mode::Relay, &[1], &[3])],
        ),
        (
            "a distribution",
            vec![rtp_leg(1), rtp_leg(2), rtp_leg(3)],
            vec![path(3, Mode::Distribute, &[1], &[3])],
        ),
        ("a sender on hold", vec![directed(rtp_leg(1), Direction::Recvonly), rtp_leg(2)], vec![]),
        ("a receiver on hold", vec![rtp_leg(1), directed(rtp_leg(2), Direction::Sendonly)], vec![]),
    ];
    for (why, legs, more) in cases {
        let mut rig = Rig::new();
        let paths = [vec![path(1, Mode::Relay, &[1], &[2])], more].concat();
        rig.set(legs, paths);
        speak(&mut rig, 1, 20);
        assert!(settle(&mut rig).is_empty(), "{why}");
    }
    // A payload type that is another one there is rewritten here; the others pass.
    let map = |n, peer| {
        edit(rtp_leg(n), |rtp| {
            rtp.payloads = vec![
                contract::PayloadMap { peer: 0, context: 0, codec: 0 },
                contract::PayloadMap { peer, context: 96, codec: 0 },
            ];
        })
    };
    let mut rig = relay(vec![map(1, 101), map(2, 97)]);
    speak(&mut rig, 1, 20);
    assert_eq!(offers(&rig.input(Input::Settle))[0].payloads, 1);
    // Two sources at once, a captured context.
    let mut rig = both();
    speak(&mut rig, 1, 20);
    rig.hear_peer(1, &packet(99, 1, 160, 0, &[1; 160]));
    assert!(settle(&mut rig).is_empty(), "two sources");
    let mut rig = both();
    rig.input(Input::Capture { context: CONTEXT, leg: None, on: true });
    speak(&mut rig, 1, 20);
    assert!(settle(&mut rig).is_empty(), "a capture");
    rig.input(Input::Capture { context: CONTEXT, leg: None, on: false });
    assert_eq!(settle(&mut rig), [socket(1)]);
}

#[test]
fn every_change_takes_it_back_before_its_answer() {
    let changes: Vec<(&str, Vec<Verb>)> = vec![
        ("another peer", vec![put_leg(edit(rtp_leg(2), |rtp| rtp.remote = address(peer(9))))]),
        ("another peer of the sender", vec![put_leg(edit(rtp_leg(1), |rtp| rtp.remote = address(peer(9))))]),
        ("learning anew", vec![put_leg(edit(rtp_leg(1), |rtp| rtp.learning = Learning::Window as i32))]),
        ("hold", vec![put_leg(directed(rtp_leg(1), Direction::Inactive))]),
        ("hold by the other", vec![put_leg(directed(rtp_leg(2), Direction::Sendonly))]),
        ("a bandwidth", vec![put_leg(edit(rtp_leg(1), |rtp| rtp.bandwidth_kbps = 64))]),
        ("a tap", vec![put_leg(rtp_leg(3)), put_path(path(3, Mode::Tap, &[1], &[3]))]),
        ("another mode", vec![put_path(path(1, Mode::Distribute, &[1], &[2]))]),
        ("no path", vec![Verb::RemovePath(contract::PathKey { context: CONTEXT, path: 1 })]),
        (
            "the sender goes",
            vec![
                Verb::RemoveLeg(key(1)),
                Verb::RemovePath(contract::PathKey { context: CONTEXT, path: 1 }),
                Verb::RemovePath(contract::PathKey { context: CONTEXT, path: 2 }),
            ],
        ),
        (
            "the receiver goes",
            vec![
                Verb::RemoveLeg(key(2)),
                Verb::RemovePath(contract::PathKey { context: CONTEXT, path: 1 }),
                Verb::RemovePath(contract::PathKey { context: CONTEXT, path: 2 }),
            ],
        ),
        ("all goes", vec![Verb::RemoveContext(CONTEXT)]),
    ];
    for (why, verbs) in changes {
        // By the engine alone: a driver that forgets to take it back is told to.
        let mut rig = both();
        speak(&mut rig, 1, 20);
        let done = rig.input(Input::Settle);
        let from = offers(&done)[0].received;
        let done = rig.put(verbs.clone());
        assert!(recalls(&done).contains(&socket(1)), "{why}");
        tell(&mut rig, 1, Some(carried(from, 5)), true);
        assert_eq!(rig.engine.totals().flows_offloaded, 0, "{why}");
        // By a driver that knows it beforehand: what was carried is in the last counters too.
        let mut rig = both();
        speak(&mut rig, 1, 20);
        let done = rig.input(Input::Settle);
        let from = offers(&done)[0].received;
        assert_eq!(rig.engine.offloaded(Some(&[CONTEXT])), [socket(1)]);
        tell(&mut rig, 1, Some(carried(from, 5)), true);
        let done = rig.put(verbs);
        assert!(recalls(&done).is_empty(), "{why}");
        let told = news(&done).into_iter().find_map(|what| match what {
            contract::news::What::Counters(c) => {
                c.legs.iter().find(|l| l.ended && l.leg == Some(key(1))).map(|l| l.packets_in)
            }
            _ => None,
        });
        assert!(told.is_none_or(|packets| packets == 15), "{why}: {told:?}");
    }
}

#[test]
fn what_changes_nothing_leaves_it() {
    let mut rig = both();
    speak(&mut rig, 1, 20);
    assert_eq!(settle(&mut rig), [socket(1)]);
    // Another context comes and goes, and RTCP passes as ever.
    let other = contract::Context { id: CONTEXT + 1 };
    assert!(recalls(&rig.put(vec![Verb::PutContext(other)])).is_empty());
    let mut writer = rtp::RtcpWriter::new();
    writer.receiver(9, &[]);
    assert_eq!(rig.hear_peer(1, &writer.finish()).len(), 1);
    assert_eq!(rig.engine.totals().flows_offloaded, 1);
}

#[test]
fn a_flow_whose_packets_come_here_all_the_same_is_no_longer_what_was_settled() {
    let mut rig = both();
    speak(&mut rig, 1, 20);
    let done = rig.input(Input::Settle);
    let from = offers(&done)[0].received;
    // These were on their way when it was offloaded, and a busy host reads them late.
    for (sequence, packets) in [(20, 4), (21, 6)] {
        rig.hear_peer(1, &packet(1, sequence, 160 * u32::from(sequence), 0, &[1; 160]));
        assert!(recalls(&tell(&mut rig, 1, Some(carried(from, packets)), false)).is_empty());
    }
    // The peer has begun another source: it is relayed here, and the flow is looked at anew, but not at once.
    rig.pass(20);
    assert_eq!(sockets(&rig.hear_peer(1, &packet(77, 1, 160, 0, &[1; 160]))), [socket(2)]);
    assert_eq!(recalls(&tell(&mut rig, 1, Some(carried(from, 6)), false)), [socket(1)]);
    tell(&mut rig, 1, Some(carried(from, 6)), true);
    rig.pass(3000);
    for n in 2..12 {
        rig.pass(20);
        rig.hear_peer(1, &packet(77, n, 160 * u32::from(n), 0, &[1; 160]));
    }
    assert!(settle(&mut rig).is_empty());
    rig.pass(30_000);
    for n in 12..14 {
        rig.pass(20);
        rig.hear_peer(1, &packet(77, n, 160 * u32::from(n), 0, &[1; 160]));
    }
    let done = rig.input(Input::Settle);
    assert_eq!(offers(&done)[0].ssrc, 77);
    rig.check_sum();
}

#[test]
fn nobody_who_would_take_it_is_not_asked_again_at_once() {
    let mut rig = both();
    speak(&mut rig, 1, 20);
    assert_eq!(settle(&mut rig), [socket(1)]);
    tell(&mut rig, 1, None, true);
    speak(&mut rig, 1, 30);
    assert!(settle(&mut rig).is_empty());
    rig.pass(30_000);
    speak(&mut rig, 1, 40);
    assert_eq!(settle(&mut rig), [socket(1)]);
}

// CPM-FACTS §4.7: silence is told of, once, whoever relays.
#[test]
fn silence_is_found_by_what_was_told_and_not_before_it_could_be() {
    let quiet = |n| edit(rtp_leg(n), |rtp| rtp.media_timeout_ms = 1000);
    let mut rig = relay(vec![quiet(1), rtp_leg(2)]);
    speak(&mut rig, 1, 20);
    let done = rig.input(Input::Settle);
    let from = offers(&done)[0].received;
    // It speaks below for three seconds: told every half.
    for n in 1..=6 {
        assert!(news(&rig.run(500)).is_empty());
        tell(&mut rig, 1, Some(carried(from, 25 * n)), false);
    }
    // It has fallen silent; that is known when it is told.
    let mut lost = 0;
    for ms in [500, 1000, 1500] {
        lost += news(&rig.run(500)).len();
        let idle = Some(Duration::from_millis(ms));
        tell(&mut rig, 1, Some(Carried { idle, ..carried(from, 150) }), false);
        assert!(lost == 0 || ms > 500);
    }
    lost += news(&rig.run(500)).len();
    assert_eq!(lost, 1);
}

#[test]
fn a_host_that_is_emptied_settles_nothing_new() {
    let mut rig = both();
    speak(&mut rig, 1, 20);
    rig.input(Input::Drain(true));
    assert!(settle(&mut rig).is_empty());
    rig.input(Input::Drain(false));
    assert_eq!(settle(&mut rig), [socket(1)]);
}
