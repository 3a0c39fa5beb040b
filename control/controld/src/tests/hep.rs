//! Copies of messages for a collector: HEP3, read octet by octet.

use super::*;

/// The chunks of a packet: type and value.
fn chunks(packet: &[u8]) -> Vec<(u16, Vec<u8>)> {
    assert_eq!(&packet[..4], b"HEP3");
    assert_eq!(usize::from(u16::from_be_bytes([packet[4], packet[5]])), packet.len());
    let (mut rest, mut all) = (&packet[6..], Vec::new());
    while !rest.is_empty() {
        assert_eq!(&rest[..2], [0, 0]);
        let (kind, length) = (u16::from_be_bytes([rest[2], rest[3]]), u16::from_be_bytes([rest[4], rest[5]]));
        let (one, more) = rest.split_at(usize::from(length));
        all.push((kind, one[6..].to_vec()));
        rest = more;
    }
    all
}

#[test]
fn each_message_is_copied_with_its_addresses_and_without_its_body() {
    for bodies in [false, true] {
        let collector = UdpSocket::bind("127.0.0.1:0").unwrap();
        collector.set_read_timeout(Some(PATIENCE)).unwrap();
        let more = format!(
            "[sip.hep]\ncollector = \"{}\"\ncapture_id = 2001\nkey = \"letmein\"\nbodies = {bodies}\n",
            collector.local_addr().unwrap()
        );
        let node = node(&more);
        let copy = || {
            let mut packet = [0; 65_535];
            let octets = collector.recv(&mut packet).unwrap();
            chunks(&packet[..octets])
        };
        let said =
            options(1, "TCP").replace("Content-Length: 0", "Content-Type: text/plain\r\nContent-Length: 6");
        let ours = |phone: SocketAddr, node: SocketAddr, proto: u8, first: bool| {
            let (from, to) = if first { (phone, node) } else { (node, phone) };
            let all = copy();
            let of = |kind| &all.iter().find(|(is, _)| *is == kind).unwrap().1;
            assert_eq!((of(1), of(2)), (&vec![2], &vec![proto]));
            assert_eq!((&of(3)[..], &of(4)[..]), ([127, 0, 0, 1].as_slice(), [127, 0, 0, 1].as_slice()));
            assert_eq!(
                (&of(7)[..], &of(8)[..]),
                (from.port().to_be_bytes().as_slice(), to.port().to_be_bytes().as_slice())
            );
            let at = u32::from_be_bytes(of(9)[..].try_into().unwrap());
            assert!(at > 1_700_000_000 && u32::from_be_bytes(of(10)[..].try_into().unwrap()) < 1_000_000);
            assert_eq!(
                (&of(11)[..], &of(12)[..], &of(14)[..]),
                ([1].as_slice(), 2001u32.to_be_bytes().as_slice(), b"letmein".as_slice())
            );
            String::from_utf8(of(15).clone()).unwrap()
        };
        let mut stream = node.tcp();
        stream.write_all(format!("{said}secret").as_bytes()).unwrap();
        let answer = response(&mut stream);
        let phone = stream.local_addr().unwrap();
        let told = ours(phone, node.sip(Transport::Tcp), 6, true);
        assert!(
            told.starts_with("OPTIONS ")
                && told.ends_with(if bodies { "\r\n\r\nsecret" } else { "\r\n\r\n" }),
            "{told}"
        );
        assert_eq!(ours(phone, node.sip(Transport::Tcp), 6, false), answer);
        let socket = node.udp();
        socket.send(options(2, "UDP").as_bytes()).unwrap();
        let answer = datagram(&socket);
        let phone = socket.local_addr().unwrap();
        assert_eq!(ours(phone, node.sip(Transport::Udp), 17, true), options(2, "UDP"));
        assert_eq!(ours(phone, node.sip(Transport::Udp), 17, false), answer);
        node.reaches("weir_control_hep_copies_total{outcome=\"sent\"}", 4);
    }
}

/// A collector that is not there costs nothing but its copies.
#[test]
fn without_a_collector_calls_go_on() {
    let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let node = node(&format!("[sip.hep]\ncollector = \"{gone}\"\n"));
    let socket = node.udp();
    for n in 1..=20 {
        socket.send(options(n, "UDP").as_bytes()).unwrap();
        assert_eq!(code(&datagram(&socket)), 200);
    }
}
