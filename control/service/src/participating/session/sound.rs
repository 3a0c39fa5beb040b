//! Between descriptions and the data plane: which legs a session needs, what each side's SDP says about its
//! leg, and what our SDP towards each side says (RFC 3264, RFC 4975 §8, RFC 6135).
//!
//! Every anchored media line has one leg per side. Relay: two paths per line, upstream and the winner. Fan-out:
//! `far-N` distributed to all `near-N`, and each `near-N` to `far-N` and, for messages, to its siblings.

use bytes::Bytes;
use contract::{Distribute, Leg, LegSet, Mode, Path, path};
use sdp::{MediaLine, Session as Description, Stamp};

use super::{Plan, Session, UPSTREAM};
use crate::media::{self, Anchor};
use crate::turn::{Orderer, Turn};

/// The legs drawn for sides that are not called yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    drawn: Vec<Vec<u64>>,
}

impl Lines {
    pub(super) fn legs_of(&self, side: usize) -> Vec<u64> {
        self.drawn.get(side).cloned().unwrap_or_default()
    }
}

impl Session {
    /// Asks for a leg per line and side. The error is the SIP status.
    pub(super) fn sound_open(&mut self, turn: &mut Turn<'_>) -> Result<(), u16> {
        let (offer, targets) = match &self.setup {
            Some(setup) => (setup.offer().clone(), setup.targets_len()),
            None => return Err(500),
        };
        let offer = media::hear(turn, &offer)?;
        let taken: Vec<bool> =
            offer.lines.iter().map(|line| media::is_anchorable(turn.config(), line)).collect();
        if !taken.contains(&true) {
            return Err(488);
        }
        let id = turn.context_id(self.lane());
        let mut anchor = Anchor::new(id, self.row_id());
        self.lines.drawn = (0..=targets)
            .map(|_| taken.iter().map(|taken| if *taken { anchor.draw_leg() } else { 0 }).collect())
            .collect();
        for side in 0..=targets {
            for (at, line) in offer.lines.iter().enumerate() {
                let Some(leg) =
                    self.lines.drawn.get(side).and_then(|l| l.get(at)).copied().filter(|l| *l != 0)
                else {
                    continue;
                };
                let name = self.media_name(side, at, line);
                let peer = media::Peer { leg, browser: side != UPSTREAM && self.calls_browser(side) };
                let desk = &mut *turn.desk;
                let mut leg = media::blank_leg(&desk.config, &mut desk.entropy, line, id, peer, name);
                leg.participant = if side == UPSTREAM { "far" } else { "near" }.to_owned();
                if side == UPSTREAM {
                    media::meet(&mut leg, line, media::answering(line));
                    media::srtp::offered(&mut leg, line, &desk.config.media, &mut desk.entropy);
                    media::webrtc::offered(&mut leg, line, &mut desk.entropy);
                }
                anchor.put_leg(leg);
            }
        }
        if let Some(legs) = self.lines.drawn.first() {
            media::bundle::share(&mut anchor, &offer, legs, |leg, tagged| {
                offered_again(turn, leg, &offer, tagged);
            });
        }
        if let Some(legs) = self.lines.drawn.first().cloned()
            && let Some(upstream) = self.side_mut(UPSTREAM)
        {
            upstream.legs = legs;
        }
        self.ask = anchor.commit(turn, Orderer::Session(self.id));
        self.anchor = Some(anchor);
        Ok(())
    }

    /// The device that is called as this side speaks nothing but WebRTC.
    fn calls_browser(&self, side: usize) -> bool {
        self.setup.as_ref().and_then(|setup| setup.target(side)).is_some_and(|target| target.is_browser())
    }

    fn media_name(&self, side: usize, at: usize, line: &MediaLine) -> String {
        match (self.plan, side) {
            (Plan::FanOut, UPSTREAM) => format!("far-{at}"),
            (Plan::FanOut, _) => format!("near-{at}"),
            _ => media::name(line).to_owned(),
        }
    }

