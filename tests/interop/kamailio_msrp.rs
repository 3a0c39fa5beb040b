//! Kamailio's `msrp` module as somebody else's relay (RFC 4976): a client behind it talks in our room.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use md5::{Digest, Md5};
use sip::digest::Challenge;
use sip::typed::Value as _;
use tests::msrp_peer::{Auth, Peer};
use tests::workspace::root;
use ue::{Account, Call, Counters, Device, Draft, Event, Identity, Transport, system_entropy};

use crate::kamailio::Kamailio;
use crate::node::Node;

const RELAY: &str = "msrp://127.0.0.1:12856;tcp";
const RELAY_TLS: &str = "msrps://127.0.0.1:12857;tcp";

/// Kamailio with the relay's configuration, once it answers.
fn relay() -> Kamailio {
    start(&root().join("tests/interop/kamailio-msrp-relay.cfg"))
}

fn start(file: &Path) -> Kamailio {
    let mut relay = Kamailio::start(Command::new("kamailio"), file);
    let began = Instant::now();
    while !answers() {
        assert!(relay.runs(), "kamailio ended");
        assert!(began.elapsed() < Duration::from_secs(20), "kamailio does not answer");
        sleep(Duration::from_millis(50));
    }
    relay
}

/// Kamailio listens before its workers are there, and drops what comes until then: it is up when it answers.
fn answers() -> bool {
    let frame = "MSRP up1 AUTH\r\nTo-Path: msrp://127.0.0.1:12856;tcp\r\nFrom-Path: msrp://127.0.0.1:1/up;tcp\r\n\
                 -------up1$\r\n";
    let Ok(mut stream) = TcpStream::connect("127.0.0.1:12856") else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    stream.write_all(frame.as_bytes()).is_ok() && stream.read(&mut [0; 64]).is_ok_and(|count| count > 0)
}

/// A client's MSRP connection to its relay, by hand: every byte is ours to see.
struct Client {
    stream: TcpStream,
    read: String,
    own: String,
    relay: String,
}

impl Client {
    /// AUTH with digest (RFC 4976 §5.1); the relay answers with the path to use.
    fn start() -> Client {
        let stream = TcpStream::connect("127.0.0.1:12856").expect("the relay");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let own = format!("msrp://{}/client7session;tcp", stream.local_addr().expect("an address"));
        let mut client = Client { stream, read: String::new(), own, relay: String::new() };
        client.send("auth1", "AUTH", RELAY, "");
        let challenge = client.frame("auth1");
        assert!(challenge.contains(" 401"), "{challenge}");
        let (realm, nonce) = (quoted(&challenge, "realm"), quoted(&challenge, "nonce"));
        let digest = |text: String| hex::encode(Md5::digest(text));
        let (ha1, ha2) = (digest(format!("ann:{realm}:1234")), digest(format!("AUTH:{RELAY}")));
        let response = digest(format!("{ha1}:{nonce}:00000001:c0ffee:auth:{ha2}"));
        let authorization = format!(
            "Authorization: Digest username=\"ann\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{RELAY}\", \
             qop=auth, nc=00000001, cnonce=\"c0ffee\", response=\"{response}\"\r\n"
        );
        client.send("auth2", "AUTH", RELAY, &authorization);
        let granted = client.frame("auth2");
        assert!(granted.contains(" 200"), "{granted}");
        client.relay = header(&granted, "Use-Path").to_owned();
        client
    }

    fn send(&mut self, tid: &str, method: &str, to: &str, rest: &str) {
        let own = &self.own;
        let text =
            format!("MSRP {tid} {method}\r\nTo-Path: {to}\r\nFrom-Path: {own}\r\n{rest}-------{tid}$\r\n");
        self.stream.write_all(text.as_bytes()).expect("the relay reads");
    }

