#![forbid(unsafe_code)]
//! Reads the output of `cargo test` and prints the table requirement -> code -> test of the tests that passed.
//! Ends with 1 when a listed requirement has no line that obeys it or no passed test that watches it.

use std::collections::BTreeSet;
use std::io::{self, BufRead};
use std::process::ExitCode;

use tests::requirements::{citations, listed};

fn main() -> ExitCode {
    let passed: BTreeSet<String> =
        io::stdin().lock().lines().map_while(Result::ok).filter_map(|line| passed_test(&line)).collect();
    let cited = citations();
    let mut missing = 0;
    println!("| requirement | code | tests that passed |\n| --- | --- | --- |");
    for requirement in listed() {
        let code: Vec<_> = cited.code.get(&requirement.id).into_iter().flatten().cloned().collect();
        let tests: Vec<_> = cited
            .tests
            .get(&requirement.id)
            .into_iter()
            .flatten()
            .filter(|t| passed.contains(*t))
            .cloned()
            .collect();
        if code.is_empty() || tests.is_empty() {
            missing += 1;
        }
        println!("| {} {} | {} | {} |", requirement.id, requirement.text, code.join(", "), tests.join(", "));
    }
    if missing > 0 {
        eprintln!("{missing} requirements have no obeying line or no passed test");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// `test a::b::name ... ok` -> `name`.
fn passed_test(line: &str) -> Option<String> {
    let name = line.strip_prefix("test ")?.strip_suffix(" ... ok")?;
    name.rsplit("::").next().map(str::to_owned)
}
