//! The configuration of control: one TOML, one section per module, each defined beside its module's code.
//! Unknown keys are refused with their line.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{AdminConfig, DataplaneConfig, DnsConfig, EndedConfig, MetricsConfig, SipConfig, TraceConfig};

/// Everything that control can be told. Each key has a default that works on a laptop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which control this is: opaque, shown to the data plane and in logs.
    pub name: String,
    /// Folder of the database and the sockets that have no path of their own. Made when missing.
    pub folder: PathBuf,
    /// SIP listeners, certificates and limits of connections.
    pub sip: SipConfig,
    /// Who is asked whom a name means.
    pub dns: DnsConfig,
    /// The threads of decision.
    pub lanes: Lanes,
    /// What control remembers, and where.
    pub store: store::Settings,
    /// The link to the data plane.
    pub dataplane: DataplaneConfig,
    /// What is kept of legs that have ended.
    pub ended: EndedConfig,
    /// The socket that `weir status` speaks to.
    pub admin: AdminConfig,
    /// How much may be followed at once.
    pub trace: TraceConfig,
    /// The Prometheus endpoint.
    pub metrics: MetricsConfig,
    /// Every decision: domains, registrations, trust, functions.
    pub service: service::Config,
}

/// The lanes: each owns the users and conferences that hash to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lanes {
    /// How many there are.
    pub count: u16,
    /// Events that may wait for one lane; new requests are refused with 503 at half of it.
    pub queue_max: usize,
    /// Decisions of one lane that may wait for their commit at once.
    pub commits_max: usize,
}

impl Default for Lanes {
    fn default() -> Self {
        Lanes { count: 4, queue_max: 4096, commits_max: 256 }
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            name: "weir".to_owned(),
            folder: PathBuf::from("weir-data"),
            sip: SipConfig::default(),
            dns: DnsConfig::default(),
            lanes: Lanes::default(),
            store: store::Settings::default(),
            dataplane: DataplaneConfig::default(),
            ended: EndedConfig::default(),
            admin: AdminConfig::default(),
            trace: TraceConfig::default(),
            metrics: MetricsConfig::default(),
            service: service::Config::default(),
        }
    }
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not TOML, or a key that nobody knows, or a value of the wrong type; the text names the line.
    #[error("{0}")]
    Syntax(#[from] toml::de::Error),
    /// A value of the section `[service]` that cannot work.
    #[error("service.{0}")]
    Service(#[from] service::ConfigError),
    /// A value that cannot work.
    #[error("{key}: {why}")]
    Value {
        /// The key, dotted.
        key: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

impl Config {
    /// Reads a configuration from its text.
    pub fn parse(text: &str) -> Result<Config, ConfigError> {
        let config: Config = toml::from_str(text)?;
        config.check()?;
        Ok(config)
    }

    /// Reads a configuration from a file.
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Config::parse(&text)
    }

    /// Values that parse but cannot work. [`crate::start`] asks too.
    pub fn check(&self) -> Result<(), ConfigError> {
        let refuse = |key, why: &str| Err(ConfigError::Value { key, why: why.to_owned() });
        if !(1..=256).contains(&self.lanes.count) {
            return refuse("lanes.count", "1 to 256");
        }
        if self.lanes.queue_max < 16 || self.lanes.commits_max == 0 {
            return refuse("lanes", "queue_max must be 16 or more, commits_max 1 or more");
        }
        self.sip.check()?;
        self.dns.check()?;
        Ok(self.service.check()?)
    }

    /// A file in the folder, unless it has a path of its own.
    pub(crate) fn place(&self, own: &Option<PathBuf>, name: &str) -> PathBuf {
        own.clone().unwrap_or_else(|| self.folder.join(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_at_all_is_the_default() {
        assert_eq!(Config::parse("").unwrap(), Config::default());
    }

    #[test]
    fn what_is_written_out_is_read_back() {
        let text = toml::to_string(&Config::default()).unwrap();
        assert_eq!(Config::parse(&text).unwrap(), Config::default());
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        for (text, line, key) in [
            ("name = \"a\"\nnmae = \"b\"\n", "line 2", "nmae"),
            ("[sip]\n\nlisteners = []\nport = 1\n", "line 4", "port"),
            ("[sip.limits]\nconnection_max = 1\n", "line 2", "connection_max"),
            (
                "[[sip.listeners]]\ntransport = \"udp\"\naddress = \"127.0.0.1:1\"\nspeed = 9\n",
                "line 4",
                "speed",
            ),
        ] {
            let error = Config::parse(text).unwrap_err().to_string();
            assert!(error.contains(line) && error.contains(key), "{error}");
        }
    }

    #[test]
    fn values_that_cannot_work_are_refused_by_their_key() {
        let error = Config::parse("[lanes]\ncount = 0\n").unwrap_err().to_string();
        assert!(error.starts_with("lanes.count"), "{error}");
    }
}
