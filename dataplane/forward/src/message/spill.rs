//! What a slow receiver of a message to several has not read yet waits on disk, so that the others need not wait for it:
//! the fastest paces the sender (`distribute`; of a message to one the receiver does). A room's members are paced otherwise
//! (see [`super::flow`]).
//!
//! ```text
//!  copy:   Live ── its queue is full, another's is not ──► Held ── nothing waits any more ──► Live
//!                                                           │ finished, last piece out ──► Sent
//!                                                           │ refused, given up, lost, disk failed ──► '#', Failed
//!  piece:  Near (memory) ─────────────────────────────────────────────► out
//!          Late (memory, no room on disk yet: its source waits) ──► Writing ──► There ──► Coming ──► Near
//! ```
//!
//! The pieces of one receiver are in one file, which is used as a ring and ended when nothing is in it. The engine says where
//! in it each piece goes; whoever has the disk writes and reads in the order in which it is told. What is in memory is bounded:
//! a little before the file, a little that is coming back, what is not written yet (all receivers of an engine together), and
//! one read of each source that is stopped.

use base::Now;
use bytes::Bytes;
use contract::{Pressure, news::What};
use msrp::Flag;

use super::conn::COPY_MAX;
use super::held::Held;
use super::row::Expect;
use super::{Copy, CopyStage, Message, Passage, Row};
use crate::media::Tx;
use crate::{ConnId, Drop};

/// As much waits in memory before anything goes to disk, and as much comes back at once; or half a queue, if that is less,
/// because what is back goes into the queue whole.
const NEAR_BYTES: u64 = 128 << 10;
/// Pieces of one receiver: neighbours in the file are one, so it takes many messages at a time to have as many.
const PIECES_MAX: usize = 4096;
/// Of them so many may be in memory before anything goes to disk, where neighbours become one.
const NEAR_PIECES: usize = PIECES_MAX / 4;
/// What a piece costs besides its octets.
const PIECE_COST: usize = 256;
/// What all messages that wait for one receiver, and their pieces, cost besides their octets: many may have few, or none.
const COSTS_MAX: usize = 1 << 20;
/// A chunk of what waited ends when it has as much: its far end answers, and keeps what it has, chunk by chunk.
pub(super) const CHUNK_BYTES: usize = 64 << 10;
/// What one read brings at most.
const READ_BYTES: usize = 64 << 10;

/// A file in which octets wait for one receiver; never used twice by one engine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SpillId(pub u64);

/// What is to be done with such a file.
#[derive(Debug)]
pub enum SpillOrder {
    /// Write these octets; the first order makes the file. Answered by [`SpillWord::Written`].
    Write {
        /// Which file.
        file: SpillId,
        /// Names the piece.
        mark: u64,
        /// Where in the file.
        at: u64,
        /// What.
        bytes: Bytes,
    },
    /// Read so many octets, all of which were written. Answered by [`SpillWord::Fetched`].
    Fetch {
        /// Which file.
        file: SpillId,
        /// Names the piece.
        mark: u64,
        /// Where in the file.
        at: u64,
        /// How many.
        length: usize,
    },
    /// Nobody needs it any more. Not answered.
    End {
        /// Which file.
        file: SpillId,
    },
}

/// What became of a [`SpillOrder`].
#[derive(Debug)]
pub enum SpillWord {
    /// It is written.
    Written {
        /// Which file.
        file: SpillId,
        /// Which piece.
        mark: u64,
        /// Its octets.
        bytes: usize,
    },
    /// It is read.
    Fetched {
        /// Which file.
        file: SpillId,
        /// Which piece.
        mark: u64,
        /// What was written there.
        bytes: Bytes,
    },
    /// It could not be done: the file is lost.
    Failed {
        /// Which file.
        file: SpillId,
        /// Of a write: its octets; of a fetch: 0.
        bytes: usize,
    },
}

