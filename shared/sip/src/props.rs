//! Properties: what is written reads back, and whatever arrives is survived.

use base::{Entropy, Instant, Outbox};
use bytes::Bytes;
use proptest::prelude::*;

use crate::digest::{Authorization, Challenge};
use crate::typed::*;
use crate::*;

const SEEDS: &[&str] = &[
    "INVITE sip:bob@example.com;user=phone SIP/2.0\r\nVia: SIP/2.0/UDP [2001:db8::1]:5060;branch=z9hG4bK1;rport, SIP/2.0/TCP b;received=192.0.2.1\r\n\
     From: \"A \\\" B\" <sip:alice:pw@example.com>;tag=1\r\nt: <tel:+1-555;phone-context=x>\r\ni: c\r\nCSeq: 1 INVITE\r\n\
     Contact: <sip:a@b;gr=urn:uuid:1>;+sip.instance=\"<urn:x>\";expires=10;q=0.5\r\nAuthorization: Digest username=\"a\", realm=\"r\", nonce=\"n\", uri=\"sip:b\", response=\"x\", qop=auth, nc=00000001, cnonce=\"c\"\r\n\
     Content-Type: multipart/mixed;boundary=b\r\nAccept-Contact: *;a=\"b\";require\r\nReason: SIP;cause=200;text=\"x\"\r\n\
     Subject: folded\r\n again\r\nSession-Expires: 90;refresher=uac\r\nReplaces: x;to-tag=1;from-tag=2\r\nContent-Length: 34\r\n\r\n--b\r\nA: b\r\n\r\nhello\r\n--b\r\n\r\n--b--\r\n",
    "ACK sip:b@h SIP/2.0\r\nv: SIP/2.0/UDP a;branch=z9hG4bK1\r\nf: <sip:a@h>;tag=1\r\nt: <sip:b@h>;tag=2\r\ni: c\r\nCSeq: 1 ACK\r\nl: 0\r\n\r\n",
    "CANCEL sip:b@h SIP/2.0\r\nv: SIP/2.0/UDP a;branch=z9hG4bK1\r\nf: <sip:a@h>;tag=1\r\nt: <sip:b@h>\r\ni: c\r\nCSeq: 1 CANCEL\r\nl: 0\r\n\r\n",
    "SIP/2.0 200 OK\r\nv: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKa;rport\r\nf: <sip:a@h>;tag=1\r\nt: <sip:b@h>;tag=2\r\ni: c\r\nCSeq: 1 INVITE\r\n\
     Warning: 399 h \"127 x\"\r\nRetry-After: 5 (c);duration=3\r\nWWW-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth\"\r\nl: 0\r\n\r\n",
    "REGISTER sip:h SIP/2.0\r\nVia: SIP/2.0/TLS a\r\nFrom: sip:a@h;tag=1\r\nTo: sip:a@h\r\nCall-ID: x\r\nCSeq: 2 REGISTER\r\nContact: *\r\nExpires: 0\r\nDate: Sat, 13 Nov 2010 23:29:00 GMT\r\nContent-Length: 0\r\n\r\n",
];

/// A seed with octets changed, cut, doubled and spliced.
fn mutant() -> impl Strategy<Value = Vec<u8>> {
    let edit = (0usize..4, any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>());
    (0..SEEDS.len(), 0..SEEDS.len(), prop::collection::vec(edit, 0..12)).prop_map(|(seed, other, edits)| {
        let mut bytes = SEEDS[seed].as_bytes().to_vec();
        for (kind, a, b, octet) in edits {
            if bytes.is_empty() {
                break;
            }
            let (a, b) = (a.index(bytes.len()), b.index(bytes.len()));
            let (low, high) = (a.min(b), a.max(b));
            match kind {
                // Octets that mean something are more telling than any.
                0 => {
                    bytes[a] =
                        *b"\r\n\t \0:;,<>\"\\@%=/[]*+-09aZ\xff".get(usize::from(octet) % 26).unwrap_or(&octet)
                }
                1 => drop(bytes.drain(low..high.min(low + 40))),
                2 => {
                    let piece = bytes[low..high.min(low + 40)].to_vec();
                    bytes.splice(b..b, piece);
                }
                _ => bytes.splice(a..a, SEEDS[other].bytes().skip(b).take(60)).for_each(drop),
            }
        }
        bytes
    })
}

