//! The mio driver: readiness for everything, recvfrom and send, one packet for each call. The twin of the ring, for
//! hosts and containers that forbid io_uring. (Not recvmmsg: it loses when a socket holds one packet.)

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::batch::Item;
use crate::driver::{Driver, DriverConfig, Event, Tally};
use crate::stream::{Key, Registry, Streams};
use crate::tls::Tls;
use crate::{Wake, sys};

/// Datagrams from one socket before others have their turn.
const SOCKET_TURN: usize = 32;

/// Kind (8), serial (24), index (32), as in the ring's driver.
mod token {
    pub(super) const DATAGRAM: usize = 1;
    pub(super) const STREAM: usize = 2;
    pub(super) const LISTENER: usize = 3;
    pub(super) const WAKE: usize = 4;

    pub(super) const fn pack(kind: usize, serial: u32, index: u32) -> usize {
        kind << 56 | (serial as usize & 0xff_ffff) << 32 | index as usize
    }

    pub(super) const fn parts(token: usize) -> (usize, u32, u32) {
        (token >> 56, (token >> 32 & 0xff_ffff) as u32, token as u32)
    }
}

#[derive(Debug)]
struct Datagrams {
    socket: UdpSocket,
    serial: u32,
    to: Option<SocketAddr>,
    exclusive: bool,
    /// Stands in the list of those that may have something.
    queued: bool,
}

/// The driver.
#[derive(Debug)]
pub struct Polled {
    watch: Watch,
    events: Events,
    sockets: Vec<Option<Datagrams>>,
    free: Vec<u32>,
    serial: u32,
    ready: VecDeque<u32>,
    streams: Streams,
    wake: Wake,
    batch: Vec<Item>,
    buffers: Vec<u8>,
    patched: Vec<u8>,
    tally: Tally,
    config: DriverConfig,
}

#[derive(Debug)]
struct Watch(Poll);

impl Registry for Watch {
    fn watch(&mut self, descriptor: BorrowedFd<'_>, key: Key) -> io::Result<u32> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.0.registry().register(
            &mut SourceFd(&descriptor.as_raw_fd()),
            Token(stream_token(key)),
            interest,
        )?;
        Ok(0)
    }

    fn unwatch(&mut self, _: u32, descriptor: BorrowedFd<'_>, _: Key) {
        let _ = self.0.registry().deregister(&mut SourceFd(&descriptor.as_raw_fd()));
    }
}

fn stream_token(key: Key) -> usize {
    match key {
        Key::Listener(index) => token::pack(token::LISTENER, 0, index),
        Key::Conn { slot, serial } => token::pack(token::STREAM, serial, slot),
    }
}

impl Polled {
    /// Makes the driver of the calling thread.
    pub fn new(config: &DriverConfig) -> io::Result<Self> {
        let poll = Poll::new()?;
        let wake = Wake::new()?;
        let descriptor = std::os::fd::AsFd::as_fd(&wake).as_raw_fd();
        let own = Token(token::pack(token::WAKE, 0, 0));
        poll.registry().register(&mut SourceFd(&descriptor), own, Interest::READABLE)?;
        Ok(Polled {
            watch: Watch(poll),
            events: Events::with_capacity(1024),
            sockets: Vec::new(),
            free: Vec::new(),
            serial: 0,
            ready: VecDeque::new(),
            streams: Streams::new(config),
            wake,
            batch: Vec::with_capacity(config.batch_max + 16),
            buffers: vec![0; config.batch_max.max(1) * config.buffer_bytes as usize],
            patched: Vec::with_capacity(config.buffer_bytes as usize),
            tally: Tally::default(),
            config: config.clone(),
        })
    }

    fn of(&mut self, socket: u32) -> Option<&mut Datagrams> {
        self.sockets.get_mut(socket as usize)?.as_mut()
    }

    fn take_events(&mut self, wait: Option<Duration>) -> io::Result<()> {
        match self.watch.0.poll(&mut self.events, wait) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &self.events {
            let (kind, serial, index) = token::parts(event.token().0);
            let ended = event.is_error() || event.is_read_closed();
            let (readable, writable) = (event.is_readable(), event.is_writable());
            match kind {
                token::DATAGRAM => {
                    let Some(Some(socket)) = self.sockets.get_mut(index as usize) else { continue };
                    if socket.serial == serial && !socket.queued {
                        socket.queued = true;
                        self.ready.push_back(index);
                    }
                }
                token::STREAM => {
                    self.streams.ready(Key::Conn { slot: index, serial }, readable, writable, ended);
                }
                token::LISTENER => self.streams.ready(Key::Listener(index), readable, writable, ended),
                _ => {
                    self.wake.drain();
                    self.batch.push(Item::Woken);
                }
            }
        }
        Ok(())
    }

