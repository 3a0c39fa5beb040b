//! Reading and writing one message, without sockets: `parse_vs_rsip`, `serialise_vs_rsip`.
//!
//! Each reader frames the same INVITE, indexes it and reads what a back-to-back user agent reads of it (`READ`); what one
//! of them has no typed reader for, it hands out as text. Each writes the message that it has read.

use std::hint::black_box;

use bytes::Bytes;

use super::Arguments;
use crate::report::{Reach, Report};
use crate::rtp::clock;

/// What each reader is asked for.
const READ: &str = "Request-URI, Via, From, To, Call-ID, CSeq, Contact, Max-Forwards, Route, Content-Type, P-Asserted-Identity";
/// Messages of one measurement.
const MESSAGES: u32 = 4_000;

/// A reader of messages: what it takes to read one, and to write what was read, in nanoseconds.
struct Reader {
    name: &'static str,
    parse: fn(&Bytes) -> usize,
    serialise: fn(&Bytes, u32) -> f64,
}

const READERS: [Reader; 4] = [
    Reader { name: "weir", parse: weir::parse, serialise: weir::serialise },
    Reader { name: "rsip", parse: with_rsip::parse, serialise: with_rsip::serialise },
    Reader { name: "sipx", parse: with_sipx::parse, serialise: with_sipx::serialise },
    Reader { name: "ezk", parse: with_ezk::parse, serialise: with_ezk::serialise },
];

/// The one that is judged, and the one it is held against.
const JUDGED: &str = "weir";
const HELD: &str = "rsip";

