//! Tests of reading, writing and applying together.

use proptest::prelude::*;

use super::*;
use crate::{Error, Limits};

fn user(entity: &str, status: Status) -> User {
    User {
        entity: entity.into(),
        endpoints: vec![Endpoint {
            entity: entity.into(),
            status: Some(status),
            joining: Some(Joining::DialedOut),
            referred_by: Some("tel:+1".into()),
            media: vec![Media {
                id: "1".into(),
                kind: Some("message".into()),
                status: Some("sendrecv".into()),
                ..Media::default()
            }],
            ..Endpoint::default()
        }],
        ..User::default()
    }
}

fn document(version: u32, state: State, users: Vec<User>) -> ConferenceInfo {
    ConferenceInfo {
        entity: "sip:grp-1@cf.example.com".into(),
        state,
        version,
        conference_state: Some(ConferenceState {
            user_count: Some(users.len() as u32),
            active: Some(true),
            locked: None,
        }),
        users: Some(Users { state, users }),
        ..ConferenceInfo::default()
    }
}

fn read(text: &str) -> Result<ConferenceInfo, Error> {
    ConferenceInfo::read(text.as_bytes(), &Limits::default())
}

#[test]
fn a_full_document_reads_back() {
    let mut it =
        document(0, State::Full, vec![user("tel:+1", Status::Connected), user("tel:+2", Status::Pending)]);
    it.description = Some(Description {
        subject: Some("<Lunch & more>".into()),
        conf_uris: vec![("sip:grp-1@cf.example.com".into(), Some("participation".into()))],
        maximum_user_count: Some(100),
        available_media: vec![AvailableMedia {
            label: "10".into(),
            kind: "audio".into(),
            status: Some("sendrecv".into()),
        }],
        ..Description::default()
    });
    let users = &mut it.users.as_mut().unwrap().users;
    users[0].nickname = Some("Ann \"the\" <first>".into());
    users[0].your_own = true;
    users[0].roles = vec!["administrator".into()];
    users[1].endpoints[0].disconnection = Some(Disconnection::Booted);
    assert_eq!(read(&it.write()), Ok(it));
}

// RFC 6501 §4.6.5.4 as RFC 7701 §7 uses it: the attribute is in the XCON namespace.
#[test]
fn the_nickname_is_an_attribute_of_xcon() {
    let mut it = document(1, State::Partial, vec![user("tel:+1", Status::Connected)]);
    assert!(!it.write().contains("xcon"));
    it.users.as_mut().unwrap().users[0].nickname = Some("Ann".into());
    let text = it.write();
    assert!(
        text.contains("xmlns:xcon=\"urn:ietf:params:xml:ns:xcon-conference-info\"")
            && text.contains("xcon:nickname=\"Ann\"")
    );
}

// RFC 4575 §4.6: versions order documents; a gap needs a full one.
#[test]
fn versions_decide_what_is_applied() {
    let mut roster = Roster::new(Limits::default());
    let mut apply = |version, state| roster.apply(document(version, state, vec![])).unwrap();
    assert_eq!(apply(1, State::Partial), Applied::Gap);
    assert_eq!(apply(1, State::Full), Applied::Changed);
    assert_eq!(apply(1, State::Partial), Applied::Stale);
    assert_eq!(apply(3, State::Partial), Applied::Gap);
    assert_eq!(apply(2, State::Partial), Applied::Changed);
    assert_eq!(apply(9, State::Full), Applied::Changed);
    assert_eq!(apply(9, State::Full), Applied::Stale);
    assert_eq!(apply(0, State::Deleted), Applied::Over);
    assert!(roster.current().is_none());
}

// RFC 4575 §4.4, §4.6: full replaces, partial adds, deleted removes, by entity.
#[test]
fn users_are_replaced_merged_and_removed() {
    let mut roster = Roster::new(Limits::default());
    let both = vec![user("tel:+1", Status::Connected), user("tel:+2", Status::Pending)];
    roster.apply(document(1, State::Full, both)).unwrap();

    let mut news = User { state: State::Partial, ..user("tel:+2", Status::Connected) };
    news.endpoints[0] = Endpoint {
        state: State::Partial,
        status: Some(Status::Connected),
        entity: "tel:+2".into(),
        ..Endpoint::default()
    };
    let gone = User { entity: "tel:+1".into(), state: State::Deleted, ..User::default() };
    roster.apply(document(2, State::Partial, vec![news, gone, user("tel:+3", Status::Alerting)])).unwrap();

    assert!(roster.user("tel:+1").is_none());
    let second = roster.user("tel:+2").unwrap();
    assert_eq!(second.endpoints[0].status, Some(Status::Connected));
    // What the partial endpoint did not say is as it was.
    assert_eq!((second.endpoints[0].joining, second.endpoints[0].media.len()), (Some(Joining::DialedOut), 1));
    assert_eq!(roster.user("tel:+3").unwrap().endpoints[0].status, Some(Status::Alerting));

    // A full <users> in a partial document leaves nobody else.
    let mut all = document(3, State::Partial, vec![user("tel:+9", Status::Connected)]);
    all.users.as_mut().unwrap().state = State::Full;
    roster.apply(all).unwrap();
    assert_eq!(roster.current().unwrap().users.as_ref().unwrap().users.len(), 1);
}

#[test]
fn what_is_no_conference_document_is_refused() {
    assert_eq!(read("<conference/>"), Err(Error::Kind("conference-info")));
    assert_eq!(read("<conference-info/>"), Err(Error::Missing("entity")));
    assert_eq!(read("<conference-info entity='x' state='new'/>"), Err(Error::Value("state")));
    assert_eq!(read("<conference-info entity='x' version='-1'/>"), Err(Error::Value("version")));
    assert_eq!(
        read("<conference-info entity='x'><users><user/></users></conference-info>"),
        Err(Error::Missing("entity"))
    );
    let limits = Limits { entries_max: 1, ..Limits::default() };
    let two = document(1, State::Full, vec![user("a:1", Status::Connected), user("a:2", Status::Connected)]);
    assert_eq!(ConferenceInfo::read(two.write().as_bytes(), &limits), Err(Error::TooLarge("users")));
    assert_eq!(Roster::new(limits).apply(two), Err(Error::TooLarge("users")));
}

proptest! {
    #[test]
    fn any_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        _ = ConferenceInfo::read(&bytes, &Limits::default());
    }

    // A focus that sends full once and then partial documents, and a subscriber that applies them, agree.
    #[test]
    fn partial_documents_add_up_to_the_full_one(steps in proptest::collection::vec((0..5usize, 0..4usize), 1..30)) {
        let mut truth: std::collections::BTreeMap<String, User> = std::collections::BTreeMap::new();
        let mut roster = Roster::new(Limits::default());
        roster.apply(document(1, State::Full, vec![])).unwrap();
        for (version, (who, what)) in (2..).zip(steps) {
            let entity = format!("sip:u{who}@example.com");
            let status = [Status::Pending, Status::Connected, Status::Disconnected][what.min(2)];
            let news = if what == 3 {
                truth.remove(&entity);
                User { entity, state: State::Deleted, ..User::default() }
            } else {
                truth.insert(entity.clone(), user(&entity, status));
                user(&entity, status)
            };
            let written = document(version, State::Partial, vec![news]).write();
            prop_assert_eq!(roster.apply(read(&written).unwrap()), Ok(Applied::Changed));
        }
        let mut known = roster.current().unwrap().users.clone().unwrap().users;
        known.sort_by(|a, b| a.entity.cmp(&b.entity));
        prop_assert_eq!(known, truth.into_values().collect::<Vec<_>>());
    }
}
