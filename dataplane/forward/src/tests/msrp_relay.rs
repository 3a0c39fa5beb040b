//! MSRP `relay` and `distribute`: back to back, chunk by chunk (CPM-FACTS §3.6).

use contract::{Direction, Distribute, Mode, news, path::Parameters};
use msrp::{Flag, Method, Status};

use super::phone::*;
use super::rig::*;
use crate::{CloseReason, Drop, Input};

fn pair() -> Phones {
    Phones::up(
        vec![msrp_leg(1), msrp_leg(2)],
        vec![path(1, Mode::Relay, &[1], &[2]), path(2, Mode::Relay, &[2], &[1])],
    )
}

/// One far leg and two devices, as a Participating Function has them.
fn fan(once: bool) -> Phones {
    let parameters = Some(Parameters::Distribute(Distribute { imdn_once: once }));
    Phones::up(
        vec![msrp_leg(1), msrp_leg(2), msrp_leg(3)],
        vec![
            path(1, Mode::Distribute, &[1], &[2, 3]),
            contract::Path { parameters, ..path(2, Mode::Distribute, &[2, 3], &[1]) },
        ],
    )
}

#[test]
fn a_message_passes_with_paths_and_transactions_of_our_own() {
    let mut phones = pair();
    let lines = "Byte-Range: 1-5/5\r\nX-Kept: yes\r\nContent-Type: text/plain\r\n";
    phones.say(1, &Send { lines, ..Send::default() });
    assert_eq!(phones.answer(1), 200, "hop by hop");
    let read = phones.read(2);
    assert_eq!((read.len(), &read[0].body[..], read[0].flag), (1, &b"hello"[..], Flag::Last));
    let head = &read[0].head;
    assert_eq!(head.to_path().as_str(), their(2));
    assert_eq!(head.from_path().as_str(), phones.ours[&2]);
    assert_eq!((head.message_id(), head.header(b"X-Kept")), ("message1", Some(&b"yes"[..])));
    assert_eq!(head.byte_range().unwrap().to_string(), "1-5/5");
    assert_ne!(head.tid().as_str(), "tid1");
    phones.reply(2, &read[0], Status::OK);
    assert!(phones.read(1).is_empty(), "a 200 speaks to the previous hop alone");
    phones.check_sum();
}

#[test]
fn rfc4975_s7_2_who_is_answered_by_failure_report() {
    for (value, ok, error) in [("yes", true, true), ("partial", false, true), ("no", false, false)] {
        let mut phones = pair();
        let lines = format!("Failure-Report: {value}\r\nContent-Type: text/plain\r\n");
        phones.say(1, &Send { lines: &lines, ..Send::default() });
        assert_eq!(phones.read(1).len(), usize::from(ok), "{value}");
        let read = phones.read(2);
        assert_eq!(read[0].head.failure_report().as_str(), value, "the next hop is asked alike");
        // An error of the far leg becomes a REPORT, if the sender wants to hear of failures.
        let code = if error {
            phones.reply(2, &read[0], Status::STOP);
            let report = phones.read(1);
            assert!(report[0].is(Method::Report));
            assert_eq!(report[0].head.message_id(), "message1");
            assert_eq!(report[0].head.byte_range().unwrap().to_string(), "1-5/5", "computed, never *");
            report[0].head.status()
        } else {
            None
        };
        assert_eq!(code, error.then_some(Status::STOP));
        phones.check_sum();
    }
}

#[test]
fn chunks_go_out_as_they_come() {
    let mut phones = pair();
    let body = vec![b'x'; 100_000];
    let lines = "Message-ID: big1\r\nByte-Range: 1-*/100000\r\nContent-Type: a/b\r\n";
    let bytes = phones.request(1, "SEND", "tid1", lines, Some(&body), '$');
    let (first, rest) = bytes.split_at(50_000);
    phones.say_raw(1, first);
    let on_the_way = phones.rig.wire[&2].len();
    assert!(on_the_way > 49_000, "cut-through: {on_the_way}");
    phones.say_raw(1, rest);
    let read = phones.read(2);
    assert_eq!((read.len(), read[0].body.len(), read[0].flag), (1, 100_000, Flag::Last));
}

