//! Messages out of a byte stream (RFC 3261 §18.3): Content-Length decides where each ends.
//!
//! ```text
//!   Between --CRLFCRLF--> Ping            (RFC 5626 §3.5.1)
//!   Between --other octet--> Head --empty line--> Body --Content-Length octets--> Message, Between
//!   Head --limit, bad length--> Broken    (nothing after it can be trusted)
//! ```

use bytes::{Buf, Bytes, BytesMut};

use crate::frame::Head;
use crate::limits::Limits;
use crate::malformed::{Malformed, Why};
use crate::message::Message;

/// What came out of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(clippy::large_enum_variant, reason = "messages are the usual case and are moved once")]
pub enum Frame {
    /// A whole message.
    Message(Message),
    /// A keep-alive that wants CRLF back (RFC 5626 §4.4.1).
    Ping,
    /// A message that is refused; with `fatal` the stream is over.
    Malformed(Malformed),
}

/// Cuts a stream into messages. Call [`StreamFramer::next`] until `None` after each push.
#[derive(Debug)]
pub struct StreamFramer {
    buffer: BytesMut,
    limits: Limits,
    state: State,
    /// Octets of the head that hold no end of it: what was searched need not be searched again.
    searched: usize,
    line_ends: usize,
}

#[derive(Debug)]
enum State {
    Between,
    Head,
    Body { head: Head, body_len: usize },
    Broken,
}

impl StreamFramer {
    /// A framer at the beginning of a stream.
    pub fn new(limits: Limits) -> StreamFramer {
        StreamFramer { buffer: BytesMut::new(), limits, state: State::Between, searched: 0, line_ends: 0 }
    }

    /// Adds what was read. What a broken stream brings is dropped.
    pub fn push(&mut self, bytes: &[u8]) {
        if !matches!(self.state, State::Broken) {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Bytes that wait for more.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// True when no message has begun that is not complete yet: what is awaited may never come.
    pub fn is_between(&self) -> bool {
        matches!(self.state, State::Between)
    }

    /// True after a fatal fault: close the connection.
    pub fn is_broken(&self) -> bool {
        matches!(self.state, State::Broken)
    }

    /// The next frame, if one is complete.
    #[expect(clippy::should_implement_trait, reason = "an iterator would have to end; a framer goes on")]
    pub fn next(&mut self) -> Option<Frame> {
        loop {
            match std::mem::replace(&mut self.state, State::Broken) {
                State::Broken => return None,
                State::Between => {
                    if self.between() {
                        return Some(Frame::Ping);
                    }
                    if self.buffer.is_empty() {
                        self.state = State::Between;
                        return None;
                    }
                    self.searched = 0;
                    self.state = State::Head;
                }
                State::Head => match self.head() {
                    Ok(true) => {}
                    Ok(false) => {
                        self.state = State::Head;
                        return None;
                    }
                    Err(malformed) => return Some(self.broken(malformed)),
                },
                State::Body { head, body_len } if self.buffer.len() < body_len => {
                    self.state = State::Body { head, body_len };
                    return None;
                }
                State::Body { head, body_len } => {
                    self.state = State::Between;
                    self.line_ends = 0;
                    let body = self.buffer.split_to(body_len).freeze();
                    return Some(match head.message(body) {
                        Ok(message) => Frame::Message(message),
                        Err(malformed) => Frame::Malformed(malformed),
                    });
                }
            }
        }
    }

    /// Skips line ends before a start line (RFC 3261 §7.5); true when two in a row make a ping.
    fn between(&mut self) -> bool {
        while let Some(b @ (b'\r' | b'\n')) = self.buffer.first().copied() {
            self.buffer.advance(1);
            self.line_ends += usize::from(b == b'\n');
            if self.line_ends == 2 {
                self.line_ends = 0;
                self.state = State::Between;
                return true;
            }
        }
        false
    }

    /// True when the head is complete and the state is `Body`.
    fn head(&mut self) -> Result<bool, Malformed> {
        let from = self.searched.saturating_sub(3);
        let end = self.buffer.get(from..).and_then(|rest| memchr::memmem::find(rest, b"\r\n\r\n"));
        let Some(end) = end.map(|at| from + at + 4).filter(|end| *end <= self.limits.head_bytes_max) else {
            self.searched = self.buffer.len();
            if self.buffer.len() < self.limits.head_bytes_max {
                return Ok(false);
            }
            // Read what is there: it may suffice for an answer.
            let bytes = self.buffer.split().freeze();
            let refusal = Head::read(&bytes, &self.limits).err();
            return Err(refusal.unwrap_or(Malformed::silent(Why::HeadTooLong, "header section")));
        };
        let bytes: Bytes = self.buffer.split_to(end).freeze();
        let head = Head::read(&bytes, &self.limits)?;
        let body_len = match head.body_len {
            Ok(Some(len)) if len > self.limits.body_bytes_max => {
                return Err(head.refuse(Why::BodyTooLong, "body"));
            }
            Ok(Some(len)) => len,
            Ok(None) => return Err(head.refuse(Why::LengthMissing, "Content-Length is missing on a stream")),
            Err((why, detail)) => return Err(head.refuse(why, detail)),
        };
        self.state = State::Body { head, body_len };
        Ok(true)
    }

    fn broken(&mut self, malformed: Malformed) -> Frame {
        self.state = State::Broken;
        self.buffer = BytesMut::new();
        Frame::Malformed(Malformed { fatal: true, ..malformed })
    }
}

#[cfg(test)]
mod tests;
