//! SIPp drives registrations, calls and messages: thousands of them, good ones and bad ones.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tests::workspace::root;

use crate::node::Node;

/// Port of the SIPp that calls, and of the one that is called.
pub const CALLER: u16 = 15_070;
pub const CALLEE: u16 = 15_080;

/// One run of SIPp in its own folder.
pub struct Sipp {
    folder: tempfile::TempDir,
    process: Child,
    scenario: String,
}

impl Sipp {
    /// Against a node.
    pub fn start(node: &Node, scenario: &str, port: u16, rows: &[String], more: &[&str]) -> Sipp {
        Sipp::start_at(node.sip_udp(), scenario, port, rows, more)
    }

    /// Against whoever is there.
    pub fn start_at(remote: SocketAddr, scenario: &str, port: u16, rows: &[String], more: &[&str]) -> Sipp {
        let file = scenario_file(scenario);
        let more = [&["-timeout", "120"], more].concat();
        Sipp::start_file(remote, scenario, &file, port, rows, &more)
    }

    /// With a scenario from that file.
    pub fn start_file(
        remote: SocketAddr,
        scenario: &str,
        file: &Path,
        port: u16,
        rows: &[String],
        more: &[&str],
    ) -> Sipp {
        let folder = tempfile::tempdir().expect("a folder");
        let output = fs::File::create(folder.path().join("output")).expect("a file");
        let mut command = Command::new("sipp");
        if !rows.is_empty() {
            let file = folder.path().join("rows.csv");
            fs::write(&file, format!("SEQUENTIAL\n{}\n", rows.join("\n"))).expect("rows");
            command.arg("-inf").arg(file);
        }
        let process = command
            .arg(remote.to_string())
            .arg("-sf")
            .arg(file)
            .args(["-i", "127.0.0.1", "-p", &port.to_string(), "-mi", "127.0.0.1"])
            .args(["-nostdin", "-trace_err", "-trace_stat", "-stf", "stat.csv"])
            .args(more)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a handle"))
            .stderr(output)
            .spawn()
            .expect("SIPp is installed");
        Sipp { folder, process, scenario: scenario.to_owned() }
    }

    /// Waits for SIPp's verdict: exit code 0 means that every call went as the scenario says.
    pub fn verdict(self) {
        if let Err(fault) = self.outcome() {
            panic!("{fault}");
        }
    }

    /// The same, and what was wrong.
    pub fn outcome(mut self) -> Result<(), String> {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.process.try_wait().expect("a child") {
                break status;
            }
            if began.elapsed() > Duration::from_secs(150) {
                return Err(format!("{}: SIPp does not end", self.scenario));
            }
            sleep(Duration::from_millis(20));
        };
        if status.success() {
            return Ok(());
        }
        Err(format!("{}: SIPp says {status}\n{}", self.scenario, self.errors()))
    }

    /// What it has to complain of so far.
    pub fn said(self) -> String {
        format!("{}:\n{}", self.scenario, self.errors())
    }

    fn errors(&self) -> String {
        let files =
            fs::read_dir(self.folder.path()).expect("the folder").filter_map(|e| Some(e.ok()?.path()));
        let mut text = String::new();
        for file in files.filter(|f| f.extension().is_some_and(|e| e == "log")) {
            text.push_str(&fs::read_to_string(file).unwrap_or_default());
        }
        let output = fs::read_to_string(self.folder.path().join("output")).unwrap_or_default();
        let screen: Vec<&str> = output.lines().rev().take(60).collect();
        let screen: Vec<&str> = screen.into_iter().rev().collect();
        format!("{}\n{}", &text[..text.len().min(4000)], screen.join("\n"))
    }

    /// For a scenario that answers and has no end of its own.
    fn stop(self) {
        drop(self);
    }
}

impl Drop for Sipp {
    /// Whatever happens, no port stays taken.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn scenario_file(name: &str) -> PathBuf {
    let path: &Path = &root().join("tests/interop/sipp");
    path.join(name).with_extension("xml")
}

/// What SIPp answers a challenge with.
pub fn credentials(node: &Node, user: &str) -> String {
    format!("[authentication username={user} password={}]", node.password(user))
}

fn register_row(node: &Node, user: &str, port: u16, device: usize) -> String {
    format!("{user};{};{port};{device:012}", credentials(node, user))
}

/// A user's phone, which listens on that port.
pub fn register(node: &Node, user: &str, from: u16, contact: u16) {
    let rows = [register_row(node, user, contact, usize::from(contact))];
    Sipp::start(node, "register", from, &rows, &["-m", "1"]).verdict();
}

#[test]
fn two_thousand_users_register_with_digest() {
    let node = Node::start_with_users(2000);
    let rows: Vec<String> = (0..2000).map(|n| register_row(&node, &format!("u{n}"), CALLER, n)).collect();
    Sipp::start(&node, "register", CALLER, &rows, &["-m", "2000", "-r", "300"]).verdict();
    assert_eq!(node.status_number("bindings"), 2000);
}

