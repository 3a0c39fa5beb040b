//! A data plane in the test's own process, and a control that programs it by hand: what there is on the wire of MSRP is
//! then the test's, without any SIP.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use contract::from_dataplane::Body as Word;
use contract::to_dataplane::Body as Order;
use contract::{
    Batch, Change, Context, Decide, Direction, FromDataplane, Hello, Leg, LegSet, Mode, MsrpLeg, Path,
    ToDataplane, change::Verb, decode_frame, encode_frame, leg, news, path, placement,
};

use crate::msrp_peer::Peer;

/// How long a word of the data plane is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// The one context.
pub const CONTEXT: u64 = 7;

/// See the head of the file.
pub struct Plane {
    running: dataplaned::Running,
    stream: UnixStream,
    read: BytesMut,
    generation: u64,
    _folder: tempfile::TempDir,
}

impl Plane {
    /// Starts it with more of its configuration (TOML), and takes it over.
    pub fn start(more: &str) -> Plane {
        Plane::start_over(1, more)
    }

    /// The same with so many shards, over which every room is spread from its second leg on.
    pub fn start_over(shards: usize, more: &str) -> Plane {
        let cores = vec![0; shards];
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "folder = \"{}\"\n[shards]\ncores = {cores:?}\ncontext_weight_max = 1\n[driver]\nkind = \"mio\"\n[metrics]\naddress = \"127.0.0.1:0\"\n\
             tick_ms = 20\n[msrp]\nport = 0\n{more}\n",
            folder.path().display()
        );
        let running = dataplaned::start(toml::from_str(&text).unwrap()).unwrap();
        let stream = UnixStream::connect(&running.addresses().socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut plane = Plane { running, stream, read: BytesMut::new(), generation: 0, _folder: folder };
        let version = contract::VERSION;
        let owner = "test".to_owned();
        plane.say(Order::Hello(Hello { version_min: version, version_max: version, epoch: 1, owner }));
        assert!(matches!(plane.word(), Word::Welcome(_)));
        plane
    }

    /// Where its MSRP listeners are, by TCP and by TLS.
    pub fn msrp(&self) -> (SocketAddr, SocketAddr) {
        let (plain, secure) = self.running.addresses().msrp[0];
        (plain, secure.unwrap())
    }

    /// Says something as control.
    pub fn say(&mut self, body: Order) {
        let mut frame = BytesMut::new();
        encode_frame(&ToDataplane { body: Some(body) }, &mut frame);
        self.stream.write_all(&frame).unwrap();
    }

    /// The next word.
    pub fn word(&mut self) -> Word {
        loop {
            if let Some(frame) = decode_frame::<FromDataplane>(&mut self.read).unwrap() {
                return frame.body.unwrap();
            }
            let mut piece = [0; 4096];
            let count = self.stream.read(&mut piece).unwrap();
            assert!(count > 0, "the link is closed");
            self.read.extend_from_slice(&piece[..count]);
        }
    }

    /// The next news of a kind.
    pub fn news<T>(&mut self, pick: impl Fn(&news::What) -> Option<T>) -> T {
        loop {
            if let Word::News(contract::News { what: Some(what) }) = self.word()
                && let Some(found) = pick(&what)
            {
                return found;
            }
        }
    }

    /// Answers a question about a leg.
    pub fn decide(&mut self, leg: u64, id: u64, status: u32, nickname: &str) {
        let leg = Some(contract::LegKey::new(CONTEXT, leg));
        self.say(Order::Decide(Decide { leg, id, status, nickname: nickname.to_owned(), auth: None }));
    }

    /// A batch that must be applied; the paths of its MSRP legs by their numbers.
    pub fn put(&mut self, verbs: Vec<Verb>) -> Vec<(u64, String)> {
        self.generation += 1;
        let changes = verbs.into_iter().map(|verb| Change { verb: Some(verb) }).collect();
        let (generation, trace) = (self.generation, "test".to_owned());
        self.say(Order::Batch(Batch { generation, epoch: 1, trace, changes }));
        loop {
            match self.word() {
                Word::Applied(applied) => {
                    let path = |placed: &contract::Placement| match placed.at.as_ref()? {
                        placement::At::Msrp(local) => Some((placed.leg, local.path.clone())),
                        placement::At::Rtp(_) => None,
                    };
                    return applied.placements.iter().filter_map(path).collect();
                }
                Word::News(_) => {}
                word => panic!("{word:?}"),
            }
        }
    }

    /// The context with these legs and paths; the legs' own paths.
    pub fn set(&mut self, legs: Vec<Leg>, paths: Vec<Path>) -> Vec<String> {
        let mut verbs = vec![Verb::PutContext(Context { id: CONTEXT })];
        verbs.extend(legs.into_iter().map(Verb::PutLeg));
        verbs.extend(paths.into_iter().map(Verb::PutPath));
        self.put(verbs).into_iter().map(|(_, path)| path).collect()
    }

    /// The peer of leg `n`, connected and bound by an empty SEND (RFC 4975 §5.4), and where it sends to.
    pub fn join(&self, n: u64, to: &str) -> Peer {
        let mut peer = Peer::connect(self.msrp().0);
        peer.own = uri(n);
        let tid = peer.request("SEND", to, "Message-ID: join\r\nByte-Range: 1-0/0\r\n");
        assert_eq!(peer.status(&tid), "200");
        peer
    }

    /// The value of a metric's line.
    pub fn metric(&self, line: &str) -> u64 {
        let mut stream = std::net::TcpStream::connect(self.running.addresses().metrics.unwrap()).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let value = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
        value.and_then(|v| v.parse::<f64>().ok()).unwrap_or(0.0) as u64
    }

    /// Waits until a metric has this value: the shards' counters are collected by ticks.
    pub fn until_metric(&self, line: &str, wanted: u64) {
        let began = Instant::now();
        loop {
            let value = self.metric(line);
            if value == wanted {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{line} is {value} and not {wanted}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The URI of leg `n`'s peer.
pub fn uri(n: u64) -> String {
    format!("msrp://127.0.0.1:{}/peer{n}session;tcp", 7000 + n)
}

/// The address of its user.
pub fn user(n: u64) -> String {
    format!("sip:user{n}@example.com")
}

/// A leg of MSRP over TCP, its peer known and its user's own participant.
pub fn msrp_leg(n: u64, change: impl FnOnce(&mut MsrpLeg)) -> Leg {
    let mut msrp = MsrpLeg { remote_path: vec![uri(n)], addresses: vec![user(n)], ..MsrpLeg::default() };
    change(&mut msrp);
    Leg {
        id: n,
        context: CONTEXT,
        media: "msrp".into(),
        direction: Direction::Sendrecv as i32,
        participant: user(n),
        kind: Some(leg::Kind::Msrp(msrp)),
        ..Leg::default()
    }
}

/// A path.
pub fn path(
    id: u32,
    mode: Mode,
    sources: &[u64],
    targets: &[u64],
    parameters: Option<path::Parameters>,
) -> Path {
    let set = |legs: &[u64]| Some(LegSet { legs: legs.to_vec(), media: String::new() });
    Path { id, context: CONTEXT, mode: mode as i32, sources: set(sources), targets: set(targets), parameters }
}
