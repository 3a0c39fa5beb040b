//! What a trace shows of people, what it picks up, and that it holds nobody up.

use ::contract::change::Verb;
use ::contract::{Change, Counters, Leg, LegCounters, LegKey, MsrpLeg, leg, news};
use bytes::Bytes;
use service::{Function, Output, Route, ServerTx};
use sip::{Method, Name, Request, Transport, Uri};

use super::*;
use crate::trace::decision::Decision;

const ANN: &str = "+15550100001";
const BOB: &str = "+15550100002";
/// What all numbers have in common.
const SECRET: &str = "155501000";

fn bus(settings: Settings) -> Bus {
    let open = vec!["conference-factory".to_owned()];
    Bus::new(settings, open, Clock::start(), Arc::new(Metrics::new().unwrap()))
}

fn user(number: &str) -> Wanted {
    Wanted { user: Some(format!("tel:{number}")), ..Wanted::default() }
}

fn conversation(id: &str) -> Wanted {
    Wanted { conversation_id: Some(id.to_owned()), ..Wanted::default() }
}

fn peer(port: u16) -> Peer {
    Peer::new(Transport::Tcp, ([192, 0, 2, 1], port).into())
}

fn request(method: Method, from: &str, to: &str, call: &str) -> Request {
    let seq = format!("1 {}", method.as_str());
    let mut request = Request::new(method, Uri::sip(to, "weir.example"));
    request.headers.push(Name::Via, "SIP/2.0/TCP 192.0.2.1;branch=z9hG4bK1");
    request.headers.push(Name::MaxForwards, "70");
    request.headers.push(Name::From, format!("<sip:{from}@weir.example>;tag=1"));
    request.headers.push(Name::To, format!("\"Anybody\" <sip:{to}@weir.example>"));
    request.headers.push(Name::CallId, call);
    request.headers.push(Name::CSeq, seq);
    request
}

fn invite(from: &str, to: &str, call: &str, conversation: &str, contribution: &str) -> Request {
    let mut request = request(Method::Invite, from, to, call);
    request.headers.push(Name::ConversationId, conversation);
    request.headers.push(Name::ContributionId, contribution);
    request
}

fn drain(tracing: &mut Tracing) -> Vec<Event> {
    std::iter::from_fn(|| tracing.events.try_recv().ok()).collect()
}

fn heard(request: &Request, inner: bool) -> Heard {
    Heard { said: Some(Said::request(request)), inner, single: true, ..Heard::default() }
}

fn acted(function: Function) -> Acted {
    Acted { function: Some(function), devices: None }
}

fn send(request: Request, lane: bool) -> Output {
    let to = if lane { Route::Lane(service::LaneKey(1)) } else { Route::Peer(peer(9)) };
    Output::Send { tx: service::ClientTx(1), to, request }
}

fn program(context: u64) -> Output {
    let kind = Some(leg::Kind::Msrp(MsrpLeg::default()));
    let leg = Leg { id: 1, context, media: "message".to_owned(), kind, ..Leg::default() };
    let changes = vec![Change { verb: Some(Verb::PutLeg(leg)) }];
    Output::Program {
        ask: service::Ask(2),
        batch: Batch { generation: 5, epoch: 1, changes, ..Batch::default() },
    }
}

fn summaries(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| format!("{}>{} {}", event.from, event.to, event.summary)).collect()
}

#[test]
fn of_a_number_the_last_two_digits_are_shown_and_of_a_name_nothing() {
    let mask = Mask::new(true, vec!["conference-factory".to_owned()]);
    for (user, shown) in [
        ("+15550100001", "***01"),
        ("ann", "***"),
        ("annabel", "***"),
        ("12345", "***"),
        ("123456", "***56"),
        ("+15550100001;phone-context=a", "***01"),
        ("conference-factory", "conference-factory"),
        ("grp-00ff-abc", "grp-00ff-abc"),
        ("", "***"),
        ("ü", "***"),
    ] {
        assert_eq!(mask.user(user), shown, "{user}");
    }
    for (text, shown) in [
        ("Busy", "Busy"),
        ("399 weir.example \"no +15550100001 here\"", "399 weir.example \"no ***01 here\""),
        ("From: Ann <sip:ann@weir.example>", "From: Ann <sip:***@weir.example>"),
        ("<tel:+1-555-010-0001> SIP:+15550100001@x;user=phone", "<tel:***01> SIP:***01@x;user=phone"),
        ("call 5550100001 now", "call ***01 now"),
        ("SIP;cause=200, port 35000", "SIP;cause=200, port 35000"),
        ("sip: é +", "sip: é +"),
    ] {
        assert_eq!(mask.text(text), shown);
    }
    let plain = Mask::new(false, Vec::new());
    assert_eq!((plain.user(ANN), plain.text(ANN)), (ANN.to_owned(), ANN.to_owned()));
}

