//! The program that relays in the kernel, and the layout of its table. It sees what an interface received before the stack does
//! (tcx). A packet goes on by itself only if all of this holds, and otherwise up to its socket as if there were no program:
//!
//! ```text
//! for this host, without a VLAN tag, IPv4 without options or IPv6 without extension headers, no fragment, UDP, whole, one
//! datagram (not several joined by GRO)
//!   -> a flow of exactly these addresses and ports      the table's key; else nobody is sent anything
//!   -> RTP without padding, extension or CSRC, no RTCP  RFC 3550 §5.1, RFC 5761 §4
//!   -> the flow's SSRC, one of its payload types        the shard has met and accepted them
//!   -> no jump of the sequence (RFC 3550 §A.1)          a source that begins anew is the shard's to judge
//! ```
//!
//! Then the checksums, the addresses and ports are replaced and the packet leaves, by the neighbour table or, on loopback, as it
//! is. The header is made anew as a socket of ours would send it: 64 hops, our DSCP; DF and no identification, or no flow label.

use super::asm::{Assembler, Label, Op, Reg, Size, When};
use Op::{Add, And, Move, Multiply, ShiftLeft, ShiftRight, ShiftSigned, Sub, Xor};
use Reg::{R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10};
use Size::{Byte, Double, Half, Word};

/// Source, destination, their ports: as they stand in the packet.
pub(super) const KEY_V4: usize = 12;
pub(super) const KEY_V6: usize = 36;
/// See [`at`].
pub(super) const VALUE_BYTES: usize = 144;

/// Where each field of a flow is. Those up to `LENGTH_MAX` are ours to write, the others the program's.
pub(super) mod at {
    pub(in super::super) const PORTS: i16 = 0;
    pub(in super::super) const SOURCE: i16 = 4;
    pub(in super::super) const DESTINATION: i16 = 8;
    /// The first two octets of the IP header.
    pub(in super::super) const CLASS: i16 = 12;
    /// Not 0: the frame needs a neighbour's address.
    pub(in super::super) const NEIGHBOUR: i16 = 14;
    /// Sum of the IPv4 header but for its length and checksum; the first word of an IPv6 header.
    pub(in super::super) const HEADER_SUM: i16 = 16;
    pub(in super::super) const ADDRESSES_DIFFER: i16 = 20;
    pub(in super::super) const PORTS_DIFFER: i16 = 24;
    pub(in super::super) const SSRC: i16 = 28;
    /// One bit for each payload type.
    pub(in super::super) const PAYLOADS: i16 = 32;
    /// Ticks of the payload's clock in a nanosecond, times 2^32.
    pub(in super::super) const RATE: i16 = 48;
    /// The interface by which it leaves.
    pub(in super::super) const INTERFACE: i16 = 52;
    pub(in super::super) const PACKETS: i16 = 56;
    pub(in super::super) const OCTETS: i16 = 64;
    pub(in super::super) const LAST_NS: i16 = 72;
    pub(in super::super) const SEEN: i16 = 80;
    pub(in super::super) const HIGHEST: i16 = 88;
    pub(in super::super) const TIMESTAMP: i16 = 92;
    pub(in super::super) const JITTER: i16 = 96;
    pub(in super::super) const REORDERED: i16 = 100;
    pub(in super::super) const DUPLICATES: i16 = 104;
    /// Longer frames do not fit the interface by which it leaves.
    pub(in super::super) const LENGTH_MAX: i16 = 108;
    /// Both addresses of IPv6.
    pub(in super::super) const ADDRESSES: i16 = 112;
}

/// Offsets in a frame: Ethernet, and then of IPv4 (RFC 791 §3.1) and of IPv6 (RFC 8200 §3).
const ETHERTYPE: i16 = 12;
const IP: i16 = 14;
const V4_LENGTH: i16 = IP + 2;
const V4_FRAGMENT: i16 = IP + 6;
const V4_TTL: i16 = IP + 8;
const V4_PROTOCOL: i16 = IP + 9;
const V4_SUM: i16 = IP + 10;
const V4_SOURCE: i16 = IP + 12;
const V4_DESTINATION: i16 = IP + 16;
const V6_LENGTH: i16 = IP + 4;
const V6_NEXT: i16 = IP + 6;
const V6_HOPS: i16 = IP + 7;
const V6_SOURCE: i16 = IP + 8;
const UDP_PROTOCOL: i32 = 17;

