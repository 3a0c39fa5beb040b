//! Real peers that we did not write, over real sockets. `tests/interop/run` installs them and runs this.

mod baresip;
mod chromium;
mod ims;
mod kamailio;
mod kamailio_msrp;
mod kamailio_ng;
mod msrp_wire;
mod node;
mod rtcp;
mod rtcp_long;
mod scenarios;
mod sipjs;
mod sipp;
mod sipvicious;
mod slots;
mod sniffer;
mod srtp;
mod tshark;
mod webdriver;
