//! Framing: where a message begins and ends, and the index of its header fields (RFC 3261 §7 and §18.3).
//!
//! Strict about what delimits: lines end with CRLF, the start line has single spaces, Content-Length is
//! decimal digits and says one thing. Blanks before the colon of a header are legal in SIP and accepted.
//! Typed readers judge the values later.

use bytes::{Bytes, BytesMut};

use crate::headers::{Field, Headers};
use crate::limits::Limits;
use crate::malformed::{Malformed, Why};
use crate::message::{Message, Request, Response};
use crate::method::Method;
use crate::name::{self, Name};
use crate::scan::{self, digits, is_blank, is_token};
use crate::uri::Uri;

/// Reads one datagram. `Ok(None)` is a keep-alive: empty, or line ends and zero octets only (RFC 5626 §3.5.1).
/// Octets after the body are ignored (RFC 3261 §18.3).
pub fn datagram(bytes: Bytes, limits: &Limits) -> Result<Option<Message>, Malformed> {
    let Some(start) = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n' | 0)) else {
        return Ok(None);
    };
    let bytes = if start == 0 { bytes } else { bytes.slice(start..) };
    let head = Head::read(&bytes, limits)?;
    let rest = bytes.len() - head.len;
    let body_len = match head.body_len {
        Ok(Some(len)) if len > limits.body_bytes_max => return Err(head.refuse(Why::BodyTooLong, "body")),
        Ok(Some(len)) if len > rest => {
            return Err(head.refuse(Why::BodyTruncated, "datagram ends before its body"));
        }
        Ok(Some(len)) => len,
        Ok(None) if rest > limits.body_bytes_max => return Err(head.refuse(Why::BodyTooLong, "body")),
        Ok(None) => rest,
        Err((why, detail)) => return Err(head.refuse(why, detail)),
    };
    let body = bytes.slice(head.len..head.len + body_len);
    head.message(body).map(Some)
}

/// A header section that was read; the body is still to come.
#[derive(Debug)]
pub(crate) struct Head {
    start_len: usize,
    headers: Headers,
    /// Bytes up to and with the empty line.
    pub(crate) len: usize,
    /// What Content-Length says.
    pub(crate) body_len: Result<Option<usize>, (Why, &'static str)>,
}

impl Head {
    /// Reads a header section that `bytes` begins with.
    pub(crate) fn read(bytes: &Bytes, limits: &Limits) -> Result<Head, Malformed> {
        let mut index = Index::new(bytes, limits);
        match index.run() {
            Ok(()) => Ok(Head::of(bytes.clone(), index)),
            Err(Stop::Fold) => {
                let unfolded = unfold(bytes, limits);
                let mut index = Index::new(&unfolded, limits);
                match index.run() {
                    Ok(()) => Ok(Head::of(unfolded.clone(), index)),
                    Err(stop) => Err(index.refuse(&unfolded, stop)),
                }
            }
            Err(stop) => Err(index.refuse(bytes, stop)),
        }
    }

    fn of(bytes: Bytes, index: Index<'_>) -> Head {
        let (start_len, len) = (index.start_len, index.at);
        // The whole message is kept, not only its head: a slice would cost a reference count and save nothing.
        let headers = Headers::indexed(bytes, index.fields);
        Head { start_len, len, body_len: content_length(&headers), headers }
    }

    fn start(&self) -> &[u8] {
        self.headers.raw().get(..self.start_len).unwrap_or_default()
    }

    /// The refusal of this message.
    pub(crate) fn refuse(&self, why: Why, detail: &'static str) -> Malformed {
        Malformed::answered(why, detail, method_of(self.start()), &self.headers)
    }

