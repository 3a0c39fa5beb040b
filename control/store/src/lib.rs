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

use base::{Private, UnixTime};
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

/// Where a restore goes on; the default is its beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Index into `Table::ALL`.
    table: usize,
    /// The last key that was given.
    after: Private<String>,
}

/// A part of a restore.
#[derive(Debug, PartialEq)]
pub struct Part {
    /// Some rows.
    pub rows: Vec<Row>,
    /// Where the next part begins; `None` when this was the last one.
    pub next: Option<Cursor>,
}

/// What one sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Rows that were forgotten.
    pub forgotten: usize,
    /// There is more to look at: sweep again soon.
    pub more: bool,
}

/// What control remembers.
pub trait Store: Send + std::marker::Sync + std::fmt::Debug {
    /// The rows of those keys; keys without a row are left out. Rows that expired may still be there.
    fn fetch(&self, keys: Vec<Key>, done: Done<Vec<Row>>);

    /// Commits all changes or none (compare-and-set: `service::Change`).
    fn commit(&self, changes: Vec<Change>, done: Done<()>);

    /// Rows of the tables with `Table::restored` that belong to that share, a bounded part at a time. Rows that do not
    /// decode are left out and logged, here and in fetches: one bad row must not keep a lane down.
    fn restore(&self, share: Share, from: Cursor, done: Done<Part>);

    /// Raises the owner's epoch by one and answers with it: once at each start. What an older owner does is refused
    /// by whoever has seen the newer epoch.
    fn take_epoch(&self, done: Done<u64>);

    /// A number remembered under a name; `None` if there was none.
    fn number(&self, name: &'static str, done: Done<Option<u64>>);

    /// Remembers a number under a name.
    fn set_number(&self, name: &'static str, value: u64, done: Done<()>);

    /// Forgets rows that expired more than a day before `now`: a bounded piece of work.
    fn sweep(&self, now: UnixTime, done: Done<Swept>);

    /// Forgets the last rows of a table, in the order of their keys, that are more than `rows_max`: a bounded piece of work.
    /// For tables that no lane holds versions of.
    fn trim(&self, table: Table, rows_max: u64, done: Done<Swept>);

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
