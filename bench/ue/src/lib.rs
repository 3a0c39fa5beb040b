#![forbid(unsafe_code)]
//! A CPM client library: SIP, MSRP, RTP, CPIM, IMDN, conference subscription.
