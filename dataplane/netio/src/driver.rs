//! What a driver is: the sockets of one shard, and the batch of events that it hands out.
//!
//! ```text
//! loop {
//!     for index in 0..driver.poll(wait)? {
//!         match driver.event(index) { .. }        // look up, rewrite
//!         driver.forward(index, socket)           // the datagram of that event, as often as wanted
//!     }
//! }                                               // the next poll sends what was queued and frees the buffers
//! ```
//!
//! Both drivers do the same, held to it by one suite (`tests/suite.rs`). A driver belongs to the thread that made it.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use base::Budget;
use bytes::Bytes;

use crate::Wake;
use crate::tls::Tls;

/// Sizes and times of one driver. Counts are maxima.
#[derive(Clone, Debug)]
pub struct DriverConfig {
    /// UDP sockets.
    pub sockets_max: usize,
    /// Stream connections, listeners not counted.
    pub connections_max: usize,
    /// Accepted ones of one peer address (of one /64 with IPv6).
    pub connections_per_address_max: usize,
    /// Datagrams and connection events of one batch.
    pub batch_max: usize,
    /// Receive buffers (rounded up to a power of two). All of them pass through the cache.
    pub buffers: u16,
    /// Octets of a receive buffer; a datagram that does not fit, beside 44 octets about its source, is dropped.
    pub buffer_bytes: u32,
    /// Octets read from one connection before others have their turn.
    pub read_bytes_max: usize,
    /// Look for work this long before sleeping, in microseconds.
    pub spin_us: u32,
    /// A sleep lasts at least this long when something comes meanwhile, in microseconds, so that what comes in a row is
    /// done by one waking; what comes later wakes at once. 0: every packet wakes.
    pub gather_us: u32,
    /// For how long a connection may take to open, TLS included, in milliseconds.
    pub open_ms: u64,
    /// For how long a connection that was shut may take to send what is left, in milliseconds.
    pub linger_ms: u64,
    /// For how long after connecting a datagram socket its sources are still told by the kernel, one by one: what
    /// was queued before belongs to anybody. In milliseconds.
    pub settle_ms: u64,
    /// Datagrams of one batch to one peer leave together (UDP GSO), where the driver can.
    pub gso: bool,
    /// Number of the first connection; each further one is one higher.
    pub first_connection: u64,
}

impl Default for DriverConfig {
    fn default() -> Self {
        DriverConfig {
            sockets_max: 16_384,
            connections_max: 4096,
            connections_per_address_max: 1024,
            batch_max: 64,
            buffers: 512,
            buffer_bytes: 2048,
            read_bytes_max: 64 << 10,
            spin_us: 20,
            gather_us: 0,
            open_ms: 10_000,
            linger_ms: 2000,
            settle_ms: 200,
            gso: true,
            first_connection: 0,
        }
    }
}

impl DriverConfig {
    /// The memory that these sizes allow, as a sum; the kernel's own is apart.
    pub fn budget(&self) -> Budget {
        let mut budget = Budget::default();
        budget
            .row("receive buffers", u64::from(self.buffers), u64::from(self.buffer_bytes))
            .row("send slots", u64::from(SLOTS), u64::from(self.buffer_bytes))
            .row("datagram sockets", self.sockets_max as u64, 160)
            .row("stream connections", self.connections_max as u64, 512 + 4096);
        budget
    }
}

/// Send slots of a driver.
pub(crate) const SLOTS: u16 = 512;

/// Why a connection is gone, or never came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gone {
    /// The peer closed it in order.
    Closed,
    /// Reset, time-out, or another error of the transport.
    Reset,
    /// It could not be opened.
    ConnectFailed,
    /// The TLS handshake failed.
    TlsFailed,
}

/// One thing that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A datagram arrived, whole.
    Datagram {
        /// The number that [`Driver::open`] gave.
        socket: u32,
        /// Its source; of a connected socket, what it is connected to.
        from: SocketAddr,
        /// Its payload.
        bytes: &'a [u8],
    },
    /// An ICMP error for a datagram socket.
    Unreachable {
        /// Which.
        socket: u32,
    },
    /// A connection is up, TLS included.
    Opened {
        /// Its number, never used twice.
        conn: u64,
        /// The attempt that it fulfils; `None` when it was accepted.
        dial: Option<u64>,
        /// Whether TLS runs on it.
        tls: bool,
        /// SHA-256 of the certificate that the peer showed.
        fingerprint: Option<[u8; 32]>,
        /// The peer's address.
        peer: SocketAddr,
        /// Our own address on it.
        local: SocketAddr,
    },
    /// An attempt failed.
    DialFailed {
        /// Which.
        dial: u64,
        /// Why.
        why: Gone,
    },
    /// Octets arrived on a connection, after TLS.
    Received {
        /// Which.
        conn: u64,
        /// The octets; shared, not copied, when they are many.
        bytes: &'a Bytes,
    },
    /// So many octets that were written are with the kernel now.
    Sent {
        /// Which.
        conn: u64,
        /// How many since the last time.
        bytes: usize,
    },
    /// A connection is gone; not told after [`Driver::shut`].
    Closed {
        /// Which.
        conn: u64,
        /// Why.
        why: Gone,
    },
    /// Somebody called [`Wake::wake`].
    Woken,
}

