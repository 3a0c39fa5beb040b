//! What the relay does not do for everybody, and what becomes of the rest when a part is lost: RFC 4976 §6, §9.

use contract::AuthVerdict;
use msrp::{Flag, Status};

use super::relay_rig::*;
use super::rig::*;
use crate::{CloseReason, ConnId, Drop, Input, Limits, Output, RelayConfig};

fn limits() -> Limits {
    Limits { sockets_max: 1, ..Limits::default() }
}

#[test]
fn a_session_works_for_its_client_and_its_first_peer_only() {
    let mut relay = Relayed::new();
    let ours = relay.pair();
    let to = format!("{ours} {}", alice(1));
    // The client to somebody else.
    relay.send(1, &format!("{ours} msrps://198.51.100.9:7000/other9session;tcp"), &alice(1), "");
    assert_eq!(relay.status(1), 403);
    // Somebody else to the client, on a connection of his own and on the peer's.
    relay.open(8);
    relay.send(8, &to, "msrps://203.0.113.1:5/thief5session;tcp", "");
    assert_eq!(relay.status(8), 403);
    relay.send(9, &to, "msrps://203.0.113.1:5/thief5session;tcp", "");
    assert_eq!(relay.status(9), 403);
    // In the peer's name from another connection.
    relay.send(8, &to, BOB, "");
    assert_eq!(relay.status(8), 506);
    // A session that is guessed.
    relay.send(8, &to.replace(";tcp ", "x;tcp "), BOB, "");
    assert_eq!(relay.status(8), 481);
    // To the relay itself, and through it to a third one.
    relay.send(9, &ours, BOB, "");
    assert_eq!(relay.status(9), 403);
    assert!(relay.read(1).is_empty());
    relay.send(9, &to, BOB, "");
    assert_eq!((relay.status(9), relay.read(1).len()), (200, 1));
    relay.check_sum();
}

#[test]
fn nobody_is_relayed_without_auth() {
    let mut relay = Relayed::new();
    relay.open(1);
    relay.send(1, &format!("msrps://192.0.2.1:2856/001guessedsession;tcp {BOB}"), &alice(1), "");
    assert_eq!(relay.status(1), 481);
    relay.request(1, "AUTH", &format!("msrps://192.0.2.1:2856/001guessedsession;tcp {RELAY}"), &alice(1), "");
    assert_eq!(relay.status(1), 481);
    // RFC 4976 §6.3: nor does the connection stay.
    relay.run(31_000);
    assert!(relay.shut(1));
    relay.check_sum();
}

#[test]
fn an_msrps_path_is_not_used_in_the_clear() {
    let mut relay = Relayed::new();
    let ours = relay.client(1);
    relay.open_as(8, None, false);
    relay.send(8, &format!("{ours} {}", alice(1)), BOB, "");
    assert_eq!((relay.status(8), relay.read(1).len()), (403, 0));
    relay.check_sum();
}

#[test]
fn a_peer_that_the_client_named_without_tls_answers_where_it_was_dialled() {
    let mut relay = Relayed::new();
    let ours = relay.client(1);
    let plain = BOB.replace("msrps", "msrp");
    relay.send(1, &format!("{ours} {plain}"), &alice(1), "");
    let (dial, _, tls) = relay.dialled().unwrap();
    assert!(!tls);
    relay.open_as(9, Some(dial), false);
    assert_eq!((relay.status(1), relay.read(9).len()), (200, 1));
    relay.send(9, &format!("{ours} {}", alice(1)), &plain, "");
    assert_eq!((relay.status(9), relay.read(1).len()), (200, 1));
    relay.open_as(8, None, false);
    relay.send(8, &format!("{ours} {}", alice(1)), &plain, "");
    assert_eq!(relay.status(8), 403);
    relay.check_sum();
}

#[test]
fn hosts_that_must_not_be_reached_are_not() {
    let mut relay = Relayed::new();
    let ours = relay.client(1);
    relay.send(1, &format!("{ours} msrp://127.0.0.1:2860/inner7session;tcp"), &alice(1), "");
    assert_eq!((relay.status(1), relay.dialled()), (403, None));
    let reach = vec![(addr("127.0.0.1:0").ip(), 8)];
    let mut relay = Relayed::with(RelayConfig { reach, ..RelayConfig::default() }, limits());
    let ours = relay.client(1);
    relay.send(1, &format!("{ours} msrp://127.0.0.1:2860/inner7session;tcp"), &alice(1), "");
    assert_eq!(relay.dialled().map(|(_, to, tls)| (to, tls)), Some((addr("127.0.0.1:2860"), false)));
}

#[test]
fn a_next_hop_that_cannot_be_reached_is_a_408() {
    let mut relay = Relayed::new();
    let ours = relay.client(1);
    let to = format!("{ours} {BOB}");
    relay.send(1, &to, &alice(1), "");
    let (dial, ..) = relay.dialled().unwrap();
    let done = relay.rig.input(Input::DialFailed { dial, why: CloseReason::ConnectFailed });
    relay.done.extend(done);
    assert_eq!(relay.status(1), 408);
    // Not tried again at once, but later.
    relay.send(1, &to, &alice(1), "");
    assert_eq!((relay.status(1), relay.dialled().is_none()), (408, true));
    relay.run(7000);
    relay.send(1, &to, &alice(1), "");
    relay.up(9);
    assert_eq!((relay.status(1), relay.read(9).len()), (200, 1));
    relay.check_sum();
}

