//! What the store held for one request.

use crate::records::{Group, ImdnState, Record, Row, Subscriber};
use crate::{Key, Table, UserId};

/// The rows that came for one `Need`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    keys: Vec<Key>,
    rows: Vec<Row>,
}

impl Facts {
    /// What came for these keys.
    pub(crate) fn new(keys: Vec<Key>, rows: Vec<Row>) -> Self {
        Facts { keys, rows }
    }

    /// The store was asked for that row.
    pub(crate) fn asked(&self, key: &Key) -> bool {
        self.keys.contains(key)
    }

    fn find(&self, table: Table, id: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.key.table == table && row.key.id.expose() == id)
    }

    pub(crate) fn subscriber(&self, user: &UserId) -> Option<&Subscriber> {
        match &self.find(Table::Subscriber, user.as_str())?.record {
            Record::Subscriber(subscriber) => Some(subscriber),
            _ => None,
        }
    }

    pub(crate) fn imdn(&self, key: &Key) -> Option<(ImdnState, u64)> {
        let row = self.find(Table::Imdn, key.id.expose())?;
        match &row.record {
            Record::Imdn(state) => Some((state.clone(), row.version)),
            _ => None,
        }
    }

    /// A pre-defined group of the store.
    #[expect(dead_code, reason = "the Controlling Function needs it")]
    pub(crate) fn group(&self, address: &str) -> Option<&Group> {
        match &self.find(Table::Group, address)?.record {
            Record::Group(group) => Some(group),
            _ => None,
        }
    }
}
