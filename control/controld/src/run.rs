//! Putting the process together and taking it down again.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;

use crate::{Config, Shutdown, Transport};

/// Where a run can be reached: what was bound, after port 0 and taken default ports were resolved.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// SIP listeners, in the order of the configuration (UDP, TCP, TLS for the default ones).
    pub sip: Vec<(Transport, SocketAddr)>,
    /// The Prometheus endpoint.
    pub metrics: Option<SocketAddr>,
    /// The admin socket.
    pub admin: PathBuf,
}

impl Addresses {
    /// The first listener of a transport.
    pub fn sip(&self, transport: Transport) -> Option<SocketAddr> {
        self.sip.iter().find(|(t, _)| *t == transport).map(|(_, address)| *address)
    }
}

/// A run that is up. Dropping it ends it without waiting; [`Running::join`] waits.
#[derive(Debug)]
pub struct Running {
    addresses: Addresses,
    shutdown: Shutdown,
    runtime: Option<tokio::runtime::Runtime>,
}

/// Runs control until `shutdown` is triggered; blocks the calling thread and brings its own runtime.
pub fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    start(config, shutdown)?.join()
}

/// Starts control and returns when every listener is bound and the store is open. Must not be called from inside
/// a tokio runtime (start a thread).
pub fn start(config: Config, shutdown: Shutdown) -> anyhow::Result<Running> {
    config.check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .context("the runtime")?;
    {
        let _inside = runtime.enter();
        shutdown.watch_signals().context("signal handlers")?;
    }
    let addresses = Addresses {
        sip: Vec::new(),
        metrics: None,
        admin: config.place(&config.admin.socket, "control.sock"),
    };
    Ok(Running { addresses, shutdown, runtime: Some(runtime) })
}

impl Running {
    /// Where it can be reached.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The switch that ends it.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Waits until the run has ended.
    pub fn join(mut self) -> anyhow::Result<()> {
        if let Some(runtime) = self.runtime.take() {
            runtime.block_on(self.shutdown.triggered());
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.trigger();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
