//! Requests and responses: a start line, header fields, a body of octets.

use std::fmt;
use std::fmt::Write;

use bytes::{BufMut, Bytes, BytesMut};

use crate::headers::Headers;
use crate::method::Method;
use crate::name::Name;
use crate::typed::{BadHeader, CSeq, From, To, Via};
use crate::uri::Uri;

/// A SIP message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// A request.
    Request(Request),
    /// A response.
    Response(Response),
}

impl Message {
    /// The header fields.
    pub fn headers(&self) -> &Headers {
        match self {
            Message::Request(r) => &r.headers,
            Message::Response(r) => &r.headers,
        }
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        match self {
            Message::Request(r) => &r.body,
            Message::Response(r) => &r.body,
        }
    }

    /// The wire form.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Message::Request(r) => r.to_bytes(),
            Message::Response(r) => r.to_bytes(),
        }
    }
}

/// A request.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The Request-URI.
    pub uri: Uri,
    /// Header fields.
    pub headers: Headers,
    /// The body; its length is written as Content-Length.
    pub body: Bytes,
}

/// A response.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// Status code, 100 to 699.
    pub code: u16,
    /// Reason phrase.
    pub reason: String,
    /// Header fields.
    pub headers: Headers,
    /// The body; its length is written as Content-Length.
    pub body: Bytes,
}

impl Request {
    /// A request without header fields.
    pub fn new(method: Method, uri: Uri) -> Request {
        Request { method, uri, headers: Headers::new(), body: Bytes::new() }
    }

    /// A response to this request with Via, From, To, Call-ID, CSeq copied octet by octet (RFC 3261 §8.2.6.2),
    /// and Record-Route for 101 to 299 (§12.1.1). Timestamp goes into a 100 (§8.2.6.1). The To tag is the
    /// caller's ([`Response::set_to_tag`]) or the [`crate::Stack`]'s business.
    pub fn respond(&self, code: u16) -> Response {
        let mut headers = Headers::new();
        for name in [Name::Via, Name::From, Name::To, Name::CallId, Name::CSeq] {
            headers.copy(&self.headers, &name);
        }
        if (101..300).contains(&code) {
            headers.copy(&self.headers, &Name::RecordRoute);
        }
        if code == 100 {
            headers.copy(&self.headers, &Name::Timestamp);
        }
        Response { code, reason: phrase(code).to_owned(), headers, body: Bytes::new() }
    }

    /// Sets body and Content-Type.
    pub fn set_body(&mut self, content_type: &str, body: impl Into<Bytes>) {
        self.headers.set(Name::ContentType, content_type);
        self.body = body.into();
    }

    /// The wire form. Content-Length is written from the body.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.headers.write_len() + self.body.len() + 128);
        // Writing into a growing buffer does not fail.
        let _ = write!(out, "{} {} SIP/2.0\r\n", self.method, self.uri);
        self.headers.write(&mut out, self.body.len());
        out.put_slice(&self.body);
        out.freeze()
    }

    /// The topmost Via.
    pub fn top_via(&self) -> Result<Via, BadHeader> {
        self.headers.must()
    }

    /// From.
    pub fn from(&self) -> Result<From, BadHeader> {
        self.headers.must()
    }

    /// To.
    pub fn to(&self) -> Result<To, BadHeader> {
        self.headers.must()
    }

    /// CSeq.
    pub fn cseq(&self) -> Result<CSeq, BadHeader> {
        self.headers.must()
    }

    /// Call-ID, octets as text.
    pub fn call_id(&self) -> Option<&str> {
        self.headers.text(&Name::CallId)
    }

    /// The To tag: present inside a dialog.
    pub fn to_tag(&self) -> Option<String> {
        self.to().ok()?.tag().map(str::to_owned)
    }

    /// The From tag.
    pub fn from_tag(&self) -> Option<String> {
        self.from().ok()?.tag().map(str::to_owned)
    }
}

