//! What delimits a message, and what is refused because it does not.

use super::*;

const HEAD: &str = "INVITE sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\n\
                    To: <sip:b@h>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n";

fn read(text: impl AsRef<[u8]>) -> Result<Option<Message>, Malformed> {
    datagram(Bytes::copy_from_slice(text.as_ref()), &Limits::default())
}

fn request(text: impl AsRef<[u8]>) -> Request {
    match read(text) {
        Ok(Some(Message::Request(request))) => request,
        other => panic!("{other:?}"),
    }
}

fn why(text: impl AsRef<[u8]>) -> (Why, Option<u16>) {
    let malformed = read(text).unwrap_err();
    (malformed.why, malformed.answer.map(|a| a.code))
}

#[test]
fn keep_alives_are_no_messages() {
    for text in ["", "\r\n\r\n", "\0\0\0\0", "\r\n"] {
        assert_eq!(read(text), Ok(None));
    }
}

#[test]
fn folds_compact_names_and_blanks_before_the_colon() {
    let r = request(
        "INVITE sip:b@h SIP/2.0\r\nv :SIP/2.0/UDP\r\n a;branch=z9hG4bK1\r\nS\t:\r\n\tone\r\n two\r\nX-\u{30}: \u{ff}\r\nEmpty:\r\nl: 2\r\n\r\n xtra",
    );
    assert_eq!(r.headers.text(&Name::Via), Some("SIP/2.0/UDP   a;branch=z9hG4bK1"));
    assert_eq!(r.headers.text(&Name::Subject), Some("one   two"));
    assert_eq!(r.headers.text(&Name::from("empty")), Some(""));
    assert_eq!(&r.body[..], b" x");
}

#[test]
fn octets_that_are_not_utf8_are_kept() {
    let mut wire = HEAD.as_bytes().to_vec();
    wire.extend_from_slice(b"Subject: \xff\x00\xfe\r\nX-\x2a: \x80\r\nContent-Length: 3\r\n\r\n\x00\xff\x80");
    let r = request(&wire);
    assert_eq!(r.headers.first(&Name::Subject), Some(&b"\xff\x00\xfe"[..]));
    assert_eq!(r.headers.text(&Name::Subject), None);
    assert_eq!(&r.body[..], b"\x00\xff\x80");
    assert_eq!(request(r.to_bytes()), r);
}

#[test]
fn a_datagram_without_content_length_is_body_to_its_end() {
    assert_eq!(&request(format!("{HEAD}\r\nabc")).body[..], b"abc");
}

#[test]
fn lengths_that_differ_or_are_no_digits_are_refused() {
    for (length, expected) in [
        ("Content-Length: 1\r\nl: 2\r\n", Why::LengthsDiffer),
        ("Content-Length: 1, 2\r\n", Why::ContentLength),
        ("Content-Length: -1\r\n", Why::ContentLength),
        ("Content-Length: +1\r\n", Why::ContentLength),
        ("Content-Length: \u{661}\r\n", Why::ContentLength),
        ("Content-Length: 0x1\r\n", Why::ContentLength),
        ("Content-Length:\r\n", Why::ContentLength),
        ("Content-Length: 99999999999999999999\r\n", Why::ContentLength),
        ("Content-Length: 9\r\n", Why::BodyTruncated),
    ] {
        assert_eq!(why(format!("{HEAD}{length}\r\nabc")), (expected, Some(400)), "{length}");
    }
    assert_eq!(&request(format!("{HEAD}l: 1\r\nContent-Length: 1\r\n\r\nabc")).body[..], b"a");
}

#[test]
fn line_ends_that_readers_could_disagree_about_are_refused() {
    for text in ["X: a\nVia: evil\r\n", "X: a\rVia: evil\r\n", "X: a\r\r\n"] {
        assert_eq!(why(format!("{HEAD}{text}\r\n")), (Why::HeaderLine, Some(400)), "{text:?}");
    }
}

