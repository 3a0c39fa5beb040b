//! SIP over WebSocket (RFC 7118): each message of the one is a message of the other (§5), as with datagrams. Only clients open
//! such connections, and what is for one of them goes over his own (§6).
//!
//! ```text
//!   HTTP GET, Upgrade, subprotocol "sip" ──101──► open ── text or binary message ──► a SIP message
//!            │ another subprotocol, or none                │ ping ──► pong        CRLF ──► CRLF (RFC 5626 §4.4.1)
//!            ▼                                             ▼ close, fault, idle, a message begun and not ended in time
//!          400, closed                                   closed
//! ```

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::Arrival;
use super::connection::Connection;
use crate::metrics::Close;

/// RFC 7118 §4.1.
const SUBPROTOCOL: &str = "sip";
const OFFERED: &str = "Sec-WebSocket-Protocol";
/// Octets of one read.
const READ_BYTES: usize = 8 * 1024;

/// Octets of a ping beside what it carries: two, and the mask (RFC 6455 §5.2).
const PING_HEAD: usize = 6;
/// Octets of pongs that may wait for a peer who does not read them.
const PONGS_MAX: usize = 8 * 1024;

/// What a connection holds beside its queue, as far as the library does not tell.
#[derive(Default)]
struct Counts {
    /// Octets that came of a message that is not complete.
    octets: AtomicUsize,
    /// Octets of pongs that are not with the kernel.
    pongs: AtomicUsize,
}

impl Counts {
    /// A message came, which is not waited for any more. Pings may come between the parts of one (RFC 6455 §5.4): those stay
    /// incomplete. The octets that still are.
    fn came(&self, message: &Message) -> usize {
        let (octets, pongs) = match message {
            Message::Ping(ping) => (ping.len() + PING_HEAD, ping.len() + 2),
            Message::Pong(pong) => (pong.len() + PING_HEAD, 0),
            _ => (usize::MAX, 0),
        };
        let left = self.octets.load(Ordering::Relaxed).saturating_sub(octets);
        self.octets.store(left, Ordering::Relaxed);
        self.pongs.fetch_add(pongs, Ordering::Relaxed);
        left
    }

    fn went(&self, octets: usize) {
        let left = self.pongs.load(Ordering::Relaxed).saturating_sub(octets);
        self.pongs.store(left, Ordering::Relaxed);
    }
}

/// A stream that counts what comes and goes.
pub(super) struct Counted<S> {
    stream: S,
    counts: Arc<Counts>,
}

/// A connection after its handshake.
pub(super) struct Socket<S> {
    stream: WebSocketStream<Counted<S>>,
    counts: Arc<Counts>,
}

/// The handshake (RFC 6455 §4.2, RFC 7118 §4).
pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    limits: &sip::Limits,
    deadline: Instant,
) -> Result<Socket<S>, Close> {
    let max = limits.stream_bytes_max();
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(max))
        .max_frame_size(Some(max));
    let counts = Arc::new(Counts::default());
    let counted = Counted { stream, counts: counts.clone() };
    let accepted = tokio_tungstenite::accept_hdr_async_with_config(counted, agree, Some(config));
    match timeout_at(deadline, accepted).await {
        Ok(Ok(stream)) => Ok(Socket { stream, counts }),
        Ok(Err(Error::Io(_))) => Err(Close::Peer),
        Ok(Err(_)) => Err(Close::Malformed),
        Err(_) => Err(Close::Slow),
    }
}

/// The client must offer the subprotocol, and is told that it is taken.
#[expect(clippy::result_large_err, reason = "the library's type")]
fn agree(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let offers = request.headers().get_all(OFFERED).iter().filter_map(|value| value.to_str().ok());
    let mut offers = offers.flat_map(|value| value.split(',')).map(str::trim);
    if offers.any(|offer| offer.eq_ignore_ascii_case(SUBPROTOCOL)) {
        response.headers_mut().insert(OFFERED, HeaderValue::from_static(SUBPROTOCOL));
        return Ok(response);
    }
    let mut refusal = ErrorResponse::new(Some("the WebSocket subprotocol sip is missing\n".to_owned()));
    *refusal.status_mut() = StatusCode::BAD_REQUEST;
    Err(refusal)
}

