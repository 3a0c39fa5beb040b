//! The one thread that owns the connection: takes the calls that wait, does them in one transaction, and tells the
//! callers after the commit.

use std::sync::mpsc::Receiver;

use base::UnixTime;
use rusqlite::Connection;
use service::{Change, Key, Row, Table};

use super::{Settings, rows};
use crate::{Cursor, Done, Part, Share, StoreError, Swept};

/// One call.
pub(super) enum Job {
    Fetch(Vec<Key>, Done<Vec<Row>>),
    Commit(Vec<Change>, Done<()>),
    Restore(Share, Cursor, Done<Part>),
    TakeEpoch(Done<u64>),
    Number(&'static str, Done<Option<u64>>),
    SetNumber(&'static str, u64, Done<()>),
    Sweep(UnixTime, Done<Swept>),
    Trim(Table, u64, Done<Swept>),
    List(Table, usize, Done<Vec<Row>>),
    Count(Done<Vec<u64>>),
}

impl Job {
    fn writes(&self) -> bool {
        matches!(
            self,
            Job::Commit(..) | Job::TakeEpoch(..) | Job::SetNumber(..) | Job::Sweep(..) | Job::Trim(..)
        )
    }

    pub(super) fn fail(self, error: &StoreError) {
        let error = error.clone();
        match self {
            Job::Fetch(_, done) | Job::List(_, _, done) => done(Err(error)),
            Job::Commit(_, done) | Job::SetNumber(_, _, done) => done(Err(error)),
            Job::Restore(_, _, done) => done(Err(error)),
            Job::TakeEpoch(done) => done(Err(error)),
            Job::Number(_, done) => done(Err(error)),
            Job::Sweep(_, done) | Job::Trim(_, _, done) => done(Err(error)),
            Job::Count(done) => done(Err(error)),
        }
    }
}

/// What a caller will be told: nothing before the commit has succeeded, the failure if it has not.
type Verdict = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

fn verdict<T: Send + 'static>(done: Done<T>, outcome: Result<T, StoreError>) -> Verdict {
    Box::new(move |committed| done(committed.and(outcome)))
}

pub(super) struct Engine {
    connection: Connection,
    modseq: u64,
    group_max: usize,
    body_max: usize,
    /// The conversation that the last sweep looked at last; empty at the end.
    swept_to: String,
}

impl Engine {
    pub(super) fn new(connection: Connection, settings: &Settings) -> Result<Self, StoreError> {
        connection.set_prepared_statement_cache_capacity(128);
        let modseq = rows::number(&connection, "modseq")?.unwrap_or(0);
        let (group_max, body_max) = (settings.group_max.max(1), settings.body_max);
        Ok(Engine { connection, modseq, group_max, body_max, swept_to: String::new() })
    }

    /// Until every caller's end of the queue is gone.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        let mut group = Vec::with_capacity(self.group_max);
        while let Ok(first) = jobs.recv() {
            group.push(first);
            while group.len() < self.group_max
                && let Ok(job) = jobs.try_recv()
            {
                group.push(job);
            }
            self.commit_group(&mut group);
        }
    }

    fn commit_group(&mut self, group: &mut Vec<Job>) {
        let begin = if group.iter().any(Job::writes) { "BEGIN IMMEDIATE" } else { "BEGIN" };
        if let Err(error) = self.say(begin) {
            let error = StoreError::from(error);
            group.drain(..).for_each(|job| job.fail(&error));
            return;
        }
        let modseq = self.modseq;
        let mut verdicts: Vec<Verdict> = Vec::with_capacity(group.len());
        let mut lost = None;
        for job in group.drain(..) {
            match &lost {
                Some(error) => job.fail(error),
                None => verdicts.push(self.perform(job, &mut lost)),
            }
        }
        let outcome = match lost {
            Some(error) => Err(error),
            None => self.finish(modseq),
        };
        if outcome.is_err() {
            self.modseq = modseq;
            // Fails only when the engine has rolled back by itself.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        for tell in verdicts {
            tell(outcome.clone());
        }
    }

