//! Notifications of conference events: the documents and the NOTIFYs (RFC 4575, RFC 6665 §4.2.2).
//!
//! Everything at first and after a refresh, then what has changed since the last document. Changes are gathered:
//! the first one after a quiet time goes out at once, the next ones after `notify_interval_ms`.

use std::time::Duration;

use cpm::conference::{
    AvailableMedia, ConferenceInfo, ConferenceState, Description, Endpoint, Media, State, Status, User, Users,
};
use cpm::media_type;
use sip::typed::SubscriptionState;
use sip::{Method, Name};

use super::conference::{Conference, Phase};
use super::offer::label;
use super::roster::{Departure, Member, MemberId};
use super::subscribe::{SubscriptionId, Via};
use crate::records::{Key, Table};
use crate::turn::{Owner, Turn};
use crate::{ClientTx, Config};

impl Conference {
    /// Sends what is due, and ends what is over.
    pub(crate) fn notify_due(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        let over: Vec<SubscriptionId> =
            self.subscriptions.values().filter(|s| s.expires <= now.wall).map(|s| s.id).collect();
        for id in over {
            self.end_subscription(turn, id, "timeout");
        }
        let due = self.subscriptions.values().filter(|s| self.is_behind(s) && s.not_before <= now.mono);
        let due: Vec<SubscriptionId> = due.map(|s| s.id).collect();
        for id in due {
            self.notify(turn, id, None);
        }
    }

    /// The last NOTIFY of a subscription.
    pub(crate) fn end_subscription(&mut self, turn: &mut Turn<'_>, id: SubscriptionId, reason: &str) {
        self.notify(turn, id, Some(reason));
        if let Some(gone) = self.subscriptions.remove(&id)
            && gone.row_version > 0
        {
            self.rows_gone.push(Key::new(Table::Subscription, self.subscription_key(id)));
        }
    }

    /// One NOTIFY: with `over` the last one.
    fn notify(&mut self, turn: &mut Turn<'_>, id: SubscriptionId, over: Option<&str>) {
        let Some(subscription) = self.subscriptions.get(&id) else { return };
        let document =
            self.document(turn.config(), subscription.member, subscription.seen, subscription.version + 1);
        let clock = self.roster.clock();
        let contact = self.contact(turn.config(), &subscription.route);
        let Conference { subscriptions, calls, number, .. } = self;
        let Some(subscription) = subscriptions.get_mut(&id) else { return };
        let dialog = match &mut subscription.via {
            Via::Own(dialog) => Some(&mut **dialog),
            Via::Call(call) => calls.get_mut(call).and_then(|c| {
                c.dirty = true;
                c.dialog.as_mut()
            }),
        };
        let Some(dialog) = dialog else { return };
        let mut request = dialog.request(Method::Notify);
        let state = match over {
            Some(reason) => SubscriptionState::terminated(reason),
            None => {
                let left = subscription.expires.since(turn.now.wall).as_secs();
                SubscriptionState::active(u32::try_from(left).unwrap_or(u32::MAX))
            }
        };
        request.headers.push(Name::Event, event(cpm::conference::EVENT, subscription.event_id.as_deref()));
        request.headers.push(Name::SubscriptionState, state.to_string());
        request.headers.push(Name::Contact, contact);
        request.set_body(media_type::CONFERENCE_INFO, document.write());
        let owner = if over.is_some() { Owner::Nobody } else { Owner::Focus(*number) };
        let tx = turn.send(owner, subscription.route.clone(), request);
        subscription.version += 1;
        subscription.seen = Some(clock);
        subscription.pending = over.is_none().then_some(tx);
        let interval = Duration::from_millis(turn.config().controlling.notify_interval_ms.into());
        subscription.not_before = turn.now.mono + interval;
        subscription.dirty = true;
    }

    /// An answer to a NOTIFY, ours or a REFER's: a subscriber that does not want it is no subscriber
    /// (RFC 6665 §4.2.2).
    pub(crate) fn notify_answered(&mut self, turn: &mut Turn<'_>, tx: ClientTx, code: u16) {
        if code < 200 {
            return;
        }
        let Some(id) = self.subscriptions.values().find(|s| s.pending == Some(tx)).map(|s| s.id) else {
            return;
        };
        if let Some(subscription) = self.subscriptions.get_mut(&id) {
            subscription.pending = None;
        }
        if !(200..300).contains(&code) && self.subscriptions.remove(&id).is_some_and(|s| s.row_version > 0) {
            self.rows_gone.push(Key::new(Table::Subscription, self.subscription_key(id)));
        }
        let _ = turn;
    }

