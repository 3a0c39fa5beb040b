//! Legs whose context is spread over shards (see [`crate::outposts`]): the stand-in that a leg has on the others, what is
//! handed over to it, and what it hands back.

use base::Now;
use bytes::Bytes;
use rtp::RtpView;

use super::arrive::{Packet, drop_of};
use super::talk::Estimate;
use super::{Media, RtpLeg, Tx};
use crate::modes::slot::Part;
use crate::outposts::{Handed, Word};
use crate::{Drop, Output};

/// What a leg has beside others when its context is spread. Kept in a box that plain legs lack.
#[derive(Debug, Default)]
pub(crate) struct Spread {
    /// The row is a stand-in: its leg is on that shard.
    away: Option<u16>,
    /// The other shards that have receivers of what the leg's peer sends.
    outposts: Vec<u16>,
    /// What the receivers of each can take.
    pub(super) rates: Vec<(u16, Estimate)>,
}

impl RtpLeg {
    /// The shard of the leg for which the row stands in.
    pub(crate) fn away(&self) -> Option<u16> {
        self.spread.as_ref().and_then(|spread| spread.away)
    }

    /// What the leg's peer sends goes to these shards too.
    pub(super) fn reach(&mut self, outposts: &[u16]) {
        if outposts.is_empty() || self.away().is_some() {
            return;
        }
        let spread = self.spread.get_or_insert_with(Box::default);
        for shard in outposts {
            if !spread.outposts.contains(shard) {
                spread.outposts.push(*shard);
            }
        }
        if !self.parts.contains(&Part::Spread) {
            self.parts.push(Part::Spread);
        }
    }

    /// Before the routes are made anew.
    pub(super) fn reach_nobody(&mut self) {
        if let Some(spread) = &mut self.spread {
            spread.outposts.clear();
        }
    }
}

impl Tx<'_> {
    fn hand(&mut self, shard: u16, handed: Handed) -> bool {
        let put = self.push(Output::Hand { shard, handed: Box::new(handed) });
        self.totals.handed_out += u64::from(put);
        put
    }
}

impl Media {
    /// Puts the stand-in of a leg that is on another shard.
    pub(crate) fn put_away(
        &mut self,
        now: Now,
        leg: &contract::Leg,
        rtp: &contract::RtpLeg,
        (shard, old): (u16, Option<u32>),
    ) -> u32 {
        let at = old.unwrap_or_else(|| self.insert(now, leg, rtp));
        let cname = self.cname_of(leg, rtp);
        if let Some(row) = self.leg_mut(at) {
            row.cname = cname;
            row.talk.put(rtp);
            row.describe(leg, rtp);
            row.spread.get_or_insert_with(Box::default).away = Some(shard);
        }
        at
    }

    /// The other shards on which some of these legs are that may be sent to.
    pub(super) fn shards_of(&self, legs: &[u32]) -> Vec<u16> {
        let rows = legs.iter().filter_map(|at| self.leg(*at)).filter(|row| row.may_receive);
        let mut shards: Vec<u16> = rows.filter_map(RtpLeg::away).collect();
        shards.sort_unstable();
        shards.dedup();
        shards
    }

    /// Hands a packet to the shards that have receivers of it: copied once, and shared by them.
    #[cold]
    pub(super) fn hand(&self, leg: u32, packet: &Packet<'_>, bytes: &[u8], tx: &mut Tx<'_>) -> bool {
        let Some(row) = self.leg(leg) else { return false };
        let shards = row.spread.as_ref().map(|spread| spread.outposts.as_slice()).unwrap_or_default();
        let (shown, shared) = (packet.shown, Bytes::copy_from_slice(bytes));
        let mut handed = false;
        for shard in shards {
            let word = Word::Packet { shown, bytes: shared.clone() };
            handed |= tx.hand(*shard, Handed { from: self.shard, leg: row.key, word });
        }
        handed
    }