#[test]
fn one_thing_is_followed_and_it_must_be_one() {
    let bus = bus(Settings::default());
    assert!(bus.open(&Wanted::default()).is_err());
    assert!(bus.open(&Wanted { call_id: Some("a".to_owned()), ..user(ANN) }).is_err());
    assert!(bus.open(&Wanted { call_id: Some(String::new()), ..Wanted::default() }).is_err());
    assert!(bus.open(&Wanted { user: Some("nobody".to_owned()), ..Wanted::default() }).is_err());
    assert!(!bus.is_on());
}

#[test]
fn there_is_room_for_some_and_each_leaves_its_place_and_switches_off() {
    let bus = bus(Settings { tracers_max: 2, seconds_max: 60, ..Settings::default() });
    let first = bus.open(&Wanted { seconds: 9, ..user(ANN) }).unwrap();
    let second = bus.open(&Wanted { seconds: 999, ..user(BOB) }).unwrap();
    assert_eq!((first.seconds, second.seconds), (9, 60));
    assert!(bus.open(&user(ANN)).unwrap_err().contains("trace.tracers_max"));
    drop(first);
    assert!(bus.is_on());
    drop(second);
    assert!(!bus.is_on());
    assert!(bus.open(&user(ANN)).is_ok());
}

#[test]
fn a_user_is_followed_by_either_form_of_his_number_and_is_not_named() {
    let bus = bus(Settings::default());
    let mut tracing = bus.open(&user(BOB)).unwrap();
    bus.wire(peer(1), false, &invite(ANN, BOB, "a", "c", "t").to_bytes());
    bus.wire(peer(2), false, &invite(ANN, "+15550100003", "b", "d", "u").to_bytes());
    // The answer of his phone, and a request of another device of his.
    bus.wire(peer(3), false, &invite(ANN, BOB, "a", "c", "t").respond(486).to_bytes());
    bus.wire(peer(4), false, &request(Method::Options, BOB, "x", "e").to_bytes());
    let events = drain(&mut tracing);
    assert_eq!(
        summaries(&events),
        [
            "A ***01>PF INVITE sip:***02@weir.example",
            "B ***02>PF 486 Busy Here (INVITE)",
            "B/2 ***02>PF OPTIONS sip:***@weir.example",
        ]
    );
    let first = &events[0];
    assert_eq!((first.n, first.call_id.as_deref()), (1, Some("a")));
    assert_eq!((first.conversation_id.as_deref(), first.contribution_id.as_deref()), (Some("c"), Some("t")));
    assert_eq!((first.transport.as_deref(), first.peer.as_deref()), (Some("tcp"), Some("192.0.2.1:1")));
    assert!(!serde_json::to_string(&events).unwrap().contains(SECRET));
    let mut open = bus.open(&Wanted { unmasked: true, ..user(BOB) }).unwrap();
    bus.wire(peer(1), false, &invite(ANN, BOB, "f", "c", "v").to_bytes());
    assert_eq!(summaries(&drain(&mut open)), [format!("A {ANN}>PF INVITE sip:{BOB}@weir.example")]);
}

