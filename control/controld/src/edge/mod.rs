//! The edge: SIP listeners over UDP, TCP, TLS and WebSocket, and the connections that come and go.
//!
//! It frames and counts; it understands nothing. What comes goes to the front as an [`Arrival`]; what the front sends
//! goes to the connection of that transport and remote address where there is one (RFC 3261 §18, RFC 5923), or to one
//! that is opened for it. Nothing here ever makes the front wait.

mod bind;
mod connection;
mod datagram;
mod hep;
mod identity;
mod settings;
mod table;
#[cfg(test)]
mod tests;
mod tls;
mod websocket;

use std::net::SocketAddr;
use std::sync::Arc;

use base::Instant;
use bytes::Bytes;
use sip::Peer;
use tokio::sync::mpsc;

use crate::Shutdown;
use crate::clock::Clock;
use crate::metrics::{Close, Copied, Discard, Metrics};
use crate::trace::Bus;

pub(crate) use bind::{Bound, Parts};
pub use settings::{Hep, Limits, Listener, Settings, Tls, TlsPeer, Transport};
use table::Table;

/// A place among the undecided messages of one connection.
pub(crate) type Place = tokio::sync::OwnedSemaphorePermit;

/// What came from the network.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every arrival is the large one")]
pub(crate) enum Arrival {
    /// A message.
    Message {
        /// Who sent it.
        peer: Peer,
        /// The number of its connection; 0 for a datagram.
        connection: u64,
        /// Which address of ours it reached.
        local: SocketAddr,
        /// Its certificate says that its word is to be believed.
        trusted: bool,
        /// The message.
        message: sip::Message,
        /// When its last octet was read.
        at: Instant,
        /// Its place among the connection's undecided messages, free again when this is dropped.
        place: Option<Place>,
    },
    /// A message that is refused; the front counts it.
    Malformed {
        /// Who sent it.
        peer: Peer,
        /// Why, with the answer if there is one.
        malformed: sip::Malformed,
    },
    /// Nothing more comes from there and nothing goes there.
    Failed {
        /// Whose connection it was.
        peer: Peer,
        /// Its number.
        connection: u64,
        /// No newer connection of the same peer has taken its place.
        last: bool,
    },
}

/// What every listener and connection needs.
#[derive(Debug)]
struct Shared {
    limits: Limits,
    framing: sip::Limits,
    front: mpsc::Sender<Arrival>,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
    clock: Clock,
    table: Table,
    /// Who is known by a certificate.
    peers: Option<Arc<identity::Peers>>,
    hep: Option<hep::Hep>,
    trace: Bus,
}

impl Shared {
    /// A message went to the peer from an address of ours, or came from it: whoever looks on gets a copy.
    fn copy(&self, peer: Peer, outgoing: bool, local: SocketAddr, message: impl FnOnce() -> Bytes) {
        let traced = self.trace.is_on();
        if !traced && self.hep.is_none() {
            return;
        }
        let message = message();
        if traced {
            self.trace.wire(peer, outgoing, &message);
        }
        let (from, to) = if outgoing { (local, peer.addr) } else { (peer.addr, local) };
        let copied = self.hep.as_ref().map(|hep| hep.copy(peer.transport, from, to, &message));
        if let Some(copied) = copied {
            self.metrics.copies.count(if copied { Copied::Sent } else { Copied::Lost });
        }
    }
}

/// The way out; all clones are the same edge.
#[derive(Clone)]
pub(crate) struct Edge {
    shared: Arc<Shared>,
    udp: Arc<datagram::Sockets>,
    connector: Option<tokio_rustls::TlsConnector>,
}

impl std::fmt::Debug for Edge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Edge").field("shared", &self.shared).finish_non_exhaustive()
    }
}

/// There is no way to that peer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unsendable;

impl Edge {
    /// Sends one message; never waits.
    pub(crate) fn send(&self, peer: Peer, bytes: Bytes) -> Result<(), Unsendable> {
        let sent = match peer.transport {
            // A datagram that the socket cannot take now is lost like one on the way.
            sip::Transport::Udp => match self.udp.send(peer.addr, &bytes) {
                datagram::Sent::Blocked => {
                    self.shared.metrics.discarded.count(Discard::SendBlocked);
                    return Ok(());
                }
                datagram::Sent::Gone(local) => {
                    self.shared.copy(peer, true, local, || bytes);
                    Ok(())
                }
                datagram::Sent::Impossible => Err(Unsendable),
            },
            sip::Transport::Tcp | sip::Transport::Tls => self.write(peer, bytes),
            // RFC 7118 §6: the client opens the connection, and it is the only way to him.
            sip::Transport::Ws | sip::Transport::Wss => {
                match self.shared.table.write(peer, bytes, &self.shared.limits) {
                    table::Written::Queued => Ok(()),
                    table::Written::Full | table::Written::Unknown(_) => Err(Unsendable),
                }
            }
        };
        match sent {
            Ok(()) => self.shared.metrics.sent.count(peer.transport),
            Err(Unsendable) => self.shared.metrics.discarded.count(Discard::Unsendable),
        }
        sent
    }

    fn write(&self, peer: Peer, bytes: Bytes) -> Result<(), Unsendable> {
        match self.shared.table.write(peer, bytes, &self.shared.limits) {
            table::Written::Queued => Ok(()),
            table::Written::Full => Err(Unsendable),
            table::Written::Unknown(bytes) => self.open(peer, bytes),
        }
    }

    /// Opens a connection and gives it its first message.
    fn open(&self, peer: Peer, first: Bytes) -> Result<(), Unsendable> {
        let connector = match peer.transport {
            sip::Transport::Tls => Some(self.connector.clone().ok_or(Unsendable)?),
            _ => None,
        };
        let shared = &self.shared;
        let Some(ticket) = shared.table.enter(peer, false, &shared.limits) else {
            shared.metrics.connections_closed.count(Close::Limit);
            return Err(Unsendable);
        };
        if !matches!(shared.table.write(peer, first, &shared.limits), table::Written::Queued) {
            return Err(Unsendable);
        }
        tokio::spawn(connection::open(shared.clone(), ticket, connector));
        Ok(())
    }

    /// The transports that we speak as a client, the best liked first.
    pub(crate) fn speaks(&self) -> Vec<sip::Transport> {
        let mut speaks = Vec::new();
        if self.udp.any() {
            speaks.push(sip::Transport::Udp);
        }
        speaks.push(sip::Transport::Tcp);
        if self.connector.is_some() {
            speaks.push(sip::Transport::Tls);
        }
        speaks
    }

    /// True while there is a connection to that peer.
    pub(crate) fn has(&self, peer: Peer) -> bool {
        self.shared.table.has(peer)
    }

    /// From now on the peer must show a certificate for that name (RFC 5922 §7.3). False where a connection to it is
    /// there whose certificate is for others.
    pub(crate) fn expect(&self, peer: Peer, host: &str) -> bool {
        self.shared.table.expect(peer, host)
    }

    /// Connections that are open or being opened.
    pub(crate) fn connections(&self) -> usize {
        self.shared.table.len()
    }
}
