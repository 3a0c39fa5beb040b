//! The thread of DTLS handshakes: what a shard's engine has admitted comes here, so that no signature is ever made
//! between two packets. Its mailbox is bounded; a datagram that finds no room is lost as it could be on the wire, and its
//! peer sends it again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};
use dtls::{Event, Handshake, Identity};
use forward::{DtlsId, DtlsKeys, DtlsOrder, DtlsWord};
use netio::Wake;

use crate::mail::{Outgoing, ToShard};

/// To the thread.
#[derive(Debug)]
pub(crate) enum ToHandshakes {
    /// What an engine wants.
    Order { shard: u16, id: DtlsId, order: DtlsOrder },
    /// End.
    Stop,
}

/// The longest sleep while something waits for a full mailbox.
const LATE: Duration = Duration::from_millis(1);
const NAP: Duration = Duration::from_secs(10);
/// Orders in one turn before timers are looked at.
const TURN: usize = 64;

type Key = (u16, DtlsId);

/// The thread's state.
pub(crate) struct Handshakes {
    identity: Identity,
    running: BTreeMap<Key, (Handshake, Option<Instant>)>,
    due: BTreeSet<(Instant, Key)>,
    running_max: usize,
    shards: Vec<Outgoing<ToShard, Wake>>,
    events: Vec<Event>,
}

impl Handshakes {
    pub(crate) fn new(identity: Identity, running_max: usize, shards: Vec<Outgoing<ToShard, Wake>>) -> Self {
        Handshakes {
            identity,
            running: BTreeMap::new(),
            due: BTreeSet::new(),
            running_max,
            shards,
            events: Vec::new(),
        }
    }

    /// Runs until told to stop.
    pub(crate) fn run(mut self, mailbox: &Receiver<ToHandshakes>) {
        loop {
            let mut next = mailbox.recv_timeout(self.nap(Instant::now()));
            for _ in 0..TURN {
                match next {
                    Ok(ToHandshakes::Order { shard, id, order }) => self.order((shard, id), order),
                    Ok(ToHandshakes::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => break,
                }
                next = mailbox.try_recv().map_err(|_| RecvTimeoutError::Timeout);
            }
            if let Ok(ToHandshakes::Order { shard, id, order }) = next {
                self.order((shard, id), order);
            }
            self.timeouts(Instant::now());
            self.shards.iter_mut().for_each(Outgoing::flush);
        }
    }

    fn nap(&self, now: Instant) -> Duration {
        if self.shards.iter().any(|shard| shard.late() > 0) {
            return LATE;
        }
        let due = self.due.first().map(|(at, _)| at.saturating_duration_since(now));
        due.unwrap_or(NAP).min(NAP)
    }

    fn order(&mut self, key: Key, order: DtlsOrder) {
        let now = Instant::now();
        let (active, bytes) = match order {
            DtlsOrder::End => return self.forget(key),
            DtlsOrder::Begin => (true, None),
            DtlsOrder::Datagram { active, bytes } => (active, Some(bytes)),
        };
        if !self.running.contains_key(&key) {
            if self.running.len() >= self.running_max {
                return self.say(key, DtlsWord::Failed);
            }
            self.running.insert(key, (Handshake::new(&self.identity, active, now), None));
        }
        self.with(key, |handshake, events| match &bytes {
            Some(bytes) => handshake.datagram(now, bytes, events),
            None => handshake.timeout(now, events),
        });
    }

    fn timeouts(&mut self, now: Instant) {
        while let Some((_, key)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.with(key, |handshake, events| handshake.timeout(now, events));
            // One whose time does not go on would be looked at for ever.
            if let Some((_, due)) = self.running.get_mut(&key)
                && let Some(at) = due.filter(|at| *at <= now)
            {
                self.due.remove(&(at, key));
                *due = Some(now + LATE);
                self.due.insert((now + LATE, key));
            }
        }
    }

    /// Does something with a handshake, passes on what came of it, and sees when it is due.
    fn with(&mut self, key: Key, act: impl FnOnce(&mut Handshake, &mut Vec<Event>)) {
        let mut events = std::mem::take(&mut self.events);
        if let Some((handshake, due)) = self.running.get_mut(&key) {
            act(handshake, &mut events);
            let next = handshake.next_timeout();
            if let Some(before) = std::mem::replace(due, next) {
                self.due.remove(&(before, key));
            }
            self.due.extend(next.map(|at| (at, key)));
            if handshake.is_over() {
                self.running.remove(&key);
            }
        }
        for event in events.drain(..) {
            let word = match event {
                Event::Send(bytes) => DtlsWord::Send(bytes),
                Event::Keys(keys) => DtlsWord::Keys(Box::new(DtlsKeys {
                    fingerprint: keys.fingerprint,
                    send: keys.send,
                    receive: keys.receive,
                })),
                Event::Failed => DtlsWord::Failed,
                Event::Closed => DtlsWord::Closed,
            };
            self.say(key, word);
        }
        self.events = events;
    }

    fn say(&mut self, (shard, id): Key, word: DtlsWord) {
        if let Some(shard) = self.shards.get_mut(usize::from(shard)) {
            shard.send(ToShard::Dtls { id, word });
        }
    }

    fn forget(&mut self, key: Key) {
        if let Some((_, Some(due))) = self.running.remove(&key) {
            self.due.remove(&(due, key));
        }
    }
}