    /// What a leg's INVITE offers; `None` when SDP passes unchanged.
    pub(super) fn sound_offer(&mut self, turn: &mut Turn<'_>, at: usize) -> Option<Bytes> {
        self.anchor.as_ref()?;
        let offer = media::read(turn.config(), self.setup.as_ref()?.offer()).ok()?;
        let legs = self.lines.legs_of(at);
        let ours = self.dressed(turn, &offer, &legs, None);
        let mut stamp = Stamp::new(sdp::Origin::fresh(&mut turn.desk.entropy, media::host_of(&ours)));
        Some(stamp.stamp(ours).to_bytes())
    }

    /// A description with our ends in the place of the peer's: an offer of ours, or the answer to `answering`.
    pub(super) fn dressed(
        &self,
        turn: &mut Turn<'_>,
        theirs: &Description,
        legs: &[u64],
        answering: Option<&Description>,
    ) -> Description {
        let mut ours = theirs.clone();
        ours.forget_hop();
        let desk = &mut *turn.desk;
        let fingerprint = desk.fingerprint().to_vec();
        let dtls_fingerprint = desk.dtls_fingerprint();
        for (at, line) in ours.lines.iter_mut().enumerate() {
            let leg = legs.get(at).and_then(|id| self.anchor.as_ref()?.whole_leg(*id));
            let offered = answering.and_then(|offer| offer.lines.get(at));
            let setup = match answering {
                Some(_) => offered.and_then(media::setup_answering),
                None => Some(sdp::Setup::ActPass),
            };
            let config = &desk.config.media;
            let keys = |rtp: &_| {
                let dtls = media::webrtc::end(rtp, offered.is_some(), dtls_fingerprint)?;
                Some((media::srtp::ours(rtp, offered, config, &mut desk.entropy)?, dtls))
            };
            let local = leg.and_then(|leg| media::local(&leg, setup, &fingerprint, keys));
            *line = local.and_then(|local| line.anchored(&local)).unwrap_or_else(|| line.refused());
            match offered {
                // RFC 3264 §6, RFC 5888 §9.1: the answer has the offer's transport and identification.
                Some(offered) => {
                    if line.proto.is_rtp() {
                        line.proto = offered.proto.clone();
                    }
                    line.mid.clone_from(&offered.mid);
                }
                // RFC 8829 §5.2.1: a browser tells lines apart by it.
                None if line.proto.is_dtls() && line.mid.is_none() => line.mid = Some(at.to_string()),
                None => {}
            }
        }
        if let Some(host) = ours.lines.iter().find_map(|l| l.host.clone()) {
            ours.host = Some(host);
        }
        if let Some(anchor) = &self.anchor {
            media::bundle::write(anchor, &mut ours, legs, answering);
        }
        ours
    }

    /// A device has answered: its media meets upstream's.
    pub(super) fn sound_joined(&mut self, turn: &mut Turn<'_>, at: usize) -> Result<(), u16> {
        let (answer, offered) = match self.side(at) {
            Some(side) => (media::hear(turn, &side.sdp_got)?, media::read(turn.config(), &side.sdp_sent)?),
            None => return Err(500),
        };
        sdp::check_answer(&offered, &answer).map_err(|_| 488_u16)?;
        if self.plan == Plan::Relay {
            let losers: Vec<usize> = (1..self.sides.len()).filter(|side| *side != at).collect();
            for side in losers {
                self.drop_legs(side);
            }
        }
        self.meet_answer(turn, at, &offered, &answer);
        self.order(turn);
        Ok(())
    }

    /// Puts what an answer says into the legs, and wires its lines.
    fn meet_answer(&mut self, turn: &Turn<'_>, at: usize, offered: &Description, answer: &Description) {
        let legs = self.side(at).map(|s| s.legs.clone()).unwrap_or_default();
        for (index, (line, asked)) in answer.lines.iter().zip(&offered.lines).enumerate() {
            let id = legs.get(index).copied().unwrap_or(0);
            if id == 0 {
                continue;
            }
            if line.is_refused() {
                self.drop_line(index, at);
                continue;
            }
            let role = sdp::message_role(asked, line);
            if let Some(anchor) = &mut self.anchor {
                anchor.change_leg(id, |leg| {
                    media::meet(leg, line, role);
                    media::srtp::answered(leg, asked, line);
                    media::webrtc::answered(leg, asked, line);
                });
            }
            self.mirror_direction(at, index, line);
            self.grant(turn, at, index, [asked, line]);
            self.wire(index);
        }
        self.share_answered(at, offered, answer);
    }

