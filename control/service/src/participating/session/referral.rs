//! REFER between two users inside their session, and the subscription that it implies (RFC 3515, RFC 4488, RFC 6665): a
//! pair of subscriptions, one in each dialog. Both name themselves by the CSeq of their own REFER (RFC 3515 §2.4.6), so
//! the `id` of each NOTIFY is written anew.
//!
//! ```text
//!   REFER ──400 403 486──▶ ·
//!     │ passed on
//!     ▼
//!   Open ── NOTIFY ──▶ passed on, with the asker's id ──┐      SUBSCRIBE (refresh, end) the other way
//!     │ ▲───────────────────────────────────────────────┘
//!     │ refused, 2xx with Refer-Sub: false, NOTIFY "terminated", 481 to a NOTIFY ──▶ gone
//!     │ the session ends, or nobody has said the last word in time ──NOTIFY "terminated" of ours──▶ gone
//! ```
//!
//! They have a row of their own, so that a control that starts again passes their NOTIFYs on, and ends those whose time
//! is over.

use std::time::Duration;

use base::{Instant, Private, UnixTime};
use sip::typed::{Event, ReferTo, ReferredBy, SubscriptionState, Substate};
use sip::{Method, Name, NameAddr, Request, Response};

use super::{Session, UPSTREAM};
use crate::lane_key::user_of;
use crate::records::{Columns, Record, ReferralRow, ReferralsRow, Row};
use crate::turn::{Owner, Turn};
use crate::{Config, Key, Table, UserId};

/// RFC 3515 §2.4.4 leaves the time to the notifier: what we wait for the last word of the other side.
const LIFE: Duration = Duration::from_secs(600);
/// Open at once in one session.
const REFERRALS_MAX: usize = 8;

/// One implicit subscription.
#[derive(Clone, Debug)]
struct Referral {
    /// The side that asked.
    from: usize,
    /// CSeq of the REFER as it came, and as it went on.
    theirs: u32,
    ours: u32,
    until: Instant,
    expires: UnixTime,
}

/// Those of a session.
#[derive(Debug, Default)]
pub(super) struct Referrals {
    open: Vec<Referral>,
    version: u64,
}

impl Referrals {
    pub(super) fn next(&self) -> Option<Instant> {
        self.open.iter().map(|r| r.until).min()
    }
}

/// How a request of such a subscription is to be passed.
pub(super) enum Passage {
    /// With this value of Event.
    With(Option<Event>),
    /// Not at all: the SIP status.
    Refused(u16),
}

impl Session {
    /// A REFER is about to be passed on; the error is the SIP status.
    pub(super) fn refers(&self, config: &Config, at: usize, request: &mut Request) -> Result<(), u16> {
        // RFC 3515 §2.4.2: exactly one.
        if request.headers.must::<ReferTo>().is_err() {
            return Err(400);
        }
        if self.referrals.open.len() >= REFERRALS_MAX {
            return Err(486);
        }
        let asker = if self.originating == (at == UPSTREAM) { Some(&self.user) } else { None };
        match asker {
            Some(user) => vouch(config, user, request),
            // His own function has looked.
            None => Ok(()),
        }
    }

    /// It has gone on with that number.
    pub(super) fn referred(&mut self, turn: &mut Turn<'_>, at: usize, request: &Request, ours: u32) {
        let Ok(theirs) = request.cseq().map(|cseq| cseq.seq) else { return };
        let (until, expires) = (turn.now.mono + LIFE, turn.now.wall + LIFE);
        self.referrals.open.push(Referral { from: at, theirs, ours, until, expires });
    }

    /// The answer to it: a refusal, or one that says that there is no subscription, ends it (RFC 4488 §4).
    pub(super) fn refer_answered(&mut self, turn: &mut Turn<'_>, request: &Request, response: Response) {
        let none = response.headers.text(&Name::ReferSub).is_some_and(is_false);
        let theirs = request.cseq().map(|cseq| cseq.seq).unwrap_or_default();
        if none || response.code >= 300 {
            self.referrals.open.retain(|r| r.theirs != theirs);
        }
        self.save_referrals(turn);
    }

    /// A NOTIFY or SUBSCRIBE of that side: which subscription it is of.
    pub(super) fn of_referral(&mut self, turn: &mut Turn<'_>, at: usize, request: &Request) -> Passage {
        let Ok(mut event) = request.headers.must::<Event>() else { return Passage::Refused(400) };
        let notify = request.method == Method::Notify;
        if event.package != "refer" {
            return Passage::Refused(if notify { 481 } else { 489 });
        }
        let id = match event.id().map(str::parse::<u32>) {
            Some(Ok(id)) => Some(id),
            Some(Err(_)) => return Passage::Refused(481),
            None => None,
        };
        let found = self.referrals.open.iter().position(|r| {
            let known = if notify { r.ours } else { r.theirs };
            (r.from != at) == notify && id.is_none_or(|id| id == known)
        });
        let Some(referral) = found.and_then(|found| self.referrals.open.get(found)).cloned() else {
            return Passage::Refused(481);
        };
        let told = if notify { referral.theirs } else { referral.ours };
        event.params.set("id", Some(&told.to_string()));
        if notify && is_terminated(request) {
            self.referrals.open.retain(|r| r.theirs != referral.theirs || r.from != referral.from);
            self.save_referrals(turn);
        }
        Passage::With(Some(event))
    }

