//! The head of a request or response: start line and header lines, as views over the bytes read.
//!
//! RFC 4975 §7, §9. What is read here is only what every hop needs; the rest of the lines is kept as it came
//! and can be walked and forwarded. To-Path and From-Path should come first and Content-Type last (RFC 4975
//! §7.1); peers that order their lines otherwise are understood, peers that repeat a line that rules routing
//! are not.
mod bad;
mod lines;
mod read;
mod start;

use std::fmt;

use bytes::Bytes;

use crate::path::PathRef;
use crate::{ByteRange, FailureReport, Status, Tid};
pub use bad::{Bad, BadReason};
pub use lines::Headers;
use lines::{Span, unquote};
pub use start::{Method, Start};

/// The head of one message. Cloning shares the bytes.
#[derive(Clone)]
pub struct Head {
    block: Bytes,
    tid: Tid,
    start: Start,
    word: Span,
    lines: u16,
    /// The session id of the first URI of To-Path.
    session: Span,
    /// There are lines that a hop passes on unread.
    has_others: bool,
    to_path: Span,
    from_path: Span,
    message_id: Span,
    content_type: Span,
    byte_range: Option<ByteRange>,
    status: Option<Status>,
    failure_report: FailureReport,
    success_report: bool,
    has_body: bool,
}

impl Head {
    /// The same with octets of its own, so that it does not hold the read that brought it.
    pub fn detached(self) -> Head {
        Head { block: Bytes::copy_from_slice(&self.block), ..self }
    }

    /// Request with method, or response with status.
    pub fn start(&self) -> Start {
        self.start
    }

    /// The method of a request, `None` for a response.
    pub fn method(&self) -> Option<Method> {
        match self.start {
            Start::Request(method) => Some(method),
            Start::Response(_) => None,
        }
    }

    /// The method's name as written; empty for a response.
    pub fn method_name(&self) -> &str {
        self.text(self.word)
    }

    /// The transaction id.
    pub fn tid(&self) -> &Tid {
        &self.tid
    }

    /// To-Path, first hop first.
    pub fn to_path(&self) -> PathRef<'_> {
        PathRef::checked(self.text(self.to_path))
    }

    /// From-Path, previous hop first.
    pub fn from_path(&self) -> PathRef<'_> {
        PathRef::checked(self.text(self.from_path))
    }

    /// The session id that the next hop is to look up: the first URI of To-Path.
    pub fn session(&self) -> Option<&str> {
        self.session.is_set().then(|| self.text(self.session))
    }

    /// Message-ID; empty where there is none.
    pub fn message_id(&self) -> &str {
        self.text(self.message_id)
    }

    /// Byte-Range, if there is one.
    pub fn byte_range(&self) -> Option<ByteRange> {
        self.byte_range
    }

    /// Success-Report; `no` by default.
    pub fn success_report(&self) -> bool {
        self.success_report
    }

    /// Failure-Report; `yes` by default.
    pub fn failure_report(&self) -> FailureReport {
        self.failure_report
    }

    /// The Status header of a REPORT; `None` also for a namespace other than 000.
    pub fn status(&self) -> Option<Status> {
        self.status
    }

    /// Content-Type with its parameters.
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.is_set().then(|| self.text(self.content_type))
    }

    /// Content-Type as a shared slice.
    pub fn content_type_bytes(&self) -> Option<Bytes> {
        self.content_type.is_set().then(|| self.block.slice(self.content_type.range()))
    }

    /// The nickname that a NICKNAME asks for, unquoted (RFC 7701 §7). `None` without the header or when it is
    /// no quoted string.
    pub fn use_nickname(&self) -> Option<String> {
        unquote(self.header(b"Use-Nickname")?)
    }

    /// Whether a body follows.
    pub fn has_body(&self) -> bool {
        self.has_body
    }

    /// The start line and header lines as they came.
    pub fn block(&self) -> &Bytes {
        &self.block
    }

    /// The value of the first line of this name, without case.
    pub fn header(&self, name: &[u8]) -> Option<&[u8]> {
        self.headers().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Every header line in order: name and value.
    pub fn headers(&self) -> Headers<'_> {
        Headers::of(self.block.get(usize::from(self.lines)..).unwrap_or_default())
    }

    /// The lines that a hop that rewrites the head has no word of its own for, in order: unknown ones and the
    /// MIME headers, without Content-Type. They are to be forwarded (RFC 4975 §9, ext-header; §7.1).
    pub fn others(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let lines = if self.has_others { self.headers() } else { Headers::of(&[]) };
        lines.filter(|(name, _)| !KNOWN.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes())))
    }

    fn text(&self, span: Span) -> &str {
        self.block.get(span.range()).and_then(|octets| std::str::from_utf8(octets).ok()).unwrap_or_default()
    }
}

/// Lines that every hop writes itself.
const KNOWN: [&str; 8] = [
    "To-Path",
    "From-Path",
    "Message-ID",
    "Byte-Range",
    "Success-Report",
    "Failure-Report",
    "Status",
    "Content-Type",
];

/// Nothing that could name a subscriber.
impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head")
            .field("start", &self.start)
            .field("tid", &self.tid)
            .field("byte_range", &self.byte_range.map(|r| r.to_string()))
            .field("has_body", &self.has_body)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
