//! The simulated control: contexts, members that join, leave and come again, decisions that come late.

use contract::change::Verb;
use contract::from_dataplane::Body;
use contract::{
    Address, Batch, Change, Context, Decide, Distribute, Leg, LegKey, LegSet, Mode, MsrpLeg, Path, Setup,
    Switch, leg::Kind, message_news, news::What, path::Parameters, placement::At,
};

use crate::mutate::Mutation;
use crate::said::{ROOM, address, number_of};
use crate::seat::{Plan, Seat, Standing};
use crate::shards::Until;
use crate::world::{Event, SHARDS, Shape, World};

impl World {
    pub(crate) fn home(&self, context: u64) -> u16 {
        (context % u64::from(SHARDS)) as u16
    }

    /// The contexts, and what each member will do.
    pub(crate) fn begin(&mut self) {
        let contexts = if self.dice.percent(25) { 2 } else { 1 };
        if contexts == 2 {
            self.cover.reach("world", "two contexts");
        }
        let first = self.dice.below(u64::from(SHARDS)) + 1;
        for context in first..first + contexts {
            let is_room = self.dice.percent(65);
            let several = self.dice.percent(60);
            let members = match (is_room, several) {
                (true, _) => self.dice.between(2, 8),
                (false, true) => self.dice.between(3, 6),
                (false, false) => 2,
            };
            let label = match (is_room, several) {
                (true, _) => "room",
                (false, true) => "relay to several",
                (false, false) => "relay to one",
            };
            self.cover.reach("world", label);
            if is_room && self.dice.percent(40) {
                self.shards.spread.insert(context);
                self.cover.reach("world", "a room on several shards");
            }
            self.shapes.insert(context, if is_room { Shape::Room } else { Shape::Relay });
            let mut seats: Vec<usize> = (0..members).map(|_| self.seat(context)).collect();
            seats.extend(self.tap_seat(context));
            let mut verbs = vec![Verb::PutContext(Context { id: context })];
            verbs.extend(seats.iter().map(|seat| Verb::PutLeg(self.leg_of(*seat))));
            verbs.extend(self.paths(context));
            self.batch(context, verbs);
            for seat in seats {
                self.once_followed(context, Until::Joined(seat));
                self.expect_connection(seat);
                if self.dice.percent(12) && (is_room || seat != self.first_of(context)) {
                    let ms = self.dice.between(500, 25_000);
                    self.after(ms, Event::Leave(seat));
                }
            }
            if is_room || several {
                for _ in 0..self.dice.below(4) {
                    let ms = self.dice.between(500, 20_000);
                    self.after(ms, Event::Join(context));
                }
            }
        }
    }

    fn seat(&mut self, context: u64) -> usize {
        let at = self.seats.len();
        let others: Vec<u64> =
            self.seats.iter().filter(|s| s.context == context && !s.tap).map(|s| s.user).collect();
        let user = match others.is_empty() {
            false if self.dice.percent(15) => others[self.dice.below(others.len() as u64) as usize],
            _ => at as u64 + 1,
        };
        self.legs += 1;
        let shard = self.place(context, user);
        let mut plans = std::collections::VecDeque::new();
        for _ in 0..self.dice.below(9) {
            plans.push_back(match self.dice.below(40) {
                0..=1 => Plan::Nickname(format!("nick{}", self.dice.below(5))),
                2 => Plan::Nickname("bad\u{7}name".into()),
                3 => Plan::Guess(self.dice.below(6) as usize),
                4 => Plan::Nowhere,
                5..=6 => Plan::Empty,
                7..=9 => Plan::Again,
                10 if self.dice.percent(30) => Plan::Noise,
                11 => Plan::Stray,
                12 if self.dice.percent(50) => Plan::Close,
                _ => Plan::Say,
            });
        }
        self.seats.push(Seat {
            context,
            leg: self.legs,
            former: Vec::new(),
            shard,
            user,
            tap: false,
            unseen: false,
            active: self.dice.percent(25),
            takes_private: user % 3 != 0,
            ours: String::new(),
            theirs: their(at, 0),
            link: None,
            standing: Standing::Listening,
            invited: self.step + 1,
            joined: u64::MAX,
            leaves: None,
            left: None,
            bound: Vec::new(),
            troubles: Vec::new(),
            pressed: Vec::new(),
            overs: Vec::new(),
            plans,
            open: Vec::new(),
            parallel: self.dice.between(1, 5) as usize,
            repairs: 0,
            paths: 0,
            acts: false,
        });
        at
    }

