//! Control and data plane as if on two hosts: the contract over TCP with mutual TLS (DESIGN §3). Who has no certificate
//! of theirs hears nothing, who comes with an old epoch is refused, and each is counted.
#![expect(clippy::unwrap_used, reason = "helpers of a test fail the test")]

mod node;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use contract::from_dataplane::Body;
use contract::refusal::Reason;
use contract::{FromDataplane, Hello, ToDataplane, decode_frame, encode_frame, to_dataplane};
use node::{Node, PATIENCE};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use ue::audio::voice;
use ue::{Call, Event, Transport};

const PORT: u16 = 2860;

/// An authority and what it signed, as files.
struct Authority {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), own.pem()).unwrap();
        Authority { folder, issuer: Issuer::new(params, key) }
    }

    fn trust(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate for a name or address, and its key.
    fn signed(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let [file, key_file] = ["pem", "key"].map(|kind| self.folder.path().join(format!("{name}.{kind}")));
        std::fs::write(&file, certificate.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        (file, key_file)
    }
}

fn text(path: &Path) -> toml::Value {
    toml::Value::String(path.display().to_string())
}

/// Both processes with the contract over TLS: the data plane shows a certificate of `theirs` and believes `ours`, and
/// the other way round.
fn over_tls(config: &mut toml::Table, ours: &Authority, theirs: &Authority, trusted: &Authority) {
    let ip = config["dataplane"]["msrp"]["address"].as_str().unwrap().to_owned();
    let address = toml::Value::String(format!("{ip}:{PORT}"));
    let mut contract = toml::Table::new();
    let (certificate, key) = theirs.signed(&ip);
    contract.insert("address".to_owned(), address.clone());
    contract.insert("certificate".to_owned(), text(&certificate));
    contract.insert("key".to_owned(), text(&key));
    contract.insert("trust".to_owned(), text(&ours.trust()));
    config["dataplane"].as_table_mut().unwrap().insert("contract".to_owned(), contract.into());
    let control = config["control"]["dataplane"].as_table_mut().unwrap();
    let (certificate, key) = ours.signed("control.weir.example");
    // The Unix socket is not there for it.
    control.insert("socket".to_owned(), toml::Value::String("/nonexistent/dataplane.sock".to_owned()));
    control.insert("address".to_owned(), address);
    control.insert("certificate".to_owned(), text(&certificate));
    control.insert("key".to_owned(), text(&key));
    control.insert("trust".to_owned(), text(&trusted.trust()));
}

fn contract_address(node: &Node) -> SocketAddr {
    node.config()["dataplane"]["contract"]["address"].as_str().unwrap().parse().unwrap()
}

/// A caller of the contract's listener.
struct Caller(StreamOwned<ClientConnection, TcpStream>);

impl Caller {
    /// Believes `trusted`; shows this certificate, if any.
    fn new(address: SocketAddr, trusted: &Authority, shown: Option<&(PathBuf, PathBuf)>) -> Caller {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(trusted.trust()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match shown {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
                config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
            }
        };
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = IpAddr::into(address.ip());
        Caller(StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream))
    }

    /// Says Hello; the first word that comes back, `None` when the connection is closed instead.
    fn greet(&mut self, epoch: u64) -> Option<Body> {
        let mut frame = BytesMut::new();
        let owner = "another".to_owned();
        let hello = Hello { version_min: 1, version_max: contract::VERSION, epoch, owner };
        encode_frame(&ToDataplane { body: Some(to_dataplane::Body::Hello(hello)) }, &mut frame);
        // Whoever is not believed may hear of it while he speaks.
        let _ = self.0.write_all(&frame);
        let (mut read, mut piece) = (BytesMut::new(), [0; 4096]);
        loop {
            if let Some(frame) = decode_frame::<FromDataplane>(&mut read).unwrap() {
                return frame.body;
            }
            match self.0.read(&mut piece) {
                Ok(0) | Err(_) => return None,
                Ok(n) => read.extend_from_slice(&piece[..n]),
            }
        }
    }
}

