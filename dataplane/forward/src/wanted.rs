//! What control wants, per context: legs and paths as put. A batch is staged on a copy, checked whole, and only
//! then applied (DESIGN §3).

mod bundles;
mod paths;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use contract::{Batch, LegSet, change::Verb, leg::Kind, refusal::Reason};

use bundles::place_riders;
use paths::{check_path, names, slots, unname};

use crate::few::Few;
use crate::{Attachment, Elsewhere, Limits};

/// The wanted state of one context.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) legs: Few<u64, Arc<contract::Leg>>,
    pub(crate) paths: Few<u32, Arc<contract::Path>>,
}

/// The leg ids that a set means now.
pub(crate) fn resolve(set: Option<&LegSet>, wanted: &Wanted) -> BTreeSet<u64> {
    let Some(set) = set else { return BTreeSet::new() };
    // Who is unseen hears and is heard only where control names him: what he would send to all would show him.
    let of_media = |l: &&Arc<contract::Leg>| !set.media.is_empty() && l.media == set.media && !l.unseen;
    let by_media = wanted.legs.values().filter(of_media).map(|l| l.id);
    set.legs.iter().copied().filter(|id| wanted.legs.contains_key(id)).chain(by_media).collect()
}

/// What a leg has to do with others' transports.
pub(crate) fn bundle_of(leg: &contract::Leg) -> Option<&contract::Bundle> {
    match &leg.kind {
        Some(Kind::Rtp(rtp)) => rtp.bundle.as_deref(),
        _ => None,
    }
}

/// The leg on whose transport a leg rides.
pub(crate) fn rides_on(leg: &contract::Leg) -> Option<u64> {
    bundle_of(leg).map(|bundle| bundle.carrier).filter(|carrier| *carrier != 0)
}

/// Why a batch cannot be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refused {
    pub(crate) reason: Reason,
    pub(crate) change: usize,
    pub(crate) detail: &'static str,
}

/// The contexts that a batch touches, as they will be; `None`: removed.
pub(crate) type Staged = BTreeMap<u64, Option<Wanted>>;

/// What staging must ask the tables.
pub(crate) trait Present {
    /// The wanted state of a context that is up.
    fn wanted(&self, context: u64) -> Option<&Wanted>;
    /// Contexts and legs that are up.
    fn counts(&self) -> (usize, usize);
    /// Whether a socket may be attached.
    fn is_free(&self, socket: crate::SocketId) -> bool;
    /// Whether a session id is that of another leg than this one.
    fn session_taken(&self, session: &str, by: contract::LegKey) -> bool;
    /// A session id with its path and address for a new MSRP leg, here or on another shard.
    fn draw_session(&mut self, tls: bool, shard: Option<u16>) -> Option<contract::MsrpLocal>;
}

struct Stage<'a, P> {
    present: &'a mut P,
    limits: &'a Limits,
    attachments: &'a [Attachment],
    elsewhere: &'a [Elsewhere],
    staged: Staged,
    /// Which change last touched a context, and which put a path.
    touched: BTreeMap<u64, usize>,
    put: BTreeMap<(u64, u32), usize>,
    draining: bool,
}

