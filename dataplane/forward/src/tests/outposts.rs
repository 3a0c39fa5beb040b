//! A context over several engines (DESIGN §2, invariant 4): its packets, its batches, who comes and who leaves.

use std::collections::{BTreeMap, VecDeque};

use base::Entropy;
use contract::change::Verb;
use contract::{Batch, Change, LegKey, LegSet, Mode, Path, from_dataplane::Body, news};
use rtp::{RtcpWriter, RtpView};

use super::rig::{CONTEXT, config, edit, key, packet, put_leg, rtp_leg};
use super::shards::{HOME, Letter, byes, local, three, to};
use crate::{Drop, Elsewhere, Engine, Handed, Input, Limits};

#[test]
fn each_packet_comes_once_and_in_order_to_all_the_others_on_whatever_shard() {
    for seed in 1..=20 {
        let mut shards = three(1..=9, seed);
        for sequence in 0..40u16 {
            for leg in 1..=9 {
                let payload = [leg as u8, sequence as u8];
                shards.hear(leg, &packet(100 + leg as u32, sequence, u32::from(sequence), 0, &payload));
                // Some of what is on its way comes now, some later.
                for _ in 0..shards.chance.below(6) {
                    shards.step();
                }
            }
        }
        shards.deliver();
        let left = std::mem::take(&mut shards.left);
        for receiver in 1..=9 {
            for source in 1..=9u64 {
                let heard: Vec<u8> = to(&left, receiver)
                    .into_iter()
                    .map(|bytes| RtpView::parse(bytes).unwrap())
                    .filter(|view| view.ssrc() == 100 + source as u32)
                    .map(|view| {
                        assert_eq!(view.payload()[0], source as u8);
                        view.payload()[1]
                    })
                    .collect();
                let expected: Vec<u8> = if source == receiver { vec![] } else { (0..40).collect() };
                assert_eq!(heard, expected, "of {source} at {receiver}, seed {seed}");
            }
        }
        shards.check_sums();
        assert_eq!(shards.engines.iter().map(|e| e.totals().legs).sum::<u64>(), 9);
        assert_eq!(shards.engines.iter().map(|e| e.totals().contexts).sum::<u64>(), 1);
        assert_eq!(shards.engines.iter().map(|e| e.totals().contexts_begun).sum::<u64>(), 1);
    }
}

#[test]
fn one_seed_gives_one_run() {
    // DESIGN §2, invariant 7.
    let run = |seed| {
        let mut shards = three(1..=6, seed);
        let mut left = Vec::new();
        for sequence in 0..100u16 {
            for leg in 1..=6 {
                left.extend(shards.hear_all(leg, &packet(5, sequence, 160 * u32::from(sequence), 0, &[1])));
            }
            left.extend(shards.run(20));
        }
        left
    };
    assert_eq!(run(7), run(7));
}

#[test]
fn a_packet_is_copied_once_for_all_outposts() {
    let mut shards = three(1..=3, 1);
    shards.hear(3, &packet(5, 1, 0, 0, &[1; 160]));
    let octets = |to| match &shards.boxes[&(HOME, to)][0] {
        Letter::Handed(handed) => handed.datagram(),
        Letter::Follow(..) => panic!(),
    };
    assert_eq!(octets(1), packet(5, 1, 0, 0, &[1; 160]));
    assert_eq!(octets(1).as_ptr(), octets(2).as_ptr());
    shards.deliver();
    shards.check_sums();
}

#[test]
fn nothing_is_handed_over_for_a_context_that_is_here_whole() {
    let mut shards = three([3, 6, 9].into_iter(), 1); // all at home
    assert_eq!(shards.hear_all(3, &packet(5, 1, 0, 0, &[1])).len(), 2);
    let totals = shards.engines[0].totals();
    assert_eq!((totals.handed_out, totals.legs), (0, 3));
    assert!(!shards.engines[1].is_outpost(CONTEXT), "who has no leg of it does not know it");
}

