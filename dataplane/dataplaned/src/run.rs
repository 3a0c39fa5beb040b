//! Putting the process together and taking it down again.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use crossbeam::channel::{Sender, bounded};
use netio::kernel::KernelRelay;
use netio::{Choice, Kind, Tls, Wake};

use crate::config::{Config, KernelRelaySettings, RtpSettings};
use crate::handshakes::{Handshakes, ToHandshakes};
use crate::mail::{Outgoing, ToShard, ToSteward, mailbox};
use crate::metrics::{Endpoint, Metrics};
use crate::names::{self, Names};
use crate::shard::{self, Ends, Plan, Ready};
use crate::spool::{self, Keep, Spool, ToSpool};
use crate::steward::{self, Circles, Door, Identity, Rounds, Steward};
use crate::{Shutdown, certificate};

/// For so long a listener's port is tried: the kernel frees those of a process that died late.
const BIND_PATIENCE: Duration = Duration::from_secs(2);
/// Descriptors for everything that is not media.
const DESCRIPTORS_APART: u64 = 128;
/// Octets that the allocator keeps for each of its arenas; a shard has one.
const KEPT_FREE_BYTES: usize = 8 << 20;

/// Where a run can be reached: what was bound, after port 0 was resolved.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The Unix socket that control connects to.
    pub socket: PathBuf,
    /// Where controls of other hosts connect.
    pub contract: Option<SocketAddr>,
    /// Where the ng protocol is spoken, by UDP and by TCP.
    pub ng: (Option<SocketAddr>, Option<SocketAddr>),
    /// Each shard's MSRP listeners: TCP, and TLS if there is one.
    pub msrp: Vec<(SocketAddr, Option<SocketAddr>)>,
    /// The Prometheus endpoint.
    pub metrics: Option<SocketAddr>,
}

/// A run that is up, on threads of its own. Dropping it ends it and waits.
#[derive(Debug)]
pub struct Running {
    addresses: Addresses,
    driver: String,
    threads: Vec<u64>,
    stop: Arc<AtomicBool>,
    wakes: Vec<Wake>,
    waker: Arc<mio::Waker>,
    spool: Sender<ToSpool>,
    handshakes: Sender<ToHandshakes>,
    names: Names,
    endpoint: Option<Endpoint>,
    joins: Vec<JoinHandle<()>>,
    failed: Arc<AtomicBool>,
}

impl Running {
    /// Where it can be reached.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Which driver moves the packets, and why.
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// The system's ids of the shards' threads.
    pub fn shard_threads(&self) -> &[u64] {
        &self.threads
    }

    /// True once a thread ended by an error.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wakes.iter().for_each(Wake::wake);
        let _ = self.waker.wake();
        let _ = self.spool.send(ToSpool::Stop);
        let _ = self.handshakes.send(ToHandshakes::Stop);
        self.names.stop();
        for join in self.joins.drain(..) {
            let _ = join.join();
        }
        if let Some(endpoint) = self.endpoint.take() {
            endpoint.stop();
        }
        let _ = std::fs::remove_file(&self.addresses.socket);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs a data plane until the switch is thrown.
pub fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    let running = start(config)?;
    while !shutdown.is_triggered() && !running.has_failed() {
        shutdown.wait(Duration::from_millis(200));
    }
    anyhow::ensure!(!running.has_failed(), "a thread of the data plane ended; see the log");
    Ok(())
}

