//! Overload control, clause by clause.

use base::{Entropy, HashSeed, Instant, UnixTime};

use super::*;
use crate::method::Method;
use crate::name::Name;
use crate::peer::{Peer, Transport};
use crate::typed::Value;
use crate::uri::Uri;

const HOP: &str = "192.0.2.1:5060";

fn peer() -> Peer {
    Peer::new(Transport::Udp, HOP.parse().unwrap())
}

fn via(params: &str) -> Via {
    Via::parse(format!("SIP/2.0/UDP client.example;branch=z9hG4bK1{params}").as_bytes()).unwrap()
}

fn client() -> Client {
    let settings = Settings { next_hops: vec![peer().addr.ip()], next_hops_max: 2, ..Settings::default() };
    Client::new(&settings, HashSeed(1))
}

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

/// How many of a hundred may go.
fn passes(client: &mut Client, ms: u64, class: Class) -> usize {
    let mut entropy = Entropy::from_number(7);
    (0..100).filter(|_| client.admits(at(ms), peer(), class, &mut entropy)).count()
}

fn advice(loss: u8, rate: Option<u32>) -> Advice {
    let validity = Duration::from_millis(500);
    Advice { loss, rate, validity, seq: Seq::of_millis(1_282_321_615_782), prefer: Algorithm::Rate }
}

/// RFC 7339 §4.1, §4.2: in the Via of each request to a next hop that is asked, and of no other.
#[test]
fn we_say_that_we_obey() {
    let (client, mut ours) = (client(), via(""));
    client.ask(peer(), &mut ours);
    assert!(ours.to_string().ends_with(";oc;oc-algo=\"loss,rate\""), "{ours}");
    let mut ours = via("");
    client.ask(Peer::new(Transport::Udp, "192.0.2.2:5060".parse().unwrap()), &mut ours);
    assert!(!ours.params.has("oc"));
}

/// RFC 7339 §4, §5.2, §9: all four parameters, one algorithm; RFC 7415 §3.3.
#[test]
fn responses_say_what_the_client_asked_for() {
    let said = |asked: &str, advice: Advice| {
        let mut via = via(asked);
        advice.stamp(&mut via);
        via.params.to_string().split_once("z9hG4bK1").unwrap().1.to_owned()
    };
    let seq = "oc-seq=1282321615.78200";
    for (asked, expect) in [
        // §5.1: who does not ask is told nothing.
        ("", String::new()),
        (";oc;oc-algo=\"loss\"", format!(";oc=20;oc-algo=\"loss\";oc-validity=500;{seq}")),
        (";oc", format!(";oc=20;oc-validity=500;{seq}")),
        (";oc;oc-algo=\"loss,rate\"", format!(";oc=150;oc-algo=\"rate\";oc-validity=500;{seq}")),
        (";oc;oc-algo=\"A , loss\"", format!(";oc=20;oc-algo=\"loss\";oc-validity=500;{seq}")),
        // What stood there before is not ours.
        (";oc=99;oc-algo=\"loss\";oc-seq=9.9", format!(";oc=20;oc-algo=\"loss\";{seq};oc-validity=500")),
    ] {
        let got = said(asked, advice(20, Some(150)));
        let expect = match asked {
            ";oc" => format!(";oc=20;oc-algo=\"loss\";oc-validity=500;{seq}"),
            _ => expect,
        };
        assert_eq!(got, expect, "{asked}");
    }
    // §5.7: the control is over; a rate of zero would be the contrary.
    assert_eq!(
        said(";oc;oc-algo=\"loss\"", advice(0, None)),
        format!(";oc=0;oc-algo=\"loss\";oc-validity=0;{seq}")
    );
    let rate = said(";oc;oc-algo=\"rate\"", advice(0, None));
    assert_eq!(rate, format!(";oc=1000000;oc-algo=\"rate\";oc-validity=0;{seq}"));
}

