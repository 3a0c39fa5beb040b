//! Pager messages and the notifications that travel like them (CPM-FACTS §2.3, §2.11).

use std::sync::Arc;

use sip::typed::ContentType;
use sip::{Name, NameAddr, Request, Response, ServerKey};

use super::client::{Purpose, success};
use super::{Actor, Reply};
use crate::device::PagerSent;
use crate::letter::{self, Answer, Content, Draft};
use crate::shared::wall;
use crate::{Event, Letter, UeError, Via, requests};

impl Actor {
    pub(super) async fn send_pager(&mut self, to: &str, draft: &Draft, reply: Reply<PagerSent>) {
        let target = match requests::uri(to) {
            Ok(target) => target,
            Err(e) => {
                let _ = reply.send(Err(e));
                return;
            }
        };
        let draft = Draft { to: Some(draft.to.clone().unwrap_or_else(|| to.to_owned())), ..draft.clone() };
        let own = self.shared.account.address.clone();
        let (message_id, body) = draft.write(Some(&own), wall(), &mut self.shared.entropy());
        let request = requests::message(&self.shared, &target, body, None);
        self.send(request, Purpose::Pager { message_id, reply }).await;
    }

    pub(super) fn pager_answered(
        &mut self,
        message_id: String,
        outcome: Result<Response, UeError>,
        reply: Reply<PagerSent>,
    ) {
        let counters = &self.shared.counters;
        let sent = success(outcome).map(|response| PagerSent { message_id, code: response.code });
        if sent.is_ok() {
            counters.pagers_accepted.one()
        } else {
            counters.pagers_refused.one()
        }
        let _ = reply.send(sent);
    }

    /// A MESSAGE that arrived: answered, read, and answered with `delivered` where it asks for that.
    pub(super) async fn pager(&mut self, server: ServerKey, request: &Request) {
        let is_cpim = request
            .headers
            .typed::<ContentType>()
            .ok()
            .flatten()
            .is_some_and(|t| t.is(cpm::media_type::CPIM));
        if !is_cpim {
            let mut response = request.respond(415);
            response.headers.push(Name::Accept, cpm::media_type::CPIM);
            return self.respond(server, response).await;
        }
        let content = match letter::read(&request.body, Via::Pager) {
            Ok(content) => content,
            Err(e) => {
                self.shared.fault(format!("CPIM in MESSAGE: {e}"));
                return self.respond(server, request.respond(400)).await;
            }
        };
        self.respond(server, request.respond(200)).await;
        match content {
            Content::Letter(letter) => {
                self.shared.counters.pagers_received.one();
                let letter = Letter {
                    asserted: request
                        .headers
                        .one::<NameAddr>(&Name::PAssertedIdentity)
                        .ok()
                        .flatten()
                        .map(|a| a.uri.to_string()),
                    conversation: request.headers.text(&Name::ConversationId).map(str::to_owned),
                    ..letter
                };
                let wanted = letter.wants_delivered && self.shared.account.sends_delivered;
                self.shared.tell(Event::Letter(Arc::new(letter.clone())));
                if wanted {
                    self.notify(&letter, Answer::Delivered).await;
                }
            }
            Content::Notice(notice) => {
                self.shared.count_notice(&notice);
                self.shared.tell(Event::Notice(Arc::new(notice)));
            }
            Content::Composing { .. } => self.shared.fault("is-composing as a pager message"),
        }
    }

    /// Sends a notification about a pager message to its sender.
    pub(super) async fn notify(&mut self, letter: &Letter, answer: Answer) {
        let own = self.shared.account.address.clone();
        let Some(body) = letter::notify(letter, answer, Some(&own), wall(), &mut self.shared.entropy())
        else {
            return;
        };
        // RFC 5438 §7.1: to CPIM From; where that is hidden, to whom the network names.
        let hidden = cpm::address::is_anonymous(&letter.from);
        let to = letter.asserted.as_ref().filter(|_| hidden).unwrap_or(&letter.from);
        let Ok(target) = requests::uri(to) else { return };
        match answer {
            Answer::Delivered => self.shared.counters.delivered_sent.one(),
            Answer::Displayed => self.shared.counters.displayed_sent.one(),
        }
        let request = requests::message(&self.shared, &target, body, letter.conversation.as_deref());
        self.send(request, Purpose::Notice).await;
    }
}
