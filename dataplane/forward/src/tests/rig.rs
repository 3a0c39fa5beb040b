//! A rig around one engine: puts legs and paths, feeds datagrams, performs outputs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use base::{Entropy, Instant, Now, Outbox, UnixTime};
use bytes::Bytes;
use contract::change::Verb;
use contract::{
    Address, Batch, Change, Context, Direction, Learning, Leg, LegKey, LegSet, Mode, Path, Placement, RtpLeg,
    RtpLocal, from_dataplane::Body, leg::Kind, news, path,
};

use crate::{
    Attachment, Config, Engine, HEAD_BYTES, Input, Limits, Listener, Output, Packet, SocketId, SpillOrder,
    SpillWord,
};

pub(crate) const CONTEXT: u64 = 7;

/// What a driver would have done.
#[derive(Debug)]
pub(crate) enum Done {
    Sent(SocketId, Bytes),
    Aimed(SocketId, Option<SocketAddr>, bool),
    Closed(SocketId),
    Answer(Body),
    Spooled(Packet),
    /// Something of a connection.
    Stream(Output),
}

pub(crate) struct Rig {
    pub(crate) engine: Engine,
    pub(crate) out: Outbox<Output>,
    pub(crate) now: Now,
    pub(crate) generation: u64,
    /// What was written to each connection and not yet read by its peer.
    pub(crate) wire: BTreeMap<u64, Vec<u8>>,
    /// Connections whose peer reads nothing.
    pub(crate) stalled: BTreeSet<u64>,
    pub(crate) disk: Disk,
}

/// What has the files of what waits for slow receivers.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) files: BTreeMap<u64, Vec<u8>>,
    pub(crate) waiting: VecDeque<SpillOrder>,
    /// It does nothing.
    pub(crate) stalled: bool,
    /// It writes nothing, or reads nothing.
    pub(crate) writes_fail: bool,
    pub(crate) reads_fail: bool,
    /// Octets of its largest file.
    pub(crate) most: usize,
}

impl Disk {
    /// Does what is next.
    pub(crate) fn next(&mut self) -> Option<SpillWord> {
        while let Some(order) = self.waiting.pop_front() {
            match order {
                SpillOrder::Write { file, bytes, .. } if self.writes_fail => {
                    return Some(SpillWord::Failed { file, bytes: bytes.len() });
                }
                SpillOrder::Write { file, mark, at, bytes } => {
                    let on_disk = self.files.entry(file.0).or_default();
                    let end = at as usize + bytes.len();
                    on_disk.resize(on_disk.len().max(end), 0);
                    on_disk[at as usize..end].copy_from_slice(&bytes);
                    self.most = self.most.max(on_disk.len());
                    return Some(SpillWord::Written { file, mark, bytes: bytes.len() });
                }
                SpillOrder::Fetch { file, .. } if self.reads_fail => {
                    return Some(SpillWord::Failed { file, bytes: 0 });
                }
                SpillOrder::Fetch { file, mark, at, length } => {
                    let bytes = Bytes::copy_from_slice(&self.files[&file.0][at as usize..][..length]);
                    return Some(SpillWord::Fetched { file, mark, bytes });
                }
                // Where nothing could be written there is none.
                SpillOrder::End { file } => drop(self.files.remove(&file.0)),
            }
        }
        None
    }
}

pub(crate) fn config(limits: Limits) -> Config {
    Config {
        shard: 1,
        shards: 3,
        msrp: Listener { authority: "192.0.2.1:2855".into() },
        msrps: Some(Listener { authority: "192.0.2.1:2856".into() }),
        relay: None,
        limits,
    }
}

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Where the peer of leg `n` is.
pub(crate) fn peer(n: u64) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, n as u8], 4000 + 2 * n as u16))
}

/// Leg `n` has its RTP on socket 2n and its RTCP on 2n+1.
pub(crate) fn socket(n: u64) -> SocketId {
    SocketId(2 * n as u32)
}

pub(crate) fn rtcp_socket(n: u64) -> SocketId {
    SocketId(2 * n as u32 + 1)
}

pub(crate) fn rtp_leg(n: u64) -> Leg {
    let rtp = RtpLeg {
        remote: Some(peer(n).into()),
        rtcp_mux: true,
        learning: Learning::Strict as i32,
        clock_rate: 8000,
        cname: format!("leg{n}"),
        ..RtpLeg::default()
    };
    Leg { id: n, context: CONTEXT, media: "audio".into(), kind: Some(Kind::Rtp(rtp)), ..Leg::default() }
}

pub(crate) fn edit(mut leg: Leg, change: impl FnOnce(&mut RtpLeg)) -> Leg {
    if let Some(Kind::Rtp(rtp)) = leg.kind.as_mut() {
        change(rtp);
    }
    leg
}

pub(crate) fn directed(leg: Leg, direction: Direction) -> Leg {
    Leg { direction: direction as i32, ..leg }
}

pub(crate) fn legs(ids: &[u64]) -> Option<LegSet> {
    Some(LegSet { legs: ids.to_vec(), media: String::new() })
}

