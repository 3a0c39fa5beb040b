//! SQLite: one connection, one thread, write-ahead log, group commit.
//!
//! ```text
//!  callers ── queue ──▶ take what waits, at most `group_max` ──▶ one transaction ──▶ COMMIT ──▶ tell every caller
//!                       (a savepoint for each commit, so that one conflict undoes one commit)
//! ```
//!
//! Reads go through the same queue, which is what makes calls ordered; a group without writes costs no sync.

mod rows;
mod schema;
#[cfg(test)]
mod tests;
mod thread;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use base::UnixTime;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use service::{Change, Key, Row, Table};

use crate::{Cursor, Done, Part, Share, Store, StoreError, Swept};
use thread::Job;

/// How much a commit waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// For the disk: survives the loss of power.
    Full,
    /// For the kernel: survives the end of the process.
    Process,
}

/// The section `[store]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Path of the database; without one, `control.sqlite` in the folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// How much a commit waits for: "full" (the disk) or "process" (the kernel).
    pub sync: Sync,
    /// Calls that share one transaction at most.
    pub group_max: usize,
    /// Calls that may wait; further ones are refused as unavailable.
    pub queue_max: usize,
    /// Octets of one row's body at most.
    pub body_max: usize,
    /// Pages of 4096 octets that the database may have; 0 = as many as the disk holds.
    pub pages_max: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            file: None,
            sync: Sync::Full,
            group_max: 512,
            queue_max: 65_536,
            body_max: 1 << 20,
            pages_max: 0,
        }
    }
}

/// A store in one file, or in memory. Dropping it finishes what was called and closes the file.
#[derive(Debug)]
pub struct Sqlite {
    queue: Option<SyncSender<Job>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Sqlite {
    /// Opens or makes the database in `file`. The file belongs to this store alone while it is open.
    pub fn open(file: &Path, settings: &Settings) -> Result<Self, StoreError> {
        // Accepted messages are nobody else's to read; SQLite gives its log the mode of the file.
        let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(file);
        made.map_err(StoreError::unavailable)?;
        Self::start(Connection::open(file)?, settings)
    }

    /// A store that is gone with the process.
    pub fn in_memory(settings: &Settings) -> Result<Self, StoreError> {
        Self::start(Connection::open_in_memory()?, settings)
    }

    fn start(mut connection: Connection, settings: &Settings) -> Result<Self, StoreError> {
        schema::prepare(&mut connection, settings)?;
        let (queue, jobs) = sync_channel(settings.queue_max.max(1));
        let engine = thread::Engine::new(connection, settings)?;
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || engine.run(&jobs))
            .map_err(StoreError::unavailable)?;
        Ok(Sqlite { queue: Some(queue), thread: Some(thread) })
    }

    fn call(&self, job: Job) {
        let refused = match &self.queue {
            Some(queue) => match queue.try_send(job) {
                Ok(()) => return,
                Err(TrySendError::Full(job)) => (job, "its queue is full"),
                Err(TrySendError::Disconnected(job)) => (job, "it has ended"),
            },
            None => (job, "it has ended"),
        };
        refused.0.fail(&StoreError::unavailable(refused.1));
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Store for Sqlite {
    fn fetch(&self, keys: Vec<Key>, done: Done<Vec<Row>>) {
        self.call(Job::Fetch(keys, done));
    }

    fn commit(&self, changes: Vec<Change>, done: Done<()>) {
        self.call(Job::Commit(changes, done));
    }

    fn restore(&self, share: Share, from: Cursor, done: Done<Part>) {
        self.call(Job::Restore(share, from, done));
    }

    fn take_epoch(&self, done: Done<u64>) {
        self.call(Job::TakeEpoch(done));
    }

    fn number(&self, name: &'static str, done: Done<Option<u64>>) {
        self.call(Job::Number(name, done));
    }

    fn set_number(&self, name: &'static str, value: u64, done: Done<()>) {
        self.call(Job::SetNumber(name, value, done));
    }

    fn sweep(&self, now: UnixTime, done: Done<Swept>) {
        self.call(Job::Sweep(now, done));
    }

    fn trim(&self, table: Table, rows_max: u64, done: Done<Swept>) {
        self.call(Job::Trim(table, rows_max, done));
    }

    fn list(&self, table: Table, rows_max: usize, done: Done<Vec<Row>>) {
        self.call(Job::List(table, rows_max, done));
    }

    fn count(&self, done: Done<Vec<u64>>) {
        self.call(Job::Count(done));
    }
}
