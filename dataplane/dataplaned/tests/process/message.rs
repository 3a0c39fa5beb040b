//! MSRP through the whole process: connections that arrive at the home shard of their session, and at another one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use contract::change::Verb;
use contract::{Context, Leg, MsrpLeg, leg, placement};

use crate::control::{Control, Node, PATIENCE, relay};

const REMOTE: [&str; 2] = ["msrp://127.0.0.1:7777/aaaaaaaa;tcp", "msrp://127.0.0.1:7778/bbbbbbbb;tcp"];

fn msrp_leg(context: u64, id: u64) -> Leg {
    Leg {
        id,
        context,
        media: "msrp".into(),
        participant: id.to_string(),
        kind: Some(leg::Kind::Msrp(MsrpLeg {
            remote_path: vec![REMOTE[id as usize - 1].into()],
            accept_types: vec!["*".into()],
            ..MsrpLeg::default()
        })),
        ..Leg::default()
    }
}

/// A chat of two; the paths that its peers send to.
fn chat(control: &mut Control, context: u64) -> Vec<String> {
    let verbs = vec![
        Verb::PutContext(Context { id: context }),
        Verb::PutLeg(msrp_leg(context, 1)),
        Verb::PutLeg(msrp_leg(context, 2)),
        relay(context, 1, 1, 2),
        relay(context, 2, 2, 1),
    ];
    let placed = control.applied(verbs).placements;
    let path = |placed: &contract::Placement| match placed.at.as_ref() {
        Some(placement::At::Msrp(local)) => local.path.clone(),
        other => panic!("{other:?}"),
    };
    placed.iter().map(path).collect()
}

struct Peer {
    stream: TcpStream,
    to: String,
    from: &'static str,
    /// What came, without the octets of the long body.
    text: String,
    /// How many of those came.
    octets: usize,
    answered: Vec<String>,
}

impl Peer {
    fn new(stream: TcpStream, to: String, from: &'static str) -> Peer {
        Peer { stream, to, from, text: String::new(), octets: 0, answered: Vec::new() }
    }

    /// Connects and says who it is with an empty SEND (RFC 4975 §5.4).
    fn join(at: SocketAddr, to: &str, from: &'static str) -> Peer {
        let stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut peer = Peer::new(stream, to.to_owned(), from);
        peer.send("j0in", "Message-ID: m0-0\r\nByte-Range: 1-0/0\r\n", None);
        peer.until(|text| text.contains("MSRP j0in 200"));
        peer
    }

