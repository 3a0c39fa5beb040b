//! What waits for a slow device, by a hostile reading: many small things take no more memory than the limits say, whoever waits
//! goes on when he can, and control hears of the end.

use contract::{Mode, news};
use msrp::{Flag, Method};

use super::msrp_spill::*;
use super::phone::*;
use super::rig::*;
use crate::{CloseReason, Input, Limits, SpillOrder};

fn table(phones: &Phones, name: &str) -> usize {
    let found = phones.rig.engine.msrp_tables().into_iter().find(|(of, _)| *of == name);
    found.map(|(_, size)| size).expect("there is such a table")
}

/// Leg 1 sends to leg 2 alone, whose peer reads nothing by itself.
fn one_to_one() -> Phones {
    let paths = vec![path(1, Mode::Relay, &[1], &[2]), path(2, Mode::Relay, &[2], &[1])];
    let mut phones = Phones::up_with(limits(), vec![msrp_leg(1), msrp_leg(2)], paths);
    phones.rig.stalled.insert(2);
    phones
}

/// A chunk without octets.
fn nothing(phones: &Phones, id: &str, n: usize, range: &str) -> Vec<u8> {
    let lines = format!("Message-ID: {id}\r\n{SILENT}Byte-Range: {range}\r\nContent-Type: a/b\r\n");
    phones.request(1, "SEND", &format!("tid{n:05}"), &lines, Some(b""), '$')
}

/// The disk does what it is told, one order after the other, until it is to read what lies from octet `at` on; the peer of leg 2
/// reads all there is.
fn step_to_fetch(phones: &mut Phones, at: u64, slow: &mut Vec<u8>) -> Vec<Done> {
    let mut done = Vec::new();
    loop {
        done.extend(drink(phones, slow));
        match phones.rig.disk.waiting.front() {
            Some(SpillOrder::Fetch { mark, .. }) if *mark >= at => {
                if !phones.rig.wire.contains_key(&2) {
                    let begun = parse(slow).1.iter().any(|read| read.head.message_id() == "big2");
                    assert!(!begun, "{mark} {at}");
                    return done;
                }
            }
            Some(_) => {
                let word = phones.rig.disk.next().unwrap();
                done.extend(phones.rig.input(Input::Spilled(word)));
            }
            None => {
                assert!(phones.rig.wire.contains_key(&2), "it has read all, and nothing is read from disk")
            }
        }
    }
}

/// Leg 2 is behind with a message that is over, and with the first octets of another one, nothing of which has gone out. The disk
/// is about to read that one. Gives where it begins in the file.
fn second_waits(phones: &mut Phones) -> (u64, Vec<u8>, Vec<Done>) {
    Sender::new(file(phones, "big1", &text(150_000), SILENT)).push(phones);
    let at = phones.rig.disk.most as u64;
    assert!(at > 0);
    let lines = format!("Message-ID: big2\r\n{SILENT}Byte-Range: 1-*/60000\r\nContent-Type: a/b\r\n");
    let chunk = phones.request(1, "SEND", "second", &lines, Some(&text(10_000)), '+');
    phones.say_raw(1, &chunk);
    (at, Vec::new(), Vec::new())
}

#[test]
fn messages_without_octets_for_a_slow_device_are_bounded_in_number() {
    let mut phones = one_to_two(limits());
    let body = text(200_000);
    Sender::new(file(&phones, "big1", &body, SILENT)).push(&mut phones);
    let wire = (0..6_000).flat_map(|n| nothing(&phones, &format!("none{n:05}"), n, "1-0/0")).collect();
    let mut sender = Sender::new(wire);
    sender.push(&mut phones);
    let most = table(&phones, "held messages");
    assert!(sender.paused && most <= 4200, "{most}");
    let mut slow = Vec::new();
    for _ in 0..4000 {
        let done = drink(&mut phones, &mut slow);
        sender.heed(&done);
        sender.push(&mut phones);
        assert!(table(&phones, "held messages") <= 4200);
    }
    assert!(sender.is_over());
    assert!(came(&slow, "big1") == (body, Some(Flag::Last)));
    let (rest, read) = parse(&slow);
    let ids: Vec<&str> =
        read.iter().map(|r| r.head.message_id()).filter(|id| id.starts_with("none")).collect();
    let said: Vec<String> = (0..6_000).map(|n| format!("none{n:05}")).collect();
    assert!(rest.is_empty() && ids == said, "{}", ids.len());
    is_clean(&phones);
}

