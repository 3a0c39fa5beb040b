#![forbid(unsafe_code)]
//! The data plane process: shards, steward, spool, metrics.
