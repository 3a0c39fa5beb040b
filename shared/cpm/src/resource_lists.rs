//! Recipient lists (RFC 4826, with RFC 5364 copy control), as INVITEs to the conference factory, list
//! MESSAGEs and multiple REFERs carry them (RFC 5366, RFC 5365, RFC 5368; CPM-FACTS §2.3).

use roxmltree::Node;

use crate::xml::{Writer, attribute, boolean, child_text, parse, root};
use crate::{Error, Limits, SessionReplaces, address};

const NAMESPACE: &str = "urn:ietf:params:xml:ns:resource-lists";
const COPY_CONTROL: &str = "urn:ietf:params:xml:ns:copycontrol";

/// How a recipient is named to the others (RFC 5364 §4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Copy {
    /// Named as a first recipient; also when the list says nothing.
    #[default]
    To,
    /// Named as a further recipient.
    Cc,
    /// Not named at all.
    Bcc,
}

/// One recipient.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// The address, without the headers that the list may have put behind its `?`.
    pub uri: String,
    /// How he is named to the others.
    pub copy: Copy,
    /// His address is not shown to the others.
    pub anonymize: bool,
    /// His name in the list.
    pub display_name: Option<String>,
    /// The method that a REFER asks for this one, e.g. `BYE` (RFC 5368 §6); upper case.
    pub method: Option<String>,
    /// The one-to-one session that this invitation replaces for him (CPM-FACTS §2.2): a header of his own
    /// INVITE, lifted out of the address.
    pub session_replaces: Option<SessionReplaces>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entry({:?}, anonymize: {})", self.copy, self.anonymize)
    }
}

impl Entry {
    /// A recipient by address.
    pub fn new(uri: impl Into<String>) -> Self {
        Entry { uri: uri.into(), ..Entry::default() }
    }
}

/// A list with everything that it names here; what it names elsewhere is only counted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ResourceList {
    /// The recipients in order, nested lists flattened.
    pub entries: Vec<Entry>,
    /// References to lists elsewhere (`external`, `entry-ref`): a server that does not follow them refuses
    /// or reports them (RFC 5318).
    pub references: usize,
}

impl ResourceList {
    /// Reads a document.
    pub fn read(bytes: &[u8], limits: &Limits) -> Result<Self, Error> {
        let document = parse(bytes, limits)?;
        let root = root(&document, "resource-lists")?;
        let mut list = ResourceList::default();
        for node in root.descendants().filter(Node::is_element) {
            match node.tag_name().name() {
                "entry" if list.entries.len() == limits.entries_max => {
                    return Err(Error::TooLarge("list entries"));
                }
                "entry" => list.entries.push(entry(node)?),
                "external" | "entry-ref" => list.references += 1,
                _ => {}
            }
        }
        Ok(list)
    }

    /// Writes a document with one list.
    pub fn write(&self) -> String {
        let mut w = Writer::new();
        w.element("resource-lists", &[("xmlns", NAMESPACE), ("xmlns:cp", COPY_CONTROL)], |w| {
            w.element("list", &[], |w| self.entries.iter().for_each(|entry| write_entry(w, entry)));
        });
        w.finish()
    }

    /// The list that the others are shown (`recipient-list-history`, RFC 5364 §5): no bcc, and who wants to
    /// stay unnamed only as such, all of them in one entry.
    pub fn history(&self) -> ResourceList {
        let shown = |e: &&Entry| e.copy != Copy::Bcc && !e.anonymize;
        let mut entries: Vec<Entry> = self
            .entries
            .iter()
            .filter(shown)
            .map(|e| Entry { copy: e.copy, display_name: e.display_name.clone(), ..Entry::new(&*e.uri) })
            .collect();
        for copy in [Copy::To, Copy::Cc] {
            if self.entries.iter().any(|e| e.copy == copy && e.anonymize) {
                entries.push(Entry { copy, ..Entry::new(address::ANONYMOUS) });
            }
        }
        ResourceList { entries, references: 0 }
    }
}

fn write_entry(w: &mut Writer, entry: &Entry) {
    let copy = match entry.copy {
        Copy::To => "to",
        Copy::Cc => "cc",
        Copy::Bcc => "bcc",
    };
    let mut uri = entry.uri.clone();
    if let Some(method) = &entry.method {
        uri.push_str(";method=");
        uri.push_str(method);
    }
    if let Some(replaces) = &entry.session_replaces {
        uri.push_str("?Session-Replaces=");
        uri.push_str(&escape(replaces.as_str()));
    }
    let mut attributes = vec![("uri", uri.as_str()), ("cp:copyControl", copy)];
    if entry.anonymize {
        attributes.push(("cp:anonymize", "true"));
    }
    match &entry.display_name {
        Some(name) => w.element("entry", &attributes, |w| w.text("display-name", name)),
        None => w.empty("entry", &attributes),
    }
}

