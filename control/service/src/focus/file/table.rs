//! The files under way in one lane, by what they are found; and who may send one to whom (REQ-CF-03, REQ-CF-05 to
//! REQ-CF-07, REQ-CF-17; CPM-FACTS §2.4, §2.7).

use std::collections::{BTreeMap, BTreeSet};

use base::{Map, Private, map};
use contract::{Applied, News, Refusal, news};
use cpm::UserId;
use cpm::resource_lists::{Copy, Entry};
use sip::{Name, Request, Response};

use super::describe::{Offered, session_in};
use super::{Opening, Recipient, Transfer};
use crate::focus::conference::{Conference, Kind, Phase};
use crate::focus::config::{GroupEntry, Medium};
use crate::focus::factory::{Founding, Refusal as Refused, draw_id, media_of};
use crate::focus::invite::callable;
use crate::focus::{Focus, say};
use crate::turn::{Desk, Turn};
use crate::{Ask, ClientTx, Config, LaneKey, Route, ServerTx, media};

/// The files under way in one lane.
pub(crate) struct Transfers {
    all: BTreeMap<u64, Transfer>,
    by_tag: Map<String, u64>,
    by_server: Map<ServerTx, u64>,
    by_context: Map<u64, u64>,
    /// Those whose context the data plane has lost.
    lost: Vec<u64>,
}

