//! Whom the MSRP listeners show themselves as: the configured certificate, or a self-signed one made at each start.

use std::path::Path;

use anyhow::Context as _;
use netio::Tls;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::MsrpSettings;

/// Reads or makes it.
pub(crate) fn tls(settings: &MsrpSettings) -> anyhow::Result<Tls> {
    let (chain, key) = match (&settings.certificate, &settings.key) {
        (Some(certificate), Some(key)) => read(certificate, key)?,
        _ => make(settings)?,
    };
    Ok(Tls::new(chain, key)?)
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn read(certificate: &Path, key: &Path) -> anyhow::Result<Pair> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .with_context(|| certificate.display().to_string())?;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| key.display().to_string())?;
    Ok((chain, key))
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
