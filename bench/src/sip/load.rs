//! A closed loop of so many users' work under way at once: it calls, and it is called.
//!
//! Each unit of work has a Call-ID that says which slot's it is; a response is its caller's, a request is for whom it calls.
//! What is not finished in time is a failure, and its slot begins anew.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use sip::{Message, Request, Response};

use super::wires::{Own, Wires};
use crate::rtp::clock::{self, Who};

/// Longer than two retransmissions of what was lost.
const PATIENCE: Duration = Duration::from_secs(3);

/// One unit of work.
pub(super) struct Unit {
    /// It takes turns with other units of its slot.
    pub(super) slot: usize,
    /// Which one of all.
    pub(super) number: u64,
    /// Requests so far.
    pub(super) sent: u32,
    /// What was sent last, and is not an ACK.
    pub(super) last: Option<Request>,
}

impl Unit {
    /// Its Call-ID.
    pub(super) fn call_id(&self) -> String {
        format!("{}-{}@bench", self.slot, self.number)
    }

    /// Slot and number, out of it.
    pub(super) fn named(response: &Response) -> Option<(usize, u64)> {
        let id = response.headers.text(&sip::Name::CallId)?;
        let (slot, number) = id.strip_suffix("@bench")?.split_once('-')?;
        Some((slot.parse().ok()?, number.parse().ok()?))
    }
}

/// What the caller does about a response.
pub(super) enum Step {
    /// It waits for the next one.
    Wait,
    /// It says these and waits.
    Say(Vec<Request>),
    /// It says what it has said before.
    Repeat(Request),
    /// The work is done.
    Done,
    /// It went wrong, and this is said to it.
    Failed(Option<Request>),
}

/// What is done over and over.
pub(super) trait Script {
    /// Who does a unit.
    fn user(&self, number: u64) -> u64 {
        number % super::scripts::USERS
    }
    /// The first request of a unit.
    fn begin(&mut self, unit: &Unit, own: &Own) -> Request;
    /// A response to the caller.
    fn heard(&mut self, unit: &mut Unit, response: &Response, own: &Own) -> Step;
    /// What the called one answers.
    fn answer(&mut self, _request: &Request, _own: &Own) -> Option<Response> {
        None
    }
    /// What the called one asks, when it was asked that.
    fn reply(&mut self, _request: &Request, _own: &Own) -> Option<Request> {
        None
    }
}

/// Figures of one measurement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Units that were finished.
    pub(super) done: u64,
    /// Units that failed.
    pub(super) failed: u64,
    /// CPU of what was measured for each.
    pub(super) ns: f64,
    /// Units a second.
    pub(super) per_s: f64,
}

/// The sockets and who is under way.
pub(super) struct Load {
    wires: Wires,
    slots: Vec<(Unit, Instant)>,
    number: u64,
    heard: VecDeque<(usize, Message)>,
}

impl Load {
    /// Nobody is under way yet.
    pub(super) fn new(wires: Wires) -> Load {
        Load { wires, slots: Vec::new(), number: 0, heard: VecDeque::new() }
    }

    /// Its sockets, for another.
    pub(super) fn into_wires(self) -> Wires {
        self.wires
    }

    /// Does the script for units of these numbers, and says how many failed.
    pub(super) fn finish(
        &mut self,
        script: &mut dyn Script,
        slots: usize,
        units: Range<u64>,
    ) -> anyhow::Result<u64> {
        let mut failed = 0;
        let mut done = 0;
        let count = units.end - units.start;
        self.start(script, slots.min(count as usize), units.start)?;
        while done + failed < count {
            let (more, bad) = self.turn(script, &mut |number| number < units.end)?;
            (done, failed) = (done + more, failed + bad);
        }
        Ok(failed)
    }

    /// Does the script for a while with so many under way, and measures whom it works.
    pub(super) fn measure(
        &mut self,
        script: &mut dyn Script,
        slots: usize,
        time: Duration,
        who: &[Who],
    ) -> anyhow::Result<Sample> {
        self.start(script, slots, self.number)?;
        let busy = || who.iter().map(|who| clock::process_ns(*who)).sum::<u64>();
        // What is set up at the first of them is not counted.
        let warm = Instant::now();
        while warm.elapsed() < time / 4 {
            self.turn(script, &mut |_| true)?;
        }
        let (began, before) = (Instant::now(), busy());
        let (mut done, mut failed) = (0, 0);
        while began.elapsed() < time {
            let (more, bad) = self.turn(script, &mut |_| true)?;
            (done, failed) = (done + more, failed + bad);
        }
        let (spent, taken) = (busy() - before, began.elapsed());
        // Those that are under way are brought to their end, so that the next measurement begins with none.
        let ending = Instant::now();
        while !self.slots.is_empty() && ending.elapsed() < PATIENCE {
            self.turn(script, &mut |_| false)?;
        }
        self.slots.clear();
        anyhow::ensure!(done > 0, "nothing was finished");
        Ok(Sample { done, failed, ns: spent as f64 / done as f64, per_s: done as f64 / taken.as_secs_f64() })
    }

