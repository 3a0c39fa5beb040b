//! MSRP: what one core spends on a delivered message, beside the least that these connections can cost and beside
//! another server.
//!
//! The load runs on the first core, what is measured on the last one. CPU is the time of what is measured plus that
//! of the core's ksoftirqd, from the scheduler's own nanoseconds (schedstat); on loopback the kernel delivers inside
//! the sender's time. Messages are counted where they arrive. Kinds that are compared take turns (`race`); of each
//! the median of all turns counts.

mod auth;
mod bare;
mod delay;
mod idle;
mod kamailio;
mod large;
mod load;
mod plane;
mod plot;
pub(crate) mod progress;
mod race;
mod target;
pub(crate) mod tls;
mod words;

use std::path::PathBuf;

use crate::report::{Machine, Reach, Report};
use load::{Place, Shape};
use race::{BESIDE, JUDGED, Kind, Race};
use words::{Ends, MESSAGE_BYTES};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Writes the rows as JSON too.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Milliseconds of one measurement.
    #[arg(long, default_value_t = 300)]
    slice_ms: u64,
    /// Measurements of each kind, interleaved; the table shows medians.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Only rows whose name begins so.
    #[arg(long)]
    only: Option<String>,
    #[command(flatten)]
    wanted: target::Wanted,
    /// Beside Kamailio's msrp module too, when it is installed.
    #[arg(long)]
    peers: bool,
    /// Only this one of those who race for a row (for a profiler).
    #[arg(long)]
    kind: Option<String>,
}

impl Arguments {
    /// A whole name means that row alone, a part of one all that begin so, and more than one what it begins with:
    /// `delay_80_p99` comes with all of `delay_80`.
    fn wants(&self, row: &str) -> bool {
        let Some(only) = self.only.as_deref() else { return true };
        if ROWS.contains(&only) {
            row == only
        } else {
            row.starts_with(only) || self.longest(only) == Some(row)
        }
    }

    fn longest(&self, only: &str) -> Option<&'static str> {
        ROWS.iter().copied().filter(|row| only.starts_with(row)).max_by_key(|row| row.len())
    }
}

const NOTES: &[&str] = &[
    "CPU is the measured thread's and its core's ksoftirqd's, per message (or octet) that arrived at a client; on loopback \
     the kernel's delivery into the client's socket is in it, for all alike. Compare ratios: nanoseconds are this \
     machine's, this minute.",
    "A message has 1,024 octets of content, CPIM headers included; its head comes on top, for the bare loops too.",
];

/// The rows that can be asked for.
const ROWS: &[&str] = &[
    "room_16",
    "room_100",
    "room_1000",
    "room_1000_busy",
    "relay_1k",
    "relay_1k_reports",
    "file_2k",
    "file_16k",
    "file_64k",
    "relay_vs_kamailio",
    "relay_vs_kamailio_8k",
    "tls_room_100",
    "idle_tcp_bytes",
    "idle_tls_bytes",
    "delay_10",
    "delay_80",
    "stalled_1000_p99",
    "stalled_1000_bytes",
    "room_10000_2_shards",
];

/// Pairs of the relay rows.
const PAIRS: usize = 100;
/// Messages that a bare loop writes at once under saturation.
const TOGETHER: usize = 16;

/// Pairs of the rows beside Kamailio, and messages of each under way: it resets under many large ones at once.
const KAMAILIO_PAIRS: usize = 4;
const KAMAILIO_ROWS: [(&str, usize, usize); 2] =
    [("relay_vs_kamailio", 200, 32), ("relay_vs_kamailio_8k", 8192, 8)];
const KAMAILIO_NOTE: &str = "one process for all connections, on the measured core; CPU of all its processes. The \
     second client of each pair is behind it by AUTH (RFC 4976), behind Weir likewise; in the rows named .b2b Weir has a \
     session with each client. The same client and the same messages, Failure-Report no.";

