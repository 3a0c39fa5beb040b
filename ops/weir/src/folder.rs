//! The folder of a node: one node at a time, and nobody else's eyes. What stands in it (passwords, accepted messages,
//! rosters) is the subscribers' own.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

const LOCK: &str = "weir.lock";

/// A folder that is ours until this is dropped, or the process ends in whatever way.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder where it is missing, and takes it.
    pub(crate) fn take(path: &Path) -> anyhow::Result<Folder> {
        let name = || path.display().to_string();
        DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(name)?;
        let path = path.canonicalize().with_context(name)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK))
            .with_context(name)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = lock.read_to_string(&mut holder);
                bail!(
                    "{}: a node runs here already (process {}); end it, or name another folder",
                    path.display(),
                    holder.trim()
                );
            }
            Err(TryLockError::Error(e)) => return Err(e).with_context(name),
        }
        lock.set_len(0)?;
        writeln!(lock, "{}", std::process::id())?;
        Ok(Folder { path, _lock: lock })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::choices::Choices;
    use crate::node;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_second_node_in_a_folder_is_refused_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("node");
        let first = node::embedded(&folder, Choices::default()).unwrap();
        let before = std::fs::read_to_string(&first.file).unwrap();
        let refused = node::embedded(&folder, Choices::default()).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        assert_eq!(std::fs::read_to_string(&first.file).unwrap(), before);
        drop(first);
        node::embedded(&folder, Choices::default()).unwrap();
    }

    #[test]
    fn what_a_node_writes_down_is_for_its_own_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let prepared = node::embedded(&dir.path().join("node"), Choices::default()).unwrap();
        assert_eq!(mode(prepared.folder.path()), 0o700);
        assert_eq!(mode(&prepared.file), 0o600);
    }
}
