//! A room over several shards, on the members': who speaks elsewhere is a guest here, whose messages are spread to the
//! members as any other's (see [`super`]).

use std::sync::Arc;
use std::time::Duration;

use base::Now;
use bytes::Bytes;
use msrp::Tid;

use super::{Across, Begin, GUEST, Guest, Letter, Over, Said};
use crate::ConnId;
use crate::media::Tx;
use crate::message::{CopyStage, Message, Passage, Row};
use crate::modes::switch;
use crate::outposts::Handed;

impl Message {
    /// Takes what another shard hands over.
    pub(crate) fn handed(&mut self, now: Now, handed: &Handed, letter: &Letter, tx: &mut Tx<'_>) {
        let Letter { at, serial, said, .. } = letter;
        match said {
            // Of a row that is gone meanwhile nothing is owed.
            Said::Taken(_) | Said::Over { .. } if self.row(*at).is_none_or(|row| row.serial != *serial) => {}
            Said::Taken(octets) => self.taken(handed.from, *at, *octets),
            Said::Over { passage, over } => self.over(now, handed.from, (*at, *passage), *over, tx),
            said => self.guest_hears(now, handed, letter, said, tx),
        }
        self.work(now, tx);
    }

    fn guest_hears(&mut self, now: Now, handed: &Handed, letter: &Letter, said: &Said, tx: &mut Tx<'_>) {
        let known = self.guests.get(&(handed.from, letter.serial)).copied();
        let guest = match (known, said) {
            (Some(guest), _) => guest,
            (None, Said::Begin(_)) => self.receive_guest(now, handed, letter),
            // The message was given up here before.
            (None, said) => {
                let &Letter { at, serial, hidden, .. } = letter;
                let said = Said::Taken(said.weight());
                return self.post(handed.from, handed.leg, Letter { at, serial, hidden, said });
            }
        };
        if let Some(here) = self.row_mut(guest).and_then(Row::guest) {
            here.owed += said.weight();
            here.hidden &= letter.hidden;
        }
        let own = |passage: u64| {
            self.row(guest).and_then(|row| row.passages.iter().find(|p| p.origin == passage)).map(|p| p.id)
        };
        let until = now.mono + Duration::from_millis(self.limits.incomplete_ms);
        match said {
            Said::Begin(begin) => self.guest_begins(now, guest, begin, tx),
            Said::Chunk { passage, head } => {
                if let Some(mut p) = own(*passage).and_then(|id| self.take(guest, id)) {
                    p.go_on(head.clone(), Tid::fresh(&mut self.entropy), until);
                    self.keep(guest, p);
                }
            }
            Said::Piece { passage, next, bytes } => {
                if let Some(p) = own(*passage).and_then(|id| self.take(guest, id)) {
                    self.guest_says(now, guest, p, (*next, bytes), tx);
                }
            }
            Said::End { passage, flag, next, last, done } => {
                if let Some(mut p) = own(*passage).and_then(|id| self.take(guest, id)) {
                    (p.next, p.last, p.done) = (*next, *last, *done);
                    self.end_chunks(now, guest, &mut p, *flag, tx);
                    if p.done {
                        self.settle(now, guest, &mut p, tx);
                        p.until = now.mono + Duration::from_millis(self.limits.report_ms);
                        let remembered = self.limits.leg_reports_max;
                        if let Some(row) = self.row_mut(guest) {
                            row.passages.make_room_for_done(remembered);
                        }
                    }
                    self.keep(guest, p);
                }
            }
            Said::Abort { passage } => {
                if let Some(mut p) = own(*passage).and_then(|id| self.take(guest, id)) {
                    self.abort(now, guest, &mut p, tx);
                }
            }
            Said::Taken(_) | Said::Over { .. } => {}
        }
        self.look_after(guest);
    }

    /// A leg of another shard says something to members here.
    fn receive_guest(&mut self, now: Now, handed: &Handed, letter: &Letter) -> u32 {
        let &Letter { at, serial, .. } = letter;
        let mut row = Row::new(handed.leg, self.number(), now.mono);
        let guest = Guest { shard: handed.from, at, serial, owed: 0, blocked: false, hidden: true };
        row.across = Some(Box::new(Across::Guest(guest)));
        let guest = self.rows.insert(row) as u32;
        self.guests.insert((handed.from, serial), guest);
        if let Some(members) = self.members.get_mut(&handed.leg.context) {
            members.push(guest);
        }
        guest
    }

    /// Octets for its members, which end before octet `next`.
    fn guest_says(
        &mut self,
        now: Now,
        guest: u32,
        mut p: Box<Passage>,
        (next, bytes): (u64, &Bytes),
        tx: &mut Tx<'_>,
    ) {
        p.next = next;
        p.until = p.until.max(now.mono + Duration::from_millis(self.limits.incomplete_ms));
        let full = !p.refused && self.spread(now, guest, &mut p, bytes, tx);
        self.keep(guest, p);
        if let Some(here) = self.row_mut(guest).and_then(Row::guest) {
            here.blocked |= full;
        }
    }