/// Octets of a message that wait.
#[derive(Debug)]
pub(super) struct Piece {
    /// The place of the first one in what goes out.
    pub(super) start: u64,
    octets: Octets,
}

/// Where they are. Places in the file count on over its end.
#[derive(Debug)]
enum Octets {
    /// In memory.
    Near(Bytes),
    /// In memory, and there is no room on disk yet.
    Late(Bytes),
    /// In memory until they are written.
    Writing { bytes: Bytes, at: u64 },
    /// On disk.
    There { at: u64, length: u64 },
    /// On their way back.
    Coming { at: u64, length: u64 },
    /// There are none: what went before was the last one (RFC 4975 §7.3.1).
    End,
}

impl Piece {
    pub(super) fn near(start: u64, bytes: Bytes) -> Self {
        Piece { start, octets: Octets::Near(bytes) }
    }

    /// The octets, if they are in memory.
    pub(super) fn bytes(&self) -> Option<&Bytes> {
        match &self.octets {
            Octets::Near(bytes) | Octets::Late(bytes) | Octets::Writing { bytes, .. } => Some(bytes),
            Octets::There { .. } | Octets::Coming { .. } | Octets::End => None,
        }
    }

    /// It says that this is the end.
    pub(super) fn is_end(&self) -> bool {
        matches!(self.octets, Octets::End)
    }

    /// Where they are, or will be, in the file.
    fn at(&self) -> Option<u64> {
        match self.octets {
            Octets::Near(_) | Octets::Late(_) | Octets::End => None,
            Octets::Writing { at, .. } | Octets::There { at, .. } | Octets::Coming { at, .. } => Some(at),
        }
    }

    fn is_late(&self) -> bool {
        matches!(self.octets, Octets::Late(_))
    }
}

/// A receiver that is behind.
#[derive(Debug, Default)]
pub(crate) struct Spill {
    file: Option<File>,
    /// Sources that wait until there is room on disk.
    blocks: Vec<ConnId>,
    /// Sources all of whose receivers are behind: they wait until one is not.
    paced: Vec<ConnId>,
}

#[derive(Debug)]
struct File {
    id: SpillId,
    /// Where the next piece goes.
    head: u64,
    /// Octets that it has on disk.
    extent: u64,
    /// Something is on its way back.
    coming: bool,
}

impl Spill {
    /// The memory of one at most, besides what is not written.
    pub(crate) const fn octets_max() -> usize {
        2 * NEAR_BYTES as usize + 2 * READ_BYTES + COSTS_MAX
    }
}

impl Row {
    /// Whether what is said next to several must wait behind what waits already.
    pub(crate) fn is_spilling(&self) -> bool {
        self.spill.is_some() && self.held.iter().any(|held| held.spill)
    }

    /// Octets that wait, in memory and on disk.
    fn behind(&self) -> u64 {
        self.held.iter().filter(|held| held.spill).map(|held| held.bytes as u64).sum()
    }

    /// What waits is so much in number that nothing more may.
    fn is_crowded(&self) -> bool {
        let cost = |held: &Held| size_of::<Held>() + held.head_bytes() + held.pieces.len() * PIECE_COST;
        self.held.iter().filter(|held| held.spill).map(cost).sum::<usize>() > COSTS_MAX
    }

    /// Its sources wait: for room on disk, or until less waits.
    fn must_wait(&self) -> bool {
        self.has_late() || self.is_crowded()
    }

    fn has_late(&self) -> bool {
        let last =
            |held: &Held| held.pieces.iter().rfind(|piece| !piece.is_end()).is_some_and(Piece::is_late);
        self.held.iter().any(last)
    }

    /// The first place in the file that is needed.
    fn tail(&self) -> Option<u64> {
        let first = |held: &Held| held.pieces.iter().find_map(Piece::at);
        self.held.iter().filter(|held| held.spill).filter_map(first).min()
    }

