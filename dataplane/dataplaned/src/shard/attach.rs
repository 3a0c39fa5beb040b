//! Which sockets a shard has bound for which leg: bound before a batch is handed to the engine, so that the batch
//! stays all or nothing; given back when the engine refuses it or lets a leg go.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{HashSeed, Map};
use contract::refusal::Reason;
use contract::{Batch, LegKey, RtpLeg, RtpLocal, change::Verb, leg::Kind};
use forward::{Attachment, Elsewhere, OwnMedia, SocketId};
use netio::Driver;
use netio::udp::{self, UdpOptions};

use super::ports::Ports;
use crate::config::{Interface, RtpSettings};

/// Free ports that are tried at once for one leg when others hold some of the range.
const TRIES: u32 = 64;
/// After a restart the kernel frees the ports of the last process late: for so long a named one is tried again.
const RESTART: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_millis(500);

const FAMILY: &str = "the interface is of another address family than the peer";

/// A refused change: its index, why, and a detail for logs.
pub(crate) type Refused = (usize, Reason, &'static str);

#[derive(Clone, Copy, Debug)]
struct Bound {
    rtp: u32,
    rtcp: Option<u32>,
    port: u16,
}

/// The sockets of a shard.
#[derive(Debug)]
pub(crate) struct Attached {
    ports: Ports,
    legs: Map<(u64, u64), Bound>,
    /// By socket: its leg, and where it is.
    sockets: Vec<Option<((u64, u64), SocketAddr)>>,
    interfaces: Vec<Interface>,
    options: UdpOptions,
    started: Instant,
    /// Where this data plane's legs are.
    own: Arc<OwnMedia>,
}

impl Attached {
    pub(crate) fn new(
        settings: &RtpSettings,
        shard: usize,
        shards: usize,
        (seed, own): (HashSeed, Arc<OwnMedia>),
    ) -> Self {
        let rest = Duration::from_millis(settings.port_rest_ms);
        Attached {
            ports: Ports::new(settings.port_first, settings.port_last, rest, shard, shards),
            legs: base::map(seed),
            sockets: Vec::new(),
            interfaces: settings.interfaces.clone(),
            options: UdpOptions {
                receive_bytes: settings.receive_bytes,
                dscp: settings.dscp,
                ..UdpOptions::default()
            },
            started: Instant::now(),
            own,
        }
    }

    /// Binds what a batch needs but for legs that are elsewhere. On refusal nothing stays bound.
    pub(crate) fn prepare(
        &mut self,
        batch: &Batch,
        elsewhere: &[Elsewhere],
        driver: &mut dyn Driver,
    ) -> Result<Vec<Attachment>, Refused> {
        let mut attachments: Vec<Attachment> = Vec::new();
        let riders = riders(batch);
        for (index, change) in batch.changes.iter().enumerate() {
            let Some(Verb::PutLeg(leg)) = &change.verb else { continue };
            let Some(Kind::Rtp(rtp)) = &leg.kind else { continue };
            // On another leg's socket, now or at the end of the batch. What it had of its own the engine closes.
            if riders.contains(&leg.key()) {
                continue;
            }
            let asked = asked_port(rtp);
            let known = self.legs.get(&(leg.context, leg.id));
            let at = known.and_then(|bound| self.sockets.get(bound.rtp as usize)?.map(|(_, at)| at));
            if at.is_some_and(|at| !reaches(at.ip(), rtp)) {
                self.give_back(&attachments, driver);
                return Err((index, Reason::BadLeg, FAMILY));
            }
            if known.is_some_and(|bound| asked == 0 || asked == bound.port)
                || attachments.iter().any(|attached| attached.leg == leg.key())
                || elsewhere.iter().any(|elsewhere| elsewhere.leg == leg.key())
            {
                continue;
            }
            match self.attach(leg.key(), rtp, asked, driver) {
                Ok(attachment) => attachments.push(attachment),
                Err((reason, detail)) => {
                    self.give_back(&attachments, driver);
                    return Err((index, reason, detail));
                }
            }
        }
        Ok(attachments)
    }

    /// The engine has taken them: all but those of legs that the same batch has removed again.
    pub(crate) fn keep(
        &mut self,
        attachments: &[Attachment],
        has: impl Fn(SocketId) -> bool,
        driver: &mut dyn Driver,
    ) {
        for attached in attachments {
            if !has(attached.rtp) {
                self.give_back(std::slice::from_ref(attached), driver);
                continue;
            }
            let port = attached.local.bound.as_ref().map_or(0, |bound| bound.port);
            let bound = Bound {
                rtp: attached.rtp.0,
                rtcp: attached.rtcp.map(|socket| socket.0),
                port: u16::try_from(port).unwrap_or(0),
            };
            self.legs.insert((attached.leg.context, attached.leg.leg), bound);
        }
    }

    /// The engine refused them.
    pub(crate) fn give_back(&mut self, attachments: &[Attachment], driver: &mut dyn Driver) {
        for attached in attachments {
            for socket in [Some(attached.rtp), attached.rtcp].into_iter().flatten() {
                self.take_back(socket.0, driver);
            }
        }
    }

    /// Closes a socket whose port nobody was told.
    fn take_back(&mut self, socket: u32, driver: &mut dyn Driver) {
        driver.close(socket);
        if let Some((_, at)) = self.sockets.get_mut(socket as usize).and_then(Option::take) {
            self.own.note(at, false);
            self.ports.give(at.port());
        }
    }

    /// Closes a leg's socket; its port is free after a rest.
    pub(crate) fn close(&mut self, socket: u32, driver: &mut dyn Driver) {
        driver.close(socket);
        let Some((leg, at)) = self.sockets.get_mut(socket as usize).and_then(Option::take) else { return };
        self.own.note(at, false);
        self.ports.retire(at.port(), Instant::now());
        if self.legs.get(&leg).is_some_and(|bound| bound.rtp == socket || bound.rtcp == Some(socket)) {
            self.legs.remove(&leg);
        }
    }

    fn attach(
        &mut self,
        leg: LegKey,
        rtp: &RtpLeg,
        asked: u16,
        driver: &mut dyn Driver,
    ) -> Result<Attachment, (Reason, &'static str)> {
        let name = rtp.local.as_ref().map_or("", |local| local.interface.as_str());
        let mut named = self.interfaces.iter().filter(|i| name.is_empty() || i.name == name).peekable();
        if named.peek().is_none() {
            return Err((Reason::BadLeg, "no interface has this name"));
        }
        let interface = named.find(|i| reaches(i.address, rtp)).cloned().ok_or((Reason::BadLeg, FAMILY))?;
        let rtcp_asked = match rtp.local.as_ref().map_or(0, |local| local.rtcp_port) {
            0 => asked.saturating_add(1),
            port => u16::try_from(port).map_err(|_| (Reason::BadLeg, "a port that is none"))?,
        };
        let separate = !rtp.rtcp_mux && (asked == 0 || rtcp_asked != asked);
        let (port, sockets) = match asked {
            0 => self.bind_free(interface.address, separate, driver)?,
            _ => {
                let rtcp = separate.then_some(rtcp_asked);
                (asked, self.bind_named(interface.address, asked, rtcp, driver)?)
            }
        };
        let rtcp_port = match (separate, asked) {
            (false, _) => port,
            (true, 0) => port + 1,
            (true, _) => rtcp_asked,
        };
        let mut opened = Vec::new();
        for (socket, port) in sockets.into_iter().zip([port, rtcp_port]) {
            match driver.open(socket) {
                Ok(number) => {
                    self.note(number, leg, SocketAddr::new(interface.address, port));
                    opened.push(number);
                }
                Err(_) => {
                    self.ports.give(port);
                    opened.iter().for_each(|number| self.take_back(*number, driver));
                    return Err((Reason::Limit, "no descriptor or socket is free"));
                }
            }
        }
        let bound = SocketAddr::new(interface.address, port);
        let advertised = SocketAddr::new(interface.advertised.unwrap_or(interface.address), port);
        Ok(Attachment {
            leg,
            rtp: SocketId(opened.first().copied().unwrap_or(0)),
            rtcp: opened.get(1).copied().map(SocketId),
            local: RtpLocal {
                interface: interface.name,
                bound: Some(bound.into()),
                advertised: Some(advertised.into()),
                rtcp_port: u32::from(rtcp_port),
            },
        })
    }

    fn note(&mut self, socket: u32, leg: LegKey, at: SocketAddr) {
        self.own.note(at, true);
        let index = socket as usize;
        if self.sockets.len() <= index {
            self.sockets.resize(index + 1, None);
        }
        if let Some(place) = self.sockets.get_mut(index) {
            *place = Some(((leg.context, leg.leg), at));
        }
    }

    fn bind_free(
        &mut self,
        ip: IpAddr,
        pair: bool,
        driver: &mut dyn Driver,
    ) -> Result<(u16, Vec<std::net::UdpSocket>), (Reason, &'static str)> {
        let (start, patience) = (Instant::now(), self.patience());
        self.ports.wake(start);
        for tried in 1.. {
            let port = if pair { self.ports.take_pair() } else { self.ports.take_one() };
            let port = port.ok_or((Reason::NoPort, "no port is free"))?;
            let wanted = [Some(port), pair.then_some(port + 1)];
            match self.bind_all(ip, wanted) {
                Ok(sockets) => return Ok((port, sockets)),
                Err(error) => {
                    // Somebody else's, or freed late: it goes to the end of the queue.
                    wanted.into_iter().flatten().for_each(|port| self.ports.give(port));
                    if error.kind() != ErrorKind::AddrInUse {
                        return Err(cannot(&error));
                    }
                    let _ = driver.flush();
                }
            }
            if tried % TRIES == 0 {
                if start.elapsed() > patience {
                    break;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        Err((Reason::NoPort, "other programs hold the ports of the range"))
    }

    /// How long ports that are not free are waited for.
    fn patience(&self) -> Duration {
        if self.started.elapsed() < RESTART { PATIENCE } else { PATIENCE / 50 }
    }

    fn bind_named(
        &mut self,
        ip: IpAddr,
        port: u16,
        rtcp: Option<u16>,
        driver: &mut dyn Driver,
    ) -> Result<Vec<std::net::UdpSocket>, (Reason, &'static str)> {
        if !self.ports.take_named(port) {
            return Err((Reason::NoPort, "the named port is another leg's"));
        }
        if let Some(rtcp) = rtcp
            && !self.ports.take_named(rtcp)
        {
            self.ports.give(port);
            return Err((Reason::NoPort, "the named RTCP port is another leg's"));
        }
        let (start, patience) = (Instant::now(), self.patience());
        loop {
            match self.bind_all(ip, [Some(port), rtcp]) {
                Ok(sockets) => return Ok(sockets),
                Err(error) if error.kind() == ErrorKind::AddrInUse && start.elapsed() < patience => {
                    // What this shard closed is freed when the kernel has seen it.
                    let _ = driver.flush();
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(error) => {
                    [Some(port), rtcp].into_iter().flatten().for_each(|port| self.ports.give(port));
                    return Err(cannot(&error));
                }
            }
        }
    }

    fn bind_all(&self, ip: IpAddr, ports: [Option<u16>; 2]) -> io::Result<Vec<std::net::UdpSocket>> {
        ports.into_iter().flatten().map(|port| udp::bind(SocketAddr::new(ip, port), self.options)).collect()
    }
}

/// The legs that ride on another one's transport when the batch is through.
fn riders(batch: &Batch) -> BTreeSet<LegKey> {
    let mut riders = BTreeSet::new();
    for change in &batch.changes {
        let Some(Verb::PutLeg(leg)) = &change.verb else { continue };
        match &leg.kind {
            Some(Kind::Rtp(rtp)) if rtp.bundle.as_ref().is_some_and(|b| b.carrier != 0) => {
                riders.insert(leg.key());
            }
            _ => drop(riders.remove(&leg.key())),
        }
    }
    riders
}

/// Whether a socket at an address can reach where the leg's peer is said to be. Of a peer with ICE that says nothing: it has
/// other candidates (RFC 8839 §4.2.1).
fn reaches(at: IpAddr, rtp: &RtpLeg) -> bool {
    let remotes = [rtp.remote.as_ref(), rtp.remote_rtcp.as_deref()].into_iter().flatten();
    let ips = remotes.filter_map(contract::Address::socket).map(|remote| remote.ip().to_canonical());
    rtp.ice.is_some() || ips.filter(|ip| !ip.is_unspecified()).all(|ip| ip.is_ipv4() == at.is_ipv4())
}

fn asked_port(rtp: &RtpLeg) -> u16 {
    let port = rtp.local.as_ref().and_then(|local| local.bound.as_ref()).map_or(0, |bound| bound.port);
    u16::try_from(port).unwrap_or(0)
}

fn cannot(error: &io::Error) -> (Reason, &'static str) {
    match error.kind() {
        ErrorKind::AddrInUse => (Reason::NoPort, "the named port is taken"),
        ErrorKind::AddrNotAvailable => (Reason::NoPort, "the interface's address is not on this host"),
        ErrorKind::PermissionDenied => (Reason::NoPort, "the port needs a privilege"),
        _ => (Reason::Limit, "no socket could be made"),
    }
}
