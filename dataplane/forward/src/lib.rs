#![forbid(unsafe_code)]
//! One core's engine, sans-IO: tables, latching, modes, queues.
