//! Contexts on several shards, as a shard sees them (see `forward`'s `outposts`): as their home it judges batches and tells the
//! outposts what to follow; as an outpost it binds, follows, and sends what others hand over.

use base::Now;
use contract::Batch;
use contract::change::Verb;
use contract::leg::Kind;
use contract::refusal::Reason;
use forward::{Handed, Input, Output, Standing};

use super::Shard;
use crate::mail::{SpreadBatch, ToShard, ToSteward};

impl Shard {
    /// A batch of which the outposts have bound their part.
    pub(super) fn spread_batch(&mut self, spread: SpreadBatch, now: Now) {
        let SpreadBatch { round, batch, elsewhere, outposts } = spread;
        self.hands.round = Some(round);
        let applied = self.batch(&batch, &elsewhere, now);
        self.hands.round = None;
        if !applied {
            return;
        }
        for (shard, contexts) in outposts {
            let standings = contexts.into_iter().map(|context| self.engine.standing(context)).collect();
            if let Some(Some(peer)) = self.hands.peers.get_mut(usize::from(shard)) {
                peer.send(ToShard::Follow { round, standings });
            }
        }
    }

    /// Binds what legs of a batch need here; nothing else changes.
    pub(super) fn bind(&mut self, round: u64, batch: &Batch, sizes: &[(u64, usize)]) {
        let taken = |change: &contract::Change| match &change.verb {
            Some(Verb::PutLeg(leg)) => match &leg.kind {
                Some(Kind::Msrp(contract::MsrpLeg { local: Some(local), .. })) => {
                    self.engine.is_session_taken(&local.session, leg.key())
                }
                _ => false,
            },
            _ => false,
        };
        let bound = if !sizes.iter().all(|(context, legs)| self.engine.has_room(*context, *legs)) {
            Err((0, Reason::Limit, "contexts or legs of an outpost"))
        } else if let Some(change) = batch.changes.iter().position(taken) {
            Err((change, Reason::BadLeg, "a session that is another leg's"))
        } else {
            self.hands.attached.prepare(batch, &[], &mut *self.hands.driver)
        };
        let bound = bound.map(|attachments| {
            let told = attachments.iter().map(|attached| (attached.leg, attached.local.clone())).collect();
            self.bound = Some((round, attachments));
            told
        });
        self.hands.steward.send(ToSteward::Bound { round, shard: self.hands.index, bound });
    }

    /// The round came to nothing.
    pub(super) fn unbind(&mut self, round: u64) {
        if let Some((_, attachments)) = self.bound.take_if(|(of, _)| *of == round) {
            self.hands.attached.give_back(&attachments, &mut *self.hands.driver);
        }
    }

    /// The home has decided.
    pub(super) fn follow(&mut self, round: u64, standings: &[Standing], now: Now) {
        let bound = self.bound.take_if(|(of, _)| *of == round);
        let attachments = bound.map(|(_, attachments)| attachments).unwrap_or_default();
        let contexts: Vec<u64> = standings.iter().map(Standing::context).collect();
        self.take_back(Some(&contexts), now);
        for standing in standings {
            self.input(now, Input::Follow { standing, attachments: &attachments });
        }
        let has = |socket| self.engine.has_socket(socket);
        self.hands.attached.keep(&attachments, has, &mut *self.hands.driver);
        self.hands.steward.send(ToSteward::Followed { round, shard: self.hands.index });
    }

    /// A packet of another shard, or a word about one: the packet is sent from the buffer that all shards share.
    pub(super) fn handed(&mut self, handed: &Handed, now: Now) {
        self.engine.handle(now, Input::Handed(handed), &mut self.outbox);
        let datagram = handed.datagram();
        for output in self.outbox.drain() {
            match output {
                Output::Forward { socket } => self.hands.send(socket.0, datagram),
                Output::ForwardPatched { socket, head } => {
                    self.patched.clear();
                    self.patched.extend_from_slice(&head);
                    self.patched.extend_from_slice(datagram.get(head.len()..).unwrap_or_default());
                    self.hands.send(socket.0, &self.patched);
                }
                Output::SendHeld { socket, at, length } => {
                    self.hands.send(socket.0, self.engine.held(at, length));
                }
                Output::Hand { shard, handed } => {
                    if !self.hands.hand(shard, handed) {
                        self.engine.not_handed();
                    }
                }
                other => self.hands.perform(0, other),
            }
        }
    }
}
