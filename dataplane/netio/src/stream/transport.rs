//! The octets of one connection: plain or through TLS, never blocking.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpStream;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rustls::Connection;
use socket2::SockRef;

/// Parts of one writev.
const PARTS_MAX: usize = 64;
/// Ciphertext that a session may hold for the kernel.
const SESSION_BYTES_MAX: usize = 64 << 10;
/// Below this a copy is cheaper than a share (DESIGN §4).
const COPY_BYTES_MAX: usize = 2048;
/// A read has room for so much at least.
const READ_BYTES: usize = 16 << 10;
/// What is kept of a queue that is empty.
const WAITING_KEPT: usize = 4;

/// Why a transport is at its end.
#[derive(Debug)]
pub(crate) enum End {
    /// The peer closed it in order.
    Closed,
    /// TLS says no.
    Tls,
    /// The transport says no.
    Reset,
}

/// A socket with or without TLS, and what waits to be sent.
#[derive(Debug)]
pub(crate) struct Transport {
    stream: TcpStream,
    tls: Option<Box<Connection>>,
    waiting: VecDeque<Bytes>,
    /// Octets that the TLS session took and the kernel has not.
    inside: usize,
    said_farewell: bool,
}

impl Transport {
    pub(crate) fn new(stream: TcpStream, tls: Option<Connection>) -> Self {
        let tls = tls.map(|mut session| {
            session.set_buffer_limit(Some(SESSION_BYTES_MAX));
            Box::new(session)
        });
        Transport { stream, tls, waiting: VecDeque::new(), inside: 0, said_farewell: false }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(crate) fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub(crate) fn handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    pub(crate) fn fingerprint(&self) -> Option<[u8; 32]> {
        let certificates = self.tls.as_ref()?.peer_certificates()?;
        certificates.first().map(fingerprint::of)
    }

    /// Nothing waits, here or in the session.
    pub(crate) fn is_drained(&self) -> bool {
        self.waiting.is_empty() && !self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    pub(crate) fn queue(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            if self.waiting.capacity() == 0 {
                // Most connections never have more than one piece at a time.
                self.waiting.reserve_exact(1);
            }
            self.waiting.push_back(bytes);
        }
    }

    /// What waits, if it is one piece and goes out as it is.
    pub(crate) fn only_piece(&self) -> Option<&Bytes> {
        if self.tls.is_some() || self.waiting.len() != 1 { None } else { self.waiting.front() }
    }

    /// So many octets of what waits are with the kernel.
    pub(crate) fn taken(&mut self, bytes: usize) {
        consume(&mut self.waiting, bytes);
    }

    /// The same with several pieces, none of them empty.
    pub(crate) fn queue_all(&mut self, pieces: VecDeque<Bytes>) {
        if self.waiting.is_empty() {
            self.waiting = pieces;
        } else {
            self.waiting.extend(pieces);
        }
    }

    /// Says goodbye in the session, if there is one, once everything queued is in it; it leaves with the next
    /// [`Transport::write`].
    pub(crate) fn farewell(&mut self) {
        match &mut self.tls {
            Some(tls) if self.waiting.is_empty() && !self.said_farewell => {
                self.said_farewell = true;
                tls.send_close_notify();
            }
            _ => {}
        }
    }

    /// One read, and whether there may be more; `Ok(None)` when nothing is there now. An empty piece means progress
    /// without content (handshake).
    pub(crate) fn read(&mut self, arena: &mut BytesMut) -> Result<Option<(Bytes, bool)>, End> {
        match &mut self.tls {
            None => read_plain(&self.stream, arena),
            Some(tls) => Ok(read_session(&self.stream, tls, arena)?.map(|bytes| (bytes, true))),
        }
    }

    /// Writes what the kernel takes; how many octets of [`Transport::queue`] are with it now, and whether it would
    /// take more.
    pub(crate) fn write(&mut self) -> Result<(usize, bool), End> {
        match &mut self.tls {
            None => write_plain(&self.stream, &mut self.waiting),
            Some(tls) => write_session(&self.stream, tls, &mut self.waiting, &mut self.inside),
        }
    }
}

fn read_plain(stream: &TcpStream, arena: &mut BytesMut) -> Result<Option<(Bytes, bool)>, End> {
    arena.reserve(READ_BYTES);
    let spare = arena.spare_capacity_mut();
    let room = spare.len();
    match receive(stream, spare) {
        Ok(0) => Err(End::Closed),
        Ok(n) => {
            // SAFETY: recv(2) has written the first `n` octets of the spare room.
            unsafe { arena.advance_mut(n) };
            Ok(Some((share_or_copy(arena), n == room)))
        }
        Err(error) => nothing_or_reset(&error).map(|()| None),
    }
}

fn receive(stream: &TcpStream, into: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
    SockRef::from(stream).recv(into)
}

/// Takes all of the arena: shared when it is much, copied (and the arena used again) when it is little.
fn share_or_copy(arena: &mut BytesMut) -> Bytes {
    if arena.len() > COPY_BYTES_MAX {
        return arena.split().freeze();
    }
    let copy = Bytes::copy_from_slice(arena);
    arena.clear();
    copy
}

fn read_session(
    stream: &TcpStream,
    tls: &mut Connection,
    arena: &mut BytesMut,
) -> Result<Option<Bytes>, End> {
    let ended = match tls.read_tls(&mut &*stream) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => return nothing_or_reset(&error).map(|()| None),
    };
    let handshaking = tls.is_handshaking();
    let Ok(state) = tls.process_new_packets() else {
        // The alert is worth a try; the connection is over either way.
        let _ = tls.write_tls(&mut &*stream);
        return Err(End::Tls);
    };
    let plain = state.plaintext_bytes_to_read();
    if plain > 0 {
        let start = arena.len();
        arena.resize(start + plain, 0);
        let n = tls.reader().read(&mut arena[start..]).map_err(|_| End::Tls)?;
        arena.truncate(start + n);
        return Ok(Some(share_or_copy(arena)));
    }
    if state.peer_has_closed() {
        return Err(End::Closed);
    }
    if ended {
        // Truncated: no close_notify. Messages have their own ends, so it is a close all the same.
        return Err(if handshaking { End::Tls } else { End::Closed });
    }
    Ok(Some(Bytes::new()))
}

