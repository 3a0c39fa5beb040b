//! What comes on a connection: from accept to the first request, then requests, bodies, ends.

use std::time::Duration;

use base::Now;
use bytes::Bytes;
use contract::{LegLost, LegUp, leg_lost::Reason, news::What};
use msrp::{Broken, Event, Framer, Head, Method, Start, Status};

use super::{Message, Opened, Reading, Stage};
use crate::media::Tx;
use crate::{CloseReason, ConnId, DialId, Drop, Output};

impl Message {
    pub(crate) fn opened(&mut self, now: Now, opened: Opened, tx: &mut Tx<'_>) {
        let conn = opened.conn;
        if self.conns.len() >= self.limits.connections_max {
            tx.totals.drop(Drop::MsrpLimit);
            tx.push(Output::Shut { conn, abort: true });
            if let Some(dial) = opened.dial {
                self.dial_ended(now, dial, None);
            }
            if let Some(leg) = opened.dial.and_then(|d| self.dials.remove(&d)) {
                self.lose(leg, Reason::ConnectFailed, tx);
            }
            return;
        }
        let row = super::Conn::new(&opened, Framer::new(self.framing), now.mono);
        self.conns.insert(conn, Box::new(row));
        tx.totals.connections = self.conns.len() as u64;
        match opened.dial {
            None => {
                let until = now.mono + Duration::from_millis(self.limits.arrival_ms);
                if let Some(row) = self.conns.get_mut(&conn) {
                    row.arrival = Some(until);
                    row.prefix = Some(Box::default());
                }
                self.arm(conn, until);
            }
            Some(dial) if self.dial_ended(now, dial, Some(conn)) => {}
            Some(dial) => {
                // A leg that was removed meanwhile has no use for it.
                let Some(leg) = self.dials.remove(&dial) else { return self.shut(now, conn, true, tx) };
                let wanted = self.row(leg).and_then(|row| row.fingerprint.as_deref().copied());
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
        if self.dial_ended(now, dial, None) {
            self.work(now, tx);
        } else if let Some(leg) = self.dials.remove(&dial) {
            let reason =
                if why == CloseReason::TlsFailed { Reason::TlsFailed } else { Reason::ConnectFailed };
            self.lose(leg, reason, tx);
            self.work(now, tx);
        }
    }

    fn bind(&mut self, leg: u32, conn: ConnId, tx: &mut Tx<'_>) {
        let Some(row) = self.rows.get_mut(leg as usize) else { return };
        (row.stage, row.joined) = (Stage::Bound(conn), true);
        let (key, unseen, captured) = (row.key, row.unseen, row.captured);
        if let Some(row) = self.conns.get_mut(&conn) {
            row.hidden = unseen && (row.legs.is_empty() || row.hidden);
            row.legs.push(leg);
            row.captured |= captured;
            (row.arrival, row.prefix) = (None, None);
        }
        if !unseen {
            tx.news(What::LegUp(LegUp { leg: Some(key) }));
        }
        self.wants_drain(leg);
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
            self.read_counted(now, conn, bytes, tx);
        }
        self.work(now, tx);
    }

    /// Reads, and counts it unless all of the connection's legs are unseen.
    pub(crate) fn read_counted(&mut self, now: Now, conn: ConnId, bytes: Bytes, tx: &mut Tx<'_>) {
        let before = match self.conns.get(&conn) {
            // Whose it is its first request will tell.
            Some(row) if row.hidden || row.prefix.is_some() => *tx.totals,
            _ => return self.read(now, conn, bytes, tx),
        };
        let was_hidden = self.conns.get(&conn).is_some_and(|row| row.hidden);
        self.read(now, conn, bytes, tx);
        if was_hidden || self.conns.get(&conn).is_some_and(|row| row.hidden) {
            let connections = tx.totals.connections;
            *tx.totals = before;
            tx.totals.connections = connections;
        }
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
                Some(head) => Ok(Some(Event::Head(*head))),
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
                    // A head lives as long as its message, and must not hold a whole read for so long.
                    let head = if whole.len() > super::conn::COPY_MAX { head.detached() } else { head };
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
        // A shard that does not exist is nobody's home: whoever names it is answered here like any stranger.
        let elsewhere = home.filter(|home| *home != self.shard && *home < self.shards);
        let known = head.session().is_some_and(|s| self.sessions.contains_key(s));
        let (Some(shard), false) = (elsewhere, known) else { return false };
        let bytes = if prefix.is_empty() {
            whole.clone()
        } else {
            let mut all = *prefix;
            all.extend_from_slice(whole);
            all.freeze()
        };
        self.conns.remove(&conn);
        tx.totals.connections = self.conns.len() as u64;
        tx.push(Output::HandOver { conn, shard, bytes });
        true
    }

    fn head(&mut self, now: Now, conn: ConnId, head: Head, tx: &mut Tx<'_>) {
        if let Some(reading) = self.relay_head(now, conn, &head, tx) {
            if let Some(row) = self.conns.get_mut(&conn) {
                row.reading = reading;
            }
            return;
        }
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
                        self.nickname(now, conn, leg, head, tx);
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
                let shown = self.conns.get(&conn).and_then(|c| c.fingerprint.as_ref());
                let secure = self.conns.get(&conn).is_some_and(|c| c.tls) || !row.tls;
                let sure = row.fingerprint.is_none() || row.fingerprint.as_ref() == shown;
                let full =
                    self.conns.get(&conn).is_none_or(|c| c.legs.len() >= self.limits.connection_sessions_max);
                if !matches || !secure || !sure || full {
                    return Err(none);
                }
                if let Some(row) = self.row_mut(leg)
                    && row.peer.is_empty()
                {
                    // It was quicker than its SDP: whoever knows the session was told it by its own control.
                    row.peer = head.from_path().as_str().to_owned();
                }
                self.bind(leg, conn, tx);
                Ok(leg)
            }
        }
    }

    /// The context that a connection's first leg belongs to.
    pub(crate) fn context_of(&self, conn: ConnId) -> u64 {
        let leg = self.conns.get(&conn).and_then(|c| c.legs.first());
        leg.and_then(|leg| self.row(*leg)).map_or(0, |row| row.key.context)
    }

    /// Copies to a leg that are not over, by source and passage.
    pub(crate) fn copies_to(&self, leg: u32) -> Vec<(u32, u64)> {
        let (context, serial) = self.row(leg).map(|row| (row.key.context, row.serial)).unzip();
        let members = context.and_then(|c| self.members.get(&c)).map(Vec::as_slice).unwrap_or_default();
        let mut found = Vec::new();
        for source in members {
            let Some(row) = self.row(*source) else { continue };
            let goes = |p: &super::Passage| {
                p.copies.iter().any(|c| c.leg == leg && Some(c.serial) == serial && !c.stage.is_over())
            };
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
    conns: &base::Map<ConnId, Box<super::Conn>>,
    bytes: &Bytes,
    inwards: bool,
    tx: &mut Tx<'_>,
) {
    let Some(row) = conns.get(&conn) else { return };
    let (from, to) = if inwards { (row.peer, row.local) } else { (row.local, row.peer) };
    let packet = crate::Packet {
        context,
        leg: None,
        at: now.wall,
        from,
        to,
        transport: crate::Transport::Tcp,
        bytes: bytes.clone(),
    };
    tx.push(Output::Spool(Box::new(packet)));
}
