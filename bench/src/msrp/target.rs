//! The generator by itself: clients in one process against any MSRP server.
//!
//! With `--to` all clients send into one session that the server has (an endpoint, a room's member, a test sink) and
//! measure its responses. Without it the target is a relay (RFC 4976): the receiving client of each pair asks for a path
//! by AUTH, the sending one sends to it, and delays are measured from client to client by a time in each body. Framing is
//! that of `shared/msrp` on both sides.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use msrp::{Event, FailureReport, Framer, Limits, Method, Start, Status};

use super::auth::{self, Credentials};
use super::plot::{Point, plot};
use super::progress::Progress;
use super::words::{Content, Ends, Request, STAMP, read_hex};
use crate::report::{Machine, Report};

/// Whom to load and how.
#[derive(clap::Args)]
pub(crate) struct Wanted {
    /// Loads this MSRP server instead of measuring Weir; may be given several times, pairs are spread over them.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) target: Vec<String>,
    /// A path (its URIs, blanks between them) to send to; without one the target is a relay.
    #[arg(long, requires = "target")]
    to: Option<String>,
    /// From-Path of what is sent with --to, where the server knows its peer; default: one is made up.
    #[arg(long, requires = "to")]
    from: Option<String>,
    /// Who authenticates at a relay.
    #[arg(long, default_value = "ann")]
    user: String,
    /// His password.
    #[arg(long, default_value = "1234")]
    password: String,
    /// Pairs of clients; with --to, clients.
    #[arg(long, default_value_t = 10)]
    pairs: usize,
    /// Octets of a message's content.
    #[arg(long, default_value_t = 1024)]
    octets: usize,
    /// Messages a second of all clients together, evenly spaced (open loop); without it each keeps --window under way.
    #[arg(long)]
    rate: Option<f64>,
    /// Messages of each pair under way (closed loop).
    #[arg(long, default_value_t = 1)]
    window: usize,
    /// Failure-Report of each message: yes, partial or no.
    #[arg(long, default_value = "no")]
    failure_report: String,
    /// How long, in seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Draws rate and delays over time into this SVG file.
    #[arg(long)]
    plot: Option<PathBuf>,
}

/// Between two points of the plot and two lines of progress.
const STEP: Duration = Duration::from_millis(500);
/// What has not come for so long after the end is lost.
const QUIET: Duration = Duration::from_secs(1);
/// Octets of one read.
const READ_BYTES: usize = 64 << 10;

/// One connection.
struct Client {
    stream: TcpStream,
    framer: Framer,
    unsent: VecDeque<u8>,
    /// The first octets of the body that is read, as far as a time may stand in them.
    body: Vec<u8>,
    answer: Option<Bytes>,
    is_send: bool,
}

/// What came of it.
#[derive(Default)]
struct Counts {
    sent: u64,
    received: u64,
    answered: u64,
    refused: u64,
    delays: Vec<u32>,
}

/// Runs the clients.
pub(crate) fn run(wanted: &Wanted) -> anyhow::Result<Report> {
    let failure = FailureReport::parse(wanted.failure_report.as_bytes())?;
    anyhow::ensure!(
        wanted.to.is_none() || failure == FailureReport::Yes,
        "with --to nothing but responses tells what arrived: --failure-report yes"
    );
    let targets = wanted
        .target
        .iter()
        .map(|target| target.to_socket_addrs()?.next().with_context(|| format!("{target} has no address")));
    let targets: Vec<SocketAddr> = targets.collect::<anyhow::Result<_>>()?;
    let who = Credentials { user: wanted.user.clone(), password: wanted.password.clone() };
    let (mut clients, mut requests) = (Vec::new(), Vec::new());
    for pair in 0..wanted.pairs {
        let at = *targets.get(pair % targets.len()).context("no target")?;
        let own = wanted.from.clone().unwrap_or_else(|| Ends::client(2 * pair));
        let to = match &wanted.to {
            Some(to) => to.clone(),
            None => {
                let peer = Ends::client(2 * pair + 1);
                let (stream, path) = auth::connect(at, &peer, &who)?;
                clients.push(Client::new(stream)?);
                format!("{path} {peer}")
            }
        };
        let stream = TcpStream::connect(at)?;
        stream.set_nodelay(true)?;
        let ends = Ends { to, from: own };
        requests.push((clients.len(), Request::whole(&ends, Content::Plain, pair, wanted.octets, failure)?));
        clients.push(Client::new(stream)?);
    }
    let mut run = Run {
        clients,
        requests,
        counts: Counts::default(),
        start: Instant::now(),
        by_answer: wanted.to.is_some(),
    };
    let points = run.drive(wanted)?;
    let mut report = Report::new(Machine::here("none (a generator)"));
    let Counts { sent, received, answered, refused, mut delays } = run.counts;
    delays.sort_unstable();
    let came = if wanted.to.is_some() { answered } else { received };
    let seconds = wanted.seconds.max(1) as f64;
    let note = format!("{sent} sent, {received} received, {answered} answered with 200, {refused} refused");
    report.row("target_rate", came as f64 / seconds, "messages/s", note);
    report.row("target_lost", sent.saturating_sub(came) as f64, "messages", "sent and not heard of");
    for (name, part) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
        let what = if wanted.to.is_some() { "from a message to its 200" } else { "from client to client" };
        report.row(format!("target_{name}_us"), percentile(&delays, part), "us", what);
    }
    if let Some(file) = &wanted.plot {
        std::fs::write(file, plot(&format!("MSRP: {}", wanted.target.join(", ")), &points))?;
    }
    Ok(report)
}

