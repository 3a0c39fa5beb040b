//! Wakes a shard that waits in its driver: an eventfd, written by whoever put something into its mailbox.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::sys;

/// Wakes one driver; clones wake the same one.
#[derive(Clone, Debug)]
pub struct Wake(Arc<File>);

impl Wake {
    /// A new one; give it to the driver that it shall wake.
    pub fn new() -> io::Result<Self> {
        Ok(Wake(Arc::new(File::from(sys::eventfd()?))))
    }

    /// Ends the driver's wait, the present one or the next.
    pub fn wake(&self) {
        // The counter is full only when it was written 2^64 times unread: then it wakes anyway.
        let _ = (&*self.0).write(&1u64.to_ne_bytes());
    }

    /// Takes the wakes that came so far.
    pub(crate) fn drain(&self) {
        let _ = (&*self.0).read(&mut [0; 8]);
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_wakes_are_one() {
        let wake = Wake::new().unwrap();
        wake.clone().wake();
        wake.wake();
        let mut count = [0; 8];
        assert_eq!((&*wake.0).read(&mut count).unwrap(), 8);
        assert_eq!(u64::from_ne_bytes(count), 2);
        wake.drain();
        assert!((&*wake.0).read(&mut count).is_err());
    }
}
