//! Pinning a thread to a core by explicit id: a list made from what is allowed leaves out isolated cores, which are
//! just those that media should run on.

/// Pins the calling thread; false when the kernel says no (no such core, or not ours).
pub fn pin(core: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: core })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_core_that_is_not_there_is_refused() {
        // In its own thread, which nobody else's test runs on.
        let pinned = std::thread::spawn(|| (super::pin(0), super::pin(1023))).join().unwrap();
        assert_eq!(pinned, (true, false));
    }
}
