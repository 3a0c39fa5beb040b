//! A copy of each SIP message to a collector such as Homer, in HEP3 packets over UDP. What a collector does not take is lost,
//! and nobody waits for it.
//!
//! A packet is `HEP3`, its length, and chunks: vendor (0), type, length with these six octets, value; all big-endian.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::Context as _;
use sip::Transport;

use super::settings::Hep as Settings;
use crate::clock::Clock;

/// What fits into one datagram with its chunks.
const PAYLOAD_MAX: usize = 60_000;
/// Protocol type of SIP.
const SIP: u8 = 1;

/// The way to the collector.
#[derive(Debug)]
pub(super) struct Hep {
    socket: UdpSocket,
    settings: Settings,
    clock: Clock,
}

impl Hep {
    /// `None`: there is no collector.
    pub(super) fn open(settings: &Settings) -> anyhow::Result<Option<Hep>> {
        let Some(collector) = settings.collector else { return Ok(None) };
        let any: SocketAddr = if collector.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(any).and_then(|socket| {
            socket.connect(collector)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        let socket = socket.with_context(|| format!("sip.hep.collector: {collector}"))?;
        Ok(Some(Hep { socket, settings: settings.clone(), clock: Clock::start() }))
    }

    /// A message went from one address to the other. False: its copy did not go out.
    pub(super) fn copy(
        &self,
        transport: Transport,
        from: SocketAddr,
        to: SocketAddr,
        message: &[u8],
    ) -> bool {
        let packet = self.packet(transport, from, to, message);
        match self.socket.send(&packet) {
            Ok(_) => true,
            // The kernel reports here that an earlier one found nobody.
            Err(error) => error.kind() == ErrorKind::ConnectionRefused && self.socket.send(&packet).is_ok(),
        }
    }

    fn packet(&self, transport: Transport, from: SocketAddr, to: SocketAddr, message: &[u8]) -> Vec<u8> {
        let payload = if self.settings.bodies { message } else { head_of(message) };
        let payload = payload.get(..PAYLOAD_MAX).unwrap_or(payload);
        let at = self.clock.now().wall.as_millis();
        let mut packet = Vec::with_capacity(payload.len() + 160);
        packet.extend_from_slice(b"HEP3\0\0");
        let (from_ip, to_ip) = (from.ip().to_canonical(), to.ip().to_canonical());
        chunk(&mut packet, 1, &[if from_ip.is_ipv4() { 2 } else { 10 }]);
        chunk(&mut packet, 2, &[if transport == Transport::Udp { 17 } else { 6 }]);
        for (v4, v6, ip) in [(3, 5, from_ip), (4, 6, to_ip)] {
            match ip {
                IpAddr::V4(ip) => chunk(&mut packet, v4, &ip.octets()),
                IpAddr::V6(ip) => chunk(&mut packet, v6, &ip.octets()),
            }
        }
        chunk(&mut packet, 7, &from.port().to_be_bytes());
        chunk(&mut packet, 8, &to.port().to_be_bytes());
        chunk(&mut packet, 9, &u32::try_from(at / 1000).unwrap_or(u32::MAX).to_be_bytes());
        chunk(&mut packet, 10, &u32::try_from(at % 1000 * 1000).unwrap_or(0).to_be_bytes());
        chunk(&mut packet, 11, &[SIP]);
        chunk(&mut packet, 12, &self.settings.capture_id.to_be_bytes());
        if !self.settings.key.expose().is_empty() {
            chunk(&mut packet, 14, self.settings.key.expose().as_bytes());
        }
        chunk(&mut packet, 15, payload);
        let length = u16::try_from(packet.len()).unwrap_or(u16::MAX).to_be_bytes();
        packet.iter_mut().skip(4).zip(length).for_each(|(octet, of)| *octet = of);
        packet
    }
}

fn chunk(packet: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 6).unwrap_or(u16::MAX);
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(&kind.to_be_bytes());
    packet.extend_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(value);
}

/// A message without what people say in it.
fn head_of(message: &[u8]) -> &[u8] {
    let end = message.windows(4).position(|four| four == b"\r\n\r\n").map_or(message.len(), |at| at + 4);
    message.get(..end).unwrap_or(message)
}
