//! The checks that are the same for every role: RFC 3261 §8.1.1 (mandatory headers), §16.3 step 1, and the
//! verdicts of RFC 4475 §3.1.2 and §3.3.

use crate::headers::{Headers, Present};
use crate::limits::Limits;
use crate::malformed::{Malformed, Why};
use crate::message::{Message, Request, Response};
use crate::name::Name;
use crate::typed::{
    BadHeader, CSeq, Contacts, ContentDisposition, ContentType, Date, Event, Expires, From, MaxForwards,
    MinExpires, NameAddr, RetryAfter, SessionExpires, To, Value, Via, Warning,
};

/// Refuses a message that lacks a mandatory header, repeats a single one, or breaks the grammar of one that
/// routing, dialogs or identity hang on. A refused request carries its answer; a refused response is dropped.
pub fn wellformed(message: &Message, limits: &Limits) -> Result<(), Malformed> {
    let (found, method) = match message {
        Message::Request(request) => (check_request(request, limits), request.method.as_str()),
        Message::Response(response) => (check_response(response, limits), ""),
    };
    found.map_err(|(why, detail)| Malformed {
        fatal: false,
        ..Malformed::answered(why, detail, method.as_bytes(), message.headers())
    })
}

type Found = Result<(), (Why, &'static str)>;

fn check_request(request: &Request, limits: &Limits) -> Found {
    // RFC 3261 §19.1.1: headers are not allowed in a Request-URI (RFC 4475 §3.1.2.11).
    if !request.uri.headers.is_empty() {
        return Err((Why::RequestUri, "Request-URI carries headers"));
    }
    let (cseq, _) = check_common(&request.headers, limits)?;
    // RFC 3261 §8.1.1.5, RFC 4475 §3.1.2.17.
    if cseq.method != request.method {
        return Err((Why::MethodMismatch, "CSeq names another method"));
    }
    Ok(())
}

fn check_response(response: &Response, limits: &Limits) -> Found {
    let (_, check) = check_common(&response.headers, limits)?;
    check.one::<RetryAfter>(&Name::RetryAfter)?;
    check.all::<Warning>(&Name::Warning)
}

/// A message's headers with what is there, so that what is not costs nothing.
struct Check<'a> {
    headers: &'a Headers,
    present: Present,
}

fn value(bad: BadHeader) -> (Why, &'static str) {
    (Why::HeaderValue, bad.header)
}

impl Check<'_> {
    fn one<V: Value>(&self, name: &Name) -> Found {
        if self.present.has(name) {
            self.headers.one::<V>(name).map_err(value)?;
        }
        Ok(())
    }

    fn all<V: Value>(&self, name: &Name) -> Found {
        if self.present.has(name) {
            for element in self.headers.values(name) {
                V::parse(element).map_err(value)?;
            }
        }
        Ok(())
    }
}

fn check_common<'a>(headers: &'a Headers, limits: &Limits) -> Result<(CSeq, Check<'a>), (Why, &'static str)> {
    // RFC 4475 §3.3.8.
    let present =
        headers.present().map_err(|_| (Why::HeaderRepeated, "a header stands twice that may stand once"))?;
    // RFC 3261 §8.1.1. Max-Forwards is mandatory too, but RFC 2543 did not know it (RFC 4475 §3.4.1).
    for name in [Name::Via, Name::From, Name::To, Name::CallId, Name::CSeq] {
        if !present.has(&name) {
            return Err((Why::HeaderMissing, "Via, From, To, Call-ID and CSeq are mandatory"));
        }
    }
    if headers.values(&Name::Via).take(limits.vias_max + 1).count() > limits.vias_max {
        return Err((Why::TooManyHeaders, "Via"));
    }
    let check = Check { headers, present };
    check.all::<Via>(&Name::Via)?;
    headers.must::<From>().map_err(value)?;
    headers.must::<To>().map_err(value)?;
    let cseq = headers.must::<CSeq>().map_err(value)?;
    let is_call_id = |b: &u8| b.is_ascii_graphic();
    if !headers.first(&Name::CallId).is_some_and(|id| !id.is_empty() && id.iter().all(is_call_id)) {
        return Err((Why::HeaderValue, "Call-ID"));
    }
    if present.has(&Name::Contact) {
        Contacts::of(headers).map_err(value)?;
    }
    for name in [Name::Route, Name::RecordRoute, Name::Path] {
        check.all::<NameAddr>(&name)?;
    }
    check.one::<MaxForwards>(&Name::MaxForwards)?;
    check.one::<Expires>(&Name::Expires)?;
    check.one::<MinExpires>(&Name::MinExpires)?;
    check.one::<Date>(&Name::Date)?;
    check.one::<ContentType>(&Name::ContentType)?;
    check.one::<ContentDisposition>(&Name::ContentDisposition)?;
    check.one::<Event>(&Name::Event)?;
    check.one::<SessionExpires>(&Name::SessionExpires)?;
    check.one::<NameAddr>(&Name::ReferTo)?;
    check.one::<NameAddr>(&Name::ReferredBy)?;
    Ok((cseq, check))
}
