//! Which peers a name means: transport, address and port, in the order in which they are tried (RFC 3263 §4). Asks for
//! what it wants to know of the DNS and is told; it waits for nobody.
//!
//! ```text
//!   host is an address ───────────────────────────────────────────────────────────► peers
//!   port is written ──────────────────────────────────────────► A, AAAA ──────────► peers
//!   transport is written ─────────────► SRV ─┬─ records ──────► A, AAAA of each ──► peers
//!   neither ──► NAPTR ─┬─ of a transport ─►  │                     ▲
//!                      └─ none ─► SRV of each of our transports    │
//!                                            └─ none: the host itself, with the default port
//! ```
//!
//! Deliberately not here: time-outs, and remembering answers (the resolver).

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use base::Entropy;

use crate::hop::Target;
use crate::peer::{Peer, Transport};

/// Records of one answer that are looked at.
const RECORDS_MAX: usize = 32;
/// Peers of one name.
const PEERS_MAX: usize = 32;
/// Questions for one name.
const QUESTIONS_MAX: usize = 48;

/// A question to the DNS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Question {
    /// NAPTR records of a domain.
    Naptr(String),
    /// SRV records of a name such as `_sip._udp.example.com`.
    Srv(String),
    /// A and AAAA records of a host.
    Addresses(String),
}

/// A NAPTR record (RFC 3403 §4.1), as far as RFC 3263 uses it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Naptr {
    /// Lower ones first.
    pub order: u16,
    /// Lower ones first, among those of one order.
    pub preference: u16,
    /// `s`: the replacement has SRV records.
    pub flags: String,
    /// `SIP+D2U` and the like.
    pub service: String,
    /// The name to go on with.
    pub replacement: String,
}

/// An SRV record (RFC 2782).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Srv {
    /// Lower ones first.
    pub priority: u16,
    /// The share of what goes to its priority.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// The host; `.`: the service is not there.
    pub target: String,
}

/// What the DNS answers. Nothing, an error and a time-out are all empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// To [`Question::Naptr`].
    Naptr(Vec<Naptr>),
    /// To [`Question::Srv`].
    Srv(Vec<Srv>),
    /// To [`Question::Addresses`], those that are to be tried first in front.
    Addresses(Vec<IpAddr>),
}

/// What is to be done next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Ask, and tell the answer.
    Ask(Question),
    /// The peers, best first; none: the name means nobody (RFC 3261 §8.1.3.1: as if 503 had come).
    Found(Vec<Peer>),
}

/// The search for the peers of one target.
#[derive(Debug)]
pub struct Locate {
    host: String,
    /// Of the target, where nothing else is found.
    fallback: Transport,
    speaks: Vec<Transport>,
    naptr: bool,
    /// The first name that has records is enough: they were not announced, only tried.
    tried: bool,
    /// Names with SRV records, or perhaps.
    services: VecDeque<(Transport, String)>,
    /// Some name had SRV records, if only to say that there is nothing.
    served: bool,
    hosts: VecDeque<(Transport, String, u16)>,
    peers: Vec<Peer>,
    asked: usize,
    entropy: Entropy,
}

impl Locate {
    /// For a target, with the transports that we speak in the order in which we like them.
    pub fn new(target: &Target, speaks: &[Transport], entropy: Entropy) -> Self {
        let mut locate = Locate {
            host: target.host.to_string(),
            fallback: target.transport,
            speaks: speaks.to_vec(),
            naptr: false,
            tried: false,
            services: VecDeque::new(),
            served: false,
            hosts: VecDeque::new(),
            peers: Vec::new(),
            asked: 0,
            entropy,
        };
        match (target.peer().filter(|_| target.host.is_ip()), target.port) {
            (Some(peer), _) => {
                locate.served = true;
                locate.peers.push(peer);
            }
            (None, Some(port)) => {
                locate.served = true;
                locate.hosts.push_back((target.transport, locate.host.clone(), port));
            }
            (None, None) if target.transport_open => locate.naptr = true,
            (None, None) => locate.services.extend(service(target.transport, &locate.host)),
        }
        locate
    }

