//! Reliable provisional responses (RFC 3262) on both sides, and the early media that they bring (RFC 3261 §13.2.1,
//! RFC 3264 §4): each side is its own end of the acknowledgement, the answer of the device passes.
//!
//! ```text
//!   caller (Supported, Require: 100rel)      here                                       device
//!     │                                       │◀── 183, Require: 100rel, RSeq 7, answer ──│
//!     │                                       │── PRACK, RAck 7 1 INVITE ─────────────────▶│
//!     │                                       │ anchored: the device's leg is met, applied │
//!     │◀─ 183, Require: 100rel, RSeq n, ours ─│  again at T1, 2*T1 ... for 64*T1: then 504 │
//!     │── PRACK, RAck n c INVITE ────────────▶│ 200; another RAck: 481                     │
//!     │                                       │◀──────────────────────────────────── 200 ──│
//!     │◀────────── 200, the same description ─│  waits for the PRACK of a description      │
//! ```
//!
//! One response is unacknowledged at a time, the next one waits behind it (§3). A caller without 100rel gets the same
//! once and unreliably. Early descriptions pass where one device is called: the offer of a caller has one answer, and
//! several that ring would give several. Where a description has been shown and another one is answered in the end (a
//! proxy before the device forked, RFC 3261 §13.2.2.4), the 2xx is of a dialog of its own: we draw another tag for it.
//! An INVITE without an offer is sent on without 100rel: the offer would come in the 1xx and its answer in the PRACK,
//! before anything of ours is allocated; a caller that requires it hears 100 only until the 2xx (§5).

use std::collections::VecDeque;
use std::time::Duration;

use base::Instant;
use bytes::Bytes;
use sip::typed::{RAck, RSeq};
use sip::{Dialog, Method, Name, Request, Response};

use super::{Phase, Plan, Session, SideState, UPSTREAM};
use crate::b2b;
use crate::body;
use crate::participating::leg;
use crate::turn::{Owner, Turn};
use crate::{Route, ServerTx};

/// The option tag.
pub(super) const OPTION: &str = "100rel";
/// RFC 3261 §17.1.1.1, RFC 3262 §3: the interval doubles from T1 and has no cap.
const T1: Duration = Duration::from_millis(500);
/// RFC 3262 §3: so long without a PRACK, and the INVITE is refused.
const GIVE_UP: Duration = Duration::from_secs(32);
/// Responses that wait behind an unacknowledged one.
const QUEUE_MAX: usize = 4;

/// An early dialog with a device.
#[derive(Debug)]
pub(super) struct Early {
    pub(super) dialog: Dialog,
    /// RSeq of its latest reliable response; 0 = none yet.
    rseq: u32,
    /// The device allows UPDATE (RFC 3311).
    pub(super) update: bool,
}

impl Early {
    /// It is the dialog with this tag of the device's.
    pub(super) fn is_of(&self, tag: &str) -> bool {
        self.dialog.id.remote_tag == tag
    }
}

/// A description that the caller has been shown, or is about to be.
#[derive(Debug)]
pub(super) struct Shown {
    side: usize,
    /// The device's tag.
    tag: String,
    sdp: Bytes,
    /// The response that brought it, until the data plane has its media.
    waiting: Option<Response>,
    /// The device's response was reliable, and the caller has acknowledged ours.
    reliable: bool,
    acknowledged: bool,
    /// Something else has been agreed since.
    changed: bool,
}

/// What waits for the caller's PRACK.
#[derive(Debug)]
struct Unacknowledged {
    rseq: u32,
    response: Response,
    interval: Duration,
    next: Instant,
    until: Instant,
}

/// The provisional responses of one INVITE.
#[derive(Debug, Default)]
pub(super) struct Reliable {
    /// RSeq of the latest; 0 = none yet.
    rseq: u32,
    unacknowledged: Option<Unacknowledged>,
    queue: VecDeque<Response>,
    shown: Option<Shown>,
}

impl Reliable {
    pub(super) fn next(&self) -> Option<Instant> {
        self.unacknowledged.as_ref().map(|u| u.next.min(u.until))
    }

    /// RFC 3262 §3: a 2xx does not overtake a description that has no PRACK.
    pub(super) fn holds_success(&self) -> bool {
        self.unacknowledged.as_ref().is_some_and(|u| !u.response.body.is_empty())
    }

    /// A description is on its way to the caller, or there.
    pub(super) fn has_told(&self) -> bool {
        self.shown.as_ref().is_some_and(|s| s.waiting.is_none())
    }

