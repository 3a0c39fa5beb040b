//! The world of one seed: its events in their order, the engines, the network between.

use std::collections::{BTreeMap, VecDeque};

use base::{Entropy, Instant, Now, Outbox, UnixTime};
use bytes::Bytes;
use contract::from_dataplane::Body;
use forward::{CloseReason, Config, ConnId, DialId, Engine, Input, Limits, Listener, Output};

use crate::Cover;
use crate::dice::Dice;
use crate::disk::Disk;
use crate::link::{Chunk, Link, Mark};
use crate::mutate::{Mutation, Mutator};
use crate::said::Said;
use crate::seat::{Seat, Standing};
use crate::shards::Shards;

/// Something that will happen.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Act(usize),
    Connect(usize),
    Dialed {
        shard: u16,
        dial: DialId,
        seat: Option<usize>,
        works: bool,
    },
    Up(u64),
    Kernel(u64),
    Down(u64),
    /// The engine hears that a connection is gone.
    Gone(u64, CloseReason),
    Decide {
        shard: u16,
        decide: contract::Decide,
    },
    /// A shard's disk does something.
    Disk(u16),
    Repair(usize),
    Join(u64),
    Leave(usize),
    /// Something may be in the mailbox of the second shard, from the first.
    Mail(u16, u16),
}

/// The shape of a context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    Room,
    /// The first member's messages go to all others, theirs to it.
    Relay,
}

/// An answer that is awaited.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) seat: usize,
    pub(crate) link: u64,
    pub(crate) said: Option<usize>,
    /// An answer must come, if any may.
    pub(crate) must: bool,
    pub(crate) may_succeed: bool,
    pub(crate) may_fail: bool,
    pub(crate) expected: Option<Vec<u16>>,
    /// The engine has had all of it.
    pub(crate) fed: bool,
    pub(crate) codes: Vec<u16>,
}

/// What a seat reads as one message.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) seat: usize,
    pub(crate) link: u64,
    pub(crate) id: String,
    /// Which messages it may be, by the octets so far.
    pub(crate) candidates: Vec<usize>,
    pub(crate) got: msrp::Ranges,
    pub(crate) last: Option<u64>,
    pub(crate) total: Option<u64>,
    /// It is whole; of all that came whole the how manieth.
    pub(crate) done: Option<u64>,
    pub(crate) aborted: bool,
    pub(crate) twice: bool,
    pub(crate) after_end: bool,
    /// Where in what the link carries it ended.
    pub(crate) end_at: u64,
    /// Its peer answered with an error, or not at all.
    pub(crate) whim: Option<Whim>,
    /// Its peer reported success.
    pub(crate) reported: bool,
}

/// What a peer does out of order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Whim {
    None,
    Refuses,
    Silent,
}

pub(crate) const SHARDS: u16 = 3;
const STEPS_MAX: u64 = 400_000;

/// One seed's world.
pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) step: u64,
    number: u64,
    events: BTreeMap<(u64, u64), Event>,
    pub(crate) dice: Dice,
    pub(crate) engines: Vec<Engine>,
    pub(crate) disks: Vec<Disk>,
    out: Outbox<Output>,
    pub(crate) shards: Shards,
    pub(crate) links: BTreeMap<u64, Link>,
    pub(crate) conns: u64,
    pub(crate) shapes: BTreeMap<u64, Shape>,
    pub(crate) seats: Vec<Seat>,
    pub(crate) said: Vec<Said>,
    pub(crate) by_id: BTreeMap<(usize, String), usize>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) by_tid: BTreeMap<(usize, String), usize>,
    pub(crate) incoming: Vec<Incoming>,
    pub(crate) by_shown: BTreeMap<(u64, String), usize>,
    pub(crate) completed: u64,
    pub(crate) generations: Vec<u64>,
    pub(crate) applied: Option<Body>,
    /// Connections that were paused just now.
    held_back: Vec<u64>,
    pub(crate) legs: u64,
    pub(crate) mutator: Mutator,
    /// Whether members, connections and messages still come and go.
    pub(crate) calm: bool,
    pub(crate) stall_for: u64,
    pub(crate) cover: Cover,
    pub(crate) faults: Vec<String>,
    pub(crate) trace: VecDeque<String>,
    pub(crate) verbose: bool,
}