    /// Sometimes somebody has a copy of all.
    fn tap_seat(&mut self, context: u64) -> Option<usize> {
        if !self.dice.percent(35) {
            return None;
        }
        let unseen = self.dice.percent(30);
        if self.shards.spread.contains(&context) {
            self.cover.reach("across", "tapped");
        }
        self.cover.reach("world", if unseen { "tapped by who is unseen" } else { "tapped" });
        let at = self.seat(context);
        let who = &mut self.seats[at];
        (who.tap, who.unseen, who.user) = (true, unseen, 1000 + at as u64);
        who.plans.clear();
        Some(at)
    }

    /// The leg of a seat as control wants it.
    fn leg_of(&self, seat: usize) -> Leg {
        let who = &self.seats[seat];
        let is_room = self.shapes.get(&who.context) == Some(&Shape::Room);
        let connect = std::net::SocketAddr::from(([198, 51, 100, 1], 20_000 + seat as u16));
        let mut msrp = MsrpLeg {
            remote_path: vec![who.theirs.clone()],
            setup: (if who.active { Setup::Active } else { Setup::Passive }) as i32,
            connect: who.active.then(|| Address::from(connect)),
            ..MsrpLeg::default()
        };
        if who.tap {
            return Leg {
                id: who.leg,
                context: who.context,
                media: "tap".into(),
                participant: "tap".into(),
                unseen: who.unseen,
                kind: Some(Kind::Msrp(msrp)),
                ..Leg::default()
            };
        }
        if is_room {
            msrp.addresses = vec![address(who.user), number_of(who.user)];
            msrp.accept_types = vec!["message/cpim".into()];
            msrp.accept_wrapped_types = vec!["*".into()];
            msrp.private_messages = who.takes_private;
        }
        Leg {
            id: who.leg,
            context: who.context,
            media: "msrp".into(),
            participant: if is_room { format!("p{}", who.user) } else { String::new() },
            kind: Some(Kind::Msrp(msrp)),
            ..Leg::default()
        }
    }

    fn paths(&self, context: u64) -> Vec<Verb> {
        let set = |legs: Vec<u64>| Some(LegSet { legs, media: String::new() });
        let here = self.seats.iter().filter(|seat| seat.context == context && seat.left.is_none());
        let (taps, members): (Vec<_>, Vec<_>) = here.partition(|seat| seat.tap);
        let legs: Vec<u64> = members.iter().map(|seat| seat.leg).collect();
        let sources = LegSet { legs: Vec::new(), media: "msrp".into() };
        // Who is unseen is named, the others are whoever stands in for them.
        let media = if taps.iter().any(|tap| tap.unseen) { "" } else { "tap" };
        let tap = Verb::PutPath(Path {
            id: 9,
            context,
            mode: Mode::Tap as i32,
            sources: Some(sources),
            targets: Some(LegSet { legs: taps.iter().map(|tap| tap.leg).collect(), media: media.into() }),
            parameters: None,
        });
        let tap = (!taps.is_empty()).then_some(tap);
        if self.shapes.get(&context) == Some(&Shape::Room) {
            let all = Some(LegSet { legs: Vec::new(), media: "msrp".into() });
            let switch = Switch {
                room: vec![ROOM.into()],
                private_messages: true,
                nicknames: true,
                ..Switch::default()
            };
            let room = Verb::PutPath(Path {
                id: 1,
                context,
                mode: Mode::Switch as i32,
                sources: all.clone(),
                targets: all,
                parameters: Some(Parameters::Switch(switch)),
            });
            return [room].into_iter().chain(tap).collect();
        }
        let (one, others) = (vec![legs[0]], legs[1..].to_vec());
        let mode = if others.len() == 1 { Mode::Relay } else { Mode::Distribute };
        let parameters =
            (mode == Mode::Distribute).then_some(Parameters::Distribute(Distribute { imdn_once: false }));
        let path = |id: u32, sources: Vec<u64>, targets: Vec<u64>| {
            let (sources, targets) = (set(sources), set(targets));
            Verb::PutPath(Path {
                id,
                context,
                mode: mode as i32,
                sources,
                targets,
                parameters: parameters.clone(),
            })
        };
        if others.is_empty() {
            return Vec::new();
        }
        let both = [path(1, one.clone(), others.clone()), path(2, others, one)];
        both.into_iter().chain(tap).collect()
    }

