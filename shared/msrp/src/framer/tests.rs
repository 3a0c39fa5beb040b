//! Messages cut at every octet, end-lines inside bodies, heads that are bad.

use super::*;
use crate::BadReason;
use crate::testing::{edited, edits};
use memchr::memmem;
use proptest::prelude::*;

/// A message as a reader sees it, whatever the reads were.
#[derive(Clone, PartialEq, Debug)]
enum Seen {
    Message { block: Bytes, body: Vec<u8>, flag: Flag },
    Bad(BadReason),
}

/// Feeds the reads and puts bodies together. The last error ends it.
fn read(limits: Limits, reads: impl IntoIterator<Item = Bytes>) -> (Vec<Seen>, Result<bool, Broken>) {
    let mut framer = Framer::new(limits);
    let (mut seen, mut open) = (Vec::new(), None);
    for mut input in reads {
        loop {
            match framer.next(&mut input) {
                Ok(Some(Event::Head(head))) => assert!(open.replace((head, Vec::new())).is_none()),
                Ok(Some(Event::Body(span))) => {
                    assert!(!span.is_empty());
                    open.as_mut().unwrap().1.extend_from_slice(&span);
                }
                Ok(Some(Event::End(flag))) => {
                    let (head, body) = open.take().unwrap();
                    assert!(head.has_body() || body.is_empty());
                    seen.push(Seen::Message { block: head.block().clone(), body, flag });
                }
                Ok(Some(Event::Bad(bad))) => seen.push(Seen::Bad(bad.reason)),
                Ok(None) => {
                    assert!(input.is_empty() && framer.held() <= limits.head_octets());
                    break;
                }
                Err(why) => {
                    assert_eq!(framer.next(&mut input).unwrap_err(), why);
                    return (seen, Err(why));
                }
            }
        }
    }
    (seen, Ok(framer.is_between()))
}

fn one(bytes: &[u8]) -> (Vec<Seen>, Result<bool, Broken>) {
    read(Limits::default(), [Bytes::copy_from_slice(bytes)])
}

const HEAD: &str = "MSRP d93kswow SEND\r\nTo-Path: msrp://b.example.com:8888/9di4eae923wzd;tcp\r\n\
                    From-Path: msrp://a.example.com:7777/iau39soe2843z;tcp\r\nMessage-ID: 12339sdqwer\r\n\
                    Byte-Range: 1-16/16\r\n";

