//! One suite for both drivers: what `forward` may rely on, and each trap of the kernel by name (DESIGN §4).
//!
//! A host that forbids io_uring runs the ring's half as a remark.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail by panic too")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use bytes::Bytes;
use netio::udp::{self, UdpOptions};
use netio::{Driver, DriverConfig, Event, Gone, Kind, Tls};

const PATIENCE: Duration = Duration::from_secs(5);

fn config() -> DriverConfig {
    DriverConfig { sockets_max: 64, connections_max: 16, settle_ms: 40, ..DriverConfig::default() }
}

fn driver(kind: Kind, config: &DriverConfig) -> Option<Box<dyn Driver>> {
    match kind.make(config) {
        Ok(driver) => Some(driver),
        Err(error) => {
            assert_eq!(kind, Kind::Uring, "mio always works");
            eprintln!("io_uring is not to be had here: {error}");
            None
        }
    }
}

fn media() -> UdpSocket {
    udp::bind("127.0.0.1:0".parse().unwrap(), UdpOptions::default()).unwrap()
}

fn phone() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn at(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().unwrap()
}

/// Opens a media socket in the driver: its number and address.
fn open(driver: &mut dyn Driver) -> (u32, SocketAddr) {
    let socket = media();
    let address = at(&socket);
    (driver.open(socket).unwrap(), address)
}

/// An event, owned.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Datagram(u32, SocketAddr, Vec<u8>),
    Unreachable(u32),
    Opened { conn: u64, dial: Option<u64>, tls: bool, fingerprint: Option<[u8; 32]> },
    DialFailed(u64, Gone),
    Received(u64, Vec<u8>),
    Sent(u64, usize),
    Closed(u64, Gone),
    Woken,
}

fn seen(event: &Event<'_>) -> Seen {
    match event {
        Event::Datagram { socket, from, bytes } => Seen::Datagram(*socket, *from, bytes.to_vec()),
        Event::Unreachable { socket } => Seen::Unreachable(*socket),
        Event::Opened { conn, dial, tls, fingerprint, .. } => {
            Seen::Opened { conn: *conn, dial: *dial, tls: *tls, fingerprint: *fingerprint }
        }
        Event::DialFailed { dial, why } => Seen::DialFailed(*dial, *why),
        Event::Received { conn, bytes } => Seen::Received(*conn, bytes.to_vec()),
        Event::Sent { conn, bytes } => Seen::Sent(*conn, *bytes),
        Event::Closed { conn, why } => Seen::Closed(*conn, *why),
        Event::Woken => Seen::Woken,
    }
}

/// Polls until `enough` of what came is there; everything that came.
fn until(driver: &mut dyn Driver, mut enough: impl FnMut(&[Seen]) -> bool) -> Vec<Seen> {
    let (start, mut all) = (Instant::now(), Vec::new());
    while !enough(&all) {
        assert!(start.elapsed() < PATIENCE, "only {} came: {:?}", all.len(), all.last());
        let n = driver.poll(Some(Duration::from_millis(1))).unwrap();
        all.extend((0..n).map(|index| seen(&driver.event(index))));
    }
    all
}

/// Polls for a while whatever comes.
fn pass(driver: &mut dyn Driver, time: Duration) -> Vec<Seen> {
    let start = Instant::now();
    until(driver, |_| start.elapsed() > time)
}

fn one(driver: &mut dyn Driver) -> Seen {
    until(driver, |all| !all.is_empty()).remove(0)
}

fn datagrams(all: &[Seen]) -> usize {
    all.iter().filter(|seen| matches!(seen, Seen::Datagram(..))).count()
}

fn a_datagram_comes_with_its_source(kind: Kind) {
    let Some(mut driver) = driver(kind, &config()) else { return };
    let (socket, address) = open(&mut *driver);
    let phone = phone();
    phone.send_to(b"hello", address).unwrap();
    assert_eq!(one(&mut *driver), Seen::Datagram(socket, at(&phone), b"hello".to_vec()));
}

fn both_families_are_served(kind: Kind) {
    let Some(mut driver) = driver(kind, &config()) else { return };
    let media = udp::bind("[::1]:0".parse().unwrap(), UdpOptions::default()).unwrap();
    let address = at(&media);
    let socket = driver.open(media).unwrap();
    let phone = UdpSocket::bind("[::1]:0").unwrap();
    phone.send_to(b"six", address).unwrap();
    assert_eq!(one(&mut *driver), Seen::Datagram(socket, at(&phone), b"six".to_vec()));
    driver.aim(socket, Some(at(&phone)), true).unwrap();
    driver.send(socket, b"back");
    driver.poll(Some(Duration::ZERO)).unwrap();
    phone.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 16];
    assert_eq!(phone.recv(&mut buffer).unwrap(), 4);
}

