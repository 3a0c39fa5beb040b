//! Bad input to the MSRP listeners, over real sockets: what it is answered, that it costs no more than the limits say, and
//! that those who talk meanwhile do not notice. What needs no socket is in `forward` and `msrp`.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use contract::Mode;
use tests::dataplane::{Plane, msrp_leg, path, uri};
use tests::msrp_peer::Peer;

struct Pair {
    plane: Plane,
    alice: Peer,
    bob: Peer,
    ours: Vec<String>,
    said: u32,
}

impl Pair {
    fn up(more: &str) -> Pair {
        let mut plane = Plane::start(more);
        let legs = vec![msrp_leg(1, |_| {}), msrp_leg(2, |_| {})];
        let paths = vec![path(1, Mode::Relay, &[1], &[2], None), path(2, Mode::Relay, &[2], &[1], None)];
        let ours = plane.set(legs, paths);
        let (alice, bob) = (plane.join(1, &ours[0]), plane.join(2, &ours[1]));
        Pair { plane, alice, bob, ours, said: 0 }
    }

    /// Those who were talking still are.
    fn still_talk(&mut self) {
        self.said += 1;
        let tid = self.alice.send(&self.ours[0], &format!("still{:04}", self.said), "", "still here");
        let sent = self.bob.frame();
        assert_eq!(sent.body, b"still here");
        self.bob.answer(&sent, "200 OK");
        assert_eq!(self.alice.status(&tid), "200");
    }
}

/// 2^31, 2^32, 2^63, 2^64 and below zero, in each place of a Byte-Range.
#[test]
fn byte_ranges_at_the_edges_of_numbers() {
    let mut pair = Pair::up("");
    let edges = ["2147483647", "2147483648", "4294967295", "4294967296", "9223372036854775807"];
    let ours = pair.ours[0].clone();
    let mut id = 0;
    let mut ask = |pair: &mut Pair, range: &str| {
        id += 1;
        let rest =
            format!("Message-ID: edge{id:04}\r\nByte-Range: {range}\r\nContent-Type: a/b\r\n\r\nx\r\n");
        let tid = pair.alice.request("SEND", &ours, &rest);
        pair.alice.status(&tid)
    };
    for edge in edges {
        // A total may be anything; the octet that came is the first one of it, and of an unfinished message.
        assert_eq!(ask(&mut pair, &format!("1-1/{edge}")), "200", "total {edge}");
        assert_eq!(pair.bob.frame().line("Byte-Range"), format!("1-1/{edge}"));
        // Beyond its own total nothing can begin.
        assert_eq!(ask(&mut pair, &format!("{edge}-{edge}/1")), "400", "start {edge}");
        let far = ask(&mut pair, &format!("{edge}-{edge}/*"));
        assert!(["200", "413"].contains(&far.as_str()), "start {edge}: {far}");
        if far == "200" {
            assert_eq!(pair.bob.frame().line("Byte-Range"), format!("{edge}-{edge}/*"));
        }
    }
    for wrong in [
        "18446744073709551616-18446744073709551616/*",
        "1-18446744073709551616/*",
        "1-1/18446744073709551616",
        "-1-1/1",
        "1--1/1",
        "1-1/-1",
        "0-0/0",
        "2-0/2",
        "+1-1/1",
        "1-1/",
        "1-1",
        "/",
        "99999999999999999999999999999999-1/1",
    ] {
        assert_eq!(ask(&mut pair, wrong), "400", "{wrong}");
    }
    // The last octet that 64 bits can name: nothing comes after it.
    let last = ask(&mut pair, "18446744073709551615-*/*");
    assert!(["400", "413"].contains(&last.as_str()), "{last}");
    pair.still_talk();
}

/// A header block that never ends is read up to its limit and no further; nor does a long path get through.
#[test]
fn header_blocks_without_end_and_paths_of_hundreds() {
    let mut pair = Pair::up("");
    let ours = pair.ours[0].clone();
    for piece in ["X-Padding: yes\r\n", "x"] {
        let mut peer = Peer::connect(pair.plane.msrp().0);
        let _ = peer
            .try_raw(format!("MSRP endless SEND\r\nTo-Path: {ours}\r\nFrom-Path: {}\r\n", uri(9)).as_bytes());
        let mut sent = 0;
        // The kernel's buffers take some after the connection is closed; a limit that held is far below this.
        while sent < 8 << 20 && peer.try_raw(piece.repeat(1024).as_bytes()).is_ok() {
            sent += piece.len() * 1024;
        }
        assert!(peer.is_closed());
    }
    pair.plane.until_metric("weir_dataplane_drops_total{reason=\"msrp_too_long\"}", 2);
    for (count, closes) in [(9, false), (60, false), (400, false), (600, true)] {
        let mut peer = Peer::connect(pair.plane.msrp().0);
        let many = format!("{ours} {}", vec!["msrp://a:1/b;tcp"; count - 1].join(" "));
        let tid = peer.request("SEND", &many, "Message-ID: manypath\r\nByte-Range: 1-0/0\r\n");
        if closes {
            assert!(peer.is_closed(), "{count}");
        } else {
            // It is not relayed and not bound; without a path back there is no answer, but the next request has one.
            let known = peer.request(
                "SEND",
                &ours.replace(";tcp", "x;tcp"),
                "Message-ID: nextone1\r\nByte-Range: 1-0/0\r\n",
            );
            let first = peer.frame();
            assert!(first.tid() == known || (first.tid() == tid && first.word() == "400"), "{first:?}");
        }
    }
    pair.still_talk();
}

