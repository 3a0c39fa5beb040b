//! Lines that share one transport (RFC 9143 §9.2): to which of its legs belongs what came on it. The leg whose transport it
//! is has the socket, ICE, the handshake and the keys; those that ride on it have rows like all others, with that one's
//! socket, and their keys are looked up there (`guard`). Only what the peer's keys have opened comes here: a stranger
//! changes nothing.
//!
//! ```text
//!   RTP   its MID is one leg's ────────────────────────────► that leg; its SSRC is that leg's from now on
//!         its MID is no leg's ─────────────────────────────► dropped
//!         its SSRC is known (a MID, a=ssrc, earlier packets) ► that leg
//!         its payload type is one leg's alone ──────────────► that leg; its SSRC is that leg's from now on
//!         else ─────────────────────────────────────────────► dropped
//!   RTCP  packet by packet: a report to the leg that its sender is known on, each of its blocks to the leg that sends
//!         what it is about; feedback to the leg that sends its target; what is left, to the leg of its sender
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;

use base::Now;
use rtp::{Block, Feedback, Packet, RtcpWriter, RtpView, SenderInfo};

use super::arrive::{Fate, drop_of};
use super::latch::Heard;
use super::police::Police;
use super::{Binding, Guard, Media, Tx};
use crate::Drop;
use crate::wanted::{Wanted, bundle_of};

/// Legs on one transport.
pub(crate) const LEGS_MAX: usize = 32;
/// SSRCs that a peer may announce for one line.
pub(crate) const ANNOUNCED_MAX: usize = 32;
/// RFC 8285 §4.2: what the one-byte form has room for.
pub(crate) const MID_MAX: usize = 16;

/// More than one member, or none, agreed to a payload type.
const NOBODY: u8 = u8::MAX;

/// Whose is what, on the transport of one leg.
#[derive(Debug)]
pub(crate) struct Bundle {
    members: Vec<Member>,
    /// By payload type: the member that alone agreed to it.
    payloads: Box<[u8; 128]>,
    /// The peer's SSRCs, each with its member; those that it announced come first.
    sources: Vec<(u32, u8)>,
    announced: usize,
    sources_max: usize,
    /// Which of the others gives way when there are too many.
    next: usize,
    mid_id: Option<u8>,
    /// Of the RTCP of all, where all have a bandwidth: a compound is policed before it is taken apart.
    police: Option<Box<Police>>,
}

#[derive(Clone, Debug)]
struct Member {
    leg: u32,
    mid: String,
}

impl Bundle {
    /// From what control put; what was learned before of legs that are still there goes on.
    fn new(old: Option<&Bundle>, put: &[(u32, &contract::Bundle)], sources_max: usize) -> Self {
        let mut payloads = Box::new([NOBODY; 128]);
        let mut sources: Vec<(u32, u8)> = Vec::new();
        let named = |ssrc: &u32| put.iter().filter(|(_, bundle)| bundle.ssrcs.contains(ssrc)).count();
        for (place, (_, bundle)) in (0u8..).zip(put) {
            for payload in &bundle.payloads {
                let others = put.iter().filter(|(_, other)| other.payloads.contains(payload)).count() > 1;
                let slot = payloads.get_mut(*payload as usize);
                slot.into_iter().for_each(|slot| *slot = if others { NOBODY } else { place });
            }
            for ssrc in bundle.ssrcs.iter().take(ANNOUNCED_MAX) {
                // Announced for two lines it says nothing of either.
                if named(ssrc) == 1 && !sources.iter().any(|(known, _)| known == ssrc) {
                    sources.push((*ssrc, place));
                }
            }
        }
        let announced = sources.len();
        let sources_max = announced + sources_max * put.len();
        sources.reserve(sources_max - announced);
        let mid_id = put.iter().find_map(|(_, b)| u8::try_from(b.mid_id).ok().filter(|id| *id != 0));
        let members = put.iter().map(|(leg, b)| Member { leg: *leg, mid: b.mid.clone() }).collect();
        let mut bundle = Bundle {
            members,
            payloads,
            sources,
            announced,
            sources_max,
            next: announced,
            mid_id,
            police: None,
        };
        for (ssrc, place) in old.into_iter().flat_map(|old| &old.sources) {
            let leg = old.and_then(|old| old.leg(*place));
            let kept = bundle.members.iter().position(|member| Some(member.leg) == leg);
            if let Some(place) = kept.filter(|_| named(ssrc) == 0) {
                bundle.learn(*ssrc, place as u8);
            }
        }
        bundle
    }

