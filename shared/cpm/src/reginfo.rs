//! Registration information (RFC 3680 §5), with public GRUUs (RFC 5628 §3): who has registered which contacts. Elements are
//! known by local name; unknown ones are read over.

use roxmltree::Node;

use crate::xml::{Writer, attribute, child_text, children, parse, root, text};
use crate::{Error, Limits};

/// The event package.
pub const EVENT: &str = "reg";
/// The media type.
pub const MEDIA_TYPE: &str = "application/reginfo+xml";
const NAMESPACE: &str = "urn:ietf:params:xml:ns:reginfo";
const GRUU: &str = "urn:ietf:params:xml:ns:gruuinfo";

/// A document.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RegInfo {
    /// From 0, by one with each document of a subscription.
    pub version: u32,
    /// All that there is, or what has changed only.
    pub full: bool,
    /// The addresses of record.
    pub registrations: Vec<Registration>,
}

/// One address of record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Registration {
    /// The address.
    pub aor: String,
    /// Names it within the subscription.
    pub id: String,
    /// Whether it has contacts.
    pub state: State,
    /// Them.
    pub contacts: Vec<Contact>,
}

/// How far a registration is (RFC 3680 §4.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Nothing was ever registered.
    Init,
    /// Something is.
    Active,
    /// Nothing is any more.
    Terminated,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            State::Init => "init",
            State::Active => "active",
            State::Terminated => "terminated",
        }
    }
}

/// One contact.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Contact {
    /// Names it within the subscription.
    pub id: String,
    /// It is registered; else it was.
    pub active: bool,
    /// What has happened to it: `registered`, `refreshed`, `expired`, `unregistered` ...
    pub event: String,
    /// Seconds left.
    pub expires_s: Option<u32>,
    /// Its URI.
    pub uri: String,
    /// Its other parameters, `+sip.instance` among them: names, and values as they stand in a Contact header.
    pub params: Vec<(String, String)>,
    /// Its public GRUU.
    pub pub_gruu: Option<String>,
}

impl RegInfo {
    /// Reads a document.
    pub fn read(bytes: &[u8], limits: &Limits) -> Result<Self, Error> {
        let document = parse(bytes, limits)?;
        let root = root(&document, "reginfo")?;
        let version = attribute(root, "version").ok_or(Error::Missing("version"))?;
        let full = match attribute(root, "state") {
            Some("full") => true,
            Some("partial") => false,
            _ => return Err(Error::Missing("state")),
        };
        let mut entries = limits.entries_max;
        let registrations = children(root, "registration").map(|r| registration(r, &mut entries));
        Ok(RegInfo {
            version: version.trim().parse().map_err(|_| Error::Value("version"))?,
            full,
            registrations: registrations.collect::<Result<_, _>>()?,
        })
    }

    /// Writes the document.
    pub fn write(&self) -> String {
        let mut w = Writer::new();
        let version = self.version.to_string();
        let gruus = self.registrations.iter().flat_map(|r| &r.contacts).any(|c| c.pub_gruu.is_some());
        let mut attributes = vec![("xmlns", NAMESPACE)];
        if gruus {
            attributes.push(("xmlns:gr", GRUU));
        }
        let state = if self.full { "full" } else { "partial" };
        attributes.extend([("version", version.as_str()), ("state", state)]);
        w.element("reginfo", &attributes, |w| {
            for it in &self.registrations {
                let attributes =
                    [("aor", it.aor.as_str()), ("id", it.id.as_str()), ("state", it.state.word())];
                w.element("registration", &attributes, |w| {
                    it.contacts.iter().for_each(|it| write_contact(w, it));
                });
            }
        });
        w.finish()
    }
}

fn registration(node: Node<'_, '_>, entries: &mut usize) -> Result<Registration, Error> {
    let state = match attribute(node, "state") {
        Some("init") => State::Init,
        Some("active") => State::Active,
        Some("terminated") => State::Terminated,
        _ => return Err(Error::Missing("state")),
    };
    let mut contacts = Vec::new();
    for node in children(node, "contact") {
        *entries = entries.checked_sub(1).ok_or(Error::TooLarge("contacts"))?;
        contacts.push(contact(node)?);
    }
    Ok(Registration {
        aor: attribute(node, "aor").ok_or(Error::Missing("aor"))?.to_owned(),
        id: attribute(node, "id").ok_or(Error::Missing("id"))?.to_owned(),
        state,
        contacts,
    })
}

