//! The relay in the words of RFC 4976: AUTH, Use-Path, forwarding, answers and reports, chains.

use contract::AuthVerdict;
use msrp::{Flag, Method, Status};

use super::relay_rig::*;
use super::rig::*;
use crate::{Drop, Input, Limits, Output, RelayConfig};

#[test]
fn s5_1_auth_is_challenged_then_granted_a_path() {
    let mut relay = Relayed::new();
    relay.open(1);
    relay.request(1, "AUTH", RELAY, &alice(1), "");
    let (id, asked) = relay.asked().pop().unwrap();
    assert_eq!((asked.authorization.as_str(), asked.uri.as_str()), ("", RELAY));
    let challenge = "Digest realm=\"example.com\", nonce=\"n\", qop=\"auth\", opaque=\"o\"";
    let challenges = vec![challenge.replace("Digest", "Digest algorithm=SHA-256,"), challenge.to_owned()];
    relay.decide(id, 401, AuthVerdict { challenges: challenges.clone(), ..AuthVerdict::default() });
    let refused = relay.one(1);
    assert_eq!(refused.status(), Some(Status::UNAUTHORIZED));
    let lines: Vec<_> = refused.head.headers().filter(|(name, _)| *name == b"WWW-Authenticate").collect();
    assert_eq!(
        lines.iter().map(|(_, v)| *v).collect::<Vec<_>>(),
        challenges.iter().map(|c| c.as_bytes()).collect::<Vec<_>>()
    );
    let tid = relay.request(1, "AUTH", RELAY, &alice(1), "Authorization: Digest username=\"alice\"\r\n");
    let (id, asked) = relay.asked().pop().unwrap();
    assert_eq!(asked.authorization, "Digest username=\"alice\"");
    relay.decide(id, 200, AuthVerdict { info: "rspauth=\"r\"".into(), account: 5, ..AuthVerdict::default() });
    let granted = relay.one(1);
    assert_eq!((granted.status(), granted.head.tid().as_str()), (Some(Status::OK), tid.as_str()));
    assert_eq!(paths(&granted), (alice(1).as_str(), RELAY));
    assert_eq!(
        (text(&granted, "Expires"), text(&granted, "Authentication-Info")),
        ("1800".into(), "rspauth=\"r\"".into())
    );
    let path = text(&granted, "Use-Path");
    let session = path.strip_prefix("msrps://192.0.2.1:2856/001").unwrap().strip_suffix(";tcp").unwrap();
    // Five bits a character: more than the 64 that are demanded.
    assert!(session.len() * 5 >= 128, "{session}");
    relay.check_sum();
}

#[test]
fn s5_1_no_password_travels_in_the_clear_unless_it_is_allowed() {
    for (plain, status) in [(false, 403), (true, 401)] {
        let config = RelayConfig { plain, ..RelayConfig::default() };
        let mut relay = Relayed::with(config, Limits { sockets_max: 1, ..Limits::default() });
        relay.open_as(1, None, false);
        relay.request(1, "AUTH", "msrp://relay.example.com:2855;tcp", &alice(1), "");
        for (id, _) in relay.asked() {
            relay.decide(id, 401, AuthVerdict::default());
        }
        assert_eq!(relay.status(1), status);
        assert_eq!(relay.rig.engine.dropped(Drop::MsrpRelayRefused), u64::from(!plain));
        relay.check_sum();
    }
}

#[test]
fn without_a_relay_auth_is_not_known() {
    let mut rig = Relayed::new();
    rig.rig = Rig::new();
    rig.open(1);
    rig.request(1, "AUTH", RELAY, &alice(1), "");
    assert_eq!(rig.status(1), 481);
    assert!(rig.asked().is_empty());
}