#[test]
fn ranges_and_flags_of_chunks_are_kept() {
    let mut phones = pair();
    for (start, flag) in [(1, '+'), (11, '+'), (6, '+'), (16, '$')] {
        let lines = format!("Byte-Range: {start}-*/20\r\nContent-Type: text/plain\r\n");
        phones.say(1, &Send { lines: &lines, flag, ..Send::default() });
    }
    let read = phones.read(2);
    let seen: Vec<_> = read.iter().map(|r| (r.head.byte_range().unwrap().start, r.flag)).collect();
    assert_eq!(seen, [(1, Flag::More), (11, Flag::More), (6, Flag::More), (16, Flag::Last)]);
    let tids: std::collections::BTreeSet<_> = read.iter().map(|r| *r.head.tid()).collect();
    assert_eq!(tids.len(), 4, "each chunk is a transaction");
}

#[test]
fn two_senders_share_a_target_by_interrupting_chunks() {
    let mut phones = fan(false);
    let begin = |phones: &Phones, n| {
        let bytes = phones.request(
            n,
            "SEND",
            &format!("long{n}"),
            "Message-ID: same\r\nByte-Range: 1-*/3000\r\nContent-Type: a/b\r\n",
            Some(&vec![b'0' + n as u8; 3000]),
            '$',
        );
        (bytes[..1500].to_vec(), bytes[1500..].to_vec())
    };
    let (a, b) = (begin(&phones, 2), begin(&phones, 3));
    phones.say_raw(2, &a.0);
    phones.say_raw(3, &b.0);
    phones.say_raw(2, &a.1);
    phones.say_raw(3, &b.1);
    let mut whole: std::collections::BTreeMap<String, Vec<u8>> = Default::default();
    let (mut last, mut chunks) = (0, 0);
    for read in phones.read(1).into_iter().filter(|r| r.is(Method::Send)) {
        let body = whole.entry(read.head.message_id().to_owned()).or_default();
        assert_eq!(read.head.byte_range().unwrap().start, body.len() as u64 + 1);
        body.extend_from_slice(&read.body);
        last += usize::from(read.flag == Flag::Last);
        chunks += 1;
    }
    assert_eq!((whole.len(), last), (2, 2), "one Message-ID of two senders is told apart");
    assert!(chunks > 2);
    let mut bodies: Vec<_> = whole.into_values().collect();
    bodies.sort();
    assert_eq!(bodies, [vec![b'2'; 3000], vec![b'3'; 3000]]);
}

#[test]
fn a_success_report_comes_only_from_the_far_end() {
    let lines = "Success-Report: yes\r\nByte-Range: 1-5/5\r\nContent-Type: text/plain\r\n";
    let mut phones = pair();
    phones.say(1, &Send { lines, ..Send::default() });
    assert_eq!(phones.answer(1), 200);
    let read = phones.read(2);
    assert!(read[0].head.success_report());
    phones.reply(2, &read[0], Status::OK);
    assert!(phones.read(1).is_empty());
    phones.report(2, &read[0], 200);
    let report = phones.read(1);
    assert_eq!((report[0].head.status(), report[0].head.message_id()), (Some(Status::OK), "message1"));
    assert_eq!(report[0].head.to_path().as_str(), their(1));
    phones.report(2, &read[0], 200);
    assert!(phones.read(1).is_empty(), "once");
    assert_eq!(phones.rig.engine.dropped(Drop::MsrpUnasked), 1);
    phones.check_sum();
}

#[test]
fn a_success_report_that_comes_too_early_is_none() {
    // Known-bad peer: it reports what it cannot have.
    let lines = "Success-Report: yes\r\nByte-Range: 1-*/10\r\nContent-Type: text/plain\r\n";
    let mut phones = pair();
    phones.say(1, &Send { lines, flag: '+', ..Send::default() });
    phones.read(1);
    let read = phones.read(2);
    phones.report(2, &read[0], 200);
    assert!(phones.read(1).is_empty());
}

// RFC 4975 §7.1.2: a receiver reports when it has all octets, which may be before the chunk that says so.
#[test]
fn a_success_report_for_all_octets_counts_before_the_last_chunk_has_ended() {
    let lines = "Success-Report: yes\r\nByte-Range: 1-5/5\r\nContent-Type: text/plain\r\n";
    let mut phones = pair();
    phones.say(1, &Send { lines, flag: '+', ..Send::default() });
    phones.read(1);
    let read = phones.read(2);
    phones.report(2, &read[0], 200);
    let reports = phones.read(1);
    assert_eq!(reports.iter().filter_map(|read| read.head.status()).collect::<Vec<_>>(), [Status::OK]);
    phones.say(1, &Send { tid: "tid2end", lines, ..Send::default() });
    let read = phones.read(2);
    phones.report(2, &read[0], 200);
    assert!(!phones.read(1).iter().any(|read| read.is(Method::Report)), "once");
    phones.check_sum();
}

