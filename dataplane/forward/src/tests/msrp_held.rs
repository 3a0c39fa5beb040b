//! What a room holds for members who have joined and have no connection: before the first, in a gap, over the bound,
//! over the time. Nothing that was accepted is lost in silence.

use contract::{LegSet, Mode, Switch, change::Verb, news, path::Parameters};
use msrp::{Flag, Method, Status};

use super::phone::*;
use super::rig::*;
use crate::{CloseReason, Drop, Input, Limits};

const ALL: &str = "sip:anonymous@anonymous.invalid";

fn member(n: u64) -> contract::Leg {
    contract::Leg { participant: format!("p{n}"), ..adjust(msrp_leg(n), |m| m.addresses = vec![user(n)]) }
}

fn limits() -> Limits {
    Limits { sockets_max: 1, held_ms: 10_000, ..Limits::default() }
}

fn room() -> contract::Path {
    let all = Some(LegSet { legs: vec![], media: "msrp".into() });
    let parameters = Some(Parameters::Switch(Switch::default()));
    contract::Path { sources: all.clone(), targets: all, parameters, ..path(1, Mode::Switch, &[], &[]) }
}

/// Members 1 and 2 connected, 3 not yet.
fn two_of_three(limits: Limits) -> Phones {
    let mut phones = Phones::put(limits, [1, 2, 3].map(member).to_vec(), vec![room()]);
    phones.connect(1);
    phones.connect(2);
    phones
}

/// The texts of the messages that came whole, in the order of their ends.
fn texts(phones: &mut Phones, n: u64) -> Vec<String> {
    let mut open: std::collections::BTreeMap<String, Vec<u8>> = Default::default();
    let mut whole = Vec::new();
    for read in phones.read(n).into_iter().filter(|r| r.is(Method::Send)) {
        let body = open.entry(read.head.message_id().to_owned()).or_default();
        assert_eq!(read.head.byte_range().unwrap().start, body.len() as u64 + 1);
        body.extend_from_slice(&read.body);
        if read.flag == Flag::Last {
            let text = String::from_utf8(open.remove(read.head.message_id()).unwrap()).unwrap();
            whole.push(text.rsplit("\r\n").next().unwrap().to_owned());
        }
    }
    whole
}

/// Says something with Success-Report.
fn ask(phones: &mut Phones, id: &str, text: &str) -> Vec<Done> {
    let body = cpim(1, ALL, "text/plain", text);
    let lines = "Success-Report: yes\r\nContent-Type: message/cpim\r\n";
    let id = &format!("msg-{id}");
    phones.say(1, &Send { id, tid: id, lines, body: &body, ..Send::default() })
}

/// Message-IDs that were reported to have arrived.
fn reported(phones: &mut Phones, n: u64) -> Vec<String> {
    let reports = phones.read(n).into_iter().filter(|r| r.is(Method::Report));
    let id = |r: Read| {
        assert_eq!(r.head.status(), Some(Status::OK));
        r.head.message_id().trim_start_matches("msg-").to_owned()
    };
    reports.map(id).collect()
}

/// What control was told of leg 3.
fn told(done: &[Done]) -> Vec<bool> {
    let of_three = |what: &&news::What| matches!(what, news::What::Pressure(p) if p.leg == Some(key(3)));
    let on = |what: &news::What| matches!(what, news::What::Pressure(p) if p.on);
    news(done).into_iter().filter(of_three).map(on).collect()
}

#[test]
fn what_is_said_before_a_members_first_connection_reaches_it_in_order() {
    let mut phones = two_of_three(limits());
    for text in ["one", "two", "three"] {
        assert!(told(&ask(&mut phones, text, text)).is_empty());
    }
    assert_eq!(texts(&mut phones, 2), ["one", "two", "three"], "nobody else waits");
    assert!(reported(&mut phones, 1).is_empty(), "one of them has nothing yet");
    phones.open(3);
    phones.say_raw(3, &phones.empty(3));
    ask(&mut phones, "four", "four");
    let read = phones.read(3);
    assert_eq!(read[0].status(), Some(Status::OK), "first of all it is bound");
    let ids: Vec<_> = read[1..].iter().map(|r| r.head.message_id()).collect();
    assert_eq!(ids.len(), 4);
    let bodies: Vec<_> = read[1..].iter().map(|r| r.body.clone()).collect();
    let expected = ["one", "two", "three", "four"].map(|text| cpim(1, ALL, "text/plain", text));
    assert_eq!(bodies, expected);
    assert_eq!(reported(&mut phones, 1), ["one", "two", "three", "four"]);
    assert_eq!(phones.rig.engine.dropped(Drop::MsrpHeldFull), 0);
    phones.check_sum();
}

