//! `switch`: the room, in the order of CPM-FACTS §3.8 (RFC 7701).

use contract::{Decide, MsrpLeg, Switch, leg_lost::Reason, message_news, news, path::Parameters};
use msrp::{Flag, Method, Status};

use super::phone::*;
use super::rig::*;
use crate::{CloseReason, Drop, Input, Limits};

const ROOM: &str = "sip:room@conference.example.com";
const ALL: &str = "sip:anonymous@anonymous.invalid";

fn member(n: u64) -> contract::Leg {
    adjust(msrp_leg(n), |m| {
        m.addresses = vec![user(n), format!("tel:+1555010000{n}")];
        m.accept_types = vec!["message/cpim".into()];
        m.accept_wrapped_types = vec!["text/plain".into(), "message/imdn+xml".into(), "image/*".into()];
        m.private_messages = n != 3;
    })
}

fn switch_path(change: impl FnOnce(&mut Switch)) -> contract::Path {
    let mut switch = Switch {
        room: vec![ROOM.into()],
        private_messages: true,
        nicknames: true,
        nickname_required: false,
        max_size: 0,
    };
    change(&mut switch);
    let all = Some(contract::LegSet { legs: vec![], media: "msrp".into() });
    contract::Path {
        sources: all.clone(),
        targets: all,
        parameters: Some(Parameters::Switch(switch)),
        ..path(1, contract::Mode::Switch, &[], &[])
    }
}

fn room_of(ids: &[u64]) -> Phones {
    Phones::up(ids.iter().map(|n| member(*n)).collect(), vec![switch_path(|_| {})])
}

/// The bodies of messages that came.
fn bodies(phones: &mut Phones, n: u64) -> Vec<Vec<u8>> {
    phones.read(n).into_iter().filter(|r| r.is(Method::Send)).map(|r| r.body).collect()
}

#[test]
fn a_message_to_the_room_goes_to_all_but_its_session() {
    for to in [ROOM, ALL] {
        let mut phones = room_of(&[1, 2, 3]);
        phones.chat(1, "msg1", to, "hello, room");
        assert_eq!(phones.answer(1), 200);
        let sent = cpim(1, to, "text/plain", "hello, room");
        for n in [2, 3] {
            let read = phones.read(n);
            assert_eq!((read.len(), &read[0].body), (1, &sent));
            let head = &read[0].head;
            assert_eq!(
                (head.to_path().as_str(), head.from_path().as_str()),
                (&their(n)[..], &phones.ours[&n][..])
            );
            assert_eq!((head.success_report(), head.failure_report().as_str()), (false, "no"), "step 8");
            assert_ne!(head.message_id(), "msg1", "ids of two senders may be the same");
        }
        phones.check_sum();
    }
}

#[test]
fn each_refusal_has_its_code_in_the_order_of_the_steps() {
    let cases: [(&str, &str, u16); 9] = [
        ("From: <sip:user2@example.com>", "another's name", 403),
        ("To: <sip:anonymous@anonymous.invalid>, <sip:user2@example.com>", "two recipients", 403),
        ("To: <sip:stranger@example.com>", "nobody of the room", 404),
        ("To: <sip:user3@example.com>", "takes no private messages", 428),
        ("To: sip:user3@example.com", "no address", 400),
        ("From: <sip:user1@example.com>\r\nFrom: <sip:user1@example.com>", "two senders", 400),
        ("X-Long: ", "headers over the limit", 413),
        ("NoColon", "no header", 400),
        ("To: <sip:user2@example.com>", "fine", 200),
    ];
    for (line, why, code) in cases {
        let mut phones = room_of(&[1, 2, 3]);
        let (mut from, mut to) = (format!("From: <{}>", user(1)), format!("To: <{ALL}>"));
        let mut more = String::new();
        match line.split_once(':').map_or(line, |(name, _)| name) {
            "From" => from = line.into(),
            "To" => to = line.into(),
            "X-Long" => more = format!("X-Long: {}\r\n", "x".repeat(20_000)),
            _ => more = format!("{line}\r\n"),
        }
        let body = format!("{from}\r\n{to}\r\n{more}\r\nContent-Type: text/plain\r\n\r\nhi");
        phones.say(1, &Send { lines: CPIM_LINES, body: body.as_bytes(), ..Send::default() });
        assert_eq!(phones.answer(1), code, "{why}");
        let got: usize = [2, 3].into_iter().map(|n| bodies(&mut phones, n).len()).sum();
        assert_eq!(got, usize::from(code == 200), "{why}");
        phones.check_sum();
    }
    let mut phones = room_of(&[1, 2]);
    phones.say(1, &Send::default());
    assert_eq!(phones.answer(1), 415, "step 2 comes before all others");
}