// The same, of chunks in another order: the one that is still open has brought the last octets that were missing.
#[test]
fn a_success_report_counts_while_the_chunk_with_the_missing_octets_is_open() {
    let mut phones = pair();
    let lines = |range: &str| {
        format!(
            "Message-ID: message1\r\nSuccess-Report: yes\r\nByte-Range: {range}\r\nContent-Type: text/plain\r\n"
        )
    };
    let end = phones.request(1, "SEND", "tid2", &lines("6-10/10"), Some(b"world"), '$');
    phones.say_raw(1, &end);
    let open = phones.request(1, "SEND", "tid1", &lines("1-*/10"), Some(b"hello"), '+');
    let open = &open[..open.len() - "\r\n-------tid1+\r\n".len()];
    phones.say_raw(1, open);
    phones.read(1);
    let wire = phones.rig.wire.remove(&2).unwrap();
    assert!(wire.ends_with(b"hello"), "cut-through");
    let (_, read) = parse(&wire);
    let lines =
        format!("Message-ID: {}\r\nByte-Range: 1-10/10\r\nStatus: 000 200 OK\r\n", read[0].head.message_id());
    let report = phones.request(2, "REPORT", "rep2", &lines, None, '$');
    phones.say_raw(2, &report);
    assert_eq!(phones.read(1).iter().filter_map(|read| read.head.status()).collect::<Vec<_>>(), [Status::OK]);
    phones.check_sum();
}

#[test]
fn of_several_devices_one_success_is_enough_and_all_failures_are_one() {
    let lines = "Success-Report: yes\r\nContent-Type: text/plain\r\n";
    for (codes, expected) in
        [([200, 200], &[200u16][..]), ([481, 200], &[200]), ([413, 413], &[413]), ([200, 413], &[200])]
    {
        let mut phones = fan(false);
        phones.say(1, &Send { lines, ..Send::default() });
        phones.read(1);
        for (n, code) in [2, 3].into_iter().zip(codes) {
            let read = phones.read(n);
            assert_eq!(read[0].body, b"hello");
            phones.report(n, &read[0], code);
        }
        let reports: Vec<u16> = phones.read(1).iter().map(|r| r.head.status().unwrap().0).collect();
        assert_eq!(reports, expected, "{codes:?}");
    }
}

#[test]
fn ones_own_other_devices_get_a_copy_and_prove_nothing() {
    // A Participating Function with two devices: near -> far and the other near.
    let named = |n, participant: &str| contract::Leg { participant: participant.into(), ..msrp_leg(n) };
    let legs = vec![named(1, "far"), named(2, "near"), named(3, "near")];
    let lines = "Success-Report: yes\r\nContent-Type: text/plain\r\n";
    let mut phones = Phones::up(legs.clone(), vec![path(1, Mode::Distribute, &[2, 3], &[1, 2, 3])]);
    phones.say(2, &Send { lines, ..Send::default() });
    assert_eq!(phones.answer(2), 200);
    let (far, sibling) = (phones.read(1), phones.read(3));
    assert_eq!((far.len(), sibling.len()), (1, 1));
    phones.report(3, &sibling[0], 200);
    phones.report(3, &sibling[0], 413);
    assert!(phones.read(2).is_empty(), "it was not delivered by that");
    phones.report(1, &far[0], 200);
    assert_eq!(phones.read(2)[0].head.status(), Some(Status::OK));
    // A sibling alone is no receiver, and one that is stuck holds nobody up for longer than a long message is paced.
    phones.rig.stalled.insert(3);
    let body = vec![b'x'; 600_000];
    for piece in phones
        .request(2, "SEND", "big1", "Message-ID: big1\r\nContent-Type: a/b\r\n", Some(&body), '$')
        .chunks(8192)
    {
        phones.say_raw(2, piece);
    }
    phones.rig.run(600);
    assert_eq!(phones.read(1)[0].body.len(), body.len());
    phones.read(2);
    phones.rig.input(Input::Closed { conn: conn(1), why: CloseReason::Reset });
    phones.read(2);
    phones.say(2, &Send { id: "message3", ..Send::default() });
    assert_eq!(phones.answer(2), 408);
}

