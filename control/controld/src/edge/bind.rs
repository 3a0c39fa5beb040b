//! Binding the listeners and starting to read them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use base::HashSeed;
use sip::Peer;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::hep::Hep;
use super::settings::{Listener, Settings, Transport};
use super::table::Table;
use super::{Arrival, Edge, Shared, connection, datagram, identity, tls};
use crate::Shutdown;
use crate::clock::Clock;
use crate::metrics::{Close, Metrics};
use crate::trace::Bus;

/// The port of SIP (RFC 3261 §19.1.2).
const PORT: u16 = 5060;
/// Pairs of ports that are tried when the default ones are taken.
const PORTS_TRIED: u16 = 200;
/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 1024;
/// Octets that the kernel holds for one UDP listener, if it allows that.
const UDP_BUFFER: usize = 4 << 20;

/// Listeners that are bound and not read yet.
#[derive(Debug)]
pub(crate) struct Bound {
    udp: Vec<(SocketAddr, UdpSocket)>,
    streams: Vec<(Transport, SocketAddr, TcpListener)>,
    /// Every listener, in the order of the configuration.
    pub(crate) all: Vec<(Transport, SocketAddr)>,
    /// The default port was taken.
    pub(crate) moved: bool,
}

impl Bound {
    /// Binds what the configuration says. Needs the runtime.
    pub(crate) fn bind(settings: &Settings) -> anyhow::Result<Bound> {
        if !settings.listeners.is_empty() {
            return Bound::these(&settings.listeners).map_err(|(address, error)| {
                anyhow::Error::new(error).context(format!("sip.listeners: {address}"))
            });
        }
        let mut taken = None;
        for port in (PORT..).step_by(2).take(usize::from(PORTS_TRIED)) {
            let at = |transport, port| Listener {
                transport,
                address: SocketAddr::new(settings.default_ip, port),
                advertised: None,
            };
            let three = [
                at(Transport::Udp, port),
                at(Transport::Tcp, port),
                at(Transport::Tls, port.saturating_add(1)),
            ];
            match Bound::these(&three) {
                Ok(bound) => return Ok(Bound { moved: port != PORT, ..bound }),
                Err((address, error)) if error.kind() == io::ErrorKind::AddrInUse => {
                    taken = Some((address, error))
                }
                Err((address, error)) => return Err(error).context(format!("sip.default_ip: {address}")),
            }
        }
        match taken {
            Some((address, error)) => Err(error).context(format!("no free port for SIP up to {address}")),
            None => anyhow::bail!("no port for SIP was tried"),
        }
    }

    fn these(listeners: &[Listener]) -> Result<Bound, (SocketAddr, io::Error)> {
        let mut bound = Bound { udp: Vec::new(), streams: Vec::new(), all: Vec::new(), moved: false };
        for listener in listeners {
            bound.one(listener.transport, listener.address).map_err(|error| (listener.address, error))?;
        }
        Ok(bound)
    }

    fn one(&mut self, transport: Transport, address: SocketAddr) -> io::Result<()> {
        let socket = open(transport, address)?;
        let local = match transport {
            Transport::Udp => {
                let socket = UdpSocket::from_std(socket.into())?;
                let local = socket.local_addr()?;
                self.udp.push((local, socket));
                local
            }
            Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => {
                let listener = TcpListener::from_std(socket.into())?;
                let local = listener.local_addr()?;
                self.streams.push((transport, local, listener));
                local
            }
        };
        self.all.push((transport, local));
        Ok(())
    }

    /// Starts reading.
    pub(crate) fn start(self, parts: Parts) -> anyhow::Result<Edge> {
        let Parts { settings, framing, front, metrics, trace, shutdown, clock, seed } = parts;
        let peers = identity::Peers::open(&settings.tls)?;
        let shown = tls::Shown::new(&settings.tls)?;
        let acceptor = match self.streams.iter().any(|(transport, ..)| transport.is_secure()) {
            true => Some(tls::acceptor(&settings.tls, peers.clone(), shown.clone())?),
            false => None,
        };
        let connector: Option<TlsConnector> = tls::connector(&settings.tls, shown.clone())?;
        if acceptor.is_some() || connector.is_some() {
            let (tls, metrics) = (settings.tls.clone(), metrics.clone());
            tokio::spawn(tls::follow(shown, tls, metrics, shutdown.clone()));
        }
        let shared = Arc::new(Shared {
            limits: settings.limits.clone(),
            framing,
            front,
            metrics,
            shutdown,
            clock,
            table: Table::new(seed),
            peers,
            hep: Hep::open(&settings.hep)?,
            trace,
        });
        let (locals, sockets): (Vec<_>, Vec<_>) = self.udp.into_iter().map(|(l, s)| (l, Arc::new(s))).unzip();
        let udp = Arc::new(datagram::Sockets::new(sockets, seed));
        for (index, local) in locals.into_iter().enumerate() {
            tokio::spawn(datagram::receive(shared.clone(), udp.clone(), index, local));
        }
        for (transport, local, listener) in self.streams {
            let acceptor = acceptor.clone().filter(|_| transport.is_secure());
            tokio::spawn(accept(shared.clone(), transport.into(), local, listener, acceptor));
        }
        Ok(Edge { shared, udp, connector })
    }
}

/// What an edge is made of.
pub(crate) struct Parts {
    pub(crate) settings: Settings,
    pub(crate) framing: sip::Limits,
    pub(crate) front: mpsc::Sender<Arrival>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) trace: Bus,
    pub(crate) shutdown: Shutdown,
    pub(crate) clock: Clock,
    pub(crate) seed: HashSeed,
}

fn open(transport: Transport, address: SocketAddr) -> io::Result<Socket> {
    let udp = transport == Transport::Udp;
    let (kind, protocol) = if udp { (Type::DGRAM, Protocol::UDP) } else { (Type::STREAM, Protocol::TCP) };
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking(), Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if udp {
        let _ = socket.set_recv_buffer_size(UDP_BUFFER);
        let _ = socket.set_send_buffer_size(UDP_BUFFER);
    } else {
        // A restart must not wait for the connections of the run before; a listener that lives still refuses us.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    if !udp {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

async fn accept(
    shared: Arc<Shared>,
    transport: sip::Transport,
    local: SocketAddr,
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
) {
    loop {
        let accepted = tokio::select! {
            () = shared.shutdown.triggered() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, from)) = accepted else {
            // No descriptors left, most likely: wait until some connection ends.
            shared.metrics.connections_closed.count(Close::Limit);
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        match shared.table.enter(Peer::new(transport, from), true, &shared.limits) {
            Some(ticket) => {
                tokio::spawn(connection::accepted(shared.clone(), ticket, stream, acceptor.clone(), local));
            }
            None => shared.metrics.connections_closed.count(Close::Limit),
        }
    }
}
