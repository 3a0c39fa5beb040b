//! The io_uring driver: one ring per shard, multishot receives into ring-mapped buffers, connected sockets, plain
//! SEND, readiness for streams.
//!
//! A receive on a socket goes through these states:
//!
//! ```text
//!   open()/re-aim                aim(exclusive) + settle_ms
//!      Named ───────────────────────────► cancel ──► Ending ──ended──► drain by recvfrom ──► Plain
//!        ▲                                                                                     │
//!        └───────────────ended── Ending ◄── cancel ◄── re-aim ─────────────────────────────────┘
//! ```
//!
//! Named receives tell the source of each datagram (recvmsg, which takes 44 octets of the buffer); plain ones are
//! cheaper and are used only where the kernel has refused every other source for a while. Whatever ends a receive
//! (an ICMP error, an empty datagram, no buffer left, truncation does not) it is begun again at the next poll: a
//! stranger can cause all of them.

mod sends;
mod sockets;

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::batch::Item;
use crate::driver::{Driver, DriverConfig, Event, SLOTS, Tally};
use crate::ring::{Completion, Place, Ring, RingConfig};
use crate::stream::{Key, Registry, Streams};
use crate::tls::Tls;
use crate::{Wake, sys};
use sends::Sends;
use sockets::Sockets;

const POLL_STREAM: u32 = (libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP) as u32;

/// What a completion is about, packed into 64 bits: kind (8), serial (24), index (32).
mod user {
    pub(super) const DATAGRAM: u64 = 1;
    pub(super) const SEND: u64 = 2;
    pub(super) const STREAM: u64 = 3;
    pub(super) const LISTENER: u64 = 4;
    pub(super) const WAKE: u64 = 5;
    pub(super) const CANCEL: u64 = 6;
    /// What a stream has taken.
    pub(super) const WRITTEN: u64 = 8;
    /// Several datagrams together; the serial's place holds how many.
    pub(super) const TOGETHER: u64 = 7;

    pub(super) const fn pack(kind: u64, serial: u32, index: u32) -> u64 {
        kind << 56 | (serial as u64 & 0xff_ffff) << 32 | index as u64
    }

    pub(super) const fn parts(user: u64) -> (u64, u32, u32) {
        (user >> 56, (user >> 32 & 0xff_ffff) as u32, user as u32)
    }
}

/// The driver.
#[derive(Debug)]
pub struct Uring {
    core: Core,
    sockets: Sockets,
    streams: Streams,
    wake: Wake,
    batch: Vec<Item>,
    done: Vec<Completion>,
    tally: Tally,
    config: DriverConfig,
}

/// The ring with what is counted by enters.
#[derive(Debug)]
struct Core {
    ring: Ring,
    /// Registered files that are free.
    files: Vec<u32>,
    files_used: u32,
    /// Send slots used since the last enter.
    slots: u16,
    sends: Sends,
}

impl Core {
    fn take_file(&mut self) -> io::Result<u32> {
        if let Some(file) = self.files.pop() {
            return Ok(file);
        }
        if self.files_used >= self.ring.config().files {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        self.files_used += 1;
        Ok(self.files_used - 1)
    }

    /// Everything that waits leaves.
    fn enter(&mut self, want: u32, wait: Option<Duration>) -> io::Result<()> {
        self.enter_gathering(want, 0, wait)
    }

    fn enter_gathering(&mut self, want: u32, gather_us: u32, wait: Option<Duration>) -> io::Result<()> {
        let flushed = self.sends.flush(&mut self.ring);
        self.ring.enter_gathering(want, gather_us, wait)?;
        self.slots = 0;
        self.sends.entered();
        flushed
    }

    fn take_slot(&mut self) -> io::Result<u16> {
        if self.slots >= SLOTS || self.ring.room() == 0 {
            self.enter(0, None)?;
        }
        self.slots += 1;
        Ok(self.slots - 1)
    }

    fn release_file(&mut self, file: u32) {
        // What is still to be submitted names files by number: it must not meet the number's next owner.
        if !self.ring.is_submitted() {
            let _ = self.enter(0, None);
        }
        let _ = self.ring.clear_file(file);
        if self.ring.is_submitted() {
            self.files.push(file);
        }
    }
}

impl Registry for Core {
    fn send(&mut self, file: u32, bytes: &Bytes, key: Key) -> bool {
        let Key::Conn { slot, serial } = key else { return false };
        self.ring.send_shared(file, bytes, user::pack(user::WRITTEN, serial, slot)).is_ok()
    }

