//! The tables of what a session sends: messages by key and by Message-ID, whose turn it is, and the requests whose
//! answer may come.

use std::collections::{BTreeMap, VecDeque};

use base::TimerId;

use super::Key;
use crate::chunk::Chunker;
use crate::{FailureReport, Ranges, Tid};

/// What a request was sent for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    /// A chunk of a message.
    Message(Key),
    /// A nickname.
    Nickname(Key),
    /// An empty SEND.
    Probe,
}

/// A request whose answer may come.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) what: What,
    pub(super) timer: Option<TimerId>,
    /// Silence is failure.
    pub(super) waits: bool,
}

#[derive(Debug)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) content_type: String,
    pub(super) chunker: Chunker,
    pub(super) success_report: bool,
    pub(super) failure_report: FailureReport,
    pub(super) headers: Vec<(String, String)>,
    /// Chunks that must be answered and are not.
    pub(super) unanswered: usize,
    /// Chunks whose answer may still come.
    pub(super) open: usize,
    pub(super) accepted: bool,
    pub(super) acknowledged: Ranges,
    pub(super) report_timer: Option<TimerId>,
}

/// The sending half of a session.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) messages: BTreeMap<Key, Message>,
    /// Messages with chunks to come, in turn.
    pub(super) turns: VecDeque<Key>,
    /// By Message-ID.
    pub(super) ids: BTreeMap<String, Key>,
    pub(super) transactions: BTreeMap<Tid, Transaction>,
    /// Those of them that are chunks and must be answered.
    pub(super) waiting: usize,
    pub(super) refused_types: Vec<String>,
    pub(super) queued_octets: u64,
    pub(super) awaited_reports: VecDeque<Key>,
    pub(super) under_way: u64,
    pub(super) stalled: bool,
}

impl Sending {
    pub(super) fn new() -> Self {
        Sending {
            messages: BTreeMap::new(),
            turns: VecDeque::new(),
            ids: BTreeMap::new(),
            transactions: BTreeMap::new(),
            waiting: 0,
            refused_types: Vec::new(),
            queued_octets: 0,
            awaited_reports: VecDeque::new(),
            under_way: 0,
            stalled: false,
        }
    }

    pub(super) fn under_way(&mut self, octets: u64) {
        self.under_way = self.under_way.saturating_add(octets);
    }

    pub(super) fn drained(&mut self, octets: u64) {
        self.under_way = self.under_way.saturating_sub(octets);
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.stalled
    }

    pub(super) fn is_all_out(&self) -> bool {
        self.turns.is_empty()
    }

    /// Requests besides the chunks that must be answered.
    pub(super) fn others(&self) -> usize {
        self.transactions.len() - self.waiting
    }

    pub(super) fn take_transaction(&mut self, tid: &Tid) -> Option<Transaction> {
        let transaction = self.transactions.remove(tid)?;
        self.waiting -= usize::from(transaction.is_waiting_chunk());
        Some(transaction)
    }

    /// Takes one thing out that will never be answered now.
    pub(super) fn take_one(&mut self) -> Option<What> {
        self.stalled = false;
        if let Some((key, message)) = self.messages.pop_first() {
            // An accepted message whose report or late error did not come has not failed.
            return Some(if message.accepted { What::Probe } else { What::Message(key) });
        }
        let tid = *self.transactions.first_key_value()?.0;
        let transaction = self.take_transaction(&tid)?;
        Some(match transaction.what {
            What::Message(_) => What::Probe,
            other => other,
        })
    }

    /// Removes a message and what waits for it; its timers come back.
    pub(super) fn remove(&mut self, key: Key) -> Option<(Message, Vec<TimerId>)> {
        let message = self.messages.remove(&key)?;
        if self.ids.get(&message.id) == Some(&key) {
            self.ids.remove(&message.id);
        }
        let mut timers = Vec::from_iter(message.report_timer);
        if message.open > 0 {
            let of_it = |t: &Transaction| t.what == What::Message(key);
            for transaction in self.transactions.values().filter(|t| of_it(t)) {
                timers.extend(transaction.timer);
                self.waiting -= usize::from(transaction.waits);
            }
            self.transactions.retain(|_, t| !of_it(t));
        }
        if !message.chunker.is_done() {
            self.turns.retain(|k| *k != key);
            self.queued_octets = self.queued_octets.saturating_sub(message.chunker.total());
        }
        if message.report_timer.is_some() {
            self.awaits_no_report(key);
        }
        Some((message, timers))
    }

    pub(super) fn awaits_no_report(&mut self, key: Key) {
        // Reports come about in the order of the messages: it is among the first.
        if let Some(at) = self.awaited_reports.iter().position(|k| *k == key) {
            self.awaited_reports.remove(at);
        }
    }
}

impl Transaction {
    pub(super) fn is_waiting_chunk(&self) -> bool {
        self.waits && matches!(self.what, What::Message(_))
    }
}

impl Message {
    /// Nothing more can come of it.
    pub(super) fn is_finished(&self) -> bool {
        self.accepted && self.open == 0 && !self.success_report
    }
}
