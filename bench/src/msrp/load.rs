//! The load: clients on connections of their own, in one thread that spins on a core of its own. A closed loop: a
//! fixed number of messages is under way, so the measured thread decides how fast it goes.
//!
//! What a client reads it throws away inside the kernel (MSG_TRUNC), and counts octets: how many make a message is
//! found out first. The clients of TLS rows do the handshake and count records' octets from then on.

use std::io::{ErrorKind, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use msrp::FailureReport;
use rustls::{ClientConfig, ClientConnection};

use super::words::{Content, Ends, MESSAGE_BYTES, Request, answer, binding};
use crate::rtp::clock::{self, Who};

/// What one measurement gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// CPU nanoseconds of the measured thread and its core's ksoftirqd for one delivered message, or octet.
    pub(crate) ns: f64,
    /// Deliveries, or octets, in a second.
    pub(crate) per_s: f64,
    /// Share of the time in which the measured thread ran.
    pub(crate) busy: f64,
    /// Octets of a message as it came to a client.
    pub(crate) octets: f64,
}

/// Who speaks to whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// The first client to all others: so many messages under way, sent so many at once.
    Room { window: usize, burst: usize },
    /// Client 2i to client 2i + 1, one message under way; with `answers` Failure-Report is `yes`.
    Pairs { octets: usize, answers: bool },
    /// Client 2i to client 2i + 1, so many messages under way.
    Pipes { octets: usize, window: usize },
    /// The first client to the second: files in chunks of so many octets, as fast as they are taken.
    File { chunk: usize },
}

/// A file.
pub(crate) const FILE_BYTES: u64 = 100 << 20;
/// Before each measurement.
const START: Duration = Duration::from_millis(200);
/// What has not come for so long will not come.
const QUIET: Duration = Duration::from_millis(100);
const LOST: Duration = Duration::from_secs(10);
/// Times the thread looks at an empty connection before it looks at the clock.
const LOOKS: u32 = 64;

/// One client's end.
struct Client {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    ends: Ends,
    /// Octets that came.
    got: u64,
}

/// The clients.
pub(crate) struct Load {
    clients: Vec<Client>,
    shape: Shape,
    requests: Vec<Request>,
    number: u64,
    /// Octets of a message as it comes.
    octets: u64,
}

/// Where the clients go.
pub(crate) struct Place {
    pub(crate) at: SocketAddr,
    pub(crate) ends: Vec<Ends>,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// The server wants to know whose a connection is before it can carry.
    pub(crate) binds: bool,
    /// Connections that are up already, one for each.
    pub(crate) streams: Vec<TcpStream>,
}

impl Load {
    pub(crate) fn connect(mut place: Place, shape: Shape) -> anyhow::Result<Self> {
        // A bare loop serves when it has accepted all; a server waits only so long for a handshake.
        let mut streams = std::collections::VecDeque::from(std::mem::take(&mut place.streams));
        let missing = place.ends.len().saturating_sub(streams.len());
        for _ in (0..missing).filter(|_| !place.binds) {
            streams.push_back(open(&place)?);
        }
        let mut clients = Vec::with_capacity(place.ends.len());
        for ends in &place.ends {
            let stream = streams.pop_front().map_or_else(|| open(&place), Ok)?;
            let tls = match &place.tls {
                Some(config) => Some(Box::new(handshake(&stream, config)?)),
                None => None,
            };
            let mut client = Client { stream, tls, ends: ends.clone(), got: 0 };
            if place.binds {
                let bytes = binding(&client.ends)?;
                client.say(&bytes)?;
            }
            clients.push(client);
        }
        // All are bound when nothing moves any more.
        std::thread::sleep(Duration::from_millis(200 + clients.len() as u64 / 4));
        let mut requests = Vec::new();
        let speakers = match shape {
            Shape::Room { .. } | Shape::File { .. } => 1,
            Shape::Pairs { .. } | Shape::Pipes { .. } => clients.len(),
        };
        for (index, client) in clients.iter().enumerate().take(speakers) {
            requests.push(match shape {
                Shape::Room { .. } => {
                    Request::whole(&client.ends, Content::Room, index, MESSAGE_BYTES, FailureReport::No)?
                }
                Shape::Pairs { octets, answers } => {
                    let failure = if answers { FailureReport::Yes } else { FailureReport::No };
                    Request::whole(&client.ends, Content::Plain, index, octets, failure)?
                }
                Shape::Pipes { octets, .. } => {
                    Request::whole(&client.ends, Content::Plain, index, octets, FailureReport::No)?
                }
                Shape::File { chunk } => Request::part(&client.ends, chunk, FILE_BYTES)?,
            });
        }
        clients.iter().try_for_each(|client| client.stream.set_nonblocking(true))?;
        Ok(Load { clients, shape, requests, number: 1, octets: 0 })
    }