    /// What an answer bundles rides on one transport.
    fn share_answered(&mut self, at: usize, offered: &Description, answer: &Description) {
        let legs = self.side(at).map(|s| s.legs.clone()).unwrap_or_default();
        let Some(anchor) = &mut self.anchor else { return };
        media::bundle::share(anchor, answer, &legs, |leg, tagged| {
            if let (Some(asked), Some(line)) = (offered.lines.get(tagged), answer.lines.get(tagged)) {
                media::webrtc::answered(leg, asked, line);
            }
        });
    }

    /// What an offer bundles rides on one transport.
    pub(super) fn share_offered(&mut self, turn: &mut Turn<'_>, at: usize, offer: &Description) {
        let legs = self.side(at).map(|s| s.legs.clone()).unwrap_or_default();
        let Some(anchor) = &mut self.anchor else { return };
        media::bundle::share(anchor, offer, &legs, |leg, tagged| offered_again(turn, leg, offer, tagged));
    }

    /// A line whose transport others need, and whose peer has taken it out of their bundle.
    fn has_torn(&self, turn: &Turn<'_>, at: usize, offer: &Description) -> bool {
        let (Some(anchor), Some(side)) = (&self.anchor, self.side(at)) else { return false };
        let mut lines = offer.lines.iter().zip(&side.legs).enumerate();
        lines.any(|(index, (line, id))| {
            media::is_anchorable(turn.config(), line) && media::bundle::is_torn(anchor, offer, index, *id)
        })
    }

    /// Each side may send what the other one takes (RFC 8866 §5.8): `at` was asked by the one line and has answered with the other.
    fn grant(&mut self, turn: &Turn<'_>, at: usize, index: usize, [asked, answered]: [&MediaLine; 2]) {
        if self.plan != Plan::Relay {
            return;
        }
        let other = self.opposite(at);
        for (side, told) in [(Some(at), asked), (other, answered)] {
            let leg = side.and_then(|side| self.side(side)?.legs.get(index).copied());
            if let (Some(id), Some(anchor)) = (leg, &mut self.anchor) {
                anchor.change_leg(id, |leg| media::grant(leg, told, &turn.config().media));
            }
        }
    }

    /// The other side's leg sends and receives what this answer leaves to it.
    fn mirror_direction(&mut self, at: usize, index: usize, line: &MediaLine) {
        if self.plan != Plan::Relay {
            return;
        }
        let other = self.opposite(at);
        let Some(id) = other.and_then(|o| self.side(o)).and_then(|s| s.legs.get(index)).copied() else {
            return;
        };
        let direction = media::direction(line.effective_direction().mirrored());
        if let Some(anchor) = &mut self.anchor {
            anchor.change_leg(id, |leg| leg.direction = direction.into());
        }
    }

    /// The paths of one line.
    fn wire(&mut self, index: usize) {
        let far = self.side(UPSTREAM).and_then(|s| s.legs.get(index)).copied().unwrap_or(0);
        let near: Vec<u64> = self
            .others(UPSTREAM)
            .into_iter()
            .chain(self.early_side())
            .filter_map(|at| self.side(at)?.legs.get(index).copied())
            .filter(|id| *id != 0)
            .collect();
        let (plan, Some(anchor)) = (self.plan, &mut self.anchor) else { return };
        let (Some(first), true) = (near.first().copied(), far != 0) else { return };
        let context = anchor.id();
        let number = u32::try_from(index).unwrap_or(0) * 2;
        let one = |id| Some(LegSet { legs: vec![id], media: String::new() });
        let messages = anchor.leg(far).is_some_and(media::is_msrp);
        // REQ-PF-17: of one recipient's devices the first notification counts. Those that come to the served user may
        // be of several recipients, where the far end is a conference: a fan-out passes them all, a relay looks at
        // each recipient for himself.
        let once = messages.then_some(path::Parameters::Distribute(Distribute { imdn_once: true }));
        let (there, back) = match plan {
            Plan::Pass => return,
            Plan::Relay => (
                Path {
                    mode: Mode::Relay.into(),
                    sources: one(far),
                    targets: one(first),
                    parameters: once.clone(),
                    ..Path::default()
                },
                Path {
                    mode: Mode::Relay.into(),
                    sources: one(first),
                    targets: one(far),
                    parameters: once,
                    ..Path::default()
                },
            ),
            Plan::FanOut => {
                let siblings = Some(LegSet { legs: Vec::new(), media: format!("near-{index}") });
                let back_to = if messages {
                    Some(LegSet { legs: vec![far], media: format!("near-{index}") })
                } else {
                    one(far)
                };
                let mode = Mode::Distribute.into();
                (
                    Path { mode, sources: one(far), targets: siblings.clone(), ..Path::default() },
                    Path { mode, sources: siblings, targets: back_to, parameters: once, ..Path::default() },
                )
            }
        };
        anchor.put_path(Path { id: number + 1, context, ..there });
        anchor.put_path(Path { id: number + 2, context, ..back });
    }

