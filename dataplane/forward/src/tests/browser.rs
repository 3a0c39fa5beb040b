//! The far end of a leg with ICE and DTLS, and the process's end of its handshake, around a [`Rig`].
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "handshakes run at the edge, whose clock is the system's"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use contract::{Dtls, Ice, Leg, Setup};
use dtls::{Event, Handshake, Identity};
use rtp::srtp::{Config, Inbound, Outbound, TRAILER_MAX};
use rtp::stun::{self, Class, Key, Message};

use super::rig::*;
use crate::{DtlsId, DtlsKeys, DtlsOrder, DtlsWord, Input, Output};

pub(crate) const UFRAG: &str = "ours";
pub(crate) const PASSWORD: &str = "apasswordof22charsIsOurs";
pub(crate) const PEER_UFRAG: &str = "theirs";

pub(crate) fn identity() -> Identity {
    Identity::make(Duration::from_secs(30)).unwrap()
}

/// What the process does for the engine.
pub(crate) struct Edge {
    identity: Identity,
    running: BTreeMap<DtlsId, Handshake>,
    /// How many were ended.
    pub(crate) ended: usize,
    now: Instant,
}

impl Edge {
    pub(crate) fn new() -> Self {
        Edge { identity: identity(), running: BTreeMap::new(), ended: 0, now: Instant::now() }
    }

    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        self.identity.fingerprint()
    }

    /// The handshake that was begun last.
    pub(crate) fn last(&self) -> Option<DtlsId> {
        self.running.keys().max_by_key(|id| id.serial).copied()
    }

    /// Does what is wanted of handshakes, until nothing is; everything else that was done.
    pub(crate) fn run(&mut self, rig: &mut Rig, done: Vec<Done>) -> Vec<Done> {
        let (mut rest, mut queue) = (Vec::new(), std::collections::VecDeque::from(done));
        while let Some(one) = queue.pop_front() {
            let Done::Stream(Output::Dtls { id, order }) = one else {
                rest.push(one);
                continue;
            };
            let mut events = Vec::new();
            let (active, bytes) = match order {
                DtlsOrder::Begin => (true, None),
                DtlsOrder::Datagram { active, bytes } => (active, Some(bytes)),
                DtlsOrder::End => {
                    self.ended += usize::from(self.running.remove(&id).is_some());
                    continue;
                }
            };
            let now = self.now;
            let handshake =
                self.running.entry(id).or_insert_with(|| Handshake::new(&self.identity, active, now));
            match bytes {
                Some(bytes) => handshake.datagram(now, &bytes, &mut events),
                None => handshake.timeout(now, &mut events),
            }
            for event in events {
                let word = match event {
                    Event::Send(bytes) => DtlsWord::Send(bytes),
                    Event::Keys(k) => DtlsWord::Keys(Box::new(DtlsKeys {
                        fingerprint: k.fingerprint,
                        send: k.send,
                        receive: k.receive,
                    })),
                    Event::Failed => DtlsWord::Failed,
                    Event::Closed => DtlsWord::Closed,
                };
                queue.extend(rig.input(Input::Dtls { id, word }));
            }
        }
        rest
    }
}

/// A browser, or who would be one.
pub(crate) struct Browser {
    pub(crate) n: u64,
    pub(crate) at: SocketAddr,
    pub(crate) key: Key,
    pub(crate) username: String,
    identity: Identity,
    handshake: Handshake,
    keys: Option<(Outbound, Inbound)>,
    /// The certificate that it was shown.
    pub(crate) shown: Option<[u8; 32]>,
    transaction: u32,
    now: Instant,
}

impl Browser {
    /// At the far end of leg `n`, as client of the handshake.
    pub(crate) fn new(n: u64) -> Self {
        Browser::in_role(n, true)
    }

    pub(crate) fn in_role(n: u64, active: bool) -> Self {
        let (identity, now) = (identity(), Instant::now());
        Browser {
            n,
            at: peer(n),
            key: Key::new(PASSWORD),
            username: format!("{UFRAG}:{PEER_UFRAG}"),
            handshake: Handshake::new(&identity, active, now),
            identity,
            keys: None,
            shown: None,
            transaction: 0,
            now,
        }
    }

    /// Its leg as control puts it; we wait for its handshake.
    pub(crate) fn leg(&self) -> Leg {
        let ice = Ice { ufrag: UFRAG.into(), password: PASSWORD.into(), peer_ufrag: PEER_UFRAG.into() };
        edit(self.leg_without_ice(), |rtp| {
            rtp.remote = None;
            rtp.ice = Some(Box::new(ice));
        })
    }