// RFC 3261 §16.1: a B2BUA's legs share no Call-ID. One Conversation-ID leads to all of them, to the media and its end.
#[test]
fn a_conversation_leads_to_every_leg_its_decisions_its_media_and_their_end() {
    let bus = bus(Settings::default());
    let mut tracing = bus.open(&conversation("c")).unwrap();
    let factory = "conference-factory";
    let (first, inner) = (invite(ANN, factory, "a", "c", "t"), invite(ANN, factory, "b", "c", "t"));
    bus.wire(peer(1), false, &first.to_bytes());
    let (said, sends) = (heard(&first, false), [send(inner.clone(), true)]);
    bus.decided(&Decision::new(&said, acted(Function::Originating), &sends, &[]));
    // A leg without ids of its own: the decision says whose it is.
    let outer = request(Method::Invite, "books", BOB, "z");
    let (said, sends) = (heard(&inner, true), [program(7), send(outer.clone(), false)]);
    bus.decided(&Decision::new(&said, acted(Function::Controlling), &sends, &[]));
    let Output::Program { batch, .. } = &sends[0] else { panic!("the order") };
    bus.ordered(batch);
    bus.answered(5, Ok(&Applied::default()));
    bus.answered(6, Ok(&Applied::default()));
    bus.wire(peer(2), true, &outer.to_bytes());
    let counted = |context, ended| {
        let leg = Some(LegKey::new(context, 1));
        let leg =
            LegCounters { leg, ended, packets_in: 50, up_ms: 1500, mos_centi: 412, ..LegCounters::default() };
        News { what: Some(news::What::Counters(Counters { legs: vec![leg] })) }
    };
    for news in [counted(7, false), counted(8, true), counted(7, true)] {
        bus.news(&news);
    }
    let events = drain(&mut tracing);
    assert_eq!(
        summaries(&events),
        [
            "A ***01>PF INVITE sip:conference-factory@weir.example",
            "PF>PF for the sender: sends INVITE to the function for sip:conference-factory@weir.example",
            "PF>CF INVITE sip:conference-factory@weir.example",
            "CF>CF orders media; sends INVITE to tcp 192.0.2.1:9",
            "CF>data plane put leg 1 message",
            "data plane>CF applied",
            "CF>B ***02 INVITE sip:***02@weir.example",
            "data plane>CF leg 1 audio ended after 1.5 s: in 50 packets, 0 lost, jitter 0.0 ms, mos 4.12; out 0 packets, \
             0 lost, jitter 0.0 ms; 0 dropped",
        ]
    );
    let kinds: Vec<Kind> = events.iter().map(|event| event.kind).collect();
    assert_eq!(
        kinds,
        [
            Kind::Sip,
            Kind::Decision,
            Kind::Sip,
            Kind::Decision,
            Kind::Contract,
            Kind::Contract,
            Kind::Sip,
            Kind::Media
        ]
    );
    assert_eq!(events[7].context.as_deref(), Some("0000000000000007"));
    assert_eq!(events[7].numbers["packets_in"], 50);
    // What comes in its legs belongs to it, although it names no conversation; what others do does not.
    bus.wire(peer(2), false, &request(Method::Bye, BOB, "books", "z").to_bytes());
    bus.wire(peer(2), false, &request(Method::Bye, BOB, "books", "y").to_bytes());
    assert_eq!(summaries(&drain(&mut tracing)), ["B ***02>CF BYE sip:***@weir.example"]);
}

/// Timers of many calls are worked off in one turn: they are not one call.
#[test]
fn what_is_decided_on_nothing_in_particular_joins_nothing() {
    let bus = bus(Settings::default());
    let mut tracing = bus.open(&conversation("c")).unwrap();
    bus.wire(peer(1), false, &invite(ANN, BOB, "a", "c", "t").to_bytes());
    drain(&mut tracing);
    let sends = [
        send(request(Method::Bye, ANN, BOB, "a"), false),
        send(request(Method::Bye, ANN, BOB, "other"), false),
    ];
    bus.decided(&Decision::new(&Heard::default(), Acted::default(), &sends, &[]));
    bus.wire(peer(1), false, &request(Method::Bye, ANN, BOB, "other").to_bytes());
    assert_eq!(summaries(&drain(&mut tracing)), ["PF>PF sends BYE to tcp 192.0.2.1:9"]);
}

/// Somebody begins to trace in the middle of a call: the next decision shows which legs belong together.
#[test]
fn a_call_that_was_there_before_is_joined_by_its_next_decision() {
    let bus = bus(Settings::default());
    let mut tracing = bus.open(&Wanted { call_id: Some("b".to_owned()), ..Wanted::default() }).unwrap();
    let bye = request(Method::Bye, ANN, BOB, "a");
    let (said, sends) = (heard(&bye, false), [send(request(Method::Bye, ANN, BOB, "b"), false)]);
    bus.decided(&Decision::new(&said, acted(Function::Participating), &sends, &[]));
    drain(&mut tracing);
    bus.wire(peer(1), true, &bye.respond(200).to_bytes());
    assert_eq!(summaries(&drain(&mut tracing)), ["PF>A ***01 200 OK (BYE)"]);
}

