//! Datagram sockets as the data plane wants them.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use crate::sys;

/// How a media socket is set up.
#[derive(Clone, Copy, Debug)]
pub struct UdpOptions {
    /// SO_RCVBUF in octets; the kernel doubles it and cuts it at `net.core.rmem_max`.
    pub receive_bytes: usize,
    /// SO_SNDBUF in octets.
    pub send_bytes: usize,
    /// Differentiated services code point, 0..63; 46 (EF) is usual for audio (RFC 4594 §4.1).
    pub dscp: u8,
}

impl Default for UdpOptions {
    fn default() -> Self {
        UdpOptions { receive_bytes: 512 << 10, send_bytes: 512 << 10, dscp: 46 }
    }
}

/// Binds a media socket: non-blocking, large buffers, IP_MTU_DISCOVER=PROBE, DSCP. No SO_REUSEADDR: a port has
/// one owner. Port 0 takes a free one, and takes it by its number: a port that the kernel chose is lost when the
/// socket is dissolved (connect(2) with AF_UNSPEC unbinds what bind(2) did not name).
pub fn bind(address: SocketAddr, options: UdpOptions) -> io::Result<UdpSocket> {
    if address.port() != 0 {
        return bind_named(address, options);
    }
    let free = UdpSocket::bind(address)?.local_addr()?;
    // Somebody else may take it in between: then another one.
    bind_named(free, options).or_else(|_| bind_named(UdpSocket::bind(address)?.local_addr()?, options))
}

fn bind_named(address: SocketAddr, options: UdpOptions) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    // Cut silently by the kernel; start-up compares with `granted`.
    socket.set_recv_buffer_size(options.receive_bytes)?;
    socket.set_send_buffer_size(options.send_bytes)?;
    let traffic_class = i32::from(options.dscp & 63) << 2;
    match address {
        SocketAddr::V4(_) => sys::set_option(&socket, libc::IPPROTO_IP, libc::IP_TOS, traffic_class)?,
        SocketAddr::V6(_) => {
            sys::set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, traffic_class)?;
        }
    }
    let socket = UdpSocket::from(socket);
    sys::probe_mtu(&socket)?;
    Ok(socket)
}

/// The receive buffer that the kernel granted, in octets as asked for (it reports the double).
pub fn granted(socket: &UdpSocket) -> io::Result<usize> {
    Ok(socket2::SockRef::from(socket).recv_buffer_size()? / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_one_owner() {
        let first = bind("127.0.0.1:0".parse().unwrap(), UdpOptions::default()).unwrap();
        let again = bind(first.local_addr().unwrap(), UdpOptions::default());
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn both_families_bind() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let socket = bind(address.parse().unwrap(), UdpOptions::default()).unwrap();
            assert!(granted(&socket).unwrap() > 0);
        }
    }
}
