#![forbid(unsafe_code)]
//! RTP, RTCP and STUN views, demultiplexing, rewriting.
