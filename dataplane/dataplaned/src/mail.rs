//! Mailboxes between the threads: bounded, and a sender never blocks nor loses. What does not fit waits with the
//! sender, which then takes no more input of the kind that filled it.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::Bytes;
use contract::refusal::Reason;
use contract::{Audited, Batch, CaptureState, Decide, LegKey, RtpLocal, from_dataplane};
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use forward::{CloseReason, DtlsId, DtlsWord, Elsewhere, Handed, Standing};
use netio::{Tally, Wake};

use crate::spool::ToSpool;

/// To a shard.
#[derive(Debug)]
pub(crate) enum ToShard {
    /// From control, by the link with this number.
    Batch { link: u64, batch: Box<Batch> },
    /// From control.
    Decide(Box<Decide>),
    /// From control: the whole state, in parts.
    Audit { link: u64, id: u64 },
    /// From the ng door: the counters of one context now.
    Count { link: u64, context: u64 },
    /// From control: what the spool shall do about a context, once its engine does its part.
    Capture { context: u64, leg: Option<u64>, order: ToSpool },
    /// The spool has ended the capture of a context, or of one leg of it.
    CaptureOver { context: u64, leg: Option<u64> },
    /// From control.
    Drain(bool),
    /// Another shard's connection whose sessions are at home here.
    Adopt { conn: u64, arrival: Arrival, bytes: Bytes },
    /// What happened on such a connection.
    Remote { conn: u64, what: Remote },
    /// What the home of a connection of this shard wants done with it.
    Act { conn: u64, what: Act },
    /// From the thread of names.
    LookedUp { dial: forward::DialId, found: Vec<SocketAddr> },
    /// From the thread of handshakes.
    Dtls { id: DtlsId, word: DtlsWord },
    /// From the spool: what became of an order of the engine's.
    Spilled(forward::SpillWord),
    /// From the thread of handshakes: so many datagrams found no room on their way to a shard.
    HandshakesMissed(u64),
    /// From the steward: the capture of a context that is at home elsewhere begins.
    Trace { context: u64 },
    /// From the steward, to an outpost: bind what the legs of this batch need, and see whether there is room for contexts of
    /// so many legs.
    Bind { round: u64, batch: Box<Batch>, sizes: Vec<(u64, usize)> },
    /// The round came to nothing: what was bound for it is given back.
    Unbind { round: u64 },
    /// From the steward, to the home: a batch of contexts that are on several shards.
    SpreadBatch(Box<SpreadBatch>),
    /// From the home: its contexts as they stand now.
    Follow { round: u64, standings: Vec<Standing> },
    /// From another shard of a context.
    Handed(Box<Handed>),
}

/// A batch whose outposts have bound what it needs of them.
#[derive(Debug)]
pub(crate) struct SpreadBatch {
    pub(crate) round: u64,
    pub(crate) batch: Batch,
    pub(crate) elsewhere: Vec<Elsewhere>,
    /// Which contexts each outpost is to follow.
    pub(crate) outposts: Vec<(u16, Vec<u64>)>,
}

/// What an outpost has bound; or which change of what it was sent could not be, and why.
pub(crate) type Bound = Result<Vec<(LegKey, RtpLocal)>, (usize, Reason, &'static str)>;

/// How a connection came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) tls: bool,
    pub(crate) fingerprint: Option<[u8; 32]>,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
}

#[derive(Debug)]
pub(crate) enum Remote {
    Received(Bytes),
    Sent(usize),
    Closed(CloseReason),
}

#[derive(Debug)]
pub(crate) enum Act {
    Write(Bytes),
    WriteAll(VecDeque<Bytes>),
    Pause,
    Resume,
    Shut { abort: bool },
}

/// To the steward.
#[derive(Debug)]
pub(crate) enum ToSteward {
    /// For control. `link`: only for that one (answers); otherwise for whoever is linked (news).
    Say { link: Option<u64>, body: from_dataplane::Body },
    /// A part of a shard's state.
    Audited { link: u64, id: u64, part: Audited, last: bool },
    /// A shard's sums.
    Figures(Box<Figures>),
    /// From an outpost.
    Bound { round: u64, shard: u16, bound: Bound },
    /// From the home: its answer to a batch of contexts on several shards.
    Decided { round: u64, body: from_dataplane::Body },
    /// From an outpost: its contexts are what the home says.
    Followed { round: u64, shard: u16 },
    /// From the spool. `over`: it takes no more packets of the context.
    Captured { state: CaptureState, over: bool },
}

