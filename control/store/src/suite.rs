//! What every engine must do, written against the trait. An engine's tests call [`suite`] with a function that opens
//! a store in a folder (the same folder again is the same store).

use std::path::Path;

use base::{Private, UnixTime};
use service::records::{Columns, Direction, Group, ImdnState, RosterRow};
use service::{Change, Key, LaneKey, Record, Row, Table};

use crate::{Cursor, Share, Store, StoreError, Swept, wait};

/// Opens the store of a folder.
pub(crate) type Open = fn(&Path) -> Box<dyn Store>;

/// Makes a `#[test]` of each function here for one engine.
macro_rules! suite {
    ($open:expr, $($name:ident)*) => {
        $(#[test]
        fn $name() {
            let folder = tempfile::tempdir().unwrap();
            crate::suite::$name($open, folder.path());
        })*
    };
}
pub(crate) use suite;

pub(crate) fn roster(id: &str, version: u64, body: &[u8]) -> Row {
    Row {
        key: Key::new(Table::Roster, id),
        lane: LaneKey(7),
        version,
        columns: Columns {
            owner: Private::new(format!("sip:{id}@weir.example")),
            conversation: "conv-1".to_owned(),
            contribution: "contr-1".to_owned(),
            direction: Direction::Received,
            expires: UnixTime::from_millis(0),
        },
        record: Record::Roster(RosterRow { focus: id.to_owned(), body: Private::new(body.to_vec()) }),
    }
}

pub(crate) fn put(row: Row) -> Change {
    Change::Put(Box::new(row))
}

pub(crate) fn commit(store: &dyn Store, changes: Vec<Change>) -> Result<(), StoreError> {
    wait(|done| store.commit(changes, done))
}

pub(crate) fn fetch(store: &dyn Store, table: Table, ids: &[&str]) -> Vec<Row> {
    let keys = ids.iter().map(|id| Key::new(table, *id)).collect();
    wait(|done| store.fetch(keys, done)).unwrap()
}

/// All of a share, and how many parts it came in.
fn restored(store: &dyn Store, share: Share) -> (Vec<Row>, usize) {
    let (mut rows, mut parts, mut from) = (Vec::new(), 0, Cursor::default());
    loop {
        let part = wait(|done| store.restore(share, from, done)).unwrap();
        assert!(part.rows.len() <= 1024);
        rows.extend(part.rows);
        parts += 1;
        match part.next {
            Some(next) => from = next,
            None => break,
        }
    }
    rows.sort_by(|a: &Row, b| a.key.cmp(&b.key));
    (rows, parts)
}

pub(crate) fn a_row_comes_back_as_it_was_put(open: Open, folder: &Path) {
    let store = open(folder);
    let row = roster("a", 1, b"\0binary\xff");
    commit(&*store, vec![put(row.clone())]).unwrap();
    assert_eq!(fetch(&*store, Table::Roster, &["a", "nobody"]), [row]);
    assert_eq!(fetch(&*store, Table::Dialog, &["a"]), []);
}

pub(crate) fn a_change_from_another_version_conflicts(open: Open, folder: &Path) {
    let store = open(folder);
    commit(&*store, vec![put(roster("a", 1, b"one"))]).unwrap();
    let conflict = Err(StoreError::Conflict { table: Table::Roster });
    for version in [1, 3] {
        assert_eq!(commit(&*store, vec![put(roster("a", version, b"bad"))]), conflict);
    }
    assert_eq!(commit(&*store, vec![put(roster("nobody", 2, b"bad"))]), conflict);
    assert_eq!(fetch(&*store, Table::Roster, &["a"]), [roster("a", 1, b"one")]);
    commit(&*store, vec![put(roster("a", 2, b"two"))]).unwrap();
    assert_eq!(fetch(&*store, Table::Roster, &["a"]), [roster("a", 2, b"two")]);
}

pub(crate) fn a_commit_is_whole_or_not_at_all(open: Open, folder: &Path) {
    let store = open(folder);
    let mixed = vec![put(roster("a", 1, b"")), put(roster("b", 9, b"")), put(roster("c", 1, b""))];
    assert!(commit(&*store, mixed).is_err());
    assert_eq!(fetch(&*store, Table::Roster, &["a", "b", "c"]), []);
}

pub(crate) fn removal_makes_room_for_version_one(open: Open, folder: &Path) {
    let store = open(folder);
    let gone = || Change::Remove(Key::new(Table::Roster, "a"));
    commit(&*store, vec![gone()]).unwrap();
    commit(&*store, vec![put(roster("a", 1, b"old")), put(roster("a", 2, b"old"))]).unwrap();
    commit(&*store, vec![gone(), put(roster("a", 1, b"new"))]).unwrap();
    assert_eq!(fetch(&*store, Table::Roster, &["a"]), [roster("a", 1, b"new")]);
}