#[test]
fn octets_that_come_one_by_one_for_a_slow_device_are_bounded_in_number() {
    let mut phones = one_to_two(limits());
    let body = text(120_000);
    let lines = format!("Message-ID: big1\r\n{SILENT}Byte-Range: 1-*/120000\r\nContent-Type: a/b\r\n");
    let bytes = phones.request(1, "SEND", "bigtid", &lines, Some(&body), '$');
    let (first, rest) = bytes.split_at(80_000);
    phones.say_raw(1, first);
    phones.rig.disk.stalled = true;
    let (mut most, mut paused) = (0, 0);
    for octet in rest {
        let done = phones.say_raw(1, std::slice::from_ref(octet));
        paused += pauses(&done);
        most = most.max(table(&phones, "pieces held"));
        if paused > 0 {
            // The disk writes a while.
            phones.rig.disk.stalled = false;
            let mut done = Vec::new();
            phones.rig.deliver(&mut done);
            paused += pauses(&done);
            phones.rig.disk.stalled = true;
            assert_eq!(paused, 0, "there is room");
        }
    }
    phones.rig.disk.stalled = false;
    assert!(most <= 4200, "{most}");
    let mut slow = Vec::new();
    (0..200).for_each(|_| drop(drink(&mut phones, &mut slow)));
    assert!(came(&slow, "big1") == (body, Some(Flag::Last)));
    is_clean(&phones);
}

#[test]
fn chunks_without_octets_fill_no_queue_and_nothing_else_beyond_its_limit() {
    for several in [false, true] {
        let mut phones = if several { one_to_two(limits()) } else { one_to_one() };
        let lines = format!("Message-ID: big1\r\n{SILENT}Byte-Range: 1-*/100\r\nContent-Type: a/b\r\n");
        let mut wire = phones.request(1, "SEND", "first", &lines, Some(&text(10)), '+');
        wire.extend((0..20_000).flat_map(|n| nothing(&phones, "big1", n, "51-*/100")));
        let mut sender = Sender::new(wire);
        sender.push(&mut phones);
        let queued = phones.rig.engine.totals().queued_bytes;
        assert!(queued < 2 * QUEUE as u64, "{several}: {queued}");
        let pieces = table(&phones, "pieces held");
        assert!(sender.paused && pieces <= 4200, "{several}: {pieces}");
        let mut slow = Vec::new();
        for _ in 0..20_000 {
            let done = drink(&mut phones, &mut slow);
            sender.heed(&done);
            sender.push(&mut phones);
            if sender.is_over() {
                break;
            }
        }
        assert!(sender.is_over(), "{several}");
    }
}

// RFC 4975 §7.1.1: a chunk may be as long as its message.
#[test]
fn a_chunk_that_still_comes_after_incomplete_ms_is_not_given_up() {
    let mut phones = one_to_one();
    phones.rig.stalled.clear();
    let body = text(100_000);
    let lines = format!("Message-ID: big1\r\n{SILENT}Byte-Range: 1-*/100000\r\nContent-Type: a/b\r\n");
    let bytes = phones.request(1, "SEND", "bigtid", &lines, Some(&body), '$');
    for part in bytes.chunks(1000) {
        phones.say_raw(1, part);
        phones.rig.run(10_000);
    }
    let wire = phones.rig.wire.remove(&2).unwrap();
    assert!(came(&wire, "big1") == (body, Some(Flag::Last)));
    // Where nothing comes any more it is.
    let lines = format!("Message-ID: big2\r\n{SILENT}Byte-Range: 1-*/100000\r\nContent-Type: a/b\r\n");
    let bytes = phones.request(1, "SEND", "bigtid", &lines, Some(&text(100_000)), '$');
    phones.say_raw(1, &bytes[..5000]);
    phones.rig.run(600_000);
    let wire = phones.rig.wire.remove(&2).unwrap();
    assert_eq!(came(&wire, "big2").1, Some(Flag::Abort));
}

