//! RTCP as tshark sees it on the wire of the whole demo, calls and conferences: each sender report says what really went that
//! way under that SSRC, each report block what really came, each source has a name.

use std::collections::BTreeMap;

/// A flow: from port, to port, SSRC.
type Flow = (u16, u16, u32);

/// What tshark says of one frame.
struct Frame {
    from: u16,
    to: u16,
    rtp: Option<u32>,
    types: Vec<u8>,
    senders: Vec<u32>,
    packets: Vec<u32>,
    octets: Vec<u32>,
    sources: Vec<u32>,
    lost: Vec<i64>,
    fractions: Vec<u32>,
}

const FIELDS: [&str; 10] = [
    "udp.srcport",
    "udp.dstport",
    "rtp.ssrc",
    "rtcp.pt",
    "rtcp.senderssrc",
    "rtcp.sender.packetcount",
    "rtcp.sender.octetcount",
    "rtcp.ssrc.identifier",
    "rtcp.ssrc.cum_nr",
    "rtcp.ssrc.fraction",
];

/// The arguments of tshark that bring those fields.
pub fn arguments() -> Vec<&'static str> {
    let mut all = vec!["-T", "fields", "-E", "separator=|", "-E", "occurrence=a", "-E", "aggregator=,"];
    all.extend(FIELDS.iter().flat_map(|field| ["-e", field]));
    all
}

fn numbers(text: &str) -> Vec<i64> {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    text.split(',').filter_map(number).collect()
}

impl Frame {
    fn read(line: &str) -> Option<Frame> {
        let fields: Vec<Vec<i64>> = line.split('|').map(numbers).collect();
        let [from, to, rtp, types, senders, packets, octets, sources, lost, fractions] =
            <[Vec<i64>; 10]>::try_from(fields).ok()?;
        let words = |list: &[i64]| -> Vec<u32> { list.iter().map(|n| *n as u32).collect() };
        Some(Frame {
            from: *from.first()? as u16,
            to: *to.first()? as u16,
            rtp: rtp.first().map(|n| *n as u32),
            types: types.iter().map(|n| *n as u8).collect(),
            senders: words(&senders),
            packets: words(&packets),
            octets: words(&octets),
            sources: words(&sources),
            lost,
            fractions: words(&fractions),
        })
    }
}

/// Holds every report against the packets that were captured before it. `ours`: the data plane's ports.
pub fn judge(lines: &[String], ours: impl Fn(u16) -> bool) {
    let mut sent: BTreeMap<Flow, u32> = BTreeMap::new();
    let (mut reports, mut legs, mut blocks, mut described) = (0, BTreeMap::new(), 0, 0);
    for line in lines {
        let Some(frame) = Frame::read(line) else { continue };
        if let Some(ssrc) = frame.rtp {
            *sent.entry((frame.from, frame.to, ssrc)).or_default() += 1;
            continue;
        }
        // What goes from one function of the node to another has no description on the wire: tshark does not know it for RTP.
        if !ours(frame.from) || ours(frame.to) || frame.types.is_empty() {
            continue;
        }
        described += u32::from(frame.types.contains(&202));
        let (mut counts, mut octets) = (frame.packets.iter(), frame.octets.iter());
        let speakers = frame.types.iter().filter(|kind| matches!(kind, 200 | 201 | 205..=207));
        for (kind, ssrc) in speakers.zip(&frame.senders) {
            if *kind != 200 {
                continue;
            }
            let (Some(count), Some(octets)) = (counts.next(), octets.next()) else { break };
            // RTP goes from the port itself and to it, RTCP from there or the next one, and to there or the next one.
            let flow = |(from, to): (u16, u16)| {
                sent.get(&(frame.from.wrapping_sub(from), frame.to.wrapping_sub(to), *ssrc)).copied()
            };
            let Some(seen) = [(0, 0), (1, 1), (1, 0), (0, 1)].into_iter().find_map(flow) else {
                panic!(
                    "a report about {ssrc:08x}, of which nothing went from {} to {}",
                    frame.from, frame.to
                );
            };
            // A sender that passes a relay counts what was on its way when it spoke.
            assert!(count.abs_diff(seen) <= 5, "{ssrc:08x}: {count} reported, {seen} seen");
            assert!(*octets >= *count && *octets <= count * 1400, "{octets} octets in {count} packets");
            reports += 1;
            *legs.entry((frame.from, frame.to)).or_insert(0) += 1;
        }
        for ((source, lost), fraction) in frame.sources.iter().zip(&frame.lost).zip(&frame.fractions) {
            if !sent.keys().any(|(_, _, ssrc)| ssrc == source) {
                continue; // an identifier of an SDES chunk, which tshark calls the same
            }
            assert!((-5..=5).contains(lost), "{lost} lost of {source:08x} on loopback");
            assert!(*fraction <= 64, "{fraction}/256 lost of {source:08x} on loopback");
            blocks += 1;
        }
    }
    println!(
        "rtcp: {reports} sender reports on {} legs, {blocks} blocks, {described} descriptions",
        legs.len()
    );
    // The intervals are drawn, half a first one is 3.1 s at most (RFC 3550 §6.3.1) and the demo's sounds last not much longer:
    // a leg has one report for certain, and a block only where its peer had spoken by then.
    assert!(reports >= 1 && !legs.is_empty(), "{reports} sender reports on {} legs", legs.len());
    assert!(described >= 3, "{described} descriptions");
}
