//! The Controlling Function: the conferences of one lane (CPM-FACTS §2.6; RFC 4353, RFC 4579;
//! REQ-CF-02, REQ-CF-18).
//!
//! [`Focus`] finds the conference that an event belongs to; [`conference::Conference`] decides. Requests come here
//! when their Request-URI names the factory, a conference or a pre-defined group ([`Focus::lane_of`]), or when their
//! To tag is one of ours; answers, orders and timers carry the conference's number.
//!
//! Not here: floor control, charging, hidden members, anonymity (asked for, it is refused: nobody is named who
//! does not want to be).

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
mod refer;
mod repair;
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
use contract::{Applied, News, Refusal, message_news, news};
use cpm::UserId;
use sip::typed::Reason;
use sip::{Method, Request, Response};

use self::call::CallId;
use self::conference::{Conference, Kind, Phase};
use self::factory::{Founding, refuse};
use self::file::{Transfers, is_for_file};
use self::roster::MemberId;
use self::rows::Found;
use self::subscribe::SubscriptionId;
use self::target::{Target, route_back, target};
use crate::b2b;
use crate::facts::Facts;
use crate::media::Anchor;
use crate::methods::Arrival;
use crate::methods::within::Peer;
use crate::participating::Caller;
use crate::records::{Record, Row};
use crate::supported;
use crate::turn::{Desk, Turn};
use crate::{Ask, ClientTx, Config, Key, LaneKey, Route, ServerTx};

pub(crate) use crate::lane_key::AD_HOC;

/// Time between two helpings of many things.
pub(crate) const PACE: Duration = Duration::from_millis(20);

