//! What a leg of a WebRTC peer has beside others: ICE, and a handshake that gives it its keys. Kept in a box that plain
//! legs lack.
//!
//! The handshake itself (RFC 5764, RFC 6347, RFC 9147) runs at the edge, as TLS does for streams: its library reads a
//! clock and draws randomness. The engine decides who may begin one, whose certificate is believed, and what the keys
//! open.
//!
//! ```text
//!             datagram of an admitted peer, or the      keys, and a certificate that was announced
//!             peer is known and we are the client       
//!   Waiting ─────────────────────────────────► Running ───────────────────────────────────────────► Done
//!      │                                          │ failed, another certificate
//!      └───────────── not in time ────────────────┴──────────────────────────► Failed
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use base::{Instant, Now};
use bytes::Bytes;
use contract::leg_lost::Reason;

use super::arrive::Fate;
use super::bundle::Bundle;
use super::ice::{self, Ice};
use super::{Guard, Media, Tx};
use crate::{Drop, DtlsId, DtlsOrder, DtlsWord, Output, Totals};

/// Certificates that a peer may announce.
const FINGERPRINTS_MAX: usize = 8;
/// Handshake datagrams of one leg that are looked at in one second.
const DATAGRAMS_MAX: u32 = 64;

/// How long may pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WebLimits {
    /// Without a check.
    pub(crate) ice: Duration,
    /// Until a handshake is done.
    pub(crate) dtls: Duration,
}

impl WebLimits {
    /// How often a leg is looked at.
    pub(super) fn every(&self) -> Duration {
        (self.ice.min(self.dtls) / 6).max(Duration::from_millis(100))
    }
}

/// ICE and DTLS of a leg.
#[derive(Debug)]
pub(crate) struct Web {
    pub(super) ice: Option<Ice>,
    shake: Option<Shake>,
    /// When the peer's part became known.
    pub(super) since: Instant,
    pub(super) watched: bool,
    /// Control was told that no check comes.
    pub(super) lost: bool,
    /// Whose is what comes, where lines share the transport.
    pub(super) bundle: Option<Box<Bundle>>,
}

#[derive(Debug)]
struct Shake {
    serial: u64,
    active: bool,
    fingerprints: Vec<[u8; 32]>,
    state: State,
    /// The second in which datagrams are counted, and how many came.
    second: u64,
    datagrams: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Waiting,
    Running,
    Done,
    Failed,
}

/// Whether what control put can be done.
pub(crate) fn is_sound(rtp: &contract::RtpLeg) -> bool {
    let dtls = rtp.dtls.as_ref().is_none_or(|dtls| {
        rtp.srtp.is_none()
            && dtls.fingerprints.len() <= FINGERPRINTS_MAX
            && dtls.fingerprints.iter().all(|print| print.len() == 32)
            && contract::Setup::try_from(dtls.setup).is_ok()
    });
    let web = rtp.dtls.is_some() || rtp.ice.is_some();
    dtls && (!web || rtp.rtcp_mux) && rtp.ice.as_ref().is_none_or(|ice| ice::is_sound(ice))
}

impl Web {
    /// It has begun a handshake that has not come to its end.
    pub(super) fn waits_for_keys(&self) -> bool {
        let waits =
            |s: &Shake| matches!(s.state, State::Waiting | State::Running) && !s.fingerprints.is_empty();
        self.shake.as_ref().is_some_and(waits)
    }
}

impl Media {
    /// Puts ICE and DTLS of a leg as control wants them. True: its keys, if it had any, are those of another handshake.
    pub(super) fn put_web(
        &mut self,
        now: Instant,
        leg: u32,
        rtp: &contract::RtpLeg,
        old: Option<&contract::RtpLeg>,
        tx: &mut Tx<'_>,
    ) -> bool {
        self.shakes += 1;
        let serial = self.shakes;
        let Some(row) = self.leg_mut(leg) else { return false };
        if rtp.ice.is_none() && rtp.dtls.is_none() {
            if let Some(web) = row.web.take() {
                end(&web, leg, tx);
            }
            return true;
        }
        let web = row.web.get_or_insert_with(|| {
            Box::new(Web { ice: None, shake: None, since: now, watched: false, lost: false, bundle: None })
        });
        let before = web.ice.as_ref().is_some_and(Ice::is_met);
        let old_ice = old.and_then(|old| old.ice.as_ref());
        match (&rtp.ice, &mut web.ice) {
            (Some(new), Some(ice)) if old_ice.is_some_and(|old| ice::same(old, new)) => ice.meet(new),
            (Some(new), place) => *place = Some(Ice::new(new, now)),
            (None, place) => *place = None,
        }
        let same = match (&rtp.dtls, &web.shake) {
            (Some(new), Some(shake)) => {
                shake.fingerprints == prints(new) && shake.active == (new.setup() == contract::Setup::Active)
            }
            (None, None) => true,
            _ => false,
        };
        if !same {
            end(web, leg, tx);
            web.shake = rtp.dtls.as_ref().map(|dtls| Shake {
                serial,
                active: dtls.setup() == contract::Setup::Active,
                fingerprints: prints(dtls),
                state: State::Waiting,
                second: 0,
                datagrams: 0,
            });
        }
        if !before || !same {
            web.since = now;
        }
        self.watch_web(leg, now);
        !same
    }