/// Measures all in turns and adds the rows.
pub(super) fn run(plan: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    let wire = invite();
    clock::pin(clock::cores().1);
    for reader in &READERS {
        anyhow::ensure!((reader.parse)(&wire) > 0, "{} does not read the message", reader.name);
    }
    type Figure<'a> = &'a dyn Fn(&Reader) -> f64;
    let rows: [(&str, f64, Figure<'_>); 2] = [
        ("parse_vs_rsip", 0.2, &|reader| time(MESSAGES, || (reader.parse)(&wire))),
        ("serialise_vs_rsip", 0.25, &|reader| (reader.serialise)(&wire, MESSAGES)),
    ];
    for (row, most, measure) in rows.into_iter().filter(|(row, ..)| plan.wants(row)) {
        let mut samples = READERS.each_ref().map(|_| Vec::new());
        for _ in 0..plan.rounds {
            for (reader, samples) in READERS.iter().zip(&mut samples).filter(|(r, _)| plan.races(r.name)) {
                samples.push(measure(reader));
            }
        }
        let ns = samples.map(|of| super::median(of.into_iter()));
        let of = |name| READERS.iter().position(|r| r.name == name).map_or(f64::NAN, |at| ns[at]);
        let note = format!("{} octets, {JUDGED} over {HELD}; read: {READ}", wire.len());
        report.held(row, of(JUDGED) / of(HELD), "ratio", Reach::AtMost(most), note);
        for (reader, ns) in READERS.iter().zip(ns) {
            report.row(
                format!("{row}.{}_ns", reader.name),
                ns,
                "ns/message",
                "one core, everything in its caches",
            );
        }
    }
    Ok(())
}

/// Nanoseconds of one, on the thread's own clock.
fn time(times: u32, mut each: impl FnMut() -> usize) -> f64 {
    let thread = clock::Who::Thread(clock::own_thread());
    let now = || clock::process_ns(thread);
    (0..times / 10).for_each(|_| _ = black_box(each()));
    let before = now();
    for _ in 0..times {
        black_box(each());
    }
    (now() - before) as f64 / f64::from(times)
}

/// An INVITE of a CPM client to a group, as it comes from an S-CSCF.
fn invite() -> Bytes {
    let sdp = "v=0\r\no=- 3873402384 3873402384 IN IP4 10.20.30.40\r\ns=-\r\nc=IN IP4 10.20.30.40\r\nt=0 0\r\n\
        m=message 9 TCP/MSRP *\r\na=accept-types:message/cpim application/im-iscomposing+xml\r\n\
        a=accept-wrapped-types:text/plain message/imdn+xml application/vnd.gsma.rcs-ft-http+xml\r\n\
        a=setup:active\r\na=path:msrp://10.20.30.40:9/jhd7sjh3k2;tcp\r\na=sendrecv\r\na=msrp-cema\r\n";
    let head = "INVITE sip:conference-factory@ims.mnc001.mcc001.3gppnetwork.org SIP/2.0\r\n\
        Via: SIP/2.0/UDP 10.1.1.7:5060;branch=z9hG4bK3a5f77c1d9;rport\r\n\
        Via: SIP/2.0/TCP 10.20.30.40:5062;branch=z9hG4bKnashds8k3;received=10.20.30.41\r\n\
        Max-Forwards: 66\r\n\
        Route: <sip:orig@weir.example;lr>, <sip:a9f3@scscf.ims.example;lr;orig-dialog-id=77ab>\r\n\
        From: \"Alice\" <sip:+15551230001@ims.example;user=phone>;tag=8f2c19a7\r\n\
        To: <sip:conference-factory@ims.mnc001.mcc001.3gppnetwork.org>\r\n\
        Call-ID: 3848276298220188511@10.20.30.40\r\n\
        CSeq: 31862 INVITE\r\n\
        Contact: <sip:+15551230001@10.20.30.40:5062;transport=tcp>;+sip.instance=\"<urn:gsma:imei:90420156-025763-0>\"\r\n\
        P-Asserted-Identity: <sip:+15551230001@ims.example>\r\n\
        P-Access-Network-Info: 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=23415D0FCE11\r\n\
        P-Charging-Vector: icid-value=1234bc9876e;icid-generated-at=10.0.6.8;orig-ioi=home1.example\r\n\
        Accept-Contact: *;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session\"\r\n\
        Conversation-ID: f81d4fae-7dec-11d0-a765-00a0c91e6bf6\r\n\
        Contribution-ID: abcdef-1234-5678-90ab-cdef01234567\r\n\
        Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, MESSAGE, REFER, NOTIFY\r\n\
        Supported: timer, 100rel, recipient-list-invite\r\n\
        Session-Expires: 1800;refresher=uac\r\n\
        User-Agent: IM-client/OMA1.0 RCS-client\r\n\
        Content-Type: application/sdp\r\n";
    Bytes::from(format!("{head}Content-Length: {}\r\n\r\n{sdp}", sdp.len()))
}

mod weir {
    use super::{Bytes, black_box, time};
    use sip::typed::{CSeq, Contact, ContentType, From, MaxForwards, PAssertedIdentity, Route, To, Via};
    use sip::{Limits, Message, Name, datagram};

    fn read(wire: &Bytes) -> Option<Message> {
        datagram(wire.clone(), &Limits::default()).ok().flatten()
    }

    pub(super) fn parse(wire: &Bytes) -> usize {
        let Some(Message::Request(request)) = read(wire) else { return 0 };
        let headers = &request.headers;
        black_box((headers.typed::<Via>().ok(), headers.typed::<From>().ok(), headers.typed::<To>().ok()));
        black_box((headers.typed::<Contact>().ok(), headers.typed::<MaxForwards>().ok()));
        black_box((headers.all::<Route>().ok(), headers.typed::<ContentType>().ok()));
        black_box((headers.typed::<CSeq>().ok(), headers.typed::<PAssertedIdentity>().ok()));
        black_box((headers.text(&Name::CallId), &request.uri));
        headers.len()
    }

    pub(super) fn serialise(wire: &Bytes, times: u32) -> f64 {
        read(wire).map_or(f64::NAN, |message| time(times, || message.to_bytes().len()))
    }
}

mod with_rsip {
    use super::{Bytes, black_box, time};
    use rsip::headers::{ToTypedHeader, UntypedHeader};
    use rsip::message::HasHeaders;
    use rsip::{Header, SipMessage};

    pub(super) fn parse(wire: &Bytes) -> usize {
        let Ok(message) = SipMessage::try_from(&wire[..]) else { return 0 };
        let mut seen = 0;
        let (mut vias, mut routes) = (0, 0);
        for header in message.headers().iter() {
            seen += 1;
            match header {
                Header::Via(via) if vias == 0 => {
                    vias += 1;
                    black_box(via.typed().ok());
                }
                Header::From(from) => drop(black_box(from.typed().ok())),
                Header::To(to) => drop(black_box(to.typed().ok())),
                Header::Contact(contact) => drop(black_box(contact.typed().ok())),
                Header::CSeq(cseq) => drop(black_box(cseq.typed().ok())),
                Header::MaxForwards(hops) => drop(black_box(hops.num().ok())),
                Header::CallId(id) => drop(black_box(id.value())),
                Header::ContentType(kind) => drop(black_box(kind.typed().ok())),
                Header::Route(route) => {
                    routes += 1;
                    black_box(route.typed().ok());
                }
                Header::Other(name, value) if name.eq_ignore_ascii_case("p-asserted-identity") => {
                    black_box(value);
                }
                _ => {}
            }
        }
        if let SipMessage::Request(request) = &message {
            black_box((&request.uri, routes));
        }
        seen
    }

    pub(super) fn serialise(wire: &Bytes, times: u32) -> f64 {
        let Ok(message) = SipMessage::try_from(&wire[..]) else { return f64::NAN };
        time(times, || Vec::<u8>::from(message.clone()).len())
    }
}

mod with_sipx {
    use super::{Bytes, black_box, time};
    use sipx_sip::headers::{Contact, ContentType, From, MaxForwards, Route, To};
    use sipx_sip::{CSeq, CallId, Limits, Message, PAssertedIdentityList, Via, parse_datagram};

    fn read(wire: &Bytes) -> Option<Message> {
        parse_datagram(wire.clone(), &Limits::datagram()).ok()
    }

    pub(super) fn parse(wire: &Bytes) -> usize {
        let Some(message) = read(wire) else { return 0 };
        let headers = message.headers();
        black_box((headers.typed::<Via>(), headers.typed::<From>(), headers.typed::<To>()));
        black_box((headers.typed::<Contact>(), headers.typed::<MaxForwards>(), headers.typed::<CallId>()));
        black_box((headers.typed_all::<Route>().count(), headers.typed::<ContentType>()));
        black_box((headers.typed::<CSeq>(), PAssertedIdentityList::from_headers(headers).ok()));
        headers.len()
    }

    pub(super) fn serialise(wire: &Bytes, times: u32) -> f64 {
        read(wire).map_or(f64::NAN, |message| time(times, || message.to_bytes().len()))
    }
}

mod with_ezk {
    use super::{Bytes, black_box, time};
    use ezk_sip_types::header::typed::{
        CSeq, CallID, Contact, ContentType, FromTo, MaxForwards, Routing, Via,
    };
    use ezk_sip_types::msg::{Line, MessageLine, PullParser};
    use ezk_sip_types::parse::Parse;
    use ezk_sip_types::print::AppendCtx;
    use ezk_sip_types::{Headers, Name};

    /// A name of its own: it has no reader.
    const IDENTITY: Name = Name::custom("P-Asserted-Identity", &["p-asserted-identity"]);

    fn read(wire: &Bytes) -> Option<(MessageLine, Headers, Bytes)> {
        let mut parser = PullParser::new(wire, 0);
        let first = std::str::from_utf8(parser.next()?.ok()?).ok()?;
        let (_, start) = MessageLine::parse(wire)(first).ok()?;
        let mut headers = Headers::new();
        for line in parser.by_ref() {
            let (_, line) = Line::parse(wire, std::str::from_utf8(line.ok()?).ok()?).ok()?;
            headers.insert(line.name, line.value);
        }
        let body = wire.slice(parser.head_end()..);
        Some((start, headers, body))
    }

    pub(super) fn parse(wire: &Bytes) -> usize {
        let Some((start, headers, _)) = read(wire) else { return 0 };
        black_box((headers.get_named::<Via>().ok(), headers.get::<FromTo>(Name::FROM).ok()));
        black_box((headers.get::<FromTo>(Name::TO).ok(), headers.get_named::<Contact>().ok()));
        black_box((headers.get_named::<MaxForwards>().ok(), headers.get_named::<CallID>().ok()));
        black_box((headers.get::<Vec<Routing>>(Name::ROUTE).ok(), headers.get_named::<ContentType>().ok()));
        black_box((headers.get_named::<CSeq>().ok(), headers.get_raw(&IDENTITY).len()));
        black_box(&start);
        headers.iter().count()
    }

    pub(super) fn serialise(wire: &Bytes, times: u32) -> f64 {
        use std::fmt::Write;
        let Some((start, headers, body)) = read(wire) else { return f64::NAN };
        time(times, || {
            let mut head = String::with_capacity(wire.len());
            // Writing to a string does not fail.
            let _ = write!(head, "{}\r\n{headers}\r\n", start.default_print_ctx());
            let mut out = head.into_bytes();
            out.extend_from_slice(&body);
            out.len()
        })
    }
}
