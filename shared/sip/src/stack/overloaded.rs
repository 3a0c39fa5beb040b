//! Overload control in the stack: what is refused leaves nothing behind, and who asks is told (RFC 7339).

use std::time::Duration;

use base::{Entropy, HashSeed, Instant, Outbox, UnixTime};

use super::*;
use crate::overload::{Client, Obeys, Sample, Server, Settings, Shed};
use crate::{Limits, Method, Name, Request, Response, Timing};

const OC: &str = ";oc;oc-algo=\"loss\"";

fn peer() -> Peer {
    Peer::new(Transport::Udp, "192.0.2.7:5060".parse().unwrap())
}

fn stack() -> Stack {
    let host = HostPort { host: crate::Host::parse(b"192.0.2.1").unwrap(), port: Some(5060) };
    let (sent_by, limits) = (vec![(Transport::Udp, host)], Limits::default());
    Stack::new(Config { sent_by, limits, timing: Timing::default() }, Entropy::from_number(1))
}

fn request(method: &str, oc: &str, to_tag: &str) -> Request {
    let text = format!(
        "{method} sip:b@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK7{oc}\r\n\
         Via: SIP/2.0/UDP far;branch=z9hG4bK1{oc}\r\nMax-Forwards: 70\r\nFrom: <sip:a@example.com>;tag=1\r\n\
         To: <sip:b@example.com>{to_tag}\r\nCall-ID: c1\r\nCSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
    );
    match crate::datagram(text.into(), &Limits::default()) {
        Ok(Some(Message::Request(request))) => request,
        other => panic!("{other:?}"),
    }
}

fn give(stack: &mut Stack, input: Input) -> Vec<Output> {
    let mut out = Outbox::with_max(16);
    stack.handle(Instant::from_millis(1), input, &mut out);
    out.drain().collect()
}

fn shed(request: Request) -> Input {
    Input::Shed { peer: peer(), request, why: Shed::Share, retry_after_s: 7 }
}

fn sent(output: &Output) -> Response {
    let Output::Transmit { bytes, .. } = output else { panic!("{output:?}") };
    match crate::datagram(bytes.clone(), &Limits::default()) {
        Ok(Some(Message::Response(response))) => response,
        other => panic!("{other:?}"),
    }
}

/// Nine of ten requests in a queue are too much.
fn advice() -> overload::Advice {
    let mut server = Server::new(Settings::default(), 1, HashSeed(1));
    for _ in 0..100 {
        let (class, mut entropy) = (overload::Class::Ordinary, Entropy::from_number(1));
        let _ = server.admit(Instant::ZERO, 0, class, Obeys::Nothing, Duration::ZERO, &mut entropy);
    }
    let sample = Sample { taken: 10, inner: 0, least: Duration::from_millis(51) };
    server.tick(Instant::from_millis(100), UnixTime::from_millis(1_000_500), &[sample]).advice
}

/// RFC 3261 §8.2.7, §21.5.4: a 503 with Retry-After, no transaction, the same answer to the same request, and the ACK of
/// it is nobody's business.
#[test]
fn what_is_shed_leaves_nothing_behind() {
    let mut stack = stack();
    let first = give(&mut stack, shed(request("INVITE", "", "")));
    let answer = sent(&first[0]);
    assert_eq!((first.len(), answer.code, answer.headers.text(&Name::RetryAfter)), (1, 503, Some("7")));
    assert_eq!(stack.server_transactions(), 0);
    let again = sent(&give(&mut stack, shed(request("INVITE", "", "")))[0]);
    assert_eq!(again.to_tag(), answer.to_tag());
    let tag = format!(";tag={}", answer.to_tag().unwrap());
    let ack = request("ACK", "", &tag);
    assert!(give(&mut stack, Input::Received { peer: peer(), message: Message::Request(ack) }).is_empty());
    // That of a 2xx still goes up.
    let ack = request("ACK", "", ";tag=0123456789abcdef0123");
    let up = give(&mut stack, Input::Received { peer: peer(), message: Message::Request(ack) });
    assert!(matches!(up[..], [Output::Ack { .. }]));
    let counted: Vec<_> = stack.dropped().collect();
    assert_eq!(counted, [(Dropped::Shed(Shed::Share), 2), (Dropped::RefusedAck, 1)]);
}

