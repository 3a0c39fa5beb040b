//! The datagram sockets of a ring: their receives, what ends those, and their peers.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::sends::To;
use super::{Core, user};
use crate::batch::Item;
use crate::driver::{DriverConfig, Tally};
use crate::ring::{Completion, Ring, named};
use crate::sys;

/// A receive that fails this often in a row for no known reason is left alone.
const FAILURES_MAX: u8 = 16;
/// Datagrams taken by recvfrom when a socket settles; with more, it settles later.
const DRAIN_MAX: usize = 64;

/// How a socket receives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Receive {
    /// Each datagram with its source.
    Named,
    /// The datagram alone: all are from the peer.
    Plain,
    /// Being cancelled; was plain or not.
    Ending { plain: bool },
    /// Begun again at the next poll.
    Ended,
}

#[derive(Debug)]
struct Datagrams {
    socket: UdpSocket,
    file: u32,
    serial: u32,
    receive: Receive,
    to: Option<SocketAddr>,
    exclusive: bool,
    /// Nothing can be queued any more that is not from the peer.
    settled: bool,
    settle_at: Option<Instant>,
    failures: u8,
    /// The kernel cuts what leaves together.
    gso: bool,
}

/// All datagram sockets of a driver.
#[derive(Debug)]
pub(super) struct Sockets {
    table: Vec<Option<Datagrams>>,
    free: Vec<u32>,
    serial: u32,
    ended: Vec<u32>,
    settling: VecDeque<(Instant, u32)>,
    drained: VecDeque<Item>,
    settle: Duration,
    max: usize,
}

impl Sockets {
    pub(super) fn new(config: &DriverConfig) -> Self {
        Sockets {
            table: Vec::new(),
            free: Vec::new(),
            serial: 0,
            ended: Vec::new(),
            settling: VecDeque::new(),
            drained: VecDeque::new(),
            settle: Duration::from_millis(config.settle_ms),
            max: config.sockets_max,
        }
    }

