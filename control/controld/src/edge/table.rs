//! The connections by (transport, remote address), and their limits.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use base::{HashSeed, Map, map};
use bytes::Bytes;
use rustls_pki_types::CertificateDer;
use sip::Peer;
use tokio::sync::{Notify, mpsc};

use super::{Limits, identity};

/// Peers whose names are remembered.
const NAMES_MAX: usize = 65_536;

/// Every connection. The lock is held for look-ups only.
#[derive(Debug)]
pub(super) struct Table {
    inner: Mutex<Inner>,
    /// Octets that all connections hold.
    buffered: AtomicUsize,
}

#[derive(Debug)]
struct Inner {
    by_peer: Map<Peer, Handle>,
    accepted: Map<IpAddr, usize>,
    /// The listening ports whose messages go on a connection that is there (RFC 5923), each with that connection's peer.
    aliases: Map<Peer, Peer>,
    /// By which name a peer was located last.
    names: Map<Peer, Arc<str>>,
    serial: u64,
}

#[derive(Debug)]
struct Handle {
    id: u64,
    queue: mpsc::UnboundedSender<Bytes>,
    waiting: Arc<AtomicUsize>,
    kick: Arc<Notify>,
    shown: Arc<OnceLock<CertificateDer<'static>>>,
    alias: Option<Peer>,
}

impl Inner {
    fn handle(&self, peer: &Peer) -> Option<&Handle> {
        self.by_peer.get(peer).or_else(|| self.by_peer.get(self.aliases.get(peer)?))
    }
}

/// A connection's own end of its entry.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) peer: Peer,
    pub(super) accepted: bool,
    /// The connection's number.
    pub(super) id: u64,
    /// What is to be written.
    pub(super) queue: mpsc::UnboundedReceiver<Bytes>,
    /// Octets of it that are not written yet.
    pub(super) waiting: Arc<AtomicUsize>,
    /// Told when more would have waited than may.
    pub(super) kick: Arc<Notify>,
    /// The certificate that the peer has shown, once it has.
    pub(super) shown: Arc<OnceLock<CertificateDer<'static>>>,
    /// The name that it must be for, where the peer was located by one.
    pub(super) name: Option<Arc<str>>,
}

/// What became of a write.
pub(super) enum Written {
    Queued,
    /// The peer does not read: its connection is being closed.
    Full,
    /// There is no connection.
    Unknown(Bytes),
}

