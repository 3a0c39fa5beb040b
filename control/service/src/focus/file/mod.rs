//! A file for a group (RFC 5547, CPM-FACTS §2.1 "Group File Transfer", §2.4; REQ-CF-02, REQ-CF-14, REQ-CF-22): an INVITE of
//! its own to the address of the group, with a Contribution-ID of its own, that offers files and nothing else; or to the
//! factory, with a list of those whom it is for, which makes no conference. The members get one each; those who take it get the octets as they come, by one `distribute` path. Nothing of the file is kept here
//! or in the data plane beyond its queues.
//!
//! ```text
//!            INVITE of a member
//!               │ policy, legs ordered
//!               ▼
//!            Opening ──refused──▶ 5xx
//!               │ placed: INVITE to each other member
//!               ▼
//!            Calling ──nobody takes it──▶ 603, 480   ──CANCEL──▶ 487, the members' INVITEs CANCELled
//!               │ all have answered, or file_wait_s after the first yes (the others are CANCELled)
//!               ▼
//!            Starting ──refused──▶ 5xx
//!               │ the path is there: 200, `recvonly`
//!               ▼
//!            Answered ──no ACK──▶ BYE to all
//!               │ ACK
//!               ▼
//!              Up ──the last member is gone──▶ BYE to the sender
//!               │ BYE of the sender, or he is lost, or nothing comes of him for file_idle_s
//!               ▼
//!            Draining (what is queued for members goes out) ──file_drain_s, the last member hangs up──▶ Over
//!               │ file_drain_s, and for some the rest waits on disk: the others' sessions end
//!               ▼
//!            Waiting ──they have it, file_slow_max_s──▶ Over
//! ```
//!
//! Who takes it begins with its first octet, because nobody is in the path before all of them are: a copy of a tail would
//! be no file. Who is lost, or whose queue does not move, is taken out by himself; nobody else hears of it. He fetches the
//! rest from its sender, who has it: `recvonly` with `file-range`, one to one (RFC 5547 §8), or the sender offers the range
//! to the group, where the others decline.
//!
//! Control that dies in the midst of a file takes it over when it starts again ([`rows`]); one of which its sender has no
//! answer yet ends then.
//!
//! Not here: files for members who are away. CPM-FACTS §2.10 defers messages, not files.

mod admit;
mod describe;
mod hears;
mod members;
mod rows;
mod sender;
#[cfg(test)]
mod tests;
mod within;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base::{Instant, Private, TimerId};
use contract::{Applied, LegKey, Refusal, leg};
use cpm::UserId;
use cpm::resource_lists::Entry;
use sdp::{Session, Stamp};
use sip::{Dialog, Request};

pub(super) use self::admit::is_for_file;
use self::describe::{Offered, Taken, new_leg};
use super::affair::Handles;
use super::attach::attach_msrp;
use crate::media::Anchor;
use crate::turn::{Orderer, Turn, Wake};
use crate::{Ask, ClientTx, LaneKey, Route, ServerTx};

/// How long the final answer to a CANCELled INVITE is awaited (RFC 3261 §9.1: 64*T1).
const CANCEL_WAIT: Duration = Duration::from_secs(32);

/// A peer that closes its connection is usually about to send BYE.
const GRACE: Duration = Duration::from_secs(2);

const MEDIA_LOST: &str = "SIP;cause=408;text=\"Media lost\"";
const TOO_SLOW: &str = "SIP;cause=408;text=\"Too slow\"";

/// Where a transfer stands; see the diagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
enum Stage {
    Opening,
    Calling,
    Starting,
    Answered,
    Up,
    Draining,
    Waiting,
    Over,
}

/// What an order to the data plane was for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Legs for everybody.
    Open,
    /// A member's description.
    Member(usize),
    /// The path.
    Start,
    /// Somebody went.
    Change,
}

/// Where a member stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PartyState {
    /// Not called yet.
    Waiting,
    /// Our INVITE has no final answer.
    Calling,
    /// It has none, and we do not want it any more.
    Cancelling,
    /// He takes the file.
    Taking,
    /// He does not, with that status; or does not any more.
    Gone(u16),
}

