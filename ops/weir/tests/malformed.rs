//! Rubbish at every door of a node, and what both metrics endpoints say of it afterwards: each discarded packet or
//! message stands under its reason, and the sum is what was sent (ops/runbook.md says how to do the same by hand).
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of a test fail the test")]

mod node;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use base::Entropy;
use bytes::BytesMut;
use contract::{Audit, Hello, ToDataplane, encode_frame, to_dataplane};
use node::{Node, PATIENCE};
use rustls::{ClientConnection, StreamOwned};
use sip::Name;
use ue::audio::voice;
use ue::{Call, Chat, Device, Event, Identity, Method, SessionId, Transport, Trust};

const SIP: &str = "weir_control_messages_discarded_total";
const DROPS: &str = "weir_dataplane_drops_total";
/// Longer than the data plane's tick and control's look at its lanes.
const SETTLED: Duration = Duration::from_millis(1500);
/// Who goes sooner makes the answer a message that cannot be sent, which is counted too.
const ANSWER: Duration = Duration::from_millis(1000);

type Expected<'a> = &'a [(&'a str, u64)];

/// Every sample of both endpoints.
#[derive(Clone, Debug)]
struct Counts(BTreeMap<String, f64>);

impl Counts {
    fn of(node: &Node) -> Counts {
        let text = node.metrics();
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        };
        Counts(text.lines().filter(|l| l.starts_with("weir_")).filter_map(sample).collect())
    }

    /// What a family counted since, by its label's value, zeros left out.
    fn since(&self, before: &Counts, family: &str) -> BTreeMap<String, u64> {
        let of =
            |name: &str| Some(name.strip_prefix(family)?.split('"').nth(1).unwrap_or_default().to_owned());
        let rise = |(name, value): (&String, &f64)| {
            let rise = value - before.0.get(name).copied().unwrap_or_default();
            Some((of(name)?, rise as u64)).filter(|(_, rise)| *rise > 0)
        };
        self.0.iter().filter_map(rise).collect()
    }
}

/// One door: what the endpoints said before anything was sent to it.
struct Door<'a> {
    node: &'a Node,
    name: String,
    before: Counts,
}

impl<'a> Door<'a> {
    fn open(node: &'a Node, name: impl Into<String>) -> Self {
        Door { node, name: name.into(), before: Counts::of(node) }
    }

    fn now(&self, family: &str) -> BTreeMap<String, u64> {
        Counts::of(self.node).since(&self.before, family)
    }

    /// The family rose by exactly that: each under its reason, nothing twice, nothing else.
    fn counted(&self, family: &str, expected: Expected<'_>) {
        let expected: BTreeMap<String, u64> = expected.iter().map(|(k, n)| ((*k).to_owned(), *n)).collect();
        let began = Instant::now();
        while self.now(family) != expected && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(50));
        }
        std::thread::sleep(SETTLED);
        assert_eq!(self.now(family), expected, "{}: {family}", self.name);
    }

    /// What came is what went on and what was discarded.
    fn balances(&self, way: &str, discarded: impl Fn(&str) -> bool) {
        let ways = self.now(way);
        let of = |label: &str| ways.get(label).copied().unwrap_or_default();
        let drops: u64 = self.now(DROPS).iter().filter(|(why, _)| discarded(why)).map(|(_, n)| n).sum();
        let went_on = ["forwarded", "consumed", "taken"].map(of).iter().sum::<u64>();
        assert_eq!(of("in"), went_on + drops, "{}: {ways:?} and {:?}", self.name, self.now(DROPS));
    }
}

fn sum(expected: Expected<'_>) -> u64 {
    expected.iter().map(|(_, n)| n).sum()
}

// ---- SIP -----------------------------------------------------------------------------------------------------

/// A request that is fine, but for what `change` does to its text.
fn request(method: &str, n: usize, via: &str, change: impl Fn(String) -> String) -> Vec<u8> {
    let text = format!(
        "{method} sip:weir.example SIP/2.0\r\nVia: SIP/2.0/{via} 127.0.0.1:9;branch=z9hG4bKbad{n}{via};rport\r\n\
         From: <sip:x@weir.example>;tag=1\r\nTo: <sip:weir.example>\r\nCall-ID: bad{n}{via}\r\nCSeq: 1 {method}\r\n\
         Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    );
    change(text).into_bytes()
}

fn with(line: &str) -> impl Fn(String) -> String + '_ {
    move |text| text.replace("Max-Forwards: 70\r\n", &format!("Max-Forwards: 70\r\n{line}\r\n"))
}

