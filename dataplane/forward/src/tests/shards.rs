//! Several engines with mailboxes between them, all in one thread: in order for each pair, and from pair to pair in whatever
//! order the seed says.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use base::{Entropy, Instant, Now, Outbox, UnixTime};
use bytes::Bytes;
use contract::change::Verb;
use contract::{
    Batch, Change, Context, Leg, LegSet, Mode, Path, RtpLocal, from_dataplane::Body, leg::Kind, news,
};
use rtp::{Packet, compound};

use super::rig::{CONTEXT, addr, config, peer, put_leg, rtp_leg, socket};
use crate::{Attachment, Drop, Elsewhere, Engine, HEAD_BYTES, Handed, Input, Limits, Output, Standing};

pub(super) const HOME: u16 = 0;

/// What is on its way from one shard to another.
pub(super) enum Letter {
    Handed(Box<Handed>),
    Follow(Box<Standing>, Vec<Attachment>),
}

/// A datagram that left, from which leg's socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Left {
    pub(super) leg: u64,
    pub(super) bytes: Bytes,
}

pub(super) struct Shards {
    pub(super) engines: Vec<Engine>,
    pub(super) out: Outbox<Output>,
    pub(super) boxes: BTreeMap<(u16, u16), VecDeque<Letter>>,
    /// Messages of one mailbox.
    pub(super) room: usize,
    pub(super) chance: Entropy,
    pub(super) now: Now,
    generation: u64,
    pub(super) left: Vec<Left>,
    pub(super) closed: Vec<u64>,
    pub(super) news: Vec<news::What>,
}

/// Where the tests' legs are: leg n on shard n modulo the number of shards.
pub(super) fn place(leg: u64, shards: usize) -> u16 {
    (leg % shards as u64) as u16
}

