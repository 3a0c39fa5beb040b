//! Much at once: what one read brings for a room, and what a leg remembers.

use msrp::Method;

use super::phone::*;
use super::rig::*;
use crate::{ConnId, Drop, Input, Limits, Output};

const ALL: &str = "sip:anonymous@anonymous.invalid";

fn member(n: u64) -> contract::Leg {
    adjust(msrp_leg(n), |m| m.addresses = vec![user(n)])
}

fn room(legs: u64) -> Phones {
    room_with(Limits { sockets_max: 1, ..Limits::default() }, legs)
}

fn room_with(limits: Limits, legs: u64) -> Phones {
    let all = Some(contract::LegSet { legs: vec![], media: "msrp".into() });
    let switch = contract::path::Parameters::Switch(contract::Switch::default());
    let path = contract::Path {
        sources: all.clone(),
        targets: all,
        parameters: Some(switch),
        ..path(1, contract::Mode::Switch, &[], &[])
    };
    Phones::up_with(limits, (1..=legs).map(member).collect(), vec![path])
}

fn text(number: usize, octets: usize) -> String {
    format!("message {number} {}", "x".repeat(octets))
}

/// So many messages of one sender, as they lie in one read.
fn burst(phones: &Phones, messages: usize, octets: usize) -> Vec<u8> {
    let one = |number: usize| {
        let body = cpim(1, ALL, "text/plain", &text(number, octets));
        let lines =
            format!("Message-ID: id{number:04}\r\nFailure-Report: no\r\nContent-Type: message/cpim\r\n");
        phones.request(1, "SEND", &format!("tid{number:04}"), &lines, Some(&body), '$')
    };
    (0..messages).flat_map(one).collect()
}

#[test]
fn what_one_read_brings_for_a_wide_room_comes_to_each_whole_and_in_order() {
    for octets in [10, 1000, 5000] {
        let mut phones = room(10);
        let bytes = burst(&phones, 12, octets);
        phones.say_raw(1, &bytes);
        for n in 2..=10 {
            let read = phones.read(n);
            assert_eq!(read.len(), 12, "{octets}");
            for (number, message) in read.iter().enumerate() {
                assert!(message.is(Method::Send));
                assert_eq!(message.body, cpim(1, ALL, "text/plain", &text(number, octets)));
            }
        }
        phones.check_sum();
    }
}

// A busy room held a copy of each message for each member, and its pages were asked of the kernel anew each time.
#[test]
fn many_small_messages_to_many_are_held_once() {
    let mut phones = room(10);
    let bytes = burst(&phones, 12, 1000);
    let input = Input::Received { conn: ConnId(1), bytes: bytes.into() };
    phones.rig.engine.handle(phones.rig.now, input, &mut phones.rig.out);
    while phones.rig.engine.flush(&mut phones.rig.out) {}
    let body = cpim(1, ALL, "text/plain", &text(11, 1000));
    let mut places = std::collections::BTreeSet::new();
    for done in phones.rig.perform(&[]) {
        let Done::Stream(Output::WriteAll { pieces, .. }) = done else { continue };
        places.extend(pieces.iter().filter(|piece| piece[..] == body[..]).map(|piece| piece.as_ptr()));
    }
    assert_eq!(places.len(), 1, "the last message, which waits behind others");
}

/// A burst of one sender comes in reads of 8 KB, faster than anything goes out; then everything goes out.
fn outrun(phones: &mut Phones, messages: usize) {
    let bytes = burst(phones, messages, 1000);
    let mut done = Vec::new();
    for read in bytes.chunks(8000) {
        let input = Input::Received { conn: ConnId(1), bytes: read.to_vec().into() };
        phones.rig.engine.handle(phones.rig.now, input, &mut phones.rig.out);
        let performed = phones.rig.perform(&[]);
        done.extend(performed);
    }
    phones.rig.deliver(&mut done);
}

fn small(queue_bytes_max: usize) -> Limits {
    Limits { queue_bytes_max, inflight_bytes_max: 10_000, sockets_max: 1, ..Limits::default() }
}

// A data plane that came late to what a speaker had sent marked all his listeners as slow, who had not been given anything
// yet, and threw away what did not fit (`bench msrp --only delay_80`: "messages were lost").
#[test]
fn a_burst_of_short_messages_is_paced_and_nobody_misses_any() {
    let mut phones = room_with(small(50_000), 10);
    outrun(&mut phones, 300);
    for n in 2..=10 {
        let read = phones.read(n);
        assert_eq!(read.len(), 300, "{n}");
        for (number, message) in read.iter().enumerate() {
            assert_eq!(message.body, cpim(1, ALL, "text/plain", &text(number, 1000)));
        }
    }
    assert_eq!(phones.rig.engine.dropped(Drop::MsrpHeldFull), 0);
    assert_eq!(phones.rig.engine.totals().queued_bytes, 0);
    phones.check_sum();
}

/// One who reads nothing holds the others up no longer than a burst does: he is marked, and they have all of it.
#[test]
fn in_a_burst_one_who_reads_nothing_is_marked_and_the_others_miss_nothing() {
    let mut phones = room_with(small(50_000), 10);
    phones.rig.stalled.insert(2);
    let mut most = 0;
    for _ in 0..10 {
        outrun(&mut phones, 30);
        most = most.max(phones.rig.engine.totals().queued_bytes);
        phones.rig.run(600);
    }
    for n in 3..=10 {
        assert_eq!(phones.read(n).len(), 300, "{n}");
    }
    assert!(phones.rig.engine.dropped(Drop::MsrpHeldFull) > 0, "his alone");
    assert!(most < 60_000, "bounded: {most}");
}
