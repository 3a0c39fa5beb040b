//! NICKNAME (RFC 7701 §7): its form is judged here. In a room control decides; where the leg is relayed to one other,
//! that one's peer does: behind a Participating Function stands the room that said `a=chatroom:nickname`, and its user
//! is one participant there, whichever of his devices asks (CPM-FACTS §2.8, §3.8).
//!
//! ```text
//!   asked ── room ──► control ── Decide ──────────► answered
//!     └───── relay ─► the far leg ── response ────► answered          no answer in time: 403, 408
//! ```

use std::time::Duration;

use base::Now;
use contract::{Decide, MessageNews, message_news, news::What};
use msrp::{Flag, Head, HeadWriter, Method, Status, Tid};

use super::conn::Transaction;
use super::{Asked, Lead, Message, Wait};
use crate::media::Tx;
use crate::{ConnId, Drop};

impl Message {
    pub(super) fn nickname(&mut self, now: Now, conn: ConnId, leg: u32, head: Head, tx: &mut Tx<'_>) {
        let id = self.number();
        let until = self.answer_until(now);
        let Some(row) = self.row(leg) else { return tx.totals.drop(Drop::MsrpNoSession) };
        let key = row.key;
        let far = match &row.lead {
            _ if row.asked.is_some() => Err(Status::FORBIDDEN),
            Lead::Room(room) if self.rooms.get(*room as usize).is_some_and(|room| room.nicknames) => Ok(None),
            Lead::Pass(targets) => self.only_peer(leg, targets).map(Some).ok_or(Status::FORBIDDEN),
            Lead::Room(_) | Lead::Nowhere => Err(Status::FORBIDDEN),
        };
        let is_sound = |wanted: &String| wanted.is_empty() || cpm::nickname::enforce(wanted).is_ok();
        let wanted = || head.use_nickname().filter(is_sound).ok_or(Status::NICKNAME_MALFORMED);
        let (far, wanted) = match far.and_then(|far| Ok((far, wanted()?))) {
            Ok(asked) => asked,
            Err(status) => {
                tx.totals.drop(Drop::MsrpRefused);
                return self.respond(now, conn, &head, status, tx);
            }
        };
        tx.totals.requests_taken += 1;
        // The far leg's own time runs out first.
        let until = if far.is_some() { until + Duration::from_secs(1) } else { until };
        if let Some(row) = self.row_mut(leg) {
            row.asked = Some(Box::new(Asked { id, head, until }));
        }
        self.sweep_at(leg, until);
        match far {
            Some(far) => self.pass_nickname(now, (leg, id), far, &wanted, tx),
            None => {
                let what = Some(message_news::What::Nickname(wanted));
                tx.news(What::Message(MessageNews { leg: Some(key), id, what }));
            }
        }
    }

    /// The one connected target that is not another device of the same participant.
    fn only_peer(&self, leg: u32, targets: &[u32]) -> Option<u32> {
        let sender = self.row(leg)?;
        let mut others = targets.iter().filter(|t| self.row(**t).is_some_and(|row| !row.is_sibling(sender)));
        let only = others.next().filter(|_| others.next().is_none())?;
        self.row(*only)?.conn().map(|_| *only)
    }

    /// Asks the peer of the far leg.
    fn pass_nickname(&mut self, now: Now, asks: (u32, u64), far: u32, wanted: &str, tx: &mut Tx<'_>) {
        let until = self.answer_until(now);
        let tid = Tid::fresh(&mut self.entropy);
        let Some(row) = self.rows.get(far as usize) else { return };
        let Some(conn) = row.conn() else { return };
        let Some(to) = self.conns.get_mut(&conn) else { return };
        to.close_chunk(Flag::More, until);
        to.queue.write(|buffer| {
            let method = Method::Nickname.as_str();
            HeadWriter::request(buffer, &tid, method, row.peer.as_bytes(), row.own.as_bytes())
                .use_nickname(wanted)
                .end(Flag::Last);
        });
        let transaction =
            Transaction { tid, target: far, carries: None, asks: Some(asks), until, wait: Wait::Answer };
        to.transactions.push_back(transaction);
        tx.totals.requests_out += 1;
        self.arm(conn, until);
        self.list(conn);
    }

    /// The peer of the far leg has answered, or will not: the one who asked hears of it.
    pub(super) fn nickname_answered(&mut self, now: Now, asks: (u32, u64), status: Status, tx: &mut Tx<'_>) {
        let (leg, id) = asks;
        let asked = self.row_mut(leg).and_then(|row| row.asked.take_if(|asked| asked.id == id));
        let (Some(asked), Some(conn)) = (asked, self.conn_id(leg)) else { return };
        // These speak of the far session, not of the asker's.
        let is_far = matches!(status, Status::NO_SESSION | Status::OTHER_CONNECTION);
        self.respond(now, conn, &asked.head, if is_far { Status::TIMEOUT } else { status }, tx);
    }

    /// Control has decided.
    pub(crate) fn decide(&mut self, now: Now, decide: &Decide, tx: &mut Tx<'_>) {
        if decide.leg.is_none() {
            return self.auth_judged(now, decide, tx);
        }
        let leg = self.rows.iter().find(|(_, row)| Some(row.key) == decide.leg).map(|(at, _)| at as u32);
        let Some((leg, row)) = leg.and_then(|leg| Some((leg, self.row_mut(leg)?))) else { return };
        let Some(asked) = row.asked.take_if(|asked| asked.id == decide.id) else { return };
        let status = Status(u16::try_from(decide.status).unwrap_or(403));
        if status.is_success() {
            row.nickname.clone_from(&decide.nickname);
        }
        if let Some(conn) = self.conn_id(leg) {
            self.respond(now, conn, &asked.head, status, tx);
        }
    }
}
