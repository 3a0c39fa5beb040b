#![forbid(unsafe_code)]
//! RFC 4975/6135/7701 on the wire: streaming framer, paths, sessions, reports.
