//! The table of a shard's connections and listeners.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use base::{HashSeed, Map};
use bytes::{Bytes, BytesMut};
use rustls::{ClientConnection, Connection, ServerConnection};
use slab::Slab;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::conn::{Conn, Fate, State};
use super::transport::Transport;
use crate::driver::{DriverConfig, Gone, Tally};
use crate::tls::Tls;

/// A connection's part in a batch, owned.
#[derive(Debug)]
pub(crate) enum Happening {
    Opened {
        conn: u64,
        dial: Option<u64>,
        tls: bool,
        fingerprint: Option<[u8; 32]>,
        peer: SocketAddr,
        local: SocketAddr,
    },
    DialFailed {
        dial: u64,
        why: Gone,
    },
    Received {
        conn: u64,
        bytes: Bytes,
    },
    Sent {
        conn: u64,
        bytes: usize,
    },
    Closed {
        conn: u64,
        why: Gone,
    },
}

/// Where a driver watches descriptors. `key` comes back with each readiness.
pub(crate) trait Registry {
    /// Watches for readable and writable; edges, not levels.
    fn watch(&mut self, descriptor: BorrowedFd<'_>, key: Key) -> io::Result<u32>;
    /// Sends later, together with what others have to send; how much was taken comes to [`Streams::written`]. False: this
    /// registry does not send.
    fn send(&mut self, _file: u32, _bytes: &Bytes, _key: Key) -> bool {
        false
    }
    /// Watches no more.
    fn unwatch(&mut self, file: u32, descriptor: BorrowedFd<'_>, key: Key);
}

/// What a readiness is about. The serial tells a slot's present owner from an earlier one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Key {
    Listener(u32),
    Conn { slot: u32, serial: u32 },
}

#[derive(Debug)]
struct Listening {
    listener: TcpListener,
    tls: Option<Tls>,
    file: u32,
}

/// All stream connections of a shard.
#[derive(Debug)]
pub(crate) struct Streams {
    conns: Slab<Conn>,
    slots: Map<u64, usize>,
    /// Accepted connections by whose they are.
    callers: Map<IpAddr, usize>,
    listeners: Vec<Listening>,
    /// Listeners that may have somebody waiting.
    calling: Vec<u32>,
    ready: VecDeque<usize>,
    happenings: VecDeque<Happening>,
    /// Deadlines of opening and of leaving, each in order: (when, connection).
    opening: VecDeque<(Instant, u64)>,
    leaving: VecDeque<(Instant, u64)>,
    arena: BytesMut,
    next: u64,
    config: DriverConfig,
}

impl Streams {
    pub(crate) fn new(config: &DriverConfig) -> Self {
        Streams {
            conns: Slab::new(),
            slots: base::map(HashSeed(config.first_connection)),
            callers: base::map(HashSeed(config.first_connection)),
            listeners: Vec::new(),
            calling: Vec::new(),
            ready: VecDeque::new(),
            happenings: VecDeque::new(),
            opening: VecDeque::new(),
            leaving: VecDeque::new(),
            arena: BytesMut::with_capacity(64 << 10),
            next: config.first_connection,
            config: config.clone(),
        }
    }

    pub(crate) fn listen(
        &mut self,
        listener: TcpListener,
        tls: Option<Tls>,
        registry: &mut impl Registry,
    ) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let index = u32::try_from(self.listeners.len()).map_err(io::Error::other)?;
        let file = registry.watch(listener.as_fd(), Key::Listener(index))?;
        self.listeners.push(Listening { listener, tls, file });
        self.calling.push(index);
        Ok(())
    }

    pub(crate) fn dial(&mut self, dial: u64, to: SocketAddr, tls: Option<Tls>, registry: &mut impl Registry) {
        let failed = |why| Happening::DialFailed { dial, why };
        if self.conns.len() >= self.config.connections_max {
            self.happenings.push_back(failed(Gone::ConnectFailed));
            return;
        }
        let session = match tls.map(|tls| ClientConnection::new(tls.client, to.ip().into())).transpose() {
            Ok(session) => session.map(Connection::from),
            Err(_) => {
                self.happenings.push_back(failed(Gone::TlsFailed));
                return;
            }
        };
        let added = begin_connect(to)
            .and_then(|stream| self.add(stream, to, session, Some(dial), State::Connecting, registry));
        if added.is_err() {
            self.happenings.push_back(failed(Gone::ConnectFailed));
        }
    }

