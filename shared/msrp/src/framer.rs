//! Cuts a stream of bytes into heads, spans of bodies and end-lines (RFC 4975 §7, §9).
//!
//! ```text
//!            head, empty line          CRLF end-line
//!  ┌─► Head ───────────────► Body ───────────────────┐
//!  │    │ head, end-line       (Skip: the same for   │
//!  │    ▼                       a head that is bad)  │
//!  └── End ◄─────────────────────────────────────────┘
//!  any ── bytes that end the framing ──► Broken: close the connection
//! ```
//!
//! A head that lies in one read is a view of it; one that straddles reads is copied together, at most
//! `head_max` octets. Bodies are never copied: each span is a slice of the read that brought it. Only the few
//! octets that might begin an end-line are held back, as a count into the known pattern, because what they are
//! is known.

use std::sync::LazyLock;

use base::Fault;
use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem;
use thiserror::Error;

use crate::head::{Bad, Head};
use crate::{Flag, Limits, Method, Tid};

/// What the stream held next.
#[derive(Clone, Debug)]
pub enum Event {
    /// A message begins. [`Event::Body`] spans may follow, then [`Event::End`].
    Head(Head),
    /// The next octets of the body: a slice of the read.
    Body(Bytes),
    /// The message's end-line.
    End(Flag),
    /// A message whose head is bad. Nothing more comes of it; the next event is of the next message.
    Bad(Box<Bad>),
}

/// The bytes cannot be framed any longer: close the connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Error)]
pub enum Broken {
    /// Not `MSRP` and a transaction id.
    #[error("not an MSRP start line")]
    Start,
    /// A line that does not end with CRLF.
    #[error("bad line end")]
    LineEnd,
    /// A head without an end within the limit.
    #[error("head too long")]
    HeadTooLong,
    /// An end-line of another transaction, or no legal one, where headers should be.
    #[error("bad end-line")]
    EndLine,
    /// A request other than SEND with too long a body.
    #[error("body too long")]
    BodyTooLong,
}

impl Broken {
    /// Every reason, for metric labels.
    pub const ALL: [Broken; 5] =
        [Broken::Start, Broken::LineEnd, Broken::HeadTooLong, Broken::EndLine, Broken::BodyTooLong];

    /// The label in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Broken::Start => "start",
            Broken::LineEnd => "line_end",
            Broken::HeadTooLong => "head_too_long",
            Broken::EndLine => "end_line",
            Broken::BodyTooLong => "body_too_long",
        }
    }

    /// The family: limits refuse, all else is malformed.
    pub const fn fault(self) -> Fault {
        match self {
            Broken::HeadTooLong | Broken::BodyTooLong => Fault::Refused,
            Broken::Start | Broken::LineEnd | Broken::EndLine => Fault::Malformed,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// In a head: its first `line` octets are whole lines that were looked at.
    Head { line: usize, tid: Option<Tid> },
    /// In a body whose first octets of an end-line may have been seen.
    Body(Tail),
    /// The head without a body has been given out, its end-line comes next.
    End(Flag),
    /// Nothing is read any more.
    Broken(Broken),
}

/// Where in the end-line's pattern the stream stands.
#[derive(Clone, Copy, Debug)]
struct Tail {
    tid: Tid,
    /// Octets of the pattern that have been seen.
    matched: usize,
    /// The pattern's first two octets were those of the empty line before the body, not of the body.
    borrowed: bool,
    /// The flag that was seen, once `matched` is past it.
    flag: Flag,
    /// Give nothing out.
    skip: bool,
    /// Octets that the body may still have.
    left: u64,
}

/// What opens every end-line that follows a body.
const OPENING: &[u8] = b"\r\n-------";

static FIND_OPENING: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(OPENING));

/// The framer of one connection's incoming direction.
#[derive(Debug)]
pub struct Framer {
    limits: Limits,
    state: State,
    /// The part of a head that came with earlier reads.
    carry: BytesMut,
}

impl Framer {
    /// A framer at the start of a stream.
    pub fn new(limits: Limits) -> Self {
        Framer { limits, state: State::Head { line: 0, tid: None }, carry: BytesMut::new() }
    }

