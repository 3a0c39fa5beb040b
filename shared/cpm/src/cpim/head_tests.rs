//! Tests of the CPIM view and writer together.

use proptest::prelude::*;

use super::super::{Address, Builder, CORE, CPM, IMDN};
use super::*;

const PAGER: &str = "From: MR SANDERS <im:piglet@100akerwood.com>\r\n\
    To: Depressed Donkey <im:eeyore@100akerwood.com>\r\n\
    DateTime: 2000-12-13T13:40:00-08:00\r\n\
    Subject: the weather will be fine today\r\n\
    Subject:;lang=fr beau temps prevu pour aujourd'hui\r\n\
    NS: MyFeatures <mid:MessageFeatures@id.foo.com>\r\n\
    Require: MyFeatures.VitalMessageOption\r\n\
    MyFeatures.VitalMessageOption: Confirmation-requested\r\n\
    \r\n\
    Content-type: text/xml; charset=utf-8\r\n\
    Content-ID: <1234567890@foo.com>\r\n\
    \r\n\
    <body/>";

fn whole(text: &str) -> Result<Head<'_>, Error> {
    Head::parse_whole(text.as_bytes(), &Limits::default())
}

// RFC 3862 §5: every header part of the example is found.
#[test]
fn the_example_of_the_rfc_is_read() {
    let head = whole(PAGER).unwrap();
    let from = head.from().unwrap();
    assert_eq!((from.name.as_ref(), from.uri.as_ref()), ("MR SANDERS", "im:piglet@100akerwood.com"));
    assert_eq!(head.only_to().unwrap().uri, "im:eeyore@100akerwood.com");
    assert_eq!(head.date_time(), Some("2000-12-13T13:40:00-08:00"));
    let subjects: Vec<_> =
        head.headers().filter(|h| h.is(CORE, "Subject")).map(|h| (h.params, h.raw)).collect();
    assert_eq!(
        subjects,
        [("", "the weather will be fine today"), (";lang=fr", "beau temps prevu pour aujourd'hui")]
    );
    let option = head.header("mid:MessageFeatures@id.foo.com", "VitalMessageOption").unwrap();
    assert_eq!(option.raw, "Confirmation-requested");
    assert_eq!(head.content_type(), "text/xml; charset=utf-8");
    assert_eq!(head.mime("CONTENT-ID"), Some("<1234567890@foo.com>"));
    assert_eq!(&PAGER[head.body_offset()..], "<body/>");
}

// The first chunk may end anywhere: the verdict is More up to the last octet of the head, then always the same.
#[test]
fn a_head_cut_anywhere_asks_for_more() {
    let whole_head = whole(PAGER).unwrap().body_offset();
    for cut in 0..PAGER.len() {
        match Head::parse(&PAGER.as_bytes()[..cut], &Limits::default()).unwrap() {
            Progress::More => assert!(cut < whole_head, "{cut}"),
            Progress::Done(head) => assert!(cut >= whole_head && head.body_offset() == whole_head),
        }
    }
}

// RFC 3862 §3.1: names are case-sensitive.
#[test]
fn names_of_other_case_are_other_headers() {
    let head = whole("from: <sip:a@b>\r\nTo: <sip:c@d>\r\n\r\n\r\n").unwrap();
    assert_eq!(head.from(), Err(Error::Missing("From")));
    assert!(head.header(CORE, "from").is_some());
}

// RFC 3862 §3.4: declared before use, bound anew, default namespace changed.
#[test]
fn prefixes_and_the_default_namespace_are_resolved() {
    let head = whole(
        "From: <sip:a@b>\r\nNS: p <urn:one>\r\np.X: 1\r\nNS: p <urn:two>\r\np.X: 2\r\nNS: <urn:ietf:params:imdn>\r\n\
         Message-ID: m1\r\nNS: <urn:ietf:params:cpim-headers:>\r\nTo: <sip:c@d>\r\n\r\n\r\n",
    )
    .unwrap();
    assert_eq!(head.header("urn:one", "X").unwrap().raw, "1");
    assert_eq!(head.header("urn:two", "X").unwrap().raw, "2");
    assert_eq!(head.header(IMDN, "Message-ID").unwrap().raw, "m1");
    assert_eq!(head.only_to().unwrap().uri, "sip:c@d");
    assert_eq!(whole("imdn.Message-ID: x\r\nNS: imdn <urn:i>\r\n\r\n\r\n").unwrap_err(), Error::Prefix);
}