    /// The piece that is so in the file, with the one before it.
    fn piece_mut(&mut self, is: impl Fn(&Octets) -> bool) -> Option<(&mut Held, usize)> {
        self.held.iter_mut().filter(|held| held.spill).find_map(|held| {
            let at = held.pieces.iter().position(|piece| is(&piece.octets))?;
            Some((held, at))
        })
    }
}

impl Message {
    /// Octets of files on disk, the files, and octets that were ever given to the disk.
    pub(crate) fn on_disk(&self) -> (u64, u64, u64) {
        (self.disk.bytes, self.disk.files.len() as u64, self.disk.spilled)
    }

    /// Copies of a message to several are full: those go to disk without which the message can go on. True: its source must
    /// wait.
    pub(super) fn part(&mut self, now: Now, source: u32, p: &mut Passage, tx: &mut Tx<'_>) -> bool {
        let max = self.limits.queue_bytes_max;
        let goes_on = |copy: &Copy| {
            let conn = self.conn_id(copy.leg).and_then(|conn| self.conns.get(&conn));
            let live = copy.stage == CopyStage::Live && conn.is_some_and(|conn| conn.load() <= max);
            !copy.own && (live || copy.stage == CopyStage::Held && !self.is_behind(copy.leg))
        };
        let free = p.copies.iter().any(goes_on);
        let mut block = false;
        for at in 0..p.copies.len() {
            let Some(copy) = p.copies.get(at).copied().filter(|copy| copy.stage == CopyStage::Live) else {
                continue;
            };
            let Some(conn) = self.conn_id(copy.leg) else { continue };
            if self.conns.get(&conn).is_none_or(|conn| conn.load() <= max) {
                continue;
            }
            if (free || copy.own) && self.may_spill(copy.leg) {
                let next = p.out(p.next);
                self.begin_spill(source, p, copy.leg, next, true, tx);
                if let Some(copy) = p.copies.get_mut(at) {
                    copy.stage = CopyStage::Held;
                }
            } else {
                block |= self.mind_the_load(now, conn, source, copy.own, p.next, tx);
            }
        }
        block
    }

    /// Whether more waits for a receiver than what is in memory for it.
    pub(super) fn is_behind(&self, leg: u32) -> bool {
        self.row(leg).is_some_and(|row| row.has_late() || row.behind() > self.near_bytes())
    }

    fn near_bytes(&self) -> u64 {
        NEAR_BYTES.min(self.limits.queue_bytes_max as u64 / 2).max(1)
    }

    fn may_spill(&self, leg: u32) -> bool {
        let fits = self.disk.receivers < self.limits.spill_files_max;
        self.limits.spill_bytes_max > 0 && self.row(leg).is_some_and(|row| fits || row.spill.is_some())
    }

    /// From octet `next` on a copy waits for its receiver.
    fn begin_spill(&mut self, source: u32, p: &Passage, leg: u32, next: u64, begun: bool, tx: &mut Tx<'_>) {
        let Some(row) = self.row_mut(leg) else { return };
        row.held.push(Held::spill(source, p, next, begun));
        if row.spill.is_some() {
            return;
        }
        row.spill = Some(Box::default());
        self.disk.receivers += 1;
        if let Some(conn) = self.conn_of(leg) {
            conn.spills = true;
        }
        self.tell_spill(leg, true, tx);
    }

    fn tell_spill(&self, leg: u32, on: bool, tx: &mut Tx<'_>) {
        let Some(row) = self.row(leg).filter(|row| !row.unseen) else { return };
        let waiting_bytes = row.behind();
        tx.news(What::Pressure(Pressure { leg: Some(row.key), on, waiting_bytes, kept: true }));
    }

