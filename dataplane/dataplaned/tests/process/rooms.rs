//! A room over two shards, through the whole process: where its members are, and that each has what all the others say, once
//! and in order.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use contract::change::Verb;
use contract::path::Parameters;
use contract::{Context, Leg, LegKey, LegSet, Mode, MsrpLeg, Path, Placement, Switch, leg, placement};

use crate::control::{Node, PATIENCE};

const CONTEXT: u64 = 7;
const MEMBERS: u64 = 8;
const TAP: u64 = 20;

fn remote(n: u64) -> String {
    format!("msrp://127.0.0.1:{}/member{n};tcp", 7000 + n)
}

fn member(n: u64) -> Leg {
    let msrp = MsrpLeg {
        remote_path: vec![remote(n)],
        addresses: vec![format!("sip:user{n}@example.com")],
        ..MsrpLeg::default()
    };
    Leg {
        id: n,
        context: CONTEXT,
        media: "msrp".into(),
        participant: format!("p{n}"),
        kind: Some(leg::Kind::Msrp(msrp)),
        ..Leg::default()
    }
}

fn room() -> Vec<Verb> {
    let mut verbs = vec![Verb::PutContext(Context { id: CONTEXT })];
    verbs.extend((1..=MEMBERS).map(|n| Verb::PutLeg(member(n))));
    let all = Some(LegSet { legs: vec![], media: "msrp".into() });
    let switch = Switch { room: vec!["sip:room@example.com".into()], ..Switch::default() };
    verbs.push(Verb::PutPath(Path {
        id: 1,
        context: CONTEXT,
        mode: Mode::Switch as i32,
        sources: all.clone(),
        targets: all,
        parameters: Some(Parameters::Switch(switch)),
    }));
    verbs
}

/// A copy of all that is said goes to leg 20.
fn tap() -> Vec<Verb> {
    let leg = Leg { media: "tap".into(), participant: "tap".into(), ..member(TAP) };
    let set = |media: &str| Some(LegSet { legs: vec![], media: media.into() });
    let path = Path {
        id: 2,
        context: CONTEXT,
        mode: Mode::Tap as i32,
        sources: set("msrp"),
        targets: set("tap"),
        parameters: None,
    };
    vec![Verb::PutLeg(leg), Verb::PutPath(path)]
}

fn path_of(placed: &Placement) -> String {
    match placed.at.as_ref() {
        Some(placement::At::Msrp(local)) => local.path.clone(),
        other => panic!("{other:?}"),
    }
}

struct Peer {
    n: u64,
    stream: TcpStream,
    to: String,
    text: String,
}

impl Peer {
    fn join(at: SocketAddr, n: u64, to: &str) -> Peer {
        let stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut peer = Peer { n, stream, to: to.to_owned(), text: String::new() };
        peer.send("j0in", "Message-ID: m0-0\r\nByte-Range: 1-0/0\r\n", "");
        peer.until(|text| text.contains("MSRP j0in 200"));
        peer
    }

    fn send(&mut self, tid: &str, headers: &str, body: &str) {
        let (to, from) = (&self.to, remote(self.n));
        let head = format!("MSRP {tid} SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n{headers}");
        self.stream.write_all(format!("{head}{body}-------{tid}$\r\n").as_bytes()).unwrap();
    }

    /// A message to the room.
    fn say(&mut self, what: &str) {
        let cpim = format!(
            "From: <sip:user{}@example.com>\r\nTo: <sip:room@example.com>\r\n\r\nContent-Type: text/plain\r\n\r\n{what}",
            self.n
        );
        let id: String = what.chars().take(12).filter(char::is_ascii_alphanumeric).collect();
        let size = cpim.len();
        let headers = format!(
            "Message-ID: said{id}\r\nByte-Range: 1-{size}/{size}\r\nFailure-Report: no\r\nContent-Type: message/cpim\r\n"
        );
        self.send(&format!("said{id}"), &headers, &format!("\r\n{cpim}\r\n"));
    }

    fn until(&mut self, enough: impl Fn(&str) -> bool) {
        let mut piece = [0; 65_536];
        while !enough(&self.text) {
            let n = self.stream.read(&mut piece).unwrap();
            assert!(n > 0, "closed after {} octets", self.text.len());
            self.text.push_str(std::str::from_utf8(&piece[..n]).unwrap());
        }
    }

