//! `tap` for MSRP: a copy of what is said, for history, deferral or interception, that touches nobody's conversation; and
//! what was kept, played out by an ordinary leg.

use contract::{Leg, Mode, Switch, change::Verb, news, path::Parameters};
use msrp::{ByteRange, FailureReport, Flag, Method, Status};

use super::phone::*;
use super::rig::*;
use crate::{CloseReason, Drop, Input, Limits, Output};

const ALL: &str = "sip:anonymous@anonymous.invalid";
const ASKED: &str = "Success-Report: yes\r\nByte-Range: 1-5/5\r\nContent-Type: text/plain\r\n";

fn limits() -> Limits {
    Limits { sockets_max: 1, queue_bytes_max: 10_000, inflight_bytes_max: 4000, ..Limits::default() }
}

fn recorder(unseen: bool) -> Leg {
    Leg { media: "tap".into(), unseen, ..msrp_leg(3) }
}

/// A chat of 1 and 2, tapped by 3.
fn paths() -> Vec<contract::Path> {
    let (there, back) = (path(1, Mode::Relay, &[1], &[2]), path(2, Mode::Relay, &[2], &[1]));
    vec![there, back, path(3, Mode::Tap, &[1, 2], &[3])]
}

fn call(limits: Limits) -> Phones {
    Phones::up_with(limits, vec![msrp_leg(1), msrp_leg(2), recorder(false)], paths())
}

fn member(n: u64) -> Leg {
    Leg { participant: format!("p{n}"), ..adjust(msrp_leg(n), |m| m.addresses = vec![user(n)]) }
}

/// A room of these members, tapped by 3.
fn room(members: &[u64]) -> Phones {
    let all = Some(contract::LegSet { legs: vec![], media: "msrp".into() });
    let parameters = Some(Parameters::Switch(Switch { private_messages: true, ..Switch::default() }));
    let room = contract::Path {
        sources: all.clone(),
        targets: all.clone(),
        parameters,
        ..path(1, Mode::Switch, &[], &[])
    };
    let tap = contract::Path { sources: all, ..path(2, Mode::Tap, &[], &[3]) };
    let legs = members.iter().map(|n| adjust(member(*n), |m| m.private_messages = true));
    Phones::up_with(limits(), legs.chain([recorder(false)]).collect(), vec![room, tap])
}

/// What came to leg `n` whole, by its octets; each Message-ID once.
fn whole(phones: &mut Phones, n: u64) -> Vec<Vec<u8>> {
    let (mut open, mut whole) = (std::collections::BTreeMap::<String, Vec<u8>>::new(), Vec::new());
    let mut ended = std::collections::BTreeSet::new();
    for read in phones.read(n).into_iter().filter(|read| read.is(Method::Send)) {
        let id = read.head.message_id().to_owned();
        assert!(!ended.contains(&id), "nothing comes after an end");
        let body = open.entry(id.clone()).or_default();
        let start = read.head.byte_range().unwrap().start as usize - 1;
        body.resize(body.len().max(start + read.body.len()), 0);
        body[start..start + read.body.len()].copy_from_slice(&read.body);
        match read.flag {
            Flag::Last => {
                whole.push(open.remove(&id).unwrap());
                ended.insert(id);
            }
            Flag::Abort => drop(open.remove(&id)),
            Flag::More => {}
        }
    }
    whole
}

fn told(done: &[Done]) -> Vec<bool> {
    let of_tap = |what: &&news::What| matches!(what, news::What::Pressure(p) if p.leg == Some(key(3)));
    news(done)
        .into_iter()
        .filter(of_tap)
        .map(|what| matches!(what, news::What::Pressure(p) if p.on))
        .collect()
}

fn is_paused(done: &[Done]) -> bool {
    done.iter().any(|d| matches!(d, Done::Stream(Output::Pause { .. })))
}

