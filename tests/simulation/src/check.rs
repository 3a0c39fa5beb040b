//! What must be true when a world has come to rest.
//!
//! - What the engine accepted comes exactly once and whole, octet by octet, to each receiver that was frozen at its first
//!   chunk and stayed, in its sender's order; a receiver that misses it is one of whom control was told, or whose peer
//!   refused, or its sender was told.
//! - Nobody else has an octet of it; what was given up or refused is nowhere whole, and where it was begun it is ended.
//! - Each request that may be answered is, once, with the code that it must have; a success REPORT speaks of what was
//!   delivered (DESIGN §2, invariant 9): in a room of what the kernel has for each receiver, elsewhere of what a far end
//!   reported.
//! - Nobody is held back by a tap, and what it answers and reports is nobody's; what was taken comes to it, or control was
//!   told.
//! - What control is told to be with the peer of who was behind is; disks are empty.
//! - Tables are empty, sums add up.

use contract::change::Verb;
use forward::Drop;
use msrp::FailureReport;

use crate::link::Link;
use crate::said::{Expected, Said, To};
use crate::world::{Incoming, Shape, Whim, World};
use crate::{Cover, Outcome};

impl World {
    /// The judgement.
    pub(crate) fn finish(mut self) -> Outcome {
        let contexts: Vec<u64> = self.shapes.keys().copied().collect();
        self.check_rest();
        for link in self.links.values_mut() {
            link.rested = !link.shut && !link.over;
        }
        let links: Vec<Option<u64>> = self.seats.iter().map(|seat| seat.link).collect();
        self.calm = true;
        for seat in &mut self.seats {
            seat.plans.clear();
            seat.open.clear();
        }
        for context in contexts {
            self.batch(context, vec![Verb::RemoveContext(context)]);
        }
        let up: Vec<u64> = self.links.iter().filter(|(_, link)| !link.over).map(|(conn, _)| *conn).collect();
        up.into_iter().for_each(|conn| self.reset(conn));
        self.run();
        self.check_tables();
        self.seats.iter_mut().zip(links).for_each(|(seat, link)| seat.link = link);
        self.check_messages();
        self.check_answers();
        let trace = self.trace.into_iter().collect();
        let cover = std::mem::take(&mut self.cover);
        Outcome { faults: self.faults, trace, cover }
    }

    /// Nothing is on its way any more, though everybody is still there.
    fn check_rest(&mut self) {
        let held: Vec<u64> =
            self.links.iter().filter(|(_, link)| link.paused && !link.over).map(|(conn, _)| *conn).collect();
        for conn in held {
            self.fault(format!("at rest, link {conn} is held back"));
        }
        for shard in 0..self.engines.len() {
            for (table, size) in self.engines[shard].msrp_tables() {
                if [
                    "messages",
                    "held messages",
                    "transactions",
                    "octets",
                    "questions",
                    "guests",
                    "letters",
                    "sources blocked",
                    "files on disk",
                ]
                .contains(&table)
                    && size > 0
                {
                    self.fault(format!("at rest, shard {shard} keeps {size} {table}"));
                }
            }
        }
    }

