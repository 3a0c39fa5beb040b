//! They call: the initiator's own session, joining, rejoining (CPM-FACTS §2.6; REQ-CF-11, REQ-CF-12, REQ-CF-13).
//!
//! A member whose invitation still rings joins by its own INVITE: the invitation is taken back. One more session
//! of a member is one more copy for it (RFC 7701 §6.3); beyond the limit the oldest is ended.

use cpm::conference::Joining;
use sip::{Dialog, Request};

use super::call::{CallId, CallState};
use super::clock;
use super::conference::{Conference, Phase};
use super::leave::Why;
use super::roster::MemberId;
use super::say;
use crate::b2b;
use crate::body;
use crate::media;
use crate::turn::Turn;
use crate::{Route, ServerTx};

impl Conference {
    /// Takes an INVITE of a member: the legs are ordered, the answer follows.
    pub(crate) fn join(
        &mut self,
        turn: &mut Turn<'_>,
        tx: ServerTx,
        route: Route,
        request: Request,
        member: MemberId,
    ) {
        let refuse = |turn: &mut Turn<'_>, code| {
            let response = b2b::refuse(turn.config(), &request, code);
            turn.respond(tx, response);
        };
        if !request.headers.has(&sip::Name::Contact) {
            return refuse(turn, 400);
        }
        let Some(sdp) = body::sdp_in(&request.headers, &request.body) else { return refuse(turn, 400) };
        let offer = match sdp.is_empty() {
            true => None,
            false => match media::hear(turn, &sdp) {
                Ok(offer) => Some(offer),
                Err(code) => return refuse(turn, code),
            },
        };
        let clock = match clock::accept(turn, &request, &route) {
            Ok(clock) => clock,
            Err(response) => return turn.respond(tx, *response),
        };
        for address in say::sender_addresses(&request) {
            self.roster.change(member, |m| m.learn(&address));
        }
        self.replace_away_leg(member);
        let id = self.add_call(turn, member, CallState::Placing, route);
        let who = self.chatter(member);
        let own = self.addresses(turn.config());
        let Conference { calls, room, allowed, .. } = self;
        let (Some(call), Some(room)) = (calls.get_mut(&id), room.as_mut()) else { return refuse(turn, 503) };
        call.clock = clock;
        call.update = allows_update(&request);
        let mut keys = turn.desk.entropy.child();
        let terms = Conference::terms(turn, allowed);
        let taken = match offer {
            Some(offer) => call.talk.take_offer(room, &terms, &who, &own, offer, &mut keys),
            // RFC 3261 §13.2.1: an INVITE without an offer gets ours in the 2xx.
            None if room.lines.is_empty() => Err(488),
            None => {
                call.owes_answer = true;
                call.talk.prepare_offer(room, &who);
                Ok(())
            }
        };
        call.server = Some((tx, request));
        match taken {
            Ok(()) => {
                self.show(member);
                self.order(turn, vec![id]);
            }
            Err(code) => self.refuse_join(turn, id, code),
        }
    }

    /// The legs are placed: 200 with `isfocus` (RFC 4579 §5.1), and the member is in. The row that promises it
    /// is written by this same call.
    pub(crate) fn accept(&mut self, turn: &mut Turn<'_>, id: CallId) {
        let fresh = origin(turn);
        let Conference { calls, room, allowed, .. } = self;
        let (Some(call), Some(room)) = (calls.get_mut(&id), room.as_mut()) else { return };
        let terms = Conference::terms(turn, allowed);
        let session = match call.owes_answer {
            true => call.talk.offer(room, &terms, fresh),
            false => call.talk.answer(room, &terms, fresh),
        };
        let Some(session) = session else { return self.refuse_join(turn, id, 503) };
        let Some((tx, request)) = call.server.take() else { return };
        let mut response = request.respond(200);
        let (route, tag, member) = (call.route.clone(), call.tag.clone(), call.member);
        clock::answer(turn.now.mono, &mut call.clock, &request, &mut response);
        self.dress(turn.config(), &route, &tag, &mut response);
        response.set_body(cpm::media_type::SDP, session.to_bytes());
        let Ok(dialog) = Dialog::uas(&request, &response) else {
            // The INVITE has no usable Contact.
            return self.refuse_placed(turn, id, tx, &request, 400);
        };
        turn.respond(tx, response);
        if let Some(call) = self.calls.get_mut(&id) {
            call.dialog = Some(dialog);
            call.state = CallState::Answered;
            call.answered = Some(tx);
            call.dirty = true;
        }
        self.joined(turn, id, Joining::DialedIn);
        self.end_oldest(turn, member);
    }

    /// A session is up: the roster says so, the rest of the group is invited, the conference is alive.
    pub(crate) fn joined(&mut self, turn: &mut Turn<'_>, id: CallId, how: Joining) {
        let Some(member) = self.calls.get(&id).map(|c| c.member) else { return };
        self.roster.change(member, |m| {
            m.joining = Some(how);
            m.disconnection = None;
            m.session_replaces = None;
        });
        self.show(member);
        self.paused.remove(&member);
        if matches!(self.phase, Phase::Forming | Phase::Dormant) && self.roster.connected() > 1 {
            self.phase = Phase::Active;
            self.lived = true;
        }
        self.target_reached(turn, member, 200);
        // Whoever called while we called them is in already.
        let calling: Vec<CallId> = self
            .calls_of(member)
            .filter(|c| c.id != id && matches!(c.state, CallState::Preparing | CallState::Calling))
            .map(|c| c.id)
            .collect();
        if how == Joining::DialedIn {
            calling.into_iter().for_each(|other| self.take_back(turn, other));
        }
    }

    /// More sessions than a member may have: the oldest goes.
    fn end_oldest(&mut self, turn: &mut Turn<'_>, member: MemberId) {
        let max = turn.config().controlling.sessions_per_member_max;
        let up: Vec<CallId> = self.calls_of(member).filter(|c| c.is_up()).map(|c| c.id).collect();
        let surplus = up.len().saturating_sub(max);
        for id in up.into_iter().take(surplus) {
            self.hang_up(turn, id, Some(say::COMPLETED), Why::Replaced);
        }
    }

    /// An INVITE that got legs and now gets none.
    pub(crate) fn refuse_join(&mut self, turn: &mut Turn<'_>, id: CallId, code: u16) {
        let Some((tx, request)) = self.calls.get_mut(&id).and_then(|c| c.server.take()) else { return };
        self.refuse_placed(turn, id, tx, &request, code);
    }

    fn refuse_placed(&mut self, turn: &mut Turn<'_>, id: CallId, tx: ServerTx, request: &Request, code: u16) {
        let response = b2b::refuse(turn.config(), request, code);
        turn.respond(tx, response);
        self.drop_call(turn, id, Why::Failed);
    }

    /// CANCEL of an INVITE that we have not answered (RFC 3261 §9.2).
    pub(crate) fn cancelled(&mut self, turn: &mut Turn<'_>, tx: ServerTx) {
        let Some(id) =
            self.calls.values().find(|c| c.server.as_ref().is_some_and(|(t, _)| *t == tx)).map(|c| c.id)
        else {
            return;
        };
        match self.calls.get(&id).map(|c| c.state) {
            Some(CallState::Placing) => self.refuse_join(turn, id, 487),
            Some(CallState::Up) => self.refuse_change(turn, id, 487),
            _ => {}
        }
    }

    /// An ACK: the session is confirmed, and may bring the answer to our offer.
    pub(crate) fn ack(&mut self, turn: &mut Turn<'_>, id: CallId, request: &Request) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.answered = None;
        if call.state == CallState::Answered {
            call.state = CallState::Up;
        }
        if !std::mem::take(&mut call.owes_answer) {
            return;
        }
        if !self.answer_in(turn, id, &request.headers, &request.body) {
            self.hang_up(turn, id, Some("SIP;cause=488"), Why::Failed);
        }
    }

    /// No ACK came (RFC 3261 §13.3.1.4): the session ends.
    pub(crate) fn ack_missing(&mut self, turn: &mut Turn<'_>, tx: ServerTx) {
        if let Some(id) = self.calls.values().find(|c| c.answered == Some(tx)).map(|c| c.id) {
            self.hang_up(turn, id, Some("SIP;cause=408"), Why::Lost);
        }
    }

    /// Takes the peer's answer to our offer out of a message; false when there is none that fits.
    pub(crate) fn answer_in(
        &mut self,
        turn: &mut Turn<'_>,
        id: CallId,
        headers: &sip::Headers,
        body: &bytes::Bytes,
    ) -> bool {
        let parsed = body::sdp_in(headers, body)
            .filter(|sdp| !sdp.is_empty())
            .and_then(|sdp| media::hear(turn, &sdp).ok());
        let Some(answer) = parsed else { return false };
        let Conference { calls, room, allowed, .. } = self;
        let (Some(call), Some(room)) = (calls.get_mut(&id), room.as_mut()) else { return false };
        let terms = Conference::terms(turn, allowed);
        let taken = call.talk.take_answer(room, &terms, answer).is_ok();
        call.dirty = true;
        if taken {
            let member = call.member;
            self.roster.touch(member);
            self.order(turn, vec![id]);
        }
        taken
    }
}

/// A peer that says nothing of methods is asked by re-INVITE.
pub(crate) fn allows_update(request: &Request) -> bool {
    request.headers.has_token(&sip::Name::Allow, "UPDATE")
}

/// An o= line to begin a dialog with; the address is put in when it is known.
pub(crate) fn origin(turn: &mut Turn<'_>) -> sdp::Origin {
    let nowhere = sdp::Host::Ip(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    sdp::Origin::fresh(&mut turn.desk.entropy, nowhere)
}
