//! TLS as the data plane has it: a certificate for all, everybody's accepted, nothing resumed.

use std::sync::Arc;

use fingerprint::Verifier;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, ServerConfig};

/// Both sides.
pub(crate) struct Both {
    /// What a bare loop shows.
    pub(crate) server: Arc<ServerConfig>,
    /// What the load shows.
    pub(crate) client: Arc<ClientConfig>,
}

impl Both {
    pub(crate) fn make() -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec!["bench.example".to_owned()])?;
        let chain: Vec<CertificateDer<'static>> = vec![made.cert.der().clone()];
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let anyone = Verifier::new(None, provider.signature_verification_algorithms);
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(anyone.clone())
            .with_single_cert(chain.clone(), key.clone_key())?;
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(anyone)
            .with_client_auth_cert(chain, key)?;
        client.resumption = rustls::client::Resumption::disabled();
        Ok(Both { server: Arc::new(server), client: Arc::new(client) })
    }
}
