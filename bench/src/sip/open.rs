//! An open loop: units begin when they are due, whatever becomes of those before them, and wait as phones do: what is lost
//! over UDP is sent again (RFC 3261 §17.1.1.2, §17.1.2.2: T1, doubled). A delay counts from when its unit was due, so a load
//! that comes late to it does not hide what it made wait.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use sip::{Message, Method, Response};

use super::load::{Script, Unit, called, step};
use super::wires::Wires;
use crate::rtp::clock::{self, Who};

/// RFC 3261 §17.1.1.1.
const T1: Duration = Duration::from_millis(500);
/// What is not finished so long after it was due has failed: nobody holds a phone for longer.
const PATIENCE: Duration = Duration::from_secs(4);
/// Units begun at once before what has come is read.
const BURST: usize = 32;

/// What became of a unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fate {
    /// When it was due, from the beginning.
    pub(super) due: Duration,
    /// From then to its first 2xx, if one came.
    pub(super) answered: Option<Duration>,
    /// When it was finished, from the beginning, if it was.
    pub(super) done: Option<Duration>,
    /// What it was refused with.
    pub(super) refused: Option<u16>,
}

struct Going {
    unit: Unit,
    way: usize,
    due: Instant,
    fate: usize,
    /// Responses were heard: an INVITE is not sent again.
    heard: bool,
    /// Sends of what was sent last.
    sends: u32,
}

/// The figures of a run.
pub(super) struct Figures {
    pub(super) fates: Vec<Fate>,
    /// CPU of whom it worked, nanoseconds.
    pub(super) busy_ns: u64,
    /// Share of the time in which the load itself ran.
    pub(super) own_busy: f64,
    /// The furthest that it was behind.
    pub(super) late: Duration,
}

impl Figures {
    pub(super) fn done(&self) -> usize {
        self.fates.iter().filter(|fate| fate.done.is_some()).count()
    }

    pub(super) fn refused(&self) -> usize {
        self.fates.iter().filter(|fate| fate.refused.is_some()).count()
    }

    /// A quantile of the times to an answer, in microseconds.
    pub(super) fn answer_us(&self, quantile: f64) -> f64 {
        let mut times: Vec<Duration> = self.fates.iter().filter_map(|fate| fate.answered).collect();
        times.sort_unstable();
        let at = (times.len() as f64 * quantile) as usize;
        times.get(at.min(times.len().saturating_sub(1))).map_or(f64::NAN, |time| time.as_nanos() as f64 / 1e3)
    }

    /// Nothing was lost, and nobody waited for long.
    pub(super) fn holds(&self, most_us: f64) -> bool {
        !self.fates.is_empty()
            && self.done() * 1000 >= self.fates.len() * 999
            && self.answer_us(0.99) <= most_us
    }
}

/// The load.
pub(super) struct Open {
    wires: Wires,
    number: u64,
    going: BTreeMap<u64, Going>,
    heard: VecDeque<(usize, Message)>,
    again: BinaryHeap<Reverse<(Instant, u64, u32)>>,
    ends: VecDeque<(Instant, u64)>,
}

impl Open {
    /// Nobody is under way yet. The numbers of its units begin behind those that these wires have carried.
    pub(super) fn new(wires: Wires, number: u64) -> Open {
        Open {
            wires,
            number,
            going: BTreeMap::new(),
            heard: VecDeque::new(),
            again: BinaryHeap::new(),
            ends: VecDeque::new(),
        }
    }

    /// The number of the unit that begins next.
    pub(super) const fn next(&self) -> u64 {
        self.number
    }

    /// Begins so many units a second for a while, and hears them to their ends.
    pub(super) fn run(
        &mut self,
        script: &mut dyn Script,
        rate: f64,
        time: Duration,
        who: &[Who],
    ) -> anyhow::Result<Figures> {
        self.run_steps(script, &[(rate, time)], who)
    }

