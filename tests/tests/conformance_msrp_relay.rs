//! RFC 4976 from outside: clients by hand over TCP and TLS at a running node, whose subscribers they are.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use sip::digest::Algorithm;
use tests::msrp_peer::{Auth, Peer};
use tests::node::{DOMAIN, Node, Settings, password, until};
use ue::{Answering, Call, Draft, Event, Transport};

const SETTINGS: Settings = Settings {
    users: &["ann", "bob", "cat"],
    rtp_first: 32_000,
    more: r#"
[service.identity]
trusted_peers = ["127.0.0.1"]
[[service.controlling.groups]]
address = "sip:books@weir.example"
members = ["sip:ann@weir.example", "sip:bob@weir.example"]
"#,
};

fn run(test: impl AsyncFnOnce(Node)) {
    tests::node::run(SETTINGS, test);
}

/// What the relay is called by those who only know where it is.
fn relay(at: SocketAddr, tls: bool) -> String {
    format!("{}://{at};tcp", if tls { "msrps" } else { "msrp" })
}

/// A client with a session at the relay, and its path.
fn client(node: &Node, user: &str, tls: bool) -> (Peer, String) {
    let (plain, secure) = node.msrp();
    let at = if tls { secure } else { plain };
    let mut peer = if tls { Peer::connect_tls(at) } else { Peer::connect(at) };
    let granted = peer.auth(&relay(at, tls), user, &password(user), Auth::default());
    assert_eq!(granted.word(), "200", "{granted:?}");
    let path = granted.line("Use-Path").to_owned();
    (peer, path)
}

/// RFC 4976 §5.1, §9.1; what clients differ in (PEERS): MD5 or SHA-256, `uri` or none, `opaque` given back or not.
#[test]
fn s5_1_a_subscriber_authenticates_however_his_client_does_it() {
    run(async |node| {
        let (plain, secure) = node.msrp();
        for (at, tls) in [(secure, true), (plain, false)] {
            for algorithm in [Algorithm::Md5, Algorithm::Sha256] {
                for (uri, opaque) in [(true, true), (true, false), (false, true), (false, false)] {
                    let mut peer = if tls { Peer::connect_tls(at) } else { Peer::connect(at) };
                    let how = Auth { algorithm, uri, opaque, lines: "Expires: 300\r\n" };
                    let granted = peer.auth(&relay(at, tls), "ann", &password("ann"), how);
                    assert_eq!((granted.word(), granted.line("Expires")), ("200", "300"), "{how:?}");
                    assert_eq!(granted.line("To-Path"), peer.own);
                    assert!(granted.line("Authentication-Info").contains("rspauth="));
                    let path = granted.line("Use-Path");
                    let scheme = if tls { "msrps" } else { "msrp" };
                    assert!(
                        path.starts_with(&format!("{scheme}://{at}/")) && path.ends_with(";tcp"),
                        "{path}"
                    );
                }
            }
        }
    });
}

#[test]
fn s5_1_whoever_is_not_a_subscriber_gets_no_path() {
    run(async |node| {
        let (_, secure) = node.msrp();
        let mut peer = Peer::connect_tls(secure);
        for (user, password) in [("ann", "wrong"), ("nobody", "ann-secret")] {
            let refused = peer.auth(&relay(secure, true), user, password, Auth::default());
            assert_eq!((refused.word(), refused.value("Use-Path")), ("401", None));
        }
        let how = Auth { lines: "Expires: 5\r\n", ..Auth::default() };
        let short = peer.auth(&relay(secure, true), "ann", &password("ann"), how);
        assert_eq!((short.word(), short.line("Min-Expires")), ("423", "60"));
        let tid =
            peer.send(&format!("msrps://{secure}/000guess;tcp msrp://127.0.0.1:1/x;tcp"), "m001", "", "hi");
        assert_eq!(peer.status(&tid), "481");
    });
}