    /// What upstream is answered: the winner's answer with our ends.
    pub(super) fn sound_answer(&mut self, turn: &mut Turn<'_>, winner: usize) -> Option<Bytes> {
        let answer = media::read(turn.config(), &self.side(winner)?.sdp_got).ok()?;
        let offer = media::read(turn.config(), &self.side(UPSTREAM)?.sdp_got).ok()?;
        let legs = self.side(UPSTREAM)?.legs.clone();
        let ours = self.answering(turn, &offer, &answer, &legs);
        let mut stamp = Stamp::new(sdp::Origin::fresh(&mut turn.desk.entropy, media::host_of(&ours)));
        Some(stamp.stamp(ours).to_bytes())
    }

    pub(super) fn answering(
        &self,
        turn: &mut Turn<'_>,
        offer: &Description,
        answer: &Description,
        legs: &[u64],
    ) -> Description {
        self.dressed(turn, answer, legs, Some(offer))
    }

    /// A side offers a change: its new media goes into its legs, new lines get legs on both sides.
    pub(super) fn sound_offered(&mut self, turn: &mut Turn<'_>, at: usize, offer: &Bytes) -> Result<(), u16> {
        let offer = media::hear(turn, offer)?;
        let before = self.side(at).and_then(|s| media::read(turn.config(), &s.sdp_got).ok());
        if before.is_some_and(|before| sdp::check_next_offer(&before, &offer).is_err()) {
            return Err(488);
        }
        if self.has_torn(turn, at, &offer) {
            return Err(488);
        }
        let other = self.opposite(at);
        for (index, line) in offer.lines.iter().enumerate() {
            if !media::is_anchorable(turn.config(), line) {
                continue;
            }
            for side in [Some(at), other].into_iter().flatten() {
                self.ensure_leg(turn, side, index, line);
            }
            self.meet_offer(turn, at, index, line);
        }
        self.share_offered(turn, at, &offer);
        self.order(turn);
        Ok(())
    }

    pub(super) fn ensure_leg(&mut self, turn: &mut Turn<'_>, side: usize, index: usize, line: &MediaLine) {
        let name = self.media_name(side, index, line);
        let browser = self.speaks_dtls(side);
        let (Some(anchor), Some(at)) = (&mut self.anchor, self.sides.get_mut(side)) else { return };
        at.legs.resize(at.legs.len().max(index + 1), 0);
        let Some(slot) = at.legs.get_mut(index).filter(|id| **id == 0) else { return };
        *slot = anchor.draw_leg();
        let (desk, peer) = (&mut *turn.desk, media::Peer { leg: *slot, browser });
        let mut leg = media::blank_leg(&desk.config, &mut desk.entropy, line, anchor.id(), peer, name);
        leg.participant = if side == UPSTREAM { "far" } else { "near" }.to_owned();
        anchor.put_leg(leg);
    }

    /// A side has lines with keys by DTLS: it gets more of them.
    fn speaks_dtls(&self, side: usize) -> bool {
        let (Some(anchor), Some(side)) = (&self.anchor, self.side(side)) else { return false };
        side.legs.iter().filter_map(|id| anchor.whole_leg(*id)).any(|leg| media::webrtc::is_dtls(&leg))
    }