fn one_datagram_goes_to_many_whole_and_patched(kind: Kind) {
    let Some(mut driver) = driver(kind, &config()) else { return };
    let (_, address) = open(&mut *driver);
    let phones: Vec<UdpSocket> = (0..8).map(|_| phone()).collect();
    let mut sockets = Vec::new();
    for (index, phone) in phones.iter().enumerate() {
        let (socket, _) = open(&mut *driver);
        // Sends by address reach as far as those of connected sockets.
        driver.aim(socket, Some(at(phone)), index % 4 != 3).unwrap();
        sockets.push(socket);
    }
    phone().send_to(b"0123456789", address).unwrap();
    one(&mut *driver);
    for (index, socket) in sockets.iter().enumerate() {
        match index % 2 {
            0 => driver.forward(0, *socket),
            _ => driver.forward_patched(0, *socket, b"abc"),
        }
    }
    driver.poll(Some(Duration::ZERO)).unwrap();
    for (index, phone) in phones.iter().enumerate() {
        let mut buffer = [0; 32];
        let n = phone.recv(&mut buffer).unwrap();
        let expected: &[u8] = if index % 2 == 0 { b"0123456789" } else { b"abc3456789" };
        assert_eq!(&buffer[..n], expected, "target {index}");
    }
}

fn more_sends_than_the_queues_hold_all_leave_in_order(kind: Kind) {
    let Some(mut driver) = driver(kind, &config()) else { return };
    let (socket, _) = open(&mut *driver);
    let sink = media();
    socket2::SockRef::from(&sink).set_recv_buffer_size(8 << 20).unwrap();
    sink.set_nonblocking(false).unwrap();
    sink.set_read_timeout(Some(PATIENCE)).unwrap();
    driver.aim(socket, Some(at(&sink)), true).unwrap();
    for number in 0..3000u32 {
        driver.send(socket, &number.to_be_bytes());
    }
    driver.poll(Some(Duration::ZERO)).unwrap();
    for number in 0..3000u32 {
        let mut buffer = [0; 8];
        assert_eq!(sink.recv(&mut buffer).unwrap(), 4);
        assert_eq!(u32::from_be_bytes(buffer[..4].try_into().unwrap()), number);
    }
    assert_eq!(driver.tally().send_full, 0);
}

fn a_connected_socket_refuses_strangers_and_a_dissolved_one_does_not(kind: Kind) {
    let Some(mut driver) = driver(kind, &config()) else { return };
    let (socket, address) = open(&mut *driver);
    let (peer, stranger) = (phone(), phone());
    driver.aim(socket, Some(at(&peer)), true).unwrap();
    // Before and after the receive turns plain.
    for _ in 0..2 {
        stranger.send_to(b"stranger", address).unwrap();
        peer.send_to(b"peer", address).unwrap();
        let all = pass(&mut *driver, Duration::from_millis(80));
        assert_eq!(all, [Seen::Datagram(socket, at(&peer), b"peer".to_vec())]);
    }
    driver.aim(socket, None, false).unwrap();
    pass(&mut *driver, Duration::from_millis(10));
    stranger.send_to(b"stranger", address).unwrap();
    assert_eq!(one(&mut *driver), Seen::Datagram(socket, at(&stranger), b"stranger".to_vec()));
}

fn what_a_stranger_queued_before_the_connect_is_never_taken_for_the_peers(kind: Kind) {
    let Some(mut driver) = driver(kind, &config()) else { return };
    let (socket, address) = open(&mut *driver);
    let (peer, stranger) = (phone(), phone());
    for _ in 0..200 {
        stranger.send_to(b"stranger", address).unwrap();
    }
    driver.aim(socket, Some(at(&peer)), true).unwrap();
    for _ in 0..40 {
        peer.send_to(b"peer", address).unwrap();
        std::thread::sleep(Duration::from_millis(1));
        for seen in pass(&mut *driver, Duration::from_millis(1)) {
            let Seen::Datagram(_, from, bytes) = seen else { continue };
            assert_eq!(from == at(&peer), bytes == b"peer", "{from} sent {bytes:?}");
        }
    }
}

fn a_new_peer_takes_over_a_connected_socket(kind: Kind) {
    let Some(mut driver) = driver(kind, &config()) else { return };
    let (socket, address) = open(&mut *driver);
    let (first, second) = (phone(), phone());
    driver.aim(socket, Some(at(&first)), true).unwrap();
    pass(&mut *driver, Duration::from_millis(80));
    driver.aim(socket, Some(at(&second)), true).unwrap();
    pass(&mut *driver, Duration::from_millis(5));
    first.send_to(b"first", address).unwrap();
    second.send_to(b"second", address).unwrap();
    let all = pass(&mut *driver, Duration::from_millis(80));
    assert_eq!(all, [Seen::Datagram(socket, at(&second), b"second".to_vec())]);
    driver.send(socket, b"to the second");
    driver.poll(Some(Duration::ZERO)).unwrap();
    assert_eq!(second.recv(&mut [0; 32]).unwrap(), 13);
}

