#![forbid(unsafe_code)]
//! RFC 3261 family, sans-IO: framing, header index, typed headers, transactions, dialogs, digest.