#[test]
fn a_tap_gets_what_both_sides_say_octet_by_octet_and_the_conversation_is_as_it_was() {
    let mut phones = call(limits());
    let lines = "Success-Report: yes\r\nX-Kept: yes\r\nContent-Type: message/cpim\r\n";
    for (from, to) in [(1, 2), (2, 1)] {
        let body = cpim(from, ALL, "text/plain", &format!("said by {from}"));
        // One Message-ID of two senders.
        phones.say(from, &Send { lines, body: &body, ..Send::default() });
        assert_eq!(phones.answer(from), 200);
        let (there, copy) = (phones.read(to).remove(0), phones.read(3).remove(0));
        assert_eq!((&there.body, there.head.message_id()), (&body, "message1"));
        assert_eq!((&copy.body, copy.flag), (&body, Flag::Last));
        let head = &copy.head;
        assert_eq!((head.content_type(), head.header(b"X-Kept")), (Some("message/cpim"), Some(&b"yes"[..])));
        assert_eq!((head.success_report(), head.failure_report()), (false, FailureReport::Partial));
        assert_ne!(head.message_id(), "message1");
        // RFC 4975 §7.1.2, §7.1.3: what the tap's far end says of it is not the sender's.
        phones.report(3, &copy, 200);
        phones.report(3, &copy, 408);
        assert!(phones.read(from).is_empty());
        phones.report(to, &there, 200);
        assert_eq!(phones.read(from)[0].head.status(), Some(Status::OK));
    }
    let totals = phones.rig.engine.counters(phones.rig.now, None).unwrap().1;
    let out: Vec<_> = totals.legs.iter().map(|leg| leg.packets_out).collect();
    assert_eq!(out, [1, 1, 2]);
    assert_eq!(phones.rig.engine.dropped(Drop::MsrpTap), 0);
    phones.check_sum();
}

#[test]
fn what_a_tap_says_reaches_nobody() {
    let mut phones = call(limits());
    phones.say(3, &Send::default());
    assert_eq!(phones.answer(3), 403);
    assert!(phones.read(1).is_empty() && phones.read(2).is_empty());
}

#[test]
fn a_tap_has_each_chunk_as_it_comes_in_whatever_order_and_its_end() {
    let mut phones = call(limits());
    let body: Vec<u8> = (0..30_000u32).map(|n| (n % 251) as u8).collect();
    let chunk = |from: usize, to: usize, flag| {
        let lines = format!("Byte-Range: {}-*/30000\r\nContent-Type: a/b\r\n", from + 1);
        (lines, from, to, flag)
    };
    let order = [chunk(20_000, 30_000, '$'), chunk(0, 9000, '+'), chunk(9000, 20_000, '+')];
    for (at, (lines, from, to, flag)) in order.iter().enumerate() {
        let tid = &format!("tid{at}");
        phones.say(1, &Send { tid, lines, body: &body[*from..*to], flag: *flag, ..Send::default() });
        assert!(!phones.rig.wire[&3].is_empty());
    }
    assert_eq!(whole(&mut phones, 3), [body]);
    // Two at once, and one that its sender gives up.
    let lines = "Byte-Range: 1-*/10\r\nContent-Type: a/b\r\n";
    for (id, body, flag) in [("one12", "01234", '+'), ("two12", "56789", '+')] {
        phones.say(1, &Send { id, tid: id, lines, body: body.as_bytes(), flag });
    }
    let lines = "Byte-Range: 6-*/10\r\nContent-Type: a/b\r\n";
    phones.say(1, &Send { id: "two12", tid: "tid8", lines, body: b"abcde", ..Send::default() });
    phones.say(1, &Send { id: "one12", tid: "tid9", lines, body: b"vwxyz", flag: '#' });
    let read = phones.read(3);
    assert_eq!(read.iter().filter(|read| read.flag == Flag::Abort).count(), 1);
    let two: Vec<u8> =
        read.iter().skip(1).filter(|r| r.flag != Flag::Abort).flat_map(|r| r.body.clone()).collect();
    assert!(two.starts_with(b"56789") && two.windows(5).any(|w| w == b"abcde"), "{two:?}");
    // One without octets.
    let lines = "Byte-Range: 1-0/0\r\nContent-Type: a/b\r\n";
    phones.say(1, &Send { id: "none1", lines, body: b"", ..Send::default() });
    assert_eq!(whole(&mut phones, 3), [b""]);
    assert!(phones.rig.engine.message.row(2).is_some_and(|row| row.held.is_empty()));
    // Of its chunks, errors are awaited for so long (RFC 4975 §7.1.4) and no longer.
    phones.rig.run(31_000);
    let tables = phones.rig.engine.msrp_tables();
    assert!(tables.contains(&("transactions", 0)), "{tables:?}");
    phones.check_sum();
}