pub(crate) fn path(id: u32, mode: Mode, sources: &[u64], targets: &[u64]) -> Path {
    Path {
        id,
        context: CONTEXT,
        mode: mode as i32,
        sources: legs(sources),
        targets: legs(targets),
        parameters: None::<path::Parameters>,
    }
}

pub(crate) fn put_leg(leg: Leg) -> Verb {
    Verb::PutLeg(leg)
}

pub(crate) fn put_path(path: Path) -> Verb {
    Verb::PutPath(path)
}

impl Rig {
    pub(crate) fn new() -> Self {
        Rig::with(Limits { sockets_max: 256, ..Limits::default() })
    }

    pub(crate) fn with(limits: Limits) -> Self {
        Rig::of(config(limits))
    }

    pub(crate) fn of(config: Config) -> Self {
        let engine = Engine::new(config, Entropy::from_number(1));
        let out = Outbox::with_max(engine.room_needed() * 2);
        let now =
            Now { mono: Instant::from_millis(1_000_000), wall: UnixTime::from_millis(1_800_000_000_000) };
        Rig {
            engine,
            out,
            now,
            generation: 0,
            wire: BTreeMap::new(),
            stalled: BTreeSet::new(),
            disk: Disk::default(),
        }
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.now.mono += Duration::from_millis(ms);
        self.now.wall = self.now.wall + Duration::from_millis(ms);
    }

    /// A batch, with the sockets that its RTP legs need.
    pub(crate) fn batch(&mut self, verbs: Vec<Verb>) -> (Body, Vec<Done>) {
        self.generation += 1;
        let generation = self.generation;
        self.batch_as(verbs, generation)
    }

    pub(crate) fn batch_as(&mut self, verbs: Vec<Verb>, generation: u64) -> (Body, Vec<Done>) {
        let mut attachments = Vec::new();
        for verb in &verbs {
            if let Verb::PutLeg(leg) = verb
                && let Some(Kind::Rtp(rtp)) = &leg.kind
                && crate::wanted::rides_on(leg).is_none()
                && (self.engine.placement(leg.key()).is_none() || self.rides(leg.id))
            {
                let bound = SocketAddr::from(([192, 0, 2, 1], 10_000 + 2 * leg.id as u16));
                let mux = rtp.rtcp_mux;
                attachments.push(Attachment {
                    leg: leg.key(),
                    rtp: socket(leg.id),
                    rtcp: (!mux).then(|| rtcp_socket(leg.id)),
                    local: RtpLocal {
                        interface: String::new(),
                        bound: Some(bound.into()),
                        advertised: Some(bound.into()),
                        rtcp_port: u32::from(bound.port()) + u32::from(!mux),
                    },
                });
            }
        }
        let changes = verbs.into_iter().map(|v| Change { verb: Some(v) }).collect();
        let batch = Batch { generation, epoch: 1, trace: String::new(), changes };
        let mut done = self.input(Input::Batch { batch: &batch, attachments: &attachments });
        let at = done
            .iter()
            .rposition(|d| matches!(d, Done::Answer(Body::Applied(_) | Body::Refusal(_))))
            .unwrap();
        let Done::Answer(body) = done.remove(at) else { panic!() };
        (body, done)
    }

    /// Whether a leg rides on the transport of another one now.
    fn rides(&self, leg: u64) -> bool {
        let wanted = self.engine.contexts.get(&CONTEXT).and_then(|context| context.wanted.legs.get(&leg));
        wanted.is_some_and(|leg| crate::wanted::rides_on(leg).is_some())
    }

    /// A batch that must be applied.
    pub(crate) fn put(&mut self, verbs: Vec<Verb>) -> Vec<Done> {
        let (body, done) = self.batch(verbs);
        assert!(matches!(body, Body::Applied(_)), "{body:?}");
        done
    }

    /// The context with these legs and paths.
    pub(crate) fn set(&mut self, legs: Vec<Leg>, paths: Vec<Path>) -> Vec<Placement> {
        let mut verbs = vec![Verb::PutContext(Context { id: CONTEXT })];
        verbs.extend(legs.into_iter().map(Verb::PutLeg));
        verbs.extend(paths.into_iter().map(Verb::PutPath));
        let (body, _) = self.batch(verbs);
        let Body::Applied(applied) = body else { panic!("{body:?}") };
        applied.placements
    }

    pub(crate) fn input(&mut self, input: Input<'_>) -> Vec<Done> {
        let datagram = if let Input::Datagram { bytes, .. } = &input { bytes.to_vec() } else { Vec::new() };
        self.engine.handle(self.now, input, &mut self.out);
        let mut done = self.perform(&datagram);
        self.deliver(&mut done);
        done
    }

