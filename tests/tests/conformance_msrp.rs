//! RFC 4975 from outside: the flows of its §11 between two peers by hand through the data plane, which is an endpoint
//! towards each (CPM-FACTS §3.6), and its codes where they belong. Clause by clause, over real sockets.

use std::time::Duration;

use contract::Mode;
use tests::dataplane::{Plane, msrp_leg, path, uri};
use tests::msrp_peer::{Frame, Peer};

/// Alice and Bob, connected, and where each of them sends to.
struct Pair {
    plane: Plane,
    alice: Peer,
    bob: Peer,
    ours: Vec<String>,
}

fn plane_with_two(more: &str) -> (Plane, Vec<String>) {
    let mut plane = Plane::start(more);
    let legs = vec![msrp_leg(1, |_| {}), msrp_leg(2, |m| m.max_size = 1 << 20)];
    let paths = vec![path(1, Mode::Relay, &[1], &[2], None), path(2, Mode::Relay, &[2], &[1], None)];
    let ours = plane.set(legs, paths);
    (plane, ours)
}

impl Pair {
    fn up() -> Pair {
        let (plane, ours) = plane_with_two("");
        let (alice, bob) = (plane.join(1, &ours[0]), plane.join(2, &ours[1]));
        Pair { plane, alice, bob, ours }
    }

    /// A SEND of Alice's; its transaction.
    fn send(&mut self, id: &str, lines: &str, body: &str) -> String {
        self.alice.send(&self.ours[0], id, lines, body)
    }
}

/// §11.1 F4 to F7: a message each way, each answered hop by hop; paths name one hop, the transaction is each hop's own.
#[test]
fn s11_1_a_basic_session() {
    let mut pair = Pair::up();
    let tid = pair.send("12339sdqwer", "", "Hi, I'm Alice!");
    let sent = pair.bob.frame();
    assert_eq!((sent.word(), sent.body.as_slice(), sent.flag), ("SEND", b"Hi, I'm Alice!".as_slice(), '$'));
    assert_eq!((sent.line("To-Path"), sent.line("From-Path")), (uri(2).as_str(), pair.ours[1].as_str()));
    assert_eq!((sent.line("Message-ID"), sent.line("Byte-Range")), ("12339sdqwer", "1-14/14"));
    assert_ne!(sent.tid(), tid);
    pair.bob.answer(&sent, "200 OK");
    let answer = pair.alice.frame();
    assert_eq!((answer.tid(), answer.word(), answer.flag), (tid.as_str(), "200", '$'));
    // §7.2: a response goes to the previous hop alone, and holds nothing but the paths.
    assert_eq!((answer.line("To-Path"), answer.line("From-Path")), (uri(1).as_str(), pair.ours[0].as_str()));
    assert_eq!(answer.head.lines().count(), 3);
    let back = pair.ours[1].clone();
    let tid = pair.bob.send(&back, "456so39s", "", "Hi, Alice! I'm Bob!");
    assert_eq!(pair.alice.frame().body, b"Hi, Alice! I'm Bob!");
    assert_eq!(pair.bob.status(&tid), "200");
}

/// §11.2: the type and the octets are the sender's, whatever they look like.
#[test]
fn s11_2_xhtml_content_with_report_headers_and_unknown_lines() {
    let mut pair = Pair::up();
    let body = "<html><body>\r\n-------tid0002$\r\n\r\nMSRP tid0002 SEND\r\n</body></html>";
    let (size, to) = (body.len(), pair.ours[0].clone());
    let rest = format!(
        "Message-ID: 87652491\r\nByte-Range: 1-{size}/{size}\r\nFailure-Report: partial\r\nX-Later: kept\r\n\
         Content-Disposition: render\r\nContent-Type: application/xhtml+xml\r\n\r\n{body}\r\n"
    );
    pair.alice.raw(
        format!("MSRP xh7ml1 SEND\r\nTo-Path: {to}\r\nFrom-Path: {}\r\n{rest}-------xh7ml1$\r\n", uri(1))
            .as_bytes(),
    );
    let sent = pair.bob.frame();
    assert_eq!(String::from_utf8_lossy(&sent.body), body);
    assert_eq!(
        (sent.line("Content-Type"), sent.line("Failure-Report")),
        ("application/xhtml+xml", "partial")
    );
    // §9: what a hop does not know it passes on; §7.1: Content-Type is the last line.
    assert_eq!((sent.line("X-Later"), sent.line("Content-Disposition")), ("kept", "render"));
    assert!(sent.head.trim_end().lines().last().unwrap().starts_with("Content-Type: "));
    // §7.1.1: with `partial` success is silent, an error is not.
    assert!(pair.alice.is_silent(Duration::from_millis(200)));
    pair.bob.answer(&sent, "415 Unsupported");
    let report = pair.alice.frame();
    assert_eq!((report.word(), report.line("Status").get(..7)), ("REPORT", Some("000 415")));
}