    fn watch(&mut self, descriptor: BorrowedFd<'_>, key: Key) -> io::Result<u32> {
        let file = self.take_file()?;
        self.ring.set_file(file, &descriptor)?;
        self.ring.poll(file, POLL_STREAM, stream_user(key))?;
        Ok(file)
    }

    fn unwatch(&mut self, file: u32, _: BorrowedFd<'_>, key: Key) {
        // The poll holds the socket until it ends.
        let _ = self.ring.cancel(stream_user(key), user::pack(user::CANCEL, 0, 0));
        self.release_file(file);
    }
}

fn stream_user(key: Key) -> u64 {
    match key {
        Key::Listener(index) => user::pack(user::LISTENER, 0, index),
        Key::Conn { slot, serial } => user::pack(user::STREAM, serial, slot),
    }
}

impl Uring {
    /// Makes the driver of the calling thread. `EPERM`, `ENOSYS` or `EACCES` mean that the host forbids io_uring.
    pub fn new(config: &DriverConfig) -> io::Result<Self> {
        // The kernel takes no larger table of files than the descriptor limit.
        let descriptors = sys::descriptor_limit().map_or(1024, |(soft, _)| soft);
        let wanted = config.sockets_max + config.connections_max + 64;
        let files =
            u32::try_from(wanted as u64).unwrap_or(u32::MAX).min(u32::try_from(descriptors).unwrap_or(1024));
        let ring = Ring::new(RingConfig {
            submissions: 1024,
            completions: 4096,
            buffers: config.buffers,
            buffer_bytes: config.buffer_bytes,
            slots: SLOTS,
            slot_bytes: config.buffer_bytes,
            files,
        })?;
        let mut core =
            Core { ring, files: Vec::new(), files_used: 0, slots: 0, sends: Sends::new(config.gso) };
        let wake = Wake::new()?;
        let file = core.take_file()?;
        core.ring.set_file(file, &wake)?;
        core.ring.poll(file, libc::POLLIN as u32, user::pack(user::WAKE, 0, file))?;
        Ok(Uring {
            core,
            sockets: Sockets::new(config),
            streams: Streams::new(config),
            wake,
            batch: Vec::with_capacity(config.batch_max + 16),
            done: Vec::with_capacity(config.batch_max.max(1)),
            tally: Tally::default(),
            config: config.clone(),
        })
    }

    /// Submits what is queued, frees the buffers of the last batch. True: it has waited too, because nothing else was
    /// to be done.
    fn finish_batch(&mut self, wait: Option<Duration>) -> io::Result<bool> {
        self.streams.flush(&mut self.core, &mut self.tally);
        let mut waited = false;
        if self.core.sends.queued() > 0 || !self.core.ring.idle() {
            // What leaves, and the sleep after it, by one system call.
            waited = self.config.spin_us == 0
                && wait != Some(Duration::ZERO)
                && self.sockets.quiet()
                && !self.streams.busy()
                && !self.core.ring.ready();
            if waited {
                self.sleep(wait, Instant::now())?;
            } else {
                self.core.enter(0, None)?;
            }
        }
        for item in self.batch.drain(..) {
            if let Item::Datagram { buffer, .. } = item {
                self.core.ring.recycle(buffer);
            }
        }
        // After the buffers, or a receive that ended for want of them would end at once again.
        if self.sockets.rearm(&mut self.core, &mut self.tally)? {
            self.core.enter(0, None)?;
        }
        Ok(waited)
    }

    /// Sleeps until there is something, after a moment of looking.
    fn wait(&mut self, wait: Option<Duration>) -> io::Result<()> {
        let now = Instant::now();
        if self.config.spin_us > 0 && wait != Some(Duration::ZERO) {
            let end = now + Duration::from_micros(u64::from(self.config.spin_us));
            while Instant::now() < end {
                if self.core.ring.ready() {
                    return self.core.enter(0, None);
                }
                std::hint::spin_loop();
            }
        }
        self.sleep(wait, now)
    }

