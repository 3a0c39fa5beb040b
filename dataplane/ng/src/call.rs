//! A call: its two sides, and for each m= line that is relayed two ends, which are two legs of its context.
//!
//! ```text
//!   offer ──► offered ── answer ──► answered ── offer, answer ──┐
//!               │                      ▲────────────────────────┘
//!               └── delete, silence, no answer in time ──► gone
//! ```
//!
//! Sources are learned from the answer on, never before.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use base::{Entropy, Now, UnixTime};
use contract::change::Verb;
use contract::{
    Change, LegCounters, LegKey, LegSet, Mode, Path, PathKey, RtpLeg, RtpLocal, Srtp, SrtpSuite, leg,
};
use sdp::{Crypto, CryptoSuite, Direction, Kind, MediaLine, Proto, Session};

use crate::config::{Config, Learning};
use crate::flags::{Flags, is_spoken};

/// Who sent the first offer, and who it was for.
pub(crate) const SIDES: [usize; 2] = [0, 1];

/// One side of a call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Side {
    pub(crate) tag: base::Private<Vec<u8>>,
    /// Which of the configured interfaces; none chosen yet.
    pub(crate) interface: Option<usize>,
    /// What it is told instead of the interface's address.
    pub(crate) address: Option<IpAddr>,
    pub(crate) strict: bool,
}

/// Our end of a line towards one side.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) placed: Option<RtpLocal>,
    pub(crate) remote: Option<SocketAddr>,
    rtcp: Option<SocketAddr>,
    pub(crate) mux: bool,
    /// The last offer from there had a=rtcp-mux.
    asks_mux: bool,
    pub(crate) direction: Direction,
    pub(crate) proto: Proto,
    /// Our keys: those that are offered, or the one of an answer.
    pub(crate) own: Vec<Crypto>,
    srtp: Option<Srtp>,
}

impl End {
    fn new(proto: Proto) -> Self {
        End {
            placed: None,
            remote: None,
            rtcp: None,
            mux: false,
            asks_mux: false,
            direction: Direction::SendRecv,
            proto,
            own: Vec::new(),
            srtp: None,
        }
    }

    /// What a description says of its writer.
    fn take(&mut self, line: &MediaLine, flags: &Flags) {
        let ip = flags.source.or_else(|| line.host.as_ref().and_then(sdp::Host::ip));
        let at = |ip: IpAddr, port| Some(SocketAddr::new(ip, port)).filter(|_| !ip.is_unspecified());
        self.remote = ip.and_then(|ip| at(ip, line.port));
        let rtcp = line.rtp().and_then(|rtp| rtp.rtcp.as_ref());
        self.rtcp = rtcp.and_then(|rtcp| {
            let own = rtcp.host.as_ref().and_then(sdp::Host::ip).filter(|_| flags.source.is_none());
            own.or(ip).and_then(|ip| at(ip, rtcp.port))
        });
        self.direction = line.effective_direction();
    }
}

/// An m= line that is relayed.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) kind: Kind,
    pub(crate) ends: [End; 2],
    clock: u32,
}

/// A call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) context: u64,
    pub(crate) created: UnixTime,
    pub(crate) signalled: Now,
    pub(crate) answered: bool,
    pub(crate) sides: [Side; 2],
    pub(crate) lines: Vec<Option<Line>>,
    /// The last counters, by leg.
    pub(crate) counters: BTreeMap<u64, LegCounters>,
}

/// The leg of a line's end.
pub(crate) const fn leg_id(line: usize, side: usize) -> u64 {
    (line * 2 + side + 1) as u64
}

impl Call {
    pub(crate) fn new(context: u64, now: Now) -> Self {
        Call {
            context,
            created: now.wall,
            signalled: now,
            answered: false,
            sides: [Side::default(), Side::default()],
            lines: Vec::new(),
            counters: BTreeMap::new(),
        }
    }

    /// The side with a tag.
    pub(crate) fn side_of(&self, tag: &[u8]) -> Option<usize> {
        SIDES.into_iter().find(|at| !tag.is_empty() && self.side(*at).tag.expose() == tag)
    }

