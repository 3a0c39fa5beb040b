//! Subscriptions and REFERs outside of a session, between a user and a focus: a pair of dialogs, each request
//! passed from one to the other (REQ-IF-CONV-02, -03; RFC 6665, RFC 3515).
//!
//! ```text
//!   SUBSCRIBE/REFER ──▶ Opening ──2xx──▶ Open ── NOTIFY, SUBSCRIBE both ways ──┐
//!                          │ failure       ▲──────────────────────────────────┘
//!                          ▼               │ NOTIFY "terminated", 481, or silence beyond its time
//!                        gone ◀────────────┘
//! ```

use std::time::Duration;

use base::{Map, Private, TimerId, UnixTime, map};
use sip::typed::{Expires, SubscriptionState, Substate};
use sip::{Dialog, Method, Name, Request, Response};

use super::leg::{self, Caller, Target};
use crate::b2b;
use crate::methods::within::Peer;
use crate::records::{Columns, Record, RelayRow, Row};
use crate::turn::{Desk, Owner, Turn, Wake};
use crate::{ClientTx, Key, LaneKey, Route, ServerTx, Table, UserId};

/// An implicit subscription of a REFER that says no time (RFC 3515 §2.4.4 leaves it to the notifier).
const REFER_LIFE_S: u32 = 600;

/// A pair outlives its expiry by this much: the last NOTIFY is under way.
const GRACE: Duration = Duration::from_secs(40);

/// Requests of one pair that may be under way at once.
const PASSING_MAX: usize = 8;

#[derive(Debug)]
struct End {
    tag: String,
    dialog: Option<Dialog>,
    route: Route,
    /// Our Contact's user towards it, and its parameters.
    contact_user: String,
    contact_features: String,
}

#[derive(Debug)]
struct Passing {
    from: usize,
    server: ServerTx,
    request: Request,
    client: ClientTx,
    sent: Request,
}

/// One pair; end 0 sent the first request.
#[derive(Debug)]
struct Pair {
    user: UserId,
    ends: [End; 2],
    passing: Vec<Passing>,
    expires: UnixTime,
    timer: Option<TimerId>,
    version: u64,
}

/// The pairs of one lane.
#[derive(Debug)]
pub(crate) struct Relays {
    table: Map<u64, Pair>,
    tags: Map<String, u64>,
    users: Map<UserId, usize>,
    max: usize,
    per_user_max: usize,
}

/// A request that opens a pair.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) tx: ServerTx,
    pub(crate) request: Request,
    pub(crate) route: Route,
    pub(crate) user: UserId,
    pub(crate) caller: Caller,
    pub(crate) target: Target,
}

impl Relays {
    pub(crate) fn new(desk: &Desk) -> Self {
        let limits = &desk.config.limits;
        Relays {
            table: map(desk.seed),
            tags: map(desk.seed),
            users: map(desk.seed),
            max: limits.relays_max,
            per_user_max: limits.relays_per_user_max,
        }
    }

    /// True when the tag is one of ours.
    pub(crate) fn has(&self, tag: &str) -> bool {
        self.tags.contains_key(tag)
    }

