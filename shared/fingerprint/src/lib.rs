#![forbid(unsafe_code)]
//! TLS peers that are known by the fingerprint of their certificate (RFC 8122 §5, RFC 4975 §14.4): the fingerprint,
//! and the verifier that stands where chains of authorities are not asked.
//!
//! Deliberately not here: files, keys and configurations, which are their users' own.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use sha2::{Digest, Sha256};

/// SHA-256 over a certificate's DER form.
pub type Fingerprint = [u8; 32];

/// The fingerprint of a certificate (RFC 8122 §5).
pub fn of(certificate: &CertificateDer<'_>) -> Fingerprint {
    Sha256::digest(certificate).into()
}

/// Believes who shows one certificate, or whoever shows any. That the peer holds the certificate's key is proved
/// by the handshake's signature all the same.
#[derive(Clone, Debug)]
pub struct Verifier {
    expected: Option<Fingerprint>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// The peer must show the certificate with this fingerprint. `None`: a client may show none, and whoever shows
    /// one is believed; its fingerprint is for the caller to compare.
    pub fn new(expected: Option<Fingerprint>, algorithms: WebPkiSupportedAlgorithms) -> Arc<Self> {
        Arc::new(Verifier { expected, algorithms })
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        match self.expected {
            // RFC 8122 §6.2: a certificate that does not match is refused.
            Some(expected) if expected != of(certificate) => {
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
            _ => Ok(()),
        }
    }
}

/// rustls asks the same of both sides in two traits.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, certificate, signed, &self.algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, certificate, signed, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(certificate).map(|()| ServerCertVerified::assertion())
    }

    signatures!();
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.expected.is_some()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(certificate).map(|()| ClientCertVerified::assertion())
    }

    signatures!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

    struct Side {
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    }

    fn side() -> Side {
        let made = rcgen::generate_simple_self_signed(vec!["peer.example".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        Side { certificate: made.cert.der().clone(), key }
    }

    /// A handshake in memory; what each side expects of the other.
    fn handshake(
        client: &Side,
        server: &Side,
        of_client: Option<Fingerprint>,
        of_server: Option<Fingerprint>,
    ) -> Result<(), Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let asks = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Verifier::new(of_client, algorithms))
            .with_single_cert(vec![server.certificate.clone()], server.key.clone_key())?;
        let dials = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Verifier::new(of_server, algorithms))
            .with_client_auth_cert(vec![client.certificate.clone()], client.key.clone_key())?;
        // The name says nothing: the certificate does.
        let name = ServerName::try_from("another.example").unwrap();
        let mut dials = ClientConnection::new(Arc::new(dials), name)?;
        let mut asks = ServerConnection::new(Arc::new(asks))?;
        while dials.is_handshaking() || asks.is_handshaking() {
            let mut wire = Vec::new();
            dials.write_tls(&mut wire).unwrap();
            asks.read_tls(&mut wire.as_slice()).unwrap();
            asks.process_new_packets()?;
            let mut wire = Vec::new();
            asks.write_tls(&mut wire).unwrap();
            dials.read_tls(&mut wire.as_slice()).unwrap();
            dials.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn rfc8122_s6_2_only_the_certificate_that_was_told_is_believed() {
        let (alice, bob, eve) = (side(), side(), side());
        let print = |side: &Side| Some(of(&side.certificate));
        assert_eq!(handshake(&alice, &bob, print(&alice), print(&bob)), Ok(()));
        let refused = Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
        assert_eq!(handshake(&eve, &bob, print(&alice), print(&bob)), refused);
        assert_eq!(handshake(&alice, &eve, print(&alice), print(&bob)), refused);
        assert_eq!(handshake(&eve, &bob, None, None), Ok(()));
    }

    /// Without a key of its own a certificate that was copied is worth nothing.
    #[test]
    fn who_does_not_hold_the_key_is_refused() {
        let (alice, bob) = (side(), side());
        let thief = Side { certificate: bob.certificate.clone(), key: side().key };
        let wanted = Some(of(&bob.certificate));
        assert!(handshake(&alice, &thief, None, wanted).is_err());
    }
}
