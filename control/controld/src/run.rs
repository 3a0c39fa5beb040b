//! Putting the process together and taking it down again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use base::{Budget, Entropy};
use sip::overload;
use sip::tries::Tries;
use sip::{Host, HostPort, Stack};
use store::{Sqlite, Store, wait};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::admin::{self, Admin};
use crate::clock::Clock;
use crate::edge::{self, Bound};
use crate::metrics::{self, Metrics};
use crate::resolve::Resolver;
use crate::trace::Bus;
use crate::{Config, Shutdown, Transport, front, lane, link, upkeep};

/// Where a run can be reached: what was bound, after port 0 and taken default ports were resolved.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// SIP listeners, in the order of the configuration (UDP, TCP, TLS for the default ones).
    pub sip: Vec<(Transport, SocketAddr)>,
    /// The Prometheus endpoint.
    pub metrics: Option<SocketAddr>,
    /// The admin socket.
    pub admin: PathBuf,
}

impl Addresses {
    /// The first listener of a transport.
    pub fn sip(&self, transport: Transport) -> Option<SocketAddr> {
        self.sip.iter().find(|(t, _)| *t == transport).map(|(_, address)| *address)
    }
}

/// A run that is up. Dropping it ends it without waiting; [`Running::join`] waits.
#[derive(Debug)]
pub struct Running {
    addresses: Addresses,
    shutdown: Shutdown,
    runtime: Option<tokio::runtime::Runtime>,
    main: Option<JoinHandle<()>>,
}

/// How long the end of a run may take before it is cut short.
const END_MAX: Duration = Duration::from_secs(5);

/// Runs control until `shutdown` is triggered; blocks the calling thread and brings its own runtime.
pub fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    start(config, shutdown)?.join()
}

/// Starts control and returns when every listener is bound and every lane has its rows. Must not be called from
/// inside a tokio runtime (start a thread).
pub fn start(config: Config, shutdown: Shutdown) -> anyhow::Result<Running> {
    start_over(config, shutdown, None)
}

/// The same over a store of the caller's.
pub(crate) fn start_over(
    config: Config,
    shutdown: Shutdown,
    store: Option<Arc<dyn Store>>,
) -> anyhow::Result<Running> {
    config.check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // One for each core that the process may use: a second one on one core only takes turns with the first.
        .worker_threads(std::thread::available_parallelism().map_or(2, |n| n.get().min(8)))
        .thread_name("control")
        .enable_all()
        .build()
        .context("the runtime")?;
    let started = runtime.block_on(assemble(config, shutdown.clone(), store));
    match started {
        Ok((addresses, main)) => {
            Ok(Running { addresses, shutdown, runtime: Some(runtime), main: Some(main) })
        }
        Err(error) => {
            shutdown.trigger();
            runtime.shutdown_background();
            Err(error)
        }
    }
}

impl Running {
    /// Where it can be reached.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The switch that ends it.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Waits until the run has ended.
    pub fn join(mut self) -> anyhow::Result<()> {
        if let (Some(runtime), Some(main)) = (self.runtime.take(), self.main.take()) {
            runtime.block_on(main).context("the run")?;
            runtime.shutdown_timeout(END_MAX);
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.trigger();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Everything that is bound or opened before anything runs: whatever can fail at start fails here.
struct Opened {
    sip: Bound,
    metrics: Option<TcpListener>,
    admin: UnixListener,
    store: Arc<dyn Store>,
    epoch: u64,
    instance: Option<u64>,
    dataplane: link::Target,
    addresses: Addresses,
}

async fn open(config: &Config, store: Option<Arc<dyn Store>>) -> anyhow::Result<Opened> {
    make_folder(config)?;
    let file = config.place(&config.store.file, "control.sqlite");
    let store: Arc<dyn Store> = match store {
        Some(store) => store,
        None => Arc::new(
            Sqlite::open(&file, &config.store).with_context(|| format!("the store {}", file.display()))?,
        ),
    };
    let epoch = wait(|done| store.take_epoch(done)).context("the store")?;
    let instance = wait(|done| store.number(link::INSTANCE, done)).context("the store")?;
    let dataplane = match link::Remote::new(&config.dataplane)? {
        Some(remote) => link::Target::Remote(remote),
        None => link::Target::Socket(config.place(&config.dataplane.socket, "dataplane.sock")),
    };
    let sip = Bound::bind(&config.sip)?;
    let metrics = match config.metrics.on {
        true => Some(bind_metrics(&config.metrics).await?),
        false => None,
    };
    let path = config.place(&config.admin.socket, "control.sock");
    let admin = admin::bind(&path).with_context(|| format!("the admin socket {}", path.display()))?;
    let addresses = Addresses {
        sip: sip.all.clone(),
        metrics: metrics.as_ref().and_then(|listener| listener.local_addr().ok()),
        admin: path,
    };
    Ok(Opened { sip, metrics, admin, store, epoch, instance, dataplane, addresses })
}

fn make_folder(config: &Config) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.folder);
    made.with_context(|| format!("the folder {}", config.folder.display()))
}

/// The configured address, or the next free port if it is the default one.
async fn bind_metrics(settings: &metrics::Settings) -> anyhow::Result<TcpListener> {
    let default = settings.address == metrics::Settings::default().address;
    let mut address = settings.address;
    for _ in 0..100 {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) if default && error.kind() == std::io::ErrorKind::AddrInUse => {
                address.set_port(address.port() + 1);
            }
            Err(error) => return Err(error).with_context(|| format!("metrics.address: {address}")),
        }
    }
    anyhow::bail!("metrics.address: no free port up to {address}")
}

