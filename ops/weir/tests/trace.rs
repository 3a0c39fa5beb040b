//! `weir trace` beside a node that lives: a chat and a group call are followed on all their legs, through decisions, contract
//! and media, without a number of anybody; and a tracer that does not read holds nothing up.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of a test fail the test")]

mod node;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use node::{Node, PATIENCE, WEIR};
use serde_json::Value;
use ue::audio::voice;
use ue::{Call, Device, Draft, Event, SessionId, Transport};

/// Who takes part: the password of each is the number.
const ANN: &str = "+15550100001";
const BOB: &str = "+15550100002";
const CAT: &str = "+15550100003";
const FACTORY: &str = "sip:conference-factory@weir.example";
/// What all their numbers have in common, and nobody may see.
const SECRET: &str = "1555010";

fn address(number: &str) -> String {
    format!("sip:{number}@weir.example")
}

fn node(more: impl FnOnce(&mut toml::Table)) -> Node {
    Node::start("mio", |config| {
        let subscriber = |number: &&str| {
            let keys = format!("address = \"{}\"\npassword = \"{number}\"", address(number));
            toml::Value::Table(keys.parse().unwrap())
        };
        let all = [ANN, BOB, CAT].iter().map(subscriber).collect();
        config["control"]["service"]["subscribers"] = toml::Value::Array(all);
        more(config);
    })
}

