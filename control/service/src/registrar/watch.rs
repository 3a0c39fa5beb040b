//! We watch the registrations of users who register at an S-CSCF: its reg event (RFC 3680, RFC 6665 §4.1; TS 24.229
//! §5.7.1.1), begun by a third-party REGISTER.
//!
//! ```text
//!   third-party REGISTER ──▶ Asking ──2xx──▶ Watching ──half of its time is over, a version is missing──▶ SUBSCRIBE again
//!                              │ failure        │  ▲ NOTIFY: the user's devices are those that it says
//!                              ▼                │  └────────┘
//!                            gone ◀─────────────┘ NOTIFY "terminated", 481, silence; the user is gone
//! ```
//!
//! A NOTIFY may come before the 2xx (RFC 6665 §4.1.2.4). Nothing is kept over a restart: the devices are in their rows,
//! the S-CSCF's NOTIFY gets 481, and the next third-party REGISTER begins anew.

use std::time::Duration;

use base::{Map, TimerId, map};
use cpm::reginfo::{self, RegInfo, State};
use sip::typed::{ContentType, Event, Expires, SubscriptionState, Substate};
use sip::{Dialog, Method, Name, NameAddr, Request, Response, Uri};

use super::bindings::Bindings;
use super::third_party::{Scscf, device};
use crate::b2b;
use crate::lane_key::user_of;
use crate::methods::within::Peer;
use crate::turn::{Desk, Owner, Turn, Wake};
use crate::{ClientTx, LaneKey, ServerTx, UserId};

/// RFC 6665 §4.1.2.4: how long a 2xx without its NOTIFY, or a SUBSCRIBE without its 2xx, is waited for.
const TIMER_N: Duration = Duration::from_secs(32);

#[derive(Debug)]
struct Watch {
    user: UserId,
    scscf: Scscf,
    service: bool,
    tag: String,
    /// Our first SUBSCRIBE.
    first: Request,
    dialog: Option<Dialog>,
    pending: Option<ClientTx>,
    /// Of the last document.
    version: Option<u32>,
    timer: Option<TimerId>,
}

/// Those of one lane.
#[derive(Debug)]
pub(crate) struct Watches {
    table: Map<u64, Watch>,
    tags: Map<String, u64>,
    users: Map<UserId, u64>,
    max: usize,
}

impl Watches {
    pub(crate) fn new(desk: &Desk) -> Self {
        Watches {
            table: map(desk.seed),
            tags: map(desk.seed),
            users: map(desk.seed),
            max: desk.config.limits.reg_events_max,
        }
    }

    /// True when the tag is one of ours.
    pub(crate) fn has(&self, tag: &str) -> bool {
        self.tags.contains_key(tag)
    }