    pub(crate) fn side(&self, at: usize) -> &Side {
        let [a, b] = &self.sides;
        if at == 0 { a } else { b }
    }

    pub(crate) fn side_mut(&mut self, at: usize) -> &mut Side {
        let [a, b] = &mut self.sides;
        if at == 0 { a } else { b }
    }

    /// Takes an offer from a side; what has to be removed.
    pub(crate) fn offer(
        &mut self,
        from: usize,
        session: &Session,
        flags: &Flags,
        config: &Config,
        entropy: &mut Entropy,
    ) -> Result<Vec<Change>, &'static str> {
        self.choose_interfaces(from, session, flags, config);
        let mut changes = Vec::new();
        let count = session.lines.len().max(self.lines.len());
        self.lines.resize(count, None);
        for index in 0..count {
            let offered = session.lines.get(index).filter(|line| is_relayed(line));
            let Some(offered) = offered else {
                // RFC 3264 §8.2: a line that ended may begin again, and is a new one then.
                self.end_line(index, &mut changes);
                continue;
            };
            let proto = flags.proto.clone().unwrap_or_else(|| offered.proto.clone());
            let Some(place) = self.lines.get_mut(index) else { continue };
            let line = place.get_or_insert_with(|| Line {
                kind: offered.kind.clone(),
                ends: [End::new(offered.proto.clone()), End::new(proto.clone())],
                clock: 0,
            });
            line.clock = clock(offered);
            let (near, far) = line.pair(from);
            near.take(offered, flags);
            near.asks_mux = offered.rtp().is_some_and(|rtp| rtp.rtcp_mux) && !flags.mux_reject;
            near.proto = offered.proto.clone();
            near.answer_keys(offered, &flags.suites, entropy)?;
            far.proto = proto;
            far.offer_keys(&flags.suites, entropy)?;
        }
        Ok(changes)
    }

    /// Takes the answer of a side to the other's offer; what has to be removed.
    pub(crate) fn answer(
        &mut self,
        from: usize,
        session: &Session,
        flags: &Flags,
    ) -> Result<Vec<Change>, &'static str> {
        let mut changes = Vec::new();
        for index in 0..self.lines.len() {
            let answered = session.lines.get(index).filter(|line| is_relayed(line));
            let (Some(Some(line)), Some(answered)) = (self.lines.get_mut(index), answered) else {
                self.end_line(index, &mut changes);
                continue;
            };
            let (near, far) = line.pair(from);
            near.take(answered, flags);
            near.mux = answered.rtp().is_some_and(|rtp| rtp.rtcp_mux);
            near.proto = answered.proto.clone();
            near.agree_keys(answered)?;
            far.mux = far.asks_mux;
        }
        self.answered = true;
        self.side_mut(from).strict |= flags.strict;
        Ok(changes)
    }

    fn end_line(&mut self, index: usize, changes: &mut Vec<Change>) {
        if self.lines.get_mut(index).and_then(Option::take).is_none() {
            return;
        }
        let context = self.context;
        for side in SIDES {
            let path = PathKey { context, path: path_id(index, side) };
            changes.push(Change { verb: Some(Verb::RemovePath(path)) });
        }
        for side in SIDES {
            let leg = leg_id(index, side);
            self.counters.remove(&leg);
            changes.push(Change { verb: Some(Verb::RemoveLeg(LegKey::new(context, leg))) });
        }
    }

    fn choose_interfaces(&mut self, from: usize, session: &Session, flags: &Flags, config: &Config) {
        let named = |at: usize| {
            let name = flags.directions.get(at)?;
            config.interfaces.iter().position(|interface| interface.name == *name)
        };
        let family = |v6: bool| config.interfaces.iter().position(|i| i.address.is_ipv6() == v6);
        let own = session.lines.iter().find_map(|line| line.host.as_ref()?.ip());
        let default = |v6: Option<bool>| v6.and_then(family).unwrap_or(0);
        let near = self.side_mut(from);
        near.strict |= flags.strict;
        near.interface = near.interface.or_else(|| named(0)).or(Some(default(own.map(|ip| ip.is_ipv6()))));
        let far = self.side_mut(1 - from);
        far.address = flags.media_address.or(far.address);
        far.interface = far.interface.or_else(|| named(1)).or_else(|| Some(default(flags.v6)));
    }

    /// The whole wanted state.
    pub(crate) fn wanted(&self, config: &Config) -> Vec<Change> {
        let context = self.context;
        let mut verbs = vec![Verb::PutContext(contract::Context { id: context })];
        for (index, line) in self.lines.iter().enumerate().filter_map(|(i, line)| Some((i, line.as_ref()?))) {
            for side in SIDES {
                verbs.push(Verb::PutLeg(self.leg(index, line, side, config)));
            }
            for side in SIDES {
                let set = |side| Some(LegSet { legs: vec![leg_id(index, side)], media: String::new() });
                verbs.push(Verb::PutPath(Path {
                    id: path_id(index, side),
                    context,
                    mode: Mode::Relay.into(),
                    sources: set(side),
                    targets: set(1 - side),
                    ..Path::default()
                }));
            }
        }
        verbs.into_iter().map(|verb| Change { verb: Some(verb) }).collect()
    }

    fn leg(&self, index: usize, line: &Line, side: usize, config: &Config) -> contract::Leg {
        let [a, b] = &line.ends;
        let end = if side == 0 { a } else { b };
        let own = self.side(side);
        let interface = own.interface.and_then(|at| config.interfaces.get(at));
        let fresh = || RtpLocal {
            interface: interface.map_or_else(String::new, |interface| interface.name.clone()),
            ..RtpLocal::default()
        };
        let learning = match config.learning {
            _ if own.strict || !self.answered => Learning::Strict,
            other => other,
        };
        let window = if learning == Learning::Strict { 0 } else { config.learning_window.as_millis() };
        let rtp = RtpLeg {
            local: Some(end.placed.clone().unwrap_or_else(fresh)),
            remote: end.remote.map(Into::into),
            remote_rtcp: end.rtcp.map(|at| Box::new(at.into())),
            rtcp_mux: end.mux,
            learning: match learning {
                Learning::Strict => contract::Learning::Strict,
                Learning::Window => contract::Learning::Window,
                Learning::Trust => contract::Learning::Trust,
            }
            .into(),
            learning_ms: u32::try_from(window).unwrap_or(u32::MAX),
            clock_rate: line.clock,
            video: line.kind == Kind::Video,
            srtp: end.srtp.clone().map(Box::new),
            ..RtpLeg::default()
        };
        contract::Leg {
            id: leg_id(index, side),
            context: self.context,
            media: line.kind.as_str().to_owned(),
            direction: match end.direction {
                Direction::SendRecv => contract::Direction::Sendrecv,
                Direction::SendOnly => contract::Direction::Sendonly,
                Direction::RecvOnly => contract::Direction::Recvonly,
                Direction::Inactive => contract::Direction::Inactive,
            }
            .into(),
            participant: side.to_string(),
            kind: Some(leg::Kind::Rtp(rtp)),
            ..contract::Leg::default()
        }
    }

    /// Where the data plane put a leg.
    pub(crate) fn place(&mut self, leg: u64, local: RtpLocal) {
        for (index, line) in self.lines.iter_mut().enumerate() {
            let Some(line) = line else { continue };
            for (side, end) in line.ends.iter_mut().enumerate() {
                if leg_id(index, side) == leg {
                    end.placed = Some(local);
                    return;
                }
            }
        }
    }

    /// Whether nobody may hear anybody: on hold, or nothing left.
    pub(crate) fn is_held(&self) -> bool {
        self.lines.iter().flatten().all(|line| line.ends.iter().any(|e| e.direction != Direction::SendRecv))
    }
}

