//! The peers: what they say, in which chunks and order, and what they make of what they read.

use bytes::BytesMut;
use forward::ConnId;
use msrp::{ByteRange, FailureReport, Flag, HeadWriter, Method, Ranges, Start, Status, Tid};

use crate::link::{Chunk, Link, Mark};
use crate::mutate::Mutation;
use crate::said::{ALL, Expected, Piece, ROOM, Said, Sketch, To, address, content, cut, number_of, size};
use crate::seat::{Plan, Standing};
use crate::world::{Asked, Event, Incoming, SHARDS, Shape, Whim, World};

/// What has not been read by the engine yet, above which a peer writes nothing.
const UP_MAX: usize = 60_000;

impl World {
    /// A new connection of a seat.
    pub(crate) fn link(&mut self, seat: usize, shard: u16) -> u64 {
        if let Some(old) = self.seats[seat].link.take() {
            self.reset(old);
        }
        self.conns += 1;
        let kernel_max = self.dice.between(2000, 64_000) as usize;
        let mut link = Link::new(seat, shard, kernel_max);
        if !self.calm {
            link.cut_up = self.dice.percent(10).then(|| self.dice.between(1, 40_000));
            link.cut_down = self.dice.percent(10).then(|| self.dice.between(1, 60_000));
        }
        self.links.insert(self.conns, link);
        self.seats[seat].link = Some(self.conns);
        self.seats[seat].open.clear();
        self.conns
    }

    /// The passive side's peer connects.
    pub(crate) fn connect(&mut self, seat: usize) {
        let who = &self.seats[seat];
        if who.left.is_some() || who.active || who.standing != Standing::Listening {
            return;
        }
        if self.is_asked(self.seats[seat].context) {
            // What to connect to it hears when all is settled.
            return self.after(5, Event::Connect(seat));
        }
        let home = self.seats[seat].shard;
        let shard = if self.dice.percent(80) { home } else { self.dice.below(u64::from(SHARDS)) as u16 };
        let conn = self.link(seat, shard);
        self.note(|| format!("seat {seat} connects to shard {shard} as link {conn}"));
        self.open(ConnId(conn), shard, None);
        // Its first request is for its own session: that one says which shard the connection belongs to.
        if self.dice.percent(85) || !matches!(self.seats[seat].plans.front(), Some(Plan::Say)) {
            self.empty(seat);
        }
        self.wants_act(seat);
    }

    pub(crate) fn dialed(&mut self, shard: u16, dial: forward::DialId, seat: Option<usize>, works: bool) {
        let seat = seat.filter(|seat| self.seats[*seat].left.is_none());
        let Some(seat) = seat.filter(|_| works) else {
            let why = forward::CloseReason::ConnectFailed;
            return self.input(shard, forward::Input::DialFailed { dial, why });
        };
        let conn = self.link(seat, shard);
        self.note(|| format!("shard {shard} connects to seat {seat} as link {conn}"));
        self.open(ConnId(conn), shard, Some(dial));
        self.wants_act(seat);
    }

    /// It will do something soon, if it has something to do.
    pub(crate) fn wants_act(&mut self, seat: usize) {
        let ms = if self.dice.percent(50) { self.dice.between(0, 30) } else { self.dice.between(30, 900) };
        let who = &mut self.seats[seat];
        if who.link.is_some() && !(who.plans.is_empty() && who.open.is_empty()) && !who.acts {
            who.acts = true;
            self.after(ms, Event::Act(seat));
        }
    }

    pub(crate) fn act(&mut self, seat: usize) {
        self.seats[seat].acts = false;
        let Some(conn) = self.seats[seat].link else { return };
        if self.links.get(&conn).is_none_or(|link| link.over || link.up.len() > UP_MAX) {
            return;
        }
        let who = &self.seats[seat];
        let opens = who.open.is_empty() || (who.open.len() < who.parallel && self.dice.percent(40));
        let plan = if opens { self.seats[seat].plans.pop_front() } else { None };
        match plan {
            Some(Plan::Say) => self.say(seat),
            Some(Plan::Again) => self.say_again(seat, conn),
            Some(Plan::Nickname(name)) => self.nickname(seat, &name),
            Some(Plan::Empty) => self.empty(seat),
            Some(Plan::Guess(other)) => self.guess(seat, Some(other)),
            Some(Plan::Nowhere) => self.guess(seat, None),
            Some(Plan::Noise) => self.send(seat, b"NOISE and no MSRP\r\n\r\n", &[]),
            Some(Plan::Stray) => self.stray(seat),
            Some(Plan::Close) => self.close(conn),
            None => {
                let open = &self.seats[seat].open;
                if !open.is_empty() {
                    let said = open[self.dice.below(open.len() as u64) as usize];
                    self.go_on(seat, said);
                }
            }
        }
        self.wants_act(seat);
    }

