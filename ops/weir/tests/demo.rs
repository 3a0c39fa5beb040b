//! The README's first command: it exits 0 with each driver, prints its table, and leaves nothing behind.
#![expect(clippy::unwrap_used, reason = "helpers of a test fail the test")]

use std::process::Command;

fn demo(driver: &str) {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["demo", "--driver", driver])
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
}

// One after the other: two nodes that start together would find the same ports free.
#[test]
fn the_demo_passes_with_mio_and_with_the_driver_that_measures_better() {
    demo("mio");
    demo("auto");
}
