//! Back-pressure both ways, and time (CPM-FACTS §3.8 step 13, §3.10).
//!
//! ```text
//!  relay:       target full ──► source paused ── target half empty ──► source read on
//!                    └── nothing moves for slow_ms ──► cut loose
//!  distribute:  all full ──► the same; one is full and another is not ──► what it has not read waits on disk (see `spill`)
//!                    └── it holds the others up and nothing moves for 5 s ──► congested, the others go on
//!  room:        recipient 80 % full ──► by one long message, or by more than most of the room can take: its source
//!                    │                  paused until they are half empty, for half a second at most
//!                    │ alone, or longer than that
//!                    ├──► congested: its copy aborted with '#', new ones not begun, control told
//!                    ├── below 20 % ──► it takes part again       └── for slow_ms ──► cut loose
//! ```

use std::time::Duration;

use base::Now;
use contract::{Pressure, leg_lost::Reason, news::What};
use msrp::Status;

use super::{CopyStage, Due, Message, Stage, Wait};
use crate::media::Tx;
use crate::{ConnId, Drop, Output};

/// After so long without an octet moved, a target among several holds the others up no longer.
pub(super) const STALL: Duration = Duration::from_secs(5);
/// In a room a long message waits so long for a receiver that is full.
const PACE: Duration = Duration::from_millis(500);

impl Message {
    /// After something was queued: whether the source must wait, and whether a receiver became too slow.
    pub(crate) fn mind_the_load(
        &mut self,
        now: Now,
        conn: ConnId,
        source: u32,
        room: bool,
        octets: u64,
        tx: &mut Tx<'_>,
    ) -> bool {
        let max = self.limits.queue_bytes_max;
        let from = self.gate_of(source);
        let Some(to) = self.conns.get_mut(&conn) else { return false };
        let load = to.load();
        if room {
            if to.congested.is_some() || load <= max / 5 * 4 {
                return false;
            }
            // A message that alone is larger than the queue would always outrun its receivers: it is paced. What
            // others say meanwhile may use what is left of the queue.
            let long = octets > max as u64 / 2;
            if to.full.is_some_and(|since| now.mono.since(since) >= PACE) {
                self.congest(now, conn, tx);
                return false;
            }
            if !long && !to.paced {
                // Whether it is slow, or all are, is seen when all have their copy.
                self.crowd.push(conn);
                return false;
            }
            if !long && load <= max {
                return false;
            }
            self.pace(now, conn, from);
            return true;
        }
        if load <= max || to.congested.is_some() {
            return false;
        }
        let full = *to.full.get_or_insert(now.mono);
        self.hold_up(conn, from, false);
        self.arm(conn, full + STALL);
        true
    }

    /// A source waits until a receiver is half empty, or too slow.
    fn pace(&mut self, now: Now, conn: ConnId, from: Option<ConnId>) {
        let Some(to) = self.conns.get_mut(&conn) else { return };
        to.paced = true;
        let full = *to.full.get_or_insert(now.mono);
        self.hold_up(conn, from, true);
        self.arm(conn, full + PACE);
    }

    /// A source waits for a receiver, and for all others for whom it waits too or for the first of them: who is behind the
    /// others is behind on disk (see `spill`).
    pub(super) fn hold_up(&mut self, conn: ConnId, from: Option<ConnId>, for_all: bool) {
        let Some(to) = self.conns.get_mut(&conn) else { return };
        let Some(from) = from.filter(|from| !to.blocks.contains(from)) else { return };
        to.blocks.push(from);
        if let Some(source) = self.conns.get_mut(&from) {
            source.waits += 1;
            source.waits_for_all = for_all;
        }
    }

    /// A receiver holds these up no longer; who need not wait for others goes on.
    pub(super) fn let_go(&mut self, sources: &[ConnId]) {
        for from in sources {
            if let Some(source) = self.conns.get_mut(from) {
                source.waits = source.waits.saturating_sub(1);
                if source.waits > 0 && source.waits_for_all {
                    continue;
                }
            }
            self.unblock(std::slice::from_ref(from));
        }
    }