/// Asks every typed reader for everything; what one reads it must also write so that it reads the same again.
fn read_all(headers: &Headers) {
    fn each<H: Header + PartialEq + std::fmt::Debug>(headers: &Headers) {
        for value in headers.values(&H::NAME).filter_map(|v| H::parse(v).ok()) {
            let text = value.to_string();
            match H::parse(text.as_bytes()) {
                Ok(again) => assert_eq!(again, value, "{text}"),
                Err(bad) => panic!("{bad}: {text}"),
            }
        }
    }
    each::<Via>(headers);
    each::<From>(headers);
    each::<To>(headers);
    each::<Contact>(headers);
    each::<CSeq>(headers);
    each::<ContentType>(headers);
    each::<AcceptContact>(headers);
    each::<Reason>(headers);
    each::<Warning>(headers);
    each::<SessionExpires>(headers);
    each::<Replaces>(headers);
    each::<Date>(headers);
    each::<Authorization>(headers);
    each::<crate::digest::WwwAuthenticate>(headers);
    let _ = (
        headers.one::<Challenge>(&Name::ProxyAuthenticate),
        Contacts::of(headers),
        headers.present().is_ok(),
    );
}

fn survive(bytes: &[u8]) {
    let limits = Limits { head_bytes_max: 4096, headers_max: 40, ..Limits::default() };
    if let Ok(Some(message)) = datagram(Bytes::copy_from_slice(bytes), &limits) {
        read_all(message.headers());
        let wire = message.to_bytes();
        match datagram(wire, &Limits::default()) {
            Ok(Some(again)) => {
                assert_eq!(again.body(), message.body());
                assert_eq!(
                    again.headers().len() - 1,
                    message.headers().len() - message.headers().count(&Name::ContentLength)
                );
                match (&again, &message) {
                    (Message::Request(a), Message::Request(b)) => {
                        assert_eq!((&a.method, &a.uri), (&b.method, &b.uri))
                    }
                    (Message::Response(a), Message::Response(b)) => {
                        assert_eq!((a.code, &a.reason), (b.code, &b.reason))
                    }
                    _ => panic!("a request became a response"),
                }
            }
            other => panic!("{other:?}"),
        }
        if let Ok(Some(kind)) = message.headers().typed::<ContentType>() {
            let _ = multipart::parse(&kind, message.body(), &limits);
        }
        if let Message::Request(request) = &message {
            let _ = screen::Rules::default().screen(request);
            let _ = hop::next_hop(request);
        }
    }
}