// RFC 5547 §8: the rest of a file is all that comes.
#[test]
fn the_rest_of_a_file_ends_at_the_tap_when_nobody_waits_for_its_beginning_any_more() {
    for by_time in [true, false] {
        let mut phones = call(limits());
        let lines = "Byte-Range: 36-50/50\r\nContent-Type: a/b\r\n";
        phones.say(1, &Send { lines, body: &[b'b'; 15], ..Send::default() });
        let read = phones.read(2).remove(0);
        assert_eq!(read.flag, Flag::Last);
        phones.reply(2, &read, Status::OK);
        if by_time {
            phones.rig.run(541_000);
        } else {
            phones.rig.input(Input::Closed { conn: conn(1), why: CloseReason::Closed });
        }
        let read = phones.read(3);
        let last = read.last().unwrap();
        assert_eq!((last.flag, read[0].head.byte_range().map(|range| range.start)), (Flag::Last, Some(36)));
        assert!(phones.rig.engine.message.row(2).is_some_and(|row| row.held.is_empty()));
    }
}

#[test]
fn of_a_room_the_tap_gets_what_the_room_delivers_once() {
    let mut phones = room(&[1, 2, 4]);
    phones.chat(1, "all11", ALL, "to all");
    phones.chat(2, "one11", &user(1), "to one");
    // RFC 7701 §6.2: what nobody may say is not delivered.
    let forged = cpim(4, ALL, "text/plain", "forged");
    phones.say(1, &Send { id: "forged", lines: CPIM_LINES, body: &forged, ..Send::default() });
    let expected = [cpim(1, ALL, "text/plain", "to all"), cpim(2, &user(1), "text/plain", "to one")];
    assert_eq!(whole(&mut phones, 3), expected);
    assert_eq!((whole(&mut phones, 4).len(), whole(&mut phones, 2).len()), (1, 1));
    // The name that the room shows, and nobody there but the tap.
    let mut phones = room(&[1]);
    let other = adjust(member(1), |m| m.addresses = vec!["sip:shown@example.com".into(), user(1)]);
    phones.rig.put(vec![put_leg(other)]);
    phones.chat(1, "all12", ALL, "alone");
    let delivered = String::from_utf8(whole(&mut phones, 3).remove(0)).unwrap();
    assert!(delivered.contains("From: <sip:shown@example.com>"), "{delivered}");
    phones.check_sum();
}

#[test]
fn a_tap_that_reads_nothing_holds_nobody_back_and_is_bounded_counted_and_told() {
    let small = Limits { tap_bytes_max: 30_000, tap_messages_max: 16, ..limits() };
    let mut phones = call(small);
    phones.rig.stalled.insert(3);
    let body = vec![b'x'; 3000];
    let lines = "Success-Report: yes\r\nContent-Type: a/b\r\n";
    let mut all = Vec::new();
    for n in 0..60 {
        let id = &format!("message{n}");
        let done = phones.say(1, &Send { tid: id, id, lines, body: &body, ..Send::default() });
        assert!(!is_paused(&done));
        all.extend(told(&done));
        assert_eq!(phones.answer(1), 200);
        let read = phones.read(2).remove(0);
        assert_eq!((read.body.len(), read.flag), (3000, Flag::Last));
        let range = ByteRange::new(1, 3000, 3000);
        let bytes = msrp::report(&msrp::Tid::parse(b"rep1").unwrap(), &read.head, range, Status::OK);
        phones.say_raw(2, &bytes);
        assert_eq!(phones.read(1)[0].head.status(), Some(Status::OK));
    }
    let dropped = phones.rig.engine.dropped(Drop::MsrpTap);
    assert!((40..59).contains(&dropped), "{dropped}");
    assert_eq!(all, [true], "once");
    assert!(phones.rig.engine.totals().queued_bytes < 10_000);
    // It reads on: what waited comes in its order, and then what is new.
    phones.rig.stalled.clear();
    let bytes = phones.rig.wire.get(&3).map_or(0, Vec::len);
    let mut done = phones.rig.input(Input::Sent { conn: conn(3), bytes });
    phones.rig.deliver(&mut done);
    assert_eq!(told(&done), [false]);
    assert_eq!(whole(&mut phones, 3).len() as u64, 60 - dropped);
    phones.say(1, &Send { id: "after1", tid: "after1", ..Send::default() });
    assert_eq!(whole(&mut phones, 3), [b"hello"]);
    phones.check_sum();
}

