//! SIP over WebSocket (RFC 7118): the handshake, messages both ways, and what a hostile client gets.

use std::io::ErrorKind;

use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use super::*;

const LISTENER: &str = "[service.registrar]\nservice_route = true\n[service.identity]\ntrusted_peers = [\"127.0.0.1\"]\n\
    [[sip.listeners]]\ntransport = \"ws\"\naddress = \"127.0.0.1:0\"\n\
    [[sip.listeners]]\ntransport = \"wss\"\naddress = \"127.0.0.1:0\"\n";

fn connect<S: Read + Write>(
    stream: S,
    subprotocol: Option<&'static str>,
) -> Result<WebSocket<S>, StatusCode> {
    let mut request = "ws://weir.example/".into_client_request().unwrap();
    if let Some(name) = subprotocol {
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(name));
    }
    match tungstenite::client(request, stream) {
        Ok((socket, response)) => {
            assert_eq!(response.headers().get("Sec-WebSocket-Protocol").unwrap(), "sip");
            Ok(socket)
        }
        Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => {
            Err(response.status())
        }
        Err(error) => panic!("{error}"),
    }
}

fn plain(node: &Node) -> TcpStream {
    let stream = TcpStream::connect(node.sip(Transport::Ws)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn open(node: &Node) -> WebSocket<TcpStream> {
    connect(plain(node), Some("sip")).unwrap()
}

fn text<S: Read + Write>(socket: &mut WebSocket<S>) -> String {
    match socket.read().unwrap() {
        Message::Text(text) => text.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Reads until the other side is gone.
fn is_closed(socket: &mut WebSocket<TcpStream>) -> bool {
    loop {
        match socket.read() {
            Ok(_) => {}
            Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(_) => return true,
        }
    }
}

// RFC 7118 §5: one message in each; §4.2: text and binary.
#[test]
fn messages_go_both_ways() {
    let node = node(LISTENER);
    let mut socket = open(&node);
    socket.send(Message::text(options(1, "WS"))).unwrap();
    assert_eq!(code(&text(&mut socket)), 200);
    socket.send(Message::binary(options(2, "WS").into_bytes())).unwrap();
    assert_eq!(code(&text(&mut socket)), 200);
    // Without a length: it ends with its own message.
    let bare = options(3, "WS").replace("Content-Length: 0\r\n", "");
    socket.send(Message::text(bare)).unwrap();
    assert_eq!(code(&text(&mut socket)), 200);
    // RFC 5626 §4.4.1, RFC 6455 §5.5.2.
    socket.send(Message::text("\r\n\r\n")).unwrap();
    assert_eq!(text(&mut socket), "\r\n");
    socket.send(Message::Ping("x".into())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Pong("x".into()));
    node.reaches("weir_control_messages_received_total{transport=\"ws\"}", 3);
    node.reaches("weir_control_connections_open{transport=\"ws\"}", 1);
    socket.close(None).unwrap();
    assert!(is_closed(&mut socket));
    node.reaches("weir_control_connections_closed_total{reason=\"peer\"}", 1);
    node.reaches("weir_control_connections_open{transport=\"ws\"}", 0);
}

#[test]
fn under_tls_the_same() {
    let node = node(LISTENER);
    let stream = super::tls::handshake(TcpStream::connect(node.sip(Transport::Wss)).unwrap());
    let mut socket = connect(stream, Some("sip, other")).unwrap();
    socket.send(Message::text(options(1, "WSS"))).unwrap();
    assert_eq!(code(&text(&mut socket)), 200);
    node.reaches("weir_control_messages_received_total{transport=\"wss\"}", 1);
}

// RFC 7118 §4.1.
#[test]
fn a_client_that_does_not_offer_sip_is_refused() {
    let node = node(LISTENER);
    for other in [None, Some("mqtt"), Some("sipx")] {
        assert_eq!(connect(plain(&node), other).unwrap_err(), StatusCode::BAD_REQUEST);
    }
    node.reaches("weir_control_connections_closed_total{reason=\"malformed\"}", 3);
}

// RFC 7118 §6: what is for a browser goes over the connection that it has opened; its address is nobody's.
#[test]
fn a_browser_that_has_registered_is_reached_over_its_connection() {
    let node = node(LISTENER);
    let mut bob = open(&node);
    let register = "REGISTER sip:weir.example SIP/2.0\r\nVia: SIP/2.0/WS df7jal23ls0d.invalid;branch=z9hG4bKr;rport\r\n\
        Max-Forwards: 70\r\nFrom: <sip:bob@weir.example>;tag=b\r\nTo: <sip:bob@weir.example>\r\nCall-ID: r\r\n\
        CSeq: 1 REGISTER\r\nContact: <sip:bob@df7jal23ls0d.invalid;transport=ws>;reg-id=1;\
        +sip.instance=\"<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>\"\r\nSupported: path, outbound\r\n\
        Expires: 600\r\nContent-Length: 0\r\n\r\n";
    bob.send(Message::text(register)).unwrap();
    let answer = text(&mut bob);
    assert_eq!(code(&answer), 200, "{answer}");
    let route = format!("Service-Route: <sip:{};transport=ws;lr>", node.sip(Transport::Ws));
    assert!(answer.contains(&route), "{answer}");
    let mut alice = super::sessions::Phone::new(&node, "alice");
    assert_eq!(alice.register(), 200);
    alice.message("bob", "over the web");
    let heard = text(&mut bob);
    assert!(
        heard.starts_with("MESSAGE sip:bob@df7jal23ls0d.invalid;transport=ws SIP/2.0\r\nVia: SIP/2.0/WS "),
        "{heard}"
    );
    assert!(heard.ends_with("over the web"), "{heard}");
    let kept = ["Via:", "From:", "To:", "Call-ID:", "CSeq:"];
    let head: Vec<_> =
        heard.split("\r\n").filter(|line| kept.iter().any(|name| line.starts_with(name))).collect();
    let answer = format!("SIP/2.0 200 OK\r\n{}\r\nContent-Length: 0\r\n\r\n", head.join("\r\n"));
    bob.send(Message::text(answer)).unwrap();
    assert_eq!(alice.answer(), 200);
    // With the connection the way is gone, and nobody else is given what is for bob.
    bob.close(None).unwrap();
    assert!(is_closed(&mut bob));
}

#[test]
fn what_is_malformed_is_answered_and_the_connection_goes_on() {
    let node = node(LISTENER);
    let mut socket = open(&node);
    let broken = options(1, "WS").replace("CSeq: 1 OPTIONS", "CSeq: x OPTIONS");
    socket.send(Message::text(broken)).unwrap();
    assert_eq!(code(&text(&mut socket)), 400);
    socket.send(Message::text("this is no SIP")).unwrap();
    socket.send(Message::text(options(2, "WS"))).unwrap();
    assert_eq!(code(&text(&mut socket)), 200);
}

#[test]
fn a_message_that_is_larger_than_any_may_be_ends_the_connection() {
    let node = node(LISTENER);
    let mut stream = open(&node);
    // A frame of 2^40 octets is announced (RFC 6455 §5.2).
    let head = [[0x82, 0xff].as_slice(), &(1u64 << 40).to_be_bytes(), &[0; 4], b"INVITE"].concat();
    stream.get_mut().write_all(&head).unwrap();
    assert!(is_closed(&mut stream));
    node.reaches("weir_control_connections_closed_total{reason=\"malformed\"}", 1);
}

#[test]
fn a_handshake_or_a_message_that_does_not_end_is_slow() {
    let node = node(&format!("{LISTENER}[sip.limits]\nmessage_ms = 300\n"));
    let mut stream = plain(&node);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    node.reaches("weir_control_connections_closed_total{reason=\"slow\"}", 1);
    // Nothing at all after the handshake.
    assert!(is_closed(&mut open(&node)));
    // A frame that is announced and never ends, after a message that did.
    let mut socket = open(&node);
    socket.send(Message::text(options(1, "WS"))).unwrap();
    assert_eq!(code(&text(&mut socket)), 200);
    socket.get_mut().write_all(&[0x81, 0xfe, 0x01, 0x00, 0, 0, 0, 0, b'I']).unwrap();
    assert!(is_closed(&mut socket));
    node.reaches("weir_control_connections_closed_total{reason=\"slow\"}", 3);
}

/// A frame of a client (RFC 6455 §5.2) whose mask changes nothing.
fn frame(first: u8, octets: &[u8]) -> Vec<u8> {
    [&[first, 0x80 | octets.len() as u8, 0, 0, 0, 0], octets].concat()
}

// RFC 6455 §5.5.2: pings are answered; the answers wait for nobody who does not read them.
#[test]
fn a_client_that_pings_and_reads_nothing_is_let_go() {
    let node = node(LISTENER);
    let mut socket = open(&node);
    let pings: Vec<u8> = (0..500).flat_map(|_| frame(0x89, &[b'x'; 125])).collect();
    // Far more than the kernel holds of the answers.
    let sent = (0..1500).take_while(|_| socket.get_mut().write_all(&pings).is_ok()).count();
    node.reaches("weir_control_connections_closed_total{reason=\"unread\"}", 1);
    assert!(sent < 1500, "{sent}");
}

// RFC 6455 §5.4: pings may stand between the parts of a message, which is none the sooner complete for it.
#[test]
fn a_message_in_parts_with_pings_between_them_is_slow_too() {
    let node = node(&format!("{LISTENER}[sip.limits]\nmessage_ms = 500\n"));
    let mut socket = open(&node);
    socket.send(Message::text(options(1, "WS"))).unwrap();
    assert_eq!(code(&text(&mut socket)), 200);
    let mut first = 0x01;
    let begun = std::time::Instant::now();
    while begun.elapsed() < 2 * PATIENCE {
        let part = [frame(first, b"OPTIONS"), frame(0x89, b"still here")].concat();
        if socket.get_mut().write_all(&part).is_err() {
            break;
        }
        first = 0x00;
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    node.reaches("weir_control_connections_closed_total{reason=\"slow\"}", 1);
}
