//! A message on its way from one leg to others, chunk by chunk as it comes: never whole in memory.

use base::Instant;
use bytes::{Bytes, BytesMut};
use msrp::{ByteRange, FailureReport, Head, Ranges, Status, Tid};

use super::passages::Tags;
use super::tap::Taps;

/// Spans of a message that may arrive apart.
const SPANS_MAX: usize = 32;

/// How far the copy to one leg has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// Chunks go out.
    Live,
    /// In a room: it waits for its leg's connection.
    Held,
    /// The last one went out; responses and reports may come.
    Sent,
    /// Its far end answered each chunk with 200 and is gone since: neither failed nor to be heard of again.
    Taken,
    /// In a room: all of it is with the kernel of our own host.
    Written,
    /// It failed or was given up.
    Failed,
}

impl Stage {
    /// Whether nothing more becomes of the copy.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Stage::Taken | Stage::Written | Stage::Failed)
    }
}

/// The copy to one leg.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copy {
    pub(crate) leg: u32,
    pub(crate) serial: u64,
    pub(crate) stage: Stage,
    /// Something of it went out.
    pub(crate) begun: bool,
    /// A chunk of it was not answered before it was forgotten: nobody knows whether the far end has it.
    pub(crate) unsure: bool,
    /// The leg takes dispositions only: its direction is for content (CPM-FACTS §3.4).
    pub(crate) only_imdn: bool,
    /// The leg is the sender's own participant's: another device of his. It proves nothing to him.
    pub(crate) own: bool,
}

/// What still must be known before octets go out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Holds {
    /// Nothing.
    Nothing,
    /// The CPIM headers: who may have it (room).
    Recipients,
    /// The CPIM headers: whether it is an IMDN.
    Kind,
    /// All of an IMDN: whether it is the first of its disposition.
    Whole,
}

/// A message on its way.
#[derive(Debug)]
pub(crate) struct Passage {
    pub(crate) id: u64,
    /// The sender's Message-ID, and the one that the targets see.
    pub(crate) message_id: String,
    pub(crate) shown_id: String,
    /// Their tags.
    pub(crate) tags: Tags,
    pub(crate) failure: FailureReport,
    pub(crate) success: bool,
    /// The sender may send dispositions only.
    pub(crate) only_imdn: bool,
    /// We are the endpoint that the sender talks to (a room), not a hop.
    pub(crate) room: bool,
    pub(crate) copies: Vec<Copy>,
    pub(crate) taps: Taps,
    /// Who is to have it on other shards.
    pub(crate) far: Option<Box<super::Far>>,
    /// Of a guest: its number on the sender's shard; 0: of nobody else.
    pub(crate) origin: u64,
    /// The head of the chunk that is being read, and the transaction of its copies.
    pub(crate) head: Head,
    pub(crate) tid: Tid,
    /// What follows the paths in the heads of its copies' chunks that begin with octet `rest_of`; 0: none yet.
    pub(crate) rest: Bytes,
    pub(crate) rest_of: u64,
    pub(crate) holds: Holds,
    pub(crate) held: BytesMut,
    /// The next octet, from 1.
    pub(crate) next: u64,
    pub(crate) chunk_start: u64,
    /// What goes out is so much longer than what came in: a sender's address was rewritten.
    pub(crate) shift: i64,
    pub(crate) total: Option<u64>,
    pub(crate) got: Ranges,
    /// The last octet, once the chunk that ends the message came.
    pub(crate) last: Option<u64>,
    pub(crate) size_max: u64,
    pub(crate) done: bool,
    pub(crate) reported: bool,
    pub(crate) refused: bool,
    /// When it is given up or forgotten.
    pub(crate) until: Instant,
}

impl Passage {
    pub(crate) fn new(id: u64, head: Head, tid: Tid, until: Instant) -> Self {
        let range = head.byte_range().unwrap_or(ByteRange::OPEN);
        let message_id = head.message_id();
        Passage {
            id,
            message_id: message_id.to_owned(),
            shown_id: message_id.to_owned(),
            tags: Tags::both(message_id),
            failure: head.failure_report(),
            success: head.success_report(),
            only_imdn: false,
            room: false,
            copies: Vec::new(),
            taps: Taps::Nobody,
            far: None,
            origin: 0,
            tid,
            rest: Bytes::new(),
            rest_of: 0,
            holds: Holds::Nothing,
            held: BytesMut::new(),
            next: range.start,
            chunk_start: range.start,
            shift: 0,
            total: range.total,
            got: Ranges::with_max(SPANS_MAX),
            last: None,
            size_max: u64::MAX,
            done: false,
            reported: false,
            refused: false,
            until,
            head,
        }
    }