#[test]
fn a_message_without_octets_behind_one_that_the_disk_has_lost_goes_out() {
    let mut phones = one_to_two(limits());
    phones.rig.disk.stalled = false;
    let (at, mut slow, mut done) = second_waits(&mut phones);
    let none = nothing(&phones, "none", 1, "1-0/0");
    phones.say_raw(1, &none);
    phones.rig.disk.stalled = true;
    done.extend(step_to_fetch(&mut phones, at, &mut slow));
    phones.rig.disk.reads_fail = true;
    phones.rig.disk.stalled = false;
    let mut more = Vec::new();
    phones.rig.deliver(&mut more);
    done.extend(more);
    assert!(phones.rig.wire.contains_key(&2), "nothing else will wake it");
    (0..5).for_each(|_| done.extend(drink(&mut phones, &mut slow)));
    assert_eq!(came(&slow, "none").1, Some(Flag::Last));
    assert_eq!(told(&done).last(), Some(&(false, true)));
    is_clean(&phones);
}

#[test]
fn control_hears_of_the_end_where_what_waited_is_given_up_before_any_of_it_went_out() {
    let mut phones = one_to_two(limits());
    let (at, mut slow, mut done) = second_waits(&mut phones);
    phones.rig.disk.stalled = true;
    done.extend(step_to_fetch(&mut phones, at, &mut slow));
    let lines = format!("Message-ID: big2\r\n{SILENT}Byte-Range: 10001-*/60000\r\nContent-Type: a/b\r\n");
    let abort = phones.request(1, "SEND", "abort", &lines, Some(b"x"), '#');
    done.extend(phones.say_raw(1, &abort));
    phones.rig.disk.stalled = false;
    let mut more = Vec::new();
    phones.rig.deliver(&mut more);
    done.extend(more);
    assert_eq!(told(&done).last(), Some(&(false, true)));
    is_clean(&phones);
}

/// The peer of a leg answers what it has read, but for the last chunk.
fn answer_all_but_the_last(phones: &mut Phones, leg: u64, wire: &[u8]) -> (Vec<Done>, String) {
    let sends: Vec<String> =
        parse(wire).1.iter().filter(|r| r.is(Method::Send)).map(|r| r.head.tid().to_string()).collect();
    let (last, others) = sends.split_last().unwrap();
    let done = others.iter().flat_map(|tid| answered(phones, leg, tid, "200 OK")).collect();
    (done, last.clone())
}

fn answered(phones: &mut Phones, leg: u64, tid: &str, status: &str) -> Vec<Done> {
    let to = format!("To-Path: {}\r\nFrom-Path: {}\r\n", phones.ours[&leg], their(leg));
    phones.say_raw(leg, format!("MSRP {tid} {status}\r\n{to}-------{tid}$\r\n").as_bytes())
}

