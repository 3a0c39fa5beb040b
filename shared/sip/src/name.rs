//! Header field names: known ones as an enum, all others kept as written. Case-insensitive, compact forms
//! understood (RFC 3261 §7.3.3, RFC 3515, 3841, 3892, 4028, 6665, 8224).

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::scan::is_token;

/// The name of a header that has no variant of its own. Compared without regard to case.
#[derive(Clone, Debug)]
pub struct OtherName(Box<str>);

impl PartialEq for OtherName {
    fn eq(&self, other: &OtherName) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for OtherName {}

impl Hash for OtherName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for b in self.0.bytes() {
            state.write_u8(b.to_ascii_lowercase());
        }
    }
}

/// The tag of names outside the table.
pub(crate) const OTHER: u8 = u8::MAX;

pub(crate) struct Row {
    name: Name,
    text: &'static str,
    compact: u8,
    kind: Kind,
}

/// How often and in which form a header may stand in a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// One value, one field: a repetition is malformed.
    One,
    /// One value per field, but repeated fields are tolerated: what a peer adds is not our concern.
    Each,
    /// A comma list (RFC 3261 §7.3.1); repeated fields append.
    List,
}

macro_rules! names {
    ($($variant:ident = $text:literal, $compact:literal, $kind:ident;)*) => {
        /// A header field name.
        #[derive(Clone, PartialEq, Eq, Hash, Debug)]
        pub enum Name {
            $(#[doc = concat!("`", $text, "`")] $variant,)*
            /// Any other; make one with `Name::from("X-Name")`.
            Other(OtherName),
        }

        static ROWS: &[Row] = &[$(Row { name: Name::$variant, text: $text, compact: $compact, kind: Kind::$kind },)*];

        #[derive(Clone, Copy)]
        #[repr(u8)]
        enum Tag { $($variant,)* }

        impl Name {
            /// The row number in the table of known names, or `OTHER`.
            pub(crate) const fn tag(&self) -> u8 {
                match self {
                    $(Name::$variant => Tag::$variant as u8,)*
                    Name::Other(_) => OTHER,
                }
            }
        }
    };
}

names! {
    Accept = "Accept", 0, List;
    AcceptContact = "Accept-Contact", b'a', List;
    AcceptEncoding = "Accept-Encoding", 0, List;
    AcceptLanguage = "Accept-Language", 0, List;
    AlertInfo = "Alert-Info", 0, List;
    Allow = "Allow", 0, List;
    AllowEvents = "Allow-Events", b'u', List;
    AuthenticationInfo = "Authentication-Info", 0, Each;
    Authorization = "Authorization", 0, Each;
    CallId = "Call-ID", b'i', One;
    CallInfo = "Call-Info", 0, List;
    Contact = "Contact", b'm', List;
    ContentDisposition = "Content-Disposition", 0, One;
    ContentEncoding = "Content-Encoding", b'e', List;
    ContentId = "Content-ID", 0, One;
    ContentLanguage = "Content-Language", 0, List;
    ContentLength = "Content-Length", b'l', One;
    ContentTransferEncoding = "Content-Transfer-Encoding", 0, One;
    ContentType = "Content-Type", b'c', One;
    ContributionId = "Contribution-ID", 0, One;
    ConversationId = "Conversation-ID", 0, One;
    CSeq = "CSeq", 0, One;
    Date = "Date", 0, One;
    ErrorInfo = "Error-Info", 0, List;
    Event = "Event", b'o', One;
    Expires = "Expires", 0, One;
    FeatureCaps = "Feature-Caps", 0, List;
    FlowTimer = "Flow-Timer", 0, One;
    From = "From", b'f', One;
    Geolocation = "Geolocation", 0, List;
    GeolocationRouting = "Geolocation-Routing", 0, One;
    HistoryInfo = "History-Info", 0, List;
    Identity = "Identity", b'y', Each;
    IdentityInfo = "Identity-Info", b'n', Each;
    InReplyTo = "In-Reply-To", 0, List;
    InReplyToContributionId = "InReplyTo-Contribution-ID", 0, One;
    InfoPackage = "Info-Package", 0, One;
    Join = "Join", 0, One;
    MaxBreadth = "Max-Breadth", 0, One;
    MaxForwards = "Max-Forwards", 0, One;
    MessageExpires = "Message-Expires", 0, One;
    MimeVersion = "MIME-Version", 0, One;
    MinExpires = "Min-Expires", 0, One;
    MinSe = "Min-SE", 0, One;
    Organization = "Organization", 0, Each;
    PAccessNetworkInfo = "P-Access-Network-Info", 0, List;
    PAssertedIdentity = "P-Asserted-Identity", 0, List;
    PAssertedService = "P-Asserted-Service", 0, List;
    PAssociatedUri = "P-Associated-URI", 0, List;
    PCalledPartyId = "P-Called-Party-ID", 0, Each;
    PChargingFunctionAddresses = "P-Charging-Function-Addresses", 0, Each;
    PChargingVector = "P-Charging-Vector", 0, Each;
    PPreferredIdentity = "P-Preferred-Identity", 0, List;
    PPreferredService = "P-Preferred-Service", 0, List;
    PProfileKey = "P-Profile-Key", 0, Each;
    PRefusedUriList = "P-Refused-URI-List", 0, List;
    PServedUser = "P-Served-User", 0, Each;
    PUserDatabase = "P-User-Database", 0, Each;
    PVisitedNetworkId = "P-Visited-Network-ID", 0, List;
    Path = "Path", 0, List;
    PermissionMissing = "Permission-Missing", 0, List;
    Priority = "Priority", 0, Each;
    Privacy = "Privacy", 0, Each;
    ProxyAuthenticate = "Proxy-Authenticate", 0, Each;
    ProxyAuthenticationInfo = "Proxy-Authentication-Info", 0, Each;
    ProxyAuthorization = "Proxy-Authorization", 0, Each;
    ProxyRequire = "Proxy-Require", 0, List;
    RAck = "RAck", 0, One;
    Reason = "Reason", 0, List;
    RecordRoute = "Record-Route", 0, List;
    RecvInfo = "Recv-Info", 0, List;
    ReferSub = "Refer-Sub", 0, One;
    ReferTo = "Refer-To", b'r', One;
    ReferredBy = "Referred-By", b'b', One;
    RejectContact = "Reject-Contact", b'j', List;
    Replaces = "Replaces", 0, One;
    ReplyTo = "Reply-To", 0, Each;
    RequestDisposition = "Request-Disposition", b'd', List;
    Require = "Require", 0, List;
    RetryAfter = "Retry-After", 0, One;
    Route = "Route", 0, List;
    RSeq = "RSeq", 0, One;
    SecurityClient = "Security-Client", 0, List;
    SecurityServer = "Security-Server", 0, List;
    SecurityVerify = "Security-Verify", 0, List;
    Server = "Server", 0, Each;
    ServiceRoute = "Service-Route", 0, List;
    SessionExpires = "Session-Expires", b'x', One;
    SessionId = "Session-ID", 0, One;
    SessionReplaces = "Session-Replaces", 0, One;
    SipEtag = "SIP-ETag", 0, One;
    SipIfMatch = "SIP-If-Match", 0, One;
    Subject = "Subject", b's', Each;
    SubscriptionState = "Subscription-State", 0, One;
    Supported = "Supported", b'k', List;
    SuppressIfMatch = "Suppress-If-Match", 0, One;
    TargetDialog = "Target-Dialog", 0, One;
    Timestamp = "Timestamp", 0, One;
    To = "To", b't', One;
    TriggerConsent = "Trigger-Consent", 0, List;
    Unsupported = "Unsupported", 0, List;
    UserAgent = "User-Agent", 0, Each;
    Via = "Via", b'v', List;
    Warning = "Warning", 0, List;
    WwwAuthenticate = "WWW-Authenticate", 0, Each;
}

/// Slots of the lookup table; a power of two, and well above the number of names.
const SLOTS: usize = 512;

/// Mixes length, first, middle and last letter: enough to spread the known names.
const fn slot(name: &[u8]) -> usize {
    const fn low(b: Option<&u8>) -> usize {
        match b {
            Some(b) => (*b | 0x20) as usize,
            None => 0,
        }
    }
    let len = name.len();
    let (first, _) = (name.first(), ());
    let middle = if len == 0 { None } else { name.split_at(len / 2).1.first() };
    let late = if len < 3 { None } else { name.split_at(len - 3).1.first() };
    (len.wrapping_mul(131)
        ^ low(first).wrapping_mul(7)
        ^ low(middle).wrapping_mul(61)
        ^ low(late).wrapping_mul(23))
        % SLOTS
}

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler: an index out of range does not build"
)]
const fn build(rows: &[Row]) -> [u8; SLOTS] {
    let mut table = [OTHER; SLOTS];
    let mut row = 0;
    while row < rows.len() {
        let mut at = slot(rows[row].text.as_bytes());
        while table[at] != OTHER {
            at = (at + 1) % SLOTS;
        }
        table[at] = row as u8;
        row += 1;
    }
    table
}

