//! Octets of any kind: what was written is read again, nothing panics, nothing grows without end.

use base::Entropy;
use proptest::prelude::*;

use super::rig::{Rig, answer, offer, sdp, short};
use crate::frame::{self, Encoding, Frame};
use crate::{Malformed, Value};

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Value::Integer),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let pair = (prop::collection::vec(any::<u8>(), 0..6), inner.clone());
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(Value::List),
            prop::collection::vec(pair, 0..6).prop_map(Value::Dictionary),
        ]
    })
}

fn dictionary(text: bool) -> impl Strategy<Value = Value> {
    let key = "[a-z ]{0,8}".prop_map(String::into_bytes);
    let value = if text { "[ -~]{0,20}".prop_map(Value::from).boxed() } else { value().boxed() };
    prop::collection::vec((key, value), 0..8).prop_map(Value::Dictionary)
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(body in dictionary(false), texts in dictionary(true), cookie in "[!-~]{1,40}") {
        for (encoding, body) in [(Encoding::Bencode, body), (Encoding::Json, texts)] {
            let frame = Frame { cookie: cookie.clone().into_bytes(), encoding, body };
            let octets = frame.to_octets();
            prop_assert_eq!(Frame::read(&octets), Ok((frame.clone(), octets.len())));
            // Cut anywhere, it is the beginning of a message and nothing else.
            for cut in 0..octets.len() {
                prop_assert_eq!(Frame::read(&octets[..cut]), Err(Malformed::Incomplete));
            }
            // On a stream it comes whole, whatever stands behind it.
            let mut stream = octets.clone();
            stream.extend_from_slice(b"\r\n");
            stream.extend_from_slice(&octets);
            prop_assert_eq!(frame::next(&mut stream), Ok(Some(octets.clone())));
            prop_assert_eq!(frame::next(&mut stream), Ok(Some(octets)));
            prop_assert_eq!(frame::next(&mut stream), Ok(None));
        }
    }

    #[test]
    fn mutated_messages_never_panic(seed in any::<u64>()) {
        let mut entropy = Entropy::from_number(seed);
        let mut rig = Rig::new(|config| { config.calls_max = 4; config.cookies_max = 16 });
        let lines = "m=audio 5004 RTP/SAVP 0\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz\n";
        let bodies = [offer(&sdp("203.0.113.1", lines)), answer(&sdp("203.0.113.2", lines)), short("query"), short("delete")];
        for turn in 0..24u64 {
            let body = bodies[entropy.below(4) as usize].clone();
            let encoding = if entropy.below(2) == 0 { Encoding::Bencode } else { Encoding::Json };
            let mut octets = Frame { cookie: turn.to_string().into_bytes(), encoding, body }.to_octets();
            for _ in 0..entropy.below(4) {
                if octets.len() < 2 {
                    break;
                }
                let at = entropy.below(octets.len() as u64) as usize;
                match entropy.below(3) {
                    0 => octets[at] = entropy.u32() as u8,
                    1 => drop(octets.remove(at)),
                    _ => octets.truncate(at.max(1)),
                }
            }
            rig.octets(&octets);
            prop_assert!(rig.contexts.len() <= 4 && rig.legs.len() <= 4 * 32);
        }
    }
}

#[test]
fn what_is_too_deep_too_many_or_too_long_is_refused() {
    let read = |body: &str| Frame::read(format!("1 {body}").as_bytes()).map(|_| ());
    assert_eq!(read(&format!("d1:a{}{}e", "l".repeat(40), "e".repeat(40))), Err(Malformed::Depth));
    assert_eq!(read(&format!("d1:al{}ee", "0:".repeat(5000))), Err(Malformed::Items));
    assert_eq!(read(&format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200))), Err(Malformed::Syntax));
    for bad in [
        "d1:ai+1ee",
        "d1:aiee",
        "d-1:ae",
        "di1e1:ae",
        "d1:ai99999999999999999999999e",
        "x",
        "d99999999999999999999:",
    ] {
        assert_eq!(read(bad), Err(Malformed::Syntax), "{bad}");
    }
    assert_eq!(Frame::read(&[b'1'; 200]), Err(Malformed::Syntax));
    assert_eq!(Frame::read(b" d1:a0:e"), Err(Malformed::Syntax));
    // A stream whose message never ends is given up.
    let mut stream = b"1 d1:a999999:".to_vec();
    stream.resize(70_000, b'x');
    assert!(frame::next(&mut stream).is_err());
}

#[test]
fn kamailios_own_writing_is_read() {
    let octets =
        b"2113_5 d8:supportsl10:load limite3:ICE6:remove9:directionl6:inside7:outsidee7:command4:pinge";
    let (frame, length) = Frame::read(octets).unwrap();
    assert_eq!((frame.cookie.as_slice(), length), (&b"2113_5"[..], octets.len()));
    assert_eq!(frame.body.words("direction").collect::<Vec<_>>(), ["inside", "outside"]);
    // A key that repeats is one list.
    let body = Value::dictionary().with("direction", "a").with("direction", "b");
    assert_eq!(body.words("direction").collect::<Vec<_>>(), ["a", "b"]);
}
