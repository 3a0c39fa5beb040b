//! Requests that arrive, inside and outside dialogs, and those that we send inside: BYE, re-INVITE
//! (RFC 3261 §12.2, §14, §15).

use std::time::Duration;

use sip::typed::{Reason, Refresher, SessionExpires};
use sip::{Input, Method, Name, Request, Response, ServerKey};

use super::calls::{State, sdp_of};
use super::client::{Purpose, answer, success};
use super::invited::accept_timer;
use super::{Actor, Due, Reply};
use crate::device::Change;
use crate::{Event, SessionId, Side, UeError, requests};

impl Actor {
    pub(super) async fn respond(&mut self, server: ServerKey, response: Response) {
        self.feed(Input::Respond { server, response }).await;
    }

    /// A new request from the network.
    pub(super) async fn request(&mut self, server: ServerKey, request: Request) {
        if request.to_tag().is_some() {
            return self.inside(server, request).await;
        }
        match request.method {
            Method::Invite => self.invited(server, request).await,
            Method::Message => self.pager(server, &request).await,
            Method::Options => self.respond(server, request.respond(200)).await,
            Method::Notify => self.notified(server, None, &request).await,
            Method::Bye | Method::Update | Method::Info => self.respond(server, request.respond(481)).await,
            _ => self.respond(server, request.respond(501)).await,
        }
    }

    async fn inside(&mut self, server: ServerKey, request: Request) {
        let Some(session) = self.session_of(&request) else {
            return self.respond(server, request.respond(481)).await;
        };
        let accepted =
            self.sessions.get_mut(&session).and_then(|s| s.dialog.as_mut()).map(|d| d.accept(&request));
        if let Some(Err(e)) = accepted {
            self.shared.fault(format!("{} in a dialog: {e}", request.method));
            return self.respond(server, request.respond(500)).await;
        }
        match request.method {
            Method::Bye => {
                let cause =
                    request.headers.all::<Reason>().unwrap_or_default().iter().find_map(Reason::cause);
                self.respond(server, request.respond(200)).await;
                self.end(session, Side::Them, cause);
            }
            Method::Invite => self.offered_again(session, server, &request).await,
            Method::Update => self.updated(session, server, &request).await,
            Method::Notify => self.notified(server, Some(session), &request).await,
            Method::Message => self.pager(server, &request).await,
            Method::Options | Method::Info => self.respond(server, request.respond(200)).await,
            _ => self.respond(server, request.respond(501)).await,
        }
    }

    /// Finds the session by the dialog (RFC 3261 §12.2.2).
    pub(super) fn session_of(&self, request: &Request) -> Option<SessionId> {
        self.sessions
            .iter()
            .find(|(_, s)| s.dialog.as_ref().is_some_and(|d| d.matches(request)))
            .map(|(id, _)| *id)
    }

    /// A re-INVITE.
    async fn offered_again(&mut self, session: SessionId, server: ServerKey, request: &Request) {
        let contact = requests::contact(&self.shared.account, self.local);
        let Some(s) = self.sessions.get_mut(&session) else { return };
        if s.busy {
            // RFC 3261 §14.2.
            return self.respond(server, request.respond(491)).await;
        }
        let answered = match sdp_of(&request.headers, &request.body) {
            Ok(offer) => s.media.answer(&offer).await,
            Err(e) => Err(e),
        };
        let response = match answered {
            Ok(sdp) => {
                let mut response = request.respond(200);
                response.headers.push(Name::Contact, contact);
                response.set_body(cpm::media_type::SDP, sdp.to_bytes());
                accept_timer(request, &mut response);
                response
            }
            Err(e) => {
                self.shared.fault(format!("re-INVITE: {e}"));
                request.respond(488)
            }
        };
        let good = response.is_success();
        self.respond(server, response).await;
        if good {
            self.shared.tell(Event::Changed { session });
        }
    }

    /// An UPDATE: with an offer it is answered like a re-INVITE, without one it only refreshes (RFC 3311, RFC 4028).
    async fn updated(&mut self, session: SessionId, server: ServerKey, request: &Request) {
        if !request.body.is_empty() {
            return self.offered_again(session, server, request).await;
        }
        let mut response = request.respond(200);
        response.headers.push(Name::Contact, requests::contact(&self.shared.account, self.local));
        accept_timer(request, &mut response);
        self.respond(server, response).await;
    }