// RFC 4975 §7.1.4: after 30 s no answer will come; §7.2: an error is one.
#[test]
fn control_hears_of_the_end_where_the_last_chunk_is_refused_or_never_answered() {
    for (more, refused) in [("", false), ("", true), ("Success-Report: yes\r\n", true)] {
        let mut phones = one_to_two(limits());
        Sender::new(file(&phones, "big1", &text(400_000), more)).push(&mut phones);
        let wire = phones.rig.wire.remove(&3).unwrap();
        let (_, last) = answer_all_but_the_last(&mut phones, 3, &wire);
        answered(&mut phones, 3, &last, "200 OK");
        let (mut slow, mut done) = (Vec::new(), Vec::new());
        (0..200).for_each(|_| done.extend(drink(&mut phones, &mut slow)));
        assert_eq!(came(&slow, "big1").1, Some(Flag::Last));
        let (heard, last) = answer_all_but_the_last(&mut phones, 2, &slow);
        done.extend(heard);
        assert!(!told(&done).contains(&(false, true)));
        done.extend(match refused {
            true => answered(&mut phones, 2, &last, "413 Stop"),
            false => phones.rig.run(31_000),
        });
        assert_eq!(told(&done).last(), Some(&(false, true)), "{more}{refused}");
        is_clean(&phones);
    }
}

#[test]
fn room_on_disk_that_another_receiver_leaves_is_for_whoever_waits_for_it() {
    let legs = (1..=6).map(msrp_leg).collect();
    let paths = vec![path(1, Mode::Distribute, &[1], &[2, 3]), path(2, Mode::Distribute, &[4], &[5, 6])];
    let mut phones = Phones::up_with(Limits { spill_bytes_max: 400_000, ..limits() }, legs, paths);
    phones.rig.stalled.extend([2, 5]);
    let lines = format!("Message-ID: big4\r\n{SILENT}Byte-Range: 1-*/400000\r\nContent-Type: a/b\r\n");
    let bytes = phones.request(4, "SEND", "bigtid", &lines, Some(&text(400_000)), '$');
    bytes.chunks(8192).for_each(|part| drop(phones.say_raw(4, part)));
    let body = text(400_000);
    let mut sender = Sender::new(file(&phones, "big1", &body, SILENT));
    sender.push(&mut phones);
    assert!(sender.paused, "the disk is full");
    let done = phones.rig.input(Input::Closed { conn: conn(5), why: CloseReason::Reset });
    assert!(news(&done).iter().any(|what| matches!(what, news::What::LegLost(_))));
    sender.heed(&done);
    sender.push(&mut phones);
    assert!(sender.is_over(), "there is room again");
    let mut slow = Vec::new();
    (0..200).for_each(|_| drop(drink(&mut phones, &mut slow)));
    assert!(came(&slow, "big1") == (body, Some(Flag::Last)));
    is_clean(&phones);
}

/// Legs 2 and 3 are on one connection, which reads slowly.
#[test]
fn of_two_sessions_on_one_connection_the_backlog_of_one_does_not_keep_the_other_waiting() {
    let paths = vec![path(1, Mode::Distribute, &[1], &[2, 5]), path(2, Mode::Distribute, &[4], &[3, 6])];
    let mut phones = Phones::put(limits(), (1..=6).map(msrp_leg).collect(), paths);
    [1, 2, 4, 5, 6].iter().for_each(|n| drop(phones.connect(*n)));
    let bind = phones.empty(3);
    phones.say_raw(2, &bind);
    phones.read(2);
    phones.rig.stalled.insert(2);
    let (long, short) = (text(2_000_000), text(200_000));
    Sender::new(file(&phones, "long", &long, SILENT)).push(&mut phones);
    let lines = format!("Message-ID: short\r\n{SILENT}Byte-Range: 1-*/200000\r\nContent-Type: a/b\r\n");
    let bytes = phones.request(4, "SEND", "shorttid", &lines, Some(&short), '$');
    bytes.chunks(8192).for_each(|part| drop(phones.say_raw(4, part)));
    let mut slow = Vec::new();
    (0..2000).for_each(|_| drop(drink(&mut phones, &mut slow)));
    assert!(
        came(&slow, "long") == (long, Some(Flag::Last)) && came(&slow, "short") == (short, Some(Flag::Last))
    );
    let ends = parse(&slow).1.into_iter().filter(|r| r.is(Method::Send) && r.flag == Flag::Last);
    let order: Vec<String> = ends.map(|r| r.head.message_id().to_owned()).collect();
    assert_eq!(order, ["short", "long"]);
    is_clean(&phones);
}
