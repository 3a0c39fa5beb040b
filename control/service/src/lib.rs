#![forbid(unsafe_code)]
//! Every decision of the control plane, sans-IO.