    fn check_tables(&mut self) {
        let sum = |of: fn(&forward::Totals) -> u64| self.engines.iter().map(|e| of(&e.totals())).sum::<u64>();
        let (out, taken) = (sum(|totals| totals.handed_out), sum(|totals| totals.handed_taken));
        if out != taken && self.mutator.kind.is_none() {
            self.fault(format!("{out} words were handed over, and {taken} taken"));
        }
        for shard in 0..self.engines.len() {
            for (table, size) in self.engines[shard].msrp_tables() {
                if size > 0 {
                    self.fault(format!("at the end, shard {shard} keeps {size} {table}"));
                }
            }
            let (files, writes, fetches) =
                (self.disks[shard].files(), self.disks[shard].writes, self.disks[shard].fetches);
            if files > 0 {
                self.fault(format!("at the end, {files} files are left on the disk of shard {shard}"));
            }
            self.cover.add("disk", "written", writes);
            self.cover.add("disk", "read", fetches);
            let engine = &self.engines[shard];
            let totals = engine.totals();
            let copies = [
                Drop::MsrpCongested,
                Drop::MsrpHeldFull,
                Drop::MsrpHeldLate,
                Drop::MsrpTap,
                Drop::MsrpSpill,
                Drop::MsrpUnanswered,
            ];
            let of_requests =
                Drop::ALL.iter().filter(|d| d.label().starts_with("msrp") && !copies.contains(d));
            let dropped: u64 = of_requests.map(|d| totals.dropped(*d)).sum();
            let due = engine.next_timeout().is_some();
            if totals.requests_in != totals.requests_taken + dropped {
                self.fault(format!("shard {shard}: sums do not add up: {totals:?}"));
            }
            if due || totals.connections + totals.legs + totals.contexts + totals.queued_bytes > 0 {
                self.fault(format!("shard {shard} is not empty: {totals:?}, due {due}"));
            }
            for drop in Drop::ALL {
                self.cover.add("drop", drop.label(), totals.dropped(*drop));
            }
        }
    }

    /// The message that a seat read.
    fn resolve(&self, one: &Incoming) -> Option<usize> {
        let fits = |at: &usize| {
            let said = &self.said[*at];
            one.done.is_none() || one.last == Some(said.shown.len() as u64)
        };
        let mut all = one.candidates.iter().copied().filter(fits);
        let first = all.clone().next();
        // Few octets may be several messages'; where it is relayed, its name tells.
        let named = all.clone().find(|at| self.said[*at].id == one.id && self.may_have(*at, one.seat));
        // Ended elsewhere than any of them: then it is the first that it may be, cut short.
        named
            .or_else(|| all.find(|at| self.may_have(*at, one.seat)))
            .or(first)
            .or(one.candidates.first().copied())
    }

    fn is_for(&self, said: &Said, seat: usize) -> bool {
        let who = &self.seats[seat];
        if who.context != said.context || seat == said.sender {
            return false;
        }
        match said.to {
            To::Nobody => false,
            _ if who.tap => said.expected == Expected::Taken,
            To::User(user) => who.user == user && who.takes_private,
            To::All if self.shapes.get(&said.context) == Some(&Shape::Room) => true,
            To::All => (seat == self.first_of(said.context)) != (said.sender == self.first_of(said.context)),
        }
    }

    /// Whose messages a relay takes to all others.
    pub(crate) fn first_of(&self, context: u64) -> usize {
        self.seats.iter().position(|seat| seat.context == context).unwrap_or(usize::MAX)
    }

    /// Whether an octet of it may come to that seat.
    fn may_have(&self, number: usize, seat: usize) -> bool {
        let said = &self.said[number];
        let (Some(from), who) = (said.freeze, &self.seats[seat]) else { return false };
        // A sender that goes on after its first chunks were refused begins anew where it is relayed.
        let refused = said.failure == FailureReport::No || said.codes.iter().any(|code| *code >= 300);
        let anew = !said.room && (refused || !self.answered_all(number));
        let to = said.frozen.filter(|_| !anew).unwrap_or(u64::MAX);
        let here = who.invited <= to && who.left.is_none_or(|left| left >= from);
        // Where it is relayed, only what is on a connection is a target.
        self.is_for(said, seat) && here && (said.room || who.tap || who.was_bound(from, to))
    }

    /// Whether that seat was there when its receivers were frozen, stayed, and nothing befell it.
    fn must_have(&self, said: usize, seat: usize) -> bool {
        let said = &self.said[said];
        let (Some(from), who) = (said.freeze, &self.seats[seat]) else { return false };
        let there =
            said.room || who.tap || who.bound.iter().any(|(up, down)| *up < from && *down == u64::MAX);
        self.is_for(said, seat)
            && who.joined < from
            && who.left.is_none()
            // Of who is unseen nobody is told what becomes of it.
            && !who.unseen
            && there
            && !who.troubled_since(from)
    }

