//! The thread of DTLS handshakes: what a shard's engine has admitted comes here, so that no signature is ever made
//! between two packets. Its mailbox is bounded, and so is what waits for a shard; a datagram that finds no room is lost as it
//! could be on the wire, and its sender sends it again.
//!
//! A handshake that is over stays until its engine ends it: no other one begins under its name, whatever its peer sends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};
use dtls::{Event, Handshake, Identity};
use forward::{DtlsId, DtlsKeys, DtlsOrder, DtlsWord};
use netio::Wake;

use crate::mail::{Outgoing, ToShard, Waker};

/// To the thread.
#[derive(Debug)]
pub(crate) enum ToHandshakes {
    /// What an engine wants.
    Order { shard: u16, id: DtlsId, order: DtlsOrder },
    /// End.
    Stop,
}

/// Words that may wait for a shard before further datagrams for its peers are lost. (What a handshake came to never is: that
/// is said once.)
const WORDS_MAX: usize = 256;
/// The longest sleep while something waits for a full mailbox.
const LATE: Duration = Duration::from_millis(1);
const NAP: Duration = Duration::from_secs(10);
/// Orders in one turn before timers are looked at.
const TURN: usize = 64;

type Key = (u16, DtlsId);

/// The thread's state.
pub(crate) struct Handshakes<W = Wake> {
    identity: Identity,
    running: BTreeMap<Key, (Handshake, Option<Instant>)>,
    due: BTreeSet<(Instant, Key)>,
    running_max: usize,
    shards: Vec<Outgoing<ToShard, W>>,
    events: Vec<Event>,
    /// Datagrams for peers that were lost.
    missed: u64,
}

impl<W: Waker> Handshakes<W> {
    pub(crate) fn new(identity: Identity, running_max: usize, shards: Vec<Outgoing<ToShard, W>>) -> Self {
        Handshakes {
            identity,
            running: BTreeMap::new(),
            due: BTreeSet::new(),
            running_max,
            shards,
            events: Vec::new(),
            missed: 0,
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
            self.tell_missed();
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
        let Some(shard) = self.shards.get_mut(usize::from(shard)) else { return };
        if matches!(word, DtlsWord::Send(_)) && shard.late() >= WORDS_MAX {
            self.missed += 1;
            return;
        }
        shard.send(ToShard::Dtls { id, word });
    }

    /// The first shard that has room counts what was lost, with what it has lost itself.
    fn tell_missed(&mut self) {
        if self.missed > 0
            && let Some(shard) = self.shards.iter_mut().find(|shard| shard.late() == 0)
        {
            shard.send(ToShard::HandshakesMissed(std::mem::take(&mut self.missed)));
            shard.flush();
        }
    }

    fn forget(&mut self, key: Key) {
        if let Some((_, Some(due))) = self.running.remove(&key) {
            self.due.remove(&(due, key));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::*;
    use crate::mail::mailbox;

    impl Waker for &Cell<u32> {
        fn wake(&self) {
            self.set(self.get() + 1);
        }
    }

    fn identity() -> Identity {
        Identity::make(Duration::from_secs(30)).unwrap()
    }

    fn id(serial: u64) -> DtlsId {
        DtlsId { leg: 0, serial }
    }

    // Hostile reading, finding 11.
    #[test]
    fn what_waits_for_a_shard_that_is_stuck_is_bounded_and_what_was_lost_is_counted() {
        let (woken, (sender, shard)) = (Cell::new(0), mailbox(1));
        let mut handshakes = Handshakes::new(identity(), 1 << 20, vec![Outgoing::new(sender, &woken)]);
        let begun = 2 * WORDS_MAX as u64;
        for serial in 0..begun {
            handshakes.order((0, id(serial)), DtlsOrder::Begin);
        }
        assert_eq!(handshakes.shards[0].late(), WORDS_MAX);
        // What a handshake came to is said all the same.
        handshakes.running_max = 0;
        handshakes.order((0, id(begun)), DtlsOrder::Begin);
        let (mut words, mut failed, mut missed) = (0, 0, 0);
        loop {
            handshakes.shards[0].flush();
            handshakes.tell_missed();
            match shard.try_recv() {
                Ok(ToShard::Dtls { word: DtlsWord::Send(_), .. }) => words += 1,
                Ok(ToShard::Dtls { word: DtlsWord::Failed, .. }) => failed += 1,
                Ok(ToShard::HandshakesMissed(count)) => missed += count,
                Ok(other) => panic!("{other:?}"),
                Err(_) => break,
            }
        }
        assert_eq!((words, failed), (WORDS_MAX + 1, 1));
        assert!(words as u64 + missed >= begun && woken.get() > 0);
    }

    // Hostile reading, finding 10.
    #[test]
    fn under_the_name_of_a_handshake_that_is_over_no_other_begins() {
        let (woken, (sender, shard)) = (Cell::new(0), mailbox(64));
        let mut handshakes = Handshakes::new(identity(), 8, vec![Outgoing::new(sender, &woken)]);
        let said = |handshakes: &mut Handshakes<_>| {
            handshakes.shards[0].flush();
            shard.try_iter().filter(|mail| matches!(mail, ToShard::Dtls { .. })).count()
        };
        handshakes.order((0, id(1)), DtlsOrder::Begin);
        assert!(said(&mut handshakes) > 0);
        // Nobody goes on with it, and its time is over.
        let later = Instant::now() + Duration::from_secs(120);
        handshakes.with((0, id(1)), |handshake, events| handshake.timeout(later, events));
        said(&mut handshakes);
        assert!(handshakes.running.values().all(|(handshake, _)| handshake.is_over()));
        let hello = first_words();
        let again = || DtlsOrder::Datagram { active: false, bytes: hello.clone() };
        handshakes.order((0, id(1)), again());
        handshakes.order((0, id(1)), DtlsOrder::Begin);
        assert_eq!(said(&mut handshakes), 0);
        handshakes.order((0, id(1)), DtlsOrder::End);
        assert!(handshakes.running.is_empty() && handshakes.due.is_empty());
        // Under another name the same words begin one.
        handshakes.order((0, id(2)), again());
        assert!(said(&mut handshakes) > 0);
    }

    /// What a client says first.
    fn first_words() -> bytes::Bytes {
        let (now, mut events) = (Instant::now(), Vec::new());
        Handshake::new(&identity(), true, now).timeout(now, &mut events);
        let sent =
            events.into_iter().find_map(|e| if let Event::Send(bytes) = e { Some(bytes) } else { None });
        sent.unwrap()
    }
}
