//! ICE of a leg, the lite side of it (RFC 8445 §2.5, §7.3, §8.2): the peer's checks are answered, and they alone say
//! where it is. What does not authenticate is neither believed nor answered, unless it comes from where an authentic
//! check has come from: nothing is sent to an address that only an unauthenticated packet named.
//!
//! ```text
//!             a check                        a check that nominates
//!   Unmet ──────────────► Met, aims there ─────────────────────────► Nominated ─┐ nominates another, and a packet that
//!                          │ handshake from another checked address      ▲      │ its keys open comes from there: aims there
//!                          └─► Met, aims there                           └──────┘
//! ```
//!
//! The integrity of a check does not cover where it comes from, so a check that somebody has recorded and kept from us, or
//! that was forgotten meanwhile, nominates whatever address he sends it from. Whoever sends media from there has the keys,
//! and no packet of his opens twice. Before there are keys a nomination is enough.
//!
//! A restart (other user fragment or password of ours) forgets who has checked and keeps the aim until it is nominated
//! anew (RFC 8445 §9).

use std::net::SocketAddr;
use std::time::Duration;

use base::{Instant, Now};
use bytes::Bytes;
use rtp::stun::{self, Class, Key, Message, Refusal};

use super::arrive::Fate;
use super::latch::Heard;
use super::leg::{PortState, RtpLeg};
use super::{Media, Tx, What};
use crate::{Drop, Output, SocketId};

/// Addresses of one peer that have checked; the oldest gives way.
const CHECKED_MAX: usize = 8;
/// Transactions remembered, so that a check that somebody has recorded says nothing of his address.
const TRANSACTIONS_MAX: usize = 64;
/// A peer moves at most once in this time.
const MOVES_EVERY: Duration = Duration::from_millis(50);
/// RFC 8839 §5.4: characters of a user fragment and a password.
const UFRAG: std::ops::RangeInclusive<usize> = 4..=256;
const PASSWORD: std::ops::RangeInclusive<usize> = 22..=256;

/// What a leg knows about its peer's checks.
#[derive(Debug)]
pub(crate) struct Ice {
    ufrag: String,
    peer_ufrag: String,
    key: Key,
    nominated: bool,
    moved_at: Option<Instant>,
    checked: Vec<Checked>,
    transactions: Vec<([u8; 12], SocketAddr)>,
    next: usize,
    /// The last authentic check.
    pub(super) last_at: Instant,
}

/// An address from which an authentic check has come.
#[derive(Clone, Copy, Debug)]
struct Checked {
    at: SocketAddr,
    /// It was nominated after the pair in use: the leg goes there with the first packet that opens.
    nominated: bool,
}

/// Whether what control put can be done.
pub(crate) fn is_sound(ice: &contract::Ice) -> bool {
    // RFC 8839 §5.4: ice-char = ALPHA / DIGIT / "+" / "/"
    let chars = |text: &str| text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'+' || c == b'/');
    UFRAG.contains(&ice.ufrag.len())
        && PASSWORD.contains(&ice.password.len())
        && (ice.peer_ufrag.is_empty() || UFRAG.contains(&ice.peer_ufrag.len()))
        && chars(&ice.ufrag)
        && chars(&ice.password)
        && chars(&ice.peer_ufrag)
}

/// Whether the checks of one would be authentic for the other.
pub(super) fn same(a: &contract::Ice, b: &contract::Ice) -> bool {
    a.ufrag == b.ufrag && a.password == b.password
}

impl Ice {
    pub(super) fn new(ice: &contract::Ice, now: Instant) -> Self {
        Ice {
            ufrag: ice.ufrag.clone(),
            peer_ufrag: ice.peer_ufrag.clone(),
            key: Key::new(&ice.password),
            nominated: false,
            moved_at: None,
            checked: Vec::with_capacity(CHECKED_MAX),
            transactions: Vec::with_capacity(TRANSACTIONS_MAX),
            next: 0,
            last_at: now,
        }
    }

    /// The peer's own part has become known.
    pub(super) fn meet(&mut self, ice: &contract::Ice) {
        self.peer_ufrag.clone_from(&ice.peer_ufrag);
    }

    pub(super) fn is_met(&self) -> bool {
        !self.peer_ufrag.is_empty()
    }

    /// An authentic check has come from there.
    pub(super) fn knows(&self, from: SocketAddr) -> bool {
        self.checked.iter().any(|checked| checked.at == from)
    }

    pub(super) fn is_nominated(&self) -> bool {
        self.nominated
    }

