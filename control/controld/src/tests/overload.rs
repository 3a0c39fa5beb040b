//! More than can be served (RFC 7339): who is refused, what he is told, and what goes on. The store hangs, so that the one
//! lane takes nothing: no speed of any machine is at stake.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::*;
use crate::lane::tests::Brittle;
use crate::run::start_over;

/// Loopback's first address is trusted, its others are strangers.
const SETTINGS: &str =
    "[service.identity]\ntrusted_peers = [\"127.0.0.1\"]\n[lanes]\ncount = 1\ncommits_max = 1\n";

struct Phone {
    socket: UdpSocket,
    sent: u32,
}

impl Phone {
    fn new(node: &Node, ip: &str) -> Phone {
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        socket.connect(node.sip(Transport::Udp)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        Phone { socket, sent: 0 }
    }

    /// Sends a request; what its answer is known by.
    fn send(&mut self, method: &str, oc: &str, to_tag: &str, more: &str) -> String {
        self.sent += 1;
        let (n, at) = (self.sent, self.socket.local_addr().unwrap());
        let port = at.port();
        let uri = if method == "OPTIONS" { "sip:weir.example" } else { "sip:bob@weir.example" };
        let text = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {at};branch=z9hG4bK{port}{n}{oc}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:bob@weir.example>;tag=a{n}\r\nTo: <sip:bob@weir.example>{to_tag}\r\n\
             Call-ID: c{port}{n}\r\nCSeq: {n} {method}\r\n{more}Content-Length: 0\r\n\r\n"
        );
        self.socket.send(text.as_bytes()).unwrap();
        format!("CSeq: {n} {method}\r\n")
    }

    /// The next message with that line, if one comes soon.
    fn hears(&self, line: &str, soon: Duration) -> Option<String> {
        let start = Instant::now();
        let mut buffer = [0; 4096];
        while start.elapsed() < soon {
            let Ok(octets) = self.socket.recv(&mut buffer) else { continue };
            let text = String::from_utf8(buffer[..octets].to_vec()).unwrap();
            if text.contains(line) && !text.starts_with("SIP/2.0 1") {
                return Some(text);
            }
        }
        None
    }

    /// Asks again and again, each time anew, until an answer is as wanted.
    fn until(&mut self, oc: &str, wanted: impl Fn(&str) -> bool) -> String {
        let (start, mut last) = (Instant::now(), None);
        loop {
            assert!(start.elapsed() < 3 * PATIENCE, "no such answer, but {last:?}");
            let line = self.send("OPTIONS", oc, "", "");
            match self.hears(&line, Duration::from_millis(200)) {
                Some(answer) if wanted(&answer) => return answer,
                other => last = other,
            }
        }
    }
}

fn parameter<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let via = answer.lines().find(|line| line.starts_with("Via: ")).unwrap();
    via.split(';').find_map(|param| param.strip_prefix(name)?.strip_prefix('='))
}