    pub(super) fn meet_offer(&mut self, turn: &mut Turn<'_>, at: usize, index: usize, line: &MediaLine) {
        let Some(id) = self.side(at).and_then(|s| s.legs.get(index)).copied() else { return };
        if let Some(anchor) = &mut self.anchor {
            let desk = &mut *turn.desk;
            anchor.change_leg(id, |leg| {
                media::meet(leg, line, media::answering(line));
                media::srtp::offered(leg, line, &desk.config.media, &mut desk.entropy);
                media::webrtc::offered(leg, line, &mut desk.entropy);
            });
        }
    }

    /// The change as the other side is asked for it.
    pub(super) fn sound_reoffer(&mut self, turn: &mut Turn<'_>, to: usize, offer: &Bytes) -> Option<Bytes> {
        let offer = media::read(turn.config(), offer).ok()?;
        let side = self.side(to)?;
        let last = media::read(turn.config(), &side.sdp_sent).ok()?;
        let legs = side.legs.clone();
        let ours = self.dressed(turn, &offer, &legs, None);
        Some(Stamp::resume(last).stamp(ours).to_bytes())
    }

    /// A side has answered a change (its answer is in `sdp_got`).
    pub(super) fn sound_reanswered(&mut self, turn: &mut Turn<'_>, at: usize) -> Result<(), u16> {
        let (answer, offered) = match self.side(at) {
            Some(side) => (media::hear(turn, &side.sdp_got)?, media::read(turn.config(), &side.sdp_sent)?),
            None => return Err(500),
        };
        sdp::check_answer(&offered, &answer).map_err(|_| 488_u16)?;
        self.meet_answer(turn, at, &offered, &answer);
        self.order(turn);
        Ok(())
    }

    /// What the asker is answered.
    pub(super) fn sound_reanswer(&mut self, turn: &mut Turn<'_>, from: usize, got: &Bytes) -> Option<Bytes> {
        let answer = media::read(turn.config(), got).ok()?;
        let offer = media::read(turn.config(), self.exchange.as_ref()?.offer()).ok()?;
        let side = self.side(from)?;
        let (last, legs) = (media::read(turn.config(), &side.sdp_sent).ok()?, side.legs.clone());
        let ours = self.answering(turn, &offer, &answer, &legs);
        Some(Stamp::resume(last).stamp(ours).to_bytes())
    }

    /// A fan-out answers a change of one of its sides by itself: lines that it has stay, others are refused.
    pub(super) fn sound_answered_here(
        &mut self,
        turn: &mut Turn<'_>,
        at: usize,
        offer: &Bytes,
    ) -> Result<Bytes, u16> {
        let offer = media::read(turn.config(), offer)?;
        let (last, legs) = match self.side(at) {
            Some(side) => (media::read(turn.config(), &side.sdp_sent)?, side.legs.clone()),
            None => return Err(500),
        };
        if self.has_torn(turn, at, &offer) {
            return Err(488);
        }
        let mut answer = offer.clone();
        for (index, line) in answer.lines.iter_mut().enumerate() {
            let known = legs.get(index).is_some_and(|id| *id != 0) && !line.is_refused();
            let Some(before) = last.lines.get(index).filter(|b| known && !b.is_refused()) else {
                *line = line.refused();
                continue;
            };
            self.meet_offer(turn, at, index, line);
            line.direction = line.effective_direction().mirrored();
            line.body = before.body.clone();
        }
        self.share_offered(turn, at, &offer);
        let ours = self.answering(turn, &offer, &answer, &legs);
        self.order_only(turn);
        Ok(Stamp::resume(last).stamp(ours).to_bytes())
    }

