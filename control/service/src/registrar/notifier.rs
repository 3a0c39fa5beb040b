//! The reg event of those who register here, and what they publish of their presence (`publications`), for their own
//! devices and for neighbours whom we trust (RFC 3680, RFC 3856, RFC 6665 §4.2).
//!
//! ```text
//!   SUBSCRIBE ──406 403 423 503──▶ ·
//!       │ 200, NOTIFY with everything
//!       ▼
//!     Active ──a contact comes, goes, is refreshed──▶ NOTIFY with everything, and with what went
//!       │  ▲ SUBSCRIBE in its dialog: 200, NOTIFY with everything
//!       │  └────────┘
//!       │ Expires: 0, time over (timeout)     NOTIFY refused, unanswered
//!       ▼                                       │
//!   NOTIFY terminated ──▶ gone ◀────────────────┘
//! ```
//!
//! One NOTIFY at a time; what happens meanwhile is in the next one. Nothing is kept over a restart: the refresh gets 481, and
//! the subscriber comes again (RFC 6665 §4.1.2.2).

use std::time::Duration;

use base::{Map, TimerId, UnixTime, map};
use bytes::Bytes;
use cpm::reginfo::{self, Contact, RegInfo, Registration, State};
use sip::typed::{Event, Expires, SubscriptionState, Value as _};
use sip::{Dialog, Method, Name, NameAddr, Request, Response};

use super::bindings::{Bindings, Bound};
use super::publications::{self, Publications};
use crate::b2b;
use crate::methods::within::Peer;
use crate::turn::{Desk, Owner, Turn, Wake};
use crate::{ClientTx, LaneKey, Route, ServerTx, UserId};

/// RFC 3680 §4.2: what is granted when nothing is asked, seconds.
const DEFAULT_S: u32 = 3761;

/// What is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Package {
    /// Registrations.
    Reg,
    /// What was published.
    Presence,
}

impl Package {
    /// The one of that name.
    pub(crate) fn of(name: &str) -> Option<Package> {
        [Package::Reg, Package::Presence].into_iter().find(|package| package.name() == name)
    }

    const fn name(self) -> &'static str {
        match self {
            Package::Reg => reginfo::EVENT,
            Package::Presence => publications::EVENT,
        }
    }

    const fn media_type(self) -> &'static str {
        match self {
            Package::Reg => reginfo::MEDIA_TYPE,
            Package::Presence => publications::MEDIA_TYPE,
        }
    }
}

#[derive(Debug)]
struct Subscription {
    package: Package,
    user: UserId,
    /// Who is told; a neighbour has none.
    subscriber: Option<UserId>,
    tag: String,
    dialog: Dialog,
    route: Route,
    event_id: Option<String>,
    expires: UnixTime,
    /// Of the next document.
    version: u32,
    pending: Option<ClientTx>,
    /// Something has happened since the last NOTIFY, and these went.
    dirty: bool,
    gone: Vec<Contact>,
    timer: Option<TimerId>,
}

/// Those of one lane.
#[derive(Debug)]
pub(crate) struct Notifier {
    table: Map<u64, Subscription>,
    tags: Map<String, u64>,
    users: Map<UserId, Vec<u64>>,
    published: Publications,
    max: usize,
    per_user_max: usize,
}

/// A SUBSCRIBE outside of a dialog, once its sender may.
pub(crate) struct Asking {
    pub(crate) tx: ServerTx,
    pub(crate) request: Request,
    pub(crate) route: Route,
    pub(crate) user: UserId,
    pub(crate) subscriber: Option<UserId>,
    pub(crate) package: Package,
}

impl Notifier {
    pub(crate) fn new(desk: &Desk) -> Self {
        let limits = &desk.config.limits;
        Notifier {
            table: map(desk.seed),
            tags: map(desk.seed),
            users: map(desk.seed),
            published: Publications::new(desk),
            max: limits.reg_events_max,
            per_user_max: limits.reg_events_per_user_max,
        }
    }

    /// True when the tag is one of ours.
    pub(crate) fn has(&self, tag: &str) -> bool {
        self.tags.contains_key(tag)
    }

