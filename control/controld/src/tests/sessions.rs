//! From one socket through two lanes to another one, and what a restart remembers.

use super::*;

/// Digest is not at stake here: loopback is trusted.
const TRUSTED: &str = "[service.identity]\ntrusted_peers = [\"127.0.0.1\"]\n";

pub(super) struct Phone {
    user: &'static str,
    socket: UdpSocket,
    sent: u32,
}

impl Phone {
    pub(super) fn new(node: &Node, user: &'static str) -> Phone {
        Phone { user, socket: node.udp(), sent: 0 }
    }

    fn request(&mut self, method: &str, uri: &str, to: &str, more: &str, body: &str) {
        self.sent += 1;
        let (user, n, port) = (self.user, self.sent, self.socket.local_addr().unwrap().port());
        let text = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{user}{port}{n};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:{user}@weir.example>;tag={user}\r\nTo: <{to}>\r\n\
             Call-ID: {user}{port}{n}\r\nCSeq: {n} {method}\r\nContact: <sip:{user}@127.0.0.1:{port}>\r\n\
             {more}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.socket.send(text.as_bytes()).unwrap();
    }

    pub(super) fn register(&mut self) -> u16 {
        let aor = format!("sip:{}@weir.example", self.user);
        let tags = "Expires: 600\r\nSupported: path\r\n";
        self.request("REGISTER", "sip:weir.example", &aor, tags, "");
        self.answer()
    }

    pub(super) fn message(&mut self, to: &str, text: &str) {
        let asserted = format!(
            "P-Asserted-Identity: <sip:{}@weir.example>\r\nP-Served-User: <sip:{}@weir.example>;sescase=orig\r\n\
             Content-Type: text/plain\r\n",
            self.user, self.user
        );
        let uri = format!("sip:{to}@weir.example");
        self.request("MESSAGE", &uri, &uri, &asserted, text);
    }

    /// The next final answer.
    pub(super) fn answer(&self) -> u16 {
        loop {
            let text = datagram(&self.socket);
            if text.starts_with("SIP/2.0 ") && code(&text) >= 200 {
                return code(&text);
            }
        }
    }

    /// Takes the next request and answers it.
    fn accept(&self) -> String {
        loop {
            let text = datagram(&self.socket);
            if text.starts_with("SIP/2.0 ") {
                continue;
            }
            let kept = ["Via:", "From:", "To:", "Call-ID:", "CSeq:"];
            let head: Vec<_> =
                text.split("\r\n").filter(|line| kept.iter().any(|name| line.starts_with(name))).collect();
            let answer = format!("SIP/2.0 200 OK\r\n{}\r\nContent-Length: 0\r\n\r\n", head.join("\r\n"));
            self.socket.send(answer.as_bytes()).unwrap();
            return text;
        }
    }
}

#[test]
fn a_message_goes_from_user_to_user_through_their_lanes() {
    let node = node(&format!("{TRUSTED}[lanes]\ncount = 4\n"));
    let users = ["alice", "bob", "carol", "dave", "erin", "frank"];
    let mut phones: Vec<_> = users.map(|user| Phone::new(&node, user)).into();
    for phone in &mut phones {
        assert_eq!(phone.register(), 200, "{}", phone.user);
    }
    for (from, to) in [(0, 1), (1, 0), (2, 3), (4, 5), (5, 0), (3, 4)] {
        let text = format!("from {from} to {to}");
        phones[from].message(users[to], &text);
        let heard = phones[to].accept();
        assert!(heard.starts_with("MESSAGE sip:") && heard.ends_with(&text), "{heard}");
        assert_eq!(phones[from].answer(), 200);
    }
}

#[test]
fn a_registration_survives_a_restart() {
    let first = node(TRUSTED);
    let mut bob = Phone::new(&first, "bob");
    assert_eq!(bob.register(), 200);
    let Node { folder, running } = first;
    running.shutdown().trigger();
    running.join().unwrap();

    let running = start(config(folder.path(), TRUSTED), Shutdown::new()).unwrap();
    let node = Node { folder, running };
    // The node has other ports now; the phone has not moved.
    bob.socket.connect(node.sip(Transport::Udp)).unwrap();
    let mut alice = Phone::new(&node, "alice");
    assert_eq!(alice.register(), 200);
    alice.message("bob", "still there?");
    assert!(bob.accept().ends_with("still there?"));
    assert_eq!(alice.answer(), 200);
}

/// A disk that becomes full: every registration that was answered with 200 is a row, and there are no others.
#[test]
fn a_full_disk_never_costs_a_positive_answer() {
    let node = node(&format!("{TRUSTED}[store]\npages_max = 110\n"));
    let users: Vec<&'static str> =
        (0..400).map(|n| &*format!("user{n:04}{}", "x".repeat(600)).leak()).collect();
    let mut registered = 0;
    for user in users {
        let mut phone = Phone::new(&node, user);
        match phone.register() {
            200 => registered += 1,
            503 => break,
            other => panic!("{other}"),
        }
    }
    assert!((5..400).contains(&registered), "{registered}");
    let Node { folder, running } = node;
    running.shutdown().trigger();
    running.join().unwrap();
    let file = folder.path().join("control.sqlite");
    let store = store::Sqlite::open(&file, &store::Settings::default()).unwrap();
    let counts = store::wait(|done| store::Store::count(&store, done)).unwrap();
    let at = service::Table::ALL.iter().position(|table| *table == service::Table::Binding).unwrap();
    assert_eq!(counts[at], registered);
}