    pub(super) async fn hang_up(&mut self, session: SessionId, cause: Option<u16>, reply: Option<Reply<()>>) {
        let state = self.sessions.get(&session).map(|s| s.state);
        match state {
            None => return answer(reply, Err(UeError::Gone)),
            Some(State::Calling(key)) => {
                self.feed(Input::Cancel { key, reason: None }).await;
                return answer(reply, Ok(()));
            }
            Some(State::Ringing(server)) => {
                if let Some(request) = self.sessions.get(&session).map(|s| s.invite.clone()) {
                    self.respond(server, request.respond(603)).await;
                }
                self.end(session, Side::Us, Some(603));
                return answer(reply, Ok(()));
            }
            Some(State::Ending) => return answer(reply, Err(UeError::State("it ends already"))),
            Some(State::Answered(_) | State::Up) => {}
        }
        let Some(s) = self.sessions.get_mut(&session) else { return };
        let Some(mut bye) = s.dialog.as_mut().map(|d| d.request(Method::Bye)) else {
            self.end(session, Side::Us, None);
            return answer(reply, Ok(()));
        };
        s.state = State::Ending;
        s.media.close();
        if let Some(cause) = cause {
            // CPM-FACTS §2.7: 200 is a voluntary leave.
            let text = if cause == 200 { "Call completed" } else { "Bearer released" };
            bye.headers.put(&Reason::sip(cause, text));
        }
        self.send(bye, Purpose::Bye(session, reply)).await;
    }

    /// Offers anew: with no change it only refreshes the session (RFC 4028 §7.4).
    pub(super) async fn reinvite(&mut self, session: SessionId, change: Change, reply: Option<Reply<()>>) {
        let contact = requests::contact(&self.shared.account, self.local);
        let Some(s) = self.sessions.get_mut(&session) else { return answer(reply, Err(UeError::Gone)) };
        if s.state != State::Up || s.busy {
            return answer(reply, Err(UeError::State("the session is not up, or changes already")));
        }
        if let Some(direction) = change.direction {
            s.media.set_direction(direction);
        }
        let offer = match s.media.offer(change.add_message, change.add_audio, change.fresh_message).await {
            Ok(offer) => offer,
            Err(e) => return answer(reply, Err(e)),
        };
        let Some(mut request) = s.dialog.as_mut().map(|d| d.request(Method::Invite)) else { return };
        s.busy = true;
        request.headers.push(Name::Contact, contact);
        request.headers.push(Name::Supported, "timer");
        request.headers.push(Name::SessionExpires, "1800;refresher=uac");
        request.set_body(cpm::media_type::SDP, offer.to_bytes());
        self.send(request, Purpose::Reinvite(session, reply)).await;
    }

    pub(super) async fn reinvited(
        &mut self,
        session: SessionId,
        request: &Request,
        outcome: Result<Response, UeError>,
    ) -> Result<(), UeError> {
        let to = self.peer();
        let s = self.sessions.get_mut(&session).ok_or(UeError::Gone)?;
        s.busy = false;
        let response = success(outcome)?;
        let dialog = s.dialog.as_mut().ok_or(UeError::Gone)?;
        let refreshed = dialog.update(&response);
        let ack = dialog.ack(request.cseq().map_or(1, |c| c.seq));
        let done = sdp_of(&response.headers, &response.body).and_then(|answer| s.media.answered(&answer));
        self.feed(Input::Ack { to, request: ack }).await;
        refreshed.map_err(|e| UeError::Bad(e.to_string()))?;
        self.refresh_later(session, &response);
        if done.is_ok() {
            self.shared.tell(Event::Changed { session });
        }
        done
    }

    /// RFC 4028 §10: who is to refresh does so at half of the interval.
    pub(super) fn refresh_later(&mut self, session: SessionId, response: &Response) {
        if let Ok(Some(expires)) = response.headers.typed::<SessionExpires>()
            && expires.refresher() != Some(Refresher::Uas)
        {
            self.set_timer(Duration::from_secs(u64::from(expires.seconds) / 2), Due::RefreshSession(session));
        }
    }
}
