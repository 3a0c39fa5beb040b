//! Learning where a leg's peer sends from (CPM-FACTS §4.4, RFC 7362 §4, RFC 4961): only inside the window that
//! control's Put opened, only where the mode admits, never again without control's word. The address that the SDP
//! announced comes first: another one of its network is heard only after it stayed silent, and whoever was learned
//! instead of it gives way when it speaks within the window.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base::Instant;
use contract::Learning;

use super::leg::{Candidate, Port, PortState, RtpLeg};
use super::{Media, Tx, What};
use crate::{Drop, Output};

/// The window when control names none.
const WINDOW_MS: u32 = 5000;
/// A candidate that was quiet for so long makes room for another.
const QUIET: Duration = Duration::from_millis(250);

/// How a datagram of some source is to be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Heard {
    /// Its source is the leg's peer.
    Peer,
    /// If it proves to be valid, its source is learned.
    Learned,
    /// The same, but only when the address of the SDP has stayed silent meanwhile ([`Port::waits`]).
    Candidate,
    /// If it opens, its source is the leg's peer from now on: that one has nominated it (`ice`).
    Nominated,
}

impl Heard {
    /// The same for a packet that has to authenticate: who has the key need not wait for anybody else.
    pub(super) const fn with_key(self) -> Self {
        match self {
            Heard::Candidate => Heard::Learned,
            other => other,
        }
    }
}

/// The address that a leg's RTCP port is told, from what control put.
pub(crate) fn told_rtcp(rtcp: Option<SocketAddr>, rtp: Option<SocketAddr>) -> Option<SocketAddr> {
    // RFC 3550 §11: the next higher port, unless a=rtcp says otherwise (RFC 3605).
    rtcp.or_else(|| rtp.and_then(|a| Some(SocketAddr::new(a.ip(), a.port().checked_add(1)?))))
}

/// Opens a port to learning, or fixes it; control put a new remote or a new leg.
pub(crate) fn open(
    port: &mut Port,
    told: Option<SocketAddr>,
    learning: Learning,
    until: Instant,
    tx: &mut Tx<'_>,
) {
    (port.told, port.peer, port.candidate) = (told, told, None);
    port.state = match (learning, told) {
        (Learning::Strict, Some(_)) => PortState::Fixed,
        (Learning::Strict, None) | (Learning::Window, None) => PortState::Closed,
        (Learning::Window, Some(_)) | (Learning::Trust, _) => PortState::Learning { until },
    };
    aim(port, tx);
}

/// The end of the window that begins now.
pub(crate) fn until(now: Instant, learning_ms: u32) -> Instant {
    let ms = if learning_ms == 0 { WINDOW_MS } else { learning_ms };
    now + Duration::from_millis(u64::from(ms))
}

fn aim(port: &Port, tx: &mut Tx<'_>) {
    let exclusive = port.state == PortState::Fixed && port.peer.is_some();
    tx.push(Output::Aim { socket: port.socket, to: port.peer, exclusive });
}

/// The same host, /24 or /48.
fn near(a: IpAddr, b: IpAddr) -> bool {
    match (a.to_canonical(), b.to_canonical()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => a.to_bits() >> 8 == b.to_bits() >> 8,
        (IpAddr::V6(a), IpAddr::V6(b)) => a.to_bits() >> 80 == b.to_bits() >> 80,
        _ => false,
    }
}

