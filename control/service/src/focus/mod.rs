//! The Controlling Function: the conferences and files of one lane (CPM-FACTS §2.6; RFC 4353, RFC 4579;
//! REQ-CF-02, REQ-CF-18).
//!
//! [`Focus`] finds the [`affair::Affair`] that an event belongs to: a [`conference::Conference`] or a file on its way to a
//! group ([`file::Transfer`]), which decides. Requests come here
//! when their Request-URI names the factory, a conference or a pre-defined group ([`Focus::lane_of`]), or when their
//! To tag is one of ours; answers, orders and timers carry its number.
//!
//! Not here: floor control, charging, hidden members, anonymity (asked for, it is refused: nobody is named who
//! does not want to be).

mod affair;
mod attach;
mod away;
mod call;
mod clock;
mod conference;
pub(crate) mod config;
mod end;
mod exchange;
mod factory;
mod file;
mod invite;
mod join;
mod leave;
mod nicknames;
mod notify;
mod offer;
mod outside;
mod refer;
mod repair;
mod restore;
mod room;
mod roster;
mod rows;
mod say;
mod subscribe;
mod target;
#[cfg(test)]
mod tests;
mod within;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base::{Map, map};
use contract::{Applied, News, Refusal};
use cpm::UserId;
use sip::typed::Reason;
use sip::{Method, Request, Response};

use self::affair::{Affair, Handles};
use self::conference::Conference;
use self::file::Transfer;
use self::rows::Found;
use self::target::{Target, route_back, target};
use crate::b2b;
use crate::facts::Facts;
use crate::media::Anchor;
use crate::methods::Arrival;
use crate::methods::within::Peer;
use crate::participating::Caller;
use crate::records::FileRow;
use crate::turn::{Desk, Turn};
use crate::{Ask, ClientTx, Config, Key, LaneKey, ServerTx};

pub(crate) use crate::lane_key::AD_HOC;

/// Time between two helpings of many things.
pub(crate) const PACE: Duration = Duration::from_millis(20);

/// The conferences of one lane.
pub(crate) struct Focus {
    conferences: BTreeMap<u64, Conference>,
    /// Files on their way to groups; both have their numbers from one source.
    files: BTreeMap<u64, Transfer>,
    by_id: Map<String, u64>,
    by_contribution: Map<String, u64>,
    by_tag: Map<String, u64>,
    by_context: Map<u64, u64>,
    by_server: Map<ServerTx, u64>,
    /// How many conferences a user has founded.
    founders: Map<UserId, usize>,
    /// Rows that came so far, by focus.
    found: BTreeMap<String, Found>,
    contexts: BTreeMap<String, Vec<Anchor>>,
    /// Rows of files that came so far.
    found_files: Vec<(u64, FileRow)>,
    /// Those whose contexts the data plane has lost.
    backlog: Vec<u64>,
    /// All of them are, since the last audit.
    puts_all: bool,
}

impl std::fmt::Debug for Focus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Focus").field("conferences", &self.conferences.len()).finish_non_exhaustive()
    }
}

impl Focus {
    pub(crate) fn new(desk: &Desk) -> Self {
        let seed = desk.seed;
        Focus {
            conferences: BTreeMap::new(),
            files: BTreeMap::new(),
            by_id: map(seed),
            by_contribution: map(seed),
            by_tag: map(seed),
            by_context: map(seed),
            by_server: map(seed),
            founders: map(seed),
            found: BTreeMap::new(),
            contexts: BTreeMap::new(),
            found_files: Vec::new(),
            backlog: Vec::new(),
            puts_all: false,
        }
    }

    /// The bucket of the conference that a request is for; `None` when it is for none. The factory's is that of
    /// the Contribution-ID, so that a restart finds the group that it restarts.
    pub(crate) fn lane_of(config: &Config, request: &Request) -> Option<LaneKey> {
        Some(match target(config, request)? {
            Target::Factory => {
                let contribution = request.headers.text(&sip::Name::ContributionId).map(str::trim);
                LaneKey::of_conference(contribution.or_else(|| request.call_id()).unwrap_or_default())
            }
            Target::Conference(id) => LaneKey::of_conference(&id),
        })
    }

    /// How many conferences there are.
    pub(crate) fn len(&self) -> usize {
        self.conferences.len()
    }

