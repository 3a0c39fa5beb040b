//! SIP.js in Chromium, a SIP stack that we did not write, over WebSocket (RFC 7118): two pages register, say something to each
//! other, and call each other with sound and pictures.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::node::{Node, target};
use crate::webdriver::{Driver, serve};

const PATIENCE: Duration = Duration::from_secs(60);

/// The page, and the library that `tests/interop/run` has put beside the build.
fn page(path: &str) -> Option<(&'static str, Vec<u8>)> {
    if path == "/" {
        return Some(("text/html", include_bytes!("sipjs.html").to_vec()));
    }
    let file = target().join("interop").join(path.strip_prefix('/').filter(|name| !name.contains(".."))?);
    Some(("text/javascript", std::fs::read(file).ok()?))
}

/// Asks until what is said is as it should be.
fn until(what: &str, ask: impl Fn() -> Value, is_right: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let value = ask();
        if is_right(&value) {
            return value;
        }
        assert!(began.elapsed() < PATIENCE, "{what}: {value:#}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn two_pages_with_sip_js_talk_over_websocket() {
    let node = Node::start_with_users(0);
    let port = serve(page);
    let mut driver = Driver::start();
    let users = ["ann", "bob"];
    let pages = users.map(|user| {
        let page = driver.open(port, "");
        until("the page", || driver.run(page, "window.isReady || false", ""), |ready| *ready == true);
        let (domain, password, server) = (node.domain(), node.password(user), node.sip_ws());
        let register = format!("phone.register('{user}', '{domain}', '{password}', '{server}')");
        assert_eq!(driver.run(page, &register, ""), "Registered");
        page
    });
    let [ann, bob] = pages;
    // Pager messages, both ways.
    for (from, to, name) in [(ann, bob, "bob"), (bob, ann, "ann")] {
        let said = driver.run(from, &format!("phone.say('{name}', arguments[0])"), "hello, éàü");
        assert!([200, 202].contains(&said.as_u64().unwrap_or(0)), "{said}");
        until("a message", || driver.run(to, "phone.heard()", ""), |all| all[0] == "hello, éàü");
    }
    // A call: the page of one side offers, that of the other answers, and each decodes the other.
    assert_eq!(driver.run(ann, "phone.call('bob')", ""), "Established");
    until("bob's call", || driver.run(bob, "phone.state()", ""), |state| *state == "Established");
    for page in pages {
        let number = |stats: &Value, of: &str, what: &str| stats[of][what].as_f64().unwrap_or(0.0);
        let stats = until(
            "media",
            || driver.run(page, "phone.stats()", ""),
            |stats| {
                number(stats, "video", "framesDecoded") >= 30.0
                    && number(stats, "audio", "totalSamplesReceived")
                        - number(stats, "audio", "concealedSamples")
                        >= 48_000.0
            },
        );
        println!(
            "sip.js {}: {} video frames decoded, {} audio samples, {}",
            users[page],
            stats["video"]["framesDecoded"],
            stats["audio"]["totalSamplesReceived"],
            stats["transport"]["srtpCipher"]
        );
    }
    driver.run(bob, "phone.hangUp()", "");
    until("the end", || driver.run(ann, "phone.state()", ""), |state| *state == "Terminated");
    for page in pages {
        assert_eq!(driver.run(page, "phone.leave()", ""), "gone");
    }
}
