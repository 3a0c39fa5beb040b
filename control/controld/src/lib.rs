#![forbid(unsafe_code)]
//! The control process: SIP transports, lanes, prefetch, perform, the link to the data plane, metrics.
//!
//! receive (`edge`, `front`) → prefetch (`lane`, the store) → decide (`service`) → perform (`lane`, `front`,
//! `link`). Nothing is decided here; everything that touches a socket, a clock, a file or a thread is.

mod admin;
mod config;
mod edge;
mod metrics;
mod run;
mod shutdown;

pub use admin::Settings as AdminConfig;
pub use config::{Config, ConfigError, Lanes};
pub use edge::{Limits as EdgeLimits, Listener, Settings as SipConfig, Tls as TlsConfig, Transport};
pub use metrics::Settings as MetricsConfig;
pub use run::{Addresses, Running, run, start};
pub use shutdown::Shutdown;