    /// The message with its body.
    pub(crate) fn message(self, body: Bytes) -> Result<Message, Malformed> {
        match start_line(self.start()) {
            Ok(Start::Request(method, uri)) => {
                Ok(Message::Request(Request { method, uri, headers: self.headers, body }))
            }
            Ok(Start::Response(code, reason)) => {
                Ok(Message::Response(Response { code, reason, headers: self.headers, body }))
            }
            Err((why, detail)) => Err(Malformed { fatal: false, ..self.refuse(why, detail) }),
        }
    }
}

/// The header fields of a body part, which have no start line, and how long they are with their empty line.
pub(crate) fn header_block(bytes: &Bytes, limits: &Limits) -> Option<(Headers, usize)> {
    if bytes.is_empty() {
        return Some((Headers::new(), 0));
    }
    let mut index = Index::new(bytes, limits);
    match index.fields() {
        Ok(()) => Some((Headers::indexed(bytes.slice(..index.at), index.fields), index.at)),
        Err(Stop::Fold) => {
            let unfolded = unfold(bytes, limits);
            let mut index = Index::new(&unfolded, limits);
            index.fields().ok()?;
            Some((Headers::indexed(unfolded.slice(..index.at), index.fields), index.at))
        }
        // The delimiter's line end may be the empty line, or the header's last line end too.
        Err(Stop::Bad(..)) => ["\r\n", "\r\n\r\n"].into_iter().find_map(|end| {
            let closed = Bytes::from([bytes, end.as_bytes()].concat());
            let mut index = Index::new(&closed, limits);
            index.fields().ok()?;
            (index.at == closed.len()).then(|| (Headers::indexed(closed.clone(), index.fields), bytes.len()))
        }),
    }
}

/// RFC 3261 §20.14: digits, nothing else; repeated only if it says the same.
fn content_length(headers: &Headers) -> Result<Option<usize>, (Why, &'static str)> {
    let mut found = None;
    for value in headers.fields(&Name::ContentLength) {
        let len = digits(value)
            .and_then(|n| usize::try_from(n).ok())
            .ok_or((Why::ContentLength, "Content-Length is no number"))?;
        if found.is_some_and(|before| before != len) {
            return Err((Why::LengthsDiffer, "Content-Length values differ"));
        }
        found = Some(len);
    }
    Ok(found)
}

enum Stop {
    Fold,
    Bad(Why, &'static str),
}

struct Index<'a> {
    bytes: &'a [u8],
    limits: &'a Limits,
    fields: Vec<Field>,
    start_len: usize,
    at: usize,
}

impl<'a> Index<'a> {
    fn new(bytes: &'a [u8], limits: &'a Limits) -> Self {
        let bytes = bytes.get(..limits.head_bytes_max).unwrap_or(bytes);
        Index { bytes, limits, fields: Vec::with_capacity(24), start_len: 0, at: 0 }
    }

    /// The line that begins at `at`, which is then behind its CRLF. A lone CR or LF is refused: two readers
    /// could disagree about it.
    fn line(&mut self) -> Result<(usize, &'a [u8]), Stop> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(end) = memchr::memchr2(b'\r', b'\n', rest) else { return Err(self.unterminated()) };
        let line = rest.get(..end).unwrap_or_default();
        match rest.get(end..) {
            Some([b'\r', b'\n', ..]) => {
                let at = self.at;
                self.at += end + 2;
                Ok((at, line))
            }
            Some([b'\r']) => Err(self.unterminated()),
            _ => Err(Stop::Bad(Why::HeaderLine, "line end that is not CRLF")),
        }
    }

    fn unterminated(&self) -> Stop {
        if self.bytes.len() >= self.limits.head_bytes_max {
            return Stop::Bad(Why::HeadTooLong, "header section");
        }
        Stop::Bad(Why::HeadUnterminated, "header section has no end")
    }

    fn run(&mut self) -> Result<(), Stop> {
        let (_, start) = self.line()?;
        self.start_len = start.len();
        self.fields()
    }

    fn fields(&mut self) -> Result<(), Stop> {
        loop {
            let (at, line) = self.line()?;
            if line.is_empty() {
                return Ok(());
            }
            if line.first().is_some_and(|b| is_blank(*b)) {
                return Err(Stop::Fold);
            }
            if self.fields.len() >= self.limits.headers_max {
                return Err(Stop::Bad(Why::TooManyHeaders, "header fields"));
            }
            self.fields.push(field(at, line).ok_or(Stop::Bad(Why::HeaderLine, "header line has no name"))?);
        }
    }

