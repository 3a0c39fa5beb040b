//! What the parts of one device share: its settings, its log, its counters, its dice.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use base::{Entropy, UnixTime};

use crate::{Account, Counters, Event, Identity, Log, Notice};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) account: Account,
    pub(crate) log: Log<Event>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) identity: Arc<Identity>,
    entropy: Mutex<Entropy>,
}

impl Shared {
    pub(crate) fn new(
        account: Account,
        counters: Arc<Counters>,
        identity: Arc<Identity>,
        entropy: Entropy,
    ) -> Arc<Self> {
        let log = Log::with_max(account.events_max);
        Arc::new(Shared { account, log, counters, identity, entropy: Mutex::new(entropy) })
    }

    pub(crate) fn tell(&self, event: Event) {
        self.log.push(event);
    }

    pub(crate) fn fault(&self, what: impl Into<String>) {
        self.counters.faults.one();
        self.log.push(Event::Fault(what.into()));
    }

    pub(crate) fn count_notice(&self, notice: &Notice) {
        match notice.status.as_str() {
            "delivered" => self.counters.delivered_received.one(),
            "displayed" => self.counters.displayed_received.one(),
            _ => self.counters.failed_received.one(),
        }
    }

    pub(crate) fn entropy(&self) -> Entropy {
        self.entropy.lock().unwrap_or_else(PoisonError::into_inner).child()
    }

    pub(crate) fn token(&self, bits: usize) -> String {
        self.entropy.lock().unwrap_or_else(PoisonError::into_inner).token(bits)
    }
}

pub(crate) fn wall() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