async fn assemble(
    config: Config,
    shutdown: Shutdown,
    store: Option<Arc<dyn Store>>,
) -> anyhow::Result<(Addresses, JoinHandle<()>)> {
    shutdown.watch_signals().context("signal handlers")?;
    let opened = open(&config, store).await?;
    say(&config, &opened);
    let clock = Clock::start();
    let metrics = Arc::new(Metrics::new().context("the metrics")?);
    let mut entropy = system_entropy()?;
    let service = Arc::new(service_config(&config, &opened.addresses, &mut entropy)?);
    // The conference factory is nobody: its name may be seen.
    let open = vec![service.controlling.factory.clone()];
    let trace = Bus::new(config.trace, open, clock, metrics.clone());
    // The front and the edge end after the lanes have.
    let last = Shutdown::new();

    let (arrived, arrivals) = mpsc::channel(config.sip.limits.front_queue_max);
    let (ordered, orders) = mpsc::channel(config.lanes.queue_max);
    let unstarted = link::Unstarted::new(&config.dataplane);
    let (lanes, inboxes) =
        lane::Lanes::new(usize::from(config.lanes.count), config.lanes.queue_max, metrics.clone());
    let (mut tasks, mut ready) = (Vec::new(), Vec::new());
    for (index, inbox) in inboxes.into_iter().enumerate() {
        let parts = lane::Parts {
            index,
            config: (*service).clone(),
            entropy: entropy.child(),
            clock,
            commits_max: config.lanes.commits_max,
            store: opened.store.clone(),
            lanes: lanes.clone(),
            front: ordered.clone(),
            link: unstarted.link(),
            metrics: metrics.clone(),
            trace: trace.clone(),
            shutdown: shutdown.clone(),
        };
        let (task, is_ready) = lane::start(parts, inbox);
        tasks.push(task);
        ready.push(is_ready);
    }

    let edge = opened.sip.start(edge::Parts {
        settings: config.sip.clone(),
        framing: config.sip.stack.clone(),
        front: arrived,
        metrics: metrics.clone(),
        trace: trace.clone(),
        shutdown: last.clone(),
        clock,
        seed: entropy.hash_seed(),
    })?;
    let (resolver, found) = Resolver::new(&config.dns, edge.speaks(), entropy.child(), metrics.clone());
    let tries =
        Tries::new(entropy.hash_seed(), config.dns.requests_max, config.dns.peers_max, config.dns.avoid());
    let (open, is_open) = oneshot::channel();
    let front = tokio::spawn(front::run(
        front::Parts {
            stack: Stack::new(stack_config(&config, &opened.addresses), entropy.child())
                .with_overload(overload::Client::new(&config.sip.overload, entropy.hash_seed())),
            control: overload::Server::new(
                config.sip.overload.clone(),
                usize::from(config.lanes.count),
                entropy.hash_seed(),
            ),
            entropy: entropy.child(),
            rules: service::supported::rules(),
            config: service,
            edge: edge.clone(),
            lanes: lanes.clone(),
            resolver,
            tries,
            clock,
            metrics: metrics.clone(),
            seed: entropy.hash_seed(),
            shutdown: last.clone(),
        },
        arrivals,
        orders,
        found,
        is_open,
    ));
    for is_ready in ready {
        is_ready.await.context("a lane did not get its rows from the store")?;
    }
    let _ = open.send(());
    let link_parts = link::Parts {
        target: opened.dataplane.clone(),
        settings: config.dataplane.clone(),
        owner: config.name.clone(),
        epoch: opened.epoch,
        instance: opened.instance,
        store: opened.store.clone(),
        ended: config.ended,
        clock,
        metrics: metrics.clone(),
        trace: trace.clone(),
        shutdown: shutdown.clone(),
    };
    let (link, store) = (unstarted.link(), opened.store.clone());
    tasks.push(unstarted.start(link_parts, lanes.clone()));
    tasks.push(tokio::spawn(upkeep::run(
        opened.store,
        metrics.clone(),
        lanes.clone(),
        clock,
        config.ended,
        shutdown.clone(),
    )));
    if let Some(listener) = opened.metrics {
        let refresh = upkeep::gauges(metrics.clone(), lanes.clone(), clock);
        let served = metrics::serve(listener, metrics.clone(), refresh, shutdown.clone());
        tasks.push(tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(%error, "the metrics endpoint has ended");
            }
        }));
    }
    let admin = Admin {
        name: config.name,
        epoch: opened.epoch,
        addresses: opened.addresses.clone(),
        edge,
        lanes,
        link,
        store,
        front: ordered,
        metrics,
        trace,
        clock,
        shutdown: shutdown.clone(),
    };
    tasks.push(tokio::spawn(admin::serve(opened.admin, Arc::new(admin))));
    tracing::info!("control is up");
    let path = opened.addresses.admin.clone();
    Ok((opened.addresses, tokio::spawn(end(shutdown, last, tasks, front, path))))
}

