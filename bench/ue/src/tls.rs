//! TLS of a device: its own self-signed certificate, and whom it believes (RFC 8122 fingerprints, a pinned
//! authority, or anybody, for tests).

use std::path::PathBuf;
use std::sync::Arc;

pub use fingerprint::Fingerprint;
use fingerprint::Verifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{Error, RootCertStore};

/// Whom a device believes when it opens TLS to its server.
#[derive(Clone, Debug, Default)]
pub enum Trust {
    /// Anybody: for a node with a self-signed certificate on this host.
    #[default]
    Anybody,
    /// Who chains to a certificate of this PEM file.
    Authority(PathBuf),
    /// Who shows exactly this certificate.
    Pinned(Fingerprint),
}

/// A certificate with its key.
#[derive(Debug)]
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    /// Of the certificate, for `a=fingerprint`.
    pub fingerprint: Fingerprint,
}

/// TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// From the TLS library.
    #[error("TLS: {0}")]
    Rustls(#[from] Error),
    /// A certificate could not be made.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A PEM file could not be read.
    #[error("{0}: no certificates")]
    Pem(PathBuf),
}

impl Identity {
    /// A fresh self-signed one.
    pub fn generate(names: &[&str]) -> Result<Identity, TlsError> {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names)?;
        let certificate = made.cert.der().clone();
        let fingerprint = fingerprint::of(&certificate);
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        Ok(Identity { certificate, key, fingerprint })
    }

    /// The client side, showing this certificate where it is asked for.
    pub fn client(&self, trust: &Trust) -> Result<Arc<rustls::ClientConfig>, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let chain = vec![self.certificate.clone()];
        let mut config = match trust {
            Trust::Authority(path) => {
                let mut roots = RootCertStore::empty();
                let bad = || TlsError::Pem(path.clone());
                for certificate in CertificateDer::pem_file_iter(path).map_err(|_| bad())? {
                    roots.add(certificate.map_err(|_| bad())?)?;
                }
                builder.with_root_certificates(roots).with_client_auth_cert(chain, self.key.clone_key())?
            }
            Trust::Anybody | Trust::Pinned(_) => {
                let expected = if let Trust::Pinned(print) = trust { Some(*print) } else { None };
                let verifier = Verifier::new(expected, provider.signature_verification_algorithms);
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(verifier)
                    .with_client_auth_cert(chain, self.key.clone_key())?
            }
        };
        // Wireshark's key log, only where SSLKEYLOGFILE asks for it.
        config.key_log = Arc::new(rustls::KeyLogFile::new());
        Ok(Arc::new(config))
    }

    /// The server side; the peer must show a certificate with this fingerprint, or may show any.
    pub(crate) fn server(
        &self,
        expected: Option<Fingerprint>,
    ) -> Result<Arc<rustls::ServerConfig>, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Verifier::new(expected, provider.signature_verification_algorithms);
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())?;
        Ok(Arc::new(config))
    }
}
