//! The members' side of a file: INVITEs out, what they answer, who takes it (RFC 5547 §8.3.1, RFC 3261 §13.2).

use bytes::Bytes;
use contract::leg;
use cpm::feature::Service;
use cpm::resource_lists::{Entry, ResourceList};
use cpm::{UserId, media_type};
use sip::multipart::Part;
use sip::typed::Reason;
use sip::{Dialog, Method, Name, Request, Response, Uri};

use super::describe::{Offered, local_of};
use super::{CANCEL_WAIT, Party, PartyState, Stage, Step, Transfer};
use crate::focus::attach::attach_msrp;
use crate::focus::join::origin;
use crate::focus::say;
use crate::turn::{Owner, Turn};
use crate::{ClientTx, b2b, body, media, supported};

impl Transfer {
    /// The legs are placed: every member is offered the file. Members are bounded (`members_max`), and so are the requests.
    pub(super) fn call_all(&mut self, turn: &mut Turn<'_>) {
        self.stage = Stage::Calling;
        self.deadline = Some(turn.now.mono + ring(turn));
        for at in 0..self.parties.len() {
            let Some(party) = self.parties.get(at).filter(|p| p.state == PartyState::Waiting) else {
                continue;
            };
            let fresh = origin(turn);
            let local = self.anchor.leg(party.leg).and_then(local_of);
            let offer = local.and_then(|local| self.offered.pass_on(local, fingerprint(turn), fresh));
            let mut stamp = offer.as_ref().map(|offer| sdp::Stamp::new(offer.origin.clone()));
            let offer = offer.zip(stamp.as_mut()).map(|(offer, stamp)| stamp.stamp(offer));
            let request = offer.as_ref().and_then(|offer| self.invitation(turn, party, offer));
            let Some(request) = request else {
                self.gone(at, 503);
                continue;
            };
            let tx = turn.send(Owner::Focus(self.number), party.route.clone(), request.clone());
            if let Some(party) = self.parties.get_mut(at) {
                party.state = PartyState::Calling;
                party.invite = Some((tx, request));
                (party.offer, party.stamp) = (offer, stamp);
            }
        }
    }

    /// The INVITE to a member: the sender's, from the group, in a dialog of its own. What the sender wrote beside the SDP (a
    /// file-icon's part, RFC 5547 §6) passes.
    fn invitation(&self, turn: &mut Turn<'_>, party: &Party, offer: &sdp::Session) -> Option<Request> {
        let address = party.address.expose();
        let mut request = Request::new(Method::Invite, Uri::parse(address.as_bytes()).ok()?);
        let own = self.uri(turn);
        let call_id = turn.token();
        let h = &mut request.headers;
        h.push(Name::From, format!("<{own}>;tag={}", party.tag));
        h.push(Name::To, format!("<{address}>"));
        h.push(Name::CallId, format!("{call_id}@{}", turn.config().domain()));
        h.push(Name::CSeq, "1 INVITE");
        h.push(Name::Contact, self.contact(turn, &party.route));
        h.push(Name::PAssertedIdentity, format!("<{own}>"));
        b2b::pass(&self.invite, &mut request);
        let h = &mut request.headers;
        h.remove(&Name::Require);
        // The file is a contribution of its own to the conversation of the group (CPM-FACTS §2.2).
        h.set(Name::ConversationId, &self.conversation);
        h.set(Name::PAssertedService, Service::FileTransferGroup.urn());
        if !h.has(&Name::AcceptContact) {
            h.push(Name::AcceptContact, Service::FileTransferGroup.accept_contact());
        }
        // Who sends it: receivers take the initiator from here (CPM-FACTS §2.2).
        h.set(Name::ReferredBy, format!("<{}>", self.sender.address.expose()));
        h.set(Name::Allow, supported::ALLOW);
        self.put_bodies(turn, &mut request, party, offer.to_bytes());
        Some(request)
    }

