//! AUTH (RFC 4976 §5.1): what a client asks for and shows goes to control, whose word is carried out here.

use std::time::Duration;

use base::{Instant, Now};
use bytes::BytesMut;
use contract::{Auth, Decide, MessageNews, message_news, news::What};
use msrp::{Flag, Head, HeadWriter, Status};

use super::super::Message;
use super::Session;
use crate::media::Tx;
use crate::{ConnId, Drop};

/// Random bits of a session's URI (RFC 4976 §5.1 wants 64 at least).
const SESSION_BITS: usize = 128;
/// For so long control may think; whoever asks for a path waits 30 s at most (RFC 4975 §7.1.4) and may ask again.
const PATIENCE: Duration = Duration::from_secs(3);
/// A question that is of no leg has the number of its shard above these bits, so that the answer finds it.
pub const SHARD_SHIFT: u32 = 48;

/// An AUTH that control judges.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) conn: ConnId,
    head: Head,
    shown: bool,
    expires: Duration,
    until: Instant,
}

impl Message {
    /// An AUTH for this relay itself.
    pub(super) fn auth(&mut self, now: Now, conn: ConnId, head: &Head, tx: &mut Tx<'_>) {
        tx.totals.requests_in += 1;
        match self.auth_asks(now, conn, head, tx) {
            Ok(taken) => tx.totals.requests_taken += u64::from(taken),
            Err((status, why)) => {
                tx.totals.drop(why);
                self.respond(now, conn, head, status, tx);
            }
        }
    }

    /// Whether the request was taken; `Err`: how it is answered instead.
    fn auth_asks(
        &mut self,
        now: Now,
        conn: ConnId,
        head: &Head,
        tx: &mut Tx<'_>,
    ) -> Result<bool, (Status, Drop)> {
        let refused = (Status::FORBIDDEN, Drop::MsrpRelayRefused);
        let config = self.relay.config.as_ref().ok_or(refused)?;
        let secure = self.conns.get(&conn).is_some_and(|c| c.tls);
        // RFC 4976 §5.1, §9.1: a client authenticates over TLS.
        if !(secure || config.plain) {
            return Err(refused);
        }
        let expires = match head.header(b"Expires") {
            None => config.expires_s,
            Some(value) => number(value).ok_or((Status::BAD_REQUEST, Drop::MsrpMalformed))?,
        };
        if let Some((bound, at)) = match expires {
            short if short < config.expires_min_s => Some(("Min-Expires", config.expires_min_s)),
            long if long > config.expires_max_s => Some(("Max-Expires", config.expires_max_s)),
            _ => None,
        } {
            // RFC 4976 §5.1: the client learns what would do.
            tx.totals.drop(Drop::MsrpRelayRefused);
            let line = (bound, at.to_string());
            self.auth_answers(now, conn, head, Status::INTERVAL_OUT_OF_BOUNDS, &[line], tx);
            return Ok(false);
        }
        if self.relay.questions.len() >= config.questions_max {
            return Err((Status::TIMEOUT, Drop::MsrpLimit));
        }
        let shown = head.header(b"Authorization").map(|value| String::from_utf8_lossy(value).into_owned());
        let id = u64::from(self.shard) << SHARD_SHIFT | self.number();
        let until = now.mono + PATIENCE;
        let question = Question {
            conn,
            head: head.clone(),
            shown: shown.is_some(),
            expires: Duration::from_secs(expires),
            until,
        };
        self.relay.questions.insert(id, question);
        let uri = head.to_path().last().map(|uri| uri.as_str().to_owned()).unwrap_or_default();
        let what = message_news::What::Auth(Auth { authorization: shown.unwrap_or_default(), uri });
        tx.news(What::Message(MessageNews { leg: None, id, what: Some(what) }));
        self.relay_arms(now);
        Ok(true)
    }

    /// Control has judged.
    pub(in super::super) fn auth_judged(&mut self, now: Now, decide: &Decide, tx: &mut Tx<'_>) {
        let Some(question) = self.relay.questions.remove(&decide.id) else { return };
        let status = Status(u16::try_from(decide.status).unwrap_or(403));
        let verdict = decide.auth.clone().unwrap_or_default();
        if status.is_success() {
            return self.grant(now, &question, &verdict, tx);
        }
        let lines: Vec<(&str, String)> =
            verdict.challenges.into_iter().map(|challenge| ("WWW-Authenticate", challenge)).collect();
        self.auth_answers(now, question.conn, &question.head, status, &lines, tx);
        if question.shown {
            tx.totals.relay_refused += 1;
            let failures = self.relay.failures.entry(question.conn).or_default();
            *failures += 1;
            let max = self.relay.config.as_ref().map_or(0, |config| config.failures_max);
            // Somebody tries passwords.
            if *failures >= max {
                self.shut(now, question.conn, false, tx);
            }
        }
    }

