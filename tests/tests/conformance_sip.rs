//! RFC 4475 and RFC 5118: every message gets its verdict, from the code that the process runs: framer, stack,
//! screen, digest. Messages go in as datagrams and, where a stream can carry them, through the stream framer.

use std::collections::BTreeSet;

use base::{Entropy, Instant, Outbox, UnixTime};
use bytes::Bytes;
use sip::digest::{Kind, Server};
use sip::screen::{Rules, wellformed};
use sip::typed::{Contact, From, MediaType, To, Via};
use sip::{
    ClientKey, Config, Dropped, Frame, Host, HostPort, Input, Limits, Malformed, Message, Method, Name,
    Output, Peer, Request, Response, Stack, StreamFramer, Timing, Transport, Uri, Why, datagram,
};
use sipx_testkit::{rfc4475, rfc5118};

/// What becomes of a message.
#[derive(Debug)]
enum Verdict {
    /// A request reaches the service, a response its client transaction.
    Accepted(Box<Message>),
    /// The stack or the screen answers.
    Answered(Box<Response>),
    /// Nothing goes out; the counters say why.
    Dropped(Dropped),
}

impl Verdict {
    fn code(&self) -> u16 {
        match self {
            Verdict::Accepted(_) => ACCEPTED,
            Verdict::Answered(response) => response.code,
            Verdict::Dropped(_) => DROPPED,
        }
    }

