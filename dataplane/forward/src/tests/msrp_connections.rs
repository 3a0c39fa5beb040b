//! Connections: arrival, binding, reuse, active legs (CPM-FACTS §3.3).

use contract::{Mode, Setup, leg_lost::Reason, news};
use msrp::Status;

use super::phone::*;
use super::rig::*;
use crate::{CloseReason, ConnId, DialId, Drop, Input, Limits, Output};

fn limits() -> Limits {
    Limits { sockets_max: 1, ..Limits::default() }
}

fn pair_unconnected() -> Phones {
    Phones::put(
        limits(),
        vec![msrp_leg(1), msrp_leg(2)],
        vec![path(1, Mode::Relay, &[1], &[2]), path(2, Mode::Relay, &[2], &[1])],
    )
}

#[test]
fn the_first_request_binds_and_is_told() {
    let mut phones = pair_unconnected();
    phones.open(1);
    let done = phones.say_raw(1, &phones.empty(1));
    assert!(matches!(news(&done)[0], news::What::LegUp(up) if up.leg == Some(key(1))));
    assert_eq!(phones.answer(1), 200);
}

#[test]
fn sessions_unknown_guessed_or_bound_elsewhere_are_refused() {
    let mut phones = pair_unconnected();
    phones.connect(1);
    // 481: no such session.
    phones.open(9);
    let bytes = String::from_utf8(phones.empty(1)).unwrap();
    let unknown = bytes.replace(&phones.ours[&1], "msrp://192.0.2.1:2855/001nosuchsession;tcp");
    phones.say_raw(9, unknown.as_bytes());
    assert_eq!(phones.answer(9), 481);
    // 506: bound to another connection (RFC 4975 §10.11).
    phones.say_raw(9, bytes.as_bytes());
    assert_eq!(phones.answer(9), 506);
    // The right session from somebody whose path is not the peer's.
    let guessed = String::from_utf8(phones.empty(2)).unwrap().replace("/peer2;", "/thief;");
    phones.say_raw(9, guessed.as_bytes());
    assert_eq!(phones.answer(9), 481);
    // By session id alone where a middlebox rewrote the host (RFC 6714).
    let rewritten = String::from_utf8(phones.empty(2)).unwrap().replace("198.51.100.2:7000", "203.0.113.1:5");
    phones.say_raw(9, rewritten.as_bytes());
    assert_eq!(phones.answer(9), 200);
    assert_eq!(phones.rig.engine.dropped(Drop::MsrpNoSession), 2);
    assert_eq!(phones.rig.engine.dropped(Drop::MsrpOtherConnection), 1);
    phones.check_sum();
}

#[test]
fn a_peer_that_is_quicker_than_its_sdp_is_heard_and_answered() {
    let early = adjust(msrp_leg(1), |m| m.remote_path.clear());
    let mut phones =
        Phones::put(limits(), vec![early.clone(), msrp_leg(2)], vec![path(1, Mode::Relay, &[2], &[1])]);
    phones.connect(1);
    phones.connect(2);
    phones.say(2, &Send::default());
    assert_eq!(phones.read(1)[0].head.to_path().as_str(), their(1));
    // The same Put again, and then the SDP: nothing moves.
    phones.rig.put(vec![put_leg(early)]);
    let done = phones.rig.put(vec![put_leg(msrp_leg(1))]);
    assert!(done.is_empty());
    // Another path is a new session.
    let moved = adjust(msrp_leg(1), |m| m.remote_path = vec![their(5)]);
    let mut done = phones.rig.put(vec![put_leg(moved)]);
    done.extend(phones.rig.run(20));
    assert!(done.iter().any(|d| matches!(d, Done::Stream(Output::Shut { .. }))));
}

#[test]
fn other_methods_are_not_understood() {
    let mut phones = pair_unconnected();
    phones.connect(1);
    for method in ["AUTH", "PING"] {
        phones.say_raw(1, &phones.request(1, method, "tid9", "", None, '$'));
        assert_eq!(phones.answer(1), 501, "RFC 4975 §10.10");
    }
    phones.check_sum();
}

