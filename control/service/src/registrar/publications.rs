//! An event state compositor (RFC 3903): what the devices of a user publish of his presence (RFC 3856), for the time that
//! they ask for. `notifier` tells it to those who watch.
//!
//! ```text
//!   PUBLISH ──403 400 412 413 415 423 489 503──▶ ·
//!      │ no SIP-If-Match, a body: 200 with a SIP-ETag
//!      ▼
//!   Published ── its SIP-ETag ── no body: refreshed ── a body: modified ── 200 with the next SIP-ETag ──▶ Published
//!      │ Expires: 0, time over
//!      ▼
//!     gone
//! ```
//!
//! The composed state is the latest publication: documents of several devices are not merged (RFC 3903 §6 leaves it to
//! policy). Soft state, in memory only: after a restart a refresh gets 412, and the device publishes again (§4.1).

use std::time::Duration;

use base::{Map, TimerId, UnixTime, map};
use bytes::Bytes;
use sip::typed::{ContentType, Event, Expires};
use sip::{Name, Request, Response};

use crate::b2b;
use crate::turn::{Desk, Turn, Wake};
use crate::{ServerTx, UserId};

/// The package that is kept.
pub(crate) const EVENT: &str = "presence";
/// RFC 3863.
pub(crate) const MEDIA_TYPE: &str = "application/pidf+xml";

#[derive(Debug)]
struct Publication {
    /// Its entity tag.
    tag: String,
    body: Bytes,
    expires: UnixTime,
    timer: Option<TimerId>,
}

/// Those of one lane's users.
#[derive(Debug)]
pub(crate) struct Publications {
    /// Of each user the latest last.
    users: Map<UserId, Vec<Publication>>,
    count: usize,
}

/// What a PUBLISH asks for.
struct Wish {
    tag: Option<String>,
    expires_s: u32,
}