    /// A descriptor became ready.
    pub(crate) fn ready(&mut self, key: Key, readable: bool, writable: bool, ended: bool) {
        match key {
            Key::Listener(index) => {
                if !self.calling.contains(&index) {
                    self.calling.push(index);
                }
            }
            Key::Conn { slot, serial } => {
                let Some(conn) = self.conns.get_mut(slot as usize) else { return };
                if serial_of(conn.id) != serial {
                    return;
                }
                conn.ended |= ended;
                conn.readable |= readable || ended;
                conn.writable |= writable || ended;
                queue(&mut self.ready, conn, slot as usize);
            }
        }
    }

    /// The driver's registration behind a key.
    pub(crate) fn file(&self, key: Key) -> Option<u32> {
        match key {
            Key::Listener(index) => self.listeners.get(index as usize).map(|listening| listening.file),
            Key::Conn { slot, serial } => self
                .conns
                .get(slot as usize)
                .filter(|conn| serial_of(conn.id) == serial)
                .map(|conn| conn.file),
        }
    }

    /// Takes the next happening, working for it where needed.
    pub(crate) fn next(&mut self, registry: &mut impl Registry, tally: &mut Tally) -> Option<Happening> {
        loop {
            if let Some(happening) = self.happenings.pop_front() {
                return Some(happening);
            }
            if let Some(slot) = self.ready.pop_front() {
                self.turn(slot, self.config.read_bytes_max.max(1), registry, tally);
            } else if let Some(index) = self.calling.pop() {
                self.accept(index, registry, tally);
            } else {
                return None;
            }
        }
    }

    /// Writes what the last batch left. Reads nothing: what is read waits for its place in a batch, and only when
    /// that queue is empty more is read (see `next`), so that callers who flood do not fill the memory.
    pub(crate) fn flush(&mut self, registry: &mut impl Registry, tally: &mut Tally) {
        for _ in 0..self.ready.len() {
            if let Some(slot) = self.ready.pop_front()
                && !self.offer(slot, registry)
            {
                self.turn(slot, 0, registry, tally);
            }
        }
    }

    /// Has the registry send what one piece is, together with that of other connections.
    fn offer(&mut self, slot: usize, registry: &mut impl Registry) -> bool {
        let Some(conn) = self.conns.get_mut(slot) else { return false };
        let key = Key::Conn { slot: slot as u32, serial: serial_of(conn.id) };
        let Some(piece) = conn.only_piece() else { return false };
        if !registry.send(conn.file, piece, key) {
            return false;
        }
        conn.sending = true;
        conn.queued = false;
        if conn.readable && !conn.paused {
            queue(&mut self.ready, conn, slot);
        }
        true
    }

    /// What a registry sent was taken in part or whole, or not: `result` is that of send(2), or the error negated.
    pub(crate) fn written(&mut self, key: Key, result: i32) {
        let Key::Conn { slot, serial } = key else { return };
        let slot = slot as usize;
        let Some(conn) = self.conns.get_mut(slot).filter(|conn| serial_of(conn.id) == serial) else { return };
        conn.sending = false;
        match usize::try_from(result) {
            Ok(bytes) => {
                conn.transport.taken(bytes);
                if bytes > 0 && conn.state == State::Open {
                    self.happenings.push_back(Happening::Sent { conn: conn.id, bytes });
                }
            }
            Err(_) if result == -libc::EAGAIN => conn.writable = false,
            // Its next write says so again.
            Err(_) => conn.ended = true,
        }
        if !conn.transport.is_drained() || conn.state != State::Open {
            queue(&mut self.ready, conn, slot);
        }
    }