/// RFC 7339 §7.2: the percentage, and none at all where nothing was said.
#[test]
fn a_loss_is_kept_back() {
    let mut client = client();
    assert_eq!(passes(&mut client, 0, Class::Ordinary), 100);
    client.heard(at(0), peer(), &via(";oc=30;oc-algo=\"loss\";oc-validity=500;oc-seq=1.1"));
    assert!((60..=80).contains(&passes(&mut client, 1, Class::Ordinary)));
    assert_eq!(client.holding(at(1)), 1);
    client.heard(at(2), peer(), &via(";oc=100;oc-algo=\"loss\";oc-validity=500;oc-seq=1.2"));
    assert_eq!(passes(&mut client, 3, Class::Ordinary), 0);
}

/// RFC 7339 §5.10.1: in dialogs, emergency and priority go in any case; §7.2: more of the others stay for it.
#[test]
fn what_goes_first_goes_in_any_case() {
    let mut client = client();
    client.heard(at(0), peer(), &via(";oc=40;oc-algo=\"loss\";oc-validity=500;oc-seq=1.1"));
    let mut entropy = Entropy::from_number(3);
    let mut gone = [0, 0];
    for n in 0..1000 {
        let class = if n % 2 == 0 { Class::InDialog } else { Class::Ordinary };
        gone[n % 2] += usize::from(client.admits(at(1), peer(), class, &mut entropy));
    }
    assert_eq!(gone[0], 500);
    // 40 of 100 stay: 80 of the 50 and 50.
    assert!((70..=130).contains(&gone[1]), "{gone:?}");
    client.heard(at(2), peer(), &via(";oc=0;oc-algo=\"rate\";oc-validity=500;oc-seq=1.2"));
    for class in [Class::InDialog, Class::Emergency, Class::Priority] {
        assert_eq!(passes(&mut client, 3, class), 100);
    }
    assert_eq!(passes(&mut client, 3, Class::Ordinary), 0);
}

/// RFC 7415 §3.5.1: so many in a second, few of them at once.
#[test]
fn a_rate_is_kept() {
    let mut client = client();
    client.heard(at(0), peer(), &via(";oc=50;oc-algo=\"rate\";oc-validity=60000;oc-seq=1.1"));
    let mut entropy = Entropy::from_number(3);
    let gone = (0..10_000).filter(|ms| client.admits(at(*ms), peer(), Class::Ordinary, &mut entropy)).count();
    assert!((495..=505).contains(&gone), "{gone}");
    // After a pause a few, and not what the pause would have allowed.
    assert!((1..=5).contains(&passes(&mut client, 20_000, Class::Ordinary)));
}

/// RFC 7339 §4.3, §5.7: it ends with its validity, by default after 500 ms, or when the server says so.
#[test]
fn it_ends() {
    let mut client = client();
    client.heard(at(0), peer(), &via(";oc=100;oc-algo=\"loss\";oc-validity=2000;oc-seq=1.1"));
    assert_eq!(
        (passes(&mut client, 1999, Class::Ordinary), passes(&mut client, 2000, Class::Ordinary)),
        (0, 100)
    );
    client.heard(at(3000), peer(), &via(";oc=100;oc-algo=\"loss\";oc-seq=1.2"));
    assert_eq!(
        (passes(&mut client, 3499, Class::Ordinary), passes(&mut client, 3500, Class::Ordinary)),
        (0, 100)
    );
    client.heard(at(4000), peer(), &via(";oc=100;oc-algo=\"loss\";oc-validity=5000;oc-seq=1.3"));
    client.heard(at(4001), peer(), &via(";oc=0;oc-algo=\"loss\";oc-validity=0;oc-seq=1.4"));
    assert_eq!((passes(&mut client, 4002, Class::Ordinary), client.holding(at(4002))), (100, 0));
    // An older word that comes late does not begin it again.
    client.heard(at(4003), peer(), &via(";oc=100;oc-algo=\"loss\";oc-validity=5000;oc-seq=1.35"));
    assert_eq!(passes(&mut client, 4004, Class::Ordinary), 100);
}