/// Calls are made without waiting, so they may share a transaction; still each one sees the ones before.
pub(crate) fn a_fetch_sees_the_commits_called_before_it(open: Open, folder: &Path) {
    let store = open(folder);
    let (send, receive) = std::sync::mpsc::channel();
    for version in 1..=50_u64 {
        let body = version.to_be_bytes();
        store.commit(vec![put(roster("a", version, &body))], Box::new(|done| done.unwrap()));
        let send = send.clone();
        let keys = vec![Key::new(Table::Roster, "a")];
        store.fetch(keys, Box::new(move |rows| send.send((version, rows.unwrap())).unwrap()));
    }
    drop(send);
    let seen: Vec<_> = receive.into_iter().collect();
    assert_eq!(seen.len(), 50);
    for (version, rows) in seen {
        assert_eq!(rows, [roster("a", version, &version.to_be_bytes())]);
    }
}

/// One caller's conflict is his alone, whoever shares the transaction.
pub(crate) fn a_conflict_harms_no_neighbour(open: Open, folder: &Path) {
    let store = open(folder);
    let (send, receive) = std::sync::mpsc::channel();
    for i in 0..60_u64 {
        let version = if i % 3 == 0 { 5 } else { 1 };
        let send = send.clone();
        let done = move |outcome: Result<(), _>| send.send((i, outcome.is_ok())).unwrap();
        store.commit(vec![put(roster(&format!("r{i}"), version, b""))], Box::new(done));
    }
    drop(send);
    let outcomes: Vec<_> = receive.into_iter().collect();
    assert_eq!(outcomes.len(), 60);
    for (i, committed) in outcomes {
        assert_eq!(committed, i % 3 != 0, "{i}");
        assert_eq!(fetch(&*store, Table::Roster, &[&format!("r{i}")]).len(), usize::from(committed), "{i}");
    }
}

pub(crate) fn many_callers_at_once_lose_nothing(open: Open, folder: &Path) {
    let store = open(folder);
    std::thread::scope(|scope| {
        for caller in 0..8 {
            let store = &*store;
            scope.spawn(move || {
                for i in 0..25 {
                    commit(store, vec![put(roster(&format!("{caller}/{i}"), 1, b"x"))]).unwrap();
                }
            });
        }
    });
    let counts = wait(|done| store.count(done)).unwrap();
    let of = |table| counts[Table::ALL.iter().position(|t| *t == table).unwrap()];
    assert_eq!((of(Table::Roster), of(Table::Imdn)), (200, 0));
}

pub(crate) fn what_was_committed_is_there_after_reopening(open: Open, folder: &Path) {
    let store = open(folder);
    commit(&*store, vec![put(roster("a", 1, b"one"))]).unwrap();
    wait(|done| store.set_number("instance", u64::MAX, done)).unwrap();
    drop(store);
    let store = open(folder);
    assert_eq!(fetch(&*store, Table::Roster, &["a"]), [roster("a", 1, b"one")]);
    assert_eq!(wait(|done| store.number("instance", done)), Ok(Some(u64::MAX)));
    assert_eq!(wait(|done| store.number("nothing", done)), Ok(None));
}

pub(crate) fn what_was_called_before_the_end_is_committed(open: Open, folder: &Path) {
    let store = open(folder);
    for i in 0..20 {
        store.commit(vec![put(roster(&i.to_string(), 1, b""))], Box::new(|done| done.unwrap()));
    }
    drop(store);
    let ids: Vec<_> = (0..20).map(|i| i.to_string()).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    assert_eq!(fetch(&*open(folder), Table::Roster, &ids).len(), 20);
}

pub(crate) fn each_start_has_a_higher_epoch(open: Open, folder: &Path) {
    for epoch in 1..=3 {
        assert_eq!(wait(|done| open(folder).take_epoch(done)), Ok(epoch));
    }
}

