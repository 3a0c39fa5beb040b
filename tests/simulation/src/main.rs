#![forbid(unsafe_code)]
//! Runs seeds, shows how far it is, prints what was reached; says which seed broke a rule, and how to run it alone.

use std::io::Write as _;
use std::time::Instant;

use clap::Parser;
use simulation::{Cover, run};

/// MSRP through the data plane's engine, simulated.
#[derive(Parser)]
struct Options {
    /// How many seeds.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// This one alone, with all that happens in it.
    #[arg(long)]
    seed: Option<u64>,
    /// On so many threads; each seed runs on one.
    #[arg(long, default_value_t = 1)]
    threads: u64,
    /// Stop after so many seeds that broke a rule.
    #[arg(long, default_value_t = 5)]
    faults: usize,
}

fn main() -> std::process::ExitCode {
    let options = Options::parse();
    if let Some(seed) = options.seed {
        let outcome = run(seed, None);
        outcome.trace.iter().for_each(|line| println!("{line}"));
        println!("{}", outcome.cover);
        outcome.faults.iter().for_each(|fault| println!("FAULT {fault}"));
        return if outcome.faults.is_empty() { 0 } else { 1 }.into();
    }
    let began = Instant::now();
    let (results, incoming) = std::sync::mpsc::channel();
    let threads = options.threads.max(1);
    for thread in 0..threads {
        let (results, first, seeds) = (results.clone(), options.first, options.seeds);
        std::thread::spawn(move || {
            for seed in (first + thread..first + seeds).step_by(threads as usize) {
                if results.send((seed, run(seed, None))).is_err() {
                    return;
                }
            }
        });
    }
    drop(results);
    let (mut cover, mut done, mut failed) = (Cover::default(), 0, Vec::new());
    for (seed, outcome) in incoming {
        done += 1;
        cover.merge(&outcome.cover);
        if !outcome.faults.is_empty() {
            println!("\nseed {seed} (alone: --seed {seed}):");
            outcome.trace.iter().rev().take(25).rev().for_each(|line| println!("    {line}"));
            outcome.faults.iter().for_each(|fault| println!("  FAULT {fault}"));
            failed.push(seed);
        }
        if done % 50 == 0 || done == options.seeds {
            let each = began.elapsed().as_secs_f64() / done as f64;
            let left = each * (options.seeds - done) as f64;
            print!("\r{done} of {} seeds, {:.1} ms each, {left:.0} s left   ", options.seeds, each * 1000.0);
            // Progress that cannot be shown is no reason to stop.
            let _ = std::io::stdout().flush();
        }
        if failed.len() >= options.faults {
            break;
        }
    }
    println!("\n\n{cover}");
    let missing = if failed.is_empty() && done >= 300 { cover.missing() } else { Vec::new() };
    missing.iter().for_each(|row| println!("NOT REACHED {row}"));
    let verdict =
        if failed.is_empty() { "no rule was broken".to_owned() } else { format!("broken by {failed:?}") };
    println!("{done} seeds from {} in {:.1} s: {verdict}", options.first, began.elapsed().as_secs_f64());
    u8::from(!failed.is_empty() || !missing.is_empty()).into()
}