    fn request(self) -> Request {
        match self {
            Verdict::Accepted(message) => match *message {
                Message::Request(request) => request,
                Message::Response(other) => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }
}

const ACCEPTED: u16 = 0;
const DROPPED: u16 = 1;

struct Node {
    stack: Stack,
    out: Outbox<Output>,
    rules: Rules,
    peer: Peer,
}

impl Node {
    fn new() -> Node {
        let host = HostPort { host: Host::parse(b"192.0.2.100").unwrap(), port: Some(5060) };
        let config = Config {
            sent_by: vec![(Transport::Udp, host)],
            limits: Limits::default(),
            timing: Timing::default(),
        };
        let media =
            |kinds: &[(&str, &str)]| kinds.iter().map(|(k, s)| MediaType::new(k, s)).collect::<Vec<_>>();
        let rules = Rules {
            methods: Vec::new(),
            option_tags: vec!["timer".into(), "recipient-list-invite".into()],
            body_types: vec![(Method::Invite, media(&[("application", "sdp"), ("multipart", "mixed")]))],
            forwards: true,
            ..Rules::default()
        };
        Node {
            stack: Stack::new(config, Entropy::from_number(4475)),
            out: Outbox::with_max(16),
            rules,
            peer: Peer::new(Transport::Udp, "192.0.2.200:5060".parse().unwrap()),
        }
    }

    /// Makes the stack wait for a response to a request with that CSeq, and writes its branch into the bytes.
    fn expect_response(&mut self, bytes: &[u8], branch: &str, cseq: &str) -> Vec<u8> {
        let method = Method::parse(cseq.split(' ').nth(1).unwrap().as_bytes()).unwrap();
        let mut request = Request::new(method, "sip:user@example.edu".parse().unwrap());
        request.headers.push(Name::From, "<sip:user@example.com>;tag=1");
        request.headers.push(Name::To, "<sip:user@example.edu>");
        request.headers.push(Name::CallId, "c");
        request.headers.push(Name::CSeq, cseq);
        let input = Input::Send { key: ClientKey(1), to: self.peer, request };
        self.stack.handle(Instant::ZERO, input, &mut self.out);
        let Some(Output::Transmit { bytes: sent, .. }) = self.out.pop() else { panic!("nothing sent") };
        let Ok(Some(sent)) = datagram(sent, &Limits::default()) else { panic!("our own request") };
        let ours = sent.headers().must::<Via>().unwrap().branch().unwrap().to_owned();
        replace(bytes, branch.as_bytes(), ours.as_bytes())
    }

    fn judge(&mut self, read: Result<Option<Message>, Malformed>) -> Verdict {
        let before: Vec<_> = self.stack.dropped().collect();
        let input = match read {
            Ok(Some(message)) => Input::Received { peer: self.peer, message },
            Ok(None) => panic!("no message"),
            Err(malformed) => Input::Malformed { peer: self.peer, malformed },
        };
        self.stack.handle(Instant::ZERO, input, &mut self.out);
        let outputs: Vec<Output> = self.out.drain().collect();
        for output in outputs {
            match output {
                Output::Transmit { bytes, .. } => match datagram(bytes, &Limits::default()) {
                    Ok(Some(Message::Response(response))) => return Verdict::Answered(Box::new(response)),
                    Ok(Some(Message::Request(request))) if request.method == Method::Ack => {}
                    other => panic!("{other:?}"),
                },
                Output::Request { server, request, .. } => {
                    return match self.rules.screen(&request) {
                        Ok(()) => Verdict::Accepted(Box::new(request.into())),
                        Err(response) => {
                            let input = Input::Respond { server, response: *response };
                            self.stack.handle(Instant::ZERO, input, &mut self.out);
                            let Some(Output::Transmit { bytes, .. }) = self.out.pop() else {
                                panic!("no answer")
                            };
                            match datagram(bytes, &Limits::default()) {
                                Ok(Some(Message::Response(response))) => {
                                    Verdict::Answered(Box::new(response))
                                }
                                other => panic!("{other:?}"),
                            }
                        }
                    };
                }
                Output::Response { response, .. } => return Verdict::Accepted(Box::new(response.into())),
                other => panic!("{other:?}"),
            }
        }
        let news = self.stack.dropped().find(|now| !before.contains(now));
        Verdict::Dropped(news.expect("a reason").0)
    }

    fn datagram(&mut self, bytes: &[u8]) -> Verdict {
        let read = datagram(Bytes::copy_from_slice(bytes), &Limits::default());
        self.judge(read)
    }
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|w| w == from).expect("present");
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

fn torture(name: &str) -> &'static [u8] {
    rfc4475::case(name).unwrap().bytes
}

fn accepted(name: &str) -> Request {
    Node::new().datagram(torture(name)).request()
}

/// CPM-FACTS §6.1. The responses are in `responses`.
const VERDICTS: &[(&str, u16)] = &[
    // RFC 4475 §3.1.1
    ("wsinv", ACCEPTED),
    ("intmeth", ACCEPTED),
    ("esc01", ACCEPTED),
    ("escnull", ACCEPTED),
    ("esc02", ACCEPTED),
    ("lwsdisp", ACCEPTED),
    ("longreq", ACCEPTED),
    ("dblreq", ACCEPTED),
    ("semiuri", ACCEPTED),
    ("transports", ACCEPTED),
    ("mpart01", ACCEPTED),
    // §3.1.2
    ("badinv01", 400),
    ("clerr", 400),
    ("ncl", 400),
    ("scalar02", 400),
    ("quotbal", 400),
    ("ltgtruri", 400),
    ("lwsruri", 400),
    ("lwsstart", 400),
    ("trws", 400),
    ("escruri", 400),
    ("baddate", 400),
    ("regbadct", 400),
    ("badaspec", 400),
    ("baddn", 400),
    ("badvers", 505),
    ("mismatch01", 400),
    ("mismatch02", 400),
    // §3.2, §3.3
    ("badbranch", ACCEPTED),
    ("insuf", 400),
    ("unkscm", 416),
    ("novelsc", 416),
    ("unksm2", ACCEPTED),
    ("bext01", 420),
    ("invut", 415),
    // 401 by the registrar: `an_unknown_authorization_scheme_is_challenged`
    ("regaut01", ACCEPTED),
    ("multi01", 400),
    ("mcl01", 400),
    ("zeromf", ACCEPTED),
    ("cparam01", ACCEPTED),
    ("cparam02", ACCEPTED),
    ("regescrt", ACCEPTED),
    ("sdp01", ACCEPTED),
    // §3.4
    ("inv2543", ACCEPTED),
];

/// Response, the branch in it, its CSeq, why it is dropped even when we wait for it.
const RESPONSES: &[(&str, &str, &str, Option<Dropped>)] = &[
    ("unreason", "z9hG4bK1324923", "35 INVITE", None),
    ("noreason", "z9hG4bK2398ndaoe", "35 INVITE", None),
    ("scalarlg", "z9hG4bKzzxdiwo34sw", "1 OPTIONS", Some(Dropped::Malformed(Why::HeaderValue))),
    ("bigcode", "z9hG4bK2398ndaoe", "1 INVITE", Some(Dropped::Malformed(Why::StatusCode))),
    ("bcast", "z9hG4bK1324923", "35 INVITE", Some(Dropped::ForeignVia)),
];

#[test]
fn every_message_of_rfc4475_has_a_verdict() {
    let listed: BTreeSet<&str> =
        VERDICTS.iter().map(|(n, _)| *n).chain(RESPONSES.iter().map(|(n, ..)| *n)).collect();
    let all: BTreeSet<&str> = rfc4475::classified().map(|case| case.name).collect();
    assert_eq!(listed, all);
}

#[test]
fn requests() {
    for (name, code) in VERDICTS {
        let verdict = Node::new().datagram(torture(name));
        assert_eq!(verdict.code(), *code, "{name}: {verdict:?}");
        if let Verdict::Answered(response) = verdict {
            assert!(response.headers.has(&Name::Via) && response.headers.has(&Name::CSeq), "{name}");
            // RFC 3261 §8.2.6.2: with a To tag, unless the To itself is what is wrong.
            let to = response.headers.typed::<To>();
            assert!(!matches!(&to, Ok(Some(to)) if to.tag().is_none()), "{name}");
        }
    }
}

#[test]
fn responses() {
    for (name, branch, cseq, why) in RESPONSES {
        let mut node = Node::new();
        let bytes = node.expect_response(torture(name), branch, cseq);
        match (node.datagram(&bytes), why) {
            (Verdict::Accepted(_), None) => {}
            (Verdict::Dropped(found), Some(why)) if found == *why => {}
            other => panic!("{name}: {other:?}"),
        }
        // Nobody waits for it: dropped in any case, and never answered.
        let stray = Node::new().datagram(torture(name));
        let malformed = why.filter(|why| matches!(why, Dropped::Malformed(_)));
        let expected = malformed.unwrap_or(Dropped::StrayResponse);
        assert!(matches!(stray, Verdict::Dropped(found) if found == expected), "{name}: {stray:?}");
    }
}

/// The same verdicts over a stream, in one write and octet by octet.
#[test]
fn requests_over_a_stream() {
    // A stream waits for the rest of these two, cannot delimit the third, and reads on in the fourth.
    let not_the_same = ["clerr", "baddn", "inv2543", "dblreq"];
    for (name, code) in VERDICTS.iter().filter(|(name, _)| !not_the_same.contains(name)) {
        for cut in [1, 7, usize::MAX] {
            let mut framer = StreamFramer::new(Limits::default());
            let mut frames = Vec::new();
            for piece in torture(name).chunks(cut.min(torture(name).len())) {
                framer.push(piece);
                frames.extend(std::iter::from_fn(|| framer.next()));
            }
            let read = match frames.into_iter().next() {
                Some(Frame::Message(message)) => Ok(Some(message)),
                Some(Frame::Malformed(malformed)) => Err(malformed),
                other => panic!("{name}: {other:?}"),
            };
            assert_eq!(Node::new().judge(read).code(), *code, "{name}");
        }
    }
}

/// RFC 3261 §18.3: on a stream Content-Length is mandatory, and what follows a body is the next message.
#[test]
fn what_a_stream_makes_of_the_other_four() {
    let frames = |name: &str| {
        let mut framer = StreamFramer::new(Limits::default());
        framer.push(torture(name));
        let frames: Vec<Frame> = std::iter::from_fn(|| framer.next()).collect();
        (frames, framer.is_broken())
    };
    assert!(matches!(frames("clerr"), (f, false) if f.is_empty()));
    assert!(matches!(frames("baddn"), (f, false) if f.is_empty()));
    assert!(
        matches!(frames("inv2543"), (f, true) if matches!(&f[..], [Frame::Malformed(m)] if m.why == Why::LengthMissing))
    );
    // Both requests of dblreq; the second declares less than it has, and the rest is no message.
    assert!(
        matches!(frames("dblreq"), (f, true) if matches!(&f[..], [Frame::Message(_), Frame::Message(_), Frame::Malformed(_)]))
    );
}

/// §3.1.1.1
#[test]
fn wsinv_in_its_parts() {
    let request = accepted("wsinv");
    assert_eq!(request.uri.params.get("unknownparam"), Some(""));
    assert_eq!(request.to().unwrap().tag(), Some("1918181833n"));
    assert_eq!(request.from().unwrap().display.as_deref(), Some("J Rosenberg \\\""));
    assert_eq!(request.headers.text(&Name::MaxForwards), Some("0068"));
    assert_eq!((request.cseq().unwrap().seq, request.body.len()), (9, 150));
    assert_eq!(request.headers.text(&Name::Subject), Some(""));
    let vias = request.headers.all::<Via>().unwrap();
    assert_eq!(vias.iter().map(|v| &*v.transport).collect::<Vec<_>>(), ["UDP", "TCP", "UDP"]);
    assert_eq!(vias[2].branch(), Some("z9hG4bK30239"));
    assert_eq!(vias[0].unique_branch(), None);
    let contact = request.headers.must::<Contact>().unwrap();
    assert_eq!((contact.display.as_deref(), contact.q_thousandths()), (Some("Quoted string \"\""), 330));
    assert_eq!(request.headers.text(&"UnknownHeaderWithUnusualValue".into()), Some(";;,,;;,;"));
}

/// §3.1.1.2
#[test]
fn intmeth_in_its_parts() {
    let request = accepted("intmeth");
    assert_eq!(request.method.as_str(), "!interesting-Method0123456789_*+`.%indeed'~");
    assert_eq!(request.to().unwrap().display.as_deref(), Some("BEL:\u{7} NUL:\0 DEL:\u{7f}"));
    assert_eq!(request.headers.text(&"extensionHeader-!.%*+_`'~".into()), Some("\u{feff}大停電"));
    let from = request.from().unwrap();
    assert_eq!(from.params.text("fromParam''~+*_!.-%").as_deref(), Some("работающий"));
}

/// §3.1.1.3 to §3.1.1.5
#[test]
fn escapes() {
    let request = accepted("esc01");
    assert_eq!(request.uri.user_decoded().as_deref(), Some("sips:user@example.com"));
    assert_eq!((request.uri.host.to_string().as_str(), &request.uri.password), ("example.net", &None));
    assert!(request.to().unwrap().uri.equivalent(&Uri::sip("user", "example.com")));
    let contact = request.headers.must::<Contact>().unwrap();
    assert!(contact.uri.is_loose_router() && contact.uri.params.get("name").is_some());
    let request = accepted("escnull");
    let users: Vec<_> = request
        .headers
        .all::<Contact>()
        .unwrap()
        .iter()
        .map(|c| c.uri.user_decoded().unwrap().into_owned())
        .collect();
    assert_eq!(users, ["\0", "\0\0"]);
    let request = accepted("esc02");
    assert_eq!(request.method.as_str(), "RE%47IST%45R");
    assert_eq!(request.to().unwrap().display.as_deref(), Some("%Z%45"));
    // `C%6Fntact` is not Contact.
    assert_eq!(request.headers.all::<Contact>().unwrap().len(), 2);
}

/// §3.1.1.6 to §3.1.1.11
#[test]
fn other_valid_requests_in_their_parts() {
    let from = accepted("lwsdisp").from().unwrap();
    assert_eq!((from.display.as_deref(), from.tag()), (Some("caller"), Some("323")));
    let request = accepted("longreq");
    assert_eq!((request.headers.all::<Via>().unwrap().len(), request.body.len()), (34, 150));
    let request = accepted("dblreq");
    assert_eq!((request.method.clone(), request.body.len()), (Method::Register, 0));
    assert_eq!(accepted("semiuri").uri.user_decoded().as_deref(), Some("user;par=u@example.net"));
    let vias = accepted("transports").headers.all::<Via>().unwrap();
    let known: Vec<_> = vias.iter().map(Via::known_transport).collect();
    assert_eq!(known, [Some(Transport::Udp), None, Some(Transport::Tls), None, Some(Transport::Tcp)]);
    let request = accepted("mpart01");
    let kind = request.headers.must::<sip::typed::ContentType>().unwrap();
    let parts = sip::multipart::parse(&kind, &request.body, &Limits::default()).unwrap();
    assert_eq!((parts.len(), &parts[0].body[..]), (2, &b"Hello"[..]));
    assert!(parts[1].media_type().is("application/octet-stream") && parts[1].body.starts_with(&[0x30, 0x82]));
}

/// §3.1.1.12: the reason phrase is UTF-8.
#[test]
fn unreason_in_its_parts() {
    let Ok(Some(message)) = datagram(Bytes::from_static(torture("unreason")), &Limits::default()) else {
        panic!("unreason")
    };
    assert!(wellformed(&message, &Limits::default()).is_ok());
    let Message::Response(response) = message else { panic!("unreason") };
    assert!(response.reason.starts_with("= 2**3 * 5**2 но сто девяносто девять"));
}

/// What a server that does not support something tells the client (§3.3.5, §3.3.6).
#[test]
fn refusals_say_what_is_supported() {
    let Verdict::Answered(response) = Node::new().datagram(torture("bext01")) else { panic!("bext01") };
    let tags: Vec<_> = response.headers.tokens(&Name::Unsupported).collect();
    assert!(tags.starts_with(&["nothingSupportsThis", "nothingSupportsThisEither"]));
    let Verdict::Answered(response) = Node::new().datagram(torture("invut")) else { panic!("invut") };
    assert_eq!(response.headers.text(&Name::Accept), Some("application/sdp, multipart/mixed"));
}

/// §3.3.7
#[test]
fn an_unknown_authorization_scheme_is_challenged() {
    let request = accepted("regaut01");
    let server = Server::new("example.com", [0; 32]);
    assert_eq!(server.credentials(Kind::User, &request), None);
    let response = server.demand(Kind::User, &request, UnixTime::from_millis(0), false);
    assert_eq!((response.code, response.headers.count(&Name::WwwAuthenticate)), (401, 2));
}

/// §3.3.11: OPTIONS is answered where it is; anything else gets 483.
#[test]
fn zeromf_is_not_forwarded() {
    let text = String::from_utf8(torture("zeromf").to_vec()).unwrap().replace("OPTIONS", "MESSAGE");
    assert_eq!(Node::new().datagram(text.as_bytes()).code(), 483);
}

/// §3.1.2.15: the display name is at fault, not only the missing end of the archived file.
#[test]
fn baddn_with_its_end_is_still_refused() {
    let text = [torture("baddn"), b"\r\n"].concat();
    let read = datagram(text.into(), &Limits::default());
    assert!(matches!(&read, Ok(Some(_))));
    assert_eq!(Node::new().judge(read).code(), 400);
}

/// §3.3.13 and §3.3.12: where a parameter belongs.
#[test]
fn contact_parameters_and_uri_parameters() {
    let contact = |name| accepted(name).headers.must::<Contact>().unwrap();
    assert!(contact("cparam01").has_feature("unknownparam"));
    assert!(contact("cparam02").uri.params.has("unknownparam"));
    assert_eq!(contact("regescrt").uri.take_header("route").as_deref(), Some("<sip:sip.example.com>"));
}

/// CPM-FACTS §6.2: RFC 5118, every message.
#[test]
fn every_message_of_rfc5118_has_its_verdict() {
    assert_eq!(rfc5118::CASES.len(), 12);
    for case in rfc5118::CASES {
        let verdict = Node::new().datagram(&case.wire());
        let expected = if case.name == "ipv6-bad" { 400 } else { ACCEPTED };
        assert_eq!(verdict.code(), expected, "{}: {verdict:?}", case.name);
    }
}

fn ipv6(name: &str) -> Request {
    Node::new().datagram(&rfc5118::case(name).unwrap().wire()).request()
}

/// RFC 5118 §4.1, §4.3, §4.4, §4.7, §4.9, §4.10
#[test]
fn ipv6_references_in_their_parts() {
    let v6 = |text: &str| Host::V6(text.parse().unwrap());
    assert_eq!(ipv6("ipv6-good").uri.host, v6("2001:db8::10"));
    let uri = ipv6("port-ambiguous").uri;
    assert_eq!((uri.host, uri.port), (v6("2001:db8::10:5070"), None));
    let uri = ipv6("port-unambiguous").uri;
    assert_eq!((uri.host, uri.port), (v6("2001:db8::10"), Some(5070)));
    let vias = ipv6("mult-ip-in-header").headers.all::<Via>().unwrap();
    assert_eq!((&vias[0].sent_by.host, vias[0].sent_by.port), (&v6("2001:db8::9:1"), Some(6050)));
    assert_eq!(vias[1].sent_by.host.to_string(), "192.0.2.1");
    assert_eq!(vias[2].received().unwrap().to_string(), "192.0.2.200");
    let vias = ipv6("ipv4-mapped-ipv6").headers.all::<Via>().unwrap();
    assert_eq!(vias[0].sent_by.host, v6("::ffff:192.0.2.10"));
    // Three colons are read and never written.
    let uri = ipv6("ipv6-bug-abnf-3-colons").uri;
    assert_eq!(uri, ipv6("ipv6-correct-abnf-2-colons").uri);
    assert_eq!(uri.to_string(), "sip:user@[2001:db8::c000:201]");
}

/// RFC 5118 §4.5: both spellings of `received` are understood. The value that a client claims in its own Via is
/// then replaced by the source; that of a further Via is written as it came.
#[test]
fn received_with_and_without_brackets() {
    for (name, text) in [
        ("via-received-param-no-delim", "2001:db8::9:255"),
        ("via-received-param-with-delim", "[2001:db8::9:255]"),
    ] {
        let wire = rfc5118::case(name).unwrap().wire();
        let Ok(Some(Message::Request(mut request))) = datagram(wire, &Limits::default()) else {
            panic!("{name}")
        };
        let via = request.top_via().unwrap();
        assert_eq!(via.received().unwrap().to_string(), "2001:db8::9:255");
        assert_eq!(via.params.get("received"), Some(text));
        request.headers.prepend(Name::Via, "SIP/2.0/UDP edge;branch=z9hG4bKe");
        let relayed = Node::new().datagram(&request.to_bytes()).request();
        assert_eq!(relayed.headers.all::<Via>().unwrap()[1], via);
    }
}

/// RFC 5118 §4.6, §4.8: the bodies reach the service whole.
#[test]
fn ipv6_bodies_are_kept() {
    for name in ["ipv6-in-sdp", "mult-ip-in-sdp", "ipv4-mapped-ipv6"] {
        let wire = rfc5118::case(name).unwrap().wire();
        let request = ipv6(name);
        assert!(wire.ends_with(&request.body) && request.body.starts_with(b"v=0\r\n"));
    }
}

/// Every accepted message of both corpora reads back from what we write of it.
#[test]
fn accepted_messages_read_back() {
    let torture = rfc4475::classified().map(|case| (case.name, Bytes::from_static(case.bytes)));
    for (name, wire) in torture.chain(rfc5118::CASES.iter().map(|case| (case.name, case.wire()))) {
        let Ok(Some(message)) = datagram(wire, &Limits::default()) else { continue };
        let Ok(Some(again)) = datagram(message.to_bytes(), &Limits::default()) else { panic!("{name}") };
        let fields = |m: &Message| {
            let others = m.headers().named().filter(|(n, _)| *n != Name::ContentLength);
            others.map(|(n, v)| (n, v.to_vec())).collect::<Vec<_>>()
        };
        assert_eq!((fields(&again), again.body()), (fields(&message), message.body()), "{name}");
        if wellformed(&message, &Limits::default()).is_ok() {
            let from: From = message.headers().must().unwrap();
            let to: To = message.headers().must().unwrap();
            assert_eq!(from, again.headers().must::<From>().unwrap(), "{name}");
            assert_eq!(to, again.headers().must::<To>().unwrap(), "{name}");
        }
    }
}
