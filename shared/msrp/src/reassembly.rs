//! Whole messages from chunks, at endpoints (RFC 4975 §7.3.1). The data plane never does this.
//!
//! Chunks of one message may come in any order and overlap; what comes last counts. The chunk with `$` ends at
//! the last octet and so tells the length. A Message-ID that was completed before is a duplicate: it is taken
//! and thrown away.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use base::{Budget, Instant};
use bytes::Bytes;

use crate::{Flag, Head, Ranges, Status};

/// What a peer may make an endpoint hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReassemblyLimits {
    /// Messages that have begun and not ended (CPM-FACTS §3.10).
    pub messages_max: usize,
    /// Octets of one message: what a=max-size says.
    pub message_octets_max: u64,
    /// Octets of all messages that have not ended.
    pub octets_max: u64,
    /// Pieces of one message that do not touch.
    pub pieces_max: usize,
    /// Message-IDs remembered after their end.
    pub ended_max: usize,
}

impl Default for ReassemblyLimits {
    fn default() -> Self {
        ReassemblyLimits {
            messages_max: 16,
            message_octets_max: 16 << 20,
            octets_max: 32 << 20,
            pieces_max: 64,
            ended_max: 64,
        }
    }
}

impl ReassemblyLimits {
    /// Memory that one session may hold, as rows.
    pub fn budget(&self, sessions_max: u64) -> Budget {
        let mut budget = Budget::default();
        budget.row("msrp messages in assembly", sessions_max, self.octets_max);
        budget
    }
}

/// A message that has arrived whole.
#[derive(Clone, PartialEq, Eq)]
pub struct Whole {
    /// Message-ID.
    pub message_id: String,
    /// Content-Type with its parameters.
    pub content_type: String,
    /// The content.
    pub body: Bytes,
}

/// Content stays out of logs.
impl std::fmt::Debug for Whole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Whole({} octets of {})", self.body.len(), self.content_type)
    }
}

/// What a chunk came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Progress {
    /// More chunks are awaited.
    Partial,
    /// The message is whole.
    Whole(Whole),
    /// It was whole before; this was a repetition.
    Repeated,
    /// The sender gave it up.
    Aborted,
}

#[derive(Debug)]
struct Partial {
    content_type: String,
    octets: Vec<u8>,
    arrived: Ranges,
    total: Option<u64>,
    last_octet: Instant,
}

/// The chunk that is arriving. Chunks do not interleave on a connection.
#[derive(Debug)]
struct Current {
    message_id: String,
    start: u64,
    received: u64,
    repeated: bool,
}

/// The messages of one session that are arriving.
#[derive(Debug)]
pub struct Reassembly {
    limits: ReassemblyLimits,
    partial: BTreeMap<String, Partial>,
    ended: VecDeque<String>,
    octets: u64,
    current: Option<Current>,
}

impl Reassembly {
    /// With nothing in it.
    pub fn new(limits: ReassemblyLimits) -> Self {
        Reassembly { limits, partial: BTreeMap::new(), ended: VecDeque::new(), octets: 0, current: None }
    }

    /// A SEND begins. 413 when it, or one message more, is over the limits (RFC 4975 §10.6).
    pub fn begin(&mut self, now: Instant, head: &Head) -> Result<(), Status> {
        self.current = None;
        let range = head.byte_range().unwrap_or(crate::ByteRange::OPEN);
        let id = head.message_id();
        let repeated = self.ended.iter().any(|ended| ended == id);
        if !repeated {
            let last = range.total.into_iter().chain(range.end).chain([range.start - 1]).max().unwrap_or(0);
            if last > self.limits.message_octets_max {
                self.drop_message(id);
                return Err(Status::STOP);
            }
            if !self.partial.contains_key(id) && self.partial.len() >= self.limits.messages_max {
                return Err(Status::STOP);
            }
            let pieces_max = self.limits.pieces_max;
            let partial = self.partial.entry(id.to_owned()).or_insert_with(|| Partial {
                content_type: String::new(),
                octets: Vec::new(),
                arrived: Ranges::with_max(pieces_max),
                total: None,
                last_octet: now,
            });
            partial.last_octet = now;
            if let Some(content_type) = head.content_type() {
                partial.content_type = content_type.to_owned();
            }
        }
        self.current = Some(Current { message_id: id.to_owned(), start: range.start, received: 0, repeated });
        Ok(())
    }

