//! A safe io_uring: one ring of one thread, with the memory that its requests point at.
//!
//! Every address that a request carries lies in a mapping that the ring owns until it is dropped: received
//! datagrams in buffers that the kernel picks from a ring-mapped group, patched ones in send slots. So no caller
//! can hand the kernel memory that goes away, and this API is safe.
//!
//! Sends carry MSG_DONTWAIT: the kernel then neither polls nor queues them, they are done when [`Ring::enter`]
//! returns, and only a failed one posts a completion (IOSQE_CQE_SKIP_SUCCESS). That is what lets one received
//! buffer go to many targets without a count: it is given back after the enter that follows.
//!
//! Deliberately not here: which socket means what, and every trap of the receive side (`uring`).

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use bytes::Bytes;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{BufRingEntry, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};

use crate::gathered::Gathered;
use crate::map::Mapping;

pub use crate::gathered::Place;

/// What a ring is made of. All counts are rounded up to powers of two by the kernel or here.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// Requests that fit before an enter.
    pub submissions: u32,
    /// Completions that fit; more are kept by the kernel, slower.
    pub completions: u32,
    /// Receive buffers. The group is first-in first-out, so all of it passes through the cache.
    pub buffers: u16,
    /// Octets of one receive buffer.
    pub buffer_bytes: u32,
    /// Send slots for datagrams that do not leave as they came.
    pub slots: u16,
    /// Octets of one send slot.
    pub slot_bytes: u32,
    /// Registered files.
    pub files: u32,
}

impl Default for RingConfig {
    fn default() -> Self {
        RingConfig {
            submissions: 1024,
            completions: 4096,
            buffers: 512,
            buffer_bytes: 2048,
            slots: 256,
            slot_bytes: 2048,
            files: 1024,
        }
    }
}

/// Octets that a receive with address puts before the datagram: header, then room for a socket address.
pub const NAMED_HEAD: usize = 16 + NAME_BYTES;
const NAME_BYTES: usize = 28;
const GROUP: u16 = 0;
const GETEVENTS: u32 = 1;
const EXT_ARG: u32 = 8;

/// One completion.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// What the request was given.
    pub user: u64,
    /// Octets or a negative errno.
    pub result: i32,
    /// The receive buffer that was filled; give it back with [`Ring::recycle`].
    pub buffer: Option<u16>,
    /// A multishot request lives on.
    pub more: bool,
}

