//! Peers, a store and a data plane for tests: small, in memory, one thread. They do what the driver and the
//! other wing promise, and no more.

use std::collections::{BTreeMap, VecDeque};

use base::{Entropy, Instant, Now, Outbox, UnixTime};
use bytes::Bytes;
use contract::{Applied, Batch, MsrpLocal, Placement, RtpLocal, change::Verb, leg, placement};
use sip::{Limits, Message, Method, Name, Peer, Request, Response, Transport};

use crate::turn::{Desk, Turn};
use crate::{
    Ask, Change, ClientTx, Config, FlowTrust, Input, Key, Output, Route, Row, ServerTx, Service, Source,
    SubscriberEntry, UserId,
};

/// The number of a peer's connection.
pub(crate) fn connection_of(peer: Peer) -> u64 {
    if peer.transport.is_reliable() { u64::from(peer.addr.port()) } else { 0 }
}

/// A response of that code to nothing in particular.
pub(crate) fn response(code: u16) -> Response {
    let mut wire = format!("SIP/2.0 {code} x\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\n");
    wire.push_str("From: <sip:a@h>;tag=1\r\nTo: <sip:b@h>;tag=2\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n");
    wire.push_str("Content-Length: 0\r\n\r\n");
    match sip::datagram(wire.into(), &Limits::default()) {
        Ok(Some(Message::Response(response))) => response,
        other => panic!("{other:?}"),
    }
}

/// A turn outside of a service, for unit tests.
pub(crate) struct Bench {
    desk: Desk,
    out: Outbox<Output>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Bench { desk: Desk::new(Config::default(), Entropy::from_number(1)), out: Outbox::with_max(4096) }
    }

    pub(crate) fn turn(&mut self) -> Turn<'_> {
        Turn::new(Now::default(), &mut self.desk, &mut self.out)
    }

    /// The rows written so far.
    pub(crate) fn rows(&mut self) -> Vec<Row> {
        let writes = self.out.drain().filter_map(|o| match o {
            Output::Write(changes) => Some(changes),
            _ => None,
        });
        let puts = writes.flatten().filter_map(|change| match change {
            Change::Put(row) => Some(*row),
            Change::Remove(_) => None,
        });
        puts.collect()
    }
}

/// Where a request of ours that awaits an answer came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asker {
    Network,
    Lane(ClientTx),
}

/// What happened to a phone.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Request(ClientTx, Request),
    Ack(Request),
    Cancel(ClientTx, Option<u16>),
}

/// One lane with everything around it.
pub(crate) struct World {
    pub(crate) service: Service,
    pub(crate) config: Config,
    pub(crate) now: Now,
    pub(crate) store: BTreeMap<Key, Row>,
    /// What came to each peer.
    pub(crate) inbox: BTreeMap<Peer, VecDeque<Event>>,
    /// Answers to requests that peers sent.
    pub(crate) answers: BTreeMap<ServerTx, Vec<Response>>,
    /// What the data plane was ordered.
    pub(crate) batches: Vec<Batch>,
    /// Orders wait while this is true.
    pub(crate) dataplane_slow: bool,
    pub(crate) waiting: VecDeque<(Ask, Batch)>,
    pub(crate) dataplane_full: bool,
    /// A change that the data plane takes from nobody.
    pub(crate) dataplane_dislikes: fn(&contract::Change) -> bool,
    /// Answers to the data plane's questions.
    pub(crate) decisions: Vec<contract::Decide>,
    /// What goes to names.
    pub(crate) named: VecDeque<(ClientTx, crate::Named, Request)>,
    askers: BTreeMap<ServerTx, Asker>,
    lanes: BTreeMap<ClientTx, ServerTx>,
    peers: BTreeMap<ClientTx, Peer>,
    out: Outbox<Output>,
    serial: u64,
    ports: u16,
    /// Where legs are, by context and number.
    places: BTreeMap<(u64, u64), Option<placement::At>>,
}

/// A phone's address.
pub(crate) fn peer(port: u16) -> Peer {
    Peer::new(Transport::Tcp, ([127, 0, 0, 1], port).into())
}

impl World {
    /// Alice, Bob and Carol are subscribers with the password `secret`.
    pub(crate) fn new() -> Self {
        World::configured(|_| {})
    }