#[test]
fn nobody_who_has_not_joined_is_kept_anything() {
    let invited = adjust(member(3), |m| m.remote_path.clear());
    let mut phones = Phones::put(limits(), vec![member(1), member(2), invited], vec![room()]);
    phones.connect(1);
    phones.connect(2);
    ask(&mut phones, "early", "early");
    assert_eq!(reported(&mut phones, 1), ["early"]);
    phones.connect(3);
    phones.chat(1, "later", ALL, "later");
    assert_eq!(texts(&mut phones, 3), ["later"]);
}

// CPM-FACTS §2.6: who is away is called when something is said; until he comes it waits for him.
#[test]
fn what_is_said_to_a_member_who_is_away_waits_and_is_told_once() {
    let away = |n| adjust(member(n), |m| (m.away, m.remote_path) = (true, Vec::new()));
    let mut phones = Phones::put(limits(), vec![member(1), member(2), away(3)], vec![room()]);
    phones.connect(1);
    phones.connect(2);
    assert_eq!(told(&ask(&mut phones, "one", "one")), [true]);
    assert!(told(&ask(&mut phones, "two", "two")).is_empty(), "he is being called");
    // He answers: his peer is known, he connects, and has all of it.
    phones.rig.put(vec![put_leg(member(3))]);
    phones.connect_late(3);
    assert_eq!(texts(&mut phones, 3), ["one", "two"]);
    assert_eq!(reported(&mut phones, 1), ["one", "two"]);
    // He is lost for good: what comes meanwhile is his who stands for him, and control hears of it.
    phones.rig.input(Input::Closed { conn: conn(3), why: CloseReason::Reset });
    assert!(told(&ask(&mut phones, "three", "three")).is_empty());
    let heir = contract::Leg { participant: "p3".into(), ..away(4) };
    let (_, done) = phones.rig.batch(vec![Verb::RemoveLeg(key(3)), put_leg(heir)]);
    let waits = |what: &&news::What| matches!(what, news::What::Pressure(p) if p.leg == Some(key(4)) && p.on);
    assert_eq!(news(&done).into_iter().filter(waits).count(), 1);
}

#[test]
fn what_is_said_in_a_gap_reaches_the_leg_that_repairs_it() {
    for same_leg in [true, false] {
        let mut phones = two_of_three(limits());
        phones.connect(3);
        phones.rig.input(Input::Closed { conn: conn(3), why: CloseReason::Reset });
        ask(&mut phones, "one", "one");
        // CPM-FACTS §3.3: a re-INVITE with a new path; or a new leg of the same participant in the place of the old.
        let heir = if same_leg { 3 } else { 4 };
        let leg = adjust(contract::Leg { participant: "p3".into(), ..member(heir) }, |m| {
            m.remote_path = if same_leg { vec![their(9)] } else { vec![] };
        });
        let mut verbs = vec![put_leg(leg.clone())];
        if !same_leg {
            verbs.insert(0, Verb::RemoveLeg(key(3)));
        }
        let (body, done) = phones.rig.batch(verbs);
        let contract::from_dataplane::Body::Applied(applied) = body else { panic!() };
        let Some(contract::placement::At::Msrp(local)) = applied.placements[0].at.clone() else { panic!() };
        assert!(told(&done).is_empty());
        ask(&mut phones, "two", "two");
        assert!(reported(&mut phones, 1).is_empty());
        let bytes = phones.ours.insert(heir, local.path.clone());
        assert_eq!(bytes.is_some(), same_leg);
        phones.rig.run(3000);
        phones.open(40);
        let from = if same_leg { their(9) } else { their(4) };
        let bind = format!(
            "MSRP bind SEND\r\nTo-Path: {}\r\nFrom-Path: {from}\r\nMessage-ID: bind\r\n\
             Byte-Range: 1-0/0\r\n-------bind$\r\n",
            local.path
        );
        phones.say_raw(40, bind.as_bytes());
        assert_eq!(texts(&mut phones, 40), ["one", "two"], "{same_leg}");
        assert_eq!(reported(&mut phones, 1), ["one", "two"]);
        phones.check_sum();
    }
}

#[test]
fn a_member_who_left_keeps_nothing_and_holds_up_no_report() {
    let mut phones = two_of_three(limits());
    ask(&mut phones, "one", "one");
    phones.rig.put(vec![Verb::RemoveLeg(key(3))]);
    assert_eq!(reported(&mut phones, 1), ["one"]);
    phones.join(member(3));
    assert!(texts(&mut phones, 3).is_empty(), "who comes again is a new participant");
}

