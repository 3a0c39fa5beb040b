//! The one flow that a device has to its server: a UDP socket, or a connection with or without TLS (RFC 3261 §18,
//! RFC 5626).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustls::pki_types::ServerName;
use sip::{Frame, Limits, Message, StreamFramer, Transport};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::UeError;
use crate::shared::Shared;

const CONNECT: Duration = Duration::from_secs(5);
const DATAGRAM_MAX: usize = 65_535;
const READ_BYTES: usize = 16 << 10;
/// Messages that may wait for a slow connection.
const WRITES_MAX: usize = 4096;

/// What the flow brings.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A message and its octets.
    Message(Box<Message>, Bytes),
    /// Octets that are no message; what is wrong.
    Malformed(String),
    /// The flow is gone; nothing follows.
    Lost,
}

/// A flow. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Wire {
    out: Out,
    pub(crate) local: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
enum Out {
    Udp(Arc<UdpSocket>, SocketAddr),
    Stream(mpsc::Sender<Bytes>),
}

impl Wire {
    pub(crate) async fn open(shared: &Shared, arrivals: mpsc::Sender<Arrival>) -> Result<Wire, UeError> {
        let account = &shared.account;
        match account.transport {
            Transport::Udp => {
                let socket = Arc::new(UdpSocket::bind((account.bind, 0)).await?);
                let local = socket.local_addr()?;
                let task = tokio::spawn(read_datagrams(Arc::clone(&socket), arrivals));
                Ok(Wire { out: Out::Udp(socket, account.server), local, tasks: vec![task] })
            }
            Transport::Tcp | Transport::Tls => {
                let timeout = || UeError::Transport("no connection in time".to_owned());
                let connected = tokio::time::timeout(CONNECT, TcpStream::connect(account.server)).await;
                let stream =
                    connected.map_err(|_| timeout())?.map_err(|e| UeError::Transport(e.to_string()))?;
                let _ = stream.set_nodelay(true);
                let local = stream.local_addr()?;
                if account.transport == Transport::Tcp {
                    return Ok(Wire::stream(stream, local, arrivals));
                }
                let connector = TlsConnector::from(shared.identity.client(&account.trust)?);
                let name = ServerName::from(account.server.ip());
                let shaken = tokio::time::timeout(CONNECT, connector.connect(name, stream)).await;
                let stream = shaken.map_err(|_| timeout())?.map_err(|e| UeError::Transport(e.to_string()))?;
                Ok(Wire::stream(stream, local, arrivals))
            }
            Transport::Ws | Transport::Wss => Err(UeError::State("WebSocket is not spoken here")),
        }
    }

    fn stream<S: AsyncRead + AsyncWrite + Send + 'static>(
        stream: S,
        local: SocketAddr,
        arrivals: mpsc::Sender<Arrival>,
    ) -> Wire {
        let (reader, writer) = tokio::io::split(stream);
        let (out, writes) = mpsc::channel(WRITES_MAX);
        let pong = out.clone();
        let tasks = vec![
            tokio::spawn(read_stream(reader, pong, arrivals.clone())),
            tokio::spawn(write_stream(writer, writes, arrivals)),
        ];
        Wire { out: Out::Stream(out), local, tasks }
    }

    /// Sends one message. What a full queue or a dead flow loses is lost; timers find out.
    pub(crate) async fn send(&self, bytes: Bytes) {
        match &self.out {
            Out::Udp(socket, server) => {
                let _ = socket.send_to(&bytes, server).await;
            }
            Out::Stream(out) => {
                let _ = out.try_send(bytes);
            }
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn read_datagrams(socket: Arc<UdpSocket>, arrivals: mpsc::Sender<Arrival>) {
    let mut buffer = vec![0; DATAGRAM_MAX];
    let limits = Limits::default();
    loop {
        let Ok((length, _)) = socket.recv_from(&mut buffer).await else {
            // An ICMP error of an earlier send: the server may be restarting.
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let bytes = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
        let arrival = match sip::datagram(bytes.clone(), &limits) {
            Ok(Some(message)) => Arrival::Message(Box::new(message), bytes),
            Ok(None) => continue,
            Err(bad) => Arrival::Malformed(bad.to_string()),
        };
        if arrivals.send(arrival).await.is_err() {
            return;
        }
    }
}

async fn read_stream<R: AsyncRead>(reader: R, pong: mpsc::Sender<Bytes>, arrivals: mpsc::Sender<Arrival>) {
    tokio::pin!(reader);
    let mut framer = StreamFramer::new(Limits::default());
    // The same octets beside the framer, so that a message can be read a second time as it came.
    let mut raw = BytesMut::new();
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    loop {
        buffer.clear();
        if !matches!(reader.read_buf(&mut buffer).await, Ok(1..)) {
            break;
        }
        framer.push(&buffer);
        raw.extend_from_slice(&buffer);
        while let Some(frame) = framer.next() {
            let used = raw.len().saturating_sub(framer.buffered());
            let bytes = raw.split_to(used).freeze();
            let arrival = match frame {
                Frame::Message(message) => Arrival::Message(Box::new(message), without_blank_lines(bytes)),
                Frame::Ping => {
                    let _ = pong.try_send(Bytes::from_static(b"\r\n"));
                    continue;
                }
                Frame::Malformed(bad) => Arrival::Malformed(bad.to_string()),
            };
            if arrivals.send(arrival).await.is_err() {
                return;
            }
        }
        if framer.is_broken() {
            break;
        }
    }
    let _ = arrivals.send(Arrival::Lost).await;
}

/// RFC 3261 §7.5: line ends before a start line are no part of it.
fn without_blank_lines(mut bytes: Bytes) -> Bytes {
    while bytes.starts_with(b"\r\n") {
        bytes.advance(2);
    }
    bytes
}

async fn write_stream<W: AsyncWrite>(
    writer: W,
    mut writes: mpsc::Receiver<Bytes>,
    arrivals: mpsc::Sender<Arrival>,
) {
    tokio::pin!(writer);
    while let Some(bytes) = writes.recv().await {
        let wrote = match writer.write_all(&bytes).await {
            Ok(()) => writer.flush().await,
            failed => failed,
        };
        if wrote.is_err() {
            let _ = arrivals.send(Arrival::Lost).await;
            return;
        }
    }
}
