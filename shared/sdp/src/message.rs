//! What a message line says: RFC 4975 §8, RFC 6714, RFC 7701 §8, RFC 5547.

use std::fmt;

/// The MSRP part of a media line.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// a=path: MSRP URIs with blanks between, first hop first. Read it with the crate `msrp`.
    pub path: String,
    /// a=accept-types, in order of preference; `*` stands for all.
    pub accept_types: Vec<String>,
    /// a=accept-wrapped-types: types that only come inside others.
    pub accept_wrapped_types: Vec<String>,
    /// a=max-size, octets of a whole message.
    pub max_size: Option<u64>,
    /// a=msrp-cema (RFC 6714): connect to c= and m=, and match by session id.
    pub cema: bool,
    /// a=chatroom (RFC 7701 §8)
    pub chatroom: Option<Chatroom>,
    /// a=file-selector and its companions (RFC 5547 §6): the line moves one file.
    pub file: Option<File>,
}

impl Message {
    /// Whether a message of this media type (`type/subtype`, parameters are cut) may be sent to the writer of
    /// the line (RFC 4975 §8.6).
    pub fn accepts(&self, media_type: &str) -> bool {
        accepts(&self.accept_types, media_type)
    }

    /// Whether this media type may come inside an accepted container.
    pub fn accepts_wrapped(&self, media_type: &str) -> bool {
        self.accepts(media_type) || accepts(&self.accept_wrapped_types, media_type)
    }
}

fn accepts(list: &[String], media_type: &str) -> bool {
    let bare = media_type.split(';').next().unwrap_or_default().trim();
    list.iter().any(|entry| {
        let entry = entry.split(';').next().unwrap_or_default();
        entry == "*"
            || entry.eq_ignore_ascii_case(bare)
            || entry
                .strip_suffix("/*")
                .zip(bare.split_once('/'))
                .is_some_and(|(t, (b, _))| t.eq_ignore_ascii_case(b))
    })
}

/// Paths hold session ids.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("accept_types", &self.accept_types)
            .field("accept_wrapped_types", &self.accept_wrapped_types)
            .field("max_size", &self.max_size)
            .field("cema", &self.cema)
            .field("chatroom", &self.chatroom)
            .finish_non_exhaustive()
    }
}

/// What the writer of an a=chatroom line can do. The line without tokens declares a chat room and no more.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Chatroom {
    /// `nickname`
    pub nickname: bool,
    /// `private-messages`
    pub private_messages: bool,
    /// Tokens that we do not know, in order.
    pub others: Vec<String>,
}

/// The attributes of a file, each as written (RFC 5547 §6).
#[derive(Clone, PartialEq, Eq, Default)]
pub struct File {
    /// a=file-selector; an answer repeats it.
    pub selector: Option<String>,
    /// a=file-transfer-id; another one is another transfer.
    pub transfer_id: Option<String>,
    /// a=file-disposition
    pub disposition: Option<String>,
    /// a=file-date
    pub date: Option<String>,
    /// a=file-icon
    pub icon: Option<String>,
    /// a=file-range
    pub range: Option<String>,
}

impl File {
    pub(crate) const NAMES: [&'static str; 6] =
        ["file-selector", "file-transfer-id", "file-disposition", "file-date", "file-icon", "file-range"];

    pub(crate) fn fields(&self) -> [&Option<String>; 6] {
        [&self.selector, &self.transfer_id, &self.disposition, &self.date, &self.icon, &self.range]
    }

    pub(crate) fn field_mut(&mut self, name: &str) -> Option<&mut Option<String>> {
        match name {
            "file-selector" => Some(&mut self.selector),
            "file-transfer-id" => Some(&mut self.transfer_id),
            "file-disposition" => Some(&mut self.disposition),
            "file-date" => Some(&mut self.date),
            "file-icon" => Some(&mut self.icon),
            "file-range" => Some(&mut self.range),
            _ => None,
        }
    }

    /// The size that the selector names, octets.
    pub fn size(&self) -> Option<u64> {
        let selector = self.selector.as_deref()?;
        // The name is quoted and may hold blanks; nothing else may.
        let outside: String =
            selector.split('"').enumerate().filter(|(i, _)| i % 2 == 0).map(|(_, part)| part).collect();
        outside.split_ascii_whitespace().find_map(|part| part.strip_prefix("size:")?.parse().ok())
    }
}

/// Names of files are the subscriber's.
impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("size", &self.size()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc4975_s8_6_accept_types() {
        let list = |types: &str| types.split(' ').map(str::to_owned).collect();
        let message = Message {
            accept_types: list("message/CPIM text/*"),
            accept_wrapped_types: list("image/jpeg"),
            ..Message::default()
        };
        assert!(message.accepts("message/cpim"));
        assert!(message.accepts("text/plain;charset=UTF-8"));
        assert!(!message.accepts("image/jpeg"));
        assert!(message.accepts_wrapped("image/jpeg"));
        assert!(!message.accepts_wrapped("application/sdp"));
        assert!(Message { accept_types: list("*"), ..Message::default() }.accepts("x/y"));
    }

    #[test]
    fn rfc5547_s6_size_of_the_selector() {
        let file = |selector: &str| File { selector: Some(selector.to_owned()), ..File::default() };
        assert_eq!(file("name:\"my size:7 cat.jpg\" type:image/jpeg size:4092").size(), Some(4092));
        assert_eq!(file("size:18446744073709551616").size(), None);
        assert_eq!(file("type:image/jpeg").size(), None);
    }
}
