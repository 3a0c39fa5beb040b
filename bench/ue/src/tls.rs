//! TLS of a device: its own self-signed certificate, and whom it believes (RFC 8122 fingerprints, a pinned
//! authority, or anybody, for tests).

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use sha2::{Digest, Sha256};

/// SHA-256 of a certificate.
pub type Fingerprint = [u8; 32];

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
        let fingerprint = fingerprint(&certificate);
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        Ok(Identity { certificate, key, fingerprint })
    }

    /// The client side, showing this certificate where it is asked for.
    pub(crate) fn client(&self, trust: &Trust) -> Result<Arc<rustls::ClientConfig>, TlsError> {
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
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(ByFingerprint { expected, provider }))
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
        let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::new(ByFingerprint { expected, provider }))
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())?;
        Ok(Arc::new(config))
    }
}

/// SHA-256 of a certificate.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> Fingerprint {
    Sha256::digest(certificate).into()
}

/// Believes one certificate by its fingerprint (RFC 8122 §5), or all.
#[derive(Debug)]
struct ByFingerprint {
    expected: Option<Fingerprint>,
    provider: Arc<CryptoProvider>,
}

impl ByFingerprint {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        match self.expected {
            Some(expected) if expected != fingerprint(certificate) => {
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
            _ => Ok(()),
        }
    }

    fn tls12(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn tls13(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for ByFingerprint {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for ByFingerprint {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.expected.is_some()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