    /// A client who binds his connection and reads nothing; it soon takes no more.
    pub(crate) fn connect_deaf(place: Place) -> anyhow::Result<Self> {
        let ends = place.ends.first().context("no session")?.clone();
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.set_recv_buffer_size(4096)?;
        socket.connect(&place.at.into())?;
        let mut client = Client { stream: socket.into(), tls: None, ends, got: 0 };
        let bytes = binding(&client.ends)?;
        client.say(&bytes)?;
        let shape = Shape::Room { window: 1, burst: 1 };
        Ok(Load { clients: vec![client], shape, requests: Vec::new(), number: 1, octets: 0 })
    }

    /// The clients who listen in a room.
    pub(crate) fn receivers(&self) -> impl Iterator<Item = (usize, &TcpStream)> {
        self.clients.iter().enumerate().skip(1).map(|(index, client)| (index, &client.stream))
    }

    /// Octets of a message as it comes.
    pub(crate) fn message_octets(&mut self) -> anyhow::Result<u64> {
        self.calibrate()?;
        Ok(self.octets)
    }

    /// Counts from nothing again.
    pub(crate) fn forget(&mut self) {
        self.clients.iter_mut().for_each(|client| client.got = 0);
    }

    /// Throws away what a client has; how many octets that makes in all.
    pub(crate) fn take(&mut self, client: usize) -> anyhow::Result<u64> {
        let client = self.clients.get_mut(client).context("a client")?;
        client.discard()?;
        Ok(client.got)
    }

    /// A message from each client of a pair to the other.
    pub(crate) fn exchange(&mut self) -> anyhow::Result<()> {
        for speaker in 0..self.clients.len() {
            self.send(speaker)?;
        }
        for client in &mut self.clients {
            client.got = 0;
            client.until(MESSAGE_BYTES as u64)?;
        }
        // What of the last one is still under way.
        std::thread::sleep(QUIET);
        self.clients.iter_mut().try_for_each(|client| client.discard().map(drop))
    }

    /// Measures after a start in which caches fill.
    pub(crate) fn measure(&mut self, who: Who, core: usize, time: Duration) -> anyhow::Result<Sample> {
        if let Shape::File { chunk } = self.shape {
            return self.measure_file(chunk, who, core, time);
        }
        self.calibrate()?;
        self.drive(START)?;
        let (cpu, start) = (clock::busy_ns(who, core), Instant::now());
        let delivered = self.drive(time)?;
        let cpu = clock::busy_ns(who, core).saturating_sub(cpu) as f64;
        let wall = start.elapsed().as_secs_f64();
        anyhow::ensure!(delivered > 0, "nothing arrived");
        let (delivered, octets) = (delivered as f64, self.octets as f64);
        Ok(Sample { ns: cpu / delivered, per_s: delivered / wall, busy: cpu / 1e9 / wall, octets })
    }

