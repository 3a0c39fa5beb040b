//! Subscriptions to the conference's events (RFC 6665, RFC 4575 §3; REQ-CF-24).
//!
//! ```text
//!   SUBSCRIBE ──not ours: 489 406 403 423──▶ ·
//!       │ 200, NOTIFY with everything at once
//!       ▼
//!     Active ──changes, gathered for notify_interval_ms──▶ NOTIFY with the changes
//!       │  ▲ SUBSCRIBE in its dialog: 200, NOTIFY with everything
//!       │  └────────┘
//!       │ Expires: 0, time over (timeout), member or conference gone (noresource), NOTIFY refused
//!       ▼
//!   NOTIFY terminated, gone
//! ```
//!
//! A subscription may share the dialog of a session (as RCS clients do) or have one of its own.

use std::time::Duration;

use base::{Instant, UnixTime};
use cpm::{conference, media_type};
use sip::typed::{Event, Expires};
use sip::{Dialog, Name, Request};

use super::call::CallId;
use super::conference::{Conference, Phase};
use super::roster::MemberId;
use crate::b2b;
use crate::turn::Turn;
use crate::{ClientTx, Route, ServerTx};

/// A subscription's number within its conference.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct SubscriptionId(pub(crate) u32);

/// The dialog that notifications go through.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Via {
    /// Its own.
    Own(Box<Dialog>),
    /// That of a session.
    Call(CallId),
}

/// One subscription.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) id: SubscriptionId,
    pub(crate) member: MemberId,
    pub(crate) via: Via,
    pub(crate) route: Route,
    /// The `id` of its Event header.
    pub(crate) event_id: Option<String>,
    pub(crate) expires: UnixTime,
    /// Version of the last document.
    pub(crate) version: u32,
    /// The roster's change that the last document went up to; `None` = send everything.
    pub(crate) seen: Option<u64>,
    /// A NOTIFY that has no answer.
    pub(crate) pending: Option<ClientTx>,
    /// Not before then.
    pub(crate) not_before: Instant,
    pub(crate) row_version: u64,
    pub(crate) dirty: bool,
}

impl Subscription {
    /// The tag by which requests find it, when it has a dialog of its own.
    pub(crate) fn own_tag(&self) -> Option<&str> {
        match &self.via {
            Via::Own(dialog) => Some(&dialog.id.local_tag),
            Via::Call(_) => None,
        }
    }
}

/// What a SUBSCRIBE asks for, once it is acceptable.
pub(crate) struct Wish {
    event_id: Option<String>,
    expires_s: u32,
}

impl Conference {
    /// Reads a SUBSCRIBE; an error is answered already.
    pub(crate) fn wish(&self, turn: &mut Turn<'_>, tx: ServerTx, request: &Request) -> Option<Wish> {
        let config = &turn.config().controlling;
        let event = request.headers.typed::<Event>().ok().flatten();
        let Some(event) = event.filter(|e| e.package.eq_ignore_ascii_case(conference::EVENT)) else {
            // RFC 6665 §4.2.1.4.
            let mut response = b2b::refuse(turn.config(), request, 489);
            response.headers.set(Name::AllowEvents, conference::EVENT);
            turn.respond(tx, response);
            return None;
        };
        let accepts: Vec<&str> = request.headers.tokens(&Name::Accept).collect();
        if !accepts.is_empty()
            && !media_type::accepted(
                &accepts.iter().map(|a| media_type::essence(a)).collect::<Vec<_>>(),
                media_type::CONFERENCE_INFO,
            )
        {
            turn.respond(tx, b2b::refuse(turn.config(), request, 406));
            return None;
        }
        let asked = request.headers.typed::<Expires>().ok().flatten().map(|e| e.0);
        let expires_s = asked.unwrap_or(config.subscription_default_s).min(config.subscription_max_s);
        if expires_s != 0 && expires_s < config.subscription_min_s {
            // RFC 6665 §4.2.1.1.
            let mut response = b2b::refuse(turn.config(), request, 423);
            response.headers.set(Name::MinExpires, config.subscription_min_s.to_string());
            turn.respond(tx, response);
            return None;
        }
        Some(Wish { event_id: event.id().map(str::to_owned), expires_s })
    }