impl Line {
    pub(crate) fn end(&self, side: usize) -> &End {
        let [a, b] = &self.ends;
        if side == 0 { a } else { b }
    }

    /// The end of a side, and the other one.
    fn pair(&mut self, near: usize) -> (&mut End, &mut End) {
        let [a, b] = &mut self.ends;
        if near == 0 { (a, b) } else { (b, a) }
    }
}

impl End {
    /// The key that we answer an offer with (RFC 4568 §5.1.2): of its tag and suite, the same as before where the suite
    /// is.
    fn answer_keys(
        &mut self,
        offered: &MediaLine,
        allowed: &[CryptoSuite],
        entropy: &mut Entropy,
    ) -> Result<(), &'static str> {
        if !offered.proto.is_sdes() {
            self.own.clear();
            self.srtp = None;
            return Ok(());
        }
        let theirs =
            offered.rtp().and_then(|rtp| rtp.choose_crypto(allowed)).ok_or("No crypto suite in common")?;
        let own = match self.own.iter().find(|own| own.suite == theirs.suite) {
            Some(own) => Crypto::new(theirs.tag, own.suite, own.key()).ok_or("A bad crypto tag")?,
            None => Crypto::draw(theirs.tag, theirs.suite, entropy),
        };
        self.srtp = Some(srtp(&own, theirs));
        self.own = vec![own];
        Ok(())
    }

    /// The keys that we offer: the same as before, once they are drawn.
    fn offer_keys(&mut self, allowed: &[CryptoSuite], entropy: &mut Entropy) -> Result<(), &'static str> {
        if !self.proto.is_sdes() {
            self.own.clear();
            self.srtp = None;
        } else if allowed.is_empty() {
            return Err("No crypto suite is left");
        } else if self.own.is_empty() {
            let drawn = (1..).zip(allowed).map(|(tag, suite)| Crypto::draw(tag, *suite, entropy));
            self.own = drawn.collect();
        }
        Ok(())
    }

    /// The answer to those (RFC 4568 §5.1.3): one line, of a tag and suite that were offered.
    fn agree_keys(&mut self, answered: &MediaLine) -> Result<(), &'static str> {
        if self.own.is_empty() == answered.proto.is_sdes() {
            return Err("The answer has another transport protocol than the offer");
        }
        if self.own.is_empty() {
            return Ok(());
        }
        let theirs = answered.rtp().and_then(|rtp| rtp.crypto.first());
        let theirs = theirs.ok_or("No supported crypto in the answer")?;
        let own = self.own.iter().find(|own| own.tag == theirs.tag && own.suite == theirs.suite);
        self.srtp = Some(srtp(own.ok_or("The answer's crypto was not offered")?, theirs));
        Ok(())
    }
}

