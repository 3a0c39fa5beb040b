//! Which driver: asked for by name, or chosen at start by measuring both on loopback, with the reason in one line.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::poll::Polled;
use crate::udp::{self, UdpOptions};
use crate::uring::Uring;
use crate::{Driver, DriverConfig, discard};

/// Which driver is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Wanted {
    /// The one that measures cheaper here.
    #[default]
    Auto,
    /// io_uring; mio where the host forbids it.
    Uring,
    /// mio.
    Mio,
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Wanted::Auto),
            "uring" => Ok(Wanted::Uring),
            "mio" => Ok(Wanted::Mio),
            other => Err(format!("no driver is called {other}: auto, uring or mio")),
        }
    }
}

/// A driver that runs here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// io_uring.
    Uring,
    /// mio.
    Mio,
}

impl Kind {
    /// `"uring"` or `"mio"`.
    pub const fn label(self) -> &'static str {
        match self {
            Kind::Uring => "uring",
            Kind::Mio => "mio",
        }
    }

    /// Makes the driver for the calling thread.
    pub fn make(self, config: &DriverConfig) -> io::Result<Box<dyn Driver>> {
        Ok(match self {
            Kind::Uring => Box::new(Uring::new(config)?),
            Kind::Mio => Box::new(Polled::new(config)?),
        })
    }
}

/// The driver that was taken, and why.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Which.
    pub kind: Kind,
    /// One line for people.
    pub reason: String,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "driver {}: {}", self.kind.label(), self.reason)
    }
}

/// Chooses a driver. Takes some tens of milliseconds when it has to measure.
///
/// On a thread of its own: the kernel takes a ring down after it was closed, by work that interrupts the system calls
/// of the thread that made it (EINTR).
pub fn choose(wanted: Wanted) -> Choice {
    std::thread::scope(|scope| scope.spawn(|| choose_here(wanted)).join())
        .unwrap_or_else(|_| Choice { kind: Kind::Mio, reason: "the measurement failed".into() })
}

fn choose_here(wanted: Wanted) -> Choice {
    let mio = |reason: String| Choice { kind: Kind::Mio, reason };
    if wanted == Wanted::Mio {
        return mio("asked for by configuration".into());
    }
    let uring = match time_per_packet(Kind::Uring) {
        Ok(ns) => ns,
        Err(error) => return mio(format!("io_uring is not to be had on this host ({error})")),
    };
    if wanted == Wanted::Uring {
        let reason = format!("asked for by configuration; {uring:.0} ns per sent packet on loopback");
        return Choice { kind: Kind::Uring, reason };
    }
    let Ok(polled) = time_per_packet(Kind::Mio) else {
        return Choice { kind: Kind::Uring, reason: "mio could not be measured on this host".into() };
    };
    let reason =
        format!("measured {uring:.0} ns (uring) and {polled:.0} ns (mio) per sent packet on loopback");
    Choice { kind: if uring <= polled { Kind::Uring } else { Kind::Mio }, reason }
}

const TARGETS: usize = 8;
const BURST: usize = 16;
const TIME: Duration = Duration::from_millis(15);

/// Wall time of this thread for one packet of a distribution one to eight: the best of some short runs, because
/// disturbances only ever add.
fn time_per_packet(kind: Kind) -> io::Result<f64> {
    let config = DriverConfig {
        sockets_max: 64,
        connections_max: 1,
        buffers: 64,
        spin_us: 0,
        settle_ms: 0,
        ..DriverConfig::default()
    };
    let mut driver = kind.make(&config)?;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let bind = || udp::bind(any, UdpOptions::default());
    let (source, entry) = (bind()?, bind()?);
    let at = entry.local_addr()?;
    let entry = driver.open(entry)?;
    driver.aim(entry, Some(source.local_addr()?), true)?;
    source.connect(at)?;
    let sinks: Vec<UdpSocket> = (0..TARGETS).map(|_| bind()).collect::<io::Result<_>>()?;
    let mut targets = Vec::new();
    for sink in &sinks {
        let target = driver.open(bind()?)?;
        driver.aim(target, Some(sink.local_addr()?), true)?;
        targets.push(target);
    }
    let (end, mut best) = (Instant::now() + TIME, f64::INFINITY);
    while Instant::now() < end || best.is_infinite() {
        for _ in 0..BURST {
            source.send(&[0x80; 172])?;
        }
        let (start, mut forwarded) = (Instant::now(), 0);
        while forwarded < BURST && start.elapsed() < TIME {
            let n = driver.poll(Some(TIME))?;
            for index in 0..n {
                for target in &targets {
                    driver.forward(index, *target);
                }
            }
            forwarded += n;
        }
        driver.flush()?;
        let sent = forwarded * TARGETS;
        best = best.min(start.elapsed().as_nanos() as f64 / sent.max(1) as f64);
        sinks.iter().for_each(|sink| while discard(sink) > 0 {});
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_says_why() {
        assert_eq!(choose(Wanted::Mio).to_string(), "driver mio: asked for by configuration");
        let auto = choose(Wanted::Auto);
        assert!(auto.reason.contains("ns") || auto.reason.contains("not to be had"), "{auto}");
    }

    #[test]
    fn names_are_read() {
        assert_eq!("uring".parse(), Ok(Wanted::Uring));
        assert!("dpdk".parse::<Wanted>().is_err());
    }
}
