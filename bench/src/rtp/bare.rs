//! The bare loops: the least that these sockets can cost, written before the code that they judge.
//!
//! Each holds one socket for each leg, as a relay has to, receives with what its kind receives with, and sends the
//! octets as they came: no parsing, no table, no counters. `sendto` is what most relays do: an unconnected socket
//! and an address with each packet.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use netio::{Completion, Ring, RingConfig};

use super::clock::{self, Who};
use super::load::{self, Load};
use super::rtpengine::Rtpengine;
use super::weir::Weir;

/// Something that forwards, on its own thread.
pub(crate) struct Running {
    /// Where each end of the load sends to, and is sent from.
    pub(crate) entries: Vec<SocketAddr>,
    /// Whose CPU counts.
    pub(crate) who: Who,
    body: Body,
}

enum Body {
    Loop { stop: Arc<AtomicBool>, join: JoinHandle<anyhow::Result<()>> },
    Weir(Box<Weir>),
    Rtpengine(Rtpengine),
    Other(Box<dyn std::any::Any>),
}

impl Running {
    /// Starts `body` on a pinned thread.
    pub(crate) fn start(
        core: usize,
        entries: Vec<SocketAddr>,
        body: impl FnOnce(&AtomicBool) -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, told) = mpsc::channel();
        let flag = Arc::clone(&stop);
        let join = std::thread::Builder::new().name("measured".into()).spawn(move || {
            clock::pin(core);
            tell.send(clock::own_thread())?;
            body(&flag)
        })?;
        Ok(Running { entries, who: Who::Thread(told.recv()?), body: Body::Loop { stop, join } })
    }

    /// A data plane that is up already.
    pub(crate) fn weir(entries: Vec<SocketAddr>, thread: u64, weir: Weir) -> Self {
        Running { entries, who: Who::Thread(thread), body: Body::Weir(Box::new(weir)) }
    }

    /// A server of other hands, on the measured core.
    pub(crate) fn rtpengine(entries: Vec<SocketAddr>, server: Rtpengine) -> Self {
        Running { entries, who: Who::Process(server.id()), body: Body::Rtpengine(server) }
    }

    /// Any other server; it ends when it is dropped.
    pub(crate) fn other(entries: Vec<SocketAddr>, who: Who, server: Box<dyn std::any::Any>) -> Self {
        Running { entries, who, body: Body::Other(server) }
    }

    /// Stops the thread and waits for it.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        match self.body {
            Body::Weir(weir) => {
                drop(weir);
                Ok(())
            }
            Body::Rtpengine(server) => {
                drop(server);
                Ok(())
            }
            Body::Other(server) => {
                drop(server);
                Ok(())
            }
            Body::Loop { stop, join } => {
                stop.store(true, Ordering::Relaxed);
                join.join().map_err(|_| anyhow::anyhow!("the measured thread died"))?
            }
        }
    }
}

/// How long a loop waits before it looks whether it shall stop.
const LOOK: Duration = Duration::from_millis(20);

/// A leg's socket for each end, connected to it or not.
fn legs(load: &Load, connected: bool) -> anyhow::Result<(Vec<UdpSocket>, Vec<SocketAddr>, Vec<SocketAddr>)> {
    let peers = load.addresses()?;
    let (legs, entries) = legs_of(&peers, connected)?;
    Ok((legs, entries, peers))
}

fn legs_of(peers: &[SocketAddr], connected: bool) -> anyhow::Result<(Vec<UdpSocket>, Vec<SocketAddr>)> {
    let legs = peers.iter().map(|_| load::socket()).collect::<anyhow::Result<Vec<_>>>()?;
    let entries = legs.iter().map(|leg| Ok(leg.local_addr()?)).collect::<anyhow::Result<Vec<_>>>()?;
    for (leg, peer) in legs.iter().zip(peers) {
        // IP_MTU_DISCOVER=PROBE for all kinds alike: it is not what is compared here.
        netio::probe_mtu(leg)?;
        if connected {
            leg.connect(peer)?;
        }
    }
    Ok((legs, entries))
}

/// One blocking receive, then a `sendto` on each target's unconnected socket.
pub(crate) fn distribute_sendto(load: &Load, core: usize) -> anyhow::Result<Running> {
    let (legs, entries, peers) = legs(load, false)?;
    Running::start(core, entries, move |stop| {
        let (source, targets) = legs.split_first().context("no legs")?;
        source.set_read_timeout(Some(LOOK))?;
        let mut buffer = [0; 2048];
        while !stop.load(Ordering::Relaxed) {
            let Some(n) = received(source.recv_from(&mut buffer).map(|(n, _)| n))? else { continue };
            for (target, peer) in targets.iter().zip(&peers[1..]) {
                target.send_to(&buffer[..n], peer)?;
            }
        }
        Ok(())
    })
}

/// One blocking receive, then a plain send on each target's connected socket.
pub(crate) fn distribute_connected(load: &Load, core: usize) -> anyhow::Result<Running> {
    let (legs, entries, _) = legs(load, true)?;
    Running::start(core, entries, move |stop| {
        let (source, targets) = legs.split_first().context("no legs")?;
        source.set_read_timeout(Some(LOOK))?;
        let mut buffer = [0; 2048];
        while !stop.load(Ordering::Relaxed) {
            let Some(n) = received(source.recv(&mut buffer))? else { continue };
            for target in targets {
                target.send(&buffer[..n])?;
            }
        }
        Ok(())
    })
}

