//! The answer to an offer (RFC 3264 §6).
//!
//! As many m= lines as the offer, in its order; each of the offer's kind and transport; port 0 where we refuse.
//! Formats keep the offer's payload types and order. Directions are the offer's, mirrored and cut to ours.

use crate::{
    Body, Chatroom, Codec, Direction, File, Fingerprint, Format, Host, MediaLine, Message, Origin, Rtcp, Rtp,
    Session, Setup,
};

/// What we say to one line of an offer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Choice {
    /// No: port 0.
    Refuse,
    /// Yes.
    Accept(Box<Accept>),
}

impl Choice {
    /// Yes.
    pub fn accept(accept: Accept) -> Self {
        Choice::Accept(Box::new(accept))
    }
}

/// How we take a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Accept {
    /// Where we receive, when not at the session's address.
    pub host: Option<Host>,
    /// Our port.
    pub port: u16,
    /// What we would do; the answer is this cut to what the offer allows.
    pub direction: Direction,
    /// Certificates that we show.
    pub fingerprints: Vec<Fingerprint>,
    /// a=label of ours.
    pub label: Option<String>,
    /// What the kind needs.
    pub body: AcceptBody,
}

/// The part of [`Accept`] that the kind of line decides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AcceptBody {
    /// For a line over RTP.
    Rtp(AcceptRtp),
    /// For a line over MSRP.
    Message(AcceptMessage),
}

/// How we take an RTP line.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AcceptRtp {
    /// What we can take, with our parameters; `None` keeps the offer's parameters. Empty: whatever is offered.
    pub codecs: Vec<(Codec, Option<String>)>,
    /// Take at most this many codecs, the first that fit; 0 means all. Telephone events and comfort noise do
    /// not count.
    pub codecs_max: usize,
    /// RTCP on the media port, if the offer has it.
    pub rtcp_mux: bool,
    /// Where we receive RTCP otherwise, when that is not the next port.
    pub rtcp_port: Option<u16>,
    /// a=ptime of ours, milliseconds.
    pub ptime: Option<u32>,
    /// Header extensions that we understand, by URI; those offered are answered with the offer's ids.
    pub extensions: Vec<String>,
    /// Feedback that we understand, such as `nack pli`; what is offered of it is answered.
    pub feedback: Vec<String>,
}

/// How we take a message line.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AcceptMessage {
    /// Our a=path.
    pub path: String,
    /// Whether others can connect to us: decides the answer to `actpass`.
    pub reachable: bool,
    /// a=accept-types
    pub accept_types: Vec<String>,
    /// a=accept-wrapped-types
    pub accept_wrapped_types: Vec<String>,
    /// a=max-size, octets
    pub max_size: Option<u64>,
    /// a=msrp-cema
    pub cema: bool,
    /// a=chatroom
    pub chatroom: Option<Chatroom>,
}

/// Makes the answer. `choose` is asked for each line of the offer that is used, with its number. A line that
/// is accepted with a body of the wrong kind, or that shares no format with us, is refused.
pub fn answer(
    offer: &Session,
    origin: Origin,
    host: Host,
    mut choose: impl FnMut(usize, &MediaLine) -> Choice,
) -> Session {
    let mut session = Session::new(origin);
    session.host = Some(host);
    for (number, line) in offer.lines.iter().enumerate() {
        let choice = if line.is_refused() { Choice::Refuse } else { choose(number, line) };
        let taken = match choice {
            Choice::Refuse => None,
            Choice::Accept(accept) => accepted(line, *accept),
        };
        session = session.with(taken.unwrap_or_else(|| line.refused()));
    }
    session
}

fn accepted(line: &MediaLine, accept: Accept) -> Option<MediaLine> {
    let (body, setup, own_direction) = match (&line.body, accept.body) {
        (Body::Rtp(offered), AcceptBody::Rtp(own)) => {
            (Body::Rtp(rtp(offered, &own)?), None, accept.direction)
        }
        (Body::Message(offered), AcceptBody::Message(own)) => {
            // RFC 5547 §8.3: one file goes one way, so an answer that sends and receives is mirrored.
            let one_way = offered.file.is_some() && accept.direction == Direction::SendRecv;
            let direction = if one_way { line.direction.mirrored() } else { accept.direction };
            let setup = Setup::answered(line.setup, own.reachable);
            (Body::Message(message(offered, own)), setup, direction)
        }
        _ => return None,
    };
    let mut taken = MediaLine::new(line.kind.clone(), accept.port, line.proto.clone(), body);
    taken.host = accept.host;
    taken.direction = line.effective_direction().answered(own_direction);
    taken.setup = setup;
    taken.fingerprints = accept.fingerprints;
    taken.label = accept.label;
    taken.mid.clone_from(&line.mid);
    Some(taken)
}

