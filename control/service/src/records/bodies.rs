//! What is inside the rows. Fields are added at the end of a struct only together with a migration: postcard
//! bodies are positional.

use base::{Private, UnixTime};
use cpm::imdn::Passed;
use serde::{Deserialize, Serialize};
use sip::{Dialog, Peer};

use crate::{Route, UserId};

/// Who may register, and with which secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Subscriber {
    /// The address of record.
    pub user: UserId,
    /// The `username` of digest credentials; empty = the user part of the address.
    pub name: Private<String>,
    /// The password.
    pub password: Private<String>,
    /// False: 403 "127 Service not authorised" to everything but REGISTER (REQ-PF-06).
    pub service: bool,
}

/// One registered contact of a user: a flow to a device.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Binding {
    /// Whose.
    pub user: UserId,
    /// The address of record as it was registered (the To of REGISTER): what P-Associated-URI shows.
    pub aor: Private<String>,
    /// The Contact URI.
    pub contact: Private<String>,
    /// The Contact's other parameters (feature tags), as they came, without expires, q, reg-id, +sip.instance.
    pub features: String,
    /// `+sip.instance`, with the angle brackets and without the quotes.
    pub instance: Option<Private<String>>,
    /// RFC 5626.
    pub reg_id: Option<u32>,
    /// Thousandths.
    pub q: u16,
    /// Where the REGISTER came from: requests to the device go there.
    pub flow: Peer,
    /// The subscriber may use the service (REQ-PF-06), as it was at registration.
    pub service: bool,
    /// RFC 3327, topmost first.
    pub path: Vec<Private<String>>,
    /// Call-ID of the last REGISTER that changed it.
    pub call_id: String,
    /// And its CSeq.
    pub cseq: u32,
    /// When it ends.
    pub expires: UnixTime,
    /// Rises when the device registers anew: which of two bindings is the newer one.
    pub registered: UnixTime,
}

/// A pre-defined group.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Group {
    /// The group's address.
    pub address: Private<String>,
    /// Its subject, shown to invitees.
    pub subject: String,
    /// Its members' addresses.
    pub members: Vec<UserId>,
    /// True: all members are invited when the first one joins; false: they come by themselves.
    pub invite_members: bool,
}

/// One side of a Participating Function's session.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Side {
    /// The dialog.
    pub dialog: Dialog,
    /// Where its requests go.
    pub route: Route,
    /// Our tag.
    pub tag: String,
    /// Which device of the served user it is, by binding key; empty towards the far end.
    pub device: Private<String>,
    /// The last SDP that we sent on it.
    pub sdp_sent: Private<Vec<u8>>,
    /// The last SDP that came on it.
    pub sdp_got: Private<Vec<u8>>,
    /// Negotiated session interval, seconds; 0 = none (RFC 4028).
    pub interval_s: u32,
    /// We are the refresher.
    pub refresher: bool,
    /// The peer allows UPDATE.
    pub update: bool,
    /// The media legs towards it, by media line; 0 = none.
    pub legs: Vec<u64>,
    /// Our Contact's user, where it is not our tag (a focus shows through).
    pub contact_user: Option<String>,
    /// And its parameters.
    pub contact_features: String,
}

/// An established session of a Participating Function.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SessionRow {
    /// The served user.
    pub user: UserId,
    /// True: for the originating user.
    pub originating: bool,
    /// True when the other end is a focus.
    pub group: bool,
    /// The dialog with the one who sent the INVITE.
    pub upstream: Side,
    /// The dialogs that the INVITE led to.
    pub downstream: Vec<Side>,
    /// The media context, 0 when SDP passes unchanged.
    pub context: u64,
    /// Every device that answered is kept (a fan-out).
    pub fan_out: bool,
    /// Conversation-ID.
    pub conversation: String,
    /// Contribution-ID.
    pub contribution: String,
    /// When the session was confirmed.
    pub since: UnixTime,
}

/// A dialog of a Controlling Function with one participant (INVITE usage).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DialogRow {
    /// The conference.
    pub focus: String,
    /// The participant.
    pub user: UserId,
    /// The dialog.
    pub dialog: Dialog,
    /// Where its requests go.
    pub route: Route,
    /// The last SDP that we sent.
    pub sdp_sent: Private<Vec<u8>>,
    /// The last SDP that came.
    pub sdp_got: Private<Vec<u8>>,
}

/// A media context as it was wanted last: what is put again into a data plane that has lost its tables.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ContextRow {
    /// Its id.
    pub context: u64,
    /// The row that it belongs to: a session id or a focus.
    pub owner: String,
    /// The changes that make it, as an encoded `contract::Batch` whose legs name their ports.
    pub wanted: Private<Vec<u8>>,
    /// The next leg number.
    pub legs_next: u64,
}

