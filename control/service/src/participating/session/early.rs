//! A change before the INVITE has its final answer: UPDATE of either side (RFC 3311 §5), and an offer in the caller's
//! PRACK (RFC 3262 §5), which goes on as an UPDATE, because our own PRACK to the device went out with its response.
//! The states are `exchange`'s.
//!
//! ```text
//!   caller                              here                                   device
//!     │── PRACK or UPDATE, offer ────────▶│ its legs are met anew                │
//!     │                                   │── UPDATE, offer with our ends ──────▶│
//!     │                                   │◀──────────────────────── 200, answer ─│
//!     │◀── 200, answer with our ends ─────│◀───────────────────────── 200 INVITE ─│ waits for the change
//!     │◀── 200 INVITE, nothing new in it ─│                                      │
//! ```
//!
//! The first offer must have its answer on both sides, reliably: an answer that nobody has acknowledged is none yet, and
//! what comes before it gets 500 with Retry-After (RFC 3311 §5.2). Session timers are the INVITE's business meanwhile.

use sip::{Dialog, Method, Name, Request};

use super::exchange::{Exchange, OVERDUE, Purpose, Step};
use super::{Phase, Session, SideState, UPSTREAM};
use crate::Route;
use crate::ServerTx;
use crate::b2b;
use crate::participating::leg;
use crate::turn::Turn;

impl Session {
    /// The INVITE has no final answer yet.
    pub(super) fn is_early(&self) -> bool {
        self.setup.is_some()
    }

    /// That device has not answered yet.
    pub(super) fn is_called(&self, at: usize) -> bool {
        self.side(at).is_some_and(|side| side.state == SideState::Calling)
    }

    /// The dialog with a side: the one that an INVITE has confirmed, else the early one whose description was shown.
    pub(super) fn dialog_with(&mut self, at: usize) -> Option<&mut Dialog> {
        let shown = self.setup.as_ref().and_then(|s| s.reliable.shown_tag(at));
        let side = self.sides.get_mut(at)?;
        match &mut side.dialog {
            Some(dialog) => Some(dialog),
            None => {
                let tag = shown?;
                side.early.iter_mut().map(|e| &mut e.dialog).find(|d| d.id.remote_tag == tag)
            }
        }
    }

    /// The dialog in which a request has come.
    pub(super) fn dialog_of(&mut self, at: usize, request: &Request) -> Option<&mut Dialog> {
        let side = self.sides.get_mut(at)?;
        match &mut side.dialog {
            Some(dialog) => Some(dialog),
            None if side.state == SideState::Calling => {
                let tag = request.from_tag()?;
                side.early.iter_mut().map(|e| &mut e.dialog).find(|d| d.id.remote_tag == tag)
            }
            None => None,
        }
    }

    /// Where the requests of [`Session::dialog_with`] go.
    pub(super) fn route_with(&mut self, turn: &Turn<'_>, at: usize) -> Option<Route> {
        let route = self.side(at)?.route.clone();
        if !self.is_early() {
            return Some(route);
        }
        let dialog = self.dialog_with(at)?;
        Some(leg::route_of(turn.config(), &route, dialog))
    }

    /// Whether an offer of that side may be taken before the final answer; the error is the SIP status.
    pub(super) fn may_change_early(&self, at: usize, request: &Request) -> Result<(), u16> {
        if !matches!(self.phase, Phase::Inviting | Phase::Joining) {
            return Err(481);
        }
        let reliable = self.setup.as_ref().map(|s| &s.reliable);
        let Some((side, tag)) = reliable.and_then(super::reliable::Reliable::agreed) else { return Err(500) };
        if self.ask.is_some() || (at != UPSTREAM && request.from_tag().as_deref() != Some(tag)) {
            return Err(500);
        }
        // RFC 3311 §4: who does not allow UPDATE gets none.
        let other = if at == UPSTREAM { side } else { UPSTREAM };
        let takes = self.side(other).is_some_and(|s| match s.early.iter().find(|e| e.is_of(tag)) {
            Some(early) => early.update,
            None => s.update,
        });
        if takes { Ok(()) } else { Err(488) }
    }

    /// The caller's PRACK offers.
    pub(super) fn change_by_prack(&mut self, turn: &mut Turn<'_>, tx: ServerTx, request: Request) {
        let offer = crate::body::sdp_in(&request.headers, &request.body);
        let allowed = match &offer {
            Some(_) if self.exchange.is_some() => Err(491),
            // RFC 3262 §5 wants the answer in our 2xx: later is not a time for it.
            Some(_) => self.may_change_early(UPSTREAM, &request).map_err(|_| 488),
            None => Err(400),
        };
        match (allowed, offer) {
            (Ok(()), Some(offer)) => {
                self.exchange = Some(Exchange {
                    purpose: Purpose::Change,
                    step: Step::Preparing,
                    from: UPSTREAM,
                    to: UPSTREAM,
                    method: Method::Update,
                    server: Some((tx, request)),
                    client: None,
                    offer: offer.clone(),
                    accepted: None,
                    seq: 0,
                    clocks: Default::default(),
                    deadline: turn.now.mono + OVERDUE,
                });
                self.prepare(turn, UPSTREAM, &offer);
            }
            (allowed, _) => {
                let code = allowed.err().unwrap_or(400);
                turn.respond(tx, b2b::refuse(turn.config(), &request, code));
            }
        }
    }

    /// A change is over: an answer that has waited for it goes out.
    pub(super) fn change_over(&mut self, turn: &mut Turn<'_>) {
        if self.phase == Phase::Joining && self.exchange.is_none() && self.ask.is_none() {
            self.answer_upstream(turn);
        }
    }

    /// The final answer is of another dialog than the one that is being changed.
    pub(super) fn change_overtaken(&mut self, turn: &mut Turn<'_>) {
        if !self.is_early() {
            return;
        }
        if let Some(client) = self.exchange.as_ref().and_then(Exchange::client) {
            turn.desk.forget(client);
        }
        self.refuse_exchange(turn, 487);
    }

    /// A change that may not come now.
    pub(super) fn refuse_change(&self, turn: &mut Turn<'_>, tx: ServerTx, request: &Request, code: u16) {
        let mut response = b2b::refuse(turn.config(), request, code);
        if code == 500 {
            // RFC 3261 §14.2, RFC 3311 §5.2: a random 0 to 10 s.
            response.headers.push(Name::RetryAfter, turn.desk.entropy.below(11).to_string());
        }
        turn.respond(tx, response);
    }
}
