//! Kamailio with its rtpengine module, as an operator has it, has Weir's data plane relay its calls: two phones that are
//! not ours register with it, call each other, and hear what the other one plays.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tests::namespace::Namespace;
use tests::workspace::root;
use ue::audio::voice;

use crate::baresip::{MATCH_MIN, Phone, matches};
use crate::kamailio::Kamailio;
use crate::node::Node;

/// Where Kamailio takes SIP.
const PROXY: &str = "10.9.9.1:15070";

#[test]
fn kamailios_calls_are_relayed_by_our_data_plane() {
    let host = Namespace::new();
    // Kamailio pings when it starts: the data plane is up before it.
    let node = Node::start_in(&host);
    let configuration = root().join("tests/interop/kamailio-ng.cfg");
    let proxy = Kamailio::start(host.command("kamailio"), &configuration);
    sleep(Duration::from_secs(2));
    let at: SocketAddr = PROXY.parse().expect("an address");
    let (of_ann, of_bob) = (voice(1, 15.0), voice(2, 15.0));
    let bob = Phone::behind(&host, at, "bob@lab.test", "x", 19_050, &of_bob, None);
    sleep(Duration::from_secs(3));
    let ann = Phone::behind(&host, at, "ann@lab.test", "x", 19_060, &of_ann, Some("sip:bob@lab.test"));
    // One context with two legs, and none of them is of Weir's own control.
    let load = || {
        let status = node.status();
        let number = |key: &str| status.pointer(key).and_then(serde_json::Value::as_u64);
        (number("/dataplane/load/contexts"), number("/dataplane/load/legs"))
    };
    let wait_for = |wanted: (Option<u64>, Option<u64>)| {
        let began = Instant::now();
        while load() != wanted {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "the status shows {:?}, not {wanted:?}",
                load()
            );
            sleep(Duration::from_millis(100));
        }
    };
    wait_for((Some(1), Some(2)));
    let (at_ann, at_bob) = (ann.heard(), bob.heard());
    let (to_bob, to_ann) = (matches(&of_ann, &at_bob), matches(&of_bob, &at_ann));
    println!("match of what bob heard {to_bob:.3}, of what ann heard {to_ann:.3}");
    assert!(to_bob > MATCH_MIN && to_ann > MATCH_MIN);
    // Who hung up sent a BYE, Kamailio a delete.
    wait_for((Some(0), Some(0)));
    drop(proxy);
}
