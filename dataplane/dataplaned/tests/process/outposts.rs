//! A conference over two shards: where its legs are, that all hear all, and that batches stay all or nothing.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};

use contract::change::Verb;
use contract::from_dataplane::Body as Word;
use contract::refusal::Reason;
use contract::to_dataplane::Body as Order;
use contract::{Audit, Capture, Context, LegKey, LegSet, Mode, Path, Placement, leg, placement};

use crate::control::{Node, at, phone, rtp, rtp_leg};

fn node(kind: &str, weight_max: usize) -> Node {
    Node::start(kind, |config| {
        config.shards.cores = vec![0, 0];
        config.shards.context_weight_max = weight_max;
        config.rtp.port_rest_ms = 0;
    })
}

fn path(context: u64, id: u32, mode: Mode) -> Verb {
    let all = Some(LegSet { legs: vec![], media: "audio".into() });
    let (sources, targets) = (all.clone(), all);
    Verb::PutPath(Path { id, context, mode: mode as i32, sources, targets, ..Path::default() })
}

/// All hear all.
fn room(context: u64, phones: &[UdpSocket]) -> Vec<Verb> {
    let mut verbs = vec![Verb::PutContext(Context { id: context })];
    verbs.extend((1..).zip(phones).map(|(id, phone)| Verb::PutLeg(rtp_leg(context, id, phone))));
    verbs.push(path(context, 1, Mode::Distribute));
    verbs
}

/// How many legs each shard has: every second pair of the ports is its.
fn shares(node: &Node, placements: &[Placement]) -> [usize; 2] {
    let mut shares = [0; 2];
    for placed in placements {
        shares[usize::from(at(placed).port() - node.config.rtp.port_first) / 2 % 2] += 1;
    }
    shares
}

/// Each phone says so many packets, the first one under the SSRC `first`, and hears those of all others once.
fn all_hear_all(phones: &[UdpSocket], places: &[SocketAddr], first: u32, sequences: std::ops::Range<u16>) {
    for sequence in sequences.clone() {
        for (ssrc, (phone, place)) in (first..).zip(phones.iter().zip(places)) {
            phone.send_to(&rtp(sequence, ssrc), place).unwrap();
        }
    }
    for (own, (phone, place)) in (first..).zip(phones.iter().zip(places)) {
        let mut expected = BTreeSet::new();
        for ssrc in (first..).take(phones.len()).filter(|ssrc| *ssrc != own) {
            expected.extend(sequences.clone().map(|sequence| rtp(sequence, ssrc)));
        }
        while !expected.is_empty() {
            let mut buffer = [0; 2048];
            let (n, from) = phone.recv_from(&mut buffer).unwrap();
            assert_eq!(from, *place);
            if matches!(rtp::kind(&buffer[..n]), rtp::Kind::Rtcp) {
                continue;
            }
            assert!(expected.remove(&buffer[..n]), "nothing twice, nothing of one's own, nothing else");
        }
    }
}

#[test]
fn a_conference_over_the_weight_is_on_both_shards_and_all_hear_all() {
    for kind in ["mio", "uring"] {
        let mut node = node(kind, 4);
        let mut control = node.control(1);
        let phones: Vec<_> = (0..10).map(|_| phone()).collect();
        // It grows: first it is at home, whole.
        let few = control.applied(room(7, &phones[..4])).placements;
        assert!(shares(&node, &few).contains(&4), "{few:?}");
        let more = (5..).zip(&phones[4..]).map(|(id, phone)| Verb::PutLeg(rtp_leg(7, id, phone))).collect();
        let more = control.applied(more).placements;
        let placements = [few, more].concat();
        assert_eq!(shares(&node, &placements), [5, 5]);
        let places: Vec<_> = placements.iter().map(at).collect();
        all_hear_all(&phones, &places, 100, 0..5);
        node.until_metric("weir_dataplane_handed_total{way=\"out\"} 50");
        node.until_metric("weir_dataplane_handed_total{way=\"taken\"} 50");
        node.until_metric("weir_dataplane_packets_total{way=\"forwarded\"} 50");
        node.until_metric("weir_dataplane_legs 10");
        node.until_metric("weir_dataplane_contexts 1");
        assert!(
            !node.metrics().lines().any(|line| line.contains("reason=\"outpost") && !line.ends_with(" 0"))
        );

        // After a restart each leg is where its port says, though all are put at once.
        node.restart();
        let mut control = node.control(2);
        let mut verbs = room(7, &phones);
        for verb in &mut verbs {
            let Verb::PutLeg(leg) = verb else { continue };
            let placed = placements.iter().find(|placed| placed.leg == leg.id).unwrap();
            let (Some(leg::Kind::Rtp(rtp)), Some(placement::At::Rtp(local))) = (&mut leg.kind, &placed.at)
            else {
                panic!()
            };
            rtp.local = Some(local.clone());
        }
        assert_eq!(control.applied(verbs).placements, placements);
        all_hear_all(&phones, &places, 100, 10..15);

        // Who leaves is gone from both.
        let gone: Vec<_> = (1..=4).map(|leg| Verb::RemoveLeg(LegKey::new(7, leg))).collect();
        control.applied(gone);
        all_hear_all(&phones[4..], &places[4..], 200, 20..22);
        control.applied(vec![Verb::RemoveContext(7)]);
        node.until_metric("weir_dataplane_legs 0");
        assert_eq!(control.applied(room(8, &phones)).placements.len(), 10);
    }
}

