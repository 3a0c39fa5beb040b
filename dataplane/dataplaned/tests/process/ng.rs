//! rtpengine's protocol at the real process: datagrams and a connection in, RTP through.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};

use contract::change::Verb;
use contract::from_dataplane::Body as Word;
use contract::refusal::Reason;
use contract::to_dataplane::Body as Order;
use contract::{Audit, Context};
use ng::Value;
use ng::frame::{Encoding, Frame};

use crate::control::{Control, Node, PATIENCE, call, phone, rtp};

fn node(kind: &str) -> Node {
    Node::start(kind, |config| {
        config.ng.udp = Some("127.0.0.1:0".parse().unwrap());
        config.ng.tcp = Some("127.0.0.1:0".parse().unwrap());
        config.shards.cores = vec![0, 0];
    })
}

/// A proxy that asks by datagrams.
struct Proxy {
    socket: UdpSocket,
    cookie: u32,
}

impl Proxy {
    fn new(node: &Node) -> Proxy {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(node.running().addresses().ng.0.unwrap()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Proxy { socket, cookie: 0 }
    }

    fn ask(&mut self, body: Value) -> Value {
        self.cookie += 1;
        let cookie = format!("{}_7", self.cookie).into_bytes();
        let octets = Frame { cookie, encoding: Encoding::Bencode, body }.to_octets();
        self.exchange(&octets)
    }

    fn exchange(&self, octets: &[u8]) -> Value {
        self.socket.send(octets).unwrap();
        let mut buffer = [0; 65_536];
        let length = self.socket.recv(&mut buffer).unwrap();
        Frame::read(&buffer[..length]).unwrap().0.body
    }

    /// Offer and answer; where the caller and the callee send to.
    fn call(&mut self, id: &str, caller: &UdpSocket, callee: &UdpSocket) -> [SocketAddr; 2] {
        let port = |reply: &Value| {
            assert_eq!(reply.text("result"), Some("ok"), "{:?}", reply.text("error-reason"));
            let text = reply.text("sdp").unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("m=audio ")).unwrap();
            SocketAddr::from(([127, 0, 0, 1], line.split(' ').next().unwrap().parse().unwrap()))
        };
        let sdp = |phone: &UdpSocket| {
            let port = phone.local_addr().unwrap().port();
            format!(
                "v=0\r\no=- 7 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n"
            )
        };
        let named = |command: &str| {
            Value::dictionary().with("call-id", id).with("from-tag", "a").with("command", command)
        };
        let for_callee = port(&self.ask(named("offer").with("sdp", sdp(caller))));
        let for_caller = port(&self.ask(named("answer").with("to-tag", "b").with("sdp", sdp(callee))));
        [for_caller, for_callee]
    }
}

fn named(command: &str, id: &str) -> Value {
    Value::dictionary().with("call-id", id).with("from-tag", "b").with("command", command)
}

fn packets(reply: &Value) -> Option<i64> {
    reply.get("totals")?.get("RTP")?.number("packets")
}

#[test]
fn a_proxys_calls_are_relayed_both_ways_and_counted_to_the_last_packet() {
    for kind in ["mio", "uring"] {
        let node = node(kind);
        let mut proxy = Proxy::new(&node);
        assert_eq!(proxy.exchange(b"0_1 d7:command4:pinge").text("result"), Some("pong"));
        // Several, so that both shards have some.
        for id in ["call-1", "call-2", "call-3", "call-4"] {
            let (a, b) = (phone(), phone());
            let [to_a, to_b] = proxy.call(id, &a, &b);
            let mut buffer = [0; 2048];
            for sequence in 0..25 {
                a.send_to(&rtp(sequence, 1), to_a).unwrap();
                assert_eq!(b.recv_from(&mut buffer).unwrap(), (172, to_b));
                assert_eq!(buffer[12..172], rtp(sequence, 1)[12..]);
                b.send_to(&rtp(sequence, 2), to_b).unwrap();
                assert_eq!(a.recv_from(&mut buffer).unwrap(), (172, to_a));
            }
            assert_eq!(packets(&proxy.ask(named("query", id))), Some(50));
        }
        node.until_metric("weir_dataplane_contexts 4");
        node.until_metric("weir_dataplane_legs 8");
        node.until_metric("weir_dataplane_ng_calls 4");
        for id in ["call-1", "call-2", "call-3", "call-4"] {
            let reply = proxy.ask(named("delete", id));
            assert_eq!((reply.text("result"), packets(&reply)), (Some("ok"), Some(50)));
        }
        node.until_metric("weir_dataplane_contexts 0");
        node.until_metric("weir_dataplane_ng_messages_total{what=\"request\"} 17");
    }
}

#[test]
fn a_connection_is_answered_in_its_own_writing_and_a_broken_one_is_closed() {
    let node = node("mio");
    let mut stream = TcpStream::connect(node.running().addresses().ng.1.unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"1_1 {\"command\":").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    stream.write_all(b"\"ping\"}\n1_2 d7:command4:pinge").unwrap();
    let expected = b"1_1 {\"result\":\"pong\"}1_2 d6:result4:ponge";
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(got, expected);
    stream.write_all(b"1_3 nothing").unwrap();
    assert_eq!(stream.read(&mut got).unwrap(), 0);
    // Datagrams that are none are counted, and nobody is answered.
    let proxy = Proxy::new(&node);
    for octets in [&b"1_4 nothing"[..], b"", b"1_5 d7:command4:ping", &[0xff; 300]] {
        proxy.socket.send(octets).unwrap();
    }
    node.until_metric("weir_dataplane_ng_messages_total{what=\"malformed\"} 4");
    assert_eq!(proxy.exchange(b"1_6 d7:command4:pinge").text("result"), Some("pong"));
}

#[test]
fn control_and_a_proxy_do_not_see_each_others_calls() {
    let node = node("auto");
    let mut control = node.control(1);
    let mut proxy = Proxy::new(&node);
    let (a, b) = (phone(), phone());
    proxy.call("call-1", &a, &b);
    let (c, d) = (phone(), phone());
    // Control's order of generations is its own.
    control.generation = 0;
    control.applied(call(7, &c, &d));
    proxy.call("call-2", &c, &d);
    control.applied(vec![Verb::PutContext(Context { id: 8 })]);
    control.say(Order::Audit(Audit { id: 5 }));
    assert_eq!(audited(&mut control), [7, 8]);
    // The first context of a proxy, as control would have to guess it.
    let refused = control.refused(vec![Verb::RemoveContext(0xffff_ffff_0000_0001)]);
    assert_eq!(refused.reason(), Reason::Unsupported);
    control.generation = 0;
    let Word::Refusal(refusal) = control.again(vec![Verb::RemoveContext(7)]) else { panic!() };
    assert_eq!(refusal.reason(), Reason::Generation, "what has no generation is not control's to say");
    assert_eq!(packets(&proxy.ask(named("delete", "call-1"))), Some(0));
    node.until_metric("weir_dataplane_contexts 3");
}

fn audited(control: &mut Control) -> Vec<u64> {
    let mut contexts = Vec::new();
    loop {
        let Word::Audited(part) = control.answer() else { panic!() };
        assert!(
            part.legs.iter().all(|leg| leg.context < 10) && part.paths.iter().all(|path| path.context < 10)
        );
        assert!(part.placements.iter().all(|placement| placement.context < 10));
        contexts.extend(part.contexts.iter().map(|context| context.id));
        if !part.more {
            contexts.sort_unstable();
            return contexts;
        }
    }
}