static TABLE: [u8; SLOTS] = build(ROWS);

/// The tag of a name on the wire.
#[inline]
pub(crate) fn tag_of(name: &[u8]) -> u8 {
    if let [letter] = name {
        return compact(letter.to_ascii_lowercase());
    }
    let mut at = slot(name);
    while let Some(tag) = TABLE.get(at).copied() {
        let Some(row) = ROWS.get(usize::from(tag)) else { return OTHER };
        if row.text.as_bytes().eq_ignore_ascii_case(name) {
            return tag;
        }
        at = (at + 1) % SLOTS;
    }
    OTHER
}

fn compact(letter: u8) -> u8 {
    match letter {
        b'a' => Tag::AcceptContact as u8,
        b'b' => Tag::ReferredBy as u8,
        b'c' => Tag::ContentType as u8,
        b'd' => Tag::RequestDisposition as u8,
        b'e' => Tag::ContentEncoding as u8,
        b'f' => Tag::From as u8,
        b'i' => Tag::CallId as u8,
        b'j' => Tag::RejectContact as u8,
        b'k' => Tag::Supported as u8,
        b'l' => Tag::ContentLength as u8,
        b'm' => Tag::Contact as u8,
        b'n' => Tag::IdentityInfo as u8,
        b'o' => Tag::Event as u8,
        b'r' => Tag::ReferTo as u8,
        b's' => Tag::Subject as u8,
        b't' => Tag::To as u8,
        b'u' => Tag::AllowEvents as u8,
        b'v' => Tag::Via as u8,
        b'x' => Tag::SessionExpires as u8,
        b'y' => Tag::Identity as u8,
        _ => OTHER,
    }
}