    /// What somebody said, in the order in which it came.
    fn heard(&self, from: u64) -> Vec<String> {
        let mark = format!("<{from}/");
        let words = self.text.split(&mark).skip(1);
        words.map(|rest| rest.split_once('>').unwrap().0.to_owned()).collect()
    }
}

/// Each of these says so many things, and hears those of all others once, in order.
fn all_hear_all(peers: &mut [Peer], names: std::ops::Range<u32>) {
    let members: Vec<u64> = peers.iter().map(|peer| peer.n).collect();
    for name in names.clone() {
        for peer in &mut *peers {
            // Some longer than what is read at once; not so much that those are full who read later.
            let is_long = name % 2 == 0 && peer.n == 2 + u64::from(name / 2 % 5);
            let long = if is_long { "~".repeat(100_000) } else { String::new() };
            peer.say(&format!("<{}/{name}>{long}", peer.n));
        }
        for peer in &mut *peers {
            let last: Vec<String> =
                members.iter().filter(|n| **n != peer.n).map(|n| format!("<{n}/{name}>")).collect();
            peer.until(|text| last.iter().all(|last| text.contains(last)));
        }
    }
    let expected: Vec<String> = names.map(|name| name.to_string()).collect();
    for peer in &mut *peers {
        // The last one is whole, too.
        peer.until(|text| text.ends_with("$\r\n"));
        for from in members.iter().filter(|n| **n != peer.n) {
            assert_eq!(peer.heard(*from), expected, "of {from} at {}", peer.n);
        }
        assert!(peer.heard(peer.n).is_empty(), "nobody hears himself");
        peer.text.clear();
    }
}

#[test]
fn a_room_over_two_shards_is_one_room() {
    for kind in ["mio", "uring"] {
        let node = Node::start(kind, |config| {
            config.shards.cores = vec![0, 0];
            config.shards.context_weight_max = 2;
            // Room for all that is said: who reads the tap may come late to the processor.
            config.limits.tap_bytes_max = 4 << 20;
        });
        let mut control = node.control(1);
        let paths: Vec<String> = control.applied(room()).placements.iter().map(path_of).collect();
        let listeners: Vec<SocketAddr> =
            node.running().addresses().msrp.iter().map(|(plain, _)| *plain).collect();
        let of = |path: &String| listeners.iter().position(|at| path.contains(&at.to_string())).unwrap();
        let shares = [0, 1].map(|shard| paths.iter().filter(|path| of(path) == shard).count());
        assert_eq!(shares, [4, 4], "each at its own shard's listener");
        // Some come by the other shard's listener.
        let mut peers: Vec<Peer> = (1..)
            .zip(&paths)
            .map(|(n, path)| Peer::join(listeners[if n % 3 == 0 { 1 - of(path) } else { of(path) }], n, path))
            .collect();
        node.until_metric("weir_dataplane_legs 8");
        // A tap is on one of the shards, and has what is said on both.
        let path = path_of(&control.applied(tap()).placements[0]);
        let mut tap = Peer::join(listeners[of(&path)], TAP, &path);
        let hears = std::thread::spawn(move || {
            let last = |text: &str| (1..=MEMBERS).all(|n| text.contains(&format!("<{n}/11>")));
            tap.until(|text| last(text) && text.ends_with("$\r\n"));
            tap
        });
        all_hear_all(&mut peers, 0..12);
        let tap = hears.join().unwrap();
        let expected: Vec<String> = (0..12).map(|name| name.to_string()).collect();
        for n in 1..=MEMBERS {
            assert_eq!(tap.heard(n), expected, "of {n} at the tap");
        }
        control.applied(vec![Verb::RemoveLeg(LegKey::new(CONTEXT, TAP))]);
        // Who leaves is gone from both; who comes is of it.
        control.applied(vec![
            Verb::RemoveLeg(LegKey::new(CONTEXT, 1)),
            Verb::RemoveLeg(LegKey::new(CONTEXT, 8)),
        ]);
        let mut rest: Vec<Peer> = peers.into_iter().filter(|peer| ![1, 8].contains(&peer.n)).collect();
        all_hear_all(&mut rest, 20..24);
        let path = path_of(&control.applied(vec![Verb::PutLeg(member(9))]).placements[0]);
        rest.push(Peer::join(listeners[of(&path)], 9, &path));
        all_hear_all(&mut rest, 30..34);
        control.applied(vec![Verb::RemoveContext(CONTEXT)]);
        node.until_metric("weir_dataplane_legs 0");
    }
}
