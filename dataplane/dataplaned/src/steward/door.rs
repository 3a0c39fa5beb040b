//! The ng door: datagrams and connections of a proxy that speaks rtpengine's protocol, in and out; what they mean is the
//! crate `ng`'s. On loopback only: the protocol knows no authentication.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base::{Entropy, Instant, Now, Outbox, UnixTime};
use mio::net::{TcpListener, TcpStream, UdpSocket};
use mio::{Interest, Registry, Token};
use ng::{Adapter, Input, Output, Peer};

use crate::config::{Config, NgSettings};

pub(super) const DATAGRAMS: Token = Token(3);
pub(super) const LISTENER: Token = Token(4);
/// Connections at once.
const STREAMS_MAX: usize = 64;
/// Octets that may wait for a peer who does not read.
const OUT_MAX: usize = 1 << 20;
/// Messages of one turn; what is left is done in the next one.
const TURN: usize = 256;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Door {
    datagrams: Option<UdpSocket>,
    listener: Option<TcpListener>,
    streams: BTreeMap<u64, Stream>,
    adapter: Adapter,
    out: Outbox<Output>,
    octets: Vec<u8>,
    origin: std::time::Instant,
    /// Something may be left to read.
    more: bool,
}

#[derive(Debug)]
struct Stream {
    stream: TcpStream,
    read: Vec<u8>,
    out: Vec<u8>,
}

impl Door {
    /// Opens it, where it is configured.
    pub(crate) fn open(config: &Config, entropy: Entropy) -> io::Result<Option<Door>> {
        let settings = &config.ng;
        if settings.udp.is_none() && settings.tcp.is_none() {
            return Ok(None);
        }
        let out = Outbox::with_max(4 * Adapter::room_needed());
        Ok(Some(Door {
            datagrams: settings.udp.map(UdpSocket::bind).transpose()?,
            listener: settings.tcp.map(TcpListener::bind).transpose()?,
            streams: BTreeMap::new(),
            adapter: Adapter::new(adapter(settings, config), entropy),
            out,
            // One octet more than is taken, so that nothing is cut and taken for whole.
            octets: vec![0; ng::frame::MESSAGE_MAX + 1],
            origin: std::time::Instant::now(),
            more: false,
        }))
    }

    /// What was bound, by UDP and by TCP.
    pub(crate) fn addresses(&self) -> io::Result<(Option<SocketAddr>, Option<SocketAddr>)> {
        let udp = self.datagrams.as_ref().map(UdpSocket::local_addr).transpose()?;
        Ok((udp, self.listener.as_ref().map(TcpListener::local_addr).transpose()?))
    }

    pub(super) fn register(&mut self, registry: &Registry) -> io::Result<()> {
        if let Some(datagrams) = &mut self.datagrams {
            registry.register(datagrams, DATAGRAMS, Interest::READABLE)?;
        }
        if let Some(listener) = &mut self.listener {
            registry.register(listener, LISTENER, Interest::READABLE)?;
        }
        Ok(())
    }

    pub(super) fn owns(&self, context: u64) -> bool {
        self.adapter.owns(context)
    }

    pub(super) fn drain(&mut self, on: bool) {
        self.adapter.drain(on);
    }

    pub(super) fn tally(&self) -> ng::Tally {
        self.adapter.tally()
    }

    /// Whether the steward should come back at once.
    pub(super) fn has_more(&self) -> bool {
        self.more
    }

