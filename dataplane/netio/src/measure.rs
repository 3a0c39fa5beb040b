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
    let mut uring = match Rig::new(Kind::Uring) {
        Ok(rig) => rig,
        Err(error) => return mio(format!("io_uring is not to be had on this host ({error})")),
    };
    let mut polled = match Rig::new(Kind::Mio) {
        Ok(rig) => rig,
        Err(error) => {
            return Choice { kind: Kind::Uring, reason: format!("mio cannot be measured ({error})") };
        }
    };
    // In turns, so that what disturbs the host disturbs both; the least of each, because disturbances only add.
    let (end, mut best) = (Instant::now() + TIME, [f64::INFINITY; 2]);
    while Instant::now() < end || best[0].is_infinite() {
        for (rig, best) in [&mut uring, &mut polled].into_iter().zip(&mut best) {
            match rig.burst() {
                Ok(ns) => *best = best.min(ns),
                Err(error) => return mio(format!("the measurement failed ({error})")),
            }
        }
    }
    let figures =
        format!("{:.0} ns (uring) and {:.0} ns (mio) per sent packet on loopback", best[0], best[1]);
    match wanted {
        Wanted::Uring => {
            Choice { kind: Kind::Uring, reason: format!("asked for by configuration; measured {figures}") }
        }
        _ => {
            let kind = if best[0] <= best[1] { Kind::Uring } else { Kind::Mio };
            Choice { kind, reason: format!("measured {figures}") }
        }
    }
}

const TARGETS: usize = 8;
const BURST: usize = 32;
const TIME: Duration = Duration::from_millis(40);
const PATIENCE: Duration = Duration::from_millis(200);

/// A driver that distributes from one source to eight sinks.
struct Rig {
    driver: Box<dyn Driver>,
    source: UdpSocket,
    targets: Vec<u32>,
    sinks: Vec<UdpSocket>,
}

impl Rig {
    fn new(kind: Kind) -> io::Result<Self> {
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
        Ok(Rig { driver, source, targets, sinks })
    }

    /// Wall time of this thread for one sent packet.
    fn burst(&mut self) -> io::Result<f64> {
        for _ in 0..BURST {
            self.source.send(&[0x80; 172])?;
        }
        let (start, mut forwarded) = (Instant::now(), 0);
        while forwarded < BURST && start.elapsed() < PATIENCE {
            let n = self.driver.poll(Some(PATIENCE))?;
            for index in 0..n {
                for target in &self.targets {
                    self.driver.forward(index, *target);
                }
            }
            forwarded += n;
        }
        self.driver.flush()?;
        let ns = start.elapsed().as_nanos() as f64 / (forwarded * TARGETS).max(1) as f64;
        self.sinks.iter().for_each(|sink| while discard(sink) > 0 {});
        Ok(ns)
    }
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
