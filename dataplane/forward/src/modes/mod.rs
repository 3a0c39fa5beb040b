//! The modes: how what a source leg sends comes to target legs. One file each; `relay` and `distribute` have one for
//! RTP each and one for MSRP together, where they differ only in the number of targets.

pub(crate) mod back_to_back;
pub(crate) mod distribute;
pub(crate) mod floor;
pub(crate) mod imdn;
pub(crate) mod relay;
pub(crate) mod select;
pub(crate) mod slot;
pub(crate) mod switch;
pub(crate) mod tap;