#[test]
fn s5_1_expires_out_of_bounds_is_told_what_would_do() {
    let mut relay = Relayed::new();
    relay.open(1);
    for (asked, status, line) in [
        ("59", 423, ("Min-Expires", "60")),
        ("3601", 423, ("Max-Expires", "3600")),
        ("99999999999999999999", 400, ("", "")),
        ("-1", 400, ("", "")),
    ] {
        relay.request(1, "AUTH", RELAY, &alice(1), &format!("Expires: {asked}\r\n"));
        let answer = relay.one(1);
        assert_eq!(answer.status(), Some(Status(status)), "{asked}");
        if !line.0.is_empty() {
            assert_eq!(text(&answer, line.0), line.1);
        }
    }
    let granted = relay.auth(1, &alice(1), 1, "Expires: 90\r\n");
    assert_eq!(text(&granted, "Expires"), "90");
    relay.check_sum();
}

#[test]
fn a_path_ends_with_its_time_and_auth_again_keeps_it() {
    let mut relay = Relayed::new();
    relay.open(1);
    let first = text(&relay.auth(1, &alice(1), 1, "Expires: 60\r\n"), "Use-Path");
    relay.run(50_000);
    assert_eq!(text(&relay.auth(1, &alice(1), 1, "Expires: 60\r\n"), "Use-Path"), first);
    // Another From-Path is another session.
    assert_ne!(text(&relay.auth(1, &alice(2), 1, "Expires: 90\r\n"), "Use-Path"), first);
    relay.run(50_000);
    assert_eq!(relay.rig.engine.totals().relay_sessions, 2);
    relay.open(9);
    relay.send(9, &format!("{first} {}", alice(1)), BOB, "");
    assert_eq!((relay.status(9), relay.read(1).len()), (200, 1));
    relay.run(12_000);
    relay.send(9, &format!("{first} {}", alice(1)), BOB, "");
    assert_eq!((relay.status(9), relay.read(1).len()), (481, 0));
    assert_eq!(relay.rig.engine.totals().relay_sessions, 1);
    // With the last session the connection goes too: nobody holds it for nothing.
    relay.run(40_000);
    assert!(relay.shut(1));
    relay.check_sum();
}

#[test]
fn s6_4_1_a_send_is_passed_on_and_answered_hop_by_hop() {
    let mut relay = Relayed::new();
    let ours = relay.client(1);
    let tid = relay.send(1, &format!("{ours} {BOB}"), &alice(1), "Success-Report: yes\r\n");
    // Nothing is answered before it can go on.
    assert!(relay.read(1).is_empty());
    relay.up(9);
    let answer = relay.one(1);
    assert_eq!((answer.status(), answer.head.tid().as_str()), (Some(Status::OK), tid.as_str()));
    assert_eq!(paths(&answer), (alice(1).as_str(), ours.as_str()));
    let sent = relay.one(9);
    assert_eq!(paths(&sent), (BOB, format!("{ours} {}", alice(1)).as_str()));
    assert_ne!(sent.head.tid().as_str(), tid);
    assert_eq!((sent.body.as_slice(), sent.flag), (b"hello".as_slice(), Flag::Last));
    assert_eq!((sent.head.message_id(), text(&sent, "Byte-Range").as_str()), ("m1id", "1-5/5"));
    assert_eq!((sent.head.success_report(), text(&sent, "X-Kept").as_str()), (true, "yes"));
    relay.answer(9, &sent, Status::OK);
    assert!(relay.read(1).is_empty(), "an answer is for one hop");
    // The far end's own report goes along the path, and is not answered.
    let lines = "Message-ID: m1id\r\nByte-Range: 1-5/5\r\nStatus: 000 200 OK\r\n";
    relay.request(9, "REPORT", &format!("{ours} {}", alice(1)), BOB, lines);
    let report = relay.one(1);
    assert!(is(&report, Method::Report) && report.head.status() == Some(Status::OK));
    assert_eq!(paths(&report), (alice(1).as_str(), format!("{ours} {BOB}").as_str()));
    assert!(relay.read(9).is_empty());
    relay.check_sum();
}