    fn tid(&mut self) -> Tid {
        let text = self.dice.token(60);
        Tid::parse(text.as_bytes()).unwrap_or_else(|_| unreachable!("a token is a tid"))
    }

    /// Octets go up, with what the engine knows when it has read so far.
    pub(crate) fn send(&mut self, seat: usize, bytes: &[u8], marks: &[(usize, Mark)]) {
        let Some(conn) = self.seats[seat].link else { return };
        let Some(link) = self.links.get_mut(&conn).filter(|link| !link.over && !link.shut) else { return };
        let before = link.up_total;
        link.up.extend_from_slice(bytes);
        link.up_total += bytes.len() as u64;
        link.marks.extend(marks.iter().map(|(at, mark)| (before + *at as u64, *mark)));
        self.wake_up(conn);
    }

    fn ask(&mut self, seat: usize, tid: &Tid, said: Option<usize>, failure: FailureReport) -> usize {
        let number = self.asked.len();
        self.asked.push(Asked {
            seat,
            link: self.seats[seat].link.unwrap_or(0),
            said,
            must: failure == FailureReport::Yes,
            may_succeed: failure == FailureReport::Yes,
            may_fail: failure != FailureReport::No,
            expected: None,
            fed: false,
            codes: Vec::new(),
        });
        self.by_tid.insert((seat, tid.as_str().to_owned()), number);
        number
    }

    pub(crate) fn empty(&mut self, seat: usize) {
        let (tid, id) = (self.tid(), self.dice.token(40));
        let asked = self.ask(seat, &tid, None, FailureReport::Yes);
        // Who is unseen does not hear either that it came too late.
        self.asked[asked].expected = Some(if self.seats[seat].unseen { vec![200, 481] } else { vec![200] });
        let mut bytes = BytesMut::new();
        let who = &self.seats[seat];
        HeadWriter::request(&mut bytes, &tid, "SEND", who.ours.as_bytes(), who.theirs.as_bytes())
            .message_id(&id)
            .byte_range(ByteRange::EMPTY)
            .end(Flag::Last);
        self.send(seat, &bytes, &[(bytes.len(), Mark::Asked(asked))]);
    }

    fn nickname(&mut self, seat: usize, name: &str) {
        let tid = self.tid();
        let asked = self.ask(seat, &tid, None, FailureReport::Yes);
        let fine = name.chars().all(|c| !c.is_control());
        let codes = if fine { vec![200, 403, 408, 425] } else { vec![403, 424] };
        self.asked[asked].expected = Some(codes);
        let mut bytes = BytesMut::new();
        let who = &self.seats[seat];
        HeadWriter::request(&mut bytes, &tid, "NICKNAME", who.ours.as_bytes(), who.theirs.as_bytes())
            .use_nickname(name)
            .end(Flag::Last);
        self.send(seat, &bytes, &[(bytes.len(), Mark::Asked(asked))]);
    }

    /// Answers and reports to nothing of the engine's.
    fn stray(&mut self, seat: usize) {
        let who = &self.seats[seat];
        let (to, from) = (who.ours.clone(), who.theirs.clone());
        let (one, two) = (self.tid(), self.tid());
        let mut bytes = BytesMut::new();
        HeadWriter::response(&mut bytes, &one, Status::OK, to.as_bytes(), from.as_bytes()).end(Flag::Last);
        HeadWriter::request(&mut bytes, &two, "REPORT", to.as_bytes(), from.as_bytes())
            .message_id("nobodysaidthis")
            .byte_range(ByteRange::new(1, 5, 5))
            .status(Status::OK)
            .end(Flag::Last);
        self.send(seat, &bytes, &[]);
    }

