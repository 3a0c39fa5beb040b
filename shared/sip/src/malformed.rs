//! What is wrong with a message, and what to answer if enough of it could be read.

use std::fmt;

use base::Fault;
use sha2::{Digest, Sha256};

use crate::headers::Headers;
use crate::message::{Response, phrase};
use crate::name::Name;

/// Why a message is refused before any service sees it. A closed set: each is a metric label.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Why {
    /// The start line is neither a request line nor a status line.
    StartLine,
    /// The SIP version is not 2.0.
    Version,
    /// The Request-URI does not parse or must not stand there.
    RequestUri,
    /// The status code is not 100 to 699.
    StatusCode,
    /// A header line is not `name: value`, or a line ends without CRLF.
    HeaderLine,
    /// The header section does not end.
    HeadUnterminated,
    /// The header section is longer than the limit.
    HeadTooLong,
    /// More header fields, or more Via values, than the limit.
    TooManyHeaders,
    /// Content-Length is no number.
    ContentLength,
    /// Content-Length values differ: where the message ends is anyone's guess.
    LengthsDiffer,
    /// Content-Length is missing on a stream.
    LengthMissing,
    /// The body is shorter than Content-Length says.
    BodyTruncated,
    /// The body is longer than the limit.
    BodyTooLong,
    /// A header that must be there is not.
    HeaderMissing,
    /// A header that may stand once stands twice.
    HeaderRepeated,
    /// A header's value breaks its grammar.
    HeaderValue,
    /// The method of CSeq is not the method of the request.
    MethodMismatch,
}

impl Why {
    /// Every reason, for metric labels.
    pub const ALL: [Why; 17] = [
        Why::StartLine,
        Why::Version,
        Why::RequestUri,
        Why::StatusCode,
        Why::HeaderLine,
        Why::HeadUnterminated,
        Why::HeadTooLong,
        Why::TooManyHeaders,
        Why::ContentLength,
        Why::LengthsDiffer,
        Why::LengthMissing,
        Why::BodyTruncated,
        Why::BodyTooLong,
        Why::HeaderMissing,
        Why::HeaderRepeated,
        Why::HeaderValue,
        Why::MethodMismatch,
    ];

    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Why::StartLine => "start_line",
            Why::Version => "version",
            Why::RequestUri => "request_uri",
            Why::StatusCode => "status_code",
            Why::HeaderLine => "header_line",
            Why::HeadUnterminated => "head_unterminated",
            Why::HeadTooLong => "head_too_long",
            Why::TooManyHeaders => "too_many_headers",
            Why::ContentLength => "content_length",
            Why::LengthsDiffer => "lengths_differ",
            Why::LengthMissing => "length_missing",
            Why::BodyTruncated => "body_truncated",
            Why::BodyTooLong => "body_too_long",
            Why::HeaderMissing => "header_missing",
            Why::HeaderRepeated => "header_repeated",
            Why::HeaderValue => "header_value",
            Why::MethodMismatch => "method_mismatch",
        }
    }

    /// The status code of the answer.
    pub const fn code(self) -> u16 {
        match self {
            Why::Version => 505,
            Why::HeadTooLong | Why::TooManyHeaders => 513,
            Why::BodyTooLong => 413,
            _ => 400,
        }
    }

    /// The family of the fault.
    pub const fn fault(self) -> Fault {
        match self {
            Why::Version => Fault::Unsupported,
            Why::HeadTooLong | Why::TooManyHeaders | Why::BodyTooLong => Fault::Refused,
            _ => Fault::Malformed,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A message that is refused. Count it under [`Why::label`]; hand it to the stack as
/// [`crate::Input::Malformed`], or send the answer yourself, or neither.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{why}: {detail}")]
pub struct Malformed {
    /// What is wrong.
    pub why: Why,
    /// The same in words, without any of the peer's octets.
    pub detail: &'static str,
    /// The answer, when it was a request (never an ACK) whose Via and CSeq were there: by these its sender
    /// finds the transaction (RFC 3261 §17.1.3). Responses are dropped.
    pub answer: Option<Box<Response>>,
    /// On a stream: where the next message begins is unknown, so the connection must be closed.
    pub fatal: bool,
}

impl Malformed {
    pub(crate) fn silent(why: Why, detail: &'static str) -> Malformed {
        Malformed { why, detail, answer: None, fatal: true }
    }

    /// With an answer if the headers suffice for one.
    pub(crate) fn answered(why: Why, detail: &'static str, method: &[u8], headers: &Headers) -> Malformed {
        Malformed { why, detail, answer: answer(why, method, headers).map(Box::new), fatal: true }
    }
}

/// RFC 3261 §8.2.7: what a stateless server answers; the To tag is the same for each retransmission.
fn answer(why: Why, method: &[u8], headers: &Headers) -> Option<Response> {
    if method == b"ACK" || method.is_empty() {
        return None;
    }
    if !headers.has(&Name::Via) || !headers.has(&Name::CSeq) {
        return None;
    }
    let mut copied = Headers::new();
    for name in [Name::Via, Name::From, Name::To, Name::CallId, Name::CSeq] {
        copied.copy(headers, &name);
    }
    let code = why.code();
    let mut response =
        Response { code, reason: phrase(code).to_owned(), headers: copied, body: Default::default() };
    response.set_to_tag(&stateless_tag(headers));
    Some(response)
}

/// A tag that the same request gives again.
pub(crate) fn stateless_tag(headers: &Headers) -> String {
    let mut hash = Sha256::new();
    for name in [Name::Via, Name::From, Name::CallId, Name::CSeq] {
        hash.update(headers.first(&name).unwrap_or_default());
        hash.update([0]);
    }
    hex::encode(hash.finalize().get(..8).unwrap_or_default())
}