/// §11.3, §11.4: chunks with `+`, the last one with `$`; each is a transaction, the Message-ID holds them together.
#[test]
fn s11_3_a_chunked_message_and_s11_4_of_cpim() {
    let mut pair = Pair::up();
    for (id, kind, first, second) in [
        ("s113chunk", "text/plain", "abcdEFGH", "ijklMNOP"),
        (
            "s114cpim",
            "message/cpim",
            "To: Bob <sip:bob@example.com>\r\nFrom: Ali",
            "ce <sip:a@example.com>\r\n\r\nContent-Type: text/plain\r\n\r\nABCD",
        ),
    ] {
        let to = pair.ours[0].clone();
        let total = first.len() + second.len();
        let chunk = |tid: &str, start: usize, end: usize, body: &str, flag: char| {
            format!(
                "MSRP {tid} SEND\r\nTo-Path: {to}\r\nFrom-Path: {}\r\nMessage-ID: {id}\r\nByte-Range: {start}-{end}/{total}\r\n\
                 Content-Type: {kind}\r\n\r\n{body}\r\n-------{tid}{flag}\r\n",
                uri(1)
            )
        };
        pair.alice.raw(chunk("dkei38sd", 1, first.len(), first, '+').as_bytes());
        // Each chunk has gone before the next one is written: nothing waits for the whole.
        let one = pair.bob.frame();
        assert_eq!((one.flag, one.body.as_slice(), one.line("Message-ID")), ('+', first.as_bytes(), id));
        assert_eq!(one.line("Byte-Range"), format!("1-{}/{total}", first.len()));
        assert_eq!(pair.alice.frame().tid(), "dkei38sd");
        pair.alice.raw(chunk("dkei38ia", first.len() + 1, total, second, '$').as_bytes());
        let two = pair.bob.frame();
        assert_eq!((two.flag, two.body.as_slice(), two.line("Message-ID")), ('$', second.as_bytes(), id));
        assert_eq!(two.line("Byte-Range"), format!("{}-{total}/{total}", first.len() + 1));
        assert_ne!(one.tid(), two.tid());
        assert_eq!(pair.alice.frame().tid(), "dkei38ia");
        pair.bob.answer(&one, "200 OK");
        pair.bob.answer(&two, "200 OK");
    }
}

/// §11.5: a system message asks for nothing and is answered by nothing, not even an error (§7.1.1).
#[test]
fn s11_5_a_system_message_is_answered_by_nothing() {
    let mut pair = Pair::up();
    pair.send(
        "s115system",
        "Failure-Report: no\r\nSuccess-Report: no\r\n",
        "This conference will end in 5 minutes",
    );
    let sent = pair.bob.frame();
    assert_eq!(sent.line("Failure-Report"), "no");
    let wrong = pair.ours[0].replace(";tcp", "x;tcp");
    pair.alice.send(&wrong, "s115lost", "Failure-Report: no\r\n", "to nobody");
    assert!(pair.alice.is_silent(Duration::from_millis(200)));
}

/// §11.6, §7.1.3: the REPORT of whoever has it whole; along the whole path, without a body, never answered.
#[test]
fn s11_6_a_positive_report() {
    let mut pair = Pair::up();
    let tid = pair.send(
        "s116reported",
        "Success-Report: yes\r\nFailure-Report: no\r\n",
        "This is an email-like message",
    );
    let sent = pair.bob.frame();
    assert_eq!(sent.line("Success-Report"), "yes");
    let back = sent.line("From-Path").to_owned();
    assert!(pair.alice.is_silent(Duration::from_millis(200)), "{tid} is not answered, and nobody has it yet");
    pair.bob.request(
        "REPORT",
        &back,
        "Message-ID: s116reported\r\nByte-Range: 1-29/29\r\nStatus: 000 200 OK\r\n",
    );
    let report = pair.alice.frame();
    assert_eq!((report.word(), report.line("Message-ID")), ("REPORT", "s116reported"));
    assert_eq!((report.line("Byte-Range"), report.line("Status")), ("1-29/29", "000 200 OK"));
    assert_eq!((report.line("To-Path"), report.value("Failure-Report")), (uri(1).as_str(), None));
    assert!(pair.bob.is_silent(Duration::from_millis(200)), "a REPORT is not answered");
    // The same again says nothing new.
    pair.bob.request(
        "REPORT",
        &back,
        "Message-ID: s116reported\r\nByte-Range: 1-29/29\r\nStatus: 000 200 OK\r\n",
    );
    assert!(pair.alice.is_silent(Duration::from_millis(200)));
}