#[test]
fn no_request_in_thirty_seconds_closes() {
    // RFC 4976 §6.3.
    let mut phones = pair_unconnected();
    phones.open(1);
    assert!(phones.rig.run(29_900).is_empty() || phones.rig.engine.totals().connections == 1);
    let done = phones.rig.run(200);
    let shut = |d: &Done| matches!(d, Done::Stream(Output::Shut { conn: ConnId(1), abort: true }));
    assert!(done.iter().any(shut), "{done:?}");
    assert_eq!(phones.rig.engine.totals().connections, 0);
}

#[test]
fn a_leg_that_nobody_binds_is_lost() {
    let mut phones = pair_unconnected();
    phones.connect(1);
    let done = phones.rig.run(31_000);
    let lost: Vec<_> = news(&done);
    assert!(
        matches!(lost[..], [news::What::LegLost(l)] if l.leg == Some(key(2)) && l.reason() == Reason::BindTimeout)
    );
    phones.say(1, &Send::default());
    assert_eq!(phones.answer(1), 408, "nobody is there to have it");
}

#[test]
fn one_connection_carries_several_sessions() {
    let mut phones = pair_unconnected();
    phones.open(1);
    let both = [phones.empty(1), phones.empty(2)].concat();
    phones.say_raw(1, &both);
    assert_eq!(phones.read(1).len(), 2);
    phones.say(1, &Send::default());
    let read = phones.read(1);
    assert_eq!(read.len(), 2, "the message for session 2, and the 200 for session 1");
    let done = phones.rig.put(vec![contract::change::Verb::RemoveLeg(key(1))]);
    assert!(!done.iter().any(|d| matches!(d, Done::Stream(Output::Shut { .. }))));
    let done = phones.rig.put(vec![contract::change::Verb::RemoveLeg(key(2))]);
    let done: Vec<_> = done.into_iter().chain(phones.rig.run(20)).collect();
    assert!(done.iter().any(|d| matches!(d, Done::Stream(Output::Shut { .. }))), "the last one closes it");
}

#[test]
fn the_active_side_sends_at_once() {
    // RFC 4975 §5.4.
    let fingerprint = [7; 32];
    for (shown, comes_up) in [(Some(fingerprint), true), (Some([8; 32]), false), (None, false)] {
        let mut rig = Rig::with(limits());
        let leg = adjust(msrp_leg(1), |m| {
            m.setup = Setup::Active as i32;
            m.tls = true;
            m.fingerprint = fingerprint.to_vec();
            m.connect = address(peer(5));
        });
        rig.set(vec![], vec![]);
        let done = rig.put(vec![put_leg(leg)]);
        let [Done::Stream(Output::Dial { dial, to, tls: true })] = &done[..] else { panic!("{done:?}") };
        assert_eq!(*to, peer(5));
        let dial = Some(*dial);
        let opened = Input::Opened {
            conn: ConnId(1),
            dial,
            tls: true,
            fingerprint: shown,
            peer: peer(5),
            local: addr("192.0.2.1:40000"),
        };
        let done = rig.input(opened);
        if comes_up {
            assert!(matches!(news(&done)[0], news::What::LegUp(_)));
            let (_, read) = parse(&rig.wire[&1]);
            assert_eq!((read.len(), read[0].head.has_body()), (1, false));
            assert_eq!(read[0].head.byte_range().unwrap().to_string(), "1-0/0");
            assert_eq!(read[0].head.to_path().as_str(), their(1));
        } else {
            assert!(matches!(news(&done)[0], news::What::LegLost(l) if l.reason() == Reason::TlsFailed));
            assert!(rig.wire.is_empty());
        }
    }
}

#[test]
fn a_connection_that_cannot_be_opened_is_told() {
    let mut rig = Rig::with(limits());
    rig.set(vec![adjust(msrp_leg(1), |m| m.setup = Setup::Active as i32)], vec![]);
    let done = rig.input(Input::DialFailed { dial: DialId(99), why: CloseReason::ConnectFailed });
    assert!(done.is_empty());
    let at = rig.engine.message.dials.keys().next().copied().unwrap();
    let done = rig.input(Input::DialFailed { dial: at, why: CloseReason::ConnectFailed });
    assert!(matches!(news(&done)[0], news::What::LegLost(l) if l.reason() == Reason::ConnectFailed));
}