    /// Sends one message, or as many as go together, and counts what comes of it.
    fn calibrate(&mut self) -> anyhow::Result<()> {
        let (burst, receivers, least) = match self.shape {
            Shape::Room { burst, .. } => (burst, usize::MAX, burst * MESSAGE_BYTES),
            Shape::Pairs { octets, .. } | Shape::Pipes { octets, .. } => (1, 1, octets),
            Shape::File { .. } => (1, 1, 1),
        };
        self.clients.iter_mut().try_for_each(|client| client.discard().map(drop))?;
        self.clients.iter_mut().for_each(|client| client.got = 0);
        (0..burst).try_for_each(|_| self.send(0))?;
        let (start, mut last) = (Instant::now(), Instant::now());
        while last.elapsed() < QUIET {
            for client in self.clients.iter_mut().skip(1) {
                if client.discard()? > 0 {
                    last = Instant::now();
                }
            }
            // Whoever shares a core with other work may be held up for long.
            let got = |client: &Client| client.got;
            let mut all = self.clients.iter().skip(1).take(receivers).map(got);
            let first = all.next().unwrap_or(0);
            if (first < least as u64 || all.any(|got| got != first)) && start.elapsed() < LOST {
                last = Instant::now();
            }
        }
        let mut came = self.clients.iter().skip(1).take(receivers).map(|client| client.got / burst as u64);
        self.octets = came.next().context("no receiver")?;
        anyhow::ensure!(self.octets * burst as u64 >= least as u64, "a message did not arrive");
        anyhow::ensure!(came.all(|got| got == self.octets), "not all got the same");
        self.clients.iter_mut().for_each(|client| client.got = 0);
        Ok(())
    }

    /// A message of one client.
    pub(crate) fn send(&mut self, speaker: usize) -> anyhow::Result<()> {
        self.number += 1;
        let request = self.requests.get_mut(speaker).context("a speaker")?;
        request.number(self.number);
        self.clients.get_mut(speaker).context("a client")?.say(request.bytes())
    }

    /// So many messages of the first client to one member alone.
    pub(crate) fn whisper(&mut self, member: usize, count: usize) -> anyhow::Result<()> {
        let client = self.clients.first_mut().context("a client")?;
        let content = Content::Private(member);
        let mut request = Request::whole(&client.ends, content, 0, MESSAGE_BYTES, FailureReport::No)?;
        for _ in 0..count {
            self.number += 1;
            request.number(self.number);
            client.say(request.bytes())?;
        }
        Ok(())
    }

    fn drive(&mut self, time: Duration) -> anyhow::Result<u64> {
        match self.shape {
            Shape::Room { window, burst } => self.drive_room(window, burst, time),
            Shape::Pairs { answers, .. } => self.drive_pairs(answers, time),
            Shape::Pipes { window, .. } => self.drive_pipes(window as u64, time),
            Shape::File { .. } => Ok(0),
        }
    }

    /// Goes round the receivers: who has what he is to have is left, who has not is waited for. They are served in turn,
    /// so each is looked at about once.
    fn drive_room(&mut self, window: usize, burst: usize, time: Duration) -> anyhow::Result<u64> {
        self.clients.iter_mut().for_each(|client| client.got = 0);
        let end = Instant::now() + time;
        let (mut sent, mut goal) = (0, 0);
        let mut packed = Vec::new();
        while Instant::now() < end {
            while sent + burst <= goal + window {
                packed.clear();
                for _ in 0..burst {
                    self.number += 1;
                    let request = self.requests.first_mut().context("a speaker")?;
                    request.number(self.number);
                    packed.extend_from_slice(request.bytes());
                }
                self.clients.first_mut().context("a client")?.say(&packed)?;
                sent += burst;
            }
            goal += burst;
            self.wait_for(goal as u64 * self.octets)?;
        }
        self.wait_for(sent as u64 * self.octets)?;
        Ok(sent as u64 * (self.clients.len() as u64 - 1))
    }

    fn wait_for(&mut self, octets: u64) -> anyhow::Result<()> {
        for client in self.clients.iter_mut().skip(1) {
            client.until(octets)?;
        }
        Ok(())
    }