/// RFC 4976 §6.4.1 to §6.4.3: two clients of one relay, one by TLS; answers hop by hop, reports from end to end.
#[test]
fn s6_4_two_clients_talk_through_the_relay() {
    run(async |node| {
        let (mut ann, ann_path) = client(&node, "ann", true);
        let (mut bob, bob_path) = client(&node, "bob", false);
        let there = format!("{ann_path} {bob_path} {}", bob.own);
        let tid = ann.send(&there, "m001", "Success-Report: yes\r\n", "to bob");
        assert_eq!(ann.status(&tid), "200");
        let sent = bob.frame();
        assert_eq!((sent.word(), sent.body.as_slice()), ("SEND", b"to bob".as_slice()));
        assert_eq!(sent.line("To-Path"), bob.own);
        assert_eq!(sent.line("From-Path"), format!("{bob_path} {ann_path} {}", ann.own));
        bob.answer(&sent, "200 OK");
        let back = sent.line("From-Path").to_owned();
        bob.request("REPORT", &back, "Message-ID: m001\r\nByte-Range: 1-6/6\r\nStatus: 000 200 OK\r\n");
        let report = ann.frame();
        assert_eq!((report.word(), report.line("Status")), ("REPORT", "000 200 OK"));
        assert_eq!(report.line("From-Path"), format!("{ann_path} {bob_path} {}", bob.own));
        assert!(bob.is_silent(Duration::from_millis(200)), "a REPORT is never answered");
        // Failure goes the same way.
        let tid = ann.send(&there, "m002", "", "refused");
        assert_eq!(ann.status(&tid), "200");
        let sent = bob.frame();
        bob.answer(&sent, "413 Stop");
        let report = ann.frame();
        assert_eq!((report.word(), report.line("Status")), ("REPORT", "000 413 Stop Sending Message"));
        assert_eq!((report.line("Message-ID"), report.line("Byte-Range")), ("m002", "1-7/7"));
        // A client that is gone takes its path with it.
        drop(bob);
        std::thread::sleep(Duration::from_millis(300));
        ann.send(&there, "m003", "", "nobody");
        let told = ann.frame_of("REPORT");
        assert_eq!(
            (told.line("Message-ID"), told.line("Status")),
            ("m003", "000 481 Session Does Not Exist")
        );
    });
}

/// RFC 4976 §6.4.1: to a peer that is no client of this relay; the path is pinned to him.
#[test]
fn s6_4_1_the_relay_dials_a_peer_and_takes_only_him() {
    run(async |node| {
        let (mut ann, path) = client(&node, "ann", true);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = format!("msrp://{}/far1session;tcp", listener.local_addr().unwrap());
        let there = format!("{path} {far}");
        let tid = ann.send(&there, "m001", "", "hello");
        let mut peer = Peer::accept(&listener);
        peer.own.clone_from(&far);
        assert_eq!(ann.status(&tid), "200");
        let sent = peer.frame();
        assert_eq!(
            (sent.line("To-Path"), sent.line("From-Path")),
            (far.as_str(), format!("{path} {}", ann.own).as_str())
        );
        peer.answer(&sent, "200 OK");
        let back = sent.line("From-Path").to_owned();
        let tid = peer.send(&back, "m002", "", "back");
        assert_eq!((peer.status(&tid).as_str(), ann.frame().body.as_slice()), ("200", b"back".as_slice()));
        // A path that begins with msrps is not for TCP (RFC 4976 §6.3): nobody else comes in by it.
        let mut thief = Peer::connect(node.msrp().0);
        let tid = thief.send(&back, "m003", "", "stolen");
        assert_eq!(thief.status(&tid), "403");
        let mut thief = Peer::connect_tls(node.msrp().1);
        let tid = thief.send(&back, "m004", "", "stolen");
        assert_eq!(thief.status(&tid), "403");
        thief.own.clone_from(&far);
        let tid = thief.send(&back, "m005", "", "stolen");
        assert_eq!(thief.status(&tid), "506");
        let tid = ann.send(&format!("{path} msrp://127.0.0.1:9/other;tcp"), "m006", "", "elsewhere");
        assert_eq!(ann.status(&tid), "403");
        assert!(ann.is_silent(Duration::from_millis(200)));
    });
}

/// RFC 4976 §6.4: a next hop by name is looked up; one that is not known, or is where none may be, is a 408 or a 403.
#[test]
fn s6_4_a_next_hop_may_be_a_name() {
    run(async |node| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mut ann, path) = client(&node, "ann", true);
        let tid = ann.send(&format!("{path} msrp://localhost:{port}/far1session;tcp"), "m001", "", "by name");
        let sent = Peer::accept(&listener).frame();
        assert_eq!((sent.body.as_slice(), ann.status(&tid).as_str()), (b"by name".as_slice(), "200"));
        for (host, status) in
            [("no-such-host.invalid:7000", "408"), ("192.0.2.1:7000", "403"), ("[::1]:7000", "403")]
        {
            let (mut bob, path) = client(&node, "bob", false);
            let tid = bob.send(&format!("{path} msrp://{host}/far1session;tcp"), "m002", "", "nowhere");
            assert_eq!(bob.status(&tid), status, "{host}");
        }
    });
}