    fn say(&mut self, tid: &str, room: &str, text: &str) {
        let cpim = format!(
            "From: <sip:ann@example.com>\r\nTo: <sip:anonymous@anonymous.invalid>\r\n\r\n\
             Content-Type: text/plain\r\n\r\n{text}"
        );
        let rest = format!(
            "Message-ID: m{tid}\r\nByte-Range: 1-{0}/{0}\r\nContent-Type: message/cpim\r\n\r\n{cpim}\r\n",
            cpim.len()
        );
        let to = format!("{} {room}", self.relay);
        self.send(tid, "SEND", &to, &rest);
    }

    /// Reads until a frame that holds `wanted` has come whole.
    fn frame(&mut self, wanted: &str) -> String {
        let mut octets = [0; 8192];
        loop {
            while let Some(end) = frame_end(&self.read) {
                let frame: String = self.read.drain(..end).collect();
                if frame.contains(wanted) {
                    return frame;
                }
            }
            let count = self.stream.read(&mut octets).unwrap_or_else(|e| panic!("waiting for {wanted}: {e}"));
            assert!(count > 0, "the relay closed while we waited for {wanted}");
            self.read.push_str(&String::from_utf8_lossy(&octets[..count]));
        }
    }
}

/// The realm's user of our own node.
const OURS: tests::node::Settings = tests::node::Settings { users: &["bob"], rtp_first: 31_000, more: "" };

/// A client of our relay, with its path.
fn ours(node: &tests::node::Node) -> (Peer, String) {
    let at = node.msrp().0;
    let mut peer = Peer::connect(at);
    let password = tests::node::password("bob");
    let granted = peer.auth(&format!("msrp://{at};tcp"), "bob", &password, Auth::default());
    let path = granted.line("Use-Path").to_owned();
    (peer, path)
}

/// Two clients, each behind a relay of its own: Kamailio's and ours. Both ways, and a report.
#[test]
fn kamailios_relay_and_ours_between_two_clients() {
    tests::node::run(OURS, async |node| {
        let _relay = relay();
        let mut ann = Client::start();
        let (mut bob, path) = ours(&node);
        let there = format!("{} {path} {}", ann.relay, bob.own);
        let rest = "Message-ID: chain001\r\nSuccess-Report: yes\r\nByte-Range: 1-9/9\r\nContent-Type: text/plain\r\n\r\nto our en\r\n";
        ann.send("chain1", "SEND", &there, rest);
        assert!(ann.frame("chain1").contains(" 200"));
        let sent = bob.frame();
        assert_eq!((sent.word(), sent.body.as_slice()), ("SEND", b"to our en".as_slice()));
        assert_eq!(sent.line("From-Path"), format!("{path} {} {}", ann.relay, ann.own));
        bob.answer(&sent, "200 OK");
        let back = sent.line("From-Path").to_owned();
        bob.request("REPORT", &back, "Message-ID: chain001\r\nByte-Range: 1-9/9\r\nStatus: 000 200 OK\r\n");
        assert!(ann.frame("REPORT").contains("Status: 000 200 OK"));
        let tid = bob.send(&back, "chain002", "", "and back again");
        assert_eq!(bob.status(&tid), "200");
        assert!(ann.frame("and back again").contains("chain002"));
    });
}

/// A client with two relays: it authenticates at ours, through ours at Kamailio's, and speaks to a peer through both.
#[test]
fn ours_then_kamailios_relay_in_one_path() {
    tests::node::run(OURS, async |node| {
        let _relay = relay();
        let at = node.msrp().0;
        both_in_one_path(Peer::connect(at), &format!("msrp://{at};tcp"), RELAY);
    });
}

/// The same with TLS from the client to us, from us to Kamailio, and from Kamailio to us.
#[test]
fn ours_then_kamailios_relay_in_one_path_over_tls() {
    tests::node::run(OURS, async |node| {
        let folder = tempfile::tempdir().expect("a folder");
        let _relay = start(&with_tls(folder.path()));
        let at = node.msrp().1;
        both_in_one_path(Peer::connect_tls(at), &format!("msrps://{at};tcp"), RELAY_TLS);
    });
}

