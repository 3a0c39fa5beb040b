//! One conference: the focus of a group session (RFC 4353, RFC 4579; CPM-FACTS §2.6, §2.27).
//!
//! ```text
//!  None ──factory INVITE, group INVITE──▶ Forming ──first invitee connected──▶ Active
//!                                           │                                  │  ▲
//!                                           │ all failed, not long-lived       │  │ INVITE of a member
//!                                           ▼                                  │  │
//!                              Ending ◀── below minimum, owner ends ───────────┤  │
//!                                │                                             │  │
//!                                │ BYE 410 to the rest; all answered, or 32 s  ▼  │
//!                                ▼                                   nothing said for idle_s:
//!                               Gone ◀──────── retention over ──────── BYE (no 410) ──▶ Dormant
//! ```
//!
//! Each file is one concern: [`super::factory`] (how one comes to be), [`super::join`] (they call),
//! [`super::invite`] (we call), [`super::away`] (who is not there), [`super::exchange`] (changes and session timers), [`super::leave`],
//! [`super::refer`] (add and remove), [`super::subscribe`] and [`super::notify`] (conference events),
//! [`super::repair`] (media lost), [`super::end`], [`super::rows`] (what survives a restart). This one holds the
//! state and what they all use.

use std::collections::BTreeMap;

use base::{Instant, TimerId};
use contract::{Applied, Refusal};
use cpm::UserId;
use cpm::conference::Status;
use sip::{Request, Response};

use super::affair::Handles;
use super::call::{Call, CallId, CallState};
use super::config::Medium;
use super::nicknames::Nicknames;
use super::offer::Terms;
use super::refer::Referral;
use super::room::{Chatter, Room};
use super::roster::{MemberId, Roster};
use super::subscribe::{Subscription, SubscriptionId};
use crate::turn::{Orderer, Owner, Turn, Wake};
use crate::{Ask, ClientTx, Config, LaneKey, Route};

/// Where a conference stands; see the diagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum Phase {
    /// Nobody but the initiator is in.
    Forming,
    /// It goes on.
    Active,
    /// Nobody is in; the record is kept.
    Dormant,
    /// BYEs are out.
    Ending,
    /// Nothing is left.
    Gone,
}

/// How a conference came to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum Kind {
    /// By a recipient list.
    AdHoc,
    /// By configuration.
    PreDefined,
}

/// One conference.
#[derive(Debug)]
pub(crate) struct Conference {
    /// Its number in this lane's memory: whom transactions, orders and timers belong to.
    pub(crate) number: u64,
    /// The user part of the focus URI.
    pub(crate) id: String,
    pub(crate) kind: Kind,
    pub(crate) phase: Phase,
    pub(crate) conversation: String,
    pub(crate) contribution: String,
    pub(crate) subject: String,
    /// Members may be added.
    pub(crate) open: bool,
    /// Media that it may have (REQ-CF-16).
    pub(crate) allowed: Vec<Medium>,
    pub(crate) roster: Roster,
    pub(crate) calls: BTreeMap<CallId, Call>,
    pub(crate) calls_next: u32,
    pub(crate) subscriptions: BTreeMap<SubscriptionId, Subscription>,
    pub(crate) subscriptions_next: u32,
    pub(crate) referrals: Vec<Referral>,
    pub(crate) nicknames: Nicknames,
    /// `None` while it sleeps.
    pub(crate) room: Option<Room>,
    /// Orders to the data plane, with the sessions that wait for them.
    pub(crate) asks: BTreeMap<Ask, Vec<CallId>>,
    /// Ending: until when BYEs may be answered. Dormant: when the record goes.
    pub(crate) until: Option<Instant>,
    /// Invitations still to be sent, a few at a time.
    pub(crate) to_invite: Vec<MemberId>,
    /// Members who could not be reached, and until when nothing is held for them.
    pub(crate) paused: BTreeMap<MemberId, Instant>,
    /// More than its initiator were in once: there is a group to come back to.
    pub(crate) lived: bool,
    /// Whose it is to the limit of conferences of one user.
    pub(crate) founder: Option<UserId>,
    pub(crate) timer: Option<TimerId>,
    /// Version of its row, and a digest of what the row holds.
    pub(crate) version: u64,
    pub(crate) written: u64,
    /// By what the tables find it.
    pub(crate) handles: Handles,
    /// Rows that went with what they were about.
    pub(crate) rows_gone: Vec<crate::Key>,
}

