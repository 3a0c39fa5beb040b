//! How long a message of a room is on its way, at a part of the largest load and with a member who reads nothing.
//!
//! An open loop: messages are due evenly spaced, whatever comes back, and a delay counts from when its message was due.
//! Members are watched by readiness; the n-th message of a member is told by its octets, for all are of one length.
//!
//! The largest load is an open loop's too: the highest rate at which all that is due for a while is sent and is with all
//! members soon after the last one was due. A closed loop's rate is none: it waits where the open one goes on, and what a
//! room cannot pass on it may take from a member (he is marked as congested, CPM-FACTS §3.8 step 13). It is looked for in
//! each round, for the machine has states that last minutes.

use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::load::{Load, Place, Shape};
use super::progress::Progress;
use super::{Arguments, plane};
use crate::report::{Reach, Report};
use crate::rtp::weir::Weir;
use crate::rtp::{clock, median};

const MEMBERS: usize = 100;
/// Of the larger room.
const MANY: usize = 1000;
/// Messages under way in the closed loop that says where to begin to look.
const WINDOW: u64 = 32;
/// The first rate that is tried, of the closed loop's; each further one is so much of the one before; tries of one search.
const FIRST: f64 = 1.2;
const STEP: f64 = 0.9;
const TRIES: usize = 16;
/// Messages that leave together at most, when the load was held up.
const BURST: u64 = 16;
/// A rate is carried when all of it is with all members so soon after the last one was due.
const SOON: Duration = Duration::from_millis(100);
/// Where nothing came for so long, what is missing is lost.
const QUIET: Duration = Duration::from_secs(2);
/// How often a round is begun again at most when something was lost in it.
const AGAIN: usize = 3;
/// The shard counts again in this time.
const COUNTED: Duration = Duration::from_millis(600);
/// Messages to him who reads nothing, until something waits for him: as often as this at most.
const WHISPERS: usize = 4000;
const WHISPER_TIMES: usize = 16;
const SHARES: [(&str, f64); 2] = [("delay_10", 0.1), ("delay_80", 0.8)];
const PARTS: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)];
const NAMES: [&str; 2] = ["all read", "one reads nothing"];

/// Microseconds of each of [`PARTS`].
type Figures = [f64; 3];

/// What came of one pass.
struct Passed {
    /// Messages a second that were sent.
    rate: f64,
    /// Of all that came, sorted; nanoseconds.
    delays: Vec<u32>,
    /// Deliveries that never came.
    lost: u64,
    /// From when the last one was due until all had come.
    after: Duration,
}

impl Passed {
    fn is_carried(&self) -> bool {
        self.lost == 0 && self.after <= SOON
    }

    fn figures(&self) -> Figures {
        PARTS.map(|(_, part)| {
            let at = (self.delays.len() as f64 * part) as usize;
            let ns = self.delays.get(at.min(self.delays.len().saturating_sub(1)));
            ns.map_or(f64::NAN, |ns| f64::from(*ns) / 1e3)
        })
    }
}

/// A data plane with a room: one speaks, all others listen, and perhaps one more reads nothing.
struct Room {
    weir: Weir,
    load: Load,
    members: usize,
    /// Of a message as it comes.
    octets: u64,
    silent: Option<Load>,
}

impl Room {
    fn open(members: usize, stalled: bool) -> anyhow::Result<Self> {
        let (ours, core) = clock::cores();
        clock::pin(ours);
        let (mut weir, at) = plane::start_counting(core)?;
        let (mut load, silent) = clients(&mut weir, at, members, stalled)?;
        weir.control().drain()?;
        let octets = load.message_octets()?;
        let mut room = Room { weir, load, members, octets, silent };
        if stalled {
            room.fill()?;
        }
        Ok(room)
    }

    /// Speaks to him who reads nothing, and to nobody else, until the kernel takes no more for him and the rest waits here.
    fn fill(&mut self) -> anyhow::Result<()> {
        let much = forward::Limits::default().queue_bytes_max as f64 / 5.0;
        for _ in 0..WHISPER_TIMES {
            self.load.whisper(self.members + 1, WHISPERS)?;
            std::thread::sleep(COUNTED);
            if self.waiting()? >= much {
                // What all get comes behind the last of what he alone was sent.
                self.load.message_octets()?;
                return self.weir.control().drain();
            }
        }
        anyhow::bail!("nothing waits for a member who reads nothing")
    }

    /// Octets that wait in the data plane.
    fn waiting(&self) -> anyhow::Result<f64> {
        self.weir.metric("weir_dataplane_queued_bytes")
    }

    /// Sends so many messages a second, or as many as come out.
    fn pass(&mut self, rate: Option<f64>, time: Duration) -> anyhow::Result<Passed> {
        pass(&mut self.load, self.members, self.octets, rate, time)
    }

