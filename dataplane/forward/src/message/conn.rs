//! One stream connection: its framer, what it is reading, and the queue of what it sends.

use std::collections::VecDeque;
use std::net::SocketAddr;

use base::Instant;
use bytes::{Bytes, BytesMut};
use msrp::{Flag, Framer, Head, Tid};

use crate::ConnId;

/// Up to here a body is copied beside its head; above it is shared (DESIGN §4: measured).
pub(super) const COPY_MAX: usize = 2048;
/// What goes to many and would wait behind as much as this is shared from here on: a room that has more to say than
/// its members take holds one copy of it, not one for each.
const GATHER_MAX: usize = 2048;
pub(super) const SHARE_MIN: usize = 512;
/// A buffer for the heads of what is shared.
const HEADS_BYTES: usize = 4096;
/// What an end-line takes at most: `CRLF`, seven hyphens, a transaction id, flag, `CRLF`.
const END_LINE_MAX: usize = 44;

/// What waits to be sent. Small pieces are gathered, large ones shared.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    ready: VecDeque<Bytes>,
    tail: BytesMut,
    bytes: usize,
}

impl Queue {
    /// Octets that wait.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// Appends by writing.
    pub(crate) fn write(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let before = self.tail.len();
        write(&mut self.tail);
        self.bytes += self.tail.len() - before;
    }

    /// Appends a piece of a body. `wide`: it goes to many, and holds no more memory than its octets.
    pub(crate) fn push(&mut self, piece: &Bytes, wide: bool) {
        self.bytes += piece.len();
        // Once it is more than fits together, what follows is not gathered again.
        let much = self.tail.len() >= GATHER_MAX || !self.ready.is_empty();
        let waits = wide && piece.len() >= SHARE_MIN && much;
        if piece.len() <= COPY_MAX && !waits {
            self.tail.extend_from_slice(piece);
        } else {
            self.seal();
            self.ready.push_back(piece.clone());
        }
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.ready.push_back(self.tail.split().freeze());
        }
    }

    /// Takes the oldest piece. An idle connection holds no buffer.
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        let piece = match self.ready.pop_front() {
            Some(piece) => piece,
            None if self.tail.is_empty() => return None,
            None => std::mem::take(&mut self.tail).freeze(),
        };
        self.bytes -= piece.len();
        Some(piece)
    }

    /// Takes all pieces, if there are several and it shall be.
    pub(crate) fn take_all_if(&mut self, wanted: bool) -> Option<VecDeque<Bytes>> {
        if !wanted || self.ready.is_empty() {
            return None;
        }
        if !self.tail.is_empty() {
            self.ready.push_back(std::mem::take(&mut self.tail).freeze());
        }
        self.bytes = 0;
        Some(std::mem::take(&mut self.ready))
    }
}

/// A chunk whose head went out and whose end-line did not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    /// Whose message: the source leg's row and the passage.
    pub(crate) source: u32,
    pub(crate) passage: u64,
    /// The leg that it goes to.
    pub(crate) target: u32,
    pub(crate) tid: Tid,
    pub(crate) wait: Wait,
}

/// What response a request of ours waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    /// Any; none in time is a failure.
    Answer,
    /// Only errors are answered.
    Error,
    /// None will come.
    Nothing,
}

/// A request of ours that may be answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transaction {
    pub(crate) tid: Tid,
    pub(crate) target: u32,
    /// `None`: the empty SEND that binds, or a NICKNAME.
    pub(crate) carries: Option<(u32, u64)>,
    /// Whose NICKNAME it passes on: the leg's row and the question.
    pub(crate) asks: Option<(u32, u64)>,
    pub(crate) until: Instant,
    pub(crate) wait: Wait,
}

/// Where in what a connection sends the copy of a message ends whose sender wants to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    at: u64,
    since: Instant,
    pub(crate) source: u32,
    pub(crate) passage: u64,
    pub(crate) target: u32,
}

/// What is being read: a request's head was seen, its end was not.
#[derive(Debug)]
pub(crate) enum Reading {
    /// Nothing, or what is not cared for.
    Skip,
    /// A SEND without a body.
    Bare { leg: u32, head: Box<Head> },
    /// A chunk of a message.
    Content { leg: u32, passage: u64, answers: Answers },
    /// A request that the relay passes on.
    Relay { pass: u64 },
    /// A chunk that is taken and thrown away, and answered at its end.
    Discard { answers: Answers },
}

/// The head of a request that may have to be answered; nothing is kept of one that never is. Apart from its connection, of
/// which most read nothing.
pub(crate) type Answers = Option<Box<Head>>;

