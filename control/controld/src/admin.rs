//! The admin socket: a Unix socket on which `weir status` asks, one JSON object a line each way.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The section `[admin]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Path of the socket; without one, `control.sock` in the folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
}
