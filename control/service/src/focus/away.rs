//! Members who are away from a long-lived group: lost, or not reached (CPM-FACTS §2.6 "Leave": "keep as member, shown
//! disconnected, re-invite on next message"; §2.27 "mark disconnected, keep membership, queue messages").
//!
//! ```text
//!   session lost ──▶ leg without a peer, marked away ──a message waits (Pressure)──▶ invited, with that leg
//!   not reached ──reinvite_pause_s──▶ ▲                                               │ 2xx: its peer is known,
//!        ▲                                                                            │ what waited is delivered
//!        └────────────────────────── failed ◀─────────────────────────────────────────┘
//! ```
//!
//! The data plane holds what is said for such a leg, within its bounds. A leg that takes the place of another one of
//! its participant in one batch inherits what waits there, so nothing is lost between session, absence and session.
//! Which legs are away is read from the context itself: it is in the row.

use base::Instant;
use contract::{LegKey, Pressure, leg};
use cpm::conference::Status;

use super::conference::{Conference, Phase};
use super::config::Medium;
use super::leave::Why;
use super::room::{Chatter, Room};
use super::roster::MemberId;
use crate::turn::Turn;

impl Room {
    /// A message leg for a member who is away.
    fn put_away_leg(&mut self, who: &Chatter) {
        let mut leg = self.new_leg(Medium::Message, who);
        if let Some(leg::Kind::Msrp(msrp)) = &mut leg.kind {
            msrp.away = true;
            // Until its peer says what it takes: what a room carries (RFC 7701 §5.2).
            msrp.accept_types = vec!["message/cpim".to_owned()];
            msrp.accept_wrapped_types = vec!["*".to_owned()];
        }
        self.anchor.put_leg(leg);
    }

    /// The legs of those who are away, with the name of their participant.
    fn away_legs(&self) -> impl Iterator<Item = (u64, &str)> {
        self.anchor.legs().filter_map(|leg| match &leg.kind {
            Some(leg::Kind::Msrp(msrp)) if msrp.away => Some((leg.id, leg.participant.as_str())),
            _ => None,
        })
    }
}

impl Conference {
    /// The leg that waits for a member, when no session has it.
    fn away_leg(&self, member: MemberId) -> Option<u64> {
        let participant = self.chatter(member).participant;
        let room = self.room.as_ref()?;
        let mut of_member = room.away_legs().filter(|(_, p)| *p == participant).map(|(leg, _)| leg);
        of_member.find(|leg| !self.is_in_session(*leg))
    }

    fn is_in_session(&self, leg: u64) -> bool {
        self.calls.values().any(|c| c.talk.strands.iter().any(|s| s.leg == leg))
    }

    /// True where members who are away are minded: a group that lives on without them, and has a chat.
    fn minds_away(&self, turn: &Turn<'_>) -> bool {
        let chats = self.room.as_ref().is_some_and(|room| room.line(Medium::Message).is_some());
        chats && turn.config().controlling.long_lived && matches!(self.phase, Phase::Forming | Phase::Active)
    }

    /// A session goes. What waits for it, and what is said next, waits for the member; to be called before the order
    /// that removes its legs.
    pub(crate) fn leave_heir(&mut self, turn: &Turn<'_>, member: MemberId, why: Why) {
        let alone = why == Why::Lost && self.calls_of(member).next().is_none();
        if alone && self.minds_away(turn) && self.roster.get(member).is_some() {
            let who = self.chatter(member);
            if let Some(room) = &mut self.room {
                room.put_away_leg(&who);
            }
        }
    }

    /// The leg with which a member is invited: the one that waits for it, once the data plane has placed it. One that is
    /// not placed yet is replaced.
    pub(crate) fn take_away_leg(&mut self, member: MemberId) -> Option<u64> {
        let leg = self.away_leg(member)?;
        let room = self.room.as_mut()?;
        if room.msrp_local(leg).is_some() {
            return Some(leg);
        }
        room.anchor.remove_leg(leg);
        None
    }

    /// A member comes by itself: its new leg takes the place of the one that waited.
    pub(crate) fn replace_away_leg(&mut self, member: MemberId) {
        if let (Some(leg), Some(room)) = (self.away_leg(member), self.room.as_mut()) {
            room.anchor.remove_leg(leg);
        }
    }

    /// Something waits for a leg that has no peer: its member is called.
    pub(crate) fn message_waits(&mut self, key: LegKey, pressure: &Pressure) {
        if !pressure.on || pressure.waiting_bytes == 0 {
            return;
        }
        let member = self.roster.iter().map(|(id, _)| id).find(|id| self.away_leg(*id) == Some(key.leg));
        if let Some(member) = member
            && self.calls_of(member).next().is_none()
        {
            self.invite(member);
        }
    }

    /// A member could not be reached: nothing waits for it for a while, or each message would call it.
    pub(crate) fn pause(&mut self, turn: &Turn<'_>, member: MemberId) {
        let pause = std::time::Duration::from_secs(turn.config().controlling.reinvite_pause_s.into());
        self.paused.insert(member, turn.now.mono + pause);
    }

    /// When a pause is over.
    pub(crate) fn next_away(&self) -> Option<Instant> {
        self.paused.values().min().copied()
    }

    /// After every event: a leg for each member who is away, none for others.
    pub(crate) fn mind_away(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.mono;
        self.paused.retain(|_, until| *until > now);
        if !self.minds_away(turn) {
            return;
        }
        let away = |conference: &Conference, member: MemberId| {
            let status = conference.roster.get(member).map(|m| m.status);
            conference.calls_of(member).next().is_none().then_some(status).flatten()
        };
        let members: Vec<MemberId> = self.roster.iter().map(|(id, _)| id).collect();
        let mut stray: Vec<u64> = self.room.iter().flat_map(Room::away_legs).map(|(leg, _)| leg).collect();
        stray.retain(|leg| !self.is_in_session(*leg));
        for member in members {
            let known = self.away_leg(member);
            match away(self, member) {
                // It is about to be called.
                Some(Status::Pending) => stray.retain(|leg| Some(*leg) != known),
                Some(Status::Disconnected) if known.is_some() => stray.retain(|leg| Some(*leg) != known),
                Some(Status::Disconnected) if !self.paused.contains_key(&member) => {
                    let who = self.chatter(member);
                    if let Some(room) = &mut self.room {
                        room.put_away_leg(&who);
                    }
                }
                _ => {}
            }
        }
        if let Some(room) = &mut self.room {
            stray.into_iter().for_each(|leg| room.anchor.remove_leg(leg));
        }
        self.order(turn, Vec::new());
    }
}
