//! The closed enums that metrics are labelled with.

use sip::{Dropped, Why};

/// A closed enum as a label.
pub(crate) trait Label: Copy + PartialEq + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// Every value.
    fn all() -> Vec<Self>;
    /// The label's value.
    fn label(self) -> &'static str;
}

/// Why a SIP message from the network reached no lane (it may have been answered), or one of ours no peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Discard {
    /// The stack's reasons: malformed in one way or another, repeated, belonging to nothing.
    Stack(Dropped),
    /// A stream ended, or was given up, within a message.
    Unfinished,
    /// Screened out: what nobody here supports.
    Screened,
    /// More waits for the front than may.
    FrontFull,
    /// More waits for its lane than may: 503.
    LaneFull,
    /// Its lane is being taken up from the store: 503.
    LaneDown,
    /// A new session while the node drains: 503.
    Draining,
    /// An event for a lane beyond the last limit of its queue.
    LaneOverflow,
    /// Ours: the socket took no more, a retransmission mends it.
    SendBlocked,
    /// Ours: there is no way to that peer.
    Unsendable,
}

impl Label for Discard {
    const NAME: &'static str = "reason";

    fn all() -> Vec<Self> {
        let stack = [
            Dropped::StrayResponse,
            Dropped::ForeignVia,
            Dropped::Retransmission,
            Dropped::RepeatedResponse,
            Dropped::StrayCancel,
            Dropped::Merged,
            Dropped::NoRoom,
            Dropped::Shed(sip::overload::Shed::Share),
            Dropped::Shed(sip::overload::Shed::Late),
            Dropped::RefusedAck,
            Dropped::TooManyForks,
            Dropped::LateAnswer,
        ];
        let own = [
            Discard::Unfinished,
            Discard::Screened,
            Discard::FrontFull,
            Discard::LaneFull,
            Discard::LaneDown,
            Discard::Draining,
            Discard::LaneOverflow,
            Discard::SendBlocked,
            Discard::Unsendable,
        ];
        let malformed = Why::ALL.into_iter().map(Dropped::Malformed);
        malformed.chain(stack).map(Discard::Stack).chain(own).collect()
    }

    fn label(self) -> &'static str {
        match self {
            Discard::Stack(dropped) => dropped.label(),
            Discard::Unfinished => "unfinished",
            Discard::Screened => "screened",
            Discard::FrontFull => "front_full",
            Discard::LaneFull => "lane_full",
            Discard::LaneDown => "lane_down",
            Discard::Draining => "draining",
            Discard::LaneOverflow => "lane_overflow",
            Discard::SendBlocked => "send_blocked",
            Discard::Unsendable => "unsendable",
        }
    }
}

/// A fieldless enum with its labels, in one place.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $label:literal { $($(#[$vdoc:meta])* $value:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum $name { $($(#[$vdoc])* $value,)* }

        impl Label for $name {
            const NAME: &'static str = $label;
            fn all() -> Vec<Self> {
                vec![$($name::$value),*]
            }
            fn label(self) -> &'static str {
                match self { $($name::$value => $text,)* }
            }
        }
    };
}

label! {
    /// Why a connection ended.
    Close, "reason" {
        /// The peer closed it.
        Peer = "peer",
        /// The system reported a fault.
        Broken = "broken",
        /// A message took too long to come, or none came at all.
        Slow = "slow",
        /// Nothing came for long.
        Idle = "idle",
        /// The peer did not read what we wrote.
        Unread = "unread",
        /// What came cannot be framed.
        Malformed = "malformed",
        /// No TLS session could be made.
        Tls = "tls",
        /// The peer could not be reached.
        Unreachable = "unreachable",
        /// There are too many connections already.
        Limit = "limit",
        /// We shut down.
        Shutdown = "shutdown",
    }
}

label! {
    /// What became of something that was asked for.
    Outcome, "outcome" {
        /// Done.
        Done = "done",
        /// Refused by the other side.
        Refused = "refused",
        /// Not possible now.
        Unavailable = "unavailable",
    }
}

label! {
    /// What came of locating a name (RFC 3263).
    Located, "outcome" {
        /// One peer or more.
        Found = "found",
        /// The DNS knows none.
        Nobody = "nobody",
        /// The DNS did not say in time.
        Late = "late",
        /// Too many are being located.
        Full = "full",
    }
}

label! {
    /// Why a request to a name left a peer (RFC 3263 §4.3), and whether there was another one.
    FailOver, "reason" {
        /// 503 came: to the next one.
        Unavailable = "unavailable",
        /// Nothing came, or no connection: to the next one.
        Silent = "silent",
        /// The peer's certificate is for other names: to the next one.
        Certificate = "certificate",
        /// There was no other one: the request has failed.
        Exhausted = "exhausted",
    }
}

label! {
    /// What became of the copy of a message for a collector.
    Copied, "outcome" {
        /// It went out.
        Sent = "sent",
        /// The socket did not take it.
        Lost = "lost",
    }
}

label! {
    /// What became of a certificate that was replaced on disk.
    Reload, "outcome" {
        /// It is shown.
        Done = "done",
        /// It cannot be read, or its key is another one's: the old one is shown.
        Failed = "failed",
    }
}

label! {
    /// What became of a question on the admin socket.
    Question, "outcome" {
        /// Answered.
        Answered = "answered",
        /// Understood, and not possible.
        Refused = "refused",
        /// No question that is known.
        Malformed = "malformed",
        /// Too many ask at once: the connection was closed unread.
        Busy = "busy",
        /// The connection ended within a question, or stayed silent for too long.
        Unfinished = "unfinished",
    }
}

