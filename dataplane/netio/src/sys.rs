//! System calls that std and socket2 do not wrap.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// An eventfd: a counter that wakes a thread that waits in a poll or a ring.
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: takes no memory of ours.
    let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is fresh and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets an integer socket option.
pub(crate) fn set_option(socket: &impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the value lives across the call and its length is told.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Dissolves a datagram socket's association, so that it receives from everybody again (connect(2), AF_UNSPEC).
pub fn dissolve(socket: &UdpSocket) -> io::Result<()> {
    // SAFETY: a sockaddr of zeroes is valid and means AF_UNSPEC; it lives across the call.
    let done = unsafe {
        let address: libc::sockaddr = std::mem::zeroed();
        libc::connect(
            socket.as_fd().as_raw_fd(),
            &raw const address,
            size_of::<libc::sockaddr>() as libc::socklen_t,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes up to 64 waiting datagrams off a socket at once and throws them away; how many there were. For sinks of
/// benchmarks, which must be drained and should cost little.
pub fn discard(socket: &UdpSocket) -> usize {
    const BATCH: usize = 64;
    // SAFETY: headers of zeroes are valid: no name, no vectors, so the kernel writes no octet of the datagrams;
    // the array lives across the call.
    let n = unsafe {
        let mut heads: [libc::mmsghdr; BATCH] = std::mem::zeroed();
        libc::recvmmsg(
            socket.as_raw_fd(),
            heads.as_mut_ptr(),
            BATCH as u32,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
        )
    };
    usize::try_from(n).unwrap_or(0)
}

/// The soft and the hard limit of open files.
pub fn descriptor_limit() -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure lives across the call, which fills it.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// IP_MTU_DISCOVER=PROBE: DF is set and no path MTU is kept, so the kernel has no IP id to generate and never
/// fragments; a datagram over the interface's MTU fails with EMSGSIZE.
pub fn probe_mtu(socket: &UdpSocket) -> io::Result<()> {
    if socket.local_addr()?.is_ipv4() {
        set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
    } else {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)
    }
}