    pub(super) fn open(&mut self, socket: UdpSocket, core: &mut Core) -> io::Result<u32> {
        if self.free.is_empty() && self.table.len() >= self.max {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        socket.set_nonblocking(true)?;
        let file = core.take_file()?;
        core.ring.set_file(file, &socket)?;
        let index = self.free.pop().unwrap_or_else(|| {
            self.table.push(None);
            (self.table.len() - 1) as u32
        });
        self.serial = (self.serial + 1) & 0xff_ffff;
        let opened = Datagrams {
            socket,
            file,
            serial: self.serial,
            receive: Receive::Named,
            to: None,
            exclusive: false,
            settled: false,
            settle_at: None,
            failures: 0,
            gso: true,
        };
        core.ring.receive_named(file, user::pack(user::DATAGRAM, self.serial, index))?;
        if let Some(place) = self.table.get_mut(index as usize) {
            *place = Some(opened);
        }
        Ok(index)
    }

    pub(super) fn close(&mut self, index: u32, core: &mut Core) {
        // What was sent by it leaves by it, before its file's place in the table may be another's.
        let _ = core.enter(0, None);
        let Some(closed) = self.table.get_mut(index as usize).and_then(Option::take) else { return };
        // The port is free when the receive has ended, which holds the socket: at the next enter.
        let _ = core.ring.cancel(
            user::pack(user::DATAGRAM, closed.serial, index),
            user::pack(user::CANCEL, closed.serial, index),
        );
        core.release_file(closed.file);
        self.free.push(index);
    }

    pub(super) fn aim(
        &mut self,
        index: u32,
        to: Option<SocketAddr>,
        exclusive: bool,
        core: &mut Core,
    ) -> io::Result<()> {
        let Some(socket) = self.table.get_mut(index as usize).and_then(Option::as_mut) else {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        };
        let exclusive = exclusive && to.is_some();
        if socket.to == to && socket.exclusive == exclusive {
            return Ok(());
        }
        if socket.exclusive {
            // What was sent goes to whom it was meant for.
            core.enter(0, None)?;
            // From here on a plain receive would not know whom its datagram is from.
            socket.settled = false;
            socket.settle_at = None;
            end_receive(socket, index, core, Receive::Plain)?;
            sys::dissolve(&socket.socket)?;
            socket.exclusive = false;
        }
        socket.to = to;
        if let (Some(to), true) = (to, exclusive) {
            socket.socket.connect(to)?;
            socket.exclusive = true;
            let at = Instant::now() + self.settle;
            socket.settle_at = Some(at);
            self.settling.push_back((at, index));
        }
        Ok(())
    }

    /// What a send by a connected socket goes to.
    #[inline]
    pub(super) fn connected(&self, index: u32) -> Option<To> {
        match self.table.get(index as usize) {
            Some(Some(socket)) if socket.exclusive => {
                Some(To { socket: index, serial: socket.serial, file: socket.file, gso: socket.gso })
            }
            _ => None,
        }
    }

    /// Datagrams that left together did not leave. The next ones go one by one, unless this will pass.
    pub(super) fn refused_together(&mut self, index: u32, count: u32, errno: i32, tally: &mut Tally) {
        (0..count).for_each(|_| tally.send_error(errno));
        let passing = [libc::EAGAIN, libc::ENOBUFS, libc::ENOMEM, libc::ECONNREFUSED];
        if let (false, Some(Some(socket))) = (passing.contains(&errno), self.table.get_mut(index as usize)) {
            socket.gso = false;
        }
    }

    pub(super) fn send_by_address(&self, index: u32, bytes: &[u8], tally: &mut Tally) {
        let Some(Some(Datagrams { socket, to: Some(to), .. })) = self.table.get(index as usize) else {
            tally.send_failed += 1;
            return;
        };
        if let Err(error) = socket.send_to(bytes, to) {
            tally.send_error(error.raw_os_error().unwrap_or(0));
        }
    }

    /// What a completion of a receive means. Its buffer stays in use only for an [`Item::Datagram`].
    pub(super) fn received(
        &mut self,
        ring: &Ring,
        completion: Completion,
        serial: u32,
        index: u32,
        tally: &mut Tally,
    ) -> Option<Item> {
        let socket = self.table.get_mut(index as usize)?.as_mut()?;
        if socket.serial != serial {
            return None;
        }
        let receive = socket.receive;
        if !completion.more {
            socket.receive = Receive::Ended;
            self.ended.push(index);
        }
        if completion.result < 0 {
            return socket.failed(-completion.result, index, tally);
        }
        socket.failures = 0;
        let length = completion.result as usize;
        let plain = match receive {
            Receive::Plain => true,
            Receive::Ending { plain: true } => {
                tally.unnamed += 1; // its source may have been anybody's since the socket was dissolved
                return None;
            }
            _ => false,
        };
        if plain {
            let from = socket.to?;
            // An empty datagram ends a plain receive and may come without a buffer.
            let Some(buffer) = completion.buffer.filter(|_| length > 0) else {
                return Some(Item::Loose { socket: index, from, bytes: Bytes::new() });
            };
            // A plain receive does not say that it cut something off; a full buffer does.
            if length >= ring.config().buffer_bytes as usize {
                tally.truncated += 1;
                return None;
            }
            return Some(Item::Datagram { socket: index, from, buffer, start: 0, length: length as u16 });
        }
        let buffer = completion.buffer?;
        let Some(head) = named(ring.received(buffer, length)) else {
            tally.unnamed += 1;
            return None;
        };
        if head.truncated {
            tally.truncated += 1;
            return None;
        }
        let (start, length) = (head.start as u16, head.length as u16);
        Some(Item::Datagram { socket: index, from: head.from, buffer, start, length })
    }

    /// Begins ended receives again, in the way that each socket wants now; whether there were any.
    pub(super) fn rearm(&mut self, core: &mut Core, tally: &mut Tally) -> io::Result<bool> {
        let any = !self.ended.is_empty();
        while let Some(index) = self.ended.pop() {
            let Some(Some(socket)) = self.table.get_mut(index as usize) else { continue };
            if socket.receive != Receive::Ended || socket.failures >= FAILURES_MAX {
                continue;
            }
            let user = user::pack(user::DATAGRAM, socket.serial, index);
            if socket.settled && drain(socket, index, &mut self.drained, tally) {
                core.ring.receive(socket.file, user)?;
                socket.receive = Receive::Plain;
            } else {
                core.ring.receive_named(socket.file, user)?;
                socket.receive = Receive::Named;
                if std::mem::take(&mut socket.settled) {
                    let at = Instant::now() + self.settle;
                    socket.settle_at = Some(at);
                    self.settling.push_back((at, index));
                }
            }
        }
        Ok(any)
    }

    /// Turns sockets that have been connected for long enough to plain receives.
    pub(super) fn settle(&mut self, now: Instant, core: &mut Core, tally: &mut Tally) {
        while let Some((at, index)) = self.settling.pop_front_if(|(at, _)| *at <= now) {
            let Some(Some(socket)) = self.table.get_mut(index as usize) else { continue };
            if socket.settle_at != Some(at) || !socket.exclusive {
                continue;
            }
            socket.settle_at = None;
            socket.settled = true;
            if end_receive(socket, index, core, Receive::Named).is_err() {
                tally.rearmed += 1;
            }
        }
    }

    pub(super) fn has_due(&self) -> bool {
        !self.settling.is_empty()
    }

    pub(super) fn until_due(&self, now: Instant) -> Option<Duration> {
        self.settling.front().map(|(at, _)| at.saturating_duration_since(now))
    }

    /// Receives wait to be begun again.
    pub(super) fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Nothing is to be taken or begun again.
    pub(super) fn quiet(&self) -> bool {
        self.ended.is_empty() && self.drained.is_empty()
    }

    /// What was read while receives changed; all of it, so that its order holds.
    pub(super) fn take_drained(&mut self, batch: &mut Vec<Item>) {
        batch.extend(self.drained.drain(..));
    }
}

impl Datagrams {
    fn failed(&mut self, errno: i32, index: u32, tally: &mut Tally) -> Option<Item> {
        match errno {
            libc::ECANCELED => None,
            libc::ENOBUFS => {
                tally.starved += 1;
                None
            }
            libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EHOSTDOWN | libc::EPROTO => {
                tally.rearmed += 1;
                Some(Item::Unreachable { socket: index })
            }
            _ => {
                tally.rearmed += 1;
                self.failures += 1;
                None
            }
        }
    }
}

/// Cancels a receive of the given kind; it is begun again when its end has been seen.
fn end_receive(socket: &mut Datagrams, index: u32, core: &mut Core, kind: Receive) -> io::Result<()> {
    if socket.receive == kind {
        let user = user::pack(user::DATAGRAM, socket.serial, index);
        core.ring.cancel(user, user::pack(user::CANCEL, socket.serial, index))?;
        socket.receive = Receive::Ending { plain: kind == Receive::Plain };
    }
    Ok(())
}

/// Takes what waits with its sources; true when nothing was left.
fn drain(socket: &Datagrams, index: u32, into: &mut VecDeque<Item>, tally: &mut Tally) -> bool {
    let mut buffer = [0; 2048];
    for _ in 0..DRAIN_MAX {
        match socket.socket.recv_from(&mut buffer) {
            Ok((n, from)) if n < buffer.len() => {
                let bytes = Bytes::copy_from_slice(&buffer[..n]);
                into.push_back(Item::Loose { socket: index, from, bytes });
            }
            Ok(_) => tally.truncated += 1,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            Err(_) => into.push_back(Item::Unreachable { socket: index }),
        }
    }
    false
}
