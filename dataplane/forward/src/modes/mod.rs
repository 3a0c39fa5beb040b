//! The modes: how what a source leg sends comes to target legs. One file each.

pub(crate) mod distribute;
pub(crate) mod relay;
pub(crate) mod select;