fn a_burst_over_the_settling_of_a_socket_arrives_whole_and_in_order(kind: Kind) {
    let Some(mut driver) = driver(kind, &config()) else { return };
    let (socket, address) = open(&mut *driver);
    let peer = phone();
    driver.aim(socket, Some(at(&peer)), true).unwrap();
    let sender = std::thread::spawn(move || {
        for number in 0..2000u32 {
            peer.send_to(&number.to_be_bytes(), address).unwrap();
            if number % 16 == 0 {
                std::thread::sleep(Duration::from_micros(500));
            }
        }
        peer
    });
    let all = until(&mut *driver, |all| datagrams(all) == 2000);
    for (number, seen) in (0..2000u32).zip(&all) {
        let Seen::Datagram(_, _, bytes) = seen else { panic!("{seen:?}") };
        assert_eq!(bytes, &number.to_be_bytes());
    }
    sender.join().unwrap();
}

fn a_flood_of_datagrams_outlives_the_settling_of_its_socket(kind: Kind) {
    let Some(mut driver) = driver(kind, &config()) else { return };
    let (socket, address) = open(&mut *driver);
    let (peer, sink) = (phone(), media());
    let mut targets = Vec::new();
    for _ in 0..16 {
        let (target, _) = open(&mut *driver);
        driver.aim(target, Some(at(&sink)), true).unwrap();
        targets.push(target);
    }
    driver.aim(socket, Some(at(&peer)), true).unwrap();
    let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = over.clone();
    let flood = std::thread::spawn(move || {
        while !flag.load(std::sync::atomic::Ordering::Relaxed) {
            for _ in 0..32 {
                let _ = peer.send_to(&[0x80; 172], address);
            }
            std::thread::yield_now();
        }
        peer
    });
    // Before, while and long after the socket settles.
    let start = Instant::now();
    let mut quiet = Instant::now();
    while start.elapsed() < Duration::from_millis(400) {
        let n = driver.poll(Some(Duration::from_millis(1))).unwrap();
        for index in 0..n {
            for target in &targets {
                driver.forward_patched(index, *target, &[0x80; 12]);
            }
            quiet = Instant::now();
        }
        while netio::discard(&sink) > 0 {}
        assert!(
            quiet.elapsed() < Duration::from_millis(200),
            "silent after {:?}: {:?}",
            start.elapsed(),
            driver.tally()
        );
    }
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    flood.join().unwrap();
}

fn a_socket_that_settles_is_deaf_at_no_time(kind: Kind) {
    let Some(mut driver) = driver(kind, &config()) else { return };
    let (socket, address) = open(&mut *driver);
    let peer = phone();
    driver.aim(socket, Some(at(&peer)), true).unwrap();
    let origin = Instant::now();
    let sender = std::thread::spawn(move || {
        for _ in 0..40 {
            std::thread::sleep(Duration::from_millis(5));
            let sent = origin.elapsed().as_millis() as u64;
            peer.send_to(&sent.to_be_bytes(), address).unwrap();
        }
        peer
    });
    let mut got = 0;
    while got < 40 {
        // A driver that sleeps for long is woken by what arrives, whatever its receives are going through.
        let n = driver.poll(Some(Duration::from_secs(2))).unwrap();
        for index in 0..n {
            if let Event::Datagram { bytes, .. } = driver.event(index) {
                let sent = u64::from_be_bytes(bytes.try_into().unwrap());
                let late = origin.elapsed().as_millis() as u64 - sent;
                assert!(late < 1000, "{late} ms late, {sent} ms after the start");
                got += 1;
            }
        }
    }
    sender.join().unwrap();
}

/// Trap: an empty buffer ring ends a multishot with ENOBUFS; the packets stay in the socket.
fn too_few_buffers_lose_nothing(kind: Kind) {
    let small = DriverConfig { buffers: 8, batch_max: 8, ..config() };
    let Some(mut driver) = driver(kind, &small) else { return };
    let (_, address) = open(&mut *driver);
    let phone = phone();
    for number in 0..100u8 {
        phone.send_to(&[number], address).unwrap();
    }
    let all = until(&mut *driver, |all| datagrams(all) == 100);
    for (number, seen) in (0..100u8).zip(&all) {
        assert!(matches!(seen, Seen::Datagram(_, _, bytes) if bytes == &[number]), "{number}: {seen:?}");
    }
    if kind == Kind::Uring {
        assert!(driver.tally().starved > 0, "the trap was not met");
    }
}

/// Trap: an ICMP error ends a multishot with ECONNREFUSED, and a stranger can cause it.
fn an_icmp_error_ends_no_receive(kind: Kind) {
    let Some(mut driver) = driver(kind, &config()) else { return };
    let (socket, address) = open(&mut *driver);
    let peer = phone();
    let peer_address = at(&peer);
    drop(peer);
    driver.aim(socket, Some(peer_address), true).unwrap();
    for wait in [1, 80] {
        // Named receive first, then the plain one.
        pass(&mut *driver, Duration::from_millis(wait));
        driver.send(socket, b"nobody is there");
        let all = until(&mut *driver, |all| !all.is_empty());
        assert_eq!(all, [Seen::Unreachable(socket)]);
    }
    let peer = UdpSocket::bind(peer_address).unwrap();
    peer.send_to(b"back again", address).unwrap();
    assert_eq!(one(&mut *driver), Seen::Datagram(socket, peer_address, b"back again".to_vec()));
}

