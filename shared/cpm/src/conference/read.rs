//! Reads conference documents. Elements are known by local name; unknown ones are read over.

use roxmltree::Node;

use super::{
    AvailableMedia, ConferenceInfo, ConferenceState, Description, Disconnection, Endpoint, Joining, Media,
    State, Status, User, Users,
};
use crate::xml::{attribute, boolean, child, child_text, children, parse, root};
use crate::{Error, Limits};

impl ConferenceInfo {
    /// Reads a document.
    pub fn read(bytes: &[u8], limits: &Limits) -> Result<Self, Error> {
        let document = parse(bytes, limits)?;
        let root = root(&document, "conference-info")?;
        Ok(ConferenceInfo {
            entity: attribute(root, "entity").ok_or(Error::Missing("entity"))?.to_owned(),
            state: state(root)?,
            // RFC 4575 §5.1: version is optional in the schema, but nothing can be ordered without it.
            version: number(attribute(root, "version"), "version")?.unwrap_or(0),
            description: child(root, "conference-description").map(description).transpose()?,
            conference_state: child(root, "conference-state").map(conference_state).transpose()?,
            users: child(root, "users").map(|node| users(node, limits)).transpose()?,
        })
    }
}

fn description(node: Node<'_, '_>) -> Result<Description, Error> {
    let uris = child(node, "conf-uris").into_iter().flat_map(|uris| children(uris, "entry"));
    let media = child(node, "available-media").into_iter().flat_map(|media| children(media, "entry"));
    Ok(Description {
        display_text: child_text(node, "display-text"),
        subject: child_text(node, "subject"),
        free_text: child_text(node, "free-text"),
        conf_uris: uris
            .filter_map(|e| child_text(e, "uri").map(|uri| (uri, child_text(e, "purpose"))))
            .collect(),
        maximum_user_count: number(child_text(node, "maximum-user-count").as_deref(), "maximum-user-count")?,
        available_media: media
            .filter_map(|e| {
                Some(AvailableMedia {
                    label: attribute(e, "label")?.to_owned(),
                    kind: child_text(e, "type")?,
                    status: child_text(e, "status"),
                })
            })
            .collect(),
    })
}

fn conference_state(node: Node<'_, '_>) -> Result<ConferenceState, Error> {
    Ok(ConferenceState {
        user_count: number(child_text(node, "user-count").as_deref(), "user-count")?,
        active: child_text(node, "active").and_then(|t| boolean(&t)),
        locked: child_text(node, "locked").and_then(|t| boolean(&t)),
    })
}

fn users(node: Node<'_, '_>, limits: &Limits) -> Result<Users, Error> {
    let mut users = Vec::new();
    for child in children(node, "user") {
        if users.len() == limits.entries_max {
            return Err(Error::TooLarge("users"));
        }
        users.push(user(child)?);
    }
    Ok(Users { state: state(node)?, users })
}

fn user(node: Node<'_, '_>) -> Result<User, Error> {
    let roles = child(node, "roles").into_iter().flat_map(|roles| children(roles, "entry"));
    Ok(User {
        entity: attribute(node, "entity").ok_or(Error::Missing("entity"))?.to_owned(),
        state: state(node)?,
        nickname: attribute(node, "nickname").map(str::to_owned),
        your_own: attribute(node, "yourown").and_then(boolean).unwrap_or(false),
        display_text: child_text(node, "display-text"),
        roles: roles.map(crate::xml::text).collect(),
        endpoints: children(node, "endpoint").map(endpoint).collect::<Result<_, _>>()?,
    })
}

fn endpoint(node: Node<'_, '_>) -> Result<Endpoint, Error> {
    let word = |name| child_text(node, name);
    Ok(Endpoint {
        entity: attribute(node, "entity").unwrap_or_default().to_owned(),
        state: state(node)?,
        referred_by: child(node, "referred").and_then(|r| child_text(r, "by")),
        status: word("status").and_then(|w| Status::parse(&w)),
        joining: word("joining-method").and_then(|w| Joining::parse(&w)),
        disconnection: word("disconnection-method").and_then(|w| Disconnection::parse(&w)),
        disconnection_reason: child(node, "disconnection-info").and_then(|i| child_text(i, "reason")),
        media: children(node, "media").map(media).collect::<Result<_, _>>()?,
    })
}

fn media(node: Node<'_, '_>) -> Result<Media, Error> {
    Ok(Media {
        id: attribute(node, "id").ok_or(Error::Missing("media id"))?.to_owned(),
        kind: child_text(node, "type"),
        label: child_text(node, "label"),
        src_id: child_text(node, "src-id"),
        status: child_text(node, "status"),
    })
}

fn state(node: Node<'_, '_>) -> Result<State, Error> {
    match attribute(node, "state") {
        None | Some("full") => Ok(State::Full),
        Some("partial") => Ok(State::Partial),
        Some("deleted") => Ok(State::Deleted),
        Some(_) => Err(Error::Value("state")),
    }
}

fn number(text: Option<&str>, what: &'static str) -> Result<Option<u32>, Error> {
    text.map(|t| t.trim().parse().map_err(|_| Error::Value(what))).transpose()
}