#[test]
fn what_one_shard_refuses_is_refused_on_both_and_leaves_nothing() {
    let node = node("auto", 2);
    let mut control = node.control(1);
    let phones: Vec<_> = (0..34).map(|_| phone()).collect();
    // 16 ports on each shard: the 33rd leg finds none at home, the 34th none on the outpost, which is asked first.
    let refusal = control.refused(room(7, &phones));
    assert_eq!((refusal.reason(), refusal.change), (Reason::NoPort, 34));
    let refusal = control.refused(room(7, &phones[..33]));
    assert_eq!((refusal.reason(), refusal.change), (Reason::NoPort, 33));
    // The home refuses after the outpost has bound.
    let mut verbs = room(7, &phones[..32]);
    let nobody = Some(LegSet { legs: vec![99], media: String::new() });
    verbs.push(Verb::PutPath(Path {
        id: 2,
        context: 7,
        mode: Mode::Distribute as i32,
        sources: nobody.clone(),
        targets: nobody,
        ..Path::default()
    }));
    let refusal = control.refused(verbs);
    assert_eq!((refusal.reason(), refusal.change), (Reason::UnknownLeg, 34));
    control.say(Order::Audit(Audit { id: 1 }));
    loop {
        let Word::Audited(part) = control.answer() else { panic!() };
        assert!(part.contexts.is_empty() && part.legs.is_empty(), "{part:?}");
        if !part.more {
            break;
        }
    }
    // All ports of both are free: nothing of the two is left.
    let placements = control.applied(room(7, &phones[..32])).placements;
    assert_eq!(shares(&node, &placements), [16, 16]);
    // The ports of those who leave are there for those who come.
    assert_eq!(control.refused(vec![Verb::PutLeg(rtp_leg(7, 40, &phones[33]))]).reason(), Reason::NoPort);
    control.applied(vec![Verb::RemoveLeg(LegKey::new(7, 1)), Verb::RemoveLeg(LegKey::new(7, 32))]);
    control
        .applied(vec![Verb::PutLeg(rtp_leg(7, 40, &phones[32])), Verb::PutLeg(rtp_leg(7, 41, &phones[33]))]);
}

#[test]
fn the_same_batch_again_is_answered_again() {
    let node = node("auto", 1);
    let mut control = node.control(1);
    let phones: Vec<_> = (0..4).map(|_| phone()).collect();
    let applied = control.applied(room(7, &phones));
    assert_eq!(control.again(room(7, &phones)), Word::Applied(applied.clone()));
    let places: Vec<_> = applied.placements.iter().map(at).collect();
    all_hear_all(&phones, &places, 100, 0..3);
}

#[test]
fn what_chooses_stays_at_home_and_is_refused_where_it_came_too_late() {
    let node = node("auto", 2);
    let mut control = node.control(1);
    let phones: Vec<_> = (0..6).map(|_| phone()).collect();
    let mut verbs = room(7, &phones);
    verbs.push(path(7, 2, Mode::Select));
    let placements = control.applied(verbs).placements;
    assert!(shares(&node, &placements).contains(&6));
    control.applied(room(8, &phones));
    let refusal = control.refused(vec![path(8, 2, Mode::Select)]);
    assert_eq!((refusal.reason(), refusal.change), (Reason::Unsupported, 0));
    control.applied(vec![Verb::RemoveContext(8)]);
}

#[test]
fn an_audit_and_a_capture_have_the_whole_of_it_once() {
    let node = node("auto", 2);
    let mut control = node.control(1);
    let phones: Vec<_> = (0..6).map(|_| phone()).collect();
    let placements = control.applied(room(7, &phones)).placements;
    let places: Vec<_> = placements.iter().map(at).collect();

    let capture = |on| Capture { context: 7, file: "room.pcap".into(), on, ..Capture::default() };
    control.say(Order::Capture(capture(true)));
    let Word::CaptureState(state) = control.answer() else { panic!() };
    assert!(state.on && state.error.is_empty(), "{state:?}");
    // The outpost has heard of the capture when it has followed what came after it.
    control.applied((1..).zip(&phones).map(|(id, phone)| Verb::PutLeg(rtp_leg(7, id, phone))).collect());
    all_hear_all(&phones, &places, 100, 0..5);
    control.say(Order::Capture(capture(false)));
    let Word::CaptureState(state) = control.answer() else { panic!() };
    // Six phones say five packets, each heard by five; our own reports may be among them.
    assert!(!state.on && state.packets >= 30 * 6 && state.missed == 0, "{state:?}");

    // One leg of either shard can be recorded.
    for leg in 1..=6 {
        let file = format!("leg{leg}.rtpdump");
        let record = |on| Capture { context: 7, leg, file: file.clone(), on, ..Capture::default() };
        control.say(Order::Capture(record(true)));
        let Word::CaptureState(state) = control.answer() else { panic!() };
        assert!(state.on && state.error.is_empty(), "{state:?}");
        control.say(Order::Capture(record(false)));
        let Word::CaptureState(state) = control.answer() else { panic!() };
        assert!(!state.on && state.error.is_empty(), "{state:?}");
    }

    control.say(Order::Audit(Audit { id: 3 }));
    let (mut contexts, mut legs, mut paths, mut placed) = (0, Vec::new(), 0, 0);
    loop {
        let Word::Audited(part) = control.answer() else { panic!() };
        contexts += part.contexts.len();
        legs.extend(part.legs.iter().map(|leg| leg.id));
        paths += part.paths.len();
        placed += part.placements.len();
        if !part.more {
            break;
        }
    }
    legs.sort_unstable();
    assert_eq!((contexts, legs, paths, placed), (1, (1..=6).collect(), 1, 6));
}