impl Table {
    /// Connections are numbered from a random number on: none is met again after a restart.
    pub(super) fn new(seed: HashSeed) -> Self {
        Table {
            inner: Mutex::new(Inner {
                by_peer: map(seed),
                accepted: map(seed),
                names: map(seed),
                aliases: map(seed),
                serial: seed.0 >> 1,
            }),
            buffered: AtomicUsize::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an entry; `None` when there are too many. A peer that comes again from the same address replaces
    /// its older connection.
    pub(super) fn enter(&self, peer: Peer, accepted: bool, limits: &Limits) -> Option<Ticket> {
        let mut inner = self.lock();
        let of_address = inner.accepted.get(&peer.addr.ip()).copied().unwrap_or(0);
        if inner.by_peer.len() >= limits.connections_max
            || (accepted && of_address >= limits.connections_per_address_max)
        {
            return None;
        }
        if accepted {
            inner.accepted.insert(peer.addr.ip(), of_address + 1);
        }
        inner.serial += 1;
        let id = inner.serial;
        let (send, queue) = mpsc::unbounded_channel();
        let (waiting, kick) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let shown = Arc::new(OnceLock::new());
        let handle = Handle {
            id,
            queue: send,
            waiting: waiting.clone(),
            kick: kick.clone(),
            shown: shown.clone(),
            alias: None,
        };
        let name = inner.names.get(&peer).filter(|_| !accepted).cloned();
        inner.by_peer.insert(peer, handle);
        drop(inner);
        Some(Ticket { peer, accepted, id, queue, waiting, kick, shown, name })
    }

    /// What goes to `alias` goes on this connection from now on, unless there is one to it already.
    pub(super) fn alias(&self, ticket: &Ticket, alias: Peer) {
        let mut inner = self.lock();
        let (by_peer, aliases) = {
            let Inner { by_peer, aliases, .. } = &mut *inner;
            (by_peer, aliases)
        };
        if alias == ticket.peer || by_peer.contains_key(&alias) {
            return;
        }
        let Some(handle) = by_peer.get_mut(&ticket.peer).filter(|handle| handle.id == ticket.id) else {
            return;
        };
        // One for each connection: the table of aliases is no larger than that of connections.
        if handle.alias.is_none_or(|own| own == alias) {
            handle.alias = Some(alias);
            aliases.insert(alias, ticket.peer);
        }
    }

    /// Removes a connection's own entry; false when another one has replaced it. Its alias leads nowhere now.
    pub(super) fn leave(&self, ticket: &Ticket) -> (bool, Option<Peer>) {
        let mut inner = self.lock();
        if ticket.accepted {
            let ip = ticket.peer.addr.ip();
            match inner.accepted.get_mut(&ip) {
                Some(n) if *n > 1 => *n -= 1,
                _ => {
                    inner.accepted.remove(&ip);
                }
            }
        }
        let own = inner.by_peer.get(&ticket.peer).is_some_and(|handle| handle.id == ticket.id);
        let handle = if own { inner.by_peer.remove(&ticket.peer) } else { None };
        let alias = handle.and_then(|handle| handle.alias);
        let alias = alias.filter(|alias| inner.aliases.get(alias) == Some(&ticket.peer));
        if let Some(alias) = &alias {
            inner.aliases.remove(alias);
        }
        (own, alias)
    }

    pub(super) fn write(&self, peer: Peer, bytes: Bytes, limits: &Limits) -> Written {
        let inner = self.lock();
        let Some(handle) = inner.handle(&peer) else { return Written::Unknown(bytes) };
        let octets = bytes.len();
        if handle.waiting.load(Ordering::Relaxed).saturating_add(octets) > limits.write_queue_max
            || self.buffered.load(Ordering::Relaxed).saturating_add(octets) > limits.buffered_max
        {
            handle.kick.notify_one();
            return Written::Full;
        }
        // Counted before it is sent: the connection takes it off again as soon as it has written it.
        handle.waiting.fetch_add(octets, Ordering::Relaxed);
        self.buffered.fetch_add(octets, Ordering::Relaxed);
        match handle.queue.send(bytes) {
            Ok(()) => Written::Queued,
            Err(_) => {
                // The connection is about to leave; what it had was lost anyway.
                handle.waiting.fetch_sub(octets, Ordering::Relaxed);
                self.buffered.fetch_sub(octets, Ordering::Relaxed);
                Written::Full
            }
        }
    }

    /// A connection holds `now` octets where it held `before`; false when that is too much for all together.
    pub(super) fn holds(&self, before: usize, now: usize, limits: &Limits) -> bool {
        if now >= before {
            self.buffered.fetch_add(now - before, Ordering::Relaxed) + (now - before) <= limits.buffered_max
        } else {
            self.buffered.fetch_sub(before - now, Ordering::Relaxed);
            true
        }
    }

    pub(super) fn has(&self, peer: Peer) -> bool {
        self.lock().handle(&peer).is_some()
    }

    /// The peer was located by a name. False where its connection has shown, or will have to show, a certificate for
    /// others only: a name must not get what is said to another one (RFC 5922 §7.3).
    pub(super) fn expect(&self, peer: Peer, host: &str) -> bool {
        let mut inner = self.lock();
        let named = inner.names.get(&peer).is_some_and(|name| name.eq_ignore_ascii_case(host));
        if let Some(handle) = inner.handle(&peer) {
            return handle.shown.get().map_or(named, |shown| identity::is_for(shown, host));
        }
        if !named {
            if inner.names.len() >= NAMES_MAX {
                inner.names.clear();
            }
            inner.names.insert(peer, host.into());
        }
        true
    }

    pub(super) fn len(&self) -> usize {
        self.lock().by_peer.len()
    }
}
