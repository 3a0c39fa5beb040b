//! The data plane as a process sees it from outside: its socket, its ports, its files, its metrics.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail by panic too")]

mod control;
mod kernel;
mod media;
mod message;
mod ng;
mod outposts;
mod rooms;
mod spill;
mod words;
