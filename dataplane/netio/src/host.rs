//! The addresses of this host.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address of this host, and its interface.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interface {
    pub(crate) address: IpAddr,
    pub(crate) index: u32,
    pub(crate) mtu: u32,
    pub(crate) loopback: bool,
}

/// The addresses of this host: where a socket that is bound to no address in particular is reached.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    Ok(interfaces()?.into_iter().map(|interface| interface.address).collect())
}

/// The addresses of this host and the interfaces that have them.
pub(crate) fn interfaces() -> io::Result<Vec<Interface>> {
    let mut found = Vec::new();
    let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the call sets `first` to a list that it made.
    if unsafe { libc::getifaddrs(&raw mut first) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut next = first;
    while !next.is_null() {
        // SAFETY: not null, and of the list, which is freed only below.
        let entry = unsafe { &*next };
        next = entry.ifa_next;
        // SAFETY: an address that is there is at least a `sockaddr`.
        let family = if entry.ifa_addr.is_null() { 0 } else { unsafe { (*entry.ifa_addr).sa_family } };
        let address = match i32::from(family) {
            libc::AF_INET => {
                // SAFETY: of this family, so it is a `sockaddr_in`, wherever it lies.
                let at = unsafe { entry.ifa_addr.cast::<libc::sockaddr_in>().read_unaligned() };
                IpAddr::V4(Ipv4Addr::from(u32::from_be(at.sin_addr.s_addr)))
            }
            libc::AF_INET6 => {
                // SAFETY: the same, a `sockaddr_in6`.
                let at = unsafe { entry.ifa_addr.cast::<libc::sockaddr_in6>().read_unaligned() };
                IpAddr::V6(Ipv6Addr::from(at.sin6_addr.s6_addr))
            }
            _ => continue,
        };
        // SAFETY: the name is a string of C of the list.
        let index = unsafe { libc::if_nametoindex(entry.ifa_name) };
        // SAFETY: the same.
        let name = unsafe { std::ffi::CStr::from_ptr(entry.ifa_name) }.to_string_lossy().into_owned();
        // An interface whose MTU cannot be read takes what every one does (RFC 791 §3.1).
        let mtu = std::fs::read_to_string(format!("/sys/class/net/{name}/mtu"));
        let mtu = mtu.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(576);
        let loopback = entry.ifa_flags & libc::IFF_LOOPBACK as u32 != 0;
        found.push(Interface { address, index, mtu, loopback });
    }
    // SAFETY: the list that `getifaddrs` made, once, and nothing of it is held.
    unsafe { libc::freeifaddrs(first) };
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_itself() {
        assert!(addresses().unwrap().contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }
}