/// RFC 7339 §5.10.2: who supports overload control learns from `oc`, and is not sent away for seconds.
#[test]
fn who_asks_is_told_instead_of_sent_away() {
    let mut stack = stack();
    stack.advise(advice());
    let answer = sent(&give(&mut stack, shed(request("MESSAGE", OC, "")))[0]);
    assert_eq!((answer.code, answer.headers.has(&Name::RetryAfter)), (503, false));
    let via = answer.top_via().unwrap();
    assert_eq!((via.params.number("oc"), via.params.get("oc-seq")), (Some(90), Some("1000.50000")));
    // §5.6: what others say among themselves is theirs.
    let below = answer.headers.values(&Name::Via).nth(1).unwrap();
    assert!(below.ends_with(OC.as_bytes()), "{below:?}");
    let silent = sent(&give(&mut stack, shed(request("MESSAGE", "", "")))[0]);
    assert!(!silent.top_via().unwrap().params.has("oc"));
}

/// What has its transaction is answered by it, however much comes.
#[test]
fn a_retransmission_is_not_shed() {
    let mut stack = stack();
    let message = Message::Request(request("INVITE", "", ""));
    let server = match give(&mut stack, Input::Received { peer: peer(), message })[..] {
        [Output::Request { server, .. }] => server,
        ref other => panic!("{other:?}"),
    };
    let ringing = request("INVITE", "", "").respond(180);
    give(&mut stack, Input::Respond { server, response: ringing });
    let again = give(&mut stack, shed(request("INVITE", "", "")));
    assert_eq!((again.len(), sent(&again[0]).code), (1, 180));
    // ACK and CANCEL are no requests that could be.
    assert!(give(&mut stack, shed(request("CANCEL", "", ""))).is_empty());
    assert_eq!(stack.server_transactions(), 1);
}

/// RFC 7339 §5.2, §5.11: in every response of a transaction, a 100 among them.
#[test]
fn every_response_tells() {
    let mut stack = stack();
    stack.advise(advice());
    let message = Message::Request(request("INVITE", OC, ""));
    let begun = give(&mut stack, Input::Received { peer: peer(), message });
    let Some(Output::Request { server, .. }) = begun.last() else { panic!("{begun:?}") };
    let (server, mut all) = (*server, Vec::new());
    let mut out = Outbox::with_max(16);
    stack.timeout(Instant::from_millis(250), &mut out);
    all.extend(out.drain());
    for code in [180, 200] {
        let response = request("INVITE", OC, "").respond(code);
        all.extend(give(&mut stack, Input::Respond { server, response }));
    }
    let told: Vec<_> =
        all.iter().map(sent).map(|r| (r.code, r.top_via().unwrap().params.number("oc"))).collect();
    assert_eq!(told, [(100, Some(90)), (180, Some(90)), (200, Some(90))]);
}

/// RFC 7339 §4.1, §5.4, §5.5: as a client: asked in each request, heard in each response, obeyed.
#[test]
fn a_next_hop_is_asked_and_obeyed() {
    let settings = Settings { next_hops: vec![peer().addr.ip()], ..Settings::default() };
    let mut stack = stack().with_overload(Client::new(&settings, HashSeed(1)));
    let out = |method: Method, to_tag: &str| {
        let mut request = request("MESSAGE", "", to_tag);
        request.headers.remove(&Name::Via);
        request.headers.set(Name::CSeq, format!("1 {method}"));
        request.method = method;
        request
    };
    let now = Instant::from_millis(1);
    let send = Input::Send { key: ClientKey(1), to: peer(), request: out(Method::Message, "") };
    let [Output::Transmit { bytes, .. }] = &give(&mut stack, send)[..] else { panic!() };
    let Ok(Some(Message::Request(sent))) = crate::datagram(bytes.clone(), &Limits::default()) else {
        panic!()
    };
    let mut via = sent.top_via().unwrap();
    assert!(via.params.has("oc") && !stack.withholds(now, peer(), &sent));
    via.params.set("oc", Some("100"));
    via.params.set_quoted("oc-algo", "loss");
    via.params.set("oc-seq", Some("1.1"));
    let mut response = sent.respond(200);
    response.headers.replace_first_value(&Name::Via, &via.to_string());
    give(&mut stack, Input::Received { peer: peer(), message: Message::Response(response) });
    assert_eq!(stack.holding(now), 1);
    assert!(stack.withholds(now, peer(), &out(Method::Invite, "")));
    assert!(!stack.withholds(now, peer(), &out(Method::Bye, ";tag=2")));
    assert!(!stack.withholds(now + Duration::from_millis(501), peer(), &out(Method::Invite, "")));
}
