//! Mailboxes between the threads: bounded, and a sender never blocks nor loses. What does not fit waits with the
//! sender, which then takes no more input of the kind that filled it.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::Bytes;
use contract::{Audited, Batch, CaptureState, Decide, from_dataplane};
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use forward::{CloseReason, DtlsId, DtlsWord};
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
    /// From the thread of handshakes.
    Dtls { id: DtlsId, word: DtlsWord },
    /// From the same: so many datagrams found no room on their way to a shard.
    HandshakesMissed(u64),
}

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
}