/// Where things are behind the header of a family. The addresses and ports are one after the other, which makes a flow's name.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Family {
    addresses: i16,
    udp: i16,
    key: i16,
}

const V4: Family = Family { addresses: V4_SOURCE, udp: IP + 20, key: KEY_V4 as i16 };
const V6: Family = Family { addresses: V6_SOURCE, udp: IP + 40, key: KEY_V6 as i16 };

impl Family {
    const fn udp_length(self) -> i16 {
        self.udp + 4
    }

    const fn udp_sum(self) -> i16 {
        self.udp + 6
    }

    const fn rtp(self) -> i16 {
        self.udp + 8
    }

    const fn end(self) -> i16 {
        self.rtp() + 12
    }
}

/// Of Ethernet, without its checksum.
const FRAME_MIN: i32 = 60;

/// Of the kernel's `struct __sk_buff`.
const SKB_LENGTH: i16 = 0;
const SKB_PACKET_TYPE: i16 = 4;
const SKB_VLAN: i16 = 20;
const SKB_DATA: i16 = 76;
const SKB_DATA_END: i16 = 80;
const SKB_GSO_SIZE: i16 = 176;
/// Of its functions.
const MAP_LOOKUP: i32 = 1;
const KTIME_NS: i32 = 5;
const L4_SUM_REPLACE: i32 = 11;
const REDIRECT: i32 = 23;
const REDIRECT_NEIGHBOUR: i32 = 152;
const PSEUDO_HEADER: i32 = 1 << 4;
/// A datagram without a checksum stays one.
const KEEP_ZERO: i32 = 1 << 5;
/// What the program answers when it is none of its business (TCX_NEXT): other programs, then the stack.
pub(super) const PASS: i32 = -1;
/// (TC_ACT_REDIRECT)
#[cfg(test)]
pub(super) const LEAVES: i32 = 7;

// RFC 3550 §A.1
const DROPOUT_MAX: i32 = 3000;
const MISORDER_MAX: i32 = 100;

/// A half word as it stands in memory, in the network's order.
const fn half(value: u16) -> i32 {
    u16::from_ne_bytes(value.to_be_bytes()) as i32
}

/// The program for two tables of flows, of IPv4 and of IPv6.
pub(super) fn code([v4, v6]: [i32; 2]) -> Option<Vec<u64>> {
    let mut asm = Assembler::default();
    let (pass, is_v6) = (asm.label(), asm.label());
    asm.op(Move, R6, R1);
    frame(&mut asm, V4.end(), pass);
    // Another host's frame (PACKET_HOST is 0), another network's, several datagrams in one.
    for field in [SKB_PACKET_TYPE, SKB_VLAN, SKB_GSO_SIZE] {
        asm.load(Word, R1, R6, field);
        asm.jump_if_value(R1, When::Unequal, 0, pass);
    }
    asm.load(Word, R8, R6, SKB_LENGTH);
    asm.load(Half, R1, R7, ETHERTYPE);
    asm.jump_if_value(R1, When::Equal, half(0x86dd), is_v6);
    asm.jump_if_value(R1, When::Unequal, half(0x0800), pass);
    for (offset, is) in [(IP, 0x45), (V4_PROTOCOL, UDP_PROTOCOL)] {
        asm.load(Byte, R1, R7, offset);
        asm.jump_if_value(R1, When::Unequal, is, pass);
    }
    asm.load(Half, R1, R7, V4_FRAGMENT);
    asm.jump_if_value(R1, When::AnyBit, half(0x3fff), pass);
    asm.load(Half, R1, R7, V4_LENGTH);
    asm.swap(R1, 16);
    asm.op_value(Add, R1, i32::from(IP));
    flow(&mut asm, V4, v4, pass);
    asm.place(is_v6);
    frame(&mut asm, V6.end(), pass);
    asm.load(Byte, R1, R7, IP);
    asm.op_value(And, R1, 0xf0);
    asm.jump_if_value(R1, When::Unequal, 0x60, pass);
    asm.load(Byte, R1, R7, V6_NEXT);
    asm.jump_if_value(R1, When::Unequal, UDP_PROTOCOL, pass);
    // RFC 8200 §8.1: no datagram is without a checksum.
    asm.load(Half, R1, R7, V6.udp_sum());
    asm.jump_if_value(R1, When::Equal, 0, pass);
    asm.load(Half, R1, R7, V6_LENGTH);
    asm.swap(R1, 16);
    asm.op_value(Add, R1, i32::from(V6.udp));
    flow(&mut asm, V6, v6, pass);
    asm.place(pass);
    asm.op_value(Move, R0, PASS);
    asm.exit();
    asm.finish()
}