    /// The early dialog of that side whose description is shown.
    pub(super) fn shown_tag(&self, side: usize) -> Option<String> {
        self.shown.as_ref().filter(|s| s.side == side).map(|s| s.tag.clone())
    }

    /// Whose answer both ends have reliably (RFC 3262 §5, RFC 3311 §5.1).
    pub(super) fn agreed(&self) -> Option<(usize, &str)> {
        let shown = self.shown.as_ref().filter(|s| s.waiting.is_none() && s.reliable && s.acknowledged)?;
        Some((shown.side, &shown.tag))
    }

    /// Something else is agreed now than the first answer.
    pub(super) fn change(&mut self) {
        if let Some(shown) = &mut self.shown {
            shown.changed = true;
        }
    }

    /// What was shown is not what is agreed any more.
    pub(super) fn has_changed(&self) -> bool {
        self.shown.as_ref().is_some_and(|s| s.changed)
    }

    /// RSeq of what the final response leaves without a PRACK.
    pub(super) fn left(&self) -> Option<u32> {
        self.unacknowledged.as_ref().map(|u| u.rseq)
    }
}

/// Whether the caller takes reliable responses, and whether it takes no others.
fn asked(request: &Request) -> (bool, bool) {
    let required = request.headers.has_token(&Name::Require, OPTION);
    (required || request.headers.has_token(&Name::Supported, OPTION), required)
}

/// Whether a response is reliable, and its number.
fn number_of(response: &Response) -> Option<u32> {
    let reliable = response.code > 100 && response.headers.has_token(&Name::Require, OPTION);
    // RFC 3262 §7.1: 1 to 2^32-1.
    response.headers.typed::<RSeq>().ok().flatten().map(|r| r.0).filter(|n| reliable && *n != 0)
}

impl Session {
    /// A provisional response of a device: acknowledged where it is reliable. False for one that is not to be looked
    /// at: again, out of order, or without what a reliable one needs (RFC 3262 §4).
    pub(super) fn takes_provisional(&mut self, turn: &mut Turn<'_>, at: usize, response: &Response) -> bool {
        let max = turn.config().limits.early_dialogs_max;
        let late = self.setup.as_ref().is_some_and(|s| s.offer().is_empty());
        let reliable = response.headers.has_token(&Name::Require, OPTION);
        let (number, tag) = (number_of(response), response.to_tag());
        let Some(side) = self.side_mut(at).filter(|s| s.is_pending()) else { return false };
        let Some(tag) = tag else { return !reliable };
        let known = side.early.iter().position(|e| e.dialog.id.remote_tag == tag);
        let known = match known {
            Some(known) => known,
            None => {
                let Some((_, invite)) = &side.invite else { return false };
                let Ok(dialog) = Dialog::uac(invite, response) else { return !reliable };
                if side.early.len() >= max {
                    return false;
                }
                side.early.push(Early { dialog, rseq: 0, update: false });
                side.early.len() - 1
            }
        };
        let Some(early) = side.early.get_mut(known) else { return false };
        early.update |= leg::allows_update(&response.headers);
        if !reliable {
            return true;
        }
        let Some(number) = number else { return false };
        // §4: the first one begins anywhere, the others count up by one; what is early or comes again is left alone.
        if early.rseq != 0 && early.rseq.checked_add(1) != Some(number) {
            return false;
        }
        if late && !response.body.is_empty() {
            // An offer that nobody asked for, and that nobody could answer in the PRACK.
            return false;
        }
        early.rseq = number;
        if early.dialog.update(response).is_err() {
            turn.desk.counters.contacts_unread += 1;
        }
        let mut prack = early.dialog.request(Method::Prack);
        prack.headers.add(&RAck { rseq: number, seq: super::race::INVITE_SEQ, method: Method::Invite });
        let route = leg::route_of(turn.config(), &side.route, &early.dialog);
        turn.send(Owner::Nobody, route, prack);
        true
    }

    /// The dialog of a 2xx: what was early goes on, with its numbers (RFC 3261 §13.2.2.4).
    pub(super) fn confirmed(&mut self, at: usize, response: &Response, fresh: Dialog) -> Dialog {
        let Some(side) = self.side_mut(at) else { return fresh };
        let early = side.early.iter().position(|e| e.dialog.id.remote_tag == fresh.id.remote_tag);
        let Some(mut dialog) = early.map(|at| side.early.swap_remove(at).dialog) else { return fresh };
        match dialog.update(response) {
            Ok(()) => dialog,
            Err(_) => fresh,
        }
    }

