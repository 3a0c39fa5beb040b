//! A node in this process: real sockets on loopback, control and a data plane beside it, devices that are `ue`'s.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ue::{Account, Answering, Counters, Device, Event, Identity, Transport};

/// The domain that it serves.
pub const DOMAIN: &str = "weir.example";
/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long the ports of what ended stay taken.
const SETTLE: Duration = Duration::from_millis(500);

const TRANSPORTS: [controld::Transport; 3] =
    [controld::Transport::Udp, controld::Transport::Tcp, controld::Transport::Tls];

/// What one suite's nodes differ in from another's.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The subscribers.
    pub users: &'static [&'static str],
    /// The first of a thousand RTP ports: suites run at the same time.
    pub rtp_first: u16,
    /// More of control's configuration.
    pub more: &'static str,
}

/// Control and a data plane.
pub struct Node {
    settings: Settings,
    /// The data plane shows its metrics.
    measured: bool,
    folder: tempfile::TempDir,
    control: Option<controld::Running>,
    dataplane: Option<dataplaned::Running>,
}

impl Node {
    fn start(settings: Settings, measured: bool) -> Node {
        let folder = tempfile::tempdir().unwrap();
        let dataplane = dataplane(settings, measured, folder.path());
        let control = control(settings, folder.path(), [0; 3]);
        let node = Node { settings, measured, folder, control: Some(control), dataplane: Some(dataplane) };
        // Before that a call is answered 503.
        node.await_link();
        node
    }

    /// Waits until control has a data plane, as its metrics say.
    fn await_link(&self) {
        let metrics = self.control.as_ref().unwrap().addresses().metrics.unwrap();
        let began = Instant::now();
        loop {
            let mut stream = TcpStream::connect(metrics).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
            let mut page = String::new();
            let _ = stream.read_to_string(&mut page);
            if page.lines().any(|line| line == "weir_control_dataplane_link_up 1") {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "control found no data plane");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn sip(&self, transport: controld::Transport) -> SocketAddr {
        self.control.as_ref().unwrap().addresses().sip(transport).unwrap()
    }

    /// Where its MSRP listeners are, by TCP and by TLS.
    pub fn msrp(&self) -> (SocketAddr, SocketAddr) {
        let (plain, secure) = self.dataplane.as_ref().unwrap().addresses().msrp[0];
        (plain, secure.unwrap())
    }

    /// The value of a line of the data plane's metrics; 0 when it has none. Of a node of [`run_measured`].
    pub fn dataplane_metric(&self, line: &str) -> u64 {
        let metrics = self.dataplane.as_ref().unwrap().addresses().metrics.unwrap();
        let mut stream = TcpStream::connect(metrics).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut page = String::new();
        let _ = stream.read_to_string(&mut page);
        let value = page.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
        value.and_then(|v| v.parse::<f64>().ok()).unwrap_or(0.0) as u64
    }

    /// Where it takes SIP by UDP.
    pub fn sip_udp(&self) -> SocketAddr {
        self.sip(controld::Transport::Udp)
    }

    /// Control ends and begins anew on the same ports, with what it wrote down and no more. It brings its own
    /// runtime, so a thread of its own does it.
    pub fn restart_control(mut self) -> Node {
        let ports = TRANSPORTS.map(|transport| self.sip(transport).port());
        drop(self.control.take());
        std::thread::sleep(SETTLE);
        self.control = Some(control(self.settings, self.folder.path(), ports));
        self
    }

    /// The data plane ends, its tables with it, and another one begins.
    pub fn restart_dataplane(mut self) -> Node {
        drop(self.dataplane.take());
        std::thread::sleep(SETTLE);
        self.dataplane = Some(dataplane(self.settings, self.measured, self.folder.path()));
        self
    }

    /// A registered device of a user, called `name`.
    pub async fn device(&self, user: &str, name: &str, transport: Transport, answering: Answering) -> Device {
        self.device_as(user, name, transport, answering, |_| {}).await
    }

    /// The same with a change of its account.
    pub async fn device_as(
        &self,
        user: &str,
        name: &str,
        transport: Transport,
        answering: Answering,
        change: impl FnOnce(&mut Account),
    ) -> Device {
        let side = match transport {
            Transport::Udp => controld::Transport::Udp,
            Transport::Tcp => controld::Transport::Tcp,
            _ => controld::Transport::Tls,
        };
        let mut entropy = ue::system_entropy();
        let password = password(user);
        let mut account = Account::new(user, DOMAIN, &password, self.sip(side), transport, &mut entropy);
        account.name = name.to_owned();
        account.answering = answering;
        account.chat_tls = false;
        change(&mut account);
        let identity = Arc::new(Identity::generate(&["localhost"]).unwrap());
        let device = Device::start(account, Arc::new(Counters::default()), identity, entropy).await.unwrap();
        device.register().await.unwrap();
        device
    }
}

/// Runs a test with a node of its own.
pub fn run(settings: Settings, test: impl AsyncFnOnce(Node)) {
    run_node(Node::start(settings, false), test);
}

/// The same with one whose data plane shows its metrics.
pub fn run_measured(settings: Settings, test: impl AsyncFnOnce(Node)) {
    run_node(Node::start(settings, true), test);
}

fn run_node(node: Node, test: impl AsyncFnOnce(Node)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test(node));
}

/// Waits until a device tells something, or fails with all that it told.
pub async fn until<T>(device: &Device, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
    match device.log().wait(0, PATIENCE, pick).await {
        Some(found) => found,
        None => panic!("{}: {what} in {:#?}", device.name(), device.log().since(0)),
    }
}

/// The password of a user.
pub fn password(user: &str) -> String {
    format!("{user}-secret")
}

/// Control in that folder, listening on those ports.
fn control(settings: Settings, folder: &Path, ports: [u16; 3]) -> controld::Running {
    // That the machine is busy with other tests is no overload.
    let mut text = format!(
        "folder = \"{}\"\n[metrics]\naddress = \"127.0.0.1:0\"\n[sip.overload]\ntarget_ms = 10000\nwait_max_ms = 20000\n",
        folder.display()
    );
    for (transport, port) in TRANSPORTS.into_iter().zip(ports) {
        let transport = transport.label();
        let _ =
            writeln!(text, "[[sip.listeners]]\ntransport = \"{transport}\"\naddress = \"127.0.0.1:{port}\"");
    }
    for user in settings.users {
        let password = password(user);
        let _ = writeln!(
            text,
            "[[service.subscribers]]\naddress = \"sip:{user}@{DOMAIN}\"\npassword = \"{password}\""
        );
    }
    text += settings.more;
    controld::start(controld::Config::parse(&text).unwrap(), controld::Shutdown::new()).unwrap()
}

fn dataplane(settings: Settings, measured: bool, folder: &Path) -> dataplaned::Running {
    let (folder, first) = (folder.display(), settings.rtp_first);
    let metrics = if measured { "address = \"127.0.0.1:0\"" } else { "on = false" };
    let text = format!(
        "folder = \"{folder}\"\n[driver]\nkind = \"mio\"\n[metrics]\n{metrics}\n[msrp]\nport = 0\n\
         [msrp.relay]\non = true\nplain = true\nreach = [\"127.0.0.0/8\"]\n\
         [limits]\nslow_ms = 10000\n[rtp]\nport_first = {first}\nport_last = {}\n",
        first + 999
    );
    dataplaned::start(toml::from_str(&text).unwrap()).unwrap()
}