    /// Why the data plane dropped what it did.
    fn drops(&self) -> anyhow::Result<String> {
        std::thread::sleep(COUNTED);
        let drops = self.weir.drops()?;
        let drops: Vec<String> = drops.iter().map(|(why, count)| format!("{why} {count}")).collect();
        Ok(if drops.is_empty() { "nothing".to_owned() } else { drops.join(", ") })
    }
}

/// The largest load that a room carries; begins above what a closed loop comes to, and looks at each in a room of its own.
fn largest(members: usize, time: Duration, progress: &mut Progress) -> anyhow::Result<f64> {
    let mut room = Room::open(members, false)?;
    let mut rate = room.pass(None, time)?.rate * FIRST;
    for _ in 0..TRIES {
        let passed = room.pass(Some(rate), time)?;
        if passed.is_carried() {
            return Ok(rate);
        }
        progress.say(&format!(
            "{rate:.0} messages/s are too many: {} lost, the last came {} ms late; dropped: {}",
            passed.lost,
            passed.after.as_millis(),
            if passed.lost > 0 { room.drops()? } else { String::new() }
        ));
        rate *= STEP;
        if passed.lost > 0 {
            drop(room);
            room = Room::open(members, false)?;
        }
    }
    anyhow::bail!("no rate is carried, down to {rate:.0} messages/s")
}

/// One round: the largest load, and the delays at shares of it without and with him who reads nothing.
struct Round {
    largest: f64,
    /// By share, without and with.
    figures: Vec<[Figures; 2]>,
    /// Octets that wait for him at the end.
    waiting: f64,
}

/// Begins again, with less, where something was lost.
fn round(
    members: usize,
    shares: &[f64],
    time: Duration,
    progress: &mut Progress,
    again: &mut Vec<String>,
) -> anyhow::Result<Option<Round>> {
    let mut largest = largest(members, time, progress)?;
    for _ in 0..=AGAIN {
        match try_round(members, largest, shares, time, progress)? {
            Ok(round) => return Ok(Some(round)),
            Err(why) => {
                progress.say(&why);
                again.push(why);
                largest *= STEP;
            }
        }
    }
    Ok(None)
}

/// The inner error: something was lost, and why.
fn try_round(
    members: usize,
    largest: f64,
    shares: &[f64],
    time: Duration,
    progress: &mut Progress,
) -> anyhow::Result<Result<Round, String>> {
    let mut round = Round { largest, figures: vec![Default::default(); shares.len()], waiting: 0.0 };
    for (stalled, name) in NAMES.iter().enumerate() {
        let mut room = Room::open(members, stalled == 1)?;
        for (share, figures) in shares.iter().zip(&mut round.figures) {
            let passed = room.pass(Some(largest * share), time)?;
            if passed.lost > 0 {
                return Ok(Err(format!(
                    "{} of {} deliveries were lost at {:.0} messages/s, {name}; dropped: {}",
                    passed.lost,
                    passed.lost + passed.delays.len() as u64,
                    largest * share,
                    room.drops()?
                )));
            }
            let came = passed.figures();
            if let Some(figures) = figures.get_mut(stalled) {
                *figures = came;
            }
            progress.step(&format!("{share} of {largest:.0}/s, {name}: p99"), came[1] * 1000.0);
        }
        if room.silent.is_some() {
            // Nobody else has anything left, once the shard has counted again.
            std::thread::sleep(COUNTED);
            round.waiting = room.waiting()?;
        }
    }
    Ok(Ok(round))
}

fn rounds(
    arguments: &Arguments,
    row: &str,
    members: usize,
    shares: &[f64],
) -> anyhow::Result<(Vec<Round>, String)> {
    let time = Duration::from_millis(arguments.slice_ms.max(300) * 3);
    let mut progress = Progress::new(row, arguments.rounds * 2 * shares.len());
    let (mut rounds, mut again) = (Vec::new(), Vec::new());
    for _ in 0..arguments.rounds {
        rounds.extend(round(members, shares, time, &mut progress, &mut again)?);
    }
    progress.end();
    let last = again.last().cloned().unwrap_or_default();
    anyhow::ensure!(!rounds.is_empty(), "messages were lost in each round: {last}");
    let again = match again.len() {
        0 => String::new(),
        times => format!("; {times} rounds were begun again with less, for {last}"),
    };
    Ok((rounds, again))
}

/// Adds the rows.
pub(super) fn run(arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    let (rounds, again) = rounds(arguments, "delay", MEMBERS, &SHARES.map(|(_, of)| of))?;
    let largest = median(&rounds, |round| round.largest);
    for (nth, (share, of)) in SHARES.iter().enumerate() {
        for (at, (part, _)) in PARTS.iter().enumerate() {
            let figure = |stalled: usize| {
                median(&rounds, |round| {
                    round.figures.get(nth).map_or(f64::NAN, |figures| figures[stalled][at])
                })
            };
            let (without, with) = (figure(0), figure(1));
            let note = format!(
                "{with:.0} us with a member who reads nothing over {without:.0} us without him; {:.0} messages/s to \
                 {MEMBERS} members, of {largest:.0} at most{again}",
                largest * of
            );
            let row = format!("{share}_{part}_us");
            match *part {
                "p99" => report.held(row, with / without, "ratio", Reach::AtMost(1.2), note),
                _ => report.row(row, with / without, "ratio", note),
            }
        }
    }
    Ok(())
}

