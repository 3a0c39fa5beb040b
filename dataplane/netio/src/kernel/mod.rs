//! Relaying in the kernel: packets of flows that are settled go on before they reach any socket, by a program of our own (tcx,
//! Linux 6.6) and a table that says exactly which. What is not in the table goes up the stack as if nothing were there.
//!
//! tcx and not XDP: without an interface that has XDP of its own the kernel copies each packet for it, and on loopback and
//! virtual ones the datagram's checksum is not there yet, which XDP can neither see nor mend; tcx does it all at any interface,
//! and the neighbour table is the kernel's.
//!
//! Deliberately not here: which flows are settled (`forward`).

mod asm;
mod bpf;
mod program;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bpf::{Link, Program, Table};
use program::{KEY_V4, KEY_V6, VALUE_BYTES, at};

use crate::host::{Interface, interfaces};

/// What comes from `from` to `to`: a flow's name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FlowKey {
    /// The peer that sends.
    pub from: SocketAddr,
    /// Our socket that receives.
    pub to: SocketAddr,
}

/// A flow that is settled: where it goes, and what of it.
#[derive(Clone, Debug)]
pub struct Flow {
    /// What it is known by.
    pub key: FlowKey,
    /// Our socket by which it would leave.
    pub by: SocketAddr,
    /// The peer that it goes to.
    pub to: SocketAddr,
    /// The one synchronisation source; what comes under another is not relayed here.
    pub ssrc: u32,
    /// Payload types that pass, one bit each.
    pub payloads: u128,
    /// Of the payload, in Hz; 0: no jitter is told.
    pub clock: u32,
    /// Differentiated services code point.
    pub dscp: u8,
    /// What is known of the source so far; goes on from there.
    pub seen: Seen,
}

/// What is known of a source from its packets (RFC 3550 §A.1, §A.8).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Seen {
    /// Highest sequence number, with its cycles.
    pub highest: u32,
    /// Bit n: the packet n before the highest one came.
    pub before: u64,
    /// Scaled by 16.
    pub jitter: u32,
    /// Packets that came late.
    pub reordered: u32,
    /// Packets that came again.
    pub duplicates: u32,
}

/// What a flow has carried since it was put.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Carried {
    /// Packets.
    pub packets: u64,
    /// Octets of their datagrams.
    pub octets: u64,
    /// How long ago the last one came; `None`: none came.
    pub idle: Option<Duration>,
    /// The RTP timestamp of the last one.
    pub timestamp: u32,
    /// What is known of the source now; late and repeated ones counted from 0.
    pub seen: Seen,
}

/// The tables of both families, their program, and the interfaces where that runs.
#[derive(Debug)]
pub struct KernelRelay {
    v4: Table<KEY_V4, VALUE_BYTES>,
    v6: Table<KEY_V6, VALUE_BYTES>,
    program: Program,
    links: Vec<Link>,
    interfaces: Vec<Interface>,
}

impl KernelRelay {
    /// A table of so many flows for each family and their program, verified by the kernel. Needs CAP_BPF and CAP_NET_ADMIN.
    pub fn new(flows_max: u32) -> io::Result<Self> {
        if cfg!(target_endian = "big") {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "instructions are laid out for little endian only",
            ));
        }
        let (v4, v6) = (Table::new(flows_max)?, Table::new(flows_max)?);
        let code = program::code([v4.number(), v6.number()]).ok_or(io::ErrorKind::InvalidData)?;
        let program = Program::load(&code, "weir_relay")?;
        Ok(KernelRelay { v4, v6, program, links: Vec::new(), interfaces: interfaces()? })
    }

    /// Has the program see what an interface receives, until this is dropped or the process ends, however it ends.
    pub fn attach(&mut self, interface: &str) -> io::Result<()> {
        let name = std::ffi::CString::new(interface).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the name is a string of C and lives across the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(io::Error::last_os_error());
        }
        self.links.push(self.program.attach(index)?);
        Ok(())
    }

    /// At how many interfaces the program runs.
    pub fn attached(&self) -> usize {
        self.links.len()
    }

    /// Puts a flow: its packets no longer reach the socket. False: it cannot be relayed here, because no interface has the
    /// address by which it would leave, or its ends are of two families or of one link only.
    pub fn put(&self, flow: &Flow) -> io::Result<bool> {
        let ends = [flow.key.from, flow.key.to, flow.by, flow.to].map(|end| end.ip());
        let by = flow.by.ip();
        let interface = self
            .interfaces
            .iter()
            .find(|i| i.address == by || (i.loopback && by.is_ipv4() && by.is_loopback()));
        let Some(interface) = interface.filter(|_| ends.iter().all(|end| fits(by, *end))) else {
            return Ok(false);
        };
        let value = value(flow, interface);
        match key(flow.key) {
            Key::V4(key) => self.v4.put(&key, &value)?,
            Key::V6(key) => self.v6.put(&key, &value)?,
        }
        Ok(true)
    }

    /// What a flow has carried so far.
    pub fn read(&self, flow: FlowKey) -> io::Result<Option<Carried>> {
        let value = match key(flow) {
            Key::V4(key) => self.v4.read(&key)?,
            Key::V6(key) => self.v6.read(&key)?,
        };
        Ok(value.map(|value| carried(&value)))
    }

    /// Takes a flow out, and says what it carried: from now on its packets reach the socket.
    pub fn take(&self, flow: FlowKey) -> io::Result<Option<Carried>> {
        let value = match key(flow) {
            Key::V4(key) => self.v4.take(&key)?,
            Key::V6(key) => self.v6.take(&key)?,
        };
        Ok(value.map(|value| carried(&value)))
    }
}