#[test]
fn a_far_leg_that_is_silent_or_lost_is_reported() {
    for (why, closes) in [("no response in 30 s (RFC 4975 §7.1.4)", false), ("its connection is lost", true)]
    {
        let mut phones = pair();
        phones.say(1, &Send::default());
        assert_eq!(phones.answer(1), 200);
        if closes {
            phones.rig.input(Input::Closed { conn: conn(2), why: CloseReason::Reset });
        } else {
            phones.rig.run(31_000);
        }
        let read = phones.read(1);
        assert_eq!(read.len(), 1, "{why}");
        assert_eq!(
            (read[0].is(Method::Report), read[0].head.status()),
            (true, Some(Status::TIMEOUT)),
            "{why}"
        );
        phones.rig.run(60_000);
        assert!(phones.read(1).is_empty(), "once");
    }
}

#[test]
fn what_the_far_end_answered_is_not_reported_failed_when_its_connection_closes_later() {
    // RFC 4975 §7.1.1: a 200 to each chunk ends it. Three whole messages are answered, of a fourth one chunk of two.
    let mut phones = pair();
    for n in 1..=3 {
        phones.say(1, &Send { tid: &format!("tid{n}"), id: &format!("whole{n}"), ..Send::default() });
    }
    for (n, flag) in [(1, '+'), (6, '$')] {
        let lines = format!("Byte-Range: {n}-*/10\r\nContent-Type: text/plain\r\n");
        phones.say(1, &Send { tid: &format!("half{n}"), id: "half", lines: &lines, flag, ..Send::default() });
    }
    assert_eq!(phones.read(1).len(), 5, "hop by hop");
    let read = phones.read(2);
    for request in &read[..4] {
        phones.reply(2, request, Status::OK);
    }
    phones.rig.run(10_000);
    phones.rig.input(Input::Closed { conn: conn(2), why: CloseReason::Closed });
    let reports = phones.read(1);
    let failed: Vec<_> = reports.iter().map(|r| (r.head.message_id(), r.head.status())).collect();
    assert_eq!(failed, [("half", Some(Status::TIMEOUT))]);
    phones.check_sum();
}

#[test]
fn what_one_device_answered_is_not_failed_by_the_other_ones_loss() {
    for order in [[2, 3], [3, 2]] {
        let mut phones = fan(false);
        phones.say(1, &Send::default());
        phones.read(1);
        let read = phones.read(2);
        phones.reply(2, &read[0], Status::OK);
        for n in order {
            phones.rig.input(Input::Closed { conn: conn(n), why: CloseReason::Reset });
        }
        assert!(phones.read(1).is_empty(), "{order:?}");
    }
}

#[test]
fn an_answer_that_could_not_be_remembered_proves_nothing() {
    let few = crate::Limits { connection_transactions_max: 2, sockets_max: 1, ..crate::Limits::default() };
    let paths = vec![path(1, Mode::Relay, &[1], &[2])];
    let mut phones = Phones::up_with(few, vec![msrp_leg(1), msrp_leg(2)], paths);
    for n in 1..=3 {
        phones.say(1, &Send { tid: &format!("tid{n}"), id: &format!("whole{n}"), ..Send::default() });
    }
    phones.read(1);
    for request in &phones.read(2)[1..] {
        phones.reply(2, request, Status::OK);
    }
    phones.rig.input(Input::Closed { conn: conn(2), why: CloseReason::Closed });
    let reports = phones.read(1);
    let failed: Vec<_> = reports.iter().map(|r| r.head.message_id()).collect();
    assert_eq!(failed, ["whole1"], "nobody knows whether it arrived");
}

