//! We call: members who were listed, or added by REFER (CPM-FACTS §2.6; REQ-CF-13, REQ-CF-22).
//!
//! Invitations go out a few at a time: a list of a hundred is a hundred legs and a hundred INVITEs.

use std::time::Duration;

use cpm::conference::{Disconnection, Joining, Status};
use sip::typed::Reason;
use sip::{Dialog, Method, Name, Response, Uri};

use super::call::{Call, CallId, CallState};
use super::clock;
use super::conference::{Conference, Phase};
use super::join::origin;
use super::leave::Why;
use super::roster::MemberId;
use crate::turn::{Owner, Turn};
use crate::{ClientTx, LaneKey, Route, UserId};

/// Invitations sent in one go.
const AT_ONCE: usize = 16;

/// How long the final answer to a CANCELled INVITE is awaited (RFC 3261 §9.1: 64*T1).
const CANCEL_WAIT: Duration = Duration::from_secs(32);

impl Conference {
    /// Wants a member called.
    pub(crate) fn invite(&mut self, member: MemberId) {
        self.roster.change(member, |m| {
            m.status = Status::Pending;
            m.disconnection = None;
        });
        if !self.to_invite.contains(&member) {
            self.to_invite.push(member);
        }
    }

    /// Calls the next few of those who wait to be called.
    pub(crate) fn invite_more(&mut self, turn: &mut Turn<'_>) {
        if !matches!(self.phase, Phase::Forming | Phase::Active) {
            self.to_invite.clear();
            return;
        }
        // Nobody is called into an empty room: the initiator first.
        if !self.calls.values().any(Call::is_up) {
            return;
        }
        let now: Vec<MemberId> = self.to_invite.drain(..self.to_invite.len().min(AT_ONCE)).collect();
        let mut calls = Vec::new();
        for member in now {
            // Who has come by itself meanwhile needs no invitation.
            if self.calls_of(member).next().is_some() {
                continue;
            }
            let Some(user) = self.roster.get(member).map(|m| m.user.clone()) else { continue };
            let Some(route) = route_to(turn, &user) else {
                self.target_failed(turn, member, 404);
                continue;
            };
            let id = self.add_call(turn, member, CallState::Preparing, route);
            let who = self.chatter(member);
            let waiting = self.take_away_leg(member);
            if let (Some(call), Some(room)) = (self.calls.get_mut(&id), self.room.as_mut()) {
                call.talk.prepare_invitation(room, &who, waiting);
            }
            calls.push(id);
        }
        if !calls.is_empty() {
            self.order(turn, calls);
        }
    }

    /// The legs are placed: the INVITE goes out.
    pub(crate) fn call_out(&mut self, turn: &mut Turn<'_>, id: CallId) {
        let fresh = origin(turn);
        let Conference { calls, room, allowed, .. } = self;
        let (Some(call), Some(room)) = (calls.get_mut(&id), room.as_mut()) else { return };
        let terms = Conference::terms(turn, allowed);
        let offer = call.talk.offer(room, &terms, fresh);
        let Some(call) = self.calls.get(&id) else { return };
        let invitation = offer.and_then(|o| self.invitation(turn, call, call.member, o.to_bytes()));
        let Some(mut request) = invitation else { return self.call_failed(turn, id, 503) };
        let route = call.route.clone();
        let proposed = clock::propose(turn, &mut request, &route);
        let tx = self.send(turn, &route, request.clone());
        let ring = Duration::from_secs(turn.config().controlling.ring_s.into());
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.clock = proposed;
        call.invite = Some((tx, request));
        call.state = CallState::Calling;
        call.deadline = Some(turn.now.mono + ring);
        let member = call.member;
        self.show(member);
    }

    /// An answer to our INVITE.
    pub(crate) fn invite_answered(
        &mut self,
        turn: &mut Turn<'_>,
        id: CallId,
        tx: ClientTx,
        response: &Response,
    ) {
        match response.code {
            ..200 => self.ringing(id, response.code),
            200..300 => self.answered(turn, id, tx, response),
            422 => self.interval_too_small(turn, id, response),
            code => self.call_failed(turn, id, code),
        }
    }

