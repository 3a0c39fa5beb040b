//! What a driver tells an engine.

use std::net::SocketAddr;

use bytes::Bytes;
use rtp::srtp::Keying;

use crate::{Carried, Elsewhere, Handed, SpillWord, Standing};

/// A UDP socket of this shard. Dense: the driver numbers its sockets from 0, below [`crate::Limits::sockets_max`],
/// and may reuse a number after it performed [`crate::Output::CloseSocket`] for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SocketId(pub u32);

/// A stream connection of the node (accepted or dialled). Unique over all shards and never used twice: no byte of
/// one session may ever reach another (DESIGN §2, invariant 10).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// Names a connection attempt that the engine asked for; never used twice by one engine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DialId(pub u64);

/// The sockets that the process bound for an RTP leg of a batch, before it hands the batch over. Needed for each
/// `put_leg` of an RTP leg that the engine does not have yet, or has with another port.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// The leg.
    pub leg: contract::LegKey,
    /// Receives and sends RTP, and RTCP too when `rtcp` is `None` (RFC 5761).
    pub rtp: SocketId,
    /// Receives and sends RTCP when it is not multiplexed.
    pub rtcp: Option<SocketId>,
    /// With the bound port filled in: goes into `Applied` as it is.
    pub local: contract::RtpLocal,
}

/// A DTLS handshake of one leg (RFC 5764); never used twice by one engine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DtlsId {
    /// The leg's row.
    pub leg: u32,
    /// Tells it from earlier ones.
    pub serial: u64,
}

/// What the process's end of a handshake says.
#[derive(Debug)]
pub enum DtlsWord {
    /// A datagram for the peer.
    Send(Bytes),
    /// It is done. The engine itself compares the certificate: the process accepts any.
    Keys(Box<DtlsKeys>),
    /// It came to nothing.
    Failed,
    /// The peer has ended it (close_notify).
    Closed,
}

/// What a handshake came to.
#[derive(Clone, Debug)]
pub struct DtlsKeys {
    /// SHA-256 of the certificate that the peer has shown.
    pub fingerprint: [u8; 32],
    /// With what we send.
    pub send: Keying,
    /// With what the peer sends.
    pub receive: Keying,
}

/// Why a connection is gone, or never came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// The peer closed it in order.
    Closed,
    /// Reset, time-out, or another error of the transport.
    Reset,
    /// It could not be opened.
    ConnectFailed,
    /// The TLS handshake failed.
    TlsFailed,
}

/// One input of [`crate::Engine::handle`].
#[derive(Debug)]
pub enum Input<'a> {
    /// A datagram arrived. On a connected socket `from` is the address it is connected to.
    Datagram {
        /// Where.
        socket: SocketId,
        /// Its source.
        from: SocketAddr,
        /// Its payload, whole (a truncated datagram is the driver's to drop and count).
        bytes: &'a [u8],
    },
    /// The kernel reported an ICMP error for a socket. Counted; nothing else happens.
    Unreachable {
        /// Which.
        socket: SocketId,
    },
    /// A connection is up, TLS included.
    Opened {
        /// Its name from now on.
        conn: ConnId,
        /// The attempt that it fulfils; `None` when it was accepted.
        dial: Option<DialId>,
        /// Whether TLS runs on it.
        tls: bool,
        /// SHA-256 of the certificate that the peer showed.
        fingerprint: Option<[u8; 32]>,
        /// The peer's address.
        peer: SocketAddr,
        /// Our own address on it.
        local: SocketAddr,
    },
    /// A connection attempt failed.
    DialFailed {
        /// Which.
        dial: DialId,
        /// Why.
        why: CloseReason,
    },
    /// What a host's name means: answers [`crate::Output::LookUp`].
    LookedUp {
        /// Which attempt.
        dial: DialId,
        /// Its addresses with the port; none when it is not known.
        found: &'a [SocketAddr],
    },
    /// Bytes arrived on a connection (after TLS).
    Received {
        /// Where.
        conn: ConnId,
        /// A piece of the stream; its buffer is shared, not copied, as long as parts of it wait to be sent.
        bytes: Bytes,
    },
    /// So many bytes that the engine wrote are with the kernel now. The engine never has more than
    /// [`crate::Limits::inflight_bytes_max`] unacknowledged in this sense: the driver needs no limit of its own.
    Sent {
        /// Where.
        conn: ConnId,
        /// How many since the last time.
        bytes: usize,
    },
    /// A connection is gone, whoever closed it. After [`crate::Output::Shut`] the engine does not need it.
    Closed {
        /// Which.
        conn: ConnId,
        /// Why.
        why: CloseReason,
    },
    /// Control wants a change. Answered by `Applied` or `Refusal`. On a refusal none of the attachments was taken:
    /// the process closes those sockets itself.
    Batch {
        /// The batch, with the ports that were allocated for it in `attachments`.
        batch: &'a contract::Batch,
        /// What the process bound for it.
        attachments: &'a [Attachment],
    },
    /// The same for a context some of whose legs are on other shards; this one is its home.
    SpreadBatch {
        /// The batch.
        batch: &'a contract::Batch,
        /// What the process bound for it here.
        attachments: &'a [Attachment],
        /// Each RTP leg that the batch puts and that is on another shard.
        elsewhere: &'a [Elsewhere],
    },
    /// A context's home has changed it, and some of its legs are here, or were. Answers nothing and is never refused:
    /// whoever bound the legs' sockets has asked [`crate::Engine::has_room`].
    Follow {
        /// What its home says.
        standing: &'a Standing,
        /// What the process bound for its legs here.
        attachments: &'a [Attachment],
    },
    /// Another shard hands something over. Of a packet, [`Handed::datagram`] is the datagram just handled.
    Handed(&'a Handed),
    /// A handshake that the engine asked for has something to say.
    Dtls {
        /// Which.
        id: DtlsId,
        /// What.
        word: DtlsWord,
    },
    /// Control answers a question (NICKNAME).
    Decide(&'a contract::Decide),
    /// Copies of what a context receives and sends, or of what comes to one leg, go to the spool from now on, or no more.
    Capture {
        /// Which context.
        context: u64,
        /// Only what this leg's peer sends, opened where it was protected; `None`: all of the context.
        leg: Option<u64>,
        /// Start or stop.
        on: bool,
    },
    /// Somebody can relay flows without the engine: it shall look for such ones. Now and then; a driver that cannot never says it.
    Settle,
    /// What a flow carried that was offloaded ([`crate::Output::Offload`]), counted from then on. Also now and then.
    Offloaded {
        /// The flow's name.
        socket: SocketId,
        /// What is known of it.
        carried: Option<Carried>,
        /// It is no longer offloaded, or could not be (`carried` is `None` then).
        over: bool,
    },
    /// What became of what was given to the disk ([`crate::Output::Spill`]): each write and each fetch has one, in their order.
    Spilled(SpillWord),
    /// No new contexts, or again new ones.
    Drain(bool),
}
