//! One switch that ends a run, from a signal, the admin socket or a test.

use std::sync::Arc;

use tokio::sync::watch;

/// Ends the run that it was given to; all clones are the same switch.
#[derive(Clone, Debug)]
pub struct Shutdown {
    on: Arc<watch::Sender<bool>>,
    signals: bool,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// A switch that only [`Shutdown::trigger`] throws (and the admin socket of the run that it was given to).
    pub fn new() -> Self {
        Shutdown { on: Arc::new(watch::Sender::new(false)), signals: false }
    }

    /// A switch that SIGTERM and SIGINT throw too: what a process's main wants.
    pub fn on_signals() -> Self {
        Shutdown { signals: true, ..Self::new() }
    }

    /// Ends the run; again has no effect.
    pub fn trigger(&self) {
        self.on.send_replace(true);
    }

    /// True once triggered.
    pub fn is_triggered(&self) -> bool {
        *self.on.borrow()
    }

    /// Waits until triggered.
    pub async fn triggered(&self) {
        // The sender lives in self: the wait cannot fail.
        let _ = self.on.subscribe().wait_for(|on| *on).await;
    }

    /// Lets signals throw the switch, if it was made so. Needs the runtime.
    pub(crate) fn watch_signals(&self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        if !self.signals {
            return Ok(());
        }
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let switch = self.clone();
        tokio::spawn(async move {
            let name = tokio::select! {
                _ = term.recv() => "SIGTERM",
                _ = int.recv() => "SIGINT",
                () = switch.triggered() => return,
            };
            tracing::info!(signal = name, "shutting down");
            switch.trigger();
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_clone_sees_the_trigger() {
        let switch = Shutdown::new();
        let waiter = tokio::spawn({
            let switch = switch.clone();
            async move { switch.triggered().await }
        });
        assert!(!switch.is_triggered());
        switch.clone().trigger();
        waiter.await.unwrap();
        switch.triggered().await;
        assert!(switch.is_triggered());
    }
}