#[test]
fn what_is_over_the_bound_is_counted_and_told() {
    let text = "x".repeat(1000);
    for (limits, fit) in
        [(Limits { held_messages_max: 3, ..limits() }, 3), (Limits { held_bytes_max: 5000, ..limits() }, 4)]
    {
        let mut phones = two_of_three(limits);
        let mut all = Vec::new();
        for n in 0..8 {
            all.extend(told(&ask(&mut phones, &format!("message{n}"), &text)));
        }
        assert_eq!(all, [true], "once");
        assert_eq!(phones.rig.engine.dropped(Drop::MsrpHeldFull), 8 - fit);
        let reports = reported(&mut phones, 1);
        assert_eq!(reports.len() as u64, 8 - fit, "control knows of those who miss something");
        phones.open(3);
        let done = phones.say_raw(3, &phones.empty(3));
        assert_eq!(told(&done), [false], "it takes part again");
        assert_eq!(texts(&mut phones, 3).len() as u64, fit);
        phones.chat(1, "after", ALL, "after");
        assert_eq!(texts(&mut phones, 3), ["after"]);
        phones.check_sum();
    }
    // One alone that is larger than the bound, whether its length is announced or not.
    for announced in [true, false] {
        let mut phones = two_of_three(Limits { held_bytes_max: 5000, ..limits() });
        let body = cpim(1, ALL, "text/plain", &"x".repeat(9000));
        let total = if announced { body.len().to_string() } else { "*".into() };
        let lines = format!("Message-ID: big1\r\nByte-Range: 1-*/{total}\r\n{CPIM_LINES}");
        let bytes = phones.request(1, "SEND", "big1", &lines, Some(&body), '$');
        for piece in bytes.chunks(1500) {
            phones.say_raw(1, piece);
        }
        assert_eq!(phones.rig.engine.dropped(Drop::MsrpHeldFull), 1, "{announced}");
        phones.connect(3);
        assert!(texts(&mut phones, 3).is_empty());
        assert_eq!(texts(&mut phones, 2).len(), 1);
        phones.check_sum();
    }
}

#[test]
fn what_is_held_for_too_long_is_given_up_counted_and_told() {
    let mut phones = two_of_three(limits());
    ask(&mut phones, "one", "one");
    phones.rig.run(6000);
    ask(&mut phones, "two", "two");
    let done = phones.rig.run(4100);
    assert_eq!((told(&done), phones.rig.engine.dropped(Drop::MsrpHeldLate)), (vec![true], 1));
    assert_eq!(reported(&mut phones, 1), ["one"]);
    phones.connect_late(3);
    assert_eq!(texts(&mut phones, 3), ["two"]);
    assert_eq!(reported(&mut phones, 1), ["two"]);
    phones.check_sum();
}

#[test]
fn a_message_that_is_still_being_said_goes_on_when_its_member_is_there() {
    for ends in ['$', '#'] {
        let mut phones = two_of_three(limits());
        let body = cpim(1, ALL, "text/plain", "0123456789");
        let cut = body.len() - 4;
        let range = |start: usize| format!("Byte-Range: {start}-*/{}\r\n{CPIM_LINES}", body.len());
        phones
            .say(1, &Send { id: "long", lines: &range(1), body: &body[..cut], flag: '+', ..Send::default() });
        phones.chat(2, "short", ALL, "short");
        phones.connect_late(3);
        phones.chat(2, "live", ALL, "live");
        phones.say(
            1,
            &Send { id: "long", lines: &range(cut + 1), body: &body[cut..], flag: ends, ..Send::default() },
        );
        let read: Vec<_> = phones.read(3).into_iter().filter(|r| r.is(Method::Send)).collect();
        let ends_of = |flag| read.iter().filter(|r| r.flag == flag).count();
        if ends == '#' {
            assert_eq!((ends_of(Flag::Last), ends_of(Flag::Abort)), (2, 1));
            continue;
        }
        assert_eq!((ends_of(Flag::Last), ends_of(Flag::Abort)), (3, 0), "{read:?}");
        let of_long: Vec<_> =
            read.iter().filter(|r| r.head.message_id() == read[0].head.message_id()).collect();
        assert_eq!(of_long.iter().flat_map(|r| r.body.clone()).collect::<Vec<_>>(), body);
        assert_eq!(phones.rig.engine.message.row(2).map(|row| row.held.len()), Some(0));
        phones.check_sum();
    }
}