// What is taken by its head and turns out to be unusable at its end is discarded under a reason too.
#[test]
fn cpim_headers_without_an_end_and_a_nickname_of_no_form_are_counted() {
    let mut phones = room_of(&[1, 2]);
    let body = format!("From: <{}>\r\nTo: <{ALL}>\r\n", user(1));
    phones.say(1, &Send { lines: CPIM_LINES, body: body.as_bytes(), ..Send::default() });
    assert_eq!(phones.answer(1), 400);
    let nameless = phones.request(1, "NICKNAME", "nick1", "", None, '$');
    phones.say_raw(1, &nameless);
    assert_eq!(phones.answer(1), Status::NICKNAME_MALFORMED.0);
    assert_eq!(phones.rig.engine.dropped(crate::Drop::MsrpRefused), 2);
    phones.check_sum();
}

#[test]
fn a_private_message_goes_to_that_participants_sessions_alone() {
    // Legs 2 and 4 are two sessions of one participant.
    let mut phones = Phones::up(
        vec![member(1), member(2), member(3), adjust(member(4), |m| m.addresses = vec![user(2)])],
        vec![switch_path(|_| {})],
    );
    for to in [user(2), "tel:+15550100002".into()] {
        let to_number = to.starts_with("tel:");
        phones.chat(1, if to_number { "msg1" } else { "msg0" }, &to, "psst");
        assert_eq!(phones.answer(1), 200);
        assert_eq!([2, 3, 4].map(|n| bodies(&mut phones, n).len()), [1, 0, usize::from(!to_number)], "{to}");
    }
    // The room's own sessions of the sender get what goes to the room (step 12).
    phones.chat(2, "msg2", ALL, "from my phone");
    assert_eq!([1, 3, 4].map(|n| bodies(&mut phones, n).len()), [1, 1, 1]);
}

#[test]
fn rooms_without_private_messages_still_pass_dispositions() {
    let mut phones =
        Phones::up(vec![member(1), member(2)], vec![switch_path(|s| s.private_messages = false)]);
    phones.chat(1, "msg1", &user(2), "psst");
    assert_eq!(phones.answer(1), 428);
    let body = cpim(1, &user(2), "message/imdn+xml", "<imdn/>");
    phones.say(1, &Send { id: "msg2", lines: CPIM_LINES, body: &body, ..Send::default() });
    assert_eq!((phones.answer(1), bodies(&mut phones, 2).len()), (200, 1));
}

fn imdn_of(n: u64, id: &str, what: &str) -> Vec<u8> {
    imdn_naming("", n, id, what)
}

/// With more elements before the disposition.
fn imdn_naming(more: &str, n: u64, id: &str, what: &str) -> Vec<u8> {
    let kind = if what == "displayed" { "display" } else { "delivery" };
    let text = format!(
        "<imdn xmlns=\"urn:ietf:params:xml:ns:imdn\"><message-id>{id}</message-id>\
         <datetime>2026-11-22T07:15:00Z</datetime>{more}\
         <{kind}-notification><status><{what}/></status></{kind}-notification></imdn>"
    );
    cpim(n, &user(1), "message/imdn+xml", &text)
}

