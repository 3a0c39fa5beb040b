//! Media through the whole process: sockets, engine, captures, metrics.

use std::time::{Duration, Instant};

use base::Entropy;
use contract::change::Verb;
use contract::from_dataplane::Body as Word;
use contract::to_dataplane::Body as Order;
use contract::{Capture, Leg, News, Srtp, SrtpSuite, leg, news};
use rtp::srtp::{Config, Inbound, Keying, Outbound, Suite, TRAILER_MAX};

use crate::control::{Node, PATIENCE, at, call, phone, rtp};

#[test]
fn packets_of_a_call_pass_both_ways_and_survive_their_control() {
    for kind in ["mio", "uring"] {
        let node = Node::start(kind, |_| {});
        let mut control = node.control(1);
        let (a, b) = (phone(), phone());
        let placed: Vec<_> = control.applied(call(1, &a, &b)).placements.iter().map(at).collect();
        for sequence in 0..50 {
            if sequence == 25 {
                drop(node.control(2)); // takes over, and dies
            }
            a.send_to(&rtp(sequence, 1), placed[0]).unwrap();
            b.send_to(&rtp(sequence, 2), placed[1]).unwrap();
            let mut buffer = [0; 2048];
            let (n, from) = b.recv_from(&mut buffer).unwrap();
            assert_eq!((from, n), (placed[1], 172));
            assert_eq!(&buffer[12..n], &rtp(sequence, 1)[12..]);
            assert_eq!(a.recv_from(&mut buffer).unwrap(), (172, placed[0]));
        }
    }
}

#[test]
fn a_phone_with_keys_and_one_without_hear_each_other_and_forgeries_are_counted() {
    let keying = |seed| Keying::draw(Suite::AeadAes128Gcm, &mut Entropy::from_number(seed));
    let (ours, theirs) = (keying(1), keying(2));
    for kind in ["mio", "uring"] {
        let node = Node::start(kind, |_| {});
        let mut control = node.control(1);
        let (a, b) = (phone(), phone());
        let mut verbs = call(1, &a, &b);
        for verb in &mut verbs {
            if let Verb::PutLeg(Leg { id: 1, kind: Some(leg::Kind::Rtp(rtp)), .. }) = verb {
                rtp.srtp = Some(Box::new(Srtp {
                    suite: SrtpSuite::AeadAes128Gcm.into(),
                    send_key: ours.expose().to_vec(),
                    receive_key: theirs.expose().to_vec(),
                }));
            }
        }
        let placed: Vec<_> = control.applied(verbs).placements.iter().map(at).collect();
        let mut outbound: Outbound = Outbound::new(&theirs, Config::default()).unwrap();
        let mut inbound: Inbound = Inbound::new(&ours, Config::default()).unwrap();
        let mut buffer = [0; 2048];
        for sequence in 0..50 {
            let mut wire = rtp(sequence, 1);
            a.send_to(&wire, placed[0]).unwrap(); // in clear: dropped
            wire.resize(172 + TRAILER_MAX, 0);
            let length = outbound.rtp(&mut wire, 172).unwrap();
            a.send_to(&wire[..length], placed[0]).unwrap();
            assert_eq!(b.recv_from(&mut buffer).unwrap(), (172, placed[1]));
            assert_eq!(buffer[..172], rtp(sequence, 1));
            b.send_to(&rtp(sequence, 2), placed[1]).unwrap();
            let (n, from) = a.recv_from(&mut buffer).unwrap();
            assert_eq!((n, from), (172 + 16, placed[0]));
            let length = inbound.rtp(&mut buffer[..n]).unwrap();
            assert_eq!(buffer[..length], rtp(sequence, 2));
        }
        node.until_metric("weir_dataplane_drops_total{reason=\"srtp_unauthentic\"} 50");
        node.until_metric("weir_dataplane_packets_total{way=\"forwarded\"} 100");
    }
}

#[test]
fn what_is_malformed_is_counted_under_its_reason_and_the_sum_is_what_was_sent() {
    for kind in ["mio", "uring"] {
        let node = Node::start(kind, |_| {});
        let mut control = node.control(1);
        let (a, b) = (phone(), phone());
        let placed: Vec<_> = control.applied(call(1, &a, &b)).placements.iter().map(at).collect();
        let good = rtp(1, 1);
        let mut version = good.clone();
        version[0] = 0x40 | 0x80; // version 3 has the first octet of neither RTP nor anything else (RFC 7983 §7)
        let mut loose = good.clone();
        loose[0] |= 0x0f; // fifteen CSRCs
        for packet in [&good[..], &good[..8], &[], &version, &loose[..40], &vec![0x80; 9000]] {
            a.send_to(packet, placed[0]).unwrap();
        }
        node.until_metric("weir_dataplane_drops_total{reason=\"truncated\"} 1");
        node.until_metric("weir_dataplane_packets_total{way=\"in\"} 6");
        let text = node.metrics();
        let drops: u64 = text
            .lines()
            .filter(|line| line.starts_with("weir_dataplane_drops_total"))
            .filter_map(|line| line.split(' ').nth(1)?.parse::<u64>().ok())
            .sum();
        assert_eq!(drops, 5, "{text}");
        assert!(text.contains("weir_dataplane_packets_total{way=\"forwarded\"} 1"));
    }
}

