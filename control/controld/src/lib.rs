#![forbid(unsafe_code)]
//! The control process: SIP transports, lanes, prefetch, perform, the link to the data plane, metrics.
//!
//! receive (`edge`, `front`) → prefetch (`lane`, the store) → decide (`service`) → perform (`lane`, `front`,
//! `link`). Nothing is decided here; everything that touches a socket, a clock, a file or a thread is.

mod admin;
mod clock;
mod config;
mod edge;
mod ended;
mod front;
mod lane;
mod link;
mod metrics;
mod resolve;
mod run;
mod shutdown;
#[cfg(test)]
mod tests;
mod trace;
mod upkeep;

pub use admin::{Ask as AdminAsk, Settings as AdminConfig};
pub use config::{Config, ConfigError, Lanes};
pub use edge::{
    Hep as HepConfig, Limits as EdgeLimits, Listener, Settings as SipConfig, Tls as TlsConfig, TlsPeer,
    Transport,
};
pub use ended::Settings as EndedConfig;
pub use link::Settings as DataplaneConfig;
pub use metrics::Settings as MetricsConfig;
pub use resolve::Settings as DnsConfig;
pub use run::{Addresses, Running, run, start};
pub use shutdown::Shutdown;
pub use trace::{Event as TraceEvent, Kind as TraceKind, Settings as TraceConfig, Wanted as TraceWanted};
