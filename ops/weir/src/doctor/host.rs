//! The host: what its kernel has, what it allows, and what of the configuration fits on it.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;

use super::Finding;
use crate::config::Config;

/// Descriptors for everything that is not media.
const DESCRIPTORS_APART: u64 = 128;
/// Ports of the range that are tried.
const PORTS_TRIED: u16 = 64;

/// Looks at the host. `runs`: a node runs here and has its ports.
pub(super) fn look(config: &Config, runs: bool) -> Vec<Finding> {
    let mut findings = vec![
        kernel(&text("/proc/sys/kernel/osrelease")),
        driver(config),
        kernel_relay(config, netio::kernel::KernelRelay::new(1).map(drop), Path::new("/sys/class/net")),
        descriptors(config, netio::descriptor_limit().ok()),
        cores(config, &text("/sys/devices/system/cpu/online"), &text("/sys/devices/system/cpu/isolated")),
        clock(&text("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
    ];
    findings.extend(buffers(config));
    findings.extend(ports(config, runs, &text("/proc/sys/net/ipv4/ip_local_port_range")));
    findings.extend(conntrack(Path::new("/proc/sys/net/netfilter/nf_conntrack_max")));
    findings
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Major and minor number of a release like `6.18.5-cloud`.
fn release(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn kernel(osrelease: &str) -> Finding {
    match release(osrelease) {
        Some(version) if version >= (6, 12) => Finding::good("kernel", format!("Linux {osrelease}")),
        Some(version) if version >= (6, 1) => Finding::note(
            "kernel",
            format!("Linux {osrelease}: driver.gather_us does nothing before 6.12"),
            "with 6.12 or later a busy node can trade a little delay for CPU",
        ),
        Some(_) => Finding::warning(
            "kernel",
            format!("Linux {osrelease}: before 6.1 io_uring lacks what the fast driver needs"),
            "run Linux 6.1 or later; mio does the work meanwhile",
        ),
        None => Finding::note("kernel", "its release cannot be read", ""),
    }
}

/// Which driver a start would take, measured now.
fn driver(config: &Config) -> Finding {
    let wanted = match config.dataplane.driver.kind.parse::<netio::Wanted>() {
        Ok(wanted) => wanted,
        Err(error) => {
            return Finding::fault("driver", error.to_string(), "driver.kind is auto, uring or mio");
        }
    };
    let choice = netio::choose(wanted);
    let said = choice.to_string();
    let off = text("/proc/sys/kernel/io_uring_disabled");
    match (choice.kind, wanted) {
        (netio::Kind::Mio, netio::Wanted::Uring) => {
            Finding::fault("driver", said, "io_uring was asked for: allow it, or set driver.kind to auto")
        }
        (netio::Kind::Mio, _) if !off.is_empty() && off != "0" => Finding::warning(
            "driver",
            format!("{said}; kernel.io_uring_disabled is {off}"),
            "sysctl kernel.io_uring_disabled=0 (or put the process into kernel.io_uring_group): about a third less CPU",
        ),
        _ => Finding::good("driver", said),
    }
}

/// Whether the kernel could relay, and does so where it is wanted. `loads`: what it said to the program.
fn kernel_relay(config: &Config, loads: std::io::Result<()>, interfaces: &Path) -> Finding {
    const AREA: &str = "kernel relay";
    const NEEDS: &str = "AmbientCapabilities=CAP_BPF CAP_NET_ADMIN (and AF_NETLINK where the unit restricts address families), Linux 6.6";
    let settings = &config.dataplane.driver.kernel_relay;
    let missing: Vec<&String> =
        settings.interfaces.iter().filter(|name| !interfaces.join(name).exists()).collect();
    match (settings.interfaces.is_empty(), loads) {
        (true, Ok(())) => Finding::good(
            AREA,
            "off; who runs this may load its program (tcx, at any interface): driver.kernel_relay.interfaces",
        ),
        (true, Err(error)) => {
            Finding::good(AREA, format!("off; who runs this may not load its program: {error}"))
        }
        (false, Err(error)) => Finding::warning(
            AREA,
            format!("asked for, and who runs this may not load its program ({error}): calls go by sockets"),
            NEEDS,
        ),
        (false, Ok(())) if !missing.is_empty() => Finding::warning(
            AREA,
            format!("no interface is called {missing:?}: what arrives elsewhere goes by sockets"),
            "`ip link` lists them (driver.kernel_relay.interfaces)",
        ),
        (false, Ok(())) => Finding::good(
            AREA,
            format!(
                "the program (tcx) loads; at {:?}, {} flows at most",
                settings.interfaces, settings.flows_max
            ),
        ),
    }
}

fn descriptors(config: &Config, limit: Option<(u64, u64)>) -> Finding {
    let Some((soft, hard)) = limit else {
        return Finding::note("descriptors", "the limit cannot be read", "");
    };
    let limits = &config.dataplane.limits;
    let shards = config.dataplane.cores().len();
    let wanted = ((limits.sockets_max + limits.connections_max) * shards) as u64;
    let there = soft.saturating_sub(DESCRIPTORS_APART);
    let fit = format!("{soft} open files: at most {there} RTP legs with rtcp-mux, {} without", there / 2);
    if there >= wanted {
        return Finding::good("descriptors", fit);
    }
    let advice = if hard > soft {
        format!(
            "LimitNOFILE={} in the unit, or `ulimit -n`; the hard limit is {hard}",
            wanted + DESCRIPTORS_APART
        )
    } else {
        format!("the hard limit is {hard}: raise fs.nr_open and LimitNOFILE, or lower limits.sockets_max")
    };
    Finding::warning(
        "descriptors",
        format!("{fit}; the limits allow {wanted} sockets and connections"),
        advice,
    )
}

/// `0-3,8` as core ids.
fn cores_of(list: &str) -> Vec<usize> {
    let part = |part: &str| -> Option<std::ops::RangeInclusive<usize>> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    list.split(',').filter_map(part).flatten().collect()
}

fn cores(config: &Config, online: &str, isolated: &str) -> Finding {
    let online = cores_of(online);
    let isolated = cores_of(isolated);
    let wanted = config.dataplane.cores();
    let missing: Vec<usize> =
        wanted.iter().copied().filter(|core| !online.is_empty() && !online.contains(core)).collect();
    let mut twice = wanted.clone();
    twice.sort_unstable();
    twice.dedup();
    let said = format!("{} of them; shards on {wanted:?}; isolated: {isolated:?}", online.len());
    if !missing.is_empty() {
        return Finding::fault(
            "cores",
            format!("{said}; {missing:?} are not there"),
            "name cores of this host in shards.cores",
        );
    }
    if twice.len() < wanted.len() {
        return Finding::warning(
            "cores",
            format!("{said}; one core has two shards"),
            "one core for each shard",
        );
    }
    if online.len() < 2 {
        return Finding::warning(
            "cores",
            said,
            "control and media share one core: two or more keep calls from waiting for signalling",
        );
    }
    Finding::good("cores", said)
}

fn clock(source: &str) -> Finding {
    match source {
        "tsc" | "kvm-clock" | "arch_sys_counter" | "hyperv_clocksource_tsc_page" => {
            Finding::good("clock", format!("the kernel reads time from {source}"))
        }
        "" => Finding::note("clock", "the kernel's clock source cannot be read", ""),
        slow => Finding::warning(
            "clock",
            format!("the kernel reads time from {slow}: each look at it is a system call"),
            "tsc, where the host's is stable (clocksource=tsc): time is read once a batch of packets",
        ),
    }
}

fn buffers(config: &Config) -> Vec<Finding> {
    let number = |path: &str| text(path).parse::<usize>().ok();
    let wanted = config.dataplane.rtp.receive_bytes;
    let mut findings = Vec::new();
    match number("/proc/sys/net/core/rmem_max") {
        Some(max) if max < wanted => findings.push(Finding::warning(
            "buffers",
            format!("net.core.rmem_max is {max}: receive buffers are cut below rtp.receive_bytes ({wanted})"),
            format!("sysctl net.core.rmem_max={wanted}: a burst may be lost before it is read"),
        )),
        Some(max) => findings.push(Finding::good("buffers", format!("net.core.rmem_max is {max}"))),
        None => findings.push(Finding::note("buffers", "net.core.rmem_max cannot be read", "")),
    }
    if let Some(max) = number("/proc/sys/net/core/wmem_max").filter(|max| *max < 212_992) {
        findings.push(Finding::warning(
            "buffers",
            format!("net.core.wmem_max is {max}, less than the kernel's own default"),
            "sysctl net.core.wmem_max=212992 or more",
        ));
    }
    findings
}

fn ports(config: &Config, runs: bool, ephemeral: &str) -> Vec<Finding> {
    let rtp = &config.dataplane.rtp;
    let (first, last) = (rtp.port_first, rtp.port_last);
    let mut findings = Vec::new();
    let mut ends = ephemeral.split_whitespace().filter_map(|n| n.parse::<u16>().ok());
    if let (Some(low), Some(high)) = (ends.next(), ends.next())
        && low <= last
        && first <= high
    {
        findings.push(Finding::note(
            "ports",
            format!("{first}..{last} for RTP overlaps the kernel's own choice ({low}..{high})"),
            format!(
                "sysctl net.ipv4.ip_local_reserved_ports={first}-{last}, so that nothing else is given them"
            ),
        ));
    }
    if runs {
        return findings;
    }
    for interface in &rtp.interfaces {
        let step = usize::from((last - first) / PORTS_TRIED).max(1);
        let tried: Vec<u16> = (first..=last).step_by(step).collect();
        let bound = |port: &&u16| UdpSocket::bind(SocketAddr::new(interface.address, **port));
        let failed: Vec<std::io::Error> = tried.iter().filter_map(|port| bound(&port).err()).collect();
        let (address, name) = (interface.address, &interface.name);
        findings.push(match failed.first() {
            None => Finding::good("ports", format!("{first}..{last} is free on {address} ({name})")),
            Some(error) if failed.len() == tried.len() => Finding::fault(
                "ports",
                format!("none of {first}..{last} can be had on {address} ({name}): {error}"),
                "is the address on this host? (rtp.interfaces)",
            ),
            Some(_) => Finding::warning(
                "ports",
                format!(
                    "{} of {} tried in {first}..{last} are taken on {address}",
                    failed.len(),
                    tried.len()
                ),
                "another program has them (ss -ulnp): move it or rtp.port_first",
            ),
        });
    }
    findings
}

fn conntrack(max: &Path) -> Option<Finding> {
    let max = fs::read_to_string(max).ok()?.trim().to_owned();
    Some(Finding::warning(
        "conntrack",
        format!(
            "the kernel tracks connections (at most {max}): each packet is looked up, and calls are lost when full"
        ),
        "exempt the media range: nft add rule ip raw prerouting udp dport <range> notrack (and output)",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;

    #[test]
    fn each_fact_has_its_severity() {
        for (said, severity) in [
            ("6.18.5-cloud", Severity::Good),
            ("6.12.0", Severity::Good),
            ("6.1.0-30-amd64", Severity::Note),
            ("5.15.0", Severity::Warning),
            ("", Severity::Note),
        ] {
            assert_eq!(kernel(said).severity, severity, "{said}");
        }
        for (source, severity) in [("tsc", Severity::Good), ("hpet", Severity::Warning), ("", Severity::Note)]
        {
            assert_eq!(clock(source).severity, severity, "{source}");
        }
        let config = Config::default();
        let wanted = descriptors(&config, Some((1 << 20, 1 << 20)));
        assert_eq!(wanted.severity, Severity::Good);
        let few = descriptors(&config, Some((1024, 4096)));
        assert_eq!(few.severity, Severity::Warning);
        assert!(few.found.contains("at most 896 RTP legs with rtcp-mux, 448 without"), "{few:?}");
    }

    #[test]
    fn a_kernel_relay_that_is_wanted_and_not_to_be_had_is_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("eth0")).unwrap();
        let refused = || Err(std::io::Error::from(std::io::ErrorKind::PermissionDenied));
        let mut config = Config::default();
        let mut severity = |names: &[&str], loads| {
            config.dataplane.driver.kernel_relay.interfaces = names.iter().map(|n| (*n).to_owned()).collect();
            kernel_relay(&config, loads, folder.path()).severity
        };
        assert_eq!(severity(&[], refused()), Severity::Good);
        assert_eq!(severity(&[], Ok(())), Severity::Good);
        assert_eq!(severity(&["eth0"], Ok(())), Severity::Good);
        assert_eq!(severity(&["eth0"], refused()), Severity::Warning);
        assert_eq!(severity(&["eth0", "eth1"], Ok(())), Severity::Warning);
    }

    #[test]
    fn cores_that_are_not_there_are_a_fault() {
        assert_eq!(cores_of("0-2,5"), [0, 1, 2, 5]);
        let mut config = Config::default();
        config.dataplane.shards.cores = vec![1, 9];
        assert_eq!(cores(&config, "0-3", "").severity, Severity::Fault);
        config.dataplane.shards.cores = vec![1, 1];
        assert_eq!(cores(&config, "0-3", "").severity, Severity::Warning);
        config.dataplane.shards.cores = vec![1, 2];
        assert_eq!(cores(&config, "0-3", "2-3").severity, Severity::Good);
    }

    #[test]
    fn taken_ports_are_told_unless_the_node_has_them() {
        let mut config = Config::default();
        let held = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        (config.dataplane.rtp.port_first, config.dataplane.rtp.port_last) = (port, port);
        let severities = |runs| -> Vec<Severity> {
            ports(&config, runs, "32768 32769").into_iter().map(|f| f.severity).collect()
        };
        assert_eq!(severities(false), [Severity::Fault]);
        assert!(severities(true).is_empty());
        drop(held);
        assert!(ports(&config, true, &format!("1024 {port}"))[0].advice.contains("ip_local_reserved_ports"));
    }

    #[test]
    fn a_host_that_tracks_connections_is_warned_of() {
        let folder = tempfile::tempdir().unwrap();
        let max = folder.path().join("max");
        assert_eq!(conntrack(&max), None);
        fs::write(&max, "262144\n").unwrap();
        assert!(conntrack(&max).unwrap().found.contains("at most 262144"));
    }
}
