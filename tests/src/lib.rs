#![forbid(unsafe_code)]
//! Suites that look at the system from outside. This library holds what several suites share: where the
//! workspace lies and what its manifests say.

pub mod namespace;
pub mod requirements;
pub mod workspace;