/// RFC 7339 §4.4: only what is newer counts; a fraction is one, not a number beside.
#[test]
fn older_words_mean_nothing() {
    let mut client = client();
    let say = |client: &mut Client, oc: u8, seq: &str| {
        let via = via(&format!(";oc={oc};oc-algo=\"loss\";oc-validity=5000;oc-seq={seq}"));
        client.heard(at(0), peer(), &via);
    };
    say(&mut client, 100, "10.5");
    for older in ["10.5", "10.49999", "10.05", "9.9"] {
        say(&mut client, 0, older);
        assert_eq!(passes(&mut client, 1, Class::Ordinary), 0, "{older}");
    }
    // Who says no number, or none that is one, after one that did.
    client.heard(at(0), peer(), &via(";oc=0;oc-algo=\"loss\";oc-validity=5000"));
    say(&mut client, 0, "1234567890123.1");
    say(&mut client, 0, "11.x");
    assert_eq!(passes(&mut client, 1, Class::Ordinary), 0);
    say(&mut client, 0, "10.51");
    assert_eq!(passes(&mut client, 1, Class::Ordinary), 100);
}

/// Nonsense changes nothing, and so does the word of whom we did not ask.
#[test]
fn nonsense_and_strangers_keep_nothing_back() {
    for params in [
        ";oc",
        ";oc=x;oc-algo=\"loss\"",
        ";oc=101;oc-algo=\"loss\"",
        ";oc=100;oc-algo=\"A\"",
        ";oc=100;oc-algo=\"loss\";oc-validity=-1",
        ";oc=100;oc-algo=\"loss\";oc-validity=99999999999999999999999",
        ";oc-algo=\"loss\"",
    ] {
        let mut client = client();
        client.heard(at(0), peer(), &via(params));
        assert_eq!(passes(&mut client, 1, Class::Ordinary), 100, "{params}");
    }
    let stranger = Peer::new(Transport::Udp, "198.51.100.1:5060".parse().unwrap());
    let mut client = client();
    client.heard(at(0), stranger, &via(";oc=100;oc-algo=\"loss\";oc-seq=1.1"));
    assert!(client.admits(at(1), stranger, Class::Ordinary, &mut Entropy::from_number(1)));
    // A word for ever is one for a minute.
    client.heard(at(0), peer(), &via(";oc=100;oc-algo=\"loss\";oc-validity=9000000000;oc-seq=1.1"));
    assert_eq!(passes(&mut client, 60_000, Class::Ordinary), 100);
}

#[test]
fn no_more_next_hops_are_remembered_than_may_be() {
    let mut client = client();
    for port in 1..=5 {
        let peer = Peer::new(Transport::Tcp, (peer().addr.ip(), port).into());
        client.heard(at(0), peer, &via(";oc=100;oc-algo=\"loss\";oc-validity=500;oc-seq=1.1"));
    }
    assert_eq!(client.holding(at(1)), 2);
    // Those whose word is over make room.
    client.heard(at(600), peer(), &via(";oc=100;oc-algo=\"loss\";oc-validity=500;oc-seq=1.1"));
    assert_eq!(client.holding(at(601)), 1);
}

/// RFC 7339 §5.10.1, RFC 5031 §4.2, RFC 4412 §8, RFC 7135.
#[test]
fn requests_have_a_class() {
    let request = |uri: &str, header: Option<(&str, &str)>| {
        let mut request = Request::new(Method::Invite, uri.parse::<Uri>().unwrap());
        request.headers.push(Name::To, "<sip:b@example.com>");
        if let Some((name, value)) = header {
            request.headers.set(Name::from(name), value);
        }
        request
    };
    let sip = "sip:b@example.com";
    let priority = |value: &'static str| Some(("Resource-Priority", value));
    for (request, believed, class) in [
        (request(sip, None), true, Class::Ordinary),
        (request(sip, Some(("To", "<sip:b@example.com>;tag=1"))), false, Class::InDialog),
        (request("urn:service:sos", None), false, Class::Emergency),
        (request("URN:Service:SOS.fire", None), false, Class::Emergency),
        (request("urn:service:sosx", None), false, Class::Ordinary),
        (request("urn:service:counseling", None), false, Class::Ordinary),
        (request(sip, priority("esnet.1")), true, Class::Priority),
        (request(sip, priority("dsn.flash, ETS.0")), true, Class::Priority),
        (request(sip, priority("dsn.flash")), true, Class::Ordinary),
        // Anyone could write it.
        (request(sip, priority("esnet.1")), false, Class::Ordinary),
    ] {
        assert_eq!(class_of(&request, believed), class, "{:?}", request.uri);
    }
}