/// A shard's sums at a tick.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) shard: u16,
    pub(crate) totals: forward::Totals,
    /// In the order of `forward::Drop::ALL`.
    pub(crate) drops: Vec<u64>,
    pub(crate) tally: Tally,
    /// CPU time of the thread so far, in nanoseconds.
    pub(crate) cpu_ns: u64,
    /// Share of the last tick in which the thread ran, 0..1000.
    pub(crate) busy_permille: u32,
    /// Legs whose peer should send and does not.
    pub(crate) legs_silent: u64,
    /// Packets that the spool had no room for.
    pub(crate) spool_missed: u64,
    /// News that control was too slow for.
    pub(crate) news_missed: u64,
    /// Datagrams of handshakes that their thread was too slow for.
    pub(crate) handshakes_missed: u64,
    /// Flows that the kernel's table did not take.
    pub(crate) flows_refused: u64,
}

/// Wakes whoever owns a mailbox.
pub(crate) trait Waker {
    fn wake(&self);
}

impl Waker for Wake {
    fn wake(&self) {
        Wake::wake(self);
    }
}

impl Waker for std::sync::Arc<mio::Waker> {
    fn wake(&self) {
        // It fails only when the poll is gone, and then nobody waits.
        let _ = mio::Waker::wake(self);
    }
}

/// Of a thread that sleeps at its mailbox.
impl Waker for () {
    fn wake(&self) {}
}

/// The sending end of a mailbox, for one thread.
#[derive(Debug)]
pub(crate) struct Outgoing<T, W> {
    sender: Sender<T>,
    waker: W,
    late: VecDeque<T>,
    told: bool,
}

impl<T, W: Waker> Outgoing<T, W> {
    pub(crate) fn new(sender: Sender<T>, waker: W) -> Self {
        Outgoing { sender, waker, late: VecDeque::new(), told: true }
    }

    /// Sends, or keeps for later what does not fit. The owner is woken by [`Outgoing::flush`].
    pub(crate) fn send(&mut self, message: T) {
        if self.late.is_empty() {
            match self.sender.try_send(message) {
                Ok(()) => self.told = false,
                Err(TrySendError::Full(message)) => self.late.push_back(message),
                Err(TrySendError::Disconnected(_)) => {} // its thread is gone: the process is ending
            }
        } else {
            self.late.push_back(message);
        }
    }

    /// Sends what may be lost; false when it is. It never waits, and leaves a quarter of the mailbox to what may not be lost.
    pub(crate) fn offer(&mut self, message: T) -> bool {
        let max = self.sender.capacity().unwrap_or(usize::MAX);
        if !self.late.is_empty() || self.sender.len() >= max - max / 4 {
            return false;
        }
        let sent = self.sender.try_send(message).is_ok();
        self.told &= !sent;
        sent
    }

    /// Tries what waits again, and wakes the owner if there is something new for it.
    pub(crate) fn flush(&mut self) {
        while let Some(message) = self.late.pop_front() {
            match self.sender.try_send(message) {
                Ok(()) => self.told = false,
                Err(TrySendError::Full(message)) => {
                    self.late.push_front(message);
                    break;
                }
                Err(TrySendError::Disconnected(_)) => self.late.clear(),
            }
        }
        if !std::mem::replace(&mut self.told, true) {
            self.waker.wake();
        }
    }

    /// Messages that did not fit.
    pub(crate) fn late(&self) -> usize {
        self.late.len()
    }
}

/// A mailbox with room for `max` messages.
pub(crate) fn mailbox<T>(max: usize) -> (Sender<T>, Receiver<T>) {
    bounded(max.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_waits_in_order_and_wakes_once() {
        struct Count(std::cell::Cell<u32>);
        impl Waker for &Count {
            fn wake(&self) {
                self.0.set(self.0.get() + 1);
            }
        }
        let (sender, receiver) = mailbox(2);
        let count = Count(0.into());
        let mut out = Outgoing::new(sender, &count);
        (0..5).for_each(|n| out.send(n));
        assert_eq!(out.late(), 3);
        out.flush();
        let mut got = Vec::new();
        while let Ok(n) = receiver.try_recv() {
            got.push(n);
            out.flush();
        }
        assert_eq!(got, [0, 1, 2, 3, 4]);
        assert_eq!((out.late(), count.0.get()), (0, 4));
    }

    #[test]
    fn what_may_be_lost_leaves_room_and_overtakes_nothing() {
        let (sender, receiver) = mailbox(8);
        let mut out = Outgoing::new(sender, ());
        assert_eq!((0..10).filter(|n| out.offer(*n)).count(), 6);
        (10..13).for_each(|n| out.send(n));
        assert_eq!(out.late(), 1);
        let first: Vec<i32> = (0..8).filter_map(|_| receiver.try_recv().ok()).collect();
        assert_eq!(first, [0, 1, 2, 3, 4, 5, 10, 11]);
        assert!(!out.offer(99), "12 waits");
        out.flush();
        assert!(out.offer(13));
        assert_eq!((receiver.try_recv(), receiver.try_recv()), (Ok(12), Ok(13)));
    }
}
