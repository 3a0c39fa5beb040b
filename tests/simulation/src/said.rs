//! A message: what its sender means to say, in which chunks, and what became of it.

use std::collections::VecDeque;

use bytes::Bytes;
use msrp::{FailureReport, Flag, Ranges};

use crate::dice::Dice;

/// Whom it is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum To {
    /// Everybody in the room but the session that says it; where it is relayed: the far ends.
    All,
    /// One participant of the room.
    User(u64),
    /// Nobody may have an octet of it.
    Nobody,
}

/// How the engine must answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Expected {
    Taken,
    Refused(u16),
}

/// One chunk, as it will be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    /// From 1.
    pub(crate) start: u64,
    /// The last octet; `start - 1` when it carries nothing.
    pub(crate) end: u64,
    pub(crate) flag: Flag,
    /// Without a body: it only ends the message.
    pub(crate) bare: bool,
}

/// A message.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) context: u64,
    pub(crate) sender: usize,
    pub(crate) id: String,
    pub(crate) to: To,
    pub(crate) room: bool,
    pub(crate) content_type: &'static str,
    pub(crate) body: Bytes,
    /// As its receivers see it.
    pub(crate) shown: Bytes,
    /// Octets that tell who may have it.
    pub(crate) head: u64,
    pub(crate) success: bool,
    pub(crate) failure: FailureReport,
    pub(crate) knows_total: bool,
    pub(crate) pieces: VecDeque<Piece>,
    pub(crate) expected: Expected,
    pub(crate) overlaps: bool,
    /// Said once more after it was whole.
    pub(crate) again: bool,
    /// What was written, and whether its last chunk was.
    pub(crate) written: Ranges,
    pub(crate) last: Option<u64>,
    /// When its sender's connection began to carry it.
    pub(crate) began: Option<u64>,
    /// Between these steps its receivers were frozen.
    pub(crate) freeze: Option<u64>,
    pub(crate) frozen: Option<u64>,
    pub(crate) whole: Option<u64>,
    pub(crate) aborted: Option<u64>,
    /// The connection ended before the engine had all of it, or with what it had not looked at.
    pub(crate) cut: bool,
    pub(crate) link: Option<u64>,
    pub(crate) codes: Vec<u16>,
    /// Status, the octets that it speaks of, and by which step it was written.
    pub(crate) reports: Vec<(u16, Option<u64>, u64)>,
    /// Control was told of its failure.
    pub(crate) told: bool,
}

impl Said {
    /// The engine has it as a message that it will deliver or say why not.
    pub(crate) fn is_accepted(&self) -> bool {
        self.whole.is_some()
            && self.expected == Expected::Taken
            && self.codes.iter().all(|code| *code < 300)
            && self.aborted.is_none_or(|at| self.whole.is_some_and(|whole| whole < at))
    }
}

/// Whose it is and how its body is made.
pub(crate) struct Sketch {
    pub(crate) number: usize,
    pub(crate) user: u64,
    pub(crate) size: u64,
}

pub(crate) const ALL: &str = "sip:anonymous@anonymous.invalid";
pub(crate) const ROOM: &str = "sip:room@conference.example.com";

pub(crate) fn address(user: u64) -> String {
    format!("sip:user{user}@example.com")
}

pub(crate) fn number_of(user: u64) -> String {
    format!("tel:+1555010{user:04}")
}

/// Octets that no other message has: each 16 name their message and their place.
pub(crate) fn content(number: usize, size: u64) -> Vec<u8> {
    let mut octets = Vec::with_capacity(size as usize + 16);
    for at in 0..size.div_ceil(16) {
        octets.extend_from_slice(format!("[{number:05}:{at:07}]\n").as_bytes());
    }
    octets.truncate(size as usize);
    octets
}

/// A size: many are small, few are large.
pub(crate) fn size(dice: &mut Dice) -> u64 {
    match dice.below(100) {
        0..=3 => 0,
        4..=44 => dice.between(1, 300),
        45..=74 => dice.between(300, 3000),
        75..=92 => dice.between(3000, 24_000),
        _ => dice.between(24_000, 200_000),
    }
}

/// Cuts a message of that length into chunks. Its first `head` octets stay in their order.
pub(crate) fn cut(dice: &mut Dice, length: u64, head: u64) -> (VecDeque<Piece>, bool) {
    let most = match dice.below(5) {
        0 | 1 => length.max(1),
        2 => 2048,
        3 => dice.between(1, 4096),
        _ => dice.between(4096, 40_000),
    };
    let most = most.max(length / 28).max(1);
    let mut pieces = Vec::new();
    let mut start = 1;
    while start <= length {
        let end = (start + dice.between(most.div_ceil(2), most) - 1).min(length);
        pieces.push(Piece { start, end, flag: Flag::More, bare: false });
        start = end + 1;
    }
    if pieces.is_empty() {
        pieces.push(Piece { start: 1, end: 0, flag: Flag::More, bare: false });
    }
    let mut overlaps = false;
    if let Some(last) = pieces.last_mut() {
        last.flag = Flag::Last;
    }
    if pieces.len() > 1 && dice.percent(25) {
        let from = pieces.iter().position(|piece| piece.start > head).unwrap_or(pieces.len());
        dice.shuffle(&mut pieces[from..]);
    }
    if pieces.len() > 1 && dice.percent(15) {
        // Some octets come twice.
        let at = dice.between(1, pieces.len() as u64 - 1) as usize;
        let back = dice.between(1, 50).min((pieces[at].start - 1).saturating_sub(head));
        overlaps = back > 0;
        pieces[at].start -= back;
    } else if pieces.len() > 1 && dice.percent(10) {
        // Its end is said in a chunk of its own, which carries nothing.
        for piece in &mut pieces {
            piece.flag = Flag::More;
        }
        pieces.push(Piece { start: length + 1, end: length, flag: Flag::Last, bare: false });
    }
    (pieces.into(), overlaps)
}