#[test]
fn one_message_that_outruns_its_tap_is_given_up_there_and_nowhere_else() {
    let mut phones = call(Limits { tap_bytes_max: 30_000, ..limits() });
    phones.rig.stalled.insert(3);
    let body = vec![b'x'; 200_000];
    let lines = "Message-ID: big1\r\nByte-Range: 1-*/200000\r\nContent-Type: a/b\r\n";
    let bytes = phones.request(1, "SEND", "big1", lines, Some(&body), '$');
    for piece in bytes.chunks(3000) {
        assert!(!is_paused(&phones.say_raw(1, piece)));
    }
    assert_eq!(whole(&mut phones, 2), [body]);
    phones.rig.stalled.clear();
    let sent = phones.rig.wire.get(&3).map_or(0, Vec::len);
    let mut done = phones.rig.input(Input::Sent { conn: conn(3), bytes: sent });
    phones.rig.deliver(&mut done);
    let read = phones.read(3);
    assert_eq!((read.last().unwrap().flag, phones.rig.engine.dropped(Drop::MsrpTap)), (Flag::Abort, 1));
    // A long one that it reads as fast as it comes is no trouble, whatever its length.
    let lines = lines.replace("big1", "big2");
    let bytes = phones.request(1, "SEND", "big2", &lines, Some(&[b'y'; 200_000]), '$');
    bytes.chunks(3000).for_each(|piece| drop(phones.say_raw(1, piece)));
    assert_eq!(whole(&mut phones, 3), [[b'y'; 200_000]]);
    phones.check_sum();
}

#[test]
fn a_tap_that_refuses_or_is_lost_or_stuck_is_nobodys_trouble_but_its_own() {
    // RFC 4975 §10.5: 413 is for that message alone.
    let mut phones = call(limits());
    let lines = "Byte-Range: 1-*/10\r\nContent-Type: a/b\r\n";
    phones.say(1, &Send { lines, body: b"01234", flag: '+', ..Send::default() });
    phones.say(1, &Send { id: "other1", tid: "tid7", ..Send::default() });
    let read = phones.read(3).remove(0);
    assert_eq!((read.flag, read.body.as_slice()), (Flag::More, &b"01234"[..]));
    let done = phones.reply(3, &read, Status::STOP);
    assert_eq!((told(&done), phones.rig.engine.dropped(Drop::MsrpTap)), (vec![true, false], 1));
    let lines = "Byte-Range: 6-*/10\r\nContent-Type: a/b\r\n";
    phones.say(1, &Send { tid: "tid2", lines, body: b"56789", ..Send::default() });
    assert_eq!(whole(&mut phones, 2), [b"hello".to_vec(), b"0123456789".to_vec()]);
    let read = phones.read(3);
    assert_eq!((read.len(), read[0].flag), (1, Flag::Abort), "{read:?}");
    assert!(phones.read(1).iter().all(|read| read.status() == Some(Status::OK)));
    // It is lost with a message begun, and comes again: what was said meanwhile waited.
    phones.say(
        1,
        &Send {
            id: "begun1",
            lines: "Byte-Range: 1-*/9\r\nContent-Type: a/b\r\n",
            flag: '+',
            ..Send::default()
        },
    );
    phones.rig.input(Input::Closed { conn: conn(3), why: CloseReason::Reset });
    assert_eq!(phones.rig.engine.dropped(Drop::MsrpTap), 2);
    phones.read(3);
    phones.say(1, &Send { id: "while1", lines: ASKED, ..Send::default() });
    let again = adjust(recorder(false), |m| m.remote_path = vec![their(9)]);
    phones.rig.put(vec![put_leg(again)]);
    phones.open(30);
    let ours = phones.ours[&3].clone();
    let bind = format!(
        "MSRP bind SEND\r\nTo-Path: {ours}\r\nFrom-Path: {}\r\nMessage-ID: bind\r\nByte-Range: 1-0/0\r\n-------bind$\r\n",
        their(9)
    );
    phones.say_raw(30, bind.as_bytes());
    assert_eq!(whole(&mut phones, 30), [b"hello"]);
    assert!(phones.read(1).iter().all(|read| read.status() == Some(Status::OK)));
    // It reads nothing for too long, and is cut loose.
    phones.rig.stalled.insert(30);
    let mut done = Vec::new();
    for n in 0..20 {
        let id = &format!("stuck{n}");
        done.extend(phones.say(
            1,
            &Send {
                id,
                tid: id,
                lines: "Failure-Report: no\r\nContent-Type: a/b\r\n",
                body: &[b'z'; 1500],
                ..Send::default()
            },
        ));
    }
    done.extend(phones.rig.run(130_000));
    let lost = |what: &news::What| matches!(what, news::What::LegLost(lost) if lost.leg == Some(key(3)));
    assert!(news(&done).into_iter().any(lost));
    assert!(!is_paused(&done));
    assert!(!whole(&mut phones, 2).is_empty());
    let is_of_stuck = |read: &Read| read.is(Method::Report) && read.head.message_id().starts_with("stuck");
    assert!(!phones.read(1).iter().any(is_of_stuck));
    phones.check_sum();
}

