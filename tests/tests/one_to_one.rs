//! The Participating Function from outside, in one process: real sockets, the data plane beside it, devices that
//! are `ue`'s. Flows F1 and F3 of CPM-FACTS §7.3, over UDP, TCP and TLS.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tests::node::{Node, Settings, until};
use ue::{Answering, Call, Device, Draft, Event, SessionId, Transport};

fn run(test: impl AsyncFnOnce(Node)) {
    tests::node::run(Settings { users: &["ann", "bob"], rtp_first: 34_000, more: "" }, test);
}

/// F1, REQ-PF-17, REQ-PF-23, REQ-PF-25.
// REQ-PF-17, REQ-PF-23, REQ-PF-16, REQ-IF-CONV-08.
#[test]
fn a_pager_message_reaches_every_device_and_one_notification_comes_back() {
    run(async |node| {
        let ann = node.device("ann", "ann/phone", Transport::Tcp, Answering::Accept).await;
        let bobs = [
            node.device("bob", "bob/phone", Transport::Udp, Answering::Accept).await,
            node.device("bob", "bob/tablet", Transport::Tls, Answering::Accept).await,
        ];
        let sent = ann.message("sip:bob@weir.example", &Draft::text("hello").displayed()).await.unwrap();
        for bob in &bobs {
            let letter = until(bob, "the message", |event| match event {
                Event::Letter(letter) => Some(Arc::clone(letter)),
                _ => None,
            })
            .await;
            assert_eq!(
                (letter.text().as_str(), letter.asserted.as_deref()),
                ("hello", Some("sip:ann@weir.example"))
            );
            bob.displayed(&letter).await.unwrap();
        }
        until(&ann, "displayed", |event| match event {
            Event::Notice(notice) if notice.status == "displayed" => Some(()),
            _ => None,
        })
        .await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut heard = BTreeMap::new();
        for event in ann.log().since(0) {
            if let Event::Notice(notice) = event {
                assert_eq!(notice.message_id, sent.message_id);
                *heard.entry(notice.status.clone()).or_insert(0) += 1;
            }
        }
        assert_eq!(heard.get("displayed"), Some(&1), "{heard:?}");
        assert!(heard.get("delivered").is_none_or(|n| *n == 1), "{heard:?}");
    });
}

async fn ringing(device: &Device) -> SessionId {
    until(device, "an invitation", |event| match event {
        Event::Invited(invitation) => Some(invitation.session),
        _ => None,
    })
    .await
}

/// F3: forked to both, the tablet answers, the phone hears that the call was completed elsewhere; text both ways
/// through the data plane; the caller hangs up.
// REQ-GEN-01, REQ-PF-22, REQ-PF-01.
#[test]
fn a_chat_forks_to_two_devices_and_the_first_answer_wins() {
    run(async |node| {
        let ann = node.device("ann", "ann/phone", Transport::Tcp, Answering::Accept).await;
        let phone = node.device("bob", "bob/phone", Transport::Udp, Answering::Ring).await;
        let tablet = node.device("bob", "bob/tablet", Transport::Tls, Answering::Ring).await;
        let session = ann.dial(Call::chat("sip:bob@weir.example")).await.unwrap();
        let lost = ringing(&phone).await;
        let won = ringing(&tablet).await;
        tablet.answer(won).await.unwrap();
        until(&ann, "the session", |event| {
            matches!(event, Event::Up { session: s } if *s == session).then_some(())
        })
        .await;
        let cause = until(&phone, "the end of its ringing", |event| match event {
            Event::Ended { session, cause, .. } if *session == lost => Some(*cause),
            _ => None,
        })
        .await;
        assert_eq!(cause, Some(200), "Call completed elsewhere");
        let text = |device: &Device, wanted: &'static str| {
            let device = device.clone();
            async move {
                until(&device, wanted, |event| match event {
                    Event::Letter(letter) if letter.text() == wanted => Some(()),
                    _ => None,
                })
                .await;
            }
        };
        ann.chat(session).await.unwrap().send(&Draft::text("to bob")).await.unwrap();
        text(&tablet, "to bob").await;
        tablet.chat(won).await.unwrap().send(&Draft::text("to ann")).await.unwrap();
        text(&ann, "to ann").await;
        ann.hang_up(session, 200).await.unwrap();
        until(&tablet, "the end", |event| match event {
            Event::Ended { session, .. } if *session == won => Some(()),
            _ => None,
        })
        .await;
    });
}