#[test]
fn passwords_cannot_be_tried_for_ever() {
    let mut relay = Relayed::with(RelayConfig { failures_max: 3, ..RelayConfig::default() }, limits());
    relay.open(1);
    for attempt in 1..=3 {
        relay.request(1, "AUTH", RELAY, &alice(1), "Authorization: Digest wrong\r\n");
        let (id, _) = relay.asked().pop().unwrap();
        relay.decide(id, 401, AuthVerdict::default());
        assert_eq!(relay.status(1), 401);
        relay.run(20);
        assert_eq!(relay.shut(1), attempt == 3);
    }
    assert_eq!(relay.rig.engine.totals().relay_refused, 3);
}

#[test]
fn sessions_are_limited_by_user_and_in_all() {
    let config = RelayConfig { sessions_max: 3, account_sessions_max: 2, ..RelayConfig::default() };
    let mut relay = Relayed::with(config, limits());
    let mut granted = Vec::new();
    for (n, account, from) in [(1, 5, 1), (2, 5, 2), (3, 5, 3), (4, 6, 4), (5, 7, 5)] {
        relay.open(n);
        granted.push(relay.auth(n, &alice(from), account, "").status().unwrap().0);
    }
    assert_eq!(granted, [200, 200, 403, 200, 403]);
    // What ends makes room.
    let done = relay.rig.input(Input::Closed { conn: ConnId(1), why: CloseReason::Closed });
    relay.done.extend(done);
    assert_eq!(relay.auth(3, &alice(3), 5, "").status(), Some(Status::OK));
    assert_eq!(relay.rig.engine.dropped(Drop::MsrpLimit), 2);
    relay.check_sum();
}

#[test]
fn control_that_says_nothing_is_a_408_and_questions_are_bounded() {
    let mut relay = Relayed::with(RelayConfig { questions_max: 2, ..RelayConfig::default() }, limits());
    relay.open(1);
    for _ in 0..3 {
        relay.request(1, "AUTH", RELAY, &alice(1), "");
    }
    assert_eq!((relay.asked().len(), relay.status(1)), (2, 408));
    relay.run(2500);
    assert!(relay.read(1).is_empty());
    relay.run(2000);
    let told: Vec<u16> = relay.read(1).iter().filter_map(|r| r.status()).map(|s| s.0).collect();
    assert_eq!((told, relay.rig.engine.totals().relay_sessions), (vec![408, 408], 0));
    relay.check_sum();
}

#[test]
fn a_client_that_is_gone_takes_its_paths_with_it() {
    let mut relay = Relayed::new();
    let ours = relay.pair();
    // Half a chunk to it, and half a chunk from it.
    relay.raw(9, &format!(
        "MSRP half SEND\r\nTo-Path: {ours} {}\r\nFrom-Path: {BOB}\r\nMessage-ID: halfid\r\nContent-Type: a/b\r\n\r\nsome",
        alice(1)
    ));
    relay.raw(1, &format!(
        "MSRP mine SEND\r\nTo-Path: {ours} {BOB}\r\nFrom-Path: {}\r\nMessage-ID: mineid\r\nContent-Type: a/b\r\n\r\nsome",
        alice(1)
    ));
    let done = relay.rig.input(Input::Closed { conn: ConnId(1), why: CloseReason::Reset });
    relay.done.extend(done);
    relay.run(10);
    // The peer is told that nothing more comes, and its own chunk is answered by what is true.
    let told = relay.one(9);
    assert_eq!((told.body.as_slice(), told.flag), (b"some".as_slice(), Flag::Abort));
    relay.raw(9, "more\r\n-------half$\r\n");
    assert_eq!(relay.status(9), 408);
    assert_eq!(relay.rig.engine.totals().relay_sessions, 0);
    relay.check_sum();
}

#[test]
fn a_peer_that_is_gone_is_reported_and_may_come_back() {
    let mut relay = Relayed::new();
    let ours = relay.pair();
    relay.send(1, &format!("{ours} {BOB}"), &alice(1), "");
    assert_eq!(relay.status(1), 200);
    let done = relay.rig.input(Input::Closed { conn: ConnId(9), why: CloseReason::Reset });
    relay.done.extend(done);
    relay.run(10);
    let report = relay.one(1);
    assert_eq!((report.head.status(), report.head.message_id()), (Some(Status::TIMEOUT), "m1id"));
    // It may connect again, and is answered where it is now.
    relay.open(7);
    relay.send(7, &format!("{ours} {}", alice(1)), BOB, "");
    assert_eq!((relay.status(7), relay.read(1).len()), (200, 1));
    relay.send(1, &format!("{ours} {BOB}"), &alice(1), "");
    assert_eq!((relay.status(1), relay.read(7).len()), (200, 1));
    assert!(relay.dialled().is_none());
    relay.check_sum();
}

