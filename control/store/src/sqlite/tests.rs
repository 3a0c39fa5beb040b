//! SQLite under the common suite, and what is only its own: crashes, full disks, files that cannot be written.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use rusqlite::{Connection, OpenFlags};
use service::{Key, Table};

use super::{Settings, Sqlite, schema};
use crate::suite::{commit, fetch, put, roster, suite};
use crate::{Cursor, Share, Store, StoreError, wait};

fn open(folder: &Path) -> Box<dyn Store> {
    Box::new(Sqlite::open(&folder.join("control.sqlite"), &Settings::default()).unwrap())
}

suite! {
    open,
    a_row_comes_back_as_it_was_put
    a_change_from_another_version_conflicts
    a_commit_is_whole_or_not_at_all
    removal_makes_room_for_version_one
    a_fetch_sees_the_commits_called_before_it
    a_conflict_harms_no_neighbour
    many_callers_at_once_lose_nothing
    what_was_committed_is_there_after_reopening
    what_was_called_before_the_end_is_committed
    each_start_has_a_higher_epoch
    a_share_restores_its_own_rows_whole
    a_table_is_listed_up_to_a_limit
    rows_are_forgotten_a_day_after_they_expired
    a_long_sweep_comes_in_pieces
    of_too_many_rows_the_last_are_forgotten
    a_body_over_the_limit_is_refused_alone
}

#[test]
fn in_memory_is_a_store_too() {
    let store = Sqlite::in_memory(&Settings::default()).unwrap();
    commit(&store, vec![put(roster("a", 1, b"one"))]).unwrap();
    assert_eq!(fetch(&store, Table::Roster, &["a"]).len(), 1);
}

/// uid and modseq are columns that callers do not see yet (histories will): they are read from the file.
#[test]
fn uids_count_within_a_conversation_and_modseq_over_everything() {
    let folder = tempfile::tempdir().unwrap();
    let in_conversation = |id: &str, version, conversation: &str| {
        let mut row = roster(id, version, b"");
        row.columns.conversation = conversation.to_owned();
        put(row)
    };
    let store = open(folder.path());
    commit(&*store, vec![in_conversation("a", 1, "x"), in_conversation("b", 1, "y")]).unwrap();
    commit(&*store, vec![in_conversation("c", 1, "x"), in_conversation("d", 1, "")]).unwrap();
    commit(&*store, vec![in_conversation("a", 2, "x")]).unwrap();
    drop(store);
    let store = open(folder.path());
    let gone = service::Change::Remove(Key::new(Table::Roster, "c"));
    commit(&*store, vec![gone, in_conversation("e", 1, "x")]).unwrap();
    drop(store);
    let file = Connection::open(folder.path().join("control.sqlite")).unwrap();
    let mut statement = file.prepare("SELECT id, uid, modseq FROM roster ORDER BY id").unwrap();
    let rows = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).unwrap();
    let rows: Vec<(String, i64, i64)> = rows.map(Result::unwrap).collect();
    let expect = [("a", 1, 5), ("b", 1, 2), ("d", 0, 4), ("e", 3, 7)];
    assert_eq!(rows, expect.map(|(id, uid, modseq)| (id.to_owned(), uid, modseq)));
}

#[test]
fn uids_of_a_conversation_are_forgotten_when_it_was_long_without_rows() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    commit(&*store, vec![put(roster("a", 1, b""))]).unwrap();
    let sweep = |days: u64| {
        wait(|done| store.sweep(base::UnixTime::from_millis(days * 86_400_000), done)).unwrap().forgotten
    };
    assert_eq!((sweep(100), sweep(200)), (0, 0));
    commit(&*store, vec![service::Change::Remove(Key::new(Table::Roster, "a"))]).unwrap();
    assert_eq!((sweep(300), sweep(329), sweep(331)), (0, 0, 1));
}

/// A database that may not grow beyond some pages is what a full disk looks like to SQLite.
#[test]
fn a_full_disk_is_unavailable_and_takes_back_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("control.sqlite");
    let settings = Settings { pages_max: 120, ..Settings::default() };
    let store = Sqlite::open(&file, &settings).unwrap();
    let id = |i: usize| format!("r{i}");
    let mut reported = 0;
    let error = loop {
        match commit(&store, vec![put(roster(&id(reported), 1, &[b'x'; 3000]))]) {
            Ok(()) => reported += 1,
            Err(error) => break error,
        }
        assert!(reported < 1000, "the disk never became full");
    };
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(reported > 5, "{reported}");
    // Reading goes on, and so does writing once there is room.
    assert_eq!(fetch(&store, Table::Roster, &[&id(0)]).len(), 1);
    let remove = |i| vec![service::Change::Remove(Key::new(Table::Roster, id(i)))];
    commit(&store, remove(0)).unwrap();
    commit(&store, remove(1)).unwrap();
    commit(&store, vec![put(roster("again", 1, &[b'x'; 3000]))]).unwrap();
    drop(store);
    let store = Sqlite::open(&file, &Settings::default()).unwrap();
    for i in 2..reported {
        assert_eq!(fetch(&store, Table::Roster, &[&id(i)]).len(), 1, "{i} was reported");
    }
    assert_eq!(fetch(&store, Table::Roster, &[&id(reported)]).len(), 0, "was refused");
}

