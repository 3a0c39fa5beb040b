//! Rows to SQL and back: every statement of the store.

use base::{Private, UnixTime};
use rusqlite::{Connection, OptionalExtension, params};
use service::records::{Columns, Direction};
use service::{Change, Key, LaneKey, Record, Row, Table};

use crate::{Share, StoreError, Swept};

/// Rows of one part of a restore.
const PART_ROWS: usize = 256;
/// Rows that one sweep forgets of a table at most.
pub(super) const SWEEP_ROWS: usize = 1024;
/// How long a row stays after it expired, milliseconds: nobody holds a version of it in hand any more.
const SWEEP_AFTER_MS: u64 = 86_400_000;

/// How long the uids of a conversation without rows are remembered, milliseconds.
const CONVERSATION_IDLE_MS: u64 = 30 * 86_400_000;

const COLUMNS: &str = "id, bucket, version, owner, conversation, contribution, direction, expires, body";

/// Numbers beyond what SQLite's integers hold do not occur in honest rows; they are kept at the end of the range.
fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn uint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

pub(super) fn fetch(connection: &Connection, key: &Key) -> Result<Option<Row>, StoreError> {
    let table = key.table;
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM \"{}\" WHERE id = ?1", table.label()))?;
    let raw = statement.query_row([key.id.expose()], Raw::read).optional()?;
    Ok(raw.and_then(|raw| raw.row(table)))
}

/// The next rows of a table, after the one with that id, and the id to go on from; `None` at the end.
pub(super) fn part(
    connection: &Connection,
    table: Table,
    share: Share,
    after: &str,
) -> Result<(Vec<Row>, Option<String>), StoreError> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM \"{}\" WHERE id > ?1 AND bucket % ?2 = ?3 ORDER BY id LIMIT {PART_ROWS}",
        table.label()
    ))?;
    let lanes = int(share.lanes.max(1) as u64);
    let raws = statement.query_map(params![after, lanes, int(share.lane as u64)], Raw::read)?;
    let raws = raws.collect::<Result<Vec<_>, _>>()?;
    let last = raws.last().map(|raw| raw.id.clone());
    Ok((raws.into_iter().filter_map(|raw| raw.row(table)).collect(), last))
}

/// Carries out one change; `modseq` is the number that the change gets.
pub(super) fn change(
    connection: &Connection,
    change: &Change,
    modseq: u64,
    body_max: usize,
) -> Result<(), StoreError> {
    match change {
        Change::Put(row) => put(connection, row, modseq, body_max),
        Change::Remove(key) => {
            let sql = format!("DELETE FROM \"{}\" WHERE id = ?1", key.table.label());
            connection.prepare_cached(&sql)?.execute([key.id.expose()])?;
            Ok(())
        }
    }
}

fn put(connection: &Connection, row: &Row, modseq: u64, body_max: usize) -> Result<(), StoreError> {
    let table = row.key.table;
    let body = row.record.to_bytes().map_err(|_| StoreError::Unencodable { table })?;
    if body.len() > body_max {
        return Err(StoreError::TooLarge { table, octets: body.len() });
    }
    let columns = &row.columns;
    let direction = match columns.direction {
        Direction::None => 0,
        Direction::Sent => 1,
        Direction::Received => 2,
    };
    let uid = if row.version == 1 { take_uid(connection, &columns.conversation)? } else { 0 };
    let values = params![
        row.key.id.expose(),
        row.lane.0,
        int(row.version),
        columns.owner.expose(),
        columns.conversation,
        columns.contribution,
        direction,
        int(columns.expires.as_millis()),
        body,
        int(modseq),
        int(uid),
    ];
    let name = table.label();
    // One shape of parameters for both, so that they cannot drift apart.
    let sql = if row.version == 1 {
        format!(
            "INSERT INTO \"{name}\" ({COLUMNS}, modseq, uid)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT DO NOTHING"
        )
    } else {
        format!(
            "UPDATE \"{name}\" SET bucket = ?2, version = ?3, owner = ?4, conversation = ?5, contribution = ?6,
             direction = ?7, expires = ?8, body = ?9, modseq = ?10, uid = uid + ?11
             WHERE id = ?1 AND version = ?3 - 1"
        )
    };
    match connection.prepare_cached(&sql)?.execute(values)? {
        1 => Ok(()),
        _ => Err(StoreError::Conflict { table }),
    }
}

/// The next uid of a conversation; 0 outside any.
fn take_uid(connection: &Connection, conversation: &str) -> Result<u64, StoreError> {
    if conversation.is_empty() {
        return Ok(0);
    }
    let mut statement = connection.prepare_cached(
        "INSERT INTO conversation (id, uid, idle_since) VALUES (?1, 1, 0)
         ON CONFLICT (id) DO UPDATE SET uid = uid + 1, idle_since = 0 RETURNING uid",
    )?;
    Ok(uint(statement.query_row([conversation], |row| row.get(0))?))
}

pub(super) fn number(connection: &Connection, name: &str) -> Result<Option<u64>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT value FROM number WHERE name = ?1")?;
    Ok(statement.query_row([name], |row| row.get(0)).optional()?.map(uint_bits))
}

