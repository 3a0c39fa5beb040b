//! A room of the data plane with three members on connections, a fourth connection that belongs to nobody, and the relay of
//! RFC 4976 that anybody may ask.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use base::{Entropy, Instant, Now, Outbox, UnixTime};
use bytes::Bytes;
use contract::change::Verb;
use contract::from_dataplane::Body;
use contract::leg::Kind;
use contract::path::Parameters;
use contract::placement::At;
use contract::{
    AuthVerdict, Batch, Change, Context, Decide, Leg, LegKey, LegSet, Mode, MsrpLeg, Path, Switch, news,
};
use forward::{CloseReason, Config, ConnId, DialId, Engine, Input, Limits, Listener, Output, RelayConfig};

const CONTEXT: u64 = 7;
/// Members have the connections 1, 2 and 3.
pub const MEMBERS: u64 = 3;
/// What a connection may have under way, and what its peer may leave unread.
const WRITTEN_MAX: usize = 4 << 20;

/// An engine, and what a driver would do for it.
pub struct Room {
    engine: Engine,
    out: Outbox<Output>,
    now: Now,
    /// By connection: octets written and not yet said to be sent.
    open: BTreeMap<u64, usize>,
    next: u64,
    /// What each member writes in To-Path.
    paths: BTreeMap<u64, String>,
    /// What control was asked: nicknames, and credentials (of no leg).
    asked: Vec<(Option<LegKey>, u64)>,
    /// Connections that the relay wants.
    dialled: Vec<DialId>,
    /// The path of the relay's newest session.
    relayed: Vec<u8>,
}

impl Default for Room {
    fn default() -> Self {
        Room::new()
    }
}

fn peer(n: u64) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, n as u8], 7000))
}

fn member(n: u64) -> Leg {
    let msrp = MsrpLeg {
        remote_path: vec![format!("msrp://198.51.100.{n}:7000/peer{n};tcp")],
        addresses: vec![format!("sip:user{n}@example.com")],
        accept_types: vec!["message/cpim".into()],
        accept_wrapped_types: vec!["*".into()],
        private_messages: true,
        ..MsrpLeg::default()
    };
    Leg { id: n, context: CONTEXT, media: "msrp".into(), kind: Some(Kind::Msrp(msrp)), ..Leg::default() }
}

impl Room {
    /// The room, everybody connected and known.
    pub fn new() -> Room {
        let limits = Limits { sockets_max: 4, legs_max: 16, contexts_max: 4, ..Limits::default() };
        let relay =
            RelayConfig { plain: true, sessions_max: 4, transactions_max: 8, ..RelayConfig::default() };
        let msrp = Listener { authority: "192.0.2.1:2855".into() };
        let config = Config { shard: 0, shards: 1, msrp, msrps: None, limits, relay: Some(relay) };
        let engine = Engine::new(config, Entropy::from_number(1));
        let out = Outbox::with_max(engine.room_needed() * 2);
        let now =
            Now { mono: Instant::from_millis(1_000_000), wall: UnixTime::from_millis(1_800_000_000_000) };
        let mut room = Room {
            engine,
            out,
            now,
            open: BTreeMap::new(),
            next: 1,
            paths: BTreeMap::new(),
            asked: Vec::new(),
            dialled: Vec::new(),
            relayed: Vec::new(),
        };
        let switch = Switch {
            room: vec!["sip:room@conference.example.com".into()],
            private_messages: true,
            nicknames: true,
            ..Switch::default()
        };
        let all = Some(LegSet { legs: vec![], media: "msrp".into() });
        let path = Path {
            id: 1,
            context: CONTEXT,
            mode: Mode::Switch.into(),
            sources: all.clone(),
            targets: all,
            parameters: Some(Parameters::Switch(switch)),
        };
        let mut verbs = vec![Verb::PutContext(Context { id: CONTEXT })];
        verbs.extend((1..=MEMBERS).map(|n| Verb::PutLeg(member(n))));
        verbs.push(Verb::PutPath(path));
        let changes = verbs.into_iter().map(|verb| Change { verb: Some(verb) }).collect();
        let batch = Batch { generation: 1, epoch: 1, changes, ..Batch::default() };
        room.input(Input::Batch { batch: &batch, attachments: &[] });
        for n in 1..=MEMBERS {
            let conn = room.open(None);
            let to = room.paths.get(&n).cloned().unwrap_or_default();
            let hello = format!(
                "MSRP hello{n} SEND\r\nTo-Path: {to}\r\nFrom-Path: msrp://198.51.100.{n}:7000/peer{n};tcp\r\n\
                 Message-ID: hello{n}\r\n-------hello{n}$\r\n"
            );
            room.receive(conn, hello.as_bytes());
        }
        room.open(None);
        room
    }

    fn open(&mut self, dial: Option<DialId>) -> u64 {
        let conn = self.next;
        self.next += 1;
        self.open.insert(conn, 0);
        let local = SocketAddr::from(([192, 0, 2, 1], 2855));
        let conn_id = ConnId(conn);
        let peer = peer(conn);
        self.input(Input::Opened { conn: conn_id, dial, tls: false, fingerprint: None, peer, local });
        conn
    }