fn entry(node: Node<'_, '_>) -> Result<Entry, Error> {
    let full = attribute(node, "uri").ok_or(Error::Missing("uri"))?.trim();
    let (uri, headers) = match full.split_once('?') {
        Some((uri, headers)) => (uri, headers),
        None => (full, ""),
    };
    if uri.len() > address::OCTETS_MAX || headers.len() > address::OCTETS_MAX {
        return Err(Error::TooLarge("entry"));
    }
    if !uri.contains(':')
        || uri.chars().any(|c| c.is_control() || c.is_whitespace() || matches!(c, '<' | '>' | '"'))
    {
        return Err(Error::Value("uri"));
    }
    let (uri, method) = lift_method(uri);
    // The namespace is not looked at: some clients spell it copyControl, and some leave it out.
    let copy = match attribute(node, "copyControl").map(str::to_ascii_lowercase).as_deref() {
        None | Some("to") => Copy::To,
        Some("cc") => Copy::Cc,
        Some("bcc") => Copy::Bcc,
        Some(_) => return Err(Error::Value("copyControl")),
    };
    let anonymize = match attribute(node, "anonymize") {
        Some(text) => boolean(text).ok_or(Error::Value("anonymize"))?,
        None => false,
    };
    Ok(Entry {
        uri,
        copy,
        anonymize,
        display_name: child_text(node, "display-name").filter(|n| !n.is_empty()),
        method,
        session_replaces: session_replaces(headers)?,
    })
}

/// Takes `;method=` out of an address.
fn lift_method(uri: &str) -> (String, Option<String>) {
    let mut method = None;
    let mut kept: Vec<&str> = Vec::new();
    for part in uri.split(';') {
        match part.split_once('=') {
            Some((name, value)) if name.eq_ignore_ascii_case("method") && !kept.is_empty() => {
                method = Some(value.to_ascii_uppercase());
            }
            _ => kept.push(part),
        }
    }
    (kept.join(";"), method)
}

fn session_replaces(headers: &str) -> Result<Option<SessionReplaces>, Error> {
    headers
        .split('&')
        .filter_map(|h| h.split_once('='))
        .find(|(name, _)| name.eq_ignore_ascii_case(SessionReplaces::HEADER))
        .map(|(_, value)| SessionReplaces::parse(&unescape(value)?))
        .transpose()
}

fn unescape(value: &str) -> Result<String, Error> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(b) = rest.next() {
        if b != b'%' {
            out.push(b);
            continue;
        }
        let mut digit =
            || rest.next().and_then(|d| char::from(d).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(Error::Escape) };
        out.push(high << 4 | low);
    }
    String::from_utf8(out).map_err(|_| Error::Characters)
}