    fn send(&mut self, id: &str, headers: &str, body: Option<&[u8]>) {
        let head = format!("MSRP {id} SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\n{headers}", self.to, self.from);
        let mut wire = head.into_bytes();
        if let Some(body) = body {
            wire.extend_from_slice(b"Content-Type: text/plain\r\n\r\n");
            wire.extend_from_slice(body);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(format!("-------{id}$\r\n").as_bytes());
        self.stream.write_all(&wire).unwrap();
    }

    /// Reads until what came satisfies.
    fn until(&mut self, enough: impl Fn(&str) -> bool) {
        while !enough(&self.text) {
            self.read();
        }
    }

    fn read(&mut self) {
        let mut piece = [0; 65_536];
        let n = self.stream.read(&mut piece).unwrap();
        assert!(n > 0, "closed after {:?}", self.text);
        self.octets += piece[..n].iter().filter(|byte| **byte == b'~').count();
        self.text.extend(piece[..n].iter().filter(|byte| **byte != b'~').map(|byte| char::from(*byte)));
    }

    /// Reads a long message, answering each request of it (RFC 4975 §7.2).
    fn take(&mut self, octets: usize) {
        while self.octets < octets {
            self.read();
            let ends = self.text.lines().filter_map(|line| line.strip_prefix("-------"));
            let ids: Vec<String> = ends.map(|end| end.trim_end_matches(['$', '+', '#']).to_owned()).collect();
            for id in ids {
                if self.text.contains(&format!("MSRP {id} SEND")) && !self.answered.contains(&id) {
                    let head =
                        format!("MSRP {id} 200 OK\r\nTo-Path: {}\r\nFrom-Path: {}", self.to, self.from);
                    self.stream.write_all(format!("{head}\r\n-------{id}$\r\n").as_bytes()).unwrap();
                    self.answered.push(id);
                }
            }
        }
    }
}

/// The listener whose address the path names, and the other shard's.
fn listeners(node: &Node, path: &str) -> [SocketAddr; 2] {
    let all: Vec<SocketAddr> = node.running().addresses().msrp.iter().map(|(plain, _)| *plain).collect();
    assert_eq!(all.len(), 2);
    let home = usize::from(!path.contains(&all[0].to_string()));
    assert!(path.contains(&all[home].to_string()), "{path} {all:?}");
    [all[home], all[1 - home]]
}

#[test]
fn a_connection_reaches_its_session_whichever_shard_accepts_it() {
    for kind in ["mio", "uring"] {
        let node = Node::start(kind, |config| config.shards.cores = vec![0, 0]);
        let mut control = node.control(1);
        for context in 1..=4 {
            let paths = chat(&mut control, context);
            let at = listeners(&node, &paths[0]);
            // Both at home, one elsewhere, both elsewhere.
            let (first, second) = ([0, 0, 1, 1][context as usize - 1], [0, 1, 0, 1][context as usize - 1]);
            let mut a = Peer::join(at[first], &paths[0], REMOTE[0]);
            let mut b = Peer::join(at[second], &paths[1], REMOTE[1]);
            a.send("t1aa", "Message-ID: m1-1\r\nByte-Range: 1-5/5\r\n", Some(b"hello"));
            b.until(|text| text.contains("hello"));
            a.until(|text| text.contains("MSRP t1aa 200"));
            b.send("t2bb", "Message-ID: m2-2\r\nByte-Range: 1-5/5\r\n", Some(b"world"));
            a.until(|text| text.contains("world"));
            // More than any mailbox or window holds at once.
            let body = vec![b'~'; 3 << 20];
            let headers = format!("Message-ID: m3-3\r\nByte-Range: 1-{0}/{0}\r\n", body.len());
            let reader = std::thread::spawn(move || b.take(3 << 20));
            a.send("t3cc", &headers, Some(&body));
            a.until(|text| text.contains("MSRP t3cc 200"));
            reader.join().unwrap();
        }
        node.until_metric("weir_dataplane_legs 8");
    }
}

#[test]
fn a_session_over_tls_shows_the_certificate_of_the_welcome() {
    use netio::{DriverConfig, Event, Kind, Tls};
    let node = Node::start("auto", |_| {});
    let mut control = node.control(1);
    let mut leg = msrp_leg(1, 1);
    let Some(leg::Kind::Msrp(msrp)) = &mut leg.kind else { panic!() };
    msrp.tls = true;
    msrp.remote_path = vec!["msrps://127.0.0.1:7777/aaaaaaaa;tcp".into()];
    let placed = control.applied(vec![Verb::PutContext(Context { id: 1 }), Verb::PutLeg(leg)]).placements;
    let Some(placement::At::Msrp(local)) = &placed[0].at else { panic!() };
    assert!(local.path.starts_with("msrps://"), "{}", local.path);
    let at = node.running().addresses().msrp[0].1.unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["peer".into()]).unwrap();
    let key = made.signing_key.serialize_der().try_into().unwrap();
    let mut driver = Kind::Mio.make(&DriverConfig::default()).unwrap();
    driver.dial(1, at, Some(Tls::new(vec![made.cert.der().clone()], key).unwrap()));
    let (start, mut text) = (std::time::Instant::now(), String::new());
    while !text.contains("MSRP j0in 200") {
        assert!(start.elapsed() < PATIENCE, "{text}");
        for index in 0..driver.poll(Some(PATIENCE / 50)).unwrap() {
            let conn = match driver.event(index) {
                Event::Opened { conn, fingerprint, .. } => {
                    assert_eq!(fingerprint.unwrap().to_vec(), control.welcome.fingerprint);
                    conn
                }
                Event::Received { bytes, .. } => {
                    text.push_str(&String::from_utf8_lossy(bytes));
                    continue;
                }
                _ => continue,
            };
            let head = format!("MSRP j0in SEND\r\nTo-Path: {}\r\n", local.path);
            let from = "From-Path: msrps://127.0.0.1:7777/aaaaaaaa;tcp\r\n";
            let rest = "Message-ID: m0-0\r\nByte-Range: 1-0/0\r\n-------j0in$\r\n";
            driver.write(conn, format!("{head}{from}{rest}").into_bytes().into());
        }
    }
}

#[test]
fn a_session_that_is_nowhere_gets_481_from_each_shard() {
    let node = Node::start("auto", |config| config.shards.cores = vec![0, 0]);
    let mut control = node.control(1);
    let paths = chat(&mut control, 1);
    for at in listeners(&node, &paths[0]) {
        let stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let to = format!("msrp://{at}/thereisnosuchsession;tcp");
        let mut peer = Peer::new(stream, to, REMOTE[0]);
        peer.send("t1aa", "Message-ID: m1-1\r\nByte-Range: 1-5/5\r\n", Some(b"hello"));
        peer.until(|text| text.contains("MSRP t1aa 481"));
    }
    node.until_metric("weir_dataplane_drops_total{reason=\"msrp_no_session\"} 2");
}