#[test]
fn a_nickname_is_asked_of_the_room_behind_the_far_leg_by_each_device() {
    // A Participating Function with two devices: near -> far, which is a room, and the other near.
    let named = |n, participant: &str| contract::Leg { participant: participant.into(), ..msrp_leg(n) };
    let legs = vec![named(1, "far"), named(2, "near"), named(3, "near")];
    let mut phones = Phones::up(legs, vec![path(1, Mode::Distribute, &[1, 2, 3], &[1, 2, 3])]);
    let ask = |phones: &mut Phones, n: u64, line: &str| {
        let bytes = phones.request(n, "NICKNAME", &format!("nick{n}"), line, None, '$');
        phones.say_raw(n, &bytes);
    };
    ask(&mut phones, 2, "Use-Nickname: bare\r\n");
    assert_eq!(phones.answer(2), 424, "its form is judged on the way");
    for (code, expected) in [(200, 200), (425, 425), (403, 403), (501, 501), (481, 408)] {
        for n in [2, 3] {
            ask(&mut phones, n, "Use-Nickname: \"Bo \\\"B\\\"\"\r\n");
            assert!(phones.read(n).is_empty(), "the room has the word");
        }
        for _ in [2, 3] {
            let asked = phones.read(1);
            let Some(first) = asked.first() else { continue };
            assert!(first.is(Method::Nickname) && first.head.use_nickname().unwrap() == "Bo \"B\"");
            assert_eq!(first.head.to_path().as_str(), their(1));
            for request in &asked {
                phones.reply(1, request, Status(code));
            }
        }
        for n in [2, 3] {
            let read = phones.read(n);
            assert_eq!(read.len(), 1);
            assert_eq!(
                (read[0].status(), read[0].head.tid().as_str()),
                (Some(Status(expected)), &format!("nick{n}")[..])
            );
        }
    }
    phones.check_sum();
}

#[test]
fn a_nickname_that_nobody_answers_is_answered_and_where_nobody_can_be_asked_refused() {
    for (closes, wait) in [(false, 31_000), (true, 0)] {
        let mut phones = pair();
        let bytes = phones.request(1, "NICKNAME", "nick1", "Use-Nickname: \"Bo\"\r\n", None, '$');
        phones.say_raw(1, &bytes);
        assert!(phones.read(1).is_empty());
        if closes {
            phones.rig.input(Input::Closed { conn: conn(2), why: CloseReason::Reset });
        }
        phones.rig.run(wait);
        assert_eq!(phones.answer(1), 408);
        phones.rig.run(5000);
        assert!(phones.read(1).is_empty(), "once");
    }
    // Two others: whom should it be asked of?
    let mut phones = fan(false);
    let bytes = phones.request(1, "NICKNAME", "nick1", "Use-Nickname: \"Bo\"\r\n", None, '$');
    phones.say_raw(1, &bytes);
    assert_eq!(phones.answer(1), 403);
}

#[test]
fn an_unfinished_message_is_aborted_when_its_sender_is_lost_or_gives_up() {
    let lines = "Byte-Range: 1-*/100\r\nContent-Type: text/plain\r\n";
    // In the middle of a chunk.
    let mut phones = pair();
    let bytes =
        phones.request(1, "SEND", "tid1", &format!("Message-ID: m123\r\n{lines}"), Some(&[b'x'; 90]), '$');
    phones.say_raw(1, &bytes[..bytes.len() - 40]);
    let done = phones.rig.input(Input::Closed { conn: conn(1), why: CloseReason::Closed });
    assert!(matches!(news(&done)[0], news::What::LegLost(l) if l.leg == Some(key(1))));
    assert_eq!(phones.read(2)[0].flag, Flag::Abort);
    // Between chunks, and by the sender's own '#'.
    for by_sender in [true, false] {
        let mut phones = pair();
        phones.say(1, &Send { lines, flag: '+', ..Send::default() });
        assert_eq!(phones.read(2)[0].flag, Flag::More);
        if by_sender {
            phones.say(1, &Send { tid: "tid2", lines, flag: '#', ..Send::default() });
        } else {
            phones.rig.input(Input::Closed { conn: conn(1), why: CloseReason::Closed });
        }
        let last = phones.read(2).pop().unwrap();
        assert_eq!((last.flag, last.head.message_id()), (Flag::Abort, "message1"));
    }
    // After 540 s of nothing (CPM-FACTS §3.8 step 10).
    let mut phones = pair();
    phones.say(1, &Send { lines, flag: '+', ..Send::default() });
    let read = phones.read(2);
    phones.reply(2, &read[0], Status::OK);
    phones.rig.run(541_000);
    assert_eq!(phones.read(2).pop().unwrap().flag, Flag::Abort);
}

