//! The whole adapter against a data plane that gives out ports in order.

mod flow;
mod hostile;
mod rig;