impl Response {
    /// Sets body and Content-Type.
    pub fn set_body(&mut self, content_type: &str, body: impl Into<Bytes>) {
        self.headers.set(Name::ContentType, content_type);
        self.body = body.into();
    }

    /// The same response with a Warning 399 of the OMA form: the code stands inside the text (CPM).
    pub fn warn(mut self, host: &str, text: &str) -> Response {
        self.headers.push(Name::Warning, format!("399 {host} {}", crate::scan::quote(text)));
        self
    }

    /// Adds a To tag if there is none; does nothing to a To that does not parse.
    pub fn set_to_tag(&mut self, tag: &str) {
        if let Ok(Some(mut to)) = self.headers.typed::<To>()
            && to.tag().is_none()
        {
            to.params.set("tag", Some(tag));
            // The octets stay as they came; only the parameter is added.
            let mut value = self.headers.first(&Name::To).unwrap_or_default().to_vec();
            value.extend_from_slice(b";tag=");
            value.extend_from_slice(tag.as_bytes());
            self.headers.replace_first(&Name::To, value);
        }
    }

    /// The wire form. Content-Length is written from the body.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.headers.write_len() + self.body.len() + 64);
        let clean = |c| if matches!(c, '\r' | '\n') { ' ' } else { c };
        let _ = write!(out, "SIP/2.0 {:03} ", self.code);
        for c in self.reason.chars().map(clean) {
            let _ = out.write_char(c);
        }
        out.put_slice(b"\r\n");
        self.headers.write(&mut out, self.body.len());
        out.put_slice(&self.body);
        out.freeze()
    }

    /// The topmost Via.
    pub fn top_via(&self) -> Result<Via, BadHeader> {
        self.headers.must()
    }

    /// CSeq.
    pub fn cseq(&self) -> Result<CSeq, BadHeader> {
        self.headers.must()
    }

    /// The To tag.
    pub fn to_tag(&self) -> Option<String> {
        self.headers.typed::<To>().ok()??.tag().map(str::to_owned)
    }

    /// True for 100 to 199.
    pub fn is_provisional(&self) -> bool {
        self.code < 200
    }

    /// True for 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.code)
    }
}

impl std::convert::From<Request> for Message {
    fn from(request: Request) -> Message {
        Message::Request(request)
    }
}

impl std::convert::From<Response> for Message {
    fn from(response: Response) -> Message {
        Message::Response(response)
    }
}

/// URIs and values are subscriber data and not shown.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({}, {:?}, body {})", self.method.label(), self.headers, self.body.len())
    }
}

/// Values are subscriber data and not shown.
impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Response({}, {:?}, body {})", self.code, self.headers, self.body.len())
    }
}

/// The usual reason phrase of a status code (RFC 3261 §21 and the registry).
pub fn phrase(code: u16) -> &'static str {
    match code {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        183 => "Session Progress",
        199 => "Early Dialog Terminated",
        200 => "OK",
        202 => "Accepted",
        204 => "No Notification",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        305 => "Use Proxy",
        380 => "Alternative Service",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        412 => "Conditional Request Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        420 => "Bad Extension",
        421 => "Extension Required",
        422 => "Session Interval Too Small",
        423 => "Interval Too Brief",
        428 => "Use Identity Header",
        433 => "Anonymity Disallowed",
        436 => "Bad Identity Info",
        439 => "First Hop Lacks Outbound Support",
        440 => "Max-Breadth Exceeded",
        469 => "Bad Info Package",
        470 => "Consent Needed",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        484 => "Address Incomplete",
        485 => "Ambiguous",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        489 => "Bad Event",
        491 => "Request Pending",
        493 => "Undecipherable",
        494 => "Security Agreement Required",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        513 => "Message Too Large",
        580 => "Precondition Failure",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        606 => "Not Acceptable",
        101..=199 => "Progress",
        201..=299 => "Success",
        303..=399 => "Redirection",
        409..=499 => "Request Failure",
        506..=599 => "Server Failure",
        _ => "Global Failure",
    }
}