// A second sender under another spelling of the namespace, or hidden by a default namespace, is no sender.
#[test]
fn there_is_one_sender_however_it_is_spelled() {
    for (text, error) in [
        ("From: <sip:a@b>\r\nFrom: <sip:v@b>\r\n\r\n\r\n", Error::Repeated("From")),
        (
            "From: <sip:a@b>\r\nNS: c <urn:ietf:params:cpim-headers:>\r\nc.From: <sip:v@b>\r\n\r\n\r\n",
            Error::Repeated("From"),
        ),
        ("From: <sip:a@b>\r\nNS: <urn:x>\r\nFrom: <sip:v@b>\r\n\r\n\r\n", Error::Repeated("From, To or cc")),
    ] {
        assert_eq!(whole(text).unwrap_err(), error);
    }
}

// RFC 3862 §3.3.2: controls are escaped, raw ones are illegal; a lone CR or LF ends no line.
#[test]
fn escapes_are_undone_and_raw_controls_refused() {
    let head = whole("Subject: a\\u0007b\\\\c\\n\r\n\r\n\r\n").unwrap();
    assert_eq!(head.header(CORE, "Subject").unwrap().value().unwrap(), "a\u{7}b\\c\n");
    for bad in [
        "Subject: a\nFrom: <sip:v@b>\r\n\r\n\r\n",
        "Subject: a\u{7}\r\n\r\n\r\n",
        "Subject: a\rb\r\n\r\n\r\n",
    ] {
        assert_eq!(whole(bad).unwrap_err(), Error::Characters);
    }
    for bad in ["\\", "\\x", "\\u12", "\\ud800", "\\u+123"] {
        let text = format!("Subject: {bad}\r\n\r\n\r\n");
        assert_eq!(
            whole(&text).unwrap().header(CORE, "Subject").unwrap().value(),
            Err(Error::Escape),
            "{bad}"
        );
    }
}

#[test]
fn what_is_no_header_is_refused() {
    for bad in [
        "From\r\n\r\n\r\n",
        ": x\r\n\r\n\r\n",
        "a b: x\r\n\r\n\r\n",
        "From: <sip:a@b>\r\n\r\nnonsense\r\n\r\n",
    ] {
        assert_eq!(whole(bad).unwrap_err(), Error::Header, "{bad:?}");
    }
    assert_eq!(
        Head::parse_whole(b"Subject: \xff\r\n\r\n\r\n", &Limits::default()).unwrap_err(),
        Error::Characters
    );
    for bad in ["From: sip:a@b", "From: <>", "From: <sip:a@b> x", "From: \"x <sip:a@b>", "From: <alice>"] {
        assert_eq!(whole(&format!("{bad}\r\n\r\n\r\n")).unwrap().from(), Err(Error::Address), "{bad}");
    }
}

// RFC 7701 §6.1: exactly one recipient.
#[test]
fn several_recipients_are_seen() {
    let head = whole("To: <sip:a@b>,\"x, y\" <sip:c,d@e>\r\n\r\n\r\n").unwrap();
    assert_eq!(head.to().map(|a| a.unwrap().uri.into_owned()).collect::<Vec<_>>(), ["sip:a@b", "sip:c,d@e"]);
    assert_eq!(head.only_to(), Err(Error::Repeated("To")));
}

// CPM-FACTS §3.8 step 3: too long a head is 413 even when its end never came.
#[test]
fn limits_hold() {
    let limits = Limits { cpim_head_octets_max: 64, cpim_headers_max: 2, ..Limits::default() };
    let parse = |text: &str| Head::parse(text.as_bytes(), &limits).map(|_| ());
    assert_eq!(parse(&"x".repeat(64)), Err(Error::TooLarge("CPIM head")));
    assert_eq!(parse(&format!("A: {}\r\n\r\n\r\n", "x".repeat(90))), Err(Error::TooLarge("CPIM head")));
    assert_eq!(parse("A: 1\r\nB: 2\r\nC: 3\r\n\r\n\r\n"), Err(Error::TooLarge("CPIM headers")));
    assert_eq!(parse("A: 1\r\n\r\na:1\r\nb:2\r\nc:3\r\n\r\n"), Err(Error::TooLarge("MIME headers")));
    let many: String = (0..17).map(|i| format!("NS: p{i} <u>\r\n")).collect();
    assert_eq!(whole(&format!("{many}\r\n\r\n")).unwrap_err(), Error::TooLarge("NS headers"));
}