/// A conference.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RosterRow {
    /// The user part of the focus URI.
    pub focus: String,
    /// The body, encoded by the Controlling Function.
    pub body: Private<Vec<u8>>,
}

/// A file on its way to a group.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FileRow {
    /// The key of the row, by which its context knows it too.
    pub id: String,
    /// The user part of the group's URI.
    pub group: String,
    /// The body, encoded by the Controlling Function.
    pub body: Private<Vec<u8>>,
}

/// A subscription to a conference's events.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SubscriptionRow {
    /// The conference.
    pub focus: String,
    /// Who.
    pub user: UserId,
    /// The dialog.
    pub dialog: Dialog,
    /// Where its requests go.
    pub route: Route,
    /// Version of the last conference-info sent.
    pub version: u32,
    /// When it ends.
    pub expires: UnixTime,
}

/// One dialog of a relayed subscription.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RelayEnd {
    /// Our tag.
    pub tag: String,
    /// The dialog.
    pub dialog: Dialog,
    /// Where its requests go.
    pub route: Route,
    /// Our Contact's user.
    pub contact_user: String,
    /// Our Contact's parameters.
    pub contact_features: String,
}

/// A subscription that a Participating Function passes between its user and a focus.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RelayRow {
    /// The served user.
    pub user: UserId,
    /// Who sent the first request.
    pub first: RelayEnd,
    /// Whom it went to.
    pub second: RelayEnd,
    /// When it ends.
    pub expires: UnixTime,
}

/// A pager message in our hands: accepted, and not yet given to every device.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AcceptedMessage {
    /// The recipient.
    pub user: UserId,
    /// The request as it came.
    pub request: Private<Vec<u8>>,
    /// When.
    pub accepted: UnixTime,
    /// When it is worth nothing any more.
    pub expires: UnixTime,
    /// The bindings whose device has it: they do not get it again.
    #[serde(default)]
    pub taken: Vec<String>,
}

/// What an RTP leg came to (issue 3 "RTP statistics per leg in CDR-ready form"). In: from its peer; out: to it. Scores are
/// hundredths of a MOS, 0 where nobody can tell.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct EndedLeg {
    /// The context, which is the call's number everywhere.
    pub context: u64,
    /// The leg within it.
    pub leg: u64,
    /// When it ended.
    pub ended: UnixTime,
    /// Video, else audio.
    pub video: bool,
    /// How long it was there.
    pub up_ms: u64,
    /// Datagrams that came.
    pub packets_in: u64,
    /// Datagrams that were sent.
    pub packets_out: u64,
    /// Octets that came.
    pub bytes_in: u64,
    /// Octets that were sent.
    pub bytes_out: u64,
    /// Datagrams that were refused.
    pub dropped: u64,
    /// Of those, how many were over the agreed bandwidth.
    pub policed: u64,
    /// Lost on the way here.
    pub lost_in: u64,
    /// Lost on the way to the peer, as it says.
    pub lost_out: u64,
    /// That came late.
    pub reordered: u64,
    /// That came again.
    pub duplicates: u64,
    /// Jitter here.
    pub jitter_in_us: u32,
    /// Jitter at the peer, as it says.
    pub jitter_out_us: u32,
    /// There and back.
    pub round_trip_us: u32,
    /// How good it sounded here.
    pub mos_in_centi: u32,
    /// How good it sounds at the peer.
    pub mos_out_centi: u32,
    /// Sent again because the peer asked.
    pub retransmitted: u64,
}

/// IMDN de-duplication for (Message-ID, originator, recipient): CPM-FACTS §2.11, REQ-PF-17.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ImdnState {
    /// What was passed to the sender.
    pub passed: Passed,
    /// Devices that the message went to; 0 = unknown.
    pub devices: u8,
    /// Devices that reported a failure.
    pub devices_failed: u8,
    /// The recipient's address as the originator used it: what he is told in `recipient-uri`.
    pub recipient: Private<String>,
}

/// The subscriptions that REFERs inside a session have implied (RFC 3515).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ReferralsRow {
    /// The session.
    pub session: u64,
    /// Those whose last word has not been said.
    pub open: Vec<ReferralRow>,
}

/// One of them.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ReferralRow {
    /// Our tag in the asker's dialog.
    pub tag: String,
    /// CSeq of the REFER as it came.
    pub theirs: u32,
    /// And as it went on.
    pub ours: u32,
    /// When it ends at the latest.
    pub expires: UnixTime,
}