/// Starts a data plane on threads of its own; it is ready when this returns.
pub fn start(config: Config) -> anyhow::Result<Running> {
    config.check()?;
    let _ = netio::keep_free(KEPT_FREE_BYTES);
    std::fs::create_dir_all(&config.folder).with_context(|| config.folder.display().to_string())?;
    let choice = netio::choose(config.driver.kind.parse().map_err(anyhow::Error::msg)?);
    say_driver(&choice, &config);
    let cores = config.cores();
    say_limits(&config, cores.len());

    let tls = if config.msrp.tls { Some(certificate::tls(&config.msrp)?) } else { None };
    let fingerprint = tls.as_ref().map_or(Vec::new(), |tls| tls.fingerprint().to_vec());
    let identity = certificate::dtls(&config.rtp, config.limits.dtls_ms)?;
    let dtls_fingerprint = identity.fingerprint().to_vec();
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    let mut entropy = base::Entropy::from_seed(seed);

    let stop = Arc::new(AtomicBool::new(false));
    let failed = Arc::new(AtomicBool::new(false));
    let (steward_sender, steward_mailbox) = mailbox(config.limits.mailbox_max);
    let (poll, waker) = steward::poll()?;
    let (spool_sender, spool_mailbox) = mailbox(config.spool.packets_max);
    let (handshakes_sender, handshakes_mailbox) = mailbox(config.limits.mailbox_max);
    let (names, names_mailbox) = Names::new();
    let socket = config.socket();
    let listener = steward::listen(&socket)?;
    let remote = remote(&config)?;
    let door = Door::open(&config, entropy.child()).context("the ng protocol's listeners")?;
    let ng = door.as_ref().map(Door::addresses).transpose()?.unwrap_or_default();
    let contract = remote.as_ref().map(steward::Remote::address).transpose()?;

    let kernel = kernel_relay(&config.driver.kernel_relay);
    let own = Arc::new(own_media(&config.rtp)?);
    // Shards: all threads first, then each is given the ends of the others' mailboxes.
    let mut started = Vec::new();
    for (index, core) in cores.iter().enumerate() {
        let shared = Shared {
            config: &config,
            choice: &choice,
            tls: &tls,
            stop: &stop,
            failed: &failed,
            kernel: &kernel,
            own: &own,
        };
        let mut seed = [0; 32];
        entropy.fill(&mut seed);
        started.push(start_shard(&shared, index, cores.len(), *core, seed)?);
    }
    let mut joins = Vec::new();
    let listeners: Vec<_> = started.iter().map(|shard| shard.listeners.clone()).collect();
    let wakes: Vec<Wake> = started.iter().map(|shard| shard.ready.wake.clone()).collect();
    let senders: Vec<Sender<ToShard>> = started.iter().map(|shard| shard.sender.clone()).collect();
    let outgoing = |index: usize| Outgoing::new(senders[index].clone(), wakes[index].clone());
    let to_steward = || Outgoing::new(steward_sender.clone(), Arc::clone(&waker));
    let mut addresses = Addresses { socket, contract, ng, msrp: Vec::new(), metrics: None };
    let driver = started.first().map_or("none", |shard| shard.ready.driver);
    let threads = started.iter().map(|shard| shard.ready.thread).collect();
    for (index, shard) in started.into_iter().enumerate() {
        let peers = (0..senders.len()).map(|peer| (peer != index).then(|| outgoing(peer))).collect();
        let keep = Keep::new(spool_sender.clone());
        let handshakes = Outgoing::new(handshakes_sender.clone(), ());
        let (names, listeners) = (names.clone(), listeners.clone());
        let ends = Ends { steward: to_steward(), peers, keep, handshakes, names, listeners };
        shard.ends.send(ends).map_err(|_| anyhow::anyhow!("a shard ended at its start"))?;
        addresses.msrp.push(shard.msrp);
        joins.push(shard.join);
    }

    let folders = (config.spool_folder(), config.spill_folder());
    let spool = (folders, config.spool.clone(), to_steward(), (0..senders.len()).map(outgoing).collect());
    joins.push(spawn("spool", &failed, move || {
        let (folders, settings, steward, shards) = spool;
        Spool::new(spool::files(), folders, settings, steward, shards).run(&spool_mailbox);
        Ok(())
    })?);

    let running_max = config.limits.legs_max * senders.len();
    let handshakes = Handshakes::new(identity, running_max, (0..senders.len()).map(outgoing).collect());
    joins.push(spawn("handshakes", &failed, move || {
        handshakes.run(&handshakes_mailbox);
        Ok(())
    })?);

    if config.msrp.relay.on {
        let shards = (0..senders.len()).map(outgoing).collect();
        joins.push(spawn("names", &failed, move || {
            names::run(&names_mailbox, shards);
            Ok(())
        })?);
    }

    let metrics = Arc::new(Metrics::new(senders.len(), driver)?);
    if let Some(kernel) = &kernel {
        metrics.kernel(kernel.attached(), config.driver.kernel_relay.flows_max);
    }
    let endpoint = match config.metrics.on {
        true => Some(Endpoint::start(config.metrics.address, Arc::clone(&metrics))?),
        false => None,
    };
    addresses.metrics = endpoint.as_ref().map(|endpoint| endpoint.address);
    let identity = Identity {
        instance: entropy.u64(),
        driver: driver.to_owned(),
        driver_reason: choice.reason.clone(),
        fingerprint,
        dtls_fingerprint,
        contexts_max: (config.limits.contexts_max * senders.len()) as u64,
        legs_max: (config.limits.legs_max * senders.len()) as u64,
    };
    let steward = Steward {
        poll,
        listener,
        remote,
        door,
        identity,
        shards: (0..senders.len()).map(outgoing).collect(),
        rounds: Rounds::new(&config, senders.len()),
        circles: Circles::new(own),
        mailbox: steward_mailbox,
        metrics,
        stop: Arc::clone(&stop),
    };
    joins.push(spawn("steward", &failed, move || steward.run())?);
    tracing::info!(
        socket = %addresses.socket.display(), contract = ?addresses.contract, ng = ?addresses.ng, msrp = ?addresses.msrp, metrics = ?addresses.metrics, ?cores,
        "the data plane is up"
    );
    Ok(Running {
        addresses,
        driver: choice.to_string(),
        threads,
        stop,
        wakes,
        waker,
        spool: spool_sender,
        handshakes: handshakes_sender,
        names,
        endpoint,
        joins,
        failed,
    })
}

