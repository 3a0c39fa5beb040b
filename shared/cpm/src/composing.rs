//! Is-composing (RFC 3994): "the other side is typing".

use crate::xml::{Writer, child_text, parse, root};
use crate::{Error, Limits};

const NAMESPACE: &str = "urn:ietf:params:xml:ns:im-iscomposing";

/// Seconds after which an active indication that names no refresh goes idle (RFC 3994 §3.2).
pub const IDLE_S: u32 = 120;

/// One indication.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Composing {
    /// True while something is being composed; a state that is not known counts as idle (RFC 3994 §3.3).
    pub active: bool,
    /// When the user last did something, as written.
    pub last_active: Option<String>,
    /// What is being composed.
    pub content_type: Option<String>,
    /// Seconds until the next indication (RFC 3994 §3.2).
    pub refresh_s: Option<u32>,
}

impl Composing {
    /// An indication that says active for `refresh_s` seconds.
    pub fn active(content_type: &str, refresh_s: u32) -> Self {
        Composing {
            active: true,
            content_type: Some(content_type.to_owned()),
            refresh_s: Some(refresh_s),
            ..Composing::default()
        }
    }

    /// An indication that says idle.
    pub fn idle() -> Self {
        Composing::default()
    }

    /// Reads a document.
    pub fn read(bytes: &[u8], limits: &Limits) -> Result<Self, Error> {
        let document = parse(bytes, limits)?;
        let root = root(&document, "isComposing")?;
        let state = child_text(root, "state").ok_or(Error::Missing("state"))?;
        let refresh_s = match child_text(root, "refresh") {
            Some(text) => Some(text.parse().map_err(|_| Error::Value("refresh"))?),
            None => None,
        };
        Ok(Composing {
            active: state == "active",
            last_active: child_text(root, "lastactive"),
            content_type: child_text(root, "contenttype"),
            refresh_s,
        })
    }

    /// Writes a document.
    pub fn write(&self) -> String {
        let mut w = Writer::new();
        w.element("isComposing", &[("xmlns", NAMESPACE)], |w| {
            w.text("state", if self.active { "active" } else { "idle" });
            w.optional("lastactive", self.last_active.as_deref());
            w.optional("contenttype", self.content_type.as_deref());
            w.optional("refresh", self.refresh_s.map(|s| s.to_string()).as_deref());
        });
        w.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_states_read_back() {
        for indication in [
            Composing::active("text/plain", 60),
            Composing { last_active: Some("2026-11-22T07:15:00Z".into()), ..Composing::idle() },
        ] {
            assert_eq!(Composing::read(indication.write().as_bytes(), &Limits::default()), Ok(indication));
        }
    }

    // RFC 3994 §3.3: unknown states are idle; other elements do no harm.
    #[test]
    fn unknown_states_are_idle() {
        let text = "<c:isComposing xmlns:c='urn:ietf:params:xml:ns:im-iscomposing'><c:state>thinking</c:state><x/></c:isComposing>";
        assert_eq!(Composing::read(text.as_bytes(), &Limits::default()), Ok(Composing::idle()));
        assert_eq!(Composing::read(b"<isComposing/>", &Limits::default()), Err(Error::Missing("state")));
        assert_eq!(Composing::read(b"<other/>", &Limits::default()), Err(Error::Kind("isComposing")));
    }
}