fn srtp(own: &Crypto, theirs: &Crypto) -> Srtp {
    let suite = match own.suite {
        CryptoSuite::AesCm128HmacSha1_80 => SrtpSuite::AesCm128HmacSha180,
        CryptoSuite::AesCm128HmacSha1_32 => SrtpSuite::AesCm128HmacSha132,
        CryptoSuite::AesCm256HmacSha1_80 => SrtpSuite::Aes256CmHmacSha180,
        CryptoSuite::AesCm256HmacSha1_32 => SrtpSuite::Aes256CmHmacSha132,
        CryptoSuite::AeadAes128Gcm => SrtpSuite::AeadAes128Gcm,
        CryptoSuite::AeadAes256Gcm => SrtpSuite::AeadAes256Gcm,
    };
    Srtp { suite: suite.into(), send_key: own.key().to_vec(), receive_key: theirs.key().to_vec() }
}

fn path_id(line: usize, side: usize) -> u32 {
    u32::try_from(leg_id(line, side)).unwrap_or(u32::MAX)
}

/// Lines that are used, over RTP in a profile that is spoken. Others pass as they are.
pub(crate) fn is_relayed(line: &MediaLine) -> bool {
    !line.is_refused() && line.rtp().is_some() && is_spoken(&line.proto)
}

fn clock(line: &MediaLine) -> u32 {
    line.rtp().and_then(|rtp| rtp.formats.first()).map_or(0, |format| format.codec.clock)
}
