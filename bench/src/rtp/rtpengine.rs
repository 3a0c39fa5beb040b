//! rtpengine, as Debian packages it, in user space on the measured core, and as much of its ng protocol as a call needs:
//! a cookie and a bencoded dictionary in one datagram (its own documentation, "The ng Control Protocol").

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::bare::Running;
use super::clock;

const PROGRAM: &str = "rtpengine";
/// Beside the ports of our own.
const PORTS: (u16, u16) = (20_000, 31_999);
const START: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(2);

/// The server; ended when dropped.
pub(crate) struct Rtpengine {
    child: Child,
    control: UdpSocket,
    cookie: u64,
}

/// Its version, when it is there.
pub(crate) fn version() -> Option<String> {
    let told = Command::new(PROGRAM).arg("--version").output().ok()?;
    let words = [told.stdout, told.stderr].concat();
    String::from_utf8_lossy(&words).lines().next().map(|line| line.trim().to_owned())
}

/// A call for each pair of ends, on one core with one thread for media.
pub(crate) fn relay(ends: &[SocketAddr], core: usize) -> anyhow::Result<Running> {
    let mut server = Rtpengine::start(core)?;
    let mut entries = Vec::new();
    for (call, pair) in ends.chunks_exact(2).enumerate() {
        let &[caller, called] = pair else { continue };
        // What the offer is answered with is where the called side sends, and the other way round.
        let for_called = server.say("offer", call, caller)?;
        let for_caller = server.say("answer", call, called)?;
        entries.extend([for_caller, for_called]);
    }
    Ok(Running::rtpengine(entries, server))
}

impl Rtpengine {
    pub(crate) fn start(core: usize) -> anyhow::Result<Self> {
        let at = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut command = Command::new(PROGRAM);
        command
            .args(["--config-file=none", "--table=-1", "--interface=127.0.0.1", "--foreground"])
            .args(["--log-stderr", "--log-level=1", "--num-threads=1", "--delete-delay=0"])
            .arg(format!("--listen-ng={at}"))
            .args([format!("--port-min={}", PORTS.0), format!("--port-max={}", PORTS.1)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // A child is pinned where the thread that made it is.
        let made = std::thread::spawn(move || {
            clock::pin(core);
            command.spawn()
        });
        let child = made.join().map_err(|_| anyhow::anyhow!("no thread"))??;
        let control = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        control.connect(at)?;
        let mut server = Rtpengine { child, control, cookie: 0 };
        server.control.set_read_timeout(Some(Duration::from_millis(50)))?;
        let start = Instant::now();
        while server.ask("d7:command4:pinge").is_err() {
            anyhow::ensure!(start.elapsed() < START, "rtpengine does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        server.control.set_read_timeout(Some(ANSWER))?;
        Ok(server)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where it is asked.
    pub(crate) fn at(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.control.peer_addr()?)
    }

    fn ask(&mut self, body: &str) -> anyhow::Result<Vec<u8>> {
        self.cookie += 1;
        self.control.send(format!("{} {body}", self.cookie).as_bytes())?;
        let mut answer = vec![0; 65_536];
        let n = self.control.recv(&mut answer)?;
        answer.truncate(n);
        Ok(answer)
    }

    /// An offer or an answer of an end; where the other side is to send.
    fn say(&mut self, command: &str, call: usize, end: SocketAddr) -> anyhow::Result<SocketAddr> {
        let sdp = format!(
            "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\na=rtcp-mux\r\n",
            ip = end.ip(),
            port = end.port()
        );
        let mut body = "d".to_owned();
        let call = format!("call-{call}");
        let mut words = vec![
            ("ICE", "remove"),
            ("call-id", call.as_str()),
            ("command", command),
            ("from-tag", "a"),
            ("sdp", sdp.as_str()),
        ];
        if command == "answer" {
            words.push(("to-tag", "b"));
        }
        for (key, value) in words {
            body += &format!("{}:{key}{}:{value}", key.len(), value.len());
        }
        let answer = self.ask(&(body + "e"))?;
        let answer = String::from_utf8_lossy(&answer);
        let port = answer.split("m=audio ").nth(1).and_then(|rest| rest.split(' ').next());
        let port: u16 = port.with_context(|| format!("no port in {answer}"))?.parse()?;
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }
}

impl Drop for Rtpengine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