    /// RFC 8489 §9.1.3, then §6.3.1, then RFC 8445 §7.3.1.1.
    fn judge(&self, message: &Message<'_>) -> Result<(), Refusal> {
        if !message.has_credentials() {
            return Err(Refusal::BadRequest);
        }
        // RFC 8445 §7.2.2: ours, a colon, theirs.
        let named = message.username.is_some_and(|name| {
            let ours = name.strip_prefix(self.ufrag.as_bytes()).and_then(|rest| rest.strip_prefix(b":"));
            ours.is_some_and(|theirs| self.peer_ufrag.is_empty() || theirs == self.peer_ufrag.as_bytes())
        });
        if !named || !message.is_authentic(&self.key) {
            return Err(Refusal::Unauthenticated);
        }
        if !message.unknown().is_empty() {
            return Err(Refusal::UnknownAttribute);
        }
        // We never control: who takes itself for controlled as well has to change its mind.
        if message.controlled { Err(Refusal::RoleConflict) } else { Ok(()) }
    }

    /// True when the transaction was another address's: the integrity does not cover where a check comes from.
    fn is_replay(&mut self, transaction: [u8; 12], from: SocketAddr) -> bool {
        if let Some((_, known)) = self.transactions.iter().find(|(t, _)| *t == transaction) {
            return *known != from;
        }
        if self.transactions.len() < TRANSACTIONS_MAX {
            self.transactions.push((transaction, from));
        } else if let Some(place) = self.transactions.get_mut(self.next) {
            *place = (transaction, from);
        }
        self.next = (self.next + 1) % TRANSACTIONS_MAX;
        false
    }

    fn remember(&mut self, from: SocketAddr, peer: Option<SocketAddr>) {
        if self.knows(from) {
            return;
        }
        if self.checked.len() >= CHECKED_MAX
            && let Some(at) = self.checked.iter().position(|checked| Some(checked.at) != peer)
        {
            self.checked.remove(at);
        }
        self.checked.push(Checked { at: from, nominated: false });
    }

    fn may_move(&self, now: Instant) -> bool {
        self.moved_at.is_none_or(|at| now.since(at) >= MOVES_EVERY)
    }

    /// Whether a check from `from` makes the leg send there at once. `keyed`: who is there can be told by what he sends.
    fn moves(
        &mut self,
        from: SocketAddr,
        peer: Option<SocketAddr>,
        (nominates, keyed): (bool, bool),
        now: Instant,
    ) -> bool {
        // After a restart the old pair stays until one is nominated.
        let first = peer.is_none();
        if !(first || (nominates && self.may_move(now))) {
            return false;
        }
        if keyed && self.nominated && peer != Some(from) {
            let checked = self.checked.iter_mut().find(|checked| checked.at == from);
            checked.into_iter().for_each(|checked| checked.nominated = true);
            return false;
        }
        self.nominated |= nominates;
        if peer == Some(from) {
            return false;
        }
        self.moved_at = Some(now);
        true
    }

    /// A packet came from there: if it opens, the leg goes there.
    pub(super) fn awaits(&self, from: SocketAddr, now: Instant) -> bool {
        self.checked.iter().any(|checked| checked.nominated && checked.at == from) && self.may_move(now)
    }

    /// The leg has gone to what was nominated last; what was nominated before counts no more (RFC 8445 §8.1.1).
    fn moved(&mut self, now: Instant) {
        self.moved_at = Some(now);
        self.checked.iter_mut().for_each(|checked| checked.nominated = false);
    }
}

impl RtpLeg {
    /// How a datagram is to be taken that is not from the leg's peer: `why` it would be dropped, unless it comes from where
    /// the peer has nominated an address.
    #[cold]
    pub(super) fn hear_nominated(&self, from: SocketAddr, now: Instant, why: Drop) -> Result<Heard, Drop> {
        let ice = self.web.as_ref().and_then(|web| web.ice.as_ref());
        let awaits =
            why == Drop::Source && self.guard.is_some() && ice.is_some_and(|ice| ice.awaits(from, now));
        if awaits { Ok(Heard::Nominated) } else { Err(why) }
    }
}

impl Media {
    /// A datagram that begins as STUN does.
    pub(super) fn stun(
        &mut self,
        now: Now,
        leg: u32,
        from: SocketAddr,
        bytes: &[u8],
        tx: &mut Tx<'_>,
    ) -> Result<Fate, Drop> {
        let row = self.leg_mut(leg).ok_or(Drop::NoLeg)?;
        let (socket, peer) = (row.rtp.socket, row.rtp.peer);
        let keyed = row.guard.as_ref().is_some_and(|guard| guard.opens());
        let web = row.web.as_mut().ok_or(Drop::Stun)?;
        let ice = web.ice.as_mut().ok_or(Drop::Stun)?;
        let message = Message::parse(bytes).map_err(|_| Drop::StunMalformed)?;
        match message.class {
            Class::Request => {}
            // A keep-alive (RFC 8445 §11).
            Class::Indication if ice.knows(from) => return Ok(Fate::Consumed),
            Class::Indication | Class::Success | Class::Error => return Err(Drop::Stun),
        }
        let judged = ice.judge(&message);
        if let Err(refusal @ (Refusal::BadRequest | Refusal::Unauthenticated)) = judged {
            if ice.knows(from) {
                answer(socket, peer, from, &stun::refuse(&message, refusal, None), tx);
            }
            return Err(Drop::StunUnauthentic);
        }
        if ice.is_replay(message.transaction, from) {
            return Err(Drop::StunReplayed);
        }
        if let Err(refusal) = judged {
            answer(socket, peer, from, &stun::refuse(&message, refusal, Some(&ice.key)), tx);
            return Err(Drop::StunRefused);
        }
        answer(socket, peer, from, &stun::success(&message.transaction, from, &ice.key), tx);
        ice.last_at = now.mono;
        ice.remember(from, peer);
        let moves = ice.moves(from, peer, (message.use_candidate, keyed), now.mono);
        web.lost = false;
        if moves {
            self.point(leg, from, tx);
        }
        Ok(Fate::Consumed)
    }

