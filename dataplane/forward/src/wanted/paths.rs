//! Whether a path fits its legs, and taking a leg out of it.

use contract::{Mode, leg::Kind, path, refusal::Reason};

use super::{Step, Wanted, resolve};
use crate::Limits;
use crate::media::slots as slot_count;
use crate::modes::slot::SLOTS_MAX;

/// Whether a path names a leg.
pub(super) fn names(path: &contract::Path, leg: u64) -> bool {
    [&path.sources, &path.targets].into_iter().flatten().any(|set| set.legs.contains(&leg))
        || matches!(&path.parameters, Some(path::Parameters::Floor(floor)) if floor.holders.contains(&leg))
}

/// Takes a leg out of a path.
pub(super) fn unname(path: &mut contract::Path, leg: u64) {
    for set in [&mut path.sources, &mut path.targets].into_iter().flatten() {
        set.legs.retain(|l| *l != leg);
    }
    if let Some(path::Parameters::Floor(floor)) = &mut path.parameters {
        floor.holders.retain(|l| *l != leg);
    }
}

/// The slots that a path has.
pub(super) fn slots(path: &contract::Path) -> usize {
    match (path.mode(), &path.parameters) {
        (Mode::Select, Some(path::Parameters::Select(select))) => slot_count(select.slots),
        (Mode::Floor, Some(path::Parameters::Floor(floor))) => slot_count(floor.slots),
        (Mode::Select | Mode::Floor, _) => 1,
        _ => 0,
    }
}

/// Mode, parameters and legs fit together. `named`: the batch put the path, and so vouches for all that it names.
pub(super) fn check_path(path: &contract::Path, wanted: &Wanted, named: bool, limits: &Limits) -> Step {
    let sets = [&path.sources, &path.targets];
    if named && sets.into_iter().flatten().flat_map(|s| &s.legs).any(|id| !wanted.legs.contains_key(id)) {
        return Err((Reason::UnknownLeg, "a path names a leg that is not there"));
    }
    let sources = resolve(path.sources.as_ref(), wanted);
    let targets = resolve(path.targets.as_ref(), wanted);
    let is_rtp = |id: &u64| wanted.legs.get(id).is_some_and(|l| matches!(l.kind, Some(Kind::Rtp(_))));
    let rtp = sources.iter().chain(&targets).filter(|id| is_rtp(id)).count();
    let all = sources.len() + targets.len();
    if rtp != 0 && rtp != all {
        return Err((Reason::BadPath, "legs of both kinds on one path"));
    }
    if targets.len() > limits.targets_max {
        return Err((Reason::Limit, "targets of one path"));
    }
    let (is_rtp, is_msrp) = (rtp > 0, all > rtp);
    match path.mode() {
        Mode::Relay if sources.len() > 1 || targets.len() > 1 => {
            Err((Reason::BadPath, "relay leads from one leg to one"))
        }
        Mode::Relay | Mode::Distribute => Ok(()),
        Mode::Select | Mode::Floor if is_msrp => Err((Reason::BadPath, "select and floor are for RTP")),
        Mode::Select => match path.parameters {
            Some(path::Parameters::Select(select)) if slot_count(select.slots) > SLOTS_MAX => {
                Err((Reason::Limit, "slots of one path"))
            }
            Some(path::Parameters::Select(select)) if select.follows == path.id && path.id != 0 => {
                Err((Reason::BadPath, "a path cannot follow itself"))
            }
            None | Some(path::Parameters::Select(_)) => Ok(()),
            _ => Err((Reason::BadPath, "parameters of another mode")),
        },
        Mode::Floor => match &path.parameters {
            Some(path::Parameters::Floor(floor)) if slot_count(floor.slots) > SLOTS_MAX => {
                Err((Reason::Limit, "slots of one path"))
            }
            Some(path::Parameters::Floor(floor))
                if named && floor.holders.iter().any(|id| !sources.contains(id)) =>
            {
                Err((Reason::BadPath, "a holder of the floor that is no source"))
            }
            None | Some(path::Parameters::Floor(_)) => Ok(()),
            _ => Err((Reason::BadPath, "parameters of another mode")),
        },
        Mode::Switch if is_rtp => Err((Reason::BadPath, "switch is for MSRP")),
        Mode::Switch => match path.parameters {
            Some(path::Parameters::Switch(_)) => Ok(()),
            _ => Err((Reason::BadPath, "switch without parameters")),
        },
        Mode::Tap => Ok(()),
        Mode::Unspecified => Err((Reason::BadPath, "a path without a mode")),
    }
}