#[test]
fn a_refusal_says_why_and_names_nobody() {
    let bus = bus(Settings::default());
    let mut tracing = bus.open(&user(ANN)).unwrap();
    let asked = invite(ANN, BOB, "a", "c", "t");
    let response = asked.respond(403).warn("weir.example", "127 Service not authorised for +15550100001");
    let answers = [Output::Respond { tx: ServerTx(2), response }];
    bus.decided(&Decision::new(&heard(&asked, false), acted(Function::Originating), &answers, &[]));
    let events = drain(&mut tracing);
    let text = &events[0].summary;
    assert!(text.starts_with("for the sender: refuses: 403 Forbidden (INVITE) — 399"), "{text}");
    assert!(text.contains("Service not authorised for ***01") && !text.contains(SECRET), "{text}");
}

#[test]
fn a_body_is_shown_to_who_asks_for_it_masked_and_not_longer_than_it_may_be() {
    let bus = bus(Settings { body_max: 43, ..Settings::default() });
    let mut without = bus.open(&user(ANN)).unwrap();
    let mut with = bus.open(&Wanted { bodies: true, ..user(ANN) }).unwrap();
    let mut said = request(Method::Message, ANN, BOB, "a");
    let body = format!("From: <sip:{ANN}@weir.example>\r\n\r\nsecret secret secret");
    said.set_body("message/cpim", Bytes::from(body));
    bus.wire(peer(1), false, &said.to_bytes());
    assert_eq!(drain(&mut without)[0].body, None);
    let shown = drain(&mut with);
    assert_eq!(shown[0].body.as_deref(), Some("From: <sip:***01@weir.example>\r\n\r\n"));
    assert_eq!(shown[0].summary, "MESSAGE sip:***02@weir.example message/cpim");
}

#[test]
fn a_full_queue_loses_events_and_counts_them_and_the_others_lose_none() {
    let bus = bus(Settings { queue_max: 4, ..Settings::default() });
    let mut slow = bus.open(&user(ANN)).unwrap();
    for n in 0..10 {
        bus.wire(peer(1), false, &request(Method::Options, ANN, BOB, &format!("call{n}")).to_bytes());
    }
    assert_eq!(slow.lost.load(Ordering::Relaxed), 6);
    assert_eq!(drain(&mut slow).iter().map(|event| event.n).collect::<Vec<_>>(), [1, 2, 3, 4]);
    bus.wire(peer(1), false, &request(Method::Options, ANN, BOB, "later").to_bytes());
    // The numbers of those that were lost are missing.
    assert_eq!(drain(&mut slow)[0].n, 11);
    let lost = "weir_control_trace_events_total{outcome=\"lost\"} 6\n";
    assert!(bus.shared.metrics.text().contains(lost), "{}", bus.shared.metrics.text());
}

#[test]
fn so_many_calls_are_followed_and_no_more() {
    let bus = bus(Settings { calls_max: 2, ..Settings::default() });
    let mut tracing = bus.open(&user(ANN)).unwrap();
    for call in ["a", "b", "c"] {
        bus.wire(peer(1), false, &request(Method::Options, ANN, BOB, call).to_bytes());
    }
    // Those that name her are seen; of a call that was not learned nothing else is.
    assert_eq!(drain(&mut tracing).len(), 3);
    for call in ["a", "c"] {
        bus.wire(peer(1), false, &request(Method::Options, "x", "y", call).to_bytes());
    }
    assert_eq!(drain(&mut tracing).len(), 1);
}

#[test]
fn what_does_not_parse_is_nobodys() {
    let bus = bus(Settings::default());
    let mut tracing = bus.open(&user(ANN)).unwrap();
    for bytes in [&b""[..], b"\r\n\r\n", b"INVITE", b"INVITE sip:a SIP/2.0\r\n\r\n", b"\xff\xfe\x00"] {
        bus.wire(peer(1), false, bytes);
    }
    assert!(drain(&mut tracing).is_empty());
}