    pub(crate) fn batch(&mut self, context: u64, verbs: Vec<Verb>) {
        let home = self.home(context);
        let elsewhere = self.begin_round(context, &verbs);
        let generation = &mut self.generations[usize::from(home)];
        *generation += 1;
        let changes = verbs.into_iter().map(|verb| Change { verb: Some(verb) }).collect();
        let batch = Batch { generation: *generation, epoch: 1, trace: String::new(), changes };
        self.hand_batch(context, &batch, &elsewhere);
        match self.applied.take() {
            Some(Body::Applied(applied)) => {
                for placement in applied.placements {
                    let seat = self
                        .seats
                        .iter_mut()
                        .find(|s| s.context == placement.context && s.leg == placement.leg);
                    if let (Some(seat), Some(At::Msrp(local))) = (seat, placement.at) {
                        seat.ours = local.path;
                    }
                }
            }
            other => self.fault(format!("a batch was not applied: {other:?}")),
        }
    }

    fn expect_connection(&mut self, seat: usize) {
        let ms = match self.dice.below(20) {
            0 => 11_000,
            1..=3 => self.dice.between(1000, 8000),
            _ => self.dice.between(0, 500),
        };
        if !self.seats[seat].active {
            self.after(ms, Event::Connect(seat));
        }
    }

    pub(crate) fn join(&mut self, context: u64) {
        let seat = self.seat(context);
        self.note(|| format!("seat {seat} joins context {context}"));
        self.cover.reach("member × event", "none × joins");
        let mut verbs = vec![Verb::PutLeg(self.leg_of(seat))];
        if self.shapes.get(&context) == Some(&Shape::Relay) {
            verbs.extend(self.paths(context));
        }
        self.batch(context, verbs);
        self.once_followed(context, Until::Joined(seat));
        self.expect_connection(seat);
    }

    pub(crate) fn leave(&mut self, seat: usize) {
        let who = &mut self.seats[seat];
        if who.left.is_some() {
            return;
        }
        let (context, leg, was) = (who.context, who.leg, who.standing);
        (who.leaves, who.left) = (Some(self.step + 1), Some(self.step + 1));
        who.standing = Standing::Left;
        let step = self.step + 1;
        close(&mut who.bound, step);
        close(&mut who.pressed, step);
        self.note(|| format!("seat {seat} leaves"));
        self.cover.reach("member × event", format!("{} × leaves", was.label()));
        self.batch(context, vec![Verb::RemoveLeg(LegKey { context, leg })]);
        self.once_followed(context, Until::Left(seat));
    }

    /// The member comes again: by a new path of its leg, or by a leg that takes its place in the same batch.
    pub(crate) fn repair(&mut self, seat: usize) {
        let who = &mut self.seats[seat];
        if who.left.is_some() || who.standing != Standing::Lost || self.calm {
            return;
        }
        let context = who.context;
        let is_room = self.shapes.get(&context) == Some(&Shape::Room);
        who.repairs += 1;
        let repairs = who.repairs;
        if repairs > 6 && (is_room || seat != self.first_of(context)) {
            return self.leave(seat);
        }
        let who = &mut self.seats[seat];
        if repairs > 12 {
            return;
        }
        who.paths += 1;
        who.theirs = their(seat, who.paths);
        who.standing = Standing::Listening;
        who.active = self.dice.percent(25);
        self.cover.reach("member × event", "lost × comes again");
        self.note(|| format!("seat {seat} comes again"));
        if let Some(old) = self.seats[seat].link.take() {
            self.reset(old);
        }
        let mut verbs = Vec::new();
        if is_room && self.dice.percent(30) {
            self.legs += 1;
            let leg = self.seats[seat].leg;
            verbs.push(Verb::RemoveLeg(LegKey { context, leg }));
            self.seats[seat].leg = self.legs;
            self.seats[seat].former.push(leg);
            self.cover.reach("world", "another leg takes a leg's place");
        }
        verbs.push(Verb::PutLeg(self.leg_of(seat)));
        self.batch(context, verbs);
        self.expect_connection(seat);
    }

    fn seat_of(&self, key: Option<LegKey>) -> Option<usize> {
        let key = key?;
        let is_its = |seat: &Seat| seat.leg == key.leg || seat.former.contains(&key.leg);
        self.seats.iter().position(|seat| seat.context == key.context && is_its(seat))
    }

