//! The real data plane under the same load: started in this process with its shard on the measured core, programmed over
//! its socket as control does.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;

use anyhow::Context as _;
use bytes::BytesMut;
use contract::change::Verb;
use contract::from_dataplane::Body as Word;
use contract::to_dataplane::Body as Order;
use contract::{
    Batch, Change, Context, Direction, FromDataplane, Hello, Leg, LegSet, Mode, Path, RtpLeg, ToDataplane,
    decode_frame, encode_frame, leg, placement,
};

use super::bare::Running;
use super::load::Load;

/// A data plane, the link to it, and its folder.
pub(crate) struct Weir {
    plane: dataplaned::Running,
    control: UnixStream,
    read: BytesMut,
    generation: u64,
    _folder: tempfile::TempDir,
}

pub(crate) fn distribute_uring(load: &Load, core: usize) -> anyhow::Result<Running> {
    distribute("uring", load, core)
}

pub(crate) fn distribute_mio(load: &Load, core: usize) -> anyhow::Result<Running> {
    distribute("mio", load, core)
}

pub(crate) fn relay_uring(load: &Load, core: usize) -> anyhow::Result<Running> {
    relay("uring", load, core)
}

pub(crate) fn relay_mio(load: &Load, core: usize) -> anyhow::Result<Running> {
    relay("mio", load, core)
}

/// One context: the first end sends, all others receive.
fn distribute(driver: &str, load: &Load, core: usize) -> anyhow::Result<Running> {
    let mut weir = Weir::start(driver, core)?;
    let ends = load.addresses()?;
    let mut verbs = vec![Verb::PutContext(Context { id: 1 })];
    for (id, end) in (1..).zip(&ends) {
        let direction = if id == 1 { Direction::Sendonly } else { Direction::Recvonly };
        verbs.push(Verb::PutLeg(rtp_leg(1, id, *end, direction)));
    }
    let targets = (2..=u64::try_from(ends.len())?).collect();
    verbs.push(path(1, 1, Mode::Distribute, vec![1], targets));
    let entries = weir.apply(verbs)?;
    weir.running(entries)
}

/// A context for each pair of ends, with a path each way.
fn relay(driver: &str, load: &Load, core: usize) -> anyhow::Result<Running> {
    let mut weir = Weir::start(driver, core)?;
    let mut entries = Vec::new();
    for (context, pair) in (1..).zip(load.addresses()?.chunks(2)) {
        let mut verbs = vec![Verb::PutContext(Context { id: context })];
        for (id, end) in (1..).zip(pair) {
            verbs.push(Verb::PutLeg(rtp_leg(context, id, *end, Direction::Sendrecv)));
        }
        verbs.push(path(context, 1, Mode::Relay, vec![1], vec![2]));
        verbs.push(path(context, 2, Mode::Relay, vec![2], vec![1]));
        entries.extend(weir.apply(verbs)?);
    }
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
    fn start(driver: &str, core: usize) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut config =
            dataplaned::Config { folder: folder.path().to_owned(), ..dataplaned::Config::default() };
        config.driver.kind = driver.to_owned();
        config.driver.spin_us = 0; // as the bare loops: nothing is added while it waits
        config.shards.cores = vec![core];
        config.msrp.port = 0;
        config.msrp.tls = false;
        config.metrics.on = false;
        config.rtp.receive_bytes = 4 << 20;
        (config.rtp.port_first, config.rtp.port_last) = (20_000, 29_999);
        let plane = dataplaned::start(config)?;
        let control = UnixStream::connect(&plane.addresses().socket)?;
        let mut weir = Weir { plane, control, read: BytesMut::new(), generation: 0, _folder: folder };
        let (version_min, version_max) = (contract::VERSION_MIN, contract::VERSION);
        weir.say(Order::Hello(Hello { version_min, version_max, epoch: 1, owner: "bench".into() }))?;
        match weir.answer()? {
            Word::Welcome(welcome) if welcome.driver == driver => Ok(weir),
            Word::Welcome(welcome) => anyhow::bail!("{driver} is not to be had: {}", welcome.driver_reason),
            word => anyhow::bail!("the greeting was answered with {word:?}"),
        }
    }

    fn say(&mut self, body: Order) -> anyhow::Result<()> {
        let mut frame = BytesMut::new();
        encode_frame(&ToDataplane { body: Some(body) }, &mut frame);
        Ok(self.control.write_all(&frame)?)
    }

    /// The next word that is no news.
    fn answer(&mut self) -> anyhow::Result<Word> {
        loop {
            match decode_frame::<FromDataplane>(&mut self.read)? {
                Some(FromDataplane { body: Some(Word::News(_)) | None }) => {}
                Some(FromDataplane { body: Some(word) }) => return Ok(word),
                None => {
                    let mut piece = [0; 65_536];
                    let n = self.control.read(&mut piece)?;
                    anyhow::ensure!(n > 0, "the data plane closed its link");
                    self.read.extend_from_slice(&piece[..n]);
                }
            }
        }
    }

    /// Applies a batch; where its legs are.
    fn apply(&mut self, verbs: Vec<Verb>) -> anyhow::Result<Vec<SocketAddr>> {
        self.generation += 1;
        let changes = verbs.into_iter().map(|verb| Change { verb: Some(verb) }).collect();
        self.say(Order::Batch(Batch {
            generation: self.generation,
            epoch: 1,
            trace: String::new(),
            changes,
        }))?;
        let Word::Applied(applied) = self.answer()? else { anyhow::bail!("a batch was refused") };
        let at = |at: &placement::At| match at {
            placement::At::Rtp(local) => local.bound.as_ref()?.socket(),
            placement::At::Msrp(_) => None,
        };
        let places =
            applied.placements.iter().map(|placed| placed.at.as_ref().and_then(at).context("a port"));
        places.collect()
    }

    fn running(self, entries: Vec<SocketAddr>) -> anyhow::Result<Running> {
        let thread = *self.plane.shard_threads().first().context("no shard")?;
        Ok(Running::weir(entries, thread, self))
    }
}