/// A queue knows how long the next one would wait before anyone has.
#[test]
fn a_queue_measures_what_it_does() {
    let mut meter = Meter::default();
    assert_eq!(meter.expected(at(0)), Duration::ZERO);
    for _ in 0..11 {
        meter.put(at(0), false);
    }
    for ms in 1..=5 {
        assert_eq!(meter.took(at(ms * 10), at(0)), Duration::from_millis(ms * 10));
    }
    assert_eq!(meter.expected(at(50)), Duration::from_millis(60));
    // Nothing moves.
    assert_eq!(meter.expected(at(950)), Duration::from_millis(900));
    let sample = meter.look(at(950));
    assert_eq!((sample.taken, sample.least), (5, Duration::from_millis(10)));
    // None was taken although some wait.
    assert_eq!(meter.look(at(1050)).least, Duration::from_millis(1000));
    for _ in 0..6 {
        meter.took(at(1100), at(1100));
    }
    assert_eq!((meter.expected(at(2000)), meter.look(at(2000)).least), (Duration::ZERO, Duration::ZERO));
    meter.put(at(3000), true);
    assert_eq!(meter.look(at(3001)), Sample { taken: 0, inner: 1, least: Duration::from_millis(1) });
}

/// One request that was taken late is no standing queue.
#[test]
fn a_queue_that_was_empty_for_a_moment_does_not_stand() {
    let mut meter = Meter::default();
    meter.put(at(0), false);
    assert_eq!(meter.took(at(300), at(0)), Duration::from_millis(300));
    assert_eq!(meter.look(at(300)).least, Duration::ZERO);
}

fn server() -> (Server, Entropy) {
    (Server::new(Settings::default(), 2, HashSeed(1)), Entropy::from_number(1))
}

fn sample(taken: u64, least_ms: u64) -> Sample {
    Sample { taken, inner: 0, least: Duration::from_millis(least_ms) }
}

/// RFC 7339 §5.3: what is told is the share that is too much; a burst within an interval is none.
#[test]
fn a_standing_queue_limits_and_its_end_ends_it() {
    let (mut server, mut entropy) = server();
    let mut offer = |server: &mut Server, n: usize| {
        let mut admit =
            |_: &usize| server.admit(at(0), 0, Class::Ordinary, Obeys::Nothing, Duration::ZERO, &mut entropy);
        (0..n).filter(|n| admit(n).is_ok()).count()
    };
    assert_eq!(offer(&mut server, 100), 100);
    let calm = server.tick(at(100), UnixTime::from_millis(1), &[sample(50, 40), sample(0, 0)]);
    assert_eq!((calm.limited, calm.advice.loss, calm.advice.rate), (0, 0, None));
    offer(&mut server, 100);
    let tick = server.tick(at(200), UnixTime::from_millis(2), &[sample(50, 60), sample(0, 0)]);
    // 50 of 100, and a little less for what waits.
    assert_eq!((tick.limited, tick.advice.loss), (1, 51));
    assert!((40..=58).contains(&offer(&mut server, 100)));
    // The other queue has nothing to do with it.
    let other = server.admit(
        at(250),
        1,
        Class::Ordinary,
        Obeys::Nothing,
        Duration::ZERO,
        &mut Entropy::from_number(1),
    );
    assert_eq!(other, Ok(()));
    let mut ticks = 0;
    while server.is_limiting() {
        ticks += 1;
        offer(&mut server, 10);
        let at = at(200 + 100 * ticks);
        let tick = server.tick(at, UnixTime::from_millis(2 + ticks), &[sample(10, 1), sample(0, 0)]);
        // Less comes than goes: nothing has to be kept back, long before the limit is forgotten.
        assert!(ticks == 1 || tick.advice.loss == 0);
    }
    assert!(ticks <= 21, "{ticks}");
}

