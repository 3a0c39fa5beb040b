//! Back-pressure both ways, and memory that stays bounded.

use contract::{Mode, leg_lost::Reason, news};
use msrp::Flag;

use super::phone::*;
use super::rig::*;
use crate::{Input, Limits, Output};

fn limits() -> Limits {
    Limits {
        queue_bytes_max: 50_000,
        inflight_bytes_max: 10_000,
        slow_ms: 60_000,
        sockets_max: 1,
        ..Limits::default()
    }
}

fn pauses(done: &[Done]) -> (usize, usize) {
    let count = |f: fn(&Output) -> bool| done.iter().filter(|d| matches!(d, Done::Stream(o) if f(o))).count();
    (count(|o| matches!(o, Output::Pause { .. })), count(|o| matches!(o, Output::Resume { .. })))
}

#[test]
fn a_full_relay_pauses_its_source_and_loses_nothing() {
    let mut phones =
        Phones::up_with(limits(), vec![msrp_leg(1), msrp_leg(2)], vec![path(1, Mode::Relay, &[1], &[2])]);
    phones.rig.stalled.insert(2);
    let body: Vec<u8> = (0..400_000u32).map(|n| (n % 251) as u8).collect();
    let lines = "Message-ID: big1\r\nByte-Range: 1-*/400000\r\nContent-Type: a/b\r\n";
    let bytes = phones.request(1, "SEND", "tid1", lines, Some(&body), '$');
    let (mut paused, mut at) = (0, 0);
    // A peer that heeds the pause: nothing more is read from it.
    for piece in bytes.chunks(8192) {
        at += piece.len();
        paused += pauses(&phones.say_raw(1, piece)).0;
        if paused > 0 {
            break;
        }
    }
    assert_eq!(paused, 1);
    assert!(at < 80_000, "{at}");
    let mut got = Vec::new();
    for _ in 0..2000 {
        // The far end reads a little at a time.
        let wire = phones.rig.wire.remove(&2).unwrap_or_default();
        let read = wire.len();
        got.extend_from_slice(&wire);
        let mut done = phones.rig.input(Input::Sent { conn: conn(2), bytes: read });
        phones.rig.deliver(&mut done);
        assert!(phones.rig.engine.totals().queued_bytes < 60_000);
        if pauses(&done).1 > 0 {
            while at < bytes.len() {
                let piece = &bytes[at..bytes.len().min(at + 8192)];
                at += piece.len();
                if pauses(&phones.say_raw(1, piece)).0 > 0 {
                    break;
                }
            }
        }
    }
    let (rest, read) = parse(&got);
    assert!(rest.is_empty());
    let whole: Vec<u8> = read.iter().flat_map(|r| r.body.clone()).collect();
    assert_eq!((whole == body, read.last().unwrap().flag), (true, Flag::Last));
}

#[test]
fn a_relay_that_never_moves_is_cut_loose_and_reported() {
    let mut phones =
        Phones::up_with(limits(), vec![msrp_leg(1), msrp_leg(2)], vec![path(1, Mode::Relay, &[1], &[2])]);
    phones.rig.stalled.insert(2);
    let lines = "Message-ID: big1\r\nByte-Range: 1-*/400000\r\nContent-Type: a/b\r\n";
    let bytes = phones.request(1, "SEND", "tid1", lines, Some(&[b'x'; 400_000]), '$');
    let mut done = phones.say_raw(1, &bytes);
    done.extend(phones.rig.run(70_000));
    assert!(news(&done).iter().any(|w| matches!(w, news::What::LegLost(l) if l.reason() == Reason::Slow)));
    let read = phones.read(1);
    assert!(read.iter().any(|r| r.head.status() == Some(msrp::Status::TIMEOUT)), "{read:?}");
    let (paused, resumed) = pauses(&done);
    assert_eq!(paused, resumed, "the source is read on");
    assert_eq!(phones.rig.engine.totals().queued_bytes, 0);
}

#[test]
fn of_several_devices_one_that_is_stuck_does_not_hold_up_the_others() {
    let legs = vec![msrp_leg(1), msrp_leg(2), msrp_leg(3)];
    let mut phones = Phones::up_with(limits(), legs, vec![path(1, Mode::Distribute, &[1], &[2, 3])]);
    phones.rig.stalled.insert(2);
    let body = vec![b'x'; 400_000];
    let lines = "Message-ID: big1\r\nByte-Range: 1-*/400000\r\nContent-Type: a/b\r\n";
    let bytes = phones.request(1, "SEND", "tid1", lines, Some(&body), '$');
    let mut paused_for = 0;
    for piece in bytes.chunks(8192) {
        if pauses(&phones.say_raw(1, piece)).0 > 0 {
            while pauses(&phones.rig.run(100)).1 == 0 {
                paused_for += 100;
            }
        }
    }
    assert!((4000..6000).contains(&paused_for), "{paused_for} ms");
    let read = phones.read(3);
    assert_eq!((read.len(), read[0].body.len(), read[0].flag), (1, body.len(), Flag::Last));
    assert!(phones.rig.engine.dropped(crate::Drop::MsrpCongested) > 0);
}

#[test]
fn unfinished_messages_and_connections_have_a_limit() {
    let few = Limits { leg_messages_max: 4, connections_max: 3, ..limits() };
    let mut phones =
        Phones::up_with(few, vec![msrp_leg(1), msrp_leg(2)], vec![path(1, Mode::Relay, &[1], &[2])]);
    let lines = "Byte-Range: 1-*/100\r\nContent-Type: text/plain\r\n";
    let mut codes = Vec::new();
    for n in 0..6 {
        phones.say(1, &Send { id: &format!("msg{n}"), lines, flag: '+', ..Send::default() });
        codes.push(phones.answer(1));
    }
    assert_eq!(codes, [200, 200, 200, 200, 413, 413]);
    phones.open(3);
    let done = phones.open(4);
    assert!(matches!(done[..], [Done::Stream(Output::Shut { abort: true, .. })]));
    assert_eq!(phones.rig.engine.dropped(crate::Drop::MsrpLimit), 3);
}

// With Failure-Report `partial` silence is success; of a chunk that never went out it says nothing.
#[test]
fn what_never_left_a_relay_that_is_cut_loose_is_reported_although_only_errors_are_answered() {
    let mut phones =
        Phones::up_with(limits(), vec![msrp_leg(1), msrp_leg(2)], vec![path(1, Mode::Relay, &[1], &[2])]);
    phones.rig.stalled.insert(2);
    let lines = "Failure-Report: partial\r\nSuccess-Report: yes\r\nByte-Range: 1-*/20000\r\n\
                 Content-Type: text/plain\r\n";
    phones.say(1, &Send { lines, body: &[b'x'; 20_000], ..Send::default() });
    // Longer than an answer may take.
    phones.rig.run(40_000);
    assert!(phones.read(1).is_empty());
    phones.rig.input(Input::Closed { conn: conn(2), why: crate::CloseReason::Reset });
    let read = phones.read(1);
    assert_eq!(read.len(), 1, "{read:?}");
    assert_eq!(read[0].head.status(), Some(msrp::Status::TIMEOUT));
}