    /// Tells a leg's stand-ins something.
    pub(super) fn tell_outposts(&self, leg: u32, word: &Word, tx: &mut Tx<'_>) {
        let Some(row) = self.leg(leg) else { return };
        let shards = row.spread.as_ref().map(|spread| spread.outposts.as_slice()).unwrap_or_default();
        for shard in shards {
            tx.hand(*shard, Handed { from: self.shard, leg: row.key, word: word.clone() });
        }
    }

    /// Tells the leg for which a row stands in something; false when it stands in for nobody.
    pub(super) fn tell_leg(&self, leg: u32, word: Word, tx: &mut Tx<'_>) -> bool {
        let Some((row, shard)) = self.leg(leg).and_then(|row| Some((row, row.away()?))) else { return false };
        tx.hand(shard, Handed { from: self.shard, leg: row.key, word });
        true
    }

    /// Takes what another shard hands over.
    pub(crate) fn handed(&mut self, now: Now, at: u32, handed: &Handed, tx: &mut Tx<'_>) -> Result<(), Drop> {
        let row = self.leg_mut(at).ok_or(Drop::OutpostUnknown)?;
        // Only a leg's own shard speaks for it, and only the leg is spoken to by others.
        if row.away() != handed.word.goes_out().then_some(handed.from) {
            return Err(Drop::OutpostUnknown);
        }
        match &handed.word {
            Word::Packet { shown, bytes } => {
                return self.handed_packet(now, at, *shown, bytes, tx).map_err(|_| Drop::OutpostUnsent);
            }
            Word::Sender(info) => {
                if let Some(source) = row.sources.iter_mut().find(|s| s.ssrc == info.ssrc) {
                    source.reported = Some((*info, now.mono));
                }
            }
            Word::Bye(ssrc) => self.source_left(at, *ssrc, now, tx),
            Word::KeyFrame(ssrc) => self.want_key_frame(at, *ssrc, now, tx),
            Word::Missing { ssrc, numbers } => self.ask_for(at, *ssrc, numbers.iter().copied(), now, tx),
            Word::Message(_) => return Err(Drop::OutpostUnknown),
            Word::Rate(bits_per_second) => {
                let estimate = Estimate { bits_per_second: *bits_per_second, at: now.mono };
                let spread = row.spread.get_or_insert_with(Box::default);
                match spread.rates.iter_mut().find(|(from, _)| *from == handed.from) {
                    Some((_, rate)) => *rate = estimate,
                    None => spread.rates.push((handed.from, estimate)),
                }
                self.tell_source(at, now, tx);
            }
        }
        Ok(())
    }

    /// A packet of the leg for which the row stands in: looked at there, led on here.
    fn handed_packet(
        &mut self,
        now: Now,
        at: u32,
        shown: u32,
        bytes: &[u8],
        tx: &mut Tx<'_>,
    ) -> Result<(), Drop> {
        self.held.clear();
        self.now = now.mono;
        let view = RtpView::parse(bytes).map_err(drop_of)?;
        let row = self.leg(at).ok_or(Drop::NoLeg)?;
        let heard = |at: u32| self.leg(at).is_some_and(|target| !target.unseen);
        // What a leg that is unseen needs, the source would see.
        let wants_key_frame = row.video && row.fans.iter().any(|route| heard(route.leg));
        let known = row.sources.iter().position(|source| source.ssrc == view.ssrc());
        let place = match known {
            Some(place) => place,
            None => self.new_source(now, at, &view, shown)?,
        };
        let row = self.leg_mut(at).ok_or(Drop::NoLeg)?;
        let source = row.sources.get_mut(place).ok_or(Drop::Sources)?;
        (source.last_at, source.last_timestamp) = (now.mono, view.timestamp());
        let shown = source.shown;
        row.last_at = now.mono;
        let packet = Packet { view, bytes: bytes.len(), shown, opened: false };
        let led = self.lead(now, at, &packet, bytes, tx).map(|_| ());
        if known.is_none() && wants_key_frame {
            // Its receivers here have missed what came before.
            self.want_key_frame(at, view.ssrc(), now, tx);
        }
        led
    }
}