    /// With whom the dialog of that tag is held.
    pub(crate) fn peer(&self, tag: &str) -> Option<Peer<'_>> {
        let it = self.table.get(self.tags.get(tag)?)?;
        Some(Peer { user: it.subscriber.as_ref(), route: &it.route })
    }

    /// A new subscription, or the refusal.
    pub(crate) fn subscribe(&mut self, turn: &mut Turn<'_>, bindings: &Bindings, asking: Asking) {
        let Asking { tx, request, route, user, subscriber, package } = asking;
        let expires_s = match wish(turn, &request, package) {
            Ok(expires_s) => expires_s,
            Err(response) => return turn.respond(tx, *response),
        };
        let of_user = self.users.get(&user).map_or(0, Vec::len);
        if self.table.len() >= self.max || of_user >= self.per_user_max {
            return turn.respond(tx, b2b::refuse(turn.config(), &request, 503));
        }
        let tag = turn.token();
        let response = granted(turn, &request, &user, &route, &tag, expires_s);
        let Ok(dialog) = Dialog::uas(&request, &response) else {
            return turn.respond(tx, b2b::refuse(turn.config(), &request, 400));
        };
        turn.respond(tx, response);
        let id = turn.desk.serial();
        let event_id =
            request.headers.typed::<Event>().ok().flatten().and_then(|e| e.id().map(str::to_owned));
        let life = Duration::from_secs(expires_s.into());
        let it = Subscription {
            package,
            user: user.clone(),
            subscriber,
            tag: tag.clone(),
            dialog,
            route,
            event_id,
            expires: turn.now.wall + life,
            version: 0,
            pending: None,
            dirty: false,
            gone: Vec::new(),
            timer: turn.wake_in(life, Wake::Notifier(id)),
        };
        self.tags.insert(tag, id);
        self.users.entry(user).or_default().push(id);
        self.table.insert(id, it);
        // RFC 6665 §4.2.1.2: whatever it was, the state is told; a fetch is over with it (§4.4.3).
        self.tell(turn, bindings, id, (expires_s == 0).then_some("timeout"));
    }

    /// A request in one of the dialogs.
    pub(crate) fn request(
        &mut self,
        turn: &mut Turn<'_>,
        bindings: &Bindings,
        tag: &str,
        tx: ServerTx,
        request: &Request,
    ) {
        let id = self.tags.get(tag).copied();
        let found = id.and_then(|id| Some((id, self.table.get_mut(&id)?)));
        let Some((id, it)) = found else { return turn.respond(tx, request.respond(481)) };
        if request.method != Method::Subscribe {
            return turn.respond(tx, b2b::refuse(turn.config(), request, 405));
        }
        if let Err(fault) = it.dialog.accept(request) {
            return turn.respond(tx, request.respond(fault.code()));
        }
        let event = request.headers.typed::<Event>().ok().flatten();
        let named = event.map(|e| (e.id().map(str::to_owned), e.package));
        if named != Some((it.event_id.clone(), it.package.name().to_owned())) {
            return turn.respond(tx, request.respond(481));
        }
        let expires_s = match wish(turn, request, it.package) {
            Ok(expires_s) => expires_s,
            Err(response) => return turn.respond(tx, *response),
        };
        let response = granted(turn, request, &it.user, &it.route, &it.tag, expires_s);
        turn.respond(tx, response);
        let life = Duration::from_secs(expires_s.into());
        it.expires = turn.now.wall + life;
        turn.unwake(&mut it.timer);
        it.timer = turn.wake_in(life, Wake::Notifier(id));
        self.tell(turn, bindings, id, (expires_s == 0).then_some("timeout"));
    }

    /// What has happened in this turn is told to those who want it.
    pub(crate) fn changed(&mut self, turn: &mut Turn<'_>, bindings: &mut Bindings) {
        let changes = bindings.take_changed();
        let mut due = Vec::new();
        for (user, gone) in changes {
            for id in self.users.get(&user).into_iter().flatten() {
                if let Some(it) = self.table.get_mut(id).filter(|it| it.package == Package::Reg) {
                    it.dirty = true;
                    // As many as a user may have: who reads slowly hears of the latest.
                    if it.gone.len() >= turn.config().limits.bindings_per_user_max && gone.is_some() {
                        it.gone.remove(0);
                    }
                    it.gone.extend(gone.clone());
                    due.push(*id);
                }
            }
        }
        due.dedup();
        for id in due {
            if self.table.get(&id).is_some_and(|it| it.dirty) {
                self.tell(turn, bindings, id, None);
            }
        }
    }

    /// How many event states are published.
    pub(crate) fn publications(&self) -> usize {
        self.published.len()
    }

    /// A user publishes; who watches is told when that changes what is known.
    pub(crate) fn publish(
        &mut self,
        turn: &mut Turn<'_>,
        bindings: &Bindings,
        user: &UserId,
        tx: ServerTx,
        request: &Request,
    ) {
        if self.published.publish(turn, user, tx, request) {
            self.tell_watchers(turn, bindings, user);
        }
    }

    /// The time of something published may be over.
    pub(crate) fn wake_publication(&mut self, turn: &mut Turn<'_>, bindings: &Bindings, user: &UserId) {
        if self.published.wake(turn, user) {
            self.tell_watchers(turn, bindings, user);
        }
    }

    fn tell_watchers(&mut self, turn: &mut Turn<'_>, bindings: &Bindings, user: &UserId) {
        for id in self.users.get(user).cloned().unwrap_or_default() {
            if self.table.get(&id).is_some_and(|it| it.package == Package::Presence) {
                self.tell(turn, bindings, id, None);
            }
        }
    }

    /// A NOTIFY was answered.
    pub(crate) fn answered(
        &mut self,
        turn: &mut Turn<'_>,
        bindings: &Bindings,
        id: u64,
        tx: ClientTx,
        response: &Response,
    ) {
        let Some(it) = self.table.get_mut(&id).filter(|it| it.pending == Some(tx)) else { return };
        match response.code {
            ..200 => {}
            200..300 => {
                it.pending = None;
                if it.dirty {
                    self.tell(turn, bindings, id, None);
                }
            }
            // RFC 6665 §4.2.2: it is over.
            _ => self.drop(turn, id),
        }
    }

    /// It was not.
    pub(crate) fn silent(&mut self, turn: &mut Turn<'_>, id: u64) {
        self.drop(turn, id);
    }

    /// Its time is over.
    pub(crate) fn wake(&mut self, turn: &mut Turn<'_>, bindings: &Bindings, id: u64) {
        let Some(it) = self.table.get_mut(&id) else { return };
        it.timer = None;
        let left = it.expires.since(turn.now.wall);
        if left.is_zero() {
            return self.tell(turn, bindings, id, Some("timeout"));
        }
        // The wall clock was set back.
        it.timer = turn.wake_in(left, Wake::Notifier(id));
    }

    /// One NOTIFY: with `over` the last one.
    fn tell(&mut self, turn: &mut Turn<'_>, bindings: &Bindings, id: u64, over: Option<&str>) {
        let Some(it) = self.table.get_mut(&id) else { return };
        if it.pending.is_some() && over.is_none() {
            it.dirty = true;
            return;
        }
        let now = turn.now.wall;
        let gone = std::mem::take(&mut it.gone);
        let document: Option<Bytes> = match it.package {
            Package::Reg => Some(document(bindings, &it.user, it.version, gone, now).write().into()),
            // RFC 3856 §6.6.2: nothing is known, or it is not said any more.
            Package::Presence => self.published.state(&it.user, now).cloned(),
        };
        it.version = it.version.wrapping_add(1);
        it.dirty = false;
        let contact = b2b::contact(turn.config(), LaneKey::of_user(&it.user), &it.route, &it.tag, "");
        let state = match over {
            Some(reason) => SubscriptionState::terminated(reason),
            None => {
                SubscriptionState::active(u32::try_from(it.expires.since(now).as_secs()).unwrap_or(u32::MAX))
            }
        };
        let mut notify = it.dialog.request(Method::Notify);
        notify.headers.push(Name::Contact, contact);
        let mut event = Event::new(it.package.name());
        if let Some(event_id) = &it.event_id {
            event.params.set("id", Some(event_id));
        }
        notify.headers.add(&event);
        notify.headers.add(&state);
        if let Some(document) = document {
            notify.set_body(it.package.media_type(), document);
        }
        let (route, over) = (it.route.clone(), over.is_some());
        let owner = if over { Owner::Nobody } else { Owner::Notifier(id) };
        let pending = turn.send(owner, route, notify);
        if over {
            return self.drop(turn, id);
        }
        it.pending = Some(pending);
    }

    fn drop(&mut self, turn: &mut Turn<'_>, id: u64) {
        let Some(mut it) = self.table.remove(&id) else { return };
        turn.unwake(&mut it.timer);
        self.tags.remove(&it.tag);
        if let Some(of_user) = self.users.get_mut(&it.user) {
            of_user.retain(|other| *other != id);
            if of_user.is_empty() {
                self.users.remove(&it.user);
            }
        }
        if let Some(pending) = it.pending {
            turn.desk.forget(pending);
        }
    }
}