    /// Takes from `input` what the next event needs. `None`: everything was taken, read more. After an error
    /// each call gives the same error.
    ///
    /// ```
    /// # use bytes::Bytes;
    /// # use msrp::{Event, Flag, Framer, Limits};
    /// let mut framer = Framer::new(Limits::default());
    /// let mut read = Bytes::from_static(
    ///     b"MSRP a786 200 OK\r\nTo-Path: msrp://a:1/x;tcp\r\nFrom-Path: msrp://b:2/y;tcp\r\n-------a786$\r\n",
    /// );
    /// let mut events = Vec::new();
    /// while let Some(event) = framer.next(&mut read)? {
    ///     events.push(event);
    /// }
    /// assert!(matches!(events[..], [Event::Head(_), Event::End(Flag::Last)]));
    /// # Ok::<(), msrp::Broken>(())
    /// ```
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Event>, Broken> {
        loop {
            let step = match self.state {
                State::Head { line, tid } => self.head(line, tid, input),
                State::Body(tail) => self.body(tail, input),
                State::End(flag) => {
                    self.state = State::Head { line: 0, tid: None };
                    return Ok(Some(Event::End(flag)));
                }
                State::Broken(why) => Err(why),
            };
            match step {
                Ok(Step::Event(event)) => return Ok(Some(event)),
                Ok(Step::Again) => {}
                Ok(Step::More) => return Ok(None),
                Err(why) => {
                    self.state = State::Broken(why);
                    self.carry = BytesMut::new();
                    return Err(why);
                }
            }
        }
    }

    /// True between messages: a connection may end here without cutting one off.
    pub fn is_between(&self) -> bool {
        matches!(self.state, State::Head { line: 0, .. }) && self.carry.is_empty()
    }

    /// Octets that are held until the rest of a head arrives.
    pub fn held(&self) -> usize {
        self.carry.len()
    }

    fn head(&mut self, line: usize, tid: Option<Tid>, input: &mut Bytes) -> Result<Step, Broken> {
        if input.is_empty() {
            return Ok(Step::More);
        }
        let max = self.limits.head_octets();
        if self.carry.is_empty() {
            match scan(input, line, tid, max)? {
                Scan::End { lines, whole, tid, flag } => {
                    let mut block = input.split_to(whole);
                    block.truncate(lines);
                    Ok(self.begin(block, tid, flag))
                }
                Scan::More { line, tid } => {
                    self.carry.extend_from_slice(input);
                    input.clear();
                    self.state = State::Head { line, tid };
                    Ok(Step::More)
                }
            }
        } else {
            // One line at a time, so that nothing beyond the head is copied.
            let take = memchr::memchr(b'\n', input).map_or(input.len(), |lf| lf + 1);
            let take = take.min(max.saturating_sub(self.carry.len()));
            self.carry.extend_from_slice(&input.split_to(take));
            match scan(&self.carry, line, tid, max)? {
                Scan::End { lines, tid, flag, .. } => {
                    let mut block = std::mem::take(&mut self.carry).freeze();
                    block.truncate(lines);
                    Ok(self.begin(block, tid, flag))
                }
                Scan::More { line, tid } => {
                    self.state = State::Head { line, tid };
                    Ok(Step::Again)
                }
            }
        }
    }

    /// A block is whole: `flag` is that of the end-line which closed it, `None` when a body follows.
    fn begin(&mut self, block: Bytes, tid: Tid, flag: Option<Flag>) -> Step {
        let parsed = Head::parse(block, tid, flag.is_none(), &self.limits);
        let is_send = |head: &Head| head.method() == Some(Method::Send);
        self.state = match (flag, &parsed) {
            (Some(flag), Ok(_)) => State::End(flag),
            (Some(_), Err(_)) => State::Head { line: 0, tid: None },
            (None, parsed) => {
                let unbounded = parsed.as_ref().is_ok_and(is_send)
                    || parsed.as_ref().is_err_and(|bad| is_send(&bad.head));
                State::Body(Tail {
                    tid,
                    matched: 2,
                    borrowed: true,
                    flag: Flag::Last,
                    skip: parsed.is_err(),
                    left: if unbounded { u64::MAX } else { self.limits.other_body_max },
                })
            }
        };
        match parsed {
            Ok(head) => Step::Event(Event::Head(head)),
            Err(bad) => Step::Event(Event::Bad(bad)),
        }
    }

