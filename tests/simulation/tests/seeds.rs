//! A few hundred seeds: no rule is broken, and everything that must be reached is.

use simulation::{Cover, run};

const SEEDS: u64 = 300;

#[test]
fn what_is_accepted_comes_once_and_whole_to_each_frozen_recipient_and_to_nobody_else() {
    let mut cover = Cover::default();
    for seed in 1..=SEEDS {
        let outcome = run(seed, None);
        cover.merge(&outcome.cover);
        let (trace, faults) = (outcome.trace.join("\n"), outcome.faults.join("\n"));
        assert!(faults.is_empty(), "seed {seed}:\n{trace}\n{faults}");
    }
    println!("{cover}");
    assert_eq!(cover.missing(), Vec::<String>::new(), "{cover}");
}

// DESIGN §2, invariant 7.
#[test]
fn the_same_seed_gives_the_same_world() {
    for seed in 1..=5 {
        let (one, two) = (run(seed, None), run(seed, None));
        assert_eq!((one.trace, one.cover), (two.trace, two.cover));
    }
}
