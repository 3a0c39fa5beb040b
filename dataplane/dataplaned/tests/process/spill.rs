//! One of two devices reads nothing for a while: the other has all of it meanwhile, and then it has it too. What waits is on
//! disk, in files that nobody sees.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use contract::change::Verb;
use contract::from_dataplane::Body as Word;
use contract::{Context, Leg, LegSet, Mode, MsrpLeg, Path, leg, news, placement};

use crate::control::{Control, Node};

const CONTEXT: u64 = 9;
const SIZE: usize = 24 << 20;
const CHUNK: usize = 60_000;
/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn uri(n: u64) -> String {
    format!("msrp://127.0.0.1:{}/peer{n}session;tcp", 7000 + n)
}

/// The octets of the message: printable, and none like its neighbours.
fn octet(at: usize) -> u8 {
    b'a' + ((at as u32).wrapping_mul(2_654_435_761) >> 17) as u8 % 26
}

/// Legs 1, 2 and 3; what the first one says goes to the others. Where each is reached.
fn put(control: &mut Control) -> Vec<String> {
    let leg = |id: u64| {
        let msrp =
            MsrpLeg { remote_path: vec![uri(id)], accept_types: vec!["*".into()], ..MsrpLeg::default() };
        let kind = Some(leg::Kind::Msrp(msrp));
        let participant = id.to_string();
        Leg { id, context: CONTEXT, media: "msrp".into(), participant, kind, ..Leg::default() }
    };
    let set = |legs: &[u64]| Some(LegSet { legs: legs.to_vec(), media: String::new() });
    let path = Path {
        id: 1,
        context: CONTEXT,
        mode: Mode::Distribute.into(),
        sources: set(&[1]),
        targets: set(&[2, 3]),
        parameters: None,
    };
    let mut verbs = vec![Verb::PutContext(Context { id: CONTEXT })];
    verbs.extend((1..=3).map(|n| Verb::PutLeg(leg(n))));
    verbs.push(Verb::PutPath(path));
    let placed = control.applied(verbs).placements;
    let path = |placed: &contract::Placement| match placed.at.as_ref() {
        Some(placement::At::Msrp(local)) => local.path.clone(),
        other => panic!("{other:?}"),
    };
    placed.iter().map(path).collect()
}

fn join(node: &Node, n: u64, to: &str) -> TcpStream {
    let mut stream = TcpStream::connect(node.running().addresses().msrp[0].0).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let from = uri(n);
    let head = "Message-ID: join\r\nByte-Range: 1-0/0\r\n-------j0in$\r\n";
    write!(stream, "MSRP j0in SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n{head}").unwrap();
    let mut text = Vec::new();
    while !text.ends_with(b"-------j0in$\r\n") {
        let mut piece = [0; 256];
        let n = stream.read(&mut piece).unwrap();
        assert!(n > 0);
        text.extend_from_slice(&piece[..n]);
    }
    stream
}

fn push(mut stream: TcpStream, to: String) -> TcpStream {
    let from = uri(1);
    for at in (0..SIZE).step_by(CHUNK) {
        let end = SIZE.min(at + CHUNK);
        let flag = if end == SIZE { '$' } else { '+' };
        let mut wire = format!(
            "MSRP t{at:08} SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\nMessage-ID: thelong1\r\nFailure-Report: no\r\n\
             Byte-Range: {}-*/{SIZE}\r\nContent-Type: text/plain\r\n\r\n",
            at + 1
        )
        .into_bytes();
        wire.extend((at..end).map(octet));
        write!(wire, "\r\n-------t{at:08}{flag}\r\n").unwrap();
        stream.write_all(&wire).unwrap();
    }
    stream
}

/// Reads a message to its end: how many octets were as they should be, and how it ended.
fn pull(stream: &mut TcpStream) -> (usize, char) {
    let (mut had, mut wire, mut piece) = (0, Vec::new(), vec![0; 1 << 16]);
    loop {
        let n = stream.read(&mut piece).unwrap();
        assert!(n > 0, "closed after {had} octets");
        wire.extend_from_slice(&piece[..n]);
        // Whole chunks only: head, empty line, body, end-line.
        while let Some(head_end) = find(&wire, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&wire[..head_end]).into_owned();
            let tid = head.split(' ').nth(1).unwrap().to_owned();
            let end_line = format!("\r\n-------{tid}");
            let body_at = head_end + 4;
            let Some(length) = find(&wire[body_at..], end_line.as_bytes()) else { break };
            let flag_at = body_at + length + end_line.len();
            if wire.len() < flag_at + 3 {
                break;
            }
            let range = head.lines().find_map(|line| line.strip_prefix("Byte-Range: ")).unwrap();
            let first: usize = range.split('-').next().unwrap().parse().unwrap();
            assert_eq!(first, had + 1, "in order, and each octet once");
            let body = &wire[body_at..body_at + length];
            assert!(body.iter().enumerate().all(|(n, octet_here)| *octet_here == octet(had + n)));
            had += length;
            let flag = char::from(wire[flag_at]);
            wire.drain(..flag_at + 3);
            if flag != '+' {
                return (had, flag);
            }
        }
        // One that was given up without a chunk open: its head ends with the end-line.
        if let Some(at) = find(&wire, b"#\r\n")
            && find(&wire[..at], b"\r\n\r\n").is_none()
        {
            return (had, '#');
        }
    }
}

