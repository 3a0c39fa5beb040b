//! TLS: the same messages under it, what is no TLS, and the key log.

use std::sync::Arc;

use fingerprint::Verifier;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::*;

fn plain(node: &Node) -> TcpStream {
    let stream = TcpStream::connect(node.sip(Transport::Tls)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn tls(node: &Node) -> StreamOwned<ClientConnection, TcpStream> {
    handshake(plain(node))
}

/// A client that believes any certificate.
pub(super) fn handshake(stream: TcpStream) -> StreamOwned<ClientConnection, TcpStream> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    // The node shows a certificate drawn for this run: whichever it is, it is believed.
    let anybody = Verifier::new(None, provider.signature_verification_algorithms);
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(anybody)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream)
}

#[test]
fn options_is_answered() {
    let node = node("");
    let mut stream = tls(&node);
    for n in 1..=3 {
        stream.write_all(options(n, "TLS").as_bytes()).unwrap();
        assert_eq!(code(&response(&mut stream)), 200);
    }
    node.reaches("weir_control_messages_received_total{transport=\"tls\"}", 3);
    node.reaches("weir_control_connections_open{transport=\"tls\"}", 1);
}

#[test]
fn what_is_no_tls_is_closed_and_counted() {
    let node = node("");
    let mut stream = plain(&node);
    stream.write_all(options(1, "TCP").as_bytes()).unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(!rest.starts_with(b"SIP/2.0"));
    node.reaches("weir_control_connections_closed_total{reason=\"tls\"}", 1);
}

#[test]
fn a_handshake_that_does_not_end_is_slow() {
    let node = node("[sip.limits]\nmessage_ms = 300\n");
    let mut stream = plain(&node);
    stream.write_all(&[0x16, 0x03, 0x01]).unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    node.reaches("weir_control_connections_closed_total{reason=\"slow\"}", 1);
}

#[test]
fn the_key_log_has_what_a_capture_needs() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("keys");
    let node = node(&format!("[sip.tls]\nkey_log = \"{}\"\n", log.display()));
    let mut stream = tls(&node);
    stream.write_all(options(1, "TLS").as_bytes()).unwrap();
    assert_eq!(code(&response(&mut stream)), 200);
    let text = std::fs::read_to_string(&log).unwrap();
    let labels: Vec<_> = text.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert!(labels.contains(&"CLIENT_TRAFFIC_SECRET_0"), "{labels:?}");
    for line in text.lines() {
        let fields: Vec<_> = line.split(' ').collect();
        assert_eq!((fields.len(), fields[1].len()), (3, 64), "{line}");
    }
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
}

/// A configured certificate is the one that is shown.
#[test]
fn a_configured_certificate_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let drawn = rcgen::generate_simple_self_signed(vec!["weir.example".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    std::fs::write(&certificate, drawn.cert.pem()).unwrap();
    std::fs::write(&key, drawn.signing_key.serialize_pem()).unwrap();
    let more =
        format!("[sip.tls]\ncertificate = \"{}\"\nkey = \"{}\"\n", certificate.display(), key.display());
    let node = node(&more);
    let mut stream = tls(&node);
    stream.write_all(options(1, "TLS").as_bytes()).unwrap();
    assert_eq!(code(&response(&mut stream)), 200);
    let shown = stream.conn.peer_certificates().unwrap();
    assert_eq!(shown[0].as_ref(), drawn.cert.der().as_ref());
}

/// One that is replaced is shown to who comes then; one that is no good is not, and nobody who is there notices.
#[test]
fn a_certificate_is_replaced_while_we_run() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    let draw = || rcgen::generate_simple_self_signed(vec!["weir.example".to_owned()]).unwrap();
    let (first, second) = (draw(), draw());
    std::fs::write(&certificate, first.cert.pem()).unwrap();
    std::fs::write(&key, first.signing_key.serialize_pem()).unwrap();
    let more =
        format!("[sip.tls]\ncertificate = \"{}\"\nkey = \"{}\"\n", certificate.display(), key.display());
    let node = node(&more);
    let shown = |stream: &StreamOwned<ClientConnection, TcpStream>| {
        stream.conn.peer_certificates().unwrap()[0].as_ref().to_vec()
    };
    let comes = |n| {
        let mut stream = tls(&node);
        stream.write_all(options(n, "TLS").as_bytes()).unwrap();
        assert_eq!(code(&response(&mut stream)), 200);
        stream
    };
    let mut old = comes(1);
    // The new certificate without its key.
    std::fs::write(&certificate, second.cert.pem()).unwrap();
    node.reaches("weir_control_certificates_reloaded_total{outcome=\"failed\"}", 1);
    assert_eq!(shown(&comes(2)), first.cert.der().as_ref());
    std::fs::write(&key, second.signing_key.serialize_pem()).unwrap();
    node.reaches("weir_control_certificates_reloaded_total{outcome=\"done\"}", 1);
    assert_eq!(shown(&comes(3)), second.cert.der().as_ref());
    old.write_all(options(4, "TLS").as_bytes()).unwrap();
    assert_eq!(code(&response(&mut old)), 200);
}
