//! Several engines with a room between them, all in one thread: mailboxes in order for each pair, and from pair to pair in
//! whatever order the seed says. Leg n is on shard n modulo their number, on connection n.

use std::collections::{BTreeMap, VecDeque};

use base::Entropy;
use bytes::Bytes;
use contract::change::Verb;
use contract::{Batch, Change, Context, Leg, LegSet, Mode, Path, Switch, from_dataplane::Body};
use contract::{path::Parameters, placement::At};
use msrp::{Method, Status};

use super::phone::{Read, adjust, conn, cpim, msrp_leg, parse, their, user};
use super::rig::{CONTEXT, Done, Rig, addr, config, path, peer};
use crate::{Config, Elsewhere, Engine, Handed, Input, Limits, Listener, Output, Standing};

pub(super) const ROOM: &str = "sip:room@conference.example.com";

enum Mail {
    Handed(Box<Handed>),
    Follow(Box<Standing>),
}

pub(super) struct Rooms {
    pub(super) rigs: Vec<Rig>,
    boxes: BTreeMap<(usize, usize), VecDeque<Mail>>,
    pub(super) chance: Entropy,
    ours: BTreeMap<u64, String>,
    generation: u64,
    /// What was done besides, by shard.
    pub(super) done: Vec<(usize, Done)>,
}

pub(super) fn member(n: u64) -> Leg {
    let leg = adjust(msrp_leg(n), |m| {
        m.addresses = vec![user(n), format!("sip:other{n}@example.com")];
        m.accept_types = vec!["message/cpim".into()];
        m.accept_wrapped_types = vec!["text/plain".into(), "message/imdn+xml".into()];
        m.private_messages = n != 3;
    });
    Leg { participant: format!("p{n}"), ..leg }
}

fn room() -> Path {
    let all = Some(LegSet { legs: vec![], media: "msrp".into() });
    let switch = Switch {
        room: vec![ROOM.into()],
        private_messages: true,
        nicknames: true,
        nickname_required: false,
        max_size: 0,
    };
    Path {
        sources: all.clone(),
        targets: all,
        parameters: Some(Parameters::Switch(switch)),
        ..path(1, Mode::Switch, &[], &[])
    }
}

impl Rooms {
    /// Members 1 to `members`, all connected.
    pub(super) fn up(shards: usize, members: u64, seed: u64) -> Rooms {
        let limits = Limits { sockets_max: 16, ..Limits::default() };
        Rooms::up_with(limits, shards, members, seed)
    }

    pub(super) fn up_with(limits: Limits, shards: usize, members: u64, seed: u64) -> Rooms {
        let at = |shard: usize| Listener { authority: format!("192.0.2.{shard}:2855") };
        let listeners: Vec<_> = (0..shards).map(|shard| (at(shard), None)).collect();
        let rig = |shard: usize| {
            let config = Config {
                shard: shard as u16,
                shards: shards as u16,
                msrp: at(shard),
                ..config(limits.clone())
            };
            let mut rig = Rig::of(config.clone());
            rig.engine = Engine::new(config, Entropy::from_number(seed * 100 + shard as u64));
            rig.engine.set_listeners(listeners.clone());
            rig
        };
        let mut rooms = Rooms {
            rigs: (0..shards).map(rig).collect(),
            boxes: BTreeMap::new(),
            chance: Entropy::from_number(seed),
            ours: BTreeMap::new(),
            generation: 0,
            done: Vec::new(),
        };
        let mut verbs = vec![Verb::PutContext(Context { id: CONTEXT })];
        verbs.extend((1..=members).map(|n| Verb::PutLeg(member(n))));
        verbs.push(Verb::PutPath(room()));
        rooms.batch(verbs);
        rooms.deliver();
        for n in 1..=members {
            rooms.connect(n);
        }
        rooms
    }

    pub(super) fn place(&self, n: u64) -> usize {
        (n % self.rigs.len() as u64) as usize
    }

    pub(super) fn rig_of(&mut self, n: u64) -> &mut Rig {
        let place = self.place(n);
        &mut self.rigs[place]
    }