    fn drive_pairs(&mut self, answers: bool, time: Duration) -> anyhow::Result<u64> {
        let end = Instant::now() + time;
        let (mut delivered, mut ending) = (0, false);
        let mut under_way = vec![false; self.clients.len() / 2];
        let octets = usize::try_from(self.octets)?;
        let mut message = vec![0; octets];
        let mut last = Instant::now();
        while !ending || under_way.contains(&true) {
            ending |= Instant::now() >= end;
            for (pair, under_way) in under_way.iter_mut().enumerate() {
                if !*under_way {
                    if !ending {
                        self.send(2 * pair)?;
                        *under_way = true;
                    }
                    continue;
                }
                let target = self.clients.get_mut(2 * pair + 1).context("a target")?;
                let whole =
                    if answers { target.read_whole(&mut message)? } else { target.discard_of(octets)? };
                if !whole {
                    anyhow::ensure!(last.elapsed() < LOST, "a message was lost");
                    continue;
                }
                if answers {
                    let tid = message.get(5..25).context("a transaction id")?;
                    let bytes = answer(tid, &target.ends)?;
                    target.say(&bytes)?;
                    self.clients.get_mut(2 * pair).context("a source")?.discard()?;
                }
                (*under_way, last) = (false, Instant::now());
                delivered += 1;
            }
        }
        Ok(delivered)
    }

    /// Half a window at a time, so that the measured one always has the other half before it.
    fn drive_pipes(&mut self, window: u64, time: Duration) -> anyhow::Result<u64> {
        let end = Instant::now() + time;
        let mut under_way = vec![0; self.clients.len() / 2];
        let (mut delivered, mut ending, mut last) = (0, false, Instant::now());
        while !ending || under_way.iter().any(|count| *count > 0) {
            ending |= Instant::now() >= end;
            for (pair, under_way) in under_way.iter_mut().enumerate() {
                let target = self.clients.get_mut(2 * pair + 1).context("a target")?;
                target.discard()?;
                let came = target.got / self.octets;
                if came > 0 {
                    target.got -= came * self.octets;
                    *under_way -= came;
                    delivered += came;
                    last = Instant::now();
                }
                if !ending && *under_way <= window / 2 {
                    let burst = window - *under_way;
                    let mut packed = Vec::new();
                    for _ in 0..burst {
                        self.number += 1;
                        let request = self.requests.get_mut(2 * pair).context("a speaker")?;
                        request.number(self.number);
                        packed.extend_from_slice(request.bytes());
                    }
                    self.clients.get_mut(2 * pair).context("a client")?.say(&packed)?;
                    *under_way += burst;
                }
            }
            anyhow::ensure!(last.elapsed() < LOST, "messages were lost");
        }
        Ok(delivered)
    }

    fn measure_file(
        &mut self,
        chunk: usize,
        who: Who,
        core: usize,
        time: Duration,
    ) -> anyhow::Result<Sample> {
        let mut source = File { at: 0, message: 0, done: usize::MAX };
        self.pour(&mut source, chunk, START)?;
        let (cpu, start) = (clock::busy_ns(who, core), Instant::now());
        let octets = self.pour(&mut source, chunk, time)? as f64;
        let cpu = clock::busy_ns(who, core).saturating_sub(cpu) as f64;
        let wall = start.elapsed().as_secs_f64();
        anyhow::ensure!(octets > 0.0, "nothing arrived");
        Ok(Sample { ns: cpu / octets, per_s: octets / wall, busy: cpu / 1e9 / wall, octets: chunk as f64 })
    }

    /// Writes what the server takes and reads what comes; how many octets came.
    fn pour(&mut self, file: &mut File, chunk: usize, time: Duration) -> anyhow::Result<u64> {
        let end = Instant::now() + time;
        let request = self.requests.first_mut().context("a speaker")?;
        let [source, target] = self.clients.as_mut_slice() else { anyhow::bail!("a file has two ends") };
        let before = target.got;
        let mut last = Instant::now();
        while Instant::now() < end {
            if file.done >= request.bytes().len() {
                // Another file when this one is through; the last chunk is as long as the others.
                let whole = FILE_BYTES / chunk as u64;
                let (index, message) = (file.at % whole, file.at / whole);
                request.chunk(file.at + 1, message + 1, index * chunk as u64 + 1, index + 1 == whole);
                (file.at, file.message, file.done) = (file.at + 1, message, 0);
            }
            match source.stream.write(&request.bytes()[file.done..]) {
                Ok(n) => file.done += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(e.into()),
            }
            if target.discard()? > 0 {
                last = Instant::now();
            }
            anyhow::ensure!(last.elapsed() < LOST, "the file stands still");
        }
        Ok(target.got - before)
    }
}

