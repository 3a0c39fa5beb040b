//! The examples of RFC 7616, client against server, and what is refused.

use std::time::Duration;

use base::{Entropy, UnixTime};

use super::*;
use crate::message::{Request, Response};
use crate::method::Method;
use crate::name::Name;

const NOW: UnixTime = UnixTime::from_millis(1_795_331_700_000);

/// RFC 7616 §3.9.1: the example in both of its algorithms; the third one's answer to it was computed with another library.
#[test]
fn the_examples_of_the_rfc() {
    let parts = Parts {
        nonce: "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
        uri: "/dir/index.html",
        qop: Some(("auth", "00000001", "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ")),
    };
    for (algorithm, expected) in [
        (Algorithm::Md5, "8ca523f5e9506fed4657c9700eebdbec"),
        (Algorithm::Sha256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        (Algorithm::Sha512, "430d05014cecc49cab6fbe03176d41a1da86cbfe24a16580e22aaad928d960d0"),
    ] {
        let ha1 = algorithm.ha1("Mufasa", "http-auth@example.org", "Circle of Life");
        assert_eq!(algorithm.response(&ha1, "GET", &parts), expected);
    }
}

fn register() -> Request {
    let mut request = Request::new(Method::Register, "sip:example.com".parse().unwrap());
    request.headers.push(Name::From, "<sip:a@example.com>;tag=f");
    request.headers.push(Name::To, "<sip:a@example.com>");
    request.headers.push(Name::CallId, "c");
    request.headers.push(Name::CSeq, "1 REGISTER");
    request
}

fn server() -> Server {
    Server::new("example.com", [7; 32])
}

fn secrets() -> Secrets {
    Secrets::of("alice", "example.com", "pass")
}

fn verdict(server: &Server, request: &Request, now: UnixTime) -> Verdict {
    let credentials = server.credentials(Kind::User, request).expect("credentials");
    server.verify(&credentials, request, &secrets(), now)
}

#[test]
fn client_and_server_agree_in_each_algorithm() {
    let old = [Algorithm::Sha256, Algorithm::Md5];
    let all = [Algorithm::Sha512, Algorithm::Sha256, Algorithm::Md5];
    for algorithms in [all.to_vec(), old.to_vec(), vec![Algorithm::Sha512], vec![Algorithm::Md5]] {
        let mut server = server();
        server.algorithms = algorithms;
        let mut entropy = Entropy::from_number(3);
        let mut client = Client::new("alice", "pass");
        let request = register();
        assert_eq!(server.credentials(Kind::User, &request), None);
        let demand = server.demand(Kind::User, &request, NOW, false);
        assert_eq!(
            (demand.code, demand.headers.count(&Name::WwwAuthenticate)),
            (401, server.algorithms.len())
        );
        let mut next = client.answer(&request, &demand, &mut entropy).unwrap();
        assert_eq!(next.cseq().unwrap().seq, 2);
        let shown = server.credentials(Kind::User, &next).unwrap();
        assert_eq!(shown.known_algorithm(), server.algorithms.first().copied());
        assert_eq!(verdict(&server, &next, NOW), Verdict::Accepted);
        let info = server.info(&shown, &secrets());
        let info = <AuthenticationInfo as crate::typed::Value>::parse(info.to_string().as_bytes()).unwrap();
        assert_eq!(client.is_mutual(&next, &info), Some(true));
        assert_eq!(
            client.is_mutual(&next, &server.info(&shown, &Secrets::of("alice", "example.com", "x"))),
            Some(false)
        );
        client.authorise(&mut next, &mut entropy);
        let shown = server.credentials(Kind::User, &next).unwrap();
        assert_eq!((shown.count(), verdict(&server, &next, NOW)), (Some(2), Verdict::Accepted));
    }
}

#[test]
fn old_and_foreign_nonces_are_stale_and_answered_silently() {
    let (server, mut entropy, mut client) = (server(), Entropy::from_number(3), Client::new("alice", "pass"));
    let request = register();
    let next =
        client.answer(&request, &server.demand(Kind::User, &request, NOW, false), &mut entropy).unwrap();
    let late = NOW + Duration::from_secs(301);
    assert_eq!(verdict(&server, &next, late), Verdict::Stale);
    assert_eq!(verdict(&Server::new("example.com", [8; 32]), &next, NOW), Verdict::Stale);
    let again = client.answer(&next, &server.demand(Kind::User, &next, late, true), &mut entropy).unwrap();
    assert_eq!(verdict(&server, &again, late), Verdict::Accepted);
    assert_eq!(again.headers.count(&Name::Authorization), 1);
    let refused = server.demand(Kind::User, &again, late, false);
    assert_eq!(client.answer(&again, &refused, &mut entropy), Err(Unanswerable::Refused));
}

#[test]
fn what_is_refused() {
    let (server, mut entropy) = (server(), Entropy::from_number(3));
    let request = register();
    let demand = server.demand(Kind::User, &request, NOW, false);
    let mut client = Client::new("alice", "pass");
    let good = client.answer(&request, &demand, &mut entropy).unwrap();
    let shown = server.credentials(Kind::User, &good).unwrap();
    let judge =
        |credentials: Credentials, request: &Request| server.verify(&credentials, request, &secrets(), NOW);
    let wrong = Client::new("alice", "word").answer(&request, &demand, &mut entropy).unwrap();
    assert_eq!(verdict(&server, &wrong, NOW), Verdict::Refused(Refusal::Response));
    let mut invite = good.clone();
    invite.method = Method::Invite;
    assert_eq!(judge(shown.clone(), &invite), Verdict::Refused(Refusal::Response));
    let mut elsewhere = good.clone();
    elsewhere.uri = "sip:other.example".parse().unwrap();
    assert_eq!(judge(shown.clone(), &elsewhere), Verdict::Refused(Refusal::Uri));
    let with = |change: fn(&mut Credentials)| {
        let mut changed = shown.clone();
        change(&mut changed);
        judge(changed, &good)
    };
    assert_eq!(with(|c| c.qop = None), Verdict::Refused(Refusal::Qop));
    assert_eq!(with(|c| c.nc = Some("1".into())), Verdict::Refused(Refusal::Qop));
    assert_eq!(with(|c| c.algorithm = Some("MD5-sess".into())), Verdict::Refused(Refusal::Algorithm));
    assert_eq!(with(|c| c.realm = "x".into()), Verdict::Refused(Refusal::Realm));
    assert_eq!(with(|c| c.nonce = "00".into()), Verdict::Refused(Refusal::Response));
    assert_eq!(with(|c| c.response.clear()), Verdict::Refused(Refusal::Response));
}

#[test]
fn a_count_that_does_not_go_up_is_a_replay() {
    let (server, mut entropy, mut client) = (server(), Entropy::from_number(3), Client::new("alice", "pass"));
    let request = register();
    let mut next =
        client.answer(&request, &server.demand(Kind::User, &request, NOW, false), &mut entropy).unwrap();
    let mut replays = Replays::with_max(2);
    let shown = server.credentials(Kind::User, &next).unwrap();
    assert!(replays.is_first(&shown) && !replays.is_first(&shown));
    client.authorise(&mut next, &mut entropy);
    assert!(replays.is_first(&server.credentials(Kind::User, &next).unwrap()));
    assert!(!replays.is_first(&shown));
    for nonce in ["f1", "f2", "f3"] {
        assert!(replays.is_first(&Credentials { nonce: nonce.into(), ..shown.clone() }));
        assert!(replays.len() <= 2);
    }
}

/// RFC 4475 §3.3.7; the first REGISTER of an IMS client has an empty nonce and response.
#[test]
fn unknown_schemes_and_empty_credentials_count_as_none() {
    for value in [
        "NoOneKnowsThisScheme opaque-data=here",
        "Digest username=\"a@h\", realm=\"example.com\", nonce=\"\", uri=\"sip:h\", response=\"\"",
        "Digest username=\"a\", realm=\"other\", nonce=\"1\", uri=\"sip:h\", response=\"2\"",
        "Digest username=\"a",
        "Digest",
        "",
    ] {
        let mut request = register();
        request.headers.push(Name::Authorization, value);
        assert_eq!(server().credentials(Kind::User, &request), None, "{value}");
    }
}

#[test]
fn headers_read_back_and_doubled_parameters_do_not() {
    let challenge: WwwAuthenticate = crate::typed::Value::parse(
        b"digest realm = \"a \\\" b\" , nonce=\"x\",algorithm=sha-256, qop=\"auth,auth-int\", stale=TRUE, opaque=\"o\", foo=bar",
    )
    .unwrap();
    assert_eq!((challenge.realm.as_str(), challenge.qop.len(), challenge.stale), ("a \" b", 2, true));
    assert_eq!(challenge.known_algorithm(), Some(Algorithm::Sha256));
    let again: WwwAuthenticate = crate::typed::Value::parse(challenge.to_string().as_bytes()).unwrap();
    assert_eq!(again, challenge);
    let twice = b"Digest realm=\"a\", nonce=\"x\", nonce=\"y\"";
    assert!(<Challenge as crate::typed::Value>::parse(twice).is_err());
}

#[test]
fn a_client_without_a_known_challenge_gives_up() {
    let mut response: Response = register().respond(401);
    response.headers.push(Name::WwwAuthenticate, "Digest realm=\"a\", nonce=\"x\", algorithm=AKAv1-MD5");
    let answer = Client::new("a", "b").answer(&register(), &response, &mut Entropy::from_number(1));
    assert_eq!(answer, Err(Unanswerable::NoChallenge));
}

#[test]
fn nothing_secret_is_shown() {
    let shown = format!("{:?} {:?} {:?}", server(), secrets(), Client::new("alice", "pass"));
    assert!(!shown.contains("pass\"") && !shown.contains("alice") && shown.contains("***"));
}