#[test]
fn directions_limit_content_only() {
    let mut phones = Phones::up(
        vec![msrp_leg(1), directed(msrp_leg(2), Direction::Sendonly)],
        vec![path(1, Mode::Relay, &[1], &[2]), path(2, Mode::Relay, &[2], &[1])],
    );
    phones.say(1, &Send::default());
    assert_eq!(phones.answer(1), 403);
    phones.say(2, &Send::default());
    let read = phones.read(1);
    assert_eq!(phones.answer(2), 200);
    phones.reply(1, &read[0], Status::OK);
    phones.rig.put(vec![put_leg(directed(adjust(msrp_leg(2), |_| {}), Direction::Inactive))]);
    phones.say(2, &Send { id: "message2", ..Send::default() });
    assert_eq!(phones.answer(2), 403);
    phones.check_sum();
}

#[test]
fn dispositions_pass_where_content_may_not() {
    // CPM-FACTS §3.4: sendonly, recvonly and inactive limit content only.
    let mut phones = Phones::up(
        vec![msrp_leg(1), directed(msrp_leg(2), Direction::Inactive)],
        vec![path(1, Mode::Relay, &[1], &[2]), path(2, Mode::Relay, &[2], &[1])],
    );
    for (from, to) in [(1, 2), (2, 1)] {
        for (id, body, code) in [
            ("chat", cpim(2, "sip:anonymous@anonymous.invalid", "text/plain", "hi"), 403),
            ("imdn", imdn("msgA", "delivered"), 200),
        ] {
            let bytes = phones.request(
                from,
                "SEND",
                id,
                &format!("Message-ID: {id}\r\nContent-Type: message/cpim\r\n"),
                Some(&body),
                '$',
            );
            phones.say_raw(from, &bytes[..150]);
            phones.say_raw(from, &bytes[150..]);
            assert_eq!(phones.answer(from), code, "{id}");
            let read = phones.read(to);
            assert_eq!(read.len(), usize::from(code == 200), "{id}");
            if let Some(read) = read.first() {
                assert_eq!(read.body, body);
                phones.reply(to, read, Status::OK);
            }
        }
    }
    phones.check_sum();
}

#[test]
fn the_far_legs_size_is_respected() {
    let mut phones = Phones::up(
        vec![msrp_leg(1), adjust(msrp_leg(2), |m| m.max_size = 10)],
        vec![path(1, Mode::Relay, &[1], &[2])],
    );
    let known = "Byte-Range: 1-*/11\r\nContent-Type: text/plain\r\n";
    phones.say(1, &Send { lines: known, ..Send::default() });
    assert_eq!(phones.answer(1), 413);
    let unknown = "Byte-Range: 1-*/*\r\nContent-Type: text/plain\r\n";
    phones.say(1, &Send { id: "message2", lines: unknown, body: b"0123456789abc", ..Send::default() });
    let read = phones.read(1);
    assert!(read.iter().any(|r| r.is(Method::Report) && r.head.status() == Some(Status::STOP)), "{read:?}");
    phones.check_sum();
}

#[test]
fn a_message_waits_for_a_target_that_is_on_its_way() {
    let mut phones = Phones::put(
        crate::Limits { sockets_max: 1, ..crate::Limits::default() },
        vec![msrp_leg(1), msrp_leg(2)],
        vec![path(1, Mode::Relay, &[1], &[2])],
    );
    phones.connect(1);
    let done = phones.say(1, &Send::default());
    assert!(done.iter().any(|d| matches!(d, Done::Stream(crate::Output::Pause { .. }))));
    phones.say(1, &Send { id: "message2", tid: "tid2", ..Send::default() });
    assert!(phones.read(1).is_empty());
    phones.open(2);
    let done = phones.say_raw(2, &phones.empty(2));
    assert!(done.iter().any(|d| matches!(d, Done::Stream(crate::Output::Resume { .. }))));
    assert_eq!(phones.read(1).len(), 2);
    let read = phones.read(2);
    let ids: Vec<_> = read.iter().filter(|r| r.is(Method::Send)).map(|r| r.head.message_id()).collect();
    assert_eq!(ids, ["message1", "message2"], "in order");
    phones.check_sum();
}

fn imdn(id: &str, what: &str) -> Vec<u8> {
    let kind = if what == "displayed" { "display" } else { "delivery" };
    let text = format!(
        "<imdn xmlns=\"urn:ietf:params:xml:ns:imdn\"><message-id>{id}</message-id>\
         <datetime>2026-11-22T07:15:00Z</datetime>\
         <{kind}-notification><status><{what}/></status></{kind}-notification></imdn>"
    );
    cpim(2, "sip:anonymous@anonymous.invalid", "message/imdn+xml", &text)
}

