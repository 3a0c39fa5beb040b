//! Media that is lost (CPM-FACTS §3.3 "repair by re-INVITE with a new path"; issue 2 "kill -9 of the data plane").
//!
//! ```text
//!   LegLost of a message leg ──▶ wait GRACE (a BYE may follow) ──▶ new leg, re-INVITE with its path
//!                                                                  │ fails
//!                                                                  ▼
//!                                                        BYE, disconnected, a member still
//!   LegLost of an RTP leg (no packets, no checks, no keys): the line is dead; a session without any other line ends.
//!   Packets in its counters say that it lives again
//!   new data plane: RTP legs are put again with their ports; message legs get new ones and re-INVITEs
//! ```

use std::time::Duration;

use contract::{LegCounters, LegKey};

use super::call::{CallId, CallState, Change, Purpose};
use super::conference::Conference;
use super::config::Medium;
use super::leave::Why;
use crate::turn::{Orderer, Turn};

/// A peer that closes its connection is usually about to send BYE.
const GRACE: Duration = Duration::from_secs(2);

/// A peer that takes every new path and connects to none of them is given up.
const REPAIRS_MAX: u8 = 3;

/// Sessions whose chat is set up anew in one go.
const AT_ONCE: usize = 16;

impl Conference {
    /// A leg has its peer.
    pub(crate) fn leg_up(&mut self, key: LegKey) {
        let mut calls = self.calls.values_mut();
        if let Some(call) = calls.find(|c| c.talk.strands.iter().any(|s| s.leg == key.leg)) {
            call.repairs = 0;
            call.mute.retain(|leg| *leg != key.leg);
        }
    }

    /// Legs that packets come from have their peer.
    pub(crate) fn legs_heard(&mut self, counters: &[LegCounters]) {
        /// Since the last packet, for a leg that lives.
        const FRESH_MS: u64 = 10_000;
        for call in self.calls.values_mut().filter(|call| !call.mute.is_empty()) {
            let heard = |leg: u64| {
                let of = |c: &&LegCounters| c.leg.is_some_and(|key| key.leg == leg);
                counters.iter().find(of).is_some_and(|c| c.idle_ms < FRESH_MS)
            };
            call.mute.retain(|leg| !heard(*leg));
        }
    }

    /// A leg has lost its peer.
    pub(crate) fn leg_lost(&mut self, turn: &mut Turn<'_>, key: LegKey) {
        let lost = self.calls.values_mut().find_map(|c| Some((c.id, c.talk.strand_of(key.leg)?.medium?)));
        let Some((id, medium)) = lost else { return };
        let Some(call) = self.calls.get_mut(&id).filter(|c| c.state == CallState::Up) else { return };
        if medium != Medium::Message {
            call.mute.retain(|leg| *leg != key.leg);
            call.mute.push(key.leg);
            // A browser that has gone takes its lines with it, one after the other.
            let others = call.talk.strands.iter().any(|s| s.leg != 0 && !call.mute.contains(&s.leg));
            if !others {
                self.hang_up(turn, id, Some("SIP;cause=408;text=\"No media\""), Why::Lost);
            }
            return;
        }
        if call.lost_until.is_some() {
            return;
        }
        if call.repairs >= REPAIRS_MAX {
            return self.hang_up(turn, id, Some("SIP;cause=408;text=\"Media lost\""), Why::Lost);
        }
        call.repairs += 1;
        let grace = Duration::from_secs(turn.config().controlling.leg_lost_grace_s.into());
        call.lost_until = Some(turn.now.mono + grace);
        call.deadline = Some(turn.now.mono + GRACE.min(grace));
    }

    /// A lost leg is to be set up again, or has been lost for too long.
    pub(crate) fn repair_due(&mut self, turn: &mut Turn<'_>, id: CallId) {
        let now = turn.now.mono;
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some(until) = call.lost_until else { return };
        if until <= now {
            return self.hang_up(turn, id, Some("SIP;cause=408;text=\"Media lost\""), Why::Lost);
        }
        if call.is_busy() || call.state != CallState::Up {
            call.deadline = Some((now + GRACE).min(until));
            return;
        }
        self.renew(turn, id);
    }

    /// New legs for the messages of a session, and a re-INVITE that says so.
    fn renew(&mut self, turn: &mut Turn<'_>, id: CallId) {
        let Some(member) = self.calls.get(&id).map(|c| c.member) else { return };
        let who = self.chatter(member);
        let (Some(call), Some(room)) = (self.calls.get_mut(&id), self.room.as_mut()) else { return };
        for strand in call.talk.strands.iter_mut().filter(|s| s.medium == Some(Medium::Message)) {
            room.anchor.remove_leg(strand.leg);
            strand.leg = 0;
        }
        call.talk.prepare_offer(room, &who);
        call.change = Some(Change { purpose: Purpose::Repair, sent: None });
        self.order(turn, vec![id]);
    }

    /// Puts the room again, and sets up chats whose connections died with the old data plane.
    pub(crate) fn restore_media(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.mono;
        let Some(room) = &mut self.room else { return };
        // Message legs come back with new session ids; nobody is connected to the old ones.
        room.anchor.put_again(turn, Orderer::Focus(self.number));
        let grace = Duration::from_secs(turn.config().controlling.leg_lost_grace_s.into());
        let chats = self.calls.values_mut().filter(|c| {
            c.state == CallState::Up
                && c.talk.strands.iter().any(|s| s.medium == Some(Medium::Message) && s.leg != 0)
        });
        for (at, call) in chats.enumerate() {
            let later = u32::try_from(at / AT_ONCE).unwrap_or(u32::MAX);
            call.lost_until = Some(now + grace);
            call.deadline = Some(now + super::PACE.saturating_mul(later));
        }
    }
}
