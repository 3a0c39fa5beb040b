#![forbid(unsafe_code)]
//! Suites that look at the system from outside.