    fn guest_begins(&mut self, now: Now, guest: u32, begin: &Begin, tx: &mut Tx<'_>) {
        let until = now.mono + Duration::from_millis(self.limits.incomplete_ms);
        let Some(context) = self.row(guest).map(|row| row.key.context) else { return };
        let id = self.number();
        let mut p = Box::new(Passage::new(id, begin.head.clone(), Tid::fresh(&mut self.entropy), until));
        (p.origin, p.room, p.success) = (begin.passage, true, begin.success);
        p.show_as(begin.shown_id.clone());
        p.chunk_start = begin.chunk_start;
        (p.shift, p.total) = (begin.shift, begin.total);
        let members = self.members.get(&context).map(Vec::as_slice).unwrap_or_default();
        let is_named = |leg: &&u32| {
            let row = self.row(**leg);
            row.is_some_and(|row| row.names().any(|name| begin.to.contains_sorted(name)))
        };
        let kind = switch::Kind { inner: &begin.inner, is_imdn: begin.is_imdn, total: begin.total };
        p.copies =
            members.iter().filter(is_named).filter_map(|leg| switch::copy_for(self, *leg, &kind)).collect();
        let is_tap = |leg: &&u32| {
            let row = self.row(**leg).filter(|row| row.is_tap);
            row.is_some_and(|row| row.names().any(|name| begin.taps.contains_sorted(name)))
        };
        p.taps = self.taps_among(&p, members.iter().filter(is_tap).copied());
        self.guest_says(now, guest, p, (begin.next, &begin.bytes), tx);
        self.sweep_at(guest, until);
    }

    /// Members of a context that are not its legs here: who speaks from elsewhere.
    pub(in crate::message) fn guests_of(&self, context: u64) -> impl Iterator<Item = u32> {
        self.guests
            .values()
            .copied()
            .filter(move |at| self.row(*at).is_some_and(|r| r.key.context == context))
    }

    /// What a source is held up by: its connection; or of a guest its name in place of one.
    pub(in crate::message) fn gate_of(&self, source: u32) -> Option<ConnId> {
        let row = self.row(source)?;
        if row.is_guest() { Some(ConnId(GUEST | u64::from(source))) } else { row.conn() }
    }

    /// A source must wait, of whom no octet is being spread just now.
    pub(in crate::message) fn block_source(&mut self, source: u32) {
        if let Some(guest) = self.row_mut(source).and_then(Row::guest) {
            guest.blocked = true;
        } else if let Some(conn) = self.conn_id(source) {
            self.block(conn);
        }
    }

    /// A full member has room again. True: it held up a guest.
    pub(in crate::message) fn unblock_guest(&mut self, gate: ConnId) -> bool {
        let is_guest = gate.0 & GUEST != 0;
        if is_guest
            && let Ok(at) = u32::try_from(gate.0 & !GUEST)
            && let Some(guest) = self.row_mut(at).and_then(Row::guest)
        {
            guest.blocked = false;
            // Not at once: it may be its own message that is being worked on.
            self.partings.push(at);
        }
        is_guest
    }

    /// A guest's message is done: its sender hears of it. False: it is no guest's.
    pub(in crate::message) fn guest_settled(&mut self, guest: u32, p: &Passage) -> bool {
        let Some(row) = self.rows.get_mut(guest as usize) else { return false };
        let key = row.key;
        let Some(&mut Guest { shard, at, serial, hidden, .. }) = row.guest() else { return false };
        let written = p.copies.iter().any(|copy| copy.stage == CopyStage::Written);
        let over = Over { wanted: !p.copies.is_empty(), written };
        let said = Said::Over { passage: p.origin, over };
        self.post(shard, key, Letter { at, serial, hidden, said });
        self.partings.push(guest);
        true
    }

    /// Says what a guest has taken, once that is much or it goes.
    fn look_after(&mut self, at: u32) {
        let max = self.limits.handed_bytes_max;
        let Some(row) = self.rows.get_mut(at as usize) else { return };
        let key = row.key;
        let goes = row.passages.iter().next().is_none();
        let Some(guest) = row.guest().filter(|guest| !guest.blocked) else { return };
        if !goes && guest.owed < max / 4 {
            return;
        }
        let &mut Guest { shard, at: there, serial, owed, hidden, .. } = guest;
        guest.owed = 0;
        if goes {
            self.rows.remove(at as usize);
            self.guests.remove(&(shard, serial));
            if let Some(members) = self.members.get_mut(&key.context) {
                members.retain(|member| *member != at);
            }
        }
        if owed > 0 {
            let said = Said::Taken(owed);
            self.post(shard, key, Letter { at: there, serial, hidden, said });
        }
    }

    /// Guests that were freed say what they have taken; those whose last message is over go.
    pub(in crate::message) fn see_guests_off(&mut self) {
        for at in std::mem::take(&mut self.partings) {
            self.look_after(at);
        }
    }
}

/// Legs in the order of their ids.
trait Sorted {
    fn contains_sorted(&self, leg: u64) -> bool;
}

impl Sorted for Arc<[u64]> {
    fn contains_sorted(&self, leg: u64) -> bool {
        self.binary_search(&leg).is_ok()
    }
}