/// The kernel's table of flows with its program, where it is wanted and can be had. A host that has it not has its sockets.
fn kernel_relay(settings: &KernelRelaySettings) -> Option<Arc<KernelRelay>> {
    if settings.interfaces.is_empty() {
        return None;
    }
    let mut relay = match KernelRelay::new(settings.flows_max) {
        Ok(relay) => relay,
        Err(error) => {
            tracing::warn!(%error, "the kernel relays nothing: everything goes by sockets (driver.kernel_relay)");
            return None;
        }
    };
    for interface in &settings.interfaces {
        match relay.attach(interface) {
            Ok(()) => {
                tracing::info!(interface, flows_max = settings.flows_max, "the kernel relays what is settled")
            }
            Err(error) => tracing::warn!(%error, interface, "the kernel relays nothing that arrives there"),
        }
    }
    (relay.attached() > 0).then(|| Arc::new(relay))
}

/// The addresses at which legs are reached.
fn own_media(settings: &RtpSettings) -> anyhow::Result<forward::OwnMedia> {
    let mut interfaces = Vec::new();
    for interface in &settings.interfaces {
        let mut all: Vec<IpAddr> =
            [Some(interface.address), interface.advertised].into_iter().flatten().collect();
        if interface.address.is_unspecified() {
            let host = netio::addresses().context("the addresses of this host")?;
            all.extend(host.iter().filter(|ip| ip.is_ipv4() == interface.address.is_ipv4()));
        }
        interfaces.push(all);
    }
    Ok(forward::OwnMedia::new(interfaces))
}

/// The contract's listener for other hosts, if one is configured.
fn remote(config: &Config) -> anyhow::Result<Option<steward::Remote>> {
    let Some(address) = config.contract.address else { return Ok(None) };
    let Some(tls) = certificate::contract(&config.contract).context("contract")? else { return Ok(None) };
    let remote = steward::Remote::bind(address, tls);
    Ok(Some(remote.with_context(|| format!("the contract's listener {address}"))?))
}

struct Shared<'a> {
    config: &'a Config,
    choice: &'a Choice,
    tls: &'a Option<Tls>,
    stop: &'a Arc<AtomicBool>,
    failed: &'a Arc<AtomicBool>,
    kernel: &'a Option<Arc<KernelRelay>>,
    own: &'a Arc<forward::OwnMedia>,
}

struct Started {
    sender: Sender<ToShard>,
    ready: Ready,
    ends: Sender<Ends>,
    msrp: (SocketAddr, Option<SocketAddr>),
    listeners: (forward::Listener, Option<forward::Listener>),
    join: JoinHandle<()>,
}

fn start_shard(
    shared: &Shared<'_>,
    index: usize,
    shards: usize,
    core: usize,
    seed: [u8; 32],
) -> anyhow::Result<Started> {
    let config = shared.config;
    let number = u16::try_from(index)?;
    let plain = listen(config, number, 0)?;
    let secure = if shared.tls.is_some() { Some(listen(config, number, 1)?) } else { None };
    let at = |listener: &TcpListener| listener.local_addr();
    let msrp = (at(&plain)?, secure.as_ref().map(at).transpose()?);
    let authority = |address: SocketAddr| forward::Listener {
        authority: match &config.msrp.advertised {
            Some(host) => format!("{host}:{}", address.port()),
            None => address.to_string(),
        },
    };
    let (sender, mailbox) = mailbox(config.limits.mailbox_max);
    let listeners = (authority(msrp.0), msrp.1.map(authority));
    let plan = Plan {
        index: number,
        shards,
        core,
        kind: shared.choice.kind,
        engine: forward::Config {
            shard: number,
            shards: u16::try_from(shards)?,
            msrp: authority(msrp.0),
            msrps: msrp.1.map(authority),
            relay: config.msrp.relay.engine()?,
            limits: config.engine_limits(),
        },
        driver: Plan::driver_config(config, number),
        rtp: config.rtp.clone(),
        kernel: shared.kernel.clone(),
        own: Arc::clone(shared.own),
        listeners: [(Some(plain), false), (secure, true)]
            .into_iter()
            .filter_map(|(listener, tls)| Some((listener?, tls)))
            .collect(),
        tls: shared.tls.clone(),
        seed,
        batch_us: config.driver.batch_us,
        tick: Duration::from_millis(config.metrics.tick_ms.max(10)),
        counters_every: Duration::from_millis(config.metrics.counters_ms.max(10)),
        mailbox,
        stop: Arc::clone(shared.stop),
    };
    let (ready_sender, ready) = bounded(1);
    let (ends, ends_receiver) = bounded(1);
    let name = format!("shard-{index}");
    let join = spawn(&name, shared.failed, move || shard::run(plan, &ready_sender, &ends_receiver))?;
    let ready = ready.recv().context("a shard ended at its start")??;
    Ok(Started { sender, ready, ends, msrp, listeners, join })
}