fn instead<'a>(old: &'a str, new: &'a str) -> impl Fn(String) -> String + 'a {
    move |text| {
        assert!(text.contains(old), "{text}");
        text.replacen(old, new, 1)
    }
}

/// One message for each reason that every transport has.
fn bad_sip(via: &str) -> Vec<(&'static str, Vec<u8>)> {
    let many = "Subject: x\r\n".repeat(200);
    let long = format!("Subject: {}", "x".repeat(40_000));
    let response = "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bKnone\r\nFrom: <sip:a@b>;tag=1\r\n\
                    To: <sip:c@d>;tag=2\r\nCall-ID: none\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n";
    vec![
        ("start_line", b"what is this\r\nContent-Length: 0\r\n\r\n".to_vec()),
        ("version", request("OPTIONS", 1, via, instead("SIP/2.0", "SIP/3.0"))),
        ("request_uri", request("OPTIONS", 2, via, instead("sip:weir.example ", "<sip:weir.example> "))),
        ("status_code", response.replace("200 OK", "999 Odd").into_bytes()),
        ("header_line", request("OPTIONS", 3, via, with("no colon in this"))),
        ("head_too_long", request("OPTIONS", 4, via, with(&long))),
        ("too_many_headers", request("OPTIONS", 5, via, with(many.trim_end()))),
        ("content_length", request("OPTIONS", 6, via, instead("Length: 0", "Length: many"))),
        ("lengths_differ", request("OPTIONS", 7, via, with("Content-Length: 1"))),
        ("header_missing", request("OPTIONS", 8, via, instead(&format!("Call-ID: bad8{via}\r\n"), ""))),
        ("header_repeated", request("OPTIONS", 9, via, with("Call-ID: again"))),
        ("header_value", request("OPTIONS", 10, via, with("Contact: <sip:a@b>;;;"))),
        ("method_mismatch", request("OPTIONS", 11, via, instead("1 OPTIONS", "1 INFO"))),
        ("stray_response", response.as_bytes().to_vec()),
        ("stray_cancel", request("CANCEL", 12, via, |text| text)),
        ("screened", request("DANCE", 13, via, |text| text)),
    ]
}

fn udp_of_sip(node: &Node) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(node.server(Transport::Udp)).unwrap();
    let door = Door::open(node, "SIP over UDP");
    let mut sent = bad_sip("UDP");
    sent.push(("head_unterminated", request("OPTIONS", 20, "UDP", |text| text.trim_end().to_owned())));
    sent.push(("body_truncated", request("OPTIONS", 21, "UDP", instead("Length: 0", "Length: 9"))));
    // What was screened out comes by another way too; over a stream its transaction would be over.
    sent.push(("merged", request("DANCE", 13, "UDP", instead("branch=z9hG4bK", "branch=z9hG4bKother"))));
    let mut expected = Vec::new();
    for (why, datagram) in &sent {
        socket.send(datagram).unwrap();
        expected.push((*why, 1));
    }
    door.counted(SIP, &expected);
    door.counted("weir_control_messages_received_total", &[("udp", sum(&expected))]);

    // An ACK that belongs to nothing reaches a lane and ends there; a ping is no message.
    let door = Door::open(node, "SIP over UDP, an ACK and pings");
    socket.send(&request("ACK", 30, "UDP", |text| text)).unwrap();
    socket.send(b"\r\n\r\n").unwrap();
    socket.send(b"").unwrap();
    door.counted("weir_control_lane_noted_incidents", &[("ack_stray", 1)]);
    door.counted("weir_control_pings_received_total", &[("udp", 2)]);
    door.counted(SIP, &[]);

    // Anything at all: whatever the reasons are, their sum is what was sent.
    let door = Door::open(node, "SIP over UDP, noise");
    let mut entropy = Entropy::from_number(6);
    for _ in 0..500 {
        let mut noise = vec![0; 1 + entropy.below(300) as usize];
        entropy.fill(&mut noise);
        noise[0] |= 0x80;
        socket.send(&noise).unwrap();
    }
    door.counted("weir_control_messages_received_total", &[("udp", 500)]);
    assert_eq!(door.now(SIP).values().sum::<u64>(), 500, "{:?}", door.now(SIP));
}