    /// The rows of all.
    fn legs(&self) -> impl Iterator<Item = u32> {
        self.members.iter().map(|member| member.leg)
    }

    fn leg(&self, place: u8) -> Option<u32> {
        self.members.get(usize::from(place)).map(|member| member.leg)
    }

    /// Whose an SSRC of the peer is.
    fn of(&self, ssrc: u32) -> Option<u8> {
        self.sources.iter().find(|(known, _)| *known == ssrc).map(|(_, place)| *place)
    }

    fn named(&self, mid: &[u8]) -> Option<u8> {
        let place = self.members.iter().position(|member| !mid.is_empty() && member.mid.as_bytes() == mid)?;
        u8::try_from(place).ok()
    }

    /// What the peer sends under that SSRC belongs there; the room for it was made when the leg was put.
    fn learn(&mut self, ssrc: u32, place: u8) {
        if let Some(known) = self.sources.iter_mut().find(|(known, _)| *known == ssrc) {
            known.1 = place;
        } else if self.sources.len() < self.sources_max {
            self.sources.push((ssrc, place));
        } else {
            let at = self.next.max(self.announced);
            self.sources.iter_mut().skip(at).take(1).for_each(|oldest| *oldest = (ssrc, place));
            self.next = if at + 1 < self.sources.len() { at + 1 } else { self.announced };
        }
    }

    /// Whose a packet is.
    fn rtp(&mut self, view: &RtpView<'_>) -> Option<u32> {
        let ssrc = view.ssrc();
        let mid = self.mid_id.filter(|_| view.is_extended()).and_then(|id| view.elements().element(id));
        let place = match (mid, self.of(ssrc)) {
            (Some(mid), _) => self.named(mid)?,
            (None, Some(place)) => return self.leg(place),
            (None, None) => {
                let slot = self.payloads.get(usize::from(view.payload_type())).copied();
                slot.filter(|place| *place != NOBODY)?
            }
        };
        self.learn(ssrc, place);
        self.leg(place)
    }
}

/// What of a compound is for one leg.
type Parts = Vec<(u32, Vec<u8>)>;

/// Adds a packet to what is for a leg.
fn add(parts: &mut Parts, leg: u32, octets: &[u8]) {
    match parts.iter_mut().find(|(of, _)| *of == leg) {
        Some((_, part)) => part.extend_from_slice(octets),
        None => parts.push((leg, octets.to_vec())),
    }
}

impl Media {
    /// Makes the tables of a context's shared transports anew, and lets those who ride on one have its port and its keys.
    pub(super) fn bundle_up(&mut self, legs: &BTreeMap<u64, u32>, wanted: &Wanted) {
        let mut groups: BTreeMap<u32, Vec<(u32, &contract::Bundle)>> = BTreeMap::new();
        for (id, at) in legs {
            let put = wanted.legs.get(id).and_then(|leg| bundle_of(leg));
            let Some(put) = put else {
                if let Some(row) = self.leg_mut(*at).filter(|row| row.bundled) {
                    row.bundled = false;
                    row.web.iter_mut().for_each(|web| web.bundle = None);
                    row.guard.iter_mut().for_each(|guard| guard.mid = None);
                }
                continue;
            };
            let carrier = if put.carrier == 0 { Some(*at) } else { legs.get(&put.carrier).copied() };
            if let Some(carrier) = carrier {
                groups.entry(carrier).or_default().push((*at, put));
            }
        }
        let (sources_max, limits) = (self.sources_max, self.police);
        for (carrier, members) in groups {
            let old = self.bundle_mut(carrier).and_then(|bundle| bundle.police.take());
            let lines = members.iter().map(|(at, _)| self.leg(*at)?.police.as_deref());
            let police = Police::shared(old, lines, limits);
            let Some(row) = self.leg_mut(carrier) else { continue };
            let (port, ready) = (row.rtp, row.guard.as_ref().is_some_and(|guard| guard.sends()));
            if let Some(web) = &mut row.web {
                let bundle = Bundle::new(web.bundle.as_deref(), &members, sources_max);
                web.bundle = Some(Box::new(Bundle { police, ..bundle }));
                row.bundled = true;
            }
            for (at, put) in members {
                let Some(row) = self.leg_mut(at) else { continue };
                if at != carrier {
                    row.rtp = port;
                    let guard = row.guard.get_or_insert_with(|| Box::new(Guard::lent(carrier)));
                    guard.ready = ready;
                }
                let id = u8::try_from(put.mid_id).ok().filter(|id| put.writes_mid && *id != 0);
                if let Some(guard) = &mut row.guard {
                    guard.mid = id.map(|id| (id, put.mid.clone().into_bytes().into_boxed_slice()));
                }
            }
        }
    }

