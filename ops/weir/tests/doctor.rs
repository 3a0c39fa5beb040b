//! `weir doctor` beside a node that lives, before and after something is dropped; and what `weir status --ended` says of the
//! call when it is over (issue 3: statistics per leg in CDR-ready form).
#![expect(clippy::unwrap_used, reason = "helpers of a test fail the test")]

mod node;

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use node::{Node, PATIENCE, WEIR};
use serde_json::Value;
use ue::audio::voice;
use ue::{Call, Event, Transport};

/// What it says for programs, and its exit code.
fn doctor(folder: &Path) -> (Value, i32) {
    let out = Command::new(WEIR).args(["doctor", "--json", "--folder"]).arg(folder).output().unwrap();
    (serde_json::from_slice(&out.stdout).unwrap(), out.status.code().unwrap())
}

fn findings<'a>(said: &'a Value, area: &'a str) -> impl Iterator<Item = &'a Value> {
    said["findings"].as_array().unwrap().iter().filter(move |f| f["area"] == area)
}

fn finds(said: &Value, area: &str, words: &str) -> bool {
    findings(said, area).any(|f| f["found"].as_str().unwrap().contains(words))
}

/// The code says how bad the worst is, and whatever is bad says what to do.
fn is_consistent(said: &Value, code: i32) {
    let expected = match said["severity"].as_str().unwrap() {
        "good" | "note" => 0,
        "warning" => 1,
        _ => 2,
    };
    assert_eq!(code, expected, "{said:#}");
    for finding in said["findings"].as_array().unwrap() {
        let bad = ["warning", "fault"].iter().any(|word| finding["severity"] == *word);
        assert!(!bad || !finding["advice"].as_str().unwrap().is_empty(), "{finding:#}");
    }
}

fn ended(node: &Node, more: &[&str]) -> String {
    let folder = node.folder.path();
    let out =
        Command::new(WEIR).args(["status", "--ended", "--folder"]).arg(folder).args(more).output().unwrap();
    assert!(out.status.success());
    String::from_utf8(out.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_knows_a_node_that_lives_and_what_it_drops() {
    let node = tokio::task::block_in_place(|| Node::start("auto", |_| {}));
    let (said, code) = doctor(node.folder.path());
    is_consistent(&said, code);
    let driver = node.status().unwrap()["dataplane"]["driver"].as_str().unwrap().to_owned();
    assert!(finds(&said, "node", "control is up for"), "{said:#}");
    assert!(finds(&said, "node", &format!("driver {driver}")), "{said:#}");
    assert!(findings(&said, "node").all(|f| f["severity"] != "fault"), "{said:#}");
    assert!(!finds(&said, "drops", "foreign"), "{said:#}");

    let ann = node.device("ann", Transport::Tcp, |_| {}).await;
    let bob = node.device("bob", Transport::Tcp, |_| {}).await;
    let mark = bob.log().mark();
    let own = ann.invite(Call::audio(bob.address())).await.unwrap();
    let up = |e: &Event| if let Event::Up { session } = e { Some(*session) } else { None };
    let theirs = bob.log().wait(mark, PATIENCE, up).await.unwrap();
    ann.play(own, Arc::new(voice(5, 10.0)), 1).await.unwrap();
    bob.play(theirs, Arc::new(voice(6, 10.0)), 2).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let flow = ann.flow(own).await.unwrap();
    for _ in 0..3 {
        flow.lock().unwrap_or_else(PoisonError::into_inner).inject(&[0xff; 40]).unwrap();
    }
    let folder = node.folder.path().to_owned();
    tokio::task::block_in_place(|| {
        node.wait("the drops are named", || finds(&doctor(&folder).0, "drops", "3 dropped as foreign"));
    });
    let (said, code) = doctor(node.folder.path());
    is_consistent(&said, code);
    assert!(node.metrics().contains("weir_dataplane_drops_total{reason=\"foreign\"} 3"));

    ann.hang_up(own, 200).await.unwrap();
    let legs =
        || serde_json::from_str::<Value>(&ended(&node, &["--json"])).unwrap().as_array().unwrap().clone();
    // Both users are of one node, whose function for the one who is called has the media.
    tokio::task::block_in_place(|| node.wait("both legs have ended", || legs().len() == 2));
    for leg in legs() {
        assert_eq!((leg["media"].as_str(), leg["context"].as_str().map(str::len)), (Some("audio"), Some(16)));
        let number = |key: &str| leg[key].as_u64().unwrap();
        assert!(number("packets_in") > 50 && number("packets_out") > 50 && number("up_ms") > 1500, "{leg:#}");
        assert_eq!(number("lost_in"), 0, "{leg:#}");
        assert!(number("mos_in_centi") > 350, "{leg:#}");
    }
    assert_eq!(legs().iter().filter(|leg| leg["dropped"] == 3).count(), 1);
    let text = ended(&node, &[]);
    assert_eq!(text.lines().count(), 2 + 2, "{text}");
    assert!(text.contains(legs()[0]["context"].as_str().unwrap()), "{text}");
}

#[test]
fn the_doctor_of_a_folder_without_a_node_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (said, code) = doctor(folder.path());
    is_consistent(&said, code);
    assert!(finds(&said, "node", "none runs in"), "{said:#}");
}
