//! The program, run by the kernel on packets of ours (BPF_PROG_TEST_RUN), and on loopback between sockets.

use std::net::{SocketAddr, UdpSocket};

use super::*;
use crate::kernel::program::{LEAVES, PASS};

/// `None`, and why, where this host does not let us.
fn relay() -> Option<KernelRelay> {
    match KernelRelay::new(64) {
        Ok(relay) => Some(relay),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => {
            println!("skipped: bpf(2) is refused here ({error})");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// From a phone to another, both on loopback.
fn flow() -> Flow {
    Flow {
        key: FlowKey { from: at("127.0.0.2:4000"), to: at("127.0.0.1:10000") },
        by: at("127.0.0.1:10002"),
        to: at("127.0.0.3:5000"),
        ssrc: 0x0102_0304,
        payloads: 1 | 1 << 101,
        clock: 8000,
        dscp: 46,
        seen: Seen { highest: 0xffff, before: 1, ..Seen::default() },
    }
}

fn checksum(octets: &[u8]) -> u16 {
    let mut sum: u32 =
        octets.chunks(2).map(|p| u32::from(u16::from_be_bytes([p[0], *p.get(1).unwrap_or(&0)]))).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// Where the datagram begins.
fn udp_at(frame: &[u8]) -> usize {
    if frame[12] == 8 { 34 } else { 54 }
}

/// RFC 768, and RFC 8200 §8.1.
fn udp_checksum(frame: &[u8]) -> u16 {
    let udp = udp_at(frame);
    let mut pseudo = frame[udp - if udp == 34 { 8 } else { 32 }..udp].to_vec();
    pseudo.extend([0, 17]);
    pseudo.extend(&((frame.len() - udp) as u16).to_be_bytes());
    pseudo.extend(&frame[udp..]);
    checksum(&pseudo)
}

/// A frame of the flow, as loopback has them, with both checksums.
fn frame(key: FlowKey, sequence: u16, payload: &[u8]) -> Vec<u8> {
    frame_of(key, &rtp(sequence, payload))
}

fn rtp(sequence: u16, payload: &[u8]) -> Vec<u8> {
    let mut rtp = vec![0x80, 0];
    rtp.extend(sequence.to_be_bytes());
    rtp.extend((u32::from(sequence) * 160).to_be_bytes());
    rtp.extend([1, 2, 3, 4]);
    rtp.extend(payload);
    rtp
}

fn frame_of(key: FlowKey, datagram: &[u8]) -> Vec<u8> {
    let length = 8 + datagram.len() as u16;
    let mut frame = vec![0; 12];
    if key.to.is_ipv4() {
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((20 + length).to_be_bytes());
        frame.extend([0x12, 0x34, 0, 0, 17, 17, 0, 0]);
    } else {
        frame.extend([0x86, 0xdd, 0x61, 0x23, 0x45, 0x67]);
        frame.extend(length.to_be_bytes());
        frame.extend([17, 9]);
    }
    frame.extend(octets(key.from.ip()));
    frame.extend(octets(key.to.ip()));
    frame.extend(key.from.port().to_be_bytes());
    frame.extend(key.to.port().to_be_bytes());
    frame.extend(length.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(datagram);
    mend(&mut frame);
    frame
}

/// Both checksums anew.
fn mend(frame: &mut [u8]) {
    let udp = udp_at(frame);
    if udp == 34 {
        frame[24..26].fill(0);
        let sum = checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame[udp + 6..udp + 8].fill(0);
    let sum = udp_checksum(frame);
    frame[udp + 6..udp + 8].copy_from_slice(&sum.to_be_bytes());
}

/// From a phone to another by IPv6 (RFC 3849), ours on loopback.
fn flow_v6() -> Flow {
    Flow {
        key: FlowKey { from: at("[2001:db8::2]:4000"), to: at("[::1]:10000") },
        by: at("[::1]:10002"),
        to: at("[2001:db8:ff:1:2:3:4:3]:5000"),
        ..flow()
    }
}

#[test]
fn so_does_one_of_ipv6() {
    let Some(relay) = relay() else { return };
    let flow = flow_v6();
    if !relay.put(&flow).unwrap() {
        println!("skipped: no IPv6 here");
        return;
    }
    for payload in [&[7; 160][..], &[1, 2, 3, 4], &[0xff; 1200]] {
        let before = frame(flow.key, 0, payload);
        let (answer, after) = relay.program.test_run(&before).unwrap();
        assert_eq!(answer as i32, LEAVES);
        // RFC 8200 §3: version, class, no flow label; the length; UDP, 64 hops.
        assert_eq!(after[14..22], [&[0x6b, 0x80, 0, 0], &before[18..20], &[17, 64]].concat());
        assert_eq!(after[22..54], [octets(flow.by.ip()), octets(flow.to.ip())].concat());
        assert_eq!(after[54..58], [10002u16.to_be_bytes(), 5000u16.to_be_bytes()].concat());
        assert_eq!(after[62..], before[62..]);
        assert_eq!(udp_checksum(&after), 0);
    }
    let good = || frame(flow.key, 0, &[7; 160]);
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = good();
        change(&mut frame);
        frame
    };
    let other = |key| frame(key, 0, &[7; 160]);
    for (what, before) in [
        ("another address", other(FlowKey { from: at("[2001:db8::3]:4000"), ..flow.key })),
        ("another port", other(FlowKey { from: at("[2001:db8::2]:4001"), ..flow.key })),
        ("to another of our ports", other(FlowKey { to: at("[::1]:10002"), ..flow.key })),
        ("another source", changed(&|frame| frame[73] = 9)),
        ("RTCP", changed(&|frame| frame[63] = 200)),
        ("padding", changed(&|frame| frame[62] = 0xa0)),
        ("no checksum", changed(&|frame| frame[60..62].fill(0))),
        ("an extension header", changed(&|frame| frame[20] = 60)),
        ("a fragment", changed(&|frame| frame[20] = 44)),
        ("cut off", changed(&|frame| frame.truncate(150))),
        ("half a header", frame_of(flow.key, &[0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3])),
        ("IPv4 of the same ports", frame(self::flow().key, 0, &[7; 160])),
    ] {
        let (answer, after) = relay.program.test_run(&before).unwrap();
        assert_eq!((answer as i32, after), (PASS, before), "{what}");
    }
    assert_eq!(
        relay.take(flow.key).unwrap().map(|carried| (carried.packets, carried.octets)),
        Some((3, 1400))
    );
    assert_eq!(relay.program.test_run(&good()).unwrap().0 as i32, PASS, "it was taken out");
    // What is of one link only, and what changes its family, goes by sockets.
    assert!(!relay.put(&Flow { to: at("[fe80::1]:5000"), ..flow_v6() }).unwrap());
    assert!(!relay.put(&Flow { to: at("127.0.0.3:5000"), ..flow_v6() }).unwrap());
    assert!(!relay.put(&Flow { to: at("[::1]:5000"), ..self::flow() }).unwrap());
}

#[test]
fn a_packet_of_the_flow_leaves_as_a_socket_of_ours_would_send_it() {
    let Some(relay) = relay() else { return };
    assert!(relay.put(&flow()).unwrap());
    // One of them does not fill an Ethernet frame.
    for payload in [&[7; 160][..], &[1, 2, 3, 4], &[0xff; 1200]] {
        let mut before = frame(flow().key, 0, payload);
        let length = before.len();
        before.resize(length.max(60), 0);
        let (answer, after) = relay.program.test_run(&before).unwrap();
        assert_eq!(answer as i32, LEAVES);
        assert_eq!(after.len(), before.len());
        // RFC 791: the header is a new one; RFC 768: the datagram is the old one.
        assert_eq!(after[14..24], [&[0x45, 46 << 2], &before[16..18], &[0, 0, 0x40, 0, 64, 17]].concat());
        assert_eq!(after[26..34], [[127, 0, 0, 1], [127, 0, 0, 3]].concat());
        assert_eq!(after[34..38], [10002u16.to_be_bytes(), 5000u16.to_be_bytes()].concat());
        assert_eq!(after[42..], before[42..]);
        assert_eq!((checksum(&after[14..34]), udp_checksum(&after[..length])), (0, 0));
    }
    let carried = relay.read(flow().key).unwrap().unwrap();
    assert_eq!((carried.packets, carried.octets), (3, 172 + 16 + 1212));
}

#[test]
fn a_datagram_without_a_checksum_stays_one() {
    let Some(relay) = relay() else { return };
    relay.put(&flow()).unwrap();
    let mut without = frame(flow().key, 0, &[7; 160]);
    without[40..42].fill(0);
    let (answer, after) = relay.program.test_run(&without).unwrap();
    assert_eq!((answer as i32, &after[40..42]), (LEAVES, &[0, 0][..]));
}

/// Whatever is not exactly a flow's plain RTP goes up the stack as it came, and is not counted.
#[test]
fn everything_else_passes_untouched() {
    let Some(relay) = relay() else { return };
    relay.put(&flow()).unwrap();
    let key = flow().key;
    let good = || frame(key, 0, &[7; 160]);
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = good();
        change(&mut frame);
        frame
    };
    let set = |at: usize, octet: u8| {
        changed(&|frame| {
            frame[at] = octet;
            mend(frame)
        })
    };
    let other = |key| frame(key, 0, &[7; 160]);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        // The injection matrix: each part of the name by itself.
        ("another address", other(FlowKey { from: at("127.0.0.4:4000"), ..key })),
        ("another port", other(FlowKey { from: at("127.0.0.2:4001"), ..key })),
        ("to another of our ports", other(FlowKey { to: at("127.0.0.1:10002"), ..key })),
        ("to another of our addresses", other(FlowKey { to: at("127.0.0.9:10000"), ..key })),
        ("the way back", other(FlowKey { from: at("127.0.0.3:5000"), to: at("127.0.0.1:10002") })),
        ("another source", set(53, 9)),
        ("a payload type that was not agreed", set(43, 8)),
        ("another one, marked", set(43, 0x80 | 8)),
        // RFC 3550 §5.1
        ("version 1", set(42, 0x40)),
        ("padding", set(42, 0xa0)),
        ("an extension", set(42, 0x90)),
        ("a contributing source", set(42, 0x81)),
        ("a jump of the sequence", frame(key, 20_000, &[7; 160])),
        // RFC 5761 §4
        ("RTCP", set(43, 200)),
        ("RTCP of feedback", set(43, 205)),
        // RFC 7983
        ("STUN", frame_of(key, &[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])),
        ("DTLS", frame_of(key, &[22; 40])),
        ("an empty datagram", frame_of(key, &[])),
        ("half a header", frame_of(key, &[0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3])),
        ("a frame for another host", changed(&|frame| frame[0] = 2)),
        ("a frame for all", changed(&|frame| frame[..6].fill(0xff))),
        ("another network's (IEEE 802.1Q)", changed(&|frame| drop(frame.splice(12..12, [0x81, 0, 0, 7])))),
        // RFC 791
        ("a first fragment", set(20, 0x20)),
        ("a later fragment", set(21, 1)),
        ("IP options", changed(&|frame| frame[14] = 0x46)),
        (
            "IPv6",
            changed(&|frame| {
                frame[12..14].copy_from_slice(&[0x86, 0xdd]);
            }),
        ),
        ("TCP", set(23, 6)),
        ("cut off", changed(&|frame| frame.truncate(150))),
        ("octets behind the datagram", changed(&|frame| frame.extend([0; 8]))),
        (
            "a datagram shorter than its packet",
            changed(&|frame| {
                frame[39] -= 4;
            }),
        ),
        (
            "a datagram longer than its packet",
            changed(&|frame| {
                frame[39] += 4;
            }),
        ),
    ];
    for (what, before) in cases {
        let (answer, after) = relay.program.test_run(&before).unwrap();
        assert_eq!(answer as i32, PASS, "{what}");
        assert_eq!(after, before, "{what}");
    }
    assert_eq!(relay.read(key).unwrap().unwrap().packets, 0);
    // The same, marked and with the other type, is a flow's.
    for octet in [0x80, 101, 0x80 | 101] {
        assert_eq!(relay.program.test_run(&set(43, octet)).unwrap().0 as i32, LEAVES);
    }
    assert!(relay.take(key).unwrap().is_some());
    assert_eq!(relay.program.test_run(&good()).unwrap().0 as i32, PASS, "it was taken out");
    assert!(relay.take(key).unwrap().is_none());
}

// RFC 3550 §A.1, the same cases as `rtp::Reception`'s.
#[test]
fn loss_reorder_duplicates_and_wraps_are_counted_as_the_shard_counts_them() {
    let Some(relay) = relay() else { return };
    // (first known, sequence numbers, highest with cycles, reordered, duplicates)
    for (first, sequences, highest, reordered, duplicates) in [
        (4u32, &[5u16, 6, 7][..], 7u32, 0, 0),
        (4, &[5, 5, 6, 6, 6], 6, 0, 3),
        (4, &[5, 7, 6, 6, 8], 8, 1, 1),
        (65_533, &[65_534, 0, 65_535, 65_535], 0x1_0000, 1, 1),
        (0x2_ffff, &[1, 0], 0x3_0001, 1, 0),
        (99, &[100, 170, 100], 170, 1, 0),
        (4, &[5, 40_000, 6], 6, 0, 0),
    ] {
        let flow = Flow { seen: Seen { highest: first, before: 1, ..Seen::default() }, ..flow() };
        relay.put(&flow).unwrap();
        for sequence in sequences {
            relay.program.test_run(&frame(flow.key, *sequence, &[7; 160])).unwrap();
        }
        let seen = relay.take(flow.key).unwrap().unwrap().seen;
        assert_eq!(
            (seen.highest, seen.reordered, seen.duplicates),
            (highest, reordered, duplicates),
            "{sequences:?}"
        );
    }
}

fn socket(host: &str) -> UdpSocket {
    let socket = UdpSocket::bind(format!("{host}:0")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

fn own(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().unwrap()
}

#[test]
fn on_loopback_the_peer_hears_it_from_our_socket_and_nobody_else_is_relayed() {
    let Some(mut relay) = relay() else { return };
    relay.attach("lo").unwrap();
    for host in ["127.0.0.1", "[::1]"] {
        on_loopback(&relay, host);
    }
}

fn on_loopback(relay: &KernelRelay, host: &str) {
    let [a, b, at_a, at_b, stranger] = std::array::from_fn(|_| socket(host));
    // As a shard has it: it hears its peer alone.
    at_a.connect(own(&a)).unwrap();
    let key = FlowKey { from: own(&a), to: own(&at_a) };
    let flow = Flow { key, by: own(&at_b), to: own(&b), ..flow() };
    assert!(relay.put(&flow).unwrap());
    let packet = |sequence: u16| rtp(sequence, &[7; 160]);
    let mut room = [0; 2048];
    for sequence in 0..50 {
        a.send_to(&packet(sequence), own(&at_a)).unwrap();
        let (length, from) = b.recv_from(&mut room).unwrap();
        assert_eq!((&room[..length], from), (&packet(sequence)[..], at_b.local_addr().unwrap()));
    }
    // The same words of a stranger go up the stack, where the socket refuses them.
    stranger.send_to(&packet(50), own(&at_a)).unwrap();
    // What is no plain RTP is the socket's as ever.
    a.send_to(&[0x80, 200, 0, 1, 1, 2, 3, 4], own(&at_a)).unwrap();
    assert_eq!(at_a.recv(&mut room).unwrap(), 8);
    let carried = relay.take(key).unwrap().unwrap();
    assert_eq!((carried.packets, carried.octets, carried.timestamp), (50, 50 * 172, 49 * 160));
    assert!(carried.idle.is_some_and(|idle| idle < Duration::from_secs(5)));
    // Taken out: the socket hears it again, and nothing more comes to the other.
    a.send_to(&packet(50), own(&at_a)).unwrap();
    assert_eq!(at_a.recv(&mut room).unwrap(), 172);
    b.set_nonblocking(true).unwrap();
    assert_eq!(b.recv(&mut room).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

// RFC 3550 §A.8, with a clock that stands still: each packet comes 160 ticks too early.
#[test]
fn jitter_is_smoothed_as_the_document_says() {
    let Some(relay) = relay() else { return };
    relay.put(&Flow { clock: 0, ..flow() }).unwrap();
    let mut jitter = 0u32;
    for sequence in 0..40 {
        relay.program.test_run(&frame(flow().key, sequence, &[7; 160])).unwrap();
        if sequence > 0 {
            jitter = jitter + 160 - ((jitter + 8) >> 4);
        }
    }
    assert_eq!(relay.take(flow().key).unwrap().unwrap().seen.jitter, jitter);
    // It goes on from what the shard knew.
    relay.put(&Flow { clock: 8000, seen: Seen { jitter: 77, ..flow().seen }, ..flow() }).unwrap();
    relay.program.test_run(&frame(flow().key, 0, &[7; 160])).unwrap();
    assert_eq!(relay.take(flow().key).unwrap().unwrap().seen.jitter, 77);
}

#[test]
fn what_cannot_be_is_said() {
    let Some(mut relay) = relay() else { return };
    assert!(relay.attach("nosuch0").is_err());
    assert_eq!(relay.attached(), 0);
    // RFC 5737: no interface of this host has it.
    assert!(!relay.put(&Flow { by: at("192.0.2.7:10002"), ..flow() }).unwrap());
    let mut full = 0;
    for port in 1000..1100 {
        let key = FlowKey { from: SocketAddr::from(([127, 0, 0, 2], port)), ..flow().key };
        full += u32::from(relay.put(&Flow { key, ..flow() }).is_err());
    }
    assert!(full > 0, "more flows than the table has room for");
}

/// The calling thread has a network of its own from now on, with nothing in it; false, and why, where it may not.
fn leave_network() -> bool {
    // SAFETY: takes no memory of ours; changes this thread only.
    let left = unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0;
    if !left {
        println!("skipped: no network of one's own here ({})", std::io::Error::last_os_error());
    }
    left
}

fn ip(arguments: &str) {
    let status = std::process::Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.expect("iproute2 is installed").success(), "ip {arguments}");
}

/// By an interface that needs neighbours' addresses, in a network of the test's own: two phones behind one cable.
#[test]
fn by_a_cable_the_frame_finds_its_neighbour() {
    if relay().is_none() {
        return;
    }
    let (tell, told) = std::sync::mpsc::channel();
    let (go, gone) = std::sync::mpsc::channel::<()>();
    // The phones' host.
    let phones = std::thread::spawn(move || {
        let left = leave_network();
        // SAFETY: takes nothing.
        tell.send(left.then(|| unsafe { libc::gettid() })).unwrap();
        if !left || gone.recv().is_err() {
            return None;
        }
        ip("link set lo up");
        ip("addr add 10.9.9.2/24 dev weir1");
        ip("addr add fd00:9::2/64 dev weir1 nodad");
        ip("link set weir1 up");
        Some(["10.9.9.2", "[fd00:9::2]"].map(|host| std::array::from_fn(|_| socket(host))))
    });
    let ours = std::thread::spawn(move || {
        let Some(host) = told.recv().unwrap() else { return };
        assert!(leave_network());
        ip("link add weir0 type veth peer name weir1");
        ip(&format!("link set weir1 netns {host}"));
        ip("addr add 10.9.9.1/24 dev weir0");
        ip("addr add fd00:9::1/64 dev weir0 nodad");
        ip("link set weir0 up");
        go.send(()).unwrap();
        let phones = phones.join().unwrap().unwrap();
        let mut relay = KernelRelay::new(64).unwrap();
        relay.attach("weir0").unwrap();
        for (host, phones) in ["10.9.9.1", "[fd00:9::1]"].into_iter().zip(phones) {
            by_a_cable(&relay, host, phones);
        }
    });
    ours.join().unwrap();
}

fn by_a_cable(relay: &KernelRelay, host: &str, [a, b, stranger]: [UdpSocket; 3]) {
    let (at_a, at_b) = (socket(host), socket(host));
    let key = FlowKey { from: own(&a), to: own(&at_a) };
    let flow = Flow { key, by: own(&at_b), to: own(&b), ..flow() };
    assert!(relay.put(&flow).unwrap());
    let packet = |sequence: u16| rtp(sequence, &[7; 160]);
    let mut room = [0; 2048];
    for sequence in 0..20 {
        a.send_to(&packet(sequence), own(&at_a)).unwrap();
        let (length, from) = b.recv_from(&mut room).unwrap();
        assert_eq!((&room[..length], from), (&packet(sequence)[..], at_b.local_addr().unwrap()));
        stranger.send_to(&packet(sequence), own(&at_a)).unwrap();
    }
    assert_eq!(relay.take(key).unwrap().unwrap().packets, 20);
    // The stranger's went up the stack, to a socket that is not connected here.
    for sequence in 0..20 {
        let (length, from) = at_a.recv_from(&mut room).unwrap();
        assert_eq!((&room[..length], from), (&packet(sequence)[..], stranger.local_addr().unwrap()));
    }
    // What does not fit by the cable is left to the socket, which says so.
    relay.put(&flow).unwrap();
    let long = frame(key, 0, &[7; 1500]);
    assert_eq!(relay.program.test_run(&long).unwrap().0 as i32, PASS);
}
