//! Requests other than SEND, and what answers them: read whole, passed on, and their answers brought back along the
//! path (RFC 4976 §6.4.2, §6.4.3). A REPORT is never answered.

use base::{Instant, Now};
use bytes::BytesMut;
use msrp::{Flag, Head, HeadWriter, Method, PathRef, Start, Status, Tid};

use super::super::Message;
use crate::media::Tx;
use crate::{ConnId, Drop};

/// Whose request a transaction of ours passes on.
#[derive(Debug)]
pub(super) struct Return {
    pub(super) conn: ConnId,
    tid: Tid,
    /// From-Path of the request.
    path: String,
    pub(super) until: Instant,
}

impl Message {
    #[expect(
        clippy::too_many_arguments,
        reason = "a request is a head, two paths and a body, between two connections"
    )]
    pub(super) fn whole(
        &mut self,
        now: Now,
        source: ConnId,
        target: ConnId,
        head: &Head,
        (to, from): (&str, &str),
        body: &[u8],
        tx: &mut Tx<'_>,
    ) {
        let tid = Tid::fresh_for(&mut self.entropy, body);
        if head.method() != Some(Method::Report) {
            let max = self.relay.config.as_ref().map_or(0, |config| config.transactions_max);
            if self.relay.returns.len() >= max {
                tx.totals.drop(Drop::MsrpLimit);
                tx.totals.requests_taken = tx.totals.requests_taken.saturating_sub(1);
                return self.respond(now, source, head, Status::TIMEOUT, tx);
            }
            let until = self.answer_until(now);
            let path = head.from_path().as_str().to_owned();
            self.relay.returns.insert((target, tid), Return { conn: source, tid: *head.tid(), path, until });
            self.relay_arms(now);
        }
        let mut buffer = BytesMut::new();
        let writer =
            HeadWriter::request(&mut buffer, &tid, head.method_name(), to.as_bytes(), from.as_bytes());
        finish(writer, head);
        if head.has_body() {
            buffer.extend_from_slice(body);
            buffer.extend_from_slice(&msrp::end_line(&tid, Flag::Last));
        }
        self.send(now, target, &buffer.freeze(), tx);
    }

    /// Whether a response answers something that was passed on; it goes back the way that came.
    pub(in super::super) fn brings_back(
        &mut self,
        now: Now,
        conn: ConnId,
        head: &Head,
        tx: &mut Tx<'_>,
    ) -> bool {
        let Some(back) = self.relay.returns.remove(&(conn, *head.tid())) else { return false };
        let Start::Response(status) = head.start() else { return true };
        let (to, from) = (head.to_path(), head.from_path());
        let own = to.first_text();
        let rest = to.as_str().split_once(own).map(|(_, rest)| rest.trim_start()).unwrap_or_default();
        // RFC 4976 §5.1 answers AUTH along its whole path; some answer it to the last hop only (Kamailio does).
        let is_whole = PathRef::parse(rest, self.framing.path_uris_max).is_ok();
        let rest = if is_whole { rest } else { back.path.as_str() };
        tx.totals.requests_taken += 1;
        let from = format!("{own} {}", from.as_str());
        let mut buffer = BytesMut::new();
        let writer = HeadWriter::response(&mut buffer, &back.tid, status, rest.as_bytes(), from.as_bytes());
        writer.others_of(head).end(Flag::Last);
        self.send(now, back.conn, &buffer.freeze(), tx);
        true
    }
}

/// The lines after the paths, as they came: what this relay does not know may be for the next one.
fn finish(writer: HeadWriter<'_>, head: &Head) {
    let is = |name: &[u8], known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    let last = |name: &[u8]| is(name, "To-Path") || is(name, "From-Path") || is(name, "Content-Type");
    let lines = head.headers().filter(|(name, _)| !last(name));
    let writer = lines.fold(writer, |writer, (name, value)| writer.header(name, value));
    if head.has_body() {
        writer.body(head.content_type().unwrap_or("application/octet-stream").as_bytes());
    } else {
        writer.end(Flag::Last);
    }
}