    /// A datagram that begins as DTLS does. It may begin a handshake, so its source must have passed a check, or without
    /// ICE be the announced one: no other address is answered.
    pub(super) fn dtls(
        &mut self,
        now: Now,
        leg: u32,
        from: SocketAddr,
        bytes: &[u8],
        tx: &mut Tx<'_>,
    ) -> Result<Fate, Drop> {
        let row = self.leg_mut(leg).ok_or(Drop::NoLeg)?;
        let peer = row.rtp.peer;
        let web = row.web.as_mut().ok_or(Drop::Dtls)?;
        let shake = web.shake.as_mut().ok_or(Drop::Dtls)?;
        let (admitted, moves) = match &web.ice {
            Some(ice) => (ice.knows(from), !ice.is_nominated() && peer != Some(from)),
            None => (peer == Some(from), false),
        };
        if !admitted || shake.fingerprints.is_empty() {
            return Err(Drop::DtlsStranger);
        }
        let second = now.mono.as_nanos() / 1_000_000_000;
        if shake.second != second {
            (shake.second, shake.datagrams) = (second, 0);
        }
        shake.datagrams += 1;
        if shake.datagrams > DATAGRAMS_MAX {
            return Err(Drop::DtlsTooMany);
        }
        match shake.state {
            State::Failed => return Err(Drop::Dtls),
            State::Waiting => shake.state = State::Running,
            State::Running | State::Done => {}
        }
        let id = DtlsId { leg, serial: shake.serial };
        let order = DtlsOrder::Datagram { active: shake.active, bytes: Bytes::copy_from_slice(bytes) };
        if moves {
            self.point(leg, from, tx);
        }
        tx.push(Output::Dtls { id, order });
        Ok(Fate::Consumed)
    }

    /// We are the client, and the peer is there.
    pub(super) fn begin_handshake(&mut self, leg: u32, tx: &mut Tx<'_>) {
        let Some(row) = self.leg_mut(leg).filter(|row| row.rtp.peer.is_some()) else { return };
        let Some(shake) = row.web.as_mut().and_then(|web| web.shake.as_mut()) else { return };
        if shake.active && shake.state == State::Waiting && !shake.fingerprints.is_empty() {
            shake.state = State::Running;
            tx.push(Output::Dtls { id: DtlsId { leg, serial: shake.serial }, order: DtlsOrder::Begin });
        }
    }

    /// What the handshake at the edge says.
    pub(crate) fn dtls_word(&mut self, id: DtlsId, word: DtlsWord, tx: &mut Tx<'_>) {
        let config = self.srtp;
        let Some(row) = self.leg_mut(id.leg) else { return };
        let mut nowhere = Totals::default();
        let tx = &mut tx.telling(row.unseen, &mut nowhere);
        let (key, peer, socket) = (row.key, row.rtp.peer, row.rtp.socket);
        let shake = row.web.as_mut().and_then(|web| web.shake.as_mut()).filter(|s| s.serial == id.serial);
        let Some(shake) = shake.filter(|s| s.state != State::Failed) else { return };
        match word {
            DtlsWord::Send(bytes) => {
                if peer.is_some() {
                    let sent = tx.push(Output::SendBytes { socket, bytes });
                    tx.totals.packets_out += u64::from(sent);
                }
            }
            // What is agreed stays agreed: other keys are another handshake, and that is control's to ask for.
            DtlsWord::Keys(_) | DtlsWord::Failed if shake.state == State::Done => {}
            // RFC 8122 §6.2, RFC 5763 §5: another certificate than the signalling announced is nobody's.
            DtlsWord::Keys(keys) if shake.fingerprints.contains(&keys.fingerprint) => {
                shake.state = State::Done;
                tx.totals.handshakes += 1;
                row.guard = Some(Box::new(Guard::agreed(&keys.send, &keys.receive, config)));
                self.dirty = Some(key.context);
                for key in self.shown(id.leg) {
                    tx.news(contract::news::What::LegUp(contract::LegUp { leg: Some(key) }));
                }
            }
            DtlsWord::Keys(_) | DtlsWord::Failed => self.handshake_failed(id.leg, tx),
            DtlsWord::Closed => {
                shake.state = State::Failed;
                tx.push(Output::Dtls { id, order: DtlsOrder::End });
                row.guard = Some(Box::default());
                self.dirty = Some(key.context);
                self.lost(id.leg, Reason::Closed, tx);
            }
        }
    }

    /// No keys come of it.
    pub(super) fn handshake_failed(&mut self, leg: u32, tx: &mut Tx<'_>) {
        let Some(row) = self.leg_mut(leg) else { return };
        let Some(web) = row.web.as_mut() else { return };
        end(web, leg, tx);
        if let Some(shake) = web.shake.as_mut() {
            shake.state = State::Failed;
        }
        row.guard = Some(Box::default());
        self.dirty = Some(row.key.context);
        tx.totals.handshakes_refused += 1;
        self.lost(leg, Reason::DtlsFailed, tx);
    }
}

fn prints(dtls: &contract::Dtls) -> Vec<[u8; 32]> {
    dtls.fingerprints.iter().filter_map(|print| print.as_slice().try_into().ok()).collect()
}

/// The edge may forget a handshake.
pub(super) fn end(web: &Web, leg: u32, tx: &mut Tx<'_>) {
    if let Some(shake) = web.shake.as_ref().filter(|s| matches!(s.state, State::Running | State::Done)) {
        tx.push(Output::Dtls { id: DtlsId { leg, serial: shake.serial }, order: DtlsOrder::End });
    }
}