    /// A batch as steward and shards hand it about; the standings are left in the mailboxes.
    pub(super) fn batch(&mut self, verbs: Vec<Verb>) {
        self.generation += 1;
        let legs: Vec<u64> = verbs
            .iter()
            .filter_map(|verb| if let Verb::PutLeg(leg) = verb { Some(leg.id) } else { None })
            .collect();
        let elsewhere = legs.into_iter().filter(|n| self.place(*n) != 0);
        let elsewhere: Vec<Elsewhere> = elsewhere
            .map(|n| Elsewhere { leg: super::rig::key(n), shard: self.place(n) as u16, local: None })
            .collect();
        let changes = verbs.into_iter().map(|verb| Change { verb: Some(verb) }).collect();
        let batch = Batch { generation: self.generation, epoch: 1, trace: String::new(), changes };
        let done =
            self.rigs[0].input(Input::SpreadBatch { batch: &batch, attachments: &[], elsewhere: &elsewhere });
        for placed in done.iter().flat_map(|done| match done {
            Done::Answer(Body::Applied(applied)) => applied.placements.as_slice(),
            Done::Answer(Body::Refusal(refusal)) => panic!("{refusal:?}"),
            _ => &[],
        }) {
            let Some(At::Msrp(local)) = &placed.at else { panic!() };
            assert!(local.path.starts_with(&format!("msrp://192.0.2.{}:2855/", self.place(placed.leg))));
            self.ours.insert(placed.leg, local.path.clone());
        }
        self.collect(0, done);
        for to in 1..self.rigs.len() {
            let standing = Box::new(self.rigs[0].engine.standing(CONTEXT));
            self.boxes.entry((0, to)).or_default().push_back(Mail::Follow(standing));
        }
    }

    fn collect(&mut self, shard: usize, done: Vec<Done>) {
        for one in done {
            match one {
                Done::Stream(Output::Hand { shard: to, handed }) => {
                    assert!(handed.must_arrive() && usize::from(to) != shard);
                    self.boxes.entry((shard, to.into())).or_default().push_back(Mail::Handed(handed));
                }
                other => self.done.push((shard, other)),
            }
        }
    }

    pub(super) fn input(&mut self, shard: usize, input: Input<'_>) {
        let done = self.rigs[shard].input(input);
        self.collect(shard, done);
    }

    /// One letter of some mailbox; false when there is none.
    pub(super) fn step(&mut self) -> bool {
        let full: Vec<_> =
            self.boxes.iter().filter(|(_, mail)| !mail.is_empty()).map(|(at, _)| *at).collect();
        if full.is_empty() {
            return false;
        }
        let at = full[self.chance.below(full.len() as u64) as usize];
        match self.boxes.get_mut(&at).and_then(VecDeque::pop_front).unwrap() {
            Mail::Handed(handed) => self.input(at.1, Input::Handed(&handed)),
            Mail::Follow(standing) => {
                self.input(at.1, Input::Follow { standing: &standing, attachments: &[] })
            }
        }
        true
    }

    /// All letters.
    pub(super) fn deliver(&mut self) {
        while self.step() {}
    }

    pub(super) fn letters(&self) -> usize {
        self.boxes.values().map(VecDeque::len).sum()
    }

    /// Time passes everywhere, and all letters arrive.
    pub(super) fn run(&mut self, ms: u64) {
        for shard in 0..self.rigs.len() {
            let done = self.rigs[shard].run(ms);
            self.collect(shard, done);
        }
        self.deliver();
    }

    pub(super) fn connect(&mut self, n: u64) {
        self.bind(n);
        assert_eq!(self.read(n)[0].status(), Some(Status::OK));
    }

    /// The same; what comes then is not read yet.
    pub(super) fn bind(&mut self, n: u64) {
        let local = addr("192.0.2.1:2855");
        let (tls, fingerprint, dial) = (false, None, None);
        let opened = Input::Opened { conn: conn(n), dial, tls, fingerprint, peer: peer(n), local };
        self.input(self.place(n), opened);
        let empty = self.request(n, "bind", "Message-ID: bind\r\nByte-Range: 1-0/0\r\n", None, '$');
        self.say(n, &empty);
    }