    /// SDP in the place of the sender's; in that of his list what the invitee may know of it (RFC 5364 §5): nobody who was
    /// blind-copied, not the invitee.
    fn put_bodies(&self, turn: &mut Turn<'_>, request: &mut Request, party: &Party, sdp: Bytes) {
        body::replace_sdp(request, sdp);
        let kind = request.headers.typed::<sip::typed::ContentType>().ok().flatten().map(|kind| kind.0);
        let parts =
            kind.and_then(|kind| sip::multipart::parse(&kind, &request.body, &sip::Limits::default()).ok());
        let (Some(mut parts), Some(others)) = (parts, &self.others) else { return };
        parts.retain(|part| !part.media_type().is(media_type::RESOURCE_LISTS));
        let others = others.iter().filter(|other| UserId::parse(&other.uri).as_ref() != Ok(&party.user));
        let entries: Vec<Entry> = others.cloned().collect();
        if !entries.is_empty() {
            let list = ResourceList { entries, references: 0 }.write();
            let mut history = Part::new(media_type::RESOURCE_LISTS, list);
            history.headers.push(Name::ContentDisposition, "recipient-list-history; handling=optional");
            parts.push(history);
        }
        let boundary = turn.token();
        let (kind, body) = sip::multipart::build("mixed", &parts, &boundary);
        request.set_body(&kind, body);
    }

    /// An answer to one of our INVITEs.
    pub(super) fn response(&mut self, turn: &mut Turn<'_>, tx: ClientTx, response: &Response) {
        let Some(at) = self.party_of(tx) else { return };
        let state = self.parties.get(at).map(|p| p.state);
        match (state, response.code) {
            (Some(PartyState::Calling), ..200) => self.ring(turn, response.code),
            (Some(PartyState::Calling), 200..300) => self.take(turn, at, tx, response),
            (Some(PartyState::Calling | PartyState::Cancelling), 300..) => {
                self.gone(at, response.code);
                self.order(turn, Step::Change);
            }
            (Some(_), 200..300) => self.too_late(turn, at, tx, response),
            _ => {}
        }
    }

    /// One of our INVITEs gets no final answer.
    pub(super) fn expired(&mut self, turn: &mut Turn<'_>, tx: ClientTx) {
        if let Some(at) = self.party_of(tx)
            && self
                .parties
                .get(at)
                .is_some_and(|p| matches!(p.state, PartyState::Calling | PartyState::Cancelling))
        {
            self.gone(at, 408);
            self.order(turn, Step::Change);
        }
    }

    fn party_of(&self, tx: ClientTx) -> Option<usize> {
        self.parties.iter().position(|p| p.invite.as_ref().is_some_and(|(own, _)| *own == tx))
    }

    /// 2xx of a member: what he wants of the file goes into his leg.
    fn take(&mut self, turn: &mut Turn<'_>, at: usize, tx: ClientTx, response: &Response) {
        let Some(party) = self.parties.get_mut(at) else { return };
        let Some((_, invite)) = &party.invite else { return };
        let Ok(dialog) = Dialog::uac(invite, response) else {
            self.gone(at, 502);
            return self.order(turn, Step::Change);
        };
        turn.ack(tx, party.route.clone(), dialog.ack(invite.cseq().map_or(1, |c| c.seq)));
        party.dialog = Some(dialog);
        party.state = PartyState::Taking;
        let answer = body::sdp_in(&response.headers, &response.body)
            .filter(|sdp| !sdp.is_empty())
            .ok_or(488)
            .and_then(|sdp| media::hear(turn, &sdp));
        let offer = party.offer.clone();
        let taken = answer.and_then(|answer| match &offer {
            Some(offer) => self.offered.taken(offer, &answer),
            None => Err(488),
        });
        match taken {
            Ok(taken) => {
                let ours = offer.as_ref().and_then(|offer| offer.lines.first());
                let active =
                    ours.is_some_and(|ours| sdp::message_role(ours, &taken.line) == sdp::Role::Active);
                if let Some(party) = self.parties.get_mut(at) {
                    self.anchor.change_leg(party.leg, |leg| {
                        if let Some(leg::Kind::Msrp(msrp)) = &mut leg.kind {
                            attach_msrp(msrp, &taken.line, active);
                        }
                    });
                    party.taken = Some(taken);
                }
                let wait = std::time::Duration::from_secs(turn.config().controlling.file_wait_s.into());
                let latest = turn.now.mono + wait;
                self.deadline = self.deadline.map(|at| at.min(latest));
                self.order(turn, Step::Member(at));
            }
            Err(code) => self.dismiss(turn, at, &format!("SIP;cause={code}"), code),
        }
    }

