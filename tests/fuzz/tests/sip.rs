//! SIP: framing, typed headers, and the stack under any sequence of messages.

use std::net::SocketAddr;
use std::time::Duration;

use base::{Entropy, Instant, Outbox};
use bytes::Bytes;
use fuzz::{pieces, script};
use sip::typed::*;
use sip::{
    ClientKey, Config, Frame, Host, HostPort, Input, Limits, Message, Output, Peer, ServerKey, Stack,
    StreamFramer, Timing, Transport, datagram,
};

fn frame<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Frame> {
    let mut framer = StreamFramer::new(Limits::default());
    let mut frames = Vec::new();
    for piece in pieces {
        framer.push(piece);
        while let Some(frame) = framer.next() {
            frames.push(frame);
        }
    }
    frames
}

// RFC 3261 §18.3: Content-Length alone says where messages end, wherever TCP cuts the stream.
#[test]
fn sip_stream() {
    fuzz::target!().for_each(|data: &[u8]| {
        let Some((how, stream)) = data.split_first() else { return };
        assert_eq!(frame(std::iter::once(stream)), frame(pieces(*how, stream)));
    });
}

/// What we write of a message that we have read is read again, and says the same.
fn again(message: &Message) {
    let written = message.to_bytes();
    let Ok(Some(read)) = datagram(written.clone(), &Limits::default()) else {
        panic!("what we write is read: {}", written.escape_ascii());
    };
    assert_eq!(read.body(), message.body());
    assert_eq!(read.headers().len(), message.headers().len());
    assert_eq!(read.to_bytes(), written);
}

#[test]
fn sip_datagram() {
    fuzz::target!().for_each(|data: &[u8]| {
        let Ok(Some(message)) = datagram(Bytes::copy_from_slice(data), &Limits::default()) else { return };
        again(&message);
    });
}

/// A typed header that is read can be written, and is the same then.
macro_rules! round {
    ($headers:expr, $($header:ty),*) => {
        $(if let Ok(all) = $headers.all::<$header>() {
            for one in all {
                let mut headers = sip::Headers::new();
                headers.add(&one);
                let same = headers.must::<$header>();
                assert_eq!(same.as_ref().ok(), Some(&one), "{}", stringify!($header));
            }
        })*
    };
}

#[test]
fn sip_headers() {
    fuzz::target!().for_each(|data: &[u8]| {
        let mut wire = b"OPTIONS sip:a@b SIP/2.0\r\n".to_vec();
        wire.extend_from_slice(data);
        wire.extend_from_slice(b"\r\n\r\n");
        let Ok(Some(message)) = datagram(wire.into(), &Limits::default()) else { return };
        let h = message.headers();
        round!(h, Via, From, To, Contact, Route, CSeq, RAck, ContentType, ContentDisposition, Event);
        round!(h, SubscriptionState, Reason, Replaces, Join, TargetDialog, SessionExpires, Expires);
        round!(h, SessionId, RSeq);
        round!(h, MaxForwards, MinExpires, RetryAfter, Date, AcceptContact, RejectContact);
    });
}

fn peer(kind: u8) -> Peer {
    let transport = if kind & 2 == 0 { Transport::Udp } else { Transport::Tcp };
    Peer::new(transport, SocketAddr::from(([192, 0, 2, 1 + (kind & 1)], 5060)))
}

// RFC 3261 §17, RFC 6026: the transactions, whatever comes and whenever.
#[test]
fn sip_stack() {
    const TRANSACTIONS_MAX: usize = 16;
    fuzz::target!().for_each(|data: &[u8]| {
        let host = Host::parse(b"192.0.2.9").expect("a host");
        let sent_by = vec![(Transport::Udp, HostPort { host, port: Some(5060) })];
        let limits = Limits {
            server_transactions_max: TRANSACTIONS_MAX,
            client_transactions_max: TRANSACTIONS_MAX,
            ..Limits::default()
        };
        let config = Config { sent_by, limits, timing: Timing::default() };
        let mut stack = Stack::new(config, Entropy::from_number(1));
        let mut out = Outbox::with_max(256);
        let mut now = Instant::ZERO;
        let (mut asked, mut client): (Vec<(ServerKey, sip::Request)>, u64) = (Vec::new(), 0);
        for (kind, rest) in script(data).take(64) {
            let read = || datagram(Bytes::copy_from_slice(rest), &Limits::default());
            let input = match (kind >> 4, read()) {
                (0..=4, Ok(Some(message))) => Input::Received { peer: peer(kind), message },
                (0..=4, Err(malformed)) => Input::Malformed { peer: peer(kind), malformed },
                (5, Ok(Some(Message::Request(request)))) => {
                    client += 1;
                    Input::Send { key: ClientKey(client), to: peer(kind), request }
                }
                (6, Ok(Some(Message::Request(request)))) => Input::Ack { to: peer(kind), request },
                (7, _) => match asked.pop() {
                    Some((server, request)) => {
                        let code =
                            100 + 100 * u16::from(kind & 7) + u16::from(rest.first().copied().unwrap_or(0));
                        let response = request.respond(code.clamp(100, 699));
                        if !response.is_provisional() || kind & 8 != 0 {
                            Input::Respond { server, response }
                        } else {
                            asked.push((server, request));
                            Input::Respond { server, response }
                        }
                    }
                    None => continue,
                },
                (8, _) => Input::Cancel { key: ClientKey(client), reason: None },
                (9, _) => Input::Failed { peer: peer(kind) },
                _ => {
                    now += Duration::from_millis(1 + 100 * rest.len() as u64);
                    for _ in 0..256 {
                        if stack.next_timeout().is_none_or(|due| due > now) {
                            break;
                        }
                        stack.timeout(now, &mut out);
                        out.drain();
                    }
                    continue;
                }
            };
            stack.handle(now, input, &mut out);
            assert_eq!(out.refused(), 0);
            for output in out.drain() {
                match output {
                    Output::Request { server, request, .. } => asked.push((server, request)),
                    Output::Transmit { bytes, .. } => {
                        assert!(
                            datagram(bytes.clone(), &Limits::default()).is_ok(),
                            "{}",
                            bytes.escape_ascii()
                        );
                    }
                    _ => {}
                }
            }
            assert!(stack.server_transactions() <= TRANSACTIONS_MAX);
            assert!(stack.client_transactions() <= TRANSACTIONS_MAX);
        }
    });
}