    /// The same at one rate after another, without a pause.
    pub(super) fn run_steps(
        &mut self,
        script: &mut dyn Script,
        steps: &[(f64, Duration)],
        who: &[Who],
    ) -> anyhow::Result<Figures> {
        let busy = || who.iter().map(|who| clock::process_ns(*who)).sum::<u64>();
        let own = Who::Thread(clock::own_thread());
        let (before, own_before, began) = (busy(), clock::process_ns(own), Instant::now());
        let mut fates: Vec<Fate> = Vec::new();
        let mut late = Duration::ZERO;
        let mut from = Duration::ZERO;
        for (rate, time) in steps {
            let gap = Duration::from_secs_f64(1.0 / rate.max(0.1));
            let units = (time.as_secs_f64() * rate) as u32;
            let mut begun = 0;
            while begun < units || began.elapsed() < from + *time {
                for _ in 0..BURST {
                    let due = from + gap * begun;
                    let now = began.elapsed();
                    if begun >= units || due > now {
                        break;
                    }
                    late = late.max(now - due);
                    self.begin(script, began + due, &mut fates, due)?;
                    begun += 1;
                }
                let next = if begun < units { from + gap * begun } else { from + *time };
                let wait = next.saturating_sub(began.elapsed()).min(Duration::from_millis(5));
                self.turn(script, wait, &mut fates, began)?;
            }
            from += *time;
        }
        let (spent, own_spent, in_time) =
            (busy() - before, clock::process_ns(own) - own_before, began.elapsed());
        while !self.going.is_empty() {
            self.turn(script, Duration::from_millis(5), &mut fates, began)?;
        }
        self.again.clear();
        self.ends.clear();
        let own_busy = own_spent as f64 / in_time.as_nanos() as f64;
        Ok(Figures { fates, busy_ns: spent, own_busy, late })
    }

    fn begin(
        &mut self,
        script: &mut dyn Script,
        due: Instant,
        fates: &mut Vec<Fate>,
        after: Duration,
    ) -> anyhow::Result<()> {
        let mut unit = Unit { slot: 0, number: self.number, sent: 1, last: None };
        self.number += 1;
        let way = self.wires.way(script.user(unit.number));
        let request = script.begin(&unit, &self.wires.own(way));
        self.wires.say(way, &request.to_bytes())?;
        unit.last = Some(request);
        let number = unit.number;
        fates.push(Fate { due: after, answered: None, done: None, refused: None });
        let fate = fates.len() - 1;
        self.going.insert(number, Going { unit, way, due, fate, heard: false, sends: 1 });
        self.ends.push_back((due + PATIENCE, number));
        if self.wires.loses() {
            self.again.push(Reverse((Instant::now() + T1, number, 1)));
        }
        Ok(())
    }

    fn turn(
        &mut self,
        script: &mut dyn Script,
        wait: Duration,
        fates: &mut [Fate],
        began: Instant,
    ) -> anyhow::Result<()> {
        self.wires.hear(wait, &mut self.heard)?;
        while let Some((way, message)) = self.heard.pop_front() {
            match message {
                Message::Request(request) => called(&mut self.wires, script, way, &request)?,
                Message::Response(response) => self.response(script, way, &response, fates, began)?,
            }
        }
        let now = Instant::now();
        while self.again.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            if let Some(Reverse((_, number, sends))) = self.again.pop() {
                self.send_again(number, sends)?;
            }
        }
        while self.ends.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, number)) = self.ends.pop_front() {
                self.going.remove(&number);
            }
        }
        Ok(())
    }

    fn send_again(&mut self, number: u64, sends: u32) -> anyhow::Result<()> {
        let Some(going) = self.going.get_mut(&number).filter(|going| going.sends == sends) else {
            return Ok(());
        };
        let Some(last) = &going.unit.last else { return Ok(()) };
        if last.method == Method::Invite && going.heard {
            return Ok(());
        }
        self.wires.say(going.way, &last.to_bytes())?;
        going.sends += 1;
        let wait = T1 * (1 << (going.sends - 1).min(3));
        self.again.push(Reverse((Instant::now() + wait, number, going.sends)));
        Ok(())
    }

    fn response(
        &mut self,
        script: &mut dyn Script,
        way: usize,
        response: &Response,
        fates: &mut [Fate],
        began: Instant,
    ) -> anyhow::Result<()> {
        let Some(number) = Unit::named(response).map(|(_, number)| number) else { return Ok(()) };
        let Some(going) = self.going.get_mut(&number) else { return Ok(()) };
        going.heard = true;
        let before = going.unit.sent;
        let ended = step(&mut self.wires, script, &mut going.unit, way, response)?;
        let Some(fate) = fates.get_mut(going.fate) else { return Ok(()) };
        if (200..300).contains(&response.code) && fate.answered.is_none() {
            fate.answered = Some(going.due.elapsed());
        }
        if going.unit.sent > before && self.wires.loses() {
            // Another request, which is waited for anew.
            going.sends += 1;
            going.heard = false;
            self.again.push(Reverse((Instant::now() + T1, number, going.sends)));
        }
        match ended {
            Some(true) => fate.done = Some(began.elapsed()),
            Some(false) => fate.refused = Some(response.code),
            None => return Ok(()),
        }
        self.going.remove(&number);
        Ok(())
    }
}
