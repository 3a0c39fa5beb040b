//! Writes conference documents, elements in the order of the schema (RFC 4575 §8).

use super::{
    ConferenceInfo, ConferenceState, Description, Endpoint, Media, NAMESPACE, State, User, Users, XCON,
};
use crate::xml::Writer;

impl ConferenceInfo {
    /// Writes the document.
    pub fn write(&self) -> String {
        let mut w = Writer::new();
        let version = self.version.to_string();
        let mut attributes = vec![("xmlns", NAMESPACE)];
        let nicknames = self.users.iter().flat_map(|u| &u.users).any(|u| u.nickname.is_some());
        if nicknames {
            attributes.push(("xmlns:xcon", XCON));
        }
        attributes.extend([
            ("entity", self.entity.as_str()),
            ("state", word(self.state)),
            ("version", &version),
        ]);
        w.element("conference-info", &attributes, |w| {
            if let Some(it) = &self.description {
                description(w, it);
            }
            if let Some(it) = &self.conference_state {
                conference_state(w, it);
            }
            if let Some(it) = &self.users {
                users(w, it);
            }
        });
        w.finish()
    }
}

fn description(w: &mut Writer, it: &Description) {
    w.element("conference-description", &[], |w| {
        w.optional("display-text", it.display_text.as_deref());
        w.optional("subject", it.subject.as_deref());
        w.optional("free-text", it.free_text.as_deref());
        if !it.conf_uris.is_empty() {
            w.element("conf-uris", &[], |w| {
                for (uri, purpose) in &it.conf_uris {
                    w.element("entry", &[], |w| {
                        w.text("uri", uri);
                        w.optional("purpose", purpose.as_deref());
                    });
                }
            });
        }
        w.optional("maximum-user-count", it.maximum_user_count.map(|n| n.to_string()).as_deref());
        if !it.available_media.is_empty() {
            w.element("available-media", &[], |w| {
                for media in &it.available_media {
                    w.element("entry", &[("label", &media.label)], |w| {
                        w.text("type", &media.kind);
                        w.optional("status", media.status.as_deref());
                    });
                }
            });
        }
    });
}

fn conference_state(w: &mut Writer, it: &ConferenceState) {
    w.element("conference-state", &[], |w| {
        w.optional("user-count", it.user_count.map(|n| n.to_string()).as_deref());
        w.optional("active", it.active.map(|b| b.to_string()).as_deref());
        w.optional("locked", it.locked.map(|b| b.to_string()).as_deref());
    });
}

fn users(w: &mut Writer, it: &Users) {
    w.element("users", &[("state", word(it.state))], |w| it.users.iter().for_each(|u| user(w, u)));
}

fn user(w: &mut Writer, it: &User) {
    let mut attributes = vec![("entity", it.entity.as_str()), ("state", word(it.state))];
    if let Some(nickname) = &it.nickname {
        attributes.push(("xcon:nickname", nickname));
    }
    if it.your_own {
        attributes.push(("yourown", "true"));
    }
    w.element("user", &attributes, |w| {
        w.optional("display-text", it.display_text.as_deref());
        if !it.roles.is_empty() {
            w.element("roles", &[], |w| it.roles.iter().for_each(|role| w.text("entry", role)));
        }
        it.endpoints.iter().for_each(|e| endpoint(w, e));
    });
}

fn endpoint(w: &mut Writer, it: &Endpoint) {
    w.element("endpoint", &[("entity", &it.entity), ("state", word(it.state))], |w| {
        if let Some(by) = &it.referred_by {
            w.element("referred", &[], |w| w.text("by", by));
        }
        w.optional("status", it.status.map(super::Status::word));
        w.optional("joining-method", it.joining.map(super::Joining::word));
        w.optional("disconnection-method", it.disconnection.map(super::Disconnection::word));
        if let Some(reason) = &it.disconnection_reason {
            w.element("disconnection-info", &[], |w| w.text("reason", reason));
        }
        it.media.iter().for_each(|m| media(w, m));
    });
}

fn media(w: &mut Writer, it: &Media) {
    w.element("media", &[("id", &it.id)], |w| {
        w.optional("type", it.kind.as_deref());
        w.optional("label", it.label.as_deref());
        w.optional("src-id", it.src_id.as_deref());
        w.optional("status", it.status.as_deref());
    });
}

fn word(state: State) -> &'static str {
    match state {
        State::Full => "full",
        State::Partial => "partial",
        State::Deleted => "deleted",
    }
}
