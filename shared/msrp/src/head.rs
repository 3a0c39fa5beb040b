//! The head of a request or response: start line and header lines, as views over the bytes read.
//!
//! RFC 4975 §7, §9. What is read here is only what every hop needs; the rest of the lines is kept as it came
//! and can be walked and forwarded. To-Path and From-Path should come first and Content-Type last (RFC 4975
//! §7.1); peers that order their lines otherwise are understood, peers that repeat a line that rules routing
//! are not.

use std::fmt;

use base::Fault;
use bytes::Bytes;
use thiserror::Error;

use crate::path::PathRef;
use crate::report::parse_success;
use crate::tid::is_ident;
use crate::{ByteRange, FailureReport, Limits, Status, Tid, UriError};

/// What kind of message a start line opens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// A request.
    Request(Method),
    /// A response.
    Response(Status),
}

/// The method of a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Method {
    /// RFC 4975 §7.1.
    Send,
    /// RFC 4975 §7.1.2.
    Report,
    /// RFC 4976 §5.
    Auth,
    /// RFC 7701 §7.
    Nickname,
    /// Any other; its name is [`Head::method_name`].
    Other,
}

impl Method {
    /// The name on the wire; empty for [`Method::Other`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Method::Send => "SEND",
            Method::Report => "REPORT",
            Method::Auth => "AUTH",
            Method::Nickname => "NICKNAME",
            Method::Other => "",
        }
    }
}

/// Why a head is bad although its frame is whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Error)]
pub enum BadReason {
    /// Neither a method nor a status code in the start line.
    #[error("bad start line")]
    Start,
    /// A line without a colon, or a folded one.
    #[error("bad header line")]
    Line,
    /// A line that may stand once stands twice.
    #[error("repeated header")]
    Repeated,
    /// No To-Path or no From-Path.
    #[error("no path")]
    NoPath,
    /// A URI in a path does not parse.
    #[error("bad URI")]
    Uri,
    /// More URIs than the limit.
    #[error("path too long")]
    PathTooLong,
    /// A SEND or REPORT without a Message-ID, or one that is no ident.
    #[error("bad Message-ID")]
    MessageId,
    /// Byte-Range does not parse.
    #[error("bad Byte-Range")]
    ByteRange,
    /// A report header has an unknown value.
    #[error("bad report value")]
    Report,
    /// A REPORT without a Status, or one that does not parse.
    #[error("bad Status")]
    Status,
    /// A body without a Content-Type.
    #[error("no Content-Type")]
    NoContentType,
}

impl BadReason {
    /// Every reason, for metric labels.
    pub const ALL: [BadReason; 11] = [
        BadReason::Start,
        BadReason::Line,
        BadReason::Repeated,
        BadReason::NoPath,
        BadReason::Uri,
        BadReason::PathTooLong,
        BadReason::MessageId,
        BadReason::ByteRange,
        BadReason::Report,
        BadReason::Status,
        BadReason::NoContentType,
    ];

    /// The label in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            BadReason::Start => "start",
            BadReason::Line => "line",
            BadReason::Repeated => "repeated",
            BadReason::NoPath => "no_path",
            BadReason::Uri => "uri",
            BadReason::PathTooLong => "path_too_long",
            BadReason::MessageId => "message_id",
            BadReason::ByteRange => "byte_range",
            BadReason::Report => "report",
            BadReason::Status => "status",
            BadReason::NoContentType => "no_content_type",
        }
    }
}

/// A message whose frame is whole and whose head is bad. The framer skips its body; the connection lives on.
#[derive(Clone, Debug)]
pub struct Bad {
    /// What is wrong.
    pub reason: BadReason,
    /// What could be read; lines after the bad one are missing.
    pub head: Head,
}

impl Bad {
    /// Always [`Fault::Malformed`].
    pub const fn fault(&self) -> Fault {
        Fault::Malformed
    }

    /// The 400 to answer with: `None` for responses and REPORTs, for a SEND that wants no answer, and when no
    /// path back could be read (RFC 4975 §7.2, §10.2).
    pub fn answer(&self) -> Option<Bytes> {
        if self.head.to_path().as_str().is_empty() || self.head.from_path().as_str().is_empty() {
            return None;
        }
        crate::response(&self.head, Status::BAD_REQUEST)
    }
}

/// A part of the block. A head is at most 65535 octets long.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Span {
    from: u16,
    to: u16,
}

impl Span {
    fn range(self) -> std::ops::Range<usize> {
        usize::from(self.from)..usize::from(self.to)
    }

    fn is_set(self) -> bool {
        self.to != 0
    }
}

