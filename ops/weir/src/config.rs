//! The one TOML file of a node: a section per process, each defined beside that process's code.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use ue::Transport;

/// The whole configuration. Both roles read the same file and take their own section.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// `[control]`.
    pub(crate) control: controld::Config,
    /// `[dataplane]`.
    pub(crate) dataplane: dataplaned::Config,
}

impl Config {
    /// Reads a file; an unknown key is refused with its line.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Config> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let config: Config = toml::from_str(&text).with_context(|| path.display().to_string())?;
        config.control.check().context("[control]")?;
        config.dataplane.check().context("[dataplane]")?;
        Ok(config)
    }

    /// Writes it where the children read it.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = toml::to_string(self)?;
        let write = || {
            // Whole or not at all, and for nobody else's eyes: there are passwords in it.
            let fresh = path.with_extension("fresh");
            let _ = std::fs::remove_file(&fresh);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&fresh, path)
        };
        write().with_context(|| path.display().to_string())
    }

    /// Where control answers `weir status`.
    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.control.admin.socket.clone().unwrap_or_else(|| self.control.folder.join("control.sock"))
    }

    /// The data plane's Prometheus endpoint.
    pub(crate) fn dataplane_metrics(&self) -> Option<SocketAddr> {
        self.dataplane.metrics.on.then_some(self.dataplane.metrics.address)
    }

    /// The first served domain.
    pub(crate) fn domain(&self) -> &str {
        self.control.service.domain()
    }

    /// The address of the conference factory.
    pub(crate) fn factory(&self) -> String {
        format!("sip:{}@{}", self.control.service.controlling.factory, self.domain())
    }

    /// Where SIP is spoken over a transport.
    pub(crate) fn sip(&self, transport: Transport) -> Option<SocketAddr> {
        let wanted = transport.label();
        self.control.sip.listeners.iter().find(|l| l.transport.label() == wanted).map(|l| l.address)
    }
}

/// `weir config`: every key with its default.
pub(crate) fn print() -> anyhow::Result<ExitCode> {
    print!("{}", toml::to_string(&Config::default())?);
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weir.toml");
        std::fs::write(&path, "[control]\nname = \"a\"\nnmae = \"b\"\n").unwrap();
        let said = format!("{:#}", Config::read(&path).unwrap_err());
        assert!(said.contains("line 3") && said.contains("nmae"), "{said}");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weir.toml");
        Config::default().write(&path).unwrap();
        assert_eq!(Config::read(&path).unwrap(), Config::default());
    }
}
