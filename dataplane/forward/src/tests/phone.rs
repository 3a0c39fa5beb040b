//! Peers on streams: what they send, and what they read.

use std::collections::BTreeMap;

use bytes::Bytes;
use contract::{Leg, MsrpLeg, leg::Kind, placement::At};
use msrp::{Event, Flag, Framer, Head, Method, Start, Status};

use super::rig::*;
use crate::{ConnId, Input, Limits};

/// A message as a peer reads it.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) flag: Flag,
}

impl Read {
    pub(crate) fn status(&self) -> Option<Status> {
        if let Start::Response(status) = self.head.start() { Some(status) } else { None }
    }

    pub(crate) fn is(&self, method: Method) -> bool {
        self.head.method() == Some(method)
    }
}

pub(crate) fn msrp_leg(n: u64) -> Leg {
    let msrp = MsrpLeg { remote_path: vec![their(n)], ..MsrpLeg::default() };
    Leg { id: n, context: CONTEXT, media: "msrp".into(), kind: Some(Kind::Msrp(msrp)), ..Leg::default() }
}

pub(crate) fn adjust(mut leg: Leg, change: impl FnOnce(&mut MsrpLeg)) -> Leg {
    if let Some(Kind::Msrp(msrp)) = leg.kind.as_mut() {
        change(msrp);
    }
    leg
}

/// The URI of leg `n`'s peer.
pub(crate) fn their(n: u64) -> String {
    format!("msrp://198.51.100.{n}:7000/peer{n};tcp")
}

/// A request to build.
pub(crate) struct Send<'a> {
    pub(crate) tid: &'a str,
    pub(crate) id: &'a str,
    pub(crate) lines: &'a str,
    pub(crate) body: &'a [u8],
    pub(crate) flag: char,
}

impl Default for Send<'_> {
    fn default() -> Self {
        Send { tid: "tid1", id: "message1", lines: "Content-Type: text/plain\r\n", body: b"hello", flag: '$' }
    }
}

/// The phones of a context: what each must write in its paths.
pub(crate) struct Phones {
    pub(crate) rig: Rig,
    pub(crate) ours: BTreeMap<u64, String>,
}

pub(crate) fn conn(n: u64) -> ConnId {
    ConnId(n)
}

impl Phones {
    /// Legs put, all connected (leg `n` on connection `n`) by an empty SEND.
    pub(crate) fn up(legs: Vec<Leg>, paths: Vec<contract::Path>) -> Phones {
        Phones::up_with(Limits { sockets_max: 16, ..Limits::default() }, legs, paths)
    }

    pub(crate) fn up_with(limits: Limits, legs: Vec<Leg>, paths: Vec<contract::Path>) -> Phones {
        let mut phones = Phones::put(limits, legs, paths);
        for n in phones.ours.keys().copied().collect::<Vec<_>>() {
            phones.connect(n);
        }
        phones
    }

    /// Legs put, nobody connected.
    pub(crate) fn put(limits: Limits, legs: Vec<Leg>, paths: Vec<contract::Path>) -> Phones {
        let mut rig = Rig::with(limits);
        let mut phones =
            Phones { ours: BTreeMap::new(), rig: Rig::with(Limits { sockets_max: 1, ..Limits::default() }) };
        for placement in rig.set(legs, paths) {
            let Some(At::Msrp(local)) = placement.at else { panic!() };
            phones.ours.insert(placement.leg, local.path);
        }
        phones.rig = rig;
        phones
    }

    pub(crate) fn join(&mut self, leg: Leg) {
        let id = leg.id;
        let (body, _) = self.rig.batch(vec![put_leg(leg)]);
        let contract::from_dataplane::Body::Applied(applied) = body else { panic!() };
        let Some(At::Msrp(local)) = applied.placements[0].at.clone() else { panic!() };
        self.ours.insert(id, local.path);
        self.connect(id);
    }

    pub(crate) fn open(&mut self, n: u64) -> Vec<Done> {
        self.rig.input(Input::Opened {
            conn: conn(n),
            dial: None,
            tls: false,
            fingerprint: None,
            peer: peer(n),
            local: addr("192.0.2.1:2855"),
        })
    }

    pub(crate) fn connect(&mut self, n: u64) -> Vec<Done> {
        self.open(n);
        let done = self.say_raw(n, &self.empty(n));
        assert_eq!(self.read(n)[0].status(), Some(Status::OK));
        done
    }

    /// Connects a leg for which something may be waiting; what comes stays to be read.
    pub(crate) fn connect_late(&mut self, n: u64) -> Vec<Done> {
        self.open(n);
        self.say_raw(n, &self.empty(n))
    }

    pub(crate) fn empty(&self, n: u64) -> Vec<u8> {
        self.request(n, "SEND", "bind", "Message-ID: bind\r\nByte-Range: 1-0/0\r\n", None, '$')
    }

