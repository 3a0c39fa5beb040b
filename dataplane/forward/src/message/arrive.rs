//! What comes on a connection: from accept to the first request, then requests, bodies, ends.

use std::time::Duration;

use base::Now;
use bytes::{Bytes, BytesMut};
use contract::{LegLost, LegUp, leg_lost::Reason, news::What};
use msrp::{Broken, Event, Flag, Framer, Head, Method, Start, Status};

use super::{CopyStage, Lead, Message, Opened, Reading, Stage};
use crate::media::Tx;
use crate::modes::{back_to_back, switch};
use crate::{CloseReason, ConnId, DialId, Drop, Output};

/// What is to be done with the head of a message with content.
pub(crate) enum Verdict {
    /// It goes on as this passage.
    Take(u64),
    /// Its targets are not there yet.
    Wait,
    /// Answered with that, its body thrown away.
    Refuse(Status, Drop),
    /// Taken and thrown away.
    Discard(Drop),
}

impl Message {
    pub(crate) fn opened(&mut self, now: Now, opened: Opened, tx: &mut Tx<'_>) {
        let conn = opened.conn;
        if self.conns.len() >= self.limits.connections_max {
            tx.totals.drop(Drop::MsrpLimit);
            tx.push(Output::Shut { conn, abort: true });
            if let Some(leg) = opened.dial.and_then(|d| self.dials.remove(&d)) {
                self.lose(leg, Reason::ConnectFailed, tx);
            }
            return;
        }
        self.conns.insert(conn, super::Conn::new(&opened, Framer::new(self.framing), now.mono));
        tx.totals.connections = self.conns.len() as u64;
        match opened.dial {
            None => {
                let until = now.mono + Duration::from_millis(self.limits.arrival_ms);
                if let Some(row) = self.conns.get_mut(&conn) {
                    row.arrival = Some(until);
                    row.prefix = Some(BytesMut::new());
                }
                self.arm(conn, until);
            }
            Some(dial) => {
                // A leg that was removed meanwhile has no use for it.
                let Some(leg) = self.dials.remove(&dial) else { return self.shut(now, conn, true, tx) };
                let wanted = self.row(leg).and_then(|row| row.fingerprint);
                if wanted.is_some() && wanted != opened.fingerprint {
                    self.shut(now, conn, true, tx);
                    self.lose(leg, Reason::TlsFailed, tx);
                    return;
                }
                self.bind(leg, conn, tx);
                self.send_empty(now, leg, tx);
            }
        }
        self.work(now, tx);
    }

    pub(crate) fn dial_failed(&mut self, now: Now, dial: DialId, why: CloseReason, tx: &mut Tx<'_>) {
        if let Some(leg) = self.dials.remove(&dial) {
            let reason =
                if why == CloseReason::TlsFailed { Reason::TlsFailed } else { Reason::ConnectFailed };
            self.lose(leg, reason, tx);
            self.work(now, tx);
        }
    }

    fn bind(&mut self, leg: u32, conn: ConnId, tx: &mut Tx<'_>) {
        let Some(row) = self.rows.get_mut(leg as usize) else { return };
        row.stage = Stage::Bound(conn);
        let (key, unseen, captured) = (row.key, row.unseen, row.captured);
        if let Some(row) = self.conns.get_mut(&conn) {
            row.legs.push(leg);
            row.captured |= captured;
            (row.arrival, row.prefix) = (None, None);
        }
        if !unseen {
            tx.news(What::LegUp(LegUp { leg: Some(key) }));
        }
        self.wake(key.context);
    }

    /// A leg will not come up.
    pub(crate) fn lose(&mut self, leg: u32, reason: Reason, tx: &mut Tx<'_>) {
        let Some(row) = self.row_mut(leg) else { return };
        row.stage = Stage::Lost;
        let (key, unseen) = (row.key, row.unseen);
        if !unseen {
            tx.news(What::LegLost(LegLost { leg: Some(key), reason: reason as i32 }));
        }
        self.wake(key.context);
    }

