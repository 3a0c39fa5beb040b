//! Next hops with names (RFC 3263): what the DNS says is obeyed, what it does not say or lies about holds nobody up, and a
//! server that fails is followed by the next.

use std::io::BufReader;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::dns::{self, Dns, Said, home, naptr, srv};
use super::*;

/// A node whose way to `partner.example` is a name.
fn to_partner(dns: &Dns, next: &str, more: &str) -> Node {
    node(&format!(
        "[dns]\nservers = [\"{}\"]\n{more}\n[service.identity]\ntrusted_peers = [\"127.0.0.1\"]\n\
         [[service.away]]\ndomains = [\"partner.example\"]\nnext = \"{next}\"\n",
        dns.address
    ))
}

/// A MESSAGE of a user of ours to one of theirs, from the core before us.
pub(super) fn message(n: u32) -> String {
    format!(
        "MESSAGE sip:bob@partner.example SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bKm{n};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:alice@weir.example>;tag=a{n}\r\nTo: <sip:bob@partner.example>\r\n\
         P-Asserted-Identity: <sip:alice@weir.example>\r\n\
         P-Served-User: <sip:alice@weir.example>;sescase=orig\r\nP-Charging-Vector: icid-value=1\r\nCall-ID: m{n}\r\nCSeq: {n} MESSAGE\r\n\
         Content-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi"
    )
}

/// The final answer to one MESSAGE; the client retransmits nothing, so nothing is lost on loopback.
fn sends(node: &Node, n: u32) -> u16 {
    let client = node.udp();
    client.send(message(n).as_bytes()).unwrap();
    loop {
        let code = code(&datagram(&client));
        if code >= 200 {
            return code;
        }
    }
}

/// The answer to a request, by its own headers.
fn answer(request: &str, status: &str) -> String {
    let head = request.split("\r\n\r\n").next().unwrap();
    let kept = head.lines().filter(|line| {
        ["Via:", "From:", "To:", "Call-ID:", "CSeq:"].iter().any(|name| line.starts_with(name))
    });
    let kept: String = kept.map(|line| format!("{line}\r\n")).collect();
    format!("SIP/2.0 {status}\r\n{kept}Content-Length: 0\r\n\r\n")
}

/// A server of the partner: answers all that comes with one status, and shows each request.
pub(super) struct Server {
    pub(super) port: u16,
    requests: mpsc::Receiver<String>,
}

impl Server {
    pub(super) fn udp(status: &'static str) -> Server {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let (send, requests) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok((octets, from)) = socket.recv_from(&mut buffer) {
                let request = String::from_utf8_lossy(&buffer[..octets]).into_owned();
                let _ = socket.send_to(answer(&request, status).as_bytes(), from);
                let _ = send.send(request);
            }
        });
        Server { port, requests }
    }

    fn tcp(status: &'static str) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (send, requests) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serve(stream, status, &send);
            }
        });
        Server { port, requests }
    }

    /// The same under TLS.
    fn tls(status: &'static str, config: ServerConfig) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (send, requests) = mpsc::channel();
        let config = Arc::new(config);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let connection = ServerConnection::new(config.clone()).unwrap();
                serve(StreamOwned::new(connection, stream), status, &send);
            }
        });
        Server { port, requests }
    }

    fn request(&self) -> String {
        self.requests.recv_timeout(PATIENCE).unwrap()
    }
}

/// Until the stream ends.
fn serve(stream: impl Read + Write, status: &str, seen: &mpsc::Sender<String>) {
    use std::io::BufRead;
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length:")).unwrap_or("0");
        let mut body = vec![0; length.trim().parse().unwrap()];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let _ = reader.get_mut().write_all(answer(&head, status).as_bytes());
        let _ = reader.get_mut().flush();
        let _ = seen.send(head);
    }
}

/// A port on which nobody listens, and nobody else can while this is held.
fn closed_port() -> (u16, socket2::Socket) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    (socket.local_addr().unwrap().as_socket().unwrap().port(), socket)
}

// RFC 3263 §4.1: NAPTR says the transport, SRV the server, A its address.
#[test]
fn a_name_is_located() {
    let server = Server::tcp("200 OK");
    let dns = Dns::zone(vec![
        ("gate.partner.example", dns::NAPTR, naptr(20, "SIP+D2U", "_sip._udp.gate.partner.example")),
        ("gate.partner.example", dns::NAPTR, naptr(10, "SIP+D2T", "_sip._tcp.gate.partner.example")),
        ("_sip._tcp.gate.partner.example", dns::SRV, srv(0, 0, server.port, "one.partner.example")),
        ("one.partner.example", dns::A, home()),
    ]);
    let node = to_partner(&dns, "sip:gate.partner.example", "");
    assert_eq!(sends(&node, 1), 200);
    let request = server.request();
    assert!(request.starts_with("MESSAGE sip:bob@partner.example SIP/2.0\r\nVia: SIP/2.0/TCP "), "{request}");
    assert!(request.contains("\r\nRoute: <sip:gate.partner.example;lr>\r\n"), "{request}");
    // What networks tell each other is not for one that is not trusted (RFC 3325 §5).
    assert!(!request.contains("P-Charging-Vector"), "{request}");
    // What was said is remembered.
    assert_eq!(sends(&node, 2), 200);
    assert_eq!(dns.asked("gate.partner.example", dns::NAPTR), 1);
    node.reaches("weir_control_names_located_total{outcome=\"found\"}", 2);
}