    /// A piece waits for a receiver that is behind. True: its source must wait too.
    #[expect(clippy::too_many_arguments, reason = "one call from one loop")]
    pub(super) fn spill_piece(
        &mut self,
        target: u32,
        source: u32,
        p: &Passage,
        start: u64,
        piece: &Bytes,
        alone: bool,
        tx: &mut Tx<'_>,
    ) -> bool {
        let open = |held: &Held| held.is_of(source, p.id) && !held.finished;
        if self.row(target).is_some_and(|row| !row.held.iter().any(open)) {
            self.begin_spill(source, p, target, start, false, tx);
        }
        let (from, near) = (self.gate_of(source), self.near_bytes());
        let Some(row) = self.row_mut(target) else { return false };
        let (behind, late) = (row.behind(), row.has_late());
        let few = row.held.iter().map(|held| held.pieces.len()).sum::<usize>() < NEAR_PIECES;
        let Some(held) = row.held.iter_mut().find(|held| open(held)) else { return false };
        held.total = p.total.map(|total| p.out(total));
        if piece.is_empty() {
            return false;
        }
        let bytes = if piece.len() <= COPY_MAX { Bytes::copy_from_slice(piece) } else { piece.clone() };
        let is_near = !late
            && few
            && row.spill.as_ref().is_some_and(|spill| spill.file.is_none())
            && behind + bytes.len() as u64 <= near;
        held.bytes += bytes.len();
        held.pieces.push_back(Piece {
            start,
            octets: if is_near { Octets::Near(bytes) } else { Octets::Late(bytes) },
        });
        if !is_near {
            self.place(target);
        }
        self.wants_drain(target);
        let unwritten = self.disk.unwritten > self.limits.spill_unwritten_bytes_max;
        let Some(row) = self.rows.get_mut(target as usize) else { return false };
        let (late, much) = (row.must_wait(), row.behind() > near);
        let Some((from, spill)) = from.zip(row.spill.as_mut()) else { return late || unwritten };
        let Some(conn) = self.conns.get_mut(&from) else { return late || unwritten };
        let mut note = |list: &mut Vec<ConnId>| {
            if !list.contains(&from) {
                list.push(from);
                conn.spill_waits += 1;
            }
        };
        if late {
            note(&mut spill.blocks);
        } else if alone && much {
            conn.spill_paced = true;
            if !spill.paced.contains(&from) {
                spill.paced.push(from);
            }
        } else if unwritten {
            note(&mut self.disk.blocks);
        } else {
            return false;
        }
        true
    }

    /// The chunk with the last octet ended, or the message is whole: of what waits the same is so. They need not be one: chunks
    /// may come in any order. True: its source must wait.
    pub(super) fn spill_ends(
        &mut self,
        target: u32,
        source: u32,
        p: &Passage,
        flag: Flag,
        tx: &mut Tx<'_>,
    ) -> bool {
        let open = |held: &Held| held.is_of(source, p.id) && !held.finished;
        let next = p.out(p.next);
        if self.row(target).is_some_and(|row| !row.held.iter().any(open)) {
            // It has no octets.
            self.begin_spill(source, p, target, next, false, tx);
        }
        let held = self.row_mut(target).and_then(|row| row.held.iter_mut().find(|held| open(held)));
        if let Some(held) = held {
            if flag == Flag::Last {
                held.pieces.push_back(Piece { start: next, octets: Octets::End });
            }
            held.finished = p.done;
        }
        self.wants_drain(target);
        // A message, or a chunk, may have no octets: those are not counted by them.
        let from = self.gate_of(source);
        let row = self.rows.get_mut(target as usize).filter(|row| row.is_crowded());
        let spill = row.and_then(|row| row.spill.as_mut());
        let Some((spill, (from, conn))) =
            spill.zip(from.and_then(|from| Some((from, self.conns.get_mut(&from)?))))
        else {
            return false;
        };
        if !spill.blocks.contains(&from) {
            spill.blocks.push(from);
            conn.spill_waits += 1;
        }
        true
    }