    /// With whom the dialog of that tag is held.
    pub(crate) fn peer(&self, tag: &str) -> Option<Peer<'_>> {
        let watch = self.table.get(self.tags.get(tag)?)?;
        Some(Peer { user: None, route: &watch.scscf.route })
    }

    /// The user has registered: he is watched, if he is not yet.
    pub(crate) fn begin(&mut self, turn: &mut Turn<'_>, user: &UserId, scscf: Scscf, service: bool) {
        if self.users.contains_key(user) || self.table.len() >= self.max {
            return;
        }
        let Ok(aor) = user.as_str().parse::<Uri>() else { return };
        let (id, tag) = (turn.desk.serial(), turn.token());
        let lane = LaneKey::of_user(user);
        let domain = turn.config().domain().to_owned();
        let own = Uri::sip("", &domain);
        let own = Uri { user: None, ..own };
        let mut first = Request::new(Method::Subscribe, aor.clone());
        first.headers.push(Name::MaxForwards, "70");
        first.headers.push(Name::Route, &scscf.path);
        first.headers.add(&sip::typed::From(NameAddr::new(own.clone()).with_tag(&tag)));
        first.headers.add(&sip::typed::To(NameAddr::new(aor)));
        first.headers.push(Name::CallId, format!("{}@{domain}", turn.token()));
        first.headers.push(Name::CSeq, "1 SUBSCRIBE");
        first.headers.push(Name::Contact, b2b::contact(turn.config(), lane, &scscf.route, &tag, ""));
        first.headers.push(Name::PAssertedIdentity, format!("<{own}>"));
        let first = asking(turn, first);
        let pending = turn.send(Owner::Watch(id), scscf.route.clone(), first.clone());
        let timer = turn.wake_in(TIMER_N, Wake::Watch(id));
        self.tags.insert(tag.clone(), id);
        self.users.insert(user.clone(), id);
        let watch = Watch {
            user: user.clone(),
            scscf,
            service,
            tag,
            first,
            dialog: None,
            pending: Some(pending),
            version: None,
            timer,
        };
        self.table.insert(id, watch);
    }

    /// The user is gone: so is our interest.
    pub(crate) fn end(&mut self, turn: &mut Turn<'_>, user: &UserId) {
        if let Some(id) = self.users.get(user).copied() {
            self.drop(turn, id);
        }
    }

    /// The S-CSCF answers a SUBSCRIBE.
    pub(crate) fn answered(&mut self, turn: &mut Turn<'_>, id: u64, tx: ClientTx, response: &Response) {
        let Some(watch) = self.table.get_mut(&id).filter(|w| w.pending == Some(tx)) else { return };
        if response.code < 200 {
            return;
        }
        watch.pending = None;
        if !response.is_success() {
            return self.drop(turn, id);
        }
        if watch.dialog.is_none() {
            watch.dialog = Dialog::uac(&watch.first, response).ok();
        }
        // RFC 6665 §4.1.2.1: what was granted counts.
        let asked = turn.config().ims.reg_event_s;
        let granted = response.headers.typed::<Expires>().ok().flatten().map_or(asked, |e| e.0.min(asked));
        turn.unwake(&mut watch.timer);
        watch.timer = turn.wake_in(Duration::from_secs(u64::from(granted.max(2)) / 2), Wake::Watch(id));
    }

    /// It does not.
    pub(crate) fn silent(&mut self, turn: &mut Turn<'_>, id: u64) {
        self.drop(turn, id);
    }

    /// Half of its time is over, or nothing has come.
    pub(crate) fn wake(&mut self, turn: &mut Turn<'_>, id: u64) {
        let Some(watch) = self.table.get_mut(&id) else { return };
        watch.timer = None;
        if watch.pending.is_some() || watch.dialog.is_none() {
            return self.drop(turn, id);
        }
        self.refresh(turn, id);
    }

    fn refresh(&mut self, turn: &mut Turn<'_>, id: u64) {
        let Some(watch) = self.table.get_mut(&id).filter(|w| w.pending.is_none()) else { return };
        let Some(dialog) = &mut watch.dialog else { return };
        let mut next = dialog.request(Method::Subscribe);
        next.headers.copy(&watch.first.headers, &Name::Contact);
        let next = asking(turn, next);
        watch.pending = Some(turn.send(Owner::Watch(id), watch.scscf.route.clone(), next));
        turn.unwake(&mut watch.timer);
        watch.timer = turn.wake_in(TIMER_N, Wake::Watch(id));
    }

    /// A request in one of the dialogs.
    pub(crate) fn request(
        &mut self,
        turn: &mut Turn<'_>,
        bindings: &mut Bindings,
        tag: &str,
        tx: ServerTx,
        request: &Request,
    ) {
        let id = self.tags.get(tag).copied();
        let found = id.and_then(|id| Some((id, self.table.get_mut(&id)?)));
        let Some((id, watch)) = found else { return turn.respond(tx, request.respond(481)) };
        if request.method != Method::Notify {
            return turn.respond(tx, b2b::refuse(turn.config(), request, 405));
        }
        let fault = match &mut watch.dialog {
            Some(dialog) => dialog.accept(request).err().map(sip::Misbehaved::code),
            None => early(watch, request).err(),
        };
        let document = match fault {
            Some(code) => Err(code),
            None => document(request),
        };
        let (state, document) = match document {
            Ok(news) => news,
            Err(code) => return turn.respond(tx, b2b::refuse(turn.config(), request, code)),
        };
        turn.respond(tx, request.respond(200));
        let mut missed = false;
        if let Some(document) = document {
            // RFC 3680 §5.2: old ones are left alone; a gap in what is partial means that something was missed.
            let (fresh, whole) = match watch.version {
                Some(last) => (document.version > last, document.version == last.wrapping_add(1)),
                None => (true, document.full),
            };
            if fresh && (document.full || whole) {
                watch.version = Some(document.version);
                apply(turn, bindings, watch, &document);
            } else if fresh {
                missed = true;
            }
        }
        match state.state {
            Substate::Terminated => {
                let (user, scscf, service) = (watch.user.clone(), watch.scscf.clone(), watch.service);
                self.drop(turn, id);
                // RFC 6665 §4.1.3: these two say that we may come again at once.
                if matches!(state.reason(), Some("deactivated" | "timeout"))
                    && bindings.live(&user, turn.now.wall).any(|b| b.is_of_core())
                {
                    self.begin(turn, &user, scscf, service);
                }
            }
            _ if missed => self.refresh(turn, id),
            _ => {}
        }
    }

    fn drop(&mut self, turn: &mut Turn<'_>, id: u64) {
        let Some(mut watch) = self.table.remove(&id) else { return };
        turn.unwake(&mut watch.timer);
        self.tags.remove(&watch.tag);
        self.users.remove(&watch.user);
        if let Some(pending) = watch.pending {
            turn.desk.forget(pending);
        }
    }
}