impl Transfers {
    pub(crate) fn new(desk: &Desk) -> Self {
        let seed = desk.seed;
        Transfers {
            all: BTreeMap::new(),
            by_tag: map(seed),
            by_server: map(seed),
            by_context: map(seed),
            lost: Vec::new(),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// True for one of ours.
    pub(crate) fn has(&self, number: u64) -> bool {
        self.all.contains_key(&number)
    }

    /// Which one holds the dialog with this tag.
    pub(crate) fn by_tag(&self, tag: &str) -> Option<u64> {
        self.by_tag.get(tag).copied()
    }

    /// Where the other end of that dialog is.
    pub(crate) fn route_of(&self, tag: &str) -> Option<&Route> {
        self.all.get(self.by_tag.get(tag)?)?.route_of(tag)
    }

    /// True for a context of ours.
    pub(crate) fn owns_context(&self, context: u64) -> bool {
        self.by_context.contains_key(&context)
    }

    fn add(&mut self, turn: &mut Turn<'_>, mut transfer: Transfer) {
        let number = transfer.number;
        self.by_tag.insert(transfer.sender.tag.clone(), number);
        self.by_tag.extend(transfer.parties.iter().map(|p| (p.tag.clone(), number)));
        self.by_server.extend(transfer.sender.server.map(|tx| (tx, number)));
        self.by_context.insert(transfer.anchor.id(), number);
        transfer.open(turn);
        self.all.insert(number, transfer);
        self.with(turn, Some(number), |_, _| {});
    }

    fn with(
        &mut self,
        turn: &mut Turn<'_>,
        number: Option<u64>,
        act: impl FnOnce(&mut Transfer, &mut Turn<'_>),
    ) {
        let Some(number) = number else { return };
        let Some(transfer) = self.all.get_mut(&number) else { return };
        act(transfer, turn);
        transfer.settle(turn);
        if !transfer.is_gone() {
            return;
        }
        self.by_context.remove(&transfer.anchor.id());
        self.by_tag.remove(&transfer.sender.tag);
        for party in &transfer.parties {
            self.by_tag.remove(&party.tag);
        }
        self.by_server.retain(|_, of| *of != number);
        self.all.remove(&number);
    }

    /// A request in a dialog.
    pub(crate) fn in_dialog(&mut self, turn: &mut Turn<'_>, tag: &str, tx: ServerTx, request: &Request) {
        let number = self.by_tag(tag);
        self.with(turn, number, |transfer, turn| transfer.request_within(turn, tag, tx, request));
    }

    /// An ACK of a 2xx.
    pub(crate) fn ack(&mut self, turn: &mut Turn<'_>, tag: &str) {
        let number = self.by_tag(tag);
        self.with(turn, number, |transfer, _| transfer.ack(tag));
    }

    /// The sender took his INVITE back.
    pub(crate) fn cancelled(&mut self, turn: &mut Turn<'_>, tx: ServerTx) {
        let number = self.by_server.get(&tx).copied();
        self.with(turn, number, |transfer, turn| {
            if transfer.sender.server == Some(tx) {
                transfer.cancelled(turn);
            }
        });
    }

    /// A 2xx of ours got no ACK.
    pub(crate) fn ack_missing(&mut self, turn: &mut Turn<'_>, tx: ServerTx) {
        let number = self.by_server.get(&tx).copied();
        self.with(turn, number, |transfer, turn| transfer.ack_missing(turn, tx));
    }

    pub(crate) fn response(&mut self, turn: &mut Turn<'_>, number: u64, tx: ClientTx, response: &Response) {
        self.with(turn, Some(number), |transfer, turn| transfer.response(turn, tx, response));
    }

    pub(crate) fn expired(&mut self, turn: &mut Turn<'_>, number: u64, tx: ClientTx) {
        self.with(turn, Some(number), |transfer, turn| transfer.expired(turn, tx));
    }

    pub(crate) fn applied(&mut self, turn: &mut Turn<'_>, number: u64, ask: Ask, applied: &Applied) {
        self.with(turn, Some(number), |transfer, turn| transfer.applied(turn, ask, applied));
    }

    pub(crate) fn refused(&mut self, turn: &mut Turn<'_>, number: u64, ask: Ask, refusal: &Refusal) {
        self.with(turn, Some(number), |transfer, turn| transfer.refused(turn, ask, refusal));
    }

    pub(crate) fn wake(&mut self, turn: &mut Turn<'_>, number: u64) {
        self.with(turn, Some(number), Transfer::wake);
    }

    /// News about one of our contexts.
    pub(crate) fn news(&mut self, turn: &mut Turn<'_>, context: u64, news: &News) {
        let number = self.by_context.get(&context).copied();
        self.with(turn, number, |transfer, turn| match &news.what {
            Some(news::What::LegLost(lost)) => {
                if let Some(leg) = lost.leg {
                    transfer.leg_lost(turn, leg);
                }
            }
            Some(news::What::Pressure(pressure)) => {
                if let Some(leg) = pressure.leg.filter(|_| pressure.on) {
                    transfer.stuck(turn, leg);
                }
            }
            _ => {}
        });
    }

    /// The data plane has lost its tables.
    pub(crate) fn lose_all(&mut self) {
        self.lost = self.all.keys().copied().collect();
    }

    /// The data plane holds these contexts only.
    pub(crate) fn lose_missing(&mut self, held: &BTreeSet<u64>) {
        let missing = self.by_context.iter().filter(|(context, _)| !held.contains(context));
        let mut missing: Vec<u64> = missing.map(|(_, number)| *number).collect();
        missing.retain(|number| !self.lost.contains(number));
        missing.sort_unstable();
        self.lost.extend(missing);
    }

    /// True while `work_off` is wanted at once.
    pub(crate) fn has_backlog(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Ends one of those that were lost.
    pub(crate) fn work_off(&mut self, turn: &mut Turn<'_>) {
        let number = self.lost.pop();
        self.with(turn, number, Transfer::media_gone);
    }

    /// What is offered, if the provider lets this user offer it now (REQ-CF-05, REQ-CF-06).
    fn admit(&self, turn: &mut Turn<'_>, request: &Request, sender: &UserId) -> Result<Offered, Refused> {
        let config = &turn.config().controlling;
        if !config.files || !config.media.contains(&Medium::Message) {
            return Err((403, Some(say::NOT_ALLOWED)));
        }
        if self.len() >= config.files_max {
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
        self.all.values().filter(|transfer| transfer.sender.user == *user).count()
    }
}

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
        let offered = self.files.admit(turn, request, &sender.0)?;
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
        self.files.add(turn, transfer);
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
        let offered = self.files.admit(turn, request, &sender.0)?;
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
        self.files.add(turn, transfer);
        Ok(())
    }
}
