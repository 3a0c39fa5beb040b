//! The whole process on loopback, driven with raw octets: what a stranger can do to it and what he gets.

mod connections;
mod datagrams;
mod dns;
mod hep;
mod names;
mod overload;
mod process;
mod sessions;
mod streams;
mod tls;
mod trunks;
mod websocket;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Config, Running, Shutdown, Transport, start};

/// How long an answer may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(10);

/// A run in a folder of its own, on ports of its own.
struct Node {
    folder: tempfile::TempDir,
    running: Running,
}

/// Listeners on any free port, sockets and database in the folder.
fn config(folder: &std::path::Path, more: &str) -> Config {
    let listener =
        |transport| format!("[[sip.listeners]]\ntransport = \"{transport}\"\naddress = \"127.0.0.1:0\"\n");
    let listeners = [listener("udp"), listener("tcp"), listener("tls")].concat();
    let folder = folder.display();
    let text = format!("folder = \"{folder}\"\n{more}\n[metrics]\naddress = \"127.0.0.1:0\"\n{listeners}");
    Config::parse(&text).unwrap()
}

fn node(more: &str) -> Node {
    let folder = tempfile::tempdir().unwrap();
    let running = start(config(folder.path(), more), Shutdown::new()).unwrap();
    Node { folder, running }
}

impl Node {
    fn sip(&self, transport: Transport) -> SocketAddr {
        self.running.addresses().sip(transport).unwrap()
    }

    fn udp(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.sip(Transport::Udp)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.sip(Transport::Tcp)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// What Prometheus would read.
    fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.running.addresses().metrics.unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        text
    }

    /// One sample; the sum over all labels when the name has none.
    fn metric(&self, name: &str) -> u64 {
        let text = self.metrics();
        let samples = text.lines().filter_map(|line| line.rsplit_once(' ')).filter(|(sample, _)| {
            *sample == name || sample.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'))
        });
        let values: Vec<u64> = samples.map(|(_, value)| value.parse().unwrap()).collect();
        assert!(!values.is_empty(), "no sample {name}");
        values.into_iter().sum()
    }

    /// Waits until a sample has reached a value.
    fn reaches(&self, name: &str, value: u64) {
        let start = Instant::now();
        while self.metric(name) < value {
            assert!(start.elapsed() < PATIENCE, "{name} is {} and not {value}", self.metric(name));
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(self.metric(name), value, "{name}");
    }

    fn ask(&self, line: &str) -> Value {
        let mut stream = UnixStream::connect(&self.running.addresses().admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        stream.write_all(b"\n").unwrap();
        serde_json::from_str(&line_of(&mut stream)).unwrap()
    }
}

fn line_of(stream: &mut impl Read) -> String {
    let mut line = Vec::new();
    let mut octet = [0];
    while stream.read(&mut octet).unwrap() == 1 && octet != *b"\n" {
        line.extend_from_slice(&octet);
    }
    String::from_utf8(line).unwrap()
}

/// An OPTIONS that is complete; `n` makes it a new transaction.
fn options(n: u32, via: &str) -> String {
    format!(
        "OPTIONS sip:weir.example SIP/2.0\r\nVia: SIP/2.0/{via} 127.0.0.1:9;branch=z9hG4bK{n};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:alice@weir.example>;tag=a{n}\r\nTo: <sip:weir.example>\r\n\
         Call-ID: call{n}\r\nCSeq: {n} OPTIONS\r\nContent-Length: 0\r\n\r\n"
    )
}

/// One response off a stream: head and body.
fn response(stream: &mut impl Read) -> String {
    let mut text = Vec::new();
    let mut octet = [0];
    while !text.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut octet).unwrap(), 1, "closed after {:?}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&octet);
    }
    let head = String::from_utf8(text).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length:")).unwrap_or("0");
    let mut body = vec![0; length.trim().parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}

fn datagram(socket: &UdpSocket) -> String {
    let mut buffer = [0; 4096];
    let octets = socket.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..octets].to_vec()).unwrap()
}

fn code(response: &str) -> u16 {
    response.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3)).unwrap().parse().unwrap()
}

fn cseq(response: &str) -> &str {
    response.lines().find_map(|line| line.strip_prefix("CSeq: ")).unwrap()
}
