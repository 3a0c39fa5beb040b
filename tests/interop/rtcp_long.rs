//! RTCP of a call and of a conference that last for a while, between phones that are not ours (baresip), as tshark sees it on
//! the wire: on each leg several sender and receiver reports go each way, and every counter in them is held against the
//! packets that were captured before it (RFC 3550 §6.4).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use tests::namespace::Namespace;
use ue::audio::voice;

use crate::baresip::Phone;
use crate::node::Node;
use crate::sniffer::Sniffer;

/// The RTP ports of a [`Node`]'s data plane.
const OURS: std::ops::RangeInclusive<u16> = 20_000..=27_999;
/// What is on its way when a report is written.
const UNDERWAY: u32 = 5;
/// Reports of each kind and way on each leg: the intervals are drawn from 2 to 6 s (RFC 3550 §6.3.1), the phones talk for 16.
const REPORTS_MIN: usize = 2;

const FIELDS: [&str; 13] = [
    "udp.srcport",
    "udp.dstport",
    "udp.length",
    "rtp.ssrc",
    "rtp.seq",
    "rtcp.pt",
    "rtcp.senderssrc",
    "rtcp.sender.packetcount",
    "rtcp.sender.octetcount",
    "rtcp.ssrc.identifier",
    "rtcp.ssrc.cum_nr",
    "rtcp.ssrc.high_seq",
    "rtcp.ssrc.jitter",
];

/// From port, to port, SSRC.
type Flow = (u16, u16, u32);

/// What was captured of a flow so far.
#[derive(Default)]
struct Seen {
    packets: u32,
    octets: u32,
    sequences: BTreeSet<u16>,
    last: u16,
}

/// What one way of a leg was told.
#[derive(Clone, Copy, Default, Debug)]
struct Told {
    /// Sender reports about what went that way.
    senders: usize,
    /// Blocks about what came the other way.
    blocks: usize,
}

fn read(file: &Path) -> Vec<Vec<Vec<i64>>> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args(["-o", "rtp.heuristic_rtp:FALSE", "-Y", "(rtp || rtcp) && !icmp"]);
    // Descriptions tell it which ports have RTP; SIP is not on its own port here.
    command.args(["-d", "udp.port==15060,sip"]);
    command.args(["-T", "fields", "-E", "separator=|", "-E", "occurrence=a", "-E", "aggregator=,"]);
    let output = command.args(FIELDS.iter().flat_map(|f| ["-e", f])).stderr(Stdio::null()).output();
    let output = output.expect("tshark is installed");
    assert!(output.status.success());
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .map(|line| line.split('|').map(|field| field.split(',').filter_map(number).collect()).collect())
        .collect()
}

