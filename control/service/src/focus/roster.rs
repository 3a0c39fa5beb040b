//! Who belongs to a conference (REQ-CF-21).
//!
//! ```text
//!  listed, added by REFER                       own INVITE
//!        │                                          │
//!        ▼          INVITE sent        180          │
//!     Pending ──▶ DialingOut ──▶ Alerting           │
//!        ▲            │  │           │ │            │
//!        │            │  └───2xx─────┘ │            │
//!        │            │      ▼         │            │
//!        │            │   Connected ◀──┼────────────┘
//!        │            │      │  BYE other than 200, transport lost, session timer
//!        │            ▼      ▼         ▼
//!        └─added again── Disconnected (Failed, Busy)      a member still; may join
//!
//!  BYE cause 200, removed by an administrator, 603 ──▶ taken off the roster (Departed, Booted, Busy)
//! ```
//!
//! The words are RFC 4575's. A member with several sessions is shown by the best of them.

use std::collections::BTreeMap;

use base::Private;
use cpm::UserId;
use cpm::conference::{Disconnection, Joining, Status};
use serde::{Deserialize, Serialize};

/// A member's number within its conference.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub(crate) struct MemberId(pub(crate) u32);

/// One member.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Who.
    pub(crate) user: UserId,
    /// The address by which the member was named: where invitations go.
    pub(crate) address: Private<String>,
    /// Every address that is the member's own, for the switch.
    pub(crate) addresses: Vec<Private<String>>,
    /// The name that came with it.
    pub(crate) display: Private<String>,
    /// May remove others.
    pub(crate) admin: bool,
    /// Shown to other invitees in their recipient list.
    pub(crate) named: bool,
    /// Where it stands.
    pub(crate) status: Status,
    /// How it came.
    pub(crate) joining: Option<Joining>,
    /// How its last session ended.
    pub(crate) disconnection: Option<Disconnection>,
    /// Who brought it in.
    pub(crate) referred_by: Option<Private<String>>,
    /// Its nickname as shown.
    pub(crate) nickname: Option<Private<String>>,
    /// The one-to-one session that the invitation replaces for it.
    pub(crate) session_replaces: Option<String>,
    /// A change of its row in conference documents has this number.
    pub(crate) changed: u64,
}

impl Member {
    pub(crate) fn new(user: UserId, address: &str) -> Self {
        Member {
            addresses: vec![Private::new(user.as_str().to_owned())],
            user,
            address: Private::new(address.to_owned()),
            display: Private::default(),
            admin: false,
            named: true,
            status: Status::Pending,
            joining: None,
            disconnection: None,
            referred_by: None,
            nickname: None,
            session_replaces: None,
            changed: 0,
        }
    }

    /// One more spelling of the member's address.
    pub(crate) fn learn(&mut self, address: &str) {
        const SPELLINGS_MAX: usize = 8;
        let known = self.addresses.iter().any(|a| a.expose() == address);
        if !known && self.addresses.len() < SPELLINGS_MAX && UserId::parse(address).as_ref() == Ok(&self.user)
        {
            self.addresses.push(Private::new(address.to_owned()));
        }
    }

    /// Takes part, or may yet answer an invitation.
    pub(crate) fn is_expected(&self) -> bool {
        !matches!(self.status, Status::Disconnected | Status::Disconnecting)
    }
}

/// The members of one conference, and the numbers of their changes: what a subscriber has not seen yet is
/// what has a higher number than its last document.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Roster {
    members: BTreeMap<MemberId, Member>,
    next: u32,
    /// The last change.
    clock: u64,
    /// Those who were taken off, with the number of that change; the latest ones only.
    gone: Vec<Departure>,
    /// The change up to which `gone` has forgotten some.
    forgotten: u64,
}

/// Who was taken off, how, and with which change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Departure {
    at: u64,
    pub(crate) user: UserId,
    pub(crate) how: Disconnection,
}

/// Departures kept for partial documents; a subscriber further behind gets a full one.
const GONE_MAX: usize = 64;

