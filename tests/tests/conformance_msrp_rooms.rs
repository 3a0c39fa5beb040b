//! RFC 7701 from outside: a room of the data plane, its participants by hand over real sockets. The flows of its §8 that
//! pass the media plane, and each code of its §6 and §7.

use std::time::Duration;

use contract::{Direction, Mode, Switch, change::Verb, message_news, news, path::Parameters};
use tests::dataplane::{Plane, msrp_leg, path, user};
use tests::msrp_peer::{Frame, Peer};

const ROOM: &str = "sip:books@example.com";
const QUIET: Duration = Duration::from_millis(200);

fn leg(n: u64, private: bool) -> contract::Leg {
    msrp_leg(n, |m| {
        m.accept_types = vec!["message/cpim".into()];
        m.accept_wrapped_types = vec!["text/plain".into(), "message/imdn+xml".into()];
        m.private_messages = private;
    })
}

fn room(private: bool, nicknames: bool) -> contract::Path {
    let switch = Switch {
        room: vec![ROOM.into()],
        private_messages: private,
        nicknames,
        nickname_required: false,
        max_size: 1 << 20,
    };
    path(1, Mode::Switch, &[1, 2, 3], &[1, 2, 3], Some(Parameters::Switch(switch)))
}

thread_local! {
    /// Over how many shards the rooms of this thread are.
    static SHARDS: std::cell::Cell<usize> = const { std::cell::Cell::new(1) };
}

fn plane() -> Plane {
    Plane::start_over(SHARDS.get(), "")
}

/// DESIGN §2, invariant 4: a room over two shards is no other room. All of the below again.
#[test]
fn over_two_shards_all_is_the_same() {
    SHARDS.set(2);
    let mut plane = plane();
    let ours = plane.set(vec![leg(1, true), leg(2, true), leg(3, false)], vec![room(true, false)]);
    let shard = |path: &String| path.rsplit_once('/').unwrap().1[..3].to_owned();
    let shards: std::collections::BTreeSet<String> = ours.iter().map(shard).collect();
    assert_eq!(shards.len(), 2, "{ours:?}");
    drop(plane);
    s6_1_a_regular_message_goes_to_all();
    s6_codes_of_messages();
    s6_2_a_private_message_whole_and_in_chunks();
    s7_nicknames();
    a_late_joiner_does_not_get_the_tail();
    who_may_not_speak_and_who_has_two_sessions();
}

/// Three participants in a room; the third one takes no private messages.
struct Chat {
    plane: Plane,
    peers: Vec<Peer>,
    ours: Vec<String>,
}

impl Chat {
    fn up(private: bool, nicknames: bool) -> Chat {
        let mut plane = plane();
        let ours = plane.set(vec![leg(1, true), leg(2, true), leg(3, false)], vec![room(private, nicknames)]);
        let peers = (1..=3).map(|n| plane.join(n, &ours[n as usize - 1])).collect();
        Chat { plane, peers, ours }
    }

    fn peer(&mut self, n: usize) -> &mut Peer {
        &mut self.peers[n - 1]
    }

    /// A CPIM message of participant `n`; what it is answered.
    fn say(&mut self, n: usize, id: &str, lines: &str, cpim: &str) -> String {
        let size = cpim.len();
        let rest = format!(
            "Message-ID: {id}\r\n{lines}Byte-Range: 1-{size}/{size}\r\nContent-Type: message/cpim\r\n\r\n{cpim}\r\n"
        );
        let to = self.ours[n - 1].clone();
        let tid = self.peer(n).request("SEND", &to, &rest);
        self.peer(n).status(&tid)
    }

    fn silent(&mut self, n: usize) -> bool {
        self.peer(n).is_silent(QUIET)
    }
}

fn cpim(from: &str, to: &str, text: &str) -> String {
    format!("From: <{from}>\r\nTo: <{to}>\r\n\r\nContent-Type: text/plain\r\n\r\n{text}")
}

fn body(frame: &Frame) -> String {
    String::from_utf8(frame.body.clone()).unwrap()
}

