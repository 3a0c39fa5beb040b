//! The engine driven from outside: batches in, datagrams in, what goes out.

mod batches;
mod browser;
mod msrp_connections;
mod msrp_exact;
mod msrp_flow;
mod msrp_held;
mod msrp_hostile;
mod msrp_relay;
mod msrp_switch;
mod phone;
mod rig;
mod rtp_distribute;
mod rtp_extensions;
mod rtp_floor;
mod rtp_hostile;
mod rtp_injection;
mod rtp_latch;
mod rtp_relay;
mod rtp_repair;
mod rtp_reports;
mod rtp_select;
mod rtp_slots;
mod rtp_srtp;
mod rtp_tap;
mod rtp_video;
mod rtp_webrtc;