/// The head of one message. Cloning shares the bytes.
#[derive(Clone)]
pub struct Head {
    block: Bytes,
    tid: Tid,
    start: Start,
    word: Span,
    lines: u16,
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
    /// Reads a block: the start line and the header lines, each with its CRLF, without the empty line or the
    /// end-line. `tid` is that of the start line, which the framer had to read before.
    pub(crate) fn parse(block: Bytes, tid: Tid, has_body: bool, limits: &Limits) -> Result<Head, Box<Bad>> {
        let mut head = Head {
            block,
            tid,
            start: Start::Request(Method::Other),
            word: Span::default(),
            lines: 0,
            to_path: Span::default(),
            from_path: Span::default(),
            message_id: Span::default(),
            content_type: Span::default(),
            byte_range: None,
            status: None,
            failure_report: FailureReport::Yes,
            success_report: false,
            has_body,
        };
        match head.read_start().and_then(|()| head.read_lines(limits)).and_then(|()| head.check()) {
            Ok(()) => Ok(head),
            Err(reason) => Err(Box::new(Bad { reason, head })),
        }
    }

    fn read_start(&mut self) -> Result<(), BadReason> {
        let end = line_end(&self.block, 0).ok_or(BadReason::Start)?;
        self.lines = u16::try_from(end + 2).unwrap_or(u16::MAX);
        // "MSRP", a blank, the transaction id, a blank.
        let from = 4 + 1 + self.tid.as_bytes().len() + 1;
        let rest = self.block.get(from..end).ok_or(BadReason::Start)?;
        let word_len = memchr::memchr(b' ', rest).unwrap_or(rest.len());
        let word = rest.get(..word_len).ok_or(BadReason::Start)?;
        if let Some(status) = Status::parse(word) {
            self.start = Start::Response(status);
            return Ok(());
        }
        if word.is_empty() || word_len != rest.len() || !word.iter().all(u8::is_ascii_uppercase) {
            return Err(BadReason::Start);
        }
        self.start = Start::Request(match word {
            b"SEND" => Method::Send,
            b"REPORT" => Method::Report,
            b"AUTH" => Method::Auth,
            b"NICKNAME" => Method::Nickname,
            _ => Method::Other,
        });
        self.word = span(from, end);
        Ok(())
    }

    fn read_lines(&mut self, limits: &Limits) -> Result<(), BadReason> {
        let block = self.block.clone();
        let mut at = usize::from(self.lines);
        // The report headers may stand once, too; the bits remember those that leave no span.
        let (mut success_seen, mut failure_seen) = (false, false);
        let mut worst = Ok(());
        while let Some(end) = line_end(&block, at) {
            let line = block.get(at..end).unwrap_or_default();
            match split_line(line) {
                Some((name, value)) => {
                    let from = at + value.start;
                    let value_span = span(from, at + value.end);
                    let text = block.get(value_span.range()).unwrap_or_default();
                    let read =
                        self.read_line(name, text, value_span, limits, &mut success_seen, &mut failure_seen);
                    worst = worst.and(read);
                }
                None => worst = worst.and(Err(BadReason::Line)),
            }
            at = end + 2;
        }
        worst
    }

    /// One header line. A bad one does not hide the later ones: the answer needs the paths.
    fn read_line(
        &mut self,
        name: &[u8],
        value: &[u8],
        at: Span,
        limits: &Limits,
        success_seen: &mut bool,
        failure_seen: &mut bool,
    ) -> Result<(), BadReason> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        // The length keeps the usual line to one or two comparisons.
        match name.len() {
            7 if is("To-Path") => {
                once(self.to_path.is_set())?;
                check_path(value, limits)?;
                self.to_path = at;
            }
            9 if is("From-Path") => {
                once(self.from_path.is_set())?;
                check_path(value, limits)?;
                self.from_path = at;
            }
            10 if is("Message-ID") => {
                once(self.message_id.is_set())?;
                if !is_ident(value) {
                    return Err(BadReason::MessageId);
                }
                self.message_id = at;
            }
            10 if is("Byte-Range") => {
                once(self.byte_range.is_some())?;
                self.byte_range = Some(ByteRange::parse(value).map_err(|_| BadReason::ByteRange)?);
            }
            12 if is("Content-Type") => {
                once(self.content_type.is_set())?;
                if value.is_empty() {
                    return Err(BadReason::NoContentType);
                }
                self.content_type = at;
            }
            14 if is("Success-Report") => {
                once(std::mem::replace(success_seen, true))?;
                self.success_report = parse_success(value).map_err(|_| BadReason::Report)?;
            }
            14 if is("Failure-Report") => {
                once(std::mem::replace(failure_seen, true))?;
                self.failure_report = FailureReport::parse(value).map_err(|_| BadReason::Report)?;
            }
            6 if is("Status") => {
                once(self.status.is_some())?;
                self.status = Status::parse_header(value).ok_or(BadReason::Status)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// What must be there (RFC 4975 §7.1, §7.1.2, §7.2).
    fn check(&self) -> Result<(), BadReason> {
        if !self.to_path.is_set() || !self.from_path.is_set() {
            return Err(BadReason::NoPath);
        }
        let method = match self.start {
            Start::Request(method) => method,
            Start::Response(_) => return Ok(()),
        };
        if matches!(method, Method::Send | Method::Report) && !self.message_id.is_set() {
            return Err(BadReason::MessageId);
        }
        if method == Method::Report && self.status.is_none() && self.header(b"Status").is_none() {
            return Err(BadReason::Status);
        }
        if self.has_body && !self.content_type.is_set() {
            return Err(BadReason::NoContentType);
        }
        Ok(())
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
        self.to_path().first().and_then(|uri| uri.session())
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
        Headers { rest: self.block.get(usize::from(self.lines)..).unwrap_or_default() }
    }

    /// The lines that a hop that rewrites the head has no word of its own for, in order: unknown ones and the
    /// MIME headers, without Content-Type. They are to be forwarded (RFC 4975 §9, ext-header; §7.1).
    pub fn others(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.headers()
            .filter(|(name, _)| !KNOWN.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes())))
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

/// Walks header lines.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let end = line_end(self.rest, 0)?;
            let line = self.rest.get(..end)?;
            self.rest = self.rest.get(end + 2..)?;
            if let Some((name, value)) = split_line(line) {
                return Some((name, line.get(value)?));
            }
        }
    }
}

