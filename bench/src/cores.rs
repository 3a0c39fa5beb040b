//! What a cache line takes from the core of the loads to the measured one, and back.
//!
//! Two threads, one on each core, add one to a number in turns. On a guest this changes by the minute with the cores that
//! its host gives it, and with it every row in which something crosses from core to core: it is measured with each result.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use crate::rtp::{clock, median};

/// Turns of one measurement, of which the median of several counts.
const TURNS: u32 = 1000;
const TIMES: u32 = 15;

/// Nanoseconds one way now; `None` where there is one core only, or no thread.
pub(crate) fn core_to_core_ns() -> Option<f64> {
    let (first, second) = clock::cores();
    if first == second {
        return None;
    }
    let number = AtomicU32::new(0);
    let times = std::thread::scope(|scope| {
        let play = |core: usize, parity: u32| {
            let number = &number;
            move || {
                clock::pin(core);
                let mut times = Vec::new();
                for _ in 0..TIMES {
                    let start = Instant::now();
                    for _ in 0..TURNS {
                        let now = turn(number, parity);
                        number.store(now.wrapping_add(1), Ordering::Release);
                    }
                    times.push(start.elapsed().as_nanos() as f64 / f64::from(2 * TURNS));
                }
                times
            }
        };
        let other = scope.spawn(play(second, 1));
        let times = scope.spawn(play(first, 0)).join().ok()?;
        other.join().ok()?;
        Some(times)
    })?;
    Some(median(&times, |ns| *ns))
}

/// The number, when it is this side's turn.
fn turn(number: &AtomicU32, parity: u32) -> u32 {
    let mut looks = 0_u32;
    loop {
        let now = number.load(Ordering::Acquire);
        if now % 2 == parity {
            return now;
        }
        looks += 1;
        // Whoever shares a core with the other side would wait for itself.
        if looks.is_multiple_of(10_000) {
            std::thread::yield_now();
        }
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_line_takes_some_time() {
        if let Some(ns) = super::core_to_core_ns() {
            assert!(ns > 0.0 && ns.is_finite(), "{ns}");
        }
    }
}
