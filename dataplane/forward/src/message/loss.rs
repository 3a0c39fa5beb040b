//! Connections that end, by their peers or by us, and what becomes of the messages on them (CPM-FACTS §2.27).

use std::time::Duration;

use base::Now;
use contract::leg_lost::Reason;
use msrp::Status;

use super::{CopyStage, Message, Stage};
use crate::media::Tx;
use crate::{CloseReason, ConnId, Drop, Output};

/// A connection that is closed may take so long to send what waits (CPM-FACTS §2.27).
const DRAIN: Duration = Duration::from_secs(5);

impl Message {
    /// The driver says that a connection is gone.
    pub(crate) fn closed(&mut self, now: Now, conn: ConnId, why: CloseReason, tx: &mut Tx<'_>) {
        let reason = match why {
            CloseReason::Closed => Reason::Closed,
            CloseReason::Reset => Reason::Reset,
            CloseReason::ConnectFailed => Reason::ConnectFailed,
            CloseReason::TlsFailed => Reason::TlsFailed,
        };
        if why == CloseReason::TlsFailed && self.conns.contains_key(&conn) {
            tx.totals.requests_in += 1;
            tx.totals.drop(Drop::MsrpTls);
        }
        self.gone(now, conn, reason, tx);
        self.work(now, tx);
    }

    /// A connection is no more: its legs are lost, their messages aborted, those to them failed.
    pub(crate) fn gone(&mut self, now: Now, conn: ConnId, reason: Reason, tx: &mut Tx<'_>) {
        let legs = self.conns.get(&conn).map(|row| row.legs.clone()).unwrap_or_default();
        for leg in legs {
            self.unbind(now, leg, tx);
            self.lose(leg, reason, tx);
        }
        self.forget(conn, tx);
    }

    pub(super) fn forget(&mut self, conn: ConnId, tx: &mut Tx<'_>) {
        if let Some(row) = self.conns.remove(&conn) {
            self.relay.lose(conn);
            self.let_go(&row.blocks);
            // What has begun and was not counted yet; of a body its head was.
            let begun = row.framer.as_ref().is_some_and(|framer| framer.held() > 0) || row.waiting.is_some();
            if begun && !row.hidden {
                tx.totals.requests_in += 1;
                tx.totals.drop(Drop::MsrpUnfinished);
            }
        }
        tx.totals.connections = self.conns.len() as u64;
    }

    /// Closes a connection of ours: at once, or when what was queued is sent.
    pub(crate) fn shut(&mut self, now: Now, conn: ConnId, abort: bool, tx: &mut Tx<'_>) {
        let until = now.mono + DRAIN;
        match self.conns.get_mut(&conn) {
            Some(row) if !abort => {
                row.closing = Some(until);
                let sources = std::mem::take(&mut row.blocks);
                self.let_go(&sources);
                self.arm(conn, until);
                self.list(conn);
            }
            _ => {
                self.forget(conn, tx);
                tx.push(Output::Shut { conn, abort });
            }
        }
    }

    /// Closes a connection that carries no session any more.
    pub(crate) fn shut_if_unused(&mut self, now: Now, conn: ConnId, tx: &mut Tx<'_>) {
        if self.conns.get(&conn).is_some_and(|row| row.legs.is_empty()) && !self.relay.uses(conn) {
            self.shut(now, conn, false, tx);
        }
    }

    /// Takes a leg off its connection: its messages are aborted, those to it failed (CPM-FACTS §2.27).
    pub(crate) fn unbind(&mut self, now: Now, leg: u32, tx: &mut Tx<'_>) {
        self.fail_begun(now, leg, tx);
        self.end_spill(leg);
        for (source, passage) in self.copies_to(leg) {
            if self.waits_on(leg, source, passage) {
                continue;
            }
            if !self.copy_taken(source, passage, leg) {
                self.copy_failed(now, source, passage, leg, Status::TIMEOUT, tx);
            }
        }
        let passages = self.row_mut(leg).map(|row| row.passages.take_all());
        for mut p in passages.into_iter().flatten() {
            match p.is_rest() {
                true => self.tap_ends(now, leg, &mut p, tx),
                false if !p.done => self.abort(now, leg, &mut p, tx),
                false => {}
            }
        }
        let Some(row) = self.row_mut(leg) else { return };
        row.expects.clear();
        row.asked = None;
        let conn = row.conn();
        if conn.is_some() {
            row.stage = Stage::Lost;
        }
        let (context, waits) = (row.key.context, row.is_far_full());
        let mut questions = Vec::new();
        if let Some(conn) = conn.and_then(|c| self.conns.get_mut(&c)) {
            conn.legs.retain(|l| *l != leg);
            questions.extend(conn.transactions.iter().filter(|t| t.target == leg).filter_map(|t| t.asks));
            conn.transactions.retain(|t| t.target != leg);
            let sources = std::mem::take(&mut conn.blocks);
            self.let_go(&sources);
        }
        // What it still has on its way to other shards holds up no other session of its connection.
        self.unblock(conn.filter(|_| waits).as_slice());
        for asks in questions {
            self.nickname_answered(now, asks, Status::TIMEOUT, tx);
        }
        self.wake(context);
    }

    /// Marks a copy as taken if its far end has answered all of it: its transactions ended with 200 (RFC 4975
    /// §7.1.1), and that the connection ends later says nothing against it.
    fn copy_taken(&mut self, source: u32, passage: u64, leg: u32) -> bool {
        let awaits = self.conn_of(leg).is_some_and(|conn| {
            conn.transactions.iter().any(|t| t.target == leg && t.carries == Some((source, passage)))
        });
        let row = self.row_mut(source);
        let p = row.and_then(|row| row.passages.of_mut(passage));
        // What a room sends is not answered.
        let copy = p.filter(|p| !p.room).and_then(|p| p.copy_mut(leg));
        match copy.filter(|copy| copy.stage == CopyStage::Sent && !copy.unsure && !awaits) {
            Some(copy) => {
                copy.stage = CopyStage::Taken;
                true
            }
            None => false,
        }
    }
}
