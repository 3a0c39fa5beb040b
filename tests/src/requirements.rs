//! Requirements as data: what is asked, which lines of code say that they obey, and which tests watch them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::workspace::{members, read, root};

/// A requirement in our own words.
pub struct Requirement {
    /// E.g. `REQ-PF-17`.
    pub id: String,
    /// What it asks.
    pub text: String,
}

/// Every requirement that the project says it meets.
pub fn listed() -> Vec<Requirement> {
    let table: toml::Table =
        read(&root().join("tests/requirements/requirements.toml")).parse().expect("requirements.toml");
    let rows = table["requirement"].as_array().expect("[[requirement]]");
    rows.iter()
        .map(|row| Requirement {
            id: row["id"].as_str().expect("id").to_owned(),
            text: row["text"].as_str().expect("text").to_owned(),
        })
        .collect()
}

/// Where requirements are cited: in code, and by tests.
#[derive(Default)]
pub struct Citations {
    /// Id -> `file:line` outside tests.
    pub code: BTreeMap<String, BTreeSet<String>>,
    /// Id -> names of the test functions whose comment cites it.
    pub tests: BTreeMap<String, BTreeSet<String>>,
}

/// Reads every source file of the workspace.
pub fn citations() -> Citations {
    let mut found = Citations::default();
    for member in members() {
        let on_top = matches!(member.name(), "tests" | "bench");
        for (file, text) in member.sources() {
            scan(&file, &text, on_top, &mut found);
        }
        for folder in ["tests", "interop"] {
            scan_folder(&root().join(&member.folder).join(folder), &mut found);
        }
    }
    found
}

fn scan_folder(folder: &Path, found: &mut Citations) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.map(|e| e.expect("a directory entry").path()) {
        if path.is_dir() {
            scan_folder(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let name = path.strip_prefix(root()).expect("below the root").display().to_string();
            scan(&name, &read(&path), true, found);
        }
    }
}

fn scan(file: &str, text: &str, all_tests: bool, found: &mut Citations) {
    let mut in_tests = all_tests || file.ends_with("tests.rs") || file.contains("/tests/");
    let mut cited: Vec<String> = Vec::new();
    // What the head of a file of tests cites, each of its tests watches.
    let mut by_file: Vec<String> = Vec::new();
    let mut is_test = false;
    for (number, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        in_tests |= trimmed.starts_with("#[cfg(test)]");
        let ids = ids_in(trimmed);
        if !in_tests {
            for id in ids {
                found.code.entry(id).or_default().insert(format!("{file}:{}", number + 1));
            }
            continue;
        }
        is_test |= trimmed.starts_with("#[test]") || trimmed.starts_with("#[tokio::test");
        if trimmed.starts_with("//!") {
            by_file.extend(ids);
        } else if trimmed.starts_with("//") {
            cited.extend(ids);
        } else if let Some(name) = function_name(trimmed) {
            if is_test {
                for id in cited.drain(..).chain(by_file.iter().cloned()) {
                    found.tests.entry(id).or_default().insert(name.to_owned());
                }
            }
            cited.clear();
            is_test = false;
        } else if trimmed.is_empty() {
            cited.clear();
        }
    }
}

fn function_name(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("pub ").unwrap_or(line);
    let rest = rest.strip_prefix("async ").unwrap_or(rest).strip_prefix("fn ")?;
    rest.split(['(', '<']).next()
}

/// The ids in a line; `REQ-CF-21, -22` names two.
fn ids_in(line: &str) -> Vec<String> {
    let mut ids = Vec::new();
    for (at, _) in line.match_indices("REQ-") {
        let id: String = line[at..]
            .chars()
            .take_while(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || *c == '-')
            .collect();
        let mut rest = &line[at + id.len()..];
        let stem = id.rfind('-').map(|dash| id[..dash].to_owned()).unwrap_or_default();
        ids.push(id);
        while let Some(more) = rest.strip_prefix(", -") {
            let number: String = more.chars().take_while(char::is_ascii_digit).collect();
            if number.is_empty() {
                break;
            }
            ids.push(format!("{stem}-{number}"));
            rest = &more[number.len()..];
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_and_short_forms_expanded() {
        assert_eq!(
            ids_in("// REQ-CF-21, -22 and REQ-IF-CONV-08."),
            ["REQ-CF-21", "REQ-CF-22", "REQ-IF-CONV-08"]
        );
        assert!(ids_in("// nothing").is_empty());
    }

    #[test]
    fn a_test_is_tied_to_what_its_comment_cites() {
        let source =
            "// REQ-A-1\nfn code() {}\n#[cfg(test)]\nmod tests {\n/// REQ-A-2\n#[test]\nfn watches() {}\n}\n";
        let mut found = Citations::default();
        scan("f.rs", source, false, &mut found);
        assert!(found.code["REQ-A-1"].contains("f.rs:1"));
        assert!(found.tests["REQ-A-2"].contains("watches"));
    }
}
