//! Connections that we open: made once, used again, and said to be lost when they are.

use std::time::Duration;

use base::HashSeed;
use bytes::Bytes;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sip::Transport as Wire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);
const MESSAGE: &[u8] =
    b"OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
    To: <sip:c@d>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n";

struct Bench {
    edge: Edge,
    arrivals: Receiver<Arrival>,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

fn bench(change: impl FnOnce(&mut Settings)) -> Bench {
    let listener =
        Listener { transport: Transport::Udp, address: "127.0.0.1:0".parse().unwrap(), advertised: None };
    let mut settings = Settings { listeners: vec![listener], ..Settings::default() };
    change(&mut settings);
    let (front, arrivals) = mpsc::channel(64);
    let (metrics, shutdown) = (Arc::new(Metrics::new().unwrap()), Shutdown::new());
    let parts = Parts {
        framing: settings.stack.clone(),
        front,
        metrics: metrics.clone(),
        trace: crate::trace::Bus::idle(metrics.clone()),
        shutdown: shutdown.clone(),
        clock: Clock::start(),
        seed: HashSeed(1),
        settings,
    };
    let edge = Bound::bind(&parts.settings).unwrap().start(parts).unwrap();
    Bench { edge, arrivals, metrics, shutdown }
}

impl Bench {
    async fn arrival(&mut self) -> Arrival {
        timeout(PATIENCE, self.arrivals.recv()).await.unwrap().unwrap()
    }