    /// Whether its sender's session went on from its first octet to the end.
    fn sender_stayed(&self, said: &Said) -> bool {
        said.link.and_then(|link| self.links.get(&link)).is_some_and(|link| link.rested)
    }

    fn check_messages(&mut self) {
        let mut faults = Vec::new();
        let mut cover = Cover::default();
        let read: Vec<Option<usize>> = self.incoming.iter().map(|one| self.resolve(one)).collect();
        let mut of: Vec<Vec<usize>> = vec![Vec::new(); self.said.len()];
        for (at, said) in read.iter().enumerate() {
            if let Some(said) = said {
                of[*said].push(at);
            }
        }
        for (number, said) in self.said.iter().enumerate() {
            self.check_fate(said, &mut cover);
            for seat in 0..self.seats.len() {
                let mine = of[number].iter().map(|at| &self.incoming[*at]).filter(|one| one.seat == seat);
                self.check_copy(number, seat, &mine.collect::<Vec<_>>(), &mut faults, &mut cover);
            }
            let all = of[number].iter().map(|at| &self.incoming[*at]);
            let all: Vec<&Incoming> = all.filter(|one| !self.seats[one.seat].tap).collect();
            self.check_tap(number, &all, &of[number], &mut faults, &mut cover);
            self.check_reports(number, &all, &mut faults);
        }
        self.check_order(&of, &mut faults);
        self.cover.merge(&cover);
        faults.into_iter().for_each(|fault| self.fault(fault));
    }

    fn check_fate(&self, said: &Said, cover: &mut Cover) {
        let Said { whole, aborted, cut, .. } = said;
        let fate = if said.expected != Expected::Taken || said.codes.iter().any(|code| *code >= 300) {
            "refused"
        } else if whole.is_some() && !aborted.is_some_and(|at| whole.is_some_and(|whole| at < whole)) {
            "whole"
        } else if aborted.is_some() {
            "given up by its sender"
        } else if *cut && !self.sender_stayed(said) {
            "its sender was lost"
        } else {
            "never finished"
        };
        cover.reach("message", fate);
        if said.expected == Expected::Taken && said.failure == FailureReport::No && said.began.is_some() {
            cover.reach("answer", "none to a silent SEND");
        }
    }

