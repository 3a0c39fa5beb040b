//! What every machine of a lane works with during one call: the time, the lane's desk (configuration,
//! randomness, who owns which transaction and timer), and the way out.

use std::collections::VecDeque;
use std::time::Duration;

use base::{Entropy, HashSeed, Instant, Map, Now, Outbox, TimerId, Timers, map};
use contract::{Batch, Change as MediaChange, Decide};
use sip::digest::{Algorithm, Replays, Server};
use sip::typed::{CSeq, Reason};
use sip::{Method, Request, Response};

use crate::records::Row;
use crate::{
    Acted, Ask, Change, ClientTx, Config, Counters, Function, Key, LaneKey, Output, Route, ServerTx, UserId,
};

/// Accepted INVITEs that may still bring another 2xx; the oldest ones are forgotten beyond it.
const ACCEPTED_MAX: usize = 4096;

/// Which machine sent a request and gets its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Owner {
    /// A message's leg.
    Message(u64, u16),
    /// A session's request.
    Session(u64),
    /// A relayed subscription or REFER.
    Relay(u64),
    /// The Controlling Function, with a number of its own.
    Focus(u64),
    /// A watched registration at an S-CSCF.
    Watch(u64),
    /// A subscription to registrations here.
    Notifier(u64),
    /// Nobody waits for the answer (the BYE of a late 2xx).
    Nobody,
}

/// Which machine ordered the data plane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Orderer {
    /// A session.
    Session(u64),
    /// The Controlling Function, with a number of its own.
    Focus(u64),
    /// Nobody waits (removals).
    Nobody,
}

/// What a timer wakes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Wake {
    /// The binding of this key may be over.
    Binding(UserId, String),
    /// A message's legs took too long, or it is worthless now.
    Message(u64),
    /// A session's own clock.
    Session(u64),
    /// A relayed subscription ends.
    Relay(u64),
    /// The Controlling Function, with a number of its own.
    Focus(u64),
    /// A watched registration is refreshed, or given up.
    Watch(u64),
    /// A subscription to registrations here is over.
    Notifier(u64),
    /// What this user has published may be over.
    Publication(UserId),
}

/// What a lane's machines share.
pub(crate) struct Desk {
    pub(crate) config: Config,
    pub(crate) entropy: Entropy,
    pub(crate) seed: HashSeed,
    pub(crate) counters: Counters,
    /// Who took the event of this call.
    pub(crate) acted: Acted,
    pub(crate) digest: Server,
    pub(crate) replays: Replays,
    timers: Timers<Wake>,
    owners: Map<ClientTx, Owner>,
    /// INVITEs that got a 2xx: others may follow for a while (RFC 3261 §13.2.2.4).
    accepted: VecDeque<ClientTx>,
    orderers: Map<Ask, Orderer>,
    serial: u64,
    fingerprint: Vec<u8>,
    dtls_fingerprint: Option<[u8; 32]>,
    /// As configured; a data plane of old knows no keys.
    media: crate::config::Media,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("owners", &self.owners.len()).finish_non_exhaustive()
    }
}

impl Desk {
    pub(crate) fn new(config: Config, mut entropy: Entropy) -> Self {
        let seed = entropy.hash_seed();
        Desk {
            timers: Timers::with_max(config.limits.timers_max),
            owners: map(seed),
            accepted: VecDeque::new(),
            orderers: map(seed),
            serial: 0,
            fingerprint: Vec::new(),
            dtls_fingerprint: None,
            media: config.media.clone(),
            counters: Counters::default(),
            acted: Acted::default(),
            digest: digest_server(&config),
            replays: Replays::with_max(config.limits.nonces_max),
            seed,
            entropy,
            config,
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.timers.next_timeout()
    }

    /// SHA-256 of the certificate that the data plane's MSRP listeners show; empty when not linked yet.
    pub(crate) fn fingerprint(&self) -> &[u8] {
        &self.fingerprint
    }

    /// The same for DTLS handshakes; `None` when not linked yet, or with a data plane that has none.
    pub(crate) fn dtls_fingerprint(&self) -> Option<[u8; 32]> {
        self.dtls_fingerprint
    }

    /// The data plane is linked.
    pub(crate) fn link(&mut self, welcome: &contract::Welcome) {
        self.fingerprint.clone_from(&welcome.fingerprint);
        self.dtls_fingerprint = welcome.dtls_fingerprint.as_slice().try_into().ok();
        self.config.media.clone_from(&self.media);
        if welcome.version == 1 {
            // It would leave out what it does not know, and send in clear.
            use crate::config::Srtp::Refuse;
            (self.config.media.srtp, self.config.media.dtls) = (Refuse, Refuse);
        }
    }

    /// A number that this lane has not used yet.
    pub(crate) fn serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Who waits for the answers of a transaction.
    pub(crate) fn owner(&self, tx: ClientTx) -> Option<Owner> {
        self.owners.get(&tx).copied()
    }

    /// A final answer came: after a 2xx to an INVITE more of them may come, else the transaction is forgotten.
    pub(crate) fn answered(&mut self, tx: ClientTx, response: &Response) {
        let invite =
            response.headers.typed::<CSeq>().ok().flatten().is_some_and(|c| c.method == Method::Invite);
        if !invite || response.code >= 300 {
            self.forget(tx);
            return;
        }
        self.accepted.push_back(tx);
        if self.accepted.len() > ACCEPTED_MAX
            && let Some(oldest) = self.accepted.pop_front()
        {
            self.forget(oldest);
        }
    }

    /// Nobody waits for that transaction any more.
    pub(crate) fn forget(&mut self, tx: ClientTx) {
        self.owners.remove(&tx);
    }

    /// Who waits for an answer of the data plane; he is told once.
    pub(crate) fn take_orderer(&mut self, ask: Ask) -> Option<Orderer> {
        self.orderers.remove(&ask)
    }
}

/// One call of the lane.
pub(crate) struct Turn<'a> {
    /// Both clocks.
    pub(crate) now: Now,
    /// What is shared.
    pub(crate) desk: &'a mut Desk,
    out: &'a mut Outbox<Output>,
    changes: Vec<Change>,
}

