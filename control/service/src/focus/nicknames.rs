//! Who is called what in a room (RFC 7701 §7; CPM-FACTS §2.15, §3.8; REQ-CF-25).
//!
//! ```text
//!   none/held(n) ──NICKNAME(x)──▶ well-formed? ─no─▶ 424
//!                                 allowed?     ─no─▶ 403
//!                                 free?        ─no─▶ 425
//!                                 yes: 200, held(x), n goes into quarantine
//!   held(n) ──NICKNAME("")──▶ 200, none, n goes into quarantine
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use base::{Private, UnixTime};
use contract::{Decide, LegKey};
use cpm::nickname;
use serde::{Deserialize, Serialize};

use super::conference::Conference;
use super::config::Controlling;
use super::roster::MemberId;
use crate::turn::Turn;

/// What the switch answers to NICKNAME.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// 200, and the nickname as it is shown; `None` when it was given up.
    Granted(Option<String>),
    /// 403, 424 or 425.
    Refused(u32),
}

/// Nicknames that were given up and are kept from others: at most so many in one room.
const QUARANTINED_MAX: usize = 256;

/// The nicknames of one room, by the form that compares.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Nicknames {
    held: BTreeMap<Private<String>, MemberId>,
    released: BTreeMap<Private<String>, (MemberId, UnixTime)>,
}

impl Nicknames {
    /// A member asks for a nickname; an empty one gives its own up.
    pub(crate) fn ask(&mut self, config: &Controlling, now: UnixTime, who: MemberId, text: &str) -> Verdict {
        if !config.nicknames {
            // RFC 7701 §7.2: a room without nicknames.
            return Verdict::Refused(403);
        }
        self.released.retain(|_, (_, until)| *until > now);
        if text.is_empty() {
            self.release(config, now, who);
            return Verdict::Granted(None);
        }
        let Ok(shown) = nickname::enforce(text) else { return Verdict::Refused(424) };
        let key = Private::new(nickname::key(&shown));
        if is_forbidden(config, key.expose()) {
            return Verdict::Refused(403);
        }
        let taken = self.held.get(&key).is_some_and(|holder| *holder != who)
            || self.released.get(&key).is_some_and(|(last, _)| *last != who);
        if taken {
            return Verdict::Refused(425);
        }
        if self.held.get(&key) != Some(&who) {
            // The old one stays until the new one is granted: that is now.
            self.release(config, now, who);
        }
        self.released.remove(&key);
        self.held.insert(key, who);
        Verdict::Granted(Some(shown))
    }

    /// Gives a member's nickname up.
    pub(crate) fn release(&mut self, config: &Controlling, now: UnixTime, who: MemberId) {
        let until = now + Duration::from_secs(config.nickname_quarantine_s.into());
        for (key, _) in self.held.extract_if(.., |_, holder| *holder == who) {
            if self.released.len() < QUARANTINED_MAX {
                self.released.insert(key, (who, until));
            }
        }
    }
}

impl Conference {
    /// NICKNAME in the room (RFC 7701 §7; REQ-CF-25).
    pub(super) fn nickname(&mut self, turn: &mut Turn<'_>, leg: LegKey, id: u64, text: &str) {
        let member =
            self.calls.values_mut().find_map(|c| c.talk.strand_of(leg.leg).is_some().then_some(c.member));
        let Some(member) = member else {
            return turn.decide(Decide { leg: Some(leg), id, status: 481, ..Decide::default() });
        };
        let (now, config) = (turn.now.wall, turn.desk.config.controlling.clone());
        let held = self.roster.get(member).and_then(|m| m.nickname.as_ref()).map(|n| n.expose().clone());
        match self.nicknames.ask(&config, now, member, text) {
            Verdict::Granted(shown) => {
                let nickname = shown.clone().unwrap_or_default();
                turn.decide(Decide { leg: Some(leg), id, status: 200, nickname, auth: None });
                self.roster.change(member, |m| m.nickname = shown.map(Private::new));
                self.rename(turn, member);
            }
            Verdict::Refused(status) => {
                let nickname = held.unwrap_or_default();
                turn.decide(Decide { leg: Some(leg), id, status, nickname, auth: None });
            }
        }
    }

    /// The wanted state of a member's legs holds its nickname, for a data plane that has lost it.
    fn rename(&mut self, turn: &mut Turn<'_>, member: MemberId) {
        let who = self.chatter(member);
        let legs: Vec<u64> =
            self.calls_of(member).flat_map(|c| c.talk.strands.iter().map(|s| s.leg)).collect();
        if let Some(room) = &mut self.room {
            legs.into_iter().for_each(|leg| room.rename(leg, &who));
        }
        self.order(turn, Vec::new());
    }
}

fn is_forbidden(config: &Controlling, key: &str) -> bool {
    config
        .nickname_words_forbidden
        .iter()
        .filter_map(|word| nickname::enforce(word).ok())
        .any(|word| key.contains(&nickname::key(&word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MemberId = MemberId(1);
    const B: MemberId = MemberId(2);

    fn granted(text: &str) -> Verdict {
        Verdict::Granted(Some(text.to_owned()))
    }

    // RFC 7701 §7.1: 425 when another user has it, by RFC 8266 comparison; the same user may ask again.
    #[test]
    fn a_nickname_is_one_users() {
        let (config, mut names, now) = (Controlling::default(), Nicknames::default(), UnixTime::default());
        assert_eq!(names.ask(&config, now, A, " Big  Al "), granted("Big Al"));
        assert_eq!(names.ask(&config, now, B, "bIG aL"), Verdict::Refused(425));
        assert_eq!(names.ask(&config, now, A, "big al"), granted("big al"));
        assert_eq!(names.ask(&config, now, B, "Little Al"), granted("Little Al"));
    }

    // RFC 7701 §7.1: 424 for a malformed one, 403 for one that is not allowed or in a room without.
    #[test]
    fn malformed_and_forbidden_ones_are_refused_and_the_old_one_stays() {
        let config = Controlling { nickname_words_forbidden: vec!["Admin".into()], ..Controlling::default() };
        let (mut names, now) = (Nicknames::default(), UnixTime::default());
        assert_eq!(names.ask(&config, now, A, "Al"), granted("Al"));
        assert_eq!(names.ask(&config, now, A, "\u{202e}lA"), Verdict::Refused(424));
        assert_eq!(names.ask(&config, now, A, "The ADMIN"), Verdict::Refused(403));
        assert_eq!(names.ask(&config, now, B, "al"), Verdict::Refused(425));
        let without = Controlling { nicknames: false, ..Controlling::default() };
        assert_eq!(names.ask(&without, now, B, "x"), Verdict::Refused(403));
    }

    // CPM-FACTS §3.8: quarantine after release, for others only.
    #[test]
    fn what_was_given_up_is_kept_from_others_for_a_while() {
        let (config, mut names) = (Controlling::default(), Nicknames::default());
        let at = |s: u64| UnixTime::from_millis(s * 1000);
        assert_eq!(names.ask(&config, at(0), A, "Al"), granted("Al"));
        assert_eq!(names.ask(&config, at(1), A, ""), Verdict::Granted(None));
        assert_eq!(names.ask(&config, at(2), B, "al"), Verdict::Refused(425));
        assert_eq!(names.ask(&config, at(3), A, "al"), granted("al"));
        names.release(&config, at(4), A);
        assert_eq!(names.ask(&config, at(603), B, "Al"), Verdict::Refused(425));
        assert_eq!(names.ask(&config, at(605), B, "Al"), granted("Al"));
    }
}