/// A connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    /// Of the certificate that it showed; most show none.
    pub(crate) fingerprint: Option<Box<[u8; 32]>>,
    pub(crate) tls: bool,
    /// Taken out while its input is worked through.
    pub(crate) framer: Option<Framer>,
    pub(crate) reading: Reading,
    /// A head that had to wait for its targets.
    pub(crate) waiting: Option<Box<Head>>,
    /// Input behind it.
    pub(crate) held: VecDeque<Bytes>,
    /// Reading is paused: something of `waits_for` is full or not there yet.
    pub(crate) blocked: bool,
    pub(crate) paused: bool,
    /// By so many it waits for room on disk (see [`super::spill`]).
    pub(crate) spill_waits: u32,
    /// It waits for a receiver that is behind: for the first that is not any more.
    pub(crate) spill_paced: bool,
    /// A leg of it is behind.
    pub(crate) spills: bool,
    /// Counts which of its legs has its room first.
    pub(crate) turn: u8,
    /// Sessions bound to it.
    pub(crate) legs: Vec<u32>,
    /// What was read before the first request was whole (for a hand-over).
    pub(crate) prefix: Option<Box<BytesMut>>,
    pub(crate) queue: Queue,
    pub(crate) inflight: usize,
    /// Octets that are with the kernel.
    gone: u64,
    /// In the order of their places. Each stands behind octets that wait, so there are no more than these allow.
    marks: VecDeque<Mark>,
    pub(crate) open: Option<Open>,
    pub(crate) transactions: VecDeque<Transaction>,
    /// It stands in the list of those that have something to send.
    pub(crate) listed: bool,
    /// All its legs are unseen: no sum tells of it.
    pub(crate) hidden: bool,
    /// Sources that are blocked until its queue is lower.
    pub(crate) blocks: Vec<ConnId>,
    /// By so many it is held up itself.
    pub(crate) waits: u32,
    /// For all of them, or for the first that has room.
    pub(crate) waits_for_all: bool,
    /// Too slow: no new messages, what is open was aborted. Since when.
    pub(crate) congested: Option<Instant>,
    /// Full since then.
    pub(crate) full: Option<Instant>,
    /// Full of one long message of a room, whose source waits a moment.
    pub(crate) paced: bool,
    /// When something went to the kernel last.
    pub(crate) moved: Instant,
    /// Until its first request must have come.
    pub(crate) arrival: Option<Instant>,
    /// The earliest timer that is set.
    pub(crate) armed: Option<Instant>,
    pub(crate) captured: bool,
    /// Nothing is read any more; closed when all was sent, or then at the latest.
    pub(crate) closing: Option<Instant>,
}

impl Conn {
    pub(crate) fn new(opened: &super::Opened, framer: Framer, now: Instant) -> Self {
        Conn {
            peer: opened.peer,
            local: opened.local,
            fingerprint: opened.fingerprint.map(Box::new),
            tls: opened.tls,
            framer: Some(framer),
            reading: Reading::Skip,
            waiting: None,
            held: VecDeque::new(),
            blocked: false,
            paused: false,
            spill_waits: 0,
            spill_paced: false,
            spills: false,
            turn: 0,
            legs: Vec::new(),
            prefix: None,
            queue: Queue::default(),
            inflight: 0,
            gone: 0,
            marks: VecDeque::new(),
            open: None,
            transactions: VecDeque::new(),
            listed: false,
            hidden: false,
            blocks: Vec::new(),
            waits: 0,
            waits_for_all: false,
            congested: None,
            full: None,
            paced: false,
            moved: now,
            arrival: None,
            armed: None,
            captured: false,
            closing: None,
        }
    }

    /// Octets on their way, here or with the driver.
    pub(crate) fn load(&self) -> usize {
        self.queue.len() + self.inflight
    }

    /// Writes the head of a chunk. `rest`: what follows its paths; `more`: octets that follow at once.
    pub(crate) fn begin_chunk(&mut self, tid: &Tid, peer: &str, own: &str, rest: &[u8], more: usize) {
        let several = !self.queue.ready.is_empty();
        self.queue.write(|buffer| {
            let parts = [
                b"MSRP ".as_slice(),
                tid.as_bytes(),
                b" SEND\r\nTo-Path: ",
                peer.as_bytes(),
                b"\r\nFrom-Path: ",
                own.as_bytes(),
                b"\r\n",
                rest,
            ];
            let head: usize = parts.iter().map(|part| part.len()).sum();
            let body = if more <= COPY_MAX { more } else { 0 };
            let need = head + body + END_LINE_MAX;
            // Several pieces wait: more heads will follow, each of which would be a buffer of its own.
            let room = if several { need.max(HEADS_BYTES) } else { need };
            if buffer.capacity() - buffer.len() < need {
                buffer.reserve(room);
            }
            parts.iter().for_each(|part| buffer.extend_from_slice(part));
        });
    }

    /// Marks the end of a copy, which was put into the queue just now.
    pub(crate) fn mark(&mut self, now: Instant, source: u32, passage: u64, target: u32) {
        let at = self.gone + self.load() as u64;
        self.marks.push_back(Mark { at, since: now, source, passage, target });
    }

    /// Since when nothing moved although somebody waits for what is on its way.
    pub(crate) fn stalled(&self) -> Option<Instant> {
        self.marks.front().map(|mark| mark.since.max(self.moved))
    }

    /// So many octets more are with the kernel.
    pub(crate) fn written(&mut self, bytes: usize) {
        self.inflight = self.inflight.saturating_sub(bytes);
        self.gone += bytes as u64;
    }

    /// A copy all of which is with the kernel.
    pub(crate) fn pass_mark(&mut self) -> Option<Mark> {
        let gone = self.gone;
        self.marks.pop_front_if(|mark| mark.at <= gone)
    }

    /// Ends the chunk that is open. Responses to it are awaited from now on (RFC 4975 §7.1.4).
    pub(crate) fn close_chunk(&mut self, flag: Flag, until: Instant) {
        let Some(open) = self.open.take() else { return };
        self.queue.write(|buffer| {
            buffer.extend_from_slice(b"\r\n-------");
            buffer.extend_from_slice(open.tid.as_bytes());
            buffer.extend_from_slice(&[flag.octet(), b'\r', b'\n']);
        });
        if open.wait != Wait::Nothing && flag != Flag::Abort {
            self.transactions.push_back(Transaction {
                tid: open.tid,
                target: open.target,
                carries: Some((open.source, open.passage)),
                asks: None,
                until,
                wait: open.wait,
            });
        }
    }

    /// Whether the chunk that is open is this message's, for this leg: another one may share the connection.
    pub(crate) fn carries(&self, source: u32, passage: u64, target: u32) -> bool {
        self.open.is_some_and(|open| (open.source, open.passage, open.target) == (source, passage, target))
    }
}