/// More rows than one part holds, in buckets of every share; tables that are only fetched stay away.
pub(crate) fn a_share_restores_its_own_rows_whole(open: Open, folder: &Path) {
    let store = open(folder);
    let mut wanted = Vec::new();
    for i in 0..700_u16 {
        let mut row = roster(&format!("r{i}"), 1, b"");
        row.lane = LaneKey(i);
        wanted.push(row.clone());
        let mut imdn = row.clone();
        imdn.key.table = Table::Imdn;
        imdn.record = Record::Imdn(ImdnState::default());
        let mut group = row.clone();
        group.key.table = Table::Group;
        group.record = Record::Group(Group {
            address: Private::new("sip:g@weir.example".to_owned()),
            subject: String::new(),
            members: Vec::new(),
            invite_members: false,
        });
        commit(&*store, vec![put(row), put(imdn), put(group)]).unwrap();
    }
    let mut all = Vec::new();
    for lane in 0..3 {
        let (share, _) = restored(&*store, Share { lane, lanes: 3 });
        assert!(share.iter().all(|row| row.lane.lane(3) == lane));
        all.extend(share);
    }
    assert!(restored(&*store, Share { lane: 0, lanes: 1 }).1 > 2, "in parts");
    all.sort_by(|a, b| a.key.cmp(&b.key));
    wanted.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(all, wanted);
}

pub(crate) fn a_table_is_listed_up_to_a_limit(open: Open, folder: &Path) {
    let store = open(folder);
    let rows: Vec<_> = (0..600).map(|i| roster(&format!("r{i:04}"), 1, b"")).collect();
    commit(&*store, rows.iter().cloned().map(put).collect()).unwrap();
    for max in [0, 1, 256, 300, 600] {
        assert_eq!(wait(|done| store.list(Table::Roster, max, done)).unwrap(), rows[..max]);
    }
    assert_eq!(wait(|done| store.list(Table::Roster, 9000, done)).unwrap().len(), 600);
    assert_eq!(wait(|done| store.list(Table::Dialog, 9000, done)).unwrap(), []);
}

pub(crate) fn rows_are_forgotten_a_day_after_they_expired(open: Open, folder: &Path) {
    let store = open(folder);
    let expiring = |id: &str, at| {
        let mut row = roster(id, 1, b"");
        row.columns.expires = UnixTime::from_millis(at);
        put(row)
    };
    let day = 86_400_000;
    commit(&*store, vec![expiring("never", 0), expiring("past", 1000), expiring("later", 2000)]).unwrap();
    let sweep = |at| wait(|done| store.sweep(UnixTime::from_millis(at), done)).unwrap();
    assert_eq!(sweep(day), Swept { forgotten: 0, more: false });
    assert_eq!(sweep(day + 1500), Swept { forgotten: 1, more: false });
    let left = fetch(&*store, Table::Roster, &["never", "past", "later"]);
    let ids: Vec<_> = left.iter().map(|row| row.key.id.expose().as_str()).collect();
    assert_eq!(ids, ["never", "later"]);
}

/// Much is swept in pieces, and each piece says whether there is more.
pub(crate) fn a_long_sweep_comes_in_pieces(open: Open, folder: &Path) {
    let store = open(folder);
    let expired = |i: u64| {
        let mut row = roster(&format!("r{i}"), 1, b"");
        row.columns.expires = UnixTime::from_millis(1);
        row.columns.conversation = format!("c{i}");
        put(row)
    };
    commit(&*store, (0..3000).map(expired).collect()).unwrap();
    let (mut forgotten, mut pieces) = (0, 0);
    loop {
        let swept = wait(|done| store.sweep(UnixTime::from_millis(200_000_000), done)).unwrap();
        forgotten += swept.forgotten;
        pieces += 1;
        if !swept.more {
            break;
        }
    }
    assert_eq!(forgotten, 3000);
    assert!(pieces >= 3, "{pieces}");
}

pub(crate) fn of_too_many_rows_the_last_are_forgotten(open: Open, folder: &Path) {
    let store = open(folder);
    let rows = (0..3000).map(|i| put(roster(&format!("r{i:04}"), 1, b""))).collect();
    commit(&*store, rows).unwrap();
    let trim = |max| wait(|done| store.trim(Table::Roster, max, done)).unwrap();
    assert_eq!(trim(3000), Swept { forgotten: 0, more: false });
    let mut pieces = 1;
    while trim(10).more {
        pieces += 1;
    }
    assert!(pieces >= 3, "{pieces}");
    let left = wait(|done| store.list(Table::Roster, 9000, done)).unwrap();
    let ids: Vec<_> = left.iter().map(|row| row.key.id.expose().clone()).collect();
    assert_eq!(ids, (0..10).map(|i| format!("r{i:04}")).collect::<Vec<_>>());
}

pub(crate) fn a_body_over_the_limit_is_refused_alone(open: Open, folder: &Path) {
    let store = open(folder);
    let refused = commit(&*store, vec![put(roster("a", 1, b"")), put(roster("big", 1, &[0; 2 << 20]))]);
    assert!(
        matches!(refused, Err(StoreError::TooLarge { table: Table::Roster, octets }) if octets > 2 << 20),
        "{refused:?}"
    );
    commit(&*store, vec![put(roster("a", 1, b""))]).unwrap();
}
