//! How long a message of a room is on its way, at a part of the largest load and with a member who reads nothing.
//!
//! An open loop: messages are due evenly spaced, whatever comes back, and a delay counts from when its message was due.
//! Members are watched by readiness; the n-th message of a member is told by its octets, for all are of one length.

use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::load::{Load, Place, Shape};
use super::progress::Progress;
use super::{Arguments, plane};
use crate::report::{Reach, Report};
use crate::rtp::weir::Control;
use crate::rtp::{clock, median};

const MEMBERS: usize = 100;
/// Of the larger room.
const MANY: usize = 1000;
const MANY_SHARE: f64 = 0.5;
/// Messages under way where the largest load is looked for.
const WINDOW: u64 = 32;
/// Messages that leave together at most, when the load was held up.
const BURST: u64 = 16;
/// What has not come for so long after the end is lost.
const QUIET: Duration = Duration::from_secs(5);
const SHARES: [(&str, f64); 2] = [("delay_10", 0.1), ("delay_80", 0.8)];
const PARTS: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)];

/// Microseconds of each of [`PARTS`].
type Figures = [f64; 3];

/// Adds the rows.
pub(super) fn run(arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    let time = Duration::from_millis(arguments.slice_ms.max(300) * 3);
    let mut progress = Progress::new("delay", arguments.rounds * 2 * SHARES.len());
    let mut largest = None;
    let mut all: [[Vec<Figures>; 2]; 2] = Default::default();
    for _ in 0..arguments.rounds {
        for (stalled, name) in [(false, "all read"), (true, "one reads nothing")] {
            let (ours, core) = clock::cores();
            clock::pin(ours);
            let (mut weir, at) = plane::start(core, false)?;
            let (mut load, silent) = clients(weir.control(), at, MEMBERS, stalled)?;
            let running = weir.running(vec![at])?;
            let octets = load.message_octets()?;
            // As much as possible for a while: the silent member's buffers fill, too.
            let (rate, _) = pass(&mut load, MEMBERS, octets, None, 2 * time)?;
            let largest = *largest.get_or_insert(rate);
            for ((share, of), figures) in SHARES.iter().zip(&mut all) {
                let (_, delays) = pass(&mut load, MEMBERS, octets, Some(largest * of), time)?;
                let figure = PARTS.map(|(_, part)| percentile(&delays, part));
                progress.step(&format!("{share}, {name}: p99"), figure[1] * 1000.0);
                figures[usize::from(stalled)].push(figure);
            }
            drop((load, silent));
            running.stop()?;
        }
    }
    progress.end();
    let largest = largest.unwrap_or(f64::NAN);
    for ((share, of), [without, with]) in SHARES.iter().zip(&all) {
        for (at, (part, _)) in PARTS.iter().enumerate() {
            let (with, without) = (median(with, |f| f[at]), median(without, |f| f[at]));
            let note = format!(
                "{with:.0} us with a member who reads nothing over {without:.0} us without him; {:.0} messages/s to \
                 {MEMBERS} members, of {largest:.0} at most",
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

/// A room of so many who listen, and one who speaks; and perhaps one more who reads nothing.
fn clients(
    control: &mut Control,
    at: SocketAddr,
    members: usize,
    stalled: bool,
) -> anyhow::Result<(Load, Option<Load>)> {
    let mut ends = plane::room(control, members + 1 + usize::from(stalled), false)?;
    let silent = if stalled { ends.pop() } else { None };
    let place = |ends| Place { at, ends, tls: None, binds: true, streams: Vec::new() };
    let silent = silent.map(|ends| Load::connect_deaf(place(vec![ends]))).transpose()?;
    Ok((Load::connect(place(ends), Shape::Room { window: 1, burst: 1 })?, silent))
}

/// A member who reads nothing among a thousand: what that does to the others, and what he takes of memory.
pub(super) fn run_many(arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    let time = Duration::from_millis(arguments.slice_ms.max(300) * 3);
    let mut progress = Progress::new("stalled_1000", arguments.rounds * 2);
    let mut largest = None;
    let (mut all, mut taken): ([Vec<f64>; 2], Vec<f64>) = Default::default();
    for _ in 0..arguments.rounds {
        let mut waiting = [0.0; 2];
        for (stalled, name) in [(false, "all read"), (true, "one reads nothing")] {
            let (ours, core) = clock::cores();
            clock::pin(ours);
            let (mut weir, at) = plane::start_counting(core)?;
            let (mut load, silent) = clients(weir.control(), at, MANY, stalled)?;
            weir.control().drain()?;
            let octets = load.message_octets()?;
            // As much as possible for a while: the silent member's buffers fill, too.
            let (rate, _) = pass(&mut load, MANY, octets, None, 2 * time)?;
            let largest = *largest.get_or_insert(rate);
            let (_, delays) = pass(&mut load, MANY, octets, Some(largest * MANY_SHARE), time)?;
            let p99 = percentile(&delays, 0.99);
            progress.step(&format!("{name}: p99"), p99 * 1000.0);
            // Nobody else has anything left, once the shard has counted again.
            std::thread::sleep(QUIET / 10);
            waiting[usize::from(stalled)] = weir.metric("weir_dataplane_queued_bytes")?;
            all[usize::from(stalled)].push(p99);
            drop((load, silent));
        }
        taken.push(waiting[1] - waiting[0]);
    }
    progress.end();
    let [without, with] = all.each_ref().map(|p99| median(p99, |p99| *p99));
    let largest = largest.unwrap_or(f64::NAN);
    let note = format!(
        "p99 {with:.0} us with a member who reads nothing over {without:.0} us without him; {:.0} messages/s to {MANY} \
         members, of {largest:.0} at most",
        largest * MANY_SHARE
    );
    report.held("stalled_1000_p99", with / without, "ratio", Reach::AtMost(1.2), note);
    let limits = forward::Limits::default();
    let most = (limits.queue_bytes_max + limits.inflight_bytes_max) as f64;
    let note = format!(
        "octets that wait for him at the end, beside at most {} that the driver has and what the kernel's socket holds; he is \
         cut loose after {} s",
        limits.inflight_bytes_max,
        limits.slow_ms / 1000
    );
    report.held("stalled_1000_bytes", median(&taken, |bytes| *bytes), "octets", Reach::AtMost(most), note);
    Ok(())
}

fn percentile(sorted: &[u32], part: f64) -> f64 {
    let at = (sorted.len() as f64 * part) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).map_or(f64::NAN, |ns| f64::from(*ns) / 1e3)
}

/// Sends so many messages a second, or as many as come out; how many a second, and the delays, sorted.
fn pass(
    load: &mut Load,
    members: usize,
    octets: u64,
    rate: Option<f64>,
    time: Duration,
) -> anyhow::Result<(f64, Vec<u32>)> {
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
    let mut delivered = 0u64;
    let mut delays = Vec::new();
    loop {
        let now = start.elapsed().as_nanos() as u64;
        let sent = due.len() as u64;
        if now < end {
            let wanted = match rate {
                Some(rate) => ((now as f64 * rate / 1e9) as u64).saturating_sub(sent).min(BURST),
                None => (delivered / members as u64 + WINDOW).saturating_sub(sent),
            };
            for number in sent..sent + wanted {
                load.send(0)?;
                due.push(rate.map_or(now, |rate| ((number + 1) as f64 * 1e9 / rate) as u64));
            }
        } else if delivered >= sent * members as u64 {
            break;
        }
        anyhow::ensure!(now < end + QUIET.as_nanos() as u64, "messages were lost");
        poll.poll(&mut events, Some(Duration::ZERO))?;
        for event in &events {
            let index = event.token().0;
            let got = load.take(index)?;
            let at = start.elapsed().as_nanos() as u64;
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
    Ok((due.len() as f64 / time.as_secs_f64(), delays))
}
