//! The stack driven by messages and by time: RFC 3261 §17, RFC 6026.

use std::time::Duration;

use base::Outbox;

use super::*;
use crate::limits::Limits;
use crate::message::{Request, Response};
use crate::method::Method;
use crate::name::Name;
use crate::transaction::Timing;
use crate::typed::Reason;

fn peer(transport: Transport) -> Peer {
    Peer::new(transport, "192.0.2.7:5062".parse().unwrap())
}

struct Rig {
    stack: Stack,
    out: Outbox<Output>,
    now: Instant,
}

impl Rig {
    fn new(limits: Limits) -> Rig {
        let host = HostPort { host: crate::Host::V4("192.0.2.1".parse().unwrap()), port: Some(5060) };
        let config = Config { sent_by: vec![(Transport::Udp, host)], limits, timing: Timing::default() };
        Rig {
            stack: Stack::new(config, Entropy::from_number(1)),
            out: Outbox::with_max(64),
            now: Instant::from_millis(1000),
        }
    }

    fn give(&mut self, input: Input) -> Vec<Output> {
        self.stack.handle(self.now, input, &mut self.out);
        assert!(self.out.len() <= OUTPUTS_MAX);
        self.out.drain().collect()
    }

    fn receive(&mut self, peer: Peer, text: &str) -> Vec<Output> {
        match crate::datagram(text.to_owned().into(), &Limits::default()) {
            Ok(Some(message)) => self.give(Input::Received { peer, message }),
            Err(malformed) => self.give(Input::Malformed { peer, malformed }),
            Ok(None) => Vec::new(),
        }
    }

    /// Lets time pass timer by timer; gives each output with its time since the start.
    fn pass(&mut self, ms: u64) -> Vec<(u64, Output)> {
        let start = self.now;
        let end = self.now + Duration::from_millis(ms);
        let mut all = Vec::new();
        while let Some(at) = self.stack.next_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.stack.timeout(self.now, &mut self.out);
            let since = self.now.since(start).as_millis() as u64;
            all.extend(self.out.drain().map(|o| (since, o)));
        }
        self.now = end;
        all
    }

    fn dropped(&self, reason: Dropped) -> u64 {
        self.stack.dropped().find(|(r, _)| *r == reason).map_or(0, |(_, n)| n)
    }
}

fn wire(method: &str, branch: &str, more: &str) -> String {
    format!(
        "{method} sip:b@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7:5062;branch={branch}\r\nMax-Forwards: 70\r\n\
         From: <sip:a@h>;tag=f1\r\nTo: <sip:b@h>{more}\r\nCall-ID: c1\r\nCSeq: 1 {method}\r\n\
         Contact: <sip:a@192.0.2.7:5062>\r\nContent-Length: 0\r\n\r\n"
    )
}

fn sent(output: &Output) -> String {
    match output {
        Output::Transmit { bytes, .. } => String::from_utf8_lossy(bytes).into_owned(),
        other => panic!("{other:?}"),
    }
}

fn sent_message(output: &Output) -> Message {
    crate::datagram(sent(output).into(), &Limits::default()).unwrap().unwrap()
}

fn sent_request(output: &Output) -> Request {
    match sent_message(output) {
        Message::Request(request) => request,
        Message::Response(other) => panic!("{other:?}"),
    }
}

fn sent_response(output: &Output) -> Response {
    match sent_message(output) {
        Message::Response(response) => response,
        Message::Request(other) => panic!("{other:?}"),
    }
}

fn request_of(outputs: &[Output]) -> (ServerKey, Request) {
    match outputs {
        [Output::Request { server, request, .. }] => (*server, request.clone()),
        other => panic!("{other:?}"),
    }
}

