//! The schema, its versions, and how a database is opened.
//!
//! One table for each `service::Table`, all with the same columns:
//!
//! | column | what |
//! | --- | --- |
//! | id | key of the row (primary key) |
//! | bucket | `LaneKey`: which lane's row it is |
//! | version | compare-and-set |
//! | owner | served user or focus |
//! | conversation, contribution | Conversation-ID, Contribution-ID |
//! | direction | 0 none, 1 sent, 2 received |
//! | uid | number of the row within its conversation, from 1, never given twice; 0 without a conversation |
//! | modseq | rises with every change, over all tables |
//! | expires | milliseconds since 1970, 0 = never |
//! | body | `service::Record` |
//!
//! `number` holds named numbers (epoch, modseq), `conversation` the last uid given in each conversation; it is forgotten
//! 30 days after a sweep found the conversation without rows.

use rusqlite::{Connection, Transaction};
use service::Table;

use super::{Settings, Sync};
use crate::StoreError;

/// "Weir" as SQLite's application id: a file that says otherwise is not ours.
const APPLICATION: i64 = 0x5765_6972;

/// One step for each version; step n makes version n + 1. A step that was released never changes.
const STEPS: [Step; 2] = [first, second];

type Step = fn(&Transaction<'_>) -> Result<(), StoreError>;

pub(super) fn prepare(connection: &mut Connection, settings: &Settings) -> Result<(), StoreError> {
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    // The file is ours alone: a second control on it is refused here, not by a row's version later.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let sync = match settings.sync {
        Sync::Full => "FULL",
        Sync::Process => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", sync)?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    // What a savepoint would need to go back is kept for the length of one commit: in memory, not in a file besides.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    if settings.pages_max > 0 {
        connection.pragma_update(None, "max_page_count", settings.pages_max)?;
    }
    migrate(connection)
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    let read = |c: &Connection, name| c.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (found, application) = (read(connection, "user_version")?, read(connection, "application_id")?);
    let empty: bool = connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))?;
    if found > known || (application != APPLICATION && !empty) {
        return Err(StoreError::Schema { found, known });
    }
    let done = usize::try_from(found).unwrap_or(0);
    if done == STEPS.len() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for step in STEPS.iter().skip(done) {
        step(&transaction)?;
    }
    transaction.pragma_update(None, "user_version", known)?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    Ok(transaction.commit()?)
}

fn make(transaction: &Transaction<'_>, table: Table) -> Result<(), StoreError> {
    let name = table.label();
    Ok(transaction.execute_batch(&format!(
        "CREATE TABLE \"{name}\" (
            id TEXT NOT NULL PRIMARY KEY,
            bucket INTEGER NOT NULL,
            version INTEGER NOT NULL,
            owner TEXT NOT NULL,
            conversation TEXT NOT NULL,
            contribution TEXT NOT NULL,
            direction INTEGER NOT NULL,
            uid INTEGER NOT NULL,
            modseq INTEGER NOT NULL,
            expires INTEGER NOT NULL,
            body BLOB NOT NULL
        ) STRICT;
        CREATE INDEX \"{name}_owner\" ON \"{name}\" (owner) WHERE owner <> '';
        CREATE INDEX \"{name}_conversation\" ON \"{name}\" (conversation, uid) WHERE conversation <> '';
        CREATE INDEX \"{name}_contribution\" ON \"{name}\" (contribution) WHERE contribution <> '';
        CREATE INDEX \"{name}_expires\" ON \"{name}\" (expires) WHERE expires <> 0;"
    ))?)
}

/// Legs that have ended.
fn second(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    make(transaction, Table::Ended)
}

fn first(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    for table in Table::ALL.into_iter().filter(|table| *table != Table::Ended) {
        make(transaction, table)?;
    }
    Ok(transaction.execute_batch(
        "CREATE TABLE number (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) STRICT;
         CREATE TABLE conversation (
            id TEXT NOT NULL PRIMARY KEY, uid INTEGER NOT NULL, idle_since INTEGER NOT NULL
         ) STRICT;",
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(connection: &Connection) -> i64 {
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_second_opening_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("s");
        for _ in 0..2 {
            let mut connection = Connection::open(&file).unwrap();
            prepare(&mut connection, &Settings::default()).unwrap();
            assert_eq!(version(&connection), 2);
        }
    }

    #[test]
    fn a_database_of_the_first_version_gets_what_came_after() {
        let mut connection = Connection::open_in_memory().unwrap();
        let transaction = connection.transaction().unwrap();
        first(&transaction).unwrap();
        transaction.pragma_update(None, "user_version", 1).unwrap();
        transaction.pragma_update(None, "application_id", APPLICATION).unwrap();
        transaction.commit().unwrap();
        let rows = |c: &Connection| c.query_row("SELECT count(*) FROM ended", [], |row| row.get::<_, i64>(0));
        assert!(rows(&connection).is_err());
        migrate(&mut connection).unwrap();
        assert_eq!((version(&connection), rows(&connection).unwrap()), (2, 0));
    }

    #[test]
    fn a_newer_schema_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("s");
        let mut connection = Connection::open(&file).unwrap();
        prepare(&mut connection, &Settings::default()).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        let mut connection = Connection::open(&file).unwrap();
        let refused = prepare(&mut connection, &Settings::default());
        assert_eq!(refused, Err(StoreError::Schema { found: 99, known: 2 }));
        assert_eq!(version(&connection), 99);
    }

    #[test]
    fn a_database_of_somebody_else_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE theirs (x)").unwrap();
        let refused = prepare(&mut connection, &Settings::default());
        assert!(matches!(refused, Err(StoreError::Schema { .. })), "{refused:?}");
    }

    #[test]
    fn one_file_has_one_owner() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("s");
        let first = super::super::Sqlite::open(&file, &Settings::default()).unwrap();
        let second = Connection::open(&file).unwrap();
        second.busy_timeout(std::time::Duration::ZERO).unwrap();
        let refused = second.query_row("SELECT count(*) FROM number", [], |row| row.get::<_, i64>(0));
        assert!(refused.is_err());
        drop(first);
        second.query_row("SELECT count(*) FROM number", [], |row| row.get::<_, i64>(0)).unwrap();
    }
}