/// The conferences of one lane.
pub(crate) struct Focus {
    conferences: BTreeMap<u64, Conference>,
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
    /// Conferences whose rooms are to be put again.
    backlog: Vec<u64>,
    /// All of them are, since the last audit.
    puts_all: bool,
    /// Files on their way to groups.
    pub(super) files: Transfers,
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
            by_id: map(seed),
            by_contribution: map(seed),
            by_tag: map(seed),
            by_context: map(seed),
            by_server: map(seed),
            founders: map(seed),
            found: BTreeMap::new(),
            contexts: BTreeMap::new(),
            backlog: Vec::new(),
            puts_all: false,
            files: Transfers::new(desk),
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
        self.by_context.contains_key(&context) || self.files.owns_context(context)
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
        let known = self.by_tag.get(tag).and_then(|number| self.conferences.get(number));
        let route = known.and_then(|c| c.route_of(tag)).or_else(|| self.files.route_of(tag))?;
        Some(Peer { user: None, route })
    }

    /// In a dialog (RFC 3261 §12.2.2).
    pub(crate) fn in_dialog(&mut self, turn: &mut Turn<'_>, tag: &str, tx: ServerTx, request: Request) {
        if self.files.by_tag(tag).is_some() {
            return self.files.in_dialog(turn, tag, tx, &request);
        }
        let number = self.by_tag.get(tag).copied();
        let known = number.and_then(|n| self.conferences.get_mut(&n));
        let Some(conference) = known else {
            return turn.respond(tx, b2b::refuse(turn.config(), &request, 481));
        };
        conference.request_within(turn, tx, tag, request);
        self.settle(turn, number);
    }

    fn outside(&mut self, turn: &mut Turn<'_>, tx: ServerTx, route: Route, request: Request) {
        let Some(found) = target(turn.config(), &request) else {
            return turn.respond(tx, b2b::refuse(turn.config(), &request, 404));
        };
        if say::wants_privacy(&request) {
            return turn.respond(tx, b2b::refuse_with(turn.config(), &request, 403, say::NO_ANONYMITY));
        }
        let Some(sender) = say::sender(&request) else {
            return turn.respond(tx, b2b::refuse(turn.config(), &request, 403));
        };
        let result = match (&request.method, found) {
            (Method::Invite, Target::Factory) if is_for_file(turn.config(), &request) => {
                self.offer_file_to_list(turn, tx, route, &request, (sender.0, sender.1))
            }
            (Method::Invite, Target::Factory) => self.create(turn, tx, route, &request, sender),
            (Method::Invite, Target::Conference(id)) if is_for_file(turn.config(), &request) => {
                self.offer_file(turn, tx, route, &request, &id, (sender.0, sender.1))
            }
            (Method::Invite, Target::Conference(id)) => self.enter(turn, tx, route, &request, &id, sender),
            (Method::Subscribe | Method::Refer, Target::Conference(id)) => {
                self.act(turn, tx, route, &request, &id, &sender.0)
            }
            (Method::Options, _) => {
                let mut response = request.respond(200);
                response.headers.set(sip::Name::Allow, supported::ALLOW);
                response.headers.set(sip::Name::AllowEvents, "conference, refer");
                response.headers.set(sip::Name::Accept, "application/sdp, application/resource-lists+xml");
                turn.respond(tx, response);
                Ok(())
            }
            _ => Err((405, None)),
        };
        if let Err(refusal) = result {
            turn.respond(tx, refuse(turn, &request, refusal));
        }
    }

    /// INVITE to the factory: a new group, or a known one that is restarted.
    fn create(
        &mut self,
        turn: &mut Turn<'_>,
        tx: ServerTx,
        route: Route,
        request: &Request,
        sender: (UserId, String, String),
    ) -> Result<(), factory::Refusal> {
        let founding = Founding::read(turn, request, &sender.0)?;
        if let Some(number) = self.by_contribution.get(&founding.contribution).copied()
            && let Some(known) =
                self.conferences.get_mut(&number).filter(|c| !matches!(c.phase, Phase::Ending | Phase::Gone))
        {
            let member = known.member_of(&sender.0).ok_or((403, Some(say::NOT_AUTHORISED)))?;
            known.add_listed(&founding, &sender.0);
            known.revive(turn, request);
            known.join(turn, tx, route, request.clone(), member);
            self.settle(turn, Some(number));
            return Ok(());
        }
        self.room_for_more(turn)?;
        if self.founders.get(&sender.0).copied().unwrap_or(0)
            >= turn.config().controlling.conferences_per_user_max
        {
            // CPM-FACTS §2.26: the table is not one user's to fill; §2.7 "busy / session limit".
            return Err((486, None));
        }
        let lane = LaneKey::of_conference(&founding.contribution);
        let id = factory::draw_id(turn, lane);
        let number = turn.desk.serial();
        let mut conference = Conference::found(turn, number, id, founding, sender);
        conference.open_room(turn, request);
        conference.join(turn, tx, route, request.clone(), MemberId(0));
        self.add(turn, conference);
        Ok(())
    }

    /// INVITE to a conference or a group: a member joins, or comes back.
    fn enter(
        &mut self,
        turn: &mut Turn<'_>,
        tx: ServerTx,
        route: Route,
        request: &Request,
        id: &str,
        sender: (UserId, String, String),
    ) -> Result<(), factory::Refusal> {
        let group = turn.config().controlling.group(id).cloned();
        let newcomer = match &group {
            Some(group) => Conference::group_member(group, &sender.0, &sender.1),
            None => None,
        };
        let number = match (self.by_id.get(id).copied(), &group) {
            (Some(number), _) => number,
            (None, Some(group)) => {
                if newcomer.is_none() {
                    return Err((403, Some(say::NOT_AUTHORISED)));
                }
                self.room_for_more(turn)?;
                let number = turn.desk.serial();
                let conference = Conference::of_group(turn, number, group, request)?;
                // Settled below, when the first one is on the way in.
                self.insert(conference);
                number
            }
            // The focus is gone: on 404 clients restart the group (CPM-FACTS §2.6).
            (None, None) => return Err((404, None)),
        };
        let max = turn.config().controlling.members_max;
        let conference = self.conferences.get_mut(&number).ok_or((404, None))?;
        if matches!(conference.phase, Phase::Ending | Phase::Gone) {
            return Err((404, None));
        }
        let member = match (conference.member_of(&sender.0), newcomer) {
            (Some(member), _) => member,
            (None, Some(_)) if conference.roster.len() >= max => return Err((486, Some(say::TOO_MANY))),
            (None, Some(newcomer)) => conference.roster.add(newcomer),
            (None, None) => return Err((403, Some(say::NOT_AUTHORISED))),
        };
        conference.roster.change(member, |m| {
            if !sender.2.is_empty() {
                m.display = base::Private::new(sender.2.clone());
            }
        });
        if let Some(group) = group.filter(|g| {
            g.invite_members && conference.calls.is_empty() && conference.kind == Kind::PreDefined
        }) {
            conference.invite_group(&group, &sender.0);
        }
        conference.revive(turn, request);
        conference.join(turn, tx, route, request.clone(), member);
        self.settle(turn, Some(number));
        Ok(())
    }

    /// SUBSCRIBE and REFER outside a session's dialog.
    fn act(
        &mut self,
        turn: &mut Turn<'_>,
        tx: ServerTx,
        route: Route,
        request: &Request,
        id: &str,
        sender: &UserId,
    ) -> Result<(), factory::Refusal> {
        let number = self.by_id.get(id).copied().ok_or((404, None))?;
        let conference =
            self.conferences.get_mut(&number).filter(|c| c.phase != Phase::Gone).ok_or((404, None))?;
        let member = conference.member_of(sender).ok_or((403, Some(say::NOT_AUTHORISED)))?;
        match request.method {
            Method::Subscribe => conference.subscribe(turn, tx, request, route, member, None),
            _ => conference.refer(turn, tx, request, route, member, None),
        }
        self.settle(turn, Some(number));
        Ok(())
    }

    fn room_for_more(&self, turn: &Turn<'_>) -> Result<(), factory::Refusal> {
        let full = self.conferences.len() >= turn.config().controlling.conferences_max;
        if full { Err((503, None)) } else { Ok(()) }
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

    /// True for our tag in a dialog of a conference.
    pub(crate) fn has(&self, tag: &str) -> bool {
        self.by_tag.contains_key(tag) || self.files.by_tag(tag).is_some()
    }

    /// An ACK of a 2xx.
    pub(crate) fn ack(&mut self, turn: &mut Turn<'_>, tag: &str, request: &Request) {
        self.files.ack(turn, tag);
        let number = self.by_tag.get(tag).copied();
        self.with(turn, number, |conference, turn| {
            if let Some(call) = conference.call_by_tag(tag) {
                conference.ack(turn, call, request);
            }
        });
    }

    /// The sender took an INVITE back.
    pub(crate) fn cancelled(&mut self, turn: &mut Turn<'_>, tx: ServerTx, _reason: Option<&Reason>) {
        self.files.cancelled(turn, tx);
        let number = self.by_server.get(&tx).copied();
        self.with(turn, number, |conference, turn| conference.cancelled(turn, tx));
    }

    /// A 2xx of ours got no ACK.
    pub(crate) fn ack_missing(&mut self, turn: &mut Turn<'_>, tx: ServerTx) {
        self.files.ack_missing(turn, tx);
        let number = self.by_server.get(&tx).copied();
        self.with(turn, number, |conference, turn| conference.ack_missing(turn, tx));
    }

    /// An answer to a request of conference `number`.
    pub(crate) fn response(&mut self, turn: &mut Turn<'_>, number: u64, tx: ClientTx, response: Response) {
        // Further 2xx of a forked INVITE may follow; nothing else does.
        let is_invite = response.cseq().is_ok_and(|c| c.method == Method::Invite);
        if response.code >= 200 && !(is_invite && response.is_success()) {
            turn.desk.forget(tx);
        }
        if self.files.has(number) {
            return self.files.response(turn, number, tx, &response);
        }
        self.with(turn, Some(number), |conference, turn| conference.response(turn, tx, &response));
    }

    /// No answer will come.
    pub(crate) fn expired(&mut self, turn: &mut Turn<'_>, number: u64, tx: ClientTx) {
        if self.files.has(number) {
            return self.files.expired(turn, number, tx);
        }
        self.with(turn, Some(number), |conference, turn| conference.expired(turn, tx));
    }

    /// The data plane did what conference `number` ordered.
    pub(crate) fn applied(&mut self, turn: &mut Turn<'_>, number: u64, ask: Ask, applied: &Applied) {
        if self.files.has(number) {
            return self.files.applied(turn, number, ask, applied);
        }
        self.with(turn, Some(number), |conference, turn| conference.applied(turn, ask, applied));
    }

    /// The data plane did not.
    pub(crate) fn refused(&mut self, turn: &mut Turn<'_>, number: u64, ask: Ask, refusal: &Refusal) {
        if self.files.has(number) {
            return self.files.refused(turn, number, ask, refusal);
        }
        self.with(turn, Some(number), |conference, turn| conference.refused(turn, ask, refusal));
    }

    /// A timer of conference `number`.
    pub(crate) fn wake(&mut self, turn: &mut Turn<'_>, number: u64) {
        if self.files.has(number) {
            return self.files.wake(turn, number);
        }
        self.with(turn, Some(number), Conference::wake);
    }

    /// News about one of our contexts.
    pub(crate) fn news(&mut self, turn: &mut Turn<'_>, context: u64, news: &News) {
        self.files.news(turn, context, news);
        let number = self.by_context.get(&context).copied();
        self.with(turn, number, |conference, turn| match &news.what {
            Some(news::What::LegLost(lost)) => {
                if let Some(leg) = lost.leg {
                    conference.leg_lost(turn, leg);
                }
            }
            Some(news::What::Message(message)) => {
                if let (Some(leg), Some(message_news::What::Nickname(text))) = (message.leg, &message.what) {
                    conference.nickname(turn, leg, message.id, text);
                }
            }
            Some(news::What::LegUp(up)) => {
                if let Some(leg) = up.leg {
                    conference.leg_up(leg);
                }
            }
            Some(news::What::Pressure(pressure)) => {
                if let Some(leg) = pressure.leg {
                    conference.message_waits(leg, pressure);
                }
            }
            Some(news::What::Counters(counters)) => conference.counters(turn, &counters.legs),
            _ => {}
        });
    }

    /// The data plane has lost its tables: everything is put again, one room with each `work_off`.
    pub(crate) fn put_again(&mut self) {
        self.backlog = self.conferences.values().filter(|c| c.room.is_some()).map(|c| c.number).collect();
        self.puts_all = true;
        self.files.lose_all();
    }

    /// The data plane holds these contexts only: rooms that it lost are given back to it.
    pub(crate) fn put_missing(&mut self, held: &[u64]) {
        if std::mem::take(&mut self.puts_all) {
            return;
        }
        let held: BTreeSet<u64> = held.iter().copied().collect();
        self.files.lose_missing(&held);
        let lost = |c: &&Conference| c.room.as_ref().is_some_and(|room| !held.contains(&room.anchor.id()));
        let numbers = self.conferences.values().filter(lost).map(|c| c.number);
        let numbers: Vec<u64> = numbers.filter(|number| !self.backlog.contains(number)).collect();
        self.backlog.extend(numbers);
    }

    /// True while calls of `work_off` are wanted at once.
    pub(crate) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty() || self.files.has_backlog()
    }

    /// A part of what waits.
    pub(crate) fn work_off(&mut self, turn: &mut Turn<'_>) {
        self.files.work_off(turn);
        let number = self.backlog.pop();
        self.with(turn, number, Conference::restore_media);
    }

    /// A row of ours (Dialog, Roster, Subscription) at start.
    pub(crate) fn restore(&mut self, turn: &mut Turn<'_>, row: Row) {
        let id = row.key.id.expose();
        let numbered = Conference::number_in_key(id).map(|(focus, number)| (focus.to_owned(), number));
        match (row.record, numbered) {
            (Record::Roster(body), _) => {
                let focus = body.focus.clone();
                self.found.entry(focus).or_default().roster = Some((row.version, body));
            }
            (Record::Dialog(body), Some((focus, number))) => {
                let found = self.found.entry(focus).or_default();
                found.dialogs.push((CallId(number), row.version, *body));
            }
            (Record::Subscription(body), Some((focus, number))) => {
                let found = self.found.entry(focus).or_default();
                found.subscriptions.push((SubscriptionId(number), row.version, *body));
            }
            _ => turn.desk.counters.rows_unread += 1,
        }
    }

    /// A context's row that belongs to no session.
    pub(crate) fn restore_anchor(&mut self, anchor: Anchor) {
        self.contexts.entry(anchor.owner().to_owned()).or_default().push(anchor);
    }

    /// All rows have come: the conferences are taken over. Rooms that nobody claims are removed.
    pub(crate) fn restored(&mut self, turn: &mut Turn<'_>) {
        let mut contexts = std::mem::take(&mut self.contexts);
        for (focus, mut found) in std::mem::take(&mut self.found) {
            let number = turn.desk.serial();
            // The newest one: an older one belonged to a life before a sleep.
            found.context = contexts.get_mut(&focus).and_then(Vec::pop);
            let sweeping = Found { roster: None, context: None, ..Found::default() };
            let (dialogs, subscriptions) = (found.dialogs.clone(), found.subscriptions.clone());
            match Conference::restore(turn.now, number, found) {
                Some(conference) => {
                    self.add(turn, conference);
                }
                None => Conference::sweep(turn, &Found { dialogs, subscriptions, ..sweeping }, &focus),
            }
        }
        for mut orphan in contexts.into_values().flatten() {
            orphan.remove(turn);
        }
    }

    fn with(
        &mut self,
        turn: &mut Turn<'_>,
        number: Option<u64>,
        act: impl FnOnce(&mut Conference, &mut Turn<'_>),
    ) {
        if let Some(conference) = number.and_then(|n| self.conferences.get_mut(&n)) {
            act(conference, turn);
            self.settle(turn, number);
        }
    }

    /// After every event: the conference's own affairs, then the tables that find it.
    fn settle(&mut self, turn: &mut Turn<'_>, number: Option<u64>) {
        let Some(number) = number else { return };
        let Some(conference) = self.conferences.get_mut(&number) else { return };
        conference.settle(turn);
        let gone = conference.phase == Phase::Gone;
        let now = if gone { Handles::default() } else { conference.handles() };
        let before = std::mem::replace(&mut conference.handles, now.clone());
        if gone {
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
            self.conferences.remove(&number);
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
}

/// By what a conference is found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Handles {
    tags: Vec<String>,
    servers: Vec<ServerTx>,
    context: Option<u64>,
}