    fn body(&mut self, mut tail: Tail, input: &mut Bytes) -> Result<Step, Broken> {
        if tail.is_whole() {
            return Ok(self.finish(tail));
        }
        if input.is_empty() {
            return Ok(Step::More);
        }
        let span = if tail.matched > 0 {
            tail.follow(input)
        } else {
            let found = tail.search(input);
            let span = input.split_to(found.body);
            input.advance(found.pattern);
            (tail.matched, tail.flag) = (found.pattern, found.flag);
            span
        };
        // The span goes out first; a whole end-line is seen again by the next call.
        self.state = State::Body(tail);
        if span.is_empty() { Ok(Step::Again) } else { self.span(tail, span) }
    }

    /// Gives out octets of the body, or counts them only.
    fn span(&mut self, tail: Tail, span: Bytes) -> Result<Step, Broken> {
        let left = tail.left.checked_sub(span.len() as u64).ok_or(Broken::BodyTooLong)?;
        self.state = State::Body(Tail { left, ..tail });
        Ok(if tail.skip { Step::Again } else { Step::Event(Event::Body(span)) })
    }

    fn finish(&mut self, tail: Tail) -> Step {
        self.state = State::Head { line: 0, tid: None };
        if tail.skip { Step::Again } else { Step::Event(Event::End(tail.flag)) }
    }
}

/// What a step of the framer came to.
enum Step {
    Event(Event),
    /// Nothing to tell yet, but there may be more to take.
    Again,
    /// The input is used up.
    More,
}

/// What the first octets of a head tell.
enum Scan {
    /// The header lines end at `lines`, the empty line or end-line at `whole`.
    End { lines: usize, whole: usize, tid: Tid, flag: Option<Flag> },
    /// The end has not come; lines up to `line` are known to be good.
    More { line: usize, tid: Option<Tid> },
}

/// Looks for the end of a head that begins at the first octet, going on at `line`.
fn scan(head: &[u8], mut line: usize, mut tid: Option<Tid>, max: usize) -> Result<Scan, Broken> {
    let window = head.get(..max.min(head.len())).unwrap_or_default();
    loop {
        let rest = window.get(line..).unwrap_or_default();
        let end = memchr::memchr2(b'\r', b'\n', rest);
        let (text, next) = match end.and_then(|end| rest.get(..end).zip(rest.get(end..))) {
            Some((text, [b'\r', b'\n', ..])) => (text, line + text.len() + 2),
            Some((_, [b'\r'])) | None => {
                if tid.is_none() && !START.starts_with(rest.get(..START.len()).unwrap_or(rest)) {
                    return Err(Broken::Start);
                }
                let full = head.len() >= max;
                return if full { Err(Broken::HeadTooLong) } else { Ok(Scan::More { line, tid }) };
            }
            Some(_) => return Err(Broken::LineEnd),
        };
        match tid {
            None => tid = Some(start_line(text)?),
            Some(tid) if text.is_empty() => {
                return Ok(Scan::End { lines: line, whole: next, tid, flag: None });
            }
            Some(tid) => {
                if let Some(rest) = text.strip_prefix(HYPHENS) {
                    let flag = end_line_flag(rest, &tid).ok_or(Broken::EndLine)?;
                    return Ok(Scan::End { lines: line, whole: next, tid, flag: Some(flag) });
                }
            }
        }
        line = next;
    }
}

const START: &[u8] = b"MSRP ";
const HYPHENS: &[u8] = b"-------";

