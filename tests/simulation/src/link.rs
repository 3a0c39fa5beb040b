//! One connection: a stream each way that is cut anywhere, with what the kernel holds and what each side has read.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use msrp::{Flag, Framer, Head};

/// A message as a peer reads it, or a chunk of one.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    pub(crate) head: Head,
    pub(crate) body: Bytes,
    pub(crate) flag: Flag,
}

/// Something that the engine has been told when it has read so far.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mark {
    /// The first octet of a message.
    Began(usize),
    /// Enough of it to know who may have it.
    Freeze(usize),
    /// Certainly enough.
    Frozen(usize),
    /// The end of a chunk; with `whole` all of the message.
    Ended { said: usize, flag: Flag, whole: bool },
    /// The end of a request that must be answered, by its number.
    Asked(usize),
}

/// One connection.
pub(crate) struct Link {
    pub(crate) seat: usize,
    pub(crate) shard: u16,
    /// From the peer to the engine.
    pub(crate) up: BytesMut,
    pub(crate) up_total: u64,
    pub(crate) fed: u64,
    pub(crate) marks: VecDeque<(u64, Mark)>,
    /// Read by a connection that was paused: the engine may not have looked at it.
    pub(crate) deferred: Vec<Mark>,
    pub(crate) paused: bool,
    /// From the engine to the peer: with the driver, then with the kernel.
    pub(crate) driver: VecDeque<Bytes>,
    pub(crate) kernel: BytesMut,
    pub(crate) kernel_max: usize,
    pub(crate) written: u64,
    /// How much was written by which step.
    pub(crate) writes: Vec<(u64, u64)>,
    pub(crate) taken: u64,
    /// How much was with the kernel by which step.
    pub(crate) takes: Vec<(u64, u64)>,
    /// How much the engine was told to be with the kernel.
    pub(crate) told: u64,
    pub(crate) read: u64,
    pub(crate) stalled_until: u64,
    /// Reset when so much went up, or down.
    pub(crate) cut_up: Option<u64>,
    pub(crate) cut_down: Option<u64>,
    pub(crate) framer: Framer,
    pub(crate) reading: Option<(Head, BytesMut)>,
    /// The engine wants no more of it.
    pub(crate) shut: bool,
    /// The peer has seen its end.
    pub(crate) over: bool,
    /// Whether something is under way for it: up, to the kernel, down.
    pub(crate) due: [bool; 3],
    /// It was up when the world had come to rest.
    pub(crate) rested: bool,
}

impl Link {
    pub(crate) fn new(seat: usize, shard: u16, kernel_max: usize) -> Self {
        Link {
            seat,
            shard,
            up: BytesMut::new(),
            up_total: 0,
            fed: 0,
            marks: VecDeque::new(),
            deferred: Vec::new(),
            paused: false,
            driver: VecDeque::new(),
            kernel: BytesMut::new(),
            kernel_max,
            written: 0,
            writes: Vec::new(),
            taken: 0,
            takes: Vec::new(),
            told: 0,
            read: 0,
            stalled_until: 0,
            cut_up: None,
            cut_down: None,
            framer: Framer::new(msrp::Limits::default()),
            reading: None,
            shut: false,
            over: false,
            due: [false; 3],
            rested: false,
        }
    }

    /// The step by which so much was in the kernel's hands.
    pub(crate) fn step_taken(&self, octets: u64) -> Option<u64> {
        let at = self.takes.partition_point(|(_, total)| *total < octets);
        self.takes.get(at).map(|(step, _)| *step)
    }

    /// The step in which the engine wrote that octet.
    pub(crate) fn step_written(&self, octets: u64) -> Option<u64> {
        let at = self.writes.partition_point(|(_, total)| *total < octets);
        self.writes.get(at).map(|(step, _)| *step)
    }
}
