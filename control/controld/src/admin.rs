//! The admin socket: a Unix socket on which `weir status` asks, one JSON object a line each way.
//!
//! ```text
//!   {"ask":"status"}                                    {"ok":true, ...}
//!   {"ask":"sessions"}                                  {"ok":true,"sessions":[...]}      1000 at most
//!   {"ask":"conferences"}                               {"ok":true,"conferences":[...]}   1000 at most
//!   {"ask":"ended"}                                     {"ok":true,"ended":[...]}         1000 at most, the newest first
//!   {"ask":"capture","context":7,"on":true,"file":"a.pcap","max_bytes":0}
//!   {"ask":"trace","call_id":"a","seconds":60}          {"ok":true,"seconds":60}, and then an event a line (`trace`)
//!   {"ask":"drain","on":true}  {"ask":"shutdown"}
//!                                                       {"ok":false,"error":"..."}
//! ```
//!
//! Who may open the socket may do all of this; the file is for its owner only.

mod follow;
mod serve;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::trace::Wanted;
pub(crate) use serve::{Admin, bind, serve};

/// The section `[admin]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Path of the socket; without one, `control.sock` in the folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
}

/// What is asked, one object a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "lowercase", deny_unknown_fields)]
pub enum Ask {
    /// What runs where, and how much of it.
    Status {},
    /// The established sessions.
    Sessions {},
    /// The conferences.
    Conferences {},
    /// The RTP legs that have ended.
    Ended {},
    /// Write the packets of a context, or what the peer of one leg of it sends, to a file of the data plane's spool, or stop
    /// that.
    Capture {
        /// Which context.
        context: u64,
        /// Begin, or end.
        on: bool,
        /// One RTP leg of it; 0 = the whole context.
        #[serde(default)]
        leg: u64,
        /// Name of the file in the spool's folder; ends in ".pcap", or in ".rtpdump" for one leg.
        file: String,
        /// Octets of the file at most; 0 = the data plane's limit.
        #[serde(default)]
        max_bytes: u64,
    },
    /// Refuse new sessions, or take them again.
    Drain {
        /// Refuse them.
        on: bool,
    },
    /// Follow one call or message: the answer is followed by an event a line until the trace ends or the socket is closed.
    Trace(Wanted),
    /// End the process.
    Shutdown {},
}