    /// A change came to nothing: the asker's legs are as before.
    pub(super) fn sound_rollback(&mut self, turn: &mut Turn<'_>, at: usize) {
        let read = |octets| media::read(turn.config(), octets).ok();
        let both = self.side(at).and_then(|s| Some((read(&s.sdp_got)?, read(&s.sdp_sent)?)));
        let Some((before, sent)) = both else { return };
        if self.anchor.is_none() {
            return;
        }
        let legs = self.side(at).map(|s| s.legs.clone()).unwrap_or_default();
        for (index, id) in legs.iter().enumerate().filter(|(_, id)| **id != 0) {
            match before.lines.get(index).filter(|line| media::is_anchorable(turn.config(), line)) {
                Some(line) => {
                    if let Some(anchor) = &mut self.anchor {
                        let setup = anchor.leg(*id).map_or(sdp::Role::Passive, media::role);
                        anchor.change_leg(*id, |leg| {
                            media::meet(leg, line, setup);
                            if let Some(ours) = sent.lines.get(index) {
                                media::srtp::answered(leg, ours, line);
                                media::webrtc::answered(leg, ours, line);
                            }
                        });
                    }
                }
                None => self.drop_line(index, at),
            }
        }
        self.share_answered(at, &sent, &before);
        self.order_only(turn);
    }

    /// A side is gone: so are its legs.
    pub(super) fn sound_side_gone(&mut self, turn: &mut Turn<'_>, at: usize) {
        if self.anchor.is_some() {
            self.drop_legs(at);
            self.order_only(turn);
        }
    }

    /// The session is over: so is its context.
    pub(super) fn sound_close(&mut self, turn: &mut Turn<'_>) {
        self.ask = None;
        if let Some(mut anchor) = self.anchor.take() {
            anchor.remove(turn);
        }
    }

    /// MSRP legs of a side under new session ids: the old ones died with their connection.
    pub(super) fn sound_renew(&mut self, at: usize) -> bool {
        let legs = self.side(at).map(|s| s.legs.clone()).unwrap_or_default();
        let mut renewed = false;
        for (index, old) in legs.into_iter().enumerate() {
            let Some(anchor) = &mut self.anchor else { return false };
            let Some(leg) = anchor.leg(old).filter(|l| media::is_msrp(l)).cloned() else { continue };
            anchor.remove_leg(old);
            let new = anchor.draw_leg();
            anchor.put_leg(Leg { id: new, ..media::disconnected(leg) });
            if let Some(slot) = self.side_mut(at).and_then(|s| s.legs.get_mut(index)) {
                *slot = new;
            }
            self.wire(index);
            renewed = true;
        }
        renewed
    }

    /// Our last description to a side, with the legs as they are now.
    pub(super) fn sound_renewed(&mut self, turn: &mut Turn<'_>, at: usize) -> Option<Bytes> {
        let side = self.side(at)?;
        let last = media::read(turn.config(), &side.sdp_sent).ok()?;
        let legs = side.legs.clone();
        let ours = self.dressed(turn, &last, &legs, None);
        Some(Stamp::resume(last).stamp(ours).to_bytes())
    }

    /// Orders what has changed, and waits for it.
    pub(super) fn order(&mut self, turn: &mut Turn<'_>) {
        if let Some(anchor) = &mut self.anchor {
            self.ask = anchor.commit(turn, Orderer::Session(self.id));
        }
    }

    /// Orders what has changed; nothing waits for it.
    fn order_only(&mut self, turn: &mut Turn<'_>) {
        if let Some(anchor) = &mut self.anchor {
            anchor.commit(turn, Orderer::Session(self.id));
        }
    }

    fn drop_legs(&mut self, at: usize) {
        let legs = match self.side_mut(at) {
            Some(side) => std::mem::take(&mut side.legs),
            None => return,
        };
        if let Some(anchor) = &mut self.anchor {
            legs.into_iter().filter(|id| *id != 0).for_each(|id| anchor.remove_leg(id));
        }
    }

    /// A line that is refused or ended: for a relay on both sides, for a fan-out on this one only.
    fn drop_line(&mut self, index: usize, at: usize) {
        let both = self.plan == Plan::Relay;
        for (number, side) in self.sides.iter_mut().enumerate() {
            if (number == at || both)
                && let Some(slot) = side.legs.get_mut(index)
                && let Some(anchor) = &mut self.anchor
            {
                anchor.remove_leg(std::mem::take(slot));
            }
        }
    }
}

/// What the tagged line of an offer's bundle says of ICE and certificates goes into the leg whose transport it is.
fn offered_again(turn: &mut Turn<'_>, leg: &mut Leg, offer: &Description, tagged: usize) {
    if let Some(line) = offer.lines.get(tagged) {
        media::webrtc::offered(leg, line, &mut turn.desk.entropy);
    }
}
