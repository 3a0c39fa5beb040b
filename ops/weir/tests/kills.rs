//! Either process of a node is killed with SIGKILL while calls run: no packet of a running call is lost when
//! control dies, and calls resume on the same ports when the data plane dies.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of a test")]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ue::audio::voice;
use ue::{Account, Call, Counters, Device, Event, Identity, SessionId, Side, Transport, system_entropy};

const CALLS: usize = 25;
const DOMAIN: &str = "weir.example";

/// `weir up` in a folder of its own.
struct Up {
    process: Child,
    folder: tempfile::TempDir,
}

impl Up {
    fn start() -> Up {
        let folder = tempfile::tempdir().unwrap();
        let log = fs::File::create(folder.path().join("up.log")).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(["up", "--folder"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let up = Up { process, folder };
        up.wait_linked();
        up
    }

    fn status(&self) -> Option<serde_json::Value> {
        let output = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(["status", "--json", "--folder"])
            .arg(self.folder.path())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        serde_json::from_slice(&output.stdout).ok()
    }

    fn wait_linked(&self) {
        let began = Instant::now();
        let linked = |s: &serde_json::Value| {
            let at = |p: &str| s.pointer(p).and_then(serde_json::Value::as_bool);
            at("/dataplane/linked").or(at("/control/dataplane/linked")) == Some(true)
        };
        while !self.status().is_some_and(|s| linked(&s)) {
            assert!(began.elapsed() < Duration::from_secs(30), "not ready:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("up.log")).unwrap_or_default()
    }

    fn sip(&self) -> SocketAddr {
        let text = fs::read_to_string(self.folder.path().join("running.toml")).unwrap();
        let config: toml::Table = text.parse().unwrap();
        let listeners = config["control"]["sip"]["listeners"].as_array().unwrap();
        let udp = listeners.iter().find(|l| l["transport"].as_str() == Some("udp")).unwrap();
        udp["address"].as_str().unwrap().parse().unwrap()
    }

    /// The process id of a role: the child of `weir up` that was started as `weir ROLE`.
    fn child(&self, role: &str) -> Option<u32> {
        let parent = self.process.id();
        fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok()).find(
            |pid| {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
                let (state, of) = (fields.next(), fields.next().and_then(|p| p.parse::<u32>().ok()));
                let line =
                    fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).unwrap_or_default();
                of == Some(parent)
                    && state != Some("Z")
                    && line.split(|b| *b == 0).nth(1) == Some(role.as_bytes())
            },
        )
    }

    fn kill(&self, role: &str) {
        let pid = self.child(role).unwrap_or_else(|| panic!("no {role} runs:\n{}", self.log()));
        assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
        let began = Instant::now();
        while self.child(role).is_none_or(|now| now == pid) {
            assert!(began.elapsed() < Duration::from_secs(20), "{role} does not come back:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(10) && self.process.try_wait().is_ok_and(|s| s.is_none())
        {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn device(user: &str, server: SocketAddr) -> Device {
    let mut entropy = system_entropy();
    let account = Account::new(user, DOMAIN, user, server, Transport::Udp, &mut entropy);
    let identity = Arc::new(Identity::generate(&[user]).unwrap());
    let device = Device::start(account, Arc::new(Counters::default()), identity, entropy).await.unwrap();
    device.register().await.unwrap();
    device
}

/// Both ends of one call: who, which session.
struct Pair {
    caller: (usize, SessionId),
    callee: (usize, SessionId),
}

/// 25 calls between three pairs of users, audio both ways: 50 streams of 50 packets a second.
async fn calls(devices: &[Device], count: usize) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for call in 0..count {
        let (from, to) = (call % 3 * 2, call % 3 * 2 + 1);
        let mark = devices[to].log().mark();
        let session = devices[from].invite(Call::audio(devices[to].address())).await.unwrap();
        let began = Instant::now();
        let answered = loop {
            let up = |e| if let Event::Up { session } = e { Some(session) } else { None };
            if let Some(new) = devices[to].log().since(mark).into_iter().find_map(up) {
                break new;
            }
            assert!(began.elapsed() < Duration::from_secs(5), "the callee has no session");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        pairs.push(Pair { caller: (from, session), callee: (to, answered) });
    }
    pairs
}

async fn play_all(devices: &[Device], pairs: &[Pair], seconds: f64) {
    let samples = Arc::new(voice(1, seconds));
    for (number, pair) in pairs.iter().enumerate() {
        let source = u16::try_from(number * 2).unwrap();
        devices[pair.caller.0].play(pair.caller.1, samples.clone(), source).await.unwrap();
        devices[pair.callee.0].play(pair.callee.1, samples.clone(), source + 1).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_of_control_lose_no_packet_of_fifty_streams() {
    let up = Up::start();
    let server = up.sip();
    let mut devices = Vec::new();
    for user in ["ann", "bob", "carol", "dave", "eve", "frank"] {
        devices.push(device(user, server).await);
    }
    let pairs = calls(&devices, CALLS).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    play_all(&devices, &pairs, 120.0).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    for _ in 0..10 {
        tokio::task::block_in_place(|| {
            up.kill("control");
            up.wait_linked();
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let (mut streams, mut heard, mut lost) = (0, 0, 0);
    for pair in &pairs {
        for (who, session) in [pair.caller, pair.callee] {
            let stats = devices[who].audio_stats(session).await.unwrap();
            assert!(stats.heard() > 0, "a stream is silent");
            streams += 1;
            heard += stats.heard();
            lost += stats.lost();
        }
    }
    println!("{streams} streams, {heard} packets heard, {lost} lost over ten kills of control");
    assert_eq!((streams, lost), (2 * CALLS, 0));
    // Control has its sessions again: it can end each of them.
    for pair in &pairs {
        devices[pair.caller.0].hang_up(pair.caller.1, 200).await.unwrap();
    }
    let began = Instant::now();
    let told = || -> usize {
        let by_them = |e: &Event| matches!(e, Event::Ended { by: Side::Them, .. });
        devices.iter().map(|d| d.log().count(by_them)).sum()
    };
    while told() < CALLS {
        assert!(began.elapsed() < Duration::from_secs(10), "a callee was not told of the end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rtp_resumes_on_the_same_ports_when_the_data_plane_died() {
    let up = Up::start();
    let server = up.sip();
    let mut devices = Vec::new();
    for user in ["ann", "bob", "carol", "dave", "eve", "frank"] {
        devices.push(device(user, server).await);
    }
    let pairs = calls(&devices, 3).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    play_all(&devices, &pairs, 60.0).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    tokio::task::block_in_place(|| up.kill("dataplane"));
    let restarted = Instant::now();
    let before = heard(&devices, &pairs).await;
    loop {
        let now = heard(&devices, &pairs).await;
        if now.iter().zip(&before).all(|(now, before)| now > &(before + 5)) {
            break;
        }
        let waited = restarted.elapsed();
        assert!(waited < Duration::from_secs(2), "no audio {waited:?} after the restart:\n{}", up.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("audio was back {:?} after the restart of the data plane", restarted.elapsed());
    for pair in &pairs {
        devices[pair.caller.0].hang_up(pair.caller.1, 200).await.unwrap();
    }
}

async fn heard(devices: &[Device], pairs: &[Pair]) -> Vec<u64> {
    let mut all = Vec::new();
    for pair in pairs {
        for (who, session) in [pair.caller, pair.callee] {
            all.push(devices[who].audio_stats(session).await.unwrap().heard());
        }
    }
    all
}