    fn check_copy(
        &self,
        number: usize,
        seat: usize,
        mine: &[&Incoming],
        faults: &mut Vec<String>,
        cover: &mut Cover,
    ) {
        let said = &self.said[number];
        let sender = said.sender;
        let (freeze, frozen, end) = (said.freeze, said.frozen, said.whole);
        let mut fault = |text: &str| {
            let steps = format!("frozen {freeze:?} to {frozen:?}, whole {end:?}");
            faults.push(format!("message {number} of seat {sender} to seat {seat} ({steps}): {text}"));
        };
        if mine.iter().any(|one| one.got.last() > 0 || one.done.is_some()) && !self.may_have(number, seat) {
            fault("it has octets that are not for it");
        }
        let whole: Vec<&&Incoming> = mine.iter().filter(|one| one.done.is_some()).collect();
        if whole.len() > 1 {
            fault("it has it more than once");
        }
        if whole.iter().any(|one| one.last != Some(said.shown.len() as u64)) {
            fault("it was ended before its end");
        }
        let complete = said.whole.is_some() || said.cut;
        let too_late = said.aborted.is_some_and(|at| said.whole.is_none_or(|whole| at < whole));
        if !whole.is_empty() && (!complete || too_late) {
            fault("it has whole what was never said whole");
        }
        if mine.iter().any(|one| one.twice && !said.overlaps) {
            fault("it has octets twice");
        }
        if mine.iter().any(|one| one.after_end) {
            fault("something came after the end");
        }
        let must = self.must_have(number, seat);
        let link = self.seats[seat].link;
        // The rest of a message that is relayed (a file that is resumed) has an end, and no beginning.
        let is_rest = |one: &Incoming| !said.room && one.last.is_some() && one.got.contiguous() == 0;
        let is_open = |one: &Incoming| one.done.is_none() && !one.aborted && !is_rest(one);
        let open = mine.iter().any(|one| is_open(one) && Some(one.link) == link);
        if must && open {
            fault("it is neither whole nor given up");
        }
        let refused = mine.iter().any(|one| one.whim == Some(Whim::Refuses));
        // Where nobody is left who wants it, the others' copies are given up with it (CPM-FACTS §3.6).
        let given_up = !said.room && said.reports.iter().any(|(code, ..)| *code >= 300);
        // A sender that wants no answers does not hear that its own session was lost.
        let stayed = self.seats[sender].left.is_none_or(|left| end.is_some_and(|end| left > end));
        let heard = stayed
            && (said.failure != FailureReport::No
                || said.freeze.zip(end).is_some_and(|(from, to)| self.seats[sender].was_bound(from, to)));
        let is_tap = self.seats[seat].tap;
        if said.is_accepted() && heard && must && whole.is_empty() && !refused && !given_up && !is_tap {
            fault("it was accepted, and has not come");
        }
        // What was whole when control was told that he has all of it was with the kernel then.
        let late = |one: &&&Incoming| {
            let overs = &self.seats[seat].overs;
            let is_late = |(step, link, taken): &(u64, u64, u64)| {
                *link == one.link && end.is_some_and(|end| end < *step) && one.end_at > *taken
            };
            overs.iter().any(is_late)
        };
        if !said.room && !is_tap && whole.iter().any(late) {
            fault("it came after control was told that he has all of it");
        }
        if let Some(one) = whole.first() {
            cover.reach("copy", "delivered");
            let bound_later = said
                .frozen
                .is_some_and(|at| self.seats[seat].bound.iter().all(|(up, down)| *up > at || *down < at));
            if bound_later && one.done.is_some() {
                cover.reach("copy", "delivered after a wait");
            }
        } else if refused {
            cover.reach("copy", "refused by its receiver");
        } else if mine.iter().any(|one| one.aborted) {
            cover.reach("copy", "ended with #");
        } else if !mine.is_empty() {
            cover.reach("copy", "cut short by its receiver's end");
        }
        let pressed =
            said.freeze.is_some_and(|from| self.seats[seat].pressed.iter().any(|(_, to)| *to >= from));
        if said.is_accepted() && whole.is_empty() && self.may_have(number, seat) {
            let why = match () {
                () if refused => return,
                () if pressed => "given up: congested",
                () if self.seats[seat].left.is_some() => "given up: left",
                () if !must => "given up: lost",
                () => "given up: with the others",
            };
            cover.reach("copy", why);
        }
    }

    /// What a member has whole, or a room has taken, its tap has.
    fn check_tap(
        &self,
        number: usize,
        all: &[&Incoming],
        of: &[usize],
        faults: &mut Vec<String>,
        cover: &mut Cover,
    ) {
        let said = &self.said[number];
        let delivered = all.iter().any(|one| one.done.is_some());
        // Whether there was anybody for whom it was, who wants no answer is not told.
        let told = said.to == To::All || said.failure != FailureReport::No;
        let taken = said.is_accepted() && (delivered || (said.room && told && self.sender_stayed(said)));
        for seat in (0..self.seats.len()).filter(|seat| self.seats[*seat].tap) {
            let mut mine = of.iter().map(|at| &self.incoming[*at]).filter(|one| one.seat == seat);
            let fine = mine.any(|one| one.done.is_some() || one.whim == Some(Whim::Refuses));
            if fine {
                cover.reach("copy", "tapped");
            } else if taken && self.must_have(number, seat) {
                faults.push(format!("message {number} was taken, and has not come to its tap, seat {seat}"));
            }
        }
    }