    /// The same with a change of the configuration.
    pub(crate) fn configured(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.listeners.tcp = Some(([127, 0, 0, 1], 5060).into());
        config.listeners.udp = config.listeners.tcp;
        let entry = |name: &str| SubscriberEntry {
            address: UserId::parse(&format!("sip:{name}@weir.example")).unwrap(),
            name: String::new().into(),
            password: "secret".to_owned().into(),
        };
        config.subscribers = ["alice", "bob", "carol"].map(entry).into();
        change(&mut config);
        World::with(config)
    }

    /// The network before us keeps strangers from the phones' addresses, so that a phone is the same one after
    /// a restart.
    pub(crate) fn with(mut config: Config) -> Self {
        config.identity.registered_flow_suffices = FlowTrust::Always;
        World::strict(config)
    }

    pub(crate) fn strict(config: Config) -> Self {
        config.check().unwrap();
        World {
            service: Service::new(config.clone(), Entropy::from_number(7)),
            config,
            now: Now { mono: Instant::from_millis(1000), wall: UnixTime::from_millis(1_795_331_700_000) },
            store: BTreeMap::new(),
            inbox: BTreeMap::new(),
            answers: BTreeMap::new(),
            batches: Vec::new(),
            dataplane_slow: false,
            waiting: VecDeque::new(),
            dataplane_full: false,
            dataplane_dislikes: |_| false,
            decisions: Vec::new(),
            named: VecDeque::new(),
            askers: BTreeMap::new(),
            lanes: BTreeMap::new(),
            peers: BTreeMap::new(),
            out: Outbox::with_max(crate::OUTPUTS_MAX),
            serial: 0,
            ports: 20_000,
            places: BTreeMap::new(),
        }
    }

    /// Gives the lane one input, and everything that follows from it within the node.
    pub(crate) fn input(&mut self, input: Input) {
        let mut queue = VecDeque::from([input]);
        while let Some(input) = queue.pop_front() {
            self.service.handle(self.now, input, &mut self.out);
            self.perform(&mut queue);
        }
    }

    fn perform(&mut self, queue: &mut VecDeque<Input>) {
        assert_eq!(self.out.refused(), 0, "the outbox has room");
        let outputs: Vec<Output> = self.out.drain().collect();
        // Durability: writes first, whatever else the call put out.
        let writes = outputs.iter().filter(|o| matches!(o, Output::Write(_))).count();
        assert!(writes <= 1, "at most one write per call");
        for output in &outputs {
            if let Output::Write(changes) = output {
                changes.iter().for_each(|change| self.commit(change));
            }
        }
        for output in outputs {
            self.perform_one(output, queue);
        }
    }

    fn commit(&mut self, change: &Change) {
        match change {
            Change::Put(row) => {
                let before = self.store.get(&row.key).map_or(0, |r| r.version);
                assert_eq!(row.version, before + 1, "compare and set of {:?}", row.key.table);
                let bytes = row.record.to_bytes().unwrap();
                assert_eq!(crate::Record::from_bytes(&bytes).unwrap(), row.record, "rows survive encoding");
                self.store.insert(row.key.clone(), (**row).clone());
            }
            Change::Remove(key) => drop(self.store.remove(key)),
        }
    }

