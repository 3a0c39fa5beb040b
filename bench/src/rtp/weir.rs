//! The real data plane under the same load: started in this process with its shard on the measured core, programmed over
//! its socket as control does.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::BytesMut;
use contract::change::Verb;
use contract::from_dataplane::Body as Word;
use contract::message_news::What as Asks;
use contract::news::What;
use contract::to_dataplane::Body as Order;
use contract::{
    AuthVerdict, Batch, Change, Context, Decide, Direction, FromDataplane, Hello, Leg, LegSet, MessageNews,
    Mode, Path, Placement, RtpLeg, ToDataplane, decode_frame, encode_frame, leg, placement,
};

use super::bare::Running;
use super::load::Load;

/// A data plane, the link to it, and its folder.
pub(crate) struct Weir {
    plane: dataplaned::Running,
    control: Control,
    _folder: tempfile::TempDir,
}

/// How a data plane is set up, beside what all have alike.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// `uring` or `mio`.
    pub(crate) driver: &'static str,
    /// Microseconds to look for work before sleeping.
    pub(crate) spin_us: u32,
    /// Microseconds that a sleep gathers.
    pub(crate) gather_us: u32,
    /// What leaves to one receiver leaves together.
    pub(crate) gso: bool,
    /// A shard on each.
    pub(crate) cores: Vec<usize>,
    /// A conference that weighs more is on several shards; 0: none is.
    pub(crate) weight_max: usize,
    /// The kernel relays what is settled.
    pub(crate) kernel: bool,
}

impl Setup {
    /// As the bare loops: nothing is added while it waits.
    pub(crate) fn new(driver: &'static str, core: usize) -> Self {
        Setup { driver, spin_us: 0, gather_us: 0, gso: true, cores: vec![core], weight_max: 0, kernel: false }
    }

    /// The configuration for a folder.
    pub(crate) fn config(&self, folder: &std::path::Path) -> dataplaned::Config {
        let mut config = dataplaned::Config { folder: folder.to_owned(), ..dataplaned::Config::default() };
        config.driver.kind = self.driver.to_owned();
        config.driver.spin_us = self.spin_us;
        config.driver.gso = self.gso;
        config.driver.gather_us = self.gather_us;
        config.driver.kernel_relay.interfaces.extend(self.kernel.then(|| "lo".to_owned()));
        config.shards.cores.clone_from(&self.cores);
        config.shards.context_weight_max = self.weight_max;
        config.msrp.port = 0;
        config.msrp.tls = false;
        config.metrics.on = false;
        config.rtp.receive_bytes = 4 << 20; // as the load's own sockets
        // Below the ports that the kernel gives to others.
        (config.rtp.port_first, config.rtp.port_last) = PORTS;
        (config.limits.legs_max, config.limits.contexts_max) = (16_384, 8192);
        config
    }
}

/// The RTP ports of a measured data plane.
pub(crate) const PORTS: (u16, u16) = (20_000, 31_999);

pub(crate) fn distribute_uring(load: &Load, core: usize) -> anyhow::Result<Running> {
    distribute(&Setup::new("uring", core), load)
}

pub(crate) fn distribute_apart(load: &Load, core: usize) -> anyhow::Result<Running> {
    distribute(&Setup { gso: false, ..Setup::new("uring", core) }, load)
}

pub(crate) fn distribute_mio(load: &Load, core: usize) -> anyhow::Result<Running> {
    distribute(&Setup::new("mio", core), load)
}

pub(crate) fn relay_uring(load: &Load, core: usize) -> anyhow::Result<Running> {
    relay(&Setup::new("uring", core), &load.addresses()?)
}

pub(crate) fn relay_mio(load: &Load, core: usize) -> anyhow::Result<Running> {
    relay(&Setup::new("mio", core), &load.addresses()?)
}

/// One context: the sources send, all others receive.
fn distribute(setup: &Setup, load: &Load) -> anyhow::Result<Running> {
    let (weir, entries) = conference(setup, load)?;
    weir.running(entries)
}

/// The same, whatever threads it runs on.
pub(crate) fn conference(setup: &Setup, load: &Load) -> anyhow::Result<(Weir, Vec<SocketAddr>)> {
    let mut weir = Weir::start(setup)?;
    let (ends, sources) = (load.addresses()?, u64::try_from(load.sources)?);
    let mut verbs = vec![Verb::PutContext(Context { id: 1 })];
    for (id, end) in (1..).zip(&ends) {
        let direction = if id <= sources { Direction::Sendonly } else { Direction::Recvonly };
        verbs.push(Verb::PutLeg(rtp_leg(1, id, *end, direction)));
    }
    let targets = (sources + 1..=u64::try_from(ends.len())?).collect();
    verbs.push(path(1, 1, Mode::Distribute, (1..=sources).collect(), targets));
    let entries = weir.control.apply(verbs)?;
    Ok((weir, entries))
}