/// Runs everything, interleaved.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Report> {
    if !arguments.wanted.target.is_empty() {
        return target::run(&arguments.wanted);
    }
    let choice = netio::choose(netio::Wanted::Auto);
    let mut report = Report::new(Machine::here(&format!("{} ({})", choice.kind.label(), choice.reason)));
    for members in [16, 100, 1000] {
        let shape = Shape::Room { window: 1, burst: 1 };
        each(arguments, &format!("room_{members}"), &mut report, |row, report| {
            room(arguments, row, members, shape, Reach::AtMost(1.25), report).map(drop)
        });
    }
    each(arguments, "room_1000_busy", &mut report, |row, report| {
        let shape = Shape::Room { window: 2 * TOGETHER, burst: TOGETHER };
        let ns = room(arguments, row, 1000, shape, Reach::AtMost(2.0), report)?;
        report.row("room_1000_busy_ns", ns, "ns/message", "CPU per delivery under saturation");
        Ok(())
    });
    for (row, answers) in [("relay_1k", false), ("relay_1k_reports", true)] {
        each(arguments, row, &mut report, |row, report| relay(arguments, row, answers, report).map(drop));
    }
    for (row, chunk, most) in [("file_2k", 2048, 1.4), ("file_16k", 16_384, 1.15), ("file_64k", 65_536, 1.1)]
    {
        each(arguments, row, &mut report, |row, report| {
            file(arguments, row, chunk, Reach::AtMost(most), report).map(drop)
        });
    }
    each(arguments, "tls_room_100", &mut report, |_, report| tls_room(arguments, report).map(drop));
    let delay = if arguments.wants("delay_10") { "delay_10" } else { "delay_80" };
    each(arguments, delay, &mut report, |_, report| delay::run(arguments, report));
    let stalled = if arguments.wants("stalled_1000_p99") { "stalled_1000_p99" } else { "stalled_1000_bytes" };
    each(arguments, stalled, &mut report, |_, report| delay::run_many(arguments, report));
    each(arguments, "room_10000_2_shards", &mut report, |_, report| large::run(arguments, report));
    for (row, secure, most) in [("idle_tcp_bytes", false, 4096.0), ("idle_tls_bytes", true, 24_576.0)] {
        each(arguments, row, &mut report, |row, report| idle::run(row, secure, most, report));
    }
    if let Some(version) = kamailio::version().filter(|_| arguments.peers) {
        for (row, octets, window) in KAMAILIO_ROWS {
            each(arguments, row, &mut report, |row, report| {
                against_kamailio(arguments, row, (octets, window), report)
            });
        }
        report.remark(format!("{version}: {KAMAILIO_NOTE}"));
    }
    if let Some(only) = arguments.only.as_ref().filter(|_| report.is_empty()) {
        anyhow::bail!(
            "no row has a name that begins with {only}: bench/README.md has them (some need --peers)"
        );
    }
    report.cores();
    NOTES.iter().for_each(|note| report.remark(*note));
    Ok(report)
}

/// A row, if it is asked for. One that cannot be measured says why, and the others go on.
fn each(
    arguments: &Arguments,
    row: &str,
    report: &mut Report,
    measure: impl FnOnce(&str, &mut Report) -> anyhow::Result<()>,
) {
    if arguments.wants(row)
        && let Err(why) = measure(row, report)
    {
        report.failed(row, &why);
    }
}

/// Clients of a bare loop: nobody looks at their paths, and they are as long as a server's.
fn strangers(running: &crate::rtp::bare::Running, clients: usize) -> Place {
    let at = running.entries.first().copied().unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
    Place { at, ends: (0..clients).map(Ends::blank).collect(), tls: None, binds: false, streams: Vec::new() }
}

/// Octets of a message of a room as its sender writes it.
fn room_message() -> anyhow::Result<usize> {
    let ends = Ends::blank(0);
    let failure = msrp::FailureReport::No;
    let request = words::Request::whole(&ends, words::Content::Room, 0, MESSAGE_BYTES, failure)?;
    Ok(request.bytes().len())
}

fn room(
    arguments: &Arguments,
    row: &str,
    members: usize,
    shape: Shape,
    reach: Reach,
    report: &mut Report,
) -> anyhow::Result<f64> {
    let clients = members + 1;
    let Shape::Room { burst, .. } = shape else { anyhow::bail!("no room") };
    let piece = room_message()? * burst;
    let kinds = vec![
        Kind {
            name: "bare",
            start: Box::new(move |core| {
                let running = bare::room(clients, piece, core)?;
                let place = strangers(&running, clients);
                Ok((running, place))
            }),
        },
        Kind {
            name: "bare_uring",
            start: Box::new(move |core| {
                let running = bare::room_uring(clients, piece, core)?;
                let place = strangers(&running, clients);
                Ok((running, place))
            }),
        },
        Kind {
            name: JUDGED,
            start: Box::new(move |core| {
                let (mut weir, at) = plane::start(core, false)?;
                let ends = plane::room(weir.control(), clients, false)?;
                Ok((weir.running(vec![at])?, Place { at, ends, tls: None, binds: true, streams: Vec::new() }))
            }),
        },
    ];
    let what = "per delivered message";
    let race = Race { row, what, unit: "ns/message", shape, kinds };
    race.run(arguments, reach, report)
}