    pub(crate) fn leg_without_ice(&self) -> Leg {
        let dtls =
            Dtls { setup: Setup::Passive.into(), fingerprints: vec![self.identity.fingerprint().to_vec()] };
        edit(rtp_leg(self.n), |rtp| rtp.dtls = Some(Box::new(dtls)))
    }

    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        self.identity.fingerprint()
    }

    pub(crate) fn check(&mut self, nominates: bool) -> Vec<u8> {
        self.transaction += 1;
        let mut transaction = [self.n as u8; 12];
        transaction[..4].copy_from_slice(&self.transaction.to_be_bytes());
        stun::check(&transaction, &self.username, &self.key, nominates)
    }

    /// What it says first.
    pub(crate) fn hello(&mut self) -> Vec<Bytes> {
        let mut events = Vec::new();
        self.handshake.timeout(self.now, &mut events);
        self.take(events)
    }

    pub(crate) fn hears_dtls(&mut self, bytes: &[u8]) -> Vec<Bytes> {
        let mut events = Vec::new();
        self.handshake.datagram(self.now, bytes, &mut events);
        self.take(events)
    }

    fn take(&mut self, events: Vec<Event>) -> Vec<Bytes> {
        let mut out = Vec::new();
        for event in events {
            match event {
                Event::Send(bytes) => out.push(bytes),
                Event::Keys(keys) => {
                    self.shown = Some(keys.fingerprint);
                    let config = Config::default();
                    self.keys = Some((
                        Outbound::new(&keys.send, config).unwrap(),
                        Inbound::new(&keys.receive, config).unwrap(),
                    ));
                }
                Event::Failed | Event::Closed => {}
            }
        }
        out
    }

    /// Its datagrams go to the leg, the leg's to it, until both are silent; all that was done.
    pub(crate) fn talk(&mut self, rig: &mut Rig, edge: &mut Edge, first: Vec<Bytes>) -> Vec<Done> {
        let (mut out, mut all) = (std::collections::VecDeque::from(first), Vec::new());
        while let Some(bytes) = out.pop_front() {
            let done = rig.datagram(socket(self.n), self.at, &bytes);
            let done = edge.run(rig, done);
            let own = socket(self.n);
            for (_, sent) in sent(&done).into_iter().filter(|(s, _)| *s == own) {
                if rtp::kind(sent) == rtp::Kind::Dtls {
                    out.extend(self.hears_dtls(sent));
                }
            }
            all.extend(done);
        }
        all
    }

    /// Checks, nominates, shakes hands.
    pub(crate) fn connect(&mut self, rig: &mut Rig, edge: &mut Edge) -> Vec<Done> {
        let check = self.check(true);
        let done = rig.datagram(socket(self.n), self.at, &check);
        let mut all = edge.run(rig, done);
        let mut first = Vec::new();
        for (_, sent) in sent(&all) {
            match rtp::kind(sent) {
                rtp::Kind::Dtls => first.extend(self.hears_dtls(sent)),
                _ => assert_eq!(class(sent), Class::Success),
            }
        }
        first.extend(self.hello());
        all.extend(self.talk(rig, edge, first));
        all
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.keys.is_some()
    }

    pub(crate) fn says(&mut self, clear: &[u8]) -> Vec<u8> {
        let (outbound, _) = self.keys.as_mut().unwrap();
        protect(clear, |wire, length| outbound.rtp(wire, length).unwrap())
    }

    pub(crate) fn reports(&mut self, clear: &[u8]) -> Vec<u8> {
        let (outbound, _) = self.keys.as_mut().unwrap();
        protect(clear, |wire, length| outbound.rtcp(wire, length).unwrap())
    }

    pub(crate) fn hears(&mut self, wire: &[u8]) -> Vec<u8> {
        let mut clear = wire.to_vec();
        let length = self.keys.as_mut().unwrap().1.rtp(&mut clear).unwrap();
        clear.truncate(length);
        clear
    }
}

fn protect(clear: &[u8], by: impl FnOnce(&mut [u8], usize) -> usize) -> Vec<u8> {
    let mut wire = clear.to_vec();
    wire.resize(clear.len() + TRAILER_MAX, 0);
    let length = by(&mut wire, clear.len());
    wire.truncate(length);
    wire
}

/// What kind of STUN message was sent.
pub(crate) fn class(bytes: &[u8]) -> Class {
    Message::parse(bytes).unwrap().class
}

/// Whom a leg's socket sends to after what was done.
pub(crate) fn aimed(done: &[Done], at: crate::SocketId) -> Option<Option<SocketAddr>> {
    done.iter().rev().find_map(|d| match d {
        Done::Aimed(socket, to, _) if *socket == at => Some(*to),
        _ => None,
    })
}

/// Each datagram with the address that it went to, from where the socket was aimed before.
pub(crate) fn addressed(
    done: &[Done],
    at: crate::SocketId,
    mut to: Option<SocketAddr>,
) -> Vec<(Option<SocketAddr>, &[u8])> {
    let mut all = Vec::new();
    for one in done {
        match one {
            Done::Aimed(socket, new, _) if *socket == at => to = *new,
            Done::Sent(socket, bytes) if *socket == at => all.push((to, &bytes[..])),
            _ => {}
        }
    }
    all
}
