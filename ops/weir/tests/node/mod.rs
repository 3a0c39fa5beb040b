//! `weir up` in a folder of its own, for tests that look at the whole node from outside.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use ue::{Account, Counters, Device, Identity, Transport, system_entropy};

pub(crate) const WEIR: &str = env!("CARGO_BIN_EXE_weir");
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Who is there; the password of each is its name.
const USERS: [&str; 4] = ["ann", "bob", "carol", "dave"];

/// Both processes, supervised.
pub(crate) struct Node {
    pub(crate) up: Child,
    pub(crate) folder: tempfile::TempDir,
    said: Arc<Mutex<Vec<String>>>,
}

/// An address of the loopback network that no other node of this host has now: nothing strays here that was meant
/// for one that is gone.
fn own_address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., a, b] = std::process::id().to_be_bytes();
    IpAddr::from([127, 64 + (a >> 2), b, NEXT.fetch_add(1, Ordering::Relaxed)])
}

/// The defaults, with everything on one address, and users.
fn configuration(folder: &Path, ip: IpAddr) -> toml::Table {
    let out = Command::new(WEIR).arg("config").output().unwrap();
    let mut config: toml::Table = String::from_utf8(out.stdout).unwrap().parse().unwrap();
    let text = |text: String| toml::Value::String(text);
    for process in ["control", "dataplane"] {
        config[process]["folder"] = text(folder.display().to_string());
        let metrics =
            config[process]["metrics"]["address"].as_str().unwrap().replace("127.0.0.1", &ip.to_string());
        config[process]["metrics"]["address"] = text(metrics);
    }
    let listener = |transport: &str, port: u16| {
        let address = SocketAddr::new(ip, port);
        toml::Value::Table(format!("transport = \"{transport}\"\naddress = \"{address}\"").parse().unwrap())
    };
    config["control"]["sip"]["listeners"] =
        toml::Value::Array(vec![listener("udp", 5060), listener("tcp", 5060), listener("tls", 5061)]);
    // That the machine is busy with other tests is no overload.
    for (key, ms) in [("target_ms", 10_000), ("wait_max_ms", 20_000)] {
        config["control"]["sip"]["overload"][key] = toml::Value::Integer(ms);
    }
    // A process that is killed loses nothing that the kernel has; a busy disk is not what is tested.
    config["control"]["store"]["sync"] = text("process".to_owned());
    config["dataplane"]["msrp"]["address"] = text(ip.to_string());
    config["dataplane"]["rtp"]["interfaces"][0]["address"] = text(ip.to_string());
    let user = |name: &&str| {
        let keys = format!("address = \"sip:{name}@weir.example\"\nname = \"{name}\"\npassword = \"{name}\"");
        toml::Value::Table(keys.parse().unwrap())
    };
    config["control"]["service"]["subscribers"] = toml::Value::Array(USERS.iter().map(user).collect());
    config
}

impl Node {
    /// A node with this driver, up; `change` edits its configuration.
    pub(crate) fn start(driver: &str, change: impl FnOnce(&mut toml::Table)) -> Node {
        let node = Node::launch(driver, change);
        node.wait("both processes", || node.is_linked());
        node
    }

    /// The same, not waited for.
    pub(crate) fn launch(driver: &str, change: impl FnOnce(&mut toml::Table)) -> Node {
        let (folder, ip) = (tempfile::tempdir().unwrap(), own_address());
        let mut config = configuration(folder.path(), ip);
        change(&mut config);
        let file = folder.path().join("weir.toml");
        std::fs::write(&file, config.to_string()).unwrap();
        let mut up = Command::new(WEIR)
            .args(["up", "--driver", driver, "--config"])
            .arg(file)
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let (lines, heard) = (BufReader::new(up.stdout.take().unwrap()).lines(), Arc::clone(&said));
        std::thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .for_each(|line| heard.lock().unwrap_or_else(PoisonError::into_inner).push(line))
        });
        Node { up, folder, said }
    }

    pub(crate) fn status(&self) -> Option<Value> {
        let out = Command::new(WEIR)
            .args(["status", "--json", "--folder"])
            .arg(self.folder.path())
            .output()
            .ok()?;
        serde_json::from_slice(&out.stdout).ok()
    }

    pub(crate) fn is_linked(&self) -> bool {
        self.status().is_some_and(|status| status["dataplane"]["linked"] == true)
    }

    pub(crate) fn wait(&self, what: &str, done: impl Fn() -> bool) {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < PATIENCE, "{what}: not in time; said: {:?}", self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn said(&self) -> Vec<String> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What runs wrote down how.
    pub(crate) fn config(&self) -> toml::Table {
        std::fs::read_to_string(self.folder.path().join("running.toml")).unwrap().parse().unwrap()
    }

    /// Where SIP is spoken over a transport.
    pub(crate) fn server(&self, transport: Transport) -> SocketAddr {
        let config = self.config();
        let listeners = config["control"]["sip"]["listeners"].as_array().unwrap();
        let wanted = transport.label();
        let of = |l: &&toml::Value| l["transport"].as_str() == Some(wanted);
        listeners.iter().find(of).unwrap()["address"].as_str().unwrap().parse().unwrap()
    }

    /// A device of a user, registered.
    pub(crate) async fn device(
        &self,
        user: &str,
        transport: Transport,
        change: impl FnOnce(&mut Account),
    ) -> Device {
        let mut entropy = system_entropy();
        let server = self.server(transport);
        let mut account = Account::new(user, "weir.example", user, server, transport, &mut entropy);
        account.rtcp_every = Duration::from_secs(1);
        change(&mut account);
        let identity = Arc::new(Identity::generate(&["ue.invalid"]).unwrap());
        let device =
            Device::start(account, Arc::new(Counters::default()), identity, entropy.child()).await.unwrap();
        device.register().await.unwrap();
        device
    }

    /// What the metrics endpoints of both processes say: what `curl` shows.
    pub(crate) fn metrics(&self) -> String {
        let config = self.config();
        let address = |process: &str| config[process]["metrics"]["address"].as_str().unwrap().to_owned();
        ["control", "dataplane"].map(|process| scrape(&address(process))).concat()
    }
}

fn scrape(address: &str) -> String {
    let began = Instant::now();
    let mut stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{address}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("{:#?}\n{}", self.said(), lines[lines.len().saturating_sub(60)..].join("\n"));
        }
        let _ = Command::new("kill").arg(self.up.id().to_string()).status();
        let _ = self.up.wait();
    }
}
