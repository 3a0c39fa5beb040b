//! Two endpoints and a wire between them; and one endpoint with a peer that is made of bytes.

use super::*;
use crate::session::{Command, Key, Outgoing, Received, Role, SessionLimits};
use crate::testing::{edited, edits};
use crate::{Broken, FailureReport, Limits, MsrpUri, Path, ReassemblyLimits, Status};
use bytes::BytesMut;
use proptest::prelude::*;

const CONN: ConnKey = ConnKey(1);
const SESSION: SessionKey = SessionKey(7);

fn ms(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn uri(host: &str, session: &str) -> MsrpUri {
    MsrpUri::build(false, host, 7777, session).unwrap()
}

fn config(role: Role, change: impl Fn(&mut Config)) -> Config {
    let (own, peer) = match role {
        Role::Active => ("alice.example.com", "bob.example.com"),
        Role::Passive => ("bob.example.com", "alice.example.com"),
    };
    let id = |host: &str| if host.starts_with('a') { "iau39soe2843z" } else { "9di4eae923wzd" };
    let mut config = Config::new(uri(own, id(own)), Path::of(&uri(peer, id(peer))), role);
    change(&mut config);
    config
}

/// One endpoint with its outbox and what it told.
struct Side {
    endpoint: Endpoint,
    out: Outbox<Output>,
    news: Vec<SessionOutput>,
    closed: Vec<CloseReason>,
    refused: Vec<Refusal>,
}

impl Side {
    fn new(seed: u64) -> Self {
        Side {
            endpoint: Endpoint::new(EndpointLimits::default(), Entropy::from_number(seed)),
            out: Outbox::with_max(4096),
            news: vec![],
            closed: vec![],
            refused: vec![],
        }
    }

    fn with_session(seed: u64, role: Role, change: impl Fn(&mut Config)) -> Self {
        let mut side = Side::new(seed);
        side.input(ms(0), Input::Open(SESSION, Box::new(config(role, change))));
        side
    }

    /// Takes an input and gives the bytes that it wrote.
    fn input(&mut self, now: Instant, input: Input) -> Vec<u8> {
        self.endpoint.handle(now, input, &mut self.out);
        self.collect()
    }

    fn timeout(&mut self, now: Instant) -> Vec<u8> {
        self.endpoint.timeout(now, &mut self.out);
        self.collect()
    }

    fn collect(&mut self) -> Vec<u8> {
        let mut bytes = vec![];
        for output in self.out.drain() {
            match output {
                Output::Write(_, frame) => frame.iter().for_each(|piece| bytes.extend_from_slice(piece)),
                Output::Close(_, why) => self.closed.push(why),
                Output::Session(_, news) => self.news.push(news),
                Output::Refused(_, why) => self.refused.push(why),
            }
        }
        assert_eq!(self.out.refused(), 0);
        bytes
    }

    fn receive(&mut self, now: Instant, bytes: &[u8]) -> String {
        let written = self.input(now, Input::Received(CONN, Bytes::copy_from_slice(bytes)));
        self.input(now, Input::Drained(CONN, written.len() as u64));
        String::from_utf8_lossy(&written).into_owned()
    }

    fn command(&mut self, now: Instant, command: Command) -> String {
        let written = self.input(now, Input::Command(SESSION, command));
        String::from_utf8_lossy(&written).into_owned()
    }

    fn take_news(&mut self) -> Vec<String> {
        self.news.drain(..).map(|news| label(&news)).collect()
    }

    fn received(&self) -> Vec<&Received> {
        self.news
            .iter()
            .filter_map(|n| if let SessionOutput::Received(r) = n { Some(&**r) } else { None })
            .collect()
    }
}

fn label(news: &SessionOutput) -> String {
    match news {
        SessionOutput::Write(_) => "write".into(),
        SessionOutput::Bound => "bound".into(),
        SessionOutput::Received(r) => format!("received {}", String::from_utf8_lossy(&r.message.body)),
        SessionOutput::Repeated(_) => "repeated".into(),
        SessionOutput::Dropped(_) => "dropped".into(),
        SessionOutput::Accepted(key) => format!("accepted {}", key.0),
        SessionOutput::Delivered(key) => format!("delivered {}", key.0),
        SessionOutput::Unreported(key) => format!("unreported {}", key.0),
        SessionOutput::Reported { status, awaited: true, .. } => format!("reported {status}"),
        SessionOutput::Reported { status, awaited: false, .. } => format!("reported late {status}"),
        SessionOutput::Failed(key, status) => format!("failed {} {status}", key.0),
        SessionOutput::Nickname(key, status) => format!("nickname {} {status}", key.0),
        SessionOutput::Ended(why) => format!("ended {why:?}"),
    }
}

fn text(key: u64, body: &str) -> Outgoing {
    Outgoing::new(Key(key), "text/plain", Bytes::copy_from_slice(body.as_bytes()))
}

fn send(message: Outgoing) -> Command {
    Command::Send(message)
}

/// Alice dials, Bob accepts; bytes go to and fro until both are silent.
struct Pair {
    alice: Side,
    bob: Side,
    to_bob: BytesMut,
    to_alice: BytesMut,
    now: Instant,
}

impl Pair {
    fn new(change: impl Fn(&mut Config)) -> Self {
        let mut pair = Pair {
            alice: Side::with_session(1, Role::Active, &change),
            bob: Side::with_session(2, Role::Passive, &change),
            to_bob: BytesMut::new(),
            to_alice: BytesMut::new(),
            now: ms(0),
        };
        pair.bob.input(pair.now, Input::Accepted(CONN));
        let first = pair.alice.input(pair.now, Input::Connected(CONN, SESSION));
        pair.to_bob.extend_from_slice(&first);
        pair.settle(usize::MAX);
        pair
    }

    fn alice(&mut self, command: Command) {
        let bytes = self.alice.input(self.now, Input::Command(SESSION, command));
        self.to_bob.extend_from_slice(&bytes);
    }

    fn bob(&mut self, command: Command) {
        let bytes = self.bob.input(self.now, Input::Command(SESSION, command));
        self.to_alice.extend_from_slice(&bytes);
    }

    /// Moves bytes, at most `read` at a time.
    fn settle(&mut self, read: usize) {
        while !self.to_bob.is_empty() || !self.to_alice.is_empty() {
            carry(self.now, &mut self.alice, &mut self.to_bob, &mut self.bob, &mut self.to_alice, read);
            carry(self.now, &mut self.bob, &mut self.to_alice, &mut self.alice, &mut self.to_bob, read);
        }
    }

    fn news(&mut self) -> (Vec<String>, Vec<String>) {
        (self.alice.take_news(), self.bob.take_news())
    }
}

fn carry(
    now: Instant,
    from: &mut Side,
    wire: &mut BytesMut,
    to: &mut Side,
    back: &mut BytesMut,
    read: usize,
) {
    if wire.is_empty() {
        return;
    }
    let bytes = wire.split_to(wire.len().min(read)).freeze();
    let more = from.input(now, Input::Drained(CONN, bytes.len() as u64));
    wire.extend_from_slice(&more);
    back.extend_from_slice(&to.input(now, Input::Received(CONN, bytes)));
}

#[test]
fn rfc4975_s5_4_the_active_side_binds_by_an_empty_send() {
    let mut alice = Side::with_session(1, Role::Active, |_| {});
    let first = alice.input(ms(0), Input::Connected(CONN, SESSION));
    let first = String::from_utf8(first).unwrap();
    let tid = first[5..25].to_owned();
    let lines: Vec<&str> = first.split("\r\n").collect();
    assert_eq!(lines[0], format!("MSRP {tid} SEND"));
    assert_eq!(lines[1], "To-Path: msrp://bob.example.com:7777/9di4eae923wzd;tcp");
    assert_eq!(lines[2], "From-Path: msrp://alice.example.com:7777/iau39soe2843z;tcp");
    assert!(lines[3].starts_with("Message-ID: "));
    assert_eq!(lines[4..], ["Byte-Range: 1-0/0", &format!("-------{tid}$"), ""]);

    let mut bob = Side::with_session(2, Role::Passive, |_| {});
    bob.input(ms(1), Input::Accepted(CONN));
    let answer = bob.receive(ms(1), first.as_bytes());
    assert_eq!(
        answer,
        format!(
            "MSRP {tid} 200 OK\r\nTo-Path: msrp://alice.example.com:7777/iau39soe2843z;tcp\r\n\
             From-Path: msrp://bob.example.com:7777/9di4eae923wzd;tcp\r\n-------{tid}$\r\n"
        )
    );
    assert_eq!(bob.take_news(), ["bound"]);
    assert_eq!(alice.receive(ms(2), answer.as_bytes()), "");
    assert_eq!(alice.take_news(), ["bound"]);
}

/// RFC 4975 §11.1: a message each way, with reports.
#[test]
fn rfc4975_s11_1_basic_session_both_ways_with_reports() {
    let mut pair = Pair::new(|_| {});
    assert_eq!(pair.news(), (vec!["bound".to_owned()], vec!["bound".to_owned()]));
    pair.alice(send(Outgoing { success_report: true, ..text(1, "Hi, I'm Alice!") }));
    pair.bob(send(text(2, "Hi, Alice! I'm Bob!")));
    pair.settle(usize::MAX);
    let (alice, bob) = pair.news();
    assert_eq!(alice, ["received Hi, Alice! I'm Bob!", "accepted 1", "reported 200", "delivered 1"]);
    assert_eq!(bob, ["received Hi, I'm Alice!", "accepted 2"]);
}

/// RFC 4975 §11.3: a long message in chunks, with a short one in between (§7.1.1).
#[test]
fn rfc4975_s11_3_chunks_let_other_messages_through() {
    let mut pair = Pair::new(|_| {});
    pair.news();
    let long: Vec<u8> = (0..1_048_576u32).map(|i| (i % 251) as u8).collect();
    let body = Bytes::from(long);
    pair.alice(send(Outgoing { success_report: true, ..Outgoing::new(Key(1), "x/y", body.clone()) }));
    pair.alice(send(text(2, "short")));
    pair.settle(1460);
    let bodies: Vec<Bytes> = pair.bob.received().iter().map(|r| r.message.body.clone()).collect();
    assert_eq!(bodies, [Bytes::from_static(b"short"), body]);
    assert_eq!(pair.alice.take_news(), ["accepted 2", "accepted 1", "reported 200", "delivered 1"]);
}

#[test]
fn chunks_wait_for_the_window() {
    let mut alice = Side::with_session(1, Role::Active, |_| {});
    let first = alice.input(ms(0), Input::Connected(CONN, SESSION));
    let body = Bytes::from(vec![b'x'; 1 << 20]);
    let written = alice.input(ms(0), Input::Command(SESSION, send(Outgoing::new(Key(1), "x/y", body))));
    let limits = SessionLimits::default();
    assert!((written.len() + first.len()) as u64 <= limits.window_octets + limits.chunk_octets as u64 + 400);
    let more = alice.input(ms(0), Input::Drained(CONN, (written.len() + first.len()) as u64));
    assert!(more.len() as u64 >= limits.window_octets);
}

#[test]
fn chunks_wait_for_answers() {
    let mut pair = Pair::new(|c| c.limits.window_chunks = 2);
    pair.news();
    let body = Bytes::from(vec![b'x'; 100_000]);
    let written =
        pair.alice.input(ms(0), Input::Command(SESSION, send(Outgoing::new(Key(1), "x/y", body.clone()))));
    assert_eq!(memchr::memmem::find_iter(&written, b" SEND\r\n").count(), 2);
    let more = pair.alice.input(ms(0), Input::Drained(CONN, written.len() as u64));
    assert!(more.is_empty() && !pair.alice.endpoint.is_all_out(SESSION));
    // They do not keep a nickname waiting.
    let ask = Command::Nickname { key: Key(2), nickname: "Al".into() };
    assert!(pair.alice.command(ms(0), ask).contains(" NICKNAME\r\n"));
    let answers = pair.bob.receive(ms(0), &written);
    let more = pair.alice.receive(ms(0), answers.as_bytes());
    assert_eq!(more.matches(" SEND\r\n").count(), 2);
}

/// RFC 4975 §7.1.1: `partial` is answered only when it fails; nobody waits for what will not come.
#[test]
fn silence_about_partial_does_not_hold_chunks_back() {
    let mut pair = Pair::new(|c| (c.limits.window_chunks, c.limits.transactions_max) = (4, 8));
    pair.news();
    let body = Bytes::from(vec![b'x'; 1 << 20]);
    pair.alice(send(Outgoing {
        failure_report: FailureReport::Partial,
        ..Outgoing::new(Key(1), "x/y", body)
    }));
    pair.settle(usize::MAX);
    assert_eq!(pair.alice.take_news(), ["accepted 1"]);
    assert_eq!(pair.bob.received().len(), 1);
}

/// What arrives lets chunks go, but never so many that what arrives next has no room.
#[test]
fn a_read_needs_no_more_room_than_is_said() {
    const READ: usize = 4096;
    let mut alice = Side::with_session(1, Role::Active, |_| {});
    let mut to_bob = alice.input(ms(0), Input::Connected(CONN, SESSION));
    let report = |message| Outgoing { success_report: true, ..message };
    for key in 0..20 {
        to_bob.extend(alice.command(ms(0), send(report(text(key, "hello")))).as_bytes());
    }
    let roomy = |c: &mut Config| {
        (c.limits.queued_max, c.limits.window_chunks) = (1000, 1000);
        c.limits.window_octets = 1 << 20;
    };
    let mut bob = Side::with_session(2, Role::Passive, roomy);
    bob.input(ms(0), Input::Accepted(CONN));
    bob.out = Outbox::with_max(64 + READ / 16);
    for key in 0..1000 {
        bob.command(ms(0), send(text(key, "waits for the binding")));
    }
    for read in to_bob.chunks(READ) {
        // `collect` fails when an output found no room.
        bob.input(ms(0), Input::Received(CONN, Bytes::copy_from_slice(read)));
        while bob.endpoint.next_timeout() == Some(Instant::ZERO) {
            bob.timeout(ms(0));
        }
    }
    assert_eq!(bob.received().len(), 20);
}

#[test]
fn rfc4975_s7_1_1_failure_report_values() {
    for (value, answers) in [(FailureReport::Yes, 1), (FailureReport::Partial, 0), (FailureReport::No, 0)] {
        let mut pair = Pair::new(|_| {});
        pair.news();
        let request = pair.alice.command(ms(0), send(Outgoing { failure_report: value, ..text(1, "x") }));
        let answer = pair.bob.receive(ms(0), request.as_bytes());
        assert_eq!(answer.matches(" 200 OK").count(), answers, "{value:?}");
        pair.alice.receive(ms(1), answer.as_bytes());
        assert_eq!(pair.alice.take_news(), ["accepted 1"], "{value:?}");
        // Nothing is left that could expire, but for late errors of `partial`, which expire in silence.
        pair.alice.timeout(ms(31_000));
        assert_eq!(pair.alice.take_news(), Vec::<String>::new());
        assert_eq!(pair.alice.endpoint.next_timeout(), None, "{value:?}");
    }
}

#[test]
fn rfc4975_s7_1_1_silence_for_30_s_fails_the_message_and_the_session() {
    let mut pair = Pair::new(|_| {});
    pair.news();
    pair.alice.command(ms(1000), send(text(1, "lost")));
    pair.alice.command(ms(2000), send(text(2, "lost too")));
    pair.alice.timeout(ms(30_999));
    assert_eq!(pair.alice.take_news(), Vec::<String>::new());
    pair.alice.timeout(ms(31_000));
    assert_eq!(pair.alice.take_news(), ["failed 1 408", "failed 2 408", "ended Silence"]);
    assert_eq!(pair.alice.closed, [CloseReason::Unused]);
}

#[test]
fn a_passive_session_that_nobody_binds_ends() {
    let mut bob = Side::with_session(2, Role::Passive, |_| {});
    assert_eq!(bob.endpoint.next_timeout(), Some(ms(30_000)));
    bob.timeout(ms(30_000));
    assert_eq!(bob.take_news(), ["ended NotBound"]);
}

#[test]
fn a_connection_that_names_no_session_is_closed() {
    let mut bob = Side::new(2);
    bob.input(ms(5), Input::Accepted(CONN));
    assert_eq!(bob.endpoint.next_timeout(), Some(ms(30_005)));
    bob.timeout(ms(30_005));
    assert_eq!(bob.closed, [CloseReason::Unnamed]);
    bob.input(ms(5), Input::Accepted(ConnKey(2)));
    bob.input(ms(6), Input::Received(ConnKey(2), Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n")));
    assert_eq!(bob.closed[1], CloseReason::Broken(Broken::Start));
}

fn raw(method: &str, to: &str, headers: &str, body: Option<&[u8]>, flag: char) -> Vec<u8> {
    let mut bytes = format!(
        "MSRP a786hjs2 {method}\r\nTo-Path: msrp://bob.example.com:7777/{to};tcp\r\n\
         From-Path: msrp://relay.example.com:1/r;tcp msrp://alice.example.com:7777/iau39soe2843z;tcp\r\n\
         Message-ID: 87652491\r\n{headers}"
    )
    .into_bytes();
    if let Some(body) = body {
        bytes.extend_from_slice(b"Content-Type: text/plain\r\n\r\n");
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(format!("-------a786hjs2{flag}\r\n").as_bytes());
    bytes
}

const BOB: &str = "9di4eae923wzd";

fn bob() -> Side {
    let mut bob = Side::with_session(2, Role::Passive, |_| {});
    bob.input(ms(0), Input::Accepted(CONN));
    bob
}

fn status_of(answer: &str) -> Option<&str> {
    answer.split(' ').nth(2)
}

/// RFC 4975 §7.2: to the previous hop only; §7.1.2: the report along the whole path, with a computed range.
#[test]
fn rfc4975_s7_2_answers_go_one_hop_and_reports_all_the_way() {
    let mut bob = bob();
    let written = bob
        .receive(ms(0), &raw("SEND", BOB, "Byte-Range: 1-*/*\r\nSuccess-Report: yes\r\n", Some(b"abc"), '$'));
    let (answer, report) =
        written.split_at(written.find("MSRP ").map(|_| written[5..].find("MSRP ").unwrap() + 5).unwrap());
    assert!(answer.starts_with(
        "MSRP a786hjs2 200 OK\r\nTo-Path: msrp://relay.example.com:1/r;tcp\r\nFrom-Path: msrp://bob"
    ));
    let lines: Vec<&str> = report.split("\r\n").collect();
    assert!(lines[0].ends_with(" REPORT"));
    assert_eq!(
        lines[1],
        "To-Path: msrp://relay.example.com:1/r;tcp msrp://alice.example.com:7777/iau39soe2843z;tcp"
    );
    assert_eq!(lines[2], "From-Path: msrp://bob.example.com:7777/9di4eae923wzd;tcp");
    assert_eq!(lines[3..6], ["Message-ID: 87652491", "Byte-Range: 1-3/3", "Status: 000 200 OK"]);
    assert!(lines[6].starts_with("-------") && lines[6].ends_with('$'));
}

#[test]
fn rfc4975_s10_which_error_where() {
    // No such session.
    let mut side = bob();
    assert_eq!(status_of(&side.receive(ms(0), &raw("SEND", "unknown", "", Some(b"x"), '$'))), Some("481"));
    assert_eq!(side.refused, [Refusal::NoSession]);
    // Not even an error when the sender wants none.
    assert_eq!(side.receive(ms(0), &raw("SEND", "unknown", "Failure-Report: no\r\n", Some(b"x"), '$')), "");
    // REPORT is never answered.
    let report = raw("REPORT", "unknown", "Status: 000 200 OK\r\n", None, '$');
    assert_eq!(side.receive(ms(0), &report), "");
    // Unknown methods, and those that are not for endpoints.
    for method in ["NICKNAME", "AUTH", "PING"] {
        assert_eq!(
            status_of(&side.receive(ms(0), &raw(method, BOB, "", None, '$'))),
            Some("501"),
            "{method}"
        );
    }
    // A session that is bound to another connection.
    side.receive(ms(0), &raw("SEND", BOB, "", None, '$'));
    side.input(ms(0), Input::Accepted(ConnKey(2)));
    let other = side.input(ms(0), Input::Received(ConnKey(2), raw("SEND", BOB, "", Some(b"x"), '$').into()));
    assert_eq!(status_of(std::str::from_utf8(&other).unwrap()), Some("506"));
    assert!(side.received().is_empty());
    // A head that is bad in a frame that is whole.
    assert_eq!(
        status_of(&side.receive(ms(0), &raw("SEND", BOB, "Byte-Range: 1-x/2\r\n", Some(b"x"), '$'))),
        Some("400")
    );
}

#[test]
fn rfc4975_s10_6_and_10_7_too_large_and_not_understood() {
    let small = |c: &mut Config| {
        c.accept_types = vec!["text/*".to_owned()];
        c.limits.reassembly = ReassemblyLimits { message_octets_max: 40_000, ..ReassemblyLimits::default() };
    };
    let mut pair = Pair::new(small);
    pair.news();
    let large = || Outgoing::new(Key(1), "text/plain", Bytes::from(vec![b'x'; 300_000]));
    pair.alice(send(large()));
    pair.settle(4000);
    assert_eq!(pair.news(), (vec!["failed 1 413".to_owned()], vec![]));
    // The type is refused once by the peer and then by ourselves.
    let image = |key| Outgoing::new(Key(key), "image/PNG; x=y", Bytes::from_static(b"\x89PNG"));
    pair.alice(send(image(2)));
    pair.settle(4000);
    assert_eq!(pair.alice.command(pair.now, send(image(3))), "");
    assert_eq!(pair.news(), (vec!["failed 2 415".to_owned(), "failed 3 415".to_owned()], vec![]));
    // multipart/alternative is always taken (§8.6).
    pair.alice(send(Outgoing {
        content_type: "multipart/alternative;boundary=b".into(),
        ..text(4, "parts")
    }));
    pair.settle(4000);
    assert_eq!(pair.news().1, ["received parts"]);
    // Above the peer's max-size nothing is sent at all.
    let mut alice = Side::with_session(1, Role::Active, |c| c.peer_octets_max = Some(10));
    alice.input(ms(0), Input::Connected(CONN, SESSION));
    assert_eq!(alice.command(ms(0), send(large())), "");
    assert_eq!(alice.take_news(), ["failed 1 413"]);
}

#[test]
fn rfc4975_s7_1_abort_discards_what_arrived() {
    let mut pair = Pair::new(|_| {});
    pair.news();
    let body = Bytes::from(vec![b'x'; 1 << 20]);
    let begun = pair.alice.input(pair.now, Input::Command(SESSION, send(Outgoing::new(Key(1), "x/y", body))));
    pair.to_bob.extend_from_slice(&begun);
    pair.alice(Command::Abort(Key(1)));
    assert!(pair.to_bob.ends_with(b"#\r\n"));
    pair.alice(send(text(2, "next")));
    pair.settle(usize::MAX);
    assert_eq!(
        pair.news(),
        (vec!["failed 1 413".into(), "accepted 2".into()], vec!["dropped".into(), "received next".into()])
    );
}

#[test]
fn chunks_in_any_order_with_overlaps_and_repetitions() {
    let mut bob = bob();
    let mut chunk = |range: &str, body: &[u8], flag| {
        let headers = format!("Byte-Range: {range}\r\nSuccess-Report: yes\r\n");
        let written = bob.receive(ms(0), &raw("SEND", BOB, &headers, Some(body), flag));
        (written.contains("200 OK"), written.contains("REPORT"), bob.received().len())
    };
    assert_eq!(chunk("7-*/*", b"world", '$'), (true, false, 0));
    assert_eq!(chunk("1-3/11", b"hEL", '+'), (true, false, 0));
    // What comes last counts (RFC 4975 §7.3.1).
    assert_eq!(chunk("2-6/11", b"ello ", '+'), (true, true, 1));
    // The same Message-ID again: answered, reported, not told.
    assert_eq!(chunk("1-3/11", b"hEL", '+'), (true, true, 1));
    assert_eq!(chunk("1-11/11", b"hello world", '$'), (true, true, 1));
    assert_eq!(&bob.received()[0].message.body[..], b"hello world");
    assert_eq!(bob.take_news(), ["bound", "received hello world", "repeated"]);
}

#[test]
fn hostile_byte_ranges_never_take_memory() {
    let mut bob = bob();
    for (range, status) in [
        ("2147483648-2147483648/2147483648", "413"),
        ("4294967296-*/*", "413"),
        ("1-*/18446744073709551615", "413"),
        ("18446744073709551615-*/*", "413"),
        ("18446744073709551616-*/*", "400"),
        ("-1-2/3", "400"),
        ("0-1/1", "400"),
    ] {
        let answer =
            bob.receive(ms(0), &raw("SEND", BOB, &format!("Byte-Range: {range}\r\n"), Some(b"xyz"), '+'));
        assert_eq!(status_of(&answer), Some(status), "{range}");
    }
    // Within one message: pieces with holes between are bounded, and so are messages that never end.
    let mut answers = vec![];
    for piece in 0..70u64 {
        let at = 1 + piece * 2;
        answers.push(
            bob.receive(ms(0), &raw("SEND", BOB, &format!("Byte-Range: {at}-{at}/*\r\n"), Some(b"x"), '+')),
        );
    }
    let refused: Vec<usize> = (0..70).filter(|i| status_of(&answers[*i]) == Some("413")).collect();
    assert_eq!(refused, [64]);
    let mut side = self::bob();
    for n in 0..20 {
        let bytes = String::from_utf8(raw("SEND", BOB, "Byte-Range: 1-*/9\r\n", Some(b"x"), '+')).unwrap();
        let answer = side.receive(ms(0), bytes.replace("87652491", &format!("8765{n:04}")).as_bytes());
        assert_eq!(status_of(&answer), Some(if n < 16 { "200" } else { "413" }), "{n}");
    }
}

#[test]
fn rfc7701_s6_1_a_message_that_pauses_is_dropped() {
    let mut bob = bob();
    bob.receive(ms(1000), &raw("SEND", BOB, "Byte-Range: 1-*/9\r\n", Some(b"x"), '+'));
    bob.take_news();
    assert_eq!(bob.endpoint.next_timeout(), Some(ms(541_000)));
    bob.timeout(ms(540_999));
    assert_eq!(bob.take_news(), Vec::<String>::new());
    bob.timeout(ms(541_000));
    assert_eq!(bob.take_news(), ["dropped"]);
    assert_eq!(bob.endpoint.next_timeout(), None);
}

/// A chunk that stops in its middle pauses too; octets that drip in do not.
#[test]
fn a_chunk_that_stops_in_its_middle_is_dropped() {
    let mut bob = bob();
    let chunk = raw("SEND", BOB, "Byte-Range: 1-*/9\r\n", Some(b"some octets"), '$');
    let (begun, rest) = chunk.split_at(chunk.len() - 30);
    bob.receive(ms(0), begun);
    bob.receive(ms(1000), &rest[..5]);
    bob.take_news();
    assert_eq!(bob.endpoint.next_timeout(), Some(ms(540_000)));
    bob.timeout(ms(540_000));
    assert_eq!(bob.take_news(), Vec::<String>::new());
    bob.timeout(ms(541_000));
    assert_eq!(bob.take_news(), ["dropped"]);
    assert_eq!(bob.endpoint.next_timeout(), None);
    assert_eq!(status_of(&bob.receive(ms(600_000), &rest[5..])), Some("413"));
}

#[test]
fn rfc4975_s7_1_2_failure_reports_fail_the_message() {
    let mut pair = Pair::new(|c| c.report_success = false);
    pair.news();
    pair.alice(send(Outgoing { success_report: true, ..text(1, "gateway") }));
    pair.settle(usize::MAX);
    assert_eq!(pair.alice.take_news(), ["accepted 1"]);
    let received = pair.bob.received()[0].clone();
    pair.bob(Command::Report(Box::new(received.clone()), Status::TIMEOUT));
    pair.settle(usize::MAX);
    assert_eq!(pair.alice.take_news(), ["reported 408", "failed 1 408"]);
    // The same for a sender that asked for silence: nothing is sent.
    pair.alice(send(Outgoing { failure_report: FailureReport::No, ..text(2, "quiet") }));
    pair.settle(usize::MAX);
    let received = pair.bob.received()[1].clone();
    for status in [Status::TIMEOUT, Status::OK] {
        assert_eq!(pair.bob.command(ms(0), Command::Report(Box::new(received.clone()), status)), "");
    }
}

/// RFC 4975 §7.1.2: reports may come in pieces that are not the sender's chunks.
#[test]
fn success_reports_in_pieces_add_up() {
    let mut alice = Side::with_session(1, Role::Active, |_| {});
    alice.input(ms(0), Input::Connected(CONN, SESSION));
    let message = Outgoing {
        success_report: true,
        failure_report: FailureReport::No,
        message_id: Some("4564dpWd".into()),
        ..text(1, "0123456789")
    };
    alice.command(ms(0), send(message));
    let report = |range: &str, status: &str| {
        format!(
            "MSRP hx74g336 REPORT\r\nTo-Path: msrp://alice.example.com:7777/iau39soe2843z;tcp\r\n\
             From-Path: msrp://bob.example.com:7777/9di4eae923wzd;tcp\r\nMessage-ID: 4564dpWd\r\n\
             Byte-Range: {range}/10\r\nStatus: {status}\r\n-------hx74g336$\r\n"
        )
    };
    for (range, status) in
        [("4-6", "000 200 OK"), ("7-10", "000 200"), ("1-2", "000 200 OK"), ("3-3", "001 200 OK")]
    {
        assert_eq!(alice.receive(ms(1), report(range, status).as_bytes()), "");
    }
    // Another namespace than 000 says nothing.
    let thrice = ["reported 200"; 3];
    assert_eq!(alice.take_news(), [&["accepted 1", "bound"][..], &thrice].concat());
    alice.receive(ms(2), report("3-3", "000 200 OK").as_bytes());
    assert_eq!(alice.take_news(), ["reported 200", "delivered 1"]);
}

/// A report may overtake the answers; of a message without octets, too.
#[test]
fn a_report_that_comes_before_the_answer_counts() {
    for body in ["", "x"] {
        let mut pair = Pair::new(|_| {});
        pair.news();
        let request = pair.alice.command(ms(0), send(Outgoing { success_report: true, ..text(1, body) }));
        let said = pair.bob.receive(ms(0), request.as_bytes());
        let (answer, report) = said.split_at(said[5..].find("MSRP ").unwrap() + 5);
        pair.alice.receive(ms(1), report.as_bytes());
        pair.alice.receive(ms(1), answer.as_bytes());
        assert_eq!(pair.alice.take_news(), ["reported 200", "accepted 1", "delivered 1"], "{body:?}");
        assert_eq!(pair.alice.endpoint.next_timeout(), None);
    }
}

#[test]
fn a_report_that_never_comes_is_forgotten() {
    let mut pair = Pair::new(|c| c.report_success = false);
    pair.news();
    pair.alice(send(Outgoing { success_report: true, ..text(1, "x") }));
    pair.settle(usize::MAX);
    assert_eq!(pair.alice.endpoint.next_timeout(), Some(ms(600_000)));
    pair.alice.timeout(ms(600_000));
    assert_eq!(pair.alice.endpoint.next_timeout(), None);
    assert_eq!(pair.alice.take_news(), ["accepted 1", "unreported 1"]);
    // So is one that is too many, and a late report says so.
    let mut pair = Pair::new(|c| (c.report_success, c.limits.reports_max) = (false, 1));
    pair.news();
    for key in [1, 2] {
        pair.alice(send(Outgoing { success_report: true, ..text(key, "x") }));
        pair.settle(usize::MAX);
    }
    assert_eq!(pair.alice.take_news(), ["accepted 1", "accepted 2", "unreported 1"]);
    for at in [0, 1] {
        let received = pair.bob.received()[at].clone();
        pair.bob(Command::Report(Box::new(received), Status::OK));
    }
    pair.settle(usize::MAX);
    assert_eq!(pair.alice.take_news(), ["reported late 200", "reported 200", "delivered 2"]);
}

#[test]
fn rfc7701_s7_nickname() {
    let mut alice = Side::with_session(1, Role::Active, |_| {});
    alice.input(ms(0), Input::Connected(CONN, SESSION));
    let ask = Command::Nickname { key: Key(9), nickname: "Al \"the\" \\ Great".into() };
    let request = alice.command(ms(0), ask);
    assert!(request.contains("\r\nUse-Nickname: \"Al \\\"the\\\" \\\\ Great\"\r\n-------"), "{request}");
    let mut framer = Framer::new(Limits::default());
    let Ok(Some(Event::Head(head))) = framer.next(&mut Bytes::from(request.into_bytes())) else {
        panic!("no head")
    };
    assert_eq!(head.use_nickname().as_deref(), Some("Al \"the\" \\ Great"));
    let answer = crate::response(&head, Status::NICKNAME_IN_USE).unwrap();
    alice.receive(ms(1), &answer);
    assert_eq!(alice.take_news(), ["bound", "nickname 9 425"]);
}

#[test]
fn rfc4975_s10_481_ends_the_session() {
    let mut alice = Side::with_session(1, Role::Active, |_| {});
    alice.input(ms(0), Input::Connected(CONN, SESSION));
    let request = alice.command(ms(0), send(text(1, "x")));
    let mut stranger = Side::new(3);
    stranger.input(ms(0), Input::Accepted(CONN));
    let answer = stranger.receive(ms(0), request.as_bytes());
    alice.command(ms(0), send(text(2, "y")));
    alice.receive(ms(1), answer.as_bytes());
    assert_eq!(alice.take_news(), ["failed 1 481", "failed 2 481", "ended Refused(Status(481))"]);
}

#[test]
fn losing_the_connection_fails_everything_at_once() {
    let mut pair = Pair::new(|_| {});
    pair.news();
    for key in 0..100 {
        pair.alice.command(ms(0), send(text(key, "x")));
    }
    pair.alice.input(ms(1), Input::Disconnected(CONN));
    // More to tell than one call's room: the rest comes at once.
    while pair.alice.endpoint.next_timeout().is_some_and(|at| at <= ms(1)) {
        pair.alice.timeout(ms(1));
    }
    let news = pair.alice.take_news();
    assert_eq!(news.len(), 101);
    assert_eq!(news.last().map(String::as_str), Some("ended Disconnected"));
    assert_eq!(pair.alice.endpoint.next_timeout(), None);
}

#[test]
fn one_connection_carries_two_sessions() {
    let mut pair = Pair::new(|_| {});
    pair.news();
    let second = |role| {
        config(role, |c| {
            let swap =
                |text: &str| text.replace("9di4eae923wzd", "second-b").replace("iau39soe2843z", "second-a");
            c.local = MsrpUri::parse(&swap(c.local.as_str())).unwrap();
            c.remote = Path::parse(&swap(c.remote.view().as_str()), 8).unwrap();
        })
    };
    let other = SessionKey(8);
    pair.alice.input(ms(0), Input::Open(other, Box::new(second(Role::Active))));
    pair.bob.input(ms(0), Input::Open(other, Box::new(second(Role::Passive))));
    let bytes = pair.alice.input(ms(0), Input::Connected(CONN, other));
    pair.to_bob.extend_from_slice(&bytes);
    let bytes = pair.alice.input(ms(0), Input::Command(other, send(text(5, "second"))));
    pair.to_bob.extend_from_slice(&bytes);
    pair.alice(send(text(1, "first")));
    pair.settle(usize::MAX);
    assert_eq!(pair.bob.take_news(), ["bound", "received second", "received first"]);
    assert_eq!(pair.bob.endpoint.connection(other), Some(CONN));
    // The connection lives as long as one of them.
    pair.bob.input(ms(0), Input::Command(other, Command::End));
    assert!(pair.bob.closed.is_empty());
    pair.bob(Command::End);
    assert_eq!(pair.bob.closed, [CloseReason::Unused]);
}

/// A message as the property test sends it.
fn any_message() -> impl Strategy<Value = (Vec<u8>, bool, u8)> {
    let body = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..50),
        proptest::collection::vec(proptest::sample::select(&b"\r\n-$a"[..]), 0..6000),
    ];
    (body, any::<bool>(), 0u8..3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_is_sent_arrives_once_in_pieces_of_any_size(
        messages in proptest::collection::vec(any_message(), 1..12),
        read in 1usize..3000,
    ) {
        let mut pair = Pair::new(|c| c.limits.chunk_octets = 2048);
        pair.news();
        for (n, (body, success_report, failure)) in messages.iter().enumerate() {
            let failure_report =
                [FailureReport::Yes, FailureReport::Partial, FailureReport::No][usize::from(*failure)];
            let message = Outgoing { success_report: *success_report, failure_report, ..Outgoing::new(Key(n as u64), "x/y", body.clone().into()) };
            if n % 2 == 0 { pair.alice(send(message)) } else { pair.bob(send(message)) }
        }
        pair.settle(read);
        for (side, parity) in [(&pair.bob, 0), (&pair.alice, 1)] {
            let mut got: Vec<Vec<u8>> = side.received().iter().map(|r| r.message.body.to_vec()).collect();
            let mut sent: Vec<Vec<u8>> = messages.iter().skip(parity).step_by(2).map(|m| m.0.clone()).collect();
            got.sort();
            sent.sort();
            prop_assert_eq!(got, sent);
        }
        for (n, (_, success_report, _)) in messages.iter().enumerate() {
            let side = if n % 2 == 0 { &pair.alice } else { &pair.bob };
            let count = |wanted: String| side.news.iter().filter(|news| label(news) == wanted).count();
            prop_assert_eq!(count(format!("accepted {n}")), 1);
            prop_assert_eq!(count(format!("delivered {n}")), usize::from(*success_report));
        }
    }

    #[test]
    fn mutated_streams_never_panic(
        edits in edits(12),
        read in 1usize..400,
    ) {
        let bytes = [
            raw("SEND", BOB, "Byte-Range: 1-*/8\r\nSuccess-Report: yes\r\n", Some(b"abc"), '+'),
            raw("SEND", BOB, "Byte-Range: 4-8/8\r\nSuccess-Report: yes\r\n", Some(b"defgh"), '$'),
            raw("REPORT", BOB, "Byte-Range: 1-8/8\r\nStatus: 000 200 OK\r\n", None, '$'),
            raw("NICKNAME", BOB, "Use-Nickname: \"x\"\r\n", None, '$'),
            raw("SEND", BOB, "", Some(b"abc"), '#'),
        ]
        .concat();
        let bytes = edited(bytes, edits);
        let mut bob = bob();
        for piece in bytes.chunks(read) {
            bob.receive(ms(0), piece);
        }
        bob.timeout(ms(1_000_000));
    }
}