/// A `weir trace` that runs.
struct Trace {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Trace {
    /// It has begun when this returns.
    fn start(folder: &Path, whom: [&str; 2], more: &[&str]) -> Trace {
        let mut child = Command::new(WEIR)
            .args(["trace", "--folder"])
            .arg(folder)
            .args(whom)
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (out, heard) = (BufReader::new(child.stdout.take().unwrap()).lines(), Arc::clone(&lines));
        std::thread::spawn(move || {
            out.map_while(Result::ok)
                .for_each(|line| heard.lock().unwrap_or_else(PoisonError::into_inner).push(line));
        });
        let mut said = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
        assert!(said.contains("tracing for"), "{said}");
        Trace { child, lines }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn events(&self) -> Vec<Value> {
        self.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until enough has been told.
    fn wait(&self, what: &str, done: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let began = Instant::now();
        loop {
            let events = self.events();
            if done(&events) {
                return events;
            }
            assert!(began.elapsed() < PATIENCE, "{what}: not in time in\n{}", self.lines().join("\n"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ctrl-C; what it has written by its end.
    fn end(mut self) -> Vec<String> {
        Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(self.child.wait().unwrap().success());
        // Its last lines may still be on their way from the pipe.
        let began = Instant::now();
        while Arc::strong_count(&self.lines) > 1 && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.lines()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text<'v>(event: &'v Value, key: &str) -> &'v str {
    event[key].as_str().unwrap_or_default()
}

/// How many events are of this kind, from and to these (empty: anybody), and begin so.
fn count(events: &[Value], kind: &str, (from, to): (&str, &str), begins: &str) -> usize {
    let is = |event: &&Value| {
        text(event, "kind") == kind
            && text(event, "from").starts_with(from)
            && text(event, "to").starts_with(to)
            && text(event, "summary").starts_with(begins)
    };
    events.iter().filter(is).count()
}

fn has(events: &[Value], kind: &str, way: (&str, &str), begins: &str) {
    assert!(
        count(events, kind, way, begins) > 0,
        "no {kind} {way:?} {begins:?} in\n{}",
        events.iter().map(|e| format!("{e}\n")).collect::<String>()
    );
}

/// A decision that says so.
fn decides(events: &[Value], who: &str, words: &str) -> bool {
    let is = |e: &Value| {
        text(e, "kind") == "decision" && text(e, "from") == who && text(e, "summary").contains(words)
    };
    events.iter().any(is)
}

async fn told<T>(device: &Device, mark: u64, pick: impl Fn(&Event) -> Option<T>) -> T {
    match device.log().wait(mark, PATIENCE, pick).await {
        Some(found) => found,
        None => panic!("{}: not in time in {:#?}", device.name(), device.log().since(mark)),
    }
}

async fn up(device: &Device, mark: u64) -> SessionId {
    told(device, mark, |event| if let Event::Up { session } = event { Some(*session) } else { None }).await
}

async fn reads(device: &Device, mark: u64, wanted: &str) {
    told(device, mark, |event| match event {
        Event::Letter(letter) if letter.text() == wanted => Some(()),
        _ => None,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_and_a_group_call_are_followed_on_all_legs_and_nobody_is_named() {
    let node = tokio::task::block_in_place(|| {
        node(|config| {
            config["control"]["service"]["controlling"]["notify_interval_ms"] = toml::Value::Integer(200);
        })
    });
    let folder = node.folder.path().to_owned();
    let ann = node.device(ANN, Transport::Tcp, |_| {}).await;
    let bob = node.device(BOB, Transport::Udp, |_| {}).await;
    let cat = node.device(CAT, Transport::Tcp, |_| {}).await;
    let start =
        |whom: [&str; 2], more: &[&str]| tokio::task::block_in_place(|| Trace::start(&folder, whom, more));

    // By user: a chat, with its message.
    let by_user = start(["--user", &format!("tel:{BOB}")], &["--json", "--for", "600"]);
    let other = start(["--conversation-id", "nobody-has-this"], &["--json", "--for", "600"]);
    let (at_ann, at_bob) = (ann.log().mark(), bob.log().mark());
    let call = Call { conversation: Some("chat-of-two".to_owned()), ..Call::chat(bob.address()) };
    let chat = ann.invite(call).await.unwrap();
    told(&ann, at_ann, |event| matches!(event, Event::ChatUp { session } if *session == chat).then_some(()))
        .await;
    ann.chat(chat).await.unwrap().send(&Draft::text("hello bob")).await.unwrap();
    reads(&bob, at_bob, "hello bob").await;
    ann.hang_up(chat, 200).await.unwrap();
    let events = tokio::task::block_in_place(|| {
        by_user.wait("the context is removed", |events| {
            count(events, "contract", ("PF", "data plane"), "remove context") > 0
                && count(events, "contract", ("data plane", "PF"), "applied") > 1
                && count(events, "sip", ("B", "PF"), "200 OK (BYE)") > 0
        })
    });
    // Ann is the first who is seen: A. Her leg, the leg between the two functions, and Bob's.
    has(&events, "sip", ("A ***01", "PF"), "INVITE sip:***02@weir.example");
    has(&events, "sip", ("PF", "PF"), "INVITE sip:***02@weir.example");
    has(&events, "sip", ("PF", "B ***02"), "INVITE sip:***02@");
    has(&events, "sip", ("B ***02", "PF"), "200 OK (INVITE)");
    has(&events, "sip", ("PF", "A ***01"), "200 OK (INVITE)");
    has(&events, "sip", ("A ***01", "PF"), "ACK");
    has(&events, "sip", ("A ***01", "PF"), "BYE");
    has(&events, "sip", ("PF", "B ***02"), "BYE");
    has(&events, "contract", ("PF", "data plane"), "put context");
    assert!(decides(
        &events,
        "PF",
        "for the sender: sends INVITE to the function for sip:***02@weir.example"
    ));
    assert!(decides(&events, "PF", "chooses 1 of 1 registered devices"), "the device that was chosen");
    let calls: std::collections::BTreeSet<&str> = events.iter().map(|e| text(e, "call_id")).collect();
    assert!(calls.len() >= 3, "a Call-ID for each leg: {calls:?}");
    let numbers: Vec<u64> = events.iter().map(|event| event["n"].as_u64().unwrap()).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "nothing was lost: {numbers:?}");

    // A refusal has its reason, a message that waits is said to wait.
    bob.unregister().await.unwrap();
    assert!(ann.invite(Call::chat(bob.address())).await.is_err());
    let events = tokio::task::block_in_place(|| {
        by_user.wait("a refusal", |events| decides(events, "PF", "refuses: 480"))
    });
    assert!(!events.iter().any(|event| event.to_string().contains("hello bob")), "no body");
    bob.register().await.unwrap();
    ann.message(bob.address(), &Draft::text("pager to bob")).await.unwrap();
    tokio::task::block_in_place(|| {
        by_user.wait("a message is kept until it is delivered", |events| {
            decides(events, "PF", "keeps the message until it is delivered")
                && count(events, "sip", ("PF", "B"), "MESSAGE") > 0
        })
    });
    let said = by_user.end().join("\n");
    assert!(!said.contains(SECRET), "{said}");

    // By Conversation-ID: a group call, as lines for programs and as a ladder.
    let conversation = ["--conversation-id", "group-of-three"];
    let json = start(conversation, &["--json", "--for", "600"]);
    let ladder = start(conversation, &["--ladder", "--for", "600", "--width", "160"]);
    let marks = [ann.log().mark(), bob.log().mark(), cat.log().mark()];
    let list = [address(BOB), address(CAT)];
    let list: Vec<&str> = list.iter().map(String::as_str).collect();
    let call =
        Call { conversation: Some("group-of-three".to_owned()), ..Call::group(FACTORY, &list).with_audio() };
    let group = ann.invite(call).await.unwrap();
    let (theirs, hers) = (up(&bob, marks[1]).await, up(&cat, marks[2]).await);
    for (device, session, source) in [(&ann, group, 1), (&bob, theirs, 2), (&cat, hers, 3)] {
        device.play(session, Arc::new(voice(source.into(), 5.0)), source).await.unwrap();
    }
    ann.chat(group).await.unwrap().send(&Draft::text("hello all")).await.unwrap();
    reads(&bob, marks[1], "hello all").await;
    reads(&cat, marks[2], "hello all").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    cat.hang_up(hers, 200).await.unwrap();
    bob.hang_up(theirs, 200).await.unwrap();
    told(&ann, marks[0], |e| matches!(e, Event::Ended { session, .. } if *session == group).then_some(()))
        .await;
    let events = tokio::task::block_in_place(|| {
        json.wait("all three audio legs have ended", |events| {
            let audio =
                |e: &&Value| text(e, "kind") == "media" && text(e, "summary").contains(" audio ended");
            events.iter().filter(audio).count() == 3
                && count(events, "contract", ("CF", "data plane"), "remove context") > 0
                && count(events, "sip", ("A", "PF"), "200 OK (BYE)") > 0
        })
    });
    for (from, to, begins) in [
        ("A ***01", "PF", "INVITE sip:conference-factory@weir.example"),
        ("PF", "CF", "INVITE sip:conference-factory@weir.example"),
        ("CF", "PF", "INVITE sip:***02@weir.example"),
        ("CF", "PF", "INVITE sip:***03@weir.example"),
        ("PF", "", "INVITE sip:***02@"),
        ("PF", "", "INVITE sip:***03@"),
        ("PF", "CF", "200 OK (INVITE)"),
        ("CF", "PF", "200 OK (INVITE)"),
        ("PF", "A ***01", "200 OK (INVITE)"),
        ("A ***01", "PF", "ACK"),
        ("", "PF", "BYE"),
        ("PF", "CF", "BYE"),
        ("PF", "A ***01", "BYE"),
    ] {
        has(&events, "sip", (from, to), begins);
    }
    has(&events, "contract", ("CF", "data plane"), "put context");
    has(&events, "contract", ("data plane", "CF"), "applied: leg ");
    assert!(decides(&events, "PF", "for the sender: sends INVITE to the function for"));
    assert!(decides(&events, "CF", "orders media"));
    assert!(decides(&events, "CF", "answers 200 OK (INVITE)"));
    assert!(decides(&events, "PF", "for the addressee: "));
    let audio =
        events.iter().find(|e| text(e, "kind") == "media" && text(e, "summary").contains("audio")).unwrap();
    assert!(audio["numbers"]["packets_in"].as_u64().unwrap() > 0, "{audio:#}");
    assert!(text(audio, "context").len() == 16, "{audio:#}");
    let said = json.end();
    assert!(!said.join("\n").contains(SECRET) && !said.join("\n").contains("hello all"));

    // Drawn at the end, and again from the lines.
    let drawn = ladder.end();
    let head = &drawn[0];
    for column in ["A ***01", "PF", "CF", "data plane", "***02", "***03"] {
        assert!(head.contains(column), "{column} in {head}");
    }
    let file = folder.join("group.jsonl");
    std::fs::write(&file, said.join("\n")).unwrap();
    let again = Command::new(WEIR)
        .args(["trace", "--ladder", "--width", "160", "--read"])
        .arg(&file)
        .output()
        .unwrap();
    let again = String::from_utf8(again.stdout).unwrap();
    for drawing in [drawn.join("\n"), again] {
        for words in ["INVITE", "● ", "◆ ", "put context", "200 OK (INVITE)", "BYE", "▶│", "│◀"] {
            assert!(drawing.contains(words), "{words} in\n{drawing}");
        }
        assert!(!drawing.contains(SECRET), "{drawing}");
    }
    if let Ok(keep) = std::env::var("WEIR_TRACE_KEEP") {
        std::fs::write(keep, drawn.join("\n") + "\n").unwrap();
    }
    assert!(other.end().is_empty(), "what nobody has brings nothing");
}

/// A tracer that does not read loses what it does not take, is told so, and the others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tracer_that_does_not_read_holds_nothing_up() {
    let node = tokio::task::block_in_place(|| {
        node(|config| {
            config["control"]["trace"]["queue_max"] = toml::Value::Integer(8);
            config["control"]["trace"]["tracers_max"] = toml::Value::Integer(1);
        })
    });
    let ann = node.device(ANN, Transport::Tcp, |_| {}).await;
    let bob = node.device(BOB, Transport::Tcp, |_| {}).await;
    let mut slow = UnixStream::connect(node.folder.path().join("control.sock")).unwrap();
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    let ask = format!("{{\"ask\":\"trace\",\"user\":\"tel:{ANN}\",\"bodies\":true,\"seconds\":600}}\n");
    slow.write_all(ask.as_bytes()).unwrap();
    let mut first = Vec::new();
    while !first.ends_with(b"\n") {
        let mut octet = [0];
        slow.read_exact(&mut octet).unwrap();
        first.extend(octet);
    }
    assert_eq!(serde_json::from_slice::<Value>(&first).unwrap()["ok"], true);
    // There is room for one.
    let refused = Command::new(WEIR)
        .args(["trace", "--user", "tel:+15550100009", "--folder"])
        .arg(node.folder.path())
        .output()
        .unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("trace.tracers_max"), "{refused:?}");

    // More than any socket's buffer holds: all of it arrives at Bob.
    let long = "x".repeat(4000);
    for n in 0..150 {
        ann.message(bob.address(), &Draft::text(format!("{n} {long}"))).await.unwrap();
    }
    reads(&bob, 0, &format!("149 {long}")).await;
    let lost = |metrics: &str| {
        let line = "weir_control_trace_events_total{outcome=\"lost\"} ";
        metrics.lines().find_map(|l| l.strip_prefix(line)?.parse::<u64>().ok()).unwrap()
    };
    tokio::task::block_in_place(|| node.wait("events are lost", || lost(&node.metrics()) > 0));

    // He reads again, and is told what he has missed.
    let mut lines = BufReader::new(slow).lines();
    let missed = loop {
        let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        if event["kind"] == "lost" {
            break event["numbers"]["lost"].as_u64().unwrap();
        }
    };
    assert!(missed > 0);
    drop(lines);
    // His place is free.
    tokio::task::block_in_place(|| {
        node.wait("another one may trace", || {
            let outcome = Command::new(WEIR)
                .args(["trace", "--user", "tel:+15550100009", "--for", "1", "--folder"])
                .arg(node.folder.path())
                .output()
                .unwrap();
            outcome.status.success()
        });
    });
}