/// Judges every report, and returns what each way of each leg was told, by the RTP ports (from, to).
fn judge(frames: &[Vec<Vec<i64>>]) -> BTreeMap<(u16, u16), Told> {
    let mut seen: BTreeMap<Flow, Seen> = BTreeMap::new();
    let mut told: BTreeMap<(u16, u16), Told> = BTreeMap::new();
    for frame in frames {
        let [from, to, length, rtp, sequence, types, speakers, packets, octets, sources, lost, high, jitter] =
            &frame[..]
        else {
            panic!("{} fields", frame.len());
        };
        let (from, to) = (from[0] as u16, to[0] as u16);
        // From one function of the node to another: no description on the wire tells tshark of all of it.
        if OURS.contains(&from) == OURS.contains(&to) {
            continue;
        }
        if let (Some(ssrc), Some(sequence)) = (rtp.first(), sequence.first()) {
            let flow = seen.entry((from, to, *ssrc as u32)).or_default();
            flow.packets += 1;
            // UDP's header and RTP's: neither the phones nor we put anything else there.
            flow.octets += (length[0] - 8 - 12) as u32;
            flow.last = *sequence as u16;
            flow.sequences.insert(*sequence as u16);
            continue;
        }
        // RTP goes from the port itself and to it, RTCP from there or the next one, and to there or the next one.
        let rtp_ports = |(a, b): (u16, u16)| (from.wrapping_sub(a), to.wrapping_sub(b));
        let beside = [(0, 0), (1, 1), (1, 0), (0, 1)].map(rtp_ports);
        let mut counts = packets.iter().zip(octets);
        for (_, ssrc) in types.iter().zip(speakers).filter(|(kind, _)| **kind == 200) {
            let (packets, octets) = counts.next().expect("a sender report has counts");
            let flow = beside
                .iter()
                .find_map(|(from, to)| Some((*from, *to, seen.get(&(*from, *to, *ssrc as u32))?)));
            let Some((from, to, flow)) = flow else {
                panic!("a report about {ssrc:08x}, of which nothing went")
            };
            let (packets, octets) = (*packets as u32, *octets as u32);
            assert!(packets.abs_diff(flow.packets) <= UNDERWAY, "{packets} packets, {} seen", flow.packets);
            assert!(octets.abs_diff(flow.octets) <= UNDERWAY * 160, "{octets} octets, {} seen", flow.octets);
            told.entry((from, to)).or_default().senders += 1;
        }
        // Identifiers of blocks come before those of SDES chunks, which tshark calls the same.
        for (((source, lost), high), jitter) in sources.iter().zip(lost).zip(high).zip(jitter) {
            let flow = beside
                .iter()
                .find_map(|(from, to)| Some((*from, *to, seen.get(&(*to, *from, *source as u32))?)));
            let Some((from, to, flow)) = flow else {
                panic!("a block about {source:08x}, of which nothing came")
            };
            assert!(lost.abs() <= i64::from(UNDERWAY), "{lost} lost of {source:08x} on one host");
            let high = *high as u16;
            assert!(flow.sequences.contains(&high), "{high} of {source:08x} was never sent");
            assert!(flow.last.wrapping_sub(high) <= 50, "{high} is long ago, {} was sent", flow.last);
            // 8 kHz: 100 ms.
            assert!((0..800).contains(jitter), "a jitter of {jitter}");
            told.entry((from, to)).or_default().blocks += 1;
        }
    }
    told
}

/// Every leg was told each way, several times.
fn enough(what: &str, told: &BTreeMap<(u16, u16), Told>, legs: usize) {
    let of_ours = told.iter().filter(|((from, _), _)| OURS.contains(from));
    let mut count = 0;
    for (ports, to_peer) in of_ours {
        let back = told.get(&(ports.1, ports.0)).copied().unwrap_or_default();
        println!("{what}: leg {ports:?}: to its peer {to_peer:?}, from it {back:?}");
        for way in [*to_peer, back] {
            assert!(
                way.senders >= REPORTS_MIN && way.blocks >= REPORTS_MIN,
                "{ports:?}: {to_peer:?} {back:?}"
            );
        }
        count += 1;
    }
    assert_eq!(count, legs, "{what}");
}

#[test]
fn reports_of_a_long_call_are_what_went_over_the_wire() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("call.pcap");
    let host = Namespace::new();
    let node = Node::start_in(&host);
    let sniffer = Sniffer::start(&host, &file);
    let bob = Phone::start(&host, &node, "bob", 18_110, &voice(11, 25.0), None);
    sleep(Duration::from_secs(2));
    let target = format!("sip:bob@{}", node.domain());
    let ann = Phone::start(&host, &node, "ann", 18_120, &voice(12, 25.0), Some(&target));
    drop((bob.heard(), ann.heard()));
    sniffer.stop();
    enough("call", &judge(&read(&file)), 2);
}

#[test]
fn reports_of_a_long_conference_are_what_went_over_the_wire() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("conference.pcap");
    let host = Namespace::new();
    let node = Node::start_in(&host);
    let sniffer = Sniffer::start(&host, &file);
    let target = format!("sip:{}@{}", Node::GROUP, node.domain());
    let phones: Vec<Phone> = [("ann", 18_130), ("bob", 18_140), ("carol", 18_150)]
        .iter()
        .zip(13..)
        .map(|((user, port), seed)| {
            Phone::start(&host, &node, user, *port, &voice(seed, 25.0), Some(&target))
        })
        .collect();
    for phone in phones {
        drop(phone.heard());
    }
    sniffer.stop();
    enough("conference", &judge(&read(&file)), 3);
}