    /// An early description passes: the only device, its first answer, to an offer of the caller's.
    pub(super) fn early_answer(&self, at: usize, response: &Response) -> Option<Bytes> {
        let setup = self.setup.as_ref()?;
        let only = self.plan != Plan::FanOut && self.sides.len() == 2 && at == 1;
        if !only || setup.offer().is_empty() || setup.reliable.shown.is_some() {
            return None;
        }
        body::sdp_in(&response.headers, &response.body).filter(|sdp| !sdp.is_empty())
    }

    /// Shows the caller an early description: at once where it passes, else when the data plane has met the device.
    pub(super) fn show_early(&mut self, turn: &mut Turn<'_>, at: usize, sdp: Bytes, response: &Response) {
        let tag = response.to_tag().unwrap_or_default();
        let Some(side) = self.side_mut(at) else { return };
        side.sdp_got = sdp.clone();
        let Some(setup) = self.setup.as_mut() else { return };
        setup.reliable.shown = Some(Shown {
            side: at,
            tag,
            sdp,
            waiting: Some(response.clone()),
            reliable: number_of(response).is_some(),
            acknowledged: false,
            changed: false,
        });
        if self.plan == Plan::Relay && self.sound_joined(turn, at).is_err() {
            // The answer fits no offer of ours: the 2xx will say so again, and end it.
            if let Some(setup) = self.setup.as_mut() {
                setup.reliable.shown = None;
            }
            let mut bare = response.clone();
            bare.body = Bytes::new();
            return self.ring(turn, &bare, None);
        }
        if self.ask.is_none() {
            self.early_ready(turn);
        }
    }

    /// The data plane has the early media.
    pub(super) fn early_ready(&mut self, turn: &mut Turn<'_>) {
        let shown = self.setup.as_mut().and_then(|s| s.reliable.shown.as_mut());
        let Some((at, response)) = shown.and_then(|s| Some((s.side, s.waiting.take()?))) else { return };
        let sdp = match self.plan {
            Plan::Pass => self.side(at).map(|s| s.sdp_got.clone()),
            Plan::Relay | Plan::FanOut => self.sound_answer(turn, at),
        };
        if let (Some(sdp), Some(upstream)) = (&sdp, self.side_mut(UPSTREAM)) {
            upstream.sdp_sent = sdp.clone();
        }
        self.ring(turn, &response, sdp);
    }

    /// The side whose early media is met; it talks like one that has answered.
    pub(super) fn early_side(&self) -> Option<usize> {
        let shown = self.setup.as_ref()?.reliable.shown.as_ref()?;
        self.side(shown.side).is_some_and(|s| s.state == SideState::Calling).then_some(shown.side)
    }

    /// What the caller was shown of this dialog, and whether the 2xx says the same. An empty one does: the answer was
    /// in the reliable response (RFC 3262 §5).
    pub(super) fn was_shown(&self, at: usize, tag: &str, sdp: &Bytes) -> Option<bool> {
        let shown = self.setup.as_ref()?.reliable.shown.as_ref()?;
        // RFC 3261 §13.2.1: what was agreed is not answered again.
        Some(shown.side == at && shown.tag == tag && (shown.changed || sdp.is_empty() || *sdp == shown.sdp))
    }

    /// A provisional response to the caller, reliable where it takes that and it is worth it.
    pub(super) fn ring(&mut self, turn: &mut Turn<'_>, theirs: &Response, sdp: Option<Bytes>) {
        let tag = self.sides.first().map(|s| s.tag.clone()).unwrap_or_default();
        let contact = self.contact_of(turn, UPSTREAM);
        let Some(setup) = self.setup.as_mut() else { return };
        let (supported, required) = asked(&setup.request);
        if required && setup.offer().is_empty() {
            // RFC 3262 §5: the first reliable one would have to offer.
            return;
        }
        setup.rung = theirs.code;
        let mut ring = b2b::relay(&setup.request, theirs);
        ring.body = Bytes::new();
        ring.headers.remove(&Name::ContentType);
        if let Some(sdp) = sdp {
            body::replace_sdp_in(&mut ring, sdp);
        }
        ring.set_to_tag(&tag);
        ring.headers.set(Name::Contact, contact);
        ring.headers.set(Name::Allow, crate::supported::ALLOW);
        let worth = required || !ring.body.is_empty() || number_of(theirs).is_some();
        if !(supported && worth) {
            self.early_upstream(&ring);
            return self.respond_setup(turn, ring);
        }
        ring.headers.push(Name::Require, OPTION);
        if setup.reliable.unacknowledged.is_some() {
            // §3: not before the one before it is acknowledged. What does not fit is the least of the news.
            if setup.reliable.queue.len() < QUEUE_MAX {
                setup.reliable.queue.push_back(ring);
            }
            return;
        }
        self.ring_reliably(turn, ring);
    }

