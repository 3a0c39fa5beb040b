use super::*;

fn pair(limits: ChatLimits) -> (Endpoint, Endpoint) {
    let path = |text: &str| Path::parse(text, 8).unwrap();
    let (a, b) = ("msrp://127.0.0.1:1/aaaa;tcp", "msrp://127.0.0.1:2/bbbb;tcp");
    (
        Endpoint::new(path(a), path(b), limits.clone(), Entropy::from_number(1)),
        Endpoint::new(path(b), path(a), limits, Entropy::from_number(2)),
    )
}

fn pump(a: &mut Endpoint, b: &mut Endpoint) {
    let now = Instant::now();
    loop {
        let mut moved = false;
        while let Some(parts) = a.next_write(now) {
            moved = true;
            b.read(Bytes::from(parts.concat())).unwrap();
        }
        while let Some(parts) = b.next_write(now) {
            moved = true;
            a.read(Bytes::from(parts.concat())).unwrap();
        }
        if !moved {
            return;
        }
    }
}

fn heard(endpoint: &mut Endpoint) -> Vec<Told> {
    std::iter::from_fn(|| endpoint.told()).collect()
}

#[test]
fn rfc4975_s7_a_large_message_in_chunks_is_accepted_and_reported() {
    let (mut a, mut b) = pair(ChatLimits { chunk_bytes: 3000, window: 4, ..ChatLimits::default() });
    let body: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
    let mut receipt = a.send(Outgoing::new("text/plain", body.clone())).unwrap();
    pump(&mut a, &mut b);
    assert_eq!(receipt.accepted.try_recv(), Ok(200));
    assert_eq!(receipt.reported.try_recv(), Ok(200));
    let told = heard(&mut b);
    assert!(matches!(told.first(), Some(Told::Bound)));
    assert!(told.iter().any(|t| matches!(t, Told::Message { body: got, .. } if got[..] == body[..])));
    assert_eq!((a.unfinished(), a.transactions.len()), (0, 0));
}

#[test]
fn rfc4975_s7_1_1_no_answer_in_30_s_is_a_failure() {
    let (mut a, _) = pair(ChatLimits::default());
    let mut receipt = a.send(Outgoing::new("text/plain", "x")).unwrap();
    let now = Instant::now();
    a.next_write(now).unwrap();
    a.timeout(now + Duration::from_secs(29));
    assert!(receipt.accepted.try_recv().is_err());
    assert_eq!(a.next_timeout(), Some(now + Duration::from_secs(30)));
    a.timeout(now + Duration::from_secs(30));
    assert_eq!(receipt.accepted.try_recv(), Ok(408));
    assert_eq!(a.unfinished(), 0);
}

#[test]
fn a_message_that_is_too_large_is_stopped_and_taken_back() {
    let (mut a, mut b) = pair(ChatLimits { chunk_bytes: 1000, window: 1, ..ChatLimits::default() });
    b.limits.message_bytes_max = 5000;
    let mut receipt = a.send(Outgoing::new("text/plain", vec![7; 20_000])).unwrap();
    pump(&mut a, &mut b);
    assert_eq!(receipt.accepted.try_recv(), Ok(413));
    assert_eq!((a.unfinished(), b.incoming.len()), (0, 0));
    assert!(!heard(&mut b).iter().any(|t| matches!(t, Told::Message { .. })));
}

#[test]
fn rfc4975_s7_3_1_a_repeated_message_is_answered_and_not_told_twice() {
    let (mut a, mut b) = pair(ChatLimits::default());
    a.send(Outgoing::new("text/plain", "once")).unwrap();
    let bytes = Bytes::from(a.next_write(Instant::now()).unwrap().concat());
    b.read(bytes.clone()).unwrap();
    b.read(bytes).unwrap();
    let told = heard(&mut b);
    assert_eq!(told.iter().filter(|t| matches!(t, Told::Message { .. })).count(), 1);
    assert_eq!(told.iter().filter(|t| matches!(t, Told::Repeated)).count(), 1);
    // Two 200 and two REPORTs.
    assert_eq!(b.urgent.len(), 4);
}

#[test]
fn without_reports_nothing_comes_back() {
    let (mut a, mut b) = pair(ChatLimits::default());
    let message = Outgoing {
        success_report: false,
        failure_report: FailureReport::No,
        ..Outgoing::new("text/plain", "x")
    };
    let mut receipt = a.send(message).unwrap();
    pump(&mut a, &mut b);
    assert_eq!(receipt.accepted.try_recv(), Ok(200));
    assert!(heard(&mut a).is_empty() && b.urgent.is_empty());
    assert_eq!(a.unfinished(), 0);
}

#[test]
fn rfc4975_s7_3_a_request_for_another_session_gets_481() {
    let (mut a, mut b) = pair(ChatLimits::default());
    b.local = Path::parse("msrp://127.0.0.1:2/cccc;tcp", 8).unwrap();
    let mut receipt = a.send(Outgoing::new("text/plain", "x")).unwrap();
    pump(&mut a, &mut b);
    assert_eq!(receipt.accepted.try_recv(), Ok(481));
    assert!(heard(&mut b).is_empty());
}

#[test]
fn rfc7701_s7_a_nickname_is_answered() {
    let (mut a, mut b) = pair(ChatLimits::default());
    let (answer, mut answered) = oneshot::channel();
    a.nickname("Ann \"the\" one", Instant::now(), answer);
    pump(&mut a, &mut b);
    // A plain endpoint is no room: it does not know the method.
    assert_eq!(answered.try_recv(), Ok(501));
}