fn streams_of_sip(node: &Node, transport: Transport, identity: &Identity) {
    let (address, tls) = (node.server(transport), transport == Transport::Tls);
    let via = transport.as_str();
    let door = Door::open(node, format!("SIP over {via}"));
    let mut sent = bad_sip(via);
    sent.push(("length_missing", request("OPTIONS", 20, via, instead("Content-Length: 0\r\n", ""))));
    sent.push(("body_too_long", request("OPTIONS", 21, via, instead("Length: 0", "Length: 2000000"))));
    // The peer goes within the head of a message, and within its body.
    sent.push(("unfinished", request("OPTIONS", 22, via, |text| text.trim_end().to_owned())));
    sent.push(("unfinished", request("OPTIONS", 23, via, instead("Length: 0", "Length: 9"))));
    let mut expected = BTreeMap::new();
    for (why, message) in &sent {
        Wire::to(address, tls.then_some(identity)).say_and_go(message);
        *expected.entry(*why).or_insert(0) += 1;
    }
    let expected: Vec<(&str, u64)> = expected.into_iter().collect();
    door.counted(SIP, &expected);
    door.counted("weir_control_messages_received_total", &[(transport.label(), sum(&expected))]);
    if tls {
        let door = Door::open(node, "SIP over TLS, no TLS");
        Wire::to(address, None).say_and_go(b"OPTIONS sip:weir.example SIP/2.0\r\n\r\n");
        Wire::to(address, Some(identity)).spoil();
        door.counted("weir_control_connections_closed_total", &[("tls", 2)]);
    }
}

async fn descriptions(node: &Node, ann: &Device) {
    let door = Door::open(node, "session descriptions");
    for sdp in [
        "",
        "v=0\r\nnonsense",
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio what RTP/AVP 0\r\n",
    ] {
        let mut invite = ann.draft_request(Method::Invite, "sip:dave@weir.example").unwrap();
        invite.headers.push(Name::Contact, "<sip:ann@127.0.0.1:9>");
        invite.set_body("application/sdp", format!("{sdp}\r\n"));
        assert_eq!(ann.request(invite).await.unwrap().code, 488, "{sdp}");
    }
    door.counted("weir_control_lane_noted_incidents", &[("description_malformed", 3)]);
}

// ---- streams -------------------------------------------------------------------------------------------------

/// A connection, plain or with TLS, that a stranger opens.
enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    fn to(address: SocketAddr, tls: Option<&Identity>) -> Wire {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let Some(identity) = tls else { return Wire::Plain(stream) };
        let config = identity.client(&Trust::Anybody).unwrap();
        let mut session =
            StreamOwned::new(ClientConnection::new(config, address.ip().into()).unwrap(), stream);
        session.flush().unwrap();
        Wire::Tls(Box::new(session))
    }

    /// Says that, hears what is answered at once, and goes; returns when the far end has closed.
    fn say_and_go(mut self, octets: &[u8]) {
        let mut answer = vec![0; 64 << 10];
        // The far end may close before it has read everything: it has said enough then.
        match &mut self {
            Wire::Plain(stream) => {
                let _ = stream.write_all(octets);
                stream.set_read_timeout(Some(ANSWER)).unwrap();
                let _ = stream.read(&mut answer);
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let _ = stream.shutdown(Shutdown::Write);
                let _ = stream.read_to_end(&mut answer);
            }
            Wire::Tls(session) => {
                let _ = session.write_all(octets);
                session.sock.set_read_timeout(Some(ANSWER)).unwrap();
                let _ = session.read(&mut answer);
                session.sock.set_read_timeout(Some(PATIENCE)).unwrap();
                session.conn.send_close_notify();
                let _ = session.flush();
                let _ = session.sock.shutdown(Shutdown::Write);
                let _ = session.read_to_end(&mut answer);
            }
        }
    }

    /// What cannot be decrypted follows the handshake.
    fn spoil(self) {
        let Wire::Tls(mut session) = self else { panic!("no TLS") };
        while session.conn.is_handshaking() {
            session.conn.complete_io(&mut session.sock).unwrap();
        }
        let mut record = vec![0x17, 3, 3, 0, 40];
        record.extend_from_slice(&[0x5a; 40]);
        session.sock.write_all(&record).unwrap();
        let _ = session.sock.read_to_end(&mut Vec::new());
    }
}

// ---- MSRP ----------------------------------------------------------------------------------------------------