/// From the datagram on: R1, where its IP packet ends; R8, where the frame does.
fn flow(asm: &mut Assembler, family: Family, table: i32, pass: Label) {
    // The datagram is all of the IP packet, and that is all of the frame. R8: where they end.
    asm.load(Half, R2, R7, family.udp_length());
    asm.swap(R2, 16);
    asm.op_value(Add, R2, i32::from(family.udp));
    asm.jump_if(R1, When::Unequal, R2, pass);
    asm.jump_if(R1, When::Above, R8, pass);
    let exact = asm.label();
    asm.jump_if(R1, When::Equal, R8, exact);
    // A short frame is filled up on its way.
    asm.jump_if_value(R8, When::Above, FRAME_MIN, pass);
    asm.place(exact);
    asm.op(Move, R8, R1);
    let rtp = family.rtp();
    asm.load(Byte, R1, R7, rtp);
    asm.jump_if_value(R1, When::Unequal, 0x80, pass);
    // RFC 5761 §4: 192 to 223 are RTCP.
    asm.load(Byte, R1, R7, rtp + 1);
    asm.op_value(And, R1, 0xe0);
    asm.jump_if_value(R1, When::Equal, 192, pass);
    for offset in (0..family.key).step_by(4) {
        asm.load(Word, R1, R7, family.addresses + offset);
        asm.store(Word, R10, offset - family.key, R1);
    }
    asm.map(R1, table);
    asm.op(Move, R2, R10);
    asm.op_value(Add, R2, -i32::from(family.key));
    asm.call(MAP_LOOKUP);
    asm.jump_if_value(R0, When::Equal, 0, pass);
    asm.op(Move, R9, R0);
    asm.load(Word, R1, R9, at::LENGTH_MAX);
    asm.jump_if(R8, When::Above, R1, pass);
    asm.load(Word, R1, R9, at::SSRC);
    asm.load(Word, R2, R7, rtp + 8);
    asm.jump_if(R1, When::Unequal, R2, pass);
    // The payload type.
    asm.load(Byte, R1, R7, rtp + 1);
    asm.op_value(And, R1, 0x7f);
    asm.op(Move, R2, R1);
    asm.op_value(ShiftRight, R2, 3);
    asm.op(Move, R3, R9);
    asm.op(Add, R3, R2);
    asm.load(Byte, R3, R3, at::PAYLOADS);
    asm.op_value(And, R1, 7);
    asm.op(ShiftRight, R3, R1);
    asm.op_value(And, R3, 1);
    asm.jump_if_value(R3, When::Equal, 0, pass);
    count(asm, rtp, pass);
    send(asm, family, pass);
}

/// R7: the frame, of which so many octets may be read.
fn frame(asm: &mut Assembler, octets: i16, pass: Label) {
    asm.load(Word, R7, R6, SKB_DATA);
    asm.load(Word, R1, R6, SKB_DATA_END);
    asm.op(Move, R2, R7);
    asm.op_value(Add, R2, i32::from(octets));
    asm.jump_if(R2, When::Above, R1, pass);
}