#[test]
fn a_capture_becomes_a_pcap_file_of_the_contexts_packets() {
    for kind in ["mio", "uring"] {
        let node = Node::start(kind, |_| {});
        let mut control = node.control(1);
        let (a, b) = (phone(), phone());
        let placed: Vec<_> = control.applied(call(1, &a, &b)).placements.iter().map(at).collect();
        let capture = |on| Capture { context: 1, file: "call.pcap".into(), on, ..Capture::default() };
        control.say(Order::Capture(capture(true)));
        let Word::CaptureState(state) = control.answer() else { panic!() };
        assert!(state.on && state.error.is_empty(), "{state:?}");
        let mut buffer = [0; 2048];
        for sequence in 0..20 {
            a.send_to(&rtp(sequence, 1), placed[0]).unwrap();
            b.recv_from(&mut buffer).unwrap();
        }
        control.say(Order::Capture(capture(false)));
        let Word::CaptureState(state) = control.answer() else { panic!() };
        assert!(!state.on && state.error.is_empty(), "{state:?}");
        // Each packet as it came and as it went.
        assert_eq!((state.packets, state.missed), (40, 0));
        let file = std::fs::read(node.config.spool_folder().join("call.pcap")).unwrap();
        assert_eq!(file.len() as u64, state.bytes);
        assert_eq!(file.len(), 24 + 40 * (16 + 20 + 8 + 172));
        // What does not run cannot be ended. Nothing is overwritten, and nothing leaves the folder.
        for (name, on) in [("call.pcap", false), ("call.pcap", true), ("../call.pcap", true)] {
            control.say(Order::Capture(Capture { file: name.into(), ..capture(on) }));
            let Word::CaptureState(state) = control.answer() else { panic!() };
            assert!(!state.on && !state.error.is_empty(), "{state:?}");
        }
    }
}