    /// A 2xx that nobody waits for any more, or one more of a forked INVITE (RFC 3261 §13.2.2.4).
    fn too_late(&mut self, turn: &mut Turn<'_>, at: usize, tx: ClientTx, response: &Response) {
        let Some(party) = self.parties.get_mut(at) else { return };
        let Some((_, invite)) = &party.invite else { return };
        let Ok(mut dialog) = Dialog::uac(invite, response) else { return };
        if party.dialog.as_ref().is_some_and(|known| known.id.remote_tag == dialog.id.remote_tag) {
            // The same 2xx again: the stack sends our ACK again.
            return;
        }
        turn.ack(tx, party.route.clone(), dialog.ack(invite.cseq().map_or(1, |c| c.seq)));
        let mut bye = dialog.request(Method::Bye);
        bye.headers.push(Name::Reason, say::COMPLETED);
        turn.send(Owner::Nobody, party.route.clone(), bye);
        if party.state == PartyState::Cancelling {
            self.gone(at, 487);
        }
    }

    /// A member is out of it: his leg goes, with what was queued for him. The others do not notice.
    pub(super) fn gone(&mut self, at: usize, code: u16) {
        if let Some(party) = self.parties.get_mut(at) {
            party.state = PartyState::Gone(code);
            party.until = None;
            self.anchor.remove_leg(party.leg);
        }
    }

    /// Ends a member's session from our side.
    pub(super) fn dismiss(&mut self, turn: &mut Turn<'_>, at: usize, reason: &str, code: u16) {
        self.hang_up(turn, at, reason);
        self.left = false;
        self.gone(at, code);
        self.order(turn, Step::Change);
    }

    /// BYE, or CANCEL where there is no dialog yet.
    pub(super) fn hang_up(&mut self, turn: &mut Turn<'_>, at: usize, reason: &str) {
        let Some(party) = self.parties.get_mut(at) else { return };
        match (party.state, &mut party.dialog, &party.invite) {
            (PartyState::Taking, Some(dialog), _) => {
                let mut bye = dialog.request(Method::Bye);
                bye.headers.push(Name::Reason, reason);
                turn.send(Owner::Nobody, party.route.clone(), bye);
                party.state = PartyState::Gone(200);
            }
            (PartyState::Calling, _, Some((tx, _))) => {
                turn.cancel(*tx, Some(Reason::sip(408, "Too late")));
                party.state = PartyState::Cancelling;
                party.until = Some(turn.now.mono + CANCEL_WAIT);
                self.anchor.remove_leg(party.leg);
            }
            (PartyState::Cancelling, ..) => {}
            _ => party.state = PartyState::Gone(487),
        }
    }

    /// What the sender hears when nobody takes it: 603 when all have declined, else that nobody is there (CPM-FACTS §2.7).
    pub(super) fn verdict(&self) -> u16 {
        let mut codes = self.parties.iter().filter_map(|p| match p.state {
            PartyState::Gone(code) => Some(code),
            _ => None,
        });
        let first = codes.next().unwrap_or(480);
        let same = codes.all(|code| code == first);
        let tells = matches!(first, 413 | 415 | 486 | 488 | 503 | 600..);
        if same && tells { first } else { 480 }
    }
}

/// How long members may take to answer.
fn ring(turn: &Turn<'_>) -> std::time::Duration {
    std::time::Duration::from_secs(turn.config().controlling.ring_s.into())
}

/// SHA-256 of the certificate that the data plane shows.
pub(super) fn fingerprint(turn: &Turn<'_>) -> Option<[u8; 32]> {
    <[u8; 32]>::try_from(turn.desk.fingerprint()).ok()
}

/// A member's later offer that changes nothing.
pub(super) fn repeats(party: &Party, session: &sdp::Session) -> bool {
    let path = |line: &sdp::MediaLine| line.message().map(|m| m.path.clone());
    let known = party.taken.as_ref().and_then(|taken| path(&taken.line));
    Offered::is_one(session) && known.is_some() && session.lines.first().and_then(path) == known
}
