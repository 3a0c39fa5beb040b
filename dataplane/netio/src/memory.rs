//! What the allocator keeps for itself instead of giving it back to the kernel.

/// Lets each arena of the allocator keep so many octets above what is in use. What goes to a room of a thousand takes some
/// MiB of queues for a moment; given back after each time, they are paged in and cleared for each time anew, which was a
/// seventh of the cost of a delivery. What was never used is not resident. False: this allocator has no such setting.
pub fn keep_free(octets: usize) -> bool {
    let octets = libc::c_int::try_from(octets).unwrap_or(libc::c_int::MAX);
    set_top_pad(octets)
}

#[cfg(target_env = "gnu")]
fn set_top_pad(octets: libc::c_int) -> bool {
    // SAFETY: mallopt(3) takes two numbers, locks the allocator and changes a setting of it; no memory is touched.
    unsafe { libc::mallopt(libc::M_TOP_PAD, octets) == 1 }
}

#[cfg(not(target_env = "gnu"))]
fn set_top_pad(_: libc::c_int) -> bool {
    false
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_allocator_takes_the_setting_where_it_has_one() {
        assert_eq!(super::keep_free(8 << 20), cfg!(target_env = "gnu"));
    }
}
