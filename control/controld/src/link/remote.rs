//! The data plane on another host: by TCP, where both sides show certificates (DESIGN §3).

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Settings;

/// A host that says nothing at all for so long is asked whether it lives.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Where it is and how it is met.
#[derive(Clone)]
pub(crate) struct Remote {
    pub(super) address: SocketAddr,
    name: ServerName<'static>,
    connector: TlsConnector,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote")
            .field("address", &self.address)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Remote {
    /// As the configuration says; `None` when the data plane is on this host.
    pub(crate) fn new(settings: &Settings) -> anyhow::Result<Option<Remote>> {
        let Some(address) = settings.address else { return Ok(None) };
        let file = |file: &Option<std::path::PathBuf>, key: &str| {
            file.clone().with_context(|| format!("dataplane.address needs dataplane.{key}"))
        };
        let name = match &settings.name {
            Some(name) => ServerName::try_from(name.clone()).context("dataplane.name")?,
            None => ServerName::from(address.ip()),
        };
        let trust = file(&settings.trust, "trust")?;
        let mut roots = RootCertStore::empty();
        for authority in chain(&trust)? {
            roots.add(authority).with_context(|| trust.display().to_string())?;
        }
        let key = file(&settings.key, "key")?;
        let own = chain(&file(&settings.certificate, "certificate")?)?;
        let key = PrivateKeyDer::from_pem_file(&key).with_context(|| key.display().to_string())?;
        // Both ends are ours: nothing older is needed.
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(own, key)
            .context("dataplane.certificate and dataplane.key")?;
        Ok(Some(Remote { address, name, connector: TlsConnector::from(Arc::new(config)) }))
    }

    /// Connects, and knows afterwards who is there; that we are believed shows with the first word only.
    pub(super) async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE).with_retries(3);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        self.connector.connect(self.name.clone(), stream).await
    }
}

fn chain(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, _>>();
    let chain = read().with_context(|| file.display().to_string())?;
    anyhow::ensure!(!chain.is_empty(), "{}: no certificate in it", file.display());
    Ok(chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_its_certificates_and_a_missing_file_is_named() {
        assert!(Remote::new(&Settings::default()).unwrap().is_none());
        let bare =
            Settings { address: Some(SocketAddr::from(([192, 0, 2, 1], 2860))), ..Settings::default() };
        assert!(format!("{:#}", Remote::new(&bare).unwrap_err()).contains("dataplane.trust"));
        let nowhere = Settings { trust: Some("/nonexistent/ca.pem".into()), ..bare };
        assert!(format!("{:#}", Remote::new(&nowhere).unwrap_err()).contains("ca.pem"));
    }
}