fn relay(arguments: &Arguments, row: &str, answers: bool, report: &mut Report) -> anyhow::Result<f64> {
    let clients = 2 * PAIRS;
    let kinds = vec![
        Kind {
            name: "bare",
            start: Box::new(move |core| {
                let running = bare::relay(clients, answers, core)?;
                let place = strangers(&running, clients);
                Ok((running, place))
            }),
        },
        Kind {
            name: JUDGED,
            start: Box::new(move |core| {
                let (mut weir, at) = plane::start(core, false)?;
                let ends = plane::pairs(weir.control(), 1, PAIRS, 0, false)?;
                Ok((weir.running(vec![at])?, Place { at, ends, tls: None, binds: true, streams: Vec::new() }))
            }),
        },
    ];
    let shape = Shape::Pairs { octets: MESSAGE_BYTES, answers };
    let what = "per relayed message, 100 pairs, one message of each under way";
    let race = Race { row, what, unit: "ns/message", shape, kinds };
    race.run(arguments, Reach::AtMost(1.4), report)
}

fn against_kamailio(
    arguments: &Arguments,
    row: &str,
    (octets, window): (usize, usize),
    report: &mut Report,
) -> anyhow::Result<()> {
    let clients = 2 * KAMAILIO_PAIRS;
    let kinds = vec![
        Kind { name: "kamailio", start: Box::new(move |core| kamailio::relay(clients, core)) },
        Kind {
            name: JUDGED,
            start: Box::new(move |core| {
                let (weir, place) = plane::relay(core, clients)?;
                Ok((weir.running(vec![place.at])?, place))
            }),
        },
        Kind {
            name: BESIDE,
            start: Box::new(move |core| {
                let (mut weir, at) = plane::start(core, false)?;
                let ends = plane::pairs(weir.control(), 1, KAMAILIO_PAIRS, 0, false)?;
                let place = Place { at, ends, tls: None, binds: true, streams: Vec::new() };
                Ok((weir.running(vec![at])?, place))
            }),
        },
    ];
    let shape = Shape::Pipes { octets, window };
    let what = format!("{octets} octets, {KAMAILIO_PAIRS} pairs with {window} messages of each under way");
    let race = Race { row, what: &what, unit: "ns/message", shape, kinds };
    race.run_against(arguments, Reach::AtLeast(5.0), report)
}

fn file(
    arguments: &Arguments,
    row: &str,
    chunk: usize,
    reach: Reach,
    report: &mut Report,
) -> anyhow::Result<f64> {
    let kinds = vec![
        Kind {
            name: "bare",
            start: Box::new(move |core| {
                let running = bare::stream(chunk, core)?;
                let place = strangers(&running, 2);
                Ok((running, place))
            }),
        },
        Kind {
            name: JUDGED,
            start: Box::new(move |core| {
                let (mut weir, at) = plane::start(core, false)?;
                let ends = plane::pairs(weir.control(), 1, 1, 0, false)?;
                Ok((weir.running(vec![at])?, Place { at, ends, tls: None, binds: true, streams: Vec::new() }))
            }),
        },
    ];
    let what = "per octet, files of 100 MiB one after the other";
    let race = Race { row, what, unit: "ns/octet", shape: Shape::File { chunk }, kinds };
    race.run(arguments, reach, report)
}

fn tls_room(arguments: &Arguments, report: &mut Report) -> anyhow::Result<f64> {
    const CLIENTS: usize = 101;
    let both = tls::Both::make()?;
    let piece = room_message()?;
    let kinds = vec![
        Kind {
            name: "bare_rustls",
            start: Box::new(|core| {
                let running = bare::room_tls(CLIENTS, piece, &both.server, core)?;
                let mut place = strangers(&running, CLIENTS);
                place.tls = Some(both.client.clone());
                Ok((running, place))
            }),
        },
        Kind {
            name: JUDGED,
            start: Box::new(|core| {
                let (mut weir, at) = plane::start(core, true)?;
                let ends = plane::room(weir.control(), CLIENTS, true)?;
                let tls = Some(both.client.clone());
                Ok((weir.running(vec![at])?, Place { at, ends, tls, binds: true, streams: Vec::new() }))
            }),
        },
    ];
    let shape = Shape::Room { window: 1, burst: 1 };
    let what = "per delivered message with TLS everywhere";
    let race = Race { row: "tls_room_100", what, unit: "ns/message", shape, kinds };
    race.run(arguments, Reach::AtMost(1.25), report)
}
