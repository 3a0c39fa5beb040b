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

use msrp::session::Outgoing;

use super::session::{Receipt, Session, Told};
use crate::tls::{Fingerprint, Identity, Trust};

/// How long connecting, or waiting for the peer to connect, may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the last words of a session that is over may take.
const LAST_WORDS: Duration = Duration::from_secs(1);
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
    /// Write these octets as they are.
    Inject(Bytes),
    /// Close once everything is written.
    Close,
}

/// What the session's owner hears.
#[derive(Debug)]
pub(crate) enum Heard {
    /// From the session.
    Told(Told),
    /// It is over; why, in words. Nothing follows.
    Down(String),
}

/// Runs a session until either side closes. `tell` hears everything in order.
pub(crate) async fn run(
    setup: Setup,
    secure: Option<Secure>,
    mut session: Session,
    commands: mpsc::UnboundedReceiver<Command>,
    mut tell: impl FnMut(Heard, &mut Session),
) {
    let active = matches!(setup, Setup::Active(_));
    let why = match tokio::time::timeout(CONNECT, open(setup)).await {
        Err(_) => "no connection in time".to_owned(),
        Ok(Err(e)) => format!("connection: {e}"),
        Ok(Ok(stream)) => {
            let _ = stream.set_nodelay(true);
            match secure {
                None => pump(stream, active, &mut session, commands, &mut tell).await,
                Some(secure) => match handshake(stream, active, &secure).await {
                    Ok(Tls::Client(stream)) => pump(*stream, true, &mut session, commands, &mut tell).await,
                    Ok(Tls::Server(stream)) => pump(*stream, false, &mut session, commands, &mut tell).await,
                    Err(e) => format!("TLS: {e}"),
                },
            }
        }
    };
    tell(Heard::Down(why), &mut session);
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
    active: bool,
    session: &mut Session,
    mut commands: mpsc::UnboundedReceiver<Command>,
    tell: &mut impl FnMut(Heard, &mut Session),
) -> String {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let (mut paused, mut closing, mut unflushed) = (false, false, false);
    if active {
        session.connected();
    } else {
        session.accepted();
    }
    loop {
        while let Some(told) = session.told() {
            tell(Heard::Told(told), session);
        }
        if let Some(why) = session.over().map(str::to_owned) {
            // What was said last is said, to whom listens.
            let _ = tokio::time::timeout(LAST_WORDS, write_all(&mut writer, session.writing())).await;
            return why;
        }
        if closing && !unflushed && session.is_all_out() {
            let _ = writer.shutdown().await;
            return "closed by us".to_owned();
        }
        let deadline = session.deadline();
        tokio::select! {
            read = reader.read_buf(&mut buffer), if !paused => match read {
                Ok(0) => return "closed by the peer".to_owned(),
                Ok(_) => {
                    session.read(buffer.split().freeze());
                    buffer.reserve(READ_BYTES);
                }
                Err(e) => return format!("read: {e}"),
            },
            wrote = write_some(&mut writer, session.writing()), if unflushed || !session.writing().is_empty() => match wrote {
                Ok(count) => {
                    unflushed = count.is_some();
                    session.wrote(count.unwrap_or(0));
                }
                Err(e) => return format!("write: {e}"),
            },
            command = commands.recv(), if !closing => match command {
                Some(Command::Send { message, reply }) => {
                    let _ = reply.send(session.send(message));
                }
                Some(Command::Nickname { nickname, reply }) => session.nickname(nickname, reply),
                Some(Command::Pause(on)) => {
                    paused = on;
                    session.hold(on);
                }
                Some(Command::Inject(octets)) => session.writing().push_back(octets),
                Some(Command::Close) | None => closing = true,
            },
            () = sleep_until(deadline), if deadline.is_some() => session.timeout(),
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    if let Some(at) = deadline {
        tokio::time::sleep_until(at.into()).await;
    }
}

async fn write_all<W: AsyncWrite + Unpin>(
    writer: &mut W,
    parts: &mut VecDeque<Bytes>,
) -> std::io::Result<()> {
    while write_some(writer, parts).await?.is_some() {}
    writer.shutdown().await
}

/// Writes as much as the stream takes now and says how many octets, or flushes when nothing waits: `None`. Cancelling
/// it loses nothing.
async fn write_some<W: AsyncWrite + Unpin>(
    writer: &mut W,
    parts: &mut VecDeque<Bytes>,
) -> std::io::Result<Option<usize>> {
    let Some(part) = parts.front_mut() else {
        writer.flush().await?;
        return Ok(None);
    };
    let count = if part.is_empty() { 0 } else { writer.write(part).await? };
    if count == 0 && !part.is_empty() {
        return Err(std::io::ErrorKind::WriteZero.into());
    }
    part.advance(count);
    if part.is_empty() {
        parts.pop_front();
    }
    Ok(Some(count))
}