fn once(seen: bool) -> Result<(), BadReason> {
    if seen { Err(BadReason::Repeated) } else { Ok(()) }
}

fn check_path(value: &[u8], limits: &Limits) -> Result<(), BadReason> {
    let text = std::str::from_utf8(value).map_err(|_| BadReason::Uri)?;
    match PathRef::parse(text, limits.path_uris_max) {
        Ok(_) => Ok(()),
        Err(UriError::TooMany) => Err(BadReason::PathTooLong),
        Err(_) => Err(BadReason::Uri),
    }
}

fn span(from: usize, to: usize) -> Span {
    // The framer bounds a head to 65535 octets.
    let cut = |n| u16::try_from(n).unwrap_or(u16::MAX);
    Span { from: cut(from), to: cut(to) }
}

/// Where the line that begins at `at` ends, without its CRLF. The framer has checked that each LF follows a CR.
fn line_end(block: &[u8], at: usize) -> Option<usize> {
    let lf = memchr::memchr(b'\n', block.get(at..)?)?;
    (at + lf).checked_sub(1)
}

/// Name and the place of the value, blanks around it cut.
fn split_line(line: &[u8]) -> Option<(&[u8], std::ops::Range<usize>)> {
    let colon = memchr::memchr(b':', line)?;
    let name = line.get(..colon)?;
    let is_name = !name.is_empty() && name.iter().all(|c| c.is_ascii_graphic());
    let blank = |c: &u8| matches!(c, b' ' | b'\t');
    let value = line.get(colon + 1..)?;
    let leading = value.iter().take_while(|c| blank(c)).count();
    let trailing = value.iter().skip(leading).rev().take_while(|c| blank(c)).count();
    is_name.then_some((name, colon + 1 + leading..line.len() - trailing))
}

