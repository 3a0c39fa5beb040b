//! What the load speaks over: one UDP socket for all users, or a connection for each of so many, by TCP or TLS.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use sip::{Frame, Limits, Message, StreamFramer, datagram};

/// What SIP runs over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wire {
    Udp,
    Tcp,
    Tls,
}

impl Wire {
    /// As it is written in rows and configurations.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Wire::Udp => "udp",
            Wire::Tcp => "tcp",
            Wire::Tls => "tls",
        }
    }
}

/// Where a user is reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    pub(super) addr: SocketAddr,
    pub(super) wire: Wire,
}

impl Own {
    /// The beginning of a Via.
    pub(super) fn via(&self) -> String {
        format!("SIP/2.0/{} {}", self.wire.name().to_uppercase(), self.addr)
    }

    /// A contact address there.
    pub(super) fn uri(&self, user: impl std::fmt::Display) -> String {
        match self.wire {
            Wire::Udp => format!("sip:{user}@{}", self.addr),
            wire => format!("sip:{user}@{};transport={}", self.addr, wire.name()),
        }
    }
}

/// Datagrams read at once before others have their turn.
const AT_ONCE: usize = 128;
const CONNECT: Duration = Duration::from_secs(10);

struct Stream {
    tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
    framer: StreamFramer,
    /// What the kernel did not take yet.
    unsent: Vec<u8>,
}

enum Ways {
    Udp(UdpSocket),
    Streams(Vec<Stream>),
}

/// All sockets of a load.
pub(super) struct Wires {
    ways: Ways,
    owns: Vec<Own>,
    server: SocketAddr,
    limits: Limits,
    poll: Poll,
    events: Events,
    room: Vec<u8>,
    /// The datagrams of the last look were not all.
    more: bool,
}