#[test]
fn sources_of_one_ssrc_on_two_shards_are_told_apart() {
    // RFC 3550 §8.2. Both begin before either shard has heard of the other.
    for seed in 1..=10 {
        let mut shards = three(1..=6, seed);
        let mut seen: BTreeMap<u64, BTreeMap<u8, Vec<u32>>> = BTreeMap::new();
        for sequence in 0..10 {
            shards.hear(1, &packet(5, sequence, 0, 0, &[1]));
            shards.hear(2, &packet(5, sequence, 0, 0, &[2]));
            shards.deliver();
        }
        for left in shards.left.drain(..) {
            let view = RtpView::parse(&left.bytes).unwrap();
            seen.entry(left.leg).or_default().entry(view.payload()[0]).or_default().push(view.ssrc());
        }
        for leg in 3..=6 {
            let [of_1, of_2] = [1, 2].map(|source| seen[&leg][&source].clone());
            assert_eq!((of_1.len(), of_2.len()), (10, 10));
            assert!(of_1.iter().all(|ssrc| *ssrc == of_1[0]) && of_2.iter().all(|ssrc| *ssrc == of_2[0]));
            assert_ne!(of_1[0], of_2[0], "at leg {leg}");
        }
    }
}

#[test]
fn a_batch_that_the_home_refuses_changes_nobody() {
    let mut shards = three(1..=6, 1);
    let before: Vec<_> = (0..3).map(|at| shards.engines[at].audit(None)).collect();
    // Its path names a leg that is not there.
    let sets = Some(LegSet { legs: vec![7, 99], media: String::new() });
    let path = Path {
        id: 2,
        context: CONTEXT,
        mode: Mode::Distribute as i32,
        sources: sets.clone(),
        targets: sets,
        ..Path::default()
    };
    let answer = shards.batch(vec![put_leg(rtp_leg(7)), put_leg(rtp_leg(8)), Verb::PutPath(path)]);
    let Body::Refusal(refusal) = answer else { panic!("{answer:?}") };
    assert_eq!((refusal.reason(), refusal.change), (contract::refusal::Reason::UnknownLeg, 2));
    shards.deliver();
    let after: Vec<_> = (0..3).map(|at| shards.engines[at].audit(None)).collect();
    assert_eq!(before, after);
    // The same legs without it: the sockets that were bound for them are free still.
    shards.put(vec![put_leg(rtp_leg(7)), put_leg(rtp_leg(8))]);
    assert_eq!(shards.hear_all(7, &packet(5, 1, 0, 0, &[1])).len(), 7);
}

#[test]
fn a_leg_does_not_change_its_shard() {
    let mut shards = three(1..=3, 1);
    let change = Change { verb: Some(put_leg(rtp_leg(1))) };
    let batch = Batch { generation: 2, epoch: 1, changes: vec![change], ..Batch::default() };
    let elsewhere = [Elsewhere { leg: key(1), shard: 2, local: Some(local(1)) }];
    let input = Input::SpreadBatch { batch: &batch, attachments: &[], elsewhere: &elsewhere };
    let Some(Body::Refusal(refusal)) = shards.input(HOME, input) else { panic!() };
    assert_eq!(refusal.reason(), contract::refusal::Reason::Unsupported);
}

#[test]
fn to_follow_twice_changes_nothing() {
    let mut shards = three(1..=6, 1);
    let all = [1, 2, 3, 4, 5, 6];
    shards.hear_all(1, &packet(5, 1, 0, 0, &[1]));
    let again: Vec<Verb> = all.iter().map(|n| put_leg(rtp_leg(*n))).collect();
    let answer = shards.batch_as(again, 1);
    assert!(matches!(answer, Body::Applied(_)), "the same generation again is answered again");
    shards.deliver();
    assert_eq!(shards.closed, Vec::<u64>::new());
    assert_eq!(shards.hear_all(1, &packet(5, 2, 0, 0, &[1])).len(), 5);
}

#[test]
fn who_leaves_is_gone_on_all_shards_and_his_receivers_hear_it() {
    // RFC 3550 §6.6.
    let mut shards = three(1..=6, 3);
    for leg in 1..=6 {
        shards.hear_all(leg, &packet(100 + leg as u32, 1, 0, 0, &[1]));
    }
    let mut writer = RtcpWriter::new();
    writer.receiver(101, &[]).bye(&[101]);
    let left = shards.hear_all(1, &writer.finish());
    (2..=6).for_each(|leg| assert_eq!(byes(&left, leg), [101], "at {leg}"));
    assert_eq!(byes(&left, 1), Vec::<u32>::new());

    shards.left.clear();
    shards.put(vec![Verb::RemoveLeg(key(2))]);
    let left = std::mem::take(&mut shards.left);
    [1, 3, 4, 5, 6].into_iter().for_each(|leg| assert_eq!(byes(&left, leg), [102], "at {leg}"));
    assert_eq!(shards.closed, [2]);
    let ended: Vec<_> = shards
        .news
        .iter()
        .filter_map(|what| if let news::What::Counters(c) = what { Some(c.legs.clone()) } else { None })
        .flatten()
        .filter(|leg| leg.ended)
        .map(|leg| leg.leg.unwrap().leg)
        .collect();
    assert_eq!(ended, [2], "once, and by its own shard");
    assert_eq!(shards.hear_all(1, &packet(101, 2, 0, 0, &[1])).len(), 4);

    shards.put(vec![Verb::RemoveContext(CONTEXT)]);
    shards.closed.sort_unstable();
    assert_eq!(shards.closed, [1, 2, 3, 4, 5, 6]);
    for engine in &shards.engines {
        let totals = engine.totals();
        assert_eq!((totals.contexts, totals.legs), (0, 0));
        assert_eq!(engine.audit(None), None);
        assert!(engine.media.legs.is_empty() && engine.media.foreign_names.is_empty(), "no row is left");
    }
}

