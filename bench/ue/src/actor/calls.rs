//! Sessions that we start: INVITE, progress, answer, ACK, CANCEL (RFC 3261 §13.2).
//!
//! ```text
//! Calling ──2xx──► Up ──BYE either way──► gone
//!    │ final failure, timeout: gone
//! Ringing (invited) ──we answer 2xx──► Answered ──ACK──► Up
//!    │ CANCEL, we refuse: gone
//! ```

use std::sync::{Arc, Mutex, PoisonError};

use cpm::conference::Roster;
use sip::typed::Contact;
use sip::{ClientKey, Dialog, Input, Name, Request, Response, ServerKey};

use super::client::{Purpose, answer, success};
use super::{Actor, Reply};
use crate::chat::Style;
use crate::device::{RosterEntry, SessionView};
use crate::media::Media;
use crate::requests::Call;
use crate::{Event, SessionId, Side, UeError, requests};

/// Where a session stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Calling(ClientKey),
    Ringing(ServerKey),
    Answered(ServerKey),
    Up,
    Ending,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) state: State,
    pub(super) dialog: Option<Dialog>,
    pub(super) media: Media,
    /// The INVITE that made the session, ours or theirs.
    pub(super) invite: Request,
    pub(super) peer: String,
    pub(super) focus: bool,
    pub(super) roster: Arc<Mutex<Roster>>,
    /// A re-INVITE of ours is under way: another one gets 491.
    pub(super) busy: bool,
}

impl Session {
    pub(super) fn new(state: State, media: Media, invite: Request, peer: String) -> Self {
        let roster = Arc::new(Mutex::new(Roster::new(cpm::Limits::default())));
        Session { state, dialog: None, media, invite, peer, focus: false, roster, busy: false }
    }

    pub(super) fn view(&self) -> SessionView {
        let text = |name: &Name| self.invite.headers.text(name).map(str::to_owned);
        SessionView {
            up: self.state == State::Up,
            peer: self.peer.clone(),
            remote_target: self.dialog.as_ref().map(|d| d.remote_target.to_string()),
            focus: self.focus,
            conversation: text(&Name::ConversationId),
            contribution: text(&Name::ContributionId),
            chat: self.media.chat().cloned(),
            flow: self.media.flow().cloned(),
            roster: self.entries(),
        }
    }

    fn entries(&self) -> Vec<RosterEntry> {
        let roster = self.roster.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(users) = roster.current().and_then(|info| info.users.as_ref()) else { return Vec::new() };
        let entry = |user: &cpm::conference::User| RosterEntry {
            entity: user.entity.clone(),
            nickname: user.nickname.clone(),
            status: user.endpoints.first().and_then(|e| e.status).map(|s| s.word().to_owned()),
            own: user.your_own,
        };
        users.users.iter().map(entry).collect()
    }
}

impl Actor {
    fn new_session(&mut self) -> SessionId {
        self.serial += 1;
        SessionId(self.serial)
    }

    pub(super) fn fresh_media(&mut self, room: bool) -> (SessionId, Media) {
        let session = self.new_session();
        let style = if room { Style::Room } else { Style::OneToOne };
        (session, Media::new(Arc::clone(&self.shared), session, style))
    }

    pub(super) async fn call(&mut self, call: Call, reply: Reply<SessionId>) {
        let (session, mut media) = self.fresh_media(call.room);
        let offer = match &call.description {
            Some(description) => media.carry(description).map(|()| description.clone()),
            None => media.offer(call.message, call.audio, false).await.map(|offer| offer.to_bytes()),
        };
        let made = offer.and_then(|offer| requests::invite(&self.shared, &call, self.local, offer));
        let request = match made {
            Ok(request) => request,
            Err(e) => {
                let _ = reply.send(Err(e));
                return;
            }
        };
        // The session must be known before an answer can come.
        let key = ClientKey(self.keys + 1);
        self.sessions
            .insert(session, Session::new(State::Calling(key), media, request.clone(), call.to.clone()));
        let _ = reply.send(Ok(session));
        self.send(request, Purpose::Invite(session)).await;
    }