    fn perform_one(&mut self, output: Output, queue: &mut VecDeque<Input>) {
        match output {
            Output::Respond { tx, response } => match self.askers[&tx] {
                Asker::Network => self.answers.entry(tx).or_default().push(response),
                Asker::Lane(client) => queue.push_back(Input::Response { tx: client, response }),
            },
            Output::Send { tx, to: Route::Lane(lane), request } => {
                let server = self.server(Asker::Lane(tx));
                self.lanes.insert(tx, server);
                queue.push_back(Input::Request { tx: server, source: Source::Lane(lane), request });
            }
            Output::Send { tx, to: Route::Peer(peer), request } => {
                self.peers.insert(tx, peer);
                self.inbox.entry(peer).or_default().push_back(Event::Request(tx, request));
            }
            Output::Send { tx, to: Route::Name(named), request } => {
                self.named.push_back((tx, named, request));
            }
            Output::Ack { to: Route::Name(_), .. } => {}
            Output::Ack { to: Route::Lane(lane), request, .. } => {
                queue.push_back(Input::Ack { source: Source::Lane(lane), request });
            }
            Output::Ack { to: Route::Peer(peer), request, .. } => {
                self.inbox.entry(peer).or_default().push_back(Event::Ack(request));
            }
            Output::Cancel { tx, reason } => match self.lanes.get(&tx) {
                Some(server) => queue.push_back(Input::Cancelled { tx: *server, reason }),
                None => {
                    let peer = self.peers[&tx];
                    let cause = reason.and_then(|r| r.cause());
                    self.inbox.entry(peer).or_default().push_back(Event::Cancel(tx, cause));
                }
            },
            Output::Need { ask, keys } => {
                let rows = keys.iter().filter_map(|key| self.store.get(key).cloned()).collect();
                queue.push_back(Input::Facts { ask, rows });
            }
            Output::Write(_) => {}
            Output::Decide(decide) => self.decisions.push(decide),
            Output::Program { ask, batch } => {
                let contexts: std::collections::BTreeSet<u64> =
                    batch.changes.iter().filter_map(contract::Change::context).collect();
                assert_eq!(contexts.len(), 1, "a batch speaks of one context: {batch:?}");
                self.batches.push(batch.clone());
                let disliked = batch.changes.iter().any(self.dataplane_dislikes);
                if self.dataplane_full || disliked {
                    use contract::refusal::Reason;
                    let reason = if disliked { Reason::BadLeg } else { Reason::NoPort };
                    let refusal = contract::Refusal { reason: reason.into(), ..contract::Refusal::default() };
                    queue.push_back(Input::Refused { ask, refusal });
                } else if self.dataplane_slow {
                    self.waiting.push_back((ask, batch));
                } else {
                    let applied = self.place(&batch);
                    queue.push_back(Input::Applied { ask, applied });
                }
            }
        }
    }

    /// The data plane answers the oldest order that waits.
    pub(crate) fn apply(&mut self) {
        let (ask, batch) = self.waiting.pop_front().unwrap();
        let applied = self.place(&batch);
        self.input(Input::Applied { ask, applied });
    }

    fn place(&mut self, batch: &Batch) -> Applied {
        let mut placements = Vec::new();
        for change in &batch.changes {
            let Some(Verb::PutLeg(leg)) = &change.verb else { continue };
            self.ports += 2;
            let addr = std::net::SocketAddr::from(([192, 0, 2, 200], self.ports));
            let at = match leg.kind.as_ref().unwrap() {
                leg::Kind::Rtp(rtp) => {
                    let named = rtp.local.clone().filter(|l| l.advertised.is_some());
                    placement::At::Rtp(named.unwrap_or(RtpLocal {
                        bound: Some(addr.into()),
                        advertised: Some(addr.into()),
                        rtcp_port: u32::from(self.ports + 1),
                        ..RtpLocal::default()
                    }))
                }
                leg::Kind::Msrp(msrp) => {
                    let scheme = if msrp.tls { "msrps" } else { "msrp" };
                    let named = msrp.local.clone().filter(|l| !l.path.is_empty());
                    placement::At::Msrp(named.unwrap_or(MsrpLocal {
                        session: format!("s{}", self.ports),
                        path: format!("{scheme}://{addr}/s{};tcp", self.ports),
                        advertised: Some(addr.into()),
                    }))
                }
            };
            placements.push(Placement { context: leg.context, leg: leg.id, at: Some(at) });
        }
        // On another leg's transport, where that one is.
        for change in &batch.changes {
            let Some(Verb::PutLeg(leg)) = &change.verb else { continue };
            let carrier = match &leg.kind {
                Some(leg::Kind::Rtp(rtp)) => rtp.bundle.as_ref().map_or(0, |bundle| bundle.carrier),
                _ => 0,
            };
            let here = placements.iter().find(|p| p.context == leg.context && p.leg == carrier);
            let on = here.map(|p| p.at.clone()).or_else(|| self.places.get(&(leg.context, carrier)).cloned());
            if let (true, Some(on)) = (carrier != 0, on) {
                let own = placements.iter_mut().find(|p| p.context == leg.context && p.leg == leg.id);
                own.into_iter().for_each(|own| own.at.clone_from(&on));
            }
        }
        self.places.extend(placements.iter().map(|p| ((p.context, p.leg), p.at.clone())));
        Applied { generation: 1, placements }
    }