#[test]
fn a_message_passes_while_it_comes() {
    let mut relay = Relayed::new();
    let ours = relay.pair();
    relay.raw(1, &format!(
        "MSRP long SEND\r\nTo-Path: {ours} {BOB}\r\nFrom-Path: {}\r\nMessage-ID: longid\r\nByte-Range: 1-*/*\r\nContent-Type: a/b\r\n\r\nfirst ",
        alice(1)
    ));
    let wire = String::from_utf8(relay.rig.wire.get(&9).cloned().unwrap()).unwrap();
    assert!(wire.ends_with("\r\n\r\nfirst "), "{wire}");
    // A request of another goes between: the chunk is interrupted, and goes on by its octets.
    let lines = "Message-ID: m1id\r\nByte-Range: 1-5/5\r\nStatus: 000 200 OK\r\n";
    let second = relay.client(2);
    relay.send(2, &format!("{second} {BOB}"), &alice(2), "");
    relay.raw(1, "second\r\n-------long$\r\n");
    let sent = relay.read(9);
    let bodies: Vec<(&[u8], Flag)> = sent.iter().map(|r| (r.body.as_slice(), r.flag)).collect();
    assert_eq!(bodies, [(b"first ".as_slice(), Flag::More), (b"hello", Flag::Last), (b"second", Flag::Last)]);
    assert_eq!(
        (text(&sent[0], "Byte-Range"), text(&sent[2], "Byte-Range")),
        ("1-*/*".into(), "7-*/*".into())
    );
    assert_eq!(relay.status(1), 200);
    relay.request(9, "REPORT", &format!("{ours} {}", alice(1)), BOB, lines);
    assert!(is(&relay.one(1), Method::Report));
    relay.check_sum();
}

#[test]
fn s6_4_3_what_the_next_hop_says_becomes_a_report() {
    for (lines, status, answered, reported) in [
        ("", Status::STOP, vec![200], true),
        ("Failure-Report: partial\r\n", Status::STOP, vec![], true),
        ("", Status::OK, vec![200], false),
        ("Failure-Report: partial\r\n", Status::NO_SESSION, vec![], true),
    ] {
        let mut relay = Relayed::new();
        let ours = relay.pair();
        relay.send(1, &format!("{ours} {BOB}"), &alice(1), lines);
        let sent = relay.one(9);
        assert_eq!(sent.head.failure_report().as_str(), if lines.is_empty() { "yes" } else { "partial" });
        let first: Vec<u16> = relay.read(1).iter().filter_map(|r| r.status()).map(|s| s.0).collect();
        assert_eq!(first, answered, "{lines}");
        relay.answer(9, &sent, status);
        let report = relay.read(1);
        assert_eq!(report.len(), usize::from(reported), "{lines} {status}");
        for report in report {
            assert!(is(&report, Method::Report) && report.head.status() == Some(status));
            assert_eq!((report.head.message_id(), text(&report, "Byte-Range").as_str()), ("m1id", "1-5/5"));
            assert_eq!(paths(&report), (alice(1).as_str(), ours.as_str()));
        }
        relay.check_sum();
    }
}

#[test]
fn s6_4_1_silence_of_the_next_hop_is_reported_as_408() {
    for (lines, reported) in
        [("", true), ("Failure-Report: partial\r\n", false), ("Failure-Report: no\r\n", false)]
    {
        let mut relay = Relayed::new();
        let ours = relay.pair();
        relay.send(1, &format!("{ours} {BOB}"), &alice(1), lines);
        let _ = (relay.read(1), relay.read(9));
        relay.run(29_900);
        assert!(relay.read(1).is_empty());
        relay.run(200);
        let report = relay.read(1);
        assert_eq!(report.len(), usize::from(reported), "{lines}");
        assert!(report.iter().all(|r| r.head.status() == Some(Status::TIMEOUT)));
        relay.check_sum();
    }
}