    /// Content for a session that is another's, or nobody's.
    fn guess(&mut self, seat: usize, other: Option<usize>) {
        let other = other.filter(|other| *other != seat && *other < self.seats.len());
        let nowhere = format!("msrp://192.0.2.1:2855/{:03x}nosuchsession;tcp", self.seats[seat].context);
        let to = other.map_or(nowhere, |other| self.seats[other].ours.clone());
        let number = self.said.len();
        let body = content(number, 120);
        let said = self.sketch(seat, number, body, 0);
        self.said.push(Said { to: To::Nobody, expected: Expected::Refused(481), ..said });
        let tid = self.tid();
        let asked = self.ask(seat, &tid, Some(number), FailureReport::Yes);
        self.asked[asked].expected = Some(vec![481, 506]);
        let who = &self.seats[seat];
        let mut bytes = BytesMut::new();
        HeadWriter::request(&mut bytes, &tid, "SEND", to.as_bytes(), who.theirs.as_bytes())
            .message_id(&self.said[number].id)
            .byte_range(ByteRange::new(1, 120, 120))
            .body(b"text/plain");
        bytes.extend_from_slice(&self.said[number].body);
        bytes.extend_from_slice(&msrp::end_line(&tid, Flag::Last));
        self.send(seat, &bytes, &[(bytes.len(), Mark::Asked(asked))]);
    }

    fn sketch(&mut self, seat: usize, number: usize, body: Vec<u8>, head: u64) -> Said {
        let who = &self.seats[seat];
        let mine = self.said.iter().filter(|said| said.sender == seat).count();
        // Two senders may use one id.
        let same = self.dice.percent(10);
        let body = bytes::Bytes::from(body);
        Said {
            context: who.context,
            sender: seat,
            id: if same { format!("same{mine:04}") } else { format!("m{number:05}") },
            to: To::All,
            room: self.shapes.get(&who.context) == Some(&Shape::Room),
            content_type: "application/octet-stream",
            shown: body.clone(),
            body,
            head,
            success: self.dice.percent(50),
            failure: self.dice.pick(&[
                FailureReport::Yes,
                FailureReport::Yes,
                FailureReport::Partial,
                FailureReport::No,
            ]),
            knows_total: self.dice.percent(60),
            pieces: Default::default(),
            expected: Expected::Taken,
            overlaps: false,
            again: false,
            written: Ranges::with_max(64),
            last: None,
            began: None,
            freeze: None,
            frozen: None,
            whole: None,
            aborted: None,
            cut: false,
            link: None,
            codes: Vec::new(),
            reports: Vec::new(),
            told: false,
        }
    }

    /// A message is thought of, and begun.
    fn say(&mut self, seat: usize) {
        let number = self.said.len();
        let is_room = self.shapes.get(&self.seats[seat].context) == Some(&Shape::Room);
        // What goes to several is often longer than a queue: some of them will be behind.
        let is_to_several = !is_room && self.first_of(self.seats[seat].context) == seat;
        let size = match is_to_several && self.dice.percent(40) {
            true => self.dice.between(20_000, 300_000),
            false => size(&mut self.dice),
        };
        let sketch = Sketch { number, user: self.seats[seat].user, size };
        let mut said =
            if is_room { self.say_in_room(seat, &sketch) } else { self.say_to_far_end(seat, &sketch) };
        let length = said.body.len() as u64;
        let (pieces, overlaps) = cut(&mut self.dice, length, said.head);
        (said.pieces, said.overlaps) = (pieces, overlaps);
        let (pieces, dice) = (&mut said.pieces, &mut self.dice);
        if said.expected == Expected::Refused(400) && said.to == To::All {
            // It begins elsewhere than at its beginning.
            pieces.retain(|piece| piece.start > 1);
            if pieces.is_empty() {
                pieces.push_back(Piece { start: 2, end: length, flag: Flag::Last, bare: false });
            }
            said.to = To::Nobody;
        } else if dice.percent(12) {
            // What is given up is never all of it: its receivers could not know.
            let keep = dice.between(1, pieces.len().saturating_sub(1).max(1) as u64) as usize;
            pieces.truncate(keep);
            if dice.percent(50)
                && let Some(last) = pieces.back_mut()
            {
                last.flag = Flag::Abort;
            } else {
                for piece in pieces.iter_mut().filter(|piece| piece.flag == Flag::Last) {
                    piece.flag = Flag::More;
                }
                pieces.push_back(Piece { start: 1, end: 0, flag: Flag::Abort, bare: true });
            }
        } else if dice.percent(3) {
            pieces.pop_back();
            if pieces.is_empty() {
                pieces.push_back(Piece { start: 1, end: length, flag: Flag::More, bare: false });
            }
        }
        let in_order = said.pieces.iter().zip(said.pieces.iter().skip(1)).all(|(a, b)| a.start <= b.start);
        if !in_order && said.expected == Expected::Taken {
            self.cover.reach("message", "out of order");
        }
        if overlaps {
            self.cover.reach("message", "with overlaps");
        }
        if !said.knows_total {
            self.cover.reach("message", "total unknown");
        }
        let chunks = if said.pieces.len() == 1 { "in one chunk" } else { "in several chunks" };
        self.cover.reach("message", chunks);
        if !self.seats[seat].open.is_empty() {
            self.cover.reach("message", "beside another of its sender");
        }
        said.link = self.seats[seat].link;
        let taken = self.by_id.contains_key(&(seat, said.id.clone()));
        if taken {
            said.id = format!("m{number:05}");
        }
        self.note(|| {
            format!(
                "seat {seat} says {number} ({}): {length} octets in {} chunks, {:?}, {:?}, success {}, {:?}",
                said.id,
                said.pieces.len(),
                said.to,
                said.expected,
                said.success,
                said.failure
            )
        });
        self.by_id.insert((seat, said.id.clone()), number);
        self.said.push(said);
        self.seats[seat].open.push(number);
        self.go_on(seat, number);
    }