    fn server(&mut self, asker: Asker) -> ServerTx {
        self.serial += 1;
        let tx = ServerTx(self.serial);
        self.askers.insert(tx, asker);
        tx
    }

    /// A peer sends a request.
    pub(crate) fn send(&mut self, from: Peer, request: Request) -> ServerTx {
        let tx = self.server(Asker::Network);
        let local = self.config.listeners.tcp.unwrap();
        let source = Source::Network { peer: from, connection: connection_of(from), local, trusted: false };
        self.input(Input::Request { tx, source, request });
        tx
    }

    /// A peer acknowledges.
    pub(crate) fn ack(&mut self, from: Peer, request: Request) {
        let local = self.config.listeners.tcp.unwrap();
        self.input(Input::Ack {
            source: Source::Network { peer: from, connection: connection_of(from), local, trusted: false },
            request,
        });
    }

    /// A peer takes its INVITE back.
    pub(crate) fn cancel(&mut self, tx: ServerTx) {
        self.input(Input::Cancelled { tx, reason: None });
    }

    /// A peer answers a request of ours.
    pub(crate) fn reply(&mut self, tx: ClientTx, response: Response) {
        self.input(Input::Response { tx, response });
    }

    /// A peer never answers.
    pub(crate) fn expire(&mut self, tx: ClientTx) {
        self.input(Input::Expired { tx });
    }

    /// The final answer that a peer's request has got.
    pub(crate) fn answer(&self, tx: ServerTx) -> Option<&Response> {
        self.answers.get(&tx)?.iter().rfind(|r| r.code >= 200)
    }

    /// Its code.
    pub(crate) fn code(&self, tx: ServerTx) -> Option<u16> {
        self.answer(tx).map(|r| r.code)
    }

    /// The next thing that came to a peer.
    pub(crate) fn next(&mut self, peer: Peer) -> Option<Event> {
        self.inbox.get_mut(&peer)?.pop_front()
    }

    /// The next request that came to a peer.
    pub(crate) fn request(&mut self, peer: Peer, method: &Method) -> (ClientTx, Request) {
        match self.next(peer) {
            Some(Event::Request(tx, request)) if request.method == *method => (tx, request),
            other => panic!("{method} expected, got {other:?}"),
        }
    }

    /// Time passes, and everything due is done.
    pub(crate) fn pass(&mut self, seconds: u64) {
        let end = self.now.mono + std::time::Duration::from_secs(seconds);
        let start = self.now;
        loop {
            match self.service.next_timeout() {
                Some(at) if at <= end => {
                    let at = at.max(self.now.mono);
                    self.now = Now { mono: at, wall: start.wall + at.since(start.mono) };
                    self.timeout();
                }
                _ => break,
            }
        }
        self.now = Now { mono: end, wall: start.wall + end.since(start.mono) };
    }

    /// What waits at once is done.
    pub(crate) fn settle(&mut self) {
        while self.service.next_timeout().is_some_and(|at| at <= self.now.mono) {
            self.timeout();
        }
    }

    fn timeout(&mut self) {
        self.service.timeout(self.now, &mut self.out);
        let mut queue = VecDeque::new();
        self.perform(&mut queue);
        while let Some(input) = queue.pop_front() {
            self.input(input);
        }
    }

    /// Control dies and comes back: only the store is left.
    pub(crate) fn restart(&mut self) {
        self.service = Service::new(self.config.clone(), Entropy::from_number(self.serial + 99));
        self.askers.clear();
        self.lanes.clear();
        self.peers.clear();
        let rows = self.store.values().filter(|row| row.key.table.restored()).cloned().collect();
        self.input(Input::Restored { rows, done: true });
        self.settle();
    }

    /// The rows of a table.
    pub(crate) fn rows(&self, table: crate::Table) -> Vec<&Row> {
        self.store.values().filter(|row| row.key.table == table).collect()
    }

    /// Registers a phone: a challenge, and the answer to it.
    pub(crate) fn register(&mut self, user: &str, from: Peer, instance: &str) {
        self.register_by("tcp", user, from, instance);
    }