fn percentile(sorted: &[u32], part: f64) -> f64 {
    let at = (sorted.len() as f64 * part) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).map_or(f64::NAN, |us| f64::from(*us))
}

struct Run {
    clients: Vec<Client>,
    /// Each sender's connection and its request.
    requests: Vec<(usize, Request)>,
    counts: Counts,
    start: Instant,
    /// A message has arrived when it was answered.
    by_answer: bool,
}

impl Run {
    fn drive(&mut self, wanted: &Wanted) -> anyhow::Result<Vec<Point>> {
        let mut progress = Progress::new("target", 0);
        let end = Duration::from_secs(wanted.seconds);
        let (mut points, mut step, mut before, mut from) = (Vec::new(), STEP, 0, 0);
        let mut next = 0;
        loop {
            let now = self.start.elapsed();
            let came = if self.by_answer { self.counts.answered } else { self.counts.received };
            let under_way = self.counts.sent.saturating_sub(came + self.counts.refused);
            if now < end {
                let most = (wanted.window * wanted.pairs) as u64;
                let due = match wanted.rate {
                    Some(rate) => ((now.as_secs_f64() * rate) as u64).saturating_sub(self.counts.sent),
                    None => most.saturating_sub(under_way),
                };
                for _ in 0..due {
                    self.say(next, now)?;
                    next = (next + 1) % self.requests.len();
                }
            } else if under_way == 0 || now > end + QUIET {
                break;
            }
            let mut moved = false;
            for client in &mut self.clients {
                moved |= client.turn(&mut self.counts, self.start, self.by_answer)?;
            }
            if !moved {
                std::thread::yield_now();
            }
            if now >= step {
                let mut some = self.counts.delays.get(from..).unwrap_or_default().to_vec();
                some.sort_unstable();
                let rate = (came - before) as f64 / STEP.as_secs_f64();
                let (p50, p99) = (percentile(&some, 0.5), percentile(&some, 0.99));
                points.push(Point { seconds: now.as_secs_f64(), rate, p50, p99 });
                progress.say(&format!(
                    "{:.1} s: {rate:.0}/s, p50 {p50:.0} us, p99 {p99:.0} us, {under_way} under way",
                    now.as_secs_f64()
                ));
                (before, from) = (came, self.counts.delays.len());
                step += STEP;
            }
        }
        progress.end();
        Ok(points)
    }

    fn say(&mut self, sender: usize, now: Duration) -> anyhow::Result<()> {
        let (client, request) = self.requests.get_mut(sender).context("a sender")?;
        let us = u64::try_from(now.as_micros())?;
        // The time is the number too, so that a response tells it: the low bits keep numbers apart.
        self.counts.sent += 1;
        request.number(us << 20 | self.counts.sent & 0xf_ffff);
        request.stamp(us);
        let client = self.clients.get_mut(*client).context("a client")?;
        client.unsent.extend(request.bytes());
        client.write()
    }
}

impl Client {
    fn new(stream: TcpStream) -> anyhow::Result<Self> {
        stream.set_nonblocking(true)?;
        let framer = Framer::new(Limits::default());
        Ok(Client { stream, framer, unsent: VecDeque::new(), body: Vec::new(), answer: None, is_send: false })
    }

    fn write(&mut self) -> anyhow::Result<()> {
        while !self.unsent.is_empty() {
            let (first, _) = self.unsent.as_slices();
            match self.stream.write(first) {
                Ok(n) => drop(self.unsent.drain(..n)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Writes what waits, reads what is there; whether anything was.
    fn turn(&mut self, counts: &mut Counts, start: Instant, by_answer: bool) -> anyhow::Result<bool> {
        self.write()?;
        let mut octets = [0; READ_BYTES];
        let n = match self.stream.read(&mut octets) {
            Ok(0) => anyhow::bail!("the server closed a connection"),
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(e) => return Err(e.into()),
        };
        let now = u64::try_from(start.elapsed().as_micros())?;
        let delay = |since: u64| u32::try_from(now.saturating_sub(since)).unwrap_or(u32::MAX);
        let mut input = Bytes::copy_from_slice(octets.get(..n).unwrap_or_default());
        while let Some(event) = self.framer.next(&mut input)? {
            match event {
                Event::Head(head) => {
                    self.body.clear();
                    self.is_send = head.method() == Some(Method::Send);
                    self.answer = msrp::response(&head, Status::OK).filter(|_| self.is_send);
                    match head.start() {
                        Start::Response(Status::OK) => {
                            counts.answered += 1;
                            if let Some(number) = read_hex(head.tid().as_bytes()).filter(|_| by_answer) {
                                counts.delays.push(delay(number >> 20));
                            }
                        }
                        Start::Response(_) => counts.refused += 1,
                        Start::Request(_) => {}
                    }
                }
                Event::Body(piece) => {
                    let most = 64usize.saturating_sub(self.body.len()).min(piece.len());
                    self.body.extend_from_slice(piece.get(..most).unwrap_or_default());
                }
                Event::End(msrp::Flag::Last) if self.is_send && !self.body.is_empty() => {
                    counts.received += 1;
                    let stamp = self.body.strip_prefix(STAMP).and_then(read_hex);
                    if let Some(since) = stamp.filter(|_| !by_answer) {
                        counts.delays.push(delay(since));
                    }
                    self.unsent.extend(self.answer.take().iter().flatten());
                }
                Event::End(_) | Event::Bad(_) => {}
            }
        }
        self.write()?;
        Ok(true)
    }
}