#[test]
fn a_session_at_home_elsewhere_takes_its_connection_there() {
    let mut phones = pair_unconnected();
    for split in [0, 1, 30] {
        phones.open(50 + split);
        let bytes = String::from_utf8(phones.empty(1)).unwrap().replace("/001", "/002");
        let (a, b) = bytes.as_bytes().split_at(split as usize);
        if split > 0 {
            assert!(phones.say_raw(50 + split, a).is_empty());
        }
        let done = phones.say_raw(50 + split, b);
        let [Done::Stream(Output::HandOver { conn, shard: 2, bytes: all })] = &done[..] else {
            panic!("{done:?}")
        };
        assert_eq!((conn.0, &all[..]), (50 + split, bytes.as_bytes()));
        assert_eq!(phones.rig.engine.totals().connections, 0);
    }
}

// Anybody can write three digits: a shard that is not there must not swallow the request.
#[test]
fn a_session_of_a_shard_that_does_not_exist_is_answered_481_and_counted() {
    let mut phones = pair_unconnected();
    for (at, digits) in ["/003", "/fff"].into_iter().enumerate() {
        let n = 60 + at as u64;
        phones.open(n);
        let bytes = String::from_utf8(phones.empty(1)).unwrap().replace("/001", digits);
        let done = phones.say_raw(n, bytes.as_bytes());
        assert!(done.is_empty(), "{done:?}");
        assert_eq!(phones.answer(n), Status::NO_SESSION.0);
    }
    assert_eq!(phones.rig.engine.dropped(Drop::MsrpNoSession), 2);
    phones.check_sum();
}

#[test]
fn what_a_connection_leaves_unfinished_is_counted_once() {
    let mut phones = pair_unconnected();
    let whole = phones.empty(1);
    // Nothing, half a head, a head whose end-line is cut.
    for (n, cut) in [(70, 0), (71, 20), (72, whole.len() - 2)] {
        phones.open(n);
        phones.say_raw(n, &whole[..cut]);
        phones.rig.input(Input::Closed { conn: conn(n), why: CloseReason::Closed });
    }
    assert_eq!(phones.rig.engine.dropped(Drop::MsrpUnfinished), 2);
    // Of a connection that says no more than that until its time is over, too.
    phones.open(73);
    phones.say_raw(73, &whole[..20]);
    phones.rig.run(31_000);
    assert_eq!(phones.rig.engine.dropped(Drop::MsrpUnfinished), 3);
    // What was refused already is not counted again.
    phones.open(74);
    phones.say_raw(74, b"GET / HTTP/1.1\r\n\r\nMSRP a SEND");
    assert_eq!(phones.rig.engine.dropped(Drop::MsrpUnfinished), 3);
    phones.check_sum();
}

#[test]
fn a_connection_whose_tls_breaks_is_counted_and_told() {
    let mut phones = pair_unconnected();
    phones.connect(1);
    let done = phones.rig.input(Input::Closed { conn: conn(1), why: CloseReason::TlsFailed });
    assert!(matches!(news(&done)[0], news::What::LegLost(l) if l.reason() == Reason::TlsFailed));
    assert_eq!(phones.rig.engine.dropped(Drop::MsrpTls), 1);
    phones.check_sum();
}

#[test]
fn drawn_sessions_are_long_and_name_their_shard() {
    let phones = pair_unconnected();
    for path in phones.ours.values() {
        let uri = msrp::UriRef::parse(path).unwrap();
        assert!(uri.session().unwrap().starts_with("001") && uri.session().unwrap().len() >= 26 + 3);
        assert_eq!((uri.host(), uri.port()), ("192.0.2.1", Some(2855)));
    }
}

#[test]
fn broken_bytes_close_and_are_told() {
    let mut phones = pair_unconnected();
    phones.connect(1);
    let done = phones.say_raw(1, b"GET / HTTP/1.1\r\n\r\n");
    assert!(matches!(news(&done)[0], news::What::LegLost(l) if l.reason() == Reason::Protocol));
    assert!(done.iter().any(|d| matches!(d, Done::Stream(Output::Shut { .. }))));
    // A bad head in a whole frame is answered, and the connection lives on (RFC 4975 §10.2).
    phones.connect(2);
    let bad = String::from_utf8(phones.empty(2)).unwrap().replace("Byte-Range: 1-0/0", "Byte-Range: x");
    phones.say_raw(2, bad.as_bytes());
    assert_eq!(phones.answer(2), Status::BAD_REQUEST.0);
    phones.say_raw(2, &phones.empty(2));
    assert_eq!(phones.answer(2), 200);
    phones.check_sum();
}