    pub(crate) fn received(&mut self, now: Now, conn: ConnId, bytes: Bytes, tx: &mut Tx<'_>) {
        let Some(row) = self.conns.get_mut(&conn).filter(|row| row.closing.is_none()) else { return };
        if row.captured {
            spool(now, self.context_of(conn), conn, &self.conns, &bytes, true, tx);
        }
        let Some(row) = self.conns.get_mut(&conn) else { return };
        if row.blocked {
            row.held.push_back(bytes);
        } else {
            self.read(now, conn, bytes, tx);
        }
        self.work(now, tx);
    }

    /// Works through a piece of input until it is used up or something must wait.
    pub(crate) fn read(&mut self, now: Now, conn: ConnId, bytes: Bytes, tx: &mut Tx<'_>) {
        let whole = bytes.clone();
        let mut input = bytes;
        let Some(mut framer) = self.conns.get_mut(&conn).and_then(|c| c.framer.take()) else { return };
        loop {
            let Some(row) = self.conns.get_mut(&conn) else { return };
            if row.blocked {
                if !input.is_empty() {
                    row.held.push_front(input);
                }
                break;
            }
            let event = match row.waiting.take() {
                Some(head) => Ok(Some(Event::Head(head))),
                None => framer.next(&mut input),
            };
            match event {
                Ok(None) => {
                    if let Some(prefix) = row.prefix.as_mut() {
                        prefix.extend_from_slice(&whole);
                    }
                    break;
                }
                Ok(Some(Event::Head(head))) => {
                    if self.hands_over(conn, &head, &whole, tx) {
                        return;
                    }
                    self.head(now, conn, head, tx);
                }
                Ok(Some(Event::Body(piece))) => self.body(now, conn, &piece, tx),
                Ok(Some(Event::End(flag))) => self.end(now, conn, flag, tx),
                Ok(Some(Event::Bad(bad))) => {
                    tx.totals.requests_in += 1;
                    tx.totals.drop(Drop::MsrpMalformed);
                    row.prefix = None;
                    if let Some(answer) = bad.answer() {
                        self.send(now, conn, &answer, tx);
                    }
                }
                Err(why) => {
                    tx.totals.requests_in += 1;
                    let too_long = matches!(why, Broken::HeadTooLong | Broken::BodyTooLong);
                    tx.totals.drop(if too_long { Drop::MsrpTooLong } else { Drop::MsrpMalformed });
                    self.gone(now, conn, Reason::Protocol, tx);
                    tx.push(Output::Shut { conn, abort: false });
                    return;
                }
            }
        }
        if let Some(row) = self.conns.get_mut(&conn) {
            row.framer = Some(framer);
            if row.blocked && !row.paused {
                row.paused = true;
                tx.push(Output::Pause { conn });
            }
        }
    }

    /// A first request for a session whose home is another shard takes the connection there.
    fn hands_over(&mut self, conn: ConnId, head: &Head, whole: &Bytes, tx: &mut Tx<'_>) -> bool {
        let Some(row) = self.conns.get_mut(&conn) else { return true };
        let Some(prefix) = row.prefix.take() else { return false };
        let home = head.session().and_then(|s| u16::from_str_radix(s.get(..3)?, 16).ok());
        let elsewhere = home.filter(|home| *home != self.shard);
        let known = head.session().is_some_and(|s| self.sessions.contains_key(s));
        let (Some(shard), false) = (elsewhere, known) else { return false };
        let bytes = if prefix.is_empty() {
            whole.clone()
        } else {
            let mut all = prefix;
            all.extend_from_slice(whole);
            all.freeze()
        };
        self.conns.remove(&conn);
        tx.totals.connections = self.conns.len() as u64;
        tx.push(Output::HandOver { conn, shard, bytes });
        true
    }

