#![forbid(unsafe_code)]
//! Suites that look at the system from outside. This library holds what several suites share: where the
//! workspace lies and what its manifests say, and a node that runs in the test's own process.

pub mod dataplane;
pub mod msrp_peer;
pub mod namespace;
pub mod node;
pub mod requirements;
pub mod sipp;
pub mod webrtc;
pub mod workspace;
