//! RFC 3264 §6, clause by clause.

use super::*;
use crate::{Limits, check_answer};

fn offer(lines: &str) -> Session {
    let text = format!(
        "v=0\r\no=- 7 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\na=group:BUNDLE a\r\n{lines}"
    );
    Session::parse(text.as_bytes(), &Limits::default()).unwrap()
}

fn own() -> (Origin, Host) {
    let host = Host::Ip([198, 51, 100, 1].into());
    (Origin::new(99, 1, host.clone()), host)
}

fn accept(direction: Direction, body: AcceptBody) -> Choice {
    Choice::accept(Accept { host: None, port: 4000, direction, fingerprints: vec![], label: None, body })
}

fn audio(codecs: &[(&str, u32)]) -> AcceptBody {
    let codecs = codecs.iter().map(|(name, clock)| (Codec::new(name, *clock), None)).collect();
    AcceptBody::Rtp(AcceptRtp {
        codecs,
        codecs_max: 1,
        rtcp_mux: true,
        ptime: Some(20),
        ..AcceptRtp::default()
    })
}

fn text(session: &Session) -> String {
    String::from_utf8(session.to_bytes().to_vec()).unwrap().replace("\r\n", "\n")
}

#[test]
fn rfc3264_s6_as_many_lines_in_the_same_order() {
    let offer = offer(
        "m=video 9000 RTP/AVP 99\r\na=rtpmap:99 VP8/90000\r\na=mid:v\r\n\
         m=audio 9002 RTP/AVP 98 8 0 97\r\na=rtpmap:98 opus/48000/2\r\na=rtpmap:97 telephone-event/8000\r\n\
         a=fmtp:97 0-16\r\na=rtcp-mux\r\na=mid:a\r\n\
         m=audio 0 RTP/AVP 0\r\nm=application 9 UDP/BFCP *\r\n",
    );
    let (origin, host) = own();
    let mut asked = Vec::new();
    let answer = answer(&offer, origin, host, |number, line| {
        asked.push(number);
        match number {
            1 => accept(line.direction, audio(&[("PCMU", 8000), ("pcma", 8000), ("telephone-event", 8000)])),
            // A body of the wrong kind refuses.
            3 => accept(line.direction, audio(&[])),
            _ => Choice::Refuse,
        }
    });
    assert_eq!(asked, [0, 1, 3]);
    // The offer's order and payload types; one codec and the events; no group line; refused lines have port 0.
    assert_eq!(
        text(&answer),
        "v=0\no=- 99 1 IN IP4 198.51.100.1\ns=-\nc=IN IP4 198.51.100.1\nt=0 0\n\
         m=video 0 RTP/AVP 99\na=mid:v\n\
         m=audio 4000 RTP/AVP 8 97\na=rtcp-mux\na=rtpmap:8 PCMA/8000\na=rtpmap:97 telephone-event/8000\n\
         a=fmtp:97 0-16\na=ptime:20\na=sendrecv\na=mid:a\n\
         m=audio 0 RTP/AVP 0\nm=application 0 UDP/BFCP *\n"
    );
    assert_eq!(check_answer(&offer, &answer), Ok(()));
}

#[test]
fn rfc3264_s6_1_directions_are_mirrored_and_hold_is_answered() {
    for (offered, own_direction, expected) in [
        ("sendonly", Direction::SendRecv, "recvonly"),
        ("recvonly", Direction::SendRecv, "sendonly"),
        ("inactive", Direction::SendRecv, "inactive"),
        ("sendrecv", Direction::RecvOnly, "recvonly"),
        ("sendonly", Direction::SendOnly, "inactive"),
    ] {
        let offer = offer(&format!("m=audio 9 RTP/AVP 0\r\na={offered}\r\n"));
        let (origin, host) = own();
        let answer = answer(&offer, origin, host, |_, _| accept(own_direction, audio(&[])));
        assert_eq!(answer.lines[0].direction.as_str(), expected, "{offered}");
    }
    // §8.4: c=0.0.0.0 means that the offerer receives nothing.
    let offer = offer("m=audio 9 RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\n");
    let (origin, host) = own();
    let answer = answer(&offer, origin, host, |_, _| accept(Direction::SendRecv, audio(&[])));
    assert_eq!(answer.lines[0].direction, Direction::RecvOnly);
}

#[test]
fn a_line_without_a_shared_format_is_refused() {
    let offer = offer("m=audio 9 RTP/AVP 18 101\r\na=rtpmap:101 telephone-event/8000\r\n");
    let (origin, host) = own();
    let body = || audio(&[("PCMU", 8000), ("telephone-event", 8000)]);
    let answer = answer(&offer, origin, host, |_, _| accept(Direction::SendRecv, body()));
    assert!(answer.lines[0].is_refused());
}

#[test]
fn rfc6184_s8_2_2_h264_profiles_differ() {
    let own_parameters = "profile-level-id=42E01F;packetization-mode=1";
    for (offered, fits) in [
        ("profile-level-id=42e00d; packetization-mode=1", true),
        ("profile-level-id=64001f; packetization-mode=1", false),
        ("profile-level-id=42e01f", false),
    ] {
        assert_eq!(
            parameters_fit(&Codec::new("h264", 90_000), Some(own_parameters), Some(offered)),
            fits,
            "{offered}"
        );
    }
}