    fn head(&mut self, now: Now, conn: ConnId, head: Head, tx: &mut Tx<'_>) {
        let reading = match head.start() {
            Start::Response(status) => {
                tx.totals.requests_in += 1;
                self.response(now, conn, &head, status, tx);
                Reading::Skip
            }
            Start::Request(method) => match self.session(conn, &head, tx) {
                Err((status, why)) => self.refuse(now, conn, head, status, why, tx),
                Ok(leg) => match method {
                    Method::Send => self.send_head(now, conn, leg, head, tx),
                    Method::Report => {
                        tx.totals.requests_in += 1;
                        self.report_in(now, leg, &head, tx);
                        Reading::Skip
                    }
                    Method::Nickname => {
                        tx.totals.requests_in += 1;
                        tx.totals.requests_taken += 1;
                        switch::nickname(self, now, conn, leg, head, tx);
                        Reading::Skip
                    }
                    Method::Auth | Method::Other => {
                        self.refuse(now, conn, head, Status::UNKNOWN_METHOD, Drop::MsrpMethod, tx)
                    }
                },
            },
        };
        if let Some(row) = self.conns.get_mut(&conn) {
            row.reading = reading;
        }
    }

    /// The leg that a request is for; binds it if this is its first (CPM-FACTS §3.3).
    fn session(&mut self, conn: ConnId, head: &Head, tx: &mut Tx<'_>) -> Result<u32, (Status, Drop)> {
        let none = (Status::NO_SESSION, Drop::MsrpNoSession);
        let leg = *head.session().and_then(|s| self.sessions.get(s)).ok_or(none)?;
        let row = self.row(leg).ok_or(none)?;
        match row.stage {
            Stage::Bound(bound) if bound == conn => Ok(leg),
            Stage::Bound(_) => Err((Status::OTHER_CONNECTION, Drop::MsrpOtherConnection)),
            Stage::Lost | Stage::Dialing => Err(none),
            Stage::New | Stage::Listening(_) => {
                // Whoever guessed the session must also know its peer's path, and show its certificate. Only the
                // session ids compare: a middlebox may have rewritten hosts (RFC 6714, CPM-FACTS §3.7).
                let told = msrp::PathRef::parse(&row.peer, self.framing.path_uris_max).ok();
                let told = told.and_then(|path| path.uris().last());
                let from = head.from_path().uris().last();
                let matches = match (told, from) {
                    (Some(told), Some(from)) => told.matches_session(&from),
                    _ => row.peer.is_empty(),
                };
                let shown = self.conns.get(&conn).and_then(|c| c.fingerprint);
                let secure = self.conns.get(&conn).is_some_and(|c| c.tls) || !row.tls;
                let sure = row.fingerprint.is_none() || row.fingerprint == shown;
                let full =
                    self.conns.get(&conn).is_none_or(|c| c.legs.len() >= self.limits.connection_sessions_max);
                if !matches || !secure || !sure || full {
                    return Err(none);
                }
                self.bind(leg, conn, tx);
                Ok(leg)
            }
        }
    }

    /// A refused request is counted, answered if it may be, and its body thrown away.
    fn refuse(
        &mut self,
        now: Now,
        conn: ConnId,
        head: Head,
        status: Status,
        why: Drop,
        tx: &mut Tx<'_>,
    ) -> Reading {
        tx.totals.requests_in += 1;
        tx.totals.drop(why);
        self.respond(now, conn, &head, status, tx);
        Reading::Skip
    }

    fn send_head(&mut self, now: Now, conn: ConnId, leg: u32, head: Head, tx: &mut Tx<'_>) -> Reading {
        if !head.has_body() {
            tx.totals.requests_in += 1;
            tx.totals.requests_taken += 1;
            return Reading::Bare { leg, head };
        }
        match self.verdict(now, leg, &head, tx) {
            Verdict::Wait => {
                if let Some(row) = self.conns.get_mut(&conn) {
                    row.blocked = true;
                    row.waiting = Some(head);
                }
                Reading::Skip
            }
            Verdict::Refuse(status, why) => {
                if let Some(row) = self.row_mut(leg) {
                    row.counts.dropped += 1;
                }
                self.refuse(now, conn, head, status, why, tx)
            }
            Verdict::Discard(why) => {
                tx.totals.requests_in += 1;
                tx.totals.drop(why);
                Reading::Discard { head }
            }
            Verdict::Take(passage) => {
                tx.totals.requests_in += 1;
                tx.totals.requests_taken += 1;
                Reading::Content { leg, passage, head }
            }
        }
    }

