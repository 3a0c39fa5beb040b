//! What the suite with Kamailio's `msrp` module puts on the wire, read by a decoder that is not ours: tshark finds no malformed
//! MSRP in it, over TCP and inside TLS. The tests of `kamailio_msrp` run once more for it, in a namespace under a sniffer.
//!
//! TLS is read with the key log of our side, which is at one end of each of its connections.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use tests::namespace::Namespace;

use crate::sniffer::Sniffer;

/// What is recorded.
const SUITE: &str = "kamailio_msrp::";
/// Where Kamailio and the far end listen without TLS: tshark knows MSRP by its default port, or by SDP.
const PLAIN: [u16; 2] = [12_856, 15_855];

/// A capture, and what it takes to read it.
struct Capture<'a> {
    folder: &'a Path,
}

impl Capture<'_> {
    fn read(&self, filter: &str, more: &[&str]) -> Vec<String> {
        let mut command = Command::new("tshark");
        command.current_dir(self.folder).args(["-r", "msrp.pcap", "-o", "tls.keylog_file:keys"]);
        for port in PLAIN {
            command.args(["-d", &format!("tcp.port=={port},msrp")]);
        }
        if self.folder.join("msrp.lua").exists() {
            command.args(["-X", "lua_script:msrp.lua"]);
        }
        let output = command.args(["-Y", filter]).args(more).stderr(Stdio::null()).output();
        let output = output.expect("tshark is installed");
        assert!(output.status.success(), "tshark {filter}");
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    /// All ports with TLS have MSRP inside: the suite has nothing else there.
    fn reads_tls(&self) {
        let hellos = self.read("tls.handshake.type == 1", &["-T", "fields", "-e", "tcp.dstport"]);
        let ports: BTreeSet<u16> = hellos.iter().filter_map(|port| port.parse().ok()).collect();
        assert!(!ports.is_empty(), "no TLS in the capture");
        let lines = ports.iter().map(|port| format!("tls:add({port}, Dissector.get(\"msrp\"))\n"));
        let lines: String = lines.collect();
        std::fs::write(
            self.folder.join("msrp.lua"),
            format!("local tls = DissectorTable.get(\"tls.port\")\n{lines}"),
        )
        .expect("written");
    }
}

#[test]
fn tshark_finds_no_malformed_msrp_between_our_relay_kamailios_and_our_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let host = Namespace::new();
    let sniffer = Sniffer::start(&host, &folder.path().join("msrp.pcap"));
    let program = std::env::current_exe().expect("a path");
    let suite = host
        .command(program.to_str().expect("a path in UTF-8"))
        .args([SUITE, "--test-threads=1"])
        .env("SSLKEYLOGFILE", folder.path().join("keys"))
        .output()
        .expect("it runs");
    sniffer.stop();
    assert!(suite.status.success(), "under capture:\n{}", String::from_utf8_lossy(&suite.stdout));
    let capture = Capture { folder: folder.path() };
    capture.reads_tls();
    for (what, least) in [("msrp && !tls", 40), ("msrp && tls", 8)] {
        let seen = capture.read(what, &[]).len();
        println!("{what}: {seen} frames");
        assert!(seen >= least, "only {seen} frames of {what}");
    }
    // Each kind of request, and answers, in both.
    for kind in ["msrp.method == \"AUTH\"", "msrp.method == \"SEND\"", "msrp.status.code == 200"] {
        for how in ["tls", "!tls"] {
            assert!(!capture.read(&format!("{kind} && {how}"), &[]).is_empty(), "no {kind} with {how}");
        }
    }
    let malformed = capture.read("_ws.malformed && msrp", &[]);
    assert!(malformed.is_empty(), "malformed:\n{}", malformed.join("\n"));
    let errors = capture.read("_ws.expert.severity >= warning && msrp && !tcp.analysis.flags", &[]);
    assert!(errors.is_empty(), "experts:\n{}", errors.join("\n"));
}
