//! The stream of everything that arrives at a device, kept in order so that a test can wait for what it expects.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

/// A bounded log that one device writes and anybody waits on. Clones show the same log.
#[derive(Clone, Debug)]
pub struct Log<E> {
    inner: Arc<Inner<E>>,
}

#[derive(Debug)]
struct Inner<E> {
    state: Mutex<State<E>>,
    news: Notify,
}

#[derive(Debug)]
struct State<E> {
    kept: VecDeque<E>,
    max: usize,
    forgotten: u64,
}

impl<E: Clone> Log<E> {
    /// A log of the last `max` events.
    pub fn with_max(max: usize) -> Self {
        Log {
            inner: Arc::new(Inner {
                state: Mutex::new(State { kept: VecDeque::new(), max, forgotten: 0 }),
                news: Notify::new(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<E>> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event; the oldest is forgotten when there is no room.
    pub fn push(&self, event: E) {
        let mut state = self.state();
        if state.kept.len() >= state.max {
            state.kept.pop_front();
            state.forgotten += 1;
        }
        if state.max > 0 {
            state.kept.push_back(event);
        }
        drop(state);
        self.inner.news.notify_waiters();
    }

    /// Where the log stands now: a mark to read from later.
    pub fn mark(&self) -> u64 {
        let state = self.state();
        state.forgotten + state.kept.len() as u64
    }

    /// Every kept event after a mark.
    pub fn since(&self, mark: u64) -> Vec<E> {
        self.read(mark).0
    }

    fn read(&self, mark: u64) -> (Vec<E>, u64) {
        let state = self.state();
        let skip = usize::try_from(mark.saturating_sub(state.forgotten)).unwrap_or(usize::MAX);
        (state.kept.iter().skip(skip).cloned().collect(), state.forgotten + state.kept.len() as u64)
    }

    /// How many kept events fit.
    pub fn count(&self, fits: impl Fn(&E) -> bool) -> usize {
        self.state().kept.iter().filter(|e| fits(e)).count()
    }

    /// The first event after `mark` of which `pick` makes something; waits until there is one or time is up.
    pub async fn wait<T>(&self, mark: u64, limit: Duration, pick: impl Fn(&E) -> Option<T>) -> Option<T> {
        tokio::time::timeout(limit, async {
            let mut at = mark;
            loop {
                let notified = self.inner.news.notified();
                tokio::pin!(notified);
                // Registered before the look, so that nothing falls between look and wait.
                notified.as_mut().enable();
                let (fresh, next) = self.read(at);
                if let Some(found) = fresh.iter().find_map(&pick) {
                    return found;
                }
                at = next;
                notified.await;
            }
        })
        .await
        .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_waiter_finds_what_came_before_and_what_comes_after() {
        let log = Log::with_max(2);
        log.push(1);
        let even = |e: &i32| (*e % 2 == 0).then_some(*e);
        let waiting = tokio::spawn({
            let log = log.clone();
            async move { log.wait(0, Duration::from_secs(5), even).await }
        });
        tokio::task::yield_now().await;
        log.push(3);
        log.push(4);
        assert_eq!(waiting.await.unwrap(), Some(4));
        assert_eq!(log.wait(log.mark(), Duration::from_millis(5), even).await, None);
        assert_eq!((log.since(0), log.mark()), (vec![3, 4], 3));
    }
}