    /// All receivers of a piece have it, and some are full of it. Where most others are not far behind, it is not they who
    /// are slow but the source, or we ourselves, who are quick: the source waits (CPM-FACTS §3.8 step 13). Else they are
    /// marked. True: the source must wait.
    pub(super) fn judge_crowd(
        &mut self,
        now: Now,
        source: u32,
        most_are_busy: bool,
        tx: &mut Tx<'_>,
    ) -> bool {
        let crowd = std::mem::take(&mut self.crowd);
        let from = self.gate_of(source);
        for conn in &crowd {
            match most_are_busy {
                true => self.pace(now, *conn, from),
                false => self.congest(now, *conn, tx),
            }
        }
        let waits = most_are_busy && !crowd.is_empty();
        self.crowd = crowd;
        self.crowd.clear();
        waits
    }

    /// A receiver is too slow: no new messages for it, what is open is aborted, control is told.
    fn congest(&mut self, now: Now, conn: ConnId, tx: &mut Tx<'_>) {
        let slow = Duration::from_millis(self.limits.slow_ms);
        let Some(row) = self.conns.get_mut(&conn) else { return };
        row.congested = Some(now.mono);
        row.paced = false;
        let (legs, sources) = (row.legs.clone(), std::mem::take(&mut row.blocks));
        self.arm(conn, now.mono + slow);
        self.tell_pressure(conn, true, tx);
        for leg in legs {
            self.fail_begun(now, leg, tx);
            for (source, passage) in self.copies_to(leg) {
                if self.is_live(source, passage, leg) {
                    tx.totals.drop(Drop::MsrpCongested);
                    self.copy_failed(now, source, passage, leg, Status::TIMEOUT, tx);
                }
            }
        }
        // Whoever waited for it, whatever it was that was too much, waits no longer.
        self.let_go(&sources);
    }

    fn is_live(&self, source: u32, passage: u64, leg: u32) -> bool {
        let p = self.row(source).and_then(|row| row.passages.of(passage));
        p.is_some_and(|p| p.copies.iter().any(|c| c.leg == leg && c.stage == CopyStage::Live))
    }

    fn tell_pressure(&mut self, conn: ConnId, on: bool, tx: &mut Tx<'_>) {
        let Some(row) = self.conns.get(&conn) else { return };
        let waiting_bytes = row.load() as u64;
        for leg in &row.legs {
            // Of whom what was said could not even be held, he has been told of until what is held has gone out.
            if let Some(leg) = self.row(*leg).filter(|l| !l.unseen && (on || !l.pressed)) {
                tx.news(What::Pressure(Pressure { leg: Some(leg.key), on, waiting_bytes, kept: false }));
            }
        }
    }

    /// Octets went to the kernel.
    pub(crate) fn sent(&mut self, now: Now, conn: ConnId, bytes: usize, tx: &mut Tx<'_>) {
        let max = self.limits.queue_bytes_max;
        let Some(row) = self.conns.get_mut(&conn) else { return };
        row.written(bytes);
        row.moved = now.mono;
        let load = row.load();
        if load <= max / 2 {
            row.full = None;
            row.paced = false;
            let sources = std::mem::take(&mut row.blocks);
            let relieved = row.congested.is_some() && load <= max / 5;
            if relieved {
                row.congested = None;
                self.tell_pressure(conn, false, tx);
            }
            self.let_go(&sources);
            let legs = self.conns.get_mut(&conn).map(|row| std::mem::take(&mut row.legs)).unwrap_or_default();
            // Sessions that share a connection have its room by turns.
            let turn = self.conns.get_mut(&conn).map_or(0, |row| {
                row.turn = row.turn.wrapping_add(1);
                usize::from(row.turn)
            });
            let (before, after) = legs.split_at(turn % legs.len().max(1));
            after.iter().chain(before).for_each(|leg| self.wants_drain(*leg));
            if let Some(row) = self.conns.get_mut(&conn) {
                row.legs = legs;
            }
        }
        while let Some(mark) = self.conns.get_mut(&conn).and_then(|row| row.pass_mark()) {
            self.copy_written(now, mark, tx);
        }
        self.spills_over(conn, tx);
        if self.conns.get(&conn).is_some_and(|row| row.queue.len() > 0 || row.closing.is_some()) {
            self.list(conn);
        }
        self.work(now, tx);
    }