    /// With whom the dialog of that tag is held.
    pub(crate) fn peer(&self, tag: &str) -> Option<Peer<'_>> {
        let pair = self.table.get(self.tags.get(tag)?)?;
        let end = pair.ends.iter().find(|end| end.tag == tag)?;
        Some(Peer { user: Some(&pair.user), route: &end.route })
    }

    /// How many pairs there are.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Passes the first request on.
    pub(crate) fn open(&mut self, turn: &mut Turn<'_>, opening: Opening) {
        let Opening { tx, request, route, user, caller, target } = opening;
        if self.table.len() >= self.max {
            turn.respond(tx, b2b::refuse(turn.config(), &request, 503));
            return;
        }
        if self.users.get(&user).copied().unwrap_or(0) >= self.per_user_max {
            // CPM-FACTS §2.7 "busy / session limit".
            turn.respond(tx, b2b::refuse(turn.config(), &request, 486));
            return;
        }
        let id = turn.desk.serial();
        let lane = LaneKey::of_user(&user);
        let (mut next, tag) = leg::request(turn, lane, request.method.clone(), &request, &caller, &target);
        if let (Method::Refer, Ok(cseq)) = (&request.method, request.cseq()) {
            // RFC 3515 §2.4.6: the subscription is named by it, on both sides of us.
            next.headers.set(Name::CSeq, cseq.to_string());
        }
        let client = turn.send(Owner::Relay(id), target.route.clone(), next.clone());
        let own = turn.token();
        let life = life_of(&request);
        let expires = turn.now.wall + life;
        let end = |tag: String, route| End {
            contact_user: tag.clone(),
            tag,
            dialog: None,
            route,
            contact_features: String::new(),
        };
        let ends = [end(own, route), end(tag, target.route)];
        for end in &ends {
            self.tags.insert(end.tag.clone(), id);
        }
        let timer = turn.wake_in(life + GRACE, Wake::Relay(id));
        let passing = vec![Passing { from: 0, server: tx, request, client, sent: next }];
        *self.users.entry(user.clone()).or_default() += 1;
        self.table.insert(id, Pair { user, ends, passing, expires, timer, version: 0 });
    }

    /// A request inside one of the dialogs.
    pub(crate) fn request(&mut self, turn: &mut Turn<'_>, tag: &str, tx: ServerTx, request: Request) {
        let Some(id) = self.tags.get(tag).copied() else {
            turn.respond(tx, request.respond(481));
            return;
        };
        let Some(pair) = self.table.get_mut(&id) else { return };
        let from = usize::from(pair.ends.first().is_some_and(|end| end.tag != tag));
        let known = matches!(request.method, Method::Notify | Method::Subscribe | Method::Refer);
        let accepted = pair.ends.get_mut(from).and_then(|e| e.dialog.as_mut()).map(|d| d.accept(&request));
        let code = match accepted {
            _ if !known => Some(405),
            None => Some(481),
            Some(Err(fault)) => Some(fault.code()),
            Some(Ok(())) if pair.passing.len() >= PASSING_MAX => Some(503),
            Some(Ok(())) => None,
        };
        if let Some(code) = code {
            turn.respond(tx, b2b::refuse(turn.config(), &request, code));
            return;
        }
        pair.pass(turn, id, from, tx, request);
        pair.save(turn, id);
    }

    /// The other end answered.
    pub(crate) fn answered(&mut self, turn: &mut Turn<'_>, id: u64, tx: ClientTx, response: Response) {
        if response.code < 200 {
            return;
        }
        let Some(pair) = self.table.get_mut(&id) else { return };
        let Some(at) = pair.passing.iter().position(|p| p.client == tx) else { return };
        let passed = pair.passing.remove(at);
        let over = pair.settle(turn, &passed, &response);
        if over {
            self.close(turn, id);
        } else if let Some(pair) = self.table.get_mut(&id) {
            pair.extend(turn, id, &passed.request, &response);
            pair.save(turn, id);
        }
    }

    /// The other end did not.
    pub(crate) fn silent(&mut self, turn: &mut Turn<'_>, id: u64, tx: ClientTx) {
        let Some(pair) = self.table.get_mut(&id) else { return };
        let Some(at) = pair.passing.iter().position(|p| p.client == tx) else { return };
        let passed = pair.passing.remove(at);
        turn.respond(passed.server, passed.request.respond(408));
        self.close(turn, id);
    }

    /// Its time is over.
    pub(crate) fn wake(&mut self, turn: &mut Turn<'_>, id: u64) {
        if let Some(pair) = self.table.get_mut(&id) {
            pair.timer = None;
        }
        self.close(turn, id);
    }

    fn close(&mut self, turn: &mut Turn<'_>, id: u64) {
        let Some(mut pair) = self.table.remove(&id) else { return };
        if let Some(count) = self.users.get_mut(&pair.user) {
            *count -= 1;
            if *count == 0 {
                self.users.remove(&pair.user);
            }
        }
        turn.unwake(&mut pair.timer);
        for end in &pair.ends {
            self.tags.remove(&end.tag);
        }
        for passed in pair.passing {
            turn.desk.forget(passed.client);
            turn.respond(passed.server, passed.request.respond(480));
        }
        if pair.version > 0 {
            turn.remove_row(key(&pair.ends));
        }
    }

    /// Back from the store.
    pub(crate) fn restore(&mut self, turn: &mut Turn<'_>, version: u64, row: RelayRow) {
        let id = turn.desk.serial();
        let left = row.expires.since(turn.now.wall) + GRACE;
        let end = |end: crate::records::RelayEnd| End {
            tag: end.tag,
            dialog: Some(end.dialog),
            route: end.route,
            contact_user: end.contact_user,
            contact_features: end.contact_features,
        };
        let ends = [end(row.first), end(row.second)];
        for end in &ends {
            self.tags.insert(end.tag.clone(), id);
        }
        let timer = turn.wake_in(left, Wake::Relay(id));
        *self.users.entry(row.user.clone()).or_default() += 1;
        let pair = Pair { user: row.user, ends, passing: Vec::new(), expires: row.expires, timer, version };
        self.table.insert(id, pair);
    }
}

