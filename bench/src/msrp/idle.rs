//! What a session that rests takes of the data plane's memory, and what all of them take of its time.
//!
//! The data plane is a process of its own. Its resident memory is read when few sessions have carried a message each way
//! and again when many have, after the news that waited for control were read. The kernel's sockets are not in it.

use std::time::Duration;

use anyhow::Context as _;
use msrp::UriRef;

use super::load::{Load, Place, Shape};
use super::progress::Progress;
use super::{plane, tls};
use crate::report::{Reach, Report};
use crate::rtp::clock::{self, Who};
use crate::rtp::legs::Plane;
use crate::rtp::weir::{Control, Setup};

const FEW: usize = 100;
const MANY: usize = 10_000;
/// Pairs that are put and connected before the news are read.
const STEP: usize = 250;
/// How long the data plane is left alone before its memory is read, and while its time is.
const REST: Duration = Duration::from_secs(2);

/// Adds the row.
pub(super) fn run(row: &str, secure: bool, most: f64, report: &mut Report) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (ours, measured) = clock::cores();
    clock::pin(ours);
    let mut config = Setup::new("uring", measured).config(folder.path());
    plane::adapt(&mut config);
    let mut plane = Plane::start(&config, folder.path())?;
    let mut control = Control::connect(&config.socket(), "uring")?;
    let both = tls::Both::make()?;
    let mut progress = Progress::new(row, 0);
    let (mut loads, mut up, mut few) = (Vec::new(), 0, 0);
    while up < MANY {
        let pairs = if up == 0 { FEW / 2 } else { STEP.min((MANY - up) / 2) };
        let ends = plane::pairs(&mut control, up as u64 + 1, pairs, up, secure)?;
        let first = ends.first().context("no session")?;
        let uri = UriRef::parse(&first.to)?;
        let (ip, port) = (uri.ip().context("an address")?, uri.port().context("a port")?);
        let tls = secure.then(|| both.client.clone());
        let place = Place { at: (ip, port).into(), ends, tls, binds: true, streams: Vec::new() };
        let mut load = Load::connect(place, Shape::Pairs { octets: super::MESSAGE_BYTES, answers: false })?;
        load.exchange()?;
        control.drain()?;
        loads.push(load);
        up += 2 * pairs;
        progress.say(&format!("{up} sessions"));
        if up == FEW {
            std::thread::sleep(REST);
            few = plane.resident()?;
        }
    }
    std::thread::sleep(REST);
    control.drain()?;
    let many = plane.resident()?;
    let who = Who::Process(plane.id());
    let cpu = clock::busy_ns(who, measured);
    std::thread::sleep(REST);
    let share = clock::busy_ns(who, measured).saturating_sub(cpu) as f64 / REST.as_nanos() as f64;
    progress.end();
    let each = many.saturating_sub(few) as f64 / (MANY - FEW) as f64;
    let note = format!(
        "resident {:.1} MiB with {FEW} sessions and {:.1} MiB with {MANY}, a connection each, two in a context; CPU at rest \
         {:.2} % of a core",
        few as f64 / 1_048_576.0,
        many as f64 / 1_048_576.0,
        share * 100.0
    );
    report.held(row, each, "octets", Reach::AtMost(most), note);
    Ok(())
}
