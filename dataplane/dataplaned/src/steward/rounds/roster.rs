//! The RTP legs and the paths of one context: where each leg is and what it weighs, and whether the context may be on several
//! shards.

use std::collections::{BTreeMap, BTreeSet};

use contract::change::Verb;
use contract::{Mode, RtpLeg};

/// What a leg of video weighs against one of audio.
const VIDEO_WEIGHT: usize = 8;

/// The RTP legs and the paths of a context.
#[derive(Clone, Default, Debug)]
pub(super) struct Roster {
    pub(super) legs: BTreeMap<u64, Place>,
    pub(super) paths: BTreeMap<u32, Mode>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) shard: u16,
    pub(super) weight: usize,
}

impl Roster {
    pub(super) fn change(&mut self, verb: &Verb) {
        match verb {
            Verb::RemoveLeg(key) => {
                self.legs.remove(&key.leg);
            }
            Verb::PutPath(path) => {
                self.paths.insert(path.id, path.mode());
            }
            Verb::RemovePath(key) => {
                self.paths.remove(&key.path);
            }
            Verb::PutLeg(_) | Verb::PutContext(_) | Verb::RemoveContext(_) => {}
        }
    }

    /// Whether it distributes, and does nothing that must be at home.
    pub(super) fn is_spreadable(&self) -> bool {
        self.paths.values().any(|mode| *mode == Mode::Distribute)
            && self.paths.values().all(|mode| is_spread(*mode))
    }

    pub(super) fn outposts(&self, home: u16) -> BTreeSet<u16> {
        self.legs.values().map(|place| place.shard).filter(|shard| *shard != home).collect()
    }
}

/// Modes that may be in a context on several shards; messages are at home.
pub(super) const fn is_spread(mode: Mode) -> bool {
    matches!(mode, Mode::Distribute | Mode::Switch)
}

pub(super) const fn weight(rtp: &RtpLeg) -> usize {
    if rtp.video { VIDEO_WEIGHT } else { 1 }
}

pub(super) fn asked_port(rtp: &RtpLeg) -> u16 {
    let port = rtp.local.as_ref().and_then(|local| local.bound.as_ref()).map_or(0, |bound| bound.port);
    u16::try_from(port).unwrap_or(0)
}