#[test]
fn start_lines_are_strict() {
    let rest = HEAD.split_once("\r\n").unwrap().1;
    for (start, expected) in [
        ("INVITE  sip:b@h SIP/2.0", Why::RequestUri),
        ("INVITE sip:b@h SIP/2.0 ", Why::StartLine),
        ("INVITE sip:b@h", Why::StartLine),
        ("INVITE <sip:b@h> SIP/2.0", Why::RequestUri),
        ("INVITE sip:b@h; lr SIP/2.0", Why::RequestUri),
        ("IN(VITE sip:b@h SIP/2.0", Why::StartLine),
        ("INVITE sip:b@h HTTP/1.1", Why::StartLine),
        ("INVITE sip:b@h SIP/2", Why::StartLine),
        ("INVITE sip:b@h SIP/two.0", Why::StartLine),
    ] {
        assert_eq!(why(format!("{start}\r\n{rest}\r\n")), (expected, Some(400)), "{start}");
    }
    assert_eq!(why(format!("INVITE sip:b@h SIP/7.0\r\n{rest}\r\n")), (Why::Version, Some(505)));
    assert_eq!(request(format!("INVITE sip:b@h sip/2.0\r\n{rest}\r\n")).method, Method::Invite);
}

#[test]
fn acks_and_responses_are_never_answered_and_neither_is_what_cannot_be() {
    let rest = HEAD.split_once("\r\n").unwrap().1;
    assert_eq!(why(format!("ACK  sip:b@h SIP/2.0\r\n{rest}\r\n")), (Why::RequestUri, None));
    assert_eq!(why(format!("SIP/2.0 4294967301 x\r\n{rest}\r\n")), (Why::StatusCode, None));
    assert_eq!(why(format!("SIP/2.0 99 x\r\n{rest}\r\n")), (Why::StatusCode, None));
    assert_eq!(why(format!("SIP/2.0 700 x\r\n{rest}\r\n")), (Why::StatusCode, None));
    assert_eq!(why(format!("SIP/3.0 200 x\r\n{rest}\r\n")), (Why::Version, None));
    assert_eq!(why("INVITE sip:b@h SIP/2.0\r\nVia: x\r\nl: -1\r\n\r\n"), (Why::ContentLength, None));
    assert_eq!(why("garbage"), (Why::HeadUnterminated, None));
}

#[test]
fn an_answer_copies_what_it_must_and_has_the_same_tag_each_time() {
    let wire = format!("{HEAD}l: 9\r\n\r\n");
    let answer = read(&wire).unwrap_err().answer.unwrap();
    assert_eq!(answer, read(&wire).unwrap_err().answer.unwrap());
    assert_eq!(answer.headers.text(&Name::Via), Some("SIP/2.0/UDP a;branch=z9hG4bK1"));
    assert_eq!(answer.to_tag().unwrap().len(), 16);
}

#[test]
fn limits_hold() {
    let limits = Limits { head_bytes_max: 400, headers_max: 8, body_bytes_max: 4, ..Limits::default() };
    let why = |text: String| {
        let malformed = datagram(text.into(), &limits).unwrap_err();
        (malformed.why, malformed.answer.map(|a| a.code))
    };
    assert_eq!(why(format!("{HEAD}X: {}\r\n\r\n", "x".repeat(400))), (Why::HeadTooLong, Some(513)));
    assert_eq!(why(format!("{HEAD}{}\r\n", "X: y\r\n".repeat(5))), (Why::TooManyHeaders, Some(513)));
    assert_eq!(why(format!("{HEAD}l: 5\r\n\r\n12345")), (Why::BodyTooLong, Some(413)));
    assert_eq!(why(format!("{HEAD}\r\n12345")), (Why::BodyTooLong, Some(413)));
}

#[test]
fn responses() {
    for (line, code, reason) in [
        ("SIP/2.0 200 OK", 200, "OK"),
        ("SIP/2.0 100 ", 100, ""),
        ("SIP/2.0 100", 100, ""),
        ("SIP/2.0 200 = 2**3 * 5**2 \u{43d}\u{43e}", 200, "= 2**3 * 5**2 \u{43d}\u{43e}"),
    ] {
        let Ok(Some(Message::Response(r))) = read(format!("{line}\r\nVia: x\r\n\r\n")) else {
            panic!("{line}")
        };
        assert_eq!((r.code, r.reason.as_str()), (code, reason));
    }
}
