//! The Controlling Function from outside, in one process: real sockets, the data plane beside it, devices that are
//! `ue`'s. Flows F4 to F6 of CPM-FACTS §7.3; a chat room of the configuration; speech; REFER.

use std::sync::Arc;
use std::time::Duration;

use tests::node::{DOMAIN, Node, Settings, until};
use ue::{Answering, Call, Device, Draft, Event, SessionId, Transport};

const FACTORY: &str = "sip:conference-factory@weir.example";
const USERS: [(&str, Transport); 4] =
    [("ann", Transport::Tcp), ("bob", Transport::Udp), ("cat", Transport::Tls), ("dan", Transport::Tcp)];
const SETTINGS: Settings = Settings {
    users: &["ann", "bob", "cat", "dan"],
    rtp_first: 35_000,
    more: r#"
[service.controlling]
notify_interval_ms = 200
[[service.controlling.groups]]
address = "sip:books@weir.example"
members = ["sip:ann@weir.example", "sip:bob@weir.example"]
"#,
};

fn run(test: impl AsyncFnOnce(Node, [Device; 4])) {
    tests::node::run(SETTINGS, async |node| {
        let mut devices = Vec::new();
        for (user, transport) in USERS {
            devices.push(node.device(user, user, transport, Answering::Accept).await);
        }
        test(node, devices.try_into().expect("four")).await;
    });
}

async fn invited(device: &Device) -> SessionId {
    until(device, "an invitation", |event| match event {
        Event::Invited(invitation) if invitation.focus => Some(invitation.session),
        _ => None,
    })
    .await
}

async fn chat_up(device: &Device, session: SessionId) {
    until(device, "its chat", |event| {
        matches!(event, Event::ChatUp { session: s } if *s == session).then_some(())
    })
    .await;
}

async fn reads(device: &Device, wanted: &str) -> Arc<ue::Letter> {
    until(device, wanted, |event| match event {
        Event::Letter(letter) if letter.text() == wanted => Some(Arc::clone(letter)),
        _ => None,
    })
    .await
}

fn heard(device: &Device, text: &str) -> bool {
    device.log().since(0).iter().any(|event| matches!(event, Event::Letter(l) if l.text() == text))
}

/// Waits until a device's roster shows a user so; `None` = not at all.
async fn shows(device: &Device, session: SessionId, user: &str, status: Option<&str>) {
    let entity = format!("sip:{user}@{DOMAIN}");
    for _ in 0..200 {
        let roster = device.view(session).await.unwrap().roster;
        let found = roster.iter().find(|r| r.entity == entity).and_then(|r| r.status.as_deref());
        if found == status {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{}: {user} {status:?} in {:?}", device.name(), device.view(session).await.unwrap().roster);
}

/// F4, F6: a list, chat both ways, a private message, a nickname, adding and removing by REFER, the end.
// REQ-GEN-02, REQ-CF-02, REQ-CF-10, REQ-CF-12.
#[test]
fn an_ad_hoc_group_from_its_founding_to_its_end() {
    run(async |_node, [ann, bob, cat, dan]| {
        let list = ["sip:bob@weir.example", "sip:cat@weir.example"];
        let session = ann.invite(Call::group(FACTORY, &list).subject("Lunch")).await.unwrap();
        let (at_bob, at_cat) = (invited(&bob).await, invited(&cat).await);
        for (device, session) in [(&ann, session), (&bob, at_bob), (&cat, at_cat)] {
            chat_up(device, session).await;
        }
        ann.subscribe(session).await.unwrap();
        shows(&ann, session, "cat", Some("connected")).await;

        ann.chat(session).await.unwrap().send(&Draft::text("to all").displayed()).await.unwrap();
        for device in [&bob, &cat] {
            assert!(reads(device, "to all").await.from.contains("ann@weir.example"));
        }
        until(&ann, "a notification from one of them", |event| match event {
            Event::Notice(notice) if notice.status == "delivered" => Some(()),
            _ => None,
        })
        .await;
        bob.chat(at_bob)
            .await
            .unwrap()
            .send(&Draft::text("to ann alone").to("sip:ann@weir.example"))
            .await
            .unwrap();
        reads(&ann, "to ann alone").await;
        cat.chat(at_cat).await.unwrap().send(&Draft::text("back")).await.unwrap();
        reads(&ann, "back").await;
        reads(&bob, "back").await;
        assert!(!heard(&cat, "to ann alone"), "REQ: private messages stay private");

        assert_eq!(bob.chat(at_bob).await.unwrap().nickname("Bobby").await.unwrap(), 200);
        assert_eq!(cat.chat(at_cat).await.unwrap().nickname("bobby").await.unwrap(), 425);

        ann.add(session, "sip:dan@weir.example").await.unwrap();
        let at_dan = invited(&dan).await;
        chat_up(&dan, at_dan).await;
        until(&ann, "the report", |event| matches!(event, Event::Referred { code: 200 }).then_some(())).await;
        dan.chat(at_dan).await.unwrap().send(&Draft::text("hello from dan")).await.unwrap();
        reads(&cat, "hello from dan").await;

        ann.remove(session, "sip:cat@weir.example").await.unwrap();
        until(&cat, "the end", |event| {
            matches!(event, Event::Ended { session, .. } if *session == at_cat).then_some(())
        })
        .await;
        shows(&ann, session, "cat", None).await;

        dan.hang_up(at_dan, 200).await.unwrap();
        bob.hang_up(at_bob, 200).await.unwrap();
        let cause = until(&ann, "the end", |event| match event {
            Event::Ended { session: s, cause, .. } if *s == session => Some(*cause),
            _ => None,
        })
        .await;
        assert_eq!(cause, Some(410));
        for device in [&ann, &bob, &cat, &dan] {
            let faults: Vec<_> =
                device.log().since(0).into_iter().filter(|e| matches!(e, Event::Fault(_))).collect();
            assert!(faults.is_empty(), "{}: {faults:?}", device.name());
        }
    });
}

/// REQ-CF-20: members of a group of the configuration come one by one; others do not come in.
#[test]
fn a_chat_room_of_the_configuration() {
    run(async |_node, [ann, bob, cat, _dan]| {
        let room = "sip:books@weir.example";
        let at_ann = ann.invite(Call::join(room)).await.unwrap();
        let at_bob = bob.invite(Call::join(room)).await.unwrap();
        chat_up(&ann, at_ann).await;
        chat_up(&bob, at_bob).await;
        bob.chat(at_bob).await.unwrap().send(&Draft::text("page one")).await.unwrap();
        reads(&ann, "page one").await;
        assert!(cat.invite(Call::join(room)).await.is_err());
    });
}

/// REQ-CF-14: what one plays the others hear.
// REQ-CF-14.
#[test]
fn speech_goes_to_everybody_else() {
    run(async |_node, [ann, bob, cat, _dan]| {
        let list = ["sip:bob@weir.example", "sip:cat@weir.example"];
        let session = ann.invite(Call::group(FACTORY, &list).with_audio()).await.unwrap();
        let (at_bob, at_cat) = (invited(&bob).await, invited(&cat).await);
        chat_up(&bob, at_bob).await;
        chat_up(&cat, at_cat).await;
        ann.play(session, Arc::new(vec![1000; 32_000]), 1).await.unwrap();
        for (device, session) in [(&bob, at_bob), (&cat, at_cat)] {
            let mut received = 0;
            for _ in 0..100 {
                let stats = device.audio_stats(session).await.unwrap();
                received = stats.sources.values().map(|s| s.received).max().unwrap_or(0);
                if received >= 50 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            assert!(received >= 50, "{}: {received}", device.name());
        }
    });
}
