//! What an engine wants done. Small, so that a thousand of them cost little; the packet itself is never in it.

use std::collections::VecDeque;
use std::net::SocketAddr;

use base::UnixTime;
use bytes::Bytes;

use crate::{ConnId, DialId, DtlsId, Handed, Settled, SocketId, SpillOrder};

/// Octets of the fixed RTP header, which is what a rewritten packet replaces.
pub const HEAD_BYTES: usize = 12;

/// What is wanted of a DTLS handshake; the process runs it, away from the packet loop.
#[derive(Debug)]
pub enum DtlsOrder {
    /// Begin, as client.
    Begin,
    /// A datagram of its peer; the first one begins it.
    Datagram {
        /// As client.
        active: bool,
        /// The datagram.
        bytes: Bytes,
    },
    /// Forget it.
    End,
}

/// One thing for the driver to do. Order matters within one socket or connection.
#[derive(Debug)]
pub enum Output {
    /// Send the datagram just handled, as it is, to where the socket is aimed.
    Forward {
        /// By which socket.
        socket: SocketId,
    },
    /// Send the datagram just handled with its first [`HEAD_BYTES`] octets replaced, to where the socket is aimed.
    ForwardPatched {
        /// By which socket.
        socket: SocketId,
        /// The new fixed header.
        head: [u8; HEAD_BYTES],
    },
    /// Send what the engine made of the datagram just handled ([`crate::Engine::held`]), to where the socket is aimed.
    SendHeld {
        /// By which socket.
        socket: SocketId,
        /// Where it begins.
        at: u32,
        /// Its octets.
        length: u32,
    },
    /// Send a datagram of the engine's own (RTCP) to where the socket is aimed.
    SendBytes {
        /// By which socket.
        socket: SocketId,
        /// The payload.
        bytes: Bytes,
    },
    /// From now on the socket sends to `to`. `exclusive`: connect it, so that the kernel refuses other sources;
    /// otherwise it stays open to all (disconnect it if it was connected) and is sent from by address.
    /// `None`: nowhere; the engine sends nothing by it then.
    Aim {
        /// Which socket.
        socket: SocketId,
        /// The peer.
        to: Option<SocketAddr>,
        /// Connect it.
        exclusive: bool,
    },
    /// Whoever can relay a flow without the engine may do so from now on; answered by [`crate::Input::Offloaded`], at once with
    /// `over` if nobody can. Only after an [`crate::Input::Settle`].
    Offload(Box<Settled>),
    /// The flow that this socket received is the engine's again: answered by [`crate::Input::Offloaded`] with `over`. What comes
    /// after it in the outbox is done when nobody relays it any more.
    Recall {
        /// Which socket.
        socket: SocketId,
    },
    /// The leg is gone; close its socket and free the port.
    CloseSocket {
        /// Which socket.
        socket: SocketId,
    },
    /// Open a connection; answered by `Opened{dial: Some(..)}` or `DialFailed`. The engine itself compares the
    /// fingerprint that `Opened` brings: accept any certificate.
    Dial {
        /// Names the attempt.
        dial: DialId,
        /// Where to.
        to: SocketAddr,
        /// With TLS, as client.
        tls: bool,
    },
    /// Find out the addresses of a host; answered by [`crate::Input::LookedUp`].
    LookUp {
        /// The attempt that wants to know.
        dial: DialId,
        /// A name.
        host: String,
        /// The port that goes with it.
        port: u16,
    },
    /// Append to what the connection sends. Consecutive ones for the same connection belong in one writev.
    Write {
        /// Which connection.
        conn: ConnId,
        /// What.
        bytes: Bytes,
    },
    /// The same with several pieces, in this order.
    WriteAll {
        /// Which connection.
        conn: ConnId,
        /// What.
        pieces: VecDeque<Bytes>,
    },
    /// Stop reading from a connection: what it feeds is full.
    Pause {
        /// Which connection.
        conn: ConnId,
    },
    /// Read on.
    Resume {
        /// Which connection.
        conn: ConnId,
    },
    /// Send what was written, then close (at once if `abort`). The engine has forgotten the connection.
    Shut {
        /// Which connection.
        conn: ConnId,
        /// Throw away what waits.
        abort: bool,
    },
    /// The first request on an accepted connection names a session whose home is another shard. The engine has
    /// forgotten the connection; its engine gets `Opened`, then these bytes as `Received`, then all that follows.
    HandOver {
        /// Which connection.
        conn: ConnId,
        /// The home shard.
        shard: u16,
        /// All that was received so far.
        bytes: Bytes,
    },
    /// Into another shard's mailbox, in order; its engine gets [`crate::Input::Handed`]. Where there is no room it is lost:
    /// say so by [`crate::Engine::not_handed`].
    Hand {
        /// Which shard.
        shard: u16,
        /// What.
        handed: Box<Handed>,
    },
    /// Something for a DTLS handshake; answered by [`crate::Input::Dtls`].
    Dtls {
        /// Which.
        id: DtlsId,
        /// What.
        order: DtlsOrder,
    },
    /// For control: `Applied`, `Refusal` or `News`.
    Answer(Box<contract::FromDataplane>),
    /// For the spool: a packet of a captured context.
    Spool(Box<Packet>),
    /// For the spool, in order and never lost: what waits for a slow receiver. Answered by [`crate::Input::Spilled`].
    Spill(Box<SpillOrder>),
}

/// How a captured packet travelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// One datagram.
    Udp,
    /// A piece of a stream, without TLS.
    Tcp,
}

/// A packet for a capture file.
#[derive(Debug)]
pub struct Packet {
    /// The captured context.
    pub context: u64,
    /// For the file of this leg alone; `None`: for that of the whole context.
    pub leg: Option<u64>,
    /// When.
    pub at: UnixTime,
    /// From.
    pub from: SocketAddr,
    /// To.
    pub to: SocketAddr,
    /// How.
    pub transport: Transport,
    /// The payload.
    pub bytes: Bytes,
}