#[test]
fn of_an_unseen_tap_nothing_tells() {
    let run = |tapped: bool, trouble: usize| {
        let legs = vec![msrp_leg(1), msrp_leg(2), recorder(true)];
        let small = Limits { tap_bytes_max: 5000, held_ms: 5000, slow_ms: 20_000, ..limits() };
        let mut phones = Phones::put(small, legs, paths());
        if !tapped {
            phones.rig.put(vec![Verb::RemoveLeg(key(3))]);
        }
        let mut done = Vec::new();
        for n in [1, 2] {
            done.extend(phones.connect(n));
        }
        if tapped && trouble != 4 {
            phones.connect(3);
        }
        if trouble == 1 {
            phones.rig.stalled.insert(3);
        }
        let mut heard = Vec::new();
        for n in 0..40 {
            let id = &format!("message{n}");
            let (from, to) = if n % 2 == 0 { (1, 2) } else { (2, 1) };
            let lines = "Success-Report: yes\r\nContent-Type: a/b\r\n";
            done.extend(
                phones.say(from, &Send { id, tid: id, lines, body: &vec![b'x'; 100 * n], ..Send::default() }),
            );
            for leg in [from, to] {
                for read in phones.read(leg) {
                    let head = &read.head;
                    heard.push((
                        leg,
                        head.method(),
                        read.status(),
                        head.message_id().to_owned(),
                        read.body.len(),
                        read.flag,
                    ));
                    if read.is(Method::Send) {
                        done.extend(phones.reply(leg, &read, Status::OK));
                        done.extend(phones.report(leg, &read, 200));
                    }
                }
            }
            if tapped && n == 10 {
                match trouble {
                    2 => done.extend(phones.say_raw(3, b"NOISE\r\n\r\n")),
                    3 => done
                        .extend(phones.rig.input(Input::Closed { conn: conn(3), why: CloseReason::Reset })),
                    5 => {
                        let refused = phones.read(3).remove(0);
                        done.extend(phones.reply(3, &refused, Status::STOP));
                        done.extend(phones.say(3, &Send::default()));
                    }
                    _ => {}
                }
            }
            done.extend(phones.rig.run(1000));
        }
        assert!(!is_paused(&done));
        let said = phones.rig.wire.get(&3).is_some_and(|wire| wire.len() > 1000);
        assert_eq!(said, tapped && trouble != 4, "{trouble}");
        let news: Vec<_> = news(&done).into_iter().map(|what| format!("{what:?}")).collect();
        let (_, counters) = phones.rig.engine.counters(phones.rig.now, None).unwrap();
        assert_eq!(counters.legs.len(), 2);
        (heard, news, format!("{:?}", counters.legs), phones.rig.engine.totals())
    };
    let without = run(false, 0);
    for trouble in 0..6 {
        assert_eq!(run(true, trouble), without, "{trouble}");
    }
}

#[test]
fn an_unseen_leg_is_a_member_of_no_room() {
    let mut phones = room(&[1, 2]);
    phones.join(Leg { unseen: true, ..member(5) });
    phones.chat(1, "all11", ALL, "to all");
    assert!(phones.read(5).is_empty());
    phones.say(5, &Send::default());
    assert_eq!(phones.answer(5), 403);
}