    fn verdict(&mut self, now: Now, leg: u32, head: &Head, tx: &mut Tx<'_>) -> Verdict {
        let refuse = |status| Verdict::Refuse(status, Drop::MsrpRefused);
        let until = now.mono + Duration::from_millis(self.limits.incomplete_ms);
        let tid = msrp::Tid::fresh(&mut self.entropy);
        let messages_max = self.limits.leg_messages_max;
        let Some(row) = self.row_mut(leg) else { return refuse(Status::NO_SESSION) };
        row.last_at = now.mono;
        if !row.may_send || row.muted {
            return refuse(Status::FORBIDDEN);
        }
        let range = head.byte_range().unwrap_or(msrp::ByteRange::OPEN);
        let begun = row.passages.iter().find(|p| p.message_id == head.message_id());
        let total = begun.and_then(|p| p.total).or(range.total);
        if total.is_some_and(|total| range.start - 1 > total) {
            return Verdict::Refuse(Status::BAD_REQUEST, Drop::MsrpStray);
        }
        if row.taken.iter().any(|id| id == head.message_id()) {
            return Verdict::Discard(Drop::MsrpDuplicate);
        }
        if let Some(p) = row.passages.iter_mut().find(|p| p.message_id == head.message_id()) {
            if p.done || p.refused {
                return Verdict::Discard(if p.done { Drop::MsrpDuplicate } else { Drop::MsrpStray });
            }
            p.go_on(head.clone(), tid, until);
            return Verdict::Take(p.id);
        }
        if row.passages.iter().filter(|p| !p.done && !p.refused).count() >= messages_max {
            return Verdict::Refuse(Status::STOP, Drop::MsrpLimit);
        }
        let verdict = match row.lead.clone() {
            Lead::Nowhere => Verdict::Refuse(Status::FORBIDDEN, Drop::MsrpNoTarget),
            Lead::Pass(targets) => back_to_back::begin(self, leg, &targets, head, tid, until),
            Lead::Room(room) => switch::begin(self, leg, room, head, tid, until),
        };
        if let Verdict::Take(_) = verdict {
            self.sweep_at(leg, until);
        }
        let _ = tx;
        verdict
    }

    fn body(&mut self, now: Now, conn: ConnId, piece: &Bytes, tx: &mut Tx<'_>) {
        let Some(Reading::Content { leg, passage, .. }) = self.conns.get(&conn).map(|c| &c.reading) else {
            return;
        };
        let (leg, passage) = (*leg, *passage);
        let Some(mut p) = self.take(leg, passage) else { return };
        if let Some(row) = self.row_mut(leg) {
            row.counts.bytes_in += piece.len() as u64;
        }
        if !p.refused {
            let passed = match p.advance(piece) {
                Err(status) => Err(status),
                Ok(()) if p.holds == super::Holds::Nothing => Ok(self.spread(now, leg, &mut p, piece, tx)),
                Ok(()) => self.hold(now, leg, &mut p, piece, tx),
            };
            match passed {
                Ok(true) => self.block(conn),
                Ok(false) => {}
                Err(status) => self.stop(now, conn, leg, &mut p, status, tx),
            }
        }
        self.keep(leg, p);
    }