/// A context for each pair of ends, with a path each way.
pub(crate) fn relay(setup: &Setup, ends: &[SocketAddr]) -> anyhow::Result<Running> {
    let mut weir = Weir::start(setup)?;
    let entries = weir.control.relay(1, ends)?;
    weir.running(entries)
}

fn rtp_leg(context: u64, id: u64, remote: SocketAddr, direction: Direction) -> Leg {
    let rtp = RtpLeg {
        remote: Some(remote.into()),
        rtcp_mux: true,
        clock_rate: 8000,
        cname: "bench".into(),
        ..RtpLeg::default()
    };
    Leg {
        id,
        context,
        media: "audio".into(),
        direction: direction as i32,
        participant: id.to_string(),
        kind: Some(leg::Kind::Rtp(rtp)),
        ..Leg::default()
    }
}

fn path(context: u64, id: u32, mode: Mode, sources: Vec<u64>, targets: Vec<u64>) -> Verb {
    let set = |legs| Some(LegSet { legs, media: String::new() });
    Verb::PutPath(Path {
        id,
        context,
        mode: mode as i32,
        sources: set(sources),
        targets: set(targets),
        ..Path::default()
    })
}

impl Weir {
    /// A data plane in this process.
    pub(crate) fn start(setup: &Setup) -> anyhow::Result<Self> {
        Weir::start_with(setup, |_| {})
    }

    /// The same with a configuration that is changed.
    pub(crate) fn start_with(
        setup: &Setup,
        change: impl FnOnce(&mut dataplaned::Config),
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut config = setup.config(folder.path());
        change(&mut config);
        let plane = dataplaned::start(config)?;
        let control = Control::connect(&plane.addresses().socket, setup.driver)?;
        Ok(Weir { plane, control, _folder: folder })
    }

    /// Where it takes MSRP: by TCP, and with TLS.
    pub(crate) fn msrp(&self) -> Option<(SocketAddr, Option<SocketAddr>)> {
        self.plane.addresses().msrp.first().copied()
    }

    /// What a metric shows now, if it serves them.
    pub(crate) fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = self.metrics()?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.context("no such metric")?.parse()?)
    }

    fn metrics(&self) -> anyhow::Result<String> {
        let at = self.plane.addresses().metrics.context("no metrics")?;
        let mut stream = std::net::TcpStream::connect(at)?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }

    /// What was dropped so far, by reason, if it serves its metrics.
    pub(crate) fn drops(&self) -> anyhow::Result<Vec<(String, f64)>> {
        let text = self.metrics()?;
        let drop = |line: &str| {
            let (why, count) =
                line.strip_prefix("weir_dataplane_drops_total{reason=\"")?.split_once("\"} ")?;
            Some((why.to_owned(), count.parse().ok()?))
        };
        Ok(text.lines().filter_map(drop).filter(|(_, count)| *count > 0.0).collect())
    }

    pub(crate) fn control(&mut self) -> &mut Control {
        &mut self.control
    }

    /// The threads of its shards.
    pub(crate) fn threads(&self) -> &[u64] {
        self.plane.shard_threads()
    }

    pub(crate) fn running(self, entries: Vec<SocketAddr>) -> anyhow::Result<Running> {
        let thread = *self.threads().first().context("no shard")?;
        Ok(Running::weir(entries, thread, self))
    }
}

/// What who asks for a path is challenged with.
const CHALLENGE: &str = "Digest realm=\"bench.example\", nonce=\"0a4f113b\", qop=\"auth\"";
/// How long one who answers questions waits before he looks whether he shall stop.
const LOOK: Duration = Duration::from_millis(20);

/// The link to a data plane, as control has one.
pub(crate) struct Control {
    link: UnixStream,
    read: BytesMut,
    generation: u64,
}

impl Control {
    pub(crate) fn connect(socket: &std::path::Path, driver: &str) -> anyhow::Result<Self> {
        let mut control =
            Control { link: UnixStream::connect(socket)?, read: BytesMut::new(), generation: 0 };
        let (version_min, version_max) = (contract::VERSION_MIN, contract::VERSION);
        control.say(Order::Hello(Hello { version_min, version_max, epoch: 1, owner: "bench".into() }))?;
        match control.answer()? {
            Word::Welcome(welcome) if welcome.driver == driver => Ok(control),
            Word::Welcome(welcome) => anyhow::bail!("{driver} is not to be had: {}", welcome.driver_reason),
            word => anyhow::bail!("the greeting was answered with {word:?}"),
        }
    }

