//! SIPVicious looks for the node, for its users and for their passwords while a call is up: it learns that there is a SIP
//! server, and nothing more; the call goes on. And a flood of INVITEs from nobody leaves nothing behind.

use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::node::{Node, target};
use crate::sipp::{self, CALLEE, CALLER, Sipp};

/// What the flood sends.
const FLOOD: usize = 100_000;

/// Where `tests/interop/run` has put it.
fn folder() -> PathBuf {
    target().join("interop/sipvicious")
}

/// One of its programs; what it says.
fn run(at: &Path, program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("python3");
    // `-m` with the program's own folder on the path; its state goes to a home of its own.
    command.args(["-c", &format!("from sipvicious.{program} import main; main()")]).args(arguments);
    command.env("PYTHONPATH", folder()).env("HOME", at).current_dir(at).stdin(Stdio::null());
    let output = fs::File::create(at.join(program)).expect("a file");
    let mut child = command
        .stdout(output.try_clone().expect("a handle"))
        .stderr(output)
        .spawn()
        .expect("python3 is installed");
    let began = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if began.elapsed() > Duration::from_secs(120) {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{program} does not end:\n{}", fs::read_to_string(at.join(program)).unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let text = fs::read_to_string(at.join(program)).expect("what it said");
    assert!(!text.contains("Traceback"), "{program} itself is broken:\n{text}");
    text
}

/// The answer to a stranger who says that he is that user: its status, and the names of its headers.
fn probe(node: &Node, method: &str, user: &str) -> Vec<String> {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a socket");
    let (domain, port) = (node.domain(), socket.local_addr().expect("bound").port());
    let text = format!(
        "{method} sip:{user}@{domain} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bKp{port}{user}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:{user}@{domain}>;tag=p\r\nTo: <sip:{user}@{domain}>\r\n\
         Call-ID: probe{port}{method}\r\nCSeq: 1 {method}\r\nContact: <sip:x@127.0.0.1:{port}>\r\n\
         Content-Length: 0\r\n\r\n"
    );
    let mut buffer = vec![0; 65_535];
    for _ in 0..40 {
        socket.send_to(text.as_bytes(), node.sip_udp()).expect("loopback");
        let Ok(len) = socket.recv(&mut buffer) else { continue };
        let answer = String::from_utf8_lossy(&buffer[..len]).into_owned();
        if !answer.starts_with("SIP/2.0 100") {
            let lines = answer.lines().take_while(|line| !line.is_empty());
            return lines.map(|line| line.split(':').next().unwrap_or_default().to_owned()).collect();
        }
    }
    panic!("no answer to {method}")
}

#[test]
fn a_scan_learns_nothing_and_moves_no_call() {
    let node = Node::start_with_users(2);
    sipp::register(&node, "u0", CALLER, CALLER);
    sipp::register(&node, "u1", CALLEE, CALLEE);
    let calls = 20;
    let callee = Sipp::start(&node, "answer", CALLEE, &[], &["-m", "20"]);
    let rows = [format!("u0;{};u1", sipp::credentials(&node, "u0"))];
    // Twenty calls of twenty seconds.
    let caller = Sipp::start(&node, "call_long", CALLER, &rows, &["-m", "20", "-r", "20"]);
    let began = Instant::now();
    while node.status_number("sessions") < 2 * calls {
        assert!(began.elapsed() < Duration::from_secs(30), "{} sessions", node.status_number("sessions"));
        std::thread::sleep(Duration::from_millis(100));
    }
    let at = tempfile::tempdir().expect("a folder");
    let port = node.sip_udp().port().to_string();
    let found = run(at.path(), "svmap", &["127.0.0.1", "-p", &port, "-P", "15090"]);
    assert!(found.contains(&format!("127.0.0.1:{port}")), "it is there, and does not hide:\n{found}");

    // Users that there are among those that there are not.
    let names = at.path().join("names");
    fs::write(&names, "u0\nnobody\nann\nadmin\nu1\n100\n").expect("names");
    let names = names.to_string_lossy().into_owned();
    for method in ["REGISTER", "INVITE", "OPTIONS"] {
        let arguments =
            ["127.0.0.1", "-p", &port, "-P", "15091", "-d", &names, "-m", method, "--domain", node.domain()];
        let text = run(at.path(), "svwar", &[&arguments[..], &["--force", "-v"]].concat());
        assert!(text.contains("Ok SIP device found"), "{method}: it has had answers:\n{text}");
        assert!(text.contains("found nothing"), "{method} tells users apart:\n{text}");
        assert_eq!(probe(&node, method, "u0"), probe(&node, method, "nobody"), "{method}");
    }
    let words = |name: &str, list: &str| {
        let file = at.path().join(name);
        fs::write(&file, list).expect("words");
        file.to_string_lossy().into_owned()
    };
    let crack = |words: &str| {
        let arguments = ["127.0.0.1", "-p", &port, "-P", "15092", "-u", "u0", "-d", words];
        run(at.path(), "svcrack", &[&arguments[..], &["--domain", node.domain()]].concat())
    };
    let text = crack(&words("wrong", "secret\n1234\npassword\nu0\n"));
    assert!(text.contains("found nothing"), "{text}");
    // It could: with the right word among them it does.
    let text = crack(&words("right", "secret\npw-u0\n"));
    assert!(text.contains("pw-u0"), "{text}");

    caller.verdict();
    callee.verdict();
    node.wait_for("sessions", 0);
    node.wait_for("legs", 0);
}

/// RFC 3261 §26.3.2.4, RFC 8760: a challenge costs no state.
#[test]
fn a_flood_of_strangers_leaves_nothing_and_moves_no_call() {
    let node = Node::start_with_users(2);
    sipp::register(&node, "u0", CALLER, CALLER);
    sipp::register(&node, "u1", CALLEE, CALLEE);
    let callee = Sipp::start(&node, "answer", CALLEE, &[], &["-m", "5"]);
    let rows = [format!("u0;{};u1", sipp::credentials(&node, "u0"))];
    let caller = Sipp::start(&node, "call_long", CALLER, &rows, &["-m", "5", "-r", "5"]);
    let began = Instant::now();
    while node.status_number("sessions") < 10 {
        assert!(began.elapsed() < Duration::from_secs(30), "{} sessions", node.status_number("sessions"));
        std::thread::sleep(Duration::from_millis(100));
    }
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a socket");
    let domain = node.domain();
    for number in 0..FLOOD {
        // Nobody hears the answers: the sender of each Via is somewhere else.
        let text = format!(
            "INVITE sip:u1@{domain} SIP/2.0\r\nVia: SIP/2.0/UDP 127.9.{}.{}:9;branch=z9hG4bKf{number}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:x{number}@{domain}>;tag=f\r\nTo: <sip:u1@{domain}>\r\n\
             Call-ID: flood{number}\r\nCSeq: 1 INVITE\r\nContact: <sip:x@127.0.0.1:9>\r\nContent-Length: 0\r\n\r\n",
            number / 250 % 250,
            number % 250
        );
        let _ = socket.send_to(text.as_bytes(), node.sip_udp());
    }
    caller.verdict();
    callee.verdict();
    node.wait_for("sessions", 0);
    node.wait_for("legs", 0);
}