// RFC 3263 §4.2: a port that is written needs no SRV.
#[test]
fn a_port_that_is_written_is_taken() {
    let server = Server::udp("200 OK");
    let dns = Dns::zone(vec![("gate.partner.example", dns::A, home())]);
    let node = to_partner(&dns, &format!("sip:gate.partner.example:{}", server.port), "");
    assert_eq!(sends(&node, 1), 200);
    server.request();
    assert_eq!(dns.asked("_sip._udp.gate.partner.example", dns::SRV), 0);
}

// RFC 2782: servers of one priority share by weight.
#[test]
fn weights_share_the_load() {
    let (one, two) = (Server::udp("200 OK"), Server::udp("200 OK"));
    let dns = Dns::zone(vec![
        ("_sip._udp.gate.partner.example", dns::SRV, srv(1, 10, one.port, "h.partner.example")),
        ("_sip._udp.gate.partner.example", dns::SRV, srv(1, 30, two.port, "h.partner.example")),
        ("h.partner.example", dns::A, home()),
    ]);
    let node = to_partner(&dns, "sip:gate.partner.example;transport=udp", "");
    for n in 1..=80 {
        assert_eq!(sends(&node, n), 200);
    }
    let (one, two) = (one.requests.try_iter().count(), two.requests.try_iter().count());
    // Each server shows a request right after it has answered it.
    assert!(one + two >= 79 && one > 0 && two > one, "{one} {two}");
}

// RFC 3263 §4.3: after 503 the next server gets the request, with another branch; the first is left alone for a while.
#[test]
fn after_503_the_next_server_is_tried() {
    let (busy, good) = (Server::udp("503 Service Unavailable"), Server::udp("200 OK"));
    let dns = Dns::zone(vec![
        ("_sip._udp.gate.partner.example", dns::SRV, srv(1, 0, busy.port, "h.partner.example")),
        ("_sip._udp.gate.partner.example", dns::SRV, srv(2, 0, good.port, "h.partner.example")),
        ("h.partner.example", dns::A, home()),
    ]);
    let node = to_partner(&dns, "sip:gate.partner.example;transport=udp", "");
    assert_eq!(sends(&node, 1), 200);
    let branch = |request: &str| request.split("branch=").nth(1).unwrap()[..20].to_owned();
    assert_ne!(branch(&busy.request()), branch(&good.request()));
    assert_eq!(sends(&node, 2), 200);
    good.request();
    assert!(busy.requests.try_recv().is_err());
    node.reaches("weir_control_fail_overs_total{reason=\"unavailable\"}", 1);
}

#[test]
fn when_all_have_failed_the_sender_hears_of_it() {
    let (one, two) = (Server::udp("503 Service Unavailable"), Server::udp("503 Service Unavailable"));
    let dns = Dns::zone(vec![
        ("_sip._udp.gate.partner.example", dns::SRV, srv(1, 0, one.port, "h.partner.example")),
        ("_sip._udp.gate.partner.example", dns::SRV, srv(2, 0, two.port, "h.partner.example")),
        ("h.partner.example", dns::A, home()),
    ]);
    let node = to_partner(&dns, "sip:gate.partner.example;transport=udp", "");
    let code = sends(&node, 1);
    assert!((500..600).contains(&code), "{code}");
    one.request();
    two.request();
    node.reaches("weir_control_fail_overs_total{reason=\"exhausted\"}", 1);
    // Nothing else brings another server.
    let no = Server::udp("404 Not Found");
    let dns = Dns::zone(vec![
        ("_sip._udp.gate.partner.example", dns::SRV, srv(1, 0, no.port, "h.partner.example")),
        ("_sip._udp.gate.partner.example", dns::SRV, srv(2, 0, one.port, "h.partner.example")),
        ("h.partner.example", dns::A, home()),
    ]);
    let node = to_partner(&dns, "sip:gate.partner.example;transport=udp", "");
    assert_eq!(sends(&node, 2), 404);
}

#[test]
fn after_a_transport_error_the_next_server_is_tried() {
    let (closed, _held) = closed_port();
    let good = Server::tcp("200 OK");
    let dns = Dns::zone(vec![
        ("_sip._tcp.gate.partner.example", dns::SRV, srv(1, 0, closed, "h.partner.example")),
        ("_sip._tcp.gate.partner.example", dns::SRV, srv(2, 0, good.port, "h.partner.example")),
        ("h.partner.example", dns::A, home()),
    ]);
    let node = to_partner(&dns, "sip:gate.partner.example;transport=tcp", "");
    assert_eq!(sends(&node, 1), 200);
    good.request();
    node.reaches("weir_control_fail_overs_total{reason=\"silent\"}", 1);
}