#[test]
fn a_file_that_cannot_be_written_is_unavailable() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("control.sqlite");
    drop(open(folder.path()));
    let read_only = Connection::open_with_flags(&file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    // Either at opening or at the first write, and never with Ok.
    let outcome = Sqlite::start(read_only, &Settings::default())
        .and_then(|store| commit(&store, vec![put(roster("a", 1, b""))]));
    assert!(matches!(outcome, Err(StoreError::Unavailable { .. })), "{outcome:?}");
    assert!(matches!(
        Sqlite::open(&folder.path().join("no/such/folder/s"), &Settings::default()),
        Err(StoreError::Unavailable { .. })
    ));
}

#[test]
fn a_file_that_becomes_read_only_still_answers_fetches() {
    let mut connection = Connection::open_in_memory().unwrap();
    schema::prepare(&mut connection, &Settings::default()).unwrap();
    connection.pragma_update(None, "query_only", "ON").unwrap();
    let store = Sqlite::start(connection, &Settings::default()).unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    for i in 0..10 {
        let send = send.clone();
        store.commit(
            vec![put(roster(&i.to_string(), 1, b""))],
            Box::new(move |done| send.send(done).unwrap()),
        );
    }
    drop(send);
    let outcomes: Vec<_> = receive.into_iter().collect();
    assert_eq!(outcomes.len(), 10);
    assert!(outcomes.iter().all(|o| matches!(o, Err(StoreError::Unavailable { .. }))), "{outcomes:?}");
    assert_eq!(fetch(&store, Table::Roster, &["1"]), []);
}

/// A row of a build that wrote something else: it is left out, and its neighbours come.
#[test]
fn a_row_that_does_not_decode_keeps_nobody_down() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    commit(&*store, vec![put(roster("a", 1, b"")), put(roster("b", 1, b"")), put(roster("c", 1, b""))])
        .unwrap();
    drop(store);
    let file = Connection::open(folder.path().join("control.sqlite")).unwrap();
    file.execute("UPDATE roster SET body = x'ff' WHERE id <> 'a'", []).unwrap();
    drop(file);
    let store = open(folder.path());
    assert_eq!(fetch(&*store, Table::Roster, &["a", "b", "c"]), [roster("a", 1, b"")]);
    let share = Share { lane: 0, lanes: 1 };
    let part = wait(|done| store.restore(share, Cursor::default(), done)).unwrap();
    assert_eq!(part.rows, [roster("a", 1, b"")]);
    let last = wait(|done| store.restore(share, part.next.unwrap(), done)).unwrap();
    assert_eq!((last.rows.len(), last.next), (0, None));
}

const CRASH_FILE: &str = "WEIR_STORE_CRASH_FILE";
const CRASH_CALLERS: usize = 4;

/// The process that is killed: several callers commit as fast as they can and say what was answered.
#[test]
#[ignore = "the child of the crash test"]
fn crash_child() {
    let Ok(file) = std::env::var(CRASH_FILE) else { return };
    let store = Sqlite::open(Path::new(&file), &Settings::default()).unwrap();
    let round = wait(|done| store.take_epoch(done)).unwrap();
    std::thread::scope(|scope| {
        for caller in 0..CRASH_CALLERS {
            let store = &store;
            scope.spawn(move || {
                for i in 0.. {
                    let (a, b) = (format!("{round}/{caller}/{i}/a"), format!("{round}/{caller}/{i}/b"));
                    commit(store, vec![put(roster(&a, 1, b"x")), put(roster(&b, 1, b"y"))]).unwrap();
                    println!("\ncommitted {round}/{caller}/{i}");
                }
            });
        }
    });
}

/// Accepted messages with their bodies are in it, and in its log.
#[test]
fn the_file_and_its_log_are_for_their_own_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let _store = Sqlite::open(&folder.path().join("control.sqlite"), &Settings::default()).unwrap();
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap).collect();
    assert!(files.len() >= 2, "the log is there");
    for file in files {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.file_name());
    }
}

/// kill -9 in the middle of commits: whatever was reported is there, and each commit is whole.
#[test]
fn every_reported_commit_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("control.sqlite");
    let mut reported = Vec::new();
    for round in 1..=4_usize {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sqlite::tests::crash_child", "--ignored", "--nocapture", "--test-threads=1"])
            .env(CRASH_FILE, &file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut seen = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).split(b'\n') {
            let line = String::from_utf8(line.unwrap()).unwrap();
            let Some(id) = line.strip_prefix("committed ") else { continue };
            // A line cut by the kill names no commit.
            if id.split('/').count() == 3 && id.split('/').all(|n| n.parse::<u64>().is_ok()) {
                reported.push(id.to_owned());
            }
            seen += 1;
            if seen == 40 * round {
                child.kill().unwrap();
            }
        }
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
        assert!(seen >= 40 * round);

        let store = Sqlite::open(&file, &Settings::default()).unwrap();
        for id in &reported {
            let rows = fetch(&store, Table::Roster, &[&format!("{id}/a"), &format!("{id}/b")]);
            assert_eq!(rows.len(), 2, "{id} was reported in round {round} or before");
        }
        let counts = wait(|done| store.count(done)).unwrap();
        assert_eq!(counts.iter().sum::<u64>() % 2, 0, "a commit is torn");
    }
}
