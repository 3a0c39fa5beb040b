//! The sender's side of a file: his INVITE is answered when it is known who takes the file (RFC 5547 §8.3).

use contract::{Distribute, LegSet, Mode, Path, path};
use sip::{Dialog, Method, Name, Response};

use super::describe::{Ours, Span, common_types, local_of};
use super::members::fingerprint;
use super::{PartyState, Stage, Step, Transfer};
use crate::focus::join::origin;
use crate::focus::say;
use crate::turn::{Owner, Turn};
use crate::{LaneKey, Route, ServerTx, b2b, supported};

/// The path from the sender to those who take it.
const PATH: u32 = 1;

impl Transfer {
    /// The Group Session Identity.
    pub(super) fn uri(&self, turn: &Turn<'_>) -> String {
        format!("sip:{}@{}", self.group, turn.config().domain())
    }

    /// Our Contact: the focus (RFC 4579 §5.1), for files.
    pub(super) fn contact(&self, turn: &Turn<'_>, route: &Route) -> String {
        let service = cpm::feature::Service::feature(&[cpm::feature::Service::FileTransfer]);
        let lane = LaneKey::of_conference(&self.group);
        b2b::contact(turn.config(), lane, route, &self.group, &format!(";isfocus;{service}"))
    }

    /// A member's phone rings: said once.
    pub(super) fn ring(&mut self, turn: &mut Turn<'_>, code: u16) {
        if let Some(tx) = self.sender.server.filter(|_| code >= 180 && !self.sender.rung) {
            self.sender.rung = true;
            let mut response = self.invite.respond(180);
            self.dress(turn, &mut response);
            turn.respond(tx, response);
        }
    }

    /// Enough have answered: those who still ring are called off, and the path is drawn. Nobody comes in later: what is sent
    /// is the file from its first octet.
    pub(super) fn start(&mut self, turn: &mut Turn<'_>) {
        self.stage = Stage::Starting;
        self.deadline = None;
        for at in 0..self.parties.len() {
            if self.parties.get(at).is_some_and(|p| p.state == PartyState::Calling) {
                self.hang_up(turn, at, say::COMPLETED);
            }
        }
        let set = |legs| Some(LegSet { legs, media: String::new() });
        self.anchor.put_path(Path {
            id: PATH,
            context: self.anchor.id(),
            mode: Mode::Distribute.into(),
            sources: set(vec![self.sender.leg]),
            targets: set(self.takers().map(|p| p.leg).collect()),
            parameters: Some(path::Parameters::Distribute(Distribute::default())),
        });
        self.order(turn, Step::Start);
    }

    /// The path is there: 200.
    pub(super) fn answer_sender(&mut self, turn: &mut Turn<'_>) {
        let fresh = origin(turn);
        let takers = || self.takers().filter_map(|p| p.taken.as_ref());
        let max = turn.config().controlling.file_max_bytes;
        let answer = self.anchor.leg(self.sender.leg).and_then(local_of).and_then(|local| {
            let span = takers().map(|taken| taken.span).reduce(Span::hull)?;
            let ours = Ours {
                local,
                fingerprint: fingerprint(turn),
                types: common_types(&self.offered, takers()),
                max_size: Some(max).filter(|max| *max > 0),
                span,
            };
            self.offered.answer(ours, fresh)
        });
        let Some(answer) = answer else { return self.fail(turn, 503) };
        let Some(tx) = self.sender.server.take() else { return };
        let mut stamp = sdp::Stamp::new(answer.origin.clone());
        let answer = stamp.stamp(answer);
        let mut response = self.invite.respond(200);
        self.dress(turn, &mut response);
        response.set_body(cpm::media_type::SDP, answer.to_bytes());
        let Ok(dialog) = Dialog::uas(&self.invite, &response) else {
            // The INVITE has no usable Contact.
            self.sender.server = Some(tx);
            return self.fail(turn, 400);
        };
        turn.respond(tx, response);
        self.sender.dialog = Some(dialog);
        self.sender.stamp = Some(stamp);
        self.sender.answered = Some(tx);
        self.stage = Stage::Answered;
    }

    pub(super) fn dress(&self, turn: &Turn<'_>, response: &mut Response) {
        response.set_to_tag(&self.sender.tag);
        response.headers.set(Name::Contact, self.contact(turn, &self.sender.route));
        response.headers.set(Name::Allow, supported::ALLOW);
        response.headers.set(Name::PAssertedIdentity, format!("<{}>", self.uri(turn)));
        response.headers.set(Name::ConversationId, &self.conversation);
        response.headers.copy(&self.invite.headers, &Name::ContributionId);
    }

    /// An ACK of ours.
    pub(super) fn ack(&mut self, tag: &str) {
        if tag == self.sender.tag && self.stage == Stage::Answered {
            self.sender.answered = None;
            self.stage = Stage::Up;
        }
    }

    /// No ACK came (RFC 3261 §13.3.1.4).
    pub(super) fn ack_missing(&mut self, turn: &mut Turn<'_>, tx: ServerTx) {
        if self.sender.answered == Some(tx) {
            self.end(turn, "SIP;cause=408");
        }
    }

    /// He took his INVITE back (RFC 3261 §9.2).
    pub(super) fn cancelled(&mut self, turn: &mut Turn<'_>) {
        self.fail(turn, 487);
    }

    /// He hangs up: he has sent it all, or wants to send no more. What is on its way to members goes on.
    pub(super) fn sender_left(&mut self, turn: &mut Turn<'_>) {
        self.sender.dialog = None;
        let drain = std::time::Duration::from_secs(turn.config().controlling.file_drain_s.into());
        self.stage = Stage::Draining;
        self.deadline = Some(turn.now.mono + drain);
    }

    /// It does not come about: the sender is told, the members' sessions end.
    pub(super) fn fail(&mut self, turn: &mut Turn<'_>, code: u16) {
        if let Some(tx) = self.sender.server.take() {
            let response = b2b::refuse(turn.config(), &self.invite, code);
            turn.respond(tx, response);
        }
        self.end(turn, say::COMPLETED);
    }

    /// Every session of it ends.
    pub(super) fn end(&mut self, turn: &mut Turn<'_>, reason: &str) {
        self.stage = Stage::Over;
        self.deadline = None;
        if let Some(mut dialog) = self.sender.dialog.take() {
            let mut bye = dialog.request(Method::Bye);
            bye.headers.push(Name::Reason, reason);
            turn.send(Owner::Nobody, self.sender.route.clone(), bye);
        }
        for at in 0..self.parties.len() {
            if self.parties.get(at).is_some_and(|p| !matches!(p.state, PartyState::Gone(_))) {
                self.hang_up(turn, at, reason);
            }
        }
    }
}