fn spawn(
    name: &str,
    failed: &Arc<AtomicBool>,
    body: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<JoinHandle<()>> {
    let (failed, label) = (Arc::clone(failed), name.to_owned());
    Ok(std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        if let Err(error) = body() {
            tracing::error!(thread = label, error = format!("{error:#}"), "a thread ended");
            failed.store(true, Ordering::Relaxed);
        }
    })?)
}

/// Shard n listens on `port + 2n`, with TLS on the next one.
fn listen(config: &Config, shard: u16, tls: u16) -> anyhow::Result<TcpListener> {
    let port = match config.msrp.port {
        0 => 0,
        first => first.checked_add(2 * shard + tls).context("msrp.port is too high for so many shards")?,
    };
    let address = SocketAddr::new(config.msrp.address, port);
    let start = Instant::now();
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == ErrorKind::AddrInUse && start.elapsed() < BIND_PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(error).with_context(|| format!("the MSRP listener {address}")),
        }
    }
}

fn say_driver(choice: &Choice, config: &Config) {
    let wanted = config.driver.kind.as_str();
    if choice.kind == Kind::Mio && wanted != "mio" {
        tracing::warn!("{choice}");
    } else {
        tracing::info!("{choice}");
    }
}

/// The memory that the limits allow, and what of the host does not suffice for them.
fn say_limits(config: &Config, shards: usize) {
    let mut budget = config.engine_limits().budget();
    budget.extend(&Plan::driver_config(config, 0).budget()).row(
        "mailbox",
        config.limits.mailbox_max as u64,
        size_of::<ToShard>() as u64,
    );
    if let Ok(Some(relay)) = config.msrp.relay.engine() {
        budget.extend(&relay.budget());
    }
    if config.shards.context_weight_max > 0 {
        // Three quarters of the mailbox, at most: see `mail`.
        budget.row("packets of other shards", config.limits.mailbox_max as u64, 2048 + 128);
    }
    // Of each leg with DTLS, for as long as it lives: measured.
    budget.row("dtls handshakes", config.limits.legs_max as u64, 20 << 10);
    for line in budget.to_string().lines() {
        tracing::info!("a shard's memory: {line}");
    }
    let shared = config.spool.packets_max * 1500 + config.limits.mailbox_max * size_of::<ToSteward>();
    let whole = budget.total_bytes() * shards as u64 + shared as u64;
    tracing::info!("memory of {shards} shards and the spool at most: {:.1} MiB", whole as f64 / 1_048_576.0);

    if config.ng.udp.is_some() || config.ng.tcp.is_some() {
        for line in steward::adapter(&config.ng, config).budget().to_string().lines() {
            tracing::info!("the ng protocol's memory: {line}");
        }
    }

    let wanted = ((config.limits.sockets_max + config.limits.connections_max) * shards) as u64;
    if let Ok((soft, _)) = netio::descriptor_limit() {
        let there = soft.saturating_sub(DESCRIPTORS_APART);
        if there < wanted {
            tracing::warn!(
                "the descriptor limit of {soft} is below the {wanted} that the limits allow: at most {there} RTP legs \
                 with rtcp-mux, {} without",
                there / 2
            );
        }
    }
    let any = SocketAddr::new(config.rtp.interfaces.first().map_or(config.msrp.address, |i| i.address), 0);
    let options = netio::udp::UdpOptions {
        receive_bytes: config.rtp.receive_bytes,
        ..netio::udp::UdpOptions::default()
    };
    if let Ok(granted) = netio::udp::bind(any, options).and_then(|socket| netio::udp::granted(&socket))
        && granted < config.rtp.receive_bytes
    {
        tracing::warn!(
            "the kernel cuts receive buffers to {granted} octets of {}: raise net.core.rmem_max",
            config.rtp.receive_bytes
        );
    }
}