    /// The document for one subscriber: everything, or what has changed since `seen`.
    pub(crate) fn document(
        &self,
        config: &Config,
        subscriber: MemberId,
        seen: Option<u64>,
        version: u32,
    ) -> ConferenceInfo {
        let entity = self.uri(config);
        if matches!(self.phase, Phase::Ending | Phase::Gone) {
            return ConferenceInfo { entity, state: State::Deleted, version, ..ConferenceInfo::default() };
        }
        let gone = seen.and_then(|seen| self.roster.gone_since(seen));
        let (state, seen) = match (&gone, seen) {
            (Some(_), Some(seen)) => (State::Partial, seen),
            _ => (State::Full, 0),
        };
        let changed = self.roster.iter().filter(|(_, m)| state == State::Full || m.changed > seen);
        let mut users: Vec<User> = changed.map(|(id, m)| self.user(id, m, id == subscriber)).collect();
        users.extend(gone.into_iter().flatten().map(departed));
        let conference_state = ConferenceState {
            user_count: u32::try_from(self.roster.connected()).ok(),
            active: Some(self.phase != Phase::Dormant),
            locked: Some(!self.open),
        };
        ConferenceInfo {
            entity: entity.clone(),
            state,
            version,
            description: (state == State::Full).then(|| self.description(config, entity)),
            conference_state: Some(conference_state),
            users: Some(Users { state, users }),
        }
    }

    fn description(&self, config: &Config, entity: String) -> Description {
        let room = self.room.iter().flat_map(|r| &r.lines);
        Description {
            subject: Some(self.subject.clone()).filter(|s| !s.is_empty()),
            conf_uris: vec![(entity, Some("participation".to_owned()))],
            maximum_user_count: u32::try_from(config.controlling.members_max).ok(),
            available_media: room
                .map(|l| AvailableMedia {
                    label: label(l.medium).to_owned(),
                    kind: l.medium.word().to_owned(),
                    status: Some("sendrecv".to_owned()),
                })
                .collect(),
            ..Description::default()
        }
    }

    fn user(&self, id: MemberId, member: &Member, own: bool) -> User {
        let mut endpoints: Vec<Endpoint> = self
            .calls_of(id)
            .enumerate()
            .map(|(at, call)| Endpoint {
                media: call
                    .talk
                    .shown()
                    .map(|(medium, direction)| Media {
                        id: format!("{}-{}", call.id.0, label(medium)),
                        kind: Some(medium.word().to_owned()),
                        label: Some(label(medium).to_owned()),
                        status: Some(direction.as_str().to_owned()),
                        ..Media::default()
                    })
                    .collect(),
                ..endpoint(member, at)
            })
            .collect();
        if endpoints.is_empty() {
            endpoints.push(endpoint(member, 0));
        }
        User {
            entity: member.user.as_str().to_owned(),
            state: State::Full,
            nickname: member.nickname.as_ref().map(|n| n.expose().clone()),
            your_own: own,
            display_text: Some(member.display.expose().clone()).filter(|d| !d.is_empty()),
            roles: vec![if member.admin { "administrator" } else { "participant" }.to_owned()],
            endpoints,
        }
    }
}

/// The first session stands under the user's own address, the others beside it.
fn endpoint(member: &Member, at: usize) -> Endpoint {
    let user = member.user.as_str();
    Endpoint {
        entity: if at == 0 { user.to_owned() } else { format!("{user};session={at}") },
        state: State::Full,
        referred_by: member.referred_by.as_ref().map(|r| r.expose().clone()),
        status: Some(member.status),
        joining: member.joining,
        disconnection: member.disconnection,
        ..Endpoint::default()
    }
}

/// RFC 4575 readers take the user off; RCS clients look at how it went.
fn departed(departure: &Departure) -> User {
    let entity = departure.user.as_str().to_owned();
    let endpoint = Endpoint {
        entity: entity.clone(),
        state: State::Full,
        status: Some(Status::Disconnected),
        disconnection: Some(departure.how),
        ..Endpoint::default()
    };
    User { entity, state: State::Deleted, endpoints: vec![endpoint], ..User::default() }
}

/// An Event header.
pub(crate) fn event(package: &str, id: Option<&str>) -> String {
    match id {
        Some(id) => format!("{package};id={id}"),
        None => package.to_owned(),
    }
}