/// Trap: an empty datagram ends a plain multishot.
fn an_empty_datagram_ends_no_receive(kind: Kind) {
    let Some(mut driver) = driver(kind, &config()) else { return };
    let (socket, address) = open(&mut *driver);
    let peer = phone();
    driver.aim(socket, Some(at(&peer)), true).unwrap();
    for wait in [1, 80] {
        pass(&mut *driver, Duration::from_millis(wait));
        for payload in [&b""[..], b"", b"content"] {
            peer.send_to(payload, address).unwrap();
        }
        let all = until(&mut *driver, |all| datagrams(all) == 3);
        let expected = [&b""[..], b"", b"content"].map(|p| Seen::Datagram(socket, at(&peer), p.to_vec()));
        assert_eq!(all, expected);
    }
}

/// Trap: truncation shows only in the head of a named receive; a plain one just fills its buffer.
fn a_truncated_datagram_is_dropped_and_counted(kind: Kind) {
    let Some(mut driver) = driver(kind, &config()) else { return };
    let (socket, address) = open(&mut *driver);
    let peer = phone();
    driver.aim(socket, Some(at(&peer)), true).unwrap();
    for (round, wait) in [1, 80].into_iter().enumerate() {
        pass(&mut *driver, Duration::from_millis(wait));
        for length in [1900, 2048, 9000, 172] {
            peer.send_to(&vec![7; length], address).unwrap();
        }
        let all = until(&mut *driver, |all| datagrams(all) == 2);
        let expected = [1900, 172].map(|length| Seen::Datagram(socket, at(&peer), vec![7; length]));
        assert_eq!(all, expected);
        assert_eq!(driver.tally().truncated, 2 * (round as u64 + 1), "{:?}", driver.tally());
    }
}

/// Trap: with DEFER_TASKRUN completions appear only after an enter with GETEVENTS.
fn a_driver_that_never_sleeps_sees_what_arrives(kind: Kind) {
    let Some(mut driver) = driver(kind, &config()) else { return };
    let (_, address) = open(&mut *driver);
    let phone = phone();
    for _ in 0..50 {
        phone.send_to(b"x", address).unwrap();
        let start = Instant::now();
        while driver.poll(Some(Duration::ZERO)).unwrap() == 0 {
            assert!(start.elapsed() < PATIENCE);
        }
    }
}

/// Trap: a closed socket's port is freed late, when its receive has ended; so is that of a ring that went away.
fn a_port_can_be_bound_again_by_trying(kind: Kind) {
    let Some(mut driver) = driver(kind, &config()) else { return };
    let (socket, address) = open(&mut *driver);
    driver.close(socket);
    driver.poll(Some(Duration::ZERO)).unwrap();
    let again = bind_again(address);
    let reopened = driver.open(again).unwrap();
    assert_eq!(reopened, socket, "numbers are dense");
    let phone = phone();
    phone.send_to(b"second life", address).unwrap();
    assert_eq!(one(&mut *driver), Seen::Datagram(reopened, at(&phone), b"second life".to_vec()));
    drop(driver);
    bind_again(address);
}