    pub(super) fn request(&self, n: u64, tid: &str, lines: &str, body: Option<&[u8]>, flag: char) -> Vec<u8> {
        let head =
            format!("MSRP {tid} SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\n{lines}", self.ours[&n], their(n));
        let mut bytes = head.into_bytes();
        if let Some(body) = body {
            bytes.extend_from_slice(&[b"\r\n", body, b"\r\n"].concat());
        }
        bytes.extend_from_slice(format!("-------{tid}{flag}\r\n").as_bytes());
        bytes
    }

    /// A chunk of a message to the room: octets `from..to` of it.
    pub(super) fn chunk(&self, n: u64, id: &str, whole: &[u8], span: (usize, usize), more: &str) -> Vec<u8> {
        let (from, to) = span;
        let (first, last, total) = (from + 1, to, whole.len());
        let lines = format!(
            "Message-ID: {id}\r\nByte-Range: {first}-{last}/{total}\r\n{more}Content-Type: message/cpim\r\n"
        );
        let tid = format!("{id}at{from}");
        self.request(n, &tid, &lines, Some(&whole[from..to]), if to == total { '$' } else { '+' })
    }

    pub(super) fn say(&mut self, n: u64, bytes: &[u8]) {
        let bytes = Bytes::copy_from_slice(bytes);
        self.input(self.place(n), Input::Received { conn: conn(n), bytes });
    }

    /// A whole message.
    pub(super) fn chat(&mut self, n: u64, id: &str, to: &str, text: &str) {
        let whole = cpim(n, to, "text/plain", text);
        let bytes = self.chunk(n, id, &whole, (0, whole.len()), "");
        self.say(n, &bytes);
    }

    /// What came to a peer.
    pub(super) fn read(&mut self, n: u64) -> Vec<Read> {
        let rig = self.rig_of(n);
        let bytes = rig.wire.remove(&n).unwrap_or_default();
        let (rest, read) = parse(&bytes);
        if !rest.is_empty() {
            rig.wire.insert(n, rest);
        }
        read
    }

    /// Whole messages that came, put together, in the order of their ends; and those that were given up.
    pub(super) fn messages(&mut self, n: u64) -> (Vec<Vec<u8>>, usize) {
        let (mut open, mut whole, mut aborted) = (BTreeMap::<String, Vec<u8>>::new(), Vec::new(), 0);
        for read in self.read(n).into_iter().filter(|read| read.is(Method::Send)) {
            let id = read.head.message_id().to_owned();
            let begun = open.entry(id.clone()).or_default();
            assert_eq!(read.head.byte_range().unwrap().start, begun.len() as u64 + 1, "in order, once");
            begun.extend_from_slice(&read.body);
            match read.flag {
                msrp::Flag::More => {}
                msrp::Flag::Last => whole.push(open.remove(&id).unwrap()),
                msrp::Flag::Abort => {
                    aborted += 1;
                    open.remove(&id);
                }
            }
        }
        assert!(open.is_empty(), "each message that began ends");
        (whole, aborted)
    }

    /// The statuses of responses and REPORTs that came, whichever.
    pub(super) fn statuses(&mut self, n: u64) -> Vec<u16> {
        let read = self.read(n);
        read.iter().filter_map(|read| read.status().or(read.head.status())).map(|status| status.0).collect()
    }

    /// Nobody from elsewhere is left.
    pub(super) fn check_guests(&mut self) {
        self.deliver();
        for rig in &self.rigs {
            let tables = rig.engine.msrp_tables();
            assert!(tables.iter().all(|(name, count)| !["guests", "letters"].contains(name) || *count == 0));
        }
    }

    /// What is over holds nothing.
    pub(super) fn check_rest(&mut self) {
        self.check_guests();
        for rig in &self.rigs {
            for (name, count) in rig.engine.msrp_tables() {
                let rests = ["messages", "held messages", "guests", "letters", "sources blocked", "octets"];
                assert!(!rests.contains(&name) || count == 0, "{count} {name}");
            }
            assert_eq!(rig.engine.dropped(crate::Drop::Outbox), 0);
        }
    }
}
