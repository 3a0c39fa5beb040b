//! XML within bounds: reading by roxmltree behind a guard, writing by quick-xml.

use quick_xml::Writer as Events;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};
use roxmltree::{Document, Error as Syntax, Node, ParsingOptions};

use crate::error::XmlFault;
use crate::{Error, Limits};

/// Parses a document within the limits. No DTD, so no entity but the five of XML itself.
pub(crate) fn parse<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Document<'a>, Error> {
    if bytes.len() > limits.xml_octets_max {
        return Err(Error::TooLarge("XML document"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Error::Xml(XmlFault::Utf8))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    guard(text, limits)?;
    let options =
        ParsingOptions { allow_dtd: false, nodes_limit: limits.xml_nodes_max, ..ParsingOptions::default() };
    Document::parse_with_options(text, options).map_err(|error| match error {
        Syntax::DtdDetected => Error::Xml(XmlFault::Dtd),
        Syntax::NodesLimitReached => Error::TooLarge("XML nodes"),
        _ => Error::Xml(XmlFault::Syntax),
    })
}

/// Depth and attributes, counted before anything is built: namespace and attribute checks of a parser cost
/// more than linear time in them. Comments and CDATA may be counted too strictly, never too laxly.
fn guard(text: &str, limits: &Limits) -> Result<(), Error> {
    let (mut depth, mut attributes) = (0_usize, 0_usize);
    let (mut in_tag, mut quote, mut last) = (false, None, b' ');
    let mut bytes = text.bytes().peekable();
    while let Some(b) = bytes.next() {
        match (quote, b) {
            (Some(q), _) if b == q => quote = None,
            (Some(_), _) => {}
            (None, b'<') => {
                in_tag = true;
                attributes = 0;
                match bytes.peek() {
                    Some(b'/') => depth = depth.saturating_sub(1),
                    Some(b'!' | b'?') => in_tag = false,
                    _ => depth += 1,
                }
            }
            (None, b'>') if in_tag => {
                in_tag = false;
                if last == b'/' {
                    depth = depth.saturating_sub(1);
                }
            }
            (None, b'"' | b'\'') if in_tag => {
                quote = Some(b);
                attributes += 1;
            }
            _ => {}
        }
        if depth > limits.xml_depth_max {
            return Err(Error::TooLarge("XML depth"));
        }
        if attributes > limits.xml_attributes_max {
            return Err(Error::TooLarge("XML attributes"));
        }
        last = b;
    }
    Ok(())
}

/// Element children with this local name, whatever their namespace: peers disagree about namespaces more
/// often than about names.
pub(crate) fn children<'a, 'i: 'a>(
    node: Node<'a, 'i>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(move |n| n.is_element() && n.tag_name().name() == name)
}

/// The first such child.
pub(crate) fn child<'a, 'i: 'a>(node: Node<'a, 'i>, name: &'static str) -> Option<Node<'a, 'i>> {
    children(node, name).next()
}

/// The text of an element, trimmed; text split by comments is joined.
pub(crate) fn text(node: Node<'_, '_>) -> String {
    let joined: String = node.children().filter_map(|n| n.is_text().then(|| n.text()).flatten()).collect();
    joined.trim().to_owned()
}

/// The text of the first child with this name; `None` without such a child.
pub(crate) fn child_text(node: Node<'_, '_>, name: &'static str) -> Option<String> {
    child(node, name).map(text)
}

/// An attribute by local name, whatever its namespace.
pub(crate) fn attribute<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    node.attributes().find(|a| a.name() == name).map(|a| a.value())
}

/// The root, when it has this name.
pub(crate) fn root<'a, 'i>(document: &'a Document<'i>, name: &'static str) -> Result<Node<'a, 'i>, Error> {
    let root = document.root_element();
    if root.tag_name().name() == name { Ok(root) } else { Err(Error::Kind(name)) }
}

/// A boolean of XML Schema.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text.trim() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// Writes elements; what XML cannot hold is left out of texts.
pub(crate) struct Writer {
    events: Events<Vec<u8>>,
}