    /// The asker does not know it any more.
    pub(super) fn notify_refused(&mut self, turn: &mut Turn<'_>, request: &Request) {
        let id = request.headers.typed::<Event>().ok().flatten();
        let id = id.and_then(|event| event.id()?.parse::<u32>().ok());
        self.referrals.open.retain(|r| id.is_some_and(|id| r.ours != id));
        self.save_referrals(turn);
    }

    /// Those whose last word nobody has said in time.
    pub(super) fn referrals_tick(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.mono;
        let (over, open) = std::mem::take(&mut self.referrals.open).into_iter().partition(|r| r.until <= now);
        self.referrals.open = open;
        self.end_referrals(turn, over, "timeout");
        self.save_referrals(turn);
    }

    /// The session ends: nobody hears the rest of them.
    pub(super) fn drop_referrals(&mut self, turn: &mut Turn<'_>) {
        let open = std::mem::take(&mut self.referrals.open);
        self.end_referrals(turn, open, "noresource");
        self.save_referrals(turn);
    }

    /// The last NOTIFY is ours: what became of it is not known here (RFC 3515 §2.4.5).
    fn end_referrals(&mut self, turn: &mut Turn<'_>, over: Vec<Referral>, reason: &str) {
        for referral in over {
            let contact = self.contact_of(turn, referral.from);
            let Some(side) = self.side_mut(referral.from) else { continue };
            let Some(dialog) = &mut side.dialog else { continue };
            let mut notify = dialog.request(Method::Notify);
            let mut event = Event::new("refer");
            event.params.set("id", Some(&referral.theirs.to_string()));
            notify.headers.push(Name::Contact, contact);
            notify.headers.add(&event);
            notify.headers.add(&SubscriptionState::terminated(reason));
            notify.set_body("message/sipfrag;version=2.0", "SIP/2.0 100 Trying\r\n");
            turn.send(Owner::Nobody, side.route.clone(), notify);
        }
    }

    fn save_referrals(&mut self, turn: &mut Turn<'_>) {
        let key = referrals_row(self.id);
        if self.referrals.open.is_empty() {
            if std::mem::take(&mut self.referrals.version) > 0 {
                turn.remove_row(key);
            }
            return;
        }
        self.referrals.version += 1;
        let row = |r: &Referral| ReferralRow {
            tag: self.side(r.from).map(|s| s.tag.clone()).unwrap_or_default(),
            theirs: r.theirs,
            ours: r.ours,
            expires: r.expires,
        };
        let open = self.referrals.open.iter().map(row).collect();
        turn.put_row(Row {
            key,
            lane: self.lane(),
            version: self.referrals.version,
            columns: Columns { owner: Private::new(self.user.as_str().to_owned()), ..Columns::default() },
            record: Record::Referrals(Box::new(ReferralsRow { session: self.id, open })),
        });
    }

    /// Back from their row.
    pub(crate) fn take_referrals(&mut self, turn: &Turn<'_>, version: u64, row: ReferralsRow) {
        let known = |row: ReferralRow| {
            let from = self.sides.iter().position(|side| side.tag == row.tag)?;
            let until = turn.now.mono + row.expires.since(turn.now.wall);
            Some(Referral { from, theirs: row.theirs, ours: row.ours, until, expires: row.expires })
        };
        self.referrals = Referrals { open: row.open.into_iter().filter_map(known).collect(), version };
    }
}

/// The key of their row.
pub(crate) fn referrals_row(session: u64) -> Key {
    Key::new(Table::Relay, format!("refer-{session:016x}"))
}

/// RFC 3892 §2: a REFER says for whom it asks; a user says himself, or we do.
pub(crate) fn vouch(config: &Config, user: &UserId, request: &mut Request) -> Result<(), u16> {
    match request.headers.typed::<ReferredBy>() {
        Ok(Some(by)) if user_of(config, &by.uri).as_ref() == Some(user) => Ok(()),
        Ok(Some(_)) => Err(403),
        Ok(None) => {
            let uri = user.as_str().parse::<sip::Uri>().map_err(|_| 403_u16)?;
            request.headers.add(&ReferredBy(NameAddr::new(uri)));
            Ok(())
        }
        Err(_) => Err(400),
    }
}

fn is_false(text: &str) -> bool {
    text.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("false")
}

fn is_terminated(notify: &Request) -> bool {
    let state = notify.headers.typed::<SubscriptionState>().ok().flatten();
    state.is_some_and(|s| s.state == Substate::Terminated)
}