    fn closed(&self, why: Close) -> u64 {
        let text = self.metrics.text();
        let name = format!(
            "weir_control_connections_closed_total{{reason=\"{}\"}} ",
            crate::metrics::Label::label(why)
        );
        text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
    }
}

async fn read(stream: &mut (impl tokio::io::AsyncRead + Unpin), octets: usize) -> Vec<u8> {
    let mut read = vec![0; octets];
    timeout(PATIENCE, stream.read_exact(&mut read)).await.unwrap().unwrap();
    read
}

async fn listen() -> (TcpListener, Peer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = Peer::new(Wire::Tcp, listener.local_addr().unwrap());
    (listener, peer)
}

async fn accept(listener: &TcpListener) -> TcpStream {
    timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().0
}

#[tokio::test]
async fn a_connection_is_opened_once_and_used_both_ways() {
    let mut bench = bench(|_| {});
    let (listener, peer) = listen().await;
    for octets in [&b"one"[..], b"two"] {
        bench.edge.send(peer, Bytes::from_static(octets)).unwrap();
    }
    let mut far = accept(&listener).await;
    assert_eq!(read(&mut far, 6).await, b"onetwo");
    far.write_all(MESSAGE).await.unwrap();
    let Arrival::Message { peer: from, message: sip::Message::Request(_), .. } = bench.arrival().await else {
        panic!("no message")
    };
    assert_eq!(from, peer);
    bench.edge.send(peer, Bytes::from_static(b"three")).unwrap();
    assert_eq!(read(&mut far, 5).await, b"three");
    assert_eq!(bench.edge.connections(), 1);
}

/// Whoever is gone is said to be; the next message opens a new connection.
#[tokio::test]
async fn a_lost_connection_is_told_and_opened_again() {
    let mut bench = bench(|_| {});
    let (listener, peer) = listen().await;
    for round in 0..2 {
        bench.edge.send(peer, Bytes::from_static(b"x")).unwrap();
        let mut far = accept(&listener).await;
        read(&mut far, 1).await;
        drop(far);
        let Arrival::Failed { peer: lost, .. } = bench.arrival().await else { panic!("not lost") };
        assert_eq!((lost, bench.edge.connections()), (peer, 0), "round {round}");
    }
    assert_eq!(bench.closed(Close::Peer), 2);
}

#[tokio::test]
async fn a_peer_that_does_not_listen_is_told() {
    let mut bench = bench(|_| {});
    let (listener, peer) = listen().await;
    drop(listener);
    bench.edge.send(peer, Bytes::from_static(b"x")).unwrap();
    let Arrival::Failed { peer: lost, .. } = bench.arrival().await else { panic!("not lost") };
    assert_eq!(lost, peer);
    assert_eq!(bench.closed(Close::Unreachable), 1);
}

/// All connections together may hold so much; a part of a message that needs more ends its connection.
#[tokio::test]
async fn what_connections_hold_is_bounded_in_sum() {
    let mut bench = bench(|settings| settings.limits.buffered_max = 10_000);
    let (listener, peer) = listen().await;
    bench.edge.send(peer, Bytes::from_static(b"x")).unwrap();
    let mut far = accept(&listener).await;
    read(&mut far, 1).await;
    let head = String::from_utf8(MESSAGE.to_vec()).unwrap().replace("Length: 0", "Length: 100000");
    far.write_all(head.as_bytes()).await.unwrap();
    let _ = far.write_all(&[b'x'; 20_000]).await;
    let Arrival::Failed { .. } = bench.arrival().await else { panic!("not closed") };
    assert_eq!(bench.closed(Close::Limit), 1);
    // What it held is free again.
    bench.edge.send(peer, Bytes::from(vec![b'y'; 9_000])).unwrap();
    let mut far = accept(&listener).await;
    assert_eq!(read(&mut far, 9_000).await, vec![b'y'; 9_000]);
    assert_eq!(bench.edge.send(peer, Bytes::from(vec![b'y'; 20_000])), Err(Unsendable));
}

struct Identity {
    folder: tempfile::TempDir,
    acceptor: tokio_rustls::TlsAcceptor,
}

/// A server with a certificate for 127.0.0.1; its certificate is in the folder.
fn identity() -> Identity {
    let folder = tempfile::tempdir().unwrap();
    let drawn = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    std::fs::write(&certificate, drawn.cert.pem()).unwrap();
    std::fs::write(&key, drawn.signing_key.serialize_pem()).unwrap();
    assert!(
        CertificateDer::from_pem_file(&certificate).is_ok() && PrivateKeyDer::from_pem_file(&key).is_ok()
    );
    let tls = Tls { certificate: Some(certificate), key: Some(key), ..Tls::default() };
    Identity {
        folder,
        acceptor: super::tls::acceptor(&tls, None, super::tls::Shown::new(&tls).unwrap()).unwrap(),
    }
}

#[tokio::test]
async fn tls_is_opened_to_whom_we_trust_only() {
    let (known, stranger) = (identity(), identity());
    let trust = known.folder.path().join("c.pem");
    let mut bench = bench(|settings| settings.tls.trust = Some(trust));
    let (listener, peer) = listen().await;
    let peer = Peer::new(Wire::Tls, peer.addr);

    bench.edge.send(peer, Bytes::from_static(b"secret")).unwrap();
    let far = accept(&listener).await;
    let mut far = timeout(PATIENCE, known.acceptor.accept(far)).await.unwrap().unwrap();
    assert_eq!(read(&mut far, 6).await, b"secret");
    drop(far);
    let Arrival::Failed { .. } = bench.arrival().await else { panic!("not closed") };

    bench.edge.send(peer, Bytes::from_static(b"secret")).unwrap();
    let far = accept(&listener).await;
    assert!(timeout(PATIENCE, stranger.acceptor.accept(far)).await.unwrap().is_err());
    let Arrival::Failed { .. } = bench.arrival().await else { panic!("not closed") };
    assert_eq!(bench.closed(Close::Tls), 1);
}

#[tokio::test]
async fn without_trust_no_tls_connection_is_opened() {
    let bench = bench(|_| {});
    let (_listener, peer) = listen().await;
    let refused = bench.edge.send(Peer::new(Wire::Tls, peer.addr), Bytes::from_static(b"x"));
    assert_eq!(refused, Err(Unsendable));
}