    /// One statement that has no values, compiled once.
    fn say(&self, sql: &str) -> Result<(), rusqlite::Error> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }

    fn finish(&mut self, modseq_before: u64) -> Result<(), StoreError> {
        if self.modseq != modseq_before {
            rows::set_number(&self.connection, "modseq", self.modseq)?;
        }
        Ok(self.say("COMMIT")?)
    }

    /// Does one call inside the transaction. `lost` is set when the whole transaction can no longer succeed.
    fn perform(&mut self, job: Job, lost: &mut Option<StoreError>) -> Verdict {
        match job {
            Job::Commit(changes, done) => verdict(done, self.commit(&changes, lost)),
            Job::Fetch(keys, done) => verdict(done, self.fetch(&keys)),
            Job::Restore(share, from, done) => verdict(done, self.restore(share, from)),
            Job::TakeEpoch(done) => {
                let taken = self.take_epoch();
                verdict(done, watch(taken, lost))
            }
            Job::Number(name, done) => verdict(done, rows::number(&self.connection, name)),
            Job::SetNumber(name, value, done) => {
                let set = rows::set_number(&self.connection, name, value);
                verdict(done, watch(set, lost))
            }
            Job::Sweep(now, done) => {
                let swept = self.sweep(now);
                verdict(done, watch(swept, lost))
            }
            Job::Trim(table, rows_max, done) => {
                let trimmed = rows::trim(&self.connection, table, rows_max);
                verdict(done, watch(trimmed, lost))
            }
            Job::List(table, rows_max, done) => verdict(done, self.list(table, rows_max)),
            Job::Count(done) => {
                let counts = Table::ALL.iter().map(|t| rows::count(&self.connection, *t)).collect();
                verdict(done, counts)
            }
        }
    }

    fn commit(&mut self, changes: &[Change], lost: &mut Option<StoreError>) -> Result<(), StoreError> {
        if let Err(error) = self.say("SAVEPOINT one") {
            return watch(Err(error.into()), lost);
        }
        let outcome = changes.iter().try_for_each(|change| {
            self.modseq += 1;
            rows::change(&self.connection, change, self.modseq, self.body_max)
        });
        let closed = match &outcome {
            Ok(()) => self.say("RELEASE one"),
            // A conflict undoes this commit only; a fault of the engine undoes the whole transaction.
            Err(StoreError::Unavailable { .. }) => return watch(outcome, lost),
            Err(_) => self.connection.execute_batch("ROLLBACK TO one; RELEASE one"),
        };
        match closed {
            Ok(()) => outcome,
            Err(error) => watch(Err(error.into()), lost),
        }
    }

    fn fetch(&self, keys: &[Key]) -> Result<Vec<Row>, StoreError> {
        keys.iter().filter_map(|key| rows::fetch(&self.connection, key).transpose()).collect()
    }

    fn list(&self, table: Table, rows_max: usize) -> Result<Vec<Row>, StoreError> {
        let (mut listed, mut after) = (Vec::new(), String::new());
        while listed.len() < rows_max {
            let (some, last) = rows::part(&self.connection, table, Share { lane: 0, lanes: 1 }, &after)?;
            let Some(last) = last else { break };
            listed.extend(some);
            after = last;
        }
        listed.truncate(rows_max);
        Ok(listed)
    }

    /// At most one query that finds rows, so that a large share keeps nobody waiting.
    fn restore(&self, share: Share, from: Cursor) -> Result<Part, StoreError> {
        let Cursor { mut table, after } = from;
        let mut after = after.into_inner();
        while let Some(name) = Table::ALL.get(table) {
            if name.restored() {
                let (rows, last) = rows::part(&self.connection, *name, share, &after)?;
                if let Some(last) = last {
                    return Ok(Part { rows, next: Some(Cursor { table, after: last.into() }) });
                }
            }
            table += 1;
            after.clear();
        }
        Ok(Part { rows: Vec::new(), next: None })
    }

    fn sweep(&mut self, now: UnixTime) -> Result<Swept, StoreError> {
        let (mut forgotten, after) = rows::sweep_conversations(&self.connection, now, &self.swept_to)?;
        self.swept_to = after.unwrap_or_default();
        let mut more = !self.swept_to.is_empty();
        for table in Table::ALL {
            let of_table = rows::sweep(&self.connection, table, now)?;
            more |= of_table == rows::SWEEP_ROWS;
            forgotten += of_table;
        }
        Ok(Swept { forgotten, more })
    }

    fn take_epoch(&self) -> Result<u64, StoreError> {
        let epoch = rows::number(&self.connection, "epoch")?.unwrap_or(0) + 1;
        rows::set_number(&self.connection, "epoch", epoch)?;
        Ok(epoch)
    }
}

/// A write that failed for the engine's reasons takes the transaction with it.
fn watch<T>(outcome: Result<T, StoreError>, lost: &mut Option<StoreError>) -> Result<T, StoreError> {
    if let Err(error @ StoreError::Unavailable { .. }) = &outcome {
        *lost = Some(error.clone());
    }
    outcome
}