#[test]
fn a_wrong_password_never_registers() {
    let node = Node::start_with_users(1);
    let rows = [format!("u0;[authentication username=u0 password=not-it];{CALLER};000000000001")];
    Sipp::start(&node, "register_wrong_password", CALLER, &rows, &["-m", "50", "-r", "50"]).verdict();
    assert_eq!(node.status_number("bindings"), 0);
}

#[test]
fn two_thousand_calls_are_answered_and_ended() {
    let node = Node::start_with_users(2);
    register(&node, "u0", CALLER, CALLER);
    register(&node, "u1", CALLEE, CALLEE);
    let callee = Sipp::start(&node, "answer", CALLEE, &[], &[]);
    let rows = [format!("u0;{};u1", credentials(&node, "u0"))];
    Sipp::start(&node, "call", CALLER, &rows, &["-m", "2000", "-r", "100"]).verdict();
    callee.stop();
    node.wait_for("sessions", 0);
    node.wait_for("legs", 0);
}

#[test]
fn two_thousand_messages_arrive() {
    let node = Node::start_with_users(2);
    register(&node, "u0", CALLER, CALLER);
    register(&node, "u1", CALLEE, CALLEE);
    let callee = Sipp::start(&node, "take_message", CALLEE, &[], &["-m", "2000"]);
    let rows = [format!("u0;{};u1", credentials(&node, "u0"))];
    Sipp::start(&node, "message", CALLER, &rows, &["-m", "2000", "-r", "200"]).verdict();
    callee.verdict();
}

/// Each bad request gets the answer that the scenario expects, and the node lives.
#[test]
fn bad_requests_get_their_answers() {
    let node = Node::start_with_users(2);
    register(&node, "u0", CALLER, CALLER);
    let rows = [format!("u0;{};u1", credentials(&node, "u0"))];
    for scenario in
        ["nobody_there_480", "unknown_user_404", "bad_sdp_488", "unknown_extension_420", "hops_483"]
    {
        if scenario == "bad_sdp_488" {
            // Who is not there cannot judge the offer: from here on somebody is.
            register(&node, "u1", CALLEE, CALLEE);
        }
        Sipp::start(&node, scenario, CALLER, &rows, &["-m", "20", "-r", "50"]).verdict();
    }
    let rows = [register_row(&node, "u0", CALLER, 1)];
    Sipp::start(&node, "interval_too_brief_423", CALLER, &rows, &["-m", "20", "-r", "50"]).verdict();
}

/// RFC 3262 through both back-to-back user agents: early media with its PRACK, a PRACK of nothing, no PRACK at all.
#[test]
fn reliable_provisional_responses_are_acknowledged_refused_and_given_up() {
    let node = Node::start_with_users(2);
    register(&node, "u0", CALLER, CALLER);
    register(&node, "u1", CALLEE, CALLEE);
    let rows = [format!("u0;{};u1", credentials(&node, "u0"))];
    for (called, calls, count) in [
        ("prack_answer", "prack_call", "200"),
        ("prack_answer", "prack_wrong_481", "20"),
        ("prack_ring", "prack_missing_504", "5"),
    ] {
        let callee = Sipp::start(&node, called, CALLEE, &[], &["-m", count]);
        Sipp::start(&node, calls, CALLER, &rows, &["-m", count, "-r", "20"]).verdict();
        callee.verdict();
    }
    node.wait_for("sessions", 0);
    node.wait_for("legs", 0);
}

/// RFC 3680 and RFC 6665: a phone hears of its own registrations, of nobody else's, and of no other events.
#[test]
fn registrations_are_told_to_their_own_user() {
    let node = Node::start_with_users(2);
    register(&node, "u0", CALLER, CALLER);
    let rows = ["u0;u1".to_owned()];
    for (scenario, count) in [
        ("reg_subscribe", "10"),
        ("reg_brief_423", "20"),
        ("reg_of_another_403", "20"),
        ("event_unknown_489", "20"),
    ] {
        Sipp::start(&node, scenario, CALLER, &rows, &["-m", count, "-r", "10"]).verdict();
    }
}

/// RFC 7989, RFC 7044 and RFC 3326 from end to end; RFC 3891 and RFC 3911 where there is no such dialog.
#[test]
fn names_and_reasons_pass_and_dialogs_that_are_not_there_are_refused() {
    let node = Node::start_with_users(2);
    register(&node, "u0", CALLER, CALLER);
    register(&node, "u1", CALLEE, CALLEE);
    let rows = [format!("u0;{};u1", credentials(&node, "u0"))];
    let callee = Sipp::start(&node, "named_answer", CALLEE, &[], &["-m", "50"]);
    Sipp::start(&node, "named_call", CALLER, &rows, &["-m", "50", "-r", "20"]).verdict();
    callee.verdict();
    for scenario in
        ["replaces_unknown_481", "join_unknown_481", "replaces_and_join_400", "replaces_malformed_400"]
    {
        Sipp::start(&node, scenario, CALLER, &rows, &["-m", "20", "-r", "20"]).verdict();
    }
    node.wait_for("sessions", 0);
}
