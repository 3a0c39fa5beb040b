//! One event of a trace, as it goes over the admin socket and into a file: a JSON object a line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How the Participating Functions are called in `from` and `to`.
pub(super) const PARTICIPATING: &str = "PF";
/// How the Controlling Functions are called.
pub(super) const CONTROLLING: &str = "CF";
/// How the registrar is called.
pub(super) const REGISTRAR: &str = "registrar";
/// How the data plane is called.
pub(super) const DATAPLANE: &str = "data plane";

/// What kind of thing happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A SIP message: on the wire, or between two functions of the node (then without `peer`).
    #[default]
    Sip,
    /// A function has decided something; `from` and `to` are both the function.
    Decision,
    /// A word of the contract: an order for the data plane, its answer, its news.
    Contract,
    /// What the data plane counted of a leg that has ended.
    Media,
    /// Events were lost, because the tracer was too slow for them.
    Lost,
    /// The trace is over: the last line.
    End,
}

/// One event. Absent fields are left out of the JSON.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// The events of a trace are counted from 1; those that were lost are counted too.
    pub n: u64,
    /// When, RFC 3339 in UTC.
    pub at: String,
    /// Microseconds since the trace began.
    pub us: u64,
    /// What kind of thing happened.
    pub kind: Kind,
    /// Who did it: `PF`, `CF`, `registrar`, `data plane`, or a party: a letter for the user, his (masked) name, and the number
    /// of his device where he has several, e.g. `A ***01`, `B/2 ***02`.
    pub from: String,
    /// To whom.
    pub to: String,
    /// What, in a line.
    pub summary: String,
    /// The Call-ID of a message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
    /// The Conversation-ID of a message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<String>,
    /// The Contribution-ID of a message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contribution_id: Option<String>,
    /// The CSeq of a message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cseq: Option<String>,
    /// The transport of a message on the wire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    /// The address of the other end of the wire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Octets of a message's body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub octets: Option<u64>,
    /// A message's body, where bodies were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The media context, 16 hex digits as in logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// What was counted, by name: of a leg that has ended (as in `weir status --ended --json`), of a trace that is over
    /// (`events`, `lost`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub numbers: BTreeMap<String, u64>,
}