/// How long, or the refusal.
fn wish(turn: &Turn<'_>, request: &Request, package: Package) -> Result<u32, Box<Response>> {
    let refuse = |code| Box::new(b2b::refuse(turn.config(), request, code));
    let accepts: Vec<&str> = request.headers.tokens(&Name::Accept).map(cpm::media_type::essence).collect();
    if !accepts.is_empty() && !cpm::media_type::accepted(&accepts, package.media_type()) {
        return Err(refuse(406));
    }
    let ims = &turn.config().ims;
    let asked = request.headers.typed::<Expires>().map_err(|_| refuse(400))?.map_or(DEFAULT_S, |e| e.0);
    if asked != 0 && asked < ims.reg_event_min_s {
        // RFC 6665 §4.2.1.1
        let mut brief = refuse(423);
        brief.headers.push(Name::MinExpires, ims.reg_event_min_s.to_string());
        return Err(brief);
    }
    Ok(asked.min(ims.reg_event_s))
}

fn granted(
    turn: &Turn<'_>,
    request: &Request,
    user: &UserId,
    route: &Route,
    tag: &str,
    expires_s: u32,
) -> Response {
    let mut response = request.respond(200);
    response.set_to_tag(tag);
    response.headers.set(Name::Expires, expires_s.to_string());
    let contact = b2b::contact(turn.config(), LaneKey::of_user(user), route, tag, "");
    response.headers.set(Name::Contact, contact);
    response
}