    /// The legs of which news of a transport are told: who rides on it has and loses his peer with it.
    pub(super) fn shown(&self, leg: u32) -> Vec<contract::LegKey> {
        let all = self.bundle(leg).map_or_else(|| vec![leg], |bundle| bundle.legs().collect());
        all.into_iter().filter_map(|at| self.leg(at)).filter(|row| !row.unseen).map(|row| row.key).collect()
    }

    fn bundle(&self, carrier: u32) -> Option<&Bundle> {
        self.leg(carrier)?.web.as_ref()?.bundle.as_deref()
    }

    fn bundle_mut(&mut self, carrier: u32) -> Option<&mut Bundle> {
        self.leg_mut(carrier)?.web.as_mut()?.bundle.as_deref_mut()
    }

    /// Where an RTP packet goes that has opened: to the leg that it came to, or where that one's transport is shared to the
    /// one that it is for.
    pub(super) fn line_of(
        &mut self,
        leg: u32,
        from: SocketAddr,
        heard: Heard,
        clear: &[u8],
        tx: &mut Tx<'_>,
    ) -> Result<(u32, Heard), Drop> {
        if !self.leg(leg).is_some_and(|row| row.bundled) {
            return Ok((leg, heard));
        }
        let view = RtpView::parse(clear).map_err(drop_of)?;
        let line = self.bundle_mut(leg).and_then(|bundle| bundle.rtp(&view)).ok_or(Drop::Bundle)?;
        Ok((line, self.arrived_at(leg, from, heard, tx)))
    }

    /// Where a peer is is its transport's to learn.
    fn arrived_at(&mut self, carrier: u32, from: SocketAddr, heard: Heard, tx: &mut Tx<'_>) -> Heard {
        if heard != Heard::Peer {
            self.latch(carrier, false, from, tx);
        }
        Heard::Peer
    }

    /// RTCP that has opened on a shared transport.
    pub(super) fn rtcp_bundled(
        &mut self,
        now: Now,
        carrier: u32,
        from: SocketAddr,
        heard: Heard,
        clear: &[u8],
        tx: &mut Tx<'_>,
    ) -> Result<Fate, Drop> {
        let police = self.bundle_mut(carrier).and_then(|bundle| bundle.police.as_mut());
        if !police.is_none_or(|police| police.passes_rtcp(clear.len(), now.mono)) {
            self.leg_mut(carrier).into_iter().for_each(|row| row.talk.policed += 1);
            return Err(Drop::Bandwidth);
        }
        let packets = rtp::compound(clear, true).map_err(drop_of)?;
        let mut parts = Parts::new();
        // What comes behind a report speaks of the same, where it does not say otherwise.
        let mut last = None;
        for (octets, packet) in packets.with_octets() {
            match packet {
                Packet::Sender(info, blocks) => {
                    last = self.split(carrier, (info.ssrc, Some(&info)), blocks, &mut parts).or(last);
                }
                Packet::Receiver(ssrc, blocks) => {
                    last = self.split(carrier, (ssrc, None), blocks, &mut parts).or(last);
                }
                other => {
                    let line = self.rtcp_line(carrier, &other).or(last.filter(|_| !is_feedback(&other)));
                    line.into_iter().for_each(|line| add(&mut parts, line, octets));
                }
            }
        }
        let heard = if parts.is_empty() { heard } else { self.arrived_at(carrier, from, heard, tx) };
        let mut fate = Err(Drop::Bundle);
        for (leg, part) in parts {
            let on = Binding { leg, ..Binding::FREE };
            let became = self.rtcp_clear(now, on, from, (heard, true), &part, tx);
            fate = match (fate, became) {
                (Ok(Fate::Forwarded), _) | (_, Ok(Fate::Forwarded)) => Ok(Fate::Forwarded),
                (Ok(Fate::Consumed), _) | (_, Ok(Fate::Consumed)) => Ok(Fate::Consumed),
                (_, other) => other,
            };
        }
        fate
    }