/// Whether an end of a flow is of a family, and reached from anywhere: an address of one link needs its interface's name.
const fn fits(family: IpAddr, end: IpAddr) -> bool {
    match end {
        IpAddr::V4(_) => family.is_ipv4(),
        IpAddr::V6(end) => family.is_ipv6() && !end.is_unicast_link_local(),
    }
}

/// Addresses and ports as they stand in a packet.
enum Key {
    V4([u8; KEY_V4]),
    V6([u8; KEY_V6]),
}

fn key(flow: FlowKey) -> Key {
    let all =
        [octets(flow.from.ip()), octets(flow.to.ip()), ports(flow.from.port(), flow.to.port()).to_vec()];
    let all = all.concat();
    if flow.to.is_ipv4() { Key::V4(filled(&all)) } else { Key::V6(filled(&all)) }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn filled<const N: usize>(from: &[u8]) -> [u8; N] {
    let mut filled = [0; N];
    filled.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    filled
}

fn ports(from: u16, to: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (from.to_be_bytes(), to.to_be_bytes());
    [a, b, c, d]
}

/// The sum of half words as they stand in memory (RFC 1071 §2 B: the order of octets does not matter to it).
fn sum(octets: &[u8]) -> u32 {
    octets.chunks_exact(2).map(|pair| u32::from(u16::from_ne_bytes([pair[0], pair[1]]))).sum()
}

/// What a checksum changes by when one run of octets is replaced by another (RFC 1624 §3).
fn difference(old: &[u8], new: &[u8]) -> u32 {
    let inverse: Vec<u8> = old.iter().map(|octet| !octet).collect();
    sum(&inverse) + sum(new)
}

fn set(value: &mut [u8; VALUE_BYTES], at: i16, octets: &[u8]) {
    let place = value.iter_mut().skip(usize::from(at.unsigned_abs()));
    place.zip(octets).for_each(|(to, from)| *to = *from);
}

fn value(flow: &Flow, interface: &Interface) -> [u8; VALUE_BYTES] {
    let mut value = [0; VALUE_BYTES];
    let new_ports = ports(flow.by.port(), flow.to.port());
    let old_ports = ports(flow.key.from.port(), flow.key.to.port());
    let old = [octets(flow.key.from.ip()), octets(flow.key.to.ip())].concat();
    let addresses = [octets(flow.by.ip()), octets(flow.to.ip())].concat();
    let class = (flow.dscp & 63) << 2;
    let begin = [0x45, class];
    let (header, place) = match flow.by {
        SocketAddr::V4(_) => (sum(&begin) + sum(&[0x40, 0, 64, 17]) + sum(&addresses), at::SOURCE),
        SocketAddr::V6(_) => (u32::from_ne_bytes([0x60 | class >> 4, class << 4, 0, 0]), at::ADDRESSES),
    };
    let rate = ((u64::from(flow.clock) << 32) / 1_000_000_000) as u32;
    let fields: [(i16, &[u8]); 15] = [
        (at::PORTS, &new_ports),
        (place, &addresses),
        (at::CLASS, &begin),
        (at::NEIGHBOUR, &u16::from(!interface.loopback).to_ne_bytes()),
        (at::HEADER_SUM, &header.to_ne_bytes()),
        (at::ADDRESSES_DIFFER, &difference(&old, &addresses).to_ne_bytes()),
        (at::PORTS_DIFFER, &difference(&old_ports, &new_ports).to_ne_bytes()),
        (at::SSRC, &flow.ssrc.to_be_bytes()),
        (at::PAYLOADS, &flow.payloads.to_le_bytes()),
        (at::RATE, &rate.to_ne_bytes()),
        (at::INTERFACE, &interface.index.to_ne_bytes()),
        (at::SEEN, &flow.seen.before.to_ne_bytes()),
        (at::HIGHEST, &flow.seen.highest.to_ne_bytes()),
        (at::JITTER, &flow.seen.jitter.to_ne_bytes()),
        (at::LENGTH_MAX, &interface.mtu.saturating_add(14).to_ne_bytes()),
    ];
    fields.into_iter().for_each(|(at, octets)| set(&mut value, at, octets));
    value
}

fn carried(value: &[u8; VALUE_BYTES]) -> Carried {
    let long = |at: i16| u64::from_ne_bytes(part(value, at));
    let word = |at: i16| u32::from_ne_bytes(part(value, at));
    let last = long(at::LAST_NS);
    Carried {
        packets: long(at::PACKETS),
        octets: long(at::OCTETS),
        idle: (last > 0).then(|| Duration::from_nanos(monotonic_ns().saturating_sub(last))),
        timestamp: word(at::TIMESTAMP),
        seen: Seen {
            highest: word(at::HIGHEST),
            before: long(at::SEEN),
            jitter: word(at::JITTER),
            reordered: word(at::REORDERED),
            duplicates: word(at::DUPLICATES),
        },
    }
}

fn part<const N: usize>(value: &[u8; VALUE_BYTES], at: i16) -> [u8; N] {
    let mut part = [0; N];
    part.iter_mut().zip(value.iter().skip(usize::from(at.unsigned_abs()))).for_each(|(to, from)| *to = *from);
    part
}

/// The clock that the program reads.
fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure lives across the call, which fills it.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests;