fn send(body: &[u8], flag: char) -> Vec<u8> {
    let mut bytes = format!("{HEAD}Content-Type: text/plain\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes.extend_from_slice(format!("\r\n-------d93kswow{flag}\r\n").as_bytes());
    bytes
}

fn bodies(seen: &[Seen]) -> Vec<&[u8]> {
    seen.iter()
        .filter_map(|s| if let Seen::Message { body, .. } = s { Some(&body[..]) } else { None })
        .collect()
}

#[test]
fn rfc4975_s9_a_send_with_and_without_a_body() {
    let mut bytes = send(b"Hi, I'm Alice!\r\n", '$');
    bytes.extend_from_slice(format!("{HEAD}-------d93kswow$\r\n").as_bytes());
    let (seen, rest) = one(&bytes);
    assert_eq!(rest, Ok(true));
    assert_eq!(bodies(&seen), [&b"Hi, I'm Alice!\r\n"[..], b""]);
}

#[test]
fn bodies_are_slices_of_the_read() {
    let read = Bytes::from(send(&[b'x'; 4096], '$'));
    let whole = read.as_ptr_range();
    let mut input = read.clone();
    let mut framer = Framer::new(Limits::default());
    let mut spans = 0;
    while let Some(event) = framer.next(&mut input).unwrap() {
        if let Event::Body(span) = event {
            assert!(whole.contains(&span.as_ptr()));
            assert_eq!(span.len(), 4096);
            spans += 1;
        }
    }
    assert_eq!(spans, 1);
}

/// What looks like an end-line inside a body, and is none: RFC 4975 §7.1 forbids only the whole line.
const TRAPS: [&[u8]; 14] = [
    b"",
    b"\r\n",
    b"\r\n\r\n-------",
    b"\r\n-------d93kswow",
    b"\r\n-------d93kswow$",
    b"\r\n-------d93kswow$\r",
    b"\r\n-------d93kswow$\r\r",
    b"\r\n-------d93kswow%\r\n",
    b"\r\n-------d93kswox$\r\n",
    b"\r\n-------d93ksw\r\n-------d93kswow",
    b"\r\n--------d93kswow$\r\n",
    b"-------d93kswow$ and more",
    b"\r\r\n\n-------d93kswow$\r\n",
    b"\r\n-------d93kswow$\r\x00MSRP d93kswow SEND\r\n",
];

#[test]
fn end_lines_inside_bodies_at_every_split() {
    for trap in TRAPS {
        for flag in ['$', '+', '#'] {
            let body = [trap, b"x", trap, b"y"].concat();
            let bytes = [send(&body, flag), send(b"next", '$')].concat();
            let expected = one(&bytes);
            assert_eq!(bodies(&expected.0), [&body[..], b"next"], "{trap:?}");
            for at in 0..bytes.len() {
                let (a, b) = bytes.split_at(at);
                let reads = [Bytes::copy_from_slice(a), Bytes::copy_from_slice(b)];
                assert_eq!(read(Limits::default(), reads), expected, "{trap:?} split at {at}");
            }
            let bytewise = bytes.iter().map(|c| Bytes::copy_from_slice(&[*c]));
            assert_eq!(read(Limits::default(), bytewise), expected, "{trap:?} byte by byte");
        }
    }
}

#[test]
fn an_empty_body_may_share_its_line_end_with_the_empty_line() {
    let bytes = format!("{HEAD}Content-Type: text/plain\r\n\r\n-------d93kswow$\r\n");
    assert_eq!(bodies(&one(bytes.as_bytes()).0), [b""]);
}

#[test]
fn what_ends_the_framing() {
    for (bytes, why) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], Broken::Start),
        (b"\x16\x03\x01", Broken::Start),
        (b"MSRQ", Broken::Start),
        (b"MSRP abc SEND\r\n", Broken::Start),
        (b"MSRP abcd\r\n", Broken::Start),
        (b"MSRP  abcd SEND\r\n", Broken::Start),
        (b"MSRP abcdefghijklmnopqrstuvwxyz0123456 SEND\r\n", Broken::Start),
        (b"\r\n", Broken::Start),
        (b"MSRP abcd SEND\nTo-Path: x\n", Broken::LineEnd),
        (b"MSRP abcd SEND\r\nTo-Path: a\rb\r\n", Broken::LineEnd),
        (b"MSRP abcd SEND\r\n-------abce$\r\n", Broken::EndLine),
        (b"MSRP abcd SEND\r\n-------abcd\r\n", Broken::EndLine),
        (b"MSRP abcd SEND\r\n-------abcd$$\r\n", Broken::EndLine),
    ] {
        assert_eq!(one(bytes), (vec![], Err(why)), "{}", bytes.escape_ascii());
    }
}

#[test]
fn a_head_without_an_end_is_bounded() {
    let limits = Limits { head_max: 512, ..Limits::default() };
    for endless in [
        "MSRP abcd SEND\r\nX: ".to_owned() + &"y".repeat(600),
        format!("MSRP abcd SEND\r\n{}", "X: y\r\n".repeat(100)),
    ] {
        for size in [1, 7, 512, 4096] {
            let reads = endless.as_bytes().chunks(size).map(Bytes::copy_from_slice);
            assert_eq!(read(limits, reads), (vec![], Err(Broken::HeadTooLong)), "reads of {size}");
        }
    }
    assert_eq!(Broken::HeadTooLong.fault(), Fault::Refused);
}

#[test]
fn bad_heads_are_told_and_skipped() {
    let swap = |from: &str, to: &str| String::from_utf8(send(b"abc", '$')).unwrap().replace(from, to);
    for (bytes, why) in [
        (swap(" SEND", " send"), BadReason::Start),
        (swap(" SEND", " 20 OK"), BadReason::Start),
        (swap("Message-ID: 12339sdqwer", "Message-ID: a b"), BadReason::MessageId),
        (swap("Message-ID: 12339sdqwer\r\n", ""), BadReason::MessageId),
        (swap("Byte-Range: 1-16/16", "Byte-Range: 1-16"), BadReason::ByteRange),
        (swap("1-16/16", "1-18446744073709551616/*"), BadReason::ByteRange),
        (swap("1-16/16", "-1-16/16"), BadReason::ByteRange),
        (swap("Byte-Range:", "Failure-Report: maybe\r\nByte-Range:"), BadReason::Report),
        (swap("Byte-Range:", "To-Path: msrp://x:1/y;tcp\r\nByte-Range:"), BadReason::Repeated),
        (swap("Byte-Range:", " folded\r\nByte-Range:"), BadReason::Line),
        (swap("Byte-Range:", "no colon\r\nByte-Range:"), BadReason::Line),
        (swap("To-Path:", "X-Path:"), BadReason::NoPath),
        (swap("msrp://b", "http://b"), BadReason::Uri),
        (swap("Content-Type: text/plain\r\n", ""), BadReason::NoContentType),
        (swap("SEND", "REPORT"), BadReason::Status),
        (
            swap("To-Path: msrp", &format!("To-Path: {}msrp", "msrp://r:1/a;tcp ".repeat(300))),
            BadReason::PathTooLong,
        ),
    ] {
        let bytes = [bytes.into_bytes(), send(b"good", '$')].concat();
        let (seen, rest) = one(&bytes);
        assert_eq!((seen.first(), rest), (Some(&Seen::Bad(why)), Ok(true)), "{}", bytes.escape_ascii());
        assert_eq!(bodies(&seen), [b"good"]);
    }
}

