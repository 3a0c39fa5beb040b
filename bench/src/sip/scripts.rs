//! What is done over and over: registering, sending a message, calling.

use base::Entropy;
use bytes::Bytes;
use sip::digest::Client;
use sip::typed::{RecordRoute, Route, To};
use sip::{Limits, Message, Method, Name, Request, Response, Uri, datagram};

use super::load::{Script, Step, Unit};
use super::wires::Own;

/// Users, each of whom is registered at the load's own address.
pub(super) const USERS: u64 = 100;
/// Whose they are.
pub(super) const DOMAIN: &str = "bench.example";
/// Everybody's password.
pub(super) const PASSWORD: &str = "secret";

/// A request as a phone sends it.
fn request(method: &str, unit: &Unit, own: &Own, from: u64, to: u64, more: &str, body: &str) -> Request {
    request_to(method, unit, own, from, &format!("sip:u{to}@{DOMAIN}"), more, body)
}

/// The same to any address.
fn request_to(method: &str, unit: &Unit, own: &Own, from: u64, to: &str, more: &str, body: &str) -> Request {
    let Unit { slot, number, sent, .. } = unit;
    let node = format!("sip:{DOMAIN}");
    let target = if matches!(method, "REGISTER" | "OPTIONS") { &node } else { to };
    let text = format!(
        "{method} {target} SIP/2.0\r\nVia: {};branch=z9hG4bKb{slot}n{number}s{sent};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:u{from}@{DOMAIN}>;tag=f{slot}n{number}\r\nTo: <{to}>\r\n\
         Call-ID: {}\r\nCSeq: {sent} {method}\r\n{more}Content-Length: {}\r\n\r\n{body}",
        own.via(),
        unit.call_id(),
        body.len()
    );
    match datagram(Bytes::from(text), &Limits::default()) {
        Ok(Some(Message::Request(request))) => request,
        _ => Request::new(Method::Options, Uri::anonymous()),
    }
}

/// The same with another branch: a transaction of its own.
fn again(request: &mut Request, unit: &Unit, own: &Own) {
    let Unit { slot, number, sent, .. } = unit;
    let via = format!("{};branch=z9hG4bKb{slot}n{number}s{};rport", own.via(), sent + 1);
    request.headers.set(Name::Via, via);
}

/// RFC 3261 §17.1.1.3: what a final response to an INVITE that is no 2xx is acknowledged with.
fn refused(invite: &Request, response: &Response) -> Request {
    let mut ack = Request::new(Method::Ack, invite.uri.clone());
    for name in [Name::Via, Name::MaxForwards, Name::From, Name::CallId] {
        ack.headers.copy(&invite.headers, &name);
    }
    ack.headers.copy(&response.headers, &Name::To);
    ack.headers.push(Name::CSeq, "1 ACK");
    ack
}

/// REGISTER, its challenge, REGISTER with digest.
pub(super) struct Register {
    entropy: Entropy,
}

impl Register {
    pub(super) fn new() -> Register {
        Register { entropy: Entropy::from_number(1) }
    }

    /// A contact of a user is registered.
    pub(super) fn of(&self, unit: &Unit, own: &Own, user: u64, contact: &str) -> Request {
        let more = format!("Contact: <{}>\r\nExpires: 300\r\n", own.uri(contact));
        request("REGISTER", unit, own, user, user, &more, "")
    }

    /// A response to that, and who has the password.
    pub(super) fn goes_on(
        &mut self,
        unit: &mut Unit,
        response: &Response,
        own: &Own,
        mut client: Client,
    ) -> Step {
        let Some(last) = &unit.last else { return Step::Failed(None) };
        match response.code {
            100..200 => Step::Wait,
            // RFC 3261 §10.3: the bindings are in it.
            200..300 if unit.sent > 1 && response.headers.text(&Name::Contact).is_some() => Step::Done,
            401 if unit.sent == 1 => {
                let Ok(mut next) = client.answer(last, response, &mut self.entropy) else {
                    return Step::Failed(None);
                };
                again(&mut next, unit, own);
                Step::Say(vec![next])
            }
            // A response that came twice.
            401 => Step::Wait,
            _ => Step::Failed(None),
        }
    }
}

impl Script for Register {
    fn begin(&mut self, unit: &Unit, own: &Own) -> Request {
        let user = unit.number % USERS;
        self.of(unit, own, user, &format!("u{user}"))
    }

