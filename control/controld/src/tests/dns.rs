//! A DNS server in a thread of the test: it says what a test wants, lies as told, or says nothing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

/// Types of records (RFC 1035 §3.2.2, RFC 2782, RFC 3403).
pub(super) const A: u16 = 1;
pub(super) const CNAME: u16 = 5;
pub(super) const SRV: u16 = 33;
pub(super) const NAPTR: u16 = 35;

/// What is said to a question.
pub(super) enum Said {
    /// These records of that type.
    Records(u16, Vec<Vec<u8>>),
    /// There is no such name.
    NoName,
    /// Nothing at all.
    Silence,
}

/// The server; its thread ends with the process.
pub(super) struct Dns {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<(String, u16)>>>,
}

impl Dns {
    pub(super) fn new(say: impl Fn(&str, u16) -> Said + Send + 'static) -> Dns {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((octets, from)) = socket.recv_from(&mut buffer) {
                let query = &buffer[..octets];
                let (name, kind, end) = question(query);
                seen.lock().unwrap().push((name.clone(), kind));
                let reply = match say(&name, kind) {
                    Said::Silence => continue,
                    Said::NoName => reply(query, end, 3, kind, &[]),
                    Said::Records(of, records) => reply(query, end, 0, of, &records),
                };
                let _ = socket.send_to(&reply, from);
            }
        });
        Dns { address, asked }
    }

    /// A zone of (name, type, data); of everything else it says that it is not there.
    pub(super) fn zone(zone: Vec<(&'static str, u16, Vec<u8>)>) -> Dns {
        Dns::new(move |name, kind| {
            let of_name = zone.iter().filter(|(n, ..)| *n == name);
            let records: Vec<_> = of_name.filter(|(_, k, _)| *k == kind).map(|(.., d)| d.clone()).collect();
            match zone.iter().any(|(n, ..)| *n == name) {
                true => Said::Records(kind, records),
                false => Said::NoName,
            }
        })
    }

    /// How often a name was asked for.
    pub(super) fn asked(&self, name: &str, kind: u16) -> usize {
        self.asked.lock().unwrap().iter().filter(|(n, k)| n == name && *k == kind).count()
    }
}

/// Name, type and end of the question.
fn question(query: &[u8]) -> (String, u16, usize) {
    let (mut at, mut labels) = (12, Vec::new());
    while query[at] != 0 {
        let len = usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..at + 1 + len]).to_ascii_lowercase());
        at += 1 + len;
    }
    (labels.join("."), u16::from_be_bytes([query[at + 1], query[at + 2]]), at + 5)
}

fn reply(query: &[u8], end: usize, code: u8, kind: u16, records: &[Vec<u8>]) -> Vec<u8> {
    let count = u16::try_from(records.len()).unwrap().to_be_bytes();
    let mut reply = vec![query[0], query[1], 0x85, 0x80 | code, 0, 1, count[0], count[1], 0, 0, 0, 0];
    reply.extend_from_slice(&query[12..end]);
    for data in records {
        reply.extend_from_slice(&[0xc0, 12]);
        reply.extend_from_slice(&kind.to_be_bytes());
        reply.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
        reply.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
        reply.extend_from_slice(data);
    }
    reply
}

pub(super) fn name(name: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        octets.push(u8::try_from(label.len()).unwrap());
        octets.extend_from_slice(label.as_bytes());
    }
    octets.push(0);
    octets
}

pub(super) fn a(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(_) => panic!("an A record"),
    }
}

pub(super) fn home() -> Vec<u8> {
    a(Ipv4Addr::LOCALHOST.into())
}

pub(super) fn srv(priority: u16, weight: u16, port: u16, target: &str) -> Vec<u8> {
    let numbers = [priority, weight, port].into_iter().flat_map(u16::to_be_bytes);
    numbers.chain(name(target)).collect()
}

pub(super) fn naptr(order: u16, service: &str, replacement: &str) -> Vec<u8> {
    let mut octets: Vec<u8> = [order, 1].into_iter().flat_map(u16::to_be_bytes).collect();
    for text in ["s", service, ""] {
        octets.push(u8::try_from(text.len()).unwrap());
        octets.extend_from_slice(text.as_bytes());
    }
    octets.extend(name(replacement));
    octets
}