#[test]
fn an_error_before_the_end_stops_the_chunk() {
    let mut relay = Relayed::new();
    let ours = relay.pair();
    relay.raw(1, &format!(
        "MSRP long SEND\r\nTo-Path: {ours} {BOB}\r\nFrom-Path: {}\r\nMessage-ID: longid\r\nContent-Type: a/b\r\n\r\nmuch",
        alice(1)
    ));
    let (_, head) = (0, String::from_utf8(relay.rig.wire.get(&9).cloned().unwrap()).unwrap());
    let tid = head.split(' ').nth(1).unwrap().to_owned();
    relay.raw(9, &format!("MSRP {tid} 413 Stop\r\nTo-Path: {ours}\r\nFrom-Path: {BOB}\r\n-------{tid}$\r\n"));
    assert_eq!(relay.one(9).flag, Flag::Abort);
    relay.raw(1, " more\r\n-------long$\r\n");
    assert_eq!((relay.status(1), relay.read(9).len()), (413, 0));
    relay.check_sum();
}

#[test]
fn other_requests_pass_whole_and_their_answers_come_back() {
    let mut relay = Relayed::new();
    let ours = relay.pair();
    let tid = relay.request(1, "NICKNAME", &format!("{ours} {BOB}"), &alice(1), "Use-Nickname: \"Al\"\r\n");
    let asked = relay.one(9);
    assert_eq!(asked.head.use_nickname().as_deref(), Some("Al"));
    assert_ne!(asked.head.tid().as_str(), tid);
    relay.answer(9, &asked, Status::NICKNAME_IN_USE);
    let answer = relay.one(1);
    assert_eq!((answer.status(), answer.head.tid().as_str()), (Some(Status::NICKNAME_IN_USE), tid.as_str()));
    assert_eq!(paths(&answer), (alice(1).as_str(), format!("{ours} {BOB}").as_str()));
    // A method that nobody knows, with a body: its end may know it.
    relay.request(
        1,
        "PING",
        &format!("{ours} {BOB}"),
        &alice(1),
        "X-One: 1\r\nContent-Type: a/b\r\n\r\nbody\r\n",
    );
    let ping = relay.one(9);
    assert_eq!(
        (ping.head.method_name(), ping.body.as_slice(), text(&ping, "X-One").as_str()),
        ("PING", b"body".as_slice(), "1")
    );
    relay.answer(9, &ping, Status::UNKNOWN_METHOD);
    assert_eq!(relay.status(1), 501);
    // The same answer again answers nothing.
    relay.answer(9, &ping, Status::UNKNOWN_METHOD);
    assert!(relay.read(1).is_empty());
    assert_eq!(relay.rig.engine.dropped(Drop::MsrpUnasked), 1);
    relay.check_sum();
}