    /// Octets of the chunk that began. After 413 the rest of the chunk and the message are thrown away; so it is
    /// when the message expired since the chunk began.
    pub fn data(&mut self, now: Instant, span: &[u8]) -> Result<(), Status> {
        let current = self.current.as_mut().ok_or(Status::STOP)?;
        let first = current.start.saturating_add(current.received);
        current.received = current.received.saturating_add(span.len() as u64);
        if current.repeated || span.is_empty() {
            return Ok(());
        }
        let id = current.message_id.clone();
        let room = self.limits.octets_max.saturating_sub(self.octets);
        let stored = match self.partial.get_mut(&id) {
            Some(partial) => {
                partial.last_octet = now;
                partial.store(first, span, self.limits.message_octets_max, room)
            }
            None => return Ok(()),
        };
        match stored {
            Some(grown) => {
                self.octets += grown;
                Ok(())
            }
            None => {
                self.drop_message(&id);
                Err(Status::STOP)
            }
        }
    }

    /// The chunk's end-line. 413 when what it belongs to is gone.
    pub fn end(&mut self, flag: Flag) -> Result<Progress, Status> {
        let current = self.current.take().ok_or(Status::STOP)?;
        if current.repeated {
            return Ok(Progress::Repeated);
        }
        if flag == Flag::Abort {
            self.drop_message(&current.message_id);
            return Ok(Progress::Aborted);
        }
        let partial = self.partial.get_mut(&current.message_id).ok_or(Status::STOP)?;
        if flag == Flag::Last {
            partial.total =
                current.start.checked_sub(1).and_then(|before| before.checked_add(current.received));
        }
        Ok(match partial.total {
            Some(total) if partial.arrived.covers(1, total) => self.complete(current.message_id, total),
            _ => Progress::Partial,
        })
    }

    fn complete(&mut self, message_id: String, total: u64) -> Progress {
        let Some(mut partial) = self.partial.remove(&message_id) else { return Progress::Partial };
        self.octets = self.octets.saturating_sub(partial.octets.len() as u64);
        // Octets beyond the end that `$` named are not the message's.
        partial.octets.truncate(usize::try_from(total).unwrap_or(usize::MAX));
        self.ended.push_back(message_id.clone());
        while self.ended.len() > self.limits.ended_max {
            self.ended.pop_front();
        }
        Progress::Whole(Whole {
            message_id,
            content_type: partial.content_type,
            body: Bytes::from(partial.octets),
        })
    }

    fn drop_message(&mut self, id: &str) {
        if let Some(partial) = self.partial.remove(id) {
            self.octets = self.octets.saturating_sub(partial.octets.len() as u64);
        }
        self.current = None;
    }

    /// Whether a message of this id has begun and not ended.
    pub fn has(&self, id: &str) -> bool {
        self.partial.contains_key(id)
    }

    /// When the quietest unfinished message had its last octet.
    pub fn oldest(&self) -> Option<Instant> {
        self.partial.values().map(|partial| partial.last_octet).min()
    }

    /// Throws away unfinished messages of which nothing came for `pause`, those whose chunk is arriving too; their
    /// ids come back.
    pub fn expire(&mut self, now: Instant, pause: Duration) -> Vec<String> {
        let late = |partial: &Partial| partial.last_octet + pause <= now;
        let gone: Vec<String> =
            self.partial.iter().filter(|(_, p)| late(p)).map(|(id, _)| id.clone()).collect();
        for id in &gone {
            self.octets =
                self.octets.saturating_sub(self.partial.remove(id).map_or(0, |p| p.octets.len() as u64));
            self.current.take_if(|current| !current.repeated && current.message_id == *id);
        }
        gone
    }
}

impl Partial {
    /// Puts octets at their place; by how many the buffer grew. `None` when they lie beyond `max`, would take
    /// more than `room`, or leave too many holes.
    fn store(&mut self, first: u64, span: &[u8], max: u64, room: u64) -> Option<u64> {
        let from = first.checked_sub(1)?;
        let to = from.checked_add(span.len() as u64).filter(|to| *to <= max)?;
        let grown = to.saturating_sub(self.octets.len() as u64);
        if grown > room {
            return None;
        }
        let (from, to) = (usize::try_from(from).ok()?, usize::try_from(to).ok()?);
        self.arrived.insert(first, to as u64).ok()?;
        if from == self.octets.len() {
            self.octets.extend_from_slice(span);
        } else {
            self.octets.resize(self.octets.len().max(to), 0);
            self.octets.get_mut(from..to)?.copy_from_slice(span);
        }
        Some(grown)
    }
}