    /// The copy to a room's recipient is out of our hands.
    fn copy_written(&mut self, now: Now, mark: super::Mark, tx: &mut Tx<'_>) {
        let Some(mut p) = self.take(mark.source, mark.passage) else { return };
        if let Some(copy) = p.copy_mut(mark.target).filter(|copy| copy.stage == CopyStage::Sent) {
            copy.stage = CopyStage::Written;
        }
        self.settle(now, mark.source, &mut p, tx);
        self.keep(mark.source, p);
    }

    /// A connection's input must wait.
    pub(crate) fn block(&mut self, conn: ConnId) {
        if let Some(row) = self.conns.get_mut(&conn) {
            row.blocked = true;
        }
    }

    pub(super) fn unblock(&mut self, conns: &[ConnId]) {
        for conn in conns {
            if self.unblock_guest(*conn) {
                continue;
            }
            if let Some(row) = self.conns.get_mut(conn)
                && row.blocked
                && row.spill_waits == 0
                && !row.spill_paced
                // It waits for another shard too (see `across`), which says when it may go on.
                && !row.legs.iter().any(|leg| self.rows.get(*leg as usize).is_some_and(super::Row::is_far_full))
            {
                row.blocked = false;
                self.unblocked.push_back(*conn);
            }
        }
    }

    /// Something of a context changed: heads that waited for their targets are looked at again.
    pub(crate) fn wake(&mut self, context: u64) {
        let members = self.members.get(&context).map(Vec::as_slice).unwrap_or_default();
        let conns: Vec<ConnId> = members.iter().filter_map(|leg| self.conn_id(*leg)).collect();
        let waiting: Vec<ConnId> =
            conns.into_iter().filter(|c| self.conns.get(c).is_some_and(|c| c.waiting.is_some())).collect();
        self.unblock(&waiting);
    }

    /// Reads on where reading had to wait.
    pub(crate) fn work(&mut self, now: Now, tx: &mut Tx<'_>) {
        self.relay_mourns(now, tx);
        self.see_guests_off();
        self.drain_all(now, tx);
        self.room_again();
        while tx.out.room() > 16
            && let Some(conn) = self.unblocked.pop_front()
        {
            // The framer may hold an event whose octets were used up, and the connection a head that waited.
            self.read_counted(now, conn, bytes::Bytes::new(), tx);
            while let Some(row) = self.conns.get_mut(&conn).filter(|row| !row.blocked) {
                if let Some(bytes) = row.held.pop_front() {
                    self.read_counted(now, conn, bytes, tx);
                    continue;
                }
                if std::mem::take(&mut row.paused) {
                    tx.push(Output::Resume { conn });
                }
                break;
            }
        }
        self.drain_all(now, tx);
        self.see_guests_off();
    }

    /// Writes what waits, as far as connections have credit and the outbox room. True: there is more.
    pub(crate) fn flush(&mut self, tx: &mut Tx<'_>) -> bool {
        if self.flush_letters(tx) {
            return true;
        }
        while let Some(order) = self.disk.orders.pop_front() {
            if tx.out.room() == 0 {
                self.disk.orders.push_front(order);
                return true;
            }
            tx.push(Output::Spill(order));
        }
        for _ in 0..self.ready.len() {
            let Some(conn) = self.ready.pop_front() else { break };
            let context =
                if self.conns.get(&conn).is_some_and(|c| c.captured) { self.context_of(conn) } else { 0 };
            let Some(row) = self.conns.get_mut(&conn) else { continue };
            while row.inflight < self.limits.inflight_bytes_max && row.queue.len() > 0 {
                if tx.out.room() < 2 {
                    self.ready.push_front(conn);
                    return true;
                }
                let fits = row.inflight + row.queue.len() <= self.limits.inflight_bytes_max;
                let waiting = row.queue.len();
                if let Some(pieces) = row.queue.take_all_if(fits && !row.captured) {
                    row.inflight += waiting;
                    tx.push(Output::WriteAll { conn, pieces });
                    break;
                }
                let Some(bytes) = row.queue.pop() else { break };
                row.inflight += bytes.len();
                if row.captured {
                    let packet = crate::Packet {
                        context,
                        leg: None,
                        at: self.wall,
                        from: row.local,
                        to: row.peer,
                        transport: crate::Transport::Tcp,
                        bytes: bytes.clone(),
                    };
                    tx.push(Output::Spool(Box::new(packet)));
                }
                tx.push(Output::Write { conn, bytes });
            }
            row.listed = false;
            if row.closing.is_some() && row.queue.len() == 0 {
                if tx.out.room() == 0 {
                    self.list(conn);
                    return true;
                }
                self.forget(conn, tx);
                tx.push(Output::Shut { conn, abort: false });
            }
        }
        false
    }