#[test]
fn mime_fields_may_be_folded() {
    let head = whole("From: <sip:a@b>\r\n\r\nContent-Type: multipart/mixed;\r\n boundary=x\r\nA: b\r\n\r\n")
        .unwrap();
    assert_eq!(head.content_type(), "multipart/mixed;\r\n boundary=x");
    assert_eq!(head.mime("a"), Some("b"));
    assert_eq!(whole("From: <sip:a@b>\r\n\r\n\r\nx").unwrap().content_type(), "text/plain");
}

// CPM-FACTS §2.15: the anonymous URI replaces the sender and nothing else.
#[test]
fn the_sender_is_rewritten_in_place() {
    let head = whole(PAGER).unwrap();
    let new = head.with_from(PAGER.as_bytes(), &Address::uri("sip:anon-1@cf")).unwrap();
    let text = String::from_utf8([&new[..], &PAGER.as_bytes()[head.body_offset()..]].concat()).unwrap();
    assert_eq!(text, PAGER.replace("MR SANDERS <im:piglet@100akerwood.com>", "<sip:anon-1@cf>"));
    assert_eq!(
        whole("To: <sip:a@b>\r\n\r\n\r\n").unwrap().with_from(b"", &Address::uri("x:y")),
        Err(Error::Missing("From"))
    );
}

#[test]
fn what_is_written_reads_back() {
    let from = Address { name: "A \"quoted\" \\ name".into(), uri: "tel:+15550100001".into() };
    let message = Builder::new(&from, &Address::uri("sip:anonymous@anonymous.invalid"))
        .date_time(base::UnixTime::from_millis(1_795_331_700_120))
        .imdn("Message-ID", "Qm7x2k9dPz")
        .imdn("Disposition-Notification", "positive-delivery, display")
        .payload_type("text/plain")
        .build("text/plain;charset=UTF-8", b"hello");
    let head = Head::parse_whole(&message, &Limits::default()).unwrap();
    assert_eq!(head.from().unwrap(), from);
    assert_eq!(head.date_time(), Some("2026-11-22T07:15:00.120Z"));
    assert_eq!(head.header(IMDN, "Message-ID").unwrap().raw, "Qm7x2k9dPz");
    assert_eq!(head.header(CPM, "Payload-Type").unwrap().raw, "text/plain");
    assert_eq!(head.mime("Content-Length"), Some("5"));
    assert_eq!(&message[head.body_offset()..], b"hello");
    assert_eq!(message.windows(4).filter(|w| w == b"NS: ").count(), 2);
}

proptest! {
    #[test]
    fn any_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        _ = Head::parse(&bytes, &Limits::default());
    }

    #[test]
    fn header_like_text_does_no_harm(text in "(From: <a:b>|To: \"|NS: |p|\\.|<|>|:|;| |x|\\\\u00|,|\r\n|\r\n\r\n){0,40}") {
        if let Ok(Progress::Done(head)) = Head::parse(text.as_bytes(), &Limits::default()) {
            _ = (head.from(), head.to().count(), head.headers().filter(|h| h.value().is_ok()).count());
            prop_assert!(head.body_offset() <= text.len());
            if let Ok(new) = head.with_from(text.as_bytes(), &Address::uri("sip:x@y")) {
                let again = Head::parse_whole(&new, &Limits::default()).unwrap();
                prop_assert_eq!(again.from().unwrap().uri, "sip:x@y");
                prop_assert_eq!(again.headers().count(), head.headers().count());
            }
        }
    }

    // Nothing that a name, an address or a value holds can add a header or move the body.
    #[test]
    fn nothing_written_escapes_its_line(name in ".{0,20}", uri in "sip:.{0,20}", value in "\\PC{0,10}[\r\n\t\\\\]{0,4}.{0,10}") {
        let from = Address { name: name.as_str().into(), uri: uri.as_str().into() };
        let message = Builder::new(&from, &Address::uri("sip:b@c")).imdn("Message-ID", &value).build("text/plain", b"B");
        let head = Head::parse_whole(&message, &Limits::default()).unwrap();
        prop_assert_eq!(head.headers().count(), 3);
        prop_assert_eq!(&message[head.body_offset()..], b"B");
        let read = head.header(IMDN, "Message-ID").unwrap().value().unwrap().into_owned();
        prop_assert_eq!(read.trim_matches(' '), value.trim_matches(' '));
    }
}
