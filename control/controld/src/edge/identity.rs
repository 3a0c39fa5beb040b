//! For which SIP domains a certificate is (RFC 5922 §7.1, §7.2), and the checks of a peer's certificate that follow.
//!
//! Not what HTTP does: wildcards match nothing, a `sip:` URI among the alternative names goes before the DNS names, and
//! the common name counts only where there are no alternative names.

use std::sync::Arc;

use anyhow::Context;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use super::settings::Tls;

/// The SIP domains of a certificate, and the addresses that stand in it.
pub(super) fn domains(certificate: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = parse_x509_certificate(certificate) else { return Vec::new() };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        let names = certificate.subject().iter_common_name();
        return names.filter_map(|name| name.as_str().ok()).map(str::to_owned).collect();
    };
    let names = &names.value.general_names;
    // RFC 5922 §7.1: URIs of users say nothing about the domain.
    let uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => uri.parse::<sip::Uri>().ok(),
        _ => None,
    });
    let uris: Vec<_> = uris.filter(|uri| uri.is_sip() && uri.user.is_none()).collect();
    if !uris.is_empty() {
        return uris.iter().map(|uri| uri.host.to_string()).collect();
    }
    let rest = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(octets) => match **octets {
            [a, b, c, d] => Some(std::net::Ipv4Addr::new(a, b, c, d).to_string()),
            _ => {
                <[u8; 16]>::try_from(*octets).ok().map(|octets| std::net::Ipv6Addr::from(octets).to_string())
            }
        },
        _ => None,
    });
    rest.collect()
}

/// True when the certificate is for that domain or address (RFC 5922 §7.2: whole names, without regard to case).
pub(super) fn is_for(certificate: &[u8], host: &str) -> bool {
    let bare = |name: &str| name.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
    let host = bare(host);
    domains(certificate).iter().any(|domain| bare(domain) == host)
}

/// Believes a server whose certificate chains to a configured authority and is for the name that was looked for.
#[derive(Debug)]
pub(super) struct ServerIdentity {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerIdentity {
    pub(super) fn new(roots: RootCertStore, algorithms: WebPkiSupportedAlgorithms) -> Arc<Self> {
        Arc::new(ServerIdentity { roots: Arc::new(roots), algorithms })
    }
}

impl ServerCertVerifier for ServerIdentity {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        match is_for(end_entity, &server_name.to_str()) {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(Error::InvalidCertificate(CertificateError::NotValidForName)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A configured peer.
#[derive(Debug)]
struct Known {
    names: Vec<String>,
    chain: Arc<dyn ClientCertVerifier>,
    trusted: bool,
}

/// The peers that are known by their certificates: each by an authority and names of its own, so that no authority speaks
/// for the peers of another one (RFC 5922 §7.4).
#[derive(Debug)]
pub(super) struct Peers {
    each: Vec<Known>,
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Peers {
    /// None where none is configured.
    pub(super) fn open(settings: &Tls) -> anyhow::Result<Option<Arc<Peers>>> {
        if settings.peers.is_empty() {
            return Ok(None);
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let (mut each, mut hints) = (Vec::new(), Vec::new());
        for peer in &settings.peers {
            let mut roots = RootCertStore::empty();
            for certificate in super::tls::certificates(&peer.trust)? {
                let place = || format!("sip.tls.peers: {}", peer.trust.display());
                roots.add(certificate).with_context(place)?;
            }
            hints.extend(roots.subjects());
            let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .context("sip.tls.peers")?;
            each.push(Known { names: peer.names.clone(), chain, trusted: peer.trusted });
        }
        Ok(Some(Arc::new(Peers { each, hints, algorithms })))
    }

    fn known(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<&Known, Error> {
        let mut why = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        for known in &self.each {
            match known.chain.verify_client_cert(end_entity, intermediates, now) {
                Ok(_) if known.names.iter().any(|name| is_for(end_entity, name)) => return Ok(known),
                Ok(_) => why = Error::InvalidCertificate(CertificateError::NotValidForName),
                Err(_) => {}
            }
        }
        Err(why)
    }

    /// True for the chain of a peer whose word is believed.
    pub(super) fn trusts(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some((end_entity, intermediates)) = chain.split_first() else { return false };
        self.known(end_entity, intermediates, UnixTime::now()).is_ok_and(|known| known.trusted)
    }
}

impl ClientCertVerifier for Peers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    /// Phones have none.
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.known(end_entity, intermediates, now).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(names: &[SanType], common: &str) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.subject_alt_names = names.to_vec();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().unwrap())
    }

    fn uri(uri: &str) -> SanType {
        SanType::URI(uri.try_into().unwrap())
    }

    // RFC 5922 §7.1, §7.2.
    #[test]
    fn a_certificate_is_for_its_sip_domains() {
        let of = |names: &[SanType], common| domains(&certificate(names, common));
        assert_eq!(of(&[], "example.com"), ["example.com"]);
        assert_eq!(of(&[dns("a.example")], "example.com"), ["a.example"], "no common name beside others");
        assert_eq!(of(&[dns("a.example"), uri("sip:b.example")], "x"), ["b.example"], "sip URIs first");
        let others = [dns("a.example"), uri("sip:ann@b.example"), uri("https://c.example")];
        assert_eq!(of(&others, "x"), ["a.example"]);
        let address = SanType::IpAddress("192.0.2.1".parse().unwrap());
        assert_eq!(of(&[address, dns("a.example")], "x"), ["192.0.2.1", "a.example"]);
        assert!(domains(b"no certificate").is_empty());
    }

    #[test]
    fn names_are_compared_whole_and_wildcards_match_nothing() {
        let shown = certificate(&[dns("*.example.com"), dns("Proxy.Example.NET")], "x");
        assert!(is_for(&shown, "proxy.example.net") && is_for(&shown, "proxy.example.net."));
        for other in ["a.example.com", "example.com", "example.net", "x.proxy.example.net", ""] {
            assert!(!is_for(&shown, other), "{other}");
        }
        let six = certificate(&[SanType::IpAddress("2001:db8::1".parse().unwrap())], "x");
        assert!(is_for(&six, "[2001:db8::1]"));
    }
}