/// The relay's configuration with a TLS listener and a certificate of its own.
fn with_tls(folder: &Path) -> PathBuf {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let plain =
        std::fs::read_to_string(root().join("tests/interop/kamailio-msrp-relay.cfg")).expect("it is there");
    let tls = format!(
        "loadmodule \"tls.so\"\nloadmodule \"msrp.so\"\nmodparam(\"tls\", \"certificate\", \"{}\")\n\
         modparam(\"tls\", \"private_key\", \"{}\")\nmodparam(\"tls\", \"verify_certificate\", 0)\n\
         modparam(\"tls\", \"tls_method\", \"TLSv1.2+\")",
        certificate.display(),
        key.display()
    );
    let listen = "listen=tcp:127.0.0.1:12856";
    let text = plain
        .replace(listen, &format!("enable_tls=yes\n{listen}\nlisten=tls:127.0.0.1:12857"))
        .replace("\"use_path_addr\", \"127.0.0.1:12856\"", "\"use_path_addr\", \"127.0.0.1:12857\"")
        .replace("loadmodule \"msrp.so\"", &tls);
    let file = folder.join("kamailio.cfg");
    std::fs::write(&file, text).expect("written");
    file
}

fn both_in_one_path(mut bob: Peer, ours: &str, theirs: &str) {
    let password = tests::node::password("bob");
    let path = bob.auth(ours, "bob", &password, Auth::default()).line("Use-Path").to_owned();
    let through = format!("{path} {theirs}");
    let tid = bob.request("AUTH", &through, "");
    let refused = bob.frame();
    assert_eq!((refused.tid(), refused.word()), (tid.as_str(), "401"), "{refused:?}");
    let challenge = Challenge::parse(refused.line("WWW-Authenticate").as_bytes()).expect("a challenge");
    let shown = Auth::default().shown(&challenge, theirs, "ann", "1234");
    bob.request("AUTH", &through, &format!("Authorization: {shown}\r\n"));
    let granted = bob.frame();
    assert_eq!(granted.word(), "200", "{granted:?}");
    let theirs = granted.line("Use-Path").to_owned();
    // Where the relay's configuration lets it go on to.
    let listener = TcpListener::bind("127.0.0.1:15855").expect("the port");
    let far = "msrp://127.0.0.1:15855/far1session;tcp";
    let tid = bob.send(&format!("{path} {theirs} {far}"), "chain003", "", "through both");
    assert_eq!(bob.status(&tid), "200");
    let mut peer = Peer::accept(&listener);
    far.clone_into(&mut peer.own);
    let sent = peer.frame();
    assert_eq!(sent.body, b"through both");
    assert_eq!(sent.line("From-Path"), format!("{theirs} {path} {}", bob.own));
    let back = sent.line("From-Path").to_owned();
    peer.answer(&sent, "200 OK");
    peer.send(&back, "chain004", "", "back through both");
    let heard = bob.frame_of("SEND");
    assert_eq!(heard.body, b"back through both");
    assert_eq!(heard.line("From-Path"), format!("{path} {theirs} {far}"));
}

fn frame_end(read: &str) -> Option<usize> {
    let tid = read.strip_prefix("MSRP ")?.split(' ').next()?;
    let end = format!("-------{tid}$\r\n");
    read.find(&end).map(|at| at + end.len())
}

fn header<'t>(frame: &'t str, name: &str) -> &'t str {
    frame
        .lines()
        .find_map(|l| l.strip_prefix(name)?.strip_prefix(": "))
        .unwrap_or_else(|| panic!("no {name} in {frame}"))
}

fn quoted<'t>(frame: &'t str, name: &str) -> &'t str {
    let from = frame.split(&format!("{name}=\"")).nth(1).unwrap_or_else(|| panic!("no {name} in {frame}"));
    from.split('"').next().expect("a closing quote")
}

