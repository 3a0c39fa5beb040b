//! Chromium, headless, as a WebRTC member of an audio and video conference (issue 3, Shows 5): two browsers join the group,
//! each with its fake camera and microphone, and each decodes the other's. A browser speaks no SIP: a `ue` device carries
//! its description in its INVITE, and the answer back to the page.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use ue::{Account, Answering, Call, Counters, Device, Event, Identity, Transport};

use crate::node::Node;
use crate::webdriver::{Driver, serve};

const PAGE: &str = include_str!("chromium.html");
const PATIENCE: Duration = Duration::from_secs(60);

async fn carrier(node: &Node, user: &str) -> Device {
    let mut entropy = ue::system_entropy();
    let password = node.password(user);
    let account = Account::new(user, node.domain(), &password, node.sip_udp(), Transport::Udp, &mut entropy);
    let account = Account { answering: Answering::Refuse(486), ..account };
    let identity = Arc::new(Identity::generate(&["localhost"]).expect("a certificate"));
    let device =
        Device::start(account, Arc::new(Counters::default()), identity, entropy).await.expect("a device");
    device.register().await.expect("registered");
    device
}

/// Joins the group with the browser's description and gives the page the answer.
async fn join(driver: &Driver, browser: usize, device: &Device, group: &str) {
    let offer = driver.run(browser, "offer()", "");
    let offer = offer.as_str().expect("a description").to_owned();
    device.invite(Call::join(group).describing(offer)).await.expect("in the conference");
    let described = |event: &Event| match event {
        Event::Described { sdp, .. } => Some(sdp.clone()),
        _ => None,
    };
    let answer = device.log().wait(0, PATIENCE, described).await.expect("an answer");
    driver.run(browser, "answer(arguments[0])", std::str::from_utf8(&answer).expect("text"));
}

/// Waits until the page says that its transports are connected and that sound and pictures come out of the decoders.
fn decodes(driver: &Driver, browser: usize, transports: usize) -> Value {
    let began = Instant::now();
    loop {
        let stats = driver.run(browser, "stats()", "");
        let number = |of: &str, what: &str| stats[of][what].as_f64().unwrap_or(0.0);
        let connected = stats["transports"]
            .as_array()
            .is_some_and(|all| all.len() == transports && all.iter().all(|state| state == "connected"));
        if connected
            && number("video", "framesDecoded") >= 30.0
            && number("audio", "totalSamplesReceived") - number("audio", "concealedSamples") >= 48_000.0
            && number("audio", "totalAudioEnergy") > 0.0
        {
            return stats;
        }
        assert!(began.elapsed() < PATIENCE, "browser {browser}: {stats:#}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn two_browsers_hear_and_see_each_other_in_a_conference() {
    let node = Node::start_with_users(0);
    let page = serve(|_| Some(("text/html", PAGE.as_bytes().to_vec())));
    let mut driver = Driver::start();
    // One sends both its lines over one transport, and would take nothing else; the other knows nothing of bundles.
    let [one, two] = ["max-bundle", "apart"].map(|bundles| driver.open(page, &format!("?{bundles}")));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let group = format!("sip:{}@{}", Node::GROUP, node.domain());
    // Registered only now: who is called as a member of the group would be asked in twice.
    let devices = runtime.block_on(async {
        let (ann, bob) = (carrier(&node, "ann").await, carrier(&node, "bob").await);
        join(&driver, one, &ann, &group).await;
        join(&driver, two, &bob, &group).await;
        [ann, bob]
    });
    for (browser, transports) in [(one, 1), (two, 2)] {
        let stats = decodes(&driver, browser, transports);
        println!(
            "chromium {browser}: DTLS {} {}, SRTP {}; {} video frames decoded ({}), {} audio samples, energy {}",
            stats["transports"],
            stats["tls"],
            stats["srtp"],
            stats["video"]["framesDecoded"],
            stats["video"]["decoderImplementation"],
            stats["audio"]["totalSamplesReceived"],
            stats["audio"]["totalAudioEnergy"]
        );
    }
    drop(devices);
}