    /// A message that began after another one of its sender was whole ends after it.
    fn check_order(&self, of: &[Vec<usize>], faults: &mut Vec<String>) {
        for (first, said) in self.said.iter().enumerate() {
            let Some(whole) = said.whole else { continue };
            for (second, later) in self.said.iter().enumerate() {
                let after = later.sender == said.sender && later.began.is_some_and(|began| began > whole);
                if !after || said.again {
                    continue;
                }
                for one in of[first].iter().map(|at| &self.incoming[*at]) {
                    let mut others = of[second].iter().map(|at| &self.incoming[*at]);
                    let other = others.find(|other| other.seat == one.seat && other.done.is_some());
                    if let (Some(a), Some(b)) = (one.done, other.and_then(|other| other.done))
                        && a > b
                    {
                        let seat = one.seat;
                        faults.push(format!("seat {seat} has message {second} before {first} of one sender"));
                    }
                }
            }
        }
    }

    /// All but taps, which nobody waits for.
    fn members(&self) -> impl Iterator<Item = usize> {
        (0..self.seats.len()).filter(|seat| !self.seats[*seat].tap)
    }

    fn check_reports(&self, number: usize, all: &[&Incoming], faults: &mut Vec<String>) {
        let said = &self.said[number];
        let sender = said.sender;
        let mut fault = |text: String| faults.push(format!("message {number} of seat {sender}: {text}"));
        let length = said.body.len() as u64;
        let good: Vec<_> = said.reports.iter().filter(|(code, ..)| *code < 300).collect();
        let bad: Vec<_> = said.reports.iter().filter(|(code, ..)| *code >= 300).collect();
        let done = |seat: usize| all.iter().find(|one| one.seat == seat && one.done.is_some());
        if !good.is_empty() && (!said.success || said.expected != Expected::Taken) {
            fault("a success REPORT that was not asked for".into());
        }
        if !bad.is_empty() && said.failure == FailureReport::No {
            fault("a failure REPORT that was not wanted".into());
        }
        if said.reports.len() > 1 && (said.room || bad.len() > 1) {
            fault(format!("{} REPORTs", said.reports.len()));
        }
        for (_, end, step) in good {
            if *end != Some(length) {
                continue;
            }
            if said.whole.is_none() && !said.cut {
                fault("a success REPORT for what was never whole".into());
            }
            if !said.room {
                if !all.iter().any(|one| one.reported) {
                    fault("a success REPORT that no far end wrote".into());
                }
                continue;
            }
            for seat in self.members().filter(|seat| self.may_have(number, *seat)) {
                let taken = done(seat).and_then(|one| self.links[&one.link].step_taken(one.end_at));
                let untroubled = self.must_have(number, seat);
                if untroubled && taken.is_none_or(|taken| taken > *step) {
                    fault(format!("its success was reported before seat {seat} had it"));
                }
                // Whoever was in trouble later had none when the report went out.
                let who = &self.seats[seat];
                let from = said.freeze.unwrap_or(0);
                let later = |at: u64| at < from || at > *step;
                let was_well = who.joined < from
                    && who.leaves.is_none_or(|leaves| leaves > *step)
                    && who.troubles.iter().all(|at| later(*at))
                    && who.pressed.iter().all(|(on, off)| *off < from || *on > *step);
                if was_well && taken.is_some_and(|taken| taken > *step) {
                    fault(format!("its success was reported before seat {seat} had it"));
                }
                let full = |one: &&&Incoming| one.seat == seat && one.done.is_none();
                if was_well
                    && taken.is_none()
                    && let Some(one) = all.iter().find(full)
                    && self.links[&one.link].step_taken(one.end_at + 1).is_none_or(|at| at > *step)
                {
                    fault(format!("its success was reported before the kernel had it for seat {seat}"));
                }
            }
        }
        if !said.is_accepted() || !self.sender_stayed(said) || said.freeze.is_none() {
            return;
        }
        let delivered = all.iter().any(|one| one.done.is_some());
        if said.room {
            // What was on its way to who was lost then may have come all the same: nobody knows.
            let surely = |one: &&Incoming| one.done.is_some() && self.must_have(number, one.seat);
            // Whom it was for may have left.
            let is_all = said.to == To::All;
            let none = is_all && self.members().all(|seat| !self.may_have(number, seat));
            let silent_end = !none && !all.iter().any(surely) && said.failure == FailureReport::No;
            if said.success && said.reports.is_empty() && !silent_end {
                fault("nothing was reported, though success was asked for".into());
            }
            return;
        }
        // What reaches nobody is not lost in silence.
        let hears = said.failure != FailureReport::No;
        // Where only errors are answered, nobody knows of what the kernel has whether it was read.
        let at_kernel = |link: &Link| {
            link.over
                && link.told == link.written
                && self.is_for(said, link.seat)
                && !self.seats[link.seat].tap
        };
        let unknown = said.failure == FailureReport::Partial && self.links.values().any(at_kernel);
        if hears && !delivered && bad.is_empty() && !said.told && !unknown {
            fault("it came to nobody, and its sender was not told".into());
        }
        let reported = all.iter().any(|one| one.reported && Some(one.link) == self.seats[one.seat].link);
        if said.success && reported && said.reports.is_empty() {
            fault("a far end reported success, and its sender was not told".into());
        }
    }