/// §6.1, §8.3: to the room, by its URI or as RCS writes it; everybody but the sending session has it, as it was.
#[test]
fn s6_1_a_regular_message_goes_to_all() {
    let mut chat = Chat::up(true, false);
    for (id, to) in [("roomuri1", ROOM), ("anonymous", "sip:anonymous@anonymous.invalid")] {
        let text = cpim(&user(1), to, "hello, room");
        assert_eq!(chat.say(1, id, "", &text), "200");
        for n in [2, 3] {
            let sent = chat.peer(n).frame();
            assert_eq!(body(&sent), text);
            // CPM-FACTS §3.8 step 8: recipients are asked for no report; step 7: the switch answers for itself.
            assert_eq!((sent.value("Success-Report"), sent.line("Failure-Report")), (None, "no"));
        }
        assert!(chat.silent(1));
    }
    let text = cpim(&user(2), ROOM, "reported");
    assert_eq!(chat.say(2, "reported", "Success-Report: yes\r\n", &text), "200");
    let report = chat.peer(2).frame();
    assert_eq!(
        (report.word(), report.line("Status"), report.line("Message-ID")),
        ("REPORT", "000 200 OK", "reported")
    );
}

/// §6: a message that is no CPIM, is not from its sender, or is to nobody or to several, is refused.
#[test]
fn s6_codes_of_messages() {
    let mut chat = Chat::up(true, false);
    let to = chat.ours[0].clone();
    let tid = chat.peer(1).send(&to, "plain001", "", "not wrapped");
    assert_eq!(chat.peer(1).status(&tid), "415");
    for (id, text, status) in [
        ("notme001", cpim(&user(2), ROOM, "forged"), "403"),
        (
            "several1",
            cpim(&user(1), ROOM, "x").replacen("\r\n\r\n", &format!("\r\nTo: <{}>\r\n\r\n", user(2)), 1),
            "403",
        ),
        ("unknown1", cpim(&user(1), "sip:stranger@example.com", "x"), "404"),
        ("private3", cpim(&user(1), &user(3), "x"), "428"),
        ("nohead01", "no headers at all".to_owned(), "400"),
    ] {
        assert_eq!(chat.say(1, id, "", &text), status, "{id}");
    }
    // None of it reached anybody.
    assert!(chat.silent(2) && chat.silent(3));
    // §6.2: a room that has no private messages says so too, and nothing falls back to everybody.
    let mut chat = Chat::up(false, false);
    assert_ne!(chat.say(1, "private2", "", &cpim(&user(1), &user(2), "x")), "200");
    assert!(chat.silent(2) && chat.silent(3));
    // A type that one participant does not take passes him by (CPM-FACTS §3.8 step 9).
    let text = cpim(&user(1), ROOM, "x").replace("text/plain", "image/png");
    assert_eq!(chat.say(1, "picture1", "", &text), "200");
    assert!(chat.silent(2) && chat.silent(3));
}

/// §6.2, §8.4, §8.5: a private message goes to its recipient alone, also when its head comes in chunks.
#[test]
fn s6_2_a_private_message_whole_and_in_chunks() {
    let mut chat = Chat::up(true, false);
    let text = cpim(&user(1), &user(2), "between us");
    assert_eq!(chat.say(1, "private1", "", &text), "200");
    assert_eq!(body(&chat.peer(2).frame()), text);
    let to = chat.ours[0].clone();
    for cut in [1, 9, 30, 44, text.len() - 1] {
        let (mut said, total) = (Vec::new(), text.len());
        for (index, (start, part, flag)) in
            [(1, &text[..cut], '+'), (cut + 1, &text[cut..], '$')].into_iter().enumerate()
        {
            let (tid, end) = (format!("cut{cut}x{index}"), start + part.len() - 1);
            let own = chat.peer(1).own.clone();
            chat.peer(1).raw(
                format!(
                    "MSRP {tid} SEND\r\nTo-Path: {to}\r\nFrom-Path: {own}\r\nMessage-ID: chunked{cut}\r\n\
                     Byte-Range: {start}-{end}/{total}\r\nContent-Type: message/cpim\r\n\r\n{part}\r\n-------{tid}{flag}\r\n"
                )
                .as_bytes(),
            );
            assert_eq!(chat.peer(1).status(&tid), "200");
        }
        while said.len() < total {
            said.extend_from_slice(&chat.peer(2).frame().body);
        }
        assert_eq!(String::from_utf8(said).unwrap(), text, "cut at {cut}");
    }
    assert!(chat.silent(3));
}