/// Waits until the endpoints show a sample.
fn shows(node: &Node, sample: &str) {
    let began = Instant::now();
    loop {
        let text = node.metrics();
        if text.lines().any(|line| line == sample) {
            return;
        }
        let family = sample.split(['{', ' ']).next().unwrap();
        let near: Vec<&str> = text.lines().filter(|line| line.starts_with(family)).collect();
        assert!(began.elapsed() < PATIENCE, "{sample} does not come: {near:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_held_over_mutual_tls_and_nobody_else_commands_the_data_plane() {
    let (ours, foreign) = (Authority::new(), Authority::new());
    let node =
        tokio::task::block_in_place(|| Node::start("mio", |config| over_tls(config, &ours, &ours, &ours)));
    shows(&node, "weir_control_dataplane_link_up 1");
    let ann = node.device("ann", Transport::Tcp, |_| {}).await;
    let bob = node.device("bob", Transport::Tcp, |_| {}).await;
    let mark = bob.log().mark();
    let own = ann.invite(Call::chat(bob.address()).with_audio()).await.unwrap();
    let up = |e: &Event| if let Event::Up { session } = e { Some(*session) } else { None };
    let theirs = bob.log().wait(mark, PATIENCE, up).await.unwrap();
    ann.play(own, Arc::new(voice(1, 60.0)), 1).await.unwrap();
    let letter = |e: &Event| if let Event::Letter(l) = e { Some(l.text()) } else { None };
    ann.chat(own).await.unwrap().send(&ue::Draft::text("over there")).await.unwrap();
    assert_eq!(bob.log().wait(mark, PATIENCE, letter).await.as_deref(), Some("over there"));

    let address = contract_address(&node);
    tokio::task::block_in_place(|| {
        // Who shows nothing, and who shows what nobody here signed, hears no word.
        assert_eq!(Caller::new(address, &ours, None).greet(u64::MAX), None);
        let stranger = foreign.signed("control.weir.example");
        assert_eq!(Caller::new(address, &ours, Some(&stranger)).greet(u64::MAX), None);
        shows(&node, "weir_dataplane_links_ended_total{reason=\"stranger\"} 2");
        // Who speaks no TLS, either.
        let mut plain = TcpStream::connect(address).unwrap();
        plain.write_all(b"\x05what?").unwrap();
        let _ = plain.read_to_end(&mut Vec::new());
        shows(&node, "weir_dataplane_links_ended_total{reason=\"tls\"} 1");
        // A control that lost its lease is believed to be one, and refused.
        let known = ours.signed("old-control.weir.example");
        let refused = Caller::new(address, &ours, Some(&known)).greet(0);
        assert!(matches!(refused, Some(Body::Refusal(r)) if r.reason() == Reason::Epoch));
        shows(&node, "weir_dataplane_batches_total{answer=\"refused_epoch\"} 1");
        shows(&node, "weir_dataplane_links_ended_total{reason=\"refused\"} 1");
        assert!(node.is_linked(), "the owner is who it was");
    });
    let before = bob.audio_stats(theirs).await.unwrap().heard();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let stats = bob.audio_stats(theirs).await.unwrap();
    assert!(stats.heard() >= before + 40 && stats.lost() == 0, "{stats:?}");
    ann.hang_up(own, 200).await.unwrap();
    let ended = |e: &Event| matches!(e, Event::Ended { .. }).then_some(());
    assert!(bob.log().wait(mark, PATIENCE, ended).await.is_some());
    shows(&node, "weir_dataplane_contexts 0");
    // A later owner takes over: this control is the one of long ago then, and is refused when it comes back.
    tokio::task::block_in_place(|| {
        let next = ours.signed("next-control.weir.example");
        let mut next = Caller::new(address, &ours, Some(&next));
        assert!(matches!(next.greet(u64::MAX), Some(Body::Welcome(_))));
        shows(&node, "weir_dataplane_links_ended_total{reason=\"replaced\"} 1");
        node.wait("control is refused", || !node.is_linked());
    });
}

#[test]
fn control_does_not_program_a_data_plane_of_somebody_else() {
    let (ours, foreign) = (Authority::new(), Authority::new());
    // The data plane is real and would believe us; control believes only the other authority.
    let node = Node::launch("mio", |config| over_tls(config, &ours, &ours, &foreign));
    node.wait("both answer", || node.status().is_some_and(|s| s["dataplane"]["linked"] == false));
    let tls = || {
        let text = node.metrics();
        let ended = |l: &&str| l.starts_with("weir_dataplane_links_ended_total{reason=\"tls\"}");
        text.lines().find(ended).is_some_and(|line| !line.ends_with(" 0"))
    };
    node.wait("control turns away", tls);
    assert!(!node.is_linked());
    shows(&node, "weir_control_dataplane_links_total 0");
}
