//! SDP in bodies: alone, or as one part of a multipart beside a recipient list or a first message
//! (RFC 5366, CPM-FACTS §2.5 "First message").

use bytes::Bytes;
use sip::typed::{ContentType, MediaType};
use sip::{Headers, Request, Response};

const SDP: &str = "application/sdp";

/// The SDP of a body; empty when there is none, `None` when the body does not parse.
pub(crate) fn sdp_in(headers: &Headers, body: &Bytes) -> Option<Bytes> {
    if body.is_empty() {
        return Some(Bytes::new());
    }
    let kind = content_type(headers)?;
    if kind.is(SDP) {
        return Some(body.clone());
    }
    if kind.kind.eq_ignore_ascii_case("multipart") {
        let parts = sip::multipart::parse(&kind, body, &sip::Limits::default()).ok()?;
        return Some(parts.iter().find(|p| is_sdp(&p.headers)).map(|p| p.body.clone()).unwrap_or_default());
    }
    Some(Bytes::new())
}

/// Puts another SDP in the place of a request's.
pub(crate) fn replace_sdp(request: &mut Request, sdp: Bytes) {
    replace(&mut request.headers, &mut request.body, sdp);
}

/// The same in a response.
pub(crate) fn replace_sdp_in(response: &mut Response, sdp: Bytes) {
    replace(&mut response.headers, &mut response.body, sdp);
}

fn replace(headers: &mut Headers, body: &mut Bytes, sdp: Bytes) {
    let kind = content_type(headers);
    let multipart = kind.filter(|k| k.kind.eq_ignore_ascii_case("multipart") && !body.is_empty());
    if let Some(kind) = multipart
        && let Ok(mut parts) = sip::multipart::parse(&kind, body, &sip::Limits::default())
        && let Some(part) = parts.iter_mut().find(|p| is_sdp(&p.headers))
        && let Some(boundary) = kind.boundary()
    {
        part.body = sdp;
        let (kind, built) = sip::multipart::build(&kind.subtype, &parts, &boundary);
        headers.set(sip::Name::ContentType, kind);
        *body = built;
        return;
    }
    headers.set(sip::Name::ContentType, SDP);
    *body = sdp;
}

fn is_sdp(headers: &Headers) -> bool {
    content_type(headers).is_some_and(|kind| kind.is(SDP))
}

fn content_type(headers: &Headers) -> Option<MediaType> {
    headers.typed::<ContentType>().ok().flatten().map(|c| c.0)
}
