//! The servers under load, each in processes of its own on the measured core: Weir, and Kamailio as Debian packages it.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::scripts::{DOMAIN, PASSWORD, USERS};
use super::wires::Wire;
use crate::rtp::clock::{self, Who};
use crate::rtp::rtpengine::Rtpengine;

const START: Duration = Duration::from_secs(20);

/// A server that runs; it ends with the value.
pub(super) struct Server {
    pub(super) at: SocketAddr,
    pub(super) who: Vec<Who>,
    child: Child,
    _media: Option<Rtpengine>,
    _folder: tempfile::TempDir,
}

impl Server {
    /// The process of Weir.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its own children end with it when it is asked to.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

/// Kamailio's version, when it is there.
pub(super) fn kamailio_version() -> Option<String> {
    let told = Command::new("kamailio").arg("-v").output().ok()?;
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    Some(text.lines().next()?.trim().trim_start_matches("version: ").to_owned())
}

/// What a node is like, beside what all have alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    /// What control remembers is on the disk and synchronised; else in a folder in memory.
    pub(super) durable: bool,
    /// What the phones speak.
    pub(super) wire: Wire,
    /// Users who may register.
    pub(super) users: u64,
}

impl Setup {
    pub(super) const PLAIN: Setup = Setup { durable: false, wire: Wire::Udp, users: USERS };
}

/// Both processes of Weir in one.
pub(super) fn weir(core: usize, setup: Setup) -> anyhow::Result<Server> {
    let memory = Path::new("/dev/shm");
    let folder =
        if setup.durable || !memory.exists() { tempfile::tempdir()? } else { tempfile::tempdir_in(memory)? };
    let at = free()?;
    let mut text = format!(
        "folder = {:?}\n[metrics]\non = false\n[store]\nsync = \"{}\"\n[service.node]\ndomains = [\"{DOMAIN}\"]\n\
         [service.identity]\nregistered_flow_suffices = \"always\"\n{LIMITS}\
         [[sip.listeners]]\ntransport = \"udp\"\naddress = \"{at}\"\n",
        folder.path().join("weir"),
        if setup.durable { "full" } else { "process" }
    );
    let served = match setup.wire {
        Wire::Udp => at,
        wire => {
            let at = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
            text += &format!("[[sip.listeners]]\ntransport = \"{}\"\naddress = \"{at}\"\n", wire.name());
            at
        }
    };
    for user in 0..setup.users {
        text += &format!(
            "[[service.subscribers]]\naddress = \"sip:u{user}@{DOMAIN}\"\npassword = \"{PASSWORD}\"\n"
        );
    }
    let file = folder.path().join("control.toml");
    std::fs::write(&file, text)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("control").arg(&file).arg(core.to_string());
    let child = pinned(command, core)?;
    let who = vec![Who::Process(child.id())];
    let mut server = up(Server { at, who, child, _media: None, _folder: folder })?;
    server.at = served;
    Ok(server)
}

/// A transaction over UDP is remembered for half a minute (RFC 3261 §17.2.2), so a rate of thousands a second needs more of
/// them than a node allows that nobody has told of it.
const LIMITS: &str = "[sip.stack]\nserver_transactions_max = 1000000\nclient_transactions_max = 1000000\n\
    [sip.limits]\nconnections_max = 16000\nconnections_per_address_max = 16000\n\
    [service.limits]\nbindings_max = 200000\ntimers_max = 1000000\n";

/// What [`weir`] starts: control and its data plane, until the process is ended.
pub(crate) fn be_weir(file: &Path, core: usize) -> anyhow::Result<()> {
    let config = controld::Config::parse(&std::fs::read_to_string(file)?)?;
    let mut plane = crate::rtp::weir::Setup::new("uring", core).config(&config.folder);
    // The calls here are over at once: their ports are wanted again sooner than a long call's.
    plane.rtp.port_rest_ms = 100;
    let _plane = dataplaned::start(plane)?;
    controld::run(config, controld::Shutdown::new())
}

/// What a Kamailio does beside registering and passing on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Beside {
    /// Nothing.
    Nothing,
    /// rtpengine on the same core anchors the calls' audio.
    Media,
    /// Registrations are written through to a database of SQLite, on the disk.
    Database,
}

/// Where Debian has the tables of [`Beside::Database`] (package kamailio-sqlite-modules).
const TABLES: [&str; 2] = ["standard-create.sql", "usrloc-create.sql"];

const SCHEMA: &str = "/usr/share/kamailio/db_sqlite";

/// A registrar and stateful proxy.
pub(super) fn kamailio(core: usize, beside: Beside) -> anyhow::Result<Server> {
    let folder = tempfile::tempdir()?;
    let at = free()?;
    let media = if beside == Beside::Media { Some(Rtpengine::start(core)?) } else { None };
    let mut text = include_str!("kamailio.cfg").replace("PORT", &at.port().to_string());
    if let Some(media) = &media {
        text = format!(
            "#!KAMAILIO\n#!define WITH_MEDIA\n{}",
            text.replace("RTPENGINE", &media.at()?.to_string())
        );
    }
    if beside == Beside::Database {
        let database = folder.path().join("kamailio.sqlite");
        for name in TABLES {
            let sql = std::fs::File::open(Path::new(SCHEMA).join(name))?;
            let made = Command::new("sqlite3").arg(&database).stdin(sql).stdout(Stdio::null()).status()?;
            anyhow::ensure!(made.success(), "the database of Kamailio");
        }
        text = format!(
            "#!KAMAILIO\n#!define WITH_DATABASE\n{}",
            text.replace("DATABASE_FILE", &database.to_string_lossy())
        );
    }
    let file = folder.path().join("kamailio.cfg");
    std::fs::write(&file, text)?;
    let mut command = Command::new("kamailio");
    command.args(["-DD", "-E", "-m", "256", "-M", "16", "-f"]).arg(&file).arg("-Y").arg(folder.path());
    let child = pinned(command, core)?;
    let mut who = vec![Who::Family(child.id())];
    who.extend(media.as_ref().map(|media| Who::Process(media.id())));
    up(Server { at, who, child, _media: media, _folder: folder })
}

/// A child is pinned where the thread that made it is.
fn pinned(mut command: Command, core: usize) -> anyhow::Result<Child> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let made = std::thread::spawn(move || {
        clock::pin(core);
        command.spawn()
    });
    Ok(made.join().map_err(|_| anyhow::anyhow!("no thread"))??)
}

fn free() -> anyhow::Result<SocketAddr> {
    Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Waits until it answers.
fn up(mut server: Server) -> anyhow::Result<Server> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let own = socket.local_addr()?;
    let began = Instant::now();
    for n in 0.. {
        let text = format!(
            "REGISTER sip:{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKup{n};rport\r\nMax-Forwards: 70\r\n\
             From: <sip:u0@{DOMAIN}>;tag=up{n}\r\nTo: <sip:u0@{DOMAIN}>\r\nCall-ID: up{n}\r\nCSeq: 1 REGISTER\r\n\
             Contact: <sip:u0@{own}>\r\nContent-Length: 0\r\n\r\n"
        );
        let _ = socket.send_to(text.as_bytes(), server.at);
        if socket.recv(&mut [0; 2048]).is_ok() {
            break;
        }
        anyhow::ensure!(server.child.try_wait()?.is_none(), "the server ended");
        anyhow::ensure!(began.elapsed() < START, "the server does not answer");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(server)
}