#[test]
fn one_devices_dispositions_pass_a_relay_once_for_each_recipient_behind_it() {
    // CPM-FACTS §2.11: with one device as with several; behind a leg there may be a conference.
    let once = Some(Parameters::Distribute(Distribute { imdn_once: true }));
    let mut phones = Phones::up(
        vec![msrp_leg(1), msrp_leg(2)],
        vec![
            path(1, Mode::Relay, &[1], &[2]),
            contract::Path { parameters: once, ..path(2, Mode::Relay, &[2], &[1]) },
        ],
    );
    let other = |id: &str, what: &str| {
        let text = String::from_utf8(imdn(id, what)).unwrap();
        text.replace(&user(2), &user(9)).into_bytes()
    };
    for (at, (body, passes)) in [
        (imdn("msgA", "delivered"), true),
        (imdn("msgA", "delivered"), false),
        (imdn("msgA", "failed"), false),
        (other("msgA", "delivered"), true),
        (imdn("msgA", "displayed"), true),
        (imdn("msgB", "failed"), true),
        (imdn("msgB", "failed"), false),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("imdn{at}");
        phones.say(2, &Send { tid: &id, id: &id, lines: CPIM_LINES, body: &body, flag: '$' });
        assert_eq!(phones.answer(2), 200);
        let read = phones.read(1);
        assert_eq!(read.len(), usize::from(passes), "{at}");
        assert!(read.iter().all(|r| r.body == body));
    }
    assert_eq!(phones.rig.engine.dropped(Drop::MsrpImdnAgain), 3);
    // Content that comes in another order than it was written in passes all the same, in its places.
    let body = cpim(2, "sip:anonymous@anonymous.invalid", "text/plain", "0123456789");
    let cuts = [(0, 20, '+'), (40, body.len(), '$'), (20, 40, '+')];
    for (from, to, flag) in cuts {
        let lines = format!("Byte-Range: {}-*/{}\r\n{CPIM_LINES}", from + 1, body.len());
        phones.say(2, &Send { id: "late", tid: "late", lines: &lines, body: &body[from..to], flag });
        assert_eq!(phones.answer(2), 200);
    }
    let mut parts: Vec<_> =
        phones.read(1).into_iter().map(|r| (r.head.byte_range().unwrap().start, r.body)).collect();
    parts.sort();
    assert_eq!(parts.iter().map(|(start, _)| *start).collect::<Vec<_>>(), [1, 21, 41]);
    assert_eq!(parts.into_iter().flat_map(|(_, part)| part).collect::<Vec<_>>(), body);
    phones.check_sum();
}

#[test]
fn of_each_disposition_only_the_first_devices_imdn_passes() {
    // CPM-FACTS §2.11, REQ-PF-17.
    let mut phones = fan(true);
    let mut number = 0;
    for (n, id, what, passes) in [
        (2, "msgA", "delivered", true),
        (3, "msgA", "delivered", false),
        (3, "msgA", "displayed", true),
        (2, "msgA", "displayed", false),
        (3, "msgB", "delivered", true),
        (2, "msgC", "failed", false),
        (3, "msgC", "failed", true),
        (2, "msgD", "failed", false),
        (3, "msgD", "delivered", true),
    ] {
        number += 1;
        let (tid, body) = (format!("imdn{number}"), imdn(id, what));
        let bytes = phones.request(
            n,
            "SEND",
            &tid,
            &format!("Message-ID: {tid}\r\nContent-Type: message/cpim\r\n"),
            Some(&body),
            '$',
        );
        // In two reads, split within the CPIM headers.
        phones.say_raw(n, &bytes[..200]);
        phones.say_raw(n, &bytes[200..]);
        assert_eq!(phones.answer(n), 200, "the device is answered alike");
        let read = phones.read(1);
        assert_eq!(read.len(), usize::from(passes), "{n} {id} {what}");
        if passes {
            assert_eq!(read[0].body, body);
        }
    }
    // What is no IMDN is not looked at further.
    let body = cpim(2, "sip:anonymous@anonymous.invalid", "text/plain", "hello");
    for n in [2, 3] {
        phones.say(n, &Send { id: "chat", lines: CPIM_LINES, body: &body, ..Send::default() });
        assert_eq!(phones.read(1)[0].body, body);
        phones.read(n);
    }
    assert_eq!(phones.rig.engine.dropped(Drop::MsrpImdnAgain), 4);
    phones.check_sum();
}

