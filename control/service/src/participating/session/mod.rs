//! One session of a Participating Function: a B2BUA between the one who sent the INVITE (side 0, upstream)
//! and the devices or the next function that it leads to (sides 1.., downstream). CPM-FACTS §2.5;
//! REQ-PF-10, REQ-PF-11.
//!
//! ```text
//!              INVITE
//!                │ media is anchored                      SDP passes unchanged
//!                ▼                                               │
//!           Allocating ──refused──▶ 5xx                          │
//!                │ applied                                       │
//!                ▼                                               ▼
//!           Inviting ◀───────────────────────────────────────────┘
//!            │  │  │ CANCEL upstream, ringing too long
//!            │  │  └────────────────────────────▶ Ending ──last leg's final answer──▶ gone
//!            │  └─ all legs failed: best answer upstream ──────────────────────────▶ gone
//!            │ first 2xx: ACK, the others are CANCELled
//!            ▼
//!         Joining ──refused──▶ 5xx upstream, BYE downstream
//!            │ applied (at once when SDP passes): 2xx upstream, row written
//!            ▼
//!          Active ──BYE of a side, clock, idle, media lost for good──▶ BYE to all ──▶ gone
//!            └──BYE of a side while a device has not read all──▶ BYE to the others; to that one when it has (`end`)
//! ```
//!
//! Each file is one concern: `setup` and `race` (fork, first answer, merge), `late` (an INVITE without an
//! offer: it is Inviting at once, and the data plane is asked at the first 2xx), `exchange` and
//! `agreed` (re-INVITE and UPDATE), `early` (the same before the first answer), `passing` (the
//! other in-dialog requests), `referral` (REFER between two users), `reliable` (PRACK and early media), `clock` (RFC 4028, idle), `repair` (media lost), `end`, `row`, `sound` (SDP and
//! the anchor). This file holds the state and takes events to them.

mod agreed;
pub(crate) mod clock;
mod early;
mod end;
mod exchange;
mod late;
mod passing;
mod race;
pub(crate) mod referral;
mod reliable;
mod repair;
mod row;
mod setup;
mod sound;

use std::collections::BTreeSet;

use base::{Instant, TimerId, UnixTime};
use bytes::Bytes;
use contract::{Applied, News, Refusal};
use sip::typed::Reason;
use sip::{Dialog, Request, Response};

pub(crate) use referral::referrals_row;
pub(crate) use row::session_of;
pub(crate) use setup::Start;

use self::clock::Clock;
use self::exchange::Exchange;
use self::passing::Passing;
use self::setup::Setup;
use self::sound::Lines;
use crate::media::Anchor;
use crate::turn::Turn;
use crate::{Ask, ClientTx, LaneKey, Route, ServerTx, UserId};

/// The side that sent the INVITE.
pub(crate) const UPSTREAM: usize = 0;

/// Where a session stands; see the diagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// The data plane is asked for ports.
    Allocating,
    /// Legs are called.
    Inviting,
    /// A leg answered; the data plane is told.
    Joining,
    /// Both sides talk.
    Active,
    /// Final answers of CANCELled legs are awaited.
    Ending,
    /// Nothing is left; the table drops it.
    Gone,
}

/// What happens to media.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Plan {
    /// SDP passes unchanged.
    Pass,
    /// The data plane relays between upstream and the one device that answered.
    Relay,
    /// Upstream is joined once, the data plane distributes to every device that answered.
    FanOut,
}

/// Where a side stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SideState {
    /// Our INVITE has no final answer.
    Calling,
    /// It has none, and we do not want it any more.
    Cancelling,
    /// A dialog.
    Confirmed,
    /// Failed or ended.
    Gone,
}

