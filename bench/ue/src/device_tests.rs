//! Two devices that speak to each other through a relay of datagrams: no server between them.

use std::net::SocketAddr;

use sip::Transport;
use tokio::net::UdpSocket;
use tokio::sync::oneshot::error::TryRecvError;

use super::*;
use crate::audio::voice;
use crate::{Answering, ChatSetup, Side};

const LIMIT: Duration = Duration::from_secs(5);

/// Two sockets; what comes to one goes out of the other to who spoke there last.
async fn relay() -> (SocketAddr, SocketAddr) {
    let (a, b) =
        (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let addresses = (a.local_addr().unwrap(), b.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut from_a, mut from_b) = ([0; 65_535], [0; 65_535]);
        let (mut at_a, mut at_b) = (None, None);
        loop {
            tokio::select! {
                Ok((n, who)) = a.recv_from(&mut from_a) => {
                    at_a = Some(who);
                    if let Some(to) = at_b { b.send_to(&from_a[..n], to).await.unwrap(); }
                }
                Ok((n, who)) = b.recv_from(&mut from_b) => {
                    at_b = Some(who);
                    if let Some(to) = at_a { a.send_to(&from_b[..n], to).await.unwrap(); }
                }
            }
        }
    });
    addresses
}

async fn pair(change: impl Fn(&mut Account)) -> (Device, Device) {
    let (to_a, to_b) = relay().await;
    let identity = Arc::new(Identity::generate(&["ue.invalid"]).unwrap());
    let mut entropy = Entropy::from_number(1);
    let mut devices = Vec::new();
    for (user, server) in [("ann", to_a), ("bob", to_b)] {
        let mut account = Account::new(user, "weir.example", user, server, Transport::Udp, &mut entropy);
        change(&mut account);
        let device =
            Device::start(account, Arc::default(), Arc::clone(&identity), entropy.child()).await.unwrap();
        // So that the relay knows where it is.
        let _ = device.lose_nothing().await;
        devices.push(device);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let bob = devices.pop().unwrap();
    (devices.pop().unwrap(), bob)
}

impl Device {
    async fn lose_nothing(&self) -> Result<SessionId, UeError> {
        // An INVITE that nobody gets: it is cancelled at once.
        let session = self.dial(Call::chat("sip:nobody@weir.example")).await?;
        self.cancel(session).await?;
        Ok(session)
    }
}

fn up(event: &Event) -> Option<SessionId> {
    if let Event::Up { session } = event { Some(*session) } else { None }
}

fn text(event: &Event) -> Option<Arc<Letter>> {
    if let Event::Letter(letter) = event { Some(Arc::clone(letter)) } else { None }
}

fn notice<'w>(id: &'w str, status: &'w str) -> impl Fn(&Event) -> Option<()> + 'w {
    move |event| match event {
        Event::Notice(n) if n.message_id == id && n.status == status => Some(()),
        _ => None,
    }
}

fn no_faults(devices: [&Device; 2]) {
    for device in devices {
        let faults: Vec<_> =
            device.log().since(0).into_iter().filter(|e| matches!(e, Event::Fault(_))).collect();
        assert!(faults.is_empty(), "{}: {faults:?}", device.name());
    }
}

#[tokio::test]
async fn a_pager_message_is_delivered_and_displayed() {
    let (ann, bob) = pair(|_| ()).await;
    let sent = ann.message(bob.address(), &Draft::text("hello").displayed()).await.unwrap();
    let letter = bob.log().wait(0, LIMIT, text).await.unwrap();
    assert_eq!((letter.text().as_str(), letter.from.as_str()), ("hello", ann.address()));
    ann.log().wait(0, LIMIT, notice(&sent.message_id, "delivered")).await.unwrap();
    bob.displayed(&letter).await.unwrap();
    ann.log().wait(0, LIMIT, notice(&sent.message_id, "displayed")).await.unwrap();
    no_faults([&ann, &bob]);
}

async fn chat_both_ways(change: impl Fn(&mut Account)) {
    let (ann, bob) = pair(change).await;
    let mark = bob.log().mark();
    let session = ann.invite(Call::chat(bob.address()).with_audio()).await.unwrap();
    let theirs = bob.log().wait(mark, LIMIT, up).await.unwrap();
    let (a, b) = (ann.chat(session).await.unwrap(), bob.chat(theirs).await.unwrap());
    let large = "x".repeat(300_000);
    for words in ["short", large.as_str()] {
        let mark = bob.log().mark();
        let sent = a.send(&Draft::text(words)).await.unwrap();
        assert_eq!(bob.log().wait(mark, LIMIT, text).await.unwrap().text(), words);
        assert_eq!(sent.receipt.accepted.await, Ok(200));
        assert_eq!(sent.receipt.reported.await, Ok(200));
        ann.log().wait(0, LIMIT, notice(&sent.message_id, "delivered")).await.unwrap();
    }
    let mark = ann.log().mark();
    b.send(&Draft::text("back").quiet()).await.unwrap();
    assert_eq!(ann.log().wait(mark, LIMIT, text).await.unwrap().text(), "back");
    let said = Arc::new(voice(1, 0.4));
    ann.play(session, Arc::clone(&said), 1).await.unwrap();
    bob.play(theirs, said, 2).await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    for (device, session) in [(&ann, session), (&bob, theirs)] {
        let stats = device.audio_stats(session).await.unwrap();
        assert_eq!((stats.sent, stats.heard(), stats.lost()), (20, 20, 0));
    }
    // A re-INVITE with another path moves the chat to another connection.
    ann.reinvite(session, Change { fresh_message: true, ..Change::default() }).await.unwrap();
    let mark = bob.log().mark();
    ann.chat(session).await.unwrap().send(&Draft::text("moved").quiet()).await.unwrap();
    assert_eq!(bob.log().wait(mark, LIMIT, text).await.unwrap().text(), "moved");
    ann.hang_up(session, 200).await.unwrap();
    let ended =
        |e: &Event| if let Event::Ended { by: Side::Them, cause, .. } = e { Some(*cause) } else { None };
    assert_eq!(bob.log().wait(mark, LIMIT, ended).await, Some(Some(200)));
    no_faults([&ann, &bob]);
}

#[tokio::test]
async fn a_session_with_chat_and_audio_over_tcp() {
    chat_both_ways(|account| account.chat_setup = ChatSetup::Passive).await;
}

#[tokio::test]
async fn a_session_with_chat_and_audio_over_tls() {
    chat_both_ways(|account| account.chat_tls = true).await;
}

#[tokio::test]
async fn the_caller_may_be_active_only() {
    chat_both_ways(|account| {
        if account.user() == "ann" {
            account.chat_setup = ChatSetup::Active;
        }
    })
    .await;
}

/// A slow reader: what was sent meanwhile waits in the sockets and at the sender, and then comes.
#[tokio::test]
async fn a_reader_that_is_held_reads_everything_later() {
    let (ann, bob) = pair(|_| ()).await;
    let mark = bob.log().mark();
    let session = ann.invite(Call::chat(bob.address())).await.unwrap();
    let theirs = bob.log().wait(mark, LIMIT, up).await.unwrap();
    let (a, b) = (ann.chat(session).await.unwrap(), bob.chat(theirs).await.unwrap());
    b.pause(true);
    let large = "x".repeat(16 << 20);
    let mut sent = a.send(&Draft::text(large.as_str()).quiet()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(sent.receipt.accepted.try_recv(), Err(TryRecvError::Empty));
    assert!(bob.log().since(mark).iter().all(|e| text(e).is_none()));
    b.pause(false);
    assert_eq!(bob.log().wait(mark, LIMIT, text).await.unwrap().body.len(), large.len());
    assert_eq!((sent.receipt.accepted.await, sent.receipt.reported.await), (Ok(200), Ok(200)));
    no_faults([&ann, &bob]);
}

#[tokio::test]
async fn an_invitation_rings_and_is_refused_or_taken_back() {
    let (ann, bob) = pair(|account| account.answering = Answering::Ring).await;
    let rung = |e: &Event| if let Event::Invited(i) = e { Some(i.session) } else { None };
    let ended = |e: &Event| if let Event::Ended { cause, .. } = e { Some(*cause) } else { None };
    let (mark, own) = (bob.log().mark(), ann.log().mark());
    let session = ann.dial(Call::chat(bob.address())).await.unwrap();
    let ringing = bob.log().wait(mark, LIMIT, rung).await.unwrap();
    let progress = |e: &Event| if let Event::Progress { code, .. } = e { Some(*code) } else { None };
    assert_eq!(ann.log().wait(own, LIMIT, progress).await, Some(180));
    bob.refuse(ringing, 486).await.unwrap();
    assert_eq!(ann.log().wait(own, LIMIT, ended).await, Some(Some(486)));
    assert!(ann.view(session).await.is_err());

    let (mark, own) = (bob.log().mark(), ann.log().mark());
    let session = ann.dial(Call::chat(bob.address())).await.unwrap();
    bob.log().wait(mark, LIMIT, rung).await.unwrap();
    ann.cancel(session).await.unwrap();
    assert_eq!(bob.log().wait(mark, LIMIT, ended).await, Some(Some(487)));
    assert_eq!(ann.log().wait(own, LIMIT, ended).await, Some(Some(487)));
    no_faults([&ann, &bob]);
}