/// Whether a datagram from `from` may be heard.
#[inline]
pub(crate) fn hear(port: &Port, learning: Learning, from: SocketAddr, now: Instant) -> Result<Heard, Drop> {
    match port.state {
        PortState::Fixed if port.peer == Some(from) => Ok(Heard::Peer),
        PortState::Fixed => Err(Drop::Source),
        PortState::Learning { until } if now <= until => match (learning, port.told) {
            (_, Some(told)) if told == from => Ok(Heard::Learned),
            (Learning::Trust, _) => Ok(Heard::Learned),
            (Learning::Window, Some(told)) if near(told.ip(), from.ip()) => Ok(Heard::Candidate),
            _ => Err(Drop::Source),
        },
        // The timer has not come yet; the window is over all the same.
        PortState::Learning { .. } if port.told == Some(from) => Ok(Heard::Peer),
        PortState::Learning { .. } | PortState::Closed => Err(Drop::Window),
        PortState::Lent { until } if now <= until && port.told == Some(from) => Ok(Heard::Learned),
        PortState::Lent { .. } if port.peer == Some(from) => Ok(Heard::Peer),
        PortState::Lent { .. } => Err(Drop::Source),
    }
}

impl Port {
    /// A valid packet came from near the address of the SDP. True while that one must be waited for: it may speak yet,
    /// and who is learned in its place hears what is meant for it.
    pub(super) fn waits(&mut self, from: SocketAddr, now: Instant, silence: Duration) -> bool {
        match &mut self.candidate {
            Some(candidate) if candidate.from == from => {
                candidate.last_at = now;
                now.since(candidate.since) < silence
            }
            Some(candidate) if candidate.from != from && now.since(candidate.last_at) < QUIET => true,
            _ => {
                self.candidate = Some(Candidate { from, since: now, last_at: now });
                !silence.is_zero()
            }
        }
    }
}

impl Media {
    /// A valid packet came from an address that may be learned.
    pub(crate) fn latch(&mut self, leg: u32, rtcp: bool, from: SocketAddr, tx: &mut Tx<'_>) {
        let Some(row) = self.leg_mut(leg) else { return };
        let key = row.key;
        let (unseen, mux) = (row.unseen, row.mux);
        let unknown = !row.hears() || row.bundled;
        let port = if rtcp && !mux { row.rtcp.as_mut() } else { Some(&mut row.rtp) };
        let Some(port) = port else { return };
        port.state = match port.state {
            PortState::Learning { until } if port.told.is_some_and(|told| told != from) => {
                PortState::Lent { until }
            }
            _ => PortState::Fixed,
        };
        port.peer = Some(from);
        aim(port, tx);
        if !rtcp || mux {
            follow_rtp(row, from, tx);
        }
        if !unseen {
            let remote = Some(contract::Address::from(from));
            tx.news(contract::news::What::Latched(contract::Latched {
                leg: Some(key),
                remote,
                rtcp: rtcp && !mux,
            }));
        }
        if unknown {
            self.dirty = Some(key.context);
        }
    }

    /// Whether an address is that of a leg of this data plane which control has not named as the peer.
    pub(super) fn is_strange(&self, leg: u32, rtcp: bool, from: SocketAddr) -> bool {
        let told = |row: &RtpLeg| if rtcp { row.rtcp.and_then(|port| port.told) } else { row.rtp.told };
        self.own.as_ref().is_some_and(|own| own.has(from))
            && self.leg(leg).is_none_or(|row| told(row) != Some(from))
    }

    /// The window is over: what was not learned stays with what the SDP said, or closed.
    pub(crate) fn window_over(&mut self, leg: u32, now: Instant, tx: &mut Tx<'_>) {
        let Some(row) = self.leg_mut(leg) else { return };
        for port in std::iter::once(&mut row.rtp).chain(row.rtcp.as_mut()) {
            port.state = match port.state {
                PortState::Learning { until } | PortState::Lent { until } if until >= now => continue,
                PortState::Learning { .. } if port.told.is_none() => PortState::Closed,
                PortState::Learning { .. } | PortState::Lent { .. } => PortState::Fixed,
                PortState::Fixed | PortState::Closed => continue,
            };
            aim(port, tx);
        }
    }

    /// Sets the timer for the end of the window.
    pub(crate) fn window_opens(&mut self, leg: u32, until: Instant) {
        // One tick later, so that the last moment still counts.
        self.due(leg, until + Duration::from_nanos(1), What::Window);
    }
}