    /// Something is there to do without waiting.
    pub(crate) fn busy(&self) -> bool {
        !(self.happenings.is_empty() && self.ready.is_empty() && self.calling.is_empty())
    }

    fn turn(&mut self, slot: usize, read_max: usize, registry: &mut impl Registry, tally: &mut Tally) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        conn.queued = false;
        let happenings = &mut self.happenings;
        let fate = conn.work(read_max, &mut self.arena, &mut |happening| {
            happenings.push_back(happening);
        });
        match fate {
            Fate::Waits => {}
            Fate::Again => queue(&mut self.ready, conn, slot),
            Fate::Over { opened } => {
                tally.accept_failed += u64::from(!opened);
                self.remove(slot, registry);
            }
        }
    }

    fn accept(&mut self, index: u32, registry: &mut impl Registry, tally: &mut Tally) {
        // One at a time: a flood of calls does not delay the packets of a batch.
        let Some(listening) = self.listeners.get(index as usize) else { return };
        let accepted = listening.listener.accept();
        if !matches!(&accepted, Err(e) if e.kind() == io::ErrorKind::WouldBlock) {
            self.calling.push(index);
        }
        let Ok((stream, peer)) = accepted else {
            // Out of descriptors or memory: the caller stays in the backlog, and is tried at the next readiness.
            self.calling.retain(|calling| *calling != index);
            return;
        };
        if self.conns.len() >= self.config.connections_max {
            tally.accept_refused += 1;
            return;
        }
        // One address must not take all the room there is (CPM-FACTS §2.26).
        let of_caller = self.callers.get(&caller(peer)).copied().unwrap_or(0);
        if of_caller >= self.config.connections_per_address_max {
            tally.accept_crowded += 1;
            return;
        }
        let session = listening.tls.clone().map(|tls| ServerConnection::new(tls.server)).transpose();
        let added = match session {
            Ok(session) => {
                let session = session.map(Connection::from);
                self.add(stream, peer, session, None, State::Securing, registry)
            }
            Err(error) => Err(io::Error::other(error)),
        };
        if added.is_err() {
            tally.accept_refused += 1;
        }
    }

    fn add(
        &mut self,
        stream: TcpStream,
        peer: SocketAddr,
        session: Option<Connection>,
        dial: Option<u64>,
        state: State,
        registry: &mut impl Registry,
    ) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_retries(4);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive.with_interval(Duration::from_secs(15)))?;
        let (id, slot) = (self.next, self.conns.vacant_key());
        let key = Key::Conn { slot: u32::try_from(slot).map_err(io::Error::other)?, serial: serial_of(id) };
        let file = registry.watch(stream.as_fd(), key)?;
        self.next += 1;
        let deadline = Instant::now() + Duration::from_millis(self.config.open_ms);
        let accepted = state == State::Securing;
        let mut conn = Conn {
            id,
            dial,
            transport: Transport::new(stream, session),
            state,
            peer,
            deadline: Some(deadline),
            file,
            readable: accepted,
            writable: accepted,
            ended: false,
            sending: false,
            paused: false,
            queued: false,
        };
        queue(&mut self.ready, &mut conn, slot);
        if accepted {
            *self.callers.entry(caller(peer)).or_default() += 1;
        }
        self.conns.insert(conn);
        self.slots.insert(id, slot);
        self.opening.push_back((deadline, id));
        Ok(())
    }

    fn remove(&mut self, slot: usize, registry: &mut impl Registry) {
        let Some(conn) = self.conns.try_remove(slot) else { return };
        self.slots.remove(&conn.id);
        if conn.dial.is_none()
            && let Some(count) = self.callers.get_mut(&caller(conn.peer))
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.callers.remove(&caller(conn.peer));
            }
        }
        if conn.queued {
            self.ready.retain(|ready| *ready != slot);
        }
        let stream = conn.transport.stream();
        // The registration may outlive this call in the kernel; the peer is told now.
        let _ = stream.shutdown(std::net::Shutdown::Both);
        let key = Key::Conn { slot: slot as u32, serial: serial_of(conn.id) };
        registry.unwatch(conn.file, stream.as_fd(), key);
    }

    fn of(&mut self, conn: u64) -> Option<(usize, &mut Conn)> {
        let slot = *self.slots.get(&conn)?;
        self.conns.get_mut(slot).map(|conn| (slot, conn))
    }

    pub(crate) fn write(&mut self, conn: u64, bytes: Bytes) {
        let Some(slot) = self.slots.get(&conn).copied() else { return };
        let Some(conn) = self.conns.get_mut(slot) else { return };
        if conn.state == State::Open {
            conn.transport.queue(bytes);
            queue(&mut self.ready, conn, slot);
        }
    }

    pub(crate) fn write_all(&mut self, conn: u64, pieces: VecDeque<Bytes>) {
        let Some(slot) = self.slots.get(&conn).copied() else { return };
        let Some(conn) = self.conns.get_mut(slot) else { return };
        if conn.state == State::Open {
            conn.transport.queue_all(pieces);
            queue(&mut self.ready, conn, slot);
        }
    }

    pub(crate) fn pause(&mut self, conn: u64) {
        if let Some((_, conn)) = self.of(conn) {
            conn.paused = true;
        }
    }

    pub(crate) fn resume(&mut self, conn: u64) {
        let Some(slot) = self.slots.get(&conn).copied() else { return };
        let Some(conn) = self.conns.get_mut(slot) else { return };
        conn.paused = false;
        queue(&mut self.ready, conn, slot);
    }

    pub(crate) fn shut(&mut self, conn: u64, abort: bool, registry: &mut impl Registry) {
        let Some(slot) = self.slots.get(&conn).copied() else { return };
        if abort {
            self.remove(slot, registry);
            return;
        }
        let Some(conn) = self.conns.get_mut(slot) else { return };
        conn.state = State::Leaving;
        conn.paused = false;
        let deadline = Instant::now() + Duration::from_millis(self.config.linger_ms);
        conn.deadline = Some(deadline);
        self.leaving.push_back((deadline, conn.id));
        queue(&mut self.ready, conn, slot);
    }

    pub(crate) fn has_deadline(&self) -> bool {
        !(self.opening.is_empty() && self.leaving.is_empty())
    }

    /// Until the next deadline.
    pub(crate) fn until_deadline(&self, now: Instant) -> Option<Duration> {
        let first =
            [self.opening.front(), self.leaving.front()].into_iter().flatten().map(|(at, _)| *at).min()?;
        Some(first.saturating_duration_since(now))
    }

    /// Ends what took too long.
    pub(crate) fn expire(&mut self, now: Instant, registry: &mut impl Registry, tally: &mut Tally) {
        while let Some((at, id)) = due(&mut self.opening, now).or_else(|| due(&mut self.leaving, now)) {
            let Some((slot, conn)) = self.of(id) else { continue };
            if conn.deadline != Some(at) {
                continue;
            }
            let why = if conn.state == State::Connecting { Gone::ConnectFailed } else { Gone::TlsFailed };
            match (conn.state, conn.dial) {
                (State::Connecting | State::Securing, Some(dial)) => {
                    self.happenings.push_back(Happening::DialFailed { dial, why });
                }
                (State::Connecting | State::Securing, None) => tally.accept_failed += 1,
                _ => {}
            }
            self.remove(slot, registry);
        }
    }
}

fn due(queue: &mut VecDeque<(Instant, u64)>, now: Instant) -> Option<(Instant, u64)> {
    queue.pop_front_if(|(at, _)| *at <= now)
}

fn queue(ready: &mut VecDeque<usize>, conn: &mut Conn, slot: usize) {
    if !conn.queued {
        conn.queued = true;
        ready.push_back(slot);
    }
}

/// Who is counted as one caller: an IPv4 address, or the /64 of a host that may draw as many as it likes.
fn caller(peer: SocketAddr) -> IpAddr {
    match peer.ip().to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
        ip => ip,
    }
}

/// 24 bits, so that it fits a driver's token beside slot and kind.
fn serial_of(id: u64) -> u32 {
    (id & 0xff_ffff) as u32
}

fn begin_connect(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&to.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}