pub(super) fn set_number(connection: &Connection, name: &str, value: u64) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO number (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2",
    )?;
    statement.execute(params![name, value.cast_signed()])?;
    Ok(())
}

/// Numbers are kept bit for bit: an instance of the data plane uses all 64.
fn uint_bits(value: i64) -> u64 {
    value.cast_unsigned()
}

/// Forgets some rows whose time is over.
pub(super) fn sweep(connection: &Connection, table: Table, now: UnixTime) -> Result<usize, StoreError> {
    let name = table.label();
    let mut statement = connection.prepare_cached(&format!(
        "DELETE FROM \"{name}\" WHERE id IN
         (SELECT id FROM \"{name}\" WHERE expires <> 0 AND expires < ?1 LIMIT {SWEEP_ROWS})"
    ))?;
    Ok(statement.execute([int(now.as_millis().saturating_sub(SWEEP_AFTER_MS))])?)
}

/// Looks at some conversations, from the one after `after` on: notes which have no rows now, and forgets the uids of
/// those that have had none for long. Answers with how many were forgotten and where to go on; `None` at the end.
pub(super) fn sweep_conversations(
    connection: &Connection,
    now: UnixTime,
    after: &str,
) -> Result<(usize, Option<String>), StoreError> {
    let used: Vec<String> = Table::ALL
        .iter()
        .map(|table| format!("EXISTS (SELECT 1 FROM \"{}\" r WHERE r.conversation = c.id)", table.label()))
        .collect();
    let mut statement = connection.prepare_cached(&format!(
        "SELECT id, idle_since, {} FROM conversation c WHERE id > ?1 ORDER BY id LIMIT {SWEEP_ROWS}",
        used.join(" OR ")
    ))?;
    let some = statement.query_map([after], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let some = some.collect::<Result<Vec<(String, i64, bool)>, _>>()?;
    let long_ago = int(now.as_millis().saturating_sub(CONVERSATION_IDLE_MS));
    let mut note = connection.prepare_cached("UPDATE conversation SET idle_since = ?2 WHERE id = ?1")?;
    let mut forget = connection.prepare_cached("DELETE FROM conversation WHERE id = ?1")?;
    let mut forgotten = 0;
    for (id, idle_since, used) in &some {
        match (*used, *idle_since) {
            (true, _) => {}
            (false, 0) => {
                note.execute(params![id, int(now.as_millis().max(1))])?;
            }
            (false, since) if since <= long_ago => forgotten += forget.execute([id])?,
            (false, _) => {}
        }
    }
    let last = some.last().filter(|_| some.len() == SWEEP_ROWS).map(|(id, ..)| id.clone());
    Ok((forgotten, last))
}

/// Forgets some of the last rows of a table that has more than so many.
pub(super) fn trim(connection: &Connection, table: Table, rows_max: u64) -> Result<Swept, StoreError> {
    let name = table.label();
    let over = count(connection, table)?.saturating_sub(rows_max);
    let some = over.min(SWEEP_ROWS as u64);
    if some == 0 {
        return Ok(Swept::default());
    }
    let mut statement = connection.prepare_cached(&format!(
        "DELETE FROM \"{name}\" WHERE id IN (SELECT id FROM \"{name}\" ORDER BY id DESC LIMIT ?1)"
    ))?;
    let forgotten = statement.execute([int(some)])?;
    Ok(Swept { forgotten, more: over > some })
}

pub(super) fn count(connection: &Connection, table: Table) -> Result<u64, StoreError> {
    let sql = format!("SELECT count(*) FROM \"{}\"", table.label());
    Ok(uint(connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?))
}

/// A row as SQLite has it.
struct Raw {
    id: String,
    bucket: u16,
    version: i64,
    owner: String,
    conversation: String,
    contribution: String,
    direction: i64,
    expires: i64,
    body: Vec<u8>,
}

impl Raw {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Raw> {
        Ok(Raw {
            id: row.get(0)?,
            bucket: row.get(1)?,
            version: row.get(2)?,
            owner: row.get(3)?,
            conversation: row.get(4)?,
            contribution: row.get(5)?,
            direction: row.get(6)?,
            expires: row.get(7)?,
            body: row.get(8)?,
        })
    }

    /// `None` when the body does not decode.
    fn row(self, table: Table) -> Option<Row> {
        let Ok(record) = Record::from_bytes(&self.body) else {
            tracing::error!(
                table = table.label(),
                octets = self.body.len(),
                "a row does not decode: left out"
            );
            return None;
        };
        let direction = match self.direction {
            1 => Direction::Sent,
            2 => Direction::Received,
            _ => Direction::None,
        };
        Some(Row {
            key: Key::new(table, self.id),
            lane: LaneKey(self.bucket),
            version: uint(self.version),
            columns: Columns {
                owner: Private::new(self.owner),
                conversation: self.conversation,
                contribution: self.contribution,
                direction,
                expires: UnixTime::from_millis(uint(self.expires)),
            },
            record,
        })
    }
}