/// The name of a tag; `None` for `OTHER`.
pub(crate) fn name_of(tag: u8) -> Option<&'static Name> {
    ROWS.get(usize::from(tag)).map(|row| &row.name)
}

/// The long form of a tag's name.
pub(crate) fn text_of(tag: u8) -> Option<&'static str> {
    ROWS.get(usize::from(tag)).map(|row| row.text)
}

impl Name {
    /// Every known name.
    pub fn known() -> impl Iterator<Item = &'static Name> {
        ROWS.iter().map(|row| &row.name)
    }

    /// The long form; an unknown name as it was written.
    pub fn as_str(&self) -> &str {
        match self {
            Name::Other(other) => &other.0,
            known => text_of(known.tag()).unwrap_or_default(),
        }
    }

    /// The one-letter form, where there is one.
    pub fn compact(&self) -> Option<char> {
        let letter = ROWS.get(usize::from(self.tag()))?.compact;
        (letter != 0).then_some(char::from(letter))
    }

    /// True for headers whose value is a comma list (RFC 3261 §7.3.1). Unknown headers are not split.
    pub fn is_list(&self) -> bool {
        ROWS.get(usize::from(self.tag())).is_some_and(|row| row.kind == Kind::List)
    }

    /// True for headers that may stand in a message only once.
    pub fn is_single(&self) -> bool {
        ROWS.get(usize::from(self.tag())).is_some_and(|row| row.kind == Kind::One)
    }
}

/// From text; a character that no header name may have becomes `-`, so that nothing can be smuggled in.
impl From<&str> for Name {
    fn from(text: &str) -> Name {
        if let Some(name) = name_of(tag_of(text.as_bytes())) {
            return name.clone();
        }
        let clean: String =
            text.chars().map(|c| if u8::try_from(c).is_ok_and(is_token) { c } else { '-' }).collect();
        Name::Other(OtherName(clean.into()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_found_in_any_case_and_by_its_letter() {
        assert!(ROWS.len() < usize::from(OTHER));
        for (at, row) in ROWS.iter().enumerate() {
            assert_eq!(usize::from(row.name.tag()), at);
            assert_eq!(Name::from(row.text), row.name);
            assert_eq!(Name::from(row.text.to_ascii_uppercase().as_str()), row.name);
            assert_eq!(Name::from(row.text.to_ascii_lowercase().as_str()), row.name);
            if let Some(letter) = row.name.compact() {
                assert_eq!(Name::from(letter.to_string().as_str()), row.name);
                assert_eq!(Name::from(letter.to_ascii_uppercase().to_string().as_str()), row.name);
            }
        }
        for letter in b'a'..=b'z' {
            if let Some(name) = name_of(compact(letter)) {
                assert_eq!(name.compact(), Some(char::from(letter)));
            }
        }
    }

    #[test]
    fn unknown_names_compare_without_case_and_cannot_smuggle() {
        assert_eq!(Name::from("X-Foo"), Name::from("x-fOO"));
        assert_ne!(Name::from("X-Foo"), Name::from("X-Fop"));
        assert_eq!(Name::from("X\r\nVia").as_str(), "X--Via");
    }
}
