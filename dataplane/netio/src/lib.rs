//! The wall to the kernel: io_uring and mio drivers, connections with TLS, buffers, pinning.