#[test]
fn rfc4975_s7_1_other_requests_have_short_bodies() {
    let mut bytes = b"MSRP abcd PING\r\nTo-Path: msrp://a:1/x;tcp\r\nFrom-Path: msrp://b:2/y;tcp\r\n\
                      Content-Type: text/plain\r\n\r\n"
        .to_vec();
    bytes.extend_from_slice(&vec![b'x'; 10_241]);
    assert_eq!(one(&bytes).1, Err(Broken::BodyTooLong));
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::sample::select(&TRAPS[..]).prop_map(<[u8]>::to_vec),
        proptest::collection::vec(any::<u8>(), 0..200),
    ]
}

fn ends_the_message(body: &[u8]) -> bool {
    let line = |flag: &str| format!("\r\n-------d93kswow{flag}\r\n").into_bytes();
    let whole = [b"\r\n", body, b"\r\n"].concat();
    ["$", "+", "#"].iter().any(|flag| memmem::find(&whole, &line(flag)).is_some())
}

proptest! {
    #[test]
    fn any_split_gives_the_same_messages(
        pieces in proptest::collection::vec(piece(), 0..6),
        cuts in proptest::collection::vec(1usize..60, 0..80),
    ) {
        let body = pieces.concat();
        prop_assume!(!ends_the_message(&body));
        let mut bytes = Bytes::from([send(&body, '+'), send(b"tail", '$')].concat());
        let expected = one(&bytes);
        prop_assert_eq!(bodies(&expected.0), vec![&body[..], &b"tail"[..]]);
        let mut reads = Vec::new();
        for cut in cuts {
            reads.push(bytes.split_to(cut.min(bytes.len())));
        }
        reads.push(bytes);
        prop_assert_eq!(read(Limits::default(), reads), expected);
    }

    #[test]
    fn mutations_never_panic_and_splits_never_matter(
        edits in edits(8),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = [send(b"one\r\n-------d93", '+'), send(b"two", '$')].concat();
        let bytes = edited(bytes, edits);
        let (a, b) = bytes.split_at(cut.index(bytes.len()));
        let whole = one(&bytes);
        prop_assert_eq!(read(Limits::default(), [Bytes::copy_from_slice(a), Bytes::copy_from_slice(b)]), whole.clone());
        let bytewise = bytes.iter().map(|c| Bytes::copy_from_slice(&[*c]));
        prop_assert_eq!(read(Limits::default(), bytewise), whole);
    }
}

// The end-line is looked for by strides: it is found wherever it begins in one, or between two.
#[test]
fn an_end_line_is_found_wherever_a_stride_ends() {
    for (filler, length) in [b'x', b'-', b'\n'].into_iter().flat_map(|f| (0..800).map(move |n| (f, n))) {
        let body = vec![filler; length];
        let mut message = b"MSRP abcd SEND\r\nTo-Path: msrp://a:1/x;tcp\r\nFrom-Path: msrp://b:2/y;tcp\r\n\
            Message-ID: 4321\r\nContent-Type: text/plain\r\n\r\n"
            .to_vec();
        message.extend_from_slice(&body);
        message.extend_from_slice(b"\r\n-------abcd$\r\n");
        let (mut framer, mut input, mut got) =
            (Framer::new(Limits::default()), Bytes::from(message), Vec::new());
        let mut ends = 0;
        while let Some(event) = framer.next(&mut input).unwrap() {
            match event {
                Event::Body(piece) => got.extend_from_slice(&piece),
                Event::End(flag) => ends += usize::from(flag == Flag::Last),
                _ => {}
            }
        }
        assert!(got == body && ends == 1, "{length} octets of {filler}");
    }
}
