use super::*;
use msrp::session::Role;
use msrp::{FailureReport, MsrpUri, Path};

fn side(role: Role, change: impl Fn(&mut Config)) -> Session {
    let uri = |text: &str| MsrpUri::parse(text).unwrap();
    let (active, passive) = (uri("msrp://127.0.0.1:1/aaaa;tcp"), uri("msrp://127.0.0.1:2/bbbb;tcp"));
    let (seed, local, remote) = match role {
        Role::Active => (1, active, Path::of(&passive)),
        Role::Passive => (2, passive, Path::of(&active)),
    };
    let mut config = Config { limits: limits(), ..Config::new(local, remote, role) };
    change(&mut config);
    Session::new(config, Entropy::from_number(seed))
}

/// Connected, and bound by the active one.
fn pair(change: impl Fn(&mut Config)) -> (Session, Session) {
    let (mut a, mut b) = (side(Role::Active, &change), side(Role::Passive, &change));
    a.connected();
    b.accepted();
    pump(&mut a, &mut b);
    for side in [&mut a, &mut b] {
        assert!(matches!(told(side)[..], [Told::Bound]));
    }
    (a, b)
}

/// Moves what one writes to the other; how many octets.
fn carry(from: &mut Session, to: &mut Session) -> usize {
    let bytes: Vec<u8> = from.writing().drain(..).flatten().collect();
    from.wrote(bytes.len());
    let count = bytes.len();
    to.read(Bytes::from(bytes));
    count
}

fn pump(a: &mut Session, b: &mut Session) {
    while carry(a, b) + carry(b, a) > 0 {}
}

fn told(session: &mut Session) -> Vec<Told> {
    std::iter::from_fn(|| session.told()).collect()
}

fn message(body: impl Into<Bytes>) -> Outgoing {
    Outgoing { success_report: true, ..Outgoing::new(Key(0), "text/plain", body.into()) }
}

#[test]
fn rfc4975_s7_a_large_message_in_chunks_is_accepted_and_reported() {
    let (mut a, mut b) = pair(|c| (c.limits.chunk_octets, c.limits.window_chunks) = (3000, 4));
    let body: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
    let mut receipt = a.send(message(body.clone())).unwrap();
    assert!(!a.is_all_out());
    pump(&mut a, &mut b);
    assert_eq!((receipt.accepted.try_recv(), receipt.reported.try_recv()), (Ok(200), Ok(200)));
    assert!(matches!(&told(&mut b)[..], [Told::Message(got)] if got.message.body[..] == body[..]));
    assert!(
        matches!(&told(&mut a)[..], [Told::Report { message_id, status: 200 }] if *message_id == receipt.message_id)
    );
    assert!(a.is_all_out() && a.messages.is_empty());
}

/// RFC 4975 §5.4: the passive side has no connection before a request names the session.
#[test]
fn the_passive_side_waits_for_the_binding() {
    let (mut a, mut b) = (side(Role::Active, |_| {}), side(Role::Passive, |_| {}));
    b.accepted();
    let mut receipt = b.send(message("waits")).unwrap();
    assert!(b.writing().is_empty());
    a.connected();
    pump(&mut a, &mut b);
    assert_eq!(receipt.reported.try_recv(), Ok(200));
}

#[test]
fn a_message_that_is_too_large_is_stopped_and_taken_back() {
    let (mut a, mut b) = pair(|c| c.limits.reassembly.message_octets_max = 5000);
    let mut receipt = a.send(message(vec![7; 20_000])).unwrap();
    pump(&mut a, &mut b);
    assert_eq!((receipt.accepted.try_recv(), receipt.reported.try_recv()), (Ok(413), Ok(413)));
    assert!(told(&mut b).is_empty() && a.messages.is_empty());
    assert_eq!((a.over(), b.over()), (None, None));
}

