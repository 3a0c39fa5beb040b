//! Chromium, headless, driven by ChromeDriver (W3C WebDriver over HTTP), and the pages that it opens.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

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

/// What is at a path: its type and its octets.
type Page = fn(&str) -> Option<(&'static str, Vec<u8>)>;

/// Pages, to whoever asks: a browser opens its camera only for a page of a host. Gives the port.
pub fn serve(page: Page) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // A browser opens connections that it may never use: one of them must not hold the others up.
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                let read = stream.read(&mut request).unwrap_or(0);
                let line = String::from_utf8_lossy(&request[..read]).into_owned();
                let path = line.split([' ', '?']).nth(1).unwrap_or("/").to_owned();
                let (status, (kind, octets)) = match page(&path) {
                    Some(found) => ("200 OK", found),
                    None => ("404 Not Found", ("text/plain", Vec::new())),
                };
                let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nConnection: close");
                let _ = write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n", octets.len());
                let _ = stream.write_all(&octets);
            });
        }
    });
    port
}

/// ChromeDriver, and the browsers that it started.
pub struct Driver {
    process: Child,
    port: u16,
    sessions: Vec<String>,
    folder: tempfile::TempDir,
}

impl Driver {
    pub fn start() -> Driver {
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

    /// A browser with microphone and camera, on a page of a port: its number.
    pub fn open(&mut self, page: u16, path: &str) -> usize {
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
        let url = json!({ "url": format!("http://127.0.0.1:{page}/{path}") }).to_string();
        http(self.port, "POST", &format!("/session/{session}/url"), &url);
        self.sessions.push(session);
        self.sessions.len() - 1
    }

    /// What a promise of the page comes to.
    pub fn run(&self, browser: usize, expression: &str, argument: &str) -> Value {
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
