//! Each answer of the screen.

use super::*;
use crate::limits::Limits;
use crate::malformed::Why;
use crate::message::{Message, Request};
use crate::method::Method;
use crate::name::Name;
use crate::typed::MediaType;

fn request(method: &str, uri: &str, more: &str, body: &str) -> Request {
    let wire = format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\n\
         Call-ID: c\r\nCSeq: 1 {method}\r\n{more}\r\n{body}"
    );
    match crate::datagram(wire.into(), &Limits::default()) {
        Ok(Some(Message::Request(request))) => request,
        other => panic!("{other:?}"),
    }
}

fn refused(more: &str) -> (Why, Option<u16>) {
    let message = Message::Request(request("INVITE", "sip:b@h", more, ""));
    let malformed = wellformed(&message, &Limits::default()).unwrap_err();
    (malformed.why, malformed.answer.map(|a| a.code))
}

#[test]
fn grammar_that_something_hangs_on() {
    for more in [
        "Contact: <sip:a@b>;;;\r\n",
        "Contact: *, <sip:a@b>\r\n",
        "Route: sip:a@b?x=y\r\n",
        "Max-Forwards: 300\r\n",
        "Date: Fri, 01 Jan 2010 16:00:00 EST\r\n",
        "Expires: 99999999999\r\n",
        "Content-Type: application\r\n",
        "Via: SIP/2.0/UDP 192.0.2.15;;,;,,\r\n",
        "Refer-To: \"x <sip:a@b>\r\n",
    ] {
        assert_eq!(refused(more), (Why::HeaderValue, Some(400)), "{more}");
    }
    assert_eq!(refused("CSeq: 1 INVITE\r\n"), (Why::HeaderRepeated, Some(400)));
    let many = "v: SIP/2.0/UDP a\r\n".repeat(100);
    assert_eq!(refused(&many), (Why::TooManyHeaders, Some(513)));
    let escaped = Message::Request(request("INVITE", "sip:b@h?Route=%3Csip:x%3E", "", ""));
    assert_eq!(wellformed(&escaped, &Limits::default()).unwrap_err().why, Why::RequestUri);
}

#[test]
fn an_ack_gets_no_answer_even_when_it_is_malformed() {
    let ack = Message::Request(request("ACK", "sip:b@h", "Max-Forwards: x\r\n", ""));
    assert_eq!(wellformed(&ack, &Limits::default()).unwrap_err().answer, None);
    let rules = Rules { methods: vec![Method::Invite], ..Rules::default() };
    assert!(rules.screen(&request("ACK", "http://x", "Require: all\r\n", "")).is_ok());
}

#[test]
fn answers_for_what_is_not_supported() {
    let rules = Rules {
        methods: vec![Method::Invite, Method::Message, Method::Subscribe, Method::Options],
        option_tags: vec!["timer".into()],
        body_types: vec![(
            Method::Message,
            vec![MediaType::new("text", "plain"), MediaType::new("multipart", "*")],
        )],
        events: vec!["conference".into()],
        forwards: true,
        ..Rules::default()
    };
    let allow = "INVITE, MESSAGE, SUBSCRIBE, OPTIONS";
    for (request, code, header) in [
        (request("PUBLISH", "sip:b@h", "", ""), 405, Some((Name::Allow, allow))),
        (request("FOO", "sip:b@h", "", ""), 501, Some((Name::Allow, allow))),
        (request("INVITE", "nobody:x", "", ""), 416, None),
        (request("INVITE", "sip:b@h", "Max-Forwards: 0\r\n", ""), 483, None),
        (
            request("INVITE", "sip:b@h", "Require: timer, a\r\nRequire: b\r\n", ""),
            420,
            Some((Name::Unsupported, "a, b")),
        ),
        (request("INVITE", "sip:b@h", "Proxy-Require: p\r\n", ""), 420, Some((Name::Unsupported, "p"))),
        (
            request("SUBSCRIBE", "sip:b@h", "o: presence\r\n", ""),
            489,
            Some((Name::AllowEvents, "conference")),
        ),
        (request("SUBSCRIBE", "sip:b@h", "", ""), 400, None),
        (
            request("MESSAGE", "sip:b@h", "c: a/b\r\n", "x"),
            415,
            Some((Name::Accept, "text/plain, multipart/*")),
        ),
        (request("MESSAGE", "sip:b@h", "", "x"), 400, None),
        (
            request("MESSAGE", "sip:b@h", "c: text/plain\r\ne: gzip\r\n", "x"),
            415,
            Some((Name::AcceptEncoding, "identity")),
        ),
    ] {
        let response = rules.screen(&request).unwrap_err();
        assert_eq!(response.code, code);
        if let Some((name, value)) = header {
            assert_eq!(response.headers.text(&name), Some(value));
        }
    }
    for request in [
        request("OPTIONS", "sip:b@h", "Max-Forwards: 0\r\n", ""),
        request("INVITE", "tel:+1555", "Require: Timer\r\nSupported:\r\n", ""),
        request("SUBSCRIBE", "sip:b@h", "Event: conference;id=1\r\n", ""),
        request("MESSAGE", "sip:b@h", "c: Multipart/Mixed;boundary=x\r\n", "x"),
        request("MESSAGE", "sip:b@h", "c: a/b\r\nContent-Disposition: render;handling=optional\r\n", "x"),
        request("INVITE", "sip:b@h", "c: a/b\r\n", "x"),
    ] {
        assert!(rules.screen(&request).is_ok());
    }
}