    /// What connections have to send goes out; what went out is acknowledged, unless its peer is stalled.
    pub(crate) fn deliver(&mut self, done: &mut Vec<Done>) {
        loop {
            let more = self.engine.flush(&mut self.out);
            let (mut rest, mut acks) = (Vec::new(), Vec::new());
            let performed = self.perform(&[]);
            for one in done.drain(..).chain(performed) {
                match one {
                    Done::Stream(Output::Write { conn, bytes }) => {
                        self.wire.entry(conn.0).or_default().extend_from_slice(&bytes);
                        if !self.stalled.contains(&conn.0) {
                            acks.push((conn, bytes.len()));
                        }
                    }
                    Done::Stream(Output::WriteAll { conn, pieces }) => {
                        let wire = self.wire.entry(conn.0).or_default();
                        pieces.iter().for_each(|bytes| wire.extend_from_slice(bytes));
                        if !self.stalled.contains(&conn.0) {
                            acks.push((conn, pieces.iter().map(Bytes::len).sum()));
                        }
                    }
                    Done::Stream(Output::Spill(order)) => self.disk.waiting.push_back(*order),
                    other => rest.push(other),
                }
            }
            *done = rest;
            let mut quiet = acks.is_empty() && !more;
            while !self.disk.stalled
                && let Some(word) = self.disk.next()
            {
                quiet = false;
                self.engine.handle(self.now, Input::Spilled(word), &mut self.out);
                let performed = self.perform(&[]);
                done.extend(performed);
            }
            for (conn, bytes) in acks {
                self.engine.handle(self.now, Input::Sent { conn, bytes }, &mut self.out);
                let performed = self.perform(&[]);
                done.extend(performed);
            }
            if quiet {
                return;
            }
        }
    }

    pub(crate) fn perform(&mut self, datagram: &[u8]) -> Vec<Done> {
        assert_eq!(self.out.refused(), 0);
        let engine = &self.engine;
        self.out
            .drain()
            .map(|output| match output {
                Output::SendHeld { socket, at, length } => {
                    Done::Sent(socket, Bytes::copy_from_slice(engine.held(at, length)))
                }
                Output::Forward { socket } => Done::Sent(socket, Bytes::copy_from_slice(datagram)),
                Output::ForwardPatched { socket, head } => {
                    let mut bytes = datagram.to_vec();
                    bytes[..HEAD_BYTES].copy_from_slice(&head);
                    Done::Sent(socket, bytes.into())
                }
                Output::SendBytes { socket, bytes } => Done::Sent(socket, bytes),
                Output::Aim { socket, to, exclusive } => Done::Aimed(socket, to, exclusive),
                Output::CloseSocket { socket } => Done::Closed(socket),
                Output::Answer(answer) => Done::Answer(answer.body.unwrap()),
                Output::Spool(packet) => Done::Spooled(*packet),
                other => Done::Stream(other),
            })
            .collect()
    }

    /// A datagram from leg `n`'s peer to its RTP socket.
    pub(crate) fn hear_peer(&mut self, n: u64, bytes: &[u8]) -> Vec<Done> {
        self.datagram(socket(n), peer(n), bytes)
    }

    pub(crate) fn datagram(&mut self, socket: SocketId, from: SocketAddr, bytes: &[u8]) -> Vec<Done> {
        self.input(Input::Datagram { socket, from, bytes })
    }

    /// Everything due up to `ms` from now, in steps of 10 ms.
    pub(crate) fn run(&mut self, ms: u64) -> Vec<Done> {
        let mut done = Vec::new();
        for _ in 0..ms / 10 {
            self.pass(10);
            if self.engine.next_timeout().is_some_and(|at| at <= self.now.mono) {
                self.engine.timeout(self.now, &mut self.out);
                let mut now = self.perform(&[]);
                self.deliver(&mut now);
                done.extend(now);
            }
        }
        done
    }

    /// What was received is what was forwarded, consumed and dropped.
    pub(crate) fn check_sum(&self) {
        let totals = self.engine.totals();
        let dropped: u64 = crate::Drop::ALL
            .iter()
            .filter(|d| !d.label().starts_with("msrp") && !d.label().starts_with("outpost"))
            .filter(|d| **d != crate::Drop::Outbox)
            .map(|d| totals.dropped(*d))
            .sum();
        assert_eq!(
            totals.packets_in,
            totals.packets_forwarded + totals.packets_consumed + dropped,
            "{totals:?}"
        );
    }
}

/// An RTP packet.
pub(crate) fn packet(ssrc: u32, sequence: u16, timestamp: u32, payload_type: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80, payload_type];
    bytes.extend_from_slice(&sequence.to_be_bytes());
    bytes.extend_from_slice(&timestamp.to_be_bytes());
    bytes.extend_from_slice(&ssrc.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// What was sent, by socket.
pub(crate) fn sent(done: &[Done]) -> Vec<(SocketId, &[u8])> {
    done.iter().filter_map(|d| if let Done::Sent(s, b) = d { Some((*s, &b[..])) } else { None }).collect()
}

pub(crate) fn sockets(done: &[Done]) -> Vec<SocketId> {
    sent(done).into_iter().map(|(s, _)| s).collect()
}

pub(crate) fn news(done: &[Done]) -> Vec<&news::What> {
    done.iter()
        .filter_map(|d| if let Done::Answer(Body::News(n)) = d { n.what.as_ref() } else { None })
        .collect()
}

pub(crate) fn address(a: SocketAddr) -> Option<Address> {
    Some(a.into())
}

pub(crate) const fn key(leg: u64) -> LegKey {
    LegKey::new(CONTEXT, leg)
}
