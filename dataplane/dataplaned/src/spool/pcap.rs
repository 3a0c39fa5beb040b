//! Captured packets as pcap records: LINKTYPE_RAW with IP, UDP and TCP headers made up from what is known, so that
//! tshark and its like decode them. (pcap file format: draft-ietf-opsawg-pcap §4 and §5.)

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use forward::{Packet, Transport};

/// The packet begins with its IP header (LINKTYPE_RAW).
const LINKTYPE_RAW: u32 = 101;
const SNAP_BYTES: u32 = 262_144;
/// Payload of one made-up TCP segment: within the 16 bits of an IPv4 total length.
const SEGMENT_BYTES: usize = 32_768;
/// Streams whose sequence numbers one capture follows.
const STREAMS_MAX: usize = 4096;
const UDP: u8 = 17;
const TCP: u8 = 6;

/// The octets at a file's start: microseconds, this machine's byte order.
pub(crate) fn file_header() -> [u8; 24] {
    let mut head = [0; 24];
    head[0..4].copy_from_slice(&0xa1b2_c3d4_u32.to_ne_bytes());
    head[4..6].copy_from_slice(&2u16.to_ne_bytes());
    head[6..8].copy_from_slice(&4u16.to_ne_bytes());
    head[16..20].copy_from_slice(&SNAP_BYTES.to_ne_bytes());
    head[20..24].copy_from_slice(&LINKTYPE_RAW.to_ne_bytes());
    head
}

/// What one capture remembers of its streams: the next sequence number of each direction.
#[derive(Debug, Default)]
pub(crate) struct Streams(BTreeMap<(SocketAddr, SocketAddr), u32>);

/// Appends a packet's record or, for a long piece of a stream, records.
pub(crate) fn append(packet: &Packet, streams: &mut Streams, into: &mut Vec<u8>) {
    match packet.transport {
        Transport::Udp => {
            let head = udp_header(packet.from, packet.to, &packet.bytes);
            record(packet, UDP, &head, &packet.bytes, into);
        }
        Transport::Tcp => {
            for part in packet.bytes.chunks(SEGMENT_BYTES) {
                let head = streams.tcp_header(packet.from, packet.to, part);
                record(packet, TCP, &head, part, into);
            }
        }
    }
}

fn record(packet: &Packet, protocol: u8, head: &[u8], payload: &[u8], into: &mut Vec<u8>) {
    let ip = ip_header(packet.from.ip(), packet.to.ip(), protocol, head.len() + payload.len());
    let length = (ip.len() + head.len() + payload.len()) as u32;
    let ms = packet.at.as_millis();
    let fields = [(ms / 1000) as u32, (ms % 1000 * 1000) as u32, length, length];
    for field in fields {
        into.extend_from_slice(&field.to_ne_bytes());
    }
    into.extend_from_slice(&ip);
    into.extend_from_slice(head);
    into.extend_from_slice(payload);
}

/// RFC 791 §3.1 or RFC 8200 §3; a mixed pair of families is written as IPv6 with mapped addresses.
fn ip_header(from: IpAddr, to: IpAddr, protocol: u8, payload: usize) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut head = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
            head[2..4].copy_from_slice(&((20 + payload) as u16).to_be_bytes());
            head.extend_from_slice(&from.octets());
            head.extend_from_slice(&to.octets());
            let sum = fold(sum_of(&head, 0));
            head[10..12].copy_from_slice(&sum.to_be_bytes());
            head
        }
        (from, to) => {
            let mut head = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
            head[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
            head.extend_from_slice(&octets16(from));
            head.extend_from_slice(&octets16(to));
            head
        }
    }
}