impl Wires {
    /// One UDP socket.
    pub(super) fn udp(server: SocketAddr) -> anyhow::Result<Wires> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(8 << 20);
        let owns = vec![Own { addr: socket.local_addr()?, wire: Wire::Udp }];
        Wires::new(Ways::Udp(socket), owns, server)
    }

    /// So many connections, with TLS where its settings are given.
    pub(super) fn streams(
        server: SocketAddr,
        count: usize,
        tls: Option<&Arc<ClientConfig>>,
    ) -> anyhow::Result<Wires> {
        let wire = if tls.is_some() { Wire::Tls } else { Wire::Tcp };
        let (mut streams, mut owns) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for _ in 0..count {
            let mut tcp = TcpStream::connect_timeout(&server, CONNECT)?;
            tcp.set_nodelay(true)?;
            tcp.set_read_timeout(Some(CONNECT))?;
            let tls = match tls {
                None => None,
                Some(config) => {
                    let name = ServerName::from(server.ip());
                    let mut session = Box::new(ClientConnection::new(Arc::clone(config), name)?);
                    while session.is_handshaking() {
                        session.complete_io(&mut tcp)?;
                    }
                    Some(session)
                }
            };
            tcp.set_nonblocking(true)?;
            owns.push(Own { addr: tcp.local_addr()?, wire });
            streams.push(Stream {
                tcp,
                tls,
                framer: StreamFramer::new(Limits::default()),
                unsent: Vec::new(),
            });
        }
        Wires::new(Ways::Streams(streams), owns, server)
    }

    fn new(ways: Ways, owns: Vec<Own>, server: SocketAddr) -> anyhow::Result<Wires> {
        let poll = Poll::new()?;
        let add = |fd, at| poll.registry().register(&mut SourceFd(&fd), Token(at), Interest::READABLE);
        match &ways {
            Ways::Udp(socket) => add(socket.as_raw_fd(), 0)?,
            Ways::Streams(all) => {
                for (at, stream) in all.iter().enumerate() {
                    add(stream.tcp.as_raw_fd(), at)?;
                }
            }
        }
        let (events, room, limits) = (Events::with_capacity(1024), vec![0; 65_536], Limits::default());
        Ok(Wires { ways, owns, server, limits, poll, events, room, more: false })
    }

    /// The way of a user.
    pub(super) fn way(&self, user: u64) -> usize {
        (user % self.owns.len().max(1) as u64) as usize
    }

    /// Where it is.
    pub(super) fn own(&self, way: usize) -> Own {
        let nowhere = Own { addr: self.server, wire: Wire::Udp };
        self.owns.get(way).copied().unwrap_or(nowhere)
    }

    /// Whether what is lost is lost.
    pub(super) fn loses(&self) -> bool {
        matches!(self.ways, Ways::Udp(_))
    }

    /// Sends one message.
    pub(super) fn say(&mut self, way: usize, octets: &[u8]) -> anyhow::Result<()> {
        match &mut self.ways {
            Ways::Udp(socket) => match socket.send_to(octets, self.server) {
                Ok(_) => Ok(()),
                // Lost, as it may be.
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) =>
                {
                    Ok(())
                }
                Err(error) => Err(error.into()),
            },
            Ways::Streams(all) => match all.get_mut(way) {
                Some(stream) => stream.say(octets),
                None => Ok(()),
            },
        }
    }

    /// Everything that has come, or what comes first within a time.
    pub(super) fn hear(
        &mut self,
        wait: Duration,
        into: &mut VecDeque<(usize, Message)>,
    ) -> anyhow::Result<()> {
        let wait = if self.more { Duration::ZERO } else { wait };
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        match &mut self.ways {
            Ways::Udp(socket) => {
                if self.events.is_empty() && !self.more {
                    return Ok(());
                }
                self.more = true;
                for _ in 0..AT_ONCE {
                    let count = match socket.recv(&mut self.room) {
                        Ok(count) => count,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            self.more = false;
                            break;
                        }
                        Err(error) if error.kind() == ErrorKind::ConnectionRefused => continue,
                        Err(error) => return Err(error.into()),
                    };
                    let octets = Bytes::copy_from_slice(self.room.get(..count).unwrap_or_default());
                    let message =
                        datagram(octets, &self.limits).map_err(|bad| anyhow::anyhow!("{}", bad.why))?;
                    into.extend(message.map(|message| (0, message)));
                }
            }
            Ways::Streams(all) => {
                for event in &self.events {
                    let at = event.token().0;
                    if let Some(stream) = all.get_mut(at) {
                        stream.hear(&mut self.room, at, into)?;
                    }
                }
                for stream in all.iter_mut().filter(|stream| !stream.unsent.is_empty()) {
                    stream.flush()?;
                }
            }
        }
        Ok(())
    }
}

impl Stream {
    fn say(&mut self, octets: &[u8]) -> anyhow::Result<()> {
        match &mut self.tls {
            None => self.unsent.extend_from_slice(octets),
            Some(tls) => {
                tls.writer().write_all(octets)?;
                while tls.wants_write() {
                    tls.write_tls(&mut self.unsent)?;
                }
            }
        }
        self.flush()
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        while !self.unsent.is_empty() {
            match self.tcp.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn hear(
        &mut self,
        room: &mut [u8],
        at: usize,
        into: &mut VecDeque<(usize, Message)>,
    ) -> anyhow::Result<()> {
        loop {
            let read = match &mut self.tls {
                None => self.tcp.read(room),
                Some(tls) => match tls.reader().read(room) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        match tls.read_tls(&mut self.tcp) {
                            Ok(0) => Ok(0),
                            Ok(_) => {
                                tls.process_new_packets()?;
                                continue;
                            }
                            Err(error) => Err(error),
                        }
                    }
                    other => other,
                },
            };
            match read {
                Ok(0) => anyhow::bail!("the server has closed a connection"),
                Ok(count) => self.framer.push(room.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
            while let Some(frame) = self.framer.next() {
                match frame {
                    Frame::Message(message) => into.push_back((at, message)),
                    Frame::Ping => {}
                    Frame::Malformed(bad) => anyhow::bail!("{}", bad.why),
                }
            }
        }
        Ok(())
    }
}