impl Roster {
    /// A member by number.
    pub(crate) fn get(&self, id: MemberId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// Changes a member; everything that subscribers see of it counts as changed.
    pub(crate) fn change(&mut self, id: MemberId, change: impl FnOnce(&mut Member)) {
        if let Some(member) = self.members.get_mut(&id) {
            let before = member.clone();
            change(member);
            if *member != before {
                self.clock += 1;
                member.changed = self.clock;
            }
        }
    }

    /// Something about a member that is not in its row has changed (its sessions' media).
    pub(crate) fn touch(&mut self, id: MemberId) {
        self.clock += 1;
        if let Some(member) = self.members.get_mut(&id) {
            member.changed = self.clock;
        }
    }

    /// A member by user.
    pub(crate) fn find(&self, user: &UserId) -> Option<MemberId> {
        self.members.iter().find(|(_, m)| m.user == *user).map(|(id, _)| *id)
    }

    /// Adds a member, or finds the one that the user is already.
    pub(crate) fn add(&mut self, member: Member) -> MemberId {
        if let Some(id) = self.find(&member.user) {
            return id;
        }
        let id = MemberId(self.next);
        self.next += 1;
        self.clock += 1;
        self.gone.retain(|d| d.user != member.user);
        self.members.insert(id, Member { changed: self.clock, ..member });
        id
    }

    /// Takes a member off.
    pub(crate) fn remove(&mut self, id: MemberId, how: Disconnection) -> Option<Member> {
        let member = self.members.remove(&id)?;
        self.clock += 1;
        self.gone.push(Departure { at: self.clock, user: member.user.clone(), how });
        if self.gone.len() > GONE_MAX {
            self.forgotten = self.gone.remove(0).at;
        }
        Some(member)
    }

    /// The members in the order of their coming.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (MemberId, &Member)> {
        self.members.iter().map(|(id, m)| (*id, m))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// How many take part.
    pub(crate) fn connected(&self) -> usize {
        self.members.values().filter(|m| m.status == Status::Connected).count()
    }

    /// The number of the last change.
    pub(crate) const fn clock(&self) -> u64 {
        self.clock
    }

    /// Who was taken off after a change; `None` when that is no longer known.
    pub(crate) fn gone_since(&self, seen: u64) -> Option<impl Iterator<Item = &Departure>> {
        (seen >= self.forgotten).then(|| self.gone.iter().filter(move |d| d.at > seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(n: u32) -> UserId {
        UserId::parse(&format!("tel:+1555{n:07}")).unwrap()
    }

    fn member(n: u32) -> Member {
        Member::new(user(n), user(n).as_str())
    }

    #[test]
    fn one_user_is_one_member() {
        let mut roster = Roster::default();
        let a = roster.add(member(1));
        assert_eq!(roster.add(member(1)), a);
        assert_eq!((roster.len(), roster.find(&user(1))), (1, Some(a)));
    }

    #[test]
    fn changes_and_departures_have_numbers() {
        let mut roster = Roster::default();
        let (a, b) = (roster.add(member(1)), roster.add(member(2)));
        let seen = roster.clock();
        roster.change(a, |m| m.status = Status::Connected);
        roster.change(b, |_| {});
        let changed: Vec<_> = roster.iter().filter(|(_, m)| m.changed > seen).map(|(id, _)| id).collect();
        assert_eq!(changed, [a], "what stays as it is has not changed");
        roster.remove(b, Disconnection::Booted);
        let gone: Vec<_> = roster.gone_since(seen).unwrap().map(|d| (&d.user, d.how)).collect();
        assert_eq!(gone, [(&user(2), Disconnection::Booted)]);
        assert_eq!(roster.gone_since(roster.clock()).unwrap().count(), 0);
        roster.add(member(2));
        assert_eq!(roster.gone_since(seen).unwrap().count(), 0, "who is back is not gone");
    }

    #[test]
    fn a_subscriber_too_far_behind_is_told_so() {
        let mut roster = Roster::default();
        let seen = roster.clock();
        for n in 0..=64 {
            let id = roster.add(member(n));
            roster.remove(id, Disconnection::Departed);
        }
        assert!(roster.gone_since(seen).is_none());
        assert!(roster.gone_since(roster.clock()).is_some());
    }

    #[test]
    fn only_spellings_of_the_same_user_are_learned() {
        let mut m = member(1);
        m.learn("sip:+15550000001@example.com;user=phone");
        m.learn("sip:+15550000002@example.com;user=phone");
        assert_eq!(m.addresses.len(), 2);
    }
}
