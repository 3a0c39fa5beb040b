//! Putting the process together and taking it down again.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::{Config, Shutdown};

/// Where a run can be reached: what was bound, after port 0 was resolved.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The Unix socket that control connects to.
    pub socket: PathBuf,
    /// Each shard's MSRP listeners: TCP, and TLS if there is one.
    pub msrp: Vec<(SocketAddr, Option<SocketAddr>)>,
    /// The Prometheus endpoint.
    pub metrics: Option<SocketAddr>,
}

/// A run that is up, on threads of its own. Dropping it ends it and waits.
#[derive(Debug)]
pub struct Running {
    addresses: Addresses,
    shutdown: Shutdown,
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
}

/// Starts a data plane on threads of its own; it is ready when this returns.
pub fn start(config: Config, shutdown: Shutdown) -> anyhow::Result<Running> {
    config.check()?;
    let _ = shutdown;
    anyhow::bail!("the shards come with the next commit")
}

/// Runs a data plane until the switch is thrown.
pub fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    let running = start(config, shutdown)?;
    while !running.shutdown.is_triggered() {
        running.shutdown.wait(std::time::Duration::from_secs(1));
    }
    Ok(())
}