/// §7, §8.2: a nickname is asked for, granted, taken, malformed, given up; its form is judged by the switch.
#[test]
fn s7_nicknames() {
    let mut chat = Chat::up(true, true);
    let to = chat.ours[0].clone();
    for (wanted, decided) in [("Alice the great", 200), ("Taken", 425), ("", 200)] {
        let tid = chat.peer(1).request("NICKNAME", &to, &format!("Use-Nickname: \"{wanted}\"\r\n"));
        let (leg, id, asked) = chat.plane.news(|what| match what {
            news::What::Message(m) => match &m.what {
                Some(message_news::What::Nickname(text)) => Some((m.leg.unwrap().leg, m.id, text.clone())),
                _ => None,
            },
            _ => None,
        });
        assert_eq!((leg, asked.as_str()), (1, wanted));
        chat.plane.decide(1, id, decided, wanted);
        let answer = chat.peer(1).frame();
        assert_eq!((answer.tid(), answer.word()), (tid.as_str(), decided.to_string().as_str()));
        // §7.1: along the whole From-Path.
        assert_eq!(answer.line("To-Path"), chat.peer(1).own);
    }
    for malformed in ["Use-Nickname: unquoted\r\n", "Use-Nickname: \"a\u{0}b\"\r\n", ""] {
        let tid = chat.peer(1).request("NICKNAME", &to, malformed);
        assert_eq!(chat.peer(1).status(&tid), "424", "{malformed:?}");
    }
    // §7.1: a room without nicknames does not give any.
    let mut chat = Chat::up(true, false);
    let to = chat.ours[0].clone();
    let tid = chat.peer(1).request("NICKNAME", &to, "Use-Nickname: \"Alice\"\r\n");
    assert_eq!(chat.peer(1).status(&tid), "403");
}

/// §6.1 with CPM-FACTS §3.8 step 8: who joins while a message is on its way does not get its tail.
#[test]
fn a_late_joiner_does_not_get_the_tail() {
    let mut plane = plane();
    let mut switch = room(true, false);
    switch.sources = Some(contract::LegSet { legs: vec![1, 2], media: String::new() });
    switch.targets.clone_from(&switch.sources);
    let ours = plane.set(vec![leg(1, true), leg(2, true)], vec![switch]);
    let (mut alice, mut bob) = (plane.join(1, &ours[0]), plane.join(2, &ours[1]));
    let text = cpim(&user(1), ROOM, "first half, second half");
    let (first, second) = text.split_at(text.len() - 11);
    let head = format!(
        "MSRP l4te SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: latejoin\r\nByte-Range: 1-*/*\r\n\
         Content-Type: message/cpim\r\n\r\n{first}",
        ours[0], alice.own
    );
    alice.raw(head.as_bytes());
    std::thread::sleep(QUIET);
    let theirs = plane.put(vec![Verb::PutLeg(leg(3, true)), Verb::PutPath(room(true, false))]);
    let path = theirs.into_iter().find(|(n, _)| *n == 3).unwrap().1;
    let mut carol = plane.join(3, &path);
    alice.raw(format!("{second}\r\n-------l4te$\r\n").as_bytes());
    assert_eq!(alice.status("l4te"), "200");
    let mut had = Vec::new();
    while had.len() < text.len() {
        had.extend_from_slice(&bob.frame().body);
    }
    assert_eq!(String::from_utf8(had).unwrap(), text);
    assert!(carol.is_silent(QUIET));
    let next = cpim(&user(1), ROOM, "for all of you");
    let size = next.len();
    let tid = alice.request(
        "SEND",
        &ours[0],
        &format!("Message-ID: nextone1\r\nByte-Range: 1-{size}/{size}\r\nContent-Type: message/cpim\r\n\r\n{next}\r\n"),
    );
    assert_eq!((alice.status(&tid).as_str(), body(&carol.frame())), ("200", next));
}

/// CPM-FACTS §3.8 steps 6 and 12: who may not speak is told so; one's own other session has a copy.
#[test]
fn who_may_not_speak_and_who_has_two_sessions() {
    let mut plane = plane();
    let mut silent = leg(2, true);
    silent.direction = Direction::Recvonly as i32;
    let mut twin = leg(3, true);
    twin.participant = user(1);
    if let Some(contract::leg::Kind::Msrp(msrp)) = &mut twin.kind {
        msrp.addresses = vec![user(1)];
    }
    let ours = plane.set(vec![leg(1, true), silent, twin], vec![room(true, false)]);
    let peers = (1..=3).map(|n| plane.join(n, &ours[n as usize - 1])).collect();
    let mut chat = Chat { plane, peers, ours };
    assert_eq!(chat.say(2, "mutedone", "", &cpim(&user(2), ROOM, "may I?")), "403");
    let text = cpim(&user(1), ROOM, "on both of mine");
    assert_eq!(chat.say(1, "twosess1", "", &text), "200");
    assert_eq!((body(&chat.peer(3).frame()), body(&chat.peer(2).frame())), (text.clone(), text));
    assert!(chat.silent(1));
}