impl<'a> Turn<'a> {
    pub(crate) fn new(now: Now, desk: &'a mut Desk, out: &'a mut Outbox<Output>) -> Self {
        Turn { now, desk, out, changes: Vec::new() }
    }

    /// That function takes the event.
    pub(crate) fn acts(&mut self, function: Function) {
        self.desk.acted.by(function);
    }

    /// Puts out the one Write of this call.
    pub(crate) fn finish(mut self) {
        if !self.changes.is_empty() {
            let changes = std::mem::take(&mut self.changes);
            self.put(Output::Write(changes));
        }
    }

    fn put(&mut self, output: Output) {
        // The driver leaves room (OUTPUTS_MAX) and the fork limits keep a call below it; if that arithmetic
        // is ever wrong, the loss is counted and peers' timers mend it.
        if self.out.push(output).is_err() {
            self.desk.counters.outputs_lost += 1;
        }
    }

    /// Answers a request.
    pub(crate) fn respond(&mut self, tx: ServerTx, response: Response) {
        self.put(Output::Respond { tx, response });
    }

    /// Sends a request for `owner`.
    pub(crate) fn send(&mut self, owner: Owner, to: Route, request: Request) -> ClientTx {
        let tx = ClientTx(self.desk.serial());
        if owner != Owner::Nobody {
            self.desk.owners.insert(tx, owner);
        }
        self.put(Output::Send { tx, to, request });
        tx
    }

    /// Acknowledges a 2xx.
    pub(crate) fn ack(&mut self, tx: ClientTx, to: Route, request: Request) {
        self.put(Output::Ack { tx, to, request });
    }

    /// Takes an INVITE back.
    pub(crate) fn cancel(&mut self, tx: ClientTx, reason: Option<Reason>) {
        self.put(Output::Cancel { tx, reason });
    }

    /// Asks the store; the answer comes to whoever remembers the number.
    pub(crate) fn need(&mut self, keys: Vec<Key>) -> Ask {
        let ask = Ask(self.desk.serial());
        self.put(Output::Need { ask, keys });
        ask
    }

    /// Orders the data plane. The changes of one order all speak of one context: a batch is all or nothing within one
    /// shard of the data plane, control does not know which shard a context is at home on, and nothing that it wants
    /// spans two of them.
    pub(crate) fn program(&mut self, orderer: Orderer, trace: &str, changes: Vec<MediaChange>) -> Ask {
        let ask = Ask(self.desk.serial());
        if orderer != Orderer::Nobody {
            self.desk.orderers.insert(ask, orderer);
        }
        let batch = Batch { generation: 0, epoch: 0, trace: trace.to_owned(), changes };
        self.put(Output::Program { ask, batch });
        ask
    }

    /// Answers the data plane's question.
    pub(crate) fn decide(&mut self, decide: Decide) {
        self.put(Output::Decide(decide));
    }

    /// Puts a row.
    pub(crate) fn put_row(&mut self, row: Row) {
        self.changes.push(Change::Put(Box::new(row)));
    }

    /// Removes a row.
    pub(crate) fn remove_row(&mut self, key: Key) {
        self.changes.push(Change::Remove(key));
    }

    /// Wakes a machine after `delay`. Without room the machine sleeps until something else wakes it: counted.
    pub(crate) fn wake_in(&mut self, delay: Duration, what: Wake) -> Option<TimerId> {
        self.wake_at(self.now.mono + delay, what)
    }

    /// Wakes a machine at an instant.
    pub(crate) fn wake_at(&mut self, at: Instant, what: Wake) -> Option<TimerId> {
        let set = self.desk.timers.set(at, what);
        if set.is_err() {
            self.desk.counters.timers_refused += 1;
        }
        set.ok()
    }

    /// Takes a timer back.
    pub(crate) fn unwake(&mut self, timer: &mut Option<TimerId>) {
        if let Some(id) = timer.take() {
            self.desk.timers.cancel(id);
        }
    }

    /// A timer that is due.
    pub(crate) fn due(&mut self) -> Option<Wake> {
        self.desk.timers.pop(self.now.mono)
    }

    /// The configuration.
    pub(crate) fn config(&self) -> &Config {
        &self.desk.config
    }

    /// A fresh context id of a bucket.
    pub(crate) fn context_id(&mut self, lane: LaneKey) -> u64 {
        lane.context(self.desk.entropy.u64())
    }

    /// A tag, branch or id of 128 random bits.
    pub(crate) fn token(&mut self) -> String {
        self.desk.entropy.token(128)
    }
}

fn digest_server(config: &Config) -> Server {
    let mut server = Server::new(config.realm(), config.nonce_secret);
    server.any_uri = true;
    server.nonce_lifetime = Duration::from_secs(config.identity.nonce_life_s.into());
    let identity = &config.identity;
    let offered = [
        (identity.sha512_256, Algorithm::Sha512),
        (identity.sha256, Algorithm::Sha256),
        (identity.md5, Algorithm::Md5),
    ];
    server.algorithms = offered.into_iter().filter(|(on, _)| *on).map(|(_, algorithm)| algorithm).collect();
    server
}