    fn sleep(&mut self, wait: Option<Duration>, now: Instant) -> io::Result<()> {
        let deadlines = [wait, self.streams.until_deadline(now), self.sockets.until_due(now)];
        match deadlines.into_iter().flatten().min() {
            Some(Duration::ZERO) => self.core.enter(0, None),
            least => {
                self.tally.sleeps += 1;
                match self.config.gather_us {
                    0 => self.core.enter(1, least),
                    us => self.core.enter_gathering(self.config.batch_max as u32, us, least),
                }
            }
        }
    }

    /// What there is without waiting. What was drained came before what the receive that followed has.
    fn gather(&mut self) {
        self.sockets.take_drained(&mut self.batch);
        self.take_completions();
    }

    fn take_completions(&mut self) {
        self.core.ring.completions(&mut self.done);
        for index in 0..self.done.len() {
            let completion = self.done[index];
            let (kind, serial, at) = user::parts(completion.user);
            match kind {
                user::DATAGRAM => self.datagram(completion, serial, at),
                user::SEND => self.tally.send_error(-completion.result),
                user::TOGETHER => {
                    self.sockets.refused_together(at, serial, -completion.result, &mut self.tally)
                }
                user::STREAM => self.readiness(completion, Key::Conn { slot: at, serial }),
                user::WRITTEN => self.streams.written(Key::Conn { slot: at, serial }, completion.result),
                user::LISTENER => self.readiness(completion, Key::Listener(at)),
                user::WAKE => {
                    self.wake.drain();
                    self.batch.push(Item::Woken);
                    if !completion.more {
                        let _ = self.core.ring.poll(at, libc::POLLIN as u32, completion.user);
                    }
                }
                _ => {}
            }
        }
        self.done.clear();
    }

    fn readiness(&mut self, completion: Completion, key: Key) {
        let events = completion.result;
        if events < 0 {
            return; // cancelled
        }
        let bad = i32::from(libc::POLLERR | libc::POLLHUP | libc::POLLRDHUP);
        let ended = events & bad != 0;
        let readable = events & i32::from(libc::POLLIN) != 0;
        let writable = events & i32::from(libc::POLLOUT) != 0;
        self.streams.ready(key, readable, writable, ended);
        if !completion.more
            && let Some(file) = self.streams.file(key)
        {
            let _ = self.core.ring.poll(file, POLL_STREAM, completion.user);
        }
    }

    fn datagram(&mut self, completion: Completion, serial: u32, at: u32) {
        let item = self.sockets.received(&self.core.ring, completion, serial, at, &mut self.tally);
        let in_buffer = matches!(item, Some(Item::Datagram { .. }));
        self.batch.extend(item);
        if let (false, Some(buffer)) = (in_buffer, completion.buffer) {
            self.core.ring.recycle(buffer);
        }
    }

    fn pushed(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.tally.send_error(error.raw_os_error().unwrap_or(0));
        }
    }
}