    /// What the engine tells control.
    pub(crate) fn news(&mut self, shard: u16, what: What) {
        let step = self.step;
        match what {
            What::LegUp(up) => {
                let Some(seat) = self.seat_of(up.leg) else { return };
                let who = &mut self.seats[seat];
                let was = std::mem::replace(&mut who.standing, Standing::Bound);
                who.bound.push((step, u64::MAX));
                self.note(|| format!("seat {seat} is bound"));
                self.cover.reach("member × event", format!("{} × bound", was.label()));
            }
            What::LegLost(lost) => {
                let Some(seat) = self.seat_of(lost.leg) else { return };
                let who = &mut self.seats[seat];
                let was = std::mem::replace(&mut who.standing, Standing::Lost);
                who.troubles.push(step);
                close(&mut who.bound, step);
                let reason = format!("{:?}", lost.reason());
                self.note(|| format!("seat {seat} is lost: {reason}"));
                self.cover.reach("lost", reason.clone());
                let event = if reason == "Slow" { "cut loose" } else { "lost" };
                let was =
                    if was == Standing::Congested && event == "cut loose" { Standing::Bound } else { was };
                self.cover.reach("member × event", format!("{} × {event}", was.label()));
                let ms = if self.dice.percent(80) { self.dice.between(50, 4000) } else { 18_000 };
                self.after(ms, Event::Repair(seat));
            }
            What::Pressure(pressure) if pressure.kept => {
                let Some(seat) = self.seat_of(pressure.leg) else { return };
                let event = if pressure.on { "behind" } else { "caught up" };
                self.note(|| format!("seat {seat} is {event}"));
                self.cover.reach("disk", event);
                let early = self.mutator.kind == Some(Mutation::EarlyOver) && pressure.on;
                let who = &mut self.seats[seat];
                if let Some((number, link)) =
                    who.link.and_then(|number| Some((number, self.links.get(&number)?)))
                    && (!pressure.on || early)
                {
                    // Taken for over when it has only just begun: of what is said in the next steps nothing has come.
                    who.overs.push((step + u64::from(early) * 300, number, link.taken));
                }
            }
            What::Pressure(pressure) => {
                let Some(seat) = self.seat_of(pressure.leg) else { return };
                let who = &mut self.seats[seat];
                let was = who.standing;
                if pressure.on {
                    who.troubles.push(step);
                    who.pressed.push((step, u64::MAX));
                    if was == Standing::Bound {
                        who.standing = Standing::Congested;
                    }
                } else {
                    close(&mut who.pressed, step);
                    if was == Standing::Congested {
                        who.standing = Standing::Bound;
                    }
                }
                let event = if pressure.on { "congested" } else { "relieved" };
                self.note(|| format!("seat {seat} is {event}"));
                self.cover.reach("member × event", format!("{} × {event}", was.label()));
            }
            What::Report(report) => {
                let Some(seat) = self.seat_of(report.leg) else { return };
                if let Some(said) = self.by_id.get(&(seat, report.message_id)) {
                    self.said[*said].told = true;
                }
            }
            What::Message(question) => {
                let Some(message_news::What::Nickname(name)) = question.what else { return };
                let (status, ms) = match self.dice.below(10) {
                    0..=5 => (200, self.dice.between(0, 5000)),
                    6..=7 => (425, self.dice.between(0, 5000)),
                    8 => (403, 100),
                    _ => (200, 33_000),
                };
                let row = match (status, ms) {
                    (_, 33_000) => "decided too late",
                    (200, _) => "granted",
                    _ => "refused",
                };
                self.cover.reach("nickname", row);
                let decide = Decide {
                    leg: question.leg,
                    id: question.id,
                    status,
                    nickname: name,
                    ..Decide::default()
                };
                self.after(ms, Event::Decide { shard, decide });
            }
            other => self.fault(format!("news that no MSRP leg makes: {other:?}")),
        }
    }

    /// A message begins: in which state each member is then.
    pub(crate) fn cover_begin(&mut self, said: usize) {
        let context = self.said[said].context;
        let here = self.seats.iter().filter(|seat| seat.context == context);
        let labels: Vec<&str> = here.map(|seat| seat.standing.label()).collect();
        for label in labels {
            self.cover.reach("member × event", format!("{label} × message begins"));
        }
    }
}

/// The URI of a seat's peer.
fn their(seat: usize, path: u64) -> String {
    format!("msrp://198.51.100.{}:7000/peer{seat}path{path};tcp", seat + 1)
}

/// What was still so ends with this step.
fn close(spans: &mut [(u64, u64)], step: u64) {
    for (_, to) in spans.iter_mut().filter(|(_, to)| *to == u64::MAX) {
        *to = step;
    }
}
