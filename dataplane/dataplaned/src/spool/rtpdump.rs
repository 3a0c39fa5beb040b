//! What comes to one leg in the format that rtptools, Wireshark and ffmpeg-side tools read: a line of text, a header, then
//! each RTP or RTCP packet whole with its time since the first. All numbers in network order.

use std::net::{IpAddr, SocketAddr};

use base::UnixTime;
use forward::Packet;
use rtp::Kind;

/// Octets before each packet: length with these eight, length of the RTP packet (0: RTCP), milliseconds.
const RECORD_BYTES: usize = 8;

/// What one file remembers: when it began.
#[derive(Debug, Default)]
pub(super) struct Dump {
    began: Option<UnixTime>,
}

impl Dump {
    /// Appends a packet, after the file's head if it is the first one.
    pub(super) fn append(&mut self, packet: &Packet, into: &mut Vec<u8>) {
        let began = *self.began.get_or_insert_with(|| {
            head(packet.at, packet.from, into);
            packet.at
        });
        let (Ok(length), Ok(whole)) =
            (u16::try_from(packet.bytes.len()), u16::try_from(packet.bytes.len() + RECORD_BYTES))
        else {
            return;
        };
        let plain = if rtp::kind(&packet.bytes) == Kind::Rtcp { 0 } else { length };
        let since = u32::try_from(packet.at.since(began).as_millis()).unwrap_or(u32::MAX);
        into.extend_from_slice(&whole.to_be_bytes());
        into.extend_from_slice(&plain.to_be_bytes());
        into.extend_from_slice(&since.to_be_bytes());
        into.extend_from_slice(&packet.bytes);
    }
}

/// The file's start: who sent, and when the first packet came. There is room for an IPv4 address only.
fn head(at: UnixTime, from: SocketAddr, into: &mut Vec<u8>) {
    into.extend_from_slice(format!("#!rtpplay1.0 {}/{}\n", from.ip(), from.port()).as_bytes());
    let ms = at.as_millis();
    into.extend_from_slice(&((ms / 1000) as u32).to_be_bytes());
    into.extend_from_slice(&((ms % 1000 * 1000) as u32).to_be_bytes());
    let source = match from.ip().to_canonical() {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(_) => [0; 4],
    };
    into.extend_from_slice(&source);
    into.extend_from_slice(&from.port().to_be_bytes());
    into.extend_from_slice(&[0, 0]);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use forward::Transport;

    use super::*;

    fn packet(ms: u64, bytes: &[u8]) -> Packet {
        Packet {
            context: 1,
            leg: Some(2),
            at: UnixTime::from_millis(1_795_331_700_120 + ms),
            from: "192.0.2.9:4000".parse().unwrap(),
            to: "192.0.2.1:40000".parse().unwrap(),
            transport: Transport::Udp,
            bytes: Bytes::copy_from_slice(bytes),
        }
    }

    #[test]
    fn a_file_has_its_head_once_and_each_packet_with_its_time() {
        let (mut dump, mut out) = (Dump::default(), Vec::new());
        let voice = [&[0x80, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3][..], &[7; 20]].concat();
        dump.append(&packet(0, &voice), &mut out);
        let report = [0x80, 201, 0, 1, 0, 0, 0, 3];
        dump.append(&packet(20, &report), &mut out);
        let text = b"#!rtpplay1.0 192.0.2.9/4000\n";
        let (line, rest) = out.split_at(text.len());
        assert_eq!(line, text);
        let (head, rest) = rest.split_at(16);
        assert_eq!(head[..8], [1_795_331_700_u32.to_be_bytes(), 120_000_u32.to_be_bytes()].concat());
        assert_eq!(head[8..], [192, 0, 2, 9, 0x0f, 0xa0, 0, 0]);
        let (first, second) = rest.split_at(8 + voice.len());
        assert_eq!(first[..8], [0, 40, 0, 32, 0, 0, 0, 0]);
        assert_eq!(first[8..], voice[..]);
        assert_eq!(second[..8], [0, 16, 0, 0, 0, 0, 0, 20], "RTCP has no length of its own");
        assert_eq!(second[8..], report);
    }
}