    fn idle(&self) -> bool {
        self.batch.is_empty() && self.ready.is_empty() && !self.streams.busy()
    }

    fn wait(&mut self, wait: Option<Duration>) -> io::Result<()> {
        let now = Instant::now();
        if self.config.spin_us > 0 && wait != Some(Duration::ZERO) {
            let end = now + Duration::from_micros(u64::from(self.config.spin_us));
            while self.idle() && Instant::now() < end {
                self.take_events(Some(Duration::ZERO))?;
            }
        }
        if self.idle() {
            self.tally.sleeps += 1;
            let least = [wait, self.streams.until_deadline(now)].into_iter().flatten().min();
            self.take_events(least)?;
        }
        Ok(())
    }

    /// Reads ready sockets in turn until the batch is full.
    fn receive(&mut self) {
        let bytes = self.config.buffer_bytes as usize;
        while let Some(index) = self.ready.pop_front() {
            let Some(Some(socket)) = self.sockets.get_mut(index as usize) else { continue };
            let mut taken = 0;
            let empty = loop {
                if self.batch.len() >= self.config.batch_max || taken >= SOCKET_TURN {
                    break false;
                }
                let start = self.batch.len() * bytes;
                let Some(buffer) = self.buffers.get_mut(start..start + bytes) else { break false };
                taken += 1;
                match socket.socket.recv_from(buffer) {
                    // A full buffer means that something was cut off.
                    Ok((length, _)) if length >= bytes => self.tally.truncated += 1,
                    Ok((length, from)) => {
                        let (buffer, length) = (self.batch.len() as u16, length as u16);
                        self.batch.push(Item::Datagram { socket: index, from, buffer, start: 0, length });
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break true,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => {
                        self.tally.rearmed += 1;
                        self.batch.push(Item::Unreachable { socket: index });
                    }
                }
            };
            socket.queued = !empty;
            if !empty {
                self.ready.push_back(index);
            }
            if self.batch.len() >= self.config.batch_max {
                break;
            }
        }
    }

    fn datagram(&self, index: usize) -> Option<&[u8]> {
        match self.batch.get(index)? {
            Item::Datagram { buffer, length, .. } => {
                let start = usize::from(*buffer) * self.config.buffer_bytes as usize;
                self.buffers.get(start..start + usize::from(*length))
            }
            _ => None,
        }
    }
}

fn send(socket: Option<&Option<Datagrams>>, bytes: &[u8], tally: &mut Tally) {
    let Some(Some(Datagrams { socket, to: Some(to), exclusive, .. })) = socket else {
        tally.send_failed += 1;
        return;
    };
    let sent = if *exclusive { socket.send(bytes) } else { socket.send_to(bytes, to) };
    if let Err(error) = sent {
        tally.send_error(error.raw_os_error().unwrap_or(0));
    }
}

impl Driver for Polled {
    fn name(&self) -> &'static str {
        "mio"
    }