#[test]
fn of_each_participants_dispositions_only_the_first_passes() {
    // CPM-FACTS §2.11, REQ-PF-17. Legs 3 and 4 are two sessions of one participant, leg 2 is another's only one.
    let of = |n: u64, who: &str| contract::Leg { participant: who.into(), ..member(n) };
    let twin = adjust(of(4, "p3"), |m| m.addresses = vec![user(3)]);
    let mut phones = Phones::up(vec![of(1, "p1"), of(2, "p2"), of(3, "p3"), twin], vec![switch_path(|_| {})]);
    for (at, (n, id, what, passes)) in [
        (2, "msgA", "delivered", true),
        (2, "msgA", "delivered", false),
        (2, "msgA", "failed", false),
        (3, "msgA", "delivered", true),
        (4, "msgA", "delivered", false),
        (4, "msgA", "displayed", true),
        (3, "msgA", "displayed", false),
        (3, "msgB", "failed", false),
        (4, "msgB", "failed", true),
        (2, "msgB", "failed", true),
    ]
    .into_iter()
    .enumerate()
    {
        let body = imdn_of(if n == 4 { 3 } else { n }, id, what);
        let tid = format!("imdn{at}");
        let lines = format!("Message-ID: {tid}\r\nSuccess-Report: yes\r\nContent-Type: message/cpim\r\n");
        let bytes = phones.request(n, "SEND", &tid, &lines, Some(&body), '$');
        // In two reads, split within the IMDN.
        let cut = bytes.len() - 60;
        phones.say_raw(n, &bytes[..cut]);
        assert!(bodies(&mut phones, 1).is_empty(), "nobody knows yet what it says");
        phones.say_raw(n, &bytes[cut..]);
        let mut read = phones.read(n);
        read.sort_by_key(|r| r.is(Method::Report));
        assert_eq!(read[0].status(), Some(Status::OK), "the device is answered alike");
        assert_eq!(read[1].head.status(), Some(Status::OK), "and reported to");
        let got = bodies(&mut phones, 1);
        assert_eq!(got.len(), usize::from(passes), "{n} {id} {what}");
        assert!(got.iter().all(|got| *got == body));
    }
    assert_eq!(phones.rig.engine.dropped(Drop::MsrpImdnAgain), 5);
    phones.check_sum();
}

#[test]
fn a_receipt_in_anothers_name_is_refused_in_a_room() {
    // CPM-FACTS §3.8 step 4 and §2.11: the sender's count of recipients must not be for others to fill.
    for (recipient, code) in [
        (user(2), 200),
        ("tel:+15550100002".into(), 200),
        (ROOM.into(), 200),
        (ALL.into(), 200),
        (user(3), 403),
        ("sip:stranger@example.com".into(), 403),
        ("nobody".into(), 403),
    ] {
        let mut phones = room_of(&[1, 2, 3]);
        let named = format!("<recipient-uri>{recipient}</recipient-uri>");
        let body = imdn_naming(&named, 2, "msgA", "delivered");
        phones.say(2, &Send { lines: CPIM_LINES, body: &body, ..Send::default() });
        assert_eq!(phones.answer(2), code, "{recipient}");
        assert_eq!(bodies(&mut phones, 1).len(), usize::from(code == 200), "{recipient}");
        assert_eq!(phones.rig.engine.dropped(Drop::MsrpRefused), u64::from(code != 200));
        phones.check_sum();
    }
}

#[test]
fn headers_over_several_chunks_are_put_together_within_the_limit() {
    let body = cpim(1, ALL, "text/plain", &"long text ".repeat(50));
    for size in [1, 10, 64] {
        let mut phones = room_of(&[1, 2]);
        let chunks: Vec<_> = body.chunks(size).collect();
        for (at, chunk) in chunks.iter().enumerate() {
            let start = at * size + 1;
            let range = format!("Byte-Range: {start}-*/{}\r\n{CPIM_LINES}", body.len());
            let flag = if at + 1 == chunks.len() { '$' } else { '+' };
            phones.say(1, &Send { lines: &range, body: chunk, flag, ..Send::default() });
        }
        assert!(phones.read(1).iter().all(|r| r.status() == Some(Status::OK)));
        let mut got = Vec::new();
        let read = phones.read(2);
        for chunk in &read {
            assert_eq!(chunk.head.byte_range().unwrap().start, got.len() as u64 + 1);
            got.extend_from_slice(&chunk.body);
        }
        assert_eq!((got == body, read.last().unwrap().flag), (true, Flag::Last), "chunks of {size}");
        phones.check_sum();
    }
}

