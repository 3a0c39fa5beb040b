#![forbid(unsafe_code)]
//! What control tells the data plane and hears back.
