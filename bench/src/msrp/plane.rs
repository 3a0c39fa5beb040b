//! Weir's data plane with MSRP sessions, programmed over its socket as control does.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use contract::change::Verb;
use contract::path::Parameters;
use contract::{Context, Leg, LegSet, Mode, MsrpLeg, Path, Placement, Switch, leg, placement};

use super::auth::{self, Credentials};
use super::load::Place;
use super::words::{Ends, address};
use crate::rtp::weir::{Control, Setup, Weir};

/// Sessions that one data plane of ours holds at most; the descriptor limit of small hosts is 20,000.
const SESSIONS_MAX: usize = 16_000;

/// Changes in one batch.
const BATCH: usize = 2000;

/// Changes the configuration to what these rows need.
pub(super) fn adapt(config: &mut dataplaned::Config) {
    config.msrp.tls = true;
    config.limits.connections_max = SESSIONS_MAX;
    // All clients have one address.
    config.limits.connections_per_address_max = SESSIONS_MAX;
    config.limits.sockets_max = 64;
}

/// A data plane in this process, and where it takes MSRP.
pub(super) fn start(core: usize, tls: bool) -> anyhow::Result<(Weir, SocketAddr)> {
    let weir = Weir::start_with(&Setup::new("uring", core), adapt)?;
    let (plain, secure) = weir.msrp().context("no listener")?;
    let at = if tls { secure.context("no TLS listener")? } else { plain };
    Ok((weir, at))
}

/// The same by TCP, and it serves its metrics.
pub(super) fn start_counting(core: usize) -> anyhow::Result<(Weir, SocketAddr)> {
    let weir = Weir::start_with(&Setup::new("uring", core), |config| {
        adapt(config);
        config.metrics.on = true;
        config.metrics.address = ([127, 0, 0, 1], 0).into();
    })?;
    let (plain, _) = weir.msrp().context("no listener")?;
    Ok((weir, plain))
}

/// A data plane that is a relay (RFC 4976), with [`auth::pairs`] of clients.
pub(super) fn relay(core: usize, clients: usize) -> anyhow::Result<(Weir, Place)> {
    let mut weir = Weir::start_with(&Setup::new("uring", core), |config| {
        adapt(config);
        config.msrp.relay.on = true;
        config.msrp.relay.plain = true;
        config.msrp.relay.reach = vec!["127.0.0.0/8".to_owned()];
    })?;
    let (at, _) = weir.msrp().context("no listener")?;
    let who = Credentials { user: "ann".to_owned(), password: "1234".to_owned() };
    let (control, stop) = (weir.control(), AtomicBool::new(false));
    let (streams, ends) = std::thread::scope(|scope| {
        let judge = scope.spawn(|| control.judge(&stop));
        let pairs = auth::pairs(at, clients, &who);
        stop.store(true, Ordering::Relaxed);
        judge.join().map_err(|_| anyhow::anyhow!("no control"))??;
        pairs
    })?;
    Ok((weir, Place { at, ends, tls: None, binds: false, streams }))
}

fn msrp_leg(context: u64, id: u64, client: usize, tls: bool) -> Leg {
    let msrp = MsrpLeg {
        remote_path: vec![Ends::client(client)],
        tls,
        addresses: vec![address(client)],
        private_messages: true,
        ..MsrpLeg::default()
    };
    Leg {
        id,
        context,
        media: "msrp".into(),
        participant: client.to_string(),
        kind: Some(leg::Kind::Msrp(msrp)),
        ..Leg::default()
    }
}

fn ends(placements: &[Placement], first: usize) -> anyhow::Result<Vec<Ends>> {
    let of = |(client, placed): (usize, &Placement)| match &placed.at {
        Some(placement::At::Msrp(local)) => Ok(Ends { to: local.path.clone(), from: Ends::client(client) }),
        _ => anyhow::bail!("a leg without a path"),
    };
    (first..).zip(placements).map(of).collect()
}

/// A room of so many clients; each its path.
pub(super) fn room(control: &mut Control, clients: usize, tls: bool) -> anyhow::Result<Vec<Ends>> {
    let mut places = Vec::new();
    let mut verbs = vec![Verb::PutContext(Context { id: 1 }), switch()];
    for (id, client) in (1..).zip(0..clients) {
        verbs.push(Verb::PutLeg(msrp_leg(1, id, client, tls)));
        if verbs.len() >= BATCH {
            places.extend(control.put(std::mem::take(&mut verbs))?);
        }
    }
    places.extend(control.put(verbs)?);
    ends(&places, 0)
}

/// The room of the context 1.
fn switch() -> Verb {
    let all = Some(LegSet { legs: Vec::new(), media: "msrp".into() });
    Verb::PutPath(Path {
        id: 1,
        context: 1,
        mode: Mode::Switch as i32,
        sources: all.clone(),
        targets: all,
        parameters: Some(Parameters::Switch(Switch {
            room: vec!["sip:room@bench.example".into()],
            private_messages: true,
            ..Switch::default()
        })),
    })
}

/// Pairs of clients, a context each, the first one numbered `context`; whatever one says goes to the other.
pub(super) fn pairs(
    control: &mut Control,
    context: u64,
    pairs: usize,
    first: usize,
    tls: bool,
) -> anyhow::Result<Vec<Ends>> {
    let mut all = Vec::new();
    for (context, pair) in (context..).zip(0..pairs) {
        let client = first + 2 * pair;
        let mut verbs = vec![Verb::PutContext(Context { id: context })];
        for id in [1, 2] {
            verbs.push(Verb::PutLeg(msrp_leg(context, id, client + id as usize - 1, tls)));
        }
        let set = |leg| Some(LegSet { legs: vec![leg], media: String::new() });
        for (id, from, to) in [(1, 1, 2), (2, 2, 1)] {
            let mode = Mode::Relay as i32;
            let (sources, targets) = (set(from), set(to));
            verbs.push(Verb::PutPath(Path { id, context, mode, sources, targets, ..Path::default() }));
        }
        all.extend(ends(&control.put(verbs)?, client)?);
    }
    Ok(all)
}
