//! Sessions that others start: INVITE in, rung or answered, ACK, CANCEL (RFC 3261 §13.3; CPM-FACTS §2.8).

use std::sync::Arc;

use cpm::resource_lists::ResourceList;
use sdp::Session as Sdp;
use sip::typed::{AcceptContact, Contact, Reason};
use sip::{Dialog, Name, NameAddr, Request, ServerKey};

use super::calls::{Session, State, part_of, sdp_of};
use super::{Actor, Reply};
use crate::account::Answering;
use crate::chat::Style;
use crate::{Event, Invitation, SessionId, Side, UeError, requests};

impl Actor {
    /// An INVITE outside a dialog.
    pub(super) async fn invited(&mut self, server: ServerKey, request: Request) {
        if !self.is_for_this_device(&request) {
            // CPM-FACTS §2.7: aimed at another device.
            self.shared.fault("an INVITE for another device");
            return self.respond(server, request.respond(486)).await;
        }
        let Ok(offer) = sdp_of(&request.headers, &request.body) else {
            return self.respond(server, request.respond(488)).await;
        };
        let contacts = request.headers.all::<Contact>().unwrap_or_default();
        let focus = contacts.iter().any(|c| c.has_feature("isfocus"));
        let (session, media) = self.fresh_media(focus);
        let invitation = invitation(session, &request, &offer, focus);
        let mut entry = Session::new(State::Ringing(server), media, request.clone(), invitation.from.clone());
        entry.focus = focus;
        self.sessions.insert(session, entry);
        self.shared.tell(Event::Invited(Arc::new(invitation)));
        match self.shared.account.answering {
            Answering::Accept => {
                let _ = self.accept(session, server).await;
            }
            Answering::Ring => self.ring(session, server, &request).await,
            Answering::Refuse(code) => {
                self.respond(server, request.respond(code)).await;
                self.end(session, Side::Us, Some(code));
            }
        }
    }

    fn is_for_this_device(&self, request: &Request) -> bool {
        let own = &self.shared.account.instance;
        let wanted: Vec<String> = request
            .headers
            .all::<AcceptContact>()
            .unwrap_or_default()
            .iter()
            .flat_map(|a| {
                a.features().map(|(n, v)| (n.to_owned(), v.map(|v| v.into_owned()))).collect::<Vec<_>>()
            })
            .filter(|(name, _)| name.eq_ignore_ascii_case("+sip.instance"))
            .filter_map(|(_, value)| value)
            .collect();
        wanted.is_empty() || wanted.iter().any(|w| w.contains(own.as_str()))
    }

    async fn ring(&mut self, session: SessionId, server: ServerKey, request: &Request) {
        let mut response = request.respond(180);
        let tag = self.shared.token(64);
        response.set_to_tag(&tag);
        response.headers.push(Name::Contact, requests::contact(&self.shared.account, self.local));
        if let Some(s) = self.sessions.get_mut(&session) {
            s.dialog = Dialog::uas(request, &response).ok();
        }
        self.respond(server, response).await;
    }

    pub(super) async fn answer(&mut self, session: SessionId, code: u16, reply: Reply<()>) {
        let Some(State::Ringing(server)) = self.sessions.get(&session).map(|s| s.state) else {
            let _ = reply.send(Err(UeError::State("it does not ring")));
            return;
        };
        let outcome = if (200..300).contains(&code) {
            self.accept(session, server).await
        } else {
            if let Some(request) = self.sessions.get(&session).map(|s| s.invite.clone()) {
                self.respond(server, request.respond(code)).await;
            }
            self.end(session, Side::Us, Some(code));
            Ok(())
        };
        let _ = reply.send(outcome);
    }

    /// Accepts what rings with a description that somebody else has written.
    pub(super) async fn answer_with(
        &mut self,
        session: SessionId,
        description: bytes::Bytes,
        reply: Reply<()>,
    ) {
        let ringing = self.sessions.get_mut(&session).and_then(|s| match s.state {
            State::Ringing(server) => Some((s, server)),
            _ => None,
        });
        let Some((s, server)) = ringing else {
            let _ = reply.send(Err(UeError::State("it does not ring")));
            return;
        };
        s.media.carry_answer();
        let request = s.invite.clone();
        self.accepted(session, server, &request, description).await;
        let _ = reply.send(Ok(()));
    }

