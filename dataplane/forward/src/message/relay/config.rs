//! What the relay is allowed.

use std::mem::size_of;
use std::net::IpAddr;

use base::Budget;

use super::Session;
use super::auth::Question;
use super::pass::Pass;
use super::whole::Return;

/// The settings of one engine's relay (RFC 4976). Without them there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayConfig {
    /// Take AUTH on connections without TLS too.
    pub plain: bool,
    /// Seconds that a session lasts when AUTH names none.
    pub expires_s: u64,
    /// AUTH that asks for less is refused by 423.
    pub expires_min_s: u64,
    /// AUTH that asks for more is refused by 423.
    pub expires_max_s: u64,
    /// Sessions at once.
    pub sessions_max: usize,
    /// Sessions of one user at once.
    pub account_sessions_max: usize,
    /// AUTHs that wait for control at once.
    pub questions_max: usize,
    /// Wrong credentials after which a connection is closed.
    pub failures_max: u32,
    /// Chunks, and requests other than SEND, whose answers are awaited at once.
    pub transactions_max: usize,
    /// The networks that next hops may be in. Empty: any but this host's loopback, link-local ones and the like.
    pub reach: Vec<(IpAddr, u8)>,
}

impl Default for RelayConfig {
    fn default() -> Self {
        RelayConfig {
            plain: false,
            expires_s: 1800,
            expires_min_s: 60,
            expires_max_s: 3600,
            sessions_max: 1024,
            account_sessions_max: 16,
            questions_max: 256,
            failures_max: 5,
            transactions_max: 4096,
            reach: Vec::new(),
        }
    }
}

impl RelayConfig {
    /// The memory that this allows.
    pub fn budget(&self) -> Budget {
        let n = |count: usize| count as u64;
        let size = |bytes: usize| bytes as u64;
        let mut budget = Budget::default();
        budget
            .row("relay sessions", n(self.sessions_max), size(size_of::<Session>()) + 512)
            .row("relay questions", n(self.questions_max), size(size_of::<Question>()) + 2048)
            .row(
                "relay transactions",
                n(self.transactions_max) * 2,
                size(size_of::<Pass>() + size_of::<Return>()) + 2048,
            );
        budget
    }

    /// Whether a next hop may be there: whoever has a password must not get at what only this host can reach.
    pub(super) fn reaches(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        if !self.reach.is_empty() {
            return self.reach.iter().any(|(network, length)| is_in(ip, *network, *length));
        }
        let local = match ip {
            IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        !(local || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast())
    }
}

fn is_in(ip: IpAddr, network: IpAddr, length: u8) -> bool {
    let differ = |a: u128, b: u128, bits: u32| {
        let length = u32::from(length).min(bits);
        length > 0 && (a ^ b) >> (bits - length) != 0
    };
    match (ip, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => !differ(u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => !differ(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_hops_are_where_they_may_be() {
        let open = RelayConfig::default();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (text, reached) in [
            ("198.51.100.1", true),
            ("10.0.0.1", true),
            ("2001:db8::1", true),
            ("127.0.0.1", false),
            ("::ffff:127.0.0.1", false),
            ("::1", false),
            ("169.254.169.254", false),
            ("fe80::1", false),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
        ] {
            assert_eq!(open.reaches(ip(text)), reached, "{text}");
        }
        let reach = vec![(ip("10.1.0.0"), 16), (ip("127.0.0.1"), 32), (ip("2001:db8::"), 32)];
        let narrow = RelayConfig { reach, ..RelayConfig::default() };
        for (text, reached) in [
            ("10.1.255.255", true),
            ("10.2.0.0", false),
            ("127.0.0.1", true),
            ("127.0.0.2", false),
            ("2001:db8:1::1", true),
            ("2001:db9::1", false),
            ("198.51.100.1", false),
        ] {
            assert_eq!(narrow.reaches(ip(text)), reached, "{text}");
        }
        let all = RelayConfig { reach: vec![(ip("0.0.0.0"), 0)], ..RelayConfig::default() };
        assert!(all.reaches(ip("127.0.0.1")) && !all.reaches(ip("::1")));
    }
}