#[test]
fn rfc4975_s7_3_1_a_repeated_message_is_answered_and_not_told_twice() {
    let (mut a, mut b) = pair(|_| {});
    a.send(message("once")).unwrap();
    let bytes = Bytes::from(a.writing().drain(..).flatten().collect::<Vec<u8>>());
    b.read(bytes.clone());
    b.read(bytes);
    assert!(matches!(told(&mut b)[..], [Told::Message(_), Told::Repeated]));
    // Two 200 and two REPORTs; the second of these is odd to who got the first.
    pump(&mut a, &mut b);
    assert!(matches!(told(&mut a)[..], [Told::Report { status: 200, .. }, Told::Fault(_)]));
}

#[test]
fn without_reports_nothing_comes_back() {
    let (mut a, mut b) = pair(|_| {});
    let quiet = Outgoing { success_report: false, failure_report: FailureReport::No, ..message("x") };
    let mut receipt = a.send(quiet).unwrap();
    carry(&mut a, &mut b);
    assert_eq!(receipt.accepted.try_recv(), Ok(200));
    assert!(b.writing().is_empty() && told(&mut a).is_empty() && a.messages.is_empty());
}

#[test]
fn rfc4975_s10_a_session_that_the_peer_does_not_know_is_over() {
    let (mut a, _) = pair(|_| {});
    let mut stranger =
        side(Role::Passive, |c| c.local = MsrpUri::parse("msrp://127.0.0.1:2/cccc;tcp").unwrap());
    stranger.accepted();
    let mut receipt = a.send(message("x")).unwrap();
    pump(&mut a, &mut stranger);
    assert_eq!(receipt.accepted.try_recv(), Ok(481));
    assert!(told(&mut stranger).is_empty());
    assert_eq!(a.over(), Some("the peer answered 481"));
}

#[test]
fn rfc7701_s7_a_nickname_is_answered() {
    let (mut a, mut b) = pair(|_| {});
    let (answer, mut answered) = oneshot::channel();
    a.nickname("Ann \"the\" one".to_owned(), answer);
    pump(&mut a, &mut b);
    // A plain endpoint is no room: it does not know the method.
    assert_eq!(answered.try_recv(), Ok(501));
}

#[test]
fn the_queue_is_bounded() {
    let (mut a, _) = pair(|c| c.limits.queued_max = 2);
    assert!(
        a.send(message("1")).is_some() && a.send(message("2")).is_some() && a.send(message("3")).is_none()
    );
}

#[test]
fn a_bad_head_is_a_fault_and_bytes_that_do_not_frame_are_the_end() {
    let (mut a, _) = pair(|_| {});
    a.read(Bytes::from_static(b"MSRP abcd SEND\r\nX\r\n-------abcd$\r\n"));
    assert!(matches!(&told(&mut a)[..], [Told::Fault(_)]) && a.over().is_none());
    a.read(Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n"));
    assert!(a.over().is_some_and(|why| why.starts_with("MSRP framing")));
}

/// A reader that is held does not take silence for failure; held or not, time goes on from where it stood.
#[test]
fn a_held_clock_stands_still() {
    let start = Instant::now();
    let (s, at) = (Duration::from_secs, |s: u64| base::Instant::from_millis(s * 1000));
    let mut clock = Clock::new(start);
    assert_eq!(clock.now(start + s(5)), at(5));
    assert_eq!(clock.when(at(30)), Some(start + s(30)));
    clock.hold(true, start + s(10));
    clock.hold(true, start + s(20));
    assert_eq!((clock.now(start + s(60)), clock.when(at(30))), (at(10), None));
    clock.hold(false, start + s(60));
    assert_eq!((clock.now(start + s(61)), clock.when(at(30))), (at(11), Some(start + s(80))));
}

#[test]
fn rfc4975_s7_1_1_an_answer_is_waited_for_30_s() {
    let (mut a, _) = pair(|_| {});
    assert_eq!(a.deadline(), None);
    a.send(message("x")).unwrap();
    let left = a.deadline().unwrap().saturating_duration_since(Instant::now());
    assert!(left <= Duration::from_secs(30) && left > Duration::from_secs(20), "{left:?}");
    a.hold(true);
    assert_eq!(a.deadline(), None);
}