    /// What to do next.
    pub fn step(&mut self) -> Step {
        let is_over = self.asked >= QUESTIONS_MAX || self.peers.len() >= PEERS_MAX;
        if !is_over {
            if self.naptr {
                return Step::Ask(Question::Naptr(self.host.clone()));
            }
            if let Some((_, name)) = self.services.front() {
                return Step::Ask(Question::Srv(name.clone()));
            }
            if !std::mem::replace(&mut self.served, true) {
                // RFC 3263 §4.2: no SRV records.
                let port = self.fallback.default_port();
                self.hosts.push_back((self.fallback, self.host.clone(), port));
            }
            if let Some((_, host, _)) = self.hosts.front() {
                return Step::Ask(Question::Addresses(host.clone()));
            }
        }
        Step::Found(std::mem::take(&mut self.peers))
    }

    /// What was found when there is no time for more questions.
    pub fn so_far(&mut self) -> Vec<Peer> {
        std::mem::take(&mut self.peers)
    }

    /// The answer to what the last step has asked. Another one than that is none.
    pub fn answer(&mut self, answer: Answer) {
        self.asked += 1;
        if std::mem::take(&mut self.naptr) {
            let records = if let Answer::Naptr(records) = answer { records } else { Vec::new() };
            self.transports(records);
        } else if let Some((transport, _)) = self.services.pop_front() {
            let records = if let Answer::Srv(records) = answer { records } else { Vec::new() };
            self.servers(transport, records);
        } else if let Some((transport, _, port)) = self.hosts.pop_front() {
            let addresses = if let Answer::Addresses(addresses) = answer { addresses } else { Vec::new() };
            for ip in addresses.into_iter().take(RECORDS_MAX) {
                let peer = Peer::new(transport, SocketAddr::new(ip, port));
                if self.peers.len() < PEERS_MAX && !self.peers.contains(&peer) {
                    self.peers.push(peer);
                }
            }
        }
    }

    /// RFC 3263 §4.1: the transports that the domain says it has, in its order; where it says nothing, those that we have.
    fn transports(&mut self, mut records: Vec<Naptr>) {
        records.truncate(RECORDS_MAX);
        records.sort_by_key(|record| (record.order, record.preference));
        for record in records.into_iter().filter(|record| record.flags.eq_ignore_ascii_case("s")) {
            let transport = match record.service.to_ascii_uppercase().as_str() {
                "SIP+D2U" => Transport::Udp,
                "SIP+D2T" => Transport::Tcp,
                "SIPS+D2T" => Transport::Tls,
                _ => continue,
            };
            // What was asked for as sips stays secure.
            let is_secure = !self.fallback.is_secure() || transport.is_secure();
            if is_secure && self.speaks.contains(&transport) {
                self.services.push_back((transport, record.replacement));
            }
        }
        if self.services.is_empty() {
            self.tried = true;
            let secure = self.fallback.is_secure();
            let ours = self.speaks.iter().filter(|transport| transport.is_secure() == secure);
            self.services.extend(ours.filter_map(|transport| service(*transport, &self.host)));
        }
    }

    fn servers(&mut self, transport: Transport, mut records: Vec<Srv>) {
        records.truncate(RECORDS_MAX);
        if records.is_empty() {
            return;
        }
        self.served = true;
        if std::mem::take(&mut self.tried) {
            self.services.clear();
        }
        let there = records.into_iter().filter(|record| !matches!(record.target.as_str(), "" | "."));
        for record in shuffle(there.collect(), &mut self.entropy) {
            self.hosts.push_back((transport, record.target, record.port));
        }
    }
}

/// The name with the SRV records of a transport (RFC 3263 §4.1).
fn service(transport: Transport, host: &str) -> Option<(Transport, String)> {
    let name = match transport {
        Transport::Udp => "_sip._udp",
        Transport::Tcp => "_sip._tcp",
        Transport::Tls => "_sips._tcp",
        // Clients open those.
        Transport::Ws | Transport::Wss => return None,
    };
    Some((transport, format!("{name}.{host}")))
}

/// The order of RFC 2782: by priority, and among equals drawn by weight.
fn shuffle(mut records: Vec<Srv>, entropy: &mut Entropy) -> Vec<Srv> {
    // Those of weight 0 stand first, so that they are drawn seldom.
    records.sort_by_key(|record| (record.priority, record.weight));
    let mut order = Vec::with_capacity(records.len());
    while let Some(first) = records.first() {
        let equals = records.iter().take_while(|record| record.priority == first.priority);
        let sum: u64 = equals.map(|record| u64::from(record.weight)).sum();
        let drawn = entropy.below(sum + 1);
        let mut running = 0;
        let at = records.iter().position(|record| {
            running += u64::from(record.weight);
            running >= drawn
        });
        order.push(records.remove(at.unwrap_or(0)));
    }
    order
}

#[cfg(test)]
mod tests;