/// The transaction id of a start line; the rest of the line is the head's business.
fn start_line(text: &[u8]) -> Result<Tid, Broken> {
    let rest = text.strip_prefix(START).ok_or(Broken::Start)?;
    let end = memchr::memchr(b' ', rest).ok_or(Broken::Start)?;
    Tid::parse(rest.get(..end).unwrap_or_default()).map_err(|_| Broken::Start)
}

fn end_line_flag(rest: &[u8], tid: &Tid) -> Option<Flag> {
    match rest.strip_prefix(tid.as_bytes())? {
        [flag] => Flag::from_octet(*flag),
        _ => None,
    }
}

/// Octets of body, then octets of the pattern, whole or as far as the input goes.
struct Found {
    body: usize,
    pattern: usize,
    flag: Flag,
}

impl Tail {
    /// The pattern is: CRLF, seven hyphens, the transaction id, a flag, CRLF.
    fn len(&self) -> usize {
        OPENING.len() + self.tid.as_bytes().len() + 3
    }

    fn is_whole(&self) -> bool {
        self.matched == self.len()
    }

    /// Whether `octet` can stand at place `at` of the pattern.
    fn fits(&self, at: usize, octet: u8) -> bool {
        let tid = self.tid.as_bytes();
        if let Some(expected) = OPENING.get(at) {
            return *expected == octet;
        }
        let at = at - OPENING.len();
        match tid.get(at) {
            Some(expected) => *expected == octet,
            None => match at - tid.len() {
                0 => Flag::from_octet(octet).is_some(),
                1 => octet == b'\r',
                _ => octet == b'\n',
            },
        }
    }

    /// Takes octets as long as they follow the pattern. When one does not, what was held back proves to be
    /// body and comes back, and the pattern begins anew: with the last CR if that was the last octet seen (the
    /// only place where the pattern can begin inside itself), else with the octet that did not fit.
    fn follow(&mut self, input: &mut Bytes) -> Bytes {
        let flag_place = self.len() - 3;
        let mut taken = 0;
        for octet in input.iter().take(self.len() - self.matched) {
            if !self.fits(self.matched, *octet) {
                input.advance(taken);
                return self.give_back();
            }
            if self.matched == flag_place {
                self.flag = Flag::from_octet(*octet).unwrap_or(Flag::Last);
            }
            self.matched += 1;
            taken += 1;
        }
        input.advance(taken);
        Bytes::new()
    }

    /// The octets held back, written anew from the pattern.
    fn give_back(&mut self) -> Bytes {
        let again = usize::from(self.matched + 1 == self.len());
        let mut held = BytesMut::with_capacity(self.matched);
        held.extend_from_slice(OPENING);
        held.extend_from_slice(self.tid.as_bytes());
        held.extend_from_slice(&[self.flag.octet(), b'\r']);
        held.truncate(self.matched - again);
        if self.borrowed {
            held.advance(2);
        }
        (self.matched, self.borrowed) = (again, false);
        held.freeze()
    }