    fn refuse(self, bytes: &Bytes, stop: Stop) -> Malformed {
        let (why, detail) = match stop {
            Stop::Bad(why, detail) => (why, detail),
            Stop::Fold => (Why::HeaderLine, "fold"),
        };
        let start = self.bytes.get(..self.start_len).unwrap_or_default();
        Malformed::answered(why, detail, method_of(start), &Headers::indexed(bytes.clone(), self.fields))
    }
}

/// `name HCOLON value`. Blanks before the colon are legal (RFC 3261 §7.3.1).
fn field(at: usize, line: &[u8]) -> Option<Field> {
    let name_len = line.iter().position(|b| !is_token(*b))?;
    let (name, rest) = line.split_at_checked(name_len)?;
    let mut scan = scan::Scan::new(rest);
    scan.blanks();
    if name_len == 0 || !scan.eat(b':') {
        return None;
    }
    scan.blanks();
    let value = scan.rest();
    let value_at = at + (line.len() - value.len());
    Some(Field {
        name_at: u32::try_from(at).ok()?,
        at: u32::try_from(value_at).ok()?,
        len: u32::try_from(scan::trim(value).len()).ok()?,
        name_len: u16::try_from(name_len).ok()?,
        tag: name::tag_of(name),
        own: false,
    })
}

/// A copy in which each fold is blanks, so that no reader has to think of it (RFC 3261 §7.3.1: a fold is
/// equal to one SP). Lengths and offsets stay.
fn unfold(bytes: &Bytes, limits: &Limits) -> Bytes {
    let head_max = bytes.len().min(limits.head_bytes_max);
    let mut copy = BytesMut::from(bytes.get(..head_max).unwrap_or_default());
    let mut line_at = 0;
    while let Some(end) = copy.get(line_at..).and_then(|rest| memchr::memmem::find(rest, b"\r\n")) {
        if end == 0 {
            break;
        }
        let crlf = line_at + end;
        if let Some([cr, lf, next]) = copy.get_mut(crlf..crlf + 3)
            && is_blank(*next)
        {
            (*cr, *lf) = (b' ', b' ');
        }
        line_at = crlf + 2;
    }
    copy.freeze()
}

enum Start {
    Request(Method, Uri),
    Response(u16, String),
}

/// RFC 3261 §7.1 and §7.2: exactly one space between the elements.
fn start_line(line: &[u8]) -> Result<Start, (Why, &'static str)> {
    if line.get(..4).is_some_and(|p| p.eq_ignore_ascii_case(b"SIP/")) {
        return status_line(line);
    }
    let bad = |detail| (Why::StartLine, detail);
    let first = memchr::memchr(b' ', line).ok_or(bad("request line is one word"))?;
    let last =
        memchr::memrchr(b' ', line).filter(|last| *last > first).ok_or(bad("request line has no version"))?;
    let method = line.get(..first).and_then(Method::parse).ok_or(bad("method is no token"))?;
    version(line.get(last + 1..).unwrap_or_default())?;
    let uri = line.get(first + 1..last).unwrap_or_default();
    let uri = Uri::parse(uri).map_err(|e| (Why::RequestUri, e.0))?;
    Ok(Start::Request(method, uri))
}

fn version(text: &[u8]) -> Result<(), (Why, &'static str)> {
    if text.eq_ignore_ascii_case(b"SIP/2.0") {
        return Ok(());
    }
    let numbers = text.split_at_checked(4).filter(|(p, _)| p.eq_ignore_ascii_case(b"SIP/")).map(|(_, n)| n);
    let is_version = numbers
        .and_then(|n| Some((n, memchr::memchr(b'.', n)?)))
        .and_then(|(n, dot)| digits(n.get(..dot)?).and(digits(n.get(dot + 1..)?)))
        .is_some();
    if is_version {
        return Err((Why::Version, "SIP version is not 2.0"));
    }
    Err((Why::StartLine, "request line does not end with a version"))
}

fn status_line(line: &[u8]) -> Result<Start, (Why, &'static str)> {
    let space = memchr::memchr(b' ', line).ok_or((Why::StartLine, "status line is one word"))?;
    version(line.get(..space).unwrap_or_default())?;
    let rest = line.get(space + 1..).unwrap_or_default();
    let (code, reason) = match rest {
        [code @ .., b' '] if code.len() == 3 => (code, &[][..]),
        _ if rest.len() == 3 => (rest, &[][..]),
        _ => match rest.split_at_checked(3) {
            Some((code, [b' ', reason @ ..])) => (code, reason),
            _ => return Err((Why::StatusCode, "status code is not three digits")),
        },
    };
    let code = digits(code).and_then(|c| u16::try_from(c).ok()).filter(|c| (100..700).contains(c));
    let code = code.ok_or((Why::StatusCode, "status code is not 100 to 699"))?;
    Ok(Start::Response(code, scan::lossy(reason)))
}

/// The method of a request line, for deciding whether to answer; empty for status lines and for lines that
/// are no SIP at all.
fn method_of(start: &[u8]) -> &[u8] {
    let is_status = start.get(..4).is_some_and(|p| p.eq_ignore_ascii_case(b"SIP/"));
    let end = memchr::memchr(b' ', start).unwrap_or(0);
    start.get(..end).filter(|_| !is_status).unwrap_or_default()
}

#[cfg(test)]
mod tests;