    fn say_to_far_end(&mut self, seat: usize, sketch: &Sketch) -> Said {
        self.sketch(seat, sketch.number, content(sketch.number, sketch.size.max(16)), 0)
    }

    fn say_in_room(&mut self, seat: usize, sketch: &Sketch) -> Said {
        let context = self.seats[seat].context;
        let mut from = address(sketch.user);
        let mut to = if self.dice.percent(50) { ALL.to_owned() } else { ROOM.to_owned() };
        let (mut whom, mut expected, mut more) = (To::All, Expected::Taken, "");
        let mut content_type = "message/cpim";
        match self.dice.below(100) {
            0..=11 => {
                let others =
                    self.seats.iter().filter(|s| s.context == context && s.user != sketch.user && !s.tap);
                let users: Vec<(u64, bool)> = others.map(|s| (s.user, s.takes_private)).collect();
                if !users.is_empty() {
                    let (user, takes) = users[self.dice.below(users.len() as u64) as usize];
                    (to, whom) = (address(user), To::User(user));
                    expected = if takes { Expected::Taken } else { Expected::Refused(428) };
                    self.cover.reach("message", "to one participant");
                }
            }
            12..=13 => (to, expected) = ("sip:stranger@example.com".into(), Expected::Refused(404)),
            14..=15 => (from, expected) = ("sip:somebody@example.com".into(), Expected::Refused(403)),
            16..=17 => (content_type, expected) = ("text/plain", Expected::Refused(415)),
            18..=19 => {
                to = format!("{ALL}>, <{}", address(sketch.user));
                expected = Expected::Refused(403);
            }
            20..=21 => expected = Expected::Refused(400),
            22..=25 => from = number_of(sketch.user),
            26..=27 => {
                more = "no colon in it\r\n";
                (whom, expected) = (To::Nobody, Expected::Refused(400));
            }
            _ => {}
        }
        let number = sketch.number;
        let head = |from: &str| {
            format!(
                "From: <{from}>\r\nTo: <{to}>\r\n{more}NS: imdn <urn:ietf:params:imdn>\r\n\
                 imdn.Message-ID: m{number:05}\r\n\r\nContent-Type: text/plain\r\n\r\n"
            )
        };
        let text = content(number, sketch.size);
        let body = [head(&from).into_bytes(), text.clone()].concat();
        let length = head(&from).len() as u64;
        let mut said = self.sketch(seat, number, body, length);
        if from.starts_with("tel:") {
            self.cover.reach("message", "from another address of its sender");
            said.shown = [head(&address(sketch.user)).into_bytes(), text].concat().into();
        }
        if expected != Expected::Taken && expected != Expected::Refused(400) {
            whom = To::Nobody;
        }
        (said.to, said.expected, said.content_type) = (whom, expected, content_type);
        said
    }

    /// The next chunk of a message.
    fn go_on(&mut self, seat: usize, number: usize) {
        let Some(piece) = self.said[number].pieces.pop_front() else {
            return self.seats[seat].open.retain(|open| *open != number);
        };
        self.chunk(seat, number, piece);
        if self.said[number].pieces.is_empty() {
            self.seats[seat].open.retain(|open| *open != number);
        }
    }