/// RFC 3261 §17.2.1: 100 after 200 ms; the answer is sent until its ACK, which is absorbed.
#[test]
fn an_invite_that_is_refused() {
    let mut rig = Rig::new(Limits::default());
    let invite = wire("INVITE", "z9hG4bK1", "");
    let (server, request) = request_of(&rig.receive(peer(Transport::Udp), &invite));
    assert!(rig.receive(peer(Transport::Udp), &invite).is_empty());
    let trying = rig.pass(200);
    assert_eq!((trying.len(), trying[0].0, sent_response(&trying[0].1).code), (1, 200, 100));
    assert_eq!(sent_response(&trying[0].1).to_tag(), None);
    let first = rig.give(Input::Respond { server, response: request.respond(180) });
    let tag = sent_response(&first[0]).to_tag().unwrap();
    let busy = rig.give(Input::Respond { server, response: request.respond(486) });
    assert_eq!(sent_response(&busy[0]).to_tag().unwrap(), tag);
    assert_eq!(sent(&rig.receive(peer(Transport::Udp), &invite)[0]), sent(&busy[0]));
    let times: Vec<u64> = rig.pass(4000).iter().map(|(at, _)| *at).collect();
    assert_eq!(times, [500, 1500, 3500]);
    assert!(rig.receive(peer(Transport::Udp), &wire("ACK", "z9hG4bK1", &format!(";tag={tag}"))).is_empty());
    assert!(rig.pass(10_000).is_empty());
    assert_eq!((rig.stack.server_transactions(), rig.stack.next_timeout()), (0, None));
    assert_eq!(rig.dropped(Dropped::Retransmission), 2);
    let late = rig.give(Input::Respond { server, response: request.respond(200) });
    assert!(late.is_empty() && rig.dropped(Dropped::LateAnswer) == 1);
}

/// RFC 3261 §13.3.1.4: on any transport; RFC 6026 §7.1: retransmitted INVITEs are absorbed.
#[test]
fn a_success_is_sent_until_its_ack() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut rig = Rig::new(Limits::default());
        let invite = wire("INVITE", "z9hG4bK1", "");
        let (server, request) = request_of(&rig.receive(peer(transport), &invite));
        let ok = rig.give(Input::Respond { server, response: request.respond(200) });
        let tag = sent_response(&ok[0]).to_tag().unwrap();
        assert!(rig.receive(peer(transport), &invite).is_empty());
        let times: Vec<u64> = rig.pass(8000).iter().map(|(at, _)| *at).collect();
        assert_eq!(times, [500, 1500, 3500, 7500]);
        let ack = wire("ACK", "z9hG4bK2", &format!(";tag={tag}"));
        assert!(matches!(&rig.receive(peer(transport), &ack)[..], [Output::Ack { .. }]));
        assert!(rig.receive(peer(transport), &ack).is_empty());
        assert!(rig.pass(60_000).is_empty());
        assert_eq!(rig.stack.server_transactions(), 0);
    }
}

#[test]
fn a_success_without_ack_is_reported() {
    let mut rig = Rig::new(Limits::default());
    let (server, request) = request_of(&rig.receive(peer(Transport::Udp), &wire("INVITE", "z9hG4bK1", "")));
    rig.give(Input::Respond { server, response: request.respond(200) });
    let all = rig.pass(40_000);
    assert!(matches!(all.last(), Some((32_000, Output::AckMissing { server: s })) if *s == server));
    assert_eq!(rig.stack.server_transactions(), 0);
}

/// RFC 3261 §9.2.
#[test]
fn a_cancel_is_answered_and_told_once() {
    let mut rig = Rig::new(Limits::default());
    let (server, request) = request_of(&rig.receive(peer(Transport::Udp), &wire("INVITE", "z9hG4bK1", "")));
    let mut cancel = wire("CANCEL", "z9hG4bK1", "");
    cancel = cancel.replace("Contact", "Reason: SIP;cause=200;text=\"Call completed elsewhere\"\r\nContact");
    let outputs = rig.receive(peer(Transport::Udp), &cancel);
    let answer = sent_response(&outputs[0]);
    assert!(
        matches!(&outputs[1], Output::Cancelled { server: s, reason: Some(r) } if *s == server && r.cause() == Some(200))
    );
    let again = rig.receive(peer(Transport::Udp), &cancel);
    assert_eq!((again.len(), sent_response(&again[0]).code), (1, 200));
    let terminated = rig.give(Input::Respond { server, response: request.respond(487) });
    assert_eq!(sent_response(&terminated[0]).to_tag(), answer.to_tag());
    let stray = rig.receive(peer(Transport::Udp), &wire("CANCEL", "z9hG4bK9", ""));
    assert_eq!(sent_response(&stray[0]).code, 481);
}

#[test]
fn a_user_that_never_answers_an_invite_is_answered_for() {
    let mut rig = Rig::new(Limits::default());
    let (server, _) = request_of(&rig.receive(peer(Transport::Tcp), &wire("INVITE", "z9hG4bK1", "")));
    let all = rig.pass(300_000);
    assert!(matches!(&all[1].1, Output::Cancelled { server: s, reason: None } if *s == server));
    assert_eq!(sent_response(&all[2].1).code, 408);
    rig.pass(40_000);
    assert_eq!(rig.stack.server_transactions(), 0);
}

