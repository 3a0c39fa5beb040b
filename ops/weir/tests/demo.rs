//! The README's first command: it exits 0 with each driver, prints its table, and leaves nothing behind.
#![expect(clippy::unwrap_used, reason = "helpers of a test fail the test")]

use std::process::Command;
use std::sync::{Mutex, PoisonError};

fn demo(driver: &str, more: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["demo", "--driver", driver])
        .args(more)
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    let (said, odd) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{driver}:\n{said}\n{odd}");
    assert!(!said.contains("FAILED") && said.contains("expectations held."), "{said}");
    for device in ["ann/phone", "bob/phone", "bob/tablet", "carol/laptop", "dave/phone"] {
        let rows = said.lines().filter(|line| line.starts_with(&format!("{device} "))).count();
        assert_eq!(rows, 1, "one row for {device} in\n{said}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the folder is gone");
    said.into_owned()
}

/// One after the other: two nodes that start together would find the same ports free.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn the_demo_passes_with_mio_and_with_the_driver_that_measures_better() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    demo("mio", &[]);
    demo("auto", &[]);
}

// Contexts are at home on different shards, each with listeners and ports of its own (DESIGN §3, "Connections").
#[test]
fn the_demo_passes_with_two_shards_and_each_was_home_to_a_session() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for driver in ["mio", "uring"] {
        let said = demo(driver, &["--shards", "2"]);
        assert!(said.contains("ok  each of 2 shards was home to a session"), "{said}");
    }
}