/// What a driver has counted. Plain numbers, read by its own thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Datagrams longer than a buffer; dropped.
    pub truncated: u64,
    /// Datagrams from an address of no known family, or that arrived while a socket changed its peer; dropped.
    pub unnamed: u64,
    /// Receives that ended because every buffer was in use; nothing is lost but what the socket cannot hold.
    pub starved: u64,
    /// Receives that ended for another reason and were begun again.
    pub rearmed: u64,
    /// Sends that the kernel refused because the socket's or device's queue was full; dropped.
    pub send_full: u64,
    /// Sends that met an ICMP error of an earlier one; dropped.
    pub send_unreachable: u64,
    /// Sends longer than the path allows; dropped.
    pub send_too_long: u64,
    /// Sends that failed otherwise, or had nowhere to go; dropped.
    pub send_failed: u64,
    /// Connections that were closed at once because the table was full.
    pub accept_refused: u64,
    /// Connections that were closed at once because their peer's address had too many.
    pub accept_crowded: u64,
    /// Accepted connections that never finished their TLS handshake.
    pub accept_failed: u64,
    /// Batches handed out.
    pub batches: u64,
    /// Events in them.
    pub events: u64,
    /// Times the thread went to sleep.
    pub sleeps: u64,
}

impl Tally {
    /// Counts a failed send by its error.
    pub(crate) fn send_error(&mut self, errno: i32) {
        match errno {
            libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => self.send_full += 1,
            libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH => self.send_unreachable += 1,
            libc::EMSGSIZE => self.send_too_long += 1,
            _ => self.send_failed += 1,
        }
    }

    /// Each counter with its name, for metrics.
    pub fn rows(&self) -> [(&'static str, u64); 14] {
        [
            ("truncated", self.truncated),
            ("unnamed", self.unnamed),
            ("starved", self.starved),
            ("rearmed", self.rearmed),
            ("send_full", self.send_full),
            ("send_unreachable", self.send_unreachable),
            ("send_too_long", self.send_too_long),
            ("send_failed", self.send_failed),
            ("accept_refused", self.accept_refused),
            ("accept_crowded", self.accept_crowded),
            ("accept_failed", self.accept_failed),
            ("batches", self.batches),
            ("events", self.events),
            ("sleeps", self.sleeps),
        ]
    }
}

/// The sockets of one shard.
pub trait Driver: std::fmt::Debug {
    /// `"uring"` or `"mio"`.
    fn name(&self) -> &'static str;

    /// Takes a bound datagram socket (see [`crate::udp::bind`]) and receives from it. Numbers are dense, from 0.
    fn open(&mut self, socket: UdpSocket) -> io::Result<u32>;

    /// Closes a datagram socket; its number is free for the next one.
    fn close(&mut self, socket: u32);

    /// From now on the socket sends to `to`; `exclusive` connects it, so that the kernel refuses other sources.
    fn aim(&mut self, socket: u32, to: Option<SocketAddr>, exclusive: bool) -> io::Result<()>;

    /// Accepts connections from now on, with TLS if `tls` is given.
    fn listen(&mut self, listener: TcpListener, tls: Option<Tls>) -> io::Result<()>;

    /// Opens a connection; answered by [`Event::Opened`] or [`Event::DialFailed`].
    fn dial(&mut self, dial: u64, to: SocketAddr, tls: Option<Tls>);

    /// Waits at most `wait` (for ever without one) for a batch, and says how many events it has. What was sent or
    /// written since the last batch leaves now, and its buffers are free again.
    fn poll(&mut self, wait: Option<Duration>) -> io::Result<usize>;

    /// An event of the present batch.
    fn event(&self, index: usize) -> Event<'_>;

    /// Sends the datagram of an event of the present batch as it is, to where `socket` is aimed.
    fn forward(&mut self, index: usize, socket: u32);

    /// The same with its first octets replaced by `head`.
    fn forward_patched(&mut self, index: usize, socket: u32, head: &[u8]);

    /// Sends a datagram to where `socket` is aimed.
    fn send(&mut self, socket: u32, bytes: &[u8]);

    /// Sends that wait to leave; one that leaves with others is counted as a quarter.
    fn queued(&self) -> usize;

    /// Lets queued sends leave before the batch ends: a batch is capped by time, not by number alone.
    fn flush(&mut self) -> io::Result<()>;

    /// Appends to what a connection sends; all of a batch leaves by one writev.
    fn write(&mut self, conn: u64, bytes: Bytes);

    /// The same with several pieces, in this order.
    fn write_all(&mut self, conn: u64, pieces: VecDeque<Bytes>);

    /// Stops reading from a connection, so that its peer is held back.
    fn pause(&mut self, conn: u64);

    /// Reads on.
    fn resume(&mut self, conn: u64);

    /// Sends what was written, then closes; at once if `abort`.
    fn shut(&mut self, conn: u64, abort: bool);

    /// What ends this driver's wait.
    fn wake(&self) -> Wake;

    /// What it has counted.
    fn tally(&self) -> Tally;
}