#[test]
fn only_feedback_and_extensions_of_both_are_answered() {
    let offer = offer(
        "m=video 9 RTP/AVPF 96 97\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 VP9/90000\r\na=rtcp-fb:96 nack pli\r\n\
         a=rtcp-fb:96 goog-remb\r\na=rtcp-fb:97 nack pli\r\na=extmap:3 urn:x:a\r\na=extmap:5 urn:x:b\r\n",
    );
    let (origin, host) = own();
    let own_rtp = AcceptRtp {
        codecs: vec![(Codec::new("VP8", 90_000), None)],
        extensions: vec!["urn:x:b".into()],
        feedback: vec!["nack pli".into()],
        rtcp_port: Some(4003),
        ..AcceptRtp::default()
    };
    let answer =
        answer(&offer, origin, host, |_, _| accept(Direction::SendRecv, AcceptBody::Rtp(own_rtp.clone())));
    let rtp = answer.lines[0].rtp().unwrap();
    assert_eq!(rtp.feedback, [crate::Feedback { payload: Some(96), value: "nack pli".into() }]);
    assert_eq!(rtp.extensions.iter().map(|e| e.id).collect::<Vec<_>>(), [5]);
    assert_eq!(rtp.rtcp, Some(Rtcp { port: 4003, host: None }));
}

#[test]
fn reduced_size_reports_and_bandwidth_are_answered_where_they_are_both_sides() {
    // RFC 5506 §5, RFC 3611 §5.2, RFC 8866 §5.8.
    let offered = |lines: &str| offer(&format!("m=audio 9 RTP/AVPF 0\r\n{lines}"));
    let own_rtp = AcceptRtp {
        rtcp_rsize: true,
        reports: vec!["rcvr-rtt".into()],
        bandwidth_kbps: Some(100),
        ..AcceptRtp::default()
    };
    for (lines, own, expected) in [
        (
            "a=rtcp-rsize\r\na=rtcp-xr:pkt-loss-rle rcvr-rtt=all:10000 voip-metrics\r\n",
            own_rtp.clone(),
            "b=AS:100\na=rtcp-rsize\na=rtcp-xr:rcvr-rtt=all\n",
        ),
        ("a=rtcp-rsize\r\na=rtcp-xr:rcvr-rtt=all\r\n", AcceptRtp::default(), ""),
        ("a=rtcp-xr\r\n", own_rtp.clone(), "b=AS:100\n"),
        ("a=rtcp-xr:voip-metrics\r\n", own_rtp, "b=AS:100\n"),
    ] {
        let offer = offered(lines);
        let (origin, host) = self::own();
        let answer =
            answer(&offer, origin, host, |_, _| accept(Direction::SendRecv, AcceptBody::Rtp(own.clone())));
        let said = text(&answer);
        let said = said.split_once("m=audio 4000 RTP/AVPF 0\n").unwrap().1;
        assert_eq!(said.split_once("a=rtpmap").unwrap().0, expected, "{lines}");
        assert_eq!(answer.lines[0].rtp().unwrap().reports("RCVR-RTT"), expected.contains("rtt"));
    }
    // What is said is written as it was read.
    let offer = offered("a=rtcp-xr\r\n");
    assert!(text(&offer).contains("a=rtcp-xr\n"));
    let offer = offered("a=rtcp-xr:rcvr-rtt=all:10000 stat-summary=loss\r\n");
    assert!(text(&offer).contains("a=rtcp-xr:rcvr-rtt=all:10000 stat-summary=loss\n"));
}

#[test]
fn rfc6135_s4_2_setup() {
    use Setup::{ActPass, Active, HoldConn, Passive};
    for (offered, reachable, expected) in [
        (Some(ActPass), true, Some(Passive)),
        (Some(ActPass), false, Some(Active)),
        (Some(Active), false, Some(Passive)),
        (Some(Passive), true, Some(Active)),
        (Some(HoldConn), true, None),
        (None, true, None),
    ] {
        assert_eq!(Setup::answered(offered, reachable), expected, "{offered:?} {reachable}");
    }
}

#[test]
fn a_chat_and_a_file_are_answered() {
    let offer = offer(
        "m=message 9 TCP/MSRP *\r\na=path:msrp://192.0.2.1:9/a;tcp\r\na=accept-types:message/cpim\r\na=setup:actpass\r\na=msrp-cema\r\n\
         m=message 9 TCP/MSRP *\r\na=path:msrp://192.0.2.1:9/f;tcp\r\na=accept-types:image/png\r\na=sendonly\r\n\
         a=file-selector:name:\"a.png\" size:9\r\na=file-transfer-id:X1\r\na=file-date:creation:\"x\"\r\n",
    );
    let (origin, host) = own();
    let answer = answer(&offer, origin, host, |number, _| {
        let own = AcceptMessage {
            path: format!("msrp://198.51.100.1:4000/{number};tcp"),
            reachable: true,
            accept_types: vec!["*".into()],
            cema: true,
            ..AcceptMessage::default()
        };
        accept(Direction::SendRecv, AcceptBody::Message(own))
    });
    assert_eq!(
        text(&answer).split_once("t=0 0\n").unwrap().1,
        "m=message 4000 TCP/MSRP *\na=path:msrp://198.51.100.1:4000/0;tcp\na=accept-types:*\na=msrp-cema\n\
         a=setup:passive\na=sendrecv\n\
         m=message 4000 TCP/MSRP *\na=path:msrp://198.51.100.1:4000/1;tcp\na=accept-types:*\n\
         a=file-selector:name:\"a.png\" size:9\na=file-transfer-id:X1\na=recvonly\n"
    );
}
