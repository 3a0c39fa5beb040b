//! Media that is lost (CPM-FACTS §2.5 "MSRP transport failure", DESIGN §2 invariant 8).
//!
//! ```text
//!   a message leg is lost ── 1 s (its BYE may be under way) ──▶ Placing
//!   the data plane lost its tables: everything is put again ──▶ Placing (all sides with message legs)
//!
//!   Placing ──applied──▶ Offering: re-INVITE with the new path ──2xx──▶ Placing the answer ──▶ next side ▶ done
//!      ▲ refused, 491: later                  │ other failure, or 30 s over: BYE to all
//!      └──────────────────────────────────────┘
//!   control died meanwhile: sides whose new sessions nobody has taken begin anew
//! ```

use std::time::Duration;

use base::Instant;
use contract::{LegLost, News, leg_lost, news};
use sip::Method;

use super::exchange::Purpose;
use super::{Phase, Plan, Session, SideState, UPSTREAM};
use crate::media;
use crate::turn::{Orderer, Turn};

/// A side that hangs up closes its connection first; its BYE gets this long.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Nothing is done before `next`.
    Resting,
    /// The data plane is asked for new message sessions.
    Placing,
    /// The first side of the queue is asked.
    Offering,
    /// The data plane is told the answer.
    Meeting,
}

/// A repair under way.
#[derive(Debug)]
pub(super) struct Repair {
    step: Step,
    /// Sides whose message legs need a new session, and whether they have it.
    queue: Vec<usize>,
    renewed: bool,
    next: Instant,
    until: Instant,
}

impl Repair {
    pub(super) const fn next(&self) -> Instant {
        self.next
    }
}

impl Session {
    /// News of the data plane about a leg.
    pub(super) fn media_news(&mut self, turn: &mut Turn<'_>, news: &News) {
        match &news.what {
            Some(news::What::LegLost(lost)) => self.leg_lost(turn, lost),
            Some(news::What::Pressure(pressure)) => self.pressure(turn, pressure),
            Some(news::What::Counters(counters)) => self.counters(turn, &counters.legs),
            _ => {}
        }
    }

    fn leg_lost(&mut self, turn: &mut Turn<'_>, lost: &LegLost) {
        let Some(key) = lost.leg else { return };
        let Some(at) = self.sides.iter().position(|s| s.legs.contains(&key.leg)) else { return };
        let is_over = self.side(at).is_some_and(|side| side.state == SideState::Gone);
        if self.phase != Phase::Active || is_over {
            return;
        }
        if self.lingering.is_some() {
            // Nobody is left who could send it once more.
            return self.caught_up(turn, key.leg);
        }
        self.behind.remove(&key.leg);
        let message = self.anchor.as_ref().and_then(|a| a.leg(key.leg)).is_some_and(media::is_msrp);
        if !message {
            let text = match lost.reason() {
                leg_lost::Reason::MediaTimeout => "Media timeout",
                leg_lost::Reason::IceFailed => "No connectivity",
                leg_lost::Reason::DtlsFailed => "No keys",
                _ => return,
            };
            self.end_all(turn, None, &format!("SIP;cause=480;text=\"{text}\""));
            return;
        }
        if lost.reason() == leg_lost::Reason::Slow {
            // Cut loose by us: to set it up again would begin the same anew. Other devices stay.
            if at != UPSTREAM && self.plan == Plan::FanOut && self.others(UPSTREAM).len() > 1 {
                self.end_side(turn, at, Some("SIP;cause=503;text=\"Too slow\""));
                self.save(turn);
                return;
            }
            self.end_all(turn, None, "SIP;cause=503;text=\"Too slow\"");
            return;
        }
        self.begin_repair(turn, at, PATIENCE);
    }

    fn begin_repair(&mut self, turn: &Turn<'_>, at: usize, rest: Duration) {
        let now = turn.now.mono;
        let grace = Duration::from_secs(turn.config().participating.leg_lost_grace_s.into());
        match &mut self.repair {
            Some(repair) if repair.queue.contains(&at) => {}
            Some(repair) => repair.queue.push(at),
            None => {
                let until = now + grace;
                self.repair = Some(Repair {
                    step: Step::Resting,
                    queue: vec![at],
                    renewed: false,
                    next: now + rest,
                    until,
                });
            }
        }
    }

    /// The data plane has lost its tables: the wanted state again, message legs under new sessions.
    pub(crate) fn put_again(&mut self, turn: &mut Turn<'_>) {
        self.behind.clear();
        self.lingered(turn);
        if self.phase == Phase::Allocating || self.phase == Phase::Joining {
            // Its answer is lost with it: the caller may try again.
            self.fail(turn, 503);
        }
        if let (Phase::Inviting, Some(anchor)) = (self.phase, &mut self.anchor) {
            // Offers with these ends are out: they stay good.
            anchor.put_again(turn, Orderer::Session(self.id));
        }
        if self.phase == Phase::Active && self.anchor.is_some() && self.unacknowledged().is_some() {
            // The ends that the caller was offered are gone before it has answered.
            self.end_all(turn, None, "SIP;cause=503");
        } else if self.phase == Phase::Active && self.anchor.is_some() {
            self.repair = None;
            let now = turn.now.mono;
            let grace = Duration::from_secs(turn.config().participating.leg_lost_grace_s.into());
            let queue: Vec<usize> = (0..self.sides.len()).filter(|at| self.sound_renew(*at)).collect();
            if let Some(anchor) = &mut self.anchor {
                self.ask = Some(anchor.put_again(turn, Orderer::Session(self.id)));
            }
            let until = now + grace;
            self.repair = Some(Repair { step: Step::Placing, queue, renewed: true, next: until, until });
            self.save(turn);
        }
        self.settle(turn);
    }

