//! Paths with slots made flat: who may hold a slot, who is sent to, and which of a leg's streams each slot feeds. A slot keeps
//! its stream, and so its SSRC, as long as its path is there.

use std::collections::{BTreeMap, BTreeSet};

use base::Now;
use contract::{Floor, Path, Select, path::Parameters};
use rtp::RtcpWriter;

use super::flatten::Ends;
use super::{Media, RtpLeg, Stream, Tx};
use crate::modes::select::{Selection, Talker};
use crate::modes::slot::{Part, SLOTS_MAX, Stage, Target};
use crate::wanted::{Wanted, resolve};

/// A slot of a path.
type Slot = (u32, u32);

/// So many slots has a path that says `slots`.
pub(crate) const fn count(slots: u32) -> usize {
    if slots == 0 { 1 } else { slots as usize }
}

impl Media {
    /// Puts a path with slots; who sits in one stays, if control lets him. Who got one by control's word is added to `begun`.
    pub(super) fn stage(
        &mut self,
        now: Now,
        path: &Path,
        ends: &Ends,
        legs: &BTreeMap<u64, u32>,
        begun: &mut Vec<u32>,
    ) -> u32 {
        let key = path.key();
        let at = match self.staged.get(&(key.context, key.path)) {
            Some(at) => *at,
            None => {
                let at = self.stages.insert(Stage::default()) as u32;
                self.staged.insert((key.context, key.path), at);
                at
            }
        };
        let Some(stage) = self.stages.get_mut(at as usize) else { return at };
        stage.path = path.id;
        stage.targets =
            ends.targets.iter().map(|leg| Target { leg: *leg, streams: [0; SLOTS_MAX] }).collect();
        if path.mode() == contract::Mode::Floor {
            let floor = match &path.parameters {
                Some(Parameters::Floor(floor)) => floor.clone(),
                _ => Floor::default(),
            };
            stage.choice = None;
            stage.contributors = floor.contributors;
            stage.shape(count(floor.slots), false);
            let holders: Vec<u32> = floor.holders.iter().filter_map(|id| legs.get(id).copied()).collect();
            let holders: Vec<u32> = holders.into_iter().filter(|leg| ends.sources.contains(leg)).collect();
            begun.extend(stage.hold(&holders, now.mono));
        } else {
            let select = match path.parameters {
                Some(Parameters::Select(select)) => select,
                _ => Select::default(),
            };
            stage.contributors = select.contributors;
            stage.shape(count(select.slots), true);
            let choice = stage.choice.get_or_insert_with(|| Box::new(Selection::new()));
            choice.hold(select.hold_ms);
            choice.talkers.retain(|talker| ends.sources.contains(&talker.leg));
            for leg in &ends.sources {
                if !choice.talkers.iter().any(|talker| talker.leg == *leg) {
                    choice.talkers.push(Talker::new(*leg));
                }
            }
            stage.keep(|leg| ends.sources.contains(&leg));
            let Stage { seats, choice: Some(choice), .. } = stage else { return at };
            for seat in seats {
                let place = choice.talkers.iter().position(|talker| Some(talker.leg) == seat.leg);
                seat.place = place.unwrap_or(0) as u32;
            }
        }
        let places: Vec<Part> = match &stage.choice {
            Some(choice) => {
                let place = |leg: &u32| choice.talkers.iter().position(|talker| talker.leg == *leg);
                ends.sources.iter().map(|leg| Part::Talker(at, place(leg).unwrap_or(0) as u32)).collect()
            }
            None => vec![Part::Speaker(at); ends.sources.len()],
        };
        for (leg, part) in ends.sources.iter().zip(places) {
            if let Some(row) = self.leg_mut(*leg) {
                (row.led, row.terminates) = (true, true);
                row.parts.push(part);
            }
        }
        for leg in &ends.targets {
            if let Some(row) = self.leg_mut(*leg) {
                row.terminates = true;
            }
        }
        at
    }

    /// Lets the loudness of another path's sources decide, where the path says so and they are there.
    pub(super) fn follow(&mut self, at: u32, path: &Path, legs: &BTreeMap<u64, u32>, wanted: &Wanted) {
        let Some(Parameters::Select(select)) = path.parameters else { return };
        let other = wanted.paths.get(&select.follows);
        let voices = other.map(|other| resolve(other.sources.as_ref(), wanted)).unwrap_or_default();
        let whose =
            |id: &u64| wanted.legs.get(id).map(|leg| leg.participant.as_str()).filter(|p| !p.is_empty());
        let sources = resolve(path.sources.as_ref(), wanted);
        let Some(stage) = self.stages.get_mut(at as usize) else { return };
        let Some(choice) = &mut stage.choice else { return };
        let mut parts = Vec::new();
        for voice in &voices {
            let same = sources.iter().filter(|id| whose(id).is_some() && whose(id) == whose(voice));
            for leg in same.filter_map(|id| legs.get(id)) {
                if let (Some(place), Some(voice)) =
                    (choice.talkers.iter().position(|talker| talker.leg == *leg), legs.get(voice))
                {
                    parts.push((*voice, Part::Voice(at, place as u32)));
                }
            }
        }
        choice.follows = !parts.is_empty();
        for (voice, part) in parts {
            if let Some(row) = self.leg_mut(voice) {
                row.parts.push(part);
            }
        }
    }