/// §11.7: what is sent while the call is forked goes to each device, and one success is enough.
#[test]
fn s11_7_two_devices_have_the_same_message() {
    let mut plane = Plane::start("");
    let ours = plane.set(
        vec![msrp_leg(1, |_| {}), msrp_leg(2, |_| {}), msrp_leg(3, |_| {})],
        vec![path(1, Mode::Distribute, &[1], &[2, 3], None)],
    );
    let (mut alice, mut phone, mut tablet) =
        (plane.join(1, &ours[0]), plane.join(2, &ours[1]), plane.join(3, &ours[2]));
    let tid = alice.send(&ours[0], "s117forked", "Success-Report: yes\r\n", "hello, whichever");
    assert_eq!(alice.status(&tid), "200");
    for device in [&mut phone, &mut tablet] {
        let sent = device.frame();
        assert_eq!(sent.body, b"hello, whichever");
        device.answer(&sent, "200 OK");
        let back = sent.line("From-Path").to_owned();
        device.request(
            "REPORT",
            &back,
            "Message-ID: s117forked\r\nByte-Range: 1-16/16\r\nStatus: 000 200 OK\r\n",
        );
    }
    assert_eq!(alice.frame().word(), "REPORT");
    assert!(alice.is_silent(Duration::from_millis(200)), "one report for one message");
}

/// §7.1: `#` of the sender is `#` at the receiver, and what arrived is to be discarded.
#[test]
fn s7_1_an_aborted_message_is_aborted() {
    let mut pair = Pair::up();
    let to = pair.ours[0].clone();
    pair.alice.raw(
        format!(
            "MSRP ab0rt1 SEND\r\nTo-Path: {to}\r\nFrom-Path: {}\r\nMessage-ID: aborted1\r\nByte-Range: 1-*/100\r\n\
             Content-Type: text/plain\r\n\r\nhalf of\r\n-------ab0rt1#\r\n",
            uri(1)
        )
        .as_bytes(),
    );
    assert_eq!(pair.bob.frame().flag, '#');
    assert_eq!(pair.alice.status("ab0rt1"), "200");
}

/// §7.1.1: a chunk of more than 2048 octets is announced as one that may be interrupted.
#[test]
fn s7_1_1_long_chunks_are_interruptible() {
    let mut pair = Pair::up();
    for (size, range) in [(2048, "1-2048/2048"), (5000, "1-*/5000")] {
        let tid = pair.send(&format!("long{size}"), "", &"x".repeat(size));
        let sent = pair.bob.frame();
        assert_eq!((sent.body.len(), sent.line("Byte-Range")), (size, range));
        pair.bob.answer(&sent, "200 OK");
        assert_eq!(pair.alice.status(&tid), "200");
    }
}

/// §7.3.1: octets come in any order, again, and overlapping; each goes on with its own place.
#[test]
fn s7_3_1_ranges_out_of_order_keep_their_places() {
    let mut pair = Pair::up();
    let to = pair.ours[0].clone();
    let mut told = Vec::new();
    for (tid, start, body, flag) in
        [("ord1er", 5, "efgh", '$'), ("ord2er", 1, "abc", '+'), ("ord3er", 3, "cd", '+')]
    {
        let end = start + body.len() - 1;
        pair.alice.raw(
            format!(
                "MSRP {tid} SEND\r\nTo-Path: {to}\r\nFrom-Path: {}\r\nMessage-ID: unordered\r\nByte-Range: {start}-{end}/8\r\n\
                 Content-Type: text/plain\r\n\r\n{body}\r\n-------{tid}{flag}\r\n",
                uri(1)
            )
            .as_bytes(),
        );
        assert_eq!(pair.alice.status(tid), "200");
        let sent = pair.bob.frame();
        told.push((sent.line("Byte-Range").to_owned(), String::from_utf8(sent.body.clone()).unwrap()));
        pair.bob.answer(&sent, "200 OK");
    }
    let places: Vec<(&str, &str)> = told.iter().map(|(r, b)| (r.as_str(), b.as_str())).collect();
    assert_eq!(places, [("5-8/8", "efgh"), ("1-3/8", "abc"), ("3-4/8", "cd")]);
}

