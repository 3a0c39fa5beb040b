//! Session timers (RFC 4028) and the idle rule. A B2BUA is an end of the timer on each side; between lanes
//! of one node there is none: they live and die together.
//!
//! ```text
//!   we refresh:   ──interval/2──▶ UPDATE without SDP (re-INVITE when the peer has no UPDATE) ─2xx─▶ again
//!   peer does:    ──interval - min(32 s, interval/3)──▶ nothing came: BYE to all (§10)
//! ```

use std::time::Duration;

use base::Instant;
use contract::LegCounters;
use sip::{Name, Request, Response};

use super::{Phase, Session};
use crate::Route;
use crate::b2b;
use crate::turn::{Turn, Wake};

/// When a busy session tries its refresh again.
const BUSY_RETRY: Duration = Duration::from_secs(5);

/// The timer of one side.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    /// Seconds; 0 = none.
    interval_s: u32,
    /// We refresh.
    refresher: bool,
    next: Option<Instant>,
}

impl Clock {
    pub(crate) const fn next(&self) -> Option<Instant> {
        self.next
    }

    pub(crate) const fn interval_s(&self) -> u32 {
        self.interval_s
    }

    pub(crate) const fn refresher(&self) -> bool {
        self.refresher
    }

    pub(crate) fn new(now: Instant, interval_s: u32, refresher: bool) -> Self {
        let mut clock = Clock { interval_s, refresher, next: None };
        clock.wind(now);
        clock
    }

    /// The session was refreshed now.
    pub(crate) fn wind(&mut self, now: Instant) {
        let interval = u64::from(self.interval_s);
        self.next = match (self.interval_s, self.refresher) {
            (0, _) => None,
            (_, true) => Some(now + Duration::from_secs(interval / 2)),
            (_, false) => Some(now + Duration::from_secs(interval - (interval / 3).min(32))),
        };
    }

    /// A busy or refused refresh is tried again.
    pub(super) fn postpone(&mut self, now: Instant) {
        if self.interval_s != 0 {
            self.next = Some(now + BUSY_RETRY);
        }
    }
}

/// `1800;refresher=uac`
fn session_expires(headers: &sip::Headers) -> Option<(u32, Option<bool>)> {
    let text = headers.text(&Name::SessionExpires)?;
    let mut parts = text.split(';').map(str::trim);
    let seconds = parts.next()?.parse().ok()?;
    let refresher_uac = parts.find_map(|p| {
        let (name, value) = p.split_once('=')?;
        name.trim().eq_ignore_ascii_case("refresher").then(|| value.trim().eq_ignore_ascii_case("uac"))
    });
    Some((seconds, refresher_uac))
}

/// An INVITE or UPDATE comes: its interval, or the 422 that it gets (RFC 4028 §9).
pub(crate) fn accept(turn: &Turn<'_>, request: &Request, route: &Route) -> Result<Clock, Box<Response>> {
    if matches!(route, Route::Lane(_)) {
        return Ok(Clock::default());
    }
    let limits = &turn.config().participating;
    let least = limits.session_expires_min_s;
    let interval_s = match session_expires(&request.headers) {
        Some((seconds, _)) if seconds < least && request.headers.has_token(&Name::Supported, "timer") => {
            let mut response = b2b::refuse(turn.config(), request, 422);
            response.headers.push(Name::MinSe, least.to_string());
            return Err(Box::new(response));
        }
        Some((seconds, _)) => seconds.clamp(least, limits.session_expires_s.max(least)),
        None => limits.session_expires_s,
    };
    Ok(Clock { interval_s, refresher: false, next: None })
}

/// Puts the agreed interval into the 2xx and starts the clock (RFC 4028 §9, table 2).
pub(crate) fn answer(now: Instant, clock: &mut Clock, request: &Request, response: &mut Response) {
    response.headers.set(Name::Supported, "timer");
    if clock.interval_s == 0 {
        return;
    }
    let supported = request.headers.has_token(&Name::Supported, "timer");
    let wants_uac = session_expires(&request.headers).and_then(|(_, uac)| uac).unwrap_or(true);
    clock.refresher = !(supported && wants_uac);
    let who = if clock.refresher { "uas" } else { "uac" };
    response.headers.set(Name::SessionExpires, format!("{};refresher={who}", clock.interval_s));
    if supported && !clock.refresher {
        response.headers.push(Name::Require, "timer");
    }
    clock.wind(now);
}

