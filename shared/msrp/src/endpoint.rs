//! The sessions and connections of one endpoint, sans-IO (RFC 4975 §5.4, §7.3).
//!
//! ```text
//!  connection      accepted ──► Unnamed ── first request names a session ──► Bound to sessions
//!                  dialled for a session ──────────────────────────────────► Bound to sessions
//!                  Unnamed ── nothing in time, or bytes that do not frame ──► closed
//! ```
//!
//! A request goes to the session that its To-Path names by session id alone: addresses in a path may have been
//! rewritten on the way (RFC 6714), and the ids are not to be guessed. No such session: 481. A session that is
//! bound to another connection: 506. A connection may carry several sessions.

mod words;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use base::{Entropy, Instant, Outbox};
use bytes::Bytes;
use smallvec::SmallVec;

use crate::session::{Config, Ended, Frame, Input as SessionInput, Output as SessionOutput, Session};
use crate::{Bad, Event, Framer, Start};
pub use words::{CloseReason, ConnKey, EndpointLimits, Input, Output, Refusal, SessionKey};

#[derive(Debug)]
struct Connection {
    framer: Framer,
    /// Whose message is arriving.
    reading: Option<SessionKey>,
    /// How many sessions it carries.
    sessions: usize,
    /// Close it when no session was named by then.
    unnamed_until: Option<Instant>,
    /// Who wrote what is not drained yet, in order.
    writes: VecDeque<(Option<SessionKey>, u64)>,
}

#[derive(Debug)]
struct Member {
    session: Session,
    id: String,
    conn: Option<ConnKey>,
}

/// The sessions and connections of one endpoint.
#[derive(Debug)]
pub struct Endpoint {
    limits: EndpointLimits,
    entropy: Entropy,
    sessions: BTreeMap<SessionKey, Member>,
    ids: BTreeMap<String, SessionKey>,
    connections: BTreeMap<ConnKey, Connection>,
}

/// Room that a session's call may need.
const SCRATCH: usize = 32;
/// Room that what arrives may need: too little for chunks besides, so that a read needs no more than is said at
/// [`Endpoint::handle`].
const ARRIVAL: usize = 7;

impl Endpoint {
    /// With nothing in it.
    pub fn new(limits: EndpointLimits, entropy: Entropy) -> Self {
        Endpoint {
            limits,
            entropy,
            sessions: BTreeMap::new(),
            ids: BTreeMap::new(),
            connections: BTreeMap::new(),
        }
    }

    /// Takes an input.
    ///
    /// `out` should have room for 64 outputs. [`Input::Received`] is taken apart event by event, and many small
    /// messages in one read put out more than that: give it besides a room of one output for each 16 octets, or
    /// cut the reads.
    pub fn handle(&mut self, now: Instant, input: Input, out: &mut Outbox<Output>) {
        match input {
            Input::Open(key, config) => self.open(now, key, *config, out),
            Input::Connected(conn, key) => self.connected(now, conn, key, out),
            Input::Accepted(conn) => {
                self.add_connection(now, conn, true, out);
            }
            Input::Received(conn, bytes) => self.received(now, conn, bytes, out),
            Input::Drained(conn, octets) => self.drained(now, conn, octets, out),
            Input::Disconnected(conn) => self.disconnected(now, conn, out),
            Input::Command(key, command) => self.tell(now, key, SessionInput::Command(command), out),
        }
    }