    async fn accept(&mut self, session: SessionId, server: ServerKey) -> Result<(), UeError> {
        let Some(s) = self.sessions.get_mut(&session) else { return Err(UeError::Gone) };
        let request = s.invite.clone();
        if s.focus {
            s.media.set_style(Style::Room);
        }
        let offer = sdp_of(&request.headers, &request.body)?;
        let answer = match s.media.answer(&offer).await {
            Ok(answer) => answer,
            Err(e) => {
                self.respond(server, request.respond(488)).await;
                self.end(session, Side::Us, Some(488));
                return Err(e);
            }
        };
        if answer.lines.iter().all(sdp::MediaLine::is_refused) {
            self.respond(server, request.respond(488)).await;
            self.end(session, Side::Us, Some(488));
            return Err(UeError::Bad("nothing to accept".to_owned()));
        }
        self.accepted(session, server, &request, answer.to_bytes()).await;
        Ok(())
    }

    /// The 2xx to an INVITE.
    async fn accepted(
        &mut self,
        session: SessionId,
        server: ServerKey,
        request: &Request,
        sdp: bytes::Bytes,
    ) {
        let contact = requests::contact(&self.shared.account, self.local);
        let Some(s) = self.sessions.get_mut(&session) else { return };
        let mut response = request.respond(200);
        let tag = s.dialog.as_ref().map(|d| d.id.local_tag.clone()).unwrap_or_else(|| self.shared.token(64));
        response.set_to_tag(&tag);
        response.headers.push(Name::Contact, contact);
        response.set_body(cpm::media_type::SDP, sdp);
        accept_timer(request, &mut response);
        if s.dialog.is_none() {
            s.dialog = Dialog::uas(request, &response).ok();
        }
        s.state = State::Answered(server);
        self.respond(server, response).await;
    }

    /// The ACK of a 2xx of ours.
    pub(super) async fn acknowledged(&mut self, ack: &Request) {
        let Some(session) = self.session_of(ack) else { return };
        let Some(s) = self.sessions.get_mut(&session) else { return };
        if matches!(s.state, State::Answered(_)) {
            s.state = State::Up;
            self.shared.tell(Event::Up { session });
        }
    }

    /// The inviter took its INVITE back.
    pub(super) async fn cancelled(&mut self, server: ServerKey, reason: Option<Reason>) {
        let found = self.sessions.iter().find(|(_, s)| s.state == State::Ringing(server));
        let Some((session, request)) = found.map(|(id, s)| (*id, s.invite.clone())) else { return };
        self.respond(server, request.respond(487)).await;
        self.end(session, Side::Them, reason.and_then(|r| r.cause()).or(Some(487)));
    }

    pub(super) async fn ack_missing(&mut self, server: ServerKey) {
        let found = self.sessions.iter().find(|(_, s)| s.state == State::Answered(server)).map(|(id, _)| *id);
        if let Some(session) = found {
            self.shared.fault("no ACK for a 2xx");
            self.hang_up(session, None, None).await;
        }
    }
}

/// RFC 4028 §9: a session timer that is asked for is granted; the caller refreshes unless it says otherwise.
pub(super) fn accept_timer(request: &Request, response: &mut sip::Response) {
    use sip::typed::{Refresher, SessionExpires};
    if let Ok(Some(asked)) = request.headers.typed::<SessionExpires>() {
        let refresher = asked.refresher().unwrap_or(Refresher::Uac);
        response.headers.put(&SessionExpires::new(asked.seconds, Some(refresher)));
        response.headers.push(Name::Require, "timer");
    }
}

fn invitation(session: SessionId, request: &Request, offer: &Sdp, focus: bool) -> Invitation {
    let text = |name: &Name| request.headers.text(name).map(str::to_owned);
    let asserted =
        request.headers.one::<NameAddr>(&Name::PAssertedIdentity).ok().flatten().map(|a| a.uri.to_string());
    let from = asserted.or_else(|| request.from().ok().map(|f| f.uri.to_string())).unwrap_or_default();
    let instance = request.headers.all::<AcceptContact>().unwrap_or_default().iter().find_map(|a| {
        a.features()
            .find(|(name, _)| name.eq_ignore_ascii_case("+sip.instance"))
            .and_then(|(_, v)| v.map(|v| v.into_owned()))
    });
    let list = part_of(&request.headers, &request.body, cpm::media_type::RESOURCE_LISTS)
        .and_then(|part| ResourceList::read(&part, &cpm::Limits::default()).ok());
    Invitation {
        session,
        from,
        target: request.uri.to_string(),
        focus,
        subject: text(&Name::Subject),
        conversation: text(&Name::ConversationId),
        contribution: text(&Name::ContributionId),
        referred_by: request
            .headers
            .one::<NameAddr>(&Name::ReferredBy)
            .ok()
            .flatten()
            .map(|a| a.uri.to_string()),
        instance,
        media: offer.lines.iter().filter(|l| !l.is_refused()).map(|l| l.kind.as_str().to_owned()).collect(),
        recipients: list.map(|l| l.entries.into_iter().map(|e| e.uri).collect()).unwrap_or_default(),
        description: part_of(&request.headers, &request.body, cpm::media_type::SDP).unwrap_or_default(),
    }
}
