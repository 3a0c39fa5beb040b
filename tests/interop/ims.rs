//! Behind an S-CSCF: Kamailio registers users, tells us of it, and brings us their messages and calls in both cases; each
//! goes back to it with the Route that it came with (TS 24.229 §5.7, RFC 5502). A trace shows it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use tests::workspace::root;

use crate::kamailio::Kamailio;
use crate::node::Node;
use crate::sipp::{CALLEE, CALLER, Sipp};
use crate::sniffer::Sniffer;

/// Messages, and calls, that go through.
const COUNT: usize = 20;

fn core() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 15_090))
}

/// What passes between the core and us.
struct Trace {
    sniffer: Sniffer,
    folder: tempfile::TempDir,
}

impl Trace {
    fn start() -> Trace {
        let folder = tempfile::tempdir().expect("a folder");
        let filter = "udp port 15060 and udp port 15090";
        let sniffer = Sniffer::start_here(filter, &folder.path().join("isc.pcap"));
        Trace { sniffer, folder }
    }

    fn stop(self) -> tempfile::TempDir {
        self.sniffer.stop();
        self.folder
    }
}

fn read(folder: &Path, filter: &str, field: &str) -> Vec<String> {
    let output = Command::new("tshark")
        .current_dir(folder)
        .args(["-r", "isc.pcap", "-d", "udp.port==15090,sip", "-Y", filter, "-T", "fields", "-e", field])
        .stderr(Stdio::null())
        .output()
        .expect("tshark is installed");
    assert!(output.status.success(), "tshark {filter}");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// The original dialog identifiers of these Routes.
fn identifiers(routes: &[String]) -> BTreeSet<String> {
    let odi = |route: &String| {
        let (_, rest) = route.split_once("<sip:odi-")?;
        Some(rest.split('>').next()?.to_owned())
    };
    routes.iter().filter_map(odi).collect()
}

fn register(user: &str, contact: u16, expires: u32) {
    let rows = [format!("{user};{contact};00000000{contact:04};{expires}")];
    Sipp::start_at(core(), "ims_register", CALLER, &rows, &["-m", "1"]).verdict();
}

#[test]
fn an_scscf_tells_of_registrations_and_brings_messages_and_calls_in_both_cases() {
    let node = Node::start_trusting_loopback();
    let trace = Trace::start();
    let mut scscf =
        Kamailio::start(Command::new("kamailio"), &root().join("tests/interop/kamailio-scscf.cfg"));
    register("ann", CALLER, 600);
    register("bob", CALLEE, 600);
    assert!(scscf.runs());
    node.wait_for("bindings", 2);
    let rows = ["ann;;bob".to_owned()];
    let count = COUNT.to_string();
    for (called, calls) in [("take_message", "message"), ("ims_answer", "call")] {
        let callee = Sipp::start_at(core(), called, CALLEE, &[], &["-m", &count]);
        Sipp::start_at(core(), calls, CALLER, &rows, &["-m", &count, "-r", "10"]).verdict();
        callee.verdict();
    }
    node.wait_for("sessions", 0);
    node.wait_for("legs", 0);
    register("ann", CALLER, 0);
    register("bob", CALLEE, 0);
    node.wait_for("bindings", 0);
    let folder = trace.stop();
    let told = read(folder.path(), "sip.Method == \"REGISTER\" && udp.dstport == 15060", "frame.number");
    assert!(told.len() >= 4, "third-party REGISTERs: {}", told.len());
    let inside = "sip.Method == \"REGISTER\" && udp.dstport == 15060 && udp contains \"message/sip\" \
                  && udp contains \"SIP/2.0 200 OK\" && udp contains \"REGISTER sip:example.com\"";
    assert_eq!(
        read(folder.path(), inside, "frame.number").len(),
        told.len(),
        "with the REGISTER and its 200"
    );
    for method in ["MESSAGE", "INVITE"] {
        let (mut brought, mut back) = (BTreeSet::new(), BTreeSet::new());
        for case in ["orig", "term"] {
            let to = |port: &str| {
                format!(
                    "sip.Method == \"{method}\" && udp.dstport == {port} && sip.Route contains \"odi-{case}\""
                )
            };
            let there = identifiers(&read(folder.path(), &to("15060"), "sip.Route"));
            assert_eq!(there.len(), COUNT, "{method} {case}");
            brought.extend(there);
            back.extend(identifiers(&read(folder.path(), &to("15090"), "sip.Route")));
        }
        assert_eq!(brought, back, "each goes back with the identifier that it came with");
    }
    let ours = read(folder.path(), "sip && _ws.malformed", "frame.number");
    assert!(ours.is_empty(), "malformed: {ours:?}");
}
