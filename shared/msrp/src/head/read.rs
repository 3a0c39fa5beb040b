//! Reads a head: what must be there and what may stand once (RFC 4975 §7.1, §7.1.2, §7.2, §9).

use bytes::Bytes;

use super::lines::{Span, line_end, span, split_line};
use super::{Bad, BadReason, Head, Method, Start};
use crate::path::PathRef;
use crate::report::parse_success;
use crate::tid::is_ident;
use crate::{ByteRange, FailureReport, Limits, Status, Tid, UriError};

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
            session: Span::default(),
            has_others: false,
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
        self.start = Start::Request(Method::of(word));
        self.word = span(from, end);
        Ok(())
    }

    fn read_lines(&mut self, limits: &Limits) -> Result<(), BadReason> {
        let block = std::mem::take(&mut self.block);
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
        self.block = block;
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
                self.session = session_of(value, at).unwrap_or_default();
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
            _ => self.has_others = true,
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
}

/// Where the session id of the first URI of a good path stands that begins at `at`.
fn session_of(path: &[u8], at: Span) -> Option<Span> {
    let begin = memchr::memchr(b':', path)? + "://".len();
    let end = begin + memchr::memchr(b';', path.get(begin..)?)?;
    let from = begin + memchr::memchr(b'/', path.get(begin..end)?)? + 1;
    let start = at.range().start;
    Some(span(start + from, start + end))
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
