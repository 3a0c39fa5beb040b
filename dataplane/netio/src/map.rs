//! Anonymous memory, page-aligned, zeroed, for what the kernel reads and writes.

use std::io;
use std::ptr::NonNull;

/// A private anonymous mapping.
#[derive(Debug)]
pub(crate) struct Mapping {
    at: NonNull<u8>,
    length: usize,
    leaked: bool,
}

// SAFETY: the mapping is plain memory that this value owns alone; the pointer is not tied to a thread.
unsafe impl Send for Mapping {}

impl Mapping {
    pub(crate) fn zeroed(length: usize) -> io::Result<Self> {
        let length = length.max(1);
        // SAFETY: a fresh anonymous mapping touches no memory of ours.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let at = NonNull::new(at.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Mapping { at, length, leaked: false })
    }

    pub(crate) fn address(&self) -> u64 {
        self.at.as_ptr() as u64
    }

    /// The address of `length` octets at `start`, if they lie inside.
    pub(crate) fn at(&self, start: usize, length: usize) -> Option<*const u8> {
        if start.checked_add(length)? > self.length {
            return None;
        }
        // SAFETY: `start` lies inside the mapping.
        Some(unsafe { self.at.as_ptr().add(start) })
    }

    /// The octets there, which the kernel must not be writing now; empty when they do not lie inside.
    pub(crate) fn slice(&self, start: usize, length: usize) -> &[u8] {
        match self.at(start, length) {
            // SAFETY: inside the mapping, initialised (anonymous pages are zero), and the caller holds them.
            Some(at) => unsafe { std::slice::from_raw_parts(at, length) },
            None => &[],
        }
    }

    /// As `slice`, to write.
    pub(crate) fn slice_mut(&mut self, start: usize, length: usize) -> &mut [u8] {
        match self.at(start, length) {
            // SAFETY: as in `slice`, and `&mut self` makes it the only view.
            Some(at) => unsafe { std::slice::from_raw_parts_mut(at.cast_mut(), length) },
            None => &mut [],
        }
    }

    /// Never unmaps: for memory that the kernel may still write to.
    pub(crate) fn leak(&mut self) {
        self.leaked = true;
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if !self.leaked {
            // SAFETY: the mapping was made with this address and length, and no view outlives `self`.
            unsafe { libc::munmap(self.at.as_ptr().cast(), self.length) };
        }
    }
}