    fn say(&mut self, body: Order) -> anyhow::Result<()> {
        let mut frame = BytesMut::new();
        encode_frame(&ToDataplane { body: Some(body) }, &mut frame);
        Ok(self.link.write_all(&frame)?)
    }

    /// The next word that is no news.
    fn answer(&mut self) -> anyhow::Result<Word> {
        loop {
            match decode_frame::<FromDataplane>(&mut self.read)? {
                Some(FromDataplane { body: Some(Word::News(_)) | None }) => {}
                Some(FromDataplane { body: Some(word) }) => return Ok(word),
                None => {
                    let mut piece = [0; 65_536];
                    let n = self.link.read(&mut piece)?;
                    anyhow::ensure!(n > 0, "the data plane closed its link");
                    self.read.extend_from_slice(&piece[..n]);
                }
            }
        }
    }

    /// Reads news away, as control would, until there is none.
    pub(crate) fn drain(&mut self) -> anyhow::Result<()> {
        self.link.set_nonblocking(true)?;
        let mut piece = [0; 65_536];
        while let Ok(n @ 1..) = self.link.read(&mut piece) {
            self.read.extend_from_slice(&piece[..n]);
            // The last one may not be whole yet.
            while decode_frame::<FromDataplane>(&mut self.read)?.is_some() {}
        }
        Ok(self.link.set_nonblocking(false)?)
    }

    /// Answers as control does when somebody asks for a path by AUTH: a challenge to who shows nothing, and a path to who
    /// answers one. Whose password that is nobody looks at: it is not what is measured. Until it shall stop.
    pub(crate) fn judge(&mut self, stop: &AtomicBool) -> anyhow::Result<()> {
        self.link.set_read_timeout(Some(LOOK))?;
        while !stop.load(Ordering::Relaxed) {
            let mut piece = [0; 65_536];
            match self.link.read(&mut piece) {
                Ok(n) => self.read.extend_from_slice(&piece[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(e) => return Err(e.into()),
            }
            while let Some(word) = decode_frame::<FromDataplane>(&mut self.read)? {
                let Some(Word::News(news)) = word.body else { continue };
                self.judge_one(news.what)?;
            }
        }
        Ok(self.link.set_read_timeout(None)?)
    }

    fn judge_one(&mut self, what: Option<What>) -> anyhow::Result<()> {
        let Some(What::Message(MessageNews { id, what: Some(Asks::Auth(auth)), .. })) = what else {
            return Ok(());
        };
        let (status, verdict) = match auth.authorization.is_empty() {
            true => (401, AuthVerdict { challenges: vec![CHALLENGE.to_owned()], ..AuthVerdict::default() }),
            false => (200, AuthVerdict { account: id, ..AuthVerdict::default() }),
        };
        self.say(Order::Decide(Decide { id, status, auth: Some(verdict), ..Decide::default() }))
    }

    /// Applies a batch; where its RTP legs are.
    fn apply(&mut self, verbs: Vec<Verb>) -> anyhow::Result<Vec<SocketAddr>> {
        let at = |at: &placement::At| match at {
            placement::At::Rtp(local) => local.bound.as_ref()?.socket(),
            placement::At::Msrp(_) => None,
        };
        let places = self.put(verbs)?;
        places.iter().map(|placed| placed.at.as_ref().and_then(at).context("a port")).collect()
    }

    /// Applies a batch; where its legs are.
    pub(crate) fn put(&mut self, verbs: Vec<Verb>) -> anyhow::Result<Vec<Placement>> {
        self.generation += 1;
        let changes = verbs.into_iter().map(|verb| Change { verb: Some(verb) }).collect();
        self.say(Order::Batch(Batch {
            generation: self.generation,
            epoch: 1,
            trace: String::new(),
            changes,
        }))?;
        match self.answer()? {
            Word::Applied(applied) => Ok(applied.placements),
            word => anyhow::bail!("a batch was refused: {word:?}"),
        }
    }

    /// Puts a call for each pair of ends, the first one in the context `first`; where its legs are.
    pub(crate) fn relay(&mut self, first: u64, ends: &[SocketAddr]) -> anyhow::Result<Vec<SocketAddr>> {
        let mut entries = Vec::new();
        for (context, pair) in (first..).zip(ends.chunks(2)) {
            let mut verbs = vec![Verb::PutContext(Context { id: context })];
            for (id, end) in (1..).zip(pair) {
                verbs.push(Verb::PutLeg(rtp_leg(context, id, *end, Direction::Sendrecv)));
            }
            verbs.push(path(context, 1, Mode::Relay, vec![1], vec![2]));
            verbs.push(path(context, 2, Mode::Relay, vec![2], vec![1]));
            entries.extend(self.apply(verbs)?);
        }
        Ok(entries)
    }
}
