//! The legs and the paths of one context: where each leg is and what it weighs, and which of them may be on several shards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use contract::change::Verb;
use contract::leg::Kind;
use contract::{Leg, LegSet, Mode, MsrpLeg, RtpLeg};

/// What a leg of video weighs against one of audio, or of messages.
const VIDEO_WEIGHT: usize = 8;

/// The legs and the paths of a context.
#[derive(Clone, Default, Debug)]
pub(super) struct Roster {
    pub(super) legs: BTreeMap<u64, Place>,
    pub(super) paths: BTreeMap<u32, Way>,
}

#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) shard: u16,
    pub(super) weight: usize,
    /// Of an MSRP leg.
    pub(super) chat: Option<Arc<Chat>>,
}

/// What is known of an MSRP leg.
#[derive(Debug)]
pub(super) struct Chat {
    media: String,
    pub(super) participant: String,
}

/// A path.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) mode: Mode,
    /// Whom it leads from and to, unless it is a room or a tap.
    sets: Arc<[LegSet]>,
}

impl Roster {
    pub(super) fn change(&mut self, verb: &Verb) {
        match verb {
            Verb::RemoveLeg(key) => {
                self.legs.remove(&key.leg);
            }
            Verb::PutPath(path) => {
                let mode = path.mode();
                let sets = [&path.sources, &path.targets].into_iter().flatten();
                let sets = sets.filter(|_| !matches!(mode, Mode::Switch | Mode::Tap)).cloned().collect();
                self.paths.insert(path.id, Way { mode, sets });
            }
            Verb::RemovePath(key) => {
                self.paths.remove(&key.path);
            }
            Verb::PutLeg(_) | Verb::PutContext(_) | Verb::RemoveContext(_) => {}
        }
    }

    /// Whether its RTP legs may be on several shards: it distributes, and does nothing that must be at home.
    pub(super) fn is_spreadable(&self) -> bool {
        self.paths.values().any(|way| way.mode == Mode::Distribute)
            && self.paths.values().all(|way| is_spread(way.mode))
    }

    /// Whether its MSRP legs may be, with those that come: there is a room, and they are on no other path than taps.
    pub(super) fn is_room(&self, coming: &[&Leg]) -> bool {
        self.paths.values().any(|way| way.mode == Mode::Switch) && self.relays_messages(coming).is_none()
    }

    /// A path that is no room and no tap, and leads messages.
    pub(super) fn relays_messages(&self, coming: &[&Leg]) -> Option<u32> {
        let is_there = |leg: &u64| self.legs.get(leg).is_some_and(|place| place.chat.is_some());
        let chat = |leg: &u64| is_there(leg) || coming.iter().any(|coming| coming.id == *leg);
        let of_media = |media: &str| {
            let mut chats = self.legs.values().filter_map(|place| place.chat.as_ref());
            let comes = coming.iter().any(|leg| leg.media == media);
            !media.is_empty() && (comes || chats.any(|chat| chat.media == media))
        };
        let leads = |set: &LegSet| of_media(&set.media) || set.legs.iter().any(chat);
        self.paths.iter().find(|(_, way)| way.sets.iter().any(leads)).map(|(id, _)| *id)
    }

    /// Whether legs of a kind are elsewhere than at home.
    pub(super) fn is_away(&self, home: u16, chat: bool) -> bool {
        self.legs.values().any(|place| place.shard != home && place.chat.is_some() == chat)
    }

    pub(super) fn outposts(&self, home: u16) -> BTreeSet<u16> {
        self.legs.values().map(|place| place.shard).filter(|shard| *shard != home).collect()
    }
}

/// Modes that may be in a context whose RTP legs are on several shards.
pub(super) const fn is_spread(mode: Mode) -> bool {
    matches!(mode, Mode::Distribute | Mode::Switch)
}

impl Place {
    pub(super) fn new(shard: u16, leg: &Leg) -> Self {
        let chat = match &leg.kind {
            Some(Kind::Msrp(_)) => {
                let (media, participant) = (leg.media.clone(), leg.participant.clone());
                Some(Arc::new(Chat { media, participant }))
            }
            _ => None,
        };
        Place { shard, weight: weight(leg), chat }
    }
}

pub(super) fn weight(leg: &Leg) -> usize {
    if matches!(&leg.kind, Some(Kind::Rtp(rtp)) if rtp.video) { VIDEO_WEIGHT } else { 1 }
}

pub(super) fn asked_port(rtp: &RtpLeg) -> u16 {
    let port = rtp.local.as_ref().and_then(|local| local.bound.as_ref()).map_or(0, |bound| bound.port);
    u16::try_from(port).unwrap_or(0)
}

/// The shard that has drawn the session that control names (see `forward`): its first three digits.
pub(super) fn asked_session(msrp: &MsrpLeg) -> Option<u16> {
    let session = msrp.local.as_ref().map(|local| local.session.as_str())?;
    u16::from_str_radix(session.get(..3)?, 16).ok()
}