    /// A report, in parts: what it says of its sender to the leg that he is known on, and each block to the leg that sends
    /// what it is about. The leg of its sender, or of its first block.
    fn split(
        &self,
        carrier: u32,
        (sender, info): (u32, Option<&SenderInfo>),
        blocks: impl Iterator<Item = Block>,
        parts: &mut Parts,
    ) -> Option<u32> {
        let bundle = self.bundle(carrier)?;
        let own = bundle.of(sender).and_then(|place| bundle.leg(place));
        let mut shares: Vec<(u32, Vec<Block>)> = own.map(|leg| (leg, Vec::new())).into_iter().collect();
        for block in blocks {
            let Some(leg) = self.sender_of(carrier, block.ssrc).or(own) else { continue };
            match shares.iter_mut().find(|(of, _)| *of == leg) {
                Some((_, share)) => share.push(block),
                None => shares.push((leg, vec![block])),
            }
        }
        for (leg, share) in &shares {
            let mut writer = RtcpWriter::new();
            match info.filter(|_| own == Some(*leg)) {
                Some(info) => writer.sender(info, share),
                None => writer.receiver(sender, share),
            };
            add(parts, *leg, writer.octets());
        }
        shares.first().map(|(leg, _)| *leg)
    }

    /// Whose a packet is that is no report.
    fn rtcp_line(&mut self, carrier: u32, packet: &Packet<'_>) -> Option<u32> {
        match packet {
            Packet::Description(chunks) => {
                let bundle = self.bundle_mut(carrier)?;
                let mut line = None;
                for chunk in *chunks {
                    // RFC 9143 §15.1: the item says the same as the header extension.
                    let mid = chunk.items().find(|item| item.kind == rtp::Item::MID);
                    if let Some(place) = mid.and_then(|item| bundle.named(item.text)) {
                        bundle.learn(chunk.ssrc, place);
                    }
                    line = line.or_else(|| bundle.of(chunk.ssrc).and_then(|place| bundle.leg(place)));
                }
                line
            }
            Packet::Bye(gone) => {
                let mut gone = *gone;
                gone.find_map(|ssrc| self.line_from(carrier, ssrc))
            }
            Packet::Extended(sender, _) => self.line_from(carrier, *sender),
            Packet::Transport(feedback) | Packet::Payload(feedback) => {
                let of = |ssrc| self.sender_of(carrier, ssrc);
                let target = of(feedback.media).or_else(|| match packet {
                    Packet::Payload(f) if f.format == Feedback::FIR => f.fir_targets().find_map(of),
                    Packet::Payload(f) => f.receiver_estimate()?.ssrcs.find_map(of),
                    Packet::Transport(f) if matches!(f.format, Feedback::TMMBR | Feedback::TMMBN) => {
                        f.limits().find_map(|entry| of(entry.ssrc))
                    }
                    _ => None,
                });
                target.or_else(|| self.line_from(carrier, feedback.sender).filter(|_| feedback.media == 0))
            }
            _ => None,
        }
    }

    /// On which leg the peer sends under that SSRC.
    fn line_from(&self, carrier: u32, ssrc: u32) -> Option<u32> {
        let bundle = self.bundle(carrier)?;
        bundle.leg(bundle.of(ssrc)?)
    }

    /// On which leg we send under that SSRC.
    fn sender_of(&self, carrier: u32, ssrc: u32) -> Option<u32> {
        let members = &self.bundle(carrier)?.members;
        members.iter().map(|member| member.leg).find(|leg| self.sends(*leg, ssrc))
    }

    fn sends(&self, leg: u32, ssrc: u32) -> bool {
        let Some(row) = self.leg(leg) else { return false };
        let shown = |at: &u32| self.leg(*at).is_some_and(|from| from.sources.iter().any(|s| s.shown == ssrc));
        // A relay changes no SSRC, and goes both ways.
        let same = |(at, _): &(u32, crate::SocketId)| {
            self.leg(*at).is_some_and(|from| from.sources.iter().any(|s| s.ssrc == ssrc))
        };
        row.streams().any(|stream| stream.ssrc == ssrc)
            || row.feeders.iter().any(shown)
            || row.relays_rtcp.iter().any(same)
            || row.repair.as_ref().is_some_and(|repair| repair.sends(ssrc))
    }
}

const fn is_feedback(packet: &Packet<'_>) -> bool {
    matches!(packet, Packet::Transport(_) | Packet::Payload(_))
}