/// What every SUBSCRIBE says.
fn asking(turn: &Turn<'_>, mut request: Request) -> Request {
    request.headers.push(Name::Event, reginfo::EVENT);
    request.headers.push(Name::Accept, reginfo::MEDIA_TYPE);
    request.headers.push(Name::Expires, turn.config().ims.reg_event_s.to_string());
    request
}

/// RFC 6665 §4.4.1: a NOTIFY that comes before the 2xx makes the dialog.
fn early(watch: &mut Watch, request: &Request) -> Result<(), u16> {
    if request.call_id() != watch.first.call_id() {
        return Err(481);
    }
    let mut answer = request.respond(200);
    answer.set_to_tag(&watch.tag);
    let mut dialog = Dialog::uas(request, &answer).map_err(|_| 400_u16)?;
    dialog.local_seq = Some(1);
    watch.dialog = Some(dialog);
    Ok(())
}

/// What a NOTIFY says; the error is the SIP status.
fn document(request: &Request) -> Result<(SubscriptionState, Option<RegInfo>), u16> {
    let event = request.headers.typed::<Event>().ok().flatten().ok_or(400_u16)?;
    if event.package != reginfo::EVENT {
        return Err(489);
    }
    let state = request.headers.must::<SubscriptionState>().map_err(|_| 400_u16)?;
    if request.body.is_empty() {
        return Ok((state, None));
    }
    let kind = request.headers.typed::<ContentType>().ok().flatten().ok_or(400_u16)?;
    if !kind.0.is(reginfo::MEDIA_TYPE) {
        return Err(415);
    }
    let document = RegInfo::read(&request.body, &cpm::Limits::default()).map_err(|_| 400_u16)?;
    Ok((state, Some(document)))
}

/// The user's devices are those that the document says.
fn apply(turn: &mut Turn<'_>, bindings: &mut Bindings, watch: &Watch, document: &RegInfo) {
    let user = &watch.user;
    let own = document.registrations.iter().filter(|registration| {
        let aor = registration.aor.parse::<Uri>();
        aor.is_ok_and(|aor| user_of(turn.config(), &aor).as_ref() == Some(user))
    });
    let Ok(aor) = user.as_str().parse::<Uri>() else { return };
    let (mut there, mut gone) = (Vec::new(), Vec::new());
    let call_id = watch.first.call_id().unwrap_or_default();
    let mut all_gone = false;
    for registration in own {
        all_gone |= registration.state == State::Terminated;
        for contact in &registration.contacts {
            let Some(address) = address_of(contact) else { continue };
            let life = if contact.active { contact.expires_s } else { None };
            let life = life.unwrap_or(turn.config().registrar.expires_default_s);
            let life = life.min(turn.config().registrar.expires_max_s);
            let numbers = (call_id, document.version);
            let (key, binding) =
                device(turn.now.wall, user, &aor, &address, life, &watch.scscf, watch.service, numbers);
            if contact.active && registration.state == State::Active && life > 0 {
                there.push((key, binding));
            } else {
                gone.push(key);
            }
        }
    }
    let known: Vec<String> =
        bindings.all(user).iter().filter(|b| b.is_of_core()).map(|b| b.key.clone()).collect();
    for key in known {
        let kept = there.iter().any(|(other, _)| *other == key);
        if !kept && (document.full || all_gone || gone.contains(&key)) {
            bindings.remove(turn, user, &key, "unregistered");
        }
    }
    let limits = &turn.config().limits;
    let (of_user, in_all) = (limits.bindings_per_user_max, limits.bindings_max);
    for (key, binding) in there {
        let new = bindings.by_key(user, &key).is_none();
        if new && (bindings.all(user).len() >= of_user || bindings.len() >= in_all) {
            continue;
        }
        bindings.put(turn, key, binding, 0);
    }
}

/// A contact of the document as the Contact that it was.
fn address_of(contact: &reginfo::Contact) -> Option<NameAddr> {
    let mut address = NameAddr::new(contact.uri.parse().ok()?);
    for (name, value) in &contact.params {
        match value.trim_matches('"') {
            "" => address.params.set(name, None),
            _ if name.eq_ignore_ascii_case("expires") => {}
            // RFC 3680 §5.3.2.1: the value as it stood, its quotes with it or, as many do it, without.
            bare => address.params.set_quoted(name, bare),
        }
    }
    if let Some(gruu) = &contact.pub_gruu {
        address.params.set_quoted("pub-gruu", gruu);
    }
    Some(address)
}
