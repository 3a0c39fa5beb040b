//! A relay of RFC 4976 with clients and next hops: what they send by hand, and what they read.

use bytes::Bytes;
use contract::{AuthVerdict, Decide, message_news, news};
use msrp::{Method, Status};

use super::phone::{Read, parse};
use super::rig::*;
use crate::{ConnId, DialId, Input, Limits, Output, RelayConfig};

/// The bare relay, as clients are configured with it.
pub(crate) const RELAY: &str = "msrps://relay.example.com:2856;tcp";
/// Where the peers are.
pub(crate) const BOB: &str = "msrps://198.51.100.9:7000/bob9session;tcp";

/// The URI of client `n`, as it knows itself: not the address that it comes from.
pub(crate) fn alice(n: u64) -> String {
    format!("msrps://10.0.0.{n}:9000/alice{n}session;tcp")
}

pub(crate) struct Relayed {
    pub(crate) rig: Rig,
    pub(crate) done: Vec<Done>,
    tid: u64,
}

impl Relayed {
    pub(crate) fn new() -> Relayed {
        Relayed::with(RelayConfig::default(), Limits { sockets_max: 1, ..Limits::default() })
    }

    pub(crate) fn with(relay: RelayConfig, limits: Limits) -> Relayed {
        let config = crate::Config { relay: Some(relay), ..config(limits) };
        Relayed { rig: Rig::of(config), done: Vec::new(), tid: 0 }
    }

    pub(crate) fn open_as(&mut self, n: u64, dial: Option<DialId>, tls: bool) {
        let done = self.rig.input(Input::Opened {
            conn: ConnId(n),
            dial,
            tls,
            fingerprint: None,
            peer: peer(n),
            local: addr("192.0.2.1:2856"),
        });
        self.done.extend(done);
    }

    pub(crate) fn open(&mut self, n: u64) {
        self.open_as(n, None, true);
    }

    pub(crate) fn raw(&mut self, n: u64, bytes: &str) {
        let bytes = Bytes::copy_from_slice(bytes.as_bytes());
        let done = self.rig.input(Input::Received { conn: ConnId(n), bytes });
        self.done.extend(done);
    }

    pub(crate) fn run(&mut self, ms: u64) {
        let done = self.rig.run(ms);
        self.done.extend(done);
    }

    /// A request; gives its transaction id.
    pub(crate) fn request(&mut self, n: u64, method: &str, to: &str, from: &str, lines: &str) -> String {
        self.tid += 1;
        let tid = format!("t{:05}", self.tid);
        self.raw(
            n,
            &format!("MSRP {tid} {method}\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n{lines}-------{tid}$\r\n"),
        );
        tid
    }

    /// A SEND with five octets.
    pub(crate) fn send(&mut self, n: u64, to: &str, from: &str, lines: &str) -> String {
        let lines = format!(
            "Message-ID: m{n}id\r\n{lines}Byte-Range: 1-5/5\r\nX-Kept: yes\r\nContent-Type: text/plain\r\n\r\nhello\r\n"
        );
        self.request(n, "SEND", to, from, &lines)
    }

    pub(crate) fn read(&mut self, n: u64) -> Vec<Read> {
        let bytes = self.rig.wire.remove(&n).unwrap_or_default();
        let (rest, read) = parse(&bytes);
        if !rest.is_empty() {
            self.rig.wire.insert(n, rest);
        }
        read
    }

    /// The one thing that came.
    pub(crate) fn one(&mut self, n: u64) -> Read {
        let mut read = self.read(n);
        assert_eq!(read.len(), 1, "{read:?}");
        read.remove(0)
    }

    pub(crate) fn status(&mut self, n: u64) -> u16 {
        self.one(n).status().expect("a response").0
    }

    pub(crate) fn answer(&mut self, n: u64, read: &Read, status: Status) {
        let bytes = msrp::response(&read.head, status).expect("it wants an answer");
        self.raw(n, std::str::from_utf8(&bytes).unwrap());
    }

    /// What control was asked since the last time.
    pub(crate) fn asked(&mut self) -> Vec<(u64, contract::Auth)> {
        let done = std::mem::take(&mut self.done);
        let auth = |what: &news::What| match what {
            news::What::Message(m) => match &m.what {
                Some(message_news::What::Auth(auth)) => Some((m.id, auth.clone())),
                _ => None,
            },
            _ => None,
        };
        let asked = news(&done).into_iter().filter_map(auth).collect();
        self.done = done.into_iter().filter(|d| !matches!(d, Done::Answer(_))).collect();
        asked
    }

    pub(crate) fn decide(&mut self, id: u64, status: u32, auth: AuthVerdict) {
        let decide = Decide { id, status, auth: Some(auth), ..Decide::default() };
        let done = self.rig.input(Input::Decide(&decide));
        self.done.extend(done);
    }

    /// AUTH, and what it is answered when control says yes.
    pub(crate) fn auth(&mut self, n: u64, from: &str, account: u64, lines: &str) -> Read {
        self.request(n, "AUTH", RELAY, from, &format!("{lines}Authorization: Digest good\r\n"));
        let (id, _) = self.asked().pop().expect("control is asked");
        self.decide(id, 200, AuthVerdict { account, ..AuthVerdict::default() });
        self.one(n)
    }

    /// Client `n` on connection `n`, with a session.
    pub(crate) fn client(&mut self, n: u64) -> String {
        self.open(n);
        let granted = self.auth(n, &alice(n), n, "");
        text(&granted, "Use-Path")
    }

    /// The dial that was asked for last.
    pub(crate) fn dialled(&mut self) -> Option<(DialId, std::net::SocketAddr, bool)> {
        let at = self.done.iter().position(|d| matches!(d, Done::Stream(Output::Dial { .. })))?;
        let Done::Stream(Output::Dial { dial, to, tls }) = self.done.remove(at) else { return None };
        Some((dial, to, tls))
    }

    /// Connection `hop` becomes the one that was dialled.
    pub(crate) fn up(&mut self, hop: u64) {
        let (dial, to, tls) = self.dialled().expect("it dials");
        assert_eq!((to, tls), (addr("198.51.100.9:7000"), true));
        self.open_as(hop, Some(dial), true);
    }

    /// Client 1 with a session that has reached Bob on connection 9.
    pub(crate) fn pair(&mut self) -> String {
        let ours = self.client(1);
        self.send(1, &format!("{ours} {BOB}"), &alice(1), "");
        self.up(9);
        assert_eq!(self.status(1), 200);
        let sent = self.one(9);
        self.answer(9, &sent, Status::OK);
        ours
    }

    pub(crate) fn check_sum(&self) {
        let totals = self.rig.engine.totals();
        let drops = crate::Drop::ALL.iter().filter(|d| d.label().starts_with("msrp"));
        let dropped: u64 = drops.map(|d| totals.dropped(*d)).sum();
        assert_eq!(totals.requests_in, totals.requests_taken + dropped, "{totals:?}");
    }

    pub(crate) fn shut(&self, n: u64) -> bool {
        self.done.iter().any(|d| matches!(d, Done::Stream(Output::Shut { conn, .. }) if conn.0 == n))
    }
}

pub(crate) fn text(read: &Read, name: &str) -> String {
    let value = read.head.header(name.as_bytes()).unwrap_or_else(|| panic!("no {name}"));
    String::from_utf8(value.to_vec()).unwrap()
}

pub(crate) fn paths(read: &Read) -> (&str, &str) {
    (read.head.to_path().as_str(), read.head.from_path().as_str())
}

pub(crate) fn is(read: &Read, method: Method) -> bool {
    read.head.method() == Some(method)
}
