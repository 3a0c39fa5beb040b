//! Calls with keys from outside, in one process: SDES (RFC 4568), SRTP and SRTCP (RFC 3711, RFC 7714) over real sockets
//! between devices that are `ue`'s; each probe in each packet is heard as it was said.

use std::sync::Arc;
use std::time::Duration;

use sdp::CryptoSuite;
use tests::node::{Node, PATIENCE, Settings, until};
use ue::{Answering, Call, Device, Event, SessionId, Transport};

const FACTORY: &str = "sip:conference-factory@weir.example";
const MIRROR: Settings = Settings { users: &["ann", "bob", "cat"], rtp_first: 26_000, more: "" };
const TERMINATE: Settings =
    Settings { rtp_first: 27_000, more: "[service.media]\nsrtp = \"terminate\"\n", ..MIRROR };

async fn phone(node: &Node, user: &str, suites: &[CryptoSuite]) -> Device {
    let change = |account: &mut ue::Account| {
        account.srtp = suites.to_vec();
        account.rtcp_every = Duration::from_millis(200);
    };
    node.device_as(user, user, Transport::Udp, Answering::Accept, change).await
}

async fn invited(device: &Device) -> SessionId {
    until(device, "an invitation", |event| match event {
        Event::Invited(invitation) => Some(invitation.session),
        _ => None,
    })
    .await
}

/// Half a second of sound from one to the other, every packet of it as it was said, and reports beside it.
async fn hears(from: (&Device, SessionId), to: (&Device, SessionId), source: u16) {
    from.0.play(from.1, Arc::new(vec![1000; 8000]), source).await.unwrap();
    let mut stats = to.0.audio_stats(to.1).await.unwrap();
    for _ in 0..100 {
        if stats.sources.get(&source).is_some_and(|s| s.received >= 45) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        stats = to.0.audio_stats(to.1).await.unwrap();
    }
    let heard = stats.sources.get(&source).map_or(0, |s| s.received);
    assert!(heard >= 45, "{}: {heard} of 50; {stats:?}", to.0.name());
    assert_eq!((stats.unprobed, stats.malformed, stats.unauthentic), (0, 0, 0), "{}", to.0.name());
}

/// Both ends have keys, each its own, whatever the caller offers.
#[test]
fn a_call_with_keys_on_both_sides() {
    tests::node::run(MIRROR, async |node| {
        let bob = phone(&node, "bob", &[]).await;
        for (n, suite) in CryptoSuite::ALL.into_iter().enumerate() {
            // Of the suites that are allowed by default one is left out: it is refused, and the next one taken.
            let ann = phone(&node, "ann", &[suite, CryptoSuite::AesCm128HmacSha1_80]).await;
            let mark = bob.log().mark();
            let call = ann.invite(Call::audio("sip:bob@weir.example")).await.unwrap();
            let pick = |event: &Event| match event {
                Event::Invited(invitation) => Some(invitation.session),
                _ => None,
            };
            let theirs = bob.log().wait(mark, PATIENCE, pick).await.expect("an invitation");
            let source = u16::try_from(2 * n + 1).unwrap();
            hears((&ann, call), (&bob, theirs), source).await;
            hears((&bob, theirs), (&ann, call), source + 1).await;
            ann.hang_up(call, 200).await.unwrap();
            until(&bob, "the end", |event| match event {
                Event::Ended { session, .. } if *session == theirs => Some(()),
                _ => None,
            })
            .await;
        }
    });
}

/// Keys end at the data plane: Ann speaks SRTP, Bob plain RTP; she holds and goes on; reports pass both ways.
#[test]
fn a_call_with_keys_on_one_side_only() {
    tests::node::run(TERMINATE, async |node| {
        let ann = phone(&node, "ann", &[CryptoSuite::AeadAes128Gcm]).await;
        let bob = phone(&node, "bob", &[]).await;
        let call = ann.invite(Call::audio("sip:bob@weir.example")).await.unwrap();
        let theirs = invited(&bob).await;
        hears((&ann, call), (&bob, theirs), 1).await;
        hears((&bob, theirs), (&ann, call), 2).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        for (device, session) in [(&ann, call), (&bob, theirs)] {
            let stats = device.audio_stats(session).await.unwrap();
            assert!(stats.rtcp.contains_key(&200) || stats.rtcp.contains_key(&201), "{stats:?}");
        }
    });
}

/// The data plane's tables are lost: keys and what they have done come back from control, sound goes on.
#[test]
fn the_data_plane_goes_and_comes_back_under_a_call_with_keys() {
    tests::node::run(Settings { rtp_first: 28_000, ..MIRROR }, async |node| {
        let ann = phone(&node, "ann", &[CryptoSuite::AesCm128HmacSha1_80]).await;
        let bob = phone(&node, "bob", &[]).await;
        let call = ann.invite(Call::audio("sip:bob@weir.example")).await.unwrap();
        let theirs = invited(&bob).await;
        hears((&ann, call), (&bob, theirs), 1).await;
        hears((&bob, theirs), (&ann, call), 2).await;
        let node = tokio::task::spawn_blocking(move || node.restart_dataplane()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        hears((&ann, call), (&bob, theirs), 3).await;
        hears((&bob, theirs), (&ann, call), 4).await;
        tokio::task::spawn_blocking(move || drop(node)).await.unwrap();
    });
}

/// A member with keys and two without in one conference.
#[test]
fn a_conference_of_members_with_keys_and_without() {
    tests::node::run(Settings { rtp_first: 29_000, ..MIRROR }, async |node| {
        let ann = phone(&node, "ann", &[CryptoSuite::AeadAes256Gcm]).await;
        let (bob, cat) = (phone(&node, "bob", &[]).await, phone(&node, "cat", &[]).await);
        let list = ["sip:bob@weir.example", "sip:cat@weir.example"];
        let at_ann = ann.invite(Call::group(FACTORY, &list).with_audio()).await.unwrap();
        let (at_bob, at_cat) = (invited(&bob).await, invited(&cat).await);
        tokio::time::sleep(Duration::from_millis(500)).await;
        hears((&ann, at_ann), (&bob, at_bob), 1).await;
        hears((&ann, at_ann), (&cat, at_cat), 2).await;
        tokio::time::sleep(Duration::from_millis(800)).await;
        hears((&bob, at_bob), (&ann, at_ann), 3).await;
    });
}
