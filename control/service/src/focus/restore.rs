//! What a lane's focus gets back from the store at start.

use super::Focus;
use super::call::CallId;
use super::conference::Conference;
use super::file::Transfer;
use super::rows::Found;
use super::subscribe::SubscriptionId;
use crate::media::Anchor;
use crate::records::{Key, Record, Row, Table};
use crate::turn::Turn;

impl Focus {
    /// A row of ours (of the tables Dialog, Roster, Subscription) at start.
    pub(crate) fn restore(&mut self, turn: &mut Turn<'_>, row: Row) {
        let id = row.key.id.expose();
        let numbered = Conference::number_in_key(id).map(|(focus, number)| (focus.to_owned(), number));
        match (row.record, numbered) {
            (Record::Roster(body), _) => {
                let focus = body.focus.clone();
                self.found.entry(focus).or_default().roster = Some((row.version, body));
            }
            (Record::File(body), _) => self.found_files.push((row.version, body)),
            (Record::Dialog(body), Some((focus, number))) => {
                let found = self.found.entry(focus).or_default();
                found.dialogs.push((CallId(number), row.version, *body));
            }
            (Record::Subscription(body), Some((focus, number))) => {
                let found = self.found.entry(focus).or_default();
                found.subscriptions.push((SubscriptionId(number), row.version, *body));
            }
            _ => turn.desk.counters.rows_unread += 1,
        }
    }

    /// A context's row that belongs to no session.
    pub(crate) fn restore_anchor(&mut self, anchor: Anchor) {
        self.contexts.entry(anchor.owner().to_owned()).or_default().push(anchor);
    }

    /// All rows have come: the conferences are taken over. Rooms that nobody claims are removed.
    pub(crate) fn restored(&mut self, turn: &mut Turn<'_>) {
        let mut contexts = std::mem::take(&mut self.contexts);
        for (focus, mut found) in std::mem::take(&mut self.found) {
            let number = turn.desk.serial();
            // The newest one: an older one belonged to a life before a sleep.
            found.context = contexts.get_mut(&focus).and_then(Vec::pop);
            let sweeping = Found { roster: None, context: None, ..Found::default() };
            let (dialogs, subscriptions) = (found.dialogs.clone(), found.subscriptions.clone());
            match Conference::restore(turn.now, number, found) {
                Some(conference) => {
                    self.add(turn, conference);
                }
                None => Conference::sweep(turn, &Found { dialogs, subscriptions, ..sweeping }, &focus),
            }
        }
        for (version, row) in std::mem::take(&mut self.found_files) {
            let number = turn.desk.serial();
            let key = Key::new(Table::Roster, row.id.clone());
            let anchor = contexts.get_mut(&row.id).and_then(Vec::pop);
            match Transfer::restore(turn, number, (version, row), anchor) {
                Some(transfer) => {
                    self.files.insert(number, transfer);
                    self.settle(turn, Some(number));
                }
                None => turn.remove_row(key),
            }
        }
        for mut orphan in contexts.into_values().flatten() {
            orphan.remove(turn);
        }
    }
}
