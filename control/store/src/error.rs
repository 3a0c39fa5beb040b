//! Why a store said no.

use base::Fault;
use service::Table;

/// Why a store said no. Nothing of it holds subscriber data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A row's version is not the one that the change was made from: somebody else writes this lane's rows.
    #[error("a row of {} has another version than the change was made from", .table.label())]
    Conflict {
        /// The table of that row.
        table: Table,
    },
    /// A body is over the limit of octets.
    #[error("a row of {} is over the limit: {octets} octets", .table.label())]
    TooLarge {
        /// The table of that row.
        table: Table,
        /// Octets of its body.
        octets: usize,
    },
    /// A record cannot be written as bytes.
    #[error("a row of {} does not encode", .table.label())]
    Unencodable {
        /// The table of that row.
        table: Table,
    },
    /// The disk is full, the file cannot be written, the queue is full, the store has ended.
    #[error("the store is unavailable: {why}")]
    Unavailable {
        /// What the engine said.
        why: String,
    },
    /// The file was written by a newer build, or is no store of ours.
    #[error("the store has schema {found}, this build knows {known}")]
    Schema {
        /// Version of the file.
        found: i64,
        /// Version of this build.
        known: i64,
    },
}

impl StoreError {
    pub(crate) fn unavailable(why: impl std::fmt::Display) -> Self {
        StoreError::Unavailable { why: why.to_string() }
    }

    /// Whose fault it is.
    pub const fn fault(&self) -> Fault {
        match self {
            StoreError::Conflict { .. } => Fault::Misbehaved,
            StoreError::TooLarge { .. } => Fault::Refused,
            StoreError::Schema { .. } => Fault::Unsupported,
            StoreError::Unencodable { .. } | StoreError::Unavailable { .. } => Fault::Unavailable,
        }
    }
}

/// The engine's own words name tables and columns, never values.
impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error {
            rusqlite::Error::SqliteFailure(code, text) => {
                let text = text.unwrap_or_default();
                StoreError::unavailable(format!("{:?} ({}) {text}", code.code, code.extended_code))
            }
            other => StoreError::unavailable(format_args!("{other}")),
        }
    }
}
