//! What arrives at a device.

use std::sync::Arc;

use bytes::Bytes;

/// Names one session of one device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u64);

/// How a message came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Via {
    /// As a SIP MESSAGE.
    Pager,
    /// In an MSRP session.
    Chat(SessionId),
}

/// A message with content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Letter {
    /// How it came.
    pub via: Via,
    /// CPIM From; empty without CPIM.
    pub from: String,
    /// CPIM To.
    pub to: String,
    /// Who the network says it is from (P-Asserted-Identity of a MESSAGE).
    pub asserted: Option<String>,
    /// `imdn.Message-ID`.
    pub message_id: Option<String>,
    /// Notifications that it asks for.
    pub wants_delivered: bool,
    /// See there.
    pub wants_displayed: bool,
    /// CPIM DateTime as it came.
    pub date_time: Option<String>,
    /// Conversation-ID of a MESSAGE.
    pub conversation: Option<String>,
    /// The type of the content.
    pub content_type: String,
    /// The content.
    pub body: Bytes,
}

impl Letter {
    /// Content without CPIM around it.
    pub(crate) fn bare(via: Via, content_type: &str, body: Bytes) -> Letter {
        Letter {
            via,
            from: String::new(),
            to: String::new(),
            asserted: None,
            message_id: None,
            wants_delivered: false,
            wants_displayed: false,
            date_time: None,
            conversation: None,
            content_type: content_type.to_owned(),
            body,
        }
    }

    /// The content as text, as far as it is some.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A notification about one of our messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// How it came.
    pub via: Via,
    /// Of which message.
    pub message_id: String,
    /// `delivered`, `displayed`, `failed`, ...: the element of the document.
    pub status: String,
    /// Who got the message: `recipient-uri`, or CPIM From.
    pub recipient: String,
}

/// An INVITE that arrived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invitation {
    /// Our name for it.
    pub session: SessionId,
    /// Who the network says it is from, else From.
    pub from: String,
    /// Request-URI.
    pub target: String,
    /// True when the Contact is a focus: a conference invites.
    pub focus: bool,
    /// Subject.
    pub subject: Option<String>,
    /// Conversation-ID.
    pub conversation: Option<String>,
    /// Contribution-ID.
    pub contribution: Option<String>,
    /// Referred-By: who asked the conference to invite us.
    pub referred_by: Option<String>,
    /// `+sip.instance` in Accept-Contact: which device is meant.
    pub instance: Option<String>,
    /// Media kinds offered: "message", "audio", "video".
    pub media: Vec<String>,
    /// The other recipients, where the inviter tells them.
    pub recipients: Vec<String>,
    /// The description that was offered, as it came.
    pub description: bytes::Bytes,
}

/// Everything that a device can tell. Clones share what is large.
#[derive(Clone, Debug)]
pub enum Event {
    /// A REGISTER was granted, for so many seconds.
    Registered {
        /// Seconds.
        expires_s: u32,
    },
    /// A REGISTER was refused, or not answered (408).
    RegisterFailed {
        /// The status.
        code: u16,
    },
    /// A message with content.
    Letter(Arc<Letter>),
    /// A notification about one of our messages.
    Notice(Arc<Notice>),
    /// The peer types, or stopped.
    Composing {
        /// Where.
        session: SessionId,
        /// Who: CPIM From.
        from: String,
        /// Typing.
        active: bool,
    },
    /// Somebody invites us.
    Invited(Arc<Invitation>),
    /// A provisional response to our INVITE.
    Progress {
        /// Which.
        session: SessionId,
        /// 100 to 199.
        code: u16,
    },
    /// The answer to a description that was another's.
    Described {
        /// Which.
        session: SessionId,
        /// The answer.
        sdp: bytes::Bytes,
    },
    /// The dialog is confirmed.
    Up {
        /// Which.
        session: SessionId,
    },
    /// Media was negotiated anew.
    Changed {
        /// Which.
        session: SessionId,
    },
    /// The session is over, or never came to be.
    Ended {
        /// Which.
        session: SessionId,
        /// Who ended it.
        by: Side,
        /// The cause of its Reason header, or the response's status.
        cause: Option<u16>,
    },
    /// The MSRP session is connected and bound.
    ChatUp {
        /// Which.
        session: SessionId,
    },
    /// The MSRP session is gone.
    ChatDown {
        /// Which.
        session: SessionId,
        /// Why.
        why: String,
    },
    /// An MSRP REPORT.
    Report {
        /// Where.
        session: SessionId,
        /// Message-ID of MSRP.
        message_id: String,
        /// Its status.
        status: u16,
    },
    /// The roster of a conference changed.
    Roster {
        /// Which.
        session: SessionId,
        /// True when the notification held everything.
        full: bool,
    },
    /// The subscription ended.
    Unsubscribed {
        /// Which.
        session: SessionId,
        /// The reason that the notifier gave.
        reason: Option<String>,
    },
    /// The answer to a REFER's progress (`message/sipfrag`), its status.
    Referred {
        /// The status line's code.
        code: u16,
    },
    /// The far end did what it should not: a difference between two readings, a repeated request, broken framing.
    Fault(String),
}

/// A side of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// We did.
    Us,
    /// The peer or the network did.
    Them,
}