    fn respond_setup(&mut self, turn: &mut Turn<'_>, response: Response) {
        if let Some(setup) = &self.setup {
            turn.respond(setup.tx, response);
        }
    }

    fn ring_reliably(&mut self, turn: &mut Turn<'_>, mut ring: Response) {
        let now = turn.now.mono;
        // Within a node nothing is lost.
        let local = matches!(self.side(UPSTREAM).map(|s| &s.route), Some(Route::Lane(_)));
        let Some(setup) = self.setup.as_mut() else { return };
        // §3: the first number is drawn from 1 to 2^31-1, the others follow by one.
        setup.reliable.rseq = match setup.reliable.rseq {
            0 => u32::try_from(turn.desk.entropy.below((1 << 31) - 2)).unwrap_or(0) + 1,
            last => last + 1,
        };
        let rseq = setup.reliable.rseq;
        ring.headers.set(Name::RSeq, rseq.to_string());
        setup.reliable.unacknowledged = Some(Unacknowledged {
            rseq,
            response: ring.clone(),
            interval: T1,
            next: if local { now + GIVE_UP } else { now + T1 },
            until: now + GIVE_UP,
        });
        self.early_upstream(&ring);
        self.respond_setup(turn, ring);
    }

    /// Our end of the early dialog with the caller: PRACK and BYE come in it (RFC 3261 §12.1.1).
    fn early_upstream(&mut self, ring: &Response) {
        let Some(dialog) = self.setup.as_ref().and_then(|s| Dialog::uas(&s.request, ring).ok()) else {
            return;
        };
        if let Some(side) = self.side_mut(UPSTREAM).filter(|s| s.dialog.is_none()) {
            side.dialog = Some(dialog);
        }
    }

    /// The clock of what is unacknowledged.
    pub(super) fn reliable_tick(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.mono;
        let Some(setup) = self.setup.as_mut() else { return };
        let tx = setup.tx;
        let Some(waiting) = &mut setup.reliable.unacknowledged else { return };
        if waiting.until <= now {
            // §3: no PRACK for 64*T1: the INVITE is refused.
            setup.reliable.unacknowledged = None;
            return self.fail(turn, 504);
        }
        if waiting.next <= now {
            waiting.interval *= 2;
            waiting.next = now + waiting.interval;
            let response = waiting.response.clone();
            turn.respond(tx, response);
        }
    }

    /// PRACK of the caller (§3): 200 where it acknowledges what waits for it, 481 else.
    pub(super) fn prack(&mut self, turn: &mut Turn<'_>, at: usize, tx: ServerTx, request: Request) {
        let Ok(Some(rack)) = request.headers.typed::<RAck>() else {
            return turn.respond(tx, b2b::refuse(turn.config(), &request, 400));
        };
        let invite = self.invite_seq.filter(|_| at == UPSTREAM && rack.method == Method::Invite);
        let waits = match &self.setup {
            Some(setup) => setup.reliable.left(),
            // The final response has overtaken it; it is still to be taken.
            None => self.unpracked,
        };
        if invite != Some(rack.seq) || waits != Some(rack.rseq) {
            return turn.respond(tx, b2b::refuse(turn.config(), &request, 481));
        }
        self.unpracked = None;
        // The response is acknowledged, whatever becomes of an offer in its PRACK (§5).
        if let Some(setup) = self.setup.as_mut() {
            let told = setup.reliable.unacknowledged.take().is_some_and(|u| !u.response.body.is_empty());
            if let (true, Some(shown)) = (told, &mut setup.reliable.shown) {
                shown.acknowledged = true;
            }
        }
        if body::sdp_in(&request.headers, &request.body).is_none_or(|sdp| !sdp.is_empty()) {
            self.change_by_prack(turn, tx, request);
        } else {
            turn.respond(tx, request.respond(200));
        }
        let Some(setup) = self.setup.as_mut() else { return };
        if self.phase == Phase::Joining && self.ask.is_none() {
            self.answer_upstream(turn);
        } else if let Some(next) = setup.reliable.queue.pop_front() {
            self.ring_reliably(turn, next);
        }
    }
}