/// quoted-string of RFC 4975 §9 with RFC 3261's escapes.
fn unquote(value: &[u8]) -> Option<String> {
    let inner = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let mut octets = Vec::with_capacity(inner.len());
    let mut escaped = false;
    for c in inner {
        match (escaped, c) {
            (false, b'\\') => escaped = true,
            (false, b'"') => return None,
            _ => {
                octets.push(*c);
                escaped = false;
            }
        }
    }
    if escaped { None } else { String::from_utf8(octets).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Event, Flag, Framer};

    /// Reads one message without a body and gives its head.
    fn head(text: &str) -> Head {
        let mut bytes = Bytes::from(text.replace('\n', "\r\n"));
        match Framer::new(Limits::default()).next(&mut bytes) {
            Ok(Some(Event::Head(head))) => head,
            other => panic!("{other:?}"),
        }
    }

    const PATHS: &str = "To-Path: msrp://b:2/y;tcp\nFrom-Path: msrp://r:3/z;tcp msrp://a:1/x;tcp\n";

    #[test]
    fn rfc4975_s9_what_a_head_says() {
        let head = head(&format!(
            "MSRP d93kswow SEND\n{PATHS}Message-ID: 12339sdqwer\nSuccess-Report: yes\nFailure-Report: partial\n\
             Byte-Range: 1-*/16\nX-Kept: \t as it is \nContent-ID: <1@x>\nCONTENT-TYPE: text/plain;charset=UTF-8\n-------d93kswow+\n"
        ));
        assert_eq!((head.method(), head.method_name()), (Some(Method::Send), "SEND"));
        assert_eq!((head.session(), head.tid().as_str()), (Some("y"), "d93kswow"));
        assert_eq!(head.from_path().uris().count(), 2);
        assert_eq!(head.message_id(), "12339sdqwer");
        assert!(head.success_report() && head.failure_report() == FailureReport::Partial);
        assert_eq!(head.byte_range().unwrap().to_string(), "1-*/16");
        assert_eq!(head.content_type(), Some("text/plain;charset=UTF-8"));
        assert_eq!(head.content_type_bytes().as_deref(), Some(&b"text/plain;charset=UTF-8"[..]));
        assert_eq!(head.header(b"x-kept"), Some(&b"as it is"[..]));
        let others: Vec<_> = head.others().map(|(name, _)| name).collect();
        assert_eq!(others, [&b"X-Kept"[..], b"Content-ID"]);
        assert_eq!(head.headers().count(), 9);
    }

    #[test]
    fn defaults_of_rfc4975_s7_1_1() {
        let head = head(&format!("MSRP abcd SEND\n{PATHS}Message-ID: abcd\n-------abcd$\n"));
        assert!(!head.success_report() && head.failure_report() == FailureReport::Yes);
        assert_eq!((head.byte_range(), head.content_type(), head.status()), (None, None, None));
        assert!(!head.has_body());
    }

    /// CPM-FACTS §3.7: seen in the field.
    #[test]
    fn lines_in_an_unexpected_order_are_understood() {
        let head = head(
            "MSRP abcd SEND\nContent-Type: a/b\nMessage-ID: abcd\nfrom-path: msrp://a:1/x;tcp\nto-path: msrp://b:2/y;tcp\n-------abcd$\n",
        );
        assert_eq!((head.session(), head.message_id()), (Some("y"), "abcd"));
    }

    #[test]
    fn responses_and_reports() {
        let answer = head(&format!("MSRP abcd 413 Stop, \u{fc}ber max\n{PATHS}-------abcd$\n"));
        assert_eq!((answer.start(), answer.method()), (Start::Response(Status::STOP), None));
        let bare = head(&format!("MSRP abcd 200\n{PATHS}-------abcd$\n"));
        assert_eq!(bare.start(), Start::Response(Status::OK));
        let report =
            head(&format!("MSRP abcd REPORT\n{PATHS}Message-ID: abcd\nStatus: 000 408 late\n-------abcd$\n"));
        assert_eq!(report.status(), Some(Status::TIMEOUT));
        // Another namespace is legal and says nothing.
        let other =
            head(&format!("MSRP abcd REPORT\n{PATHS}Message-ID: abcd\nStatus: 123 408\n-------abcd$\n"));
        assert_eq!(other.status(), None);
    }

    #[test]
    fn rfc7701_s7_use_nickname() {
        for (value, nickname) in [
            ("\"Alice\"", Some("Alice")),
            ("\"\"", Some("")),
            ("\"Al \\\"the\\\" \\\\ Gr\u{e4}t\"", Some("Al \"the\" \\ Gr\u{e4}t")),
            ("Alice", None),
            ("\"Alice", None),
            ("\"A\"B\"", None),
            ("\"A\\\"", None),
        ] {
            let head = head(&format!("MSRP abcd NICKNAME\n{PATHS}Use-Nickname: {value}\n-------abcd$\n"));
            assert_eq!(head.use_nickname().as_deref(), nickname, "{value}");
        }
    }

    #[test]
    fn a_head_that_straddles_reads_says_the_same() {
        let text =
            format!("MSRP abcd SEND\n{PATHS}Message-ID: abcd\nX: y\n-------abcd#\n").replace('\n', "\r\n");
        let whole = head(&text.replace("\r\n", "\n"));
        for at in 1..text.len() {
            let (mut a, mut b) = (Bytes::from(text[..at].to_owned()), Bytes::from(text[at..].to_owned()));
            let mut framer = Framer::new(Limits::default());
            assert!(framer.next(&mut a).unwrap().is_none());
            let Ok(Some(Event::Head(head))) = framer.next(&mut b) else { panic!("no head at {at}") };
            assert_eq!(head.block(), whole.block());
            assert_eq!(head.header(b"X"), Some(&b"y"[..]));
            assert!(matches!(framer.next(&mut b), Ok(Some(Event::End(Flag::Abort)))));
        }
    }

    #[test]
    fn nothing_of_a_subscriber_is_printed() {
        let head = head(&format!("MSRP abcd SEND\n{PATHS}Message-ID: secret12\n-------abcd$\n"));
        let text = format!("{head:?}");
        assert!(!text.contains("secret12") && !text.contains("msrp://"), "{text}");
    }
}
