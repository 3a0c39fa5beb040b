//! Whom the MSRP listeners show themselves as: the configured certificate, or a self-signed one made at each start.
//! And the certificates of the contract, which are always configured.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use netio::Tls;
use rustls::crypto::aws_lc_rs;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{ContractSettings, MsrpSettings, RtpSettings};

/// Reads or makes it.
pub(crate) fn tls(settings: &MsrpSettings) -> anyhow::Result<Tls> {
    let (chain, key) = match (&settings.certificate, &settings.key) {
        (Some(certificate), Some(key)) => read(certificate, key)?,
        _ => make(settings)?,
    };
    Ok(Tls::new(chain, key)?)
}

/// What the contract's listener shows and whom it believes; `None` when there is none.
pub(crate) fn contract(settings: &ContractSettings) -> anyhow::Result<Option<Arc<ServerConfig>>> {
    let (Some(certificate), Some(key), Some(trust)) = (&settings.certificate, &settings.key, &settings.trust)
    else {
        return Ok(None);
    };
    let (chain, key) = read(certificate, key)?;
    let mut roots = RootCertStore::empty();
    for authority in chain_of(trust)? {
        roots.add(authority).with_context(|| trust.display().to_string())?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let trusted = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .with_context(|| trust.display().to_string())?;
    // Both ends are ours: nothing older is needed.
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(trusted)
        .with_single_cert(chain, key)?;
    // Who calls again shows his certificate again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Some(Arc::new(config)))
}

/// Whom DTLS handshakes show (RFC 5764).
pub(crate) fn dtls(settings: &RtpSettings, longest_ms: u64) -> anyhow::Result<dtls::Identity> {
    let longest = Duration::from_millis(longest_ms);
    let (Some(certificate), Some(key)) = (&settings.certificate, &settings.key) else {
        return Ok(dtls::Identity::make(longest)?);
    };
    let (chain, secret) = read(certificate, key)?;
    let first = chain.first().context("no certificate")?;
    let identity = dtls::Identity::new(first, secret.secret_der().to_vec(), longest);
    identity.with_context(|| key.display().to_string())
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn read(certificate: &Path, key: &Path) -> anyhow::Result<Pair> {
    let chain = chain_of(certificate)?;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| key.display().to_string())?;
    Ok((chain, key))
}

fn chain_of(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .with_context(|| file.display().to_string())?;
    anyhow::ensure!(!chain.is_empty(), "{}: no certificate in it", file.display());
    Ok(chain)
}

fn make(settings: &MsrpSettings) -> anyhow::Result<Pair> {
    let name = settings.advertised.clone().unwrap_or_else(|| settings.address.to_string());
    let made = rcgen::generate_simple_self_signed(vec![name])?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    Ok((vec![made.cert.der().clone()], key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_certificate_differs_each_time_and_a_configured_one_does_not() {
        let settings = MsrpSettings::default();
        let (first, second) = (tls(&settings).unwrap(), tls(&settings).unwrap());
        assert_ne!(first.fingerprint(), second.fingerprint());

        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["weir.example".into()]).unwrap();
        let (certificate, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let settings = MsrpSettings { certificate: Some(certificate), key: Some(key), ..settings };
        let ours = fingerprint::of(made.cert.der());
        assert_eq!(tls(&settings).unwrap().fingerprint(), ours);
    }

    #[test]
    fn a_missing_file_is_named() {
        let nowhere = Some("/nonexistent/chain.pem".into());
        let settings = MsrpSettings { certificate: nowhere.clone(), key: nowhere, ..MsrpSettings::default() };
        assert!(format!("{:#}", tls(&settings).unwrap_err()).contains("chain.pem"));
    }
}