/// §10, each code where it belongs.
#[test]
fn s10_codes() {
    let mut pair = Pair::up();
    let ours = pair.ours[0].clone();
    // 481: no such session (§10.9).
    let tid = pair.alice.send(&ours.replace(";tcp", "x;tcp"), "c481code", "", "x");
    assert_eq!(pair.alice.status(&tid), "481");
    // 506: a session that is bound to another connection (§10.11).
    let mut second = Peer::connect(pair.plane.msrp().0);
    second.own = uri(1);
    let tid = second.send(&ours, "c506code", "", "x");
    assert_eq!(second.status(&tid), "506");
    // 501: a method that nobody knows (§10.10).
    let tid = pair.alice.request("PING", &ours, "");
    assert_eq!(pair.alice.status(&tid), "501");
    // 413: more than the far end takes (§10.6), told by the head already.
    let tid = pair.alice.request(
        "SEND",
        &ours,
        "Message-ID: c413code\r\nByte-Range: 1-1/1048577\r\nContent-Type: text/plain\r\n\r\nx\r\n",
    );
    assert_eq!(pair.alice.status(&tid), "413");
    // 400: what cannot be understood (§10.2), and the connection lives on.
    for lines in [
        "Message-ID: c400code\r\nByte-Range: 0-4/4\r\n",
        "Message-ID: c400code\r\nByte-Range: 5-3/9\r\n",
        "Message-ID: c400code\r\nSuccess-Report: maybe\r\n",
        "Message-ID: c400code\r\nMessage-ID: c400again\r\n",
        "Byte-Range: 1-0/0\r\n",
        "Message-ID: c400code\r\nno colon here\r\n",
        "Message-ID: c400code\r\nByte-Range: 1-1/1\r\n\r\nx\r\n",
    ] {
        let tid = pair.alice.request("SEND", &ours, lines);
        assert_eq!(pair.alice.status(&tid), "400", "{lines}");
    }
    let tid = pair.send("c200code", "", "still here");
    assert_eq!(
        (pair.alice.status(&tid).as_str(), pair.bob.frame().body.as_slice()),
        ("200", b"still here".as_slice())
    );
}

/// §7.1.4, §10.5: what the far end never answers is a 408 to the sender; here its connection is lost before it could.
#[test]
fn s10_5_a_lost_far_end_is_reported_as_408() {
    let mut pair = Pair::up();
    let tid = pair.send("lost0001", "", "to whom");
    assert_eq!(pair.alice.status(&tid), "200");
    assert_eq!(pair.bob.frame().word(), "SEND");
    drop(pair.bob);
    let report = pair.alice.frame_of("REPORT");
    assert_eq!((report.line("Message-ID"), report.line("Status").get(..7)), ("lost0001", Some("000 408")));
    assert_eq!(report.line("Byte-Range"), "1-7/7");
}

/// §5.4: several sessions on one connection, both ways; §6.1: a session is told by its id, in its case.
#[test]
fn s5_4_sessions_share_a_connection() {
    let mut plane = Plane::start("");
    let legs = (1..=4).map(|n| msrp_leg(n, |_| {})).collect();
    let paths = vec![
        path(1, Mode::Relay, &[1], &[2], None),
        path(2, Mode::Relay, &[2], &[1], None),
        path(3, Mode::Relay, &[3], &[4], None),
        path(4, Mode::Relay, &[4], &[3], None),
    ];
    let ours = plane.set(legs, paths);
    // Sessions 1 and 3 on one connection, 2 and 4 on another.
    let (mut left, mut right) = (plane.join(1, &ours[0]), plane.join(2, &ours[1]));
    for (peer, n) in [(&mut left, 3), (&mut right, 4)] {
        peer.own = uri(n);
        let tid = peer.request("SEND", &ours[n as usize - 1], "Message-ID: also\r\nByte-Range: 1-0/0\r\n");
        assert_eq!(peer.status(&tid), "200");
    }
    let mut said = Vec::new();
    for (from, n) in [(1, 0), (3, 2), (1, 0)] {
        left.own = uri(from);
        left.send(&ours[n], &format!("shared{from}{}", said.len()), "", &format!("from {from}"));
        let sent: Frame = right.frame_of("SEND");
        said.push((sent.line("To-Path").to_owned(), String::from_utf8(sent.body.clone()).unwrap()));
        right.answer(&sent, "200 OK");
    }
    assert_eq!(said, [(uri(2), "from 1".to_owned()), (uri(4), "from 3".into()), (uri(2), "from 1".into())]);
}
