//! The notifications of messages: their states in memory (bounded; all of them are in the store too), and
//! reading what a MESSAGE says about them. They reach every device of the sender (REQ-PF-25).

use std::collections::BTreeMap;
use std::time::Duration;

use base::{Map, Private, UnixTime, map};
use bytes::Bytes;
use cpm::cpim::Head;
use cpm::imdn::{self, Imdn, Notification};
use sip::Headers;
use sip::typed::ContentType;

use super::dispositions::Verdict;
use crate::facts::Facts;
use crate::records::{Columns, ImdnState, Record, Row};
use crate::turn::{Desk, Turn};
use crate::{Key, LaneKey, Table, UserId};

/// What was read is good for this request only, give or take: the row's own end is not known here.
const KNOWN_FOR: Duration = Duration::from_secs(60);

/// What a MESSAGE is about, as far as notifications are concerned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum About {
    /// Nothing: no CPIM, or nobody asked.
    Nothing,
    /// A message whose sender wants notifications.
    Message {
        /// Its id.
        id: String,
        /// CPIM From.
        originator: UserId,
        /// CPIM To as it is written.
        recipient: String,
    },
    /// A notification.
    Notification {
        /// The message that it is about.
        id: String,
        /// CPIM To: who sent that message.
        originator: UserId,
        /// What it says.
        notification: Option<Notification>,
    },
}

/// Reads the CPIM of a MESSAGE. The error is what is wrong with it.
pub(crate) fn about(headers: &Headers, body: &Bytes) -> Result<About, cpm::Error> {
    let cpim = headers.typed::<ContentType>().ok().flatten().is_some_and(|kind| kind.is("message/cpim"));
    if !cpim {
        return Ok(About::Nothing);
    }
    let limits = cpm::Limits::default();
    let head = Head::parse_whole(body, &limits)?;
    let kind = head.content_type().split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("message/imdn+xml") {
        let imdn = Imdn::read(body.get(head.body_offset()..).unwrap_or_default(), &limits)?;
        return Ok(match user(head.only_to()) {
            Some(originator) => About::Notification {
                id: imdn.message_id.as_str().to_owned(),
                originator,
                notification: imdn.notification,
            },
            None => About::Nothing,
        });
    }
    let asked = imdn::Request::of(&head)?;
    let recipient = head.only_to().map(|a| a.uri.into_owned()).unwrap_or_default();
    Ok(match (asked.message_id, user(head.from())) {
        (Some(id), Some(originator)) if !asked.wanted.is_empty() => {
            About::Message { id: id.as_str().to_owned(), originator, recipient }
        }
        _ => About::Nothing,
    })
}

/// In whose names the CPIM speaks: of its sender, and of the recipient whom a notification is about. Nobody may say
/// another one's (CPM-FACTS §2.11, §3.8 item 4).
pub(crate) fn names(headers: &Headers, body: &Bytes) -> Vec<String> {
    if !headers.typed::<ContentType>().ok().flatten().is_some_and(|kind| kind.is("message/cpim")) {
        return Vec::new();
    }
    let limits = cpm::Limits::default();
    let Ok(head) = Head::parse_whole(body, &limits) else { return Vec::new() };
    let mut names: Vec<String> = head.from().map(|from| from.uri.into_owned()).into_iter().collect();
    if cpm::media_type::is(head.content_type(), cpm::media_type::IMDN)
        && let Ok(imdn) = Imdn::read(body.get(head.body_offset()..).unwrap_or_default(), &limits)
    {
        names.extend(imdn.recipient.map(|(recipient, _)| recipient));
    }
    names.retain(|name| !UserId::parse(name).is_ok_and(|user| user.is_anonymous()));
    names
}

fn user(address: Result<cpm::cpim::Address<'_>, cpm::Error>) -> Option<UserId> {
    UserId::parse(&address.ok()?.uri).ok().filter(|user| !user.is_anonymous())
}

