//! Changes of a session that is up: re-INVITE and UPDATE of either side, and session timers (RFC 3261 §14,
//! RFC 3311, RFC 3264 §8, RFC 4028; REQ-CF-11).
//!
//! One change at a time: ours against theirs is glare, 491; a second one of theirs gets 500 (RFC 3261 §14.2).

use std::time::Duration;

use sip::{Method, Name, Request, Response};

use super::call::{Agreed, CallId, Change, Purpose};
use super::clock;
use super::conference::Conference;
use super::join::origin;
use super::leave::Why;
use crate::b2b;
use crate::body;
use crate::media;
use crate::supported;
use crate::turn::Turn;
use crate::{ClientTx, ServerTx};

/// RFC 3261 §14.1: who did not draw the Call-ID waits up to two seconds, who did between 2.1 and four.
const GLARE_OWN_MS: (u64, u64) = (2100, 1900);
const GLARE_OTHER_MS: (u64, u64) = (0, 2000);

impl Conference {
    /// A participant changes or refreshes its session.
    pub(crate) fn modify(&mut self, turn: &mut Turn<'_>, id: CallId, tx: ServerTx, request: Request) {
        let Some(call) = self.calls.get(&id) else { return };
        let refuse = |turn: &mut Turn<'_>, code: u16| {
            let mut response = b2b::refuse(turn.config(), &request, code);
            if code == 500 {
                response.headers.push(Name::RetryAfter, turn.desk.entropy.below(11).to_string());
            }
            turn.respond(tx, response);
        };
        if call.server.is_some() || call.owes_answer {
            return refuse(turn, 500);
        }
        if call.change.is_some() || !call.is_up() {
            return refuse(turn, 491);
        }
        let Some(sdp) = body::sdp_in(&request.headers, &request.body) else { return refuse(turn, 400) };
        let offer = match sdp.is_empty() {
            true => None,
            false => match media::hear(turn, &sdp) {
                Ok(offer) => Some(offer),
                Err(code) => return refuse(turn, code),
            },
        };
        let clock = match clock::accept(turn, &request, &call.route) {
            Ok(clock) => clock,
            Err(response) => return turn.respond(tx, *response),
        };
        let refresh_only = offer.is_none() && request.method == Method::Update;
        let (who, own) = (self.chatter(call.member), self.addresses(turn.config()));
        let Conference { calls, room, allowed, .. } = self;
        let (Some(call), Some(room)) = (calls.get_mut(&id), room.as_mut()) else { return refuse(turn, 503) };
        call.clock = clock;
        call.dirty = true;
        let mut keys = turn.desk.entropy.child();
        let terms = Conference::terms(turn, allowed);
        call.before = offer.as_ref().map(|_| Box::new(Agreed::of(&call.talk, room)));
        let taken = match offer {
            Some(offer) => call.talk.take_offer(room, &terms, &who, &own, offer, &mut keys),
            None => {
                call.owes_answer = !refresh_only;
                Ok(())
            }
        };
        call.server = Some((tx, request));
        match taken {
            Ok(()) => self.order(turn, vec![id]),
            Err(code) => self.refuse_change(turn, id, code),
        }
    }

    /// The legs are as the participant wants them.
    pub(crate) fn accept_change(&mut self, turn: &mut Turn<'_>, id: CallId) {
        let fresh = origin(turn);
        let Conference { calls, room, allowed, .. } = self;
        let (Some(call), Some(room)) = (calls.get_mut(&id), room.as_mut()) else { return };
        let terms = Conference::terms(turn, allowed);
        let Some((tx, request)) = call.server.take() else { return };
        call.before = None;
        let with_sdp = !request.body.is_empty() || request.method == Method::Invite;
        let session = match (with_sdp, call.owes_answer) {
            (false, _) => None,
            (true, true) => call.talk.offer(room, &terms, fresh),
            (true, false) => call.talk.answer(room, &terms, fresh),
        };
        let mut response = request.respond(200);
        let (route, tag, member) = (call.route.clone(), call.tag.clone(), call.member);
        clock::answer(turn.now.mono, &mut call.clock, &request, &mut response);
        if request.method == Method::Invite {
            call.answered = Some(tx);
        }
        self.dress(turn.config(), &route, &tag, &mut response);
        if let Some(session) = session {
            response.set_body(cpm::media_type::SDP, session.to_bytes());
        }
        turn.respond(tx, response);
        self.roster.touch(member);
        self.show(member);
    }

    /// The participant's change is not made; what was agreed before stands.
    pub(crate) fn refuse_change(&mut self, turn: &mut Turn<'_>, id: CallId, code: u16) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.owes_answer = false;
        if let Some((tx, request)) = call.server.take() {
            let response = b2b::refuse(turn.config(), &request, code);
            turn.respond(tx, response);
        }
    }

    /// The data plane does not take the participant's change: nothing of it may stay among what is ordered next, or that
    /// would be refused too, whosever it is.
    pub(crate) fn take_change_back(&mut self, turn: &mut Turn<'_>, id: CallId, code: u16) {
        self.refuse_change(turn, id, code);
        let Conference { calls, room, .. } = self;
        if let (Some(call), Some(room)) = (calls.get_mut(&id), room.as_mut())
            && let Some(before) = call.before.take()
        {
            let media = before.restore(&mut call.talk, room);
            call.dirty = true;
            // A medium that it was to bring stays where somebody else has it by now.
            let strands = || calls.values().flat_map(|call| &call.talk.strands);
            let used = |medium| strands().any(|s| s.leg != 0 && s.medium == Some(medium));
            room.lines.retain(|line| media.contains(&line.medium) || used(line.medium));
            self.order(turn, Vec::new());
        }
    }

    /// The session timer rang (RFC 4028 §10).
    pub(crate) fn clock_due(&mut self, turn: &mut Turn<'_>, id: CallId) {
        let now = turn.now.mono;
        let Some(call) = self.calls.get_mut(&id) else { return };
        if !call.is_up() || call.clock.next().is_none_or(|at| at > now) {
            return;
        }
        if !call.clock.refresher() {
            // The peer that should have refreshed is gone.
            return self.hang_up(turn, id, Some("SIP;cause=408;text=\"Session timer\""), Why::Lost);
        }
        call.clock.wind(now);
        if !call.is_busy() {
            call.change = Some(Change { purpose: Purpose::Refresh, sent: None });
            self.send_change(turn, id);
        }
    }

    /// Our re-INVITE or UPDATE goes out.
    pub(crate) fn send_change(&mut self, turn: &mut Turn<'_>, id: CallId) {
        let fresh = origin(turn);
        let Conference { calls, room, allowed, .. } = self;
        let (Some(call), Some(room)) = (calls.get_mut(&id), room.as_mut()) else { return };
        let terms = Conference::terms(turn, allowed);
        let Some(change) = &call.change else { return };
        let bare = change.purpose == Purpose::Refresh && call.update;
        let session = if bare { None } else { call.talk.offer(room, &terms, fresh) };
        let Some(dialog) = &mut call.dialog else { return };
        let mut request = dialog.request(if bare { Method::Update } else { Method::Invite });
        let route = call.route.clone();
        call.dirty = true;
        let contact = self.contact(turn.config(), &route);
        request.headers.set(Name::Contact, contact);
        request.headers.set(Name::Allow, supported::ALLOW);
        clock::propose(turn, &mut request, &route);
        match session {
            Some(session) => request.set_body(cpm::media_type::SDP, session.to_bytes()),
            None if bare => {}
            None => return self.hang_up(turn, id, Some("SIP;cause=503"), Why::Lost),
        }
        let tx = self.send(turn, &route, request.clone());
        if let Some(change) = self.calls.get_mut(&id).and_then(|c| c.change.as_mut()) {
            change.sent = Some((tx, request));
        }
    }

    /// An answer to our re-INVITE or UPDATE.
    pub(crate) fn change_answered(
        &mut self,
        turn: &mut Turn<'_>,
        id: CallId,
        tx: ClientTx,
        response: &Response,
    ) {
        if response.is_provisional() {
            return;
        }
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some(change) = call.change.take() else { return };
        let Some((_, request)) = change.sent else { return };
        call.dirty = true;
        match response.code {
            200..300 => {
                if let Some(dialog) = &mut call.dialog {
                    // A Contact that does not parse leaves the target as it was.
                    let _ = dialog.update(response);
                    if request.method == Method::Invite {
                        let ack = dialog.ack(request.cseq().map_or(1, |c| c.seq));
                        turn.ack(tx, call.route.clone(), ack);
                    }
                }
                call.clock = clock::agreed(turn.now.mono, call.clock.clone(), response);
                call.lost_until = None;
                let answered = request.method == Method::Update
                    || self.answer_in(turn, id, &response.headers, &response.body);
                if !answered {
                    self.hang_up(turn, id, Some("SIP;cause=488"), Why::Lost);
                }
            }
            491 => self.change_later(turn, id, change.purpose),
            // RFC 5057 §5.1: these end the session; others leave it as it was.
            404 | 408 | 410 | 416 | 480..=485 | 489 | 501 | 604 => self.drop_call(turn, id, Why::Lost),
            _ if change.purpose == Purpose::Repair => {
                self.hang_up(turn, id, Some("SIP;cause=503"), Why::Lost)
            }
            _ => {}
        }
    }

    /// Nothing came: the peer is gone (RFC 3261 §12.2.1.2).
    pub(crate) fn change_silent(&mut self, turn: &mut Turn<'_>, id: CallId) {
        if let Some(call) = self.calls.get_mut(&id) {
            call.change = None;
        }
        self.hang_up(turn, id, Some("SIP;cause=408"), Why::Lost);
    }

    /// Glare: again after a while (RFC 3261 §14.1).
    fn change_later(&mut self, turn: &mut Turn<'_>, id: CallId, purpose: Purpose) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let (least, spread) = if call.dialed_out { GLARE_OWN_MS } else { GLARE_OTHER_MS };
        let wait = Duration::from_millis(least + turn.desk.entropy.below(spread));
        if purpose == Purpose::Repair {
            call.deadline = Some(turn.now.mono + wait);
            call.lost_until.get_or_insert(turn.now.mono + Duration::from_secs(30));
        }
    }
}