#[test]
fn what_was_held_goes_out_no_faster_than_it_is_read_and_what_is_said_next_waits_behind_it() {
    let small = Limits { queue_bytes_max: 10_000, inflight_bytes_max: 2000, ..limits() };
    let mut phones = two_of_three(small);
    let say = |phones: &mut Phones, n: usize| {
        phones.chat(1, &format!("message{n}"), ALL, &format!("{n} {}", "x".repeat(1000)));
    };
    (0..20).for_each(|n| say(&mut phones, n));
    phones.rig.stalled.insert(3);
    phones.connect_late(3);
    say(&mut phones, 20);
    assert!(phones.rig.engine.totals().queued_bytes < 8000, "bounded");
    assert_eq!(phones.rig.engine.dropped(Drop::MsrpCongested), 0, "it has only just come");
    phones.rig.stalled.clear();
    let bytes = phones.rig.wire[&3].len() + 100;
    let mut done = phones.rig.input(Input::Sent { conn: conn(3), bytes });
    phones.rig.deliver(&mut done);
    phones.rig.run(100);
    let numbers: Vec<_> = texts(&mut phones, 3)
        .iter()
        .map(|t| t.split(' ').next().unwrap().parse::<usize>().unwrap())
        .collect();
    assert_eq!(numbers, (0..=20).collect::<Vec<_>>());
    phones.check_sum();
}

// RFC 4975 §7.3.1: the chunk with `$` is the one that holds the last octet; a receiver takes its end for the message's.
#[test]
fn what_was_said_out_of_order_and_held_ends_with_its_last_octet() {
    let mut phones = two_of_three(limits());
    let body = cpim(1, ALL, "text/plain", "0123456789");
    let (first, second) = (body.len() - 6, body.len() - 3);
    let mut say = |from: usize, to: usize, flag: char| {
        let lines = format!("Byte-Range: {}-*/*\r\n{CPIM_LINES}", from + 1);
        phones.say(1, &Send { id: "long", lines: &lines, body: &body[from..to], flag, ..Send::default() });
    };
    say(0, first, '+');
    say(second, body.len(), '$');
    say(first, second, '+');
    phones.connect_late(3);
    let read: Vec<_> = phones.read(3).into_iter().filter(|r| r.is(Method::Send)).collect();
    let mut whole = vec![0; body.len()];
    for one in &read {
        let start = one.head.byte_range().unwrap().start as usize - 1;
        whole[start..start + one.body.len()].copy_from_slice(&one.body);
    }
    assert_eq!(whole, body);
    let ends: Vec<_> = read.iter().filter(|one| one.flag == Flag::Last).collect();
    let end = |one: &&Read| one.head.byte_range().unwrap().start as usize - 1 + one.body.len();
    assert_eq!(ends.iter().map(end).collect::<Vec<_>>(), [body.len()], "{read:?}");
    phones.check_sum();
}

// A member misses what is said for two reasons: his connection is congested, or what is held for him is full. That one is
// over does not end the other.
#[test]
fn pressure_is_over_when_both_of_its_causes_are() {
    let small = Limits {
        queue_bytes_max: 10_000,
        inflight_bytes_max: 2000,
        held_bytes_max: 20_000,
        held_ms: 120_000,
        slow_ms: 60_000,
        ..limits()
    };
    let mut phones = two_of_three(small);
    let (mut last, mut changes) = (None, 0);
    let mut note = |done: &[Done]| {
        for on in told(done) {
            changes += usize::from(last != Some(on));
            last = Some(on);
        }
        last
    };
    let say = |phones: &mut Phones, n: usize| {
        let before = phones.rig.engine.dropped(Drop::MsrpHeldFull);
        let done = ask(phones, &format!("message{n}"), &"x".repeat(1000));
        (done, phones.rig.engine.dropped(Drop::MsrpHeldFull) > before)
    };
    for n in 0..30 {
        let (done, dropped) = say(&mut phones, n);
        assert!(note(&done) == Some(true) || !dropped);
    }
    // He comes, and reads nothing: congested, too.
    phones.rig.stalled.insert(3);
    phones.connect_late(3);
    let done = phones.rig.run(8000);
    assert_eq!(told(&done), [true]);
    // He reads a little.
    for _ in 0..2 {
        let bytes = phones.rig.wire.remove(&3).map_or(0, |wire| wire.len());
        let mut done = phones.rig.input(Input::Sent { conn: conn(3), bytes });
        phones.rig.deliver(&mut done);
        note(&done);
    }
    let mut lost = 0;
    for n in 30..60 {
        let (done, dropped) = say(&mut phones, n);
        let last = note(&done);
        assert!(
            last == Some(true) || !dropped,
            "control believes that he takes part, and something was dropped"
        );
        lost += u32::from(dropped);
    }
    assert!(lost > 0);
    phones.rig.stalled.clear();
    let bytes = phones.rig.wire.remove(&3).map_or(0, |wire| wire.len());
    let mut done = phones.rig.input(Input::Sent { conn: conn(3), bytes });
    phones.rig.deliver(&mut done);
    assert_eq!((note(&done), changes), (Some(false), 2));
}