    fn grant(&mut self, now: Now, question: &Question, verdict: &contract::AuthVerdict, tx: &mut Tx<'_>) {
        let (conn, head) = (question.conn, &question.head);
        let Some(config) = &self.relay.config else { return };
        let Some(row) = self.conns.get_mut(&conn).filter(|row| row.closing.is_none()) else { return };
        let (secure, until) = (row.tls, now.mono + question.expires);
        let (from, account) = (head.from_path().as_str(), verdict.account);
        let same = |s: &&mut Session| s.client == conn && s.account == account && s.asked_from == from;
        let uri = if let Some(session) = self.relay.sessions.values_mut().find(same) {
            // RFC 4976 §5.1: AUTH again, before it expires, keeps the path.
            session.until = until;
            session.uri.clone()
        } else {
            let of_account = self.relay.accounts.get(&account).copied().unwrap_or(0);
            if self.relay.sessions.len() >= config.sessions_max || of_account >= config.account_sessions_max {
                tx.totals.drop(Drop::MsrpLimit);
                tx.totals.requests_taken = tx.totals.requests_taken.saturating_sub(1);
                return self.respond(now, conn, head, Status::FORBIDDEN, tx);
            }
            let id = format!("{:03x}{}", self.shard, self.entropy.token(SESSION_BITS));
            let authority = self.relay.secure.as_ref().filter(|_| secure).unwrap_or(&self.relay.plain);
            let scheme = if secure { "msrps" } else { "msrp" };
            let uri = format!("{scheme}://{authority}/{id};tcp");
            let session = Session {
                client: conn,
                uri: uri.clone(),
                asked_from: from.to_owned(),
                account,
                until,
                secure,
                peer: None,
                link: None,
                chained: false,
            };
            self.relay.sessions.insert(id, session);
            *self.relay.accounts.entry(account).or_default() += 1;
            uri
        };
        row.arrival = None;
        self.relay.failures.remove(&conn);
        tx.totals.relay_granted += 1;
        tx.totals.relay_sessions = self.relay.len() as u64;
        let mut lines = vec![("Use-Path", uri), ("Expires", question.expires.as_secs().to_string())];
        if !verdict.info.is_empty() {
            lines.push(("Authentication-Info", verdict.info.clone()));
        }
        self.auth_answers(now, conn, head, Status::OK, &lines, tx);
        self.relay_arms(now);
    }

    /// A response to AUTH, along its whole From-Path (RFC 4976 §5.1).
    fn auth_answers(
        &mut self,
        now: Now,
        conn: ConnId,
        head: &Head,
        status: Status,
        lines: &[(&str, String)],
        tx: &mut Tx<'_>,
    ) {
        let mut buffer = BytesMut::new();
        let (to, own) = (head.from_path(), head.to_path());
        let (to, own) = (to.as_str().as_bytes(), own.first_text().as_bytes());
        let writer = HeadWriter::response(&mut buffer, head.tid(), status, to, own);
        let put = |writer: HeadWriter<'_>| {
            let write =
                |w, (name, value): &(&str, String)| HeadWriter::header(w, name.as_bytes(), value.as_bytes());
            lines.iter().fold(writer, write).end(Flag::Last);
        };
        put(writer);
        self.send(now, conn, &buffer.freeze(), tx);
    }

    /// Control has not answered in time.
    pub(super) fn questions_due(&mut self, now: Now, tx: &mut Tx<'_>) {
        let late = self.relay.questions.iter().filter(|(_, q)| q.until <= now.mono);
        let late: Vec<u64> = late.map(|(id, _)| *id).collect();
        for question in late.into_iter().filter_map(|id| self.relay.questions.remove(&id)).collect::<Vec<_>>()
        {
            self.respond(now, question.conn, &question.head, Status::TIMEOUT, tx);
        }
    }
}

fn number(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|c| c.is_ascii_digit()))?;
    text.parse().ok()
}
