//! Files written by offset, through tokio-uring, or through std where the host forbids io_uring.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Captures hold what people said: for nobody else's eyes.
const MODE: u32 = 0o600;

/// What writes the spool's files, on its one thread.
pub struct Files(Kind);

enum Kind {
    Uring(Box<tokio_uring::Runtime>),
    Std,
}

/// A file that is written from its start on.
pub struct SpoolFile {
    kind: FileKind,
    length: u64,
}

enum FileKind {
    Uring(tokio_uring::fs::File),
    Std(fs::File),
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.label())
    }
}

impl std::fmt::Debug for SpoolFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpoolFile").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Files {
    /// By tokio-uring; an error where the host forbids io_uring.
    pub fn uring() -> io::Result<Self> {
        Ok(Files(Kind::Uring(Box::new(tokio_uring::Runtime::new(&tokio_uring::builder())?))))
    }

    /// By std.
    pub fn std() -> Self {
        Files(Kind::Std)
    }

    /// `"tokio-uring"` or `"std"`.
    pub fn label(&self) -> &'static str {
        match self.0 {
            Kind::Uring(_) => "tokio-uring",
            Kind::Std => "std",
        }
    }

    /// Makes a new file; an error if there is one already.
    pub fn create(&self, path: &Path) -> io::Result<SpoolFile> {
        let kind = match &self.0 {
            Kind::Std => {
                FileKind::Std(fs::OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?)
            }
            Kind::Uring(runtime) => FileKind::Uring(runtime.block_on(async {
                tokio_uring::fs::OpenOptions::new().write(true).create_new(true).mode(MODE).open(path).await
            })?),
        };
        Ok(SpoolFile { kind, length: 0 })
    }

    /// Appends all of `bytes`; the emptied buffer comes back for the next time.
    pub fn append(&self, file: &mut SpoolFile, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        let (at, length) = (file.length, bytes.len() as u64);
        let (done, mut bytes) = match (&self.0, &file.kind) {
            (Kind::Uring(runtime), FileKind::Uring(file)) => {
                runtime.block_on(async { file.write_all_at(bytes, at).await })
            }
            (_, FileKind::Std(file)) => (file.write_all_at(&bytes, at), bytes),
            (Kind::Std, FileKind::Uring(_)) => (Err(io::Error::from(io::ErrorKind::Unsupported)), bytes),
        };
        if done.is_ok() {
            file.length += length;
        }
        bytes.clear();
        (done, bytes)
    }

    /// Closes a file.
    pub fn close(&self, file: SpoolFile) -> io::Result<()> {
        match (&self.0, file.kind) {
            (Kind::Uring(runtime), FileKind::Uring(file)) => runtime.block_on(file.close()),
            _ => Ok(()),
        }
    }
}

impl SpoolFile {
    /// Octets written.
    pub fn length(&self) -> u64 {
        self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_write_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        for files in [Some(Files::std()), Files::uring().ok()].into_iter().flatten() {
            let path = folder.path().join(files.label());
            let mut file = files.create(&path).unwrap();
            let mut buffer = Vec::new();
            for n in 0..10u8 {
                buffer.extend_from_slice(&[n; 1000]);
                let (done, empty) = files.append(&mut file, buffer);
                done.unwrap();
                buffer = empty;
                assert!(buffer.is_empty() && buffer.capacity() >= 1000);
            }
            assert_eq!(file.length(), 10_000);
            files.close(file).unwrap();
            let expected: Vec<u8> = (0..10u8).flat_map(|n| [n; 1000]).collect();
            assert_eq!(fs::read(&path).unwrap(), expected);
            assert!(files.create(&path).is_err(), "nothing is overwritten");
        }
    }
}