/// RFC 3550 §A.1 and §A.8, as `rtp::Reception` does it. One flow comes by one receive queue, one packet after the other; where it
/// does not, a number may be off and nothing else.
fn count(asm: &mut Assembler, rtp: i16, pass: Label) {
    let (late, again, counted, first) = (asm.label(), asm.label(), asm.label(), asm.label());
    asm.load(Half, R1, R7, rtp + 2);
    asm.swap(R1, 16);
    asm.load(Word, R2, R9, at::HIGHEST);
    asm.op(Sub, R1, R2);
    asm.op_value(And, R1, 0xffff);
    asm.load(Double, R4, R9, at::SEEN);
    asm.jump_if_value(R1, When::Equal, 0, again);
    asm.jump_if_value(R1, When::Above, DROPOUT_MAX - 1, late);
    // In order: R1 ahead of the highest one.
    asm.op(Add, R2, R1);
    asm.store(Word, R9, at::HIGHEST, R2);
    let (near, noted) = (asm.label(), asm.label());
    asm.jump_if_value(R1, When::Below, 64, near);
    asm.op_value(Move, R4, 0);
    asm.jump(noted);
    asm.place(near);
    asm.op(ShiftLeft, R4, R1);
    asm.place(noted);
    asm.op_value(Add, R4, 1);
    asm.store(Double, R9, at::SEEN, R4);
    asm.jump(counted);
    // Behind it by R3.
    asm.place(late);
    asm.op_value(Move, R3, 0x1_0000);
    asm.op(Sub, R3, R1);
    asm.jump_if_value(R3, When::Above, MISORDER_MAX, pass);
    let reordered = asm.label();
    asm.jump_if_value(R3, When::Above, 63, reordered);
    asm.op_value(Move, R5, 1);
    asm.op(ShiftLeft, R5, R3);
    asm.op(Move, R3, R4);
    asm.op(And, R3, R5);
    asm.jump_if_value(R3, When::Unequal, 0, again);
    asm.op(Add, R4, R5);
    asm.store(Double, R9, at::SEEN, R4);
    asm.place(reordered);
    step(asm, at::REORDERED);
    asm.jump(counted);
    asm.place(again);
    step(asm, at::DUPLICATES);
    asm.place(counted);
    // §A.8: J += |D| - ((J + 8) >> 4), J scaled by 16.
    asm.call(KTIME_NS);
    asm.load(Double, R1, R9, at::LAST_NS);
    asm.store(Double, R9, at::LAST_NS, R0);
    asm.load(Word, R3, R7, rtp + 4);
    asm.swap(R3, 32);
    asm.load(Word, R4, R9, at::TIMESTAMP);
    asm.store(Word, R9, at::TIMESTAMP, R3);
    asm.jump_if_value(R1, When::Equal, 0, first);
    asm.op(Sub, R0, R1);
    // After a pause of minutes the product below would not fit, and no jitter is what it would be.
    asm.op_value(Move, R2, 0x7fff_ffff);
    asm.jump_if(R0, When::Above, R2, first);
    asm.load(Word, R2, R9, at::RATE);
    asm.op(Multiply, R0, R2);
    asm.op_value(Move, R2, 1);
    asm.op_value(ShiftLeft, R2, 31);
    asm.op(Add, R0, R2);
    asm.op_value(ShiftRight, R0, 32);
    asm.op(Sub, R3, R4);
    asm.op(Sub, R0, R3);
    // |D| of its lower 32 bits.
    asm.op_value(ShiftLeft, R0, 32);
    asm.op_value(ShiftSigned, R0, 32);
    let positive = asm.label();
    asm.jump_if_value(R0, When::SignedAbove, -1, positive);
    asm.op_value(Move, R2, 0);
    asm.op(Sub, R2, R0);
    asm.op(Move, R0, R2);
    asm.place(positive);
    asm.load(Word, R1, R9, at::JITTER);
    asm.op(Add, R0, R1);
    asm.op_value(Add, R1, 8);
    asm.op_value(ShiftRight, R1, 4);
    asm.op(Sub, R0, R1);
    asm.store(Word, R9, at::JITTER, R0);
    asm.place(first);
    asm.op_value(Move, R1, 1);
    asm.add_atomic(R9, at::PACKETS, R1);
    asm.op(Move, R1, R8);
    asm.op_value(Add, R1, -i32::from(rtp));
    asm.add_atomic(R9, at::OCTETS, R1);
}

