#![forbid(unsafe_code)]
//! What control remembers: one trait, SQLite behind it.
