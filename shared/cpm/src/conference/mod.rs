//! The conference event package's document (RFC 4575), with the nickname attribute of XCON (RFC 6501) and
//! the `yourown` of RCS (CPM-FACTS §2.15).
//!
//! A focus writes [`ConferenceInfo`] documents; a subscriber applies them to its [`Roster`]. Service URIs,
//! sidebars, cascaded foci and languages are read over.

mod read;
mod roster;
mod write;

pub use roster::{Applied, Roster};

/// The event package's name.
pub const EVENT: &str = "conference";

const NAMESPACE: &str = "urn:ietf:params:xml:ns:conference-info";
const XCON: &str = "urn:ietf:params:xml:ns:xcon-conference-info";

/// What an element says about its earlier self (RFC 4575 §4.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum State {
    /// Replaces it. The default of the schema.
    #[default]
    Full,
    /// Adds to it.
    Partial,
    /// Removes it.
    Deleted,
}

/// The document.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ConferenceInfo {
    /// The conference URI.
    pub entity: String,
    /// Full, or a change since the version before; deleted: the conference is over.
    pub state: State,
    /// One more with every document of a subscription.
    pub version: u32,
    /// What the conference is.
    pub description: Option<Description>,
    /// How it is going.
    pub conference_state: Option<ConferenceState>,
    /// Who is in it.
    pub users: Option<Users>,
}

/// `conference-description`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Description {
    /// A name for people.
    pub display_text: Option<String>,
    /// What it is about.
    pub subject: Option<String>,
    /// Any other words.
    pub free_text: Option<String>,
    /// Addresses of the conference with their purpose, e.g. `participation`.
    pub conf_uris: Vec<(String, Option<String>)>,
    /// The largest number of users.
    pub maximum_user_count: Option<u32>,
    /// The media of the conference.
    pub available_media: Vec<AvailableMedia>,
}

/// An entry of `available-media`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AvailableMedia {
    /// Ties it to the `media` of endpoints.
    pub label: String,
    /// `audio`, `video`, `text`, `message`.
    pub kind: String,
    /// `sendrecv`, `sendonly`, `recvonly`, `inactive`.
    pub status: Option<String>,
}

/// `conference-state`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ConferenceState {
    /// Users that are counted; hidden ones are not.
    pub user_count: Option<u32>,
    /// False before the first and after the last participant.
    pub active: Option<bool>,
    /// True when nobody new gets in.
    pub locked: Option<bool>,
}

/// `users`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Users {
    /// Full: whoever is not here is gone.
    pub state: State,
    /// The users, each once.
    pub users: Vec<User>,
}

/// `user`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct User {
    /// The address that identifies the user in this conference.
    pub entity: String,
    /// Full, partial or deleted.
    pub state: State,
    /// XCON: the nickname in the room.
    pub nickname: Option<String>,
    /// RCS: this is the subscriber itself.
    pub your_own: bool,
    /// A name for people.
    pub display_text: Option<String>,
    /// `administrator`, `participant`, ...
    pub roles: Vec<String>,
    /// The user's sessions.
    pub endpoints: Vec<Endpoint>,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "User(***, {:?}, {:?})", self.state, self.endpoints)
    }
}

/// `endpoint`: one session of a user.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Endpoint {
    /// Identifies it within the user; a Contact or GRUU, or the user's own address.
    pub entity: String,
    /// Full, partial or deleted.
    pub state: State,
    /// Who had it brought in.
    pub referred_by: Option<String>,
    /// Where it stands.
    pub status: Option<Status>,
    /// How it came in.
    pub joining: Option<Joining>,
    /// How it went.
    pub disconnection: Option<Disconnection>,
    /// When it went or why, in words.
    pub disconnection_reason: Option<String>,
    /// Its media streams.
    pub media: Vec<Media>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint({:?}, {:?})", self.state, self.status)
    }
}

/// A media stream of an endpoint.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Media {
    /// Unique within the endpoint.
    pub id: String,
    /// `audio`, `video`, `text`, `message`.
    pub kind: Option<String>,
    /// The label of the conference's medium.
    pub label: Option<String>,
    /// The RTP SSRC that it sends with.
    pub src_id: Option<String>,
    /// `sendrecv`, `sendonly`, `recvonly`, `inactive`.
    pub status: Option<String>,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$vdoc])* $variant),* }

        impl $name {
            /// The word on the wire.
            pub const fn word(self) -> &'static str {
                match self { $($name::$variant => $word),* }
            }

            /// Reads the word.
            pub fn parse(word: &str) -> Option<Self> {
                match word.trim() { $($word => Some($name::$variant),)* _ => None }
            }
        }
    };
}

words! {
    /// Where an endpoint stands (RFC 4575 §5.7.3).
    Status {
        /// Not tried yet.
        Pending = "pending",
        /// The focus calls it.
        DialingOut = "dialing-out",
        /// It calls the focus.
        DialingIn = "dialing-in",
        /// It rings.
        Alerting = "alerting",
        /// On hold.
        OnHold = "on-hold",
        /// In.
        Connected = "connected",
        /// In, but its media is not passed on.
        MutedViaFocus = "muted-via-focus",
        /// On its way out.
        Disconnecting = "disconnecting",
        /// Out.
        Disconnected = "disconnected",
    }
}

words! {
    /// How an endpoint came in (RFC 4575 §5.7.4).
    Joining {
        /// It called.
        DialedIn = "dialed-in",
        /// It was called.
        DialedOut = "dialed-out",
        /// It is the focus.
        FocusOwner = "focus-owner",
    }
}

words! {
    /// How an endpoint went (RFC 4575 §5.7.6).
    Disconnection {
        /// By itself.
        Departed = "departed",
        /// It was removed.
        Booted = "booted",
        /// Its session broke, or it could not be reached.
        Failed = "failed",
        /// It was busy or declined.
        Busy = "busy",
    }
}

#[cfg(test)]
mod tests;
