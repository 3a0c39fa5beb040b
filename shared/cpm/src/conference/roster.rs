//! The subscriber's side: documents applied one after the other (RFC 4575 §4.6).
//!
//! ```text
//!                  full                partial                        deleted
//! nothing yet      Changed             Gap (ask for a full one)       Over
//! version v        n > v: Changed      n = v+1: Changed               Over
//!                  n <= v: Stale       n <= v: Stale, n > v+1: Gap
//! ```

use super::{ConferenceInfo, Endpoint, State, User};
use crate::{Error, Limits};

/// What a document did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    /// The roster is the newer one.
    Changed,
    /// It was not newer than what is known.
    Stale,
    /// A document between is missing: refresh the subscription, which brings a full one (RFC 4575 §4.6).
    Gap,
    /// The conference is over.
    Over,
}

/// What a subscriber knows of a conference. In `current` every state is `Full`.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    current: Option<ConferenceInfo>,
    limits: Limits,
}

impl Roster {
    /// Nothing known yet.
    pub fn new(limits: Limits) -> Self {
        Roster { current: None, limits }
    }

    /// The conference as last told; `None` before the first full document and after the end.
    pub fn current(&self) -> Option<&ConferenceInfo> {
        self.current.as_ref()
    }

    /// A user by address.
    pub fn user(&self, entity: &str) -> Option<&User> {
        self.current.as_ref()?.users.as_ref()?.users.iter().find(|u| u.entity == entity)
    }

    /// Applies a document. On an error nothing changed.
    pub fn apply(&mut self, news: ConferenceInfo) -> Result<Applied, Error> {
        if news.state == State::Deleted {
            self.current = None;
            return Ok(Applied::Over);
        }
        if self.current.as_ref().is_some_and(|c| news.version <= c.version) {
            return Ok(Applied::Stale);
        }
        let next = match (&self.current, news.state) {
            (_, State::Full) => {
                merged(ConferenceInfo { entity: news.entity.clone(), ..ConferenceInfo::default() }, news)
            }
            (Some(current), _) if news.version == current.version.wrapping_add(1) => {
                merged(current.clone(), news)
            }
            _ => return Ok(Applied::Gap),
        };
        if next.users.as_ref().is_some_and(|u| u.users.len() > self.limits.entries_max) {
            return Err(Error::TooLarge("users"));
        }
        self.current = Some(next);
        Ok(Applied::Changed)
    }
}

fn merged(mut into: ConferenceInfo, news: ConferenceInfo) -> ConferenceInfo {
    into.state = State::Full;
    into.version = news.version;
    // These two have no state of their own: whole or absent.
    if news.description.is_some() {
        into.description = news.description;
    }
    if let Some(state) = news.conference_state {
        let known = into.conference_state.get_or_insert_default();
        known.user_count = state.user_count.or(known.user_count);
        known.active = state.active.or(known.active);
        known.locked = state.locked.or(known.locked);
    }
    if let Some(users) = news.users {
        let known = into.users.get_or_insert_default();
        if users.state != State::Partial {
            known.users.clear();
        }
        if users.state != State::Deleted {
            users.users.into_iter().for_each(|user| put_user(&mut known.users, user));
        }
    }
    into
}

fn put_user(known: &mut Vec<User>, news: User) {
    let place = known.iter().position(|u| u.entity == news.entity);
    match (news.state, place.and_then(|at| known.get_mut(at))) {
        (State::Deleted, None) => {}
        (State::Deleted, Some(_)) => drop(place.map(|at| known.remove(at))),
        (State::Partial, Some(user)) => {
            user.nickname = news.nickname.or(user.nickname.take());
            user.your_own |= news.your_own;
            user.display_text = news.display_text.or(user.display_text.take());
            if !news.roles.is_empty() {
                user.roles = news.roles;
            }
            news.endpoints.into_iter().for_each(|e| put_endpoint(&mut user.endpoints, e));
        }
        (_, Some(user)) => *user = whole(news),
        (_, None) => known.push(whole(news)),
    }
}

fn whole(news: User) -> User {
    let mut endpoints = Vec::with_capacity(news.endpoints.len());
    news.endpoints.into_iter().for_each(|e| put_endpoint(&mut endpoints, e));
    User { state: State::Full, endpoints, ..news }
}

fn put_endpoint(known: &mut Vec<Endpoint>, mut news: Endpoint) {
    let place = known.iter().position(|e| e.entity == news.entity);
    let state = std::mem::replace(&mut news.state, State::Full);
    match (state, place.and_then(|at| known.get_mut(at))) {
        (State::Deleted, None) => {}
        (State::Deleted, Some(_)) => drop(place.map(|at| known.remove(at))),
        (State::Partial, Some(endpoint)) => {
            endpoint.referred_by = news.referred_by.or(endpoint.referred_by.take());
            endpoint.status = news.status.or(endpoint.status);
            endpoint.joining = news.joining.or(endpoint.joining);
            endpoint.disconnection = news.disconnection.or(endpoint.disconnection);
            endpoint.disconnection_reason =
                news.disconnection_reason.or(endpoint.disconnection_reason.take());
            for media in news.media {
                endpoint.media.retain(|m| m.id != media.id);
                endpoint.media.push(media);
            }
        }
        (_, Some(endpoint)) => *endpoint = news,
        (_, None) => known.push(news),
    }
}