/// One dialog of the session.
#[derive(Debug)]
pub(crate) struct Side {
    state: SideState,
    /// Our tag: how in-dialog requests find us.
    tag: String,
    dialog: Option<Dialog>,
    route: Route,
    /// The device's binding key; empty towards the far end.
    device: String,
    /// Our INVITE to it.
    invite: Option<(ClientTx, Request)>,
    /// Dialogs that provisional responses of it have made.
    early: Vec<reliable::Early>,
    /// Its 2xx offered: our ACK waits for the caller's answer.
    unacknowledged: Option<ClientTx>,
    sdp_sent: Bytes,
    sdp_got: Bytes,
    clock: Clock,
    /// The peer allows UPDATE (RFC 3311).
    update: bool,
    /// The media legs towards it, by media line; 0 = none.
    legs: Vec<u64>,
    /// Our Contact's user, where it is not our tag (a focus shows through), and its parameters.
    contact_user: Option<String>,
    contact_features: String,
}

/// A dialog that somebody has named, and the one on the other side of it.
#[derive(Debug)]
pub(crate) struct Across<'a> {
    /// Whom the named one is with.
    pub(crate) remote: &'a sip::Uri,
    /// The other one.
    pub(crate) dialog: &'a sip::DialogId,
    /// The device that the other one is with; empty where it is with none of ours.
    pub(crate) device: &'a str,
}

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    id: u64,
    user: UserId,
    originating: bool,
    group: bool,
    plan: Plan,
    phase: Phase,
    sides: Vec<Side>,
    setup: Option<Setup>,
    /// CSeq number of the INVITE that opened it; `None` after a restart.
    invite_seq: Option<u32>,
    /// RSeq of a provisional response that the final one has overtaken: its PRACK may still come.
    unpracked: Option<u32>,
    /// The BYE that ended it.
    last_word: Option<Request>,
    /// Tags of ours of early dialogs that did not become the session's.
    tags_before: Vec<String>,
    exchange: Option<Exchange>,
    passing: Vec<Passing>,
    referrals: referral::Referrals,
    anchor: Option<Anchor>,
    lines: Lines,
    repair: Option<repair::Repair>,
    ask: Option<Ask>,
    timer: Option<TimerId>,
    /// Until when devices of a fan-out may still answer.
    calling_until: Option<Instant>,
    /// Legs of devices that are behind others: what was sent to them waits on disk.
    behind: BTreeSet<u64>,
    /// A side has hung up, and only devices that are behind still talk.
    lingering: Option<end::Lingering>,
    /// The device that sent the last REFER or SUBSCRIBE.
    referrer: Option<usize>,
    since: UnixTime,
    conversation: String,
    contribution: String,
    version: u64,
}

impl Session {
    /// Its number.
    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    /// The served user.
    pub(crate) const fn user(&self) -> &UserId {
        &self.user
    }

    /// True when the table can drop it.
    pub(crate) fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// The tags by which requests find it.
    pub(crate) fn tags(&self) -> impl Iterator<Item = &str> {
        self.sides.iter().map(|s| &s.tag).chain(&self.tags_before).map(String::as_str)
    }

    /// Where the other end of the dialog with this tag of ours is.
    pub(crate) fn route_of(&self, tag: &str) -> Option<&Route> {
        self.sides.iter().find(|s| s.tag == tag).map(|s| &s.route)
    }

