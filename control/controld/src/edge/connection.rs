//! One connection: reads, frames, writes; slow ones are cut loose.
//!
//! ```text
//!   Fresh --first message--> Between --octets of a message--> Within --its last octet--> Between
//!   Fresh, Within --message_ms--> closed (slow)      Between --idle_ms--> closed (idle)
//!   any --nothing written for message_ms although octets wait, or too many wait--> closed (unread)
//! ```

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustls_pki_types::CertificateDer;
use sip::{Frame, Peer, StreamFramer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::table::Ticket;
use super::{Arrival, Shared, websocket};
use crate::metrics::{Close, Discard};

/// Octets of one read at most.
const READ_MAX: usize = 16 * 1024;
/// Octets that are written in one go at most.
const WRITE_MAX: usize = 64 * 1024;

/// Serves a connection that a peer opened.
pub(super) async fn accepted(
    shared: Arc<Shared>,
    ticket: Ticket,
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    local: std::net::SocketAddr,
) {
    let start = Instant::now();
    let _ = stream.set_nodelay(true);
    let local = stream.local_addr().unwrap_or(local);
    let deadline = start + Duration::from_millis(shared.limits.message_ms);
    let mut connection = Connection::new(&shared, ticket, local, Some(deadline));
    match acceptor {
        None => connection.receive(stream, deadline).await,
        Some(acceptor) => match timeout_at(deadline, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                connection.shown(stream.get_ref().1.peer_certificates());
                connection.receive(stream, deadline).await;
            }
            Ok(Err(_)) => connection.end(Close::Tls).await,
            Err(_) => connection.end(Close::Slow).await,
        },
    }
}

/// Opens a connection and serves it.
pub(super) async fn open(shared: Arc<Shared>, ticket: Ticket, connector: Option<TlsConnector>) {
    let peer = ticket.peer;
    let patience = Duration::from_millis(shared.limits.connect_ms);
    let deadline = Instant::now() + patience;
    let stream = match timeout_at(deadline, TcpStream::connect(peer.addr)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(_)) | Err(_) => {
            return Connection::new(&shared, ticket, peer.addr, None).end(Close::Unreachable).await;
        }
    };
    let _ = stream.set_nodelay(true);
    let local = stream.local_addr().unwrap_or(peer.addr);
    let mut connection = Connection::new(&shared, ticket, local, None);
    match connector {
        None => connection.serve(stream).await,
        Some(connector) => {
            let by_address = rustls_pki_types::ServerName::from(peer.addr.ip());
            // RFC 5922 §7.3: the name that was looked for, not the one that the DNS led to.
            let located = connection.ticket.name.as_ref();
            let name = located.and_then(|name| name.to_string().try_into().ok()).unwrap_or(by_address);
            match timeout_at(deadline, connector.connect(name, stream)).await {
                Ok(Ok(stream)) => {
                    connection.shown(stream.get_ref().1.peer_certificates());
                    connection.serve(stream).await;
                }
                Ok(Err(_)) | Err(_) => connection.end(Close::Tls).await,
            }
        }
    }
}

pub(super) struct Connection<'a> {
    pub(super) shared: &'a Shared,
    pub(super) ticket: Ticket,
    pub(super) peer: Peer,
    local: std::net::SocketAddr,
    /// It has shown the certificate of a peer whose word is believed.
    trusted: bool,
    framer: StreamFramer,
    /// How many of its messages may be on their way to a decision.
    places: Arc<Semaphore>,
    /// When the message that has begun, or the first one, must be complete.
    pub(super) message_by: Option<Instant>,
    pub(super) heard: Instant,
    /// Octets of a message that is not complete.
    pub(super) held: usize,
    out: BytesMut,
    /// When something must have been written, while something waits.
    written_by: Instant,
}

impl<'a> Connection<'a> {
    fn new(
        shared: &'a Shared,
        ticket: Ticket,
        local: std::net::SocketAddr,
        first_by: Option<Instant>,
    ) -> Self {
        let (peer, now) = (ticket.peer, Instant::now());
        Connection {
            shared,
            ticket,
            peer,
            local,
            trusted: false,
            framer: StreamFramer::new(shared.framing.clone()),
            places: Arc::new(Semaphore::new(shared.limits.connection_pending_max)),
            message_by: first_by,
            heard: now,
            held: 0,
            out: BytesMut::new(),
            written_by: now,
        }
    }