/// A session id that somebody guesses or has seen is of no use to him: 481 and 506, also for all but its last character.
#[test]
fn a_guessed_session_and_a_second_connection() {
    let mut pair = Pair::up("");
    let ours = pair.ours[0].clone();
    let id = ours.split('/').nth(3).unwrap().trim_end_matches(";tcp").to_owned();
    let mut thief = Peer::connect(pair.plane.msrp().0);
    let mut guesses: Vec<String> = (1..id.len()).map(|n| id[..n].to_owned()).collect();
    guesses.extend([
        format!("{id}a"),
        id.to_uppercase(),
        format!("{}!", &id[..id.len() - 1]).replace('!', "0"),
    ]);
    for guess in guesses.iter().filter(|guess| **guess != id) {
        let tid = thief.send(&ours.replace(&id, guess), "guess001", "", "let me in");
        assert_eq!(thief.status(&tid), "481", "{guess}");
    }
    let tid = thief.send(&ours, "guess002", "", "let me in");
    assert_eq!(thief.status(&tid), "506");
    thief.own = uri(1);
    let tid = thief.send(&ours, "guess003", "", "let me in");
    assert_eq!(thief.status(&tid), "506");
    assert!(pair.bob.is_silent(Duration::from_millis(200)));
    pair.still_talk();
}

/// Reset after each octet of a request: nothing stays, and nobody else is cut off.
#[test]
fn a_reset_at_each_octet() {
    let mut pair = Pair::up("");
    let ours = pair.ours[0].clone();
    let whole = format!(
        "MSRP reset1 SEND\r\nTo-Path: {ours}\r\nFrom-Path: {}\r\nMessage-ID: reset001\r\nByte-Range: 1-5/5\r\n\
         Content-Type: text/plain\r\n\r\nhello\r\n-------reset1$\r\n",
        uri(1)
    );
    for cut in 0..=whole.len() {
        let mut stream = TcpStream::connect(pair.plane.msrp().0).unwrap();
        stream.write_all(&whole.as_bytes()[..cut]).unwrap();
        // Closing with nothing to linger for is a reset.
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(stream);
    }
    pair.plane.until_metric("weir_dataplane_connections", 2);
    pair.still_talk();
    // Nor does a session's own connection leave anything when it is reset within a body.
    let head = whole.split("hello").next().unwrap();
    pair.alice.raw(format!("{head}hel").as_bytes());
    socket2::SockRef::from(pair.alice.stream()).set_linger(Some(Duration::ZERO)).unwrap();
    let idle = TcpStream::connect(pair.plane.msrp().0).unwrap();
    let gone = std::mem::replace(&mut pair.alice, Peer::of(idle));
    drop(gone);
    assert_eq!(pair.bob.frame().flag, '#', "what will not be finished is aborted");
    pair.plane.until_metric("weir_dataplane_queued_bytes", 0);
}

/// The peer says goodbye in TLS, or closes its half of the connection, in the middle and at the end of a request.
#[test]
fn half_closed_connections_are_closed() {
    let mut pair = Pair::up("");
    let (plain, secure) = pair.plane.msrp();
    let ours = pair.ours[0].clone();
    for tls in [false, true] {
        for finished in [false, true] {
            let mut peer = if tls { Peer::connect_tls(secure) } else { Peer::connect(plain) };
            let text = format!(
                "MSRP half1 SEND\r\nTo-Path: {ours}\r\nFrom-Path: {}\r\nMessage-ID: half0001\r\n",
                uri(9)
            );
            peer.raw(text.as_bytes());
            if finished {
                peer.raw(b"-------half1$\r\n");
                assert_eq!(peer.frame().word(), "506");
            }
            peer.half_close();
            assert!(peer.is_closed(), "tls {tls}, finished {finished}");
        }
    }
    pair.plane.until_metric("weir_dataplane_connections", 2);
    pair.still_talk();
}

/// A few octets at a time buy no more time than none at all (CPM-FACTS §3.10: the first request has a deadline).
#[test]
fn slow_senders_of_their_first_request_are_closed() {
    let mut pair = Pair::up("[limits]\narrival_ms = 600\n");
    let ours = pair.ours[0].clone();
    let text = format!("MSRP slow1 SEND\r\nTo-Path: {ours}\r\nFrom-Path: {}\r\n", uri(9)).repeat(4);
    let mut slow: Vec<Peer> = (0..50).map(|_| Peer::connect(pair.plane.msrp().0)).collect();
    let began = Instant::now();
    for octet in text.as_bytes().iter().take(60) {
        slow.iter_mut().for_each(|peer| drop(peer.try_raw(&[*octet])));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(began.elapsed() > Duration::from_millis(1000));
    pair.plane.until_metric("weir_dataplane_connections", 2);
    assert!(slow.iter_mut().all(Peer::is_closed));
    pair.still_talk();
}

/// Octets that nobody reads: the source waits, and what is held is what the limits say.
#[test]
fn a_reader_who_stops_holds_its_source_and_no_memory() {
    let mut pair = Pair::up("[limits]\nqueue_bytes_max = 65536\n");
    let ours = pair.ours[0].clone();
    let head = format!(
        "MSRP flood1 SEND\r\nTo-Path: {ours}\r\nFrom-Path: {}\r\nMessage-ID: flood001\r\nByte-Range: 1-*/*\r\n\
         Content-Type: a/b\r\n\r\n",
        uri(1)
    );
    pair.alice.raw(head.as_bytes());
    pair.alice.stream().set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let piece = vec![b'x'; 64 << 10];
    let mut sent: u64 = 0;
    while sent < 256 << 20 && pair.alice.try_raw(&piece).is_ok() {
        sent += piece.len() as u64;
    }
    assert!(sent < 256 << 20, "the source is never held");
    std::thread::sleep(Duration::from_millis(100));
    let queued = pair.plane.metric("weir_dataplane_queued_bytes");
    assert!(queued <= 2 * 65_536 + 65_536, "{queued}");
}
