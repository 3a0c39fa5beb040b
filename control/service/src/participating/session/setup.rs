//! From the INVITE to the first 2xx: fork, race, merge, CANCEL (RFC 3261 §13, §16.7, CPM-FACTS §2.5, §2.8).

use std::time::Duration;

use base::{Instant, UnixTime};
use bytes::Bytes;
use contract::Refusal;
use sip::typed::Reason;
use sip::{Dialog, Method, Name, Request, Response};

use super::clock;
use super::reliable::{self, Reliable};
use super::{Phase, Plan, Session, Side, SideState, UPSTREAM};
use crate::b2b;
use crate::body;
use crate::participating::leg::{self, Caller};
use crate::participating::merge::Merge;
use crate::supported;
use crate::turn::{Owner, Turn};
use crate::{Route, ServerTx, UserId};

pub(crate) use crate::participating::leg::Target;

/// How long CANCELled legs may take for their final answer (RFC 3261 §9.1: 64*T1).
const CANCEL_WAIT: Duration = Duration::from_secs(32);

/// An INVITE that opens a session.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) tx: ServerTx,
    pub(crate) request: Request,
    /// Where it came from: answers go by the transaction, later requests go there.
    pub(crate) route: Route,
    pub(crate) user: UserId,
    pub(crate) originating: bool,
    /// The other end is a focus.
    pub(crate) group: bool,
    pub(crate) plan: Plan,
    pub(crate) caller: Caller,
    pub(crate) targets: Vec<Target>,
}

/// What is kept until the INVITE has its final answer.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) tx: ServerTx,
    pub(super) request: Request,
    caller: Caller,
    targets: Vec<Target>,
    offer: Bytes,
    pub(super) merge: Merge,
    /// The best provisional answer relayed so far.
    pub(super) rung: u16,
    pub(super) deadline: Instant,
    pub(super) reliable: Reliable,
    /// Who answered first, and with what.
    pub(super) winner: Option<(usize, Response)>,
}

impl Setup {
    pub(super) const fn tx(&self) -> ServerTx {
        self.tx
    }

    pub(super) const fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) const fn offer(&self) -> &Bytes {
        &self.offer
    }

    /// Who is called as that side, until he is.
    pub(super) fn target(&self, side: usize) -> Option<&Target> {
        self.targets.get(side.checked_sub(1)?)
    }

    /// Targets that are not called yet.
    pub(super) const fn targets_len(&self) -> usize {
        self.targets.len()
    }
}

