//! Who may send a file to whom (REQ-CF-03, REQ-CF-05 to REQ-CF-07, REQ-CF-17; CPM-FACTS §2.4, §2.7).

use base::Private;
use cpm::UserId;
use cpm::resource_lists::{Copy, Entry};
use sip::{Name, Request};

use super::describe::{Offered, session_in};
use super::{Opening, Recipient, Transfer};
use crate::focus::conference::{Conference, Kind, Phase};
use crate::focus::config::{GroupEntry, Medium};
use crate::focus::factory::{Founding, Refusal as Refused, draw_id, media_of};
use crate::focus::invite::callable;
use crate::focus::{Focus, say};
use crate::turn::Turn;
use crate::{Config, LaneKey, Route, ServerTx, media};

/// Whether an INVITE to a group brings a file to it rather than its sender into it.
pub(crate) fn is_for_file(config: &Config, request: &Request) -> bool {
    session_in(config, &request.headers, &request.body).is_some()
}

/// Who of a conference gets a file: its members. Where members come by themselves, who has come.
fn members_of(conference: &Conference, all: bool, sender: &UserId) -> Vec<Recipient> {
    let members = conference.roster.iter().map(|(_, member)| member);
    members
        .filter(|member| member.user != *sender && (all || member.is_expected()))
        .map(|member| Recipient { user: member.user.clone(), address: member.address.clone() })
        .collect()
}

impl Focus {
    /// What is offered, if the provider lets this user offer it now (REQ-CF-05, REQ-CF-06).
    fn admit(&self, turn: &mut Turn<'_>, request: &Request, sender: &UserId) -> Result<Offered, Refused> {
        let config = &turn.config().controlling;
        if !config.files || !config.media.contains(&Medium::Message) {
            return Err((403, Some(say::NOT_ALLOWED)));
        }
        if self.files() >= config.files_max {
            return Err((503, None));
        }
        if self.of_user(sender) >= config.files_per_user_max {
            // CPM-FACTS §2.7 "busy / session limit".
            return Err((486, None));
        }
        let size_max = config.file_max_bytes;
        let offered = crate::body::sdp_in(&request.headers, &request.body).ok_or((400, None))?;
        let offered = media::hear(turn, &offered).and_then(Offered::read).map_err(|code| (code, None))?;
        // CPM-FACTS §2.4: the size that counts is the file's, by its selector. One that says none cannot be held to a limit.
        if size_max > 0 && offered.size().is_none_or(|size| size > size_max) {
            return Err((403, Some(say::TOO_LARGE)));
        }
        Ok(offered)
    }

    /// What one user sends now.
    fn of_user(&self, user: &UserId) -> usize {
        self.files.values().filter(|transfer| transfer.sender.user == *user).count()
    }

    /// INVITE of a member that offers a file to the group.
    pub(crate) fn offer_file(
        &mut self,
        turn: &mut Turn<'_>,
        tx: ServerTx,
        route: Route,
        request: &Request,
        id: &str,
        sender: (UserId, String),
    ) -> Result<(), Refused> {
        let group = turn.config().controlling.group(id).cloned();
        let known = self.by_id.get(id).and_then(|number| self.conferences.get(number));
        let known = known.filter(|c| !matches!(c.phase, Phase::Ending | Phase::Gone));
        let may = |group: &GroupEntry| Conference::group_member(group, &sender.0, &sender.1).is_some();
        // REQ-CF-17: members send, nobody else.
        let member = known.is_some_and(|c| c.member_of(&sender.0).is_some());
        if known.is_none() && group.is_none() {
            return Err((404, None));
        }
        if !member && !group.as_ref().is_some_and(may) {
            return Err((403, Some(say::NOT_AUTHORISED)));
        }
        let config = &turn.config().controlling;
        // REQ-CF-07: the group's word, as far as the provider's allows it.
        let allowed = known.map_or_else(
            || group.as_ref().is_some_and(|g| media_of(config, g).contains(&Medium::Message)),
            |c| c.allowed.contains(&Medium::Message),
        );
        if !allowed {
            return Err((403, Some(say::NOT_ALLOWED)));
        }
        let offered = self.admit(turn, request, &sender.0)?;
        let recipients = match (known, &group) {
            (Some(c), group) => {
                let all = c.kind == Kind::AdHoc || group.as_ref().is_some_and(|g| g.invite_members);
                members_of(c, all, &sender.0)
            }
            (None, Some(group)) if group.invite_members => group
                .members
                .iter()
                .filter(|user| **user != sender.0)
                .map(|user| Recipient { user: user.clone(), address: Private::new(user.as_str().to_owned()) })
                .collect(),
            // A room in which nobody is.
            (None, _) => Vec::new(),
        };
        if recipients.is_empty() {
            return Err((480, None));
        }
        let named = |name: &Name| request.headers.text(name).map(|t| t.trim().to_owned());
        let conversation = known.map(|c| c.conversation.clone()).or_else(|| named(&Name::ConversationId));
        // The Participating Function made them up where it may (CPM-FACTS §2.5 step 4).
        let conversation =
            conversation.filter(|_| named(&Name::ContributionId).is_some()).ok_or((400, None))?;
        let opening = Opening {
            group: id.to_owned(),
            conversation,
            tx,
            route,
            request: request.clone(),
            sender,
            recipients,
            others: None,
        };
        let number = turn.desk.serial();
        let transfer = Transfer::new(turn, number, opening, offered);
        self.begin_file(turn, transfer);
        Ok(())
    }

    /// INVITE to the factory that offers a file to a list of users (RFC 5366; REQ-CF-10): no conference comes of it.
    pub(crate) fn offer_file_to_list(
        &mut self,
        turn: &mut Turn<'_>,
        tx: ServerTx,
        route: Route,
        request: &Request,
        sender: (UserId, String),
    ) -> Result<(), Refused> {
        let offered = self.admit(turn, request, &sender.0)?;
        let founding = Founding::read(turn, request, &sender.0)?;
        let recipients = founding.entries.iter().filter_map(|entry| {
            let user = callable(&entry.uri)?;
            Some(Recipient { user, address: Private::new(entry.uri.clone()) })
        });
        let named = |entry: &&Entry| entry.copy != Copy::Bcc && !entry.anonymize;
        let shown = |entry: &Entry| Entry { copy: entry.copy, ..Entry::new(&entry.uri) };
        let others = founding.entries.iter().filter(named).map(shown).collect();
        let lane = LaneKey::of_conference(&founding.contribution);
        let opening = Opening {
            group: draw_id(turn, lane),
            conversation: founding.conversation.clone(),
            tx,
            route,
            request: request.clone(),
            sender,
            recipients: recipients.collect(),
            others: Some(others),
        };
        let number = turn.desk.serial();
        let transfer = Transfer::new(turn, number, opening, offered);
        self.begin_file(turn, transfer);
        Ok(())
    }

    /// A file is on its way: legs are ordered for everybody.
    fn begin_file(&mut self, turn: &mut Turn<'_>, mut transfer: Transfer) {
        let number = transfer.number;
        transfer.open(turn);
        self.files.insert(number, transfer);
        self.settle(turn, Some(number));
    }
}
