//! Whole messages of our own: responses, reports, the empty SEND that binds. They may interrupt a chunk, but never
//! stand inside one (RFC 4975 §7.1.1: a chunk that may be interrupted ends with `+`).

use std::time::Duration;

use base::{Instant, Now};
use bytes::Bytes;
use msrp::{ByteRange, Flag, Head, HeadWriter, Method, Status, Tid};

use super::conn::Transaction;
use super::{Message, Passage, Wait};
use crate::ConnId;
use crate::media::Tx;

impl Message {
    /// When a request that ends now must have been answered.
    pub(crate) fn answer_until(&self, now: Now) -> Instant {
        now.mono + Duration::from_millis(self.limits.response_ms)
    }

    /// Sends a whole message on a connection.
    pub(crate) fn send(&mut self, now: Now, conn: ConnId, bytes: &Bytes, tx: &mut Tx<'_>) {
        let until = self.answer_until(now);
        if let Some(row) = self.conns.get_mut(&conn) {
            row.close_chunk(Flag::More, until);
            row.queue.push(bytes, false);
            tx.totals.requests_out += 1;
            self.list(conn);
        }
    }

    /// Answers a request, if its Failure-Report wants that answer (RFC 4975 §7.2).
    pub(crate) fn respond(
        &mut self,
        now: Now,
        conn: ConnId,
        request: &Head,
        status: Status,
        tx: &mut Tx<'_>,
    ) {
        if let Some(bytes) = msrp::response(request, status) {
            self.send(now, conn, &bytes, tx);
        }
    }

    /// REPORT to the sender of a message that it failed, or that it arrived (RFC 4975 §7.1.2, §7.1.3).
    pub(crate) fn report(
        &mut self,
        now: Now,
        source: u32,
        p: &Passage,
        range: ByteRange,
        status: Status,
        tx: &mut Tx<'_>,
    ) {
        let tid = Tid::fresh(&mut self.entropy);
        let Some(row) = self.row(source) else { return };
        let (key, unseen) = (row.key, row.unseen);
        if let Some(conn) = row.conn() {
            let bytes = msrp::report(&tid, &p.head, range, status);
            self.send(now, conn, &bytes, tx);
        }
        if !unseen && !status.is_success() {
            tx.news(contract::news::What::Report(contract::Report {
                leg: Some(key),
                message_id: p.message_id.clone(),
                status: u32::from(status.0),
            }));
        }
    }

    /// The active side sends at once, so that the passive side can bind (RFC 4975 §5.4).
    pub(crate) fn send_empty(&mut self, now: Now, leg: u32, tx: &mut Tx<'_>) {
        let tid = Tid::fresh(&mut self.entropy);
        let id = self.entropy.token(80);
        let until = self.answer_until(now);
        let Some(row) = self.rows.get(leg as usize) else { return };
        let Some(conn) = row.conn() else { return };
        let Some(to) = self.conns.get_mut(&conn) else { return };
        to.close_chunk(Flag::More, until);
        to.queue.write(|buffer| {
            HeadWriter::request(buffer, &tid, Method::Send.as_str(), row.peer.as_bytes(), row.own.as_bytes())
                .message_id(&id)
                .byte_range(ByteRange::EMPTY)
                .end(Flag::Last);
        });
        to.transactions.push_back(Transaction {
            tid,
            target: leg,
            carries: None,
            asks: None,
            until,
            wait: Wait::Answer,
        });
        tx.totals.requests_out += u64::from(!to.hidden);
        self.arm(conn, until);
        self.list(conn);
    }
}
