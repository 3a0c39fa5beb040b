//! TLS of the edge: whom we show ourselves as, whom we believe, and the key log. A certificate that is replaced on disk is
//! shown from the next handshake on.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use rustls::client::ResolvesClientCert;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::identity;
use super::settings::Tls;
use crate::Shutdown;
use crate::metrics::{Metrics, Reload};

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// How often the files of the certificate are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// For connections that peers open.
pub(super) fn acceptor(
    settings: &Tls,
    peers: Option<Arc<identity::Peers>>,
    shown: Arc<Shown>,
) -> anyhow::Result<TlsAcceptor> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = match peers {
        Some(peers) => config.with_client_cert_verifier(peers),
        None => config.with_no_client_auth(),
    };
    let mut config = config.with_cert_resolver(shown);
    if let Some(path) = &settings.key_log {
        config.key_log = Arc::new(KeyLog::open(path)?);
    }
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The certificate that peers are shown.
#[derive(Debug)]
pub(crate) struct Shown {
    key: RwLock<Arc<CertifiedKey>>,
    /// When its files were written.
    written: Mutex<Option<SystemTime>>,
}

impl Shown {
    pub(super) fn new(settings: &Tls) -> anyhow::Result<Arc<Self>> {
        let written = Mutex::new(written(settings));
        let key = RwLock::new(certified(settings, &aws_lc_rs::default_provider())?);
        Ok(Arc::new(Shown { key, written }))
    }

    /// Reads the files again when they were written since.
    fn look(&self, settings: &Tls) -> Option<anyhow::Result<()>> {
        let now = written(settings);
        let mut before = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if now.is_none() || *before == now {
            return None;
        }
        *before = now;
        let fresh = certified(settings, &aws_lc_rs::default_provider());
        Some(fresh.map(|fresh| *self.key.write().unwrap_or_else(PoisonError::into_inner) = fresh))
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.key.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Looks at the files of the certificate until shutdown. What cannot be read, or does not fit together, changes nothing: it
/// is looked at again when it is written again.
pub(super) async fn follow(shown: Arc<Shown>, settings: Tls, metrics: Arc<Metrics>, shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = shutdown.triggered() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        match shown.look(&settings) {
            None => {}
            Some(Ok(())) => {
                metrics.certificates.count(Reload::Done);
                tracing::info!("sip.tls: the certificate was read again and is shown from now on");
            }
            Some(Err(error)) => {
                metrics.certificates.count(Reload::Failed);
                tracing::warn!(error = format!("{error:#}"), "sip.tls: the old certificate stays");
            }
        }
    }
}

/// The later of the times at which the two files were written.
fn written(settings: &Tls) -> Option<SystemTime> {
    let of = |path: &Option<std::path::PathBuf>| std::fs::metadata(path.as_ref()?).ok()?.modified().ok();
    Some(of(&settings.certificate)?.max(of(&settings.key)?))
}

fn certified(settings: &Tls, provider: &CryptoProvider) -> anyhow::Result<Arc<CertifiedKey>> {
    let (chain, key) = identity(settings)?;
    let key = CertifiedKey::from_der(chain, key, provider).context("sip.tls: certificate and key")?;
    Ok(Arc::new(key))
}

/// For connections that we open; `None` when nobody is trusted.
pub(super) fn connector(settings: &Tls, shown: Arc<Shown>) -> anyhow::Result<Option<TlsConnector>> {
    let Some(path) = &settings.trust else { return Ok(None) };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).with_context(|| format!("sip.tls.trust: {}", path.display()))?;
    }
    let provider = aws_lc_rs::default_provider();
    let algorithms = provider.signature_verification_algorithms;
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(identity::ServerIdentity::new(roots, algorithms));
    // One that is drawn for this run proves nothing to anybody.
    let mut config = match settings.certificate {
        Some(_) => config.with_client_cert_resolver(shown),
        None => config.with_no_client_auth(),
    };
    if let Some(path) = &settings.key_log {
        config.key_log = Arc::new(KeyLog::open(path)?);
    }
    Ok(Some(TlsConnector::from(Arc::new(config))))
}

pub(super) fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
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