/// Audio through the data plane, held by the callee's side of it: what Ann plays Bob hears.
// REQ-PF-12.
#[test]
fn a_call_carries_sound() {
    run(async |node| {
        let ann = node.device("ann", "ann/phone", Transport::Udp, Answering::Accept).await;
        let bob = node.device("bob", "bob/phone", Transport::Udp, Answering::Accept).await;
        let session = ann.invite(Call::audio("sip:bob@weir.example")).await.unwrap();
        let theirs = ringing(&bob).await;
        ann.play(session, Arc::new(vec![1000; 16_000]), 1).await.unwrap();
        for _ in 0..100 {
            if bob.audio_stats(theirs).await.unwrap().sources.values().any(|s| s.received >= 50) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let stats = bob.audio_stats(theirs).await.unwrap();
        assert!(stats.sources.values().any(|s| s.received >= 50), "{stats:?}");
        bob.hang_up(theirs, 200).await.unwrap();
        until(&ann, "the end", |event| match event {
            Event::Ended { session: s, .. } if *s == session => Some(()),
            _ => None,
        })
        .await;
    });
}

/// REQ of DESIGN §2, invariant 8: text flows while control is away; it comes back, and ends the session properly.
#[test]
fn control_goes_and_comes_back_while_two_talk() {
    run(async |node| {
        let ann = node.device("ann", "ann/phone", Transport::Udp, Answering::Accept).await;
        let bob = node.device("bob", "bob/phone", Transport::Udp, Answering::Accept).await;
        let session = ann.invite(Call::chat("sip:bob@weir.example")).await.unwrap();
        let theirs = ringing(&bob).await;
        let chat = ann.chat(session).await.unwrap();
        chat.send(&Draft::text("before")).await.unwrap();
        let node = tokio::task::spawn_blocking(move || node.restart_control()).await.unwrap();
        chat.send(&Draft::text("after")).await.unwrap();
        for wanted in ["before", "after"] {
            until(&bob, wanted, |event| match event {
                Event::Letter(letter) if letter.text() == wanted => Some(()),
                _ => None,
            })
            .await;
        }
        // The registrations are there too.
        ann.message("sip:bob@weir.example", &Draft::text("a pager message")).await.unwrap();
        ann.hang_up(session, 200).await.unwrap();
        until(&bob, "the end", |event| match event {
            Event::Ended { session, .. } if *session == theirs => Some(()),
            _ => None,
        })
        .await;
        tokio::task::spawn_blocking(move || drop(node)).await.unwrap();
    });
}

/// The data plane's tables are lost: control gives them back. Sound resumes on the same ports without a word;
/// the chat is set up again under a new path.
#[test]
fn the_data_plane_goes_and_comes_back_while_two_talk() {
    run(async |node| {
        let ann = node.device("ann", "ann/phone", Transport::Tcp, Answering::Accept).await;
        let bob = node.device("bob", "bob/phone", Transport::Udp, Answering::Accept).await;
        let call = ann.invite(Call::audio("sip:bob@weir.example")).await.unwrap();
        let heard = ringing(&bob).await;
        let chat = ann.invite(Call::chat("sip:bob@weir.example")).await.unwrap();
        ann.chat(chat).await.unwrap().send(&Draft::text("before")).await.unwrap();
        ann.play(call, Arc::new(vec![1000; 160_000]), 1).await.unwrap();
        let received = async || {
            let stats = bob.audio_stats(heard).await.unwrap();
            stats.sources.values().map(|s| s.received).sum::<u64>()
        };
        let reaches = async |count: u64| {
            for _ in 0..150 {
                if received().await >= count {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            panic!("{} packets, {count} wanted", received().await);
        };
        reaches(20).await;
        let node = tokio::task::spawn_blocking(move || node.restart_dataplane()).await.unwrap();
        reaches(received().await + 50).await;
        until(&ann, "the chat's new path", |event| {
            matches!(event, Event::Changed { session } if *session == chat).then_some(())
        })
        .await;
        ann.chat(chat).await.unwrap().send(&Draft::text("after")).await.unwrap();
        until(&bob, "after", |event| match event {
            Event::Letter(letter) if letter.text() == "after" => Some(()),
            _ => None,
        })
        .await;
        tokio::task::spawn_blocking(move || drop(node)).await.unwrap();
    });
}