#[test]
fn recipients_are_frozen_at_the_first_chunk() {
    let mut phones = room_of(&[1, 2, 3]);
    let body = cpim(1, ALL, "text/plain", "0123456789");
    let (first, rest) = body.split_at(body.len() - 5);
    let range = |start: usize| format!("Byte-Range: {start}-*/{}\r\n{CPIM_LINES}", body.len());
    phones.say(1, &Send { lines: &range(1), body: first, flag: '+', ..Send::default() });
    phones.join(member(4));
    phones.rig.input(Input::Closed { conn: conn(3), why: CloseReason::Reset });
    phones.say(1, &Send { lines: &range(first.len() + 1), body: rest, ..Send::default() });
    assert_eq!(bodies(&mut phones, 2).concat(), body);
    assert!(bodies(&mut phones, 4).is_empty(), "nobody is served the tail");
    phones.chat(1, "msg2", ALL, "again");
    assert_eq!(bodies(&mut phones, 4).len(), 1);
    // A tail whose head never came is nobody's either.
    phones.read(1);
    phones.say(1, &Send { id: "msg3", lines: &range(50), ..Send::default() });
    assert_eq!(phones.answer(1), 400);
    phones.check_sum();
}

#[test]
fn who_does_not_take_the_type_is_left_out_and_the_sender_not_told() {
    let mut phones = room_of(&[1, 2]);
    let text_only = adjust(member(3), |m| m.accept_wrapped_types = vec!["text/plain".into()]);
    phones.join(text_only);
    let body = cpim(1, ALL, "image/png", "png");
    phones.say(1, &Send { lines: CPIM_LINES, body: &body, ..Send::default() });
    assert_eq!(phones.answer(1), 200);
    assert_eq!([2, 3].map(|n| bodies(&mut phones, n).len()), [1, 0]);
}

#[test]
fn sizes_of_room_and_recipient_are_kept() {
    let mut phones = Phones::up(
        vec![member(1), member(2), adjust(member(3), |m| m.max_size = 120)],
        vec![switch_path(|s| s.max_size = 200)],
    );
    let body = cpim(1, ALL, "text/plain", &"x".repeat(300));
    let known = format!("Byte-Range: 1-*/{}\r\n{CPIM_LINES}", body.len());
    phones.say(1, &Send { lines: &known, body: &body, ..Send::default() });
    assert_eq!(phones.answer(1), 413, "announced");
    let unknown = format!("Byte-Range: 1-*/*\r\n{CPIM_LINES}");
    let bytes =
        phones.request(1, "SEND", "tid7", &format!("Message-ID: msg2\r\n{unknown}"), Some(&body), '$');
    phones.say_raw(1, &bytes[..bytes.len() - 300]);
    phones.say_raw(1, &bytes[bytes.len() - 300..]);
    assert_eq!(phones.answer(1), 413, "found out on the way");
    assert_eq!(phones.read(2).pop().unwrap().flag, Flag::Abort);
    phones.read(3);
    let body = cpim(1, ALL, "text/plain", &"y".repeat(50));
    phones.say(1, &Send { id: "msg3", lines: &unknown, body: &body, ..Send::default() });
    assert_eq!(phones.answer(1), 200);
    assert_eq!(phones.read(2)[0].body, body);
    assert!(phones.read(3).iter().all(|r| r.flag == Flag::Abort), "too long for this one alone");
    phones.check_sum();
}

#[test]
fn the_switch_answers_and_reports_and_recipients_do_not() {
    let mut phones = room_of(&[1, 2]);
    let body = cpim(1, ALL, "text/plain", "hi");
    let lines = "Success-Report: yes\r\nFailure-Report: partial\r\nContent-Type: message/cpim\r\n";
    phones.say(1, &Send { lines, body: &body, ..Send::default() });
    let read = phones.read(1);
    assert_eq!(read.len(), 1, "no 200 for `partial`");
    assert_eq!((read[0].is(Method::Report), read[0].head.status()), (true, Some(Status::OK)));
    assert_eq!(read[0].head.byte_range().unwrap().to_string(), format!("1-{0}/{0}", body.len()));
    let read = phones.read(2);
    phones.report(2, &read[0], 200);
    phones.report(2, &read[0], 413);
    assert!(phones.read(1).is_empty());
    // The same message again is answered, and goes nowhere.
    phones.say(1, &Send { tid: "tid2", lines: CPIM_LINES, body: &body, ..Send::default() });
    assert_eq!((phones.answer(1), bodies(&mut phones, 2).len()), (200, 0));
    assert_eq!(phones.rig.engine.dropped(Drop::MsrpDuplicate), 1);
    phones.check_sum();
}

