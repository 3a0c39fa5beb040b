//! What control counts. Names are `weir_control_<noun>_<what>_<unit>`; labels come from closed enums only, and every
//! value of an enum is exported from the start, zero included.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The section `[metrics]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Serve Prometheus' text format at `/metrics`.
    pub on: bool,
    /// Where.
    pub address: SocketAddr,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { on: true, address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9461) }
    }
}