    /// The repair's clock.
    pub(super) fn repair_tick(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.mono;
        let busy = self.exchange.is_some() || self.unacknowledged().is_some();
        let Some(repair) = &mut self.repair else { return };
        if repair.until <= now {
            self.end_all(turn, None, "SIP;cause=480;text=\"Bearer Release\"");
            return;
        }
        repair.next = repair.until;
        match repair.step {
            Step::Resting if busy => self.rest(turn, PATIENCE),
            Step::Resting => self.place(turn),
            Step::Placing | Step::Offering | Step::Meeting => {}
        }
    }

    fn rest(&mut self, turn: &Turn<'_>, rest: Duration) {
        if let Some(repair) = &mut self.repair {
            repair.step = Step::Resting;
            repair.next = (turn.now.mono + rest).min(repair.until);
        }
    }

    /// New sessions for the first side's message legs, if it has none yet.
    fn place(&mut self, turn: &mut Turn<'_>) {
        let Some(repair) = &mut self.repair else { return };
        let Some(at) = repair.queue.first().copied() else {
            self.repair = None;
            return;
        };
        if repair.renewed {
            self.offer_again(turn, at);
            return;
        }
        repair.step = Step::Placing;
        self.sound_renew(at);
        self.order(turn);
        self.save(turn);
    }

    /// Control has died during a repair: message legs whose session nobody has taken are offered once more, and
    /// have the whole grace for it. Without an end of its own such a chat would never be anybody's.
    pub(super) fn resume_repair(&mut self, turn: &Turn<'_>) {
        let unmet = |at: &usize| {
            let legs = self.side(*at).map(|s| s.legs.as_slice()).unwrap_or_default();
            legs.iter().filter_map(|id| self.anchor.as_ref()?.leg(*id)).any(media::is_unmet)
        };
        let queue: Vec<usize> = (0..self.sides.len()).filter(unmet).collect();
        for at in queue {
            self.begin_repair(turn, at, Duration::ZERO);
        }
    }

    /// The data plane did what the repair ordered.
    pub(super) fn repair_ready(&mut self, turn: &mut Turn<'_>) {
        let Some(repair) = &mut self.repair else { return };
        match repair.step {
            Step::Placing => {
                repair.renewed = true;
                match repair.queue.first().copied() {
                    _ if self.exchange.is_some() => self.rest(turn, PATIENCE),
                    Some(at) => self.offer_again(turn, at),
                    None => self.repaired(turn),
                }
            }
            Step::Meeting => self.repaired(turn),
            // An exchange was under way when the leg was lost: it goes on.
            Step::Resting | Step::Offering => self.exchange_ready(turn),
        }
    }

    fn offer_again(&mut self, turn: &mut Turn<'_>, at: usize) {
        let Some(sdp) = self.sound_renewed(turn, at) else {
            self.end_all(turn, None, "SIP;cause=500");
            return;
        };
        if let Some(repair) = &mut self.repair {
            repair.step = Step::Offering;
        }
        self.ask_side(turn, at, Purpose::Repair, Method::Invite, sdp);
    }

    /// The side took the new path.
    pub(super) fn repair_answered(&mut self, turn: &mut Turn<'_>, at: usize) {
        if self.sound_reanswered(turn, at).is_err() {
            self.end_all(turn, None, "SIP;cause=488");
            return;
        }
        if let Some(repair) = &mut self.repair {
            repair.step = Step::Meeting;
            repair.queue.retain(|side| *side != at);
        }
        if self.ask.is_none() {
            self.repaired(turn);
        }
    }

    /// One side is done; the next one, or none. After a lost leg each side needs new sessions of its own; after
    /// a lost data plane all have them.
    fn repaired(&mut self, turn: &mut Turn<'_>) {
        let Some(repair) = &mut self.repair else { return };
        match repair.queue.first().copied() {
            Some(at) if repair.renewed && self.needs_no_place(at) => self.offer_again(turn, at),
            Some(_) => {
                if let Some(repair) = &mut self.repair {
                    repair.renewed = false;
                }
                self.place(turn);
            }
            None => self.repair = None,
        }
        self.save(turn);
    }

    /// The side's message legs have a session that nobody has been told yet.
    fn needs_no_place(&self, at: usize) -> bool {
        let legs = self.side(at).map(|s| s.legs.as_slice()).unwrap_or_default();
        legs.iter()
            .filter_map(|id| self.anchor.as_ref()?.leg(*id))
            .filter(|leg| media::is_msrp(leg))
            .all(media::is_unmet)
    }

    /// The side refused: glare is tried again (RFC 3261 §14.1), the rest is the end.
    pub(super) fn repair_failed(&mut self, turn: &mut Turn<'_>, code: u16) {
        if code == 491 {
            let wait = 2100 + turn.desk.entropy.below(191) * 10;
            self.rest(turn, Duration::from_millis(wait));
            return;
        }
        self.end_all(turn, None, "SIP;cause=480;text=\"Bearer Release\"");
    }

    pub(super) fn repair_refused(&mut self, turn: &mut Turn<'_>) {
        match self.repair.as_ref().map(|r| r.step) {
            // The data plane is full or away: once more, until the grace is over.
            Some(Step::Placing | Step::Meeting) => self.rest(turn, PATIENCE),
            _ => self.end_all(turn, None, "SIP;cause=503"),
        }
    }
}