    /// Gives to the disk what waits for room there, as far as there is some.
    fn place(&mut self, leg: u32) {
        let file_max = self.limits.spill_file_bytes_max.max(1);
        loop {
            let id = SpillId(self.serial + 1);
            let Some(row) = self.rows.get_mut(leg as usize).filter(|row| row.has_late()) else { return };
            let tail = row.tail();
            let pieces: usize = row.held.iter().map(|held| held.pieces.len()).sum();
            let Some((spill, (held, nth))) =
                row.spill.take().zip(row.piece_mut(|octets| matches!(octets, Octets::Late(_))))
            else {
                return;
            };
            let mut spill = spill;
            let (head, extent) = spill.file.as_ref().map_or((0, 0), |file| (file.head, file.extent));
            let length = held.pieces.get(nth).and_then(Piece::bytes).map_or(0, |bytes| bytes.len() as u64);
            // A piece does not go over the end of the file: what is left of it begins it anew.
            let length = length.min(file_max - head % file_max);
            let used = head - tail.unwrap_or(head);
            let grown = if head + length >= file_max { file_max } else { extent.max(head + length) };
            let fits = used + length <= file_max
                && pieces < PIECES_MAX
                && self.disk.bytes + (grown - extent) <= self.limits.spill_bytes_max;
            let piece = held.pieces.get_mut(nth).filter(|_| fits);
            let Some((start, bytes)) = piece.and_then(|piece| Some((piece.start, piece.bytes()?.clone())))
            else {
                row.spill = Some(spill);
                self.disk.short.insert(leg);
                return;
            };
            let first = bytes.slice(..length as usize);
            let rest = bytes.slice(length as usize..);
            if let Some(piece) = held.pieces.get_mut(nth) {
                piece.octets = Octets::Writing { bytes: first.clone(), at: head };
            }
            if !rest.is_empty() {
                held.pieces.insert(nth + 1, Piece { start: start + length, octets: Octets::Late(rest) });
            }
            let file = spill.file.get_or_insert_with(|| {
                self.serial = id.0;
                self.disk.files.insert(id, leg);
                File { id, head: 0, extent: 0, coming: false }
            });
            (file.head, file.extent) = (head + length, grown);
            let order = SpillOrder::Write { file: file.id, mark: head, at: head % file_max, bytes: first };
            row.spill = Some(spill);
            self.disk.bytes += grown - extent;
            self.disk.unwritten += length as usize + PIECE_COST;
            self.disk.spilled += length;
            self.disk.orders.push_back(Box::new(order));
        }
    }

    /// Has the next octets brought back that its connection will have room for.
    pub(super) fn fetch(&mut self, leg: u32) {
        let file_max = self.limits.spill_file_bytes_max.max(1);
        let most = self.near_bytes();
        let Some(row) = self.rows.get_mut(leg as usize) else { return };
        let Some(file) = row.spill.as_mut().and_then(|spill| spill.file.as_mut()).filter(|file| !file.coming)
        else {
            return;
        };
        let mut near = 0;
        for held in row.held.iter_mut().filter(|held| held.spill) {
            for nth in 0..held.pieces.len() {
                let Some(piece) = held.pieces.get_mut(nth) else { break };
                if let Some(bytes) = piece.bytes() {
                    near += bytes.len() as u64;
                    if near >= most {
                        return;
                    }
                }
                let Octets::There { at, length } = piece.octets else { continue };
                let part = length.min(most).min(file_max - at % file_max);
                let start = piece.start;
                piece.octets = Octets::Coming { at, length: part };
                if part < length {
                    let octets = Octets::There { at: at + part, length: length - part };
                    held.pieces.insert(nth + 1, Piece { start: start + part, octets });
                }
                file.coming = true;
                let order =
                    SpillOrder::Fetch { file: file.id, mark: at, at: at % file_max, length: part as usize };
                self.disk.orders.push_back(Box::new(order));
                return;
            }
        }
    }

