//! Media contexts as control wants them: the wanted state of each, kept whole, so that a data plane which
//! lost its tables can be given it again (DESIGN §2, invariant 8); and what SDP has to do with legs.

mod anchor;
pub(crate) mod bundle;
mod describe;
pub(crate) mod srtp;
pub(crate) mod webrtc;

pub(crate) use anchor::Anchor;
pub(crate) use describe::{
    Peer, answering, blank_leg, direction, disconnected, grant, hear, host_of, is_anchorable, is_msrp,
    is_unmet, local, meet, name, one_host, read, role, setup_answering,
};