    fn chunk(&mut self, seat: usize, number: usize, piece: Piece) {
        let tid = self.tid();
        let announces = self.dice.percent(50) && piece.end + 1 - piece.start <= 2048;
        let names_range = piece.start > 1 || self.dice.percent(90);
        let failure = self.said[number].failure;
        let asked = self.ask(seat, &tid, Some(number), failure);
        let (who, said) = (&self.seats[seat], &mut self.said[number]);
        let mut bytes = BytesMut::new();
        let writer =
            HeadWriter::request(&mut bytes, &tid, "SEND", who.ours.as_bytes(), who.theirs.as_bytes())
                .message_id(&said.id);
        if piece.bare {
            writer.byte_range(ByteRange::EMPTY).failure_report(failure).end(Flag::Abort);
            let end = Mark::Ended { said: number, flag: Flag::Abort, whole: false };
            let marks = [(bytes.len(), end), (bytes.len(), Mark::Asked(asked))];
            return self.send(seat, &bytes, &marks);
        }
        let total = said.knows_total.then_some(said.body.len() as u64);
        let range = ByteRange { start: piece.start, end: announces.then_some(piece.end), total };
        let writer = if names_range { writer.byte_range(range) } else { writer };
        writer.success_report(said.success).failure_report(failure).body(said.content_type.as_bytes());
        let body_at = bytes.len();
        bytes.extend_from_slice(&said.body[piece.start as usize - 1..piece.end as usize]);
        bytes.extend_from_slice(&msrp::end_line(&tid, piece.flag));
        let end = bytes.len();
        let before = said.written.contiguous();
        let mut marks = vec![(1, Mark::Began(number))];
        // Too many spans for our book: then the engine will say so, too.
        let _ = said.written.insert(piece.start, piece.end);
        if piece.flag == Flag::Last {
            said.last = Some(piece.end);
        }
        let after = said.written.contiguous();
        if said.room {
            let decides = before < said.head && after >= said.head;
            if decides && piece.start <= said.head {
                let at = body_at + (said.head - piece.start) as usize;
                marks.push((at - 3, Mark::Freeze(number)));
                marks.push(((at + 100).min(end), Mark::Frozen(number)));
            }
        } else {
            marks.push((1, Mark::Freeze(number)));
            marks.push(((body_at + 100).min(end), Mark::Frozen(number)));
        }
        let whole = said.last.is_some_and(|last| said.written.covers(1, last));
        marks.push((end, Mark::Ended { said: number, flag: piece.flag, whole }));
        marks.push((end, Mark::Asked(asked)));
        self.send(seat, &bytes, &marks);
    }

    /// What was taken whole is said once more.
    fn say_again(&mut self, seat: usize, conn: u64) {
        let recent = self.said.iter().enumerate().rev().filter(|(_, said)| said.sender == seat).take(6);
        let mut fit =
            recent.filter(|(_, s)| s.room && s.is_accepted() && s.link == Some(conn) && !s.overlaps);
        let Some((number, said)) = fit.next() else { return };
        let end = said.body.len() as u64;
        self.cover.reach("message", "said again");
        self.said[number].again = true;
        self.chunk(seat, number, Piece { start: 1, end, flag: Flag::Last, bare: false });
    }

    // ---- what a peer reads -----------------------------------------------------------------------------------

    /// A whole message or chunk, which ended at that octet of what the link carries.
    pub(crate) fn read(&mut self, conn: u64, chunk: Chunk, at: u64) {
        let Some(link) = self.links.get(&conn) else { return };
        let seat = link.seat;
        let is_mine = chunk.head.to_path().as_str() == self.seats[seat].theirs;
        if !is_mine && self.seats[seat].link == Some(conn) {
            self.fault(format!(
                "seat {seat} reads what is for another session: {}",
                chunk.head.to_path().as_str()
            ));
        }
        match chunk.head.start() {
            Start::Response(status) => self.answered(seat, conn, &chunk, status),
            Start::Request(Method::Send) if chunk.head.has_body() || chunk.flag == Flag::Abort => {
                self.receive(conn, &chunk, at);
                if self.mutator.strays() {
                    self.stray_chunk(conn, &chunk);
                }
            }
            Start::Request(Method::Send) => self.reply(seat, &chunk, Status::OK),
            Start::Request(Method::Nickname) => {
                let status = self.dice.pick(&[Status::OK, Status::NICKNAME_IN_USE]);
                self.reply(seat, &chunk, status);
            }
            Start::Request(Method::Report) => self.reported(seat, conn, &chunk, at),
            Start::Request(_) => self.fault("the engine writes a method that it should not".into()),
        }
    }

