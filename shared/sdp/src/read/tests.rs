//! Descriptions from the documents and the field, malformed ones, mutations.

use super::*;
use proptest::prelude::*;

fn parse(text: &str) -> Result<Session, SdpError> {
    Session::parse(text.replace('\n', "\r\n").as_bytes(), &Limits::default())
}

const CHAT: &str = "v=0\no=- 3895211 3895211 IN IP4 192.0.2.10\ns=-\nc=IN IP4 192.0.2.10\nt=0 0\n\
    m=message 7394 TCP/TLS/MSRP *\na=path:msrps://192.0.2.10:7394/s9Xk2pQ7;tcp\n\
    a=accept-types:message/cpim application/im-iscomposing+xml\n\
    a=accept-wrapped-types:text/plain message/imdn+xml\na=max-size:20480\na=msrp-cema\n\
    a=chatroom:nickname private-messages x-other\na=setup:actpass\na=fingerprint:SHA-1 4A:AD:4A:AD:4A:AD:4A:AD:4A:AD:4A:AD:4A:AD:4A:AD:4A:AD:4A:AD\n\
    a=sendrecv\na=label:7\na=mid:m\na=x-unknown:kept  as it is\n";

const CALL: &str = "v=0\no=alice 1 2 IN IP6 2001:db8::1\ns=call\nc=IN IP6 2001:db8::1\nb=AS:500\nt=0 0\n\
    a=group:BUNDLE a v\na=x-session\n\
    m=audio 49170 RTP/AVP 96 0 101\nb=AS:64\na=rtcp:53020 IN IP4 192.0.2.9\na=rtcp-mux\na=rtcp-rsize\n\
    a=rtpmap:96 opus/48000/2\na=fmtp:96 useinbandfec=1; stereo=0\na=rtpmap:0 PCMU/8000\n\
    a=rtpmap:101 telephone-event/8000\na=fmtp:101 0-15\na=ptime:20\na=maxptime:60\n\
    a=extmap:1/sendonly urn:ietf:params:rtp-hdrext:ssrc-audio-level vad=on\na=recvonly\na=mid:a\n\
    m=video 49172 RTP/AVPF 97\nc=IN IP4 192.0.2.8\na=rtpmap:97 H264/90000\na=rtcp-fb:* ccm fir\n\
    a=rtcp-fb:97 nack pli\na=sendrecv\na=mid:v\n\
    m=application 0 UDP/BFCP *\n";

#[test]
fn what_is_read_is_written_again() {
    for text in [CHAT, CALL] {
        let session = parse(text).unwrap();
        assert_eq!(String::from_utf8(session.to_bytes().to_vec()).unwrap().replace("\r\n", "\n"), text);
    }
}

#[test]
fn rfc4975_s8_the_message_line() {
    let session = parse(CHAT).unwrap();
    let (0, line) = session.message_line().unwrap() else { panic!("not the first line") };
    assert_eq!((&line.kind, &line.proto, line.port), (&Kind::Message, &Proto::MsrpTls, 7394));
    assert_eq!((line.setup, line.label.as_deref()), (Some(Setup::ActPass), Some("7")));
    let message = line.message().unwrap();
    assert_eq!(message.path, "msrps://192.0.2.10:7394/s9Xk2pQ7;tcp");
    assert_eq!((message.max_size, message.cema), (Some(20_480), true));
    let room = message.chatroom.as_ref().unwrap();
    assert!(room.nickname && room.private_messages && room.others == ["x-other"]);
}

#[test]
fn what_the_session_says_holds_for_each_line() {
    let session = parse(
        "v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\nc=IN IP4 192.0.2.1\nt=0 0\na=inactive\na=setup:active\n\
         a=fingerprint:x-hash AA\nm=audio 9 RTP/AVP 0\nm=audio 9 RTP/AVP 0\na=sendonly\na=setup:passive\nc=IN IP4 192.0.2.2\n",
    )
    .unwrap();
    let [first, second] = &session.lines[..] else { panic!("two lines") };
    assert_eq!((first.direction, first.setup), (Direction::Inactive, Some(Setup::Active)));
    assert_eq!((second.direction, second.setup), (Direction::SendOnly, Some(Setup::Passive)));
    assert_eq!((first.fingerprints.len(), second.fingerprints.len()), (1, 1));
    assert_eq!(first.host, session.host);
    assert_eq!(second.host, Some(Host::Ip([192, 0, 2, 2].into())));
    assert!(session.is_held());
}

/// CPM-FACTS §2.4: RCS file transfer as seen in the field.
#[test]
fn blanks_after_the_colon_are_cut_and_connection_is_ignored() {
    let session = parse(
        "v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\nc=IN IP4 192.0.2.1\nt=0 0\nm=message 20000 TCP/MSRP *\n\
         a=accept-types: image/jpeg\na=file-transfer-id: 1358\na=file-disposition:attachment\n\
         a=file-selector: name:\"trip 1.jpg\" type:image/jpeg size:40960\na=path: msrp://192.0.2.1:20000/f1;tcp\n\
         a=setup: actpass\na=connection:new\na=max-size: 40960 \na=sendonly\n",
    )
    .unwrap();
    let line = &session.lines[0];
    let message = line.message().unwrap();
    assert_eq!(message.accept_types, ["image/jpeg"]);
    assert_eq!(message.path, "msrp://192.0.2.1:20000/f1;tcp");
    assert_eq!(message.max_size, Some(40_960));
    let file = message.file.as_ref().unwrap();
    assert_eq!((file.transfer_id.as_deref(), file.size()), (Some("1358"), Some(40_960)));
    assert_eq!(line.setup, Some(Setup::ActPass));
    assert!(line.others.is_empty());
}