impl Conference {
    pub(crate) fn new(
        number: u64,
        id: String,
        kind: Kind,
        conversation: String,
        contribution: String,
    ) -> Self {
        Conference {
            number,
            id,
            kind,
            phase: Phase::Forming,
            conversation,
            contribution,
            subject: String::new(),
            open: true,
            allowed: Medium::ALL.to_vec(),
            roster: Roster::default(),
            calls: BTreeMap::new(),
            calls_next: 1,
            subscriptions: BTreeMap::new(),
            subscriptions_next: 1,
            referrals: Vec::new(),
            nicknames: Nicknames::default(),
            room: None,
            asks: BTreeMap::new(),
            until: None,
            to_invite: Vec::new(),
            paused: BTreeMap::new(),
            lived: false,
            founder: None,
            timer: None,
            version: 0,
            written: 0,
            handles: Handles::default(),
            rows_gone: Vec::new(),
        }
    }

    /// The bucket that owns it.
    pub(crate) fn lane(&self) -> LaneKey {
        LaneKey::of_conference(&self.id)
    }

    /// The Group Session Identity.
    pub(crate) fn uri(&self, config: &Config) -> String {
        format!("sip:{}@{}", self.id, config.domain())
    }

    /// Every address that means the room to the switch: CPIM To (RFC 7701 §6.1).
    pub(crate) fn addresses(&self, config: &Config) -> Vec<String> {
        let by_listener = config.listeners.all().flat_map(|addr| [addr.to_string(), addr.ip().to_string()]);
        let mut all: Vec<String> = config.node.domains.iter().cloned().chain(by_listener).collect();
        all.dedup();
        all.into_iter().map(|host| format!("sip:{}@{host}", self.id)).collect()
    }

    /// Our Contact towards a route: marks the focus (RFC 4579 §5.1), and the service.
    pub(crate) fn contact(&self, config: &Config, route: &Route) -> String {
        let service = cpm::feature::Service::feature(&[cpm::feature::Service::Session]);
        let closed = if self.open {
            String::new()
        } else {
            format!(";+g.3gpp.iari-ref=\"{}\"", cpm::feature::service::CLOSED_GROUP_CHAT.replace(':', "%3A"))
        };
        crate::b2b::contact(config, self.lane(), route, &self.id, &format!(";isfocus;{service}{closed}"))
    }