fn clients(
    weir: &mut Weir,
    at: SocketAddr,
    members: usize,
    stalled: bool,
) -> anyhow::Result<(Load, Option<Load>)> {
    let mut ends = plane::room(weir.control(), members + 1 + usize::from(stalled), false)?;
    let silent = if stalled { ends.pop() } else { None };
    let place = |ends| Place { at, ends, tls: None, binds: true, streams: Vec::new() };
    let silent = silent.map(|ends| Load::connect_deaf(place(vec![ends]))).transpose()?;
    Ok((Load::connect(place(ends), Shape::Room { window: 1, burst: 1 })?, silent))
}

/// A member who reads nothing among a thousand: what that does to the others, and what he takes of memory.
pub(super) fn run_many(arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    const SHARE: f64 = 0.5;
    let (rounds, again) = rounds(arguments, "stalled_1000", MANY, &[SHARE])?;
    let p99 = |stalled: usize| {
        median(&rounds, |round| round.figures.first().map_or(f64::NAN, |figures| figures[stalled][1]))
    };
    let (without, with) = (p99(0), p99(1));
    let largest = median(&rounds, |round| round.largest);
    let note = format!(
        "p99 {with:.0} us with a member who reads nothing over {without:.0} us without him; {:.0} messages/s to {MANY} \
         members, of {largest:.0} at most{again}",
        largest * SHARE
    );
    report.held("stalled_1000_p99", with / without, "ratio", Reach::AtMost(1.2), note);
    let limits = forward::Limits::default();
    let note = format!(
        "octets that wait for him at the end, here and with the driver, beside {} that are held for him at most and what the \
         kernel's sockets hold, which were full before; he is cut loose after {} s",
        limits.held_bytes_max,
        limits.slow_ms / 1000
    );
    let waiting = median(&rounds, |round| round.waiting);
    let most = limits.queue_bytes_max as f64;
    report.held("stalled_1000_bytes", waiting, "octets", Reach::AtMost(most), note);
    Ok(())
}

/// Sends so many messages a second, or as many as come out.
fn pass(
    load: &mut Load,
    members: usize,
    octets: u64,
    rate: Option<f64>,
    time: Duration,
) -> anyhow::Result<Passed> {
    let mut poll = mio::Poll::new()?;
    for (index, stream) in load.receivers() {
        let descriptor = stream.as_raw_fd();
        let mut source = mio::unix::SourceFd(&descriptor);
        poll.registry().register(&mut source, mio::Token(index), mio::Interest::READABLE)?;
    }
    load.forget();
    let mut events = mio::Events::with_capacity(2 * members);
    let (start, end) = (Instant::now(), time.as_nanos() as u64);
    let mut due: Vec<u64> = Vec::new();
    let mut seen = vec![0usize; members + 1];
    let (mut delivered, mut last) = (0u64, 0u64);
    let mut delays = Vec::new();
    loop {
        let now = start.elapsed().as_nanos() as u64;
        let sent = due.len() as u64;
        let wanted = match rate {
            // What was due before the end is sent, however late.
            Some(rate) => ((now.min(end) as f64 * rate / 1e9) as u64).saturating_sub(sent).min(BURST),
            None if now < end => (delivered / members as u64 + WINDOW).saturating_sub(sent),
            None => 0,
        };
        for number in sent..sent + wanted {
            load.send(0)?;
            due.push(rate.map_or(now, |rate| ((number + 1) as f64 * 1e9 / rate) as u64));
        }
        if now >= end && wanted == 0 && delivered >= sent * members as u64 {
            break;
        }
        if now >= end.max(last) + QUIET.as_nanos() as u64 {
            break;
        }
        poll.poll(&mut events, Some(Duration::ZERO))?;
        for event in &events {
            let index = event.token().0;
            let got = load.take(index)?;
            let at = start.elapsed().as_nanos() as u64;
            last = at;
            let seen = seen.get_mut(index).context("a member")?;
            while (*seen as u64 + 1) * octets <= got {
                let left = due.get(*seen).copied().context("more came than was sent")?;
                delays.push(u32::try_from(at.saturating_sub(left)).unwrap_or(u32::MAX));
                *seen += 1;
                delivered += 1;
            }
        }
    }
    delays.sort_unstable();
    let after = Duration::from_nanos(last.saturating_sub(due.last().copied().unwrap_or(0)));
    let lost = (due.len() as u64 * members as u64).saturating_sub(delivered);
    Ok(Passed { rate: due.len() as f64 / time.as_secs_f64(), delays, lost, after })
}