impl Pair {
    fn pass(&mut self, turn: &mut Turn<'_>, id: u64, from: usize, tx: ServerTx, request: Request) {
        let lane = LaneKey::of_user(&self.user);
        let Some(end) = self.ends.get_mut(1 - from) else { return };
        let Some(dialog) = end.dialog.as_mut() else {
            // A NOTIFY that overtakes the 2xx (RFC 6665 §4.1.2.4): its sender tries again.
            turn.respond(tx, b2b::refuse(turn.config(), &request, 503));
            return;
        };
        let mut next = dialog.request(request.method.clone());
        b2b::pass(&request, &mut next);
        let contact = b2b::contact(turn.config(), lane, &end.route, &end.contact_user, &end.contact_features);
        next.headers.set(Name::Contact, contact);
        let client = turn.send(Owner::Relay(id), end.route.clone(), next.clone());
        self.passing.push(Passing { from, server: tx, request, client, sent: next });
    }

    /// Answers the asker; true when the pair is over.
    fn settle(&mut self, turn: &mut Turn<'_>, passed: &Passing, response: &Response) -> bool {
        let lane = LaneKey::of_user(&self.user);
        let mut answer = b2b::relay(&passed.request, response);
        let opened = (200..300).contains(&response.code);
        let opening = self.ends.iter().any(|end| end.dialog.is_none());
        if opened {
            self.show(response, passed.from);
            if let Some(end) = self.ends.get(passed.from) {
                answer.set_to_tag(&end.tag);
                let contact =
                    b2b::contact(turn.config(), lane, &end.route, &end.contact_user, &end.contact_features);
                answer.headers.set(Name::Contact, contact);
            }
        }
        if opened && opening {
            let far = Dialog::uac(&passed.sent, response).ok();
            let near = Dialog::uas(&passed.request, &answer).ok();
            for (end, dialog) in self.ends.iter_mut().zip([near, far]) {
                if let Some(dialog) = &dialog {
                    end.route = leg::route_of(turn.config(), &end.route, dialog);
                }
                end.dialog = dialog;
            }
        }
        turn.respond(passed.server, answer);
        let ended = passed.request.method == Method::Notify && is_terminated(&passed.request);
        // RFC 4488: a REFER without a subscription leaves nothing behind.
        let no_subscription = response.headers.text(&Name::ReferSub).is_some_and(|v| v.trim() == "false");
        let incomplete = opening && self.ends.iter().any(|end| end.dialog.is_none());
        ended || no_subscription || incomplete || matches!(response.code, 408 | 481) || (!opened && opening)
    }

    /// What the asker sees of us is what stands behind us.
    fn show(&mut self, response: &Response, from: usize) {
        let shown = response.headers.typed::<sip::typed::Contact>().ok().flatten();
        let (Some(shown), Some(end)) = (shown, self.ends.get_mut(from)) else { return };
        end.contact_features = b2b::contact_features(&shown);
        if let Some(focus) = shown.has_feature("isfocus").then(|| shown.uri.user.clone()).flatten() {
            end.contact_user = focus;
        }
    }

    /// A refreshed subscription lives on.
    fn extend(&mut self, turn: &mut Turn<'_>, id: u64, request: &Request, response: &Response) {
        if request.method != Method::Subscribe || !(200..300).contains(&response.code) {
            return;
        }
        let granted = response.headers.typed::<Expires>().ok().flatten().map(|e| e.0);
        let life = granted.map_or_else(|| life_of(request), |s| Duration::from_secs(s.into()));
        self.expires = turn.now.wall + life;
        turn.unwake(&mut self.timer);
        self.timer = turn.wake_in(life + GRACE, Wake::Relay(id));
    }

    fn save(&mut self, turn: &mut Turn<'_>, _id: u64) {
        let row = |end: &End| {
            Some(crate::records::RelayEnd {
                tag: end.tag.clone(),
                dialog: end.dialog.clone()?,
                route: end.route.clone(),
                contact_user: end.contact_user.clone(),
                contact_features: end.contact_features.clone(),
            })
        };
        let [first, second] = &self.ends;
        let (Some(first), Some(second)) = (row(first), row(second)) else { return };
        self.version += 1;
        turn.put_row(Row {
            key: key(&self.ends),
            lane: LaneKey::of_user(&self.user),
            version: self.version,
            columns: Columns { owner: Private::new(self.user.as_str().to_owned()), ..Columns::default() },
            record: Record::Relay(Box::new(RelayRow {
                user: self.user.clone(),
                first,
                second,
                expires: self.expires,
            })),
        });
    }
}

fn key(ends: &[End; 2]) -> Key {
    let [first, _] = ends;
    Key::new(Table::Relay, first.tag.clone())
}

fn life_of(request: &Request) -> Duration {
    let asked = request.headers.typed::<Expires>().ok().flatten().map(|e| e.0);
    let default = if request.method == Method::Refer { REFER_LIFE_S } else { 3600 };
    Duration::from_secs(asked.unwrap_or(default).min(86_400).into())
}

fn is_terminated(notify: &Request) -> bool {
    let state = notify.headers.typed::<SubscriptionState>().ok().flatten();
    state.is_some_and(|s| s.state == Substate::Terminated)
}
