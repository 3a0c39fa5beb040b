//! Streams: framing does not depend on how the network cuts them.

use super::*;

#[test]
fn options_is_answered() {
    let node = node("");
    let mut stream = node.tcp();
    stream.write_all(options(1, "TCP").as_bytes()).unwrap();
    assert_eq!(code(&response(&mut stream)), 200);
    node.reaches("weir_control_connections_open{transport=\"tcp\"}", 1);
    drop(stream);
    node.reaches("weir_control_connections_closed_total{reason=\"peer\"}", 1);
    assert_eq!(node.metric("weir_control_connections_open"), 0);
}

#[test]
fn a_message_may_be_cut_at_every_octet() {
    let node = node("");
    let mut stream = node.tcp();
    let length = options(1000, "TCP").len();
    for cut in 1..length {
        let text = options(1000 + u32::try_from(cut).unwrap(), "TCP");
        let (head, tail) = text.as_bytes().split_at(cut);
        stream.write_all(head).unwrap();
        // Two segments: the second is written only when the first has been on its way for a moment.
        std::thread::sleep(Duration::from_micros(200));
        stream.write_all(tail).unwrap();
        assert_eq!(code(&response(&mut stream)), 200, "cut at {cut}");
    }
    let sent = u64::try_from(length).unwrap() - 1;
    node.reaches("weir_control_messages_received_total{transport=\"tcp\"}", sent);
    assert_eq!(node.metric("weir_control_messages_discarded_total"), 0);
}

#[test]
fn a_message_may_come_octet_by_octet() {
    let node = node("");
    let mut stream = node.tcp();
    for octet in options(1, "TCP").as_bytes() {
        stream.write_all(&[*octet]).unwrap();
    }
    assert_eq!(code(&response(&mut stream)), 200);
}

#[test]
fn many_messages_may_come_in_one_segment() {
    let node = node("");
    let mut stream = node.tcp();
    let all: String = (1..=50).map(|n| options(n, "TCP")).collect();
    stream.write_all(all.as_bytes()).unwrap();
    let mut answered: Vec<u32> =
        (0..50).map(|_| cseq(&response(&mut stream)).split(' ').next().unwrap().parse().unwrap()).collect();
    answered.sort_unstable();
    assert_eq!(answered, (1..=50).collect::<Vec<_>>());
}

/// RFC 5626 §4.4.1: two line ends are answered with one.
#[test]
fn a_ping_is_answered_with_a_pong() {
    let node = node("");
    let mut stream = node.tcp();
    stream.write_all(b"\r\n\r\n").unwrap();
    let mut pong = [0; 2];
    stream.read_exact(&mut pong).unwrap();
    assert_eq!(&pong, b"\r\n");
    stream.write_all(options(1, "TCP").as_bytes()).unwrap();
    assert_eq!(code(&response(&mut stream)), 200);
}

/// Where the next message begins is unknown: what can be answered is, and the connection ends.
#[test]
fn a_stream_that_cannot_be_framed_is_answered_and_closed() {
    let node = node("");
    let mut stream = node.tcp();
    let bad = options(1, "TCP").replace("Content-Length: 0", "Content-Length: many");
    stream.write_all(bad.as_bytes()).unwrap();
    assert_eq!(code(&response(&mut stream)), 400);
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "closed");
    node.reaches("weir_control_messages_discarded_total{reason=\"content_length\"}", 1);
    node.reaches("weir_control_connections_closed_total{reason=\"malformed\"}", 1);
}

/// A message whose start is bad but whose end is known costs the connection nothing.
#[test]
fn a_bad_message_that_can_be_framed_costs_no_connection() {
    let node = node("");
    let mut stream = node.tcp();
    let bad = options(1, "TCP").replace("CSeq: 1 OPTIONS", "CSeq: 1 INVITE");
    stream.write_all(bad.as_bytes()).unwrap();
    assert_eq!(code(&response(&mut stream)), 400);
    stream.write_all(options(2, "TCP").as_bytes()).unwrap();
    assert_eq!(code(&response(&mut stream)), 200);
}