/// A DNS that says nothing holds up nobody but who needs it, and him not for long.
#[test]
fn a_dns_that_hangs_holds_nobody_up() {
    let dns = Dns::new(|_, _| Said::Silence);
    let more = "deadline_ms = 1500\nquestion_ms = 60000\nnames_max = 2";
    let node = to_partner(&dns, "sip:gate.partner.example", more);
    let clients: Vec<_> = (1..=3).map(|_| node.udp()).collect();
    for (client, n) in clients.iter().zip(1..) {
        client.send(message(n).as_bytes()).unwrap();
    }
    // One too many: told at once, while the others wait.
    node.reaches("weir_control_names_located_total{outcome=\"full\"}", 1);
    let other = node.udp();
    for n in 1..=20 {
        other.send(options(n, "UDP").as_bytes()).unwrap();
        assert_eq!(code(&datagram(&other)), 200);
    }
    for client in &clients {
        let code = code(&datagram(client));
        assert!(code >= 400, "{code}");
    }
    node.reaches("weir_control_names_located_total{outcome=\"late\"}", 2);
}

/// Loops of aliases, answers to other questions, thousands of records: the request fails, the node does not.
#[test]
fn a_dns_that_lies_gains_nothing() {
    let dns = Dns::new(|name, kind| match (name, kind) {
        ("loop.partner.example", _) => Said::Records(dns::CNAME, vec![dns::name("pool.partner.example")]),
        ("pool.partner.example", _) => Said::Records(dns::CNAME, vec![dns::name("loop.partner.example")]),
        ("self.partner.example", _) => Said::Records(dns::CNAME, vec![dns::name("self.partner.example")]),
        // Records that are shorter than their type has them.
        ("short.partner.example", kind) => Said::Records(kind, vec![vec![1]]),
        ("huge.partner.example", kind) => Said::Records(kind, vec![vec![0; 16]; 2000]),
        _ => Said::NoName,
    });
    for host in ["loop", "self", "short", "huge", "nobody"] {
        let next = format!("sip:{host}.partner.example:5060");
        let node = to_partner(&dns, &next, "deadline_ms = 3000\nquestion_ms = 500");
        let code = sends(&node, 1);
        assert!(code >= 400, "{host}: {code}");
        assert_eq!(node.metric("weir_control_names_located_total{outcome=\"found\"}"), 0, "{host}");
        let other = node.udp();
        other.send(options(2, "UDP").as_bytes()).unwrap();
        assert_eq!(super::code(&datagram(&other)), 200);
    }
    assert!(dns.asked("loop.partner.example", dns::A) < 50);
}

/// An authority of the test's own.
pub(super) struct Authority {
    pub(super) certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Authority {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Authority { certificate, issuer: rcgen::Issuer::new(params, key) }
    }

    /// A certificate and its key.
    pub(super) fn draw(
        &self,
        name: &str,
    ) -> (rustls::pki_types::CertificateDer<'static>, rustls::pki_types::PrivateKeyDer<'static>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let own = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let own = own.signed_by(&key, &self.issuer).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
        (own.der().clone(), key.into())
    }

    fn server(&self, name: &str) -> ServerConfig {
        let (certificate, key) = self.draw(name);
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap()
    }
}

// RFC 5922 §7.3: the certificate is for the name that was looked for. Whoever holds the DNS can name another server, with
// a good certificate of its own: it gets nothing, and the next one is tried.
#[test]
fn a_certificate_for_another_name_is_not_believed() {
    let authority = Authority::new();
    let wrong = Server::tls("200 OK", authority.server("h.partner.example"));
    let good = Server::tls("200 OK", authority.server("gate.partner.example"));
    let dns = Dns::zone(vec![
        ("_sips._tcp.gate.partner.example", dns::SRV, srv(1, 0, wrong.port, "h.partner.example")),
        ("_sips._tcp.gate.partner.example", dns::SRV, srv(2, 0, good.port, "h.partner.example")),
        ("h.partner.example", dns::A, home()),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let trust = folder.path().join("trust.pem");
    std::fs::write(&trust, authority.certificate.pem()).unwrap();
    let more = format!("[sip.tls]\ntrust = \"{}\"", trust.display());
    let node = to_partner(&dns, "sip:gate.partner.example;transport=tls", &more);
    assert_eq!(sends(&node, 1), 200);
    assert!(good.request().contains("Via: SIP/2.0/TLS "));
    assert!(wrong.requests.try_recv().is_err());
    node.reaches("weir_control_connections_closed_total{reason=\"tls\"}", 1);
    node.reaches("weir_control_fail_overs_total{reason=\"silent\"}", 1);
}