/// Everything, and what went (RFC 3680 §4.7.2, §5).
fn document(bindings: &Bindings, user: &UserId, version: u32, gone: Vec<Contact>, now: UnixTime) -> RegInfo {
    let mut contacts: Vec<Contact> =
        bindings.live(user, now).map(|bound| contact_of(bound, now, None)).collect();
    let state = match (contacts.is_empty(), gone.is_empty()) {
        (false, _) => State::Active,
        (true, false) => State::Terminated,
        (true, true) => State::Init,
    };
    contacts.extend(gone.into_iter().filter(|g| !contacts.iter().any(|c| c.id == g.id)).collect::<Vec<_>>());
    let registration = Registration { aor: user.as_str().to_owned(), id: "a".to_owned(), state, contacts };
    RegInfo { version, full: true, registrations: vec![registration] }
}

/// A binding, there or gone for that reason.
pub(super) fn contact_of(bound: &Bound, now: UnixTime, gone: Option<&str>) -> Contact {
    let binding = &bound.binding;
    let mut params = Vec::new();
    if let Some(instance) = &binding.instance {
        params.push(("+sip.instance".to_owned(), format!("\"{}\"", instance.expose())));
    }
    let features = NameAddr::parse(format!("<sip:x>{}", binding.features).as_bytes()).map(|f| f.params);
    let features = features.unwrap_or_default();
    params.extend(features.iter().map(|(n, v)| (n.to_owned(), v.unwrap_or_default().to_owned())));
    let left = u32::try_from(binding.expires.since(now).as_secs()).unwrap_or(u32::MAX);
    Contact {
        id: bound.number().to_string(),
        active: gone.is_none(),
        event: gone.unwrap_or("registered").to_owned(),
        expires_s: gone.is_none().then_some(left),
        uri: binding.contact.expose().clone(),
        params,
        pub_gruu: bound.gruu().map(|gruu| gruu.to_string()),
    }
}
