//! An independent decoder reads the whole demo off the wire: SIP, SDP, MSRP, RTP and RTCP, TLS with a key log,
//! and finds nothing malformed.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::node::weir;

fn tshark(capture: &Path, keys: &Path, arguments: &[&str]) -> Vec<String> {
    let output = Command::new("tshark")
        .arg("-r")
        .arg(capture)
        .arg("-o")
        .arg(format!("tls.keylog_file:{}", keys.display()))
        .args(["-o", "rtp.heuristic_rtp:FALSE"])
        .args(arguments)
        .stderr(Stdio::null())
        .output()
        .expect("tshark is installed");
    assert!(output.status.success(), "tshark {arguments:?}");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn tshark_finds_nothing_malformed_in_the_demo() {
    let folder = tempfile::tempdir().expect("a folder");
    let (capture, keys) = (folder.path().join("demo.pcap"), folder.path().join("keys"));
    let mut sniffer = Command::new("tshark")
        .args(["-i", "lo", "-q", "-B", "64", "-w"])
        .arg(&capture)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("tshark is installed");
    sleep(Duration::from_secs(3));
    let demo = Command::new(weir()).arg("demo").env("SSLKEYLOGFILE", &keys).status().expect("the demo runs");
    sleep(Duration::from_secs(2));
    let interrupted = Command::new("kill").args(["-INT", &sniffer.id().to_string()]).status();
    assert!(interrupted.is_ok_and(|s| s.success()));
    sniffer.wait().expect("a child");
    assert!(demo.success(), "the demo failed under capture");

    for (protocol, at_least) in [("sip", 100), ("sdp", 20), ("msrp", 50), ("rtp", 200), ("rtcp", 2)] {
        let seen = tshark(&capture, &keys, &["-Y", protocol, "-T", "fields", "-e", "frame.number"]).len();
        println!("{protocol}: {seen} frames");
        assert!(seen >= at_least, "only {seen} frames of {protocol}");
    }
    let inside_tls =
        tshark(&capture, &keys, &["-Y", "tls && sip", "-T", "fields", "-e", "frame.number"]).len();
    println!("sip inside tls: {inside_tls} frames");
    assert!(inside_tls >= 5, "SIP inside TLS was not decoded");
    let malformed = tshark(&capture, &keys, &["-Y", "_ws.malformed && (sip || sdp || msrp || rtp || rtcp)"]);
    assert!(malformed.is_empty(), "malformed:\n{}", malformed.join("\n"));
    let errors = tshark(
        &capture,
        &keys,
        &["-Y", "_ws.expert.severity == error && (sip || sdp || msrp || rtp || rtcp)"],
    );
    assert!(errors.is_empty(), "expert errors:\n{}", errors.join("\n"));
}
