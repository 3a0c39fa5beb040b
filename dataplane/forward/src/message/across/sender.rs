//! A room over several shards, on the sender's: each octet that is accepted goes once to every shard that has members who
//! are to have it, and no more than may be on its way (see [`super`]).

use std::sync::Arc;

use base::Now;
use bytes::Bytes;
use contract::LegKey;
use msrp::Flag;

use super::{Across, Begin, Letter, Over, Said, Windows};
use crate::Output;
use crate::media::Tx;
use crate::message::conn::COPY_MAX;
use crate::message::{Message, Passage, Row};
use crate::outposts::{Handed, Word};

impl Message {
    pub(super) fn post(&mut self, shard: u16, leg: LegKey, letter: Letter) {
        let handed = Handed { from: self.shard, leg, word: Word::Message(letter) };
        self.letters.push_back((shard, Box::new(handed)));
    }

    /// Hands a word about a message over to a shard that has members who are to have it.
    fn tell(&mut self, source: u32, (shard, hidden): (u16, bool), said: Said) {
        let weight = said.weight();
        let max = self.limits.handed_bytes_max;
        let Some(row) = self.rows.get_mut(source as usize) else { return };
        let across = row.across.get_or_insert_with(|| Box::new(Across::Sender(Windows::default())));
        if let Across::Sender(windows) = &mut **across {
            let octets = match windows.octets.iter_mut().find(|(of, _)| *of == shard) {
                Some((_, octets)) => {
                    *octets += weight;
                    *octets
                }
                None => {
                    windows.octets.push((shard, weight));
                    weight
                }
            };
            windows.full |= octets > max;
        }
        let (leg, serial) = (row.key, row.serial);
        self.post(shard, leg, Letter { at: source, serial, hidden, said });
    }

    /// Octets that were accepted go to the shards that have members who are to have them. True: their source must wait.
    pub(in crate::message) fn hand_piece(&mut self, source: u32, p: &mut Passage, piece: &Bytes) -> bool {
        let Some(mut far) = p.far.take() else { return false };
        // A small piece must not keep the whole read alive that brought it.
        let bytes = if piece.len() <= COPY_MAX { Bytes::copy_from_slice(piece) } else { piece.clone() };
        for at in &mut far.shards {
            if !std::mem::replace(&mut at.begun, true) {
                let begin = Begin {
                    passage: p.id,
                    head: p.head.clone(),
                    shown_id: p.shown_id.clone(),
                    chunk_start: p.chunk_start,
                    shift: p.shift,
                    total: p.total,
                    inner: far.inner.clone(),
                    is_imdn: far.is_imdn,
                    success: p.success && !at.to.is_empty(),
                    to: Arc::clone(&at.to),
                    taps: Arc::clone(&at.taps),
                    next: p.next,
                    bytes: bytes.clone(),
                };
                self.tell(source, (at.shard, at.hidden), Said::Begin(Box::new(begin)));
                continue;
            }
            let bytes = bytes.clone();
            self.tell(source, (at.shard, at.hidden), Said::Piece { passage: p.id, next: p.next, bytes });
        }
        p.far = Some(far);
        self.row(source).is_some_and(Row::is_far_full)
    }

    /// Another chunk of a message begins.
    pub(in crate::message) fn hand_chunk(&mut self, source: u32, passage: u64) {
        let p = self.row(source).and_then(|row| row.passages.of(passage));
        let Some((far, head)) = p.and_then(|p| Some((p.far.as_ref()?, &p.head))) else { return };
        let head = head.clone();
        let begun: Vec<(u16, bool)> =
            far.shards.iter().filter(|at| at.begun).map(|at| (at.shard, at.hidden)).collect();
        for shard in begun {
            self.tell(source, shard, Said::Chunk { passage, head: head.clone() });
        }
        self.wait_for_shards(source);
    }

    /// Chunks may come without octets: they fill the window all the same, and their connection is not read then.
    fn wait_for_shards(&mut self, source: u32) {
        if let Some(conn) = self.row(source).filter(|row| row.is_far_full()).and_then(Row::conn) {
            self.block(conn);
        }
    }

    /// The source's chunk ended, and with `done` the message.
    pub(in crate::message) fn hand_end(&mut self, source: u32, p: &Passage, flag: Flag) {
        let Some(far) = &p.far else { return };
        for at in far.shards.iter().filter(|at| at.begun) {
            let (passage, next, last, done) = (p.id, p.next, p.last, p.done);
            self.tell(source, (at.shard, at.hidden), Said::End { passage, flag, next, last, done });
        }
        self.wait_for_shards(source);
    }

    /// The message is given up.
    pub(in crate::message) fn hand_abort(&mut self, source: u32, p: &mut Passage) {
        let Some(far) = p.far.take() else { return };
        for at in far.shards.iter().filter(|at| at.begun) {
            self.tell(source, (at.shard, at.hidden), Said::Abort { passage: p.id });
        }
    }

    /// A shard has taken so much.
    pub(super) fn taken(&mut self, from: u16, at: u32, octets: usize) {
        let max = self.limits.handed_bytes_max;
        let Some(row) = self.row_mut(at) else { return };
        let Some(Across::Sender(windows)) = row.across.as_deref_mut() else { return };
        if let Some((_, on_way)) = windows.octets.iter_mut().find(|(of, _)| *of == from) {
            *on_way = on_way.saturating_sub(octets);
        }
        windows.octets.retain(|(_, on_way)| *on_way > 0);
        if windows.full && windows.octets.iter().all(|(_, on_way)| *on_way <= max / 2) {
            windows.full = false;
            let conn = row.conn();
            self.unblock(conn.as_slice());
        }
    }

    /// All that a shard can do for a message is done.
    pub(super) fn over(
        &mut self,
        now: Now,
        from: u16,
        (at, passage): (u32, u64),
        over: Over,
        tx: &mut Tx<'_>,
    ) {
        let Some(mut p) = self.take(at, passage) else { return };
        if let Some(far) = p.far.as_mut().and_then(|far| far.shards.iter_mut().find(|far| far.shard == from))
        {
            far.over = Some(over);
        }
        self.settle(now, at, &mut p, tx);
        self.keep(at, p);
    }

    /// Puts out what is to be handed over, as far as the outbox has room. True: there is more.
    pub(in crate::message) fn flush_letters(&mut self, tx: &mut Tx<'_>) -> bool {
        while !self.letters.is_empty() {
            if tx.out.room() < 2 {
                return true;
            }
            let Some((shard, handed)) = self.letters.pop_front() else { break };
            if handed.is_seen() {
                tx.totals.handed_out += 1;
            }
            tx.push(Output::Hand { shard, handed });
        }
        false
    }
}
