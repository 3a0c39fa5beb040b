#![forbid(unsafe_code)]
//! The data plane process: one shard thread per core, a steward thread that speaks `contract`, a spool thread for
//! files, a thread for DTLS handshakes, one that looks up names, metrics.
//!
//! ```text
//!   control ── socket or TLS ─ steward ──┬── mailbox ── shard 0: driver + engine ──┐
//!                                       ├── mailbox ── shard 1: driver + engine ──┤ packets to keep
//!                     metrics ◄─────────┘        └────── mailbox ──────┘          └──► spool ── files
//! ```
//!
//! Nothing is decided here: a shard carries events from its driver (`netio`) to its engine (`forward`) and does what
//! the engine wants. It reads the clock once per batch.

mod certificate;
mod config;
mod handshakes;
mod mail;
mod metrics;
mod names;
mod quality;
mod relay;
mod run;
mod shard;
mod shutdown;
mod spool;
mod steward;

pub use config::{
    Config, ContractSettings, DriverSettings, Interface, KernelRelaySettings, LimitSettings, MetricsSettings,
    MsrpSettings, NgSettings, RtpSettings, ShardSettings, SpoolSettings,
};
pub use relay::RelaySettings;
pub use run::{Addresses, Running, run, start};
pub use shutdown::Shutdown;
pub use spool::{Files, SpoolFile};