    /// What descriptions depend on.
    pub(crate) fn terms<'a>(turn: &'a Turn<'_>, allowed: &'a [Medium]) -> Terms<'a> {
        let config = turn.config();
        Terms {
            controlling: &config.controlling,
            media: &config.media,
            fingerprint: <[u8; 32]>::try_from(turn.desk.fingerprint()).ok(),
            dtls_fingerprint: turn.desk.dtls_fingerprint(),
            allowed,
        }
    }

    /// What the switch is told about a member.
    pub(crate) fn chatter(&self, member: MemberId) -> Chatter {
        let Some(it) = self.roster.get(member) else { return Chatter::default() };
        Chatter {
            participant: format!("p{}", member.0),
            addresses: it.addresses.iter().map(|a| a.expose().clone()).collect(),
            nickname: it.nickname.as_ref().map(|n| n.expose().clone()).unwrap_or_default(),
        }
    }

    /// A new session with a member.
    pub(crate) fn add_call(
        &mut self,
        turn: &mut Turn<'_>,
        member: MemberId,
        state: CallState,
        route: Route,
    ) -> CallId {
        let id = CallId(self.calls_next);
        self.calls_next += 1;
        let tag = turn.token();
        self.calls.insert(id, Call::new(id, member, state, tag, route));
        id
    }

    /// The sessions of a member.
    pub(crate) fn calls_of(&self, member: MemberId) -> impl Iterator<Item = &Call> {
        self.calls.values().filter(move |c| c.member == member)
    }

    /// The session whose end we named so.
    pub(crate) fn call_by_tag(&self, tag: &str) -> Option<CallId> {
        self.calls.values().find(|c| c.tag == tag).map(|c| c.id)
    }

    /// Where the other end of the dialog with this tag of ours is.
    pub(crate) fn route_of(&self, tag: &str) -> Option<&Route> {
        let call = self.calls.values().find(|c| c.tag == tag).map(|c| &c.route);
        let own = || self.subscriptions.values().find(|s| s.own_tag() == Some(tag)).map(|s| &s.route);
        call.or_else(own)
    }

    /// By what it is found.
    pub(crate) fn handles(&self) -> Handles {
        let calls = self.calls.values().map(|c| c.tag.as_str());
        let tags = calls.chain(self.subscriptions.values().filter_map(Subscription::own_tag));
        let servers = self
            .calls
            .values()
            .flat_map(|c| c.server.as_ref().map(|(tx, _)| *tx).into_iter().chain(c.answered));
        Handles {
            tags: tags.map(str::to_owned).collect(),
            servers: servers.collect(),
            context: self.room.as_ref().map(|r| r.anchor.id()),
        }
    }

    /// Sends a request whose answer this conference wants.
    pub(crate) fn send(&self, turn: &mut Turn<'_>, to: &Route, request: Request) -> ClientTx {
        turn.send(Owner::Focus(self.number), to.clone(), request)
    }

    /// Orders what has changed in the room; the sessions go on when it is done, or at once when nothing has.
    pub(crate) fn order(&mut self, turn: &mut Turn<'_>, waiting: Vec<CallId>) {
        self.draw_paths(turn);
        let number = self.number;
        let ask = self.room.as_mut().and_then(|room| room.anchor.commit(turn, Orderer::Focus(number)));
        match ask {
            Some(ask) => drop(self.asks.insert(ask, waiting)),
            None => waiting.into_iter().for_each(|call| self.placed(turn, call)),
        }
    }

    fn draw_paths(&mut self, turn: &Turn<'_>) {
        let Conference { room, calls, .. } = self;
        if let Some(room) = room {
            let strands = calls.values().flat_map(|c| &c.talk.strands);
            room.route(&turn.config().controlling, strands);
        }
    }

    /// The data plane did as ordered.
    pub(crate) fn applied(&mut self, turn: &mut Turn<'_>, ask: Ask, applied: &Applied) {
        if let Some(room) = &mut self.room {
            room.anchor.placed(applied);
        }
        for call in self.asks.remove(&ask).unwrap_or_default() {
            self.placed(turn, call);
        }
    }

    /// The data plane did not.
    pub(crate) fn refused(&mut self, turn: &mut Turn<'_>, ask: Ask, refusal: &Refusal) {
        use contract::refusal::Reason;
        let code = match refusal.reason() {
            // What cannot be a leg came from a peer's description (an a=path that does not parse).
            Reason::BadLeg => 488,
            Reason::NoPort | Reason::Limit | Reason::Draining | Reason::Unspecified => 503,
            _ => 500,
        };
        if let Some(room) = &mut self.room {
            // Changes of a refused batch are not in the data plane: the next order carries everything.
            room.anchor.mark_stale();
        }
        for call in self.asks.remove(&ask).unwrap_or_default() {
            self.unplaced(turn, call, code);
        }
    }

    /// The legs of a session are where it can name them.
    fn placed(&mut self, turn: &mut Turn<'_>, id: CallId) {
        let Some(call) = self.calls.get(&id) else { return };
        match call.state {
            CallState::Placing => self.accept(turn, id),
            CallState::Preparing => self.call_out(turn, id),
            // Before its ACK too: an UPDATE may overtake that (RFC 3311 §5.2).
            CallState::Answered | CallState::Up if call.server.is_some() => self.accept_change(turn, id),
            CallState::Up if call.change.as_ref().is_some_and(|c| c.sent.is_none()) => {
                self.send_change(turn, id)
            }
            _ => {}
        }
    }

    /// The legs of a session are nowhere.
    fn unplaced(&mut self, turn: &mut Turn<'_>, id: CallId, code: u16) {
        let Some(call) = self.calls.get(&id) else { return };
        match call.state {
            CallState::Placing => self.refuse_join(turn, id, code),
            CallState::Preparing => self.call_failed(turn, id, code),
            CallState::Answered | CallState::Up if call.server.is_some() => {
                self.take_change_back(turn, id, code)
            }
            CallState::Up => self.hang_up(turn, id, Some("SIP;cause=503"), super::leave::Why::Lost),
            CallState::Answered | CallState::Calling | CallState::Cancelling => {}
        }
    }

    /// An answer to one of our requests.
    pub(crate) fn response(&mut self, turn: &mut Turn<'_>, tx: ClientTx, response: &Response) {
        if let Some(id) = self.call_of_client(tx, |c| c.invite.as_ref().map(|(t, _)| *t)) {
            self.invite_answered(turn, id, tx, response);
        } else if let Some(id) = self.call_of_client(tx, change_tx) {
            self.change_answered(turn, id, tx, response);
        } else {
            self.notify_answered(turn, tx, response.code);
        }
    }

    /// One of our requests gets no final answer.
    pub(crate) fn expired(&mut self, turn: &mut Turn<'_>, tx: ClientTx) {
        if let Some(id) = self.call_of_client(tx, |c| c.invite.as_ref().map(|(t, _)| *t)) {
            self.call_failed(turn, id, 408);
        } else if let Some(id) = self.call_of_client(tx, change_tx) {
            self.change_silent(turn, id);
        } else {
            self.notify_answered(turn, tx, 408);
        }
    }

    fn call_of_client(&self, tx: ClientTx, of: impl Fn(&Call) -> Option<ClientTx>) -> Option<CallId> {
        self.calls.values().find(|c| of(c) == Some(tx)).map(|c| c.id)
    }

    /// Does whatever is due.
    pub(crate) fn wake(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.mono;
        self.timer = None;
        self.invite_more(turn);
        let due: Vec<CallId> =
            self.calls.values().filter(|c| c.next().is_some_and(|at| at <= now)).map(|c| c.id).collect();
        for id in due {
            self.call_due(turn, id);
        }
        if self.until.is_some_and(|at| at <= now) {
            self.until = None;
            self.time_over(turn);
        }
        self.notify_due(turn);
    }

    fn call_due(&mut self, turn: &mut Turn<'_>, id: CallId) {
        let now = turn.now.mono;
        let Some(call) = self.calls.get_mut(&id) else { return };
        if call.deadline.is_some_and(|at| at <= now) {
            call.deadline = None;
            match call.state {
                CallState::Calling => self.ring_out(turn, id),
                CallState::Cancelling => self.call_failed(turn, id, 408),
                CallState::Up | CallState::Answered => self.repair_due(turn, id),
                CallState::Placing | CallState::Preparing => {}
            }
        }
        self.clock_due(turn, id);
    }

    /// After every event: the phase, the timer, the rows.
    pub(crate) fn settle(&mut self, turn: &mut Turn<'_>) {
        self.review(turn);
        self.mind_away(turn);
        self.notify_due(turn);
        self.save(turn);
        self.arm(turn);
    }

    fn arm(&mut self, turn: &mut Turn<'_>) {
        turn.unwake(&mut self.timer);
        if self.phase == Phase::Gone {
            return;
        }
        let calls = self.calls.values().filter_map(Call::next).min();
        let waiting = !self.to_invite.is_empty() && self.calls.values().any(Call::is_up);
        let soon = waiting.then(|| turn.now.mono + super::PACE);
        let next =
            [calls, soon, self.until, self.next_notify(turn), self.next_away()].into_iter().flatten().min();
        if let Some(at) = next {
            self.timer = turn.wake_at(at, Wake::Focus(self.number));
        }
    }

    /// Shows a member by the best of its sessions.
    pub(crate) fn show(&mut self, member: MemberId) {
        let best = self.calls_of(member).map(call_status).max_by_key(|s| rank(*s));
        if let Some(status) = best {
            self.roster.change(member, |m| m.status = status);
        }
    }

    /// A member by user, if it may act here.
    pub(crate) fn member_of(&self, user: &UserId) -> Option<MemberId> {
        self.roster.find(user)
    }
}

fn change_tx(call: &Call) -> Option<ClientTx> {
    call.change.as_ref()?.sent.as_ref().map(|(tx, _)| *tx)
}

/// RFC 4575 §5.7.3.
fn call_status(call: &Call) -> Status {
    match call.state {
        CallState::Placing => Status::DialingIn,
        CallState::Preparing => Status::Pending,
        CallState::Calling if call.alerting => Status::Alerting,
        CallState::Calling => Status::DialingOut,
        CallState::Cancelling => Status::Disconnecting,
        CallState::Answered | CallState::Up if call.talk.is_held() => Status::OnHold,
        CallState::Answered | CallState::Up => Status::Connected,
    }
}

const fn rank(status: Status) -> u8 {
    match status {
        Status::Connected => 8,
        Status::MutedViaFocus => 7,
        Status::OnHold => 6,
        Status::Alerting => 5,
        Status::DialingIn => 4,
        Status::DialingOut => 3,
        Status::Pending => 2,
        Status::Disconnecting => 1,
        Status::Disconnected => 0,
    }
}