    /// See [`crate::participating::Sessions::across`].
    pub(crate) fn across(&self, tag: &str, call_id: &str, remote_tag: &str) -> Option<Across<'_>> {
        let named = self.side_of_tag(tag).filter(|_| self.phase == Phase::Active)?;
        let here = self.side(named)?.dialog.as_ref()?;
        let is_it = here.id.call_id == call_id && here.id.remote_tag == remote_tag;
        let there = self.side(self.opposite(named)?)?;
        is_it.then_some(Across {
            remote: &here.remote.uri,
            dialog: &there.dialog.as_ref()?.id,
            device: &there.device,
        })
    }

    /// The context by which news finds it.
    pub(crate) fn context(&self) -> Option<u64> {
        self.anchor.as_ref().map(Anchor::id)
    }

    /// The INVITE transactions by which a CANCEL or a missing ACK finds it.
    pub(crate) fn invites(&self) -> impl Iterator<Item = ServerTx> {
        let setup = self.setup.as_ref().map(Setup::tx);
        let exchange = self.exchange.as_ref().and_then(Exchange::server);
        setup.into_iter().chain(exchange)
    }

    pub(crate) fn lane(&self) -> LaneKey {
        LaneKey::of_user(&self.user)
    }

    /// An answer to one of its requests.
    pub(crate) fn response(&mut self, turn: &mut Turn<'_>, tx: ClientTx, response: Response) {
        if let Some(side) = self.side_of_invite(tx) {
            self.leg_answered(turn, side, tx, response);
        } else if self.exchange.as_ref().is_some_and(|e| e.client() == Some(tx)) {
            self.exchange_answered(turn, response);
        } else {
            self.passed_answered(turn, tx, response);
        }
        self.settle(turn);
    }

    /// One of its requests gets no final answer.
    pub(crate) fn expired(&mut self, turn: &mut Turn<'_>, tx: ClientTx) {
        if let Some(side) = self.side_of_invite(tx) {
            self.leg_silent(turn, side);
        } else if self.exchange.as_ref().is_some_and(|e| e.client() == Some(tx)) {
            self.exchange_silent(turn);
        } else {
            self.passed_silent(turn, tx);
        }
        self.settle(turn);
    }

    /// An in-dialog request on the side whose tag it names.
    pub(crate) fn request(&mut self, turn: &mut Turn<'_>, tag: &str, tx: ServerTx, request: Request) {
        match self.side_of_tag(tag) {
            Some(side) => self.in_dialog(turn, side, tx, request),
            // Its BYE crossed ours, or came after it (RFC 3261 §15.1.2).
            None => turn.respond(tx, request.respond(481)),
        }
        self.settle(turn);
    }

    /// The ACK of a 2xx of ours.
    pub(crate) fn ack(&mut self, turn: &mut Turn<'_>, tag: &str, request: &Request) {
        if let Some(side) = self.side_of_tag(tag) {
            self.acknowledged(turn, side, request);
        }
        self.settle(turn);
    }

    /// The sender took an INVITE back.
    pub(crate) fn cancelled(&mut self, turn: &mut Turn<'_>, tx: ServerTx, reason: Option<&Reason>) {
        if self.setup.as_ref().is_some_and(|s| s.tx() == tx) {
            self.setup_cancelled(turn, reason);
        } else if self.exchange.as_ref().is_some_and(|e| e.server() == Some(tx)) {
            self.exchange_cancelled(turn);
        }
        self.settle(turn);
    }

    /// Our 2xx got no ACK: the session ends (RFC 3261 §13.3.1.4).
    pub(crate) fn ack_missing(&mut self, turn: &mut Turn<'_>) {
        self.end_all(turn, None, "SIP;cause=408;text=\"No ACK\"");
        self.settle(turn);
    }

    /// The data plane did what was ordered.
    pub(crate) fn applied(&mut self, turn: &mut Turn<'_>, ask: Ask, applied: &Applied) {
        if let Some(anchor) = &mut self.anchor {
            anchor.placed(applied);
        }
        if self.ask == Some(ask) {
            self.ask = None;
            self.media_ready(turn);
        }
        self.settle(turn);
    }

    /// The data plane did not.
    pub(crate) fn refused(&mut self, turn: &mut Turn<'_>, ask: Ask, refusal: &Refusal) {
        if self.ask == Some(ask) {
            self.ask = None;
            self.media_refused(turn, refusal);
        }
        self.settle(turn);
    }

    /// News about its context.
    pub(crate) fn news(&mut self, turn: &mut Turn<'_>, news: &News) {
        self.media_news(turn, news);
        self.settle(turn);
    }

    /// Its timer fired.
    pub(crate) fn wake(&mut self, turn: &mut Turn<'_>) {
        self.timer = None;
        self.tick(turn);
        self.settle(turn);
    }

    /// What waited for the data plane goes on.
    fn media_ready(&mut self, turn: &mut Turn<'_>) {
        match self.phase {
            Phase::Allocating => self.call_legs(turn),
            Phase::Inviting | Phase::Joining if self.exchange.is_some() => self.exchange_ready(turn),
            Phase::Joining => self.answer_upstream(turn),
            Phase::Active if self.repair.is_some() => self.repair_ready(turn),
            Phase::Active => self.exchange_ready(turn),
            Phase::Inviting => self.early_ready(turn),
            Phase::Ending | Phase::Gone => {}
        }
    }

    fn media_refused(&mut self, turn: &mut Turn<'_>, refusal: &Refusal) {
        match self.phase {
            Phase::Inviting | Phase::Joining if self.exchange.is_some() => {
                self.exchange_refused(turn, refusal);
            }
            Phase::Allocating | Phase::Inviting | Phase::Joining => self.setup_refused(turn, refusal),
            Phase::Active if self.repair.is_some() => self.repair_refused(turn),
            Phase::Active => self.exchange_refused(turn, refusal),
            Phase::Ending | Phase::Gone => {}
        }
    }

    /// After each event: the row, the clock.
    fn settle(&mut self, turn: &mut Turn<'_>) {
        if self.phase == Phase::Ending && !self.sides.iter().any(Side::is_pending) {
            self.phase = Phase::Gone;
        }
        if self.phase == Phase::Gone {
            turn.unwake(&mut self.timer);
            return;
        }
        self.arm(turn);
    }

    fn side_of_invite(&self, tx: ClientTx) -> Option<usize> {
        self.sides.iter().position(|s| s.invite.as_ref().is_some_and(|(own, _)| *own == tx))
    }

    fn side_of_tag(&self, tag: &str) -> Option<usize> {
        self.sides.iter().position(|s| s.tag == tag && s.state != SideState::Gone)
    }

    fn side(&self, at: usize) -> Option<&Side> {
        self.sides.get(at)
    }

    fn side_mut(&mut self, at: usize) -> Option<&mut Side> {
        self.sides.get_mut(at)
    }

    /// The sides that talk, without one.
    fn others(&self, without: usize) -> Vec<usize> {
        (0..self.sides.len())
            .filter(|at| *at != without)
            .filter(|at| self.side(*at).is_some_and(|s| s.state == SideState::Confirmed))
            .collect()
    }

    /// Whom a request of that side is meant for: upstream for a device, the device for upstream.
    fn opposite(&self, at: usize) -> Option<usize> {
        let upstream = || self.side(UPSTREAM).is_some_and(|side| side.state != SideState::Gone);
        if at == UPSTREAM {
            self.others(UPSTREAM).first().copied().or_else(|| self.early_side())
        } else {
            Some(UPSTREAM).filter(|_| upstream())
        }
    }

    /// When the timer is wanted next.
    fn deadline(&self) -> Option<Instant> {
        let setup = self.setup.as_ref().map(Setup::deadline);
        let reliable = self.setup.as_ref().and_then(|s| s.reliable.next());
        let clocks = self.sides.iter().filter_map(|s| s.clock.next());
        let repair = self.repair.as_ref().map(repair::Repair::next);
        let exchange = self.exchange.as_ref().and_then(Exchange::deadline);
        let lingering = self.lingering.as_ref().map(end::Lingering::until);
        let referrals = self.referrals.next();
        setup
            .into_iter()
            .chain(reliable)
            .chain(lingering)
            .chain(clocks)
            .chain(repair)
            .chain(referrals)
            .chain(exchange)
            .chain(self.calling_until)
            .min()
    }
}

impl Side {
    /// True while our INVITE has no final answer.
    fn is_pending(&self) -> bool {
        matches!(self.state, SideState::Calling | SideState::Cancelling)
    }
}