    fn heard(&mut self, unit: &mut Unit, response: &Response, own: &Own) -> Step {
        let client = Client::new(&format!("u{}", unit.number % USERS), PASSWORD);
        self.goes_on(unit, response, own, client)
    }
}

/// OPTIONS for the server itself; it only has to answer.
pub(super) struct Ping;

impl Script for Ping {
    fn user(&self, number: u64) -> u64 {
        number
    }

    fn begin(&mut self, unit: &Unit, own: &Own) -> Request {
        request("OPTIONS", unit, own, 0, 0, "", "")
    }

    fn heard(&mut self, _: &mut Unit, response: &Response, _: &Own) -> Step {
        if response.code < 200 { Step::Wait } else { Step::Done }
    }
}

/// A pager message with CPIM inside, to another user; each asks for a delivery notification.
pub(super) struct Pager;

impl Script for Pager {
    fn begin(&mut self, unit: &Unit, own: &Own) -> Request {
        let (from, to) = (unit.number % USERS, (unit.number + 1) % USERS);
        let id = unit.call_id();
        let body = format!(
            "From: <sip:u{from}@{DOMAIN}>\r\nTo: <sip:u{to}@{DOMAIN}>\r\nNS: imdn <urn:ietf:params:imdn>\r\n\
             imdn.Message-ID: {}\r\nDateTime: 2026-01-01T00:00:00Z\r\nimdn.Disposition-Notification: positive-delivery\r\n\
             \r\nContent-Type: text/plain;charset=utf-8\r\n\r\nShall we meet at the weir?",
            id.replace('@', "x")
        );
        let more = format!(
            "Accept-Contact: *;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.msg\"\r\n\
             Conversation-ID: c{from}to{to}\r\nContribution-ID: {id}\r\nContent-Type: message/cpim\r\n"
        );
        request("MESSAGE", unit, own, from, to, &more, &body)
    }

    fn heard(&mut self, _: &mut Unit, response: &Response, _: &Own) -> Step {
        match response.code {
            100..200 => Step::Wait,
            200..300 => Step::Done,
            _ => Step::Failed(None),
        }
    }

    fn answer(&mut self, request: &Request, _: &Own) -> Option<Response> {
        let mut response = request.respond(200);
        response.set_to_tag("called");
        Some(response)
    }
}

/// INVITE, 200, ACK, BYE, 200.
pub(super) struct Call {
    media: Media,
}

/// What a session is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Media {
    Audio,
    Chat,
}

/// Where the phones say that they hear audio: whoever is told another port is told the server's.
const PORT: u16 = 40_000;
/// The end of the phones' MSRP paths, likewise.
const SESSION: &str = "phone";

impl Media {
    fn describe(self, own: &Own) -> String {
        let ip = own.addr.ip();
        let session = format!("v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n");
        match self {
            Media::Audio => format!(
                "{session}m=audio {PORT} RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n\
                 a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n"
            ),
            Media::Chat => format!(
                "{session}m=message {PORT} TCP/MSRP *\r\na=accept-types:message/cpim\r\na=accept-wrapped-types:text/plain\r\n\
                 a=setup:actpass\r\na=path:msrp://{ip}:{PORT}/{SESSION};tcp\r\na=sendrecv\r\n"
            ),
        }
    }

    /// Whether the server stands between: the description names another place than the phones have said.
    fn is_anchored(body: &[u8]) -> bool {
        let body = String::from_utf8_lossy(body);
        (body.contains("m=audio ") || body.contains("m=message "))
            && !body.contains(&format!("m=audio {PORT} "))
            && !body.contains(&format!("/{SESSION};tcp"))
    }

    /// What a client says that it wants of the other one. Each is a contribution of its own: two of one name are one group.
    fn wanted(self, unit: &Unit) -> String {
        let id = unit.call_id();
        match self {
            Media::Audio => String::new(),
            Media::Chat => format!(
                "Accept-Contact: *;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session\"\r\n\
                 Conversation-ID: {id}\r\nContribution-ID: {id}\r\n"
            ),
        }
    }
}

impl Call {
    pub(super) const fn new(media: Media) -> Call {
        Call { media }
    }

