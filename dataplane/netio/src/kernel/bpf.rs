//! The system call bpf(2), as much as one table and one program need.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const MAP_CREATE: i32 = 0;
const MAP_LOOKUP: i32 = 1;
const MAP_UPDATE: i32 = 2;
const MAP_DELETE: i32 = 3;
const PROG_LOAD: i32 = 5;
#[cfg(test)]
const PROG_TEST_RUN: i32 = 10;
const MAP_LOOKUP_AND_DELETE: i32 = 21;
const LINK_CREATE: i32 = 28;

const MAP_TYPE_HASH: u32 = 1;
const PROG_TYPE_SCHED_CLS: u32 = 3;
/// The program comes before the stack, on what an interface received (tcx, Linux 6.6).
const ATTACH_TCX_INGRESS: u32 = 46;

/// Octets of the verifier's words that are kept when it refuses.
const LOG_BYTES: usize = 64 << 10;

fn bpf<T>(command: i32, attributes: &mut T) -> io::Result<i64> {
    // SAFETY: the kernel reads and writes `size_of::<T>()` octets of a structure that lives across the call, and what its
    // members point at does too: each caller below hands in buffers that it holds.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}

fn descriptor(number: i64) -> io::Result<OwnedFd> {
    let number = i32::try_from(number).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the call that gave the number made the descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn raw(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd() as u32
}

/// A hash table in the kernel, keys and values of fixed size.
#[derive(Debug)]
pub(super) struct Table<const KEY: usize, const VALUE: usize> {
    fd: OwnedFd,
}

#[repr(C)]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct MapElement {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl<const KEY: usize, const VALUE: usize> Table<KEY, VALUE> {
    /// A table of so many entries at most; their memory is taken now.
    pub(super) fn new(entries_max: u32) -> io::Result<Self> {
        let mut create = MapCreate {
            map_type: MAP_TYPE_HASH,
            key_size: KEY as u32,
            value_size: VALUE as u32,
            max_entries: entries_max,
            ..MapCreate::default()
        };
        Ok(Table { fd: descriptor(bpf(MAP_CREATE, &mut create)?)? })
    }

    fn element(&self, command: i32, key: &[u8; KEY], value: u64) -> io::Result<()> {
        let key = key.as_ptr() as u64;
        bpf(command, &mut MapElement { map_fd: raw(&self.fd), key, value, ..MapElement::default() })
            .map(|_| ())
    }

    pub(super) fn put(&self, key: &[u8; KEY], value: &[u8; VALUE]) -> io::Result<()> {
        self.element(MAP_UPDATE, key, value.as_ptr() as u64)
    }

    fn found(&self, command: i32, key: &[u8; KEY]) -> io::Result<Option<[u8; VALUE]>> {
        let mut value = [0; VALUE];
        match self.element(command, key, value.as_mut_ptr() as u64) {
            Ok(()) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn read(&self, key: &[u8; KEY]) -> io::Result<Option<[u8; VALUE]>> {
        self.found(MAP_LOOKUP, key)
    }

    /// Takes an entry out and says what it was, in one step.
    pub(super) fn take(&self, key: &[u8; KEY]) -> io::Result<Option<[u8; VALUE]>> {
        let taken = self.found(MAP_LOOKUP_AND_DELETE, key);
        if taken.is_err() {
            // An entry must not outlive what it stood for, whether it can be read or not.
            self.element(MAP_DELETE, key, 0)?;
        }
        taken
    }

    pub(super) fn number(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

/// A program that the kernel has verified and translated.
#[derive(Debug)]
pub(super) struct Program {
    fd: OwnedFd,
}

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[cfg(test)]
#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    pad: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative_fd: u32,
    pad: u32,
    expected_revision: u64,
}

impl Program {
    /// Has the kernel verify a program for received packets. An error holds the verifier's last words.
    pub(super) fn load(code: &[u64], name: &str) -> io::Result<Self> {
        let mut prog_name = [0; 16];
        prog_name.iter_mut().zip(name.bytes().take(15)).for_each(|(to, from)| *to = from);
        // Read by the kernel to tell which of its functions may be called; none of those used here asks for more.
        let license = c"Dual MIT/GPL";
        let attributes = |log: &mut [u8]| ProgLoad {
            prog_type: PROG_TYPE_SCHED_CLS,
            insn_cnt: code.len() as u32,
            insns: code.as_ptr() as u64,
            license: license.as_ptr() as u64,
            log_level: u32::from(!log.is_empty()),
            log_size: log.len() as u32,
            log_buf: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
            prog_name,
            expected_attach_type: ATTACH_TCX_INGRESS,
            ..ProgLoad::default()
        };
        let error = match bpf(PROG_LOAD, &mut attributes(&mut [])) {
            Ok(number) => return Ok(Program { fd: descriptor(number)? }),
            Err(error) => error,
        };
        if error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error() == Some(libc::EPERM) {
            return Err(error);
        }
        // Again, to hear why.
        let mut log = vec![0; LOG_BYTES];
        let again = bpf(PROG_LOAD, &mut attributes(&mut log));
        if let Ok(number) = again {
            return Ok(Program { fd: descriptor(number)? });
        }
        let text = String::from_utf8_lossy(&log);
        let last: Vec<&str> = text.trim_end_matches('\0').lines().rev().take(6).collect();
        let words: Vec<&str> = last.into_iter().rev().collect();
        Err(io::Error::new(error.kind(), format!("{error}: {}", words.join("; "))))
    }

    /// Runs the program on a packet without any interface: what it answers, and the packet after it.
    #[cfg(test)]
    pub(super) fn test_run(&self, packet: &[u8]) -> io::Result<(u32, Vec<u8>)> {
        let mut out = vec![0; packet.len() + 256];
        let mut run = TestRun {
            prog_fd: raw(&self.fd),
            data_size_in: packet.len() as u32,
            data_size_out: out.len() as u32,
            data_in: packet.as_ptr() as u64,
            data_out: out.as_mut_ptr() as u64,
            ..TestRun::default()
        };
        bpf(PROG_TEST_RUN, &mut run)?;
        out.truncate(run.data_size_out as usize);
        Ok((run.retval, out))
    }

    /// Lets the program see what an interface receives, for as long as the link lives: the kernel takes it off when its
    /// descriptor is closed, however the process ends.
    pub(super) fn attach(&self, interface: u32) -> io::Result<Link> {
        let mut create = LinkCreate {
            prog_fd: raw(&self.fd),
            target_ifindex: interface,
            attach_type: ATTACH_TCX_INGRESS,
            ..LinkCreate::default()
        };
        Ok(Link { _fd: descriptor(bpf(LINK_CREATE, &mut create)?)? })
    }
}

/// A program at an interface; gone when dropped.
#[derive(Debug)]
pub(super) struct Link {
    _fd: OwnedFd,
}