/// The key of a state.
pub(crate) fn key_of(message: &str, originator: &UserId, recipient: &UserId) -> String {
    format!("{message}|{}|{}", originator.as_str(), recipient.as_str())
}

#[derive(Debug)]
struct Held {
    state: ImdnState,
    version: u64,
    serial: u64,
    /// The store may have forgotten it from then on.
    until: UnixTime,
}

/// States in memory. The oldest ones make room; they are in the store.
#[derive(Debug)]
pub(crate) struct States {
    held: Map<String, Held>,
    order: BTreeMap<u64, String>,
    serial: u64,
    max: usize,
}

impl States {
    pub(crate) fn new(desk: &Desk) -> Self {
        States { held: map(desk.seed), order: BTreeMap::new(), serial: 0, max: desk.config.limits.imdn_max }
    }

    /// True when the state is in memory: no fact is needed.
    pub(crate) fn has(&self, key: &str, now: UnixTime) -> bool {
        self.held.get(key).is_some_and(|held| held.until > now)
    }

    /// What the store had. What is in memory is newer. False when nobody knows: the store was not asked, and
    /// nothing may be written that could contradict it.
    pub(crate) fn learn(&mut self, now: UnixTime, key: &Key, facts: &Facts) -> bool {
        let id = key.id.expose();
        if self.has(id, now) {
            return true;
        }
        if !facts.asked(key) {
            return false;
        }
        let (state, version) = facts.imdn(key).unwrap_or_default();
        self.hold(id, state, version, now + KNOWN_FOR);
        true
    }

    /// A message goes to so many devices, and its sender wants to know.
    pub(crate) fn expect(
        &mut self,
        turn: &mut Turn<'_>,
        key: &str,
        owner: &UserId,
        devices: usize,
        recipient: String,
    ) {
        let mut state = self.state(key);
        state.devices = u8::try_from(devices).unwrap_or(u8::MAX);
        state.recipient = Private::new(recipient);
        self.write(turn, key, owner, state);
    }

    /// A device reports. With `Pass` comes what to put back when the sender cannot be told.
    pub(crate) fn report(
        &mut self,
        turn: &mut Turn<'_>,
        key: &str,
        owner: &UserId,
        notification: Option<Notification>,
    ) -> (Verdict, ImdnState) {
        let before = self.state(key);
        let mut state = before.clone();
        let verdict = state.take(notification);
        self.write(turn, key, owner, state);
        (verdict, before)
    }

    /// The sender was not told after all: the next device's report may pass.
    pub(crate) fn undo(&mut self, turn: &mut Turn<'_>, key: &str, owner: &UserId, before: ImdnState) {
        // Gone from memory: its version is not known any more.
        if self.held.contains_key(key) {
            self.write(turn, key, owner, before);
        }
    }

    fn state(&self, key: &str) -> ImdnState {
        self.held.get(key).map(|held| held.state.clone()).unwrap_or_default()
    }

    fn write(&mut self, turn: &mut Turn<'_>, key: &str, owner: &UserId, state: ImdnState) {
        let version = self.held.get(key).map_or(0, |held| held.version) + 1;
        let keep = Duration::from_secs(u64::from(turn.config().participating.imdn_keep_days) * 86_400);
        self.hold(key, state.clone(), version, turn.now.wall + keep);
        turn.put_row(Row {
            key: Key::new(Table::Imdn, key),
            lane: LaneKey::of_user(owner),
            version,
            columns: Columns {
                owner: Private::new(owner.as_str().to_owned()),
                expires: turn.now.wall + keep,
                ..Columns::default()
            },
            record: Record::Imdn(state),
        });
    }

    fn hold(&mut self, key: &str, state: ImdnState, version: u64, until: UnixTime) {
        self.serial += 1;
        let held = Held { state, version, serial: self.serial, until };
        if let Some(old) = self.held.insert(key.to_owned(), held) {
            self.order.remove(&old.serial);
        }
        self.order.insert(self.serial, key.to_owned());
        while self.held.len() > self.max {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            self.held.remove(&oldest);
        }
    }
}