/// Asks for our interval in an INVITE or UPDATE (RFC 4028 §7.1).
pub(crate) fn propose(turn: &Turn<'_>, request: &mut Request, route: &Route) -> Clock {
    request.headers.set(Name::Supported, "timer");
    if matches!(route, Route::Lane(_)) {
        return Clock::default();
    }
    let limits = &turn.config().participating;
    request.headers.set(Name::SessionExpires, limits.session_expires_s.to_string());
    request.headers.set(Name::MinSe, limits.session_expires_min_s.to_string());
    Clock { interval_s: limits.session_expires_s, refresher: true, next: None }
}

/// What the 2xx to our INVITE or UPDATE says (RFC 4028 §7.2): without Session-Expires there is no timer.
pub(crate) fn agreed(now: Instant, proposed: Clock, response: &Response) -> Clock {
    if proposed.interval_s == 0 {
        return Clock::default();
    }
    match session_expires(&response.headers) {
        Some((interval_s, uac)) => Clock::new(now, interval_s.max(90), uac.unwrap_or(true)),
        None => Clock::default(),
    }
}

impl Session {
    /// Sets the one timer to what comes next.
    pub(super) fn arm(&mut self, turn: &mut Turn<'_>) {
        turn.unwake(&mut self.timer);
        if let Some(at) = self.deadline() {
            self.timer = turn.wake_at(at, Wake::Session(self.id));
        }
    }

    /// Does whatever is due.
    pub(super) fn tick(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.mono;
        if self.setup.as_ref().is_some_and(|s| s.deadline() <= now) {
            self.ring_out(turn);
            return;
        }
        if self.setup.as_ref().and_then(|s| s.reliable.next()).is_some_and(|at| at <= now) {
            self.reliable_tick(turn);
        }
        if self.calling_until.is_some_and(|at| at <= now) {
            self.calling_until = None;
            self.cancel_calling(turn, None);
        }
        if self.exchange.as_ref().and_then(super::Exchange::deadline).is_some_and(|at| at <= now) {
            self.exchange_overdue(turn);
        }
        if self.phase != Phase::Active {
            return;
        }
        if self.lingering.as_ref().is_some_and(|lingering| lingering.until() <= now) {
            return self.lingered(turn);
        }
        if self.referrals.next().is_some_and(|at| at <= now) {
            self.referrals_tick(turn);
        }
        if self.repair.as_ref().is_some_and(|r| r.next() <= now) {
            self.repair_tick(turn);
        }
        for at in 0..self.sides.len() {
            if self.phase == Phase::Active
                && self.side(at).and_then(|s| s.clock.next).is_some_and(|t| t <= now)
            {
                self.clock_rang(turn, at);
            }
        }
    }

    fn clock_rang(&mut self, turn: &mut Turn<'_>, at: usize) {
        let Some(side) = self.side_mut(at) else { return };
        if !side.clock.refresher {
            // RFC 4028 §10: the peer that should have refreshed is gone.
            self.end_all(turn, None, "SIP;cause=408;text=\"Session timer\"");
            return;
        }
        side.clock.postpone(turn.now.mono);
        if self.exchange.is_none() {
            self.refresh(turn, at);
        }
    }

    /// MSRP sessions end when nothing was said for too long (CPM-FACTS §2.5 "idle timer"); calls do not.
    pub(super) fn counters(&mut self, turn: &mut Turn<'_>, counters: &[LegCounters]) {
        if self.anchor.as_mut().is_some_and(|anchor| anchor.keep(counters)) {
            self.save(turn);
        }
        let idle_ms = u64::from(turn.config().participating.idle_s) * 1000;
        let Some(anchor) = &self.anchor else { return };
        // Who is still reading is not idle, however long it was silent.
        let is_read = self.lingering.is_some() || !self.behind.is_empty();
        if idle_ms == 0 || self.phase != Phase::Active || self.repair.is_some() || is_read {
            return;
        }
        let msrp_only = anchor.legs().all(|l| matches!(l.kind, Some(contract::leg::Kind::Msrp(_))));
        let mine: Vec<_> =
            counters.iter().filter(|c| c.leg.as_ref().is_some_and(|k| k.context == anchor.id())).collect();
        let all_idle = mine.len() == anchor.legs().count() && mine.iter().all(|c| c.idle_ms >= idle_ms);
        if msrp_only && !mine.is_empty() && all_idle {
            self.end_all(turn, None, "SIP;cause=200;text=\"Idle\"");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_rings_at_half_for_the_refresher_and_late_for_the_other() {
        let now = Instant::from_millis(1000);
        let at = |s: u64| Some(now + Duration::from_secs(s));
        assert_eq!(Clock::new(now, 1800, true).next(), at(900));
        assert_eq!(Clock::new(now, 1800, false).next(), at(1768));
        // RFC 4028 §10: a third of a short interval.
        assert_eq!(Clock::new(now, 90, false).next(), at(60));
        assert_eq!(Clock::new(now, 0, true).next(), None);
    }
}