/// RFC 3261 §17.2.2.
#[test]
fn another_request_is_told_once_and_answered_alike() {
    let mut rig = Rig::new(Limits::default());
    let text = wire("MESSAGE", "z9hG4bK1", "");
    let (server, request) = request_of(&rig.receive(peer(Transport::Udp), &text));
    assert!(rig.receive(peer(Transport::Udp), &text).is_empty());
    let ok = rig.give(Input::Respond { server, response: request.respond(200) });
    assert_eq!(sent(&rig.receive(peer(Transport::Udp), &text)[0]), sent(&ok[0]));
    rig.pass(32_000);
    assert_eq!(rig.stack.server_transactions(), 0);
    request_of(&rig.receive(peer(Transport::Udp), &text));
    rig.pass(40_000);
    assert_eq!(rig.stack.server_transactions(), 0);
}

/// RFC 3261 §17.2.3: without a unique branch, by the rules of RFC 2543 (RFC 4475 §3.2.1).
#[test]
fn requests_without_a_unique_branch_are_matched() {
    let mut rig = Rig::new(Limits::default());
    let invite = wire("INVITE", "z9hG4bK", "");
    let (server, request) = request_of(&rig.receive(peer(Transport::Udp), &invite));
    assert!(rig.receive(peer(Transport::Udp), &invite).is_empty());
    let busy = rig.give(Input::Respond { server, response: request.respond(486) });
    let tag = sent_response(&busy[0]).to_tag().unwrap();
    assert!(rig.receive(peer(Transport::Udp), &wire("ACK", "z9hG4bK", &format!(";tag={tag}"))).is_empty());
    assert!(rig.pass(3000).is_empty());
}

#[test]
fn without_room_503_without_state() {
    let mut rig = Rig::new(Limits { server_transactions_max: 1, ..Limits::default() });
    request_of(&rig.receive(peer(Transport::Udp), &wire("MESSAGE", "z9hG4bK1", "")));
    let full = rig.receive(peer(Transport::Udp), &wire("MESSAGE", "z9hG4bK2", ""));
    let response = sent_response(&full[0]);
    assert_eq!((response.code, response.headers.text(&Name::RetryAfter)), (503, Some("5")));
    assert_eq!(rig.stack.server_transactions(), 1);
}

#[test]
fn malformed_requests_are_answered_without_state_and_malformed_responses_are_not() {
    let mut rig = Rig::new(Limits::default());
    let text = wire("MESSAGE", "z9hG4bK1", "").replace("Max-Forwards: 70", "Max-Forwards: 999");
    assert_eq!(sent_response(&rig.receive(peer(Transport::Udp), &text)[0]).code, 400);
    let text = text.replace("MESSAGE sip:b@192.0.2.1 SIP/2.0", "SIP/2.0 200 OK");
    assert!(rig.receive(peer(Transport::Udp), &text).is_empty());
    let ack = wire("ACK", "z9hG4bK1", "").replace("Max-Forwards: 70", "Max-Forwards: 999");
    assert!(rig.receive(peer(Transport::Udp), &ack).is_empty());
    assert_eq!(rig.dropped(Dropped::Malformed(crate::Why::HeaderValue)), 3);
    assert_eq!(rig.stack.server_transactions(), 0);
}

fn our_invite() -> Request {
    let mut request = Request::new(Method::Invite, "sip:b@h".parse().unwrap());
    request.headers.push(Name::From, "<sip:a@h>;tag=f1");
    request.headers.push(Name::To, "<sip:b@h>");
    request.headers.push(Name::CallId, "c1");
    request.headers.push(Name::CSeq, "7 INVITE");
    request.headers.push(Name::Route, "<sip:p;lr>");
    let name = "ab30317f1a784dc48ff824d0d3715d86;remote=00000000000000000000000000000000";
    request.headers.push(Name::SessionId, name);
    request
}

fn answer(request: &Request, code: u16, tag: &str) -> Input {
    let mut response = request.respond(code);
    response.set_to_tag(tag);
    Input::Received { peer: peer(Transport::Udp), message: response.into() }
}

const KEY: ClientKey = ClientKey(5);

fn calling(rig: &mut Rig, transport: Transport) -> Request {
    let outputs = rig.give(Input::Send { key: KEY, to: peer(transport), request: our_invite() });
    sent_request(&outputs[0])
}

