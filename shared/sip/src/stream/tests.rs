//! Streams cut at every octet, and streams that are over.

use super::*;
use crate::name::Name;

const A: &str = "OPTIONS sip:b@h SIP/2.0\r\nVia: SIP/2.0/TCP a;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\n\
                 To: <sip:b@h>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\n";

fn frames(framer: &mut StreamFramer) -> Vec<Frame> {
    std::iter::from_fn(|| framer.next()).collect()
}

#[test]
fn messages_and_pings_however_the_stream_is_cut() {
    let wire = format!(
        "\r\n{A}Content-Length: 3\r\n\r\nabc\r\n\r\n{A}Subject: f\r\n old\r\nl: 0\r\n\r\n\r\n\r\n\r\n"
    );
    let read = |cut: usize| {
        let mut framer = StreamFramer::new(Limits::default());
        let mut all = Vec::new();
        for piece in wire.as_bytes().chunks(cut) {
            framer.push(piece);
            all.extend(frames(&mut framer));
        }
        assert!(framer.buffered() <= 2);
        all
    };
    let whole = read(wire.len());
    let kinds: Vec<_> = whole
        .iter()
        .map(|f| match f {
            Frame::Message(m) => m.body().len().to_string(),
            Frame::Ping => "ping".into(),
            Frame::Malformed(m) => m.why.to_string(),
        })
        .collect();
    assert_eq!(kinds, ["3", "ping", "0", "ping"]);
    for cut in 1..wire.len() {
        assert_eq!(read(cut), whole, "{cut}");
    }
}

#[test]
fn a_bad_start_line_costs_one_message_only() {
    let mut framer = StreamFramer::new(Limits::default());
    let bad = A.replacen(" sip:b@h", "  sip:b@h", 1);
    framer.push(format!("{bad}l: 2\r\n\r\nxx{A}l: 0\r\n\r\n").as_bytes());
    let all = frames(&mut framer);
    assert!(matches!(&all[..], [Frame::Malformed(m), Frame::Message(_)] if !m.fatal && m.answer.is_some()));
}

#[test]
fn a_length_in_doubt_ends_the_stream() {
    for (line, why) in [
        ("l: 1\r\nContent-Length: 2\r\n", Why::LengthsDiffer),
        ("l: -1\r\n", Why::ContentLength),
        ("", Why::LengthMissing),
        ("l: 99999999\r\n", Why::BodyTooLong),
    ] {
        let mut framer = StreamFramer::new(Limits::default());
        framer.push(format!("{A}{line}\r\n{A}l: 0\r\n\r\n").as_bytes());
        let all = frames(&mut framer);
        assert!(
            matches!(&all[..], [Frame::Malformed(m)] if m.fatal && m.why == why && m.answer.is_some()),
            "{line}"
        );
        assert!(framer.is_broken());
        framer.push(&[b'x'; 1000]);
        assert_eq!(framer.buffered(), 0);
    }
}

#[test]
fn a_head_without_end_is_bounded() {
    let limits = Limits { head_bytes_max: 1000, ..Limits::default() };
    let mut framer = StreamFramer::new(limits);
    framer.push(A.as_bytes());
    for _ in 0..200 {
        framer.push(b"X: yyyyyyy\r\n");
        if let Some(Frame::Malformed(m)) = framer.next() {
            assert_eq!((m.why, m.answer.unwrap().headers.text(&Name::CallId)), (Why::HeadTooLong, Some("c")));
            assert_eq!(framer.buffered(), 0);
            return;
        }
        assert!(framer.buffered() < 1100);
    }
    panic!("no limit");
}