// CPM-FACTS §2.11: of several devices' dispositions the first goes on; each was said.
#[test]
fn a_disposition_that_another_device_sent_already_is_tapped_all_the_same() {
    let text = "<imdn xmlns=\"urn:ietf:params:xml:ns:imdn\"><message-id>m1</message-id>\
                <datetime>2026-11-22T07:15:00Z</datetime>\
                <delivery-notification><status><delivered/></status></delivery-notification></imdn>";
    let once = Some(Parameters::Distribute(contract::Distribute { imdn_once: true }));
    let back = contract::Path { parameters: once, ..path(1, Mode::Distribute, &[1, 2], &[4]) };
    let legs = vec![msrp_leg(1), msrp_leg(2), msrp_leg(4), recorder(false)];
    let mut phones = Phones::up_with(limits(), legs, vec![back, path(3, Mode::Tap, &[1, 2], &[3])]);
    let body = cpim(2, ALL, "message/imdn+xml", text);
    for from in [1, 2] {
        phones.say(from, &Send { lines: CPIM_LINES, body: &body, ..Send::default() });
    }
    assert_eq!((whole(&mut phones, 4).len(), whole(&mut phones, 3)), (1, vec![body.clone(), body]));
    phones.check_sum();
}

// DESIGN §3: a store leg is an ordinary MSRP session; what was kept is played out by one.
#[test]
fn what_a_store_leg_plays_out_reaches_the_devices_and_their_reports_reach_the_store() {
    for devices in [vec![2], vec![2, 4]] {
        let mode = if devices.len() == 1 { Mode::Relay } else { Mode::Distribute };
        let mut legs: Vec<Leg> =
            devices.iter().map(|n| Leg { participant: "him".into(), ..msrp_leg(*n) }).collect();
        legs.push(Leg { media: "store".into(), ..msrp_leg(1) });
        let ways = vec![path(1, mode, &[1], &devices), path(2, mode, &devices, &[1])];
        let mut phones = Phones::put(limits(), legs, ways);
        phones.connect(1);
        // Nobody is there yet: the store is paused, not refused.
        let body = cpim(9, &user(2), "text/plain", "kept for you");
        let lines = "Success-Report: yes\r\nContent-Type: message/cpim\r\n";
        let done = phones.say(1, &Send { lines, body: &body, ..Send::default() });
        assert!(is_paused(&done) && phones.read(1).is_empty());
        for n in &devices {
            phones.connect_late(*n);
        }
        // Another one, in the chunks in which it was kept.
        let (first, last) = body.split_at(40);
        let range = |start: usize| format!("Byte-Range: {start}-*/{}\r\n{lines}", body.len());
        phones.say(1, &Send { id: "kept2", tid: "tid2", lines: &range(1), body: first, flag: '+' });
        phones.say(1, &Send { id: "kept2", tid: "tid3", lines: &range(41), body: last, ..Send::default() });
        assert_eq!(phones.read(1).iter().filter(|read| read.status() == Some(Status::OK)).count(), 3);
        for n in &devices {
            let read: Vec<Read> = phones.read(*n).into_iter().filter(|read| read.is(Method::Send)).collect();
            assert_eq!(
                read.iter().flat_map(|r| r.body.clone()).collect::<Vec<_>>(),
                [body.clone(), body.clone()].concat()
            );
            assert_eq!(read[0].head.content_type(), Some("message/cpim"));
            for whole in read.iter().filter(|read| read.flag == Flag::Last) {
                phones.reply(*n, whole, Status::OK);
                let range = ByteRange::new(1, body.len() as u64, body.len() as u64);
                let tid = msrp::Tid::parse(b"rep1").unwrap();
                phones.say_raw(*n, &msrp::report(&tid, &whole.head, range, Status::OK));
            }
        }
        // RFC 4975 §7.1.2: one success REPORT each, by which the store knows that it may forget them.
        let reports = phones.read(1);
        let ids: Vec<_> = reports.iter().map(|r| (r.head.message_id(), r.head.status())).collect();
        assert_eq!(ids, [("message1", Some(Status::OK)), ("kept2", Some(Status::OK))]);
        // The devices' dispositions are the store's as well.
        let imdn = cpim(2, &user(9), "message/imdn+xml", "<imdn/>");
        phones.say(2, &Send { id: "imdn1", lines: CPIM_LINES, body: &imdn, ..Send::default() });
        assert_eq!(whole(&mut phones, 1), [imdn]);
        phones.check_sum();
    }
}