/// Joins the room by SIP with the relay first in the path, as a client behind it does; gives the room's path.
fn join(node: &Node, path: &str, own: &str, tls: bool) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(tests::msrp_peer::PATIENCE)).unwrap();
    let local = socket.local_addr().unwrap();
    let (port, protocol) = (
        path.rsplit(':').next().and_then(|p| p.split('/').next()).unwrap(),
        if tls { "TCP/TLS/MSRP" } else { "TCP/MSRP" },
    );
    let sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=message {port} {protocol} *\r\n\
         a=path:{path} {own}\r\na=setup:active\r\na=accept-types:message/cpim\r\na=accept-wrapped-types:*\r\n"
    );
    let request = |method: &str, to: &str, tag: &str, more: &str, body: &str| {
        format!(
            "{method} {to} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{method}1\r\nMax-Forwards: 70\r\n\
             From: <sip:ann@{DOMAIN}>;tag=f1\r\nTo: <sip:books@{DOMAIN}>{tag}\r\nCall-ID: relay-{}\r\n\
             CSeq: 1 {method}\r\nContact: <sip:ann@{local}>\r\nP-Asserted-Identity: <sip:ann@{DOMAIN}>\r\n{more}\
             Content-Length: {}\r\n\r\n{body}",
            local.port(),
            body.len()
        )
    };
    let invite =
        request("INVITE", &format!("sip:books@{DOMAIN}"), "", "Content-Type: application/sdp\r\n", &sdp);
    socket.send_to(invite.as_bytes(), node.sip_udp()).unwrap();
    let mut octets = [0; 65_536];
    let answer = loop {
        let count = socket.recv(&mut octets).unwrap();
        let text = String::from_utf8_lossy(&octets[..count]).into_owned();
        if !text.starts_with("SIP/2.0 1") {
            break text;
        }
    };
    assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
    let line = |name: &str| answer.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned();
    let tag = line("To: ").split_once(";tag=").unwrap().1.to_owned();
    let contact = line("Contact: ");
    let target = contact.split(['<', '>']).nth(1).unwrap();
    let ack = request("ACK", target, &format!(";tag={tag}"), "", "");
    socket.send_to(ack.as_bytes(), node.sip_udp()).unwrap();
    // The dialog lives as long as its socket: nobody BYEs it before the node ends.
    std::mem::forget(socket);
    line("a=path:")
}

/// A client behind our relay, over TLS, in our own room: both ways, and a nickname through the relay.
#[test]
fn a_client_behind_the_relay_chats_in_a_room() {
    run(async |node| {
        let bob = node.device("bob", "bob", Transport::Udp, Answering::Accept).await;
        let room = bob.invite(Call::join(format!("sip:books@{DOMAIN}"))).await.unwrap();
        let (mut ann, path) = client(&node, "ann", true);
        let there = format!("{path} {}", join(&node, &path, &ann.own, false));
        let cpim = format!(
            "From: <sip:ann@{DOMAIN}>\r\nTo: <sip:anonymous@anonymous.invalid>\r\n\r\n\
             Content-Type: text/plain\r\n\r\nthrough our own relay"
        );
        let rest = format!(
            "Message-ID: m001\r\nByte-Range: 1-{0}/{0}\r\nContent-Type: message/cpim\r\n\r\n{cpim}\r\n",
            cpim.len()
        );
        let tid = tokio::task::block_in_place(|| ann.request("SEND", &there, &rest));
        assert_eq!(tokio::task::block_in_place(|| ann.status(&tid)), "200");
        until(&bob, "the message", |event| match event {
            Event::Letter(letter) if letter.text() == "through our own relay" => Some(()),
            _ => None,
        })
        .await;
        bob.chat(room).await.unwrap().send(&Draft::text("and back again")).await.unwrap();
        let back = tokio::task::block_in_place(|| ann.frame_of("SEND"));
        assert!(String::from_utf8_lossy(&back.body).ends_with("and back again"), "{back:?}");
        let tid =
            tokio::task::block_in_place(|| ann.request("NICKNAME", &there, "Use-Nickname: \"Annie\"\r\n"));
        let status = tokio::task::block_in_place(|| ann.status(&tid));
        assert!(["200", "403"].contains(&status.as_str()), "the room answers, not the relay: {status}");
    });
}
