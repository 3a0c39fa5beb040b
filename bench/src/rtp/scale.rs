//! What a second shard brings: each core holds a shard with a load of its own, one core or both.
//!
//! Everything that a call needs is on its core: the load that sends and drains, the shard, and the kernel's work for
//! both. So the load is no limit that a second shard would have to share, and two cores over one is what sharding
//! loses by itself.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::Context as _;

use super::load::{self, Load, Sample};
use super::weir::{self, PORTS, Setup, Weir};
use super::{PACKET_BYTES, Plan, clock, median};
use crate::report::{Reach, Report};

const CALLS: usize = 100;

pub(super) fn run(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let (first, last) = clock::cores();
    anyhow::ensure!(first != last, "one core is no two");
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        one.push(turn(plan, &[last])?);
        two.push(turn(plan, &[first, last])?);
    }
    let rate = |of: &[Turn]| median(of, |turn| turn.packets_per_s);
    let ns = |of: &[Turn]| median(of, |turn| turn.ns_per_packet);
    let note = format!(
        "packets by two shards over one, the load beside each shard on its core: {:.0} and {:.0} thousand packets/s; \
         shard time per packet {:.0} and {:.0} ns, a ratio of {:.3} (instructions cannot be counted here when the \
         machine hides its counters)",
        rate(&two) / 1000.0,
        rate(&one) / 1000.0,
        ns(&two),
        ns(&one),
        ns(&two) / ns(&one)
    );
    report.held("scale_2_cores", rate(&two) / rate(&one), "ratio", Reach::AtLeast(1.9), note);
    Ok(())
}

/// One conference of more than a core's weight: on one shard, and on two with half of its legs each.
pub(super) fn conference(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let (first, last) = clock::cores();
    anyhow::ensure!(first != last, "one core is no two");
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        one.push(conference_turn(plan, &[last])?);
        two.push(conference_turn(plan, &[first, last])?);
    }
    let ns = |of: &[Sample]| median(of, |sample| sample.ns_per_packet);
    let rate = |of: &[Sample]| median(of, |sample| sample.packets_per_s);
    let note = format!(
        "shard time per sent packet of one conference of {TALKERS} talkers and {LISTENERS} listeners on two shards over one:          what handing over costs ({:.0} and {:.0} ns; {:.0} and {:.0} thousand packets/s, the load sharing a core with one of          the two shards)",
        ns(&two),
        ns(&one),
        rate(&two) / 1000.0,
        rate(&one) / 1000.0
    );
    report.row("scale_conference", ns(&two) / ns(&one), "ratio", note);
    Ok(())
}

const TALKERS: usize = 8;
const LISTENERS: usize = 192;

fn conference_turn(plan: &Plan, cores: &[usize]) -> anyhow::Result<Sample> {
    let load = Load::conference(TALKERS, LISTENERS, PACKET_BYTES, 2 * TALKERS)?;
    let mut load = if cores.len() > 1 { load.crowded() } else { load };
    let setup = Setup { cores: cores.to_vec(), weight_max: 1, ..Setup::new("uring", 0) };
    let (weir, entries) = weir::conference(&setup, &load)?;
    let shards = weir.threads().iter().map(|thread| clock::Who::Thread(*thread));
    let all: Vec<(clock::Who, usize)> = shards.zip(cores.iter().copied()).collect();
    load.measure_all(&entries, &all, Duration::from_millis(plan.slice_ms))
}

struct Turn {
    packets_per_s: f64,
    ns_per_packet: f64,
}

fn turn(plan: &Plan, cores: &[usize]) -> anyhow::Result<Turn> {
    let setup = Setup { cores: cores.to_vec(), ..Setup::new("uring", 0) };
    let mut weir = Weir::start(&setup)?;
    // More calls than needed, because their contexts' shards are the data plane's to choose.
    let ends: Vec<UdpSocket> =
        (0..cores.len() * CALLS * 3).map(|_| load::socket()).collect::<anyhow::Result<_>>()?;
    let addresses = ends.iter().map(|end| Ok(end.local_addr()?)).collect::<anyhow::Result<Vec<_>>>()?;
    let entries = weir.control().relay(1, &addresses)?;
    let mut shares: Vec<(Vec<UdpSocket>, Vec<_>)> = cores.iter().map(|_| (Vec::new(), Vec::new())).collect();
    for (end, entry) in ends.into_iter().zip(entries) {
        // Each shard has every so-manieth pair of the ports.
        let pair = usize::from(entry.port() - PORTS.0) / 2;
        let (ends, entries) = shares.get_mut(pair % cores.len()).context("a shard")?;
        if ends.len() < 2 * CALLS {
            ends.push(end);
            entries.push(entry);
        }
    }
    let time = Duration::from_millis(plan.slice_ms);
    let samples: Vec<anyhow::Result<Sample>> = std::thread::scope(|scope| {
        let threads: Vec<_> = shares
            .into_iter()
            .zip(cores)
            .zip(weir.threads())
            .map(|(((ends, entries), core), shard)| {
                scope.spawn(move || {
                    clock::pin(*core);
                    let mut load = Load::pairs(ends, false);
                    load.measure_at(&entries, clock::Who::Thread(*shard), *core, time)
                })
            })
            .collect();
        let died = |_| Err(anyhow::anyhow!("a load died"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(died)).collect()
    });
    let samples = samples.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let packets_per_s = samples.iter().map(|s| s.packets_per_s).sum::<f64>();
    let busy = samples.iter().map(|s| s.ns_per_packet * s.packets_per_s).sum::<f64>();
    Ok(Turn { packets_per_s, ns_per_packet: busy / packets_per_s })
}
