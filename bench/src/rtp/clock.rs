//! Cores and CPU time, from /proc.

use std::fs;
use std::sync::OnceLock;

/// The core of the load and the core that is measured: asked for once, before any thread is pinned, because a pinned
/// one is told of its own core only.
pub(crate) fn cores() -> (usize, usize) {
    static CORES: OnceLock<usize> = OnceLock::new();
    let cores = CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from));
    (0, cores - 1)
}

/// Pins the calling thread.
pub(crate) fn pin(core: usize) {
    core_affinity::set_for_current(core_affinity::CoreId { id: core });
}

/// The calling thread's id.
pub(crate) fn own_thread() -> u64 {
    fs::read_link("/proc/thread-self")
        .ok()
        .and_then(|path| path.file_name()?.to_str()?.parse().ok())
        .unwrap_or(0)
}

/// Whose time counts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who {
    /// One thread of this process.
    Thread(u64),
    /// All threads of another process.
    Process(u32),
    /// The same of a process and of those that it has started.
    Family(u32),
}

/// Nanoseconds so far of what is measured, alone.
pub(crate) fn process_ns(who: Who) -> u64 {
    own_ns(who)
}

/// Nanoseconds so far of what is measured, and of the ksoftirqd of its core.
pub(crate) fn busy_ns(who: Who, core: usize) -> u64 {
    own_ns(who) + ksoftirqd(core).map_or(0, |pid| run_time(&format!("/proc/{pid}/schedstat")))
}

fn own_ns(who: Who) -> u64 {
    match who {
        Who::Thread(thread) => run_time(&format!("/proc/self/task/{thread}/schedstat")),
        Who::Process(pid) => threads_ns(pid),
        Who::Family(pid) => {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            let children = children.split_whitespace().filter_map(|child| child.parse().ok()).map(threads_ns);
            threads_ns(pid) + children.sum::<u64>()
        }
    }
}

/// Nanoseconds so far of a thread of ours, of what is measured and of all cores' ksoftirqd: who sends pays for what the kernel
/// does with the packet on loopback, so the load's own time is part of what a relay costs.
pub(crate) fn whole_ns(own: u64, who: Option<Who>) -> u64 {
    let cores = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let cores = cores.lines().filter(|l| l.starts_with("cpu") && !l.starts_with("cpu ")).count();
    let soft = |core| ksoftirqd(core).map_or(0, |pid| run_time(&format!("/proc/{pid}/schedstat")));
    let measured = who.map_or(0, own_ns);
    run_time(&format!("/proc/self/task/{own}/schedstat")) + measured + (0..cores).map(soft).sum::<u64>()
}

/// Nanoseconds so far in which a core was not idle, whoever used it: in steps of a clock tick, 10 ms.
pub(crate) fn core_busy_ns(core: usize) -> u64 {
    const TICK_NS: u64 = 10_000_000;
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let name = format!("cpu{core}");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name)?.strip_prefix(' ')).unwrap_or_default();
    // user nice system idle iowait irq softirq steal; guests are in user.
    let ticks = line.split_whitespace().take(8).enumerate().filter(|(at, _)| !matches!(at, 3 | 4));
    ticks.filter_map(|(_, ticks)| ticks.parse::<u64>().ok()).sum::<u64>() * TICK_NS
}

fn threads_ns(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.map(|thread| run_time(&format!("{}/schedstat", thread.path().display()))).sum()
}

fn run_time(path: &str) -> u64 {
    fs::read_to_string(path).ok().and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0)
}

fn ksoftirqd(core: usize) -> Option<u64> {
    let name = format!("ksoftirqd/{core}");
    // Kernel threads of a core are made at start, so their ids are low.
    (2..4096)
        .find(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name))
}