/// RFC 3261 §17.1.1.2 and §17.1.1.3.
#[test]
fn our_invite_is_sent_again_and_its_refusal_acknowledged() {
    let mut rig = Rig::new(Limits::default());
    let invite = calling(&mut rig, Transport::Udp);
    let via = invite.top_via().unwrap();
    assert!(via.has_rport() && via.unique_branch().is_some() && via.sent_by.port == Some(5060));
    let times: Vec<u64> = rig.pass(4000).iter().map(|(at, _)| *at).collect();
    assert_eq!(times, [500, 1500, 3500]);
    assert!(matches!(&rig.give(answer(&invite, 180, "t"))[..], [Output::Response { key: KEY, .. }]));
    let outputs = rig.give(answer(&invite, 486, "t"));
    let ack = sent_request(&outputs[0]);
    assert_eq!(ack.top_via().unwrap(), via);
    assert_eq!(
        (ack.method.clone(), ack.cseq().unwrap().seq, ack.to_tag().as_deref()),
        (Method::Ack, 7, Some("t"))
    );
    assert_eq!(ack.headers.text(&Name::Route), Some("<sip:p;lr>"));
    assert!(matches!(&outputs[1], Output::Response { response, .. } if response.code == 486));
    assert_eq!(sent(&rig.give(answer(&invite, 486, "t"))[0]), sent(&outputs[0]));
    // The key is free for the next try (say, with credentials).
    calling(&mut rig, Transport::Udp);
    rig.pass(100_000);
    assert_eq!((rig.stack.client_transactions(), rig.stack.next_timeout()), (0, None));
}

/// RFC 3261 §13.2.2.4: each dialog's ACK is sent again when its 2xx comes again, and each fork is told.
#[test]
fn our_ack_is_repeated_for_the_user() {
    let mut rig = Rig::new(Limits { forks_max: 2, ..Limits::default() });
    let invite = calling(&mut rig, Transport::Udp);
    assert!(matches!(&rig.give(answer(&invite, 200, "t"))[..], [Output::Response { .. }]));
    assert!(rig.give(answer(&invite, 200, "t")).is_empty());
    let mut ack = our_invite();
    ack.method = Method::Ack;
    ack.headers.set(Name::CSeq, "7 ACK");
    ack.headers.set(Name::To, "<sip:b@h>;tag=t");
    let first = rig.give(Input::Ack { to: peer(Transport::Udp), request: ack });
    assert_ne!(sent_request(&first[0]).top_via().unwrap(), invite.top_via().unwrap());
    let again = rig.give(answer(&invite, 200, "t"));
    assert_eq!((again.len(), sent(&again[0])), (1, sent(&first[0])));
    assert!(matches!(&rig.give(answer(&invite, 200, "u"))[..], [Output::Response { .. }]));
    assert!(rig.give(answer(&invite, 200, "v")).is_empty());
    assert_eq!(rig.dropped(Dropped::TooManyForks), 1);
    assert!(rig.pass(32_000).is_empty());
    assert!(rig.give(answer(&invite, 200, "t")).is_empty());
    assert_eq!(rig.dropped(Dropped::StrayResponse), 1);
    assert_eq!(rig.stack.client_transactions(), 0);
}

/// RFC 3261 §9.1: not before a provisional response, same branch, same To, no answer awaited.
#[test]
fn our_cancel() {
    let mut rig = Rig::new(Limits::default());
    let invite = calling(&mut rig, Transport::Udp);
    let name = invite.headers.text(&Name::SessionId).map(str::to_owned);
    assert!(name.is_some());
    let reason = Some(Reason::sip(200, "Call completed elsewhere"));
    assert!(rig.give(Input::Cancel { key: KEY, reason }).is_empty());
    let outputs = rig.give(answer(&invite, 180, "t"));
    let cancel = sent_request(&outputs[0]);
    assert_eq!(cancel.top_via().unwrap(), invite.top_via().unwrap());
    assert_eq!(
        (cancel.method.clone(), cancel.cseq().unwrap().seq, cancel.to_tag()),
        (Method::Cancel, 7, None)
    );
    assert_eq!(cancel.headers.typed::<Reason>().unwrap().unwrap().cause(), Some(200));
    // RFC 7989 §6
    assert_eq!(cancel.headers.text(&Name::SessionId), name.as_deref());
    assert!(rig.give(answer(&cancel, 200, "t")).is_empty());
    assert!(matches!(
        &rig.give(answer(&invite, 487, "t"))[..],
        [Output::Transmit { .. }, Output::Response { .. }]
    ));
    rig.pass(40_000);
    assert_eq!(rig.stack.client_transactions(), 0);
}

