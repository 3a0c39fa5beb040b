use proptest::prelude::*;

use super::*;

/// RFC 5769 §2.1: a request of an ICE agent.
const SAMPLE: &str = "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74\
    002400046e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5\
    b2d3f249c1b571a280280004e57a3bcf";
const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

/// RFC 5769 §2.2 and §2.3: the answer to it, for an IPv4 and an IPv6 source.
const FROM_V4: &str = "192.0.2.1:32853";
const FROM_V6: &str = "[2001:db8:1234:5678:11:2233:4455:6677]:32853";

fn sample() -> Vec<u8> {
    hex::decode(SAMPLE).unwrap()
}

#[test]
fn rfc5769_s2_1_the_sample_request_is_read_and_authentic() {
    let bytes = sample();
    let message = Message::parse(&bytes).unwrap();
    assert_eq!((message.class, message.username), (Class::Request, Some(&b"evtj:h6vY"[..])));
    assert!(message.controlled && !message.use_candidate && message.has_credentials());
    assert!(message.is_authentic(&Key::new(PASSWORD)) && !message.is_authentic(&Key::new("another")));
    assert!(message.unknown().is_empty());
}

#[test]
fn rfc5769_s2_2_the_answer_has_the_address_mixed() {
    let bytes = sample();
    let message = Message::parse(&bytes).unwrap();
    let key = Key::new(PASSWORD);
    for (from, mapped) in
        [(FROM_V4, "002000080001a147e112a643"), (FROM_V6, "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9")]
    {
        let answer = success(&message.transaction, from.parse().unwrap(), &key);
        assert!(answer.len() <= bytes.len(), "an answer is no longer than the check");
        assert_eq!(hex::encode(&answer[20..20 + mapped.len() / 2]), mapped);
        let read = Message::parse(&answer).unwrap();
        assert_eq!((read.class, read.transaction), (Class::Success, message.transaction));
        assert!(read.is_authentic(&key));
    }
}

#[test]
fn rfc8489_s14_every_altered_octet_is_found() {
    let key = Key::new("a-password-of-22-chars");
    let bytes = check(&[7; 12], "ours:theirs", &key, true);
    let message = Message::parse(&bytes).unwrap();
    assert!(message.use_candidate && message.is_authentic(&key) && !message.controlled);
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 0x40;
        let passes =
            Message::parse(&altered).is_ok_and(|m| m.class == Class::Request && m.is_authentic(&key));
        assert!(!passes, "octet {at}");
    }
    for length in 0..bytes.len() {
        assert!(Message::parse(&bytes[..length]).is_err(), "{length} octets");
    }
}

/// Writes attributes behind a header, with a right FINGERPRINT at the end.
fn with(attributes: &[(u16, &[u8])], key: Option<&Key>, behind: &[(u16, &[u8])]) -> Vec<u8> {
    let mut written = Written::new(0x0001, &[1; 12]);
    for (kind, value) in attributes {
        written.attribute(*kind, &[value]);
    }
    if let Some(tag) = key.and_then(|key| key.tag(&written)) {
        written.attribute(MESSAGE_INTEGRITY, &[tag.as_ref()]);
    }
    for (kind, value) in behind {
        written.attribute(*kind, &[value]);
    }
    written.finish(None).to_vec()
}

// §14.5: whoever changes a packet on its way can add behind the integrity what he likes.
#[test]
fn what_stands_behind_the_integrity_means_nothing() {
    let key = Key::new("secret");
    let bytes = with(
        &[(USERNAME, b"a:b")],
        Some(&key),
        &[(USE_CANDIDATE, b""), (0x7777, b""), (ICE_CONTROLLED, b"12345678")],
    );
    let message = Message::parse(&bytes).unwrap();
    assert!(message.is_authentic(&key) && !message.use_candidate && !message.controlled);
    assert!(message.unknown().is_empty());
}

