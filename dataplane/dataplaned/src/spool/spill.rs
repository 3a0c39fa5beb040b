//! What waits on disk for receivers that are slower than others of the same messages: one file for each of them, without a
//! name, so that no other session and no later run can have it. The engines say what is where.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use forward::{SpillId, SpillOrder, SpillWord};

use super::{Files, SpoolFile, folder};

/// What a file is called as long as it has a name.
const ENDING: &str = "spill";

/// The files of all shards.
pub(super) struct Spills {
    folder: PathBuf,
    files: BTreeMap<(u16, SpillId), SpoolFile>,
    /// Those of which something could not be written or read.
    broken: BTreeSet<(u16, SpillId)>,
    buffer: Vec<u8>,
}

impl Spills {
    /// In a folder, which is made when the first one is written. What a former run has left there goes.
    pub(super) fn new(folder: PathBuf) -> Self {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        for left in entries.filter(|entry| entry.path().extension().is_some_and(|e| e == ENDING)) {
            if let Err(error) = std::fs::remove_file(left.path()) {
                tracing::warn!(%error, file = %left.path().display(), "a file of a former run cannot be removed");
            }
        }
        Spills { folder, files: BTreeMap::new(), broken: BTreeSet::new(), buffer: Vec::new() }
    }

    /// Does what an engine wants done, and what it is to hear.
    pub(super) fn perform(&mut self, files: &Files, shard: u16, order: SpillOrder) -> Option<SpillWord> {
        match order {
            SpillOrder::Write { file, mark, at, bytes } => {
                let length = bytes.len();
                let done = self.write(files, (shard, file), at, &bytes);
                Some(match done {
                    Ok(()) => SpillWord::Written { file, mark, bytes: length },
                    Err(error) => self.failed((shard, file), length, &error),
                })
            }
            SpillOrder::Fetch { file, mark, at, length } => {
                let done = match self.files.get(&(shard, file)) {
                    Some(open) => files.read(open, at, length),
                    None => Err(io::Error::from(io::ErrorKind::NotFound)),
                };
                Some(match done {
                    Ok(bytes) => SpillWord::Fetched { file, mark, bytes: Bytes::from(bytes) },
                    Err(error) => self.failed((shard, file), 0, &error),
                })
            }
            SpillOrder::End { file } => {
                self.broken.remove(&(shard, file));
                let open = self.files.remove(&(shard, file))?;
                if let Err(error) = files.close(open) {
                    tracing::warn!(%error, "a file of what waited for a receiver did not close");
                }
                None
            }
        }
    }

    fn write(&mut self, files: &Files, which: (u16, SpillId), at: u64, bytes: &[u8]) -> io::Result<()> {
        if self.broken.contains(&which) {
            return Err(io::Error::other("it could not be written before"));
        }
        if !self.files.contains_key(&which) {
            folder(&self.folder)?;
            let name = format!("{}-{}.{ENDING}", which.0, which.1.0);
            self.files.insert(which, files.nameless(&self.folder.join(name))?);
        }
        let Some(file) = self.files.get_mut(&which) else { return Ok(()) };
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.extend_from_slice(bytes);
        let (done, buffer) = files.write(file, at, buffer);
        self.buffer = buffer;
        done
    }

    /// Said once for each file.
    fn failed(&mut self, which: (u16, SpillId), bytes: usize, error: &io::Error) -> SpillWord {
        if self.broken.insert(which) {
            tracing::warn!(%error, "what waits for a slow receiver cannot be kept on disk: it loses the message");
        }
        SpillWord::Failed { file: which.1, bytes }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn write(file: u64, mark: u64, at: u64, text: &'static str) -> SpillOrder {
        SpillOrder::Write { file: SpillId(file), mark, at, bytes: Bytes::from_static(text.as_bytes()) }
    }

    fn fetch(file: u64, at: u64, length: usize) -> SpillOrder {
        SpillOrder::Fetch { file: SpillId(file), mark: 7, at, length }
    }

    #[test]
    fn what_is_written_comes_back_and_the_folder_shows_nothing_of_it() {
        let outer = tempfile::tempdir().unwrap();
        let place = outer.path().join("spill");
        std::fs::create_dir(&place).unwrap();
        std::fs::write(place.join("0-9.spill"), "of a former run").unwrap();
        std::fs::write(place.join("notes"), "somebody else's").unwrap();
        std::fs::remove_dir_all(outer.path().join("none")).unwrap_err();
        let seen = || std::fs::read_dir(&place).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
        for files in [Some(Files::std()), Files::uring().ok()].into_iter().flatten() {
            let mut spills = Spills::new(place.clone());
            assert_eq!(seen(), ["notes"]);
            for (shard, file, text) in [(0, 1, "abcdef"), (1, 1, "ghijkl"), (0, 2, "mnopqr")] {
                let word = spills.perform(&files, shard, write(file, 7, 100, text));
                assert!(matches!(word, Some(SpillWord::Written { mark: 7, bytes: 6, .. })));
            }
            assert_eq!(seen(), ["notes"]);
            let read =
                |spills: &mut Spills, shard, file| match spills.perform(&files, shard, fetch(file, 102, 3)) {
                    Some(SpillWord::Fetched { bytes, mark: 7, .. }) => bytes,
                    other => panic!("{other:?}"),
                };
            assert_eq!(read(&mut spills, 0, 1), "cde");
            assert_eq!(read(&mut spills, 1, 1), "ijk");
            assert_eq!(read(&mut spills, 0, 2), "opq");
            assert!(spills.perform(&files, 0, SpillOrder::End { file: SpillId(1) }).is_none());
            let word = spills.perform(&files, 0, fetch(1, 102, 3));
            assert!(matches!(word, Some(SpillWord::Failed { bytes: 0, .. })), "{word:?}");
        }
    }

    #[test]
    fn its_own_folder_is_for_nobody_elses_eyes_and_what_cannot_be_written_is_said() {
        let outer = tempfile::tempdir().unwrap();
        let (files, place) = (Files::std(), outer.path().join("deep").join("spill"));
        let mut spills = Spills::new(place.clone());
        assert!(!place.exists(), "made when it is needed");
        spills.perform(&files, 0, write(1, 0, 0, "abc"));
        assert_eq!(std::fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o700);
        // A file stands where the folder should be.
        let blocked = outer.path().join("blocked");
        std::fs::write(&blocked, "").unwrap();
        let mut spills = Spills::new(blocked.join("spill"));
        for _ in 0..2 {
            let word = spills.perform(&files, 0, write(1, 0, 0, "abc"));
            assert!(matches!(word, Some(SpillWord::Failed { bytes: 3, .. })), "{word:?}");
        }
        let end = spills.perform(&files, 0, SpillOrder::End { file: SpillId(1) });
        assert!(end.is_none() && spills.broken.is_empty());
    }
}