/// An io_uring with its memory. Not `Send` in spirit: the kernel lets only the thread that made it enter.
pub struct Ring {
    io: IoUring,
    config: RingConfig,
    /// The group's entries; the kernel reads them.
    group: Mapping,
    /// The receive buffers, `buffers * buffer_bytes`.
    receive: Mapping,
    /// The send slots.
    slots: Mapping,
    /// Receive buffers that are ours to read now.
    held: Vec<bool>,
    tail: u16,
    named: Box<libc::msghdr>,
    gathered: Gathered,
    /// What is sent from where it lies, until it was submitted.
    lent: Vec<Bytes>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Ring {
    /// Makes a ring for the calling thread. `EPERM`, `ENOSYS` or `EACCES` mean that the host forbids io_uring.
    pub fn new(config: RingConfig) -> io::Result<Self> {
        let buffers = config.buffers.max(2).next_power_of_two();
        let config = RingConfig { buffers, ..config };
        let io = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(config.completions)
            .build(config.submissions)?;
        if !io.params().is_feature_skip_cqe_on_success() || !io.params().is_feature_ext_arg() {
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        }
        io.submitter().register_files_sparse(config.files.max(1))?;
        let group = Mapping::zeroed(usize::from(buffers) * size_of::<BufRingEntry>())?;
        let receive = Mapping::zeroed(usize::from(buffers) * config.buffer_bytes as usize)?;
        let slots = Mapping::zeroed(usize::from(config.slots.max(1)) * config.slot_bytes as usize)?;
        // SAFETY: `group` is page-aligned, large enough for the entries, and lives until `drop` has unregistered
        // the group (or is leaked there).
        unsafe { io.submitter().register_buf_ring_with_flags(group.address(), buffers, GROUP, 0)? };
        // SAFETY: a msghdr of zeroes is valid: no name, no vectors, no control data.
        let mut named: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        named.msg_namelen = NAME_BYTES as u32;
        let mut ring = Ring {
            io,
            config,
            group,
            receive,
            slots,
            gathered: Gathered::new(),
            lent: Vec::new(),
            held: vec![true; usize::from(buffers)],
            tail: 0,
            named,
        };
        for id in 0..buffers {
            ring.recycle(id);
        }
        ring.publish();
        Ok(ring)
    }

    /// The configuration as it was rounded.
    pub fn config(&self) -> &RingConfig {
        &self.config
    }

    /// Puts a socket into the table of registered files.
    pub fn set_file(&mut self, file: u32, socket: &impl AsFd) -> io::Result<()> {
        self.io.submitter().register_files_update(file, &[socket.as_fd().as_raw_fd()]).map(drop)
    }

    /// Empties an entry of the table; requests in flight keep the socket until they end.
    pub fn clear_file(&mut self, file: u32) -> io::Result<()> {
        self.io.submitter().register_files_update(file, &[-1]).map(drop)
    }

    /// Receives from a connected socket until something ends it; only the datagram is in the buffer.
    pub fn receive(&mut self, file: u32, user: u64) -> io::Result<()> {
        let entry = opcode::RecvMulti::new(Fixed(file), GROUP).build().user_data(user);
        self.push(entry)
    }

    /// Receives with the sender's address; the buffer begins with [`NAMED_HEAD`] octets, see [`named`].
    pub fn receive_named(&mut self, file: u32, user: u64) -> io::Result<()> {
        let entry =
            opcode::RecvMsgMulti::new(Fixed(file), &raw const *self.named, GROUP).build().user_data(user);
        self.push(entry)
    }

    /// Sends a part of a receive buffer that is still held; done when the next [`Ring::enter`] returns.
    pub fn send_received(&mut self, file: u32, buffer: u16, part: (u32, u32), user: u64) -> io::Result<()> {
        let start = usize::from(buffer) * self.config.buffer_bytes as usize + part.0 as usize;
        if part.0 + part.1 > self.config.buffer_bytes {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let Some(at) = self.receive.at(start, part.1 as usize) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        self.send(file, at, part.1, user)
    }

    /// The send slot to write a datagram into.
    pub fn slot(&mut self, slot: u16) -> &mut [u8] {
        let bytes = self.config.slot_bytes as usize;
        self.slots.slice_mut(usize::from(slot) * bytes, bytes)
    }

    /// Writes a part of a held receive buffer into a slot, its first octets replaced by `head`; how long it is.
    pub fn patch(&mut self, slot: u16, buffer: u16, part: (u32, u32), head: &[u8]) -> u32 {
        let (start, length) = (part.0 as usize, part.1.min(self.config.slot_bytes) as usize);
        let from = usize::from(buffer) * self.config.buffer_bytes as usize + start;
        let skip = head.len().min(length);
        let bytes = self.config.slot_bytes as usize;
        let source = self.receive.slice(from, length);
        let target = self.slots.slice_mut(usize::from(slot) * bytes, bytes);
        let (Some(source), Some(target)) = (source.get(skip..), target.get_mut(..length)) else { return 0 };
        target[..skip].copy_from_slice(&head[..skip]);
        target[skip..].copy_from_slice(source);
        length as u32
    }

    /// Sends the first octets of a slot; done when the next [`Ring::enter`] returns.
    pub fn send_slot(&mut self, file: u32, slot: u16, length: u32, user: u64) -> io::Result<()> {
        let bytes = self.config.slot_bytes;
        let start = usize::from(slot) * bytes as usize;
        match self.slots.at(start, length as usize) {
            Some(at) if length <= bytes => self.send(file, at, length, user),
            _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
        }
    }

    fn send(&mut self, file: u32, at: *const u8, length: u32, user: u64) -> io::Result<()> {
        let entry = opcode::Send::new(Fixed(file), at, length)
            .flags(libc::MSG_DONTWAIT)
            .build()
            .flags(Flags::SKIP_SUCCESS)
            .user_data(user);
        self.push(entry)
    }

    /// Sends as much of some octets as the kernel takes; it completes, with how many. The octets are held until it was
    /// submitted, and then it is over: it never waits.
    pub fn send_shared(&mut self, file: u32, bytes: &Bytes, user: u64) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        // Before the octets are lent: an enter ends the use of those that were lent before.
        if self.room() == 0 {
            self.enter(0, None)?;
        }
        if self.room() == 0 {
            return Err(io::Error::from(io::ErrorKind::WouldBlock));
        }
        let entry = opcode::Send::new(Fixed(file), bytes.as_ptr(), length)
            .flags(libc::MSG_DONTWAIT)
            .build()
            .user_data(user);
        self.lent.push(bytes.clone());
        self.push(entry)
    }

    /// True when everything that was pushed is with the kernel.
    pub fn is_submitted(&mut self) -> bool {
        self.io.submission().is_empty()
    }

    /// Sends datagrams of `segment` octets each (the last one may be shorter) to one peer by one request: the kernel
    /// takes them through its stack as one and cuts them apart late (UDP_SEGMENT). Done when the next [`Ring::enter`]
    /// returns.
    pub fn send_gathered(
        &mut self,
        file: u32,
        parts: impl ExactSizeIterator<Item = (Place, u32)>,
        segment: u16,
        user: u64,
    ) -> io::Result<()> {
        // Before the header is made: an enter ends the use of those that were made before it.
        if !self.gathered.has_room(parts.len()) || self.room() == 0 {
            self.enter(0, None)?;
        }
        let (receive, slots) = (usize::try_from(self.config.buffer_bytes), self.config.slot_bytes as usize);
        let receive = receive.unwrap_or(0);
        let Ring { gathered, receive: buffers, slots: memory, .. } = self;
        let places = parts.map(|(place, length)| {
            let length = length as usize;
            let (mapping, bytes, index, start) = match place {
                Place::Received { buffer, start } => (&*buffers, receive, buffer, usize::from(start)),
                Place::Slot(slot) => (&*memory, slots, slot, 0),
            };
            let at = mapping.at(usize::from(index) * bytes + start, length);
            at.filter(|_| start + length <= bytes).map(|at| (at, length))
        });
        let Some(head) = gathered.add(places, segment) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        let entry = opcode::SendMsg::new(Fixed(file), head)
            .flags(libc::MSG_DONTWAIT as u32)
            .build()
            .flags(Flags::SKIP_SUCCESS)
            .user_data(user);
        self.push(entry)
    }

    /// Reports readiness each time it comes anew, until something ends it. `events` are poll(2)'s.
    pub fn poll(&mut self, file: u32, events: u32, user: u64) -> io::Result<()> {
        self.push(opcode::PollAdd::new(Fixed(file), events).multi(true).build().user_data(user))
    }

    /// Ends the request that was given `user`; it completes with `ECANCELED`. Whether it was found is not told.
    pub fn cancel(&mut self, user: u64, own: u64) -> io::Result<()> {
        self.push(opcode::AsyncCancel::new(user).build().user_data(own))
    }

    /// Room for requests before an enter is due.
    pub fn room(&mut self) -> usize {
        let queue = self.io.submission();
        queue.capacity() - queue.len()
    }

    fn push(&mut self, entry: Entry) -> io::Result<()> {
        for _ in 0..2 {
            // SAFETY: every address in an entry made above points into a mapping, or at `named`, `gathered` or `lent`, that
            // this ring owns; what the kernel does with it ends before they are released (see `drop`).
            if unsafe { self.io.submission().push(&entry) }.is_ok() {
                return Ok(());
            }
            self.enter(0, Some(Duration::ZERO))?;
        }
        Err(io::Error::from(io::ErrorKind::WouldBlock))
    }

    /// Publishes given-back buffers, submits what was pushed, runs deferred work and waits until `want`
    /// completions are there or the time is over. Without a time it waits for ever.
    ///
    /// With DEFER_TASKRUN nothing ever completes but in an enter that carries GETEVENTS: this one always does.
    pub fn enter(&mut self, want: u32, wait: Option<Duration>) -> io::Result<()> {
        self.enter_gathering(want, 0, wait)
    }

    /// The same, but after `gather_us` microseconds one completion is enough: what comes meanwhile wakes nobody, and
    /// what comes after that wakes at once. Where the kernel does not know how (before 6.12), one is enough always.
    pub fn enter_gathering(&mut self, want: u32, gather_us: u32, wait: Option<Duration>) -> io::Result<()> {
        self.publish();
        let submit = u32::try_from(self.io.submission().len()).unwrap_or(0);
        let gathers = gather_us > 0 && want > 1;
        let able = self.io.params().is_feature_min_timeout();
        let want = if gathers && !able { 1 } else { want };
        let done = match (wait, gathers && able) {
            (None, false) | (Some(_), false) if want == 0 || wait.is_none() => {
                // SAFETY: no argument is passed.
                unsafe { self.io.submitter().enter::<libc::sigset_t>(submit, want, GETEVENTS, None) }
            }
            (wait, gathers) => {
                let time = wait.map(Timespec::from);
                let mut args = SubmitArgs::new();
                if gathers {
                    args = args.min_wait_usec(gather_us);
                }
                let args = match &time {
                    Some(time) => args.timespec(time),
                    None => args,
                };
                // SAFETY: `args` and `time` live across the call; the flags fit the argument's kind.
                unsafe { self.io.submitter().enter(submit, want, GETEVENTS | EXT_ARG, Some(&args)) }
            }
        };
        if self.io.submission().is_empty() {
            // Sends are over when they were submitted.
            self.gathered.clear();
            self.lent.clear();
        }
        match done {
            Ok(_) => Ok(()),
            // Time over, a signal, or completions that wait to be taken: what stays queued goes next time.
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// True when nothing waits to be submitted, and nothing to be taken.
    pub fn idle(&mut self) -> bool {
        self.io.submission().is_empty() && !self.ready()
    }

    /// True when completions or deferred work wait: a look without a system call, for spinning.
    pub fn ready(&mut self) -> bool {
        !self.io.completion().is_empty() || self.io.submission().taskrun()
    }

    /// Takes completions into `into`, oldest first, until it is full.
    pub fn completions(&mut self, into: &mut Vec<Completion>) {
        let mut queue = self.io.completion();
        while into.len() < into.capacity() {
            let Some(entry) = queue.next() else { break };
            let flags = entry.flags();
            let buffer = cqueue::buffer_select(flags);
            if let Some(held) = buffer.and_then(|id| self.held.get_mut(usize::from(id))) {
                *held = true;
            }
            into.push(Completion {
                user: entry.user_data(),
                result: entry.result(),
                buffer,
                more: cqueue::more(flags),
            });
        }
    }

    /// The first octets of a held receive buffer; empty when it is not held.
    pub fn received(&self, buffer: u16, length: usize) -> &[u8] {
        if !self.held.get(usize::from(buffer)).copied().unwrap_or(false) {
            return &[];
        }
        let bytes = self.config.buffer_bytes as usize;
        self.receive.slice(usize::from(buffer) * bytes, length.min(bytes))
    }

    /// Gives a receive buffer back. The kernel sees it at the next [`Ring::enter`], before the sends that were
    /// pushed; so give it back only after the enter that submitted them.
    pub fn recycle(&mut self, buffer: u16) {
        match self.held.get_mut(usize::from(buffer)) {
            Some(held) if *held => *held = false,
            _ => return,
        }
        let bytes = self.config.buffer_bytes as usize;
        let mask = self.config.buffers - 1;
        let Some(at) = self.receive.at(usize::from(buffer) * bytes, bytes) else { return };
        let index = usize::from(self.tail & mask);
        // SAFETY: `index` is below the count of entries that `group` holds. The kernel does not read past the
        // published tail, so this entry is ours. Only its three fields are written: the first entry's
        // fourth one is the tail.
        unsafe {
            let entry = &mut *(self.group.address() as *mut BufRingEntry).add(index);
            entry.set_addr(at as u64);
            entry.set_len(self.config.buffer_bytes);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&mut self) {
        // SAFETY: the tail is an aligned u16 inside `group`, which only this thread writes; the kernel reads it
        // with acquire, so it is stored with release.
        unsafe {
            let tail = BufRingEntry::tail(self.group.address() as *const BufRingEntry) as *mut u16;
            std::sync::atomic::AtomicU16::from_ptr(tail)
                .store(self.tail, std::sync::atomic::Ordering::Release);
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Receives find no buffer from here on, and sends were over when their enter returned: the kernel holds
        // no address of ours, the mappings may go.
        if self.io.submitter().unregister_buf_ring(GROUP).is_err() {
            self.group.leak();
            self.receive.leak();
        }
    }
}

/// What a receive with address put into a buffer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Named {
    /// Who sent it.
    pub from: std::net::SocketAddr,
    /// Where in the buffer the datagram begins.
    pub start: usize,
    /// Its octets.
    pub length: usize,
    /// It was longer than the buffer.
    pub truncated: bool,
}

/// Reads the head that a receive with address writes; `None` when it is no IPv4 or IPv6 address.
pub fn named(buffer: &[u8]) -> Option<Named> {
    let word = |at: usize| Some(u32::from_ne_bytes(buffer.get(at..at + 4)?.try_into().ok()?));
    let (payload, flags) = (word(8)? as usize, word(12)?);
    let name = buffer.get(16..NAMED_HEAD)?;
    let family = u16::from_ne_bytes([*name.first()?, *name.get(1)?]);
    let port = u16::from_be_bytes([*name.get(2)?, *name.get(3)?]);
    let from = match i32::from(family) {
        libc::AF_INET => {
            let ip: [u8; 4] = name.get(4..8)?.try_into().ok()?;
            std::net::SocketAddr::from((ip, port))
        }
        libc::AF_INET6 => {
            let ip: [u8; 16] = name.get(8..24)?.try_into().ok()?;
            std::net::SocketAddr::from((ip, port))
        }
        _ => return None,
    };
    let room = buffer.len() - NAMED_HEAD;
    let truncated = flags & libc::MSG_TRUNC as u32 != 0 || payload > room;
    Some(Named { from, start: NAMED_HEAD, length: payload.min(room), truncated })
}
