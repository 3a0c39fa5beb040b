//! `[dataplane.msrp.relay]`: the relay of RFC 4976.

use std::net::IpAddr;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// A relay of RFC 4976 on the MSRP listeners, for clients that ask for one by AUTH with the password that they register
/// with. Maxima are of one shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelaySettings {
    /// Whether there is one.
    pub on: bool,
    /// Take AUTH without TLS too. What is relayed is then as open as the network; the password is not.
    pub plain: bool,
    /// Seconds that a session lasts when AUTH names none.
    pub expires_s: u64,
    /// The fewest that AUTH may ask for.
    pub expires_min_s: u64,
    /// The most.
    pub expires_max_s: u64,
    /// Sessions at once.
    pub sessions_max: usize,
    /// Sessions of one user at once.
    pub account_sessions_max: usize,
    /// Wrong passwords after which a connection is closed.
    pub failures_max: u32,
    /// Chunks whose answers are awaited at once.
    pub transactions_max: usize,
    /// The networks that clients may be relayed to, like "198.51.100.0/24". Empty: all but loopback and link-local ones.
    pub reach: Vec<String>,
}

impl Default for RelaySettings {
    fn default() -> Self {
        let engine = forward::RelayConfig::default();
        RelaySettings {
            on: false,
            plain: engine.plain,
            expires_s: engine.expires_s,
            expires_min_s: engine.expires_min_s,
            expires_max_s: engine.expires_max_s,
            sessions_max: engine.sessions_max,
            account_sessions_max: engine.account_sessions_max,
            failures_max: engine.failures_max,
            transactions_max: engine.transactions_max,
            reach: Vec::new(),
        }
    }
}

impl RelaySettings {
    /// The engine's part; none when it is off.
    pub(crate) fn engine(&self) -> anyhow::Result<Option<forward::RelayConfig>> {
        let reach = self.reach.iter().map(|text| network(text));
        let reach: Vec<(IpAddr, u8)> = reach.collect::<anyhow::Result<_>>()?;
        anyhow::ensure!(
            self.expires_min_s <= self.expires_s && self.expires_s <= self.expires_max_s,
            "msrp.relay.expires_s is not between expires_min_s and expires_max_s"
        );
        anyhow::ensure!(
            self.expires_min_s > 0 && self.failures_max > 0 && self.transactions_max > 0,
            "msrp.relay.expires_min_s, failures_max and transactions_max are at least 1"
        );
        Ok(self.on.then(|| forward::RelayConfig {
            plain: self.plain,
            expires_s: self.expires_s,
            expires_min_s: self.expires_min_s,
            expires_max_s: self.expires_max_s,
            sessions_max: self.sessions_max,
            account_sessions_max: self.account_sessions_max,
            failures_max: self.failures_max,
            transactions_max: self.transactions_max,
            reach,
            ..forward::RelayConfig::default()
        }))
    }
}

fn network(text: &str) -> anyhow::Result<(IpAddr, u8)> {
    let wrong = || format!("msrp.relay.reach: {text} is no network like 198.51.100.0/24");
    let (address, length) = text.split_once('/').with_context(wrong)?;
    let (address, length): (IpAddr, u8) =
        (address.parse().with_context(wrong)?, length.parse().with_context(wrong)?);
    anyhow::ensure!(length <= if address.is_ipv4() { 32 } else { 128 }, wrong());
    Ok((address, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_by_default_and_what_does_not_fit_is_refused() {
        assert_eq!(RelaySettings::default().engine().unwrap(), None);
        let on = RelaySettings { on: true, reach: vec!["127.0.0.0/8".into()], ..RelaySettings::default() };
        assert_eq!(on.engine().unwrap().unwrap().reach, [("127.0.0.0".parse().unwrap(), 8)]);
        for reach in ["127.0.0.1", "x/8", "10.0.0.0/33", "::/129", "10.0.0.0/-1"] {
            assert!(RelaySettings { reach: vec![reach.into()], ..on.clone() }.engine().is_err(), "{reach}");
        }
        assert!(RelaySettings { expires_s: 1, ..on.clone() }.engine().is_err());
        assert!(RelaySettings { expires_min_s: 0, expires_s: 0, ..on }.engine().is_err());
    }
}
