use super::*;

struct Pair {
    now: Instant,
    ends: [Handshake; 2],
    keys: [Option<Keys>; 2],
    /// Datagrams that went each way.
    sent: [usize; 2],
    over: [Vec<Event>; 2],
}

fn identity() -> Identity {
    Identity::make(Duration::from_secs(30)).unwrap()
}

impl Pair {
    fn new(client: &Identity, server: &Identity) -> Self {
        let now = Instant::now();
        let ends = [Handshake::new(client, true, now), Handshake::new(server, false, now)];
        Pair { now, ends, keys: [None, None], sent: [0; 2], over: [vec![], vec![]] }
    }

    /// Lets both speak until they have nothing to say; `passes` sees each datagram by its sender.
    fn talk(&mut self, mut passes: impl FnMut(usize, &[u8]) -> bool) {
        let mut out = [Vec::new(), Vec::new()];
        (0..2).for_each(|at| self.ends[at].timeout(self.now, &mut out[at]));
        while out.iter().any(|events| !events.is_empty()) {
            for at in 0..2 {
                for event in std::mem::take(&mut out[at]) {
                    match event {
                        Event::Send(bytes) => {
                            self.sent[at] += 1;
                            if passes(at, &bytes) {
                                self.ends[1 - at].datagram(self.now, &bytes, &mut out[1 - at]);
                            }
                        }
                        Event::Keys(keys) => self.keys[at] = Some(*keys),
                        other => self.over[at].push(other),
                    }
                }
            }
        }
    }
}

#[test]
fn rfc5764_s4_2_both_ends_come_to_the_same_keys_and_know_each_other() {
    let (client, server) = (identity(), identity());
    let mut pair = Pair::new(&client, &server);
    pair.talk(|_, _| true);
    let [Some(a), Some(b)] = pair.keys else { panic!("keys at both ends") };
    assert_eq!((a.fingerprint, b.fingerprint), (server.fingerprint(), client.fingerprint()));
    assert!(a.send == b.receive && a.receive == b.send && a.send != a.receive);
    assert_eq!(a.send.suite(), Suite::AeadAes256Gcm, "the best of both");
}

#[test]
fn a_lost_flight_is_sent_again() {
    let mut pair = Pair::new(&identity(), &identity());
    let mut lost = 3;
    for _ in 0..10 {
        pair.talk(|_, _| {
            lost -= i32::from(lost > 0);
            lost == 0
        });
        if pair.keys.iter().all(Option::is_some) {
            return;
        }
        pair.now += Duration::from_secs(2);
    }
    panic!("no keys: {:?}", pair.over);
}

#[test]
fn a_handshake_that_nobody_goes_on_with_fails_in_its_time() {
    let mut pair = Pair::new(&identity(), &identity());
    let start = pair.now;
    while pair.over[0].is_empty() && pair.now - start < Duration::from_secs(60) {
        pair.talk(|_, _| false);
        pair.now += Duration::from_millis(500);
    }
    assert!(matches!(pair.over[0][..], [Event::Failed]) && pair.ends[0].is_over());
    assert!(pair.now - start <= Duration::from_secs(35) && pair.sent[0] < 16, "{} sent", pair.sent[0]);
    assert_eq!(pair.ends[0].next_timeout(), None);
}

#[test]
fn octets_of_any_kind_do_no_harm() {
    let mut pair = Pair::new(&identity(), &identity());
    let mut entropy = 7u32;
    let mut noise = || {
        entropy = entropy.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (entropy >> 24) as u8
    };
    pair.talk(|_, _| true);
    assert!(pair.keys.iter().all(Option::is_some));
    // Beside a handshake that goes on: altered datagrams and noise.
    let mut pair = Pair::new(&identity(), &identity());
    let mut out = Vec::new();
    for _ in 0..200 {
        let mut bytes: Vec<u8> = (0..60).map(|_| noise()).collect();
        bytes[..3].copy_from_slice(&[20 + noise() % 44, 0xfe, 0xfd]);
        let now = pair.now;
        pair.ends[1].datagram(now, &bytes, &mut out);
    }
    assert!(!out.iter().any(|event| matches!(event, Event::Keys(_))));
    if !pair.ends[1].is_over() {
        pair.talk(|_, _| true);
        assert!(pair.keys.iter().all(Option::is_some), "{:?}", pair.over);
    }
}

#[test]
fn rfc6347_s4_1_2_7_an_alert_in_clear_ends_no_handshake() {
    let alert = |level: u8, what: u8| vec![21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 7, 0, 2, level, what];
    for alert in [alert(2, 40), alert(1, 0), alert(2, 0)] {
        for behind in [false, true] {
            let mut pair = Pair::new(&identity(), &identity());
            let mut out = Vec::new();
            // Alone, and behind a record that is none of ours.
            let mut bytes =
                if behind { vec![23, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 9] } else { vec![] };
            bytes.extend(&alert);
            let now = pair.now;
            (0..2).for_each(|at| pair.ends[at].datagram(now, &bytes, &mut out));
            assert!(!pair.ends.iter().any(Handshake::is_over), "{:?}", out.last());
            // And in its midst.
            let mut sent = Vec::new();
            pair.ends[0].timeout(now, &mut sent);
            for event in sent {
                let Event::Send(hello) = event else { continue };
                pair.ends[1].datagram(now, &hello, &mut out);
                pair.ends[1].datagram(now, &bytes, &mut out);
            }
            pair.now += Duration::from_secs(2);
            pair.talk(|_, _| true);
            assert!(pair.keys.iter().all(Option::is_some), "{alert:?} {:?}", pair.over);
        }
    }
}

#[test]
fn rfc5764_s4_2_the_order_of_the_material() {
    let material: Vec<u8> = (0..56).collect();
    let (send, receive) = split(&material, SrtpProfile::AEAD_AES_128_GCM, true).unwrap();
    let octets = |ranges: [std::ops::Range<u8>; 2]| ranges.into_iter().flatten().collect::<Vec<u8>>();
    assert_eq!(send.expose(), octets([0..16, 32..44]));
    assert_eq!(receive.expose(), octets([16..32, 44..56]));
    let (send, _) = split(&material, SrtpProfile::AEAD_AES_128_GCM, false).unwrap();
    assert_eq!(send.expose(), octets([16..32, 44..56]));
    assert!(split(&material[..55], SrtpProfile::AEAD_AES_128_GCM, true).is_none());
}

#[test]
fn a_key_that_dtls_cannot_use_is_refused_at_the_start() {
    let rsa = Identity::new(&CertificateDer::from(&[0x30, 0][..]), vec![1, 2, 3], Duration::from_secs(1));
    assert!(matches!(rsa, Err(DtlsError::Key(_))));
}
