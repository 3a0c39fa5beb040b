//! SIP over UDP.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use base::{HashSeed, Map, map};
use bytes::Bytes;
use sip::Peer;
use tokio::net::UdpSocket;

use super::{Arrival, Shared};
use crate::metrics::Discard;

/// The largest datagram.
const DATAGRAM_MAX: usize = 65_535;
/// Peers whose socket is remembered where there are several sockets.
const RECENT_MAX: usize = 65_536;

/// What became of a datagram.
pub(super) enum Sent {
    /// From that address of ours.
    Gone(SocketAddr),
    Blocked,
    Impossible,
}

/// A socket and where it is bound: asking the kernel for that would be a system call for each message.
#[derive(Debug)]
struct Listening {
    socket: Arc<UdpSocket>,
    local: SocketAddr,
}

/// Every UDP listener; requests leave from the one on which their peer was heard last.
#[derive(Debug)]
pub(super) struct Sockets {
    all: Vec<Listening>,
    recent: Mutex<Map<SocketAddr, usize>>,
}

impl Sockets {
    pub(super) fn new(all: Vec<Arc<UdpSocket>>, seed: HashSeed) -> Self {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let listening =
            |socket: Arc<UdpSocket>| Listening { local: socket.local_addr().unwrap_or(nowhere), socket };
        Sockets { all: all.into_iter().map(listening).collect(), recent: Mutex::new(map(seed)) }
    }

    /// True where there is one.
    pub(super) fn any(&self) -> bool {
        !self.all.is_empty()
    }

    fn heard(&self, peer: SocketAddr, socket: usize) {
        if self.all.len() < 2 {
            return;
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= RECENT_MAX {
            recent.clear();
        }
        recent.insert(peer, socket);
    }

    fn towards(&self, peer: SocketAddr) -> Option<&Listening> {
        if self.all.len() > 1 {
            let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(socket) = recent.get(&peer).and_then(|i| self.all.get(*i)) {
                return Some(socket);
            }
        }
        self.all.iter().find(|s| s.local.is_ipv4() == peer.is_ipv4())
    }

    pub(super) fn send(&self, to: SocketAddr, bytes: &Bytes) -> Sent {
        let Some(Listening { socket, local }) = self.towards(to) else { return Sent::Impossible };
        let local = *local;
        match socket.try_send_to(bytes, to) {
            Ok(_) => Sent::Gone(local),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::Blocked,
            // The kernel reports here that an earlier datagram found nobody; whether this one does is open.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Sent::Gone(local),
            Err(_) => Sent::Impossible,
        }
    }
}

/// Reads one listener until shutdown.
pub(super) async fn receive(shared: Arc<Shared>, sockets: Arc<Sockets>, index: usize, local: SocketAddr) {
    let Some(socket) = sockets.all.get(index).map(|listening| listening.socket.clone()) else { return };
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        tokio::select! {
            () = shared.shutdown.triggered() => return,
            received = socket.recv_from(&mut buffer) => match received {
                Ok((octets, from)) => {
                    sockets.heard(from, index);
                    let datagram = buffer.get(..octets).unwrap_or_default();
                    // RFC 5626 §4.4.2: the first octet tells a keep-alive by STUN from SIP.
                    if datagram.first().is_some_and(|octet| *octet < 2)
                        && let Some(answer) = rtp::stun::keep_alive(datagram, from)
                    {
                        shared.metrics.pings.count(sip::Transport::Udp);
                        if let Some(answer) = answer {
                            let _ = socket.try_send_to(&answer, from);
                        }
                        continue;
                    }
                    take(&shared, Peer::new(sip::Transport::Udp, from), local, datagram);
                }
                // An ICMP error of an earlier send, or no memory for the moment; the socket lives on.
                Err(_) => tokio::task::yield_now().await,
            },
        }
    }
}

fn take(shared: &Shared, peer: Peer, local: SocketAddr, datagram: &[u8]) {
    let (metrics, at) = (&shared.metrics, shared.clock.now().mono);
    let bytes = Bytes::copy_from_slice(datagram);
    let read = sip::datagram(bytes.clone(), &shared.framing);
    if !matches!(read, Ok(None)) {
        shared.copy(peer, false, local, || bytes);
    }
    let arrival = match read {
        Ok(None) => return metrics.pings.count(peer.transport),
        Ok(Some(message)) => {
            Arrival::Message { peer, connection: 0, local, trusted: false, message, at, place: None }
        }
        Err(malformed) => Arrival::Malformed { peer, malformed },
    };
    metrics.received.count(peer.transport);
    if shared.front.try_send(arrival).is_err() {
        metrics.discarded.count(Discard::FrontFull);
    }
}
