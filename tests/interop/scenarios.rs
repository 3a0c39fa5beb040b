//! Every scenario of `tests/interop/sipp/*.txt` against one node, several at once: each has two users and two ports of its
//! own, and a SIPp for each of them.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sip::digest::Client;
use sip::{Limits, Message, Request, Response};
use tests::sipp::{self, Scenario};

use crate::node::Node;
use crate::sipp::Sipp;

/// The ports of the users: u0 on the first.
const PORTS: u16 = 16_000;
/// Scenarios at once.
const AT_ONCE: usize = 6;

fn port(user: usize) -> u16 {
    PORTS + u16::try_from(user).expect("a small number")
}

/// A user registers from his port, which is free again afterwards.
fn register(node: &Node, user: usize) {
    let (name, port) = (format!("u{user}"), port(user));
    let socket = UdpSocket::bind(("127.0.0.1", port)).expect("a port of ours");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    let domain = node.domain();
    let text = format!(
        "REGISTER sip:{domain} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bKr{user}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:{name}@{domain}>;tag=r\r\nTo: <sip:{name}@{domain}>\r\nCall-ID: reg{user}\r\n\
         CSeq: 1 REGISTER\r\nContact: <sip:{name}@127.0.0.1:{port}>\r\nExpires: 600\r\nContent-Length: 0\r\n\r\n"
    );
    let Ok(Some(Message::Request(request))) = sip::datagram(text.into(), &Limits::default()) else {
        panic!("a REGISTER")
    };
    let challenge = ask(&socket, node, &request);
    assert_eq!(challenge.code, 401, "{name}");
    let mut client = Client::new(&name, &node.password(&name));
    let mut entropy = base::Entropy::from_number(user as u64);
    let mut request = client.answer(&request, &challenge, &mut entropy).expect("an answer");
    request.headers.set(sip::Name::Via, format!("SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bKs{user}"));
    assert_eq!(ask(&socket, node, &request).code, 200, "{name}");
}

fn ask(socket: &UdpSocket, node: &Node, request: &Request) -> Response {
    let began = Instant::now();
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a socket");
    let mut buffer = vec![0; 65_535];
    while began.elapsed() < Duration::from_secs(20) {
        socket.send_to(&request.to_bytes(), node.sip_udp()).expect("loopback");
        let Ok(len) = socket.recv(&mut buffer) else { continue };
        if let Ok(Some(Message::Response(response))) =
            sip::datagram(buffer[..len].to_vec().into(), &Limits::default())
            && response.code >= 200
        {
            return response;
        }
    }
    panic!("no answer to a REGISTER")
}

fn start(node: &Node, folder: &Path, scenario: &Scenario, is_callee: bool, user: usize) -> Sipp {
    let (end, script) = match is_callee {
        true => ("callee", &scenario.callee),
        false => ("caller", &scenario.caller),
    };
    let calls = if is_callee { scenario.calls.to_string() } else { "1".to_owned() };
    let name = format!("{}/{}/{end}", scenario.subject, scenario.name);
    let file = folder.join(name.replace('/', "-")).with_extension("xml");
    fs::write(&file, sipp::xml(&name, script)).expect("the scenario");
    let own = format!("u{user}");
    let credentials = format!("[authentication username={own} password={}]", node.password(&own));
    let rows =
        [format!("u{user};u{};{credentials};[authentication username={own} password=wrong]", user ^ 1)];
    Sipp::start_file(node.sip_udp(), &name, &file, port(user), &rows, &["-m", &calls, "-timeout", "40"])
}

/// One scenario; what went wrong.
fn play(node: &Node, folder: &Path, number: usize, scenario: &Scenario) -> Option<String> {
    let (caller, callee) = (2 * number, 2 * number + 1);
    register(node, caller);
    register(node, callee);
    let called = (!scenario.callee.is_empty()).then(|| start(node, folder, scenario, true, callee));
    let calls = start(node, folder, scenario, false, caller);
    let mut wrong = calls.outcome().err();
    if let Some(called) = called {
        let callee_wrong = if wrong.is_some() { Some(called.said()) } else { called.outcome().err() };
        if let Some(text) = callee_wrong {
            wrong = Some(wrong.unwrap_or_default() + &text);
        }
    }
    wrong
}

#[test]
fn every_scenario_goes_as_it_says() {
    let chosen = std::env::var("WEIR_SCENARIOS").unwrap_or_default();
    let scenarios: Vec<Scenario> =
        sipp::all().into_iter().filter(|s| format!("{}/{}", s.subject, s.name).contains(&chosen)).collect();
    let node = Node::start_with_users(2 * scenarios.len());
    let folder = tempfile::tempdir().expect("a folder");
    let (next, faults) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((number, scenario)) = {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    scenarios.get(number).map(|scenario| (number, scenario))
                } {
                    if let Some(fault) = play(&node, folder.path(), number, scenario) {
                        let name = format!("{}/{}", scenario.subject, scenario.name);
                        faults.lock().expect("nobody has panicked").push((name, fault));
                    }
                }
            });
        }
    });
    println!("{} scenarios in {:.1} s", scenarios.len(), began.elapsed().as_secs_f64());
    let faults = faults.into_inner().expect("nobody has panicked");
    for (name, fault) in &faults {
        println!("== {name}\n{fault}");
    }
    let names: Vec<&String> = faults.iter().map(|(name, _)| name).collect();
    assert!(faults.is_empty(), "{} of {} scenarios failed: {names:?}", names.len(), scenarios.len());
    node.wait_for("sessions", 0);
    node.wait_for("legs", 0);
}