    /// The disk has done something.
    pub(crate) fn spilled(&mut self, now: Now, word: SpillWord, tx: &mut Tx<'_>) {
        match word {
            SpillWord::Written { file, mark, bytes } => {
                self.is_written(bytes);
                if let Some(leg) = self.disk.files.get(&file).copied() {
                    if let Some(row) = self.row_mut(leg) {
                        row.written(mark);
                    }
                    self.wants_drain(leg);
                    // Pieces on disk that are neighbours are one: there may be room for others.
                    self.spill_settles(leg);
                }
            }
            SpillWord::Fetched { file, mark, bytes } => {
                let Some(leg) = self.disk.files.get(&file).copied() else { return };
                if let Some(row) = self.row_mut(leg) {
                    row.fetched(mark, bytes);
                }
                self.wants_drain(leg);
                self.spill_settles(leg);
            }
            SpillWord::Failed { file, bytes } => {
                if bytes > 0 {
                    self.is_written(bytes);
                }
                if let Some(leg) = self.disk.files.get(&file).copied() {
                    self.disk_failed(now, leg, tx);
                }
            }
        }
        self.work(now, tx);
    }

    /// Octets that the disk had still to write are no longer in memory for it.
    fn is_written(&mut self, bytes: usize) {
        self.disk.unwritten = self.disk.unwritten.saturating_sub(bytes + PIECE_COST);
        if self.disk.unwritten <= self.limits.spill_unwritten_bytes_max / 2 {
            let sources = std::mem::take(&mut self.disk.blocks);
            self.release(&sources);
        }
    }

    /// What was in a file is lost: the messages of which something was there are given up for this receiver.
    fn disk_failed(&mut self, now: Now, leg: u32, tx: &mut Tx<'_>) {
        let Some(row) = self.row_mut(leg) else { return };
        let is_lost = |held: &mut Held| held.spill && held.pieces.iter().any(|piece| piece.at().is_some());
        let lost: Vec<Held> = row.held.extract_if(.., is_lost).collect();
        for held in &lost {
            self.not_held(leg, Drop::MsrpSpill, tx);
            self.abort_held(now, leg, held, tx);
            self.held_failed(now, leg, held, tx);
        }
        self.spill_settles(leg);
        // What was behind it may go.
        self.wants_drain(leg);
        self.relieve_held(leg, tx);
        self.spill_over(leg, tx);
    }

    /// After something of what waits for a receiver went: the file is ended when nothing is in it, who waited for room goes on.
    pub(super) fn spill_settles(&mut self, leg: u32) {
        let Some(row) = self.rows.get_mut(leg as usize) else { return };
        let is_empty = row.tail().is_none();
        let Some(spill) = row.spill.as_mut() else { return };
        if is_empty && let Some(file) = spill.file.take() {
            self.disk.end(&file);
        }
        self.place(leg);
        let near = self.near_bytes();
        let Some(row) = self.rows.get_mut(leg as usize) else { return };
        let (late, much) = (row.must_wait(), row.behind() > near);
        let Some(spill) = row.spill.as_mut() else { return };
        if late {
            return;
        }
        let blocks = std::mem::take(&mut spill.blocks);
        let paced = if much { Vec::new() } else { std::mem::take(&mut spill.paced) };
        // Whoever waits for others of its receivers goes on with this one: those are behind it from now on.
        let open = |held: &Held| (held.spill && !held.finished).then(|| held.whose().0);
        let open: Vec<u32> = if much { Vec::new() } else { row.held.iter().filter_map(open).collect() };
        self.release(&blocks);
        self.go_on(&paced);
        open.into_iter().for_each(|source| self.goes_on_with(source));
    }

    /// Somebody's file has ended: there may be room for what waits for others.
    pub(super) fn room_again(&mut self) {
        if std::mem::take(&mut self.disk.freed) {
            let short = std::mem::take(&mut self.disk.short);
            short.into_iter().for_each(|leg| self.spill_settles(leg));
        }
    }

