//! Free ports on this host: the wanted one or the next that nobody uses.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

/// The first of `count` ports in a row, from `wanted` on and below `wanted + tries`, that are free for UDP and TCP
/// alike; `None` if there are none. Those in `taken` count as used.
pub(crate) fn next_free(ip: IpAddr, wanted: u16, count: u16, tries: u16, taken: &[u16]) -> Option<u16> {
    let free = |port: u16| !taken.contains(&port) && is_free(SocketAddr::new(ip, port));
    (wanted..wanted.saturating_add(tries)).find(|first| (*first..first.saturating_add(count)).all(free))
}

/// The first range of `count` ports, moved up by `count` each time, whose ends and middle are free for UDP.
pub(crate) fn free_range(ip: IpAddr, wanted: u16, count: u16) -> Option<u16> {
    (0..)
        .map_while(|n: u16| wanted.checked_add(n.checked_mul(count)?))
        .take_while(|first| first.checked_add(count).is_some())
        .find(|first| [0, count / 2, count - 1].iter().all(|at| udp_free(SocketAddr::new(ip, first + at))))
}

fn is_free(at: SocketAddr) -> bool {
    udp_free(at) && TcpListener::bind(at).is_ok()
}

fn udp_free(at: SocketAddr) -> bool {
    UdpSocket::bind(at).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_port_is_passed_over() {
        let ip = IpAddr::from([127, 0, 0, 1]);
        let held = UdpSocket::bind((ip, 0)).unwrap();
        let port = held.local_addr().unwrap().port().min(60_000);
        let held = UdpSocket::bind((ip, port)).unwrap_or(held);
        let port = held.local_addr().unwrap().port();
        let found = next_free(ip, port, 1, 100, &[port + 1]).unwrap();
        assert!(found > port + 1);
        let tcp = TcpListener::bind((ip, found)).unwrap();
        assert!(next_free(ip, found, 1, 100, &[]).unwrap() > found);
        drop(tcp);
        assert_eq!(next_free(ip, port, 1, 1, &[]), None);
    }
}
