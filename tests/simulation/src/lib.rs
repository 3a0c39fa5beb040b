#![forbid(unsafe_code)]
//! MSRP through the data plane's engine, all in one thread under one seed (DESIGN §8): peers made by hand that write in
//! hostile orders, a network that cuts, stalls and resets, a control that puts, removes and decides late, and the engines
//! of three shards, of which a room may be on all, each with a disk. What is checked is written in `check`; what was reached is counted in `cover`; rules broken on purpose
//! are in `mutate`.
//!
//! Deliberately not here: sockets, TLS, SIP, the store; RTP.

mod check;
mod client;
mod control;
mod cover;
mod dice;
mod disk;
mod link;
mod mutate;
mod said;
mod seat;
mod shards;
mod world;

pub use cover::Cover;
pub use mutate::Mutation;

/// What became of one seed.
#[derive(Debug)]
pub struct Outcome {
    /// Rules that were broken, in words.
    pub faults: Vec<String>,
    /// The last things that happened.
    pub trace: Vec<String>,
    /// What was reached.
    pub cover: Cover,
}

/// Runs the world of a seed to its end, with the rules as they are or with one broken on purpose.
pub fn run(seed: u64, broken: Option<Mutation>) -> Outcome {
    let mut world = world::World::new(seed, broken);
    world.run();
    world.finish()
}
