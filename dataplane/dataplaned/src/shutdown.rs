//! One switch that ends a run, from a signal, a supervisor or a test.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use netio::Signals;

/// Ends the run that it was given to; all clones are the same switch.
#[derive(Clone, Debug)]
pub struct Shutdown {
    switch: Arc<Switch>,
    signals: Option<Signals>,
}

#[derive(Debug, Default)]
struct Switch {
    on: AtomicBool,
    waiting: Mutex<()>,
    changed: Condvar,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// A switch that only [`Shutdown::trigger`] throws.
    pub fn new() -> Self {
        Shutdown { switch: Arc::default(), signals: None }
    }

    /// A switch that SIGTERM and SIGINT throw too: what a process's main wants. Call it before threads are started.
    pub fn on_signals() -> Self {
        let signals = Signals::block();
        if let Err(error) = &signals {
            tracing::warn!(%error, "signals end this process at once");
        }
        Shutdown { signals: signals.ok(), ..Self::new() }
    }

    /// Ends the run; again has no effect.
    pub fn trigger(&self) {
        self.switch.on.store(true, Ordering::Release);
        let _held = self.switch.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.switch.changed.notify_all();
    }

    /// True once triggered.
    pub fn is_triggered(&self) -> bool {
        self.switch.on.load(Ordering::Acquire)
    }

    /// Waits until triggered, at most for `time`.
    pub(crate) fn wait(&self, time: Duration) {
        if let Some(signals) = self.signals {
            if let Some(signal) = signals.wait(time.min(Duration::from_millis(50))) {
                tracing::info!(signal, "shutting down");
                self.trigger();
            }
            return;
        }
        let held = self.switch.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.switch.changed.wait_timeout_while(held, time, |()| !self.is_triggered());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_clone_sees_the_trigger_and_waiting_ends() {
        let switch = Shutdown::new();
        let other = switch.clone();
        let waiter = std::thread::spawn(move || {
            while !other.is_triggered() {
                other.wait(Duration::from_secs(60));
            }
        });
        switch.trigger();
        waiter.join().unwrap();
    }
}
