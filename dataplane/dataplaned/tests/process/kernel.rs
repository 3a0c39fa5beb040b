//! Calls that the kernel relays: packets flow, every number is right, nobody else is relayed, and it ends with the process.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use contract::change::Verb;
use contract::from_dataplane::Body as Word;
use contract::to_dataplane::Body as Order;
use contract::{Capture, Direction, Leg, LegCounters, News, leg, news};

use crate::control::{Control, Node, PATIENCE, at, call, phone, rtp, rtp_leg};

/// False, and why, where this host does not let us.
fn allowed() -> bool {
    match netio::kernel::KernelRelay::new(1) {
        Ok(_) => true,
        Err(error) => {
            println!("skipped: bpf(2) is refused here ({error})");
            false
        }
    }
}

fn start(kind: &str) -> Node {
    Node::start(kind, |config| config.driver.kernel_relay.interfaces = vec!["lo".into()])
}

/// A call in the kernel.
struct Settled {
    a: UdpSocket,
    b: UdpSocket,
    at_a: SocketAddr,
    at_b: SocketAddr,
    /// What comes next; so many have been sent each way.
    next: u16,
}

impl Settled {
    fn new(control: &mut Control, verbs: impl FnOnce(&UdpSocket, &UdpSocket) -> Vec<Verb>) -> Settled {
        Settled::between(control, [phone(), phone()], verbs)
    }

    fn between(
        control: &mut Control,
        [a, b]: [UdpSocket; 2],
        verbs: impl FnOnce(&UdpSocket, &UdpSocket) -> Vec<Verb>,
    ) -> Settled {
        let placed: Vec<_> = control.applied(verbs(&a, &b)).placements.iter().map(at).collect();
        Settled { a, b, at_a: placed[0], at_b: placed[1], next: 0 }
    }

    /// One packet each way, which arrives.
    fn speak(&mut self) {
        let mut room = [0; 2048];
        self.a.send_to(&rtp(self.next, 1), self.at_a).unwrap();
        assert_eq!(self.b.recv_from(&mut room).unwrap(), (172, self.at_b));
        assert_eq!(room[..172], rtp(self.next, 1));
        self.b.send_to(&rtp(self.next, 2), self.at_b).unwrap();
        assert_eq!(self.a.recv_from(&mut room).unwrap(), (172, self.at_a));
        self.next += 1;
    }

    /// Until the kernel relays both ways.
    fn settle(&mut self, node: &Node) {
        (0..20).for_each(|_| self.speak());
        node.until_metric("weir_dataplane_kernel_flows 2");
    }

    fn hears_nothing(&self) -> bool {
        self.b.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
        let heard = self.b.recv_from(&mut [0; 2048]);
        self.b.set_read_timeout(Some(PATIENCE)).unwrap();
        heard.is_err()
    }
}

fn value(node: &Node, name: &str) -> u64 {
    let text = node.metrics();
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0)
}

/// The next last counters of a leg.
fn ended(control: &mut Control, leg: u64) -> LegCounters {
    loop {
        if let Word::News(News { what: Some(news::What::Counters(counters)) }) = control.word()
            && let Some(counters) =
                counters.legs.into_iter().find(|l| l.ended && l.leg.is_some_and(|key| key.leg == leg))
        {
            return counters;
        }
    }
}

#[test]
fn a_settled_call_goes_by_the_kernel_and_every_number_is_right() {
    if !allowed() {
        return;
    }
    for (kind, host) in [("mio", "127.0.0.1"), ("uring", "127.0.0.1"), ("mio", "::1")] {
        let host: std::net::IpAddr = host.parse().unwrap();
        let node = Node::start(kind, |config| {
            config.driver.kernel_relay.interfaces = vec!["lo".into()];
            config.rtp.interfaces[0].address = host;
        });
        let mut control = node.control(1);
        let phones = [(); 2].map(|()| UdpSocket::bind((host, 0)).unwrap());
        phones.iter().for_each(|phone| phone.set_read_timeout(Some(PATIENCE)).unwrap());
        let mut pair = Settled::between(&mut control, phones, |a, b| call(1, a, b));
        pair.settle(&node);
        let before = value(&node, "weir_dataplane_packets_total{way=\"offloaded\"}");
        for _ in 0..100 {
            pair.speak();
        }
        let sent = u64::from(pair.next) * 2;
        node.until_metric(&format!("weir_dataplane_packets_total{{way=\"in\"}} {sent}"));
        node.until_metric(&format!("weir_dataplane_packets_total{{way=\"forwarded\"}} {sent}"));
        node.until_metric(&format!("weir_dataplane_packets_total{{way=\"out\"}} {sent}"));
        let below = value(&node, "weir_dataplane_packets_total{way=\"offloaded\"}") - before;
        // The last ones before may be among them.
        assert!(below >= 200, "all of them in the kernel: {below}");
        // RTCP is the shard's as ever, and passes.
        let report = [0x80, 201, 0, 1, 0, 0, 0, 1];
        pair.a.send_to(&report, pair.at_a).unwrap();
        let mut room = [0; 64];
        assert_eq!(pair.b.recv_from(&mut room).unwrap(), (8, pair.at_b));
        // A lost packet is one of the leg's.
        pair.next += 1;
        pair.speak();
        assert_eq!(value(&node, "weir_dataplane_kernel_flows"), 2);
        control.batch(vec![Verb::RemoveContext(1)]);
        drop(control);
        node.until_metric("weir_dataplane_kernel_flows 0");
    }
}

