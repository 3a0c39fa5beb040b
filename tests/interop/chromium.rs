//! Chromium, headless, as a WebRTC member of an audio and video conference (issue 3, Shows 5): two browsers join the group,
//! each with its fake camera and microphone, and each decodes the other's. A browser speaks no SIP: a `ue` device carries
//! its description in its INVITE, and the answer back to the page. Driven by ChromeDriver (W3C WebDriver over HTTP).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ue::{Account, Answering, Call, Counters, Device, Event, Identity, Transport};

use crate::node::Node;

const PAGE: &str = include_str!("chromium.html");
const PATIENCE: Duration = Duration::from_secs(60);

/// One request, one answer; the body of the answer.
fn http(port: u16, method: &str, path: &str, body: &str) -> Value {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("ChromeDriver");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).expect("sent");
    let mut reader = BufReader::new(stream);
    let mut octets = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a header");
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            octets = value.trim().parse().expect("a length");
        }
    }
    let mut body = vec![0; octets];
    reader.read_exact(&mut body).expect("a body");
    serde_json::from_slice::<Value>(&body).expect("JSON")["value"].take()
}

/// The page, to whoever asks: a browser opens its camera only for a page of a host.
fn serve() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // A browser opens connections that it may never use: one of them must not hold the others up.
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close";
                let _ = write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{PAGE}", PAGE.len());
            });
        }
    });
    port
}

/// ChromeDriver, and the browsers that it started.
struct Driver {
    process: Child,
    port: u16,
    sessions: Vec<String>,
    folder: tempfile::TempDir,
}

impl Driver {
    fn start() -> Driver {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let process = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromium-driver is installed");
        let driver =
            Driver { process, port, sessions: Vec::new(), folder: tempfile::tempdir().expect("a folder") };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < PATIENCE, "ChromeDriver does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        driver
    }

    /// A browser on the page, which shall bundle its lines or not.
    fn open(&mut self, page: u16, bundles: &str) -> usize {
        let data = self.folder.path().join(self.sessions.len().to_string());
        let mut arguments: Vec<String> = [
            "headless",
            "no-sandbox",
            "disable-gpu",
            "disable-quic",
            "no-first-run",
            "disable-background-networking",
            "disable-component-update",
            "disable-sync",
            "use-fake-device-for-media-stream",
            "use-fake-ui-for-media-stream",
            "autoplay-policy=no-user-gesture-required",
            "allow-loopback-in-peer-connection",
        ]
        .map(|word| format!("--{word}"))
        .into();
        arguments.push(format!("--user-data-dir={}", data.display()));
        let wanted =
            json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": { "args": arguments } } } });
        let answer = http(self.port, "POST", "/session", &wanted.to_string());
        let session =
            answer["sessionId"].as_str().unwrap_or_else(|| panic!("no browser: {answer}")).to_owned();
        let url = json!({ "url": format!("http://127.0.0.1:{page}/?{bundles}") }).to_string();
        http(self.port, "POST", &format!("/session/{session}/url"), &url);
        self.sessions.push(session);
        self.sessions.len() - 1
    }

    /// What a promise of the page comes to.
    fn run(&self, browser: usize, expression: &str, argument: &str) -> Value {
        let script = format!(
            "const done = arguments[1]; Promise.resolve().then(() => {expression}).then(done, e => done('failed: ' + e));"
        );
        let body = json!({ "script": script, "args": [argument] }).to_string();
        let session = &self.sessions[browser];
        let value = http(self.port, "POST", &format!("/session/{session}/execute/async"), &body);
        assert!(!value.as_str().is_some_and(|text| text.starts_with("failed")), "{expression}: {value}");
        assert!(value["error"].is_null(), "{expression}: {value}");
        value
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        for session in &self.sessions {
            http(self.port, "DELETE", &format!("/session/{session}"), "");
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn carrier(node: &Node, user: &str) -> Device {
    let mut entropy = ue::system_entropy();
    let password = node.password(user);
    let account = Account::new(user, node.domain(), &password, node.sip_udp(), Transport::Udp, &mut entropy);
    let account = Account { answering: Answering::Refuse(486), ..account };
    let identity = Arc::new(Identity::generate(&["localhost"]).expect("a certificate"));
    let device =
        Device::start(account, Arc::new(Counters::default()), identity, entropy).await.expect("a device");
    device.register().await.expect("registered");
    device
}

/// Joins the group with the browser's description and gives the page the answer.
async fn join(driver: &Driver, browser: usize, device: &Device, group: &str) {
    let offer = driver.run(browser, "offer()", "");
    let offer = offer.as_str().expect("a description").to_owned();
    device.invite(Call::join(group).describing(offer)).await.expect("in the conference");
    let described = |event: &Event| match event {
        Event::Described { sdp, .. } => Some(sdp.clone()),
        _ => None,
    };
    let answer = device.log().wait(0, PATIENCE, described).await.expect("an answer");
    driver.run(browser, "answer(arguments[0])", std::str::from_utf8(&answer).expect("text"));
}

/// Waits until the page says that its transports are connected and that sound and pictures come out of the decoders.
fn decodes(driver: &Driver, browser: usize, transports: usize) -> Value {
    let began = Instant::now();
    loop {
        let stats = driver.run(browser, "stats()", "");
        let number = |of: &str, what: &str| stats[of][what].as_f64().unwrap_or(0.0);
        let connected = stats["transports"]
            .as_array()
            .is_some_and(|all| all.len() == transports && all.iter().all(|state| state == "connected"));
        if connected
            && number("video", "framesDecoded") >= 30.0
            && number("audio", "totalSamplesReceived") - number("audio", "concealedSamples") >= 48_000.0
            && number("audio", "totalAudioEnergy") > 0.0
        {
            return stats;
        }
        assert!(began.elapsed() < PATIENCE, "browser {browser}: {stats:#}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn two_browsers_hear_and_see_each_other_in_a_conference() {
    let node = Node::start_with_users(0);
    let page = serve();
    let mut driver = Driver::start();
    // One sends both its lines over one transport, and would take nothing else; the other knows nothing of bundles.
    let [one, two] = ["max-bundle", "apart"].map(|bundles| driver.open(page, bundles));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let group = format!("sip:{}@{}", Node::GROUP, node.domain());
    // Registered only now: who is called as a member of the group would be asked in twice.
    let devices = runtime.block_on(async {
        let (ann, bob) = (carrier(&node, "ann").await, carrier(&node, "bob").await);
        join(&driver, one, &ann, &group).await;
        join(&driver, two, &bob, &group).await;
        [ann, bob]
    });
    for (browser, transports) in [(one, 1), (two, 2)] {
        let stats = decodes(&driver, browser, transports);
        println!(
            "chromium {browser}: DTLS {} {}, SRTP {}; {} video frames decoded ({}), {} audio samples, energy {}",
            stats["transports"],
            stats["tls"],
            stats["srtp"],
            stats["video"]["framesDecoded"],
            stats["video"]["decoderImplementation"],
            stats["audio"]["totalSamplesReceived"],
            stats["audio"]["totalAudioEnergy"]
        );
    }
    drop(devices);
}