/// Whom a file is for.
#[derive(Clone, Debug)]
pub(super) struct Recipient {
    pub(super) user: UserId,
    /// The address by which the group names him.
    pub(super) address: Private<String>,
}

/// A member and the session with him.
#[derive(Debug)]
struct Party {
    user: UserId,
    address: Private<String>,
    route: Route,
    state: PartyState,
    /// Our tag.
    tag: String,
    leg: u64,
    invite: Option<(ClientTx, Request)>,
    dialog: Option<Dialog>,
    stamp: Option<Stamp>,
    offer: Option<Session>,
    taken: Option<Taken>,
    until: Option<Instant>,
}

/// The sender and the session with him.
#[derive(Debug)]
struct Sender {
    user: UserId,
    address: Private<String>,
    route: Route,
    /// Our tag.
    tag: String,
    leg: u64,
    /// His INVITE, until it is answered.
    server: Option<ServerTx>,
    /// Its 2xx waits for the ACK.
    answered: Option<ServerTx>,
    dialog: Option<Dialog>,
    stamp: Option<Stamp>,
    rung: bool,
}

/// What a transfer begins with.
pub(super) struct Opening {
    /// The name of the group.
    pub(super) group: String,
    pub(super) conversation: String,
    pub(super) tx: ServerTx,
    pub(super) route: Route,
    pub(super) request: Request,
    pub(super) sender: (UserId, String),
    pub(super) recipients: Vec<Recipient>,
    /// They were listed: what each may know of the others.
    pub(super) others: Option<Vec<Entry>>,
}

/// One file on its way to a group.
#[derive(Debug)]
pub(in crate::focus) struct Transfer {
    /// Its number in this lane's memory: whom transactions, orders and timers belong to.
    number: u64,
    group: String,
    conversation: String,
    others: Option<Vec<Entry>>,
    stage: Stage,
    offered: Offered,
    /// The sender's INVITE.
    invite: Box<Request>,
    sender: Sender,
    parties: Vec<Party>,
    anchor: Anchor,
    asks: BTreeMap<Ask, Step>,
    deadline: Option<Instant>,
    timer: Option<TimerId>,
    /// Legs of members who are behind others: what they have not read waits on the data plane's disk.
    slow: BTreeSet<u64>,
    /// The context is ordered gone.
    closed: bool,
    /// The last member that went hung up by himself.
    left: bool,
    /// Octets that have come of the sender, and since when there were so many.
    came: Option<(u64, Instant)>,
    /// Version of its row, and a digest of what the row holds.
    version: u64,
    written: u64,
    /// By what the tables find it.
    found_by: Handles,
}

impl Transfer {
    fn new(turn: &mut Turn<'_>, number: u64, opening: Opening, offered: Offered) -> Self {
        let lane = LaneKey::of_conference(&opening.group);
        let context = turn.context_id(lane);
        let mut anchor = Anchor::new(context, rows::id_of(context));
        let (user, address) = opening.sender;
        let sender = Sender {
            user,
            address: Private::new(address),
            route: opening.route,
            tag: turn.token(),
            leg: new_leg(&mut anchor, &offered, "sender", true),
            server: Some(opening.tx),
            answered: None,
            dialog: None,
            stamp: None,
            rung: false,
        };
        let parties = opening.recipients.into_iter().enumerate().map(|(at, it)| {
            let route = super::invite::route_to(turn, &it.user);
            Party {
                user: it.user,
                address: it.address,
                // RFC 3261 §21.4.5, for who is at no domain of ours.
                state: if route.is_some() { PartyState::Waiting } else { PartyState::Gone(404) },
                route: route.unwrap_or(Route::Lane(lane)),
                tag: turn.token(),
                leg: new_leg(&mut anchor, &offered, &format!("p{at}"), false),
                invite: None,
                dialog: None,
                stamp: None,
                offer: None,
                taken: None,
                until: None,
            }
        });
        let parties = parties.collect();
        Transfer {
            number,
            group: opening.group,
            conversation: opening.conversation,
            others: opening.others,
            stage: Stage::Opening,
            offered,
            invite: Box::new(opening.request),
            sender,
            parties,
            anchor,
            asks: BTreeMap::new(),
            deadline: None,
            timer: None,
            slow: BTreeSet::new(),
            closed: false,
            left: false,
            came: None,
            version: 0,
            written: 0,
            found_by: Handles::default(),
        }
    }