    /// One event of a script. Octets of a stream may say `@1` to `@3` for the path of a member's session, `@r` for the relay's.
    pub fn event(&mut self, kind: u8, rest: &[u8]) {
        let conn = 1 + u64::from(kind & 3);
        match kind >> 4 {
            0..=3 => {
                let mut stream = rest.to_vec();
                for (n, path) in &self.paths {
                    stream = replace(&stream, format!("@{n}").as_bytes(), path.as_bytes());
                }
                let stream = replace(&stream, b"@r", &self.relayed);
                self.receive(conn, &stream);
            }
            4 => self.sent(conn),
            5 if self.open.remove(&conn).is_some() => {
                self.input(Input::Closed { conn: ConnId(conn), why: CloseReason::Reset });
            }
            6 => {
                let ms =
                    rest.iter().fold(1u64, |ms, octet| ms.saturating_mul(u64::from(*octet) + 1)).min(1 << 40);
                self.now.mono += Duration::from_millis(ms);
                self.now.wall = self.now.wall + Duration::from_millis(ms);
                // Each turn does a bounded part of what is due.
                for _ in 0..64 {
                    if self.engine.next_timeout().is_none_or(|due| due > self.now.mono) {
                        break;
                    }
                    self.engine.timeout(self.now, &mut self.out);
                    self.perform();
                }
            }
            7 => {
                if let Some((leg, id)) = self.asked.pop() {
                    let status = u32::from(rest.first().copied().unwrap_or(0)) + 200;
                    let nickname = String::from_utf8_lossy(rest.get(1..).unwrap_or_default()).into_owned();
                    let auth = AuthVerdict { account: u64::from(kind & 3), ..AuthVerdict::default() };
                    let decide = Decide { leg, id, status, nickname, auth: Some(auth) };
                    self.input(Input::Decide(&decide));
                }
            }
            8 => {
                let leg = LegKey { context: CONTEXT, leg: 1 + u64::from(kind & 3) };
                self.batch(Verb::RemoveLeg(leg));
            }
            9 => self.batch(Verb::PutLeg(member(1 + u64::from(kind & 3)))),
            10 => match self.dialled.pop() {
                Some(dial) if kind & 3 == 0 => {
                    self.input(Input::DialFailed { dial, why: CloseReason::ConnectFailed })
                }
                Some(dial) => drop(self.open(Some(dial))),
                None => {}
            },
            _ if self.next < 64 => drop(self.open(None)),
            _ => {}
        }
    }

    fn batch(&mut self, verb: Verb) {
        self.next += 1;
        let changes = vec![Change { verb: Some(verb) }];
        let batch = Batch { generation: self.next, epoch: 1, changes, ..Batch::default() };
        self.input(Input::Batch { batch: &batch, attachments: &[] });
    }

    fn receive(&mut self, conn: u64, stream: &[u8]) {
        if self.open.contains_key(&conn) {
            self.input(Input::Received { conn: ConnId(conn), bytes: Bytes::copy_from_slice(stream) });
        }
    }

    fn sent(&mut self, conn: u64) {
        let bytes = self.open.get_mut(&conn).map(std::mem::take).unwrap_or(0);
        if bytes > 0 {
            self.input(Input::Sent { conn: ConnId(conn), bytes });
        }
    }

    fn input(&mut self, input: Input<'_>) {
        self.engine.handle(self.now, input, &mut self.out);
        self.perform();
    }

    fn perform(&mut self) {
        loop {
            assert_eq!(self.out.refused(), 0, "an engine says at most what there is room for");
            for output in self.out.drain() {
                match output {
                    Output::Write { conn, bytes } => {
                        let written = self.open.get_mut(&conn.0).expect("writes to what is open");
                        *written += bytes.len();
                        assert!(*written <= WRITTEN_MAX, "more under way than a connection may have");
                        if let Some(at) = find(&bytes, b"Use-Path: ") {
                            let path = bytes.get(at + 10..).unwrap_or_default();
                            self.relayed = path.split(|o| *o == b'\r').next().unwrap_or_default().to_vec();
                        }
                    }
                    Output::Dial { dial, .. } => self.dialled.push(dial),
                    Output::Shut { conn, .. } => {
                        assert!(self.open.remove(&conn.0).is_some(), "shuts what is open");
                    }
                    Output::Answer(answer) => match answer.body {
                        Some(Body::Applied(applied)) => {
                            for placement in applied.placements {
                                if let Some(At::Msrp(local)) = placement.at {
                                    self.paths.insert(placement.leg, local.path);
                                }
                            }
                        }
                        Some(Body::News(news)) => {
                            if let Some(news::What::Message(news)) = news.what
                                && news.what.is_some()
                            {
                                self.asked.push((news.leg, news.id));
                            }
                        }
                        _ => {}
                    },
                    _ => {}
                }
            }
            if !self.engine.flush(&mut self.out) && self.out.is_empty() {
                return;
            }
        }
    }
}

fn replace(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = find(rest, from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|w| w == what)
}
