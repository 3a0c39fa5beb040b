//! A node for the interop suite: `weir up` from the release build with a configuration of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::namespace::Namespace;
use tests::workspace::root;

/// The folder of the build, and of what `tests/interop/run` has fetched.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The binary that `tests/interop/run` built.
pub fn weir() -> PathBuf {
    target().join("release/weir")
}

/// Where a node listens for SIP, by UDP and TCP.
const SIP_PORT: u16 = 15_060;
/// Where it listens for SIP over WebSocket.
const WS_PORT: u16 = 15_064;
/// Where the data plane speaks rtpengine's protocol.
const NG: &str = "127.0.0.1:15063";
const DOMAIN: &str = "example.com";

/// A node that runs; it ends with the value.
pub struct Node {
    process: Child,
    folder: tempfile::TempDir,
    address: &'static str,
}

impl Node {
    /// The pre-defined group of every node here.
    pub const GROUP: &'static str = "book-club";

    /// A node on loopback with the users u0, u1, ... beside ann and bob.
    pub fn start_with_users(count: usize) -> Node {
        Node::start(count, "127.0.0.1", false, Command::new(weir()))
    }

    /// A node that believes identities asserted from loopback.
    pub fn start_trusting_loopback() -> Node {
        Node::start(0, "127.0.0.1", true, Command::new(weir()))
    }

    /// A node inside a namespace, on its address.
    pub fn start_in(host: &Namespace) -> Node {
        let program = weir();
        Node::start(0, Namespace::ADDRESS, false, host.command(program.to_str().expect("a UTF-8 path")))
    }

    fn start(users: usize, address: &'static str, trusting: bool, mut command: Command) -> Node {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("weir.toml");
        fs::write(&file, config(folder.path(), users, address, trusting)).expect("the configuration");
        let log = fs::File::create(folder.path().join("log")).expect("a log");
        command.args(["up", "--config"]).arg(&file).env("RUST_LOG", "warn").stdin(Stdio::null());
        let process =
            command.stdout(log.try_clone().expect("a handle")).stderr(log).spawn().expect("weir runs");
        let node = Node { process, folder, address };
        let began = Instant::now();
        while node.status().pointer("/dataplane/linked") != Some(&Value::Bool(true)) {
            assert!(began.elapsed() < Duration::from_secs(30), "the node is not ready:\n{}", node.log());
            sleep(Duration::from_millis(50));
        }
        node
    }

    /// The domain that it serves.
    pub fn domain(&self) -> &'static str {
        DOMAIN
    }

    /// A user's password.
    pub fn password(&self, user: &str) -> String {
        format!("pw-{user}")
    }

    /// Where it takes SIP by UDP.
    pub fn sip_udp(&self) -> SocketAddr {
        format!("{}:{SIP_PORT}", self.address).parse().expect("an address")
    }

    /// Where it takes SIP over WebSocket.
    pub fn sip_ws(&self) -> String {
        format!("ws://{}:{WS_PORT}", self.address)
    }

    /// What its processes wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// What `weir status --json` says; null when there is no answer.
    pub fn status(&self) -> Value {
        let output = Command::new(weir())
            .args(["status", "--json", "--folder"])
            .arg(self.folder.path())
            .output()
            .expect("weir");
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// The sum of a number over the status, wherever it stands.
    pub fn status_number(&self, key: &str) -> u64 {
        sum(&self.status(), key)
    }

    /// Waits until a number of the status is what it should be.
    pub fn wait_for(&self, key: &str, wanted: u64) {
        let began = Instant::now();
        while self.status_number(key) != wanted {
            let waited = began.elapsed();
            assert!(waited < Duration::from_secs(60), "{key} is {} not {wanted}", self.status_number(key));
            sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(10) && self.process.try_wait().is_ok_and(|s| s.is_none())
        {
            sleep(Duration::from_millis(50));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            println!("the node wrote:\n{}", self.log());
        }
    }
}

fn sum(value: &Value, key: &str) -> u64 {
    match value {
        Value::Object(map) => {
            let inner: u64 = map.iter().filter(|(k, _)| *k != key).map(|(_, v)| sum(v, key)).sum();
            map.get(key).and_then(Value::as_u64).unwrap_or(0) + inner
        }
        Value::Array(items) => items.iter().map(|v| sum(v, key)).sum(),
        _ => 0,
    }
}

fn config(folder: &Path, users: usize, address: &str, trusting: bool) -> String {
    let flows = if users > 0 { "always" } else { "connections" };
    let trusted = if trusting { "\"127.0.0.1\"" } else { "" };
    let folder = folder.display();
    let names =
        ["ann", "bob", "carol"].into_iter().map(str::to_owned).chain((0..users).map(|n| format!("u{n}")));
    let subscribers: String = names
        .map(|name| {
            format!(
                "[[control.service.subscribers]]\naddress = \"sip:{name}@{DOMAIN}\"\npassword = \"pw-{name}\"\n"
            )
        })
        .collect();
    let group = Node::GROUP;
    format!(
        r#"
[control]
folder = "{folder}"
[[control.sip.listeners]]
transport = "udp"
address = "{address}:{SIP_PORT}"
[[control.sip.listeners]]
transport = "tcp"
address = "{address}:{SIP_PORT}"
[[control.sip.listeners]]
transport = "ws"
address = "{address}:{WS_PORT}"
# That the machine is busy with the peers is no overload.
[control.sip.overload]
target_ms = 10000
wait_max_ms = 20000
[control.metrics]
address = "{address}:15061"
[control.service.node]
domains = ["{DOMAIN}"]
[control.service.identity]
trusted_peers = [{trusted}]
# SIPp looks at the first challenge only, and knows MD5 alone; its calls and messages come over UDP from where its
# users are registered.
sha256 = false
registered_flow_suffices = "{flows}"
[[control.service.controlling.groups]]
address = "sip:{group}@{DOMAIN}"
members = ["sip:ann@{DOMAIN}", "sip:bob@{DOMAIN}", "sip:carol@{DOMAIN}"]
{subscribers}
[dataplane]
folder = "{folder}"
[dataplane.ng]
udp = "{NG}"
[dataplane.rtp]
port_first = 20000
port_last = 27999
interfaces = [{{ name = "default", address = "{address}" }}]
[dataplane.msrp]
address = "{address}"
port = 15_855
[dataplane.metrics]
address = "{address}:15062"
"#
    )
}
