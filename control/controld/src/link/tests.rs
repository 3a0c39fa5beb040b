//! The link against a data plane that the test plays.

use bytes::BytesMut;
use contract::{
    Applied, Audited, Batch, Context as MediaContext, Counters, FromDataplane, Hello, LegCounters, LegKey,
    LegUp, News, ToDataplane, decode_frame, encode_frame, from_dataplane, news, refusal, to_dataplane,
};
use service::LaneKey;
use store::{Sqlite, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);
const LANES: usize = 3;

/// A link under test: the far end's socket, the lanes' inboxes, and what stays when the link starts anew.
struct Bench {
    listener: UnixListener,
    inboxes: Vec<UnboundedReceiver<Event>>,
    link: Link,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new(settings: Settings, instance: Option<u64>) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("dataplane.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let (lanes, inboxes) = Lanes::new(LANES, 1024, metrics.clone());
        let store: Arc<dyn Store> = Arc::new(Sqlite::in_memory(&store::Settings::default()).unwrap());
        let unstarted = Unstarted::new(&settings);
        let (link, shutdown) = (unstarted.link(), Shutdown::new());
        let parts = Parts {
            settings,
            target: Target::Socket(socket),
            owner: "test".to_owned(),
            epoch: 7,
            instance,
            store: store.clone(),
            ended: ended::Settings::default(),
            clock: Clock::start(),
            metrics: metrics.clone(),
            trace: crate::trace::Bus::idle(metrics.clone()),
            shutdown: shutdown.clone(),
        };
        unstarted.start(parts, lanes);
        Bench { listener, inboxes, link, store, metrics, shutdown, folder }
    }

    async fn accept(&self) -> Far {
        let (stream, _) = timeout(PATIENCE, self.listener.accept()).await.unwrap().unwrap();
        Far { stream, read: BytesMut::new() }
    }

    /// A connection that is greeted and audited.
    async fn linked(&self, instance: u64, contexts: &[u64]) -> Far {
        let mut far = self.accept().await;
        far.greet(instance, 40, contexts).await;
        far
    }

    async fn event(&mut self, lane: usize) -> Event {
        timeout(PATIENCE, self.inboxes[lane].recv()).await.unwrap().unwrap()
    }

    /// The two events that each greeting brings a lane.
    async fn greeted(&mut self, lane: usize) -> (bool, Vec<u64>) {
        let Event::DataplaneUp { instance_changed, .. } = self.event(lane).await else { panic!("not up") };
        let Event::Audited(contexts) = self.event(lane).await else { panic!("not audited") };
        (instance_changed, contexts)
    }

