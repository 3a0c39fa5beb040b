//! One session with a participant: its dialog, its descriptions, its clock.
//!
//! ```text
//!        they call                                we call
//!      INVITE                                   invited
//!        │ legs ordered                           │ legs ordered
//!        ▼                                        ▼
//!     Placing ──refused──▶ 5xx, gone          Preparing ──refused──▶ gone
//!        │ placed: 200                            │ placed: INVITE
//!        ▼                                        ▼
//!     Answered ──no ACK──▶ BYE, gone          Calling ──too long, not wanted──▶ Cancelling ──final──▶ gone
//!        │ ACK                                    │ 2xx: ACK
//!        ▼                                        ▼
//!        └────────────────▶ Up ◀──────────────────┘
//!                           │ ▲
//!           re-INVITE, UPDATE of either side: one change at a time (glare: 491)
//!                           │
//!                           ▼ BYE of either side, transport lost for good
//!                          gone
//! ```

use base::Instant;
use contract::Leg;
use sip::{Dialog, Request};

use super::clock::Clock;
use super::config::Medium;
use super::offer::Talk;
use super::room::Room;
use super::roster::MemberId;
use crate::{ClientTx, Route, ServerTx};

/// A session's number within its conference.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct CallId(pub(crate) u32);

/// Where a session stands; see the diagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CallState {
    /// Their INVITE waits for the data plane.
    Placing,
    /// Our 200 waits for its ACK.
    Answered,
    /// Our INVITE waits for the data plane.
    Preparing,
    /// Our INVITE waits for its final answer.
    Calling,
    /// So it does, but we do not want it any more.
    Cancelling,
    /// A session.
    Up,
}

/// Why we change a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// The session timer.
    Refresh,
    /// Media was lost: new legs, new paths.
    Repair,
}

/// A change of ours under way.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) purpose: Purpose,
    /// The request and its transaction, once it is sent.
    pub(crate) sent: Option<(ClientTx, Request)>,
}

/// What a session and its legs were when a change of theirs came.
#[derive(Clone, Debug)]
pub(crate) struct Agreed {
    talk: Talk,
    legs: Vec<Leg>,
    media: Vec<Medium>,
}

impl Agreed {
    /// As it is now.
    pub(crate) fn of(talk: &Talk, room: &Room) -> Self {
        let legs = talk.all_legs(&room.anchor).into_iter().filter_map(|id| room.anchor.leg(id).cloned());
        let media = room.lines.iter().map(|line| line.medium).collect();
        Agreed { talk: talk.clone(), legs: legs.collect(), media }
    }

    /// As it was. The media that the room had then.
    pub(crate) fn restore(self, talk: &mut Talk, room: &mut Room) -> Vec<Medium> {
        let now = talk.all_legs(&room.anchor);
        let was = |id: &u64| self.legs.iter().any(|leg| leg.id == *id);
        let new: Vec<u64> = now.into_iter().filter(|id| !was(id)).collect();
        self.legs.into_iter().for_each(|leg| room.anchor.put_leg(leg));
        new.into_iter().for_each(|id| room.anchor.remove_leg(id));
        *talk = self.talk;
        self.media
    }
}

/// One session with a participant.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) id: CallId,
    pub(crate) member: MemberId,
    pub(crate) state: CallState,
    /// We called.
    pub(crate) dialed_out: bool,
    /// Our tag: how in-dialog requests find us.
    pub(crate) tag: String,
    pub(crate) dialog: Option<Dialog>,
    pub(crate) route: Route,
    pub(crate) talk: Talk,
    pub(crate) clock: Clock,
    /// The peer allows UPDATE (RFC 3311).
    pub(crate) update: bool,
    /// Their request that waits: the first INVITE, a later one, an UPDATE.
    pub(crate) server: Option<(ServerTx, Request)>,
    /// What stood before that request's offer, until the data plane has taken it.
    pub(crate) before: Option<Box<Agreed>>,
    /// The INVITE whose 2xx waits for its ACK.
    pub(crate) answered: Option<ServerTx>,
    /// It rings.
    pub(crate) alerting: bool,
    /// Our 2xx carried an offer: the ACK brings the answer.
    pub(crate) owes_answer: bool,
    /// Our first INVITE.
    pub(crate) invite: Option<(ClientTx, Request)>,
    /// Our re-INVITE or UPDATE.
    pub(crate) change: Option<Change>,
    /// Ringing ends, a retry begins.
    pub(crate) deadline: Option<Instant>,
    /// Media is lost, and this is until when it may be set up again.
    pub(crate) lost_until: Option<Instant>,
    /// Repairs since media last came up.
    pub(crate) repairs: u8,
    /// Its RTP legs that have lost their peer.
    pub(crate) mute: Vec<u64>,
    /// Version of its row; 0 = none.
    pub(crate) version: u64,
    /// Its row has to be written.
    pub(crate) dirty: bool,
}

impl Call {
    pub(crate) fn new(id: CallId, member: MemberId, state: CallState, tag: String, route: Route) -> Self {
        Call {
            id,
            member,
            state,
            dialed_out: matches!(state, CallState::Preparing),
            tag,
            dialog: None,
            route,
            talk: Talk::default(),
            clock: Clock::default(),
            update: false,
            server: None,
            before: None,
            answered: None,
            alerting: false,
            owes_answer: false,
            invite: None,
            change: None,
            deadline: None,
            lost_until: None,
            repairs: 0,
            mute: Vec::new(),
            version: 0,
            dirty: false,
        }
    }

    /// Its peer is in the conference.
    pub(crate) const fn is_up(&self) -> bool {
        matches!(self.state, CallState::Up | CallState::Answered)
    }

    /// A change of either side is under way.
    pub(crate) const fn is_busy(&self) -> bool {
        self.server.is_some() || self.change.is_some() || self.owes_answer
    }

    /// When it wants to be woken.
    pub(crate) fn next(&self) -> Option<Instant> {
        let clock = if self.is_up() { self.clock.next() } else { None };
        [self.deadline, clock].into_iter().flatten().min()
    }
}