    pub(crate) fn timeout(&mut self, now: Now, tx: &mut Tx<'_>) {
        while tx.out.room() > 64
            && let Some(due) = self.timers.pop(now.mono)
        {
            match due {
                Due::Conn(conn) => self.conn_due(now, conn, tx),
                Due::Leg(leg, serial) => self.leg_due(now, leg, serial, tx),
                Due::Relay => self.relay_due(now, tx),
            }
        }
        self.work(now, tx);
    }

    fn conn_due(&mut self, now: Now, conn: ConnId, tx: &mut Tx<'_>) {
        let slow = Duration::from_millis(self.limits.slow_ms);
        let Some(row) = self.conns.get_mut(&conn) else { return };
        row.armed = None;
        if row.closing.is_some_and(|until| now.mono >= until) {
            return self.shut(now, conn, true, tx);
        }
        if row.arrival.is_some_and(|until| now.mono >= until) {
            // RFC 4976 §6.3: no request came in time.
            return self.shut(now, conn, true, tx);
        }
        let stuck = row.full.map(|since| since.max(row.moved));
        let slow_since = [row.congested.or(stuck), row.stalled()].into_iter().flatten().min();
        if slow_since.is_some_and(|since| now.mono.since(since) >= slow) {
            self.gone(now, conn, Reason::Slow, tx);
            tx.push(Output::Shut { conn, abort: true });
            return;
        }
        if stuck.is_some_and(|since| now.mono.since(since) >= STALL) && row.congested.is_none() {
            self.relieve(now, conn, tx);
        }
        let row = self.conns.get(&conn).filter(|row| row.paced && row.congested.is_none());
        if row.is_some_and(|row| row.full.is_some_and(|since| now.mono.since(since) >= PACE)) {
            self.congest(now, conn, tx);
        }
        self.expire_transactions(now, conn, tx);
        self.spills_over(conn, tx);
        let Some(row) = self.conns.get(&conn) else { return };
        let waits = [
            row.arrival,
            row.closing,
            row.transactions.front().map(|t| t.until),
            row.congested.map(|since| since + slow),
            row.stalled().map(|since| since + slow),
            row.full.filter(|_| row.paced).map(|since| since + PACE),
            row.full.map(|since| now.mono.max(since + STALL) + Duration::from_secs(1)),
        ];
        if let Some(next) = waits.into_iter().flatten().min() {
            self.arm(conn, next.max(now.mono + Duration::from_millis(1)));
        }
    }

    /// A target where nothing moves holds up others of the same message no longer.
    fn relieve(&mut self, now: Now, conn: ConnId, tx: &mut Tx<'_>) {
        let legs = self.conns.get(&conn).map(|row| row.legs.clone()).unwrap_or_default();
        // What waits on disk holds nobody up, as long as there is room.
        let is_live =
            |p: &super::Passage| p.copies.iter().any(|c| legs.contains(&c.leg) && c.stage == CopyStage::Live);
        let among_several = legs.iter().flat_map(|leg| self.copies_to(*leg)).any(|(source, passage)| {
            let p = self.row(source).and_then(|row| row.passages.of(passage));
            p.is_some_and(|p| p.copies.iter().filter(|c| !c.own).count() > 1 && (p.room || is_live(p)))
        });
        let among_several = among_several || legs.iter().any(|leg| self.holds_up(*leg));
        if among_several {
            self.congest(now, conn, tx);
        }
    }