    fn open(&mut self, socket: UdpSocket) -> io::Result<u32> {
        if self.free.is_empty() && self.sockets.len() >= self.config.sockets_max {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        socket.set_nonblocking(true)?;
        let index = self.free.pop().unwrap_or_else(|| {
            self.sockets.push(None);
            (self.sockets.len() - 1) as u32
        });
        self.serial = (self.serial + 1) & 0xff_ffff;
        let own = Token(token::pack(token::DATAGRAM, self.serial, index));
        let descriptor = socket.as_raw_fd();
        self.watch.0.registry().register(&mut SourceFd(&descriptor), own, Interest::READABLE)?;
        // What came before is told by no edge.
        self.ready.push_back(index);
        let opened = Datagrams { socket, serial: self.serial, to: None, exclusive: false, queued: true };
        if let Some(place) = self.sockets.get_mut(index as usize) {
            *place = Some(opened);
        }
        Ok(index)
    }

    fn close(&mut self, socket: u32) {
        if let Some(closed) = self.sockets.get_mut(socket as usize).and_then(Option::take) {
            let _ = self.watch.0.registry().deregister(&mut SourceFd(&closed.socket.as_raw_fd()));
            self.free.push(socket);
        }
    }

    fn aim(&mut self, socket: u32, to: Option<SocketAddr>, exclusive: bool) -> io::Result<()> {
        let Some(socket) = self.of(socket) else { return Err(io::Error::from(io::ErrorKind::NotFound)) };
        let exclusive = exclusive && to.is_some();
        if socket.to == to && socket.exclusive == exclusive {
            return Ok(());
        }
        if socket.exclusive {
            sys::dissolve(&socket.socket)?;
            socket.exclusive = false;
        }
        socket.to = to;
        if let (Some(to), true) = (to, exclusive) {
            socket.socket.connect(to)?;
            socket.exclusive = true;
        }
        Ok(())
    }

    fn listen(&mut self, listener: TcpListener, tls: Option<Tls>) -> io::Result<()> {
        self.streams.listen(listener, tls, &mut self.watch)
    }

    fn dial(&mut self, dial: u64, to: SocketAddr, tls: Option<Tls>) {
        self.streams.dial(dial, to, tls, &mut self.watch);
    }

    fn poll(&mut self, wait: Option<Duration>) -> io::Result<usize> {
        self.batch.clear();
        self.streams.flush(&mut self.watch, &mut self.tally);
        self.take_events(Some(Duration::ZERO))?;
        if self.idle() {
            self.wait(wait)?;
        }
        self.receive();
        if self.streams.has_deadline() {
            self.streams.expire(Instant::now(), &mut self.watch, &mut self.tally);
        }
        while self.batch.len() < self.config.batch_max {
            let Some(happening) = self.streams.next(&mut self.watch, &mut self.tally) else { break };
            self.batch.push(Item::Stream(happening));
        }
        self.tally.batches += u64::from(!self.batch.is_empty());
        self.tally.events += self.batch.len() as u64;
        Ok(self.batch.len())
    }

    fn event(&self, index: usize) -> Event<'_> {
        match self.batch.get(index) {
            Some(Item::Datagram { socket, from, .. }) => Event::Datagram {
                socket: *socket,
                from: *from,
                bytes: self.datagram(index).unwrap_or_default(),
            },
            Some(item) => item.event(),
            None => Event::Woken,
        }
    }

    fn forward(&mut self, index: usize, socket: u32) {
        let start = match self.batch.get(index) {
            Some(Item::Datagram { buffer, length, .. }) => {
                let start = usize::from(*buffer) * self.config.buffer_bytes as usize;
                start..start + usize::from(*length)
            }
            _ => return,
        };
        let bytes = self.buffers.get(start).unwrap_or_default();
        send(self.sockets.get(socket as usize), bytes, &mut self.tally);
    }

    fn forward_patched(&mut self, index: usize, socket: u32, head: &[u8]) {
        let mut patched = std::mem::take(&mut self.patched);
        patched.clear();
        patched.extend_from_slice(self.datagram(index).unwrap_or_default());
        let skip = head.len().min(patched.len());
        patched[..skip].copy_from_slice(&head[..skip]);
        send(self.sockets.get(socket as usize), &patched, &mut self.tally);
        self.patched = patched;
    }

    fn send(&mut self, socket: u32, bytes: &[u8]) {
        send(self.sockets.get(socket as usize), bytes, &mut self.tally);
    }

    fn queued(&self) -> usize {
        0
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // each send left when it was made
    }

    fn write(&mut self, conn: u64, bytes: Bytes) {
        self.streams.write(conn, bytes);
    }

    fn write_all(&mut self, conn: u64, pieces: VecDeque<Bytes>) {
        self.streams.write_all(conn, pieces);
    }

    fn pause(&mut self, conn: u64) {
        self.streams.pause(conn);
    }

    fn resume(&mut self, conn: u64) {
        self.streams.resume(conn);
    }

    fn shut(&mut self, conn: u64, abort: bool) {
        self.streams.shut(conn, abort, &mut self.watch);
    }

    fn wake(&self) -> Wake {
        self.wake.clone()
    }

    fn tally(&self) -> Tally {
        self.tally
    }
}