    /// The peer has shown these, and they were believed.
    fn shown(&mut self, chain: Option<&[CertificateDer<'static>]>) {
        let peers = self.shared.peers.as_ref();
        self.trusted = peers.zip(chain).is_some_and(|(peers, chain)| peers.trusts(chain));
        if let Some(own) = chain.and_then(<[_]>::first) {
            let _ = self.ticket.shown.set(own.clone());
        }
    }

    /// Serves a peer that came, by the rules of its transport.
    async fn receive<S: AsyncRead + AsyncWrite + Unpin>(mut self, stream: S, deadline: Instant) {
        if !matches!(self.peer.transport, sip::Transport::Ws | sip::Transport::Wss) {
            return self.serve(stream).await;
        }
        match websocket::accept(stream, &self.shared.framing, deadline).await {
            Ok(socket) => {
                self.begun();
                let why = self.converse(socket).await;
                self.ended(why).await;
            }
            Err(why) => self.end(why).await,
        }
    }

    async fn serve<S: AsyncRead + AsyncWrite>(mut self, stream: S) {
        self.begun();
        let why = self.exchange(stream).await;
        let metrics = &self.shared.metrics;
        if !self.framer.is_between() && !self.framer.is_broken() {
            metrics.received.count(self.peer.transport);
            metrics.discarded.count(Discard::Unfinished);
        }
        self.ended(why).await;
    }

    fn begun(&self) {
        let metrics = &self.shared.metrics;
        metrics.connections_opened.count(self.peer.transport);
        if let Some(open) = metrics.connections.of(self.peer.transport) {
            open.inc();
        }
    }

    async fn ended(self, why: Close) {
        if let Some(open) = self.shared.metrics.connections.of(self.peer.transport) {
            open.dec();
        }
        self.end(why).await;
    }

    /// The entry goes first, so that whatever the front sends from now on opens a new connection.
    async fn end(self, why: Close) {
        self.shared.metrics.connections_closed.count(why);
        tracing::debug!(transport = self.peer.transport.label(), reason = ?why, "connection ended");
        let (own, alias) = self.shared.table.leave(&self.ticket);
        let waiting = self.ticket.waiting.load(Ordering::Relaxed);
        self.shared.table.holds(self.held + waiting, 0, &self.shared.limits);
        let (peer, connection) = (self.peer, self.ticket.id);
        let _ = self.shared.front.send(Arrival::Failed { peer, connection, last: own }).await;
        if let Some(peer) = alias {
            let _ = self.shared.front.send(Arrival::Failed { peer, connection, last: true }).await;
        }
    }

    async fn exchange<S: AsyncRead + AsyncWrite>(&mut self, stream: S) -> Close {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut buffer = BytesMut::with_capacity(READ_MAX);
        let (kick, shutdown) = (self.ticket.kick.clone(), self.shared.shutdown.clone());
        loop {
            let deadline = self.deadline();
            tokio::select! {
                read = reader.read_buf(&mut buffer) => match read {
                    Ok(0) => return Close::Peer,
                    // What TLS cannot decrypt.
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => return Close::Tls,
                    Err(_) => return Close::Broken,
                    Ok(_) => {
                        if let Err(why) = self.take(&mut buffer).await {
                            // The refusal that is under way still goes out.
                            self.collect();
                            let _ = timeout(Duration::from_secs(1), self.last_words(&mut writer)).await;
                            return why;
                        }
                    }
                },
                more = self.ticket.queue.recv(), if self.out.len() < WRITE_MAX => match more {
                    Some(bytes) => {
                        self.copy_out(&bytes);
                        self.queue(bytes);
                    }
                    None => return Close::Shutdown,
                },
                written = writer.write(&self.out), if !self.out.is_empty() => match written {
                    Ok(0) => return Close::Broken,
                    Err(_) => return Close::Broken,
                    Ok(n) => {
                        if let Err(why) = self.wrote(n, &mut writer).await {
                            return why;
                        }
                    }
                },
                () = sleep_until(deadline) => if let Some(why) = self.late() { return why },
                () = kick.notified() => return Close::Unread,
                () = shutdown.triggered() => {
                    self.collect();
                    let _ = timeout(Duration::from_secs(1), self.last_words(&mut writer)).await;
                    return Close::Shutdown;
                }
            }
        }
    }

    pub(super) fn patience(&self) -> Duration {
        Duration::from_millis(self.shared.limits.message_ms)
    }

    pub(super) fn idle_by(&self) -> Instant {
        self.heard + Duration::from_millis(self.shared.limits.idle_ms)
    }

    fn deadline(&self) -> Instant {
        let written_by = (!self.out.is_empty()).then_some(self.written_by);
        [self.message_by, written_by].into_iter().flatten().fold(self.idle_by(), Instant::min)
    }

    fn late(&self) -> Option<Close> {
        let now = Instant::now();
        if self.message_by.is_some_and(|by| by <= now) {
            return Some(Close::Slow);
        }
        if !self.out.is_empty() && self.written_by <= now {
            return Some(Close::Unread);
        }
        (self.idle_by() <= now).then_some(Close::Idle)
    }

    fn queue(&mut self, bytes: Bytes) {
        if self.out.is_empty() {
            self.written_by = Instant::now() + self.patience();
        }
        self.out.extend_from_slice(&bytes);
    }

    /// Whatever waits in the queue.
    fn collect(&mut self) {
        while let Ok(bytes) = self.ticket.queue.try_recv() {
            self.copy_out(&bytes);
            self.queue(bytes);
        }
    }

    /// A message of ours is for the collector too.
    pub(super) fn copy_out(&self, bytes: &Bytes) {
        self.shared.copy(self.peer, true, self.local, || bytes.clone());
    }

    async fn wrote<W: AsyncWrite + Unpin>(&mut self, octets: usize, writer: &mut W) -> Result<(), Close> {
        self.out.advance(octets);
        self.ticket.waiting.fetch_sub(octets, Ordering::Relaxed);
        self.shared.table.holds(octets, 0, &self.shared.limits);
        self.written_by = Instant::now() + self.patience();
        if !self.out.is_empty() {
            return Ok(());
        }
        // TLS holds records back until it is told to flush.
        match timeout(self.patience(), writer.flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Close::Broken),
            Err(_) => Err(Close::Unread),
        }
    }