/// RFC 7339 §5.2, §5.10; RFC 3261 §21.5.4.
#[test]
fn what_would_wait_too_long_is_refused_and_what_goes_first_is_not() {
    let (store, folder) = (Brittle::new(), tempfile::tempdir().unwrap());
    let running =
        start_over(config(folder.path(), SETTINGS), Shutdown::new(), Some(store.clone() as Arc<_>)).unwrap();
    let node = Node { folder, running };
    let (mut core, mut stranger) = (Phone::new(&node, "127.0.0.1"), Phone::new(&node, "127.0.0.2"));
    let oc = ";oc;oc-algo=\"loss\"";

    // At rest: who asks is told that there is nothing to tell (§5.1, §5.7).
    let calm = core.until(oc, |answer| code(answer) == 200 && parameter(answer, "oc").is_some());
    assert_eq!((parameter(&calm, "oc"), parameter(&calm, "oc-validity")), (Some("0"), Some("0")));
    assert!(!stranger.until("", |answer| code(answer) == 200).contains(";oc"));

    store.hold.store(true, Ordering::SeqCst);
    core.send("REGISTER", "", "", "Contact: <sip:bob@127.0.0.1:9>\r\nExpires: 600\r\n");
    // A stranger, who knows nothing of overload control, is to come again later.
    let refused = stranger.until("", |answer| code(answer) == 503);
    let after = refused.lines().find_map(|line| line.strip_prefix("Retry-After: ")).expect("Retry-After");
    assert!((5..=10).contains(&after.parse::<u32>().unwrap()), "{refused}");
    assert!(!refused.contains(";oc"));
    // Who knows of it, and is believed, is told how much to keep back, and not to go away.
    let told = core.until(oc, |answer| code(answer) == 503 && parameter(answer, "oc") != Some("0"));
    assert!(parameter(&told, "oc").unwrap().parse::<u32>().unwrap() > 50, "{told}");
    assert_eq!(parameter(&told, "oc-algo"), Some("\"loss\""));
    assert_eq!(parameter(&told, "oc-validity"), Some("500"));
    assert!(parameter(&told, "oc-seq").is_some() && !told.contains("Retry-After"), "{told}");
    // Nothing is kept of what was refused, and its ACK reaches no lane.
    let line = stranger.send("INVITE", "", "", "Contact: <sip:bob@127.0.0.2>\r\n");
    let invite = stranger.hears(&line, PATIENCE).expect("an answer to INVITE");
    assert_eq!(code(&invite), 503);
    let tag = invite.lines().find_map(|line| line.strip_prefix("To: ")?.split_once(";tag=")).unwrap().1;
    let ack = format!(
        "ACK sip:bob@weir.example SIP/2.0\r\n{}\r\nMax-Forwards: 70\r\nFrom: <sip:bob@weir.example>;tag=a{n}\r\n\
         To: <sip:bob@weir.example>;tag={tag}\r\nCall-ID: c{port}{n}\r\nCSeq: {n} ACK\r\nContent-Length: 0\r\n\r\n",
        invite.lines().find(|line| line.starts_with("Via: ")).unwrap(),
        n = stranger.sent,
        port = stranger.socket.local_addr().unwrap().port(),
    );
    stranger.socket.send(ack.as_bytes()).unwrap();
    node.reaches("weir_control_messages_discarded_total{reason=\"refused_ack\"}", 1);

    // What is inside a dialog waits, and is answered when that is possible again (that no such dialog is there is an answer).
    let bye = stranger.send("BYE", "", ";tag=none", "");
    assert!(node.metric("weir_control_overload_limited_lanes") == 1);
    assert!(node.metric("weir_control_messages_discarded_total{reason=\"overload_late\"}") > 0);
    store.release();
    let answer = stranger.hears(&bye, PATIENCE).expect("an answer to BYE");
    assert_eq!(code(&answer), 481, "{answer}");
    // All are taken again, and all are told.
    stranger.until("", |answer| code(answer) == 200);
    core.until(oc, |answer| code(answer) == 200 && parameter(answer, "oc") == Some("0"));
    assert!(node.metric("weir_control_requests_waiting_seconds_count") > 0);
}

/// RFC 7339 §4.1, §5.4, §5.5: a next hop of the settings is asked in our Via, heard in its response, and obeyed.
#[test]
fn a_next_hop_that_wants_less_gets_less() {
    let node = node(&format!("{SETTINGS}[sip.overload]\nnext_hops = [\"127.0.0.1\"]\n"));
    let mut bob = Phone::new(&node, "127.0.0.1");
    let at = bob.socket.local_addr().unwrap();
    let line = bob.send("REGISTER", "", "", &format!("Contact: <sip:bob@{at}>\r\nExpires: 600\r\n"));
    assert_eq!(code(&bob.hears(&line, PATIENCE).expect("an answer to REGISTER")), 200);

    let mut alice = Phone::new(&node, "127.0.0.1");
    let asserted = "P-Asserted-Identity: <sip:alice@weir.example>\r\n\
                    P-Served-User: <sip:alice@weir.example>;sescase=orig\r\nContent-Type: text/plain\r\n";
    let first = alice.send("MESSAGE", "", "", asserted);
    let asked = bob.hears(" MESSAGE\r\n", PATIENCE).expect("the MESSAGE");
    assert!(asked.contains(";oc;oc-algo=\"loss,rate\""), "{asked}");
    let kept = ["Via:", "From:", "To:", "Call-ID:", "CSeq:"];
    let head: Vec<_> = asked.split("\r\n").filter(|l| kept.iter().any(|name| l.starts_with(name))).collect();
    let head = head
        .join("\r\n")
        .replace(";oc;oc-algo=\"loss,rate\"", ";oc=100;oc-algo=\"loss\";oc-validity=60000;oc-seq=1.1");
    bob.socket.send(format!("SIP/2.0 200 OK\r\n{head}\r\nContent-Length: 0\r\n\r\n").as_bytes()).unwrap();
    assert_eq!(code(&alice.hears(&first, PATIENCE).expect("an answer to MESSAGE")), 200);

    let second = alice.send("MESSAGE", "", "", asserted);
    node.reaches("weir_control_requests_withheld_total", 1);
    node.reaches("weir_control_overload_asking_hops", 1);
    assert!(alice.hears(&second, PATIENCE).is_some());
    // It was sent nowhere.
    assert!(bob.hears(" MESSAGE\r\n", Duration::from_millis(300)).is_none());
}
