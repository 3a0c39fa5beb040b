//! The bare loops: the least that these connections can cost, written before the code that they judge.
//!
//! Each accepts as many connections as the measured server has sessions, watches those that may speak, reads with
//! recv, and writes the octets as they came: no framing, no table, no counters. The loops that write several messages
//! at once gather them first, as a server under saturation finds them.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use netio::{Completion, Ring, RingConfig};
use rustls::{Connection, ServerConfig, ServerConnection};

use super::words::{Ends, answer};
use crate::rtp::bare::Running;

/// How long a loop waits before it looks whether it shall stop.
const LOOK: Duration = Duration::from_millis(20);
/// One read takes no more than this.
const READ_BYTES: usize = 64 << 10;

/// A loop over accepted connections; they are the clients' in the order in which these connected.
fn serve(
    core: usize,
    clients: usize,
    body: impl FnOnce(Vec<TcpStream>, &AtomicBool) -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<Running> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let at = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    Running::start(core, vec![at], move |stop| {
        let mut accepted = Vec::with_capacity(clients);
        while accepted.len() < clients {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    stream.set_nodelay(true)?;
                    accepted.push(stream);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    if stop.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    std::thread::sleep(Duration::from_micros(100));
                }
                Err(e) => return Err(e.into()),
            }
        }
        match body(accepted, stop) {
            // The load is over.
            Err(error) if error.downcast_ref::<io::Error>().is_some_and(is_over) => Ok(()),
            other => other,
        }
    })
}

fn is_over(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::BrokenPipe
            | ErrorKind::ConnectionReset
            | ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionAborted
    )
}

