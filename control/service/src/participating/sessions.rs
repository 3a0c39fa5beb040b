//! The sessions of one lane: finding the one that an event is for. What a session does is its own business.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::{Map, map};
use contract::{Applied, News, Refusal};
use sip::typed::Reason;
use sip::{Request, Response};

use super::session::{Across, Session, Start, referrals_row, session_of};
use crate::b2b;
use crate::media::Anchor;
use crate::methods::within::Peer;
use crate::records::{ReferralsRow, SessionRow};
use crate::turn::{Desk, Turn};
use crate::{Ask, ClientTx, ServerTx, UserId};

/// Sessions that are given back to a data plane in one call: the outbox has its limits.
const BACKLOG_STEP: usize = 16;

/// Answered INVITEs of one session that a missing ACK may still name.
const INVITES_KEPT: usize = 4;

/// What waits its turn after a restart of one side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Chore {
    /// The data plane lost its tables.
    PutAgain(u64),
    /// Control lost its memory.
    Resume(u64),
}

/// The table and its indices.
#[derive(Debug)]
pub(crate) struct Sessions {
    table: Map<u64, Session>,
    tags: Map<String, u64>,
    invites: Map<ServerTx, u64>,
    /// The same from the other side: what to forget with a session.
    invites_of: Map<u64, Vec<ServerTx>>,
    contexts: Map<u64, u64>,
    users: Map<UserId, usize>,
    anchors: BTreeMap<u64, Anchor>,
    referrals: BTreeMap<u64, (u64, ReferralsRow)>,
    backlog: VecDeque<Chore>,
    max: usize,
    per_user_max: usize,
}

impl Sessions {
    pub(crate) fn new(desk: &Desk) -> Self {
        let limits = &desk.config.limits;
        Sessions {
            table: map(desk.seed),
            tags: map(desk.seed),
            invites: map(desk.seed),
            invites_of: map(desk.seed),
            contexts: map(desk.seed),
            users: map(desk.seed),
            anchors: BTreeMap::new(),
            referrals: BTreeMap::new(),
            backlog: VecDeque::new(),
            max: limits.sessions_max,
            per_user_max: limits.sessions_per_user_max,
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// True when the tag is one of ours.
    pub(crate) fn has(&self, tag: &str) -> bool {
        self.tags.contains_key(tag)
    }

    /// With whom the dialog of that tag is held.
    pub(crate) fn peer(&self, tag: &str) -> Option<Peer<'_>> {
        let session = self.table.get(self.tags.get(tag)?)?;
        Some(Peer { user: Some(session.user()), route: session.route_of(tag)? })
    }

    /// The other end of an established session whose dialog has these ids of ours (RFC 3891 §3).
    pub(crate) fn across(&self, tag: &str, call_id: &str, remote_tag: &str) -> Option<Across<'_>> {
        self.table.get(self.tags.get(tag)?)?.across(tag, call_id, remote_tag)
    }

    /// True for a context of ours.
    pub(crate) fn owns_context(&self, context: u64) -> bool {
        self.contexts.contains_key(&context)
    }

    /// True while calls of `timeout` are wanted at once.
    pub(crate) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// An INVITE opens a session, or is refused.
    pub(crate) fn start(&mut self, turn: &mut Turn<'_>, start: Start) {
        if self.table.len() >= self.max {
            turn.respond(start.tx, b2b::refuse(turn.config(), &start.request, 503));
            return;
        }
        if self.users.get(&start.user).copied().unwrap_or(0) >= self.per_user_max {
            // CPM-FACTS §2.7 "busy / session limit".
            turn.respond(start.tx, b2b::refuse(turn.config(), &start.request, 486));
            return;
        }
        let id = turn.desk.entropy.u64();
        if let Some(session) = Session::start(turn, id, start) {
            *self.users.entry(session.user().clone()).or_default() += 1;
            self.index(&session);
            self.table.insert(id, session);
        }
    }

    fn index(&mut self, session: &Session) {
        let id = session.id();
        for tag in session.tags() {
            if !self.tags.contains_key(tag) {
                self.tags.insert(tag.to_owned(), id);
            }
        }
        for tx in session.invites() {
            if self.invites.insert(tx, id).is_none() {
                self.remember_invite(id, tx);
            }
        }
        if let Some(context) = session.context() {
            self.contexts.insert(context, id);
        }
    }

    /// An INVITE that has its final answer stays findable until its ACK is sure to be there or missing: the
    /// last few of each session do.
    fn remember_invite(&mut self, id: u64, tx: ServerTx) {
        let known = self.invites_of.entry(id).or_default();
        known.push(tx);
        if known.len() > INVITES_KEPT {
            self.invites.remove(&known.remove(0));
        }
    }