    pub(crate) fn request(
        &self,
        n: u64,
        method: &str,
        tid: &str,
        lines: &str,
        body: Option<&[u8]>,
        flag: char,
    ) -> Vec<u8> {
        let (to, from) = (&self.ours[&n], their(n));
        let mut bytes =
            format!("MSRP {tid} {method}\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n{lines}").into_bytes();
        if let Some(body) = body {
            bytes.extend_from_slice(b"\r\n");
            bytes.extend_from_slice(body);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(format!("-------{tid}{flag}\r\n").as_bytes());
        bytes
    }

    /// Bytes from leg `n`'s peer.
    pub(crate) fn say_raw(&mut self, n: u64, bytes: &[u8]) -> Vec<Done> {
        self.rig.input(Input::Received { conn: conn(n), bytes: Bytes::copy_from_slice(bytes) })
    }

    pub(crate) fn say(&mut self, n: u64, send: &Send<'_>) -> Vec<Done> {
        let lines = format!("Message-ID: {}\r\n{}", send.id, send.lines);
        let bytes = self.request(n, "SEND", send.tid, &lines, Some(send.body), send.flag);
        self.say_raw(n, &bytes)
    }

    /// A CPIM message to the room.
    pub(crate) fn chat(&mut self, n: u64, id: &str, to: &str, text: &str) -> Vec<Done> {
        let body = cpim(n, to, "text/plain", text);
        self.say(n, &Send { tid: id, id, lines: CPIM_LINES, body: &body, flag: '$' })
    }

    /// Whole messages and chunks that came to leg `n`'s peer.
    pub(crate) fn read(&mut self, n: u64) -> Vec<Read> {
        let bytes = self.rig.wire.remove(&n).unwrap_or_default();
        let (rest, read) = parse(&bytes);
        if !rest.is_empty() {
            self.rig.wire.insert(n, rest);
        }
        read
    }

    /// The one answer that came.
    pub(crate) fn answer(&mut self, n: u64) -> u16 {
        let read = self.read(n);
        assert_eq!(read.len(), 1, "{read:?}");
        read[0].status().expect("a response").0
    }

    /// Answers what came, and gives it.
    pub(crate) fn reply(&mut self, n: u64, read: &Read, status: Status) -> Vec<Done> {
        let bytes = msrp::response(&read.head, status).expect("it wants an answer");
        self.say_raw(n, &bytes)
    }

    pub(crate) fn report(&mut self, n: u64, read: &Read, status: u16) -> Vec<Done> {
        let lines = format!(
            "Message-ID: {}\r\nByte-Range: 1-5/5\r\nStatus: 000 {status}\r\n",
            read.head.message_id()
        );
        let bytes = self.request(n, "REPORT", "rep1", &lines, None, '$');
        self.say_raw(n, &bytes)
    }

    /// What arrived is what was taken and what was dropped.
    pub(crate) fn check_sum(&self) {
        let totals = self.rig.engine.totals();
        use crate::Drop::{MsrpCongested, MsrpHeldFull, MsrpHeldLate, MsrpSpill, MsrpTap, MsrpUnanswered};
        let copies = [MsrpCongested, MsrpHeldFull, MsrpHeldLate, MsrpTap, MsrpSpill, MsrpUnanswered];
        let drops = crate::Drop::ALL.iter().filter(|d| d.label().starts_with("msrp") && !copies.contains(d));
        let dropped: u64 = drops.map(|d| totals.dropped(*d)).sum();
        assert_eq!(totals.requests_in, totals.requests_taken + dropped, "{totals:?}");
    }
}

pub(crate) const CPIM_LINES: &str = "Failure-Report: yes\r\nContent-Type: message/cpim\r\n";

/// The address of leg `n`'s user.
pub(crate) fn user(n: u64) -> String {
    format!("sip:user{n}@example.com")
}

pub(crate) fn cpim(from: u64, to: &str, content_type: &str, text: &str) -> Vec<u8> {
    format!("From: <{}>\r\nTo: <{to}>\r\n\r\nContent-Type: {content_type}\r\n\r\n{text}", user(from))
        .into_bytes()
}

/// Messages off the front, and what is left of the last one.
pub(crate) fn parse(bytes: &[u8]) -> (Vec<u8>, Vec<Read>) {
    let mut framer = Framer::new(msrp::Limits::default());
    let mut input = Bytes::copy_from_slice(bytes);
    let (mut read, mut open, mut whole) = (Vec::new(), None, 0);
    while let Some(event) = framer.next(&mut input).expect("what we write can be framed") {
        match event {
            Event::Head(head) => open = Some((head, Vec::new())),
            Event::Body(piece) => open.as_mut().unwrap().1.extend_from_slice(&piece),
            Event::End(flag) => {
                let (head, body) = open.take().unwrap();
                read.push(Read { head, body, flag });
                whole = bytes.len() - input.len();
            }
            Event::Bad(bad) => panic!("we wrote a bad head: {:?}", bad.reason),
        }
    }
    (bytes[whole..].to_vec(), read)
}