label! {
    /// Classes of final answers.
    Answer, "class" {
        /// 200 to 299.
        Success = "2xx",
        /// 300 to 399.
        Redirection = "3xx",
        /// 400 to 499.
        Client = "4xx",
        /// 500 to 599.
        Server = "5xx",
        /// 600 to 699.
        Global = "6xx",
    }
}

impl Answer {
    /// The class of a final status code.
    pub(crate) fn of(code: u16) -> Option<Answer> {
        Some(match code {
            200..=299 => Answer::Success,
            300..=399 => Answer::Redirection,
            400..=499 => Answer::Client,
            500..=599 => Answer::Server,
            600..=699 => Answer::Global,
            _ => return None,
        })
    }
}

label! {
    /// Kinds of news from the data plane.
    Heard, "kind" {
        /// A leg is up.
        LegUp = "leg_up",
        /// A leg is lost.
        LegLost = "leg_lost",
        /// An RTP leg has learned its peer.
        Latched = "latched",
        /// A message through MSRP ended.
        Report = "report",
        /// A message wants a decision.
        Message = "message",
        /// A leg's queue is long, or no longer so.
        Pressure = "pressure",
        /// Counters of legs.
        Counters = "counters",
        /// Load of the data plane.
        Load = "load",
    }
}

label! {
    /// What lanes have live.
    Live, "what" {
        /// Registered contacts.
        Bindings = "bindings",
        /// 1-1 sessions.
        Sessions = "sessions",
        /// Messages under way.
        Messages = "messages",
        /// Relayed subscriptions.
        Relays = "relays",
        /// Conferences.
        Conferences = "conferences",
        /// Files on their way to groups.
        Files = "files",
    }
}

label! {
    /// What lanes count beside requests.
    Incident, "what" {
        /// Challenges sent.
        Challenge = "challenge",
        /// Credentials that were wrong.
        AuthFailed = "auth_failed",
        /// Requests refused because too many wait for facts.
        AskRefused = "ask_refused",
        /// Outputs for which there was no room: zero, or a fault.
        OutputLost = "output_lost",
        /// Timers for which there was no room.
        TimerRefused = "timer_refused",
        /// Rows of the store that could not be read back.
        RowUnread = "row_unread",
        /// Contacts of a 2xx that could not be read.
        ContactUnread = "contact_unread",
        /// ACKs that belong to no session.
        AckStray = "ack_stray",
        /// Session descriptions that do not parse, each answered 488.
        DescriptionMalformed = "description_malformed",
    }
}

label! {
    /// Methods of requests.
    MethodLabel, "method" {
        /// INVITE.
        Invite = "invite",
        /// BYE.
        Bye = "bye",
        /// REGISTER.
        Register = "register",
        /// OPTIONS.
        Options = "options",
        /// MESSAGE.
        Message = "message",
        /// REFER.
        Refer = "refer",
        /// SUBSCRIBE.
        Subscribe = "subscribe",
        /// NOTIFY.
        Notify = "notify",
        /// INFO.
        Info = "info",
        /// PRACK.
        Prack = "prack",
        /// UPDATE.
        Update = "update",
        /// PUBLISH.
        Publish = "publish",
        /// Any other.
        Other = "other",
    }
}

impl MethodLabel {
    pub(crate) fn of(method: &sip::Method) -> MethodLabel {
        match method {
            sip::Method::Invite => MethodLabel::Invite,
            sip::Method::Bye => MethodLabel::Bye,
            sip::Method::Register => MethodLabel::Register,
            sip::Method::Options => MethodLabel::Options,
            sip::Method::Message => MethodLabel::Message,
            sip::Method::Refer => MethodLabel::Refer,
            sip::Method::Subscribe => MethodLabel::Subscribe,
            sip::Method::Notify => MethodLabel::Notify,
            sip::Method::Info => MethodLabel::Info,
            sip::Method::Prack => MethodLabel::Prack,
            sip::Method::Update => MethodLabel::Update,
            sip::Method::Publish => MethodLabel::Publish,
            _ => MethodLabel::Other,
        }
    }
}

impl Label for sip::Transport {
    const NAME: &'static str = "transport";
    fn all() -> Vec<Self> {
        sip::Transport::ALL.to_vec()
    }
    fn label(self) -> &'static str {
        sip::Transport::label(self)
    }
}

impl Label for service::Table {
    const NAME: &'static str = "table";
    fn all() -> Vec<Self> {
        service::Table::ALL.to_vec()
    }
    fn label(self) -> &'static str {
        service::Table::label(self)
    }
}

impl Label for contract::refusal::Reason {
    const NAME: &'static str = "reason";
    fn all() -> Vec<Self> {
        (0..64).filter_map(|n| contract::refusal::Reason::try_from(n).ok()).collect()
    }
    fn label(self) -> &'static str {
        use contract::refusal::Reason as R;
        match self {
            R::Unspecified => "unspecified",
            R::Version => "version",
            R::Epoch => "epoch",
            R::Generation => "generation",
            R::UnknownContext => "unknown_context",
            R::UnknownLeg => "unknown_leg",
            R::UnknownPath => "unknown_path",
            R::BadLeg => "bad_leg",
            R::BadPath => "bad_path",
            R::NoPort => "no_port",
            R::Limit => "limit",
            R::Draining => "draining",
            R::Unsupported => "unsupported",
        }
    }
}
