//! The headers of sends that gather several datagrams for one peer (UDP_SEGMENT): they lie where they are until the
//! enter that submits them has returned.

use std::mem;

/// Where the octets of a datagram are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In a receive buffer that is still held.
    Received {
        /// Which.
        buffer: u16,
        /// Where in it the datagram begins.
        start: u16,
    },
    /// At the beginning of a send slot.
    Slot(u16),
}

/// Datagrams of one send at most (the kernel's UDP_MAX_SEGMENTS was 64 before 6.9).
pub(crate) const SEGMENTS_MAX: usize = 64;
/// Octets of one send at most: what an IPv4 or IPv6 datagram could hold, its headers apart.
pub(crate) const SEGMENTS_BYTES_MAX: usize = 65_000;

const VECTORS: usize = 4096;
const HEADS: usize = 512;
const CONTROL_BYTES: usize = 24; // CMSG_SPACE of two octets

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_BYTES]);

/// Room for the headers of some sends. Nothing of it moves while it is in use: the boxes are never made anew.
pub(crate) struct Gathered {
    vectors: Box<[libc::iovec]>,
    heads: Box<[libc::msghdr]>,
    controls: Box<[Control]>,
    vectors_used: usize,
    heads_used: usize,
}

impl Gathered {
    pub(crate) fn new() -> Self {
        let vector = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: a msghdr of zeroes is valid: no name, no vectors, no control data.
        let head: libc::msghdr = unsafe { mem::zeroed() };
        Gathered {
            vectors: vec![vector; VECTORS].into_boxed_slice(),
            heads: vec![head; HEADS].into_boxed_slice(),
            controls: vec![Control([0; CONTROL_BYTES]); HEADS].into_boxed_slice(),
            vectors_used: 0,
            heads_used: 0,
        }
    }

    /// Whether a send of so many datagrams fits beside what is there.
    pub(crate) fn has_room(&self, count: usize) -> bool {
        self.heads_used < HEADS && self.vectors_used + count <= VECTORS
    }

    /// The kernel is done with all of them.
    pub(crate) fn clear(&mut self) {
        (self.vectors_used, self.heads_used) = (0, 0);
    }

    /// Adds a send; `None` when it does not fit, or a place is none.
    pub(crate) fn add(
        &mut self,
        places: impl ExactSizeIterator<Item = Option<(*const u8, usize)>>,
        segment: u16,
    ) -> Option<*const libc::msghdr> {
        let count = places.len();
        let vectors = self.vectors.get_mut(self.vectors_used..self.vectors_used + count)?;
        let head = self.heads.get_mut(self.heads_used)?;
        let control = self.controls.get_mut(self.heads_used)?;
        for (vector, place) in vectors.iter_mut().zip(places) {
            let (at, length) = place?;
            *vector = libc::iovec { iov_base: at.cast_mut().cast(), iov_len: length };
        }
        // cmsg(3): length, level, type, then the octets of a segment.
        let length = mem::offset_of!(libc::cmsghdr, cmsg_type) + mem::size_of::<libc::c_int>() + 2;
        let fields: [&[u8]; 4] = [
            &length.to_ne_bytes(),
            &libc::SOL_UDP.to_ne_bytes(),
            &libc::UDP_SEGMENT.to_ne_bytes(),
            &segment.to_ne_bytes(),
        ];
        let mut at = 0;
        for field in fields {
            control.0.get_mut(at..at + field.len())?.copy_from_slice(field);
            at += field.len();
        }
        head.msg_iov = vectors.as_mut_ptr();
        head.msg_iovlen = count;
        head.msg_control = control.0.as_mut_ptr().cast();
        head.msg_controllen = CONTROL_BYTES;
        self.vectors_used += count;
        self.heads_used += 1;
        Some(&raw const *head)
    }
}