fn stack() -> Stack {
    let sent_by = vec![(Transport::Udp, HostPort { host: Host::Name("h".into()), port: None })];
    let limits = Limits { server_transactions_max: 8, client_transactions_max: 4, ..Limits::default() };
    Stack::new(Config { sent_by, limits, timing: Timing::default() }, Entropy::from_number(9))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn mutants_are_survived(bytes in mutant()) {
        survive(&bytes);
    }

    #[test]
    fn octets_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        survive(&bytes);
        let _ = Uri::parse(&bytes);
        let _ = NameAddr::parse(&bytes);
        let _ = multipart::parse(&MediaType::parse(b"multipart/x;boundary=b").unwrap(), &bytes.into(), &Limits::default());
    }

    /// However a stream is cut, it gives the same frames, and holds no more than its limits.
    #[test]
    fn streams_do_not_depend_on_cuts(parts in prop::collection::vec(mutant(), 1..4), cuts in prop::collection::vec(1usize..200, 1..40)) {
        let wire = parts.concat();
        let limits = Limits { head_bytes_max: 2000, body_bytes_max: 2000, ..Limits::default() };
        let frames = |cuts: &[usize]| {
            let mut framer = StreamFramer::new(limits.clone());
            let (mut all, mut rest, mut turn) = (Vec::new(), &wire[..], 0);
            while !rest.is_empty() {
                let (piece, tail) = rest.split_at(cuts[turn % cuts.len()].min(rest.len()));
                (rest, turn) = (tail, turn + 1);
                framer.push(piece);
                all.extend(std::iter::from_fn(|| framer.next()));
                assert!(framer.buffered() <= limits.stream_bytes_max());
            }
            (all, framer.is_broken())
        };
        prop_assert_eq!(frames(&cuts), frames(&[1]));
    }

    #[test]
    fn uris_read_back(user in "[a-zA-Z0-9&=+$,;?/_.!~*'()-]{1,12}", host in "[a-z][a-z0-9-]{0,8}(\\.[a-z]{2,3})?", port in proptest::option::of(any::<u16>()), param in "[a-z]{1,6}", value in proptest::option::of("[a-zA-Z0-9:/-]{1,9}"), free in ".{0,12}") {
        let port_text = port.map(|p| format!(":{p}")).unwrap_or_default();
        let value_text = value.as_ref().map(|v| format!("={v}")).unwrap_or_default();
        let text = format!("sip:{user}@{host}{port_text};{param}{value_text}");
        let uri: Uri = text.parse().unwrap();
        prop_assert_eq!(uri.to_string(), text);
        prop_assert_eq!((uri.user.as_deref(), uri.port), (Some(user.as_str()), port));
        prop_assert!(uri.equivalent(&uri));
        // Whatever text is put into it, it stays one URI.
        let mut dressed = Uri::sip(&free, "h");
        dressed.add_header("x", &free);
        let mut again: Uri = dressed.to_string().parse().unwrap();
        prop_assert_eq!(again.user_decoded().map(|u| u.into_owned()), (!free.is_empty()).then(|| free.clone()));
        prop_assert_eq!(again.take_header("X"), Some(free.clone()));
        let address = NameAddr { display: Some(free.replace(['\0', '\r', '\n'], " ")), ..NameAddr::new(dressed.clone()) };
        prop_assert_eq!(NameAddr::parse(address.to_string().as_bytes()), Ok(address));
    }

    /// Whatever arrives in whatever order, tables stay within their limits and everything ends.
    #[test]
    fn the_stack_survives_and_forgets(parts in prop::collection::vec((mutant(), 0u16..800, 0u64..3000), 1..40)) {
        let mut stack = stack();
        let mut out = Outbox::with_max(32);
        let mut now = Instant::from_millis(1);
        for (at, (bytes, code, ms)) in parts.into_iter().enumerate() {
            now += std::time::Duration::from_millis(ms);
            stack.timeout(now, &mut out);
            let transport = if code % 2 == 0 { Transport::Udp } else { Transport::Tcp };
            let peer = Peer::new(transport, "192.0.2.1:5060".parse().unwrap());
            let mut inputs = match datagram(bytes.into(), &Limits::default()) {
                Ok(Some(Message::Request(request))) if code % 5 == 0 => vec![Input::Send { key: ClientKey(at as u64 % 3), to: peer, request }],
                Ok(Some(message)) => vec![Input::Received { peer, message }],
                Ok(None) => vec![],
                Err(malformed) => vec![Input::Malformed { peer, malformed }],
            };
            if code % 11 == 0 {
                inputs.push(Input::Failed { peer });
            }
            if code % 7 == 0 {
                inputs.push(Input::Cancel { key: ClientKey(at as u64 % 3), reason: None });
            }
            while let Some(input) = inputs.pop() {
                stack.handle(now, input, &mut out);
                let mut transmitted = 0;
                for output in out.drain().collect::<Vec<_>>() {
                    match output {
                        Output::Transmit { bytes, .. } => {
                            transmitted += 1;
                            prop_assert!(matches!(datagram(bytes, &Limits::default()), Ok(Some(_)) | Err(_)));
                        }
                        Output::Request { server, request, .. } => {
                            prop_assert!(!matches!(request.method, Method::Ack | Method::Cancel));
                            if (100..700).contains(&code) {
                                inputs.push(Input::Respond { server, response: request.respond(code) });
                            }
                        }
                        Output::Response { response, .. } if response.is_success() => {
                            inputs.push(Input::Ack { to: peer, request: Request::new(Method::Ack, Uri::sip("a", "b")) });
                        }
                        _ => {}
                    }
                }
                prop_assert!(transmitted <= OUTPUTS_MAX);
            }
            prop_assert!(stack.server_transactions() <= 8 && stack.client_transactions() <= 8);
        }
        for _ in 0..2000 {
            let Some(at) = stack.next_timeout() else { break };
            now = now.max(at);
            stack.timeout(now, &mut out);
            out.drain().for_each(drop);
        }
        prop_assert_eq!((stack.server_transactions(), stack.client_transactions(), stack.next_timeout()), (0, 0, None));
        prop_assert_eq!(out.refused(), 0);
    }
}