    /// Legs are ordered for everybody.
    fn open(&mut self, turn: &mut Turn<'_>) {
        let active = self.offered.makes_us_active();
        let line = self.offered.line().clone();
        self.anchor.change_leg(self.sender.leg, |leg| {
            if let Some(leg::Kind::Msrp(msrp)) = &mut leg.kind {
                attach_msrp(msrp, &line, active);
            }
        });
        for party in self.parties.iter().filter(|p| p.state != PartyState::Waiting) {
            self.anchor.remove_leg(party.leg);
        }
        self.order(turn, Step::Open);
    }

    fn order(&mut self, turn: &mut Turn<'_>, step: Step) {
        if self.closed {
            return;
        }
        match self.anchor.commit(turn, Orderer::Focus(self.number)) {
            Some(ask) => drop(self.asks.insert(ask, step)),
            None => self.ordered(turn, step),
        }
    }

    /// The data plane did as ordered.
    fn applied(&mut self, turn: &mut Turn<'_>, ask: Ask, applied: &Applied) {
        self.anchor.placed(applied);
        if let Some(step) = self.asks.remove(&ask) {
            self.ordered(turn, step);
        }
    }

    fn ordered(&mut self, turn: &mut Turn<'_>, step: Step) {
        match (step, self.stage) {
            (Step::Open, Stage::Opening) => self.call_all(turn),
            (Step::Start, Stage::Starting) => self.answer_sender(turn),
            _ => {}
        }
    }

    /// The data plane did not.
    fn refused(&mut self, turn: &mut Turn<'_>, ask: Ask, refusal: &Refusal) {
        use contract::refusal::Reason;
        let code = match refusal.reason() {
            // What cannot be a leg came from a peer's description (an a=path that does not parse).
            Reason::BadLeg => 488,
            Reason::NoPort | Reason::Limit | Reason::Draining | Reason::Unspecified => 503,
            _ => 500,
        };
        // Changes of a refused batch are not in the data plane: the next order carries everything.
        self.anchor.mark_stale();
        match self.asks.remove(&ask) {
            Some(Step::Open | Step::Start) => self.fail(turn, code),
            Some(Step::Member(at)) => self.dismiss(turn, at, "SIP;cause=488", code),
            Some(Step::Change) | None => {}
        }
    }

    /// A leg has lost its peer.
    fn leg_lost(&mut self, turn: &mut Turn<'_>, key: LegKey) {
        let until = turn.now.mono + GRACE;
        if key.leg == self.sender.leg {
            if matches!(self.stage, Stage::Answered | Stage::Up) {
                self.deadline = Some(until);
            }
        } else if let Some(party) = self.parties.iter_mut().find(|p| p.leg == key.leg)
            && party.state == PartyState::Taking
        {
            party.until = Some(until);
        }
    }

    /// A member's queue does not move. His copy has ended in the data plane, so that he has no file any more.
    fn stuck(&mut self, turn: &mut Turn<'_>, key: LegKey) {
        let at = self.parties.iter().position(|p| p.leg == key.leg && p.state == PartyState::Taking);
        if let Some(at) = at {
            self.dismiss(turn, at, TOO_SLOW, 408);
        }
    }

    /// A member is behind others, or has caught up.
    fn behind(&mut self, turn: &mut Turn<'_>, key: LegKey, on: bool) {
        if on {
            self.slow.insert(key.leg);
        } else if self.slow.remove(&key.leg) && self.stage == Stage::Waiting {
            self.dismiss_quick(turn);
        }
    }

