//! Kamailio with its `msrp` module as a relay (RFC 4976) between two clients, as Debian packages it, on the measured core.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::auth::{self, Credentials};
use super::load::Place;
use super::words::Ends;
use crate::rtp::bare::Running;
use crate::rtp::clock::{self, Who};

const PROGRAM: &str = "kamailio";
const MODULES: [&str; 2] = ["/usr/lib/x86_64-linux-gnu/kamailio/modules", "/usr/lib/kamailio/modules"];
const START: Duration = Duration::from_secs(20);

/// The server; ended when dropped.
struct Kamailio {
    child: Child,
    _folder: tempfile::TempDir,
}

/// Its version, when it and the module are there.
pub(crate) fn version() -> Option<String> {
    let has_module = MODULES.iter().any(|folder| std::path::Path::new(folder).join("msrp.so").exists());
    let told = Command::new(PROGRAM).arg("-v").output().ok().filter(|_| has_module)?;
    String::from_utf8_lossy(&told.stdout)
        .lines()
        .next()
        .map(|line| line.trim().trim_start_matches("version: ").to_owned())
}

/// Starts it, with [`auth::pairs`] of clients.
pub(crate) fn relay(clients: usize, core: usize) -> anyhow::Result<(Running, Place)> {
    let folder = tempfile::tempdir()?;
    let at = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let file = folder.path().join("relay.cfg");
    let text = include_str!("kamailio-relay.cfg").replace("PORT", &at.port().to_string());
    std::fs::write(&file, text)?;
    let mut command = Command::new(PROGRAM);
    command.args(["-DD", "-E", "-m", "64", "-f"]).arg(&file).arg("-Y").arg(folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // A child is pinned where the thread that made it is.
    let made = std::thread::spawn(move || {
        clock::pin(core);
        command.spawn()
    });
    let child = made.join().map_err(|_| anyhow::anyhow!("no thread"))??;
    let server = Kamailio { child, _folder: folder };
    let who = Credentials { user: "ann".to_owned(), password: "1234".to_owned() };
    let start = Instant::now();
    // It listens before its workers are there, and drops what comes until then.
    while auth::connect(at, &Ends::client(0), &who).is_err() {
        anyhow::ensure!(start.elapsed() < START, "kamailio does not answer");
        std::thread::sleep(Duration::from_millis(50));
    }
    let (streams, ends) = auth::pairs(at, clients, &who)?;
    let id = server.child.id();
    let running = Running::other(vec![at], Who::Family(id), Box::new(server));
    Ok((running, Place { at, ends, tls: None, binds: false, streams }))
}

impl Drop for Kamailio {
    fn drop(&mut self) {
        // Its own children end with it when it is asked to.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}
