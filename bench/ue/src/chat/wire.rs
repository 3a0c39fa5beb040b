//! The connection under an MSRP session: opened or awaited, plain or under TLS, read and written side by side.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::endpoint::{Endpoint, Outgoing, Receipt, Told};
use crate::tls::{Fingerprint, Identity, Trust};

/// How long connecting, or waiting for the peer to connect, may take.
const CONNECT: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 64 << 10;

/// How the connection comes about (RFC 6135).
#[derive(Debug)]
pub(crate) enum Setup {
    /// We open it.
    Active(SocketAddr),
    /// The peer opens it.
    Passive(TcpListener),
}

/// TLS under the session: who we are and which certificate the peer must show.
#[derive(Clone, Debug)]
pub(crate) struct Secure {
    pub(crate) identity: Arc<Identity>,
    pub(crate) expected: Option<Fingerprint>,
}

pub(crate) enum Command {
    Send {
        message: Outgoing,
        reply: oneshot::Sender<Option<Receipt>>,
    },
    Nickname {
        nickname: String,
        reply: oneshot::Sender<u16>,
    },
    /// Stop reading (a slow reader), or go on.
    Pause(bool),
    /// Close once everything is written.
    Close,
}

/// What the session's owner hears.
#[derive(Debug)]
pub(crate) enum Heard {
    /// The connection is up.
    Up,
    /// From the endpoint.
    Told(Told),
    /// It is over; why, in words. Nothing follows.
    Down(String),
}

/// Runs a session until either side closes. `tell` hears everything in order.
pub(crate) async fn run(
    setup: Setup,
    secure: Option<Secure>,
    mut endpoint: Endpoint,
    commands: mpsc::UnboundedReceiver<Command>,
    mut tell: impl FnMut(Heard, &mut Endpoint),
) {
    let active = matches!(setup, Setup::Active(_));
    if active {
        endpoint.bind();
    }
    let why = match tokio::time::timeout(CONNECT, open(setup)).await {
        Err(_) => "no connection in time".to_owned(),
        Ok(Err(e)) => format!("connection: {e}"),
        Ok(Ok(stream)) => {
            let _ = stream.set_nodelay(true);
            match secure {
                None => pump(stream, &mut endpoint, commands, &mut tell).await,
                Some(secure) => match handshake(stream, active, &secure).await {
                    Ok(Tls::Client(stream)) => pump(*stream, &mut endpoint, commands, &mut tell).await,
                    Ok(Tls::Server(stream)) => pump(*stream, &mut endpoint, commands, &mut tell).await,
                    Err(e) => format!("TLS: {e}"),
                },
            }
        }
    };
    tell(Heard::Down(why), &mut endpoint);
}

async fn open(setup: Setup) -> std::io::Result<TcpStream> {
    match setup {
        Setup::Active(to) => TcpStream::connect(to).await,
        Setup::Passive(listener) => listener.accept().await.map(|(stream, _)| stream),
    }
}

enum Tls {
    Client(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    Server(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

/// The active side is the TLS client (RFC 4975 §14.1, RFC 6135 §4).
async fn handshake(stream: TcpStream, active: bool, secure: &Secure) -> anyhow::Result<Tls> {
    if active {
        let trust = secure.expected.map_or(Trust::Anybody, Trust::Pinned);
        let connector = TlsConnector::from(secure.identity.client(&trust)?);
        let name = ServerName::from(stream.peer_addr()?.ip());
        Ok(Tls::Client(Box::new(connector.connect(name, stream).await?)))
    } else {
        let acceptor = TlsAcceptor::from(secure.identity.server(secure.expected)?);
        Ok(Tls::Server(Box::new(acceptor.accept(stream).await?)))
    }
}

async fn pump<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    endpoint: &mut Endpoint,
    mut commands: mpsc::UnboundedReceiver<Command>,
    tell: &mut impl FnMut(Heard, &mut Endpoint),
) -> String {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let mut writing: VecDeque<Bytes> = VecDeque::new();
    let (mut paused, mut closing, mut unflushed) = (false, false, false);
    tell(Heard::Up, endpoint);
    loop {
        while let Some(told) = endpoint.told() {
            tell(Heard::Told(told), endpoint);
        }
        if writing.is_empty() {
            writing.extend(endpoint.next_write(Instant::now()).into_iter().flatten());
            if writing.is_empty() && closing && !unflushed {
                let _ = writer.shutdown().await;
                return "closed by us".to_owned();
            }
        }
        let deadline = endpoint.next_timeout();
        tokio::select! {
            read = reader.read_buf(&mut buffer), if !paused => match read {
                Ok(0) => return "closed by the peer".to_owned(),
                Ok(_) => {
                    if let Err(e) = endpoint.read(buffer.split().freeze()) {
                        return e.to_string();
                    }
                    buffer.reserve(READ_BYTES);
                }
                Err(e) => return format!("read: {e}"),
            },
            wrote = write_some(&mut writer, &mut writing), if unflushed || !writing.is_empty() => match wrote {
                Ok(flushed) => unflushed = !flushed,
                Err(e) => return format!("write: {e}"),
            },
            command = commands.recv(), if !closing => match command {
                Some(Command::Send { message, reply }) => {
                    let _ = reply.send(endpoint.send(message));
                }
                Some(Command::Nickname { nickname, reply }) => endpoint.nickname(&nickname, Instant::now(), reply),
                Some(Command::Pause(on)) => paused = on,
                Some(Command::Close) | None => closing = true,
            },
            () = sleep_until(deadline), if deadline.is_some() => endpoint.timeout(Instant::now()),
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    if let Some(at) = deadline {
        tokio::time::sleep_until(at.into()).await;
    }
}

/// Writes as much as the stream takes now, or flushes when nothing waits; says whether it flushed. Cancelling it
/// loses nothing.
async fn write_some<W: AsyncWrite + Unpin>(
    writer: &mut W,
    parts: &mut VecDeque<Bytes>,
) -> std::io::Result<bool> {
    let Some(part) = parts.front_mut() else {
        writer.flush().await?;
        return Ok(true);
    };
    let count = if part.is_empty() { 0 } else { writer.write(part).await? };
    if count == 0 && !part.is_empty() {
        return Err(std::io::ErrorKind::WriteZero.into());
    }
    part.advance(count);
    if part.is_empty() {
        parts.pop_front();
    }
    Ok(false)
}