#[test]
fn what_does_not_authenticate_or_is_not_understood_is_refused_by_its_number() {
    let key = Key::new("secret");
    let bare = with(&[(USERNAME, b"a:b")], None, &[]);
    assert!(!Message::parse(&bare).unwrap().has_credentials());
    let odd = with(&[(USERNAME, b"a:b"), (0x7777, b"xy"), (0x0003, b"")], Some(&key), &[]);
    let message = Message::parse(&odd).unwrap();
    assert_eq!(message.unknown(), [0x7777, 0x0003]);
    for (refusal, code) in [
        (Refusal::BadRequest, [4, 0]),
        (Refusal::Unauthenticated, [4, 1]),
        (Refusal::UnknownAttribute, [4, 20]),
        (Refusal::RoleConflict, [4, 87]),
    ] {
        let answer = refuse(&message, refusal, Some(&key));
        assert_eq!(answer[26..28], code);
        let read = Message::parse(&answer).unwrap();
        assert_eq!((read.class, read.is_authentic(&key)), (Class::Error, true));
    }
    let refused = refuse(&message, Refusal::UnknownAttribute, None);
    assert!(hex::encode(&refused[..]).contains("000a000477770003"));
    assert!(!Message::parse(&refused).unwrap().is_authentic(&key));
}

#[test]
fn headers_and_attributes_that_do_not_fit() {
    let good = with(&[(USERNAME, b"a:b")], None, &[]);
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        Message::parse(&bytes).map(|m| m.class)
    };
    assert_eq!(changed(&|_| {}), Ok(Class::Request));
    assert_eq!(changed(&|b| b[4] = 0), Err(StunError::Header), "the cookie");
    assert_eq!(changed(&|b| b[0] = 0x40), Err(StunError::Header), "the first two bits");
    assert_eq!(changed(&|b| b[3] += 4), Err(StunError::Header), "the length");
    assert_eq!(changed(&|b| b.push(0)), Err(StunError::Header), "more than the length");
    assert_eq!(changed(&|b| b[1] = 3), Err(StunError::Method), "Allocate");
    assert_eq!(changed(&|b| b[23] = 200), Err(StunError::Attribute), "an attribute beyond the end");
    let bare = Written::new(0x0001, &[1; 12]).to_vec();
    assert_eq!(Message::parse(&bare).map(|m| m.class), Err(StunError::Fingerprint));
    let many: Vec<(u16, &[u8])> = (0..20).map(|_| (USE_CANDIDATE, &b""[..])).collect();
    assert!(Message::parse(&with(&many, None, &[])).is_ok());
    let mut flood = Written::new(0x0001, &[1; 12]).to_vec();
    (0..300).for_each(|_| flood.extend_from_slice(&[0, 0x25, 0, 0]));
    flood[2..4].copy_from_slice(&1200u16.to_be_bytes());
    assert_eq!(Message::parse(&flood).map(|m| m.class), Err(StunError::Attribute));
}

proptest! {
    #[test]
    fn octets_of_any_kind_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), framed: bool) {
        if framed && bytes.len() >= 20 {
            let length = ((bytes.len() - 20) as u16).to_be_bytes();
            bytes[..8].copy_from_slice(&[0, 1, length[0], length[1], 0x21, 0x12, 0xa4, 0x42]);
        }
        if let Ok(message) = Message::parse(&bytes) {
            message.is_authentic(&Key::new("x"));
            refuse(&message, Refusal::UnknownAttribute, None);
        }
    }
}

// RFC 5626 §4.4.2 and §8: no credentials; where the request came from is what the client wants to know.
#[test]
fn keep_alives_of_sip_are_answered() {
    let from: SocketAddr = "192.0.2.7:5062".parse().unwrap();
    let transaction = [7; 12];
    let answer = keep_alive(&binding(&transaction), from).unwrap().unwrap();
    assert_eq!(answer[..2], [1, 1]);
    assert_eq!(answer[8..20], transaction);
    let wanted = [0, 0x20, 0, 8, 0, 1, 0x13 ^ 0x21, 0xc6 ^ 0x12, 192 ^ 0x21, 0x12, 2 ^ 0xa4, 7 ^ 0x42];
    assert_eq!(answer[20..], wanted);
    // An indication wants nothing back; what is no STUN is somebody else's.
    let mut indication = binding(&transaction);
    indication[1] = 0x11;
    assert!(keep_alive(&indication, from).unwrap().is_none());
    for other in [&b"OPTIONS sip:a SIP/2.0\r\n\r\n"[..], b"\0\0\0\0", b"\r\n\r\n", b"", &answer[..24]] {
        assert!(keep_alive(other, from).is_none());
    }
    // RFC 8489 §6.3.1: what must be understood and is not.
    let mut strange = binding(&transaction);
    strange.extend_from_slice(&[0x7f, 0xff, 0, 0]);
    strange[3] = 4;
    assert_eq!(keep_alive(&strange, from).unwrap().unwrap()[..2], [1, 0x11]);
}