impl Shards {
    pub(super) fn new(count: usize, seed: u64) -> Self {
        let limits = Limits { sockets_max: 256, ..Limits::default() };
        let engine = |shard: u16| {
            let config = crate::Config { shard, shards: count as u16, ..config(limits.clone()) };
            Engine::new(config, Entropy::from_number(seed * 100 + u64::from(shard)))
        };
        let engines: Vec<Engine> = (0..count as u16).map(engine).collect();
        let out = Outbox::with_max(engines[0].room_needed() * 2);
        let now =
            Now { mono: Instant::from_millis(1_000_000), wall: UnixTime::from_millis(1_800_000_000_000) };
        Shards {
            engines,
            out,
            boxes: BTreeMap::new(),
            room: 10_000,
            chance: Entropy::from_number(seed),
            now,
            generation: 0,
            left: Vec::new(),
            closed: Vec::new(),
            news: Vec::new(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.engines.len()
    }

    pub(super) fn input(&mut self, shard: u16, input: Input<'_>) -> Option<Body> {
        let datagram = match &input {
            Input::Datagram { bytes, .. } => bytes.to_vec(),
            Input::Handed(handed) => handed.datagram().to_vec(),
            _ => Vec::new(),
        };
        let engine = &mut self.engines[usize::from(shard)];
        engine.handle(self.now, input, &mut self.out);
        self.perform(shard, &datagram)
    }

    fn perform(&mut self, shard: u16, datagram: &[u8]) -> Option<Body> {
        assert_eq!(self.out.refused(), 0);
        let mut answer = None;
        for output in self.out.drain().collect::<Vec<_>>() {
            let engine = &mut self.engines[usize::from(shard)];
            let (socket, bytes) = match output {
                Output::Forward { socket } => (socket, datagram.to_vec()),
                Output::ForwardPatched { socket, head } => {
                    let mut bytes = datagram.to_vec();
                    bytes[..HEAD_BYTES].copy_from_slice(&head);
                    (socket, bytes)
                }
                Output::SendHeld { socket, at, length } => (socket, engine.held(at, length).to_vec()),
                Output::SendBytes { socket, bytes } => (socket, bytes.to_vec()),
                Output::Hand { shard: to, handed } => {
                    assert_ne!(to, shard, "nobody writes to himself");
                    let mailbox = self.boxes.entry((shard, to)).or_default();
                    if mailbox.len() < self.room {
                        mailbox.push_back(Letter::Handed(handed));
                    } else {
                        engine.not_handed();
                    }
                    continue;
                }
                Output::CloseSocket { socket } => {
                    self.closed.push(u64::from(socket.0 / 2));
                    continue;
                }
                Output::Answer(body) => {
                    match body.body {
                        Some(Body::News(contract::News { what: Some(what) })) => self.news.push(what),
                        other => answer = other,
                    }
                    continue;
                }
                _ => continue,
            };
            let leg = u64::from(socket.0 / 2);
            assert_eq!(place(leg, self.count()), shard, "a leg's socket is used on its own shard only");
            self.left.push(Left { leg, bytes: bytes.into() });
        }
        answer
    }

    /// A batch as steward and shards hand it about; the standings are left in the mailboxes.
    pub(super) fn batch(&mut self, verbs: Vec<Verb>) -> Body {
        self.generation += 1;
        let generation = self.generation;
        self.batch_as(verbs, generation)
    }

    pub(super) fn batch_as(&mut self, verbs: Vec<Verb>, generation: u64) -> Body {
        let count = self.count();
        let (mut bound, mut elsewhere) = (BTreeMap::<u16, Vec<Attachment>>::new(), Vec::new());
        for verb in &verbs {
            let Verb::PutLeg(leg) = verb else { continue };
            if !matches!(leg.kind, Some(Kind::Rtp(_))) {
                continue;
            }
            let shard = place(leg.id, count);
            let known = self.engines[usize::from(HOME)].placement(leg.key()).is_some();
            let local = local(leg.id);
            if !known {
                let attachment =
                    Attachment { leg: leg.key(), rtp: socket(leg.id), rtcp: None, local: local.clone() };
                bound.entry(shard).or_default().push(attachment);
            }
            if shard != HOME {
                elsewhere.push(Elsewhere { leg: leg.key(), shard, local: (!known).then_some(local) });
            }
        }
        let changes = verbs.into_iter().map(|verb| Change { verb: Some(verb) }).collect();
        let batch = Batch { generation, epoch: 1, trace: String::new(), changes };
        let attachments = bound.remove(&HOME).unwrap_or_default();
        let input = Input::SpreadBatch { batch: &batch, attachments: &attachments, elsewhere: &elsewhere };
        let answer = self.input(HOME, input).expect("an answer");
        if matches!(answer, Body::Applied(_)) {
            for shard in 1..count as u16 {
                let standing = Box::new(self.engines[usize::from(HOME)].standing(CONTEXT));
                let attachments = bound.remove(&shard).unwrap_or_default();
                let mailbox = self.boxes.entry((HOME, shard)).or_default();
                mailbox.push_back(Letter::Follow(standing, attachments));
            }
        }
        answer
    }

    /// A batch that all have followed.
    pub(super) fn put(&mut self, verbs: Vec<Verb>) {
        let answer = self.batch(verbs);
        assert!(matches!(answer, Body::Applied(_)), "{answer:?}");
        self.deliver();
    }

    /// The context with these legs, each hearing all the others.
    pub(super) fn room(&mut self, legs: Vec<Leg>) {
        let all = Some(LegSet { legs: vec![], media: "audio".into() });
        let path = Path {
            id: 1,
            context: CONTEXT,
            mode: Mode::Distribute as i32,
            sources: all.clone(),
            targets: all,
            ..Path::default()
        };
        let mut verbs = vec![Verb::PutContext(Context { id: CONTEXT })];
        verbs.extend(legs.into_iter().map(put_leg));
        verbs.push(Verb::PutPath(path));
        self.put(verbs);
    }

    /// One message of some mailbox; false when all are empty.
    pub(super) fn step(&mut self) -> bool {
        let full: Vec<(u16, u16)> =
            self.boxes.iter().filter(|(_, b)| !b.is_empty()).map(|(k, _)| *k).collect();
        if full.is_empty() {
            return false;
        }
        let pair = full[self.chance.below(full.len() as u64) as usize];
        match self.boxes.get_mut(&pair).and_then(VecDeque::pop_front) {
            Some(Letter::Handed(handed)) => {
                self.input(pair.1, Input::Handed(&handed));
            }
            Some(Letter::Follow(standing, attachments)) => {
                let input = Input::Follow { standing: &standing, attachments: &attachments };
                assert_eq!(self.input(pair.1, input), None, "nobody is answered by an outpost");
            }
            None => {}
        }
        true
    }

    pub(super) fn deliver(&mut self) {
        while self.step() {}
    }

    /// A datagram from a leg's peer, to its own shard; nothing of it is delivered yet.
    pub(super) fn hear(&mut self, leg: u64, bytes: &[u8]) {
        let shard = place(leg, self.count());
        self.input(shard, Input::Datagram { socket: socket(leg), from: peer(leg), bytes });
    }

    /// The same, with all that comes of it.
    pub(super) fn hear_all(&mut self, leg: u64, bytes: &[u8]) -> Vec<Left> {
        self.left.clear();
        self.hear(leg, bytes);
        self.deliver();
        std::mem::take(&mut self.left)
    }

    pub(super) fn run(&mut self, ms: u64) -> Vec<Left> {
        self.left.clear();
        for _ in 0..ms / 10 {
            self.now.mono += Duration::from_millis(10);
            self.now.wall = self.now.wall + Duration::from_millis(10);
            for shard in 0..self.count() as u16 {
                let engine = &mut self.engines[usize::from(shard)];
                if engine.next_timeout().is_some_and(|at| at <= self.now.mono) {
                    engine.timeout(self.now, &mut self.out);
                    self.perform(shard, &[]);
                }
            }
            self.deliver();
        }
        std::mem::take(&mut self.left)
    }

    /// What was handed out has come in, and what came in was taken or dropped; datagrams as ever.
    pub(super) fn check_sums(&self) {
        let (mut out, mut came) = (0, 0);
        for engine in &self.engines {
            let totals = engine.totals();
            let apart = |d: &&Drop| {
                !d.label().starts_with("msrp") && !d.label().starts_with("outpost") && **d != Drop::Outbox
            };
            let dropped: u64 = Drop::ALL.iter().filter(apart).map(|d| totals.dropped(*d)).sum();
            assert_eq!(
                totals.packets_in,
                totals.packets_forwarded + totals.packets_consumed + dropped,
                "{totals:?}"
            );
            let lost = totals.dropped(Drop::OutpostUnknown) + totals.dropped(Drop::OutpostUnsent);
            assert_eq!(totals.handed_in, totals.handed_taken + lost, "{totals:?}");
            out += totals.handed_out - totals.dropped(Drop::OutpostFull);
            came += totals.handed_in;
        }
        assert_eq!(out, came);
    }
}

pub(super) fn local(leg: u64) -> RtpLocal {
    let bound = addr(&format!("192.0.2.1:{}", 10_000 + 2 * leg));
    RtpLocal {
        bound: Some(bound.into()),
        advertised: Some(bound.into()),
        rtcp_port: u32::from(bound.port()),
        ..RtpLocal::default()
    }
}

pub(super) fn to(left: &[Left], leg: u64) -> Vec<&[u8]> {
    left.iter().filter(|l| l.leg == leg).map(|l| &l.bytes[..]).collect()
}

pub(super) fn reports(left: &[Left], leg: u64) -> Vec<Packet<'_>> {
    let rtcp = to(left, leg).into_iter().filter(|bytes| matches!(rtp::kind(bytes), rtp::Kind::Rtcp));
    rtcp.flat_map(|bytes| compound(bytes, true).unwrap()).collect()
}

pub(super) fn byes(left: &[Left], leg: u64) -> Vec<u32> {
    let of =
        |p: Packet<'_>| if let Packet::Bye(sources) = p { Some(sources.collect::<Vec<_>>()) } else { None };
    reports(left, leg).into_iter().filter_map(of).flatten().collect()
}

pub(super) fn three(ids: impl Iterator<Item = u64>, seed: u64) -> Shards {
    let mut shards = Shards::new(3, seed);
    shards.room(ids.map(rtp_leg).collect());
    shards
}