impl World {
    pub(crate) fn new(seed: u64, broken: Option<Mutation>) -> Self {
        let mut dice = Dice::new(seed);
        let limits = Limits {
            contexts_max: 4,
            legs_max: 64,
            context_legs_max: 64,
            context_slots_max: 1,
            batch_changes_max: 64,
            sockets_max: 1,
            targets_max: 32,
            nack_legs_max: 0,
            connections_max: 256,
            inflight_bytes_max: dice.between(2000, 20_000) as usize,
            queue_bytes_max: dice.between(12_000, 80_000) as usize,
            held_bytes_max: dice.between(20_000, 100_000) as usize,
            held_messages_max: dice.between(2, 12) as usize,
            held_ms: dice.between(2000, 15_000),
            handed_bytes_max: dice.between(3000, 60_000) as usize,
            tap_bytes_max: dice.between(20_000, 400_000) as usize,
            tap_messages_max: dice.between(2, 40) as usize,
            arrival_ms: 10_000,
            response_ms: 30_000,
            incomplete_ms: 60_000,
            slow_ms: dice.between(8000, 40_000),
            report_ms: 120_000,
            spill_bytes_max: if dice.percent(75) { dice.between(30_000, 400_000) } else { 0 },
            spill_file_bytes_max: dice.between(10_000, 200_000),
            spill_files_max: dice.between(1, 8) as usize,
            spill_unwritten_bytes_max: dice.between(5000, 60_000) as usize,
            ..Limits::default()
        };
        let listener = |shard: u16| Listener { authority: format!("192.0.2.1:{}", 2855 + shard) };
        let listeners: Vec<_> = (0..SHARDS).map(|shard| (listener(shard), None)).collect();
        let engine = |shard: u16| {
            let config = Config {
                shard,
                shards: SHARDS,
                msrp: listener(shard),
                msrps: None,
                relay: None,
                limits: limits.clone(),
            };
            let entropy = Entropy::from_number(seed.wrapping_mul(8).wrapping_add(u64::from(shard)));
            let mut engine = Engine::new(config, entropy);
            engine.set_listeners(listeners.clone());
            engine
        };
        let engines: Vec<Engine> = (0..SHARDS).map(engine).collect();
        let out = Outbox::with_max(engines[0].room_needed() * 2);
        let mut world = World {
            now: 1_000_000,
            step: 0,
            number: 0,
            events: BTreeMap::new(),
            dice,
            engines,
            disks: (0..SHARDS).map(|_| Disk::default()).collect(),
            out,
            shards: Shards::default(),
            links: BTreeMap::new(),
            conns: 0,
            shapes: BTreeMap::new(),
            seats: Vec::new(),
            said: Vec::new(),
            by_id: BTreeMap::new(),
            asked: Vec::new(),
            by_tid: BTreeMap::new(),
            incoming: Vec::new(),
            by_shown: BTreeMap::new(),
            completed: 0,
            generations: vec![0; usize::from(SHARDS)],
            applied: None,
            held_back: Vec::new(),
            legs: 0,
            mutator: Mutator::new(broken, seed),
            calm: false,
            stall_for: limits.slow_ms,
            cover: Cover::default(),
            faults: Vec::new(),
            trace: VecDeque::new(),
            verbose: std::env::var_os("WEIR_SIMULATION_TRACE").is_some(),
        };
        world.begin();
        world
    }

    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        let line = format!("{:>9} ms {:>6}  {}", self.now - 1_000_000, self.step, text());
        if self.verbose {
            eprintln!("{line}");
        }
        if self.trace.len() == 60 {
            self.trace.pop_front();
        }
        self.trace.push_back(line);
    }

    pub(crate) fn fault(&mut self, text: String) {
        self.note(|| format!("FAULT {text}"));
        if self.faults.len() < 20 {
            self.faults.push(text);
        }
    }

    /// Something will happen in so many milliseconds.
    pub(crate) fn after(&mut self, ms: u64, event: Event) {
        self.number += 1;
        self.events.insert((self.now + ms, self.number), event);
    }

    /// Everything until nothing is left to happen.
    pub(crate) fn run(&mut self) {
        loop {
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let due = self.engines.iter().filter_map(Engine::next_timeout).min();
            let due = due.map(|at| at.as_nanos().div_ceil(1_000_000).max(self.now));
            match (event, due) {
                (_, Some(at)) if event.is_none_or(|event| at <= event) => {
                    self.now = at;
                    self.timeouts();
                }
                (Some(at), _) => {
                    self.now = at;
                    if let Some((_, event)) = self.events.pop_first() {
                        self.happen(event);
                    }
                }
                _ => break,
            }
            if self.step > STEPS_MAX {
                self.fault("it does not come to rest".into());
                break;
            }
        }
    }

    pub(crate) fn clock(&self) -> Now {
        let wall = UnixTime::from_millis(1_800_000_000_000 + self.now);
        Now { mono: Instant::from_millis(self.now), wall }
    }

    fn timeouts(&mut self) {
        for shard in 0..SHARDS {
            let now = self.clock();
            let engine = &mut self.engines[usize::from(shard)];
            if engine.next_timeout().is_some_and(|at| at <= now.mono) {
                self.step += 1;
                engine.timeout(now, &mut self.out);
                self.perform(shard);
            }
        }
    }

    /// One input, and all that it leads to.
    pub(crate) fn input(&mut self, shard: u16, input: Input<'_>) {
        self.step += 1;
        let now = self.clock();
        self.engines[usize::from(shard)].handle(now, input, &mut self.out);
        self.perform(shard);
    }

    fn perform(&mut self, shard: u16) {
        loop {
            let outputs: Vec<Output> = self.out.drain().collect();
            if self.out.refused() > 0 {
                return self.fault("the outbox had no room".into());
            }
            for output in outputs {
                self.output(shard, output);
            }
            let more = self.engines[usize::from(shard)].flush(&mut self.out);
            if !more && self.out.is_empty() {
                return self.check_who_holds_back();
            }
        }
    }

    /// Whoever is paused waits for a member: one that has not come yet, or that does not take what is written to it.
    fn check_who_holds_back(&mut self) {
        for conn in std::mem::take(&mut self.held_back) {
            let Some(link) = self.links.get(&conn) else { continue };
            let context = self.seats[link.seat].context;
            let is_member = |seat: &Seat| seat.context == context && !seat.tap;
            let mut coming = self.seats.iter().filter(|seat| seat.standing == Standing::Listening);
            // One of whose end the engine has not heard does not take anything either.
            let behind = |link: &&Link| !link.shut && link.written > link.told;
            let mut slow = self.links.values().filter(behind).map(|link| &self.seats[link.seat]);
            let is_held = slow.any(is_member) || coming.any(is_member);
            let writes = self.disks.iter().any(|disk| !disk.orders.is_empty());
            if !is_held && !writes && !self.waits_for_shards(context) {
                self.fault(format!("link {conn} is held back, and by no member"));
            }
        }
    }

    fn output(&mut self, shard: u16, output: Output) {
        match output {
            Output::Write { conn, bytes } => self.write(conn.0, bytes),
            Output::WriteAll { conn, pieces } => {
                pieces.into_iter().for_each(|piece| self.write(conn.0, piece))
            }
            Output::Pause { conn } => {
                self.cover.reach("flow", "paused");
                if let Some(link) = self.links.get_mut(&conn.0) {
                    link.paused = true;
                    self.held_back.push(conn.0);
                }
            }
            Output::Resume { conn } => {
                self.cover.reach("flow", "resumed");
                let Some(link) = self.links.get_mut(&conn.0) else { return };
                link.paused = false;
                let marks = std::mem::take(&mut link.deferred);
                marks.into_iter().for_each(|mark| self.fire(mark));
                self.wake_up(conn.0);
            }
            Output::Shut { conn, abort } => {
                self.note(|| format!("shut {} {abort}", conn.0));
                let Some(link) = self.links.get_mut(&conn.0) else { return };
                link.shut = true;
                if abort {
                    link.driver.clear();
                    link.cut_down = Some(link.read);
                }
                self.stop_feeding(conn.0);
                self.wake_kernel(conn.0);
                self.wake_down(conn.0);
            }
            Output::HandOver { conn, shard: home, bytes } => {
                self.cover.reach("world", "handed over to its home shard");
                if let Some(link) = self.links.get_mut(&conn.0) {
                    link.shard = home;
                    link.paused = false;
                }
                self.hand_over(conn, home, bytes);
            }
            Output::Dial { dial, to, .. } => {
                let seat = usize::from(to.port()).checked_sub(20_000);
                let works = self.dice.percent(85);
                let ms = self.dice.between(1, 800);
                self.after(ms, Event::Dialed { shard, dial, seat, works });
            }
            Output::Answer(answer) => match answer.body {
                Some(Body::News(news)) => news.what.into_iter().for_each(|what| self.news(shard, what)),
                body => self.applied = body,
            },
            Output::Hand { shard: to, handed } => self.hand(shard, to, handed),
            Output::Spill(order) => {
                self.disks[usize::from(shard)].orders.push_back(*order);
                self.wake_disk(shard);
            }
            other => {
                self.fault(format!("an output that no MSRP leg needs: {:?}", std::mem::discriminant(&other)))
            }
        }
    }

    fn wake_disk(&mut self, shard: u16) {
        let disk = &mut self.disks[usize::from(shard)];
        if !disk.due && !disk.orders.is_empty() {
            disk.due = true;
            let ms = match self.dice.below(20) {
                0 => self.dice.between(100, 3000),
                1..=9 => self.dice.between(1, 40),
                _ => 0,
            };
            self.after(ms, Event::Disk(shard));
        }
    }

    fn disk(&mut self, shard: u16) {
        self.disks[usize::from(shard)].due = false;
        for _ in 0..self.dice.between(1, 6) {
            let disk = &mut self.disks[usize::from(shard)];
            if let Some(word) = disk.next(&mut self.dice, self.mutator.kind) {
                if matches!(word, forward::SpillWord::Failed { .. }) {
                    self.cover.reach("disk", "failed");
                }
                self.input(shard, Input::Spilled(word));
            }
        }
        self.wake_disk(shard);
    }

    fn hand_over(&mut self, conn: ConnId, home: u16, bytes: Bytes) {
        self.open(conn, home, None);
        self.input(home, Input::Received { conn, bytes });
    }

    pub(crate) fn open(&mut self, conn: ConnId, shard: u16, dial: Option<DialId>) {
        let peer = std::net::SocketAddr::from(([198, 51, 100, 1], 4000));
        let local = std::net::SocketAddr::from(([192, 0, 2, 1], 2855 + shard));
        self.input(shard, Input::Opened { conn, dial, tls: false, fingerprint: None, peer, local });
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Act(seat) => self.act(seat),
            Event::Connect(seat) => self.connect(seat),
            Event::Dialed { shard, dial, seat, works } => self.dialed(shard, dial, seat, works),
            Event::Up(conn) => self.up(conn),
            Event::Kernel(conn) => self.kernel(conn),
            Event::Down(conn) => self.down(conn),
            Event::Gone(conn, why) => {
                let Some(link) = self.links.get_mut(&conn).filter(|link| !link.shut) else { return };
                link.shut = true;
                let shard = link.shard;
                self.stop_feeding(conn);
                self.input(shard, Input::Closed { conn: ConnId(conn), why });
            }
            Event::Decide { shard, decide } => self.input(shard, Input::Decide(&decide)),
            Event::Disk(shard) => self.disk(shard),
            Event::Repair(seat) => self.repair(seat),
            Event::Join(context) => self.join(context),
            Event::Leave(seat) => self.leave(seat),
            Event::Mail(from, to) => self.mail(from, to),
        }
    }

    // ---- the network -----------------------------------------------------------------------------------------

    fn write(&mut self, conn: u64, bytes: Bytes) {
        let step = self.step;
        let Some(link) = self.links.get_mut(&conn) else { return };
        link.written += bytes.len() as u64;
        link.writes.push((step, link.written));
        if link.over {
            return;
        }
        link.driver.push_back(bytes);
        self.wake_kernel(conn);
    }

    pub(crate) fn wake_up(&mut self, conn: u64) {
        self.wake(conn, 0, Event::Up(conn));
    }

    fn wake_kernel(&mut self, conn: u64) {
        self.wake(conn, 1, Event::Kernel(conn));
    }

    fn wake_down(&mut self, conn: u64) {
        self.wake(conn, 2, Event::Down(conn));
    }

    fn wake(&mut self, conn: u64, which: usize, event: Event) {
        let ms = match self.dice.below(10) {
            0..=5 => 0,
            6..=8 => self.dice.between(1, 15),
            _ => self.dice.between(15, 120),
        };
        let Some(link) = self.links.get_mut(&conn) else { return };
        if !std::mem::replace(&mut link.due[which], true) {
            self.after(ms, event);
        }
    }

    /// A piece of what a peer has sent comes to the engine.
    fn up(&mut self, conn: u64) {
        let races = self.dice.percent(10);
        let n = match self.dice.below(10) {
            0..=1 => self.dice.between(1, 40),
            2..=4 => self.dice.between(40, 2000),
            _ => self.dice.between(2000, 40_000),
        };
        let Some(link) = self.links.get_mut(&conn) else { return };
        link.due[0] = false;
        if link.shut || link.over || link.up.is_empty() || (link.paused && !races) {
            return;
        }
        let left = link.cut_up.map_or(u64::MAX, |cut| cut.saturating_sub(link.fed));
        let n = n.min(link.up.len() as u64).min(left) as usize;
        if n == 0 {
            self.cover.reach("flow", "reset by what was sent");
            return self.reset(conn);
        }
        let bytes = link.up.split_to(n).freeze();
        link.fed += n as u64;
        let mut marks = Vec::new();
        while let Some((_, mark)) = link.marks.pop_front_if(|(at, _)| *at <= link.fed) {
            marks.push(mark);
        }
        let (shard, was_paused) = (link.shard, link.paused);
        if was_paused {
            self.cover.reach("flow", "fed while paused");
        }
        for mark in &marks {
            self.fire_early(*mark);
        }
        self.input(shard, Input::Received { conn: ConnId(conn), bytes });
        if self.mutator.kind == Some(Mutation::TapHoldsBack) && self.tap_is_slow(conn) {
            self.output(shard, Output::Pause { conn: ConnId(conn) });
            self.check_who_holds_back();
            self.output(shard, Output::Resume { conn: ConnId(conn) });
        }
        if let Some(link) = self.links.get_mut(&conn) {
            if link.paused || link.shut {
                link.deferred.extend(marks);
            } else {
                marks.into_iter().for_each(|mark| self.fire(mark));
            }
        }
        self.stop_feeding_if_shut(conn);
        self.wake_up(conn);
        // Its peer has room for more.
        if let Some(link) = self.links.get(&conn) {
            self.wants_act(link.seat);
        }
    }

    /// A broken rule: whether its source is to wait for a tap.
    fn tap_is_slow(&self, conn: u64) -> bool {
        let Some(context) = self.links.get(&conn).map(|link| self.seats[link.seat].context) else {
            return false;
        };
        let is_its = |link: &&Link| self.seats[link.seat].tap && self.seats[link.seat].context == context;
        self.links.values().filter(is_its).any(|link| link.written > link.told)
    }

    fn stop_feeding_if_shut(&mut self, conn: u64) {
        if self.links.get(&conn).is_some_and(|link| link.shut) {
            self.stop_feeding(conn);
        }
    }

    /// What the engine has not looked at it never will.
    fn stop_feeding(&mut self, conn: u64) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        let (deferred, marks) = (std::mem::take(&mut link.deferred), std::mem::take(&mut link.marks));
        link.up.clear();
        link.paused = false;
        for mark in deferred {
            if let Mark::Freeze(said) | Mark::Frozen(said) | Mark::Ended { said, .. } = mark {
                self.cut(said);
            }
        }
        for (_, mark) in marks {
            if let Mark::Ended { said, .. } = mark {
                self.cut(said);
            }
        }
        let open: Vec<usize> = (0..self.said.len()).filter(|at| self.said[*at].link == Some(conn)).collect();
        open.into_iter().for_each(|said| self.cut(said));
    }

    fn cut(&mut self, said: usize) {
        let step = self.step + 1;
        let said = &mut self.said[said];
        if said.whole.is_none() && said.aborted.is_none() {
            said.cut = true;
            if said.freeze.is_some() && said.frozen.is_none() {
                said.frozen = Some(step);
            }
        }
    }

    /// As soon as the octets are on their way into the engine.
    fn fire_early(&mut self, mark: Mark) {
        let step = self.step + 1;
        match mark {
            Mark::Began(said) => {
                self.said[said].began.get_or_insert(step);
            }
            Mark::Freeze(said) => {
                self.said[said].freeze.get_or_insert(step);
                self.cover_begin(said);
            }
            _ => {}
        }
    }

    /// When the engine has looked at them for sure.
    fn fire(&mut self, mark: Mark) {
        let step = self.step;
        match mark {
            Mark::Began(_) | Mark::Freeze(_) => {}
            Mark::Frozen(said) => {
                self.said[said].frozen.get_or_insert(step);
            }
            Mark::Ended { said, flag, whole } => {
                let said = &mut self.said[said];
                if said.freeze.is_some() {
                    said.frozen.get_or_insert(step);
                }
                if flag == msrp::Flag::Abort {
                    said.aborted.get_or_insert(step);
                } else if whole && said.aborted.is_none() {
                    said.whole.get_or_insert(step);
                }
            }
            Mark::Asked(asked) => self.asked[asked].fed = true,
        }
    }

    /// The driver gives the kernel what it takes.
    fn kernel(&mut self, conn: u64) {
        let most = self.dice.between(1, 30_000) as usize;
        let step = self.step + 1;
        let early = self.mutator.kind == Some(Mutation::EarlySent);
        let Some(link) = self.links.get_mut(&conn) else { return };
        link.due[1] = false;
        if link.over {
            return;
        }
        let mut room = most.min(link.kernel_max.saturating_sub(link.kernel.len()));
        let mut taken = 0;
        while room > 0
            && let Some(mut piece) = link.driver.pop_front()
        {
            let part = piece.split_to(room.min(piece.len()));
            link.kernel.extend_from_slice(&part);
            (room, taken) = (room - part.len(), taken + part.len());
            if !piece.is_empty() {
                link.driver.push_front(piece);
            }
        }
        link.taken += taken as u64;
        let shard = link.shard;
        if taken > 0 {
            link.takes.push((step, link.taken));
        }
        let told = if early { link.written } else { link.taken };
        let bytes = (told - std::mem::replace(&mut link.told, told)) as usize;
        if bytes > 0 && !link.shut {
            self.input(shard, Input::Sent { conn: ConnId(conn), bytes });
        }
        self.wake_down(conn);
        let Some(link) = self.links.get(&conn) else { return };
        if !link.driver.is_empty() && link.kernel.len() < link.kernel_max {
            self.wake_kernel(conn);
        }
    }

    /// The peer reads.
    fn down(&mut self, conn: u64) {
        let n = match self.dice.below(10) {
            0..=1 => self.dice.between(1, 60),
            2..=5 => self.dice.between(60, 4000),
            _ => self.dice.between(4000, 60_000),
        };
        let stalls = !self.calm && self.dice.below(1000) < 6;
        let stall = match self.dice.below(6) {
            0..=1 => self.dice.between(100, 1500),
            2..=4 => self.dice.between(1500, 9000),
            _ => self.dice.between(self.stall_for, self.stall_for * 2),
        };
        let now = self.now;
        let Some(link) = self.links.get_mut(&conn) else { return };
        link.due[2] = false;
        if link.over {
            return;
        }
        if stalls && link.stalled_until <= now {
            link.stalled_until = now + stall;
            self.cover.reach("flow", "stalled");
            self.note(|| format!("link {conn} stalls for {stall} ms"));
        }
        let Some(link) = self.links.get_mut(&conn) else { return };
        if link.stalled_until > now && link.cut_down.is_none_or(|cut| cut > link.read) {
            let ms = link.stalled_until - now;
            link.due[2] = true;
            return self.after(ms, Event::Down(conn));
        }
        let left = link.cut_down.map_or(u64::MAX, |cut| cut.saturating_sub(link.read));
        let n = n.min(link.kernel.len() as u64).min(left) as usize;
        if n == 0 {
            if left == 0 {
                if !link.shut {
                    self.cover.reach("flow", "reset by what was read");
                }
                return self.reset(conn);
            }
            if link.shut && link.driver.is_empty() {
                self.peer_is_gone(conn);
            }
            return;
        }
        let mut bytes = link.kernel.split_to(n).freeze();
        link.read += n as u64;
        let read = link.read;
        let mut chunks = Vec::new();
        let mut broken = None;
        loop {
            match link.framer.next(&mut bytes) {
                Ok(None) => break,
                Ok(Some(msrp::Event::Head(head))) => {
                    link.reading = Some((head, bytes::BytesMut::new()));
                }
                Ok(Some(msrp::Event::Body(piece))) => {
                    if let Some((_, body)) = link.reading.as_mut() {
                        body.extend_from_slice(&piece);
                    }
                }
                Ok(Some(msrp::Event::End(flag))) => {
                    if let Some((head, body)) = link.reading.take() {
                        chunks.push((Chunk { head, body: body.freeze(), flag }, read - bytes.len() as u64));
                    }
                }
                Ok(Some(msrp::Event::Bad(bad))) => {
                    broken = Some(format!("a bad head: {:?}", bad.reason));
                    break;
                }
                Err(why) => {
                    broken = Some(format!("what cannot be framed: {why}"));
                    break;
                }
            }
        }
        for (chunk, at) in chunks {
            for chunk in self.mutator.on(conn, chunk) {
                self.read(conn, chunk, at);
            }
        }
        if let Some(broken) = broken {
            self.fault(format!("the engine wrote {broken}"));
            return self.reset(conn);
        }
        self.wake_kernel(conn);
        self.wake_down(conn);
    }

    /// The network gives a connection up.
    pub(crate) fn reset(&mut self, conn: u64) {
        let ms = self.dice.between(0, 400);
        self.note(|| format!("link {conn} is reset"));
        self.peer_is_gone(conn);
        self.after(ms, Event::Gone(conn, CloseReason::Reset));
    }

    /// A peer closes its connection.
    pub(crate) fn close(&mut self, conn: u64) {
        let ms = self.dice.between(0, 50);
        self.note(|| format!("link {conn} is closed by its peer"));
        self.peer_is_gone(conn);
        self.after(ms, Event::Gone(conn, CloseReason::Closed));
    }

    /// The peer knows that its connection is over.
    fn peer_is_gone(&mut self, conn: u64) {
        let Some(link) = self.links.get_mut(&conn).filter(|link| !link.over) else { return };
        link.over = true;
        link.driver.clear();
        link.kernel.clear();
        link.up.clear();
        let seat = link.seat;
        if self.seats[seat].standing == Standing::Bound && !self.calm {
            self.cover.reach("member × event", "bound × reset");
        }
        if self.seats[seat].link == Some(conn) {
            self.seats[seat].link = None;
            self.seats[seat].open.clear();
        }
    }
}
