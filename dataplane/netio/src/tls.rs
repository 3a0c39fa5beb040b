//! TLS of MSRP connections: whom we show ourselves as, and the fingerprint of whom we meet.
//!
//! Peers of MSRP show self-signed certificates and are known by the fingerprint in their SDP (RFC 4975 §14.4, RFC
//! 8122 §6.2): so every certificate is accepted here, its holder is proved by the handshake's signature, and
//! `forward` compares the fingerprint with what control was told.

use std::fmt;
use std::sync::Arc;

use fingerprint::{Fingerprint, Verifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ServerConfig};

/// Both sides' configuration, shared by all shards.
#[derive(Clone)]
pub struct Tls {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) client: Arc<ClientConfig>,
    fingerprint: Fingerprint,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Shows `chain` (our own certificate first) as server and as client.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let anyone = Verifier::new(None, provider.signature_verification_algorithms);
        let own = chain.first().ok_or(rustls::Error::NoCertificatesPresented)?;
        let fingerprint = fingerprint::of(own);
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(anyone.clone())
            .with_single_cert(chain.clone(), key.clone_key())?;
        // Wireshark's key log, only where SSLKEYLOGFILE asks for it.
        server.key_log = Arc::new(rustls::KeyLogFile::new());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(anyone)
            .with_client_auth_cert(chain, key)?;
        client.key_log = Arc::new(rustls::KeyLogFile::new());
        // A resumed handshake shows no certificate to take the fingerprint of.
        client.resumption = rustls::client::Resumption::disabled();
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Tls { server: Arc::new(server), client: Arc::new(client), fingerprint })
    }

    /// SHA-256 of the certificate that we show: what `a=fingerprint` says.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}