#[test]
fn success_is_reported_when_all_who_shall_have_it_do_or_are_known_to_have_not() {
    // DESIGN §2, invariant 9: what waits in a queue here is neither durable nor delivered.
    for how in ["read on", "cut loose", "lost", "removed", "congested"] {
        let limits = Limits {
            queue_bytes_max: 50_000,
            inflight_bytes_max: 10_000,
            slow_ms: 20_000,
            sockets_max: 1,
            ..Limits::default()
        };
        let mut phones =
            Phones::up_with(limits, vec![member(1), member(2), member(3)], vec![switch_path(|_| {})]);
        phones.rig.stalled.insert(2);
        // More than the driver takes at once is in the way of the message to leg 2.
        let fill = "x".repeat(1000);
        for n in 0..12 {
            phones.chat(1, &format!("fill{n}"), ALL, &fill);
        }
        phones.read(1);
        let body = cpim(1, ALL, "text/plain", "hello");
        let lines = "Success-Report: yes\r\nContent-Type: message/cpim\r\n";
        phones.say(1, &Send { id: "mine", tid: "mine", lines, body: &body, ..Send::default() });
        let theirs = phones.read(3);
        assert_eq!(theirs.last().unwrap().body, body, "nobody else waits");
        assert_eq!(phones.answer(1), 200, "and no REPORT yet");
        phones.report(2, theirs.last().unwrap(), 200);
        assert!(phones.read(1).is_empty(), "a recipient's word is not asked");
        let mut done = Vec::new();
        match how {
            "read on" => {
                phones.rig.stalled.clear();
                let bytes = phones.rig.wire[&2].len();
                done = phones.rig.input(Input::Sent { conn: conn(2), bytes });
                phones.rig.deliver(&mut done);
            }
            "cut loose" => done.extend(phones.rig.run(26_000)),
            "lost" => done.extend(phones.rig.input(Input::Closed { conn: conn(2), why: CloseReason::Reset })),
            "removed" => done.extend(phones.rig.put(vec![contract::change::Verb::RemoveLeg(key(2))])),
            _ => {
                for n in 0..40 {
                    done.extend(phones.chat(1, &format!("rest{n}"), ALL, &fill));
                }
            }
        }
        let told = |what: &&news::What| {
            matches!(what, news::What::LegLost(l) if l.leg == Some(key(2)))
                || matches!(what, news::What::Pressure(p) if p.leg == Some(key(2)) && p.on)
        };
        assert_eq!(news(&done).iter().any(told), !["read on", "removed"].contains(&how), "{how}");
        let reports: Vec<_> = phones.read(1).into_iter().filter(|r| r.is(Method::Report)).collect();
        if how == "congested" {
            // What is in the queue whole is not taken out of it: the report waits for it.
            assert!(reports.is_empty());
            continue;
        }
        let seen: Vec<_> = reports.iter().map(|r| (r.head.message_id(), r.head.status())).collect();
        assert_eq!(seen, [("mine", Some(Status::OK))], "{how}");
    }
}