    /// How many files are on their way.
    pub(crate) fn files(&self) -> usize {
        self.files.len()
    }

    /// True for a context of ours.
    pub(crate) fn owns_context(&self, context: u64) -> bool {
        self.by_context.contains_key(&context)
    }

    /// The facts that a request outside dialogs needs: none, groups are in the configuration.
    pub(crate) fn needs(&self, _turn: &Turn<'_>, _request: &Request) -> Vec<Key> {
        Vec::new()
    }

    /// A request outside dialogs, from the lane of its sender's Participating Function: the caller is vouched
    /// for.
    pub(crate) fn request(&mut self, turn: &mut Turn<'_>, arrival: Arrival, _caller: Caller, _facts: &Facts) {
        let route = route_back(&arrival);
        self.outside(turn, arrival.tx, route, arrival.request);
    }

    /// With whom the dialog of that tag is held. The focus serves no user of its own.
    pub(crate) fn peer(&self, tag: &str) -> Option<Peer<'_>> {
        let route = self.affair(*self.by_tag.get(tag)?)?.route_of(tag)?;
        Some(Peer { user: None, route })
    }

    /// In a dialog (RFC 3261 §12.2.2).
    pub(crate) fn in_dialog(&mut self, turn: &mut Turn<'_>, tag: &str, tx: ServerTx, request: Request) {
        let number = self.by_tag.get(tag).copied();
        if number.is_none() {
            return turn.respond(tx, b2b::refuse(turn.config(), &request, 481));
        }
        self.with(turn, number, |affair, turn| affair.request_within(turn, tag, tx, request));
    }

    /// True for our tag in a dialog.
    pub(crate) fn has(&self, tag: &str) -> bool {
        self.by_tag.contains_key(tag)
    }

    /// An ACK of a 2xx.
    pub(crate) fn ack(&mut self, turn: &mut Turn<'_>, tag: &str, request: &Request) {
        let number = self.by_tag.get(tag).copied();
        self.with(turn, number, |affair, turn| affair.ack(turn, tag, request));
    }

    /// The sender took an INVITE back.
    pub(crate) fn cancelled(&mut self, turn: &mut Turn<'_>, tx: ServerTx, _reason: Option<&Reason>) {
        let number = self.by_server.get(&tx).copied();
        self.with(turn, number, |affair, turn| affair.cancelled(turn, tx));
    }

    /// A 2xx of ours got no ACK.
    pub(crate) fn ack_missing(&mut self, turn: &mut Turn<'_>, tx: ServerTx) {
        let number = self.by_server.get(&tx).copied();
        self.with(turn, number, |affair, turn| affair.ack_missing(turn, tx));
    }

    /// An answer to a request of `number`.
    pub(crate) fn response(&mut self, turn: &mut Turn<'_>, number: u64, tx: ClientTx, response: Response) {
        // Further 2xx of a forked INVITE may follow; nothing else does.
        let is_invite = response.cseq().is_ok_and(|c| c.method == Method::Invite);
        if response.code >= 200 && !(is_invite && response.is_success()) {
            turn.desk.forget(tx);
        }
        self.with(turn, Some(number), |affair, turn| affair.response(turn, tx, &response));
    }

    /// No answer will come.
    pub(crate) fn expired(&mut self, turn: &mut Turn<'_>, number: u64, tx: ClientTx) {
        self.with(turn, Some(number), |affair, turn| affair.expired(turn, tx));
    }

    /// The data plane did what `number` ordered.
    pub(crate) fn applied(&mut self, turn: &mut Turn<'_>, number: u64, ask: Ask, applied: &Applied) {
        self.with(turn, Some(number), |affair, turn| affair.applied(turn, ask, applied));
    }

    /// The data plane did not.
    pub(crate) fn refused(&mut self, turn: &mut Turn<'_>, number: u64, ask: Ask, refusal: &Refusal) {
        self.with(turn, Some(number), |affair, turn| affair.refused(turn, ask, refusal));
    }

    /// A timer of `number`.
    pub(crate) fn wake(&mut self, turn: &mut Turn<'_>, number: u64) {
        self.with(turn, Some(number), |affair, turn| affair.wake(turn));
    }

    /// News about one of our contexts.
    pub(crate) fn news(&mut self, turn: &mut Turn<'_>, context: u64, news: &News) {
        let number = self.by_context.get(&context).copied();
        if let Some(what) = &news.what {
            self.with(turn, number, |affair, turn| affair.news(turn, what));
        }
    }

    /// The data plane has lost its tables: everything is put again, one context with each `work_off`.
    pub(crate) fn put_again(&mut self) {
        self.backlog = self.by_context.values().copied().collect();
        self.backlog.sort_unstable();
        self.puts_all = true;
    }

    /// The data plane holds these contexts only: those that it lost are given back to it.
    pub(crate) fn put_missing(&mut self, held: &[u64]) {
        if std::mem::take(&mut self.puts_all) {
            return;
        }
        let held: BTreeSet<u64> = held.iter().copied().collect();
        let lost = self.by_context.iter().filter(|(context, _)| !held.contains(context));
        let mut lost: Vec<u64> = lost.map(|(_, number)| *number).collect();
        lost.retain(|number| !self.backlog.contains(number));
        lost.sort_unstable();
        self.backlog.extend(lost);
    }

    /// True while calls of `work_off` are wanted at once.
    pub(crate) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// A part of what waits.
    pub(crate) fn work_off(&mut self, turn: &mut Turn<'_>) {
        let number = self.backlog.pop();
        self.with(turn, number, |affair, turn| affair.media_lost(turn));
    }

    fn add(&mut self, turn: &mut Turn<'_>, conference: Conference) {
        let number = conference.number;
        self.insert(conference);
        self.settle(turn, Some(number));
    }

    fn insert(&mut self, conference: Conference) {
        let number = conference.number;
        if let Some(founder) = &conference.founder {
            *self.founders.entry(founder.clone()).or_default() += 1;
        }
        self.by_id.insert(conference.id.clone(), number);
        self.by_contribution.insert(conference.contribution.clone(), number);
        self.conferences.insert(number, conference);
    }

    fn affair(&self, number: u64) -> Option<&dyn Affair> {
        let file = self.files.get(&number).map(|file| file as &dyn Affair);
        file.or_else(|| self.conferences.get(&number).map(|conference| conference as &dyn Affair))
    }

    fn affair_mut(&mut self, number: u64) -> Option<&mut dyn Affair> {
        match self.files.get_mut(&number) {
            Some(file) => Some(file),
            None => self.conferences.get_mut(&number).map(|conference| conference as &mut dyn Affair),
        }
    }

    fn with(
        &mut self,
        turn: &mut Turn<'_>,
        number: Option<u64>,
        act: impl FnOnce(&mut dyn Affair, &mut Turn<'_>),
    ) {
        if let Some(affair) = number.and_then(|number| self.affair_mut(number)) {
            act(affair, turn);
            self.settle(turn, number);
        }
    }

    /// After every event: its own affairs, then the tables that find it.
    fn settle(&mut self, turn: &mut Turn<'_>, number: Option<u64>) {
        let Some(number) = number else { return };
        let Some(affair) = self.affair_mut(number) else { return };
        affair.settle(turn);
        let gone = affair.is_gone();
        let now = if gone { Handles::default() } else { affair.handles() };
        let before = std::mem::replace(affair.found_by(), now.clone());
        if gone {
            self.forget(number);
        }
        if before == now {
            return;
        }
        for tag in &before.tags {
            self.by_tag.remove(tag);
        }
        for tx in &before.servers {
            self.by_server.remove(tx);
        }
        if let Some(context) = before.context {
            self.by_context.remove(&context);
        }
        self.by_tag.extend(now.tags.into_iter().map(|tag| (tag, number)));
        self.by_server.extend(now.servers.into_iter().map(|tx| (tx, number)));
        self.by_context.extend(now.context.map(|context| (context, number)));
    }

    /// Nothing is left of it.
    fn forget(&mut self, number: u64) {
        self.files.remove(&number);
        let Some(conference) = self.conferences.remove(&number) else { return };
        self.by_id.remove(&conference.id);
        if let Some(founder) = &conference.founder
            && let Some(count) = self.founders.get_mut(founder)
        {
            *count -= 1;
            if *count == 0 {
                self.founders.remove(founder);
            }
        }
        // A successor may have the ids already.
        if self.by_contribution.get(&conference.contribution) == Some(&number) {
            self.by_contribution.remove(&conference.contribution);
        }
    }
}
