//! Datagrams: answered, refused or silent, and counted to the last one.

use super::*;

#[test]
fn options_is_answered() {
    let node = node("");
    let socket = node.udp();
    socket.send(options(1, "UDP").as_bytes()).unwrap();
    let answer = datagram(&socket);
    assert_eq!((code(&answer), cseq(&answer)), (200, "1 OPTIONS"));
    // RFC 3581 §4: the source port stands in the Via that comes back.
    assert!(answer.contains(&format!("rport={}", socket.local_addr().unwrap().port())), "{answer}");
    node.reaches("weir_control_requests_received_total{method=\"options\"}", 1);
}

/// What is sent, what comes back (none: silence), and the reason that it is counted under.
fn refused() -> Vec<(String, Option<u16>, &'static str)> {
    let good = |n| options(n, "UDP");
    let without = |n, name: &str| {
        let text = good(n);
        let kept: Vec<_> = text.split("\r\n").filter(|line| !line.starts_with(name)).collect();
        kept.join("\r\n")
    };
    vec![
        ("\u{1}\u{2}not sip at all\r\n\r\n".to_owned(), None, "start_line"),
        ("OPTIONS\r\n\r\n".to_owned(), None, "start_line"),
        (good(11).replace("OPTIONS sip:weir.example SIP/2.0", "OPTIONS sip:weir.example SIP/7.0"), Some(505), "version"),
        (good(12).replace("OPTIONS sip:weir.example ", "OPTIONS sip:we ir.example "), Some(400), "request_uri"),
        (good(13).replace("Content-Length: 0", "Content-Length: 999"), Some(400), "body_truncated"),
        (good(14).replace("Content-Length: 0", "Content-Length: -9"), Some(400), "content_length"),
        (good(15).replace("CSeq: 15 OPTIONS", "CSeq: 15 INVITE"), Some(400), "method_mismatch"),
        (without(16, "Call-ID"), Some(400), "header_missing"),
        (without(17, "From"), Some(400), "header_missing"),
        (good(18).replace("Max-Forwards: 70", "no colon here"), None, "header_line"),
        (good(19).replace("Max-Forwards: 70\r\n", "Max-Forwards: 70\r\nRequire: nothing-known\r\n"), Some(420), "screened"),
        (good(20).replace("OPTIONS sip:weir.example", "OPTIONS nobodyKnowsThisScheme:x"), Some(416), "screened"),
        (good(21).replace("OPTIONS", "NEWMETHOD"), Some(501), "screened"),
        ("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bKnobody\r\nFrom: <sip:a@b>;tag=1\r\n\
          To: <sip:c@d>;tag=2\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n".to_owned(), None, "stray_response"),
        ("SIP/2.0 1000 Much\r\n\r\n".to_owned(), None, "status_code"),
    ]
}

/// Show 6 of the requirements: every discarded message appears under its reason, and the sum is what was sent.
#[test]
fn bad_input_is_answered_or_silent_and_counted() {
    let node = node("");
    let cases = refused();
    let sent = cases.len() as u64;
    for (text, expect, reason) in &cases {
        let before = node.metric(&format!("weir_control_messages_discarded_total{{reason=\"{reason}\"}}"));
        let socket = node.udp();
        socket.send(text.as_bytes()).unwrap();
        if let Some(expect) = expect {
            let answer = datagram(&socket);
            assert_eq!(code(&answer), *expect, "{text}\n{answer}");
        }
        node.reaches(&format!("weir_control_messages_discarded_total{{reason=\"{reason}\"}}"), before + 1);
        if expect.is_none() {
            socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            assert!(socket.recv(&mut [0; 2048]).is_err(), "not silent: {text}");
        }
    }
    node.reaches("weir_control_messages_received_total{transport=\"udp\"}", sent);
    node.reaches("weir_control_messages_discarded_total", sent);
    assert_eq!(node.metric("weir_control_requests_received_total"), 0);
}

#[test]
fn keep_alives_are_no_messages() {
    let node = node("");
    let socket = node.udp();
    for ping in [&b""[..], b"\r\n\r\n", b"\0\0\0\0"] {
        socket.send(ping).unwrap();
    }
    node.reaches("weir_control_pings_received_total{transport=\"udp\"}", 3);
    assert_eq!(node.metric("weir_control_messages_received_total"), 0);
}

/// The largest datagram there is, and random octets: the process lives on.
#[test]
fn noise_harms_nobody() {
    let node = node("");
    let socket = node.udp();
    let mut noise = base::Entropy::from_number(7);
    for size in [1, 3, 100, 1500, 20_000, 65_000] {
        let mut octets = vec![0; size];
        for _ in 0..20 {
            noise.fill(&mut octets);
            octets[0] |= 0x80;
            socket.send(&octets).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    node.reaches("weir_control_messages_discarded_total", 120);
    socket.send(options(1, "UDP").as_bytes()).unwrap();
    assert_eq!(code(&datagram(&socket)), 200);
}

/// RFC 5626 §4.4.2: a keep-alive by STUN on the SIP port says where it came from; the flow's messages go on beside it.
#[test]
fn a_keep_alive_by_stun_is_answered() {
    let node = node("");
    let socket = node.udp();
    for n in 1..=3 {
        socket.send(&rtp::stun::binding(&[n; 12])).unwrap();
        let mut buffer = [0; 128];
        let octets = socket.recv(&mut buffer).unwrap();
        assert_eq!((octets, &buffer[..2], &buffer[8..20]), (32, &[1, 1][..], &[n; 12][..]));
        let port = u16::from_be_bytes([buffer[26] ^ 0x21, buffer[27] ^ 0x12]);
        assert_eq!(port, socket.local_addr().unwrap().port());
        socket.send(options(u32::from(n), "UDP").as_bytes()).unwrap();
        assert_eq!(code(&datagram(&socket)), 200);
    }
    // No STUN, and no SIP either.
    socket.send(&[0, 1, 0, 0, 1, 2, 3, 4]).unwrap();
    node.reaches("weir_control_pings_received_total{transport=\"udp\"}", 3);
}
