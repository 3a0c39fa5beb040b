//! RFC 3263 §4, with the example of its §4.1 and the draws of RFC 2782.

use proptest::prelude::*;

use super::*;
use crate::hop::target_of;

const ALL: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];

fn locate(uri: &str, speaks: &[Transport]) -> Locate {
    Locate::new(&target_of(&uri.parse().unwrap()).unwrap(), speaks, Entropy::from_number(1))
}

fn naptr(order: u16, preference: u16, service: &str, replacement: &str) -> Naptr {
    let (service, replacement) = (service.into(), replacement.into());
    Naptr { order, preference, flags: "s".into(), service, replacement }
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> Srv {
    Srv { priority, weight, port, target: target.into() }
}

/// A zone: what it has for a question, in words.
fn run(mut locate: Locate, zone: &[(&str, Answer)]) -> (Vec<String>, Vec<String>) {
    let mut asked = Vec::new();
    loop {
        let question = match locate.step() {
            Step::Ask(question) => question,
            Step::Found(peers) => {
                let text = peers.iter().map(|peer| format!("{} {}", peer.transport, peer.addr));
                return (asked, text.collect());
            }
        };
        let (name, nothing) = match question {
            Question::Naptr(name) => (format!("naptr {name}"), Answer::Naptr(vec![])),
            Question::Srv(name) => (format!("srv {name}"), Answer::Srv(vec![])),
            Question::Addresses(name) => (format!("a {name}"), Answer::Addresses(vec![])),
        };
        let answer = zone.iter().find(|(key, _)| *key == name).map_or(nothing, |(_, answer)| answer.clone());
        asked.push(name);
        locate.answer(answer);
    }
}

fn a(ips: &[&str]) -> Answer {
    Answer::Addresses(ips.iter().map(|ip| ip.parse().unwrap()).collect())
}

// The example of RFC 3263 §4.1: UDP, TCP and TLS are offered, TLS is liked best.
#[test]
fn the_domain_says_its_transports() {
    let zone = [
        (
            "naptr example.com",
            Answer::Naptr(vec![
                naptr(90, 50, "SIP+D2T", "_sip._tcp.example.com"),
                naptr(50, 50, "SIPS+D2T", "_sips._tcp.example.com"),
                naptr(100, 50, "SIP+D2U", "_sip._udp.example.com"),
                Naptr { flags: "u".into(), ..naptr(1, 1, "E2U+sip", "x") },
                naptr(2, 2, "SIP+D2S", "_sip._sctp.example.com"),
            ]),
        ),
        (
            "srv _sip._tcp.example.com",
            Answer::Srv(vec![srv(1, 1, 5060, "one.example.com"), srv(0, 1, 5070, "two.example.com")]),
        ),
        ("a one.example.com", a(&["192.0.2.1", "2001:db8::1"])),
        ("a two.example.com", a(&["192.0.2.2"])),
    ];
    let (asked, found) = run(locate("sip:a@example.com", &[Transport::Udp, Transport::Tcp]), &zone);
    assert_eq!(
        asked,
        [
            "naptr example.com",
            "srv _sip._tcp.example.com",
            "srv _sip._udp.example.com",
            "a two.example.com",
            "a one.example.com"
        ]
    );
    assert_eq!(found, ["TCP 192.0.2.2:5070", "TCP 192.0.2.1:5060", "TCP [2001:db8::1]:5060"]);
    // What is asked for securely is not had otherwise.
    let (asked, found) = run(locate("sips:a@example.com", &ALL), &zone);
    assert_eq!(asked, ["naptr example.com", "srv _sips._tcp.example.com", "a example.com"]);
    assert!(found.is_empty());
}

// RFC 3263 §4.1 and §4.2: what is written is not asked for.
#[test]
fn what_the_uri_says_is_not_asked() {
    for (uri, asks, finds) in [
        ("sip:192.0.2.9", vec![], vec!["UDP 192.0.2.9:5060"]),
        ("sips:[2001:db8::9]:99", vec![], vec!["TLS [2001:db8::9]:99"]),
        ("sip:h:5080", vec!["a h"], vec!["UDP 192.0.2.5:5080"]),
        ("sip:h:5080;transport=tcp", vec!["a h"], vec!["TCP 192.0.2.5:5080"]),
        ("sip:h;transport=tcp", vec!["srv _sip._tcp.h", "a h"], vec!["TCP 192.0.2.5:5060"]),
        ("sips:h;transport=tcp", vec!["srv _sips._tcp.h", "a h"], vec!["TLS 192.0.2.5:5061"]),
        (
            "sip:other;maddr=h",
            vec!["naptr h", "srv _sip._udp.h", "srv _sip._tcp.h", "a h"],
            vec!["UDP 192.0.2.5:5060"],
        ),
    ] {
        let (asked, found) = run(locate(uri, &ALL), &[("a h", a(&["192.0.2.5"]))]);
        assert_eq!(
            (asked, found),
            (asks.iter().map(|s| (*s).to_owned()).collect(), finds.iter().map(|s| (*s).to_owned()).collect()),
            "{uri}"
        );
    }
}

// RFC 3263 §4.1: without NAPTR the first of our transports that has SRV records is it.
#[test]
fn without_naptr_our_own_order_counts() {
    let tcp = ("srv _sip._tcp.h", Answer::Srv(vec![srv(0, 0, 5090, "s.h")]));
    let zone = [
        tcp.clone(),
        ("srv _sip._udp.h", Answer::Srv(vec![srv(0, 0, 5091, "u.h")])),
        ("a s.h", a(&["192.0.2.6"])),
    ];
    let (asked, found) = run(locate("sip:h", &[Transport::Tcp, Transport::Udp, Transport::Tls]), &zone);
    assert_eq!(asked, ["naptr h", "srv _sip._tcp.h", "a s.h"]);
    assert_eq!(found, ["TCP 192.0.2.6:5090"]);
    let (asked, _) = run(locate("sip:h", &ALL), &[tcp]);
    assert_eq!(asked, ["naptr h", "srv _sip._udp.h", "srv _sip._tcp.h", "a s.h"]);
}

// RFC 2782: a target of "." says that the service is decidedly not there.
#[test]
fn a_service_that_is_not_there_is_not_looked_for_elsewhere() {
    let zone = [("srv _sip._tcp.h", Answer::Srv(vec![srv(0, 0, 0, ".")])), ("a h", a(&["192.0.2.5"]))];
    let (asked, found) = run(locate("sip:h;transport=tcp", &ALL), &zone);
    assert_eq!(asked, ["srv _sip._tcp.h"]);
    assert!(found.is_empty());
}

#[test]
fn weights_are_shares_of_what_goes_to_a_priority() {
    let records =
        [srv(0, 60, 1, "big"), srv(0, 20, 2, "small"), srv(0, 20, 3, "other"), srv(1, 100, 4, "backup")];
    let mut entropy = Entropy::from_number(7);
    let mut firsts = std::collections::BTreeMap::new();
    for _ in 0..10_000 {
        let order = shuffle(records.to_vec(), &mut entropy);
        assert_eq!(order.last().unwrap().target, "backup");
        *firsts.entry(order[0].target.clone()).or_insert(0) += 1;
    }
    assert!((5700..6300).contains(&firsts["big"]) && (1750..2250).contains(&firsts["small"]), "{firsts:?}");
    // One without a weight is drawn, but seldom.
    let records = [srv(0, 0, 1, "none"), srv(0, 99, 2, "all")];
    let none = (0..10_000).filter(|_| shuffle(records.to_vec(), &mut entropy)[0].target == "none").count();
    assert!((20..300).contains(&none), "{none}");
}

proptest! {
    /// Whatever a zone answers, the search ends and stays small.
    #[test]
    fn no_zone_makes_it_run_on(
        uri in prop::sample::select(vec!["sip:h", "sips:h", "sip:h;transport=tcp", "sip:h:1"]),
        many in 0usize..200,
        names in prop::collection::vec("[a-c.]{0,3}", 1..4),
    ) {
        let mut locate = locate(uri, &ALL);
        let name = |n: usize| names[n % names.len()].clone();
        let mut asked = 0;
        let peers = loop {
            match locate.step() {
                Step::Found(peers) => break peers,
                Step::Ask(Question::Naptr(_)) => locate.answer(Answer::Naptr(
                    (0..many).map(|n| naptr(n as u16, 0, "SIP+D2U", &name(n))).collect(),
                )),
                Step::Ask(Question::Srv(_)) => locate.answer(Answer::Srv(
                    (0..many).map(|n| srv(n as u16 % 3, n as u16, 1, &name(n))).collect(),
                )),
                Step::Ask(Question::Addresses(_)) => locate.answer(Answer::Addresses(
                    (0..many).map(|n| IpAddr::from([192, 0, 2, n as u8])).collect(),
                )),
            }
            asked += 1;
            prop_assert!(asked <= QUESTIONS_MAX);
        };
        prop_assert!(peers.len() <= PEERS_MAX);
    }
}