    /// A request inside the dialog of a 2xx.
    fn within(unit: &Unit, response: &Response, own: &Own, method: Method, seq: u32) -> Option<Request> {
        let target = response.headers.typed::<sip::typed::Contact>().ok().flatten()?;
        let mut next = Request::new(method.clone(), target.uri.clone());
        let (slot, number) = (unit.slot, unit.number);
        let via = format!("{};branch=z9hG4bKb{slot}n{number}{method};rport", own.via());
        next.headers.push(Name::Via, via);
        next.headers.push(Name::MaxForwards, "70");
        // RFC 3261 §12.1.2: the routes in the other order.
        for route in response.headers.all::<RecordRoute>().unwrap_or_default().into_iter().rev() {
            next.headers.add(&Route(route.0));
        }
        for name in [Name::From, Name::To, Name::CallId] {
            next.headers.copy(&response.headers, &name);
        }
        next.headers.push(Name::CSeq, format!("{seq} {method}"));
        Some(next)
    }
}

impl Script for Call {
    fn begin(&mut self, unit: &Unit, own: &Own) -> Request {
        let (from, to) = (unit.number % USERS, (unit.number + 1) % USERS);
        let more = format!(
            "Contact: <{}>\r\nAllow: INVITE, ACK, CANCEL, BYE, OPTIONS\r\n{}Content-Type: application/sdp\r\n",
            own.uri(format!("u{from}")),
            self.media.wanted(unit)
        );
        request("INVITE", unit, own, from, to, &more, &self.media.describe(own))
    }

    fn heard(&mut self, unit: &mut Unit, response: &Response, own: &Own) -> Step {
        let Some(last) = &unit.last else { return Step::Failed(None) };
        let method = response.cseq().map(|cseq| cseq.method);
        match (response.code, method) {
            (100..200, _) => Step::Wait,
            (200..300, Ok(Method::Bye)) => Step::Done,
            (200..300, Ok(Method::Invite)) => {
                let Some(ack) = Self::within(unit, response, own, Method::Ack, 1) else {
                    return Step::Failed(None);
                };
                // RFC 3261 §13.2.2.4: it came twice.
                if last.method != Method::Invite {
                    return Step::Repeat(ack);
                }
                match Self::within(unit, response, own, Method::Bye, 2) {
                    Some(bye) if Media::is_anchored(&response.body) => Step::Say(vec![ack, bye]),
                    _ => Step::Failed(Some(ack)),
                }
            }
            (300.., Ok(Method::Invite)) => Step::Failed(Some(refused(last, response))),
            _ => Step::Failed(None),
        }
    }

    fn answer(&mut self, request: &Request, own: &Own) -> Option<Response> {
        if request.method == Method::Ack {
            return None;
        }
        let is_invite = request.method == Method::Invite;
        let taken = !is_invite || Media::is_anchored(&request.body);
        let mut response = request.respond(if taken { 200 } else { 488 });
        if request.headers.typed::<To>().is_ok_and(|to| to.is_some_and(|to| to.tag().is_none())) {
            response.set_to_tag("called");
        }
        if is_invite && taken {
            response.headers.push(Name::Contact, format!("<{}>", own.uri("called")));
            response.set_body("application/sdp", self.media.describe(own));
        }
        Some(response)
    }
}

/// A chat of eight, set up by one of them and left by him at once.
pub(super) struct Group;

/// Its others.
const OTHERS: u64 = 7;

impl Script for Group {
    fn begin(&mut self, unit: &Unit, own: &Own) -> Request {
        let from = unit.number % USERS;
        let more = format!(
            "Contact: <{}>\r\nRequire: recipient-list-invite\r\nSubject: The weir\r\n{}\
             Content-Type: multipart/mixed;boundary=eight\r\n",
            own.uri(format!("u{from}")),
            Media::Chat.wanted(unit)
        );
        let list: String =
            (1..=OTHERS).map(|n| format!("<entry uri=\"sip:u{}@{DOMAIN}\"/>", (from + n) % USERS)).collect();
        let body = format!(
            "--eight\r\nContent-Type: application/sdp\r\n\r\n{}\r\n--eight\r\n\
             Content-Type: application/resource-lists+xml\r\nContent-Disposition: recipient-list\r\n\r\n\
             <?xml version=\"1.0\" encoding=\"UTF-8\"?>\
             <resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"><list>{list}</list></resource-lists>\r\n--eight--\r\n",
            Media::Chat.describe(own)
        );
        request_to("INVITE", unit, own, from, &format!("sip:conference-factory@{DOMAIN}"), &more, &body)
    }

    fn heard(&mut self, unit: &mut Unit, response: &Response, own: &Own) -> Step {
        Call::new(Media::Chat).heard(unit, response, own)
    }
}