    fn program(&self, lane: usize, ask: u64) {
        let from = LaneRef { lane, life: 3 };
        self.link.order(Order::Program { from, ask: Ask(ask), batch: Batch::default() }).unwrap();
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

/// The far end of one connection.
struct Far {
    stream: UnixStream,
    read: BytesMut,
}

impl Far {
    async fn next(&mut self) -> to_dataplane::Body {
        loop {
            if let Some(frame) = decode_frame::<ToDataplane>(&mut self.read).unwrap() {
                return frame.body.unwrap();
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await.unwrap().unwrap();
            assert!(read > 0, "the link closed the connection");
        }
    }

    async fn put(&mut self, body: from_dataplane::Body) {
        let mut frame = BytesMut::new();
        encode_frame(&FromDataplane { body: Some(body) }, &mut frame);
        self.stream.write_all(&frame).await.unwrap();
    }

    async fn greet(&mut self, instance: u64, generation: u64, contexts: &[u64]) -> Hello {
        let to_dataplane::Body::Hello(hello) = self.next().await else { panic!("no hello") };
        let welcome = Welcome { version: 1, instance, generation, ..Welcome::default() };
        self.put(from_dataplane::Body::Welcome(welcome)).await;
        let to_dataplane::Body::Drain(contract::Drain { on: false }) = self.next().await else {
            panic!("not told to take sessions")
        };
        let to_dataplane::Body::Audit(audit) = self.next().await else { panic!("no audit") };
        // In two parts, as a long one would come.
        for (i, part) in contexts.chunks(contexts.len().div_ceil(2).max(1)).enumerate() {
            let contexts = part.iter().map(|id| MediaContext { id: *id }).collect();
            let part =
                Audited { id: audit.id, contexts, more: true, generation: i as u64, ..Audited::default() };
            self.put(from_dataplane::Body::Audited(part)).await;
        }
        self.put(from_dataplane::Body::Audited(Audited { id: audit.id, ..Audited::default() })).await;
        hello
    }

    async fn batch(&mut self) -> Batch {
        let to_dataplane::Body::Batch(batch) = self.next().await else { panic!("no batch") };
        batch
    }

    async fn applied(&mut self, generation: u64) {
        self.put(from_dataplane::Body::Applied(Applied { generation, ..Applied::default() })).await;
    }

    async fn closed(&mut self) {
        let mut rest = Vec::new();
        timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    }
}

/// A context id in the bucket of a lane.
fn context(lane: usize, number: u64) -> u64 {
    LaneKey(u16::try_from(lane).unwrap()).context(number)
}

#[tokio::test]
async fn a_greeting_says_who_and_brings_each_lane_its_contexts() {
    let mut bench = Bench::new(Settings::default(), None);
    let mut far = bench.accept().await;
    let contexts = [context(0, 1), context(1, 2), context(0, 3), context(4, 4), context(2, 5)];
    let hello = far.greet(9, 40, &contexts).await;
    assert_eq!((hello.epoch, hello.owner.as_str(), hello.version_max), (7, "test", contract::VERSION));
    assert_eq!(bench.greeted(0).await, (true, vec![context(0, 1), context(0, 3)]));
    assert_eq!(bench.greeted(1).await, (true, vec![context(1, 2), context(4, 4)]));
    assert_eq!(bench.greeted(2).await, (true, vec![context(2, 5)]));
}

#[tokio::test]
async fn batches_get_rising_generations_and_answers_find_who_asked() {
    let mut bench = Bench::new(Settings::default(), Some(9));
    let mut far = bench.linked(9, &[]).await;
    for lane in 0..LANES {
        assert!(!bench.greeted(lane).await.0, "the instance is the remembered one");
    }
    bench.program(0, 100);
    bench.program(2, 200);
    let (first, second) = (far.batch().await, far.batch().await);
    assert_eq!((first.generation, second.generation, first.epoch), (41, 42, 7));
    let refusal = Refusal { generation: 42, reason: refusal::Reason::NoPort.into(), ..Refusal::default() };
    far.put(from_dataplane::Body::Refusal(refusal.clone())).await;
    far.applied(41).await;
    // Of a batch that nobody has sent.
    far.applied(4711).await;
    let Event::Refused { life: 3, ask: Ask(200), refusal: heard } = bench.event(2).await else { panic!() };
    assert_eq!(heard, refusal);
    let Event::Applied { life: 3, ask: Ask(100), .. } = bench.event(0).await else { panic!() };
    let text = bench.metrics.text();
    assert!(text.contains("weir_control_dataplane_refusals_total{reason=\"no_port\"} 1\n"));
    assert!(text.contains("weir_control_dataplane_batches_total{outcome=\"done\"} 1\n"));
}

#[tokio::test]
async fn what_was_not_answered_when_the_link_broke_is_refused() {
    let mut bench = Bench::new(Settings { retry_ms: 10, ..Settings::default() }, Some(9));
    let mut far = bench.linked(9, &[]).await;
    bench.greeted(1).await;
    bench.program(1, 5);
    far.batch().await;
    drop(far);
    let Event::Refused { ask: Ask(5), refusal, .. } = bench.event(1).await else { panic!() };
    assert_eq!(refusal.reason(), refusal::Reason::Unspecified);
    let Event::DataplaneDown = bench.event(1).await else { panic!() };
    // The same data plane again: nothing was lost.
    let _far = bench.linked(9, &[context(1, 1)]).await;
    assert_eq!(bench.greeted(1).await, (false, vec![context(1, 1)]));
}

#[tokio::test]
async fn orders_without_a_link_are_refused_at_once() {
    let mut bench = Bench::new(Settings { retry_ms: 60_000, ..Settings::default() }, None);
    drop(bench.accept().await);
    bench.program(0, 1);
    let Event::Refused { ask: Ask(1), .. } = bench.event(0).await else { panic!() };
    let (send, receive) = oneshot::channel();
    bench.link.order(Order::Capture(contract::Capture::default(), send)).unwrap();
    assert_eq!(timeout(PATIENCE, receive).await.unwrap().unwrap().error, "no data plane is linked");
}

#[tokio::test]
async fn a_data_plane_that_answers_no_batch_is_linked_anew() {
    let mut bench = Bench::new(Settings { answer_ms: 100, retry_ms: 10, ..Settings::default() }, Some(9));
    let mut far = bench.linked(9, &[]).await;
    bench.greeted(0).await;
    bench.program(0, 1);
    far.batch().await;
    far.closed().await;
    let Event::Refused { ask: Ask(1), .. } = bench.event(0).await else { panic!() };
    bench.linked(9, &[]).await;
}

/// A host that is switched off closes nothing.
#[tokio::test]
async fn a_data_plane_that_falls_silent_is_linked_anew() {
    let mut bench = Bench::new(Settings { answer_ms: 100, retry_ms: 10, ..Settings::default() }, Some(9));
    let mut far = bench.linked(9, &[]).await;
    bench.greeted(0).await;
    let began = std::time::Instant::now();
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let load = News { what: Some(news::What::Load(Load::default())) };
        far.put(from_dataplane::Body::News(load)).await;
    }
    far.closed().await;
    assert!(began.elapsed() > Duration::from_secs(2), "not while it told its load");
    let Event::DataplaneDown = bench.event(0).await else { panic!() };
    bench.linked(9, &[]).await;
}

/// A new instance is remembered only when what is wanted has been put into it: a crash before that puts it again.
#[tokio::test]
async fn a_new_instance_is_remembered_when_everything_was_put_into_it() {
    let mut bench = Bench::new(Settings::default(), Some(8));
    let mut far = bench.linked(9, &[]).await;
    assert!(bench.greeted(0).await.0);
    bench.program(0, 1);
    let generation = far.batch().await.generation;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(wait(|done| bench.store.number(INSTANCE, done)), Ok(None), "not while a batch is unanswered");
    far.applied(generation).await;
    let start = std::time::Instant::now();
    while wait(|done| bench.store.number(INSTANCE, done)) != Ok(Some(9)) {
        assert!(start.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A link that broke within a second of the first greeting made the living data plane a new one, and every message session was
/// set up anew.
#[tokio::test]
async fn a_link_that_breaks_at_once_comes_back_to_the_same_data_plane() {
    let mut bench = Bench::new(Settings { retry_ms: 10, ..Settings::default() }, Some(8));
    let far = bench.linked(9, &[]).await;
    assert!(bench.greeted(1).await.0, "it has lost its tables");
    drop(far);
    let Event::DataplaneDown = bench.event(1).await else { panic!() };
    // What it holds is told again: what is missing there is put, and nothing else.
    let mut far = bench.linked(9, &[context(1, 1)]).await;
    assert_eq!(bench.greeted(1).await, (false, vec![context(1, 1)]));
    // It is remembered when what was ordered is answered, as ever.
    bench.program(1, 5);
    let generation = far.batch().await.generation;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(wait(|done| bench.store.number(INSTANCE, done)), Ok(None));
    far.applied(generation).await;
    let Event::Applied { ask: Ask(5), .. } = bench.event(1).await else { panic!() };
    let start = std::time::Instant::now();
    while wait(|done| bench.store.number(INSTANCE, done)) != Ok(Some(9)) {
        assert!(start.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(far);
    let Event::DataplaneDown = bench.event(1).await else { panic!() };
    // Another one has lost everything, the first time that it is seen.
    let far = bench.linked(10, &[]).await;
    assert_eq!(bench.greeted(1).await, (true, vec![]));
    drop(far);
    let Event::DataplaneDown = bench.event(1).await else { panic!() };
    let _far = bench.linked(10, &[]).await;
    assert_eq!(bench.greeted(1).await, (false, vec![]));
}

#[tokio::test]
async fn news_go_to_the_lane_of_their_context() {
    let mut bench = Bench::new(Settings::default(), Some(9));
    let mut far = bench.linked(9, &[]).await;
    for lane in 0..LANES {
        bench.greeted(lane).await;
    }
    let leg = |lane| Some(LegKey::new(context(lane, 1), 1));
    let up = News { what: Some(news::What::LegUp(LegUp { leg: leg(2) })) };
    far.put(from_dataplane::Body::News(up.clone())).await;
    let legs = [0, 1, 0].map(|lane| LegCounters { leg: leg(lane), ..LegCounters::default() }).to_vec();
    let counters = News { what: Some(news::What::Counters(Counters { legs })) };
    far.put(from_dataplane::Body::News(counters)).await;
    let load = Load { legs: 17, ..Load::default() };
    far.put(from_dataplane::Body::News(News { what: Some(news::What::Load(load)) })).await;
    let Event::News(heard) = bench.event(2).await else { panic!() };
    assert_eq!(heard, up);
    for (lane, legs) in [(0, 2), (1, 1)] {
        let Event::News(News { what: Some(news::What::Counters(heard)) }) = bench.event(lane).await else {
            panic!()
        };
        assert_eq!(heard.legs.len(), legs);
    }
    let start = std::time::Instant::now();
    while bench.link.state().load.as_ref() != Some(&load) {
        assert!(start.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whoever answers nonsense, or refuses us, is tried again and never believed.
#[tokio::test]
async fn a_bad_greeting_ends_the_connection() {
    let bench = Bench::new(Settings { retry_ms: 10, ..Settings::default() }, None);
    let mut noise = bench.accept().await;
    noise.stream.write_all(&[0xff; 64]).await.unwrap();
    noise.closed().await;
    let mut refuses = bench.accept().await;
    refuses.next().await;
    let refusal = Refusal { reason: refusal::Reason::Epoch.into(), ..Refusal::default() };
    refuses.put(from_dataplane::Body::Refusal(refusal)).await;
    refuses.closed().await;
    let mut other_version = bench.accept().await;
    other_version.next().await;
    let welcome = Welcome { version: contract::VERSION + 1, ..Welcome::default() };
    other_version.put(from_dataplane::Body::Welcome(welcome)).await;
    other_version.closed().await;
    assert_eq!(bench.metrics.dataplane_links.get(), 0);
    bench.linked(1, &[]).await;
}

#[tokio::test]
async fn captures_and_draining_reach_the_data_plane() {
    let bench = Bench::new(Settings { retry_ms: 10, ..Settings::default() }, Some(9));
    let mut far = bench.linked(9, &[]).await;
    let (send, receive) = oneshot::channel();
    let capture =
        contract::Capture { context: 3, on: true, file: "a.pcap".to_owned(), ..contract::Capture::default() };
    bench.link.order(Order::Capture(capture.clone(), send)).unwrap();
    let to_dataplane::Body::Capture(heard) = far.next().await else { panic!() };
    assert_eq!(heard, capture);
    let state = CaptureState { context: 3, on: true, ..CaptureState::default() };
    far.put(from_dataplane::Body::CaptureState(state.clone())).await;
    assert_eq!(timeout(PATIENCE, receive).await.unwrap().unwrap(), state);
    bench.link.order(Order::Drain(true)).unwrap();
    let to_dataplane::Body::Drain(contract::Drain { on: true }) = far.next().await else { panic!() };
    // A data plane that comes back hears it again.
    drop(far);
    let mut far = bench.accept().await;
    far.next().await;
    far.put(from_dataplane::Body::Welcome(Welcome { version: 1, ..Welcome::default() })).await;
    let to_dataplane::Body::Drain(contract::Drain { on: true }) = far.next().await else { panic!() };
}

/// Nobody may listen yet: it is tried until somebody does.
#[tokio::test]
async fn it_waits_for_a_data_plane_that_comes_late() {
    let mut bench = Bench::new(Settings { retry_ms: 10, ..Settings::default() }, None);
    let path = bench.folder.path().join("dataplane.sock");
    std::fs::remove_file(&path).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(bench.metrics.dataplane_up.get(), 0);
    bench.listener = UnixListener::bind(&path).unwrap();
    let _far = bench.linked(1, &[]).await;
    bench.greeted(0).await;
    assert_eq!(bench.metrics.dataplane_up.get(), 1);
}

/// Issue 3: statistics per leg in CDR-ready form.
#[tokio::test]
async fn the_last_counters_of_a_leg_are_kept() {
    let mut bench = Bench::new(Settings::default(), Some(9));
    let mut far = bench.linked(9, &[]).await;
    bench.greeted(1).await;
    let leg = |number, ended| LegCounters {
        leg: Some(LegKey::new(context(1, 1), number)),
        packets_in: number,
        ended,
        ..LegCounters::default()
    };
    let counters = Counters { legs: vec![leg(1, false), leg(2, true), leg(3, true)] };
    far.put(from_dataplane::Body::News(News { what: Some(news::What::Counters(counters)) })).await;
    let Event::News(News { what: Some(news::What::Counters(heard)) }) = bench.event(1).await else {
        panic!()
    };
    assert_eq!(heard.legs, [leg(1, false)], "its lane has nothing to do with those that are gone");
    let kept = || wait(|done| bench.store.list(service::Table::Ended, 10, done)).unwrap();
    let start = std::time::Instant::now();
    while kept().len() < 2 {
        assert!(start.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let legs: Vec<u64> = kept()
        .iter()
        .map(|row| match &row.record {
            service::Record::Ended(ended) => ended.packets_in,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(legs, [2, 3]);
}