fn message(offered: &Message, own: AcceptMessage) -> Message {
    // RFC 5547 §8.3: the answer repeats what names the file.
    let file = offered.file.as_ref().map(|file| File {
        selector: file.selector.clone(),
        transfer_id: file.transfer_id.clone(),
        ..File::default()
    });
    Message {
        path: own.path,
        accept_types: own.accept_types,
        accept_wrapped_types: own.accept_wrapped_types,
        max_size: own.max_size,
        // RFC 6714 §4.3: only when the offer has it.
        cema: own.cema && offered.cema,
        chatroom: own.chatroom,
        file,
    }
}

fn rtp(offered: &Rtp, own: &AcceptRtp) -> Option<Rtp> {
    let (mut formats, mut codecs) = (Vec::new(), 0);
    for format in &offered.formats {
        let Some(parameters) = own.takes(format) else { continue };
        let spoken = !is_auxiliary(&format.codec);
        if spoken && own.codecs_max > 0 && codecs == own.codecs_max {
            continue;
        }
        codecs += usize::from(spoken);
        formats.push(Format { parameters, ..format.clone() });
    }
    if codecs == 0 {
        return None;
    }
    let rtcp_mux = offered.rtcp_mux && own.rtcp_mux;
    let mut answer = Rtp {
        formats,
        rtcp_mux,
        rtcp_rsize: false,
        rtcp: own.rtcp_port.filter(|_| !rtcp_mux).map(|port| Rtcp { port, host: None }),
        ptime: own.ptime,
        maxptime: None,
        feedback: offered.feedback.clone(),
        extensions: offered.extensions.clone(),
    };
    answer.feedback.retain(|fb| own.feedback.contains(&fb.value));
    answer.extensions.retain(|extension| own.extensions.contains(&extension.uri));
    answer.retain(|_| true);
    Some(answer)
}

impl AcceptRtp {
    /// Whether we take a format, and with which parameters.
    fn takes(&self, format: &Format) -> Option<Option<String>> {
        if self.codecs.is_empty() {
            return Some(format.parameters.clone());
        }
        let fits = |(codec, own): &&(Codec, Option<String>)| {
            codec.matches(&format.codec)
                && parameters_fit(codec, own.as_deref(), format.parameters.as_deref())
        };
        let (_, own) = self.codecs.iter().find(fits)?;
        Some(own.clone().or_else(|| format.parameters.clone()))
    }
}

/// Formats that go along with a codec and make no stream of their own.
fn is_auxiliary(codec: &Codec) -> bool {
    ["telephone-event", "CN", "rtx", "red", "ulpfec"].iter().any(|name| codec.name.eq_ignore_ascii_case(name))
}

/// RFC 6184 §8.2.2: two H.264 formats are one only with the same profile and packetization mode. Other codecs
/// have no parameter that makes them another format.
fn parameters_fit(codec: &Codec, own: Option<&str>, offered: Option<&str>) -> bool {
    if !codec.name.eq_ignore_ascii_case("H264") || own.is_none() {
        return true;
    }
    let field = |list: Option<&str>, name: &str, default: &str| {
        let find = |list: &str| {
            list.split(';')
                .find_map(|p| p.trim().split_once('=').filter(|(n, _)| *n == name))
                .map(|(_, v)| v.to_owned())
        };
        list.and_then(find).unwrap_or_else(|| default.to_owned())
    };
    // Without the parameter it is Baseline, level 1.
    let profile = |list| field(list, "profile-level-id", "42000A").get(..2).map(str::to_ascii_lowercase);
    let mode = |list| field(list, "packetization-mode", "0");
    profile(own) == profile(offered) && mode(own) == mode(offered)
}

impl Setup {
    /// What an answer says (RFC 6135 §4.2.2, RFC 4145 §4.1). No a=setup, or `holdconn`, in an offer: the
    /// offerer knows RFC 4975 alone and will connect, so nothing is said. `passive` is not for offers, but the
    /// meaning is plain.
    pub fn answered(offered: Option<Setup>, reachable: bool) -> Option<Setup> {
        match offered? {
            Setup::Active => Some(Setup::Passive),
            Setup::ActPass if reachable => Some(Setup::Passive),
            Setup::ActPass | Setup::Passive => Some(Setup::Active),
            Setup::HoldConn => None,
        }
    }
}

#[cfg(test)]
mod tests {
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
                1 => accept(
                    line.direction,
                    audio(&[("PCMU", 8000), ("pcma", 8000), ("telephone-event", 8000)]),
                ),
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
        let answer = answer(&offer, origin, host, |_, _| {
            accept(Direction::SendRecv, AcceptBody::Rtp(own_rtp.clone()))
        });
        let rtp = answer.lines[0].rtp().unwrap();
        assert_eq!(rtp.feedback, [crate::Feedback { payload: Some(96), value: "nack pli".into() }]);
        assert_eq!(rtp.extensions.iter().map(|e| e.id).collect::<Vec<_>>(), [5]);
        assert_eq!(rtp.rtcp, Some(Rtcp { port: 4003, host: None }));
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
}
