#![forbid(unsafe_code)]
//! The control process: SIP transports, lanes, prefetch, perform, link to data planes.