    fn start(&mut self, script: &mut dyn Script, slots: usize, first: u64) -> anyhow::Result<()> {
        self.slots.clear();
        self.number = first;
        (0..slots).try_for_each(|slot| self.begin(script, slot))
    }

    fn begin(&mut self, script: &mut dyn Script, slot: usize) -> anyhow::Result<()> {
        let mut unit = Unit { slot, number: self.number, sent: 1, last: None };
        self.number += 1;
        let way = self.wires.way(script.user(unit.number));
        let request = script.begin(&unit, &self.wires.own(way));
        self.wires.say(way, &request.to_bytes())?;
        unit.last = Some(request);
        match self.slots.iter_mut().find(|(old, _)| old.slot == slot) {
            Some(old) => *old = (unit, Instant::now()),
            None => self.slots.push((unit, Instant::now())),
        }
        Ok(())
    }

    /// Everything that has come, or a time-out; how many units were finished, and how many failed.
    fn turn(
        &mut self,
        script: &mut dyn Script,
        more: &mut dyn FnMut(u64) -> bool,
    ) -> anyhow::Result<(u64, u64)> {
        self.wires.hear(Duration::from_millis(100), &mut self.heard)?;
        let (mut done, mut failed) = (0, 0);
        if self.heard.is_empty() {
            let late = self.slots.iter().find(|(_, began)| began.elapsed() > PATIENCE);
            if let Some(slot) = late.map(|(unit, _)| unit.slot) {
                failed += 1;
                self.next(script, slot, more)?;
            }
        }
        while let Some((way, message)) = self.heard.pop_front() {
            let ended = match message {
                Message::Request(request) => {
                    called(&mut self.wires, script, way, &request)?;
                    None
                }
                Message::Response(response) => self.response(script, way, &response)?,
            };
            if let Some((slot, well)) = ended {
                (done, failed) = (done + u64::from(well), failed + u64::from(!well));
                self.next(script, slot, more)?;
            }
        }
        Ok((done, failed))
    }

    fn next(
        &mut self,
        script: &mut dyn Script,
        slot: usize,
        more: &mut dyn FnMut(u64) -> bool,
    ) -> anyhow::Result<()> {
        if more(self.number) {
            return self.begin(script, slot);
        }
        self.slots.retain(|(unit, _)| unit.slot != slot);
        Ok(())
    }

    /// The slot whose work is over with it, and whether it went well.
    fn response(
        &mut self,
        script: &mut dyn Script,
        way: usize,
        response: &Response,
    ) -> anyhow::Result<Option<(usize, bool)>> {
        let Some((unit, _)) = Unit::named(response).and_then(|(slot, number)| {
            self.slots.iter_mut().find(|(unit, _)| unit.slot == slot && unit.number == number)
        }) else {
            return Ok(None);
        };
        let slot = unit.slot;
        Ok(step(&mut self.wires, script, unit, way, response)?.map(|well| (slot, well)))
    }
}

/// The called one hears a request.
pub(super) fn called(
    wires: &mut Wires,
    script: &mut dyn Script,
    way: usize,
    request: &Request,
) -> anyhow::Result<()> {
    let own = wires.own(way);
    if let Some(answer) = script.answer(request, &own) {
        wires.say(way, &answer.to_bytes())?;
    }
    if let Some(asked) = script.reply(request, &own) {
        wires.say(way, &asked.to_bytes())?;
    }
    Ok(())
}

/// The caller hears a response: whether the unit is over with it, and well.
pub(super) fn step(
    wires: &mut Wires,
    script: &mut dyn Script,
    unit: &mut Unit,
    way: usize,
    response: &Response,
) -> anyhow::Result<Option<bool>> {
    let own = wires.own(way);
    match script.heard(unit, response, &own) {
        Step::Wait => Ok(None),
        Step::Done => Ok(Some(true)),
        Step::Failed(said) => {
            said.map_or(Ok(()), |said| wires.say(way, &said.to_bytes()))?;
            Ok(Some(false))
        }
        Step::Repeat(request) => {
            wires.say(way, &request.to_bytes())?;
            Ok(None)
        }
        Step::Say(requests) => {
            for request in requests {
                unit.sent += 1;
                wires.say(way, &request.to_bytes())?;
                if request.method != sip::Method::Ack {
                    unit.last = Some(request);
                }
            }
            Ok(None)
        }
    }
}