#[test]
fn one_leg_is_recorded_for_its_owners_eyes_alone() {
    use std::os::unix::fs::PermissionsExt;
    for (kind, name) in [("mio", "leg.rtpdump"), ("auto", "leg.pcap")] {
        let node = Node::start(kind, |_| {});
        let mut control = node.control(1);
        let (a, b) = (phone(), phone());
        let placed: Vec<_> = control.applied(call(1, &a, &b)).placements.iter().map(at).collect();
        let record = |leg, on| Capture { context: 1, leg, file: name.into(), on, ..Capture::default() };
        let mut say = |order| {
            control.say(Order::Capture(order));
            let Word::CaptureState(state) = control.answer() else { panic!() };
            state
        };
        assert!(!say(record(9, true)).error.is_empty(), "no such leg");
        let whole = Capture { leg: 0, file: "context.rtpdump".into(), ..record(1, true) };
        assert!(!say(whole).error.is_empty(), "an rtpdump is of one leg");
        let state = say(record(1, true));
        assert!(state.on && state.error.is_empty() && state.leg == 1, "{state:?}");
        for sequence in 0..20 {
            a.send_to(&rtp(sequence, 1), placed[0]).unwrap();
            b.recv_from(&mut [0; 2048]).unwrap();
            b.send_to(&rtp(sequence, 2), placed[1]).unwrap();
            a.recv_from(&mut [0; 2048]).unwrap();
        }
        let state = say(record(1, false));
        assert!(!state.on && state.error.is_empty(), "{state:?}");
        assert_eq!(
            (state.packets, state.missed),
            (20, 0),
            "what its peer said, and nothing of the other side's"
        );
        let path = node.config.spool_folder().join(name);
        let file = std::fs::read(&path).unwrap();
        if name == "leg.rtpdump" {
            let line = format!("#!rtpplay1.0 127.0.0.1/{}\n", a.local_addr().unwrap().port());
            assert!(file.starts_with(line.as_bytes()));
            assert_eq!(file.len(), line.len() + 16 + 20 * (8 + 172));
        } else {
            assert_eq!(file.len(), 24 + 20 * (16 + 20 + 8 + 172));
        }
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_leg_that_has_ended_is_news_and_an_observation() {
    let node = Node::start("auto", |_| {});
    let mut control = node.control(1);
    let (a, b) = (phone(), phone());
    let placed: Vec<_> = control.applied(call(1, &a, &b)).placements.iter().map(at).collect();
    for sequence in 0..10 {
        a.send_to(&rtp(sequence, 1), placed[0]).unwrap();
        b.recv_from(&mut [0; 2048]).unwrap();
    }
    control.say(Order::Batch(contract::Batch {
        generation: 2,
        epoch: 1,
        changes: vec![contract::Change { verb: Some(contract::change::Verb::RemoveContext(1)) }],
        ..contract::Batch::default()
    }));
    let mut ended = Vec::new();
    while ended.len() < 2 {
        if let Word::News(News { what: Some(news::What::Counters(counters)) }) = control.word() {
            ended.extend(counters.legs.into_iter().filter(|leg| leg.ended));
        }
    }
    let told: Vec<_> = ended.iter().map(|leg| (leg.packets_in, leg.packets_out, leg.lost)).collect();
    assert_eq!(told, [(10, 0, 0), (0, 10, 0)]);
    assert!(ended[0].mos_centi > 400, "{ended:?}");
    node.until_metric("weir_dataplane_leg_mos_count{way=\"in\"} 1");
    node.until_metric("weir_dataplane_leg_seconds_count{media=\"audio\"} 2");
}

#[test]
fn tshark_reads_a_capture_without_complaint_where_it_is_installed() {
    let node = Node::start("auto", |_| {});
    let mut control = node.control(1);
    let (a, b) = (phone(), phone());
    let placed: Vec<_> = control.applied(call(1, &a, &b)).placements.iter().map(at).collect();
    let capture = |on| Capture { context: 1, file: "tshark.pcap".into(), on, ..Capture::default() };
    control.say(Order::Capture(capture(true)));
    control.answer();
    for sequence in 100..110 {
        a.send_to(&rtp(sequence, 0x1234), placed[0]).unwrap();
        b.recv_from(&mut [0; 2048]).unwrap();
    }
    control.say(Order::Capture(capture(false)));
    control.answer();
    let file = node.config.spool_folder().join("tshark.pcap");
    let decode = format!("udp.port=={},rtp", placed[0].port());
    let fields = ["-T", "fields", "-e", "rtp.seq", "-e", "udp.checksum.status", "-e", "_ws.expert.severity"];
    let checks = ["-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"];
    let run = std::process::Command::new("tshark")
        .arg("-r")
        .arg(&file)
        .args(["-d", &decode, "-Y", &format!("udp.dstport=={}", placed[0].port())])
        .args(checks)
        .args(fields)
        .output();
    let Ok(output) = run else { return eprintln!("tshark is not installed") };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected: String = (100..110).map(|sequence| format!("{sequence}\t1\t\n")).collect();
    assert_eq!(text, expected, "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_data_plane_with_nothing_to_do_sleeps() {
    for kind in ["mio", "uring"] {
        let node = Node::start(kind, |config| config.metrics.tick_ms = 200);
        let mut control = node.control(1);
        let (a, b) = (phone(), phone());
        let placed: Vec<_> = control.applied(call(1, &a, &b)).placements.iter().map(at).collect();
        a.send_to(&rtp(1, 1), placed[0]).unwrap();
        let _idle = std::net::TcpStream::connect(node.running().addresses().msrp[0].0).unwrap();
        let thread = node.running().shard_threads()[0];
        let cpu_ns = || -> u64 {
            let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).unwrap();
            text.split(' ').next().unwrap().parse().unwrap()
        };
        std::thread::sleep(Duration::from_millis(500));
        let before = cpu_ns();
        std::thread::sleep(Duration::from_secs(1));
        let busy = cpu_ns() - before;
        assert!(busy < 50_000_000, "{busy} ns of a second, with {kind}");
    }
}

#[test]
fn counters_and_latching_are_news() {
    let node = Node::start("auto", |config| config.metrics.counters_ms = 50);
    let mut control = node.control(1);
    let (a, b) = (phone(), phone());
    let placed: Vec<_> = control.applied(call(1, &a, &b)).placements.iter().map(at).collect();
    for sequence in 0..10 {
        a.send_to(&rtp(sequence, 1), placed[0]).unwrap();
    }
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < PATIENCE);
        if let Word::News(News { what: Some(news::What::Counters(counters)) }) = control.word()
            && counters.legs.iter().any(|leg| leg.leg.unwrap().leg == 2 && leg.packets_out == 10)
        {
            break;
        }
    }
}