#[test]
fn the_rest_of_a_message_that_broke_off_is_delivered_and_never_aborted() {
    for lost in [false, true] {
        let lines = "Success-Report: yes\r\nByte-Range: 6-*/10\r\nContent-Type: a/b\r\n";
        let mut phones = pair();
        phones.say(1, &Send { lines, ..Send::default() });
        phones.read(1);
        let read = phones.read(2);
        assert_eq!(read[0].head.header(b"Byte-Range").unwrap(), b"6-*/10");
        phones.reply(2, &read[0], Status::OK);
        // What it cannot have is not reported; what it has is.
        phones.report(2, &read[0], 200);
        assert!(phones.read(1).is_empty());
        let lines = "Message-ID: message1\r\nByte-Range: 6-10/10\r\nStatus: 000 200\r\n";
        let bytes = phones.request(2, "REPORT", "rep2", lines, None, '$');
        phones.say_raw(2, &bytes);
        let report = phones.read(1);
        assert_eq!(report[0].head.header(b"Byte-Range").unwrap(), b"6-10/10");
        if lost {
            let why = crate::CloseReason::Closed;
            phones.rig.input(crate::Input::Closed { conn: conn(1), why });
        }
        phones.rig.run(600_000);
        assert!(phones.read(2).is_empty(), "nothing tells it to throw away what it has");
    }
}

// RFC 4975 §7.1: a Message-ID is not repeated by another endpoint. Towards a target we are the endpoint, whoever wrote it.
#[test]
fn a_message_id_that_a_second_sender_uses_after_the_first_ones_message_is_over_is_another_to_their_target() {
    let legs = || vec![msrp_leg(1), msrp_leg(2), msrp_leg(3)];
    let paths = || vec![path(1, Mode::Distribute, &[1], &[2, 3]), path(2, Mode::Distribute, &[2, 3], &[1])];
    let mut phones = Phones::up(legs(), paths());
    let lines = "Success-Report: yes\r\nFailure-Report: no\r\nContent-Type: text/plain\r\n";
    let say = |phones: &mut Phones, n| {
        phones.say(n, &Send { id: "same1234", lines, ..Send::default() });
        let read = phones.read(1).remove(0);
        // Its sender hears of it by the name that it gave.
        phones.report(1, &read, 200);
        assert_eq!(phones.read(n)[0].head.message_id(), "same1234");
        read.head.message_id().to_owned()
    };
    let first = say(&mut phones, 2);
    assert_eq!(first, "same1234", "one sender's stay as they are");
    // Nobody awaits anything of the first one's any more.
    phones.rig.run(700_000);
    assert_eq!(phones.rig.engine.message.row(1).map(|row| row.expects.len()), Some(0));
    assert_ne!(say(&mut phones, 3), first);
    // Nor does it become the first one's when that one is gone.
    phones.rig.put(vec![contract::change::Verb::RemoveLeg(key(2))]);
    phones.say(3, &Send { id: "same1234", lines, ..Send::default() });
    assert_ne!(phones.read(1)[0].head.message_id(), first);
}

// RFC 5547 §8: of a file that is resumed the rest alone is whole; but not while a chunk of what comes before is under way,
// for which its receiver waits.
#[test]
fn a_rest_is_no_rest_while_a_chunk_of_what_comes_before_is_under_way() {
    let mut phones = pair();
    let range = |text: &str| format!("Byte-Range: {text}/50\r\nContent-Type: text/plain\r\n");
    phones.say(1, &Send { lines: &range("36-50"), body: &[b'b'; 15], ..Send::default() });
    let read = phones.read(2);
    assert_eq!((read.len(), read[0].flag), (1, Flag::Last));
    phones.reply(2, &read[0], Status::OK);
    let lines = format!("Message-ID: message1\r\n{}", range("1-35"));
    let bytes = phones.request(1, "SEND", "tid2", &lines, Some(&[b'a'; 35]), '+');
    phones.say_raw(1, &bytes[..bytes.len() - 34]);
    phones.rig.run(541_000);
    let read = phones.read(2);
    assert_eq!(read.last().map(|last| last.flag), Some(Flag::Abort), "{read:?}");
}