    /// The far end of a receiver has refused a message, or does not answer: what it may still report is not waited for.
    pub(super) fn expects_no_report(&mut self, leg: u32, source: u32, passage: u64) {
        let expects = self.row_mut(leg).map(|row| row.expects.iter_mut()).into_iter().flatten();
        for expect in expects.filter(|expect| (expect.source, expect.passage) == (source, passage)) {
            expect.spilled = false;
        }
    }

    /// Sources need not wait for room on disk any more.
    fn release(&mut self, sources: &[ConnId]) {
        for id in sources {
            if let Some(conn) = self.conns.get_mut(id) {
                conn.spill_waits = conn.spill_waits.saturating_sub(1);
            }
        }
        self.unblock(sources);
    }

    /// There is a receiver that is not behind any more.
    fn go_on(&mut self, sources: &[ConnId]) {
        for id in sources {
            if let Some(conn) = self.conns.get_mut(id) {
                conn.spill_paced = false;
            }
        }
        self.unblock(sources);
    }

    /// The same, of who says what this receiver has now.
    fn goes_on_with(&mut self, source: u32) {
        let Some(gate) = self.gate_of(source) else { return };
        if self.conns.get(&gate).is_some_and(|conn| conn.waits == 0 || !conn.waits_for_all) {
            self.go_on(&[gate]);
        }
    }

    /// All of a message that waited has gone to the connection. What the far end says of it is awaited; whether its sender
    /// still is, is another matter.
    pub(super) fn spill_sent(&mut self, now: Now, leg: u32, held: &Held) {
        let until = now.mono + std::time::Duration::from_millis(self.limits.report_ms);
        let (source, passage) = held.whose();
        let p = self.row_mut(source).and_then(|row| row.passages.of_mut(passage));
        if let Some(p) = p {
            // The rest of a message: what comes before it may still come.
            let stage = if p.done { CopyStage::Sent } else { CopyStage::Live };
            p.until = p.until.max(until);
            if let Some(copy) = p.copy_mut(leg).filter(|copy| copy.stage == CopyStage::Held) {
                (copy.stage, copy.begun) = (stage, true);
            }
        }
        let reports_max = self.limits.leg_reports_max;
        let Some(row) = self.row_mut(leg) else { return };
        if held.success || held.failure != msrp::FailureReport::No {
            if row.expects.len() >= reports_max {
                row.expects.pop_front();
            }
            let message_id = held.shown_id().to_owned();
            let tag = super::tag(&message_id);
            let spilled = held.success;
            row.expects.push_back(Expect { tag, message_id, source, passage, until, spilled });
            self.sweep_at(leg, until);
        }
    }

    /// A receiver has caught up with a message that is still being said: it goes on as it comes.
    pub(super) fn spill_caught_up(&mut self, leg: u32, held: &Held) {
        let (source, passage) = held.whose();
        self.copy_of(source, passage, leg, |copy| {
            (copy.stage, copy.begun) = (CopyStage::Live, copy.begun || held.begun);
        });
        self.goes_on_with(source);
    }

    /// Whether a receiver that is behind is the reason why somebody waits.
    pub(super) fn holds_up(&self, leg: u32) -> bool {
        let spill = self.row(leg).and_then(|row| row.spill.as_ref());
        spill.is_some_and(|spill| !spill.blocks.is_empty() || !spill.paced.is_empty())
    }

    /// A receiver that was behind has all of it: with the kernel, and where its far end answers or reports, with that. Control
    /// is told, and may end its session.
    pub(super) fn spill_over(&mut self, leg: u32, tx: &mut Tx<'_>) {
        let Some(row) = self.row(leg).filter(|row| row.spill.is_some() && !row.is_spilling()) else { return };
        if row.expects.iter().any(|expect| expect.spilled) {
            return;
        }
        if let Some(conn) = row.conn().and_then(|conn| self.conns.get(&conn)) {
            let is_asked = |t: &super::Transaction| t.target == leg && t.wait == super::Wait::Answer;
            if conn.load() > 0 || conn.transactions.iter().any(is_asked) {
                return;
            }
        }
        self.end_spill(leg);
        self.tell_spill(leg, false, tx);
    }