/// How far a file is.
struct File {
    at: u64,
    message: u64,
    /// Octets of the present chunk that are written.
    done: usize,
}

impl Client {
    /// Sends all of it; the loads' windows are smaller than what the kernel takes.
    fn say(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut stream = &self.stream;
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(bytes)?;
            while tls.wants_write() {
                match tls.write_tls(&mut stream) {
                    Ok(_) => {}
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e.into()),
                }
            }
            return Ok(());
        }
        let mut left = bytes;
        let (mut stuck, mut looks) = (None, 0_u32);
        while !left.is_empty() {
            match stream.write(left) {
                Ok(n) => (left, stuck) = (left.get(n..).unwrap_or_default(), None),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    std::hint::spin_loop();
                    looks += 1;
                    let since: &Instant = stuck.get_or_insert_with(Instant::now);
                    anyhow::ensure!(
                        !looks.is_multiple_of(LOOKS) || since.elapsed() < LOST,
                        "the server reads no more"
                    );
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Throws away what is there; how many octets.
    fn discard(&mut self) -> anyhow::Result<usize> {
        self.discard_up_to(1 << 20)
    }

    fn discard_up_to(&mut self, most: usize) -> anyhow::Result<usize> {
        // With MSG_TRUNC TCP writes nothing here: only its length counts.
        let mut room = [MaybeUninit::<u8>::uninit(); 1 << 16];
        let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
        let mut total = 0;
        loop {
            let part = room.len().min(most - total);
            if part == 0 {
                return Ok(total);
            }
            match socket2::SockRef::from(&self.stream).recv_with_flags(&mut room[..part], flags) {
                Ok(0) => anyhow::bail!("the server closed a connection"),
                Ok(n) => {
                    total += n;
                    self.got += n as u64;
                    if n < part {
                        return Ok(total);
                    }
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    return Ok(total);
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Waits until so many octets came in all.
    fn until(&mut self, octets: u64) -> anyhow::Result<()> {
        let start = Instant::now();
        let mut looks = 0;
        while self.got < octets {
            if self.discard()? == 0 {
                looks += 1;
                (0..50).for_each(|_| std::hint::spin_loop());
                if looks % LOOKS == 0 {
                    anyhow::ensure!(
                        start.elapsed() < LOST,
                        "a message was lost: {} of {octets} octets",
                        self.got
                    );
                }
            }
        }
        Ok(())
    }

    /// Throws a message away; true when all of it was there. `got` counts what there is of one.
    fn discard_of(&mut self, octets: usize) -> anyhow::Result<bool> {
        let have = usize::try_from(self.got)?;
        self.discard_up_to(octets.saturating_sub(have))?;
        let whole = self.got as usize >= octets;
        if whole {
            self.got = 0;
        }
        Ok(whole)
    }

    /// Reads a message; true when all of it was there.
    fn read_whole(&mut self, message: &mut [u8]) -> anyhow::Result<bool> {
        let have = usize::try_from(self.got)?;
        match (&self.stream).read(&mut message[have..]) {
            Ok(0) => anyhow::bail!("the server closed a connection"),
            Ok(n) => self.got += n as u64,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(e) => return Err(e.into()),
        }
        let whole = self.got as usize == message.len();
        if whole {
            self.got = 0;
        }
        Ok(whole)
    }
}

fn open(place: &Place) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(place.at)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn handshake(mut stream: &TcpStream, config: &Arc<ClientConfig>) -> anyhow::Result<ClientConnection> {
    let name = rustls::pki_types::ServerName::from(stream.peer_addr()?.ip());
    let mut session = ClientConnection::new(Arc::clone(config), name)?;
    while session.is_handshaking() {
        session.complete_io(&mut stream)?;
    }
    Ok(session)
}