    /// RFC 4975 §7.1.4: no response in 30 s is as good as 408.
    fn expire_transactions(&mut self, now: Now, conn: ConnId, tx: &mut Tx<'_>) {
        while let Some(row) = self.conns.get_mut(&conn)
            && row.transactions.front().is_some_and(|t| t.until <= now.mono)
        {
            let is_stuck = row.load() > 0;
            let Some(old) = row.transactions.pop_front() else { break };
            if let (super::relay::SEAT, Some((_, pass))) = (old.target, old.carries) {
                // Where only errors are answered, silence is none.
                let status = if old.wait == Wait::Answer { Status::TIMEOUT } else { Status::OK };
                self.pass_answered(now, pass, status, tx);
                continue;
            }
            if let Some(asks) = old.asks {
                self.nickname_answered(now, asks, Status::TIMEOUT, tx);
            }
            if let (Wait::Answer, Some((source, passage))) = (old.wait, old.carries) {
                self.unanswered(now, source, passage, old.target, tx);
            }
            // No error came, and perhaps only because the chunk itself has not gone out yet: silence says nothing then.
            if let (Wait::Error, Some((source, passage)), true) = (old.wait, old.carries, is_stuck) {
                let p = self.row_mut(source).and_then(|row| row.passages.of_mut(passage));
                if let Some(copy) = p.and_then(|p| p.copy_mut(old.target)) {
                    copy.unsure = true;
                }
            }
        }
    }

    /// No answer came to a chunk in time (RFC 4975 §7.1.1). Where others have the message its sender hears of no failure: if
    /// this copy is cut short by it, control does.
    fn unanswered(&mut self, now: Now, source: u32, passage: u64, target: u32, tx: &mut Tx<'_>) {
        let p = self.row_mut(source).and_then(|row| row.passages.of_mut(passage));
        let is_cut = p.filter(|p| p.copies.len() > 1).and_then(|p| p.copy_mut(target)).is_some_and(|copy| {
            matches!(copy.stage, CopyStage::Live | CopyStage::Held) && copy.begun && !copy.own
        });
        self.copy_failed(now, source, passage, target, Status::TIMEOUT, tx);
        self.expects_no_report(target, source, passage);
        if is_cut {
            self.not_held(target, Drop::MsrpUnanswered, tx);
            self.relieve_held(target, tx);
        }
    }

    /// Unfinished messages, awaited reports and questions of a leg whose time is over.
    fn leg_due(&mut self, now: Now, leg: u32, serial: u64, tx: &mut Tx<'_>) {
        let report_ms = self.limits.report_ms;
        let Some(row) = self.row_mut(leg).filter(|row| row.serial == serial) else { return };
        row.swept = None;
        let now_at = now.mono;
        if let Stage::Listening(until) = row.stage
            && until <= now_at
        {
            self.lose(leg, Reason::BindTimeout, tx);
        }
        let Some(row) = self.row_mut(leg) else { return };
        row.expects.retain(|e| e.until > now_at);
        // Its sender may hear of what is whole as long as somebody is still to have it.
        let forgotten = now_at + Duration::from_millis(report_ms);
        row.passages.keep_on(
            |p| p.done && p.copies.iter().any(|c| c.stage == CopyStage::Held),
            now_at,
            forgotten,
        );
        let asked = row.asked.take_if(|asked| asked.until <= now_at);
        let over: Vec<u64> = row.passages.iter().filter(|p| p.until <= now_at).map(|p| p.id).collect();
        if let (Some(asked), Some(conn)) = (asked, self.conn_id(leg)) {
            self.respond(now, conn, &asked.head, Status::FORBIDDEN, tx);
        }
        for passage in over {
            match self.take(leg, passage) {
                Some(mut p) if p.is_rest() => self.tap_ends(now, leg, &mut p, tx),
                // RFC 7701 §6: what nobody finishes is aborted, and its sender told where he wants it.
                Some(mut p) if !p.done => self.abort(now, leg, &mut p, tx),
                _ => {}
            }
        }
        self.held_due(now, leg, tx);
        self.spill_over(leg, tx);
        let held = self.held_until(leg);
        if self.row(leg).is_some_and(super::Row::is_guest) {
            self.partings.push(leg);
        }
        let Some(row) = self.row(leg) else { return };
        let next = [
            held,
            row.passages.iter().map(|p| p.until).min(),
            row.expects.front().map(|e| e.until),
            row.asked.as_ref().map(|a| a.until),
            if let Stage::Listening(until) = row.stage { Some(until) } else { None },
        ];
        if let Some(next) = next.into_iter().flatten().min() {
            self.sweep_at(leg, next.max(now_at + Duration::from_millis(1)));
        }
    }
}