fn bind_again(address: SocketAddr) -> UdpSocket {
    let start = Instant::now();
    loop {
        match udp::bind(address, UdpOptions::default()) {
            Ok(socket) => return socket,
            Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn nothing_of_a_closed_socket_reaches_its_successor(kind: Kind) {
    let Some(mut driver) = driver(kind, &config()) else { return };
    let (socket, address) = open(&mut *driver);
    phone().send_to(b"for the first", address).unwrap();
    driver.close(socket);
    let (successor, _) = open(&mut *driver);
    assert_eq!(successor, socket);
    assert_eq!(pass(&mut *driver, Duration::from_millis(20)), []);
}

fn what_was_sent_by_a_closed_socket_does_not_leave_by_its_successor(kind: Kind) {
    let Some(mut driver) = driver(kind, &config()) else { return };
    let (_, address) = open(&mut *driver);
    let (socket, _) = open(&mut *driver);
    let (meant, other) = (phone(), phone());
    driver.aim(socket, Some(at(&meant)), true).unwrap();
    let source = phone();
    for _ in 0..4 {
        source.send_to(b"private", address).unwrap();
    }
    let mut seen = 0;
    while seen < 4 {
        let n = driver.poll(Some(PATIENCE)).unwrap();
        (0..n).for_each(|index| driver.forward(index, socket));
        seen += n;
    }
    driver.close(socket);
    let (successor, _) = open(&mut *driver);
    assert_eq!(successor, socket);
    driver.aim(successor, Some(at(&other)), true).unwrap();
    driver.poll(Some(Duration::ZERO)).unwrap();
    let mut buffer = [0; 16];
    (0..4).for_each(|_| assert_eq!(meant.recv(&mut buffer).unwrap(), 7));
    other.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(other.recv(&mut buffer).is_err());
}

/// Runs of one length, shorter ones that end a run, longer ones, more than one send can hold, and an own one between.
fn what_leaves_together_arrives_apart_whole_and_in_order(kind: Kind) {
    for gso in [true, false] {
        let Some(mut driver) = driver(kind, &DriverConfig { gso, batch_max: 256, ..config() }) else {
            return;
        };
        let (_, address) = open(&mut *driver);
        let mut sinks = Vec::new();
        for _ in 0..2 {
            let (socket, _) = open(&mut *driver);
            let sink = phone();
            socket2::SockRef::from(&sink).set_recv_buffer_size(4 << 20).unwrap();
            driver.aim(socket, Some(at(&sink)), true).unwrap();
            sinks.push((socket, sink));
        }
        let lengths =
            [[1200; 70].as_slice(), &[300], &[1200; 5], &[1201, 1201, 1], &[172; 130], &[1, 2, 3]].concat();
        let packet =
            |number: usize, length: usize| -> Vec<u8> { (0..length).map(|at| (number + at) as u8).collect() };
        let source = phone();
        for (number, length) in lengths.iter().enumerate() {
            source.send_to(&packet(number, *length), address).unwrap();
        }
        let mut seen = 0;
        while seen < lengths.len() {
            let n = driver.poll(Some(PATIENCE)).unwrap();
            for index in 0..n {
                driver.forward(index, sinks[0].0);
                driver.forward_patched(index, sinks[1].0, b"\xff");
                if seen + index == 20 {
                    driver.send(sinks[0].0, b"own");
                }
            }
            seen += n;
        }
        driver.poll(Some(Duration::ZERO)).unwrap();
        let mut buffer = [0; 2048];
        let mut next = |sink: usize| {
            let n = sinks[sink].1.recv(&mut buffer).unwrap();
            buffer[..n].to_vec()
        };
        for (number, length) in lengths.iter().enumerate() {
            let mut expected = packet(number, *length);
            assert_eq!(next(0), expected, "packet {number}, gso {gso}");
            if number == 20 {
                assert_eq!(next(0), b"own");
            }
            expected[0] = 0xff;
            assert_eq!(next(1), expected, "patched packet {number}, gso {gso}");
        }
        let tally = driver.tally();
        assert_eq!((tally.send_failed, tally.send_full, tally.send_too_long), (0, 0, 0));
    }
}

fn the_table_of_sockets_has_an_end(kind: Kind) {
    let Some(mut driver) = driver(kind, &DriverConfig { sockets_max: 2, ..config() }) else { return };
    let (first, _) = open(&mut *driver);
    open(&mut *driver);
    assert!(driver.open(media()).is_err());
    driver.close(first);
    assert_eq!(driver.open(media()).unwrap(), first);
}

fn a_wake_ends_the_wait_and_time_does_too(kind: Kind) {
    let Some(mut driver) = driver(kind, &config()) else { return };
    let wake = driver.wake();
    let waker = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        wake.wake();
    });
    let start = Instant::now();
    assert_eq!(driver.poll(None).unwrap(), 1);
    assert!(matches!(driver.event(0), Event::Woken));
    assert!(start.elapsed() >= Duration::from_millis(25));
    waker.join().unwrap();
    let start = Instant::now();
    assert_eq!(driver.poll(Some(Duration::from_millis(30))).unwrap(), 0);
    assert!(start.elapsed() >= Duration::from_millis(29), "{:?}", start.elapsed());
}

fn listening(driver: &mut dyn Driver, tls: Option<Tls>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    driver.listen(listener, tls).unwrap();
    address
}

fn stream(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A connection from another of our own addresses.
fn stream_from(ip: &str, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(ip.parse().unwrap(), 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

fn opened(seen: &Seen) -> u64 {
    let Seen::Opened { conn, .. } = seen else { panic!("{seen:?}") };
    *conn
}

fn received(all: &[Seen], of: u64) -> Vec<u8> {
    let parts = all.iter().filter_map(|seen| match seen {
        Seen::Received(conn, bytes) if *conn == of => Some(bytes.as_slice()),
        _ => None,
    });
    parts.collect::<Vec<_>>().concat()
}

fn a_connection_is_accepted_read_written_and_closed(kind: Kind) {
    let Some(mut driver) = driver(kind, &DriverConfig { first_connection: 7 << 48, ..config() }) else {
        return;
    };
    let address = listening(&mut *driver, None);
    let mut peer = stream(address);
    let conn = opened(&one(&mut *driver));
    assert_eq!(conn, 7 << 48);
    peer.write_all(b"question").unwrap();
    assert_eq!(received(&until(&mut *driver, |all| received(all, conn).len() == 8), conn), b"question");
    driver.write(conn, Bytes::from_static(b"ans"));
    driver.write(conn, Bytes::from_static(b"wer"));
    let all = until(&mut *driver, |all| !all.is_empty());
    assert_eq!(all, [Seen::Sent(conn, 6)], "one writev for both");
    let mut buffer = [0; 16];
    assert_eq!(peer.read(&mut buffer).unwrap(), 6);
    drop(peer);
    let all = until(&mut *driver, |all| !all.is_empty());
    assert_eq!(all, [Seen::Closed(conn, Gone::Closed)]);
}

fn what_was_written_before_shut_arrives_and_then_the_end(kind: Kind) {
    let Some(mut driver) = driver(kind, &config()) else { return };
    let address = listening(&mut *driver, None);
    let mut peer = stream(address);
    let conn = opened(&one(&mut *driver));
    // More than the kernel's buffers hold, so that leaving takes several turns.
    let whole = vec![5u8; 8 << 20];
    driver.write(conn, Bytes::from(whole.clone()));
    driver.shut(conn, false);
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        all
    });
    while !reader.is_finished() {
        pass(&mut *driver, Duration::from_millis(5));
    }
    assert_eq!(reader.join().unwrap().len(), whole.len());
}

fn an_aborted_connection_is_gone_at_once(kind: Kind) {
    let Some(mut driver) = driver(kind, &config()) else { return };
    let address = listening(&mut *driver, None);
    let mut peer = stream(address);
    let conn = opened(&one(&mut *driver));
    driver.shut(conn, true);
    assert_eq!(peer.read(&mut [0; 8]).unwrap_or(0), 0);
    assert_eq!(pass(&mut *driver, Duration::from_millis(10)), []);
}

fn a_paused_connection_holds_its_peer_back(kind: Kind) {
    let Some(mut driver) = driver(kind, &config()) else { return };
    let address = listening(&mut *driver, None);
    let mut peer = stream(address);
    let conn = opened(&one(&mut *driver));
    driver.pause(conn);
    const TOTAL: usize = 16 << 20;
    let writer = std::thread::spawn(move || {
        peer.write_all(&vec![9; TOTAL]).unwrap();
        peer
    });
    assert_eq!(pass(&mut *driver, Duration::from_millis(80)), []);
    assert!(!writer.is_finished(), "16 MiB fit nowhere");
    driver.resume(conn);
    let mut total = 0;
    while total < TOTAL {
        total += received(&one_or_more(&mut *driver), conn).len();
    }
    assert_eq!(total, TOTAL);
    writer.join().unwrap();
}

fn one_or_more(driver: &mut dyn Driver) -> Vec<Seen> {
    until(driver, |all| !all.is_empty())
}

fn a_slow_reader_is_told_by_what_is_not_sent(kind: Kind) {
    let Some(mut driver) = driver(kind, &config()) else { return };
    let address = listening(&mut *driver, None);
    let mut peer = stream(address);
    let conn = opened(&one(&mut *driver));
    let chunk = Bytes::from(vec![1u8; 1 << 20]);
    for _ in 0..32 {
        driver.write(conn, chunk.clone());
    }
    let sent =
        |all: &[Seen]| all.iter().map(|seen| if let Seen::Sent(_, n) = seen { *n } else { 0 }).sum::<usize>();
    let before = sent(&pass(&mut *driver, Duration::from_millis(80)));
    assert!(before < 32 << 20, "{before}");
    let reader =
        std::thread::spawn(move || std::io::copy(&mut Read::take(&mut peer, 32 << 20), &mut std::io::sink()));
    until(&mut *driver, |all| before + sent(all) == 32 << 20);
    assert_eq!(reader.join().unwrap().unwrap(), 32 << 20);
}

fn pieces_that_leave_one_by_one_arrive_whole_and_in_order(kind: Kind) {
    let Some(mut driver) = driver(kind, &config()) else { return };
    let address = listening(&mut *driver, None);
    let mut peer = stream(address);
    let conn = opened(&one(&mut *driver));
    // Each fills the kernel's buffers more, until it takes the last ones in parts only.
    let piece = |number: u8| Bytes::from(vec![number; 300_000]);
    let all: Vec<u8> = (0..40).flat_map(piece).collect();
    let (mut seen, mut sent) = (Vec::new(), 0);
    for number in 0..40 {
        driver.write(conn, piece(number));
        seen.extend(pass(&mut *driver, Duration::from_millis(2)));
    }
    let reader = std::thread::spawn(move || {
        let mut read = vec![0; 40 * 300_000];
        peer.read_exact(&mut read).map(|()| read)
    });
    while !reader.is_finished() {
        seen.extend(pass(&mut *driver, Duration::from_millis(2)));
    }
    assert!(reader.join().unwrap().unwrap() == all);
    seen.extend(pass(&mut *driver, Duration::from_millis(20)));
    seen.iter().for_each(|seen| sent += if let Seen::Sent(_, n) = seen { *n } else { 0 });
    assert_eq!(sent, all.len());
}

// A read that is not full is the last one of its turn: the end behind it must not wait for another edge.
fn an_end_right_behind_what_was_said_is_seen(kind: Kind) {
    let Some(mut driver) = driver(kind, &config()) else { return };
    let address = listening(&mut *driver, None);
    let mut early = stream(address);
    early.write_all(b"bye").unwrap();
    drop(early);
    let all = until(&mut *driver, |all| matches!(all.last(), Some(Seen::Closed(..))));
    assert_eq!(received(&all, opened(&all[0])), b"bye");
    let mut late = stream(address);
    let conn = opened(&one(&mut *driver));
    late.write_all(b"bye").unwrap();
    drop(late);
    let all = until(&mut *driver, |all| matches!(all.last(), Some(Seen::Closed(..))));
    assert_eq!(received(&all, conn), b"bye");
}

fn a_dialled_connection_opens_or_fails(kind: Kind) {
    let Some(mut driver) = driver(kind, &config()) else { return };
    let far = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = far.local_addr().unwrap();
    driver.dial(1, address, None);
    let first = one(&mut *driver);
    let Seen::Opened { conn, dial: Some(1), tls: false, fingerprint: None } = first else {
        panic!("{first:?}")
    };
    driver.write(conn, Bytes::from_static(b"hello"));
    driver.poll(Some(Duration::ZERO)).unwrap();
    let (mut peer, _) = far.accept().unwrap();
    let mut buffer = [0; 5];
    peer.read_exact(&mut buffer).unwrap();
    drop(far);
    driver.dial(2, address, None);
    let all = until(&mut *driver, |all| all.iter().any(|seen| matches!(seen, Seen::DialFailed(..))));
    assert!(all.contains(&Seen::DialFailed(2, Gone::ConnectFailed)), "{all:?}");
}

fn the_table_of_connections_has_an_end(kind: Kind) {
    let Some(mut driver) = driver(kind, &DriverConfig { connections_max: 2, ..config() }) else { return };
    let address = listening(&mut *driver, None);
    let peers: Vec<TcpStream> = (0..3).map(|_| stream(address)).collect();
    let all = pass(&mut *driver, Duration::from_millis(50));
    assert_eq!(all.iter().filter(|seen| matches!(seen, Seen::Opened { .. })).count(), 2);
    assert_eq!(driver.tally().accept_refused, 1);
    drop(peers);
}

fn one_address_does_not_get_all_connections(kind: Kind) {
    let few = DriverConfig { connections_max: 8, connections_per_address_max: 3, ..config() };
    let Some(mut driver) = driver(kind, &few) else { return };
    let address = listening(&mut *driver, None);
    let crowd: Vec<TcpStream> = (0..6).map(|_| stream(address)).collect();
    let opened = |all: &[Seen]| all.iter().filter(|seen| matches!(seen, Seen::Opened { .. })).count();
    let all = pass(&mut *driver, Duration::from_millis(50));
    assert_eq!((opened(&all), driver.tally().accept_crowded, driver.tally().accept_refused), (3, 3, 0));
    // Another address is let in, and so is the first one when it has left.
    let other = stream_from("127.0.0.9", address);
    assert_eq!(opened(&pass(&mut *driver, Duration::from_millis(50))), 1);
    drop(crowd);
    pass(&mut *driver, Duration::from_millis(50));
    let again = stream(address);
    assert_eq!(opened(&pass(&mut *driver, Duration::from_millis(50))), 1);
    drop((other, again));
}

fn certificate() -> Tls {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    Tls::new(vec![made.cert.der().clone()], made.signing_key.serialize_der().try_into().unwrap()).unwrap()
}

fn both_sides_of_a_tls_connection_see_the_others_fingerprint(kind: Kind) {
    let Some(mut near) = driver(kind, &config()) else { return };
    let Some(mut far) = driver(kind, &config()) else { return };
    let (ours, theirs) = (certificate(), certificate());
    let address = listening(&mut *far, Some(theirs.clone()));
    near.dial(9, address, Some(ours.clone()));
    let (mut at_near, mut at_far) = (Vec::new(), Vec::new());
    let start = Instant::now();
    while at_near.is_empty() || at_far.is_empty() {
        assert!(start.elapsed() < PATIENCE);
        at_near.extend(pass(&mut *near, Duration::from_millis(2)));
        at_far.extend(pass(&mut *far, Duration::from_millis(2)));
    }
    let (caller, callee) = (opened(&at_near[0]), opened(&at_far[0]));
    let open =
        |conn, dial, fingerprint| Seen::Opened { conn, dial, tls: true, fingerprint: Some(fingerprint) };
    assert_eq!(at_near, [open(caller, Some(9), theirs.fingerprint())]);
    assert_eq!(at_far, [open(callee, None, ours.fingerprint())]);
    let message: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
    near.write(caller, Bytes::from(message.clone()));
    near.shut(caller, false);
    let (mut got, mut closed) = (Vec::new(), false);
    while !closed {
        assert!(start.elapsed() < PATIENCE);
        pass(&mut *near, Duration::from_millis(1));
        let all = pass(&mut *far, Duration::from_millis(1));
        got.extend(received(&all, callee));
        closed = all.contains(&Seen::Closed(callee, Gone::Closed));
    }
    assert_eq!(got, message);
}

fn a_peer_that_speaks_no_tls_fails_the_handshake(kind: Kind) {
    let short = DriverConfig { open_ms: 100, ..config() };
    let Some(mut driver) = driver(kind, &short) else { return };
    let far = TcpListener::bind("127.0.0.1:0").unwrap();
    driver.dial(4, far.local_addr().unwrap(), Some(certificate()));
    let dialled = std::thread::spawn(move || {
        let (mut peer, _) = far.accept().unwrap();
        peer.write_all(b"MSRP d93kswow SEND\r\n").unwrap();
        peer
    });
    assert_eq!(one(&mut *driver), Seen::DialFailed(4, Gone::TlsFailed));
    drop(dialled.join().unwrap());
    // Accepted: one that talks nonsense and one that says nothing at all.
    let address = listening(&mut *driver, Some(certificate()));
    let (mut nonsense, silent) = (stream(address), stream(address));
    nonsense.write_all(b"MSRP d93kswow SEND\r\n").unwrap();
    assert_eq!(pass(&mut *driver, Duration::from_millis(200)), []);
    assert_eq!(driver.tally().accept_failed, 2);
    drop(silent);
}

fn what_is_read_waits_in_the_kernel_and_not_with_us(kind: Kind) {
    let small = DriverConfig { batch_max: 4, ..config() };
    let Some(mut driver) = driver(kind, &small) else { return };
    let address = listening(&mut *driver, None);
    let peers: Vec<TcpStream> = (0..8).map(|_| stream(address)).collect();
    until(&mut *driver, |all| all.iter().filter(|seen| matches!(seen, Seen::Opened { .. })).count() == 8);
    let floods: Vec<_> = peers
        .into_iter()
        .map(|mut peer| {
            std::thread::spawn(move || {
                let mut sent = 0u64;
                while let Ok(n) = peer.write(&[0; 65_536]) {
                    sent += n as u64;
                }
                sent
            })
        })
        .collect();
    // Each of them is slower than eight floods: what is handed out is bounded, whatever is there.
    let mut got = 0;
    for _ in 0..600 {
        let n = driver.poll(Some(Duration::from_millis(1))).unwrap();
        assert!(n <= 4);
        for index in 0..n {
            if let Event::Received { bytes, .. } = driver.event(index) {
                got += bytes.len() as u64;
            }
        }
    }
    drop(driver);
    let sent: u64 = floods.into_iter().map(|flood| flood.join().unwrap()).sum();
    // What the kernel's buffers hold is theirs (up to 6 MiB a receiver, 4 MiB a sender); the rest would be ours.
    assert!(sent - got < 8 * (11 << 20), "{} octets went somewhere", sent - got);
}

fn datagrams_are_not_held_up_by_a_flood_on_connections(kind: Kind) {
    let Some(mut driver) = driver(kind, &config()) else { return };
    let address = listening(&mut *driver, None);
    let (_, media) = open(&mut *driver);
    let mut peer = stream(address);
    let flood = std::thread::spawn(move || while peer.write_all(&[0; 65_536]).is_ok() {});
    pass(&mut *driver, Duration::from_millis(20));
    let phone = phone();
    for _ in 0..20 {
        let start = Instant::now();
        phone.send_to(b"x", media).unwrap();
        until(&mut *driver, |all| datagrams(all) == 1);
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }
    drop(driver);
    flood.join().unwrap();
}

macro_rules! suite {
    ($($name:ident,)*) => {
        mod uring { $( #[test] fn $name() { super::$name(netio::Kind::Uring); } )* }
        mod mio { $( #[test] fn $name() { super::$name(netio::Kind::Mio); } )* }
    };
}

suite! {
    a_datagram_comes_with_its_source,
    both_families_are_served,
    one_datagram_goes_to_many_whole_and_patched,
    more_sends_than_the_queues_hold_all_leave_in_order,
    a_connected_socket_refuses_strangers_and_a_dissolved_one_does_not,
    what_a_stranger_queued_before_the_connect_is_never_taken_for_the_peers,
    a_new_peer_takes_over_a_connected_socket,
    a_burst_over_the_settling_of_a_socket_arrives_whole_and_in_order,
    a_flood_of_datagrams_outlives_the_settling_of_its_socket,
    a_socket_that_settles_is_deaf_at_no_time,
    too_few_buffers_lose_nothing,
    an_icmp_error_ends_no_receive,
    an_empty_datagram_ends_no_receive,
    a_truncated_datagram_is_dropped_and_counted,
    a_driver_that_never_sleeps_sees_what_arrives,
    a_port_can_be_bound_again_by_trying,
    nothing_of_a_closed_socket_reaches_its_successor,
    what_was_sent_by_a_closed_socket_does_not_leave_by_its_successor,
    what_leaves_together_arrives_apart_whole_and_in_order,
    the_table_of_sockets_has_an_end,
    a_wake_ends_the_wait_and_time_does_too,
    a_connection_is_accepted_read_written_and_closed,
    what_was_written_before_shut_arrives_and_then_the_end,
    an_aborted_connection_is_gone_at_once,
    a_paused_connection_holds_its_peer_back,
    a_slow_reader_is_told_by_what_is_not_sent,
    pieces_that_leave_one_by_one_arrive_whole_and_in_order,
    an_end_right_behind_what_was_said_is_seen,
    a_dialled_connection_opens_or_fails,
    the_table_of_connections_has_an_end,
    one_address_does_not_get_all_connections,
    both_sides_of_a_tls_connection_see_the_others_fingerprint,
    a_peer_that_speaks_no_tls_fails_the_handshake,
    what_is_read_waits_in_the_kernel_and_not_with_us,
    datagrams_are_not_held_up_by_a_flood_on_connections,
}