/// Everything but what RFC 3261 §25.1 lets stand in a header value of a URI.
fn escape(value: &str) -> String {
    use std::fmt::Write;
    value.bytes().fold(String::with_capacity(value.len()), |mut out, b| {
        match b {
            b'a'..=b'z'
            | b'A'..=b'Z'
            | b'0'..=b'9'
            | b'-'
            | b'_'
            | b'.'
            | b'!'
            | b'~'
            | b'*'
            | b'\''
            | b'('
            | b')' => {
                out.push(char::from(b));
            }
            other => _ = write!(out, "%{other:02X}"),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<ResourceList, Error> {
        ResourceList::read(text.as_bytes(), &Limits::default())
    }

    // CPM-FACTS §2.3: the copy control namespace comes in two spellings.
    #[test]
    fn both_spellings_of_copy_control_are_read() {
        for ns in ["urn:ietf:params:xml:ns:copycontrol", "urn:ietf:params:xml:ns:copyControl"] {
            let list = read(&format!(
                "<resource-lists xmlns='urn:ietf:params:xml:ns:resource-lists' xmlns:cp='{ns}'><list>\
                 <entry uri='tel:+15550100002' cp:copyControl='to'/><entry uri='tel:+15550100003' cp:copyControl='Cc'/>\
                 <list><entry uri='sip:carol@example.org' cp:copyControl='bcc' cp:anonymize='true'/></list>\
                 <entry uri='sip:dan@example.org'><display-name>Dan</display-name></entry><external anchor='x'/>\
                 </list></resource-lists>"
            ))
            .unwrap();
            let copies: Vec<_> = list.entries.iter().map(|e| (e.uri.as_str(), e.copy, e.anonymize)).collect();
            assert_eq!(
                copies,
                [
                    ("tel:+15550100002", Copy::To, false),
                    ("tel:+15550100003", Copy::Cc, false),
                    ("sip:carol@example.org", Copy::Bcc, true),
                    ("sip:dan@example.org", Copy::To, false),
                ]
            );
            assert_eq!((list.entries[3].display_name.as_deref(), list.references), (Some("Dan"), 1));
        }
    }

    // CPM-FACTS §2.2, §7.5 item 6: Session-Replaces hides inside the entry's address.
    #[test]
    fn headers_and_methods_are_lifted_out_of_the_address() {
        let list = read(
            "<resource-lists><list><entry uri='sip:bob@example.com;user=phone?Session-Replaces=51f3%2Dc2&amp;Subject=x'/>\
             <entry uri='tel:+15550100003;method=BYE'/></list></resource-lists>",
        )
        .unwrap();
        let [bob, other] = &list.entries[..] else { panic!() };
        assert_eq!(bob.uri, "sip:bob@example.com;user=phone");
        assert_eq!(bob.session_replaces.as_ref().unwrap().as_str(), "51f3-c2");
        assert_eq!((other.uri.as_str(), other.method.as_deref()), ("tel:+15550100003", Some("BYE")));
        assert_eq!(read(&list.write()), Ok(list));
    }

    // RFC 5364 §5: bcc is gone, anonymous ones are one anonymous entry.
    #[test]
    fn the_history_names_only_who_may_be_named() {
        let entries = vec![
            Entry { session_replaces: SessionReplaces::parse("1").ok(), ..Entry::new("tel:+1") },
            Entry { copy: Copy::Bcc, ..Entry::new("tel:+2") },
            Entry { anonymize: true, ..Entry::new("tel:+3") },
            Entry { anonymize: true, ..Entry::new("tel:+4") },
            Entry { copy: Copy::Bcc, anonymize: true, ..Entry::new("tel:+5") },
        ];
        let history = ResourceList { entries, references: 0 }.history();
        assert_eq!(history.entries, [Entry::new("tel:+1"), Entry::new(address::ANONYMOUS)]);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let entry = |attributes: &str| {
            read(&format!("<resource-lists><list><entry {attributes}/></list></resource-lists>"))
        };
        assert_eq!(entry(""), Err(Error::Missing("uri")));
        assert_eq!(entry("uri='alice'"), Err(Error::Value("uri")));
        assert_eq!(entry("uri='sip:a@b&#13;&#10;Via: x'"), Err(Error::Value("uri")));
        assert_eq!(entry("uri='sip:a@b' copyControl='maybe'"), Err(Error::Value("copyControl")));
        assert_eq!(entry("uri='sip:a@b?Session-Replaces=%0d%0a'"), Err(Error::Value("Session-Replaces")));
        assert_eq!(entry("uri='sip:a@b?Session-Replaces=%4'"), Err(Error::Escape));
        assert_eq!(read("<list/>"), Err(Error::Kind("resource-lists")));
        let limits = Limits { entries_max: 1, ..Limits::default() };
        let two = "<resource-lists><list><entry uri='a:b'/><entry uri='a:c'/></list></resource-lists>";
        assert_eq!(ResourceList::read(two.as_bytes(), &limits), Err(Error::TooLarge("list entries")));
    }

    proptest! {
        #[test]
        fn any_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            _ = ResourceList::read(&bytes, &Limits::default());
        }

        #[test]
        fn xml_like_text_does_no_harm(text in "(<resource-lists>|<list>|<entry |uri=|'|\"|sip:a@b|\\?Session-Replaces=|%|&amp;|/>|</list>|</resource-lists>|>){0,30}") {
            _ = read(&text);
        }

        #[test]
        fn lists_read_back(users in proptest::collection::vec(("[a-z]{1,8}", any::<bool>(), "[!-~]{0,12}"), 0..8)) {
            let entries = users.into_iter().map(|(user, anonymize, id)| Entry {
                anonymize,
                session_replaces: SessionReplaces::parse(&id).ok(),
                ..Entry::new(format!("sip:{user}@example.com"))
            }).collect();
            let list = ResourceList { entries, references: 0 };
            prop_assert_eq!(read(&list.write()), Ok(list));
        }
    }
}