/// What is there now; `None` when there is nothing.
fn take(mut stream: &TcpStream, into: &mut [u8]) -> io::Result<Option<usize>> {
    match stream.read(into) {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Ok(n) => Ok(Some(n)),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Writes all of it; where the kernel is full, which the loads' windows do not let happen often, others run first.
fn put(mut stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Watches some of the connections and hands over each that is readable; edges, so each is read until it is empty.
fn watch(
    streams: &[TcpStream],
    watched: &[usize],
    stop: &AtomicBool,
    mut readable: impl FnMut(usize) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut poll = mio::Poll::new()?;
    for index in watched {
        let stream = streams.get(*index).context("stream")?;
        stream.set_nonblocking(true)?;
        let descriptor = stream.as_raw_fd();
        let mut source = mio::unix::SourceFd(&descriptor);
        poll.registry().register(&mut source, mio::Token(*index), mio::Interest::READABLE)?;
    }
    let mut events = mio::Events::with_capacity(1024);
    while !stop.load(Ordering::Relaxed) {
        poll.poll(&mut events, Some(LOOK))?;
        for event in &events {
            readable(event.token().0)?;
        }
    }
    Ok(())
}

/// Reads `piece` octets from the first connection and writes them to all others, one write each.
pub(crate) fn room(clients: usize, piece: usize, core: usize) -> anyhow::Result<Running> {
    serve(core, clients, move |streams, stop| {
        let (source, targets) = streams.split_first().context("no connections")?;
        let all: Vec<usize> = (0..clients).collect();
        let (mut buffer, mut filled) = (vec![0; piece], 0);
        watch(&streams, &all, stop, |_| {
            while let Some(n) = take(source, &mut buffer[filled..])? {
                filled += n;
                if filled == piece {
                    targets.iter().try_for_each(|target| put(target, &buffer))?;
                    filled = 0;
                }
            }
            Ok(())
        })
    })
}

/// The same with a ring: readiness by multishot polls, one SEND for each target, all submitted by one enter.
pub(crate) fn room_uring(clients: usize, piece: usize, core: usize) -> anyhow::Result<Running> {
    serve(core, clients, move |streams, stop| {
        let (source, _) = streams.split_first().context("no connections")?;
        let files = u32::try_from(clients)?;
        let octets = u32::try_from(piece)?;
        let config = RingConfig { files, buffers: 2, slots: 1, slot_bytes: octets, ..RingConfig::default() };
        let mut ring = Ring::new(config)?;
        for (file, stream) in (0..files).zip(&streams) {
            stream.set_nonblocking(true)?;
            ring.set_file(file, stream)?;
            ring.poll(file, libc::POLLIN as u32, u64::from(file))?;
        }
        let (mut buffer, mut filled) = (vec![0; piece], 0);
        let mut done: Vec<Completion> = Vec::with_capacity(256);
        while !stop.load(Ordering::Relaxed) {
            ring.enter(1, Some(LOOK))?;
            ring.completions(&mut done);
            for completion in done.drain(..).filter(|completion| completion.user == 0) {
                while let Some(n) = take(source, &mut buffer[filled..])? {
                    filled += n;
                    if filled == piece {
                        // The sends of the piece before are done: an enter stands between them and this.
                        ring.slot(0)[..piece].copy_from_slice(&buffer);
                        (1..files).try_for_each(|file| ring.send_slot(file, 0, octets, u64::MAX))?;
                        ring.enter(0, None)?;
                        filled = 0;
                    }
                }
                if !completion.more {
                    ring.poll(0, libc::POLLIN as u32, 0)?;
                }
            }
        }
        Ok(())
    })
}

/// Connection 2i is read, and what came is written to connection 2i + 1. With `answers` each piece is answered with as
/// many octets as a 200 has, and the target's answers are read.
pub(crate) fn relay(clients: usize, answers: bool, core: usize) -> anyhow::Result<Running> {
    serve(core, clients, move |streams, stop| {
        let watched: Vec<usize> = (0..clients).filter(|index| answers || index % 2 == 0).collect();
        let said = answer(b"0000000000000000Wb3h", &Ends::blank(0))?;
        streams.iter().try_for_each(|stream| stream.set_nonblocking(true))?;
        let mut buffer = vec![0; READ_BYTES];
        watch(&streams, &watched, stop, |index| {
            let (from, to) = (streams.get(index).context("from")?, streams.get(index ^ 1).context("to")?);
            while let Some(n) = take(from, &mut buffer)? {
                if index % 2 == 0 {
                    put(to, &buffer[..n])?;
                    if answers {
                        put(from, &said)?;
                    }
                }
            }
            Ok(())
        })
    })
}

/// Reads at most `piece` octets from the first connection, writes them to the second, and so on.
pub(crate) fn stream(piece: usize, core: usize) -> anyhow::Result<Running> {
    serve(core, 2, move |streams, stop| {
        let [mut from, mut to] = [streams.first().context("from")?, streams.get(1).context("to")?];
        from.set_read_timeout(Some(LOOK))?;
        let mut buffer = vec![0; piece];
        while !stop.load(Ordering::Relaxed) {
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => to.write_all(&buffer[..n])?,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    })
}

/// The room with TLS on every connection: decrypted once, encrypted for each target.
pub(crate) fn room_tls(
    clients: usize,
    piece: usize,
    server: &Arc<ServerConfig>,
    core: usize,
) -> anyhow::Result<Running> {
    let server = Arc::clone(server);
    serve(core, clients, move |streams, stop| {
        let mut sessions = Vec::with_capacity(clients);
        for mut stream in &streams {
            let mut session = Connection::from(ServerConnection::new(Arc::clone(&server))?);
            while session.is_handshaking() {
                session.complete_io(&mut stream)?;
            }
            sessions.push(session);
        }
        streams.iter().try_for_each(|stream| stream.set_nonblocking(true))?;
        let all: Vec<usize> = (0..clients).collect();
        let (mut buffer, mut filled) = (vec![0; piece], 0);
        watch(&streams, &all, stop, |_| {
            let (mut source, targets) = streams.split_first().context("no connections")?;
            let (own, others) = sessions.split_first_mut().context("no sessions")?;
            loop {
                match own.read_tls(&mut source) {
                    Ok(0) => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
                    Ok(_) => {}
                    Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Err(e) => return Err(e.into()),
                }
                own.process_new_packets()?;
                loop {
                    match own.reader().read(&mut buffer[filled..]) {
                        Ok(0) => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
                        Ok(n) => filled += n,
                        Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                        Err(e) => return Err(e.into()),
                    }
                    if filled == piece {
                        for (session, mut target) in others.iter_mut().zip(targets) {
                            session.writer().write_all(&buffer)?;
                            while session.wants_write() {
                                session.write_tls(&mut target)?;
                            }
                        }
                        filled = 0;
                    }
                }
            }
        })
    })
}