#[test]
fn what_comes_for_a_leg_that_is_not_known_yet_or_any_more_is_counted() {
    let mut shards = three(1..=3, 1);
    // 4 comes at home's word to shard 1 and 2; shard 1 is faster than the home's letter to shard 2.
    assert!(matches!(shards.batch(vec![put_leg(rtp_leg(4))]), Body::Applied(_)));
    let first = shards.boxes.get_mut(&(HOME, 1)).and_then(VecDeque::pop_front);
    let Some(Letter::Follow(standing, attachments)) = first else { panic!() };
    shards.input(1, Input::Follow { standing: &standing, attachments: &attachments });
    shards.hear(4, &packet(5, 1, 0, 0, &[1]));
    let Some(Letter::Handed(early)) = shards.boxes.get_mut(&(1, 2)).and_then(VecDeque::pop_front) else {
        panic!()
    };
    shards.input(2, Input::Handed(&early));
    assert_eq!(shards.engines[2].dropped(Drop::OutpostUnknown), 1);
    shards.deliver();
    shards.left.clear();
    // Nobody speaks for a leg but its own shard.
    let forged = Box::new(Handed { from: 0, ..(*early).clone() });
    shards.input(2, Input::Handed(&forged));
    assert_eq!(shards.engines[2].dropped(Drop::OutpostUnknown), 2);
    assert!(shards.left.is_empty());
}

#[test]
fn what_finds_no_room_or_no_receiver_is_counted_under_its_own_reason() {
    let mut shards = three(1..=3, 1);
    shards.room = 5;
    for sequence in 0..20 {
        shards.hear(3, &packet(5, sequence, 0, 0, &[1]));
    }
    shards.deliver();
    assert_eq!(shards.engines[0].dropped(Drop::OutpostFull), 30);
    let of_5 = to(&shards.left, 1).len();
    assert_eq!(of_5, 5);
    // Leg 2 agrees to nothing that leg 3 sends.
    let deaf = edit(rtp_leg(2), |rtp| {
        rtp.payloads = vec![contract::PayloadMap { peer: 8, context: 8, codec: 0 }];
    });
    shards.room = 100;
    shards.put(vec![put_leg(deaf)]);
    let left = shards.hear_all(3, &packet(5, 30, 0, 0, &[1]));
    assert_eq!(left.iter().map(|l| l.leg).collect::<Vec<_>>(), [1]);
    assert_eq!(shards.engines[2].dropped(Drop::OutpostUnsent), 1);
    shards.check_sums();
}

#[test]
fn room_is_looked_for_before_a_shard_follows() {
    let limits = Limits { sockets_max: 256, legs_max: 8, contexts_max: 1, ..Limits::default() };
    let engine = Engine::new(config(limits), Entropy::from_number(1));
    assert!(engine.has_room(CONTEXT, 8) && !engine.has_room(CONTEXT, 9));
    let shards = three(1..=6, 1);
    let limit = Limits::default().legs_max;
    let engine = &shards.engines[1];
    assert!(engine.has_room(CONTEXT, limit), "its own stand-ins are counted in what is asked");
    assert!(engine.has_room(CONTEXT + 1, limit - 6) && !engine.has_room(CONTEXT + 1, limit - 5));
}

#[test]
fn the_place_of_a_leg_is_its_own() {
    let shards = three(1..=3, 1);
    let placement = |at: usize, leg| shards.engines[at].placement(LegKey::new(CONTEXT, leg));
    assert!(placement(0, 1).is_some(), "the home answers for all");
    assert_eq!(placement(0, 1), placement(1, 1));
}