    /// The targets see it with another Message-ID.
    pub(crate) fn show_as(&mut self, message_id: String) {
        self.tags.shown = super::tag(&message_id);
        self.shown_id = message_id;
    }

    /// Another chunk of it begins.
    pub(crate) fn go_on(&mut self, head: Head, tid: Tid, until: Instant) {
        let range = head.byte_range().unwrap_or(ByteRange::OPEN);
        (self.next, self.chunk_start) = (range.start, range.start);
        self.total = self.total.or(range.total);
        (self.head, self.tid, self.until) = (head, tid, until);
        self.rest_of = 0;
    }

    /// Octets came. `Err`: they lead beyond what the message may have.
    pub(crate) fn advance(&mut self, piece: &Bytes) -> Result<(), Status> {
        let next = self.next.checked_add(piece.len() as u64).ok_or(Status::STOP)?;
        if next - 1 > self.size_max {
            return Err(Status::STOP);
        }
        if self.total.is_some_and(|total| next - 1 > total) {
            return Err(Status::BAD_REQUEST);
        }
        self.next = next;
        Ok(())
    }

    /// A chunk ended; true when the message is whole. `Err`: in too many pieces.
    pub(crate) fn chunk_ended(&mut self, is_last: bool) -> Result<bool, Status> {
        self.got.insert(self.chunk_start, self.next - 1).map_err(|_| Status::STOP)?;
        if is_last {
            self.last = Some(self.next - 1);
        }
        self.done = self.last.is_some_and(|last| self.got.covers(1, last));
        Ok(self.done)
    }

    /// Whether these octets have come, those of the chunk that is open included.
    pub(crate) fn has(&self, first: u64, last: u64) -> bool {
        let mut got = self.got.clone();
        got.insert(self.chunk_start, self.next - 1).is_ok() && got.covers(first, last)
    }

    /// The place in what goes out of an octet that came in.
    pub(crate) fn out(&self, octet: u64) -> u64 {
        octet.saturating_add_signed(self.shift)
    }

    pub(crate) fn copy_mut(&mut self, leg: u32) -> Option<&mut Copy> {
        self.copies.iter_mut().find(|c| c.leg == leg)
    }

    /// Whether it must be known before anything goes out if it is an IMDN: content may not pass everywhere.
    pub(crate) fn must_be_judged(&self) -> bool {
        self.room || self.only_imdn || self.copies.iter().any(|copy| copy.only_imdn)
    }

    /// No copy of it can arrive any more.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.copies.iter().all(|c| c.own || c.stage == Stage::Failed)
    }

    /// The octets so far, for a report: a computed end, never `*` (RFC 4975 §7.1.2).
    pub(crate) fn range(&self) -> ByteRange {
        let total = self.last.or(self.total);
        let end = self.got.last().max(self.next - 1).min(total.unwrap_or(u64::MAX));
        ByteRange { start: 1, end: Some(end), total }
    }

    /// Whether it is the rest of a message, whole from its first octet here to the last of all: a file that is resumed
    /// where it broke off (RFC 5547 §8). What comes before may still come; nobody waits for it.
    pub(crate) fn is_rest(&self) -> bool {
        let mut spans = self.got.iter();
        let only = spans.next().filter(|_| spans.next().is_none());
        // Nor is a chunk of what comes before under way, which its receivers would wait for.
        let at_end = |last: u64| self.last == Some(last) && self.next == last + 1;
        !self.done && only.is_some_and(|(first, last)| first > 1 && at_end(last))
    }

    /// Whether anybody may still hear of it once it is whole.
    pub(crate) fn is_awaited(&self) -> bool {
        (self.success || (!self.room && self.failure != FailureReport::No)) && !self.reported
    }

    /// Whether a room has done for it what it could: each recipient that it was frozen for has it, or is known to
    /// control as one who has not.
    pub(crate) fn is_spread(&self) -> bool {
        self.room
            && self.done
            && self.copies.iter().all(|c| c.stage.is_over())
            && self.far.as_ref().is_none_or(|far| far.is_over())
    }
}