#[test]
fn s5_1_auth_goes_through_to_the_next_relay_of_a_chain() {
    let mut relay = Relayed::new();
    let ours = relay.client(1);
    let outer = "msrps://198.51.100.9:7000;tcp";
    let tid = relay.request(
        1,
        "AUTH",
        &format!("{ours} {outer}"),
        &alice(1),
        "Expires: 600\r\nAuthorization: Digest x\r\n",
    );
    relay.up(9);
    let asked = relay.one(9);
    assert!(is(&asked, Method::Auth));
    assert_eq!(paths(&asked), (outer, format!("{ours} {}", alice(1)).as_str()));
    assert_eq!((text(&asked, "Authorization"), text(&asked, "Expires")), ("Digest x".into(), "600".into()));
    let theirs = "msrps://198.51.100.9:7000/theirs8session;tcp";
    let theirs_tid = asked.head.tid().as_str().to_owned();
    relay.raw(9, &format!(
        "MSRP {theirs_tid} 200 OK\r\nTo-Path: {ours} {}\r\nFrom-Path: {outer}\r\nUse-Path: {theirs}\r\nExpires: 600\r\n-------{theirs_tid}$\r\n",
        alice(1)
    ));
    let granted = relay.one(1);
    assert_eq!((granted.status(), granted.head.tid().as_str()), (Some(Status::OK), tid.as_str()));
    assert_eq!(text(&granted, "Use-Path"), theirs);
    // Some answer to the last hop only: it comes back all the same.
    relay.request(1, "AUTH", &format!("{ours} {outer}"), &alice(1), "Authorization: Digest y\r\n");
    let asked = relay.one(9);
    let short = asked.head.tid().as_str().to_owned();
    relay.raw(
        9,
        &format!(
            "MSRP {short} 401 Unauthorized\r\nTo-Path: {ours}\r\nFrom-Path: {outer}\r\n-------{short}$\r\n"
        ),
    );
    let refused = relay.one(1);
    assert_eq!(
        (refused.status(), refused.head.to_path().as_str()),
        (Some(Status::UNAUTHORIZED), alice(1).as_str())
    );
    // SENDs then go through both: the outer one is this session's peer.
    relay.send(1, &format!("{ours} {theirs} {BOB}"), &alice(1), "");
    let sent = relay.one(9);
    assert_eq!(paths(&sent), (format!("{theirs} {BOB}").as_str(), format!("{ours} {}", alice(1)).as_str()));
    assert_eq!(relay.status(1), 200);
    // And what comes back names both.
    relay.send(9, &format!("{ours} {}", alice(1)), &format!("{theirs} {BOB}"), "");
    let back = relay.one(1);
    assert_eq!(paths(&back), (alice(1).as_str(), format!("{ours} {theirs} {BOB}").as_str()));
    assert_eq!(relay.status(9), 200);
    // The next relay may come by a connection of its own, unlike an endpoint; what it does not know it cannot say.
    relay.open(8);
    relay.send(8, &format!("{ours} {}", alice(1)), &format!("{theirs} {BOB}"), "");
    assert_eq!((relay.status(8), relay.read(1).len()), (200, 1));
    relay.send(8, &format!("{ours} {}", alice(1)), BOB, "");
    assert_eq!((relay.status(8), relay.read(1).len()), (403, 0));
    relay.send(1, &format!("{ours} {theirs} {BOB}"), &alice(1), "");
    assert_eq!((relay.status(1), relay.read(9).len()), (200, 1));
    relay.check_sum();
}

#[test]
fn two_clients_of_one_relay_reach_each_other() {
    let mut relay = Relayed::new();
    let (one, two) = (relay.client(1), relay.client(2));
    relay.send(1, &format!("{one} {two} {}", alice(2)), &alice(1), "");
    let sent = relay.one(2);
    assert_eq!(paths(&sent), (alice(2).as_str(), format!("{two} {one} {}", alice(1)).as_str()));
    relay.send(2, &format!("{two} {one} {}", alice(1)), &alice(2), "");
    let both = relay.read(1);
    assert_eq!((both.len(), both[0].status()), (2, Some(Status::OK)));
    assert_eq!(paths(&both[1]), (alice(1).as_str(), format!("{one} {two} {}", alice(2)).as_str()));
    assert!(relay.dialled().is_none());
    relay.check_sum();
}

#[test]
fn a_name_is_looked_up_and_dialled_where_it_may_be() {
    for (found, dialled) in [("198.51.100.7:7000", true), ("127.0.0.1:7000", false)] {
        let mut relay = Relayed::new();
        let ours = relay.client(1);
        relay.send(1, &format!("{ours} msrps://relay.example.org:7000/far8session;tcp"), &alice(1), "");
        let at = relay.done.iter().find_map(|d| match d {
            Done::Stream(Output::LookUp { dial, host, port }) => Some((*dial, host.clone(), *port)),
            _ => None,
        });
        let (dial, host, port) = at.expect("it is looked up");
        assert_eq!((host.as_str(), port), ("relay.example.org", 7000));
        let done = relay.rig.input(Input::LookedUp { dial, found: &[addr("127.0.0.1:7000"), addr(found)] });
        relay.done.extend(done);
        assert_eq!(relay.dialled().is_some(), dialled);
        let answers = relay.read(1);
        assert_eq!(
            answers.iter().filter_map(|r| r.status()).collect::<Vec<_>>(),
            if dialled { vec![] } else { vec![Status::TIMEOUT] }
        );
    }
}
