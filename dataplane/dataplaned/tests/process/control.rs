//! A control of the tests: blocking, one link.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bytes::BytesMut;
use contract::from_dataplane::Body as Word;
use contract::to_dataplane::Body as Order;
use contract::{
    Applied, Batch, Change, Context, FromDataplane, Hello, Leg, LegSet, Mode, Path, Placement, Refusal,
    RtpLeg, ToDataplane, Welcome, change::Verb, decode_frame, encode_frame, leg, placement,
};
use dataplaned::{Config, Running};

pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// A data plane of its own, and its folder.
pub(crate) struct Node {
    pub(crate) running: Option<Running>,
    pub(crate) config: Config,
    _folder: tempfile::TempDir,
}

impl Node {
    pub(crate) fn start(driver: &str, change: impl FnOnce(&mut Config)) -> Node {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config { folder: folder.path().to_owned(), ..Config::default() };
        config.driver.kind = driver.to_owned();
        config.shards.cores = vec![0];
        config.msrp.port = 0;
        config.metrics.address.set_port(0);
        config.metrics.tick_ms = 20;
        let (first, last) = free_range();
        (config.rtp.port_first, config.rtp.port_last) = (first, last);
        config.limits.sockets_max = 512;
        config.limits.connections_max = 64;
        change(&mut config);
        let running = Some(dataplaned::start(config.clone()).unwrap());
        Node { running, config, _folder: folder }
    }

    pub(crate) fn restart(&mut self) {
        self.running = None;
        self.running = Some(dataplaned::start(self.config.clone()).unwrap());
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub(crate) fn control(&self, epoch: u64) -> Control {
        let (control, word) = self.meet(epoch, contract::VERSION);
        let Word::Welcome(welcome) = word else { panic!("{word:?}") };
        Control { welcome, ..control }
    }

    /// Says Hello; the first word of the data plane.
    pub(crate) fn meet(&self, epoch: u64, version: u32) -> (Control, Word) {
        let stream = UnixStream::connect(&self.running().addresses().socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut control =
            Control { stream, read: BytesMut::new(), welcome: Welcome::default(), generation: 0, epoch };
        let owner = "test".to_owned();
        control.say(Order::Hello(Hello { version_min: version, version_max: version, epoch, owner }));
        let word = control.word();
        (control, word)
    }

    pub(crate) fn metrics(&self) -> String {
        let address = self.running().addresses().metrics.unwrap();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// Waits until a metric has a value.
    pub(crate) fn until_metric(&self, line: &str) {
        let start = std::time::Instant::now();
        let mut text = String::new();
        while start.elapsed() < PATIENCE {
            text = self.metrics();
            if text.lines().any(|l| l == line) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let name = line.split(['{', ' ']).next().unwrap();
        let near: Vec<&str> = text.lines().filter(|l| l.starts_with(name) && !l.ends_with(" 0")).collect();
        panic!("{line} never came; there was {near:?}");
    }
}

/// Ports for one test: each takes its own part of the range.
fn free_range() -> (u16, u16) {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Below the ports that the system gives out by itself.
    let first = 20_000 + (std::process::id() % 6) as u16 * 2048 + NEXT.fetch_add(64, Ordering::Relaxed);
    (first, first + 31)
}

pub(crate) struct Control {
    stream: UnixStream,
    read: BytesMut,
    pub(crate) welcome: Welcome,
    pub(crate) generation: u64,
    pub(crate) epoch: u64,
}

impl Control {
    pub(crate) fn say(&mut self, body: Order) {
        let mut frame = BytesMut::new();
        encode_frame(&ToDataplane { body: Some(body) }, &mut frame);
        self.stream.write_all(&frame).unwrap();
    }

    /// The next word, or `None` at the end of the link.
    pub(crate) fn next(&mut self) -> Option<Word> {
        loop {
            if let Some(frame) = decode_frame::<FromDataplane>(&mut self.read).unwrap() {
                return Some(frame.body.unwrap());
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece) {
                Ok(0) => return None,
                Ok(n) => self.read.extend_from_slice(&piece[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn word(&mut self) -> Word {
        self.next().unwrap()
    }

    /// The next word that is no news.
    pub(crate) fn answer(&mut self) -> Word {
        loop {
            match self.word() {
                Word::News(_) => {}
                word => return word,
            }
        }
    }

    pub(crate) fn batch(&mut self, verbs: Vec<Verb>) -> Word {
        self.generation += 1;
        self.again(verbs)
    }

    /// Sends a batch with the present generation.
    pub(crate) fn again(&mut self, verbs: Vec<Verb>) -> Word {
        let changes = verbs.into_iter().map(|verb| Change { verb: Some(verb) }).collect();
        let (generation, epoch) = (self.generation, self.epoch);
        self.say(Order::Batch(Batch { generation, epoch, trace: "test".into(), changes }));
        self.answer()
    }

    pub(crate) fn applied(&mut self, verbs: Vec<Verb>) -> Applied {
        match self.batch(verbs) {
            Word::Applied(applied) => applied,
            word => panic!("{word:?}"),
        }
    }

    pub(crate) fn refused(&mut self, verbs: Vec<Verb>) -> Refusal {
        match self.batch(verbs) {
            Word::Refusal(refusal) => refusal,
            word => panic!("{word:?}"),
        }
    }
}

/// A leg towards a phone.
pub(crate) fn rtp_leg(context: u64, id: u64, phone: &UdpSocket) -> Leg {
    Leg {
        id,
        context,
        media: "audio".into(),
        participant: id.to_string(),
        kind: Some(leg::Kind::Rtp(RtpLeg {
            remote: Some(phone.local_addr().unwrap().into()),
            rtcp_mux: true,
            clock_rate: 8000,
            cname: "weir".into(),
            ..RtpLeg::default()
        })),
        ..Leg::default()
    }
}

pub(crate) fn relay(context: u64, id: u32, from: u64, to: u64) -> Verb {
    let set = |leg| Some(LegSet { legs: vec![leg], media: String::new() });
    Verb::PutPath(Path {
        id,
        context,
        mode: Mode::Relay as i32,
        sources: set(from),
        targets: set(to),
        ..Path::default()
    })
}

/// A two-way call between two phones.
pub(crate) fn call(context: u64, a: &UdpSocket, b: &UdpSocket) -> Vec<Verb> {
    vec![
        Verb::PutContext(Context { id: context }),
        Verb::PutLeg(rtp_leg(context, 1, a)),
        Verb::PutLeg(rtp_leg(context, 2, b)),
        relay(context, 1, 1, 2),
        relay(context, 2, 2, 1),
    ]
}

pub(crate) fn at(placement: &Placement) -> SocketAddr {
    match placement.at.as_ref().unwrap() {
        placement::At::Rtp(local) => local.bound.as_ref().unwrap().socket().unwrap(),
        placement::At::Msrp(local) => local.advertised.as_ref().unwrap().socket().unwrap(),
    }
}

pub(crate) fn phone() -> UdpSocket {
    let phone = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    phone.set_read_timeout(Some(PATIENCE)).unwrap();
    phone
}

/// An RTP packet of PCMU (RFC 3550 §5.1).
pub(crate) fn rtp(sequence: u16, ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&(u32::from(sequence) * 160).to_be_bytes());
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(&[0xd5; 160]);
    packet
}
