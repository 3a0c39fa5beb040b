#![forbid(unsafe_code)]
//! A CPM client library: what benches, tests, the demo and `weir ue` all drive.

pub mod audio;
mod event;
mod flow;
mod stats;

pub use event::Log;
pub use flow::{Flow, FlowOptions};
pub use stats::{FlowStats, SourceStats};