    /// The first octets are held back until it is known who may have them.
    fn hold(
        &mut self,
        now: Now,
        leg: u32,
        p: &mut super::Passage,
        piece: &Bytes,
        tx: &mut Tx<'_>,
    ) -> Result<bool, Status> {
        // RFC 3862 headers stand at the beginning: a message that begins elsewhere cannot be judged.
        if p.next - piece.len() as u64 != p.held.len() as u64 + 1 {
            return Err(Status::BAD_REQUEST);
        }
        p.held.extend_from_slice(piece);
        let decided =
            if p.room { switch::decide(self, leg, p)? } else { back_to_back::decide(self, leg, p, false) };
        Ok(decided.is_some_and(|first| self.spread_held(now, leg, p, &first, tx)))
    }

    /// What was held goes out.
    pub(crate) fn spread_held(
        &mut self,
        now: Now,
        leg: u32,
        p: &mut super::Passage,
        first: &Bytes,
        tx: &mut Tx<'_>,
    ) -> bool {
        p.holds = super::Holds::Nothing;
        // A rewritten head may be longer or shorter; ranges then speak of what goes out.
        p.shift = first.len() as i64 - p.held.len() as i64;
        p.held = BytesMut::new();
        self.spread(now, leg, p, first, tx)
    }

    /// A message cannot go on: the sender is told to stop, the targets that nothing more comes.
    fn stop(
        &mut self,
        now: Now,
        conn: ConnId,
        leg: u32,
        p: &mut super::Passage,
        status: Status,
        tx: &mut Tx<'_>,
    ) {
        tx.totals.drop(Drop::MsrpRefused);
        tx.totals.requests_taken = tx.totals.requests_taken.saturating_sub(1);
        self.abort(now, leg, p, tx);
        if let Some(row) = self.row_mut(leg) {
            row.counts.dropped += 1;
        }
        let Some(row) = self.conns.get_mut(&conn) else { return };
        if let Reading::Content { head, .. } = std::mem::replace(&mut row.reading, Reading::Skip) {
            self.respond(now, conn, &head, status, tx);
        }
    }

    fn end(&mut self, now: Now, conn: ConnId, flag: Flag, tx: &mut Tx<'_>) {
        let Some(row) = self.conns.get_mut(&conn) else { return };
        match std::mem::replace(&mut row.reading, Reading::Skip) {
            Reading::Skip => {}
            Reading::Discard { head } => self.respond(now, conn, &head, Status::OK, tx),
            Reading::Bare { leg, head } => {
                // It keeps a session alive, binds it, or ends a message that was begun.
                let begun = self.row(leg).and_then(|row| {
                    row.passages.iter().find(|p| p.message_id == head.message_id() && !p.done).map(|p| p.id)
                });
                if let Some(passage) = begun.filter(|_| flag == Flag::Abort) {
                    self.aborted(now, leg, passage, tx);
                }
                self.respond(now, conn, &head, Status::OK, tx);
            }
            Reading::Content { leg, passage, head } => {
                let status = if flag == Flag::Abort {
                    self.aborted(now, leg, passage, tx);
                    Status::OK
                } else {
                    self.chunk_done(now, leg, passage, flag, tx)
                };
                self.respond(now, conn, &head, status, tx);
            }
        }
    }

    /// The sender gave up: so do the targets.
    fn aborted(&mut self, now: Now, leg: u32, passage: u64, tx: &mut Tx<'_>) {
        if let Some(mut p) = self.take(leg, passage) {
            self.abort(now, leg, &mut p, tx);
        }
    }