fn write_plain(stream: &TcpStream, waiting: &mut VecDeque<Bytes>) -> Result<(usize, bool), End> {
    let mut total = 0;
    while let Some(first) = waiting.front() {
        let written =
            if waiting.len() == 1 { (&mut &*stream).write(first) } else { write_parts(stream, waiting) };
        match written {
            Ok(n) => {
                total += n;
                consume(waiting, n);
            }
            Err(error) => {
                nothing_or_reset(&error)?;
                return Ok((total, false));
            }
        }
    }
    // An idle connection holds little.
    if waiting.capacity() > WAITING_KEPT {
        *waiting = VecDeque::new();
    }
    Ok((total, true))
}

fn write_parts(stream: &TcpStream, waiting: &VecDeque<Bytes>) -> io::Result<usize> {
    let mut parts = [IoSlice::new(&[]); PARTS_MAX];
    let mut count = 0;
    for (part, bytes) in parts.iter_mut().zip(waiting) {
        *part = IoSlice::new(bytes);
        count += 1;
    }
    (&mut &*stream).write_vectored(&parts[..count])
}

fn write_session(
    stream: &TcpStream,
    tls: &mut Connection,
    waiting: &mut VecDeque<Bytes>,
    inside: &mut usize,
) -> Result<(usize, bool), End> {
    let mut total = 0;
    loop {
        while !tls.is_handshaking() {
            let Some(first) = waiting.front_mut() else { break };
            let n = tls.writer().write(first).map_err(|_| End::Tls)?;
            if n == 0 {
                break; // the session is full until the kernel takes some
            }
            *inside += n;
            consume(waiting, n);
        }
        if !tls.wants_write() {
            break;
        }
        while tls.wants_write() {
            if let Err(error) = tls.write_tls(&mut &*stream) {
                nothing_or_reset(&error)?;
                return Ok((total, false));
            }
        }
        total += std::mem::take(inside);
        if waiting.is_empty() {
            break;
        }
    }
    Ok((total, true))
}

fn consume(waiting: &mut VecDeque<Bytes>, mut n: usize) {
    while let Some(first) = waiting.front_mut() {
        if n < first.len() {
            first.advance(n);
            return;
        }
        n -= first.len();
        waiting.pop_front();
        if n == 0 {
            return;
        }
    }
}

fn nothing_or_reset(error: &io::Error) -> Result<(), End> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(()),
        _ => Err(End::Reset),
    }
}