    fn ringing(&mut self, id: CallId, code: u16) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if code >= 180 && call.state == CallState::Calling {
            call.alerting = true;
            let member = call.member;
            self.show(member);
        }
    }

    /// RFC 4028 §7.4: once more with the interval that the peer wants at least.
    fn interval_too_small(&mut self, turn: &mut Turn<'_>, id: CallId, response: &Response) {
        let least = response.headers.text(&Name::MinSe).and_then(|t| t.trim().parse::<u32>().ok());
        let again =
            self.calls.get(&id).filter(|c| c.state == CallState::Calling).and_then(|c| c.invite.clone());
        let (Some(least), Some((_, mut request))) = (least, again) else {
            return self.call_failed(turn, id, 422);
        };
        // An hour is more than anybody needs, and a peer that raises it for ever is not followed.
        let asked = request
            .headers
            .text(&Name::SessionExpires)
            .and_then(|t| t.split(';').next()?.parse::<u32>().ok());
        if least > 86_400 || asked.is_some_and(|asked| asked >= least) {
            return self.call_failed(turn, id, 422);
        }
        request.headers.set(Name::SessionExpires, least.to_string());
        request.headers.set(Name::MinSe, least.to_string());
        request.headers.set(Name::CSeq, "2 INVITE");
        let Some(route) = self.calls.get(&id).map(|c| c.route.clone()) else { return };
        let tx = self.send(turn, &route, request.clone());
        if let Some(call) = self.calls.get_mut(&id) {
            call.invite = Some((tx, request));
        }
    }

    /// 2xx: acknowledged, and in; or, when it comes too late, ended at once (RFC 3261 §13.2.2.4, §9.1).
    fn answered(&mut self, turn: &mut Turn<'_>, id: CallId, tx: ClientTx, response: &Response) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some((_, invite)) = &call.invite else { return };
        let Ok(mut dialog) = Dialog::uac(invite, response) else {
            return self.call_failed(turn, id, 502);
        };
        let known = call.dialog.as_ref().map(|d| d.id.remote_tag.clone());
        if known.as_deref() == Some(dialog.id.remote_tag.as_str()) {
            // The same 2xx again: the stack sends our ACK again.
            return;
        }
        let seq = invite.cseq().map_or(1, |c| c.seq);
        turn.ack(tx, call.route.clone(), dialog.ack(seq));
        if call.state != CallState::Calling {
            let mut bye = dialog.request(Method::Bye);
            bye.headers.push(Name::Reason, super::say::COMPLETED);
            turn.send(Owner::Nobody, call.route.clone(), bye);
            if call.state == CallState::Cancelling {
                self.drop_call(turn, id, Why::Replaced);
            }
            return;
        }
        call.dialog = Some(dialog);
        call.state = CallState::Up;
        call.deadline = None;
        call.dirty = true;
        call.update = response.headers.has_token(&Name::Allow, "UPDATE");
        call.clock = clock::agreed(turn.now.mono, call.clock.clone(), response);
        if !self.answer_in(turn, id, &response.headers, &response.body) {
            // An answer that fits no offer of ours.
            self.hang_up(turn, id, Some("SIP;cause=488"), Why::Failed);
            return;
        }
        self.joined(turn, id, Joining::DialedOut);
    }

    /// It rang for too long.
    pub(crate) fn ring_out(&mut self, turn: &mut Turn<'_>, id: CallId) {
        let Some(member) = self.calls.get(&id).map(|c| c.member) else { return };
        self.take_back(turn, id);
        self.target_failed(turn, member, 408);
    }

    /// Takes an invitation back.
    pub(crate) fn take_back(&mut self, turn: &mut Turn<'_>, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        match (&call.invite, call.state) {
            (Some((tx, _)), CallState::Calling) => {
                turn.cancel(*tx, Some(Reason::sip(200, "Call completed")));
                call.state = CallState::Cancelling;
                call.deadline = Some(turn.now.mono + CANCEL_WAIT);
                let (member, room) = (call.member, self.room.as_mut());
                if let Some(room) = room {
                    call.talk.close(room);
                }
                self.order(turn, Vec::new());
                self.show(member);
            }
            (_, CallState::Preparing) => self.drop_call(turn, id, Why::Replaced),
            _ => {}
        }
    }

    /// An invitation failed, or its data plane legs did.
    pub(crate) fn call_failed(&mut self, turn: &mut Turn<'_>, id: CallId, code: u16) {
        let Some(call) = self.calls.get(&id) else { return };
        let (member, state) = (call.member, call.state);
        match state {
            CallState::Calling | CallState::Preparing => {
                self.drop_call(turn, id, Why::Failed);
                if self.calls_of(member).next().is_none() {
                    self.target_failed(turn, member, code);
                }
            }
            CallState::Cancelling => self.drop_call(turn, id, Why::Replaced),
            // A later answer of a forked INVITE changes nothing.
            CallState::Up | CallState::Answered | CallState::Placing => {}
        }
    }

    /// A member could not be brought in: who declines is off the roster, who is not there stays on it.
    fn target_failed(&mut self, turn: &mut Turn<'_>, member: MemberId, code: u16) {
        self.target_reached(turn, member, code);
        let declined = code >= 600;
        if declined || !turn.config().controlling.long_lived {
            self.remove_member(
                turn,
                member,
                if declined { Disconnection::Busy } else { Disconnection::Failed },
            );
            return;
        }
        self.pause(turn, member);
        self.roster.change(member, |m| {
            m.status = Status::Disconnected;
            m.disconnection =
                Some(if matches!(code, 486 | 600) { Disconnection::Busy } else { Disconnection::Failed });
        });
    }
}

/// Where a user is served: a lane of this node for our own domains and for numbers. Nobody knows the way to
/// others yet.
pub(super) fn route_to(turn: &Turn<'_>, user: &UserId) -> Option<Route> {
    let ours = user.domain().is_none_or(|domain| turn.config().is_ours(domain));
    ours.then(|| Route::Lane(LaneKey::of_user(user)))
}

/// The URI that an address stands for, when it can be called.
pub(crate) fn callable(address: &str) -> Option<UserId> {
    let uri = Uri::parse(address.as_bytes()).ok()?;
    (uri.is_sip() || uri.scheme == sip::Scheme::Tel).then(|| UserId::parse(address).ok()).flatten()
}
