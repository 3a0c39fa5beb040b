//! AUTH as the data plane asks about it, with digests made by hand (RFC 4976 §5.1, RFC 7616).

use contract::{Auth, Decide, MessageNews, News, message_news, news};
use sip::digest::{Algorithm, Challenge};
use sip::typed::Value as _;

use crate::records::{Columns, Record, Subscriber};
use crate::testing::World;
use crate::{Input, Key, LaneKey, Row, Table, UserId};

const RELAY: &str = "msrps://relay.weir.example:2856;tcp";

fn ask(world: &mut World, id: u64, authorization: &str) -> Decide {
    let auth = Auth { authorization: authorization.to_owned(), uri: RELAY.to_owned() };
    let message = MessageNews { leg: None, id, what: Some(message_news::What::Auth(auth)) };
    world.input(Input::News(News { what: Some(news::What::Message(message)) }));
    let decide = world.decisions.pop().expect("an answer");
    assert_eq!((decide.leg, decide.id), (None, id));
    decide
}

fn challenges(decide: &Decide) -> Vec<Challenge> {
    assert_eq!(decide.status, 401);
    let texts = &decide.auth.as_ref().expect("a verdict").challenges;
    texts.iter().map(|text| Challenge::parse(text.as_bytes()).expect("a challenge")).collect()
}

/// H(a:b:c), which is what is hashed for a user name, realm and password.
fn h(algorithm: Algorithm, a: &str, b: &str, c: &str) -> String {
    algorithm.ha1(a, b, c)
}

fn shown(challenge: &Challenge, name: &str, password: &str, nc: u32, uri: Option<&str>) -> String {
    let algorithm = challenge.known_algorithm().unwrap();
    let (realm, nonce) = (&challenge.realm, &challenge.nonce);
    let (scheme, rest) = uri.unwrap_or(RELAY).split_once(':').unwrap();
    let ha2 = h(algorithm, "AUTH", scheme, rest);
    let response =
        h(algorithm, &h(algorithm, name, realm, password), &format!("{nonce}:{nc:08x}:c0ffee:auth"), &ha2);
    let opaque = challenge.opaque.as_ref().map(|o| format!(", opaque=\"{o}\"")).unwrap_or_default();
    let uri = uri.map(|uri| format!(", uri=\"{uri}\"")).unwrap_or_default();
    format!(
        "Digest username=\"{name}\", realm=\"{realm}\", nonce=\"{nonce}\"{uri}, response=\"{response}\", \
         algorithm={algorithm}, cnonce=\"c0ffee\", qop=auth, nc={nc:08x}{opaque}"
    )
}

#[test]
fn a_subscriber_is_granted_with_either_hash_and_with_or_without_uri() {
    let mut world = World::new();
    let demanded = challenges(&ask(&mut world, 1, ""));
    assert_eq!(demanded.len(), 2);
    let mut accounts = Vec::new();
    for (nc, challenge) in demanded.iter().enumerate() {
        // RFC 4976 asks for it to be given back; some leave it out.
        assert!(challenge.opaque.is_some() && challenge.qop == ["auth"] && !challenge.stale);
        for (more, uri) in [None, Some(RELAY), Some("msrps://relay.weir.example;tcp")].into_iter().enumerate()
        {
            let nc = (nc * 10 + more + 1) as u32;
            let granted = ask(&mut world, 2, &shown(challenge, "alice", "secret", nc, uri));
            let auth = granted.auth.expect("a verdict");
            assert_eq!((granted.status, auth.info.contains("rspauth=")), (200, true), "{uri:?}");
            accounts.push(auth.account);
        }
    }
    let challenge = &demanded[0];
    let bob = ask(&mut world, 3, &shown(challenge, "bob", "secret", 99, None)).auth.unwrap().account;
    assert!(accounts.iter().all(|account| *account == accounts[0] && *account != bob));
    // Without opaque.
    let bare = Challenge { opaque: None, ..challenge.clone() };
    assert_eq!(ask(&mut world, 4, &shown(&bare, "carol", "secret", 100, None)).status, 200);
}

#[test]
fn what_is_wrong_is_challenged_again() {
    let mut world = World::new();
    let challenge = challenges(&ask(&mut world, 1, "")).remove(1);
    let good = shown(&challenge, "alice", "secret", 1, None);
    for (why, text) in [
        ("the password", shown(&challenge, "alice", "word", 1, None)),
        ("nobody", shown(&challenge, "mallory", "secret", 1, None)),
        ("another relay", shown(&challenge, "alice", "secret", 1, Some("msrps://relay.example.org;tcp"))),
        ("another realm", good.replace("realm=\"", "realm=\"x")),
        ("no digest", "Basic YWxpY2U6c2VjcmV0".to_owned()),
        ("no end", "Digest username=\"alice".to_owned()),
        ("a quote in the URI", good.replace("nc=00000001", "nc=1")),
    ] {
        let again = challenges(&ask(&mut world, 2, &text));
        assert!(again.iter().all(|c| !c.stale), "{why}");
    }
    assert_eq!(ask(&mut world, 3, &good).status, 200);
}

#[test]
fn a_count_is_good_once_and_a_nonce_for_a_while() {
    let mut world = World::new();
    let challenge = challenges(&ask(&mut world, 1, "")).remove(0);
    let first = shown(&challenge, "alice", "secret", 1, None);
    assert_eq!(ask(&mut world, 2, &first).status, 200);
    assert!(challenges(&ask(&mut world, 3, &first)).iter().all(|c| c.stale), "replayed");
    assert_eq!(ask(&mut world, 4, &shown(&challenge, "alice", "secret", 2, None)).status, 200);
    world.pass(3600);
    assert!(
        challenges(&ask(&mut world, 5, &shown(&challenge, "alice", "secret", 3, None)))
            .iter()
            .all(|c| c.stale)
    );
}

#[test]
fn subscribers_of_the_store_are_known_and_those_without_service_refused() {
    let mut world = World::new();
    for (name, service) in [("dora", true), ("emil", false)] {
        let user = UserId::parse(&format!("sip:{name}@weir.example")).unwrap();
        let key = Key::new(Table::Subscriber, user.as_str());
        let record = Record::Subscriber(Subscriber {
            user,
            name: String::new().into(),
            password: "hidden".to_owned().into(),
            service,
        });
        let row = Row { key: key.clone(), lane: LaneKey(0), version: 1, columns: Columns::default(), record };
        world.store.insert(key, row);
    }
    let challenge = challenges(&ask(&mut world, 1, "")).remove(0);
    assert_eq!(ask(&mut world, 2, &shown(&challenge, "dora", "hidden", 1, None)).status, 200);
    assert_eq!(ask(&mut world, 3, &shown(&challenge, "emil", "hidden", 2, None)).status, 403);
    assert_eq!(ask(&mut world, 4, &shown(&challenge, "dora", "secret", 3, None)).status, 401);
}

#[test]
fn one_users_credentials_go_to_one_lane() {
    let of = |text: &str| LaneKey::of_credentials(text);
    assert_eq!(of("Digest username=\"ann\", nc=1"), of("Digest nc=2, username=\"ann\""));
    assert_ne!(of("Digest username=\"ann\""), of("Digest username=\"bob\""));
    assert_eq!(of(""), of("Digest"));
}