    /// The same with another transport in its Contact.
    pub(crate) fn register_by(&mut self, transport: &str, user: &str, from: Peer, instance: &str) {
        let mut request = text(&format!(
            "REGISTER sip:weir.example SIP/2.0\r\n{}From: <sip:{user}@weir.example>;tag=r\r\n\
             To: <sip:{user}@weir.example>\r\nCall-ID: reg-{user}-{}\r\nCSeq: 1 REGISTER\r\n\
             Contact: <sip:{user}@{};transport={transport}>;+sip.instance=\"<{instance}>\";+g.3gpp.icsi-ref=\
             \"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session,urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.msg\"\r\n\
             Expires: 3600\r\nContent-Length: 0\r\n\r\n",
            via(),
            from.addr.port(),
            from.addr,
        ));
        let challenged = self.send(from, request.clone());
        let challenge = self.answer(challenged).unwrap().clone();
        assert_eq!(challenge.code, 401);
        authorize(&mut request, &challenge, user, "secret");
        let tx = self.send(from, request);
        assert_eq!(self.code(tx), Some(200));
    }
}

/// Answers a challenge; CSeq goes up by one.
pub(crate) fn authorize(request: &mut Request, challenge: &Response, user: &str, password: &str) {
    let mut client = sip::digest::Client::new(user, password);
    let seed = request.call_id().unwrap().bytes().map(u64::from).sum::<u64>() * 100
        + u64::from(request.cseq().unwrap().seq);
    *request = client.answer(request, challenge, &mut Entropy::from_number(seed)).unwrap();
}

/// A request from its text.
pub(crate) fn text(wire: &str) -> Request {
    match sip::datagram(Bytes::from(wire.to_owned()), &Limits::default()) {
        Ok(Some(Message::Request(request))) => request,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn via() -> &'static str {
    "Via: SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bK7\r\nMax-Forwards: 70\r\n"
}

/// A request of a phone outside dialogs.
pub(crate) fn request(
    method: &str,
    from: &str,
    to: &str,
    id: &str,
    extra: &str,
    kind: &str,
    body: &str,
) -> Request {
    let contact = match method {
        "MESSAGE" => String::new(),
        _ => format!("Contact: <sip:{from}@127.0.0.1:7000>\r\n"),
    };
    let kind = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
    text(&format!(
        "{method} sip:{to}@weir.example SIP/2.0\r\n{}From: <sip:{from}@weir.example>;tag=f{id}\r\n\
         To: <sip:{to}@weir.example>\r\nCall-ID: {id}\r\nCSeq: 1 {method}\r\n{contact}{extra}{kind}\
         Content-Length: {}\r\n\r\n{body}",
        via(),
        body.len()
    ))
}

/// A phone's answer, with a tag and a Contact.
pub(crate) fn reply(request: &Request, code: u16, tag: &str, sdp: &str) -> Response {
    let mut response = request.respond(code);
    response.set_to_tag(tag);
    response.headers.push(Name::Contact, format!("<sip:{tag}@127.0.0.1:7001>"));
    response.headers.push(Name::Allow, "INVITE, ACK, BYE, CANCEL, UPDATE");
    if !sdp.is_empty() {
        response.set_body("application/sdp", sdp.to_owned());
    }
    response
}

/// A chat's SDP.
pub(crate) fn chat_sdp(host: &str, port: u16, setup: &str) -> String {
    format!(
        "v=0\r\no=- {port} 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n\
         m=message {port} TCP/MSRP *\r\na=path:msrp://{host}:{port}/{port}x;tcp\r\na=setup:{setup}\r\n\
         a=accept-types:message/cpim\r\na=accept-wrapped-types:text/plain\r\na=sendrecv\r\n"
    )
}

/// A call's SDP.
pub(crate) fn call_sdp(host: &str, port: u16, direction: &str, version: u32) -> String {
    format!(
        "v=0\r\no=- {port} {version} IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na={direction}\r\n"
    )
}

/// The body as a description.
pub(crate) fn sdp_of(body: &Bytes) -> sdp::Session {
    sdp::Session::parse(body, &sdp::Limits::default()).unwrap()
}