    /// A chunk ended, and perhaps its message.
    fn chunk_done(&mut self, now: Now, leg: u32, passage: u64, flag: Flag, tx: &mut Tx<'_>) -> Status {
        let Some(mut p) = self.take(leg, passage) else { return Status::OK };
        if p.refused {
            if flag == Flag::More {
                self.keep(leg, p);
            }
            return Status::OK;
        }
        let whole = match p.chunk_ended(flag == Flag::Last) {
            Ok(whole) => whole,
            Err(status) => {
                self.abort(now, leg, &mut p, tx);
                return status;
            }
        };
        if whole && p.holds != super::Holds::Nothing {
            // All of it came and it is still held: an IMDN, or headers without an end.
            if p.room {
                return Status::BAD_REQUEST;
            }
            match back_to_back::decide(self, leg, &mut p, true) {
                Some(first) => drop(self.spread_held(now, leg, &mut p, &first, tx)),
                None => self.swallow(now, leg, &mut p, tx),
            }
        }
        if p.holds == super::Holds::Nothing {
            self.end_chunks(now, leg, &mut p, flag, tx);
        }
        if whole {
            self.message_done(now, leg, &mut p, tx);
            let until = now.mono + Duration::from_millis(self.limits.report_ms);
            p.until = until;
        }
        self.keep(leg, p);
        Status::OK
    }

    /// Another device of the same recipient has said this already: this one gets its 200, and nobody else hears of it
    /// (CPM-FACTS §2.11).
    fn swallow(&mut self, now: Now, leg: u32, p: &mut super::Passage, tx: &mut Tx<'_>) {
        tx.totals.drop(Drop::MsrpImdnAgain);
        tx.totals.requests_taken = tx.totals.requests_taken.saturating_sub(1);
        if p.success {
            let range = p.range();
            self.report(now, leg, p, range, Status::OK, tx);
        }
        p.reported = true;
    }

    fn message_done(&mut self, now: Now, leg: u32, p: &mut super::Passage, tx: &mut Tx<'_>) {
        /// Ids of whole messages that are remembered per leg.
        const TAKEN_MAX: usize = 16;
        if p.room && p.success && !p.reported {
            // The switch is the endpoint: it has accepted the message (RFC 7701 §6.3, CPM-FACTS §3.8 step 7).
            p.reported = true;
            let range = p.range();
            self.report(now, leg, p, range, Status::OK, tx);
        }
        let forget = self.limits.leg_reports_max;
        let Some(row) = self.row_mut(leg) else { return };
        row.counts.messages_in += 1;
        if p.room {
            row.taken.push_back(p.message_id.clone());
            if row.taken.len() > TAKEN_MAX {
                row.taken.pop_front();
            }
        }
        let done = row.passages.iter().filter(|p| p.done).count();
        if done >= forget
            && let Some(at) = row.passages.iter().position(|p| p.done)
        {
            row.passages.remove(at);
        }
    }

    /// The context that a connection's first leg belongs to.
    pub(crate) fn context_of(&self, conn: ConnId) -> u64 {
        let leg = self.conns.get(&conn).and_then(|c| c.legs.first());
        leg.and_then(|leg| self.row(*leg)).map_or(0, |row| row.key.context)
    }

    /// Live copies to a leg, by source and passage.
    pub(crate) fn copies_to(&self, leg: u32) -> Vec<(u32, u64)> {
        let context = self.row(leg).map(|row| row.key.context);
        let members = context.and_then(|c| self.members.get(&c)).map(Vec::as_slice).unwrap_or_default();
        let mut found = Vec::new();
        for source in members {
            let Some(row) = self.row(*source) else { continue };
            let goes =
                |p: &super::Passage| p.copies.iter().any(|c| c.leg == leg && c.stage != CopyStage::Failed);
            found.extend(row.passages.iter().filter(|p| goes(p)).map(|p| (*source, p.id)));
        }
        found
    }
}

/// A copy of a piece of a captured stream.
pub(crate) fn spool(
    now: Now,
    context: u64,
    conn: ConnId,
    conns: &base::Map<ConnId, super::Conn>,
    bytes: &Bytes,
    inwards: bool,
    tx: &mut Tx<'_>,
) {
    let Some(row) = conns.get(&conn) else { return };
    let (from, to) = if inwards { (row.peer, row.local) } else { (row.local, row.peer) };
    let packet = crate::Packet {
        context,
        at: now.wall,
        from,
        to,
        transport: crate::Transport::Tcp,
        bytes: bytes.clone(),
    };
    tx.push(Output::Spool(Box::new(packet)));
}
