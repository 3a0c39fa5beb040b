//! The house stands as it was drawn: arrows point down, the sans-IO floors touch nothing, unsafe lives in one
//! crate, and no file has run away.

use tests::workspace::{Member, members, root};

/// What each of our crates may depend on (of our crates). Arrows only point down; the wings never import each
/// other and meet in `contract`.
const MAY_USE: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("sip", &["base"]),
    ("sdp", &["base"]),
    ("msrp", &["base"]),
    ("rtp", &["base"]),
    ("bfcp", &["base"]),
    ("cpm", &["base"]),
    ("fingerprint", &[]),
    ("contract", &["base"]),
    ("forward", &["base", "cpm", "msrp", "rtp", "bfcp", "contract"]),
    ("netio", &["base", "fingerprint"]),
    // The one door by which descriptions come into this wing; behind it there is the contract alone.
    ("ng", &["base", "sdp", "contract"]),
    // What draws its own randomness stands beside netio.
    ("dtls", &["fingerprint", "rtp"]),
    ("dataplaned", &["base", "msrp", "rtp", "contract", "forward", "netio", "dtls", "ng"]),
    ("service", &["base", "sip", "sdp", "cpm", "contract"]),
    ("gateways", &["base", "cpm", "contract"]),
    ("store", &["base", "service"]),
    ("webapi", &["base", "cpm", "service"]),
    ("controld", &["base", "sip", "rtp", "service", "gateways", "store", "webapi", "contract", "cpm"]),
    ("ue", &["base", "sip", "sdp", "msrp", "rtp", "cpm", "fingerprint"]),
];

/// These stand outside and look in, or on top of everything.
const ON_TOP: &[&str] = &["bench", "fuzz", "simulation", "tests", "weir"];

/// No clock, no socket, no file, no thread, no async.
const SANS_IO: &[&str] = &[
    "base",
    "sip",
    "sdp",
    "msrp",
    "rtp",
    "bfcp",
    "cpm",
    "fingerprint",
    "contract",
    "forward",
    "ng",
    "service",
    "gateways",
];

fn ours(all: &[Member], dependencies: &[String]) -> Vec<String> {
    dependencies.iter().filter(|d| all.iter().any(|m| m.name() == d.as_str())).cloned().collect()
}

#[test]
fn arrows_only_point_down() {
    let all = members();
    for member in &all {
        if ON_TOP.contains(&member.name()) {
            continue;
        }
        let (_, may) = MAY_USE
            .iter()
            .find(|(name, _)| *name == member.name())
            .unwrap_or_else(|| panic!("{} has no place in the house", member.name()));
        for used in ours(&all, &member.names("dependencies")) {
            assert!(may.contains(&used.as_str()), "{} must not depend on {used}", member.name());
        }
    }
}

#[test]
fn a_folder_has_the_name_of_its_crate_and_nothing_is_published() {
    for member in members() {
        assert_eq!(member.folder.rsplit('/').next(), Some(member.name()));
        let inherited = member.manifest["package"]["publish"]["workspace"].as_bool();
        assert_eq!(inherited, Some(true), "{}: publish must be the workspace's", member.name());
    }
}

#[test]
fn the_sans_io_floors_touch_nothing() {
    const FORBIDDEN: &[&str] = &[
        "std::fs",
        "std::thread",
        "std::process",
        "std::env::",
        "async fn",
        "tokio",
        "UdpSocket",
        "TcpStream",
        "TcpListener",
        "SystemTime",
        "std::time::Instant",
        "Mutex<",
        "RwLock<",
        "println!",
    ];
    for member in members().iter().filter(|m| SANS_IO.contains(&m.name())) {
        for (file, text) in member.sources() {
            for (number, line) in before_tests(&text).lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                for word in FORBIDDEN {
                    assert!(!code.contains(word), "{file}:{}: `{word}` on a sans-IO floor", number + 1);
                }
            }
        }
    }
}

/// Unit tests come last in a file; what follows them is not held to the floor's rules.
fn before_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap_or(text)
}

#[test]
fn unsafe_lives_in_netio_alone() {
    for member in members() {
        let root_file = root().join(&member.folder).join("src");
        let lib = root_file.join("lib.rs");
        let main = if lib.exists() { lib } else { root_file.join("main.rs") };
        let text = tests::workspace::read(&main);
        if member.name() != "netio" {
            let held = text.contains("#![forbid(unsafe_code)]");
            assert!(held, "{}: its root must forbid unsafe code", member.name());
        }
    }
}

#[test]
fn every_file_says_what_lives_in_it_and_none_has_run_away() {
    const LINES_MAX: usize = 900;
    let mut faults = Vec::new();
    for member in members() {
        for (file, text) in member.sources() {
            let lines = text.lines().count();
            if lines > LINES_MAX {
                faults.push(format!("{file}: {lines} lines; split it (limit {LINES_MAX})"));
            }
            // What a file of tests holds is said by its name.
            let of_tests = file.ends_with("tests.rs") || file.contains("/tests/");
            let opens = text.lines().find(|l| !l.starts_with("#!") && !l.trim().is_empty());
            if !of_tests && !opens.is_some_and(|l| l.starts_with("//!")) {
                faults.push(format!("{file}: open with `//!` and what lives here"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_top_level_holds_only_the_agreed_folders() {
    const AGREED: &[&str] = &["bench", "control", "dataplane", "ops", "shared", "target", "tests"];
    for entry in std::fs::read_dir(root()).expect("the root") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("a UTF-8 name");
        if entry.path().is_dir() && !name.starts_with('.') {
            assert!(AGREED.contains(&name.as_str()), "{name}/ is not one of the agreed folders");
        }
    }
}

#[test]
fn nothing_unfinished_and_no_lint_lifted_without_a_reason() {
    for member in members() {
        for (file, text) in member.sources() {
            for word in ["todo!(", "unimplemented!(", "#[allow(", "#![allow(", "FIXME"] {
                assert!(!text.contains(word), "{file}: `{word}`");
            }
        }
    }
}