    async fn last_words<W: AsyncWrite + Unpin>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(&self.out).await?;
        writer.shutdown().await
    }

    /// Frames what was read and hands it on; waits while too much of this peer is undecided or the front is full,
    /// which holds up this peer only.
    async fn take(&mut self, buffer: &mut BytesMut) -> Result<(), Close> {
        self.heard = Instant::now();
        self.framer.push(buffer);
        buffer.clear();
        let metrics = &self.shared.metrics;
        let transport = self.peer.transport;
        let peer = self.peer;
        while let Some(frame) = self.framer.next() {
            let arrival = match frame {
                Frame::Ping => {
                    metrics.pings.count(transport);
                    // RFC 5626 §4.4.1: a pong is one CRLF.
                    self.pong();
                    continue;
                }
                Frame::Message(message) => self.arrival(message).await,
                Frame::Malformed(malformed) => {
                    let fatal = malformed.fatal;
                    metrics.received.count(transport);
                    let refusal = Arrival::Malformed { peer, malformed };
                    self.shared.front.send(refusal).await.map_err(|_| Close::Shutdown)?;
                    if fatal {
                        // The front answers through the queue; give it a moment.
                        self.answer_of_front().await;
                        return Err(Close::Malformed);
                    }
                    self.message_by = None;
                    continue;
                }
            };
            metrics.received.count(transport);
            self.message_by = None;
            self.shared.front.send(arrival).await.map_err(|_| Close::Shutdown)?;
        }
        let held = std::mem::replace(&mut self.held, self.framer.buffered());
        if !self.shared.table.holds(held, self.held, &self.shared.limits) {
            return Err(Close::Limit);
        }
        if self.framer.is_between() {
            // Before the first message the deadline of the start stays.
            return Ok(());
        }
        if self.message_by.is_none() {
            self.message_by = Some(self.heard + self.patience());
        }
        Ok(())
    }

    /// A message of this peer, in one of its places: waits until one is free.
    pub(super) async fn arrival(&self, message: sip::Message) -> Arrival {
        let (peer, connection, local) = (self.peer, self.ticket.id, self.local);
        self.shared.copy(peer, false, local, || message.to_bytes());
        let trusted = self.trusted;
        if trusted && let sip::Message::Request(request) = &message {
            self.alias(request);
        }
        let at = self.shared.clock.now().mono;
        let place = self.places.clone().acquire_owned().await.ok();
        Arrival::Message { peer, connection, local, trusted, message, at, place }
    }

    /// RFC 5923 §5: a peer that has proved who it is wants what goes to its listening port on this connection.
    fn alias(&self, request: &sip::Request) {
        let Some(via) = request.top_via().ok().filter(|via| via.params.has("alias")) else { return };
        let port = via.sent_by.port.unwrap_or(self.peer.transport.default_port());
        let addr = std::net::SocketAddr::new(self.peer.addr.ip(), port);
        self.shared.table.alias(&self.ticket, Peer::new(self.peer.transport, addr));
    }

    fn pong(&mut self) {
        if self.out.len() < WRITE_MAX {
            self.ticket.waiting.fetch_add(2, Ordering::Relaxed);
            self.shared.table.holds(0, 2, &self.shared.limits);
            self.queue(Bytes::from_static(b"\r\n"));
        }
    }

    async fn answer_of_front(&mut self) {
        if let Ok(Some(bytes)) = timeout(Duration::from_millis(200), self.ticket.queue.recv()).await {
            self.copy_out(&bytes);
            self.queue(bytes);
        }
    }
}
