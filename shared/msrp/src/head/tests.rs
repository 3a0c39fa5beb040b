//! What heads say.

use super::*;
use crate::testing::{PATHS, head};
use crate::{Event, Flag, Framer, Limits};

#[test]
fn rfc4975_s9_what_a_head_says() {
    let head = head(&format!(
        "MSRP d93kswow SEND\n{PATHS}Message-ID: 12339sdqwer\nSuccess-Report: yes\nFailure-Report: partial\n\
         Byte-Range: 1-*/16\nX-Kept: \t as it is \nContent-ID: <1@x>\nCONTENT-TYPE: text/plain;charset=UTF-8\n-------d93kswow+\n"
    ));
    assert_eq!((head.method(), head.method_name()), (Some(Method::Send), "SEND"));
    assert_eq!((head.session(), head.tid().as_str()), (Some("y"), "d93kswow"));
    assert_eq!(head.from_path().uris().count(), 2);
    assert_eq!(head.message_id(), "12339sdqwer");
    assert!(head.success_report() && head.failure_report() == FailureReport::Partial);
    assert_eq!(head.byte_range().unwrap().to_string(), "1-*/16");
    assert_eq!(head.content_type(), Some("text/plain;charset=UTF-8"));
    assert_eq!(head.content_type_bytes().as_deref(), Some(&b"text/plain;charset=UTF-8"[..]));
    assert_eq!(head.header(b"x-kept"), Some(&b"as it is"[..]));
    let others: Vec<_> = head.others().map(|(name, _)| name).collect();
    assert_eq!(others, [&b"X-Kept"[..], b"Content-ID"]);
    assert_eq!(head.headers().count(), 9);
}

#[test]
fn defaults_of_rfc4975_s7_1_1() {
    let head = head(&format!("MSRP abcd SEND\n{PATHS}Message-ID: abcd\n-------abcd$\n"));
    assert!(!head.success_report() && head.failure_report() == FailureReport::Yes);
    assert_eq!((head.byte_range(), head.content_type(), head.status()), (None, None, None));
    assert!(!head.has_body());
}

/// CPM-FACTS §3.7: seen in the field.
#[test]
fn lines_in_an_unexpected_order_are_understood() {
    let head = head(
        "MSRP abcd SEND\nContent-Type: a/b\nMessage-ID: abcd\nfrom-path: msrp://a:1/x;tcp\nto-path: msrp://b:2/y;tcp\n-------abcd$\n",
    );
    assert_eq!((head.session(), head.message_id()), (Some("y"), "abcd"));
}

#[test]
fn responses_and_reports() {
    let answer = head(&format!("MSRP abcd 413 Stop, \u{fc}ber max\n{PATHS}-------abcd$\n"));
    assert_eq!((answer.start(), answer.method()), (Start::Response(Status::STOP), None));
    let bare = head(&format!("MSRP abcd 200\n{PATHS}-------abcd$\n"));
    assert_eq!(bare.start(), Start::Response(Status::OK));
    let report =
        head(&format!("MSRP abcd REPORT\n{PATHS}Message-ID: abcd\nStatus: 000 408 late\n-------abcd$\n"));
    assert_eq!(report.status(), Some(Status::TIMEOUT));
    // Another namespace is legal and says nothing.
    let other = head(&format!("MSRP abcd REPORT\n{PATHS}Message-ID: abcd\nStatus: 123 408\n-------abcd$\n"));
    assert_eq!(other.status(), None);
}

#[test]
fn rfc7701_s7_use_nickname() {
    for (value, nickname) in [
        ("\"Alice\"", Some("Alice")),
        ("\"\"", Some("")),
        ("\"Al \\\"the\\\" \\\\ Gr\u{e4}t\"", Some("Al \"the\" \\ Gr\u{e4}t")),
        ("Alice", None),
        ("\"Alice", None),
        ("\"A\"B\"", None),
        ("\"A\\\"", None),
    ] {
        let head = head(&format!("MSRP abcd NICKNAME\n{PATHS}Use-Nickname: {value}\n-------abcd$\n"));
        assert_eq!(head.use_nickname().as_deref(), nickname, "{value}");
    }
}

#[test]
fn a_head_that_straddles_reads_says_the_same() {
    let text = format!("MSRP abcd SEND\n{PATHS}Message-ID: abcd\nX: y\n-------abcd#\n").replace('\n', "\r\n");
    let whole = head(&text.replace("\r\n", "\n"));
    for at in 1..text.len() {
        let (mut a, mut b) = (Bytes::from(text[..at].to_owned()), Bytes::from(text[at..].to_owned()));
        let mut framer = Framer::new(Limits::default());
        assert!(framer.next(&mut a).unwrap().is_none());
        let Ok(Some(Event::Head(head))) = framer.next(&mut b) else { panic!("no head at {at}") };
        assert_eq!(head.block(), whole.block());
        assert_eq!(head.header(b"X"), Some(&b"y"[..]));
        assert!(matches!(framer.next(&mut b), Ok(Some(Event::End(Flag::Abort)))));
    }
}

#[test]
fn nothing_of_a_subscriber_is_printed() {
    let head = head(&format!("MSRP abcd SEND\n{PATHS}Message-ID: secret12\n-------abcd$\n"));
    let text = format!("{head:?}");
    assert!(!text.contains("secret12") && !text.contains("msrp://"), "{text}");
}
