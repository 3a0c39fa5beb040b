//! Peers that prove by a certificate who they are (RFC 5922 §7.4): believed whatever their address, and reached on the
//! connection that they opened (RFC 5923).

use std::sync::Arc;

use fingerprint::Verifier;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::names::{Authority, Server, message};
use super::*;

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A node that knows the core by its certificate and believes no address.
fn knows(core: &Authority, folder: &std::path::Path, next: &str, trusted: bool) -> Node {
    let trust = folder.join("core.pem");
    std::fs::write(&trust, core.certificate.pem()).unwrap();
    node(&format!(
        "[[sip.tls.peers]]\nnames = [\"core.example\"]\ntrust = \"{}\"\ntrusted = {trusted}\n\
         [[service.away]]\ndomains = [\"partner.example\"]\nnext = \"{next}\"\n",
        trust.display()
    ))
}

fn connect(node: &Node, own: Option<(&Authority, &str)>) -> Stream {
    let stream = TcpStream::connect(node.sip(Transport::Tls)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let anybody = Verifier::new(None, provider.signature_verification_algorithms);
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(anybody);
    let config = match own {
        Some((authority, name)) => {
            let (certificate, key) = authority.draw(name);
            config.with_client_auth_cert(vec![certificate], key).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream)
}

/// The final answer to a MESSAGE in the name of a user of ours, of whom the sender has no password.
fn asserts(stream: &mut Stream, n: u32) -> u16 {
    stream.write_all(message(n).replace("SIP/2.0/UDP", "SIP/2.0/TLS").as_bytes()).unwrap();
    loop {
        let code = code(&response(stream));
        if code >= 200 {
            return code;
        }
    }
}

#[test]
fn a_peer_is_believed_by_its_certificate() {
    let (core, folder, partner) = (Authority::new(), tempfile::tempdir().unwrap(), Server::udp("200 OK"));
    let next = format!("sip:127.0.0.1:{}", partner.port);
    let node = knows(&core, folder.path(), &next, true);
    assert_eq!(asserts(&mut connect(&node, Some((&core, "core.example"))), 1), 200);
    // The same address without it.
    assert_eq!(asserts(&mut connect(&node, None), 2), 407);
    assert_eq!(asserts(&mut connect(&node, Some((&core, "CORE.example"))), 3), 200);
}

#[test]
fn a_certificate_of_somebody_else_opens_nothing() {
    let (core, other) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let node = knows(&core, folder.path(), "sip:127.0.0.1:9", true);
    let pretenders = [(&core, "phone.example"), (&other, "core.example"), (&core, "*.example")];
    for (pretender, n) in pretenders.into_iter().zip(1..) {
        let mut stream = connect(&node, Some(pretender));
        // The handshake ends for a TLS 1.3 client before the server has looked.
        let _ = stream.write_all(options(n, "TLS").as_bytes());
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty());
        node.reaches("weir_control_connections_closed_total{reason=\"tls\"}", u64::from(n));
    }
}

#[test]
fn a_peer_may_be_known_and_not_believed() {
    let (core, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let node = knows(&core, folder.path(), "sip:127.0.0.1:9", false);
    assert_eq!(asserts(&mut connect(&node, Some((&core, "core.example"))), 1), 407);
}

/// RFC 5923 §5: with `alias` in its Via, what goes to the peer's listening port comes on the connection that it opened.
#[test]
fn a_connection_is_used_in_both_directions() {
    let (core, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let node = knows(&core, folder.path(), "sip:127.0.0.1:6999;transport=tls", true);
    let mut stream = connect(&node, Some((&core, "core.example")));
    let alias = |text: String| text.replace("127.0.0.1:9;", "127.0.0.1:6999;alias;");
    stream.write_all(alias(options(1, "TLS")).as_bytes()).unwrap();
    assert_eq!(code(&response(&mut stream)), 200);
    stream.write_all(message(2).replace("SIP/2.0/UDP", "SIP/2.0/TLS").as_bytes()).unwrap();
    let request = loop {
        let text = response(&mut stream);
        if !text.starts_with("SIP/2.0 1") {
            break text;
        }
    };
    assert!(request.starts_with("MESSAGE sip:bob@partner.example SIP/2.0\r\nVia: SIP/2.0/TLS "), "{request}");
    node.reaches("weir_control_connections_opened_total{transport=\"tls\"}", 1);
    // A stranger gains nothing by the word.
    let node = knows(&core, folder.path(), "sip:127.0.0.1:6999;transport=tls", true);
    let mut stranger = connect(&node, None);
    stranger.write_all(alias(options(1, "TLS")).as_bytes()).unwrap();
    assert_eq!(code(&response(&mut stranger)), 200);
    let mut stream = connect(&node, Some((&core, "core.example")));
    let code = asserts(&mut stream, 2);
    assert!(code >= 400, "{code}");
}
