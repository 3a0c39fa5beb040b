//! An independent decoder reads the whole demo off the wire: SIP, SDP, MSRP, RTP and RTCP, SIP and MSRP inside
//! TLS with a key log, and finds nothing malformed. The demo runs in a namespace of its own, so that its ports
//! are the defaults and nobody else's traffic is in the capture.

use std::path::Path;
use std::process::{Command, Stdio};

use tests::namespace::Namespace;

use crate::node::weir;
use crate::sniffer::Sniffer;

/// tshark knows MSRP on TCP only; what is inside TLS is the same.
const MSRP_IN_TLS: &str = "DissectorTable.get(\"tls.port\"):add(2856, Dissector.get(\"msrp\"))\n";
/// Every protocol that Weir speaks.
const OURS: &str = "(sip || sdp || msrp || rtp || rtcp)";

/// A capture with what it takes to read it.
struct Capture<'a> {
    folder: &'a Path,
}

impl Capture<'_> {
    fn frames(&self, filter: &str) -> Vec<String> {
        self.fields(filter, &[])
    }

    fn fields(&self, filter: &str, more: &[&str]) -> Vec<String> {
        let output = Command::new("tshark")
            .current_dir(self.folder)
            .args(["-r", "demo.pcap", "-o", "tls.keylog_file:keys", "-X", "lua_script:msrp.lua"])
            .args(["-o", "rtp.heuristic_rtp:FALSE", "-Y", filter])
            .args(more)
            .stderr(Stdio::null())
            .output()
            .expect("tshark is installed");
        assert!(output.status.success(), "tshark {filter}");
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }
}

/// Runs the demo under a sniffer, both inside the namespace.
fn record(folder: &Path) {
    let host = Namespace::new();
    let sniffer = Sniffer::start(&host, &folder.join("demo.pcap"));
    let program = weir();
    let mut demo = host.command(program.to_str().expect("a path in UTF-8"));
    let demo = demo.arg("demo").env("SSLKEYLOGFILE", folder.join("keys")).status().expect("the demo runs");
    sniffer.stop();
    assert!(demo.success(), "the demo failed under capture");
}

#[test]
fn tshark_finds_nothing_malformed_in_the_demo() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("msrp.lua"), MSRP_IN_TLS).expect("written");
    record(folder.path());
    let capture = Capture { folder: folder.path() };
    let least = [
        ("sip && !tls", 80),
        ("sip && tls", 30),
        ("sdp", 20),
        ("msrp && !tls", 100),
        ("msrp && tls", 10),
        ("rtp", 700),
        ("rtcp", 20),
    ];
    for (what, least) in least {
        let seen = capture.frames(what).len();
        println!("{what}: {seen} frames");
        assert!(seen >= least, "only {seen} frames of {what}");
    }
    let malformed = capture.frames(&format!("_ws.malformed && {OURS}"));
    assert!(malformed.is_empty(), "malformed:\n{}", malformed.join("\n"));
    let errors = capture.frames(&format!("_ws.expert.severity == error && {OURS}"));
    assert!(errors.is_empty(), "expert errors:\n{}", errors.join("\n"));
    // The data plane's ports by default.
    let lines = capture.fields("rtp || rtcp", &crate::rtcp::arguments());
    crate::rtcp::judge(&lines, |port| (40_000..50_000).contains(&port));
}