/// RFC 7339 §5.10.2: who obeys is not refused a second time; who would wait too long is, whoever he is.
#[test]
fn the_share_is_of_those_who_do_not_obey() {
    let (mut server, mut entropy) = server();
    for _ in 0..1000 {
        let _ = server.admit(at(0), 0, Class::Ordinary, Obeys::Nothing, Duration::ZERO, &mut entropy);
    }
    server.tick(at(100), UnixTime::from_millis(1), &[sample(0, 100), sample(0, 0)]);
    let mut ask =
        |class, obeys, ms| server.admit(at(150), 0, class, obeys, Duration::from_millis(ms), &mut entropy);
    assert_eq!(ask(Class::Ordinary, Obeys::Nothing, 0), Err(Shed::Share));
    assert_eq!(ask(Class::Ordinary, Obeys::Loss, 2000), Ok(()));
    assert_eq!(ask(Class::Ordinary, Obeys::Loss, 2001), Err(Shed::Late));
    assert_eq!(ask(Class::Ordinary, Obeys::Rate(peer()), 2001), Err(Shed::Late));
    for class in [Class::InDialog, Class::Emergency, Class::Priority] {
        assert_eq!(ask(class, Obeys::Nothing, 10_000), Ok(()));
    }
}

/// RFC 7415 §3.4: the rate is shared by those who keep one; RFC 7339 §4.4: each news has a larger number.
#[test]
fn rates_are_shared_and_news_are_numbered() {
    let (mut server, mut entropy) = server();
    let peers: Vec<Peer> =
        (1..=4).map(|port| Peer::new(Transport::Udp, (peer().addr.ip(), port).into())).collect();
    for peer in &peers {
        for _ in 0..50 {
            let _ = server.admit(at(0), 0, Class::Ordinary, Obeys::Rate(*peer), Duration::ZERO, &mut entropy);
        }
    }
    let one = server.tick(at(100), UnixTime::from_millis(5000), &[sample(100, 50), sample(0, 0)]).advice;
    assert_eq!(one.rate, None);
    let two = server.tick(at(200), UnixTime::from_millis(5000), &[sample(100, 51), sample(0, 0)]).advice;
    assert!(two.rate.is_some_and(|rate| (240..=250).contains(&rate)), "{two:?}");
    let three = server.tick(at(300), UnixTime::from_millis(4000), &[sample(100, 51), sample(0, 0)]).advice;
    assert!(one.seq < two.seq && two.seq < three.seq);
}

/// A queue of which nothing was ever seen but that it stood still is tried again, and what it shows is not forgotten
/// because for a moment little came: else a node that hung once would refuse for ever.
#[test]
fn a_budget_of_nothing_grows_and_a_quiet_moment_does_not_take_it_away() {
    let (mut server, mut entropy) = server();
    let (mut ms, mut taken) = (0, 0);
    let mut offer = |server: &mut Server, n: usize| {
        let mut admit = |_: &usize| {
            server.admit(at(0), 0, Class::Ordinary, Obeys::Nothing, Duration::ZERO, &mut entropy).is_ok()
        };
        (0..n).filter(|n| admit(n)).count() as u64
    };
    let mut tick = |server: &mut Server, sample: Sample| {
        ms += 100;
        server.tick(at(ms), UnixTime::from_millis(ms), &[sample, Sample::default()]).advice.loss
    };
    for _ in 0..5 {
        offer(&mut server, 200);
        tick(&mut server, sample(0, 5000));
    }
    assert_eq!(offer(&mut server, 200), 0);
    // It moves again: whatever is let in is taken at once.
    for _ in 0..50 {
        tick(&mut server, sample(taken, 1));
        taken = offer(&mut server, 200);
    }
    assert!(taken > 190, "{taken}");
    server = Server::new(Settings::default(), 2, HashSeed(1));
    offer(&mut server, 200);
    tick(&mut server, sample(100, 51));
    offer(&mut server, 1);
    tick(&mut server, sample(1, 1));
    offer(&mut server, 100);
    assert!(tick(&mut server, sample(100, 1)) <= 10);
}

#[test]
fn settings_that_cannot_work_are_refused() {
    assert_eq!(Settings::default().check(), Ok(()));
    for (settings, key) in [
        (Settings { interval_ms: 0, ..Settings::default() }, "target_ms"),
        (Settings { wait_max_ms: 50, ..Settings::default() }, "wait_max_ms"),
        (Settings { validity_ms: 99, ..Settings::default() }, "validity_ms"),
    ] {
        assert_eq!(settings.check().unwrap_err().0, key);
    }
}