#[test]
fn what_nobody_has_got_is_not_reported_delivered() {
    for (partial, code) in [("yes", Some(Status::TIMEOUT)), ("no", None)] {
        let mut phones = room_of(&[1, 2, 3]);
        phones.rig.stalled.extend([2, 3]);
        let body = cpim(1, ALL, "text/plain", &"x".repeat(100_000));
        let lines =
            format!("Success-Report: yes\r\nFailure-Report: {partial}\r\nContent-Type: message/cpim\r\n");
        phones.say(1, &Send { id: "mine", lines: &lines, body: &body, ..Send::default() });
        phones.read(1);
        phones.rig.input(Input::Closed { conn: conn(2), why: CloseReason::Reset });
        assert!(phones.read(1).is_empty(), "one may still get it");
        phones.rig.input(Input::Closed { conn: conn(3), why: CloseReason::Reset });
        let reports: Vec<_> = phones.read(1).iter().map(|r| r.head.status()).collect();
        assert_eq!(reports, code.map(Some).into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn rfc4975_s5_1_a_message_is_whole_when_its_last_chunk_and_all_before_it_came() {
    let mut phones = room_of(&[1, 2]);
    let body = cpim(1, ALL, "text/plain", "0123456789");
    let (a, b) = (body.len() - 8, body.len() - 4);
    for (from, to, flag, reports) in [(0, a, '+', 0), (b, body.len(), '$', 0), (a, b, '+', 1)] {
        let lines = format!(
            "Success-Report: yes\r\nByte-Range: {}-*/{}\r\nContent-Type: message/cpim\r\n",
            from + 1,
            body.len()
        );
        phones.say(1, &Send { lines: &lines, body: &body[from..to], flag, ..Send::default() });
        let read = phones.read(1);
        assert_eq!(read.iter().filter(|r| r.is(Method::Report)).count(), reports, "{from}");
    }
    let mut whole: Vec<_> =
        phones.read(2).into_iter().map(|r| (r.head.byte_range().unwrap().start, r.body)).collect();
    whole.sort();
    assert_eq!(whole.into_iter().flat_map(|(_, b)| b).collect::<Vec<_>>(), body);
}

#[test]
fn what_nobody_finishes_is_aborted() {
    for (how, fault) in [
        ("540 s without a chunk (step 10)", 0),
        ("the sender gives up (step 11)", 1),
        ("the sender is lost", 2),
    ] {
        let mut phones = room_of(&[1, 2]);
        let body = cpim(1, ALL, "text/plain", "unfinished");
        let range = format!("Byte-Range: 1-*/500\r\n{CPIM_LINES}");
        phones.say(1, &Send { lines: &range, body: &body, flag: '+', ..Send::default() });
        assert_eq!(phones.read(2)[0].flag, Flag::More);
        match fault {
            0 => drop(phones.rig.run(541_000)),
            1 => drop(
                phones.say(1, &Send { tid: "tid2", lines: &range, body: b"", flag: '#', ..Send::default() }),
            ),
            _ => drop(phones.rig.input(Input::Closed { conn: conn(1), why: CloseReason::Reset })),
        }
        assert_eq!(phones.read(2).pop().expect(how).flag, Flag::Abort, "{how}");
    }
}

#[test]
fn who_may_not_speak_gets_403() {
    let mut phones = Phones::up(
        vec![
            adjust(member(1), |m| m.muted = true),
            member(2),
            adjust(member(3), |m| m.nickname = "Three".into()),
        ],
        vec![switch_path(|s| s.nickname_required = true)],
    );
    for (n, code) in [(1, 403), (2, 403), (3, 200)] {
        phones.chat(n, "msg1", ALL, "hi");
        assert_eq!(phones.read(n).pop().unwrap().status(), Some(Status(code)), "{n}");
    }
    // Step 6 comes after step 5, and is for what is said: a disposition passes.
    phones.chat(1, "msg2", "sip:stranger@example.com", "hi");
    assert_eq!(phones.read(1).pop().unwrap().status(), Some(Status(404)));
    let body = cpim(1, &user(2), "message/imdn+xml", "<imdn/>");
    phones.say(1, &Send { id: "msg3", lines: CPIM_LINES, body: &body, ..Send::default() });
    assert_eq!(phones.read(1).pop().unwrap().status(), Some(Status(200)));
    phones.check_sum();
}

#[test]
fn two_members_on_one_connection_get_each_their_own_copy() {
    // RFC 4975 §5.4: sessions may share a connection.
    let mut phones = Phones::put(
        Limits { sockets_max: 1, ..Limits::default() },
        [1, 2, 3].map(member).to_vec(),
        vec![switch_path(|_| {})],
    );
    phones.connect(1);
    phones.open(2);
    let both = [phones.empty(2), phones.empty(3)].concat();
    phones.say_raw(2, &both);
    phones.read(2);
    let body = cpim(1, ALL, "text/plain", "0123456789");
    let (first, rest) = body.split_at(body.len() - 4);
    let range = |start: usize| format!("Byte-Range: {start}-*/{}\r\n{CPIM_LINES}", body.len());
    phones.say(1, &Send { lines: &range(1), body: first, flag: '+', ..Send::default() });
    phones.say(1, &Send { lines: &range(first.len() + 1), body: rest, ..Send::default() });
    let read = phones.read(2);
    for n in [2, 3] {
        let mine: Vec<_> = read.iter().filter(|r| r.head.to_path().as_str() == their(n)).collect();
        assert_eq!(mine.iter().flat_map(|r| r.body.clone()).collect::<Vec<_>>(), body, "{n}");
        assert_eq!(mine.last().unwrap().flag, Flag::Last);
    }
}

#[test]
fn another_name_is_shown_where_control_wants_it() {
    let hidden = adjust(member(1), |m: &mut MsrpLeg| {
        m.addresses = vec!["sip:anon-17@anonymous.invalid".into(), user(1)];
    });
    let mut phones = Phones::up(vec![hidden, member(2)], vec![switch_path(|_| {})]);
    let body = cpim(1, ROOM, "text/plain", "0123456789");
    let (first, rest) = body.split_at(body.len() - 4);
    let range = |start: usize| format!("Byte-Range: {start}-*/{}\r\n{CPIM_LINES}", body.len());
    phones.say(1, &Send { lines: &range(1), body: first, flag: '+', ..Send::default() });
    phones.say(1, &Send { lines: &range(first.len() + 1), body: rest, ..Send::default() });
    let read = phones.read(2);
    let text = String::from_utf8(read.iter().flat_map(|r| r.body.clone()).collect()).unwrap();
    let expected =
        String::from_utf8(body.clone()).unwrap().replace(&user(1), "sip:anon-17@anonymous.invalid");
    assert_eq!(text, expected);
    let ranges: Vec<_> = read.iter().map(|r| r.head.byte_range().unwrap()).collect();
    assert_eq!(ranges[0].total, Some(expected.len() as u64));
    assert_eq!(ranges[1].start, expected.len() as u64 - 3);
}

#[test]
fn nicknames_are_judged_by_form_here_and_by_control() {
    let mut phones = room_of(&[1, 2]);
    let ask = |phones: &mut Phones, tid: &str, line: &str| {
        let bytes = phones.request(1, "NICKNAME", tid, line, None, '$');
        phones.say_raw(1, &bytes)
    };
    for (line, code) in [("", 424), ("Use-Nickname: bare\r\n", 424), ("Use-Nickname: \"\u{202e}x\"\r\n", 424)]
    {
        ask(&mut phones, "nick1", line);
        assert_eq!(phones.answer(1), code, "{line}");
    }
    for (decision, nickname) in [(425, ""), (200, "Alice")] {
        let done = ask(&mut phones, "nick2", "Use-Nickname: \"Alice\"\r\n");
        let [news::What::Message(asked)] = news(&done)[..] else { panic!("{done:?}") };
        assert_eq!(
            (asked.leg, &asked.what),
            (Some(key(1)), &Some(message_news::What::Nickname("Alice".into())))
        );
        assert!(phones.read(1).is_empty(), "control has the word");
        let decide =
            Decide { leg: asked.leg, id: asked.id, status: decision, nickname: nickname.into(), auth: None };
        phones.rig.input(Input::Decide(&decide));
        let read = phones.read(1);
        assert_eq!((read[0].status().unwrap().0, read[0].head.tid().as_str()), (decision as u16, "nick2"));
        phones.rig.input(Input::Decide(&decide));
        assert!(phones.read(1).is_empty(), "decided once");
    }
    // Nobody decides: 403 in the end. A room without nicknames: 403 at once.
    ask(&mut phones, "nick3", "Use-Nickname: \"Bob\"\r\n");
    phones.rig.run(31_000);
    assert_eq!(phones.answer(1), 403);
    phones.rig.put(vec![put_path(switch_path(|s| s.nicknames = false))]);
    ask(&mut phones, "nick4", "Use-Nickname: \"Bob\"\r\n");
    assert_eq!(phones.answer(1), 403);
}

#[test]
fn a_slow_reader_slows_nobody_and_is_bounded_told_and_cut_loose() {
    // CPM-FACTS §3.8 step 13.
    let limits = Limits {
        queue_bytes_max: 50_000,
        inflight_bytes_max: 10_000,
        slow_ms: 60_000,
        sockets_max: 1,
        ..Limits::default()
    };
    let mut phones =
        Phones::up_with(limits, vec![member(1), member(2), member(3)], vec![switch_path(|_| {})]);
    phones.rig.stalled.insert(2);
    let (mut told, mut delivered) = (Vec::new(), 0);
    let text = "x".repeat(1000);
    for n in 0..200 {
        let done = phones.chat(1, &format!("msg{n}"), ALL, &text);
        for what in news(&done) {
            let news::What::Pressure(p) = what else { panic!("{what:?}") };
            told.push((p.leg, p.on));
        }
        assert_eq!(phones.answer(1), 200);
        delivered += bodies(&mut phones, 3).len();
        assert!(phones.rig.engine.totals().queued_bytes < 52_000, "bounded");
    }
    assert_eq!(delivered, 200);
    assert_eq!(told, [(Some(key(2)), true)]);
    // It reads on: whole messages came, none twice; what the bounds of its queue and of what is held for it let in. After
    // that it takes part again.
    phones.rig.stalled.clear();
    let waited = phones.rig.wire.get(&2).map_or(0, Vec::len);
    let mut done = phones.rig.input(Input::Sent { conn: conn(2), bytes: waited });
    phones.rig.deliver(&mut done);
    let relieved = news(&done).iter().any(|w| matches!(w, news::What::Pressure(p) if !p.on));
    phones.rig.run(100);
    let got = phones.read(2);
    let whole = got.iter().filter(|r| r.flag == Flag::Last).count();
    assert!(relieved && whole > 85 && whole < 124, "{whole}");
    assert_eq!(phones.rig.engine.dropped(Drop::MsrpHeldFull) as usize, 200 - whole);
    phones.chat(1, "after", ALL, "hi");
    assert_eq!(bodies(&mut phones, 2).len(), 1);
    // Stalled for good: cut loose.
    phones.rig.stalled.insert(2);
    for n in 200..300 {
        phones.chat(1, &format!("msg{n}"), ALL, &text);
    }
    let done = phones.rig.run(61_000);
    assert!(
        news(&done).iter().any(
            |w| matches!(w, news::What::LegLost(l) if l.leg == Some(key(2)) && l.reason() == Reason::Slow)
        )
    );
    assert!(done.iter().any(|d| matches!(d, Done::Stream(crate::Output::Shut { abort: true, .. }))));
    assert_eq!(phones.rig.engine.totals().queued_bytes, 0);
}

#[test]
fn a_long_message_is_paced_and_waits_half_a_second_for_a_slow_reader() {
    // CPM-FACTS §3.8 step 13: no burst of one sender may look like slow receivers.
    let limits =
        Limits { queue_bytes_max: 50_000, inflight_bytes_max: 10_000, sockets_max: 1, ..Limits::default() };
    let text = "x".repeat(300_000);
    let say = |phones: &mut Phones, id: &str| {
        let body = cpim(1, ALL, "text/plain", &text);
        let lines = format!("Message-ID: {id}\r\n{CPIM_LINES}");
        let bytes = phones.request(1, "SEND", id, &lines, Some(&body), '$');
        bytes.chunks(8000).flat_map(|read| phones.say_raw(1, read)).collect::<Vec<_>>()
    };
    let whole = |phones: &mut Phones, n| {
        phones.read(n).last().is_some_and(|last| last.flag == Flag::Last && last.is(Method::Send))
    };
    // All read on: nobody is congested, however large the message.
    let mut phones =
        Phones::up_with(limits, vec![member(1), member(2), member(3)], vec![switch_path(|_| {})]);
    let done = say(&mut phones, "msg1");
    assert!(news(&done).is_empty());
    assert!(whole(&mut phones, 2) && whole(&mut phones, 3));
    // One does not: the others wait for half a second and no longer.
    phones.rig.stalled.insert(2);
    say(&mut phones, "msg2");
    assert!(phones.rig.engine.totals().queued_bytes < 60_000, "bounded");
    assert!(!whole(&mut phones, 3));
    let done = phones.rig.run(600);
    assert!(
        news(&done).iter().any(|w| matches!(w, news::What::Pressure(p) if p.on && p.leg == Some(key(2))))
    );
    assert!(whole(&mut phones, 3));
}