impl Driver for Uring {
    fn name(&self) -> &'static str {
        "uring"
    }

    fn open(&mut self, socket: UdpSocket) -> io::Result<u32> {
        self.sockets.open(socket, &mut self.core)
    }

    fn close(&mut self, socket: u32) {
        self.sockets.close(socket, &mut self.core);
    }

    fn aim(&mut self, socket: u32, to: Option<SocketAddr>, exclusive: bool) -> io::Result<()> {
        self.sockets.aim(socket, to, exclusive, &mut self.core)
    }

    fn listen(&mut self, listener: TcpListener, tls: Option<Tls>) -> io::Result<()> {
        self.streams.listen(listener, tls, &mut self.core)
    }

    fn dial(&mut self, dial: u64, to: SocketAddr, tls: Option<Tls>) {
        self.streams.dial(dial, to, tls, &mut self.core);
    }

    fn poll(&mut self, wait: Option<Duration>) -> io::Result<usize> {
        let waited = self.finish_batch(wait)?;
        self.gather();
        if self.batch.is_empty() && self.sockets.has_ended() {
            // Nobody sleeps beside a socket that does not receive.
            self.sockets.rearm(&mut self.core, &mut self.tally)?;
            self.core.enter(0, None)?;
            self.gather();
        }
        if self.batch.is_empty() && !waited && !self.streams.busy() && !self.sockets.has_ended() {
            self.wait(wait)?;
            self.take_completions();
        }
        if self.sockets.has_due() || self.streams.has_deadline() {
            let now = Instant::now();
            self.sockets.settle(now, &mut self.core, &mut self.tally);
            self.streams.expire(now, &mut self.core, &mut self.tally);
        }
        while self.batch.len() < self.config.batch_max {
            let Some(happening) = self.streams.next(&mut self.core, &mut self.tally) else { break };
            self.batch.push(Item::Stream(happening));
        }
        self.tally.batches += u64::from(!self.batch.is_empty());
        self.tally.events += self.batch.len() as u64;
        self.core.sends.begin(self.batch.len());
        Ok(self.batch.len())
    }

    fn event(&self, index: usize) -> Event<'_> {
        match self.batch.get(index) {
            Some(Item::Datagram { socket, from, buffer, start, length }) => {
                let bytes = self.core.ring.received(*buffer, usize::from(*start) + usize::from(*length));
                Event::Datagram {
                    socket: *socket,
                    from: *from,
                    bytes: bytes.get(usize::from(*start)..).unwrap_or_default(),
                }
            }
            Some(item) => item.event(),
            None => Event::Woken,
        }
    }

    fn forward(&mut self, index: usize, socket: u32) {
        match self.batch.get(index) {
            Some(Item::Datagram { buffer, start, length, .. }) => {
                let Some(to) = self.sockets.connected(socket) else {
                    let bytes = self.core.ring.received(*buffer, usize::from(*start) + usize::from(*length));
                    let bytes = bytes.get(usize::from(*start)..).unwrap_or_default();
                    return self.sockets.send_by_address(socket, bytes, &mut self.tally);
                };
                let place = Place::Received { buffer: *buffer, start: *start };
                let done = self.core.sends.send(&mut self.core.ring, to, place, u32::from(*length));
                self.pushed(done);
            }
            Some(item) => {
                if let Some(bytes) = item.bytes() {
                    self.send(socket, &bytes);
                }
            }
            None => {}
        }
    }

    fn forward_patched(&mut self, index: usize, socket: u32, head: &[u8]) {
        match self.batch.get(index) {
            Some(Item::Datagram { buffer, start, length, .. }) => {
                let (buffer, part) = (*buffer, (u32::from(*start), u32::from(*length)));
                let Ok(slot) = self.core.take_slot() else { return };
                let length = self.core.ring.patch(slot, buffer, part, head);
                self.send_slot(socket, slot, length);
            }
            Some(item) => {
                if let Some(bytes) = item.bytes() {
                    let mut whole = bytes.to_vec();
                    let n = head.len().min(whole.len());
                    whole[..n].copy_from_slice(&head[..n]);
                    self.send(socket, &whole);
                }
            }
            None => {}
        }
    }

    fn send(&mut self, socket: u32, bytes: &[u8]) {
        let Ok(slot) = self.core.take_slot() else { return };
        let room = self.core.ring.slot(slot);
        let Some(target) = room.get_mut(..bytes.len()) else {
            self.tally.send_too_long += 1;
            return;
        };
        target.copy_from_slice(bytes);
        self.send_slot(socket, slot, bytes.len() as u32);
    }

    fn queued(&self) -> usize {
        self.core.sends.queued()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.core.enter(0, None)
    }

    fn write(&mut self, conn: u64, bytes: Bytes) {
        self.streams.write(conn, bytes);
    }

    fn write_all(&mut self, conn: u64, pieces: VecDeque<Bytes>) {
        self.streams.write_all(conn, pieces);
    }

    fn pause(&mut self, conn: u64) {
        self.streams.pause(conn);
    }

    fn resume(&mut self, conn: u64) {
        self.streams.resume(conn);
    }

    fn shut(&mut self, conn: u64, abort: bool) {
        self.streams.shut(conn, abort, &mut self.core);
    }

    fn wake(&self) -> Wake {
        self.wake.clone()
    }

    fn tally(&self) -> Tally {
        self.tally
    }
}

impl Uring {
    fn send_slot(&mut self, socket: u32, slot: u16, length: u32) {
        match self.sockets.connected(socket) {
            Some(to) => {
                let done = self.core.sends.send(&mut self.core.ring, to, Place::Slot(slot), length);
                self.pushed(done);
            }
            None => {
                let bytes = &self.core.ring.slot(slot)[..length as usize];
                self.sockets.send_by_address(socket, bytes, &mut self.tally);
            }
        }
    }
}