/// An RTP source was learned; if nobody told where its RTCP goes, it is the port above.
fn follow_rtp(row: &mut RtpLeg, from: SocketAddr, tx: &mut Tx<'_>) {
    if let Some(port) = row.rtcp.as_mut()
        && matches!(port.state, PortState::Learning { .. })
        && port.peer.is_none()
    {
        port.peer = told_rtcp(None, Some(from));
        aim(port, tx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SocketId;

    fn learning() -> Port {
        let told: SocketAddr = "192.0.2.10:4000".parse().unwrap();
        let until = Instant::from_millis(100);
        Port {
            socket: SocketId(0),
            told: Some(told),
            peer: Some(told),
            state: PortState::Learning { until },
            candidate: None,
        }
    }

    #[test]
    fn who_may_be_learned_and_when() {
        let learning = learning();
        let fixed = Port { state: PortState::Fixed, ..learning };
        let untold = Port { told: None, peer: None, ..learning };
        let closed = Port { state: PortState::Closed, ..untold };
        let (same, near, far) = ("192.0.2.10:4000", "192.0.2.77:9", "198.51.100.1:4000");
        let until = Instant::from_millis(100);
        let lent = Port { peer: Some(near.parse().unwrap()), state: PortState::Lent { until }, ..learning };
        let (w, t, s) = (Learning::Window, Learning::Trust, Learning::Strict);
        for (port, mode, from, at, expected) in [
            (fixed, s, same, 0, Ok(Heard::Peer)),
            (fixed, s, near, 0, Err(Drop::Source)),
            (learning, w, same, 100, Ok(Heard::Learned)),
            (learning, w, near, 100, Ok(Heard::Candidate)),
            (learning, w, far, 100, Err(Drop::Source)),
            (learning, w, near, 101, Err(Drop::Window)),
            (learning, w, same, 101, Ok(Heard::Peer)),
            (learning, t, far, 100, Ok(Heard::Learned)),
            (learning, t, far, 101, Err(Drop::Window)),
            (untold, t, far, 0, Ok(Heard::Learned)),
            (untold, w, far, 0, Err(Drop::Source)),
            (closed, t, far, 0, Err(Drop::Window)),
            (lent, w, near, 100, Ok(Heard::Peer)),
            (lent, w, same, 100, Ok(Heard::Learned)),
            (lent, w, far, 100, Err(Drop::Source)),
            (lent, t, far, 100, Err(Drop::Source)),
            (lent, w, near, 101, Ok(Heard::Peer)),
            (lent, w, same, 101, Err(Drop::Source)),
        ] {
            let heard = hear(&port, mode, from.parse().unwrap(), Instant::from_millis(at));
            assert_eq!(heard, expected, "{:?} {mode:?} {from} {at}", port.state);
        }
        let v6 = |a: &str| a.parse::<IpAddr>().unwrap();
        assert!(super::near(v6("2001:db8:1:2::1"), v6("2001:db8:1:ffff::9")));
        assert!(!super::near(v6("2001:db8:1::1"), v6("2001:db8:2::1")));
    }

    #[test]
    fn a_candidate_speaks_on_while_the_announced_address_is_silent() {
        let at = |ms| Instant::from_millis(ms);
        let [a, b]: [SocketAddr; 2] = ["192.0.2.77:9", "192.0.2.78:9"].map(|a| a.parse().unwrap());
        let silence = Duration::from_secs(1);
        let mut port = learning();
        // Of two the one that goes on speaking is the candidate.
        for (from, ms, waits) in
            [(a, 0, true), (b, 100, true), (b, 300, true), (a, 540, true), (b, 1290, true), (b, 1300, false)]
        {
            assert_eq!(port.waits(from, at(ms), silence), waits, "{from} {ms}");
        }
        assert!(!learning().waits(a, at(0), Duration::ZERO), "no silence is waited for where none is wanted");
    }
}