    /// Looks for the end-line in octets of the body.
    fn search(&self, input: &[u8]) -> Found {
        let mut from = 0;
        while let Some(at) = input.get(from..).and_then(|rest| FIND_OPENING.find(rest)) {
            let begin = from + at;
            let candidate = input.get(begin..).unwrap_or_default();
            let fitting =
                candidate.iter().take(self.len()).enumerate().take_while(|(i, c)| self.fits(*i, **c)).count();
            if fitting == candidate.len().min(self.len()) {
                let flag = candidate.get(self.len() - 3).and_then(|c| Flag::from_octet(*c));
                return Found { body: begin, pattern: fitting, flag: flag.unwrap_or(Flag::Last) };
            }
            from = begin + OPENING.len();
        }
        let edge =
            (1..OPENING.len()).rev().find(|n| OPENING.get(..*n).is_some_and(|start| input.ends_with(start)));
        let pattern = edge.unwrap_or(0);
        Found { body: input.len() - pattern, pattern, flag: Flag::Last }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BadReason;
    use proptest::prelude::*;

    /// A message as a reader sees it, whatever the reads were.
    #[derive(Clone, PartialEq, Debug)]
    enum Seen {
        Message { block: Bytes, body: Vec<u8>, flag: Flag },
        Bad(BadReason),
    }

    /// Feeds the reads and puts bodies together. The last error ends it.
    fn read(limits: Limits, reads: impl IntoIterator<Item = Bytes>) -> (Vec<Seen>, Result<bool, Broken>) {
        let mut framer = Framer::new(limits);
        let (mut seen, mut open) = (Vec::new(), None);
        for mut input in reads {
            loop {
                match framer.next(&mut input) {
                    Ok(Some(Event::Head(head))) => assert!(open.replace((head, Vec::new())).is_none()),
                    Ok(Some(Event::Body(span))) => {
                        assert!(!span.is_empty());
                        open.as_mut().unwrap().1.extend_from_slice(&span);
                    }
                    Ok(Some(Event::End(flag))) => {
                        let (head, body) = open.take().unwrap();
                        assert!(head.has_body() || body.is_empty());
                        seen.push(Seen::Message { block: head.block().clone(), body, flag });
                    }
                    Ok(Some(Event::Bad(bad))) => seen.push(Seen::Bad(bad.reason)),
                    Ok(None) => {
                        assert!(input.is_empty() && framer.held() <= limits.head_octets());
                        break;
                    }
                    Err(why) => {
                        assert_eq!(framer.next(&mut input).unwrap_err(), why);
                        return (seen, Err(why));
                    }
                }
            }
        }
        (seen, Ok(framer.is_between()))
    }

    fn one(bytes: &[u8]) -> (Vec<Seen>, Result<bool, Broken>) {
        read(Limits::default(), [Bytes::copy_from_slice(bytes)])
    }

    const HEAD: &str = "MSRP d93kswow SEND\r\nTo-Path: msrp://b.example.com:8888/9di4eae923wzd;tcp\r\n\
                        From-Path: msrp://a.example.com:7777/iau39soe2843z;tcp\r\nMessage-ID: 12339sdqwer\r\n\
                        Byte-Range: 1-16/16\r\n";

    fn send(body: &[u8], flag: char) -> Vec<u8> {
        let mut bytes = format!("{HEAD}Content-Type: text/plain\r\n\r\n").into_bytes();
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(format!("\r\n-------d93kswow{flag}\r\n").as_bytes());
        bytes
    }

    fn bodies(seen: &[Seen]) -> Vec<&[u8]> {
        seen.iter()
            .filter_map(|s| if let Seen::Message { body, .. } = s { Some(&body[..]) } else { None })
            .collect()
    }

    #[test]
    fn rfc4975_s9_a_send_with_and_without_a_body() {
        let mut bytes = send(b"Hi, I'm Alice!\r\n", '$');
        bytes.extend_from_slice(format!("{HEAD}-------d93kswow$\r\n").as_bytes());
        let (seen, rest) = one(&bytes);
        assert_eq!(rest, Ok(true));
        assert_eq!(bodies(&seen), [&b"Hi, I'm Alice!\r\n"[..], b""]);
    }

    #[test]
    fn bodies_are_slices_of_the_read() {
        let read = Bytes::from(send(&[b'x'; 4096], '$'));
        let whole = read.as_ptr_range();
        let mut input = read.clone();
        let mut framer = Framer::new(Limits::default());
        let mut spans = 0;
        while let Some(event) = framer.next(&mut input).unwrap() {
            if let Event::Body(span) = event {
                assert!(whole.contains(&span.as_ptr()));
                assert_eq!(span.len(), 4096);
                spans += 1;
            }
        }
        assert_eq!(spans, 1);
    }

    /// What looks like an end-line inside a body, and is none: RFC 4975 §7.1 forbids only the whole line.
    const TRAPS: [&[u8]; 14] = [
        b"",
        b"\r\n",
        b"\r\n\r\n-------",
        b"\r\n-------d93kswow",
        b"\r\n-------d93kswow$",
        b"\r\n-------d93kswow$\r",
        b"\r\n-------d93kswow$\r\r",
        b"\r\n-------d93kswow%\r\n",
        b"\r\n-------d93kswox$\r\n",
        b"\r\n-------d93ksw\r\n-------d93kswow",
        b"\r\n--------d93kswow$\r\n",
        b"-------d93kswow$ and more",
        b"\r\r\n\n-------d93kswow$\r\n",
        b"\r\n-------d93kswow$\r\x00MSRP d93kswow SEND\r\n",
    ];

    #[test]
    fn end_lines_inside_bodies_at_every_split() {
        for trap in TRAPS {
            for flag in ['$', '+', '#'] {
                let body = [trap, b"x", trap, b"y"].concat();
                let bytes = [send(&body, flag), send(b"next", '$')].concat();
                let expected = one(&bytes);
                assert_eq!(bodies(&expected.0), [&body[..], b"next"], "{trap:?}");
                for at in 0..bytes.len() {
                    let (a, b) = bytes.split_at(at);
                    let reads = [Bytes::copy_from_slice(a), Bytes::copy_from_slice(b)];
                    assert_eq!(read(Limits::default(), reads), expected, "{trap:?} split at {at}");
                }
                let bytewise = bytes.iter().map(|c| Bytes::copy_from_slice(&[*c]));
                assert_eq!(read(Limits::default(), bytewise), expected, "{trap:?} byte by byte");
            }
        }
    }

    #[test]
    fn an_empty_body_may_share_its_line_end_with_the_empty_line() {
        let bytes = format!("{HEAD}Content-Type: text/plain\r\n\r\n-------d93kswow$\r\n");
        assert_eq!(bodies(&one(bytes.as_bytes()).0), [b""]);
    }

    #[test]
    fn what_ends_the_framing() {
        for (bytes, why) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], Broken::Start),
            (b"\x16\x03\x01", Broken::Start),
            (b"MSRQ", Broken::Start),
            (b"MSRP abc SEND\r\n", Broken::Start),
            (b"MSRP abcd\r\n", Broken::Start),
            (b"MSRP  abcd SEND\r\n", Broken::Start),
            (b"MSRP abcdefghijklmnopqrstuvwxyz0123456 SEND\r\n", Broken::Start),
            (b"\r\n", Broken::Start),
            (b"MSRP abcd SEND\nTo-Path: x\n", Broken::LineEnd),
            (b"MSRP abcd SEND\r\nTo-Path: a\rb\r\n", Broken::LineEnd),
            (b"MSRP abcd SEND\r\n-------abce$\r\n", Broken::EndLine),
            (b"MSRP abcd SEND\r\n-------abcd\r\n", Broken::EndLine),
            (b"MSRP abcd SEND\r\n-------abcd$$\r\n", Broken::EndLine),
        ] {
            assert_eq!(one(bytes), (vec![], Err(why)), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_head_without_an_end_is_bounded() {
        let limits = Limits { head_max: 512, ..Limits::default() };
        for endless in [
            "MSRP abcd SEND\r\nX: ".to_owned() + &"y".repeat(600),
            format!("MSRP abcd SEND\r\n{}", "X: y\r\n".repeat(100)),
        ] {
            for size in [1, 7, 512, 4096] {
                let reads = endless.as_bytes().chunks(size).map(Bytes::copy_from_slice);
                assert_eq!(read(limits, reads), (vec![], Err(Broken::HeadTooLong)), "reads of {size}");
            }
        }
        assert_eq!(Broken::HeadTooLong.fault(), Fault::Refused);
    }

    #[test]
    fn bad_heads_are_told_and_skipped() {
        let swap = |from: &str, to: &str| String::from_utf8(send(b"abc", '$')).unwrap().replace(from, to);
        for (bytes, why) in [
            (swap(" SEND", " send"), BadReason::Start),
            (swap(" SEND", " 20 OK"), BadReason::Start),
            (swap("Message-ID: 12339sdqwer", "Message-ID: a b"), BadReason::MessageId),
            (swap("Message-ID: 12339sdqwer\r\n", ""), BadReason::MessageId),
            (swap("Byte-Range: 1-16/16", "Byte-Range: 1-16"), BadReason::ByteRange),
            (swap("1-16/16", "1-18446744073709551616/*"), BadReason::ByteRange),
            (swap("1-16/16", "-1-16/16"), BadReason::ByteRange),
            (swap("Byte-Range:", "Failure-Report: maybe\r\nByte-Range:"), BadReason::Report),
            (swap("Byte-Range:", "To-Path: msrp://x:1/y;tcp\r\nByte-Range:"), BadReason::Repeated),
            (swap("Byte-Range:", " folded\r\nByte-Range:"), BadReason::Line),
            (swap("Byte-Range:", "no colon\r\nByte-Range:"), BadReason::Line),
            (swap("To-Path:", "X-Path:"), BadReason::NoPath),
            (swap("msrp://b", "http://b"), BadReason::Uri),
            (swap("Content-Type: text/plain\r\n", ""), BadReason::NoContentType),
            (swap("SEND", "REPORT"), BadReason::Status),
            (
                swap("To-Path: msrp", &format!("To-Path: {}msrp", "msrp://r:1/a;tcp ".repeat(300))),
                BadReason::PathTooLong,
            ),
        ] {
            let bytes = [bytes.into_bytes(), send(b"good", '$')].concat();
            let (seen, rest) = one(&bytes);
            assert_eq!((seen.first(), rest), (Some(&Seen::Bad(why)), Ok(true)), "{}", bytes.escape_ascii());
            assert_eq!(bodies(&seen), [b"good"]);
        }
    }

    #[test]
    fn rfc4975_s7_1_other_requests_have_short_bodies() {
        let mut bytes = b"MSRP abcd PING\r\nTo-Path: msrp://a:1/x;tcp\r\nFrom-Path: msrp://b:2/y;tcp\r\n\
                          Content-Type: text/plain\r\n\r\n"
            .to_vec();
        bytes.extend_from_slice(&vec![b'x'; 10_241]);
        assert_eq!(one(&bytes).1, Err(Broken::BodyTooLong));
    }

    fn piece() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::sample::select(&TRAPS[..]).prop_map(<[u8]>::to_vec),
            proptest::collection::vec(any::<u8>(), 0..200),
        ]
    }

    fn ends_the_message(body: &[u8]) -> bool {
        let line = |flag: &str| format!("\r\n-------d93kswow{flag}\r\n").into_bytes();
        let whole = [b"\r\n", body, b"\r\n"].concat();
        ["$", "+", "#"].iter().any(|flag| memmem::find(&whole, &line(flag)).is_some())
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_messages(
            pieces in proptest::collection::vec(piece(), 0..6),
            cuts in proptest::collection::vec(1usize..60, 0..80),
        ) {
            let body = pieces.concat();
            prop_assume!(!ends_the_message(&body));
            let mut bytes = Bytes::from([send(&body, '+'), send(b"tail", '$')].concat());
            let expected = one(&bytes);
            prop_assert_eq!(bodies(&expected.0), vec![&body[..], &b"tail"[..]]);
            let mut reads = Vec::new();
            for cut in cuts {
                reads.push(bytes.split_to(cut.min(bytes.len())));
            }
            reads.push(bytes);
            prop_assert_eq!(read(Limits::default(), reads), expected);
        }

        #[test]
        fn mutations_never_panic_and_splits_never_matter(
            edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 0..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = [send(b"one\r\n-------d93", '+'), send(b"two", '$')].concat();
            for (at, octet, kind) in edits {
                let at = at.index(bytes.len());
                match kind {
                    0 => bytes[at] = octet,
                    1 => bytes.insert(at, octet),
                    _ => { bytes.remove(at); }
                }
            }
            let (a, b) = bytes.split_at(cut.index(bytes.len()));
            let whole = one(&bytes);
            prop_assert_eq!(read(Limits::default(), [Bytes::copy_from_slice(a), Bytes::copy_from_slice(b)]), whole.clone());
            let bytewise = bytes.iter().map(|c| Bytes::copy_from_slice(&[*c]));
            prop_assert_eq!(read(Limits::default(), bytewise), whole);
        }
    }
}
