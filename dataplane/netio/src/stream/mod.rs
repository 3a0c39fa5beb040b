//! Stream connections of one shard, with their TLS. Driven by readiness, so both drivers share them: the measured
//! cost of TCP is in messages per system call, not in which call it is (a writev of what a batch wrote).

mod conn;
mod table;
mod transport;

pub(crate) use table::{Happening, Key, Registry, Streams};
