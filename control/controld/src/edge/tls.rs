//! TLS of the edge: whom we show ourselves as, whom we believe, and the key log.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::settings::Tls;

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// For connections that peers open.
pub(crate) fn acceptor(settings: &Tls) -> anyhow::Result<TlsAcceptor> {
    let (chain, key) = identity(settings)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("sip.tls: certificate and key")?;
    if let Some(path) = &settings.key_log {
        config.key_log = Arc::new(KeyLog::open(path)?);
    }
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// For connections that we open; `None` when nobody is trusted.
pub(crate) fn connector(settings: &Tls) -> anyhow::Result<Option<TlsConnector>> {
    let Some(path) = &settings.trust else { return Ok(None) };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).with_context(|| format!("sip.tls.trust: {}", path.display()))?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    if let Some(path) = &settings.key_log {
        config.key_log = Arc::new(KeyLog::open(path)?);
    }
    Ok(Some(TlsConnector::from(Arc::new(config))))
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let certificates = read().with_context(|| path.display().to_string())?;
    if certificates.is_empty() {
        bail!("{}: no certificate in it", path.display());
    }
    Ok(certificates)
}

fn identity(settings: &Tls) -> anyhow::Result<Identity> {
    if let (Some(certificate), Some(key)) = (&settings.certificate, &settings.key) {
        let key = PrivateKeyDer::from_pem_file(key).with_context(|| key.display().to_string())?;
        return Ok((certificates(certificate)?, key));
    }
    let mut names = settings.names.clone();
    if names.is_empty() {
        names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    }
    let drawn = rcgen::generate_simple_self_signed(names).context("drawing a self-signed certificate")?;
    let key = PrivatePkcs8KeyDer::from(drawn.signing_key.serialize_der());
    Ok((vec![drawn.cert.der().clone()], key.into()))
}

/// Appends secrets in the format of SSLKEYLOGFILE, one write a line.
#[derive(Debug)]
struct KeyLog(Mutex<File>);

impl KeyLog {
    fn open(path: &Path) -> anyhow::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        Ok(KeyLog(Mutex::new(file.with_context(|| format!("sip.tls.key_log: {}", path.display()))?)))
    }
}

impl rustls::KeyLog for KeyLog {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let line = format!("{label} {} {}\n", hex(client_random), hex(secret));
        // A key log that cannot be written costs a capture, not a session.
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
    }
}