    /// One event for one session, then the indices.
    fn with(&mut self, turn: &mut Turn<'_>, id: u64, event: impl FnOnce(&mut Session, &mut Turn<'_>)) {
        let Some(mut session) = self.table.remove(&id) else { return };
        let context = session.context();
        event(&mut session, turn);
        if let Some(context) = context
            && session.context().is_none()
        {
            self.contexts.remove(&context);
        }
        if session.is_gone() {
            self.drop_index(&session);
            return;
        }
        self.index(&session);
        self.table.insert(id, session);
    }

    fn drop_index(&mut self, session: &Session) {
        for tag in session.tags() {
            self.tags.remove(tag);
        }
        let id = session.id();
        for tx in self.invites_of.remove(&id).unwrap_or_default() {
            self.invites.remove(&tx);
        }
        if let Some(count) = self.users.get_mut(session.user()) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.users.remove(session.user());
            }
        }
    }

    /// A request inside a dialog.
    pub(crate) fn request(&mut self, turn: &mut Turn<'_>, tag: &str, tx: ServerTx, request: Request) {
        match self.tags.get(tag).copied() {
            Some(id) => self.with(turn, id, |session, turn| session.request(turn, tag, tx, request)),
            None => turn.respond(tx, request.respond(481)),
        }
    }

    /// The ACK of a 2xx.
    pub(crate) fn ack(&mut self, turn: &mut Turn<'_>, tag: &str, request: &Request) {
        if let Some(id) = self.tags.get(tag).copied() {
            self.with(turn, id, |session, turn| session.ack(turn, tag, request));
        }
    }

    /// A CANCEL; false when the INVITE is none of ours.
    pub(crate) fn cancelled(&mut self, turn: &mut Turn<'_>, tx: ServerTx, reason: Option<&Reason>) -> bool {
        let Some(id) = self.invites.get(&tx).copied() else { return false };
        self.with(turn, id, |session, turn| session.cancelled(turn, tx, reason));
        true
    }

    /// A 2xx that nobody acknowledged; false when the INVITE is none of ours.
    pub(crate) fn ack_missing(&mut self, turn: &mut Turn<'_>, tx: ServerTx) -> bool {
        let Some(id) = self.invites.get(&tx).copied() else { return false };
        self.with(turn, id, Session::ack_missing);
        true
    }

    pub(crate) fn response(&mut self, turn: &mut Turn<'_>, id: u64, tx: ClientTx, response: Response) {
        if self.table.contains_key(&id) {
            self.with(turn, id, |session, turn| session.response(turn, tx, response));
        }
    }

    pub(crate) fn expired(&mut self, turn: &mut Turn<'_>, id: u64, tx: ClientTx) {
        self.with(turn, id, |session, turn| session.expired(turn, tx));
    }

    pub(crate) fn applied(&mut self, turn: &mut Turn<'_>, id: u64, ask: Ask, applied: &Applied) {
        self.with(turn, id, |session, turn| session.applied(turn, ask, applied));
    }

    pub(crate) fn refused(&mut self, turn: &mut Turn<'_>, id: u64, ask: Ask, refusal: &Refusal) {
        self.with(turn, id, |session, turn| session.refused(turn, ask, refusal));
    }

    pub(crate) fn wake(&mut self, turn: &mut Turn<'_>, id: u64) {
        self.with(turn, id, Session::wake);
    }

    /// News about one of our contexts.
    pub(crate) fn news(&mut self, turn: &mut Turn<'_>, context: u64, news: &News) {
        if let Some(id) = self.contexts.get(&context).copied() {
            self.with(turn, id, |session, turn| session.news(turn, news));
        }
    }

    /// The data plane has lost its tables.
    pub(crate) fn put_again(&mut self) {
        let mut ids: Vec<u64> = self.table.keys().copied().collect();
        ids.sort_unstable();
        self.backlog.extend(ids.into_iter().map(Chore::PutAgain));
    }

    /// The data plane holds these contexts only: sessions whose media it lost are given back to it.
    pub(crate) fn put_missing(&mut self, held: &[u64]) {
        let held: BTreeSet<u64> = held.iter().copied().collect();
        let mut ids: Vec<u64> =
            self.contexts.iter().filter(|(context, _)| !held.contains(*context)).map(|(_, id)| *id).collect();
        ids.sort_unstable();
        ids.retain(|id| !self.backlog.contains(&Chore::PutAgain(*id)));
        self.backlog.extend(ids.into_iter().map(Chore::PutAgain));
    }

    /// A part of what waits.
    pub(crate) fn work_off(&mut self, turn: &mut Turn<'_>) {
        for _ in 0..BACKLOG_STEP {
            match self.backlog.pop_front() {
                Some(Chore::PutAgain(id)) => self.with(turn, id, Session::put_again),
                Some(Chore::Resume(id)) => self.with(turn, id, Session::resume),
                None => return,
            }
        }
    }

    /// A session's row. Its context may come before or after it.
    pub(crate) fn restore(&mut self, turn: &Turn<'_>, key: &str, version: u64, row: SessionRow) {
        let Some(id) = session_of(key) else { return };
        let session = Session::restore(turn, id, version, row);
        *self.users.entry(session.user().clone()).or_default() += 1;
        self.index(&session);
        self.table.insert(id, session);
    }

    /// The session that a row's key names.
    pub(crate) fn id_of_row(&self, key: &str) -> Option<u64> {
        session_of(key)
    }

    /// A context's row whose owner is a session.
    pub(crate) fn restore_anchor(&mut self, session: u64, anchor: Anchor) {
        self.anchors.insert(session, anchor);
    }

    /// What REFERs of a session have implied; its own row may come later.
    pub(crate) fn restore_referrals(&mut self, version: u64, row: ReferralsRow) {
        self.referrals.insert(row.session, (version, row));
    }

    /// Every row is here.
    pub(crate) fn restored(&mut self, turn: &mut Turn<'_>) {
        for (id, mut anchor) in std::mem::take(&mut self.anchors) {
            match self.table.get_mut(&id) {
                Some(session) => {
                    self.contexts.insert(anchor.id(), id);
                    session.take_anchor(anchor);
                }
                // The session's row is gone: so shall its context be.
                None => anchor.remove(turn),
            }
        }
        for (id, (version, row)) in std::mem::take(&mut self.referrals) {
            match self.table.get_mut(&id) {
                Some(session) => session.take_referrals(turn, version, row),
                None => turn.remove_row(referrals_row(id)),
            }
        }
        let mut ids: Vec<u64> = self.table.keys().copied().collect();
        ids.sort_unstable();
        self.backlog.extend(ids.into_iter().map(Chore::Resume));
    }
}