#[test]
fn the_record_of_a_leg_has_what_the_kernel_carried() {
    if !allowed() {
        return;
    }
    let node = start("mio");
    let mut control = node.control(1);
    let mut pair = Settled::new(&mut control, |a, b| call(1, a, b));
    pair.settle(&node);
    for _ in 0..30 {
        pair.speak();
    }
    pair.next += 3;
    pair.speak();
    let packets = u64::from(pair.next) - 3;
    control.generation += 1;
    let batch = contract::Batch {
        generation: control.generation,
        epoch: 1,
        trace: String::new(),
        changes: vec![contract::Change { verb: Some(Verb::RemoveContext(1)) }],
    };
    control.say(Order::Batch(batch));
    let leg = ended(&mut control, 1);
    assert_eq!((leg.packets_in, leg.packets_out, leg.lost), (packets, packets, 3));
    assert_eq!((leg.bytes_in, leg.bytes_out), (packets * 172, packets * 172));
    assert_eq!((leg.reordered, leg.duplicates), (0, 0));
}

/// The injection matrix, where the kernel relays: another's words reach nobody, whatever they copy.
#[test]
fn strangers_are_relayed_by_nobody() {
    if !allowed() {
        return;
    }
    let node = start("uring");
    let mut control = node.control(1);
    let mut pair = Settled::new(&mut control, |a, b| call(1, a, b));
    pair.settle(&node);
    let stranger = phone();
    // With the SSRC and the next sequence number of the peer, to each of our ports; with others; no RTP at all.
    for to in [pair.at_a, pair.at_b] {
        for packet in
            [rtp(pair.next, 1), rtp(pair.next, 2), rtp(pair.next, 99), vec![0x80, 201, 0, 1, 0, 0, 0, 1]]
        {
            // An ICMP error of the last one may come back here.
            let _ = stranger.send_to(&packet, to);
        }
    }
    assert!(pair.hears_nothing());
    for _ in 0..10 {
        pair.speak();
    }
    assert_eq!(value(&node, "weir_dataplane_kernel_flows"), 2, "and the call goes on as it did");
}

#[test]
fn what_changes_a_call_takes_it_back_before_its_answer() {
    if !allowed() {
        return;
    }
    let node = start("mio");
    let mut control = node.control(1);
    let mut pair = Settled::new(&mut control, |a, b| call(1, a, b));
    pair.settle(&node);
    // Hold: from the answer on nothing passes.
    let held = Leg { direction: Direction::Inactive as i32, ..rtp_leg(1, 2, &pair.b) };
    control.applied(vec![Verb::PutLeg(held)]);
    pair.a.send_to(&rtp(pair.next, 1), pair.at_a).unwrap();
    assert!(pair.hears_nothing());
    // Back again, and in the kernel again.
    control.applied(vec![Verb::PutLeg(rtp_leg(1, 2, &pair.b))]);
    pair.next += 1;
    pair.settle(&node);
    // A capture sees each packet from its answer on.
    let capture = |on| Capture { context: 1, file: "call.pcap".into(), on, ..Capture::default() };
    control.say(Order::Capture(capture(true)));
    let Word::CaptureState(state) = control.answer() else { panic!() };
    assert!(state.on && state.error.is_empty(), "{state:?}");
    for _ in 0..10 {
        pair.speak();
    }
    control.say(Order::Capture(capture(false)));
    let Word::CaptureState(state) = control.answer() else { panic!() };
    assert_eq!((state.packets, state.missed), (40, 0));
    pair.settle(&node);
    // The peer moves: nothing goes to the old address after the answer.
    let elsewhere = phone();
    control.applied(vec![Verb::PutLeg(rtp_leg(1, 2, &elsewhere))]);
    pair.a.send_to(&rtp(pair.next, 1), pair.at_a).unwrap();
    assert_eq!(elsewhere.recv_from(&mut [0; 2048]).unwrap(), (172, pair.at_b));
    assert!(pair.hears_nothing());
}