    /// A SUBSCRIBE of a member: a new subscription, or the refresh of one.
    pub(crate) fn subscribe(
        &mut self,
        turn: &mut Turn<'_>,
        tx: ServerTx,
        request: &Request,
        route: Route,
        member: MemberId,
        within: Option<CallId>,
    ) {
        let Some(wish) = self.wish(turn, tx, request) else { return };
        let tag = request.to_tag();
        let known = self.subscriptions.values().find(|s| {
            let same_dialog = match (&s.via, within) {
                (Via::Call(call), Some(within)) => *call == within,
                (Via::Own(dialog), None) => tag.as_deref() == Some(dialog.id.local_tag.as_str()),
                _ => false,
            };
            same_dialog && s.event_id == wish.event_id
        });
        let known = known.map(|s| s.id);
        if known.is_none() {
            self.end_oldest_of(turn, member);
        }
        if known.is_none() && self.subscriptions.len() >= turn.config().controlling.subscriptions_max {
            let response = b2b::refuse(turn.config(), request, 503);
            return turn.respond(tx, response);
        }
        let own = match within {
            Some(call) => self.calls.get(&call).map(|c| c.tag.clone()).unwrap_or_default(),
            None => tag.unwrap_or_else(|| turn.token()),
        };
        let mut response = request.respond(200);
        response.set_to_tag(&own);
        response.headers.set(Name::Expires, wish.expires_s.to_string());
        response.headers.set(Name::Contact, self.contact(turn.config(), &route));
        let expires = turn.now.wall + Duration::from_secs(wish.expires_s.into());
        let id = match known {
            Some(id) => id,
            None => {
                let via = match within {
                    Some(call) => Via::Call(call),
                    None => match Dialog::uas(request, &response) {
                        Ok(dialog) => Via::Own(Box::new(dialog)),
                        Err(_) => return turn.respond(tx, b2b::refuse(turn.config(), request, 400)),
                    },
                };
                self.add_subscription(turn.now.mono, member, via, route, wish.event_id)
            }
        };
        turn.respond(tx, response);
        if let Some(subscription) = self.subscriptions.get_mut(&id) {
            subscription.expires = expires;
            subscription.seen = None;
            subscription.not_before = turn.now.mono;
            subscription.dirty = true;
        }
        if wish.expires_s == 0 {
            // RFC 6665 §4.4.3: the state once more, and the end.
            self.end_subscription(turn, id, "timeout");
        } else {
            self.notify_due(turn);
        }
    }

    /// CPM-FACTS §2.26: the table is not one member's to fill. Who subscribes once more than a member may has lost
    /// sight of the oldest one, which goes.
    fn end_oldest_of(&mut self, turn: &mut Turn<'_>, member: MemberId) {
        let max = turn.config().controlling.subscriptions_per_member_max;
        let own: Vec<SubscriptionId> =
            self.subscriptions.values().filter(|s| s.member == member).map(|s| s.id).collect();
        let surplus = (own.len() + 1).saturating_sub(max);
        for id in own.into_iter().take(surplus) {
            self.end_subscription(turn, id, "noresource");
        }
    }

    fn add_subscription(
        &mut self,
        now: Instant,
        member: MemberId,
        via: Via,
        route: Route,
        event_id: Option<String>,
    ) -> SubscriptionId {
        let id = SubscriptionId(self.subscriptions_next);
        self.subscriptions_next += 1;
        let subscription = Subscription {
            id,
            member,
            via,
            route,
            event_id,
            expires: UnixTime::default(),
            version: 0,
            seen: None,
            pending: None,
            not_before: now,
            row_version: 0,
            dirty: true,
        };
        self.subscriptions.insert(id, subscription);
        id
    }

    /// Subscriptions that a session carries end with it.
    pub(crate) fn end_subscriptions_of(&mut self, turn: &mut Turn<'_>, call: CallId) {
        self.end_those(turn, |s| s.via == Via::Call(call));
        self.referrals.retain(|r| r.via != Via::Call(call));
    }

    /// Who is off the roster hears no more of the conference.
    pub(crate) fn end_subscriptions_of_member(&mut self, turn: &mut Turn<'_>, member: MemberId) {
        self.end_those(turn, |s| s.member == member);
    }

    /// All of them: the conference ends or sleeps.
    pub(crate) fn end_subscriptions(&mut self, turn: &mut Turn<'_>, _for_good: bool) {
        self.end_those(turn, |_| true);
    }

    fn end_those(&mut self, turn: &mut Turn<'_>, which: impl Fn(&Subscription) -> bool) {
        let ids: Vec<SubscriptionId> =
            self.subscriptions.values().filter(|s| which(s)).map(|s| s.id).collect();
        for id in ids {
            self.end_subscription(turn, id, "noresource");
        }
    }

    /// When the next notification is due, or the next subscription ends.
    pub(crate) fn next_notify(&self, turn: &Turn<'_>) -> Option<Instant> {
        let now = turn.now;
        let due = self.subscriptions.values().filter(|s| self.is_behind(s)).map(|s| s.not_before);
        let over = self.subscriptions.values().map(|s| now.mono + s.expires.since(now.wall));
        due.chain(over).min()
    }

    /// There is something that a subscription has not been told, and nothing keeps it from being told.
    pub(crate) fn is_behind(&self, s: &Subscription) -> bool {
        s.pending.is_none() && s.seen != Some(self.roster.clock()) && self.phase != Phase::Gone
    }
}