impl Connection<'_> {
    /// Takes and sends messages until the connection ends.
    pub(super) async fn converse<S: AsyncRead + AsyncWrite + Unpin>(&mut self, socket: Socket<S>) -> Close {
        let Socket { mut stream, counts } = socket;
        let (kick, shutdown) = (self.ticket.kick.clone(), self.shared.shutdown.clone());
        let mut tick = interval((self.patience() / 4).max(Duration::from_millis(10)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        counts.octets.store(0, Ordering::Relaxed);
        loop {
            tokio::select! {
                read = stream.next() => {
                    let answer = match read {
                        Some(Ok(message)) => {
                            let left = counts.came(&message);
                            // The library answers each ping, whether the answers are read or not.
                            if counts.pongs.load(Ordering::Relaxed) > PONGS_MAX {
                                return Close::Unread;
                            }
                            self.told(message, left).await
                        }
                        Some(Err(error)) => Err(why(&error)),
                        None => Err(Close::Peer),
                    };
                    match answer {
                        Ok(None) => {}
                        Ok(Some(pong)) => if let Err(why) = self.say(&mut stream, pong).await { return why },
                        Err(why) => {
                            let _ = timeout(Duration::from_secs(1), stream.close(None)).await;
                            return why;
                        }
                    }
                },
                more = self.ticket.queue.recv() => {
                    let Some(bytes) = more else { return Close::Shutdown };
                    let octets = bytes.len();
                    self.copy_out(&bytes);
                    let said = self.say(&mut stream, message(bytes)).await;
                    self.ticket.waiting.fetch_sub(octets, Ordering::Relaxed);
                    self.shared.table.holds(octets, 0, &self.shared.limits);
                    if let Err(why) = said {
                        return why;
                    }
                },
                _ = tick.tick() => if let Err(why) = self.look(counts.octets.load(Ordering::Relaxed)) { return why },
                () = kick.notified() => return Close::Unread,
                () = shutdown.triggered() => {
                    let _ = timeout(Duration::from_secs(1), self.last_messages(&mut stream)).await;
                    return Close::Shutdown;
                }
            }
        }
    }

    /// A message came, and so many octets of one that is not complete; what is said to it at once.
    async fn told(&mut self, message: Message, octets: usize) -> Result<Option<Message>, Close> {
        self.heard = Instant::now();
        self.count(octets)?;
        let bytes = match message {
            Message::Text(text) => Bytes::from(text),
            Message::Binary(bytes) => bytes,
            // RFC 6455 §5.5.3: the library has answered the ping.
            Message::Ping(_) | Message::Pong(_) => {
                self.shared.metrics.pings.count(self.peer.transport);
                return Ok(None);
            }
            Message::Close(_) => return Err(Close::Peer),
            Message::Frame(_) => return Ok(None),
        };
        let arrival = match sip::datagram(bytes, &self.shared.framing) {
            Ok(Some(message)) => self.arrival(message).await,
            Ok(None) => {
                self.shared.metrics.pings.count(self.peer.transport);
                return Ok(Some(Message::Text(Utf8Bytes::from_static("\r\n"))));
            }
            Err(malformed) => Arrival::Malformed { peer: self.peer, malformed },
        };
        self.message_by = None;
        self.shared.metrics.received.count(self.peer.transport);
        self.shared.front.send(arrival).await.map_err(|_| Close::Shutdown)?;
        Ok(None)
    }

    /// Looks at the clock, with so many octets of a message that is not complete.
    fn look(&mut self, octets: usize) -> Result<(), Close> {
        let now = Instant::now();
        self.count(octets)?;
        match (octets, self.message_by) {
            (_, Some(by)) if by <= now => return Err(Close::Slow),
            (1.., None) => self.message_by = Some(now + self.patience()),
            _ => {}
        }
        if self.idle_by() <= now { Err(Close::Idle) } else { Ok(()) }
    }

    fn count(&mut self, octets: usize) -> Result<(), Close> {
        let held = std::mem::replace(&mut self.held, octets);
        let fits = self.shared.table.holds(held, octets, &self.shared.limits);
        if fits { Ok(()) } else { Err(Close::Limit) }
    }

    async fn say<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut WebSocketStream<Counted<S>>,
        message: Message,
    ) -> Result<(), Close> {
        match timeout(self.patience(), stream.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(why(&error)),
            Err(_) => Err(Close::Unread),
        }
    }

    async fn last_messages<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: &mut WebSocketStream<Counted<S>>,
    ) -> Result<(), Close> {
        while let Ok(bytes) = self.ticket.queue.try_recv() {
            self.copy_out(&bytes);
            self.say(stream, message(bytes)).await?;
        }
        stream.close(None).await.map_err(|error| why(&error))
    }
}

/// RFC 7118 §5: text, or binary where it is no UTF-8.
fn message(bytes: Bytes) -> Message {
    match Utf8Bytes::try_from(bytes.clone()) {
        Ok(text) => Message::Text(text),
        Err(_) => Message::Binary(bytes),
    }
}

fn why(error: &Error) -> Close {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => Close::Peer,
        Error::Capacity(CapacityError::MessageTooLong { .. }) | Error::Protocol(_) | Error::Utf8(_) => {
            Close::Malformed
        }
        Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => Close::Tls,
        _ => Close::Broken,
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.counts.octets.fetch_add(buffer.filled().len().saturating_sub(before), Ordering::Relaxed);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(octets)) = &written {
            self.counts.went(*octets);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
