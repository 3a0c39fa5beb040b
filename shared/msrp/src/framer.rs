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

mod scan;
mod tail;

use base::Fault;
use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

use crate::head::{Bad, Head};
use crate::{Flag, Limits, Method, Tid};
use scan::{Scan, scan};
use tail::Tail;

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

#[cfg(test)]
mod tests;
