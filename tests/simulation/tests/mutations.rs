//! Rules broken on purpose are noticed, and for what they are: a checker that lets them pass checks nothing.

use simulation::{Mutation, run};

/// How many seeds a broken rule may need.
const SEEDS: u64 = 80;

/// A broken rule, and what of its words must be in the verdict.
fn verdict(mutation: Mutation) -> &'static str {
    match mutation {
        Mutation::LostEndFlag | Mutation::LostAbort => "it is neither whole nor given up",
        Mutation::DoubledChunk => "it has octets twice",
        Mutation::LateTail
        | Mutation::LateTailElsewhere
        | Mutation::OtherSession
        | Mutation::PrivateToAll => "octets that are not for it",
        Mutation::SwappedMessages => "of one sender",
        Mutation::SilentDrop => "it was accepted, and has not come",
        Mutation::EndAfterAbort => "it was ended before its end",
        Mutation::AlteredOctet | Mutation::HandedTwice | Mutation::HandedOutOfOrder => "that nobody said",
        Mutation::LostHandedEnd => "it was accepted, and has not come",
        Mutation::LostTaken => "is held back",
        Mutation::EarlySent => "its success was reported before",
        Mutation::InventedReport => "a success REPORT that",
        Mutation::LostReport => "nothing was reported, though success was asked for",
        Mutation::TapHoldsBack => "is held back, and by no member",
        Mutation::TapReports => "a success REPORT that",
        Mutation::LostWrite => "that nobody said",
        Mutation::LostFetch => "at rest",
        Mutation::EarlyOver => "it came after control was told that he has all of it",
        Mutation::LostAnswer => "was never answered",
        Mutation::DoubledAnswer => "was answered 2 times",
        Mutation::FriendlyAnswer => "was answered 20",
    }
}

#[test]
fn each_broken_rule_is_noticed_for_what_it_is() {
    for mutation in Mutation::ALL {
        let noticed = |seed: &u64| {
            let faults = run(*seed, Some(*mutation)).faults;
            faults.iter().any(|fault| fault.contains(verdict(*mutation)))
        };
        let found = (1..=SEEDS).find(noticed);
        println!("{mutation:?}: {found:?}");
        assert!(found.is_some(), "{mutation:?} was not noticed in {SEEDS} seeds");
    }
}

/// Without a broken rule the same seeds are clean: what is noticed is the broken rule and nothing else.
#[test]
fn the_same_seeds_are_clean_without_it() {
    for seed in 1..=SEEDS {
        assert_eq!(run(seed, None).faults, Vec::<String>::new(), "seed {seed}");
    }
}
