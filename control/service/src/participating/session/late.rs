//! An INVITE without an offer (RFC 3261 §13.2.1, RFC 3264 §4; CPM-FACTS §2.9 "The PF anchors every session").
//!
//! ```text
//!   caller            here                                         device
//!     │── INVITE ─────▶│── INVITE, no offer either ──────────────────▶│
//!     │                │◀──────────────────────────── 200, its offer ─│
//!     │                │ legs for both sides, the device's is met      │
//!     │◀ 200, ours ────│ (its lines with our ends)                     │
//!     │── ACK, answer ▶│ the caller's leg is met                       │
//!     │                │── ACK at once, the answer with our ends ─────▶│
//! ```
//!
//! The ACK to the device is owed from its 200 on: whatever ends the session before the caller's ACK has come
//! sends one that refuses the media, and a BYE after it (RFC 3261 §13.2.2.4). Where SDP passes, both pass.

use bytes::Bytes;
use sdp::{Choice, Stamp};
use sip::Request;

use super::race::INVITE_SEQ;
use super::{Plan, Session, UPSTREAM};
use crate::body;
use crate::media::{self, Anchor};
use crate::turn::Turn;

impl Session {
    /// The side whose 2xx waits for our ACK.
    pub(super) fn unacknowledged(&self) -> Option<usize> {
        self.sides.iter().position(|s| s.unacknowledged.is_some())
    }

    /// A device offers in its 2xx: legs for both sides, ordered. The error is the SIP status.
    pub(super) fn sound_offered_late(&mut self, turn: &mut Turn<'_>, at: usize) -> Result<(), u16> {
        let offer = match self.side(at) {
            Some(side) => media::read(turn.config(), &side.sdp_got)?,
            None => return Err(500),
        };
        if !offer.lines.iter().any(|line| media::is_anchorable(turn.config(), line)) {
            return Err(488);
        }
        let id = turn.context_id(self.lane());
        self.anchor = Some(Anchor::new(id, self.row_id()));
        for (index, line) in offer.lines.iter().enumerate() {
            if !media::is_anchorable(turn.config(), line) {
                continue;
            }
            for side in [UPSTREAM, at] {
                self.ensure_leg(turn, side, index, line);
            }
            self.meet_offer(turn, at, index, line);
        }
        self.share_offered(turn, at, &offer);
        self.order(turn);
        Ok(())
    }

    /// What the caller's 2xx offers: the device's lines with our ends.
    pub(super) fn sound_late_offer(&mut self, turn: &mut Turn<'_>, winner: usize) -> Option<Bytes> {
        let offer = media::read(turn.config(), &self.side(winner)?.sdp_got).ok()?;
        let legs = self.side(UPSTREAM)?.legs.clone();
        let ours = self.dressed(turn, &offer, &legs, None);
        let mut stamp = Stamp::new(sdp::Origin::fresh(&mut turn.desk.entropy, media::host_of(&ours)));
        Some(stamp.stamp(ours).to_bytes())
    }

    /// What the device's ACK answers: the caller's lines with our ends.
    fn sound_late_answer(&mut self, turn: &mut Turn<'_>, to: usize) -> Option<Bytes> {
        let answer = media::read(turn.config(), &self.side(UPSTREAM)?.sdp_got).ok()?;
        let offer = media::read(turn.config(), &self.side(to)?.sdp_got).ok()?;
        let legs = self.side(to)?.legs.clone();
        let ours = self.answering(turn, &offer, &answer, &legs);
        let mut stamp = Stamp::new(sdp::Origin::fresh(&mut turn.desk.entropy, media::host_of(&ours)));
        Some(stamp.stamp(ours).to_bytes())
    }

    /// The caller's ACK, with its answer to the offer of our 2xx. The device's leg has its place already, so that
    /// its ACK waits for nothing.
    pub(super) fn answered_late(&mut self, turn: &mut Turn<'_>, at: usize, ack: &Request) {
        let Some(to) = self.unacknowledged().filter(|_| at == UPSTREAM) else { return };
        let sdp = body::sdp_in(&ack.headers, &ack.body).unwrap_or_default();
        if let Some(side) = self.side_mut(at) {
            side.sdp_got = sdp.clone();
        }
        let answer = match self.plan {
            Plan::Pass => Some(sdp),
            Plan::Relay | Plan::FanOut => match self.sound_reanswered(turn, at) {
                Ok(()) => self.sound_late_answer(turn, to),
                Err(_) => None,
            },
        };
        match answer {
            Some(answer) => self.acknowledge(turn, to, answer),
            // No answer, or none that fits our offer.
            None => return self.end_all(turn, None, "SIP;cause=488"),
        }
        self.save(turn);
    }

    /// The ACK that is owed to a side whose session ends: it refuses every line (RFC 3261 §13.2.2.4).
    pub(super) fn acknowledge_refusing(&mut self, turn: &mut Turn<'_>, at: usize) {
        let Some(side) = self.side(at).filter(|s| s.unacknowledged.is_some()) else { return };
        let refusal = refusal_of(turn, &side.sdp_got);
        self.acknowledge(turn, at, refusal);
    }

    fn acknowledge(&mut self, turn: &mut Turn<'_>, at: usize, answer: Bytes) {
        let Some(side) = self.side_mut(at) else { return };
        let (Some(client), Some(dialog)) = (side.unacknowledged.take(), &mut side.dialog) else { return };
        let mut ack = dialog.ack(INVITE_SEQ);
        if !answer.is_empty() {
            ack.set_body("application/sdp", answer.clone());
        }
        side.sdp_sent = answer;
        turn.ack(client, side.route.clone(), ack);
    }
}

/// An answer that takes nothing of an offer; empty when the offer cannot be read.
pub(super) fn refusal_of(turn: &mut Turn<'_>, offer: &Bytes) -> Bytes {
    let Ok(offer) = media::read(turn.config(), offer) else { return Bytes::new() };
    let host = sdp::Host::Ip(std::net::Ipv4Addr::LOCALHOST.into());
    let origin = sdp::Origin::fresh(&mut turn.desk.entropy, host.clone());
    sdp::answer(&offer, origin, host, |_, _| Choice::Refuse).to_bytes()
}
