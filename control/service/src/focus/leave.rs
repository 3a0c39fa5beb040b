//! They leave, are lost, or are sent away (CPM-FACTS §2.6 "Leave"; REQ-CF-13).
//!
//! A BYE with `Reason: SIP;cause=200` is a farewell: off the roster. Any other BYE is a lost bearer or a
//! timeout: disconnected, and a member still, who may come back.

use cpm::conference::{Disconnection, Status};
use sip::typed::Reason;
use sip::{Method, Name, Request};

use super::call::{CallId, CallState};
use super::conference::Conference;
use super::roster::MemberId;
use super::say;
use crate::ServerTx;
use crate::records::{Key, Table};
use crate::turn::{Owner, Turn};

/// Why a session is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Why {
    /// The member said farewell.
    Departed,
    /// An administrator sent the member away.
    Booted,
    /// The session broke.
    Lost,
    /// It never came to be.
    Failed,
    /// Another session of the member stands for it.
    Replaced,
    /// The conference ends or falls asleep.
    Over,
}

impl Conference {
    /// BYE of a participant.
    pub(crate) fn bye(&mut self, turn: &mut Turn<'_>, id: CallId, tx: ServerTx, request: &Request) {
        turn.respond(tx, request.respond(200));
        // RFC 3326: parsed by the cause alone (CPM-FACTS §2.7).
        let reasons = request.headers.all::<Reason>().unwrap_or_default();
        let farewell =
            reasons.iter().any(|r| r.protocol.eq_ignore_ascii_case("SIP") && r.cause() == Some(200));
        self.withdraw_server(turn, id);
        self.drop_call(turn, id, if farewell { Why::Departed } else { Why::Lost });
    }

    /// Ends a session from our side.
    pub(crate) fn hang_up(&mut self, turn: &mut Turn<'_>, id: CallId, reason: Option<&str>, why: Why) {
        self.withdraw_server(turn, id);
        let Some(call) = self.calls.get_mut(&id) else { return };
        match (call.state, &mut call.dialog) {
            (CallState::Up | CallState::Answered, Some(dialog)) => {
                let mut bye = dialog.request(Method::Bye);
                if let Some(reason) = reason {
                    bye.headers.push(Name::Reason, reason);
                }
                turn.send(Owner::Nobody, call.route.clone(), bye);
                self.drop_call(turn, id, why);
            }
            (CallState::Calling, _) => self.take_back(turn, id),
            (CallState::Cancelling, _) => {}
            _ => self.drop_call(turn, id, why),
        }
    }

    /// A request of theirs that waits in a session which ends gets its answer (RFC 3261 §15.1.2).
    fn withdraw_server(&mut self, turn: &mut Turn<'_>, id: CallId) {
        if let Some((tx, request)) = self.calls.get_mut(&id).and_then(|c| c.server.take()) {
            turn.respond(tx, request.respond(487));
        }
    }

    /// A session is gone: its legs, its subscriptions, and what the roster says.
    pub(crate) fn drop_call(&mut self, turn: &mut Turn<'_>, id: CallId, why: Why) {
        self.end_subscriptions_of(turn, id);
        let Some(mut call) = self.calls.remove(&id) else { return };
        if let Some(room) = &mut self.room {
            call.talk.close(room);
        }
        if call.version > 0 {
            self.rows_gone.push(Key::new(Table::Dialog, self.dialog_key(id)));
        }
        let member = call.member;
        self.leave_heir(turn, member, why);
        self.order(turn, Vec::new());
        if self.calls_of(member).any(|c| c.state != CallState::Cancelling) {
            self.show(member);
            return;
        }
        match why {
            Why::Departed => self.remove_member(turn, member, Disconnection::Departed),
            Why::Booted => self.remove_member(turn, member, Disconnection::Booted),
            Why::Lost | Why::Over => {
                self.disconnected(turn, member, (why == Why::Lost).then_some(Disconnection::Failed))
            }
            Why::Failed if call.dialed_out => {}
            Why::Failed => self.disconnected(turn, member, None),
            Why::Replaced => self.show(member),
        }
    }

    /// A member is out, and on the roster still.
    fn disconnected(&mut self, turn: &mut Turn<'_>, member: MemberId, how: Option<Disconnection>) {
        if how.is_some() && !turn.config().controlling.long_lived {
            self.remove_member(turn, member, Disconnection::Failed);
            return;
        }
        self.roster.change(member, |m| {
            m.status = Status::Disconnected;
            m.disconnection = how.or(m.disconnection);
        });
    }

    /// Takes a member off the roster, ends its sessions, frees its nickname.
    pub(crate) fn remove_member(&mut self, turn: &mut Turn<'_>, member: MemberId, how: Disconnection) {
        self.to_invite.retain(|m| *m != member);
        self.target_reached(turn, member, 487);
        self.end_subscriptions_of_member(turn, member);
        let (now, config) = (turn.now.wall, turn.desk.config.controlling.clone());
        self.nicknames.release(&config, now, member);
        self.roster.remove(member, how);
        let calls: Vec<CallId> = self.calls_of(member).map(|c| c.id).collect();
        for id in calls {
            self.hang_up(turn, id, Some(say::COMPLETED), Why::Booted);
        }
    }
}