/// Joins the group by hand, with the relay first in our path; gives the room's path.
fn join(node: &Node, client: &Client) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let local = socket.local_addr().expect("an address");
    let (group, domain) = (Node::GROUP, node.domain());
    let sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=message 12856 TCP/MSRP *\r\n\
         a=path:{} {}\r\na=setup:active\r\na=accept-types:message/cpim\r\na=accept-wrapped-types:*\r\n",
        client.relay, client.own
    );
    let request = |method: &str, to: &str, tag: &str, more: &str, body: &str| {
        format!(
            "{method} {to} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{method}1\r\nMax-Forwards: 70\r\n\
             From: <sip:ann@{domain}>;tag=f1\r\nTo: <sip:{group}@{domain}>{tag}\r\nCall-ID: relay-{}\r\n\
             CSeq: 1 {method}\r\nContact: <sip:ann@{local}>\r\nP-Asserted-Identity: <sip:ann@{domain}>\r\n{more}\
             Content-Length: {}\r\n\r\n{body}",
            local.port(),
            body.len()
        )
    };
    let uri = format!("sip:{group}@{domain}");
    let invite = request("INVITE", &uri, "", "Content-Type: application/sdp\r\n", &sdp);
    socket.send_to(invite.as_bytes(), node.sip_udp()).expect("sent");
    let mut octets = [0; 65_536];
    let answer = loop {
        let count = socket.recv(&mut octets).expect("an answer to the INVITE");
        let text = String::from_utf8_lossy(&octets[..count]).into_owned();
        if !text.starts_with("SIP/2.0 1") {
            break text;
        }
    };
    assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
    let tag = header(&answer, "To").split_once(";tag=").expect("a tag").1;
    let contact = header(&answer, "Contact");
    let target = contact.split(['<', '>']).nth(1).expect("a URI");
    let ack = request("ACK", target, &format!(";tag={tag}"), "", "");
    socket.send_to(ack.as_bytes(), node.sip_udp()).expect("sent");
    let path =
        answer.lines().find_map(|l| l.strip_prefix("a=path:")).expect("the room's path").trim().to_owned();
    // The dialog lives as long as its socket: nobody BYEs it before the node ends.
    std::mem::forget(socket);
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_behind_kamailios_relay_chats_in_our_room() {
    let node = Node::start_trusting_loopback();
    let _relay = relay();
    let mut entropy = system_entropy();
    let account = Account::new(
        "bob",
        node.domain(),
        &node.password("bob"),
        node.sip_udp(),
        Transport::Udp,
        &mut entropy,
    );
    let identity = Arc::new(Identity::generate(&["bob"]).expect("a certificate"));
    let bob =
        Device::start(account, Arc::new(Counters::default()), identity, entropy).await.expect("a device");
    bob.register().await.expect("bob registers");
    let room =
        bob.invite(Call::join(format!("sip:{}@{}", Node::GROUP, node.domain()))).await.expect("bob joins");
    let mark = bob.log().mark();

    let (mut client, path) = tokio::task::block_in_place(|| {
        let client = Client::start();
        let path = join(&node, &client);
        (client, path)
    });
    tokio::task::block_in_place(|| {
        client.say("say1", &path, "hello through somebody else's relay");
        assert!(client.frame("say1").contains(" 200"), "the relay takes it");
    });
    let letter = |e: &Event| if let Event::Letter(letter) = e { Some(letter.text()) } else { None };
    let heard = bob.log().wait(mark, Duration::from_secs(10), letter).await;
    assert_eq!(heard.as_deref(), Some("hello through somebody else's relay"));

    let chat = bob.chat(room).await.expect("bob's chat");
    chat.send(&Draft::text("and back again")).await.expect("sent");
    let back = tokio::task::block_in_place(|| client.frame("and back again"));
    assert!(back.contains("Content-Type: message/cpim"), "{back}");
    bob.stop().await;
}