/// One more of something.
fn step(asm: &mut Assembler, field: i16) {
    asm.load(Word, R5, R9, field);
    asm.op_value(Add, R5, 1);
    asm.store(Word, R9, field, R5);
}

/// Rewrites the packet and lets it leave.
fn send(asm: &mut Assembler, family: Family, pass: Label) {
    // UDP's checksum, or what hardware is still to make one of: the kernel knows which.
    for (field, flags) in [(at::ADDRESSES_DIFFER, PSEUDO_HEADER | KEEP_ZERO), (at::PORTS_DIFFER, KEEP_ZERO)] {
        asm.op(Move, R1, R6);
        asm.op_value(Move, R2, i32::from(family.udp_sum()));
        asm.op_value(Move, R3, 0);
        asm.load(Word, R4, R9, field);
        asm.op_value(Move, R5, flags);
        asm.call(L4_SUM_REPLACE);
    }
    frame(asm, family.end(), pass);
    match family {
        V4 => v4_header(asm),
        _ => v6_header(asm),
    }
    asm.load(Word, R1, R9, at::PORTS);
    asm.store(Word, R7, family.udp, R1);
    let neighbour = asm.label();
    asm.load(Word, R1, R9, at::INTERFACE);
    asm.load(Half, R2, R9, at::NEIGHBOUR);
    asm.jump_if_value(R2, When::Unequal, 0, neighbour);
    asm.op_value(Move, R2, 0);
    asm.call(REDIRECT);
    asm.exit();
    asm.place(neighbour);
    for argument in [R2, R3, R4] {
        asm.op_value(Move, argument, 0);
    }
    asm.call(REDIRECT_NEIGHBOUR);
    asm.exit();
}

/// RFC 791 §3.1: its checksum from what is always the same and the length.
fn v4_header(asm: &mut Assembler) {
    asm.load(Half, R1, R9, at::CLASS);
    asm.store(Half, R7, IP, R1);
    asm.store_value(Half, R7, IP + 4, 0);
    asm.store_value(Half, R7, V4_FRAGMENT, half(0x4000));
    asm.store_value(Byte, R7, V4_TTL, 64);
    asm.load(Word, R1, R9, at::HEADER_SUM);
    asm.load(Half, R2, R7, V4_LENGTH);
    asm.op(Add, R1, R2);
    for _ in 0..2 {
        asm.op(Move, R2, R1);
        asm.op_value(ShiftRight, R2, 16);
        asm.op_value(And, R1, 0xffff);
        asm.op(Add, R1, R2);
    }
    asm.op_value(Xor, R1, 0xffff);
    asm.store(Half, R7, V4_SUM, R1);
    for (offset, field) in [(V4_SOURCE, at::SOURCE), (V4_DESTINATION, at::DESTINATION)] {
        asm.load(Word, R1, R9, field);
        asm.store(Word, R7, offset, R1);
    }
}

/// RFC 8200 §3.
fn v6_header(asm: &mut Assembler) {
    asm.load(Word, R1, R9, at::HEADER_SUM);
    asm.store(Word, R7, IP, R1);
    asm.store_value(Byte, R7, V6_HOPS, 64);
    for offset in (0..32).step_by(4) {
        asm.load(Word, R1, R9, at::ADDRESSES + offset);
        asm.store(Word, R7, V6_SOURCE + offset, R1);
    }
}
