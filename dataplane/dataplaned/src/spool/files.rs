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

    /// Makes a file that has no name any more when this returns: nobody else opens it, and its room is free again when it is
    /// closed, or the process ends, however that comes. To write and to read.
    pub fn nameless(&self, path: &Path) -> io::Result<SpoolFile> {
        let kind = match &self.0 {
            Kind::Std => FileKind::Std(
                fs::OpenOptions::new().read(true).write(true).create_new(true).mode(MODE).open(path)?,
            ),
            Kind::Uring(runtime) => {
                let mut options = tokio_uring::fs::OpenOptions::new();
                options.read(true).write(true).create_new(true).mode(MODE);
                FileKind::Uring(runtime.block_on(options.open(path))?)
            }
        };
        fs::remove_file(path)?;
        Ok(SpoolFile { kind, length: 0 })
    }

    /// Writes all of `bytes` from an octet on; the emptied buffer comes back for the next time.
    pub fn write(&self, file: &mut SpoolFile, at: u64, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        file.length = at;
        self.append(file, bytes)
    }

    /// Reads so many octets from an octet on.
    pub fn read(&self, file: &SpoolFile, at: u64, length: usize) -> io::Result<Vec<u8>> {
        match (&self.0, &file.kind) {
            (Kind::Uring(runtime), FileKind::Uring(file)) => {
                let (done, bytes) =
                    runtime.block_on(async { file.read_exact_at(Vec::with_capacity(length), at).await });
                done.map(|()| bytes)
            }
            (_, FileKind::Std(file)) => {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, at).map(|()| bytes)
            }
            (Kind::Std, FileKind::Uring(_)) => Err(io::Error::from(io::ErrorKind::Unsupported)),
        }
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

    #[test]
    fn both_ways_read_what_they_wrote_in_a_file_that_nobody_sees() {
        let folder = tempfile::tempdir().unwrap();
        for files in [Some(Files::std()), Files::uring().ok()].into_iter().flatten() {
            let path = folder.path().join(files.label());
            let mut file = files.nameless(&path).unwrap();
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
            for (at, octet) in [(0, 1), (5000, 2), (1000, 3)] {
                files.write(&mut file, at, vec![octet; 1000]).0.unwrap();
            }
            let read = |at, length| files.read(&file, at, length).unwrap();
            assert_eq!(read(500, 1000), [vec![1; 500], vec![3; 500]].concat());
            assert_eq!(read(5999, 1), [2]);
            assert!(files.read(&file, 5500, 1000).is_err(), "beyond its end");
            files.close(file).unwrap();
        }
    }
}