    /// What was queued has had its time. For whom the rest waits on disk there is more.
    fn drained(&mut self, turn: &mut Turn<'_>) {
        let longest = turn.config().controlling.file_slow_max_s;
        if longest == 0 || !self.takers().any(|party| self.slow.contains(&party.leg)) {
            return self.end(turn, super::say::COMPLETED);
        }
        self.stage = Stage::Waiting;
        self.deadline = Some(turn.now.mono + Duration::from_secs(longest.into()));
        self.dismiss_quick(turn);
    }

    /// Who has all of it needs his session no more.
    fn dismiss_quick(&mut self, turn: &mut Turn<'_>) {
        for at in 0..self.parties.len() {
            let is_quick =
                |party: &&Party| !self.slow.contains(&party.leg) && party.state == PartyState::Taking;
            if self.parties.get(at).filter(is_quick).is_some() {
                self.dismiss(turn, at, super::say::COMPLETED, 200);
            }
        }
    }

    /// The data plane has lost its tables, and the octets that were on their way with them.
    fn media_gone(&mut self, turn: &mut Turn<'_>) {
        match self.sender.server {
            Some(_) => self.fail(turn, 503),
            None => self.end(turn, MEDIA_LOST),
        }
    }

    /// Does whatever is due.
    fn wake(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.mono;
        self.timer = None;
        if self.deadline.is_some_and(|at| at <= now) {
            self.deadline = None;
            match self.stage {
                Stage::Calling if self.takers().next().is_some() => self.start(turn),
                Stage::Calling => self.fail(turn, 480),
                Stage::Answered | Stage::Up => self.end(turn, MEDIA_LOST),
                Stage::Draining => self.drained(turn),
                Stage::Waiting => self.end(turn, super::say::COMPLETED),
                Stage::Opening | Stage::Starting | Stage::Over => {}
            }
        }
        for at in 0..self.parties.len() {
            let Some(party) = self.parties.get_mut(at).filter(|p| p.until.is_some_and(|u| u <= now)) else {
                continue;
            };
            party.until = None;
            match party.state {
                PartyState::Cancelling => party.state = PartyState::Gone(408),
                PartyState::Taking => self.dismiss(turn, at, MEDIA_LOST, 408),
                PartyState::Waiting | PartyState::Calling | PartyState::Gone(_) => {}
            }
        }
    }

    /// After every event: is there still somebody to wait for, or to send to? Then the timer.
    fn settle(&mut self, turn: &mut Turn<'_>) {
        let taken = self.takers().next().is_some();
        let open = self.parties.iter().any(|p| matches!(p.state, PartyState::Waiting | PartyState::Calling));
        match self.stage {
            Stage::Calling if !open && taken => self.start(turn),
            Stage::Calling if !open => self.fail(turn, self.verdict()),
            Stage::Starting if !taken => self.fail(turn, 480),
            Stage::Answered | Stage::Up if !taken => {
                self.end(turn, if self.left { super::say::COMPLETED } else { MEDIA_LOST });
            }
            Stage::Draining | Stage::Waiting if !taken => self.end(turn, super::say::COMPLETED),
            _ => {}
        }
        if self.stage == Stage::Over && !std::mem::replace(&mut self.closed, true) {
            self.anchor.remove(turn);
        }
        self.save(turn);
        turn.unwake(&mut self.timer);
        let next = self.parties.iter().filter_map(|p| p.until).chain(self.deadline).min();
        if let Some(at) = next {
            self.timer = turn.wake_at(at, Wake::Focus(self.number));
        }
    }

    /// Those who take it.
    fn takers(&self) -> impl Iterator<Item = &Party> {
        self.parties.iter().filter(|p| p.state == PartyState::Taking)
    }

    /// Nothing is left of it.
    fn is_gone(&self) -> bool {
        self.stage == Stage::Over && self.parties.iter().all(|p| matches!(p.state, PartyState::Gone(_)))
    }
}
