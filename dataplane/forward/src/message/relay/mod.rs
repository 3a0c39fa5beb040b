//! A relay of RFC 4976, for clients that ask for one by AUTH: they get a URI of ours for their path, and what is sent
//! along it is passed on as it comes. Unlike a leg, a relay is no endpoint: paths are rewritten, nothing else, and
//! reports go from end to end. Off unless it is configured.
//!
//! ```text
//!  AUTH ──► asked of control ── 401, 403 ──► answered
//!                 └── 200 ──► a session: its URI works for this client and one peer until it expires,
//!                             the client is gone, or AUTH renews it
//!
//!  client ── To-Path: ours, peer ──► pinned to the first peer ──► the peer's connection, or one that is dialled
//!  peer ──── To-Path: ours, client ─► the client's connection, and no other
//! ```
//!
//! Deliberately not here: who may use it (control judges the digest), names of hosts (`dataplaned` has them looked up).

mod auth;
mod config;
mod dial;
mod pass;
mod route;
mod whole;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use base::{HashSeed, Instant, Map, Now, map};
use msrp::Tid;

use super::{Due, Message};
use crate::media::Tx;
use crate::{ConnId, DialId};
use auth::Question;
pub use auth::SHARD_SHIFT;
pub use config::RelayConfig;
use dial::{Hop, Link};
use pass::Pass;
use whole::Return;

/// Stands for a leg in what a connection remembers of relayed chunks: no row has this number.
pub(crate) const SEAT: u32 = u32::MAX;

/// Between two looks at what has expired.
const SWEEP: Duration = Duration::from_secs(1);

/// What one AUTH was granted.
#[derive(Debug)]
pub(super) struct Session {
    /// The client's authenticated connection.
    client: ConnId,
    /// Our URI in its path.
    uri: String,
    /// From-Path of its AUTH: the same again is a refresh.
    asked_from: String,
    account: u64,
    until: Instant,
    secure: bool,
    /// The only URI that the client's requests go on to and others' come from: the first one that was used.
    peer: Option<String>,
    /// The connection to it.
    link: Option<ConnId>,
    /// It is a relay, and not the end of the path.
    chained: bool,
}

/// What one engine's relay holds.
#[derive(Debug)]
pub(crate) struct Relay {
    config: Option<RelayConfig>,
    /// `host:port` of our listeners.
    plain: String,
    secure: Option<String>,
    /// By session id.
    sessions: Map<String, Session>,
    accounts: BTreeMap<u64, usize>,
    questions: BTreeMap<u64, Question>,
    /// Wrong credentials of a connection.
    failures: BTreeMap<ConnId, u32>,
    hops: BTreeMap<Hop, Link>,
    dials: BTreeMap<DialId, Hop>,
    passes: Map<u64, Pass>,
    returns: BTreeMap<(ConnId, Tid), Return>,
    /// Connections that are gone and not mourned yet.
    lost: VecDeque<ConnId>,
    armed: bool,
}

impl Relay {
    pub(super) fn new(config: &crate::Config, seed: HashSeed) -> Self {
        Relay {
            config: config.relay.clone(),
            plain: config.msrp.authority.clone(),
            secure: config.msrps.as_ref().map(|listener| listener.authority.clone()),
            sessions: map(seed),
            accounts: BTreeMap::new(),
            questions: BTreeMap::new(),
            failures: BTreeMap::new(),
            hops: BTreeMap::new(),
            dials: BTreeMap::new(),
            passes: map(seed),
            returns: BTreeMap::new(),
            lost: VecDeque::new(),
            armed: false,
        }
    }

    /// Sessions that are granted.
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether a connection carries anything of the relay's.
    pub(super) fn uses(&self, conn: ConnId) -> bool {
        self.config.is_some()
            && (self.sessions.values().any(|s| s.client == conn || s.link == Some(conn))
                || self.passes.values().any(|p| p.is_on(conn)))
    }

    /// A connection is no more: see [`Message::relay_mourns`].
    pub(super) fn lose(&mut self, conn: ConnId) {
        if self.config.is_some() {
            self.lost.push_back(conn);
        }
    }

    /// Whether connections are gone that were not mourned yet.
    pub(super) fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    fn is_idle(&self) -> bool {
        self.sessions.is_empty()
            && self.questions.is_empty()
            && self.hops.is_empty()
            && self.passes.is_empty()
            && self.returns.is_empty()
    }
}

impl Message {
    /// Something came to be that expires.
    fn relay_arms(&mut self, now: Now) {
        if !self.relay.armed && self.timers.set(now.mono + SWEEP, Due::Relay).is_ok() {
            self.relay.armed = true;
        }
    }

    /// What has expired goes.
    pub(super) fn relay_due(&mut self, now: Now, tx: &mut Tx<'_>) {
        self.relay.armed = false;
        let at = now.mono;
        let over: Vec<String> =
            self.relay.sessions.iter().filter(|(_, s)| s.until <= at).map(|(id, _)| id.clone()).collect();
        for id in over {
            self.relay_ends(now, &id, tx);
        }
        self.questions_due(now, tx);
        self.dials_due(now);
        self.relay.returns.retain(|_, r| r.until > at);
        // Their answers are counted by their connections' transactions; this is only the net below those.
        self.relay.passes.retain(|_, p| !p.is_over(at));
        if !self.relay.is_idle() {
            self.relay_arms(now);
        }
        tx.totals.relay_sessions = self.relay.len() as u64;
    }

    /// A session is over: its URI means nothing any more (RFC 4976 §5.1).
    fn relay_ends(&mut self, now: Now, id: &str, tx: &mut Tx<'_>) {
        let Some(session) = self.relay.sessions.remove(id) else { return };
        if let Some(count) = self.relay.accounts.get_mut(&session.account) {
            *count -= 1;
            if *count == 0 {
                self.relay.accounts.remove(&session.account);
            }
        }
        for conn in [Some(session.client), session.link].into_iter().flatten() {
            let bare = self.conns.get(&conn).is_some_and(|c| c.legs.is_empty() && c.closing.is_none());
            if bare && !self.relay.uses(conn) {
                self.shut(now, conn, false, tx);
            }
        }
        tx.totals.relay_sessions = self.relay.len() as u64;
    }

    /// What connections that are gone leave behind: sessions end with their client's, passages fail.
    pub(super) fn relay_mourns(&mut self, now: Now, tx: &mut Tx<'_>) {
        while let Some(conn) = self.relay.lost.pop_front() {
            self.passes_lost(now, conn, tx);
            self.relay.questions.retain(|_, q| q.conn != conn);
            self.relay.returns.retain(|(from, _), r| *from != conn && r.conn != conn);
            self.relay.failures.remove(&conn);
            self.relay.hops.retain(|_, link| !link.is_on(conn));
            self.relay.sessions.values_mut().filter(|s| s.link == Some(conn)).for_each(|s| s.link = None);
            let of_client = self.relay.sessions.iter().filter(|(_, s)| s.client == conn);
            let over: Vec<String> = of_client.map(|(id, _)| id.clone()).collect();
            for id in over {
                self.relay_ends(now, &id, tx);
            }
        }
    }
}