#[test]
fn a_full_receiver_stops_its_source_and_nobody_else() {
    let limits = Limits { queue_bytes_max: 4096, inflight_bytes_max: 4096, ..limits() };
    let mut relay = Relayed::with(RelayConfig::default(), limits);
    let ours = relay.pair();
    relay.rig.stalled.insert(9);
    relay.raw(1, &format!(
        "MSRP long SEND\r\nTo-Path: {ours} {BOB}\r\nFrom-Path: {}\r\nMessage-ID: longid\r\nContent-Type: a/b\r\n\r\n",
        alice(1)
    ));
    let piece = "x".repeat(1000);
    let paused = |relay: &Relayed| {
        relay.done.iter().any(|d| matches!(d, Done::Stream(Output::Pause { conn }) if conn.0 == 1))
    };
    let mut sent = 0;
    while !paused(&relay) {
        relay.raw(1, &piece);
        sent += 1;
        assert!(sent < 100, "it never stops");
    }
    assert!(relay.rig.engine.totals().queued_bytes < 8192);
    let other = relay.client(2);
    let third = relay.client(3);
    relay.send(2, &format!("{other} {third} {}", alice(3)), &alice(2), "");
    assert_eq!((relay.status(2), relay.read(3).len()), (200, 1));
    // It reads again: so does the relay.
    relay.rig.stalled.clear();
    let written = relay.rig.wire.get(&9).map_or(0, Vec::len);
    let done = relay.rig.input(Input::Sent { conn: ConnId(9), bytes: written });
    relay.done.extend(done);
    assert!(relay.done.iter().any(|d| matches!(d, Done::Stream(Output::Resume { conn }) if conn.0 == 1)));
    relay.raw(1, "\r\n-------long$\r\n");
    let all: usize = relay.read(9).iter().map(|r| r.body.len()).sum();
    assert_eq!((all, relay.status(1)), (sent * 1000, 200));
    relay.check_sum();
}

#[test]
fn who_reads_nothing_for_a_minute_is_cut_loose_and_his_sender_told() {
    let limits = Limits { queue_bytes_max: 4096, inflight_bytes_max: 4096, slow_ms: 60_000, ..limits() };
    let mut relay = Relayed::with(RelayConfig::default(), limits);
    let ours = relay.pair();
    relay.rig.stalled.insert(9);
    relay.raw(1, &format!(
        "MSRP long SEND\r\nTo-Path: {ours} {BOB}\r\nFrom-Path: {}\r\nMessage-ID: longid\r\nContent-Type: a/b\r\n\r\n{}",
        alice(1),
        "x".repeat(20_000)
    ));
    relay.run(59_000);
    assert!(!relay.shut(9));
    relay.run(3000);
    assert!(relay.shut(9));
    relay.raw(1, "\r\n-------long$\r\n");
    relay.run(20);
    assert_eq!(relay.status(1), 408);
    assert_eq!(relay.rig.engine.totals().queued_bytes, 0);
    relay.check_sum();
}

#[test]
fn awaited_answers_are_bounded_and_the_oldest_forgotten() {
    let config = RelayConfig { transactions_max: 4, ..RelayConfig::default() };
    let mut relay = Relayed::with(config, limits());
    let ours = relay.pair();
    for _ in 0..20 {
        relay.send(1, &format!("{ours} {BOB}"), &alice(1), "");
    }
    let sent = relay.read(9);
    assert_eq!((sent.len(), relay.read(1).len()), (20, 20));
    // Only the latest ones' failures can still be told.
    for read in &sent {
        relay.answer(9, read, Status::STOP);
    }
    let told = relay.read(1).len();
    assert!((1..=5).contains(&told), "{told}");
    assert_eq!(relay.rig.engine.dropped(Drop::MsrpUnasked), 20 - told as u64);
    relay.check_sum();
}

/// Requests through the relay may be cut anywhere (RFC 4975 §5.1: streams have no edges).
#[test]
fn what_comes_cut_at_every_octet_passes_the_same() {
    let mut relay = Relayed::new();
    let ours = relay.pair();
    let whole = format!(
        "MSRP cut1 SEND\r\nTo-Path: {ours} {BOB}\r\nFrom-Path: {}\r\nMessage-ID: cutid\r\nByte-Range: 1-22/22\r\n\
         Content-Type: a/b\r\n\r\nwith -------cut1 in it\r\n-------cut1$\r\n",
        alice(1)
    );
    for cut in 1..whole.len() {
        let (first, second) = whole.split_at(cut);
        relay.raw(1, first);
        relay.raw(1, second);
        assert_eq!(relay.status(1), 200, "{cut}");
        let sent = relay.one(9);
        assert_eq!(
            (sent.body.as_slice(), sent.flag),
            (b"with -------cut1 in it".as_slice(), Flag::Last),
            "{cut}"
        );
        relay.answer(9, &sent, Status::OK);
    }
    relay.check_sum();
}
