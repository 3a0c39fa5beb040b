//! Requests outside dialogs: to the factory, to a conference, to a group (RFC 4579 §5, CPM-FACTS §2.6).

use cpm::UserId;
use sip::{Method, Request};

use super::Focus;
use super::conference::{Conference, Kind, Phase};
use super::factory::{self, Founding, refuse};
use super::file::is_for_file;
use super::roster::MemberId;
use super::say;
use super::target::{Target, target};
use crate::turn::Turn;
use crate::{LaneKey, Route, ServerTx, b2b, supported};

impl Focus {
    pub(super) fn outside(&mut self, turn: &mut Turn<'_>, tx: ServerTx, route: Route, request: Request) {
        let Some(found) = target(turn.config(), &request) else {
            return turn.respond(tx, b2b::refuse(turn.config(), &request, 404));
        };
        if say::wants_privacy(&request) {
            return turn.respond(tx, b2b::refuse_with(turn.config(), &request, 403, say::NO_ANONYMITY));
        }
        let Some(sender) = say::sender(&request) else {
            return turn.respond(tx, b2b::refuse(turn.config(), &request, 403));
        };
        let result = match (&request.method, found) {
            (Method::Invite, Target::Factory) if is_for_file(turn.config(), &request) => {
                self.offer_file_to_list(turn, tx, route, &request, (sender.0, sender.1))
            }
            (Method::Invite, Target::Factory) => self.create(turn, tx, route, &request, sender),
            (Method::Invite, Target::Conference(id)) if is_for_file(turn.config(), &request) => {
                self.offer_file(turn, tx, route, &request, &id, (sender.0, sender.1))
            }
            (Method::Invite, Target::Conference(id)) => self.enter(turn, tx, route, &request, &id, sender),
            (Method::Subscribe | Method::Refer, Target::Conference(id)) => {
                self.act(turn, tx, route, &request, &id, &sender.0)
            }
            (Method::Options, _) => {
                let mut response = request.respond(200);
                response.headers.set(sip::Name::Allow, supported::ALLOW);
                response.headers.set(sip::Name::AllowEvents, "conference, refer");
                response.headers.set(sip::Name::Accept, "application/sdp, application/resource-lists+xml");
                turn.respond(tx, response);
                Ok(())
            }
            _ => Err((405, None)),
        };
        if let Err(refusal) = result {
            turn.respond(tx, refuse(turn, &request, refusal));
        }
    }

    /// INVITE to the factory: a new group, or a known one that is restarted.
    fn create(
        &mut self,
        turn: &mut Turn<'_>,
        tx: ServerTx,
        route: Route,
        request: &Request,
        sender: (UserId, String, String),
    ) -> Result<(), factory::Refusal> {
        let founding = Founding::read(turn, request, &sender.0)?;
        if let Some(number) = self.by_contribution.get(&founding.contribution).copied()
            && let Some(known) =
                self.conferences.get_mut(&number).filter(|c| !matches!(c.phase, Phase::Ending | Phase::Gone))
        {
            let member = known.member_of(&sender.0).ok_or((403, Some(say::NOT_AUTHORISED)))?;
            known.add_listed(&founding, &sender.0);
            known.revive(turn, request);
            known.join(turn, tx, route, request.clone(), member);
            self.settle(turn, Some(number));
            return Ok(());
        }
        self.room_for_more(turn)?;
        if self.founders.get(&sender.0).copied().unwrap_or(0)
            >= turn.config().controlling.conferences_per_user_max
        {
            // CPM-FACTS §2.26: the table is not one user's to fill; §2.7 "busy / session limit".
            return Err((486, None));
        }
        let lane = LaneKey::of_conference(&founding.contribution);
        let id = factory::draw_id(turn, lane);
        let number = turn.desk.serial();
        let mut conference = Conference::found(turn, number, id, founding, sender);
        conference.open_room(turn, request);
        conference.join(turn, tx, route, request.clone(), MemberId(0));
        self.add(turn, conference);
        Ok(())
    }

    /// INVITE to a conference or a group: a member joins, or comes back.
    fn enter(
        &mut self,
        turn: &mut Turn<'_>,
        tx: ServerTx,
        route: Route,
        request: &Request,
        id: &str,
        sender: (UserId, String, String),
    ) -> Result<(), factory::Refusal> {
        let group = turn.config().controlling.group(id).cloned();
        let newcomer = match &group {
            Some(group) => Conference::group_member(group, &sender.0, &sender.1),
            None => None,
        };
        let number = match (self.by_id.get(id).copied(), &group) {
            (Some(number), _) => number,
            (None, Some(group)) => {
                if newcomer.is_none() {
                    return Err((403, Some(say::NOT_AUTHORISED)));
                }
                self.room_for_more(turn)?;
                let number = turn.desk.serial();
                let conference = Conference::of_group(turn, number, group, request)?;
                // Settled below, when the first one is on the way in.
                self.insert(conference);
                number
            }
            // The focus is gone: on 404 clients restart the group (CPM-FACTS §2.6).
            (None, None) => return Err((404, None)),
        };
        let max = turn.config().controlling.members_max;
        let conference = self.conferences.get_mut(&number).ok_or((404, None))?;
        if matches!(conference.phase, Phase::Ending | Phase::Gone) {
            return Err((404, None));
        }
        let member = match (conference.member_of(&sender.0), newcomer) {
            (Some(member), _) => member,
            (None, Some(_)) if conference.roster.len() >= max => return Err((486, Some(say::TOO_MANY))),
            (None, Some(newcomer)) => conference.roster.add(newcomer),
            (None, None) => return Err((403, Some(say::NOT_AUTHORISED))),
        };
        conference.roster.change(member, |m| {
            if !sender.2.is_empty() {
                m.display = base::Private::new(sender.2.clone());
            }
        });
        if let Some(group) = group.filter(|g| {
            g.invite_members && conference.calls.is_empty() && conference.kind == Kind::PreDefined
        }) {
            conference.invite_group(&group, &sender.0);
        }
        conference.revive(turn, request);
        conference.join(turn, tx, route, request.clone(), member);
        self.settle(turn, Some(number));
        Ok(())
    }

    /// SUBSCRIBE and REFER outside a session's dialog.
    fn act(
        &mut self,
        turn: &mut Turn<'_>,
        tx: ServerTx,
        route: Route,
        request: &Request,
        id: &str,
        sender: &UserId,
    ) -> Result<(), factory::Refusal> {
        let number = self.by_id.get(id).copied().ok_or((404, None))?;
        let conference =
            self.conferences.get_mut(&number).filter(|c| c.phase != Phase::Gone).ok_or((404, None))?;
        let member = conference.member_of(sender).ok_or((403, Some(say::NOT_AUTHORISED)))?;
        match request.method {
            Method::Subscribe => conference.subscribe(turn, tx, request, route, member, None),
            _ => conference.refer(turn, tx, request, route, member, None),
        }
        self.settle(turn, Some(number));
        Ok(())
    }

    fn room_for_more(&self, turn: &Turn<'_>) -> Result<(), factory::Refusal> {
        let full = self.conferences.len() >= turn.config().controlling.conferences_max;
        if full { Err((503, None)) } else { Ok(()) }
    }
}
