//! Where legs of this data plane are, on any shard: what one of them is sent from there it does not learn, or two legs would
//! hand a packet to each other for ever.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

const WORDS: usize = (1 << 16) / 64;

/// The ports that are open at each interface. Shards share it: whoever opens or closes a port notes it; it is looked at only
/// when an address is about to be learned.
#[derive(Debug)]
pub struct OwnMedia {
    interfaces: Vec<(Vec<IpAddr>, Vec<AtomicU64>)>,
}

impl OwnMedia {
    /// With the addresses of each interface: bound, advertised; of one that is bound to all, those of the host too.
    pub fn new(interfaces: impl IntoIterator<Item = Vec<IpAddr>>) -> Self {
        let ports = || (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        let canonical = |all: Vec<IpAddr>| all.into_iter().map(|ip| ip.to_canonical()).collect();
        OwnMedia { interfaces: interfaces.into_iter().map(|all| (canonical(all), ports())).collect() }
    }

    /// Notes that a port is open, or no more.
    pub fn note(&self, address: SocketAddr, open: bool) {
        let bit = 1 << (address.port() % 64);
        for word in self.words(address) {
            match open {
                true => word.fetch_or(bit, Ordering::Relaxed),
                false => word.fetch_and(!bit, Ordering::Relaxed),
            };
        }
    }

    /// Whether a leg is there.
    pub fn has(&self, address: SocketAddr) -> bool {
        self.words(address).any(|word| word.load(Ordering::Relaxed) & (1 << (address.port() % 64)) != 0)
    }

    /// The interfaces that have an address, by number.
    pub fn interfaces(&self, ip: IpAddr) -> impl Iterator<Item = usize> {
        let ip = ip.to_canonical();
        let has = move |all: &[IpAddr]| all.contains(&ip) || ip.is_loopback() && all.contains(&any(ip));
        self.interfaces.iter().enumerate().filter(move |(_, (all, _))| has(all)).map(|(at, _)| at)
    }

    fn words(&self, address: SocketAddr) -> impl Iterator<Item = &AtomicU64> {
        let ports = self.interfaces(address.ip()).filter_map(|at| self.interfaces.get(at));
        ports.filter_map(move |(_, ports)| ports.get(usize::from(address.port()) / 64))
    }
}

/// No address in particular, of the same family.
fn any(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