    fn reply(&mut self, seat: usize, chunk: &Chunk, status: Status) {
        if let Some(bytes) = msrp::response(&chunk.head, status) {
            self.send(seat, &bytes, &[]);
        }
    }

    fn answered(&mut self, seat: usize, conn: u64, chunk: &Chunk, status: Status) {
        let code = status.0;
        let tid = chunk.head.tid().as_str().to_owned();
        let Some(number) = self.by_tid.get(&(seat, tid)).copied() else {
            return self.fault(format!("seat {seat} reads an answer to nothing: {code}"));
        };
        self.cover.reach("answer", code.to_string());
        let asked = &mut self.asked[number];
        asked.codes.push(code);
        let (said, is_there) = (asked.said, asked.link == conn);
        if !is_there {
            return self.fault(format!("seat {seat} reads the answer of another connection"));
        }
        let Some(said) = said else { return };
        if self.said[said].again && code < 300 {
            return;
        }
        self.said[said].codes.push(code);
        if code >= 300 && self.seats[seat].open.contains(&said) && !self.dice.percent(25) {
            // It was told to stop: it says that it does.
            self.said[said].pieces.clear();
            self.said[said].pieces.push_back(Piece { start: 1, end: 0, flag: Flag::Abort, bare: true });
        }
    }

    fn reported(&mut self, seat: usize, conn: u64, chunk: &Chunk, at: u64) {
        let id = chunk.head.message_id().to_owned();
        let code = chunk.head.status().map_or(0, |status| status.0);
        let Some(said) = self.by_id.get(&(seat, id.clone())).copied() else {
            return self.fault(format!("seat {seat} reads a REPORT {code} about nothing that it said: {id}"));
        };
        self.cover.reach("report", code.to_string());
        let step = self.links.get(&conn).and_then(|link| link.step_written(at)).unwrap_or(self.step);
        let end = chunk.head.byte_range().and_then(|range| range.end);
        self.note(|| format!("seat {seat} reads REPORT {code} of {said}"));
        self.said[said].reports.push((code, end, step));
        if code >= 300 {
            self.seats[seat].open.retain(|open| *open != said);
        }
    }