impl Writer {
    pub(crate) fn new() -> Self {
        let mut writer = Writer { events: Events::new(Vec::with_capacity(512)) };
        writer.event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)));
        writer
    }

    /// `<name a="b">…</name>`.
    pub(crate) fn element(
        &mut self,
        name: &str,
        attributes: &[(&str, &str)],
        inside: impl FnOnce(&mut Self),
    ) {
        self.event(Event::Start(start(name, attributes)));
        inside(self);
        self.event(Event::End(BytesEnd::new(name)));
    }

    /// `<name a="b"/>`.
    pub(crate) fn empty(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.event(Event::Empty(start(name, attributes)));
    }

    /// `<name>text</name>`.
    pub(crate) fn text(&mut self, name: &str, text: &str) {
        self.element(name, &[], |w| w.event(Event::Text(BytesText::new(&legal(text)))));
    }

    /// `<name name="…">text</name>`.
    pub(crate) fn parameter(&mut self, name: &str, key: &str, text: &str) {
        self.element(name, &[("name", key)], |w| w.event(Event::Text(BytesText::new(&legal(text)))));
    }

    /// `<name>text</name>`, or nothing.
    pub(crate) fn optional(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    pub(crate) fn finish(self) -> String {
        String::from_utf8(self.events.into_inner()).unwrap_or_default()
    }

    fn event(&mut self, event: Event<'_>) {
        // Writing into memory cannot fail.
        _ = self.events.write_event(event);
    }
}

fn start<'a>(name: &'a str, attributes: &[(&str, &str)]) -> BytesStart<'a> {
    let mut start = BytesStart::new(name);
    for (key, value) in attributes {
        let value = legal(value);
        start.push_attribute((*key, value.as_str()));
    }
    start
}

/// XML 1.0 §2.2: characters that no document may hold, not even escaped.
fn legal(text: &str) -> String {
    text.chars()
        .filter(
            |c| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..),
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Error {
        parse(text.as_bytes(), &Limits::default()).map(|_| ()).unwrap_err()
    }

    // CPM-FACTS §2.26: no DTD, entity expansion off, depth at most 64.
    #[test]
    fn hostile_documents_are_refused_before_they_are_built() {
        assert_eq!(fault("<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>"), Error::Xml(XmlFault::Dtd));
        assert_eq!(fault("<a>&b;</a>"), Error::Xml(XmlFault::Syntax));
        assert_eq!(
            fault(&format!("{}{}", "<a>".repeat(65), "</a>".repeat(65))),
            Error::TooLarge("XML depth")
        );
        assert!(
            parse(format!("{}{}", "<a>".repeat(64), "</a>".repeat(64)).as_bytes(), &Limits::default())
                .is_ok()
        );
        let wide: String = (0..65).map(|i| format!(" a{i}='>'")).collect();
        assert_eq!(fault(&format!("<a{wide}/>")), Error::TooLarge("XML attributes"));
        assert_eq!(fault(&format!("<a>{}</a>", "<b/>".repeat(40_000))), Error::TooLarge("XML nodes"));
        assert_eq!(fault(&" ".repeat(300_000)), Error::TooLarge("XML document"));
        assert_eq!(parse(b"<a>\xff</a>", &Limits::default()).map(|_| ()), Err(Error::Xml(XmlFault::Utf8)));
        assert_eq!(fault("<a>"), Error::Xml(XmlFault::Syntax));
    }

    #[test]
    fn what_is_written_is_well_formed_whatever_it_holds() {
        let mut w = Writer::new();
        w.element("a", &[("b", "\"<&>\u{0}'\n")], |w| w.text("c", "]]><&\u{1}\u{fffe}x"));
        let text = w.finish();
        let document = parse(text.as_bytes(), &Limits::default()).unwrap();
        let root = root(&document, "a").unwrap();
        assert_eq!(child_text(root, "c").unwrap(), "]]><&x");
        assert!(attribute(root, "b").unwrap().starts_with("\"<&>'"));
    }
}
