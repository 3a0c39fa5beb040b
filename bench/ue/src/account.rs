//! Who a device is, where its server is, how it behaves.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use base::Entropy;
use sip::Transport;

use crate::{ChatLimits, Trust};

/// What a device does with an INVITE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answering {
    /// Accepts it at once.
    Accept,
    /// Says 180 and waits for [`crate::Device::answer`].
    Ring,
    /// Refuses it with this status.
    Refuse(u16),
}

/// Which side of an MSRP connection a device wants to be (RFC 6135).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChatSetup {
    /// Opens connections, takes none: behind a NAT, and with thousands of devices in one process.
    Active,
    /// Takes connections where it may choose; offers `actpass`.
    Passive,
}

/// A device's settings.
#[derive(Clone, Debug)]
pub struct Account {
    /// What people call the device, e.g. `ann/phone`.
    pub name: String,
    /// Address of record, e.g. `sip:ann@weir.example`.
    pub address: String,
    /// Digest username.
    pub username: String,
    /// Digest password.
    pub password: String,
    /// Where SIP goes: everything is sent there, over one flow (RFC 5626).
    pub server: SocketAddr,
    /// How.
    pub transport: Transport,
    /// `+sip.instance` without brackets, e.g. `urn:uuid:…`.
    pub instance: String,
    /// Whom the device believes under TLS.
    pub trust: Trust,
    /// Where its sockets are bound.
    pub bind: IpAddr,
    /// Seconds asked for in REGISTER.
    pub expires_s: u32,
    /// What it does with an INVITE.
    pub answering: Answering,
    /// Whether it sends `delivered` where asked.
    pub sends_delivered: bool,
    /// MSRP.
    pub chat: ChatLimits,
    /// MSRP's connection.
    pub chat_setup: ChatSetup,
    /// Offers MSRP over TLS.
    pub chat_tls: bool,
    /// Offers audio with keys (RTP/SAVP, RFC 4568), one for each of these suites; none: plain RTP. Offered keys are
    /// taken in any case.
    pub srtp: Vec<sdp::CryptoSuite>,
    /// Time between RTCP reports.
    pub rtcp_every: Duration,
    /// Samples of heard audio that are kept.
    pub keep_samples_max: usize,
    /// Events that are kept.
    pub events_max: usize,
    /// Read everything that arrives with rsip too, and compare.
    pub second_reading: bool,
}

impl Account {
    /// A device of `user@domain`, whose password is `password`, with an instance of its own.
    pub fn new(
        user: &str,
        domain: &str,
        password: &str,
        server: SocketAddr,
        transport: Transport,
        entropy: &mut Entropy,
    ) -> Self {
        Account {
            name: user.to_owned(),
            address: format!("sip:{user}@{domain}"),
            username: user.to_owned(),
            password: password.to_owned(),
            server,
            transport,
            instance: uuid(entropy),
            trust: Trust::Anybody,
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            expires_s: 3600,
            answering: Answering::Accept,
            sends_delivered: true,
            chat: crate::chat::limits(),
            chat_setup: ChatSetup::Passive,
            chat_tls: transport == Transport::Tls,
            srtp: Vec::new(),
            rtcp_every: Duration::from_secs(5),
            keep_samples_max: 0,
            events_max: 100_000,
            second_reading: true,
        }
    }

    /// The user part of the address.
    pub fn user(&self) -> &str {
        let bare = self.address.split_once(':').map_or(self.address.as_str(), |(_, rest)| rest);
        bare.split_once('@').map_or(bare, |(user, _)| user)
    }

    /// The domain of the address.
    pub fn domain(&self) -> &str {
        self.address.rsplit_once('@').map_or("localhost", |(_, domain)| domain)
    }
}

/// A random URN (RFC 9562 version 4).
pub fn uuid(entropy: &mut Entropy) -> String {
    let mut bytes = [0u8; 16];
    entropy.fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let mut parts = Vec::new();
    let mut rest = hex.as_str();
    for length in [8, 4, 4, 4, 12] {
        let (part, after) = rest.split_at(length);
        parts.push(part);
        rest = after;
    }
    format!("urn:uuid:{}", parts.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_a_uuid() {
        let urn = uuid(&mut Entropy::from_number(1));
        assert_eq!(urn.len(), 9 + 36);
        assert_eq!(urn.as_bytes()[9 + 14], b'4');
    }

    #[test]
    fn the_address_has_its_parts() {
        let server = SocketAddr::from(([127, 0, 0, 1], 5060));
        let account =
            Account::new("ann", "weir.example", "x", server, Transport::Udp, &mut Entropy::from_number(1));
        assert_eq!((account.user(), account.domain()), ("ann", "weir.example"));
    }
}