#[test]
fn our_request_expires() {
    let mut rig = Rig::new(Limits::default());
    calling(&mut rig, Transport::Udp);
    let refused = rig.give(Input::Send { key: KEY, to: peer(Transport::Udp), request: our_invite() });
    assert!(matches!(refused[..], [Output::Expired { key: KEY, why: Expiry::Refused }]));
    let all = rig.pass(32_000);
    assert!(matches!(all.last(), Some((32_000, Output::Expired { key: KEY, why: Expiry::Timeout }))));
    calling(&mut rig, Transport::Tcp);
    assert!(rig.give(Input::Failed { peer: peer(Transport::Tcp) }).is_empty());
    assert!(matches!(rig.pass(0)[..], [(0, Output::Expired { key: KEY, why: Expiry::Transport })]));
    assert_eq!(rig.stack.client_transactions(), 0);
    assert!(rig.stack.towards.is_empty());
}

/// RFC 3261 §18.2.2: the connection is gone, so the answer goes to the port of sent-by.
#[test]
fn an_answer_finds_another_way_when_its_connection_is_gone() {
    let mut rig = Rig::new(Limits::default());
    let source = Peer::new(Transport::Tcp, "192.0.2.7:40000".parse().unwrap());
    let (server, request) = request_of(&rig.receive(source, &wire("INVITE", "z9hG4bK1", "")));
    let busy = rig.give(Input::Respond { server, response: request.respond(486) });
    assert!(matches!(busy[0], Output::Transmit { peer, .. } if peer == source));
    rig.give(Input::Failed { peer: source });
    let again = rig.pass(0);
    assert!(matches!(again[..], [(0, Output::Transmit { peer: p, .. })] if p == peer(Transport::Tcp)));
    rig.pass(40_000);
    assert!(rig.stack.towards.is_empty());
}

/// RFC 4475 §3.3.10 (a response that is not ours), RFC 3261 §8.1.3.3 (a foreign Via beside ours).
#[test]
fn stray_responses_are_dropped() {
    let mut rig = Rig::new(Limits::default());
    let invite = calling(&mut rig, Transport::Udp);
    let mut response = invite.respond(200);
    response.headers.push(Name::Via, "SIP/2.0/UDP 255.255.255.255;branch=z9hG4bK1");
    let message = Message::Response(response);
    assert!(rig.give(Input::Received { peer: peer(Transport::Udp), message }).is_empty());
    let text = wire("MESSAGE", "z9hG4bKx", "").replace("MESSAGE sip:b@192.0.2.1 SIP/2.0", "SIP/2.0 200 OK");
    assert!(rig.receive(peer(Transport::Udp), &text).is_empty());
    assert_eq!((rig.dropped(Dropped::ForeignVia), rig.dropped(Dropped::StrayResponse)), (1, 1));
}

/// RFC 3261 §8.2.2.2: a request that a proxy forked, and whose branches meet here again.
#[test]
fn a_merged_request_is_482_while_the_first_one_has_a_transaction() {
    for method in ["INVITE", "MESSAGE"] {
        let mut rig = Rig::new(Limits::default());
        let udp = peer(Transport::Udp);
        let (server, request) = request_of(&rig.receive(udp, &wire(method, "z9hG4bK1", "")));
        let merged = rig.receive(udp, &wire(method, "z9hG4bK2", ""));
        assert_eq!((merged.len(), sent_response(&merged[0]).code), (1, 482));
        // It is none of: another address of ours, another function, a dialog, the next one of the same sender.
        for other in [
            wire(method, "z9hG4bK3", "").replace("sip:b@192.0.2.1 ", "sip:c@192.0.2.1 "),
            wire(method, "z9hG4bK4", "").replace("Contact:", "Route: <sip:term@192.0.2.1;lr>\r\nContact:"),
            wire(method, "z9hG4bK5", ";tag=t"),
            wire(method, "z9hG4bK6", "").replace("CSeq: 1", "CSeq: 2"),
            wire(method, "z9hG4bK7", "").replace("tag=f1", "tag=f2"),
        ] {
            assert!(matches!(rig.receive(udp, &other)[..], [Output::Request { .. }]), "{other}");
        }
        rig.give(Input::Respond { server, response: request.respond(500) });
        assert_eq!(sent_response(&rig.receive(udp, &wire(method, "z9hG4bK8", ""))[0]).code, 482);
        assert_eq!(rig.dropped(Dropped::Merged), 2);
        rig.pass(64_000);
        let again = rig.receive(udp, &wire(method, "z9hG4bK9", ""));
        assert!(matches!(again[..], [Output::Request { .. }]), "the first one is forgotten: {again:?}");
    }
}
