//! One lane between a store that the test holds in its hand and a front that the test plays.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use base::{Entropy, UnixTime};
use service::{Change, Key, Row, Table};
use sip::{Message, Peer};
use store::{Cursor, Done, Part, Share, Sqlite, Store, StoreError, Swept};
use tokio::time::timeout;

use super::*;
use crate::Shutdown;
use crate::clock::Clock;
use crate::front::{Order, To};
use crate::link;

const PATIENCE: Duration = Duration::from_secs(10);

type Postponed = Vec<(Vec<Change>, Done<()>)>;

/// A store whose commits can be held back, or fail as on a full disk.
#[derive(Debug)]
pub(crate) struct Brittle {
    inner: Sqlite,
    full: AtomicBool,
    pub(crate) hold: AtomicBool,
    postponed: Mutex<Held>,
}

#[derive(Default)]
struct Held(Postponed);

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.len())
    }
}

impl Brittle {
    pub(crate) fn new() -> Arc<Brittle> {
        let inner = Sqlite::in_memory(&store::Settings::default()).unwrap();
        let (full, hold) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Brittle { inner, full, hold, postponed: Mutex::default() })
    }

    /// Lets go of what was held back.
    pub(crate) fn release(&self) {
        self.hold.store(false, Ordering::SeqCst);
        for (changes, done) in std::mem::take(&mut self.postponed.lock().unwrap().0) {
            self.inner.commit(changes, done);
        }
    }

    fn bindings(&self) -> usize {
        let at = Table::ALL.iter().position(|table| *table == Table::Binding).unwrap();
        usize::try_from(store::wait(|done| self.inner.count(done)).unwrap()[at]).unwrap()
    }
}

impl Store for Brittle {
    fn fetch(&self, keys: Vec<Key>, done: Done<Vec<Row>>) {
        self.inner.fetch(keys, done);
    }

    fn commit(&self, changes: Vec<Change>, done: Done<()>) {
        if self.full.load(Ordering::SeqCst) {
            return done(Err(StoreError::Unavailable { why: "full".to_owned() }));
        }
        if self.hold.load(Ordering::SeqCst) {
            return self.postponed.lock().unwrap().0.push((changes, done));
        }
        self.inner.commit(changes, done);
    }

    fn restore(&self, share: Share, from: Cursor, done: Done<Part>) {
        self.inner.restore(share, from, done);
    }

    fn take_epoch(&self, done: Done<u64>) {
        self.inner.take_epoch(done);
    }

    fn number(&self, name: &'static str, done: Done<Option<u64>>) {
        self.inner.number(name, done);
    }

    fn set_number(&self, name: &'static str, value: u64, done: Done<()>) {
        if self.full.load(Ordering::SeqCst) {
            return done(Err(StoreError::Unavailable { why: "full".to_owned() }));
        }
        self.inner.set_number(name, value, done);
    }

    fn sweep(&self, now: UnixTime, done: Done<Swept>) {
        self.inner.sweep(now, done);
    }

    fn trim(&self, table: Table, rows_max: u64, done: Done<Swept>) {
        self.inner.trim(table, rows_max, done);
    }

    fn list(&self, table: Table, rows_max: usize, done: Done<Vec<Row>>) {
        self.inner.list(table, rows_max, done);
    }

    fn count(&self, done: Done<Vec<u64>>) {
        self.inner.count(done);
    }
}

/// One lane that is up.
struct Bench {
    store: Arc<Brittle>,
    lanes: Lanes,
    orders: mpsc::Receiver<Order>,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
    _link: link::Unstarted,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

impl Bench {
    async fn new(queue_max: usize, commits_max: usize) -> Bench {
        Bench::over(Brittle::new(), queue_max, commits_max).await
    }

    async fn over(store: Arc<Brittle>, queue_max: usize, commits_max: usize) -> Bench {
        let (metrics, shutdown) = (Arc::new(Metrics::new().unwrap()), Shutdown::new());
        let (lanes, mut inboxes) = Lanes::new(1, queue_max, metrics.clone());
        let (front, orders) = mpsc::channel(1024);
        let unstarted = link::Unstarted::new(&link::Settings::default());
        let mut config = service::Config::default();
        config.identity.trusted_peers = vec![peer().addr.ip()];
        let parts = Parts {
            index: 0,
            config,
            entropy: Entropy::from_number(1),
            clock: Clock::start(),
            commits_max,
            store: store.clone(),
            lanes: lanes.clone(),
            front,
            link: unstarted.link(),
            metrics: metrics.clone(),
            trace: crate::trace::Bus::idle(metrics.clone()),
            shutdown: shutdown.clone(),
        };
        let (_, ready) = start(parts, inboxes.pop().unwrap());
        timeout(PATIENCE, ready).await.unwrap().unwrap();
        Bench { store, lanes, orders, metrics, shutdown, _link: unstarted }
    }

