//! Socket addresses on the wire of the contract.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::Address;

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        let ip = match addr.ip() {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        Address { ip, port: u32::from(addr.port()) }
    }
}

impl Address {
    /// As a socket address; `None` when the octets are not 4 or 16 or the port is too large.
    pub fn socket(&self) -> Option<SocketAddr> {
        let port = u16::try_from(self.port).ok()?;
        let ip = match self.ip.len() {
            4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(self.ip.as_slice()).ok()?)),
            16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(self.ip.as_slice()).ok()?)),
            _ => return None,
        };
        Some(SocketAddr::new(ip, port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_survive_and_others_do_not() {
        for text in ["127.0.0.1:5004", "[2001:db8::10]:5070"] {
            let addr: SocketAddr = text.parse().unwrap();
            assert_eq!(Address::from(addr).socket(), Some(addr));
        }
        assert_eq!(Address { ip: vec![1, 2, 3], port: 1 }.socket(), None);
        assert_eq!(Address { ip: vec![1, 2, 3, 4], port: 65_536 }.socket(), None);
    }
}
