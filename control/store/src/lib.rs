#![forbid(unsafe_code)]
//! What control remembers: one trait, SQLite behind it.
//!
//! A store keeps rows (`service::records`): a key, columns of their own, a body of bytes. It decides nothing. It
//! promises three things to whoever calls it:
//!
//! - **Durable.** A commit that was answered with `Ok` survives the end of the process and of the power.
//! - **Ordered.** Calls of one caller happen in the order in which he made them: a fetch sees what his earlier
//!   commits wrote, although they may share a transaction with it and with others' calls.
//! - **Whole.** The changes of one commit are all there or none is.
//!
//! Deliberately not here: media objects, the meaning of a body, and who may change which row.

mod error;
mod sqlite;
#[cfg(test)]
mod suite;

use base::UnixTime;
use service::{Change, Key, Row, Table};

pub use error::StoreError;
pub use sqlite::{Settings, Sqlite, Sync};

/// Takes the outcome of one call, once, on a thread of the store: it must not block.
pub type Done<T> = Box<dyn FnOnce(Result<T, StoreError>) + Send>;

/// Which rows [`Store::restore`] gives: those whose bucket, modulo `lanes`, is `lane`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Which lane.
    pub lane: usize,
    /// Of how many.
    pub lanes: usize,
}

/// What control remembers.
pub trait Store: Send + std::marker::Sync + std::fmt::Debug {
    /// The rows of those keys; keys without a row are left out. Rows that expired may still be there.
    fn fetch(&self, keys: Vec<Key>, done: Done<Vec<Row>>);

    /// Commits all changes or none (compare-and-set: `service::Change`).
    fn commit(&self, changes: Vec<Change>, done: Done<()>);

    /// Every row of the tables with `Table::restored` that belongs to that share, in parts: `part` is called with
    /// some rows at a time, then `done`.
    fn restore(&self, share: Share, part: Box<dyn FnMut(Vec<Row>) + Send>, done: Done<()>);

    /// Raises the owner's epoch by one and answers with it: once at each start. What an older owner does is refused
    /// by whoever has seen the newer epoch.
    fn take_epoch(&self, done: Done<u64>);

    /// A number remembered under a name; `None` if there was none.
    fn number(&self, name: &'static str, done: Done<Option<u64>>);

    /// Remembers a number under a name.
    fn set_number(&self, name: &'static str, value: u64, done: Done<()>);

    /// Forgets rows that expired more than a day before `now`; answers with how many. It does a bounded piece of work:
    /// call again when the answer is not 0.
    fn sweep(&self, now: UnixTime, done: Done<usize>);

    /// The first rows of a table, in the order of their keys: for people who look.
    fn list(&self, table: Table, rows_max: usize, done: Done<Vec<Row>>);

    /// How many rows each table holds, in the order of `Table::ALL`.
    fn count(&self, done: Done<Vec<u64>>);
}

/// Makes a call and waits for its outcome: for start-up and tests, never inside an asynchronous task.
pub fn wait<T: Send + 'static>(call: impl FnOnce(Done<T>)) -> Result<T, StoreError> {
    let (send, receive) = std::sync::mpsc::sync_channel(1);
    call(Box::new(move |outcome| {
        let _ = send.send(outcome);
    }));
    receive.recv().unwrap_or_else(|_| Err(StoreError::unavailable("the store has ended")))
}