    /// A packet has opened. Where it came from an address that was nominated and waited for one, the peer is there now.
    pub(super) fn settled(&mut self, leg: u32, from: SocketAddr, heard: Heard, tx: &mut Tx<'_>) -> Heard {
        if heard != Heard::Nominated {
            return heard;
        }
        let now = self.now;
        let web = self.leg_mut(leg).and_then(|row| row.web.as_mut());
        if let Some(ice) = web.and_then(|web| web.ice.as_mut()) {
            ice.moved(now);
            self.point(leg, from, tx);
        }
        Heard::Peer
    }

    /// The peer is there: a check of its own has said so.
    pub(super) fn point(&mut self, leg: u32, to: SocketAddr, tx: &mut Tx<'_>) {
        let Some(row) = self.leg_mut(leg) else { return };
        let (key, unseen, unknown) = (row.key, row.unseen, !row.hears() || row.bundled);
        let port = &mut row.rtp;
        (port.state, port.peer) = (PortState::Fixed, Some(to));
        // Never connected: checks of other pairs must be heard (RFC 8445 §8.2, RFC 7675).
        tx.push(Output::Aim { socket: port.socket, to: Some(to), exclusive: false });
        if !unseen {
            let remote = Some(contract::Address::from(to));
            let latched = contract::Latched { leg: Some(key), remote, rtcp: false };
            tx.news(contract::news::What::Latched(latched));
        }
        if unknown {
            self.dirty = Some(key.context);
        }
        self.begin_handshake(leg, tx);
    }

    /// Watches over checks and handshake of a leg.
    pub(super) fn watch_web(&mut self, leg: u32, now: Instant) {
        let every = self.web_limits.every();
        if let Some(web) = self.leg_mut(leg).and_then(|row| row.web.as_mut())
            && !std::mem::replace(&mut web.watched, true)
        {
            self.due(leg, now + every, What::Web);
        }
    }

    /// Time has passed for a leg that waits for checks or for a handshake.
    pub(super) fn web_due(&mut self, leg: u32, now: Now, tx: &mut Tx<'_>) {
        use contract::leg_lost::Reason;
        let limits = self.web_limits;
        let Some(row) = self.leg_mut(leg) else { return };
        let mut nowhere = crate::Totals::default();
        let tx = &mut tx.telling(row.unseen, &mut nowhere);
        let Some(web) = row.web.as_mut() else { return };
        let silent = |ice: &Ice| ice.is_met() && now.mono.since(ice.last_at.max(web.since)) >= limits.ice;
        if web.ice.as_ref().is_some_and(silent) && !std::mem::replace(&mut web.lost, true) {
            self.lost(leg, Reason::IceFailed, tx);
        } else if web.waits_for_keys() && now.mono.since(web.since) >= limits.dtls {
            self.handshake_failed(leg, tx);
        }
        self.due(leg, now.mono + limits.every(), What::Web);
    }

    /// Tells control that a leg has lost its peer.
    pub(super) fn lost(&mut self, leg: u32, reason: contract::leg_lost::Reason, tx: &mut Tx<'_>) {
        for key in self.shown(leg) {
            tx.news(contract::news::What::LegLost(contract::LegLost {
                leg: Some(key),
                reason: reason.into(),
            }));
        }
    }
}

/// Sends an answer to where its request came from, whoever the socket is aimed at.
fn answer(socket: SocketId, peer: Option<SocketAddr>, from: SocketAddr, octets: &[u8], tx: &mut Tx<'_>) {
    let aim = |to| Output::Aim { socket, to, exclusive: false };
    let elsewhere = peer != Some(from);
    if elsewhere {
        tx.push(aim(Some(from)));
    }
    let sent = tx.push(Output::SendBytes { socket, bytes: Bytes::copy_from_slice(octets) });
    tx.totals.packets_out += u64::from(sent);
    if elsewhere {
        tx.push(aim(peer));
    }
}