type Step = Result<(), (Reason, &'static str)>;

/// Stages a whole batch, or says what is wrong with it.
pub(crate) fn stage<P: Present>(
    batch: &Batch,
    (attachments, elsewhere): (&[Attachment], &[Elsewhere]),
    present: &mut P,
    limits: &Limits,
    draining: bool,
) -> Result<Staged, Refused> {
    let mut stage = Stage {
        present,
        limits,
        attachments,
        elsewhere,
        staged: Staged::new(),
        touched: BTreeMap::new(),
        put: BTreeMap::new(),
        draining,
    };
    if batch.changes.len() > limits.batch_changes_max {
        return Err(Refused { reason: Reason::Limit, change: 0, detail: "too many changes in a batch" });
    }
    for (change, verb) in batch.changes.iter().enumerate() {
        let refused = |(reason, detail)| Refused { reason, change, detail };
        match verb.verb.as_ref() {
            Some(verb) => stage.change(change, verb).map_err(refused)?,
            None => return Err(refused((Reason::Unsupported, "a change without a verb"))),
        }
    }
    stage.check_bundles()?;
    stage.check_paths()?;
    stage.check_counts()?;
    Ok(stage.staged)
}

impl<P: Present> Stage<'_, P> {
    fn change(&mut self, index: usize, verb: &Verb) -> Step {
        match verb {
            Verb::PutContext(context) => {
                self.touched.insert(context.id, index);
                if self.current(context.id).is_none() {
                    if self.draining {
                        return Err((Reason::Draining, "no new contexts"));
                    }
                    self.staged.insert(context.id, Some(Wanted::default()));
                }
                Ok(())
            }
            Verb::RemoveContext(id) => {
                // What is not there is removed already.
                self.staged.insert(*id, None);
                Ok(())
            }
            Verb::PutLeg(leg) => {
                self.touched.insert(leg.context, index);
                self.put_leg(leg)
            }
            Verb::RemoveLeg(key) => {
                self.touched.insert(key.context, index);
                if let Some(wanted) = self.edit(key.context) {
                    wanted.legs.remove(&key.leg);
                    for path in wanted.paths.values_mut().filter(|p| names(p, key.leg)) {
                        unname(Arc::make_mut(path), key.leg);
                    }
                }
                Ok(())
            }
            Verb::PutPath(path) => {
                self.touched.insert(path.context, index);
                self.put.insert((path.context, path.id), index);
                let paths_max = self.limits.context_paths_max;
                let wanted =
                    self.edit(path.context).ok_or((Reason::UnknownContext, "a path of no context"))?;
                wanted.paths.insert(path.id, Arc::new(path.clone()));
                if wanted.paths.len() > paths_max {
                    return Err((Reason::Limit, "paths of one context"));
                }
                Ok(())
            }
            Verb::RemovePath(key) => {
                self.touched.insert(key.context, index);
                if let Some(wanted) = self.edit(key.context) {
                    wanted.paths.remove(&key.path);
                }
                Ok(())
            }
        }
    }

    fn current(&self, context: u64) -> Option<&Wanted> {
        match self.staged.get(&context) {
            Some(staged) => staged.as_ref(),
            None => self.present.wanted(context),
        }
    }

    fn edit(&mut self, context: u64) -> Option<&mut Wanted> {
        if !self.staged.contains_key(&context) {
            let copy = self.present.wanted(context)?.clone();
            self.staged.insert(context, Some(copy));
        }
        self.staged.get_mut(&context)?.as_mut()
    }

    fn put_leg(&mut self, leg: &contract::Leg) -> Step {
        let old = self.current(leg.context).ok_or((Reason::UnknownContext, "a leg of no context"))?;
        let old = old.legs.get(&leg.id).cloned();
        let mut leg = leg.clone();
        let key = leg.key();
        match (&mut leg.kind, old.as_ref().and_then(|o| o.kind.as_ref())) {
            (Some(Kind::Rtp(rtp)), old @ (None | Some(Kind::Rtp(_)))) => {
                let old = match old {
                    // What it rode on was not its own.
                    Some(Kind::Rtp(old)) if old.bundle.as_ref().is_none_or(|b| b.carrier == 0) => {
                        old.local.clone()
                    }
                    _ => None,
                };
                self.check_rtp(key, rtp, old)?;
            }
            (Some(Kind::Msrp(msrp)), old @ (None | Some(Kind::Msrp(_)))) => {
                let old = match old {
                    Some(Kind::Msrp(old)) => old.local.clone(),
                    _ => None,
                };
                self.check_msrp(key, msrp, old)?;
            }
            (None, _) => return Err((Reason::BadLeg, "a leg without a kind")),
            _ => return Err((Reason::BadLeg, "a leg cannot change its kind")),
        }
        let legs_max = self.limits.context_legs_max;
        let wanted = self.edit(leg.context).ok_or((Reason::UnknownContext, "a leg of no context"))?;
        wanted.legs.insert(leg.id, Arc::new(leg));
        if wanted.legs.len() > legs_max {
            return Err((Reason::Limit, "legs of one context"));
        }
        Ok(())
    }

    fn check_rtp(
        &mut self,
        key: contract::LegKey,
        rtp: &mut contract::RtpLeg,
        old: Option<contract::RtpLocal>,
    ) -> Step {
        for address in rtp.remote.iter().chain(rtp.remote_rtcp.as_deref()) {
            if address.socket().is_none() {
                return Err((Reason::BadLeg, "an address that is none"));
            }
        }
        if rtp.payloads.iter().any(|p| p.peer > 127 || p.context > 127) {
            return Err((Reason::BadLeg, "a payload type over 127"));
        }
        if rtp.audio_level_id > 255 || contract::Learning::try_from(rtp.learning).is_err() {
            return Err((Reason::BadLeg, "an extension id or learning mode out of range"));
        }
        let is_id = |id: u32| (1..=255).contains(&id);
        if rtp.extensions.iter().flat_map(|put| &put.ids).any(|id| !is_id(id.peer) || !is_id(id.context)) {
            return Err((Reason::BadLeg, "a header extension's id out of range"));
        }
        if rtp.continuity.as_ref().is_some_and(|c| c.slots.len() > self.limits.context_slots_max) {
            return Err((Reason::Limit, "slots of one context"));
        }
        if rtp.srtp.as_ref().is_some_and(|srtp| !crate::media::is_sound(srtp)) {
            return Err((Reason::BadLeg, "a key that is not its suite's"));
        }
        if !crate::media::web_is_sound(rtp) {
            return Err((Reason::BadLeg, "ICE or DTLS that cannot be: fields, keys beside, or no rtcp-mux"));
        }
        if rtp.bundle.as_ref().is_some_and(|bundle| bundle.carrier != 0) {
            // It is where the one is that it rides on, once the whole batch is known.
            rtp.local = None;
            return Ok(());
        }
        let port = |local: &contract::RtpLocal| local.bound.as_ref().map_or(0, |b| b.port);
        let asked = rtp.local.as_ref().map_or(0, port);
        if let Some(elsewhere) = self.elsewhere.iter().find(|e| e.leg == key) {
            // Its own shard has bound it, and looked at the sockets.
            rtp.local = match (&elsewhere.local, old) {
                (Some(local), _) => Some(local.clone()),
                (None, Some(old)) if asked == 0 || asked == port(&old) => Some(old),
                (None, _) => return Err((Reason::NoPort, "no socket was bound for the leg")),
            };
            return Ok(());
        }
        let attached = self.attachments.iter().find(|a| a.leg == key);
        rtp.local = match (attached, old) {
            (Some(attached), _) => {
                let sockets = [Some(attached.rtp), attached.rtcp];
                if !sockets.into_iter().flatten().all(|s| self.present.is_free(s))
                    || attached.rtcp == Some(attached.rtp)
                {
                    return Err((Reason::NoPort, "a socket that is taken or out of range"));
                }
                if asked != 0 && asked != port(&attached.local) {
                    return Err((Reason::NoPort, "another port than was asked for"));
                }
                Some(attached.local.clone())
            }
            (None, Some(old)) if asked == 0 || asked == port(&old) => Some(old),
            (None, _) => return Err((Reason::NoPort, "no socket was bound for the leg")),
        };
        Ok(())
    }

    fn check_msrp(
        &mut self,
        key: contract::LegKey,
        msrp: &mut contract::MsrpLeg,
        old: Option<contract::MsrpLocal>,
    ) -> Step {
        if !matches!(msrp.fingerprint.len(), 0 | 32) {
            return Err((Reason::BadLeg, "a fingerprint that is no SHA-256"));
        }
        if msrp.connect.as_ref().is_some_and(|a| a.socket().is_none()) {
            return Err((Reason::BadLeg, "an address that is none"));
        }
        if !crate::message::path_is_sound(&msrp.remote_path) {
            return Err((Reason::BadLeg, "a remote path that does not parse"));
        }
        let asked = msrp.local.clone().unwrap_or_default();
        let local = match old {
            Some(old) if asked.session.is_empty() || asked.session == old.session => old,
            Some(_) => return Err((Reason::BadLeg, "a leg cannot change its session")),
            None if asked.session.is_empty() => {
                let drawn = {
                    let elsewhere = self.elsewhere.iter().find(|e| e.leg == key).map(|e| e.shard);
                    self.present.draw_session(msrp.tls, elsewhere)
                };
                let drawn = drawn.ok_or((Reason::Unsupported, "no listener for TLS"))?;
                contract::MsrpLocal { advertised: asked.advertised.or(drawn.advertised), ..drawn }
            }
            None => asked,
        };
        let twice = self.staged.values().flatten().flat_map(|w| w.legs.values()).any(|leg| {
            leg.key() != key
                && matches!(&leg.kind, Some(Kind::Msrp(m)) if m.local.as_ref().is_some_and(|l| l.session == local.session))
        });
        if twice || self.present.session_taken(&local.session, key) {
            return Err((Reason::BadLeg, "a session that is another leg's"));
        }
        if !crate::message::path_is_sound(std::slice::from_ref(&local.path)) || local.path.is_empty() {
            return Err((Reason::BadLeg, "a local path that does not parse"));
        }
        msrp.local = Some(local);
        Ok(())
    }

    /// Who rides on another leg's transport can, and is where that one is.
    fn check_bundles(&mut self) -> Result<(), Refused> {
        for (context, wanted) in &mut self.staged {
            let Some(wanted) = wanted else { continue };
            let change = self.touched.get(context).copied().unwrap_or(0);
            place_riders(wanted).map_err(|detail| Refused { reason: Reason::BadLeg, change, detail })?;
        }
        Ok(())
    }

    /// Each path of each touched context fits its legs.
    fn check_paths(&self) -> Result<(), Refused> {
        for (context, wanted) in self.staged.iter().filter_map(|(id, w)| Some((*id, w.as_ref()?))) {
            let mut slots_left = self.limits.context_slots_max;
            for path in wanted.paths.values() {
                let put = self.put.get(&(context, path.id));
                let change = put.or(self.touched.get(&context)).copied().unwrap_or(0);
                // Only a path that this batch put can name legs that are not there: removal takes the names out.
                check_path(path, wanted, put.is_some(), self.limits).map_err(|(reason, detail)| Refused {
                    reason,
                    change,
                    detail,
                })?;
                slots_left = slots_left.checked_sub(slots(path)).ok_or(Refused {
                    reason: Reason::Limit,
                    change,
                    detail: "slots of one context",
                })?;
            }
        }
        Ok(())
    }

    fn check_counts(&self) -> Result<(), Refused> {
        let (mut contexts, mut legs) = self.present.counts();
        for (id, wanted) in &self.staged {
            let old = self.present.wanted(*id);
            contexts = contexts + usize::from(wanted.is_some()) - usize::from(old.is_some());
            legs = legs + wanted.as_ref().map_or(0, |w| w.legs.len()) - old.map_or(0, |w| w.legs.len());
        }
        if contexts > self.limits.contexts_max || legs > self.limits.legs_max {
            let change = self.touched.values().max().copied().unwrap_or(0);
            return Err(Refused { reason: Reason::Limit, change, detail: "contexts or legs of the shard" });
        }
        Ok(())
    }
}