    /// The INVITE went out again under another key, with credentials.
    pub(super) fn renamed(&mut self, session: SessionId, key: ClientKey) {
        if let Some(s) = self.sessions.get_mut(&session)
            && let State::Calling(old) = &mut s.state
        {
            *old = key;
        }
    }

    pub(super) fn progress(&mut self, session: SessionId, response: &Response) {
        if response.code > 100 {
            self.shared.tell(Event::Progress { session, code: response.code });
        }
    }

    /// The final answer to the INVITE that starts a session.
    pub(super) async fn invited_answer(
        &mut self,
        session: SessionId,
        request: &Request,
        outcome: Result<Response, UeError>,
    ) {
        let response = match success(outcome) {
            Ok(response) => response,
            Err(e) => {
                let cause = if let UeError::Refused { code, .. } = &e { *code } else { 408 };
                self.end(session, Side::Them, Some(cause));
                return;
            }
        };
        let Some(s) = self.sessions.get_mut(&session) else { return };
        let dialog = match Dialog::uac(request, &response) {
            Ok(dialog) => dialog,
            Err(e) => {
                self.shared.fault(format!("2xx without a dialog: {e}"));
                self.end(session, Side::Them, None);
                return;
            }
        };
        s.focus =
            response.headers.all::<Contact>().unwrap_or_default().iter().any(|c| c.has_feature("isfocus"));
        if s.focus {
            s.media.set_style(Style::Room);
        }
        let negotiated =
            sdp_of(&response.headers, &response.body).and_then(|answer| s.media.answered(&answer));
        let ack = dialog.ack(request.cseq().map_or(1, |c| c.seq));
        s.dialog = Some(dialog);
        s.state = State::Up;
        s.invite = request.clone();
        let carried = s.media.is_carried();
        let to = self.peer();
        self.feed(Input::Ack { to, request: ack }).await;
        match negotiated {
            Ok(()) => {
                if carried && let Some(sdp) = part_of(&response.headers, &response.body, cpm::media_type::SDP)
                {
                    self.shared.tell(Event::Described { session, sdp });
                }
                self.refresh_later(session, &response);
                self.shared.tell(Event::Up { session });
            }
            Err(e) => {
                self.shared.fault(format!("the answer to INVITE: {e}"));
                self.hang_up(session, None, None).await;
            }
        }
    }

    pub(super) async fn cancel(&mut self, session: SessionId, reply: Reply<()>) {
        let Some(State::Calling(key)) = self.sessions.get(&session).map(|s| s.state) else {
            let _ = reply.send(Err(UeError::State("nothing to cancel")));
            return;
        };
        self.feed(Input::Cancel { key, reason: None }).await;
        answer(Some(reply), Ok(()));
    }

    /// The session is over: said once, and forgotten.
    pub(super) fn end(&mut self, session: SessionId, by: Side, cause: Option<u16>) {
        if let Some(mut s) = self.sessions.remove(&session) {
            s.media.close();
            self.shared.tell(Event::Ended { session, by, cause });
        }
    }

    pub(super) fn forget(&mut self, session: SessionId) {
        self.end(session, Side::Us, None);
    }
}

/// The session description in a body, alone or as a part of a multipart.
pub(super) fn sdp_of(headers: &sip::Headers, body: &bytes::Bytes) -> Result<sdp::Session, UeError> {
    let part = part_of(headers, body, cpm::media_type::SDP)
        .ok_or_else(|| UeError::Bad("no session description".to_owned()))?;
    sdp::Session::parse(&part, &sdp::Limits::default())
        .map_err(|e| UeError::Bad(format!("session description: {e}")))
}

/// The body of a type, alone or as a part of a multipart (RFC 2046).
pub(super) fn part_of(headers: &sip::Headers, body: &bytes::Bytes, essence: &str) -> Option<bytes::Bytes> {
    let content_type = headers.typed::<sip::typed::ContentType>().ok().flatten()?;
    if content_type.is(essence) {
        return Some(body.clone());
    }
    let parts = sip::multipart::parse(&content_type, body, &sip::Limits::default()).ok()?;
    parts.into_iter().find(|part| part.media_type().is(essence)).map(|part| part.body)
}