    /// A chunk of a message for a seat.
    fn receive(&mut self, conn: u64, chunk: &Chunk, at: u64) {
        let Some(link) = self.links.get(&conn) else { return };
        let seat = link.seat;
        let id = chunk.head.message_id().to_owned();
        let key = (conn, id.clone());
        let known = self.by_shown.get(&key).copied();
        let number = known.unwrap_or_else(|| {
            let is_room = self.shapes.get(&self.seats[seat].context) == Some(&Shape::Room);
            let is_tap = self.seats[seat].tap;
            let whim = match self.dice.below(100) {
                0..=2 if !is_room || is_tap => Whim::Refuses,
                3..=4 if !is_room || is_tap => Whim::Silent,
                _ => Whim::None,
            };
            self.incoming.push(Incoming {
                seat,
                link: conn,
                id,
                candidates: (0..self.said.len()).collect(),
                got: Ranges::with_max(64),
                last: None,
                total: None,
                done: None,
                aborted: false,
                twice: false,
                after_end: false,
                end_at: 0,
                whim: Some(whim).filter(|whim| *whim != Whim::None),
                reported: false,
            });
            self.by_shown.insert(key, self.incoming.len() - 1);
            self.incoming.len() - 1
        });
        let range = chunk.head.byte_range().unwrap_or(ByteRange::OPEN);
        let (start, length) = (range.start, chunk.body.len() as u64);
        let end = start + length - 1;
        let (mut incoming, said) = (std::mem::take(&mut self.incoming), &self.said);
        let one = &mut incoming[number];
        if one.done.is_some() || one.aborted {
            // Who was given up as too slow, wanted no more, or whose sender never said that this was all, may have had all
            // octets, in another order than they were written in.
            let refuses = one.whim == Some(Whim::Refuses);
            let never_whole = one.candidates.iter().all(|at| said[*at].whole.is_none());
            let why = refuses || never_whole || !self.seats[seat].troubles.is_empty();
            let given_up = chunk.flag == Flag::Abort && why;
            one.after_end |= !given_up;
        }
        let fits = |at: &usize| {
            let shown = &said[*at].shown;
            shown.get(start as usize - 1..end as usize).is_some_and(|part| part == chunk.body)
                && range.total.is_none_or(|total| total == shown.len() as u64)
        };
        if length > 0 || chunk.flag != Flag::Abort {
            one.candidates.retain(fits);
        }
        if self.verbose {
            let (flag, id) = (chunk.flag, &one.id);
            eprintln!(
                "{:>25}  seat {seat} reads {range} {flag:?} {length} of {id} {:?}",
                "",
                one.candidates.first()
            );
        }
        let unknown = one.candidates.is_empty();
        let first = one.got.iter().any(|(from, to)| length > 0 && from <= end && start <= to);
        one.twice |= first;
        let spans = one.got.insert(start, end);
        one.total = one.total.or(range.total);
        match chunk.flag {
            Flag::Last => one.last = Some(end),
            Flag::Abort => one.aborted = one.done.is_none(),
            Flag::More => {}
        }
        one.end_at = one.end_at.max(at);
        let completes =
            one.done.is_none() && !one.aborted && one.last.is_some_and(|last| one.got.covers(1, last));
        if completes {
            self.completed += 1;
            one.done = Some(self.completed);
        }
        let whim = one.whim;
        let reports = completes && whim.is_none() && chunk.head.success_report();
        // What a tap says of it, unasked, is nobody's.
        let tells = completes && self.seats[seat].tap && self.dice.percent(20);
        let passed_on = one.candidates.first().copied().filter(|_| tells);
        one.reported |= reports;
        let (last, id, aborted) = (one.last, one.id.clone(), one.aborted);
        let maybe = one.candidates.clone();
        self.incoming = incoming;
        if unknown {
            self.fault(format!("seat {seat} reads octets {start}-{end} of {id} that nobody said"));
        }
        if completes || aborted {
            let how = if completes { "whole" } else { "given up" };
            self.note(|| format!("seat {seat} has {:?} {how}", maybe.iter().take(3).collect::<Vec<_>>()));
        }
        if spans.is_err() {
            self.fault(format!("seat {seat} reads {id} in too many spans"));
        }
        match whim {
            Some(Whim::Silent) => {}
            Some(Whim::Refuses) => self.reply(seat, chunk, Status::STOP),
            _ => self.reply(seat, chunk, Status::OK),
        }
        if self.mutator.kind == Some(Mutation::TapReports)
            && let Some(said) = passed_on
        {
            self.said[said].reports.push((200, last, self.step));
        }
        if (reports || tells)
            && let Some(last) = last
        {
            self.cover.reach("report", if tells { "from a tap" } else { "from a receiver" });
            let tid = self.tid();
            let bytes = msrp::report(&tid, &chunk.head, ByteRange::new(1, last, last), Status::OK);
            self.send(seat, &bytes, &[]);
        }
    }

    /// A broken rule: a chunk also comes to somebody who must not have it.
    fn stray_chunk(&mut self, conn: u64, chunk: &Chunk) {
        let Some(incoming) = self.by_shown.get(&(conn, chunk.head.message_id().to_owned())) else { return };
        let incoming = &self.incoming[*incoming];
        let Some(said) = incoming.candidates.first().copied() else { return };
        let (context, is_private) = (self.said[said].context, matches!(self.said[said].to, To::User(_)));
        let frozen = self.said[said].frozen;
        let is_tail = chunk.head.byte_range().is_some_and(|range| range.start > 1) && !chunk.body.is_empty();
        let fits = |seat: usize| {
            let other = &self.seats[seat];
            match self.mutator.kind {
                Some(Mutation::LateTail) => {
                    is_tail && other.context == context && frozen.is_some_and(|at| other.invited > at)
                }
                Some(Mutation::LateTailElsewhere) => {
                    let elsewhere = other.shard != self.seats[self.said[said].sender].shard;
                    let late = frozen.is_some_and(|at| other.invited > at);
                    is_tail && other.context == context && late && elsewhere
                }
                Some(Mutation::OtherSession) => other.context != context,
                _ => is_private && seat != incoming.seat && other.context == context && !other.tap,
            }
        };
        let found = (0..self.seats.len()).filter(|seat| fits(*seat)).find_map(|seat| self.seats[seat].link);
        if let Some(other) = found {
            self.receive(other, chunk, 0);
        }
    }
}