/// The end of a run: lanes finish what is committed, then the front sends what is left, then the connections close.
async fn end(
    shutdown: Shutdown,
    last: Shutdown,
    tasks: Vec<JoinHandle<()>>,
    front: JoinHandle<()>,
    admin: PathBuf,
) {
    shutdown.triggered().await;
    let deadline = tokio::time::Instant::now() + END_MAX;
    for task in tasks {
        let _ = tokio::time::timeout_at(deadline, task).await;
    }
    last.trigger();
    let _ = tokio::time::timeout_at(deadline, front).await;
    // The connections write their last octets.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let _ = std::fs::remove_file(admin);
    tracing::info!("control has ended");
}

fn system_entropy() -> anyhow::Result<Entropy> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| anyhow::anyhow!("the system has no randomness: {error}"))?;
    Ok(Entropy::from_seed(seed))
}

/// What the lanes know of this run.
fn service_config(
    config: &Config,
    addresses: &Addresses,
    entropy: &mut Entropy,
) -> anyhow::Result<service::Config> {
    let mut service = config.service.clone();
    service.listeners = service::Listeners {
        udp: seen(config, addresses, Transport::Udp),
        tcp: seen(config, addresses, Transport::Tcp),
        tls: seen(config, addresses, Transport::Tls),
        ws: seen(config, addresses, Transport::Ws),
        wss: seen(config, addresses, Transport::Wss),
    };
    entropy.fill(&mut service.nonce_secret);
    service.check()?;
    Ok(service)
}

/// The first listener of a transport, as peers see it.
fn seen(config: &Config, addresses: &Addresses, transport: Transport) -> Option<SocketAddr> {
    let at = addresses.sip.iter().position(|(t, _)| *t == transport)?;
    let advertised = config.sip.listeners.get(at).and_then(|listener| listener.advertised);
    advertised.or_else(|| addresses.sip.get(at).map(|(_, bound)| *bound))
}

fn stack_config(config: &Config, addresses: &Addresses) -> sip::Config {
    let sent_by = Transport::ALL
        .into_iter()
        .filter_map(|transport| {
            let address = seen(config, addresses, transport)?;
            Some((transport.into(), HostPort { host: Host::from(address.ip()), port: Some(address.port()) }))
        })
        .collect();
    sip::Config { sent_by, limits: config.sip.stack.clone(), timing: sip::Timing::default() }
}

/// The memory that the limits allow.
fn budget(config: &Config) -> Budget {
    let (limits, lanes) = (&config.sip.limits, u64::from(config.lanes.count));
    let mut budget = Budget::default();
    budget
        .row("sip octets of connections", limits.buffered_max as u64, 1)
        .row("sip connections", limits.connections_max as u64, 40 << 10)
        .row("messages before the front", limits.front_queue_max as u64, 2048)
        .row("events before the lanes", lanes * config.lanes.queue_max as u64, 4 * 2048)
        .row("calls before the store", config.store.queue_max as u64, 1024)
        .row("orders before the link", config.dataplane.orders_max as u64, 1024)
        .row("requests to names", config.dns.requests_max as u64, 2048)
        .row("answers of the DNS", config.dns.answers_max, 512)
        .row("events before tracers", (config.trace.tracers_max * config.trace.queue_max) as u64, 1024)
        .extend(&config.sip.stack.budget());
    budget.extend(&config.service.limits.budget(lanes));
    budget
}

fn say(config: &Config, opened: &Opened) {
    for (transport, address) in &opened.addresses.sip {
        tracing::info!(transport = transport.label(), %address, "SIP is listened for");
    }
    if opened.sip.moved {
        tracing::warn!("port 5060 is taken: SIP listens on the next free ports");
    }
    if let Some(address) = opened.addresses.metrics {
        tracing::info!(%address, "metrics are served at /metrics");
    }
    if config.sip.tls.certificate.is_none() && opened.addresses.sip(Transport::Tls).is_some() {
        tracing::warn!("no certificate is configured: TLS shows a self-signed one, drawn for this run");
    }
    if config.sip.tls.key_log.is_some() {
        tracing::warn!("TLS secrets are written to the key log: whoever reads it reads the traffic");
    }
    tracing::info!(
        name = %config.name,
        epoch = opened.epoch,
        lanes = config.lanes.count,
        store = %config.place(&config.store.file, "control.sqlite").display(),
        admin = %opened.addresses.admin.display(),
        dataplane = %opened.dataplane,
        "control starts"
    );
    tracing::info!("memory that the limits allow:\n{}", budget(config));
}