fn find(all: &[u8], what: &[u8]) -> Option<usize> {
    all.windows(what.len()).position(|window| window == what)
}

/// What is told of leg 2; the other one may have been behind for a moment.
fn pressure(control: &mut Control, kept: bool, on: bool) {
    loop {
        if let Word::News(news) = control.word()
            && let Some(news::What::Pressure(pressure)) = news.what
            && (pressure.kept, pressure.on) == (kept, on)
            && pressure.leg.is_some_and(|leg| leg.leg == 2)
        {
            return;
        }
    }
}

fn until(what: impl Fn() -> bool) -> bool {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if what() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

fn value(node: &Node, name: &str) -> u64 {
    let text = node.metrics();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0) as u64
}

#[test]
fn a_device_that_reads_nothing_for_a_while_has_all_of_it_later_and_the_other_one_at_once() {
    for kind in ["mio", "uring"] {
        let node = Node::start(kind, |_| {});
        let mut control = node.control(1);
        let ours = put(&mut control);
        let sender = join(&node, 1, &ours[0]);
        let (mut slow, mut fast) = (join(&node, 2, &ours[1]), join(&node, 3, &ours[2]));
        let to = ours[0].clone();
        let push = std::thread::spawn(move || push(sender, to));
        assert_eq!(pull(&mut fast), (SIZE, '$'), "{kind}: nobody has read anything at the other one");
        pressure(&mut control, true, true);
        assert!(until(|| value(&node, "weir_dataplane_spill_files") == 1));
        let on_disk = value(&node, "weir_dataplane_spill_bytes");
        assert!(on_disk > SIZE as u64 / 4 && on_disk <= SIZE as u64, "{on_disk}");
        assert!(value(&node, "weir_dataplane_queued_bytes") < 1 << 20);
        // Nobody else sees it.
        let folder = node.config.spill_folder();
        assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        // The sender goes; what it has said stays.
        drop(push.join().unwrap());
        assert_eq!(pull(&mut slow), (SIZE, '$'), "{kind}");
        pressure(&mut control, true, false);
        assert!(until(|| value(&node, "weir_dataplane_spill_files") == 0));
        assert_eq!(value(&node, "weir_dataplane_spill_bytes"), 0);
        assert_eq!(value(&node, "weir_dataplane_drops_total{reason=\"msrp_spill\"}"), 0);
    }
}

#[test]
fn where_the_disk_fails_the_slow_one_loses_the_message_and_nobody_else() {
    for kind in ["mio", "uring"] {
        let node = Node::start(kind, |config| {
            // A file stands where the folder should be.
            let place = config.folder.join("no-folder");
            std::fs::write(&place, "").unwrap();
            config.spool.spill_folder = Some(place);
        });
        let mut control = node.control(1);
        let ours = put(&mut control);
        let sender = join(&node, 1, &ours[0]);
        let (mut slow, mut fast) = (join(&node, 2, &ours[1]), join(&node, 3, &ours[2]));
        let to = ours[0].clone();
        let push = std::thread::spawn(move || push(sender, to));
        assert_eq!(pull(&mut fast), (SIZE, '$'), "{kind}");
        pressure(&mut control, false, true);
        let (had, flag) = pull(&mut slow);
        assert!(had < SIZE && flag == '#', "{kind}: {had} {flag}");
        assert!(until(|| value(&node, "weir_dataplane_drops_total{reason=\"msrp_spill\"}") == 1));
        drop(push.join().unwrap());
    }
}

// Another session must never read what a run that died has left.
#[test]
fn what_a_former_run_has_left_is_gone_after_the_start() {
    let mut node = Node::start("mio", |_| {});
    let folder = node.config.spill_folder();
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("0-1.spill"), "what somebody said").unwrap();
    node.restart();
    assert!(until(|| std::fs::read_dir(&folder).unwrap().count() == 0));
}