fn octets16(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// RFC 768.
fn udp_header(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> [u8; 8] {
    let mut head = [0; 8];
    head[0..2].copy_from_slice(&from.port().to_be_bytes());
    head[2..4].copy_from_slice(&to.port().to_be_bytes());
    head[4..6].copy_from_slice(&((8 + payload.len()) as u16).to_be_bytes());
    let sum = match fold(checksum(from, to, UDP, &head, payload)) {
        0 => 0xffff, // zero would say that there is none
        sum => sum,
    };
    head[6..8].copy_from_slice(&sum.to_be_bytes());
    head
}

impl Streams {
    /// RFC 9293 §3.1: an acknowledging data segment with the numbers that follow from what was captured.
    fn tcp_header(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> [u8; 20] {
        let acknowledged = self.0.get(&(to, from)).copied().unwrap_or(1);
        if self.0.len() >= STREAMS_MAX && !self.0.contains_key(&(from, to)) {
            self.0.clear();
        }
        let next = self.0.entry((from, to)).or_insert(1);
        let mut head = [0; 20];
        head[0..2].copy_from_slice(&from.port().to_be_bytes());
        head[2..4].copy_from_slice(&to.port().to_be_bytes());
        head[4..8].copy_from_slice(&next.to_be_bytes());
        head[8..12].copy_from_slice(&acknowledged.to_be_bytes());
        head[12] = 5 << 4;
        head[13] = 0x18; // PSH, ACK
        head[14..16].copy_from_slice(&0xffff_u16.to_be_bytes());
        *next = next.wrapping_add(payload.len() as u32);
        let sum = fold(checksum(from, to, TCP, &head, payload));
        head[16..18].copy_from_slice(&sum.to_be_bytes());
        head
    }
}

/// The sum over pseudo header, header and payload (RFC 1071, RFC 8200 §8.1).
fn checksum(from: SocketAddr, to: SocketAddr, protocol: u8, head: &[u8], payload: &[u8]) -> u64 {
    let mut sum = u64::from(protocol) + (head.len() + payload.len()) as u64;
    sum = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => sum_of(&to.octets(), sum_of(&from.octets(), sum)),
        (from, to) => sum_of(&octets16(to), sum_of(&octets16(from), sum)),
    };
    sum_of(payload, sum_of(head, sum))
}

fn sum_of(bytes: &[u8], sum: u64) -> u64 {
    bytes.chunks(2).fold(sum, |sum, pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        sum + u64::from(u16::from_be_bytes([pair[0], low]))
    })
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use base::UnixTime;
    use bytes::Bytes;

    use super::*;

    fn packet(from: &str, to: &str, transport: Transport, bytes: Vec<u8>) -> Packet {
        Packet {
            context: 1,
            leg: None,
            at: UnixTime::from_millis(1_795_331_700_120),
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            transport,
            bytes: Bytes::from(bytes),
        }
    }

    /// The one's complement sum over what a receiver checks is all ones (RFC 1071 §1).
    fn verifies(sum: u64) -> bool {
        fold(sum) == 0
    }

    #[test]
    fn a_datagram_of_either_family_has_headers_that_check_out() {
        for (from, to, ip_bytes) in
            [("10.0.0.1:5004", "10.0.0.2:6000", 20), ("[2001:db8::1]:5004", "[2001:db8::2]:6000", 40)]
        {
            let packet = packet(from, to, Transport::Udp, vec![0x80, 0, 1, 2, 3]);
            let mut record = Vec::new();
            append(&packet, &mut Streams::default(), &mut record);
            assert_eq!(record.len(), 16 + ip_bytes + 8 + 5);
            assert_eq!(record[0..4], 1_795_331_700_u32.to_ne_bytes());
            assert_eq!(record[4..8], 120_000_u32.to_ne_bytes());
            let (ip, rest) = record[16..].split_at(ip_bytes);
            assert!(ip_bytes == 40 || verifies(sum_of(ip, 0)));
            let (head, payload) = rest.split_at(8);
            assert_eq!(u16::from_be_bytes([head[4], head[5]]), 13);
            assert!(verifies(checksum(packet.from, packet.to, UDP, head, payload)));
        }
    }

    #[test]
    fn pieces_of_a_stream_follow_each_other_and_acknowledge_the_other_side() {
        let (mut streams, mut out) = (Streams::default(), Vec::new());
        let (a, b) = ("10.0.0.1:2855", "10.0.0.2:7394");
        append(&packet(a, b, Transport::Tcp, vec![1; 100]), &mut streams, &mut out);
        append(&packet(b, a, Transport::Tcp, vec![2; 40]), &mut streams, &mut out);
        let long = packet(a, b, Transport::Tcp, vec![3; SEGMENT_BYTES + 1]);
        append(&long, &mut streams, &mut out);
        let mut numbers = Vec::new();
        let mut rest = out.as_slice();
        while !rest.is_empty() {
            let length = u32::from_ne_bytes(rest[8..12].try_into().unwrap()) as usize;
            let tcp = &rest[16 + 20..16 + length];
            let word = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
            numbers.push((word(4), word(8), tcp.len() - 20));
            rest = &rest[16 + length..];
        }
        let segment = SEGMENT_BYTES as u32;
        assert_eq!(numbers, [(1, 1, 100), (1, 101, 40), (101, 41, SEGMENT_BYTES), (101 + segment, 41, 1)]);
    }
}