    fn check_answers(&mut self) {
        let mut faults = Vec::new();
        for asked in &self.asked {
            let seat = asked.seat;
            let number = asked.said.map_or_else(String::new, |said| format!(" of message {said}"));
            let mut fault = |text: String| faults.push(format!("a request of seat {seat}{number}: {text}"));
            if asked.codes.len() > 1 {
                fault(format!("was answered {} times", asked.codes.len()));
            }
            for code in &asked.codes {
                let may = if *code < 300 { asked.may_succeed } else { asked.may_fail };
                if !may {
                    fault(format!("was answered {code} against its Failure-Report"));
                }
                // Who was removed before its first request came has no session (RFC 4975 §10.11).
                let is_gone = *code == 481 && self.seats[seat].left.is_some();
                if !is_gone && asked.expected.as_ref().is_some_and(|expected| !expected.contains(code)) {
                    fault(format!("was answered {code}"));
                }
            }
            let stayed = self.links.get(&asked.link).is_some_and(|link| link.rested);
            if asked.fed && asked.must && asked.codes.is_empty() && stayed {
                fault("was never answered".into());
            }
        }
        for (number, said) in self.said.iter().enumerate() {
            let Some(code) = said.codes.iter().find(|code| **code >= 300).copied() else {
                if let Expected::Refused(code) = said.expected
                    && said.codes.iter().any(|code| *code < 300)
                {
                    // The chunks before the one that told are taken.
                    let whole = said.whole.is_some();
                    if whole && said.failure == FailureReport::Yes && self.answered_all(number) {
                        faults.push(format!("message {number} was taken instead of refused with {code}"));
                    }
                }
                continue;
            };
            let fine = match said.expected {
                Expected::Refused(expected) => {
                    // After the first refusal the rest of it is stray, or told to stop.
                    expected == code
                        || (said.to == To::Nobody && [481, 506].contains(&code))
                        || code == 400
                        || code == 404
                }
                Expected::Taken if said.aborted.is_some() => true,
                // Its own session was lost, and the connection was not.
                Expected::Taken if code == 481 && !self.seats[said.sender].troubles.is_empty() => true,
                Expected::Taken if code == 481 && self.seats[said.sender].left.is_some() => true,
                Expected::Taken if said.room => matches!(said.to, To::User(_)) && [404, 428].contains(&code),
                Expected::Taken => {
                    // A far end that refuses, is lost, or is not there.
                    [408, 413, 481].contains(&code)
                }
            };
            if !fine {
                faults.push(format!("message {number} of seat {} was refused with {code}", said.sender));
            }
        }
        faults.into_iter().for_each(|fault| self.fault(fault));
    }

    /// Whether the answer to each chunk of a message was read.
    fn answered_all(&self, number: usize) -> bool {
        let mut of = self.asked.iter().filter(|asked| asked.said == Some(number));
        of.all(|asked| !asked.codes.is_empty())
    }
}