impl Session {
    /// Begins; answers the INVITE itself and gives nothing when it cannot.
    pub(crate) fn start(turn: &mut Turn<'_>, id: u64, start: Start) -> Option<Session> {
        let Start { tx, request, route, user, originating, group, plan, caller, targets } = start;
        let refuse = |turn: &mut Turn<'_>, code| {
            let response = b2b::refuse(turn.config(), &request, code);
            turn.respond(tx, response);
        };
        let Some(offer) = body::sdp_in(&request.headers, &request.body) else {
            // A body that hides its SDP (broken multipart).
            refuse(turn, 400);
            return None;
        };
        // A device that offers by itself answers nobody else's offer: the first one takes it, there is no fan-out.
        let plan = if offer.is_empty() && plan == Plan::FanOut { Plan::Relay } else { plan };
        let clock = match clock::accept(turn, &request, &route) {
            Ok(clock) => clock,
            Err(response) => {
                turn.respond(tx, *response);
                return None;
            }
        };
        let text = |name| request.headers.text(&name).unwrap_or_default().to_owned();
        let ringing = Duration::from_secs(turn.config().participating.ringing_max_s.into());
        let mut session = Session {
            id,
            originating,
            group,
            plan,
            phase: Phase::Inviting,
            sides: Vec::with_capacity(targets.len() + 1),
            invite_seq: request.cseq().ok().map(|cseq| cseq.seq),
            unpracked: None,
            last_word: None,
            tags_before: Vec::new(),
            exchange: None,
            passing: Vec::new(),
            referrals: super::referral::Referrals::default(),
            anchor: None,
            lines: super::Lines::default(),
            repair: None,
            ask: None,
            timer: None,
            calling_until: None,
            behind: std::collections::BTreeSet::new(),
            lingering: None,
            referrer: None,
            since: UnixTime::default(),
            conversation: text(Name::ConversationId),
            contribution: text(Name::ContributionId),
            version: 0,
            user,
            setup: None,
        };
        session.sides.push(Side {
            state: SideState::Calling,
            tag: turn.token(),
            dialog: None,
            update: leg::allows_update(&request.headers),
            route,
            device: String::new(),
            invite: None,
            early: Vec::new(),
            unacknowledged: None,
            sdp_sent: Bytes::new(),
            sdp_got: offer.clone(),
            clock,
            legs: Vec::new(),
            contact_user: None,
            contact_features: String::new(),
        });
        session.setup = Some(Setup {
            tx,
            request,
            caller,
            targets,
            offer,
            merge: Merge::default(),
            rung: 0,
            reliable: Reliable::default(),
            deadline: turn.now.mono + ringing,
            winner: None,
        });
        session.open(turn);
        session.settle(turn);
        (!session.is_gone()).then_some(session)
    }

    fn open(&mut self, turn: &mut Turn<'_>) {
        let late = self.setup.as_ref().is_some_and(|s| s.offer.is_empty());
        if self.plan == Plan::Pass || late {
            self.call_legs(turn);
            return;
        }
        match self.sound_open(turn) {
            Ok(()) => self.phase = Phase::Allocating,
            Err(code) => self.fail(turn, code),
        }
    }

    /// Sends the INVITE to every target.
    pub(super) fn call_legs(&mut self, turn: &mut Turn<'_>) {
        self.phase = Phase::Inviting;
        let Some(setup) = self.setup.as_mut() else { return };
        let targets = std::mem::take(&mut setup.targets);
        for target in targets {
            self.call(turn, target);
        }
    }

    fn call(&mut self, turn: &mut Turn<'_>, target: Target) {
        let at = self.sides.len();
        let sdp = self.sound_offer(turn, at);
        let lane = self.lane();
        let Some(setup) = self.setup.as_ref() else { return };
        let (mut invite, tag) =
            leg::request(turn, lane, Method::Invite, &setup.request, &setup.caller, &target);
        if let Some(sdp) = &sdp {
            body::replace_sdp(&mut invite, sdp.clone());
        }
        let clock = clock::propose(turn, &mut invite, &target.route);
        if !setup.offer.is_empty() {
            // RFC 3262 §4
            invite.headers.push(Name::Supported, reliable::OPTION);
        }
        let sent = sdp.unwrap_or_else(|| setup.offer.clone());
        let tx = turn.send(Owner::Session(self.id), target.route.clone(), invite.clone());
        let legs = self.lines.legs_of(at);
        let (user, contact_features) = leg::shown_contact(&setup.request, &tag);
        let contact_user = Some(user).filter(|user| *user != tag);
        self.sides.push(Side {
            state: SideState::Calling,
            tag,
            dialog: None,
            route: target.route,
            device: target.device,
            invite: Some((tx, invite)),
            early: Vec::new(),
            unacknowledged: None,
            sdp_sent: sent,
            sdp_got: Bytes::new(),
            clock,
            update: false,
            legs,
            contact_user,
            contact_features,
        });
    }

    /// Both sides are agreed: 2xx upstream. What it promises is in the row that this same call writes.
    pub(super) fn answer_upstream(&mut self, turn: &mut Turn<'_>) {
        if self.exchange.is_some() || self.setup.as_ref().is_some_and(|s| s.reliable.holds_success()) {
            self.phase = Phase::Joining;
            return;
        }
        let Some((winner, accepted)) = self.setup.as_mut().and_then(|s| s.winner.take()) else { return };
        let answered = self.side(winner).map(|s| s.sdp_got.clone()).unwrap_or_default();
        let told = self.setup.as_ref().is_some_and(|s| s.reliable.has_told());
        let shown =
            self.was_shown(winner, &accepted.to_tag().unwrap_or_default(), &answered).filter(|_| told);
        if shown == Some(false)
            && let Some(side) = self.sides.first_mut()
        {
            // Another answer than the one that was shown is of another dialog.
            self.tags_before.push(std::mem::replace(&mut side.tag, turn.desk.entropy.token(128)));
            side.dialog = None;
        }
        // RFC 3262 §5: the answer is there, and what has been agreed since is not said again.
        let changed = shown == Some(true) && self.setup.as_ref().is_some_and(|s| s.reliable.has_changed());
        let sdp = match self.plan {
            _ if changed => None,
            _ if shown == Some(true) => self.side(UPSTREAM).map(|s| s.sdp_sent.clone()),
            Plan::Pass => None,
            Plan::Relay | Plan::FanOut if self.unacknowledged().is_some() => {
                self.sound_late_offer(turn, winner)
            }
            Plan::Relay | Plan::FanOut => self.sound_answer(turn, winner),
        };
        self.show_upstream(&accepted);
        let contact = self.contact_of(turn, UPSTREAM);
        let Some(setup) = self.setup.take() else { return };
        self.unpracked = setup.reliable.left();
        let mut answer = b2b::relay(&setup.request, &accepted);
        if let Some(sdp) = &sdp {
            body::replace_sdp_in(&mut answer, sdp.clone());
        }
        if changed {
            answer.body = Bytes::new();
            answer.headers.remove(&Name::ContentType);
        }
        let got = self.side(winner).map(|s| s.sdp_got.clone()).unwrap_or_default();
        let now = turn.now.mono;
        let Some(side) = self.sides.first_mut() else { return };
        answer.set_to_tag(&side.tag);
        answer.headers.set(Name::Contact, contact);
        answer.headers.set(Name::Allow, supported::ALLOW);
        clock::answer(now, &mut side.clock, &setup.request, &mut answer);
        if !changed {
            side.sdp_sent = sdp.unwrap_or(got);
        }
        let early = side.dialog.take().map(|mut dialog| {
            dialog.phase = sip::Phase::Confirmed;
            dialog
        });
        let Ok(dialog) = early.map_or_else(|| Dialog::uas(&setup.request, &answer), Ok) else {
            // The request has no Contact: `methods` has refused such an INVITE already.
            self.end_all(turn, None, "SIP;cause=400");
            return;
        };
        side.route = leg::route_of(turn.config(), &side.route, &dialog);
        side.dialog = Some(dialog);
        side.state = SideState::Confirmed;
        turn.respond(setup.tx, answer);
        self.phase = Phase::Active;
        self.calling_until = (self.plan == Plan::FanOut).then_some(setup.deadline);
        self.since = turn.now.wall;
        self.save(turn);
    }

    /// The caller took the INVITE back.
    pub(super) fn setup_cancelled(&mut self, turn: &mut Turn<'_>, reason: Option<&Reason>) {
        self.cancel_calling(turn, reason);
        self.fail(turn, 487);
    }

    /// The data plane has no room, or is gone.
    pub(super) fn setup_refused(&mut self, turn: &mut Turn<'_>, refusal: &Refusal) {
        use contract::refusal::Reason;
        let code = match refusal.reason() {
            // What cannot be a leg came from the caller's description; nobody else's has come yet.
            Reason::BadLeg if self.phase == Phase::Allocating => 488,
            Reason::NoPort | Reason::Limit | Reason::Draining | Reason::Unspecified => 503,
            _ => 500,
        };
        self.fail(turn, code);
    }

    /// Nobody took the call in time (Timer C).
    pub(super) fn ring_out(&mut self, turn: &mut Turn<'_>) {
        if self.phase == Phase::Ending {
            self.phase = Phase::Gone;
            return;
        }
        self.fail(turn, 480);
    }

    pub(super) fn fail(&mut self, turn: &mut Turn<'_>, code: u16) {
        let response = self.setup.as_ref().map(|s| b2b::refuse(turn.config(), &s.request, code));
        self.fail_with(turn, response);
    }

    /// Final failure upstream; what is still called is CANCELled, what has answered is ended.
    pub(super) fn fail_with(&mut self, turn: &mut Turn<'_>, response: Option<Response>) {
        self.drop_exchange(turn);
        let tag = self.sides.first().map(|s| s.tag.clone()).unwrap_or_default();
        if let Some(setup) = self.setup.as_mut() {
            let mut answer = match response {
                Some(response) => b2b::relay(&setup.request, &response),
                None => b2b::refuse(turn.config(), &setup.request, 480),
            };
            answer.set_to_tag(&tag);
            turn.respond(setup.tx, answer);
            setup.deadline = turn.now.mono + CANCEL_WAIT;
            // RFC 3262 §3: no more of them, but a PRACK on its way is taken.
            self.unpracked = std::mem::take(&mut setup.reliable).left();
        }
        self.cancel_calling(turn, None);
        for at in self.others(UPSTREAM) {
            self.end_side(turn, at, None);
        }
        if let Some(side) = self.side_mut(UPSTREAM) {
            side.state = SideState::Gone;
        }
        self.sound_close(turn);
        self.phase = Phase::Ending;
    }

    pub(super) fn cancel_calling(&mut self, turn: &mut Turn<'_>, reason: Option<&Reason>) {
        for side in self.sides.iter_mut().skip(1).filter(|s| s.state == SideState::Calling) {
            if let Some((tx, _)) = &side.invite {
                turn.cancel(*tx, reason.cloned());
            }
            side.state = SideState::Cancelling;
        }
    }

    /// What upstream sees of us: a focus behind us shows through (RFC 4579 §5.2: `isfocus`).
    fn show_upstream(&mut self, accepted: &Response) {
        let shown = accepted.headers.typed::<sip::typed::Contact>().ok().flatten();
        let Some(side) = self.sides.first_mut() else { return };
        side.contact_features = shown.as_ref().map(|c| b2b::contact_features(c)).unwrap_or_default();
        side.contact_user = shown.filter(|c| c.has_feature("isfocus")).and_then(|c| c.0.uri.user);
        self.group |= side.contact_user.is_some();
    }
}
