//! Each listed requirement is cited by the line that obeys it and by a test that watches it.

use tests::requirements::{citations, listed};

#[test]
fn every_listed_requirement_has_its_line_and_its_test() {
    let cited = citations();
    let mut missing = Vec::new();
    for requirement in listed() {
        if !cited.code.contains_key(&requirement.id) {
            missing.push(format!("{}: no line of code cites it", requirement.id));
        }
        if !cited.tests.contains_key(&requirement.id) {
            missing.push(format!("{}: no test cites it", requirement.id));
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}
