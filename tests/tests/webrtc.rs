//! WebRTC ends in calls and conferences with plain phones (RFC 8445 lite, RFC 5764), in one process over real sockets:
//! signalling is carried by a `ue` device, as a web page's would be.

use std::sync::Arc;
use std::time::Duration;

use tests::node::{Node, PATIENCE, Settings, until};
use tests::webrtc::End;
use ue::{Answering, Call, Device, Event, SessionId, Transport};

const FACTORY: &str = "sip:conference-factory@weir.example";
const SETTINGS: Settings = Settings { users: &["ann", "bob", "cat"], rtp_first: 31_000, more: "" };

async fn phone(node: &Node, user: &str) -> Device {
    node.device_as(user, user, Transport::Udp, Answering::Accept, |_| {}).await
}

async fn invited(device: &Device) -> SessionId {
    until(device, "an invitation", |event| match event {
        Event::Invited(invitation) => Some(invitation.session),
        _ => None,
    })
    .await
}

/// Calls with the end's offer, and connects it with what is answered.
async fn call(carrier: &Device, call: Call, end: &mut End) -> SessionId {
    let session = carrier.invite(call.describing(end.offer())).await.unwrap();
    let answer = until(carrier, "an answer", |event| match event {
        Event::Described { sdp, .. } => Some(sdp.clone()),
        _ => None,
    })
    .await;
    tokio::task::block_in_place(|| end.connect(&answer));
    session
}

/// Both speak for a second and hear each other.
async fn converse(end: &mut End, other: (&Device, SessionId), source: u16) {
    let before = other.0.audio_stats(other.1).await.unwrap().unprobed;
    other.0.play(other.1, Arc::new(vec![1000; 8000]), source).await.unwrap();
    let heard = tokio::task::block_in_place(|| end.converse(50));
    assert!(heard >= 45, "the end heard {heard} of 50");
    let stats = other.0.audio_stats(other.1).await.unwrap();
    assert!(stats.unprobed - before >= 45 && stats.malformed == 0, "{stats:?}");
}

#[test]
fn a_webrtc_end_and_a_plain_phone_in_one_call() {
    tests::node::run(SETTINGS, async |node| {
        let (ann, bob) = (phone(&node, "ann").await, phone(&node, "bob").await);
        let mut end = End::new();
        let session = call(&ann, Call::audio("sip:bob@weir.example"), &mut end).await;
        let theirs = invited(&bob).await;
        converse(&mut end, (&bob, theirs), 1).await;
        ann.hang_up(session, 200).await.unwrap();
        until(&bob, "the end", |event| matches!(event, Event::Ended { .. }).then_some(())).await;
    });
}

#[test]
fn a_webrtc_end_and_plain_phones_in_one_conference() {
    tests::node::run(Settings { rtp_first: 32_000, ..SETTINGS }, async |node| {
        let [ann, bob, cat] =
            [phone(&node, "ann").await, phone(&node, "bob").await, phone(&node, "cat").await];
        let mut end = End::new();
        let list = ["sip:bob@weir.example", "sip:cat@weir.example"];
        call(&ann, Call::group(FACTORY, &list), &mut end).await;
        let (at_bob, at_cat) = (invited(&bob).await, invited(&cat).await);
        tokio::time::sleep(Duration::from_millis(500)).await;
        converse(&mut end, (&bob, at_bob), 1).await;
        let heard = cat.audio_stats(at_cat).await.unwrap();
        assert!(heard.unprobed >= 45, "{heard:?}");
    });
}

/// What announces another certificate than it shows gets no media, and its call is ended.
#[test]
fn a_webrtc_end_with_another_certificate_is_ended() {
    tests::node::run(Settings { rtp_first: 33_000, ..SETTINGS }, async |node| {
        let (ann, bob) = (phone(&node, "ann").await, phone(&node, "bob").await);
        let (mut end, other) = (End::new(), End::new());
        // The right user fragment and password, somebody else's certificate.
        let session =
            ann.invite(Call::audio("sip:bob@weir.example").describing(other.offer())).await.unwrap();
        invited(&bob).await;
        let answer = until(&ann, "an answer", |event| match event {
            Event::Described { sdp, .. } => Some(sdp.clone()),
            _ => None,
        })
        .await;
        tokio::task::block_in_place(|| end.connect(&answer));
        let ended =
            |event: &Event| matches!(event, Event::Ended { session: s, .. } if *s == session).then_some(());
        assert!(ann.log().wait(0, PATIENCE, ended).await.is_some(), "the call goes on");
    });
}