/// Multishot receive, then one batch of plain SENDs from the receive buffer on connected sockets.
pub(crate) fn distribute_uring(load: &Load, core: usize) -> anyhow::Result<Running> {
    let sources = u32::try_from(load.sources)?;
    let (legs, entries, _) = legs(load, true)?;
    Running::start(core, entries, move |stop| {
        let sending: Vec<u32> = (0..sources).collect();
        let targets: Vec<u32> = (sources..u32::try_from(legs.len())?).collect();
        forward_uring(&legs, &sending, |_| &targets, BUFFERS, stop)
    })
}

/// Readiness, then recv and a plain send on each target's connected socket.
pub(crate) fn conference_connected(load: &Load, core: usize) -> anyhow::Result<Running> {
    let sources = load.sources;
    let (legs, entries, _) = legs(load, true)?;
    Running::start(core, entries, move |stop| {
        let (sending, targets) = legs.split_at(sources);
        forward_ready(sending, stop, |_, bytes| {
            for target in targets {
                target.send(bytes)?;
            }
            Ok(())
        })
    })
}

/// Readiness, then recvfrom and sendto on unconnected sockets: one packet for each.
pub(crate) fn relay_sendto(load: &Load, core: usize) -> anyhow::Result<Running> {
    let (legs, entries, peers) = legs(load, false)?;
    Running::start(core, entries, move |stop| {
        forward_ready(&legs, stop, |from, bytes| {
            let other = from ^ 1;
            legs.get(other).context("leg")?.send_to(bytes, peers[other])?;
            Ok(())
        })
    })
}

/// What epoll says is ready is read until it is empty.
fn forward_ready(
    legs: &[UdpSocket],
    stop: &AtomicBool,
    mut forward: impl FnMut(usize, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut poll = mio::Poll::new()?;
    for (index, leg) in legs.iter().enumerate() {
        leg.set_nonblocking(true)?;
        let descriptor = leg.as_raw_fd();
        let mut source = mio::unix::SourceFd(&descriptor);
        poll.registry().register(&mut source, mio::Token(index), mio::Interest::READABLE)?;
    }
    let mut events = mio::Events::with_capacity(1024);
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        poll.poll(&mut events, Some(LOOK))?;
        for event in &events {
            let from = event.token().0;
            let leg = legs.get(from).context("leg")?;
            while let Some(n) = received(leg.recv_from(&mut buffer).map(|(n, _)| n))? {
                forward(from, &buffer[..n])?;
            }
        }
    }
    Ok(())
}

/// Receive buffers: few pass through the cache quickly, and many never run out.
const BUFFERS: u16 = 512;
const BUFFERS_MANY: u16 = 4096;

/// Multishot receive on every leg, plain SEND on the other leg of its call, all connected.
pub(crate) fn relay_uring(load: &Load, core: usize) -> anyhow::Result<Running> {
    relay_ring(&load.addresses()?, core, BUFFERS)
}

/// The same with more buffers than packets can be under way.
pub(crate) fn relay_uring_many(load: &Load, core: usize) -> anyhow::Result<Running> {
    relay_ring(&load.addresses()?, core, BUFFERS_MANY)
}

/// The same between these ends, two by two.
pub(crate) fn relay_between(ends: &[SocketAddr], core: usize) -> anyhow::Result<Running> {
    relay_ring(ends, core, BUFFERS)
}

fn relay_ring(ends: &[SocketAddr], core: usize, buffers: u16) -> anyhow::Result<Running> {
    let (legs, entries) = legs_of(ends, true)?;
    Running::start(core, entries, move |stop| {
        let all: Vec<u32> = (0..u32::try_from(legs.len())?).collect();
        let other: Vec<[u32; 1]> = all.iter().map(|leg| [leg ^ 1]).collect();
        forward_uring(&legs, &all, |from| &other[from as usize], buffers, stop)
    })
}

/// The ring's loop: one enter for the sends of a batch and the receives of the next, then the buffers go back.
fn forward_uring<'a>(
    legs: &[UdpSocket],
    receiving: &[u32],
    targets: impl Fn(u32) -> &'a [u32],
    buffers: u16,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let files = u32::try_from(legs.len())?;
    let mut ring = Ring::new(RingConfig { files, buffers, ..RingConfig::default() })?;
    for (file, leg) in (0..).zip(legs) {
        ring.set_file(file, leg)?;
    }
    for leg in receiving {
        ring.receive(*leg, u64::from(*leg))?;
    }
    let mut done: Vec<Completion> = Vec::with_capacity(256);
    while !stop.load(Ordering::Relaxed) {
        // One enter submits the sends of the last batch and brings what arrived meanwhile.
        ring.enter(0, None)?;
        for buffer in done.drain(..).filter_map(|completion| completion.buffer) {
            ring.recycle(buffer);
        }
        ring.completions(&mut done);
        if done.is_empty() {
            ring.enter(1, Some(LOOK))?;
            ring.completions(&mut done);
        }
        for completion in &done {
            let leg = u32::try_from(completion.user)?;
            if let (Some(buffer), 0..) = (completion.buffer, completion.result) {
                for target in targets(leg) {
                    ring.send_received(*target, buffer, (0, completion.result.cast_unsigned()), 0)?;
                }
            }
            if !completion.more {
                ring.receive(leg, completion.user)?;
            }
        }
    }
    Ok(())
}

fn received(result: std::io::Result<usize>) -> std::io::Result<Option<usize>> {
    match result {
        Ok(n) => Ok(Some(n)),
        Err(e)
            if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) =>
        {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}
