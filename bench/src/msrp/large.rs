//! A room of ten thousand over two shards: that its messages come to all, how long that takes, and the memory of it.
//!
//! The data plane is a process of its own, so that each has its own descriptors. Both shards are on the measured core, for the
//! clients have the other one: this is about a room that is not in one place, not about how much faster two cores are.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use msrp::UriRef;

use super::load::{Load, Place, Shape};
use super::words::Ends;
use super::{Arguments, plane};
use crate::report::Report;
use crate::rtp::clock::{self, Who};
use crate::rtp::legs::Plane;
use crate::rtp::weir::{Control, Setup};

const MEMBERS: usize = 10_000;
/// Above this a context is on both shards.
const WEIGHT_MAX: usize = 1000;
const MIB: f64 = 1_048_576.0;

/// Adds the rows.
pub(super) fn run(arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (ours, measured) = clock::cores();
    clock::pin(ours);
    let setup =
        Setup { cores: vec![measured, measured], weight_max: WEIGHT_MAX, ..Setup::new("uring", measured) };
    let mut config = setup.config(folder.path());
    plane::adapt(&mut config);
    (config.limits.targets_max, config.limits.context_legs_max) = (MEMBERS + 1, MEMBERS + 1);
    let mut plane = Plane::start(&config, folder.path())?;
    let mut control = Control::connect(&config.socket(), "uring")?;
    let empty = plane.resident()?;
    let start = Instant::now();
    let ends = plane::room(&mut control, MEMBERS + 1, false)?;
    let put = start.elapsed();
    let shards = places(&ends)?;
    let [first, second] = shards.each_ref().map(|(_, count)| *count);
    anyhow::ensure!(first > MEMBERS / 3 && second > MEMBERS / 3, "{first} and {second} on the shards");
    let start = Instant::now();
    let mut streams = Vec::with_capacity(ends.len());
    for (index, end) in ends.iter().enumerate() {
        let stream = TcpStream::connect(listener(end)?)?;
        stream.set_nodelay(true)?;
        streams.push(stream);
        if index % 500 == 0 {
            control.drain()?;
        }
    }
    let place = Place { at: shards[0].0, ends, tls: None, binds: true, streams };
    let mut load = Load::connect(place, Shape::Room { window: 1, burst: 1 })?;
    control.drain()?;
    let joined = start.elapsed();
    let resting = plane.resident()?;
    let time = Duration::from_millis(arguments.slice_ms.max(300) * 10);
    let sample = load.measure(Who::Process(plane.id()), measured, time)?;
    let most = plane.resident()?;
    let each = 1000.0 * MEMBERS as f64 / sample.per_s;
    let note = format!(
        "{MEMBERS} members, {first} and {second} legs on the shards, both on one core: CPU of the process per delivery; one \
         message of 1 KiB at a time is with all after {each:.1} ms, {:.0} deliveries/s; put in {:.1} s, joined in {:.1} s",
        sample.per_s,
        put.as_secs_f64(),
        joined.as_secs_f64()
    );
    report.row("room_10000_2_shards", sample.ns, "ns/message", note);
    let note = format!(
        "resident memory of the data plane after it, {:.1} MiB before anybody came, {:.1} MiB when all had joined",
        empty as f64 / MIB,
        resting as f64 / MIB
    );
    report.row("room_10000_2_shards_bytes", most as f64, "octets", note);
    Ok(())
}

fn listener(end: &Ends) -> anyhow::Result<SocketAddr> {
    let uri = UriRef::parse(&end.to)?;
    Ok((uri.ip().context("an address")?, uri.port().context("a port")?).into())
}

/// The two listeners that the paths name, and how many do.
fn places(ends: &[Ends]) -> anyhow::Result<[(SocketAddr, usize); 2]> {
    let mut counts = std::collections::BTreeMap::<SocketAddr, usize>::new();
    for end in ends {
        *counts.entry(listener(end)?).or_default() += 1;
    }
    let counts: Vec<(SocketAddr, usize)> = counts.into_iter().collect();
    counts.try_into().map_err(|counts| anyhow::anyhow!("not two listeners: {counts:?}"))
}
