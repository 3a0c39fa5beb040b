//! The Participating Function from outside, in one process: real sockets, the data plane beside it, devices that
//! are `ue`'s. Flows F1 and F3 of CPM-FACTS §7.3, over UDP, TCP and TLS.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ue::{Account, Answering, Call, Counters, Device, Draft, Event, Identity, SessionId, Transport};

const DOMAIN: &str = "weir.example";
const PATIENCE: Duration = Duration::from_secs(20);

struct Node {
    folder: tempfile::TempDir,
    control: Option<controld::Running>,
    dataplane: Option<dataplaned::Running>,
}

const TRANSPORTS: [controld::Transport; 3] =
    [controld::Transport::Udp, controld::Transport::Tcp, controld::Transport::Tls];

/// Control in that folder, listening on those ports.
fn control(folder: &std::path::Path, ports: [u16; 3]) -> controld::Running {
    let mut text = format!("folder = \"{}\"\n[metrics]\naddress = \"127.0.0.1:0\"\n", folder.display());
    for (transport, port) in TRANSPORTS.into_iter().zip(ports) {
        let transport = transport.label();
        text += &format!("[[sip.listeners]]\ntransport = \"{transport}\"\naddress = \"127.0.0.1:{port}\"\n");
    }
    for user in ["ann", "bob"] {
        text += &format!(
            "[[service.subscribers]]\naddress = \"sip:{user}@{DOMAIN}\"\npassword = \"{user}-secret\"\n"
        );
    }
    controld::start(controld::Config::parse(&text).unwrap(), controld::Shutdown::new()).unwrap()
}

fn dataplane(folder: &std::path::Path) -> dataplaned::Running {
    let path = folder.display();
    let dataplane = format!(
        "folder = \"{path}\"\n[driver]\nkind = \"mio\"\n[metrics]\non = false\n[msrp]\nport = 0\n\
         [rtp]\nport_first = 34000\nport_last = 34999\n"
    );
    dataplaned::start(toml::from_str(&dataplane).unwrap()).unwrap()
}

fn node() -> Node {
    let folder = tempfile::tempdir().unwrap();
    let dataplane = dataplane(folder.path());
    let control = control(folder.path(), [0; 3]);
    Node { folder, control: Some(control), dataplane: Some(dataplane) }
}

impl Node {
    fn sip(&self, transport: controld::Transport) -> std::net::SocketAddr {
        self.control.as_ref().unwrap().addresses().sip(transport).unwrap()
    }

    /// Control ends and begins anew on the same ports, with what it wrote down and no more. It brings its own
    /// runtime, so a thread of its own does it.
    fn restart(self) -> Node {
        let ports = TRANSPORTS.map(|transport| self.sip(transport).port());
        let Node { folder, control: old, dataplane } = self;
        drop(old);
        std::thread::sleep(Duration::from_millis(500));
        let control = control(folder.path(), ports);
        Node { folder, control: Some(control), dataplane }
    }

    /// The data plane ends, its tables with it, and another one begins.
    fn restart_dataplane(mut self) -> Node {
        drop(self.dataplane.take());
        std::thread::sleep(Duration::from_millis(500));
        self.dataplane = Some(dataplane(self.folder.path()));
        self
    }
}

async fn device(node: &Node, user: &str, name: &str, transport: Transport, answering: Answering) -> Device {
    let side = match transport {
        Transport::Udp => controld::Transport::Udp,
        Transport::Tcp => controld::Transport::Tcp,
        _ => controld::Transport::Tls,
    };
    let server = node.sip(side);
    let mut entropy = ue::system_entropy();
    let mut account = Account::new(user, DOMAIN, &format!("{user}-secret"), server, transport, &mut entropy);
    account.name = name.to_owned();
    account.answering = answering;
    account.chat_tls = false;
    let counters = Arc::new(Counters::default());
    let identity = Arc::new(Identity::generate(&["localhost"]).unwrap());
    let device = Device::start(account, counters, identity, entropy).await.unwrap();
    device.register().await.unwrap();
    device
}

async fn until<T>(device: &Device, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
    match device.log().wait(0, PATIENCE, pick).await {
        Some(found) => found,
        None => panic!("{}: {what} in {:#?}", device.name(), device.log().since(0)),
    }
}

fn run(test: impl AsyncFnOnce(Node)) {
    let node = node();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test(node));
}

/// F1, REQ-PF-17, REQ-PF-23, REQ-PF-25.
// REQ-PF-17, REQ-PF-23, REQ-PF-16, REQ-IF-CONV-08.
#[test]
fn a_pager_message_reaches_every_device_and_one_notification_comes_back() {
    run(async |node| {
        let ann = device(&node, "ann", "ann/phone", Transport::Tcp, Answering::Accept).await;
        let bobs = [
            device(&node, "bob", "bob/phone", Transport::Udp, Answering::Accept).await,
            device(&node, "bob", "bob/tablet", Transport::Tls, Answering::Accept).await,
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
        let ann = device(&node, "ann", "ann/phone", Transport::Tcp, Answering::Accept).await;
        let phone = device(&node, "bob", "bob/phone", Transport::Udp, Answering::Ring).await;
        let tablet = device(&node, "bob", "bob/tablet", Transport::Tls, Answering::Ring).await;
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
        let ann = device(&node, "ann", "ann/phone", Transport::Udp, Answering::Accept).await;
        let bob = device(&node, "bob", "bob/phone", Transport::Udp, Answering::Accept).await;
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
        let ann = device(&node, "ann", "ann/phone", Transport::Udp, Answering::Accept).await;
        let bob = device(&node, "bob", "bob/phone", Transport::Udp, Answering::Accept).await;
        let session = ann.invite(Call::chat("sip:bob@weir.example")).await.unwrap();
        let theirs = ringing(&bob).await;
        let chat = ann.chat(session).await.unwrap();
        chat.send(&Draft::text("before")).await.unwrap();
        let node = tokio::task::spawn_blocking(move || node.restart()).await.unwrap();
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
        let ann = device(&node, "ann", "ann/phone", Transport::Tcp, Answering::Accept).await;
        let bob = device(&node, "bob", "bob/phone", Transport::Udp, Answering::Accept).await;
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