fn is_msrp(why: &str) -> bool {
    why.starts_with("msrp_") && why != "msrp_congested" && !why.starts_with("msrp_held_")
}

/// An MSRP request, whole and without a body.
fn msrp(method: &str, to: &str, from: &str, more: &str) -> Vec<u8> {
    format!("MSRP badone {method}\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n{more}-------badone$\r\n")
        .into_bytes()
}

fn strangers_of_msrp(node: &Node, tls: bool, identity: &Identity) {
    let msrp_of = node.config()["dataplane"]["msrp"].clone();
    let port = msrp_of["port"].as_integer().unwrap() as u16 + u16::from(tls);
    let address = SocketAddr::new(msrp_of["address"].as_str().unwrap().parse().unwrap(), port);
    let door = Door::open(node, format!("MSRP of strangers, TLS {tls}"));
    let path = |session: &str| format!("msrp://{address}/{session};tcp");
    let from = "msrp://127.0.0.1:9/stranger;tcp";
    let bare = "Message-ID: mess1\r\nByte-Range: 1-0/0\r\n";
    let whole = msrp("SEND", &path("000nobody"), from, bare);
    let sent: Vec<(&str, Vec<u8>)> = vec![
        ("msrp_malformed", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("msrp_malformed", msrp("SEND", &path("000nobody"), from, "Message-ID: mess1\r\nByte-Range: x\r\n")),
        ("msrp_too_long", format!("MSRP badone SEND\r\nTo-Path: {}", "x".repeat(20_000)).into_bytes()),
        ("msrp_no_session", whole.clone()),
        // Of a shard that this node does not have.
        ("msrp_no_session", msrp("SEND", &path("fffnobody"), from, bare)),
        ("msrp_unasked", msrp("200 OK", &path("000nobody"), from, "")),
        ("msrp_unfinished", whole[..whole.len() / 2].to_vec()),
    ];
    let mut expected = BTreeMap::new();
    for (why, octets) in &sent {
        Wire::to(address, tls.then_some(identity)).say_and_go(octets);
        *expected.entry(*why).or_insert(0) += 1;
    }
    if tls {
        Wire::to(address, Some(identity)).spoil();
        expected.insert("msrp_tls", 1);
    }
    let expected: Vec<(&str, u64)> = expected.into_iter().collect();
    door.counted(DROPS, &expected);
    // One 400 and two 481 were answers.
    door.counted("weir_dataplane_requests_total", &[("in", sum(&expected)), ("out", 3)]);
    door.balances("weir_dataplane_requests_total", is_msrp);
    if tls {
        let door = Door::open(node, "MSRP, no TLS");
        Wire::to(address, None).say_and_go(b"MSRP what SEND\r\n");
        door.counted("weir_dataplane_connections_refused_total", &[("never_opened", 1)]);
        door.counted(DROPS, &[]);
    }
}

async fn chat(from: &Device, to: &Device) -> (SessionId, Chat) {
    let mark = to.log().mark();
    let session = from.invite(Call::chat(to.address())).await.unwrap();
    let chat = from.chat(session).await.unwrap();
    chat.send(&ue::Draft::text("bound")).await.unwrap();
    let came = |e: &Event| matches!(e, Event::Letter(_)).then_some(());
    to.log().wait(mark, PATIENCE, came).await.unwrap();
    (session, chat)
}

async fn bound_msrp(node: &Node, from: &Device, to: &Device) {
    let ((first, bad), (second, other)) = (chat(from, to).await, chat(from, to).await);
    let door = Door::open(node, format!("MSRP of {}, bound", from.name()));
    let (ours, theirs) = bad.paths();
    let (others, _) = other.paths();
    let bare = "Message-ID: mess1\r\nByte-Range: 1-0/0\r\n";
    let nobody = format!("{}/000nobody;tcp", ours.rsplit_once('/').unwrap().0);
    let sent: Vec<(&str, Vec<u8>)> = vec![
        ("msrp_malformed", msrp("SEND", ours, theirs, "Message-ID: mess1\r\nByte-Range: x\r\n")),
        ("msrp_method", msrp("DANCE", ours, theirs, "")),
        ("msrp_no_session", msrp("SEND", &nobody, theirs, bare)),
        ("msrp_other_connection", msrp("SEND", others, theirs, bare)),
        ("msrp_unasked", msrp("200 OK", ours, theirs, "")),
        (
            "msrp_unasked",
            msrp("REPORT", ours, theirs, "Message-ID: mess0\r\nByte-Range: 1-2/2\r\nStatus: 000 200 OK\r\n"),
        ),
        // The last one closes the connection.
        ("msrp_malformed", b"MSRP is over\r\n\r\n".to_vec()),
    ];
    let mut expected = BTreeMap::new();
    for (why, octets) in sent {
        bad.inject(octets);
        *expected.entry(why).or_insert(0) += 1;
    }
    let mut expected: Vec<(&str, u64)> = expected.into_iter().collect();
    door.counted(DROPS, &expected);
    let half = msrp("SEND", others, other.paths().1, bare);
    other.inject(half[..half.len() / 2].to_vec());
    other.close();
    expected.push(("msrp_unfinished", 1));
    door.counted(DROPS, &expected);
    // Control sets both up anew meanwhile: those requests were taken.
    door.balances("weir_dataplane_requests_total", is_msrp);
    for session in [first, second] {
        from.hang_up(session, 200).await.unwrap();
    }
}

// ---- RTP -----------------------------------------------------------------------------------------------------

/// One datagram for each reason.
fn bad_rtp() -> Vec<(&'static str, Vec<u8>)> {
    let mut long_list = vec![0x8f, 0];
    long_list.extend_from_slice(&[0; 14]);
    vec![
        ("empty", Vec::new()),
        ("short", vec![0x80, 0, 1, 2]),
        // Fifteen contributing sources in sixteen octets.
        ("header", long_list),
        // A receiver report that is longer than its datagram.
        ("rtcp", vec![0x80, 201, 0, 99, 1, 2, 3, 4]),
        ("stun", vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
        ("dtls", vec![22, 0xfe, 0xfd, 0, 0]),
        ("foreign", vec![0xff; 40]),
        ("truncated", vec![0x80; 3000]),
    ]
}

fn is_rtp(why: &str) -> bool {
    !why.starts_with("msrp_")
}

async fn rtp(node: &Node, carol: &Device, dave: &Device) {
    let mark = dave.log().mark();
    let own = carol.invite(Call::audio(dave.address())).await.unwrap();
    let up = |e: &Event| if let Event::Up { session } = e { Some(*session) } else { None };
    let theirs = dave.log().wait(mark, PATIENCE, up).await.unwrap();
    let flow = carol.flow(own).await.unwrap();
    let flow = || flow.lock().unwrap_or_else(PoisonError::into_inner);
    let inject = || bad_rtp().iter().for_each(|(_, datagram)| flow().inject(datagram).unwrap());
    let leg = flow().remote().unwrap();

    // Nothing is learned yet: rubbish is none of the peer's packets, and a stranger from afar is nobody.
    let door = Door::open(node, "RTP before its source is learned");
    let stranger = UdpSocket::bind("127.1.1.1:0").unwrap();
    let packet = [&[0x80, 0, 0, 1, 0, 0, 0, 1, 9, 9, 9, 9][..], &[0xff; 160]].concat();
    for _ in 0..3 {
        stranger.send_to(&packet, leg).unwrap();
    }
    inject();
    let mut expected: Vec<(&str, u64)> = bad_rtp().iter().map(|(why, _)| (*why, 1)).collect();
    door.counted(DROPS, &[&expected[..], &[("source", 3)]].concat());
    door.counted("weir_dataplane_packets_total", &[("in", sum(&expected) + 3)]);

    // Learned, and the call goes on meanwhile: what is good passes, and the sum holds.
    carol.play(own, Arc::new(voice(3, 60.0)), 1).await.unwrap();
    dave.play(theirs, Arc::new(voice(4, 60.0)), 2).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let door = Door::open(node, "RTP of a call");
    for _ in 0..5 {
        inject();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    expected.iter_mut().for_each(|(_, n)| *n *= 5);
    door.counted(DROPS, &expected);
    door.balances("weir_dataplane_packets_total", is_rtp);
    let stats = dave.audio_stats(theirs).await.unwrap();
    assert!(stats.heard() > 50 && stats.lost() == 0 && stats.malformed == 0, "{stats:?}");
    carol.hang_up(own, 200).await.unwrap();
}

// ---- the contract and the admin socket ------------------------------------------------------------------------

fn local(path: PathBuf, octets: &[u8]) {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(octets).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
}

fn frame(body: to_dataplane::Body) -> Vec<u8> {
    let mut frame = BytesMut::new();
    encode_frame(&ToDataplane { body: Some(body) }, &mut frame);
    frame.to_vec()
}

fn contract_socket(node: &Node) {
    let socket = || node.folder.path().join("dataplane.sock");
    let hello = |epoch, version| {
        let (version_min, version_max) = (version, version);
        frame(to_dataplane::Body::Hello(Hello { version_min, version_max, epoch, owner: "x".to_owned() }))
    };
    let audit = frame(to_dataplane::Body::Audit(Audit { id: 1 }));
    let door = Door::open(node, "the contract socket");
    // No frame; a length without end; half a frame; empty frames; a word before Hello; a Hello of long ago, and of
    // a version that nobody speaks.
    let noise: [&[u8]; 7] = [
        &[5, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0xff; 12],
        &audit[..3],
        &[0, 0, 0],
        &audit,
        &hello(0, 1),
        &hello(u64::MAX, 99),
    ];
    for octets in noise {
        local(socket(), octets);
    }
    let frames = [("malformed", 2), ("unfinished", 1), ("unknown", 3), ("early", 1)];
    door.counted("weir_dataplane_frames_discarded_total", &frames);
    door.counted("weir_dataplane_batches_total", &[("refused_epoch", 1), ("refused_version", 1)]);
    let ended = [("malformed", 2), ("closed", 2), ("early", 1), ("refused", 2)];
    door.counted("weir_dataplane_links_ended_total", &ended);
    assert!(node.is_linked(), "the owner is who it was");
}

fn admin_socket(node: &Node) {
    let socket = || node.folder.path().join("control.sock");
    let door = Door::open(node, "the admin socket");
    let long = vec![b'x'; 100_000];
    for octets in [&b"nonsense\n"[..], b"{\"ask\":\"dance\"}\n", b"\xff\x00\n", b"{\"ask\":", &long] {
        let mut stream = UnixStream::connect(socket()).unwrap();
        // What is too long is not read to its end.
        let _ = stream.write_all(octets);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let refused = b"{\"ask\":\"capture\",\"context\":1,\"on\":true,\"file\":\"../x.pcap\"}\n";
    local(socket(), refused);
    let expected = [("malformed", 5), ("refused", 1)];
    door.counted("weir_control_admin_questions_total", &expected);
    let held: Vec<_> = (0..16).map(|_| UnixStream::connect(socket()).unwrap()).collect();
    // The sixteen are taken in turn.
    std::thread::sleep(Duration::from_millis(300));
    local(socket(), b"");
    drop(held);
    door.counted("weir_control_admin_questions_total", &[&expected[..], &[("busy", 1)]].concat());
}

async fn every_door(driver: &str) {
    let node = tokio::task::block_in_place(|| Node::start(driver, |_| {}));
    let quiet = |account: &mut ue::Account| account.rtcp_every = Duration::from_secs(600);
    let ann = node.device("ann", Transport::Tcp, quiet).await;
    let bob = node.device("bob", Transport::Tls, quiet).await;
    let carol = node.device("carol", Transport::Tcp, quiet).await;
    let dave = node.device("dave", Transport::Tcp, quiet).await;
    let identity = Identity::generate(&["stranger.invalid"]).unwrap();
    tokio::task::block_in_place(|| {
        udp_of_sip(&node);
        streams_of_sip(&node, Transport::Tcp, &identity);
        streams_of_sip(&node, Transport::Tls, &identity);
        strangers_of_msrp(&node, false, &identity);
        strangers_of_msrp(&node, true, &identity);
        contract_socket(&node);
        admin_socket(&node);
    });
    descriptions(&node, &ann).await;
    bound_msrp(&node, &ann, &carol).await;
    bound_msrp(&node, &bob, &carol).await;
    rtp(&node, &carol, &dave).await;
    // The node is as it was.
    ann.message("sip:dave@weir.example", &ue::Draft::text("still here")).await.unwrap();
    let mark = 0;
    let letter = |e: &Event| if let Event::Letter(l) = e { Some(l.text()) } else { None };
    assert_eq!(dave.log().wait(mark, PATIENCE, letter).await.as_deref(), Some("still here"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_door_counts_what_it_discards_with_mio() {
    every_door("mio").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_door_counts_what_it_discards_with_the_driver_that_measures_better() {
    every_door("auto").await;
}