    fn offer(&self, server: u64, request: Request) -> Result<(), Busy> {
        let source = Source::Network { peer: peer(), connection: 1, local: peer().addr, trusted: false };
        let (origin, at) = (Origin::Network(server), Instant::ZERO);
        self.lanes.offer(at, 0, Event::Request { origin, source, request, at, place: None })
    }

    /// The next final answer: for which request, and its code.
    async fn answer(&mut self) -> (u64, u16) {
        loop {
            match timeout(PATIENCE, self.orders.recv()).await.unwrap().unwrap() {
                Order::Respond { server, response } if response.code >= 200 => {
                    return (server, response.code);
                }
                _ => {}
            }
        }
    }

    async fn report(&self) -> Report {
        self.lanes.reports().await.pop().unwrap()
    }

    /// The store takes rows again, and the lane knows.
    async fn fed(&self) {
        self.store.full.store(false, Ordering::SeqCst);
        let start = std::time::Instant::now();
        while self.report().await.starving {
            assert!(start.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn nothing_for(&mut self, time: Duration) {
        let heard = timeout(time, self.orders.recv()).await;
        assert!(heard.is_err(), "{heard:?}");
    }

    async fn up_again(&self) {
        let start = std::time::Instant::now();
        while self.lanes.offer(Instant::ZERO, 0, Event::DataplaneDown).is_err() {
            assert!(start.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn peer() -> Peer {
    Peer::new(sip::Transport::Udp, "127.0.0.1:5070".parse().unwrap())
}

fn register(user: &str, cseq: u32) -> Request {
    let text = format!(
        "REGISTER sip:weir.example SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK{user}{cseq};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:{user}@weir.example>;tag=a\r\nTo: <sip:{user}@weir.example>\r\n\
         Call-ID: c{user}\r\nCSeq: {cseq} REGISTER\r\nContact: <sip:{user}@127.0.0.1:5070>\r\nExpires: 600\r\n\
         Content-Length: 0\r\n\r\n"
    );
    match sip::datagram(text.into(), &sip::Limits::default()) {
        Ok(Some(Message::Request(request))) => request,
        other => panic!("{other:?}"),
    }
}

fn options(n: u64) -> Request {
    let text = format!(
        "OPTIONS sip:weir.example SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bKo{n};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:a@weir.example>;tag=a\r\nTo: <sip:weir.example>\r\nCall-ID: o{n}\r\n\
         CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
    );
    match sip::datagram(text.into(), &sip::Limits::default()) {
        Ok(Some(Message::Request(request))) => request,
        other => panic!("{other:?}"),
    }
}

/// DESIGN §2, invariant 9: a positive answer means durable, never earlier.
#[tokio::test]
async fn no_answer_comes_before_its_commit() {
    let mut bench = Bench::new(1024, 16).await;
    bench.store.hold.store(true, Ordering::SeqCst);
    bench.offer(1, register("alice", 1)).unwrap();
    bench.nothing_for(Duration::from_millis(200)).await;
    assert_eq!(bench.store.bindings(), 0);
    bench.store.release();
    assert_eq!(bench.answer().await, (1, 200));
    assert_eq!(bench.store.bindings(), 1);
}

/// What is decided behind a decision that waits for its commit goes out behind it.
#[tokio::test]
async fn outputs_keep_the_order_of_decisions() {
    let mut bench = Bench::new(1024, 16).await;
    bench.store.hold.store(true, Ordering::SeqCst);
    bench.offer(1, register("alice", 1)).unwrap();
    // Until the commit is called, the next decision could still overtake its fetch.
    while bench.store.postponed.lock().unwrap().0.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bench.offer(2, options(2)).unwrap();
    bench.nothing_for(Duration::from_millis(200)).await;
    bench.store.release();
    assert_eq!((bench.answer().await, bench.answer().await), ((1, 200), (2, 200)));
}

/// A full disk: 503 and nothing else, never a positive answer; when there is room again, all is as before.
#[tokio::test]
async fn a_store_that_cannot_write_gives_no_positive_answer() {
    let mut bench = Bench::new(1024, 16).await;
    bench.offer(1, register("alice", 1)).unwrap();
    assert_eq!(bench.answer().await, (1, 200));
    bench.store.full.store(true, Ordering::SeqCst);
    bench.offer(2, register("bob", 1)).unwrap();
    assert_eq!(bench.answer().await, (2, 503));
    assert_eq!(bench.store.bindings(), 1);
    assert_eq!(bench.metrics.lane_reloads.get(), 1);
    bench.up_again().await;
    // As long as there is none, nothing that would need it is begun, and the lane is not taken up anew each time.
    for n in 10..20 {
        bench.offer(n, register("dave", 1)).unwrap();
        assert_eq!(bench.answer().await, (n, 503));
    }
    assert!(bench.report().await.starving);
    assert_eq!(bench.metrics.lane_reloads.get(), 1);
    bench.offer(20, options(20)).unwrap();
    assert_eq!(bench.answer().await, (20, 200), "what needs no row is answered");
    bench.fed().await;
    bench.offer(3, register("carol", 1)).unwrap();
    assert_eq!(bench.answer().await, (3, 200));
    // The lane's memory is the store's again: alice's second registration is made from the row that is there.
    bench.offer(4, register("alice", 2)).unwrap();
    assert_eq!(bench.answer().await, (4, 200));
    assert_eq!(bench.store.bindings(), 2);
}

/// Whoever waits when a life ends is answered, also those whose own decisions wrote nothing.
#[tokio::test]
async fn everybody_who_waits_at_the_end_of_a_life_is_answered() {
    let mut bench = Bench::new(1024, 64).await;
    bench.store.hold.store(true, Ordering::SeqCst);
    bench.offer(1, register("alice", 1)).unwrap();
    while bench.store.postponed.lock().unwrap().0.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for n in 2..=9 {
        bench.offer(n, options(n)).unwrap();
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (_, done) = bench.store.postponed.lock().unwrap().0.pop().unwrap();
    done(Err(StoreError::Unavailable { why: "gone".to_owned() }));
    let mut answers = Vec::new();
    for _ in 1..=9 {
        answers.push(bench.answer().await);
    }
    answers.sort_unstable();
    assert_eq!(answers, (1..=9).map(|n| (n, 503)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_lane_takes_no_more_than_its_queue_holds() {
    let mut bench = Bench::new(64, 1).await;
    bench.store.hold.store(true, Ordering::SeqCst);
    bench.offer(1, register("alice", 1)).unwrap();
    while bench.store.postponed.lock().unwrap().0.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // One decision waits for its commit and no second one may: the inbox fills.
    let taken = (2..1000).take_while(|n| bench.offer(*n, options(*n)).is_ok()).count() as u64;
    assert!((30..=34).contains(&taken), "{taken}");
    assert_eq!(bench.offer(2000, options(2000)), Err(Busy::Full));
    bench.store.release();
    for n in 1..=taken + 1 {
        assert_eq!(bench.answer().await, (n, 200));
    }
}

/// A session of Alice's with a phone at each side, as a life before wrote it.
fn session() -> Change {
    let phone = |at: u16| Peer::new(sip::Transport::Udp, ([127, 0, 0, 1], at).into());
    let side = |tag: &str, at: u16| {
        let text = format!(
            "INVITE sip:alice@weir.example SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{at};branch=z9hG4bKi{tag}\r\n\
             From: <sip:p{at}@weir.example>;tag=t{at}\r\nTo: <sip:alice@weir.example>\r\nCall-ID: s{at}\r\n\
             CSeq: 1 INVITE\r\nContact: <sip:p{at}@127.0.0.1:{at}>\r\nContent-Length: 0\r\n\r\n"
        );
        let Ok(Some(Message::Request(invite))) = sip::datagram(text.into(), &sip::Limits::default()) else {
            panic!("an INVITE")
        };
        let mut answer = invite.respond(200);
        answer.set_to_tag(tag);
        service::records::Side {
            dialog: sip::Dialog::uas(&invite, &answer).unwrap(),
            route: service::Route::Peer(phone(at)),
            tag: tag.to_owned(),
            device: String::new().into(),
            sdp_sent: Vec::new().into(),
            sdp_got: Vec::new().into(),
            interval_s: 0,
            refresher: false,
            update: false,
            legs: Vec::new(),
            contact_user: None,
            contact_features: String::new(),
        }
    };
    let user = service::UserId::parse("sip:alice@weir.example").unwrap();
    Change::Put(Box::new(Row {
        key: Key::new(Table::Session, format!("{:016x}", 7)),
        lane: service::LaneKey(0),
        version: 1,
        columns: service::records::Columns::default(),
        record: service::Record::Session(Box::new(service::records::SessionRow {
            user,
            originating: true,
            group: false,
            upstream: side("up", 5070),
            downstream: vec![side("down", 5071)],
            context: 0,
            fan_out: false,
            conversation: "k".to_owned(),
            contribution: "b".to_owned(),
            since: UnixTime::default(),
        })),
    }))
}

fn bye() -> Request {
    let text = "BYE sip:up@weir.example SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bKbye;rport\r\n\
                Max-Forwards: 70\r\nFrom: <sip:p5070@weir.example>;tag=t5070\r\nTo: <sip:alice@weir.example>;tag=up\r\n\
                Call-ID: s5070\r\nCSeq: 2 BYE\r\nContent-Length: 0\r\n\r\n";
    match sip::datagram(text.into(), &sip::Limits::default()) {
        Ok(Some(Message::Request(request))) => request,
        other => panic!("{other:?}"),
    }
}

/// A full disk keeps nobody in a call: BYE is answered and passed on; its rows go when there is room.
#[tokio::test]
async fn a_call_ends_although_the_store_cannot_write() {
    for starving in [false, true] {
        let store = Brittle::new();
        store::wait(|done| store.inner.commit(vec![session()], done)).unwrap();
        let mut bench = Bench::over(store, 1024, 16).await;
        assert_eq!(bench.report().await.service.sessions, 1);
        bench.store.full.store(true, Ordering::SeqCst);
        if starving {
            bench.offer(1, register("alice", 1)).unwrap();
            assert_eq!(bench.answer().await, (1, 503));
            bench.up_again().await;
        }
        bench.offer(2, bye()).unwrap();
        let (mut answered, mut passed) = (false, false);
        while !(answered && passed) {
            match timeout(PATIENCE, bench.orders.recv()).await.unwrap().unwrap() {
                Order::Respond { server: 2, response } => answered = response.code == 200,
                Order::Send { to: To::Peer(peer), request, .. } => {
                    passed = request.method == sip::Method::Bye && peer.addr.port() == 5071;
                }
                _ => {}
            }
        }
        let report = bench.report().await;
        assert!(report.starving && report.unsaved > 0);
        assert_eq!((report.service.sessions, report.life), (0, u32::from(starving)));
        bench.fed().await;
        let at = Table::ALL.iter().position(|table| *table == Table::Session).unwrap();
        assert_eq!(store::wait(|done| bench.store.inner.count(done)).unwrap()[at], 0);
    }
}

/// What stands for rows that wait is held back with them, also where it has none of its own.
#[tokio::test]
async fn nothing_that_promises_overtakes_the_rows_that_wait() {
    let store = Brittle::new();
    store::wait(|done| store.inner.commit(vec![session()], done)).unwrap();
    let mut bench = Bench::over(store, 1024, 16).await;
    bench.store.hold.store(true, Ordering::SeqCst);
    bench.offer(1, bye()).unwrap();
    while bench.store.postponed.lock().unwrap().0.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // A question that writes nothing, and whose answer is decided behind the end of the call.
    let mut query = register("alice", 1);
    query.headers.remove(&sip::Name::Contact);
    bench.offer(2, query).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    bench.store.full.store(true, Ordering::SeqCst);
    let (_, done) = bench.store.postponed.lock().unwrap().0.pop().unwrap();
    done(Err(StoreError::Unavailable { why: "full".to_owned() }));
    let mut answers = [bench.answer().await, bench.answer().await];
    answers.sort_unstable();
    assert_eq!(answers, [(1, 503), (2, 503)]);
    // The end of the call is not lost with the lane's memory: it is in the store still, and may be ended again.
    bench.up_again().await;
    bench.offer(3, bye()).unwrap();
    assert_eq!(bench.answer().await, (3, 200));
}