// CPM-FACTS §4.7
#[test]
fn a_leg_that_falls_silent_in_the_kernel_is_told_of() {
    if !allowed() {
        return;
    }
    let node = start("mio");
    let mut control = node.control(1);
    let mut pair = Settled::new(&mut control, |a, b| {
        let mut verbs = call(1, a, b);
        for verb in &mut verbs {
            if let Verb::PutLeg(Leg { id: 1, kind: Some(leg::Kind::Rtp(rtp)), .. }) = verb {
                rtp.media_timeout_ms = 2500;
            }
        }
        verbs
    });
    pair.settle(&node);
    // For longer than that it speaks, in the kernel alone.
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(4000) {
        pair.speak();
        std::thread::sleep(Duration::from_millis(20));
    }
    let spoke = Instant::now();
    loop {
        if let Word::News(News { what: Some(news::What::LegLost(lost)) }) = control.word() {
            assert_eq!(lost.leg.map(|key| key.leg), Some(1));
            assert_eq!(lost.reason(), contract::leg_lost::Reason::MediaTimeout);
            break;
        }
    }
    assert!(spoke.elapsed() > Duration::from_millis(1000), "not while it spoke");
}

#[test]
fn an_interface_that_is_not_there_keeps_nobody_from_starting() {
    let node = Node::start("mio", |config| {
        config.driver.kernel_relay.interfaces = vec!["nosuch0".into()];
    });
    let mut control = node.control(1);
    let mut pair = Settled::new(&mut control, |a, b| call(1, a, b));
    for _ in 0..20 {
        pair.speak();
    }
    node.until_metric("weir_dataplane_packets_total{way=\"forwarded\"} 40");
    assert_eq!(value(&node, "weir_dataplane_kernel_interfaces"), 0);
    assert_eq!(value(&node, "weir_dataplane_kernel_flows"), 0);
}

/// Where the phones of the process below are.
const PHONES: &str = "WEIR_TEST_PHONES";

/// However a process ends, the kernel relays nothing for it any more.
#[test]
fn a_process_that_is_killed_takes_its_program_with_it() {
    if !allowed() {
        return;
    }
    let (a, b) = (phone(), phone());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kernel::a_process_to_be_killed", "--ignored", "--nocapture"])
        .env(PHONES, format!("{} {}", a.local_addr().unwrap(), b.local_addr().unwrap()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut told = |what: &str| loop {
        let line = lines.next().unwrap().unwrap();
        if let Some((_, rest)) = line.split_once(what) {
            return rest.trim().to_owned();
        }
    };
    let placed: Vec<SocketAddr> = told("placed").split(' ').map(|at| at.parse().unwrap()).collect();
    let mut pair = Settled { a, b, at_a: placed[0], at_b: placed[1], next: 0 };
    for _ in 0..20 {
        pair.speak();
    }
    told("settled");
    for _ in 0..20 {
        pair.speak();
    }
    // SIGKILL.
    child.kill().unwrap();
    child.wait().unwrap();
    let start = Instant::now();
    loop {
        let _ = pair.a.send_to(&rtp(pair.next, 1), pair.at_a);
        pair.next += 1;
        if pair.hears_nothing() {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "the kernel relays on");
    }
}

/// The other side of the test above, in a process of its own.
#[test]
#[ignore = "run by a_process_that_is_killed_takes_its_program_with_it"]
fn a_process_to_be_killed() {
    let phones: Vec<SocketAddr> =
        std::env::var(PHONES).unwrap().split(' ').map(|at| at.parse().unwrap()).collect();
    let node = start("mio");
    let mut control = node.control(1);
    let mut verbs = call(1, &phone(), &phone());
    for verb in &mut verbs {
        if let Verb::PutLeg(Leg { id, kind: Some(leg::Kind::Rtp(rtp)), .. }) = verb {
            rtp.remote = Some(phones[*id as usize - 1].into());
        }
    }
    let placed: Vec<_> = control.applied(verbs).placements.iter().map(at).collect();
    println!("placed {} {}", placed[0], placed[1]);
    node.until_metric("weir_dataplane_kernel_flows 2");
    println!("settled");
    std::thread::sleep(Duration::from_secs(60));
}