    /// Nothing is kept for a receiver any more: he has it, or is lost.
    pub(super) fn end_spill(&mut self, leg: u32) {
        let Some(row) = self.row_mut(leg) else { return };
        let Some(spill) = row.spill.take() else { return };
        if let Some(file) = &spill.file {
            self.disk.end(file);
        }
        self.disk.receivers -= 1;
        self.release(&spill.blocks);
        self.go_on(&spill.paced);
    }

    /// The legs of a connection that were behind, after something of it went to the kernel.
    pub(super) fn spills_over(&mut self, conn: ConnId, tx: &mut Tx<'_>) {
        let Some(row) = self.conns.get(&conn).filter(|row| row.spills && row.load() == 0) else { return };
        let legs = row.legs.clone();
        legs.iter().for_each(|leg| self.spill_over(*leg, tx));
        let spills = legs.iter().any(|leg| self.row(*leg).is_some_and(|row| row.spill.is_some()));
        if let Some(row) = self.conns.get_mut(&conn) {
            row.spills = spills;
        }
    }
}

impl Row {
    /// A piece is on disk; its neighbour before it and it are one.
    fn written(&mut self, mark: u64) {
        let is = |octets: &Octets| matches!(octets, Octets::Writing { at, .. } if *at == mark);
        // It may have gone out from memory meanwhile.
        let Some((held, nth)) = self.piece_mut(is) else { return };
        let Some(piece) = held.pieces.get_mut(nth) else { return };
        let (start, length) = (piece.start, piece.bytes().map_or(0, |bytes| bytes.len() as u64));
        piece.octets = Octets::There { at: mark, length };
        let Some(before) = nth.checked_sub(1).and_then(|before| held.pieces.get_mut(before)) else { return };
        if let Octets::There { at, length: had } = &mut before.octets
            && *at + *had == mark
            && before.start + *had == start
        {
            *had += length;
            held.pieces.remove(nth);
        }
    }

    /// A piece is back in memory.
    fn fetched(&mut self, mark: u64, bytes: Bytes) {
        if let Some(file) = self.spill.as_mut().and_then(|spill| spill.file.as_mut()) {
            file.coming = false;
        }
        let is = |octets: &Octets| matches!(octets, Octets::Coming { at, length } if *at == mark && *length == bytes.len() as u64);
        // Nobody may want it any more.
        if let Some((held, nth)) = self.piece_mut(is)
            && let Some(piece) = held.pieces.get_mut(nth)
        {
            piece.octets = Octets::Near(bytes);
        }
    }
}

/// The disk as an engine sees it.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// What is to be done, in order.
    pub(crate) orders: std::collections::VecDeque<Box<SpillOrder>>,
    /// Whose each file is.
    files: std::collections::BTreeMap<SpillId, u32>,
    /// Octets of them.
    bytes: u64,
    /// Receivers that are behind.
    receivers: usize,
    /// Octets that are not written yet.
    unwritten: usize,
    /// Octets that were ever given to the disk.
    pub(crate) spilled: u64,
    /// Sources that wait for the disk.
    blocks: Vec<ConnId>,
    /// Legs for which something waits that had no room.
    short: std::collections::BTreeSet<u32>,
    /// There is more room since they were looked at.
    pub(super) freed: bool,
}

impl Disk {
    fn end(&mut self, file: &File) {
        self.files.remove(&file.id);
        self.bytes -= file.extent;
        self.freed |= !self.short.is_empty();
        self.orders.push_back(Box::new(SpillOrder::End { file: file.id }));
    }

    /// How much there is of it, for whoever looks in from outside.
    pub(crate) fn sizes(&self) -> [(&'static str, usize); 4] {
        [
            ("files on disk", self.files.len()),
            ("receivers behind", self.receivers),
            ("octets not written", self.unwritten),
            ("orders to the disk", self.orders.len()),
        ]
    }
}
