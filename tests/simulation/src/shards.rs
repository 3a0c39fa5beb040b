//! Rooms on several shards: mailboxes between the engines, in order from each to each, and control's rounds, in which one
//! shard after the other hears what is wanted now.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use contract::{Batch, LegKey, change::Verb};
use forward::{Elsewhere, Handed, Input, Standing};

use crate::mutate::Mutation;
use crate::world::{Event, SHARDS, World};

/// What one engine leaves for another.
enum Mail {
    Handed(Box<Handed>),
    Follow(Box<Standing>),
}

/// Whom a batch is about, for whom it is true when all have followed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    Joined(usize),
    Left(usize),
}

/// What is between the shards.
#[derive(Default)]
pub(crate) struct Shards {
    /// Contexts whose members may be on any of them.
    pub(crate) spread: BTreeSet<u64>,
    mail: BTreeMap<(u16, u16), VecDeque<Mail>>,
    /// By context: who has not followed yet, and for whom that is waited.
    rounds: BTreeMap<u64, (BTreeSet<u16>, Vec<Until>)>,
}

impl Shards {
    /// Whether something is on its way.
    pub(crate) fn is_busy(&self) -> bool {
        self.mail.values().any(|mail| !mail.is_empty())
    }
}

impl World {
    /// Where the leg of a new seat will be: beside those of its participant.
    pub(crate) fn place(&mut self, context: u64, user: u64) -> u16 {
        if !self.shards.spread.contains(&context) {
            return self.home(context);
        }
        let beside = self.seats.iter().find(|seat| seat.context == context && seat.user == user);
        let beside = beside.map(|seat| seat.shard);
        beside.unwrap_or_else(|| self.dice.below(u64::from(SHARDS)) as u16)
    }

    /// Whether control waits for the answer to a batch.
    pub(crate) fn is_asked(&self, context: u64) -> bool {
        self.shards.rounds.contains_key(&context)
    }

    /// Hands a batch to its home, as the steward does: with what is elsewhere, and not before the last one is answered.
    pub(crate) fn begin_round(&mut self, context: u64, verbs: &[Verb]) -> Vec<Elsewhere> {
        while self.is_asked(context) {
            self.any_mail();
        }
        let home = self.home(context);
        let legs =
            verbs.iter().filter_map(|verb| if let Verb::PutLeg(leg) = verb { Some(leg.id) } else { None });
        let seats = legs.filter_map(|leg| Some((leg, self.seats.iter().find(|s| s.leg == leg)?.shard)));
        let elsewhere = seats.filter(|(_, shard)| *shard != home);
        elsewhere.map(|(leg, shard)| Elsewhere { leg: LegKey { context, leg }, shard, local: None }).collect()
    }

    pub(crate) fn hand_batch(&mut self, context: u64, batch: &Batch, elsewhere: &[Elsewhere]) {
        let home = self.home(context);
        if !self.shards.spread.contains(&context) {
            return self.input(home, Input::Batch { batch, attachments: &[] });
        }
        self.input(home, Input::SpreadBatch { batch, attachments: &[], elsewhere });
        let others: BTreeSet<u16> = (0..SHARDS).filter(|shard| *shard != home).collect();
        for to in &others {
            let standing = self.engines[usize::from(home)].standing(context);
            self.post(home, *to, Mail::Follow(Box::new(standing)));
        }
        self.shards.rounds.insert(context, (others, Vec::new()));
    }

    /// From now on it is true of a seat, or from when all shards have heard of it.
    pub(crate) fn once_followed(&mut self, context: u64, until: Until) {
        match self.shards.rounds.get_mut(&context) {
            Some((_, all)) => all.push(until),
            None => self.is_true(until),
        }
    }

    fn is_true(&mut self, until: Until) {
        let step = self.step + 1;
        match until {
            Until::Joined(seat) => self.seats[seat].joined = step,
            Until::Left(seat) => self.seats[seat].left = Some(step),
        }
    }

    /// An engine hands something over.
    pub(crate) fn hand(&mut self, from: u16, to: u16, handed: Box<Handed>) {
        if !handed.must_arrive() {
            return self.fault("something is handed over that may be lost".into());
        }
        self.cover.reach("across", "handed over");
        let is = |word: &str| format!("{handed:?}").contains(word);
        let broken = match self.mutator.kind {
            Some(Mutation::HandedTwice) => is("Piece {"),
            Some(Mutation::LostHandedEnd) => is("End {"),
            Some(Mutation::LostTaken) => is("Taken("),
            Some(Mutation::HandedOutOfOrder) => is("Piece {") || is("Begin("),
            _ => false,
        };
        if !broken || !self.mutator.percent(20) {
            return self.post(from, to, Mail::Handed(handed));
        }
        match self.mutator.kind {
            Some(Mutation::HandedTwice) => {
                self.post(from, to, Mail::Handed(handed.clone()));
                self.post(from, to, Mail::Handed(handed));
            }
            Some(Mutation::HandedOutOfOrder) => {
                self.post(from, to, Mail::Handed(handed));
                let mail = self.shards.mail.entry((from, to)).or_default();
                if let Some(last) = mail.pop_back() {
                    mail.insert(mail.len().saturating_sub(1), last);
                }
            }
            _ => {}
        }
    }

    fn post(&mut self, from: u16, to: u16, mail: Mail) {
        let ms = match self.dice.below(10) {
            0..=6 => 0,
            7..=8 => self.dice.between(1, 5),
            _ => self.dice.between(5, 60),
        };
        self.shards.mail.entry((from, to)).or_default().push_back(mail);
        self.after(ms, Event::Mail(from, to));
    }

    /// Something out of a mailbox, whichever.
    fn any_mail(&mut self) {
        let full: Vec<(u16, u16)> =
            self.shards.mail.iter().filter(|(_, mail)| !mail.is_empty()).map(|(pair, _)| *pair).collect();
        if full.is_empty() {
            self.fault("a shard has not followed".into());
            return self.shards.rounds.clear();
        }
        let (from, to) = self.dice.pick(&full);
        self.mail(from, to);
    }

    /// The oldest in a mailbox.
    pub(crate) fn mail(&mut self, from: u16, to: u16) {
        match self.shards.mail.get_mut(&(from, to)).and_then(VecDeque::pop_front) {
            Some(Mail::Handed(handed)) => self.input(to, Input::Handed(&handed)),
            Some(Mail::Follow(standing)) => {
                self.input(to, Input::Follow { standing: &standing, attachments: &[] });
                self.followed(standing.context(), to);
            }
            None => {}
        }
    }

    fn followed(&mut self, context: u64, shard: u16) {
        let Some((waiting, _)) = self.shards.rounds.get_mut(&context) else { return };
        waiting.remove(&shard);
        if waiting.is_empty()
            && let Some((_, all)) = self.shards.rounds.remove(&context)
        {
            all.into_iter().for_each(|until| self.is_true(until));
        }
    }

    /// Whoever is paused may wait for a shard that has not taken what was handed over to it.
    pub(crate) fn waits_for_shards(&mut self, context: u64) -> bool {
        let waits = self.shards.spread.contains(&context) && self.shards.is_busy();
        if waits {
            self.cover.reach("across", "a source waits for a shard");
        }
        waits
    }
}
