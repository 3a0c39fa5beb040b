//! Conferences: the roster by SUBSCRIBE and NOTIFY (RFC 6665, RFC 4575), members by REFER (RFC 4579 §5, RFC 5368).

use std::sync::PoisonError;
use std::time::Duration;

use cpm::conference::{Applied, ConferenceInfo, EVENT, State as Fullness};
use sip::typed::{Event as EventHeader, Expires, SubscriptionState, Substate};
use sip::{Method, Name, Request, Response, ServerKey};

use super::client::{Purpose, answer, success};
use super::{Actor, Due, Reply};
use crate::{Event, SessionId, UeError, requests};

impl Actor {
    pub(super) async fn subscribe(&mut self, session: SessionId, expires_s: u32, reply: Option<Reply<()>>) {
        let contact = requests::contact(&self.shared.account, self.local);
        let dialog = self.sessions.get_mut(&session).and_then(|s| s.dialog.as_mut());
        let Some(mut request) = dialog.map(|d| d.request(Method::Subscribe)) else {
            return answer(reply, Err(UeError::State("no dialog to subscribe in")));
        };
        request.headers.push(Name::Event, EVENT);
        request.headers.push(Name::Accept, cpm::media_type::CONFERENCE_INFO);
        request.headers.push(Name::Expires, expires_s.to_string());
        request.headers.push(Name::Contact, contact);
        self.send(request, Purpose::Subscribe(session, expires_s, reply)).await;
    }

    pub(super) fn subscribed(
        &mut self,
        session: SessionId,
        expires_s: u32,
        outcome: Result<Response, UeError>,
    ) -> Result<(), UeError> {
        let response = success(outcome)?;
        let granted = response.headers.typed::<Expires>().ok().flatten().map_or(expires_s, |e| e.0);
        if expires_s > 0 && granted > 0 {
            self.set_timer(
                Duration::from_secs(u64::from(granted) / 2 + 1),
                Due::RefreshSubscription(session),
            );
        }
        Ok(())
    }

    /// A NOTIFY: a roster, or how a REFER of ours went.
    pub(super) async fn notified(
        &mut self,
        server: ServerKey,
        session: Option<SessionId>,
        request: &Request,
    ) {
        let event = request.headers.typed::<EventHeader>().ok().flatten();
        let package = event.map(|e| e.package).unwrap_or_default();
        let Some(session) = session else {
            return self.respond(server, request.respond(481)).await;
        };
        self.respond(server, request.respond(200)).await;
        if package == "refer" {
            if let Some(code) = sipfrag_code(&request.body) {
                self.shared.tell(Event::Referred { code });
            }
            return;
        }
        if package != EVENT {
            return self.shared.fault(format!("NOTIFY of package {package}"));
        }
        if !request.body.is_empty() {
            self.roster(session, request).await;
        }
        if let Ok(Some(state)) = request.headers.typed::<SubscriptionState>()
            && state.state == Substate::Terminated
        {
            self.shared.tell(Event::Unsubscribed { session, reason: state.reason().map(str::to_owned) });
        }
    }

    async fn roster(&mut self, session: SessionId, request: &Request) {
        let info = match ConferenceInfo::read(&request.body, &cpm::Limits::default()) {
            Ok(info) => info,
            Err(e) => return self.shared.fault(format!("conference-info: {e}")),
        };
        let full = info.state == Fullness::Full;
        let Some(s) = self.sessions.get(&session) else { return };
        let applied = s.roster.lock().unwrap_or_else(PoisonError::into_inner).apply(info);
        match applied {
            Ok(Applied::Gap) => {
                // RFC 4575 §4.4: a hole in the versions asks for everything again.
                self.shared.fault("a gap in the versions of conference-info");
                self.subscribe(session, 3600, None).await;
            }
            Ok(_) => self.shared.tell(Event::Roster { session, full }),
            Err(e) => self.shared.fault(format!("conference-info: {e}")),
        }
    }

    /// Asks the focus to invite or to remove. Several at once need a list (RFC 5368) and no subscription (RFC 4488).
    pub(super) async fn refer(&mut self, session: SessionId, who: &[String], method: &str, reply: Reply<()>) {
        let (contact, own) =
            (requests::contact(&self.shared.account, self.local), self.shared.account.address.clone());
        let (cid, boundless) = (self.shared.token(80), who.len() == 1);
        let dialog = self.sessions.get_mut(&session).and_then(|s| s.dialog.as_mut());
        let Some(mut request) = dialog.map(|d| d.request(Method::Refer)) else {
            let _ = reply.send(Err(UeError::State("no dialog to refer in")));
            return;
        };
        let headers = &mut request.headers;
        headers.push(Name::Contact, contact);
        headers.push(Name::ReferredBy, format!("<{own}>"));
        match who.first() {
            Some(one) if boundless => headers.push(Name::ReferTo, format!("<{one};method={method}>")),
            _ => {
                headers.push(Name::ReferTo, format!("<cid:{cid}@ue.invalid>"));
                headers.push(Name::Require, "multiple-refer, norefersub");
                headers.push(Name::ReferSub, "false");
                headers.push(Name::ContentId, format!("<{cid}@ue.invalid>"));
                headers.push(Name::ContentDisposition, "recipient-list");
                request.set_body(cpm::media_type::RESOURCE_LISTS, requests::recipient_list(who));
            }
        }
        self.send(request, Purpose::Refer(reply)).await;
    }
}

/// The status of the first line of a `message/sipfrag` (RFC 3515 §2.4.4).
fn sipfrag_code(body: &[u8]) -> Option<u16> {
    let line = body.split(|b| *b == b'\r' || *b == b'\n').next()?;
    std::str::from_utf8(line).ok()?.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3515_s2_4_4_the_status_of_a_sipfrag() {
        assert_eq!(sipfrag_code(b"SIP/2.0 200 OK\r\n"), Some(200));
        assert_eq!(sipfrag_code(b"nonsense"), None);
    }
}