#[test]
fn rfc3551_s6_static_payload_types_need_no_rtpmap() {
    let session =
        parse("v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\nc=IN IP4 192.0.2.1\nm=audio 9 RTP/AVP 0 8 9 77\n")
            .unwrap();
    let names: Vec<_> = session.lines[0].rtp().unwrap().formats.iter().map(|f| f.codec.to_string()).collect();
    assert_eq!(names, ["PCMU/8000", "PCMA/8000", "G722/8000", "/0"]);
}

#[test]
fn rfc3264_s8_4_hold_by_address() {
    let text = CALL.replace("c=IN IP4 192.0.2.8", "c=IN IP4 0.0.0.0");
    let line = parse(&text).unwrap().lines.swap_remove(1);
    assert_eq!((line.direction, line.effective_direction()), (Direction::SendRecv, Direction::SendOnly));
}

#[test]
fn malformed_descriptions_are_named() {
    let base = "v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\nc=IN IP4 192.0.2.1\nt=0 0\n";
    let with = |tail: &str| format!("{base}{tail}");
    let message = "m=message 9 TCP/MSRP *\n";
    for (text, why) in [
        (String::new(), SdpError::Origin),
        ("v=1\no=- 1 1 IN IP4 192.0.2.1\n".to_owned(), SdpError::Line),
        ("v=0\ns=-\n".to_owned(), SdpError::Origin),
        ("v=0\no=- 1 x IN IP4 192.0.2.1\n".to_owned(), SdpError::Origin),
        ("v=0\no=- 1 -1 IN IP4 192.0.2.1\n".to_owned(), SdpError::Origin),
        ("v=0\no=- 1 1 IN IP4\n".to_owned(), SdpError::Origin),
        ("v=0\no=- 1 1 IN IP4 not!host\n".to_owned(), SdpError::Origin),
        (format!("{base}o=- 1 1 IN IP4 192.0.2.1\n"), SdpError::Origin),
        (with("c=IN IP4 192.0.2.2\n"), SdpError::Connection),
        (with("garbage\n"), SdpError::Line),
        (with("m=audio\n"), SdpError::Media),
        (with("m=audio 70000 RTP/AVP 0\n"), SdpError::Media),
        (with("m=audio -1 RTP/AVP 0\n"), SdpError::Media),
        (with("m=audio 9 RTP/AVP 128\n"), SdpError::Media),
        (with("m=audio 9 RTP/AVP x\n"), SdpError::Media),
        (with("m=audio 9 RTP/AVP 0\nc=IN IP6 192.0.2.2\n"), SdpError::Connection),
        (with("m=audio 9 RTP/AVP 0\na=rtpmap:0\n"), SdpError::Attribute),
        (with("m=audio 9 RTP/AVP 0\na=rtpmap:0 PCMU\n"), SdpError::Attribute),
        (with("m=audio 9 RTP/AVP 0\na=rtcp:x\n"), SdpError::Attribute),
        (with("m=audio 9 RTP/AVP 0\na=setup:maybe\n"), SdpError::Attribute),
        (with("m=audio 9 RTP/AVP 0\na=fingerprint:SHA-256 AA\n"), SdpError::Attribute),
        (with(message), SdpError::NoPath),
        (with(&format!("{message}a=path:msrp://a:9/b;tcp\n")), SdpError::NoPath),
        (with(&format!("{message}a=accept-types:*\n")), SdpError::NoPath),
        (with(&format!("{message}a=path:x\na=accept-types:*\na=max-size:-1\n")), SdpError::Attribute),
        ("v=0\no=- 1 1 IN IP4 192.0.2.1\nm=audio 9 RTP/AVP 0\n".to_owned(), SdpError::NoAddress),
        (with(&"m=audio 0 RTP/AVP 0\n".repeat(17)), SdpError::TooManyMedia),
        (with(&"a=x\n".repeat(400)), SdpError::TooManyLines),
        (with(&format!("m=audio 9 RTP/AVP {}\n", "0 ".repeat(65))), SdpError::TooManyFormats),
        (with(&format!("a={}\n", "x".repeat(16_384))), SdpError::TooLong),
    ] {
        let short: String = text.chars().take(300).collect();
        assert_eq!(parse(&text).map(|_| ()), Err(why), "{short}");
        assert_eq!(why.sip_status(), 488);
    }
    assert_eq!(SdpError::Mismatch.sip_status(), 400);
}

#[test]
fn refused_lines_may_say_anything() {
    let text = "v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\nm=audio 0 RTP/AVP x y\nm=message 0 TCP/MSRP *\n";
    let session = parse(text).unwrap();
    assert!(session.lines.iter().all(MediaLine::is_refused));
    assert_eq!(session.lines[0].format_words(), ["x", "y"]);
}

proptest! {
    #[test]
    fn mutations_never_panic_and_what_is_read_settles(
        which in 0usize..2,
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 0..10),
    ) {
        let mut octets = [CHAT, CALL][which].as_bytes().to_vec();
        for (at, octet, kind) in edits {
            let at = at.index(octets.len());
            match kind {
                0 => octets[at] = octet,
                1 => octets.insert(at, octet),
                _ => { octets.remove(at); }
            }
        }
        if let Ok(session) = Session::parse(&octets, &Limits::default()) {
            let written = session.to_bytes();
            let limits = Limits { size_max: 65_536, ..Limits::default() };
            let again = Session::parse(&written, &limits);
            prop_assert!(again.is_ok(), "{:?}: {}", again, written.escape_ascii());
            let again = again.unwrap();
            prop_assert_eq!(again.to_bytes(), written);
        }
    }

    #[test]
    fn any_octets(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Session::parse(&octets, &Limits::default());
    }
}