    fn now(&self) -> Now {
        let mono = Instant::from_nanos(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX));
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono, wall: UnixTime::from_millis(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)) }
    }

    /// Something for the adapter from within; what has to be done for it is in the return.
    pub(super) fn take(&mut self, input: Input<'_>) -> Vec<Output> {
        let now = self.now();
        self.adapter.handle(now, input, &mut self.out);
        self.perform()
    }

    /// Time passed.
    pub(super) fn tick(&mut self) -> Vec<Output> {
        let now = self.now();
        if self.adapter.next_timeout().is_some_and(|due| due <= now.mono) {
            self.adapter.timeout(now, &mut self.out);
        }
        self.perform()
    }

    /// Reads what there is, up to a turn's worth.
    pub(super) fn read(&mut self, registry: &Registry, next_token: &mut usize) -> Vec<Output> {
        self.more = false;
        let mut orders = self.read_datagrams();
        self.accept(registry, next_token);
        let streams: Vec<u64> = self.streams.keys().copied().collect();
        for id in streams {
            orders.extend(self.read_stream(id, registry));
        }
        orders
    }

    fn read_datagrams(&mut self) -> Vec<Output> {
        let mut orders = Vec::new();
        for _ in 0..TURN {
            let received = self.datagrams.as_ref().map(|socket| socket.recv_from(&mut self.octets));
            let Some(Ok((length, from))) = received else { return orders };
            let now = self.now();
            let octets = self.octets.get(..length).unwrap_or_default();
            let input = Input::Request { from: Peer::Datagram(from), octets };
            self.adapter.handle(now, input, &mut self.out);
            orders.extend(self.perform());
        }
        self.more = true;
        orders
    }

    fn accept(&mut self, registry: &Registry, next_token: &mut usize) {
        while let Some(Ok((mut stream, _))) = self.listener.as_ref().map(TcpListener::accept) {
            if self.streams.len() >= STREAMS_MAX {
                continue; // dropped: it is closed
            }
            let token = *next_token;
            *next_token += 1;
            let interest = Interest::READABLE | Interest::WRITABLE;
            if registry.register(&mut stream, Token(token), interest).is_ok() {
                let _ = stream.set_nodelay(true);
                self.streams.insert(token as u64, Stream { stream, read: Vec::new(), out: Vec::new() });
            }
        }
    }

    fn read_stream(&mut self, id: u64, registry: &Registry) -> Vec<Output> {
        let mut orders = Vec::new();
        for _ in 0..TURN {
            let Some(stream) = self.streams.get_mut(&id) else { return orders };
            let message = match ng::frame::next(&mut stream.read) {
                Ok(Some(message)) => message,
                Ok(None) => match stream.fill() {
                    Ok(true) => continue,
                    Ok(false) => return orders,
                    Err(_) => {
                        self.close(id, registry);
                        return orders;
                    }
                },
                // Where the next message begins cannot be known.
                Err(_) => {
                    self.close(id, registry);
                    return orders;
                }
            };
            let now = self.now();
            let input = Input::Request { from: Peer::Stream(id), octets: &message };
            self.adapter.handle(now, input, &mut self.out);
            orders.extend(self.perform());
        }
        self.more = true;
        orders
    }

    /// Writes what waits for connections.
    pub(super) fn write(&mut self, registry: &Registry) {
        let failed: Vec<u64> = self
            .streams
            .iter_mut()
            .filter_map(|(id, stream)| stream.flush().is_err().then_some(*id))
            .collect();
        failed.into_iter().for_each(|id| self.close(id, registry));
    }

    fn close(&mut self, id: u64, registry: &Registry) {
        if let Some(mut stream) = self.streams.remove(&id) {
            let _ = registry.deregister(&mut stream.stream);
        }
    }

    /// Sends replies; the rest is for the shards.
    fn perform(&mut self) -> Vec<Output> {
        let mut orders = Vec::new();
        for output in self.out.drain() {
            match output {
                Output::Reply { to: Peer::Datagram(to), octets } => {
                    // What the kernel does not take is asked for again by its cookie.
                    let _ = self.datagrams.as_ref().map(|socket| socket.send_to(&octets, to));
                }
                Output::Reply { to: Peer::Stream(id), octets } => {
                    if let Some(stream) = self.streams.get_mut(&id) {
                        stream.out.extend_from_slice(&octets);
                    }
                }
                order => orders.push(order),
            }
        }
        orders
    }
}

impl Stream {
    /// Reads once; false when nothing is there now.
    fn fill(&mut self) -> io::Result<bool> {
        let mut piece = [0; 16 << 10];
        match self.stream.read(&mut piece) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                self.read.extend_from_slice(piece.get(..length).unwrap_or_default());
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(length) => {
                    self.out.drain(..length);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.out.len() > OUT_MAX { Err(ErrorKind::OutOfMemory.into()) } else { Ok(()) }
    }
}

/// What the adapter is told; its budget is the sum of what it may hold.
pub(crate) fn adapter(settings: &NgSettings, config: &Config) -> ng::Config {
    ng::Config {
        calls_max: settings.calls_max,
        cookies_max: settings.cookies_max,
        silence: Duration::from_millis(settings.silence_ms),
        silence_held: Duration::from_millis(settings.silence_held_ms),
        unanswered: Duration::from_millis(settings.unanswered_ms),
        learning: match settings.learning.as_str() {
            "strict" => ng::Learning::Strict,
            "trust" => ng::Learning::Trust,
            _ => ng::Learning::Window,
        },
        learning_window: Duration::from_millis(settings.learning_ms),
        interfaces: config
            .rtp
            .interfaces
            .iter()
            .map(|interface| ng::Interface { name: interface.name.clone(), address: interface.address })
            .collect(),
        ..ng::Config::default()
    }
}
