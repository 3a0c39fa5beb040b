//! kill -9 of either process while people chat and talk: control takes its sessions over, messages come once and in
//! order, what the data plane lost is set up again (DESIGN §2, invariant 8). The streams are counted in `kills`.
#![expect(clippy::unwrap_used, reason = "helpers of a test fail the test")]

mod node;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use node::{Node, PATIENCE};
use tokio::sync::Mutex;
use ue::audio::voice;
use ue::{Call, Device, Draft, Event, SessionId, Transport};

impl Node {
    /// The process of a role and how often it was started.
    fn process(&self, role: &str) -> Option<(String, String)> {
        let said = self.said();
        let line = said.iter().rev().find(|line| line.starts_with(&format!("{role} runs as process ")))?;
        let mut words = line.split(' ').skip(4);
        Some((words.next()?.to_owned(), words.nth(1)?.trim_end_matches(')').to_owned()))
    }

    /// kill -9; returns when the role runs again and both are linked.
    fn kill(&self, role: &str) {
        self.wait("the process is named", || self.process(role).is_some());
        let (pid, start) = self.process(role).unwrap();
        assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
        self.wait("it is started again", || self.process(role).is_some_and(|(_, again)| again != start));
        self.wait("it is linked again", || self.is_linked());
    }

    async fn phone(&self, user: &str) -> Device {
        self.device(user, Transport::Udp, |_| {}).await
    }
}

/// Loss is judged: one node at a time has the machine.
static ALONE: Mutex<()> = Mutex::const_new(());

/// What is taken over is at home on either.
fn two_shards(config: &mut toml::Table) {
    let cores = [0, 1].map(toml::Value::Integer).to_vec();
    config["dataplane"]["shards"]["cores"] = toml::Value::Array(cores);
}

fn texts(device: &Device) -> Vec<String> {
    let text = |e: Event| if let Event::Letter(letter) = e { Some(letter.text()) } else { None };
    device.log().since(0).into_iter().filter_map(text).collect()
}

/// What ended or went wrong at a device.
fn odd(device: &Device) -> Vec<Event> {
    let bad = |e: &Event| matches!(e, Event::Ended { .. } | Event::ChatDown { .. } | Event::Fault(_));
    device.log().since(0).into_iter().filter(bad).collect()
}

/// A session between two devices: its names at both ends.
async fn connect(from: &Device, to: &Device, call: Call) -> (SessionId, SessionId) {
    let mark = to.log().mark();
    let own = from.invite(call).await.unwrap();
    let up = |e: &Event| if let Event::Up { session } = e { Some(*session) } else { None };
    (own, to.log().wait(mark, PATIENCE, up).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_and_calls_outlive_control_five_times_and_can_be_changed_and_ended() {
    let _alone = ALONE.lock().await;
    let node = Node::start("mio", two_shards);
    assert!(node.folder.path().join("control.sqlite").exists());
    assert!(node.metrics().contains("weir_control_dataplane_link_up 1\n"));
    let (ann, bob) = (node.phone("ann").await, node.phone("bob").await);
    let said = Arc::new(voice(5, 60.0));
    let mut calls = Vec::new();
    for n in 0..3 {
        let (own, theirs) = connect(&ann, &bob, Call::audio(bob.address())).await;
        calls.push((own, theirs));
        ann.play(own, Arc::clone(&said), 2 * n).await.unwrap();
        bob.play(theirs, Arc::clone(&said), 2 * n + 1).await.unwrap();
    }
    let (own, theirs) = connect(&ann, &bob, Call::chat(bob.address())).await;
    let chat = ann.chat(own).await.unwrap();
    bob.chat(theirs).await.unwrap();
    // Within the first seconds control does not know yet that the data plane has everything, and would put it again.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let talking = tokio::spawn(async move {
        let mut sent = 0;
        loop {
            if chat.send(&Draft::text(format!("message {sent}"))).await.is_err() {
                return sent;
            }
            sent += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
            if sent == 100 {
                return sent;
            }
        }
    });
    for _ in 0..5 {
        tokio::task::block_in_place(|| node.kill("control"));
    }
    let sent = talking.await.unwrap();
    assert_eq!(sent, 100, "{:?}", odd(&ann));
    let last = |e: &Event| matches!(e, Event::Letter(l) if l.text() == "message 99").then_some(());
    assert!(bob.log().wait(0, PATIENCE, last).await.is_some());
    let ends: (Vec<SessionId>, Vec<SessionId>) = calls.iter().copied().unzip();
    for (device, sessions) in [(&ann, ends.0), (&bob, ends.1)] {
        for session in sessions {
            let stats = device.audio_stats(session).await.unwrap();
            assert!(stats.heard() > 100, "{}", stats.heard());
            assert_eq!((stats.lost(), stats.send_errors), (0, 0));
            assert!(stats.sources.values().all(|s| s.duplicates == 0));
        }
    }
    let expected: Vec<String> = (0..100).map(|n| format!("message {n}")).collect();
    assert_eq!(texts(&bob), expected, "each once, in order");
    // Control knows the sessions still: it changes one and ends all.
    let (own, theirs) = calls[0];
    ann.reinvite(own, ue::Change { direction: Some(ue::Direction::SendOnly), ..ue::Change::default() })
        .await
        .unwrap();
    for (own, _) in &calls {
        let mark = bob.log().mark();
        ann.hang_up(*own, 200).await.unwrap();
        let ended = |e: &Event| matches!(e, Event::Ended { .. }).then_some(());
        assert!(bob.log().wait(mark, PATIENCE, ended).await.is_some(), "{theirs:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_of_the_data_plane_audio_resumes_on_the_same_ports_and_chat_is_invited_again() {
    let _alone = ALONE.lock().await;
    let node = Node::start("mio", two_shards);
    let (carol, dave) = (node.phone("carol").await, node.phone("dave").await);
    let (own, theirs) = connect(&carol, &dave, Call::audio(dave.address())).await;
    carol.play(own, Arc::new(voice(6, 60.0)), 1).await.unwrap();
    let (chat, their_chat) = connect(&carol, &dave, Call::chat(dave.address())).await;
    carol.chat(chat).await.unwrap().send(&Draft::text("before")).await.unwrap();
    let letter = |wanted: &'static str| {
        move |e: &Event| matches!(e, Event::Letter(l) if l.body == wanted).then_some(())
    };
    dave.log().wait(0, PATIENCE, letter("before")).await.unwrap();
    let mark = dave.log().mark();
    tokio::task::block_in_place(|| node.kill("dataplane"));
    // Audio: nobody said anything, and it is heard again.
    let before = dave.audio_stats(theirs).await.unwrap().heard();
    let began = Instant::now();
    while dave.audio_stats(theirs).await.unwrap().heard() < before + 100 {
        assert!(began.elapsed() < PATIENCE, "no audio since");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Chat: both ends were invited again, onto another connection.
    let changed = |e: &Event| matches!(e, Event::Changed { session } if *session == their_chat).then_some(());
    assert!(dave.log().wait(mark, PATIENCE, changed).await.is_some());
    tokio::time::sleep(Duration::from_millis(500)).await;
    carol.chat(chat).await.unwrap().send(&Draft::text("after")).await.unwrap();
    assert!(dave.log().wait(mark, PATIENCE, letter("after")).await.is_some());
    carol.hang_up(own, 200).await.unwrap();
    carol.hang_up(chat, 200).await.unwrap();
}