    /// Fires what is due.
    pub fn timeout(&mut self, now: Instant, out: &mut Outbox<Output>) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let late: Vec<ConnKey> =
            self.connections.iter().filter(|(_, c)| due(c.unnamed_until)).map(|(conn, _)| *conn).collect();
        for conn in late {
            self.close(now, conn, CloseReason::Unnamed, out);
        }
        let late: Vec<SessionKey> = self
            .sessions
            .iter()
            .filter(|(_, m)| due(m.session.next_timeout()))
            .map(|(key, _)| *key)
            .collect();
        for key in late {
            if out.room() < SCRATCH {
                break;
            }
            self.run(key, SCRATCH, out, |session, scratch| session.timeout(now, scratch));
        }
    }

    /// When to call [`Endpoint::timeout`] at the latest.
    pub fn next_timeout(&self) -> Option<Instant> {
        let connections = self.connections.values().filter_map(|c| c.unnamed_until);
        connections.chain(self.sessions.values().filter_map(|m| m.session.next_timeout())).min()
    }

    /// The connection of a session, once it has one.
    pub fn connection(&self, key: SessionKey) -> Option<ConnKey> {
        self.sessions.get(&key).and_then(|member| member.conn)
    }

    /// Whether nothing that its user gave a session waits to go out, or it cannot.
    pub fn is_all_out(&self, key: SessionKey) -> bool {
        self.sessions.get(&key).is_none_or(|member| member.session.is_all_out())
    }

    fn open(&mut self, now: Instant, key: SessionKey, config: Config, out: &mut Outbox<Output>) {
        let id = config.local.session().unwrap_or_default().to_owned();
        let taken = self.ids.contains_key(&id) || self.sessions.contains_key(&key);
        if id.is_empty() || taken || self.sessions.len() >= self.limits.sessions_max {
            put(out, Output::Session(key, SessionOutput::Ended(Ended::Closed)));
            return;
        }
        let mut session = Session::new(config, self.entropy.child());
        session.start(now);
        self.ids.insert(id.clone(), key);
        self.sessions.insert(key, Member { session, id, conn: None });
    }

    fn add_connection(
        &mut self,
        now: Instant,
        conn: ConnKey,
        unnamed: bool,
        out: &mut Outbox<Output>,
    ) -> bool {
        if self.connections.contains_key(&conn) {
            return true;
        }
        if self.connections.len() >= self.limits.connections_max {
            put(out, Output::Close(conn, CloseReason::Full));
            return false;
        }
        let until = unnamed.then(|| now + Duration::from_millis(self.limits.name_ms));
        self.connections.insert(
            conn,
            Connection {
                framer: Framer::new(self.limits.framing),
                reading: None,
                sessions: 0,
                unnamed_until: until,
                writes: VecDeque::new(),
            },
        );
        true
    }

    fn connected(&mut self, now: Instant, conn: ConnKey, key: SessionKey, out: &mut Outbox<Output>) {
        if self.sessions.get(&key).is_some_and(|m| m.conn.is_none())
            && self.add_connection(now, conn, false, out)
        {
            self.bind(conn, key);
            self.tell(now, key, SessionInput::Connected, out);
        }
    }

    fn bind(&mut self, conn: ConnKey, key: SessionKey) {
        if let (Some(member), Some(connection)) =
            (self.sessions.get_mut(&key), self.connections.get_mut(&conn))
        {
            member.conn = Some(conn);
            connection.sessions += 1;
            connection.unnamed_until = None;
        }
    }

    fn received(&mut self, now: Instant, conn: ConnKey, mut bytes: Bytes, out: &mut Outbox<Output>) {
        let mut heard: SmallVec<[SessionKey; 4]> = SmallVec::new();
        while let Some(connection) = self.connections.get_mut(&conn) {
            match connection.framer.next(&mut bytes) {
                Ok(Some(event)) => {
                    let owner = self.event(now, conn, event, out);
                    heard.extend(owner.filter(|key| !heard.contains(key)));
                }
                Ok(None) => break,
                Err(why) => return self.close(now, conn, CloseReason::Broken(why), out),
            }
        }
        // What arrived may let chunks go.
        for key in heard {
            self.run(key, SCRATCH, out, |session, scratch| session.timeout(now, scratch));
        }
    }

    /// Takes an event to its session.
    fn event(
        &mut self,
        now: Instant,
        conn: ConnKey,
        event: Event,
        out: &mut Outbox<Output>,
    ) -> Option<SessionKey> {
        let owner = match &event {
            Event::Head(head) => match head.start() {
                Start::Request(_) => match self.find(conn, head.session()) {
                    Ok(key) => {
                        self.greet(now, conn, key, out);
                        Some(key)
                    }
                    Err(why) => {
                        self.refuse(conn, crate::response(head, why.status()), why, out);
                        None
                    }
                },
                // A response is for whoever asked from the URI that it names.
                Start::Response(_) => self.find(conn, head.session()).ok(),
            },
            Event::Bad(bad) => {
                self.bad(conn, bad, out);
                return None;
            }
            Event::Body(_) | Event::End(_) => self.connections.get(&conn).and_then(|c| c.reading),
        };
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.reading = owner.filter(|_| !matches!(event, Event::End(_)));
        }
        if let Some(key) = owner {
            let input = SessionInput::Event(event);
            self.run(key, ARRIVAL, out, |session, scratch| session.handle(now, input, scratch));
        }
        owner
    }

    /// The session of an id, for a message on this connection.
    fn find(&self, conn: ConnKey, id: Option<&str>) -> Result<SessionKey, Refusal> {
        let key = id.and_then(|id| self.ids.get(id)).ok_or(Refusal::NoSession)?;
        match self.sessions.get(key) {
            Some(member) if member.conn.is_none_or(|bound| bound == conn) => Ok(*key),
            Some(_) => Err(Refusal::OtherConnection),
            None => Err(Refusal::NoSession),
        }
    }

    /// Binds a session that waits to the connection whose request names it.
    fn greet(&mut self, now: Instant, conn: ConnKey, key: SessionKey, out: &mut Outbox<Output>) {
        if self.sessions.get(&key).is_some_and(|member| member.conn.is_none()) {
            self.bind(conn, key);
            self.run(key, ARRIVAL, out, |session, scratch| {
                session.handle(now, SessionInput::Connected, scratch);
            });
        }
    }

    fn bad(&mut self, conn: ConnKey, bad: &Bad, out: &mut Outbox<Output>) {
        self.refuse(conn, bad.answer(), Refusal::Bad(bad.reason), out);
    }

    fn refuse(&mut self, conn: ConnKey, answer: Option<Bytes>, why: Refusal, out: &mut Outbox<Output>) {
        if let Some(answer) = answer {
            self.write(conn, None, Frame::from_iter([answer]), out);
        }
        put(out, Output::Refused(conn, why));
    }

    fn write(&mut self, conn: ConnKey, owner: Option<SessionKey>, frame: Frame, out: &mut Outbox<Output>) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            let octets = frame.iter().map(|piece| piece.len() as u64).sum();
            connection.writes.push_back((owner, octets));
            put(out, Output::Write(conn, frame));
        }
    }

    fn drained(&mut self, now: Instant, conn: ConnKey, mut octets: u64, out: &mut Outbox<Output>) {
        while octets > 0 {
            let Some(connection) = self.connections.get_mut(&conn) else { return };
            let Some((owner, left)) = connection.writes.front_mut() else { return };
            let gone = octets.min(*left);
            (octets, *left) = (octets - gone, *left - gone);
            let owner = *owner;
            if *left == 0 {
                connection.writes.pop_front();
            }
            if let Some(key) = owner {
                self.tell(now, key, SessionInput::Drained(gone), out);
            }
        }
    }

    fn disconnected(&mut self, now: Instant, conn: ConnKey, out: &mut Outbox<Output>) {
        self.connections.remove(&conn);
        let theirs: Vec<SessionKey> =
            self.sessions.iter().filter(|(_, m)| m.conn == Some(conn)).map(|(key, _)| *key).collect();
        for key in theirs {
            self.tell(now, key, SessionInput::Disconnected, out);
        }
    }

    fn close(&mut self, now: Instant, conn: ConnKey, why: CloseReason, out: &mut Outbox<Output>) {
        put(out, Output::Close(conn, why));
        self.disconnected(now, conn, out);
    }

    fn tell(&mut self, now: Instant, key: SessionKey, input: SessionInput, out: &mut Outbox<Output>) {
        self.run(key, SCRATCH, out, |session, scratch| session.handle(now, input, scratch));
    }

    /// Lets a session work, with so much room at most, and sends what it puts out to where it belongs.
    fn run(
        &mut self,
        key: SessionKey,
        room: usize,
        out: &mut Outbox<Output>,
        work: impl FnOnce(&mut Session, &mut Outbox<SessionOutput>),
    ) {
        let Some(member) = self.sessions.get_mut(&key) else { return };
        let conn = member.conn;
        // What a session puts out is only then known to belong to a connection.
        let mut scratch = Outbox::with_max(room.min(out.room()));
        work(&mut member.session, &mut scratch);
        for output in scratch.drain() {
            match (output, conn) {
                (SessionOutput::Write(frame), Some(conn)) => self.write(conn, Some(key), frame, out),
                (SessionOutput::Write(_), None) => {}
                (ended @ SessionOutput::Ended(_), _) => {
                    put(out, Output::Session(key, ended));
                    self.forget(key, out);
                }
                (news, _) => put(out, Output::Session(key, news)),
            }
        }
    }

    fn forget(&mut self, key: SessionKey, out: &mut Outbox<Output>) {
        let Some(member) = self.sessions.remove(&key) else { return };
        self.ids.remove(&member.id);
        let Some(conn) = member.conn else { return };
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        connection.sessions = connection.sessions.saturating_sub(1);
        if connection.reading == Some(key) {
            connection.reading = None;
        }
        if connection.sessions == 0 {
            self.connections.remove(&conn);
            put(out, Output::Close(conn, CloseReason::Unused));
        }
    }
}

/// Puts an output. A caller that keeps the outbox's room as asked never loses one; the outbox counts those
/// that are lost.
fn put(out: &mut Outbox<Output>, output: Output) {
    let _ = out.push(output);
}

#[cfg(test)]
mod tests;