    /// Gives each slot of each target its stream; those of slots that are no more say BYE (RFC 3550 §6.6).
    pub(super) fn assign_streams(
        &mut self,
        now: Now,
        legs: &BTreeMap<u64, u32>,
        stages: &[u32],
        tx: &mut Tx<'_>,
    ) {
        let mut claims: BTreeMap<u32, BTreeSet<Slot>> = BTreeMap::new();
        for stage in stages.iter().filter_map(|at| self.stages.get(*at as usize)) {
            for target in &stage.targets {
                claims
                    .entry(target.leg)
                    .or_default()
                    .extend((0..stage.slots as u32).map(|n| (stage.path, n)));
            }
        }
        for leg in legs.values() {
            let claims = claims.remove(leg).unwrap_or_default();
            let Some(row) = self.leg_mut(*leg) else { continue };
            let gone = row.release(&claims);
            let wanted: Vec<Slot> =
                claims.into_iter().filter(|slot| !row.streams().any(|s| s.of == Some(*slot))).collect();
            for slot in wanted {
                self.claim(now, *leg, slot);
            }
            self.gone(*leg, &gone, tx);
        }
        for at in stages {
            let Some(mut stage) = self.stages.get_mut(*at as usize).map(std::mem::take) else { continue };
            for target in &mut stage.targets {
                let Some(row) = self.leg(target.leg) else { continue };
                for (slot, number) in target.streams.iter_mut().enumerate().take(stage.slots) {
                    let of = Some((stage.path, slot as u32));
                    *number =
                        row.streams().position(|s| s.of == of).and_then(|n| n.try_into().ok()).unwrap_or(0);
                }
                let Some(row) = self.leg_mut(target.leg) else { continue };
                for number in target.streams.iter().take(stage.slots) {
                    if let Some(stream) = row.stream_mut(*number) {
                        stream.named = stage.contributors;
                        // Who left is carried no more.
                        stream.carries = stream.carries.filter(|c| legs.values().any(|leg| *leg == c.leg));
                    }
                }
            }
            if let Some(place) = self.stages.get_mut(*at as usize) {
                *place = stage;
            }
        }
    }

    /// Gives a slot a stream of the leg: its own first, while no other slot feeds it.
    fn claim(&mut self, now: Now, leg: u32, slot: Slot) {
        let (ssrc, sequence, timestamp) =
            (self.fresh_ssrc(), self.entropy.below(1 << 15) as u16, self.entropy.u32());
        let Some(row) = self.leg_mut(leg) else { return };
        if row.stream.of.is_none() {
            row.stream.of = Some(slot);
        } else {
            row.more.push(Stream::new(ssrc, sequence, timestamp, now.mono).for_slot(slot));
        }
    }

    /// Says BYE for streams of our own to the leg that had them.
    fn gone(&mut self, leg: u32, ssrcs: &[u32], tx: &mut Tx<'_>) {
        let Some((row, socket)) = self.leg(leg).and_then(|row| Some((row, row.rtcp_out()?))) else { return };
        if ssrcs.is_empty() {
            return;
        }
        let own = row.stream.ssrc;
        let mut writer = RtcpWriter::new();
        writer.receiver(own, &[]).description([(own, row.cname.as_str())].into_iter()).bye(ssrcs);
        self.send_own(leg, socket, &writer, tx);
    }

    /// Forgets the context's stages but those.
    pub(super) fn forget_stages(&mut self, context: u64, kept: &[u32]) {
        let all = self.staged.range((context, 0)..=(context, u32::MAX));
        let gone: Vec<(u64, u32)> = all.filter(|(_, at)| !kept.contains(at)).map(|(key, _)| *key).collect();
        for key in gone {
            if let Some(at) = self.staged.remove(&key)
                && self.stages.contains(at as usize)
            {
                self.stages.remove(at as usize);
            }
        }
    }

    /// The context is gone.
    pub(crate) fn forget_context(&mut self, context: u64) {
        self.forget_stages(context, &[]);
    }

    /// Who sits on a path's seats, for tests: the legs' ids.
    #[cfg(test)]
    pub(crate) fn seated(&self, key: contract::PathKey) -> Vec<Option<u64>> {
        let Some(at) = self.staged.get(&(key.context, key.path)) else { return Vec::new() };
        let seats = self.stages.get(*at as usize).map(|stage| stage.seats.as_slice()).unwrap_or_default();
        let id = |leg: u32| self.leg(leg).map(|row| row.key.leg);
        seats.iter().map(|seat| seat.leg.and_then(id)).collect()
    }
}

impl RtpLeg {
    /// Lets streams go whose slots are not claimed; the SSRCs that are heard no more.
    fn release(&mut self, claims: &BTreeSet<Slot>) -> Vec<u32> {
        let is_claimed = |stream: &Stream| stream.of.is_some_and(|slot| claims.contains(&slot));
        if !is_claimed(&self.stream) {
            // It is the leg's own, and the next slot's that leads here.
            (self.stream.of, self.stream.carries) = (None, None);
        }
        let gone = self.more.iter().filter(|s| s.started && !is_claimed(s)).map(|s| s.ssrc).collect();
        for stream in self.more.iter().filter(|s| !is_claimed(s)) {
            self.counts.packets_out += u64::from(stream.packets);
            self.counts.bytes_out += stream.bytes;
        }
        self.more.retain(is_claimed);
        gone
    }
}