fn contact(node: Node<'_, '_>) -> Result<Contact, Error> {
    let active = match attribute(node, "state") {
        Some("active") => true,
        Some("terminated") => false,
        _ => return Err(Error::Missing("state")),
    };
    let expires = attribute(node, "expires").map(|n| n.trim().parse());
    let params = children(node, "unknown-param")
        .filter_map(|param| Some((attribute(param, "name")?.to_owned(), text(param))));
    let gruu = children(node, "pub-gruu").find_map(|gruu| attribute(gruu, "uri").map(str::to_owned));
    Ok(Contact {
        id: attribute(node, "id").ok_or(Error::Missing("id"))?.to_owned(),
        active,
        event: attribute(node, "event").unwrap_or_default().to_owned(),
        expires_s: expires.transpose().map_err(|_| Error::Value("expires"))?,
        uri: child_text(node, "uri").ok_or(Error::Missing("uri"))?,
        params: params.collect(),
        pub_gruu: gruu,
    })
}

fn write_contact(w: &mut Writer, it: &Contact) {
    let state = if it.active { "active" } else { "terminated" };
    let expires = it.expires_s.map(|s| s.to_string());
    let mut attributes = vec![("id", it.id.as_str()), ("state", state), ("event", it.event.as_str())];
    if let Some(expires) = &expires {
        attributes.push(("expires", expires));
    }
    w.element("contact", &attributes, |w| {
        w.text("uri", &it.uri);
        for (name, value) in &it.params {
            w.parameter("unknown-param", name, value);
        }
        if let Some(gruu) = &it.pub_gruu {
            w.empty("gr:pub-gruu", &[("uri", gruu)]);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> RegInfo {
        RegInfo {
            version: 3,
            full: true,
            registrations: vec![Registration {
                aor: "sip:carol@example.com".into(),
                id: "a7".into(),
                state: State::Active,
                contacts: vec![Contact {
                    id: "76".into(),
                    active: true,
                    event: "registered".into(),
                    expires_s: Some(600),
                    uri: "sip:carol@192.0.2.5".into(),
                    params: vec![
                        ("+sip.instance".into(), "\"<urn:uuid:1>\"".into()),
                        ("+g.oma.sip-im".into(), String::new()),
                    ],
                    pub_gruu: Some("sip:carol@example.com;gr=urn:uuid:1".into()),
                }],
            }],
        }
    }

    #[test]
    fn rfc3680_s5_what_is_written_is_read() {
        let text = document().write();
        assert!(text.contains("&lt;urn:uuid:1&gt;"), "{text}");
        assert_eq!(RegInfo::read(text.as_bytes(), &Limits::default()).unwrap(), document());
    }

    #[test]
    fn rfc3680_s5_3_a_document_of_other_hands() {
        let text = "<?xml version=\"1.0\"?>\n<reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" version=\"0\" \
                    state=\"partial\"><registration aor=\"sip:joe@example.com\" id=\"as9\" state=\"terminated\">\
                    <contact id=\"7\" state=\"terminated\" event=\"expired\" duration-registered=\"9\" q=\"0.8\">\
                    <uri>sip:joe@pc34</uri><display-name>Joe</display-name></contact></registration></reginfo>";
        let read = RegInfo::read(text.as_bytes(), &Limits::default()).unwrap();
        assert!(!read.full && read.registrations[0].state == State::Terminated);
        assert!(!read.registrations[0].contacts[0].active);
    }

    #[test]
    fn malformed_documents_are_refused() {
        let many =
            "<contact id='1' state='active' event='registered'><uri>sip:a@b</uri></contact>".repeat(1001);
        let with = |inside: &str| {
            format!(
                "<reginfo version='0' state='full'><registration aor='sip:a@b' id='1' state='active'>{inside}\
                 </registration></reginfo>"
            )
        };
        for text in [
            "<x/>".to_owned(),
            "<reginfo state='full'/>".to_owned(),
            "<reginfo version='-1' state='full'/>".to_owned(),
            "<reginfo version='4294967296' state='full'/>".to_owned(),
            "<reginfo version='0' state='half'/>".to_owned(),
            "<reginfo version='0' state='full'><registration id='1' state='active'/></reginfo>".to_owned(),
            "<reginfo version='0' state='full'><registration aor='sip:a@b' id='1' state='gone'/></reginfo>"
                .to_owned(),
            with("<contact id='1' state='active'/>"),
            with("<contact state='active'><uri>sip:a@b</uri></contact>"),
            with("<contact id='1' state='active' expires='soon'><uri>sip:a@b</uri></contact>"),
            with(&many),
        ] {
            assert!(
                RegInfo::read(text.as_bytes(), &Limits::default()).is_err(),
                "{}",
                &text[..text.len().min(200)]
            );
        }
    }
}