impl Publications {
    pub(crate) fn new(desk: &Desk) -> Self {
        Publications { users: map(desk.seed), count: 0 }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// What is known of a user.
    pub(crate) fn state(&self, user: &UserId, now: UnixTime) -> Option<&Bytes> {
        let live = |publication: &&Publication| publication.expires > now;
        self.users.get(user)?.iter().rev().find(live).map(|publication| &publication.body)
    }

    /// A PUBLISH of a user for himself; true when the state is another one now.
    pub(crate) fn publish(
        &mut self,
        turn: &mut Turn<'_>,
        user: &UserId,
        tx: ServerTx,
        request: &Request,
    ) -> bool {
        let before = self.state(user, turn.now.wall).cloned();
        let response = self.publishes(turn, user, request).unwrap_or_else(|response| *response);
        turn.respond(tx, response);
        before.as_ref() != self.state(user, turn.now.wall)
    }

    fn publishes(
        &mut self,
        turn: &mut Turn<'_>,
        user: &UserId,
        request: &Request,
    ) -> Result<Response, Box<Response>> {
        let Wish { tag, expires_s } = wish(turn, request)?;
        let refuse = |code| Box::new(b2b::refuse(turn.config(), request, code));
        let now = turn.now.wall;
        let known = self.users.get(user).map_or(&[][..], Vec::as_slice);
        let old = match &tag {
            // §6 step 3: what has expired is not there, whether its timer has rung or not.
            Some(tag) => match known.iter().position(|p| p.tag == *tag && p.expires > now) {
                Some(at) => Some(at),
                None => return Err(refuse(412)),
            },
            None => None,
        };
        let limits = &turn.config().limits;
        let full = self.count >= limits.publications_max || known.len() >= limits.publications_per_user_max;
        if old.is_none() && request.body.is_empty() {
            // §4.2: the first one has something to say.
            return Err(refuse(400));
        }
        if old.is_none() && expires_s > 0 && full {
            return Err(refuse(503));
        }
        let mut publication = match old.and_then(|at| self.take(user, at)) {
            Some(old) => old,
            None => Publication { tag: String::new(), body: Bytes::new(), expires: now, timer: None },
        };
        turn.unwake(&mut publication.timer);
        publication.tag = turn.token();
        if !request.body.is_empty() {
            publication.body = request.body.clone();
        }
        let mut response = request.respond(200);
        // §6 step 6: another one each time.
        response.headers.push(Name::SipEtag, &publication.tag);
        response.headers.push(Name::Expires, expires_s.to_string());
        if expires_s > 0 {
            let life = Duration::from_secs(expires_s.into());
            publication.expires = now + life;
            publication.timer = turn.wake_in(life, Wake::Publication(user.clone()));
            self.users.entry(user.clone()).or_default().push(publication);
            self.count += 1;
        }
        Ok(response)
    }

    fn take(&mut self, user: &UserId, at: usize) -> Option<Publication> {
        let known = self.users.get_mut(user).filter(|known| at < known.len())?;
        let taken = known.remove(at);
        if known.is_empty() {
            self.users.remove(user);
        }
        self.count -= 1;
        Some(taken)
    }

    /// The time of one of his may be over; true when it is.
    pub(crate) fn wake(&mut self, turn: &mut Turn<'_>, user: &UserId) -> bool {
        let now = turn.now.wall;
        let mut over = false;
        while let Some(at) =
            self.users.get(user).and_then(|known| known.iter().position(|p| p.expires <= now))
        {
            over = true;
            if let Some(mut gone) = self.take(user, at) {
                turn.unwake(&mut gone.timer);
            }
        }
        // The wall clock was set back: whoever's timer has rung has another one.
        for publication in self.users.get_mut(user).into_iter().flatten() {
            let left = publication.expires.since(now);
            turn.unwake(&mut publication.timer);
            publication.timer = turn.wake_in(left, Wake::Publication(user.clone()));
        }
        over
    }
}

/// RFC 3903 §6 steps 2 to 5: what can be said without what is known.
fn wish(turn: &Turn<'_>, request: &Request) -> Result<Wish, Box<Response>> {
    let config = &turn.config().publications;
    let refuse = |code| Box::new(b2b::refuse(turn.config(), request, code));
    let package = request.headers.typed::<Event>().ok().flatten().map(|event| event.package);
    if package.as_deref() != Some(EVENT) {
        // §6 step 2
        let mut response = refuse(489);
        response.headers.set(Name::AllowEvents, EVENT);
        return Err(response);
    }
    let mut tags = request.headers.fields(&Name::SipIfMatch);
    let tag = match (tags.next(), tags.next()) {
        (None, _) => None,
        (Some(tag), None) => Some(tag),
        // §6 step 3: exactly one.
        (Some(_), Some(_)) => return Err(refuse(400)),
    };
    let tag = match tag.map(|tag| std::str::from_utf8(tag).map(str::trim)) {
        Some(Ok("") | Err(_)) => return Err(refuse(400)),
        Some(Ok(tag)) => Some(tag.to_owned()),
        None => None,
    };
    let asked = request.headers.typed::<Expires>().map_err(|_| refuse(400))?;
    let asked = asked.map_or(config.expires_s, |expires| expires.0);
    if asked != 0 && asked < config.expires_min_s {
        // §6 step 4
        let mut brief = refuse(423);
        brief.headers.push(Name::MinExpires, config.expires_min_s.to_string());
        return Err(brief);
    }
    if request.body.len() > config.body_max_bytes {
        return Err(refuse(413));
    }
    if !request.body.is_empty() {
        let kind = request.headers.typed::<ContentType>().ok().flatten();
        if kind
            .is_none_or(|kind| !cpm::media_type::essence(&kind.to_string()).eq_ignore_ascii_case(MEDIA_TYPE))
        {
            // §6 step 5
            let mut response = refuse(415);
            response.headers.set(Name::Accept, MEDIA_TYPE);
            return Err(response);
        }
    }
    Ok(Wish { tag, expires_s: asked.min(config.expires_s) })
}
