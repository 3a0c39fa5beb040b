//! What a link runs over: the Unix socket of this host, or TCP with mutual TLS from another one (DESIGN §3). Never
//! blocks; readiness comes by edges, so both directions go on until the kernel says no.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf as _, BytesMut};
use mio::net::{TcpListener, TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustls::{ServerConfig, ServerConnection};

use super::End;

const READ_BYTES: usize = 64 << 10;

/// Where controls of other hosts call.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(super) listener: TcpListener,
    config: Arc<ServerConfig>,
}

impl Remote {
    /// Binds it.
    pub(crate) fn bind(address: SocketAddr, config: Arc<ServerConfig>) -> io::Result<Remote> {
        Ok(Remote { listener: TcpListener::bind(address)?, config })
    }

    /// What was bound.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next caller; an error when nobody calls now.
    pub(super) fn accept(&self) -> io::Result<(Wire, SocketAddr)> {
        let (stream, peer) = self.listener.accept()?;
        stream.set_nodelay(true)?;
        let session = ServerConnection::new(Arc::clone(&self.config)).map_err(io::Error::other)?;
        Ok((Wire::Remote(Box::new(Secured { stream, session })), peer))
    }
}

/// See the head of the file.
#[derive(Debug)]
pub(super) enum Wire {
    Local(UnixStream),
    Remote(Box<Secured>),
}

#[derive(Debug)]
pub(super) struct Secured {
    stream: TcpStream,
    session: ServerConnection,
}

impl Wire {
    pub(super) fn is_local(&self) -> bool {
        matches!(self, Wire::Local(_))
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self {
            Wire::Local(stream) => registry.register(stream, token, interest),
            Wire::Remote(secured) => registry.register(&mut secured.stream, token, interest),
        }
    }

    /// Says goodbye, where that is usual, and is watched no more.
    pub(super) fn close(&mut self, registry: &Registry) {
        let _ = match self {
            Wire::Local(stream) => registry.deregister(stream),
            Wire::Remote(secured) => {
                secured.session.send_close_notify();
                let _ = secured.session.write_tls(&mut secured.stream);
                registry.deregister(&mut secured.stream)
            }
        };
    }

    /// Reads once; false when nothing is there now.
    pub(super) fn read(&mut self, into: &mut BytesMut) -> Result<bool, End> {
        match self {
            Wire::Local(stream) => match append(stream, into) {
                Ok(0) => Err(End::Closed),
                Ok(_) => Ok(true),
                Err(error) => nothing_or_failed(error),
            },
            Wire::Remote(secured) => secured.read(into),
        }
    }

    /// Writes what the kernel takes of `out`.
    pub(super) fn write(&mut self, out: &mut BytesMut) -> Result<(), End> {
        match self {
            Wire::Local(stream) => {
                while !out.is_empty() {
                    match stream.write(out) {
                        Ok(n) => out.advance(n),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        Err(error) => return Err(End::Failed(error)),
                    }
                }
                Ok(())
            }
            Wire::Remote(secured) => secured.write(out),
        }
    }
}

impl Secured {
    fn read(&mut self, into: &mut BytesMut) -> Result<bool, End> {
        let ended = match self.session.read_tls(&mut self.stream) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => return nothing_or_failed(error),
        };
        let state = match self.session.process_new_packets() {
            Ok(state) => state,
            Err(error) => {
                // The alert is worth a try: it tells the caller why.
                let _ = self.session.write_tls(&mut self.stream);
                return Err(End::of_tls(error));
            }
        };
        let (plain, goodbye) = (state.plaintext_bytes_to_read(), state.peer_has_closed());
        if plain > 0 {
            append(&mut self.session.reader(), into).map_err(End::Failed)?;
            return Ok(true);
        }
        match (ended || goodbye, self.session.is_handshaking()) {
            (false, _) => Ok(true),
            (true, false) => Err(End::Closed),
            (true, true) => Err(End::of_tls(rustls::Error::HandshakeNotComplete)),
        }
    }

    fn write(&mut self, out: &mut BytesMut) -> Result<(), End> {
        loop {
            // Nothing is said before the handshake has shown who listens.
            if !out.is_empty() && !self.session.is_handshaking() {
                let n = self.session.writer().write(out).map_err(End::Failed)?;
                out.advance(n);
            }
            if !self.session.wants_write() {
                return Ok(());
            }
            while self.session.wants_write() {
                match self.session.write_tls(&mut self.stream) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(End::Failed(error)),
                }
            }
        }
    }
}

/// One read behind what is there already.
fn append(from: &mut impl Read, into: &mut BytesMut) -> io::Result<usize> {
    let start = into.len();
    into.resize(start + READ_BYTES, 0);
    let result = from.read(into.get_mut(start..).unwrap_or_default());
    into.truncate(start + result.as_ref().copied().unwrap_or(0));
    result
}

fn nothing_or_failed(error: io::Error) -> Result<bool, End> {
    match error.kind() {
        ErrorKind::WouldBlock => Ok(false),
        ErrorKind::Interrupted => Ok(true),
        _ => Err(End::Failed(error)),
    }
}
